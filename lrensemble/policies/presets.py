"""`PRESETS`: named lists of policies, for a pool to start from; and the reader of mixed lists of presets and policies.

Times are shares of the run, so that a preset fits a run of any length. Some presets spread their rates over a range
that depends on the optimiser (`RATE_RANGES`) or is given; the documented ones keep the rates of their source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrensemble.errors import PolicyError, UnknownNameError, lookup, nearest
from lrensemble.policies.base import Policy
from lrensemble.policies.table import POLICIES
from lrensemble.policies.text import parse_policy

__all__ = ["PRESETS", "RATE_RANGES", "Preset", "preset", "resolve_policies"]

# Lowest and highest base rate for small networks at batch 64: about the decade below the constant rates that fail on
# digits (MLP) or MNIST (LeNet) without normalisation layers.
RATE_RANGES: dict[str, tuple[float, float]] = {
    "sgd": (0.02, 0.2),
    "momentum": (0.005, 0.05),
    "nesterov": (0.005, 0.05),
    "adam": (0.0005, 0.005),
    "adamw": (0.0005, 0.005),
    "rmsprop": (0.0002, 0.002),
    "adagrad": (0.003, 0.03),
    "adadelta": (0.2, 2.0),
}


@dataclass(frozen=True)
class Preset:
    """A named list of policies.

    Attributes
    ----------
    description
        One line for listings.
    policies
        Texts of policies; or a function that gives them from the lowest and the highest base rate.
    """

    description: str
    policies: tuple[str, ...] | Callable[[float, float], list[str]]

    @property
    def uses_range(self) -> bool:
        """Whether the rates follow the optimiser's range; otherwise they are those of the source."""
        return not isinstance(self.policies, tuple)


def preset(name: str, *, optimizer: str = "momentum", lr_range: Sequence[float] | None = None) -> list[Policy]:
    """Policies of a preset, not yet resolved.

    Parameters
    ----------
    name
        Key of `PRESETS`.
    optimizer
        Key of `RATE_RANGES`: decides the range of base rates.
    lr_range
        Lowest and highest base rate, instead of the optimiser's.

    Raises
    ------
    UnknownNameError
        For a name that is in neither table.
    PolicyError
        For a range that is not 0 < lowest ≤ highest, or one that is given to a preset with rates of its own.
    """
    found = lookup(PRESETS, name, "preset")
    low, high = lookup(RATE_RANGES, optimizer, "optimizer") if lr_range is None else _checked_range(lr_range)
    if isinstance(found.policies, tuple):
        if lr_range is not None:
            raise PolicyError(f"expected no range of learning rates with preset '{name}', whose rates are its source's")
        return [parse_policy(text) for text in found.policies]
    return [parse_policy(text) for text in found.policies(low, high)]


def resolve_policies(
    items: str | Policy | Mapping[str, Any] | Sequence[str | Policy | Mapping[str, Any]],
    *,
    optimizer: str = "momentum",
    lr_range: Sequence[float] | None = None,
) -> list[Policy]:
    """Policies of a mixed list of presets and policies, in order, each once; times stay as given.

    Parameters
    ----------
    items
        Names of presets, and policies as `parse_policy` reads them; or a single one of these.
    optimizer, lr_range
        As for `preset`; they concern those presets that have no rates of their own.

    Raises
    ------
    UnknownNameError
        For a word that is neither a preset nor a policy (naming the nearest of both).
    PolicyError
        For a policy that cannot be read, an empty list, or a range that no item uses.
    """
    listed = [items] if isinstance(items, str | Policy | Mapping) else list(items)
    if not listed:
        raise PolicyError("expected at least one preset or policy, got none")
    if lr_range is not None:
        _checked_range(lr_range)
    found: dict[Policy, None] = {}  # keeps the order, and each once
    range_used = lr_range is None
    for item in listed:
        name = item.strip().lower() if isinstance(item, str) else ""
        if name in PRESETS:
            wanted = lr_range if PRESETS[name].uses_range else None
            range_used = range_used or wanted is not None
            found.update(dict.fromkeys(preset(name, optimizer=optimizer, lr_range=wanted)))
        else:
            found[_single(item)] = None
    if not range_used:
        raise PolicyError(
            "lr_range: expected a preset that spreads its rates over the range, got none: leave the range out"
        )
    return list(found)


def _single(item: str | Policy | Mapping[str, Any]) -> Policy:
    word = item.strip() if isinstance(item, str) else ""
    if re.fullmatch(r"[\w-]+", word) and not word.startswith("lrPolicy_"):
        _require_known(word)
    return parse_policy(item)


def _require_known(word: str) -> None:
    names = [*PRESETS, *POLICIES]
    if word.lower() not in [name.lower() for name in names]:
        guess = nearest(word, names)
        hint = f"did you mean '{guess}'? " if guess else ""
        raise UnknownNameError(
            f"unknown preset or policy '{word}': {hint}expected a preset ({', '.join(PRESETS)}), or a policy such as "
            "FIX(0.1) (`lrensemble policies list`)"
        )


