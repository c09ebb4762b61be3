"""EQ: the verdicts of those three focal diversities that follow the score best, fused (Wu et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lrensemble.diversity import DIVERSITY, FocalTables
from lrensemble.errors import InputError
from lrensemble.selection.base import Selection, Task
from lrensemble.selection.candidates import (
    MAX_SIZE,
    MOST_TEAMS,
    above_mean,
    better_cluster,
    candidate_teams,
    check_threshold,
    describe,
    sizes_of,
)
from lrensemble.selection.diverse import only_member
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.teams import best_team, team_scores

__all__ = ["eq"]

Doubles = npt.NDArray[np.float64]
BySize = Sequence[Doubles]  # one value a team, size by size
MEASURES = ("CK", "QS", "BD", "FK", "KW", "GD")
FUSED = 3
NEEDED = {"vote": 2, "intersection": 3}
SAME = 1e-9  # of FQ scores in 0…1
DIGITS = 12  # of correlations: further ones are rounding


def eq(
    task: Task,
    size: int | None,
    *,
    fusion: str = "vote",
    threshold: str = "mean",
    max_size: int = MAX_SIZE,
    max_teams: int = MOST_TEAMS,
) -> Selection:
    """Keep the teams that most of the three most telling focal diversities find diverse; return the best of them.

    FQ scores of all candidates by CK, QS, BD, FK, KW and GD are correlated with their scores (with validation accuracy
    under that objective): Pearson's r among the teams of one size, averaged over the sizes; a size where one of the two
    does not vary counts 0 (so does QS among teams of two: a focal member is never right on its negative samples). The
    three of highest r vote. A measure whose FQ never varies has no vote, nor has one whose FQ equals that of an earlier
    one (KW: among teams of one size it is BD times a constant).

    Parameters
    ----------
    size, threshold, max_size, max_teams
        As of `diverse`.
    fusion
        ``"vote"``: teams above the threshold by two or three of the three. ``"intersection"``: by all three. If there
        is no such team, one vote less is enough; the reason says so.
    """
    if fusion not in NEEDED:
        raise InputError(f"expected fusion 'vote' or 'intersection', got {fusion!r}")
    check_threshold(threshold)
    if task.n_members == 1:
        return only_member()
    groups = candidate_teams(task, sizes_of(task.n_members, size, max_size), max_teams)
    scorer = scorer_for(task)
    scores = [team_scores(scorer, teams) for teams in groups]
    tables = FocalTables(task.predictions.predicted, task.predictions.labels)
    focal = {name: [tables.scores(teams, DIVERSITY[name]) for teams in groups] for name in MEASURES}
    chosen = most_telling(focal, scores)
    votes = [_votes([focal[name][k] for name in chosen], scores[k], threshold) for k in range(len(groups))]
    wanted = min(NEEDED[fusion], len(chosen))
    needed = min(wanted, max(int(v.max()) for v in votes))
    passing = [
        (teams[v >= needed], s[v >= needed])
        for teams, s, v in zip(groups, scores, votes, strict=True)
        if (v >= needed).any()
    ]
    kept = sum(len(teams) for teams, _ in passing)
    fallback = f" (none is by {wanted})" if needed < wanted else ""
    reason = (
        f"best of the {kept:,} teams that are diverse by {needed} or more of the {len(chosen)} focal diversities that "
        f"follow {task.objective.name} best ({', '.join(chosen) or 'none varies'}){fallback}, "
        f"of {describe(task.n_members, groups)}"
    )
    return replace(Selection.equal(task.n_members, best_team(scorer, passing)), reason=reason)


def most_telling(focal: dict[str, list[Doubles]], scores: BySize) -> list[str]:
    """Names of the up to three measures whose FQ correlates best with the scores, the best first; see `eq`."""
    distinct: list[str] = []
    for name, values in focal.items():
        varies = any(np.ptp(v) > SAME for v in values)
        if varies and not any(_same(values, focal[other]) for other in distinct):
            distinct.append(name)
    return sorted(distinct, key=lambda name: -round(_mean_correlation(focal[name], scores), DIGITS))[:FUSED]


def _same(some: BySize, others: BySize) -> bool:
    return all(np.abs(a - b).max() <= SAME for a, b in zip(some, others, strict=True))


def _mean_correlation(values: BySize, scores: BySize) -> float:
    return float(np.mean([_correlation(v, s) for v, s in zip(values, scores, strict=True)]))


def _correlation(x: Doubles, y: Doubles) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    if min(np.ptp(x), np.ptp(y)) <= SAME:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _votes(values: Sequence[Doubles], scores: Doubles, threshold: str) -> npt.NDArray[np.intp]:
    """Count by how many of the measures each team passes."""
    masks = [above_mean(v) if threshold == "mean" else better_cluster(scores, v) for v in values]
    return np.sum(masks, axis=0, dtype=np.intp) if masks else np.zeros(len(scores), dtype=np.intp)
