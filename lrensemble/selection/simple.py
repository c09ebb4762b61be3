"""Controls and baselines: the whole pool, the best single member, the top k, a random team."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lrensemble.selection.base import ROUNDING, Selection, Task, counted, first_best
from lrensemble.selection.scorers import Scorer, scorer_for

__all__ = ["best_single", "random_team", "ranking", "top_k", "whole_pool"]


def whole_pool(task: Task, size: int | None) -> Selection:
    """Take all members with equal weights."""
    return replace(Selection.equal(task.n_members, range(task.n_members)), reason="all members of the pool")


def best_single(task: Task, size: int | None) -> Selection:
    """Take the one member that is best on validation."""
    return replace(top_k(task, 1), reason=f"best of {counted(task.n_members, 'member')}, each by itself")


def top_k(task: Task, size: int | None) -> Selection:
    """Take the `size` members that are best one by one; without a size, as many as are best together on validation."""
    scorer = scorer_for(task)
    order = ranking(scorer, np.arange(task.n_members))
    keys = []
    for member in order[:size]:
        candidate = np.array([member])
        keys.append((float(scorer.scores(candidate)[0]), float(scorer.ties(candidate)[0])))
        scorer = scorer.plus(member)
    k = size or 1 + first_best(keys)
    steps = tuple((int(member), key[0]) for member, key in zip(order[:k], keys, strict=False))
    which = "as asked" if size else f"the best number of 1–{task.n_members}"
    reason = f"the {k} best of {counted(task.n_members, 'member')} one by one, {which}"
    return replace(Selection.equal(task.n_members, order[:k]), steps=steps, reason=reason)


def ranking(scorer: Scorer, members: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Sort members from the best to the worst by the score of each alone; equals go by tie, then by index."""
    return members[np.lexsort((members, _places(scorer.ties(members)), _places(scorer.scores(members))))]


def _places(values: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Place of each value, 0 for the highest; those that follow each other up to rounding share one."""
    order = np.argsort(-values, kind="stable")
    size = np.abs(values[order])
    lower = -np.diff(values[order]) > ROUNDING * np.maximum(size[:-1], size[1:])
    places = np.zeros(len(values), dtype=np.intp)
    places[order[1:]] = np.cumsum(lower)
    return places


def random_team(task: Task, size: int | None) -> Selection:
    """Draw a team with the task's seed, uniformly from those of `size`, or from all teams when no size is given."""
    rng = np.random.default_rng(task.seed)
    if size is not None:
        return _drawn(task, rng.choice(task.n_members, size, replace=False))
    while True:
        team = np.flatnonzero(rng.random(task.n_members) < 0.5)
        if team.size:
            return _drawn(task, team)


def _drawn(task: Task, team: npt.NDArray[np.integer]) -> Selection:
    return replace(Selection.equal(task.n_members, team), reason=f"drawn at random with seed {task.seed}")
