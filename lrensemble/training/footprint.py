"""How much memory training takes, estimated before it is used."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrensemble.data import Splits
from lrensemble.data.splits import PARTS
from lrensemble.errors import InputError
from lrensemble.memory import free_bytes
from lrensemble.stacked.network import default_implementation
from lrensemble.training import loop
from lrensemble.training.apprentice import fresh
from lrensemble.training.task import Task

__all__ = ["Footprint", "data_bytes", "footprint", "free_on", "refuse_hopeless"]

FEW, MORE = 2, 4  # samples of the passes that are looked at: batch normalisation needs two
PROCESS_BYTES = 500 << 20  # of a process that has imported PyTorch, without what it shares with others
SHARE = 0.8  # of the free memory, that is planned with


@dataclass(frozen=True)
class Footprint:
    """Bytes.

    Attributes
    ----------
    network
        Of each network of a stack, whatever the batch: weights and optimiser state, twice since a stack keeps a copy,
        and the gradient.
    batch
        Of each network while it learns from a batch: what the forward pass keeps for the backward pass, half of that
        again for the kernels' own copies, and its three largest tensors again for the gradients that pass through.
        0.9 to 1.3 times what was measured for networks of the table, with their weights.
    data
        Of the data set.
    together
        Whether the networks of a stack learn at the same time, or in turns.
    """

    network: int
    batch: int
    data: int
    together: bool = True

    def process(self, stack: int) -> int:
        """Bytes of a process that trains a stack of this many networks, without the data."""
        return PROCESS_BYTES + stack * self.network + (stack if self.together else 1) * self.batch

    def widest(self, free: float, processes: int) -> int:
        """Networks that each of `processes` can stack so that all fit into `free` bytes; 0 when not even one can."""
        room = (SHARE * free - self.data) / processes - PROCESS_BYTES
        if math.isinf(room):
            return sys.maxsize
        if self.together:
            return max(0, int(room / (self.network + self.batch)))
        return max(0, int((room - self.batch) / self.network))


def footprint(task: Task, splits: Splits, device: str) -> Footprint:
    """Make one step of one network with a few samples, on the CPU; what a batch keeps grows with its size.

    The data count once: they lie in this process's memory already, workers map them as files (often in memory too),
    and a GPU holds a copy.
    """
    cpu = torch.device("cpu")
    with loop.controlled(cpu):
        model, optimizer = fresh(task, 0, splits, cpu)
        model.train()
        half = task.config.precision == "bf16"
        _, few = _forward(model, torch.zeros(FEW, *splits.input_shape), half)
        loss, more = _forward(model, torch.zeros(MORE, *splits.input_shape), half)
        loss.backward()
        optimizer.step()
    state = sum(_bytes(value) for values in optimizer.state.values() for value in values.values())
    weights = sum(map(_bytes, model.state_dict().values()))
    gradient = sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)
    grown = 1.5 * (sum(more) - sum(few)) + sum(more[-3:]) - sum(few[-3:])  # what does not grow are copies of weights
    batch = int(grown * task.config.batch_size / (MORE - FEW))
    together = torch.device(device).type != "cpu" or default_implementation(model) != "split"
    return Footprint(2 * (weights + state) + gradient, batch, data_bytes(splits), together)


def _forward(model: nn.Module, x: Tensor, half: bool) -> tuple[Tensor, list[int]]:
    """Return the loss, and the bytes of the tensors that autograd keeps for it, each memory once, ascending."""
    weights = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    sizes: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            sizes[place] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        loss = cross_entropy(model(x).float(), torch.zeros(len(x), dtype=torch.long))
    return loss, sorted(sizes.values())


def _bytes(value: object) -> int:
    return value.nbytes if isinstance(value, Tensor) else 0


def data_bytes(splits: Splits) -> int:
    """Bytes of all samples; 0 where they are read when they are needed."""
    if not splits.resident:
        return 0
    parts = [getattr(splits, part) for part in PARTS]
    return sum({id(split): split.nbytes for split in parts}.values())  # with folds, two of them are one


def free_on(device: str) -> float:
    """Bytes that are free on the device; infinity where that is not known."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(torch.device(device))[0])
    return free_bytes()


def refuse_hopeless(task: Task, splits: Splits, device: str) -> None:
    """Refuse a training that cannot fit: weights and gradient, and on a GPU the data, alone are more than is free.

    Raises
    ------
    InputError
        With the numbers.
    """
    data = data_bytes(splits) if torch.device(device).type == "cuda" else 0
    needed, free = 2 * 4 * task.parameters + data, free_on(device)
    if needed > free:
        raise InputError(
            f"expected {needed / 1e9:.3g} GB of free memory on {device} for {task.model_text} and its data, got "
            f"{free / 1e9:.3g} GB: take a smaller network or fewer samples, or free memory"
        )
