"""What the policy store knows: `StoredTrial`, one training; `Evidence`, all those under a policy; and their order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrensemble.training.workshop import Trained
    from lrensemble.tuning.problem import Problem

__all__ = ["DIVERGED", "Evidence", "StoredTrial", "furthest", "rank", "stored"]

DIVERGED = 0.0  # the accuracy that a diverged training counts as: below all that a network can have


@dataclass(frozen=True)
class StoredTrial:
    """One training in the store; on validation data.

    Attributes
    ----------
    member, seed
        Name and seed of the member.
    policy, resolved
        As asked for, which fits a run of any length, and as followed, in steps.
    status
        ``"done"``, ``"diverged"`` or ``"stopped"`` (before its end).
    epoch, epochs
        Epochs finished, and asked for.
    val_accuracy, val_loss
        After the last epoch; the accuracy of a diverged training is 0, its loss None.
    best_val_accuracy, steps_to_best, seconds_to_best
        The best accuracy after any epoch and what it took; None of a diverged training.
    seconds
        Of the training.
    pool
        Directory of the pool that it is a member of.
    curve
        Pairs (epoch from 1 on, accuracy) where it was measured.
    """

    member: str
    seed: int
    policy: str
    resolved: str
    status: str
    epoch: int
    epochs: int
    val_accuracy: float
    val_loss: float | None
    best_val_accuracy: float | None
    steps_to_best: int | None
    seconds_to_best: float | None
    seconds: float
    pool: str
    curve: tuple[tuple[int, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What is known of a policy on one problem: mean and spread over its trainings.

    Attributes
    ----------
    policy
        As asked for.
    seeds, diverged, stopped
        Trainings that came to their end; that diverged; that were stopped before it.
    accuracy, sd
        Mean and sample standard deviation of the validation accuracy of those that came to their end; of the stopped
        ones when no other is there, and None when all diverged. `sd` is None of a single one.
    score
        What policies are ranked by: the mean over all but the stopped ones, each diverged one counted as 0.
    seconds, steps_to_best
        Means of the same trainings.
    """

    policy: str
    seeds: int
    diverged: int
    stopped: int
    accuracy: float | None
    sd: float | None
    score: float
    seconds: float | None
    steps_to_best: float | None

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {100 * self.sd:.2f}"
        accuracy = "diverged" if self.accuracy is None else f"{100 * self.accuracy:.2f} %{spread}"
        counts = ((self.seeds, "finished"), (self.diverged, "diverged"), (self.stopped, "stopped"))
        return f"{self.policy}: {accuracy} ({', '.join(f'{n} {what}' for n, what in counts if n)})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def stored(problem: Problem, trained: Trained, pool: str = "") -> StoredTrial | None:
    """Return what the store keeps of a training; None when nothing of it has been measured."""
    measured = [(epoch, a) for epoch, a in enumerate(trained.val_accuracy, 1) if math.isfinite(a)]
    losses = [loss for loss in trained.val_loss if math.isfinite(loss)]
    diverged = trained.status == "diverged"
    if not measured and not diverged:
        return None
    best = None if diverged else max(measured, key=lambda pair: (pair[1], -pair[0]))
    return StoredTrial(
        member=trained.id,
        seed=trained.seed,
        policy=trained.asked or trained.policy,
        resolved=trained.policy,
        status=trained.status,
        epoch=trained.epoch,
        epochs=trained.epochs,
        val_accuracy=DIVERGED if diverged else measured[-1][1],
        val_loss=None if diverged or not losses else losses[-1],
        best_val_accuracy=best and best[1],
        steps_to_best=best and best[0] * problem.steps_per_epoch,
        seconds_to_best=best and trained.seconds * best[0] / trained.epoch,
        seconds=trained.seconds,
        pool=pool,
        curve=tuple(measured),
    )


def furthest(trials: Iterable[StoredTrial]) -> list[StoredTrial]:
    """Return one trial a member: the one that came furthest, the first of equals."""
    kept: dict[str, StoredTrial] = {}
    for trial in trials:
        if trial.member not in kept or reached(trial) > reached(kept[trial.member]):
            kept[trial.member] = trial
    return list(kept.values())


def reached(trial: StoredTrial) -> tuple[bool, int]:
    """Return how far a training had come, to be compared."""
    return trial.status != "stopped", trial.epoch


def rank(trials: Sequence[StoredTrial]) -> list[Evidence]:
    """Return what is known of each policy, the best first; those that were only stopped come after all others."""
    groups: dict[str, list[StoredTrial]] = {}
    for trial in trials:
        groups.setdefault(trial.policy, []).append(trial)
    found = [_evidence(policy, group) for policy, group in groups.items()]
    return sorted(found, key=lambda e: (e.seeds + e.diverged == 0, -e.score, e.policy))


def _evidence(policy: str, trials: Sequence[StoredTrial]) -> Evidence:
    by_status: Mapping[str, list[StoredTrial]] = {
        status: [t for t in trials if t.status == status] for status in ("done", "diverged", "stopped")
    }
    done, diverged, stopped = by_status.values()
    shown = done or ([] if diverged else stopped)
    accuracies = [t.val_accuracy for t in shown]
    return Evidence(
        policy=policy,
        seeds=len(done),
        diverged=len(diverged),
        stopped=len(stopped),
        accuracy=fmean(accuracies) if shown else None,
        sd=stdev(accuracies) if len(shown) > 1 else None,
        score=fmean([t.val_accuracy for t in (done + diverged or stopped)]),
        seconds=fmean([t.seconds for t in shown]) if shown else None,
        steps_to_best=fmean([float(t.steps_to_best or 0) for t in shown]) if shown else None,
    )
