"""Policies judged: metrics against values worked out by hand, rows, ranking, tables, figures, and the command."""

import json
import math
import shlex
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread
from pool_helpers import new_member, new_pool

import lrensemble as lre
from lrensemble.cli.main import main
from lrensemble.cli.policies import METRICS_EPILOG
from lrensemble.errors import InputError, PolicyError, PoolError, UnknownNameError
from lrensemble.policies import FIX, POLICIES, SCALES, TRI, Policy, parse_policy, scale_family
from lrensemble.policies.feedback import FeedbackPolicy
from lrensemble.policies.parameters import RATE, kinds
from lrensemble.pool import member_id
from lrensemble.reporting import plot_judgement
from lrensemble.reporting.policy_figures import JUDGEMENT_FIGURES
from lrensemble.tuning import POLICY_METRICS, judge_policies
from lrensemble.tuning.policy_metrics import Outcome, Repeats, Scaled, Spread, measure, measure_repeats

# Four samples, three classes. Confidences .8 (right, class 0), .6 (right, class 0), .5 (wrong), .9 (right, class 1);
# class 2 has no right sample.
P = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.05, 0.9, 0.05]])
Y = np.array([0, 0, 2, 1])
HISTORY = {
    "step": np.array([5, 10, 15, 20]),
    "train_loss": np.array([1.0, 0.8, 0.6, 0.5]),
    "val_accuracy": np.array([0.4, 0.75, 0.75, 0.7]),
    "seconds": np.array([1.0, 2.5, 3.0, 4.5]),
}
NLL = -(math.log(0.8) + math.log(0.6) + math.log(0.3) + math.log(0.9)) / 4
BY_HAND = {
    "top1": 0.75,
    "top5": None,  # of three classes
    "ac": (0.8 + 0.6 + 0.9) / 3,
    "cd": math.sqrt(((0.8 - 2.3 / 3) ** 2 + (0.6 - 2.3 / 3) ** 2 + (0.9 - 2.3 / 3) ** 2) / 3),
    "cdac": 0.1,  # of class means .7 and .9
    "left_out": 1,
    "best_top1": 0.75,
    "steps_to_best": 10,
    "seconds_to_best": 2.5,
    "samples_to_best": 10 * 8,
    "steps_to_target": 10,
    "seconds_to_target": 2.5,
    "samples_to_target": 10 * 8,
    "steps": 20,
    "seconds": 5.0,
    "samples": 20 * 8,
    "loss_difference": NLL - 0.5,
}


def outcome(**changes):
    values = {"probabilities": P, "labels": Y, "history": HISTORY, "config": {"batch_size": 8}, "seconds": 5.0}
    return Outcome(**{**values, "target": 0.6, **changes})


# --- metrics of a training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [m.name for m in POLICY_METRICS.values() if not m.of_repeats])
def test_each_metric_is_what_one_works_out_by_hand(name):
    found = measure(outcome())[name]
    assert found == (None if BY_HAND[name] is None else pytest.approx(BY_HAND[name], abs=1e-12))


@pytest.mark.parametrize("metric", POLICY_METRICS.values(), ids=lambda m: m.name)
def test_the_table_is_complete(metric):
    assert metric.kind in ("utility", "cost", "robustness")
    assert metric.formula
    assert metric.description
    assert metric.heading
    assert f" {metric.name}" in METRICS_EPILOG  # the help names it


def test_top5_needs_more_than_five_classes():
    p = np.tile([0.3, 0.2, 0.15, 0.13, 0.12, 0.1], (2, 1))
    assert measure(outcome(probabilities=p, labels=np.array([4, 5])))["top5"] == 0.5
    assert measure(outcome(probabilities=p[:, :5] / 0.9, labels=np.array([4, 4])))["top5"] is None


