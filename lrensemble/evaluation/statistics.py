"""Uncertainty of scores on one test set: the paired bootstrap and McNemar's exact test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError

__all__ = ["McNemar", "bootstrap_means", "mcnemar", "percentile_interval"]

BLOCK = 2_000_000  # draws that are in memory at a time

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class McNemar:
    """Outcome of McNemar's test of two classifiers on the same samples.

    Attributes
    ----------
    wins, losses
        Samples that only the first, and only the second, gets right.
    p_value
        Two-sided, exact: chance of a split as uneven as this if both were equally good; 1 when they never differ.
    """

    wins: int
    losses: int
    p_value: float


def mcnemar(first_right: npt.ArrayLike, second_right: npt.ArrayLike) -> McNemar:
    """Test whether two classifiers err equally often on the same samples (McNemar 1947, exact binomial form).

    Parameters
    ----------
    first_right, second_right
        Whether each is right on each sample, shape (N,).
    """
    from scipy.stats import binomtest

    a, b = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"expected two outcomes of the same shape (N,), got {a.shape} and {b.shape}")
    wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
    differ = wins + losses
    return McNemar(wins, losses, float(binomtest(wins, differ).pvalue) if differ else 1.0)


def bootstrap_means(scores: Doubles, *, resamples: int, seed: int) -> Doubles:
    """Means of the columns of `scores` over resamples of its rows, drawn with replacement.

    All columns share the resamples, so that a difference of two columns is a paired difference. Works in blocks: memory
    does not grow with resamples × N.

    Parameters
    ----------
    scores
        Shape (N, S): S scores of each of N samples.
    resamples
        B, the number of resamples.

    Returns
    -------
    array
        Shape (B, S).
    """
    n = len(scores)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, scores.shape[1]))
    step = math.ceil(BLOCK / n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = rng.integers(0, n, size=(rows, n))
        draws += n * np.arange(rows)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = counts.astype(np.float64) @ scores / n
    return means


def percentile_interval(samples: Doubles, confidence: float) -> tuple[Doubles, Doubles]:
    """Bounds between which the middle `confidence` of each column lies, each of shape (S,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    return low, high
