"""Snapshots: where cycles end, what is taken from a training, the mean of weights, and families in selection."""

import copy
import json
import subprocess
import sys
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_helpers import a_pool
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import lrensemble as lre
from lrensemble.errors import InputError, PolicyError, TrainingError
from lrensemble.metrics import METRICS
from lrensemble.policies import POLICIES, parse_policy
from lrensemble.pool import check_name
from lrensemble.predictions import Predictions
from lrensemble.selection import SELECTORS
from lrensemble.selection import families as families_module
from lrensemble.selection.families import FAMILIES
from lrensemble.selection.resplit import stratified_splits
from lrensemble.training import TrainConfig, album, loop
from lrensemble.training.optimizers import build_optimizer
from lrensemble.training.snapshots import Snapshot, check_snapshots, plan_snapshots
from lrensemble.training.training import Run, Samples, Training

QUIET = {"progress": False, "jobs": 1, "engine": "loop"}
CYCLIC = "COSRSW(0.001, 0.1, l=9)"  # 4 steps an epoch: ends within epochs
CALL = {**QUIET, "model": "mlp(hidden=8, dropout=0.2)", "policies": [CYCLIC, "FIX(0.05)"], "epochs": 8}
ALL = ["cycles", "last:2", "swa"]


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=90, test_size=80)


@pytest.fixture(scope="module")
def pools(digits, tmp_path_factory):
    """Return a pool without snapshots, and the same with all of them."""
    folder = tmp_path_factory.mktemp("pools")
    return lre.train_pool(digits, path=folder / "plain", **CALL), lre.train_pool(
        digits, path=folder / "full", snapshots=ALL, **CALL
    )


def assert_same(a, b, name):
    """A member is the same in two pools, bit for bit, seconds apart."""
    one, two = a.member(name), b.member(name)
    assert (one.status, one.policy, one.seed, one.parameters) == (two.status, two.policy, two.seed, two.parameters)
    assert set(one.logits) == set(two.logits)
    assert all(one.logits[split].tobytes() == two.logits[split].tobytes() for split in one.logits)
    for curve in set(one.history) - {"seconds"}:
        np.testing.assert_array_equal(one.history[curve], two.history[curve], err_msg=curve)
    if one.status == "done":
        left, right = a.weights(name), b.weights(name)
        assert all(left[key].tobytes() == right[key].tobytes() for key in {*left, *right})


# --- cycles -----------------------------------------------------------------------------------------------------------

WAVES = {"TRI": 0, "SIN": 0, "UPCOS": 0, "DTRI": 1, "DSIN": 1, "COS": 1, "RSW": None, "SINRSW": None, "COSRSW": None}


def first_at_or_after(time):
    return int(np.ceil(time - 1e-9))


@pytest.mark.parametrize("suffix", ["", "2", "EXP"])
@pytest.mark.parametrize("wave", WAVES)
@pytest.mark.parametrize("length", [1, 5, 12.5, 17, 40, 300])
def test_waves_end_where_their_formula_has_its_minimum(wave, suffix, length):
    more = ", gamma=0.999" if suffix == "EXP" else ""
    policy = parse_policy(f"{wave}{suffix}(k0=0.001, k1=0.1, l={length}{more})").resolve(total_steps=200)
    phase = WAVES[wave]
    period = length if phase is None else 2 * length
    bottoms = np.arange(1, 500) * period - (length if phase == 1 else 0)
    assert list(policy.cycle_ends(200)) == [e for e in map(first_at_or_after, bottoms) if e <= 200]


def test_the_paper_s_cosine_has_half_the_period():
    assert parse_policy("COS(0.001, 0.1, l=40, period=paper)").cycle_ends(100) == (20, 60, 100)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("SGDR(0, 0.1, l=10, mult=2)", [10, 30, 70]),
        ("SGDR(0, 0.1, l=10, mult=1)", list(range(10, 101, 10))),
        ("SGDR(0, 0.1, l=10, mult=1.5)", [10, 25, 48, 82]),  # 10, 25, 47.5, 81.25
        ("Snapshot(0.1)", [20, 40, 60, 80, 100]),
        ("Snapshot(0.1, cycles=3)", [34, 67, 100]),
        ("Warmup(Snapshot(0.1, cycles=3), steps=10)", [40, 70, 100]),
        ("Warmup(FIX(0.1), steps=10)", []),
        ("[FIX(0.1) @ 50 | COSRSW(0, 0.1, 20)]", [70, 90]),
        ("[COSRSW(0, 0.1, 25) @ 50% | FIX(0.1)]", [25, 50]),
        ("[COSRSW(0, 0.1, 20) @ 50% | COSRSW(0, 0.1, 15)]", [20, 40, 65, 80, 95]),
        ("[FIX(0.1) @ 90 | Warmup(TRI(0, 0.1, l=2), steps=3) @ 98 | COSRSW(0, 0.1, 1)]", [97, 99, 100]),
        ("[FIX(0.1) @ 50 | COSRSW(0, 0.1, 20) @ 150 | FIX(0.1)]", [70, 90]),  # the run ends before the last piece
    ],
)
def test_ends_of_restarts_and_of_policies_made_of_others(text, ends):
    policy = parse_policy(text).resolve(total_steps=100, steps_per_epoch=10)
    assert list(policy.cycle_ends(100)) == ends


