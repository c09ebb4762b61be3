"""How many samples go where, and which: sizes from what was asked, and a stratified order to cut them from.

The samples of a set are put into one order in which every stretch holds the classes in their proportions; test,
validation and training set are consecutive stretches of it. So a larger training set only adds samples, and the test
set stays the same whatever the sizes of the others are.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lrensemble.errors import DataError

__all__ = ["Size", "carve", "resolve_sizes", "stratified_order"]

Size: TypeAlias = int | float | None

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
CUTTING_ORDER = ("test", "val", "train")


def resolve_sizes(n: int, asked: Mapping[str, Size]) -> dict[str, int]:
    """Turn asked sizes of parts that share `n` samples into numbers of samples.

    Integers count samples, floats are shares of `n`, None leaves the size open. The open parts share what the others
    leave in the proportion 60 : 20 : 20. Where train and validation share a set (the test set is given), an open
    validation set is 20 % of the set, and an open training set is the rest.

    Raises
    ------
    DataError
        If a size is neither, or together they exceed `n`.

    Examples
    --------
    >>> resolve_sizes(1000, {"train": None, "val": None, "test": None})
    {'train': 600, 'val': 200, 'test': 200}
    >>> resolve_sizes(1000, {"train": 500, "val": None, "test": None})
    {'train': 500, 'val': 250, 'test': 250}
    """
    sizes = {part: _count(part, size, n) for part, size in asked.items() if size is not None}
    if _are_shares_of_all(asked.values()):
        sizes["train"] += n - sum(sizes.values())  # what rounding down lost
    rest = n - sum(sizes.values())
    if rest < 0:
        told = ", ".join(f"{part}_size={size}" for part, size in asked.items() if size is not None)
        raise DataError(f"expected sizes that fit into the {n} samples there are, got {told}")
    if "test" not in asked and "val" in asked and "val" not in sizes:
        sizes["val"] = min(rest, n // 5)
        rest -= sizes["val"]
    still_open = [part for part in asked if part not in sizes]
    for i, part in enumerate(still_open):
        sizes[part] = round(rest * SHARES[part] / sum(SHARES[other] for other in still_open[i:]))
        rest -= sizes[part]
    for part in asked:
        if sizes[part] < 1:
            raise DataError(f"expected at least one sample for {part}, got none of {n}: ask for less elsewhere")
    return {part: sizes[part] for part in asked}


def stratified_order(y: npt.NDArray[np.integer], seed: int) -> npt.NDArray[np.intp]:
    """Put samples in a random order in which every stretch has the classes in proportion.

    Sample number r (from 0) of the shuffled n_c samples of class c stands at (r + ½) / n_c of the way; samples that
    stand at the same place come in random order.

    Parameters
    ----------
    y
        Class of each sample, shape (N,).
    seed
        Of the legacy Mersenne Twister, whose stream is the same on every platform and in every NumPy release.
    """
    shuffled = np.random.RandomState(seed).permutation(len(y))
    place = np.empty(len(y))
    for label in np.unique(y):
        members = shuffled[y[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def carve(
    y: npt.NDArray[np.integer], sizes: Mapping[str, int], seed: int, class_names: Sequence[str]
) -> dict[str, npt.NDArray[np.intp]]:
    """Choose the samples of each part: disjoint, stratified, decided by `seed` alone.

    Raises
    ------
    DataError
        If a part would lack one of the classes that there are samples of.
    """
    order = stratified_order(y, seed)
    present = np.unique(y)
    chosen, start = {}, 0
    for part in CUTTING_ORDER:
        if part in sizes:
            chosen[part] = order[start : start + sizes[part]]
            start += sizes[part]
            _check_classes(part, y, chosen[part], present, class_names)
    return chosen


def _count(part: str, size: Size, n: int) -> int:
    if isinstance(size, numbers.Integral) and not isinstance(size, bool) and size >= 1:
        return int(size)
    if isinstance(size, numbers.Real) and not isinstance(size, numbers.Integral) and 0 < size <= 1:
        return int(size * n + 1e-9)  # rounded down, so that shares of a whole never exceed it
    raise DataError(f"expected {part}_size as a number of samples ≥ 1 or a share above 0 and up to 1.0, got {size!r}")


def _are_shares_of_all(sizes: Collection[Size]) -> bool:
    shares = [float(size) for size in sizes if size is not None and not isinstance(size, numbers.Integral)]
    return len(shares) == len(sizes) and abs(sum(shares) - 1) < 1e-9


def _check_classes(
    part: str,
    y: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.intp],
    present: npt.NDArray[np.integer],
    class_names: Sequence[str],
) -> None:
    missing = np.setdiff1d(present, y[chosen])
    if len(missing) == 0:
        return
    if len(chosen) < len(present):
        raise DataError(
            f"expected {part} to hold each of {len(present)} classes, got {part}_size={len(chosen)}: enlarge it"
        )
    name, count = class_names[missing[0]], int((y == missing[0]).sum())
    raise DataError(
        f"expected enough samples of every class for {part} to hold one, got {count} of class '{name}': "
        f"add samples, drop the class, or enlarge {part}_size"
    )
