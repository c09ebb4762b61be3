"""The diversity family: every method against a naive twin, and its thresholds against scikit-learn."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from selection_helpers import a_pool, naive_best, naive_key
from sklearn.cluster import AgglomerativeClustering, KMeans

from lrensemble.diversity import DIVERSITY, focal_diversity, team_diversity
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.predictions import Predictions
from lrensemble.selection import SELECTORS, select
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.candidates import candidate_teams, two_means
from lrensemble.selection.fusion import most_telling
from lrensemble.selection.pruning import survivors
from lrensemble.selection.representatives import distances

MEAN = "mean_probability"
FAMILY = ("diversity", "diversity-gd", "focal-bd", "eq", "hq", "tradeoff", "clusters", "farthest-first")


def members_of(p, team):
    return tuple(p.ids[i] for i in sorted(team))


def values_of(p, teams, name, focal):
    """Diversity of each team, higher = more diverse."""
    values = (focal_diversity if focal else team_diversity)(p.predicted, p.labels, teams, name)
    return values if focal or DIVERSITY[name].higher_is_more_diverse else -values


def teams_of(members, size):
    return list(itertools.combinations(range(members), size))


# --- thresholds -----------------------------------------------------------------------------------------------------


def naive_diverse(p, name, focal, metric, sizes, threshold):
    passing = []
    for size in sizes:
        teams = list(itertools.combinations(range(p.n_members), size))
        function = focal_diversity if focal else team_diversity
        values = function(p.predicted, p.labels, teams, name)
        values = values if focal or DIVERSITY[name].higher_is_more_diverse else -values
        if threshold == "mean" or len(teams) == 1:
            keep = values >= values.mean() - 1e-12
        else:
            scores = np.array([naive_key(p, team, metric, "mean_probability")[0] for team in teams])
            scaled = [(v - v.min()) / np.ptp(v) if np.ptp(v) > 1e-12 else v * 0 + 1 for v in (scores, values)]
            points = np.stack(scaled, axis=1)
            keep = KMeans(2, init=np.array([[1.0, 1.0], [0.0, 0.0]]), n_init=1, tol=0).fit(points).labels_ == 0
        passing += [team for team, kept in zip(teams, keep, strict=True) if kept]
    return passing[naive_best([naive_key(p, team, metric, "mean_probability") for team in passing])]


@pytest.mark.parametrize("threshold", ["mean", "kmeans"])
@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize("name", DIVERSITY)
def test_diverse_takes_the_best_of_the_diverse_teams(name, focal, threshold):
    p = a_pool(7, 120, 4, seed=8)
    for metric in ("accuracy", "nll"):
        for options, sizes in (({}, range(2, 6)), ({"size": 3}, [3]), ({"max_size": 9}, range(2, 8))):
            expected = naive_diverse(p, name, focal, metric, sizes, threshold)
            named = {"method": "diversity", "diversity": name, "focal": focal, "threshold": threshold}
            ensemble = select(p, metric=metric, **named, **options)
            assert ensemble.members == tuple(p.ids[i] for i in expected)


def test_short_names_are_the_general_method():
    p = a_pool(7, 120)
    short, general = select(p, method="focal-gd"), select(p, method="diversity", diversity="gd", focal=True)
    assert (short.members, short.score) == (general.members, general.score)
    assert len(select(p, method="diversity", diversity="ENT")) >= 2


def test_large_pools_are_sampled_with_the_seed():
    p = a_pool(30, 40, seed=2)
    few = {select(p, method="diversity-bd", size=4, max_teams=20, seed=s).members for s in range(4)}
    assert len(few) > 1
    for team in few:
        assert len(team) == 4
    again = [select(p, method="diversity-bd", size=4, max_teams=20, seed=1) for _ in range(2)]
    assert again[0] == again[1]


def unit(points):
    """Scaled as they are in use: each coordinate to 0…1."""
    return (points - points.min(axis=0)) / np.ptp(points, axis=0)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 60))
@settings(deadline=None, max_examples=60)
def test_two_means_equals_scikit_learn(seed, n):
    points = unit(np.random.default_rng(seed).random((n, 2)))
    assume(np.abs(points.sum(axis=1) - 1).min() > 1e-9)  # none as near to one start as to the other
    starts = np.array([[1.0, 1.0], [0.0, 0.0]])
    mine = two_means(points)
    if np.linalg.norm(points[:, None] - starts, axis=2).argmin(axis=1).any():
        theirs = KMeans(2, init=starts, n_init=1, tol=0, max_iter=1000).fit(points).labels_ == 0
        np.testing.assert_array_equal(mine, theirs)
    else:  # one cluster runs empty: scikit-learn gives it a point, here there is only the better cluster
        assert mine.all()


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
@settings(deadline=None, max_examples=100)
def test_two_means_never_leaves_the_first_cluster_empty(seed, n):
    rng = np.random.default_rng(seed)
    assert two_means(rng.random((n, 2))).any()
    assert two_means(rng.integers(0, 3, (n, 2)) / 2).any()


@pytest.mark.parametrize("points", [[[1, 1]], [[0, 1], [1, 0]], [[0.5, 0.5]] * 3, [[1, 0], [1, 0]], [[0.1, 0.2]]])
def test_two_means_of_few_points(points):
    assert two_means(np.array(points, dtype=float)).any()


def test_two_means_of_points_far_from_the_first_start_begins_with_the_nearest():
    points = np.array([[0.0, 0.0], [0.1, 0.0], [0.4, 0.4], [0.45, 0.4]])
    assert two_means(points).tolist() == [False, False, True, True]


# --- candidates -----------------------------------------------------------------------------------------------------


def counts(members, sizes, max_teams):
    task = Task(a_pool(members, 4), Objective.of("nll"), MEAN, 0)
    return [len(teams) for teams in candidate_teams(task, sizes, max_teams)]


def test_what_small_sizes_leave_over_goes_to_the_others():
    assert counts(10, range(2, 5), 375) == [45, 120, 210]
    two, three, four = counts(10, range(2, 5), 345)  # shares 45, 120 and 180; teams drawn twice are dropped
    assert (two, three) == (45, 120)
    assert 90 < four <= 180


def test_drawn_teams_are_distinct_and_in_order():
    task = Task(a_pool(30, 4), Objective.of("nll"), MEAN, 3)
    (teams,) = candidate_teams(task, range(4, 5), 500)
    assert 450 < len(teams) <= 500
    assert [tuple(t) for t in teams.tolist()] == sorted({tuple(sorted(set(t))) for t in teams.tolist()})


# --- EQ -------------------------------------------------------------------------------------------------------------


def naive_eq(p, metric, sizes, threshold, fusion):
    """Members of the team, and the names of the three measures."""
    six = ("CK", "QS", "BD", "FK", "KW", "GD")
    scores = [np.array([naive_key(p, t, metric, MEAN)[0] for t in teams_of(p.n_members, k)]) for k in sizes]
    focal = {n: [values_of(p, teams_of(p.n_members, k), n, True) for k in sizes] for n in six}
    names = []
    for name in six:
        flat = np.concatenate(focal[name])
        known = any(np.allclose(flat, np.concatenate(focal[other]), atol=1e-9) for other in names)
        if np.ptp(flat) > 1e-9 and not known:
            names.append(name)

    def telling(name):
        found = []
        for values, own in zip(focal[name], scores, strict=True):
            flat = np.ptp(values) < 1e-9 or np.ptp(own) < 1e-9
            found.append(0.0 if flat else np.corrcoef(values, own)[0, 1])
        return np.mean(found)

    chosen = sorted(names, key=telling, reverse=True)[:3]
    passing = {1: [], 2: [], 3: []}
    for k, own in zip(sizes, scores, strict=True):
        i = list(sizes).index(k)
        masks = []
        for name in chosen:
            values = focal[name][i]
            if threshold == "mean":
                masks.append(values >= values.mean() - 1e-12)
            else:
                scaled = [(v - v.min()) / np.ptp(v) if np.ptp(v) > 1e-12 else v * 0 + 1 for v in (own, values)]
                masks.append(two_means(np.stack(scaled, axis=1)))
        votes = np.sum(masks, axis=0)
        for team, number in zip(teams_of(p.n_members, k), votes, strict=True):
            for needed in range(1, number + 1):
                passing[needed].append(team)
    wanted = {"vote": 2, "intersection": 3}[fusion]
    left = next(passing[needed] for needed in range(wanted, 0, -1) if passing[needed])
    return left[naive_best([naive_key(p, team, metric, MEAN) for team in left])], chosen, len(left)


@pytest.mark.parametrize("threshold", ["mean", "kmeans"])
@pytest.mark.parametrize("fusion", ["vote", "intersection"])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_eq_equals_its_naive_twin(metric, fusion, threshold):
    for seed in (1, 2):
        p = a_pool(7, 150, 4, seed=seed)
        for options, sizes in (({}, range(2, 6)), ({"size": 3}, [3])):
            team, names, count = naive_eq(p, metric, sizes, threshold, fusion)
            ensemble = select(p, method="eq", metric=metric, fusion=fusion, threshold=threshold, **options)
            assert ensemble.members == members_of(p, team)
            assert f"({', '.join(names)})" in ensemble.reason
            assert f"best of the {count:,} teams" in ensemble.reason


def test_eq_takes_the_measures_that_follow_the_score():
    score = [np.arange(6.0)]
    focal = {
        "CK": [np.array([0, 1, 2, 3, 5, 4.0]) / 5],
        "QS": [np.full(6, 0.5)],  # never varies: no vote
        "BD": [np.arange(6) / 5],
        "KW": [np.arange(6) / 5],  # the same as BD: no second vote
        "FK": [np.arange(6)[::-1] / 5],
        "GD": [np.array([0, 2, 1, 4, 3, 5.0]) / 5],
    }
    assert most_telling(focal, score) == ["BD", "CK", "GD"]


def test_eq_falls_back_to_fewer_votes_and_says_so():
    found = set()
    for seed in range(60):
        p = a_pool(4, 25, 3, seed=seed)
        ensemble = select(p, method="eq", fusion="intersection", size=3)
        team, _, _ = naive_eq(p, "nll", [3], "mean", "intersection")
        assert ensemble.members == members_of(p, team)
        found.add("(none is by 3)" in ensemble.reason)
    assert found == {True, False}


# --- HQ -------------------------------------------------------------------------------------------------------------


def naive_survivors(p, sizes, beta, name, focal):
    pruned, left = [], []
    for size in sizes:
        teams = teams_of(p.n_members, size)
        value = dict(zip(teams, values_of(p, teams, name, focal), strict=True))
        rest = [team for team in teams if not any(set(bad) <= set(team) for bad in pruned)]
        if rest:
            cut = sorted(value[team] for team in rest)[int(beta * len(rest) + 1e-9)]
            pruned += [team for team in rest if value[team] < cut - 1e-12]
        left += [team for team in rest if team not in pruned]
    return left


@pytest.mark.parametrize("beta", [0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize(("name", "focal"), [("CK", True), ("GD", True), ("BD", False), ("DF", True), ("ENT", False)])
def test_hq_equals_its_naive_twin(name, focal, beta):
    p = a_pool(8, 150, 4, seed=3)
    left = naive_survivors(p, range(2, 6), beta, name, focal)
    for metric in ("accuracy", "nll"):
        best = left[naive_best([naive_key(p, team, metric, MEAN) for team in left])]
        ensemble = select(p, method="hq", metric=metric, beta=beta, diversity=name, focal=focal)
        assert ensemble.members == members_of(p, best)
        assert f"the {len(left):,} teams left of 210 teams of 2–5 members" in ensemble.reason
    three = [team for team in naive_survivors(p, (2, 3), beta, name, focal) if len(team) == 3]
    if three:
        best = three[naive_best([naive_key(p, team, "nll", MEAN) for team in three])]
        ensemble = select(p, method="hq", beta=beta, diversity=name, focal=focal, size=3)
        assert ensemble.members == members_of(p, best)


def test_no_survivor_holds_a_pruned_team_even_among_drawn_teams():
    task = Task(a_pool(14, 60), Objective.of("nll"), MEAN, 1)
    groups = candidate_teams(task, range(2, 6), 900)
    assert len(groups[3]) < 2002
    rng = np.random.default_rng(0)
    left = survivors(groups, [rng.random(len(teams)) for teams in groups], 0.2)
    every = [{tuple(team) for team in teams.tolist()} for teams in groups]
    alive = [{tuple(team) for team in teams.tolist()} for teams in left]
    for k in (3, 4, 5):
        for team in alive[k - 2]:
            for size in range(2, k):
                smaller = set(itertools.combinations(team, size)) & every[size - 2]
                assert smaller <= alive[size - 2]
    assert len(left[0]) == 91 - 18


def test_equal_teams_survive_together():
    teams = [np.array(teams_of(5, 2))]
    assert len(survivors(teams, [np.zeros(10)], 0.5)[0]) == 10
    assert len(survivors(teams, [np.array([0.0] * 3 + [1.0] * 7)], 0.5)[0]) == 7


def test_hq_says_when_nothing_of_a_size_survives():
    with pytest.raises(InputError, match=r"some team of 5 members to survive, got none: use a beta below 0.9"):
        select(a_pool(6, 200), method="hq", beta=0.9, size=5)
    assert len(select(a_pool(6, 200), method="hq", beta=0.9)) == 2


# --- trade-off ------------------------------------------------------------------------------------------------------


def naive_tradeoff(p, metric, lam, name, size):
    team, keys = [], []
    for _ in range(size or p.n_members):
        rest = [j for j in range(p.n_members) if j not in team]
        found = [naive_key(p, [*team, j], metric, MEAN) for j in rest]
        values = (1 - lam) * naive_unit([key[0] for key in found])
        if team:
            values = values + lam * naive_unit(values_of(p, [(*team, j) for j in rest], name, False))
        best = naive_best([(value, key[1]) for value, key in zip(values, found, strict=True)])
        team.append(rest[best])
        keys.append(found[best])
    return team if size else team[: 1 + naive_best([key[:2] for key in keys])]


def naive_unit(values):
    values = np.asarray(values)
    return (values - values.min()) / np.ptp(values) if np.ptp(values) > 1e-12 else np.ones(len(values))


@pytest.mark.parametrize("name", DIVERSITY)
@pytest.mark.parametrize("lam", [0.2, 1])
def test_tradeoff_equals_its_naive_twin(lam, name):
    p = a_pool(8, 150, 4, seed=5)
    for metric in ("accuracy", "nll"):
        for size in (None, 4):
            ensemble = select(p, method="tradeoff", metric=metric, lam=lam, diversity=name, size=size)
            assert [step["member"] for step in ensemble.trace] == [
                p.ids[j] for j in naive_tradeoff(p, metric, lam, name, size)
            ]


@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
@pytest.mark.parametrize("size", [None, 3])
def test_without_diversity_the_tradeoff_is_greedy_selection(metric, size):
    for seed in range(5):
        p = a_pool(9, 60, seed=seed)
        pure = select(p, method="tradeoff", metric=metric, lam=0, size=size)
        greedy = select(p, metric=metric, replacement=False, size=size, keep_best=size is None)
        assert [step["member"] for step in pure.trace] == [step["member"] for step in greedy.trace]


def test_more_lambda_gives_more_diverse_teams():
    p = a_pool(12, 300, 4, seed=1)

    def diversity(lam):
        team = p.indices(select(p, method="tradeoff", size=4, lam=lam).members)
        return team_diversity(p.predicted, p.labels, [team], "BD")[0]

    assert diversity(1) > diversity(0.3) > diversity(0)


def test_lambda_is_chosen_on_held_out_halves():
    p = a_pool(10, 200, seed=2)
    free = select(p, method="tradeoff", metric="nll")
    chosen = float(free.reason.split("λ = ")[1].split(",")[0])
    assert select(p, method="tradeoff", metric="nll", lam=chosen).members == free.members
    assert free == select(p, method="tradeoff", metric="nll")
    noise = Predictions.from_arrays(np.random.default_rng(0).normal(size=(1, 50, 3)).repeat(5, axis=0), [0] * 50)
    assert "λ = 0," in select(noise, method="tradeoff").reason  # all alike: the smallest of equals


# --- representatives ------------------------------------------------------------------------------------------------


def two_kinds(seed=0):
    """Six members, of which 0–3 share their noise and 4–5 theirs."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 200)
    kinds = rng.normal(size=(2, 200, 3))[[0, 0, 0, 0, 1, 1]]
    return Predictions.from_arrays(1.5 * np.eye(3)[labels] + kinds + 0.2 * rng.normal(size=(6, 200, 3)), labels)


