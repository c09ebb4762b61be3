"""`StoredLogits`: logits that stay in the files of a pool, and are read member by member."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lrensemble.errors import DamagedError
from lrensemble.memory import empty_array
from lrensemble.pool.hdf5 import Extent, Stamp, file_stamp, open_inside, read_extent
from lrensemble.predictions import ALL, Outputs, Samples

__all__ = ["StoredLogits", "StoredMember", "read_logits"]


@dataclass(frozen=True)
class StoredMember:
    """Where the logits of one member lie in a file that was verified, and the stamp that the file had then."""

    path: Path
    extent: Extent
    stamp: Stamp


def read_logits(path: Path, root: Path, extent: Extent, out: npt.NDArray[np.float32] | None = None) -> StoredMember:
    """Verify the logits that the header of a member's file says to lie at `extent`.

    They are read into `out`, float32 (N, C), or block by block and dropped where it is not given.

    Raises
    ------
    FileDamageError, PoolError, FileNotFoundError
        As `read_extent` and `open_inside`.
    """
    with open_inside(path, root) as raw:
        read_extent(raw, path.relative_to(root).as_posix(), extent, out, finite=True)
        return StoredMember(path, extent, file_stamp(os.fstat(raw.fileno())))


@dataclass(frozen=True, eq=False)
class StoredLogits(Outputs):
    """Logits in the files of a pool.

    Values were verified when this was made. A file that is another one since, or was written to, is refused.

    Attributes
    ----------
    root
        Directory of the pool.
    members
        One a member.
    rows
        Position of each sample in the arrays of the files, shape (N,).
    """

    root: Path
    members: tuple[StoredMember, ...]
    rows: npt.NDArray[np.intp]
    in_memory = False
    are_probabilities = False

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """(M, N, C)."""
        return len(self.members), len(self.rows), self.members[0].extent.shape[1]

    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """Read the logits of one member on some of the samples; only the part of the file from the first to the last.

        Raises
        ------
        DamagedError
            If the file has changed or gone since it was verified.
        PoolError
            If the system refuses to read it.
        """
        rows = self.rows[samples]
        if not rows.size:
            return np.empty((0, self.shape[2]), np.float32)
        first, last = int(rows.min()), int(rows.max())
        block = self._read(self.members[index], first, last + 1 - first)
        in_order = len(rows) == len(block) and bool((np.diff(rows) == 1).all())
        return block if in_order else block[rows - first]

    def whole(self) -> npt.NDArray[np.float32]:
        """Read all members into one array."""
        out = empty_array(self.shape, np.float32, "the logits of all members")
        for index, row in enumerate(out):
            row[...] = self.member(index)
        return out

    def take(self, members: Sequence[int]) -> StoredLogits:
        """Keep these members; nothing is read."""
        return replace(self, members=tuple(self.members[index] for index in members))

    def subset(self, samples: Samples) -> StoredLogits:
        """Keep these samples; nothing is read."""
        return replace(self, rows=self.rows[samples])

    def _read(self, member: StoredMember, first: int, count: int) -> npt.NDArray[np.float32]:
        """Rows `first` … `first` + `count` of the array in the file."""
        block = np.empty((count, member.extent.shape[1]), np.float32)
        changed = f"{member.path}: expected the file that was verified, found %s: ask the pool again"
        try:
            with open_inside(member.path, self.root) as raw:
                if file_stamp(os.fstat(raw.fileno())) != member.stamp:
                    raise DamagedError(changed % "another one")
                raw.seek(member.extent.start + first * block.strides[0])
                if raw.readinto(block.view(np.uint8).data.cast("B")) != block.nbytes:  # type: ignore[attr-defined]
                    raise DamagedError(changed % "a shorter one")
        except FileNotFoundError:
            raise DamagedError(changed % "none") from None
        return block
