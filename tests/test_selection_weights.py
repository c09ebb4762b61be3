"""Weights: convex optimisation against scipy and its conditions of optimality; hill climbing against a naive twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from selection_helpers import a_pool, beats, naive_best, weights_of

from lrensemble.combine import COMBINERS, combine
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection import select
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.convex import brier_problem, mixture_weights, nll_problem
from lrensemble.selection.margins import BLOCK, margins_of, wrong, wrong_after
from lrensemble.selection.moves import Batch, moves_for

LOSSES = ("nll", "brier")


def loss_of(p, weights, metric, shrinkage=0.0):
    """The loss by the metric's own function, and what shrinkage adds to it, both divided by N."""
    value = METRICS[metric](np.einsum("m,mnc->nc", weights, p.probabilities.astype(np.float64)), p.labels)
    if shrinkage and metric == "nll":
        value -= shrinkage / p.n_members * np.log(np.maximum(weights, 1e-12)).sum() / p.n_samples
    if shrinkage and metric == "brier":
        value += shrinkage / p.n_members * (weights**2).sum() / p.n_samples
    return value


def by_scipy(p, metric, shrinkage=0.0):
    start = np.full(p.n_members, 1 / p.n_members)
    return minimize(
        lambda w: loss_of(p, w, metric, shrinkage),
        start,
        method="SLSQP",
        bounds=[(0, 1)] * p.n_members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-13, "maxiter": 500},
    )


# --- convex ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [0, 3, 200])
@pytest.mark.parametrize("metric", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_convex_equals_scipy(metric, seed, shrinkage):
    p = a_pool(7, 120, 4, seed=seed)
    ensemble = select(p, method="convex", metric=metric, tolerance=0, shrinkage=shrinkage)
    weights, theirs = weights_of(ensemble, p.ids), by_scipy(p, metric, shrinkage)
    np.testing.assert_allclose(weights, theirs.x, atol=2e-4)
    assert loss_of(p, weights, metric, shrinkage) <= theirs.fun + 1e-7  # rows of float32 softmax sum to 1 ± 1e-7


@pytest.mark.parametrize("sharpness", [0.5, 3, 80])
@given(seed=st.integers(0, 10_000), members=st.integers(1, 12), samples=st.integers(1, 60))
@settings(deadline=None, max_examples=25)
def test_the_least_nll_is_certified(sharpness, seed, members, samples):
    p = a_pool(members, samples, 3, seed=seed, sharpness=sharpness)
    own = np.maximum(p.true_class.astype(np.float64), np.finfo(np.float32).tiny)
    weights = nll_problem(p).solve(np.arange(members))
    slope = (own / (weights @ own)).mean(axis=1)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert slope.max() <= 1 + 1e-9  # nobody would help more than those inside do
    np.testing.assert_allclose(slope[weights > 0], 1, atol=1e-9)


@given(seed=st.integers(0, 10_000), members=st.integers(1, 12), samples=st.integers(1, 60))
@settings(deadline=None, max_examples=25)
def test_the_least_brier_score_is_certified(seed, members, samples):
    p = a_pool(members, samples, 3, seed=seed)
    weights = brier_problem(p).solve(np.arange(members))
    residuals = p.probabilities.astype(np.float64) - np.eye(3)[p.labels]
    slope = np.einsum("mnc,nc->m", residuals, np.einsum("m,mnc->nc", weights, residuals)) / samples
    least = weights @ slope
    assert slope.min() >= least - 1e-7
    np.testing.assert_allclose(slope[weights > 1e-6], least, atol=1e-7)


def test_samples_that_count_twice_count_twice():
    own = np.random.default_rng(0).uniform(0.01, 1, (5, 40))
    shares = np.where(np.arange(40) < 10, 2, 1) / 50
    repeated = np.hstack([own, own[:, :10]])
    np.testing.assert_allclose(mixture_weights(own, shares), mixture_weights(repeated, np.full(50, 1 / 50)), atol=1e-8)


@pytest.mark.parametrize("metric", LOSSES)
def test_convex_never_loses_to_greedy_or_to_equal_weights(metric):
    for seed in range(8):
        p = a_pool(9, 150, 4, seed=seed)
        best = select(p, method="convex", metric=metric, tolerance=0).score
        for method in ("greedy", "whole", "best", "climb", "exhaustive"):
            assert best <= select(p, method=method, metric=metric).score + 1e-7


@pytest.mark.parametrize("metric", LOSSES)
def test_tolerance_buys_a_smaller_team(metric):
    p = a_pool(14, 200, 4, seed=2)
    sizes = []
    least = select(p, method="convex", metric=metric, tolerance=0).score
    for tolerance in (0, 1e-3, 1e-2, 10):
        ensemble = select(p, method="convex", metric=metric, tolerance=tolerance)
        assert ensemble.score <= least + tolerance + 1e-7
        sizes.append(len(ensemble))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] > sizes[3] == 1
    assert "thinned to" in ensemble.reason


