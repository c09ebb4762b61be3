"""Re-splitting: splits, the arithmetic of cross-validation, what it says of noise and of a known truth, and `auto`."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.metrics import METRICS
from lrensemble.predictions import ArrayOutputs, Predictions
from lrensemble.selection import SELECTORS, cross_validate, select
from lrensemble.selection.auto import auto
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.duels import Duels
from lrensemble.selection.part import part_of
from lrensemble.selection.resplit import CrossValidation, fewest_samples, mean_and_error, stratified_splits
from lrensemble.selection.table import CANDIDATES, FEW_CANDIDATES


def a_pool(members=6, samples=100, classes=3, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    shared = rng.normal(size=(samples, classes)) + 1.2 * np.eye(classes)[labels]
    spread = rng.uniform(0.5, 2, (members, 1, 1))
    return Predictions.from_arrays(shared + noise * spread * rng.normal(size=(members, samples, classes)), labels)


def pure_noise(members=60, samples=200, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    return Predictions.from_arrays(rng.normal(size=(members, samples, classes)), np.arange(samples) % classes)


# --- splits ---------------------------------------------------------------------------------------


@given(labels=st.lists(st.integers(0, 5), min_size=8, max_size=60), folds=st.integers(2, 8), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_every_division_holds_each_sample_out_once_and_keeps_the_classes(labels, folds, seed):
    labels = np.array(labels)
    splits = list(stratified_splits(labels, 2 * folds, folds, seed))
    for division in (splits[:folds], splits[folds:]):
        np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in division])), np.arange(len(labels)))
        for kind in [slice(None), *range(6)]:
            mask = np.ones(len(labels), bool) if isinstance(kind, slice) else labels == kind
            counts = [mask[held].sum() for _, held in division]
            assert max(counts) - min(counts) <= 1
    for selecting, held in splits:
        np.testing.assert_array_equal(np.union1d(selecting, held), np.arange(len(labels)))
        assert len(np.intersect1d(selecting, held)) == 0


def test_splits_follow_the_seed_and_differ_between_divisions():
    labels = np.arange(40) % 4

    def held(seed):
        return [tuple(part) for _, part in stratified_splits(labels, 10, 5, seed)]

    assert held(1) == held(1)
    assert held(1) != held(2)
    assert held(1)[:5] != held(1)[5:]
    assert held(1)[:7] == [tuple(part) for _, part in stratified_splits(labels, 7, 5, 1)]


def test_a_part_is_a_subset():
    for p in (a_pool(), Predictions.from_arrays(probabilities=a_pool().probabilities, labels=a_pool().labels)):
        rows = np.array([3, 4, 9, 50, 77])
        part, subset = part_of(p, rows), p.subset(rows)
        assert (part.ids, part.split, part.n_samples) == (subset.ids, subset.split, 5)
        assert isinstance(p.outputs, ArrayOutputs)
        for name in ("labels", "logits", "probabilities", "true_class", "predicted", "correct"):
            np.testing.assert_array_equal(getattr(part, name), getattr(subset, name))
            assert not getattr(part, name).flags.writeable
        for j in range(p.n_members):
            np.testing.assert_array_equal(part.member(j), subset.member(j))
            np.testing.assert_array_equal(part.member(j, slice(1, 3)), subset.member(j, slice(1, 3)))
            np.testing.assert_array_equal(part.member_logits(j), subset.member_logits(j))
        np.testing.assert_array_equal(part.take(["m4", "m1"]).probabilities, subset.take(["m4", "m1"]).probabilities)
        again = part.subset(np.array([0, 2]))
        np.testing.assert_array_equal(again.probabilities, subset.subset(np.array([0, 2])).probabilities)


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_duels_of_a_part_are_cut_from_those_of_all(noise):
    p = a_pool(5, 80, 4, noise=noise)
    known = {}
    for rows in (np.arange(0, 80, 3), np.array([7]), np.arange(80)):
        cut, anew = Duels.of(part_of(p, rows, known)), Duels.of(p.subset(rows))
        for name in ("own", "rivals", "sample", "first", "comes_before", "samples", "n_samples", "true_class"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(anew, name), err_msg=name)
        for name in ("own", "rivals"):
            assert getattr(cut, name).T.flags.c_contiguous
    assert list(known) == ["duels"]


# --- the arithmetic -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["nll", "accuracy", "macro_f1"])
@pytest.mark.parametrize("method", ["greedy", "best", "whole"])
def test_cross_validation_equals_its_definition(metric, method):
    p = a_pool()
    found = cross_validate(p, method=method, metric=metric, resplits=6, folds=3, seed=4)
    held_out, apparent, single, sizes, members = [], [], [], [], []
    for selecting, held in stratified_splits(p.labels, 6, 3, 4):
        team = select(p.subset(selecting), method=method, metric=metric, seed=4)
        alone = select(p.subset(selecting), method="best", metric=metric)
        rest = p.subset(held)
        held_out.append(METRICS[metric](team.probabilities(rest), rest.labels))
        single.append(METRICS[metric](alone.probabilities(rest), rest.labels))
        apparent.append(team.score)
        sizes.append(len(team))
        members += team.members
    np.testing.assert_allclose(found.held_out, held_out)
    np.testing.assert_allclose(found.apparent, apparent)
    np.testing.assert_allclose(found.single, single)
    assert found.sizes == tuple(sizes)
    assert found.chosen == {name: members.count(name) / 6 for name in p.ids if name in members}
    sign = 1 if METRICS[metric].higher_is_better else -1
    assert found.score == pytest.approx(np.mean(held_out))
    assert found.optimism == pytest.approx(sign * (np.mean(apparent) - np.mean(held_out)))
    assert found.corrected(0.7) == pytest.approx(0.7 - (np.mean(apparent) - np.mean(held_out)))
    gains = sign * (np.array(held_out) - single)
    assert found.gain == pytest.approx(gains.mean())
    assert found.gain_error == pytest.approx(gains.std(ddof=1) * np.sqrt(1 / 6 + 1 / 2))
    assert found.error == pytest.approx(np.std(held_out, ddof=1) * np.sqrt(1 / 6 + 1 / 2))
    assert str(found.n_splits) in str(found)
    assert found.metric in str(found)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_lead_is_positive_for_the_better_whatever_the_direction():
    for metric in ("nll", "accuracy"):
        p = a_pool(8, 200, noise=2.0)
        team, alone = (cross_validate(p, method=m, metric=metric) for m in ("greedy", "best"))
        assert team.lead(alone) == (team.gain, team.gain_error)
        assert team.gain > 0
        assert alone.lead(team)[0] == -team.gain
        assert (alone.gain, alone.gain_error) == (0.0, 0.0)


def test_standard_errors_are_those_of_nadeau_and_bengio():
    values = np.random.default_rng(0).normal(size=20)
    mean, error = mean_and_error(values, 5)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(np.sqrt((1 / 20 + 0.2 / 0.8) * values.var(ddof=1)))
    assert mean_and_error([0.5, 0.5, 0.5], 3) == (0.5, 0.0)


# --- what it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["best", "greedy"])
def test_noise_looks_good_only_where_it_was_chosen(method):
    found = cross_validate(pure_noise(), method=method, metric="accuracy")
    assert np.mean(found.apparent) > 0.55
    assert abs(found.score - 0.5) < 2 * found.error < 0.1
    assert found.optimism > 0.04
    nll = cross_validate(pure_noise(), method=method, metric="nll")
    assert nll.optimism > 0
    assert nll.score > np.log(2)  # worse than no opinion


def test_nothing_is_rosy_where_there_is_nothing_to_choose():
    p = a_pool(1, 150)
    same = Predictions.from_arrays(np.repeat(p.logits, 5, axis=0), p.labels)
    for method in ("greedy", "exhaustive", "whole"):
        found = cross_validate(same, method=method, metric="nll")
        assert abs(found.optimism) < 1e-9  # whole divisions: each sample is held out as often as any other
        assert (found.gain, found.gain_error) == pytest.approx((0.0, 0.0), abs=1e-9)


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_held_out_scores_are_those_of_the_population(metric):
    """Mean over pools: the estimate against the score of the same teams' method on fresh samples."""
    gaps, apparent_gaps, errors = [], [], []
    for seed in range(16):
        whole = a_pool(16, 4000, seed=seed, noise=1.5)
        p, fresh = whole.subset(np.arange(150)), whole.subset(np.arange(150, 4000))
        found = cross_validate(p, metric=metric, resplits=5, seed=seed)
        teams = [select(p.subset(part), metric=metric) for part, _ in stratified_splits(p.labels, 5, 5, seed)]
        truth = np.mean([METRICS[metric](team.probabilities(fresh), fresh.labels) for team in teams])
        sign = 1 if METRICS[metric].higher_is_better else -1
        gaps.append(sign * (found.score - truth))
        apparent_gaps.append(sign * (np.mean(found.apparent) - truth))
        errors.append(found.error)
    spread = np.std(gaps, ddof=1) / np.sqrt(len(gaps))
    assert abs(np.mean(gaps)) < 3 * spread
    assert np.mean(apparent_gaps) > 3 * spread
    assert 0.6 < np.mean(errors) / np.std(gaps, ddof=1) < 2  # the standard error says how far off a single pool is


