"""Random changes of image batches, on the device the batch is on, vectorised, decided by a generator alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrensemble.data.splits import Splits
from lrensemble.errors import DataError, lookup

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["AUGMENTATIONS", "Augmentation", "resolve_augment"]


@dataclass(frozen=True)
class Augmentation:
    """An entry of ``AUGMENTATIONS``; calling it changes a batch.

    Attributes
    ----------
    function
        ``function(x, generator) -> x`` on a batch of shape (B, channels, height, width); the input is left unchanged.
    description
        One line for listings.
    """

    function: Callable[[Tensor, Generator], Tensor]
    description: str

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the changed batch, of the same shape, type and device."""
        return self.function(x, generator)


def resolve_augment(name: str, splits: Splits) -> str:
    """Name of the augmentation to use on a data set: ``"auto"`` is the set's own.

    Raises
    ------
    DataError
        If a table is to be augmented.
    UnknownNameError
        If there is no such augmentation.
    """
    if name == "auto":
        return splits.augment
    lookup(AUGMENTATIONS, name, "augmentation")
    if name != "none" and not splits.is_images:
        raise DataError(
            f"expected augment='none' for a table of shape {splits.input_shape}, got '{name}', which needs images"
        )
    return name


def none(x: Tensor, generator: Generator) -> Tensor:
    """Leave the batch as it is."""
    return x


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    import torch

    mirrored = torch.rand(len(x), generator=generator, device=generator.device).to(x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def crop(x: Tensor, generator: Generator) -> Tensor:
    """Shift each image by up to an eighth of its side each way; the border is filled by reflection.

    32×32 images are padded by 4 and cropped back to 32×32, as is usual for CIFAR (He et al. 2016, arXiv 1512.03385).
    """
    import torch

    height, width = x.shape[-2:]
    dy, dx = (min(max(1, side // 8), side - 1) for side in (height, width))
    windows = torch.nn.functional.pad(x, (dx, dx, dy, dy), mode="reflect").unfold(2, height, 1).unfold(3, width, 1)
    top = torch.randint(2 * dy + 1, (len(x),), generator=generator, device=generator.device).to(x.device)
    left = torch.randint(2 * dx + 1, (len(x),), generator=generator, device=generator.device).to(x.device)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def crop_flip(x: Tensor, generator: Generator) -> Tensor:
    """Shift, then mirror."""
    return flip(crop(x, generator), generator)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(none, "images as they are"),
    "flip": Augmentation(flip, "mirrored left to right, half of the time"),
    "crop": Augmentation(crop, "shifted by up to 1/8 of the side, border reflected"),
    "crop+flip": Augmentation(crop_flip, "shifted and mirrored; usual for CIFAR"),
}
