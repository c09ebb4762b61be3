"""A budget of time: as many members as fit into it, each trained to its end. Light: no torch.

How long an epoch takes is measured on the first members, whose work is kept. Then as many members as fit are trained,
in the order in which they were asked for (all policies with the first seed, then with the next), and, if time is left,
as many again as still fit. When the time is up, members rest at the end of the epoch under way, with their states
saved.
"""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrensemble.errors import InputError
from lrensemble.training.halving import Halving, Train, race
from lrensemble.training.progress import Event, Report

if TYPE_CHECKING:
    from lrensemble.pool import Pool
    from lrensemble.training.task import Task

__all__ = ["Budget", "Limits", "check_budget", "duration", "progress", "train_within"]

MARGIN = 0.9  # of the time that is left is planned: an estimate that is too low would leave members unfinished
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
SHAPE = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


def check_budget(value: Any) -> float | None:
    """Return a budget in seconds; None for none.

    Parameters
    ----------
    value
        Seconds, or a text such as ``"90s"``, ``"10m"``, ``"1h30m"``; a number alone means seconds.

    Raises
    ------
    InputError
        For anything else, and unless it is positive and finite.

    Examples
    --------
    >>> check_budget("1h30m"), check_budget("90"), check_budget(2.5)
    (5400.0, 90.0, 2.5)
    """
    if value is None:
        return None
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := SHAPE.fullmatch(value.strip().lower().replace(" ", ""))):
        seconds = sum(float(found[unit] or 0) * UNITS[unit] for unit in UNITS)
    if not 0 < seconds < math.inf:
        raise InputError(f"budget: expected a time such as 90s, 10m or 1h30m, more than nothing, got {value!r:.60}")
    return seconds


def duration(seconds: float) -> str:
    """Write a time for people.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.25, 90, 5400, 9000)]
    ['0.25 s', '90 s', '90 min', '2.5 h']
    """
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


@dataclass
class Budget:
    """Time that training may take, and what of it is left.

    Attributes
    ----------
    seconds
        All of it.
    deadline
        When it is used up; as `time.time`. Never, before it has begun.
    jobs
        Processes that train at once.
    pace
        Seconds that a process needs for an epoch of one member; NaN before it is measured.
    """

    seconds: float
    deadline: float = math.inf
    jobs: int = 1
    pace: float = math.nan

    def begin(self) -> None:
        """Start the clock."""
        self.deadline = time.time() + self.seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()

    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self.left <= 0

    def cost(self, done: Sequence[int], epochs: int, halving: Halving | None = None, after: int = 0) -> float:
        """Estimate the seconds that members need.

        Parameters
        ----------
        done
            Epochs that each has finished.
        epochs
            Epochs that they are to finish.
        halving, after
            Who goes on at the rungs after this epoch; taken to be the first ones.
        """
        total, running = 0.0, list(done)
        rungs = [rung for rung in halving.rungs(epochs) if rung > after] if halving else []
        for rung in [*rungs, epochs]:
            if running:
                share = math.ceil(len(running) / self.jobs) / len(running)  # of the members, that the busiest trains
                total += share * sum(max(0, rung - epoch) for epoch in running) * self.pace
            running = running[: halving.keep(len(running)) if halving else None]
            running = [max(rung, epoch) for epoch in running]
        return total

    def affordable(self, done: Sequence[int], epochs: int, halving: Halving | None = None, after: int = 0) -> int:
        """Return how many of these members, from the first on, fit into the time that is left."""
        counts = range(len(done) + 1)
        limit = MARGIN * max(0.0, self.left)
        return bisect_right(counts, limit, key=lambda n: self.cost(done[:n], epochs, halving, after)) - 1

    def measure(self, pool: Pool, tasks: Sequence[Task]) -> None:
        """Set the pace by what these members have taken so far."""
        found = progress(pool, tasks).values()
        self.pace = sum(seconds for _, seconds in found) / max(1, sum(epochs for epochs, _ in found))


def progress(pool: Pool, tasks: Sequence[Task]) -> dict[str, tuple[int, float]]:
    """Epochs that each member has finished, and seconds that they took."""
    known = {record.id: (record.epoch, record.seconds) for record in pool.stopped()}
    known |= {summary.id: (summary.epochs, summary.seconds) for summary in pool.summaries()}
    return {task.id: known.get(task.id, (0, 0.0)) for task in tasks}


