"""Progress of a whole pool on stderr: a live bar on a terminal, one plain line a member elsewhere. Light: no torch.

Members that are trained in other processes report through a `Mailbox`: one file to which every process appends its
events as lines, and which a thread of the parent reads.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Bar", "Epochs", "Event", "Lines", "Mailbox", "Report", "reporter"]

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Event:
    """Something that happened; what a ``progress`` callable of `train_pool` is given.

    Attributes
    ----------
    kind
        ``"epoch"``: a member has finished an epoch; ``"member"``: a member is in the pool; ``"snapshot"``: one that
        was taken from a training under way is, which `done` and `total` do not count; ``"rest"``: the training of a
        member rests, and its state is saved; ``"stopped"``: it is not to go on in this call; ``"note"``: see `text`.
    member
        Its name.
    epoch, epochs
        Epochs it has finished, and is to finish; with folds, of all its networks together.
    done, total
        Members in the pool, and asked for (in events of kind ``"member"``).
    status
        ``"done"`` or ``"diverged"`` (in events of kind ``"member"`` and ``"snapshot"``).
    val_accuracy, val_loss
        On validation data after this epoch, or of the snapshot; None when not measured.
    seconds
        Wall-clock time that the member's training has taken so far.
    text
        One sentence for people.
    """

    kind: str
    member: str = ""
    epoch: int = 0
    epochs: int = 0
    done: int = 0
    total: int = 0
    status: str = ""
    val_accuracy: float | None = None
    val_loss: float | None = None
    seconds: float = 0.0
    text: str = ""


Report = Callable[[Event], None]


def line(event: Event) -> str:
    """One plain line about a finished member, or the text of a note."""
    if event.kind == "note":
        return event.text
    count = f"[{event.done:{len(str(event.total))}}/{event.total}]" if event.kind == "member" else event.kind
    head = f"{count} {event.member}"
    seconds = f"  {event.seconds:.1f} s" if event.kind == "member" else ""
    if event.status == "diverged" or event.val_accuracy is None or event.val_loss is None:
        return f"{head}  {event.status} in epoch {event.epoch}{seconds}"
    return f"{head}  val acc {100 * event.val_accuracy:.1f} %  nll {event.val_loss:.3f}{seconds}"


class Lines:
    """Progress for a file or a pipe: one line a finished member, no control characters."""

    def __call__(self, event: Event) -> None:
        """Print the event, unless it is one of many."""
        if event.kind in ("member", "snapshot", "note"):
            print(line(event), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is left open."""


class Epochs:
    """Progress of a few trainings that rest again and again to be looked at: one line an epoch, each note once."""

    def __init__(self) -> None:
        self._noted: set[str] = set()

    @classmethod
    def shown(cls, progress: bool | Report | None) -> bool | Report:
        """Return what to give as `progress`: this, where the caller has asked for a display of ours."""
        return cls() if progress is None or progress is True else progress

    def __call__(self, event: Event) -> None:
        """Print the event, if it is an epoch or a note that is new."""
        if event.kind == "note" and event.text not in self._noted:
            self._noted.add(event.text)
            print(event.text, file=sys.stderr, flush=True)
        elif event.kind == "epoch":
            score = "diverged" if event.val_accuracy is None else f"val acc {100 * event.val_accuracy:.1f} %"
            print(f"{event.member}  epoch {event.epoch}/{event.epochs}  {score}", file=sys.stderr, flush=True)


