"""`Stream`: samples that are read while a network learns from them, in place of a tensor that holds them all.

It answers what is asked of the tensor ``x`` of `Samples` (``index_select``, ``split``, a subset by index, ``device``),
so that the reference loop and snapshots need not know which of the two they have. An epoch's batches are asked for all
at once, by `Stream.epoch`, so that other processes can read ahead.

What random transforms draw in a batch is decided by the epoch's seed and the number of the batch: not by the number of
processes that read, nor by what else the program draws.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lrensemble.data import AnySplit, Splits, StreamedSplit
from lrensemble.data.splits import PARTS
from lrensemble.errors import DataError, first_line
from lrensemble.training.loop import stable_seed
from lrensemble.training.training import Samples

__all__ = ["Stream", "check_portable", "readers_for", "samples_of", "samples_on"]

MOST_READERS = 8
Key = tuple[npt.NDArray[np.intp], int]  # positions of a batch, and the seed of what transforms draw in it


def samples_of(split: AnySplit, device: torch.device, readers: int = 0) -> Samples:
    """Return samples for training on `device`: there as a whole, or read when they are needed by so many processes.

    Rows of arrays are always read by the process that trains: there is nothing to decode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")  # nothing here writes to it
        y = torch.from_numpy(split.y).to(device)
        if isinstance(split, StreamedSplit):
            return Samples(Stream(split, device, 0 if split.is_exact else readers), y)
        return Samples(torch.from_numpy(split.x).to(device), y)


@contextmanager
def samples_on(device: torch.device, splits: Splits, readers: int = 0) -> Iterator[dict[str, Samples]]:
    """Yield the samples of all parts by name; processes that read them have ended when the block does."""
    data = {part: samples_of(getattr(splits, part), device, readers) for part in ("train", "test")}
    folded = splits.val is splits.train  # then one copy is enough
    data["val"] = data["train"] if folded else samples_of(splits.val, device, readers)
    try:
        yield data
    finally:
        for samples in data.values():
            if isinstance(samples.x, Stream):
                samples.x.close()


def readers_for(device: str, jobs: int) -> int:
    """Return how many processes read for each training when it is not said: none on a CPU, whose cores all train."""
    if torch.device(device).type == "cpu":
        return 0
    return min(MOST_READERS, max(0, (os.cpu_count() or 1) // jobs - 1))


def check_portable(splits: Splits) -> None:
    """Check that Datasets can be sent to other processes; arrays in them are not copied for it.

    Raises
    ------
    DataError
        If one cannot.
    """
    from joblib.externals.loky.backend.reduction import get_loky_pickler

    for part in PARTS:
        split = getattr(splits, part)
        if isinstance(split, StreamedSplit) and not split.is_exact:
            try:
                get_loky_pickler()(_Nowhere(), reducers=dict.fromkeys((np.ndarray, np.memmap), _empty)).dump(
                    split.items
                )
            except Exception as error:
                raise DataError(
                    f"expected a {part} Dataset that can be sent to other processes, got one that cannot be pickled "
                    f"({first_line(error)}): open files and the like at the first access, or train with jobs=1"
                ) from None


def _empty(array: npt.NDArray[Any]) -> tuple[Any, ...]:
    return np.empty, (0,)


class _Nowhere:
    def write(self, content: Any) -> int:
        return len(content)


class Stream:
    """Samples of a `StreamedSplit`, float32, shape (N, …), that arrive on a device batch by batch.

    Attributes
    ----------
    source
        Where they come from.
    device
        Where batches are wanted; memory is pinned on the way to a GPU.
    readers
        Processes that read ahead, started at the first epoch and kept for the next until `close`: so one pass at a
        time; 0 reads in this process when a batch is asked for.
    """

    def __init__(self, source: StreamedSplit, device: torch.device, readers: int = 0) -> None:
        self.source = source
        self.device = device
        self.readers = readers
        self._keys: list[Key] = []
        self._kept: DataLoader[Tensor | str] | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> torch.Size:
        """(N, …), as a tensor has it."""
        return torch.Size((len(self), *self.source.shape))

    def __getitem__(self, rows: Tensor) -> Stream:
        """Return some of the samples, still to be read, in this process."""
        return Stream(self.source.subset(rows.cpu().numpy()), self.device)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Read some samples now; the first of them decides what random transforms draw."""
        positions = index.cpu().numpy()
        return self._arrived(_Batches(self.source)[positions, int(positions[0])])

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """Read all samples in order; random transforms draw the same every time."""
        return self.epoch(torch.arange(len(self)).split(batch_size), draw=0)

    def epoch(self, batches: Sequence[Tensor], draw: int) -> Iterator[Tensor]:
        """Read these batches of positions; `draw` is the epoch's seed."""
        keys = [(batch.cpu().numpy(), stable_seed(draw, f"batch {i}")) for i, batch in enumerate(batches)]
        if self.readers == 0:
            return map(self._arrived, self._loader(keys))
        self._keys[:] = keys
        if self._kept is None:
            self._kept = self._loader(self._keys)
        return map(self._arrived, self._kept)

    def close(self) -> None:
        """End the processes that read.

        They must not be left to the garbage collector: it takes the queues to them apart first, and then waits in vain.
        """
        self._kept = None

    def _loader(self, keys: list[Key]) -> DataLoader[Tensor | str]:
        return DataLoader(
            _Batches(self.source),
            batch_size=None,
            sampler=keys,
            num_workers=self.readers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # of its own: the global one belongs to dropout
            persistent_workers=self.readers > 0,
        )

    def _arrived(self, batch: Tensor | str) -> Tensor:
        if isinstance(batch, str):
            raise DataError(batch)
        return batch.to(self.device, non_blocking=True)


class _Batches(Dataset[Any]):
    """Batches by key. An error comes back as its sentence: raised in a process of the loader, it would gain many."""

    def __init__(self, source: StreamedSplit) -> None:
        self._source = source

    def __getitem__(self, key: Key) -> Tensor | str:
        positions, seed = key
        batch = torch.empty(len(positions), *self._source.shape)  # aligned as other tensors are: sums round alike
        try:
            self._source.read(positions, seed, batch.numpy())
        except DataError as error:
            return str(error)
        return batch


def _as_it_is(batch: Any) -> Any:
    return batch
