"""`Problem`: what policies are tuned for, its key in the store, and how far another problem is from it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lrensemble.errors import InputError
from lrensemble.training.config import steps_per_epoch

if TYPE_CHECKING:
    from lrensemble.pool import Member, Pool
    from lrensemble.training.workshop import Plan, Workshop

__all__ = ["OTHER_DATA", "OTHER_MODEL", "OTHER_OPTIMIZER", "Problem"]

Scalar = str | int | float | bool | None

# Distances (see `Problem.distance`). Rates of one optimiser say little about another: 0.1 is usual for SGD, absurd for
# Adam. Then come network and data; the last group tells apart what agrees in all of these.
OTHER_OPTIMIZER = 8.0
OTHER_MODEL = 4.0
OTHER_DATA = 4.0
OTHER_SPLIT = 0.5  # of the same data set
OTHER_KIND = 2.0
PER_DECADE = 0.5  # of classes, training samples, parameters
PER_DOUBLING = 0.25  # of the batch, of the epochs
OTHER_SETTING = 0.25
UNKNOWN = 1.0  # where one of the two is not known


@dataclass(frozen=True)
class Problem:
    """What policies are tuned for: all that decides a training but its policy and seed.

    Attributes
    ----------
    data, fingerprint
        Name of the data set; digest of its contents and split.
    n_classes
        C.
    input_shape
        Of a sample; None when only a pool is known.
    n_train
        Samples that a network learns from; of a pool: rounded up to whole batches.
    model, architecture
        Canonical text of the network; digest of its structure, empty when unknown.
    parameters, flops
        Size and cost of the network.
    settings
        Pairs of `TrainConfig.to_dict`, sorted: optimiser, batch size, epochs, ….
    """

    data: str
    fingerprint: str
    n_classes: int
    input_shape: tuple[int, ...] | None
    n_train: int
    model: str
    architecture: str
    parameters: int
    flops: int
    settings: tuple[tuple[str, Scalar], ...]

    @classmethod
    def of(cls, shop: Workshop, plan: Plan) -> Problem:
        """Return the problem of the trainings of a workshop; any plan of it will do."""
        from lrensemble.training.folds import parts_of

        task, splits = plan.tasks[0], shop.splits
        return cls(
            data=splits.name,
            fingerprint=splits.fingerprint,
            n_classes=splits.n_classes,
            input_shape=splits.input_shape,
            n_train=parts_of(splits)[0].n,
            model=task.model_text,
            architecture=task.architecture,
            parameters=task.parameters,
            flops=task.flops,
            settings=tuple(sorted(task.config.to_dict().items())),
        )

    @classmethod
    def of_member(cls, pool: Pool, member: Member) -> Problem | None:
        """Return the problem that a member of a pool was trained on; None when it does not say (it was imported)."""
        config, steps = member.config, member.history.get("step")
        if steps is None or not len(steps) or not {"optimizer", "batch_size", "epochs"} <= set(config):
            return None
        an_epoch = int(steps[-1]) // len(steps)
        return cls(
            data=pool.name,
            fingerprint=pool.fingerprint,
            n_classes=pool.n_classes,
            input_shape=None,
            n_train=an_epoch * int(config["batch_size"] or 0),
            model=member.model,
            architecture=str(member.extra.get("architecture", "")),
            parameters=member.parameters,
            flops=member.flops,
            settings=tuple(sorted(config.items())),
        )

    @property
    def optimizer(self) -> str:
        """Name of the optimiser."""
        return str(self._settings["optimizer"])

    @property
    def batch_size(self) -> int:
        """Samples of a step."""
        return int(self._settings["batch_size"] or 0)

    @property
    def epochs(self) -> int:
        """Passes over the training data."""
        return int(self._settings["epochs"] or 0)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return steps_per_epoch(self.n_train, self.batch_size)

    @property
    def _settings(self) -> dict[str, Scalar]:
        return dict(self.settings)

    @property
    def key(self) -> str:
        """Name of the problem: readable words, and a digest of data, split, network and all settings.

        What a pool does not know (`input_shape`) is not in it, so that a pool and a run of the same problem meet.
        """
        from lrensemble.pool.member import canonical_json

        identity = [self.fingerprint, self.model, self.architecture, self.parameters, self._settings]
        words = f"{self.data}-{self.model}-{self.optimizer}-b{self.batch_size}-e{self.epochs}"
        readable = re.sub(r"[^A-Za-z0-9._]+", "-", words).strip("-.")[:60]
        return f"{readable}-{hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:10]}"

    def distance(self, other: Problem) -> float:
        """How little is to be expected of a policy of `other` here; 0 for the same problem, and symmetric.

        A sum: 8 for another optimiser; 4 for another network; 4 for other data, and 2 more for another kind of input
        (images, tables; 1 where one of the two does not know), but 0.5 for another split or size of the data set of the
        same name; 0.5 for each factor of ten in classes, training samples and parameters; 0.25 for each doubling of
        batch size and of epochs; 0.25 for each other setting that differs.
        """
        if self.key == other.key:
            return 0.0
        mine, theirs = self._settings, other._settings
        numbers = ("n_classes", "n_train", "parameters")
        compared = {"optimizer", "batch_size", "epochs"}
        return math.fsum(
            [
                OTHER_OPTIMIZER * (self.optimizer != other.optimizer),
                OTHER_MODEL * (self.model != other.model),
                self._data_distance(other),
                *(PER_DECADE * _ratio(getattr(self, name), getattr(other, name), 10) for name in numbers),
                *(PER_DOUBLING * _ratio(mine[name], theirs[name], 2) for name in ("batch_size", "epochs")),
                OTHER_SETTING * sum(mine.get(k) != theirs.get(k) for k in {*mine, *theirs} - compared),
            ]
        )

    def _data_distance(self, other: Problem) -> float:
        if self.fingerprint == other.fingerprint:
            return 0.0
        if self.data == other.data:
            return OTHER_SPLIT
        return OTHER_DATA + _kind_distance(self.input_shape, other.input_shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with `settings` as a mapping; `from_dict` is its inverse."""
        shape = None if self.input_shape is None else list(self.input_shape)
        return asdict(self) | {"settings": self._settings, "input_shape": shape}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Problem:
        """Read the form that `to_dict` writes.

        Raises
        ------
        InputError
            If it is something else.
        """
        try:
            shape, settings = values["input_shape"], tuple(sorted(values["settings"].items()))
            plain = {name: kind(values[name]) for name, kind in _KINDS.items()}
            problem = Problem(**plain, input_shape=None if shape is None else tuple(map(int, shape)), settings=settings)
            _ = problem.key, problem.steps_per_epoch  # which ask for the settings that must be there
            return problem
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"expected the description of a problem, got something else ({error!r:.80})") from None


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("data", "fingerprint", "model", "architecture"), str),
    **dict.fromkeys(("n_classes", "n_train", "parameters", "flops"), int),
}


def _kind_distance(a: tuple[int, ...] | None, b: tuple[int, ...] | None) -> float:
    if a is None or b is None:
        return UNKNOWN * (a is not b)
    return OTHER_KIND * (len(a) != len(b))


def _ratio(a: Any, b: Any, base: float) -> float:
    """How many times one of two counts is `base` times the other."""
    return abs(math.log(max(1, int(a)), base) - math.log(max(1, int(b)), base))