def best_of(p, members, metric):
    return members[naive_best([naive_key(p, [j], metric, MEAN) for j in members])]


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_clusters_finds_the_kinds(metric):
    p = two_kinds()
    expected = [best_of(p, [0, 1, 2, 3], metric), best_of(p, [4, 5], metric)]
    for distance in ("disagreement", "jensen-shannon"):
        assert select(p, method="clusters", metric=metric, size=2, distance=distance).members == members_of(p, expected)


@pytest.mark.parametrize("distance", ["disagreement", "jensen-shannon"])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_clusters_equals_scikit_learn(metric, distance):
    p = a_pool(9, 157, 4, seed=4)
    table = distances(p, distance)
    teams = []
    for k in range(1, 10):
        labels = AgglomerativeClustering(k, metric="precomputed", linkage="average").fit(table).labels_
        teams.append([best_of(p, np.flatnonzero(labels == c).tolist(), metric) for c in range(k)])
        ensemble = select(p, method="clusters", metric=metric, size=k, distance=distance)
        assert ensemble.members == members_of(p, teams[-1])
    best = teams[naive_best([naive_key(p, team, metric, MEAN) for team in teams])]
    assert select(p, method="clusters", metric=metric, distance=distance).members == members_of(p, best)


def test_distances_equal_their_definition():
    p = a_pool(5, 40, 3, sharpness=3)
    for i, j in itertools.product(range(5), repeat=2):
        differ = float((p.predicted[i] != p.predicted[j]).mean())
        assert distances(p, "disagreement")[i, j] == pytest.approx(differ, abs=1e-12)
        both = p.probabilities[i].astype(float), p.probabilities[j].astype(float)
        expected = np.sqrt(np.mean(jensenshannon(*both, axis=1) ** 2))
        assert distances(p, "jensen-shannon")[i, j] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("distance", ["disagreement", "jensen-shannon"])
