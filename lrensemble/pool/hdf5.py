"""HDF5 as a plain container: written as one image in memory, read as if a stranger had written it.

Writing in memory first means that a full disk is met by an ordinary write of bytes, never inside the HDF5 library.
Reading follows hard links only, refuses data kept elsewhere (external storage, virtual data sets, filters that load
plug-ins), and compares every size with the size of the file before memory is asked for.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

from lrensemble.errors import PoolError
from lrensemble.pool.member import canonical_json
from lrensemble.pool.problems import FileDamageError, Problem

__all__ = [
    "Extent",
    "SafeFile",
    "Stamp",
    "array_digest",
    "attributes_digest",
    "check_inside",
    "encode",
    "file_stamp",
    "open_inside",
    "open_safely",
    "read_extent",
]

Stamp = tuple[int, int, int]

# Since HDF5 1.10 the library can keep a checksum of all its own structures (not of variable-length texts, so ours are
# of fixed length). It matters: on older structures one flipped bit can send the library into gigabytes or into a loop.
LIBVER = "v110"
SUPERBLOCKS = (b"\x89HDF\r\n\x1a\n\x02", b"\x89HDF\r\n\x1a\n\x03")
NOT_THE_FILE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE}
BLOCK_BYTES = 1 << 20  # read, hashed and checked at a time, while they are in the processor's cache
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
    digest = _begun_digest(key, array.dtype.str, array.shape)
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _begun_digest(key: str, dtype: str, shape: tuple[int, ...]) -> Any:
    return hashlib.sha256(f"{key}|{dtype}|{','.join(map(str, shape))}|".encode())


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
            with _opened(raw) as file:
                yield SafeFile(file, raw, where)
        except FileDamageError:
            raise
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno in NOT_THE_FILE:
                raise
            raise FileDamageError(Problem(where, "", "a readable HDF5 file", _one_line(error))) from None


@dataclass(frozen=True)
class Extent:
    """An array in one piece of a file, by which its bytes are read without the HDF5 library.

    Attributes
    ----------
    key
        Its name.
    start
        Byte of the file where the values begin, in C order.
    shape, dtype
        Of the array; the type as in ``numpy.dtype.str``.
    digest
        What `array_digest` must give.
    """

    key: str
    start: int
    shape: tuple[int, ...]
    dtype: str
    digest: str


@contextmanager
def _opened(raw: BinaryIO) -> Iterator[h5py.h5f.FileID]:
    """Open what ``h5py.File(raw)`` opens, without what that class sets up for convenience."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)  # closing leaves nothing of the file open
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, raw)
    file = h5py.h5f.open(repr(raw).encode() + secrets.token_bytes(8).hex().encode(), h5py.h5f.ACC_RDONLY, access)
    try:
        yield file
    finally:
        file.close()


