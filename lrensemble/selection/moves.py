"""Moves of weight between two members, and the scores of the weightings that result. Weights are whole units.

`Moves` holds a weighting, units (M,). A batch of moves is (sources, targets, amounts): so many units each from one
member to another. Under the mean of probabilities most of a batch can be passed over, exactly:

- NLL is convex in the weights: a move gains no more than its slope promises;
- accuracy: a duel between the true class and a rival matters only if a move of that amount could turn it;
- Brier: the score is a sum over pairs of members.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lrensemble.combine import combine
from lrensemble.predictions import TINY, Predictions
from lrensemble.selection.base import Task, near_best
from lrensemble.selection.duels import Duels
from lrensemble.selection.margins import brought, margins_of, wrong, wrong_after
from lrensemble.selection.scorers import SLACK, gap_products, probabilities_of

__all__ = ["Batch", "Moves", "moves_for"]

Doubles = npt.NDArray[np.float64]
Units = npt.NDArray[np.int64]
Members = npt.NDArray[np.intp]
THIN = 1 / 16  # of a sum: when less than this share is left of it, it is summed anew


class Batch(NamedTuple):
    """Moves: `amounts` units from `sources` to `targets`, each of shape (B,); all from one source are of one amount."""

    sources: Members
    targets: Members
    amounts: Units

    def take(self, which: Members) -> Batch:
        """Return some of the moves."""
        return Batch(self.sources[which], self.targets[which], self.amounts[which])


def moves_for(task: Task, units: Units) -> Moves:
    """Return the fastest moves that are exact for the task's objective and rule."""
    if task.rule == "mean_probability":
        if task.objective.is_metric("nll"):
            return NllMoves(task.predictions, units)
        if task.objective.is_metric("accuracy"):
            return AccuracyMoves(task.predictions, units)
        if task.objective.is_metric("brier"):
            return BrierMoves(task.predictions, units)
        return MeanMoves(task, units)
    return CombinedMoves(task, units)


class Moves(ABC):
    """A weighting in whole units, shape (M,), and the weightings that moves make of it (higher is better)."""

    units: Units

    @abstractmethod
    def now(self) -> tuple[float, float]:
        """Score and tie of the weighting as it is."""

    @abstractmethod
    def leaders(self, batch: Batch) -> tuple[Members, float, float]:
        """Return the positions of the moves that are best up to rounding, and the score and tie they lead to."""

    def go(self, source: int, target: int, amount: int) -> None:
        """Make a move."""
        self.units = self._after(source, target, amount)

    def _after(self, source: int, target: int, amount: int) -> Units:
        units = self.units.copy()
        units[source] -= amount
        units[target] += amount
        return units


class NllMoves(Moves):
    """−NLL of the weighted mean of probabilities, from the true class alone."""

    def __init__(self, predictions: Predictions, units: Units) -> None:
        self.units = units.copy()
        self._own = predictions.true_class
        self._lifted = np.maximum(self._own, TINY, dtype=np.float64)  # no logarithm of its mean has to be clipped
        self._whole = int(units.sum())

    def now(self) -> tuple[float, float]:
        return self._score(weighted_sum(self._own, self.units)), 0.0

    def leaders(self, batch: Batch) -> tuple[Members, float, float]:
        return (*self.best_of(batch), 0.0)

    def best_of(self, batch: Batch) -> tuple[Members, float]:
        """Return the best moves and what they lead to; those whose slope rules them out are passed over."""
        total, bounds = weighted_sum(self._own, self.units), self._bounds(batch)
        scores = np.full(len(bounds), -np.inf)
        best = -np.inf
        for b in np.argsort(-bounds, kind="stable"):
            if bounds[b] < best - SLACK:
                break
            source, target, amount = batch.sources[b], batch.targets[b], batch.amounts[b]
            change = self._own[target].astype(np.float64) - self._own[source]
            moved = total + amount * change
            thin = np.flatnonzero(moved < THIN * total)
            if thin.size:
                moved[thin] = weighted_sum(self._own[:, thin], self._after(source, target, amount))
            scores[b] = self._score(moved)
            best = max(best, scores[b])
        return np.flatnonzero(near_best(scores)), float(scores.max())

    def _bounds(self, batch: Batch) -> Doubles:
        """Return what no move can exceed: the tangent of a concave function that is never below the score."""
        total = weighted_sum(self._lifted, self.units)
        slope = self._lifted @ (1 / total) / len(total)
        here = float(np.log(total).mean()) - log(self._whole)
        return here + batch.amounts * (slope[batch.targets] - slope[batch.sources])

    def _score(self, total: Doubles) -> float:
        return float(np.log(np.maximum(total, TINY * self._whole)).mean()) - log(self._whole)


