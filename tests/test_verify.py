"""Verification of a policy against a target: verdicts, how they are known, and that they are never wrong."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lrensemble as lre
from lrensemble.cli.main import main
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.training import OPTIMIZERS
from lrensemble.tuning import verify
from lrensemble.tuning.extrapolate import CURVES, chance_of_reaching
from lrensemble.tuning.verifying import STILL, never_changes

SMALL = {"model": "mlp(hidden=16)", "train_size": 200, "val_size": 90, "test_size": 80, "jobs": 1, "progress": False}
FROZEN = "[FIX(0.05) @ 50% | FIX(0)]"


def with_batch_norm(input_shape, n_classes):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(input_shape), 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, n_classes)
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pool"


def whole_curve(policy, where, **settings):
    """Accuracy after each epoch of an uninterrupted training."""
    pool = lre.train_pool("digits", policies=policy, path=where, **SMALL, **settings)
    return pool.member(pool.ids[0])


def test_it_passes_at_the_first_evaluation_that_reaches_the_target(path, tmp_path):
    member = whole_curve("FIX(0.1)", tmp_path / "whole", epochs=12)
    curve = member.history["val_accuracy"]
    target = float(curve[5])
    first = int(np.argmax(curve >= target)) + 1
    verdict = verify("digits", "FIX(0.1)", target=target, epochs=12, path=path, **SMALL)
    (one,) = verdict.seeds
    assert verdict
    assert verdict.passed
    assert one.passed
    assert one.reason == "reached"
    assert (
        (one.epoch, one.steps) == (first, first * verdict.steps_per_epoch) == (first, member.history["step"][first - 1])
    )
    assert one.val_accuracy == tuple(curve[:first])
    assert one.best == max(curve[:first])
    assert one.seconds > 0
    assert [record.epoch for record in lre.Pool.open(path).stopped()] == [first]  # it stopped there


def test_the_training_goes_on_to_the_member_that_it_would_have_been(path, tmp_path):
    member = whole_curve("FIX(0.1)", tmp_path / "whole", epochs=6)
    target = float(member.history["val_accuracy"][1])
    asked = {"target": target, "epochs": 6, "path": path, **SMALL}
    assert not lre.Pool.open(verify("digits", "FIX(0.1)", **asked).pool).ids
    again = verify("digits", "FIX(0.1)", keep_training=True, **asked)
    pool = lre.Pool.open(path)
    assert again.passed
    assert list(pool.ids) == [member.id]
    assert (pool.member(member.id).logits["val"] == member.logits["val"]).all()
    finished = verify("digits", "FIX(0.1)", **asked)  # told from a member that is whole
    assert finished.seeds[0].epoch == again.seeds[0].epoch
    assert finished.seeds[0].seconds < pool.member(member.id).seconds


def test_the_same_question_trains_nothing_again(path):
    asked = {"target": 0.999, "epochs": 3, "path": path, **SMALL}
    first, events = verify("digits", "FIX(0.01)", **asked), []
    assert not first
    assert first.seeds[0].reason == "budget"
    assert first.seeds[0].epoch == 3
    assert verify("digits", "FIX(0.01)", **{**asked, "progress": events.append}) == first
    assert not events


def test_a_budget_in_steps(path):
    fits = verify("digits", "FIX(0.01)", target=1.0, max_steps=11, path=path, **SMALL)
    assert (fits.steps_per_epoch, fits.epochs, fits.budget_epochs, fits.budget_steps) == (4, 2, 2, 8)
    part = verify("digits", "POLY(k0=0, k1=0.1)", target=1.0, max_steps=11, epochs=8, path=path, **SMALL)
    assert (part.epochs, part.budget_epochs) == (8, 2)
    assert "l=32" in part.resolved
    assert {s.reason for s in (*fits.seeds, *part.seeds)} == {"budget"}
    more = verify("digits", "POLY(k0=0, k1=0.1)", target=1.0, max_steps=16, epochs=8, path=path, **SMALL)
    assert more.seeds[0].val_accuracy[:2] == part.seeds[0].val_accuracy  # goes on
    with pytest.raises(InputError, match="max_steps: expected at least the 4 steps"):
        verify("digits", "FIX(0.01)", target=1.0, max_steps=3, path=path, **SMALL)


def test_divergence_is_a_verdict_with_its_reason(path):
    verdict = verify("digits", "FIX(5000)", target=0.5, epochs=9, path=path, early="never", **SMALL)
    (one,) = verdict.seeds
    assert not verdict
    assert one.reason == "diverged"
    assert "diverged in epoch 1" in one.why
    assert one.best is None
    assert one.val_accuracy == (None,)
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["seeds"][0]["best"] is None


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_certain_verdict_is_true_for_every_optimizer(optimizer, path):
    asked = {"target": 1.0, "epochs": 4, "optimizer": optimizer, "path": path, **SMALL}
    for rate in ("0", "1e-121"):
        policy = FROZEN.replace("FIX(0)", f"FIX({rate})")
        early = verify("digits", policy, **asked)
        assert (early.seeds[0].reason, early.seeds[0].epoch) == ("certain", 2)
        late = verify("digits", policy, early="never", **asked)  # the slow twin: train on and see
        curve = late.seeds[0].val_accuracy
        assert late.seeds[0].epoch == 4
        assert len(set(curve[1:])) == 1
        member = lre.Pool.open(path).member(late.seeds[0].id)
        assert len(set(member.history["val_loss"][1:])) == 1  # not one bit of the network's answer changes


def test_no_certain_verdict_where_the_network_changes_at_rate_0(path):
    asked = {**SMALL, "model": with_batch_norm}
    verdict = verify("digits", FROZEN, target=1.0, epochs=6, path=path, **asked)
    assert verdict.seeds[0].reason == "budget"
    losses = lre.Pool.open(path).member(verdict.seeds[0].id).history["val_loss"]
    assert len(set(losses[3:])) > 1  # running means do change


def test_feedback_policies_can_be_verified(path):
    text = "ReduceOnPlateau(k0=0.05, factor=0.5, patience=1ep)"
    verdict = verify("digits", text, target=1.0, epochs=3, path=path, early="likely", **SMALL)
    assert verdict.seeds[0].reason == "budget"
    assert len(verdict.seeds[0].val_accuracy) == 3


@given(st.lists(st.floats(0, STILL), min_size=1, max_size=5), st.floats(0, 1), st.sampled_from([1.0, -1.0]))
@settings(deadline=None, max_examples=50)
def test_rates_below_the_bound_move_no_weight(rates, decay, sign):
    assert never_changes(np.array(rates), decay)
    largest = np.float64(sign * 2.0**250)  # more than any optimiser multiplies the rate with
    for weight in np.array([0, 1e-45, 1.0, -3e38], np.float32):
        assert np.float32(weight - np.float32(max(rates) * largest)) == weight


def test_larger_rates_are_not_called_still():
    assert not never_changes(np.array([0, 1e-38]))
    assert not never_changes(np.array([STILL]), weight_decay=1e9)
    assert not never_changes(np.array([]))


def test_several_seeds_and_the_share_that_has_to_pass(path):
    asked = {"epochs": 8, "seeds": 4, "path": path, "early": "never", **SMALL}
    bests = sorted(one.best for one in verify("digits", "FIX(0.05)", target=1.0, **asked).seeds)
    target = float(np.mean(bests[1:3])) if bests[1] < bests[2] else bests[2]
    passing = sum(best >= target for best in bests)
    assert 0 < passing < 4
    verdict = verify("digits", "FIX(0.05)", target=target, **asked)
    assert not verdict
    assert [one.seed for one in verdict.seeds] == [0, 1, 2, 3]
    assert sum(one.passed for one in verdict.seeds) == passing
    assert verify("digits", "FIX(0.05)", target=target, share=passing / 4, **asked)
    assert f"{passing} of 4 trainings reach it" in str(verdict)


@pytest.mark.parametrize("target", [90, 0, -0.1, 1.2, math.nan, True, "0.9"])
def test_a_target_is_a_share(target, path):
    with pytest.raises(InputError, match="target: expected an accuracy as a share") as caught:
        verify("digits", "FIX(0.1)", target=target, path=path, **SMALL)
    assert ("for 90 % write 0.9" in str(caught.value)) == (target == 90)
    assert not path.exists()


def test_wrong_requests_are_named(path):
    with pytest.raises(InputError, match="expected one policy, got 16"):
        verify("digits", "default", target=0.9, path=path, **SMALL)
    with pytest.raises(UnknownNameError, match="did you mean 'likely'"):
        verify("digits", "FIX(0.1)", target=0.9, early="likly", path=path, **SMALL)
    with pytest.raises(InputError, match="share: expected"):
        verify("digits", "FIX(0.1)", target=0.9, share=0, path=path, **SMALL)
    assert not path.exists()


# --- the estimate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_of_each_family_is_continued(name):
    curve = CURVES[name]
    parameters = np.clip(np.array(curve.start) * [0.9, *(1.0 for _ in curve.start[1:])], curve.low, curve.high)
    noise = np.random.default_rng(0).normal(0, 0.003, 30)
    seen = curve.value(np.arange(1.0, 31.0), parameters)
    ends = float(seen[-1])
    accuracy, constant = (seen + noise)[:12].tolist(), np.ones(30)
    assert chance_of_reaching(accuracy, ends + 0.1, 30, rates=constant) < 0.05
    assert chance_of_reaching(accuracy, max(accuracy) + 0.001, 30, rates=constant) > 0.5


def test_where_nothing_can_be_said():
    accuracy = [0.5, 0.6, 0.65, 0.67, 0.68, 0.685]
    constant = np.ones(20)
    falls = np.where(np.arange(20) < 15, 1.0, 0.1)
    assert chance_of_reaching(accuracy, 0.95, 20, rates=constant) < 0.05
    assert chance_of_reaching(accuracy[:4], 0.95, 20, rates=constant) is None
    assert chance_of_reaching(accuracy, 0.95, 40, rates=np.ones(40)) is None  # less than a quarter
    assert chance_of_reaching(accuracy, 0.95, 20, rates=falls) is None  # accuracy may jump
    assert chance_of_reaching(accuracy, 0.95, 20, rates=None) is None
    assert chance_of_reaching([*accuracy[:5], math.nan], 0.95, 20, rates=constant) is None


def test_a_likely_verdict_is_labelled_as_an_estimate(path):
    asked = {"target": 0.99, "epochs": 40, "path": path, **SMALL}
    verdict = verify("digits", "FIX(0.0001)", early="likely", **asked)
    (one,) = verdict.seeds
    assert not verdict
    assert verdict.estimated
    assert one.reason == "likely"
    assert one.epoch < 40
    assert "estimate" in str(verdict)
    assert verdict.to_dict()["estimated"] is True


# --- the command ----------------------------------------------------------------------------------------------------

FLAGS = ["--data", "digits", "--model", "mlp(hidden=16)", "--train-size", "200", "--jobs", "1", "--quiet"]


def test_exit_codes_of_the_command(path, capsys):
    call = ["verify", "--policy", "FIX(0.1)", "--epochs", "3", "--pool", str(path), *FLAGS]
    assert main([*call, "--target", "0.2"]) == 0
    assert capsys.readouterr().out.startswith("PASS  FIX(k0=0.1) to 20.00 % validation accuracy")
    assert main([*call, "--target", "0.999", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["budget_epochs"], found["seeds"][0]["reason"]) == (False, 3, "budget")
    assert main([*call, "--target", "90"]) == 1
    assert "for 90 % write 0.9" in capsys.readouterr().err
    assert main(["verify", "--target", "0.9"]) == 2
    capsys.readouterr()


def test_the_command_counts_steps_and_says_what_it_does(path, command):
    asked = ["--policy", "FIX(0.1)", "--max-steps", "13", "--target", "1", "--seeds", "2", "--keep-training"]
    done = command("verify", *asked, "--pool", path, *FLAGS[:-1], expect=3)
    assert "within 3 epochs (12 steps)" in done.stdout
    assert "epoch 3/3" in done.stderr
    assert len(lre.Pool.open(path)) == 2
