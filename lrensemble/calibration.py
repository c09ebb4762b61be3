"""Temperature scaling (Guo et al. 2017): one number that makes probabilities as sure as they are right.

Logits become logits / T: T > 1 softens, T < 1 sharpens, the predicted class stays. T is the one that gives labelled
data the least NLL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.memory import empty_array
from lrensemble.predictions import ALL, TINY, Outputs, Predictions, Samples

__all__ = [
    "COLDEST",
    "HOTTEST",
    "TemperedOutputs",
    "fit_temperature",
    "fit_temperatures",
    "safe_temperature",
    "temper",
    "tempered",
    "tempered_nll",
]

COLDEST, HOTTEST = 0.01, 100.0  # bounds of a temperature; data that all classify right are fitted ever better below
NEAR = 1e-6  # relative: the last of Newton's steps
MOST_STEPS = 100

Doubles = npt.NDArray[np.float64]


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Temperature of least NLL on labelled data, between 0.01 and 100.

    NLL is convex in β = 1/T, with the slope mean(E_p z − z_y) and the curvature mean(Var_p z), p = softmax(βz):
    Newton's method, kept inside a bracket that each step narrows.

    Parameters
    ----------
    logits
        Shape (N, C), finite; log-probabilities do as well.
    labels
        Integers 0…C−1, shape (N,).

    Returns
    -------
    float
        0.01 where every sample is right with room to spare (sharper is better without end), 100 where classes that are
        thought likely are right no more often than others, 1 where the temperature makes no difference.

    Raises
    ------
    InputError
        On wrong shapes, logits that are not finite, or labels out of range.

    Examples
    --------
    >>> round(fit_temperature(np.log([[0.9, 0.1]] * 4), [0, 0, 0, 1]), 6)  # 90 % sure, 75 % right
    2.0
    """
    z, y = _checked(logits, labels)
    own, z = z[np.arange(len(y)), y], np.ascontiguousarray(z.T)
    low, high = 1 / HOTTEST, 1 / COLDEST  # of β; not yet looked at
    beta = 1.0
    slope, curvature = _slope(beta, z, own)
    if slope == 0:  # no opinions, or certain and right: as good as it gets
        return 1.0
    if not own.any():  # every true class is the likeliest: sharper is better, if by less than rounding
        return COLDEST
    for _ in range(MOST_STEPS):
        if (slope >= 0 and beta == 1 / HOTTEST) or (slope <= 0 and beta == 1 / COLDEST):
            break
        low, high = (low, beta) if slope > 0 else (beta, high)
        step = beta - slope / curvature if curvature > 0 else -np.inf * np.sign(slope)
        inside = low < step < high
        new = step if inside else _within(step, low, high)
        converged = inside and abs(new - beta) <= NEAR * beta  # the error of a step is the square of that
        beta = new
        if converged:
            break
        slope, curvature = _slope(beta, z, own)
    return float(1 / beta)


def safe_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """`fit_temperature`, but 1 where every true class is the likeliest, or one of the likeliest.

    Such data only ask to be surer, without end: at T = 0.01 the first error on other data may cost thousands of nats.
    """
    temperature = fit_temperature(logits, labels)
    if temperature > COLDEST:
        return temperature
    z, y = _checked(logits, labels)
    return temperature if z[np.arange(len(y)), y].any() else 1.0


def fit_temperatures(predictions: Predictions) -> Doubles:
    """Temperature of each member, shape (M,); members are read one by one."""
    members = range(predictions.n_members)
    return np.array([fit_temperature(predictions.member_logits(j), predictions.labels) for j in members])


def tempered(predictions: Predictions, temperatures: npt.ArrayLike) -> Predictions:
    """Predictions with the logits of each member divided by its temperature, shape (M,); a view, nothing is copied."""
    outputs = TemperedOutputs(predictions, tuple(np.asarray(temperatures, dtype=np.float64).tolist()))
    labels, families = predictions.labels, predictions.families
    return Predictions(predictions.ids, outputs, labels, predictions.split, predictions.fingerprint, families)


@dataclass(frozen=True, eq=False)
class TemperedOutputs(Outputs):
    """Logits of `predictions`, less their maximum, divided by a temperature a member when they are asked for."""

    predictions: Predictions
    temperatures: tuple[float, ...]
    are_probabilities = False

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """(M, N, C)."""
        return self.predictions.outputs.shape

    @property
    def in_memory(self) -> bool:  # type: ignore[override]
        """Whether the untempered ones are."""
        return self.predictions.in_memory

    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """Tempered logits of one member."""
        z = self.predictions.member_logits(index, samples)
        with np.errstate(over="ignore"):  # beyond float32 a logit becomes −inf, of which the exponential is 0
            z = z - z.max(axis=-1, keepdims=True)
            z /= np.float32(self.temperatures[index])
        return z

    def whole(self) -> npt.NDArray[np.float32]:
        """Tempered logits of all members."""
        out = empty_array(self.shape, np.float32, "the calibrated logits of all members")
        for j, row in enumerate(out):
            row[...] = self.member(j)
        return out

    def take(self, members: Sequence[int]) -> TemperedOutputs:
        """Keep these members."""
        kept = self.predictions.take([self.predictions.ids[j] for j in members])
        return TemperedOutputs(kept, tuple(self.temperatures[j] for j in members))

    def subset(self, samples: Samples) -> TemperedOutputs:
        """Keep these samples."""
        return TemperedOutputs(self.predictions.subset(samples), self.temperatures)


def temper(probabilities: npt.ArrayLike, temperature: float) -> Doubles:
    """Probabilities at another temperature: softmax(log p / T) over the last axis, float64.

    Probabilities below the least normal float32 count as that.
    """
    z = np.log(np.maximum(probabilities, TINY, dtype=np.float64))
    z /= temperature
    z -= z.max(axis=-1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=-1, keepdims=True)
    return z


def tempered_nll(logits: npt.ArrayLike, labels: npt.ArrayLike, temperature: float) -> float:
    """NLL of softmax(logits / T), mean over samples, in nats."""
    z, y = _checked(logits, labels)
    z /= temperature
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]).mean())


def _slope(beta: float, z: Doubles, own: Doubles) -> tuple[float, float]:
    """First and second derivative of the NLL by β; z has the shape (C, N)."""
    p = np.exp(beta * z)
    p /= p.sum(axis=0)
    p *= z
    mean = p.sum(axis=0)
    p *= z
    return float((mean - own).mean()), float((p.sum(axis=0) - mean**2).mean())


def _within(step: float, low: float, high: float) -> float:
    """Go to the bound that a step leaves by if it is still unknown, else to the middle of the bracket."""
    if step <= low == 1 / HOTTEST or step >= high == 1 / COLDEST:
        return low if step <= low else high
    return float(np.sqrt(low * high))


def _checked(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Doubles, npt.NDArray[np.int64]]:
    """Logits less their maximum, as a copy, and labels."""
    z, y = np.array(logits, dtype=np.float64), np.asarray(labels)
    if z.ndim != 2 or 0 in z.shape or y.shape != (len(z),):
        raise InputError(
            f"expected logits of shape (N, C) and labels of shape (N,), N ≥ 1, got {z.shape} and {y.shape}"
        )
    if not np.isfinite(z).all():
        raise InputError("expected finite logits, got NaN or infinity")
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= z.shape[1]:
        raise InputError(f"expected labels as integers 0…{z.shape[1] - 1}, got others")
    z -= z.max(axis=1, keepdims=True)
    return z, y
