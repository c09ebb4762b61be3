"""Stacked training: every network of a stack is trained as the reference loop trains it alone."""

import copy
import math
import random
import re
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import lrensemble as lre
from lrensemble.data import AUGMENTATIONS
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.models import MODELS, build_model
from lrensemble.stacked import IMPLEMENTATIONS, StackedNetwork, StackedOptimizer, unsupported
from lrensemble.stacked.optimizers import RULES
from lrensemble.training import OPTIMIZERS, TrainConfig, loop, stacked_loop
from lrensemble.training.checkpoint import Checkpoint
from lrensemble.training.optimizers import build_optimizer
from lrensemble.training.stacked_loop import train_stack
from lrensemble.training.training import Samples, Training

SMALL = {  # what makes a network of the table cheap to test
    "mlp": "mlp(hidden=8, dropout=0.3)",
    "resnet": "resnet(width=4)",
    "resnet8": "resnet8(width=4)",
    "resnet20": "resnet20(width=2)",
    "resnet32": "resnet32(width=1)",
    "resnet44": "resnet44(width=1)",
    "resnet56": "resnet56(width=1)",
    "wideresnet": "wideresnet(depth=10, width=1, dropout=0.2)",
    "wrn16_4": "wrn16_4(width=1)",
    "wrn28_10": "wrn28_10(width=1)",
}
DEEP = {name: model for name, model in SMALL.items() if name in ("resnet20", "resnet32", "resnet44", "resnet56")}
RATE = {name: low for name, (low, _) in lre.policies.RATE_RANGES.items()}
IMAGE, CLASSES, N = (2, 8, 8), 5, 21
CONFIG = TrainConfig(epochs=2, batch_size=8, augment="none")


