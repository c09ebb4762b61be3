"""`Part`: predictions on some of the samples, cut from what is known of all of them whenever it is asked for.

Selecting on twenty parts of a pool then takes neither twenty copies of it nor twenty times the softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lrensemble.predictions import ALL, Outputs, Predictions, Samples, frozen

__all__ = ["Part", "part_of"]

Indices = npt.NDArray[np.intp]
T = TypeVar("T")


def part_of(predictions: Predictions, rows: Indices, known: dict[str, Any] | None = None) -> Part:
    """Return what ``predictions.subset(rows)`` does, without a copy of the outputs.

    Parameters
    ----------
    rows
        Indices of samples, rising.
    known
        Filled with what parts ask to be worked out of all samples (see `Part.cut`); give all parts the same one.
    """
    labels, cut = predictions.labels[rows], _Cut(predictions.outputs, rows)
    names = predictions.ids, cut, labels, predictions.split, predictions.fingerprint, predictions.families
    return Part(*names, predictions, rows, {} if known is None else known)


@dataclass(frozen=True, eq=False)
class Part(Predictions):
    """Predictions of `source` on its samples `rows`; what the source has worked out is not worked out again."""

    source: Any = None  # Predictions; with a default, as fields of the parent have one
    rows: Any = None
    known: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)

    def cut(self, name: str, work: Callable[[Predictions], T], cut: Callable[[T, Indices], T]) -> T:
        """``cut(work(source), rows)``: worked out once for all parts that share `known`, and cut once for this one."""
        if name not in self.own:
            if name not in self.known:
                self.known[name] = work(self.source)
            self.own[name] = cut(self.known[name], self.rows)
        return self.own[name]

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Probabilities of all members, (M, n, C)."""
        if not self.in_memory:
            return super().probabilities
        return frozen(np.take(self.source.probabilities, self.rows, axis=1))

    @cached_property
    def true_class(self) -> npt.NDArray[np.float32]:
        """Probability that each member gives to the true class, (M, n)."""
        return frozen(np.take(self.source.true_class, self.rows, axis=1))

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Predicted class of each member on each sample, (M, n)."""
        return frozen(np.take(self.source.predicted, self.rows, axis=1))

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each member is right on each sample, (M, n)."""
        return frozen(np.take(self.source.correct, self.rows, axis=1))

    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """Probabilities of one member on some of the samples."""
        return self.source.member(index, self.rows[samples])


@dataclass(frozen=True, eq=False)
class _Cut(Outputs):
    """Outputs of `source` on the samples `rows`, cut when they are asked for."""

    source: Outputs
    rows: Indices

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        m, _, c = self.source.shape
        return m, len(self.rows), c

    @property
    def in_memory(self) -> bool:  # type: ignore[override]
        return self.source.in_memory

    @property
    def are_probabilities(self) -> bool:  # type: ignore[override]
        return self.source.are_probabilities

    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        return self.source.member(index, self.rows[samples])

    def whole(self) -> npt.NDArray[np.float32]:
        return self.source.subset(self.rows).whole()

    def take(self, members: Sequence[int]) -> Outputs:
        return _Cut(self.source.take(members), self.rows)

    def subset(self, samples: Samples) -> Outputs:
        return _Cut(self.source, self.rows[samples])
