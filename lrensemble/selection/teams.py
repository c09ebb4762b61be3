"""Enumerations of equal-weight teams: their scores, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
    """Score of each team, shape (T,): at one go where the scorer can, else by a walk over the tree of prefixes."""
    scores = scorer.team_scores(teams)
    return _by_prefix(scorer, teams, lambda team, last: team.scores(last)) if scores is None else scores


def best_team(scorer: Scorer, groups: Iterable[tuple[Teams, Doubles]]) -> npt.NDArray[np.intp]:
    """Return the best of (teams, scores) of rising size; equals go by tie, then to the smaller team, lower indices."""
    keys, leaders = [], []
    for teams, scores in groups:
        leading = teams[near_best(scores)]
        ties = _team_ties(scorer, leading)
        keys.append((float(scores.max()), float(ties.max())))
        leaders.append(leading[near_best(ties)][0])
    return leaders[first_best(keys)]


def _team_ties(scorer: Scorer, teams: Teams) -> Doubles:
    ties = scorer.team_ties(teams)
    return _by_prefix(scorer, teams, lambda team, last: team.ties(last)) if ties is None else ties


def _by_prefix(scorer: Scorer, teams: Teams, value: Callable[[Scorer, Teams], Doubles]) -> Doubles:
    """Value of each team, from its last member and the scorer of those before it, which neighbours share."""
    if teams.shape[1] == 1:
        return value(scorer, teams[:, 0])
    starts = np.flatnonzero(np.diff(teams[:, 0], prepend=-1))
    blocks = np.split(teams, starts[1:])
    return np.concatenate([_by_prefix(scorer.plus(block[0, 0]), block[:, 1:], value) for block in blocks])