@pytest.fixture
def double(monkeypatch):
    """Both loops in double precision: their losses are then not rounded to single precision."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    return torch.float64


def samples(n=N, shape=IMAGE, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Samples(
        torch.randn(n, *shape, generator=generator, dtype=dtype), torch.randint(CLASSES, (n,), generator=generator)
    )


DATA, VALIDATION = samples(), samples(13, seed=1)


def trainings(build, config=CONFIG, *, count=3, dtype=torch.float64, channels_last=False, policies=None, **more):
    """Return trainings of `count` networks that `build` gives, with rates that differ; `more` has a value for each."""
    data, validation = (Samples(part.x.to(dtype), part.y) for part in (DATA, VALIDATION))
    rate, made = RATE[config.optimizer], []
    for k in range(count):
        torch.manual_seed(k)
        model = build().to(dtype)
        if channels_last:
            model.to(memory_format=torch.channels_last)
        policy = policies[k] if policies else f"TRI(k0={rate * (k + 1)}, k1={3 * rate}, l={k + 2})"
        options = {name: values[k] for name, values in more.items()}
        optimizer = build_optimizer(config, model.parameters())
        made.append(Training(model, optimizer, lre.parse_policy(policy), config, 100 + k, data, validation, **options))
    return made


def train_each(some):
    with loop.controlled(torch.device("cpu")):
        for training in some:
            loop.train(training)
    return some


def train_together(some, implementation=None):
    with loop.controlled(torch.device("cpu")):
        train_stack(some, implementation=implementation)
    return some


def assert_same(found, expected, atol=1e-12):
    for one, two in zip(found, expected, strict=True):
        left, right = one.model.state_dict(), two.model.state_dict()
        assert left.keys() == right.keys()
        for key, value in left.items():
            np.testing.assert_allclose(value, right[key], rtol=0, atol=atol, err_msg=key)
        assert_same_states(one.optimizer.state_dict(), two.optimizer.state_dict(), atol)
        assert (one.run.epoch, one.run.diverged) == (two.run.epoch, two.run.diverged)
        for name in set(one.run.curves) - {"seconds"}:
            np.testing.assert_allclose(one.run.curves[name], two.run.curves[name], rtol=0, atol=10 * atol, err_msg=name)
        assert len(one.run.curves["seconds"]) == one.run.epoch
        assert (np.diff(one.run.curves["seconds"]) > 0).all()


def assert_same_states(one, two, atol):
    assert one["param_groups"] == two["param_groups"]
    assert one["state"].keys() == two["state"].keys()
    for number, left in one["state"].items():
        right = two["state"][number]
        assert list(left) == list(right)
        for name, value in left.items():
            assert (value.dtype, value.stride()) == (right[name].dtype, right[name].stride())
            np.testing.assert_allclose(value, right[name], rtol=0, atol=atol, err_msg=name)


def assert_identical(one, two):
    """Bit for bit."""
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[key]), key
    for name in set(one.run.curves) - {"seconds"}:
        np.testing.assert_array_equal(one.run.curves[name], two.run.curves[name])


def small(name):
    return lambda: build_model(SMALL.get(name, name), IMAGE, CLASSES)


def sequence(*layers, width=None):
    """Return a builder of a small convolutional network with `layers` inside."""

    def build():
        body = [nn.Conv2d(2, 6, 3, padding=1), *(copy.deepcopy(layer) for layer in layers)]
        flat = nn.Sequential(*body)(torch.zeros(3, *IMAGE)).flatten(1).shape[1] if width is None else width
        return nn.Sequential(*body, nn.Flatten(), nn.Linear(flat, CLASSES))

    return build


MLP, CONV = small("mlp"), sequence(nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.2))


# --- a stack does what the loop does ----------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", [name for name in MODELS if name not in DEEP])
def test_every_model_is_trained_as_the_loop_trains_it(name, implementation, double):
    config = replace(CONFIG, epochs=1, batch_size=10) if name.startswith("wrn") else CONFIG
    last = implementation == "split"  # masks of dropout are drawn in the order of the memory
    expected = train_each(trainings(small(name), config, count=2, channels_last=last))
    found = train_together(trainings(small(name), config, count=2, channels_last=last), implementation)
    assert_same(found, expected, 1e-9)


@pytest.mark.parametrize("name", DEEP)
def test_deep_models_are_stacked(name):
    assert unsupported(small(name)(), IMAGE) is None


@pytest.mark.parametrize(
    "more", [{}, {"label_smoothing": 0.1, "clip_norm": 0.1}, {"weight_decay": 0.0, "momentum": 0.0}], ids=str
)
@pytest.mark.parametrize("build", [MLP, CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_makes_the_steps_of_torch(name, build, more, double):
    config = replace(CONFIG, optimizer=name, epochs=3, **more)
    assert_same(train_together(trainings(build, config)), train_each(trainings(build, config)), 1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rules_for_all_at_once_are_those_of_torch(name, double, monkeypatch):
    """The formulas that a GPU uses, on a CPU."""
    config = replace(CONFIG, optimizer=name, clip_norm=0.1)
    init = StackedOptimizer.__init__

    def without_kernels(self, *args, **kwargs):
        init(self, *args, **kwargs, fused=False)
        self._by_row = False

    expected = train_each(trainings(MLP, config))
    monkeypatch.setattr(StackedOptimizer, "__init__", without_kernels)
    assert_same(train_together(trainings(MLP, config)), expected)


def test_every_optimizer_has_a_rule():
    for name in OPTIMIZERS:
        built = build_optimizer(TrainConfig(optimizer=name), nn.Linear(2, 2).parameters())
        assert type(built) in RULES
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"one group of SGD, Adam.*got LBFGS"):
        StackedOptimizer([torch.optim.LBFGS(model.parameters())], StackedNetwork([model], (2,)))


@pytest.mark.parametrize("build", [MLP, CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_draws_what_the_loop_draws(name, build, double):
    config = replace(CONFIG, augment=name)
    assert_same(train_together(trainings(build, config)), train_each(trainings(build, config)))


@pytest.mark.parametrize("build", [MLP, CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_single_precision_agrees_to_rounding(precision, build):
    config = replace(CONFIG, precision=precision)
    found = train_together(trainings(build, config, dtype=torch.float32))
    expected = train_each(trainings(build, config, dtype=torch.float32))
    assert_same(found, expected, 1e-5 if precision == "float32" else 0.02)


@pytest.mark.parametrize("build", [MLP, CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("n", [16, 17, 18])
def test_the_last_batch_of_an_epoch_may_be_small(n, build, double):
    """17 = 2·8 + 1: the one that is left over makes no batch."""
    made = [trainings(build, n=[n] * 3) for _ in range(2)]
    assert_same(train_together(made[0]), train_each(made[1]))
    assert made[0][0].run.curves["step"][-1] == 2 * (2 + (n == 18))


@pytest.mark.parametrize("build", [MLP, CONV], ids=["mlp", "conv"])
def test_each_learns_from_its_own_rows_and_is_judged_on_its_own(build, double):
    rows = [torch.randperm(N, generator=torch.Generator().manual_seed(k))[:14] for k in range(3)]
    judged = [torch.arange(5), torch.arange(3, 11), None]
    made = [trainings(build, rows=rows, validation_rows=judged) for _ in range(2)]
    assert_same(train_together(made[0]), train_each(made[1]))


def test_trainings_at_different_epochs_share_a_stack(double):
    def started():
        made = trainings(CONV, replace(CONFIG, epochs=4))
        for training, epochs in zip(made[1:], (3, 1), strict=True):
            training.config = replace(training.config, epochs=epochs)
            train_each([training])
            training.config = made[0].config
        return made

    ended, found = [], started()
    for k, training in enumerate(found):
        training.on_end = lambda training, k=k: ended.append((k, training.run.epoch))
    assert_same(train_together(found), train_each(started()))
    assert ended == [(1, 4), (2, 4), (0, 4)]


# --- fates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_that_diverges_leaves_and_the_others_do_not_notice(implementation, double):
    policies = ["FIX(0.01)", "EXP(k0=1, gamma=1000)", "FIX(0.02)"]
    build, config = sequence(nn.ReLU()), replace(CONFIG, epochs=4, batch_size=4)
    left, found = [], trainings(build, config, policies=policies)
    for training in found:
        training.on_end = lambda training: left.append((training.run.epoch, training.run.diverged))
    expected = train_each(trainings(build, config, policies=policies))
    train_together(found, implementation)
    assert expected[1].run.diverged
    assert left[0] == (expected[1].run.epoch, True)
    assert_same(found[::2], expected[::2])
    assert found[1].run.diverged
    assert found[1].run.curves["step"] == expected[1].run.curves["step"]
    assert found[1].run.curves["step_lr"] == expected[1].run.curves["step_lr"]


def test_when_all_diverge_at_once_it_is_over():
    found = train_together(trainings(MLP, policies=["FIX(1e30)"] * 3, dtype=torch.float32))
    assert all(training.run.diverged for training in found)
    assert all(len(training.run.curves["step"]) == 1 for training in found)


def test_validation_loss_that_is_not_finite_is_divergence(double):
    bad = Samples(torch.full_like(VALIDATION.x, math.inf), VALIDATION.y)
    made = [trainings(MLP) for _ in range(2)]
    for some in made:
        for training in some:
            training.validation = bad
    assert_same(train_together(made[0]), train_each(made[1]))
    assert all(training.run.diverged for training in made[0])


def test_validation_keeps_no_graph(monkeypatch):
    seen, scores = [], stacked_loop._scores
    monkeypatch.setattr(
        stacked_loop, "_scores", lambda logits, y: seen.append(logits.requires_grad) or scores(logits, y)
    )
    rows = [torch.arange(5), torch.arange(5, 11)]
    train_together(trainings(MLP, count=2))
    train_together(trainings(MLP, count=2, validation_rows=rows))
    assert set(seen) == {False}


def test_looking_at_losses_seldom_changes_nothing_but_the_last_of_the_diverged(double, monkeypatch):
    policies = ["FIX(0.01)", "EXP(k0=1, gamma=1000)", "FIX(0.02)"]
    found = trainings(MLP, policies=policies)
    expected = train_each(trainings(MLP, policies=policies))
    monkeypatch.setitem(loop.CHECK_STEPS, "cpu", 2)
    train_together(found)
    assert_same(found[::2], expected[::2])
    assert found[1].run.curves["step_lr"] == expected[1].run.curves["step_lr"]


def test_marks_stops_and_ends_come_as_in_the_loop(double):
    def told():
        heard = []

        def on_mark(training, updates):
            training.sync()
            heard.append((training.draw, updates, [p.sum().item() for p in training.model.parameters()]))
            training.model.eval()

        def on_epoch(training):
            training.stop = training.draw == 101
            heard.append((training.draw, training.run.epoch))

        made = trainings(CONV, replace(CONFIG, epochs=3), marks=[frozenset({1, 4}), frozenset({3}), frozenset({99})])
        for training in made:
            training.on_mark, training.on_epoch = on_mark, on_epoch
            training.on_end = lambda training: heard.append(f"{training.draw} ends")
        return made, heard

    (found, mine), (expected, theirs) = told(), told()
    assert_same(train_together(found), train_each(expected))
    for draw in (100, 101, 102):
        left, right = ([e for e in heard if str(draw) in str(e)] for heard in (mine, theirs))
        assert len(left) == len(right) >= 3
        for one, two in zip(left, right, strict=True):
            if isinstance(one, tuple) and len(one) == 3:
                np.testing.assert_allclose(one[2], two[2], atol=1e-11)
                assert one[:2] == two[:2]
            else:
                assert one == two


def test_what_is_over_already_is_only_told_so():
    (training,) = trainings(MLP, count=1)
    training.stop = True
    ended = []
    training.on_end = ended.append
    train_together([training])
    assert ended == [training]
    assert training.run.epoch == 0


@pytest.mark.parametrize("first", ["loop", "stacked"])
@pytest.mark.parametrize("name", ["sgd", *OPTIMIZERS])
def test_a_training_changes_engine_at_any_epoch(name, first, double, tmp_path):
    """Its state is saved by one engine and taken up by the other."""
    config = replace(CONFIG, optimizer=name, epochs=3)
    engines = {"loop": train_each, "stacked": train_together}
    begin, end = engines.pop(first), next(iter(engines.values()))
    half = trainings(CONV, replace(config, epochs=2))
    begin(half)
    resumed = trainings(CONV, config)
    for k, (before, after) in enumerate(zip(half, resumed, strict=True)):
        checkpoint = Checkpoint(tmp_path / f"{k}.pt", str(k), 0)
        checkpoint.save(before.run, before.model, before.optimizer)
        (after.model, after.optimizer), after.run, note = checkpoint.resume(
            lambda after=after: (after.model, after.optimizer)
        )
        assert note == ""
    assert_same(end(resumed), train_each(trainings(CONV, config)))


# --- on a CPU, company changes no bit ---------------------------------------------------------------------------------

ACTIVATIONS = [nn.ReLU(), nn.Tanh(), nn.GELU("tanh"), nn.SiLU(), nn.ELU(), nn.Softplus(), nn.Mish(), nn.Hardswish()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_company_changes_no_bit(precision, activation):
    def build():
        norms = [nn.BatchNorm1d(13), nn.LayerNorm(13)]
        layers = [nn.Linear(128, 13), activation, *norms, nn.Dropout(0.1), nn.Linear(13, 7), activation]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(7, CLASSES))

    config = replace(CONFIG, epochs=3, clip_norm=0.5, precision=precision)
    alone = [trainings(build, config, dtype=torch.float32)[k] for k in range(3)]
    for training in alone:
        train_together([training])
    for one, other in zip(alone, train_together(trainings(build, config, dtype=torch.float32)), strict=True):
        assert_identical(one, other)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_company_changes_no_bit_of_a_convolutional_network(precision):
    config = replace(CONFIG, augment="crop+flip", precision=precision)
    (alone,) = train_together(trainings(CONV, config, dtype=torch.float32)[1:2])
    together = train_together(trainings(CONV, config, dtype=torch.float32))
    assert_identical(alone, together[1])


@hypothesis.given(k=st.integers(1, 6), b=st.integers(1, 70), i=st.integers(1, 90), o=st.integers(1, 60))
@hypothesis.settings(deadline=None, max_examples=60)
def test_company_changes_no_bit_of_a_product(k, b, i, o):
    torch.manual_seed(0)
    models = [nn.Linear(i, o) for _ in range(k)]
    x, g = torch.randn(k, b, i), torch.randn(k, b, o)

    def gradients(models, x, g):
        network = StackedNetwork(models, (i,))
        y = network(x)
        y.backward(g)
        return y.detach(), network.parts[0].leaf.grad

    with loop.controlled(torch.device("cpu")):
        together = gradients(models, x, g)
        for n in range(k):
            alone = gradients(models[n : n + 1], x[n : n + 1].clone(), g[n : n + 1].clone())
            assert all(torch.equal(one[0], both[n]) for one, both in zip(alone, together, strict=True))


# --- networks ---------------------------------------------------------------------------------------------------------

BLOCKS = [
    nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2, bias=False),
    nn.Conv2d(6, 6, 3, padding="same", dilation=2),
    nn.Conv2d(6, 6, 3, padding="valid", padding_mode="zeros"),
    nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
    nn.BatchNorm2d(6),
    nn.BatchNorm2d(6, momentum=None),
    nn.BatchNorm2d(6, affine=False),
    nn.BatchNorm2d(6, track_running_stats=False),
    nn.GroupNorm(2, 6),
    nn.LayerNorm((6, 8, 8)),
    nn.LayerNorm(8, elementwise_affine=False),
    nn.LayerNorm(8, bias=False),
    nn.MaxPool2d(3, 2, padding=1),
    nn.AvgPool2d(2),
    nn.AdaptiveAvgPool2d(2),
    nn.Dropout2d(0.4),
    nn.Identity(),
    nn.Sequential(nn.Flatten(2), nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4), nn.LeakyReLU(0.1)),
    nn.Sequential(nn.Flatten(), nn.Linear(384, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh()),
    nn.Linear(8, 3),
    nn.Softmax(dim=1),
    nn.Upsample(scale_factor=2),
]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_layer_has_its_stacked_form(block, implementation, double):
    assert unsupported(sequence(block)(), IMAGE) is None
    made = [trainings(sequence(block), count=2) for _ in range(2)]
    assert_same(train_together(made[0], implementation), train_each(made[1]))


class Own(nn.Module):
    """Written as people write networks."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool, self.relu, self.drop = nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Dropout(0.3)
        self.fc1, self.fc2 = nn.Linear(8 * 16, 8), nn.Linear(8 + 4, CLASSES)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        y = self.norm(self.conv2(x))
        y += x
        z = torch.cat([functional.relu(y), torch.sigmoid(x)], dim=1)
        z = self.pool(z)
        flat = z.view(z.size(0), -1)
        hidden = functional.dropout(functional.gelu(self.fc1(flat)), 0.2, training=self.training)
        if self.training:
            hidden = self.drop(hidden)
        return self.fc2(torch.cat([hidden, y.mean((2, 3))], 1))


