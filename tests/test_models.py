"""Networks: every entry of the table on every image size, names that round-trip, user functions, facts, refusals."""

import functools
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own habit

from lrensemble.errors import InputError, UnknownNameError
from lrensemble.models import (
    MODELS,
    architecture_digest,
    build_model,
    check_model,
    count_flops,
    count_parameters,
    model_name,
)
from lrensemble.models.networks import Residual
from lrensemble.references import format_call

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
LARGE = {"wrn28_10"}  # 36 million parameters: on the smallest images only
CASES = [(name, shape) for name in MODELS for shape in SHAPES if name not in LARGE or shape == SHAPES[0]]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(model, shape, n_classes=10, seed=0):
    torch.manual_seed(seed)
    return build_model(model, shape, n_classes)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_network_fits_and_learns(name, shape):
    network = seeded(name, shape)
    check_model(network, shape, 10)
    x, y = torch.randn(4, *shape), torch.tensor([0, 3, 5, 9])
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    loss = F.cross_entropy(network(x), y)
    loss.backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert count_flops(network, shape) > 2 * max(p.numel() for p in network.parameters() if p.ndim == 2)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in LARGE])
def test_the_seed_decides_the_weights(name):
    one, same, other = (seeded(name, (1, 8, 8), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", MODELS)
def test_names_and_options_round_trip(name):
    assert model_name(name) == name
    other = {key: value + type(value)(6) if value >= 1 else 0.25 for key, value in MODELS[name].options.items()}
    text = format_call(name, dict(reversed(other.items())))
    assert model_name(text) == format_call(name, other)
    assert model_name(model_name(text)) == model_name(text)
    assert model_name(format_call(name, MODELS[name].options)) == name


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].options and name not in LARGE])
def test_every_option_changes_the_network(name):
    plain = architecture_digest(build_model(name, (1, 8, 8), 10))
    for key, value in MODELS[name].options.items():
        changed = 0.25 if isinstance(value, float) else value + (6 if key == "depth" else 1)
        assert architecture_digest(build_model(format_call(name, {key: changed}), (1, 8, 8), 10)) != plain


@pytest.mark.parametrize("name", [name for name in MODELS if name not in LARGE])
def test_networks_are_made_of_ordinary_layers(name):
    ordinary = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
    ordinary += (nn.Flatten, nn.Dropout, nn.Identity, nn.Sequential, Residual)
    assert all(type(module) in ordinary for module in build_model(name, (3, 32, 32), 10).modules())


@pytest.mark.parametrize(
    ("text", "shape", "n_classes", "parameters"),
    [
        ("mlp(hidden=100, depth=1)", (784,), 10, 785 * 100 + 101 * 10),
        ("mlp(depth=0)", (4,), 3, 15),
        ("lenet", (1, 28, 28), 10, 431_080),  # Caffe's lenet_train_test.prototxt
        ("lenet5", (1, 28, 28), 10, 61_706),  # 156 + 2,416 + 48,120 + 10,164 + 850
        ("cnn3", (3, 32, 32), 10, 89_578),  # Caffe's cifar10_full_train_test.prototxt: 2432 + 25632 + 51264 + 10250
        ("resnet20", (3, 32, 32), 10, 269_722 + 2_752),  # He et al.: 0.27 M, and our shortcuts
        ("wrn16_4", (3, 32, 32), 10, 2_748_890),  # Zagoruyko & Komodakis: 2.7 M
        ("wrn28_10", (3, 32, 32), 10, 36_479_194),  # Zagoruyko & Komodakis: 36.5 M
    ],
)
def test_sizes_are_the_published_ones(text, shape, n_classes, parameters):
    assert count_parameters(build_model(text, shape, n_classes)) == parameters


def test_flops_count_two_a_multiply_add():
    assert count_flops(build_model("mlp(hidden=7, depth=1)", (5,), 3), (5,)) == 2 * (5 * 7 + 7 * 3)
    assert count_flops(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), (3, 6, 6)) == 2 * 4 * 4 * 4 * 3 * 3 * 3


def test_residual_blocks_add_what_the_papers_say():
    block = seeded("resnet8", (3, 8, 8))[3].eval()
    x = torch.randn(2, 16, 8, 8)
    conv1, norm1, _, conv2, norm2 = block.body
    expected = F.relu(norm2(conv2(F.relu(norm1(conv1(x))))) + x)
    torch.testing.assert_close(block(x), expected)
    wide = seeded("wideresnet(depth=10, width=1)", (3, 8, 8))[2].eval()  # 16 → 32 channels, half the side
    norm1, _ = wide.before
    conv1, norm2, _, conv2 = wide.body
    shared = F.relu(norm1(x))
    expected = conv2(F.relu(norm2(conv1(shared)))) + wide.shortcut(shared)
    torch.testing.assert_close(wide(x), expected)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].needs_images])
def test_networks_for_images_refuse_tables(name):
    with pytest.raises(InputError, match=r"expected images \(channels, height, width\), got samples of shape \(13,\)"):
        build_model(name, (13,), 3)


@pytest.mark.parametrize(("name", "least"), [("lenet", 4), ("lenet5", 4), ("cnn3", 8), ("resnet8", 4), ("wrn16_4", 4)])
def test_smallest_images(name, least):
    check_model(build_model(name, (1, least, least + 3), 2), (1, least, least + 3), 2)
    with pytest.raises(InputError, match=f"at least {least}×{least} pixels"):
        build_model(name, (1, least - 1, 32), 2)


@pytest.mark.parametrize("side", range(4, 40))
@pytest.mark.parametrize("name", ["lenet", "lenet5"])
def test_lenets_fit_any_side(name, side):
    check_model(build_model(name, (2, side, 40 - side // 2), 3), (2, side, 40 - side // 2), 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnt20", "unknown model 'resnt20': did you mean 'resnet20'"),
        ("zzzzzz", "unknown model 'zzzzzz': choose from mlp, "),
        ("mlp(hiden=3)", "unknown option of mlp 'hiden': did you mean 'hidden'"),
        ("mlp(hidden=2.5)", "expected hidden as a whole number, such as 128, got 2.5"),
        ("mlp(hidden=True)", "expected hidden as a whole number"),
        ("mlp(hidden='8')", "expected hidden as a whole number"),
        ("mlp(dropout=1e999)", "expected dropout as a number"),
        ("mlp(hidden=0)", "expected hidden ≥ 1, got 0"),
        ("mlp(depth=-1)", "expected depth ≥ 0, got -1"),
        ("mlp(dropout=1)", "expected dropout from 0 to below 1, got 1.0"),
        ("lenet(width=3)", "lenet: expected no options, got width=3"),
        ("resnet(depth=10)", r"expected a ResNet depth of 6n \+ 2"),
        ("resnet(depth=2)", r"expected a ResNet depth of 6n \+ 2"),
        ("resnet(width=0)", "expected width ≥ 1"),
        ("wideresnet(depth=12)", r"expected a Wide ResNet depth of 6n \+ 4"),
        ("mlp(3)", "literal values"),
        ("torchvision:resnt18", "unknown torchvision model 'resnt18': did you mean 'resnet18'"),
        ("torchvision:qqqqqqqqq", "unknown torchvision model 'qqqqqqqqq': .* are known, such as"),
        ("torchvision:resnet18(fooo=1)", "torchvision:resnet18: expected options that it takes"),
        ("torchvision:maskrcnn_resnet50_fpn", "unknown torchvision model"),
        ("no_such_package:net", "no module 'no_such_package' here or installed"),
        ("json:dumps", "json:dumps: expected a function called as f"),
    ],
)
def test_what_cannot_be_built_says_why_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        build_model(text, (1, 8, 8), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("shape", "n_classes"), [((), 3), ((0,), 3), ((4,), 1)])
def test_data_without_shape_or_classes_is_refused(shape, n_classes):
    with pytest.raises(InputError, match="expected an input shape and two classes or more"):
        build_model("mlp", shape, n_classes)


def test_names_of_unknown_networks_are_refused_too():
    with pytest.raises(UnknownNameError):
        model_name("resnt20")
    with pytest.raises(UnknownNameError):
        model_name("mlp(hiden=3)")


@pytest.mark.parametrize("text", ["mlp", "mlp(dropout=0)", "mlp( hidden=128 , depth=2)"])
def test_equal_networks_have_equal_names(text):
    assert model_name(text) == "mlp"


class TestVendors:
    @pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32), (2, 34, 34)])
    def test_torchvision_networks_take_any_channels(self, shape):
        network = seeded("torchvision:ResNet18", shape, 7)
        check_model(network, shape, 7)
        again = seeded(model_name("torchvision:ResNet18"), shape, 7)
        assert all(torch.equal(one, two) for one, two in zip(network.parameters(), again.parameters(), strict=True))

    def test_torchvision_options(self):
        assert (
            model_name("torchvision:ResNet18(zero_init_residual=True)")
            == "torchvision:resnet18(zero_init_residual=True)"
        )
        network = build_model("torchvision:resnet18(zero_init_residual=True)", (3, 32, 32), 4)
        assert network.layer1[0].bn2.weight.abs().sum() == 0

    def test_networks_with_auxiliary_heads_give_logits_while_training(self):
        network = build_model("torchvision:googlenet", (3, 64, 64), 5).train()
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 5)

    def test_networks_without_a_convolution_stay_at_three_channels(self, monkeypatch):
        import torchvision

        monkeypatch.setattr(torchvision.models, "get_model", lambda name, **options: nn.Linear(3, 4))
        with pytest.raises(InputError, match="a network with a convolution to fit to 1 channels, got none"):
            build_model("torchvision:resnet18", (1, 8, 8), 4)

    def test_tables_are_refused(self):
        with pytest.raises(InputError, match="expected images"):
            build_model("torchvision:resnet18", (13,), 3)

    def test_timm_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(InputError, match=r'pip install "lrensemble\[timm\]"'):
            build_model("timm:resnet18", (3, 32, 32), 10)

    def test_timm_is_asked_for_channels_and_classes(self, monkeypatch):
        class Timm:
            @staticmethod
            def list_models():
                return ["small"]

            @staticmethod
            def create_model(name, *, pretrained, in_chans, num_classes, width=4):
                assert (name, pretrained) == ("small", False)
                return nn.Sequential(nn.Conv2d(in_chans, width, 3), nn.Flatten(), nn.LazyLinear(num_classes))

        monkeypatch.setitem(sys.modules, "timm", Timm)
        network = build_model("timm:small(width=6)", (2, 8, 8), 5)
        check_model(network, (2, 8, 8), 5)
        assert network[0].weight.shape == (6, 2, 3, 3)
        with pytest.raises(InputError, match="unknown timm model 'smal': did you mean 'small'"):
            build_model("timm:smal", (2, 8, 8), 5)


def own(input_shape, n_classes, width=4):
    """Stand for a function of a user's module."""
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], width), nn.Linear(width, n_classes))


def refuse(input_shape, n_classes):
    raise InputError("no network for this")


class Own(nn.Module):
    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.layer = nn.Linear(input_shape[0], n_classes)

    def forward(self, x):
        return self.layer(x)


class TestUserFunctions:
    @pytest.mark.parametrize("model", [own, Own, functools.partial(own, width=9)])
    def test_a_function_and_its_name_build_the_same(self, model):
        name = model_name(model)
        assert name.startswith(f"{__name__}:")
        assert model_name(name) == name
        one, two = seeded(model, (3,), 2), seeded(name, (3,), 2)
        assert architecture_digest(one) == architecture_digest(two)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))

    def test_a_reference_with_options(self):
        assert build_model(f"{__name__}:own(width=11)", (3,), 2)[1].out_features == 11

    def test_a_local_function_travels_by_cloudpickle(self):
        cloudpickle = pytest.importorskip("cloudpickle")  # comes with joblib
        hidden = 5

        def local(input_shape, n_classes):
            return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.Linear(hidden, n_classes))

        assert "<locals>" in model_name(local)
        back = pickle.loads(cloudpickle.dumps(local))
        assert model_name(back) == model_name(local)
        check_model(build_model(back, (3,), 2), (3,), 2)

    def test_the_text_of_a_local_function_cannot_be_built(self):
        with pytest.raises(InputError) as caught:
            build_model(model_name(lambda input_shape, n_classes: None), (3,), 2)
        assert "pass the function itself" in str(caught.value)

    def test_a_worker_process_builds_from_the_current_directory(self, tmp_path):
        (tmp_path / "my_networks.py").write_text(
            "from torch import nn\ndef net(input_shape, n_classes):\n    return nn.Linear(input_shape[0], n_classes)\n"
        )
        code = "from lrensemble.models import build_model; print(build_model('my_networks:net', (3,), 2))"
        path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("Linear(in_features=3, out_features=2")

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (nn.Linear(3, 2), "expected a function that builds a network, got a network"),
            (3, "got an instance of int"),
            (lambda shape: None, r"expected a function called as f\(input_shape=…, n_classes=…\)"),
            (lambda input_shape, n_classes: None, "expected a torch.nn.Module, got NoneType"),
            (dict, "builtins:dict: expected a torch.nn.Module, got dict"),  # has no signature to look at
            (refuse, "no network for this"),
            (lambda input_shape, n_classes: 1 / 0, "building the network raised ZeroDivisionError: division by zero"),
        ],
    )
    def test_what_is_no_builder(self, model, message):
        with pytest.raises(InputError, match=message):
            build_model(model, (3,), 2)


class TestChecks:
    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (nn.Linear(4, 5), r"expected logits of shape \(2, 3\) for two samples, got shape \(2, 5\)"),
            (nn.Linear(7, 3), "it fails"),
            (nn.LSTM(4, 3), "got tuple"),
            (nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), r"got shape \(6,\)"),
            (nn.Linear(4, 3).requires_grad_(False), "expected parameters to train, got none"),
            (nn.AdaptiveAvgPool1d(3), "expected parameters to train, got none"),
        ],
    )
    def test_networks_that_do_not_fit(self, network, message):
        with pytest.raises(InputError, match=message) as caught:
            check_model(network, (4,), 3)
        assert "\n" not in str(caught.value)

    def test_inspection_changes_nothing(self):
        network = seeded("resnet8", (1, 8, 8)).train()
        network[1].eval()  # a module that its owner froze stays so
        before = {key: value.clone() for key, value in network.state_dict().items()}
        state = torch.random.get_rng_state()
        check_model(network, (1, 8, 8), 10)
        count_flops(network, (1, 8, 8))
        architecture_digest(network)
        assert network.training
        assert not network[1].training
        assert torch.equal(state, torch.random.get_rng_state())
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())

    def test_flops_that_cannot_be_counted_are_zero(self):
        assert count_flops(nn.Linear(7, 3), (4,)) == 0

    def test_digest_knows_structure_and_not_weights(self):
        digest = architecture_digest(seeded("lenet", (1, 8, 8)))
        assert digest == architecture_digest(seeded("lenet", (1, 8, 8), seed=1))
        assert digest != architecture_digest(seeded("lenet", (1, 8, 8), 9))
        assert len(digest) == 16
        relu, tanh = (nn.Sequential(nn.Linear(2, 2), layer) for layer in (nn.ReLU(), nn.Tanh()))
        assert architecture_digest(relu) != architecture_digest(tanh)

    def test_digest_ignores_addresses(self):
        class Shown(nn.Linear):
            def extra_repr(self):
                return f"function={(lambda: 0)!r}"

        assert architecture_digest(Shown(2, 2)) == architecture_digest(Shown(2, 2))


class Odd(nn.Sequential):
    """A network whose state is not made of tensors alone."""

    def get_extra_state(self):
        return {"note": 1}


class Indexed(nn.Module):
    """A network whose first parameter is an integer."""

    def __init__(self, inputs, classes):
        super().__init__()
        self.index = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x):
        return self.linear(x)


class TestUnusualNetworks:
    def test_lazy_layers_take_their_shape_from_the_data(self):
        model = build_model(lambda input_shape, n_classes: nn.Sequential(nn.LazyLinear(n_classes)), (4,), 3)
        check_model(model, (4,), 3)
        assert count_parameters(model) == 15

    def test_lazy_layers_that_cannot_take_the_data_are_explained(self):
        with pytest.raises(InputError, match=r"samples of shape \(4,\), but it fails"):
            build_model(lambda input_shape, n_classes: nn.Sequential(nn.LazyConv2d(n_classes, 3)), (4,), 3)

    def test_data_are_float32_whatever_the_first_parameter_is(self):
        check_model(Indexed(4, 3), (4,), 3)
        with pytest.raises(InputError, match=r"mine: .* but it fails"):
            check_model(nn.Linear(4, 3).double(), (4,), 3, name="mine")

    def test_a_state_beyond_tensors_is_refused(self):
        with pytest.raises(InputError, match=r"expected a state of tensors, got dict '_extra_state'"):
            check_model(Odd(nn.Linear(4, 3)), (4,), 3)
