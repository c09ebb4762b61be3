"""Selection: every method on every kind of pool, and the searches against naive twins in float64."""

import itertools
import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_helpers import a_pool, coarse_pools, naive_best, naive_greedy, naive_key, weights_of

from lrensemble.combine import COMBINERS
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection import SELECTORS, select
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.scorers import RuleScorer, scorer_for
from lrensemble.selection.teams import all_scores, team_scores

OBJECTIVES = ("accuracy", "nll", "brier", "macro_f1", "balanced_accuracy")
DRAWN = ("random", "auto", "tradeoff")  # draw by position: members, the parts to compare on, the halves to choose λ on
every_method = pytest.mark.parametrize("method", SELECTORS)
QUICK = {"auto": {"resplits": 4}}  # every method runs on many pools: these arguments spare time


# --- the naive twins: float64, straight from the definition ---------------------------------------------------------


def naive_exhaustive(p, metric, rule, sizes):
    teams = [team for k in sizes for team in itertools.combinations(range(p.n_members), k)]
    return teams[naive_best([naive_key(p, team, metric, rule) for team in teams])]


# --- every method ---------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("metric", OBJECTIVES)
def test_every_method_gives_a_valid_ensemble(method, metric):
    p = a_pool()
    before = p.logits.copy(), p.labels.copy()
    ensemble = select(p, method=method, metric=metric, **QUICK.get(method, {}))
    assert isinstance(ensemble, Ensemble)
    assert list(ensemble.members) == [name for name in p.ids if name in ensemble.members]
    assert min(ensemble.weights) > 0
    assert sum(ensemble.weights) == pytest.approx(1, abs=1e-12)
    assert ensemble.score == METRICS[metric](ensemble.probabilities(p), p.labels)
    assert (ensemble.method, ensemble.metric, ensemble.rule) == (method, metric, "mean_probability")
    assert (ensemble.split, ensemble.n_samples, ensemble.n_candidates) == ("val", 80, 6)
    assert ensemble.fingerprint == p.fingerprint
    assert Ensemble.from_dict(json.loads(json.dumps(ensemble.to_dict()))) == ensemble
    np.testing.assert_array_equal(p.logits, before[0])
    np.testing.assert_array_equal(p.labels, before[1])


@every_method
def test_every_method_says_how_it_came_to_its_team(method):
    reason = select(a_pool(), method=method).reason
    assert reason
    assert not re.search(r"\b1 (teams|bags|clusters|moves)\b", reason)


@every_method
def test_the_same_call_gives_the_same_ensemble(method):
    assert select(a_pool(), method=method, seed=3) == select(a_pool(), method=method, seed=3)


@pytest.mark.parametrize("method", [name for name in SELECTORS if name not in DRAWN])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_order_of_members_and_samples_plays_no_part(method, metric):
    p = a_pool(7, 150, 4, seed=5)
    rng = np.random.default_rng(0)
    members, samples = rng.permutation(7), rng.permutation(150)
    shuffled = Predictions.from_arrays(
        p.logits[members][:, samples], p.labels[samples], ids=[p.ids[i] for i in members]
    )
    one, other = select(p, method=method, metric=metric), select(shuffled, method=method, metric=metric)
    np.testing.assert_allclose(weights_of(one, p.ids), weights_of(other, p.ids))
    assert one.score == pytest.approx(other.score)


DEGENERATE = {
    "one member": a_pool(1),
    "one sample": a_pool(4, 1),
    "two members, two classes": a_pool(2, 10, 2),
    "one class of labels present": Predictions.from_arrays(a_pool(4).logits, np.zeros(80, dtype=int)),
    "all right": Predictions.from_arrays(np.tile(np.eye(3)[None] * 9, (4, 2, 1)), [0, 1, 2, 0, 1, 2]),
    "all wrong": Predictions.from_arrays(np.tile(np.eye(3)[None] * 9, (4, 2, 1)), [1, 2, 0, 1, 2, 0]),
    "certain and right": Predictions.from_arrays(np.tile(np.eye(3)[None] * 1e4, (4, 1, 1)), [0, 1, 2]),
    "certain and wrong": Predictions.from_arrays(np.tile(np.eye(3)[None] * 1e4, (4, 1, 1)), [1, 2, 0]),
    "no opinion": Predictions.from_arrays(np.zeros((4, 5, 3)), [0, 1, 2, 0, 1]),
}


