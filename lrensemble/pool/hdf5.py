"""HDF5 as a plain container: written as one image in memory, read as if a stranger had written it.

Writing in memory first means that a full disk is met by an ordinary write of bytes, never inside the HDF5 library.
Reading follows hard links only, refuses data kept elsewhere (external storage, virtual data sets, filters that load
plug-ins), and compares every size with the size of the file before memory is asked for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

from lrensemble.errors import PoolError
from lrensemble.pool.member import canonical_json
from lrensemble.pool.problems import FileDamageError, Problem

__all__ = ["SafeFile", "array_digest", "attributes_digest", "check_inside", "encode", "open_inside", "open_safely"]

# Since HDF5 1.10 the library can keep a checksum of all its own structures (not of variable-length texts, so ours are
# of fixed length). It matters: on older structures one flipped bit can send the library into gigabytes or into a loop.
LIBVER = "v110"
SUPERBLOCKS = (b"\x89HDF\r\n\x1a\n\x02", b"\x89HDF\r\n\x1a\n\x03")
NOT_THE_FILE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE}
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def encode(
    attributes: Mapping[str, str | int | float],
    arrays: Mapping[str, npt.NDArray],
    more: Callable[[h5py.File], None] | None = None,
) -> bytes:
    """Content of an HDF5 file with scalar attributes, their checksum, and contiguous arrays by name.

    `more`, when given, adds what the format does not need to the open file.
    """
    payload = sum(values.nbytes for values in arrays.values())
    options = {"driver": "core", "backing_store": False, "block_size": payload + 65536, "libver": (LIBVER, LIBVER)}
    name = f"image-{secrets.token_hex(8)}"  # the library refuses a name that another thread has open
    with h5py.File(name, "w", **options) as file:
        for key, value in {**attributes, "checksum": attributes_digest(attributes)}.items():
            _create_attribute(file, key, value)
        for key, values in arrays.items():
            file.create_dataset(key, data=values, track_times=False)
        if more is not None:
            more(file)
        file.flush()
        return file.id.get_file_image()


def array_digest(key: str, array: npt.NDArray) -> str:
    """SHA-256 of the name, the type, the shape and the bytes (C order) of an array, hexadecimal."""
    digest = hashlib.sha256(f"{key}|{array.dtype.str}|{','.join(map(str, array.shape))}|".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def attributes_digest(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of attributes by name, hexadecimal."""
    return hashlib.sha256(canonical_json(dict(attributes)).encode()).hexdigest()


def check_inside(path: Path, root: Path) -> None:
    """Raise `FileDamageError` if `path` is a link that leads out of `root`, or is not a regular file.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    """
    where = path.relative_to(root).as_posix()
    if not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise FileDamageError(Problem(where, "", "a file inside the pool", "a link that leads out of it"))
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
        raise FileDamageError(Problem(where, "", "a regular file", "something else"))


@contextmanager
def open_inside(path: Path, root: Path) -> Iterator[BinaryIO]:
    """Open a file of the pool for reading bytes.

    Raises
    ------
    FileDamageError
        If it is not a regular file inside the pool.
    PoolError
        If the system refuses to read it (permissions, too many open files, a failing disk).
    FileNotFoundError
        If it is not there.
    """
    check_inside(path, root)
    try:
        with path.open("rb") as raw:
            yield raw
    except OSError as error:
        if error.errno not in NOT_THE_FILE:
            raise
        reason = os.strerror(error.errno or 0)
        raise PoolError(f"{path}: cannot be read ({reason}): check the disk and its permissions") from error


@contextmanager
def open_safely(path: Path, root: Path) -> Iterator[SafeFile]:
    """Open an HDF5 file of the pool; whatever the library stumbles over becomes one line.

    Raises
    ------
    FileDamageError
        If the file is truncated, altered, or no HDF5 file.
    PoolError, FileNotFoundError
        As in `open_inside`.
    """
    where = path.relative_to(root).as_posix()
    with open_inside(path, root) as raw:
        if raw.read(9) not in SUPERBLOCKS:
            raise FileDamageError(Problem(where, "", "an HDF5 file (superblock version 2 or 3)", "other content"))
        try:
            # Through Python's own handle: no lock is taken (files never change in place), nothing depends on who else
            # has the file open, and the file that was checked is the file that is read.
            with h5py.File(raw, "r") as file:
                yield SafeFile(file, where, os.fstat(raw.fileno()).st_size)
        except FileDamageError:
            raise
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno in NOT_THE_FILE:
                raise
            raise FileDamageError(Problem(where, "", "a readable HDF5 file", _one_line(error))) from None


