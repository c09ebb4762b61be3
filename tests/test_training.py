"""Settings, optimisers, the reference loop, resumption and the trainer."""

import hashlib
import io
import itertools
import math
import os
import pickle
import re
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lrensemble as lre
from lrensemble.data import Split, Splits
from lrensemble.errors import InputError, LREnsembleError, PoolError, TrainingError, UnknownNameError
from lrensemble.metrics import METRICS
from lrensemble.training import OPTIMIZERS, Event, TrainConfig, loop, progress
from lrensemble.training.config import steps_per_epoch, with_overrides
from lrensemble.training.optimizers import build_optimizer
from lrensemble.training.training import Samples, Training
from lrensemble.training.workshop import CHECKPOINT_VARIABLE, default_path

CPU = torch.device("cpu")
QUIET = {"progress": False, "epochs": 3, "jobs": 1}


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=90, test_size=80)


def samples(split):
    return Samples(torch.tensor(split.x), torch.tensor(split.y))


def train(model, optimizer, policy, config, splits, seed):
    """Train a network by the reference loop; return its run."""
    training = Training(model, optimizer, policy, config, seed, samples(splits.train), samples(splits.val))
    loop.train(training)
    return training.run


def assert_same_pools(a, b, ids=None):
    """Members of two pools agree bit for bit, seconds apart."""
    assert (ids or a.ids) == (ids or b.ids)
    for name in ids or a.ids:
        one, two = a.member(name), b.member(name)
        for field in ("policy", "asked", "model", "config", "seed", "status", "parameters", "flops"):
            assert getattr(one, field) == getattr(two, field)
        assert set(one.logits) == set(two.logits)
        assert all((one.logits[split] == two.logits[split]).all() for split in one.logits)
        for curve in set(one.history) - {"seconds"}:
            np.testing.assert_array_equal(one.history[curve], two.history[curve], err_msg=curve)
        if one.status == "done":
            left, right = a.weights(name), b.weights(name)
            assert all(left[key].tobytes() == right[key].tobytes() for key in {*left, *right})


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size", 0),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("momentum", "0.9"),
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
        ("label_smoothing", 1.0),
        ("clip_norm", 0.0),
        ("clip_norm", math.inf),
        ("precision", "float16"),
        ("optimizer", "adamx"),
        ("augment", "spin"),
    ],
)
def test_a_wrong_setting_is_named(field, value):
    with pytest.raises(InputError, match=field) as caught:
        TrainConfig(**{field: value})
    assert "\n" not in str(caught.value)


def test_settings_round_trip_and_overrides():
    config = TrainConfig(epochs=3, clip_norm=2.0)
    assert TrainConfig(**config.to_dict()) == config
    assert with_overrides(config, {"epochs": 4}) == TrainConfig(epochs=4, clip_norm=2.0)
    assert with_overrides(None, {}) == TrainConfig()
    with pytest.raises(UnknownNameError, match="did you mean 'epochs'"):
        with_overrides(None, {"epoch": 4})
    with pytest.raises(InputError, match="TrainConfig"):
        with_overrides({"epochs": 4}, {})


@given(st.integers(1, 300), st.integers(1, 300))
@settings(deadline=None, max_examples=60)
def test_steps_of_an_epoch(n, batch_size):
    sizes = [len(part) for part in torch.arange(n).split(batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 and batch_size > 1:
        sizes.pop()
    assert steps_per_epoch(n, batch_size) == len(sizes)


# --- optimisers -----------------------------------------------------------------------------------------------------

PLAIN = {  # written down independently of the table, with torch's plain loop over parameters
    "sgd": lambda p: torch.optim.SGD(p, lr=1, weight_decay=5e-4, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, weight_decay=5e-4, foreach=False),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, weight_decay=5e-4, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, weight_decay=5e-4, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, weight_decay=5e-4, foreach=False),
    "adagrad": lambda p: torch.optim.Adagrad(p, weight_decay=5e-4, foreach=False),
    "adadelta": lambda p: torch.optim.Adadelta(p, weight_decay=5e-4, foreach=False),
}
RATE = {name: low for name, (low, _) in lre.policies.RATE_RANGES.items()}


def test_every_optimizer_has_an_oracle_and_a_range():
    assert set(PLAIN) == set(OPTIMIZERS) == set(RATE)
    assert all(spec.description for spec in OPTIMIZERS.values())


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "adagrad"])
def test_fused_kernels_are_used_where_torch_has_them(name):
    built = build_optimizer(TrainConfig(optimizer=name), nn.Linear(2, 2).parameters())
    assert built.param_groups[0]["fused"]


