"""Cross-fitting: which samples a network sees, what a member of k networks says, resumption, and no leak anywhere."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from test_training import StopError, assert_same_pools

import lrensemble as lre
from lrensemble.cli import main
from lrensemble.data import Split, Splits
from lrensemble.errors import InputError, PoolError
from lrensemble.experiment import Experiment
from lrensemble.models import build_model
from lrensemble.policies import resolve_policies
from lrensemble.training import TrainConfig, loop
from lrensemble.training.apprentice import Apprentice
from lrensemble.training.engines import ENGINES, EngineSpec
from lrensemble.training.folds import cross_fit, mean_log_probability, out_of_fold, parts_of
from lrensemble.training.optimizers import build_optimizer
from lrensemble.training.task import Setting
from lrensemble.training.training import Samples, Training
from lrensemble.training.worker import train_chunk
from lrensemble.training.workshop import plan_members

MODEL = "mlp(hidden=8)"
CALL = {
    "model": MODEL,
    "policies": "FIX(0.05)",
    "folds": 3,
    "epochs": 3,
    "jobs": 1,
    "engine": "loop",
    "progress": False,
}


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=100, val_size=31, test_size=80)


@pytest.fixture(scope="module")
def noise():
    """Labels that nothing predicts, and samples that are easily learned by heart."""
    x, y = np.random.default_rng(0).normal(size=(300, 60)), np.arange(300) % 2
    return lre.load_data((x, y), train_size=160, val_size=40, test_size=100)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    return lre.train_pool(digits, path=tmp_path_factory.mktemp("folds") / "pool", seeds=2, **CALL)


@pytest.fixture(scope="module", params=ENGINES)
def engine_and_pool(request, digits, tmp_path_factory):
    """Every engine, and what it makes of two members when nothing comes between."""
    call = {**CALL, "engine": request.param, "seeds": 2}
    return request.param, lre.train_pool(digits, path=tmp_path_factory.mktemp("whole") / "pool", **call)


def joined_labels(splits):
    return np.concatenate([splits.train.y, splits.val.y])


def samples(split):
    return Samples(torch.tensor(split.x), torch.tensor(split.y))


def splits_of(labels, n_val, seed=0):
    """Splits with these labels of training and validation samples; every sample is its own number."""
    x = np.arange(len(labels), dtype=float)[:, None]
    test = Split(np.full((2, 1), -1.0), np.array([0, 1]))
    cut = len(labels) - n_val
    return Splits("s", Split(x[:cut], labels[:cut]), Split(x[cut:], labels[cut:]), test, tuple(range(max(labels) + 1)))


# --- the folds --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=5),
    st.integers(2, 9),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=80)
def test_folds_partition_the_samples_and_keep_the_classes(counts, k, seed, random):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    random.shuffle(labels)
    labels = np.array(labels)
    k = min(k, max(counts))
    splits = splits_of(labels, n_val=2)
    folded = cross_fit(splits, k, seed=seed)
    parts = parts_of(folded)
    n = len(labels)
    assert [part.name for part in parts] == [f"fold{f}" for f in range(k)]
    np.testing.assert_array_equal(np.sort(np.concatenate([part.held_out for part in parts])), np.arange(n))
    for part in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([part.rows, part.held_out])), np.arange(n))
        assert set(labels[part.rows]) == set(labels)  # every network knows every class
        assert part.n == min(len(other.rows) for other in parts) == n - -(-n // k)
    for label, count in enumerate(counts):
        held = np.bincount(folded.fold_of[labels == label], minlength=k)
        assert held.max() - held.min() <= 1
        assert (held > 0).sum() == min(count, k)
    np.testing.assert_array_equal(folded.train.x[:, 0], np.arange(n))  # training samples first, then validation samples
    assert folded.train is folded.val
    assert folded.test is splits.test
    again = cross_fit(splits, k, seed=seed)
    np.testing.assert_array_equal(again.fold_of, folded.fold_of)
    assert again.fingerprint == folded.fingerprint != splits.fingerprint


def test_seed_and_number_of_folds_decide_the_fingerprint(digits):
    prints = {cross_fit(digits, k, seed=seed).fingerprint for k, seed in itertools.product((2, 3, 5), (0, 1))}
    assert len(prints | {digits.fingerprint}) == 7


@pytest.mark.parametrize(
    ("labels", "k", "message"),
    [
        ([0, 0, 0, 1, 1], 4, "at most 3, the samples of class '0'"),
        ([0, 0, 0, 1], 2, "two samples or more of every class to train on, got one of '1'"),
        ([0, 0, 0, 1, 1], 1, "2 or more, got 1"),
    ],
)
def test_folds_that_cannot_be_are_refused(labels, k, message):
    with pytest.raises(InputError, match=message):
        cross_fit(splits_of(np.array(labels), n_val=1), k)


@pytest.mark.parametrize("value", [1, -2, 2.0, True, "5"])
def test_a_wrong_number_of_folds_is_named(value):
    with pytest.raises(InputError, match="folds: expected 0 or a number"):
        TrainConfig(folds=value)


def test_without_folds_a_setting_has_its_old_name():
    assert "folds" not in TrainConfig().to_dict()
    assert TrainConfig(folds=3).to_dict()["folds"] == 3
    assert TrainConfig(**TrainConfig(folds=3).to_dict()) == TrainConfig(folds=3)


# --- what a member says -----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([1.0, 30.0, 3000.0]))
@settings(deadline=None, max_examples=40)
def test_probabilities_of_a_member_are_the_mean_of_its_networks(seed, k, scale):
    outputs = list(np.random.default_rng(seed).normal(scale=scale, size=(k, 6, 4)).astype(np.float32))
    joined = mean_log_probability(outputs)
    assert joined.dtype == np.float32
    assert np.isfinite(joined).all()
    expected = np.mean([softmax(output.astype(float), axis=1) for output in outputs], axis=0)
    np.testing.assert_allclose(softmax(joined.astype(float), axis=1), expected, rtol=1e-3, atol=1e-7)


def test_a_network_that_says_nothing_makes_a_member_say_nothing():
    assert not np.isfinite(
        mean_log_probability([np.zeros((1, 2), np.float32), np.full((1, 2), np.nan, np.float32)])
    ).any()


def test_each_network_is_what_the_reference_trains_on_its_samples_alone(digits, trained):
    """Train each network anew on a data set that does not even hold the fold it is judged on."""
    folded = cross_fit(digits, 3)
    member = trained.member(trained.ids[0])
    weights = trained.weights(member.id)
    test, out = [], []
    for part in parts_of(folded):
        rows, held_out = part.rows, part.held_out
        draw = loop.stable_seed(loop.stable_seed(member.seed, member.policy), f"fold {part.fold}")
        torch.manual_seed(loop.stable_seed(draw, "initialisation"))
        model = build_model(MODEL, digits.input_shape, 10)
        config = TrainConfig(epochs=3, augment=digits.augment)
        alone = [samples(Split(folded.train.x[index], folded.train.y[index])) for index in (rows, held_out)]
        optimizer = build_optimizer(config, model.parameters())
        training = Training(model, optimizer, lre.parse_policy(member.policy), config, draw, *alone, n=part.n)
        with loop.controlled(torch.device("cpu")):
            loop.train(training)
        for name, values in model.state_dict().items():
            np.testing.assert_array_equal(weights[f"fold{part.fold}.{name}"], values.numpy())
        np.testing.assert_array_equal(member.history[f"val_loss_fold{part.fold}"], training.run.curves["val_loss"])
        out.append(loop.predict(model, alone[1].x).numpy())
        test.append(loop.predict(model, torch.tensor(digits.test.x)).numpy())
        np.testing.assert_array_equal(member.logits["val"][held_out], out[-1])
    assert len(weights) == 3 * len(model.state_dict())
    expected = np.mean([softmax(logits.astype(float), axis=1) for logits in test], axis=0)
    np.testing.assert_allclose(softmax(member.logits["test"].astype(float), axis=1), expected, atol=1e-6)
    np.testing.assert_array_equal(out_of_fold(parts_of(folded), out), member.logits["val"])


def test_a_pool_with_folds_is_an_ordinary_pool(digits, trained):
    np.testing.assert_array_equal(trained.labels("val"), joined_labels(digits))
    np.testing.assert_array_equal(trained.labels("test"), digits.test.y)
    assert trained.fingerprint == cross_fit(digits, 3).fingerprint
    network = build_model(MODEL, digits.input_shape, 10)
    for summary in trained.summaries():
        member = trained.member(summary.id)
        assert member.config["folds"] == member.extra["folds"] == 3
        assert member.parameters == 3 * sum(p.numel() for p in network.parameters())
        assert member.flops == 3 * lre.models.count_flops(network, digits.input_shape)
        assert member.extra["seconds_per_sample"] > 0
        assert set(member.history) == {
            *("step", "train_loss", "val_loss", "val_accuracy", "seconds", "step_lr"),
            *(f"{name}_fold{f}" for name in ("val_loss", "val_accuracy") for f in range(3)),
        }
        steps = 2  # 131 samples, 44 held out, batches of 64: 64, 23
        np.testing.assert_array_equal(member.history["step"], steps * np.arange(1, 4))
        np.testing.assert_array_equal(member.history["step_lr"], np.full(3 * steps, 0.05))
        assert member.history["val_loss"][-1] == pytest.approx(summary.val_nll, rel=1e-5)
        assert member.history["val_accuracy"][-1] == pytest.approx(summary.val_accuracy, rel=1e-12)
        assert member.seconds == pytest.approx(member.history["seconds"][-1])
    assert trained.verify() == []
    ensemble = lre.select(trained, method="greedy")
    assert ensemble.n_samples == 131
    assert lre.evaluate(trained, ensemble).n_val == 131


def test_pools_with_other_folds_are_never_mixed(digits, trained):
    for other in ({"folds": 4}, {"folds": 0}, {"split_seed": 1}):
        with pytest.raises(PoolError, match="of this data and split"):
            lre.train_pool(digits, path=trained.path, **{**CALL, **other})
    assert lre.train_pool(digits, path=trained.path, **CALL).ids == trained.ids


def test_the_default_path_says_folds(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lre.train_pool(digits, **{**CALL, "epochs": 1}).path.name == "digits-folds3-mlp-hidden-8"


def test_networks_of_a_member_differ_and_with_a_common_seed_members_share_them(digits, tmp_path):
    call = {**CALL, "policies": ["FIX(0.01)", "FIX(0.02)"]}
    for common in (False, True):
        config = TrainConfig(epochs=1, folds=3, common_seed=common, augment="none")
        draws = [[t.draw for t in apprentice.trainings] for apprentice in apprentices(digits, call, config, tmp_path)]
        assert len(set(draws[0])) == 3
        assert (draws[0] == draws[1]) is common


def apprentices(data, call, config, folder, report=lambda event: None):
    """Members in the making, in a new pool."""
    folded = cross_fit(data, config.folds)
    plan = plan_members(folded, call["model"], [(p, 0) for p in resolve_policies(call["policies"])], config)
    labels = {"val": folded.val.y, "test": folded.test.y}
    path = folder / f"{config.common_seed}"
    lre.Pool.create(path, name="p", fingerprint=folded.fingerprint, class_names=folded.class_names, labels=labels)
    arrays = {part: samples(getattr(folded, part)) for part in ("train", "val", "test")}
    return [Apprentice(task, folded, arrays, Setting(path, "cpu", 5.0, True), report) for task in plan.tasks]


# --- leaks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_learned_by_heart_does_not_help(engine, noise, tmp_path):
    """Networks that know their training samples perfectly know nothing about those they are judged on."""
    folded = cross_fit(noise, 4)
    config = TrainConfig(epochs=40, folds=4, augment="none", batch_size=32, weight_decay=0.0)
    plan = plan_members(folded, "mlp(hidden=64)", [(p, 0) for p in resolve_policies(["FIX(0.05)", "FIX(0.1)"])], config)
    labels = {"val": folded.val.y, "test": folded.test.y}
    pool = lre.Pool.create(
        tmp_path / "pool", name="noise", fingerprint=folded.fingerprint, class_names=folded.class_names, labels=labels
    )
    events = []
    setting = Setting(pool.path, "cpu", 5.0, True)
    train_chunk(plan.tasks, folded, setting, events.append, engine=engine)
    for task in plan.tasks:
        weights, member = pool.weights(task.id), pool.member(task.id)
        for part in parts_of(folded):
            model = build_model("mlp(hidden=64)", noise.input_shape, 2)
            prefix = f"{part.name}."
            own = {name.removeprefix(prefix): torch.tensor(v) for name, v in weights.items() if name.startswith(prefix)}
            model.load_state_dict(own)
            predicted = loop.predict(model, torch.tensor(folded.train.x)).argmax(dim=1).numpy()
            right = predicted == folded.train.y
            assert right[part.rows].mean() == 1
            assert right[part.held_out].mean() < 0.75
            curve = member.history[f"val_accuracy_{part.name}"]
            assert curve[-1] == pytest.approx(
                right[part.held_out].mean()
            )  # judged on its own fold, and on nothing else
        accuracy = (member.logits["val"].argmax(axis=1) == labels["val"]).mean()
        assert abs(accuracy - 0.5) < 3 * 0.5 / np.sqrt(200)
    assert sum(event.kind == "epoch" for event in events) == 2 * 4 * 40


def test_no_training_is_given_a_sample_that_it_is_judged_on(digits, tmp_path):
    config = TrainConfig(epochs=1, folds=5, augment="none")
    (apprentice,) = apprentices(digits, CALL, config, tmp_path)
    for training in apprentice.trainings:
        assert not set(training.rows.tolist()) & set(training.validation_rows.tolist())
        drawn = set(itertools.chain.from_iterable(training.order(seed).tolist() for seed in range(20)))
        assert drawn == set(training.rows.tolist())  # every epoch leaves out others
        assert training.n == len(training.order(0)) == 104
        assert torch.equal(training.validation_samples.x, training.data.x[training.validation_rows])


def test_test_samples_have_no_influence(digits, trained, tmp_path):
    other = Split(-digits.test.x[::-1], digits.test.y[::-1])
    pool = lre.train_pool(replace(digits, test=other, fingerprint=""), path=tmp_path, seeds=2, **CALL)
    for mine, name in zip(trained.ids, pool.ids, strict=True):
        np.testing.assert_array_equal(trained.member(mine).logits["val"], pool.member(name).logits["val"])
        np.testing.assert_array_equal(trained.member(mine).history["val_loss"], pool.member(name).history["val_loss"])


# --- interruption and divergence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 3, 4, 8, 18])
@pytest.mark.parametrize("checkpoint_seconds", [0, 1000])
def test_interrupted_and_resumed_equals_uninterrupted(after, checkpoint_seconds, digits, engine_and_pool, tmp_path):
    engine, whole = engine_and_pool
    left, events = [after], []

    def stop(event):
        left[0] -= event.kind == "epoch"
        if left[0] == 0:
            raise StopError

    call = {**CALL, "path": tmp_path / "pool", "seeds": 2, "engine": engine}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**call, "progress": stop}, checkpoint_seconds=checkpoint_seconds)
    assert set(lre.Pool.open(tmp_path / "pool").info()["training"]) <= set(whole.ids)
    assert_same_pools(lre.train_pool(digits, **{**call, "progress": events.append}), whole)
    epochs = sum(event.kind == "epoch" for event in events)
    if not checkpoint_seconds:
        assert epochs == 18 - after
    elif engine == "loop":  # states of networks that were finished, and members that were stored, are kept
        assert epochs == 18 - {1: 0, 3: 0, 4: 3, 8: 6, 18: 15}[after]
    assert not list((tmp_path / "pool" / "resume").glob("[!.]*"))


KILLED = """
import os, sys
import lrensemble as lre
data = lre.load_data("digits", train_size=100, val_size=31, test_size=80)
left = [5]
def stop(event):
    left[0] -= event.kind == "epoch"
    if left[0] == 0:
        os.kill(os.getpid(), 9)
