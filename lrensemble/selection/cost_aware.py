"""Cost-aware selection: the best team that a budget allows, or the cheapest that is as good as the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lrensemble.metrics import METRICS
from lrensemble.selection.base import Selection, Task
from lrensemble.selection.costs import CostLike, cost_name, costs_of
from lrensemble.selection.front import Front
from lrensemble.selection.outcome import team_probabilities
from lrensemble.selection.pareto import front_of

__all__ = ["cost_aware"]

Doubles = npt.NDArray[np.float64]
Terms = Callable[[Doubles, npt.NDArray[np.int64]], Doubles]
Team = npt.NDArray[np.intp]
ROUNDING = 1e-9  # a single sample that only the best team has right is one standard error, up to rounding
GROUPS = 10  # of samples, left out in turn


def cost_aware(
    task: Task,
    size: int | None,
    *,
    cost: CostLike = "members",
    budget: float | None = None,
    max_size: int | None = None,
    max_teams: int | None = None,
) -> Selection:
    """Choose a team from the Pareto front of score and cost (see `front_of`).

    With a budget: the best team that costs no more; of equal scores the cheapest. Without: the cheapest team that is
    within one standard error of the best one (Breiman et al. 1984). It is the error of the *difference* of the two, as
    they are scored on the same samples: √(variance of the per-sample differences / N) for metrics that are means over
    samples, and the jackknife over ten groups of samples for others.

    Parameters
    ----------
    size
        Only teams of this size; None: of any size up to `max_size`.
    cost
        ``"members"``, ``"parameters"``, ``"flops"``, ``"seconds"``, or a number for each member by its name.
    budget
        Most that the members may cost together.
    max_teams
        Up to so many teams all are compared; of more, those that a beam search comes across. None: see `front_of`.
    """
    front = front_of(task, costs_of(task, cost), size=size, max_size=max_size, budget=budget, max_teams=max_teams)
    last = len(front.teams) - 1
    place = last if budget is not None else next(i for i in range(last + 1) if _as_good(task, front, i))
    return replace(Selection.equal(task.n_members, front.teams[place]), reason=_reason(front, place, cost, budget))


def _reason(front: Front, place: int, cost: CostLike, budget: float | None) -> str:
    searched = f"{'all ' if front.exact else ''}{front.n_teams:,} teams{'' if front.exact else ' of a beam search'}"
    spent = f"at a cost of {front.costs[place]:.6g} ({cost_name(cost)})"
    if budget is not None:
        return f"best of {searched} within a budget of {budget:.6g}, {spent}"
    share = front.costs[place] / front.costs[-1] if front.costs[-1] else 1.0
    return f"cheapest within one standard error of the best of {searched}, {spent}, {share:.0%} of what the best costs"


def _as_good(task: Task, front: Front, place: int) -> bool:
    """Whether a team of the front is within one standard error of its last, the best."""
    team, best = front.teams[place], front.teams[-1]
    if place == len(front.teams) - 1:
        return True
    terms = next((m.per_sample for m in METRICS.values() if m.function is task.objective.function), None)
    error = jackknife_error(task, team, best) if terms is None else paired_error(task, terms, team, best)
    return bool(front.scores[-1] - front.scores[place] <= error * (1 + ROUNDING))


def paired_error(task: Task, terms: Terms, team: Team, best: Team) -> float:
    """Return the standard error of the difference of two means over the same samples."""
    p = task.predictions
    values = [terms(team_probabilities(p, members, task.rule), p.labels) for members in (team, best)]
    n = p.n_samples
    return float(np.std(values[0] - values[1], ddof=1) / np.sqrt(n)) if n > 1 else 0.0


def jackknife_error(task: Task, team: Team, best: Team) -> float:
    """Return the standard error of the difference of two scores, leaving out one group of samples after another."""
    n = task.predictions.n_samples
    groups = min(GROUPS, n)
    if groups < 2:
        return 0.0
    group = np.random.default_rng(task.seed).permutation(n) % groups
    labels = task.predictions.labels
    p, q = (team_probabilities(task.predictions, members, task.rule) for members in (team, best))
    gaps = [
        task.objective.score(q[kept], labels[kept]) - task.objective.score(p[kept], labels[kept])
        for kept in (group != i for i in range(groups))
    ]
    return float(np.sqrt((groups - 1) * np.var(gaps)))
