"""Metrics against scikit-learn, scipy and slow twins; bounds, invariance and degenerate inputs for every entry."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, top_k_accuracy_score

from lrensemble import metrics
from lrensemble.errors import InputError
from lrensemble.metrics import METRICS

BOUNDS = {"nll": 87.4, "calibrated_nll": 8800.0, "brier": 2.0}  # upper; 1 for all others


def sample(n=400, c=7, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    p = rng.dirichlet(np.full(c, 0.4), size=n) + 0.5 * np.eye(c)[y] * rng.random((n, 1))
    return p / p.sum(axis=1, keepdims=True), y


P, Y = sample()


@st.composite
def inputs(draw):
    c = draw(st.integers(2, 8))
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1.0, 30.0, 500.0]))  # all tied … all certain
    z = scale * rng.normal(size=(n, c)).round(draw(st.integers(0, 3)))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    kind = draw(st.sampled_from(["any", "all right", "all wrong", "one class"]))
    y = {
        "any": rng.integers(0, c, n),
        "all right": p.argmax(axis=1),
        "all wrong": (p.argmax(axis=1) + 1) % c,
        "one class": np.zeros(n, dtype=int),
    }[kind]
    return p.astype(draw(st.sampled_from([np.float32, np.float64]))), y


# --- every metric -----------------------------------------------------------------------------------------------------


def test_table_is_consistent():
    assert {"accuracy", "top5", "macro_f1", "balanced_accuracy", "nll", "brier", "ece", "ece_mass"} <= set(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.description


@pytest.mark.parametrize("name", METRICS)
@given(data=inputs())
@settings(max_examples=40, deadline=None)
def test_bounds_and_no_nan(name, data):
    value = METRICS[name](*data)
    assert isinstance(value, float)
    assert 0 <= value <= BOUNDS.get(name, 1.0) + 1e-6


@pytest.mark.parametrize("name", [name for name in METRICS if name != "calibrated_nll"])
@given(data=inputs(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_order_of_samples_plays_no_part(name, data, seed):
    p, y = data
    order = np.random.default_rng(seed).permutation(len(y))
    assert METRICS[name](p[order], y[order]) == pytest.approx(METRICS[name](p, y), abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_direction(name):
    """Certain and right beats certain and wrong, in the direction that the table says."""
    right, wrong = np.eye(7)[Y] * 0.94 + 0.01, np.eye(7)[(Y + 1) % 7] * 0.94 + 0.01
    good, bad = METRICS[name](right, Y), METRICS[name](wrong, Y)
    if name in ("cd", "cdac"):  # spreads: zero in both
        assert good == pytest.approx(bad, abs=1e-12) == 0
    else:
        assert (good > bad) == METRICS[name].higher_is_better
        assert good != bad


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.per_sample])
def test_mean_of_terms_is_the_score(name):
    terms = METRICS[name].per_sample(P, Y)
    assert terms.shape == Y.shape
    assert terms.dtype == np.float64
    assert terms.mean() == METRICS[name](P, Y)


@pytest.mark.parametrize("name", METRICS)
def test_inputs_are_not_altered(name):
    p, y = P.copy(), Y.copy()
    p.flags.writeable = y.flags.writeable = False
    METRICS[name](p, y)
    assert np.array_equal(p, P)
    assert np.array_equal(y, Y)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "N ≥ 1"),
        (P, Y[:-1], "labels of shape"),
        (P[0], Y, "shape"),
        (np.log(P), Y, "negative ones or NaN"),
        (np.full((2, 3), np.nan), np.array([0, 1]), "negative ones or NaN"),
        (P, Y + 1, "labels in 0…6"),
        (P, Y.astype(float), "labels as integers"),
        (P, Y > 3, "labels as integers"),
        (7 * P, Y, "probabilities ≤ 1"),
        (np.full(P.shape, np.inf), Y, "probabilities ≤ 1, got inf"),
    ],
)
def test_refusals(name, p, y, message):
    with pytest.raises(InputError, match=message):
        METRICS[name](p, y)


# --- oracles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_agrees(seed):
    p, y = sample(seed=seed, c=9)
    guess = p.argmax(axis=1)
    assert metrics.accuracy(p, y) == pytest.approx(accuracy_score(y, guess))
    assert metrics.macro_f1(p, y) == pytest.approx(f1_score(y, guess, average="macro"))
    assert metrics.balanced_accuracy(p, y) == pytest.approx(balanced_accuracy_score(y, guess))
    assert metrics.nll(p, y) == pytest.approx(log_loss(y, p, labels=range(9)))
    assert metrics.top5(p, y) == pytest.approx(top_k_accuracy_score(y, p, k=5, labels=range(9)))


def test_scikit_learn_agrees_where_classes_are_missing():
    p, y = sample(n=12, c=7, seed=3)
    y[y > 3] = 0
    guess = p.argmax(axis=1)
    assert metrics.macro_f1(p, y) == pytest.approx(f1_score(y, guess, average="macro", zero_division=0))
    seen = np.unique(y)
    assert metrics.balanced_accuracy(p, y) == pytest.approx(np.mean([(guess[y == c] == c).mean() for c in seen]))


def test_brier_is_the_sum_over_classes():
    by_hand = np.mean([sum((p[c] - (c == y)) ** 2 for c in range(len(p))) for p, y in zip(P, Y, strict=True)])
    assert metrics.brier(P, Y) == pytest.approx(by_hand)
    assert metrics.brier(np.array([[0.0, 1.0]]), np.array([0])) == 2.0


def test_nll_is_clipped_at_the_least_float32():
    assert metrics.nll(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-math.log(np.finfo(np.float32).tiny))
    assert str(metrics.nll(np.array([[1.0, 0.0]]), np.array([0]))) == "0.0"


def test_top5_ranks_ties_by_class_and_is_trivial_with_five_classes():
    tied = np.full((7, 7), 1 / 7)
    assert metrics.top5_hits(tied, np.arange(7)).tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert metrics.top5(*sample(c=5)) == 1.0


def slow_ece(p, y, bins=15):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i in range(len(y)) if low < p[i].max() <= high]
        if inside:
            right = np.mean([p[i].argmax() == y[i] for i in inside])
            total += len(inside) / len(y) * abs(right - np.mean([p[i].max() for i in inside]))
    return total


def slow_ece_mass(p, y, bins=15):
    order = sorted(range(len(y)), key=lambda i: p[i].max())
    edges = [math.ceil(b * len(y) / bins) for b in range(bins + 1)]
    total = 0.0
    for start, stop in itertools.pairwise(edges):
        group = order[start:stop]
        if group:
            gap = sum(p[i].argmax() == y[i] for i in group) - sum(p[i].max() for i in group)
            total += abs(gap) / len(y)
    return total


@pytest.mark.parametrize("n", [3, 15, 100, 401])
def test_ece_slow_twins(n):
    p, y = sample(n=n, seed=n)
    assert metrics.ece(p, y) == pytest.approx(slow_ece(p, y))
    assert metrics.ece_mass(p, y) == pytest.approx(slow_ece_mass(p, y))  # no ties here


def test_equal_mass_bins_share_the_hits_of_ties():
    p = np.tile([0.75, 0.25], (40, 1))
    y = (np.arange(40) < 10).astype(int)  # 30 of 40 right: perfectly calibrated, in whatever order
    assert metrics.ece_mass(p, y) == pytest.approx(0, abs=1e-12)
    counts, _, _ = metrics.calibration_bins(p, y, equal_mass=True)
    assert counts.sum() == 40
    assert counts.max() - counts.min() <= 1


def test_calibrated_nll_against_a_free_search():
    """The same halves, with temperatures found by another search over another parametrisation."""
    z = np.log(P)
    order = np.random.default_rng(0).permutation(len(Y))
    first, second = order[: len(Y) // 2], order[len(Y) // 2 :]

    def tempered(beta, rows):
        q = np.exp(beta * z[rows])
        return log_loss(Y[rows], q / q.sum(axis=1, keepdims=True), labels=range(7))

    total = 0.0
    for fit, score in ((first, second), (second, first)):
        beta = minimize_scalar(tempered, bracket=(0.5, 1.0), args=(fit,)).x
        total += tempered(beta, score) * len(score)
    assert metrics.calibrated_nll(P, Y) == pytest.approx(total / len(Y), rel=1e-5)


def test_calibrated_nll_undoes_overconfidence():
    sharp = P**4
    sharp /= sharp.sum(axis=1, keepdims=True)
    assert metrics.nll(sharp, Y) > 1.2 * metrics.nll(P, Y)
    assert metrics.calibrated_nll(sharp, Y) == pytest.approx(metrics.calibrated_nll(P, Y), rel=1e-4)
    assert metrics.calibrated_nll(P[:1], Y[:1]) == pytest.approx(metrics.nll(P[:1], Y[:1]))


def test_confidence_metrics_by_hand():
    p = np.array([[0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.2, 0.6, 0.2], [0.8, 0.1, 0.1]])
    y = np.array([0, 0, 1, 2])  # right, right, right, wrong; class 2 has no right sample
    assert metrics.average_confidence(p, y) == pytest.approx((0.9 + 0.7 + 0.6) / 3)
    assert metrics.confidence_deviation(p, y) == pytest.approx(np.std([0.9, 0.7, 0.6]))
    means, left_out = metrics.class_confidences(p, y)
    assert means.tolist() == pytest.approx([0.8, 0.6])
    assert left_out == 1
    assert metrics.confidence_deviation_across_classes(p, y) == pytest.approx(0.1)


def test_calibrated_nll_does_not_trust_a_half_without_errors():
    """By the least NLL such a half asks for T = 0.01, which would charge the other half's one error a hundredfold."""
    y = np.zeros(40, dtype=int)
    p = np.tile([0.9, 0.1], (40, 1))
    p[7] = [0.3, 0.7]
    assert 0.5 < metrics.calibrated_nll(p, y) / metrics.nll(p, y) < 2
    p[7] = [0.9, 0.1]
    assert metrics.calibrated_nll(p, y) == pytest.approx(metrics.nll(p, y))  # no error at all: T = 1 in both halves
