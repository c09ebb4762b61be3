"""Chunks of members one after another in this process, or at once in processes of their own (joblib, loky).

Workers write finished members to the pool themselves and send back a few numbers. The arrays of the data set reach
them as memory-mapped files, one copy for all. A worker whose parent has gone ends itself: nothing is left behind,
however the parent ends.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lrensemble.data import Splits
from lrensemble.errors import TrainingError
from lrensemble.training.allocator import keep_large_blocks
from lrensemble.training.batches import check_portable
from lrensemble.training.devices import claimed
from lrensemble.training.progress import Event, Mailbox, Report
from lrensemble.training.task import Setting, Task
from lrensemble.training.worker import train_chunk

if TYPE_CHECKING:
    from lrensemble.training.cluster import Cluster

__all__ = ["in_workers", "train_members"]

WATCH_SECONDS = 0.5

Chunks = Sequence[Sequence[Task]]
T = TypeVar("T")


def train_members(
    chunks: Chunks,
    splits: Splits,
    setting: Setting,
    *,
    engine: str = "loop",
    jobs: int,
    report: Report,
    done: int = 0,
    total: int | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Train all tasks and add the members to the pool.

    Parameters
    ----------
    chunks, splits, setting
        What to train, in groups that are given to a process together, on which data, and where.
    engine
        What trains a chunk: a name in ``ENGINES``.
    jobs
        Chunks trained at once; 1 trains in this process.
    report
        Given every event.
    done, total
        Members that were there before, and that are asked for, for the counts of the events; these and those before
        when None.
    cluster
        Whose workers train instead of this machine.

    Raises
    ------
    DataError
        If several jobs are to train and a Dataset cannot be sent to other processes.
    TrainingError
        If a member fails or a worker is lost. Finished members are kept.
    KeyboardInterrupt
        On SIGINT and on SIGTERM (where the program has no handler of its own); the workers are stopped before. Finished
        members and the last saved state of the others are kept.
    """
    report = _counted(report, done, done + sum(map(len, chunks)) if total is None else total)
    with _sigterm_interrupts():
        if cluster is not None:
            cluster.train(chunks, splits, setting, engine=engine, report=report, jobs=jobs)
            return
        if jobs == 1:
            _one_by_one(chunks, splits, setting, report, engine)
            return
        check_portable(splits)
        with Mailbox.open(report) as mailbox, _parallel(chunks, splits, setting, jobs, mailbox.path, engine) as ended:
            for _ in ended:
                mailbox.collect()


def _counted(report: Report, done: int, total: int) -> Report:
    """Write into the events of finished members how many there are now, and are to be."""
    numbers = itertools.count(done + 1)

    def numbered(event: Event) -> None:
        report(replace(event, done=next(numbers), total=total) if event.kind == "member" else event)

    return numbered


def _one_by_one(chunks: Chunks, splits: Splits, setting: Setting, report: Report, engine: str) -> None:
    def shielded(event: Event) -> None:
        try:
            report(event)
        except Exception as error:
            raise _ReportError(error) from error

    for chunk in chunks:
        try:
            train_chunk(chunk, splits, setting, shielded, engine=engine)
        except _ReportError as stop:
            raise stop.error from None


class _ReportError(BaseException):
    """Carries an error of the caller's own function past all that deals with errors of the training."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _parallel(
    chunks: Chunks, splits: Splits, setting: Setting, jobs: int, mailbox: Path, engine: str
) -> Iterator[Iterator[None]]:
    """Yield a value whenever a chunk has ended; when the block ends early, stop all workers at once."""
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    parallel = _workers(jobs)
    work = joblib.delayed(_train_in_worker)
    with _without_warnings():
        try:
            with closing(
                parallel(work(chunk, splits, setting, mailbox, engine, os.getcwd()) for chunk in chunks)
            ) as ended:
                _end_at_exit()
                yield ended
        except BrokenProcessPool as error:
            raise TrainingError(
                "a worker process was lost (killed from outside, perhaps for lack of memory): start the same training "
                "again to go on where it stopped, with fewer jobs if memory is short"
            ) from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Be silent when a worker that has grown is replaced, or stopping early cancels the rest: both are as intended."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        warnings.filterwarnings("ignore", message=".*tasks (have been successfully executed|which were still being)")
        yield


def _workers(jobs: int) -> Any:
    """Return a `joblib.Parallel` that gives what is done in processes of their own, in the order in which it is."""
    import joblib

    return joblib.Parallel(
        n_jobs=jobs,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        mmap_mode="c",
        initializer=_prepare_worker,
        initargs=(os.getpid(), tuple(sys.path)),  # other arguments than last time: joblib starts new workers
    )


@cache
def _end_at_exit() -> None:
    """End idle workers at once when the program ends: by themselves they take a second or two to clear up.

    Call it when workers have been started: what was registered last is called first, and joblib waits for them.
    """
    register = getattr(threading, "_register_atexit", None)  # that `concurrent.futures` uses too
    if register is not None:
        register(_kill_idle_workers)


def _kill_idle_workers() -> None:
    for process in multiprocessing.active_children():
        if type(process).__module__.startswith("joblib.externals.loky") and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def in_workers(function: Callable[..., T], *arguments: Any, jobs: int) -> list[T]:
    """Call a function `jobs` times at once, in the processes that are going to train, and return what it returns."""
    import joblib

    work = joblib.delayed(function)
    with _without_warnings(), closing(_workers(jobs)(work(*arguments) for _ in range(jobs))) as answers:
        _end_at_exit()
        return list(answers)


def _prepare_worker(parent: int, import_path: Sequence[str]) -> None:
    """Run once in every worker process."""
    sys.path[:] = import_path
    keep_large_blocks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes; the parent decides what happens
    threading.Thread(target=_end_with, args=(parent,), name="lrensemble-watch", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _train_in_worker(
    chunk: Sequence[Task], splits: Splits, setting: Setting, mailbox: Path, engine: str, directory: str
) -> None:
    os.chdir(directory)  # the worker may be older than the caller's last change of directory
    with claimed(setting, mailbox.parent) as own:
        train_chunk(chunk, splits, own, partial(Mailbox.post, mailbox), engine=engine)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, unless the program handles it itself or this is not its main thread."""
    free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
