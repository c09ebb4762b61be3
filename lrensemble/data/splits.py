"""`Splits`: what every network of a pool learns from and is judged on; three labelled sets and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lrensemble.data.streams import CHECKED_VALUES, StreamedSplit
from lrensemble.errors import DataError

__all__ = ["PARTS", "AnySplit", "Split", "Splits", "fingerprint_of"]

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled samples.

    Attributes
    ----------
    x
        float32, C-contiguous, shape (N, features) for a table or (N, channels, height, width) for images; a mapped file
        of this kind stays mapped.
    y
        int64, shape (N,), class indices.

    Raises
    ------
    DataError
        On wrong shapes, no samples, labels that are not integers, or values that are not finite.
    """

    x: npt.NDArray[np.float32] = field(repr=False)
    y: npt.NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        if np.asarray(self.y).dtype.kind not in "iu":
            raise DataError(f"expected whole numbers as labels, got an array of type {np.asarray(self.y).dtype}")
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
            object.__setattr__(self, "x", np.ascontiguousarray(self.x, dtype=np.float32))
        object.__setattr__(self, "y", np.ascontiguousarray(self.y, dtype=np.int64))
        if self.x.ndim < 2 or self.y.shape != self.x.shape[:1] or self.x.size == 0:
            raise DataError(
                f"expected one or more samples x (N, …) with labels y (N,), got x of shape {self.x.shape} "
                f"and y of shape {self.y.shape}"
            )
        flat = self.x.reshape(-1)
        if not all(np.isfinite(flat[at : at + CHECKED_VALUES]).all() for at in range(0, flat.size, CHECKED_VALUES)):
            raise DataError("expected finite values in x, got NaN or infinity: remove or impute them")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (features,) or (channels, height, width)."""
        return self.x.shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes of samples and labels."""
        return self.x.nbytes + self.y.nbytes

    def read(self, positions: npt.NDArray[np.intp] | slice) -> npt.NDArray[np.float32]:
        """Return some of the samples, as `StreamedSplit.read` does."""
        return self.x[positions]

    def contents(self) -> Iterator[Any]:
        """Yield the bytes of samples and labels."""
        yield self.x.astype("<f4", copy=False).data
        yield self.y.astype("<i8", copy=False).data


AnySplit: TypeAlias = Split | StreamedSplit


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """A data set, split and ready to learn from.

    Attributes
    ----------
    name
        For people and folder names; not part of the fingerprint.
    train, val, test
        Networks learn from `train`, ensembles are selected on `val`, reports are made on `test`. Each is a `Split`, or
        a `StreamedSplit`: the same without its array of samples, which are read when they are needed.
    class_names
        One name a class; their number is C.
    fingerprint
        SHA-256 (hex) of contents and split; computed when not given. Of a Dataset that is streamed not all contents can
        be read for it: see `fingerprint_of`.
    mean, std
        What was subtracted and divided by: per channel of images, per feature of tables; None when it is not known.
    augment
        Augmentation that suits the set: a name in ``AUGMENTATIONS``.

    Raises
    ------
    DataError
        If the three sets differ in sample shape, there are fewer than two classes, or a label is out of range.
    """

    name: str
    train: AnySplit
    val: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    fingerprint: str = ""
    mean: npt.NDArray[np.float64] | None = None
    std: npt.NDArray[np.float64] | None = None
    augment: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        if self.n_classes < 2:
            raise DataError(f"expected two classes or more, got {self.n_classes}: there is nothing to tell apart")
        for part in PARTS:
            self._check(part, getattr(self, part))
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint_of(self.train, self.val, self.test, self.class_names))

    def __repr__(self) -> str:
        sizes = "/".join(str(len(getattr(self, part))) for part in PARTS)
        return f"Splits({self.name!r}, {sizes} samples of shape {self.input_shape}, {self.n_classes} classes)"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (features,) or (channels, height, width)."""
        return self.train.shape

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def is_images(self) -> bool:
        """Whether a sample has channels, height and width."""
        return len(self.input_shape) == 3

    @property
    def resident(self) -> bool:
        """Whether all samples are arrays (in memory, or mapped as float32), not read one by one when needed."""
        return all(isinstance(getattr(self, part), Split) for part in PARTS)

    def _check(self, part: str, split: AnySplit) -> None:
        if split.shape != self.input_shape:
            raise DataError(f"expected {part} samples of shape {self.input_shape} as in train, got {split.shape}")
        if split.y.min() < 0 or split.y.max() >= self.n_classes:
            raise DataError(
                f"expected {part} labels in 0…{self.n_classes - 1}, got {split.y.min()} to {split.y.max()}: "
                "name as many classes as there are"
            )


def fingerprint_of(train: AnySplit, val: AnySplit, test: AnySplit, class_names: tuple[str, ...]) -> str:
    """SHA-256 over shapes, bytes of x and y of the three sets, and class names; independent of paths and names.

    Arrays have the same fingerprint whether they are held in memory or streamed. Of each streamed Dataset it covers
    all labels, the length, the shape, and 64 samples, evenly spaced, after standardisation, read with random transforms
    seeded by 0; where the Dataset has an attribute ``fingerprint`` (a text), that, mean and standard deviation stand in
    place of the samples.
    """
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    for part, split in zip(PARTS, (train, val, test), strict=True):
        digest.update(f"\n{part} {(len(split), *split.shape)}\n".encode())
        for content in split.contents():
            digest.update(content)
    return digest.hexdigest()