ARGUMENTS = {
    "POLY": "0.001, 0.1",
    "SGDR": "0.001, 0.1, l=30",
    "Snapshot": "0.1",
    "OneCycle": "0.1",
    "WarmupDecay": "0.1",
    "WarmupCosine": "0.1",
    "Trapezoid": "0.1",
    "WSD": "0.1",
    "FIX": "0.1",
    "STEP": "0.1, 0.5, 50",
    "NSTEP": "0.1, 0.5, [50, 100]",
    "MultiStep": "0.1, 0.5, [50, 100]",
    "EXP": "0.1, 0.99",
    "INV": "0.1, 0.01, 0.75",
    "SIG": "0.1, -0.1, 50",
    "Warmup": "TRI2(0.001, 0.1, 25), 20",
    "Piecewise": "[50], [TRI(0.001, 0.1, 25), SINRSW(0.01, 0.2, 40)]",
    "Composite": "[50], [TRI(0.001, 0.1, 25), SINRSW(0.01, 0.2, 40)]",
}
NOT_CYCLIC = {"POLY", "OneCycle", "WarmupDecay", "WarmupCosine", "Trapezoid", "WSD", "FIX", "STEP", "NSTEP"}
NOT_CYCLIC |= {"MultiStep", "EXP", "INV", "SIG"}
FEEDBACK = {"ReduceOnPlateau": "0.1", "ChangeOnPlateau": "[COSRSW(0, 0.1, 25), FIX(0.01)], start=0"}


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in FEEDBACK])
def test_every_policy_ends_its_cycles_at_its_lowest_rates(name):
    more = ", gamma=0.999" if name.endswith("EXP") and name != "EXP" else ""
    policy = parse_policy(f"{name}({ARGUMENTS.get(name, f'0.001, 0.1, l=25{more}')})")
    policy = policy.resolve(total_steps=200, steps_per_epoch=20)
    ends, rates = policy.cycle_ends(200), policy.curve(202)
    assert bool(ends) == (name not in NOT_CYCLIC)
    assert list(ends) == sorted(set(ends))
    for end in ends:
        lowest = min(rates[end - 1], rates[end])  # of a restart before it, of a wave at it
        assert lowest <= rates[end - 2]
        assert lowest <= rates[end + 1]
        assert rates[end - 1] <= rates[end - 2]


@pytest.mark.parametrize("name", FEEDBACK)
def test_a_policy_that_follows_the_training_has_no_cycles(name):
    policy = parse_policy(f"{name}({FEEDBACK[name]})").resolve(total_steps=200, steps_per_epoch=20)
    assert policy.cycle_ends(200) == ()


def test_a_policy_that_is_not_in_steps_is_refused():
    with pytest.raises(PolicyError, match="resolve"):
        parse_policy("Snapshot(0.1)").cycle_ends(10)


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan(*texts, policy="COSRSW(0, 0.1, 25)", epochs=10, steps=10):
    found = plan_snapshots(texts, member="m", policy=parse_policy(policy), epochs=epochs, steps=steps)
    return [(s.id, s.kind, s.step, s.epoch, s.averaged) for s in found]


