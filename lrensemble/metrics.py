"""Scores of probabilities (N, C) against labels (N,): pure functions, and their table with directions.

The predicted class is the one of highest probability, the first of equals. Every score is a finite number for every
input of one sample or more; what a degenerate input gives is said at each function. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.calibration import safe_temperature, tempered_nll
from lrensemble.errors import InputError
from lrensemble.predictions import TINY

__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "average_confidence",
    "balanced_accuracy",
    "brier",
    "brier_per_sample",
    "calibrated_nll",
    "calibration_bins",
    "class_confidences",
    "confidence_deviation",
    "confidence_deviation_across_classes",
    "ece",
    "ece_mass",
    "hits",
    "macro_f1",
    "nll",
    "nll_of_true_class",
    "nll_per_sample",
    "top5",
    "top5_hits",
]

BINS = 15

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Metric:
    """One score, its direction, and (when it is a mean over samples) its terms.

    Attributes
    ----------
    name
        Key in `METRICS`.
    function
        ``(probabilities (N, C), labels (N,)) -> float``.
    higher_is_better
        Direction.
    description
        One line for listings.
    per_sample
        ``(probabilities, labels) -> float64 (N,)`` whose mean is the score; None when the score is no such mean.
    """

    name: str
    function: Callable[[Floats, Ints], float]
    higher_is_better: bool
    description: str
    per_sample: Callable[[Floats, Ints], npt.NDArray[np.float64]] | None = None

    def __call__(self, probabilities: Floats, labels: Ints) -> float:
        """Score of probabilities (N, C) against labels (N,)."""
        return self.function(probabilities, labels)


# --- scores that are means over samples -----------------------------------------------------------


def hits(probabilities: Floats, labels: Ints) -> npt.NDArray[np.float64]:
    """1 for each sample whose predicted class is right, else 0, shape (N,)."""
    p, y = _checked(probabilities, labels)
    return (p.argmax(axis=1) == y).astype(np.float64)


def accuracy(probabilities: Floats, labels: Ints) -> float:
    """Share of samples whose predicted class is right (top-1)."""
    return float(hits(probabilities, labels).mean())


def top5_hits(probabilities: Floats, labels: Ints) -> npt.NDArray[np.float64]:
    """1 for each sample whose true class is among the five most probable, else 0, shape (N,).

    Of classes with equal probability the one of lower index comes first, as with the predicted class.
    """
    p, y = _checked(probabilities, labels)
    own = np.take_along_axis(p, y[:, None], axis=1)
    ahead = (p > own) | ((p == own) & (np.arange(p.shape[1]) < y[:, None]))
    return (ahead.sum(axis=1) < 5).astype(np.float64)


def top5(probabilities: Floats, labels: Ints) -> float:
    """Share of samples whose true class is among the five most probable; with five classes or fewer always 1."""
    return float(top5_hits(probabilities, labels).mean())


def nll_per_sample(probabilities: Floats, labels: Ints) -> npt.NDArray[np.float64]:
    """−log of the probability of the true class, in nats, clipped at 87.3 (the least float32), shape (N,)."""
    p, y = _checked(probabilities, labels)
    return _minus_logs(np.take_along_axis(p, y[:, None], axis=1)[:, 0].astype(np.float64))


def nll(probabilities: Floats, labels: Ints) -> float:
    """Negative log-likelihood (log loss, cross-entropy), mean over samples, in nats."""
    return float(nll_per_sample(probabilities, labels).mean())


def nll_of_true_class(own: Doubles) -> float:
    """`nll` of the probabilities that are given to the true class, shape (N,)."""
    return float(_minus_logs(own).mean())


def _minus_logs(own: Doubles) -> Doubles:
    return -np.log(np.clip(own, TINY, 1.0)) + 0.0  # + 0.0 turns −0 into 0


def brier_per_sample(probabilities: Floats, labels: Ints) -> npt.NDArray[np.float64]:
    """Σ_c (p_c − [c = y])² of each sample, shape (N,)."""
    p, y = _checked(probabilities, labels)
    gap = p.astype(np.float64)
    gap[np.arange(len(y)), y] -= 1.0
    return np.einsum("nc,nc->n", gap, gap)


def brier(probabilities: Floats, labels: Ints) -> float:
    """Brier score in Brier's own multi-class form (1950): squared error summed over classes, mean over samples; 0…2."""
    return float(brier_per_sample(probabilities, labels).mean())