def test_without_a_right_sample_confidence_is_not_known():
    found = measure(outcome(labels=np.array([1, 1, 1, 2])))
    assert found["top1"] == 0
    assert found["left_out"] == 3
    assert found["ac"] is found["cd"] is found["cdac"] is None


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"history": {}, "config": {}, "seconds": 0.0}, "cost"),  # imported predictions
        ({"history": {**HISTORY, "val_accuracy": np.full(4, np.nan)}}, "to_best"),
        ({"target": None}, "to_target"),
        ({"target": 0.76}, "to_target"),  # never reached
        ({"config": {}}, "samples"),
        ({"config": {"label_smoothing": 0.1}}, "loss_difference"),  # losses of two kinds
        ({"history": {**HISTORY, "train_loss": np.array([1, 1, 1, np.nan])}}, "loss_difference"),
    ],
)
def test_what_cannot_be_known_is_none(changes, unknown):
    found = measure(outcome(**changes))
    names = [m.name for m in POLICY_METRICS.values() if not m.of_repeats and (unknown in m.name or unknown == m.kind)]
    assert names
    assert all(found[name] is None for name in names)
    assert all(value is None or math.isfinite(value) for value in found.values())


def test_a_member_of_three_networks_sees_three_times_the_samples_in_the_same_steps():
    one, three = measure(outcome()), measure(outcome(folds=3))
    assert three["samples"] == 3 * one["samples"]
    assert three["steps"] == one["steps"]


# --- metrics of a policy ----------------------------------------------------------------------------------------------


def test_spread_is_of_what_is_known():
    assert Spread.of([None, 0.5]) == Spread(0.5, None, 0.5, 0.5, 1)
    assert Spread.of([None]) is None
    three = Spread.of([1.0, 2.0, 4.5])
    assert (three.mean, three.min, three.max, three.n) == (2.5, 1.0, 4.5, 3)
    assert three.sd == pytest.approx(math.sqrt((1.5**2 + 0.5**2 + 2**2) / 2))


def test_scale_counts_what_diverged_as_guessing():
    scale = {0.1: Scaled(0.6, 2, 0), 1.0: Scaled(0.9, 2, 0), 5.0: Scaled(0.8, 1, 1), 10.0: Scaled(None, 0, 2)}
    found = measure_repeats(Repeats(Spread.of([0.88, 0.92]), scale, 4))
    assert found["scale_drop"] == pytest.approx(0.9 - 1 / 4)
    assert found["seed_spread"] == pytest.approx(0.04 / math.sqrt(2))
    del scale[10.0]
    found = measure_repeats(Repeats(Spread.of([0.9]), scale, 4))
    assert found["scale_drop"] == pytest.approx(0.9 - (0.8 + 1 / 4) / 2)
    assert found["seed_spread"] is None
    assert measure_repeats(Repeats(None, {1.0: scale[1.0]}, 4)) == {"seed_spread": None, "scale_drop": None}


# --- policies of a pool -----------------------------------------------------------------------------------------------

VAL, TEST = np.arange(12) % 3, np.arange(7) % 3


def logits(share, labels, n_classes=3):
    """Logits of a network that is right on the first `share` of the samples, with confidence .8."""
    right = np.arange(len(labels)) < round(share * len(labels))
    said = np.where(right, labels, (labels + 1) % n_classes)
    p = np.full((len(labels), n_classes), 0.2 / (n_classes - 1))
    p[np.arange(len(labels)), said] = 0.8
    return np.log(p).astype(np.float32)


def member(policy, seed, share=0.75, *, reaches=None, diverged=False, name=None, **changes):
    """Member right on `share` of the validation and on all of the test samples, with a history of four epochs."""
    config = {"optimizer": "momentum", "epochs": 4, "batch_size": 8, **changes.pop("config", {})}
    curve = np.linspace(0.1, share if reaches is None else reaches, 4)
    history = {"step": np.arange(1, 5) * 5, "train_loss": np.full(4, 0.1), "val_accuracy": curve}
    history |= {"seconds": np.arange(1.0, 5.0), "val_loss": np.ones(4)}
    history["step_lr"] = parse_policy(policy).resolve(total_steps=20, steps_per_epoch=5).curve(20)
    if diverged:
        changes |= {"status": "diverged", "logits": {}}
        history = {key: values[:2] for key, values in history.items()}
    values = {
        "policy": str(parse_policy(policy).resolve(total_steps=20, steps_per_epoch=5)),
        "asked": str(parse_policy(policy)),
        "config": config,
        "history": history,
        "logits": {"val": logits(share, VAL), "test": logits(1, TEST)},
        "extra": {},
    }
    name = name or member_id(policy, seed, {"policy": policy, "seed": seed, **config})
    return new_member(seed, name, **{**values, **changes})


