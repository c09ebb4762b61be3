"""Bring your own predictions: arrays and files (.npy, .npz, .csv, .pt) of networks trained anywhere become a pool."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import secrets
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, PoolError
from lrensemble.pool.member import Member, check_name
from lrensemble.pool.pool import Pool
from lrensemble.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["import_arrays", "load_array", "load_split"]

Source = Any  # an array, a path, a sequence of either, or arrays by name


@dataclass(frozen=True, eq=False)
class _Outputs:
    """What the networks say about one split, as found: arrays (N, C), and names where the source has some."""

    split: str
    arrays: list[npt.NDArray]
    names: list[str] | None


def import_arrays(
    path: str | Path,
    *,
    val_logits: Source,
    test_logits: Source,
    val_labels: npt.ArrayLike | str | Path,
    test_labels: npt.ArrayLike | str | Path,
    names: Sequence[str] | None = None,
    probabilities: bool = False,
    class_names: Sequence[str] | None = None,
    name: str = "imported",
) -> Pool:
    """Make a pool from the outputs of networks that were trained anywhere.

    Parameters
    ----------
    path
        Directory of the new pool; must not exist, or be empty.
    val_logits, test_logits
        Outputs on the two splits: an array (M, N, C); arrays (N, C) by name; a sequence of arrays or files (N, C); one
        file of either shape; a directory of files (N, C); or several file names with commas between them.
    val_labels, test_labels
        Integers in 0…C−1, shape (N,): arrays or files.
    names
        Of the M members. When not given: the keys or file names (without ``_val`` or ``_test``), else ``m0``, ``m1``, …
    probabilities
        The outputs are probabilities; stored as log(max(p, smallest normal float32)).
    class_names
        C names; ``0``, ``1``, … when not given.
    name
        Of the data set.

    Returns
    -------
    Pool
        Its fingerprint is the SHA-256 of all labels and logits.

    Raises
    ------
    InputError
        On files that cannot be read, wrong shapes, values that are not finite, labels out of range, names that are
        unsafe or not unique, or splits that do not have the same members and classes. Nothing is left behind.
    PoolError
        If `path` holds something already, or the disk refuses.

    Examples
    --------
    >>> pool = import_arrays(  # doctest: +SKIP
    ...     "mine", val_logits="val/", test_logits="test/", val_labels="val.csv", test_labels="test.csv"
    ... )
    """
    target = Path(path)
    _refuse_existing(target)
    found = {"val": _outputs(val_logits, "val"), "test": _outputs(test_logits, "test")}
    members = _name_members(found["val"], found["test"], names)
    n_classes = _class_count(members)
    classes = tuple(map(str, range(n_classes))) if class_names is None else tuple(map(str, class_names))
    _check_classes(classes, n_classes)
    labels = {split: _labels(values, split) for split, values in (("val", val_labels), ("test", test_labels))}

    def outputs(member: str) -> dict[str, npt.NDArray[np.float32]]:
        return {
            split: _logits(array, labels[split], f"{split} outputs of '{member}'", member, probabilities)
            for split, array in members[member].items()
        }

    fingerprint = _fingerprint(labels, ((member, outputs(member)) for member in members))
    with _built_beside(target) as folder:
        pool = Pool.create(folder, name=name, fingerprint=fingerprint, class_names=classes, labels=labels)
        for member in members:  # converted once more rather than kept: files larger than memory pass through
            pool.add(Member(member, policy="", model="", config={}, seed=0, status="done", logits=outputs(member)))
        pool.refresh_view()
    return Pool.open(target)


def load_array(path: str | Path) -> npt.NDArray:
    """Read an array of numbers from a file; nothing in the file is ever executed.

    Parameters
    ----------
    path
        ``.npy`` (memory-mapped), ``.npz`` holding one array, ``.csv`` / ``.tsv`` / ``.txt`` (a header line is allowed),
        or ``.pt`` / ``.pth`` holding one tensor.

    Returns
    -------
    array
        Of the shape in the file; a table of one column becomes (N,).

    Raises
    ------
    InputError
        If the file is missing, of another kind, or not made of numbers.
    """
    arrays = _load(Path(path))
    if len(arrays) != 1:
        raise InputError(f"{path}: expected one array, got {len(arrays)} ({', '.join(arrays)}): save it alone")
    return next(iter(arrays.values()))


def load_split(path: str | Path) -> dict[str, npt.NDArray]:
    """Read what networks say about a further split from an ``.npz`` file; nothing in the file is ever executed.

    Returns
    -------
    dict
        The arrays by name, as ``evaluate(shifts=)`` takes them: numbers, and texts (the names of the members).

    Raises
    ------
    InputError
        If the file is missing, of another kind, or holds other values.
    """
    file = Path(path)
    if file.suffix.lower() != ".npz":
        raise InputError(f"{file}: expected an .npz file with arrays by name, got '{file.name}'")
    return _read(file, _npz_arrays, "biufU")


def _load(path: Path) -> dict[str, npt.NDArray]:
    """Arrays of a file by name; one array is named like the file."""
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path}: expected a file of type {', '.join(READERS)}, got '{path.suffix}'")
    return _read(path, read, "biuf")


def _read(path: Path, read: Callable[[Path], dict[str, npt.NDArray]], kinds: str) -> dict[str, npt.NDArray]:
    """Read arrays, of NumPy's `kinds` of values only."""
    try:
        arrays = read(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: expected a file of numbers, got none to read ({error.strerror or error})") from None
    except Exception as error:  # each reader has its own kinds; all of them mean this
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: expected an array of numbers, got something else ({reason:.160})") from None
    for array in arrays.values():
        if array.dtype.kind not in kinds:
            raise InputError(f"{path}: expected numbers, got values of type {array.dtype}")
    return arrays


def _load_npy(path: Path) -> dict[str, npt.NDArray]:
    if path.stat().st_size == 0:
        raise InputError(f"{path}: expected an array, got an empty file")
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}  # mapping checks the size of the file first