def train_within(
    budget: Budget,
    pool: Pool,
    tasks: Sequence[Task],
    train: Train,
    *,
    missing: Callable[[Sequence[Task]], list[Task]],
    halving: Halving | None,
    note: Callable[[str], None],
) -> None:
    """Train as many members as fit into the budget.

    Without halving, members are trained to their end in groups that fit into the time that is left, until it is used
    up. With it, as many compete as can be afforded, and no more go on than can be finished.

    Parameters
    ----------
    budget, halving
        Whose clock is running; who goes on, if not all do.
    pool, tasks
        Where members are; those that are asked for, in the order in which they are to be trained.
    train
        ``train(tasks, epoch)`` brings members so far; to their end when None. It does nothing when it is too late.
    missing
        Which of these are not finished.
    note
        Given what is worth saying, a sentence.
    """
    epochs = tasks[0].config.epochs
    first = missing(tasks)[: budget.jobs]
    train(first, 1)
    budget.measure(pool, first)
    if budget.is_late():
        return

    def affordable(members: Sequence[Task], after: int = 0) -> int:
        done = [epoch for epoch, _ in progress(pool, members).values()]
        return budget.affordable(done, epochs, halving, after)

    fits = affordable(tasks if halving else missing(tasks))
    what = "can compete" if halving else "more can be finished"
    note(f"budget of {duration(budget.seconds)}: about {fits} {what} (an epoch of one takes {duration(budget.pace)})")
    if halving:
        race(pool, tasks[: max(1, fits)], halving, train, affordable=affordable, is_late=budget.is_late)
        return
    while (left := missing(tasks)) and not budget.is_late():
        start, before = time.monotonic(), progress(pool, left)
        train(left[: max(budget.jobs, affordable(left))], None)
        after = progress(pool, left)
        gained = sum(after[name][0] - before[name][0] for name in before)
        budget.pace = (time.monotonic() - start) * budget.jobs / max(1, gained)


@dataclass(frozen=True)
class Limits:
    """What keeps a pool from being trained whole: halving, a budget, both or neither."""

    halving: Halving | None = None
    budget: Budget | None = None

    def begin(self) -> float | None:
        """Start the clock, if there is one, and return the deadline."""
        if self.budget is None:
            return None
        self.budget.begin()
        return self.budget.deadline

    def follow(
        self,
        pool: Pool,
        tasks: Sequence[Task],
        train: Train,
        missing: Callable[[Sequence[Task]], list[Task]],
        *,
        jobs: int,
        report: Report,
    ) -> None:
        """Train what the limits allow, and report what was stopped; the parameters are those of `train_within`."""

        def note(text: str) -> None:
            report(Event("note", text=text))

        if self.budget:
            self.budget.jobs = jobs
            train_within(self.budget, pool, tasks, train, missing=missing, halving=self.halving, note=note)
        elif self.halving:
            race(pool, tasks, self.halving, train)
        else:
            train(tasks, None)
        if left := missing(tasks):
            _report_stopped(pool, left, report)
            finished = len(tasks) - len(left)
            note(f"{pool.path}: {finished} of {len(tasks)} members are finished; {self._advice(pool, left)}")

    def reason(self, diverged: int) -> str:
        """Say why no member is finished, of which so many diverged, and what to do."""
        lost = f", {diverged} diverged" if diverged else ""
        if self.budget and self.budget.is_late():
            return (
                f"no member was finished within {duration(self.budget.seconds)}{lost}; nothing is lost: give the same "
                "command another budget to go on"
            )
        return (
            f"no member was finished{lost}, and the others were stopped: give the same command without halving to go "
            "on, or use lower learning rates"
        )

    def _advice(self, pool: Pool, left: Sequence[Task]) -> str:
        names = {task.id for task in left}
        epochs = Counter(record.epoch for record in pool.stopped() if record.id in names)
        begun = [f"{count} stopped after epoch {epoch}" for epoch, count in sorted(epochs.items()) if epoch]
        fresh = len(left) - sum(count for epoch, count in epochs.items() if epoch)
        counts = ", ".join([*begun, *([f"{fresh} not begun"] if fresh else [])])
        how = "with another budget" if self.budget and self.budget.is_late() else f"without {self._names}"
        return f"{counts}: the same command {how} goes on with them"

    @property
    def _names(self) -> str:
        return " and ".join(name for name, there in (("halving", self.halving), ("budget", self.budget)) if there)


def _report_stopped(pool: Pool, left: Sequence[Task], report: Report) -> None:
    records = {record.id: record.info() for record in pool.stopped()}
    for task in left:
        known = records.get(task.id, {"epoch": 0})
        report(
            Event(
                "stopped",
                member=task.id,
                epoch=known["epoch"],
                epochs=task.config.epochs,
                val_accuracy=known.get("val_accuracy"),
                val_loss=known.get("val_loss"),
                seconds=known.get("seconds", 0.0),
            )
        )