lre.train_pool(data, path=sys.argv[1], model="mlp(hidden=8)", policies="FIX(0.05)", folds=3, epochs=3, seeds=2, jobs=1,
               engine="loop",               progress=stop, checkpoint_seconds=0)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_between_two_networks_and_resumed_with_other_jobs(digits, trained, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "pool")], check=False)
    assert killed.returncode == -9
    found = sorted(path.name.split(".", 1)[1] for path in (tmp_path / "pool" / "resume").glob("[!.]*"))
    assert found == ["fold0.pt", "fold1.pt"]
    pool = lre.train_pool(digits, path=tmp_path / "pool", seeds=2, **{**CALL, "jobs": 2})
    assert_same_pools(pool, trained)


def test_states_left_over_by_a_kill_are_removed(digits, tmp_path):
    pool = lre.train_pool(digits, path=tmp_path, **CALL)
    left = [pool.resume_path(f"{pool.ids[0]}.fold{fold}") for fold in (0, 12)]
    other = pool.resume_path(f"{pool.ids[0]}x.fold0")
    for path in (*left, other):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"state")
    assert pool.info()["training"] == [f"{pool.ids[0]}x"]
    lre.train_pool(digits, path=tmp_path, **CALL)
    assert list(pool.path.glob("resume/[!.]*")) == [other]