def _load_npz(path: Path) -> dict[str, npt.NDArray]:
    arrays = _npz_arrays(path)
    return {path.stem: next(iter(arrays.values()))} if len(arrays) == 1 else arrays


def _npz_arrays(path: Path) -> dict[str, npt.NDArray]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            _check_npy_size(archive, entry, path)
    with np.load(path, allow_pickle=False) as content:
        arrays = {key: content[key] for key in content.files}
    if not arrays:
        raise InputError(f"{path}: expected an array, got an archive without any")
    return arrays


def _check_npy_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an entry whose header claims more than the entry holds, before memory is asked for."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise InputError(f"{path}: expected numbers in '{entry.filename}', got Python objects: save a numeric array")
    size = dtype.itemsize
    for length in shape:
        size *= int(length)
    if size > entry.file_size:
        raise InputError(
            f"{path}: expected {size} bytes in '{entry.filename}' as its header says, got {entry.file_size}"
        )


def _load_table(path: Path) -> dict[str, npt.NDArray]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        delimiter = next((mark for mark in ",;\t" if mark in first), None)
        header = not all(map(_is_number, next(csv.reader([first.strip()], delimiter=delimiter or " "), [])))
        if not header:
            file.seek(0)
        lines = [line for line in file if line.strip()]
    if not lines:
        raise InputError(f"{path}: expected a table of numbers, got an empty file")
    table = np.loadtxt(lines, delimiter=delimiter, ndmin=2, encoding="utf-8", comments=None)
    return {path.stem: table[:, 0] if table.shape[1] == 1 else table}


def _load_torch(path: Path) -> dict[str, npt.NDArray]:
    import torch

    value = torch.load(path, map_location="cpu", weights_only=True)
    tensors = value if isinstance(value, dict) else {path.stem: value}
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise InputError(f"{path}: expected a tensor, or tensors by name, got {type(value).__name__}")
    return {str(key): _plain_tensor(tensor) for key, tensor in tensors.items()}


def _plain_tensor(tensor: Any) -> npt.NDArray:
    plain = tensor.detach()
    return (plain.float() if plain.is_floating_point() and plain.element_size() < 4 else plain).numpy()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _outputs(source: Source, split: str) -> _Outputs:
    if isinstance(source, (str, Path)):
        return _outputs_of_files(_files(str(source), split), split)
    if isinstance(source, Mapping):
        return _Outputs(split, [np.asarray(source[key]) for key in source], [str(key) for key in source])
    if isinstance(source, Sequence) and source and all(isinstance(item, (str, Path)) for item in source):
        return _outputs_of_files([Path(item) for item in source], split)
    if isinstance(source, Sequence) and all(np.ndim(item) == 2 for item in source):
        return _Outputs(split, [np.asarray(item) for item in source], None)
    return _Outputs(split, *_unstack(np.asarray(source), None, f"{split} outputs"))


def _outputs_of_files(files: Sequence[Path], split: str) -> _Outputs:
    arrays: list[npt.NDArray] = []
    names: list[str] = []
    for file in files:
        for key, array in _load(file).items():
            if array.ndim == 3 and len(files) > 1:
                raise InputError(f"{file}: expected the outputs of one member, shape (N, C), got {array.shape}")
            if array.ndim == 3:
                return _Outputs(split, *_unstack(array, None, str(file)))
            arrays += _unstack(array, None, str(file))[0]
            names.append(re.sub(rf"[._-]{split}$", "", key))
    return _Outputs(split, arrays, names)


def _unstack(array: npt.NDArray, names: list[str] | None, what: str) -> tuple[list[npt.NDArray], list[str] | None]:
    if array.ndim == 2:
        return [array], names
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"{what}: expected shape (members, samples, classes) or (samples, classes), got {array.shape}")
    return list(array), names


def _files(text: str, split: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS and file.name[0] != ".")
        if not files:
            raise InputError(
                f"{path}: expected files of type {', '.join(READERS)} with the {split} outputs, found none"
            )
        return files
    return [path] if path.exists() or "," not in text else [Path(part.strip()) for part in text.split(",")]


