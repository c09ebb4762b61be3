"""The greedy family: early stop and bags of greedy, beam search, backward elimination; against naive float64 twins."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from selection_helpers import a_pool, beats, coarse_pools, naive_best, naive_key, weights_of

from lrensemble.combine import COMBINERS
from lrensemble.errors import InputError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection import select
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.removals import removals_for
from lrensemble.selection.simple import ranking

METRIC_NAMES = ("accuracy", "nll", "brier")
SHARP = (1, 3, 80)  # at 80 many float32 probabilities are 0 or 1


# --- greedy: early stop, reasons, bags ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRIC_NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_patience_stops_after_so_many_rounds_without_a_better_team(metric, seed):
    p = a_pool(12, 150, 4, seed=seed)
    every = select(p, metric=metric, rounds=60, keep_best=False).trace
    teams = [[p.ids.index(step["member"]) for step in every[:k]] for k in range(1, 61)]
    keys = [naive_key(p, team, metric, "mean_probability") for team in teams]
    for patience in (1, 3, 10):
        best, ran = 0, 60
        for k, key in enumerate(keys):
            best = k if beats(key, keys[best]) else best
            if k - best >= patience:
                ran = k + 1
                break
        last = select(p, metric=metric, rounds=60, keep_best=False, patience=patience)
        kept = select(p, metric=metric, rounds=60, patience=patience)
        assert len(last.trace) == ran
        assert [step["member"] for step in kept.trace] == [p.ids[j] for j in teams[best]]
        assert kept.members == select(p, metric=metric, rounds=ran).members


def test_patience_waits_for_the_initial_team():
    p = a_pool(12, 150, 4, seed=1)
    assert len(select(p, init=8, patience=1, keep_best=False).trace) >= 8
    assert select(p, init=8, patience=100).trace == select(p, init=8).trace


def test_reasons_tell_how_the_team_came_about():
    p = a_pool(12, 150, 4)
    assert select(p).reason == f"best after {len(select(p).trace)} of 25 rounds"
    assert select(p, keep_best=False, rounds=7).reason == "team of all 7 rounds"
    assert "ended as 2 brought nothing better" in select(p, rounds=90, patience=2).reason
    assert select(p, bags=3).reason == "mean of 3 bags, each on 6 of 12 members"
    both = select(p, bags=3, bag_fraction=1.0, sample_fraction=0.2).reason
    assert both == "mean of 3 bags, each on 12 of 12 members and 30 of 150 samples"


@pytest.mark.parametrize("bag_fraction", [0.5, 1.0])
@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_bags_of_samples_are_the_mean_of_runs_on_shares_of_both(metric, bag_fraction):
    p = a_pool(8, 100)
    ensemble = select(p, metric=metric, bags=3, bag_fraction=bag_fraction, sample_fraction=0.3, seed=7, rounds=5)
    rng = np.random.default_rng(7)
    bags = [np.sort(rng.choice(8, round(8 * bag_fraction), replace=False)) for _ in range(3)]
    expected = np.zeros(8)
    for bag in bags:
        samples = np.sort(rng.choice(100, 30, replace=False))
        run = select(p.take([p.ids[i] for i in bag]).subset(samples), metric=metric, rounds=5)
        expected += weights_of(run, p.ids) / 3
    np.testing.assert_allclose(weights_of(ensemble, p.ids), expected)
    assert ensemble.score == METRICS[metric](ensemble.probabilities(p), p.labels)


def test_all_samples_are_what_no_fraction_is():
    p = a_pool(8, 100)
    assert select(p, bags=4, sample_fraction=1.0).members == select(p, bags=4).members
    few = [select(p, bags=2, sample_fraction=0.001, seed=s) for s in range(3)]  # one sample each
    assert all(np.isfinite(team.score) for team in few)


# --- beam -----------------------------------------------------------------------------------------------------------

FORWARD = [{}, {"rounds": 40, "patience": 6}, {"replacement": False}, {"size": 3}, {"init": 3, "rounds": 10}]


@pytest.mark.parametrize("options", [*FORWARD, {"size": 3, "replacement": False}, {"keep_best": False}], ids=str)
@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_a_beam_of_one_is_greedy(metric, options):
    for seed in range(3):
        p = a_pool(10, 120, 4, seed=seed)
        narrow, greedy = (select(p, metric=metric, **options, **o) for o in ({"method": "beam", "width": 1}, {}))
        assert narrow.members == greedy.members
        assert narrow.weights == greedy.weights
        assert [step["member"] for step in narrow.trace] == [step["member"] for step in greedy.trace]
        np.testing.assert_allclose([step["score"] for step in narrow.trace], [step["score"] for step in greedy.trace])


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@given(p=coarse_pools())
@settings(deadline=None, max_examples=30)
def test_a_beam_of_one_follows_the_order_of_ties(metric, p):
    narrow, greedy = (select(p, metric=metric, rounds=6, **o) for o in ({"method": "beam", "width": 1}, {}))
    assert (narrow.members, narrow.weights) == (greedy.members, greedy.weights)


def test_of_equal_teams_a_beam_follows_the_smaller_one():
    p = Predictions.from_arrays([[[1, 2]], [[8, 0]]], [0])

    def plain_accuracy(probabilities, labels):  # has no tie of its own
        return METRICS["accuracy"](probabilities, labels)

    for options in ({"method": "beam", "width": 1}, {"method": "beam", "width": 2}, {}):
        team = select(p, metric=plain_accuracy, rounds=2, keep_best=False, **options)
        assert team.members == ("m1",)


def naive_beam(p, metric, rule, *, width, rounds, replacement=True, size=None):
    """Best team passed on the way, as a sorted list of members with repetition; straight from the definition."""
    teams, best = [()], None
    for _ in range(rounds):
        grown = {
            tuple(sorted((*team, j)))
            for team in teams
            for j in range(p.n_members)
            if (replacement or j not in team) and len({*team, j}) <= (size or p.n_members)
        }
        if not grown:
            break
        left = sorted(grown, key=lambda team: (len(set(team)), team))
        keys = [naive_key(p, team, metric, rule) for team in left]
        teams = []
        while left and len(teams) < width:
            first = naive_best(keys)
            teams.append(left.pop(first))
            key = keys.pop(first)
            if len(teams) == 1 and (best is None or beats(key, best[1])):
                best = (teams[0], key)
    return best[0]


@pytest.mark.parametrize("options", [{}, {"replacement": False}, {"size": 2}], ids=str)
@pytest.mark.parametrize("metric", METRIC_NAMES)
@pytest.mark.parametrize("width", [2, 7])
def test_beam_finds_what_the_naive_twin_finds(width, metric, options):
    p = a_pool(7, 90, 4, seed=width)
    expected = naive_beam(p, metric, "mean_probability", width=width, rounds=6, **options)
    ensemble = select(p, method="beam", metric=metric, width=width, rounds=6, **options)
    np.testing.assert_allclose(weights_of(ensemble, p.ids), np.bincount(expected, minlength=7) / len(expected))


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@given(p=coarse_pools())
@settings(deadline=None, max_examples=20)
def test_beam_follows_the_order_of_ties(metric, p):
    p = p.take(p.ids[:5])
    expected = naive_beam(p, metric, "mean_probability", width=3, rounds=4)
    ensemble = select(p, method="beam", metric=metric, width=3, rounds=4)
    np.testing.assert_allclose(
        weights_of(ensemble, p.ids), np.bincount(expected, minlength=p.n_members) / len(expected), atol=1e-12
    )


@pytest.mark.parametrize("rule", COMBINERS)
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_a_beam_as_wide_as_all_teams_is_exhaustive(rule, metric):
    p = a_pool(5, 50, 3, seed=6)
    widest = select(p, method="beam", metric=metric, rule=rule, width=32, replacement=False)
    assert widest.members == select(p, method="exhaustive", metric=metric, rule=rule).members
    assert "31 teams scored" in widest.reason


def test_the_trace_of_a_beam_leads_to_its_team():
    p = a_pool(9, 100, 4, seed=3)
    ensemble = select(p, method="beam", width=6)
    members = [p.ids.index(step["member"]) for step in ensemble.trace]
    np.testing.assert_allclose(weights_of(ensemble, p.ids), np.bincount(members, minlength=9) / len(members))
    expected = [-naive_key(p, members[:k], "nll", "mean_probability")[0] for k in range(1, len(members) + 1)]
    np.testing.assert_allclose([step["score"] for step in ensemble.trace], expected, atol=1e-7)


# --- backward -------------------------------------------------------------------------------------------------------


def naive_backward(p, metric, rule, *, size=None, init=None):
    singles = [naive_key(p, [j], metric, rule)[:2] for j in range(p.n_members)]
    order = sorted(range(p.n_members), key=lambda j: (-singles[j][0], -singles[j][1], j))
    teams = [sorted(order[:init])]
    while len(teams[-1]) > (size or 1):
        fewer = list(itertools.combinations(teams[-1], len(teams[-1]) - 1))  # without the last one comes first
        teams.append(list(fewer[naive_best([naive_key(p, team, metric, rule) for team in fewer])]))
    return teams[-1] if size else teams[naive_best([naive_key(p, team, metric, rule) for team in teams])]


@pytest.mark.parametrize("options", [{}, {"size": 4}, {"init": 6}, {"init": 6, "size": 2}], ids=str)
@pytest.mark.parametrize("metric", [*METRIC_NAMES, "macro_f1"])
@pytest.mark.parametrize("sharpness", SHARP)
def test_backward_drops_what_the_naive_twin_drops(options, metric, sharpness):
    p = a_pool(11, 120, 4, seed=2, sharpness=sharpness)
    ensemble = select(p, method="backward", metric=metric, **options)
    assert ensemble.members == tuple(p.ids[j] for j in naive_backward(p, metric, "mean_probability", **options))
    assert len(set(ensemble.weights)) == 1


@pytest.mark.parametrize("rule", COMBINERS)
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_backward_follows_the_rule(rule, metric):
    p = a_pool(6, 60, 3, seed=4)
    ensemble = select(p, method="backward", metric=metric, rule=rule)
    assert ensemble.members == tuple(p.ids[j] for j in naive_backward(p, metric, rule))


@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
@given(p=coarse_pools())
@settings(deadline=None, max_examples=40)
def test_backward_follows_the_order_of_ties(metric, p):
    ensemble = select(p, method="backward", metric=metric)
    assert ensemble.members == tuple(p.ids[j] for j in naive_backward(p, metric, "mean_probability"))


def test_backward_may_find_what_greedy_misses():
    """Two members that are useless one by one and right together, beside one that is fair alone."""
    fair = [[0.50, 0.25, 0.25]] * 3 + [[0.25, 0.50, 0.25]]
    one = [[0.40, 0.02, 0.58]] * 2 + [[0.48, 0.50, 0.02]] * 2
    other = [[0.40, 0.58, 0.02]] * 2 + [[0.48, 0.02, 0.50]] * 2
    p = Predictions.from_arrays(probabilities=[fair, one, other], labels=[0, 0, 0, 0])
    forward, back = (
        select(p, method=m, metric="accuracy", **o) for m, o in (("greedy", {"size": 2}), ("backward", {}))
    )
    assert forward.score < back.score == 1
    assert back.members == ("m1", "m2")


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@pytest.mark.parametrize("sharpness", SHARP)
def test_removals_are_what_scorers_say(metric, sharpness):
    p = a_pool(9, 150, 4, seed=7, sharpness=sharpness)
    task = Task(p, Objective.of(metric), "mean_probability", 0)
    team = np.arange(9)
    removals = removals_for(task, team)
    while len(removals.team) > 1:
        keys = [
            naive_key(p, [j for j in removals.team if j != k], metric, "mean_probability")[:2] for k in removals.team
        ]
        leaders, score, tie = removals.leaders()
        best = naive_best(keys)
        assert (score, tie) == pytest.approx(keys[best], abs=1e-7)
        assert leaders[0] == removals.team[best]
        removals.leave(int(removals.team[len(removals.team) // 2]))  # not the best one: bounds must hold on any way


def test_what_is_left_of_a_sum_keeps_its_digits():
    """A member that gives nearly all: subtracting it from the sum would leave noise where the others give 1e-20."""
    rng = np.random.default_rng(0)
    tiny = 10.0 ** rng.uniform(-30, -10, (4, 50))
    own = np.vstack([np.full((1, 50), 0.9), tiny])
    p = Predictions.from_arrays(probabilities=np.stack([own, 1 - own], axis=2), labels=np.zeros(50, dtype=int))
    removals = removals_for(Task(p, Objective.of("nll"), "mean_probability", 0), np.arange(5))
    removals.leave(4)
    removals.leave(3)
    removals.leave(2)
    left = removals.best_of(np.array([0]))[1]
    assert left == pytest.approx(np.log(p.true_class[1].astype(np.float64)).mean(), rel=1e-12)


def test_a_larger_pool_goes_the_same_way():
    p = a_pool(40, 80, 6, seed=5)
    for metric in ("accuracy", "nll"):
        expected = naive_backward(p, metric, "mean_probability", size=20)
        assert select(p, method="backward", metric=metric, size=20).members == tuple(p.ids[j] for j in expected)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"patience": 0}, "patience"),
        ({"patience": 1.5}, "patience"),
        ({"bags": 2, "sample_fraction": 0}, "sample_fraction"),
        ({"bags": 2, "sample_fraction": 1.1}, "sample_fraction"),
        ({"sample_fraction": 0.5}, "bags above 0"),
        ({"bag_fraction": 0.3}, "bags above 0 with bag_fraction=0.3"),
        ({"method": "beam", "width": 0}, "width"),
        ({"method": "beam", "rounds": 0}, "rounds"),
        ({"method": "beam", "init": 9}, "init"),
        ({"method": "beam", "bags": 2}, "no option 'bags'"),
        ({"method": "backward", "init": 0}, "init"),
        ({"method": "backward", "init": 2, "size": 3}, "init"),
        ({"method": "backward", "init": 7}, "≤ 6"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, says):
    with pytest.raises(InputError, match=says) as error:
        select(a_pool(), **arguments)
    assert "\n" not in str(error.value)


# --- rankings -------------------------------------------------------------------------------------------------------


class Stub:
    """A scorer with the scores and ties given."""

    def __init__(self, scores, ties):
        self._scores, self._ties = np.array(scores), np.array(ties)

    def scores(self, candidates):
        return self._scores[candidates]

    def ties(self, candidates):
        return self._ties[candidates]


@pytest.mark.parametrize(
    ("scores", "ties", "expected"),
    [
        ([0.1, 0.3, 0.2], [0.0, 0.0, 0.0], [1, 2, 0]),
        ([0.3, 0.3, 0.3], [-2.0, -1.0, -1.5], [1, 2, 0]),
        ([0.3, 0.3 + 1e-16, 0.3 - 1e-16], [-2.0, -1.0, -1.5], [1, 2, 0]),
        ([0.3, 0.3 + 1e-16, 0.3], [-1.0, -1.0 - 1e-15, -1.0 + 1e-15], [0, 1, 2]),
        ([0.3, 0.3 + 1e-11, 0.3], [0.0, 0.0, 0.0], [1, 0, 2]),
        ([-0.0, 0.0, -1e-300], [0.0, 0.0, 0.0], [0, 1, 2]),
        ([0.5], [0.0], [0]),
    ],
)
def test_rankings_do_not_depend_on_rounding(scores, ties, expected):
    assert ranking(Stub(scores, ties), np.arange(len(scores))).tolist() == expected
