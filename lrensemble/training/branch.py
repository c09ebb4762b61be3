"""`branch`: let trainings begin where another one rests that has come the same way.

Where the seed alone decides all that is random (``common_seed``), trainings whose learning rates are the same up to
some epoch are in the same state there, bit for bit. So one of them may go as far, and the others begin with a copy of
its state instead of repeating it: the outcome is the same, the common part is trained once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lrensemble.errors import InputError
from lrensemble.policies import time_policy

if TYPE_CHECKING:
    from lrensemble.pool import Pool
    from lrensemble.training.task import Task

__all__ = ["branch"]


def branch(pool: Pool, trunk: Task, tasks: Sequence[Task], *, epoch: int, steps: int) -> None:
    """Give trainings that have not begun the state of one that rests.

    A training that is in the pool, or has a state of its own, is left as it is; where the trunk has no state of this
    epoch (any more) nothing is done, and the trainings repeat the common part. Every file is written whole or not at
    all, so that a call that was killed can be made again.

    Parameters
    ----------
    pool
        Where they all are.
    trunk
        The training that rests.
    tasks
        Those that are to begin where it is.
    epoch, steps
        Epochs that it has finished, and optimiser steps of one.

    Raises
    ------
    InputError
        If a training would not have come to the same state by itself.
    """
    from lrensemble.training.checkpoint import Checkpoint

    states = [path for path in pool.resume_paths(trunk.id) if path.suffix == ".pt"]
    there = set(pool.ids)
    for task in tasks:
        _check_same_way(trunk, task, epoch * steps)
        for state in states if task.id not in there else ():
            part = state.stem.removeprefix(trunk.id)  # of a fold: ".fold0"
            own = pool.resume_path(task.id + part)
            if not own.exists():
                Checkpoint(state, trunk.id + part, 0).hand_on(Checkpoint(own, task.id + part, 0), epoch=epoch)


def _check_same_way(trunk: Task, task: Task, updates: int) -> None:
    same = (trunk.config, trunk.architecture, trunk.draw) == (task.config, task.architecture, task.draw)
    if same and updates:
        same = np.array_equal(time_policy(trunk.policy).curve(updates), time_policy(task.policy).curve(updates))
    if not same or task.snapshots:
        raise InputError(
            f"expected trainings that come the same way for {updates} steps, with one seed that alone decides "
            f"(common_seed) and without snapshots, got {trunk.policy} and {task.policy}"
        )
