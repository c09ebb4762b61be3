"""Readers of the user's own files: ``.npz``, ``.csv`` / ``.tsv``, and a folder of images."""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.data.prepare import Pair, Raw
from lrensemble.data.splits import PARTS
from lrensemble.data.streams import DatasetItems, is_to_be_streamed
from lrensemble.errors import DataError

__all__ = ["FILE_SUFFIXES", "raw_from_arrays", "read_path"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
DELIMITERS = {".csv": ",", ".tsv": "\t"}
FILE_SUFFIXES = frozenset({".npz", *DELIMITERS})

Resize = tuple[int, int] | None


def read_path(path: Path, resize: Resize = None, stream: bool | None = None) -> Raw:
    """Read a data file or a folder of images.

    Raises
    ------
    DataError
        If there is nothing at `path`, or it cannot be read as data.
    """
    if path.is_dir():
        return read_image_folder(path, resize, stream)
    if not path.exists():
        raise DataError(f"expected a data file or folder at {path}, found nothing there: check the path")
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    if path.suffix.lower() in DELIMITERS:
        return read_csv(path)
    raise DataError(f"{path}: expected a .npz, .csv or .tsv file or a folder of images, got a '{path.suffix}' file")


def read_npz(path: Path) -> Raw:
    """Read arrays ``x, y`` or ``x_train, y_train[, x_val, y_val][, x_test, y_test]``, and ``classes`` if there."""
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: expected an .npz archive, got a truncated or other file: write it again with numpy.savez"
        )
    arrays, key = {}, ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                arrays[key] = archive[key]
    except Exception as error:  # zipfile, zlib and numpy each have their own for a damaged file
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: expected plain arrays, got Python objects under '{key}': save them as arrays"
            ) from None
        raise DataError(f"{path}: expected a readable .npz archive, got a damaged one at '{key}' ({error})") from None
    try:
        return raw_from_arrays(arrays)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def raw_from_arrays(arrays: dict[str, Any]) -> Raw:
    """Sort named arrays into parts; `DataError` when the names make no data set."""
    present = set(arrays)
    whole = {"x", "y"} & present
    if whole and "x_train" in present:
        raise DataError("expected either x and y or x_train and y_train, got both: remove one pair")
    strange = sorted(key for key in present if str(key)[:2] in ("x_", "y_") and str(key)[2:] not in PARTS)
    if strange:
        raise DataError(f"expected x and y of the parts train, val and test, got '{strange[0]}': rename or remove it")
    names = {part: ("x", "y") if whole and part == "train" else (f"x_{part}", f"y_{part}") for part in PARTS}
    parts: dict[str, Pair] = {}
    for part, (x, y) in names.items():
        if {x, y} <= present:
            parts[part] = (arrays[x], arrays[y])
        elif part == "train" or {x, y} & present:
            have = ", ".join(sorted(map(str, present))) or "nothing"
            both = "'x' and 'y', or 'x_train' and 'y_train'" if part == "train" and not whole else f"'{x}' and '{y}'"
            raise DataError(f"expected arrays named {both}, got {have}: name them so")
    names_array = arrays.get("class_names", arrays.get("classes"))
    return Raw(parts, None if names_array is None else [str(name) for name in np.asarray(names_array).ravel()])


