"""Evaluation: statistics against statsmodels and scipy, systems, verdicts, degenerate pools, JSON."""

import json
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from lrensemble.combine import COMBINERS
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, PoolError, UnknownNameError
from lrensemble.evaluation import Report, Score, bootstrap_means, evaluate, mcnemar, percentile_interval
from lrensemble.evaluation import baselines as baselines_module
from lrensemble.evaluation import statistics as statistics_module
from lrensemble.evaluation.verdict import reliable_direction, write_verdict
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions

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


def test_teams_in_blocks_of_samples(monkeypatch):
    val, test = world()
    whole = evaluate(test, team(["m1", "m3", "m4"]), validation=val, bootstrap=100)
    monkeypatch.setattr(baselines_module, "BLOCK", 200)
    assert evaluate(test, team(["m1", "m3", "m4"]), validation=val, bootstrap=100) == whole


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
        ({"validation": Predictions(TEST.ids, TEST.logits, TEST.labels)}, InputError, "validation predictions again"),
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
    val, test = (Predictions(p.ids, p.logits, p.labels, p.split, mark) for p, mark in ((VAL, "aaaa"), (TEST, "bbbb")))
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
    assert str(replace(report, rows=rows, comparisons=comparisons)).count("–") == 1 + 2  # no gain of the reference …
    text = write_verdict(rows[0], report.row(report.reference), comparisons[0], n_test=300, confidence=0.95)
    assert "interval unknown to unknown, McNemar p unknown" in text
    assert reliable_direction(comparisons[0], 0.95) == 0


def test_unknown_system_names_the_choices(report):
    with pytest.raises(UnknownNameError, match="whole pool"):
        report.row("whole pol")
