"""Policies that start at one rate and change it by a law: FIX, STEP, NSTEP, EXP, INV, POLY, SIG.

Notation as in LRBench (Wu et al. 2019, arXiv 1908.06477): t is the step, k0 and k1 are rates, γ a factor, p a power,
l a length in steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrensemble.policies.base import Array, TimePolicy
from lrensemble.policies.parameters import Boundaries, Factor, Growth, Length, Power, Rate, Rise, Slope

__all__ = ["EXP", "FIX", "INV", "NSTEP", "POLY", "SIG", "STEP"]


@dataclass(frozen=True, repr=False)
class FIX(TimePolicy):
    """Constant: lr(t) = k0."""

    k0: Rate

    def _rate(self, t: Array) -> Array:
        return np.full_like(t, self.k0)


@dataclass(frozen=True, repr=False)
class STEP(TimePolicy):
    """A factor γ every l steps: lr(t) = k0 γ^⌊t/l⌋."""

    k0: Rate
    gamma: Factor
    l: Length  # noqa: E741 - the papers' letter

    def _rate(self, t: Array) -> Array:
        return self.k0 * self.gamma ** np.floor(t / self.l)


@dataclass(frozen=True, repr=False)
class NSTEP(TimePolicy):
    """A factor γ at each of the steps l_0 < l_1 < …: lr(t) = k0 γ^i, i = number of l_j ≤ t; also known as MultiStep."""

    k0: Rate
    gamma: Factor
    l: Boundaries  # noqa: E741

    def _rate(self, t: Array) -> Array:
        return self.k0 * self.gamma ** np.searchsorted(self.l, t, side="right").astype(np.float64)


@dataclass(frozen=True, repr=False)
class EXP(TimePolicy):
    """A factor γ every step: lr(t) = k0 γ^t. γ > 1 is the exponential sweep of a learning-rate range test."""

    k0: Rate
    gamma: Growth

    def _rate(self, t: Array) -> Array:
        return self.k0 * self.gamma**t


@dataclass(frozen=True, repr=False)
class INV(TimePolicy):
    """Inverse decay of Caffe's LeNet: lr(t) = k0 (1 + γt)^(−p), γ ≥ 0."""

    k0: Rate
    gamma: Rise
    p: Power

    def _rate(self, t: Array) -> Array:
        return self.k0 * (1 + self.gamma * t) ** -self.p


@dataclass(frozen=True, repr=False)
class POLY(TimePolicy):
    """Polynomial fall from k1 to k0: lr(t) = (k1 − k0)(1 − t/l)^p + k0 for t < l, then k0."""

    ascending = (("k0", "k1"),)

    k0: Rate
    k1: Rate
    p: Power = 1.0
    l: Length = "100%"  # noqa: E741

    def _rate(self, t: Array) -> Array:
        return (self.k1 - self.k0) * (1 - np.minimum(t / self.l, 1)) ** self.p + self.k0


@dataclass(frozen=True, repr=False)
class SIG(TimePolicy):
    """Caffe's sigmoid: lr(t) = k0 / (1 + exp(−γ(t − l))); rises to k0 around l for γ > 0, falls from k0 for γ < 0."""

    k0: Rate
    gamma: Slope
    l: Length  # noqa: E741

    def _rate(self, t: Array) -> Array:
        z = self.gamma * (t - self.l)
        e = np.exp(-np.abs(z))  # ≤ 1, so that neither tail overflows
        return self.k0 * np.where(z >= 0, 1.0, e) / (1 + e)
