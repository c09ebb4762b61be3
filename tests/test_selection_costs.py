"""Costs: the Pareto front and cost-aware selection against brute force over all teams."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_helpers import new_member, new_pool
from selection_helpers import a_pool, naive_best, naive_key

import lrensemble as lre
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection import Objective, Task, pareto_front, select
from lrensemble.selection.cost_aware import jackknife_error, paired_error
from lrensemble.selection.front import undominated
from lrensemble.selection.pareto import front_of

MEAN = "mean_probability"


@st.composite
def coarse_pools(draw):
    """Probabilities on a coarse grid: many exact ties of classes and of teams."""
    m, n, c = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(2, 4))
    parts = draw(st.lists(st.integers(0, 3), min_size=m * n * c, max_size=m * n * c))
    weights = np.array(parts, dtype=float).reshape(m, n, c) + 0.25
    labels = draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    return Predictions.from_arrays(probabilities=weights / weights.sum(axis=2, keepdims=True), labels=labels)


def costs_for(p, seed=0, low=1, high=6):
    """Whole numbers, with many equal sums."""
    return dict(zip(p.ids, np.random.default_rng(seed).integers(low, high, p.n_members).tolist(), strict=True))


def every_team(p, sizes=None):
    return [t for k in sizes or range(1, p.n_members + 1) for t in itertools.combinations(range(p.n_members), k)]


def naive_front(p, metric, rule, cost, teams):
    """Teams by brute force: for each cost in rising order the best team, if it is better than all cheaper ones."""
    keys = {team: naive_key(p, team, metric, rule) for team in teams}
    total = {team: sum(cost[p.ids[i]] for i in team) for team in teams}
    front = []
    for level in sorted(set(total.values())):
        equal = [team for team in teams if total[team] == level]
        best = equal[naive_best([keys[team] for team in equal])]
        if not front or keys[best][0] > keys[front[-1]][0] + 1e-12 * abs(keys[front[-1]][0]):
            front.append(best)
    return front


def named(p, teams):
    return [tuple(p.ids[i] for i in team) for team in teams]


# --- the front ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [MEAN, "majority"])
@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
def test_the_front_equals_brute_force(metric, rule):
    for seed in (0, 1, 2):
        p = a_pool(6, 60, 3, seed=seed)
        for cost in (costs_for(p, seed), dict.fromkeys(p.ids, 1)):
            expected = naive_front(p, metric, rule, cost, every_team(p))
            front = pareto_front(p, cost=cost, metric=metric, rule=rule)
            assert [point.members for point in front] == named(p, expected)
            assert all(point.exact for point in front)
            for point, team in zip(front, expected, strict=True):
                assert point.cost == sum(cost[name] for name in point.members)
                sign = 1 if METRICS[metric].higher_is_better else -1
                assert point.score == pytest.approx(sign * naive_key(p, team, metric, rule)[0], abs=1e-7)


@given(seed=st.integers(0, 10_000), cost=st.lists(st.sampled_from([0, 0.1, 0.2, 0.3, 7]), min_size=5, max_size=5))
@settings(deadline=None, max_examples=25)
def test_no_team_is_as_cheap_and_better(seed, cost):
    p = a_pool(5, 12, 3, seed=seed)
    front = pareto_front(p, cost=dict(zip(p.ids, cost, strict=True)), metric="accuracy")
    spent, scores = [point.cost for point in front], [point.score for point in front]
    assert (np.diff(spent) > 1e-13).all()
    assert (np.diff(scores) > 0).all()
    for team in every_team(p):
        as_cheap = np.array(spent) <= sum(cost[i] for i in team) + 1e-9
        reached = max(np.array(scores)[as_cheap], default=0)
        assert naive_key(p, team, "accuracy", MEAN)[0] <= reached + 1e-12


@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@given(p=coarse_pools(), seed=st.integers(0, 100), budget=st.sampled_from([None, 8]))
@settings(deadline=None, max_examples=25)
def test_the_front_keeps_to_the_order_of_ties(metric, kernels, p, seed, budget):
    cost = costs_for(p, seed, 1, 4)
    teams = [t for t in every_team(p) if budget is None or sum(cost[p.ids[i]] for i in t) <= budget]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRENSEMBLE_KERNELS", kernels)
        front = pareto_front(p, cost=cost, metric=metric, budget=budget)
    assert [point.members for point in front] == named(p, naive_front(p, metric, MEAN, cost, teams))


def test_members_are_the_plain_cost():
    p = a_pool(6, 80)
    front = pareto_front(p, metric="nll")
    assert front == pareto_front(p, cost=dict.fromkeys(p.ids, 1.0))
    for point in front:
        best = select(p, method="exhaustive", size=len(point.members))
        assert (point.cost, point.members) == (len(point.members), best.members)
    assert lre.pareto_front is pareto_front


def test_budget_and_max_size_narrow_the_front():
    p = a_pool(6, 80, seed=1)
    cost = costs_for(p, 3)
    whole = pareto_front(p, cost=cost)
    budget = whole[len(whole) // 2].cost
    assert pareto_front(p, cost=cost, budget=budget) == whole[: len(whole) // 2 + 1]
    small = naive_front(p, "nll", MEAN, cost, every_team(p, (1, 2)))
    assert [point.members for point in pareto_front(p, cost=cost, max_size=2)] == named(p, small)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=0, max_size=12).map(np.array),
)
@settings(deadline=None, max_examples=80)
def test_undominated_equals_the_definition(points):
    costs, scores = points.reshape(-1, 2).T.astype(float)
    pairs = list(zip(costs, scores, strict=True))
    expected = [not any((d < c and t >= s) or (d == c and t > s) for d, t in pairs) for c, s in pairs]
    assert undominated(costs, scores).tolist() == expected


# --- the beam -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_the_beam_gives_a_front_of_real_teams(metric):
    p = a_pool(12, 120, 4, seed=2)
    cost = costs_for(p, 5)
    exact = pareto_front(p, cost=cost, metric=metric)
    found = pareto_front(p, cost=cost, metric=metric, max_teams=100)
    assert not any(point.exact for point in found)
    sign = 1 if METRICS[metric].higher_is_better else -1
    assert (np.diff([point.cost for point in found]) > 0).all()
    assert (np.diff([sign * point.score for point in found]) > 0).all()
    for point in found:
        key = naive_key(p, p.indices(point.members), metric, MEAN)
        assert sign * point.score == pytest.approx(key[0], abs=1e-7)
        assert point.cost == sum(cost[name] for name in point.members)
        best = max(sign * other.score for other in exact if other.cost <= point.cost)
        assert best - 0.02 <= sign * point.score <= best + 1e-12  # never better than exact, and never far behind


def test_the_beam_keeps_to_size_and_budget():
    p = a_pool(14, 60, seed=4)
    cost = costs_for(p, 1, 1, 30)
    least = sum(sorted(cost.values())[:5])
    for budget in (least, least + 1, least + 40):
        team = select(p, method="cost-aware", cost=cost, size=5, budget=budget, max_teams=50)
        assert len(team) == 5
        assert sum(cost[name] for name in team.members) <= budget
        assert "of a beam search" in team.reason
    assert len(select(p, method="cost-aware", size=14, max_teams=1)) == 14  # one team: no search
    assert len(select(p, method="cost-aware", size=13, max_teams=1)) == 13


def test_a_budget_is_a_number_that_json_has_a_form_for():
    for budget in (np.inf, np.nan, float("inf")):
        with pytest.raises(InputError, match="budget as a finite number"):
            select(a_pool(3, 20), method="cost-aware", budget=budget)


# --- cost-aware selection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("metric", ["accuracy", "nll", "macro_f1"])
def test_a_budget_gets_the_best_team_that_it_allows(metric, size):
    p = a_pool(6, 90, seed=3)
    cost = costs_for(p, 2)
    for budget in (7, 9.5, 100):
        teams = [t for t in every_team(p, [size] if size else None) if sum(cost[p.ids[i]] for i in t) <= budget]
        expected = naive_front(p, metric, MEAN, cost, teams)[-1]
        team = select(p, method="cost-aware", metric=metric, cost=cost, budget=budget, size=size)
        assert team.members == named(p, [expected])[0]
        assert f"within a budget of {budget:g}" in team.reason


@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
def test_without_a_budget_the_cheapest_within_one_standard_error(metric):
    per_sample, sign = METRICS[metric].per_sample, 1 if METRICS[metric].higher_is_better else -1
    spared = 0
    for seed in range(4):
        p = a_pool(6, 90, seed=seed)
        cost = costs_for(p, seed)
        front = naive_front(p, metric, MEAN, cost, every_team(p))
        terms = [sign * per_sample(p.probabilities[list(t)].astype(float).mean(axis=0), p.labels) for t in front]
        within = []
        for own in terms:
            gap = terms[-1] - own
            within.append(gap.mean() <= gap.std(ddof=1) / np.sqrt(90) + 1e-12)
        expected = front[within.index(True)]
        team = select(p, method="cost-aware", metric=metric, cost=cost)
        assert team.members == named(p, [expected])[0]
        spared += len(front) - 1 - within.index(True)
    assert spared > 0


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_the_jackknife_estimates_the_same_error(metric):
    ratios = []
    for seed in range(20):
        task = Task(a_pool(4, 300, seed=seed), Objective.of(metric), MEAN, seed)
        team, best = np.array([0]), np.array([1, 2, 3])
        paired = paired_error(task, METRICS[metric].per_sample, team, best)
        ratios.append(jackknife_error(task, team, best) / paired)
    assert 0.85 < np.mean(ratios) < 1.1  # each has a spread of about a quarter
    assert 0.1 < np.std(ratios) < 0.5


def test_metrics_that_are_no_means_spare_members_too():
    teams = [select(a_pool(6, 400, seed=s), method="cost-aware", metric="macro_f1") for s in (2, 3, 4)]
    assert [len(team) for team in teams] == [2, 2, 3]  # the best have 5, 3 and 5


def test_costs_play_no_part_in_the_score():
    p = a_pool(5, 60)
    cost = dict.fromkeys(p.ids, 1000.0)
    assert select(p, method="cost-aware", cost=cost).members == select(p, method="cost-aware").members


# --- what members cost ----------------------------------------------------------------------------------------------


@pytest.fixture
def pool(tmp_path):
    pool = new_pool(tmp_path / "pool")
    for i, (parameters, flops, seconds) in enumerate([(10, 100, 1e-3), (20, 0, 2e-3), (5, 30, 5e-4)]):
        extra = {"seconds_per_sample": seconds}
        pool.add(new_member(i, name=f"n{i}", parameters=parameters, flops=flops, extra=extra))
    return pool


def test_a_pool_knows_what_its_members_cost(pool):
    known = {"parameters": [10, 20, 5], "seconds": [1e-3, 2e-3, 5e-4]}
    for kind, values in known.items():
        cost = dict(zip(("n0", "n1", "n2"), values, strict=True))
        assert pareto_front(pool, cost=kind) == pareto_front(pool, cost=cost)
        assert (
            select(pool, method="cost-aware", cost=kind).members == select(pool, method="cost-aware", cost=cost).members
        )
    with pytest.raises(InputError, match=r"expected to know the flops of every member.*cost=\{name: number\}"):
        select(pool, method="cost-aware", cost="flops")


def test_training_measures_what_members_cost(tmp_path):
    options = {"policies": ["FIX(0.1)", "FIX(0.01)"], "epochs": 1, "jobs": 1, "progress": False}
    pool = lre.train_pool("digits", model="mlp(hidden=4)", path=tmp_path / "pool", **options)
    for kind in ("parameters", "flops", "seconds"):
        front = pareto_front(pool, cost=kind)
        assert 0 < front[0].cost < np.inf
        assert front[-1].score == select(pool, method="exhaustive").score
    assert all(0 < summary.extra["seconds_per_sample"] < 1 for summary in pool.summaries())


def test_bare_predictions_know_only_their_number():
    for kind in ("parameters", "flops", "seconds"):
        with pytest.raises(InputError, match=f"expected to know the {kind} of every member"):
            pareto_front(a_pool(), cost=kind)
    with pytest.raises(UnknownNameError, match="parameters"):
        pareto_front(a_pool(), cost="parameter")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"cost": {"m0": 1}}, "none for 'm1'"),
        ({"cost": dict.fromkeys((f"m{i}" for i in range(6)), -1)}, "≥ 0"),
        ({"cost": dict.fromkeys((f"m{i}" for i in range(6)), float("nan"))}, "finite"),
        ({"cost": dict.fromkeys((f"m{i}" for i in range(6)), "dear")}, "numbers"),
        ({"cost": dict.fromkeys((f"m{i}" for i in range(6)), (1, 2))}, "one number a member|numbers"),
        ({"budget": 0.5}, "a budget of at least 1, which the cheapest member cost"),
        ({"budget": float("nan")}, "budget"),
        ({"max_size": 0}, "max_size"),
        ({"max_teams": 0}, "max_teams"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, says):
    for call in (pareto_front, lambda p, **given: select(p, method="cost-aware", **given)):
        with pytest.raises(InputError, match=says) as error:
            call(a_pool(), **arguments)
        assert "\n" not in str(error.value)


def test_the_front_must_not_see_test_data():
    with pytest.raises(InputError, match="must not see test data"):
        pareto_front(a_pool(split="test"))


def test_costs_are_written_down_with_the_ensemble():
    p = a_pool()
    team = select(p, method="cost-aware", cost={name: np.float64(2) for name in p.ids}, budget=np.int64(4))
    assert team.options["cost"] == dict.fromkeys(p.ids, 2.0)
    assert json.loads(json.dumps(team.to_dict()))["options"]["budget"] == 4


def test_free_members_are_allowed():
    p = a_pool(4, 40)
    (point,) = pareto_front(p, cost=dict.fromkeys(p.ids, 0))
    assert point.members == select(p, method="exhaustive").members
    task = Task(p, Objective.of("nll"), MEAN, 0)
    assert len(front_of(task, np.zeros(4), budget=0).teams) == 1


def test_one_member_is_a_front():
    p = Predictions.from_arrays([[[1.0, 0.0]]], [0])
    assert [point.members for point in pareto_front(p)] == [("m0",)]