def read_csv(path: Path) -> Raw:
    """Read a table with a header; the class is in the column ``label``, or else in the last one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [row for row in csv.reader(lines, delimiter=DELIMITERS[path.suffix.lower()]) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a table as UTF-8 text, but it cannot be read ({error})") from None
    mark = {",": "commas", "\t": "tabs"}[DELIMITERS[path.suffix.lower()]]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise DataError(
            f"{path}: expected a header and rows of two columns or more, with {mark} between them, got "
            f"{len(rows)} rows of {len(rows[0]) if rows else 0}"
        )
    header, body = rows[0], rows[1:]
    if all(_is_number(cell) for cell in header):
        raise DataError(f"{path}: expected column names in the first row, got numbers only: add a header")
    lower = [name.strip().lower() for name in header]
    if lower.count("label") > 1:
        raise DataError(f"{path}: expected one column named label, got {lower.count('label')}: rename the others")
    target = lower.index("label") if "label" in lower else len(header) - 1
    x = np.empty((len(body), len(header) - 1))
    for number, row in enumerate(body):
        if len(row) != len(header):
            raise DataError(
                f"{path}: expected {len(header)} cells in row {number + 2} as in the header, got {len(row)}"
            )
        if not row[target].strip():
            raise DataError(f"{path}: expected a label in row {number + 2}, column '{header[target]}', got none")
        for column, cell in enumerate(row[:target] + row[target + 1 :]):
            if not _is_number(cell):
                name = (header[:target] + header[target + 1 :])[column]
                raise DataError(f"{path}: expected a number in row {number + 2}, column '{name}', got '{cell}'")
            x[number, column] = float(cell)
    labels = np.array([row[target].strip() for row in body])
    return Raw({"train": (x, _as_integers(labels))})


def read_image_folder(path: Path, resize: Resize = None, stream: bool | None = None) -> Raw:
    """Read ``<class>/<image>`` or ``train/<class>/<image>``, ``test/…`` and, if there, ``val/…``.

    Images become grey when all are grey, else RGB; transparency is dropped. Without `resize` all must be equally large.
    When they are to be streamed (see `load_data`), only the heads of the files are read now.
    """
    present = [part for part in PARTS if (path / part).is_dir() and _subfolders(path / part)]
    folders = {part: path / part for part in present} if "train" in present else {"train": path}
    names = [folder.name for folder in _subfolders(folders["train"])]
    listed = {part: _list_images(folder, names) for part, folder in folders.items()}
    files = [file for part in listed.values() for file, _ in part]
    if not files:
        raise DataError(f"{path}: expected images as <class>/<image> or train/<class>/<image>, found none")
    side = _decode_one(files[0], resize)[0].shape
    if is_to_be_streamed(len(files) * 3 * side[0] * side[1], stream):
        return Raw(_streamed(path, listed, resize), names)
    images = _decode(files, resize)
    parts, start = {}, 0
    for part, entries in listed.items():
        parts[part] = (images[start : start + len(entries)], np.array([label for _, label in entries], dtype=np.int64))
        start += len(entries)
    return Raw(parts, names)


@dataclass(frozen=True)
class ImageFiles:
    """A Dataset of (image, label) that decodes an image when it is asked for.

    Attributes
    ----------
    files, targets
        Paths, and class indices.
    colour
        Whether images are RGB; else they are grey.
    resize
        (height, width) to which images are resized; None leaves them as they are.
    fingerprint
        Hash of names and lengths of the files.
    """

    files: npt.NDArray[np.str_] = field(repr=False)
    targets: npt.NDArray[np.int64] = field(repr=False)
    colour: bool
    resize: Resize
    fingerprint: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[npt.NDArray[np.uint8], int]:
        """Return the image, uint8, shape (channels, height, width), and its class index."""
        image, colour = _decode_one(Path(self.files[i]), self.resize)
        in_colour = image if colour else image[..., None]
        return np.broadcast_to(in_colour, (*image.shape[:2], 3 if self.colour else 1)).transpose(2, 0, 1), int(
            self.targets[i]
        )


def _streamed(path: Path, listed: Mapping[str, Sequence[tuple[Path, int]]], resize: Resize) -> dict[str, Pair]:
    """Look at the heads of all files, for sizes and colours, and leave decoding for later."""
    files = [file for part in listed.values() for file, _ in part]
    heads = [_head(file) for file in files]
    for file, (size, _) in zip(files, heads, strict=True):
        if resize is None and size != heads[0][0]:
            raise _unequal(file, files[0], heads[0][0], size)
    colour = any(colour for _, colour in heads)
    parts: dict[str, Pair] = {}
    for part, entries in listed.items():
        lengths = json.dumps([(file.relative_to(path).as_posix(), file.stat().st_size) for file, _ in entries])
        fingerprint = hashlib.sha256(lengths.encode("utf-8", "surrogateescape")).hexdigest()
        targets = np.array([label for _, label in entries], dtype=np.int64)
        images = ImageFiles(np.array([str(file) for file, _ in entries]), targets, colour, resize, fingerprint)
        items = DatasetItems.of(images, part)
        parts[part] = (items, items.labels)
    return parts


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _list_images(folder: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    found = []
    for child in _subfolders(folder):
        if child.name not in names:
            raise DataError(f"{child}: expected one of the classes of the training set, got '{child.name}'")
        files = sorted(file for file in child.rglob("*") if _is_image(file.relative_to(child)) and not file.is_dir())
        if not files:
            raise DataError(
                f"{child}: expected images of class '{child.name}', found none: add some or remove the folder"
            )
        found += [(file, names.index(child.name)) for file in files]
    return found


def _is_image(path: Path) -> bool:
    """Whether the name is that of an image; hidden files and folders are left to the programs that made them."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _decode(files: Sequence[Path], resize: Resize) -> npt.NDArray[np.uint8]:
    """All images, uint8, shape (N, height, width, channels)."""
    first, _ = _decode_one(files[0], resize)
    images = np.empty((len(files), *first.shape[:2], 3), dtype=np.uint8)
    any_colour = False
    for i, file in enumerate(files):
        image, colour = _decode_one(file, resize)
        if image.shape[:2] != first.shape[:2]:
            raise _unequal(file, files[0], first.shape[:2], image.shape[:2])
        images[i] = image if colour else image[..., None]
        any_colour |= colour
    return images if any_colour else images[..., :1]


def _unequal(file: Path, first: Path, expected: tuple[int, ...], got: tuple[int, ...]) -> DataError:
    return DataError(
        f"{file}: expected {_size(expected)} pixels as in {first.name}, got {_size(got)}: make them equally large, or "
        "pass resize=(height, width) to load_data"
    )


def _decode_one(file: Path, resize: Resize) -> tuple[npt.NDArray[np.uint8], bool]:
    from PIL import Image

    with _opened(file) as opened:
        colour = _is_colour(file, opened.mode)
        image = opened.convert("RGB" if colour else "L")
    if resize is not None:
        image = image.resize((resize[1], resize[0]), Image.Resampling.BILINEAR)
    return np.asarray(image), colour


def _head(file: Path) -> tuple[tuple[int, int], bool]:
    """Height and width of an image, and whether it has colour, without decoding it."""
    with _opened(file) as opened:
        return (opened.height, opened.width), _is_colour(file, opened.mode)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(file) as opened:
            yield opened
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):  # which is a ValueError
            raise
        raise DataError(f"{file}: expected an image, but it cannot be read ({error}): replace or remove it") from None


def _is_colour(file: Path, mode: str) -> bool:
    if mode.startswith(("I", "F")):
        raise DataError(f"{file}: expected 8-bit images, got mode {mode}: convert them, or save arrays as .npz")
    return mode not in ("L", "1", "LA")


def _size(sides: tuple[int, ...]) -> str:
    return f"{sides[1]}×{sides[0]}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _as_integers(labels: npt.NDArray[np.str_]) -> npt.NDArray[Any]:
    try:
        integers = labels.astype(np.int64)
    except (ValueError, OverflowError):
        return labels
    return integers if (integers.astype(str) == labels).all() else labels  # "007" is a name
