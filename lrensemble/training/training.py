"""`Training`: one network on its way through its epochs; all that an engine needs to know, and all that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lrensemble.policies import FeedbackPolicy, FeedbackState, Policy, TimePolicy
from lrensemble.training.config import TrainConfig, steps_per_epoch

if TYPE_CHECKING:
    from lrensemble.training.batches import Stream

__all__ = ["EPOCH_CURVES", "Run", "Samples", "Training"]

EPOCH_CURVES = ("step", "train_loss", "val_loss", "val_accuracy", "seconds")


@dataclass(frozen=True)
class Samples:
    """Labelled samples on the training device: `x` float32 (N, …), or a `Stream` that reads them; `y` int64 (N,)."""

    x: Tensor | Stream
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, rows: Sequence[Tensor], draw: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield samples and labels of an epoch's batches of indices; `draw` is the epoch's seed."""
        if isinstance(self.x, Tensor):
            for batch in rows:
                yield self.x.index_select(0, batch), self.y.index_select(0, batch)
        else:
            for x, batch in zip(self.x.epoch(rows, draw), rows, strict=True):
                yield x, self.y.index_select(0, batch)


@dataclass
class Run:
    """How far a training has come.

    Attributes
    ----------
    epoch
        Epochs finished.
    seconds
        Time spent so far, over all interruptions: wall-clock time, divided by the number of networks that shared it.
    diverged
        Whether a loss became NaN or infinite.
    curves
        One value an epoch by name (`EPOCH_CURVES`; ``step`` and ``seconds`` count from the start), and ``step_lr``: the
        learning rate of every update that was made.
    """

    epoch: int = 0
    seconds: float = 0.0
    diverged: bool = False
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*EPOCH_CURVES, "step_lr")})

    def record(
        self, *, steps: int, rates: list[float], train_loss: float, val: tuple[float, float], seconds: float
    ) -> None:
        """Close an epoch in which `steps` updates were made, counted from the start, at these `rates`."""
        self.epoch += 1
        self.seconds = seconds
        for name, value in zip(EPOCH_CURVES, (steps, train_loss, *val, seconds), strict=True):
            self.curves[name].append(value)
        self.curves["step_lr"] += rates

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Curves as arrays: ``step`` int64, the others float64."""
        kinds = {"step": np.int64}
        return {name: np.asarray(values, kinds.get(name, np.float64)) for name, values in self.curves.items()}


def _nothing(*_: Any) -> None:
    return None


@dataclass(eq=False)
class Training:
    """One network under training. An engine takes it from ``run.epoch`` to its end and calls back on the way.

    On a CPU an engine gives a training the same numbers, bit for bit, whatever other trainings share a stack with it:
    so neither the number of jobs nor an interruption, after which others share the stack, changes the outcome.

    Attributes
    ----------
    model, optimizer
        As new, or as they were after ``run.epoch`` epochs; changed in place. An engine may keep the numbers elsewhere
        meanwhile: call `sync` before reading them.
    policy
        In steps; `rates` are its learning rates.
    config
        Settings; ``config.augment`` must be the name of an augmentation.
    draw
        Seed that decides, with the number of the epoch, order, augmentation and dropout.
    data, validation
        On the device of the model.
    rows
        Which samples of `data` it learns from; all when None.
    n
        Samples of an epoch, at most as many as there are rows: each epoch's order leaves out others.
    validation_rows
        Which samples of `validation` it is judged on after each epoch; all when None.
    run
        How far it has come.
    marks
        Numbers of updates after which `on_mark` is called.
    stop
        A callback sets it to end the training after the epoch that is under way.
    on_mark
        ``on_mark(training, updates)``; the model may be put into evaluation mode.
    on_epoch
        Called after every epoch.
    on_end
        Called once, when the last epoch is done, the training has diverged, or `stop` was set.
    sync
        Set by an engine that keeps the numbers elsewhere: brings `model` and `optimizer` up to date.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    policy: Policy
    config: TrainConfig
    draw: int
    data: Samples
    validation: Samples
    rows: Tensor | None = None
    n: int = 0
    validation_rows: Tensor | None = None
    run: Run = field(default_factory=Run)
    marks: frozenset[int] = frozenset()
    stop: bool = False
    on_mark: Callable[[Training, int], None] = _nothing
    on_epoch: Callable[[Training], None] = _nothing
    on_end: Callable[[Training], None] = _nothing
    sync: Callable[[], None] = _nothing
    _states: list[FeedbackState] = field(default_factory=list, init=False, repr=False)  # after 0, 1, … epochs

    def __post_init__(self) -> None:
        self.n = self.n or len(self.data if self.rows is None else self.rows)

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return steps_per_epoch(self.n, self.config.batch_size)

    def rates(self, epoch: int) -> npt.NDArray[np.float64]:
        """Return the learning rates of the steps of an epoch, the present one or one that is over, shape (steps,).

        Those of a feedback policy follow from the validation curve so far, which is all of its state that is kept.
        """
        steps = np.arange(epoch * self.steps, (epoch + 1) * self.steps)
        if isinstance(self.policy, TimePolicy):
            return self.policy(steps)
        assert isinstance(self.policy, FeedbackPolicy)  # there are no others
        last = self._states.pop() if self._states else self.policy.init()
        measured = self.run.curves[self.policy.monitor][len(self._states) : epoch]
        self._states += accumulate(measured, self.policy.update, initial=last)
        return self.policy.rate(self._states[epoch], steps)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.stop or self.run.diverged or self.run.epoch >= self.config.epochs

    @property
    def validation_samples(self) -> Samples:
        """What it is judged on after each epoch."""
        rows = self.validation_rows
        return self.validation if rows is None else Samples(self.validation.x[rows], self.validation.y[rows])

    def order(self, seed: int) -> Tensor:
        """Return the indices into `data` in the order of an epoch, shape (n,), on the device."""
        rows = len(self.data) if self.rows is None else len(self.rows)
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[: self.n].to(self.data.x.device)
        return order if self.rows is None else self.rows[order]
