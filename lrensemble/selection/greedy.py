"""Greedy forward selection (Caruana et al. 2004, 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.selection.base import Selection, Task, check_count, check_flag, first_best, near_best
from lrensemble.selection.scorers import Scorer, scorer_for
from lrensemble.selection.simple import ranking

__all__ = ["greedy"]

ROUNDS = 25


@dataclass(frozen=True)
class _Step:
    """One round: the member added, and (score, tie, −distinct members) of the team that it makes."""

    member: int
    key: tuple[float, float, float]


@dataclass(frozen=True)
class _Plan:
    """How a run goes on and ends; see `greedy`."""

    size: int | None
    rounds: int | None
    replacement: bool
    keep_best: bool
    init: int


def greedy(
    task: Task,
    size: int | None,
    *,
    rounds: int | None = None,
    replacement: bool = True,
    keep_best: bool = True,
    init: int = 0,
    bags: int = 0,
    bag_fraction: float = 0.5,
) -> Selection:
    """Add, round by round, the member that helps the team most; weights are how often each was added.

    Parameters
    ----------
    size
        At most so many distinct members.
    rounds
        How many additions at most; 25 with replacement, else `size` or M.
    replacement
        Whether a member may be added again (which gives it more weight).
    keep_best
        Keep the best of the teams passed on the way (the first of equals); False keeps the last.
    init
        Start from the `init` members that are best one by one, which guards against overfitting early rounds; smaller
        teams than that are not kept.
    bags, bag_fraction
        With bags > 0: average the weights of so many runs, each on a random share of the members (drawn with the task's
        seed), which guards against overfitting large pools. Not together with a size.
    """
    plan = _checked(task, _Plan(size, rounds, replacement, keep_best, init))
    _check_bags(size, bags, bag_fraction)
    scorer = scorer_for(task)
    if not bags:
        steps = _run(scorer, np.arange(task.n_members), plan)
        return Selection(_weights(task, steps), tuple((step.member, step.key[0]) for step in steps))
    rng = np.random.default_rng(task.seed)
    share = max(1, round(bag_fraction * task.n_members))
    chosen = [np.sort(rng.choice(task.n_members, share, replace=False)) for _ in range(bags)]
    return Selection(np.mean([_weights(task, _run(scorer, bag, plan)) for bag in chosen], axis=0))


def _run(scorer: Scorer, pool: npt.NDArray[np.intp], plan: _Plan) -> list[_Step]:
    """Add members of `pool` round by round, and return the rounds up to the one that is kept."""
    limit = plan.size or len(pool)
    total = max(plan.init, plan.rounds or (ROUNDS if plan.replacement else limit))
    first = iter(ranking(scorer, pool)[: plan.init])
    inside = np.zeros(len(pool), dtype=bool)
    steps: list[_Step] = []
    while len(steps) < total and (allowed := _allowed(inside, limit, plan.replacement)).any():
        chosen = next(first, None)
        leaders, scores = scorer.leaders(pool[allowed] if chosen is None else np.array([chosen]))
        ties = scorer.ties(leaders)
        equal = np.flatnonzero(near_best(ties))
        familiar = np.isin(leaders[equal], pool[inside])
        best = equal[np.argmax(familiar)]  # one that is in the team keeps it smaller; else the one of lowest index
        inside |= pool == leaders[best]
        steps.append(_Step(int(leaders[best]), (float(scores[best]), float(ties[best]), -float(inside.sum()))))
        scorer = scorer.plus(leaders[best])
    return steps[: _kept([step.key for step in steps], plan)]


def _allowed(inside: npt.NDArray[np.bool_], limit: int, replacement: bool) -> npt.NDArray[np.bool_]:
    """Which members may be added, by which are in the team and how many may be."""
    if inside.sum() >= limit:
        return inside if replacement else np.zeros_like(inside)
    return np.ones_like(inside) if replacement else ~inside


def _kept(keys: list[tuple[float, float, float]], plan: _Plan) -> int:
    """How many rounds are kept."""
    if not plan.keep_best:
        return len(keys)
    shortest = min(max(plan.init, 1), len(keys))
    return shortest + first_best(keys[shortest - 1 :])


def _weights(task: Task, steps: list[_Step]) -> npt.NDArray[np.float64]:
    return np.bincount([step.member for step in steps], minlength=task.n_members) / len(steps)


def _checked(task: Task, plan: _Plan) -> _Plan:
    if plan.rounds is not None:
        check_count("rounds", plan.rounds, 1)
    check_count("init", plan.init, 0, plan.size or task.n_members)
    check_flag("replacement", plan.replacement)
    check_flag("keep_best", plan.keep_best)
    return plan


def _check_bags(size: int | None, bags: int, bag_fraction: float) -> None:
    check_count("bags", bags, 0)
    if not isinstance(bag_fraction, int | float | np.floating) or not 0 < bag_fraction <= 1:
        raise InputError(f"expected bag_fraction as a number above 0 and at most 1, got {bag_fraction!r}")
    if bags and size is not None:
        raise InputError(f"expected size or bags, got size={size} and bags={bags}: an average of runs has no set size")
