"""A surface with two valleys, and descents on it: in a second one sees what a learning-rate policy decides.

The surface of LRBench's demonstration (Wu & Liu 2022, arXiv 2210.12936). A small rate ends in the nearer valley, which
is a local minimum; a larger one that falls at the end comes to the global minimum; one that stays large never settles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, PolicyError
from lrensemble.policies.base import Policy, TimePolicy, time_policy
from lrensemble.policies.text import parse_policy

__all__ = ["DEMONSTRATION", "START", "Descent", "descend", "gradient", "height"]

START = (0.75, 1.0)
STEPS = 200
FAR = 1e6  # from the origin: the surface is flat long before
NEAR = 0.1  # to the centre of a valley
SETTLED = 1e-3  # length of the gradient below which a descent has come to rest

# the three policies of the paper's figure
DEMONSTRATION = (
    "FIX(k0=0.025)",
    "NSTEP(k0=0.05, gamma=0.1, l=[150, 180])",
    "TRIEXP(k0=0.05, k1=0.3, l=100, gamma=0.94)",
)

Floats = npt.NDArray[np.float64]

VALLEYS = ((1.0, -0.5, 0.25), (-1.0, 0.5, 0.2))  # centre x, centre y, standard deviation; the second is the deeper


@dataclass(frozen=True, eq=False)
class Descent:
    """What gradient descent did under a policy.

    Attributes
    ----------
    policy
        In steps.
    path
        Places (x, y) before the first step and after each, shape (steps + 1, 2).
    heights
        z at each place, shape (steps + 1,).
    slope
        Length of the gradient at the last place.
    """

    policy: TimePolicy
    path: Floats
    heights: Floats
    slope: float

    @property
    def converged(self) -> bool:
        """Whether it has come to rest: the gradient at its end is shorter than 0.001."""
        return self.slope < SETTLED

    @property
    def outcome(self) -> str:
        """``"local minimum"``, ``"global minimum"``, ``"another flat place"`` or ``"not converged"``."""
        if not self.converged:
            return "not converged"
        for (x, y, _), name in zip(VALLEYS, ("local minimum", "global minimum"), strict=True):
            if np.hypot(self.path[-1, 0] - x, self.path[-1, 1] - y) < NEAR:
                return name
        return "another flat place"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: outcome, path and heights."""
        return {
            "policy": str(self.policy),
            "outcome": self.outcome,
            "slope": self.slope,
            "path": self.path.tolist(),
            "heights": self.heights.tolist(),
        }


def height(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Return z = −sin(x²) cos(3y²) e^(−(xy)²) − 2.5 e^(−(x+y)²) − G(1, −.5, .25) − G(−1, .5, .2).

    G(m, n, σ) = e^(−((x−m)² + (y−n)²)/2σ²) / 2πσ². Broadcasts over arrays.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    z = -np.sin(a**2) * np.cos(3 * b**2) * np.exp(-((a * b) ** 2)) - 2.5 * np.exp(-((a + b) ** 2))
    return np.asarray(z - sum(_bump(a, b, *valley) for valley in VALLEYS))


def gradient(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return ∂z/∂x and ∂z/∂y, as derived by hand."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    s, c, e = np.sin(a**2), np.cos(3 * b**2), np.exp(-((a * b) ** 2))
    ridge = 5 * (a + b) * np.exp(-((a + b) ** 2))
    dx = -2 * a * np.cos(a**2) * c * e + 2 * a * b**2 * s * c * e + ridge
    dy = 6 * b * s * np.sin(3 * b**2) * e + 2 * a**2 * b * s * c * e + ridge
    for m, n, sigma in VALLEYS:
        g = _bump(a, b, m, n, sigma) / sigma**2
        dx, dy = dx + g * (a - m), dy + g * (b - n)
    return np.asarray(dx), np.asarray(dy)


def descend(policy: Policy | str, *, steps: int = STEPS, start: Sequence[float] = START) -> Descent:
    """Go down the surface by plain gradient descent, w ← w − lr(t) ∇z(w), under a policy.

    Parameters
    ----------
    policy
        Policy or text; shares of the run are resolved with `steps`.
    steps
        Number of updates.
    start
        (x, y).

    Examples
    --------
    >>> found = descend("NSTEP(k0=0.05, gamma=0.1, l=[150, 180])")
    >>> found.outcome, round(float(found.heights[-1]), 3)
    ('global minimum', -6.417)

    Raises
    ------
    InputError
        For steps < 1, or a start that is not two finite numbers.
    PolicyError
        For a policy that cannot be read, follows a training instead of the step, or leaves the surface.
    """
    place = np.asarray(start, np.float64)
    if steps < 1 or place.shape != (2,) or not np.isfinite(place).all():
        raise InputError(f"expected 1 step or more from a place (x, y), got {steps} from {start}")
    resolved = time_policy(parse_policy(policy).resolve(total_steps=steps, steps_per_epoch=max(1, steps // 10)))
    path = np.empty((steps + 1, 2))
    path[0] = place
    for t, rate in enumerate(resolved.curve(steps)):
        path[t + 1] = path[t] - rate * np.array(gradient(*path[t]))
        if np.abs(path[t + 1]).max() > FAR:
            raise PolicyError(f"expected rates that stay on the surface, got {rate:g} at step {t} of {resolved}")
    return Descent(resolved, path, height(path[:, 0], path[:, 1]), float(np.hypot(*gradient(*path[-1]))))


def _bump(x: Floats, y: Floats, m: float, n: float, sigma: float) -> Floats:
    return np.exp(-((x - m) ** 2 + (y - n) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
