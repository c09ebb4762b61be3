"""The Pareto front of scored teams: those that no other team beats in score without costing more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.selection.base import better
from lrensemble.selection.scorers import Scorer
from lrensemble.selection.teams import best_team

__all__ = ["Front", "Scored", "levels_of", "merged", "undominated"]

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Team = npt.NDArray[np.intp]
Teams = npt.NDArray[np.intp]  # (T, L), rows rise, and are in lexicographic order
DIGITS = 12  # of costs, as shares of that of the whole pool: further ones are rounding
ROUNDING = 1e-12


@dataclass(frozen=True)
class Front:
    """Teams of rising cost and rising score.

    Attributes
    ----------
    teams
        Members of each, in rising order.
    costs, scores
        Of each; scores are turned so that higher is better.
    n_teams
        How many teams were scored.
    exact
        Whether those were all teams that were asked for.
    """

    teams: tuple[Team, ...]
    costs: Doubles
    scores: Doubles
    n_teams: int
    exact: bool


@dataclass(frozen=True)
class Scored:
    """Teams of one size with their costs and scores."""

    teams: Teams
    costs: Doubles
    scores: Doubles

    def where(self, mask: Mask) -> Scored:
        """Return those of the teams."""
        return Scored(self.teams[mask], self.costs[mask], self.scores[mask])


def undominated(costs: Doubles, scores: Doubles) -> Mask:
    """Mask of the teams with the best score for their cost that no cheaper team reaches; equals up to rounding stay."""
    if not len(costs):
        return np.zeros(0, dtype=bool)
    order = np.lexsort((-scores, costs))
    ordered = costs[order]
    highest = np.maximum.accumulate(scores[order])
    here = highest[np.searchsorted(ordered, costs, side="right") - 1]
    cheaper = np.searchsorted(ordered, costs, side="left")
    below = np.where(cheaper > 0, highest[cheaper - 1], -np.finfo(np.float64).max)
    return (scores >= here - ROUNDING * np.abs(here)) & (scores - below > ROUNDING * np.abs(below))


def levels_of(team_costs: Doubles, costs: Doubles) -> Doubles:
    """Costs as shares of that of the whole pool, rounded, so that sums in another order are equal."""
    return np.asarray(np.round(team_costs / (costs.sum() or 1.0), DIGITS), dtype=np.float64)


def merged(scorer: Scorer, costs: Doubles, groups: Sequence[Scored], n_teams: int, exact: bool) -> Front:
    """Front of teams of several sizes (rising), with one team for each cost: of equals the first by the usual order."""
    levels = [levels_of(group.costs, costs) for group in groups]
    kept = undominated(np.concatenate(levels), np.concatenate([group.scores for group in groups]))
    masks = np.split(kept, np.cumsum([len(group.teams) for group in groups])[:-1])
    chosen: list[tuple[Team, float, float]] = []
    for level in np.unique(np.concatenate(levels)[kept]):
        equal = [g.where(m & (own == level)) for g, m, own in zip(groups, masks, levels, strict=True)]
        equal = [group for group in equal if len(group.teams)]
        team = best_team(scorer, [(group.teams, group.scores) for group in equal])
        score = max(float(group.scores.max()) for group in equal)
        if not chosen or better((score,), chosen[-1][2:]):
            chosen.append((team, float(costs[team].sum()), score))
    teams, team_costs, scores = zip(*chosen, strict=True)
    return Front(tuple(teams), np.array(team_costs), np.array(scores), n_teams, exact)
