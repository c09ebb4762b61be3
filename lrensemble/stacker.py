"""`Stacker`: a linear model over log-probabilities of members, as plain numbers (fitted by `selection.stacking`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError

__all__ = ["FEATURES", "Stacker", "log_probabilities"]

TINY = float(np.finfo(np.float32).tiny)  # smallest probability that a logarithm is taken of, as in `combine`
FEATURES = ("scalar", "full")

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stacker:
    """Linear stacking of K members and C classes, as plain numbers.

    The probabilities are the softmax over c of

    - ``"scalar"``: z_nc = Σ_k a_k log p_kn(c) + b_c, a log-linear pool with free weights;
    - ``"full"``: z_nc = Σ_k Σ_d a_kdc log p_kn(d) + b_c, where a member's opinion on class d may speak for class c.

    Attributes
    ----------
    features
        ``"scalar"`` or ``"full"``.
    coefficients
        a: K numbers, or K·C·C in the order of (member k, its class d, class c).
    intercepts
        b: C numbers.
    """

    features: str
    coefficients: tuple[float, ...]
    intercepts: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise InputError(f"expected stacker features 'scalar' or 'full', got {self.features!r}")
        for name in ("coefficients", "intercepts"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim != 1 or not values.size or not np.isfinite(values).all():
                raise InputError(f"expected stacker {name} as a list of finite numbers, got others")
            object.__setattr__(self, name, tuple(values.tolist()))

    def check(self, n_members: int) -> None:
        """Raise `InputError` unless the coefficients are those of so many members."""
        classes = len(self.intercepts)
        each = 1 if self.features == "scalar" else classes**2
        if len(self.coefficients) != n_members * each or classes < 2:
            raise InputError(
                f"expected {n_members * each} stacker coefficients ({n_members} members, {classes} classes, features "
                f"'{self.features}'), got {len(self.coefficients)}"
            )

    def probabilities(self, members: Iterable[npt.NDArray[np.floating]]) -> Doubles:
        """Combine the probabilities (N, C) of the members, in their order; float64, rows sum to 1."""
        n_classes = len(self.intercepts)
        parts = np.asarray(self.coefficients)
        parts = parts if self.features == "scalar" else parts.reshape(-1, n_classes, n_classes)
        z: Doubles = np.array(self.intercepts)[None, :]
        for part, member in zip(parts, members, strict=True):
            if member.shape[1] != n_classes:
                raise InputError(f"expected predictions of {n_classes} classes to stack, got {member.shape[1]}")
            logs = log_probabilities(member)
            z = z + (part * logs if self.features == "scalar" else logs @ part)
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        return z / z.sum(axis=1, keepdims=True)


def log_probabilities(probabilities: npt.NDArray[np.floating]) -> Doubles:
    """Logarithms in float64; probabilities below the least normal float32 count as that."""
    return np.log(np.maximum(probabilities, TINY, dtype=np.float64))
