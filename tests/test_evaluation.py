"""Evaluation: statistics against statsmodels and scipy, systems, verdicts, degenerate pools, JSON."""

import itertools
import json
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_helpers import naive_best, naive_greedy
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from lrensemble.cli.main import main
from lrensemble.combine import COMBINERS
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, PoolError, UnknownNameError
from lrensemble.evaluation import Report, Score, bootstrap_means, evaluate, mcnemar, percentile_interval
from lrensemble.evaluation import control as control_module
from lrensemble.evaluation import equivalent as equivalent_module
from lrensemble.evaluation import statistics as statistics_module
from lrensemble.evaluation.equivalent import equivalent_size, random_team_curve
from lrensemble.evaluation.verdict import reliable_direction, write_verdict
from lrensemble.metrics import METRICS
from lrensemble.pool import import_arrays
from lrensemble.predictions import Predictions
from lrensemble.selection import select

BEST, ORACLE = "best single (validation)", "best single (test, oracle)"


def world(m=6, n=300, c=8, seed=0, skill=2.0, shared=0.7, ids=None):
    """Validation and test predictions of m networks of like skill; `shared` is how much they err together."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, 2 * n)
    common = rng.normal(size=(2 * n, c))
    own = rng.normal(size=(m, 2 * n, c))
    z = skill * np.eye(c)[y] + shared * common + np.sqrt(1 - shared**2) * own
    ids = ids or [f"m{i}" for i in range(m)]
    return tuple(
        Predictions.from_arrays(z[:, rows], y[rows], ids=ids, split=split)
        for split, rows in (("val", slice(0, n)), ("test", slice(n, None)))
    )


def team(ids, **options):
    return Ensemble(tuple(ids), (1 / len(ids),) * len(ids), **{"method": "greedy", "metric": "nll", **options})


def best_on(predictions):
    """Names of the networks by falling accuracy, ties by NLL."""
    accuracy = predictions.correct.mean(axis=1)
    nlls = [METRICS["nll"](p, predictions.labels) for p in predictions.probabilities]
    return [predictions.ids[i] for i in np.lexsort((nlls, -accuracy))]


def from_hits(val_hits, test_hits, confidence=(0.9, 0.9)):
    """Two-class predictions of networks that are right where their row is 1, each always as confident as given."""

    def predictions(hits, split):
        sure = np.broadcast_to(np.array(confidence)[:, None], np.shape(hits))
        p = np.where(np.asarray(hits)[..., None], np.stack([sure, 1 - sure], -1), np.stack([1 - sure, sure], -1))
        return Predictions.from_arrays(probabilities=p, labels=np.zeros(p.shape[1], dtype=int), split=split)

    return predictions(val_hits, "val"), predictions(test_hits, "test")


def row_hits(n, right):
    return np.arange(n) < right


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [10, 400])
def test_mcnemar_is_statsmodels(n, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) < 0.8, rng.random(n) < 0.6
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    ours = mcnemar(a, b)
    assert ours.p_value == pytest.approx(min(1.0, statsmodels_mcnemar(table, exact=True).pvalue))
    assert [ours.wins, ours.losses] == [table[0][1], table[1][0]]
    assert mcnemar(b, a).p_value == pytest.approx(ours.p_value)


def test_mcnemar_without_difference():
    assert mcnemar([1, 0, 1], [1, 0, 1]).p_value == 1.0
    with pytest.raises(InputError, match="same shape"):
        mcnemar([1, 0], [1])


def test_bootstrap_intervals_are_scipys():
    rng = np.random.default_rng(0)
    scores = np.stack([rng.random(500) < 0.9, rng.exponential(size=500)], axis=1).astype(float)
    low, high = percentile_interval(bootstrap_means(scores, resamples=8000, seed=1), 0.9)
    oracle = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=8000, confidence_level=0.9, method="percentile", random_state=2
    ).confidence_interval
    width = oracle.high - oracle.low
    assert np.abs(low - oracle.low).max() < 0.05 * width.min()
    assert np.abs((high - oracle.high) / width).max() < 0.05
    assert np.abs((low - oracle.low) / width).max() < 0.05


def test_bootstrap_is_paired_seeded_and_independent_of_blocks(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(50, 3))
    scores[:, 2] = scores[:, 0] - scores[:, 1]
    first = bootstrap_means(scores, resamples=300, seed=4)
    assert np.allclose(first[:, 2], first[:, 0] - first[:, 1])
    monkeypatch.setattr(statistics_module, "BLOCK", 500)
    assert np.allclose(bootstrap_means(scores, resamples=300, seed=4), first)
    assert not np.allclose(bootstrap_means(scores, resamples=300, seed=5), first)


def test_bootstrap_slow_twin():
    scores = np.random.default_rng(0).normal(size=(30, 2))
    draws = np.random.default_rng(7).integers(0, 30, size=(200, 30))
    assert np.allclose(bootstrap_means(scores, resamples=200, seed=7), scores[draws].mean(axis=1))


def test_bootstrap_memory_does_not_grow_with_resamples():
    scores = np.ones((20_000, 4))
    tracemalloc.start()
    bootstrap_means(scores, resamples=1000, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6  # all draws at once would take 160 MB, and their counts as much again


# --- systems ----------------------------------------------------------------------------------------------------------


def test_rows_and_their_scores():
    val, test = world()
    first, second = team(["m1", "m3", "m4"]), team(["m0", "m2"], method="diversity", rule="majority")
    report = evaluate(test, [first, second], validation=val, bootstrap=200)
    assert [row.system for row in report.rows] == [
        "greedy (nll)",
        "diversity (nll)",
        BEST,
        ORACLE,
        "top-3 (validation)",
        "whole pool",
        "team of 3 (test, oracle)",
        "mean single",
    ]
    for name, ensemble in (("greedy (nll)", first), ("diversity (nll)", second), ("whole pool", team(test.ids))):
        row, p = report.row(name), ensemble.probabilities(test)
        for metric, score in row.metrics.items():
            assert score.value == pytest.approx(METRICS[metric](p, test.labels), abs=1e-6)
        assert row.validation["accuracy"] == pytest.approx(METRICS["accuracy"](ensemble.probabilities(val), val.labels))
        assert row.validation["nll"] == pytest.approx(METRICS["nll"](ensemble.probabilities(val), val.labels))
    assert report.row(BEST).members == (best_on(val)[0],)
    assert report.row(ORACLE).members == (best_on(test)[0],)
    assert report.row(ORACLE).role == "oracle"
    assert list(report.row("top-3 (validation)").members) == best_on(val)[:3]
    assert report.row("mean single").metrics["accuracy"].value == pytest.approx(test.correct.mean())
    assert report.row("mean single").metrics["nll"].value == pytest.approx(-np.log(test.true_class).mean(), rel=1e-5)
    assert (report.n_test, report.n_val, report.n_members, report.n_classes) == (300, 300, 6, 8)


def test_best_single_breaks_ties_of_accuracy_by_nll():
    val, test = world(m=3)
    sharper = Predictions.from_arrays(np.concatenate([val.logits[:1], 1.2 * val.logits[:1]]), val.labels, split="val")
    worse = Predictions.from_arrays(test.logits[:2], test.labels, split="test")
    nlls = [METRICS["nll"](p, val.labels) for p in sharper.probabilities]
    report = evaluate(worse, team(["m0", "m1"]), validation=sharper, bootstrap=100)
    assert report.row(BEST).members == (f"m{int(np.argmin(nlls))}",)


def test_intervals_and_comparisons():
    val, test = world()
    report = evaluate(test, team(["m1", "m3", "m4"]), validation=val, bootstrap=500, confidence=0.9)
    for row in report.rows:
        for name, score in row.metrics.items():
            assert (score.low is not None) == (METRICS[name].per_sample is not None)
            assert score.low is None or score.low <= score.value <= score.high
    assert [c.system for c in report.comparisons] == [row.system for row in report.rows if row.system != BEST]
    assert report.comparison(BEST) is None
    single = team(report.row(BEST).members).probabilities(test).argmax(axis=1) == test.labels
    for comparison in report.comparisons:
        row, difference = report.row(comparison.system), comparison.differences["accuracy"]
        assert difference.value == pytest.approx(
            row.metrics["accuracy"].value - report.row(BEST).metrics["accuracy"].value
        )
        assert difference.low <= difference.value <= difference.high
        if row.members:
            hits = Ensemble(row.members, row.weights, row.rule).probabilities(test).argmax(axis=1) == test.labels
            assert comparison.wins == (hits & ~single).sum()
            assert comparison.losses == (single & ~hits).sum()
            assert comparison.p_value == mcnemar(hits, single).p_value


def test_same_seed_same_report():
    val, test = world()
    same = [evaluate(test, team(["m1", "m2"]), validation=val, bootstrap=150, seed=s) for s in (3, 3, 4)]
    assert same[0] == same[1]
    assert same[0].rows[0].metrics["nll"] != same[2].rows[0].metrics["nll"]


def test_chosen_metrics_only():
    val, test = world()
    report = evaluate(test, team(["m1", "m2"]), validation=val, bootstrap=100, metrics=["ece"])
    assert set(report.rows[0].metrics) == {"accuracy", "nll", "ece"}
    assert "Brier" not in str(report)
    with pytest.raises(UnknownNameError, match="did you mean 'brier'"):
        evaluate(test, team(["m1"]), validation=val, metrics=["briar"])


@pytest.mark.parametrize("rule", COMBINERS)
def test_every_rule_can_be_evaluated(rule):
    val, test = world(n=60)
    report = evaluate(test, team(["m0", "m5", "m2"], rule=rule), validation=val, bootstrap=100)
    assert report.row("whole pool").rule == rule
    assert report.row(BEST).rule == "mean_probability"


def test_names_of_systems_are_unique():
    val, test = world(n=50)
    teams = [team(["m0"]), team(["m1"]), team(["m2"], method="whole pool", metric="")]
    names = [row.system for row in evaluate(test, teams, validation=val, bootstrap=100).rows]
    assert len(set(names)) == len(names)
    assert names[:3] == ["greedy (nll)", "greedy (nll) #2", "whole pool #2"]


def test_agreement_reliability_and_risk():
    val, test = world()
    report = evaluate(test, team(["m1", "m3"]), validation=val, bootstrap=100)
    predicted = test.take(["m1", "m3"]).predicted
    share = (predicted[0] == predicted[1]).mean()
    assert report.agreement["matrix"] == [[1.0, pytest.approx(share)], [pytest.approx(share), 1.0]]
    p = team(["m1", "m3"]).probabilities(test)
    bins = report.reliability["greedy (nll)"]
    assert sum(b["count"] for b in bins) == 300
    gap = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / 300
    assert gap == pytest.approx(METRICS["ece"](p, test.labels))
    order = np.argsort(-p.max(axis=1))
    wrong = (p.argmax(axis=1) != test.labels)[order]
    points = report.risk_coverage["greedy (nll)"]
    assert [point["coverage"] for point in points] == pytest.approx(np.arange(1, 21) / 20)
    assert [point["risk"] for point in points] == pytest.approx([wrong[: 15 * i].mean() for i in range(1, 21)])
    assert set(report.reliability) == set(report.risk_coverage) == {"greedy (nll)", BEST}


# --- pools ------------------------------------------------------------------------------------------------------------


class FakePool:
    """A pool as far as evaluation needs one: four policies, `seeds` networks each."""

    def __init__(self, val, test, seeds):
        self.data, self.seeds = {"val": val, "test": test}, seeds

    def predictions(self, split="val", members=None):
        return self.data[split] if members is None else self.data[split].take(members)

    def summaries(self):
        return [
            SimpleNamespace(
                id=name,
                policy=f"FIX(k0=0.{i // self.seeds + 1})",
                model="mlp",
                config={"epochs": 3},
                seed=i % self.seeds,
                parameters=100,
                flops=7 if i else 0,
                extra={},
            )
            for i, name in enumerate(self.data["val"].ids)
        ]


def test_pool_adds_cost_policies_and_the_seeds_control():
    val, test = world(m=8)
    report = evaluate(FakePool(val, test, seeds=2), team(["m1", "m2"]), bootstrap=100)
    assert report.rows[0].parameters == 200
    assert report.rows[0].flops == 14
    assert report.row("whole pool").flops is None  # one network's is unknown
    assert report.row("whole pool").parameters == 800
    control = report.row("seeds of best policy")
    means = val.correct.mean(axis=1).reshape(4, 2).mean(axis=1)
    best = int(means.argmax())
    assert control.members == (f"m{2 * best}", f"m{2 * best + 1}")
    assert (control.role, control.size) == ("control", 2)
    assert report.members[5].policy == "FIX(k0=0.3)"
    assert [m.weight for m in report.members] == [0, 0.5, 0.5, 0, 0, 0, 0, 0]
    expected = [(p.argmax(1) == test.labels).mean() for p in test.probabilities]
    assert [m.test["accuracy"] for m in report.members] == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [1, 8])
def test_no_seeds_control_without_repetitions_or_with_one_policy(seeds):
    val, test = world(m=8, n=50)
    report = evaluate(FakePool(val, test, seeds), team(["m1", "m2"]), bootstrap=100)
    assert "seeds of best policy" not in [row.system for row in report.rows]


def test_numbers_of_numpy_and_a_single_metric_are_taken():
    options = {"bootstrap": np.int64(100), "seed": np.int32(2), "confidence": np.float32(0.75)}
    report = evaluate(TEST, team(["m0"]), validation=VAL, metrics="brier", **options)
    assert report == evaluate(
        TEST, team(["m0"]), validation=VAL, metrics=["brier"], bootstrap=100, seed=2, confidence=0.75
    )
    assert Report.from_dict(report.to_dict()) == report
    assert set(report.rows[0].metrics) == {"accuracy", "nll", "brier"}


def test_validation_in_another_order_is_put_in_order():
    val, test = world()
    shuffled = val.take(["m5", "m0", "m3", "m1", "m4", "m2"])
    expected = evaluate(test, team(["m1", "m2"]), validation=val, bootstrap=100)
    assert evaluate(test, team(["m1", "m2"]), validation=shuffled, bootstrap=100) == expected


def test_pools_that_stay_on_disk_give_the_same_report(tmp_path):
    val, test = world(m=5, n=60)
    pool = import_arrays(
        tmp_path / "p", val_logits=val.logits, test_logits=test.logits, val_labels=val.labels, test_labels=test.labels
    )
    ensemble = select(pool, calibrate="members")
    whole, stored = (
        evaluate(
            pool.predictions("test", in_memory=in_memory),
            ensemble,
            validation=pool.predictions("val", in_memory=in_memory),
            bootstrap=100,
            control=a_control(test, m=4),
        )
        for in_memory in (True, False)
    )
    kept = tuple(row for row in whole.rows if not row.system.startswith("team of"))
    assert stored.rows == kept
    assert stored.members == whole.members
    assert stored.deep_equivalent == whole.deep_equivalent


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_single_network_is_not_said_to_cost_more():
    val, test = world(m=4, n=200, shared=0.97)
    best = evaluate(test, team(["m0"]), validation=val, bootstrap=100).row("best single (validation)").members[0]
    other = next(name for name in val.ids if name != best)
    for members, costs_more in (([other], False), (list(val.ids), True)):
        report = evaluate(test, team(members), validation=val, bootstrap=100)
        gain = report.comparisons[0]
        no_better = replace(gain, differences={name: Score(0.0, -1.0, 1.0) for name in gain.differences}, p_value=1.0)
        text = write_verdict(
            report.rows[0], report.row(report.reference), no_better, n_test=report.n_test, confidence=0.95
        )
        assert "evidence for the ensemble is too weak" in text
        assert ("costs more" in text) == costs_more


def test_improvement():
    val, test = world(m=8, n=1500, shared=0.2)
    report = evaluate(test, team(val.ids), validation=val, bootstrap=300)
    gain = report.comparisons[0]
    assert report.improved
    assert gain.differences["accuracy"].low > 0
    assert report.verdict.startswith("The ensemble of 8, greedy (nll), is right on ")
    assert "of 1,500 test samples, the best single network (chosen on validation) on " in report.verdict
    assert f"{100 * gain.differences['accuracy'].value:+.2f} points (95 % interval +" in report.verdict
    assert "McNemar p < 0.0001" in report.verdict
    assert report.verdict.endswith("Use the ensemble.")


def test_no_reliable_improvement():
    val, test = world(m=4, n=200, shared=0.97)
    report = evaluate(test, team(["m0", "m1"]), validation=val, bootstrap=300)
    assert not report.improved
    assert report.verdict.startswith("No reliable improvement in accuracy: ")
    assert "single network" in report.verdict


def test_better_probabilities_alone():
    n = 400
    val, test = from_hits([row_hits(n, 321), row_hits(n, 320)], [row_hits(n, 320)] * 2, confidence=(0.999, 0.8))
    report = evaluate(test, Ensemble(("m0", "m1"), (0.1, 0.9)), validation=val, bootstrap=300)
    assert not report.improved
    assert report.verdict.startswith("No reliable improvement in accuracy: ")
    assert "±0.0 points" in report.verdict
    assert "Its probabilities are better: NLL" in report.verdict
    assert "Use the ensemble where probabilities matter" in report.verdict


def test_worse_probabilities():
    n = 400
    val, test = from_hits([row_hits(n, 320), row_hits(n, 321)], [row_hits(n, 320)] * 2, confidence=(0.999, 0.8))
    report = evaluate(test, Ensemble(("m0", "m1"), (0.99, 0.01)), validation=val, bootstrap=300)
    assert "Its probabilities are worse: NLL" in report.verdict
    assert "Use the single network 'm1'" in report.verdict


def test_worse_ensemble_is_called_worse():
    n = 400
    val, test = from_hits([row_hits(n, 360), row_hits(n, 200)], [row_hits(n, 360), row_hits(n, 200)[::-1]])
    report = evaluate(test, Ensemble(("m0", "m1"), (0.1, 0.9), method="manual"), validation=val, bootstrap=200)
    assert not report.improved
    assert report.verdict.startswith("The ensemble is worse than the best single network: ")
    assert report.verdict.endswith("Use the single network 'm0'.")


def test_interval_alone_does_not_make_an_improvement():
    """Five wins, no loss: the percentile interval excludes 0, the exact test (p = 0.0625) does not convince."""
    n = 1000
    hits = np.stack([row_hits(n, 900), row_hits(n, 905)])
    val, test = from_hits([row_hits(n, 901), row_hits(n, 900)], hits)
    report = evaluate(test, Ensemble(("m0", "m1"), (0.1, 0.9)), validation=val, bootstrap=2000)
    gain = report.comparisons[0]
    assert (gain.wins, gain.losses, gain.p_value) == (5, 0, 0.0625)
    assert gain.differences["accuracy"].low > 0
    assert not report.improved
    assert "McNemar p = 0.062" in report.verdict


@pytest.mark.parametrize("rule", ["mean_probability", "product"])
def test_team_of_the_best_single_is_no_improvement(rule):
    val, test = world()
    best = best_on(val)[0]
    report = evaluate(test, team([best], rule=rule), validation=val, bootstrap=200)
    gain = report.comparisons[0]
    assert not report.improved
    assert (gain.wins, gain.losses, gain.p_value) == (0, 0, 1.0)
    assert all(value == 0 for value in vars(gain.differences["accuracy"]).values())
    assert report.verdict.startswith(
        f"No improvement: the ensemble (greedy (nll)) is the best single network itself, '{best}'"
    )


# --- degenerate and refused input -------------------------------------------------------------------------------------


def assert_sound(report):
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert Report.from_dict(json.loads(text)) == report
    assert "nan" not in str(report).lower()
    assert report.verdict


@given(
    m=st.integers(1, 4),
    n=st.integers(1, 12),
    c=st.integers(2, 7),
    skill=st.sampled_from([0.0, 2.0, 500.0, -500.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_small_and_extreme_pools_give_sound_reports(m, n, c, skill, seed):
    val, test = world(m, n, c, seed, skill)
    report = evaluate(test, team(test.ids[: max(1, m // 2)]), validation=val, bootstrap=100)
    assert_sound(report)
    assert report.improved == (
        report.comparisons[0].differences["accuracy"].low > 0 and report.comparisons[0].p_value < 0.05
    )


def test_pool_of_one():
    val, test = world(m=1)
    report = evaluate(test, team(["m0"]), validation=val, bootstrap=100)
    assert_sound(report)
    assert {row.metrics["accuracy"].value for row in report.rows} == {test.correct.mean()}


def test_inputs_stay_as_they_are():
    val, test = world()
    before = [array.copy() for array in (val.logits, val.labels, test.logits, test.labels)]
    ensemble = team(["m1", "m2"])
    as_was = ensemble.to_dict()
    evaluate(test, ensemble, validation=val, bootstrap=100)
    assert all(map(np.array_equal, before, (val.logits, val.labels, test.logits, test.labels)))
    assert ensemble.to_dict() == as_was


VAL, TEST = world(n=40)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation": None}, InputError, "expected validation= beside test predictions"),
        ({"validation": VAL.take(["m0", "m1"])}, InputError, "same members"),
        (
            {"validation": Predictions.from_arrays(TEST.logits, TEST.labels, ids=TEST.ids)},
            InputError,
            "validation predictions again",
        ),
        ({"validation": world(c=5, n=40)[0]}, InputError, "as many classes"),
        ({"source": FakePool(VAL, TEST, 2)}, InputError, "only beside bare predictions"),
        ({"ensembles": []}, InputError, "one ensemble or more"),
        ({"ensembles": ["m0"]}, InputError, "one ensemble or more"),
        ({"ensembles": team(["m0", "stranger"])}, PoolError, "none named 'stranger'"),
        ({"bootstrap": 10}, InputError, "at least 100"),
        ({"bootstrap": 150.5}, InputError, "a whole number"),
        ({"bootstrap": "many"}, InputError, "a whole number"),
        ({"seed": -1}, InputError, "seed as an integer"),
        ({"seed": None}, InputError, "seed as an integer"),
        ({"confidence": "high"}, InputError, "confidence level"),
        ({"source": VAL, "validation": TEST}, InputError, "validation data .* got split 'test'"),
        ({"ensembles": team(["m0"], split="test")}, InputError, "one chosen on split 'test'"),
        ({"confidence": 1.0}, InputError, "confidence level"),
    ],
)
def test_refusals(options, error, message):
    arguments = {"source": TEST, "ensembles": team(["m0"]), "validation": VAL, **options}
    with pytest.raises(error, match=message):
        evaluate(arguments.pop("source"), arguments.pop("ensembles"), **arguments)


def test_other_pools_are_refused():
    val, test = (replace(p, fingerprint=mark) for p, mark in ((VAL, "aaaa"), (TEST, "bbbb")))
    with pytest.raises(InputError, match="different pools"):
        evaluate(test, team(["m0"]), validation=val)
    with pytest.raises(PoolError, match="another pool"):
        evaluate(test, team(["m0"], fingerprint="cccc"), validation=VAL)


# --- report as file and text ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    val, test = world(m=8)
    return evaluate(FakePool(val, test, seeds=2), [team(["m1", "m2"]), team(["m4"])], bootstrap=200)


def test_json_round_trip(report, tmp_path):
    assert_sound(report)
    path = tmp_path / "report.json"
    path.write_text(report.to_json(), encoding="utf-8")
    assert Report.load(path) == report
    assert str(Report.load(path)) == str(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "expected a report written by"),
        ({"version": 9}, "format version 1, got version 9"),
        ({"rows": [{"system": "x"}]}, "wrong field"),
        ({"rows": None}, "wrong field"),
    ],
)
def test_damaged_reports_are_refused(report, change, message):
    with pytest.raises(InputError, match=rf"r\.json: .*{message}"):
        Report.from_dict({**report.to_dict(), **change}, "r.json")


def test_unreadable_report_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Report.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="got something else"):
        Report.load(tmp_path / "bad.json")


def test_text_has_every_system_the_verdict_and_fits_the_page(report):
    text = str(report)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    for row in report.rows:
        line = next(line for line in lines if line.startswith(row.system))
        assert f"{100 * row.metrics['accuracy'].value:.2f}" in line
    assert " ".join(report.verdict.split()) in " ".join(text.split())
    assert "top5" in lines[0]


def test_top5_is_left_out_with_five_classes():
    val, test = world(c=5, n=50)
    assert "top5" not in str(evaluate(test, team(["m0", "m1"]), validation=val, bootstrap=100))


def test_long_system_names_are_wrapped():
    val, test = world(n=50)
    ensemble = team(["m0", "m1"], method="accuracy-diversity trade-off", metric="balanced_accuracy")
    assert max(map(len, str(evaluate(test, ensemble, validation=val, bootstrap=100)).splitlines())) <= 100


def test_report_without_intervals_still_reads(report):
    def bare(scores):
        return {name: Score(score.value) for name, score in scores.items()}

    rows = tuple(replace(row, metrics=bare(row.metrics)) for row in report.rows)
    comparisons = tuple(replace(c, differences=bare(c.differences), p_value=None) for c in report.comparisons)
    assert str(replace(report, rows=rows, comparisons=comparisons)).count("–") == 1 + 3  # no gain of the reference …
    text = write_verdict(rows[0], report.row(report.reference), comparisons[0], n_test=300, confidence=0.95)
    assert "interval unknown to unknown, McNemar p unknown" in text
    assert reliable_direction(comparisons[0], 0.95) == 0


def test_unknown_system_names_the_choices(report):
    with pytest.raises(UnknownNameError, match="whole pool"):
        report.row("whole pol")


# --- what further selection could gain, and what networks are worth ---------------------------------------------------


def test_team_found_on_test_is_the_naive_greedy_one():
    val, test = world(m=7, n=120)
    report = evaluate(test, team(["m1", "m3", "m4"]), validation=val, bootstrap=100)
    picked, keys = naive_greedy(test, "accuracy", "mean_probability", size=3, rounds=50)
    kept = picked[: 1 + naive_best(keys)]
    row = report.row("team of 3 (test, oracle)")
    assert dict(zip(row.members, row.weights, strict=True)) == pytest.approx(
        {f"m{j}": kept.count(j) / len(kept) for j in set(kept)}
    )
    assert row.role == "oracle"
    assert not [r for r in evaluate(test, team(["m2"]), validation=val, bootstrap=100).rows if "team of" in r.system]


def test_random_team_curve_is_the_mean_over_teams():
    _, test = world(m=3, n=80)
    rng = np.random.default_rng(0)
    curve = random_team_curve(test, np.arange(80), [1, 2, 3], 150, rng)
    for size, value in zip((1, 2, 3), curve, strict=True):
        teams = itertools.combinations(range(3), size)
        scores = [METRICS["calibrated_nll"](test.probabilities[list(t)].mean(axis=0), test.labels) for t in teams]
        assert value == pytest.approx(np.mean(scores), abs=0.02)


def test_equivalent_of_random_teams_themselves_is_their_size():
    val, test = world(m=12, n=400, shared=0.5)
    report = evaluate(test, [team(test.ids[:4]), team(test.ids), team(["m0"])], validation=val, bootstrap=100)
    found = report.deep_equivalent["systems"]
    assert 2.5 < found["greedy (nll)"]["members"] < 6.5
    assert found["greedy (nll) #2"]["members"] == pytest.approx(12, abs=0.1)
    assert found["greedy (nll) #3"]["members"] < 2
    assert report.deep_equivalent["sizes"] == [1, 2, 3, 4, 6, 8, 12]
    assert np.all(np.diff(report.deep_equivalent["curve"]) <= 0)
    assert report.deep_equivalent["draws"] == 10
    assert "Deep-ensemble equivalent: greedy (nll)" in " ".join(str(report).split())


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.6, (1, "<")),
        (0.5, (1, "")),
        (0.45, (2**0.5, "")),
        (0.4, (2, "")),
        (0.35, (8**0.5, "")),
        (0.3, (4, "")),
        (0.2, (4, ">")),
    ],
)
def test_equivalent_size_between_sizes(score, expected):
    size, bound = equivalent_size(score, [1, 2, 4], np.array([0.5, 0.4, 0.3]))
    assert (size, bound) == (pytest.approx(expected[0]), expected[1])


def test_the_whole_pool_is_worth_itself_in_whatever_order_it_is_summed():
    for seed in range(12):
        val, test = world(m=7, n=60, seed=seed)
        found = evaluate(test, team(test.ids), validation=val, bootstrap=100).deep_equivalent
        if np.argmin(found["curve"]) == len(found["curve"]) - 1:  # else a smaller team is as good
            assert found["systems"]["greedy (nll)"] == {"members": 7.0, "bound": ""}


def test_equivalents_of_large_test_sets_take_a_share_of_the_samples(monkeypatch):
    monkeypatch.setattr(equivalent_module, "MOST_VALUES", 400)
    monkeypatch.setattr(equivalent_module, "MOST_WORK", 1)
    val, test = world(m=5, n=200)
    found = evaluate(test, team(["m0", "m1"]), validation=val, bootstrap=100).deep_equivalent
    assert (found["samples"], found["draws"]) == (50, 3)
    assert evaluate(test, team(["m0", "m1"]), validation=val, bootstrap=100).deep_equivalent == found


# --- further splits ---------------------------------------------------------------------------------------------------


def test_shifted_data_are_scored_like_test_data():
    val, test = world()
    _, shifted = world(skill=1.0, seed=5, n=150)
    ensemble = team(["m1", "m3"])
    report = evaluate(test, ensemble, validation=val, bootstrap=200, shifts={"blurred": shifted})
    (shift,) = report.shifts
    assert (shift.name, shift.n_samples, shift.labelled) == ("blurred", 150, True)
    assert [score.system for score in shift.scores] == ["greedy (nll)", BEST, "whole pool"]
    as_test = evaluate(replace(shifted, split="other"), ensemble, validation=val, bootstrap=200)
    for score in shift.scores:
        for name in ("accuracy", "nll", "ece"):
            assert score.metrics[name].value == pytest.approx(as_test.row(score.system).metrics[name].value)
    p = ensemble.probabilities(shifted)
    single = shifted.probabilities[shifted.indices(report.row(BEST).members)[0]]
    gain = METRICS["accuracy"](p, shifted.labels) - METRICS["accuracy"](single, shifted.labels)
    assert shift.scores[0].gain.value == pytest.approx(gain)
    assert shift.scores[0].gain.low <= gain <= shift.scores[0].gain.high
    assert shift.scores[1].gain is None
    assert_sound(report)
    assert "split 'blurred', 150 samples" in str(report)


def test_further_splits_are_put_in_the_order_of_the_pool():
    val, test = world()
    _, shifted = world(skill=1.0, seed=5)
    order = [3, 0, 5, 1, 2, 4]
    arrays = {
        "probabilities": shifted.probabilities[order],
        "labels": shifted.labels,
        "members": np.array([f"m{j}" for j in order]),
    }
    ways = [
        shifted,
        shifted.take([f"m{j}" for j in order]),
        arrays,
        {"logits": shifted.logits, "labels": shifted.labels},
    ]
    reports = [evaluate(test, team(["m1"]), validation=val, bootstrap=100, shifts={"a": way}) for way in ways]
    for report in reports[1:]:
        for ours, theirs in zip(report.shifts[0].scores, reports[0].shifts[0].scores, strict=True):
            assert ours.metrics["nll"].value == pytest.approx(theirs.metrics["nll"].value, rel=1e-6)


@pytest.mark.parametrize("labels", [None, "minus one"])
def test_unknown_classes_are_told_by_doubt(labels):
    val, test = world(n=200)
    rng = np.random.default_rng(0)
    arrays = {"logits": 0.7 * rng.normal(size=(6, 90, 8))} | ({} if labels is None else {"labels": np.full(90, -1)})
    report = evaluate(test, team(["m1", "m2"]), validation=val, bootstrap=100, shifts={"noise": arrays})
    (shift,) = report.shifts
    assert not shift.labelled
    other = Predictions.from_arrays(arrays["logits"], np.zeros(90, dtype=int))
    inside, outside = (team(["m1", "m2"]).probabilities(source) for source in (test, other))
    for kind, doubt in (
        ("confidence", lambda p: -p.max(axis=1)),
        ("entropy", lambda p: scipy.stats.entropy(p, axis=1)),
    ):
        u = scipy.stats.mannwhitneyu(doubt(outside), doubt(inside)).statistic
        assert shift.scores[0].detection[kind] == pytest.approx(u / (90 * 200))
        assert shift.scores[0].detection[kind] > 0.6
    assert shift.scores[0].metrics == {}
    assert_sound(report)
    assert "90 samples without labels" in str(report)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (world(m=5, n=40)[1], r"split 'x': expected outputs of all 6 networks .* without 'm5'"),
        (world(c=5, n=40)[1], "on 5 classes"),
        ({"labels": [0]}, "the array 'logits' or 'probabilities'"),
        ({"logits": np.zeros((6, 4, 8)), "label": [0] * 4}, "'label'"),
        ({"logits": np.zeros((6, 4, 8)), "probabilities": np.full((6, 4, 8), 1 / 8)}, "'logits' or 'probabilities'"),
        ({"logits": np.zeros((5, 4, 8))}, r"shape \(6, samples, 8\)"),
        ({"logits": np.zeros((6, 4))}, r"shape \(6, samples, 8\)"),
        ({"logits": np.zeros((6, 4, 5)), "labels": [0, 1, 6, 7]}, r"shape \(6, samples, 8\).* got \(6, 4, 5\)$"),
        ({"logits": np.zeros((6, 4, 8)), "labels": [0, 0, -1, -1]}, "split 'x': expected labels in 0…7"),
        ({"logits": np.zeros((6, 4, 8)), "labels": [0, 0]}, "split 'x': expected labels of shape"),
        ({"logits": np.zeros((6, 4, 8)), "members": list("abcdef")}, "without 'm0'"),
        ({"logits": np.zeros((6, 4, 8)), "members": ["m0"] * 6}, "a name twice"),
        ("shift.npz", "predictions or arrays by name, got str"),
    ],
)
def test_splits_that_do_not_fit_are_refused(value, says):
    with pytest.raises(InputError, match=says) as caught:
        evaluate(TEST, team(["m0"]), validation=VAL, bootstrap=100, shifts={"x": value})
    assert "\n" not in str(caught.value)


# --- the control ------------------------------------------------------------------------------------------------------


def a_control(test, m=6, seed=9, shared=0.95):
    """Validation and test predictions of networks that err alike, on the same test samples."""
    rng = np.random.default_rng(seed)
    c = test.n_classes

    def networks(y, split):
        common = rng.normal(size=(len(y), c))
        z = 2 * np.eye(c)[y] + shared * common + np.sqrt(1 - shared**2) * rng.normal(size=(m, len(y), c))
        return Predictions.from_arrays(z, y, split=split)

    return networks(rng.integers(0, c, 300), "val"), networks(test.labels, "test")


def test_control_repeats_the_selection_on_the_other_pool():
    val, test = world(m=6, n=500, shared=0.3)
    control = a_control(test)
    ensembles = [select(val, rounds=8, seed=3), select(val, method="top-k", metric="accuracy", size=2)]
    report = evaluate(test, ensembles, validation=val, bootstrap=200, control=control)
    for ensemble, name in zip(ensembles, ("greedy (nll)", "top-k (accuracy)"), strict=True):
        repeated = select(control[0], method=ensemble.method, metric=ensemble.metric, **ensemble.options)
        row = report.row(f"control: {name}")
        assert (row.members, row.weights, row.role) == (repeated.members, repeated.weights, "control")
        p = repeated.probabilities(control[1])
        assert row.metrics["nll"].value == pytest.approx(METRICS["nll"](p, test.labels))
        hits = [q.argmax(axis=1) == test.labels for q in (ensemble.probabilities(test), p)]
        (comparison,) = [c for c in report.controls if c.system == name]
        assert comparison.against == f"control: {name}"
        assert comparison.differences["accuracy"].value == pytest.approx(hits[0].mean() - hits[1].mean())
        assert (comparison.wins, comparison.p_value) == ((hits[0] & ~hits[1]).sum(), mcnemar(*hits).p_value)
    assert_sound(report)
    assert "the same method on the control pool (one policy, other seeds): greedy (nll) +" in " ".join(
        str(report).split()
    )


def test_control_pool_of_one_policy():
    val, test = world(m=4)
    control = a_control(test, m=6)
    single = FakePool(*control, seeds=6)
    report = evaluate(FakePool(val, test, 2), select(val), bootstrap=100, control=single)
    row = report.row("control: greedy (nll)")
    assert set(row.members) <= {"m0", "m1", "m2", "m3"}  # no more networks than the pool has
    assert row.parameters == 100 * row.size
    with pytest.raises(InputError, match="one policy, model and setting with several seeds, got 2"):
        evaluate(FakePool(val, test, 2), select(val), bootstrap=100, control=FakePool(*control, seeds=3))


def test_control_knows_what_its_networks_cost():
    val, test = world(m=4)
    ours, control = FakePool(val, test, 2), FakePool(*a_control(test, m=6), seeds=6)
    ensemble = select(ours, method="cost-aware", cost="parameters", budget=200)
    report = evaluate(ours, ensemble, bootstrap=100, control=control)
    lent = control.data["val"].take(control.data["val"].ids[:4])
    expected = select(lent, method="cost-aware", cost=dict.fromkeys(lent.ids, 100), budget=200)
    assert report.row("control: cost-aware (nll)").members == expected.members


def test_control_asks_for_as_many_resplits(monkeypatch):
    seen = []

    def watched(*args, resplits=0, **options):
        seen.append(resplits)
        return select(*args, resplits=resplits, **options)

    monkeypatch.setattr(control_module, "select", watched)
    val, test = world(m=4)
    ensembles = [select(val, method="auto", candidates=["top-k"], resplits=4), select(val, resplits=5)]
    evaluate(test, ensembles, validation=val, bootstrap=100, control=a_control(test))
    assert seen == [4, 0]


@pytest.mark.parametrize("n", [7, 20, 100, 333])
def test_risk_is_taken_at_coverages_rounded_up_to_whole_samples(n):
    val, test = world(m=2, n=n)
    curve = evaluate(test, team(["m0"]), validation=val, bootstrap=100).risk_coverage["greedy (nll)"]
    expected = sorted({-(-i * n // 20) for i in range(1, 21)})
    assert [round(point["coverage"] * n) for point in curve] == expected


@pytest.mark.parametrize(
    ("control", "ensemble", "says"),
    [
        (world(n=40, seed=4), None, "the test labels of this pool"),
        ((VAL, TEST), None, "got the pool itself"),
        ((VAL,), None, "its validation and test predictions"),
        ((VAL.take(["m0"]), TEST), None, "same control networks"),
        (a_control(TEST), team(["m0"], method="manual"), "method 'manual': leave the control out"),
        (a_control(TEST), team(["m0"], metric="my_score"), "metric 'my_score': leave the control out"),
    ],
)
def test_controls_that_do_not_fit_are_refused(control, ensemble, says):
    with pytest.raises(InputError, match=says):
        evaluate(TEST, ensemble or select(VAL), validation=VAL, bootstrap=100, control=control)


def test_calibrated_and_stacked_ensembles_are_evaluated_as_they_are():
    val, test = world(m=5, n=400)
    ensembles = [select(val, method="stacking", calibrate="both"), select(val, calibrate="both")]
    report = evaluate(test, ensembles, validation=val, bootstrap=100)
    for row, ensemble in zip(report.rows, ensembles, strict=False):
        assert row.metrics["nll"].value == pytest.approx(METRICS["nll"](ensemble.probabilities(test), test.labels))
    assert report.rows[0].rule == "stacking"
    assert_sound(report)


def test_reports_of_before_further_splits_still_load(report):
    old = {
        key: value for key, value in report.to_dict().items() if key not in ("deep_equivalent", "controls", "shifts")
    }
    loaded = Report.from_dict(old)
    assert loaded.shifts == loaded.controls == ()
    assert str(loaded).splitlines()[:5] == str(report).splitlines()[:5]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two pools of the same test labels, an ensemble of the first, and two further splits."""
    val, test = world(m=4, n=60)
    for name, (v, t) in {"pool": (val, test), "seeds": a_control(test, m=5)}.items():
        import_arrays(
            tmp_path / name, val_logits=v.logits, test_logits=t.logits, val_labels=v.labels, test_labels=t.labels
        )
    select(val, calibrate="both").save(tmp_path / "e.json")
    np.savez(tmp_path / "shift.npz", logits=test.logits[::-1], labels=test.labels, members=test.ids[::-1])
    np.savez(tmp_path / "unknown.npz", logits=0 * test.logits)
    np.savez(tmp_path / "objects.npz", logits=test.logits, labels=test.labels.astype(object))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_takes_further_splits_and_a_control(folder, capsys):
    splits = ["--split", "turned=shift.npz", "unknown=unknown.npz"]
    assert main(["evaluate", "pool", "e.json", *splits, "--control", "seeds", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    report = Report.load(folder / "pool" / "reports" / "e" / "report.json")
    assert [shift.name for shift in report.shifts] == ["turned", "unknown"]
    assert report.shifts[0].scores[0].metrics["nll"].value == pytest.approx(report.rows[0].metrics["nll"].value)
    assert report.shifts[1].scores[0].detection["confidence"] > 0.9
    assert report.controls[0].against == "control: greedy (nll)"
    assert printed["controls"] == report.to_dict()["controls"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--split", "shift.npz"], "a split as NAME=FILE.npz, got 'shift.npz'"),
        (["--split", "a=shift.npz", "a=unknown.npz"], "'a' twice"),
        (["--split", "a=e.json"], "an .npz file"),
        (["--split", "a=none.npz"], "none to read"),
        (["--split", "a=objects.npz"], "expected numbers in 'labels.npy', got Python objects"),
        (["--split", "a=."], "an .npz file with arrays by name"),
        (["--control", "nowhere"], "nowhere"),
        (["--control", "pool"], "got the pool itself"),
    ],
)
def test_command_refuses_in_one_line(folder, capsys, arguments, says):
    assert main(["evaluate", "pool", "e.json", *arguments]) != 0
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