@pytest.mark.parametrize("quantile", [0, 0.5, 1])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_farthest_first_equals_its_naive_twin(metric, quantile, distance):
    p = a_pool(9, 157, 4, seed=4)
    keys = [naive_key(p, [j], metric, MEAN) for j in range(9)]
    order = sorted(range(9), key=lambda j: (-keys[j][0], -keys[j][1], j))
    table = distances(p, distance)
    good = [j for j in order if keys[j][0] >= np.quantile([key[0] for key in keys], quantile) - 1e-12]
    for size in (None, 1, 4):
        eligible = order[: max(len(good), size or 1)]
        team = [order[0]]
        while len(team) < (size or len(eligible)):
            rest = [j for j in eligible if j not in team]
            team.append(rest[naive_best([(min(table[j, i] for i in team),) for j in rest])])
        if size is None:
            team = team[: 1 + naive_best([naive_key(p, team[:k], metric, MEAN)[:2] for k in range(1, len(team) + 1)])]
        options = {"metric": metric, "quantile": quantile, "distance": distance, "size": size}
        ensemble = select(p, method="farthest-first", **options)
        assert [step["member"] for step in ensemble.trace] == [p.ids[j] for j in team]


# --- the family -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FAMILY)
def test_the_reason_is_one_sentence(method):
    for p in (a_pool(), a_pool(1), a_pool(4, 1)):
        reason = select(p, method=method).reason
        assert reason
        assert "\n" not in reason


