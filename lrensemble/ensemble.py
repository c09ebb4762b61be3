"""`Ensemble`: the outcome of selection, and the ``ensemble.json`` that carries it to evaluation.

`Ensemble.probabilities` is the one place where the outputs of members become those of a team: selection scores its
choice by it, and evaluation everything it reports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.calibration import temper, tempered
from lrensemble.combine import COMBINERS, combine_members, true_class_of_members
from lrensemble.errors import InputError, PoolError, lookup
from lrensemble.files import check_format, read_json, write_text_atomic
from lrensemble.predictions import Predictions, Samples
from lrensemble.stacker import Stacker

__all__ = ["Ensemble"]

FORMAT = "lrensemble-ensemble"
VERSION = 1  # of an ensemble that is members, weights and a rule …
VERSION_FITTED = 2  # … and of one with temperatures or a stacker, which a reader must not pass over


@dataclass(frozen=True)
class Ensemble:
    """Members and weights of a team, and how they were found.

    Attributes
    ----------
    members, weights
        Names of the members and their weights, aligned; every weight is > 0 and they sum to 1.
    rule
        Name of the combination rule (a key of ``COMBINERS``).
    method, metric, options
        The selector, the objective and the options it ran with.
    split, score, n_samples
        What it was chosen on: the split, the value of `metric` there, the number of samples.
    n_candidates
        Size of the pool it was chosen from.
    fingerprint
        Of the pool; empty when the predictions came from bare arrays.
    trace
        Names of the members in the order they were added, and the score after each, where the method has such an order.
    reason
        One sentence: how the method came to this team.
    temperatures
        Of each member, > 0: its logits are divided by it before members are combined; empty: all 1.
    temperature
        Of the combined probabilities, > 0: their logarithms are divided by it.
    stacker
        A linear model that combines the members in place of `rule` and `weights` (which then are for display).
    resplit
        Cross-validated score and optimism of the selection, by name, where they were measured; numbers and texts.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    rule: str = "mean_probability"
    method: str = "manual"
    metric: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    split: str = "val"
    score: float | None = None
    n_samples: int = 0
    n_candidates: int = 0
    fingerprint: str = ""
    trace: tuple[dict[str, Any], ...] = ()
    reason: str = ""
    temperatures: tuple[float, ...] = ()
    temperature: float = 1.0
    stacker: Stacker | None = None
    resplit: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lookup(COMBINERS, self.rule, "combination rule")
        w = np.asarray(self.weights, dtype=float)
        if len(self.members) == 0 or w.shape != (len(self.members),) or len(set(self.members)) != len(self.members):
            raise InputError(
                f"expected an ensemble of one or more distinct members with one weight each, got "
                f"{len(self.members)} members and {w.size} weights"
            )
        if not np.isfinite(w).all() or (w <= 0).any() or abs(w.sum() - 1) > 1e-6:
            raise InputError(f"expected ensemble weights > 0 that sum to 1, got {_few(w)} with sum {w.sum():.6g}")
        heat = np.asarray(self.temperatures, dtype=float)
        if heat.shape not in ((0,), w.shape):
            raise InputError(f"expected a temperature for each of the {w.size} members or none, got {heat.size}")
        for values in (heat, np.array([self.temperature], dtype=float)):
            if not np.isfinite(values).all() or (values <= 0).any():
                raise InputError(f"expected temperatures that are finite and > 0, got {_few(values)}")
        if self.stacker is not None:
            self.stacker.check(len(self.members))
        for name, value in {"members": self.members, "weights": w.tolist(), "temperatures": heat.tolist()}.items():
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "temperature", float(self.temperature))

    def __len__(self) -> int:
        return len(self.members)

    @property
    def combination(self) -> str:
        """How the members are combined, in words: the rule or the stacker, and the temperature where there is one."""
        combined = f"stacking ({self.stacker.features})" if self.stacker else self.rule
        return combined if self.temperature == 1 else f"{combined} at temperature {self.temperature:.3f}"

    def probabilities(self, predictions: Predictions) -> npt.NDArray[np.float64]:
        """Probabilities of the team, float64, shape (N, C): members tempered, combined (or stacked), tempered again.

        Members are read one by one, so that teams of pools larger than memory pass through.

        Raises
        ------
        PoolError
            If the predictions come from another pool, or lack one of the members.
        """
        self.check_pool(predictions.fingerprint, predictions.ids)
        team = _Team(predictions, self.members, self.temperatures)
        if self.stacker is not None:
            combined = self.stacker.probabilities(team)
        else:
            combined = combine_members(team, np.asarray(self.weights), self.rule)
        return combined if self.temperature == 1 else temper(combined, self.temperature)

    def true_class(self, predictions: Predictions) -> npt.NDArray[np.float64]:
        """Probability of the true class: that of `probabilities`, to the last digit, shape (N,).

        It is had in a fraction of the time where the rule is the mean of probabilities.

        Raises
        ------
        PoolError
            As `probabilities`.
        """
        labels = predictions.labels
        if self.stacker is not None or self.temperature != 1:
            return self.probabilities(predictions)[np.arange(len(labels)), labels]
        self.check_pool(predictions.fingerprint, predictions.ids)
        team = _Team(predictions, self.members, self.temperatures)
        return true_class_of_members(team, np.asarray(self.weights), self.rule, labels)

    def check_pool(self, fingerprint: str, ids: tuple[str, ...]) -> None:
        """Raise `PoolError` unless a pool with this fingerprint and these members can serve the ensemble."""
        if self.fingerprint and fingerprint and self.fingerprint != fingerprint:
            raise PoolError(
                f"expected an ensemble chosen from this pool ({fingerprint[:12]}…), got one chosen from another pool "
                f"({self.fingerprint[:12]}…): select again with `lrensemble select`"
            )
        missing = [name for name in self.members if name not in ids]
        if missing:
            raise PoolError(
                f"expected all {len(self)} members of the ensemble in the pool, got none named '{missing[0]}': "
                "select again with `lrensemble select`"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` is its inverse."""
        fitted = bool(self.temperatures) or self.temperature != 1 or self.stacker is not None
        version = VERSION_FITTED if fitted else VERSION
        return {"format": FORMAT, "version": version, **json.loads(json.dumps(asdict(self)))}

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str = "ensemble") -> Ensemble:
        """Read the form that `to_dict` writes.

        Raises
        ------
        InputError
            If it is not an ensemble, is of an unknown version, or lacks a field; `source` names the file.
        """
        expected = f"{source}: expected an ensemble written by `lrensemble select`"
        check_format(data, FORMAT, (VERSION, VERSION_FITTED), expected)
        from pydantic import TypeAdapter, ValidationError

        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        try:
            return TypeAdapter(cls).validate_json(json.dumps(known), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ": ".join([source, ".".join(map(str, first["loc"]))] if first["loc"] else [source])
            raise InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None

    def save(self, path: str | Path) -> Path:
        """Write ``ensemble.json`` atomically."""
        return write_text_atomic(Path(path), json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Ensemble:
        """Read an ``ensemble.json``; raises `InputError` that names the file when it cannot be one."""
        return cls.from_dict(read_json(path, "an ensemble"), str(path))


class _Team:
    """Probabilities of the members of a team, (K, N, C), as combination rules ask for them; read when asked for."""

    def __init__(self, predictions: Predictions, members: tuple[str, ...], temperatures: tuple[float, ...]) -> None:
        self._rows = predictions.indices(members)
        self.shape = (len(members), predictions.n_samples, predictions.n_classes)
        self._predictions = predictions
        if temperatures:
            of_all = np.ones(predictions.n_members)
            of_all[self._rows] = temperatures
            self._predictions = tempered(predictions, of_all)

    @property
    def in_memory(self) -> bool:
        """Whether reading few samples at a time costs no more than reading all at once."""
        return self._predictions.in_memory

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[npt.NDArray[np.floating]]:
        """Members one by one, each (N, C)."""
        return self.members(slice(None))

    def members(self, samples: Samples) -> Iterator[npt.NDArray[np.floating]]:
        """Members one by one on some of the samples, each (n, C)."""
        return (self._predictions.member(row, samples) for row in self._rows)

    def __getitem__(self, index: tuple[slice, Samples]) -> npt.NDArray[np.floating]:
        """``team[:, samples]``: all members on some of the samples."""
        members, samples = index
        return np.stack([self._predictions.member(row, samples) for row in self._rows[members]])


def _few(weights: npt.NDArray[np.float64]) -> str:
    shown = [f"{weight:.4g}" for weight in weights[:5]]
    return ", ".join([*shown, "…"] if len(weights) > 5 else shown)
