"""The optimisers, by name. Light: torch is imported when one is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrensemble.errors import lookup

if TYPE_CHECKING:
    import torch

    from lrensemble.training.config import TrainConfig

__all__ = ["OPTIMIZERS", "OptimizerSpec", "build_optimizer"]


@dataclass(frozen=True)
class OptimizerSpec:
    """An entry of ``OPTIMIZERS``.

    Attributes
    ----------
    torch_name
        Class in ``torch.optim``.
    options
        ``options(config) -> dict`` of keyword arguments, without the learning rate and the weight decay.
    description
        One line for listings.
    """

    torch_name: str
    options: Callable[[TrainConfig], dict[str, Any]]
    description: str


def build_optimizer(config: TrainConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimiser that `config` names; its learning rate is 0 until the loop writes the policy's.

    All parameters are updated by one fused kernel where torch has one for their device, else by its for-each kernels:
    the same mathematics with less overhead per step than the plain loop over parameters.
    """
    import torch

    spec = lookup(OPTIMIZERS, config.optimizer, "optimizer")
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    options = {"lr": 0.0, "weight_decay": config.weight_decay, **spec.options(config)}
    build: Any = getattr(torch.optim, spec.torch_name)
    try:
        return build(trainable, fused=True, **options)
    except (TypeError, RuntimeError, ValueError):  # this optimiser has no fused kernel for this device or type
        return build(trainable, foreach=True, **options)


def _nothing(config: TrainConfig) -> dict[str, Any]:
    return {}


def _momentum(config: TrainConfig) -> dict[str, Any]:
    return {"momentum": config.momentum}


def _nesterov(config: TrainConfig) -> dict[str, Any]:
    return {"momentum": config.momentum, "nesterov": config.momentum > 0}  # torch refuses nesterov without momentum


OPTIMIZERS: dict[str, OptimizerSpec] = {
    "sgd": OptimizerSpec("SGD", _nothing, "stochastic gradient descent"),
    "momentum": OptimizerSpec("SGD", _momentum, "SGD with heavy-ball momentum (Polyak 1964)"),
    "nesterov": OptimizerSpec("SGD", _nesterov, "SGD with Nesterov momentum (Sutskever et al. 2013)"),
    "adam": OptimizerSpec("Adam", _nothing, "Adam (Kingma & Ba 2015, arXiv 1412.6980)"),
    "adamw": OptimizerSpec(
        "AdamW", _nothing, "Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)"
    ),
    "rmsprop": OptimizerSpec("RMSprop", _nothing, "RMSprop (Tieleman & Hinton 2012)"),
    "adagrad": OptimizerSpec("Adagrad", _nothing, "Adagrad (Duchi et al. 2011)"),
    "adadelta": OptimizerSpec("Adadelta", _nothing, "Adadelta (Zeiler 2012, arXiv 1212.5701)"),
}
