"""Enumerations of equal-weight teams: their scores, and the best of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np
import numpy.typing as npt

from lrensemble.selection.base import first_best, near_best
from lrensemble.selection.scorers import Scorer

__all__ = ["all_scores", "best_team", "team_scores"]

Doubles = npt.NDArray[np.float64]
Teams = npt.NDArray[np.intp]  # (T, L), rows rise, and are in lexicographic order


def all_scores(scorer: Scorer, n_members: int, sizes: range) -> dict[int, Doubles]:
    """Scores of all teams of the given sizes, by size, each in lexicographic order of the teams.

    One walk over the tree of all teams: each is its parent and one member more, so that it costs one addition.
    """
    found: dict[int, list[Doubles]] = {size: [] for size in sizes}
    _walk(scorer, np.arange(n_members), 1, sizes, found)
    return {size: np.concatenate(parts) for size, parts in found.items()}


def _walk(scorer: Scorer, rest: Teams, size: int, sizes: range, found: dict[int, list[Doubles]]) -> None:
    """Add each of the `rest` to the scorer's team, which makes teams of `size`; then go on from each of those."""
    if size in found:
        found[size].append(scorer.scores(rest))
    if size < sizes[-1]:
        needed = max(sizes[0] - size, 1)  # members that must still follow
        for i in range(len(rest) - needed):
            _walk(scorer.plus(rest[i]), rest[i + 1 :], size + 1, sizes, found)


def team_scores(scorer: Scorer, teams: Teams) -> Doubles:
    """Score of each team, shape (T,): a walk over the tree of their prefixes, so that neighbours share their sums."""
    if teams.shape[1] == 1:
        return scorer.scores(teams[:, 0])
    starts = np.flatnonzero(np.diff(teams[:, 0], prepend=-1))
    blocks = np.split(teams, starts[1:])
    return np.concatenate([team_scores(scorer.plus(block[0, 0]), block[:, 1:]) for block in blocks])


def best_team(scorer: Scorer, groups: Iterable[tuple[Teams, Doubles]]) -> npt.NDArray[np.intp]:
    """Return the best of (teams, scores) of rising size; equals go by tie, then to the smaller team, lower indices."""
    keys, leaders = [], []
    for teams, scores in groups:
        leading = np.flatnonzero(near_best(scores))
        ties = np.array([_tie(scorer, team) for team in teams[leading]])
        first = leading[near_best(ties)][0]
        keys.append((float(scores[first]), float(ties.max())))
        leaders.append(teams[first])
    return leaders[first_best(keys)]


def _tie(scorer: Scorer, team: npt.NDArray[np.intp]) -> float:
    return float(reduce(lambda so_far, member: so_far.plus(member), team[:-1], scorer).ties(team[-1:])[0])