def pool_of(folder, *members):
    pool = new_pool(folder / "pool", labels={"val": VAL, "test": TEST})
    for one in members:
        pool.add(one)
    return pool


def test_a_row_is_a_policy_over_its_seeds(tmp_path):
    pool = pool_of(tmp_path, *(member("FIX(0.1)", seed, share) for seed, share in enumerate((0.5, 0.75, 1.0))))
    (row,) = judge_policies(pool).rows
    assert (row.policy, row.optimizer, row.epochs, row.seeds) == ("FIX(k0=0.1)", "momentum", 4, (0, 1, 2))
    assert (row.done, row.diverged, row.rate) == (3, 0, 0.1)
    top1 = row.metrics["top1"]
    assert (top1.mean, top1.min, top1.max, top1.n) == (0.75, 0.5, 1.0, 3)
    assert top1.sd == pytest.approx(0.25)
    assert row.metrics["seed_spread"].mean == top1.sd
    assert row.metrics["ac"].mean == pytest.approx(0.8, abs=1e-6)


def test_the_metrics_of_a_pool_are_those_of_its_outcomes(tmp_path):
    pool = pool_of(tmp_path, member("TRI(0, 0.1, 50%)", 0))
    (row,) = judge_policies(pool, target=0.3).rows
    stored = pool.member(row.members[0])
    z = stored.logits["val"].astype(float)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    config = {"batch_size": 8}
    expected = measure(Outcome(p, VAL, stored.history, config, stored.seconds, target=0.3))
    for name, value in expected.items():
        found = row.metrics[name]
        assert (found and found.mean) == (value if value is None else pytest.approx(value, rel=1e-5)), name


def test_what_differs_in_more_than_its_seed_has_a_row_of_its_own(tmp_path):
    pool = pool_of(
        tmp_path,
        member("FIX(0.1)", 0),
        member("FIX(0.1)", 1),
        member("FIX(0.1)", 0, config={"optimizer": "adam"}),
        member("FIX(0.1)", 0, config={"epochs": 8}),
        member("FIX(0.1)", 0, config={"batch_size": 16}),
        member("FIX(0.1)", 0, model="lenet", name="lenet"),
        member("FIX(0.2)", 0),
    )
    judgement = judge_policies(pool)
    assert sorted(row.done for row in judgement.rows) == [1, 1, 1, 1, 1, 2]
    assert judgement.varying == ("batch_size",)


def test_diverged_trainings_are_counted_and_last(tmp_path):
    pool = pool_of(
        tmp_path,
        member("FIX(9)", 0, diverged=True),
        member("FIX(9)", 1, diverged=True),
        member("FIX(1)", 0, 0.5),
        member("FIX(1)", 1, diverged=True),
    )
    partly, wholly = judge_policies(pool).rows
    assert (partly.done, partly.diverged, partly.metrics["top1"].n) == (1, 1, 1)
    assert partly.metrics["top1"].sd is None
    assert (wholly.done, wholly.diverged, wholly.rate) == (0, 2, 9.0)
    assert set(wholly.metrics) == set(POLICY_METRICS)
    assert not any(wholly.metrics.values())
    text = str(judge_policies(pool))
    assert "0 + 2 diverged" in text
    assert "1 + 1 diverged" in text


def test_a_pool_in_which_all_diverged(tmp_path):
    pool = pool_of(tmp_path, member("FIX(9)", 0, diverged=True))
    judgement = judge_policies(pool, target=0.5, sort="steps_to_target")
    assert "0 + 1 diverged" in str(judgement)
    assert "1 diverged" in str(judgement.by_optimizer())
    json.dumps(judgement.to_dict(), allow_nan=False)