def test_what_is_taken_is_known_before_the_training():
    assert plan("cycles") == [
        ("m-t25", "cycle", 25, 2, 0),
        ("m-e5", "cycle", 50, 5, 0),
        ("m-t75", "cycle", 75, 7, 0),  # 100 is the member itself
    ]
    assert plan("last:2") == [("m-e8", "epoch", 80, 8, 0), ("m-e9", "epoch", 90, 9, 0)]
    assert plan("swa") == [("m-swa2", "swa", 100, 10, 2)]
    assert plan("swa:0.55", epochs=20) == [("m-swa11", "swa", 200, 20, 11)]
    assert plan("swa:0.01", "swa:1", "swa:1.0") == [("m-swa2", "swa", 100, 10, 2), ("m-swa10", "swa", 100, 10, 10)]
    assert plan("cycles", policy="FIX(0.1)") == []
    both = plan("last:5", "cycles")
    assert [name for name, *_ in both] == ["m-t25", "m-e5", "m-e6", "m-e7", "m-t75", "m-e8", "m-e9"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cycle", "expected cycles, last:K"),
        ("last", "expected cycles"),
        ("last:0", "expected cycles"),
        ("last:1.5", "expected cycles"),
        ("swa:0", "expected cycles"),
        ("swa:1.01", "expected cycles"),
        ("swa:", "expected cycles"),
        (3, "expected cycles"),
        ("last:10", "below the 10 epochs"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_sentence(text, reason):
    with pytest.raises(InputError, match=reason) as caught:
        plan(*check_snapshots([text]))
    assert "\n" not in str(caught.value)


def test_absurd_plans_are_refused():
    with pytest.raises(InputError, match="2 epochs or more"):
        plan("swa", epochs=1)
    with pytest.raises(InputError, match="at most 100"):
        plan("cycles", policy="RSW(0, 0.1, 2)", steps=100)
    assert check_snapshots("cycles") == ("cycles",)
    assert check_snapshots(["swa", "swa", "last:1"]) == ("swa", "last:1")


@given(st.lists(st.sampled_from(["cycles", "last:1", "last:3", "swa", "swa:0.5"])), st.integers(4, 12))
@settings(deadline=None, max_examples=40)
def test_names_are_unique_and_fit_a_pool(texts, steps):
    found = plan(*texts, epochs=6, steps=steps, policy=f"TRI(0, 0.1, l={steps / 3})")
    names = [name for name, *_ in found]
    assert len(set(names)) == len(names)
    assert all(check_name(name) == name for name in names)
    assert len({(step, averaged) for _, _, step, _, averaged in found}) == len(found)
    assert all(0 < step <= 6 * steps and (step < 6 * steps or averaged) for _, _, step, _, averaged in found)


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_members_are_the_same_with_and_without_snapshots(pools):
    plain, full = pools
    assert [name for name in full.ids if not full.member(name).extra.get("snapshot")] == list(plain.ids)
    for name in plain.ids:
        assert_same(plain, full, name)
    assert full.verify() == []


def test_a_snapshot_is_a_member_with_its_lineage(pools):
    plain, full = pools
    cyclic, constant = plain.ids
    asked = {f"{cyclic}-t9", f"{cyclic}-t18", f"{cyclic}-t27"} | {f"{p}-{s}" for p in plain.ids for s in ("e6", "e7")}
    assert set(full.ids) == {*plain.ids, *asked, f"{cyclic}-swa2", f"{constant}-swa2"}
    for summary in full.summaries():
        member, parent = full.member(summary.id), summary.extra.get("parent")
        if parent is None:
            continue
        whole, step, epoch = full.member(parent), summary.extra["step"], summary.extra["epoch"]
        kind = summary.extra["snapshot"]
        assert kind == {"t": "cycle", "e": "epoch", "s": "swa"}[summary.id.removeprefix(f"{parent}-")[0]]
        assert summary.seconds == 0
        assert 0 < summary.extra["training_seconds"] <= whole.seconds
        assert summary.has_weights
        for field in ("policy", "asked", "model", "config", "seed", "parameters", "flops"):
            assert getattr(member, field) == getattr(whole, field)
        assert step == (4 * epoch if kind != "cycle" else step)
        for curve in ("step", "train_loss", "val_loss", "val_accuracy"):
            np.testing.assert_array_equal(member.history[curve], whole.history[curve][:epoch])
        np.testing.assert_array_equal(member.history["step_lr"], whole.history["step_lr"][:step])
        if kind == "epoch":
            assert summary.val_accuracy == whole.history["val_accuracy"][epoch - 1]
            assert summary.val_nll == pytest.approx(whole.history["val_loss"][epoch - 1], rel=1e-5)


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_a_snapshot_is_what_a_training_that_stops_there_predicts(engine, digits, tmp_path, monkeypatch):
    """The last epoch is cut short by hand: the policy is the same, and so are the draws of every epoch."""
    call = {**CALL, "seeds": 2, "engine": engine, "epochs": 4}
    full = lre.train_pool(digits, path=tmp_path / "full", snapshots=["cycles", "last:1"], **call)
    cyclic = next(name for name in full.ids if name.endswith("-t9")).removesuffix("-t9")
    member = full.member(cyclic)
    config = TrainConfig(**member.config)
    draw = loop.stable_seed(member.seed, member.policy)
    train, test = (Samples(torch.tensor(part.x), torch.tensor(part.y)) for part in (digits.train, digits.test))
    for name, steps in ((f"{cyclic}-t9", 9), (f"{cyclic}-e3", 12)):
        loop.seed_global(loop.stable_seed(draw, "initialisation"), torch.device("cpu"))
        model = lre.build_model(member.model, digits.input_shape, digits.n_classes)
        optimizer = build_optimizer(config, model.parameters())
        left = [steps]
        step = optimizer.step

        def counted(step=step, left=left):
            if left[0]:
                left[0] -= 1
                step()

        monkeypatch.setattr(optimizer, "step", counted)
        short = Training(model, optimizer, parse_policy(member.policy), config, draw, train, test)
        with loop.controlled(torch.device("cpu")):
            loop.train(short)
            logits = loop.predict(model, test.x).numpy()
        same = np.array_equal if engine == "loop" else np.allclose
        assert same(full.member(name).logits["test"], logits, **({} if engine == "loop" else {"atol": 1e-4}))


def test_weights_of_a_snapshot_predict_what_it_says(pools, digits):
    _, full = pools
    for name in full.ids:
        model = lre.build_model(CALL["model"], digits.input_shape, digits.n_classes)
        model.load_state_dict({key: torch.tensor(value) for key, value in full.weights(name).items()})
        logits = loop.predict(model, torch.tensor(digits.test.x)).numpy()
        np.testing.assert_allclose(full.member(name).logits["test"], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jobs", [1, 2])
def test_engines_and_jobs_take_the_same_snapshots(jobs, pools, digits, tmp_path):
    _, full = pools
    stacked = lre.train_pool(digits, path=tmp_path, snapshots=ALL, **{**CALL, "jobs": jobs, "engine": "stacked"})
    assert stacked.ids == full.ids
    plain = lre.train_pool(digits, path=tmp_path / "plain", **{**CALL, "engine": "stacked"})
    for name in plain.ids:
        assert_same(plain, stacked, name)
    for name in full.ids:
        np.testing.assert_allclose(full.member(name).logits["val"], stacked.member(name).logits["val"], atol=1e-3)


def test_without_weights(digits, tmp_path):
    call = {**CALL, "policies": CYCLIC, "epochs": 3, "save_weights": False}
    pool = lre.train_pool(digits, path=tmp_path, snapshots="cycles", **call)
    assert [summary.has_weights for summary in pool.summaries()] == [False, False]


def test_a_snapshot_in_the_first_epoch_has_an_empty_history(digits, tmp_path):
    call = {**CALL, "policies": "COSRSW(0.001, 0.1, l=3)", "epochs": 1}
    pool = lre.train_pool(digits, path=tmp_path, snapshots="cycles", **call)
    (name,) = (name for name in pool.ids if name.endswith("-t3"))
    member = pool.member(name)
    assert len(member.history["val_loss"]) == 0
    assert len(member.history["step_lr"]) == 3
    assert member.extra["training_seconds"] == 0
    assert pool.predictions("val").n_members == 2


# --- interruption -----------------------------------------------------------------------------------------------------


class StopError(Exception):
    pass


def stop_after(count, kinds):
    left = [count]

    def stop(event):
        left[0] -= event.kind in kinds
        if left[0] == 0:
            raise StopError

    return stop


@pytest.mark.parametrize("kinds", [("epoch",), ("snapshot",)])
@pytest.mark.parametrize("after", [1, 4, 7])
@pytest.mark.parametrize("seconds", [0, 1000])
def test_interrupted_and_resumed_equals_uninterrupted(seconds, after, kinds, pools, digits, tmp_path):
    _, full = pools
    call = {**CALL, "path": tmp_path, "snapshots": ALL}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**call, "progress": stop_after(after, kinds)}, checkpoint_seconds=seconds)
    again = lre.train_pool(digits, **call)
    assert again.ids == full.ids
    for name in full.ids:
        assert_same(full, again, name)
    assert not list((tmp_path / "resume").glob("*.pt"))


def test_what_was_reached_is_there_at_once_and_not_taken_twice(digits, tmp_path):
    call = {**CALL, "path": tmp_path, "snapshots": ALL}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**call, "progress": stop_after(3, ("snapshot",))}, checkpoint_seconds=0)
    there = lre.Pool.open(tmp_path)
    files = {name: (tmp_path / "members" / f"{name}.h5").stat().st_mtime_ns for name in there.ids}
    assert len(files) == 3
    events = []
    lre.train_pool(digits, **{**call, "progress": events.append})
    assert {name: (tmp_path / "members" / f"{name}.h5").stat().st_mtime_ns for name in files} == files
    assert len([event for event in events if event.kind == "snapshot"]) == len(lre.Pool.open(tmp_path)) - 3 - 2