class Bar:
    """Progress for a terminal: a bar over the epochs of all members.

    Parameters
    ----------
    members, done, epochs, n_train
        Members asked for and already there; epochs of each; training samples of an epoch.
    """

    def __init__(self, members: int, done: int, epochs: int, n_train: int) -> None:
        from tqdm import tqdm

        self._members, self._done, self._n_train = members, done, n_train
        self._reached: dict[str, int] = {}
        self._trained_epochs = 0
        self._best = (-1.0, "")
        self._start = 0.0
        self._bar = tqdm(
            desc=f"members {done}/{members}",
            total=(members - done) * epochs,
            file=sys.stderr,
            dynamic_ncols=True,
            bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} epochs [{elapsed}<{remaining}{postfix}]",
        )

    def __call__(self, event: Event) -> None:
        """Move the bar; print notes and members that diverged above it."""
        if event.kind == "note" or event.status == "diverged":
            self._bar.write(line(event), file=sys.stderr)
        if event.kind == "stopped":
            self._bar.total -= event.epochs - self._reached.get(event.member, 0)
        if event.kind in ("note", "snapshot", "rest", "stopped"):
            return
        self._done = max(self._done, event.done)
        if not self._start:  # of the clock for the throughput, which leaves out the start of the processes
            self._start = time.monotonic()
        elif event.kind == "epoch":
            self._trained_epochs += 1
        if event.val_accuracy is not None and event.status != "diverged":
            self._best = max(self._best, (event.val_accuracy, event.member))
        reached = event.epochs if event.kind == "member" else event.epoch
        gained = reached - self._reached.get(event.member, 0)
        if gained > 0:
            self._reached[event.member] = reached
            self._show()
            self._bar.update(gained)

    def close(self) -> None:
        """Draw the bar a last time and leave it."""
        self._show()
        self._bar.refresh()
        self._bar.close()

    def _show(self) -> None:
        rate = self._trained_epochs * self._n_train / max(time.monotonic() - self._start, 0.1)
        best = f", best val acc {100 * self._best[0]:.1f} % {self._best[1]}" if self._best[1] else ""
        self._bar.set_description_str(f"members {self._done}/{self._members}", refresh=False)
        self._bar.set_postfix_str(f"{rate:,.0f} samples/s{best}", refresh=False)


@contextmanager
def reporter(progress: bool | Report | None, *, members: int, done: int, epochs: int, n_train: int) -> Iterator[Report]:
    """Yield the function that is given every event: the caller's own, a silent one, a bar, or lines."""
    if callable(progress):
        yield progress
    elif progress is False:
        yield lambda event: None
    else:
        shown = Bar(members, done, epochs, n_train) if sys.stderr.isatty() and done < members else Lines()
        try:
            yield shown
        finally:
            shown.close()


@dataclass
class Mailbox:
    """Events of other processes.

    Attributes
    ----------
    path
        The file; hand it to the processes, which call `post`.
    report
        Given every event, by the thread of `open` or by `collect`, one at a time.
    """

    path: Path
    report: Report
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _position: int = 0
    _error: BaseException | None = None

    @classmethod
    @contextmanager
    def open(cls, report: Report) -> Iterator[Mailbox]:
        """Make a mailbox in a temporary folder and empty it until the end of the block."""
        with tempfile.TemporaryDirectory(prefix="lrensemble-") as folder:
            box = cls(Path(folder) / "events.jsonl", report)
            box.path.touch()
            end = threading.Event()
            thread = threading.Thread(target=box._watch, args=(end,), name="lrensemble-progress", daemon=True)
            thread.start()
            try:
                yield box
                box.collect()
            finally:
                end.set()
                thread.join()

    @staticmethod
    def post(path: Path, event: Event) -> None:
        """Append an event; a single short write, so that the lines of several processes do not mix."""
        values = {name: value for name, value in asdict(event).items() if value}
        with suppress(OSError):  # nobody listens any more, or the disk is full: no reason to stop training
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, json.dumps(values).encode() + b"\n")
            finally:
                os.close(descriptor)

    def collect(self) -> None:
        """Report all events that have come, and raise what the reporting function raised in the thread."""
        if self._error is not None:
            raise self._error
        with self._lock, suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._position)
            complete, _, _ = file.read().rpartition(b"\n")
            self._position += len(complete) + bool(complete)
            for content in complete.splitlines():
                self.report(Event(**json.loads(content)))

    def _watch(self, end: threading.Event) -> None:
        while not end.wait(POLL_SECONDS):
            try:
                self.collect()
            except BaseException as error:  # a callable of the caller: raised again where the caller can see it
                self._error = error
                return
