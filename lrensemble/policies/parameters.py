"""Kinds of policy parameters: what each accepts, and how each is turned into steps.

A policy class declares ``k0: Rate`` or ``l: Length``; checking, resolving, printing and parsing follow from the kind
that the annotation carries, so that a policy file holds nothing but names and formulas.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, get_type_hints

from lrensemble.errors import PolicyError
from lrensemble.policies.time import Per, Run, Span, quantity, share

__all__ = [
    "Boundaries",
    "Decay",
    "Factor",
    "Growth",
    "Inner",
    "InnerInOrder",
    "Kind",
    "Length",
    "OptionalSteps",
    "Power",
    "Rate",
    "Rise",
    "Shape",
    "Slope",
    "Steps",
    "choice",
    "epochs",
    "kinds",
    "number",
]


@dataclass(frozen=True)
class Kind:
    """What a parameter accepts.

    Attributes
    ----------
    expected
        The accepted values in words, for the error message.
    check
        Returns the value in its normal form, or raises ValueError (with a better message than `expected`, or none).
    resolve
        Turns a checked value into steps.
    scale
        Gives the value when all learning rates are multiplied by a factor; only rates, and policies within, change.
    rates
        The learning rates that the value names.
    """

    expected: str
    check: Callable[[Any], Any]
    resolve: Callable[[Any, Run], Any] = lambda value, run: value
    scale: Callable[[Any, float], Any] = lambda value, factor: value
    rates: Callable[[Any], tuple[float, ...]] = lambda value: ()


@cache
def kinds(policy: type) -> dict[str, Kind]:
    """Kinds of the parameters of a policy class, by name."""
    hints = get_type_hints(policy, include_extras=True)
    return {f.name: hints[f.name].__metadata__[0] for f in fields(policy)}


def number(expected: str, allowed: Callable[[float], bool]) -> Kind:
    """Kind of a plain finite number for which `allowed` holds."""
    return Kind(expected, lambda value: _real(value, allowed))


def choice(*names: str) -> Kind:
    """Kind of a word out of `names`."""

    def check(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return Kind(" or ".join(names), check)


def epochs(minimum: int) -> Kind:
    """Kind of a number of epochs, which may be a share of the run."""

    def check(value: Any) -> int | Span:
        asked = _time(value, minimum)
        if isinstance(asked, float):
            raise ValueError
        return asked

    def resolve(value: int | Span, run: Run) -> int:
        if not isinstance(value, Span):
            return value
        exact = value.value if value.unit == "ep" else value.steps(run) / run.length("ep")
        return max(minimum, round(exact))

    return Kind(f"{minimum} or more epochs (12), or a share of the run (12.5%)", check, resolve)


def _real(value: Any, allowed: Callable[[float], bool]) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError
    plain = float(value)
    if not math.isfinite(plain) or not allowed(plain):
        raise ValueError
    return plain


def _time(value: Any, minimum: int) -> int | float | Span:
    """Bring a time to its normal form: a Span, or a number of steps (int where whole)."""
    if isinstance(value, str):
        value = quantity(value)
    if isinstance(value, Span):
        _real(value.value, lambda v: v > 0 or v == minimum == 0)
        return value
    amount = _real(value, lambda v: v >= 0)
    if amount == 1 and not isinstance(value, numbers.Integral):
        raise ValueError("expected 1 (one step) or 100% (the whole run), got 1.0, which could be either")
    if 0 < amount < 1:
        return share(amount)
    if amount < minimum:
        raise ValueError
    return int(amount) if amount.is_integer() else amount


def _times(values: Any) -> tuple[int | float | Span, ...]:
    """Bring times to their normal form; they ascend wherever their units can be compared."""
    if isinstance(values, str | numbers.Real | Span) or not isinstance(values, Iterable):
        values = (values,)
    times = tuple(_time(value, 1) for value in values)
    for unit in ("", "ep", "%"):
        same = [_amount(time) for time in times if getattr(time, "unit", "") == unit]
        if any(after <= before for before, after in pairwise(same)):
            raise ValueError
    if not times:
        raise ValueError
    return times


def _amount(time: int | float | Span) -> float:
    return time.value if isinstance(time, Span) else time


def _steps(value: int | float | Span, run: Run) -> int | float:
    """Convert a cycle to steps; a fraction of a step stays, so that eight cycles of 12.5 % end exactly with the run."""
    steps = max(1.0, value.steps(run)) if isinstance(value, Span) else value
    return int(steps) if steps == int(steps) else steps


def _whole(value: int | float | Span, run: Run, minimum: int = 1) -> int:
    """Round to whole steps."""
    return max(minimum, round(value.steps(run) if isinstance(value, Span) else value))


def _apart(values: tuple[int | float | Span, ...], run: Run) -> tuple[int, ...]:
    """Round boundaries to whole steps, at least one step apart, which matters in very short runs."""
    exact = [value.steps(run) if isinstance(value, Span) else value for value in values]
    if any(after <= before for before, after in pairwise(exact)):
        asked = ", ".join(str(value) for value in values)
        raise PolicyError(f"expected times in ascending order, got {asked}, which in this run are the steps {exact}")
    whole: list[int] = []
    for step in exact:
        whole.append(max(round(step), whole[-1] + 1 if whole else 1))
    return tuple(whole)


def _per(value: Any, allowed: Callable[[float], bool]) -> float | Per:
    if isinstance(value, str):
        value = quantity(value)
    if isinstance(value, Per):
        _real(value.value, allowed)
        return value
    return _real(value, allowed)


def _geometric(value: float | Per, run: Run) -> float:
    return value.geometric(run) if isinstance(value, Per) else value


def _linear(value: float | Per, run: Run) -> float:
    return value.linear(run) if isinstance(value, Per) else value


def _policy(value: Any) -> Any:
    from lrensemble.policies.base import Policy, time_policy

    if not isinstance(value, Policy):
        raise ValueError
    try:
        return time_policy(value)
    except PolicyError as error:
        hint = "it cannot be part of another policy, but has others in it (shape of ReduceOnPlateau, for a warm-up)"
        raise ValueError(f"{error}: {hint}") from None


def _policies(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError
    return tuple(_policy(value) for value in values)


def _multiplied(rate: float, factor: float) -> float:
    return float(f"{rate * factor:.15g}")  # 0.005, not 0.005000000000000001


TIME = "steps (2000), epochs (30ep) or a share of the run (12.5%)"
PER = "per step (0.999), epoch (0.9/ep) or run (0.01/run)"
PER_LINEAR = "per step (0.0001), epoch (0.1/ep) or run (10/run)"

INNER = Kind(
    "a policy", _policy, scale=lambda policy, factor: policy.scaled(factor), rates=lambda policy: (policy.base_rate,)
)
INNER_IN_ORDER = Kind(
    "a list of policies",
    _policies,
    scale=lambda policies, factor: tuple(policy.scaled(factor) for policy in policies),
    rates=lambda policies: tuple(policy.base_rate for policy in policies),
)
SHAPE = Kind("a policy", _policy, lambda policy, run: policy._in_run(run))  # a factor, not a rate: not to be scaled
SHAPE = Kind("a policy", _policy, lambda policy, run: policy._in_run(run))  # a factor, not a rate: not scaled
RATE = replace(number("a learning rate ≥ 0", lambda v: v >= 0), scale=_multiplied, rates=lambda rate: (rate,))

# Plain numbers
Rate = Annotated[float, RATE]
Factor = Annotated[float, number("a factor > 0", lambda v: v > 0)]
Power = Annotated[float, number("a power > 0", lambda v: v > 0)]
# Times: numbers of steps once resolved
Length = Annotated[Any, Kind(f"a length ≥ 1 step: {TIME}", lambda v: _time(v, 1), _steps)]
Steps = Annotated[Any, Kind(f"a length ≥ 1 step: {TIME}", lambda v: _time(v, 1), _whole)]
OptionalSteps = Annotated[Any, Kind(f"a length ≥ 0: {TIME}", lambda v: _time(v, 0), lambda v, run: _whole(v, run, 0))]
Boundaries = Annotated[Any, Kind(f"ascending times ≥ 1 step: {TIME}", _times, _apart)]
# Factors and slopes: per step once resolved
Decay = Annotated[Any, Kind(f"a factor in (0, 1] {PER}", lambda v: _per(v, lambda x: 0 < x <= 1), _geometric)]
Growth = Annotated[Any, Kind(f"a factor > 0 {PER}", lambda v: _per(v, lambda x: x > 0), _geometric)]
Slope = Annotated[Any, Kind(f"a number {PER_LINEAR}", lambda v: _per(v, lambda x: True), _linear)]
Rise = Annotated[Any, Kind(f"a number ≥ 0 {PER_LINEAR}", lambda v: _per(v, lambda x: x >= 0), _linear)]
# Policies within policies
Inner = Annotated[Any, INNER]
InnerInOrder = Annotated[Any, INNER_IN_ORDER]
Shape = Annotated[Any, SHAPE]