@pytest.mark.parametrize("wanted", [["last:3"], ["swa:0.5"], ["cycles"]])
def test_a_state_that_was_saved_without_these_snapshots_is_not_used(wanted, digits, tmp_path):
    call = {**CALL, "policies": CYCLIC}
    whole = lre.train_pool(digits, path=tmp_path / "whole", snapshots=wanted, **call)
    parts = {**call, "path": tmp_path / "parts"}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**parts, "progress": stop_after(7, ("epoch",))}, checkpoint_seconds=0)
    events = []
    pool = lre.train_pool(digits, snapshots=wanted, **{**parts, "progress": events.append})
    assert any("lacks snapshots" in event.text for event in events)
    assert pool.ids == whole.ids
    for name in whole.ids:
        assert_same(whole, pool, name)


def test_a_state_that_has_not_come_to_the_snapshots_is_used(digits, tmp_path):
    call = {**CALL, "policies": "FIX(0.05)", "path": tmp_path}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**call, "progress": stop_after(6, ("epoch",))}, checkpoint_seconds=0)
    events = []
    lre.train_pool(digits, snapshots=["last:1", "swa"], **{**call, "progress": events.append})
    assert [event.epoch for event in events if event.kind == "epoch"] == [7, 8]


def test_snapshots_asked_for_later_leave_the_member_untouched(pools, digits, tmp_path):
    _, full = pools
    call = {**CALL, "path": tmp_path}
    plain = lre.train_pool(digits, **call)
    files = {name: (tmp_path / "members" / f"{name}.h5").stat().st_mtime_ns for name in plain.ids}
    events = []
    pool = lre.train_pool(digits, snapshots=ALL, **{**call, "progress": events.append})
    assert any("2 of 2 members are trained again for their snapshots" in event.text for event in events)
    assert {name: (tmp_path / "members" / f"{name}.h5").stat().st_mtime_ns for name in files} == files
    assert pool.ids == full.ids
    for name in full.ids:
        assert_same(full, pool, name)
    events.clear()
    lre.train_pool(digits, snapshots=ALL, **{**call, "progress": events.append})
    assert [event.kind for event in events] == ["note"]