def _checked_range(lr_range: Sequence[float]) -> tuple[float, float]:
    ends = [float(end) for end in lr_range]
    if len(ends) != 2 or not all(math.isfinite(end) for end in ends) or not 0 < ends[0] <= ends[1]:
        raise PolicyError(f"lr_range: expected a range of learning rates 0 < lowest ≤ highest, got {list(lr_range)}")
    return ends[0], ends[1]


def _grid(low: float, high: float, n: int) -> list[float]:
    """`n` rates, evenly spaced on a log scale, of three significant digits."""
    return [float(f"{rate:.3g}") for rate in np.geomspace(low, high, n)]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole}%"


def _default(low: float, high: float) -> list[str]:
    r0, r1, r2, r3, r4 = _grid(low, high, 5)
    k0 = float(f"{low / 5:.3g}")  # the bottom of cycles
    return [
        f"FIX({r1})",
        f"FIX({r2})",
        f"STEP(k0={r3}, gamma=0.5, l=20%)",
        f"NSTEP(k0={r4}, gamma=0.1, l=[50%, 75%])",
        f"NSTEP(k0={r2}, gamma=0.1, l=[60%, 85%])",
        f"EXP(k0={r4}, gamma=0.01/run)",
        f"INV(k0={r3}, gamma=10/run, p=0.75)",
        f"POLY(k0=0, k1={r2}, p=1)",
        f"POLY(k0=0, k1={r4}, p=2)",
        f"TRI2(k0={k0}, k1={r4}, l=12.5%)",
        f"SINEXP(k0={k0}, k1={r3}, l=25%, gamma=0.1/run)",
        f"COSRSW(k0=0, k1={r4}, l=25%)",
        f"WarmupCosine(peak={r3}, warmup=10%)",
        f"WarmupCosine(peak={r1}, warmup=5%)",
        f"OneCycle(peak={r4})",
        f"[TRI(k0={r1}, k1={r4}, l=25%) @ 50% | TRI(k0={r0}, k1={r2}, l=25%) @ 80% | POLY(k0=0, k1={r1})]",
    ]


def _lrensemble(low: float, high: float) -> list[str]:
    return [
        text
        for peak in _grid(low, high, 4)
        for text in (
            f"NSTEP(k0={peak}, gamma=0.1, l=[50%, 75%])",
            f"WarmupCosine(peak={peak}, warmup=5%)",
            f"OneCycle(peak={peak})",
            f"[{_tri(peak, 25)} @ 50% | {_tri(peak / 10, 25)} @ 90% | {_tri(peak / 100, 50)}]",
        )
    ]


def _tri(k1: float, percent: float) -> str:
    return f"TRI(k0={k1 / 5:.3g}, k1={k1:.3g}, l={percent}%)"


def _lrbench(low: float, high: float) -> list[str]:
    middle = _grid(low, high, 3)[1]
    return [
        f"FIX(k0={middle})",
        f"STEP(k0={high}, gamma=0.5, l=20%)",
        f"NSTEP(k0={high}, gamma=0.1, l=[50%, 75%])",
        f"EXP(k0={high}, gamma={low / high:.3g}/run)",
        f"INV(k0={high}, gamma=10/run, p=0.75)",
        f"POLY(k0={low}, k1={high}, p=1.2)",
        *_cyclic(f"k0={low}, k1={high}, l=12.5%", "0.1/run"),
    ]


def _segments(low: float, high: float) -> list[str]:
    r0, r1, r2, r3, r4 = _grid(low, high, 5)
    return [
        *(f"FIX({rate})" for rate in (r0, r2, r4)),
        *(f"TRI(k0={rate / 5:.3g}, k1={rate}, l=50%)" for rate in (r2, r4)),
        *(f"POLY(k0=0, k1={rate}, p=1)" for rate in (r1, r2, r3)),
    ]


def _plateau(low: float, high: float) -> list[str]:
    r0, _, r2, r3, r4 = _grid(low, high, 5)
    return [
        *(f"ReduceOnPlateau(k0={rate}, factor=0.5, patience=5%)" for rate in (r2, r3, r4)),
        f"ReduceOnPlateau(k0={r4}, factor=0.1, patience=10%, monitor=val_accuracy)",
        f"ChangeOnPlateau([FIX({r4}), FIX({r2}), FIX({r0})], start=1, window=10%, threshold=0.01, cooldown=10%)",
    ]


def _fix_grid(low: float, high: float) -> list[str]:
    return [f"FIX({rate})" for rate in _grid(low, high, 7)]


