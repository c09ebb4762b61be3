"""Networks of torchvision and timm by name, without pretrained weights, fitted to the data's channels and classes."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from torch import nn

from lrensemble.errors import InputError, first_line, nearest

__all__ = ["build_timm", "build_torchvision"]


def build_torchvision(input_shape: tuple[int, ...], n_classes: int, name: str, options: dict[str, Any]) -> nn.Module:
    """Build a classification network of torchvision.

    The first convolution is replaced when the data does not have 3 channels; its stride stays, made for large images.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"unknown torchvision model '{name}': {_guess(name, known)}")
    settings = {"weights": None, "num_classes": n_classes, **options}
    if "aux_logits" in inspect.signature(models.get_model_builder(name)).parameters or name in (
        "googlenet",
        "inception_v3",
    ):
        settings.setdefault("aux_logits", False)  # an auxiliary head makes the output a tuple while training
        settings.setdefault("init_weights", True)
    network = _call(models.get_model, name, settings, f"torchvision:{name}")
    if input_shape[0] != 3:
        _replace_first_convolution(network, input_shape[0], name)
    return network


def build_timm(input_shape: tuple[int, ...], n_classes: int, name: str, options: dict[str, Any]) -> nn.Module:
    """Build a network of timm, which adapts the channels itself."""
    try:
        import timm
    except ImportError:
        raise InputError(
            f'timm:{name}: expected timm, which is not installed: pip install "lrensemble[timm]"'
        ) from None
    known = timm.list_models()
    if name not in known:
        raise InputError(f"unknown timm model '{name}': {_guess(name, known)}")
    settings = {"pretrained": False, "in_chans": input_shape[0], "num_classes": n_classes, **options}
    return _call(timm.create_model, name, settings, f"timm:{name}")


def _guess(name: str, known: list[str]) -> str:
    guess = nearest(name, known)
    return f"did you mean '{guess}'?" if guess else f"{len(known)} are known, such as {', '.join(known[:3])}"


def _call(builder: Any, name: str, settings: dict[str, Any], text: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a vendor says of its own defaults is not the user's to change
            return builder(name, **settings)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{text}: expected options that it takes, but it says: {first_line(error)}") from None


def _replace_first_convolution(network: nn.Module, channels: int, name: str) -> None:
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            new = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                module.dilation,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
            network.set_submodule(path, new)
            return
    raise InputError(
        f"torchvision:{name}: expected a network with a convolution to fit to {channels} channels, got none"
    )
