"""Focal diversity: how differently a team fails where one of its members fails (Wu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lrensemble.diversity.measures import DiversityMetric
from lrensemble.diversity.tables import PairTables
from lrensemble.diversity.teams import TeamList, group_by_size, measure

__all__ = ["FocalTables", "focal_diversity"]

Doubles = npt.NDArray[np.float64]
Teams = npt.NDArray[np.intp]  # (T, L): T teams of L distinct members, rows rise
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
    negative samples, so that its own pairs are 0/0 and count 0; only those of the others say something.

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
    tables = FocalTables(predicted_labels, labels)
    scores = np.empty(len(teams))
    for positions, group in group_by_size(teams, tables.whole.n_members):
        scores[positions] = tables.scores(group, chosen)
    return scores


class FocalTables:
    """Pair tables of all samples, and of the negative samples of each member: made once, they serve every measure.

    Parameters
    ----------
    predicted, labels
        As in `PairTables`.

    Attributes
    ----------
    whole
        Tables over all samples.
    """

    def __init__(self, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        self.whole = PairTables(predicted, labels)
        self._negatives = tuple(_negatives(np.asarray(predicted), np.asarray(labels), self.whole))

    def scores(self, teams: Teams, metric: DiversityMetric) -> Doubles:
        """FQ score of each team, shape (T,); the teams (T, L) are of one size, see `focal_diversity`."""
        n_members, size = len(self._negatives), teams.shape[1]
        ranks = _ranks(self.whole.n_right, teams).ravel()
        places = np.argsort(teams.ravel().astype(np.min_scalar_type(n_members)), kind="stable")  # by member
        ends = np.cumsum(np.bincount(teams.ravel(), minlength=n_members))[:-1]
        total = np.zeros(len(teams))
        for tables, places_of_f in zip(self._negatives, np.split(places, ends), strict=True):
            with_f = places_of_f // size
            if with_f.size:
                raw = metric.function(tables, teams[with_f]) if tables else np.zeros(with_f.size)
                total[with_f] += ranks[places_of_f] * _scaled(raw if metric.higher_is_more_diverse else -raw)
        return total / (size * (size + 1) / 2)


def _negatives(predicted: npt.NDArray, labels: npt.NDArray, whole: PairTables) -> Iterator[PairTables | None]:
    """Tables over the samples that each member gets wrong; None for a member that is never wrong."""
    for wrong in ~whole.right:
        yield PairTables(predicted[:, wrong], labels[wrong]) if wrong.any() else None


def _ranks(accuracy: Doubles, teams: Teams) -> Doubles:
    """Rank of each member within its team, shape (T, L): 1 = least accurate, equals share the mean of their ranks."""
    above = (accuracy[:, None] > accuracy) + (accuracy[:, None] == accuracy) / 2  # (i, j): what j adds to the rank of i
    rows, columns = np.ascontiguousarray(teams.T) * len(accuracy), np.ascontiguousarray(teams.T)
    ranks = [0.5 + sum(above.ravel().take(row + column) for column in columns) for row in rows]
    return np.stack(ranks, axis=1)


def _scaled(values: Doubles) -> Doubles:
    low, high = values.min(), values.max()
    if high - low < SPREAD:
        return np.full(len(values), NEUTRAL)
    return (values - low) / (high - low)
