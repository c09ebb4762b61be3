"""Reading policies from text, mappings and LRBench's form; what is refused, and how."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrensemble.errors import InputError, PolicyError, UnknownNameError
from lrensemble.policies import COS, EXP, FIX, NSTEP, STEP, TRI, TRIEXP, Piecewise, Policy, Warmup, parse_policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("TRIEXP(k0=0.01, k1=0.06, l=2000, gamma=0.99994)", TRIEXP(0.01, 0.06, 2000, 0.99994)),
        ("fix(.1)", FIX(0.1)),
        ("  Tri ( 0.01 ,K1 = 0.06,\n l = 2000 steps ) ", TRI(0.01, 0.06, 2000)),
        ("FIX(1e-05)", FIX(0.00001)),
        ("FIX(1E+1)", FIX(10)),
        ("STEP(0.1, gamma=0.5, l=30 epochs)", STEP(0.1, 0.5, "30ep")),
        ("COS(0, 0.1, 50%, paper)", COS(0, 0.1, "50%", "paper")),
        ("COS(0, 0.1, 50%, period='paper')", COS(0, 0.1, 0.5, "paper")),
        ('COS(0, 0.1, 50%, period="paper")', COS(0, 0.1, 0.5, "paper")),
        ("EXP(0.1, 0.01 / run)", EXP(0.1, "0.01/run")),
        ("NSTEP(0.1, 0.1, 100)", NSTEP(0.1, 0.1, [100])),
        ("NSTEP(0.1, 0.1, l=[100, 200,300])", NSTEP(0.1, 0.1, (100, 200, 300))),
        ("Warmup(TRI(0.01, 0.06, 25%), steps=5%)", Warmup(TRI(0.01, 0.06, "25%"), "5%")),
        (
            "[FIX(0.1) @ 0.5 | STEP(k0=0.1, gamma=0.1, l=30ep)]",
            Piecewise(["50%"], [FIX(0.1), STEP(0.1, 0.1, "30ep")]),
        ),
        ("[FIX(0.1)@10|FIX(0.2)@20|FIX(0.3)]", Piecewise([10, 20], [FIX(0.1), FIX(0.2), FIX(0.3)])),
        ("[[FIX(1) @ 5 | FIX(2)] @ 10 | FIX(3)]", Piecewise([10], [Piecewise([5], [FIX(1), FIX(2)]), FIX(3)])),
    ],
)
def test_reads(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("lrPolicy_NSTEP+k0_0.001+gamma_0.1+l_8571+9286", NSTEP(0.001, 0.1, [8571, 9286])),
        ("k1_0.006+k0_5e-05+lrPolicy_UPCOS+l_2000", parse_policy("UPCOS(5e-05, 0.006, 2000)")),
        ("lrPolicy_EXP+k0_1e-05+gamma_0.99994+p_None+l_None+k1_None", EXP(1e-5, 0.99994)),
        ("lrPolicy_FIX+k0_1e+1", FIX(10)),
        (
            "lrPolicy_TRI+k0_1e-05+k1_0.5+l_1500-lrPolicy_NSTEP+k0_0.1+gamma_0.1+l_5+9-lrPolicy_FIX+k0_0.1-AT-30000+60000",
            Piecewise([30_000, 60_000], [TRI(1e-5, 0.5, 1500), NSTEP(0.1, 0.1, [5, 9]), FIX(0.1)]),
        ),
    ],
)
def test_reads_lrbench(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy


def test_reads_mappings() -> None:
    assert parse_policy({"policy": "tri2", "k0": 0.01, "k1": 1, "l": "30ep"}) == parse_policy("TRI2(0.01, 1, 30ep)")
    nested = {"policy": "Piecewise", "boundaries": [0.5], "policies": ["FIX(0.1)", {"policy": "FIX", "k0": 0.2}]}
    assert parse_policy(nested) == Piecewise(["50%"], [FIX(0.1), FIX(0.2)])
    assert parse_policy({"policy": "Warmup", "then": "FIX(0.1)", "steps": 5}) == Warmup(FIX(0.1), 5)
    assert parse_policy(FIX(0.1)) == FIX(0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a policy such as TRI(k0=0.01, k1=0.06, l=2000) at column 1 of '', got the end"),
        ("0.1", "expected a policy such as TRI(k0=0.01, k1=0.06, l=2000) at column 1 of '0.1', got '0.1'"),
        ("FIX", "expected '(' after FIX at column 4 of 'FIX', got the end"),
        ("FIX(k0=0.1 l=3)", "expected ',' or ')' at column 12 of 'FIX(k0=0.1 l=3)', got 'l=3)'"),
        ("FIX(0.1", "expected ',' or ')' at column 8 of 'FIX(0.1', got the end"),
        ("FIX(0.1) x", "expected the end of the policy at column 10 of 'FIX(0.1) x', got 'x'"),
        (
            "FIX(0..1)",
            "expected a number such as 0.1, 2000, 30ep, 12.5% or 0.01/run at column 5 of 'FIX(0..1)', got '0..1)'",
        ),
        ("STEP(0.1, 0.1, 30epo)", "at column 16"),
        ("STEP(gamma=0.1, 0.1, 3)", "expected a named parameter after named ones at column 17"),
        ("FIX(k0=0.1, k0=0.2)", "FIX: expected each parameter once, got 'k0' twice"),
        ("FIX(0.1, k0=0.2)", "FIX: expected each parameter once, got 'k0' twice"),
        ("FIX(0.1, 0.2)", "FIX: expected at most 1 parameters (k0), got 2"),
        ("STEP(k0=0.1, gama=0.1, l=3)", "STEP: unknown parameter 'gama': did you mean 'gamma'? expected k0, gamma, l"),
        ("TRI(0.1)", "TRI: expected values for k0, k1, l, got none for k1 and l"),
        ("[FIX(0.1) | FIX(0.2)]", "expected ',' or ']' at column 11 of '[FIX(0.1) | FIX(0.2)]', got '|'"),
        ("[FIX(0.1)]", "expected '@' and a time after the first policy at column 11"),
        ("[FIX(0.1) @ 5]", "expected '|' and the next policy at column 14"),
        ("[FIX(0.1) @ 5 | 3]", "expected a policy such as TRI(k0=0.01, k1=0.06, l=2000) at column 17"),
        ("[FIX(0.1) @ 5 | FIX(0.2)", "expected '@', or ']' after the last policy at column 25"),
        ("[1, 2]", "expected '@' and a time after the first policy"),
        ("[" * 50, "expected at most 20 levels of policies"),
        ("lrPolicy_FIX", "FIX: expected a value for k0, got none"),
        ("lrPolicy_FIX+k0_x", "expected a number such as 0.1, 2000, 30ep, 12.5% or 0.01/run, got 'x'"),
        ("lrPolicy_FIX+k0_1-lrPolicy_FIX+k0_2", "Piecewise: boundaries: expected ascending times"),
        ("x+lrPolicy_FIX+k0_1", "expected LRBench's lrPolicy_NAME+parameter_value+…, got 'x+lrPolicy_FIX+k0_1'"),
    ],
)
def test_refused_texts(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["TRIEX(k0=0.1)", {"policy": "TRIEX", "k0": 0.1}, "lrPolicy_TRIEX+k0_1"])
def test_unknown_policies_name_the_nearest(text: Any) -> None:
    with pytest.raises(UnknownNameError, match="unknown policy 'TRIEX': did you mean 'TRIEXP'"):
        parse_policy(text)


@pytest.mark.parametrize("value", [None, 3, ["FIX(0.1)"], {"k0": 0.1}, {"policy": 3}])
def test_what_is_no_policy_is_refused(value: Any) -> None:
    with pytest.raises(PolicyError, match="expected a "):
        parse_policy(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FIX(-0.1)", "FIX: k0: expected a learning rate ≥ 0, got -0.1"),
        ("FIX(nan)", "FIX: k0: expected a learning rate ≥ 0, got 'nan'"),
        ("FIX(1e999)", "FIX: k0: expected a learning rate ≥ 0, got inf"),
        ("FIX(5%)", "FIX: k0: expected a learning rate ≥ 0, got 5%"),
        ("FIX(FIX(0.1))", "FIX: k0: expected a learning rate ≥ 0"),
        ("STEP(0.1, 0, 5)", "STEP: gamma: expected a factor > 0, got 0"),
        ("STEP(0.1, 0.1, 0)", "STEP: l: expected a length ≥ 1 step"),
        ("STEP(0.1, 0.1, -3)", "got -3"),
        ("STEP(0.1, 0.1, 0%)", "got 0%"),
        (
            "STEP(0.1, 0.1, 1.0)",
            "STEP: l: expected 1 (one step) or 100% (the whole run), got 1.0, which could be either",
        ),
        ("STEP(0.1, 0.1, 0.9/run)", "STEP: l: expected a length ≥ 1 step: steps (2000), epochs (30ep) or a share"),
        ("STEP(0.1, 0.1/run, 5)", "STEP: gamma: expected a factor > 0, got 0.1/run"),
        ("NSTEP(0.1, 0.1, [5, 3])", "NSTEP: l: expected ascending times ≥ 1 step"),
        ("NSTEP(0.1, 0.1, [5, 5])", "NSTEP: l: expected ascending times"),
        ("NSTEP(0.1, 0.1, [50%, 7, 40%])", "NSTEP: l: expected ascending times"),
        ("NSTEP(0.1, 0.1, [0, 5])", "NSTEP: l: expected ascending times"),
        ("EXP(0.1, -0.5)", "EXP: gamma: expected a factor > 0 per step"),
        ("INV(0.1, -0.1, 0.75)", "INV: gamma: expected a number ≥ 0 per step"),
        ("INV(0.1, 0.1, -1)", "INV: p: expected a power > 0, got -1"),
        ("POLY(0.1, 0.01)", "POLY: expected k0 ≤ k1, got k0=0.1 and k1=0.01"),
        ("TRI(0.1, 0.01, 5)", "TRI: expected k0 ≤ k1, got k0=0.1 and k1=0.01"),
        ("TRIEXP(0.01, 0.1, 5, 1.001)", "TRIEXP: gamma: expected a factor in (0, 1] per step"),
        ("COSRSWEXP(0.01, 0.1, 5, 2/run)", "COSRSWEXP: gamma: expected a factor in (0, 1] per step"),
        ("COS(0.01, 0.1, 5, period=papr)", "COS: period: expected code or paper, got 'papr'"),
        ("WarmupCosine(0.1, floor=0.2)", "WarmupCosine: expected floor ≤ peak, got floor=0.2 and peak=0.1"),
        ("WarmupCosine(0.1, warmup=120%)", "WarmupCosine: expected warmup ≤ total, got warmup=120% and total=100%"),
        ("OneCycle(0.1, pct_start=1.5)", "OneCycle: pct_start: expected a share of the run between 0 and 1, got 1.5"),
        ("OneCycle(0.1, div=0.5)", "OneCycle: div: expected a number ≥ 1, got 0.5"),
        ("SGDR(0, 0.1, 5, mult=0.5)", "SGDR: mult: expected a number ≥ 1, got 0.5"),
        ("Warmup(0.1, 5)", "Warmup: then: expected a policy, got 0.1"),
        ("Warmup(FIX(0.1), -5)", "Warmup: steps: expected a length ≥ 0"),
        ("Piecewise([5], [FIX(0.1)])", "expected one policy more than boundaries, got 1 policies and 1 boundaries"),
        ("Piecewise([5], FIX(0.1))", "Piecewise: policies: expected a list of policies"),
        ("Piecewise([5], [FIX(0.1), 3])", "Piecewise: policies: expected a list of policies"),
    ],
)
def test_refused_values(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [True, "0.1", None, [0.1], 1j, float("inf")])
def test_rates_are_plain_numbers(value: Any) -> None:
    with pytest.raises(PolicyError, match="FIX: k0: expected a learning rate ≥ 0"):
        FIX(value)


@given(st.text("FIXTRI(){}[]@|,.=0123456789%/ \nruneplk'\"é", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    policy = None
    with suppress(InputError):
        policy = parse_policy(text)
    assert policy is None or parse_policy(str(policy)) == policy


@given(st.integers(0, 60), st.sampled_from("([,|@=x%"))
@settings(max_examples=60, deadline=None)
def test_a_damaged_text_is_refused(place: int, symbol: str) -> None:
    text = "[TRI(k0=0.01, k1=0.06, l=25%) @ 50% | FIX(0.1) @ 80% | EXP(0.1, 0.5/run)]"
    damaged = text[:place] + symbol + text[place:]
    with pytest.raises(InputError):
        parse_policy(damaged)
