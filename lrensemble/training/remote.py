"""What a worker of a cluster does: it trains a chunk, in the pool itself where it sees it, else in one of its own.

All that it has to say goes through one queue to the process that started the training: questions, events, and, from a
pool of its own, states and finished members as the bytes of their files. A task that nobody wants any more (cancelled,
or its client gone) ends after the epoch under way; the worker lives on for others.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np

from lrensemble.data import Splits
from lrensemble.data.splits import PARTS
from lrensemble.errors import TrainingError, first_line
from lrensemble.files import write_bytes_atomic
from lrensemble.pool.member import check_name
from lrensemble.training.progress import Event
from lrensemble.training.task import Setting, Task
from lrensemble.training.worker import train_chunk

__all__ = ["HIDE_VARIABLE", "MOST_MESSAGES", "Order", "different_versions", "facts", "train_remotely"]

POST_SECONDS = 0.2  # events are gathered for so long: a message costs milliseconds, an epoch may too
WAIT_SECONDS = 5.0  # for the other side, before asking whether the task is still wanted
MOST_MESSAGES = 256  # that may wait in the queue: a worker that is too fast waits
STATE_SHARE = 0.1  # of the time, at most, that sending states takes
HIDE_VARIABLE = "LRENSEMBLE_PRIVATE_POOL"  # set for a worker, it takes the file system for one that is not shared


@dataclass(frozen=True)
class Order:
    """All that a worker is given beside the data.

    Attributes
    ----------
    chunk
        Tasks to train together, pickled: they may need modules that are only found by `import_path`.
    setting, engine
        As `train_chunk` takes them.
    queue
        Name of the queue that the parent reads.
    token
        Name and content of a file in the pool's folder: who reads it there sees the parent's file system.
    versions
        Of what decides the results; the worker's must be the same.
    import_path
        Folders of the parent's modules; those that the worker has too are searched last.
    """

    chunk: bytes
    setting: Setting
    engine: str
    queue: str
    token: tuple[str, str]
    versions: Mapping[str, str]
    import_path: tuple[str, ...]


def facts(dask_worker: Any = None) -> dict[str, Any]:
    """Versions and equipment of this process; what decides the results stands under ``versions``.

    Dask gives a function with an argument of this name the worker that it is run on.
    """
    import platform

    import torch

    from lrensemble import __version__

    return {
        "versions": {"lrensemble": __version__, "torch": torch.__version__},
        "others": {
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "vector instructions": torch.backends.cpu.get_cpu_capability(),  # they decide the last bits too
        },
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": dask_worker.state.nthreads if dask_worker is not None else 1,
    }


def train_remotely(order: Order, splits: Splits) -> None:
    """Train what is missing of a chunk; runs as a task on a worker.

    Raises
    ------
    TrainingError
        If this worker does not fit, cannot load the tasks, or a member fails.
    """
    here = facts()
    if here["versions"] != order.versions:
        raise TrainingError(different_versions("a worker", order.versions, here["versions"]))
    if order.setting.device.startswith("cuda") and here["device"] != "cuda":
        raise TrainingError("a worker without a GPU has joined the others, which have one: stop it, or give the device")
    chunk, setting = _load(order), order.setting
    if current_process().daemon:  # as under Dask's nanny: it may have no processes of its own
        setting = replace(setting, readers=0)
    try:
        with _Line(order.queue) as line:
            shared = _sees_pool(order)
            answer = line.ask([task.id for task in chunk], shared)
            if setting.deadline is not None:  # by the parent's clock, which may go otherwise
                setting = replace(setting, deadline=setting.deadline + time.time() - answer["clock"])
            missing = [_without(task, answer["taken"]) for task in chunk if task.id not in answer["done"]]
            if missing and shared:
                train_chunk(missing, _aligned(splits), setting, line.report, engine=order.engine)
            elif missing:
                with tempfile.TemporaryDirectory(prefix="lrensemble-", dir=line.folder) as folder:
                    mirror = _Mirror(Path(folder), answer, line)
                    own = replace(setting, pool=Path(folder))
                    train_chunk(missing, _aligned(splits), own, mirror.report, engine=order.engine)
    except _UnwantedError:
        pass  # nobody waits for an answer


def _without(task: Task, taken: Sequence[str]) -> Task:
    """Leave out snapshots that the parent's pool has, which this worker may not see."""
    return replace(task, snapshots=tuple(snapshot for snapshot in task.snapshots if snapshot.id not in taken))


