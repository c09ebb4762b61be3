"""Scorers: the score of a team, and of a team with one member more, for many candidates at once.

A scorer stands for a team (a multiset of members, empty at first). ``plus(j)`` is the scorer of the team with j added,
``scores(candidates)`` the scores of the teams that result when each candidate is added in turn. Greedy search is then a
chain of ``plus``, an enumeration of teams a tree of them, and both see the same numbers.

Scores are computed in float64 from the float32 probabilities of the members. Under the mean of probabilities a team's
probabilities are the sum over its members divided by their number (with repetition), so a running sum is all the state:

- NLL needs only the probability of the true class, and is submodular: a gain once computed bounds all later ones;
- accuracy needs a rival of the true class only while the duel is open, that is while some member could turn it.

Any other metric or rule goes through the metric's own function and `combine`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from math import log
from typing import Self

import numpy as np
import numpy.typing as npt

from lrensemble.combine import combine
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Objective, Task, near_best

__all__ = ["Scorer", "scorer_for"]

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
TINY = float(np.finfo(np.float32).tiny)  # smallest probability that a logarithm is taken of, as in `metrics`
MARGIN = 1e-6  # a bound has to clear zero by more than float32 rounding
SLACK = 1e-9  # of bounds on NLL: more than any rounding, less than any difference that counts
MANY = 8  # from this many candidates on, finding the open duels first pays


def scorer_for(task: Task) -> Scorer:
    """Return the fastest scorer of the empty team that is exact for the task's objective and rule."""
    if task.rule == "mean_probability":
        if task.objective.is_metric("nll"):
            return NllScorer(task.predictions)
        if task.objective.is_metric("accuracy"):
            return AccuracyScorer(task.predictions)
        return MeanScorer(task.predictions, task.objective)
    return RuleScorer(task.predictions, task.objective, task.rule)


class Scorer(ABC):
    """A team, and the scores of the teams that result when a candidate is added (higher is better)."""

    @abstractmethod
    def plus(self, member: int) -> Self:
        """Return the scorer of this team with one member added; this one is not altered."""

    @abstractmethod
    def scores(self, candidates: Indices) -> Doubles:
        """Return the score of this team with each candidate added, shape (len(candidates),)."""

    def ties(self, candidates: Indices) -> Doubles:
        """Return what decides between candidates of equal score (higher is better)."""
        return np.zeros(len(candidates))

    def leaders(self, candidates: Indices) -> tuple[Indices, Doubles]:
        """Return the candidates whose score is the best up to rounding, and their scores."""
        scores = self.scores(candidates)
        best = near_best(scores)
        return candidates[best], scores[best]


class NllScorer(Scorer):
    """−NLL of the mean of probabilities, from the true class alone."""

    def __init__(self, predictions: Predictions) -> None:
        self._own = predictions.true_class
        self._sum: Doubles = np.zeros(predictions.n_samples)
        self._size = 0
        self._gains = np.full(predictions.n_members, np.inf)  # upper bounds of mean log(sum + own) − mean log(sum)
        self._clips = bool(self._own.min() < TINY)  # then a clipped logarithm is not concave, and the bounds are none
        self._buffer = np.empty_like(self._sum)

    def plus(self, member: int) -> Self:
        new = copy.copy(self)
        new._sum = self._sum + self._own[member]
        new._size = self._size + 1
        new._gains = self._gains.copy()
        return new

    def scores(self, candidates: Indices) -> Doubles:
        return np.array([self._score(j) for j in candidates])

    def leaders(self, candidates: Indices) -> tuple[Indices, Doubles]:
        """Return the same as every scorer, but pass over candidates that their gain in an earlier round rules out.

        The log-likelihood of a sum is submodular in its members, so gains only shrink (Minoux 1978, "lazy greedy").
        """
        if self._size == 0 or self._clips:
            return super().leaders(candidates)
        now = float(np.log(self._sum).mean())
        scores = np.full(len(candidates), -np.inf)
        best = -np.inf
        for i in np.argsort(-self._gains[candidates], kind="stable"):
            if now + self._gains[candidates[i]] - log(self._size + 1) < best - SLACK:
                break
            scores[i] = self._score(candidates[i])
            self._gains[candidates[i]] = scores[i] + log(self._size + 1) - now
            best = max(best, scores[i])
        leading = near_best(scores)
        return candidates[leading], scores[leading]

    def _score(self, member: int) -> float:
        return mean_log(self._sum, self._own[member], self._size + 1, self._buffer)


