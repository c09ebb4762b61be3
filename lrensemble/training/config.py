"""`TrainConfig`: how a network is trained, apart from its learning-rate policy, data and seed. Light: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lrensemble.data import AUGMENTATIONS
from lrensemble.errors import InputError, lookup
from lrensemble.training.optimizers import OPTIMIZERS

__all__ = ["PRECISIONS", "TrainConfig", "steps_per_epoch", "with_overrides"]

PRECISIONS = ("float32", "bf16")
LATER = {"folds": 0}
MOST = 10**9  # epochs, samples of a batch: more is a slip of the keyboard, and overflows further down


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training; together with policy, network, data and seed they decide its outcome.

    Attributes
    ----------
    epochs
        Passes over the training data.
    batch_size
        Samples of one optimiser step; see `steps_per_epoch` for the last batch of an epoch.
    optimizer
        Name in ``OPTIMIZERS``.
    momentum
        Of the optimisers ``momentum`` and ``nesterov``; the others ignore it.
    weight_decay
        L2 penalty of all parameters (decoupled in ``adamw``).
    label_smoothing
        ε in [0, 1): targets are 1 − ε + ε/C for the true class and ε/C for the others. Validation never smooths.
    clip_norm
        Largest norm of the whole gradient; None leaves it as it is.
    precision
        ``"bf16"`` trains under bfloat16 autocast; weights, validation and predictions stay float32.
    augment
        Name in ``AUGMENTATIONS``, or ``"auto"``: what suits the data set.
    common_seed
        False: seed and policy together decide initialisation, order, augmentation and dropout, so that every member of
        a pool starts elsewhere and errs elsewhere. True: the seed alone decides, so that policies of one seed differ by
        their learning rates only: fairer to compare, worse to combine.
    folds
        0: networks learn from the training part and are judged on the validation part. k ≥ 2: a member is k networks,
        each trained on all but one of k folds of both parts together and judged on that fold (``training/folds.py``).

    Raises
    ------
    InputError
        If a value is of another type or out of range; the message names the field.
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: str = "momentum"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    precision: str = "float32"
    augment: str = "auto"
    common_seed: bool = False
    folds: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            _require(_is_count(getattr(self, name)), name, f"a whole number from 1 to {MOST:,}", getattr(self, name))
        _require(_is_number(self.momentum) and 0 <= self.momentum < 1, "momentum", "a number in [0, 1)", self.momentum)
        _require(_is_number(self.weight_decay) and self.weight_decay >= 0, "weight_decay", "≥ 0", self.weight_decay)
        smooth = _is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1
        _require(smooth, "label_smoothing", "a number in [0, 1)", self.label_smoothing)
        if self.clip_norm is not None:
            _require(_is_number(self.clip_norm) and self.clip_norm > 0, "clip_norm", "a number > 0", self.clip_norm)
        _require(self.precision in PRECISIONS, "precision", " or ".join(PRECISIONS), self.precision)
        _require(isinstance(self.common_seed, bool), "common_seed", "true or false", self.common_seed)
        no_folds = type(self.folds) is int and self.folds == 0
        _require(no_folds or (_is_count(self.folds) and self.folds > 1), "folds", "0 or a number ≥ 2", self.folds)
        lookup(OPTIMIZERS, self.optimizer, "optimizer")
        lookup({"auto": None, **AUGMENTATIONS}, self.augment, "augmentation (augment)")

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, JSON-ready.

        Those of ``LATER`` are left out where they have the value that means "not used", so that the names of members
        that were trained before there was such a field stay the same.
        """
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}


def with_overrides(config: TrainConfig | None, overrides: Mapping[str, Any]) -> TrainConfig:
    """Return `config` (the default one when None) with some fields replaced.

    Raises
    ------
    InputError
        For a field that there is not (naming the nearest one) or a value that is not allowed.
    """
    base = config if config is not None else TrainConfig()
    if not isinstance(base, TrainConfig):
        raise InputError(f"config: expected a TrainConfig, got {type(base).__name__}")
    known = {field.name: field for field in fields(TrainConfig)}
    for name in overrides:
        lookup(known, name, "training setting")
    return replace(base, **overrides)


def steps_per_epoch(n_train: int, batch_size: int) -> int:
    """Optimiser steps of one epoch.

    The last batch may be small, but a single left-over sample makes no batch (batch normalisation cannot train on one):
    it is left out of that epoch; every epoch's order leaves out another one.
    """
    full, rest = divmod(n_train, batch_size)
    return max(1, full + (rest > 1 or (rest == 1 and full == 0)))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(condition: bool, name: str, expected: str, value: Any) -> None:
    if not condition:
        raise InputError(f"{name}: expected {expected}, got {value!r}")
