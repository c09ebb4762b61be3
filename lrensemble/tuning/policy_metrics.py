"""`POLICY_METRICS`: by what a learning-rate policy is judged: utility, cost and robustness.

The metrics of LRBench (Wu et al. 2019, arXiv 1908.06477; Wu & Liu 2022, arXiv 2210.12936), as views of what a pool
stores of every training: logits, labels, and one value an epoch of loss, accuracy, steps and seconds. A value that
cannot be known is None, never a stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble import metrics

__all__ = ["POLICY_METRICS", "Outcome", "PolicyMetric", "Repeats", "Scaled", "Spread", "measure", "measure_repeats"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One finished training, as the metrics see it.

    Attributes
    ----------
    probabilities, labels
        Of the split that is judged, shapes (N, C) and (N,).
    history
        Curves of the training; see `Member`.
    config
        Its settings.
    seconds
        Time that it took.
    folds
        Networks of the member.
    target
        Validation accuracy that is to be reached; None: none is asked for.
    """

    probabilities: Array
    labels: npt.NDArray[np.int64]
    history: Mapping[str, Array] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    folds: int = 1
    target: float | None = None

    def at(self, curve: str, epoch: int | None) -> float | None:
        """Value of a curve at an index (-1: the last); None where it was not measured."""
        values = self.history.get(curve, ())
        if epoch is None or not len(values) or not np.isfinite(values[epoch]):
            return None
        return float(values[epoch])


