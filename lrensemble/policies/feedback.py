"""Feedback policies: the learning rate follows what the training has measured after each epoch.

A policy stays an immutable value. What it has to remember is a state of its own, a few plain numbers that are handed in
and out, so that nothing is hidden:

::

    state = policy.init()
    rates = policy.rate(state, np.arange(0, 25))           # of the first epoch
    state = policy.update(state, metric)                   # at its end
    rates = policy.rate(state, np.arange(25, 50))          # of the second

The state after e epochs is a function of the e metrics so far and of nothing else.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from lrensemble.errors import PolicyError
from lrensemble.policies.base import Array, Policy
from lrensemble.policies.decay import FIX
from lrensemble.policies.parameters import (
    InnerInOrder,
    Kind,
    OptionalSteps,
    Rate,
    Shape,
    Steps,
    choice,
    epochs,
    number,
)
from lrensemble.policies.time import Run

if TYPE_CHECKING:
    from lrensemble.policies.torch_scheduler import FeedbackScheduler

__all__ = [
    "MONITORS",
    "ChangeOnPlateau",
    "ChangeState",
    "FeedbackPolicy",
    "FeedbackState",
    "ReduceOnPlateau",
    "ReduceState",
    "Replay",
]

MONITORS = {"val_loss": False, "val_accuracy": True}  # what can be followed: is a higher value a better one?


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


Epochs = Annotated[Any, epochs(0)]
Window = Annotated[Any, epochs(2)]
Monitor = Annotated[str, choice(*MONITORS)]
Mode = Annotated[str, choice("rel", "abs")]
Reduction = Annotated[float, number("a factor between 0 and 1", lambda v: 0 < v < 1)]
Threshold = Annotated[float, number("a number ≥ 0", lambda v: v >= 0)]
Index = Annotated[int, Kind("the place of a policy in the list, 0 for the first", _index)]


@dataclass(frozen=True)
class FeedbackState:
    """What a feedback policy remembers after some epochs."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `FeedbackPolicy.state` is its inverse."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


State = TypeVar("State", bound=FeedbackState)


@dataclass(frozen=True, repr=False)
class FeedbackPolicy(Policy, Generic[State]):
    """A policy that is told a metric after each epoch: ``rate(state, t)`` is the rate of step t.

    Text form, times and checks are those of every `Policy`. It has no cycles, and cannot be part of another policy.

    A subclass names the type of its state, and has `_init`, `_update` and `_rate`.
    """

    state_type: ClassVar[type[FeedbackState]]

    @property
    @abstractmethod
    def monitor(self) -> str:
        """Metric that it follows: a key of `MONITORS`, which says whether a higher value is a better one."""

    @abstractmethod
    def _init(self) -> State: ...

    @abstractmethod
    def _update(self, state: State, metric: float | None) -> State:
        """Return the state after an epoch; the metric is None where it was not finite."""

    @abstractmethod
    def _rate(self, state: State, t: Array) -> Array:
        """Rates of a 1-D array of steps."""

    def init(self) -> State:
        """Return the state before the first epoch.

        Raises
        ------
        PolicyError
            If the policy is not resolved.
        """
        self._require_resolved()
        return self._init()

    def update(self, state: State, metric: float) -> State:
        """Return the state after an epoch at whose end `monitor` has come to `metric`.

        A metric that is not finite (NaN, ±∞) counts as an epoch without improvement.
        """
        self._require_resolved()
        value = float(metric)
        return self._update(state, value if math.isfinite(value) else None)

    @overload
    def rate(self, state: State, t: float) -> float: ...
    @overload
    def rate(self, state: State, t: npt.NDArray[Any] | list[int]) -> Array: ...
    def rate(self, state: State, t: Any) -> Any:
        """Learning rate at step `t` of the run, as long as the state is `state`.

        Parameters
        ----------
        state
            What `init` or `update` returned last.
        t
            Steps since the start of the run: a number, or an array of any shape and order.

        Returns
        -------
        float or ndarray
            A float for a number; float64 of the shape of `t` for an array.
        """
        return self._at(t, lambda steps: self._rate(state, steps))

    def state(self, values: Mapping[str, Any]) -> State:
        """Read the form that ``state.to_dict()`` writes.

        Raises
        ------
        PolicyError
            If these are not the values of a state of this policy.
        """
        expected = [f.name for f in fields(self.state_type)]
        if sorted(values) != sorted(expected):
            raise PolicyError(f"expected the state of {self.name} ({', '.join(expected)}), got {', '.join(values)}")
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return self.state_type(**plain)  # type: ignore[return-value]

    def replay(self, metrics: Iterable[float], *, steps_per_epoch: int) -> Array:
        """Rates of a training that measured these metrics, one an epoch, shape (len(metrics) · steps_per_epoch,).

        The rates of an epoch follow from the metrics before it, so the last metric has no effect.

        Examples
        --------
        >>> from lrensemble.policies import parse_policy
        >>> policy = parse_policy("ReduceOnPlateau(k0=0.1, factor=0.5, patience=1)")
        >>> policy.replay([0.9, 0.8, 0.8, 0.8, 0.8], steps_per_epoch=1).tolist()
        [0.1, 0.1, 0.1, 0.1, 0.05]
        """
        measured = tuple(metrics)
        return Replay(self, measured, steps_per_epoch)(np.arange(len(measured) * steps_per_epoch))

    def scheduler(self, optimizer: Any) -> FeedbackScheduler:
        """Return the policy as a PyTorch scheduler: ``step()`` after each optimiser step, ``step(metric)`` each epoch.

        Every parameter group is given the policy's rate, times its ``"lr_scale"`` where the group has one.

        Raises
        ------
        PolicyError
            If the policy is not resolved.
        """
        from lrensemble.policies.torch_scheduler import FeedbackScheduler

        self._require_resolved()
        return FeedbackScheduler(optimizer, self)


