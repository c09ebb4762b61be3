"""K networks of one architecture trained as one: each with its own learning rate, samples, dropout and fate."""

from __future__ import annotations

from lrensemble.stacked.network import IMPLEMENTATIONS, Part, StackedNetwork, unsupported
from lrensemble.stacked.optimizers import StackedOptimizer

__all__ = ["IMPLEMENTATIONS", "Part", "StackedNetwork", "StackedOptimizer", "unsupported"]