def _name_members(val: _Outputs, test: _Outputs, names: Sequence[str] | None) -> dict[str, dict[str, npt.NDArray]]:
    """Arrays of the two splits by member; matched by name where both splits have names, else by position."""
    if len(val.arrays) != len(test.arrays):
        raise InputError(
            f"expected the same members in both splits, got {len(val.arrays)} in val and {len(test.arrays)} in test"
        )
    order = list(range(len(val.arrays)))
    if names is None and val.names is not None and test.names is not None:
        if Counter(val.names) != Counter(test.names):
            odd = sorted(set(val.names) ^ set(test.names))[:1] or ["a name twice"]
            raise InputError(f"expected the same member names in both splits, got '{odd[0]}' in one only: pass names=")
        order = [test.names.index(member) for member in val.names]
    wanted = [str(n) for n in names] if names is not None else val.names or test.names
    wanted = wanted or [f"m{i}" for i in range(len(val.arrays))]
    _check_names(wanted, len(val.arrays))
    return {
        member: {"val": val.arrays[i], "test": test.arrays[j]}
        for i, (member, j) in enumerate(zip(wanted, order, strict=True))
    }


def _check_names(names: Sequence[str], count: int) -> None:
    if len(names) != count or not count:
        raise InputError(f"expected one name for each of the {count} members, got {len(names)}")
    for member in names:
        check_name(member)
    repeated = [member for member, times in Counter(member.lower() for member in names).items() if times > 1]
    if repeated:  # whatever their case: they become file names
        raise InputError(
            f"expected member names that are unique, got '{repeated[0]}' {names.count(repeated[0]) or 2} times"
        )


def _check_classes(classes: Sequence[str], count: int) -> None:
    if len(classes) != count:
        raise InputError(f"expected {count} class names, one for each column of the outputs, got {len(classes)}")
    if not all(name.strip() for name in classes):
        raise InputError("expected class names that are not empty, got an empty one")
    repeated = [name for name, times in Counter(classes).items() if times > 1]
    if repeated:
        raise InputError(f"expected class names that are unique, got '{repeated[0]}' more than once")


def _class_count(members: Mapping[str, Mapping[str, npt.NDArray]]) -> int:
    shapes = {(member, split): array.shape for member, splits in members.items() for split, array in splits.items()}
    (first, _), shape = next(iter(shapes.items()))
    if len(shape) != 2 or shape[1] < 2:
        raise InputError(f"val outputs of '{first}': expected shape (samples, classes ≥ 2), got {shape}")
    for (member, split), other in shapes.items():
        if len(other) != 2 or other[1] != shape[1]:
            raise InputError(
                f"{split} outputs of '{member}': expected shape (samples, {shape[1]}) as in '{first}', got {other}"
            )
    return shape[1]


def _labels(source: npt.ArrayLike | str | Path, split: str) -> npt.NDArray[np.int64]:
    array = load_array(source) if isinstance(source, (str, Path)) else np.asarray(source)
    whole = array.dtype.kind in "biu" or (array.dtype.kind == "f" and np.array_equal(array, np.floor(array)))
    if array.ndim != 1 or not array.size or not whole or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise InputError(
            f"{split} labels: expected integers of shape (samples,), got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)


def _logits(
    array: npt.NDArray, labels: npt.NDArray[np.int64], what: str, member: str, probabilities: bool
) -> npt.NDArray[np.float32]:
    if len(array) != len(labels):
        raise InputError(f"{what}: expected {len(labels)} samples as the labels have, got shape {array.shape}")
    form = "probabilities" if probabilities else "logits"
    try:
        with np.errstate(over="ignore"):  # what overflows in float32 is refused as not finite
            checked = Predictions.from_arrays(ids=[member], labels=labels, **{form: array[None]})  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    return checked.logits[0]


def _fingerprint(
    labels: Mapping[str, npt.NDArray[np.int64]], outputs: Iterator[tuple[str, dict[str, npt.NDArray[np.float32]]]]
) -> str:
    digest = hashlib.sha256()
    for split in sorted(labels):
        digest.update(f"labels {split} {labels[split].shape}".encode() + labels[split].astype("<i8").tobytes())
    for member, splits in outputs:
        for split in sorted(splits):
            digest.update(
                f"logits {member} {split} {splits[split].shape}".encode() + splits[split].astype("<f4").tobytes()
            )
    return digest.hexdigest()


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise PoolError(f"{target}: expected a path where nothing is yet, got an existing one: choose another path")


@contextmanager
def _built_beside(target: Path) -> Iterator[Path]:
    """Yield a directory beside `target` that takes its place on success and vanishes otherwise."""
    target = Path(os.path.abspath(target))
    folder = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield folder
        if target.is_dir():
            target.rmdir()
        folder.rename(target)
    except OSError as error:
        raise PoolError(
            f"{target}: cannot be written ({error.strerror}): check the disk and its permissions"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


READERS = {
    ".npy": _load_npy,
    ".npz": _load_npz,
    ".csv": _load_table,
    ".tsv": _load_table,
    ".txt": _load_table,
    ".pt": _load_torch,
    ".pth": _load_torch,
}
