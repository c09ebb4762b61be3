"""From arrays as they were read to `Splits`: layout, labels, splitting, standardisation, and all checks of contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.data.carve import Size, carve, resolve_sizes
from lrensemble.data.splits import PARTS, Split, Splits
from lrensemble.errors import DataError

__all__ = ["Raw", "prepare"]

BLOCK_VALUES = 1 << 17  # standardise about this many values at a time: float64 copies stay in the cache
KEPT_BITS = 36  # of mean and std: sums that differ in their last bits between processors give the same float32 data

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True)
class Raw:
    """A data set as it was read.

    Attributes
    ----------
    parts
        ``"train"`` (needed), and ``"val"``, ``"test"`` where the source has them: pairs (x, y).
    class_names
        Names in the order of integer labels 0, 1, …; None: one name a distinct label.
    """

    parts: Mapping[str, Pair]
    class_names: Sequence[str] | None = None


def prepare(raw: Raw, name: str, sizes: Mapping[str, Size], *, seed: int = 0, augment: str = "none") -> Splits:
    """Check, split and standardise.

    Parts that the source has stay what they are (a size takes a stratified sample of them); the others are carved from
    its training set. Mean and standard deviation are those of the training samples.

    Raises
    ------
    DataError
        If the contents, or the sizes asked for, do not allow it.
    """
    samples = {part: _samples(part, x) for part, (x, _) in raw.parts.items()}
    labels, class_names = _encode({part: _labels(part, y) for part, (_, y) in raw.parts.items()}, raw.class_names)
    _check_lengths(samples, labels)
    chosen = _choose(labels, sizes, seed, class_names)
    x = {part: np.ascontiguousarray(samples[source][rows]) for part, (source, rows) in chosen.items()}
    y = {part: labels[source][rows] for part, (source, rows) in chosen.items()}
    mean, std = _mean_and_std(x["train"])
    train, val, test = (Split(_standardise(x[part], mean, std), y[part]) for part in PARTS)
    return Splits(name, train, val, test, class_names, mean=mean, std=std, augment=augment)


def _samples(part: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = np.asarray(values)
    if x.dtype.kind not in "biuf":
        raise DataError(f"expected numbers as {part} samples, got an array of type {x.dtype}")
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise DataError(
            f"expected {part} samples of shape (N, features), (N, height, width), (N, height, width, channels) or "
            f"(N, channels, height, width), got {x.shape}"
        )
    if x.dtype.kind == "f" and not (finite := np.isfinite(x)).all():
        where = np.argwhere(~finite)[0]
        raise DataError(
            f"expected finite {part} samples, got {x[tuple(where)]} in sample {where[0]} "
            f"({(~finite).sum()} such values in all): remove or impute them"
        )
    return _channels_first(x)


def _channels_first(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put channels on axis 1: they are the shorter one of axes 1 and 3, or axis 1 when both are equally long."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] < x.shape[1]:
        return x.transpose(0, 3, 1, 2)
    return x


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


def _check_lengths(samples: Mapping[str, npt.NDArray[Any]], labels: Mapping[str, npt.NDArray[Any]]) -> None:
    for part, x in samples.items():
        if len(x) != len(labels[part]):
            raise DataError(f"expected one label a {part} sample, got {len(x)} samples and {len(labels[part])} labels")
        if x.shape[1:] != (shape := samples["train"].shape[1:]):
            raise DataError(f"expected {part} samples of shape {shape} as in train, got {x.shape[1:]}")


Chosen = dict[str, tuple[str, npt.NDArray[np.intp] | slice]]


def _choose(
    labels: Mapping[str, npt.NDArray[np.int64]], sizes: Mapping[str, Size], seed: int, class_names: Sequence[str]
) -> Chosen:
    """For each part: the part of the source it comes from, and which samples of it."""
    chosen: Chosen = {}
    for source, y in labels.items():
        parts = [part for part in PARTS if part == source or (source == "train" and part not in labels)]
        if len(parts) == 1 and sizes[source] is None:
            chosen[source] = (source, slice(None))  # all of it, in its own order
        else:
            counts = resolve_sizes(len(y), {part: sizes[part] for part in parts})
            for part, rows in carve(y, counts, seed, class_names).items():
                chosen[part] = (source, rows)
    return chosen


def _mean_and_std(x: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per channel (4 axes) or feature (2 axes), in float64; the std of what never varies is 1."""
    axes = (0, 2, 3) if x.ndim == 4 else (0,)
    count = x.size // x.shape[1]
    lowest, highest = x.min(axes), x.max(axes)
    with np.errstate(over="ignore"):
        mean = sum(block.astype(np.float64).sum(axes) for block in _blocks(x)) / count
    mean = np.where(lowest == highest, lowest, _rounded(mean))
    around = mean.reshape(-1, *[1] * (x.ndim - 2))
    with np.errstate(over="ignore", invalid="ignore"):
        variance = sum(((block - around) ** 2).sum(axes) for block in _blocks(x)) / count
    if not np.isfinite(variance).all():
        raise DataError(
            "expected samples whose variance is a finite number, got values that are too large: rescale them"
        )
    return mean, np.where((lowest == highest) | (variance == 0), 1.0, _rounded(np.sqrt(variance)))


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0**KEPT_BITS), exponent - KEPT_BITS)


def _standardise(
    x: npt.NDArray[Any], mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    shape = (-1, *[1] * (x.ndim - 2))
    out = np.empty(x.shape, dtype=np.float32)
    start = 0
    with np.errstate(over="ignore"):  # what overflows is infinite, and `Split` refuses it
        for block in _blocks(x):
            out[start : start + len(block)] = (block - mean.reshape(shape)) / std.reshape(shape)
            start += len(block)
    return out


def _blocks(x: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    rows = max(1, BLOCK_VALUES // (x.size // len(x)))
    return [x[start : start + rows] for start in range(0, len(x), rows)]