def test_frozen_parameters_are_left_alone_and_nesterov_needs_momentum():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    built = build_optimizer(TrainConfig(optimizer="nesterov", momentum=0.0), model.parameters())
    assert len(built.param_groups[0]["params"]) == 1
    assert not built.param_groups[0]["nesterov"]


# --- the loop against first principles --------------------------------------------------------------------------------


def by_hand(model, optimizer, policy, config, data, seed, smoothing=0.0, clip=None):
    """What the loop should do, written anew."""
    t, losses = 0, []
    for epoch in range(config.epochs):
        draw = int(hashlib.sha256(f"{seed} epoch {epoch}".encode()).hexdigest()[:16], 16) // 2
        order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(draw))
        for i in range(0, len(order), config.batch_size):
            x, y = data.x[order[i : i + config.batch_size]], data.y[order[i : i + config.batch_size]]
            optimizer.param_groups[0]["lr"] = policy(t)
            log_p = model(x).log_softmax(dim=1)
            target = nn.functional.one_hot(y, log_p.shape[1]) * (1 - smoothing) + smoothing / log_p.shape[1]
            loss = -(target * log_p).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                norm = sum((p.grad**2).sum() for p in model.parameters()) ** 0.5
                for p in model.parameters():
                    p.grad *= min(1.0, clip / (norm + 1e-6))
            optimizer.step()
            losses.append((loss.item(), len(y)))
            t += 1
    return losses


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("more", [{}, {"label_smoothing": 0.1, "clip_norm": 0.5}], ids=["plain", "smooth+clip"])
def test_the_loop_does_what_a_plain_loop_does(name, more, digits):
    config = TrainConfig(epochs=2, batch_size=32, optimizer=name, augment="none", **more)
    policy = lre.parse_policy(f"TRI(k0={RATE[name]}, k1={3 * RATE[name]}, l=4)")
    data, model, twin = samples(digits.train), small_net(), small_net()
    run = train(model, build_optimizer(config, model.parameters()), policy, config, digits, seed=3)
    losses = by_hand(
        twin, PLAIN[name](twin.parameters()), policy, config, data, 3, config.label_smoothing, config.clip_norm
    )
    for mine, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=2e-4, atol=2e-5)
    last = losses[len(losses) // 2 :]
    assert run.curves["train_loss"][-1] == pytest.approx(sum(v * n for v, n in last) / 200, rel=1e-4)
    np.testing.assert_array_equal(run.curves["step_lr"], policy(np.arange(14)))
    assert run.curves["step"] == [7, 14]


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_the_loop_is_exact_with_the_same_kernels(name, digits):
    config = TrainConfig(epochs=2, batch_size=32, optimizer=name, augment="none")
    policy = lre.parse_policy("COS(k0=0.001, k1=0.01, l=5)")
    data, model, twin = samples(digits.train), small_net(), small_net()
    train(model, build_optimizer(config, model.parameters()), policy, config, digits, seed=1)
    optimizer = build_optimizer(config, twin.parameters())
    for epoch in range(2):
        generator = torch.Generator().manual_seed(loop.stable_seed(1, f"epoch {epoch}"))
        for i, batch in enumerate(torch.randperm(200, generator=generator).split(32)):
            optimizer.param_groups[0]["lr"] = policy(7 * epoch + i)
            optimizer.zero_grad()
            nn.functional.cross_entropy(twin(data.x[batch]), data.y[batch]).backward()
            optimizer.step()
    for mine, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, expected)


def test_validation_is_what_the_metrics_say(digits):
    model = small_net()
    loss, accuracy = loop.evaluate(model, samples(digits.val))
    with torch.no_grad():
        p = model(torch.tensor(digits.val.x)).double().softmax(dim=1).numpy()
    assert loss == pytest.approx(METRICS["nll"].function(p, digits.val.y), rel=1e-6)
    assert accuracy == METRICS["accuracy"].function(p, digits.val.y)


def test_predictions_of_many_batches_are_those_of_one(digits, monkeypatch):
    model = small_net().double()
    x = torch.tensor(digits.val.x).double()
    whole = loop.predict(model, x)
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 7)
    torch.testing.assert_close(loop.predict(model, x), whole)
    assert whole.dtype == torch.float32


