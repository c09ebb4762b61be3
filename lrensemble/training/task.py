"""`Task` and `Setting`: what is to be trained, and where; all that is sent to a worker beside the data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from lrensemble.models import ModelLike
from lrensemble.policies import Policy
from lrensemble.training.config import TrainConfig
from lrensemble.training.loop import stable_seed
from lrensemble.training.snapshots import Snapshot

__all__ = ["Setting", "Task"]


@dataclass(frozen=True)
class Task:
    """A member that is to be trained.

    Attributes
    ----------
    id
        Its name: a hash of all below decides it.
    policy, asked
        In steps, and its text as asked for.
    model, model_text, architecture
        What to build, its canonical text, and the digest that the built network must have.
    config
        With the name of an augmentation, not ``"auto"``.
    seed
        Decides, with the policy, all that is random.
    parameters, flops
        Size and cost of the network.
    snapshots
        Further members that its training yields; their names begin with that of the task.
    """

    id: str
    policy: Policy
    asked: str
    model: ModelLike
    model_text: str
    architecture: str
    config: TrainConfig
    seed: int
    parameters: int
    flops: int
    snapshots: tuple[Snapshot, ...] = ()

    @property
    def draw(self) -> int:
        """Seed of everything random: of the seed and the policy together, or of the seed alone (``common_seed``)."""
        return self.seed if self.config.common_seed else stable_seed(self.seed, str(self.policy))


@dataclass(frozen=True)
class Setting:
    """Where members are trained and stored: what all tasks share, apart from the data.

    Attributes
    ----------
    pool
        Directory of the pool, absolute.
    device
        For ``torch.device``.
    checkpoint_seconds
        Least time between two savings of the state.
    save_weights
        Whether to keep the weights.
    devices
        All that the run may use; each process takes one of them as its `device`.
    until
        Epoch after which a training rests: its state is saved, and it goes on from there another time. None: the last.
    deadline
        Trainings rest at the end of the epoch in which this moment falls (seconds, as `time.time`). None: never.
    readers
        Processes that read streamed data ahead for each process that trains; 0: that one reads them itself.
    """

    pool: Path
    device: str
    checkpoint_seconds: float
    save_weights: bool
    devices: tuple[str, ...] = ()
    until: int | None = None
    deadline: float | None = None
    readers: int = 0

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.time() >= self.deadline
