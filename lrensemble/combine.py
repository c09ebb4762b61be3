"""Combination rules: how the probabilities of several members become those of one ensemble.

A rule takes probabilities (K, N, C) and weights (K,) that sum to 1, and gives float64 (N, C) with rows that sum to 1.
With equal weights each is the textbook rule of that name (Kittler et al. 1998); a member alone keeps its predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup
from lrensemble.kernels import kernel

__all__ = ["COMBINERS", "Combiner", "combine", "combine_members", "true_class_of_members"]

TINY = float(np.finfo(np.float32).tiny)  # smallest probability that a logarithm is taken of
TIE = 1e-9  # share of the mean probability in rules that count votes: decides ties, and nothing else
BLOCK = 4_000_000  # values that a rule in need of all members at once holds at a time
AT_ONCE = 1 << 18  # values of the sum that members are added to in turn, so that they stay in the caches
TOGETHER = 4  # members that the kernel adds at a time
SECONDS = 5e-10  # that numpy takes to add one value of a member, more than a kernel does

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Combiner:
    """A rule: ``function(probabilities (K, N, C), weights (K,)) -> (N, C)`` and one line for listings."""

    function: Callable[[Floats, Doubles], Doubles]
    description: str


def combine(probabilities: Floats, weights: npt.ArrayLike | None = None, rule: str = "mean_probability") -> Doubles:
    """Combine the probabilities of K members.

    Parameters
    ----------
    probabilities
        Shape (K, N, C); not altered.
    weights
        Shape (K,), ≥ 0 with a sum > 0; scaled to sum to 1. None: equal weights.
    rule
        A key of `COMBINERS`.

    Returns
    -------
    array
        float64, shape (N, C), rows sum to 1.

    Raises
    ------
    UnknownNameError
        If there is no such rule.
    InputError
        On wrong shapes, values that are no probabilities, or weights that are negative, not finite or all zero.

    Examples
    --------
    >>> members = np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]])
    >>> combine(members).round(3), combine(members, rule="majority").argmax(axis=1)
    (array([[0.567, 0.433]]), array([1]))
    """
    combiner = lookup(COMBINERS, rule, "combination rule")
    p = np.asarray(probabilities)
    if p.ndim != 3 or 0 in p.shape or p.shape[2] < 2:
        raise InputError(f"expected probabilities of shape (members, samples, classes ≥ 2), got {p.shape}")
    if not (p.min() >= 0 and p.max() < 1.001):  # also true of NaN
        raise InputError("expected probabilities in 0…1, got others: pass the softmax of logits")
    w = np.full(len(p), 1 / len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(p),):
        raise InputError(f"expected one weight for each of the {len(p)} members, got weights of shape {w.shape}")
    if not np.isfinite(w).all() or w.min() < 0 or w.sum() == 0:
        raise InputError("expected weights that are finite, ≥ 0 and not all zero, got others")
    used = np.flatnonzero(w)
    if used.size < len(w):
        p, w = p[used], w[used]
    return combiner.function(p, w / w.sum())


def combine_members(members: Any, weights: Doubles, rule: str) -> Doubles:
    """`combine` for members that are read when they are asked for, so that not all need be in memory; not checked.

    Parameters
    ----------
    members
        What an array (K, N, C) of probabilities is to the rules: has a ``shape``, gives members (N, C) one by one when
        iterated over, ``members[:, samples]``, shape (K, n, C), and the same one by one from ``members(samples)``;
        ``in_memory`` says whether it is worth while to ask for few samples at a time.
    weights
        Shape (K,), all > 0.
    rule
        A key of `COMBINERS`.
    """
    return lookup(COMBINERS, rule, "combination rule").function(members, weights / weights.sum())


def true_class_of_members(members: Any, weights: Doubles, rule: str, labels: npt.NDArray[np.integer]) -> Doubles:
    """Return what `combine_members` gives to the true class of each sample, shape (N,), to the last digit.

    Under the mean of probabilities it takes a fraction of the time, as the other classes are only summed.
    """
    if rule != "mean_probability":
        return combine_members(members, weights, rule)[np.arange(len(labels)), labels]
    out = np.empty(len(labels))
    for samples, total in _weighted_sums(members, weights / weights.sum()):
        out[samples] = total[np.arange(len(total)), labels[samples]] / _sums(total)
    return out


def _mean_probability(p: Floats, w: Doubles) -> Doubles:
    return _normalised(_weighted_sum(p, w))


def _mean_logit(p: Floats, w: Doubles) -> Doubles:
    return _exp_normalised(_weighted_sum_of_logs(p, w))


def _product(p: Floats, w: Doubles) -> Doubles:
    return _exp_normalised(len(w) * _weighted_sum_of_logs(p, w))


def _majority(p: Floats, w: Doubles) -> Doubles:
    votes = np.zeros(p.shape[1:])
    samples = np.arange(p.shape[1])
    for member, weight in zip(p, w, strict=True):
        votes[samples, member.argmax(axis=1)] += weight
    return _untied(votes, p, w)


def _borda(p: Floats, w: Doubles) -> Doubles:
    from scipy.stats import rankdata

    points = np.zeros(p.shape[1:])
    for member, weight in zip(p, w, strict=True):
        points += weight * (rankdata(member, axis=1) - 1)  # classes of equal probability share their points
    return _untied(_normalised(points), p, w)


def _median(p: Floats, w: Doubles) -> Doubles:
    out = np.empty(p.shape[1:])
    for block in _blocks(p):
        out[block] = _weighted_median(p[:, block], w)
    silent = out.sum(axis=1) < TINY  # members sure of different classes: the median of every class is 0
    if silent.any():
        out[silent] = _weighted_sum(p[:, silent], w)
    return _normalised(out)


def _max(p: Floats, w: Doubles) -> Doubles:
    out = np.zeros(p.shape[1:])
    for member, weight in zip(p, w, strict=True):
        np.maximum(out, np.multiply(member, weight, dtype=np.float64), out=out)
    return _normalised(out)


def _weighted_sum(p: Floats, w: Doubles) -> Doubles:
    total = np.empty(p.shape[1:])
    for _ in _weighted_sums(p, w, total):
        pass
    return total


def _weighted_sums(p: Floats, w: Doubles, whole: Doubles | None = None) -> Iterator[tuple[slice, Doubles]]:
    """Give samples and their sums over members, part by part: in `whole`, else in memory that the next part takes."""
    k, n, c = p.shape
    step, together = (min(n, max(1, AT_ONCE // c)), TOGETHER) if getattr(p, "in_memory", True) else (n, 1)
    fast = kernel("combine", SECONDS * k * n * c)
    memory, term = np.empty((step if whole is None else 0, c)), np.empty((0 if fast else step, c))
    for start in range(0, n, step):
        samples = slice(start, min(start + step, n))
        part = memory[: samples.stop - start] if whole is None else whole[samples]
        part[:] = 0
        members = iter(_members(p, samples))
        for first in range(0, k, together):
            weights = w[first : first + together]
            some = list(islice(members, len(weights)))
            if fast and all(member.dtype == np.float32 and member.flags.c_contiguous for member in some):
                _add_together(fast, some, weights, part)
                continue
            for member, weight in zip(some, weights, strict=True):
                part += np.multiply(member, weight, out=None if fast else term[: len(part)], dtype=np.float64)
        yield samples, part


def _add_together(fast: ModuleType, members: list[Floats], weights: Doubles, total: Doubles) -> None:
    """Add members to the sum by the kernel, which takes a fixed number of them: some twice, the second time as 0."""
    rows = [member.ravel() for member in members]
    padded = np.zeros(TOGETHER)
    padded[: len(weights)] = weights
    fast.add_weighted(*rows, *rows[-1:] * (TOGETHER - len(rows)), padded, total.ravel())


def _members(p: Floats, samples: slice) -> Iterable[Floats]:
    """Each member on some of the samples."""
    return p[:, samples] if isinstance(p, np.ndarray) else p.members(samples)


def _weighted_sum_of_logs(p: Floats, w: Doubles) -> Doubles:
    total = np.zeros(p.shape[1:])
    for member, weight in zip(p, w, strict=True):
        total += weight * np.log(np.maximum(member, TINY, dtype=np.float64))
    return total


def _weighted_median(p: Floats, w: Doubles) -> Doubles:
    """Middle value over the first axis; half-way between the two middle ones where the weights split evenly."""
    order = np.argsort(p, axis=0, kind="stable")
    values = np.take_along_axis(p, order, axis=0).astype(np.float64)
    reached = np.cumsum(w[order], axis=0)
    reached[-1] = 1.0
    lower = (reached >= 0.5 - 1e-12).argmax(axis=0)
    upper = (reached > 0.5 + 1e-12).argmax(axis=0)
    both = np.take_along_axis(values, np.stack([lower, upper]), axis=0)
    return both.mean(axis=0)


def _untied(shares: Doubles, p: Floats, w: Doubles) -> Doubles:
    return _normalised((1 - TIE) * shares + TIE * _mean_probability(p, w))


def _blocks(p: Floats) -> Iterator[slice]:
    step = max(1, BLOCK // (p.shape[0] * p.shape[2]))
    return (slice(start, start + step) for start in range(0, p.shape[1], step))


def _normalised(rows: Doubles) -> Doubles:
    rows /= _sums(rows)[:, None]  # rows are at the rule's disposal
    return rows


def _sums(rows: Doubles) -> Doubles:
    return np.einsum("nc->n", rows)  # `sum` is slow on few classes


def _exp_normalised(log_rows: Doubles) -> Doubles:
    return _normalised(np.exp(log_rows - log_rows.max(axis=1, keepdims=True)))


COMBINERS: dict[str, Combiner] = {
    "mean_probability": Combiner(_mean_probability, "weighted mean of probabilities (soft vote)"),
    "mean_logit": Combiner(_mean_logit, "softmax of the weighted mean of log-probabilities (geometric mean)"),
    "majority": Combiner(
        _majority, "weighted vote for the predicted class, as vote shares; ties go by mean probability"
    ),
    "borda": Combiner(_borda, "weighted sum of class ranks, as shares of points; ties go by mean probability"),
    "product": Combiner(_product, "product of probabilities, each to the power K × weight"),
    "median": Combiner(_median, "weighted median of probabilities, normalised"),
    "max": Combiner(_max, "highest weighted probability, normalised"),
}
