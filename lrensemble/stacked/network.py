"""`StackedNetwork`: K networks of one architecture, their parameters in one array, trained in one batched pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn

from lrensemble.errors import first_line, lookup
from lrensemble.stacked.flat import Layout
from lrensemble.stacked.layers import LAYERS, Members, to_members
from lrensemble.stacked.program import NotStackableError, build_program

__all__ = ["IMPLEMENTATIONS", "Part", "StackedNetwork", "default_implementation", "unsupported"]

PROBE = 3  # samples that a network is tried out on

IMPLEMENTATIONS = {
    "grouped": "all networks in one pass, in kernels for all: batched matrix products, grouped convolutions",
    "batched": "all networks in one pass; by turns where a kernel for all would round otherwise than one for each",
    "split": "the networks by turns, each with kernels of its own and in the processor's cache",
}


def default_implementation(model: nn.Module) -> str:
    """Name in ``IMPLEMENTATIONS`` that suits the network and its device.

    On a CPU a network's numbers are then the same, bit for bit, whatever networks are in its stack. Small matrix
    products gain from company everywhere. Convolutions on a CPU do not: a grouped one reaches half the rate of a plain
    one, and the activations of many networks leave the cache.
    """
    if next(model.parameters()).device.type != "cpu":
        return "grouped"
    return "split" if any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in model.modules()) else "batched"


class Part:
    """Networks of a stack that pass together.

    Attributes
    ----------
    members
        Which ones of the stack, as indices.
    leaf
        Their parameters, one row each (or one row, for a network alone): what gradients are taken for.
    """

    def __init__(self, network: StackedNetwork, members: range, *, together: bool) -> None:
        self._network = network
        self._count = len(members) if together else 0
        self.members = members
        rows = slice(members.start, members.stop) if together else members.start
        self.leaf = network.rows[rows].detach().requires_grad_()
        self._constants = [tensor[rows] for tensor in network.constants]
        self._generators = network.generators[members.start : members.stop]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (K·B, C) for samples (K·B, …), one network's after another's."""
        return self._network.program(self._count > 0)(x, self.pass_members())

    def pass_members(self) -> Members:
        """Return what the layers of one pass are given."""
        return Members(self._count, [*self._network.layout.views(self.leaf), *self._constants], self._generators)


class StackedNetwork:
    """K networks of one architecture, copied into one array and called as one.

    Parameters
    ----------
    models
        The networks; their parameters and buffers are copied, and come back with `write_back`.
    input_shape
        Of one sample.
    implementation
        Name in ``IMPLEMENTATIONS``; None takes what suits the network and its device.

    Attributes
    ----------
    rows
        Trainable parameters, shape (K, P): a network's in one row.
    parts
        Networks that pass together: all of them, or each alone.
    implementation
        Name in ``IMPLEMENTATIONS``.
    training
        The mode: set by `train` and `eval`.

    Raises
    ------
    NotStackableError
        If there is no stacked form; see `unsupported`.
    """

    def __init__(
        self, models: Sequence[nn.Module], input_shape: tuple[int, ...], *, implementation: str | None = None
    ) -> None:
        model = models[0]
        self.input_shape = tuple(input_shape)
        self.training = True
        self._models = list(models)
        self._trained = [[p for p in model.parameters() if p.requires_grad] for model in models]
        self._fixed = [[*(p for p in m.parameters() if not p.requires_grad), *m.buffers()] for m in models]
        self._numbers = {id(tensor): i for i, tensor in enumerate((*self._trained[0], *self._fixed[0]))}
        self._template = nn.Sequential(model) if type(model) in LAYERS else model
        self.device = self._trained[0][0].device
        self.layout = Layout(self._trained[0])
        with torch.no_grad():
            self.rows = self.layout.stack(self._trained, like=self._trained[0][0])
            self.constants = [torch.stack(tensors) for tensors in zip(*self._fixed, strict=True)]
        self.generators = [torch.Generator(self.device) for _ in models]
        self._implement(implementation if implementation is not None else default_implementation(model))

    def __len__(self) -> int:
        return len(self._models)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (K, B, C) for samples (K, B, …), each network's own, or (B, …), the same for all."""
        if x.dim() == len(self.input_shape) + 1:
            x = x.expand(len(self), *x.shape)
        return torch.cat(
            [
                part(x[part.members.start : part.members.stop].flatten(0, 1)).unflatten(0, (len(part.members), -1))
                for part in self.parts
            ]
        )

    def train(self, mode: bool = True) -> StackedNetwork:
        """Switch to training mode, or to evaluation mode."""
        self.training = mode
        return self

    def eval(self) -> StackedNetwork:
        """Switch to evaluation mode."""
        return self.train(False)

    def program(self, together: bool) -> fx.GraphModule:
        """Return the forward pass in the present mode; see `build_program`."""
        key = self.training, together
        if key not in self._programs:
            self._programs[key] = build_program(
                self._template,
                lambda tensor: self._numbers[id(tensor)],
                training=self.training,
                together=together,
                exact=self.implementation == "batched",
            )
        return self._programs[key]

    def write_back(self, index: int | None = None) -> None:
        """Copy a network's parameters and buffers, or those of all, back into the models."""
        with torch.no_grad():
            for k in range(len(self)) if index is None else (index,):
                tensors = chain(self.layout.views(self.rows[k]), (tensor[k] for tensor in self.constants))
                for to, tensor in zip((*self._trained[k], *self._fixed[k]), tensors, strict=True):
                    to.copy_(tensor)

    def alone(self, index: int) -> Part:
        """Return the part that is one network by itself."""
        return Part(self, range(index, index + 1), together=self.together)

    def to(self, kind: torch.dtype) -> StackedNetwork:
        """Convert all parameters and buffers of floating point to another type."""
        self.rows = self.rows.to(kind)
        self.constants = [tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in self.constants]
        self._divide()
        return self

    def as_implementation(self, name: str) -> StackedNetwork:
        """Return the same networks, with the same tensors, in another of the ``IMPLEMENTATIONS``."""
        other = copy.copy(self)
        other._implement(name)
        return other

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the networks, in this order. Write the others back before, if they are wanted."""
        kept = torch.tensor(indices, device=self.device, dtype=torch.long)
        self.rows = self.rows.index_select(0, kept)
        self.constants = [tensor.index_select(0, kept) for tensor in self.constants]
        for name in ("_models", "_trained", "_fixed", "generators"):
            values = getattr(self, name)
            setattr(self, name, [values[k] for k in indices])
        self._divide()

    def _implement(self, name: str) -> None:
        lookup(IMPLEMENTATIONS, name, "implementation")
        self.implementation = name
        self.together = name != "split"
        self._programs: dict[tuple[bool, bool], fx.GraphModule] = {}
        self._divide()
        self.program(self.together)

    def _divide(self) -> None:
        if self.together:
            self.parts = [Part(self, range(len(self)), together=True)] if len(self) else []
        else:
            self.parts = [Part(self, range(k, k + 1), together=False) for k in range(len(self))]


def unsupported(model: nn.Module, input_shape: tuple[int, ...]) -> str | None:
    """Say in one sentence why a network cannot be stacked; None when it can.

    Layers must be exactly of a class in ``LAYERS`` (a subclass may do something else), or have no tensors of their own;
    whatever else the forward does must treat each sample by itself. That is tried out on random samples, step by step.

    Parameters
    ----------
    model
        On its device; left as it is.
    input_shape
        Of one sample.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    kinds = {p.dtype for p in trained}
    if len(kinds) != 1 or not trained[0].is_floating_point():
        return f"its trainable parameters are of {len(kinds)} types, expected one of floating point"
    if len({p.data_ptr() for p in trained}) < len(trained):
        return "some of its parameters are different but share their memory"
    reason = _reason(model, input_shape, torch.float64)
    return (reason and _reason(model, input_shape, *kinds)) or None