def test_global_random_state_and_threads_are_left_alone(digits, tmp_path):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    seen = []

    def watch(event):
        if event.kind == "epoch":
            seen.append(torch.get_num_threads())

    lre.train_pool(digits, policies="FIX(0.01)", model="mlp(hidden=4)", path=tmp_path, **{**QUIET, "progress": watch})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert seen[0] == 1


# --- the trainer ------------------------------------------------------------------------------------------------------


def test_a_pool_holds_what_was_trained(digits, tmp_path):
    pool = lre.train_pool(
        digits,
        model="mlp(hidden=8)",
        policies=["FIX(0.05)", "TRI(k0=0.01, k1=0.1, l=25%)"],
        seeds=2,
        path=tmp_path / "p",
        **QUIET,
    )
    assert len(pool) == 4
    assert pool.problems == []
    for summary in pool.summaries():
        member = pool.member(summary.id)
        policy = lre.parse_policy(member.policy)
        steps = steps_per_epoch(200, 64)
        np.testing.assert_array_equal(member.history["step_lr"], policy(np.arange(3 * steps)))
        np.testing.assert_array_equal(member.history["step"], steps * np.arange(1, 4))
        assert (np.diff(member.history["seconds"]) > 0).all()
        assert member.seconds == member.history["seconds"][-1]
        assert member.history["val_loss"][-1] == pytest.approx(summary.val_nll, rel=1e-5)
        assert member.history["val_accuracy"][-1] == summary.val_accuracy
        assert lre.parse_policy(member.asked).resolve(total_steps=3 * steps) == policy
        assert member.config == TrainConfig(epochs=3, augment=digits.augment).to_dict()
        network = lre.build_model("mlp(hidden=8)", digits.input_shape, digits.n_classes)
        network.load_state_dict({key: torch.tensor(value) for key, value in pool.weights(summary.id).items()})
        logits = loop.predict(network, torch.tensor(digits.test.x)).numpy()
        np.testing.assert_allclose(member.logits["test"], logits, rtol=1e-4, atol=1e-5)
        assert member.parameters == sum(p.numel() for p in network.parameters())
        assert not pool.resume_path(summary.id).exists()
    logits = pool.predictions("val").logits
    assert all((logits[i] != logits[j]).any() for i in range(4) for j in range(i))
    assert pool.verify() == []


def test_what_is_there_is_not_trained_again(digits, tmp_path):
    events = []
    call = {"model": "mlp(hidden=4)", "policies": "FIX(0.05)", "path": tmp_path, **QUIET}
    first = lre.train_pool(digits, **call)
    lre.train_pool(digits, **{**call, "seeds": [0, 7], "progress": events.append})
    assert [event.kind for event in events] == ["note", "note", "epoch", "epoch", "epoch", "member"]
    assert "1 of 2 members are there" in events[0].text
    assert events[1].text.startswith("engine ")
    last = events[-1]
    assert (last.done, last.total, last.epoch, last.epochs, last.status) == (2, 2, 3, 3, "done")
    summary = next(s for s in first.summaries() if s.id == last.member)
    assert (summary.seed, summary.val_accuracy) == (7, last.val_accuracy)
    assert len(lre.train_pool(digits, **{**call, "epochs": 4})) == 3  # another setting is another member


def test_a_state_left_over_by_a_kill_is_removed(digits, tmp_path):
    call = {"model": "mlp(hidden=4)", "policies": "FIX(0.05)", "path": tmp_path, **QUIET}
    pool = lre.train_pool(digits, **call)
    left = pool.resume_path(pool.ids[0])
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"state")
    lre.train_pool(digits, **call)
    assert not left.exists()


def unusual_net(input_shape, n_classes):
    """Weights that are tied, a parameter of integers, and buffers of several types."""
    one, two = nn.Linear(64, 64), nn.Linear(64, 64)
    two.weight = one.weight
    one.register_buffer("mask", torch.ones(3, dtype=torch.bool))
    one.register_buffer("scale", torch.tensor([1.0, 0.1], dtype=torch.bfloat16))
    two.register_parameter("table", nn.Parameter(torch.arange(3), requires_grad=False))
    return nn.Sequential(nn.Flatten(), one, nn.ReLU(), two, nn.Linear(64, n_classes))


