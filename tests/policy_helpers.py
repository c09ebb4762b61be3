"""Strategies that draw policies, for properties that all of them share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lrensemble.policies import POLICIES, Policy, feedback, parse_policy
from lrensemble.policies import parameters as kind
from lrensemble.policies.parameters import kinds

RUN = {"total_steps": 1237, "steps_per_epoch": 41.5}

shares = st.integers(1, 80).map(lambda n: f"{n / 2}%") | st.floats(0.01, 0.9)
times = st.integers(1, 900) | st.integers(1, 25).map("{}ep".format) | shares
inner = st.sampled_from(["FIX(0.1)", "TRI(0.01, 0.2, 25%)", "Warmup(EXP(0.1, 0.5/run), 2ep)"]).map(parse_policy)

BY_KIND: dict[Any, st.SearchStrategy[Any]] = {
    kind.Rate: st.floats(0, 1),
    kind.Factor: st.floats(0.01, 1),
    kind.Power: st.floats(0.1, 3),
    kind.Length: times,
    kind.Steps: st.just("100%") | st.integers(910, 2000),
    kind.OptionalSteps: st.integers(0, 300) | st.sampled_from(["2ep", "7.5%", 0.11]),
    kind.Boundaries: st.just((100, "30%", "75%")) | st.just(("5ep", "10ep", 600)),
    kind.Decay: st.floats(0.99, 1) | st.floats(0.01, 1).map("{}/run".format) | st.just("0.9/ep"),
    kind.Growth: st.floats(0.99, 1) | st.just("0.01/run") | st.just("0.9/ep"),
    kind.Slope: st.floats(-0.1, 0.1) | st.just("-20/run"),
    kind.Rise: st.floats(0, 0.1) | st.just("10/run"),
    feedback.Window: st.integers(2, 12) | st.sampled_from(["3ep", "10%", 0.2]),
    feedback.Epochs: st.integers(0, 5) | st.sampled_from(["3ep", "2%"]),
    feedback.Index: st.integers(0, 3),
    kind.Inner: inner,
    kind.Shape: inner,
    kind.InnerInOrder: st.tuples(inner, inner, inner, inner),
}
BY_KIND_OBJECT = {annotation.__metadata__[0]: strategy for annotation, strategy in BY_KIND.items()}
BY_NAME = {"pct_start": st.floats(0.05, 0.9), "div": st.floats(1, 100), "final_div": st.floats(1, 1e5)}
BY_NAME |= {"mult": st.sampled_from([1, 1.5, 2, 3]), "cycles": st.floats(1, 20)}
BY_NAME |= {"factor": st.floats(0.01, 0.99), "threshold": st.floats(0, 0.9), "eps": st.floats(0, 0.01)}
BY_NAME |= {"every": st.just("1ep")}


def _values(name: str, of_kind: kind.Kind) -> st.SearchStrategy[Any]:
    if name in BY_NAME:
        return BY_NAME[name]
    return BY_KIND_OBJECT[of_kind] if of_kind in BY_KIND_OBJECT else st.sampled_from(of_kind.expected.split(" or "))


@st.composite
def policies(draw: st.DrawFn, name: str) -> Policy:
    """Policies of one entry of the table, as one would ask for them."""
    cls = POLICIES[name].policy
    values = {key: draw(_values(key, of_kind)) for key, of_kind in kinds(cls).items()}
    if name == "ChangeOnPlateau":
        values["policies"] = sorted(
            values["policies"], key=lambda policy: "TRI" not in str(policy)
        )  # the highest first
    for low, high in (("k0", "k1"), ("floor", "peak"), ("min_lr", "k0")):
        if {low, high} <= set(values):
            values[low], values[high] = sorted((values[low], values[high]))
    return cls(**values)
