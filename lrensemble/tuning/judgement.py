"""`Judgement`: policies with their metrics, the best first; and one metric as a table of policies by optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lrensemble.errors import lookup
from lrensemble.tuning.policy_metrics import POLICY_METRICS, Scaled, Spread

if TYPE_CHECKING:
    from lrensemble.pool.member import Scalar

__all__ = ["Judgement", "OptimizerTable", "PolicyRow"]


@dataclass(frozen=True)
class PolicyRow:
    """One policy under one optimiser, length of training, network and further settings: all its seeds.

    Attributes
    ----------
    policy, resolved
        Text as asked for, and as followed; a member without a policy has its own name here.
    optimizer, epochs
        Of the training; None when not known, as for imported predictions.
    model
        Text of the network.
    settings
        The other settings, by name.
    members, seeds
        Names and seeds of the trainings, sorted by seed.
    done, diverged
        How many finished, and how many diverged.
    rate
        Highest learning rate that was used; None when not known.
    metrics
        By name in `POLICY_METRICS`, over the trainings that finished; None where no value can be known.
    scale
        Top-1 of the same policy with all rates multiplied by each factor, as far as the pool has them.
    """

    policy: str
    resolved: str
    optimizer: str | None
    epochs: int | None
    model: str
    settings: Mapping[str, Scalar]
    members: tuple[str, ...]
    seeds: tuple[int, ...]
    done: int
    diverged: int
    rate: float | None
    metrics: Mapping[str, Spread | None]
    scale: Mapping[float, Scaled]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; what is not known is None."""
        plain = {name: value for name, value in vars(self).items() if name not in ("metrics", "scale")}
        return {
            **plain,
            "settings": dict(self.settings),
            "members": list(self.members),
            "seeds": list(self.seeds),
            "metrics": {name: None if spread is None else asdict(spread) for name, spread in self.metrics.items()},
            "scale": {f"{factor:g}": asdict(scaled) for factor, scaled in self.scale.items()},
        }


@dataclass(frozen=True)
class OptimizerTable:
    """One metric of policies (rows) under optimisers (columns).

    Attributes
    ----------
    metric
        Key in `POLICY_METRICS`.
    optimizers
        Columns.
    rows
        What the trainings of a row share (policy, epochs, model, settings), and its cells by optimiser: a `PolicyRow`,
        or None where the pool has no such training.
    """

    metric: str
    optimizers: tuple[str, ...]
    rows: tuple[tuple[Mapping[str, Any], Mapping[str, PolicyRow | None]], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "metric": self.metric,
            "optimizers": list(self.optimizers),
            "rows": [
                {**shared, "cells": {o: self._cell(row) for o, row in cells.items()}} for shared, cells in self.rows
            ],
        }

    def _cell(self, row: PolicyRow | None) -> dict[str, Any] | None:
        if row is None:
            return None
        spread = row.metrics[self.metric]
        return {"done": row.done, "diverged": row.diverged, "value": None if spread is None else asdict(spread)}

    def __str__(self) -> str:
        from lrensemble.tuning.judging_text import optimizer_table

        return optimizer_table(self)


@dataclass(frozen=True)
class Judgement:
    """Policies of a pool with their metrics, the best first.

    Attributes
    ----------
    pool
        Its directory.
    split
        What utility and loss difference are measured on. Costs are always those on validation data.
    n_samples, n_classes
        Of that split; of the data.
    target
        Validation accuracy that costs are asked for; None: none.
    sort
        Metric by which the rows are ordered.
    rows
        One for each policy, optimiser, length of training, network and settings.
    snapshots, stopped, damaged
        What is in no row: members taken from a training under way, whose training is in a row already; trainings that
        were stopped before their end; members that cannot be read.
    """

    pool: str
    split: str
    n_samples: int
    n_classes: int
    target: float | None
    sort: str
    rows: tuple[PolicyRow, ...]
    snapshots: int = 0
    stopped: int = 0
    damaged: int = 0

    def by_optimizer(self, metric: str = "top1") -> OptimizerTable:
        """Arrange one metric as a table of policies by optimisers; rows keep their order here.

        Raises
        ------
        UnknownNameError
            For a metric that there is not.
        """
        lookup(POLICY_METRICS, metric, "metric of policies")
        found: dict[str, tuple[dict[str, Any], dict[str, PolicyRow]]] = {}
        for row in self.rows:
            shared = {"policy": row.policy, "epochs": row.epochs, "model": row.model, "settings": dict(row.settings)}
            cells = found.setdefault(repr((row.resolved, shared)), (shared, {}))[1]
            cells[row.optimizer or "unknown"] = row
        optimizers = tuple(sorted({name for _, cells in found.values() for name in cells}))
        rows = tuple((shared, {name: cells.get(name) for name in optimizers}) for shared, cells in found.values())
        return OptimizerTable(metric, optimizers, rows)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Names of the settings in which rows differ."""
        names = sorted({name for row in self.rows for name in row.settings})
        return tuple(name for name in names if len({repr(row.settings.get(name)) for row in self.rows}) > 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with what each metric means; what is not known is None."""
        about = {
            m.name: {"kind": m.kind, "higher_is_better": m.higher_is_better, "formula": m.formula, "is": m.description}
            for m in POLICY_METRICS.values()
        }
        rows = [row.to_dict() for row in self.rows]
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "rows"}
        return {**plain, "metrics": about, "rows": rows}

    def __str__(self) -> str:
        from lrensemble.tuning.judging_text import judgement_text

        return judgement_text(self)
