"""Further splits: the same networks on shifted data (with labels), or on data of no known class (without)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.evaluation.baselines import BEST_SINGLE, System
from lrensemble.evaluation.report import Shift, ShiftScore
from lrensemble.evaluation.scores import Bootstrap, compare, score_system
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions

__all__ = ["ShiftLike", "detection", "open_shift", "score_shift"]

KEYS = ("logits", "probabilities", "labels", "members")
SCORED = ("accuracy", "nll", "ece")

ShiftLike = Predictions | Mapping[str, Any]
Doubles = npt.NDArray[np.float64]


def open_shift(name: str, value: ShiftLike, test: Predictions) -> tuple[Predictions, bool]:
    """Predictions of the pool's members, in the order of `test`, and whether their labels are known.

    Parameters
    ----------
    name
        Of the split, for messages.
    value
        Predictions; or arrays by name: ``logits`` or ``probabilities`` (M, N, C), ``labels`` (N,) (left out, or −1
        throughout: unknown), ``members`` (M,), names (left out: the members of the pool in its order).

    Raises
    ------
    InputError
        If they are not predictions of all members of the pool and its classes.
    """
    if isinstance(value, Predictions):
        given, labelled = value, True
    elif isinstance(value, Mapping):
        given, labelled = _from_arrays(name, value, test)
    else:
        raise InputError(f"split '{name}': expected predictions or arrays by name, got {type(value).__name__}")
    missing = [member for member in test.ids if member not in given.ids]
    if missing or given.n_classes != test.n_classes:
        raise InputError(
            f"split '{name}': expected outputs of all {test.n_members} networks of the pool on {test.n_classes} "
            f"classes, got {given.n_members} networks{f' without {missing[0]!r}' if missing else ''} on "
            f"{given.n_classes} classes"
        )
    ordered = given if given.ids == test.ids else given.take(test.ids)
    return ordered, labelled


def score_shift(
    name: str, shift: tuple[Predictions, bool], test: Predictions, systems: Sequence[System], bootstrap: Bootstrap
) -> Shift:
    """Score systems, the best single network among them, on one more split."""
    predictions, labelled = shift
    if not labelled:
        scores = tuple(ShiftScore(system.name, {}, None, detection(system, test, predictions)) for system in systems)
        return Shift(name, predictions.n_samples, False, scores)
    metrics = [METRICS[metric] for metric in SCORED]
    results = [score_system(system, predictions, predictions, metrics, {}) for system in systems]
    reference = next(result for result in results if result.system.name == BEST_SINGLE)
    rows, comparisons = compare(results, reference, bootstrap)
    gains = {comparison.system: comparison.differences["accuracy"] for comparison in comparisons}
    kept = tuple(ShiftScore(row.system, row.metrics, gains.get(row.system)) for row in rows)
    return Shift(name, predictions.n_samples, True, kept)


def detection(system: System, test: Predictions, other: Predictions) -> dict[str, float]:
    """How well a system tells `other` data from test data by its own doubt: areas under the ROC curve.

    By ``"confidence"``, the highest probability (Hendrycks & Gimpel 2017), and by the ``"entropy"`` of the
    probabilities; 0.5 is chance, 1 means that it doubts every sample of `other` more than any test sample.
    """
    from sklearn.metrics import roc_auc_score

    inside, outside = system.probabilities(test), system.probabilities(other)
    is_other = np.repeat([0, 1], [len(inside), len(outside)])
    p = np.concatenate([inside, outside])
    doubts = {"confidence": -p.max(axis=1), "entropy": _entropy(p)}
    return {kind: float(roc_auc_score(is_other, doubt)) for kind, doubt in doubts.items()}


def _entropy(p: Doubles) -> Doubles:
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    return -np.einsum("nc,nc->n", p, logs)


def _from_arrays(name: str, arrays: Mapping[str, Any], test: Predictions) -> tuple[Predictions, bool]:
    unknown = [key for key in arrays if key not in KEYS]
    if unknown or ("logits" in arrays) == ("probabilities" in arrays):
        raise InputError(
            f"split '{name}': expected the array 'logits' or 'probabilities', and beside it 'labels' and 'members' at "
            f"most, got {', '.join(map(repr, arrays)) or 'none'}"
        )
    outputs = {key: np.asarray(arrays[key]) for key in ("logits", "probabilities") if key in arrays}
    shape = next(iter(outputs.values())).shape
    others = len(shape) == 3 and "members" not in arrays and shape[0] != test.n_members
    if len(shape) != 3 or others or shape[2] != test.n_classes:
        hint = ": name the networks in an array 'members' if they are others" if others else ""
        raise InputError(
            f"split '{name}': expected outputs of shape ({test.n_members}, samples, {test.n_classes}), one for each "
            f"network of the pool, got {shape}{hint}"
        )
    labels = np.full(shape[1], -1) if "labels" not in arrays else np.asarray(arrays["labels"])
    without = np.asarray(labels == -1)
    labelled = not (without.shape == shape[1:2] and without.all())
    try:
        predictions = Predictions.from_arrays(
            **outputs,  # type: ignore[arg-type]
            labels=labels if labelled else np.zeros(shape[1], dtype=np.int64),  # never looked at
            ids=list(map(str, np.asarray(arrays.get("members", test.ids)))),
            split=name,
        )
    except InputError as error:
        raise InputError(f"split '{name}': {error}") from None
    return predictions, labelled
