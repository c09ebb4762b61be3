"""`in_threads`: apply a compiled kernel, which releases Python's lock, to several parts of a job at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_threads"]

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_threads(function: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
    """Results in the order of the parts, by as many threads as this process may use cores, but none for one part."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if min(cores, len(parts)) < 2:
        yield from map(function, parts)
        return
    with ThreadPoolExecutor(min(cores, len(parts))) as pool:
        yield from pool.map(function, parts)
