"""Greedy forward selection (Caruana et al. 2004), and bags of such runs (Caruana et al. 2006)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.selection.base import Selection, Task, better, check_count, check_flag, counted, near_best
from lrensemble.selection.scorers import Scorer, scorer_for
from lrensemble.selection.simple import ranking

__all__ = ["Plan", "allowed", "check_plan", "greedy"]

Members = npt.NDArray[np.intp]
ROUNDS = 25
BAG_FRACTION = 0.5


@dataclass(frozen=True)
class Plan:
    """How a search that adds member by member goes on and ends; see `greedy`."""

    size: int | None
    rounds: int | None
    replacement: bool
    keep_best: bool
    init: int
    patience: int | None

    def most_rounds(self, n_members: int) -> int:
        """Additions at most, to a team from `n_members`."""
        return max(self.init, self.rounds or (ROUNDS if self.replacement else self.size or n_members))

    def is_over(self, rounds: int, best: int) -> bool:
        """Whether patience has run out, `rounds` having been run and the best team being that of round `best`."""
        return self.patience is not None and rounds - best >= self.patience

    def story(self, rounds: int, best: int) -> str:
        """Return the reason for a team, `rounds` having been run and the best team being that of round `best`."""
        ended = f", which ended as {self.patience} brought nothing better" if self.is_over(rounds, best) else ""
        return (f"best after {best} of {rounds} rounds" if self.keep_best else f"team of all {rounds} rounds") + ended


@dataclass(frozen=True)
class _Step:
    """One round: the member added, and (score, tie, −distinct members) of the team that it makes."""

    member: int
    key: tuple[float, float, float]


def greedy(
    task: Task,
    size: int | None,
    *,
    rounds: int | None = None,
    replacement: bool = True,
    keep_best: bool = True,
    init: int = 0,
    patience: int | None = None,
    bags: int = 0,
    bag_fraction: float = BAG_FRACTION,
    sample_fraction: float = 1.0,
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
    patience
        Stop after so many rounds in a row without a team better than all before; None: run all rounds.
    bags, bag_fraction, sample_fraction
        With bags > 0: average the weights of so many runs, each on a random share of the members and a random share of
        the samples (drawn with the task's seed), which guards against overfitting. Not together with a size.
    """
    plan = check_plan(task, Plan(size, rounds, replacement, keep_best, init, patience))
    _check_bags(size, bags, bag_fraction, sample_fraction)
    if bags:
        return _bagged(task, plan, bags, bag_fraction, sample_fraction)
    steps, best = _run(scorer_for(task), np.arange(task.n_members), plan)
    kept = _kept(steps, best, plan)
    trace = tuple((step.member, step.key[0]) for step in kept)
    return Selection(_weights(task, kept), trace, plan.story(len(steps), best))


def _bagged(task: Task, plan: Plan, bags: int, bag_fraction: float, sample_fraction: float) -> Selection:
    """Return the mean of the weights of runs on random shares of members and samples."""
    rng = np.random.default_rng(task.seed)
    n = task.predictions.n_samples
    share, few = _share(bag_fraction, task.n_members), _share(sample_fraction, n)
    pools = [np.sort(rng.choice(task.n_members, share, replace=False)) for _ in range(bags)]
    whole = scorer_for(task) if few == n else None
    weights = np.zeros(task.n_members)
    for pool in pools:
        scorer = whole or scorer_for(_part(task, np.sort(rng.choice(n, few, replace=False))))
        weights += _weights(task, _kept(*_run(scorer, pool, plan), plan)) / bags
    samples = "" if few == n else f" and {few:,} of {n:,} samples"
    reason = f"mean of {counted(bags, 'bag')}, each on {share} of {task.n_members} members{samples}"
    return Selection(weights, reason=reason)


def _part(task: Task, samples: npt.NDArray[np.int64]) -> Task:
    return replace(task, predictions=task.predictions.subset(samples))


def _share(fraction: float, whole: int) -> int:
    return max(1, round(fraction * whole))


def _run(scorer: Scorer, pool: Members, plan: Plan) -> tuple[list[_Step], int]:
    """Add members of `pool` (rising) round by round; return all rounds, and the number of that with the best team."""
    first = iter(ranking(scorer, pool)[: plan.init] if plan.init else ())
    inside = np.zeros(len(pool), dtype=bool)
    candidates = pool[allowed(inside, plan)]
    steps: list[_Step] = []
    best = distinct = 0
    while len(steps) < plan.most_rounds(len(pool)) and len(candidates):
        start = next(first, None)
        leaders, scores = scorer.leaders(candidates if start is None else np.array([start]))
        ties = scorer.ties(leaders)
        places = pool.searchsorted(leaders)
        chosen = _first(ties, inside[places]) if len(leaders) > 1 else 0
        if not inside[places[chosen]]:
            inside[places[chosen]] = True
            distinct += 1
            candidates = pool[allowed(inside, plan)]
        steps.append(_Step(int(leaders[chosen]), (float(scores[chosen]), float(ties[chosen]), -float(distinct))))
        if len(steps) <= max(plan.init, 1) or better(steps[-1].key, steps[best - 1].key):
            best = len(steps)
        if plan.is_over(len(steps), best):
            break
        scorer = scorer.plus(leaders[chosen])
    return steps, best


def _first(ties: npt.NDArray[np.float64], familiar: npt.NDArray[np.bool_]) -> int:
    """Which of the leaders to add: one that is in the team keeps it smaller; else the one of lowest index."""
    equal = np.flatnonzero(near_best(ties))
    return int(equal[np.argmax(familiar[equal])])


def allowed(inside: npt.NDArray[np.bool_], plan: Plan) -> npt.NDArray[np.bool_]:
    """Which members may be added, by which are in the team (a mask over the pool)."""
    if inside.sum() >= (plan.size or len(inside)):
        return inside if plan.replacement else np.zeros_like(inside)
    return np.ones_like(inside) if plan.replacement else ~inside


def _kept(steps: list[_Step], best: int, plan: Plan) -> list[_Step]:
    return steps[:best] if plan.keep_best else steps


def _weights(task: Task, steps: list[_Step]) -> npt.NDArray[np.float64]:
    return np.bincount([step.member for step in steps], minlength=task.n_members) / len(steps)


def check_plan(task: Task, plan: Plan) -> Plan:
    """Return the plan if the task can follow it, else raise `InputError`."""
    for name, value in (("rounds", plan.rounds), ("patience", plan.patience)):
        if value is not None:
            check_count(name, value, 1)
    check_count("init", plan.init, 0, plan.size or task.n_members)
    check_flag("replacement", plan.replacement)
    check_flag("keep_best", plan.keep_best)
    return plan


def _check_bags(size: int | None, bags: int, bag_fraction: float, sample_fraction: float) -> None:
    check_count("bags", bags, 0)
    for name, value in (("bag_fraction", bag_fraction), ("sample_fraction", sample_fraction)):
        if not isinstance(value, int | float | np.floating) or not 0 < value <= 1:
            raise InputError(f"expected {name} as a number above 0 and at most 1, got {value!r}")
    if bags and size is not None:
        raise InputError(f"expected size or bags, got size={size} and bags={bags}: an average of runs has no set size")
    for name, value, unused in (
        ("bag_fraction", bag_fraction, BAG_FRACTION),
        ("sample_fraction", sample_fraction, 1.0),
    ):
        if value != unused and not bags:
            raise InputError(f"expected bags above 0 with {name}={value}, got 0: give bags=20")