@every_method
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_pools_give_valid_ensembles_without_warnings(method, case):
    p = DEGENERATE[case]
    for metric in OBJECTIVES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ensemble = select(p, method=method, metric=metric, **QUICK.get(method, {}))
        assert np.isfinite(ensemble.score)
        assert np.isfinite([step["score"] for step in ensemble.trace]).all()


UPPER_BOUND = ("greedy", "beam", "convex", "climb", "auto")  # methods for which `size` is one


@pytest.mark.parametrize(
    "method", [name for name in SELECTORS if SELECTORS[name].takes_size and name not in UPPER_BOUND]
)
def test_size_is_kept(method):
    assert len(select(a_pool(), method=method, size=3)) == 3


@every_method
@pytest.mark.parametrize("rule", COMBINERS)
def test_every_rule_works_with_every_method(method, rule):
    ensemble = select(a_pool(4, 30), method=method, rule=rule, metric="accuracy", **QUICK.get(method, {}))
    assert ensemble.rule == rule
    assert ensemble.score == METRICS["accuracy"](ensemble.probabilities(a_pool(4, 30)), a_pool(4, 30).labels)


# --- what may be asked of a pool, and refusals ----------------------------------------------------------------------


def test_a_pool_is_asked_for_validation_only():
    class Watched:
        asked = ()

        def predictions(self, split):
            self.asked += (split,)
            return a_pool()

        def __getattr__(self, name):
            raise AssertionError(f"selection asked for '{name}'")

    pool = Watched()
    assert select(pool) == select(a_pool())
    assert pool.asked == ("val",)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"source": a_pool(split="test")}, "must not see test data"),
        ({"source": a_pool(split="Test2")}, "split 'Test2': selection must not see test data"),
        ({"source": "checkpoints/digits"}, "pool or predictions"),
        ({"size": 0}, "size"),
        ({"size": 7}, "≤ 6"),
        ({"size": True}, "size"),
        ({"size": 2.0}, "size"),
        ({"seed": -1}, "seed"),
        ({"depth": 2}, "its options are rounds, replacement"),
        ({"method": "whole", "rounds": 2}, "its options are none"),
        ({"method": "whole", "size": 2}, "leave it out"),
        ({"method": "best", "size": 2}, "leave it out"),
        ({"rounds": 0}, "rounds"),
        ({"replacement": "no"}, "True or False"),
        ({"keep_best": 1}, "True or False"),
        ({"init": 9}, "init"),
        ({"bags": -1}, "bags"),
        ({"bags": 2, "bag_fraction": 0}, "bag_fraction"),
        ({"bags": 2, "bag_fraction": "half"}, "bag_fraction"),
        ({"bags": 2, "size": 2}, "size or bags"),
        ({"method": "exhaustive", "max_size": 0}, "max_size"),
        ({"method": "exhaustive", "max_teams": 62}, "got 63 "),
        ({"method": "diversity", "size": 1}, "size"),
        ({"method": "diversity", "max_size": 1}, "max_size"),
        ({"method": "diversity", "max_teams": 0}, "max_teams"),
        ({"method": "diversity", "threshold": "median"}, "'mean' or 'kmeans'"),
        ({"method": "diversity", "focal": "CK"}, "True or False"),
        ({"metric": lambda p, y: float("nan")}, "finite"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, says):
    with pytest.raises(InputError, match=says) as error:
        select(**{"source": a_pool(), **arguments})
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers(tmp_path):
    options = {"size": np.int64(3), "seed": np.int32(1), "rounds": np.int16(5), "replacement": np.bool_(True)}
    team = select(a_pool(), **options)
    assert team == select(a_pool(), size=3, seed=1, rounds=5, replacement=True)
    assert Ensemble.load(team.save(tmp_path / "ensemble.json")) == team
    assert select(a_pool(), bags=2, bag_fraction=np.float32(0.5)) == select(a_pool(), bags=2, bag_fraction=0.5)