def test_a_damaged_state_of_one_network_starts_that_one_over(digits, trained, tmp_path):
    seen = []

    def stop(event):
        seen.append(event.kind)
        if seen.count("epoch") == 4:
            raise StopError

    call = {**CALL, "path": tmp_path / "pool", "seeds": 2}
    with pytest.raises(StopError):
        lre.train_pool(digits, **{**call, "progress": stop}, checkpoint_seconds=0)
    state = next((tmp_path / "pool" / "resume").glob("*.fold0.pt"))
    state.write_bytes(state.read_bytes()[:-1])
    events = []
    assert_same_pools(lre.train_pool(digits, **{**call, "progress": events.append}), trained)
    assert [event.text for event in events if event.kind == "note" and "starts over" in event.text]
    assert sum(event.kind == "epoch" for event in events) == 18 - 1  # of the second network


def pretend(trainings, orders):
    """An engine that learns nothing: fold f diverges in the epoch that its policy's rate says, if any."""
    ends = {0: 5, 1: 3, 2: 9}  # fold: epoch in which it diverges
    for index in orders(trainings):
        training = trainings[index]
        if training.is_over:
            continue
        diverges = ends[index] == training.run.epoch + 1
        training.run.diverged = diverges
        value = float("nan") if diverges else 0.5 + index
        done = training.steps * (training.run.epoch + 1) - diverges
        rates = [0.1] * (training.steps - diverges)
        training.run.record(
            steps=done, rates=rates, train_loss=value, val=(value, value), seconds=training.run.seconds + 1.0
        )
        training.on_epoch(training)
    for training in trainings:
        training.on_end(training)


