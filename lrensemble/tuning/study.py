"""The loop of a search: ask for a batch of trainings, train them together, stop those that are behind, ask again.

What comes next is decided by a `Proposer`; what is good, by a `Goal`; who is stopped, by a `Pruner`; how much may be
spent, by an `Allowance`. All of them are functions of what was trained, and the pool keeps what was trained. So a
search that was interrupted is simply run again: it decides as it did, trains nothing twice, and goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from lrensemble.policies import Policy
from lrensemble.training.budget import Budget, Limits
from lrensemble.training.progress import Event, Report

if TYPE_CHECKING:
    from lrensemble.pool import Pool
    from lrensemble.training.task import Task
    from lrensemble.training.workshop import Trained, Workshop

__all__ = ["Allowance", "Goal", "Proposer", "Pruner", "Searched", "Trial", "search"]

Logits = npt.NDArray[np.float32]
Asked = tuple[Policy, int]

PATIENCE = 3  # batches without anything new, after which a search has nothing left to try
WORST = -3.0  # score of a training that diverged: samplers learn to keep away from its like
TIE = 1e-6  # what the loss may add to an accuracy: less than one sample does


@dataclass(frozen=True)
class Trial:
    """One training of a search, finished or stopped for good.

    Attributes
    ----------
    policy
        As it was asked for: times may be shares of the run.
    seed
        Of initialisation and sample order.
    trained
        What came of it; its `status` is ``"stopped"`` if it was pruned.
    read
        Function that reads the logits on validation data; None when there are none.
    """

    policy: Policy
    seed: int
    trained: Trained
    read: Callable[[], Logits] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def val_logits(self) -> Logits | None:
        """Logits on validation data, shape (N, C); read when first asked for. None unless it is done."""
        return None if self.read is None or self.trained.status != "done" else self.read()


class Proposer(Protocol):
    """Decides which trainings come next."""

    def propose(self, history: Sequence[Trial], n: int) -> list[Asked]:
        """Return at most `n` policies with seeds, which are then trained together; none ends the search.

        Parameters
        ----------
        history
            All trials so far, in the order in which they were proposed. One that comes to the same as an earlier one
            (equal policy and seed) is not trained again.
        n
            How many may be trained before the next call.
        """
        ...


class Pruner(Protocol):
    """Decides who is stopped early."""

    def rungs(self, epochs: int) -> list[int]:
        """Return the epochs after which trainings are compared."""
        ...

    def behind(self, scores: Mapping[int, float], epoch: int) -> set[int]:
        """Return which trainings go no further.

        Parameters
        ----------
        scores
            Scores at a rung by place in the history that the batch will have; higher is better.
        epoch
            The rung.
        """
        ...


@dataclass(frozen=True)
class Goal:
    """What a search is for: the highest validation accuracy, or the fewest steps to a target.

    Attributes
    ----------
    target
        Validation accuracy to be reached, or None.
    steps
        Optimiser steps of an epoch.
    """

    target: float | None
    steps: int

    def reached(self, trained: Trained) -> int | None:
        """Return the epoch after which the target was reached first; None if it was not, or there is none."""
        if self.target is None:
            return None
        return next((epoch for epoch, value in enumerate(trained.val_accuracy, 1) if value >= self.target), None)

    def score(self, trained: Trained) -> float:
        """Return how good a training is, as far as it has come; higher is better.

        Without a target, the last validation accuracy; the loss tells apart those that are equal. With one, minus the
        share of the run until it is reached (−1 … 0), or −1 minus what is missing (−2 … −1); of those that reach it at
        the same step, the more accurate one is better. −3 for a training that has diverged.
        """
        curve = [value for value in trained.val_accuracy if math.isfinite(value)]
        if trained.status == "diverged" or not curve:
            return WORST
        if self.target is None:
            loss = trained.val_loss[-1]
            return curve[-1] + TIE / (1 + loss if math.isfinite(loss) else math.inf)
        epoch = self.reached(trained)
        if epoch is None:
            return -1 - (self.target - max(curve))
        return -epoch / trained.epochs + TIE * trained.val_accuracy[epoch - 1]


@dataclass
class Allowance:
    """What a search may spend, in trainings and in time.

    Attributes
    ----------
    trainings
        Whole trainings; one that is stopped counts by its epochs.
    seconds
        Time for this call.
    """

    trainings: float = math.inf
    seconds: float = math.inf
    deadline: float = math.inf

    def begin(self) -> None:
        """Start the clock."""
        self.deadline = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.monotonic()

    def affordable(self, spent: float, most: int) -> int:
        """Return how many trainings may be begun, `most` at most."""
        return most if math.isinf(self.trainings) else min(most, math.floor(self.trainings - spent + 1e-9))

    def limits(self) -> Limits:
        """Return the limits of the next call of `Workshop.train`."""
        return Limits() if math.isinf(self.seconds) else Limits(None, Budget(max(self.left, 0.01)))


@dataclass(frozen=True)
class Searched:
    """What a search has tried, and why it ended: ``"spent"``, ``"late"`` or ``"exhausted"``."""

    trials: tuple[Trial, ...]
    ended: str


def search(
    shop: Workshop,
    proposer: Proposer,
    goal: Goal,
    allowance: Allowance,
    *,
    batch: int,
    pruner: Pruner | None = None,
    record: Callable[[Sequence[Trial]], None] = lambda trials: None,
    report: Report = lambda event: None,
) -> Searched:
    """Run a search to its end, or on from where it was interrupted.

    Parameters
    ----------
    shop
        Where trainings are run, and whose pool keeps them.
    proposer, goal, pruner
        What comes next, what is good, and who is stopped early (nobody when None).
    allowance
        What may be spent; its clock is started here.
    batch
        How many trainings are asked for, and trained together, at a time.
    record
        Given the trials of each batch when it has ended.
    report
        Given an event of kind ``"member"`` for each of them that is finished, and a note on how the search stands.

    Raises
    ------
    PoolError, TrainingError, KeyboardInterrupt
        As `train_pool`.
    """
    allowance.begin()
    history: list[Trial] = []
    idle = 0
    while (n := allowance.affordable(spent(history), batch)) > 0:
        if allowance.left <= 0:
            return Searched(tuple(history), "late")
        asked = proposer.propose(tuple(history), n)[:n]
        known = {trial.trained.id for trial in history}
        trials = _train(shop, asked, goal, allowance, pruner, first=len(history)) if asked else []
        if trials is None:
            return Searched(tuple(history), "late")
        record(trials)
        history += trials
        _tell(report, history, trials, goal)
        idle = 0 if any(trial.trained.id not in known for trial in trials) else idle + 1
        if not asked or idle == PATIENCE:
            return Searched(tuple(history), "exhausted")
    return Searched(tuple(history), "spent")


def spent(trials: Sequence[Trial]) -> float:
    """Cost of trials in whole trainings; one that is there twice counts once, as far as it came."""
    furthest: dict[str, float] = {}
    for one in (trial.trained for trial in trials):
        done = one.epoch / one.epochs if one.status == "stopped" else 1.0
        furthest[one.id] = max(done, furthest.get(one.id, 0.0))
    return math.fsum(furthest.values())


def _train(
    shop: Workshop, asked: Sequence[Asked], goal: Goal, allowance: Allowance, pruner: Pruner | None, *, first: int
) -> list[Trial] | None:
    """Train a batch, rung by rung; None if time was up before all had come as far as they should."""
    plan = shop.plan(asked)
    pool = shop.pool()
    task_of = _tasks(shop, asked, plan.tasks)
    stop: dict[str, int] = {}  # epoch at which a training was pruned
    rungs = pruner.rungs(shop.config.epochs) if pruner else []
    for rung in [*rungs, None]:
        running = [task for task in plan.tasks if task.id not in stop]
        if not running:
            break
        part = replace(plan, tasks=tuple(running))
        shop.train(part, allowance.limits(), until=rung)
        looked = {one.id: one for one in shop.look(part)}
        if any(one.status == "stopped" and one.epoch < (rung or one.epochs) for one in looked.values()):
            return None
        if pruner and rung:
            places = {i: task.id for i, task in enumerate(task_of, first) if task.id in looked}
            at_rung = {i: cut(looked[name], rung) for i, name in places.items()}
            scores = {i: goal.score(one) for i, one in at_rung.items() if one.status == "stopped"}
            stop |= {places[i]: rung for i in pruner.behind(scores, rung)}
    looked = {one.id: one for one in shop.look(plan)}
    ended = {name: cut(one, stop[name]) if name in stop else one for name, one in looked.items()}
    return [
        Trial(policy, seed, ended[task.id], _reader(pool, task.id))
        for (policy, seed), task in zip(asked, task_of, strict=True)
    ]


def cut(trained: Trained, epoch: int) -> Trained:
    """Return a training as it was after an epoch: what it has become since does not count.

    One that diverged in or before that epoch stays as it is.
    """
    if trained.status == "diverged" and trained.epoch <= epoch:
        return trained
    return replace(
        trained,
        status="stopped" if epoch < trained.epochs else trained.status,
        epoch=epoch,
        val_loss=trained.val_loss[:epoch],
        val_accuracy=trained.val_accuracy[:epoch],
        seconds=trained.seconds * epoch / max(1, trained.epoch),
    )


def _tasks(shop: Workshop, asked: Sequence[Asked], tasks: Sequence[Task]) -> list[Task]:
    """Return the task of each that was asked for; several may have the same one."""
    by_name = {(str(task.policy), task.seed): task for task in tasks}
    length = {"total_steps": shop.steps * shop.config.epochs, "steps_per_epoch": shop.steps}
    return [by_name[str(policy.resolve(**length)), seed] for policy, seed in asked]


def _reader(pool: Pool, member: str) -> Callable[[], Logits]:
    return lambda: pool.member(member).logits["val"]


def _tell(report: Report, history: Sequence[Trial], trials: Sequence[Trial], goal: Goal) -> None:
    """Report which trainings are finished (also those that were before this call), and the best so far."""
    for one in (trial.trained for trial in trials if trial.trained.status != "stopped"):
        accuracy, loss = _last(one.val_accuracy), _last(one.val_loss)
        event = Event("member", one.id, one.epoch, one.epochs, status=one.status, seconds=one.seconds)
        report(replace(event, val_accuracy=accuracy, val_loss=loss))
    best = max(history, key=lambda trial: goal.score(trial.trained), default=None)
    if best is None or goal.score(best.trained) == WORST:
        return
    epoch = goal.reached(best.trained)
    how = f"val acc {100 * best.trained.val_accuracy[-1]:.1f} %"
    how += "" if epoch is None else f", target after {epoch * goal.steps:,} steps"
    report(
        Event("note", text=f"{len(history)} tried, {spent(history):.3g} trainings, best so far {best.policy}: {how}")
    )


def _last(curve: Sequence[float]) -> float | None:
    return curve[-1] if curve and math.isfinite(curve[-1]) else None
