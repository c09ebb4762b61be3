"""Exhaustive search: the best of all equal-weight teams, exactly."""

from __future__ import annotations

from math import comb

from lrensemble.diversity import all_teams
from lrensemble.errors import InputError
from lrensemble.selection.base import Selection, Task, check_count
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.teams import all_scores, best_team

__all__ = ["exhaustive"]

MOST_TEAMS = 1 << 20  # all teams of 20 members


def exhaustive(task: Task, size: int | None, *, max_size: int | None = None, max_teams: int = MOST_TEAMS) -> Selection:
    """Score every team and return the best; equals go to the smaller team, then to lower indices.

    Parameters
    ----------
    size
        Only teams of this size; None: of all sizes.
    max_size
        Only teams of at most this size.
    max_teams
        Refuse to start when there are more.
    """
    if max_size is not None:
        check_count("max_size", max_size, size or 1)
    check_count("max_teams", max_teams, 1)
    largest = size or min(max_size or task.n_members, task.n_members)
    sizes = range(size or 1, largest + 1)
    count = sum(comb(task.n_members, k) for k in sizes)
    if count > max_teams:
        raise InputError(
            f"expected at most {max_teams:,} teams for an exhaustive search, got {count:,} ({task.n_members} members): "
            "give a size or max_size, raise max_teams, or use method 'greedy'"
        )
    scorer = scorer_for(task)
    scores = all_scores(scorer, task.n_members, sizes)
    groups = ((all_teams(task.n_members, k), scores[k]) for k in sizes)
    return Selection.equal(task.n_members, best_team(scorer, groups))
