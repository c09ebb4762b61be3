"""HQ: hierarchical pruning of teams by focal diversity, from small to large (Wu et al. 2021b, 2024)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from lrensemble.diversity.teams import measure
from lrensemble.errors import InputError
from lrensemble.selection.base import Selection, Task, check_count, check_flag
from lrensemble.selection.candidates import MAX_SIZE, Teams, candidate_teams, describe, sizes_of
from lrensemble.selection.diverse import diversity_of, only_member
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.teams import best_team, team_scores

__all__ = ["hq"]

Doubles = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int64]
MOST_TEAMS = 1_000_000
LARGEST = 10  # a team of 10 has 1,002 smaller teams to look up
MOST_RANKS = 2**62  # ranks are int64
ROUNDING = 1e-12


def hq(
    task: Task,
    size: int | None,
    *,
    beta: float = 0.1,
    diversity: str = "CK",
    focal: bool = True,
    max_size: int = MAX_SIZE,
    max_teams: int = MOST_TEAMS,
) -> Selection:
    """Prune the least diverse teams from small to large; return the best by the objective of those that are left.

    For each size, from 2 on: drop every team that contains a pruned one; of the n that remain, prune the ⌊β·n⌋ least
    diverse. Teams as diverse as the least diverse survivor survive with it.

    Parameters
    ----------
    size
        Prune up to this size, and choose among the teams of this size. None: up to `max_size`, among all sizes.
    beta
        Share that is pruned of each size, 0 ≤ β < 1.
    diversity, focal
        As of `diverse`; focal scores are scaled among all teams of the size.
    max_size, max_teams
        As of `diverse`; `max_size` is at most 10.

    Raises
    ------
    InputError
        If no team of `size` survives.
    """
    values_of = diversity_of(task.predictions, diversity, focal=check_flag("focal", focal))
    if not 0 <= beta < 1:
        raise InputError(f"expected beta as a share in 0…1, 1 excluded, got {beta!r}")
    if task.n_members == 1:
        return only_member()
    groups = candidate_teams(task, _sizes(task.n_members, size, max_size), max_teams)
    left = survivors(groups, [values_of(teams) for teams in groups], float(beta))
    wanted = [teams for teams in left if len(teams) and (size is None or teams.shape[1] == size)]
    if not wanted:
        raise InputError(f"expected some team of {size} members to survive, got none: use a beta below {beta}")
    scorer = scorer_for(task)
    best = best_team(scorer, ((teams, team_scores(scorer, teams)) for teams in wanted))
    kind = f"{'focal ' * focal}diversity ({measure(diversity).title})"
    reason = (
        f"best of the {sum(map(len, wanted)):,} teams left of {describe(task.n_members, groups)}, after pruning "
        f"{beta:.0%} of each size by {kind} and every team that holds a pruned one"
    )
    return replace(Selection.equal(task.n_members, best), reason=reason)


def _sizes(n_members: int, size: int | None, max_size: int) -> range:
    """Sizes to prune: those up to `size`, if it is given, or to `max_size`."""
    largest = next(k for k in range(LARGEST, 0, -1) if comb(n_members, k) <= MOST_RANKS)
    check_count("max_size" if size is None else "size", max_size if size is None else size, 2, largest)
    return sizes_of(n_members, None, size or max_size)


def survivors(groups: list[Teams], values: list[Doubles], beta: float) -> list[Teams]:
    """Teams that hierarchical pruning leaves of each size; sizes rise, higher values are more diverse."""
    pruned: dict[int, Ranks] = {}
    left = []
    for teams, diversity in zip(groups, values, strict=True):
        free = ~_contains_any(teams, pruned)
        remaining, rest = teams[free], diversity[free]
        kept = rest >= _cut(rest, beta) - ROUNDING if len(rest) else np.zeros(0, dtype=bool)
        pruned[teams.shape[1]] = _ranks(remaining[~kept])
        left.append(remaining[kept])
    return left


def _cut(values: Doubles, beta: float) -> float:
    """Return the value of the least diverse team that stays."""
    place = int(beta * len(values) + ROUNDING)
    return float(np.partition(values, place)[place])


def _contains_any(teams: Teams, pruned: dict[int, Ranks]) -> npt.NDArray[np.bool_]:
    """Mask of the teams that contain a pruned one: their smaller teams, all at once, are looked up by rank."""
    found = np.zeros(len(teams), dtype=bool)
    for size, ranks in pruned.items():
        if len(ranks):
            for columns in combinations(range(teams.shape[1]), size):
                found |= np.isin(_ranks(teams[:, columns]), ranks)
    return found


def _ranks(teams: Teams) -> Ranks:
    """Return the number of each team in the combinatorial number system: Σ_i C(member i, i + 1), members rising."""
    if not teams.size:
        return np.zeros(0, dtype=np.int64)
    members = range(int(teams.max()) + 1)
    table = np.array([[comb(member, i + 1) for i in range(teams.shape[1])] for member in members], dtype=np.int64)
    return table[teams, np.arange(teams.shape[1])].sum(axis=1)