def test_random_teams_are_not_chosen_and_so_not_rosy():
    found = cross_validate(a_pool(10, 300), method="random", size=3, metric="nll")
    assert abs(found.optimism) < 1e-9
    assert set(found.chosen.values()) == {1.0}


# --- refusals, and select -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"resplits": 1}, "resplits"),
        ({"folds": 1}, "folds"),
        ({"source": a_pool(3, 19)}, "at least 20 validation samples to re-split, got 19"),
        ({"folds": 30}, "at least 120 validation samples"),
        ({"method": "gredy"}, "greedy"),
        ({"round": 3}, "did you mean 'rounds'"),
        ({"rounds": "many"}, "expected rounds as an integer or None, got 'many'"),
        ({"metric": lambda p, y: float("nan")}, "finite"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, says):
    with pytest.raises(InputError, match=says) as error:
        cross_validate(**{"source": a_pool(), **arguments})
    assert "\n" not in str(error.value)


def test_select_keeps_what_resplitting_found(tmp_path):
    p = a_pool()
    plain, measured = select(p), select(p, resplits=10, seed=0)
    assert plain.resplit == {}
    assert (plain.members, plain.weights, plain.score) == (measured.members, measured.weights, measured.score)
    found = cross_validate(p, resplits=10)
    assert measured.resplit == {**found.to_dict(), "corrected": found.corrected(plain.score)}
    assert Ensemble.load(measured.save(tmp_path / "e.json")) == measured
    assert "resplits" not in measured.options
    with pytest.raises(InputError, match="0 or at least 2, got 1"):
        select(p, resplits=1)
    assert "takes 20 samples" in select(a_pool(3, 10), resplits=20).resplit["not_available"]


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_cross_validated(metric):
    found = cross_validate(a_pool(4, 60, 2), method="top-k", metric=metric, resplits=4, folds=2)
    assert np.isfinite([found.score, found.error, found.optimism, found.gain, found.gain_error]).all()


