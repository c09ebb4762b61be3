"""Kernels: when they are used, and that they and their twins in numpy give what the definitions say."""

import importlib
import logging
import os
import subprocess
import sys
from dataclasses import dataclass

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrensemble import kernels
from lrensemble.errors import InputError
from lrensemble.metrics import METRICS
from lrensemble.predictions import ALL, Outputs, Predictions, softmax
from lrensemble.selection import select
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.duels import Duels, slabs
from lrensemble.selection.scorers import Agreed, BrierScorer, MeanLogs, scorer_for

TINY = float(np.finfo(np.float32).tiny)
both_ways = pytest.mark.parametrize("mode", ["on", "off"])


def a_pool(members=9, samples=300, classes=5, seed=0, sharpness=1.0, strength=1.2, coarse=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    shared = rng.normal(size=(samples, classes)) + strength * np.eye(classes)[labels]
    logits = sharpness * (shared + rng.normal(size=(members, samples, classes)))
    if not coarse:
        return Predictions.from_arrays(logits, labels)
    parts = np.round(4 * softmax(logits)) + 0.5  # few different values: ties everywhere
    return Predictions.from_arrays(probabilities=parts / parts.sum(axis=2, keepdims=True), labels=labels)


POOLS = {
    "ordinary": {},
    "two classes": {"classes": 2},
    "many classes": {"classes": 60, "strength": 2.0},
    "weak": {"classes": 30, "strength": 0.5},
    "good": {"strength": 5.0},
    "flat": {"sharpness": 0.02},
    "sharp": {"sharpness": 40.0},
    "coarse": {"coarse": True},
    "coarse and many": {"coarse": True, "classes": 20, "members": 70},
    "one member": {"members": 1},
    "one sample": {"samples": 1},
    "all right": {"strength": 99.0, "samples": 40},
    "all wrong": {"strength": -99.0, "samples": 40},
}
every_pool = pytest.mark.parametrize("name", POOLS)


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not used kernels yet."""
    monkeypatch.delenv("LRENSEMBLE_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "_loaded", {})
    monkeypatch.setattr(kernels, "_spent", 0.0)
    return monkeypatch


# --- when they are used ---------------------------------------------------------------------------------------------


def test_the_variable_decides(fresh):
    fresh.setenv("LRENSEMBLE_KERNELS", "off")
    assert kernels.kernel("nll", 1e9) is None
    fresh.setenv("LRENSEMBLE_KERNELS", "on")
    assert kernels.kernel("nll", 0.0).__name__ == "lrensemble.kernels.nll"
    fresh.setenv("LRENSEMBLE_KERNELS", "yes")
    with pytest.raises(InputError, match="auto, on or off, got 'yes'"):
        kernels.kernel("nll", 0.0)


@pytest.mark.parametrize("on_disk", [True, False])
def test_numpy_goes_on_until_it_has_cost_what_kernels_cost(fresh, on_disk):
    fresh.setattr(kernels, "_on_disk", lambda name: on_disk)
    price = kernels.IMPORT_SECONDS + (0 if on_disk else kernels.COMPILE_SECONDS["accuracy"])
    for _ in range(9):
        assert kernels.kernel("accuracy", price / 10) is None
    assert kernels.kernel("accuracy", price / 5) is not None
    assert kernels.kernel("accuracy", 0.0) is not None  # from now on for nothing


def test_a_large_job_does_not_begin_in_numpy(fresh):
    assert kernels.kernel("accuracy", 1e3) is not None


def test_compiling_is_announced_once(fresh, caplog):
    fresh.setattr(kernels, "_on_disk", lambda name: False)
    with caplog.at_level(logging.WARNING, "lrensemble"):
        for _ in range(3):
            kernels.kernel("nll", 1e3)
    assert [record.getMessage() for record in caplog.records] == [
        "compiling the selection kernels, once on this machine: about 2 s"
    ]


@pytest.mark.parametrize("error", [ImportError, OSError, SystemError])
def test_without_a_numba_that_works_all_is_numpy(fresh, error):
    def broken(name):
        raise error("no such luck")

    fresh.setattr(importlib, "import_module", broken)
    fresh.setenv("LRENSEMBLE_KERNELS", "on")
    p = a_pool()
    assert kernels.kernel("nll", 1e3) is None
    assert select(p, metric="accuracy").score > 0.5


def test_a_numba_that_does_not_compile_is_not_used(fresh):
    fresh.setattr(numba.config, "DISABLE_JIT", 1)
    assert kernels.kernel("nll", 1e3) is None


def test_a_cache_that_cannot_be_used_is_done_without(monkeypatch):
    usual = numba.njit

    def no_cache(signatures, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return usual(signatures, **options)

    monkeypatch.setattr(numba, "njit", no_cache)
    double = kernels.compiled("float64(float64)")(lambda x: 2 * x)
    assert double(1.5) == 3.0


def test_what_is_on_disk_is_known_without_numba(fresh, tmp_path):
    fresh.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not kernels._on_disk("nll")
    code = "import lrensemble.kernels.nll"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert kernels._on_disk("nll")
    assert not kernels._on_disk("accuracy")


# --- duels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OneByOne(Outputs):
    """Logits that are not in memory, as far as the code that reads them can tell."""

    values: np.ndarray
    in_memory = False
    are_probabilities = False

    @property
    def shape(self):
        return self.values.shape

    def member(self, index, samples=ALL):
        return self.values[index, samples]

    def whole(self):
        raise AssertionError("asked for all members at once")

    def take(self, members):
        return OneByOne(self.values[list(members)])

    def subset(self, samples):
        return OneByOne(self.values[:, samples])


def right_by_definition(p, team):
    total = np.zeros((p.n_samples, p.n_classes))
    for j in team:
        total += p.probabilities[j]
    return int((total.argmax(axis=1) == p.labels).sum())


def right_by_duels(duels, team):
    """Straight from the meaning of the fields."""
    own, rivals = (a[team].astype(np.float64).sum(axis=0) for a in (duels.own, duels.rivals))
    mine = own[duels.sample]
    lost = (rivals > mine) | ((rivals == mine) & duels.comes_before)
    return duels.n_samples - len(np.unique(duels.sample[lost]))


@every_pool
@both_ways
def test_duels_are_what_decides_accuracy(name, mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    p = a_pool(**POOLS[name])
    duels = Duels.of(p)
    rng = np.random.default_rng(1)
    for size in (1, 1, 2, 3, 5, 8):
        team = rng.integers(0, p.n_members, size)
        assert right_by_duels(duels, team) == right_by_definition(p, team)


@every_pool
@both_ways
def test_duels_are_those_of_the_definition(name, mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    p = a_pool(**POOLS[name])
    duels = Duels.of(p)
    probabilities = p.probabilities
    pairs = [
        (n, c)
        for n, y in enumerate(p.labels)
        for c in range(p.n_classes)
        if c != y and (probabilities[:, n, c] >= probabilities[:, n, y]).any()
    ]
    samples = np.unique([n for n, _ in pairs]).astype(int)
    assert duels.samples.tolist() == samples.tolist()
    assert duels.samples[duels.sample].tolist() == [n for n, _ in pairs]
    assert duels.comes_before.tolist() == [c < p.labels[n] for n, c in pairs]
    assert duels.first.tolist() == [sum(n < s for n, _ in pairs) for s in samples] + [len(pairs)]
    np.testing.assert_array_equal(duels.own, p.true_class[:, samples])
    np.testing.assert_array_equal(duels.true_class, p.true_class)
    expected = np.array([probabilities[:, n, c] for n, c in pairs]).reshape(-1, p.n_members).T
    np.testing.assert_array_equal(duels.rivals, expected)
    assert duels.own.T.flags.c_contiguous
    assert duels.rivals.T.flags.c_contiguous
    margin = duels.own[:, duels.sample].astype(np.float64) - expected
    np.testing.assert_array_equal(duels.margins, [margin.min(axis=0), margin.max(axis=0)])


def test_duels_do_not_depend_on_where_the_predictions_are(monkeypatch):
    p = a_pool(12, 2000, 10)
    stored = Predictions(p.ids, OneByOne(p.logits), p.labels)
    lazy = Predictions.from_arrays(p.logits, p.labels)
    _ = p.probabilities
    found = [Duels.of(source) for source in (p, stored, lazy)]
    assert "probabilities" not in lazy.__dict__
    for field in ("own", "rivals", "sample", "first", "comes_before", "samples", "true_class"):
        for other in found[1:]:
            np.testing.assert_array_equal(getattr(found[0], field), getattr(other, field))


@pytest.mark.parametrize("shape", [(7, 1003, 4), (70, 3000, 12), (3, 17, 60), (5, 40, 1000), (1, 1, 2)])
def test_slabs_cover_all_samples_and_are_small(shape):
    p = a_pool(*shape)
    pieces = [(start, part.copy()) for start, part in slabs(p)]  # the next one takes its place
    assert [start for start, _ in pieces] == list(np.cumsum([0, *(part.shape[1] for _, part in pieces[:-1])]))
    np.testing.assert_array_equal(np.concatenate([part for _, part in pieces], axis=1), p.probabilities)
    assert max(part.shape[1] for _, part in pieces) <= shape[1] / 8 + 1


def test_samples_that_get_harder_have_room():
    p = a_pool(6, 4000, 4, strength=8.0)
    harder = np.concatenate([p.logits[:, :2000], a_pool(6, 2000, 4, strength=-1.0, seed=1).logits], axis=1)
    both = Predictions.from_arrays(harder, p.labels)
    assert right_by_duels(Duels.of(both), [0, 3]) == right_by_definition(both, [0, 3])


@every_pool
@both_ways
def test_samples_lost_are_those_of_the_definition(name, mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    p = a_pool(**POOLS[name])
    scorer = scorer_for(Task(p, Objective.of("accuracy"), "mean_probability", 0))
    rng = np.random.default_rng(2)
    everyone = np.arange(p.n_members)
    team = []
    for member in rng.integers(0, p.n_members, 6):
        expected = np.array([right_by_definition(p, [*team, j]) for j in everyone]) / p.n_samples
        for candidates in (everyone, rng.permutation(everyone), everyone[:1], everyone[::-2]):
            np.testing.assert_array_equal(scorer.scores(candidates), expected[candidates])
        scorer = scorer.plus(member)
        team.append(member)


KINDS = ("correlated", "apart", "sharp", "clipped", "nothing", "coarse", "equal", "agreed", "nearly agreed")


# --- logarithms -----------------------------------------------------------------------------------------------------


def plain_values(own, total, size, members):
    """What `MeanLogs` gives, with a logarithm for each sample."""
    return np.array([np.log(np.maximum((total + own[j]) / size, TINY)).mean() for j in members])


@pytest.mark.parametrize("n", [1, 7, 8, 9, 511, 512, 513, 5000, 300_000])
@pytest.mark.parametrize("power", [0.0, 1.0, 40.0])
def test_products_stand_for_sums_of_logs_both_ways(n, power, monkeypatch):
    rng = np.random.default_rng(n)
    own = rng.random((2, n), dtype=np.float32) ** np.float32(power)  # to the 40th: many are below the smallest normal
    for total in (np.zeros(n), 1e6 * rng.random(n), rng.random(n) * 1e-30):
        found = []
        for mode in ("on", "off"):
            monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
            found.append(MeanLogs(own).values(total, 1, np.array([1, 0])))
        np.testing.assert_array_equal(*found)
        np.testing.assert_allclose(found[0], plain_values(own, total, 1, [1, 0]), rtol=1e-14, atol=1e-14)


@both_ways
def test_products_of_many_samples_do_not_overflow(mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    n, value = 700_000, 1.99 ** (1 / 8)  # products of 8 that take nothing but a mantissa near 2
    found = MeanLogs(np.zeros((1, n), np.float32)).values(np.full(n, value), 1, np.array([0]))
    assert found[0] == pytest.approx(np.log(1.99) / 8, rel=1e-12)


@both_ways
def test_candidates_that_cannot_be_best_are_passed_over(mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    own = members_of((64, 2000), "correlated", np.random.default_rng(1))
    logs, total = MeanLogs(own), own[:5].sum(axis=0, dtype=np.float64)
    members = np.random.default_rng(2).permutation(64)[:50]
    found, values = logs.leading(total, 6, members), plain_values(own, total, 6, members)
    seen = np.isfinite(found)
    assert seen.sum() < 16
    assert found.argmax() == values.argmax()
    np.testing.assert_allclose(found[seen], values[seen], rtol=1e-13)
    assert (found[~seen] == -np.inf).all()
    assert (values[~seen] < values.max()).all()


@both_ways
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_equal_candidates_are_all_looked_at(count, mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    own = np.random.default_rng(0).random((1, 700), dtype=np.float32).repeat(count, axis=0)
    logs, total, members = MeanLogs(own), np.full(700, 0.5), np.arange(count)
    np.testing.assert_allclose(logs.leading(total, 2, members), plain_values(own, total, 2, members), rtol=1e-13)


def members_of(shape, kind, rng):
    """Probabilities of the true class that are hard on bounds: far apart, equal, certain and wrong, clipped by NLL."""
    n = shape[1]
    difficulty = rng.normal(size=n) + 0.3 * rng.normal(size=shape)  # shared, as that of real pools is
    own = {
        "correlated": 1 / (1 + np.exp(2 * difficulty)),
        "apart": rng.random(shape),
        "sharp": 1 / (1 + np.exp(np.minimum(40 * difficulty, 80))),
        "clipped": np.where(rng.random(shape) < 0.3, 10.0 ** rng.uniform(-45, -36, shape), rng.random(shape)),
        "nothing": np.zeros(shape),
        "coarse": rng.integers(0, 3, shape) / 2,
        "equal": np.broadcast_to(rng.random(n), shape),
        "agreed": rng.random(n) * rng.uniform(0.9, 1, shape),
        "nearly agreed": rng.choice([1e-35, 1e-28, 0.01, 1.0], n) * rng.uniform(0.7, 1, shape),
    }[kind]
    return own.astype(np.float32, order="C")


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("shape", [(4, 1), (7, 13), (9, 1000), (30, 300)])
@both_ways
def test_bounds_hold_and_are_tight(kind, shape, mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    rng = np.random.default_rng(shape[0])
    own = members_of(shape, kind, rng)
    logs, total = MeanLogs(own), np.zeros(shape[1])
    for size in range(1, 30):
        members = rng.permutation(shape[0])[: rng.integers(4, shape[0] + 1)]
        bounds, values = logs.bounds(total, size, members), logs.values(total, size, members)
        assert (bounds >= values).all()
        if kind == "equal":
            np.testing.assert_allclose(bounds, values, rtol=1e-9, atol=1e-9)
        if kind in ("correlated", "apart", "agreed") and size > 20:
            assert (bounds - values).max() < 0.01
        total += own[rng.integers(shape[0])]


def test_bounds_are_the_same_both_ways(monkeypatch):
    own = members_of((23, 5000), "correlated", np.random.default_rng(0))
    found = []
    for mode in ("on", "off"):
        monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
        found.append(MeanLogs(own).bounds(own[:3].sum(axis=0, dtype=np.float64), 4, np.arange(23)))
    np.testing.assert_allclose(*found, rtol=1e-12)


def test_samples_are_parted_the_same_both_ways(monkeypatch):
    own = np.concatenate([members_of((23, 1500), kind, np.random.default_rng(0)) for kind in KINDS], axis=1)
    found = []
    for mode in ("on", "off"):
        monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
        found.append(Agreed.of(own))
    on, off = found
    np.testing.assert_array_equal(on.left, off.left)
    np.testing.assert_array_equal(on.own, own[:, off.left])
    np.testing.assert_array_equal(on.top, own[:, off.left].max(axis=0))
    np.testing.assert_allclose(on.mean, own[:, off.left].mean(axis=0), rtol=1e-5, atol=1e-44)
    np.testing.assert_allclose(on.shares, off.shares, rtol=1e-6)
    assert 0 < on.count == own.shape[1] - len(on.left)


@pytest.mark.parametrize("classes", [2, 16, 17, 40])
@pytest.mark.parametrize("members", [1, 2, 5])
@both_ways
def test_the_true_class_is_picked_out_of_every_member(members, classes, mode, monkeypatch):
    monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
    p = a_pool(members=members, samples=300, classes=classes)
    for at_hand in (False, True):
        fresh = Predictions.from_arrays(p.logits, p.labels)
        assert not at_hand or fresh.probabilities is not None
        np.testing.assert_array_equal(fresh.true_class, p.probabilities[:, np.arange(300), p.labels])


# --- both ways, the same ensembles ----------------------------------------------------------------------------------


def by_definition(p, metric, rounds):
    """Picks of greedy search with replacement: float64 sums, the metric's own function, the order of ties."""
    picked, keys = [], []
    total = np.zeros((p.n_samples, p.n_classes))
    for _ in range(rounds):
        found = []
        for j in range(p.n_members):
            mean = (total + p.probabilities[j]) / (len(picked) + 1)
            sign = 1 if METRICS[metric].higher_is_better else -1
            tie = -METRICS["nll"](mean, p.labels) if metric == "accuracy" else 0.0
            found.append((sign * METRICS[metric](mean, p.labels), tie, -len({*picked, j})))
        best = 0
        for j in range(p.n_members):
            best = j if comes_first(found[j], found[best]) else best
        picked.append(best)
        keys.append(found[best])
        total += p.probabilities[best]
    return picked


def comes_first(new, old):
    for a, b in zip(new, old, strict=True):
        if abs(a - b) > 1e-12 * max(abs(a), abs(b)):
            return a > b
    return False


@every_pool
@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
def test_greedy_picks_the_same_with_and_without_kernels(name, metric, monkeypatch):
    p = a_pool(**POOLS[name])
    expected = [p.ids[j] for j in by_definition(p, metric, 12)]
    teams = {}
    for mode in ("on", "off"):
        monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
        last = select(p, metric=metric, rounds=12, keep_best=False)
        assert [step["member"] for step in last.trace] == expected
        teams[mode] = select(p, metric=metric), last
    assert teams["on"] == teams["off"]


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@given(
    seed=st.integers(0, 10**6),
    members=st.integers(1, 20),
    samples=st.integers(1, 40),
    classes=st.integers(2, 9),
    sharpness=st.sampled_from([0.01, 1.0, 30.0, 300.0]),
    strength=st.sampled_from([-2.0, 0.0, 1.0, 4.0]),
    coarse=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_greedy_picks_what_the_definition_says(metric, seed, members, samples, classes, sharpness, strength, coarse):
    p = a_pool(members, samples, classes, seed, sharpness, strength, coarse)
    check_picks(p, metric, 6)


def check_picks(p, metric, rounds):
    expected = [p.ids[j] for j in by_definition(p, metric, rounds)]
    for mode in ("on", "off"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LRENSEMBLE_KERNELS", mode)
            last = select(p, metric=metric, rounds=rounds, keep_best=False)
            assert [step["member"] for step in last.trace] == expected


@pytest.mark.parametrize("kind", [*KINDS])
@given(seed=st.integers(0, 10**6), members=st.integers(4, 24), samples=st.integers(1, 300))
@settings(deadline=None, max_examples=15)
def test_greedy_by_nll_picks_what_the_definition_says_of_hard_pools(kind, seed, members, samples):
    rng = np.random.default_rng(seed)
    own = members_of((members, samples), kind, rng)
    own[rng.integers(members)] = own[0]  # a duplicate
    probabilities = np.stack([own, 1 - own], axis=2)
    check_picks(Predictions.from_arrays(probabilities=probabilities, labels=np.zeros(samples, int)), "nll", 12)


@pytest.mark.parametrize("method", ["exhaustive", "top-k", "diversity-gd"])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_other_methods_choose_the_same_with_and_without_kernels(method, metric, monkeypatch):
    p = a_pool(8, 200)
    found = []
    for mode in ("on", "off"):
        monkeypatch.setenv("LRENSEMBLE_KERNELS", mode)
        found.append(select(p, method=method, metric=metric))
    assert found[0].members == found[1].members
    assert found[0].score == found[1].score


# --- Brier ----------------------------------------------------------------------------------------------------------


@every_pool
def test_brier_follows_from_pairs_of_members(name):
    p = a_pool(**POOLS[name])
    scorer, team = BrierScorer(p), []
    everyone = np.arange(p.n_members)
    for member in np.random.default_rng(3).integers(0, p.n_members, 5):
        means = [p.probabilities[[*team, j]].astype(np.float64).mean(axis=0) for j in everyone]
        expected = [-METRICS["brier"](mean, p.labels) for mean in means]
        np.testing.assert_allclose(scorer.scores(everyone), expected, rtol=1e-12, atol=1e-30)
        scorer = scorer.plus(member)
        team.append(member)
