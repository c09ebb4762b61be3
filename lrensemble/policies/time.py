"""Time in steps, epochs or shares of the run, and factors per step, epoch or run.

A policy counts in optimiser steps. Its parameters may be given relative to a run whose length is not known yet
(``30ep``, ``12.5%``, ``0.01/run``); `Span` and `Per` carry such values with their unit until a `Run` makes them steps.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from lrensemble.errors import PolicyError

__all__ = ["NUMBER", "QUANTITY", "Per", "Run", "Span", "quantity", "share"]

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
QUANTITY = rf"({NUMBER})\s*(%|/\s*run\b|/\s*ep(?:och)?\b|ep(?:ochs?)?\b|steps?\b)?"


@dataclass(frozen=True)
class Run:
    """Length of a run: all its optimiser steps, and the steps of one epoch; None where not known."""

    total_steps: int | None = None
    steps_per_epoch: float | None = None

    def __post_init__(self) -> None:
        for name in ("total_steps", "steps_per_epoch"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 1):
                raise PolicyError(f"expected {name} ≥ 1, got {value!r}")
        if self.total_steps is not None and self.total_steps != int(self.total_steps):
            raise PolicyError(f"expected total_steps to be a whole number, got {self.total_steps!r}")

    def length(self, unit: str) -> float:
        """Return the steps in one ``"run"`` or one epoch (``"ep"``).

        Raises
        ------
        PolicyError
            If that length is not known.
        """
        name = {"run": "total_steps", "ep": "steps_per_epoch"}[unit]
        value = getattr(self, name)
        if value is None:
            raise PolicyError(f"expected {name} to resolve a value given per {unit}, got None: use resolve({name}=…)")
        return float(value)


@dataclass(frozen=True)
class Span:
    """A time in epochs (``ep``) or in hundredths of the run (``%``)."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{_short(self.value)}{self.unit}"

    def steps(self, run: Run) -> float:
        """Convert to steps; not rounded, but for the last bits of a whole number."""
        exact = self.value * run.length("ep") if self.unit == "ep" else self.value * run.length("run") / 100
        return float(round(exact)) if math.isclose(exact, round(exact), rel_tol=1e-12) else exact


@dataclass(frozen=True)
class Per:
    """What a factor amounts to over a whole run (``/run``) or an epoch (``/ep``)."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{_short(self.value)}/{self.unit}"

    def geometric(self, run: Run) -> float:
        """Factor per step of which the product over the unit is `value`: value^(1/n)."""
        return float(self.value ** (1 / run.length(self.unit)))

    def linear(self, run: Run) -> float:
        """Amount per step of which the sum over the unit is `value`: value/n."""
        return self.value / run.length(self.unit)


def share(fraction: float) -> Span:
    """Span of a fraction of the run; 0.07 becomes 7 %, not 7.000000000000001 %."""
    return Span(float(Decimal(repr(fraction)) * 100), "%")


def quantity(text: str) -> int | float | Span | Per:
    """Read a number with its unit: ``2000``, ``2000 steps``, ``0.1``, ``30ep``, ``12.5%``, ``0.01/run``, ``0.9/ep``.

    Raises
    ------
    PolicyError
        If `text` is not one number with at most one unit.
    """
    found = re.fullmatch(QUANTITY, text.strip())
    if not found:
        raise PolicyError(f"expected a number such as 0.1, 2000, 30ep, 12.5% or 0.01/run, got '{text}'")
    digits, unit = found[1], (found[2] or "").replace(" ", "")
    number = int(digits) if re.fullmatch(r"[+-]?\d+", digits) else float(digits)
    if unit == "%" or unit.startswith("ep"):
        return Span(float(number), "%" if unit == "%" else "ep")
    if unit.startswith("/"):
        return Per(float(number), "run" if unit == "/run" else "ep")
    return number


def _short(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