@pytest.mark.parametrize("method", FAMILY)
def test_copies_of_members_do_no_harm(method):
    p = a_pool(4, 100, seed=1)
    twice = Predictions.from_arrays(np.repeat(p.logits, 2, axis=0), p.labels)
    ensemble = select(twice, method=method, size=3, metric="accuracy")
    assert len(ensemble) == 3
    assert np.isfinite(ensemble.score)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "eq", "fusion": "mean"}, "'vote' or 'intersection'"),
        ({"method": "eq", "threshold": "median"}, "'mean' or 'kmeans'"),
        ({"method": "eq", "size": 1}, "size"),
        ({"method": "hq", "beta": 1}, "beta"),
        ({"method": "hq", "beta": -0.1}, "beta"),
        ({"method": "hq", "beta": float("nan")}, "beta"),
        ({"method": "hq", "max_size": 11}, "max_size"),
        ({"method": "hq", "size": 1}, "size"),
        ({"method": "tradeoff", "lam": 1.5}, "lam"),
        ({"method": "tradeoff", "splits": 0}, "splits"),
        ({"method": "tradeoff", "max_size": 0}, "max_size"),
        ({"method": "clusters", "distance": "cosine"}, "'disagreement' or 'jensen-shannon'"),
        ({"method": "clusters", "max_size": 0}, "max_size"),
        ({"method": "farthest-first", "quantile": 2}, "quantile"),
        ({"method": "farthest-first", "distance": "cosine"}, "distance"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, says):
    with pytest.raises(InputError, match=says) as error:
        select(a_pool(), **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["diversity", "hq", "tradeoff"])
def test_every_measure_serves_every_method(method):
    for name in DIVERSITY:
        assert len(select(a_pool(), method=method, diversity=name.lower(), size=3)) == 3
    with pytest.raises(UnknownNameError, match="CK"):
        select(a_pool(), method=method, diversity="XX")


def test_the_family_is_in_the_table():
    assert set(FAMILY) <= set(SELECTORS)
