"""`select` and `cross_validate`, the doors to all methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lrensemble.combine import COMBINERS
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, lookup
from lrensemble.predictions import Predictions
from lrensemble.references import parse_call
from lrensemble.selection.base import MetricLike, Objective, Selection, Task, check_count
from lrensemble.selection.calibrate import calibrating, check_calibration
from lrensemble.selection.costs import costs_by_kind
from lrensemble.selection.families import among_candidates, check_families, count_candidates
from lrensemble.selection.outcome import ensemble_of
from lrensemble.selection.resplit import FOLDS, RESPLITS, Choose, CrossValidation, fewest_samples, resplit
from lrensemble.selection.spec import SelectorSpec, check_options
from lrensemble.selection.table import SELECTORS

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["check_request", "cross_validate", "select", "validation_of"]


def select(
    source: Pool | Predictions,
    *,
    method: str = "greedy",
    metric: MetricLike = "nll",
    size: int | None = None,
    rule: str = "mean_probability",
    seed: int = 0,
    resplits: int = 0,
    calibrate: str = "none",
    families: str = "free",
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
        Number of members: exact, but an upper bound for ``greedy``, ``beam``, ``convex``, ``climb`` and ``auto``. None:
        the method decides.
    rule
        How the members are combined, a key of ``COMBINERS``; teams are compared under this rule.
    seed
        Of the methods that draw at random, and of the re-splits.
    resplits
        Repeat the selection on so many re-splits of validation (20 is a good number, 0 is none) and keep what it is
        worth on samples that it did not see as ``Ensemble.resplit``; see `cross_validate`. For ``auto``, the number by
        which it compares methods.
    calibrate
        Temperature scaling on validation: ``"members"`` before the search, which then compares calibrated members;
        the ``"ensemble"`` after it; ``"both"`` or ``"none"``. The score is that of the calibrated ensemble.
    families
        What the snapshots of one training count as: ``"free"``, members like all others; ``"best"``, only the best of
        them on validation is a candidate; ``"whole"``, their mean is one candidate. `size` counts candidates.
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
    spec, objective = check_request(
        method,
        metric=metric,
        size=size,
        rule=rule,
        seed=seed,
        resplits=resplits,
        calibrate=calibrate,
        families=families,
        options=options,
    )
    task = _task(source, spec, objective, size, rule, seed, families)
    asked = {"size": size, "seed": seed, "calibrate": None if calibrate == "none" else calibrate, **options}
    asked["families"] = None if families == "free" else families
    given = {**options, "resplits": resplits} if resplits and spec.resplits else options

    def choose(task: Task) -> Ensemble:
        return ensemble_of(task, _chosen(spec, task, size, given), method=method, options=asked)

    search = calibrating(choose, calibrate)
    ensemble = search(task)
    if ensemble.resplit and calibrate != "none":
        search = calibrating(_winner(ensemble, size), calibrate)  # `auto` compares teams as they are
        return replace(ensemble, resplit={**ensemble.resplit, **_resplit(task, search, ensemble, resplits or RESPLITS)})
    if not resplits or ensemble.resplit:
        return ensemble
    return replace(ensemble, resplit=_resplit(task, search, ensemble, resplits))


def cross_validate(
    source: Pool | Predictions,
    *,
    method: str = "greedy",
    metric: MetricLike = "nll",
    size: int | None = None,
    rule: str = "mean_probability",
    seed: int = 0,
    resplits: int = RESPLITS,
    folds: int = FOLDS,
    calibrate: str = "none",
    families: str = "free",
    **options: Any,
) -> CrossValidation:
    """Score a method on validation samples that it did not choose on: what its selection is worth, and how rosy it is.

    The method chooses anew on ``folds − 1`` of `folds` parts of the validation samples, and its team is scored on the
    part that is left; each part is left out once, and the whole is repeated with other divisions until there are
    `resplits` splits. Parts are stratified by class and drawn with `seed`, so that methods meet the same splits.

    Parameters
    ----------
    source, method, metric, size, rule, seed, calibrate, families, **options
        As in `select`.
    resplits, folds
        How many selections, and how many parts; at least 2 each.

    Returns
    -------
    CrossValidation
        ``score`` on held-out samples with its standard ``error``, ``optimism``, and ``gain`` over the best single
        member; ``lead`` compares it with that of another method.

    Raises
    ------
    InputError
        As `select`, and if there are fewer than four samples a part.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> noise = Predictions.from_arrays(rng.normal(size=(50, 100, 2)), rng.integers(0, 2, 100))
    >>> found = cross_validate(noise, method="best", metric="accuracy")
    >>> round(float(np.mean(found.apparent)), 2), round(found.score, 2), round(found.optimism, 2)
    (0.61, 0.47, 0.14)
    """
    spec, objective = check_request(
        method,
        metric=metric,
        size=size,
        rule=rule,
        seed=seed,
        calibrate=calibrate,
        families=families,
        options=options,
    )
    task = _task(source, spec, objective, size, rule, seed, families)

    def choose(task: Task) -> Ensemble:
        return ensemble_of(task, _chosen(spec, task, size, options))

    return resplit(task, {method: calibrating(choose, calibrate)}, resplits=resplits, folds=folds)[method]


def _task(
    source: Pool | Predictions,
    spec: SelectorSpec,
    objective: Objective,
    size: int | None,
    rule: str,
    seed: int,
    families: str,
) -> Task:
    predictions = validation_of(source)
    if size is not None:
        check_count("size", size, 1, count_candidates(predictions, families))
    costs = costs_by_kind(source, predictions.ids) if spec.needs_costs else {}
    return Task(predictions, objective, rule, seed, costs, families)


def _chosen(spec: SelectorSpec, task: Task, size: int | None, options: Mapping[str, Any]) -> Selection:
    """Run a method among the candidates; one that re-splits itself finds them anew on each part."""
    run = partial(spec.function, size=size, **options)
    return run(task) if spec.resplits else among_candidates(run, task)


def _winner(ensemble: Ensemble, size: int | None) -> Choose:
    """Return the method that `auto` took, as a function of the task."""
    name, options = parse_call(ensemble.resplit["method"])
    spec = SELECTORS[name]
    return lambda task: ensemble_of(task, _chosen(spec, task, size if spec.takes_size else None, options))


def _resplit(task: Task, choose: Choose, ensemble: Ensemble, resplits: int) -> dict[str, Any]:
    if (enough := fewest_samples()) > task.predictions.n_samples:
        return {"not_available": f"re-splitting takes {enough} samples, there are {task.predictions.n_samples}"}
    found = resplit(task, {"": choose}, resplits=resplits)[""]
    return {**found.to_dict(), "corrected": found.corrected(ensemble.score or 0.0)}


def check_request(
    method: str,
    *,
    metric: MetricLike,
    size: int | None,
    rule: str,
    seed: int,
    resplits: int = 0,
    calibrate: str = "none",
    families: str = "free",
    options: Mapping[str, Any] | None = None,
) -> tuple[SelectorSpec, Objective]:
    """Check what needs no predictions, so that nobody trains for hours to learn of a misspelling.

    Raises
    ------
    InputError
        For a name that is in no table, a size that is below 1 or given to a method that takes none, a single re-split,
        or an option that the method does not have or that is of the wrong kind.
    """
    spec = lookup(SELECTORS, method, "selection method")
    lookup(COMBINERS, rule, "combination rule")
    check_count("seed", seed, 0)
    check_calibration(calibrate)
    check_families(families, rule)
    check_options(method, spec, options or {})
    if check_count("resplits", resplits, 0) == 1:
        raise InputError("expected resplits as 0 or at least 2, got 1: a single split has no standard error")
    if size is not None:
        check_count("size", size, 1)
        if not spec.takes_size:
            raise InputError(f"method '{method}' takes no size, got size={size}: leave it out, or use 'top-k'")
    return spec, Objective.of(metric)


def validation_of(source: Pool | Predictions) -> Predictions:
    """Return what may be chosen on: the validation predictions of a pool, or predictions that are not of test data."""
    if isinstance(source, Predictions):
        if source.is_test:
            raise InputError(
                f"expected validation predictions, got split '{source.split}': selection must not see test data"
            )
        return source
    if not callable(getattr(source, "predictions", None)):
        raise InputError(
            f"expected a pool or predictions to select from, got {type(source).__name__}: "
            "open a folder by Pool.open, wrap arrays by Predictions.from_arrays"
        )
    return source.predictions("val")
