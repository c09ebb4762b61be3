"""A network's forward pass, traced once (``torch.fx``), with its layers replaced by their stacked forms.

Whatever else the forward does (additions, activations, pooling, flattening) stays as it is: it treats the K·B samples
of K networks as it would treat those of one. `check_samplewise` finds out whether that is so.
"""

from __future__ import annotations

import copy
import operator
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from lrensemble.errors import InputError, first_line
from lrensemble.stacked.layers import LAYERS, RANDOM, Members, to_channels, to_members

__all__ = ["NotStackableError", "build_program"]

BLOCK = 64  # numbers; whole blocks of vector registers leave no remainder
TRACES = 3  # attempts, before a generator that has moved is blamed on the network

# what gives the same result whether networks are one after another in the batch or side by side in the channels
ANYWHERE: frozenset[Any] = frozenset(
    [
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid),
        *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink),
        *(nn.Identity, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d),
        *(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d, nn.ReflectionPad2d),
        *(operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, torch.add, torch.mul, torch.relu),
        *(torch.sigmoid, torch.tanh, functional.relu, functional.relu_, functional.relu6, functional.leaky_relu),
        *(functional.elu, functional.selu, functional.gelu, functional.silu, functional.mish, functional.tanh),
        *(functional.sigmoid, functional.hardtanh, functional.hardswish, functional.hardsigmoid, functional.softplus),
        *(functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d),
        *("add", "add_", "mul", "mul_", "sub", "relu", "relu_", "sigmoid", "tanh"),
    ]
)
# what rounds a number on a CPU as it does whatever its neighbours are; others may work in blocks with another remainder
EXACT: frozenset[Any] = frozenset(
    [
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Identity, nn.Flatten, nn.Unflatten, nn.MaxPool1d),
        *(nn.MaxPool2d, operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, operator.getitem),
        *(torch.add, torch.mul, torch.relu, torch.flatten, torch.reshape, torch.cat, torch.permute, torch.transpose),
        *(functional.relu, functional.relu_, functional.relu6, functional.leaky_relu, functional.hardtanh, getattr),
        *("add", "add_", "mul", "mul_", "sub", "relu", "relu_", "flatten", "view", "reshape", "size", "permute"),
        *("transpose", "contiguous", "unsqueeze", "squeeze", "dim", "float", "to"),
    ]
)


class NotStackableError(InputError):
    """Says what in a network has no stacked form."""


def build_program(
    model: nn.Module, number: Callable[[Tensor], int], *, training: bool, together: bool, exact: bool
) -> fx.GraphModule:
    """Return the forward pass of K networks like `model` as a module that is called as ``program(x, members)``.

    Parameters
    ----------
    model
        One of them.
    number
        The number in ``members.tensors`` of a parameter or buffer of `model`.
    training
        The mode.
    together
        Whether it is for K ≥ 1 networks at once, with samples by member; else it is for one alone.
    exact
        Whether to let networks take turns in what would round by the networks beside them.

    Raises
    ------
    NotStackableError
        If something in it has no stacked form; the message names it.
    """
    with _mode(model, training=training):
        return _Builder(model, _trace(model), number, together=together, exact=exact).build()


def _trace(model: nn.Module) -> fx.Graph:
    for path, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            raise NotStackableError(f"{_describe(path, module)} has hooks, which stacking would lose")
    for _ in range(TRACES):  # another thread of the program may draw in between; a forward that draws, draws each time
        attributes, generators = _attributes(model), _generators()
        try:
            graph = fx.Tracer().trace(model)
        except Exception as error:
            raise NotStackableError(f"its forward cannot be traced ({first_line(error)})") from None
        if _attributes(model) != attributes:
            break
        if _generators() == generators:
            return graph
    raise NotStackableError("its forward draws random numbers or changes the network: no two calls are alike")


def _attributes(model: nn.Module) -> list[dict[str, str]]:
    """All that a forward pass could leave in the network but tensors; a trace would freeze what depends on it."""
    return [
        {name: repr(value) for name, value in vars(module).items() if not isinstance(value, dict | Tensor | nn.Module)}
        for module in model.modules()
    ]


def _generators() -> list[Any]:
    """Return the states of all that random numbers may be drawn from."""
    return [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()]


