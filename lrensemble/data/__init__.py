"""Data sets: reading, splitting, standardising, augmenting. All arrays are NumPy; only augmentation needs torch."""

from lrensemble.data.augment import AUGMENTATIONS, Augmentation, resolve_augment
from lrensemble.data.sources import DATASETS, DatasetSpec, load_data
from lrensemble.data.splits import AnySplit, Split, Splits, fingerprint_of
from lrensemble.data.streams import StreamedSplit

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "AnySplit",
    "Augmentation",
    "DatasetSpec",
    "Split",
    "Splits",
    "StreamedSplit",
    "fingerprint_of",
    "load_data",
    "resolve_augment",
]
