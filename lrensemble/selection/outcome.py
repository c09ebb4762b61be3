"""From the weights that a method returns to the `Ensemble` that a caller gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.ensemble import Ensemble
from lrensemble.metrics import nll_of_true_class
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Selection, Task

__all__ = ["ensemble_of", "team_probabilities"]


def ensemble_of(
    task: Task, chosen: Selection, *, method: str = "", options: Mapping[str, Any] | None = None
) -> Ensemble:
    """Return the team that a method chose, scored on the samples that it was chosen on."""
    predictions, objective = task.predictions, task.objective
    team = np.flatnonzero(chosen.weights)
    weights = chosen.weights[team]
    ensemble = Ensemble(
        members=tuple(predictions.ids[i] for i in team),
        weights=tuple(weights.tolist()),
        rule=task.rule,
        method=method,
        metric=objective.name,
        options={name: _plain(value) for name, value in (options or {}).items() if value is not None},
        split=predictions.split,
        n_samples=predictions.n_samples,
        n_candidates=predictions.n_members,
        fingerprint=predictions.fingerprint,
        trace=tuple({"member": predictions.ids[i], "score": objective.as_metric(score)} for i, score in chosen.steps),
        reason=chosen.reason,
        stacker=chosen.stacker,
        resplit=dict(chosen.resplit),
    )
    return replace(ensemble, score=_score(ensemble, task))


def _score(ensemble: Ensemble, task: Task) -> float:
    if task.objective.is_metric("nll"):
        return nll_of_true_class(ensemble.true_class(task.predictions))
    return task.objective.value(ensemble.probabilities(task.predictions), task.predictions.labels)


def team_probabilities(
    predictions: Predictions, team: Sequence[int] | npt.NDArray[np.integer], rule: str
) -> npt.NDArray[np.float64]:
    """Probabilities of a team of equal weights, shape (N, C); its members are read one by one."""
    members = tuple(predictions.ids[i] for i in sorted(team))
    return Ensemble(members, (1 / len(members),) * len(members), rule).probabilities(predictions)


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers into Python's, and tuples into lists, which JSON has a form for."""
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return value.item() if isinstance(value, np.generic) else value
