"""Networks by name: text or function → network, or → canonical text, and the table. Imports torch only to build."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from lrensemble.errors import InputError, UnknownNameError, first_line, lookup, nearest
from lrensemble.references import format_call, parse_call, reference_name, resolve

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "ModelLike", "ModelSpec", "build_model", "model_name"]

ModelLike: TypeAlias = "str | Callable[..., nn.Module]"

VENDORS = {
    "torchvision": "lrensemble.models.vendors:build_torchvision",
    "timm": "lrensemble.models.vendors:build_timm",
}


@dataclass(frozen=True)
class ModelSpec:
    """An entry of ``MODELS``.

    Attributes
    ----------
    builder
        ``module:function``, called as ``builder(input_shape, n_classes, **options)``.
    description
        One line for listings.
    options
        What the text form may set, with default values; a value given must be of the same type.
    needs_images
        Whether samples must have channels, height and width.
    """

    builder: str
    description: str
    options: Mapping[str, int | float] = field(default_factory=dict)
    needs_images: bool = True


def build_model(model: ModelLike, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build a freshly initialised network (from torch's global generator: seed it before).

    Parameters
    ----------
    model
        ``name`` or ``name(option=value, …)`` of ``MODELS``; ``torchvision:<name>`` or ``timm:<name>``, also with
        options; ``package.module:function``; or a function. Functions are called as
        ``f(input_shape=…, n_classes=…)``.
    input_shape
        Of one sample: (features,) or (channels, height, width).
    n_classes
        C, the width of the output (logits).

    Raises
    ------
    InputError
        If there is no such network, an option does not suit it, or it cannot be built for this data.

    Examples
    --------
    >>> build_model("mlp(hidden=8, depth=1)", (4,), 3)
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=4, out_features=8, bias=True)
      (2): ReLU(inplace=True)
      (3): Linear(in_features=8, out_features=3, bias=True)
    )
    """
    shape = tuple(int(side) for side in input_shape)
    if n_classes < 2 or not shape or min(shape) < 1:
        raise InputError(f"expected an input shape and two classes or more, got {shape} and {n_classes}")
    if not isinstance(model, str):
        return _call_user_function(model, model_name(model), shape, n_classes)
    call = parse_call(model, "model")
    vendor, _, name = call.name.partition(":")
    if vendor in VENDORS and name:
        _check_images(call.name, shape)
        return resolve(VENDORS[vendor])(
            shape, n_classes, name.lower() if vendor == "torchvision" else name, call.options
        )
    if name:
        function = functools.partial(resolve(call.name, "model function"), **call.options)
        return _call_user_function(function, model, shape, n_classes)
    spec = _spec(call.name)
    if spec.needs_images:
        _check_images(call.name, shape)
    options = {**spec.options, **_checked(call.name, spec, call.options)}
    try:
        return resolve(spec.builder)(shape, n_classes, **options)
    except InputError as error:
        raise InputError(f"{model}: {error}") from None
    except (RuntimeError, TypeError, OverflowError) as error:  # a size beyond memory, or beyond 64 bits
        raise InputError(f"{model}: expected a network that this machine can hold, but {first_line(error)}") from None


def model_name(model: ModelLike) -> str:
    """Canonical text of a network: equal for equal networks, and what `build_model` builds again.

    Options come in the table's order, those at their default are left out. Of a function it is ``module:name``; what
    cannot be imported by that name (a lambda, an inner function) must itself be passed to be built.

    Examples
    --------
    >>> model_name("mlp( depth=2, dropout=0,hidden=64 )")
    'mlp(hidden=64)'
    """
    if not isinstance(model, str):
        if hasattr(model, "state_dict") and not isinstance(model, type):
            raise InputError(
                f"expected a function that builds a network, got a network ({type(model).__name__}): "
                "every member needs a fresh one, so pass a function of input_shape and n_classes"
            )
        return reference_name(model)
    call = parse_call(model, "model")
    vendor, _, name = call.name.partition(":")
    if vendor == "torchvision":
        return format_call(f"{vendor}:{name.lower()}", dict(sorted(call.options.items())))
    if name:
        return format_call(call.name, dict(sorted(call.options.items())))
    spec = _spec(call.name)
    given = _checked(call.name, spec, call.options)
    changed = {key: given[key] for key, default in spec.options.items() if key in given and given[key] != default}
    return format_call(call.name, changed)