@pytest.mark.parametrize(
    ("arguments", "choice"),
    [
        ({"method": "gredy"}, "greedy"),
        ({"metric": "acuracy"}, "accuracy"),
        ({"rule": "mean"}, "mean_logit"),
        ({"method": "diversity", "diversity": "CX"}, "CK"),
    ],
)
def test_unknown_names_are_refused_with_the_choices(arguments, choice):
    with pytest.raises(UnknownNameError, match=choice):
        select(a_pool(), **arguments)


def test_exhaustive_says_how_many_teams_and_what_else():
    with pytest.raises(InputError, match=r"got 1,099,511,627,775 \(40 members\): give a size or max_size.*'greedy'"):
        select(a_pool(40, 5), method="exhaustive")
    assert len(select(a_pool(40, 5), method="exhaustive", max_size=2)) <= 2


# --- objectives -----------------------------------------------------------------------------------------------------


def test_a_callable_that_gives_no_number_is_refused():
    def words(probabilities, labels):
        return "good"

    with pytest.raises(InputError, match="metric 'words' to give a number, got 'good'"):
        select(a_pool(), metric=words)


def test_a_callable_is_maximised_and_a_metric_keeps_its_direction():
    p = a_pool()
    own = select(p, metric=lambda probabilities, y: -METRICS["nll"](probabilities, y))
    named = select(p, metric="nll")
    assert own.metric == "<lambda>"
    assert own.members == named.members
    assert own.score == pytest.approx(-named.score)
    for metric in (METRICS["nll"], METRICS["nll"].function):
        assert select(p, metric=metric) == named


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_the_objective(metric):
    p = a_pool(5, 60)
    best = select(p, method="exhaustive", metric=metric).score
    singles = [METRICS[metric](member.astype(np.float64), p.labels) for member in p.probabilities]
    assert best >= max(singles) - 1e-9 if METRICS[metric].higher_is_better else best <= min(singles) + 1e-9


def test_equal_accuracy_goes_by_nll_then_size_then_index():
    right, unsure, wrong = [[4, 0, 0]], [[1, 0, 0]], [[0, 4, 0]]
    by_nll = Predictions.from_arrays([unsure, right, wrong], [0])
    by_size = Predictions.from_arrays([wrong, right, right, right], [0])
    for method in ("exhaustive", "greedy", "best", "top-k"):
        assert select(by_nll, method=method, metric="accuracy").members == ("m1",)
        assert select(by_size, method=method, metric="accuracy").members == ("m1",)
        assert select(by_size, method=method, metric="nll").members == ("m1",)


# --- scorers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", OBJECTIVES)
@given(p=coarse_pools(), data=st.data())
@settings(deadline=None, max_examples=40)
def test_scorers_equal_the_definition(metric, p, data):
    members = data.draw(st.lists(st.integers(0, p.n_members - 1), max_size=4))
    scorer = scorer_for(Task(p, Objective.of(metric), "mean_probability", 0))
    for member in members:
        scorer = scorer.plus(member)
    candidates = np.arange(p.n_members)
    expected = np.array([naive_key(p, [*members, j], metric, "mean_probability")[:2] for j in candidates])
    np.testing.assert_allclose(scorer.scores(candidates), expected[:, 0], atol=1e-7)
    np.testing.assert_allclose(scorer.ties(candidates), expected[:, 1], atol=1e-12)


