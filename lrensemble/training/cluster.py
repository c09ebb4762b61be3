"""A pool on the workers of a Dask cluster: hand out chunks, answer the workers, and file what they send.

A worker that sees the pool's folder (it finds there a file that was written a moment ago) works in it as a process of
this machine does. Another works in a pool of its own, and states and finished members come back as the bytes of their
files; they are read with the checks of any pool before they are stored. Dask gives the chunk of a lost worker to
another one, which asks for the last saved states and goes on from there.

Chunks are submitted one by one instead of through joblib: its backend for Dask never returns when a task is given up,
and cannot stop tasks that are running (joblib 1.6).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import secrets
import sys
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrensemble.data import Splits
from lrensemble.errors import InputError, LREnsembleError, TrainingError, first_line
from lrensemble.files import write_bytes_atomic, write_text_atomic
from lrensemble.pool import Pool
from lrensemble.pool.member import check_name
from lrensemble.training.progress import Event, Report
from lrensemble.training.remote import MOST_MESSAGES, Order, different_versions, facts, train_remotely
from lrensemble.training.schedule import USUAL_STACK
from lrensemble.training.task import Setting, Task
from lrensemble.training.workshop import is_complete

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Cluster", "connected"]

CONNECT_SECONDS = 10
WORKER_SECONDS = 60  # without any worker, before giving up
POLL_SECONDS = 0.1
WATCH_SECONDS = 2.0  # between two looks at the number of workers
MOST_LOSSES = 3  # of the data with the last worker, under one chunk
AGAIN = "start the same training again to go on where it stopped"


@dataclass(frozen=True)
class Cluster:
    """Workers that are there.

    Attributes
    ----------
    address
        Of the scheduler.
    client
        The connection.
    workers
        What each said of itself (`facts`), by address.
    data
        Data sets that were sent to the workers, by identity.
    """

    address: str
    client: Client
    workers: Mapping[str, Mapping[str, Any]]
    data: dict[int, Future] = field(default_factory=dict, repr=False)

    def device(self, asked: str) -> str:
        """Return ``"cpu"`` or ``"cuda"``: what all workers train on, `asked` or ``"auto"``.

        Raises
        ------
        InputError
            If some workers have a GPU and others none, and none was asked for: their results differ in the last bits.
        """
        have = sorted({worker["device"] for worker in self.workers.values()})
        if asked not in ("auto", "cpu", "cuda"):
            raise InputError(f"device: expected auto, cpu or cuda with a scheduler, got {asked!r}")
        if asked == "auto" and len(have) > 1:
            raise InputError(
                f"{self.address}: some workers have a GPU and some have none, and their results differ in the last "
                "bits: give device 'cpu' or 'cuda'"
            )
        if asked == "cuda" and "cuda" not in have:
            raise InputError(f"device: expected workers with a GPU at {self.address}, found none")
        return have[0] if asked == "auto" else asked

    def suited(self, setting: Setting, compute: Mapping[str, Any]) -> tuple[Setting, dict[str, Any]]:
        """Return the setting with the device of the workers, and what `schedule` is to be asked for.

        How wide a stack pays is not measured here, where the work is not done.
        """
        device = self.device(setting.device)
        jobs = min(compute["jobs"] or self.size(device), self.size(device))
        stack = compute["stack"] or USUAL_STACK[device]
        own = replace(setting, device=device, devices=(device,))
        return own, {**compute, "jobs": jobs, "stack": stack, "unit": "worker"}

    def suitable(self, device: str) -> list[str] | None:
        """Addresses of the workers that have the device; None, which lets later ones join, when all have it."""
        found = [address for address, worker in self.workers.items() if device in ("cpu", worker["device"])]
        return found if len(found) < len(self.workers) else None

    def size(self, device: str) -> int:
        """Return how many workers have the device."""
        return len(self.suitable(device) or self.workers)

    def train(
        self,
        chunks: Sequence[Sequence[Task]],
        splits: Splits,
        setting: Setting,
        *,
        engine: str,
        report: Report,
        jobs: int | None = None,
    ) -> None:
        """Train all tasks and add the members to the pool.

        Parameters
        ----------
        chunks, splits, setting, engine
            As `train_chunk` takes them, several chunks.
        report
            Given every event, in this thread.
        jobs
            Chunks trained at once at most, where fewer than there are workers.

        Raises
        ------
        TrainingError
            If a member fails, a chunk is given up, or scheduler or workers are lost. What was finished is kept.
        """
        tasks = [task for chunk in chunks for task in chunk]
        with _Desk.open(self, tasks, setting, report) as desk:
            limit = jobs if jobs is not None and jobs < self.size(setting.device) else len(chunks)
            _Round(self, desk, chunks, splits, setting, engine).run(limit)


@contextmanager
def connected(address: str, report: Report) -> Iterator[Cluster]:
    """Connect to a scheduler, wait for a worker, and compare versions.

    Raises
    ------
    InputError
        If the address is none, Dask is not installed, or a worker has other versions of what decides the results.
    TrainingError
        If nobody answers there, or no worker comes.
    """
    if not isinstance(address, str) or "://" not in address:
        raise InputError(f"scheduler: expected an address such as tcp://host:8786, got {address!r}")
    with _quiet(), closing(_client(address)) as client:
        with _reaching(address):
            _wait_for_workers(client, address, report)
            workers = client.run(facts, on_error="return")
        _check_versions(workers, report)
        yield Cluster(address, client, workers)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask log nothing: what it has to say is said here, in one sentence."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise InputError('scheduler: expected Dask to be installed: pip install "lrensemble[cluster]"') from None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="distributed")  # versions are compared here
        try:
            return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except ValueError as error:
            raise InputError(
                f"scheduler: expected an address such as tcp://host:8786, got {address!r} ({first_line(error)})"
            ) from None
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"{address}: no scheduler answers ({first_line(error):.200}): start one with `dask scheduler`, or "
                "check the address"
            ) from None


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Around what goes through the scheduler: say that it is gone, when it is."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:  # Dask's own error is one
        raise TrainingError(f"{address}: the connection to the scheduler was lost: {AGAIN}") from error


def _wait_for_workers(client: Client, address: str, report: Report) -> None:
    if not client.nthreads():
        report(Event("note", text=f"{address}: no workers yet: waiting {WORKER_SECONDS} s for the first"))
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError:
        raise TrainingError(
            f"{address}: no worker within {WORKER_SECONDS} s: start some, `dask worker {address} --nthreads 1`"
        ) from None


def _check_versions(workers: Mapping[str, Any], report: Report) -> None:
    """Refuse other versions of what decides the results; note what else differs, and what makes workers slow."""
    here = facts()
    for address, found in workers.items():
        if isinstance(found, BaseException):
            raise InputError(
                f"worker {address} cannot be used ({first_line(found):.200}): install lrensemble "
                f"{here['versions']['lrensemble']} there"
            )
        if found["versions"] != here["versions"]:
            raise InputError(different_versions(f"worker {address}", here["versions"], found["versions"]))
    for name, version in here["others"].items():
        if others := sorted({found["others"][name] for found in workers.values()} - {version}):
            report(Event("note", text=f"some workers have {name} {', '.join(others)}; it is {version} here"))
    if any(found["threads"] > 1 for found in workers.values()):
        advice = "start workers with `--nworkers N --nthreads 1`"
        report(Event("note", text=f"a worker with several threads trains one member at a time all the same: {advice}"))


class _Round:
    """All chunks of a training, until each of them has ended."""

    def __init__(
        self,
        cluster: Cluster,
        desk: _Desk,
        chunks: Sequence[Sequence[Task]],
        splits: Splits,
        setting: Setting,
        engine: str,
    ) -> None:
        self._cluster, self._client, self._desk = cluster, cluster.client, desk
        self._splits, self._setting, self._engine = splits, setting, engine
        self._waiting = deque(chunks)
        self._running: dict[Future, Sequence[Task]] = {}
        self._versions = facts()["versions"]
        self._losses: Counter[str] = Counter()  # of the data, by the first task of a chunk that was running
        self._last_worker = self._looked = time.monotonic()

    def run(self, jobs: int) -> None:
        """Hand out at most so many chunks at a time, and take care of what comes, until all are done."""
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < jobs:
                    self._submit(self._waiting.popleft())
                self._desk.work(POLL_SECONDS)
                for future in [future for future in self._running if future.status != "pending"]:
                    self._settle(future, self._running.pop(future))
                self._watch()
            self._desk.work(0)  # what was sent before the last chunk ended
        finally:
            with suppress(Exception):  # whatever ends the training early is to be told, not this
                self._client.cancel(list(self._running), force=True)

    def _submit(self, chunk: Sequence[Task]) -> None:
        import cloudpickle

        order = Order(
            chunk=cloudpickle.dumps(list(chunk)),
            setting=self._setting,
            engine=self._engine,
            queue=self._desk.queue_name,
            token=self._desk.token,
            versions=self._versions,
            import_path=(os.getcwd(), *filter(None, sys.path)),
        )
        with _reaching(self._cluster.address):
            data = self._cluster.data.get(id(self._splits))
            if data is None:  # sent to all workers at once; those that come later copy it from them
                data = self._client.scatter(self._splits, broadcast=True, hash=False)
                self._cluster.data[id(self._splits)] = data
            future = self._client.submit(
                train_remotely,
                order,
                data,
                key=f"lrensemble-{chunk[0].id}-{secrets.token_hex(4)}",
                workers=self._cluster.suitable(self._setting.device),
                pure=False,
            )
        self._running[future] = chunk

    def _settle(self, future: Future, chunk: Sequence[Task]) -> None:
        """Deal with a chunk that has ended, in whatever way."""
        if future.status == "finished":
            return
        name = f"member '{chunk[0].id}'" + (f" and {len(chunk) - 1} trained with it" if len(chunk) > 1 else "")
        if future.status == "error":
            error = future.exception()
            if type(error).__name__ == "KilledWorker":
                raise TrainingError(f"{name}: {_KILLED}")
            if isinstance(error, LREnsembleError):
                raise error
            raise TrainingError(f"{name}: a worker failed ({type(error).__name__}: {first_line(error):.300})")
        # cancelled, but not by us: the only workers that held the data are gone
        self._losses[chunk[0].id] += 1
        if self._losses[chunk[0].id] > MOST_LOSSES:
            raise TrainingError(f"{name}: {_KILLED}")
        self._cluster.data.clear()
        self._waiting.append(chunk)

    def _watch(self) -> None:
        """Notice that there are no workers, and do not wait for ever."""
        now = time.monotonic()
        if now - self._looked < WATCH_SECONDS:
            return
        self._looked = now
        with _reaching(self._cluster.address):
            there = self._client.nthreads()
        if there:
            self._last_worker = now
        elif now - self._last_worker > WORKER_SECONDS:
            raise TrainingError(f"{self._cluster.address}: all workers are lost, and none came back: {AGAIN}")


_KILLED = (
    "several workers were lost while they trained it (killed from outside, perhaps for lack of memory): give workers "
    f"more memory, or use a smaller batch or network; {AGAIN}"
)


class _Desk:
    """Where the messages of all workers arrive.

    Attributes
    ----------
    queue_name
        Of the queue that workers write to.
    token
        Name and content of the file that shows a worker the pool.
    """

    def __init__(
        self, cluster: Cluster, queue: Any, tasks: Sequence[Task], setting: Setting, staging: Pool, report: Report
    ) -> None:
        self._cluster, self._queue, self._report = cluster, queue, report
        self._pool, self._staging = Pool.open(setting.pool), staging
        self._tasks = {task.id: task for task in tasks}
        self._asked: set[str] = set()
        self.queue_name = queue.name
        self.token = (f".cluster-{secrets.token_hex(8)}", secrets.token_hex(32))

    @classmethod
    @contextmanager
    def open(cls, cluster: Cluster, tasks: Sequence[Task], setting: Setting, report: Report) -> Iterator[_Desk]:
        """Show the token for the length of the block."""
        from distributed import Queue

        with tempfile.TemporaryDirectory(prefix="lrensemble-") as folder:
            write_bytes_atomic(Path(folder) / "pool.h5", Pool.open(setting.pool).header_bytes())
            queue = Queue(client=cluster.client, maxsize=MOST_MESSAGES)
            desk = cls(cluster, queue, tasks, setting, Pool.open(folder), report)
            file = setting.pool / desk.token[0]
            write_text_atomic(file, desk.token[1])
            try:
                yield desk
            finally:
                file.unlink(missing_ok=True)
                queue.close()

    def work(self, seconds: float) -> None:
        """Deal with what has come; wait so long for the first message."""
        try:
            with _reaching(self._cluster.address):
                arrived = [self._queue.get(timeout=seconds)] if seconds else []
                arrived += self._queue.get(batch=True)
        except TimeoutError:
            return
        for message in itertools.chain.from_iterable(arrived):
            getattr(self, f"_on_{check_name(message['kind'])}")(message)

    def _on_event(self, message: Mapping[str, Any]) -> None:
        self._report(Event(**json.loads(message["event"])))

    def _on_ask(self, message: Mapping[str, Any]) -> None:
        """Tell a worker which members are there, and hand it the last states of the others."""
        from distributed import Variable

        tasks = [self._checked(task) for task in message["tasks"]]
        there = {summary.id: summary for summary in self._pool.summaries()}
        left = [task for task in tasks if not is_complete(self._tasks[task], there)]
        if again := self._asked.intersection(left):
            text = f"the worker of {', '.join(sorted(again))} was lost: another goes on from the last saved state"
            self._report(Event("note", member=left[0], text=text))
        self._asked.update(tasks)
        taken = [snapshot.id for task in left for snapshot in self._tasks[task].snapshots if snapshot.id in there]
        answer: dict[str, Any] = {"done": [task for task in tasks if task not in left], "taken": taken}
        answer["clock"] = time.time()
        if not message["shared"]:
            paths = [path for task in left for path in self._pool.resume_paths(task)]
            answer |= {
                "header": self._pool.header_bytes(),
                "states": {path.name: path.read_bytes() for path in paths if not path.is_symlink()},
            }
        with _reaching(self._cluster.address):
            Variable(message["answer"], client=self._cluster.client).set(answer)

    def _on_state(self, message: Mapping[str, Any]) -> None:
        """Keep the state of an unfinished member (or remove it, when nothing came): it may be needed elsewhere."""
        path = self._pool.path / "resume" / self._checked(message["name"])
        if message["content"]:
            write_bytes_atomic(path, message["content"])
        else:
            path.unlink(missing_ok=True)

    def _on_member(self, message: Mapping[str, Any]) -> None:
        """Read a member with all checks in a pool apart, then store it."""
        name = self._checked(message["name"])
        for key, digest in message["digests"].items():
            if hashlib.sha256(message[key]).hexdigest() != digest:
                raise TrainingError(f"member '{name}' was damaged on its way from the worker: {AGAIN}")
        if message["weights"]:
            write_bytes_atomic(self._staging.path / "weights" / f"{name}.safetensors", message["weights"])
        write_bytes_atomic(self._staging.path / "members" / f"{name}.h5", message["file"])
        if name not in self._pool:  # it is there if it was trained again for its snapshots
            self._pool.add(self._staging.member(name), self._staging.weights(name) if message["weights"] else None)
        for path in self._staging.path.glob(f"*/{name}.*"):
            path.unlink()

    def _checked(self, name: str) -> str:
        """Return a name that came from elsewhere, if it belongs to a member that was asked for."""
        if not check_name(name).startswith(tuple(self._tasks)):
            raise TrainingError(f"a worker sent '{name}', which was not asked for")
        return name
