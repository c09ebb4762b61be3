"""Feedback policies: against PyTorch and a slow twin, their state, and in every way of training."""

import io
import json
import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_helpers import RUN, policies
from test_stacked import MLP, assert_same, double, train_each, train_together, trainings  # noqa: F401 - a fixture
from test_training import StopError, assert_same_pools
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

import lrensemble as lre
from lrensemble.cli.main import main
from lrensemble.errors import PolicyError
from lrensemble.policies import POLICIES, FeedbackPolicy, TimePolicy, parse_policy, preset, time_policy
from lrensemble.policies.feedback import MONITORS, ChangeOnPlateau, ReduceOnPlateau, Replay
from lrensemble.training import TrainConfig
from lrensemble.training.engines import ENGINES
from lrensemble.training.training import Run, Training
from lrensemble.training.workshop import Workshop

FEEDBACK = [name for name, spec in POLICIES.items() if issubclass(spec.policy, FeedbackPolicy)]
EPOCH = 42  # steps, as RUN is resolved
metrics = st.lists(st.floats(0, 5) | st.sampled_from([1.0, math.nan, math.inf, -math.inf]), max_size=29)
everyone = pytest.mark.parametrize("name", FEEDBACK)
some = settings(max_examples=60, deadline=None)

# policies that act within a few epochs of a small training
QUICK = {
    "reduce": "ReduceOnPlateau(0.2, factor=0.3, patience=0, threshold=0.3, cooldown=1, min_lr=0.01)",
    "reduce by accuracy": "ReduceOnPlateau(0.3, patience=0, threshold=0.2, monitor=val_accuracy, "
    "shape=Warmup(COSRSW(0.5, 1, 3), 3))",
    "change": "ChangeOnPlateau([TRI(0.1, 0.3, 3), FIX(0.05), COS(0, 0.03, 5)], start=1, window=2, threshold=0.4, "
    "cooldown=0, turn=60%)",
    "change by accuracy": "ChangeOnPlateau([FIX(0.2), POLY(0, 0.1, l=10)], start=1, window=2, threshold=0.4, "
    "cooldown=1, monitor=val_accuracy)",
}
quick = pytest.mark.parametrize("policy", QUICK.values(), ids=QUICK.keys())


# --- the rules --------------------------------------------------------------------------------------------------------