@pytest.mark.parametrize("sort", POLICY_METRICS)
def test_rows_are_in_the_order_of_any_metric(tmp_path, sort):
    scaled = [member(str(FIX(0.1 * f)), seed, 0.3 + 0.05 * f + 0.1 * seed) for f in SCALES for seed in (0, 1)]
    pool = pool_of(tmp_path, *scaled, member("FIX(50)", 0, diverged=True))
    rows = judge_policies(pool, target=0.3, sort=sort).rows
    values = [row.metrics[sort].mean for row in rows if row.metrics[sort]]
    assert len(rows) == 6
    assert not rows[-1].metrics[sort]
    assert values == sorted(values, reverse=POLICY_METRICS[sort].higher_is_better)
    assert len(values) == (0 if sort == "top5" else 5)


def test_reaching_the_target_more_often_comes_before_reaching_it_sooner(tmp_path):
    pool = pool_of(
        tmp_path,
        member("FIX(0.1)", 0, reaches=3.0),  # at once, but only this one
        member("FIX(0.1)", 1, reaches=0.4),
        member("FIX(0.2)", 0, reaches=0.6),
        member("FIX(0.2)", 1, reaches=0.6),
        member("FIX(0.3)", 0, reaches=0.7),
        member("FIX(0.3)", 1, diverged=True),
        member("FIX(0.4)", 0, 0.25, reaches=0.2),
        member("FIX(0.5)", 0, 0.50, reaches=0.2),
    )
    judgement = judge_policies(pool, target=0.5, sort="steps_to_target")
    assert [row.policy for row in judgement.rows] == [f"FIX(k0=0.{i})" for i in (2, 1, 3, 5, 4)]
    assert judgement.rows[1].metrics["steps_to_target"].n == 1
    assert "(1/2)" in str(judgement)


def test_test_data_are_asked_for_by_name(tmp_path):
    pool = pool_of(tmp_path, member("FIX(0.1)", 0, 0.5))
    on_val, on_test = judge_policies(pool), judge_policies(pool, split="test")
    assert (on_val.rows[0].metrics["top1"].mean, on_test.rows[0].metrics["top1"].mean) == (0.5, 1.0)
    assert on_test.rows[0].metrics["best_top1"] == on_val.rows[0].metrics["best_top1"]  # of the validation curve
    nll = -math.log(0.8)
    assert on_test.rows[0].metrics["loss_difference"].mean == pytest.approx(nll - 0.1, abs=1e-6)
    assert "not tested by them" in str(on_test)
    assert "not tested by them" not in str(on_val)


def test_snapshots_are_in_no_row(tmp_path):
    parent = member("FIX(0.1)", 0, 0.5, name="parent")
    snapshot = member("FIX(0.1)", 0, 1.0, name="parent-e2", extra={"parent": "parent", "snapshot": "epoch", "epoch": 2})
    judgement = judge_policies(pool_of(tmp_path, parent, snapshot))
    assert judgement.snapshots == 1
    assert judgement.rows[0].members == ("parent",)
    assert "1 snapshot " in str(judgement)


def test_damaged_members_are_left_out_and_counted(tmp_path):
    pool = pool_of(tmp_path, member("FIX(0.1)", 0, name="sound"), member("FIX(0.2)", 0, name="broken"))
    pool.summaries()
    file = pool.path / "members" / "broken.h5"
    content = bytearray(file.read_bytes())
    where = content.find(pool.member("broken").logits["val"].tobytes())
    content[where] ^= 0xFF
    fresh = lre.Pool.open(pool.path)
    fresh.summaries()
    file.write_bytes(content)
    judgement = judge_policies(fresh)
    assert [row.members for row in judgement.rows] == [("sound",)]
    assert judgement.damaged == 1


def test_imported_predictions_are_judged_one_by_one(tmp_path):
    z = {split: np.stack([logits(share, y) for share in (0.5, 1.0)]) for split, y in (("val", VAL), ("test", TEST))}
    pool = lre.import_arrays(
        tmp_path / "p", val_logits=z["val"], test_logits=z["test"], val_labels=VAL, test_labels=TEST, names=["a", "b"]
    )
    judgement = judge_policies(pool, target=0.9)
    assert [(row.policy, row.optimizer, row.epochs, row.rate) for row in judgement.rows] == [
        ("b", None, None, None),
        ("a", None, None, None),
    ]
    known = {name for name, spread in judgement.rows[0].metrics.items() if spread}
    assert known == {"top1", "ac", "cd", "cdac", "left_out"}
    assert "Cost" not in str(judgement)
    assert "nan" not in str(judgement).lower()


