"""`Composition`: a policy put together segment by segment, what was tried, what it cost and what it gave."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lrensemble.errors import InputError

__all__ = ["HIGHER_IS_BETTER", "Attempt", "Composition", "Cost", "Rival", "Switch", "best_first"]

HIGHER_IS_BETTER = {"val_loss": False, "val_accuracy": True}


@dataclass(frozen=True)
class Cost:
    """What trainings have taken: epochs of a network, optimiser steps, and seconds of computing."""

    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.epochs + other.epochs, self.steps + other.steps, self.seconds + other.seconds)

    def __str__(self) -> str:
        return f"{self.epochs:,} epochs, {self.steps:,} steps, {self.seconds:.3g} s"


@dataclass(frozen=True)
class Attempt:
    """A candidate that was tried out in a segment.

    Attributes
    ----------
    segment
        Its number, from 1.
    policy, stem
        The candidate, and the pieces before it, as asked for.
    id, member
        Names of the training that rests at the segment's end and of the one that was completed; empty where there is
        none. What was completed is a member of the pool.
    status
        ``"done"``: it came to the end of what was asked of it; or ``"diverged"``.
    start, end
        The segment is the epochs start + 1 … end.
    val_loss, val_accuracy
        After each epoch from start + 1 on: to the end of the segment, or of the run if it was completed.
    score
        By which it was judged; None if it diverged.
    kept
        Whether it went on; in the last segment, whether it is what was composed.
    cost
        Of these epochs only: those before are counted with the attempts that came to them first.
    """

    segment: int
    policy: str
    stem: tuple[str, ...]
    id: str
    member: str
    status: str
    start: int
    end: int
    val_loss: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    score: float | None
    kept: bool
    cost: Cost


@dataclass(frozen=True)
class Rival:
    """A policy that was trained whole, to compare with; `val_loss` and `val_accuracy` at the end, None if diverged."""

    policy: str
    id: str
    status: str
    val_loss: float | None
    val_accuracy: float | None
    cost: Cost


@dataclass(frozen=True)
class Switch:
    """A change from one policy to another while a network was trained: after so many epochs, and to which."""

    epoch: int
    policy: str


@dataclass(frozen=True)
class Composition:
    """What `compose` has found.

    Attributes
    ----------
    policy, asked
        The composed policy in steps, as it was trained, and in epochs, as it can be given to `train_pool` or
        ``lrensemble train --common-seed``.
    id, path
        The member that was trained under it, and the folder of its pool.
    seed, method, judge, metric
        As asked for.
    ends, steps
        Last epoch of each segment, and optimiser steps of an epoch.
    val_loss, val_accuracy
        Of the member, at its end.
    attempts
        All that was tried, in order.
    switches
        With ``method="plateau"``: when the policy changed.
    alone, cost
        What the composed training by itself would have taken, and what all attempts have.
    rivals
        Policies that were trained whole to compare with, the best first; not counted in `cost`.
    """

    policy: str
    asked: str
    id: str
    path: str
    seed: int
    method: str
    judge: str
    metric: str
    ends: tuple[int, ...]
    steps: int
    val_loss: float
    val_accuracy: float
    attempts: tuple[Attempt, ...]
    switches: tuple[Switch, ...]
    alone: Cost
    cost: Cost
    rivals: tuple[Rival, ...] = ()

    @property
    def times(self) -> float:
        """How many plain trainings the whole search amounts to, in steps."""
        return self.cost.steps / self.alone.steps

    @property
    def chain(self) -> tuple[Attempt, ...]:
        """The attempts that the composed policy is made of, a segment each."""
        last = next(attempt for attempt in self.attempts if attempt.member == self.id)
        pieces = (*last.stem, last.policy)
        return tuple(
            attempt
            for attempt in self.attempts
            if (*attempt.stem, attempt.policy) == pieces[: attempt.segment] and attempt.segment <= last.segment
        )

    @property
    def benefit(self) -> dict[str, float] | None:
        """Return by how much the composed policy is better than the best rival, above 0 if it is; None without rivals.

        ``val_loss`` in nats, ``val_accuracy`` as a share.
        """
        best = next((rival for rival in self.rivals if rival.val_loss is not None), None)
        if best is None or best.val_loss is None or best.val_accuracy is None:
            return None
        return {
            "val_loss": best.val_loss - self.val_loss,
            "val_accuracy": self.val_accuracy - best.val_accuracy,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready; what was not measured is None."""
        rivals = sum((rival.cost for rival in self.rivals), Cost())
        derived = {"times": self.times, "benefit": self.benefit, "rivals_cost": asdict(rivals)}
        return _plain(asdict(self) | derived)

    def __str__(self) -> str:
        lines = [
            f"composed   {self.asked}",
            *([f"in steps   {self.policy}"] if self.policy != self.asked else []),
            f"validation accuracy {100 * self.val_accuracy:.2f} %, loss {self.val_loss:.4f} (member {self.id})",
            f"cost       {self.cost}: {self.times:.2f} × one training",
        ]
        return "\n".join([*lines, *self._benefit_lines(), *self._switch_lines(), *self._attempt_lines()])

    def _benefit_lines(self) -> list[str]:
        if not self.rivals:
            return []
        cost = sum((rival.cost for rival in self.rivals), Cost())
        n, best, gain = len(self.rivals), self.rivals[0], self.benefit
        if gain is None:
            return [f"benefit    all {n} policies trained whole diverged"]
        accuracy, loss = f"{100 * gain['val_accuracy']:+.2f}", f"{0.0 - gain['val_loss']:+.4f}"
        which = "the policy" if n == 1 else f"the best of {n} policies"
        return [
            f"benefit    accuracy {accuracy} points, loss {loss} against {which} trained whole, {best.policy} "
            f"({cost}: {cost.steps / self.alone.steps:.2f} × one training)"
        ]

    def _switch_lines(self) -> list[str]:
        return [f"switched   after epoch {switch.epoch} to {switch.policy}" for switch in self.switches]

    def _attempt_lines(self) -> list[str]:
        lines: list[str] = []
        last: tuple[int, tuple[str, ...]] = (0, ())
        for attempt in self.attempts:
            if (attempt.segment, attempt.stem) != last:
                last = (attempt.segment, attempt.stem)
                after = f", after {' | '.join(attempt.stem)}" if attempt.stem else ""
                lines.append(f"\nsegment {attempt.segment}, epochs {attempt.start + 1} to {attempt.end}{after}")
            score = attempt.status if attempt.score is None else f"{self.metric} {attempt.score:.4f}"
            lines.append(f"  {'→' if attempt.kept else ' '} {score:<20} {attempt.policy}")
        return lines


def best_first(values: Iterable[tuple[Any, float | None]], metric: str) -> list[Any]:
    """Return what has a value, the best first; of equals, what stands first.

    Examples
    --------
    >>> best_first([("a", 0.3), ("b", None), ("c", 0.1)], "val_loss")
    ['c', 'a']
    """
    if metric not in HIGHER_IS_BETTER:
        raise InputError(f"metric: expected {' or '.join(HIGHER_IS_BETTER)}, got '{metric}'")
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    measured = [(item, sign * value) for item, value in values if value is not None and math.isfinite(value)]
    return [item for item, _ in sorted(measured, key=lambda pair: pair[1])]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
