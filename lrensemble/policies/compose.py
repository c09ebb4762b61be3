"""Policies made of policies: one after the other (`Piecewise`), and behind a warm-up (`Warmup`).

A policy within another counts from its own start: its step 0 is the first step of its span, and its shares of the run
(``50%``) are shares of that span. The last span ends with the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from lrensemble.errors import PolicyError
from lrensemble.policies.base import Array, TimePolicy
from lrensemble.policies.parameters import Boundaries, Inner, InnerInOrder, OptionalSteps, Rate, choice
from lrensemble.policies.time import Run

__all__ = ["Piecewise", "Warmup", "WarmupShape", "ramp"]

WarmupShape = Annotated[str, choice("linear", "log")]


@dataclass(frozen=True, repr=False)
class Piecewise(TimePolicy):
    """One policy after the other: lr(t) = policy_i(t − b_{i−1}) for b_{i−1} ≤ t < b_i, b_{−1} = 0.

    Each policy counts from its own start. The text form is ``[FIX(0.1) @ 50% | STEP(0.01, 0.5, 10%)]``. LREnsemble
    (Jin & Wu 2024, arXiv 2410.07564) calls it Composite.
    """

    boundaries: Boundaries
    policies: InnerInOrder

    def _check_relations(self) -> None:
        if len(self.policies) != len(self.boundaries) + 1:
            raise PolicyError(
                f"Piecewise: expected one policy more than boundaries, got {len(self.policies)} policies and "
                f"{len(self.boundaries)} boundaries"
            )

    def _in_run(self, run: Run) -> Piecewise:
        outer = super()._in_run(run)
        ends = (*outer.boundaries, run.total_steps)
        pieces = [
            policy._in_run(replace(run, total_steps=None if end is None else max(1, end - start)))
            for policy, start, end in zip(self.policies, (0, *outer.boundaries), ends, strict=True)
        ]
        return Piecewise(outer.boundaries, tuple(pieces))

    def _rate(self, t: Array) -> Array:
        piece = np.searchsorted(self.boundaries, t, side="right")
        rates = np.empty_like(t)
        for i, (policy, start) in enumerate(zip(self.policies, (0, *self.boundaries), strict=True)):
            mine = piece == i
            rates[mine] = policy._rate(t[mine] - start)
        return rates

    def _cycle_ends(self, total_steps: int) -> tuple[int, ...]:
        spans = zip(self.policies, (0, *self.boundaries), (*self.boundaries, total_steps), strict=True)
        return tuple(
            start + end
            for policy, start, stop in spans
            for end in policy._cycle_ends(max(0, min(stop, total_steps) - start))
        )

    def __str__(self) -> str:
        until = [f"{policy} @ {end}" for policy, end in zip(self.policies, self.boundaries, strict=False)]
        return f"[{' | '.join([*until, str(self.policies[-1])])}]"

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class Warmup(TimePolicy):
    """Rise to the first rate of any policy, `then`, over w = `steps` steps; then follow it from its own step 0.

    lr(t) = start + (then(0) − start)·r(t) for t < w, after it then(t − w); the rise r(t) is t/w (``shape="linear"``),
    or ln(t + 1)/ln(w) (``shape="log"``, the form of DeepSpeed's WarmupLR).
    """

    then: Inner
    steps: OptionalSteps
    start: Rate = 0.0
    shape: WarmupShape = "linear"

    def _in_run(self, run: Run) -> Warmup:
        outer = super()._in_run(run)
        rest = None if run.total_steps is None else max(1, run.total_steps - outer.steps)
        return replace(outer, then=self.then._in_run(replace(run, total_steps=rest)))

    def _rate(self, t: Array) -> Array:
        after = self.then._rate(np.maximum(t - self.steps, 0))
        first = self.then._rate(np.zeros(1))
        return np.where(t < self.steps, self.start + (first - self.start) * ramp(t, self.steps, self.shape), after)

    def _cycle_ends(self, total_steps: int) -> tuple[int, ...]:
        return tuple(self.steps + end for end in self.then._cycle_ends(max(0, total_steps - self.steps)))


def ramp(t: Array, w: Any, shape: str) -> Array:
    """Share r(t) of a warm-up of w steps that is reached at t: 0 at t = 0; at most 1."""
    if shape == "log":
        return np.minimum(np.log(t + 1) / np.log(max(w, 2)), 1)
    return np.minimum(t / max(w, 1), 1)
