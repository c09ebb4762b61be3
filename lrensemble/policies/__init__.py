"""Learning-rate policies: functions of the optimiser step, or of feedback; their text form, presets, use with PyTorch.

::

    from lrensemble.policies import parse_policy
    policy = parse_policy("Warmup(TRI2(k0=0.01, k1=0.06, l=12.5%), steps=5%)").resolve(total_steps=2000)
    policy(0), policy.curve(2000)
"""

from __future__ import annotations

from lrensemble.policies.base import Policy, TimePolicy, time_policy
from lrensemble.policies.compose import Piecewise, Warmup
from lrensemble.policies.decay import EXP, FIX, INV, NSTEP, POLY, SIG, STEP
from lrensemble.policies.family import (
    COS,
    COS2,
    COSEXP,
    COSRSW,
    COSRSW2,
    COSRSWEXP,
    DSIN,
    DSIN2,
    DSINEXP,
    DTRI,
    DTRI2,
    DTRIEXP,
    RSW,
    RSW2,
    RSWEXP,
    SIN,
    SIN2,
    SINEXP,
    SINRSW,
    SINRSW2,
    SINRSWEXP,
    TRI,
    TRI2,
    TRIEXP,
    UPCOS,
    UPCOS2,
    UPCOSEXP,
)
from lrensemble.policies.feedback import ChangeOnPlateau, FeedbackPolicy, FeedbackState, ReduceOnPlateau
from lrensemble.policies.practice import SGDR, OneCycle, Snapshot, Trapezoid, WarmupCosine, WarmupDecay
from lrensemble.policies.presets import PRESETS, RATE_RANGES, Preset, preset, resolve_policies
from lrensemble.policies.scale import SCALES, scale_family
from lrensemble.policies.table import POLICIES, PolicySpec
from lrensemble.policies.text import parse_policy

__all__ = [
    "COS",
    "COS2",
    "COSEXP",
    "COSRSW",
    "COSRSW2",
    "COSRSWEXP",
    "DSIN",
    "DSIN2",
    "DSINEXP",
    "DTRI",
    "DTRI2",
    "DTRIEXP",
    "EXP",
    "FIX",
    "INV",
    "NSTEP",
    "POLICIES",
    "POLY",
    "PRESETS",
    "RATE_RANGES",
    "RSW",
    "RSW2",
    "RSWEXP",
    "SCALES",
    "SGDR",
    "SIG",
    "SIN",
    "SIN2",
    "SINEXP",
    "SINRSW",
    "SINRSW2",
    "SINRSWEXP",
    "STEP",
    "TRI",
    "TRI2",
    "TRIEXP",
    "UPCOS",
    "UPCOS2",
    "UPCOSEXP",
    "ChangeOnPlateau",
    "FeedbackPolicy",
    "FeedbackState",
    "OneCycle",
    "Piecewise",
    "Policy",
    "PolicySpec",
    "Preset",
    "ReduceOnPlateau",
    "Snapshot",
    "TimePolicy",
    "Trapezoid",
    "Warmup",
    "WarmupCosine",
    "WarmupDecay",
    "parse_policy",
    "preset",
    "resolve_policies",
    "scale_family",
    "time_policy",
]