class Tied(nn.Module):
    """One layer used twice, and two layers of one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.third = nn.Linear(128, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.third.weight = self.twice.weight
        self.norm, self.last = nn.BatchNorm1d(6), nn.Linear(6, CLASSES)
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))

    def forward(self, x):
        x = self.norm(torch.relu(self.first(torch.flatten(x, 1))))
        x = self.norm(self.twice(torch.tanh(self.twice(x))))
        return self.last(torch.tanh(self.third(x)))


class Frozen(nn.Module):
    """Some parameters are not trained, and a normalisation stays in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, CLASSES)
        self.body[0].weight.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.body[1].eval()
        return self

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("network", [Own, Tied, Frozen])
def test_networks_of_ones_own(network, implementation, double):
    assert unsupported(network(), IMAGE) is None
    assert_same(train_together(trainings(network), implementation), train_each(trainings(network)))


@pytest.mark.parametrize("implementation", ["grouped", "split"])
def test_a_network_of_torchvision(implementation):
    models = [build_model("torchvision:resnet18", (3, 16, 16), CLASSES).eval() for _ in range(2)]
    assert unsupported(models[0], (3, 16, 16)) is None
    x = torch.randn(2, 2, 3, 16, 16)
    with torch.no_grad():
        found = StackedNetwork(models, (3, 16, 16), implementation=implementation).eval()(x)
        torch.testing.assert_close(found, torch.stack([model(own) for model, own in zip(models, x, strict=True)]))