def test_folds_of_a_real_pool(tmp_path):
    options = {"model": "mlp(hidden=8)", "policies": ["FIX(0.05)"], "epochs": 2, "train_size": 100, "val_size": 50}
    pool = lre.train_pool(
        "digits", **options, folds=2, batch_size=25, path=tmp_path / "p", jobs=1, progress=False, snapshots="last:1"
    )
    judgement = judge_policies(pool)
    (row,) = judgement.rows
    assert judgement.n_samples == 150
    assert judgement.snapshots == 1
    assert row.metrics["steps"].mean == 6
    assert row.metrics["samples"].mean == 2 * 6 * 25
    assert row.metrics["top1"].mean == pytest.approx(row.metrics["best_top1"].mean, abs=0.3)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split": "train"}, InputError, "'val' or 'test'"),
        ({"target": 90}, InputError, "in .0, 1., such as 0.9, got 90"),
        ({"target": math.nan}, InputError, "target"),
        ({"sort": "steps_to_target"}, InputError, "a target with 'steps_to_target'"),
        ({"sort": "steps_to_bst"}, UnknownNameError, "'steps_to_bst': did you mean 'steps_to_best'"),
    ],
)
def test_refused(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        judge_policies(pool_of(tmp_path, member("FIX(0.1)", 0)), **options)


def test_an_empty_pool_is_refused(tmp_path):
    with pytest.raises(PoolError, match="with members, got an empty one"):
        judge_policies(pool_of(tmp_path))


# --- base-rate scale --------------------------------------------------------------------------------------------------

OTHERS = {
    "then": "TRI(0.01, 0.2, 25%)",
    "policies": ["FIX(0.1)", "Warmup(EXP(0.1, 0.5/run), 2ep)"],
    "boundaries": ["50%"],
}
RATES = {"k0": 0.02, "k1": 0.3, "peak": 0.3, "floor": 0.01, "start": 0.003, "min_lr": 0.0001}
OTHERS |= {"gamma": 0.9, "l": "20%", "p": 0.7, "steps": "10%", "patience": 2, "start": 0}


def example(name):
    """One policy of each name, with rates that all differ from 0."""
    of = kinds(POLICIES[name].policy)
    rates = {key: RATES[key] for key, kind in of.items() if kind is RATE}  # a rate that is not there: add it
    return parse_policy({"policy": name, **{key: OTHERS[key] for key in of if key in OTHERS}, **rates})


def rates_of(policy):
    """Rates of 200 steps; of one that follows the training, with a metric that stops getting better."""
    resolved = policy.resolve(total_steps=200, steps_per_epoch=20)
    if isinstance(resolved, FeedbackPolicy):
        return resolved.replay([1.0] * 10, steps_per_epoch=20)
    return resolved.curve(200)


@pytest.mark.parametrize("factor", SCALES)
@pytest.mark.parametrize("name", POLICIES)
def test_a_scaled_policy_has_the_scaled_rates(name, factor):
    policy = example(name)
    scaled = policy.scaled(factor)
    assert scaled.base_rate == pytest.approx(factor * policy.base_rate, rel=1e-12)
    assert parse_policy(str(scaled)) == scaled
    np.testing.assert_allclose(rates_of(scaled), factor * rates_of(policy), rtol=1e-12, atol=1e-15 * scaled.base_rate)
    run = {"total_steps": 200, "steps_per_epoch": 20}
    assert policy.resolve(**run).scaled(factor) == scaled.resolve(**run)


def test_scaled_values_read_well():
    assert str(FIX(0.05).scaled(0.1)) == "FIX(k0=0.005)"
    assert [str(p) for p in scale_family(TRI(0, 0.06, "25%"), (0.5, 10))] == [
        "TRI(k0=0.0, k1=0.03, l=25%)",
        "TRI(k0=0.0, k1=0.6, l=25%)",
    ]
    assert len(scale_family(FIX(0.1))) == len(SCALES)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf, True, "2"])
