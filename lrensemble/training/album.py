"""`Album`: the snapshots of one network under training, taken when they are due, and kept until they can be stored.

What was taken and the running means of the weights are part of the network's saved state, so that a training that was
interrupted ends with the same snapshots, bit for bit.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lrensemble.training import loop
from lrensemble.training.snapshots import Snapshot
from lrensemble.training.training import Run, Training

if TYPE_CHECKING:
    from lrensemble.training.batches import Stream

__all__ = ["Album", "Mean", "Outputs", "averaged_network", "outputs_of", "until"]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What one network says, and its weights.

    Attributes
    ----------
    val, test
        Logits float32 (N, C), on the CPU: of the samples that it is judged on, and of the test samples.
    weights
        Parameters and buffers by name, on the CPU.
    seconds
        That the predictions took.
    """

    val: Tensor
    test: Tensor
    weights: dict[str, Tensor]
    seconds: float

    def arrays(self) -> dict[str, npt.NDArray]:
        """Weights as arrays; bfloat16, which NumPy does not have, as float32."""
        plain = {k: v.float() if v.dtype is torch.bfloat16 else v for k, v in self.weights.items()}
        return {name: value.contiguous().numpy() for name, value in plain.items()}


def outputs_of(training: Training, model: nn.Module, test: Tensor | Stream) -> Outputs:
    """Let a network predict: `model`, on its way through `training` or derived from it."""
    start = time.perf_counter()
    val = loop.predict(model, training.validation_samples.x).cpu()
    on_test = loop.predict(model, test).cpu()
    seconds = time.perf_counter() - start
    return Outputs(val, on_test, {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}, seconds)


class Mean:
    """Running mean of the floating-point parameters of a network.

    Attributes
    ----------
    count
        How many times it was given the weights.
    values
        Mean of each parameter; empty before the first time.
    """

    def __init__(self, count: int = 0, values: Sequence[Tensor] = ()) -> None:
        self.count = count
        self.values = list(values)

    def add(self, model: nn.Module) -> None:
        """Take the weights of `model` into the mean: m ← m + (w − m)/(n + 1)."""
        weights = [p.detach() for p in model.parameters() if p.is_floating_point()]
        if not self.count:
            self.values = [weight.clone() for weight in weights]
        for mean, weight in zip(self.values, weights, strict=True):
            mean.lerp_(weight, 1 / (self.count + 1))
        self.count += 1


def averaged_network(training: Training, mean: Mean) -> nn.Module:
    """Return a copy of the network with mean weights, for which batch normalisation has been measured anew.

    The statistics are those of one pass over the training data without augmentation, in the batches of an epoch
    (Izmailov et al. 2018, section 3.2); other buffers are those of the network as it is.
    """
    model, device = copy.deepcopy(training.model), training.data.x.device
    with torch.no_grad():
        floating = (p for p in model.parameters() if p.is_floating_point())
        for parameter, value in zip(floating, mean.values, strict=True):
            parameter.copy_(value)
    draw = loop.stable_seed(training.draw, "averaged weights")
    batches = training.order(draw).split(training.config.batch_size)[: training.steps]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        loop.seed_global(draw, device)  # dropout
        update_bn(training.data.batches(batches, draw), model, device)
    return model


class Album:
    """Snapshots of one network.

    Attributes
    ----------
    taken
        By name; the owner removes those that it has stored.
    """

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self.taken: dict[str, Outputs] = {}
        self._snapshots = snapshots
        self._means = {snapshot.id: Mean() for snapshot in snapshots if snapshot.averaged}

    def marks(self, steps: int) -> frozenset[int]:
        """Numbers of updates within an epoch of so many steps after which `take` is to be called."""
        return frozenset(s.step for s in self._snapshots if s.step % steps)

    def take(self, training: Training, updates: int, test: Tensor | Stream) -> None:
        """Take what is due after so many updates."""
        self._take([s for s in self._snapshots if s.step == updates and not s.averaged], training, test)

    def end_epoch(self, training: Training, test: Tensor | Stream) -> None:
        """Take what is due after an epoch; nothing of a network that has diverged in it."""
        run, epochs = training.run, training.config.epochs
        if run.diverged:
            return
        averaging = [s for s in self._snapshots if s.averaged and run.epoch > epochs - s.averaged]
        if averaging:
            training.sync()
        for snapshot in averaging:
            self._means[snapshot.id].add(training.model)
        self.take(training, run.epoch * training.steps, test)
        if run.epoch == epochs:
            self._take(averaging, training, test)

    def _take(self, due: Sequence[Snapshot], training: Training, test: Tensor | Stream) -> None:
        if due:
            training.sync()
        for snapshot in due:
            averaged = averaged_network(training, self._means[snapshot.id]) if snapshot.averaged else training.model
            self.taken[snapshot.id] = outputs_of(training, averaged, test)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes; tensors, numbers and texts."""
        return {
            "taken": {name: vars(outputs) for name, outputs in self.taken.items()},
            "means": {name: vars(mean) for name, mean in self._means.items()},
        }

    def restore(self, state: Mapping[str, Any], run: Run, epochs: int) -> None:
        """Go on where `state` was saved, in a training of so many epochs that has come as far as `run`.

        Raises
        ------
        ValueError
            If it lacks a snapshot that the training has passed, or part of a mean: then it was not asked for.
        """
        taken = {name: Outputs(**values) for name, values in state.get("taken", {}).items()}
        means = {name: Mean(**values) for name, values in state.get("means", {}).items()}
        updates = int(run.curves["step"][-1]) if run.epoch else 0
        for s in self._snapshots:
            summed = max(0, run.epoch - epochs + s.averaged) if s.averaged else 0
            passed = s.exists(steps=updates, diverged=run.diverged)
            if s.id not in taken and (passed or (summed != means.get(s.id, Mean()).count and not run.diverged)):
                raise ValueError("it lacks snapshots that are asked for now")
        wanted = {s.id for s in self._snapshots}
        self.taken = {name: outputs for name, outputs in taken.items() if name in wanted}
        self._means |= {name: mean for name, mean in means.items() if name in wanted}


def until(snapshot: Snapshot, training: Training) -> Run:
    """Return how far the training had come when the snapshot was taken: its curves of the epochs that were finished."""
    curves = {name: values[: snapshot.epoch] for name, values in training.run.curves.items() if name != "step_lr"}
    epochs = range(-(-snapshot.step // training.steps))
    rates = np.concatenate([training.rates(epoch) for epoch in epochs])[: snapshot.step].tolist()
    seconds = curves["seconds"][-1] if curves["seconds"] else 0.0
    return Run(epoch=snapshot.epoch, seconds=seconds, curves={**curves, "step_lr": rates})
