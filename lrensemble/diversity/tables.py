"""`PairTables`: counts over all pairs of members, from which the diversity of any team follows without the samples."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError

__all__ = ["PairTables"]

Table = npt.NDArray[np.float64]  # (M, M), symmetric, whole numbers
EXACT = 1 << 24  # float32 holds every whole number up to here: below it a product of 0/1 matrices is exact
WIDE = 1 << 16  # labels from here on are codes, not class indices: they are numbered anew before they are counted


class PairTables:
    """Pair counts of M members on N samples; each table is made when it is first asked for, and kept.

    Parameters
    ----------
    predicted
        Predicted labels, integers ≥ 0, shape (M, N).
    labels
        True labels, shape (N,).

    Attributes
    ----------
    right
        Whether a member is right on a sample, bool, shape (M, N).
    n_members, n_samples
        M and N.

    Raises
    ------
    InputError
        On wrong shapes, no sample, or labels that are not integers ≥ 0.
    """

    def __init__(self, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        guessed, true = np.asarray(predicted), np.asarray(labels)
        _check(guessed, true)
        self.right: npt.NDArray[np.bool_] = guessed == true
        self.n_members, self.n_samples = guessed.shape
        if guessed.max() >= WIDE:
            guessed = np.unique(guessed, return_inverse=True)[1].reshape(guessed.shape)
        self._predicted = guessed.astype(np.min_scalar_type(int(guessed.max())))  # narrow: pairs are compared wholesale

    @cached_property
    def both_right(self) -> Table:
        """N¹¹: samples that both members have right."""
        x: npt.NDArray[np.floating] = self.right.astype(np.float32 if self.n_samples <= EXACT else np.float64)
        return (x @ x.T).astype(np.float64)

    @cached_property
    def both_wrong(self) -> Table:
        """N⁰⁰: samples that both members have wrong."""
        n_right = self.n_right
        return self.n_samples - n_right[:, None] - n_right + self.both_right

    @cached_property
    def differ(self) -> Table:
        """N⁰¹ + N¹⁰: samples that one of the two has right and the other wrong."""
        return self.n_samples - self.both_right - self.both_wrong

    @cached_property
    def agree(self) -> Table:
        """Samples on which both members predict the same label, right or wrong."""
        table = np.empty((self.n_members, self.n_members))
        for i, row in enumerate(self._predicted):
            table[i, i:] = table[i:, i] = (self._predicted[i:] == row).sum(axis=1, dtype=np.int64)
        return table

    @cached_property
    def chance(self) -> Table:
        """Σ_c k_ic·k_jc, k_ic = how often member i predicts class c; over N² it is the agreement expected by chance."""
        width = int(self._predicted.max()) + 1
        counts = np.array([np.bincount(row, minlength=width) for row in self._predicted], dtype=np.float64)
        return counts @ counts.T

    @property
    def n_right(self) -> npt.NDArray[np.float64]:
        """Samples that each member has right, shape (M,)."""
        return self.both_right.diagonal()


def _check(predicted: npt.NDArray, labels: npt.NDArray) -> None:
    if predicted.ndim != 2 or 0 in predicted.shape:
        raise InputError(f"expected predicted labels of shape (members, samples), both ≥ 1, got {predicted.shape}")
    if labels.shape != predicted.shape[1:]:
        raise InputError(f"expected labels of shape {predicted.shape[1:]}, one for each sample, got {labels.shape}")
    for what, values in (("predicted labels", predicted), ("labels", labels)):
        if values.dtype.kind not in "iu":
            raise InputError(f"expected {what} as integers, got values of type {values.dtype}")
        if values.min() < 0:
            raise InputError(f"expected {what} ≥ 0, got {values.min()}")
