"""Calibration around a selection: members before the search, so that it sees calibrated ones; the ensemble after it.

All temperatures are fitted on the samples that the selection is made on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lrensemble.calibration import safe_temperature, tempered
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Task
from lrensemble.stacker import log_probabilities

__all__ = ["CALIBRATIONS", "calibrating", "check_calibration"]

CALIBRATIONS = ("none", "members", "ensemble", "both")

Choose = Callable[[Task], Ensemble]


def check_calibration(calibrate: object) -> str:
    """Return `calibrate` if it is one of `CALIBRATIONS`, else raise `InputError`."""
    if calibrate not in CALIBRATIONS:
        raise InputError(f"expected calibrate as one of {', '.join(CALIBRATIONS)}, got {calibrate!r}")
    return str(calibrate)


def calibrating(choose: Choose, calibrate: str) -> Choose:
    """Choose among calibrated members, calibrate the team that is chosen, or both; ``"none"`` gives `choose` itself."""
    if calibrate == "none":
        return choose

    def choose_and_calibrate(task: Task) -> Ensemble:
        team = choose(task) if calibrate == "ensemble" else _of_calibrated_members(choose, task)
        if calibrate != "members":
            team = _calibrated(team, task.predictions)
        score = task.objective.value(team.probabilities(task.predictions), task.predictions.labels)
        return replace(team, score=score)

    return choose_and_calibrate


def _of_calibrated_members(choose: Choose, task: Task) -> Ensemble:
    """Let `choose` see each member at its temperature, and keep those of the team."""
    predictions = task.predictions
    right = np.array([bool(hits.all()) for hits in predictions.correct])
    members = range(predictions.n_members)
    temperatures = np.array([safe_temperature(predictions.member_logits(j), predictions.labels) for j in members])
    team = choose(replace(task, predictions=tempered(predictions, temperatures)))
    rows = predictions.indices(team.members)
    spoilt = int(right[rows].sum())
    note = f"{spoilt} of its members are right on every sample and keep temperature 1" if spoilt else ""
    return replace(team, temperatures=tuple(temperatures[rows].tolist()), reason=_joined(team.reason, note))


def _calibrated(team: Ensemble, predictions: Predictions) -> Ensemble:
    """Return the team with the temperature that its combined probabilities have the least NLL at."""
    p = team.probabilities(predictions)
    right = (p.argmax(axis=1) == predictions.labels).all()
    temperature = safe_temperature(log_probabilities(p), predictions.labels)
    note = "it is right on every sample and keeps temperature 1" if right else ""
    return replace(team, temperature=temperature, reason=_joined(team.reason, note))


def _joined(*sentences: str) -> str:
    return "; ".join(filter(None, sentences))
