"""Teams as arrays of member indices, and `team_diversity`: the diversity of many teams at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from math import comb

import numpy as np
import numpy.typing as npt

from lrensemble.diversity.measures import DIVERSITY, DiversityMetric
from lrensemble.diversity.tables import PairTables
from lrensemble.errors import InputError, lookup

__all__ = ["TeamList", "all_teams", "group_by_size", "measure", "team_diversity"]

TeamList = Sequence[Sequence[int]] | npt.NDArray[np.integer]
CONVENTIONS = ("raw", "low-is-diverse")


def all_teams(n_members: int, size: int) -> npt.NDArray[np.intp]:
    """All teams of `size` of `n_members` members, in lexicographic order, shape (n_members over size, size)."""
    count = comb(n_members, size)
    flat = chain.from_iterable(combinations(range(n_members), size))
    return np.fromiter(flat, dtype=np.intp, count=count * size).reshape(count, size)


def team_diversity(
    predicted_labels: npt.ArrayLike,
    labels: npt.ArrayLike,
    teams: TeamList,
    metric: str = "CK",
    *,
    focal: int | None = None,
    convention: str = "raw",
) -> npt.NDArray[np.float64]:
    """Diversity of each team.

    Parameters
    ----------
    predicted_labels
        Integers ≥ 0, shape (M, N): the label that each of M members predicts for each of N samples.
    labels
        True labels, shape (N,).
    teams
        Tuples of distinct member indices, of any sizes ≥ 2; or an integer array of shape (T, L).
    metric
        A key of `DIVERSITY` (in any case).
    focal
        Index of a member: measure over its *negative samples* only, those it gets wrong (Wu et al. 2021).
    convention
        ``"raw"``: as the formula says; the direction is ``DIVERSITY[metric].higher_is_more_diverse``.
        ``"low-is-diverse"``: measures for which high is diverse become 1 − x, as in EnsembleBench (Wu et al. 2020).

    Returns
    -------
    array
        float64, shape (T,); finite whatever the predictions are. Degenerate values: a pair without evidence counts 0 in
        QS and COR, kappas with full chance agreement are 1, GD without any failure is 0.

    Raises
    ------
    InputError
        On wrong shapes or indices, a team of fewer than two members, an unknown metric or convention, or a focal member
        that is never wrong.

    Examples
    --------
    >>> votes = [[0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]]
    >>> team_diversity(votes, [0, 1, 1, 1], [(0, 1), (0, 1, 2)], "BD").tolist()
    [0.5, 0.5]
    """
    chosen = measure(metric)
    if convention not in CONVENTIONS:
        raise InputError(f"expected convention 'raw' or 'low-is-diverse', got '{convention}'")
    tables = PairTables(predicted_labels, labels)
    groups = group_by_size(teams, tables.n_members)
    if focal is not None:
        tables = _negatives_of(focal, tables, predicted_labels, labels)
    values = np.empty(len(teams))
    for positions, group in groups:
        values[positions] = chosen.function(tables, group)
    return 1 - values if convention == "low-is-diverse" and chosen.higher_is_more_diverse else values


def measure(name: str) -> DiversityMetric:
    """Entry of `DIVERSITY` by its name in any case; raises `UnknownNameError` with the choices."""
    upper = str(name).upper()
    return lookup(DIVERSITY, upper if upper in DIVERSITY else str(name), "diversity metric")


def group_by_size(teams: TeamList, n_members: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Split teams into groups of one size: (positions in `teams` (T_L,), members in rising order (T_L, L)).

    Raises
    ------
    InputError
        Unless each team has two or more distinct members with indices 0…M−1.
    """
    if isinstance(teams, np.ndarray) and teams.ndim == 2:
        return [(np.arange(len(teams)), _checked(teams, n_members))]
    by_size: dict[int, list[int]] = {}
    for position, team in enumerate(teams):
        by_size.setdefault(np.size(team), []).append(position)
    return [
        (np.array(positions, dtype=np.intp), _checked(np.array([tuple(teams[i]) for i in positions]), n_members))
        for positions in by_size.values()
    ]


def _checked(group: npt.NDArray, n_members: int) -> npt.NDArray[np.intp]:
    if group.ndim != 2 or group.shape[1] < 2:
        raise InputError("expected teams of two or more members, got a smaller one: a member alone has no diversity")
    if group.dtype.kind not in "iu":
        raise InputError(f"expected teams as tuples of member indices, got values of type {group.dtype}")
    if group.size and (group.min() < 0 or group.max() >= n_members):
        raise InputError(f"expected member indices in 0…{n_members - 1}, got {group.min()}…{group.max()}")
    ordered = np.sort(group.astype(np.intp), axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if twice.any():
        raise InputError(f"expected teams of distinct members, got {tuple(group[twice.argmax()].tolist())}")
    return ordered


def _negatives_of(focal: int, tables: PairTables, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> PairTables:
    if not isinstance(focal, int | np.integer) or not 0 <= focal < tables.n_members:
        raise InputError(f"expected focal as a member index in 0…{tables.n_members - 1}, got {focal!r}")
    wrong = ~tables.right[focal]
    if not wrong.any():
        raise InputError(f"expected a focal member that is wrong somewhere, got member {focal}, which is always right")
    return PairTables(np.asarray(predicted)[:, wrong], np.asarray(labels)[wrong])
