"""Scores of one system on one set of samples, and their bootstrap intervals beside those of other systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.evaluation.baselines import System
from lrensemble.evaluation.report import Comparison, Row, Score
from lrensemble.evaluation.statistics import bootstrap_means, mcnemar, percentile_interval
from lrensemble.metrics import Metric, accuracy, calibration_bins, nll
from lrensemble.predictions import Predictions

__all__ = ["Bootstrap", "Fact", "Result", "accuracy_and_nll", "compare", "compare_two", "facts_of", "score_system"]

COVERAGES = 20  # steps of a risk–coverage curve

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the intervals: number of resamples, seed, level."""

    resamples: int
    seed: int
    confidence: float


@dataclass(frozen=True)
class Fact:
    """What a pool knows of a member beside predictions.

    Attributes
    ----------
    policy, seed, parameters, flops
        As in `Member`.
    group
        Equal for members that differ in seed only.
    networks
        How many it consists of: more than one with folds.
    """

    policy: str
    seed: int
    parameters: int
    flops: int
    group: str
    networks: int = 1


@dataclass(frozen=True, eq=False)
class Result:
    """Scores of one system: `terms` (metric -> (N,)) of those that are means over samples, `values` of the others."""

    system: System
    terms: dict[str, Doubles]
    validation: dict[str, float]
    values: dict[str, float] = field(default_factory=dict)
    reliability: list[dict[str, float]] = field(default_factory=list)
    risk_coverage: list[dict[str, float]] = field(default_factory=list)
    facts: Mapping[str, Fact] = field(default_factory=dict)


def facts_of(summaries: Sequence[Any]) -> dict[str, Fact]:
    """Return what the summaries of a pool's members tell, by name."""
    # Networks of other policies, models or settings are no repetitions of each other.
    return {
        s.id: Fact(
            s.policy,
            s.seed,
            s.parameters,
            s.flops,
            repr((s.policy, s.model, sorted(s.config.items()))),
            _networks(s.config),
        )
        for s in summaries
    }


def _networks(config: Mapping[str, Any]) -> int:
    """Return how many networks a member of this config consists of; imported pools may hold anything there."""
    folds = config.get("folds")
    return folds if isinstance(folds, int) and folds > 1 else 1


def score_system(
    system: System, test: Predictions, val: Predictions, metrics: Sequence[Metric], facts: Mapping[str, Fact]
) -> Result:
    """Score a system that has a team."""
    p, y = system.probabilities(test), test.labels
    return Result(
        system,
        terms={m.name: m.per_sample(p, y) for m in metrics if m.per_sample},
        validation=accuracy_and_nll(system, val),
        values={m.name: m(p, y) for m in metrics if not m.per_sample},
        reliability=_reliability(p, y),
        risk_coverage=_risk_coverage(p, y),
        facts=facts,
    )


def accuracy_and_nll(system: System, predictions: Predictions) -> dict[str, float]:
    """Accuracy and NLL of a system that has a team."""
    p = system.probabilities(predictions)
    return {"accuracy": accuracy(p, predictions.labels), "nll": nll(p, predictions.labels)}


def compare(
    results: Sequence[Result], reference: Result, bootstrap: Bootstrap
) -> tuple[tuple[Row, ...], tuple[Comparison, ...]]:
    """Rows with intervals, and the comparison of each with the reference; all on the same resamples."""
    names = list(reference.terms)
    # A difference is resampled as a score of its own: that of a system that equals the reference is exactly 0.
    terms = np.array([[result.terms[name] for name in names] for result in results])
    changes = terms - np.array([reference.terms[name] for name in names])
    tables = _intervals(names, np.concatenate([terms, changes]), bootstrap)
    rows = tuple(_row(result, table) for result, table in zip(results, tables, strict=False))
    return rows, tuple(
        _comparison(result, reference, table)
        for result, table in zip(results, tables[len(results) :], strict=True)
        if result is not reference
    )


def compare_two(first: Result, second: Result, bootstrap: Bootstrap) -> Comparison:
    """Compare a result with another one on the same samples."""
    names = list(first.terms)
    change = np.array([[first.terms[name] - second.terms[name] for name in names]])
    return _comparison(first, second, _intervals(names, change, bootstrap)[0])


def _intervals(names: Sequence[str], terms: Doubles, bootstrap: Bootstrap) -> list[dict[str, Score]]:
    """Mean and interval of each of (S, T, N) terms: for each of S a table of T scores by name."""
    columns = terms.reshape(-1, terms.shape[-1])
    means = bootstrap_means(columns.T, resamples=bootstrap.resamples, seed=bootstrap.seed)
    bounds = percentile_interval(means, bootstrap.confidence)
    scores = [Score(*map(float, triple)) for triple in zip(columns.mean(axis=1), *bounds, strict=True)]
    step = len(names)
    return [dict(zip(names, scores[i : i + step], strict=True)) for i in range(0, len(scores), step)]


def _row(result: Result, scores: dict[str, Score]) -> Row:
    system, team = result.system, result.system.team
    known = [result.facts[name] for name in system.members if name in result.facts]
    complete = bool(known) and len(known) == len(system.members)
    return Row(
        system=system.name,
        role=system.role,
        size=max(1, len(system.members)),
        members=system.members,
        weights=team.weights if team else (),
        rule="stacking" if team and team.stacker else team.rule if team else "mean_probability",
        metrics=scores | {name: Score(value) for name, value in result.values.items()},
        validation=result.validation,
        parameters=_total([fact.parameters for fact in known]) if complete else None,
        flops=_total([fact.flops for fact in known]) if complete else None,
    )


def _total(costs: Sequence[int]) -> int | None:
    return sum(costs) if all(costs) else None  # a pool writes 0 for what it does not know


def _comparison(result: Result, reference: Result, changes: dict[str, Score]) -> Comparison:
    if not result.system.members:
        return Comparison(result.system.name, reference.system.name, changes)
    test = mcnemar(result.terms["accuracy"], reference.terms["accuracy"])
    return Comparison(result.system.name, reference.system.name, changes, test.wins, test.losses, test.p_value)


def _reliability(p: Doubles, y: npt.NDArray[np.int64]) -> list[dict[str, float]]:
    counts, confidence, right = (values.tolist() for values in calibration_bins(p, y))
    return [{"count": n, "confidence": c, "accuracy": a} for n, c, a in zip(counts, confidence, right, strict=True)]


def _risk_coverage(p: Doubles, y: npt.NDArray[np.int64]) -> list[dict[str, float]]:
    """Error rate on the most confident 5 %, 10 %, … 100 % of samples; equally confident samples share their errors."""
    _, same = np.unique(-p.max(axis=1), return_inverse=True)
    wrong = np.bincount(same, weights=p.argmax(axis=1) != y) / np.bincount(same)
    risk = np.cumsum(wrong[np.sort(same)]) / np.arange(1, len(y) + 1)
    kept = np.unique(-(-np.arange(1, COVERAGES + 1) * len(y) // COVERAGES))  # rounded up, in whole numbers
    return [{"coverage": float(k / len(y)), "risk": float(risk[k - 1])} for k in kept]