LAYER = st.sampled_from(["linear", "relu", "norm", "tanh", "dropout"])


@hypothesis.given(st.lists(st.tuples(LAYER, st.integers(1, 9)), max_size=6), st.integers(1, 3), st.integers(2, 11))
@hypothesis.settings(deadline=None, max_examples=25)
def test_random_networks(plan, count, batch_size):
    def build():
        layers, width = [nn.Flatten()], 128
        for kind, size in plan:
            made = {"linear": nn.Linear(width, size), "relu": nn.ReLU(), "norm": nn.BatchNorm1d(width)}
            made |= {"tanh": nn.Tanh(), "dropout": nn.Dropout(size / 10)}
            layers.append(made[kind])
            width = size if kind == "linear" else width
        return nn.Sequential(*layers, nn.Linear(width, CLASSES))

    config = replace(CONFIG, epochs=1, batch_size=batch_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", lambda tensor: tensor)
        found = train_together(trainings(build, config, count=count))
        assert_same(found, train_each(trainings(build, config, count=count)), 1e-10)


class ScaledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def broken(change):
    """Return a network whose features `change` gets, with the module itself."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.fc = nn.Linear(128, CLASSES)

        def forward(self, x):
            return self.fc(change(self, x.flatten(1)))

    return Net()


def hooked():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES))
    model[1].register_forward_hook(lambda *_: None)
    return model


def half_types():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Linear(8, CLASSES))
    return model.append(nn.Linear(CLASSES, CLASSES, dtype=torch.float64))


def unused():
    model = Own()
    model.more = nn.Linear(2, 2)
    return model


def shared_memory():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES))
    model[2].weight.data = model[3].weight.data
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sequential(nn.ConvTranspose2d(4, 4, 3))), r"'1\.0' \(ConvTranspose2d\)"),
        (nn.Sequential(nn.Sequential(ScaledConv(2, 4, 3))), r"layer '0\.0' \(ScaledConv\) uses its tensor '\w+'"),
        (nn.Sequential(nn.Flatten(), nn.PReLU(), nn.Linear(128, 5)), r"layer '1' \(PReLU\) has no stacked form"),
        (broken(lambda net, x: x - x.mean(0)), "function '(mean|sub)' draws random numbers, or mixes the samples"),
        (broken(lambda net, x: x / x.size(0)), "function 'truediv' .*mixes the samples"),
        (broken(lambda net, x: x.reshape(3, 128)), "function 'reshape' fails for samples of several networks"),
        (broken(lambda net, x: x + torch.rand_like(x)), "function 'rand_like' draws random numbers"),
        (broken(lambda net, x: functional.alpha_dropout(x, training=net.training)), "function 'alpha_dropout'"),
        (broken(lambda net, x: x * net.scale), r"the network \(Net\) uses its tensor 'scale'"),
        (broken(lambda net, x: x if x.sum() > 0 else -x), "cannot be traced .*control flow"),
        (broken(lambda net, x: x * random.random()), "forward draws random numbers or changes the network"),
        (broken(lambda net, x: x * np.random.rand()), "forward draws random numbers or changes the network"),
        (broken(lambda net, x: x * torch.rand(1).item()), "forward draws random numbers or changes the network"),
        (broken(lambda net, x: setattr(net, "calls", getattr(net, "calls", 0) + 1) or x), "changes the network"),
        (hooked(), r"layer '1' \(Linear\) has hooks"),
        (half_types(), "of 2 types"),
        (unused(), "parameter 'more.weight' does not take part"),
        (shared_memory(), "share their memory"),
    ],
)
def test_what_cannot_be_stacked_is_named(model, reason):
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = unsupported(model, IMAGE)
    assert found is not None
    assert "\n" not in found
    assert re.search(reason, found), found
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_asking_leaves_a_network_as_it_is():
    model = Own()
    model.norm.eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert unsupported(model, IMAGE) is None
    assert (model.training, model.norm.training) == (True, False)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_thread_that_draws_beside_it_does_not_make_a_network_unstackable(monkeypatch):
    attempts = []
    trace = torch.fx.Tracer.trace

    def disturbed(tracer, model):
        if not attempts:
            random.random()
        attempts.append(model)
        return trace(tracer, model)

    monkeypatch.setattr(torch.fx.Tracer, "trace", disturbed)
    assert unsupported(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2)) is None
    assert len(attempts) > 1


# --- the stack itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_keep_and_write_back(implementation):
    models = [CONV() for _ in range(4)]
    network = StackedNetwork(models, IMAGE, implementation=implementation).eval()
    x = torch.randn(4, *IMAGE)
    with torch.no_grad():
        every = network(x)
        torch.testing.assert_close(every, torch.stack([model.eval()(x) for model in models]))
        before = copy.deepcopy(models[2].state_dict())
        network.rows += 1
        network.write_back(3)
        assert all(torch.equal(value, before[key]) for key, value in models[2].state_dict().items())
        torch.testing.assert_close(models[3](x), network(x)[3])
        network.rows -= 1
        network.keep([3, 1])
        torch.testing.assert_close(network(x), every[[3, 1]], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network(torch.stack([x, x])), network(x))
        assert len(network) == 2
        network.write_back()
        torch.testing.assert_close(models[3](x), every[3], atol=1e-5, rtol=1e-5)
        network.keep([])
        assert len(network) == 0


def test_an_unknown_implementation_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'grouped'"):
        StackedNetwork([MLP()], IMAGE, implementation="groupd")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("graphs", [True, False])
def test_a_gpu_trains_as_the_loop_does(graphs):
    def on_gpu():
        made = trainings(sequence(nn.BatchNorm2d(6), nn.ReLU()), replace(CONFIG, epochs=4), dtype=torch.float32)
        data, validation = (Samples(part.x.cuda(), part.y.cuda()) for part in (made[0].data, made[0].validation))
        for training in made:
            training.model.cuda()
            training.optimizer = build_optimizer(training.config, training.model.parameters())
            training.data, training.validation = data, validation
        return made

    found, expected = on_gpu(), on_gpu()
    train_stack(found, graphs=graphs)
    for one, two in zip(found, expected, strict=True):
        loop.train(two)
        for key, value in one.model.state_dict().items():
            torch.testing.assert_close(value, two.model.state_dict()[key], atol=1e-3, rtol=1e-3)