class _Builder:
    """Copies a traced graph, with stacked layers, and with changes of layout where they are needed."""

    def __init__(
        self, model: nn.Module, graph: fx.Graph, number: Callable[[Tensor], int], *, together: bool, exact: bool
    ) -> None:
        self.model, self.old, self.number = model, graph, number
        self.together, self.exact = together, exact
        self.modules: dict[str, nn.Module] = {}
        self.new = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.converted: dict[tuple[fx.Node, bool], fx.Node] = {}

    def build(self) -> fx.GraphModule:
        places = [node for node in self.old.nodes if node.op == "placeholder"]
        if len(places) != 1:
            raise NotStackableError(f"its forward takes {len(places)} arguments, expected one")
        self.copies[places[0]] = self.new.placeholder("x")
        self.members = self.new.placeholder("members")
        for node in self.old.nodes:
            if node.op != "placeholder":
                self.copies[node] = self._copy(node)
        return fx.GraphModule(self.modules, self.new)

    def _copy(self, node: fx.Node) -> fx.Node:
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            owner = self.model.get_submodule(path)
            raise NotStackableError(f"{_describe(path, owner)} uses its tensor '{name}' in a way that is not stacked")
        if node.op == "output":
            return self.new.output(self._arguments(node.args, by_channel=False)[0])
        if node.op == "call_module":
            return self._module(node)
        if node.op == "call_function" and node.target in RANDOM:
            first, *more = self._arguments(node.args, by_channel=False)
            args = (first, self.members, *more)
            return self._add(node, "call_function", RANDOM[node.target], args, node.kwargs, False)
        return self._function(node, node.target)

    def _module(self, node: fx.Node) -> fx.Node:
        path = str(node.target)
        module = self.model.get_submodule(path)
        form = LAYERS.get(type(module))
        if form is None:
            if next(module.parameters(), None) is not None or next(module.buffers(), None) is not None:
                raise NotStackableError(f"{_describe(path, module)} has no stacked form")
            module = copy.copy(module)  # in this mode for good
            self.modules[path] = module
            return self._function(node, type(module))
        layer = form.stacked(module, self.number, each=self.exact and not form.exact)
        self.modules[path] = layer
        by_channel = self.together and layer.by_channel and not layer.each
        (x,) = self._arguments((*node.args, *node.kwargs.values()), by_channel=by_channel)
        return self._add(node, "call_module", path, (x, self.members), {}, by_channel)

    def _function(self, node: fx.Node, kind: Any) -> fx.Node:
        """Copy what has no tensors of its own: it sees more samples, or more channels, and is none the wiser."""
        inputs = [self.copies[other] for other in node.all_input_nodes]
        by_channel = kind in ANYWHERE and any(other.meta.get("by_channel") for other in inputs)
        args, kwargs = self._arguments((node.args, node.kwargs), by_channel=by_channel)
        if self.together and self.exact and kind not in EXACT:
            self.modules[node.name] = _Each(self._callable(node), elementwise=kind in ANYWHERE)
            return self._add(node, "call_module", node.name, (self.members, *args), kwargs, False)
        return self._add(node, node.op, node.target, args, kwargs, by_channel)

    def _add(self, node: fx.Node, op: str, target: Any, args: Any, kwargs: Any, by_channel: bool) -> fx.Node:
        new = self.new.create_node(op, target, args, kwargs, node.name)
        new.meta["by_channel"] = by_channel
        return new

    def _callable(self, node: fx.Node) -> Callable[..., Any]:
        if node.op == "call_module":
            return self.modules[str(node.target)]
        if node.op == "call_method":
            return lambda x, *args, **kwargs: getattr(x, str(node.target))(*args, **kwargs)
        return node.target  # type: ignore[return-value]

    def _arguments(self, arguments: Any, *, by_channel: bool) -> Any:
        return fx.node.map_arg(arguments, lambda node: self._in_layout(self.copies[node], by_channel))

    def _in_layout(self, node: fx.Node, by_channel: bool) -> fx.Node:
        if bool(node.meta.get("by_channel")) == by_channel:
            return node
        if (node, by_channel) not in self.converted:
            convert = to_channels if by_channel else to_members
            self.converted[node, by_channel] = self.new.call_function(convert, (node, self.members))
        return self.converted[node, by_channel]


class _Each(nn.Module):
    """Calls a function for one network after another."""

    def __init__(self, function: Callable[..., Any], *, elementwise: bool) -> None:
        super().__init__()
        self.function = (function,)
        self.elementwise = elementwise

    def forward(self, members: Members, *args: Any, **kwargs: Any) -> Any:
        """Return the results, joined."""
        function, count = self.function[0], members.count
        if self.elementwise and all(x.numel() // count % BLOCK == 0 for x in args if isinstance(x, Tensor)):
            return function(*args, **kwargs)

        def of(k: int) -> Any:
            return fx.node.map_aggregate(
                (args, kwargs), lambda x: x.unflatten(0, (count, -1))[k].clone() if isinstance(x, Tensor) else x
            )

        results = [function(*one, **more) for one, more in map(of, range(count))]
        if isinstance(results[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
        return torch.cat(results) if isinstance(results[0], Tensor) else function(*args, **kwargs)


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Switch to a mode; give every module its own back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _describe(path: str, module: nn.Module) -> str:
    return f"layer '{path}' ({type(module).__name__})" if path else f"the network ({type(module).__name__})"
