"""`Problem`: one thing that is wrong with a file of a pool, and the error that carries it."""

from __future__ import annotations

from dataclasses import dataclass

from lrensemble.errors import DamagedError, PoolFormatError

__all__ = ["FileDamageError", "Problem", "UnknownFormatError"]


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file.

    Attributes
    ----------
    file
        Path of the file, relative to the pool.
    key
        Data set, attribute or part of the file; empty for the file as a whole.
    expected, found
        What the format asks for, and what is there.
    action
        What was done about it; empty when nothing.
    """

    file: str
    key: str
    expected: str
    found: str
    action: str = ""

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        done = f" ({self.action})" if self.action else ""
        return f"{place}: expected {self.expected}, found {self.found}{done}"

    def to_dict(self) -> dict[str, str]:
        """JSON-ready form."""
        return {
            "file": self.file,
            "key": self.key,
            "expected": self.expected,
            "found": self.found,
            "action": self.action,
        }


class FileDamageError(DamagedError):
    """A `DamagedError` whose message is a `Problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


class UnknownFormatError(PoolFormatError):
    """A `PoolFormatError` whose message is a `Problem`: a sound file, but not one that this release reads."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem
