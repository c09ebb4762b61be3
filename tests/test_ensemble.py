import json

import numpy as np
import pytest

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, PoolError
from lrensemble.predictions import Predictions

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
        ('{"format": "lrensemble-ensemble", "version": 9}', "version 1, got version 9"),
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
