"""Random numbers that a user's transforms draw: decided by a seed, and without a trace in those of the program."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["ALONE", "seeded"]

ALONE = threading.RLock()  # generators (and torch's number of threads) belong to the whole process


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (on the CPU); afterwards they are as they were before.

    Generators that an object keeps for itself are beyond reach.
    """
    import torch

    with ALONE:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])
