"""Candidate teams of the methods that look at diversity, and the thresholds that part the diverse from the others."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
import numpy.typing as npt

from lrensemble.diversity import all_teams
from lrensemble.errors import InputError
from lrensemble.selection.base import Task, check_count, counted

__all__ = [
    "MAX_SIZE",
    "MOST_TEAMS",
    "THRESHOLDS",
    "above_mean",
    "better_cluster",
    "candidate_teams",
    "check_threshold",
    "describe",
    "scaled",
    "sizes_of",
    "two_means",
]

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Teams = npt.NDArray[np.intp]  # (T, L), rows rise, and are in lexicographic order
MAX_SIZE = 5
MOST_TEAMS = 100_000
ROUNDING = 1e-12
DRAWN_AT_ONCE = 4096
THRESHOLDS = ("mean", "kmeans")


def sizes_of(n_members: int, size: int | None, max_size: int) -> range:
    """Sizes of teams to look at: `size` alone, or 2…`max_size` as far as there are members."""
    if size is not None:
        check_count("size", size, 2, n_members)
        return range(size, size + 1)
    return range(2, min(check_count("max_size", max_size, 2), n_members) + 1)


def candidate_teams(task: Task, sizes: range, max_teams: int) -> list[Teams]:
    """Teams of each size: all of them, or as many as its share of `max_teams` allows, drawn with the task's seed.

    Shares are even, but what sizes with few teams leave over goes to the others.
    """
    rng = np.random.default_rng(task.seed)
    counts = {k: comb(task.n_members, k) for k in sizes}
    shares, left = {}, check_count("max_teams", max_teams, len(sizes))
    for done, k in enumerate(sorted(sizes, key=lambda k: counts[k])):
        shares[k] = min(counts[k], left // (len(sizes) - done))
        left -= shares[k]
    return [
        all_teams(task.n_members, k) if shares[k] == counts[k] else _drawn(task.n_members, k, shares[k], rng)
        for k in sizes
    ]


def describe(n_members: int, groups: Sequence[Teams]) -> str:
    """Say how many teams of which sizes there are, and whether they were drawn: "120 teams of 2–5 members"."""
    sizes = [teams.shape[1] for teams in groups]
    count, total = sum(map(len, groups)), sum(comb(n_members, k) for k in sizes)
    drawn = "" if count == total else f" (drawn from {total:,})"
    which = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
    return f"{counted(count, 'team')} of {which} members{drawn}"


def check_threshold(threshold: object) -> None:
    """Raise `InputError` unless there is such a threshold."""
    if threshold not in THRESHOLDS:
        raise InputError(f"expected threshold 'mean' or 'kmeans', got {threshold!r}")


def above_mean(values: Doubles) -> Mask:
    """Mask of the values that are not below their mean."""
    return values >= values.mean() - ROUNDING


def better_cluster(scores: Doubles, values: Doubles) -> Mask:
    """Mask of the better and more diverse one of two clusters of teams in the plane of score and diversity."""
    return two_means(np.stack([scaled(scores), scaled(values)], axis=1))


def two_means(points: Doubles) -> Mask:
    """Find two clusters by Lloyd's algorithm, started at (1, 1) and (0, 0); True for the points in the first.

    The first is never empty: points of which none is as near to (1, 1) as to (0, 0) start with the nearest ones in it.
    (Points scaled to 0…1 always have one: where x = 1.)
    """
    distances = _distances(points, np.array([[1.0, 1.0], [0.0, 0.0]]))
    inside = distances[:, 0] <= distances[:, 1]
    if not inside.any():
        inside = distances[:, 0] <= distances[:, 0].min()
    while not inside.all():
        distances = _distances(points, np.stack([points[inside].mean(axis=0), points[~inside].mean(axis=0)]))
        now = distances[:, 0] <= distances[:, 1]
        if (now == inside).all():
            break
        inside = now
    return inside


def scaled(values: Doubles) -> Doubles:
    """Values scaled to 0…1; all 1 when they do not differ."""
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread > ROUNDING else np.ones_like(values)


def _distances(points: Doubles, centres: Doubles) -> Doubles:
    return ((points[:, None] - centres) ** 2).sum(axis=2)


def _drawn(n_members: int, size: int, count: int, rng: np.random.Generator) -> Teams:
    """Up to `count` different teams, drawn uniformly (those drawn twice are dropped), in lexicographic order."""
    chunks = []
    for start in range(0, count, DRAWN_AT_ONCE):
        keys = rng.random((min(DRAWN_AT_ONCE, count - start), n_members))
        chunks.append(np.sort(keys.argpartition(size - 1, axis=1)[:, :size], axis=1))
    return np.unique(np.concatenate(chunks), axis=0)
