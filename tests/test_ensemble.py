"""`Ensemble`: its file, what it refuses, and how the outputs of members become its probabilities."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lrensemble.combine import COMBINERS, combine
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, PoolError
from lrensemble.predictions import Outputs, Predictions, softmax
from lrensemble.stacker import Stacker

TEAM = Ensemble(
    ("a", "b"), (0.25, 0.75), method="greedy", metric="nll", score=0.5, trace=({"member": "a", "score": 1.0},)
)


def test_round_trip_through_the_file(tmp_path):
    path = TEAM.save(tmp_path / "deep" / "ensemble.json")
    assert Ensemble.load(path) == TEAM
    assert json.loads(path.read_text())["members"] == ["a", "b"]


def test_lists_and_arrays_become_tuples(tmp_path):
    team = Ensemble(["a", "b"], np.array([0.25, 0.75], dtype=np.float32))
    assert (team.members, team.weights) == (("a", "b"), (0.25, 0.75))
    assert Ensemble.load(team.save(tmp_path / "ensemble.json")) == team


def test_probabilities_are_the_weighted_mean():
    p = Predictions.from_arrays(np.random.default_rng(0).normal(size=(3, 5, 4)), [0, 1, 2, 3, 0], ids=["b", "x", "a"])
    expected = 0.25 * p.probabilities[2] + 0.75 * p.probabilities[0]
    np.testing.assert_allclose(TEAM.probabilities(p), expected, rtol=1e-6)


def test_another_pool_is_refused():
    p = Predictions.from_arrays(np.zeros((1, 2, 2)), [0, 1], ids=["a"])
    with pytest.raises(PoolError, match="none named 'b': select again"):
        TEAM.probabilities(p)
    with pytest.raises(PoolError, match="from another pool"):
        Ensemble(("a",), (1.0,), fingerprint="1" * 64).check_pool("2" * 64, ("a",))


@pytest.mark.parametrize(
    ("members", "weights"),
    [((), ()), (("a",), (0.5,)), (("a", "b"), (1.5, -0.5)), (("a", "a"), (0.5, 0.5)), (("a",), (float("nan"),))],
)
def test_bad_weights_are_refused(members, weights):
    with pytest.raises(InputError, match=r"expected (an )?ensemble"):
        Ensemble(members, weights)


def edited(**changes):
    return json.dumps({**TEAM.to_dict(), **changes})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", r"expected an ensemble \(JSON\)"),
        ("[]", "written by `lrensemble select`"),
        ('{"format": "other"}', "written by `lrensemble select`"),
        ('{"format": "lrensemble-ensemble", "version": 9}', "version 1 or 2, got version 9"),
        ('{"format": "lrensemble-ensemble", "version": 1}', "members: Field required"),
        (edited(members="ab"), "members: .*valid array"),
        (edited(rule=5), "rule: .*valid string"),
        (edited(rule="mean"), "unknown combination rule 'mean'"),
        (edited(trace=5), "trace: .*valid array"),
        (edited(weights=[1.5, -0.5]), r"weights > 0 that sum to 1, got 1\.5, -0\.5"),
        (edited(score="high"), "score: .*valid number"),
        (edited(weights=["x", 1]), r"weights\.0: .*valid number"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        Ensemble.load(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Ensemble.load(tmp_path / "none.json")


# --- how members become an ensemble -----------------------------------------------------------------------------------


class OneByOne(Outputs):
    """Outputs of members that are never all in memory."""

    in_memory = False
    are_probabilities = False

    def __init__(self, logits):
        self.logits, self.shape, self.asked = logits, logits.shape, []

    def member(self, index, samples=slice(None)):
        self.asked.append(index)
        return self.logits[index][samples]

    def whole(self):
        raise AssertionError("asked for all members at once")

    def take(self, members):
        raise AssertionError("copied members")

    def subset(self, samples):
        raise AssertionError("copied samples")


def a_pool(members=5, samples=40, classes=4):
    rng = np.random.default_rng(0)
    return Predictions.from_arrays(2 * rng.normal(size=(members, samples, classes)), rng.integers(0, classes, samples))


@pytest.mark.parametrize("rule", COMBINERS)
@pytest.mark.parametrize("at_once", [10, 10**9])
@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize("heat", [{}, {"temperatures": (0.5, 2.0, 1.0, 3.0, 0.8)}, {"temperature": 2.0}])
def test_the_true_class_is_that_of_all_classes(rule, at_once, mode, heat, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    monkeypatch.setattr("lrensemble.combine.AT_ONCE", at_once)
    p = a_pool()
    team = Ensemble(p.ids, (0.1, 0.2, 0.3, 0.15, 0.25), rule, **heat)
    expected = team.probabilities(p)[np.arange(40), p.labels]
    np.testing.assert_array_equal(team.true_class(p), expected, strict=True)
    on_disk = Predictions(p.ids, OneByOne(p.logits), p.labels)
    np.testing.assert_array_equal(team.true_class(on_disk), expected)


@pytest.mark.parametrize("rule", COMBINERS)
@pytest.mark.parametrize("block", [20, 10**9])
def test_members_are_read_one_by_one_and_combined_by_the_rule(rule, block, monkeypatch):
    monkeypatch.setattr("lrensemble.combine.BLOCK", block)
    p, team = a_pool(), Ensemble(("m3", "m0", "m4"), (0.5, 0.2, 0.3), rule)
    expected = combine(p.probabilities[[3, 0, 4]], team.weights, rule)
    source = OneByOne(p.logits)
    np.testing.assert_array_equal(team.probabilities(p), expected)
    np.testing.assert_array_equal(team.probabilities(replace(p, outputs=source)), expected)
    assert set(source.asked) == {0, 3, 4}


def test_temperatures_act_on_members_first_and_on_the_ensemble_last():
    p = a_pool()
    team = Ensemble(("m1", "m2"), (0.25, 0.75), temperatures=(2.0, 0.5), temperature=3.0)
    p1, p2 = (softmax(p.logits[j] / t) for j, t in ((1, 2.0), (2, 0.5)))
    mixed = 0.25 * p1.astype(float) + 0.75 * p2
    expected = mixed ** (1 / 3)
    np.testing.assert_allclose(team.probabilities(p), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)
    source = replace(p, outputs=OneByOne(p.logits))
    np.testing.assert_array_equal(team.probabilities(source), team.probabilities(p))
    ones = replace(team, temperatures=(1.0, 1.0), temperature=1.0)
    np.testing.assert_allclose(ones.probabilities(p), replace(ones, temperatures=()).probabilities(p), rtol=1e-6)


FITTED = replace(TEAM, temperatures=(2.0, 0.5), temperature=1.5, stacker=Stacker("scalar", (1.0, -1.0), (0.0, 0.5)))


def test_stacker_takes_the_place_of_the_rule():
    p = Predictions.from_arrays(np.random.default_rng(0).normal(size=(2, 9, 2)), [0, 1] * 4 + [0], ids=["a", "b"])
    one = replace(FITTED, temperatures=(), temperature=1.0)
    np.testing.assert_array_equal(one.probabilities(p), FITTED.stacker.probabilities(p.probabilities))
    np.testing.assert_array_equal(replace(one, rule="majority").probabilities(p), one.probabilities(p))


def test_version_tells_readers_that_cannot_apply_what_was_fitted(tmp_path):
    for team, version in (
        (TEAM, 1),
        (replace(TEAM, resplit={"score": 0.5}), 1),
        (replace(TEAM, temperature=2.0), 2),
        (replace(TEAM, temperatures=(1.0, 2.0)), 2),
        (FITTED, 2),
    ):
        path = team.save(tmp_path / "e.json")
        assert json.loads(path.read_text())["version"] == version
        assert Ensemble.load(path) == team


def test_files_of_before_temperatures_still_load():
    old = {
        key: value
        for key, value in TEAM.to_dict().items()
        if key not in ("temperatures", "temperature", "stacker", "resplit")
    }
    assert Ensemble.from_dict(old) == TEAM


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": [1.0]}, "a temperature for each of the 2 members or none, got 1"),
        ({"temperatures": [1.0, 0.0]}, "temperatures that are finite and > 0, got 1, 0"),
        ({"temperatures": [1.0, float("inf")]}, "finite"),
        ({"temperatures": [1.0, "2"]}, r"temperatures\.1: .*valid number"),
        ({"temperature": -1.0}, "temperatures that are finite and > 0, got -1"),
        ({"temperature": float("nan")}, "finite"),
        ({"temperature": None}, "temperature: .*valid number"),
        ({"stacker": [1, 2]}, "stacker: "),
        ({"resplit": [1]}, "resplit: .*object"),
    ],
)
def test_wrong_fits_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Ensemble.from_dict({**TEAM.to_dict(), "version": 2, **changes})
