"""The exception tree, and the table look-up that every registry shares.

::

    LREnsembleError                 everything a caller may expect; the CLI prints it as one line, exit code 1
    ├── InputError (ValueError)     an argument, file or array is not what was expected
    │   ├── UnknownNameError        a name that is in no table; says the choices and the nearest match
    │   ├── PolicyError             a learning-rate policy that cannot be parsed, resolved or followed
    │   └── DataError               data that cannot be read, split or learned from
    ├── PoolError                   a pool on disk cannot be used as asked
    │   ├── PoolFormatError         not a pool, or a pool of a version that this release does not read
    │   └── DamagedError            a file is truncated, altered or inconsistent
    ├── StoreError                  a policy store cannot be used as asked
    └── TrainingError               training cannot go on (out of memory, a worker lost)

A message is one sentence: what was expected, what came, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

__all__ = [
    "DamagedError",
    "DataError",
    "InputError",
    "LREnsembleError",
    "PolicyError",
    "PoolError",
    "PoolFormatError",
    "StoreError",
    "TrainingError",
    "UnknownNameError",
    "first_line",
    "lookup",
    "nearest",
]

T = TypeVar("T")


class LREnsembleError(Exception):
    """Root of all errors that this package raises on purpose."""


class InputError(LREnsembleError, ValueError):
    """An argument, file or array is not what was expected."""


class UnknownNameError(InputError):
    """A name that is in no table."""


class PolicyError(InputError):
    """A learning-rate policy that cannot be parsed, resolved or followed."""


class DataError(InputError):
    """Data that cannot be read, split or learned from."""


class PoolError(LREnsembleError):
    """A pool on disk cannot be used as asked."""


class PoolFormatError(PoolError):
    """Not a pool, or a pool of a version that this release does not read."""


class DamagedError(PoolError):
    """A file is truncated, altered or inconsistent."""


class StoreError(LREnsembleError):
    """A policy store cannot be used as asked."""


class TrainingError(LREnsembleError):
    """Training cannot go on."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text; the name of its type when it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" :")


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that looks most like `name` (ignoring case), or None when none comes near."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """Return ``table[name]``, or say which names there are.

    Parameters
    ----------
    table
        A registry: name to entry.
    name
        The name asked for.
    kind
        What the table holds, singular, for the message: ``"selector"``.

    Raises
    ------
    UnknownNameError
        If the name is not in the table; the message names the nearest match and all choices.
    """
    if name in table:
        return table[name]
    guess = nearest(name, table)
    hint = f"did you mean '{guess}'? " if guess else ""
    raise UnknownNameError(f"unknown {kind} '{name}': {hint}choose from {', '.join(table)}")
