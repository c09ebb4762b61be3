"""The engines that train a chunk of a pool, by name. Light: torch is imported when one of them trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrensemble.training.training import Training

__all__ = ["ENGINES", "EngineSpec"]


@dataclass(frozen=True)
class EngineSpec:
    """An entry of ``ENGINES``.

    Attributes
    ----------
    train
        Takes trainings of one network, data set and config, each to its end.
    description
        One line for listings.
    """

    train: Callable[[Sequence[Training]], None]
    description: str


def _loop(trainings: Sequence[Training]) -> None:
    from lrensemble.training.loop import train

    for training in trainings:
        train(training)


def _stacked(trainings: Sequence[Training]) -> None:
    from lrensemble.training.stacked_loop import train_stack

    train_stack(trainings)


ENGINES: dict[str, EngineSpec] = {
    "loop": EngineSpec(_loop, "one network after another in plain PyTorch: the reference"),
    "stacked": EngineSpec(_stacked, "several networks in one batched pass, each with its own learning rate"),
}
