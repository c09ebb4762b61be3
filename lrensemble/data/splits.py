"""`Splits`: what every network of a pool learns from and is judged on; three labelled sets and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lrensemble.errors import DataError

__all__ = ["PARTS", "Split", "Splits", "fingerprint_of"]

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled samples.

    Attributes
    ----------
    x
        float32, C-contiguous, shape (N, features) for a table or (N, channels, height, width) for images.
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
        if not np.isfinite(self.x).all():
            raise DataError("expected finite values in x, got NaN or infinity: remove or impute them")

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """A data set, split and ready to learn from.

    Attributes
    ----------
    name
        For people and folder names; not part of the fingerprint.
    train, val, test
        Networks learn from `train`, ensembles are selected on `val`, reports are made on `test`.
    class_names
        One name a class; their number is C.
    fingerprint
        SHA-256 (hex) of contents and split; computed when not given.
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
    train: Split
    val: Split
    test: Split
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
        return self.train.x.shape[1:]

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def is_images(self) -> bool:
        """Whether a sample has channels, height and width."""
        return len(self.input_shape) == 3

    def _check(self, part: str, split: Split) -> None:
        if split.x.shape[1:] != self.input_shape:
            raise DataError(f"expected {part} samples of shape {self.input_shape} as in train, got {split.x.shape[1:]}")
        if split.y.min() < 0 or split.y.max() >= self.n_classes:
            raise DataError(
                f"expected {part} labels in 0…{self.n_classes - 1}, got {split.y.min()} to {split.y.max()}: "
                "name as many classes as there are"
            )


def fingerprint_of(train: Split, val: Split, test: Split, class_names: tuple[str, ...]) -> str:
    """SHA-256 over shapes, bytes of x and y of the three sets, and class names; independent of paths and names."""
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    for part, split in zip(PARTS, (train, val, test), strict=True):
        digest.update(f"\n{part} {split.x.shape}\n".encode())
        digest.update(split.x.astype("<f4", copy=False).data)
        digest.update(split.y.astype("<i8", copy=False).data)
    return digest.hexdigest()
