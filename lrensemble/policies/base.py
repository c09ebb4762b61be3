"""`Policy`: what every learning-rate policy is; `TimePolicy`: one whose rate is a pure function of the step."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

import numpy as np
import numpy.typing as npt

from lrensemble.errors import PolicyError
from lrensemble.policies.parameters import kinds
from lrensemble.policies.time import Per, Run, Span

if TYPE_CHECKING:
    from lrensemble.policies.torch_scheduler import PolicyScheduler

__all__ = ["HIGHEST_RATE", "Array", "Policy", "TimePolicy", "time_policy"]

Array = npt.NDArray[np.float64]
Self = TypeVar("Self", bound="Policy")

HIGHEST_RATE = 1e4  # a policy that goes beyond this within its run has exploded
CHUNK = 2**20


@dataclass(frozen=True, repr=False)
class Policy(ABC):
    """A learning-rate policy: an immutable value without state; equal, hashable, picklable.

    ``str(policy)`` is the text that `parse_policy` reads back to an equal policy. There are two types: the rate
    of a `TimePolicy` depends on the step alone, that of a `FeedbackPolicy` on what the training has measured.

    A subclass is a frozen dataclass whose fields are annotated with the kinds in `parameters`.
    """

    # pairs of parameters of which the first may not exceed the second
    ascending: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __post_init__(self) -> None:
        for name, kind in kinds(type(self)).items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, kind.check(value))
            except ValueError as error:
                better = str(error) if str(error) and not isinstance(error, PolicyError) else ""
                reason = better or f"expected {kind.expected}, got {_shown(value)}"
                raise PolicyError(f"{self.name}: {name}: {reason}") from None
        self._check_relations()

    def _check_relations(self) -> None:
        """Raise `PolicyError` where parameters contradict each other; each by itself has been checked by its kind."""
        for low, high in self.ascending:
            a, b = getattr(self, low), getattr(self, high)
            comparable = getattr(a, "unit", "") == getattr(b, "unit", "")
            if comparable and getattr(a, "value", a) > getattr(b, "value", b):
                raise PolicyError(f"{self.name}: expected {low} ≤ {high}, got {low}={a} and {high}={b}")

    @property
    def name(self) -> str:
        """Name in the table of policies."""
        return type(self).__name__

    @property
    def resolved(self) -> bool:
        """Whether all times are in steps, so that the policy can be called."""
        return not any(_is_relative(value) for _, value in self._parameters())

    def resolve(self: Self, *, total_steps: int | None = None, steps_per_epoch: float | None = None) -> Self:
        """Turn epochs and shares of the run into steps, once the length of the run is known.

        Parameters
        ----------
        total_steps, steps_per_epoch
            Optimiser steps of the run and of one epoch. What the policy does not refer to may be left out.

        Returns
        -------
        Policy
            In steps; equal to `self` where that was resolved before.

        Raises
        ------
        PolicyError
            If a length is needed and missing, the run is too short, or a rate within the run is not finite or absurd.
        """
        in_steps = self._in_run(Run(total_steps, steps_per_epoch))
        if total_steps is not None:
            in_steps.check(total_steps)
        return in_steps

    def _in_run(self: Self, run: Run) -> Self:
        return replace(
            self, **{name: kind.resolve(getattr(self, name), run) for name, kind in kinds(type(self)).items()}
        )

    @property
    def base_rate(self) -> float:
        """The highest of the rates that the policy names, in policies within too: k1 of TRI, the peak of OneCycle."""
        of = kinds(type(self))
        return max((rate for name, value in self._parameters() for rate in of[name].rates(value)), default=0.0)

    def scaled(self: Self, factor: float) -> Self:
        """Multiply every rate of the policy by `factor`, those of policies within too; times and forms stay.

        Rates are rounded to 15 digits, so that 0.05 × 0.1 reads 0.005.

        Examples
        --------
        >>> from lrensemble.policies import parse_policy
        >>> parse_policy("Warmup(TRI(k0=0.01, k1=0.06, l=25%), steps=5%)").scaled(0.5)
        Warmup(then=TRI(k0=0.005, k1=0.03, l=25%), steps=5%)

        Raises
        ------
        PolicyError
            If the factor is not a finite number > 0.
        """
        if isinstance(factor, bool) or not isinstance(factor, numbers.Real) or not 0 < factor < math.inf:
            raise PolicyError(f"expected a factor > 0 to scale the learning rates by, got {factor!r}")
        of = kinds(type(self))
        return replace(self, **{name: of[name].scale(value, float(factor)) for name, value in self._parameters()})

    def cycle_ends(self, total_steps: int) -> tuple[int, ...]:
        """Return the ends of the cycles in a run: numbers of updates after which the rate has come to its lowest.

        An end e is the first step of the next cycle: the rate fell until step e − 1, and restarts at step e (restarts),
        or is at the bottom of its wave at step e (waves that rise and fall). A run that ends with a cycle has
        `total_steps` as its last end. Policies without cycles have none; those made of others have theirs.

        Examples
        --------
        >>> from lrensemble.policies import parse_policy
        >>> parse_policy("COSRSW(k0=0, k1=0.1, l=25)").cycle_ends(100)
        (25, 50, 75, 100)

        Raises
        ------
        PolicyError
            If the policy is not resolved.
        """
        self._require_resolved()
        return self._cycle_ends(total_steps)

    def _cycle_ends(self, total_steps: int) -> tuple[int, ...]:
        return ()

    @abstractmethod
    def check(self, total_steps: int) -> None:
        """Raise `PolicyError` unless every rate of a run of `total_steps` steps is finite, ≥ 0 and ≤ `HIGHEST_RATE`."""

    def _at(self, t: Any, rate: Callable[[Array], Array]) -> Any:
        """Rates of steps of any shape and order, given those of a flat array; a float for a number."""
        self._require_resolved()
        steps = np.asarray(t, dtype=np.float64)
        if not np.all(steps >= 0):
            raise PolicyError(f"expected steps t ≥ 0, got {np.min(steps)}")
        # one flat array for scalars too: the same machine loop, hence the same bits
        rates = self._checked(np.ascontiguousarray(steps).reshape(-1), rate, np.inf)
        return float(rates[0]) if steps.ndim == 0 else rates.reshape(steps.shape)

    def _check_run(self, total_steps: int, rate: Callable[[Array], Array]) -> None:
        self._require_resolved()
        for start in range(0, total_steps, CHUNK):
            self._checked(np.arange(start, min(start + CHUNK, total_steps), dtype=np.float64), rate, HIGHEST_RATE)

    def _checked(self, steps: Array, rate: Callable[[Array], Array], highest: float) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            rates = rate(steps)
        bad = ~((rates >= 0) & (rates <= highest) & np.isfinite(rates))
        if bad.any():
            first = int(np.argmax(bad))
            raise PolicyError(
                f"expected learning rates that are finite, ≥ 0 and ≤ {HIGHEST_RATE:g}, got {rates[first]:g} at step "
                f"{steps[first]:g} of {self}"
            )
        return rates

    def _require_resolved(self) -> None:
        if not self.resolved:
            raise PolicyError(
                f"expected a policy in steps, got {self}: call resolve(total_steps=…, steps_per_epoch=…) first"
            )

    def _parameters(self, *, defaults: bool = True) -> Iterator[tuple[str, Any]]:
        """Names and values; without those at their default when `defaults` is False."""
        for f in fields(self):
            value = getattr(self, f.name)
            if defaults or f.default is MISSING or kinds(type(self))[f.name].check(f.default) != value:
                yield f.name, value

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={_text(value)}' for name, value in self._parameters(defaults=False))})"

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """JSON- and TOML-ready form: ``{"policy": "TRI", "k0": 0.01, …, "l": "30ep"}``; `from_dict` is its inverse."""
        return {"policy": self.name, **{name: _plain(value) for name, value in self._parameters(defaults=False)}}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Policy:
        """Read the form that `to_dict` writes; raises as `parse_policy` does."""
        from lrensemble.policies.text import policy_from_dict

        return policy_from_dict(values)


@dataclass(frozen=True, repr=False)
class TimePolicy(Policy):
    """A policy of time: ``policy(t)`` is the rate of optimiser step t = 0, 1, …, the same for any order of asking.

    A subclass has one method `_rate`.
    """

    @abstractmethod
    def _rate(self, t: Array) -> Array:
        """Rates of a 1-D contiguous array of steps ≥ 0; only called on a resolved policy."""

    @overload
    def __call__(self, t: float) -> float: ...
    @overload
    def __call__(self, t: npt.NDArray[Any] | list[int]) -> Array: ...
    def __call__(self, t: Any) -> Any:
        """Learning rate at step `t`.

        Parameters
        ----------
        t
            Steps ≥ 0: a number, or an array of any shape and order.

        Returns
        -------
        float or ndarray
            A float for a number; float64 of the shape of `t` for an array.

        Raises
        ------
        PolicyError
            If the policy is not resolved, a step is negative, or a rate is not finite.
        """
        return self._at(t, self._rate)

    def _cycle_ends(self, total_steps: int) -> tuple[int, ...]:
        cycle = self._cycle(np.arange(total_steps + 1, dtype=np.float64))
        return tuple((np.flatnonzero(np.diff(cycle) > 0) + 1).tolist())

    def _cycle(self, t: Array) -> Array:
        """Return the number of the cycle that each step falls in; always 0 of a policy without cycles."""
        return np.zeros_like(t)

    def curve(self, total_steps: int) -> Array:
        """Rates of the steps 0 … `total_steps` − 1, shape (total_steps,)."""
        return self(np.arange(total_steps))

    def check(self, total_steps: int) -> None:
        """Raise `PolicyError` unless every rate of a run of `total_steps` steps is finite, ≥ 0 and ≤ `HIGHEST_RATE`."""
        self._check_run(total_steps, self._rate)

    def scheduler(self, optimizer: Any, *, last_epoch: int = -1) -> PolicyScheduler:
        """Return the policy as a ``torch.optim.lr_scheduler.LRScheduler``, to step after each optimiser step.

        Every parameter group is given the policy's rate, times its ``"lr_scale"`` where the group has one.

        Raises
        ------
        PolicyError
            If the policy is not resolved.
        """
        from lrensemble.policies.torch_scheduler import PolicyScheduler

        self._require_resolved()
        return PolicyScheduler(optimizer, self, last_epoch)


def time_policy(policy: Policy) -> TimePolicy:
    """Return the policy where its rate is a function of the step.

    Raises
    ------
    PolicyError
        If it is a feedback policy.
    """
    if not isinstance(policy, TimePolicy):
        raise PolicyError(
            f"expected a policy whose rate depends on the step alone, got {policy}, which follows the training"
        )
    return policy


def _is_relative(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_is_relative(item) for item in value)
    return isinstance(value, Span | Per) or (isinstance(value, Policy) and not value.resolved)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item) for item in value)}]"
    return repr(value) if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Policy):
        return value.to_dict()
    return str(value) if isinstance(value, Span | Per) else value


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Span | Per) else repr(value)
