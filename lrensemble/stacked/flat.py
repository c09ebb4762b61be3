"""`Layout`: many tensors of one network in one row of numbers, so that whatever treats all of them is one operation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["ALIGNMENT", "Layout"]

ALIGNMENT = 64  # bytes; kernels may round by address, so every tensor starts where an allocation of its own would


class Layout:
    """Where tensors lie in a row, each in its own memory format (a filter may have its channels last).

    Parameters
    ----------
    tensors
        One network's, all of one type.

    Attributes
    ----------
    size
        Numbers in a row, those between the tensors included.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._shapes: list[list[int]] = []  # as they lie in memory
        self._views: list[list[int]] = []  # how to permute them to their shape
        self._pieces: list[int] = []  # lengths of tensors and of the gaps between them
        self._places: list[int] = []  # which of the pieces are tensors
        for tensor in tensors:
            order = _memory_order(tensor)
            self._shapes.append([tensor.shape[axis] for axis in order])
            self._views.append([order.index(axis) for axis in range(tensor.dim())])
            self._places.append(len(self._pieces))
            gap = -tensor.numel() % (ALIGNMENT // tensor.element_size())
            self._pieces += [tensor.numel(), gap] if gap else [tensor.numel()]
        self.size = sum(self._pieces)

    def views(self, rows: Tensor) -> list[Tensor]:
        """Return the tensors in `rows`, of shape (size,) or (K, size): each of its shape, or (K, *shape)."""
        lead = list(rows.shape[:-1])
        pieces = rows.split_with_sizes(self._pieces, -1)
        return [
            _view(pieces[place], lead, shape, axes)
            for place, shape, axes in zip(self._places, self._shapes, self._views, strict=True)
        ]

    def stack(self, networks: Sequence[Sequence[Tensor]], like: Tensor) -> Tensor:
        """Return rows (K, size) with the tensors of K networks, of the type and on the device of `like`."""
        rows = torch.zeros(len(networks), self.size, dtype=like.dtype, device=like.device)
        for row, tensors in zip(rows, networks, strict=True):
            for view, tensor in zip(self.views(row), tensors, strict=True):
                view.copy_(tensor)
        return rows


def _view(piece: Tensor, lead: list[int], shape: list[int], axes: list[int]) -> Tensor:
    view = piece.view(lead + shape)
    if axes == sorted(axes):
        return view
    return view.permute(*range(len(lead)), *(axis + len(lead) for axis in axes))


def _memory_order(tensor: Tensor) -> list[int]:
    """Axes from the slowest to the fastest; those of length 1, whose stride means nothing, after others of the same."""
    strides = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda axis: (-strides[axis], tensor.shape[axis] == 1, axis))
