"""Samples that are read when they are needed: rows of an array (in memory or mapped from a file), items of a Dataset.

A `StreamedSplit` has the length, labels and sample shape of a `Split`, but no array of samples: `read` gives some of
them, standardised. What it reads is a function of positions and seed alone, also when transforms draw at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lrensemble.data.randomness import seeded
from lrensemble.errors import DataError, first_line
from lrensemble.memory import free_bytes

__all__ = [
    "ArrayItems",
    "DatasetItems",
    "StreamedSplit",
    "as_array",
    "channels_first",
    "is_to_be_streamed",
    "read_item",
]

Rows: TypeAlias = npt.NDArray[np.intp] | slice

CHECKED_VALUES = 1 << 22  # look at about this many values at a time: x may be a mapped file larger than memory
BLOCK_VALUES = 1 << 17  # work on about this many values at a time: float64 copies stay in the cache
COPIES = 3  # of all samples as float32: what reading, splitting and standardising in memory takes at its peak
EXCERPT_VALUES = 1 << 26  # an excerpt holds no more than this
FINGERPRINTED = 64  # items of each part of a Dataset whose contents go into the fingerprint


def is_to_be_streamed(values: int, stream: bool | None) -> bool:
    """Whether a data set of this many numbers is read while training: as asked, or if it does not fit in memory.

    It fits if three copies as float32 do: reading, splitting and standardising it takes as much.
    """
    return COPIES * 4 * values > free_bytes() if stream is None else stream


@dataclass(frozen=True, eq=False)
class ArrayItems:
    """Samples that are the rows of an array.

    Attributes
    ----------
    x
        Numbers of any type, finite, shape (N, features) or (N, channels, height, width); may be a mapped file.
    """

    x: npt.NDArray[Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x.shape[1:]

    def read(self, rows: Rows, seed: int) -> npt.NDArray[Any]:
        """Return samples, shape (B, …); nothing is random here."""
        return self.x[rows]


@dataclass(frozen=True, eq=False)
class DatasetItems:
    """Samples that are the items of a torch Dataset (map-style, of (sample, label)); its transforms run at every read.

    Attributes
    ----------
    dataset
        Anything with a length and items.
    labels
        What the label of every item must be, shape (N,).
    part
        What to call the Dataset in messages.
    item_shape
        Shape of every sample as the Dataset gives it.
    """

    dataset: Any = field(repr=False)
    labels: npt.NDArray[Any] = field(repr=False)
    part: str
    item_shape: tuple[int, ...]

    @classmethod
    def of(cls, dataset: Any, part: str) -> DatasetItems:
        """Look at the first item, and collect all labels: without reading the items, if the Dataset lists its labels.

        Raises
        ------
        DataError
            If it has no items, or the first is no pair (sample, label) or its sample is not of numbers.
        """
        if len(dataset) == 0:
            raise DataError("expected a Dataset of (sample, label), got 0 items")
        with seeded(0):
            first, _ = read_item(dataset, 0, part)
        if first.dtype.kind not in "biuf" or first.ndim not in (1, 2, 3) or first.size == 0:
            raise DataError(
                f"expected {part} samples of numbers, of shape (features,), (height, width), (height, width, channels) "
                f"or (channels, height, width), got {first.dtype} of shape {first.shape}"
            )
        listed = listed_labels(dataset)
        labels = _read_labels(dataset, part) if listed is None else listed
        return cls(dataset, labels, part, first.shape)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, channels first."""
        return channels_first(np.empty((1, *self.item_shape), np.uint8)).shape[1:]

    @property
    def fingerprint(self) -> str | None:
        """What the Dataset says of its contents in its attribute ``fingerprint``, if it has one."""
        text = getattr(self.dataset, "fingerprint", None)
        if text is not None and not isinstance(text, str):
            raise DataError(f"expected a text as fingerprint of the {self.part} Dataset, got {type(text).__name__}")
        return text

    def read(self, rows: Rows, seed: int) -> npt.NDArray[Any]:
        """Return samples, shape (B, …); `seed` decides what transforms draw.

        Raises
        ------
        DataError
            If reading an item fails, or its shape or label is another than it was; the message names the item.
        """
        with seeded(seed):
            return channels_first(np.stack([self._read_one(row) for row in _listed(rows, len(self))]))

    def _read_one(self, row: int) -> npt.NDArray[Any]:
        sample, label = read_item(self.dataset, row, self.part)
        if sample.shape != self.item_shape:
            raise DataError(
                f"expected samples of one shape, got {self.item_shape} in sample 0 of {self.part} and {sample.shape} "
                f"in sample {row}: resize or crop them alike"
            )
        if label.size != 1 or label.item() != self.labels[row]:
            raise DataError(
                f"expected label {self.labels[row]} in sample {row} of {self.part} as when labels were collected, got "
                f"{label}: labels must not change, nor differ from what the Dataset lists"
            )
        return sample


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """N labelled samples that are read when they are needed: the twin of `Split` without its array of samples.

    Attributes
    ----------
    items
        Where samples are read from.
    y
        int64, shape (N,), class indices.
    rows
        Which of the items they are, shape (N,); None: all, in their own order.
    mean, std
        Subtracted and divided by, one value a channel or feature; None leaves samples as they are.
    """

    items: ArrayItems | DatasetItems
    y: npt.NDArray[np.int64] = field(repr=False)
    rows: npt.NDArray[np.intp] | None = field(default=None, repr=False)
    mean: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    std: npt.NDArray[np.float64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (features,) or (channels, height, width)."""
        return self.items.shape

    @property
    def nbytes(self) -> int:
        """Bytes of what is in memory whatever is read: labels."""
        return self.y.nbytes

    @property
    def is_exact(self) -> bool:
        """Whether samples are the same at every read, so that all of them can be measured and hashed."""
        return isinstance(self.items, ArrayItems)

    def read(
        self, positions: Rows, seed: int = 0, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return samples, standardised.

        Parameters
        ----------
        positions
            Which ones, from 0 to N − 1, shape (B,).
        seed
            Decides what random transforms draw.
        out
            Where to write them, shape (B, …).

        Raises
        ------
        DataError
            If a sample cannot be read, or has a value that is not finite; the message names it.
        """
        rows = self._rows(positions)
        raw = self.items.read(rows, seed)
        out = np.empty(raw.shape, np.float32) if out is None else out
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused below
            for block in _blocks(len(raw), self.shape):
                out[block] = self._standardised(raw[block])
        if not np.isfinite(out).all():
            at = int(np.argwhere(~np.isfinite(out))[0, 0])
            row = _listed(rows, len(self.items))[at]
            where = f" of {self.items.part}" if isinstance(self.items, DatasetItems) else ""
            raise DataError(
                f"expected finite values in x, got NaN or infinity in sample {row}{where}: remove or impute them"
            )
        return out

    def read_raw(self) -> Iterator[npt.NDArray[Any]]:
        """Yield all samples in order, some at a time, before standardisation."""
        for block in _blocks(len(self), self.shape):
            yield self.items.read(self._rows(block), 0)

    def read_all(self) -> npt.NDArray[np.float32]:
        """Return all samples, standardised, shape (N, …)."""
        x = np.empty((len(self), *self.shape), np.float32)
        for block in _blocks(len(self), self.shape):
            self.read(block, out=x[block])
        return x

    def excerpt(self, most: int) -> StreamedSplit:
        """Return at most `most` of the samples, evenly spaced, read now."""
        count = min(most, len(self), max(1, EXCERPT_VALUES // math.prod(self.shape)))
        positions = np.linspace(0, len(self) - 1, count).round().astype(np.intp)
        raw = self.items.read(self._rows(positions), 0)
        return replace(self, items=ArrayItems(raw), y=self.y[positions], rows=None)

    def contents(self) -> Iterator[Any]:
        """Yield the bytes that tell these samples from others, labels last.

        Rows of an array: all of them, as `Split` has them. Items of a Dataset: its attribute ``fingerprint``, with mean
        and standard deviation; where it has none, 64 items, evenly spaced, read with random transforms seeded by 0.
        """
        if self.is_exact:
            for block in _blocks(len(self), self.shape):
                yield self.read(block).astype("<f4", copy=False).data
        elif isinstance(self.items, DatasetItems) and self.items.fingerprint is not None:
            yield f"streamed {self.items.fingerprint}\n".encode()
            yield from (np.asarray(value, "<f8").tobytes() for value in (self.mean, self.std) if value is not None)
        else:
            yield b"streamed\n"
            yield from self.excerpt(FINGERPRINTED).contents()
        yield self.y.astype("<i8", copy=False).data

    def subset(self, positions: npt.NDArray[np.intp]) -> StreamedSplit:
        """Return some of the samples, still to be read."""
        rows = positions if self.rows is None else self.rows[positions]
        return replace(self, y=self.y[positions], rows=rows)

    def _rows(self, positions: Rows) -> Rows:
        return positions if self.rows is None else self.rows[positions]

    def _standardised(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.mean is None or self.std is None:
            return raw
        shape = (-1, *[1] * (raw.ndim - 2))
        return (raw - self.mean.reshape(shape)) / self.std.reshape(shape)


def read_item(dataset: Any, row: int, part: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read sample and label of one item; a `DataError` names the item if that fails."""
    try:
        item = dataset[row]
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"sample {row} of {part}: reading it raised {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise DataError(
            f"expected a Dataset of (sample, label), got {len(dataset)} items of another form "
            f"({type(item).__name__} as sample {row} of {part})"
        )
    return as_array(item[0]), as_array(item[1])


def listed_labels(dataset: Any) -> npt.NDArray[Any] | None:
    """Return all labels if a Dataset lists them, without reading its items; None if it does not.

    They are looked for in ``targets``, ``labels``, ``samples`` or ``imgs`` (of torchvision's sets), and in the parts of
    torch's Subset, ConcatDataset and TensorDataset.
    """
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        whole = listed_labels(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices, dtype=np.intp)]
    if isinstance(getattr(dataset, "datasets", None), (list, tuple)):
        parts = [listed_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate(parts)  # type: ignore[arg-type]
    tensors: Any = getattr(dataset, "tensors", ())
    pairs: Any = getattr(dataset, "samples", getattr(dataset, "imgs", None))
    candidates: tuple[Any, ...] = (
        getattr(dataset, "targets", None),
        getattr(dataset, "labels", None),
        tensors[1] if len(tensors) > 1 else None,
        [pair[1] for pair in pairs] if _are_pairs(pairs) else None,
    )
    for labels in candidates:
        if hasattr(labels, "__len__") and len(labels) == len(dataset):
            change = getattr(dataset, "target_transform", None)
            return as_array(labels if change is None else [change(label) for label in labels])
    return None


def _are_pairs(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in values)


def _read_labels(dataset: Any, part: str) -> npt.NDArray[Any]:
    with seeded(0):
        return as_array([read_item(dataset, row, part)[1] for row in range(len(dataset))])


def channels_first(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put channels on axis 1: they are the shorter one of axes 1 and 3, or axis 1 when both are equally long."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] < x.shape[1]:
        return x.transpose(0, 3, 1, 2)
    return x


def as_array(value: Any) -> npt.NDArray[Any]:
    """Return `value` as an array, a torch tensor from wherever it is; `DataError` if it makes none."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # which NumPy does not have
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"expected arrays of numbers, got nested sequences of unequal length ({error})") from None


def _listed(rows: Rows, n: int) -> list[int]:
    return list(range(n)[rows]) if isinstance(rows, slice) else rows.tolist()


def _blocks(n: int, shape: tuple[int, ...]) -> list[slice]:
    rows = max(1, BLOCK_VALUES // math.prod(shape))
    return [slice(start, start + rows) for start in range(0, n, rows)]
