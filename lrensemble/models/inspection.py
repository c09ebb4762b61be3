"""Facts about a built network: does it fit the data, how large is it, what does it cost, is it the same one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lrensemble.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["architecture_digest", "check_model", "count_flops", "count_parameters"]


def check_model(model: nn.Module, input_shape: tuple[int, ...], n_classes: int, *, name: str | None = None) -> None:
    """Run two all-zero samples and check that the output is logits of shape (2, n_classes).

    Parameters
    ----------
    model, input_shape, n_classes
        The network, and the data that it is for.
    name
        For messages; the name of the network's class when not given.

    Raises
    ------
    InputError
        If the network fails on the data's shape, gives anything else, has nothing to train, or a state that cannot be
        stored as tensors.
    """
    import torch

    name = name or type(model).__name__
    try:
        with _evaluating(model):
            output = model(_zeros(model, 2, input_shape))
    except Exception as error:
        raise InputError(
            f"{name}: expected a network for samples of shape {input_shape}, but it fails ({first_line(error)})"
        ) from None
    if not isinstance(output, torch.Tensor) or not output.is_floating_point() or output.shape != (2, n_classes):
        got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise InputError(f"{name}: expected logits of shape (2, {n_classes}) for two samples, got {got}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{name}: expected parameters to train, got none")
    for key, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise InputError(f"{name}: expected a state of tensors, got {kind} '{key}': make it a buffer")


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_flops(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count floating-point operations of the forward pass of one sample; a multiply-add is two.

    Convolutions and matrix products count, element-wise operations do not (``torch.utils.flop_counter``). 0 means that
    they cannot be counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        with _evaluating(model), counter:
            model(_zeros(model, 1, input_shape))
    except Exception:  # whatever a user's network does: the cost is then unknown, which 0 says
        return 0
    return int(counter.get_total_flops())


def architecture_digest(model: nn.Module) -> str:
    """Return 16 hex digits of SHA-256 over the printed structure and the names, shapes and types of all tensors.

    Two networks of the same digest can load each other's weights; a function that was edited to build another network
    gets another digest under the same name.
    """
    structure = re.sub(r" at 0x[0-9a-f]+", "", str(model))  # addresses differ from run to run
    tensors = [f"{key} {tuple(value.shape)} {value.dtype}" for key, value in model.state_dict().items()]
    return hashlib.sha256("\n".join([structure, *tensors]).encode()).hexdigest()[:16]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients; give every module its own mode back afterwards."""
    import torch

    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _zeros(model: nn.Module, n: int, input_shape: tuple[int, ...]) -> Tensor:
    import torch

    first = next(model.parameters(), None)
    return torch.zeros(n, *input_shape, device=None if first is None else first.device)  # float32, as all data are