class AccuracyMoves(Moves):
    """Accuracy of the weighted mean of probabilities, from the duels; equals go by −NLL."""

    def __init__(self, predictions: Predictions, units: Units) -> None:
        self.units = units.copy()
        self._duels = Duels.of(predictions)
        self._nll = NllMoves(predictions, units)

    def go(self, source: int, target: int, amount: int) -> None:
        super().go(source, target, amount)
        self._nll.go(source, target, amount)

    def now(self) -> tuple[float, float]:
        return 1 - wrong(self._duels, margins_of(self._duels, self.units)) / self._duels.n_samples, self._nll.now()[0]

    def leaders(self, batch: Batch) -> tuple[Members, float, float]:
        wrongs = self._wrong(batch)
        leading = np.flatnonzero(wrongs == wrongs.min())
        which, tie = self._nll.best_of(batch.take(leading))
        return leading[which], 1 - float(wrongs.min()) / self._duels.n_samples, tie

    def _wrong(self, batch: Batch) -> Units:
        """Count the samples that are wrong after each move."""
        counts = np.empty(len(batch.sources), dtype=np.int64)
        margins = margins_of(self._duels, self.units)
        for source, its in _by_source(batch):
            amount = int(batch.amounts[its[0]])
            base = margins - amount * brought(self._duels, source)
            anew = partial(self._margins, source, amount)
            counts[its] = wrong_after(self._duels, base, amount, batch.targets[its], anew)
        return counts

    def _margins(self, source: int, amount: int, targets: Members, duels: Members) -> Doubles:
        """Own sum − rival's sum after a move, for pairs of a target and a duel."""
        after = np.tile(self.units.astype(np.float64), (len(targets), 1))
        after[:, source] -= amount
        after[np.arange(len(targets)), targets] += amount
        own, rivals = self._duels.own.T[self._duels.sample[duels]], self._duels.rivals.T[duels]
        return np.einsum("pm,pm->p", after, own) - np.einsum("pm,pm->p", after, rivals)


class BrierMoves(Moves):
    """−Brier of the weighted mean of probabilities, from one number for each pair of members (see ``BrierScorer``)."""

    def __init__(self, predictions: Predictions, units: Units) -> None:
        self.units = units.copy()
        self._products = gap_products(predictions)
        self._pairs = float(units.sum()) ** 2

    def now(self) -> tuple[float, float]:
        return -float(self.units @ self._products @ self.units) / self._pairs, 0.0

    def leaders(self, batch: Batch) -> tuple[Members, float, float]:
        source, target, amount = batch
        row = self._products @ self.units
        total, own = self.units @ row, np.diag(self._products)
        after = total + 2 * amount * (row[target] - row[source])
        after += amount**2 * (own[source] + own[target] - 2 * self._products[source, target])
        for b in np.flatnonzero(after < THIN * total):
            units = self._after(source[b], target[b], amount[b])
            after[b] = units @ self._products @ units
        scores = -after / self._pairs
        return np.flatnonzero(near_best(scores)), float(scores.max()), 0.0


class MeanMoves(Moves):
    """Any other metric of the weighted mean of probabilities: one sum for each source, one addition for each move."""

    def __init__(self, task: Task, units: Units) -> None:
        self.units = units.copy()
        self._objective, self._predictions = task.objective, task.predictions

    def now(self) -> tuple[float, float]:
        return self._score(self._sum(self.units)), 0.0

    def leaders(self, batch: Batch) -> tuple[Members, float, float]:
        scores = np.empty(len(batch.sources))
        for source, its in _by_source(batch):
            left = self.units.copy()
            left[source] -= batch.amounts[its[0]]
            total = self._sum(left)
            for b in its:
                scores[b] = self._score(total + self._part(batch.targets[b], batch.amounts[b]))
        return np.flatnonzero(near_best(scores)), float(scores.max()), 0.0

    def _score(self, total: Doubles) -> float:
        return self._objective.score(total / total.sum(axis=1, keepdims=True), self._predictions.labels)

    def _sum(self, units: Units) -> Doubles:
        total = np.zeros((self._predictions.n_samples, self._predictions.n_classes))
        for j in np.flatnonzero(units).tolist():
            total += self._part(j, units[j])
        return total

    def _part(self, member: int, units: int) -> Doubles:
        return np.multiply(probabilities_of(self._predictions, member), units, dtype=np.float64)


class CombinedMoves(Moves):
    """Any metric under any other rule, by `combine`."""

    def __init__(self, task: Task, units: Units) -> None:
        self.units = units.copy()
        self._task = task

    def now(self) -> tuple[float, float]:
        return self._score(self.units), self._tie(self.units)

    def leaders(self, batch: Batch) -> tuple[Members, float, float]:
        weightings = [self._after(*move) for move in zip(*batch, strict=True)]
        scores = np.array([self._score(units) for units in weightings])
        leading = np.flatnonzero(near_best(scores))
        ties = np.array([self._tie(weightings[b]) for b in leading])
        return leading[near_best(ties)], float(scores.max()), float(ties.max())

    def _score(self, units: Units) -> float:
        return self._task.objective.score(self._combined(units), self._task.predictions.labels)

    def _tie(self, units: Units) -> float:
        if not self._task.objective.is_metric("accuracy"):
            return 0.0
        return self._task.objective.tie(self._combined(units), self._task.predictions.labels)

    def _combined(self, units: Units) -> Doubles:
        team = np.flatnonzero(units)
        members = np.stack([probabilities_of(self._task.predictions, j) for j in team.tolist()])
        return combine(members, units[team], self._task.rule)


def weighted_sum(values: npt.NDArray[np.floating], units: Units) -> Doubles:
    """Sum over members of units × values, in float64."""
    total = np.zeros(values.shape[1:])
    for j in np.flatnonzero(units):
        total += np.multiply(values[j], units[j], dtype=np.float64)
    return total


def _by_source(batch: Batch) -> Iterator[tuple[int, Members]]:
    """Each source, and the positions of its moves."""
    for source in np.unique(batch.sources):
        yield int(source), np.flatnonzero(batch.sources == source)