def test_unusual_parameters_are_stored_and_load_again(digits, tmp_path):
    pool = lre.train_pool(digits, model=unusual_net, policies="FIX(0.05)", path=tmp_path, **QUIET)
    weights = pool.weights(pool.ids[0])
    np.testing.assert_array_equal(weights["1.weight"], weights["3.weight"])
    assert {key: weights[key].dtype for key in ("1.mask", "1.scale", "3.table")} == {
        "1.mask": bool,
        "1.scale": np.float32,  # NumPy has no bfloat16
        "3.table": np.int64,
    }
    net = unusual_net(digits.input_shape, digits.n_classes)
    net.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    logits = loop.predict(net, torch.from_numpy(digits.test.x)).numpy()
    np.testing.assert_allclose(logits, pool.predictions("test").logits[0], atol=1e-5)
    assert pool.verify() == []


def test_threads_train_as_one_would(tmp_path, digits):
    """Dropout draws from a generator that all threads of a process share."""

    def train(name, seed):
        call = {**QUIET, "epochs": 2, "model": "mlp(hidden=16, dropout=0.5)", "policies": "FIX(0.05)", "seeds": [seed]}
        return lre.train_pool(digits, path=tmp_path / name, **call)

    alone = [train(f"alone{seed}", seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(train, ("a", "b", "c"), range(3)))
    for one, other in zip(alone, together, strict=True):
        assert_same_pools(one, other)


def test_policies_that_come_to_the_same_are_one_member(digits, tmp_path):
    events = []
    lre.train_pool(
        digits,
        model="mlp(hidden=4)",
        policies=["STEP(k0=0.1, gamma=0.5, l=50%)", "STEP(k0=0.1, gamma=0.5, l=6)"],
        path=tmp_path,
        **{**QUIET, "progress": events.append},
    )
    assert "is the same as STEP(k0=0.1, gamma=0.5, l=50%) in 12 steps" in events[0].text
    assert sum(event.kind == "member" for event in events) == 1


def test_jobs_do_not_change_the_pool(digits, tmp_path):
    call = {"model": "lenet", "policies": ["FIX(0.02)", "EXP(k0=0.05, gamma=0.1/run)"], "seeds": 2, "progress": False}
    call |= {"epochs": 2, "augment": "crop+flip", "clip_norm": 1.0}
    images = lre.load_data("digits", train_size=150, val_size=80, test_size=80)
    events = []
    one = lre.train_pool(images, path=tmp_path / "one", jobs=1, **call)
    two = lre.train_pool(images, path=tmp_path / "two", jobs=2, **{**call, "progress": events.append})
    assert_same_pools(one, two)
    kinds = [(event.kind, event.member, event.epoch) for event in events]
    for name in two.ids:
        assert kinds.index(("epoch", name, 1)) < kinds.index(("epoch", name, 2)) < kinds.index(("member", name, 2))
    assert [event.done for event in events if event.kind == "member"] == [1, 2, 3, 4]


class StopError(Exception):
    pass


def interrupted(digits, folder, after, call):
    """Train until `after` epochs of any members have ended, then stop; go on after that."""
    left = [after]

    def stop(event):
        left[0] -= event.kind == "epoch"
        if left[0] == 0:
            raise StopError

    with pytest.raises(StopError):
        lre.train_pool(digits, path=folder, **{**call, "progress": stop, "checkpoint_seconds": 0})
    return lre.train_pool(digits, path=folder, **call)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_interrupted_and_resumed_equals_uninterrupted(name, after, digits, tmp_path):
    call = {
        **QUIET,
        "model": "mlp(hidden=8, dropout=0.3)",
        "policies": f"OneCycle({4 * RATE[name]})",
        "optimizer": name,
    }
    whole = lre.train_pool(digits, path=tmp_path / "whole", **call)
    assert_same_pools(whole, interrupted(digits, tmp_path / "parts", after, call))


def test_resumption_with_augmentation_and_batch_norm(tmp_path):
    images = lre.load_data("digits", train_size=129, val_size=40, test_size=40)
    call = {**QUIET, "model": normalised_net, "policies": "FIX(0.05)", "augment": "crop+flip", "precision": "bf16"}
    whole = lre.train_pool(images, path=tmp_path / "whole", **call)
    parts = interrupted(images, tmp_path / "parts", 2, call)
    assert_same_pools(whole, parts)
    assert whole.member(whole.ids[0]).history["step"][-1] == 6  # 129 = 2·64 + 1: the left-over sample makes no batch


def normalised_net(input_shape, n_classes):
    body = [nn.Conv2d(input_shape[0], 4, 3), nn.Flatten(), nn.Linear(144, 8), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(*body, nn.Dropout(0.2), nn.Linear(8, n_classes))


def test_resumption_goes_on_and_does_not_start_over(digits, tmp_path):
    call = {**QUIET, "model": "mlp(hidden=4)", "policies": "FIX(0.05)", "path": tmp_path}
    epochs = []

    def note(event):
        if event.kind != "note":
            epochs.append(event.epoch)

    def stop(event):
        note(event)
        if len(epochs) == 2:
            raise StopError

    with pytest.raises(StopError):
        lre.train_pool(digits, **{**call, "progress": stop}, checkpoint_seconds=0)
    lre.train_pool(digits, **{**call, "progress": note})
    assert epochs == [1, 2, 3, 3]  # two epochs, the third, and the finished member


def test_the_environment_decides_how_often_the_state_is_saved(digits, tmp_path, monkeypatch):
    call = {**QUIET, "model": "mlp(hidden=4)", "policies": "FIX(0.05)", "path": tmp_path}
    found = []

    def look(event):
        if event.kind != "note":
            found.append(len(list((tmp_path / "resume").glob("*.pt"))))

    lre.train_pool(digits, **{**call, "progress": look})
    monkeypatch.setenv(CHECKPOINT_VARIABLE, "0")
    lre.train_pool(digits, **{**call, "progress": look, "seeds": [1]})
    assert found == [0, 0, 0, 0, 1, 1, 1, 0]
    monkeypatch.setenv(CHECKPOINT_VARIABLE, "often")
    with pytest.raises(InputError, match=r"checkpoint_seconds.*often"):
        lre.train_pool(digits, **call)


class Danger:
    def __reduce__(self):
        return (os.mkdir, ("danger",))


def signed(payload):
    return hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def altered(content, **changes):
    state = torch.load(io.BytesIO(content[65:]), weights_only=True)
    buffer = io.BytesIO()
    torch.save({**state, **changes}, buffer)
    return signed(buffer.getvalue())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "checksum"),
        (lambda content: content[:-900] + bytes([content[-900] ^ 1]) + content[-899:], "checksum"),
        (lambda content: b"", "checksum"),
        (lambda content: signed(pickle.dumps(Danger())), "cannot be used"),
        (lambda content: signed(b"nonsense"), "cannot be used"),
        (lambda content: altered(content, version=99), "expected version 1, found 99"),
        (lambda content: altered(content, member="another"), "expected member"),
        (lambda content: altered(content, model={}), "cannot be used"),
        (lambda content: altered(content, optimizer={"state": {}, "param_groups": []}), "cannot be used"),
        (lambda content: altered(content, run={"epoch": 1, "nothing": 2}), "cannot be used"),
    ],
)
def test_a_state_that_cannot_be_used_counts_as_none(damage, reason, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = {**QUIET, "model": "mlp(hidden=4)", "policies": "FIX(0.05)"}
    whole = lre.train_pool(digits, path="whole", **call)

    def stop(event):
        if event.kind == "epoch":
            raise StopError

    with pytest.raises(StopError):
        lre.train_pool(digits, path="parts", **{**call, "progress": stop}, checkpoint_seconds=0)
    state = lre.Pool.open("parts").resume_path(whole.ids[0])
    state.write_bytes(damage(state.read_bytes()))
    events = []
    parts = lre.train_pool(digits, path="parts", **{**call, "progress": events.append})
    notes = [event.text for event in events if event.kind == "note"]
    assert re.search(rf"{re.escape(str(state))}.*{reason}.*starts over", notes[-1])
    assert_same_pools(whole, parts)
    assert not (tmp_path / "danger").exists()


def test_a_state_is_not_read_through_a_link(digits, tmp_path):
    call = {**QUIET, "model": "mlp(hidden=4)", "policies": "FIX(0.05)"}
    name = lre.train_pool(digits, path=tmp_path / "whole", **call).ids[0]
    (tmp_path / "elsewhere.pt").write_bytes(b"x")
    (tmp_path / "parts" / "resume").mkdir(parents=True)
    (tmp_path / "parts" / "resume" / f"{name}.pt").symlink_to(tmp_path / "elsewhere.pt")
    events = []
    lre.train_pool(digits, path=tmp_path / "parts", **{**call, "progress": events.append})
    assert "link" in [event.text for event in events if event.kind == "note"][-1]
    assert (tmp_path / "elsewhere.pt").exists()


# --- what can happen to a training ------------------------------------------------------------------------------------


def test_divergence_is_recorded_and_the_others_go_on(digits, tmp_path):
    events = []
    pool = lre.train_pool(
        digits,
        model="mlp(hidden=8)",
        policies=["FIX(5000)", "FIX(0.05)"],
        path=tmp_path,
        **{**QUIET, "epochs": 8, "progress": events.append},
    )
    bad = next(pool.member(s.id) for s in pool.summaries() if s.status == "diverged")
    assert lre.parse_policy(bad.policy) == lre.parse_policy("FIX(5000)")
    assert bad.logits == {}
    updates = int(bad.history["step"][-1])
    assert updates < 32
    assert len(bad.history["step_lr"]) == updates
    assert not np.isfinite(bad.history["val_loss"][-1])
    assert len({len(values) for name, values in bad.history.items() if name != "step_lr"}) == 1
    with pytest.raises(PoolError, match="train it with weights"):
        pool.weights(bad.id)
    assert pool.predictions("val").n_members == 1
    assert [e.status for e in events if e.kind == "member"] == ["diverged", "done"]
    assert not list((tmp_path / "resume").glob("[!.]*"))


def test_looking_at_the_loss_seldom_changes_nothing(digits, monkeypatch):
    runs = []
    for steps in (1, 50):
        monkeypatch.setitem(loop.CHECK_STEPS, "cpu", steps)
        config, model = TrainConfig(epochs=5, batch_size=8, augment="none"), small_net()
        model[2] = nn.ReLU()
        policy, optimizer = lre.parse_policy("EXP(k0=1, gamma=2)"), build_optimizer(config, model.parameters())
        runs.append(train(model, optimizer, policy, config, digits, seed=0).curves)
    assert runs[0]["step"] == runs[1]["step"]
    assert runs[0]["step_lr"] == runs[1]["step_lr"]
    assert 0 < len(runs[0]["step_lr"]) == runs[0]["step"][-1] < 125
    assert not np.isfinite([run["train_loss"][-1] for run in runs]).any()


def test_when_all_diverge_it_is_an_error_and_the_pool_stays(digits, tmp_path):
    for _ in range(2):
        with pytest.raises(TrainingError, match="all 1 members diverged"):
            lre.train_pool(digits, policies="FIX(5000)", path=tmp_path, **{**QUIET, "epochs": 8})
    assert [s.status for s in lre.Pool.open(tmp_path).summaries()] == ["diverged"]


class BadInEvaluation(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(64, width)

    def forward(self, x):
        logits = self.layer(x.flatten(1))
        return logits if self.training or len(x) == 2 else logits * math.nan


def test_validation_loss_that_is_not_finite_is_divergence(digits, tmp_path):
    with pytest.raises(TrainingError, match="diverged"):
        lre.train_pool(
            digits,
            model=lambda input_shape, n_classes: BadInEvaluation(n_classes),
            policies="FIX(0.01)",
            path=tmp_path,
            **QUIET,
        )
    pool = lre.Pool.open(tmp_path)
    history = pool.member(pool.ids[0]).history
    assert len(history["step"]) == 1
    assert np.isfinite(history["train_loss"]).all()
    assert np.isnan(history["val_loss"]).all()
    assert np.isnan(history["val_accuracy"]).all()


class Trouble(nn.Module):
    """Does something at the third training batch."""

    def __init__(self, width, trouble):
        super().__init__()
        self.layer = nn.Linear(64, width)
        self.trouble, self.batches = trouble, 0

    def forward(self, x):
        self.batches += self.training
        if self.batches == 3:
            self.trouble()
        return self.layer(x.flatten(1))


def fail():
    raise ValueError("no luck\nsecond line")


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("trouble", "jobs", "message"),
    [
        (fail, 1, r"training failed \(ValueError: no luck\)"),
        (fail, 2, r"training failed \(ValueError: no luck\)"),
        (out_of_memory, 1, "out of memory on cpu: use fewer jobs"),
    ],
)
def test_a_failing_member_is_named(trouble, jobs, message, digits, tmp_path):
    call = {"policies": ["FIX(0.01)", "FIX(0.02)"], "path": tmp_path, **QUIET, "jobs": jobs}
    lre.train_pool(digits, model="mlp(hidden=4)", **call)
    with pytest.raises(TrainingError, match=rf"member 'FIX-s0-[0-9a-f]+': {message}") as caught:
        lre.train_pool(digits, model=lambda input_shape, n_classes: Trouble(n_classes, trouble), **call)
    assert "\n" not in str(caught.value)
    assert len(lre.Pool.open(tmp_path)) == 2


def test_a_training_that_fails_before_the_first_member_can_be_run_again(digits, tmp_path):
    call = {"policies": "FIX(0.01)", "path": tmp_path / "pool", **QUIET}
    with pytest.raises(TrainingError, match="no luck"):
        lre.train_pool(digits, model=lambda input_shape, n_classes: Trouble(n_classes, fail), **call)
    assert [path.name for path in (tmp_path / "pool").iterdir() if path.is_file()] == ["pool.h5"]
    assert len(lre.Pool.open(tmp_path / "pool")) == 0
    assert len(lre.train_pool(digits, model="mlp(hidden=4)", **call)) == 1


def test_a_lost_worker_is_explained(digits, tmp_path):
    call = {"policies": ["FIX(0.01)", "FIX(0.02)"], "path": tmp_path, **QUIET, "jobs": 2}
    with pytest.raises(TrainingError, match=r"a worker process was lost.*again.*fewer jobs"):
        lre.train_pool(digits, model=lambda input_shape, n_classes: Trouble(n_classes, kill), **call)
    assert len(lre.train_pool(digits, model="mlp(hidden=4)", **call)) == 2  # and new workers can be started


def test_an_error_in_the_callers_function_reaches_the_caller(digits, tmp_path):
    def stop(event):
        raise StopError

    with pytest.raises(StopError):
        lre.train_pool(
            digits,
            model="mlp(hidden=4)",
            policies=["FIX(0.01)", "FIX(0.02)"],
            path=tmp_path,
            epochs=3,
            jobs=2,
            progress=stop,
        )


def test_a_network_that_changed_since_it_was_checked_is_refused(digits, tmp_path):
    widths = iter([4, 4, 5, 5])

    def changing(input_shape, n_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, w := next(widths)), nn.Linear(w, n_classes))

    with pytest.raises(TrainingError, match="another network"):
        lre.train_pool(digits, model=changing, policies=["FIX(0.01)", "FIX(0.02)"], path=tmp_path, **QUIET)


