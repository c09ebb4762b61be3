"""Kernels of accuracy over duels: find them, gather their probabilities, bound their margins, count lost samples.

All take what `lrensemble.selection.duels.Duels` holds, members last: ``own`` (S, M), ``rivals`` (K, M).
"""

from typing import Any

import numpy as np
from numba import types

from lrensemble.kernels import compiled

__all__ = ["gather", "lost", "margins", "mark"]

SURE = np.float32(0.501)  # no other class can be as probable as one above it: probabilities sum to 1 within 0.001

MEMBERS = types.Array(types.float32, 3, "A", readonly=True)  # whatever the strides are
SINGLES = types.Array(types.float32, 2, "C", readonly=True)
DOUBLES = types.Array(types.float64, 1, "C", readonly=True)
ROW = types.Array(types.float32, 1, "C", readonly=True)
INDICES = types.Array(types.int64, 1, "C", readonly=True)
FLAGS = types.Array(types.boolean, 1, "C", readonly=True)


@compiled(types.void(ROW, INDICES, types.int64, types.float32[::1], types.boolean[::1]))
def mark(member: Any, own_class: Any, n_classes: Any, own: Any, marked: Any) -> None:
    """Mark the classes that a member holds to be at least as probable as the true one; copy the latter to `own` (N,).

    `member` and `marked` are flat (N, C), in which `own_class` (N,) are the positions of the true class.
    """
    width = np.uint64(n_classes)  # unsigned: else each index is checked for being negative
    for n in range(np.uint64(len(own_class))):
        truth = member[np.uint64(own_class[n])]
        own[n] = truth
        if truth > SURE:
            continue
        for at in range(n * width, (n + np.uint64(1)) * width):
            marked[at] |= member[at] >= truth


@compiled(types.void(MEMBERS, INDICES, INDICES, types.float32[:, ::1]))
def gather(members: Any, samples: Any, classes: Any, out: Any) -> None:
    """Copy ``members[:, samples, classes].T`` to `out`; `members` is (M, N, C)."""
    n_members = np.uint64(len(members))
    for d in range(len(samples)):
        sample, rival = np.uint64(samples[d]), np.uint64(classes[d])
        for j in range(n_members):
            out[d, j] = members[j, sample, rival]


@compiled(types.void(SINGLES, SINGLES, INDICES, types.float64[::1], types.float64[::1]))
def margins(own: Any, rivals: Any, sample: Any, least: Any, most: Any) -> None:
    """Write the least and greatest own − rival over the members to `least` and `most` (K,)."""
    for d in range(len(sample)):
        low, high = np.inf, -np.inf
        for j in range(own.shape[1]):
            margin = np.float64(own[sample[d], j]) - np.float64(rivals[d, j])
            low = margin if margin < low else low
            high = margin if margin > high else high
        least[d], most[d] = low, high


@compiled(
    types.void(SINGLES, SINGLES, INDICES, FLAGS, DOUBLES, DOUBLES, DOUBLES, DOUBLES, types.float64, types.int64[::1])
)
def lost(
    own: Any,
    rivals: Any,
    first: Any,
    comes_before: Any,
    own_sum: Any,
    rival_sum: Any,
    least: Any,
    most: Any,
    rounding: Any,
    counts: Any,
) -> None:
    """Add to `counts` (M,) the samples that each member leaves wrong when it joins the team with the sums given.

    A sample whose duels no member can turn is decided without a look at the members, and a duel that no member can lose
    is passed over; all others are decided by the float64 sums.
    """
    n_members = own.shape[1]
    mine, beaten = np.empty(n_members), np.empty(n_members, dtype=np.int64)
    for s in range(len(own)):
        hopeless = contested = False
        for d in range(first[s], first[s + 1]):
            margin = own_sum[s] - rival_sum[d]
            hopeless |= margin + most[d] < -rounding
            contested |= margin + least[d] <= rounding
        if hopeless:
            for j in range(n_members):
                counts[j] += 1
        elif contested:
            for j in range(n_members):
                mine[j] = own_sum[s] + own[s, j]
                beaten[j] = 0
            for d in range(first[s], first[s + 1]):
                theirs = rival_sum[d]
                if own_sum[s] - theirs + least[d] > rounding:
                    continue
                if comes_before[d]:
                    for j in range(n_members):
                        beaten[j] |= theirs + rivals[d, j] >= mine[j]
                else:
                    for j in range(n_members):
                        beaten[j] |= theirs + rivals[d, j] > mine[j]
            for j in range(n_members):
                counts[j] += beaten[j]
