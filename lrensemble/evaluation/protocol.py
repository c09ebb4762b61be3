"""The protocol of evaluation: check, score every system on the test data once, compare, conclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, lookup
from lrensemble.evaluation.baselines import BEST_SINGLE, System, list_systems, team_probabilities
from lrensemble.evaluation.report import Comparison, MemberScore, Report, Row, Score
from lrensemble.evaluation.statistics import bootstrap_means, mcnemar, percentile_interval
from lrensemble.evaluation.verdict import reliable_direction, write_verdict
from lrensemble.metrics import METRICS, Metric, accuracy, calibration_bins, nll
from lrensemble.predictions import Predictions, names_test

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["evaluate"]

MEAN_SINGLE = "mean single"
COVERAGES = np.arange(1, 21) / 20

Doubles = npt.NDArray[np.float64]


def evaluate(
    source: Pool | Predictions,
    ensembles: Ensemble | Sequence[Ensemble],
    *,
    validation: Predictions | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    bootstrap: int = 2000,
    confidence: float = 0.95,
) -> Report:
    """Score ensembles and their baselines on test data, with intervals and a verdict.

    Parameters
    ----------
    source
        A pool with ``val`` and ``test`` predictions; or the test predictions, with `validation` beside them.
    ensembles
        What `select` returned. The verdict is about the first one, which also lends the top-k baseline its size.
    validation
        Predictions of the same members on validation data: they decide which network is the best single one.
    metrics
        Keys of ``METRICS``; all of them when not given. Accuracy and NLL are always reported.
    seed, bootstrap, confidence
        Of the bootstrap: seed, number of resamples (at least 100), level of the intervals.

    Returns
    -------
    Report
        Nothing is written, and no input is altered.

    Raises
    ------
    InputError
        If validation data are missing, or are the test data (or bear its name), or belong to other members or another
        pool; if an ensemble was chosen on test data; or if a setting of the bootstrap is out of range.
    PoolError
        If an ensemble was chosen from another pool, or has members that are not in this one.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 400)
    >>> logits = rng.normal(size=(4, 400, 3)) + 1.5 * np.eye(3)[labels]
    >>> val = Predictions.from_arrays(logits[:, :200], labels[:200], split="val")
    >>> test = Predictions.from_arrays(logits[:, 200:], labels[200:], split="test")
    >>> report = evaluate(test, Ensemble(val.ids, (0.25,) * 4), validation=val)
    >>> report.improved
    True
    """
    teams = (ensembles,) if isinstance(ensembles, Ensemble) else tuple(ensembles)
    _check_bootstrap(bootstrap, seed, confidence)
    test, val, facts = _inputs(source, validation)
    _check(test, val, teams)
    named = (metrics,) if isinstance(metrics, str) else metrics
    asked = METRICS if named is None else dict.fromkeys(["accuracy", "nll", *named])
    chosen = [lookup(METRICS, name, "metric") for name in asked]

    members, mean_single = _score_members(test, val, teams[0], facts, chosen)
    systems = list_systems(teams, members, [facts[m.id].group for m in members if m.id in facts])
    results = [*(_score_system(system, test, val, chosen) for system in systems), mean_single]
    rows, comparisons = _compare(results, facts, resamples=bootstrap, seed=seed, confidence=confidence)

    reference = next(row for row in rows if row.system == BEST_SINGLE)
    shown = [result for result in results if result.system.name in (rows[0].system, BEST_SINGLE)]
    return Report(
        rows=rows,
        comparisons=comparisons,
        verdict=write_verdict(rows[0], reference, comparisons[0], n_test=test.n_samples, confidence=confidence),
        improved=reliable_direction(comparisons[0], confidence) > 0,
        reference=BEST_SINGLE,
        members=members,
        agreement=_agreement(test, rows[0].members),
        reliability={result.system.name: result.reliability for result in shown},
        risk_coverage={result.system.name: result.risk_coverage for result in shown},
        n_test=test.n_samples,
        n_val=val.n_samples,
        n_members=test.n_members,
        n_classes=test.n_classes,
        seed=int(seed),
        bootstrap=int(bootstrap),
        confidence=float(confidence),
        splits={"test": test.split, "validation": val.split},
        fingerprint=test.fingerprint or val.fingerprint,
    )


@dataclass(frozen=True)
class _Fact:
    """What a pool knows of a network beside predictions; `group` is equal for networks that differ in seed only."""

    policy: str
    seed: int
    parameters: int
    flops: int
    group: str


@dataclass(frozen=True, eq=False)
class _Result:
    """Scores of one system: `terms` (metric -> (N,)) of those that are means over samples, `values` of the others."""

    system: System
    terms: dict[str, Doubles]
    validation: dict[str, float]
    values: dict[str, float] = field(default_factory=dict)
    reliability: list[dict[str, float]] = field(default_factory=list)
    risk_coverage: list[dict[str, float]] = field(default_factory=list)


# --- inputs -----------------------------------------------------------------------------------------------------------


def _inputs(
    source: Pool | Predictions, validation: Predictions | None
) -> tuple[Predictions, Predictions, dict[str, _Fact]]:
    """Test and validation predictions of the same members in the same order, and what is known of the members."""
    if isinstance(source, Predictions):
        if validation is None:
            raise InputError(
                "expected validation= beside test predictions, got none: the best single network is chosen on "
                "validation data, never on test data"
            )
        if set(source.ids) != set(validation.ids):
            raise InputError("expected validation and test predictions of the same members, got different member names")
        return source, validation if source.ids == validation.ids else validation.take(source.ids), {}
    if validation is not None:
        raise InputError("expected validation= only beside bare predictions, got it beside a pool, which has its own")
    summaries = {summary.id: summary for summary in source.summaries()}
    test = source.predictions("test")
    val = source.predictions("val", test.ids)
    facts = {name: _fact(summaries[name]) for name in test.ids if name in summaries}
    return test, val, facts


def _fact(summary: Any) -> _Fact:
    # Networks of other policies, models or settings are no repetitions of each other.
    group = repr((summary.policy, summary.model, sorted(summary.config.items())))
    return _Fact(summary.policy, summary.seed, summary.parameters, summary.flops, group)


def _check(test: Predictions, val: Predictions, teams: Sequence[Ensemble]) -> None:
    if not teams or not all(isinstance(team, Ensemble) for team in teams):
        raise InputError("expected one ensemble or more, as `select` returns them, got none or something else")
    if test.fingerprint and val.fingerprint and test.fingerprint != val.fingerprint:
        raise InputError("expected validation and test predictions of the same pool, got those of different pools")
    if test.n_classes != val.n_classes:
        raise InputError(f"expected as many classes in validation as in test ({test.n_classes}), got {val.n_classes}")
    if np.array_equal(test.labels, val.labels) and np.array_equal(test.logits, val.logits):
        raise InputError("expected test data that nothing was chosen on, got the validation predictions again")
    if val.is_test:
        raise InputError(f"expected validation data to choose the best single network on, got split '{val.split}'")
    for team in teams:
        if names_test(team.split):
            raise InputError(f"expected ensembles chosen on validation data, got one chosen on split '{team.split}'")
        team.check_pool(test.fingerprint, test.ids)


def _check_bootstrap(bootstrap: int, seed: int, confidence: float) -> None:
    if not isinstance(bootstrap, int | np.integer) or bootstrap < 100:
        raise InputError(f"expected at least 100 bootstrap resamples (a whole number), got {bootstrap!r}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"expected seed as an integer ≥ 0, got {seed!r}")
    if not isinstance(confidence, Real) or not 0.5 <= confidence < 1:
        raise InputError(f"expected a confidence level of at least 0.5 and below 1, got {confidence!r}")


# --- scores -----------------------------------------------------------------------------------------------------------


def _score_members(
    test: Predictions, val: Predictions, team: Ensemble, facts: dict[str, _Fact], metrics: Sequence[Metric]
) -> tuple[tuple[MemberScore, ...], _Result]:
    """Score each network alone; also the mean over networks, for metrics that are means over samples."""
    weights = dict(zip(team.members, team.weights, strict=True))
    scores, total = [], {m.name: np.zeros(test.n_samples) for m in metrics if m.per_sample}
    for name in test.ids:
        system, fact = System.equal(name, "member", [name]), facts.get(name)
        p, on_val = team_probabilities(test, system), _accuracy_and_nll(val, system)
        for metric in metrics:
            if metric.per_sample:
                total[metric.name] += metric.per_sample(p, test.labels)
        on_test = {"accuracy": accuracy(p, test.labels), "nll": nll(p, test.labels)}
        policy, seed = (fact.policy, fact.seed) if fact else ("", None)
        scores.append(MemberScore(name, policy, seed, weights.get(name, 0.0), on_val, on_test))
    terms = {name: values / test.n_members for name, values in total.items()}
    mean = {key: float(np.mean([score.validation[key] for score in scores])) for key in ("accuracy", "nll")}
    return tuple(scores), _Result(System(MEAN_SINGLE, "baseline", (), ()), terms, mean)


def _score_system(system: System, test: Predictions, val: Predictions, metrics: Sequence[Metric]) -> _Result:
    p, y = team_probabilities(test, system), test.labels
    return _Result(
        system,
        terms={m.name: m.per_sample(p, y) for m in metrics if m.per_sample},
        validation=_accuracy_and_nll(val, system),
        values={m.name: m(p, y) for m in metrics if not m.per_sample},
        reliability=_reliability(p, y),
        risk_coverage=_risk_coverage(p, y),
    )


def _accuracy_and_nll(predictions: Predictions, system: System) -> dict[str, float]:
    p = team_probabilities(predictions, system)
    return {"accuracy": accuracy(p, predictions.labels), "nll": nll(p, predictions.labels)}


def _reliability(p: Doubles, y: npt.NDArray[np.int64]) -> list[dict[str, float]]:
    counts, confidence, right = (values.tolist() for values in calibration_bins(p, y))
    return [{"count": n, "confidence": c, "accuracy": a} for n, c, a in zip(counts, confidence, right, strict=True)]


def _risk_coverage(p: Doubles, y: npt.NDArray[np.int64]) -> list[dict[str, float]]:
    """Error rate on the most confident 5 %, 10 %, … 100 % of samples; equally confident samples share their errors."""
    _, same = np.unique(-p.max(axis=1), return_inverse=True)
    wrong = np.bincount(same, weights=p.argmax(axis=1) != y) / np.bincount(same)
    risk = np.cumsum(wrong[np.sort(same)]) / np.arange(1, len(y) + 1)
    kept = np.unique(np.ceil(COVERAGES * len(y)).astype(int))
    return [{"coverage": float(k / len(y)), "risk": float(risk[k - 1])} for k in kept]


def _agreement(test: Predictions, members: Sequence[str]) -> dict[str, Any]:
    predicted = np.stack([test.logits[row].argmax(axis=1) for row in test.indices(members)])
    matrix = [(predicted == row).mean(axis=1).tolist() for row in predicted]
    return {"members": list(members), "matrix": matrix}


# --- comparison -------------------------------------------------------------------------------------------------------


def _compare(
    results: Sequence[_Result], facts: dict[str, _Fact], *, resamples: int, seed: int, confidence: float
) -> tuple[tuple[Row, ...], tuple[Comparison, ...]]:
    """Rows with intervals, and the comparison of each with the best single network; all on the same resamples."""
    reference = next(result for result in results if result.system.name == BEST_SINGLE)
    names = list(reference.terms)
    # A difference is resampled as a score of its own: that of a system that equals the reference is exactly 0.
    terms = np.array([[result.terms[name] for name in names] for result in results])
    changes = terms - np.array([reference.terms[name] for name in names])
    columns = np.concatenate([terms, changes]).reshape(-1, terms.shape[-1])
    bounds = percentile_interval(bootstrap_means(columns.T, resamples=resamples, seed=seed), confidence)
    scores = [Score(*map(float, triple)) for triple in zip(columns.mean(axis=1), *bounds, strict=True)]
    tables = [
        dict(zip(names, scores[start : start + len(names)], strict=True)) for start in range(0, len(scores), len(names))
    ]
    rows = tuple(_row(result, table, facts) for result, table in zip(results, tables, strict=False))
    return rows, tuple(
        _comparison(result, reference, table)
        for result, table in zip(results, tables[len(results) :], strict=True)
        if result is not reference
    )


def _row(result: _Result, scores: dict[str, Score], facts: dict[str, _Fact]) -> Row:
    system = result.system
    known = [facts[name] for name in system.members if name in facts]
    complete = bool(known) and len(known) == len(system.members)
    return Row(
        system=system.name,
        role=system.role,
        size=max(1, len(system.members)),
        members=system.members,
        weights=system.weights,
        rule=system.rule,
        metrics=scores | {name: Score(value) for name, value in result.values.items()},
        validation=result.validation,
        parameters=_total([fact.parameters for fact in known]) if complete else None,
        flops=_total([fact.flops for fact in known]) if complete else None,
    )


def _total(costs: Sequence[int]) -> int | None:
    return sum(costs) if all(costs) else None  # a pool writes 0 for what it does not know


def _comparison(result: _Result, reference: _Result, changes: dict[str, Score]) -> Comparison:
    if not result.system.members:
        return Comparison(result.system.name, reference.system.name, changes)
    test = mcnemar(result.terms["accuracy"], reference.terms["accuracy"])
    return Comparison(result.system.name, reference.system.name, changes, test.wins, test.losses, test.p_value)
