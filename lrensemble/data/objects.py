"""Data given in Python: arrays, dictionaries of arrays, torch Datasets, and functions that return any of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from lrensemble.data.files import raw_from_arrays
from lrensemble.data.prepare import Pair, Raw
from lrensemble.data.randomness import seeded
from lrensemble.data.splits import PARTS
from lrensemble.data.streams import DatasetItems, as_array, is_to_be_streamed, read_item
from lrensemble.errors import DataError

__all__ = ["is_dataset", "raw_from_object"]


def raw_from_object(value: Any, stream: bool | None = None) -> Raw:
    """Read what a user hands over, or, of Datasets that are to be streamed, their labels.

    Parameters
    ----------
    value
        ``(x, y)``; a torch Dataset of (sample, label); a tuple of two or three of these as (train, test) or
        (train, val, test); a dictionary of arrays named as in an ``.npz`` file; or a dictionary of ``train``, ``val``,
        ``test`` to pairs or Datasets.
    stream
        As for `load_data`.

    Raises
    ------
    DataError
        If it is none of these.
    """
    if isinstance(value, Mapping):
        if "train" in value:
            strange = [key for key in value if key not in (*PARTS, "class_names", "classes")]
            if strange:
                raise DataError(f"expected the parts train, val and test, got '{strange[0]}' beside them: rename it")
            names = value.get("class_names", value.get("classes"))
            return Raw(_pairs({part: value[part] for part in PARTS if part in value}, stream), names)
        return raw_from_arrays({key: as_array(array) for key, array in value.items()})
    if isinstance(value, tuple) and len(value) in (2, 3) and all(isinstance(v, tuple) or is_dataset(v) for v in value):
        parts = ("train", "test") if len(value) == 2 else PARTS
        return Raw(_pairs(dict(zip(parts, value, strict=True)), stream), _class_names(value[0]))
    return Raw(_pairs({"train": value}, stream), _class_names(value))


def _pairs(values: Mapping[str, Any], stream: bool | None) -> dict[str, Pair]:
    lazily = _is_to_be_streamed([value for value in values.values() if is_dataset(value)], stream)
    return {part: _pair(value, part, lazily) for part, value in values.items()}


def _is_to_be_streamed(datasets: Iterable[Any], stream: bool | None) -> bool:
    """Whether items of Datasets are read while training; how large they are, the first of each tells."""
    if stream is not None:
        return stream
    with seeded(0):
        sizes = [len(dataset) * prod(read_item(dataset, 0, "it")[0].shape) for dataset in datasets if len(dataset)]
    return is_to_be_streamed(sum(sizes), stream)


def _class_names(value: Any) -> Any:
    """Names that a Dataset, or the whole that it is a subset of, has for its classes."""
    while not hasattr(value, "classes") and hasattr(value, "dataset") and hasattr(value, "indices"):
        value = value.dataset
    return getattr(value, "classes", None)


def _pair(value: Any, part: str, lazily: bool) -> Pair:
    if is_dataset(value):
        if not lazily:
            return _materialised(value)
        items = DatasetItems.of(value, part)
        return items, items.labels
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return as_array(value[0]), as_array(value[1])
    if hasattr(value, "__iter__") and hasattr(value, "__getitem__") and not hasattr(value, "__len__"):
        raise DataError(
            f"expected a map-style Dataset, with a length and items by number, got {type(value).__name__}, which can "
            "only be gone through: give it __len__ and __getitem__"
        )
    got = f"{type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__
    raise DataError(f"expected (x, y), a dictionary of arrays or a torch Dataset, got {got}")


def is_dataset(value: Any) -> bool:
    """Whether `value` is a Dataset: it has items and a length, and is no plain container, array or class."""
    plain = isinstance(value, (tuple, list, str, bytes, Mapping, type)) or hasattr(value, "__array__")
    return not plain and hasattr(value, "__getitem__") and hasattr(value, "__len__")


def _materialised(dataset: Any) -> Pair:
    """Read every item once; transforms are applied this once, random ones with the same draws every time."""
    with seeded(0):
        items = [read_item(dataset, i, "the Dataset") for i in range(len(dataset))]
    if not items:
        raise DataError("expected a Dataset of (sample, label), got 0 items")
    return _stack([sample for sample, _ in items]), as_array([label for _, label in items])


def _stack(samples: list[np.ndarray]) -> np.ndarray:
    for i, sample in enumerate(samples):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"expected samples of one shape, got {samples[0].shape} in sample 0 and {sample.shape} in sample {i}: "
                "resize or crop them alike"
            )
    return np.stack(samples)
