"""Exact scores of many teams at once, by compiled kernels: the fast twin of a walk over the tree of their prefixes.

Sums are taken in the order of the members of each team, in float64, as scorers take them one by one. Teams come best in
lexicographic order, since one that begins like the team before it goes on from the sums of that beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
import numpy.typing as npt

from lrensemble.kernels import kernel
from lrensemble.predictions import TINY
from lrensemble.selection.duels import Duels
from lrensemble.selection.threads import in_threads

__all__ = ["mean_logs", "wrong_counts"]

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Teams = npt.NDArray[np.intp]
SECONDS = 1e-8  # that numpy takes for one sample of one team, roughly
AT_ONCE = 512  # teams that a thread scores at a time


def mean_logs(own: Singles, begun: Doubles, size: int, teams: Teams) -> Doubles | None:
    """Mean log-probability of the true class of each team added to one of `size` members; None without kernels.

    Parameters
    ----------
    own
        Probability of the true class, shape (M, N).
    begun
        Its sum over the members that are in already, shape (N,).
    teams
        Shape (T, L).
    """
    kernels = kernel("exhaustive", SECONDS * len(teams) * len(begun))
    if kernels is None:
        return None
    total = size + teams.shape[1]

    def of_some(some: Teams, out: Doubles) -> None:
        kernels.log_means(own, begun, TINY * total, some, out)

    return _in_parts(of_some, teams, np.empty(len(teams))) - log(total)


def wrong_counts(duels: Duels, own: Doubles, rivals: Doubles, teams: Teams) -> Counts | None:
    """Count the samples that each team gets wrong when added to one with the given sums; None without kernels.

    Parameters
    ----------
    own, rivals
        Sums over the members that are in already: probabilities of the true class (S,) and of the rivals (K,).
    teams
        Shape (T, L).
    """
    kernels = kernel("exhaustive", SECONDS * len(teams) * len(rivals))
    if kernels is None:
        return None
    length = np.diff(duels.first)  # number of duels of each sample
    samples = np.argsort(-length, kind="stable")
    slots = [duels.first[samples[: np.count_nonzero(length > k)]] + k for k in range(length.max(initial=0))]
    slot = np.concatenate([[0], np.cumsum([len(ones) for ones in slots])]).astype(np.int64)
    order = np.concatenate([*slots, np.empty(0, dtype=np.intp)])
    own_of, rivals_of = np.ascontiguousarray(duels.own[:, samples]), np.ascontiguousarray(duels.rivals[:, order])
    comes_before, own, rivals = duels.comes_before[order], own[samples], rivals[order]

    def of_some(some: Teams, out: Counts) -> None:
        kernels.lost_counts(own_of, rivals_of, comes_before, slot, own, rivals, some, out)

    return _in_parts(of_some, teams, np.empty(len(teams), dtype=np.int64))


def _in_parts(of_some: Callable[[Teams, npt.NDArray], None], teams: Teams, out: npt.NDArray) -> npt.NDArray:
    """Fill `out` part by part, and return it."""
    rows = np.ascontiguousarray(teams)
    parts = [slice(start, start + AT_ONCE) for start in range(0, len(rows), AT_ONCE)]
    for _ in in_threads(lambda part: of_some(rows[part], out[part]), parts):
        pass
    return out
