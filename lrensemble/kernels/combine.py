"""Kernel of the weighted mean of probabilities: one member added to a running sum in one pass."""

from typing import Any

import numpy as np
from numba import types

from lrensemble.kernels import compiled

__all__ = ["add_weighted"]


@compiled(types.void(types.Array(types.float32, 1, "C", readonly=True), types.float64, types.float64[::1]))
def add_weighted(member: Any, weight: Any, total: Any) -> None:
    """``total += weight · member``, each product in float64."""
    for i in range(len(total)):
        total[i] += np.float64(member[i]) * weight