ORDERS = {
    "one after another": lambda trainings: [i for i in range(3) for _ in range(10)],
    "the last first": lambda trainings: [i for i in (2, 1, 0) for _ in range(10)],
    "in turn": lambda trainings: [i for _ in range(10) for i in range(3)],
}


@pytest.mark.parametrize("order", ORDERS)
def test_one_network_that_diverges_ends_the_member_the_same_way_in_any_order(order, digits, tmp_path, monkeypatch):
    monkeypatch.setitem(
        ENGINES, "pretend", EngineSpec(lambda trainings: pretend(trainings, ORDERS[order]), "for this test")
    )
    folded = cross_fit(digits, 3)
    config = TrainConfig(epochs=10, folds=3, augment="none")
    plan = plan_members(folded, MODEL, [(p, 0) for p in resolve_policies("FIX(0.1)")], config)
    labels = {"val": folded.val.y, "test": folded.test.y}
    pool = lre.Pool.create(
        tmp_path / "pool", name="p", fingerprint=folded.fingerprint, class_names=folded.class_names, labels=labels
    )
    events = []
    train_chunk(plan.tasks, folded, Setting(pool.path, "cpu", 5.0, True), events.append, engine="pretend")
    member = pool.member(plan.tasks[0].id)
    assert (member.status, member.logits) == ("diverged", {})
    np.testing.assert_array_equal(member.history["step"], [2, 4, 5])
    np.testing.assert_array_equal(member.history["step_lr"], np.full(5, 0.1))
    np.testing.assert_array_equal(member.history["train_loss"], [1.5, 1.5, np.nan])
    np.testing.assert_array_equal(member.history["val_loss_fold2"], [2.5, 2.5, 2.5])
    np.testing.assert_array_equal(member.history["seconds"], [3, 6, 9])
    assert events[-1].status == "diverged"
    assert not list(pool.path.glob("resume/[!.]*"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_member_that_diverges_beside_one_that_does_not(engine, digits, tmp_path):
    call = {**CALL, "policies": ["FIX(0.05)", "FIX(9000)"], "epochs": 9, "engine": engine}
    pool = lre.train_pool(digits, path=tmp_path, **call)
    status = {lre.parse_policy(summary.policy)(0): summary.status for summary in pool.summaries()}
    assert status == {0.05: "done", 9000: "diverged"}


# --- from the command line --------------------------------------------------------------------------------------------


def test_the_whole_road_with_folds(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = Experiment.from_dict(
        {
            "policies": ["FIX(0.05)", "FIX(0.02)", "FIX(0.1)"],
            "model": MODEL,
            "data": {"train_size": 100, "val_size": 50, "test_size": 100},
            "train": {"epochs": 3, "folds": 3},
            "compute": {"jobs": 1},
            "selection": {"resplits": 3},
        }
    )
    (tmp_path / "folds.toml").write_text(experiment.to_toml())
    assert main(["run", "folds.toml", "--quiet"]) == 0
    assert "validation had 150 samples" in capsys.readouterr().out
    pool = "checkpoints/digits-folds3-mlp-hidden-8"
    for command in (["inspect", pool, "--json"], ["explain", pool, f"{pool}/ensembles/greedy-nll.json"]):
        assert main(command) == 0
    assert main(["inspect", pool, "--json"]) == 0
    info = json.loads(capsys.readouterr().out.split("\n{\n")[-1].join(["{\n", ""]))
    assert info["samples"] == {"val": 150, "test": 100}
    assert all(member["extra"]["folds"] == 3 for member in info["members"])
    flags = ["--train-size", "100", "--val-size", "50", "--test-size", "100", "--model", MODEL, "--epochs", "3"]
    assert main(["train", pool, *flags, "--policies", "FIX(0.3)", "--folds", "3", "--jobs", "1", "--quiet"]) == 0
    assert main(["train", pool, *flags, "--policies", "FIX(0.3)", "--jobs", "1", "--quiet"]) == 1
    assert "choose another path" in capsys.readouterr().err
