"""The protocol of evaluation: check, score every system on the test data once, compare, conclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, lookup
from lrensemble.evaluation.baselines import BEST_SINGLE, WHOLE_POOL, System, list_systems, oracle_team
from lrensemble.evaluation.control import score_controls
from lrensemble.evaluation.equivalent import deep_equivalents
from lrensemble.evaluation.report import MemberScore, Report
from lrensemble.evaluation.scores import (
    Bootstrap,
    Fact,
    Result,
    accuracy_and_nll,
    compare,
    compare_two,
    facts_of,
    score_system,
)
from lrensemble.evaluation.shifts import ShiftLike, open_shift, score_shift
from lrensemble.evaluation.verdict import reliable_direction, write_verdict
from lrensemble.metrics import METRICS, Metric, accuracy, nll
from lrensemble.predictions import Predictions, names_test

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["evaluate"]

MEAN_SINGLE = "mean single"


def evaluate(
    source: Pool | Predictions,
    ensembles: Ensemble | Sequence[Ensemble],
    *,
    validation: Predictions | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    shifts: Mapping[str, ShiftLike] | None = None,
    control: Pool | tuple[Predictions, Predictions] | None = None,
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
    shifts
        Outputs of the same members on further splits, by the name of the split: predictions, or arrays ``logits`` or
        ``probabilities`` (M, N, C) by name, with ``labels`` (N,) unless these are unknown (data of no known class), and
        ``members`` (M,), their names, unless they are in the order of `source`.
    control
        A pool trained on the same data with one policy and other seeds (or its validation and test predictions): the
        ensembles' methods are repeated on it.

    Returns
    -------
    Report
        Nothing is written, and no input is altered.

    Raises
    ------
    InputError
        If validation data are missing, or are the test data (or bear its name), or belong to other members or another
        pool; if an ensemble was chosen on test data; if further splits or the control do not fit the pool; or if a
        setting of the bootstrap is out of range.
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

    opened = {name: open_shift(name, value, test) for name, value in (shifts or {}).items()}
    intervals = Bootstrap(int(bootstrap), int(seed), float(confidence))

    members, mean_single = _score_members(test, val, teams[0], facts, chosen)
    systems = list_systems(teams, members, _groups(members, facts, test))
    systems += oracle_team(test, len(teams[0]))
    scored = [score_system(system, test, val, chosen, facts) for system in systems]
    controls = score_controls(control, systems, test, chosen) if control is not None else []
    results = [*scored, *controls, mean_single]
    single = next(result for result in scored if result.system.name == BEST_SINGLE)
    rows, comparisons = compare(results, single, intervals)

    reference = next(row for row in rows if row.system == BEST_SINGLE)
    shown = [scored[0], single]
    everywhere = [s for s in systems if s.role == "ensemble" or s.name in (BEST_SINGLE, WHOLE_POOL)]
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
        networks=max((facts[name].networks for name in test.ids if name in facts), default=1),
        seed=int(seed),
        bootstrap=int(bootstrap),
        confidence=float(confidence),
        splits={"test": test.split, "validation": val.split},
        fingerprint=test.fingerprint or val.fingerprint,
        deep_equivalent=deep_equivalents(test, systems[: len(teams)], int(seed)),
        controls=tuple(compare_two(ours, theirs, intervals) for ours, theirs in zip(scored, controls, strict=False)),
        shifts=tuple(score_shift(name, shift, test, everywhere, intervals) for name, shift in opened.items()),
    )


# --- inputs -----------------------------------------------------------------------------------------------------------


def _inputs(
    source: Pool | Predictions, validation: Predictions | None
) -> tuple[Predictions, Predictions, dict[str, Fact]]:
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
    test = source.predictions("test")
    return test, source.predictions("val", test.ids), facts_of(source.summaries())


def _check(test: Predictions, val: Predictions, teams: Sequence[Ensemble]) -> None:
    if not teams or not all(isinstance(team, Ensemble) for team in teams):
        raise InputError("expected one ensemble or more, as `select` returns them, got none or something else")
    if test.fingerprint and val.fingerprint and test.fingerprint != val.fingerprint:
        raise InputError("expected validation and test predictions of the same pool, got those of different pools")
    if test.n_classes != val.n_classes:
        raise InputError(f"expected as many classes in validation as in test ({test.n_classes}), got {val.n_classes}")
    if np.array_equal(test.labels, val.labels) and _same_outputs(test, val):
        raise InputError("expected test data that nothing was chosen on, got the validation predictions again")
    if val.is_test:
        raise InputError(f"expected validation data to choose the best single network on, got split '{val.split}'")
    for team in teams:
        if names_test(team.split):
            raise InputError(f"expected ensembles chosen on validation data, got one chosen on split '{team.split}'")
        team.check_pool(test.fingerprint, test.ids)


def _same_outputs(test: Predictions, val: Predictions) -> bool:
    return all(np.array_equal(test.member_logits(j), val.member_logits(j)) for j in range(test.n_members))


def _check_bootstrap(bootstrap: int, seed: int, confidence: float) -> None:
    if not isinstance(bootstrap, int | np.integer) or bootstrap < 100:
        raise InputError(f"expected at least 100 bootstrap resamples (a whole number), got {bootstrap!r}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"expected seed as an integer ≥ 0, got {seed!r}")
    if not isinstance(confidence, Real) or not 0.5 <= confidence < 1:
        raise InputError(f"expected a confidence level of at least 0.5 and below 1, got {confidence!r}")


# --- scores -----------------------------------------------------------------------------------------------------------


def _score_members(
    test: Predictions, val: Predictions, team: Ensemble, facts: dict[str, Fact], metrics: Sequence[Metric]
) -> tuple[tuple[MemberScore, ...], Result]:
    """Score each network alone; also the mean over networks, for metrics that are means over samples.

    Snapshots are left out of the mean: it says what one training yields.
    """
    last = {test.ids[j] for j in test.independent} or set(test.ids)
    weights = dict(zip(team.members, team.weights, strict=True))
    scores, total = [], {m.name: np.zeros(test.n_samples) for m in metrics if m.per_sample}
    for name in test.ids:
        system, fact = System.equal(name, "member", [name]), facts.get(name)
        p, on_val = Ensemble((name,), (1.0,)).probabilities(test), accuracy_and_nll(system, val)
        for metric in metrics:
            if metric.per_sample and name in last:
                total[metric.name] += metric.per_sample(p, test.labels)
        on_test = {"accuracy": accuracy(p, test.labels), "nll": nll(p, test.labels)}
        policy, seed = (fact.policy, fact.seed) if fact else ("", None)
        scores.append(MemberScore(name, policy, seed, weights.get(name, 0.0), on_val, on_test))
    terms = {name: values / len(last) for name, values in total.items()}
    ends = [score.validation for score in scores if score.id in last]
    mean = {key: float(np.mean([values[key] for values in ends])) for key in ("accuracy", "nll")}
    return tuple(scores), Result(System(MEAN_SINGLE, "baseline"), terms, mean)


def _groups(members: Sequence[MemberScore], facts: Mapping[str, Fact], test: Predictions) -> list[str]:
    """Say what trained each network; each snapshot is a group of its own, as it repeats no training. Empty: unknown."""
    last = {test.ids[j] for j in test.independent}
    return [facts[m.id].group if m.id in last else f"snapshot {m.id}" for m in members if m.id in facts]


def _agreement(test: Predictions, members: Sequence[str]) -> dict[str, Any]:
    predicted = test.predicted[test.indices(members)]
    matrix = [(predicted == row).mean(axis=1).tolist() for row in predicted]
    return {"members": list(members), "matrix": matrix}
