"""`GraphedStep`: a step that a GPU replays as one launch, instead of hundreds of small ones given out by Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["GraphedStep"]

WARM_UP_CALLS = 3  # libraries choose their kernels and take their memory in these


@dataclass
class _Shape:
    """What is known of inputs of one shape: calls so far, then what was captured."""

    calls: int = 0
    inputs: list[Tensor] = field(default_factory=list)
    graph: torch.cuda.CUDAGraph | None = None
    output: Tensor | None = None


class GraphedStep:
    """Calls a function as it is a few times, and replays a recording of it from then on (CUDA graphs).

    What cannot be recorded, because it needs an answer from the GPU half way, is called as it is for good. Make a new
    one when tensors that the function changes are replaced by others.

    Parameters
    ----------
    function
        Takes tensors on a GPU and gives one; all else that it changes are tensors in place.
    generators
        What it draws random numbers from.
    """

    def __init__(self, function: Callable[..., Tensor], generators: Sequence[torch.Generator]) -> None:
        self.function = function
        self.generators = generators
        self.works = True
        self._shapes: dict[tuple[torch.Size, ...], _Shape] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what ``function(*inputs)`` returns; it is overwritten by the next call."""
        shape = self._shapes.setdefault(tuple(tensor.shape for tensor in inputs), _Shape())
        shape.calls += 1
        if shape.graph is None and self.works and shape.calls > WARM_UP_CALLS:
            self._record(shape, inputs)
        if shape.graph is None or shape.output is None:
            return self._on_side_stream(inputs)
        for own, tensor in zip(shape.inputs, inputs, strict=True):
            own.copy_(tensor)
        shape.graph.replay()
        return shape.output

    def _on_side_stream(self, inputs: Sequence[Tensor]) -> Tensor:
        """Call the function on a stream that is not the default one, as recording asks for."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            output = self.function(*inputs)
        current.wait_stream(side)
        return output

    def _record(self, shape: _Shape, inputs: Sequence[Tensor]) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        own = [tensor.clone() for tensor in inputs]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with torch.cuda.graph(graph):
                    output = self.function(*own)
        except RuntimeError:  # nothing was run: recording only records
            self.works = False
            return
        shape.inputs, shape.graph, shape.output = own, graph, output
