"""Search for the Pareto front of teams: exact over all of them as far as they can be looked at, else by a beam.

Where compiled kernels bound the scores of all teams, the front that the beam finds is the bar: a team that may lie on
the front has a bound that reaches the bar at its cost, and only such teams need an exact score.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import comb, inf

import numpy as np
import numpy.typing as npt

from lrensemble.diversity import all_teams
from lrensemble.errors import InputError
from lrensemble.selection.base import Task, check_count
from lrensemble.selection.bounds import SECONDS, Bounds, bounds_for
from lrensemble.selection.front import ROUNDING, Front, Scored, levels_of, merged, undominated
from lrensemble.selection.front_beam import beam_teams
from lrensemble.selection.halves import NONE, Halves
from lrensemble.selection.scorers import Scorer, scorer_for
from lrensemble.selection.teams import all_scores, team_scores

__all__ = ["front_of"]

Doubles = npt.NDArray[np.float64]
MANY = 1 << 20  # teams to look at where kernels bound their scores
FEW = 1 << 16  # and where each is scored


def front_of(
    task: Task,
    costs: Doubles,
    *,
    size: int | None = None,
    max_size: int | None = None,
    budget: float | None = None,
    max_teams: int | None = None,
) -> Front:
    """Find the Pareto front of equal-weight teams; of teams of equal cost and score, the first by the usual order.

    Parameters
    ----------
    costs
        Of each member, shape (M,), ≥ 0; a team costs their sum.
    size, max_size
        Only teams of this size, or of at most that size; None: of all sizes.
    budget
        Only teams that cost no more.
    max_teams
        Look at all teams if there are no more than this, else search with a beam. None: a million where compiled
        kernels bound their scores (accuracy and NLL of the mean of probabilities), else 65,536.

    Raises
    ------
    InputError
        If no team is within the budget.
    """
    if max_size is not None:
        check_count("max_size", max_size, size or 1)
    sizes = range(size or 1, (size or min(max_size or task.n_members, task.n_members)) + 1)
    limit = _limit(costs, sizes[0], budget)
    n_teams = sum(comb(task.n_members, k) for k in sizes)
    if max_teams is not None:
        check_count("max_teams", max_teams, 1)
    scorer = scorer_for(task)
    seconds = inf if n_teams > FEW else SECONDS * n_teams * task.predictions.n_samples  # inf: kernels, come what may
    bounds = bounds_for(task, seconds) if n_teams <= (max_teams or MANY) else None
    exact = n_teams <= (max_teams or (MANY if bounds else FEW))
    every = _every_team(scorer, costs, sizes) if exact and not bounds else beam_teams(scorer, costs, sizes, limit)
    n_scored, groups = 0, []
    for scored in every:
        n_scored += len(scored.teams)
        groups.append(_on_front(scored, costs, limit))
    front = merged(scorer, costs, groups, n_teams if exact else n_scored, exact)
    if exact and bounds:
        contenders = list(_contenders(Halves.of(task.n_members, sizes), bounds, scorer, costs, limit, front))
        front = merged(scorer, costs, contenders, n_teams, exact)
    return front


def _limit(costs: Doubles, size: int, budget: float | None) -> float:
    """Return the budget with room for rounding; raise `InputError` if no team of that size is within it."""
    if budget is None:
        return np.inf
    least, room = float(np.sort(costs)[:size].sum()), ROUNDING * float(costs.sum())
    if not budget >= least - room:  # also true of NaN
        team = "member costs" if size == 1 else f"{size} members cost"
        raise InputError(f"expected a budget of at least {least:.6g}, which the cheapest {team}, got {budget:.6g}")
    return budget + room


def _on_front(scored: Scored, costs: Doubles, limit: float) -> Scored:
    """Return those within the limit that are on the front of their own size."""
    affordable = scored.where(scored.costs <= limit)
    return affordable.where(undominated(levels_of(affordable.costs, costs), affordable.scores))


def _every_team(scorer: Scorer, costs: Doubles, sizes: range) -> Iterator[Scored]:
    scores = all_scores(scorer, len(costs), sizes)
    for k in sizes:
        teams = all_teams(len(costs), k)
        yield Scored(teams, costs[teams].sum(axis=1), scores.pop(k))


def _contenders(
    halves: Halves, bounds: Bounds, scorer: Scorer, costs: Doubles, limit: float, bar: Front
) -> Iterator[Scored]:
    """Teams, by rising size, whose bound reaches the score that is known to be had for their cost."""
    of_head, of_tail = (np.where(rows == NONE, 0.0, costs[rows]).sum(axis=1) for rows in (halves.heads, halves.tails))
    levels = levels_of(bar.costs, costs)
    scores = np.concatenate([[-np.inf], bar.scores])  # by how many of the bar's teams cost no more
    found = []
    for block in halves.blocks():
        upper = bounds.of(halves, block)
        runs = zip(of_head[block], halves.start[block], halves.stop[block], strict=True)
        spent = np.concatenate([cost + of_tail[start:stop] for cost, start, stop in runs])
        level = levels_of(spent, costs)
        as_cheap = scores[np.searchsorted(levels, level, side="right")]
        cheaper = scores[np.searchsorted(levels, level, side="left")]
        may_be = (upper >= as_cheap - 2 * ROUNDING * np.abs(as_cheap)) & (upper > cheaper) & (spent <= limit)
        found.append(halves.offset[block.start] + np.flatnonzero(may_be))
    for teams, _ in halves.teams(np.concatenate(found)).values():
        yield Scored(teams, costs[teams].sum(axis=1), team_scores(scorer, teams))