# --- scores over classes --------------------------------------------------------------------------


def macro_f1(probabilities: Floats, labels: Ints) -> float:
    """F1 = 2 TP / (2 TP + FP + FN), mean over the classes that occur as label or prediction."""
    p, y = _checked(probabilities, labels)
    predicted = p.argmax(axis=1)
    right, true, guessed = (_count(v, p.shape[1]) for v in (y[predicted == y], y, predicted))
    seen = (true + guessed) > 0
    return float((2 * right[seen] / (true + guessed)[seen]).mean())


def balanced_accuracy(probabilities: Floats, labels: Ints) -> float:
    """Recall, mean over the classes that occur as label."""
    p, y = _checked(probabilities, labels)
    right, true = _count(y[p.argmax(axis=1) == y], p.shape[1]), _count(y, p.shape[1])
    return float((right[true > 0] / true[true > 0]).mean())


# --- calibration ----------------------------------------------------------------------------------


def calibration_bins(
    probabilities: Floats, labels: Ints, *, bins: int = BINS, equal_mass: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Group samples by confidence (the highest probability): the data of a reliability diagram.

    Parameters
    ----------
    bins
        How many groups.
    equal_mass
        False: intervals ``((b−1)/bins, b/bins]`` of equal width. True: groups of equal size, in order of confidence;
        samples of equal confidence share their hits evenly, so that their order plays no part.

    Returns
    -------
    counts, confidence, accuracy
        Each of shape (bins,): samples in the group, their mean confidence, their accuracy; 0 where the group is empty.
    """
    p, y = _checked(probabilities, labels)
    confidence = p.max(axis=1).astype(np.float64)
    right = (p.argmax(axis=1) == y).astype(np.float64)
    if equal_mass:
        order = np.argsort(confidence, kind="stable")
        group = np.empty(len(y), dtype=np.int64)
        group[order] = np.arange(len(y)) * bins // len(y)
        _, same = np.unique(confidence, return_inverse=True)
        right = (np.bincount(same, weights=right) / np.bincount(same))[same]
    else:
        group = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = _count(group, bins)
    sums = (np.bincount(group, weights=v, minlength=bins) for v in (confidence, right))
    mean_confidence, mean_right = (total / np.maximum(counts, 1) for total in sums)
    return counts, mean_confidence, mean_right


def ece(probabilities: Floats, labels: Ints) -> float:
    """ECE: Σ_b n_b/N · abs(accuracy_b − confidence_b) over 15 confidence intervals b of equal width.

    Expected calibration error (Naeini et al. 2015; Guo et al. 2017).
    """
    return _gap(*calibration_bins(probabilities, labels))


def ece_mass(probabilities: Floats, labels: Ints) -> float:
    """ECE over 15 groups of equal size (adaptive ECE; Nguyen & O'Connor 2015)."""
    return _gap(*calibration_bins(probabilities, labels, equal_mass=True))


def calibrated_nll(probabilities: Floats, labels: Ints, *, seed: int = 0) -> float:
    """NLL after temperature scaling: fitted on one half, scored on the other, both ways, mean over all samples.

    Tells how good the ranking of the classes is once over- or under-confidence is taken out (Ashukha et al. 2020).
    Probabilities become softmax(log p / T), 0.01 ≤ T ≤ 100. The halves are drawn with `seed`, so the score depends on
    the order of samples. A half without an error, or a single sample, leaves nothing to fit on: T = 1.
    """
    p, y = _checked(probabilities, labels)
    z = np.log(np.clip(p.astype(np.float64), TINY, None))
    if len(y) == 1:
        return tempered_nll(z, y, 1.0)
    order = np.random.default_rng(seed).permutation(len(y))
    halves = order[: len(y) // 2], order[len(y) // 2 :]
    total = sum(
        len(score) * tempered_nll(z[score], y[score], safe_temperature(z[fit], y[fit]))
        for fit, score in (halves, halves[::-1])
    )
    return float(total / len(y))


def _gap(counts: Ints, confidence: Floats, right: Floats) -> float:
    return float((counts * np.abs(right - confidence)).sum() / counts.sum())


# --- confidence on what is right (Wu et al. 2019, LRBench) ----------------------------------------


def average_confidence(probabilities: Floats, labels: Ints) -> float:
    """AC: mean confidence over the correctly classified samples; 0 when there are none (Wu et al. 2019)."""
    right = _right_confidences(probabilities, labels)
    return float(right.mean()) if right.size else 0.0


def confidence_deviation(probabilities: Floats, labels: Ints) -> float:
    """CD: standard deviation of confidence over the right samples; 0 when there are none (Wu et al. 2019)."""
    right = _right_confidences(probabilities, labels)
    return float(right.std()) if right.size else 0.0


def class_confidences(probabilities: Floats, labels: Ints) -> tuple[npt.NDArray[np.float64], int]:
    """Mean confidence over the right samples of each class, and the number of classes left out as they have none."""
    p, y = _checked(probabilities, labels)
    right = p.argmax(axis=1) == y
    counts = _count(y[right], p.shape[1])
    sums = np.bincount(y[right], weights=p.max(axis=1)[right].astype(np.float64), minlength=p.shape[1])
    return sums[counts > 0] / counts[counts > 0], int((counts == 0).sum())


def confidence_deviation_across_classes(probabilities: Floats, labels: Ints) -> float:
    """CDAC: standard deviation over classes of their mean confidence on right samples (Wu et al. 2019).

    Classes without a right sample are left out (`class_confidences` counts them); 0 when no class remains.
    """
    means, _ = class_confidences(probabilities, labels)
    return float(means.std()) if means.size else 0.0


def _right_confidences(probabilities: Floats, labels: Ints) -> npt.NDArray[np.float64]:
    p, y = _checked(probabilities, labels)
    return p.max(axis=1)[p.argmax(axis=1) == y].astype(np.float64)


# --- helpers --------------------------------------------------------------------------------------


def _checked(probabilities: Floats, labels: Ints) -> tuple[Floats, Ints]:
    p, y = np.asarray(probabilities), np.asarray(labels)
    if p.ndim != 2 or 0 in p.shape or y.shape != (len(p),):
        raise InputError(
            f"expected probabilities of shape (N, C) and labels of shape (N,), N ≥ 1, got {p.shape} and {y.shape}"
        )
    if y.dtype.kind not in "iu":
        raise InputError(f"expected labels as integers 0…C−1, got values of type {y.dtype}")
    if not p.min() >= 0:  # also true of NaN
        raise InputError("expected probabilities ≥ 0, got negative ones or NaN: pass the softmax of logits")
    if not p.max() < 1.001:
        raise InputError(f"expected probabilities ≤ 1, got {p.max():.6g}: pass the softmax of logits")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise InputError(f"expected labels in 0…{p.shape[1] - 1}, got {y.min()}…{y.max()}")
    return p, y


def _count(values: Ints, size: int) -> npt.NDArray[np.int64]:
    return np.bincount(values, minlength=size)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy, True, "share of samples classified right", hits),
        Metric("top5", top5, True, "share of samples with the true class among the five most probable", top5_hits),
        Metric("macro_f1", macro_f1, True, "F1, mean over classes"),
        Metric("balanced_accuracy", balanced_accuracy, True, "recall, mean over classes"),
        Metric("nll", nll, False, "negative log-likelihood of the true class, nats", nll_per_sample),
        Metric(
            "brier", brier, False, "squared error of the probabilities, summed over classes (0…2)", brier_per_sample
        ),
        Metric("ece", ece, False, "expected calibration error, 15 bins of equal width"),
        Metric("ece_mass", ece_mass, False, "expected calibration error, 15 bins of equal size"),
        Metric("calibrated_nll", calibrated_nll, False, "NLL after temperature scaling, cross-fitted on two halves"),
        Metric("ac", average_confidence, True, "average confidence on right samples"),
        Metric("cd", confidence_deviation, False, "standard deviation of confidence on right samples"),
        Metric(
            "cdac", confidence_deviation_across_classes, False, "standard deviation over classes of their confidence"
        ),
    )
}