def _spec(name: str) -> ModelSpec:
    if name in MODELS:
        return MODELS[name]
    guess = nearest(name, MODELS)
    hint = f"did you mean '{guess}'? " if guess else ""
    raise UnknownNameError(
        f"unknown model '{name}': {hint}choose from {', '.join(MODELS)}, torchvision:<name>, timm:<name>, "
        "or give package.module:function"
    )


def _checked(name: str, spec: ModelSpec, given: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the given options, each of the type of its default."""
    checked: dict[str, int | float] = {}
    for key, value in given.items():
        if not spec.options:
            raise InputError(f"{name}: expected no options, got {key}={value!r}")
        default = lookup(spec.options, key, f"option of {name}")
        kind = type(default)
        if isinstance(value, bool) or not isinstance(value, (int, kind)) or not math.isfinite(value):
            wanted = "a whole number" if kind is int else "a number"
            raise InputError(f"{name}: expected {key} as {wanted}, such as {default}, got {value!r}")
        checked[key] = kind(value)
    return checked


def _check_images(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise InputError(f"{name}: expected images (channels, height, width), got samples of shape {shape}: take 'mlp'")


def _call_user_function(function: Callable[..., Any], name: str, shape: tuple[int, ...], n_classes: int) -> nn.Module:
    from torch import nn

    arguments = {"input_shape": shape, "n_classes": n_classes}
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise InputError(f"{name}: expected a function called as f(input_shape=…, n_classes=…), but {error}") from None
    except ValueError:
        pass  # some compiled callables have no signature; the call will tell
    try:
        network = function(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}: building the network raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{name}: expected a torch.nn.Module, got {type(network).__name__}: return the network")
    return _complete(network, name, shape)


def _complete(network: nn.Module, name: str, shape: tuple[int, ...]) -> nn.Module:
    """Let lazy layers (``nn.LazyLinear`` and the like) take their shape from two samples."""
    import torch
    from torch.nn.parameter import is_lazy

    if any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
        try:
            with torch.no_grad():
                network(torch.zeros(2, *shape))
        except Exception as error:
            raise InputError(
                f"{name}: expected a network for samples of shape {shape}, but it fails ({first_line(error)})"
            ) from None
    return network


_NETWORKS = "lrensemble.models.networks"

MODELS: dict[str, ModelSpec] = {
    "mlp": ModelSpec(
        f"{_NETWORKS}:mlp", "multilayer perceptron", {"hidden": 128, "depth": 2, "dropout": 0.0}, needs_images=False
    ),
    "lenet": ModelSpec(f"{_NETWORKS}:lenet", "LeNet, as in Caffe: two convolutions, two linear layers"),
    "lenet5": ModelSpec(f"{_NETWORKS}:lenet5", "LeNet-5, the original's sizes: a seventh of LeNet's parameters"),
    "cnn3": ModelSpec(
        f"{_NETWORKS}:cnn3", "three convolutions of 32, 32, 64 channels, one linear layer; from 8×8 pixels"
    ),
    "resnet": ModelSpec(f"{_NETWORKS}:resnet", "ResNet for small images, depth 6n + 2", {"depth": 8, "width": 16}),
    "resnet8": ModelSpec(f"{_NETWORKS}:resnet", "ResNet-8 for small images", {"depth": 8, "width": 16}),
    "resnet20": ModelSpec(f"{_NETWORKS}:resnet", "ResNet-20 for small images", {"depth": 20, "width": 16}),
    "resnet32": ModelSpec(f"{_NETWORKS}:resnet", "ResNet-32 for small images", {"depth": 32, "width": 16}),
    "resnet44": ModelSpec(f"{_NETWORKS}:resnet", "ResNet-44 for small images", {"depth": 44, "width": 16}),
    "resnet56": ModelSpec(f"{_NETWORKS}:resnet", "ResNet-56 for small images", {"depth": 56, "width": 16}),
    "wideresnet": ModelSpec(
        f"{_NETWORKS}:wideresnet", "Wide ResNet, depth 6n + 4", {"depth": 16, "width": 4, "dropout": 0.0}
    ),
    "wrn16_4": ModelSpec(f"{_NETWORKS}:wideresnet", "Wide ResNet-16-4", {"depth": 16, "width": 4, "dropout": 0.0}),
    "wrn28_10": ModelSpec(f"{_NETWORKS}:wideresnet", "Wide ResNet-28-10", {"depth": 28, "width": 10, "dropout": 0.0}),
}
