"""Extrapolation of an accuracy curve: the chance that a training still reaches a target. An estimate, never a proof.

After Domhan, Springenberg & Hutter 2015 (Speeding up automatic hyperparameter optimization of deep neural networks by
extrapolation of learning curves, IJCAI): several parametric curves are fitted to what has been seen, and their
predictions are averaged. Theirs are eleven curves and a Markov chain over the parameters; here are four, each fitted by
least squares, with the spread of its prediction from the fit's Jacobian.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CURVES", "Curve", "chance_of_reaching"]

Array = npt.NDArray[np.float64]

LEAST_EPOCHS = 5
LEAST_SHARE = 0.25  # of the epochs, that must have been seen
LEAST_NOISE = 0.002  # a curve is not believed to follow a formula more closely than that
FALL = 0.5  # rates to come that are below this part of the lowest so far: accuracy may jump


@dataclass(frozen=True)
class Curve:
    """A family of curves that rise towards a limit.

    Attributes
    ----------
    formula
        As in the paper; x counts epochs from 1, c is the limit.
    value
        ``value(x, parameters)``.
    start, low, high
        First guess of the parameters for a curve that ends at 1, and their bounds.
    """

    formula: str
    value: Callable[[Array, Any], Array]
    start: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


CURVES: dict[str, Curve] = {
    "pow3": Curve("c − a x^(−α)", lambda x, p: p[0] - p[1] * x ** -p[2], (1, 0.5, 0.5), (0, 0, 0), (1, 2, 5)),
    "exp3": Curve("c − a e^(−κx)", lambda x, p: p[0] - p[1] * np.exp(-p[2] * x), (1, 0.5, 0.3), (0, 0, 0), (1, 2, 5)),
    "ilog2": Curve("c − a/ln(x + 1)", lambda x, p: p[0] - p[1] / np.log(x + 1), (1, 0.5), (0, 0), (1, 2)),
    "hill3": Curve(
        "c x^η/(κ^η + x^η)",
        lambda x, p: p[0] * x ** p[1] / (p[2] ** p[1] + x ** p[1]),
        (1, 1, 1),
        (0, 0.01, 1e-3),
        (1, 5, 1e3),
    ),
}


def chance_of_reaching(
    accuracy: Sequence[float], target: float, last: int, *, rates: npt.NDArray[np.float64] | None
) -> float | None:
    """Estimate the chance that an accuracy reaches a target by epoch `last`.

    Each curve k has least squares parameters θ, a residual standard deviation σ_k and, from its Jacobian J, a variance
    v_k of its value at `last`. Its chance is Φ((f_k(last) + σ_k √(2 ln m) − target)/√(σ_k² + v_k)), where the second
    term is the most that the best of the m evaluations to come owes to noise; the curves are weighted by
    exp(−½ BIC_k).

    Parameters
    ----------
    accuracy
        After each epoch so far, all finite.
    target
        The accuracy to be reached.
    last
        Number of the last epoch, counted from 1.
    rates
        Learning rate at the start of each epoch, shape (last,); None where it is not known.

    Returns
    -------
    float or None
        None where nothing can be said: after fewer than 5 epochs or a quarter of them; where the rates to come are not
        known or fall to less than half of the lowest so far, since accuracy then jumps.
    """
    seen = len(accuracy)
    if seen < max(LEAST_EPOCHS, LEAST_SHARE * last) or not np.isfinite(accuracy).all() or rates is None:
        return None
    if seen >= last or rates[seen:].min() < FALL * rates[:seen].min():
        return None
    x, y = np.arange(1.0, seen + 1), np.asarray(accuracy, dtype=np.float64)
    found = [_fit(curve, x, y, target, last) for curve in CURVES.values()]
    scores = np.array([bic for bic, _ in found])
    weights = np.exp(-0.5 * (scores - scores.min()))
    return float(np.average([chance for _, chance in found], weights=weights))


def _fit(curve: Curve, x: Array, y: Array, target: float, last: int) -> tuple[float, float]:
    """BIC of a curve, and the chance that it gives."""
    from scipy.optimize import least_squares
    from scipy.stats import norm

    start = np.array(curve.start) * [y[-1], *(1.0 for _ in curve.start[1:])]
    start = np.clip(start, np.array(curve.low) + 1e-6, np.array(curve.high) - 1e-6)
    fit = least_squares(lambda p: curve.value(x, p) - y, start, bounds=(curve.low, curve.high))
    n, k = len(x), len(start)
    noise = max(LEAST_NOISE, math.sqrt(2 * fit.cost / max(1, n - k)))
    bic = n * math.log(max(2 * fit.cost / n, LEAST_NOISE**2)) + k * math.log(n)
    value = float(curve.value(np.array([float(last)]), fit.x)[0])
    slope = _slope(lambda p: float(curve.value(np.array([float(last)]), p)[0]), fit.x)
    spread = noise**2 * float(slope @ np.linalg.pinv(fit.jac.T @ fit.jac) @ slope)
    lucky = noise * math.sqrt(2 * math.log(max(1, last - n)))
    return bic, float(norm.cdf((value + lucky - target) / math.sqrt(noise**2 + spread)))


def _slope(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    shifts = step * np.eye(len(at))
    return np.array([(function(at + shift) - function(at - shift)) / (2 * step) for shift in shifts])