def different_versions(who: str, expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """One sentence about versions that differ."""
    ours, theirs = (", ".join(f"{name} {version}" for name, version in v.items()) for v in (expected, found))
    return f"{who} has {theirs}, expected {ours} as here: install the same versions, else results would differ"


class _UnwantedError(BaseException):
    """Ends a training that nobody waits for; passes all that deals with errors of the training."""


def _load(order: Order) -> list[Task]:
    import cloudpickle

    sys.path.extend(path for path in order.import_path if path not in sys.path and os.path.isdir(path))
    try:
        return cloudpickle.loads(order.chunk)
    except Exception as error:
        raise TrainingError(
            f"a worker cannot load the tasks ({first_line(error)}): install the module of your network on all workers"
        ) from None


def _sees_pool(order: Order) -> bool:
    """Whether the parent's pool is here, shown by its token, and can be written to."""
    name, content = order.token
    if os.environ.get(HIDE_VARIABLE):
        return False
    try:
        if (order.setting.pool / name).read_text(encoding="utf-8") != content:
            return False
        with tempfile.TemporaryFile(prefix=".", dir=order.setting.pool):
            return True
    except OSError:
        return False


def _aligned(splits: Splits) -> Splits:
    """Copy arrays that do not lie at a multiple of their items' size in memory, as they come from the network."""
    for part in PARTS:
        split = getattr(splits, part)
        for name in ("x", "y"):
            array = getattr(split, name, None)  # streamed data have no x
            if isinstance(array, np.ndarray) and not array.flags.aligned:
                object.__setattr__(split, name, array.copy())  # the one copy that all tasks of this worker share
    return splits


class _Line:
    """The line to the parent, for one task.

    Attributes
    ----------
    folder
        Of this worker, for temporary files.
    """

    def __init__(self, queue: str) -> None:
        from distributed import Queue, get_client, get_worker

        worker = get_worker()
        self.folder = worker.local_directory
        self._tasks, self._key = worker.state.tasks, worker.get_current_task()
        self._client = get_client()
        self._queue = Queue(queue, client=self._client, maxsize=MOST_MESSAGES)
        self._messages: list[dict[str, Any]] = []
        self._sent = time.monotonic()

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None or not issubclass(kind, _UnwantedError):
            self._flush()
        self._queue.close()

    def ask(self, tasks: Sequence[str], shared: bool) -> dict[str, Any]:
        """Ask the parent what there is of these tasks: names of finished ones, states of others, header of the pool."""
        from distributed import Variable

        answer = Variable(client=self._client)
        self.post({"kind": "ask", "answer": answer.name, "tasks": list(tasks), "shared": shared}, now=True)
        while True:
            try:
                found = answer.get(timeout=WAIT_SECONDS)
            except TimeoutError:
                self._stop_if_unwanted()
                continue
            answer.delete()
            return found

    def report(self, event: Event) -> None:
        """Hand an event on, sooner or later; end the task if it is not wanted any more."""
        self._stop_if_unwanted()
        values = {name: value for name, value in asdict(event).items() if value}
        self.post({"kind": "event", "event": json.dumps(values)}, now=event.kind != "epoch")

    def post(self, message: dict[str, Any], *, now: bool = False) -> None:
        """Hand a message on: plain values and bytes only."""
        self._messages.append(message)
        if now or time.monotonic() - self._sent >= POST_SECONDS:
            self._flush()

    def _flush(self) -> None:
        while self._messages:
            try:
                self._queue.put(self._messages, timeout=WAIT_SECONDS)
                self._messages = []
            except TimeoutError:
                self._stop_if_unwanted()
        self._sent = time.monotonic()

    def _stop_if_unwanted(self) -> None:
        task = self._tasks.get(self._key)
        if task is None or task.state in ("cancelled", "released", "forgotten"):
            raise _UnwantedError


class _Mirror:
    """Sends on what appears in a pool of the worker's own.

    Parameters
    ----------
    root
        Folder of that pool; made here, with the header and the states that the parent has.
    answer
        From `_Line.ask`.
    line
        To the parent.
    """

    def __init__(self, root: Path, answer: Mapping[str, Any], line: _Line) -> None:
        self._root, self._line = root, line
        write_bytes_atomic(root / "pool.h5", answer["header"])
        for name, content in answer["states"].items():
            write_bytes_atomic(root / "resume" / check_name(name, "state"), content)
        self._known: dict[Path, tuple[int, int]] = {}
        self._changed("resume")
        self._next_states = 0.0

    def report(self, event: Event) -> None:
        """Send new members and states, then the event."""
        for path in self._changed("members"):
            self._send_member(path)
        if event.kind in ("member", "rest") or time.monotonic() >= self._next_states:
            start = time.monotonic()
            for path in self._changed("resume"):
                content = path.read_bytes() if path.exists() else b""  # nothing: the parent is to remove it
                self._line.post({"kind": "state", "name": path.name, "content": content}, now=True)
            self._next_states = time.monotonic() + (time.monotonic() - start) * (1 / STATE_SHARE - 1)
        self._line.report(event)

    def _changed(self, folder: str) -> list[Path]:
        """Files that are new, replaced or gone since the last call."""
        known = {path: stamp for path, stamp in self._known.items() if path.parent.name == folder}
        here = {path: _stamp(path) for path in (self._root / folder).glob("[!.]*")}
        self._known = {path: self._known[path] for path in self._known.keys() - known.keys()} | here
        return sorted(path for path in known.keys() | here.keys() if known.get(path) != here.get(path))

    def _send_member(self, path: Path) -> None:
        weights = self._root / "weights" / f"{path.stem}.safetensors"
        files = {"file": path.read_bytes(), "weights": weights.read_bytes() if weights.exists() else b""}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._line.post({"kind": "member", "name": path.stem, "digests": digests, **files}, now=True)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