def torch_rates(values, lr, **options):
    """Rate of each epoch, as PyTorch's scheduler gives it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, found = ReduceLROnPlateau(optimizer, **options), []
    for value in values:
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step(value)
    return [*found, optimizer.param_groups[0]["lr"]]


@given(
    st.lists(st.floats(-3, 3) | st.sampled_from([0.0, 1.0, 0.9999, math.nan]), max_size=40),
    st.fixed_dictionaries(
        {
            "factor": st.sampled_from([0.1, 0.3, 0.7]),
            "patience": st.integers(0, 4),
            "cooldown": st.integers(0, 3),
            "min_lr": st.sampled_from([0.0, 1e-4, 0.04]),
            "threshold": st.sampled_from([0.0, 1e-4, 0.1]),
            "threshold_mode": st.sampled_from(["rel", "abs"]),
            "eps": st.sampled_from([1e-8, 1e-3]),
        }
    ),
    st.sampled_from(sorted(MONITORS)),
)
@settings(max_examples=100, deadline=None)
def test_reduce_is_pytorchs(values, options, monitor):
    policy = ReduceOnPlateau(0.1, **options, monitor=monitor)
    expected = torch_rates(values, 0.1, **options, mode="max" if MONITORS[monitor] else "min")
    assert policy.replay([*values, 0.0], steps_per_epoch=1).tolist() == expected


@pytest.mark.parametrize("monitor", MONITORS)
def test_the_defaults_are_pytorchs(monitor):
    values = np.repeat(np.random.default_rng(0).uniform(size=9), 13)
    mode = "max" if MONITORS[monitor] else "min"
    expected = torch_rates(values, 0.1, mode=mode)
    assert len(set(expected)) > 5
    assert ReduceOnPlateau(0.1, monitor=monitor).replay([*values, 0], steps_per_epoch=1).tolist() == expected


def test_the_reduced_rate_is_times_the_shape():
    policy = parse_policy("ReduceOnPlateau(0.4, factor=0.5, patience=0, shape=Warmup(FIX(1), 25%))")
    policy = policy.resolve(total_steps=16, steps_per_epoch=4)
    rates = policy.replay([1, 0.5, 0.5, 0.5], steps_per_epoch=4)
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, *[0.4] * 8, *[0.2] * 4])


def changes_slowly(values, *, count, start, window, threshold, cooldown, turn, every, rising):
    """Which policy each epoch has, and since which step; told as a story, with all that happened kept."""
    index, wait, story, known = start, 0, [(start, 0)], []
    for epoch, value in enumerate(values, 1):
        if math.isfinite(value):
            known.append(value)
        elif known:
            known.append(known[-1])
        action = None
        if len(known) > window and wait == 0:
            recent = np.array(known[-window:]) * (1 if rising else -1)
            if np.diff(recent).max() < threshold:
                action = "up" if epoch * every < turn else "down"
        if action is None:
            wait = max(wait - 1, 0)
        else:
            wait = cooldown
            if action == "up" and index > 0:
                index, since = index - 1, epoch * every
            elif action == "down" and index < count - 1:
                index, since = index + 1, epoch * every
            else:
                since = story[-1][1]
        story.append((index, story[-1][1] if action is None else since))
    return story


@given(
    st.lists(st.sampled_from([1.0, 0.9, 0.95, 1.2]) | st.floats(0, 2) | st.just(math.nan), max_size=40),
    st.fixed_dictionaries(
        {
            "start": st.integers(0, 2),
            "window": st.integers(2, 4),
            "threshold": st.sampled_from([0.0, 0.06, 0.5]),
            "cooldown": st.integers(0, 3),
            "turn": st.integers(0, 200),
        }
    ),
    st.sampled_from(sorted(MONITORS)),
)
@settings(max_examples=100, deadline=None)
def test_change_is_its_slow_twin(values, options, monitor):
    inner = [parse_policy(text) for text in ("EXP(1, 0.99)", "TRI(0.1, 0.5, 7)", "POLY(0, 0.05, l=50)")]
    policy = ChangeOnPlateau(inner, **options, monitor=monitor, every=5)
    story = changes_slowly(values, count=3, **options, every=5, rising=MONITORS[monitor])
    expected = [inner[index](np.arange(5 * e, 5 * e + 5) - since) for e, (index, since) in enumerate(story)]
    np.testing.assert_array_equal(policy.replay([*values, 0], steps_per_epoch=5), np.concatenate(expected))


def test_change_goes_up_before_the_turn_and_down_after_it():
    policy = parse_policy("ChangeOnPlateau([FIX(0.3), FIX(0.2), FIX(0.1)], start=1, window=2, cooldown=0)")
    policy = policy.resolve(total_steps=20, steps_per_epoch=2)
    assert (policy.turn, policy.every) == (16, 2)
    falling = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert set(policy.replay(falling, steps_per_epoch=2)) == {0.2}
    assert policy.replay([1] * 10, steps_per_epoch=2)[::2].tolist() == [0.2] * 3 + [0.3] * 5 + [0.2, 0.1]
    # an accuracy that rises is no plateau, a loss that rises is one
    rising = falling[::-1]
    assert policy.replay(rising, steps_per_epoch=2)[::2].tolist() == [0.2] * 3 + [0.3] * 5 + [0.2, 0.1]
    assert set(replace(policy, monitor="val_accuracy").replay(rising, steps_per_epoch=2)) == {0.2}


def test_a_policy_that_is_chosen_again_starts_anew():
    policy = parse_policy("ChangeOnPlateau([RSW(0, 1, 4), FIX(0)], start=0, window=2, cooldown=0, turn=3, every=1)")
    assert policy.replay([1] * 5, steps_per_epoch=1).tolist() == [1, 0.75, 0.5, 0, 0]
    later = replace(policy, turn=4, start=1)
    assert later.replay([1] * 6, steps_per_epoch=1).tolist() == [0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@everyone
def test_a_metric_that_is_not_finite_is_no_improvement(name, value):
    text = {"ReduceOnPlateau": "0.1, patience=1", "ChangeOnPlateau": "[FIX(0.2), FIX(0.1)], start=1, window=2"}[name]
    policy = parse_policy(f"{name}({text})").resolve(total_steps=20, steps_per_epoch=1)
    stuck = policy.replay([0.5, *[0.5] * 9], steps_per_epoch=1)
    assert policy.replay([0.5, *[value] * 9], steps_per_epoch=1).tolist() == stuck.tolist()
    assert len(set(stuck)) > 1
    first = policy.update(policy.init(), value)
    assert json.loads(json.dumps(first.to_dict(), allow_nan=False)) == first.to_dict()


# --- what all of them have --------------------------------------------------------------------------------------------


def after(policy, values):
    state = policy.init()
    for value in values:
        state = policy.update(state, value)
    return state


@everyone
@given(data=st.data(), values=metrics)
@some
def test_rates_stay_within_those_named(name, data, values):
    policy = data.draw(policies(name)).resolve(**RUN)
    if name == "ReduceOnPlateau":
        policy = replace(policy, shape=parse_policy("FIX(1)"))
        low, high = policy.min_lr, policy.k0
    else:
        curves = np.array([inner(np.arange(1300)) for inner in policy.policies])
        low, high = curves.min(), curves.max()
    rates = policy.replay(values, steps_per_epoch=EPOCH)
    assert rates.shape == (EPOCH * len(values),)
    assert ((low <= rates) & (rates <= high)).all()


@everyone
@given(data=st.data(), values=metrics)
@some
def test_the_state_is_plain_and_reads_back(name, data, values):
    policy = data.draw(policies(name)).resolve(**RUN)
    state = after(policy, values)
    again = policy.state(json.loads(json.dumps(state.to_dict(), allow_nan=False)))
    assert again == state
    assert hash(again) == hash(state)
    assert policy.update(again, 0.5) == policy.update(state, 0.5)
    with pytest.raises(FrozenInstanceError):
        setattr(state, fields(state)[0].name, 3)


@everyone
@given(data=st.data(), values=metrics, others=metrics)
@some
def test_the_state_is_a_function_of_the_metrics_alone(name, data, values, others):
    asked = data.draw(policies(name))
    policy, twin = asked.resolve(**RUN), parse_policy(str(asked)).resolve(**RUN)
    before = str(policy)
    states = [policy.init()]
    for i, value in enumerate(values):
        after(policy, others[:3])  # another training of the same policy
        states.append(policy.update(states[i], value))
        policy.rate(states[i], EPOCH * i)
    assert states[-1] == after(twin, values)
    assert str(policy) == before
    # the rates of an epoch follow from what was measured before it
    head = policy.replay(values[:2], steps_per_epoch=EPOCH)
    assert np.array_equal(policy.replay(values, steps_per_epoch=EPOCH)[: len(head)], head)


@everyone
@given(data=st.data(), values=metrics)
@some
def test_rates_do_not_depend_on_order_or_form_of_asking(name, data, values):
    policy = data.draw(policies(name)).resolve(**RUN)
    state, start = after(policy, values), EPOCH * len(values)
    steps = np.arange(start, start + EPOCH)
    rates = policy.rate(state, steps)
    order = np.random.default_rng(0).permutation(EPOCH)
    assert np.array_equal(policy.rate(state, steps[order]), rates[order])
    assert np.array_equal(policy.rate(state, steps.reshape(2, -1)), rates.reshape(2, -1))
    assert [policy.rate(state, int(t)) for t in steps[:9]] == rates[:9].tolist()
    assert type(policy.rate(state, start)) is float
    replay = Replay(policy, tuple(values), EPOCH)
    assert np.array_equal(replay(steps[order]), rates[order])


def test_times_are_resolved_with_the_run():
    policy = parse_policy("ReduceOnPlateau(0.1, patience=10%, cooldown=2ep)").resolve(
        total_steps=600, steps_per_epoch=20
    )
    assert str(policy) == "ReduceOnPlateau(k0=0.1, patience=3, cooldown=2)"
    asked = parse_policy("ChangeOnPlateau([TRI(0.1, 0.3, 10%), FIX(0.01)], 1, window=1%, cooldown=10%)")
    assert str(asked.resolve(total_steps=600, steps_per_epoch=20)) == (
        "ChangeOnPlateau(policies=[TRI(k0=0.1, k1=0.3, l=60), FIX(k0=0.01)], start=1, window=2, cooldown=3, turn=480, "
        "every=20)"
    )


def test_scaling_multiplies_rates_and_not_the_shape():
    policy = parse_policy("ReduceOnPlateau(0.1, min_lr=0.01, shape=Warmup(FIX(1), 5%))").scaled(0.5)
    assert policy == parse_policy("ReduceOnPlateau(0.05, min_lr=0.005, shape=Warmup(FIX(1), 5%))")
    policy = parse_policy("ChangeOnPlateau([FIX(0.2), FIX(0.1)], 0)").scaled(10)
    assert policy == parse_policy("ChangeOnPlateau([FIX(2), FIX(1)], 0)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ReduceOnPlateau(0.1, factor=1)", "ReduceOnPlateau: factor: expected a factor between 0 and 1, got 1"),
        ("ReduceOnPlateau(0.1, min_lr=0.2)", "expected min_lr ≤ k0, got min_lr=0.2 and k0=0.1"),
        ("ReduceOnPlateau(0.1, patience=-1)", "patience: expected 0 or more epochs"),
        ("ReduceOnPlateau(0.1, patience=2.5)", "patience: expected 0 or more epochs"),
        ("ReduceOnPlateau(0.1, threshold=1)", "expected a relative threshold below 1, got 1"),
        ("ReduceOnPlateau(0.1, threshold_mode=both)", "threshold_mode: expected rel or abs, got 'both'"),
        ("ReduceOnPlateau(0.1, monitor=test_loss)", "monitor: expected val_loss or val_accuracy, got 'test_loss'"),
        ("ReduceOnPlateau(0.1, shape=0.5)", "shape: expected a policy, got 0.5"),
        ("ReduceOnPlateau(FIX(0.1))", "k0: expected a learning rate ≥ 0"),
        ("ChangeOnPlateau([FIX(0.1)], 1)", "expected start below the number of policies, got start=1 and 1 policies"),
        ("ChangeOnPlateau([FIX(0.1)], -1)", "start: expected the place of a policy in the list, 0 for the first"),
        ("ChangeOnPlateau([FIX(0.1)], 0, window=1)", "window: expected 2 or more epochs"),
        ("ChangeOnPlateau(FIX(0.1), 0)", "policies: expected a list of policies"),
        (
            "Warmup(ReduceOnPlateau(0.1), 5)",
            "Warmup: then: expected a policy whose rate depends on the step alone, got Red",
        ),
        ("[ReduceOnPlateau(0.1) @ 50% | FIX(0.1)]", "has others in it (shape of ReduceOnPlateau, for a warm-up)"),
        ("ChangeOnPlateau([ReduceOnPlateau(0.1), FIX(0.01)], 0)", "it cannot be part of another policy"),
    ],
)
def test_refused_values(text, message):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "lengths", "message"),
    [
        ("ReduceOnPlateau(20000)", {"total_steps": 10}, "≤ 10000, got 20000 at step 0"),
        ("ReduceOnPlateau(200, shape=FIX(100))", {"total_steps": 10}, "≤ 10000, got 20000 at step 0"),
        ("ReduceOnPlateau(0.1, patience=10%)", {"total_steps": 10}, "expected steps_per_epoch"),
        ("ChangeOnPlateau([FIX(0.1)], 0)", {"total_steps": 10}, "expected steps_per_epoch"),
        ("ChangeOnPlateau([FIX(0.1)], 0, every=3)", {"total_steps": 10, "steps_per_epoch": 2}, "expected every=1ep"),
        (
            "ChangeOnPlateau([FIX(0.1), TRI(0.01, 0.2, 3)], 0)",
            {"total_steps": 10, "steps_per_epoch": 2},
            "expected policies from large to small rates, got highest rates 0.1, 0.2 in a run of 10 steps",
        ),
        (
            "ChangeOnPlateau([FIX(20000), FIX(0.1)], 1)",
            {"total_steps": 10, "steps_per_epoch": 2},
            "≤ 10000, got 20000 at step 0",
        ),
    ],
)
def test_refused_in_a_run(text, lengths, message):
    with pytest.raises(PolicyError, match=message):
        parse_policy(text).resolve(**lengths)


def test_what_does_not_fit_is_refused():
    policy = parse_policy("ChangeOnPlateau([FIX(0.2), FIX(0.1)], 1, window=2, cooldown=0)")
    for use in (policy.init, lambda: policy.scheduler(None), lambda: policy.replay([1], steps_per_epoch=1)):
        with pytest.raises(PolicyError, match=r"expected a policy in steps, got .*: call resolve\(total_steps=…"):
            use()
    policy = policy.resolve(total_steps=20, steps_per_epoch=2)
    with pytest.raises(PolicyError, match=r"expected the state of ChangeOnPlateau \(index, begun, .*, got rate, best"):
        policy.state(parse_policy("ReduceOnPlateau(0.1)").init().to_dict())
    state = after(policy, [1, 1, 1])
    assert state.begun == 6
    with pytest.raises(PolicyError, match="expected steps from 6 on, where this policy was chosen, got 5"):
        policy.rate(state, [7, 5])
    with pytest.raises(
        PolicyError, match=r"depends on the step alone, got ChangeOnPlateau\(.*, which follows the train"
    ):
        time_policy(policy)


# --- as a scheduler ---------------------------------------------------------------------------------------------------


def optimizer_of(lr=123.0, **more):
    parameters = [
        {"params": [torch.nn.Parameter(torch.ones(2))]},
        {"params": [torch.nn.Parameter(torch.ones(2))], **more},
    ]
    return torch.optim.SGD(parameters, lr=lr)


def run(optimizer, scheduler, values, steps):
    rates = []
    for value in values:
        for _ in range(steps):
            assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
            rates.append([float(rate) for rate in scheduler.get_last_lr()])
            optimizer.step()
            scheduler.step()
        scheduler.step(value)
    return np.array(rates)


@quick
def test_a_scheduler_gives_the_rates_of_the_policy(policy):
    policy = parse_policy(policy).resolve(total_steps=60, steps_per_epoch=5)
    values = np.random.default_rng(0).uniform(size=12).tolist()
    optimizer = optimizer_of(lr_scale=0.5)
    scheduler = policy.scheduler(optimizer)
    assert isinstance(scheduler, LRScheduler)
    rates = run(optimizer, scheduler, values, 5)
    expected = policy.replay(values, steps_per_epoch=5)
    assert len(set(expected)) > 2
    np.testing.assert_array_equal(rates, np.stack([expected, 0.5 * expected], axis=1))


def test_a_scheduler_is_stepped_like_pytorchs():
    values = [1, 0.9, 0.9, 0.9, 0.9, torch.tensor(0.5), 0.5, 0.5, 0.5]
    ours, theirs = optimizer_of(), optimizer_of(lr=0.1)
    scheduler = parse_policy("ReduceOnPlateau(0.1, patience=1)").scheduler(ours)
    reference = ReduceLROnPlateau(theirs, patience=1)
    for value in values:
        scheduler.step(value)
        reference.step(value)
        assert scheduler.get_last_lr() == reference.get_last_lr()
        assert [group["lr"] for group in ours.param_groups] == [group["lr"] for group in theirs.param_groups]
    assert scheduler.get_last_lr()[0] < 0.1


def test_a_scheduler_fills_rates_that_are_tensors():
    optimizer = optimizer_of(lr=torch.tensor(1.0, dtype=torch.float64))
    lr = optimizer.param_groups[0]["lr"]
    scheduler = parse_policy("ReduceOnPlateau(0.5, factor=0.5, patience=0)").scheduler(optimizer)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 0.25


@quick
@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_scheduler_goes_on_from_its_state(policy, cut):
    policy = parse_policy(policy).resolve(total_steps=60, steps_per_epoch=5)
    values = np.random.default_rng(1).uniform(size=12).tolist()
    optimizer = optimizer_of()
    scheduler = policy.scheduler(optimizer)
    run(optimizer, scheduler, values[:cut], 5)
    saved = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    fresh = optimizer_of()
    resumed = policy.scheduler(fresh)
    fresh.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["scheduler"])
    assert resumed.policy == policy
    expected = policy.replay(values, steps_per_epoch=5)
    np.testing.assert_array_equal(run(fresh, resumed, values[cut:], 5)[:, 0], expected[5 * cut :])
    other = parse_policy("ReduceOnPlateau(0.25)").scheduler(optimizer_of())
    with pytest.raises(PolicyError, match="expected the state of a scheduler with Red"):
        other.load_state_dict(state["scheduler"])


# --- in training ------------------------------------------------------------------------------------------------------


def bare_training(policy, curves):
    """Return a training that has come as far as its curves."""
    model = torch.nn.Linear(1, 1)
    run = Run(epoch=len(curves["val_loss"]))
    run.curves.update(curves)
    policy = parse_policy(policy).resolve(total_steps=80, steps_per_epoch=4)
    return Training(model, None, policy, TrainConfig(epochs=20, batch_size=2), 0, range(8), None, run=run)


@quick
def test_an_epoch_has_the_rates_that_the_curve_so_far_gives(policy):
    rng = np.random.default_rng(0)
    curves = {name: rng.uniform(size=20).tolist() for name in MONITORS}
    training = bare_training(policy, {name: [] for name in MONITORS})
    expected = training.policy.replay(curves[training.policy.monitor], steps_per_epoch=4).reshape(20, 4)
    for epoch in range(20):
        np.testing.assert_array_equal(training.rates(epoch), expected[epoch])
        for name in MONITORS:
            training.run.curves[name].append(curves[name][epoch])
    for epoch in rng.permutation(20):  # those of epochs that are over
        np.testing.assert_array_equal(training.rates(epoch), expected[epoch])
    fresh = bare_training(policy, curves)
    np.testing.assert_array_equal(fresh.rates(13), expected[13])
    np.testing.assert_array_equal(fresh.rates(19), expected[19])


def test_every_metric_is_taken_in_once(monkeypatch):
    calls = []
    update = ReduceOnPlateau.update
    monkeypatch.setattr(ReduceOnPlateau, "update", lambda *args: calls.append(1) or update(*args))
    training = bare_training(QUICK["reduce"], {name: [1.0] * 20 for name in MONITORS})
    for epoch in (*range(20), 3, 19, 0):
        training.rates(epoch)
    assert len(calls) == 19


LONG = TrainConfig(epochs=9, batch_size=8, augment="none")


@pytest.mark.parametrize("together", [True, False], ids=["one stack", "alone"])
def test_both_loops_use_the_same_rates(together, double):  # noqa: F811
    texts = [str(parse_policy(text).resolve(total_steps=27, steps_per_epoch=3)) for text in QUICK.values()]
    texts = [*texts, "FIX(0.1)"]

    def make():
        return trainings(MLP, LONG, count=len(texts), policies=texts)

    found, expected = make(), train_each(make())
    for stack in [found] if together else [[one] for one in found]:
        train_together(stack)
    assert_same(found, expected, atol=1e-9)
    for training in expected[:-1]:
        curves = training.run.curves
        rates = training.policy.replay(curves[training.policy.monitor], steps_per_epoch=3)
        np.testing.assert_array_equal(curves["step_lr"], rates)
        still = training.policy.replay(
            range(9, 0, -1) if "loss" in training.policy.monitor else range(9), steps_per_epoch=3
        )
        assert not np.array_equal(rates, still)  # it has acted


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=90, test_size=60)


SHOP = {"model": "mlp(hidden=8, dropout=0.2)", "epochs": 8, "batch_size": 50, "jobs": 1, "progress": False}
CALL = {**SHOP, "policies": list(QUICK.values())}
STEPS = 4


@pytest.fixture(scope="module", params=ENGINES)
def whole(request, digits, tmp_path_factory):
    """One engine, and a pool that it trained without interruption."""
    folder = tmp_path_factory.mktemp(request.param) / "pool"
    return request.param, lre.train_pool(digits, path=folder, engine=request.param, **CALL)


def test_history_holds_the_rates_that_follow_from_its_own_curve(whole):
    _, pool = whole
    assert len(pool) == len(QUICK)
    for name in pool.ids:
        member = pool.member(name)
        policy = parse_policy(member.policy)
        rates = policy.replay(member.history[policy.monitor], steps_per_epoch=STEPS)
        np.testing.assert_array_equal(member.history["step_lr"], rates)
        assert parse_policy(member.asked).resolve(total_steps=8 * STEPS, steps_per_epoch=STEPS) == policy


def test_stopped_after_any_epoch_and_gone_on(whole, digits, tmp_path):
    engine, expected = whole
    shop = Workshop.open(digits, path=tmp_path / "pool", engine=engine, **SHOP)
    plan = shop.plan([(parse_policy(text), 0) for text in QUICK.values()])
    for until in (1, 2, 3, 5, 7):
        shop.train(plan, until=until)
        assert [one.epoch for one in shop.look(plan)] == [until] * len(QUICK)
    shop.train(plan)
    assert_same_pools(expected, shop.pool())


@pytest.mark.parametrize("after_epochs", [3, 11, 22])
def test_interrupted_and_resumed(after_epochs, whole, digits, tmp_path):
    engine, expected = whole
    left = [after_epochs]

    def stop(event):
        left[0] -= event.kind == "epoch"
        if left[0] == 0:
            raise StopError

    call = {**CALL, "path": tmp_path / "pool", "engine": engine}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**call, "progress": stop, "checkpoint_seconds": 0})
    assert_same_pools(expected, lre.train_pool(digits, **call))


@pytest.mark.slow
def test_processes_change_nothing(whole, digits, tmp_path):
    engine, expected = whole
    call = {**CALL, "path": tmp_path / "pool", "engine": engine, "jobs": 2, "stack": 2}
    assert_same_pools(expected, lre.train_pool(digits, **call))


@pytest.mark.parametrize("engine", ENGINES)
def test_each_fold_follows_its_own_curve(engine, digits, tmp_path):
    call = {**CALL, "policies": [*QUICK.values(), "FIX(0.1)"], "folds": 2, "engine": engine}
    pool = lre.train_pool(digits, path=tmp_path / "whole", **call)
    differ = 0
    for name in pool.ids:
        member = pool.member(name)
        policy, history = parse_policy(member.policy), member.history
        steps = int(history["step"][0])
        if isinstance(policy, TimePolicy):
            assert not [curve for curve in history if curve.startswith("step_lr_")]
            continue
        rates = [policy.replay(history[f"{policy.monitor}_fold{f}"], steps_per_epoch=steps) for f in (0, 1)]
        np.testing.assert_array_equal(history["step_lr"], np.mean(rates, axis=0))
        if "step_lr_fold0" in history:
            differ += 1
            for f in (0, 1):
                np.testing.assert_array_equal(history[f"step_lr_fold{f}"], rates[f])
        else:
            np.testing.assert_array_equal(*rates)
    assert differ
    assert {summary.epochs for summary in pool.summaries()} == {8}
    assert {summary.steps for summary in pool.summaries()} == {8 * steps}
    shop = Workshop.open(digits, path=tmp_path / "parts", **{**SHOP, "folds": 2, "engine": engine})
    plan = shop.plan([(parse_policy(text), 0) for text in call["policies"]])
    shop.train(plan, until=3)
    shop.train(plan)
    assert_same_pools(pool, shop.pool())


@pytest.mark.parametrize("engine", ENGINES)
def test_snapshots_know_the_rates_that_they_had(engine, digits, tmp_path):
    call = {**CALL, "policies": [*QUICK.values(), "TRI(0.01, 0.1, 5)"], "engine": engine}
    pool = lre.train_pool(digits, path=tmp_path / "pool", snapshots=["cycles", "last:3", "swa"], **call)
    taken = [pool.member(name) for name in pool.ids if "parent" in pool.member(name).extra]
    assert len(taken) == 5 * 4 + 2  # three epochs and a mean each; cycles of TRI alone, one with epoch 5
    for member in taken:
        parent = pool.member(member.extra["parent"])
        step = member.extra["step"]
        np.testing.assert_array_equal(member.history["step_lr"], parent.history["step_lr"][:step])


def test_halving_keeps_and_goes_on(digits, tmp_path):
    call = {**CALL, "engine": "loop"}
    expected = lre.train_pool(digits, path=tmp_path / "whole", **call)
    pool = lre.train_pool(digits, path=tmp_path / "pool", halving={"eta": 2, "first": 2, "least": 1}, **call)
    assert pool.stopped()
    assert_same_pools(expected, pool, pool.ids)
    assert_same_pools(expected, lre.train_pool(digits, path=tmp_path / "pool", **call))


# --- at the command line ----------------------------------------------------------------------------------------------


def test_show_says_what_it_assumes(capsys):
    text = "ReduceOnPlateau(0.1, patience=1, factor=0.5)"
    assert main(["policies", "show", text, "--steps", "8", "--epochs", "8"]) == 0
    out = capsys.readouterr().out
    assert "if val_loss never changes: ReduceOnPlateau(k0=0.1, factor=0.5, patience=1)" in out
    assert main(["policies", "show", text, "--steps", "8", "--epochs", "8", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["assumed"] == "val_loss never changes"
    assert parse_policy(shown["policy"]) == parse_policy(text)
    assert shown["lr"] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125]
    assert main(["policies", "show", "FIX(0.1)", "--json"]) == 0
    assert "assumed" not in json.loads(capsys.readouterr().out)


def test_presets_of_them_are_listed_and_drawn(capsys, tmp_path):
    assert all(isinstance(policy, FeedbackPolicy) for policy in preset("plateau"))
    assert main(["policies", "list"]) == 0
    assert set(FEEDBACK) <= set(capsys.readouterr().out.split())
    assert main(["policies", "plot", "plateau", "FIX(0.1)", "--out", str(tmp_path / "figure.svg")]) == 0
    assert "never changes" in (tmp_path / "figure.svg").read_text(encoding="utf-8")
