"""The stacked view in ``pool.h5``: the whole pool as one HDF5 file, for viewers and for other languages."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np

from lrensemble.pool.format import PoolHeader

__all__ = ["write_view"]


def write_view(file: h5py.File, header: PoolHeader, finished: Sequence[str], all_ids: Sequence[str]) -> None:
    """Add ``ids``, ``logits/<split>`` (M, N, C) and ``members/<id>`` to an open ``pool.h5``.

    The values stay in the files of the members: ``logits/<split>`` are virtual data sets over the finished ones (in the
    order of ``ids``), ``members/<id>`` are external links to all. Paths are relative: the directory can be moved. A
    member that has gone since reads as NaN.
    """
    file.create_dataset("ids", data=np.array(finished, dtype=object), dtype=h5py.string_dtype(), shape=(len(finished),))
    for split, labels in header.labels.items() if finished else ():
        shape = (len(labels), len(header.class_names))
        layout = h5py.VirtualLayout((len(finished), *shape), dtype="<f4")
        for row, name in enumerate(finished):
            layout[row] = h5py.VirtualSource(f"members/{name}.h5", f"logits/{split}", shape, dtype="<f4")
        file.create_virtual_dataset(f"logits/{split}", layout, fillvalue=np.nan)
    for name in all_ids:
        file[f"members/{name}"] = h5py.ExternalLink(f"members/{name}.h5", "/")