def test_factors_that_are_refused(factor):
    with pytest.raises(PolicyError, match="expected a factor > 0"):
        FIX(0.1).scaled(factor)


@pytest.mark.parametrize("factors", [(), (1, 1)])
def test_families_that_are_refused(factors):
    with pytest.raises(PolicyError, match="each once"):
        scale_family(FIX(0.1), factors)


def test_the_family_of_a_policy_is_found_in_the_pool(tmp_path):
    shares = dict(zip(SCALES, (0.25, 0.5, 1.0, 0.75, None), strict=True))
    members = [
        member(str(policy), seed, shares[factor] or 0.5, diverged=shares[factor] is None)
        for factor, policy in zip(SCALES, scale_family(TRI(0.01, 0.3, "50%")), strict=True)
        for seed in (0, 1)
    ]
    other = member("FIX(0.3)", 0)
    foreign = member("TRI(0.1, 3, 50%)", 0, config={"optimizer": "adam"})
    judgement = judge_policies(pool_of(tmp_path, *members, other, foreign))
    best = judgement.rows[0]
    assert {factor: scaled.top1 for factor, scaled in best.scale.items()} == shares
    assert best.metrics["scale_drop"].mean == pytest.approx(1 - 0.25)  # lower than guessing among three
    by_policy = {(row.policy, row.optimizer): row for row in judgement.rows}
    assert set(by_policy["FIX(k0=0.3)", "momentum"].scale) == {1.0}
    assert set(by_policy["TRI(k0=0.1, k1=3.0, l=50%)", "adam"].scale) == {1.0}
    assert set(by_policy["TRI(k0=0.001, k1=0.03, l=50%)", "momentum"].scale) == {1.0, 5.0, 10.0}
    text = str(judgement)
    assert "×0.1" in text
    assert "×10" in text
    assert "diverged" in text


def test_rounding_does_not_hide_a_scale(tmp_path):
    pool = pool_of(tmp_path, member("FIX(0.3)", 0), member(f"FIX({0.1 * 3 * 5!r})", 0))
    assert {round(f, 3) for row in judge_policies(pool).rows for f in row.scale} == {1.0, 5.0}


# --- policies by optimisers -------------------------------------------------------------------------------------------


def test_by_optimizer(tmp_path):
    pool = pool_of(
        tmp_path,
        member("FIX(0.1)", 0, 0.5),
        member("FIX(0.1)", 1, 0.75),
        member("FIX(0.1)", 0, config={"optimizer": "adam"}, diverged=True),
        member("FIX(0.2)", 0, 0.25, config={"optimizer": "adam"}),
        member("FIX(0.2)", 0, 1.0, config={"optimizer": "adam", "epochs": 9}),
    )
    table = judge_policies(pool).by_optimizer("top1")
    assert table.optimizers == ("adam", "momentum")
    found = {(shared["policy"], shared["epochs"]): cells for shared, cells in table.rows}
    assert found["FIX(k0=0.1)", 4]["momentum"].metrics["top1"].mean == 0.625
    assert found["FIX(k0=0.1)", 4]["adam"].diverged == 1
    assert found["FIX(k0=0.2)", 4]["momentum"] is None
    assert found["FIX(k0=0.2)", 9]["adam"].metrics["top1"].mean == 1.0
    lines = str(table).splitlines()
    assert next(line for line in lines if "0.1" in line).split()[-5:] == ["1", "diverged", "62.50", "±", "17.68"]
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert plain["rows"][0]["cells"]["momentum"] is None


def test_by_an_unknown_metric(tmp_path):
    with pytest.raises(UnknownNameError, match="metric of policies"):
        judge_policies(pool_of(tmp_path, member("FIX(0.1)", 0))).by_optimizer("top")


# --- text, JSON, figures, command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two optimisers, two budgets, a family of scales, losses, and a snapshot."""
    members = [
        member(str(policy), seed, min(1, 0.4 + 0.1 * seed + budget / 20), config={"optimizer": opt, "epochs": budget})
        for opt, base in (("momentum", 0.1), ("adam", 0.01))
        for budget in (4, 8)
        for policy in scale_family(FIX(base), (0.1, 1, 10))
        for seed in (0, 1)
    ]
    members += [member("FIX(90)", 0, diverged=True), member("OneCycle(0.1)", 0, 0.9)]
    return pool_of(tmp_path_factory.mktemp("mixed"), *members)


