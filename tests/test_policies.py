"""Properties that every policy in the table has, and resolution of times."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import tomllib
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_helpers import RUN, policies

from lrensemble.errors import PolicyError
from lrensemble.policies import FIX, NSTEP, POLICIES, STEP, TRI, Piecewise, Policy, TimePolicy, Warmup, parse_policy
from lrensemble.policies import parameters as kind
from lrensemble.policies.parameters import kinds

everyone = pytest.mark.parametrize("name", POLICIES)
of_time = pytest.mark.parametrize("name", [n for n, spec in POLICIES.items() if issubclass(spec.policy, TimePolicy)])
few = settings(max_examples=8, deadline=None)


@of_time
@given(data=st.data())
@few
def test_rates_do_not_depend_on_order_or_form_of_asking(name: str, data: st.DataObject) -> None:
    policy = data.draw(policies(name)).resolve(**RUN)
    curve = policy.curve(1237)
    order = np.random.default_rng(0).permutation(1237)
    assert np.array_equal(policy(order), curve[order])
    assert np.array_equal(policy(order[:1236].reshape(3, 4, 103)), curve[order[:1236]].reshape(3, 4, 103))
    single = [policy(int(t)) for t in order[:50]]
    assert all(type(rate) is float for rate in single)
    assert np.array_equal(single, curve[order[:50]])
    assert curve.dtype == np.float64


@of_time
@given(data=st.data())
@few
def test_rates_are_finite_and_within_those_named(name: str, data: st.DataObject) -> None:
    policy = data.draw(policies(name)).resolve(**RUN)
    rates = policy(np.arange(3000))
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    highest = max(
        [getattr(policy, key) for key, k in kinds(type(policy)).items() if k is kind.Rate.__metadata__[0]], default=1.0
    )
    assert (rates <= max(highest, 0.2 if name == "Warmup" else 0) * (1 + 1e-12)).all()
    if hasattr(policy, "k1"):
        assert (rates >= policy.k0).all()


@everyone
@given(data=st.data())
@few
def test_round_trips(name: str, data: st.DataObject) -> None:
    asked = data.draw(policies(name))
    for policy in (asked, asked.resolve(**RUN)):
        assert parse_policy(str(policy)) == policy
        assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
        assert Policy.from_dict(tomllib.loads(tomli_w.dumps(policy.to_dict()))) == policy
        assert parse_policy(policy.to_dict()) == policy
        again = pickle.loads(pickle.dumps(policy))
        assert again == policy
        assert hash(again) == hash(policy)
        assert copy.deepcopy(policy) == policy


@everyone
@given(data=st.data())
@few
def test_resolving_twice_changes_nothing(name: str, data: st.DataObject) -> None:
    policy = data.draw(policies(name)).resolve(**RUN)
    assert policy.resolved
    assert policy.resolve(**RUN) == policy
    assert policy.resolve() == policy


@everyone
@given(data=st.data())
@few
def test_policies_are_immutable(name: str, data: st.DataObject) -> None:
    policy = data.draw(policies(name))
    with pytest.raises(FrozenInstanceError):
        setattr(policy, fields(policy)[0].name, 1)


@everyone
def test_table_entries_are_described(name: str) -> None:
    spec = POLICIES[name]
    assert spec.formula
    assert spec.source
    assert spec.description
    assert spec.policy.__doc__
    assert spec.policy.__name__ in POLICIES


def test_equal_parameters_of_other_policies_are_not_equal() -> None:
    assert TRI(0.1, 0.2, 10) != parse_policy("SIN(0.1, 0.2, 10)")
    assert TRI(0.1, 0.2, 10) == TRI(k0=0.1, k1=0.2, l=10.0)
    assert len({TRI(0.1, 0.2, 10), TRI(0.1, 0.2, 10.0), TRI(0.1, 0.2, 11)}) == 2


def test_other_process_same_bits_and_no_heavy_imports() -> None:
    text = "[SINEXP(0.01, 0.2, 37, 0.999) @ 50 | Warmup(SGDR(0.0, 0.1, 20, 1.5), 10)]"
    code = (
        "import sys; from lrensemble.policies import parse_policy, preset\n"
        f"print(parse_policy({text!r}).curve(300).tobytes().hex(), len(preset('default')))\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'matplotlib', 'h5py', 'pydantic', 'joblib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == parse_policy(text).curve(300).tobytes().hex()


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("STEP(0.1, 0.1, l=30ep)", "STEP(k0=0.1, gamma=0.1, l=1500)"),
        ("STEP(0.1, 0.1, l=25%)", "STEP(k0=0.1, gamma=0.1, l=250)"),
        ("STEP(0.1, 0.1, l=0.25)", "STEP(k0=0.1, gamma=0.1, l=250)"),
        ("STEP(0.1, 0.1, l=12.34%)", "STEP(k0=0.1, gamma=0.1, l=123.4)"),
        ("TRI(0.1, 0.2, l=0.01%)", "TRI(k0=0.1, k1=0.2, l=1)"),
        ("NSTEP(0.1, 0.1, l=[10ep, 70%, 900])", "NSTEP(k0=0.1, gamma=0.1, l=[500, 700, 900])"),
        ("EXP(0.1, gamma=0.5/ep)", f"EXP(k0=0.1, gamma={0.5 ** (1 / 50)!r})"),
        ("EXP(0.1, gamma=0.01/run)", f"EXP(k0=0.1, gamma={0.01**0.001!r})"),
        ("INV(0.1, gamma=10/run, p=0.75)", "INV(k0=0.1, gamma=0.01, p=0.75)"),
        ("SIG(0.1, gamma=-1/ep, l=50%)", "SIG(k0=0.1, gamma=-0.02, l=500)"),
        ("POLY(0, 0.1)", "POLY(k0=0.0, k1=0.1, l=1000)"),
        ("OneCycle(0.1)", "OneCycle(peak=0.1, total=1000)"),
        ("WarmupCosine(0.1, warmup=0)", "WarmupCosine(peak=0.1, warmup=0, total=1000)"),
        # a share within a piece is a share of the piece; the last piece ends with the run
        (
            "[TRI(0.1, 0.2, 50%) @ 40% | POLY(0, 0.1) @ 700 | COS(0, 0.1, 100%)]",
            "[TRI(k0=0.1, k1=0.2, l=200) @ 400 | POLY(k0=0.0, k1=0.1, l=300) @ 700 | COS(k0=0.0, k1=0.1, l=300)]",
        ),
        ("Warmup(POLY(0, 0.1), steps=10%)", "Warmup(then=POLY(k0=0.0, k1=0.1, l=900), steps=100)"),
        (
            "[[FIX(0.1) @ 50% | FIX(0.2)] @ 50% | FIX(0.3)]",
            "[[FIX(k0=0.1) @ 250 | FIX(k0=0.2)] @ 500 | FIX(k0=0.3)]",
        ),
    ],
)
def test_resolve(text: str, resolved: str) -> None:
    policy = parse_policy(text).resolve(total_steps=1000, steps_per_epoch=50)
    assert str(policy) == resolved
    assert not parse_policy(text).resolved
    assert policy.resolved


def test_eight_cycles_of_an_eighth_end_with_the_run() -> None:
    for total in (997, 1000, 1003, 40_001):
        rates = parse_policy("RSW(k0=0, k1=0.1, l=12.5%)").resolve(total_steps=total).curve(total)
        assert (np.diff(rates) > 0).sum() == 7  # seven restarts, and none at the very end


def test_boundaries_of_a_tiny_run_stay_apart() -> None:
    assert NSTEP(0.1, 0.1, ["50%", "55%", "90%"]).resolve(total_steps=3).l == (2, 3, 4)
    pieces = parse_policy("[FIX(0.1) @ 1% | FIX(0.2) @ 2% | FIX(0.3)]").resolve(total_steps=5)
    assert pieces.curve(5).tolist() == [0.1, 0.2, 0.3, 0.3, 0.3]


def test_units_keep_their_number() -> None:
    assert str(STEP(0.1, 0.1, 0.07)) == "STEP(k0=0.1, gamma=0.1, l=7%)"
    assert STEP(0.1, 0.1, 0.5) == STEP(0.1, 0.1, "50%")
    assert str(STEP(0.1, 0.1, "2.5 epochs")) == "STEP(k0=0.1, gamma=0.1, l=2.5ep)"
    assert STEP(0.1, 0.1, "12 steps") == STEP(0.1, 0.1, 12)


@pytest.mark.parametrize(
    ("policy", "lengths", "message"),
    [
        ("STEP(0.1, 0.1, 30ep)", {"total_steps": 100}, "expected steps_per_epoch to resolve"),
        ("STEP(0.1, 0.1, 30%)", {"steps_per_epoch": 100}, "expected total_steps to resolve"),
        ("EXP(0.1, 0.1/run)", {}, "expected total_steps to resolve"),
        ("[FIX(0.1) @ 50 | POLY(0, 0.1)]", {}, "expected total_steps to resolve"),
        (
            "[FIX(0.1) @ 30% | FIX(0.2) @ 20 | FIX(0.3)]",
            {"total_steps": 200},
            "in ascending order, got 30%, 20, which in this run are the steps",
        ),
        ("FIX(0.1)", {"total_steps": 0}, "expected total_steps ≥ 1, got 0"),
        ("FIX(0.1)", {"total_steps": 1.5}, "whole number"),
        ("FIX(0.1)", {"steps_per_epoch": float("nan")}, "expected steps_per_epoch ≥ 1"),
        (
            "WarmupCosine(0.1, warmup=200)",
            {"total_steps": 100},
            "expected warmup ≤ total, got warmup=200 and total=100",
        ),
        ("Trapezoid(0.1, warmup=60, decay=60)", {"total_steps": 100}, r"warmup \+ decay ≤ total"),
        ("EXP(0.1, gamma=1.1)", {"total_steps": 10_000}, "finite, ≥ 0 and ≤ 10000, got 10198 at step 121"),
        ("STEP(0.1, gamma=100, l=1)", {"total_steps": 1000}, "finite"),
        ("FIX(20000)", {"total_steps": 10}, "got 20000 at step 0"),
    ],
)
def test_refused_in_a_run(policy: str, lengths: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_policy(policy).resolve(**lengths)


def test_growth_beyond_all_bounds_is_refused_without_a_warning() -> None:
    with pytest.raises(PolicyError, match="got inf at step 100000"):
        parse_policy("EXP(0.1, gamma=1.1)")(100_000)


def test_exponential_sweep_is_allowed_where_it_stays_bounded() -> None:
    sweep = parse_policy("EXP(1e-5, gamma=1e6/run)").resolve(total_steps=500)
    assert parse_policy(str(sweep)) == sweep
    assert sweep(499) == pytest.approx(10, rel=0.03)


@pytest.mark.parametrize("t", [-1, [0, -1], float("nan")])
def test_steps_before_the_start_are_refused(t: Any) -> None:
    with pytest.raises(PolicyError, match="expected steps t ≥ 0"):
        FIX(0.1)(t)


def test_unresolved_policies_cannot_be_called() -> None:
    policy = Piecewise(["50%"], [FIX(0.1), Warmup(FIX(0.1), "5%")])
    for use in (lambda: policy(0), lambda: policy.curve(10), lambda: policy.check(10)):
        with pytest.raises(PolicyError, match=r"expected a policy in steps, got .*: call resolve\(total_steps=…"):
            use()


def test_check_looks_at_every_step_of_a_long_run() -> None:
    policy = parse_policy("STEP(1, gamma=1e6, l=3000000)")
    policy.check(3_000_000)
    with pytest.raises(PolicyError, match="at step 3e\\+06"):
        policy.check(3_000_001)


def test_empty_and_zero_dimensional_steps() -> None:
    assert parse_policy("SGDR(0, 0.1, 10)").curve(0).shape == (0,)
    assert type(FIX(0.1)(np.float32(3))) is float
    assert type(FIX(0.1)(np.array(3))) is float
