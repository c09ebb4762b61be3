"""Cyclic policies: a wave, from its bottom or its top, under an envelope.

27 policies of LRBench (Wu & Liu 2022, arXiv 2210.12936) are one expression,

    lr(t) = k0 + (k1 − k0) · wave(x) · envelope(t),   x = t/l + phase,

with nine (wave, phase) pairs and three envelopes: none, halved each cycle (suffix 2), and γ^t (suffix EXP). Cyclical
rates are due to Smith (2017, arXiv 1506.01186), warm restarts to Loshchilov & Hutter (2017, arXiv 1608.03983).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from lrensemble.policies.base import Array, TimePolicy
from lrensemble.policies.parameters import Decay, Length, Rate, choice

__all__ = [
    "COS",
    "COS2",
    "COSEXP",
    "COSRSW",
    "COSRSW2",
    "COSRSWEXP",
    "DSIN",
    "DSIN2",
    "DSINEXP",
    "DTRI",
    "DTRI2",
    "DTRIEXP",
    "RSW",
    "RSW2",
    "RSWEXP",
    "SIN",
    "SIN2",
    "SINEXP",
    "SINRSW",
    "SINRSW2",
    "SINRSWEXP",
    "TRI",
    "TRI2",
    "TRIEXP",
    "UPCOS",
    "UPCOS2",
    "UPCOSEXP",
    "Cyclic",
    "Cyclic2",
    "CyclicEXP",
    "Wave",
]


@dataclass(frozen=True)
class Wave:
    """A periodic function with values in [0, 1].

    Attributes
    ----------
    value
        Value at a place 0 ≤ x < `period` of the cycle.
    period
        In units of l: 2 for waves that rise and fall, 1 for restarts.
    phase
        Where the wave starts: 0, or 1 (the top of a wave that rises and falls).
    """

    value: Callable[[Array], Array]
    period: int
    phase: int


def tri(x: Array) -> Array:
    """Triangle; equal to (2/π)·|asin(sin(πx/2))|, without the rounding errors of asin near its top."""
    return 1 - np.abs(1 - x)


def sin(x: Array) -> Array:
    """|sin(πx/2)|."""
    return np.sin(np.pi / 2 * x)  # ≥ 0 for 0 ≤ x ≤ 2


def cos(x: Array) -> Array:
    """½(1 − cos(πx)): from the bottom to the top and back."""
    return 0.5 * (1 - np.cos(np.pi * x))


def saw(x: Array) -> Array:
    """Fall from 1 to 0, then start again at 1."""
    return 1 - x


def sin_saw(x: Array) -> Array:
    """sin(½πs) of the sawtooth s."""
    return np.sin(np.pi / 2 * (1 - x))


def cos_saw(x: Array) -> Array:
    """½(1 − cos(πs)) of the sawtooth s: cosine annealing with restarts."""
    return 0.5 * (1 - np.cos(np.pi * (1 - x)))


@dataclass(frozen=True, repr=False)
class Cyclic(TimePolicy):
    """Between k0 and k1: lr(t) = (k1 − k0) · wave(t/l + phase) + k0; l is half a cycle, or the cycle of a restart."""

    wave: ClassVar[Wave]
    ascending = (("k0", "k1"),)

    k0: Rate
    k1: Rate
    l: Length  # noqa: E741 - the papers' letter

    def _rate(self, t: Array) -> Array:
        x, cycle = self._place(t), self._cycle(t)
        return (self.k1 - self.k0) * self.wave.value(x - self.wave.period * cycle) * self._envelope(t, cycle) + self.k0

    def _cycle(self, t: Array) -> Array:
        return np.floor(self._place(t) / self.wave.period)

    def _place(self, t: Array) -> Array:
        return t / self._length() + self.wave.phase

    def _length(self) -> float:
        return self.l

    def _envelope(self, t: Array, cycle: Array) -> Array | float:
        return 1.0


@dataclass(frozen=True, repr=False)
class Cyclic2(Cyclic):
    """As `Cyclic`, with the amplitude halved each cycle: lr(t) = (k1 − k0) · wave(t/l + phase) / 2^⌊cycle⌋ + k0."""

    def _envelope(self, t: Array, cycle: Array) -> Array:
        return 0.5**cycle


@dataclass(frozen=True, repr=False)
class CyclicEXP(Cyclic):
    """As `Cyclic`, with an amplitude that decays: lr(t) = (k1 − k0) · wave(t/l + phase) · γ^t + k0, γ ≤ 1."""

    gamma: Decay

    def _envelope(self, t: Array, cycle: Array) -> Array:
        return self.gamma**t


def _family(name: str, wave: Wave) -> tuple[type[Cyclic], type[Cyclic2], type[CyclicEXP]]:
    """Return the three policies of a wave, under the names `name`, `name`2 and `name`EXP."""

    def member(base: type, suffix: str) -> type:
        return type(name + suffix, (base,), {"wave": wave, "__doc__": base.__doc__, "__module__": __name__})

    return member(Cyclic, ""), member(Cyclic2, "2"), member(CyclicEXP, "EXP")


TRI, TRI2, TRIEXP = _family("TRI", Wave(tri, 2, 0))
SIN, SIN2, SINEXP = _family("SIN", Wave(sin, 2, 0))
UPCOS, UPCOS2, UPCOSEXP = _family("UPCOS", Wave(cos, 2, 0))
DTRI, DTRI2, DTRIEXP = _family("DTRI", Wave(tri, 2, 1))
DSIN, DSIN2, DSINEXP = _family("DSIN", Wave(sin, 2, 1))
_, COS2, COSEXP = _family("COS", Wave(cos, 2, 1))
RSW, RSW2, RSWEXP = _family("RSW", Wave(saw, 1, 0))
SINRSW, SINRSW2, SINRSWEXP = _family("SINRSW", Wave(sin_saw, 1, 0))
COSRSW, COSRSW2, COSRSWEXP = _family("COSRSW", Wave(cos_saw, 1, 0))


@dataclass(frozen=True, repr=False)
class COS(Cyclic):
    """lr(t) = (k1 − k0) · ½(1 + cos(πt/l)) + k0, of period 2l.

    That is LRBench's code. Its table of 2019 prints ½(1 + cos(2πt/l)), of period l: ``period="paper"``.
    """

    wave: ClassVar[Wave] = Wave(cos, 2, 1)

    period: Annotated[str, choice("code", "paper")] = "code"

    def _length(self) -> float:
        return self.l if self.period == "code" else self.l / 2
