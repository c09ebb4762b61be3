"""Explanations: every number against its definition by whole ensembles, for all methods and rules; and the text."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from lrensemble.calibration import fit_temperature, tempered
from lrensemble.combine import COMBINERS
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, PoolError, UnknownNameError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection import SELECTORS, explain, select


def a_pool(members=6, samples=90, classes=3, seed=0, split="val", names=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    shared = rng.normal(size=(samples, classes)) + 1.2 * np.eye(classes)[labels]
    logits = shared + rng.normal(size=(members, samples, classes)) * rng.uniform(0.5, 2, (members, 1, 1))
    return Predictions.from_arrays(logits, labels, split=split, fingerprint="f" * 64, ids=names)


def value(ensemble, p, metric):
    return METRICS[metric](ensemble.probabilities(p), p.labels)


def without(ensemble, name):
    rest = [i for i, member in enumerate(ensemble.members) if member != name]
    weights = np.array([ensemble.weights[i] for i in rest])
    heat = tuple(ensemble.temperatures[i] for i in rest) if ensemble.temperatures else ()
    names = tuple(ensemble.members[i] for i in rest)
    return replace(ensemble, members=names, weights=tuple(weights / weights.sum()), temperatures=heat)


def with_one_more(ensemble, name, temperature=1.0):
    weights = np.array([*ensemble.weights, np.mean(ensemble.weights)])
    heat = (*ensemble.temperatures, temperature) if ensemble.temperatures else ()
    names = (*ensemble.members, name)
    return replace(ensemble, members=names, weights=tuple(weights / weights.sum()), temperatures=heat)


def check(found, ensemble, p, metric):
    now = value(ensemble, p, metric)
    assert found.score == pytest.approx(now, abs=1e-12)
    assert {role.member for role in found.team} == set(ensemble.members)
    assert {role.member for role in found.others} == set(p.ids) - set(ensemble.members)
    for role in found.team:
        assert role.weight == ensemble.weights[ensemble.members.index(role.member)]
        if len(ensemble) > 1:
            assert role.change == pytest.approx(value(without(ensemble, role.member), p, metric) - now, abs=2e-6)
        else:
            assert (role.change, role.similar) == (None, None)
    for other in found.others:
        heat = fit_temperature(p.logits[p.ids.index(other.member)], p.labels) if ensemble.temperatures else 1.0
        expected = value(with_one_more(ensemble, other.member, heat), p, metric) - now
        assert other.change == pytest.approx(expected, abs=2e-6)
    json.dumps(found.to_dict(), allow_nan=False)
    assert max(map(len, str(found).splitlines())) <= 100


@pytest.mark.parametrize("rule", COMBINERS)
@pytest.mark.parametrize("metric", ["nll", "accuracy", "macro_f1"])
def test_changes_are_those_of_the_whole_ensemble(rule, metric):
    p = a_pool()
    ensemble = select(p, metric=metric, rule=rule, rounds=8, replacement=True)
    check(explain(p, ensemble), ensemble, p, metric)


@pytest.mark.parametrize("calibrate", ["members", "ensemble", "both"])
@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_changes_of_calibrated_ensembles(calibrate, metric):
    p = a_pool()
    ensemble = select(p, method="top-k", size=3, metric=metric, calibrate=calibrate)
    check(explain(p, ensemble), ensemble, p, metric)


@pytest.mark.parametrize("method", SELECTORS)
def test_every_method_can_be_explained(method):
    p = a_pool(5, 60)
    ensemble = select(p, method=method)
    found = explain(p, ensemble)
    assert (found.method, found.reason, found.metric) == (method, ensemble.reason, "nll")
    if ensemble.stacker is None:
        check(found, ensemble, p, "nll")
    else:
        assert {role.change for role in (*found.team, *found.others)} == {None}
        assert "stacker" in str(found)


def test_own_scores_ranks_and_likeness():
    p = a_pool(7, 120)
    ensemble = select(p, method="top-k", size=3)
    found = explain(p, ensemble)
    entries = {entry.member: entry for entry in (*found.team, *found.others)}
    own = [METRICS["nll"](p.probabilities[j].astype(float), p.labels) for j in range(7)]
    for j, name in enumerate(p.ids):
        assert entries[name].score == pytest.approx(own[j], abs=1e-6)
        assert entries[name].rank == 1 + sum(score < own[j] for score in own)
        agreement = {m: np.mean(p.predicted[j] == p.predicted[p.ids.index(m)]) for m in ensemble.members if m != name}
        assert entries[name].agreement == pytest.approx(max(agreement.values()))
        assert agreement[entries[name].similar] == max(agreement.values())
    changes = [other.change for other in found.others]
    assert changes == sorted(changes)  # what would lower NLL most comes first
    by_accuracy = explain(p, ensemble, metric="accuracy")
    changes = [other.change for other in by_accuracy.others]
    assert changes == sorted(changes, reverse=True)
    assert by_accuracy.rounds == ()  # the trace is in another metric


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_rounds_and_their_gains(metric):
    p = a_pool()
    ensemble = select(p, metric=metric, keep_best=False, rounds=6)
    found = explain(p, ensemble)
    sign = 1 if METRICS[metric].higher_is_better else -1
    scores = [step["score"] for step in ensemble.trace]
    assert [step.score for step in found.rounds] == scores
    assert found.rounds[0].gain is None
    np.testing.assert_allclose([step.gain for step in found.rounds[1:]], sign * np.diff(scores))
    order = [step["member"] for step in ensemble.trace]
    for role in found.team:
        first = order.index(role.member)
        assert (role.round, role.gain) == (first + 1, found.rounds[first].gain)


def test_what_is_left_of_a_heavy_member_is_not_rounding():
    """Without m0, whose weight is 1 up to rounding, the others decide, however small what they say."""
    own = np.array([[0.9, 0.8], [1e-20, 1e-12], [1e-24, 0.5]])
    p = Predictions.from_arrays(probabilities=np.stack([own, 1 - own], axis=2), labels=[0, 0])
    for metric in ("nll", "brier"):
        for weights in ((0.5, 0.25, 0.25), (1.0 - 2e-17, 1e-17, 1e-17)):
            ensemble = Ensemble(p.ids, weights)
            change = {role.member: role.change for role in explain(p, ensemble, metric=metric).team}["m0"]
            rest = Ensemble(("m1", "m2"), (0.5, 0.5))
            assert change == pytest.approx(value(rest, p, metric) - value(ensemble, p, metric), rel=1e-6)


def test_own_scores_are_of_members_as_the_selection_saw_them():
    p = a_pool(5, 150, seed=3)
    ensemble = select(p, method="top-k", size=2, calibrate="members")
    found = explain(p, ensemble)
    heat = np.array([fit_temperature(logits, p.labels) for logits in p.logits])
    own = [METRICS["nll"](member, p.labels) for member in tempered(p, heat).probabilities]
    assert {role.rank for role in found.team} == {1, 2}
    for entry in (*found.team, *found.others):
        assert entry.score == pytest.approx(own[p.ids.index(entry.member)], abs=1e-6)


def test_the_heading_says_what_combines_the_members():
    p = a_pool(4, 300)
    stacked, warm = select(p, method="stacking"), select(p, calibrate="ensemble")
    assert stacked.stacker
    assert "members, stacking (scalar);" in str(explain(p, stacked))
    assert f"mean_probability at temperature {warm.temperature:.3f};" in " ".join(str(explain(p, warm)).split())


def test_a_newcomer_without_errors_keeps_its_temperature_as_in_selection():
    labels = np.arange(3)
    team, sure = np.eye(3)[labels] + np.eye(3)[[1, 1, 1]], 2 * np.eye(3)
    p = Predictions.from_arrays(np.stack([team, sure]), labels)
    ensemble = Ensemble(("m0",), (1.0,), temperatures=(2.0,))
    (other,) = explain(p, ensemble, metric="nll").others
    grown = Ensemble(("m0", "m1"), (0.5, 0.5), temperatures=(2.0, 1.0))
    assert other.change == pytest.approx(value(grown, p, "nll") - value(ensemble, p, "nll"), abs=1e-6)


def test_a_callable_that_is_called_like_a_metric_is_told_apart():
    def nll(probabilities, labels):
        return float(np.log(probabilities[np.arange(len(labels)), labels]).mean())

    p = a_pool()
    ensemble = select(p, metric=nll)
    found = explain(p, ensemble)
    assert ensemble.metric == "nll (callable)"
    assert found.rounds == ()  # its scores are higher-is-better, those of the metric of that name are not
    assert "chosen by 'nll (callable)'" in str(found)


def test_any_ensemble_by_hand():
    p = a_pool()
    manual = Ensemble(("m4", "m1"), (0.9, 0.1), fingerprint=p.fingerprint)
    found = explain(p, manual)
    check(found, manual, p, "nll")
    assert (found.metric, found.rounds, found.notes) == ("nll", (), ())
    assert [role.member for role in found.team] == ["m4", "m1"]  # the heaviest first
    own = select(p, metric=lambda probabilities, labels: float(probabilities[0, 0]), rounds=3)
    assert "no metric of the table" in str(explain(p, own))
    everyone = select(p, method="whole")
    assert explain(p, everyone).others == ()
    assert "not in it" not in str(explain(p, everyone))


def test_a_pool_is_asked_for_validation_only():
    class Watched:
        def predictions(self, split):
            assert split == "val"
            return a_pool()

        def __getattr__(self, name):
            raise AssertionError(f"explain asked for '{name}'")

    ensemble = select(a_pool())
    assert explain(Watched(), ensemble) == explain(a_pool(), ensemble)


@pytest.mark.parametrize(
    ("source", "ensemble", "metric", "error", "says"),
    [
        (a_pool(split="test"), select(a_pool()), None, InputError, "must not see test data"),
        (a_pool(), Ensemble(("m0",), (1.0,), fingerprint="0" * 64), None, PoolError, "another pool"),
        (a_pool(), Ensemble(("x",), (1.0,)), None, PoolError, "none named 'x'"),
        (a_pool(), select(a_pool()), "acuracy", UnknownNameError, "did you mean 'accuracy'"),
        (a_pool(), "greedy-nll.json", None, InputError, "read a file by Ensemble.load"),
        ("checkpoints/digits", select(a_pool()), None, InputError, "open a folder by Pool.open"),
        ("checkpoints", select(a_pool()), None, InputError, "a pool or predictions"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(source, ensemble, metric, error, says):
    with pytest.raises(error, match=re.escape(says)) as caught:
        explain(source, ensemble, metric=metric)
    assert "\n" not in str(caught.value)


def test_long_names_and_many_members_stay_on_the_page():
    names = [f"COSRSW-s{i}-{'x' * 60}" for i in range(40)]
    p = a_pool(40, 30, names=names)
    text = str(explain(p, select(p)))
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"… and \d+ more", text)
    assert "lower is better" in text
