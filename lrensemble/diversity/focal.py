"""Focal diversity: how differently a team fails where one of its members fails (Wu et al. 2021)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lrensemble.diversity.tables import PairTables
from lrensemble.diversity.teams import TeamList, group_by_size, measure

__all__ = ["focal_diversity"]

NEUTRAL = 0.5  # of a focal member that says nothing: never wrong, or all teams alike
SPREAD = 1e-12  # a smaller range of scores is rounding


def focal_diversity(
    predicted_labels: npt.ArrayLike, labels: npt.ArrayLike, teams: TeamList, metric: str = "CK"
) -> npt.NDArray[np.float64]:
    """FQ score of each team, 0…1, 1 = most diverse.

    Each member f of a team in turn is the focal one. The measure is taken over all samples that f gets wrong, for each
    of the given teams that hold f, and scaled to 0…1 (1 = most diverse) among those of the same size. A team's score is
    the mean over its members as focal ones, weighted by the rank of their accuracy in the team (1 = least accurate;
    equals share their ranks). A focal member that is never wrong, or for which all teams of that size are alike,
    counts ½.

    Scores compare teams of one size within the list that was given. QS tells little here: f is never right on its
    negative samples, so each of its pairs is 0/0 and counts 0.

    Parameters
    ----------
    predicted_labels, labels, teams, metric
        As in `team_diversity`; the samples should be validation samples.

    Returns
    -------
    array
        float64, shape (T,).

    Raises
    ------
    InputError
        As `team_diversity`.
    """
    chosen = measure(metric)
    predicted, true = np.asarray(predicted_labels), np.asarray(labels)
    tables = PairTables(predicted, true)
    groups = group_by_size(teams, tables.n_members)
    ranks = [_ranks(tables.n_right[group]) for _, group in groups]
    totals = [np.zeros(len(group)) for _, group in groups]
    for f, wrong in enumerate(~tables.right):
        negatives = PairTables(predicted[:, wrong], true[wrong]) if wrong.any() else None
        for (_, group), rank, total in zip(groups, ranks, totals, strict=True):
            holds = group == f
            with_f = holds.any(axis=1)
            if with_f.any():
                raw = chosen.function(negatives, group[with_f]) if negatives else np.zeros(with_f.sum())
                total[with_f] += rank[holds] * _scaled(raw if chosen.higher_is_more_diverse else -raw)
    scores = np.empty(len(teams))
    for (positions, _), rank, total in zip(groups, ranks, totals, strict=True):
        scores[positions] = total / rank.sum(axis=1)
    return scores


def _ranks(accuracy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank of each member within its team, shape (T, L): 1 = least accurate, equals share the mean of their ranks."""
    below = (accuracy[:, None, :] < accuracy[:, :, None]).sum(axis=2)
    equal = (accuracy[:, None, :] == accuracy[:, :, None]).sum(axis=2)
    return below + (equal + 1) / 2


def _scaled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = values.min(), values.max()
    if high - low < SPREAD:
        return np.full(len(values), NEUTRAL)
    return (values - low) / (high - low)
