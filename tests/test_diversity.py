"""Diversity: every measure against its formula, team by team, against other libraries, and against its symmetries."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from lrensemble.diversity import (
    DIVERSITY,
    PairTables,
    all_teams,
    focal_diversity,
    probability_disagreement,
    team_diversity,
)
from lrensemble.errors import InputError, UnknownNameError

# --- the slow twins: one team at a time, straight from the formula --------------------------------------------------


def counts(a, b):
    return [int((x & y).sum()) for x in (a, ~a) for y in (b, ~b)]  # N11 N10 N01 N00


def over_pairs(value):
    return lambda p, y: float(np.mean([value(p[[i, j]], y) for i, j in itertools.combinations(range(len(p)), 2)]))


def slow_ck(p, y):
    a, b = p
    observed = np.mean(a == b)
    chance = sum(np.mean(a == c) * np.mean(b == c) for c in np.union1d(a, b))
    return 1.0 if len(np.union1d(a, b)) == 1 else (observed - chance) / (1 - chance)


def slow_qs(p, y):
    n11, n10, n01, n00 = counts(*(p == y))
    below = n11 * n00 + n01 * n10
    return (n11 * n00 - n01 * n10) / below if below else 0.0


def slow_cor(p, y):
    n11, n10, n01, n00 = counts(*(p == y))
    below = math.sqrt((n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00))
    return (n11 * n00 - n01 * n10) / below if below else 0.0


def slow_bd(p, y):
    _, n10, n01, _ = counts(*(p == y))
    return (n10 + n01) / len(y)


def slow_df(p, y):
    return counts(*(p == y))[3] / len(y)


def slow_fk(p, y):
    size = len(p)
    votes = np.array([[(column == c).sum() for c in np.unique(p)] for column in p.T])
    agreement = np.mean([((row**2).sum() - size) / (size * (size - 1)) for row in votes])
    share = votes.sum(axis=0) / votes.sum()
    chance = (share**2).sum()
    return 1.0 if len(share) == 1 else (agreement - chance) / (1 - chance)


def slow_kw(p, y):
    size, right = len(p), (p == y).sum(axis=0)
    return sum(votes * (size - votes) for votes in right) / (len(y) * size**2)


def slow_gd(p, y):
    size, failed = len(p), (p != y).sum(axis=0)
    share = [np.mean(failed == i) for i in range(size + 1)]
    p1 = sum(i / size * share[i] for i in range(size + 1))
    p2 = sum(i * (i - 1) / (size * (size - 1)) * share[i] for i in range(size + 1))
    return 1 - p2 / p1 if p1 else 0.0


def slow_ent(p, y):
    size, right = len(p), (p == y).sum(axis=0)
    return float(np.mean([min(votes, size - votes) / (size - math.ceil(size / 2)) for votes in right]))


SLOW = {
    "CK": over_pairs(slow_ck),
    "QS": over_pairs(slow_qs),
    "BD": over_pairs(slow_bd),
    "FK": slow_fk,
    "KW": slow_kw,
    "GD": slow_gd,
    "COR": over_pairs(slow_cor),
    "DF": over_pairs(slow_df),
    "ENT": slow_ent,
}
RANGES = {"CK": (-1, 1), "QS": (-1, 1), "FK": (-1, 1), "COR": (-1, 1), "KW": (0, 0.5)}
every_metric = pytest.mark.parametrize("metric", DIVERSITY)


def slow_focal(predicted, y, teams, metric):
    """FQ, team by team and focal member by focal member."""
    negatives = predicted != y
    raw = {
        (f, team): SLOW[metric](predicted[list(team)][:, negatives[f]], y[negatives[f]])
        for team in teams
        for f in team
        if negatives[f].any()
    }
    scores = []
    for team in teams:
        accuracy = [(predicted[f] == y).mean() for f in team]
        total = weights = 0.0
        for f, own in zip(team, accuracy, strict=True):
            peers = [value for (g, other), value in raw.items() if g == f and len(other) == len(team)]
            if not peers or max(peers) - min(peers) < 1e-12:
                scaled = 0.5
            else:
                scaled = (raw[f, team] - min(peers)) / (max(peers) - min(peers))
                scaled = scaled if DIVERSITY[metric].higher_is_more_diverse else 1 - scaled
            rank = sum(a < own for a in accuracy) + (sum(a == own for a in accuracy) + 1) / 2
            total, weights = total + rank * scaled, weights + rank
        scores.append(total / weights)
    return scores


def votes(members, samples, classes, seed=0, skill=0.6):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, samples)
    return np.where(rng.random((members, samples)) < skill, y, rng.integers(0, classes, (members, samples))), y


def teams_of(members, sizes=(2, 3, 4, 5)):
    return [team for size in sizes for team in itertools.combinations(range(members), size) if size <= members]


@st.composite
def any_votes(draw):
    m, n, c = draw(st.integers(2, 6)), draw(st.integers(1, 8)), draw(st.integers(1, 4))
    rows = st.lists(st.integers(0, c - 1), min_size=n, max_size=n)
    return np.array(draw(st.lists(rows, min_size=m, max_size=m))), np.array(draw(rows))


# --- against other expressions --------------------------------------------------------------------------------------


def test_every_metric_has_a_slow_twin():
    assert set(SLOW) == set(DIVERSITY)


@every_metric
@given(case=any_votes())
@settings(deadline=None, max_examples=40)
def test_equals_the_formula_on_any_votes(metric, case):
    predicted, y = case
    teams = teams_of(len(predicted))
    expected = [SLOW[metric](predicted[list(team)], y) for team in teams]
    values = team_diversity(predicted, y, teams, metric)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, atol=1e-12)
    low, high = RANGES.get(metric, (0, 1))
    assert values.min() >= low - 1e-12
    assert values.max() <= high + 1e-12


@every_metric
def test_equals_the_formula_on_realistic_votes(metric):
    predicted, y = votes(7, 300, 5)
    teams = teams_of(7, (2, 3, 5, 7))
    expected = [SLOW[metric](predicted[list(team)], y) for team in teams]
    np.testing.assert_allclose(team_diversity(predicted, y, teams, metric), expected, atol=1e-12)


def test_cohen_equals_scikit_learn():
    predicted, y = votes(5, 200, 4)
    expected = [
        np.mean([cohen_kappa_score(predicted[i], predicted[j]) for i, j in itertools.combinations(team, 2)])
        for team in teams_of(5)
    ]
    np.testing.assert_allclose(team_diversity(predicted, y, teams_of(5), "CK"), expected, atol=1e-12)


def test_fleiss_equals_statsmodels():
    predicted, y = votes(6, 200, 4)
    expected = [fleiss_kappa(aggregate_raters(predicted[list(team)].T)[0]) for team in teams_of(6)]
    np.testing.assert_allclose(team_diversity(predicted, y, teams_of(6), "FK"), expected, atol=1e-12)


def test_correlation_equals_numpy():
    predicted, y = votes(4, 300, 3)
    expected = [np.corrcoef(predicted[list(team)] == y)[0, 1] for team in teams_of(4, (2,))]
    np.testing.assert_allclose(team_diversity(predicted, y, teams_of(4, (2,)), "COR"), expected, atol=1e-12)


def test_kohavi_wolpert_is_scaled_disagreement():
    predicted, y = votes(6, 100, 3)
    teams = teams_of(6)
    factor = np.array([(len(team) - 1) / (2 * len(team)) for team in teams])
    np.testing.assert_allclose(
        [SLOW["KW"](predicted[list(team)], y) for team in teams], factor * team_diversity(predicted, y, teams, "BD")
    )


def test_table_of_fleiss_1971_in_the_textbook_example():
    # 14 raters, 10 subjects, 5 categories: kappa 0.210 (the worked example of Fleiss' kappa)
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    ratings = np.array([np.repeat(np.arange(5), row) for row in table]).T
    value = team_diversity(ratings, np.zeros(10, dtype=int), [tuple(range(14))], "FK")
    assert value[0] == pytest.approx(0.210, abs=5e-4)


# --- properties -----------------------------------------------------------------------------------------------------


@every_metric
@given(case=any_votes(), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=25)
def test_order_of_samples_and_members_plays_no_part(metric, case, seed):
    predicted, y = case
    rng = np.random.default_rng(seed)
    members, samples = rng.permutation(len(predicted)), rng.permutation(len(y))
    teams = teams_of(len(predicted))
    renamed = [tuple(rng.permutation([int(np.flatnonzero(members == i)[0]) for i in team])) for team in teams]
    for function in (team_diversity, focal_diversity):
        before = function(predicted, y, teams, metric)
        after = function(predicted[members][:, samples], y[samples], renamed, metric)
        np.testing.assert_allclose(after, before, atol=1e-9)


@every_metric
def test_direction_is_as_the_table_says(metric):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 400)
    wrong = (y + 1) % 4
    together, apart = rng.random(400) < 0.3, rng.permuted(np.tile(rng.random(400) < 0.3, (3, 1)), axis=1)
    alike, unlike = np.tile(np.where(together, wrong, y), (3, 1)), np.where(apart, wrong, y)
    low, high = (team_diversity(p, y, [(0, 1, 2)], metric)[0] for p in (alike, unlike))
    assert (high > low) == DIVERSITY[metric].higher_is_more_diverse


@every_metric
@pytest.mark.parametrize("case", ["all right", "all wrong", "all the same class", "one sample"])
def test_degenerate_votes_have_the_stated_value(metric, case):
    y = np.array([0, 1, 2, 1, 0]) if case != "one sample" else np.array([1])
    guess = {"all right": y, "all wrong": (y + 1) % 3, "all the same class": 0 * y, "one sample": y}[case]
    value = team_diversity(np.tile(guess, (3, 1)), y, [(0, 1, 2)], metric)[0]
    stated = {"CK": 1, "FK": 1, "COR": 0, "BD": 0, "KW": 0, "ENT": 0, "GD": 0}
    stated["DF"] = {"all wrong": 1, "all the same class": 0.6}.get(case, 0)
    stated["QS"] = 1 if case == "all the same class" else 0  # else 0/0
    stated["COR"] = stated["QS"]
    assert value == pytest.approx(stated[metric], abs=1e-12)


def test_descriptions_say_the_direction():
    assert "lower = more diverse" in DIVERSITY["CK"].description
    assert "higher = more diverse" in DIVERSITY["BD"].description


def test_low_is_diverse_convention_turns_three_of_the_six():
    predicted, y = votes(4, 60, 3)
    for metric, entry in DIVERSITY.items():
        raw = team_diversity(predicted, y, [(0, 1), (1, 2, 3)], metric)
        view = team_diversity(predicted, y, [(0, 1), (1, 2, 3)], metric, convention="low-is-diverse")
        np.testing.assert_array_equal(view, 1 - raw if entry.higher_is_more_diverse else raw)


def test_teams_may_come_as_an_array_and_in_any_mixture_of_sizes():
    predicted, y = votes(5, 80, 3)
    array = all_teams(5, 3)
    assert array.tolist() == [list(team) for team in itertools.combinations(range(5), 3)]
    from_array = team_diversity(predicted, y, array, "BD")
    mixed = [(0, 1), (4, 2, 0), (3, 1), (0, 1, 2, 3, 4)]
    np.testing.assert_allclose(team_diversity(predicted, y, [tuple(t) for t in array], "BD"), from_array)
    expected = [team_diversity(predicted, y, [team], "BD")[0] for team in mixed]
    np.testing.assert_allclose(team_diversity(predicted, y, mixed, "BD"), expected)
    assert team_diversity(predicted, y, [], "BD").shape == (0,)


def test_inputs_are_not_altered_and_large_codes_are_fine():
    predicted, y = votes(4, 50, 3)
    kept = predicted.copy()
    plain = team_diversity(predicted, y, teams_of(4), "FK")
    np.testing.assert_array_equal(predicted, kept)
    np.testing.assert_allclose(team_diversity(predicted + 10**12, y + 10**12, teams_of(4), "FK"), plain)


def test_pair_tables_count_all_samples():
    predicted, y = votes(4, 90, 3)
    tables = PairTables(predicted, y)
    np.testing.assert_array_equal(tables.both_right + tables.both_wrong + tables.differ, np.full((4, 4), 90))
    np.testing.assert_array_equal(tables.n_right, (predicted == y).sum(axis=1))
    assert tables.agree[1, 2] == (predicted[1] == predicted[2]).sum()


# --- focal ----------------------------------------------------------------------------------------------------------


@every_metric
def test_focal_measures_on_negative_samples_only(metric):
    predicted, y = votes(5, 120, 4)
    wrong = predicted[2] != y
    teams = [team for team in teams_of(5) if 2 in team]
    expected = [SLOW[metric](predicted[list(team)][:, wrong], y[wrong]) for team in teams]
    np.testing.assert_allclose(team_diversity(predicted, y, teams, metric, focal=2), expected, atol=1e-12)


@every_metric
def test_focal_score_equals_its_slow_twin(metric):
    predicted, y = votes(6, 60, 4, seed=2)
    predicted[3] = y  # never wrong
    predicted[4] = predicted[5]  # equal accuracy
    scores = focal_diversity(predicted, y, teams_of(6), metric)
    np.testing.assert_allclose(scores, slow_focal(predicted, y, teams_of(6), metric), atol=1e-9)
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_focal_scores_without_evidence_are_neutral():
    y = np.array([0, 1, 2])
    np.testing.assert_array_equal(focal_diversity(np.tile(y, (3, 1)), y, [(0, 1), (1, 2)]), [0.5, 0.5])


# --- probabilities --------------------------------------------------------------------------------------------------


def test_probability_disagreement_equals_scipy():
    from scipy.special import rel_entr

    p = np.random.default_rng(0).dirichlet(np.ones(4), (5, 30))
    for team in teams_of(5):
        mean = p[list(team)].mean(axis=0)
        expected = np.mean([rel_entr(p[i], mean).sum(axis=1).mean() for i in team])
        assert probability_disagreement(p, [team])[0] == pytest.approx(expected, abs=1e-12)


def test_probability_disagreement_at_its_ends():
    one_hot = np.eye(3)[:, None, :]
    assert probability_disagreement(one_hot, [(0, 1, 2)])[0] == pytest.approx(math.log(3))
    assert probability_disagreement(np.tile(one_hot[:1], (2, 1, 1)), [(0, 1)])[0] == 0


# --- refusals -------------------------------------------------------------------------------------------------------

GOOD, TRUE = [[0, 1], [1, 1], [0, 0]], [0, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([0, 1], TRUE, [(0, 1)]), "shape"),
        (([[]], [], [(0, 1)]), "shape"),
        ((GOOD, [0, 1, 2], [(0, 1)]), "one for each sample"),
        (([[0.5, 1.0], [0.0, 1.0]], TRUE, [(0, 1)]), "integers"),
        ((GOOD, [0.0, 1.0], [(0, 1)]), "integers"),
        (([[0, -1], [0, 1]], TRUE, [(0, 1)]), "≥ 0"),
        ((GOOD, [0, -1], [(0, 1)]), "≥ 0"),
        ((GOOD, TRUE, [(0, 3)]), "0…2"),
        ((GOOD, TRUE, [(-1, 0)]), "0…2"),
        ((GOOD, TRUE, [(1, 1)]), "distinct"),
        ((GOOD, TRUE, [(0, 1), (2,)]), "two or more"),
        ((GOOD, TRUE, [()]), "two or more"),
        ((GOOD, TRUE, np.array([[0], [1]])), "two or more"),
        ((GOOD, TRUE, [(0.0, 1.0)]), "indices"),
    ],
)
@pytest.mark.parametrize("function", [team_diversity, focal_diversity])
def test_wrong_input_is_refused_in_one_line(function, arguments, says):
    with pytest.raises(InputError, match=says) as error:
        function(*arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"focal": 3}, "0…2"),
        ({"focal": "a"}, "index"),
        ({"focal": 0}, "always right"),
        ({"convention": "other"}, "convention"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, says):
    with pytest.raises(InputError, match=says):
        team_diversity(GOOD, TRUE, [(0, 1)], **options)


def test_unknown_metric_names_the_choices():
    with pytest.raises(UnknownNameError, match=r"unknown diversity metric 'xx': .*CK, QS, BD, FK, KW, GD"):
        team_diversity(GOOD, TRUE, [(0, 1)], "xx")
    np.testing.assert_array_equal(
        team_diversity(GOOD, TRUE, [(0, 1)], "bd"), team_diversity(GOOD, TRUE, [(0, 1)], "BD")
    )


@pytest.mark.parametrize(
    "p", [np.zeros((2, 3)), -np.ones((2, 3, 2)), np.full((2, 3, 2), np.nan), np.ones((2, 3, 2), int)]
)
def test_probability_disagreement_refuses_what_is_no_probability(p):
    with pytest.raises(InputError):
        probability_disagreement(p, [(0, 1)])