def test_a_lost_snapshot_is_taken_again(pools, digits, tmp_path):
    _, full = pools
    call = {**CALL, "path": tmp_path, "snapshots": ALL}
    pool = lre.train_pool(digits, **call)
    lost = next(name for name in pool.ids if name.endswith("-t18"))
    (tmp_path / "members" / f"{lost}.h5").unlink()
    assert_same(full, lre.train_pool(digits, **call), lost)


# --- divergence -------------------------------------------------------------------------------------------------------

EXPLODES = "[FIX(0.01) @ 18 | FIX(1e4)]"  # in the fifth of eight epochs


def test_what_was_taken_before_a_divergence_is_kept(digits, tmp_path):
    call = {**CALL, "path": tmp_path, "policies": [EXPLODES, "FIX(0.05)"], "snapshots": ["last:6", "swa"]}
    pool = lre.train_pool(digits, **call)
    status = {summary.id: summary.status for summary in pool.summaries()}
    lost = next(name for name, value in status.items() if value == "diverged")
    epochs = pool.summaries()[pool.ids.index(lost)].steps // 4  # that it finished
    assert 4 <= epochs < 7
    before = [f"{lost}-e{epoch}" for epoch in range(2, epochs + 1)]
    assert sorted(name for name in status if name.startswith(lost)) == [lost, *before]
    assert all(status[name] == "done" for name in before)
    assert pool.predictions("val").families.count(lost) == len(before)
    events = []
    lre.train_pool(digits, **{**call, "progress": events.append})
    assert [event.kind for event in events] == ["note"]  # it is complete


def test_all_diverged_is_an_error_only_where_nothing_is_left(digits, tmp_path):
    call = {**CALL, "policies": EXPLODES}
    with pytest.raises(TrainingError, match="all 1 members diverged"):
        lre.train_pool(digits, path=tmp_path / "a", **call)
    pool = lre.train_pool(digits, path=tmp_path / "b", snapshots="last:6", **call)
    assert pool.predictions("val").n_members >= 3
    found = lre.evaluate(pool, lre.select(pool, method="best"))  # the last network of the training is not there
    assert found.deep_equivalent["sizes"][:3] == [1, 2, 3]


def test_a_training_says_which_snapshots_it_has():
    snapshot = Snapshot("m-e2", "epoch", 20, 2)
    assert snapshot.exists(steps=21, diverged=True)
    assert snapshot.exists(steps=20, diverged=False)
    assert not snapshot.exists(steps=20, diverged=True)
    assert not snapshot.exists(steps=19, diverged=False)


# --- the mean of weights ----------------------------------------------------------------------------------------------


def normalised_net(input_shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, n_classes))


