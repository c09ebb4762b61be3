"""Kernel of the weighted mean of probabilities: members added to a running sum in one pass."""

from typing import Any

import numpy as np
from numba import types

from lrensemble.kernels import compiled

__all__ = ["add_weighted"]

MEMBER = types.Array(types.float32, 1, "C", readonly=True)
WEIGHTS = types.Array(types.float64, 1, "C", readonly=True)


@compiled(types.void(MEMBER, MEMBER, MEMBER, MEMBER, WEIGHTS, types.float64[::1]))
def add_weighted(one: Any, two: Any, three: Any, four: Any, weights: Any, total: Any) -> None:
    """``total += weights[0] · one``, then the others in turn, each product and each sum in float64."""
    a, b, c, d = weights[0], weights[1], weights[2], weights[3]
    for i in range(len(total)):
        value = total[i] + np.float64(one[i]) * a
        value += np.float64(two[i]) * b
        value += np.float64(three[i]) * c
        total[i] = value + np.float64(four[i]) * d