class SafeFile:
    """An open HDF5 file that is trusted in nothing; every complaint is a `FileDamageError` that names file and key."""

    def __init__(self, file: h5py.h5f.FileID, raw: BinaryIO, where: str) -> None:
        self.where = where
        self._file = file
        self._raw = raw
        self._size = os.fstat(raw.fileno()).st_size

    def damage(self, key: str, expected: str, found: str) -> FileDamageError:
        """Return the error that says what is wrong with `key`."""
        return FileDamageError(Problem(self.where, key, expected, found))

    def has_attribute(self, name: str) -> bool:
        """Whether the file has an attribute of this name."""
        return h5py.h5a.exists(self._file, name.encode())

    def attribute(self, name: str, kind: type) -> Any:
        """Value of a scalar attribute: a text of fixed length, a 64-bit integer or a 64-bit float."""
        try:
            stored = h5py.h5a.open(self._file, name.encode())
        except KeyError:
            raise self.damage(name, f"an attribute of type {kind.__name__}", "none") from None
        form = stored.get_type()
        size = form.get_size()  # looked at before reading: a claimed size costs no memory
        if stored.get_storage_size() != size or not _is(form, kind) or size > self._size:
            raise self.damage(name, f"one {kind.__name__}", f"{stored.dtype} of shape {stored.shape}")
        value = np.empty((), f"S{size}" if kind is str else "<i8" if kind is int else "<f8")
        stored.read(value, form)
        return value.item().decode("utf-8") if kind is str else value.item()  # what is no UTF-8 raises, as damage

    def extent(self, key: str, digest: str) -> Extent:
        """Where the values of the array `key` lie, once they are known to be stored plainly and wholly in this file."""
        self._refuse_links(key)
        dataset = h5py.h5o.open(self._file, key.encode())
        space = dataset.get_space() if isinstance(dataset, h5py.h5d.DatasetID) else None
        if space is None or space.get_simple_extent_type() == h5py.h5s.NULL:
            raise self.damage(key, "an array", "something else")
        storage = dataset.get_create_plist()
        if storage.get_nfilters() or _is_elsewhere(storage):
            raise self.damage(key, "values stored plainly in this file", "virtual, external or filtered storage")
        shape, dtype = space.get_simple_extent_dims(), dataset.dtype
        needed = dtype.itemsize * math.prod(map(int, shape))  # Python integers: a claimed shape cannot overflow
        start, stored = _start(dataset, storage) if needed else 0, dataset.get_storage_size()
        if needed and (start is None or start + needed > self._size or stored != needed):
            found = f"{stored} stored bytes in a file of {self._size}"
            raise self.damage(key, f"{needed} bytes in one piece for shape {shape}", found)
        return Extent(key, start or 0, shape, dtype.str, digest)

    def read(self, extent: Extent, out: npt.NDArray, *, finite: bool = False) -> None:
        """Fill `out` with an array of this file and check it; see `read_extent`."""
        read_extent(self._raw, self.where, extent, out, finite=finite)

    def _refuse_links(self, key: str) -> None:
        parts = key.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            if not self._file.links.exists(prefix.encode()):
                raise self.damage(prefix, "it to be there", "nothing")
            if self._file.links.get_info(prefix.encode()).type != h5py.h5l.TYPE_HARD:
                raise self.damage(prefix, "values of this file", "a link to something else")


def read_extent(
    raw: BinaryIO, where: str, extent: Extent, out: npt.NDArray | None = None, *, finite: bool = False
) -> None:
    """Read an array block by block and compare its digest.

    Parameters
    ----------
    raw, where
        The open file, and its name for complaints.
    out
        Filled with the values: C-contiguous, of the extent's shape and type. None: they are checked in little memory.
    finite
        Whether infinite values and NaN are damage.

    Raises
    ------
    FileDamageError
        If the values are not there, or are others, or are not finite.
    """
    size, dtype = math.prod(extent.shape), np.dtype(extent.dtype)
    step = max(1, BLOCK_BYTES // dtype.itemsize)
    values = np.empty(min(step, size), dtype) if out is None else out.reshape(-1)
    digest, sound = _begun_digest(extent.key, extent.dtype, extent.shape), True
    raw.seek(extent.start)
    for start in range(0, size, step):
        block = values[: min(step, size - start)] if out is None else values[start : start + step]
        content = block.view(np.uint8).data
        if raw.readinto(content) != block.nbytes:  # type: ignore[attr-defined]
            raise FileDamageError(Problem(where, extent.key, f"{size} values", "the end of the file"))
        digest.update(content)
        sound = sound and (not finite or bool(np.isfinite(block).all()))
    found = digest.hexdigest()
    if found != extent.digest:
        altered = f"{found[:12]}… (the values were altered)"
        raise FileDamageError(Problem(where, extent.key, f"checksum {extent.digest[:12]}…", altered))
    if not sound:
        raise FileDamageError(Problem(where, extent.key, "finite values", "NaN or infinity"))


def file_stamp(status: os.stat_result) -> Stamp:
    """Return what changes when a file is replaced or written to."""
    return status.st_ino, status.st_size, status.st_mtime_ns


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


def _is_elsewhere(storage: Any) -> bool:
    layout = storage.get_layout()
    return layout == h5py.h5d.VIRTUAL or (layout == h5py.h5d.CONTIGUOUS and storage.get_external_count() > 0)


def _start(dataset: h5py.h5d.DatasetID, storage: Any) -> int | None:
    """Byte of the file where the values begin; None when they are not in one piece."""
    layout = storage.get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        return dataset.get_offset()
    if layout != h5py.h5d.CHUNKED or storage.get_chunk() != dataset.shape or dataset.get_num_chunks() != 1:
        return None
    return dataset.get_chunk_info(0).byte_offset


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
