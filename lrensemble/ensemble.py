"""`Ensemble`: the outcome of selection, and the ``ensemble.json`` that carries it to evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.combine import COMBINERS, combine
from lrensemble.errors import InputError, PoolError, lookup
from lrensemble.files import check_format, read_json, write_text_atomic
from lrensemble.predictions import Predictions

__all__ = ["Ensemble"]

FORMAT = "lrensemble-ensemble"
VERSION = 1


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
        object.__setattr__(self, "members", tuple(self.members))
        object.__setattr__(self, "weights", tuple(w.tolist()))

    def __len__(self) -> int:
        return len(self.members)

    def probabilities(self, predictions: Predictions) -> npt.NDArray[np.float64]:
        """Combine the probabilities of the team, shape (N, C).

        Raises
        ------
        PoolError
            If the predictions come from another pool, or lack one of the members.
        """
        self.check_pool(predictions.fingerprint, predictions.ids)
        rows = predictions.indices(self.members)
        return combine(predictions.probabilities[rows], np.asarray(self.weights), self.rule)

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
        return {"format": FORMAT, "version": VERSION, **json.loads(json.dumps(asdict(self)))}

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str = "ensemble") -> Ensemble:
        """Read the form that `to_dict` writes.

        Raises
        ------
        InputError
            If it is not an ensemble, is of an unknown version, or lacks a field; `source` names the file.
        """
        check_format(data, FORMAT, VERSION, f"{source}: expected an ensemble written by `lrensemble select`")
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


def _few(weights: npt.NDArray[np.float64]) -> str:
    shown = [f"{weight:.4g}" for weight in weights[:5]]
    return ", ".join([*shown, "…"] if len(weights) > 5 else shown)