class AccuracyScorer(Scorer):
    """Accuracy of the mean of probabilities; equals go by −NLL.

    Probabilities are kept apart as those of the true class (M, N) and of its rivals (M, C−1, N), class by class: a
    sample is right when its own sum exceeds that of every rival; of equal sums the lower class is predicted.
    """

    def __init__(self, predictions: Predictions) -> None:
        self._own = predictions.true_class
        self._labels = predictions.labels
        self._rivals = rivals_of(predictions)
        self._own_sum: Doubles = np.zeros(predictions.n_samples)
        self._rival_sum: Doubles = np.zeros(self._rivals.shape[1:])
        self._size = 0
        self._bounds: list[npt.NDArray[np.float32]] = []  # made when first needed, shared by all teams

    def plus(self, member: int) -> Self:
        new = copy.copy(self)
        new._own_sum = self._own_sum + self._own[member]
        new._rival_sum = self._rival_sum + self._rivals[member]
        new._size = self._size + 1
        return new

    def scores(self, candidates: Indices) -> Doubles:
        few = len(candidates) < MANY or self._size == 0
        return (self._right(candidates) if few else self._right_by_duels(candidates)) / len(self._labels)

    def ties(self, candidates: Indices) -> Doubles:
        buffer = np.empty_like(self._own_sum)
        return np.array([mean_log(self._own_sum, self._own[j], self._size + 1, buffer) for j in candidates])

    def _right(self, candidates: Indices) -> npt.NDArray[np.int64]:
        """Count the samples that each candidate leaves right, from all of them."""
        rivals, highest = np.empty_like(self._rival_sum), np.empty_like(self._own_sum)
        counts = np.empty(len(candidates), dtype=np.int64)
        for i, j in enumerate(candidates):
            np.add(self._rival_sum, self._rivals[j], out=rivals)
            np.max(rivals, axis=0, out=highest)
            own = self._own_sum + self._own[j]
            counts[i] = np.count_nonzero(own > highest)
            equal = np.flatnonzero(own == highest)
            if equal.size:  # rivals before the true class keep their index, those after it are one lower
                counts[i] += np.count_nonzero(rivals[:, equal].argmax(axis=0) >= self._labels[equal])
        return counts

    def _right_by_duels(self, candidates: Indices) -> npt.NDArray[np.int64]:
        """Count the same from the open duels (true class against one rival) alone: most are decided for all members."""
        if not self._bounds:
            self._bounds.extend(margin_bounds(self._own, self._rivals))
        margin = self._own_sum - self._rival_sum
        least, most = self._bounds
        lost: npt.NDArray[np.bool_] = np.any(margin + most < -MARGIN, axis=0)
        sample, rival = np.nonzero((margin + least <= MARGIN).T & ~lost[:, None])
        position = rival * len(lost) + sample  # in a (C−1, N) table
        first = np.flatnonzero(np.diff(sample, prepend=-1))  # duel of each sample that has one
        own_sum, rival_sum = self._own_sum[sample], self._rival_sum.ravel()[position]
        comes_before = rival < self._labels[sample]  # of equal sums the lower class is predicted
        counts = np.full(len(candidates), len(lost) - np.count_nonzero(lost))
        for i, j in enumerate(candidates if first.size else ()):
            own = own_sum + self._own[j].take(sample)
            theirs = rival_sum + self._rivals[j].ravel().take(position)
            beaten = (theirs > own) | ((theirs == own) & comes_before)
            counts[i] -= np.count_nonzero(np.logical_or.reduceat(beaten, first))
        return counts


class MeanScorer(Scorer):
    """Any metric of the mean of probabilities, by a running sum."""

    def __init__(self, predictions: Predictions, objective: Objective) -> None:
        self._predictions, self._objective = predictions, objective
        self._sum: Doubles = np.zeros(predictions.probabilities.shape[1:])

    def plus(self, member: int) -> Self:
        new = copy.copy(self)
        new._sum = self._sum + self._predictions.probabilities[member]
        return new

    def scores(self, candidates: Indices) -> Doubles:
        return np.array([self._objective.score(self._combined(j), self._predictions.labels) for j in candidates])

    def _combined(self, member: int) -> Doubles:
        total = self._sum + self._predictions.probabilities[member]
        total /= total.sum(axis=1, keepdims=True)
        return total


class RuleScorer(Scorer):
    """Any metric under any combination rule, by `combine`; a member that is in the team twice has twice the weight."""

    def __init__(self, predictions: Predictions, objective: Objective, rule: str) -> None:
        self._predictions, self._objective, self._rule = predictions, objective, rule
        self._counts = np.zeros(predictions.n_members)

    def plus(self, member: int) -> Self:
        new = copy.copy(self)
        new._counts = self._counts.copy()
        new._counts[member] += 1
        return new

    def scores(self, candidates: Indices) -> Doubles:
        return np.array([self._objective.score(self._combined(j), self._predictions.labels) for j in candidates])

    def ties(self, candidates: Indices) -> Doubles:
        return np.array([self._objective.tie(self._combined(j), self._predictions.labels) for j in candidates])

    def _combined(self, member: int) -> Doubles:
        counts = self.plus(member)._counts
        team = np.flatnonzero(counts)
        return combine(self._predictions.probabilities[team], counts[team], self._rule)


def mean_log(total: Doubles, own: npt.NDArray[np.float32], size: int, buffer: Doubles) -> float:
    """Mean over samples of log((total + own)/size), clipped as NLL is; `buffer` is spoilt."""
    np.add(total, own, out=buffer)
    np.maximum(buffer, TINY * size, out=buffer)
    np.log(buffer, out=buffer)
    return float(np.add.reduce(buffer)) / len(buffer) - log(size)


def rivals_of(predictions: Predictions) -> npt.NDArray[np.float32]:
    """Probabilities of the classes other than the true one, in their order, shape (M, C−1, N)."""
    m, n, c = predictions.probabilities.shape
    classes = np.arange(c - 1)[:, None] + (np.arange(c - 1)[:, None] >= predictions.labels)
    positions = np.arange(n) * c + classes
    out = np.empty((m, c - 1, n), dtype=np.float32)
    for member, target in zip(predictions.probabilities, out, strict=True):
        np.take(member.ravel(), positions, out=target, mode="clip")  # "clip" writes to `out` without a copy
    return out


def margin_bounds(
    own: npt.NDArray[np.float32], rivals: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Least and greatest margin over a rival that any member brings, each of shape (C−1, N)."""
    least = np.full(rivals.shape[1:], np.inf, dtype=np.float32)
    most = np.full(rivals.shape[1:], -np.inf, dtype=np.float32)
    margin = np.empty_like(least)
    for mine, theirs in zip(own, rivals, strict=True):
        np.subtract(mine, theirs, out=margin)
        np.minimum(least, margin, out=least)
        np.maximum(most, margin, out=most)
    return least, most