# --- auto -----------------------------------------------------------------------------------------


def test_candidates_are_methods():
    for text in (*CANDIDATES, *FEW_CANDIDATES):
        assert text.partition("(")[0] in SELECTORS
        select(a_pool(), method="auto", candidates=(text,), resplits=2)


def test_auto_takes_the_method_that_the_rule_asks_for():
    p = a_pool(8, 300, 4, seed=1, noise=2.0)
    candidates = ("greedy", "top-k", "whole", "greedy(rounds=2)")
    ensemble = select(p, method="auto", candidates=candidates, metric="nll", seed=3)
    rows = {row["method"]: row for row in ensemble.resplit["candidates"]}
    assert set(rows) == {"best", *candidates}
    options = {"greedy": {}, "top-k": {}, "whole": {}, "greedy(rounds=2)": {"rounds": 2}, "best": {}}
    found = {
        name: cross_validate(p, method=name.partition("(")[0], metric="nll", seed=3, **options[name]) for name in rows
    }
    for name, entry in found.items():
        for key in ("score", "standard_error", "gain", "gain_standard_error", "size"):
            assert rows[name][key] == pytest.approx(entry.to_dict()[key], abs=1e-9), (name, key)
    best = min(found, key=lambda name: found[name].score)
    level = [n for n in found if np.subtract(*found[best].lead(found[n])) <= 0]
    ahead = [n for n in level if found[n].gain > found[n].gain_error]
    winner = min(ahead, key=lambda name: (found[name].size, found[name].score))
    assert ensemble.resplit["method"] == winner
    assert ensemble.resplit["score"] == found[winner].score
    assert ensemble.reason.startswith(winner)
    again = select(p, method=winner.partition("(")[0], metric="nll", seed=3, **options[winner])
    assert (ensemble.members, ensemble.weights) == (again.members, again.weights)


