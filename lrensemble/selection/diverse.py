"""Diversity-based selection: among the teams that are diverse enough, the best on validation (Wu et al. 2020, 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lrensemble.diversity import FocalTables, PairTables
from lrensemble.diversity.teams import measure
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Selection, Task, check_flag, counted
from lrensemble.selection.candidates import (
    MAX_SIZE,
    MOST_TEAMS,
    Teams,
    above_mean,
    better_cluster,
    candidate_teams,
    check_threshold,
    describe,
    sizes_of,
)
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.teams import best_team, team_scores

__all__ = ["diverse", "diversity_of", "only_member"]

Doubles = npt.NDArray[np.float64]
PASSED = {
    "mean": "at or above the mean {} of their size",
    "kmeans": "in the better and more diverse cluster of their size, by {}",
}


def diverse(
    task: Task,
    size: int | None,
    *,
    diversity: str = "CK",
    focal: bool = False,
    threshold: str = "mean",
    max_size: int = MAX_SIZE,
    max_teams: int = MOST_TEAMS,
) -> Selection:
    """Keep the teams that are diverse for their size, and return the best of them by the objective.

    Parameters
    ----------
    size
        Only teams of this size; None: of sizes 2…`max_size`. A pool of one member gives that member.
    diversity
        A key of ``DIVERSITY``.
    focal
        Focal diversity (FQ) in place of the measure over all samples.
    threshold
        ``"mean"``: at least as diverse as the mean of the teams of that size. ``"kmeans"``: in the better and more
        diverse one of two clusters that k-means finds in the plane of score and diversity.
    max_teams
        Candidates at most, shared evenly by the sizes (what small sizes leave over goes to the others); of a size that
        has more teams, so many are drawn with the task's seed.
    """
    values_of = diversity_of(task.predictions, diversity, focal=check_flag("focal", focal))
    check_threshold(threshold)
    if task.n_members == 1:
        return only_member()
    groups = candidate_teams(task, sizes_of(task.n_members, size, max_size), max_teams)
    scorer = scorer_for(task)
    passing = []
    for teams in groups:
        values = values_of(teams)
        if threshold == "mean":
            kept = teams[above_mean(values)]
            passing.append((kept, team_scores(scorer, kept)))
        else:
            scores = team_scores(scorer, teams)
            inside = better_cluster(scores, values)
            passing.append((teams[inside], scores[inside]))
    kind = f"{'focal ' * focal}diversity ({measure(diversity).title})"
    count = counted(sum(len(kept) for kept, _ in passing), "team")
    reason = f"best of the {count} {PASSED[threshold].format(kind)}, of {describe(task.n_members, groups)}"
    return replace(Selection.equal(task.n_members, best_team(scorer, passing)), reason=reason)


def diversity_of(predictions: Predictions, metric: str, *, focal: bool) -> Callable[[Teams], Doubles]:
    """Return a function that gives the diversity of each of many teams of one size, higher = more diverse.

    Raises
    ------
    UnknownNameError
        If there is no such measure.
    """
    chosen = measure(metric)
    if focal:
        tables = FocalTables(predictions.predicted, predictions.labels)
        return lambda teams: tables.scores(teams, chosen)
    pairs, sign = PairTables(predictions.predicted, predictions.labels), 1 if chosen.higher_is_more_diverse else -1
    return lambda teams: sign * chosen.function(pairs, teams)


def only_member() -> Selection:
    """Return what there is to select from a pool of one member."""
    return replace(Selection.equal(1, [0]), reason="the only member of the pool")
