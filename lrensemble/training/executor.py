"""Members one after another in this process, or several at once in processes of their own (joblib, loky).

Workers write finished members to the pool themselves and send back a few numbers. The arrays of the data set reach
them as memory-mapped files, one copy for all. A worker whose parent has gone ends itself: nothing is left behind,
however the parent ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lrensemble.data import Splits
from lrensemble.errors import TrainingError
from lrensemble.training.progress import Event, Mailbox, Report
from lrensemble.training.worker import Setting, Task, train_member

__all__ = ["train_members"]

WATCH_SECONDS = 0.5


def train_members(
    tasks: Sequence[Task], splits: Splits, setting: Setting, *, jobs: int, report: Report, done: int = 0
) -> None:
    """Train all tasks and add the members to the pool.

    Parameters
    ----------
    tasks, splits, setting
        What to train, on which data, and where.
    jobs
        Members trained at once; 1 trains in this process.
    report
        Given every event.
    done
        Members that were there before, for the counts of the events.

    Raises
    ------
    TrainingError
        If a member fails or a worker is lost. Finished members are kept.
    KeyboardInterrupt
        On SIGINT and on SIGTERM (where the program has no handler of its own); the workers are stopped before. Finished
        members and the last saved state of the others are kept.
    """
    total = done + len(tasks)
    with _sigterm_interrupts():
        if jobs == 1:
            for number, event in enumerate(_one_by_one(tasks, splits, setting, report), start=done + 1):
                report(replace(event, done=number, total=total))
            return
        with Mailbox.open(report) as mailbox, _parallel(tasks, splits, setting, jobs, mailbox.path) as events:
            for number, event in enumerate(events, start=done + 1):
                mailbox.deliver(replace(event, done=number, total=total))


def _one_by_one(tasks: Sequence[Task], splits: Splits, setting: Setting, report: Report) -> Iterator[Event]:
    def shielded(event: Event) -> None:
        try:
            report(event)
        except Exception as error:
            raise _ReportError(error) from error

    for task in tasks:
        try:
            event = train_member(task, splits, setting, shielded)
        except _ReportError as stop:
            raise stop.error from None
        yield event


class _ReportError(BaseException):
    """Carries an error of the caller's own function past all that deals with errors of the training."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _parallel(
    tasks: Sequence[Task], splits: Splits, setting: Setting, jobs: int, mailbox: Path
) -> Iterator[Iterator[Event]]:
    """Yield the events of finished members as they come; when the block ends early, stop all workers at once."""
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    parallel = joblib.Parallel(
        n_jobs=jobs,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        mmap_mode="c",
        initializer=_prepare_worker,
        initargs=(os.getpid(), tuple(sys.path)),  # other arguments than last time: joblib starts new workers
    )
    work = joblib.delayed(_train_in_worker)
    with warnings.catch_warnings():
        # a worker that has grown is replaced, and stopping early cancels the rest: both are as intended
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        warnings.filterwarnings("ignore", message=".*tasks (have been successfully executed|which were still being)")
        try:
            with closing(parallel(work(task, splits, setting, mailbox, os.getcwd()) for task in tasks)) as events:
                yield events
        except BrokenProcessPool as error:
            raise TrainingError(
                "a worker process was lost (killed from outside, perhaps for lack of memory): start the same training "
                "again to go on where it stopped, with fewer jobs if memory is short"
            ) from error


def _prepare_worker(parent: int, import_path: Sequence[str]) -> None:
    """Run once in every worker process."""
    sys.path[:] = import_path
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes; the parent decides what happens
    threading.Thread(target=_end_with, args=(parent,), name="lrensemble-watch", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _train_in_worker(task: Task, splits: Splits, setting: Setting, mailbox: Path, directory: str) -> Event:
    os.chdir(directory)  # the worker may be older than the caller's last change of directory
    return train_member(task, splits, setting, partial(Mailbox.post, mailbox))


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
