"""What every selector shares: the objective and its ties, the task it is given, the selection it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup
from lrensemble.metrics import METRICS, Metric
from lrensemble.predictions import Predictions
from lrensemble.stacker import Stacker

__all__ = [
    "MetricLike",
    "Objective",
    "Selection",
    "Task",
    "better",
    "check_count",
    "check_flag",
    "counted",
    "first_best",
    "near_best",
]

Doubles = npt.NDArray[np.float64]
MetricLike = str | Metric | Callable[[Doubles, npt.NDArray[np.int64]], float]
ROUNDING = 1e-12  # relative: scores nearer than this are equal, whatever the order of summation was


@dataclass(frozen=True)
class Objective:
    """What teams are compared by.

    Teams are put in order by score (higher is better: metrics for which lower is better are negated), equals by `tie`,
    then the smaller team (fewer distinct members), then the one with lower indices.

    Attributes
    ----------
    name
        Of the metric.
    function
        ``(probabilities (N, C), labels (N,)) -> float``.
    higher_is_better
        Direction of `function`.
    """

    name: str
    function: Callable[[Doubles, npt.NDArray[np.int64]], float]
    higher_is_better: bool = True

    @classmethod
    def of(cls, metric: MetricLike) -> Objective:
        """Objective of a metric's name, of a ``Metric`` or its function, or of any other callable, to be maximised.

        A callable that is called like a metric of the table is told apart from it by its name.
        """
        by_function: dict[object, Metric] = {entry.function: entry for entry in METRICS.values()}
        if not callable(metric):
            entry = lookup(METRICS, str(metric), "metric")
        elif isinstance(metric, Metric):
            entry = metric
        elif metric in by_function:
            entry = by_function[metric]
        else:
            name = getattr(metric, "__name__", "callable")
            return cls(f"{name} (callable)" if name in METRICS else name, metric)
        return cls(entry.name, entry.function, entry.higher_is_better)

    def is_metric(self, name: str) -> bool:
        """Whether this is the metric of that name in ``METRICS`` (and not a callable that happens to be called so)."""
        return self.function is METRICS[name].function

    def value(self, probabilities: Doubles, labels: npt.NDArray[np.int64]) -> float:
        """Return the metric as it is; raises `InputError` if it is not a finite number."""
        found = self.function(probabilities, labels)
        try:
            value = float(found)
        except (TypeError, ValueError):
            raise InputError(f"expected metric '{self.name}' to give a number, got {found!r:.60}") from None
        if not np.isfinite(value):
            raise InputError(f"expected metric '{self.name}' to give a finite number, got {value}: use another metric")
        return value

    def score(self, probabilities: Doubles, labels: npt.NDArray[np.int64]) -> float:
        """Return the metric, turned so that higher is better."""
        return self.as_metric(self.value(probabilities, labels))

    def as_metric(self, score: float) -> float:
        """Turn a score back into the metric (and a metric into a score)."""
        return score if self.higher_is_better else -score

    def tie(self, probabilities: Doubles, labels: npt.NDArray[np.int64]) -> float:
        """Return what decides between equal scores: −NLL for accuracy, which has many equals; 0 for other metrics."""
        return -METRICS["nll"].function(probabilities, labels) if self.is_metric("accuracy") else 0.0


@dataclass(frozen=True)
class Task:
    """What a selector is given: validation predictions, the objective, the combination rule, a seed.

    `costs` holds what each member costs, shape (M,), by kind (``"parameters"``, ``"flops"``), as far as it is known;
    `families` is what the snapshots of one training count as (see `families.py`): a method itself sees ``"free"`` only.
    """

    predictions: Predictions
    objective: Objective
    rule: str
    seed: int
    costs: Mapping[str, Doubles] = field(default_factory=dict)
    families: str = "free"

    @property
    def n_members(self) -> int:
        """M, the number of members to choose from."""
        return self.predictions.n_members


@dataclass(frozen=True)
class Selection:
    """What a method returns.

    Attributes
    ----------
    weights
        Shape (M,), ≥ 0, sum 1.
    steps
        (member index, score after it), where the method has an order.
    reason
        One sentence: how the method came to this team.
    resplit
        What the method found by re-splitting validation, JSON-ready, where it does; see ``Ensemble.resplit``.
    stacker
        The linear model that takes the place of the combination rule, for the members of weight > 0; None: the rule.
    """

    weights: Doubles
    steps: tuple[tuple[int, float], ...] = ()
    reason: str = ""
    resplit: Mapping[str, Any] = field(default_factory=dict)
    stacker: Stacker | None = None

    @classmethod
    def equal(cls, n_members: int, team: Sequence[int] | npt.NDArray[np.integer]) -> Selection:
        """Equal weights for the members of a team."""
        weights = np.zeros(n_members)
        weights[np.asarray(team)] = 1 / len(team)
        return cls(weights)


def near_best(scores: Doubles) -> npt.NDArray[np.bool_]:
    """Mask of the scores that equal the highest one up to rounding."""
    top = scores.max()
    return scores >= top - ROUNDING * abs(top)


def better(new: tuple[float, ...], old: tuple[float, ...]) -> bool:
    """Whether a key comes before another one; numbers that differ by rounding only are equal."""
    for a, b in zip(new, old, strict=True):
        if abs(a - b) > ROUNDING * max(abs(a), abs(b)):
            return a > b
    return False


def first_best(keys: Sequence[tuple[float, ...]]) -> int:
    """Position of the best key, the first of equals."""
    best = 0
    for i, key in enumerate(keys):
        if better(key, keys[best]):
            best = i
    return best


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False, else raise `InputError`."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"expected {name} as True or False, got {value!r}")
    return bool(value)


def counted(count: int, thing: str) -> str:
    """Return the number with its noun: "1 member", "3,536 members"."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def check_count(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` if it is an integer in low…high, else raise `InputError`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        upper = "" if high is None else f" and ≤ {high}"
        raise InputError(f"expected {name} as an integer ≥ {low}{upper}, got {value!r}")
    return int(value)  # type: ignore[call-overload]
