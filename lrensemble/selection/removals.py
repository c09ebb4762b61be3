"""Removals: the scores of a team with one member less, for every member at once. The counterpart of `scorers`.

A team's probabilities are a sum, so a removal is a subtraction; where that would lose digits, the sum over the others
is taken anew, so that scores and ties are those of the definition. As with additions, most work can be passed over:

- NLL: what a member contributes only grows as the team shrinks, so a loss once computed bounds all later ones;
- accuracy: a duel between the true class and a rival matters only while some removal could turn it;
- Brier: a team's score is a sum over pairs of its members.

Any other metric or rule goes through its scorer: a tree of additions reaches every team that lacks one member.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import reduce
from math import log

import numpy as np
import numpy.typing as npt

from lrensemble.predictions import TINY, Predictions
from lrensemble.selection.base import Task, near_best
from lrensemble.selection.duels import Duels
from lrensemble.selection.margins import brought, margins_of, wrong_after
from lrensemble.selection.scorers import SLACK, Scorer, gap_products, scorer_for

__all__ = ["Removals", "removals_for"]

Doubles = npt.NDArray[np.float64]
Members = npt.NDArray[np.intp]
THIN = 1 / 16  # of a sum: when less than this share is left of it, what is left is summed anew


def removals_for(task: Task, team: Members) -> Removals:
    """Return the fastest removals that are exact for the task's objective and rule; `team` holds distinct members."""
    if task.rule == "mean_probability":
        if task.objective.is_metric("nll"):
            return NllRemovals(task.predictions, team)
        if task.objective.is_metric("accuracy"):
            return AccuracyRemovals(task.predictions, team)
        if task.objective.is_metric("brier"):
            return BrierRemovals(task.predictions, team)
    return ScorerRemovals(task, team)


class Removals(ABC):
    """A team of two members or more, and the teams that result when one of them leaves (higher scores are better)."""

    team: Members  # distinct, rising

    @abstractmethod
    def leaders(self) -> tuple[Members, float, float]:
        """Return the members whose leaving gives the best team, up to rounding; that team's score and its tie."""

    def leave(self, member: int) -> None:
        """Take one member out of the team."""
        self.team = self.team[self.team != member]


class NllRemovals(Removals):
    """−NLL of the mean of probabilities, from the true class alone."""

    def __init__(self, predictions: Predictions, team: Members) -> None:
        self.team = team
        self._own = predictions.true_class
        self._losses = np.zeros(len(self._own))  # lower bounds of mean log(sum) − mean log(sum − own)
        self._clips = bool(self._own.min() < TINY)  # then a clipped logarithm is not concave, and the bounds are none

    def leaders(self) -> tuple[Members, float, float]:
        return (*self.best_of(self.team), 0.0)

    def best_of(self, candidates: Members) -> tuple[Members, float]:
        """Return the best of some of the members to leave; those that an earlier loss rules out are passed over."""
        total = self._own[self.team].sum(axis=0, dtype=np.float64)
        now = -np.inf if self._clips else float(np.log(total).mean())
        smaller = log(len(self.team) - 1)
        scores = np.full(len(candidates), -np.inf)
        for i in np.argsort(self._losses[candidates], kind="stable"):
            if not self._clips and now - self._losses[candidates[i]] - smaller < scores.max() - SLACK:
                break
            scores[i] = self._score(total, candidates[i]) - smaller
            self._losses[candidates[i]] = now - scores[i] - smaller
        leading = near_best(scores)
        return candidates[leading], float(scores[leading].max())

    def _score(self, total: Doubles, member: int) -> float:
        """Mean of log of the sum without one member."""
        left = total - self._own[member]
        thin = np.flatnonzero(left < THIN * total)
        if thin.size:
            others = self.team[self.team != member]
            left[thin] = self._own[np.ix_(others, thin)].sum(axis=0, dtype=np.float64)
        np.maximum(left, TINY * (len(self.team) - 1), out=left)
        return float(np.log(left, out=left).mean())


class AccuracyRemovals(Removals):
    """Accuracy of the mean of probabilities, from the duels; equals go by −NLL."""

    def __init__(self, predictions: Predictions, team: Members) -> None:
        self.team = team
        self._duels = Duels.of(predictions)
        self._margins = margins_of(self._duels, np.bincount(team))
        self._nll = NllRemovals(predictions, team)

    def leave(self, member: int) -> None:
        super().leave(member)
        self._margins -= brought(self._duels, member)
        self._nll.leave(member)

    def leaders(self) -> tuple[Members, float, float]:
        wrong = wrong_after(self._duels, self._margins, -1, self.team, self._margins_without)
        members, tie = self._nll.best_of(self.team[wrong == wrong.min()])
        return members, 1 - float(wrong.min()) / self._duels.n_samples, tie

    def _margins_without(self, members: Members, duels: Members) -> Doubles:
        """Own sum − rival's sum over the others, for pairs of a member and a duel."""
        others = self.team != members[:, None]
        own = self._duels.own.T[np.ix_(self._duels.sample[duels], self.team)]
        rivals = self._duels.rivals.T[np.ix_(duels, self.team)]
        own_sum, rival_sum = (values.sum(axis=1, where=others, dtype=np.float64) for values in (own, rivals))
        return own_sum - rival_sum


class BrierRemovals(Removals):
    """−Brier of the mean of probabilities, from one number for each pair of members (see ``BrierScorer``)."""

    def __init__(self, predictions: Predictions, team: Members) -> None:
        self.team = team
        self._products = gap_products(predictions)

    def leaders(self) -> tuple[Members, float, float]:
        products = self._products[np.ix_(self.team, self.team)]
        total = products.sum()
        left = total - 2 * products.sum(axis=1) + np.diag(products)
        for i in np.flatnonzero(left < THIN * total):
            left[i] = np.delete(np.delete(products, i, axis=0), i, axis=1).sum()
        scores = -left / (len(self.team) - 1) ** 2
        return self.team[near_best(scores)], float(scores.max()), 0.0


class ScorerRemovals(Removals):
    """Any metric under any rule, by a tree of additions: k · log₂ k of them for a team of k."""

    def __init__(self, task: Task, team: Members) -> None:
        self.team = team
        self._empty = scorer_for(task)
        self._has_ties = task.objective.is_metric("accuracy")

    def leaders(self) -> tuple[Members, float, float]:
        scores = np.array([score for _, score in without_each(self._empty, [], self.team.tolist())])
        leading = self.team[near_best(scores)]
        ties = np.array([self._tie(j) for j in leading])
        return leading[near_best(ties)], float(scores.max()), float(ties.max())

    def _tie(self, member: int) -> float:
        if not self._has_ties:
            return 0.0
        others = self.team[self.team != member]
        return float(reduce(lambda scorer, j: scorer.plus(j), others[:-1], self._empty).ties(others[-1:])[0])


def without_each(scorer: Scorer, waiting: list[int], members: list[int]) -> Iterator[tuple[int, float]]:
    """Yield (j, score of the team without j) for each of `members`, which are those not yet added to the team.

    The others are in `scorer`, all but the one `waiting`: a scorer tells the score of its team with one member *more*.
    """
    if len(members) == 1:
        yield members[0], float(scorer.scores(np.array(waiting))[0])
        return
    half = len(members) // 2
    for left, added in ((members[:half], members[half:]), (members[half:], members[:half])):
        more = [*waiting, *added]
        yield from without_each(reduce(lambda so_far, j: so_far.plus(j), more[:-1], scorer), more[-1:], left)