def test_the_mean_of_weights_is_torch_s(digits):
    """`AveragedModel` and `update_bn` on the networks after the last four of eight epochs."""
    config = TrainConfig(epochs=8, batch_size=50, augment="none")
    train, val = (Samples(torch.tensor(part.x), torch.tensor(part.y)) for part in (digits.train, digits.val))
    torch.manual_seed(0)
    model = normalised_net((1, 8, 8), 10)
    training = Training(
        model, build_optimizer(config, model.parameters()), parse_policy("FIX(0.05)"), config, 5, train, val
    )
    theirs, seen = AveragedModel(model), []
    snapshots = (Snapshot("m-swa4", "swa", 32, 8, 4),)
    mine = album.Album(snapshots)

    def on_epoch(training):
        mine.end_epoch(training, val.x)
        if training.run.epoch > 4:
            theirs.update_parameters(training.model)
            seen.append([p.detach().clone() for p in training.model.parameters()])

    training.on_epoch = on_epoch
    with loop.controlled(torch.device("cpu")):
        loop.train(training)
        update_bn([train.x[order] for order in training.order(3).split(50)], theirs)
        expected = loop.predict(theirs, val.x)
    taken = mine.taken["m-swa4"]
    for i, (name, _) in enumerate(model.named_parameters()):
        mean = torch.stack([parameters[i] for parameters in seen]).mean(dim=0)
        torch.testing.assert_close(taken.weights[name], mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(taken.val, expected, atol=5e-2, rtol=5e-2)  # other batches: means of statistics differ
    again = copy.deepcopy(theirs.module)
    batches = training.order(loop.stable_seed(5, "averaged weights")).split(50)
    update_bn([train.x[batch] for batch in batches], again)
    torch.testing.assert_close(taken.val, loop.predict(again, val.x), atol=1e-5, rtol=1e-5)
    moved = (taken.weights["2.running_mean"] - model.state_dict()["2.running_mean"]).abs().max()
    assert moved > 1e-4  # measured anew
    assert taken.weights["2.num_batches_tracked"] == len(batches)


def test_a_mean_survives_the_state(digits):
    model = normalised_net((1, 8, 8), 10)
    whole = album.Mean()
    for _ in range(4):
        with torch.no_grad():
            model[1].weight += torch.rand_like(model[1].weight)
        whole.add(model)
    assert whole.count == 4
    copied = album.Mean(**copy.deepcopy(vars(whole)))
    with torch.no_grad():
        model[1].weight += 1
    whole.add(model)
    copied.add(model)
    assert all(torch.equal(a, b) for a, b in zip(whole.values, copied.values, strict=True))


def test_a_state_of_another_mean_is_refused():
    mine = album.Album((Snapshot("m-swa4", "swa", 80, 8, 4),))
    run = Run(epoch=6)
    run.curves["step"] = [10, 20, 30, 40, 50, 60]
    with pytest.raises(ValueError, match="lacks"):
        mine.restore({}, run, 8)
    mine.restore({"means": {"m-swa4": {"count": 2, "values": []}}}, run, 8)
    assert mine.state()["means"]["m-swa4"]["count"] == 2


def test_batch_norm_and_means_are_resumed_exactly(digits, tmp_path):
    call = {**QUIET, "model": normalised_net, "policies": "FIX(0.05)", "epochs": 8, "snapshots": ["swa", "swa:0.6"]}
    whole = lre.train_pool(digits, path=tmp_path / "whole", **call)
    for after in (4, 7, 8):
        parts = {**call, "path": tmp_path / f"parts{after}"}
        with pytest.raises(StopError):
            lre.train_pool(digits, **{**parts, "progress": stop_after(after, ("epoch",))}, checkpoint_seconds=0)
        pool = lre.train_pool(digits, **parts)
        assert pool.ids == whole.ids
        assert len(pool.ids) == 3
        for name in whole.ids:
            assert_same(whole, pool, name)


# --- cross-fitting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [9, 14])
def test_snapshots_of_cross_fitted_members(after, digits, tmp_path):
    call = {**CALL, "policies": "COSRSW(0.001, 0.1, l=7)", "folds": 3, "epochs": 6, "snapshots": ALL}
    plain = lre.train_pool(digits, path=tmp_path / "plain", **{**call, "snapshots": ()})
    whole = lre.train_pool(digits, path=tmp_path / "whole", **call)
    assert_same(plain, whole, plain.ids[0])
    assert len(whole.ids) == 1 + 2 + 2 + 1
    for name in whole.ids:
        assert whole.member(name).logits["val"].shape == (290, 10)
        assert whole.member(name).extra["folds"] == 3
    end = next(name for name in whole.ids if name.endswith("-e5"))
    history = whole.member(plain.ids[0]).history
    labels = whole.labels("val")
    accuracy = (whole.member(end).logits["val"].argmax(axis=1) == labels).mean()
    assert accuracy == pytest.approx(history["val_accuracy"][4])
    parts = {**call, "path": tmp_path / "parts"}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**parts, "progress": stop_after(after, ("epoch",))}, checkpoint_seconds=0)
    again = lre.train_pool(digits, **parts)
    assert again.ids == whole.ids
    for name in whole.ids:
        assert_same(whole, again, name)


# --- families ---------------------------------------------------------------------------------------------------------


