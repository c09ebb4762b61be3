"""A beam search for the Pareto front of teams, where there are too many teams to look at them all.

Teams grow member by member; of each size some are followed that lie along the front of that size. What it finds are
real teams with their true scores, but there may be better ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from lrensemble.selection.front import Scored, levels_of, undominated
from lrensemble.selection.scorers import Scorer

__all__ = ["beam_teams"]

Doubles = npt.NDArray[np.float64]
Team = npt.NDArray[np.intp]
Followed = tuple[Scorer, Team]
Teams = npt.NDArray[np.intp]  # (T, L), rows rise, and are in lexicographic order
WIDTH = 32  # teams of one size that are followed
PATIENCE = 2  # sizes in a row without a new team on the front, after which the search stops


def beam_teams(scorer: Scorer, costs: Doubles, sizes: range, limit: float) -> Iterator[Scored]:
    """Teams of each size that come from the followed teams of the size before, until the front stands still."""
    followed: list[Followed] = [(scorer, np.zeros(0, dtype=np.intp))]
    best: list[Scored] = []
    idle = 0
    for k in range(1, sizes[-1] + 1):
        children = _children(followed, costs, limit, missing=max(sizes[0] - k, 0))
        if not len(children.teams):
            return
        if k >= sizes[0]:
            yield children
            best, new = _front_with(best, children, costs)
            idle = 0 if new else idle + 1
            if idle == PATIENCE:
                return
        keep = _spread(children, costs)
        followed = [(_scorer_of(scorer, team), team) for team in children.teams[keep]]


def _children(followed: Iterable[Followed], costs: Doubles, limit: float, missing: int) -> Scored:
    """Teams with one member more, each once, that `missing` further members can complete within the limit."""
    teams, scores = [], []
    for scorer, team in followed:
        rest = np.setdiff1d(np.arange(len(costs)), team)
        grown = np.sort(np.column_stack([np.tile(team, (len(rest), 1)), rest]), axis=1).astype(np.intp)
        completed = costs[grown].sum(axis=1) + _cheapest_others(grown, costs, missing)
        within = completed <= limit
        if within.any():
            teams.append(grown[within])
            scores.append(scorer.scores(rest[within]))
    if not teams:
        return Scored(np.zeros((0, 1), dtype=np.intp), np.zeros(0), np.zeros(0))
    unique, first = np.unique(np.concatenate(teams), axis=0, return_index=True)
    return Scored(unique, costs[unique].sum(axis=1), np.concatenate(scores)[first])


def _cheapest_others(teams: Teams, costs: Doubles, count: int) -> Doubles:
    """Cost of the `count` cheapest members that are not in each team."""
    if not count:
        return np.zeros(len(teams))
    others = np.tile(costs, (len(teams), 1))
    np.put_along_axis(others, teams, np.inf, axis=1)
    return np.sort(others, axis=1)[:, :count].sum(axis=1)


def _front_with(best: list[Scored], children: Scored, costs: Doubles) -> tuple[list[Scored], bool]:
    """Front so far with the children added, and whether any of them is on it."""
    groups = [*best, children]
    levels = levels_of(np.concatenate([group.costs for group in groups]), costs)
    kept = undominated(levels, np.concatenate([group.scores for group in groups]))
    masks = np.split(kept, np.cumsum([len(group.teams) for group in groups])[:-1])
    return [group.where(mask) for group, mask in zip(groups, masks, strict=True)], bool(masks[-1].any())


def _spread(children: Scored, costs: Doubles) -> npt.NDArray[np.intp]:
    """Up to `WIDTH` children to go on from: half of them the best, half spread evenly along their own front."""
    by_score = np.argsort(-children.scores, kind="stable")
    front = np.flatnonzero(undominated(levels_of(children.costs, costs), children.scores))
    along = front[np.argsort(children.costs[front], kind="stable")]
    even = along[np.unique(np.linspace(0, len(along) - 1, WIDTH // 2).round().astype(np.intp))]
    rest = by_score[~np.isin(by_score, even)]
    return np.sort(np.concatenate([even, rest[: WIDTH - len(even)]]))


def _scorer_of(empty: Scorer, team: Team) -> Scorer:
    for member in team:
        empty = empty.plus(int(member))
    return empty