def test_json_has_everything_and_no_nan(mixed):
    plain = json.loads(json.dumps(judge_policies(mixed, target=0.5).to_dict(), allow_nan=False))
    assert set(plain["metrics"]) == set(POLICY_METRICS)
    assert set(plain["rows"][0]["metrics"]) == set(POLICY_METRICS)
    assert plain["rows"][-1]["metrics"]["top1"] is None
    assert plain["rows"][-1]["diverged"] == 1


def test_figures(mixed, tmp_path):
    judgement = judge_policies(mixed, target=0.5)
    (one,) = plot_judgement(mixed, judgement, tmp_path / "all.svg")
    text = " ".join(
        "".join(node.itertext()) for node in ElementTree.parse(one).iter("{http://www.w3.org/2000/svg}text")
    )
    for words in ("Learning rates", "Accuracy over steps", "FIX(k0=1), adam · 4 epochs", "diverged", "target 50 %"):
        assert words in text
    several = plot_judgement(mixed, judgement, tmp_path / "figures")
    assert [file.stem for file in several] == list(JUDGEMENT_FIGURES)
    assert all(imread(file).std() > 0.01 for file in several)


def test_figures_of_what_has_no_history(tmp_path):
    z = np.stack([logits(0.5, VAL)])
    pool = lre.import_arrays(tmp_path / "p", val_logits=z, test_logits=z, val_labels=VAL, test_labels=VAL)
    (file,) = plot_judgement(pool, judge_policies(pool), tmp_path / "f.svg")
    assert file.read_text().count("not known of this pool") == 3


def run(capsys, words, code=0):
    assert main(["policies", *shlex.split(words)]) == code
    said = capsys.readouterr()
    return said.out if code == 0 else said.err


def test_the_command(mixed, tmp_path, capsys):
    text = run(capsys, f"metrics {mixed.path} --target 0.5 --sort steps_to_target")
    for words in ("Utility on 12 samples of 'val'", "Cost", "target 50 %", "Robustness", "steps to target", "×10"):
        assert words in text
    plain = json.loads(run(capsys, f"metrics {mixed.path} --json --split test --out {tmp_path / 'f.png'}"))
    assert plain["split"] == "test"
    assert len(plain["rows"]) == 14
    assert plain["figures"] == [str(tmp_path / "f.png")]
    assert (tmp_path / "f.png").exists()
    table = run(capsys, f"metrics {mixed.path} --by-optimizer ac")
    assert table.startswith("AC %")
    assert "adam" in table
    plain = json.loads(run(capsys, f"metrics {mixed.path} --by-optimizer ac --json"))
    assert plain["optimizers"] == ["adam", "momentum"]


def test_the_command_says_what_is_wrong(mixed, capsys):
    assert "did you mean 'cdac'" in run(capsys, f"metrics {mixed.path} --sort cdacc", code=1)
    assert "such as 0.9" in run(capsys, f"metrics {mixed.path} --target 90", code=1)
    assert "figure format" in run(capsys, f"metrics {mixed.path} --out f.jpg", code=1)
    assert "--split" in run(capsys, f"metrics {mixed.path} --split train", code=2)


def test_help_says_what_test_numbers_are_for(command):
    said = command("policies", "metrics", "--help").stdout
    assert "Do not choose a policy by them" in " ".join(said.split())


def test_scale_command(capsys):
    assert run(capsys, "scale 'FIX(0.05)' --factors 0.1 2").splitlines() == ["FIX(k0=0.005)", "FIX(k0=0.1)"]
    texts = json.loads(run(capsys, "scale 'TRI(0.01, 0.06, 25%)' --json"))
    assert len(texts) == 5
    assert isinstance(parse_policy(texts[0]), Policy)
    assert "factor > 0" in run(capsys, "scale 'FIX(1)' --factors 0", code=1)
