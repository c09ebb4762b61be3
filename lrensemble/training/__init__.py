"""Training: settings, optimisers, the reference loop, members in parallel, interruption and resumption.

Importing it is light; torch is imported when training begins.
"""

from __future__ import annotations

from lrensemble.training.config import TrainConfig
from lrensemble.training.optimizers import OPTIMIZERS, OptimizerSpec
from lrensemble.training.progress import Event
from lrensemble.training.trainer import train_pool

__all__ = ["OPTIMIZERS", "Event", "OptimizerSpec", "TrainConfig", "train_pool"]