class SafeFile:
    """An open HDF5 file that is trusted in nothing; every complaint is a `FileDamageError` that names file and key."""

    def __init__(self, file: h5py.File, where: str, size: int) -> None:
        self.where = where
        self._file = file
        self._size = size

    def damage(self, key: str, expected: str, found: str) -> FileDamageError:
        """Return the error that says what is wrong with `key`."""
        return FileDamageError(Problem(self.where, key, expected, found))

    def has_attribute(self, name: str) -> bool:
        """Whether the file has an attribute of this name."""
        return h5py.h5a.exists(self._file.id, name.encode())

    def attribute(self, name: str, kind: type) -> Any:
        """Value of a scalar attribute: a text of fixed length, a 64-bit integer or a 64-bit float."""
        if not self.has_attribute(name):
            raise self.damage(name, f"an attribute of type {kind.__name__}", "none")
        stored = h5py.h5a.open(self._file.id, name.encode())
        form = stored.get_type()
        size = form.get_size()  # looked at before reading: a claimed size costs no memory
        if stored.get_space().get_simple_extent_type() != h5py.h5s.SCALAR or not _is(form, kind) or size > self._size:
            raise self.damage(name, f"one {kind.__name__}", f"{stored.dtype} of shape {stored.shape}")
        value = np.empty((), f"S{size}" if kind is str else "<i8" if kind is int else "<f8")
        stored.read(value, form)
        return value.item().decode("utf-8") if kind is str else value.item()  # what is no UTF-8 raises, as damage

    def dataset(self, key: str) -> h5py.Dataset:
        """Array `key`, not yet read, once it is known to be stored plainly and wholly inside the file."""
        self._refuse_links(key)
        dataset = self._file[key]
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise self.damage(key, "an array", "something else")
        storage = dataset.id.get_create_plist()
        if dataset.is_virtual or storage.get_nfilters() or _is_external(storage):
            raise self.damage(key, "values stored plainly in this file", "virtual, external or filtered storage")
        needed = dataset.dtype.itemsize
        for length in dataset.shape:
            needed *= int(length)  # Python integers: a claimed shape cannot overflow
        end = _end(dataset, storage, needed)
        if needed and (end is None or end > self._size or dataset.id.get_storage_size() != needed):
            found = f"{dataset.id.get_storage_size()} stored bytes in a file of {self._size}"
            raise self.damage(key, f"{needed} bytes in one piece for shape {dataset.shape}", found)
        return dataset

    def read_into(self, key: str, out: npt.NDArray, digest: str) -> None:
        """Fill `out` with the array `key`, which must have the same shape and type, and compare its digest."""
        dataset = self.dataset(key)
        if dataset.shape != out.shape:
            raise self.damage(key, f"shape {out.shape}", f"{dataset.shape}")
        if dataset.dtype != out.dtype:
            raise self.damage(key, f"type {out.dtype}", f"{dataset.dtype}")
        if out.size:
            dataset.read_direct(out)
        found = array_digest(key, out)
        if found != digest:
            raise self.damage(key, f"checksum {digest[:12]}…", f"{found[:12]}… (the values were altered)")

    def _refuse_links(self, key: str) -> None:
        parts = key.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            link = self._file.get(prefix, getlink=True)
            if link is None:
                raise self.damage(prefix, "it to be there", "nothing")
            if not isinstance(link, h5py.HardLink):
                raise self.damage(prefix, "values of this file", "a link to something else")


def _create_attribute(file: h5py.File, name: str, value: str | int | float) -> None:
    if isinstance(value, str):
        text = value.encode()
        file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
    else:
        file.attrs.create(name, value, dtype="<i8" if isinstance(value, int) else "<f8")


def _is(form: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(form, h5py.h5t.TypeStringID) and not form.is_variable_str()
    return form == (h5py.h5t.STD_I64LE if kind is int else h5py.h5t.IEEE_F64LE)


def _is_external(storage: Any) -> bool:
    return storage.get_layout() == h5py.h5d.CONTIGUOUS and storage.get_external_count() > 0


def _end(dataset: h5py.Dataset, storage: Any, needed: int) -> int | None:
    """Byte of the file where the values end; None when they are not in one piece."""
    layout = storage.get_layout()
    if layout == h5py.h5d.COMPACT:  # inside the header of the data set
        return 0
    if layout == h5py.h5d.CONTIGUOUS:
        offset = dataset.id.get_offset()
        return None if offset is None else offset + needed
    if dataset.chunks != dataset.shape or dataset.id.get_num_chunks() != 1:
        return None
    return dataset.id.get_chunk_info(0).byte_offset + needed


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
