"""`Predictions`: what a pool of networks says about one split. All that selection ever sees.

The numbers themselves are `Outputs`: arrays in memory (`ArrayOutputs`), or files of a pool, which may be larger than
memory, that are read member by member. Code that goes through `Predictions.member` works for both alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup
from lrensemble.kernels import kernel
from lrensemble.memory import empty_array

__all__ = [
    "ALL",
    "TINY",
    "ArrayOutputs",
    "Outputs",
    "Predictions",
    "Samples",
    "frozen",
    "log_softmax",
    "names_test",
    "softmax",
]

Samples = slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]  # a range, indices or a mask

ALL = slice(None)
TINY = float(np.finfo(np.float32).tiny)  # smallest probability that a logarithm is taken of
OFF = 1e-3  # rows of probabilities whose sum is further from 1 are refused …
ROUNDING = 1e-6  # … and nearer than this they are left as they are
SECONDS = 1e-9  # that a kernel saves on one number that is picked out of a member
FEW_CLASSES = 48  # up to so many, softmax is several times faster class by class


def log_softmax(logits: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Log-probabilities over the last axis: z − log Σ exp z, with the maximum taken out first."""
    shifted = _shifted(np.asarray(logits), axis=-1)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Probabilities over the last axis: exp z / Σ exp z, with the maximum taken out first.

    A row has the same result whatever rows are beside it.
    """
    z = np.asarray(logits, order="C")
    if z.ndim == 1 or z.shape[-1] > FEW_CLASSES:
        p = _shifted(z, axis=-1)
        np.exp(p, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        return p
    p = _shifted(np.ascontiguousarray(np.moveaxis(z, -1, 0)), axis=0)
    np.exp(p, out=p)
    total = p[0].copy()
    for row in p[1:]:  # in this order for any number of samples, as `sum` does not promise
        total += row
    p /= total
    return np.ascontiguousarray(np.moveaxis(p, 0, -1))


def _shifted(z: npt.NDArray, axis: int) -> npt.NDArray[np.floating]:
    with np.errstate(over="ignore"):  # a difference beyond float32 becomes −inf, of which the exponential is 0
        return z - z.max(axis=axis, keepdims=True)


class Outputs(ABC):
    """Logits or probabilities of M members on N samples and C classes, wherever they are kept; known to be sound.

    Attributes
    ----------
    shape
        (M, N, C).
    in_memory
        Whether all of them are; else each is read when it is asked for.
    are_probabilities
        Rows of non-negative numbers that sum to 1; else logits.
    """

    shape: tuple[int, int, int]
    in_memory: bool
    are_probabilities: bool

    @abstractmethod
    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """Values of one member on some of the samples, shape (n, C)."""

    @abstractmethod
    def whole(self) -> npt.NDArray[np.float32]:
        """Return all values, shape (M, N, C); `PoolError` if there is no room for them."""

    @abstractmethod
    def take(self, members: Sequence[int]) -> Outputs:
        """Keep these members, in this order."""

    @abstractmethod
    def subset(self, samples: Samples) -> Outputs:
        """Keep these samples, in this order."""


@dataclass(frozen=True, eq=False)
class ArrayOutputs(Outputs):
    """Outputs in memory.

    Attributes
    ----------
    values
        float32, shape (M, N, C), C-contiguous; made read-only.
    """

    values: npt.NDArray[np.float32]
    are_probabilities: bool = False
    in_memory = True

    def __post_init__(self) -> None:
        self.values.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """(M, N, C)."""
        return self.values.shape

    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """View or copy of the values of one member."""
        return self.values[index, samples]

    def whole(self) -> npt.NDArray[np.float32]:
        """Return the array itself."""
        return self.values

    def take(self, members: Sequence[int]) -> ArrayOutputs:
        """Copy the values of these members."""
        return ArrayOutputs(self.values[list(members)], self.are_probabilities)

    def subset(self, samples: Samples) -> ArrayOutputs:
        """Copy the values on these samples."""
        rows = np.arange(self.values.shape[1])[samples]
        return ArrayOutputs(np.take(self.values, rows, axis=1), self.are_probabilities)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What M members say about the N labelled samples of one split; arrays are read-only.

    Attributes
    ----------
    ids
        Names of the members, unique, in the order of the first axis of `logits`.
    outputs
        Their logits or probabilities, in memory or on disk.
    labels
        int64, shape (N,), values in 0…C−1.
    split
        ``"val"`` or ``"test"`` (or the name of any further split); see `is_test`.
    fingerprint
        Of the pool the predictions come from; empty when they come from bare arrays.
    families
        The training that each member comes from: its own name, or for a snapshot that of its training's last member.
        Empty: no member is a snapshot.

    Raises
    ------
    InputError
        On wrong shapes, labels out of range, or names that are not unique.

    Notes
    -----
    `logits` and `probabilities` hold all members in memory at once, and raise `PoolError` where they do not fit;
    `true_class`, `predicted` and `correct` hold one number for each member and sample, and read one member at a time;
    `member` and `member_logits` keep nothing.
    """

    ids: tuple[str, ...]
    outputs: Outputs
    labels: npt.NDArray[np.int64]
    split: str = "val"
    fingerprint: str = ""
    families: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_shape(self.ids, self.outputs.shape)
        if len(self.families) not in (0, len(self.ids)):
            raise InputError(f"expected a family for each of the {len(self.ids)} members, got {len(self.families)}")
        _check_labels(self.labels, *self.outputs.shape[1:])
        self.labels.flags.writeable = False

    @classmethod
    def from_arrays(
        cls,
        logits: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        *,
        probabilities: npt.ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        split: str = "val",
        fingerprint: str = "",
        families: Sequence[str] = (),
    ) -> Predictions:
        """Build predictions from the outputs of networks trained anywhere.

        Parameters
        ----------
        logits, probabilities
            Shape (M, N, C); exactly one of the two. Probabilities must be ≥ 0 and sum to 1 over classes (within 0.001);
            rows that are off by more than 1e-6 are normalised, the others kept as they are.
        labels
            Integers, shape (N,).
        ids
            Names of the members; ``m0``, ``m1``, … when not given.
        families
            The training that each member comes from, where some are snapshots.

        Examples
        --------
        >>> p = Predictions.from_arrays(probabilities=[[[0.9, 0.1], [0.3, 0.7]]], labels=[0, 0])
        >>> p.ids, p.predicted.tolist()
        (('m0',), [[0, 1]])
        """
        if (logits is None) == (probabilities is None):
            raise InputError("expected either logits= or probabilities= of shape (M, N, C), got both or neither")
        if labels is None:
            raise InputError("expected labels= of shape (N,), got none")
        what = "logits" if probabilities is None else "probabilities"
        values = _to_float32(logits if probabilities is None else probabilities, what)
        count = values.shape[0] if values.ndim else 0
        names = tuple(map(str, ids)) if ids is not None else tuple(f"m{i}" for i in range(count))
        _check_shape(names, values.shape, what)
        _check_finite(names, values, what)
        if probabilities is not None:
            _normalise(values)
        outputs = ArrayOutputs(values, are_probabilities=probabilities is not None)
        return cls(names, outputs, _to_labels(labels), split, fingerprint, tuple(map(str, families)))

    @property
    def n_members(self) -> int:
        """M, the number of members."""
        return self.outputs.shape[0]

    @property
    def n_samples(self) -> int:
        """N, the number of samples."""
        return self.outputs.shape[1]

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return self.outputs.shape[2]

    @property
    def independent(self) -> list[int]:
        """Positions of the members that are the last of their training; of all where nothing is known of snapshots."""
        if not self.families:
            return list(range(self.n_members))
        return [i for i, (name, family) in enumerate(zip(self.ids, self.families, strict=True)) if name == family]

    @property
    def in_memory(self) -> bool:
        """Whether the outputs of all members are in memory; else each is read when it is asked for."""
        return self.outputs.in_memory

    @property
    def is_test(self) -> bool:
        """Whether the split is test data by its name, ``"test"`` or one that begins so: nothing may be chosen on it."""
        return names_test(self.split)

    @cached_property
    def logits(self) -> npt.NDArray[np.float32]:
        """Logits of all members, float32, shape (M, N, C); log max(p, least normal float32) of given probabilities."""
        whole = self.outputs.whole()
        return frozen(np.log(np.maximum(whole, TINY)) if self.outputs.are_probabilities else whole)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Probabilities of all members, float32, shape (M, N, C): softmax of the logits, or as they were given."""
        if self.outputs.are_probabilities:
            return frozen(self.outputs.whole())
        return self._each(self.member, np.float32, "the probabilities of all members", self.n_classes)

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Predicted class of each member on each sample (first of equals), shape (M, N)."""
        return self._each(self._predicted_by, np.int64, "the predicted classes of all members")

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each member is right on each sample, shape (M, N)."""
        return self._each(lambda j: self._predicted_by(j) == self.labels, np.bool_, "the hits of all members")

    @cached_property
    def true_class(self) -> npt.NDArray[np.float32]:
        """Probability that each member gives to the true class, shape (M, N)."""
        own = np.arange(self.n_samples) * self.n_classes + self.labels  # positions in the flat (N, C)
        out = empty_array((self.n_members, self.n_samples), np.float32, "the true class of all members")
        whole = self._at_hand
        if whole is not None and (fast := kernel("gather", SECONDS * out.size)):
            fast.true_class(whole.reshape(self.n_members, -1), own, self.n_classes, out)
            return frozen(out)
        for j, row in enumerate(out):
            self.member(j).ravel().take(own, out=row, mode="wrap")  # this mode writes to `row` at once
        return frozen(out)

    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """Probabilities of one member on some of the samples, shape (n, C); not kept."""
        if (whole := self.__dict__.get("probabilities")) is not None:
            return whole[index, samples]
        values = self.outputs.member(index, samples)
        return values if self.outputs.are_probabilities else softmax(values)

    def member_logits(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """Logits of one member on some of the samples, shape (n, C); not kept."""
        values = self.outputs.member(index, samples)
        return np.log(np.maximum(values, TINY)) if self.outputs.are_probabilities else values

    def indices(self, ids: Sequence[str]) -> list[int]:
        """Positions of the named members; raises `UnknownNameError` for a name that is not here."""
        position = {name: i for i, name in enumerate(self.ids)}
        return [lookup(position, name, "member") for name in ids]

    def take(self, ids: Sequence[str]) -> Predictions:
        """Predictions of the named members only, in the order given."""
        rows = self.indices(ids)
        families = tuple(self.families[row] for row in rows) if self.families else ()
        return Predictions(tuple(ids), self.outputs.take(rows), self.labels, self.split, self.fingerprint, families)

    def subset(self, samples: Samples) -> Predictions:
        """Predictions on some of the samples only (indices or a mask)."""
        outputs = self.outputs.subset(samples)
        return Predictions(self.ids, outputs, self.labels[samples], self.split, self.fingerprint, self.families)

    @property
    def _at_hand(self) -> npt.NDArray[np.float32] | None:
        """`probabilities`, if nothing need be computed or read for them."""
        if self.in_memory and self.outputs.are_probabilities:
            return self.probabilities
        return self.__dict__.get("probabilities")

    def _predicted_by(self, index: int) -> npt.NDArray[np.int64]:
        return self.outputs.member(index).argmax(axis=-1)

    def _each(self, of: Callable[[int], npt.NDArray], dtype: npt.DTypeLike, what: str, *more: int) -> npt.NDArray:
        """``of(j)`` for each member, stacked; one at a time, so that the result is all that takes memory."""
        out = empty_array((self.n_members, self.n_samples, *more), dtype, what)
        for j, row in enumerate(out):
            row[...] = of(j)
        return frozen(out)


def names_test(split: str) -> bool:
    """Whether this is the name of test data, which nothing may be chosen on: ``test``, ``Test``, ``test2``."""
    return split.strip().lower().startswith("test")


def frozen(array: npt.NDArray) -> npt.NDArray:
    """Return the array, made read-only."""
    array.flags.writeable = False
    return array


def _to_float32(values: npt.ArrayLike | None, what: str) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(values)
        if np.iscomplexobj(array):
            raise TypeError("complex numbers")
        with np.errstate(over="ignore"):  # what overflows is refused as not finite
            return np.array(array, dtype=np.float32, order="C")  # a copy: the caller's stays writeable and unchanged
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor that requires a gradient raises the last
        raise InputError(f"expected {what} as numbers of shape (M, N, C), got something else ({error})") from None


def _normalise(p: npt.NDArray[np.float32]) -> None:
    """Check that these are probabilities, and scale rows whose sum is off by more than rounding."""
    for member in p:
        if member.min() < 0:
            raise InputError("expected probabilities ≥ 0, got negative ones: these look like logits")
        total = member.sum(axis=-1, dtype=np.float64)
        off = np.abs(total - 1)
        if off.max() > OFF:
            raise InputError(
                f"expected probabilities that sum to 1 over the classes, got a sum that is off by {off.max():.3g}: "
                "normalise them, or give them as logits if that is what they are"
            )
        rows = np.flatnonzero(off > ROUNDING)
        member[rows] /= total[rows, None]


def _to_labels(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    raw = np.asarray(labels)
    if raw.dtype.kind not in "iub" and not (raw.dtype.kind == "f" and np.array_equal(raw, np.floor(raw))):
        raise InputError(f"expected labels as integers 0…C−1, got values of type {raw.dtype}")
    return raw.astype(np.int64)


def _check_shape(ids: tuple[str, ...], shape: tuple[int, ...], what: str = "logits") -> None:
    if len(shape) != 3 or 0 in shape:
        raise InputError(f"expected {what} of shape (members, samples, classes), all ≥ 1, got {shape}")
    if shape[2] < 2:
        raise InputError(f"expected at least 2 classes, got {what} of shape {shape}")
    if len(ids) != shape[0]:
        raise InputError(f"expected one name for each of the {shape[0]} members, got {len(ids)}")
    if len(set(ids)) != len(ids):
        raise InputError("expected member names that are unique, got a name twice")


def _check_finite(ids: tuple[str, ...], values: npt.NDArray, what: str) -> None:
    for name, member in zip(ids, values, strict=True):  # one by one: a mask of the whole pool would take memory
        if not np.isfinite(member).all():
            raise InputError(f"expected finite {what}, got NaN or infinity in member '{name}': leave that member out")


def _check_labels(labels: npt.NDArray, n: int, c: int) -> None:
    if labels.shape != (n,):
        raise InputError(f"expected labels of shape ({n},), one for each sample, got {labels.shape}")
    if labels.min() < 0 or labels.max() >= c:
        raise InputError(f"expected labels in 0…{c - 1} ({c} classes), got {labels.min()}…{labels.max()}")
