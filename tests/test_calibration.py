"""Temperature scaling: the fit against scipy's search, tempered views, and selection with calibration around it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from lrensemble import calibration
from lrensemble.calibration import (
    fit_temperature,
    fit_temperatures,
    safe_temperature,
    temper,
    tempered,
    tempered_nll,
)
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError
from lrensemble.evaluation import evaluate
from lrensemble.experiment import Experiment
from lrensemble.metrics import METRICS
from lrensemble.predictions import Outputs, Predictions
from lrensemble.selection import SELECTORS, cross_validate, select


def samples(n=60, c=4, sharpness=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    return sharpness * (1.5 * np.eye(c)[y] + rng.normal(size=(n, c))), y


def a_pool(members=5, n=200, c=4, seed=0, split="val"):
    """Members of like skill; each more overconfident than the one before."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    z = 1.5 * np.eye(c)[y] + rng.normal(size=(members, n, c))
    return Predictions.from_arrays(z * 1.8 ** np.arange(members)[:, None, None], y, split=split)


def naive_nll(z, y, t):
    return -log_softmax(np.asarray(z, dtype=float) / t, axis=1)[np.arange(len(y)), y].mean()


# --- the fit ----------------------------------------------------------------------------------------------------------


@given(
    n=st.integers(2, 40),
    c=st.integers(2, 6),
    sharpness=st.sampled_from([0.02, 0.3, 1.0, 5.0, 80.0]),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=80)
def test_no_temperature_fits_better(n, c, sharpness, seed):
    z, y = samples(n, c, sharpness, seed)
    ours = fit_temperature(z, y)
    assert 0.01 <= ours <= 100
    found = minimize_scalar(lambda s: naive_nll(z, y, np.exp(s)), bounds=np.log([0.01, 100]), method="bounded")
    assert naive_nll(z, y, ours) <= found.fun + 1e-9
    if 0.02 < ours < 50:  # further out the valley is too flat for a search to find its floor
        assert ours == pytest.approx(np.exp(found.x), rel=1e-3)


def test_slope_is_zero_at_the_temperature():
    z, y = samples(500, 10)
    t = fit_temperature(z, y)
    p = scipy_softmax(z / t, axis=1)
    assert (p * z).sum(axis=1).mean() == pytest.approx(z[np.arange(500), y].mean(), rel=1e-9)


def test_temperature_follows_the_scale_and_ignores_shifts_and_order():
    z, y = samples(300)
    t = fit_temperature(z, y)
    order = np.random.default_rng(1).permutation(300)
    assert fit_temperature(3 * z, y) == pytest.approx(3 * t, rel=1e-8)
    assert fit_temperature(z + np.arange(300)[:, None], y) == pytest.approx(t, rel=1e-8)
    assert fit_temperature(z[order], y[order]) == pytest.approx(t, rel=1e-9)
    assert fit_temperature(log_softmax(z, axis=1), y) == pytest.approx(t, rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (9 * np.eye(3), [0, 1, 2], 0.01),  # right with room to spare
        (9 * np.eye(3), [1, 2, 0], 100.0),  # wrong
        (1e4 * np.eye(3), [1, 2, 0], 100.0),
        (1e4 * np.eye(3), [0, 1, 2], 1.0),  # certain and right: the loss is 0 already
        (np.zeros((3, 3)), [0, 1, 2], 1.0),  # no opinion
        (np.ones((1, 2)), [1], 1.0),
    ],
)
def test_bounds_and_what_makes_no_difference(logits, labels, expected):
    assert fit_temperature(logits, labels) == expected


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (np.zeros(3), [0, 1, 2], "shape"),
        (np.zeros((2, 3)), [0, 1, 2], "shape"),
        (np.zeros((0, 3)), [], "shape"),
        ([[np.nan, 0.0]], [0], "finite"),
        ([[1.0, 0.0]], [2], "labels"),
        ([[1.0, 0.0]], [0.5], "labels"),
    ],
)
def test_wrong_samples_are_refused(logits, labels, says):
    with pytest.raises(InputError, match=says):
        fit_temperature(logits, labels)


