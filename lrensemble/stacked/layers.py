"""The stacked form of every layer: K networks' layers of one kind as one operation, each network on its own samples.

Samples of K networks lie one network after another in one batch of K·B (*by member*), as in a batch of one network, so
that whatever treats samples one by one needs no stacked form at all. Layers that have one grouped kernel for all
networks want them side by side in the channels, (B, K·C, …) (*by channel*). A network alone is its own plain layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrensemble.stacked.flat import ALIGNMENT

__all__ = ["LAYERS", "RANDOM", "Form", "Members", "StackedLayer", "to_channels", "to_members"]

Tensors: TypeAlias = dict[str, Tensor]


@dataclass
class Members:
    """Whose samples a pass is given.

    Attributes
    ----------
    count
        K; 0 for one network alone, whose tensors then have no leading axis.
    tensors
        All parameters and buffers of the layers, by number, of shape (K, *shape) or of their own.
    generators
        One a network, for dropout.
    """

    count: int
    tensors: Sequence[Tensor]
    generators: Sequence[torch.Generator]


class StackedLayer(nn.Module):
    """Base of the stacked forms: knows its layer's settings and the numbers of its tensors, and holds no tensors.

    Attributes
    ----------
    by_channel
        Whether `together` wants the networks side by side in the channels.
    each
        Whether the networks are to take turns even where `together` is possible.
    """

    by_channel = False

    def __init__(self, layer: nn.Module, number: Callable[[Tensor], int], *, each: bool) -> None:
        super().__init__()
        self.layer: tuple[Any] = (layer,)  # in a tuple: its parameters are not ours
        self.each = each
        tensors = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
        self.numbers = {name: number(tensor) for name, tensor in tensors}
        self.train(layer.training)

    def forward(self, x: Tensor, members: Members) -> Tensor:
        """Return the layer's output."""
        tensors = {name: members.tensors[number] for name, number in self.numbers.items()}
        if not members.count:
            return self.alone(x, tensors, members)
        if not self.each:
            return self.together(x, tensors, members)
        rows = {name: tensor.unbind() for name, tensor in tensors.items()}
        parts = x.unflatten(0, (members.count, -1)).unbind()
        outputs = [
            self.alone(part.clone(), {name: row[k] for name, row in rows.items()}, members)
            for k, part in enumerate(parts)
        ]
        return torch.cat(outputs)

    def alone(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        """Output for one network."""
        raise NotImplementedError

    def together(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        """Output for K networks, whose tensors have a leading axis."""
        raise NotImplementedError


def flat(tensor: Tensor | None) -> Tensor | None:
    """Put networks and channels of a layer's tensor into one axis."""
    return None if tensor is None else tensor.flatten(0, 1)


def to_channels(x: Tensor, members: Members) -> Tensor:
    """From (K·B, C, …) to (B, K·C, …)."""
    return x.unflatten(0, (members.count, -1)).transpose(0, 1).flatten(1, 2)


def to_members(x: Tensor, members: Members) -> Tensor:
    """From (B, K·C, …) to (K·B, C, …)."""
    return x.unflatten(1, (members.count, -1)).transpose(0, 1).flatten(0, 1)


class _BatchedLinear(torch.autograd.Function):
    """y_k = x_k W_kᵀ + b_k for all k, x of shape (K·B, features), with the gradient of W as W lies in memory.

    Torch's own gradient of a batched product is transposed, and has to be copied; and its output, flattened to
    (K·B, features), is a view, for which an activation in place costs two copies more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        count, outputs, inputs = weight.shape
        batch = x.shape[0] // count
        sizes = [batch * inputs, batch * outputs, *([outputs * inputs] if x.element_size() < 4 else [])]
        # parameters are aligned as they are stored; those that autocast has shortened lie packed
        ctx.aligned = x.device.type != "cpu" or not any(size % _unit(x) for size in sizes)
        y = x.new_empty(x.shape[0], outputs)
        _multiply(
            x.view(count, -1, inputs), weight.transpose(1, 2), bias, y.view(count, -1, outputs), aligned=ctx.aligned
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        count, outputs, inputs = weight.shape
        grad = grad.contiguous().view(count, -1, outputs)
        grad_x = grad_weight = None
        if needs_x:
            grad_x = torch.empty_like(x)
            _multiply(grad, weight, None, grad_x.view(count, -1, inputs), aligned=ctx.aligned)
        if needs_weight:
            size = outputs * inputs
            rows = x.new_empty(count, size + -size % _unit(x))
            grad_weight = rows[:, :size].view(count, outputs, inputs)
            _multiply(grad.transpose(1, 2), x.view(count, -1, inputs), None, grad_weight, aligned=ctx.aligned)
        return grad_x, grad_weight, grad.sum(dim=1) if needs_bias else None


def _unit(x: Tensor) -> int:
    """Return how many numbers there are between addresses that are aligned."""
    return ALIGNMENT // x.element_size()


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None, out: Tensor, *, aligned: bool) -> None:
    """Write a_k b_k + bias_k to `out`.

    On a CPU the rounding of a product does not depend on what others there are: its kernels round by the address of a
    matrix in relation to the width of registers, so where not all are aligned, copies are multiplied one by one; and
    one pair of matrices is treated by another kernel than several, so it is multiplied twice.
    """
    if not aligned:
        for k in range(a.shape[0]):
            one, other = a[k].clone(), b[k].clone()
            out[k] = one @ other if bias is None else torch.addmm(bias[k], one, other)
    elif a.shape[0] == 1 and a.device.type == "cpu":
        pair = [matrix.expand(2, -1, -1) for matrix in (a, b)]
        out.copy_((torch.bmm(*pair) if bias is None else torch.baddbmm(bias.expand(2, 1, -1), *pair))[:1])
    elif bias is None:
        torch.bmm(a, b, out=out)
    else:
        torch.baddbmm(bias.unsqueeze(1), a, b, out=out)


class Linear(StackedLayer):
    """A batched matrix product."""

    def alone(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        return functional.linear(x, **tensors)

    def together(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            half = torch.get_autocast_dtype(x.device.type)
            x, tensors = x.to(half), {name: tensor.to(half) for name, tensor in tensors.items()}
        y = _BatchedLinear.apply(x.flatten(0, -2).contiguous(), tensors["weight"], tensors.get("bias"))
        return y if x.dim() == 2 else y.view(*x.shape[:-1], -1)


class Convolution(StackedLayer):
    """A convolution with K times the groups."""

    by_channel = True

    def alone(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        return self._convolve(x, tensors["weight"], tensors.get("bias"), self.layer[0].groups)

    def together(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        groups = members.count * self.layer[0].groups
        return self._convolve(x, flat(tensors["weight"]), flat(tensors.get("bias")), groups)

    def _convolve(self, x: Tensor, weight: Any, bias: Tensor | None, groups: int) -> Tensor:
        (layer,) = self.layer
        padding = layer.padding
        if layer.padding_mode != "zeros":
            x, padding = functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
        convolve: Any = functional.conv1d if weight.dim() == 3 else functional.conv2d
        return convolve(x, weight, bias, layer.stride, padding, layer.dilation, groups)


class BatchNorm(StackedLayer):
    """Batch normalisation of K·C channels; each network's own where the momentum depends on its number of batches."""

    by_channel = True

    def __init__(self, layer: nn.Module, number: Callable[[Tensor], int], *, each: bool) -> None:
        super().__init__(layer, number, each=each or layer.momentum is None)

    def alone(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        count = tensors.get("num_batches_tracked")
        if self.training and count is not None:
            count.add_(1)
        return self._normalise(x, tensors, count)

    def together(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        count = tensors.get("num_batches_tracked")
        if self.training and count is not None:
            count.add_(1)
        wide = {name: tensor.flatten(0, 1) for name, tensor in tensors.items() if tensor is not count}
        return self._normalise(x, wide, count)  # running statistics lie side by side: flat, they are still the same

    def _normalise(self, x: Tensor, tensors: Tensors, count: Tensor | None) -> Tensor:
        (layer,) = self.layer
        momentum = layer.momentum
        if momentum is None:  # all batches count the same
            momentum = 1 / float(count) if self.training and count is not None else 0.0
        running = tensors.get("running_mean"), tensors.get("running_var")
        by_batch = self.training or running[0] is None
        scale = tensors.get("weight"), tensors.get("bias")
        return functional.batch_norm(x, *running, *scale, by_batch, momentum, layer.eps)


class GroupNorm(StackedLayer):
    """Group normalisation of K times the groups."""

    by_channel = True

    def alone(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        return functional.group_norm(x, self.layer[0].num_groups, **tensors, eps=self.layer[0].eps)

    def together(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        groups = members.count * self.layer[0].num_groups
        wide = {name: tensor.flatten(0, 1) for name, tensor in tensors.items()}
        return functional.group_norm(x, groups, **wide, eps=self.layer[0].eps)


class LayerNorm(StackedLayer):
    """Normalisation for all, then each network's scale and shift."""

    def alone(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        return functional.layer_norm(x, self.layer[0].normalized_shape, **tensors, eps=self.layer[0].eps)

    def together(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        shape = list(self.layer[0].normalized_shape)
        y = functional.layer_norm(x, shape, eps=self.layer[0].eps).unflatten(0, (members.count, -1))
        lead = [members.count] + [1] * (x.dim() - len(shape))
        if "weight" in tensors:
            y = y * tensors["weight"].view(lead + shape)
        if "bias" in tensors:
            y = y + tensors["bias"].view(lead + shape)
        return y.flatten(0, 1)


def dropout(x: Tensor, members: Members, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Like ``functional.dropout``, each network with the numbers that its own generator gives."""
    return _dropped(x, members, p, torch.empty_like(x)) if training and p > 0 else x


def dropout2d(x: Tensor, members: Members, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Like ``functional.dropout2d``, which zeroes whole channels."""
    if not training or p == 0:
        return x
    return _dropped(x, members, p, x.new_empty([*x.shape[:2], *[1] * (x.dim() - 2)]))


def _dropped(x: Tensor, members: Members, p: float, noise: Tensor) -> Tensor:
    for part, generator in zip(noise.chunk(max(members.count, 1)), members.generators, strict=True):
        part.bernoulli_(1 - p, generator=generator)
    return x * (noise.div_(1 - p) if p < 1 else noise)


class Dropout(StackedLayer):
    """`dropout`, where networks differ in nothing but the numbers they draw."""

    function = staticmethod(dropout)

    def alone(self, x: Tensor, tensors: Tensors, members: Members) -> Tensor:
        return self.function(x, members, self.layer[0].p, self.training)

    together = alone


class Dropout2d(Dropout):
    """`dropout2d`."""

    function = staticmethod(dropout2d)


@dataclass(frozen=True)
class Form:
    """How a layer is stacked.

    Attributes
    ----------
    stacked
        The class.
    exact
        Whether a network's numbers on a CPU are the same, bit for bit, whatever networks are beside it. If not, the
        networks take turns there.
    """

    stacked: type[StackedLayer]
    exact: bool


LAYERS: dict[type[nn.Module], Form] = {
    nn.Linear: Form(Linear, exact=True),
    nn.Conv1d: Form(Convolution, exact=False),
    nn.Conv2d: Form(Convolution, exact=False),
    nn.BatchNorm1d: Form(BatchNorm, exact=False),
    nn.BatchNorm2d: Form(BatchNorm, exact=False),
    nn.GroupNorm: Form(GroupNorm, exact=False),
    nn.LayerNorm: Form(LayerNorm, exact=False),
    nn.Dropout: Form(Dropout, exact=True),
    nn.Dropout2d: Form(Dropout2d, exact=True),
}

RANDOM: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.dropout: dropout,
    functional.dropout2d: dropout2d,
}
