"""Data given in Python: arrays, dictionaries of arrays, torch Datasets, and functions that return any of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lrensemble.data.files import raw_from_arrays
from lrensemble.data.prepare import Pair, Raw
from lrensemble.data.splits import PARTS
from lrensemble.errors import DataError

__all__ = ["is_dataset", "raw_from_object"]


def raw_from_object(value: Any) -> Raw:
    """Read what a user hands over.

    Parameters
    ----------
    value
        ``(x, y)``; a torch Dataset of (sample, label); a tuple of two or three of these as (train, test) or
        (train, val, test); a dictionary of arrays named as in an ``.npz`` file; or a dictionary of ``train``, ``val``,
        ``test`` to pairs or Datasets.

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
            return Raw({part: _pair(value[part]) for part in PARTS if part in value}, names)
        return raw_from_arrays({key: _array(array) for key, array in value.items()})
    if isinstance(value, tuple) and len(value) in (2, 3) and all(isinstance(v, tuple) or is_dataset(v) for v in value):
        parts = ("train", "test") if len(value) == 2 else PARTS
        return Raw({part: _pair(v) for part, v in zip(parts, value, strict=True)}, getattr(value[0], "classes", None))
    return Raw({"train": _pair(value)}, getattr(value, "classes", None))


def _pair(value: Any) -> Pair:
    if is_dataset(value):
        return _materialised(value)
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return _array(value[0]), _array(value[1])
    got = f"{type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__
    raise DataError(f"expected (x, y), a dictionary of arrays or a torch Dataset, got {got}")


def is_dataset(value: Any) -> bool:
    """Whether `value` is a Dataset: it has items and a length, and is no plain container, array or class."""
    plain = isinstance(value, (tuple, list, str, bytes, Mapping, type)) or hasattr(value, "__array__")
    return not plain and hasattr(value, "__getitem__") and hasattr(value, "__len__")


def _materialised(dataset: Any) -> Pair:
    """Read every item once; transforms are applied this once."""
    items = [dataset[i] for i in range(len(dataset))]
    if not items or not isinstance(items[0], (tuple, list)) or len(items[0]) < 2:
        raise DataError(f"expected a Dataset of (sample, label), got {len(items)} items of another form")
    return _stack([_array(item[0]) for item in items]), np.array([_array(item[1]) for item in items])


def _stack(samples: list[np.ndarray]) -> np.ndarray:
    for i, sample in enumerate(samples):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"expected samples of one shape, got {samples[0].shape} in sample 0 and {sample.shape} in sample {i}: "
                "resize or crop them alike"
            )
    return np.stack(samples)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, wherever it is
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"expected arrays of numbers, got nested sequences of unequal length ({error})") from None