def _cyclic(k: str, gamma: str) -> list[str]:
    """Return LRBench's seven cyclic functions over one range."""
    plain = [f"{name}({k})" for name in ("TRI", "TRI2", "SIN", "SIN2", "COS")]
    return [*plain, *(f"{name}({k}, gamma={gamma})" for name in ("TRIEXP", "SINEXP"))]


LENET_CAFFE = "INV(k0=0.01, gamma=1/run, p=0.75)"  # γ = 1e-4 over 10,000 steps
CIFAR_CAFFE = f"NSTEP(k0=0.001, gamma=0.1, l=[{_percent(60, 70)}, {_percent(65, 70)}])"
IMAGENET = f"STEP(k0=0.1, gamma=0.1, l={_percent(30, 90)})"
MNIST_STEPS = 10_000
MNIST_DECAY = f"{0.99994**MNIST_STEPS}/run"
CNN3_STEPS = 70_000
RESNET32_STEPS = 64_000

MNIST = (
    "FIX(0.01)",
    f"EXP(k0=0.01, gamma={MNIST_DECAY})",
    "NSTEP(k0=0.001, gamma=0.1, l=[85.71%, 92.86%, 100%])",
    *_cyclic("k0=0.01, k1=0.06, l=20%", MNIST_DECAY),
)
CNN3 = tuple(_cyclic(f"k0=5e-05, k1=0.006, l={_percent(2000, CNN3_STEPS)}", f"{0.99994**CNN3_STEPS}/run"))
# the shares within brackets are of the piece: 1,500 of 30,000 steps, 1,000 of 30,000, 500 of 4,000
RESNET32 = (
    f"[TRI(k0=0.1, k1=0.5, l=5%) @ {_percent(30_000, RESNET32_STEPS)}"
    f" | TRI(k0=0.01, k1=0.05, l={_percent(1000, 30_000)}) @ {_percent(60_000, RESNET32_STEPS)}"
    " | TRI(k0=0.001, k1=0.005, l=12.5%)]",
)
FASTSPIKER = (
    "STEP(k0=0.01, gamma=0.5, l=10%)",
    "EXP(k0=0.01, gamma=0.001/run)",
    "COSRSW(k0=1e-05, k1=0.01, l=50%)",
    "COSRSW2(k0=1e-05, k1=0.01, l=25%)",
    "TRI(k0=1e-05, k1=0.01, l=12.5%)",
    "TRI2(k0=1e-05, k1=0.01, l=12.5%)",
    "[TRI(k0=1e-05, k1=0.01, l=50%) @ 90% | POLY(k0=0, k1=1e-05)]",
)
LLAMA = (
    *(f"Warmup(FIX({rate}), steps=3%, shape=log)" for rate in (1e-5, 2e-5, 3e-5, 6e-5)),
    *(f"WarmupDecay({rate}, warmup=3%, shape=log)" for rate in (1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5)),
    "FIX(2e-05)",
    "POLY(k0=0, k1=2e-05)",
    "WarmupCosine(2e-05, warmup=3%)",
)

PRESETS: dict[str, Preset] = {
    "default": Preset("16 policies of different shapes, rates across the optimiser's range", _default),
    "lrensemble": Preset("MultiStep, WarmupCosine, OneCycle, Composite at 4 peaks (arXiv 2410.07564)", _lrensemble),
    "lrbench": Preset("the 13 functions of LRBench over the optimiser's range (arXiv 1908.06477)", _lrbench),
    "fix-grid": Preset("7 constant rates across the optimiser's range", _fix_grid),
    "segments": Preset("8 pieces for `lrensemble compose`: constant, one triangle, or falling to 0", _segments),
    "plateau": Preset("5 feedback policies: lower or change the rate when training stops improving", _plateau),
    "mnist-lenet-caffe": Preset("Caffe, LeNet on MNIST: momentum 0.9, decay 5e-4, batch 64", (LENET_CAFFE,)),
    "cifar10-full-caffe": Preset("Caffe, CIFAR-10 full: momentum 0.9, decay 0.004, batch 100", (CIFAR_CAFFE,)),
    "lrbench-mnist": Preset("LRBench, LeNet on MNIST: FIX, EXP, NSTEP, cyclic 0.01–0.06", MNIST),
    "lrbench-cifar10-cnn3": Preset("LRBench, CNN3 on CIFAR-10: cyclic 5e-5–6e-3", CNN3),
    "lrbench-cifar10-resnet32": Preset("LRBench, ResNet-32 on CIFAR-10: three TRI in a row", RESNET32),
    "imagenet-resnet18": Preset("ResNet-18 on ImageNet: momentum 0.9, decay 1e-4, batch 256", (IMAGENET,)),
    "fastspiker": Preset("for spiking networks and Adam, 1e-5–1e-2 (arXiv 2407.05262)", FASTSPIKER),
    "llama-7b": Preset("fine-tuning of LLaMA-7B, 1e-5–6e-5, for AdamW (arXiv 2309.08859)", LLAMA),
}