def _reason(model: nn.Module, input_shape: tuple[int, ...], kind: torch.dtype) -> str:
    """Say why a network cannot be stacked in numbers of this type; nothing when it can.

    In single precision a normalisation of few samples may enlarge the rounding without bound; in double precision a
    network fails that asks for single precision.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    device = next(model.parameters()).device
    x = torch.randn(2 * PROBE, *input_shape, generator=torch.Generator().manual_seed(0)).to(device, kind)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            alone = StackedNetwork([model] * 2, input_shape, implementation="split").to(kind)
            together = alone.as_implementation("grouped")
            for mode in (True, False):
                _check_samplewise(alone.train(mode), together.train(mode), x)
            _check_use(alone.train(), trained, x[:PROBE])
    except NotStackableError as error:
        return str(error)
    return ""


class _Recorder(fx.Interpreter):
    """Runs a forward pass and keeps what every step of it returns, by member."""

    def __init__(self, network: StackedNetwork, part: Part) -> None:
        super().__init__(network.program(network.together))
        self.extra_traceback = False
        self.members = part.pass_members()
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            raise NotStackableError(f"{_step(n)} fails for samples of several networks ({first_line(error)})") from None
        if isinstance(value, Tensor):
            self.values[n.name] = to_members(value, self.members) if n.meta.get("by_channel") else value.clone()
        return value


def _check_samplewise(alone: StackedNetwork, together: StackedNetwork, x: Tensor) -> None:
    """Compare two networks, one after another, with both at once."""
    recorders = []
    for network in (alone, together):
        for seed, generator in enumerate(network.generators):
            generator.manual_seed(seed)
        for part, samples in zip(network.parts, x.chunk(len(network.parts)), strict=True):
            recorders.append(_Recorder(network, part))
            with torch.no_grad():
                recorders[-1].run(samples.clone(), recorders[-1].members)
    one, two, both = recorders
    for name, value in one.values.items():
        expected = torch.cat([value, two.values[name]]) if value.dim() else value
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        found = both.values[name]
        if found.shape != expected.shape or not torch.allclose(found, expected, 1e-3, 1e-3 * scale, equal_nan=True):
            node = next(node for node in one.graph.nodes if node.name == name)
            raise NotStackableError(f"{_step(node)} draws random numbers, or mixes the samples of a batch")


def _check_use(network: StackedNetwork, names: Sequence[str], x: Tensor) -> None:
    """Refuse parameters without a gradient: an optimiser leaves them as they are, and decays those whose it is zero."""
    part = network.parts[0]
    members = part.pass_members()
    tensors = members.tensors[: len(names)]
    grads = torch.autograd.grad(network.program(False)(x, members).sum(), tensors, allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        if grad is None:
            raise NotStackableError(f"parameter '{name}' does not take part in the output")


def _step(node: fx.Node) -> str:
    kind = "layer" if node.op == "call_module" else "function"
    return f"{kind} '{getattr(node.target, '__name__', node.target)}'"
