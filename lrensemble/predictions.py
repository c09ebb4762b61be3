"""`Predictions`: what a pool of networks says about one split. All that selection ever sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup

__all__ = ["Predictions", "log_softmax", "names_test", "softmax"]

TINY = float(np.finfo(np.float32).tiny)  # probabilities below this are this when turned into logits


def log_softmax(logits: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Log-probabilities over the last axis: z − log Σ exp z, with the maximum taken out first."""
    shifted = _shifted(logits)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Probabilities over the last axis: exp z / Σ exp z, with the maximum taken out first."""
    p = _shifted(logits)
    np.exp(p, out=p)
    p /= p.sum(axis=-1, keepdims=True)
    return p


def _shifted(logits: npt.ArrayLike) -> npt.NDArray[np.floating]:
    z = np.asarray(logits)
    with np.errstate(over="ignore"):  # a difference beyond float32 becomes −inf, of which the exponential is 0
        return z - z.max(axis=-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of M members on the N labelled samples of one split; arrays are read-only.

    Attributes
    ----------
    ids
        Names of the members, unique, in the order of the first axis of `logits`.
    logits
        float32, shape (M, N, C).
    labels
        int64, shape (N,), values in 0…C−1.
    split
        ``"val"`` or ``"test"`` (or the name of any further split); see `is_test`.
    fingerprint
        Of the pool the predictions come from; empty when they come from bare arrays.

    Raises
    ------
    InputError
        On wrong shapes, non-finite logits, labels out of range, or names that are not unique.
    """

    ids: tuple[str, ...]
    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    split: str = "val"
    fingerprint: str = ""

    def __post_init__(self) -> None:
        _check_logits(self.ids, self.logits)
        _check_labels(self.labels, *self.logits.shape[1:])
        for array in (self.logits, self.labels):
            array.flags.writeable = False

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
    ) -> Predictions:
        """Build predictions from the outputs of networks trained anywhere.

        Parameters
        ----------
        logits, probabilities
            Shape (M, N, C); exactly one of the two. Probabilities must be ≥ 0 and sum to 1 (within 0.001) over classes.
        labels
            Integers, shape (N,).
        ids
            Names of the members; ``m0``, ``m1``, … when not given.

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
        values = _to_float32(logits, "logits") if logits is not None else _logits_of(probabilities)
        names = tuple(map(str, ids)) if ids is not None else tuple(f"m{i}" for i in range(len(values)))
        return cls(names, values, _to_labels(labels), split, fingerprint)

    @property
    def n_members(self) -> int:
        """M, the number of members."""
        return self.logits.shape[0]

    @property
    def n_samples(self) -> int:
        """N, the number of samples."""
        return self.logits.shape[1]

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return self.logits.shape[2]

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Softmax of the logits, float32, shape (M, N, C)."""
        return _frozen(softmax(self.logits))

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Predicted class of each member on each sample (first of equals), shape (M, N)."""
        return _frozen(self.logits.argmax(axis=-1))

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each member is right on each sample, shape (M, N)."""
        return _frozen(self.predicted == self.labels)

    @cached_property
    def true_class(self) -> npt.NDArray[np.float32]:
        """Probability that each member gives to the true class, shape (M, N)."""
        return _frozen(np.take_along_axis(self.probabilities, self.labels[None, :, None], axis=2)[..., 0])

    @property
    def is_test(self) -> bool:
        """Whether the split is test data by its name, ``"test"`` or one that begins so: nothing may be chosen on it."""
        return names_test(self.split)

    def member(self, index: int) -> npt.NDArray[np.float32]:
        """Probabilities of one member, shape (N, C); not kept, so that a pass over all members takes little memory."""
        whole = self.__dict__.get("probabilities")
        return whole[index] if whole is not None else softmax(self.logits[index])

    def indices(self, ids: Sequence[str]) -> list[int]:
        """Positions of the named members; raises `UnknownNameError` for a name that is not here."""
        position = {name: i for i, name in enumerate(self.ids)}
        return [lookup(position, name, "member") for name in ids]

    def take(self, ids: Sequence[str]) -> Predictions:
        """Predictions of the named members only, in the order given."""
        rows = self.indices(ids)
        return Predictions(tuple(ids), self.logits[rows], self.labels, self.split, self.fingerprint)

    def subset(self, samples: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Predictions:
        """Predictions on some of the samples only (indices or a mask)."""
        return Predictions(self.ids, self.logits[:, samples], self.labels[samples], self.split, self.fingerprint)


def names_test(split: str) -> bool:
    """Whether this is the name of test data, which nothing may be chosen on: ``test``, ``Test``, ``test2``."""
    return split.strip().lower().startswith("test")


def _frozen(array: npt.NDArray) -> npt.NDArray:
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


def _logits_of(probabilities: npt.ArrayLike | None) -> npt.NDArray[np.float32]:
    p = _to_float32(probabilities, "probabilities")
    if p.ndim == 3 and p.size:
        if not np.isfinite(p).all() or p.min() < 0:
            raise InputError(
                "expected probabilities that are finite and ≥ 0, got others: pass logits= if these are logits"
            )
        worst = float(np.abs(p.sum(axis=-1) - 1).max())
        if worst > 1e-3:
            raise InputError(
                f"expected probabilities that sum to 1 over the classes, got a sum that is off by {worst:.3g}: "
                "normalise them, or pass logits= if these are logits"
            )
    return np.log(np.maximum(p, TINY))


def _to_labels(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    raw = np.asarray(labels)
    if raw.dtype.kind not in "iub" and not (raw.dtype.kind == "f" and np.array_equal(raw, np.floor(raw))):
        raise InputError(f"expected labels as integers 0…C−1, got values of type {raw.dtype}")
    return raw.astype(np.int64)


def _check_logits(ids: tuple[str, ...], logits: npt.NDArray) -> None:
    if logits.ndim != 3 or 0 in logits.shape:
        raise InputError(f"expected logits of shape (members, samples, classes), all ≥ 1, got {logits.shape}")
    if logits.shape[2] < 2:
        raise InputError(f"expected at least 2 classes, got logits of shape {logits.shape}")
    if len(ids) != len(logits):
        raise InputError(f"expected one name for each of the {len(logits)} members, got {len(ids)}")
    if len(set(ids)) != len(ids):
        raise InputError("expected member names that are unique, got a name twice")
    for name, member in zip(ids, logits, strict=True):  # one by one: a mask of the whole pool would take memory
        if not np.isfinite(member).all():
            raise InputError(f"expected finite logits, got NaN or infinity in member '{name}': leave that member out")


def _check_labels(labels: npt.NDArray, n: int, c: int) -> None:
    if labels.shape != (n,):
        raise InputError(f"expected labels of shape ({n},), one for each sample, got {labels.shape}")
    if labels.min() < 0 or labels.max() >= c:
        raise InputError(f"expected labels in 0…{c - 1} ({c} classes), got {labels.min()}…{labels.max()}")