def a_family_pool(seed=0, split="val"):
    """Members m0 … m8: three of one training, two of another (whose last network diverged), the rest alone."""
    families = ("m2", "m2", "m2", "x", "x", "m5", "m6", "m7", "m8")
    p = a_pool(members=9, samples=120, seed=seed, split=split)
    return Predictions.from_arrays(p.logits, p.labels, ids=p.ids, split=split, fingerprint="f" * 64, families=families)


def test_lineage_travels(pools):
    _, full = pools
    p = full.predictions("val")
    assert set(p.families) == {name for name in full.ids if "parent" not in full.member(name).extra}
    assert [p.ids[j] for j in p.independent] == sorted(set(p.families))
    assert p.subset(np.arange(5)).families == p.families
    some = p.ids[3:6]
    assert p.take(some).families == p.families[3:6]
    assert pools[0].predictions("val").families == ()
    assert pools[0].predictions("val").independent == [0, 1]
    with pytest.raises(InputError, match="a family for each"):
        Predictions.from_arrays(p.logits, p.labels, families=["a"])


def value(p, members, weights, metric):
    combined = np.tensordot(np.asarray(weights), p.take(members).probabilities.astype(np.float64), axes=1)
    return METRICS[metric].function(combined, p.labels)


@pytest.mark.parametrize("metric", ["nll", "accuracy", "brier"])
@pytest.mark.parametrize("seed", range(3))
def test_best_and_whole_are_what_brute_force_finds(metric, seed):
    p = a_family_pool(seed)
    sign = 1 if METRICS[metric].higher_is_better else -1
    groups = [["m0", "m1", "m2"], ["m3", "m4"], ["m5"], ["m6"], ["m7"], ["m8"]]

    def key(members, weights):  # accuracy has equals: the lower NLL first
        return round(sign * value(p, members, weights, metric), 12), -value(p, members, weights, "nll")

    best = [max(group, key=lambda name: key([name], [1.0])) for group in groups]
    found = lre.select(p, method="exhaustive", metric=metric, size=3, families="best")
    assert found.members == max(combinations(best, 3), key=lambda team: key(list(team), [1 / 3] * 3))
    assert found.weights == pytest.approx([1 / 3] * 3)
    assert found.options == {"size": 3, "seed": 0, "families": "best"}

    def weights(team):
        return [1 / len(team) / len(group) for group in team for _ in group]

    def members(team):
        return list(chain.from_iterable(team))

    team = max(combinations(groups, 3), key=lambda team: key(members(team), weights(team)))
    found = lre.select(p, method="exhaustive", metric=metric, size=3, families="whole")
    assert list(found.members) == members(team)
    assert found.weights == pytest.approx(weights(team))
    assert found.score == pytest.approx(value(p, members(team), weights(team), metric), rel=1e-7)
    assert "6 trainings" in found.reason


@pytest.mark.parametrize("method", [m for m in SELECTORS if m not in ("auto", "stacking")])
def test_every_method_takes_families(method):
    p = a_family_pool()
    for families in ("best", "whole"):
        found = lre.select(p, method=method, families=families, resplits=5)
        by_name = dict(zip(found.members, found.weights, strict=True))
        together = [[by_name.get(f"m{j}", 0.0) for j in group] for group in ((0, 1, 2), (3, 4))]
        if families == "best":
            assert all(np.count_nonzero(weights) <= 1 for weights in together)
        else:
            assert all(np.ptp(weights) < 1e-12 for weights in together)
        assert sum(found.weights) == pytest.approx(1)
        assert found.resplit["splits"] == 5


def test_without_snapshots_families_change_nothing():
    p = a_pool()
    for families in FAMILIES:
        found = lre.select(p, method="greedy", families=families)
        free = lre.select(p, method="greedy")
        assert (found.members, found.weights, found.score, found.reason) == (
            free.members,
            free.weights,
            free.score,
            free.reason,
        )


def test_the_best_snapshot_is_chosen_within_each_part():
    """A held-out part must not decide which snapshot of a training is the candidate."""
    p = a_family_pool(4)
    found = lre.cross_validate(p, method="best", metric="nll", families="best", resplits=5)
    held_out = []
    for selecting, rest in stratified_splits(p.labels, 5, 5, 0):
        seen, unseen = p.subset(selecting), p.subset(rest)
        best = min(p.ids, key=lambda name: value(seen, [name], [1.0], "nll"))
        held_out.append(value(unseen, [best], [1.0], "nll"))
    np.testing.assert_allclose(found.held_out, held_out)

    seen_parts = []
    original = families_module.ranking

    def spy(scorer, members):
        seen_parts.append(len(members))
        return original(scorer, members)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrensemble.selection.families.ranking", spy)
        auto = lre.select(p, method="auto", families="best", resplits=5, candidates=["top-k", "greedy"])
    assert len(seen_parts) >= 3 * 5  # anew for each candidate on each part
    assert set(auto.members) <= set(p.ids)