def test_inputs_stay_as_they_are():
    z, y = samples()
    before = z.copy()
    fit_temperature(z, y)
    tempered_nll(z, y, 2.0)
    temper(scipy_softmax(z, axis=1), 2.0)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 7.0])
def test_temper_is_the_softmax_of_scaled_logits(temperature):
    z, y = samples()
    expected = scipy_softmax(z / temperature, axis=1)
    np.testing.assert_allclose(temper(scipy_softmax(z, axis=1), temperature), expected, rtol=1e-9)
    assert tempered_nll(z, y, temperature) == pytest.approx(naive_nll(z, y, temperature))
    assert np.isfinite(temper([[0.0, 1.0]], 100.0)).all()


# --- tempered views ---------------------------------------------------------------------------------------------------


class OnDisk(Outputs):
    """Outputs that are read member by member, and never all at once."""

    in_memory = False
    are_probabilities = False

    def __init__(self, logits):
        self.logits, self.shape = logits, logits.shape

    def member(self, index, samples=slice(None)):
        return self.logits[index][samples]

    def whole(self):
        raise AssertionError("asked for all members at once")

    def take(self, members):
        return OnDisk(self.logits[list(members)])

    def subset(self, samples):
        return OnDisk(self.logits[:, samples])


def on_disk(p):
    return replace(p, outputs=OnDisk(p.logits))