@pytest.mark.parametrize("metric", LOSSES)
def test_size_bounds_the_team_and_its_weights_are_the_best_for_it(metric):
    p = a_pool(10, 200, 4, seed=2)
    for size in (1, 2, 4):
        ensemble = select(p, method="convex", metric=metric, size=size)
        assert len(ensemble) <= size
        again = select(p.take(ensemble.members), method="convex", metric=metric, tolerance=0)
        np.testing.assert_allclose(weights_of(again, p.ids), weights_of(ensemble, p.ids), atol=1e-6)


@pytest.mark.parametrize("metric", LOSSES)
def test_shrinkage_leads_to_equal_weights(metric):
    p = a_pool(6, 100, 3, seed=1)
    spread = [np.ptp(weights_of(select(p, method="convex", metric=metric, shrinkage=s), p.ids)) for s in (1, 30, 1e7)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-3
    assert len(select(p, method="convex", metric=metric, shrinkage=5)) == 6
    assert len(select(p, method="convex", metric=metric, shrinkage=5, size=4)) == 4


def test_other_objectives_and_rules_get_the_weights_of_least_nll():
    p = a_pool(8, 120)
    weights = weights_of(select(p, method="convex"), p.ids)
    for options in ({"metric": "accuracy"}, {"metric": "macro_f1"}, {"rule": "majority"}, {"rule": "mean_logit"}):
        np.testing.assert_array_equal(weights_of(select(p, method="convex", **options), p.ids), weights)


def test_of_equal_members_one_is_enough():
    logits = a_pool(3, 100).logits
    p = Predictions.from_arrays(np.concatenate([logits, logits, logits]), a_pool(3, 100).labels)
    single = Predictions.from_arrays(logits, a_pool(3, 100).labels)
    for metric in LOSSES:
        many, few = (select(x, method="convex", metric=metric) for x in (p, single))
        assert len(many) == len(few)
        assert many.score == pytest.approx(few.score, abs=1e-6)


def test_a_large_pool_is_solved_to_the_same_precision():
    p = a_pool(150, 400, 5, seed=3)
    own = p.true_class.astype(np.float64)
    weights = nll_problem(p).solve(np.arange(150))
    assert (own / (weights @ own)).mean(axis=1).max() <= 1 + 1e-9
    assert np.count_nonzero(weights) < 60


# --- hill climbing --------------------------------------------------------------------------------------------------


def naive_key(p, units, metric, rule):
    if rule == "mean_probability":
        combined = np.einsum("m,mnc->nc", units, p.probabilities.astype(np.float64)) / units.sum()
    else:
        team = np.flatnonzero(units)
        combined = combine(p.probabilities[team], units[team], rule)
    objective = Objective.of(metric)
    return objective.score(combined, p.labels), objective.tie(combined, p.labels), -np.count_nonzero(units)


def naive_climb(p, metric, rule, units, *, size, step=0.25, smallest=1 / 64, rounds=100):
    """Steepest ascent over all moves of weight, straight from the definition; `units` is a start in whole units."""
    while units.sum() * smallest < 1 - 1e-9:
        raise AssertionError("start too coarse")
    amount = max(1, round(step * units.sum()))
    while amount >= max(1, smallest * units.sum() * (1 - 1e-9)):
        best, found = naive_key(p, units, metric, rule), None
        for target in range(p.n_members):
            for source in reversed(range(p.n_members)):
                moved = units.copy()
                part = min(amount, units[source])
                moved[source] -= part
                moved[target] += part
                if source != target and part and np.count_nonzero(moved) <= size:
                    key = naive_key(p, moved, metric, rule)
                    if beats(key, best):
                        best, found = key, moved
        if found is None or rounds == 0:
            amount //= 2
        else:
            units, rounds = found, rounds - 1
    return units / units.sum()


@pytest.mark.parametrize("metric", ["nll", "accuracy", "brier", "macro_f1"])
@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("seed", [1, 2])
def test_climb_goes_where_the_naive_twin_goes(metric, size, seed):
    p = a_pool(6, 70, 3, seed=seed)
    ensemble = select(p, method="climb", metric=metric, size=size, start="best")
    start = 64 * weights_of(select(p, method="best", metric=metric), p.ids).astype(int)
    expected = naive_climb(p, metric, "mean_probability", start, size=size or 6)
    np.testing.assert_allclose(weights_of(ensemble, p.ids), expected)


@pytest.mark.parametrize("rule", COMBINERS)
def test_climb_follows_the_rule(rule):
    p = a_pool(4, 40, 3, seed=5)
    ensemble = select(p, method="climb", metric="accuracy", rule=rule, start="best", smallest=1 / 16)
    start = 16 * weights_of(select(p, method="best", metric="accuracy", rule=rule), p.ids).astype(int)
    expected = naive_climb(p, "accuracy", rule, start, size=4, smallest=1 / 16)
    np.testing.assert_allclose(weights_of(ensemble, p.ids), expected)


@pytest.mark.parametrize("start", ["greedy", "best"])
@pytest.mark.parametrize("metric", ["nll", "accuracy", "brier", "macro_f1", "balanced_accuracy"])
def test_climb_never_falls_behind_its_start(metric, start):
    sign = 1 if METRICS[metric].higher_is_better else -1
    gained = []
    for seed in range(6):
        p = a_pool(8, 120, 3, seed=seed)
        for size in (None, 3):
            climbed = select(p, method="climb", metric=metric, start=start, size=size)
            options = {} if start == "best" else {"size": size}
            begun = select(p, method=start, metric=metric, **options)
            gained.append(sign * (climbed.score - begun.score))
            assert len(climbed) <= (size or 8)
    assert min(gained) >= -1e-9
    assert max(gained) > 0


def test_climb_takes_a_callable():
    p = a_pool(6, 60)
    own = select(p, method="climb", metric=lambda probabilities, y: -METRICS["nll"](probabilities, y))
    assert own.score == pytest.approx(-select(p, method="climb").score, abs=1e-6)


def test_rounds_bound_the_moves():
    p = a_pool(8, 120, seed=1)
    scores = [select(p, method="climb", start="best", rounds=n).score for n in (1, 2, 4, 100)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert select(p, method="climb", start="best", rounds=2).reason.startswith("2 moves of weight")


def test_steps_divide_all_weight():
    p = a_pool(8, 120, seed=1)
    ensemble = select(p, method="climb", start="best", step=0.5, smallest=0.1)
    np.testing.assert_allclose(np.array(ensemble.weights) * 10, np.round(np.array(ensemble.weights) * 10))


# --- moves ----------------------------------------------------------------------------------------------------------


@st.composite
def moves_in_coarse_pools(draw):
    """Probabilities on a coarse grid (many exact ties), a weighting in units, an amount."""
    m, n, c = draw(st.integers(2, 6)), draw(st.integers(1, 6)), draw(st.integers(2, 4))
    parts = draw(st.lists(st.integers(0, 3), min_size=m * n * c, max_size=m * n * c))
    values = np.array(parts, dtype=float).reshape(m, n, c) + 0.25
    labels = draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    units = np.array(draw(st.lists(st.integers(0, 5), min_size=m, max_size=m)))
    units[0] += 1
    p = Predictions.from_arrays(probabilities=values / values.sum(axis=2, keepdims=True), labels=labels)
    return p, units, draw(st.integers(1, 4))


@pytest.mark.parametrize("metric", ["nll", "accuracy", "brier", "macro_f1"])
@given(case=moves_in_coarse_pools())
@settings(deadline=None, max_examples=40)
def test_leaders_are_the_best_moves(metric, case):
    p, units, amount = case
    pairs = [(i, j) for j in range(len(units)) for i in range(len(units)) if i != j and units[i]]
    sources, targets = (np.array(part) for part in zip(*pairs, strict=True))
    batch = Batch(sources, targets, np.minimum(units[sources], amount))
    moves = moves_for(Task(p, Objective.of(metric), "mean_probability", 0), units)
    keys = []
    for source, target, part in zip(*batch, strict=True):
        moved = units.copy()
        moved[source] -= part
        moved[target] += part
        keys.append(naive_key(p, moved, metric, "mean_probability")[:2])
    best = naive_best(keys)
    leaders, score, tie = moves.leaders(batch)
    assert (score, tie) == pytest.approx(keys[best], abs=1e-9)
    assert leaders.tolist() == [b for b, key in enumerate(keys) if not beats(keys[best], key)]
    assert moves.now() == pytest.approx(naive_key(p, units, metric, "mean_probability")[:2], abs=1e-7)


@pytest.mark.parametrize("sharpness", [1, 10, 80])
def test_moves_that_slopes_rule_out_are_not_the_best(sharpness):
    p = a_pool(9, 200, 4, seed=1, sharpness=sharpness)
    rng = np.random.default_rng(0)
    for _ in range(12):
        units = rng.integers(0, 5, 9)
        sources, targets = (part.ravel() for part in np.meshgrid(np.flatnonzero(units), np.arange(9)))
        different = sources != targets
        batch = Batch(sources[different], targets[different], np.minimum(units[sources[different]], 2))
        afters = np.tile(units, (len(batch.sources), 1))
        afters[np.arange(len(afters)), batch.sources] -= batch.amounts
        afters[np.arange(len(afters)), batch.targets] += batch.amounts
        scores = [naive_key(p, after, "nll", "mean_probability")[0] for after in afters]
        leaders, score, _ = moves_for(Task(p, Objective.of("nll"), "mean_probability", 0), units).leaders(batch)
        assert leaders.tolist() == [int(np.argmax(scores))]
        assert score == pytest.approx(max(scores), abs=1e-7)


@pytest.mark.parametrize("sharpness", [1, 80])
def test_margins_count_the_same_in_small_parts(monkeypatch, sharpness):
    p = a_pool(7, 90, 5, seed=3, sharpness=sharpness)
    moves = moves_for(Task(p, Objective.of("accuracy"), "mean_probability", 0), np.array([2, 0, 3, 0, 0, 1, 0]))
    batch = Batch(np.repeat([0, 2, 5], 7), np.tile(np.arange(7), 3), np.repeat([1, 2, 1], 7))
    whole = moves.leaders(batch)
    for block in (1, 7, 100):
        monkeypatch.setattr("lrensemble.selection.margins.BLOCK", block)
        monkeypatch.setattr("lrensemble.selection.margins.PAIRS", block)
        some = moves.leaders(batch)
        np.testing.assert_array_equal(some[0], whole[0])
        assert some[1:] == whole[1:]
    assert BLOCK > 100


def test_margins_decide_as_argmax_does():
    p = a_pool(5, 300, 4, seed=8)
    duels = moves_for(Task(p, Objective.of("accuracy"), "mean_probability", 0), np.ones(5, dtype=int))._duels
    units = np.array([1, 0, 2, 0, 1])
    total = np.einsum("m,mnc->nc", units, p.probabilities.astype(np.float64))
    assert wrong(duels, margins_of(duels, units)) == (total.argmax(axis=1) != p.labels).sum()
    after = wrong_after(duels, margins_of(duels, units), 3, np.arange(5), lambda members, pairs: np.zeros(len(pairs)))
    expected = [((total + 3.0 * p.probabilities[j]).argmax(axis=1) != p.labels).sum() for j in range(5)]
    np.testing.assert_array_equal(after, expected)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "convex", "tolerance": -1}, "tolerance"),
        ({"method": "convex", "tolerance": "small"}, "tolerance"),
        ({"method": "convex", "tolerance": float("nan")}, "tolerance"),
        ({"method": "convex", "shrinkage": -1}, "shrinkage"),
        ({"method": "convex", "shrinkage": True}, "shrinkage"),
        ({"method": "climb", "rounds": 0}, "rounds"),
        ({"method": "climb", "step": 0}, "step"),
        ({"method": "climb", "step": 1.5}, "at most 1"),
        ({"method": "climb", "smallest": "1/64"}, "smallest"),
        ({"method": "climb", "step": 0.01}, "step ≥ smallest"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, says):
    with pytest.raises(InputError, match=says) as error:
        select(a_pool(), **arguments)
    assert "\n" not in str(error.value)


def test_an_unknown_start_is_refused_with_the_choices():
    with pytest.raises(UnknownNameError, match="greedy, best"):
        select(a_pool(), method="climb", start="zero")
