"""Presets: every one resolves for runs of any length, and the documented ones give back their source's settings."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from lrensemble.errors import PolicyError, UnknownNameError
from lrensemble.policies import FIX, POLICIES, PRESETS, RATE_RANGES, TimePolicy, parse_policy, preset, resolve_policies


def rates(policy, steps, per_epoch):
    """Rates of a run; of a feedback policy, if its metric never changes."""
    if isinstance(policy, TimePolicy):
        return policy.curve(steps)
    return policy.replay([1.0] * math.ceil(steps / per_epoch), steps_per_epoch=per_epoch)[:steps]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("steps", "per_epoch"), [(10, 5), (117, 11.7), (782, 391), (64_000, 391)])
def test_presets_resolve_for_runs_of_any_length(name: str, steps: int, per_epoch: float) -> None:
    policies = preset(name)
    assert policies
    assert len(set(policies)) == len(policies)
    for policy in policies:
        resolved = policy.resolve(total_steps=steps, steps_per_epoch=per_epoch)
        assert parse_policy(str(resolved)) == resolved
        assert parse_policy(str(policy)) == policy
        assert rates(resolved, steps, max(1, round(per_epoch))).max() > 0


@pytest.mark.parametrize("name", [name for name, entry in PRESETS.items() if entry.uses_range])
@pytest.mark.parametrize("optimizer", RATE_RANGES)
def test_ranged_presets_follow_the_optimizer(name: str, optimizer: str) -> None:
    low, high = RATE_RANGES[optimizer]
    run = {"total_steps": 1000, "steps_per_epoch": 50}
    curves = [rates(policy.resolve(**run), 1000, 50) for policy in preset(name, optimizer=optimizer)]
    assert max(curve.max() for curve in curves) == pytest.approx(high, rel=0.01)
    assert preset(name, optimizer=optimizer) == preset(name, lr_range=(low, high))


def test_default_is_diverse() -> None:
    curves = np.array([policy.resolve(total_steps=1000).curve(1000) for policy in preset("default")])
    assert len(curves) == 16
    apart = np.abs(curves[:, None] - curves[None]).max(axis=2)
    assert (apart[~np.eye(16, dtype=bool)] > 0.002).all()


def test_lrbench_holds_its_13_functions() -> None:
    names = {policy.name for policy in preset("lrbench")}
    simple, cyclic = (
        {"FIX", "STEP", "NSTEP", "EXP", "INV", "POLY", "COS"},
        {"TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP"},
    )
    assert names == simple | cyclic


def test_lrensemble_holds_four_functions_at_four_peaks() -> None:
    policies = preset("lrensemble", lr_range=(0.01, 0.1))
    assert [policy.name for policy in policies[:4]] == ["NSTEP", "WarmupCosine", "OneCycle", "Piecewise"]
    peaks = [policy.resolve(total_steps=10_000).curve(10_000).max() for policy in policies]
    assert peaks == pytest.approx(np.repeat([0.01, 0.0215, 0.0464, 0.1], 4), rel=1e-3)


DOCUMENTED = {
    ("mnist-lenet-caffe", 10_000): ["INV(0.01, 0.0001, 0.75)"],
    ("cifar10-full-caffe", 70_000): ["NSTEP(0.001, 0.1, [60000, 65000])"],
    ("lrbench-mnist", 10_000): [
        "FIX(0.01)",
        "EXP(0.01, 0.99994)",
        "NSTEP(0.001, 0.1, [8571, 9286, 10000])",
        "TRI(0.01, 0.06, 2000)",
        "TRI2(0.01, 0.06, 2000)",
        "SIN(0.01, 0.06, 2000)",
        "SIN2(0.01, 0.06, 2000)",
        "COS(0.01, 0.06, 2000)",
        "TRIEXP(0.01, 0.06, 2000, 0.99994)",
        "SINEXP(0.01, 0.06, 2000, 0.99994)",
    ],
    ("lrbench-cifar10-resnet32", 64_000): [
        "[TRI(0.1, 0.5, 1500) @ 30000 | TRI(0.01, 0.05, 1000) @ 60000 | TRI(0.001, 0.005, 500)]"
    ],
    ("imagenet-resnet18", 90_000): ["STEP(0.1, 0.1, 30000)"],
}


@pytest.mark.parametrize(("name", "steps"), DOCUMENTED)
def test_documented_presets_at_the_length_of_their_source(name: str, steps: int) -> None:
    got = [policy.resolve(total_steps=steps).curve(steps) for policy in preset(name)]
    expected = [parse_policy(text).curve(steps) for text in DOCUMENTED[name, steps]]
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-12)


def test_cnn3_cycles_are_2000_of_70000_steps() -> None:
    for policy in preset("lrbench-cifar10-cnn3"):
        assert policy.resolve(total_steps=70_000).l == 2000


def test_fastspiker_one_cycle_stays_positive_and_ends_steeply() -> None:
    curve = preset("fastspiker")[-1].resolve(total_steps=200).curve(200)
    assert curve.argmax() == 90
    assert (curve > 0).all()
    assert curve[-1] < 1e-6


def test_mixed_lists_keep_order_and_drop_duplicates() -> None:
    policies = resolve_policies(
        ["FIX(0.5)", "default", FIX(0.5), {"policy": "FIX", "k0": 0.5}, "DEFAULT", "lrPolicy_FIX+k0_3"]
    )
    assert policies == [FIX(0.5), *preset("default"), FIX(3)]
    assert resolve_policies("fix-grid") == preset("fix-grid")
    assert resolve_policies(FIX(0.1)) == [FIX(0.1)]


def test_range_goes_to_the_presets_that_use_it() -> None:
    policies = resolve_policies(["fix-grid", "mnist-lenet-caffe"], lr_range=(1, 10))
    assert policies == [*preset("fix-grid", lr_range=(1, 10)), *preset("mnist-lenet-caffe")]
    with pytest.raises(PolicyError, match="lr_range: expected a preset that spreads its rates"):
        resolve_policies(["FIX(0.1)", "mnist-lenet-caffe"], lr_range=(1, 10))
    with pytest.raises(PolicyError, match="whose rates are its source's"):
        preset("mnist-lenet-caffe", lr_range=(1, 10))


@pytest.mark.parametrize(
    "lr_range", [(0, 1), (1, 0.1), (0.1,), (0.1, float("inf")), (float("nan"), 1), (-1, 1), (0.1, 0.2, 0.3)]
)
def test_ranges_are_checked(lr_range: tuple[float, ...]) -> None:
    with pytest.raises(PolicyError, match="lr_range: expected a range of learning rates 0 < lowest ≤ highest"):
        preset("default", lr_range=lr_range)
    with pytest.raises(PolicyError, match="lr_range: expected a range of learning rates 0 < lowest ≤ highest"):
        resolve_policies("FIX(0.1)", lr_range=lr_range)


def test_a_range_of_one_rate() -> None:
    assert resolve_policies("fix-grid", lr_range=(0.1, 0.1)) == [FIX(0.1)]


@pytest.mark.parametrize(
    ("word", "hint"), [("defalt", "default"), ("lrbnch", "lrbench"), ("fix_grid", "fix-grid"), ("TRIEX", "TRIEXP")]
)
def test_unknown_words_name_the_nearest_preset_or_policy(word: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown preset or policy '{word}': did you mean '{hint}'"):
        resolve_policies([word])


def test_other_refusals() -> None:
    with pytest.raises(UnknownNameError, match="unknown preset 'x'"):
        preset("x")
    with pytest.raises(UnknownNameError, match="unknown optimizer 'adma': did you mean 'adam'"):
        preset("default", optimizer="adma")
    with pytest.raises(PolicyError, match="at least one"):
        resolve_policies([])
    with pytest.raises(PolicyError, match=r"expected '\(' after TRI"):
        resolve_policies("TRI")


def test_documentation_names_every_policy_and_preset() -> None:
    page = (Path(__file__).parent.parent / "docs" / "policies.md").read_text(encoding="utf-8")
    missing = [name for name in (*POLICIES, *PRESETS) if not re.search(rf"`{name}[`(]|\W{name}\(", page)]
    assert not missing


def test_documentation_gives_the_ranges_of_the_optimizers() -> None:
    page = (Path(__file__).parent.parent / "docs" / "policies.md").read_text(encoding="utf-8")
    ranges = page[page.index("The range of base rates") : page.index("These suit small networks")]
    for low, high in RATE_RANGES.values():
        numbers = [float(text) for text in re.findall(r"(?<![\w.])\.?\d+(?:\.\d+)?(?:e-\d)?", ranges)]
        assert {low, high} <= set(numbers)