@dataclass(frozen=True)
class Replay:
    """A feedback policy under given metrics, which is a function of the step: the rates of a training that had them.

    Attributes
    ----------
    policy
        In steps.
    metrics
        One an epoch; later epochs go on as after the last one.
    steps_per_epoch
        Optimiser steps of an epoch.
    note
        What is assumed of the metrics, in words.
    """

    policy: FeedbackPolicy[Any]
    metrics: tuple[float, ...]
    steps_per_epoch: int
    note: str = ""

    def __call__(self, t: npt.NDArray[Any]) -> Array:
        """Learning rates of steps, of the shape of `t`."""
        states = list(accumulate(self.metrics, self.policy.update, initial=self.policy.init()))
        steps = np.asarray(t)
        epochs = np.minimum(steps // self.steps_per_epoch, len(self.metrics)).astype(int)
        rates = np.empty(steps.shape)
        for epoch in np.unique(epochs):
            rates[epochs == epoch] = self.policy.rate(states[epoch], steps[epochs == epoch])
        return rates

    def __str__(self) -> str:
        return f"if {self.note}: {self.policy}" if self.note else str(self.policy)


@dataclass(frozen=True)
class ReduceState(FeedbackState):
    """State of `ReduceOnPlateau`.

    Attributes
    ----------
    rate
        Present rate, before `shape`.
    best
        Best metric so far; None before there is one.
    bad
        Epochs in a row without an improvement.
    cooldown
        Epochs that are still left out of that count.
    """

    rate: float
    best: float | None = None
    bad: int = 0
    cooldown: int = 0


@dataclass(frozen=True, repr=False)
class ReduceOnPlateau(FeedbackPolicy[ReduceState]):
    """A factor when the metric stops improving, as PyTorch's ``ReduceLROnPlateau``: lr(t) = r·shape(t).

    r starts at k0. After more than `patience` epochs in a row without an improvement r ← max(r·factor, min_lr), unless
    that changes less than `eps`; the next `cooldown` epochs do not count. A loss m is an improvement over the best b so
    far when m < b·(1 − threshold) (``threshold_mode="rel"``) or m < b − threshold (``"abs"``), an accuracy when
    m > b·(1 + threshold) or m > b + threshold.

    `shape` is any policy of time, as a factor: ``shape=Warmup(FIX(1), steps=5%)`` puts a warm-up in front.
    """

    state_type = ReduceState
    ascending = (("min_lr", "k0"),)

    k0: Rate
    factor: Reduction = 0.1
    patience: Epochs = 10
    cooldown: Epochs = 0
    min_lr: Rate = 0.0
    threshold: Threshold = 1e-4
    threshold_mode: Mode = "rel"
    eps: Threshold = 1e-8
    monitor: Monitor = "val_loss"
    shape: Shape = FIX(1.0)  # noqa: RUF009 - immutable

    def _check_relations(self) -> None:
        super()._check_relations()
        if self.threshold_mode == "rel" and self.threshold >= 1:
            raise PolicyError(f"ReduceOnPlateau: expected a relative threshold below 1, got {self.threshold}")

    def check(self, total_steps: int) -> None:
        """Raise `PolicyError` unless the rates are allowed even if k0 is never reduced."""
        self._check_run(total_steps, lambda t: self._rate(self._init(), t))

    def _init(self) -> ReduceState:
        return ReduceState(self.k0)

    def _update(self, state: ReduceState, metric: float | None) -> ReduceState:
        better = metric is not None and (state.best is None or self._is_better(metric, state.best))
        best = metric if better else state.best
        bad = 0 if better or state.cooldown else state.bad + 1
        if bad <= self.patience:
            return ReduceState(state.rate, best, bad, max(0, state.cooldown - 1))
        lower = max(state.rate * self.factor, self.min_lr)
        return ReduceState(lower if state.rate - lower > self.eps else state.rate, best, 0, self.cooldown)

    def _is_better(self, metric: float, best: float) -> bool:
        relative = self.threshold_mode == "rel"
        if MONITORS[self.monitor]:
            return metric > (best * (1 + self.threshold) if relative else best + self.threshold)
        return metric < (best * (1 - self.threshold) if relative else best - self.threshold)

    def _rate(self, state: ReduceState, t: Array) -> Array:
        return np.asarray(state.rate * self.shape._rate(t))


@dataclass(frozen=True)
class ChangeState(FeedbackState):
    """State of `ChangeOnPlateau`.

    Attributes
    ----------
    index
        Place of the present policy in the list.
    begun
        Step at which it was chosen: its own step 0.
    epochs
        Epochs so far.
    cooldown
        Epochs in which no other will be chosen.
    recent
        The last metrics, one more than `window` at most.
    """

    index: int
    begun: int = 0
    epochs: int = 0
    cooldown: int = 0
    recent: tuple[float, ...] = ()


@dataclass(frozen=True, repr=False)
class ChangeOnPlateau(FeedbackPolicy[ChangeState]):
    """Another policy of a list when the metric stops improving, as LRBench's ChangeLROnPlateau (arXiv 2210.12936).

    The `policies` are ordered from large to small rates; number `start` is the first in use (0: the largest). A plateau
    is found when more than n = `window` metrics are known and the largest improvement between neighbours of the last n
    is below `threshold` (absolute). Then, if no cooldown is running, the policy before (larger rates) is chosen as long
    as the run has not come to `turn`, and the policy after (smaller rates) from there on; at an end of the list the
    policy stays. Both ways the next `cooldown` epochs choose no other.

    Ours: a policy that was chosen counts from its own step 0 (in LRBench from the start of the run). Its shares of the
    run are those of the whole run. A metric that is not finite counts as the one before.
    """

    state_type = ChangeState

    policies: InnerInOrder
    start: Index
    window: Window = 5
    threshold: Threshold = 0.05
    cooldown: Epochs = 5
    turn: OptionalSteps = "80%"
    monitor: Monitor = "val_loss"
    every: Steps = "1ep"

    def _check_relations(self) -> None:
        if self.start >= len(self.policies):
            raise PolicyError(
                f"ChangeOnPlateau: expected start below the number of policies, got start={self.start} and "
                f"{len(self.policies)} policies"
            )

    def _in_run(self, run: Run) -> ChangeOnPlateau:
        outer = super()._in_run(run)
        if run.steps_per_epoch is not None and outer.every != max(1, round(run.steps_per_epoch)):
            raise PolicyError(
                f"ChangeOnPlateau: expected every=1ep, since a metric comes after each epoch of "
                f"{run.steps_per_epoch:g} steps, got every={self.every}"
            )
        return replace(outer, policies=tuple(policy._in_run(run) for policy in self.policies))

    def check(self, total_steps: int) -> None:
        """Raise `PolicyError` unless all rates of every policy are allowed, and the policies in order."""
        for policy in self.policies:
            self._check_run(total_steps, policy._rate)
        highest = [float(policy.curve(total_steps).max()) for policy in self.policies]
        if any(after > before for before, after in pairwise(highest)):
            raise PolicyError(
                "ChangeOnPlateau: expected policies from large to small rates, got highest rates "
                f"{', '.join(f'{rate:g}' for rate in highest)} in a run of {total_steps} steps"
            )

    def _init(self) -> ChangeState:
        return ChangeState(self.start)

    def _update(self, state: ChangeState, metric: float | None) -> ChangeState:
        known = (*state.recent, *((metric,) if metric is not None else state.recent[-1:]))
        later = replace(state, epochs=state.epochs + 1, recent=known[-self.window - 1 :])
        if state.cooldown or not self._is_plateau(later.recent):
            return replace(later, cooldown=max(0, state.cooldown - 1))
        t = later.epochs * self.every
        index = min(max(state.index + (-1 if t < self.turn else 1), 0), len(self.policies) - 1)
        begun = state.begun if index == state.index else t
        return replace(later, index=index, begun=begun, cooldown=self.cooldown)

    def _is_plateau(self, recent: tuple[float, ...]) -> bool:
        sign = 1 if MONITORS[self.monitor] else -1
        improvements = [sign * (after - before) for before, after in pairwise(recent[-self.window :])]
        return len(recent) > self.window and max(improvements) < self.threshold

    def _rate(self, state: ChangeState, t: Array) -> Array:
        if t.size and t.min() < state.begun:
            raise PolicyError(f"expected steps from {state.begun} on, where this policy was chosen, got {t.min():g}")
        return self.policies[state.index]._rate(t - state.begun)