@pytest.mark.parametrize("calibrate", ["members", "ensemble", "both"])
@pytest.mark.parametrize("families", ["best", "whole"])
def test_families_and_calibration_go_together(families, calibrate):
    p = a_family_pool(1)
    found = lre.select(p, method="greedy", families=families, calibrate=calibrate, resplits=5)
    assert found.score == pytest.approx(METRICS["nll"].function(found.probabilities(p), p.labels))
    explained = lre.explain(p, found)
    assert {role.member for role in explained.team} == set(found.members)
    assert lre.Ensemble.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_what_families_cannot_do_is_refused():
    p = a_family_pool()
    with pytest.raises(InputError, match="families as one of free, best, whole"):
        lre.select(p, families="each")
    with pytest.raises(InputError, match="use families='best'"):
        lre.select(p, families="whole", rule="majority")
    with pytest.raises(InputError, match="use families='best'"):
        lre.select(a_family_pool(1), method="stacking", families="whole")
    with pytest.raises(InputError, match="size"):
        lre.select(p, size=7, families="best")
    assert lre.select(a_family_pool(1), method="stacking", families="best").stacker is not None
    assert lre.select(p, method="top-k", size=2, rule="majority", families="best").rule == "majority"


def test_costs_of_a_whole_family_are_summed(pools):
    _, full = pools
    team = lre.select(full, method="cost-aware", families="whole", cost="parameters", budget=1e9)
    one = full.summaries()[0].parameters
    with pytest.raises(InputError, match="budget"):
        lre.select(full, method="cost-aware", families="whole", cost="parameters", budget=3.5 * one)
    assert len(team) in (4, 7, 11)


def test_pools_on_disk_are_read_member_by_member(pools):
    _, full = pools
    here, there = full.predictions("val"), full.predictions("val", in_memory=False)
    assert not there.in_memory
    for families in ("best", "whole"):
        one, two = (lre.select(p, method="greedy", families=families) for p in (here, there))
        assert (one.members, one.weights) == (two.members, two.weights)


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_evaluation_is_not_misled_by_snapshots(pools):
    plain, full = pools
    team = lre.select(full, method="greedy")
    of_all, of_members = lre.evaluate(full, team), lre.evaluate(plain, lre.select(plain, method="greedy"))
    singles = [next(row for row in found.rows if row.system == "mean single") for found in (of_all, of_members)]
    assert singles[0].metrics["accuracy"].value == singles[1].metrics["accuracy"].value
    assert singles[0].validation == singles[1].validation
    assert of_all.deep_equivalent["sizes"] == [1, 2]
    assert not any(row.system == "seeds of best policy" for row in of_all.rows)
    assert of_all.n_members == len(full.ids)


# --- command line -----------------------------------------------------------------------------------------------------


def run(*args, cwd):
    return subprocess.run(
        [sys.executable, "-m", "lrensemble", *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_from_the_command_line(tmp_path):
    train = ("--data", "digits", "--train-size", "200", "--model", "mlp(hidden=8)", "--policies", "Snapshot(0.1)")
    made = run("train", "p", *train, "--epochs", 5, "--jobs", 1, "--snapshots", "cycles", "swa", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("snapshot ") == 5
    assert "-swa2" in made.stdout
    chosen = run("select", "p", "--families", "whole", "--resplits", 0, "--json", cwd=tmp_path)
    assert chosen.returncode == 0, chosen.stderr
    found = json.loads(chosen.stdout)
    assert len(found["members"]) == 6
    assert found["options"]["families"] == "whole"
    for args, reason in (
        (("train", "p", *train, "--snapshots", "cycle"), "snapshots: expected cycles"),
        (("select", "p", "--families", "all"), "expected families as one of"),
    ):
        bad = run(*args, cwd=tmp_path)
        assert bad.returncode != 0
        assert reason in bad.stderr
        assert "Traceback" not in bad.stderr
        assert bad.stderr.count("\n") == 1


def test_from_an_experiment_file(tmp_path):
    plan = lre.Experiment.from_dict(
        {"snapshots": ["cycles", "last:1"], "selection": {"families": "best"}, "pool": str(tmp_path)}
    )
    assert plan.snapshots == ("cycles", "last:1")
    assert lre.Experiment.from_dict(plan.to_dict()) == plan
    with pytest.raises(InputError, match="snapshots: expected cycles"):
        lre.Experiment.from_dict({"snapshots": ["never"]})
    with pytest.raises(InputError, match="expected families"):
        lre.Experiment.from_dict({"selection": {"families": "never"}})
    with pytest.raises(InputError, match="use families='best'"):
        lre.Experiment.from_dict({"selection": {"families": "whole", "rule": "majority"}})
