"""Schedules that practitioners use: warm-up with decay or cosine, OneCycle, warm restarts, snapshots, trapezoid.

All but the cyclic ones rise to a `peak` and fall to a `floor` at step `total`, by default the end of the run; past it
they stay there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from lrensemble.errors import PolicyError
from lrensemble.policies.base import Array, TimePolicy
from lrensemble.policies.compose import WarmupShape, ramp
from lrensemble.policies.parameters import Length, OptionalSteps, Rate, Steps, choice, number

__all__ = ["SGDR", "OneCycle", "Snapshot", "Trapezoid", "WarmupCosine", "WarmupDecay"]

Share = Annotated[float, number("a share of the run between 0 and 1", lambda v: 0 < v < 1)]
AtLeastOne = Annotated[float, number("a number ≥ 1", lambda v: v >= 1)]

# How far a change has come (0 to 1) after a share p of its time.
SHAPES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda p: p,
    "cosine": lambda p: 0.5 * (1 - np.cos(np.pi * p)),
    "sqrt": np.sqrt,
}


@dataclass(frozen=True, repr=False)
class WarmupDecay(TimePolicy):
    """Warm-up from `floor` to `peak` over w steps, then a linear fall back to `floor` at T (DeepSpeed's WarmupDecayLR).

    lr(t) = floor + (peak − floor)·r(t) for t < w, with r as in `Warmup`; then floor + (peak − floor)·(T − t)/(T − w).
    """

    ascending = (("floor", "peak"), ("warmup", "total"))

    peak: Rate
    warmup: OptionalSteps = "10%"
    floor: Rate = 0.0
    total: Steps = "100%"
    shape: WarmupShape = "linear"

    def _rate(self, t: Array) -> Array:
        rise = ramp(t, self.warmup, self.shape)
        fall = 1 - _progress(t, self.warmup, self.total)
        return self.floor + (self.peak - self.floor) * np.where(t < self.warmup, rise, fall)


@dataclass(frozen=True, repr=False)
class WarmupCosine(TimePolicy):
    """Linear warm-up from 0 over w steps, then half a cosine from `peak` to `floor` at T.

    lr(t) = peak·t/w for t < w, then floor + (peak − floor)·½(1 + cos(π(t − w)/(T − w))).
    """

    ascending = (("floor", "peak"), ("warmup", "total"))

    peak: Rate
    warmup: OptionalSteps = "10%"
    floor: Rate = 0.0
    total: Steps = "100%"

    def _rate(self, t: Array) -> Array:
        rise = self.peak * ramp(t, self.warmup, "linear")
        p = _progress(t, self.warmup, self.total)
        return np.where(t < self.warmup, rise, self.floor + (self.peak - self.floor) * 0.5 * (1 + np.cos(np.pi * p)))


@dataclass(frozen=True, repr=False)
class OneCycle(TimePolicy):
    """One rise and one long fall (Smith & Topin 2018, arXiv 1708.07120), as torch's OneCycleLR with its defaults.

    From peak/div at t = 0 to `peak` at a = pct_start·T − 1, then to peak/(div·final_div) at T − 1; each by half a
    cosine (``shape="cosine"``) or by a line (``shape="linear"``).
    """

    peak: Rate
    total: Steps = "100%"
    pct_start: Share = 0.3
    div: AtLeastOne = 25.0
    final_div: AtLeastOne = 1e4
    shape: Annotated[str, choice("cosine", "linear")] = "cosine"

    def _rate(self, t: Array) -> Array:
        a = self.pct_start * self.total - 1
        first, last = self.peak / self.div, self.peak / self.div / self.final_div
        shape = SHAPES[self.shape]
        rise = first + (self.peak - first) * shape(_progress(t, 0, a))
        fall = self.peak + (last - self.peak) * shape(_progress(t, a, self.total - 1))
        return np.where(t <= a, rise, fall)


@dataclass(frozen=True, repr=False)
class Trapezoid(TimePolicy):
    """Warm-up, stable, decay (WSD): 0 → peak over w steps, `peak`, then peak → floor over the last d steps before T.

    The fall is linear, by half a cosine, or as 1 − √p (Hägele et al. 2024, arXiv 2405.18392) of the decay's share p.
    """

    ascending = (("floor", "peak"), ("warmup", "total"), ("decay", "total"))

    peak: Rate
    warmup: OptionalSteps = "10%"
    decay: OptionalSteps = "20%"
    floor: Rate = 0.0
    total: Steps = "100%"
    shape: Annotated[str, choice(*SHAPES)] = "linear"

    def _check_relations(self) -> None:
        super()._check_relations()
        if self.resolved and self.warmup + self.decay > self.total:
            raise PolicyError(
                f"Trapezoid: expected warmup + decay ≤ total, got {self.warmup} + {self.decay} > {self.total}"
            )

    def _rate(self, t: Array) -> Array:
        rise = self.peak * ramp(t, self.warmup, "linear")
        p = _progress(t, self.total - self.decay, self.total)
        return np.where(t < self.warmup, rise, self.peak + (self.floor - self.peak) * SHAPES[self.shape](p))


@dataclass(frozen=True, repr=False)
class SGDR(TimePolicy):
    """Cosine annealing with warm restarts (Loshchilov & Hutter 2017, arXiv 1608.03983).

    lr(t) = k0 + (k1 − k0)·½(1 + cos(πu/l_i)), u = steps since restart i, l_i = l·mult^i the length of cycle i.
    """

    ascending = (("k0", "k1"),)

    k0: Rate
    k1: Rate
    l: Length  # noqa: E741 - the papers' letter
    mult: AtLeastOne = 2.0

    def _rate(self, t: Array) -> Array:
        start, length = self._start_and_length(t)
        return self.k0 + (self.k1 - self.k0) * 0.5 * (1 + np.cos(np.pi * (t - start) / length))

    def _cycle(self, t: Array) -> Array:
        return self._start_and_length(t)[0]  # which tells cycles apart as well as their number

    def _start_and_length(self, t: Array) -> tuple[Array, Array]:
        """Start and length of the cycle that each step falls in."""
        l, m = self.l, self.mult  # noqa: E741
        if m == 1:
            return np.floor(t / l) * l, np.full_like(t, l)
        # cycle i starts at l(m^i − 1)/(m − 1); list the starts up to the last step, and one more
        last = int(np.log1p(t.max(initial=0) * (m - 1) / l) / np.log(m)) + 1
        i = np.arange(last + 1)
        starts = l * (m**i - 1) / (m - 1)
        mine = np.searchsorted(starts, t, side="right") - 1
        return starts[mine], l * m ** i[mine]


@dataclass(frozen=True, repr=False)
class Snapshot(TimePolicy):
    """Cyclic cosine annealing of snapshot ensembles (Huang et al. 2017, arXiv 1704.00109), one network a cycle.

    lr(t) = floor + (peak − floor)·½(1 + cos(π (t mod l)/l)), l = T/cycles; equal to COSRSW(floor, peak, l).
    """

    ascending = (("floor", "peak"),)

    peak: Rate
    cycles: AtLeastOne = 5.0
    floor: Rate = 0.0
    total: Steps = "100%"

    def _rate(self, t: Array) -> Array:
        x = t * self.cycles / self.total
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + np.cos(np.pi * (x - np.floor(x))))

    def _cycle(self, t: Array) -> Array:
        return np.floor(t * self.cycles / self.total)


def _progress(t: Array, start: float, end: float) -> Array:
    """Share of the way from `start` to `end` that is done at t, within 0 … 1; a way of no length is done at its end."""
    if end <= start:
        return (t >= end).astype(np.float64)
    return np.clip((t - start) / (end - start), 0, 1)