def test_walks_over_teams_agree_with_single_teams():
    p = a_pool(6, 40)
    task = Task(p, Objective.of("brier"), "mean_probability", 0)
    by_size = all_scores(scorer_for(task), 6, range(2, 5))
    assert list(by_size) == [2, 3, 4]
    for size, scores in by_size.items():
        teams = np.array(list(itertools.combinations(range(6), size)))
        expected = [naive_key(p, team, "brier", "mean_probability")[0] for team in teams]
        np.testing.assert_allclose(scores, expected, atol=1e-7)
        np.testing.assert_allclose(team_scores(scorer_for(task), teams[1::2]), expected[1::2], atol=1e-7)


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_fast_scorers_equal_the_general_one(metric):
    p = a_pool(9, 200)
    objective = Objective.of(metric)
    fast = scorer_for(Task(p, objective, "mean_probability", 0)).plus(2).plus(5)
    general = RuleScorer(p, objective, "mean_probability").plus(2).plus(5)
    everyone = np.arange(9)
    np.testing.assert_allclose(fast.scores(everyone), general.scores(everyone), atol=1e-6)
    np.testing.assert_allclose(fast.ties(everyone), general.ties(everyone), atol=1e-6)


# --- greedy ---------------------------------------------------------------------------------------------------------

GREEDY = [
    {},
    {"rounds": 60},
    {"replacement": False},
    {"size": 3},
    {"size": 3, "replacement": False},
    {"init": 3, "rounds": 10},
]


@pytest.mark.parametrize("options", GREEDY, ids=str)
@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
@pytest.mark.parametrize("seed", [1, 2])
def test_greedy_picks_what_the_naive_twin_picks(options, metric, seed):
    p = a_pool(12, 150, 4, seed=seed, sharpness=3 if seed == 2 else 1)
    picked, keys = naive_greedy(p, metric, "mean_probability", **options)
    last = select(p, metric=metric, keep_best=False, **options)
    assert [step["member"] for step in last.trace] == [p.ids[j] for j in picked]
    sign = 1 if METRICS[metric].higher_is_better else -1
    np.testing.assert_allclose([step["score"] for step in last.trace], [sign * key[0] for key in keys], atol=1e-7)
    np.testing.assert_allclose(weights_of(last, p.ids), np.bincount(picked, minlength=12) / len(picked))

    first = max(options.get("init", 0), 1) - 1
    kept = picked[: first + 1 + naive_best(keys[first:])]
    best = select(p, metric=metric, **options)
    np.testing.assert_allclose(weights_of(best, p.ids), np.bincount(kept, minlength=12) / len(kept))
    assert len(best.trace) == len(kept)


@pytest.mark.parametrize("rule", COMBINERS)
def test_greedy_follows_the_rule(rule):
    p = a_pool(6, 60, 3, seed=4)
    for metric in ("accuracy", "nll"):
        picked, _ = naive_greedy(p, metric, rule, rounds=8)
        ensemble = select(p, metric=metric, rule=rule, rounds=8, keep_best=False)
        assert [step["member"] for step in ensemble.trace] == [p.ids[j] for j in picked]


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@given(p=coarse_pools())
@settings(deadline=None, max_examples=40)
def test_greedy_follows_the_order_of_ties(metric, p):
    picked, _ = naive_greedy(p, metric, "mean_probability", rounds=6)
    ensemble = select(p, metric=metric, rounds=6, keep_best=False)
    assert [step["member"] for step in ensemble.trace] == [p.ids[j] for j in picked]


def test_greedy_survives_members_that_rule_the_truth_out():
    p = a_pool(8, 60, 3, sharpness=80)  # some true-class probabilities are 0 in float32
    assert p.true_class.min() == 0
    picked, _ = naive_greedy(p, "nll", "mean_probability")
    assert [step["member"] for step in select(p, keep_best=False).trace] == [p.ids[j] for j in picked]


