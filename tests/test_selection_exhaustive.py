"""Exhaustive search: its bounds, its batches of teams and its choice against brute force in float64."""

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrensemble.errors import InputError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection import bounds as bounds_module
from lrensemble.selection import halves as halves_module
from lrensemble.selection import select
from lrensemble.selection import threads as threads_module
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.bounds import bounds_for, contenders
from lrensemble.selection.halves import NONE, Halves, _by_member, _by_place
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.teams import all_scores, best_team, team_scores
from lrensemble.selection.threads import in_threads

BOUNDED = ("accuracy", "nll", "brier")


@pytest.fixture
def kernels(monkeypatch):
    """Take compiled kernels from the first team on, and say how to do without."""
    monkeypatch.setenv("LRENSEMBLE_KERNELS", "on")
    return lambda mode: monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)


def a_task(predictions, metric, rule="mean_probability"):
    return Task(predictions, Objective.of(metric), rule, 0)


def a_pool(members=8, samples=90, classes=4, seed=0, sharpness=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    logits = (
        np.eye(classes)[labels] + rng.normal(size=(samples, classes)) + rng.normal(size=(members, samples, classes))
    )
    return Predictions.from_arrays(sharpness * logits, labels)


def steps_of(tenths, n_members, rng):
    """Probabilities like those of nearest neighbours: whole tenths, which are equal in sums though not in float32."""
    return rng.multinomial(10, np.ones(3) / 3, size=(n_members, tenths)) / 10


POOLS = {
    "smooth": a_pool(),
    "sharp": a_pool(sharpness=60),  # true classes of probability 0 in float32
    "two classes": a_pool(classes=2),
    "many classes": a_pool(6, 50, 30),
    "tenths": Predictions.from_arrays(
        probabilities=steps_of(70, 7, np.random.default_rng(1)), labels=np.random.default_rng(2).integers(0, 3, 70)
    ),
    "votes": Predictions.from_arrays(
        1e4 * np.eye(3)[np.random.default_rng(3).integers(0, 3, (7, 60))], np.random.default_rng(4).integers(0, 3, 60)
    ),
    "twins": Predictions.from_arrays(np.tile(a_pool(3).logits, (3, 1, 1)), a_pool(3).labels),
    "all right": Predictions.from_arrays(np.tile(np.eye(3)[None] * 9, (5, 2, 1)), [0, 1, 2, 0, 1, 2]),
    "all wrong": Predictions.from_arrays(np.tile(np.eye(3)[None] * 1e4, (5, 1, 1)), [1, 2, 0]),
    "no opinion": Predictions.from_arrays(np.zeros((5, 6, 3)), [0, 1, 2, 0, 1, 2]),
    "one member": a_pool(1),
    "one sample": a_pool(5, 1),
}


def naive_key(p, team, metric):
    """(score, tie): straight from the definitions, sums in the order of members."""
    combined = p.probabilities[list(team)].astype(np.float64).sum(axis=0) / len(team)
    objective = Objective.of(metric)
    return objective.score(combined, p.labels), objective.tie(combined, p.labels)


def naive_best(p, metric, sizes):
    """The first team that no other one beats by more than rounding."""
    teams = [team for k in sizes for team in itertools.combinations(range(p.n_members), k)]
    best, best_key = None, None
    for team in teams:
        key = naive_key(p, team, metric)
        for new, old in zip(key, best_key or (-np.inf, -np.inf), strict=True):
            if old == -np.inf or abs(new - old) > 1e-12 * max(abs(new), abs(old)):
                if new > old:
                    best, best_key = team, key
                break
    return tuple(p.ids[j] for j in best)


# --- heads and tails ------------------------------------------------------------------------------------------------


def every_split(n_members, sizes):
    yield Halves.of(n_members, sizes)
    for split, lengths in ((_by_member, range(n_members + 1)), (_by_place, range(1, sizes[-1] + 1))):
        for n in lengths:
            yield split(n_members, sizes, n)


@pytest.mark.parametrize("n_members", range(1, 7))
def test_every_split_has_each_team_once(n_members):
    for low, high in itertools.combinations_with_replacement(range(1, n_members + 1), 2):
        expected = {k: list(itertools.combinations(range(n_members), k)) for k in range(low, high + 1)}
        for halves in every_split(n_members, range(low, high + 1)):
            positions = np.arange(halves.offset[-1])
            found = halves.teams(positions)
            assert {k: list(map(tuple, teams.tolist())) for k, (teams, _) in found.items()} == expected
            np.testing.assert_array_equal(np.sort(np.concatenate([which for _, which in found.values()])), positions)
            sizes = halves.sizes_of(slice(0, len(halves.heads)))
            assert all((sizes[which] == k).all() for k, (_, which) in found.items())


@pytest.mark.parametrize(("n_members", "low", "high"), [(9, 1, 9), (12, 1, 3), (7, 4, 5)])
def test_a_tail_is_its_parent_and_its_last_member(n_members, low, high):
    for halves in every_split(n_members, range(low, high + 1)):
        tails = [[int(j) for j in row if j != NONE] for row in halves.tails]
        built = [[]]
        for (begin, end), parent, last in zip(itertools.pairwise(halves.run), halves.parent, halves.last, strict=True):
            built += [[*built[parent], last + i] for i in range(end - begin)]
        assert built == tails


@pytest.mark.parametrize(
    ("n_members", "low", "high", "most"),
    [
        (20, 1, 20, 2048),
        (24, 1, 24, 10_240),
        (24, 12, 12, 11_000),
        (40, 2, 5, 12_000),
        (100, 1, 4, 10_000),
        (900, 1, 2, 1801),
    ],
)
def test_few_heads_and_tails_make_many_teams(n_members, low, high, most):
    halves = Halves.of(n_members, range(low, high + 1))
    assert halves.offset[-1] == sum(comb(n_members, k) for k in range(low, high + 1))
    assert len(halves.heads) + len(halves.tails) <= most


def test_blocks_are_runs_of_all_heads(monkeypatch):
    halves = Halves.of(10, range(1, 11))
    for few, most, n_blocks in ((10_000, 10_000, 1), (1, 10_000, 4), (1, 1, len(halves.heads))):
        monkeypatch.setattr(halves_module, "FEW", few)
        monkeypatch.setattr(halves_module, "BLOCK", most)
        blocks = list(halves.blocks())
        assert len(blocks) == n_blocks
        assert [k for block in blocks for k in range(block.start, block.stop)] == list(range(len(halves.heads)))


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("metric", BOUNDED)
def test_no_score_is_above_its_bound(metric, pool, kernels):
    p = POOLS[pool]
    sizes = range(1, p.n_members + 1)
    halves, bounds = Halves.of(p.n_members, sizes), bounds_for(a_task(p, metric), 1.0)
    while bounds is not None:
        upper = np.concatenate([bounds.of(halves, block) for block in halves.blocks()])
        for teams, which in halves.teams(np.arange(len(upper))).values():
            exact = [naive_key(p, team, metric)[0] for team in teams]
            assert (upper[which] >= np.array(exact) - 1e-14).all()
        bounds = bounds.finer()


@pytest.mark.parametrize(("metric", "slack"), [("accuracy", 0.01), ("nll", 1e-6), ("brier", 1e-11)])
def test_bounds_are_close(metric, slack, kernels):
    p = a_pool(9, 300)
    halves, bounds = Halves.of(9, range(1, 10)), bounds_for(a_task(p, metric), 1.0)
    upper = bounds.of(halves, slice(0, len(halves.heads)))
    exact = np.empty_like(upper)
    for teams, which in halves.teams(np.arange(len(upper))).values():
        exact[which] = [naive_key(p, team, metric)[0] for team in teams]
    assert (upper - exact).max() < slack
    if metric == "accuracy":
        assert np.mean(upper == exact) > 0.8  # 16 bits leave few duels open


@pytest.mark.parametrize("pool", ["smooth", "votes", "tenths"])
def test_the_finer_bounds_of_accuracy_are_exact_where_sums_are(pool, kernels):
    p = POOLS[pool]
    halves, bounds = Halves.of(p.n_members, range(1, p.n_members + 1)), bounds_for(a_task(p, "accuracy"), 1.0).finer()
    upper = bounds.of(halves, slice(0, len(halves.heads)))
    for teams, which in halves.teams(np.arange(len(upper))).values():
        np.testing.assert_array_equal(upper[which], [naive_key(p, team, "accuracy")[0] for team in teams])
    assert bounds.finer() is None


def test_other_objectives_have_no_bounds(kernels):
    for metric, rule in (("macro_f1", "mean_probability"), ("accuracy", "majority"), ("nll", "mean_logit")):
        assert bounds_for(a_task(a_pool(), metric, rule), 1.0) is None
    kernels("off")
    assert bounds_for(a_task(a_pool(), "nll"), 1e9) is None
    assert bounds_for(a_task(a_pool(), "brier"), 1e9) is not None


@pytest.mark.parametrize("metric", BOUNDED)
@pytest.mark.parametrize("pool", ["smooth", "tenths", "twins"])
def test_many_blocks_and_finer_bounds_find_the_same(pool, metric, kernels, monkeypatch):
    p = POOLS[pool]
    scorer, sizes = scorer_for(a_task(p, metric)), range(1, p.n_members + 1)

    def found():
        groups = contenders(Halves.of(p.n_members, sizes), bounds_for(a_task(p, metric), 1.0), scored)
        return best_team(scorer, groups.values()).tolist()

    def scored(teams):
        return team_scores(scorer, teams)

    whole = found()
    monkeypatch.setattr(halves_module, "BLOCK", 10)
    assert found() == whole
    monkeypatch.setattr(bounds_module, "MANY", 0)
    assert found() == whole


# --- batches of teams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("metric", BOUNDED)
def test_teams_at_one_go_score_as_one_by_one(metric, pool, kernels):
    p = POOLS[pool]
    for k in range(1, min(p.n_members, 4) + 1):
        teams = np.array(list(itertools.combinations(range(p.n_members), k)))
        at_one_go = team_scores(scorer_for(a_task(p, metric)), teams)
        np.testing.assert_allclose(
            at_one_go,
            [naive_key(p, team, metric)[0] for team in teams],
            rtol=1e-13,
            atol=1e-15 if metric != "brier" else 1e-14,
        )
        ties = scorer_for(a_task(p, metric)).team_ties(teams)
        if metric == "accuracy":
            np.testing.assert_allclose(ties, [naive_key(p, team, metric)[1] for team in teams], 1e-13, 1e-15)


@pytest.mark.parametrize("metric", BOUNDED)
def test_teams_may_be_added_to_a_team(metric, kernels):
    p = a_pool(7, 200)
    teams = np.array([(0, 3), (1, 1), (5, 2), (5, 6), (6, 5)])  # in no order, with repetition
    scorer = scorer_for(a_task(p, metric)).plus(4).plus(0)
    expected = [naive_key(p, (4, 0, *team), metric)[0] for team in teams]
    np.testing.assert_allclose(team_scores(scorer, teams), expected, rtol=1e-13)
    kernels("off")
    np.testing.assert_allclose(team_scores(scorer, teams), expected, rtol=1e-13)


def test_more_teams_than_a_thread_takes_at_a_time(kernels):
    p = a_pool(13, 70)
    teams = np.array(list(itertools.combinations(range(13), 5)))
    assert len(teams) == 1287
    for metric in BOUNDED:
        expected = all_scores(scorer_for(a_task(p, metric)), 13, range(5, 6))[5]
        np.testing.assert_allclose(team_scores(scorer_for(a_task(p, metric)), teams), expected, rtol=1e-12)


# --- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("metric", BOUNDED)
def test_exhaustive_equals_brute_force(metric, pool, mode, kernels):
    p = POOLS[pool].take(POOLS[pool].ids[:7])
    kernels(mode)
    m = p.n_members
    for options, sizes in (
        ({}, range(1, m + 1)),
        ({"size": (m + 1) // 2}, [(m + 1) // 2]),
        ({"max_size": 2}, range(1, min(2, m) + 1)),
    ):
        assert select(p, method="exhaustive", metric=metric, **options).members == naive_best(p, metric, sizes)


@st.composite
def coarse_pools(draw):
    """Few values, so that many sums, scores and teams are equal."""
    m, n, c = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(2, 4))
    levels = draw(st.sampled_from([(0, 1), (0, 1, 2), (0.0, 0.1, 0.5), (-40, 0, 40), (0, 200)]))
    logits = draw(st.lists(st.sampled_from(levels), min_size=m * n * c, max_size=m * n * c))
    labels = draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    return Predictions.from_arrays(np.reshape(logits, (m, n, c)), labels)


@pytest.mark.parametrize("metric", BOUNDED)
@given(p=coarse_pools())
@example(p=POOLS["no opinion"])
@settings(deadline=None, max_examples=40)
def test_exhaustive_follows_the_order_of_ties(metric, p):
    expected = naive_best(p, metric, range(1, p.n_members + 1))
    for mode in ("on", "off"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LRENSEMBLE_KERNELS", mode)
            assert select(p, method="exhaustive", metric=metric).members == expected


@pytest.mark.parametrize(("members", "options"), [(13, {}), (16, {"size": 8}), (45, {"max_size": 3})])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_exhaustive_finds_the_same_in_a_larger_pool(metric, members, options, kernels):
    p = a_pool(members, 400, 3, seed=7)
    sizes = [options["size"]] if "size" in options else range(1, options.get("max_size", members) + 1)
    teams = [team for k in sizes for team in itertools.combinations(range(members), k)]
    inside = np.zeros((len(teams), members))
    for row, team in zip(inside, teams, strict=True):
        row[list(team)] = 1 / len(team)
    combined = (inside @ p.probabilities.reshape(members, -1).astype(np.float64)).reshape(
        len(teams), *p.logits.shape[1:]
    )
    logs = np.log(combined[:, np.arange(400), p.labels]).mean(axis=1)
    right = (combined.argmax(axis=2) == p.labels).mean(axis=1) if metric == "accuracy" else np.zeros(len(teams))
    best = teams[np.lexsort((-logs, -right))[0]]
    assert select(p, method="exhaustive", metric=metric, **options).members == tuple(p.ids[j] for j in best)


def test_brier_is_searched_without_kernels(kernels):
    kernels("off")
    p = a_pool(12, 100)
    ensemble = select(p, method="exhaustive", metric="brier")
    scores = all_scores(scorer_for(a_task(p, "brier")), 12, range(1, 13))
    assert ensemble.score == pytest.approx(-max(values.max() for values in scores.values()), rel=1e-8)


def test_a_million_teams(kernels):
    p = a_pool(20, 60, 3, seed=1)
    for metric in BOUNDED:
        ensemble = select(p, method="exhaustive", metric=metric)
        assert ensemble.reason == "best of all 1,048,575 teams of 1–20 members"
        sign = 1 if METRICS[metric].higher_is_better else -1
        for other in ("greedy", "backward", "top-k", "whole", "best"):
            assert (
                sign * ensemble.score
                >= sign
                * select(p, method=other, metric=metric, **({"replacement": False} if other == "greedy" else {})).score
                - 1e-12
            )


# --- what is refused, and what is said ------------------------------------------------------------------------------


def test_reason_names_the_teams(kernels):
    p = a_pool(6)
    assert select(p, method="exhaustive", size=3).reason == "best of all 20 teams of 3 members"
    assert select(p, method="exhaustive", max_size=2).reason == "best of all 21 teams of 1–2 members"
    assert select(p.take(["m0"]), method="exhaustive").reason == "the only team there is"


def test_default_limits_follow_what_a_team_costs(kernels):
    with pytest.raises(InputError, match=r"at most 16,777,216 teams .* got 33,554,431 \(25 members\)"):
        select(a_pool(25, 3), method="exhaustive", metric="nll")
    with pytest.raises(InputError, match=r"at most 1,048,576 teams .* got 2,097,151 \(21 members\)"):
        select(a_pool(21, 3), method="exhaustive", metric="macro_f1")
    kernels("off")
    with pytest.raises(InputError, match="at most 1,048,576 teams"):
        select(a_pool(21, 3), method="exhaustive", metric="accuracy")
    with pytest.raises(InputError, match="at most 9 teams"):
        select(a_pool(4, 3), method="exhaustive", max_teams=9)


# --- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_threads_keep_the_order_of_parts(cores, monkeypatch):
    monkeypatch.setattr(threads_module.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert list(in_threads(lambda x: x * x, range(9))) == [x * x for x in range(9)]
    assert list(in_threads(str, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda x: 1 / x, [1, 0, 2]))
