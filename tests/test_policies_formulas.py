"""Every policy against independent expressions: scalar loops with `math`, and PyTorch's schedulers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrensemble.policies import POLICIES, TimePolicy, parse_policy

STEPS = 10_000
K0, K1, GAMMA, L = 0.01, 0.06, 0.9995, 700


def reference(t: int) -> dict[str, float]:
    """Wave times envelope of each family member, spelled out case by case with γ=.9995, l=700."""
    period = 2 * L
    tri = 2 / math.pi * abs(math.asin(math.sin(math.pi * t / period)))
    dtri = 2 / math.pi * abs(math.asin(math.sin(math.pi * (t + L) / period)))
    sin, dsin = abs(math.sin(math.pi * t / period)), abs(math.sin(math.pi * (t + L) / period))
    cos, upcos = (1 + math.cos(math.pi * t / L)) / 2, (1 + math.cos(math.pi * (t / L + 1))) / 2
    s = 1 - (t % L) / L
    sinrsw, cosrsw = math.sin(math.pi * s / 2), (1 - math.cos(math.pi * s)) / 2
    decay, low, top, restart = GAMMA**t, 2 ** (t // period), 2 ** ((t + L) // period), 2 ** (t // L)
    return {
        "TRI": tri,
        "TRI2": tri / low,
        "TRIEXP": tri * decay,
        "DTRI": dtri,
        "DTRI2": dtri / top,
        "DTRIEXP": dtri * decay,
        "SIN": sin,
        "SIN2": sin / low,
        "SINEXP": sin * decay,
        "DSIN": dsin,
        "DSIN2": dsin / top,
        "DSINEXP": dsin * decay,
        "COS": cos,
        "COS2": cos / top,
        "COSEXP": cos * decay,
        "UPCOS": upcos,
        "UPCOS2": upcos / low,
        "UPCOSEXP": upcos * decay,
        "RSW": s,
        "RSW2": s / restart,
        "RSWEXP": s * decay,
        "SINRSW": sinrsw,
        "SINRSW2": sinrsw / restart,
        "SINRSWEXP": sinrsw * decay,
        "COSRSW": cosrsw,
        "COSRSW2": cosrsw / restart,
        "COSRSWEXP": cosrsw * decay,
    }


REFERENCE = [reference(t) for t in range(STEPS)]
FAMILY = [name for name, spec in POLICIES.items() if hasattr(spec.policy, "wave")]


def test_family_has_27_members() -> None:
    assert len(FAMILY) == 27


@pytest.mark.parametrize("name", FAMILY)
def test_family(name: str) -> None:
    gamma = f", gamma={GAMMA}" if name.endswith("EXP") else ""
    policy = parse_policy(f"{name}(k0={K0}, k1={K1}, l={L}{gamma})")
    expected = [(K1 - K0) * wave[name] + K0 for wave in REFERENCE]
    np.testing.assert_allclose(policy.curve(STEPS), expected, rtol=0, atol=1e-9)


def _nstep(t: int) -> float:
    rate = 0.1
    for boundary in (3000, 7000, 9000):
        if t >= boundary:
            rate *= 0.1
    return rate


def _warmup_cosine(t: int) -> float:
    w, total, peak, floor = 500, 8000, 0.2, 0.01
    if t < w:
        return peak * t / w
    return floor if t >= total else floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * (t - w) / (total - w)))


def _warmup_decay_log(t: int) -> float:
    # DeepSpeed: lr = min + (max - min)·gamma, gamma = ln(t+1)/ln(W), then max(0, (T - t)/(T - W))
    w, total, low, high = 300, 9000, 0.001, 0.1
    gamma = math.log(t + 1) / math.log(w) if t < w else max(0.0, (total - t) / (total - w))
    return low + (high - low) * gamma


def _trapezoid_sqrt(t: int) -> float:
    peak, w, d, total, floor = 0.1, 400, 2000, 9500, 0.001
    if t < w:
        return peak * t / w
    if t < total - d:
        return peak
    return peak - (peak - floor) * math.sqrt(min(1.0, (t - (total - d)) / d))


def _resnet32(t: int) -> float:
    """Three triangles, each from its own start."""
    pieces = ((0, 4000, 0.1, 0.5, 150), (4000, 8000, 0.01, 0.05, 100), (8000, STEPS, 0.001, 0.005, 50))
    start, _, k0, k1, half = next(piece for piece in pieces if piece[0] <= t < piece[1])
    phase = (t - start) % (2 * half)
    return k0 + (k1 - k0) * (phase if phase <= half else 2 * half - phase) / half


def _sgdr(t: int) -> float:
    length, start = 450.5, 0.0
    while t >= start + length:
        start, length = start + length, length * 1.5
    return 0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi * (t - start) / length))


def _one_cycle_linear(t: int) -> float:
    top, end, first, last = 0.4 * 8000 - 1, 7999, 0.5 / 10, 0.5 / 10 / 100
    if t <= top:
        return first + (0.5 - first) * t / top
    return last if t >= end else 0.5 + (last - 0.5) * (t - top) / (end - top)


CASES = {
    "FIX(0.03)": lambda t: 0.03,
    "STEP(k0=0.1, gamma=0.5, l=900)": lambda t: 0.1 * 0.5 ** (t // 900),
    "STEP(k0=0.1, gamma=1.5, l=3000)": lambda t: 0.1 * 1.5 ** (t // 3000),
    "NSTEP(k0=0.1, gamma=0.1, l=[3000, 7000, 9000])": _nstep,
    "MultiStep(k0=0.1, gamma=0.1, l=[3000, 7000, 9000])": _nstep,
    "EXP(k0=0.01, gamma=0.99994)": lambda t: 0.01 * 0.99994**t,
    "EXP(k0=1e-05, gamma=1.001)": lambda t: 1e-5 * 1.001**t,
    "INV(k0=0.01, gamma=0.0001, p=0.75)": lambda t: 0.01 * (1 + 1e-4 * t) ** -0.75,
    "POLY(k0=0.001, k1=0.1, p=1.2, l=8000)": lambda t: 0.099 * (1 - min(t, 8000) / 8000) ** 1.2 + 0.001,
    "SIG(k0=0.1, gamma=-0.01, l=5000)": lambda t: 0.1 / (1 + math.exp(0.01 * (t - 5000))),
    "SIG(k0=0.1, gamma=0.002, l=5000)": lambda t: 0.1 / (1 + math.exp(-0.002 * (t - 5000))),
    "COS(k0=0.01, k1=0.06, l=700, period=paper)": lambda t: 0.05 * 0.5 * (1 + math.cos(2 * math.pi * t / 700)) + 0.01,
    "SGDR(k0=0.001, k1=0.1, l=450.5, mult=1.5)": _sgdr,
    "Snapshot(peak=0.1, cycles=4, total=10000)": lambda t: 0.05 * (math.cos(math.pi * (t % 2500) / 2500) + 1),
    "WarmupDecay(peak=0.1, warmup=300, floor=0.001, total=9000, shape=log)": _warmup_decay_log,
    "WarmupCosine(peak=0.2, warmup=500, floor=0.01, total=8000)": _warmup_cosine,
    "OneCycle(peak=0.5, total=8000, pct_start=0.4, div=10, final_div=100, shape=linear)": _one_cycle_linear,
    "Trapezoid(peak=0.1, warmup=400, decay=2000, floor=0.001, total=9500, shape=sqrt)": _trapezoid_sqrt,
    "WSD(peak=0.1, warmup=0, decay=1000, total=10000)": lambda t: 0.1 * min(1.0, (10_000 - t) / 1000),
    "Warmup(EXP(0.1, 0.999), steps=100, start=0.02)": lambda t: (
        0.02 + 0.08 * t / 100 if t < 100 else 0.1 * 0.999 ** (t - 100)
    ),
    "Warmup(FIX(0.1), steps=1000, shape=log)": lambda t: 0.1 * min(1.0, math.log(t + 1) / math.log(1000)),
    "[TRI(0.1, 0.5, 150) @ 4000 | TRI(0.01, 0.05, 100) @ 8000 | TRI(0.001, 0.005, 50)]": _resnet32,
    "Composite([4000, 8000], [TRI(0.1, 0.5, 150), TRI(0.01, 0.05, 100), TRI(0.001, 0.005, 50)])": _resnet32,
    "Piecewise([4000, 8000], [TRI(0.1, 0.5, 150), TRI(0.01, 0.05, 100), TRI(0.001, 0.005, 50)])": _resnet32,
}


@pytest.mark.parametrize("text", CASES)
def test_formula(text: str) -> None:
    expected = [CASES[text](t) for t in range(STEPS)]
    np.testing.assert_allclose(parse_policy(text).curve(STEPS), expected, rtol=1e-9, atol=1e-12)


def test_every_policy_has_a_formula_test() -> None:
    tested = {text.split("(")[0] for text in CASES} | set(FAMILY)
    of_time = {name for name, spec in POLICIES.items() if issubclass(spec.policy, TimePolicy)}  # others: test_feedback
    assert tested >= of_time - {"OneCycle"}  # its cosine form is tested against PyTorch


def test_points_of_the_waves_are_exact() -> None:
    assert parse_policy("TRI(0.01, 0.06, 700)")(700) == 0.06
    assert parse_policy("COS(0.01, 0.06, 700)")(0) == 0.06
    restart = parse_policy("RSW(0.01, 0.06, 700)")
    assert restart(0) == restart(700) == restart(7000) == 0.06  # a restart is warm: no dip at its first step


def _torch_rates(make: object, steps: int) -> np.ndarray:
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def _torch_cases() -> dict[str, object]:
    from torch.optim import lr_scheduler as s

    return {
        "OneCycle(peak=0.3, total=501)": lambda o: s.OneCycleLR(o, 0.3, total_steps=501),
        "OneCycle(peak=0.3, total=500, pct_start=0.45, shape=linear)": lambda o: s.OneCycleLR(
            o, 0.3, total_steps=500, pct_start=0.45, anneal_strategy="linear"
        ),
        "SGDR(k0=0.001, k1=0.1, l=50, mult=1)": lambda o: s.CosineAnnealingWarmRestarts(o, 50, 1, eta_min=0.001),
        "SGDR(k0=0.001, k1=0.1, l=30, mult=2)": lambda o: s.CosineAnnealingWarmRestarts(o, 30, 2, eta_min=0.001),
        "SGDR(k0=0, k1=0.1, l=7, mult=3)": lambda o: s.CosineAnnealingWarmRestarts(o, 7, 3),
        "COSRSW(k0=0, k1=0.1, l=60)": lambda o: s.CosineAnnealingWarmRestarts(o, 60),
        "COS(k0=0.01, k1=0.1, l=60)": lambda o: s.CosineAnnealingLR(o, 60, eta_min=0.01),
        "NSTEP(k0=0.1, gamma=0.2, l=[100, 300, 301])": lambda o: s.MultiStepLR(o, [100, 300, 301], gamma=0.2),
        "STEP(k0=0.1, gamma=0.5, l=77)": lambda o: s.StepLR(o, 77, gamma=0.5),
        "EXP(k0=0.1, gamma=0.99)": lambda o: s.ExponentialLR(o, 0.99),
        "POLY(k0=0, k1=0.1, p=2, l=400)": lambda o: s.PolynomialLR(o, 400, power=2),
        "TRI(k0=0.01, k1=0.06, l=40)": lambda o: s.CyclicLR(o, 0.01, 0.06, 40),
        "TRI2(k0=0.01, k1=0.06, l=40)": lambda o: s.CyclicLR(o, 0.01, 0.06, 40, mode="triangular2"),
        "TRIEXP(k0=0.01, k1=0.06, l=40, gamma=0.99)": lambda o: s.CyclicLR(
            o, 0.01, 0.06, 40, mode="exp_range", gamma=0.99
        ),
        "Warmup(FIX(0.1), steps=50, start=0.01)": lambda o: s.LinearLR(o, 0.1, total_iters=50),
        "[FIX(0.1) @ 200 | EXP(0.1, 0.9)]": lambda o: s.SequentialLR(
            o, [s.ConstantLR(o, 1.0), s.ExponentialLR(o, 0.9)], [200]
        ),
    }


@pytest.mark.parametrize("text", _torch_cases())
def test_torch_scheduler_agrees(text: str) -> None:
    expected = _torch_rates(_torch_cases()[text], 500)
    np.testing.assert_allclose(parse_policy(text).curve(500), expected, rtol=1e-7, atol=1e-12)


def test_snapshot_equals_cosine_restarts() -> None:
    snapshot = parse_policy("Snapshot(peak=0.1, cycles=8)").resolve(total_steps=1003)
    restarts = parse_policy("COSRSW(k0=0, k1=0.1, l=12.5%)").resolve(total_steps=1003)
    np.testing.assert_allclose(snapshot.curve(1003), restarts.curve(1003), rtol=1e-9, atol=1e-15)


def test_warmup_cosine_equals_warmup_in_front_of_half_a_cosine() -> None:
    whole = parse_policy("WarmupCosine(peak=0.1, warmup=10%)").resolve(total_steps=1000)
    built = parse_policy("Warmup(COS(k0=0, k1=0.1, l=100%), steps=10%)").resolve(total_steps=1000)
    np.testing.assert_allclose(whole.curve(1000), built.curve(1000), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 10])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_one_cycle_of_a_tiny_run_stays_within_its_rates(total: int, shape: str) -> None:
    rates = parse_policy(f"OneCycle(peak=0.3, total={total}, shape={shape})").curve(20)
    assert (rates >= 0.3 / 25 / 1e4 * (1 - 1e-9)).all()
    assert (rates <= 0.3).all()