def test_greedy_never_falls_behind_the_best_single():
    for seed in range(10):
        p = a_pool(seed=seed)
        for metric in OBJECTIVES:
            sign = 1 if METRICS[metric].higher_is_better else -1
            greedy, single = (sign * select(p, method=m, metric=metric).score for m in ("greedy", "best"))
            assert greedy >= single - 1e-9


def test_bags_are_the_mean_of_runs_on_shares_of_the_members():
    p = a_pool(8, 100)
    ensemble = select(p, bags=3, bag_fraction=0.5, seed=7, rounds=5)
    rng = np.random.default_rng(7)
    expected = np.zeros(8)
    for _ in range(3):
        bag = np.sort(rng.choice(8, 4, replace=False))
        run = select(p.take([p.ids[i] for i in bag]), rounds=5)
        expected += weights_of(run, p.ids) / 3
    np.testing.assert_allclose(weights_of(ensemble, p.ids), expected)
    assert ensemble.trace == ()
    assert ensemble != select(p, bags=3, bag_fraction=0.5, seed=8, rounds=5)


# --- exhaustive -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", COMBINERS)
@pytest.mark.parametrize("metric", OBJECTIVES)
def test_exhaustive_equals_brute_force(rule, metric):
    p = a_pool(5, 40, 3, seed=9)
    for options, sizes in (({}, range(1, 6)), ({"size": 3}, [3]), ({"max_size": 2}, [1, 2])):
        expected = naive_exhaustive(p, metric, rule, sizes)
        ensemble = select(p, method="exhaustive", metric=metric, rule=rule, **options)
        assert ensemble.members == tuple(p.ids[i] for i in expected)
        assert len(set(ensemble.weights)) == 1


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@given(p=coarse_pools())
@settings(deadline=None, max_examples=15)
def test_exhaustive_follows_the_order_of_ties(metric, p):
    p = p.take(p.ids[:5])
    expected = naive_exhaustive(p, metric, "mean_probability", range(1, p.n_members + 1))
    assert select(p, method="exhaustive", metric=metric).members == tuple(p.ids[i] for i in expected)


def test_exhaustive_finds_the_same_in_a_larger_pool():
    p = a_pool(11, 60, 4, seed=3)
    for metric in ("accuracy", "nll"):
        expected = naive_exhaustive(p, metric, "mean_probability", range(1, 12))
        assert select(p, method="exhaustive", metric=metric).members == tuple(p.ids[i] for i in expected)


# --- controls and baselines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", OBJECTIVES)
def test_top_k_takes_the_best_ones(metric):
    p = a_pool(8, 200, seed=6)
    singles = [naive_key(p, [j], metric, "mean_probability")[:2] for j in range(8)]
    order = sorted(range(8), key=lambda j: (-singles[j][0], -singles[j][1], j))
    for size in (1, 3, 8):
        ensemble = select(p, method="top-k", metric=metric, size=size)
        assert set(ensemble.members) == {p.ids[j] for j in order[:size]}
        assert [step["member"] for step in ensemble.trace] == [p.ids[j] for j in order[:size]]
    k = 1 + naive_best([naive_key(p, order[:k], metric, "mean_probability")[:2] for k in range(1, 9)])
    assert set(select(p, method="top-k", metric=metric).members) == {p.ids[j] for j in order[:k]}
    assert select(p, method="best", metric=metric).members == (p.ids[order[0]],)


def test_whole_pool_has_equal_weights():
    ensemble = select(a_pool(), method="whole")
    assert ensemble.members == a_pool().ids
    np.testing.assert_allclose(ensemble.weights, 1 / 6)


def test_random_teams_are_uniform_and_follow_the_seed():
    p = a_pool(4, 5)
    drawn = [select(p, method="random", size=2, seed=s).members for s in range(600)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 60  # 100 expected, sd 9
    any_size = {select(p, method="random", seed=s).members for s in range(600)}
    assert len(any_size) == 15