def test_auto_takes_the_best_single_member_when_nothing_beats_it():
    p = a_pool(1, 200)
    same = Predictions.from_arrays(np.repeat(p.logits, 4, axis=0), p.labels)
    for pool in (same, p, a_pool(4, 19)):
        ensemble = select(pool, method="auto", metric="accuracy")
        assert ensemble.members == select(pool, method="best", metric="accuracy").members
        assert ("best single member" in ensemble.reason) == (pool.n_members > 1)


def test_auto_prefers_the_smaller_of_equals():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    two = 1.5 * np.eye(3)[labels] + rng.normal(size=(2, 400, 3))
    pool = Predictions.from_arrays(np.repeat(two, 4, axis=0), labels)  # eight members, two opinions
    ensemble = select(pool, method="auto", candidates=("whole", "exhaustive(max_size=2)"))
    assert ensemble.members == ("m0", "m4")
    assert ensemble.resplit["method"] == "exhaustive(max_size=2)"


def test_auto_leaves_out_what_refuses_the_pool():
    ensemble = select(a_pool(14, 60), method="auto", candidates=("exhaustive(max_teams=9)", "top-k"), resplits=4)
    rows = {row["method"]: row for row in ensemble.resplit["candidates"]}
    assert "at most 9 teams" in rows["exhaustive(max_teams=9)"]["left_out"]
    assert "score" in rows["top-k"]
    sized = select(a_pool(14, 60), method="auto", candidates=("whole", "top-k"), size=3, resplits=4)
    assert {row["method"] for row in sized.resplit["candidates"]} == {"best", "top-k"}
    assert len(sized) in (1, 3)


def test_auto_leaves_out_what_refuses_a_part_of_the_samples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    pool = Predictions.from_arrays(rng.normal(size=(6, 60, 3)) + np.eye(3)[labels], labels)
    name = "hq(beta=0.6, max_size=3)"
    assert len(select(pool, method="hq", metric="accuracy", size=3, beta=0.6, max_size=3)) == 3
    ensemble = select(pool, method="auto", candidates=[name, "top-k"], size=3, metric="accuracy", resplits=10)
    rows = {row["method"]: row for row in ensemble.resplit["candidates"]}
    assert "survive" in rows[name]["left_out"]
    assert "score" in rows["top-k"]


def test_auto_compares_by_as_many_resplits_as_asked():
    assert select(a_pool(), method="auto", candidates=["top-k"]).resplit["splits"] == 20
    asked = select(a_pool(), method="auto", candidates=["top-k"], resplits=7)
    assert asked.resplit["splits"] == 7
    assert asked.options == {"seed": 0, "candidates": ["top-k"]}
    assert "corrected" in asked.resplit


def test_auto_and_calibration_measure_the_calibrated_ensemble():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    hot = Predictions.from_arrays(4 * (1.5 * np.eye(3)[labels] + rng.normal(size=(5, 200, 3))), labels)
    plain, calibrated = (select(hot, method="auto", candidates=["whole"], calibrate=c) for c in ("none", "both"))
    assert calibrated.resplit["method"] == "whole"
    expected = cross_validate(hot, method="whole", calibrate="both")
    assert calibrated.resplit["score"] == expected.score < plain.resplit["score"]


@pytest.mark.parametrize(
    ("candidates", "error"),
    [
        (("gredy",), UnknownNameError),
        (("greedy(round=3)",), InputError),
        (("greedy(rounds='x')",), InputError),
        (("greedy(",), InputError),
        (("auto",), UnknownNameError),
        ("greedy", InputError),
        ((1,), InputError),
        ((), InputError),
    ],
)
def test_auto_refuses_candidates_that_are_no_methods(candidates, error):
    with pytest.raises(error) as caught:
        select(a_pool(), method="auto", candidates=candidates)
    assert "\n" not in str(caught.value)


def test_auto_by_itself():
    task = Task(a_pool(), Objective.of("nll"), "mean_probability", 0)
    found = auto(task, None, methods=SELECTORS, usual=(("top-k",), ("whole",)), resplits=3)
    assert [row["method"] for row in found.resplit["candidates"]] == ["best", "top-k"]
    by_rule = auto(
        Task(a_pool(), Objective.of("nll"), "median", 0), None, methods=SELECTORS, usual=(("top-k",), ("whole",))
    )
    assert [row["method"] for row in by_rule.resplit["candidates"]] == ["best", "whole"]


def test_records_are_plain():
    found = cross_validate(a_pool(), resplits=2, folds=2)
    assert isinstance(found, CrossValidation)
    assert found == cross_validate(a_pool(), resplits=2, folds=2)
    assert fewest_samples(2) == 8
