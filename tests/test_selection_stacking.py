"""Stacking: the fits against scipy and scikit-learn, what they are good for, and when the mean is kept."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lrensemble.combine import combine
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection import select
from lrensemble.selection.stacking import FOLDS, _folds, fit_full, fit_scalar
from lrensemble.stacker import Stacker


def a_pool(members=4, n=200, c=3, seed=0, sharpness=3.0, split="val"):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    z = np.eye(c)[y] + rng.normal(size=(members, n, c)) * np.linspace(0.5, 1.5, members)[:, None, None]
    return Predictions.from_arrays(sharpness * z, y, split=split)


def logs_of(p):
    return log_softmax(p.logits.astype(float), axis=2)


def objective(theta, logs, y, penalty):
    """Penalised NLL of a log-linear pool, straight from its definition."""
    k = len(logs)
    z = sum(a * member for a, member in zip(theta[:k], logs, strict=True)) + theta[k:]
    loss = -log_softmax(z, axis=1)[np.arange(len(y)), y].mean()
    return loss + penalty / 2 * (((theta[:k] - 1 / k) ** 2).sum() + (theta[k:] ** 2).sum())


# --- the fits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1.0, 0.01, 1e-4])
@pytest.mark.parametrize(("members", "classes"), [(1, 2), (4, 3), (6, 10)])
def test_scalar_fit_is_the_minimum(penalty, members, classes):
    p = a_pool(members, 150, classes)
    logs = logs_of(p)
    ours = fit_scalar(logs, p.labels, penalty)
    theta = np.array([*ours.coefficients, *ours.intercepts])
    found = minimize(objective, np.zeros(members + classes), (logs, p.labels, penalty), method="BFGS", tol=1e-9)
    assert objective(theta, logs, p.labels, penalty) <= found.fun + 1e-12
    np.testing.assert_allclose(theta, found.x, atol=2e-4)


def test_scalar_fit_survives_certain_members():
    p = a_pool(sharpness=300.0)
    logs = np.log(np.maximum(p.probabilities, 1.2e-38, dtype=float))
    ours = fit_scalar(logs, p.labels, 1e-4)
    at_start = objective(np.array([*[0.25] * 4, 0, 0, 0]), logs, p.labels, 1e-4)
    assert objective(np.array([*ours.coefficients, *ours.intercepts]), logs, p.labels, 1e-4) < at_start


def test_strong_penalty_leaves_the_geometric_mean():
    p = a_pool()
    stacker = fit_scalar(logs_of(p), p.labels, 1e9)
    np.testing.assert_allclose(
        stacker.probabilities(p.probabilities), combine(p.probabilities, rule="mean_logit"), atol=1e-6
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_full_fit_is_scikit_learns(classes):
    p = a_pool(3, 300, classes)
    logs = logs_of(p)
    columns = np.concatenate(list(logs), axis=1)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=500))
    ours = fit_full(logs, p.labels, 0.01).probabilities(p.probabilities)
    np.testing.assert_allclose(ours, theirs.fit(columns, p.labels).predict_proba(columns), atol=1e-5)


# --- the method -------------------------------------------------------------------------------------------------------


def test_stacking_is_better_than_the_mean_where_members_differ_in_skill():
    val, test = a_pool(n=500), a_pool(n=500, seed=1)
    ensemble, whole = select(val, method="stacking"), select(val, method="whole")
    assert ensemble.stacker.features == "scalar"
    assert METRICS["nll"](ensemble.probabilities(test), test.labels) < 0.9 * METRICS["nll"](
        whole.probabilities(test), test.labels
    )
    a = np.array(ensemble.stacker.coefficients)
    np.testing.assert_allclose(ensemble.weights, np.abs(a) / np.abs(a).sum())
    assert ensemble.weights[0] == max(ensemble.weights)  # the member of least noise
    assert "5-fold cross-validation with NLL" in ensemble.reason


def test_full_features_undo_a_confusion_that_single_coefficients_cannot():
    p = a_pool(2, 600)
    turned = Predictions.from_arrays(
        np.roll(p.logits, 1, axis=2), p.labels
    )  # every class is called by its neighbour's name
    scores = {features: select(turned, method="stacking", features=features) for features in ("scalar", "full", "auto")}
    assert scores["full"].stacker.features == scores["auto"].stacker.features == "full"
    assert scores["full"].score < 0.7 * scores["scalar"].score
    assert sum(scores["full"].weights) == pytest.approx(1)
    assert select(p, method="stacking", features="full", metric="accuracy").stacker.features == "full"


def test_full_features_need_samples_of_every_class():
    p = a_pool(2, 300)
    few = p.subset(np.flatnonzero((p.labels != 2) | (np.cumsum(p.labels == 2) <= 5)))
    assert select(few, method="stacking", features="full").stacker.features == "scalar"


@pytest.mark.parametrize("features", ["scalar", "full"])
def test_order_plays_no_part(features):
    p = a_pool(3, 200)
    rng = np.random.default_rng(0)
    members, samples = rng.permutation(3), rng.permutation(200)
    other = Predictions.from_arrays(p.logits[members][:, samples], p.labels[samples], ids=[p.ids[i] for i in members])
    one, two = (select(source, method="stacking", features=features) for source in (p, other))
    np.testing.assert_allclose(one.probabilities(p), two.probabilities(p), atol=1e-7 if features == "scalar" else 1e-4)
    assert one.reason == two.reason


def test_seed_deals_the_folds():
    p = a_pool()
    folds = _folds(p, 0)
    np.testing.assert_array_equal(folds, _folds(p, 0))
    assert (folds != _folds(p, 1)).any()
    for c in range(3):
        counts = np.bincount(folds[p.labels == c], minlength=FOLDS)
        assert np.ptp(counts) <= 2


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        (a_pool(n=9), "9 samples cannot teach"),
        (Predictions.from_arrays(a_pool().logits, np.zeros(200, dtype=int)), "samples of one class cannot teach"),
        (
            Predictions.from_arrays(
                np.random.default_rng(0).normal(scale=0.01, size=(3, 60, 3)),
                np.random.default_rng(1).permutation(60) % 3,
            ),
            "not told apart",
        ),
    ],
)
def test_the_mean_is_kept_where_there_is_nothing_to_learn(pool, says):
    ensemble = select(pool, method="stacking", rule="median")
    assert ensemble.stacker is None
    assert ensemble.rule == "median"
    np.testing.assert_allclose(ensemble.weights, 1 / pool.n_members)
    assert says in ensemble.reason


def test_the_model_has_to_beat_what_it_would_fall_back_to():
    p = a_pool(3, 300)
    mean, votes = (select(p, method="stacking", rule=rule) for rule in ("mean_probability", "majority"))
    whole = select(p, method="whole", metric="nll", rule="majority")
    assert f"equal weights have {whole.score:.4f}" in votes.reason
    assert f"equal weights have {whole.score:.4f}" not in mean.reason
    few = p.subset(np.arange(9))
    assert select(few, method="stacking").reason.startswith("mean of all members: 9")
    assert select(few, method="stacking", rule="majority").reason.startswith("all members by the rule 'majority': 9")


@pytest.mark.parametrize("features", ["both", 3])
def test_unknown_features_are_refused(features):
    with pytest.raises(InputError, match="features"):
        select(a_pool(), method="stacking", features=features)


# --- the stacker ------------------------------------------------------------------------------------------------------


def test_stacker_by_hand():
    p = a_pool(2, 5)
    logs = logs_of(p)
    scalar = Stacker("scalar", (2.0, -0.5), (0.0, 0.1, 0.2))
    z = 2 * logs[0] - 0.5 * logs[1] + [0, 0.1, 0.2]
    np.testing.assert_allclose(scalar.probabilities(p.probabilities), np.exp(log_softmax(z, axis=1)), rtol=1e-5)
    a = np.random.default_rng(0).normal(size=(2, 3, 3))
    full = Stacker("full", tuple(a.ravel()), (0.0, 0.1, 0.2))
    z = np.einsum("knd,kdc->nc", logs, a) + np.array([0, 0.1, 0.2])
    np.testing.assert_allclose(full.probabilities(p.probabilities), np.exp(log_softmax(z, axis=1)), rtol=1e-5)


def test_ensemble_carries_the_stacker_through_its_file(tmp_path):
    p = a_pool()
    ensemble = select(p, method="stacking")
    path = ensemble.save(tmp_path / "e.json")
    assert Ensemble.load(path) == ensemble
    np.testing.assert_array_equal(Ensemble.load(path).probabilities(p), ensemble.probabilities(p))
    assert json.loads(path.read_text())["version"] == 2  # a reader that knows no stackers must not combine by the rule


@pytest.mark.parametrize(
    ("stacker", "says"),
    [
        ({"features": "deep", "coefficients": [1, 1], "intercepts": [0, 0]}, "'scalar' or 'full'"),
        ({"features": "scalar", "coefficients": [1], "intercepts": [0, 0]}, "expected 2 stacker coefficients"),
        ({"features": "full", "coefficients": [1, 1], "intercepts": [0, 0]}, "expected 8 stacker coefficients"),
        ({"features": "scalar", "coefficients": [1, 1], "intercepts": [0]}, "1 classes"),
        ({"features": "scalar", "coefficients": [1, float("nan")], "intercepts": [0, 0]}, "finite"),
        ({"features": "scalar", "coefficients": [1, "1"], "intercepts": [0, 0]}, "valid number"),
        ({"features": "scalar", "coefficients": [1, 1]}, "Field required"),
        ("__import__('os')", "stacker"),
    ],
)
def test_damaged_stackers_are_refused(stacker, says):
    data = {**Ensemble(("a", "b"), (0.5, 0.5)).to_dict(), "version": 2, "stacker": stacker}
    with pytest.raises(InputError, match=says):
        Ensemble.from_dict(data, "e.json")


def test_another_number_of_classes_is_refused():
    ensemble = select(a_pool(), method="stacking")
    with pytest.raises(InputError, match="predictions of 3 classes"):
        ensemble.probabilities(a_pool(c=4))
