"""Duels: the part of a pool's predictions that decides which samples a team gets right.

A team is right on a sample when the probability of the true class, summed over its members, exceeds that of every other
class (of equal sums the lower class is predicted). A class that no member puts level with the true class or above it
can never catch up in any sum, not by rounding either, since rounding keeps order. What is left are the *duels*: pairs
of a sample and a rival class that some member holds to be at least as probable as the true class. On a pool of good
networks these are a few per cent of all pairs, and the accuracy of every team follows from them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np
import numpy.typing as npt

from lrensemble.kernels import kernel
from lrensemble.predictions import ArrayOutputs, Predictions, softmax
from lrensemble.selection.part import Part

__all__ = ["Duels", "slabs"]

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]
SECONDS = 2e-9  # that numpy takes for one probability
AT_ONCE = 1 << 14  # probabilities of a member that a step works on, so that they stay in the cache of a core
DECIDED_AT_ONCE = 1 << 16  # pairs of a duel and a candidate that are decided in one step
READ_AT_ONCE = 1 << 18  # the same for what is read from disk
TOGETHER = 1 << 17  # logits of several members that become probabilities in one step
ROUNDING = 1e-9  # a bound has to clear zero by more than the rounding of float64 sums
SURE = 0.501  # no other class can be as probable as one above it: probabilities sum to 1 within 0.001
FEW = 4  # candidates that are a smaller part of the pool than one of so many are few
ROOM = 1.1  # more than proportional
PARTS = 16  # a slab that is a copy is at most this share of the pool


@dataclass(frozen=True, eq=False)
class Duels:
    """All duels of a pool: S samples have one or more, K in all. Samples without a duel are right under every team.

    In `own` and `rivals` the members of one duel lie side by side in memory: both are views of C-contiguous arrays with
    members last, ``own.T`` (S, M) and ``rivals.T`` (K, M).

    Attributes
    ----------
    own
        Probability of the true class, float32, shape (M, S).
    rivals
        Probability of the rival class of each duel, float32, shape (M, K).
    sample
        Of each duel, as a position in 0…S−1, rising, shape (K,).
    first
        Duels of sample s are ``first[s]:first[s + 1]`` (one or more), in the order of classes; shape (S + 1,).
    comes_before
        Whether the rival's class has a lower index than the true one: it wins when sums are equal. Shape (K,).
    samples
        Which samples of the split have a duel, rising, shape (S,).
    n_samples
        N, with those that have none.
    true_class
        Probability of the true class on all samples, float32, shape (M, N), C-contiguous; by-product of the pass.
    """

    own: Singles
    rivals: Singles
    sample: Indices
    first: Indices
    comes_before: Flags
    samples: Indices
    n_samples: int
    true_class: Singles

    @classmethod
    def of(cls, predictions: Predictions) -> Duels:
        """Find the duels in one pass over the predictions, all members on some samples at a time.

        Those of a part are cut from those of all samples, which are found once for all parts.
        """
        if isinstance(predictions, Part):
            return predictions.cut("duels", cls.of, cls.part)
        n, m, labels = predictions.n_samples, predictions.n_members, predictions.labels
        fast = kernel("accuracy", SECONDS * m * n * predictions.n_classes)
        own, rivals = _Rows(m), _Rows(m)
        true_class = np.empty((m, n), dtype=np.float32)
        samples, rival = [], []
        for start, members in slabs(predictions):
            truth = labels[start : start + members.shape[1]]
            seen = start + len(truth)
            marked = _marked(members, truth, true_class[:, start:seen], fast)
            sample, rival_class = np.divmod(np.flatnonzero(marked), predictions.n_classes)
            disputed = np.flatnonzero(marked.any(axis=1))
            _gather(members, sample, rival_class, rivals.more(len(sample), seen / n), fast)
            _gather(members, disputed, truth[disputed], own.more(len(disputed), seen / n), fast)
            samples.append(start + sample)
            rival.append(rival_class)
        at, position = np.unique(np.concatenate(samples), return_inverse=True)
        first = np.searchsorted(position, np.arange(len(at) + 1))
        comes_before = np.concatenate(rival) < labels[at[position]]
        return cls(own.rows().T, rivals.rows().T, position, first, comes_before, at, n, true_class)

    def part(self, rows: Indices) -> Duels:
        """Duels of some of the samples only; `rows` are their indices, rising."""
        position = np.full(self.n_samples, -1)
        position[rows] = np.arange(len(rows))
        at = position[self.samples]
        kept = at >= 0
        duels = kept[self.sample]
        sample = (np.cumsum(kept) - 1)[self.sample[duels]]
        return Duels(
            own=self.own.T[kept].T,
            rivals=self.rivals.T[duels].T,
            sample=sample,
            first=np.searchsorted(sample, np.arange(np.count_nonzero(kept) + 1)),
            comes_before=self.comes_before[duels],
            samples=at[kept],
            n_samples=len(rows),
            true_class=np.take(self.true_class, rows, axis=1),
        )

    @cached_property
    def margins(self) -> tuple[Doubles, Doubles]:
        """Least and greatest margin over the rival (own − rival) that any member brings to each duel, (K,) each."""
        own, rivals = self.own.T, self.rivals.T
        least, most = np.empty(len(rivals)), np.empty(len(rivals))
        if fast := kernel("accuracy", SECONDS * rivals.size):
            fast.margins(own, rivals, self.sample, least, most)
            return least, most
        step = max(1, AT_ONCE // own.shape[1])
        for start in range(0, len(rivals), step):
            part = slice(start, start + step)
            margin = own[self.sample[part]].astype(np.float64) - rivals[part]
            least[part], most[part] = margin.min(axis=1), margin.max(axis=1)
        return least, most

    def lost(self, own_sum: Doubles, rival_sum: Doubles, candidates: Indices) -> npt.NDArray[np.int64]:
        """Count the samples that a team gets wrong once a candidate is added, for each candidate.

        Parameters
        ----------
        own_sum, rival_sum
            Sums over the members of the team so far, with repetition, in the order they were added; float64, (S,) and
            (K,). Zeros for the empty team.
        candidates
            Members, shape (L,), int64.
        """
        least, most = self.margins
        count = len(candidates)
        if fast := kernel("accuracy", SECONDS * len(least) * (1 + 0.1 * count)):
            few = FEW * count < self.own.shape[0]  # else it is quicker to look at all members than to pick from them
            own, rivals = (a.T.take(candidates, axis=1) if few else a.T for a in (self.own, self.rivals))
            found = np.zeros(own.shape[1], dtype=np.int64)
            fast.lost(own, rivals, self.first, self.comes_before, own_sum, rival_sum, least, most, ROUNDING, found)
            return found if few else found[candidates]
        margin = own_sum[self.sample] - rival_sum
        hopeless = np.zeros(len(own_sum), dtype=bool)
        hopeless[self.sample[margin + most < -ROUNDING]] = True
        open_duels = np.flatnonzero((margin + least <= ROUNDING) & ~hopeless[self.sample])
        return np.count_nonzero(hopeless) + self._lost_openly(open_duels, own_sum, rival_sum, candidates)

    def _lost_openly(
        self, duels: Indices, own_sum: Doubles, rival_sum: Doubles, candidates: Indices
    ) -> npt.NDArray[np.int64]:
        """Count the samples that lose one of the given duels, by the sums themselves, for each candidate."""
        counts = np.zeros(len(candidates), dtype=np.int64)
        sample = self.sample[duels]
        starts = np.flatnonzero(np.diff(sample, prepend=-1))  # where a sample's duels begin
        step = max(1, DECIDED_AT_ONCE * len(starts) // (len(duels) * len(candidates) or 1))
        for i in range(0, len(starts), step):
            inside = starts[i : i + step]
            part = slice(inside[0], starts[i + step] if i + step < len(starts) else None)
            s, d = sample[part], duels[part]
            own = own_sum[s, None] + _columns(self.own.T[s], candidates)
            theirs = rival_sum[d, None] + _columns(self.rivals.T[d], candidates)
            beaten = theirs > own
            level = theirs == own
            if level.any():
                beaten |= level & self.comes_before[d, None]
            counts += np.logical_or.reduceat(beaten, inside - inside[0], axis=0).sum(axis=0)
        return counts


def _columns(rows: Singles, members: Indices) -> Singles:
    """``rows[:, members]``, without a copy where these are all members in order."""
    everyone = len(members) == rows.shape[1] and bool((np.diff(members) == 1).all())
    return rows if everyone else rows[:, members]


class _Rows:
    """A float32 array of rows that grows at its end.

    It is made for as many rows as there will be if things go on as they began, and cut in the end; memory that is not
    written to is not taken from the system.
    """

    def __init__(self, width: int) -> None:
        self._array: Singles = np.empty((0, width), dtype=np.float32)
        self._height = 0

    def more(self, count: int, share: float) -> Singles:
        """Add `count` rows, with which `share` of all is there, and return them, to be filled."""
        start, self._height = self._height, self._height + count
        if self._height > len(self._array):
            old = self._array
            self._array = np.empty((int(self._height * ROOM / share), old.shape[1]), dtype=np.float32)
            self._array[:start] = old[:start]
        return self._array[start : self._height]

    def rows(self) -> Singles:
        """Return all rows; there are no more to come."""
        self._array.resize((self._height, self._array.shape[1]), refcheck=False)
        return self._array


def slabs(predictions: Predictions) -> Iterator[tuple[int, Singles]]:
    """All members on some samples at a time: (first sample, probabilities (M, n, C)).

    A slab is a view where the probabilities of all members are in memory. Where they are not it is small against the
    pool, yet large enough for a read from disk; the next one takes its place.
    """
    n, c = predictions.n_samples, predictions.n_classes
    whole = predictions.__dict__.get("probabilities")
    step = max(1, (AT_ONCE if predictions.in_memory else READ_AT_ONCE) // c)
    step = step if whole is not None else min(step, -(-n // PARTS))
    slab = np.empty((predictions.n_members if whole is None else 0, min(step, n), c), dtype=np.float32)
    for start in range(0, n, step):
        samples = slice(start, min(start + step, n))
        if whole is None:
            _fill(slab[:, : samples.stop - start], predictions, samples)
        yield start, slab[:, : samples.stop - start] if whole is None else whole[:, samples]


def _fill(slab: Singles, predictions: Predictions, samples: slice) -> None:
    """Write the probabilities of all members on some samples to `slab`, (M, n, C)."""
    outputs = predictions.outputs
    if isinstance(outputs, ArrayOutputs) and not outputs.are_probabilities:  # the softmax of several members at once
        step = max(1, TOGETHER // slab[0].size)
        for j in range(0, len(slab), step):
            slab[j : j + step] = softmax(outputs.values[j : j + step, samples])
        return
    for j, row in enumerate(slab):
        row[...] = predictions.member(j, samples)


def _marked(members: Singles, labels: npt.NDArray[np.int64], own: Singles, fast: ModuleType | None) -> Flags:
    """Which rival classes some member puts level with the true class or above it, shape (n, C).

    Also writes the probabilities of the true class to `own`, shape (M, n).
    """
    n, c = members.shape[1:]
    own_class = np.arange(n) * c + labels
    marked, level = np.zeros((n, c), dtype=bool), np.empty((n, c), dtype=bool)
    for member, truth in zip(members, own, strict=True):
        if fast:
            fast.mark(member.ravel(), own_class, c, truth, marked.ravel())
        else:
            truth[:] = member.ravel().take(own_class)
            unsure = np.flatnonzero(truth <= SURE)
            if 3 * len(unsure) > n:
                np.greater_equal(member, truth[:, None], out=level)
                np.logical_or(marked, level, out=marked)
            else:
                marked[unsure] |= member.take(unsure, axis=0) >= truth[unsure, None]
    marked.ravel()[own_class] = False
    return marked


def _gather(members: Singles, samples: Indices, classes: Indices, out: Singles, fast: ModuleType | None) -> None:
    """Write the probabilities of all members for pairs of sample and class to `out`, shape (pairs, M)."""
    if fast:
        fast.gather(members, samples, classes, out)
    else:
        positions = samples * members.shape[2] + classes
        out[:] = np.stack([member.ravel().take(positions) for member in members]).T