@dataclass(frozen=True)
class Spread:
    """A metric over the trainings of a policy that have it.

    Attributes
    ----------
    mean, min, max
        Over n values.
    sd
        Standard deviation, with n − 1 in the denominator; None for a single value.
    n
        Number of values.
    """

    mean: float
    sd: float | None
    min: float
    max: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return the spread of those values that are known; None when none is."""
        known = np.array([value for value in values if value is not None], float)
        if not known.size:
            return None
        sd = float(known.std(ddof=1)) if known.size > 1 else None
        return cls(float(known.mean()), sd, float(known.min()), float(known.max()), known.size)


@dataclass(frozen=True)
class Scaled:
    """What became of a policy when all its rates were multiplied by a factor.

    Attributes
    ----------
    top1
        Mean Top-1 of the trainings that finished; None when all diverged.
    done, diverged
        How many did.
    """

    top1: float | None
    done: int
    diverged: int

    def with_guesses(self, n_classes: int) -> float:
        """Mean Top-1 in which a training that diverged counts as guessing, 1/C."""
        finished = self.done * (self.top1 or 0.0)
        return (finished + self.diverged / n_classes) / (self.done + self.diverged)


@dataclass(frozen=True)
class Repeats:
    """The trainings of one policy, for the metrics that are about all of them together.

    Attributes
    ----------
    top1
        Of the trainings that finished; None when there is none.
    scale
        The same policy with its rates multiplied by each factor, itself (1) among them, as far as the pool has them.
    n_classes
        C.
    """

    top1: Spread | None
    scale: Mapping[float, Scaled]
    n_classes: int


@dataclass(frozen=True)
class PolicyMetric:
    """One metric, its direction, and how it is written.

    Attributes
    ----------
    name, heading
        Key in `POLICY_METRICS`; column of a table.
    kind
        ``"utility"``, ``"cost"`` or ``"robustness"``.
    higher_is_better
        Direction.
    function
        Of an `Outcome`; of `Repeats` where `of_repeats`. None where the value cannot be known.
    formula, description
        As in the source; one line for listings.
    factor, digits
        A table shows value × factor with so many digits behind the point.
    of_repeats
        Whether it is about all trainings of a policy together: a single number, without a spread.
    of_target
        Whether it is about reaching a target accuracy: a training that does not reach it has no value, and counts
        against its policy.
    """

    name: str
    heading: str
    kind: str
    higher_is_better: bool
    function: Callable[[Any], float | None]
    formula: str
    description: str
    factor: float = 1
    digits: int = 3
    of_repeats: bool = False
    of_target: bool = False


def measure(outcome: Outcome) -> dict[str, float | None]:
    """Return every metric of one training, by name."""
    return {m.name: m.function(outcome) for m in POLICY_METRICS.values() if not m.of_repeats}


def measure_repeats(repeats: Repeats) -> dict[str, float | None]:
    """Return every metric that is about the trainings of a policy together, by name."""
    return {m.name: m.function(repeats) for m in POLICY_METRICS.values() if m.of_repeats}


# --- utility ----------------------------------------------------------------------------------------------------------


def _top1(outcome: Outcome) -> float:
    return metrics.accuracy(outcome.probabilities, outcome.labels)


def _top5(outcome: Outcome) -> float | None:
    many = outcome.probabilities.shape[1] > 5
    return metrics.top5(outcome.probabilities, outcome.labels) if many else None


def _of_right(metric: Callable[[Array, Array], float]) -> Callable[[Outcome], float | None]:
    """Metric of the correctly classified samples; None when there are none."""

    def function(outcome: Outcome) -> float | None:
        some = metrics.hits(outcome.probabilities, outcome.labels).any()
        return metric(outcome.probabilities, outcome.labels) if some else None

    return function


def _left_out(outcome: Outcome) -> float:
    return float(metrics.class_confidences(outcome.probabilities, outcome.labels)[1])


# --- cost -------------------------------------------------------------------------------------------------------------


def _best(outcome: Outcome) -> int | None:
    """Index of the first epoch of highest validation accuracy."""
    curve = np.asarray(outcome.history.get("val_accuracy", ()), float)
    return int(np.nanargmax(curve)) if np.isfinite(curve).any() else None


def _hit(outcome: Outcome) -> int | None:
    """Index of the first epoch whose validation accuracy reaches the target."""
    curve = np.asarray(outcome.history.get("val_accuracy", ()), float)
    if outcome.target is None or not (curve >= outcome.target).any():
        return None
    return int(np.argmax(curve >= outcome.target))


def _last(outcome: Outcome) -> int:
    return -1


def _curve_at(curve: str, epoch: Callable[[Outcome], int | None]) -> Callable[[Outcome], float | None]:
    return lambda outcome: outcome.at(curve, epoch(outcome))


def _samples_at(epoch: Callable[[Outcome], int | None]) -> Callable[[Outcome], float | None]:
    """Return steps × batch size × networks of the member."""

    def function(outcome: Outcome) -> float | None:
        steps, batch = outcome.at("step", epoch(outcome)), outcome.config.get("batch_size")
        return steps * batch * outcome.folds if steps is not None and isinstance(batch, int) else None

    return function


def _seconds(outcome: Outcome) -> float | None:
    return outcome.seconds or None


# --- robustness -------------------------------------------------------------------------------------------------------


def _loss_difference(outcome: Outcome) -> float | None:
    trained = outcome.at("train_loss", -1)
    if trained is None or outcome.config.get("label_smoothing"):  # then the two are different losses
        return None
    return metrics.nll(outcome.probabilities, outcome.labels) - trained


def _seed_spread(repeats: Repeats) -> float | None:
    return repeats.top1.sd if repeats.top1 else None


def _scale_drop(repeats: Repeats) -> float | None:
    if 1.0 not in repeats.scale or len(repeats.scale) < 2:
        return None
    found = {factor: scaled.with_guesses(repeats.n_classes) for factor, scaled in repeats.scale.items()}
    return found[1.0] - min(found.values())


_M = PolicyMetric

# fmt: off
POLICY_METRICS: dict[str, PolicyMetric] = {m.name: m for m in (
    _M("top1", "Top-1 %", "utility", True, _top1, "share of n with argmax p_n = y_n",
       "accuracy of the finished network", 100, 2),
    _M("top5", "Top-5 %", "utility", True, _top5, "share of n with y_n among the five highest p_n",
       "top-5 accuracy; only with more than five classes", 100, 2),
    _M("ac", "AC %", "utility", True, _of_right(metrics.average_confidence), "mean of max p_n over right n",
       "average confidence on right samples", 100, 2),
    _M("cd", "CD %", "utility", False, _of_right(metrics.confidence_deviation), "sd of max p_n over right n",
       "deviation of confidence on right samples", 100, 2),
    _M("cdac", "CDAC %", "utility", False, _of_right(metrics.confidence_deviation_across_classes),
       "sd over classes of the mean of max p_n over right n of the class",
       "deviation of confidence across classes", 100, 2),
    _M("left_out", "left out", "utility", False, _left_out, "number of classes without a right sample",
       "classes that CDAC leaves out", 1, 1),
    _M("best_top1", "best val. %", "utility", True, _curve_at("val_accuracy", _best), "max_e a_e",
       "highest validation accuracy after any epoch", 100, 2),
    _M("steps_to_best", "steps to best", "cost", False, _curve_at("step", _best), "t_e at the first e with a_e = max",
       "steps until the highest validation accuracy", 1, 0),
    _M("seconds_to_best", "s to best", "cost", False, _curve_at("seconds", _best), "s_e at the first e with a_e = max",
       "seconds until the highest validation accuracy", 1, 2),
    _M("samples_to_best", "samples to best", "cost", False, _samples_at(_best), "steps to best × batch × networks",
       "samples seen until the highest validation accuracy", 1, 0),
    _M("steps_to_target", "steps to target", "cost", False, _curve_at("step", _hit), "t_e at the first e with a_e ≥ A",
       "steps until the target accuracy on validation", 1, 0, of_target=True),
    _M("seconds_to_target", "s to target", "cost", False, _curve_at("seconds", _hit), "s_e at the first e with a_e ≥ A",
       "seconds until the target accuracy on validation", 1, 2, of_target=True),
    _M("samples_to_target", "samples to target", "cost", False, _samples_at(_hit), "steps to target × batch × networks",
       "samples seen until the target accuracy on validation", 1, 0, of_target=True),
    _M("steps", "steps", "cost", False, _curve_at("step", _last), "t_E", "steps of the whole training", 1, 0),
    _M("seconds", "seconds", "cost", False, _seconds, "wall clock", "seconds of the whole training", 1, 2),
    _M("samples", "samples", "cost", False, _samples_at(_last), "t_E × batch × networks",
       "samples seen in the whole training", 1, 0),
    _M("loss_difference", "loss diff.", "robustness", False, _loss_difference, "NLL of the split − L_E",
       "loss of the split minus training loss of the last epoch"),
    _M("seed_spread", "sd of Top-1", "robustness", False, _seed_spread, "sd of Top-1 over seeds (n − 1)",
       "spread over repeats with other seeds, points", 100, 2, of_repeats=True),
    _M("scale_drop", "drop by scale", "robustness", False, _scale_drop,
       "Top-1 − min over f of Top-1 with all rates × f; diverged: 1/C",
       "points lost at the worst base-rate scale of the pool", 100, 2, of_repeats=True),
)}
# fmt: on