def viewing(input_shape, n_classes):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(108, n_classes)

        def forward(self, x):
            return self.fc(self.conv(x).view(len(x), -1))

    return Net()


def test_a_network_that_views_images_trains_too(tmp_path):
    images = lre.load_data("digits", train_size=100, val_size=40, test_size=40)
    pool = lre.train_pool(images, model=viewing, policies="FIX(0.05)", path=tmp_path, **QUIET)
    assert pool.predictions("val").logits.shape == (1, 40, 10)


def test_half_precision_trains_and_predicts_in_full(digits, tmp_path):
    call = {"model": "mlp(hidden=16)", "policies": "FIX(0.05)", **QUIET, "epochs": 5}
    full = lre.train_pool(digits, path=tmp_path / "full", **call).predictions("val")
    half = lre.train_pool(digits, path=tmp_path / "half", precision="bf16", **call).predictions("val")
    assert (full.logits != half.logits).any()
    np.testing.assert_allclose(half.probabilities, full.probabilities, atol=0.15)


def test_read_only_arrays_and_small_sets(tmp_path):
    rng = np.random.default_rng(0)
    parts = {}
    for name, n in (("train", 3), ("val", 4), ("test", 2)):
        x, y = rng.normal(size=(n, 5)).astype("f4"), np.arange(n) % 2
        x.flags.writeable = False
        parts[name] = Split(x, y)
    tiny = Splits("tiny set!", **parts, class_names=("a", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = lre.train_pool(
            tiny, model="mlp(hidden=4)", policies="FIX(0.05)", path=tmp_path, batch_size=2, save_weights=False, **QUIET
        )
    assert pool.member(pool.ids[0]).history["step"][-1] == 3  # 3 = 2 + 1
    assert default_path(tiny, "mlp(hidden=4)").as_posix() == "checkpoints/tiny-set-mlp-hidden-4"
    with pytest.raises(PoolError, match="train it with weights"):
        pool.weights(pool.ids[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"epochs": 0}, "epochs"),
        ({"jobs": 0}, "jobs: expected a whole number ≥ 1, got 0"),
        ({"jobs": "all"}, "jobs"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": "3"}, "seeds"),
        ({"seeds": [0.5]}, "seeds"),
        ({"device": "cuda:99"}, "device.*cuda:99"),
        ({"device": "meta"}, "device.*meta"),
        ({"device": "toaster"}, "device.*toaster"),
        ({"progress": "yes"}, "progress"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds"),
        ({"model": "lennet"}, "did you mean 'lenet'"),
        ({"policies": []}, "polic"),
        ({"policies": "NSTEP(k0=0.1, gamma=0.1, l=[5, 3])"}, "NSTEP"),
        ({"policies": "EXP(k0=1, gamma=9)", "epochs": 30}, "EXP"),
        ({"lr_range": (1, 0.1)}, "range"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"train_size": 5000}, "5,?000"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LREnsembleError, match=message) as caught:
        lre.train_pool(**{"data": "digits", "progress": False, **arguments})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_of_other_data_is_refused(digits, tmp_path):
    call = {"model": "mlp(hidden=4)", "policies": "FIX(0.01)", "path": tmp_path, **QUIET}
    lre.train_pool(digits, **call)
    with pytest.raises(PoolError, match="another"):
        lre.train_pool("digits", train_size=100, **call)


# --- progress ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_for_a_pipe(digits, tmp_path, capsys):
    call = {"model": "mlp(hidden=4)", "path": tmp_path, "epochs": 8, "jobs": 1}
    lre.train_pool(digits, policies=["FIX(5000)", "FIX(0.05)"], **call)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("engine stacked, 2 networks a stack, in this process\n")
    lines = err.splitlines()[1:]
    assert re.fullmatch(r"\[1/2\] FIX-s0-\w+  diverged in epoch \d  \d+\.\d s", lines[0])
    assert re.fullmatch(r"\[2/2\] FIX-s0-\w+  val acc \d+\.\d %  nll \d\.\d{3}  \d+\.\d s", lines[1])
    assert len(lines) == 2
    assert err.replace("\n", "").isprintable()
    lre.train_pool(digits, policies=["FIX(0.05)"], **call, progress=False)
    assert capsys.readouterr().err == ""


def test_a_bar_for_a_terminal(digits, tmp_path, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    lre.train_pool(digits, model="mlp(hidden=4)", policies=["FIX(5000)", "FIX(0.05)"], path=tmp_path, epochs=8, jobs=1)
    shown = screen.getvalue()
    assert "members 0/2" in shown
    assert re.search(r"members 2/2 \|.*16/16 epochs \[.*samples/s, best val acc \d+\.\d % FIX-s0-", shown)
    assert re.search(r"\[1/2\] FIX-s0-\w+  diverged", shown)


def test_a_mailbox_keeps_lines_whole(tmp_path):
    events = []
    box = progress.Mailbox(tmp_path / "box", events.append)
    box.path.touch()
    box.post(box.path, Event("epoch", member="a", epoch=1, epochs=3, val_accuracy=0.5, val_loss=0.1))
    with box.path.open("ab") as file:
        file.write(b'{"kind": "no')
        file.flush()
        box.collect()
        assert events == [Event("epoch", member="a", epoch=1, epochs=3, val_accuracy=0.5, val_loss=0.1)]
        file.write(b'te", "text": "b"}\n')
    box.collect()
    assert events[1:] == [Event("note", text="b")]
    box.path.unlink()
    box.post(box.path, Event("note", text="nobody listens"))
    assert not box.path.exists()


@pytest.mark.parametrize("common", [False, True])
def test_policies_of_one_seed_share_their_start_only_if_asked(digits, tmp_path, common):
    """At a rate of zero nothing is learned: what a member predicts is its initialisation."""
    still = ["[FIX(0) @ 50% | FIX(0)]", "FIX(0)"]
    options = {"model": "mlp(hidden=8)", "epochs": 1, "jobs": 1, "progress": False, "common_seed": common}
    pool = lre.train_pool(digits, policies=still, seeds=2, path=tmp_path, **options)
    seeds = [summary.seed for summary in pool.summaries()]
    logits = pool.predictions("val").logits
    for i, j in itertools.combinations(range(4), 2):
        assert np.array_equal(logits[i], logits[j]) == (common and seeds[i] == seeds[j])
