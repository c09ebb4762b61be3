"""Diversity-based selection: among the teams that are diverse enough, the best on validation (Wu et al. 2020, 2021)."""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt

from lrensemble.diversity import DIVERSITY, PairTables, all_teams, focal_diversity
from lrensemble.diversity.teams import measure
from lrensemble.errors import InputError
from lrensemble.selection.base import Selection, Task, check_count, check_flag
from lrensemble.selection.scorers import Scorer, scorer_for
from lrensemble.selection.teams import best_team, team_scores

__all__ = ["diverse"]

Doubles = npt.NDArray[np.float64]
Teams = npt.NDArray[np.intp]
MAX_SIZE = 5
MOST_TEAMS = 100_000
ROUNDING = 1e-12
DRAWN_AT_ONCE = 4096
THRESHOLDS = ("mean", "kmeans")


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
        Candidates at most, shared evenly by the sizes; of a size that has more teams, so many are drawn with the task's
        seed.
    """
    metric = measure(diversity).name
    if threshold not in THRESHOLDS:
        raise InputError(f"expected threshold 'mean' or 'kmeans', got '{threshold}'")
    check_flag("focal", focal)
    if task.n_members == 1:
        return Selection.equal(1, [0])
    sizes = _sizes(task.n_members, size, max_size)
    share = check_count("max_teams", max_teams, len(sizes)) // len(sizes)
    rng = np.random.default_rng(task.seed)
    scorer = scorer_for(task)
    groups = []
    for k in sizes:
        teams = (
            all_teams(task.n_members, k) if comb(task.n_members, k) <= share else _drawn(task.n_members, k, share, rng)
        )
        values = _diversity(task, teams, metric, focal)
        groups.append(
            _above_mean(scorer, teams, values) if threshold == "mean" else _better_cluster(scorer, teams, values)
        )
    return Selection.equal(task.n_members, best_team(scorer, groups))


def _sizes(n_members: int, size: int | None, max_size: int) -> range:
    if size is not None:
        check_count("size", size, 2, n_members)
        return range(size, size + 1)
    return range(2, min(check_count("max_size", max_size, 2), n_members) + 1)


def _drawn(n_members: int, size: int, count: int, rng: np.random.Generator) -> Teams:
    """Up to `count` different teams, drawn uniformly (those drawn twice are dropped), in lexicographic order."""
    chunks = []
    for start in range(0, count, DRAWN_AT_ONCE):
        keys = rng.random((min(DRAWN_AT_ONCE, count - start), n_members))
        chunks.append(np.sort(keys.argpartition(size - 1, axis=1)[:, :size], axis=1))
    return np.unique(np.concatenate(chunks), axis=0)


def _diversity(task: Task, teams: Teams, metric: str, focal: bool) -> Doubles:
    """Diversity of each team, turned so that higher is more diverse."""
    predicted, labels = task.predictions.predicted, task.predictions.labels
    if focal:
        return focal_diversity(predicted, labels, teams, metric)
    values = DIVERSITY[metric].function(PairTables(predicted, labels), teams)
    return values if DIVERSITY[metric].higher_is_more_diverse else -values


def _above_mean(scorer: Scorer, teams: Teams, values: Doubles) -> tuple[Teams, Doubles]:
    passing = teams[values >= values.mean() - ROUNDING]
    return passing, team_scores(scorer, passing)


def _better_cluster(scorer: Scorer, teams: Teams, values: Doubles) -> tuple[Teams, Doubles]:
    scores = team_scores(scorer, teams)
    inside = two_means(np.stack([_unit(scores), _unit(values)], axis=1))
    return teams[inside], scores[inside]


def two_means(points: Doubles) -> npt.NDArray[np.bool_]:
    """Find two clusters by Lloyd's algorithm, started at (1, 1) and (0, 0); True for the points in the first."""
    centres = np.array([[1.0, 1.0], [0.0, 0.0]])
    inside = np.zeros(len(points), dtype=bool)
    while True:
        distances = ((points[:, None] - centres) ** 2).sum(axis=2)
        now = distances[:, 0] <= distances[:, 1]
        if (now == inside).all() or now.all() or not now.any():
            return now if now.any() else inside
        inside = now
        centres = np.stack([points[inside].mean(axis=0), points[~inside].mean(axis=0)])


def _unit(values: Doubles) -> Doubles:
    """Scaled to 0…1; all 1 when they do not differ."""
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread > ROUNDING else np.ones_like(values)
