"""What members cost to use: networks, parameters, floating-point operations, seconds, or the user's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Task

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["COSTS", "CostLike", "cost_name", "costs_by_kind", "costs_of"]

Doubles = npt.NDArray[np.float64]
CostLike = str | Mapping[str, float]
COSTS = {
    "members": "networks to run",
    "parameters": "trainable parameters",
    "flops": "floating-point operations of one forward pass of one sample",
    "seconds": "seconds of one forward pass of one sample, as measured when the member was stored",
}


def costs_by_kind(source: Pool | Predictions, ids: tuple[str, ...]) -> dict[str, Doubles]:
    """Costs of the named members by kind, as far as the pool knows them of every member; none of bare predictions."""
    if isinstance(source, Predictions):
        return {}
    found = {summary.id: summary for summary in source.summaries()}
    table = {
        "parameters": [found[name].parameters for name in ids],
        "flops": [found[name].flops for name in ids],
        "seconds": [found[name].extra.get("seconds_per_sample", 0) for name in ids],
    }
    numbers = {kind: np.array(values, dtype=np.float64) for kind, values in table.items()}
    return {kind: values for kind, values in numbers.items() if values.min() > 0}  # 0 stands for unknown


def costs_of(task: Task, cost: CostLike) -> Doubles:
    """Cost of each member of the task, shape (M,).

    Parameters
    ----------
    cost
        A key of `COSTS`; or a number for each member, by its name.

    Raises
    ------
    UnknownNameError
        If there is no such kind.
    InputError
        If the pool does not know this cost of every member, or the numbers are not one finite number ≥ 0 a member.
    """
    if isinstance(cost, Mapping):
        return _own(task.predictions.ids, cost)
    if cost == "members":
        return np.ones(task.n_members)
    lookup(COSTS, str(cost), "cost")
    if cost not in task.costs:
        raise InputError(
            f"expected to know the {cost} of every member, got a pool or predictions without them: "
            "give a number for each member as cost={name: number}, or use cost='members'"
        )
    return task.costs[cost]


def cost_name(cost: CostLike) -> str:
    """Name of a cost, for sentences."""
    return cost if isinstance(cost, str) else "as given"


def _own(ids: tuple[str, ...], cost: Mapping[str, float]) -> Doubles:
    missing = [name for name in ids if name not in cost]
    if missing:
        raise InputError(f"expected a cost for each of the {len(ids)} members, got none for '{missing[0]}'")
    try:
        values = np.array([cost[name] for name in ids], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("expected costs as numbers, got something else") from None
    if values.shape != (len(ids),) or not np.isfinite(values).all() or values.min() < 0:
        raise InputError("expected costs that are finite and ≥ 0, one number a member, got others")
    return values
