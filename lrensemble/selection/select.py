"""`select`, the door to all methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lrensemble.combine import COMBINERS, combine
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, lookup
from lrensemble.predictions import Predictions
from lrensemble.selection.base import MetricLike, Objective, Selection, Task, check_count
from lrensemble.selection.table import SELECTORS, SelectorSpec

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["check_request", "select"]


def select(
    source: Pool | Predictions,
    *,
    method: str = "greedy",
    metric: MetricLike = "nll",
    size: int | None = None,
    rule: str = "mean_probability",
    seed: int = 0,
    **options: Any,
) -> Ensemble:
    """Choose an ensemble on validation data.

    Parameters
    ----------
    source
        A pool, of which only ``source.predictions("val")`` is asked; or predictions, of any split but one that is test
        data by its name.
    method
        A key of `SELECTORS`.
    metric
        What is optimised: a key of ``METRICS``, or a callable ``(probabilities (N, C), labels (N,)) -> float`` that is
        to be maximised. Teams of equal accuracy are compared by NLL; then, as with every metric, the smaller team and
        then the one with lower indices comes first.
    size
        Number of members: exact, but an upper bound for ``greedy``. None: the method decides.
    rule
        How the members are combined, a key of ``COMBINERS``; teams are compared under this rule.
    seed
        Of the methods that draw at random.
    **options
        Of the method; ``SELECTORS[method].options`` names them.

    Returns
    -------
    Ensemble
        Members in the order of the pool with weights > 0; ``score`` is the metric on validation, as it is.

    Raises
    ------
    InputError
        On test predictions, an unknown name or option, or a size that the pool or the method does not allow.

    Examples
    --------
    >>> p = Predictions.from_arrays(probabilities=[[[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.1, 0.9]]], labels=[0, 1])
    >>> team = select(p, method="exhaustive", metric="accuracy")
    >>> team.members, team.score
    (('m0', 'm1'), 1.0)
    """
    spec, objective = check_request(method, metric=metric, size=size, rule=rule, seed=seed)
    _check_options(method, spec, options)
    predictions = _validation(source)
    if size is not None:
        check_count("size", size, 1, predictions.n_members)
    selection = spec.function(Task(predictions, objective, rule, seed), size, **options)
    return _ensemble(predictions, objective, rule, method, {"size": size, "seed": seed, **options}, selection)


def check_request(
    method: str, *, metric: MetricLike, size: int | None, rule: str, seed: int
) -> tuple[SelectorSpec, Objective]:
    """Check what needs no predictions, so that nobody trains for hours to learn of a misspelling.

    Raises
    ------
    InputError
        For a name that is in no table, or a size that is below 1 or given to a method that takes none.
    """
    spec = lookup(SELECTORS, method, "selection method")
    lookup(COMBINERS, rule, "combination rule")
    check_count("seed", seed, 0)
    if size is not None:
        check_count("size", size, 1)
        if not spec.takes_size:
            raise InputError(f"method '{method}' takes no size, got size={size}: leave it out, or use 'top-k'")
    return spec, Objective.of(metric)


def _validation(source: Pool | Predictions) -> Predictions:
    if isinstance(source, Predictions):
        if source.is_test:
            raise InputError(
                f"expected validation predictions, got split '{source.split}': selection must not see test data"
            )
        return source
    if not callable(getattr(source, "predictions", None)):
        raise InputError(f"expected a pool or predictions to select from, got {type(source).__name__}")
    return source.predictions("val")


def _check_options(method: str, spec: SelectorSpec, options: dict[str, Any]) -> None:
    for name in options:
        if name not in spec.options:
            known = ", ".join(spec.options) or "none"
            raise InputError(f"method '{method}' has no option '{name}': its options are {known}")


def _ensemble(
    predictions: Predictions, objective: Objective, rule: str, method: str, options: dict[str, Any], chosen: Selection
) -> Ensemble:
    team = np.flatnonzero(chosen.weights)
    weights = chosen.weights[team]
    combined = combine(predictions.probabilities[team], weights, rule)
    return Ensemble(
        members=tuple(predictions.ids[i] for i in team),
        weights=tuple(weights.tolist()),
        rule=rule,
        method=method,
        metric=objective.name,
        options={name: _plain(value) for name, value in options.items() if value is not None},
        split=predictions.split,
        score=objective.value(combined, predictions.labels),
        n_samples=predictions.n_samples,
        n_candidates=predictions.n_members,
        fingerprint=predictions.fingerprint,
        trace=tuple({"member": predictions.ids[i], "score": objective.as_metric(score)} for i, score in chosen.steps),
        reason=chosen.reason,
    )


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers into Python's, which JSON has a form for."""
    return value.item() if isinstance(value, np.generic) else value
