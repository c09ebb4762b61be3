"""Upper bounds on the scores of millions of teams, so close that only a few contenders need an exact score.

Bounds are computed for blocks of teams (`lrensemble.selection.halves`) from sums that are taken in another order than
those of the exact score, and with fewer digits. What rounding can do is added, so that no exact score is above its
bound: the best team is among those whose bound reaches the best exact score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from math import ceil, floor, log, log2
from types import ModuleType

import numpy as np
import numpy.typing as npt

from lrensemble.kernels import kernel
from lrensemble.predictions import TINY, Predictions
from lrensemble.selection.base import ROUNDING, Task
from lrensemble.selection.duels import Duels
from lrensemble.selection.halves import Halves
from lrensemble.selection.scorers import gap_products
from lrensemble.selection.threads import in_threads

__all__ = ["SECONDS", "Bounds", "bounds_for", "contenders"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SECONDS = 1e-8  # that numpy takes for one sample of one team, roughly
TABLE_BYTES = 1 << 19  # of sums of tails, which are read over and over: what a processor holds near it
MANY = 1 << 14  # contenders, of which it is quicker to find finer bounds first


class Bounds(ABC):
    """Upper bounds on the scores of teams, block by block."""

    @abstractmethod
    def of(self, halves: Halves, heads: slice) -> Doubles:
        """Return the bound of each team of a run of heads, in the order of positions."""

    def finer(self) -> Bounds | None:
        """Return bounds that are closer and take longer, if there are any."""
        return None


def bounds_for(task: Task, seconds: float) -> Bounds | None:
    """Return bounds for the task's objective and rule, or None.

    There are some for accuracy, NLL and Brier of the mean of probabilities; for the first two only where compiled
    kernels pay, for a job that takes numpy so many seconds (`SECONDS` for each sample of each team).
    """
    if task.rule != "mean_probability":
        return None
    if task.objective.is_metric("brier"):
        return BrierBounds(gap_products(task.predictions))
    by_accuracy = task.objective.is_metric("accuracy")
    kernels = kernel("exhaustive", seconds) if by_accuracy or task.objective.is_metric("nll") else None
    if kernels is None:
        return None
    return AccuracyBounds(Duels.of(task.predictions), kernels) if by_accuracy else NllBounds(task.predictions, kernels)


class NllBounds(Bounds):
    """Bounds on −NLL, above it by about 3·10⁻⁷ nats.

    Only the true class counts. Its sums are multiplied in float32 before a logarithm is taken: of mantissas, while the
    exponents are added as integers.
    """

    def __init__(self, predictions: Predictions, kernels: ModuleType) -> None:
        own, self._kernels = predictions.true_class, kernels
        seen = own.max(axis=0) > TINY  # on the other samples every team has log TINY
        self._own = np.ascontiguousarray(own[:, seen])
        self._unseen = int(np.count_nonzero(~seen))

    def of(self, halves: Halves, heads: slice) -> Doubles:
        n_members, n_seen = self._own.shape
        size = halves.sizes_of(heads)
        *block, _ = _block(halves, heads)
        count = halves.stop[heads] - halves.start[heads]
        room = -(-count // self._kernels.WIDTH) * self._kernels.WIDTH
        offset = np.cumsum(room) - room
        mantissa, exponent = np.ones(room.sum(), dtype=np.float32), np.zeros(room.sum(), dtype=np.int32)
        self._kernels.log_bounds(self._own, *block, offset, mantissa, exponent)
        used = np.concatenate([np.arange(a, a + n) for a, n in zip(offset, count, strict=True)])
        logs = exponent[used] * log(2) + np.log(mantissa[used], dtype=np.float64) + n_seen * np.log(n_members / size)
        return (logs + self._unseen * log(TINY)) / (n_seen + self._unseen) + 5 * 2.0**-24  # see the kernel: 3, and room


class AccuracyBounds(Bounds):
    """Bounds on accuracy, above it only where a duel is nearly even.

    Margins (own − rival) are rounded up to 16-bit integers after they are summed over a head and over a tail, of which
    a processor compares 32 at once. The finer bounds compare float64.
    """

    def __init__(self, duels: Duels, kernels: ModuleType, *, fine: bool = False) -> None:
        self._duels, self._kernels, self._fine = duels, kernels, fine
        self._guard = guards(duels)

    def of(self, halves: Halves, heads: slice) -> Doubles:
        duels, kind = self._duels, np.dtype(np.float64 if self._fine else np.int16)
        longest = int(np.diff(duels.first).max(initial=1))
        width = len(halves.tails) + self._kernels.WIDTH
        memory = np.zeros(max(TABLE_BYTES // kind.itemsize, longest * width), dtype=kind)
        scale = 2.0 ** (_grid(len(duels.own)) + 1 if self._fine else floor(log2(32_000 / halves.largest)))
        lost = np.zeros(halves.offset[heads.stop] - halves.offset[heads.start], dtype=np.int32)
        self._kernels.lost_bounds(
            duels.own.T,
            duels.rivals.T,
            duels.sample,
            duels.first,
            self._guard,
            *_block(halves, heads),
            scale,
            memory,
            lost,
        )
        return (duels.n_samples - lost) / duels.n_samples

    def finer(self) -> Bounds | None:
        return None if self._fine else AccuracyBounds(self._duels, self._kernels, fine=True)


class BrierBounds(Bounds):
    """Bounds on −Brier, above it by rounding alone: it is the mean of one number for each pair of members."""

    def __init__(self, products: Doubles) -> None:
        self._products = products

    def of(self, halves: Halves, heads: slice) -> Doubles:
        head, tail = _incidence(halves.heads[heads], len(self._products)), _incidence(halves.tails, len(self._products))
        of_head, of_tail = (((rows @ self._products) * rows).sum(axis=1) for rows in (head, tail))
        across = head @ (2 * self._products)
        runs = zip(of_head, across, halves.start[heads], halves.stop[heads], strict=True)
        total = np.concatenate([one + of_tail[a:b] + tail[a:b] @ row for one, row, a, b in runs])
        size = halves.sizes_of(heads)
        return -total / size**2 + ROUNDING * np.abs(self._products).max()


def guards(duels: Duels) -> Doubles:
    """Return what to add to the margin of each duel, summed over a team, to be below 0 only if the duel is lost.

    Where all probabilities of a duel are multiples of one power of two, sums are exact in any order, and the guard is
    half of that power: −½ if equal sums lose, ½ if not. Elsewhere it is more than the rounding of any order of sums.
    """
    grid = _grid(len(duels.own))
    exact, total = np.ones(len(duels.sample), dtype=bool), np.zeros(len(duels.sample))
    for own, rivals in zip(duels.own, duels.rivals, strict=True):
        for values in (own[duels.sample], rivals):
            scaled = np.ldexp(values.astype(np.float64), grid)
            exact &= scaled == np.rint(scaled)
            total += values
    half = np.where(duels.comes_before, -1.0, 1.0) * 2.0 ** -(grid + 1)
    return np.where(exact, half, len(duels.own) * 2.0**-51 * total)


def contenders(halves: Halves, bounds: Bounds, score: Callable[[Ints], Doubles]) -> dict[int, tuple[Ints, Doubles]]:
    """Return all teams that equal the best one, and some others, by rising size: members, and exact scores.

    `score` gives the exact scores of teams of one size, shape (n, size).
    """
    best = -np.inf
    found: list[tuple[Ints, Doubles]] = []
    blocks = list(halves.blocks())
    for block, upper in zip(blocks, in_threads(partial(bounds.of, halves), blocks), strict=True):
        begin = int(halves.offset[block.start])
        leader = halves.teams(np.array([begin + int(upper.argmax())]))
        best = max(best, *(float(score(teams)[0]) for teams, _ in leader.values()))
        near = np.flatnonzero(upper >= _reach(best))
        found.append((begin + near, upper[near]))
    positions, upper = (np.concatenate(parts) for parts in zip(*found, strict=True))
    positions = positions[upper >= _reach(best)]
    finer = bounds.finer() if len(positions) > MANY else None
    if finer:
        return contenders(halves, finer, score)
    return {size: (teams, score(teams)) for size, (teams, _) in halves.teams(positions).items()}


def _reach(best: float) -> float:
    """Return what a score must be to equal the best one up to rounding, or a little less."""
    return best - 2 * ROUNDING * abs(best)


def _grid(n_members: int) -> int:
    """Return g such that sums over the members of multiples of 2^−g, up to 1 each, take no more than 52 bits."""
    return 51 - ceil(log2(n_members))


def _block(halves: Halves, heads: slice) -> tuple[Ints, ...]:
    """Arguments that kernels take for a run of heads."""
    offset = halves.offset[heads] - halves.offset[heads.start]
    return halves.run, halves.parent, halves.last, halves.heads[heads], halves.start[heads], halves.stop[heads], offset


def _incidence(rows: Ints, n_members: int) -> Doubles:
    """1 where a row names a member, else 0, shape (len(rows), M)."""
    out = np.zeros((len(rows), n_members + 1))
    np.put_along_axis(out, rows, 1.0, axis=1)  # −1 goes to the last column
    return out[:, :-1]
