"""Margins: own sum − rival's sum of every duel, and how many samples are wrong after each of many changes of a team."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from lrensemble.selection.duels import Duels

__all__ = ["brought", "margins_of", "wrong", "wrong_after"]

Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Members = npt.NDArray[np.intp]
NEAR = 1e-9  # a margin that small may be rounding, and is computed anew
BLOCK = 4_000_000  # margins that are held at a time
PAIRS = 10_000  # margins that are computed anew at a time


def margins_of(duels: Duels, units: Counts) -> Doubles:
    """Margins (K,) of a team with so many units of each member."""
    margins = np.zeros(len(duels.sample))
    for j in np.flatnonzero(units).tolist():
        margins += units[j] * brought(duels, j)
    return margins


def brought(duels: Duels, member: int) -> Doubles:
    """Margins (K,) of one member alone."""
    return duels.own[member].astype(np.float64)[duels.sample] - duels.rivals[member]


def wrong(duels: Duels, margins: Doubles) -> int:
    """Count the samples that a team with these margins gets wrong."""
    return np.unique(duels.sample[(margins < 0) | ((margins == 0) & duels.comes_before)]).size


def wrong_after(
    duels: Duels, base: Doubles, scale: int, members: Members, anew: Callable[[Members, Members], Doubles]
) -> Counts:
    """Count the samples that are wrong after `scale` units more of each member in turn, shape (len(members),).

    Only duels that some member can turn are looked at, in samples that are not lost whichever it is.

    Parameters
    ----------
    base
        Margins before, shape (K,).
    scale
        Below 0: so many units less.
    anew
        ``(members (P,), duels (P,))`` to the margins after, from the definition; asked where rounding may decide.
    """
    counts = np.zeros(len(members), dtype=np.int64)
    if not duels.sample.size:
        return counts
    least, most = duels.margins if scale > 0 else duels.margins[::-1]
    lost = np.logical_or.reduceat(base + scale * most < -NEAR, duels.first[:-1])
    counts += np.count_nonzero(lost)
    still = np.flatnonzero((base + scale * least <= NEAR) & ~lost[duels.sample])
    for part in _parts(duels, still, len(members)):
        sample = duels.sample[part]
        change = duels.own.T[np.ix_(sample, members)] - duels.rivals.T[np.ix_(part, members)].astype(np.float64)
        after = base[part][:, None] + scale * change
        row, column = np.nonzero(np.abs(after) < NEAR)
        for some in np.split(np.arange(len(row)), range(PAIRS, len(row), PAIRS)):
            after[row[some], column[some]] = anew(members[column[some]], part[row[some]])
        beaten = (after < 0) | ((after == 0) & duels.comes_before[part][:, None])
        first = np.flatnonzero(np.diff(sample, prepend=-1))  # duel of each sample that has one
        counts += np.logical_or.reduceat(beaten, first, axis=0).sum(axis=0)
    return counts


def _parts(duels: Duels, chosen: Members, n_members: int) -> Iterator[Members]:
    """Split some duels between samples, so that the margins of all members in a part take little memory."""
    sample, start = duels.sample[chosen], 0
    while start < len(chosen):
        end = start + max(1, BLOCK // n_members)
        if end < len(chosen):  # a sample's duels stay together: end where the one cut through begins, or the first ends
            end = int(max(np.searchsorted(sample, sample[end]), np.searchsorted(sample, sample[start], "right")))
        yield chosen[start:end]
        start = end
