"""From samples and labels as they were found to `Splits`: layout, splitting, standardisation, checks of contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lrensemble.data.carve import Size, carve, resolve_sizes
from lrensemble.data.splits import PARTS, AnySplit, Split, Splits
from lrensemble.data.streams import (
    CHECKED_VALUES,
    ArrayItems,
    DatasetItems,
    StreamedSplit,
    channels_first,
    is_to_be_streamed,
)
from lrensemble.errors import DataError

__all__ = ["Raw", "prepare"]

MEASURED = 1024  # items of a Dataset that is not read as a whole, from which mean and standard deviation are measured
KEPT_BITS = 36  # of mean and std: sums that differ in their last bits between processors give the same float32 data

Pair: TypeAlias = tuple[npt.NDArray[Any] | DatasetItems, npt.NDArray[Any]]


@dataclass(frozen=True)
class Raw:
    """A data set as it was read.

    Attributes
    ----------
    parts
        ``"train"`` (needed), and ``"val"``, ``"test"`` where the source has them: pairs (x, y); x is an array, or the
        items of a Dataset that are to be read while training.
    class_names
        Names in the order of integer labels 0, 1, …; None: one name a distinct label.
    """

    parts: Mapping[str, Pair]
    class_names: Sequence[str] | None = None


def prepare(
    raw: Raw,
    name: str,
    sizes: Mapping[str, Size],
    *,
    seed: int = 0,
    augment: str = "none",
    stream: bool | None = None,
) -> Splits:
    """Check, split and standardise.

    Parts that the source has stay what they are (a size takes a stratified sample of them); the others are carved from
    its training set. Mean and standard deviation are those of the training samples; of items of a Dataset, those of up
    to 1,024 training samples, evenly spaced. `stream` is as for `load_data`.

    Raises
    ------
    DataError
        If the contents, or the sizes asked for, do not allow it.
    """
    items = {part: x if isinstance(x, DatasetItems) else _items(part, x) for part, (x, _) in raw.parts.items()}
    labels, class_names = _encode({part: _labels(part, y) for part, (_, y) in raw.parts.items()}, raw.class_names)
    _check_lengths(items, labels)
    chosen = _choose(labels, sizes, seed, class_names)
    found = {
        part: StreamedSplit(items[source], labels[source] if rows is None else labels[source][rows], rows)
        for part, (source, rows) in chosen.items()
    }
    streamed = _is_streamed(found, stream)
    lazy = found if streamed else {part: _gathered(split) for part, split in found.items()}
    mean, std = _mean_and_std(lazy["train"] if lazy["train"].is_exact else lazy["train"].excerpt(MEASURED))
    lazy = {part: replace(split, mean=mean, std=std) for part, split in lazy.items()}
    parts: Mapping[str, AnySplit] = lazy
    if not streamed:
        parts = {part: Split(split.read_all(), split.y) for part, split in lazy.items()}
    return Splits(name, parts["train"], parts["val"], parts["test"], class_names, mean=mean, std=std, augment=augment)


def _is_streamed(parts: Mapping[str, StreamedSplit], stream: bool | None) -> bool:
    if not all(split.is_exact for split in parts.values()):
        return True
    return is_to_be_streamed(sum(len(split) * prod(split.shape) for split in parts.values()), stream)


def _gathered(split: StreamedSplit) -> StreamedSplit:
    """Copy the rows of an array together: what is read in order three times is faster so."""
    rows = slice(None) if split.rows is None else split.rows
    return StreamedSplit(ArrayItems(np.ascontiguousarray(split.items.read(rows, 0))), split.y)


def _items(part: str, values: npt.NDArray[Any]) -> ArrayItems:
    x = np.asarray(values)
    if x.dtype.kind not in "biuf":
        raise DataError(f"expected numbers as {part} samples, got an array of type {x.dtype}")
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise DataError(
            f"expected {part} samples of shape (N, features), (N, height, width), (N, height, width, channels) or "
            f"(N, channels, height, width), got {x.shape}"
        )
    if x.dtype.kind == "f":
        _check_finite(part, x)
    return ArrayItems(channels_first(x))


def _check_finite(part: str, x: npt.NDArray[Any]) -> None:
    """Look at some samples at a time: `x` may be a file larger than memory."""
    rows = max(1, CHECKED_VALUES // prod(x.shape[1:]))
    first: tuple[int, ...] = ()
    count = 0
    for start in range(0, len(x), rows):
        strange = ~np.isfinite(x[start : start + rows])
        if strange.any():
            at = np.argwhere(strange)[0]
            first = first or (start + int(at[0]), *map(int, at[1:]))
            count += int(strange.sum())
    if count:
        raise DataError(
            f"expected finite {part} samples, got {x[first]} in sample {first[0]} ({count} such values in all): "
            "remove or impute them"
        )


def _labels(part: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    y = np.asarray(values)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"expected {part} labels of shape (N,), one a sample, got {y.shape}")
    if y.dtype.kind == "f" and len(y):
        if not np.isfinite(y).all() or (y != np.round(y)).any():
            raise DataError(f"expected whole numbers or names as {part} labels, got fractions, NaN or infinity")
        y = y.astype(np.int64)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "O" and all(isinstance(label, str) for label in y):
        y = y.astype(str)
    if y.dtype.kind not in "biuU":
        raise DataError(f"expected whole numbers or names as {part} labels, got an array of type {y.dtype}")
    return y if y.dtype.kind == "U" else y.astype(np.int64)


def _encode(
    labels: Mapping[str, npt.NDArray[Any]], names: Sequence[str] | None
) -> tuple[dict[str, npt.NDArray[np.int64]], tuple[str, ...]]:
    """Class indices 0…C−1 of every part, and the C names."""
    in_train = np.unique(labels["train"])
    if names is None:
        known, class_names = in_train, tuple(str(label) for label in in_train)
    else:
        class_names = tuple(str(name) for name in names)
        known = np.arange(len(class_names)) if in_train.dtype.kind == "i" else np.array(class_names)
    if len(known) < 2 or len(in_train) < 2:
        raise DataError(f"expected samples of two classes or more, got {len(in_train)}: there is nothing to tell apart")
    if len(set(class_names)) < len(class_names):
        raise DataError("expected class names that all differ, got some twice")
    encoded = {part: _index(part, y, known) for part, y in labels.items()}
    if len(empty := np.setdiff1d(np.arange(len(known)), encoded["train"])):
        raise DataError(
            f"expected training samples of every class, got none of '{class_names[empty[0]]}': drop its name"
        )
    return encoded, class_names


def _index(part: str, y: npt.NDArray[Any], known: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    order = np.argsort(known, kind="stable")
    if (y.dtype.kind == "U") != (known.dtype.kind == "U"):
        raise DataError(f"expected {part} labels of the same kind as the training labels, got numbers beside names")
    at = np.minimum(np.searchsorted(known, y, sorter=order), len(known) - 1)
    index = order[at]
    if (strange := known[index] != y).any():
        raise DataError(
            f"expected {part} labels among the {len(known)} classes {_few(known)}, got {y[strange][0]!s} "
            f"({strange.sum()} such samples)"
        )
    return index.astype(np.int64)


def _few(values: npt.NDArray[Any]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "…", shown[-1]])


def _check_lengths(items: Mapping[str, ArrayItems | DatasetItems], labels: Mapping[str, npt.NDArray[np.int64]]) -> None:
    for part, x in items.items():
        if len(x) != len(labels[part]):
            raise DataError(f"expected one label a {part} sample, got {len(x)} samples and {len(labels[part])} labels")
        if x.shape != (shape := items["train"].shape):
            raise DataError(f"expected {part} samples of shape {shape} as in train, got {x.shape}")


Chosen = dict[str, tuple[str, npt.NDArray[np.intp] | None]]


def _choose(
    labels: Mapping[str, npt.NDArray[np.int64]], sizes: Mapping[str, Size], seed: int, class_names: Sequence[str]
) -> Chosen:
    """For each part: the part of the source it comes from, and which samples of it."""
    chosen: Chosen = {}
    for source, y in labels.items():
        parts = [part for part in PARTS if part == source or (source == "train" and part not in labels)]
        if len(parts) == 1 and sizes[source] is None:
            chosen[source] = (source, None)  # all of it, in its own order
        else:
            counts = resolve_sizes(len(y), {part: sizes[part] for part in parts})
            for part, rows in carve(y, counts, seed, class_names).items():
                chosen[part] = (source, rows)
    return chosen


def _mean_and_std(split: StreamedSplit) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per channel (4 axes) or feature (2 axes), in float64; the std of what never varies is 1."""
    axes = (0, 2, 3) if len(split.shape) == 3 else (0,)
    count = len(split) * prod(split.shape) // split.shape[0]
    lowest, highest, total = _extremes_and_sum(split, axes)
    with np.errstate(over="ignore"):
        mean = np.where(lowest == highest, lowest, _rounded(total / count))
    around = mean.reshape(-1, *[1] * (len(split.shape) - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        variance = sum(((block - around) ** 2).sum(axes) for block in split.read_raw()) / count
    if not np.isfinite(variance).all():
        raise DataError(
            "expected samples whose variance is a finite number, got values that are too large: rescale them"
        )
    return mean, np.where((lowest == highest) | (variance == 0), 1.0, _rounded(np.sqrt(variance)))


def _extremes_and_sum(split: StreamedSplit, axes: tuple[int, ...]) -> tuple[npt.NDArray[Any], ...]:
    lowest, highest, total = [], [], 0.0
    for block in split.read_raw():
        lowest.append(block.min(axes))
        highest.append(block.max(axes))
        with np.errstate(over="ignore"):
            total = total + block.astype(np.float64).sum(axes)
    return np.min(lowest, axis=0), np.max(highest, axis=0), np.asarray(total)


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0**KEPT_BITS), exponent - KEPT_BITS)