def test_tempered_predictions_are_those_of_scaled_logits():
    p, t = a_pool(), np.array([0.5, 1, 2, 3, 0.1])
    expected = Predictions.from_arrays(p.logits / t[:, None, None], p.labels)
    some = np.array([3, 1, 100])
    for source in (p, on_disk(p)):
        view = tempered(source, t)
        assert (view.ids, view.split, view.in_memory) == (p.ids, p.split, source.in_memory)
        np.testing.assert_array_equal(view.predicted, p.predicted)
        for ours, theirs in (
            (view, expected),
            (view.take(["m3", "m0"]), expected.take(["m3", "m0"])),
            (view.subset(some), expected.subset(some)),
        ):
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-4, atol=1e-12)
            np.testing.assert_allclose(ours.member(1, some[:1] * 0), theirs.member(1, [0]), rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(
        tempered(p, t).logits, expected.logits - expected.logits.max(axis=2, keepdims=True), atol=1e-4
    )


def test_extreme_logits_stay_probabilities():
    p = Predictions.from_arrays(np.array([[[3e38, -3e38, 0.0]]]), [0])
    np.testing.assert_array_equal(tempered(p, [0.01]).probabilities, [[[1, 0, 0]]])


def test_temperatures_of_members_read_one_at_a_time():
    p = a_pool()
    expected = [fit_temperature(z, p.labels) for z in p.logits]
    np.testing.assert_array_equal(fit_temperatures(on_disk(p)), expected)
    np.testing.assert_allclose(np.diff(np.log(expected)), np.log(1.8), atol=0.3)  # each member 1.8 times as sure


# --- selection --------------------------------------------------------------------------------------------------------


def test_the_search_sees_calibrated_members():
    p = a_pool()
    heat = fit_temperatures(p)
    ours, theirs = select(p, calibrate="members"), select(tempered(p, heat))
    assert (ours.members, ours.weights, ours.trace) == (theirs.members, theirs.weights, theirs.trace)
    assert ours.temperatures == tuple(heat[p.indices(ours.members)])
    assert ours.temperature == 1
    assert ours.score == pytest.approx(theirs.score, rel=1e-12)
    assert ours.options["calibrate"] == "members"
    assert "calibrate" not in select(p).options


def test_the_ensemble_is_calibrated_after_the_search():
    p = a_pool()
    plain, ours = select(p), select(p, calibrate="ensemble")
    assert (ours.members, ours.weights) == (plain.members, plain.weights)
    assert ours.temperature == pytest.approx(fit_temperature(np.log(plain.probabilities(p)), p.labels), rel=1e-6)
    np.testing.assert_allclose(ours.probabilities(p), temper(plain.probabilities(p), ours.temperature))
    assert ours.score <= plain.score


@pytest.mark.parametrize("method", SELECTORS)
@pytest.mark.parametrize("calibrate", ["members", "both"])
def test_every_method_can_be_calibrated(method, calibrate):
    p = a_pool(4, 60)
    ensemble = select(p, method=method, metric="brier", calibrate=calibrate)
    assert ensemble.score == METRICS["brier"](ensemble.probabilities(p), p.labels)
    assert len(ensemble.temperatures) == len(ensemble)
    assert Ensemble.from_dict(json.loads(json.dumps(ensemble.to_dict()))) == ensemble


@pytest.mark.parametrize("calibrate", ["members", "ensemble", "both"])
def test_degenerate_pools_are_calibrated_without_warnings(calibrate):
    eye = 9 * np.tile(np.eye(3), (2, 1, 1))
    for logits, labels in ((eye, [0, 1, 2]), (eye, [1, 2, 0]), (eye * 1e3, [1, 2, 0]), (eye * 0, [0, 1, 2])):
        ensemble = select(Predictions.from_arrays(logits, labels), calibrate=calibrate)
        assert np.isfinite(ensemble.score)
    one = select(Predictions.from_arrays(eye[:1, :1], [0]), calibrate=calibrate)
    assert one.probabilities(Predictions.from_arrays(eye[:1], [1, 2, 0])).min() > 1e-8  # not made certain by one sample


def test_members_that_are_never_wrong_keep_their_temperature_and_it_is_said():
    p = Predictions.from_arrays(np.stack([9 * np.eye(3), 5 * np.eye(3)]), [0, 1, 2])
    ensemble = select(p, method="whole", calibrate="both")
    assert ensemble.temperatures == (1.0, 1.0)
    assert ensemble.temperature == 1.0
    assert "2 of its members are right on every sample and keep temperature 1" in ensemble.reason
    assert "it is right on every sample and keeps temperature 1" in ensemble.reason


def test_a_safe_temperature_is_1_where_nothing_is_wrong():
    z, y = 3.0 * np.eye(3), np.arange(3)
    assert (fit_temperature(z, y), safe_temperature(z, y)) == (0.01, 1.0)
    tied = np.array([[3.0, 3.0, 0.0], [0.0, 3.0, 3.0], [0.0, 0.0, 3.0]])  # no class is likelier than a true one
    assert safe_temperature(tied, [1, 2, 2]) == 1.0
    z[2] = [1.0, 0.0, 0.0]
    assert safe_temperature(z, y) == fit_temperature(z, y) != 1.0


def test_overconfident_pools_gain_on_test_data_by_what_validation_taught():
    val, test = a_pool(seed=1), a_pool(seed=2, split="test")
    plain, ours = select(val, method="whole"), select(val, method="whole", calibrate="both")
    report = evaluate(test, [ours, plain], validation=val, bootstrap=100)
    logits = test.logits / np.array(ours.temperatures, dtype=np.float32)[:, None, None]
    by_hand = temper(scipy_softmax(logits.astype(float), axis=2).mean(axis=0), ours.temperature)
    values = [row.metrics["nll"].value for row in report.rows[:2]]
    assert values[0] == pytest.approx(METRICS["nll"](by_hand, test.labels), rel=1e-6)
    assert values[0] < values[1]


def test_cross_validation_calibrates_on_what_it_selects_on(monkeypatch):
    p, sizes = a_pool(n=100), []

    def watched(z, y):
        sizes.append(len(y))
        return fit_temperature(z, y)

    monkeypatch.setattr(calibration, "fit_temperature", watched)
    found = cross_validate(p, calibrate="both", method="whole", resplits=5)
    assert set(sizes) == {80}
    assert found.score < cross_validate(p, method="whole", resplits=5).score


def test_what_to_calibrate_is_checked_before_anything_is_trained():
    with pytest.raises(InputError, match="calibrate as one of none, members, ensemble, both, got 'all'"):
        select(a_pool(), calibrate="all")
    with pytest.raises(InputError, match="calibrate"):
        Experiment.from_dict({"selection": {"calibrate": "all"}})
    assert Experiment.from_dict({"selection": {"calibrate": "both"}}).selection.calibrate == "both"
