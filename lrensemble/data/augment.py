"""Random changes of image batches, on the device the batch is on, vectorised, decided by a generator alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    draw
        ``draw(n, height, width, generator)``: the random numbers for n images, a tuple of tensors of n numbers.
    apply
        ``apply(x, *numbers)`` on a batch of shape (B, channels, height, width), each image by its own numbers; the
        input is left unchanged. Batches whose numbers come from several generators can be changed in one call.
    description
        One line for listings.
    """

    draw: Callable[[int, int, int, Generator], tuple[Tensor, ...]]
    apply: Callable[..., Tensor]
    description: str

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the changed batch, of the same shape, type and device."""
        return self.changed(x, [generator])

    def changed(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Return the changed batch; each of the generators decides on an equal part of it, in order."""
        import torch

        if x.dim() != 4:  # of a table, which is never changed
            return x
        n, (height, width) = len(x) // len(generators), x.shape[-2:]
        drawn = zip(*(self.draw(n, height, width, generator) for generator in generators), strict=True)
        return self.apply(x, *(torch.cat(numbers).to(x.device) for numbers in drawn))


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


def _draw_nothing(n: int, height: int, width: int, generator: Generator) -> tuple[Tensor, ...]:
    return ()


def _same(x: Tensor) -> Tensor:
    return x


def _draw_flips(n: int, height: int, width: int, generator: Generator) -> tuple[Tensor, ...]:
    import torch

    return (torch.rand(n, generator=generator, device=generator.device) < 0.5,)


def _flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror images left to right."""
    import torch

    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def _reach(side: int) -> int:
    """Pixels by which an image is shifted at most: an eighth of its side, or one, as far as reflection reaches."""
    return min(max(1, side // 8), side - 1)


def _draw_shifts(n: int, height: int, width: int, generator: Generator) -> tuple[Tensor, ...]:
    import torch

    return tuple(
        torch.randint(2 * _reach(side) + 1, (n,), generator=generator, device=generator.device)
        for side in (height, width)
    )


def _crop(x: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Shift images by `top` and `left` pixels, less the reach; the border is filled by reflection.

    32×32 images are padded by 4 and cropped back to 32×32, as is usual for CIFAR (He et al. 2016, arXiv 1512.03385).
    """
    import torch

    height, width = x.shape[-2:]
    dy, dx = _reach(height), _reach(width)
    windows = torch.nn.functional.pad(x, (dx, dx, dy, dy), mode="reflect").unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def _draw_both(n: int, height: int, width: int, generator: Generator) -> tuple[Tensor, ...]:
    return (*_draw_shifts(n, height, width, generator), *_draw_flips(n, height, width, generator))


def _crop_flip(x: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    return _flip(_crop(x, top, left), mirrored)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(_draw_nothing, _same, "images as they are"),
    "flip": Augmentation(_draw_flips, _flip, "mirrored left to right, half of the time"),
    "crop": Augmentation(_draw_shifts, _crop, "shifted by up to 1/8 of the side, border reflected"),
    "crop+flip": Augmentation(_draw_both, _crop_flip, "shifted and mirrored; usual for CIFAR"),
}
