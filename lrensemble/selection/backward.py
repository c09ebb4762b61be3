"""Backward elimination: from all members, drop one by one those that the team can best do without."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from lrensemble.selection.base import Selection, Task, check_count, first_best
from lrensemble.selection.removals import removals_for
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.simple import ranking

__all__ = ["backward"]

Key = tuple[float, float, float]


def backward(task: Task, size: int | None, *, init: int | None = None) -> Selection:
    """Drop, round by round, the member whose absence leaves the best team; return the best team passed on the way.

    Of members that may equally well leave, the one of highest index does.

    Parameters
    ----------
    size
        Stop at exactly so many members, and return those; None: go on to a single one.
    init
        Start from the `init` members that are best one by one; None: from all.
    """
    team = np.arange(task.n_members)
    if init is not None:
        team = np.sort(ranking(scorer_for(task), team)[: check_count("init", init, size or 1, task.n_members)])
    teams, keys = [team], [_key(task, team)]
    removals = removals_for(task, team)
    while len(removals.team) > (size or 1):
        leaders, score, tie = removals.leaders()
        removals.leave(int(leaders[-1]))
        teams.append(removals.team)
        keys.append((score, tie, -float(len(removals.team))))
    best = first_best(keys) if size is None else len(teams) - 1
    kept = f"left of {len(team)} members after {best} were dropped one by one"
    reason = f"best of the {len(teams)} teams on the way to one: {kept}" if size is None else kept
    return replace(Selection.equal(task.n_members, teams[best]), reason=reason)


def _key(task: Task, team: npt.NDArray[np.intp]) -> Key:
    """(score, tie, −members) of a team."""
    scorer = reduce(lambda so_far, member: so_far.plus(member), team[:-1], scorer_for(task))
    return float(scorer.scores(team[-1:])[0]), float(scorer.ties(team[-1:])[0]), -float(len(team))
