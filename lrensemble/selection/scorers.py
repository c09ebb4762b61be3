"""Scorers: the score of a team, and of a team with one member more, for many candidates at once.

A scorer stands for a team (a multiset of members, empty at first). ``plus(j)`` is the scorer of the team with j added,
``scores(candidates)`` the scores of the teams that result when each candidate is added in turn. Greedy search is then a
chain of ``plus``, an enumeration of teams a tree of them, and both see the same numbers.

Scores are computed in float64 from the float32 probabilities of the members. Under the mean of probabilities a team's
probabilities are the sum over its members divided by their number (with repetition), so a running sum is all the state:

- NLL needs only the probability of the true class, and a parabola above the logarithm bounds all candidates at once;
- accuracy needs a rival of the true class only while the duel is open, that is while some member could turn it.

Any other metric or rule goes through the metric's own function and `combine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Self

import numpy as np
import numpy.typing as npt

from lrensemble.combine import combine
from lrensemble.kernels import kernel
from lrensemble.predictions import TINY, Predictions
from lrensemble.selection.base import Objective, Task, near_best
from lrensemble.selection.batches import mean_logs, wrong_counts
from lrensemble.selection.duels import Duels, slabs

__all__ = ["SLACK", "Scorer", "scorer_for"]

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
SLACK = 1e-9  # of NLL summed in another way, or bounded: more than any rounding, less than any difference that counts
FEW = 4  # candidates fewer than this are scored without a look at bounds
AT_ONCE = 1 << 16  # numbers that bounds are computed of in one step, so that they stay in the cache of a core
APART = 0.25  # samples on which members differ by less than this share of their mean are agreed upon …
FAR_FROM_TINY = 1e-30  # … unless some have next to nothing, which is clipped
EPSILON, CONSTANT = 2.0**-52, 110.0  # as in the kernel of bounds
LANES, DEPTH, TURNS = 64, 8, 512  # as in the kernel of products
LOG_2 = log(2.0)
SECONDS_A_LOG = 3e-9  # that numpy takes for one


def scorer_for(task: Task) -> Scorer:
    """Return the fastest scorer of the empty team that is exact for the task's objective and rule."""
    if task.rule == "mean_probability":
        if task.objective.is_metric("nll"):
            return NllScorer(task.predictions)
        if task.objective.is_metric("accuracy"):
            return AccuracyScorer(task.predictions)
        if task.objective.is_metric("brier"):
            return BrierScorer(task.predictions)
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

    def _copy(self) -> Self:
        """Return the same scorer as another object: what `copy.copy` does, in a fifth of its time."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def ties(self, candidates: Indices) -> Doubles:
        """Return what decides between candidates of equal score (higher is better)."""
        return np.zeros(len(candidates))

    def team_scores(self, teams: Indices) -> Doubles | None:
        """Return the score of this team with each of many added, (T, L), at one go; None where there is no such way."""
        return None

    def team_ties(self, teams: Indices) -> Doubles | None:
        """Return what decides between teams of equal score, in the same way."""
        return None

    def leaders(self, candidates: Indices) -> tuple[Indices, Doubles]:
        """Return the candidates whose score is the best up to rounding, and their scores."""
        scores = self.scores(candidates)
        best = near_best(scores)
        return candidates[best], scores[best]


class NllScorer(Scorer):
    """−NLL of the mean of probabilities, from the true class alone."""

    def __init__(self, predictions: Predictions) -> None:
        self._logs = MeanLogs(predictions.true_class)
        self._sum: Doubles = np.zeros(predictions.n_samples)
        self._size = 0

    def plus(self, member: int) -> Self:
        new = self._copy()
        new._sum = self._sum + self._logs.own[member]
        new._size = self._size + 1
        return new

    def scores(self, candidates: Indices) -> Doubles:
        return self._logs.values(self._sum, self._size + 1, candidates)

    def team_scores(self, teams: Indices) -> Doubles | None:
        return mean_logs(self._logs.own, self._sum, self._size, teams)

    def leaders(self, candidates: Indices) -> tuple[Indices, Doubles]:
        """Return the same as every scorer, but pass over candidates that an upper bound of their score rules out."""
        size = self._size + 1
        found = self._logs.leading(self._sum, size, candidates)
        best = near_best(found).nonzero()[0]
        return candidates[best], found[best]


class AccuracyScorer(Scorer):
    """Accuracy of the mean of probabilities, from the duels of the pool; equals go by −NLL."""

    def __init__(self, predictions: Predictions) -> None:
        self._duels = Duels.of(predictions)
        self._logs = MeanLogs(self._duels.true_class)
        self._sum: Doubles = np.zeros(predictions.n_samples)
        self._rival_sum: Doubles = np.zeros(self._duels.rivals.shape[1])
        self._size = 0

    def plus(self, member: int) -> Self:
        new = self._copy()
        new._sum = self._sum + self._logs.own[member]
        new._rival_sum = self._rival_sum + self._duels.rivals[member]
        new._size = self._size + 1
        return new

    def scores(self, candidates: Indices) -> Doubles:
        n = self._duels.n_samples
        return (n - self._duels.lost(self._sum[self._duels.samples], self._rival_sum, candidates)) / n

    def ties(self, candidates: Indices) -> Doubles:
        return self._logs.values(self._sum, self._size + 1, candidates)

    def team_scores(self, teams: Indices) -> Doubles | None:
        n, own_sum = self._duels.n_samples, self._sum[self._duels.samples]
        wrong = wrong_counts(self._duels, own_sum, self._rival_sum, teams)
        return None if wrong is None else (n - wrong) / n

    def team_ties(self, teams: Indices) -> Doubles | None:
        return mean_logs(self._logs.own, self._sum, self._size, teams)


class BrierScorer(Scorer):
    """−Brier of the mean of probabilities, from one number for each pair of members.

    With the gaps e_j = p_j − [c = y], the Brier score of a team T of size k is Σ_n Σ_c (Σ_j e_jnc / k)² / N, which is
    the mean over pairs (i, j) in T × T of E_ij = Σ_n Σ_c e_inc e_jnc / N.
    """

    def __init__(self, predictions: Predictions) -> None:
        self._products = gap_products(predictions)
        self._row: Doubles = np.zeros(predictions.n_members)  # Σ E_ij over the members i of the team
        self._total = 0.0  # the sum of E_ij over all pairs in it
        self._size = 0

    def plus(self, member: int) -> Self:
        new = self._copy()
        new._total = float(self._total_with(np.array([member]))[0])
        new._row = self._row + self._products[member]
        new._size = self._size + 1
        return new

    def scores(self, candidates: Indices) -> Doubles:
        return -self._total_with(candidates) / (self._size + 1) ** 2

    def _total_with(self, candidates: Indices) -> Doubles:
        return self._total + 2 * self._row[candidates] + self._products[candidates, candidates]

    def team_scores(self, teams: Indices) -> Doubles | None:
        pairs = sum(self._products[one[:, None], teams].sum(axis=1) for one in teams.T)
        total = self._total + 2 * self._row[teams].sum(axis=1) + pairs
        return -total / (self._size + teams.shape[1]) ** 2


class MeanScorer(Scorer):
    """Any metric of the mean of probabilities, by a running sum."""

    def __init__(self, predictions: Predictions, objective: Objective) -> None:
        self._predictions, self._objective = predictions, objective
        self._sum: Doubles = np.zeros((predictions.n_samples, predictions.n_classes))

    def plus(self, member: int) -> Self:
        new = self._copy()
        new._sum = self._sum + probabilities_of(self._predictions, member)
        return new

    def scores(self, candidates: Indices) -> Doubles:
        return np.array([self._objective.score(self._combined(j), self._predictions.labels) for j in candidates])

    def _combined(self, member: int) -> Doubles:
        total = self._sum + probabilities_of(self._predictions, member)
        total /= total.sum(axis=1, keepdims=True)
        return total


class RuleScorer(Scorer):
    """Any metric under any combination rule, by `combine`; a member that is in the team twice has twice the weight."""

    def __init__(self, predictions: Predictions, objective: Objective, rule: str) -> None:
        self._predictions, self._objective, self._rule = predictions, objective, rule
        self._counts = np.zeros(predictions.n_members)

    def plus(self, member: int) -> Self:
        new = self._copy()
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
        members = np.stack([probabilities_of(self._predictions, j) for j in team])
        return combine(members, counts[team], self._rule)


class MeanLogs:
    """Mean over samples of log((sum + own)/size), clipped as NLL is, where own is the true class of one member more.

    The sum of logarithms is the logarithm of a product, whose mantissa and exponent are kept apart. Kernels and numpy
    multiply in the same order, so that values are the same to the last digit; rounding is that of a sum of logarithms.
    """

    def __init__(self, own: Singles) -> None:
        self.own = own

    @cached_property
    def _agreed(self) -> Agreed:
        return Agreed.of(self.own)

    def bounds(self, total: Doubles, size: int, members: Indices) -> Doubles:
        """Upper bounds of the values for the members, at the price of a few values."""
        of, out = self._agreed, np.empty(len(members))
        arguments = total[of.left], of.own, _rows(members), of.mean, of.top, size - 1, TINY * size
        fast = kernel("nll", SECONDS_A_LOG * len(total) * len(members))
        (fast.bounds_of_sums if fast else _bounds_of_sums)(*arguments, out)
        out += of.bounds(total, size, members)
        return out / len(total) - log(size)

    def leading(self, total: Doubles, size: int, members: Indices) -> Doubles:
        """Values for the members in turn, but −∞ for those that cannot be best, by upper bounds of their values.

        Without kernels, few numbers are valued at one go.
        """
        if len(members) < FEW:
            return self.values(total, size, members)
        n = len(total)
        if fast := kernel("nll", SECONDS_A_LOG * n * len(members)):
            of = self._agreed
            left = total[of.left], of.own, of.mean, of.top, of.bounds(total, size, members)
            mantissa, exponent = np.empty((2, len(members)))
            slack, parts = SLACK * n, (mantissa, exponent)
            fast.leading_products(total, self.own, *left, _rows(members), size - 1, TINY * size, slack, *parts)
            return _mean_log(*parts, n, size)
        if n * len(members) <= AT_ONCE:
            return self.values(total, size, members)
        bounds = self.bounds(total, size, members)
        out = np.full(len(members), -np.inf)
        best = -np.inf
        for i in np.argsort(-bounds, kind="stable"):
            if bounds[i] < best - SLACK:
                break
            out[i] = self.values(total, size, members[i : i + 1])[0]
            best = max(best, out[i])
        return out

    def values(self, total: Doubles, size: int, members: Indices) -> Doubles:
        """Values for the members in turn."""
        n = len(total)
        mantissa, exponent = np.empty((2, len(members)))
        fast = kernel("nll", SECONDS_A_LOG * n * len(members))
        (fast.products if fast else _products)(total, self.own, _rows(members), TINY * size, mantissa, exponent)
        return _mean_log(mantissa, exponent, n, size)


def _mean_log(mantissa: Doubles, exponent: Doubles, n: int, size: int) -> Doubles:
    out: Doubles = (LOG_2 * exponent + np.log(mantissa)) / n - log(size)
    return out


@dataclass(frozen=True)
class Agreed:
    """Samples on which all members nearly agree, of which a bound takes one number a member; and what is left.

    There the sum of logarithms of the mean x of a team is at most Σ_n log m + x/m − 1, where m is the mean of all
    members: the tangent of the logarithm, which the team's own mean is never far from.

    Attributes
    ----------
    left
        Indices of the samples that are left, (S,).
    own, mean, top
        Of these: what each member has, (M, S), about their mean and the most of them, (S,).
    weights
        1/m where members agree, else 0, (N,).
    shares
        Σ_n own/m of each member where they agree, (M,).
    constant, count
        Σ_n log m there, and how many samples these are.
    """

    left: Indices
    own: Singles
    mean: Singles
    top: Singles
    weights: Doubles
    shares: Doubles
    constant: float
    count: int

    @classmethod
    def of(cls, own: Singles) -> Agreed:
        """Part the samples."""
        fast = kernel("nll", SECONDS_A_LOG * own.size)
        mean, low, top = np.empty((3, own.shape[1]), dtype=np.float32)
        (fast.levels if fast else _levels)(own, mean, low, top)
        agreed = (top - low < APART * mean) & (low > FAR_FROM_TINY)
        at, left = mean[agreed].astype(np.float64), np.flatnonzero(~agreed)
        weights, shares = np.zeros(len(agreed)), np.empty(len(own))
        weights[agreed] = 1 / at
        kept = np.empty((len(own), len(left)), dtype=np.float32)
        (fast.part if fast else _part)(own, weights, left, shares, kept)
        return cls(left, kept, mean[left], top[left], weights, shares, float(np.log(at).sum()), len(at))

    def bounds(self, total: Doubles, size: int, members: Indices) -> Doubles:
        """Upper bounds of Σ log(total + own) over the samples on which members agree, raised by more than rounding."""
        rounding = EPSILON * (len(total) + 8)
        sums = self.shares[members] + float(total @ self.weights)
        sums *= (1 + 3 * rounding) / size
        sums += self.constant + self.count * (log(size) - 1 + CONSTANT * rounding)
        return sums


def _rows(members: Indices) -> npt.NDArray[np.int64]:
    """Members as the kernels take them."""
    return np.ascontiguousarray(members, dtype=np.int64)


def _products(
    total: Doubles, own: Singles, members: Indices, least: float, mantissa: Doubles, exponent: Doubles
) -> None:
    """Twin of the kernel of that name: it multiplies in the same order."""
    n = len(total)
    turns = -(-n // (LANES * DEPTH))
    step = max(1, AT_ONCE // n)
    for k in range(0, len(members), step):
        some = slice(k, k + step)
        values = np.ones((len(members[some]), turns * LANES * DEPTH))
        np.add(total, own[members[some]], out=values[:, :n])
        np.maximum(values[:, :n], least, out=values[:, :n])
        rows = values.reshape(len(values), turns, DEPTH, LANES)
        factors = rows[:, :, 0].copy()
        for depth in range(1, DEPTH):
            factors *= rows[:, :, depth]
        exponent[some] = _strip(factors)
        lanes = factors[:, 0]
        for turn in range(1, turns):
            lanes *= factors[:, turn]
            if turn % TURNS == TURNS - 1 or turn == turns - 1:
                exponent[some] += _strip(lanes)
        while (half := lanes.shape[1] // 2) > 0:
            lanes = lanes[:, :half] * lanes[:, half:]
        exponent[some] += _strip(lanes)
        mantissa[some] = lanes[:, 0]


def _strip(numbers: Doubles) -> npt.NDArray[np.int64]:
    """Leave of numbers above 0, (K, …), the mantissas, in 1…2, and return the sums of their exponents, (K,)."""
    mantissas, exponents = np.frexp(numbers)
    np.multiply(mantissas, 2, out=numbers)
    sums: npt.NDArray[np.int64] = (exponents - 1).reshape(len(numbers), -1).sum(axis=1, dtype=np.int64)
    return sums


def _bounds_of_sums(
    total: Doubles, own: Singles, members: Indices, mean: Singles, top: Singles, size: int, least: float, out: Doubles
) -> None:
    """Twin of the kernel of that name, which says what and why."""
    n = len(total)
    middle = 0.5 * (mean + total / size) if size else mean.astype(np.float64)
    start = total + least
    at = start + middle
    slope, bend = 1 / at, 0.5 / (start + np.maximum(top, middle)) ** 2
    constant = np.log(at).sum() - (middle * (slope + middle * bend)).sum()
    u = slope + 2 * middle * bend
    step = max(1, AT_ONCE // max(1, n))
    for k in range(0, len(members), step):
        p = own[members[k : k + step]].astype(np.float64)
        out[k : k + step] = p @ u - np.square(p, out=p) @ bend
    out += constant + EPSILON * (n + 8) * (CONSTANT * n + 3 * out)


def _levels(own: Singles, mean: Singles, low: Singles, top: Singles) -> None:
    """Twin of the kernel of that name."""
    own.sum(axis=0, out=mean)
    mean /= np.float32(len(own))
    own.min(axis=0, out=low)
    own.max(axis=0, out=top)


def _part(own: Singles, weights: Doubles, kept: Indices, shares: Doubles, out: Singles) -> None:
    """Twin of the kernel of that name."""
    np.take(own, kept, axis=1, out=out, mode="clip")
    step = max(1, AT_ONCE // own.shape[1])
    for k in range(0, len(own), step):
        shares[k : k + step] = own[k : k + step].astype(np.float64) @ weights


def probabilities_of(predictions: Predictions, member: int | np.integer) -> npt.NDArray[np.float32]:
    """Probabilities of one member, (N, C), for those who ask often: kept for all members of a pool in memory."""
    return predictions.probabilities[member] if predictions.in_memory else predictions.member(int(member))


def gap_products(predictions: Predictions) -> Doubles:
    """Σ_n Σ_c (p_inc − [c = y_n]) (p_jnc − [c = y_n]) / N for each pair of members, shape (M, M)."""
    total = np.zeros((predictions.n_members, predictions.n_members))
    for start, members in slabs(predictions):
        gap = members.astype(np.float64)
        n = members.shape[1]
        gap[:, np.arange(n), predictions.labels[start : start + n]] -= 1
        flat = gap.reshape(len(gap), -1)
        total += flat @ flat.T
    return total / predictions.n_samples
