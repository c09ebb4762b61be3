"""Tuning: judge, verify, recommend and compose learning-rate policies; every training becomes a member of a pool.

Names are imported when they are first used: importing the room is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME: dict[str, str] = {
    "RangeTest": "range_testing",
    "Verdict": "verifying",
    "range_test": "range_testing",
    "verify": "verifying",
    "Judgement": "judgement",
    "judge_policies": "judging",
    "POLICY_METRICS": "policy_metrics",
    "recommend": "recommending",
    "Trial": "study",
    "Space": "spaces",
    "Recommendation": "recommending",
    "Proposer": "study",
    "Composition": "composition",
    "compose": "composing",
    "Problem": "problem",
    "Store": "store",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lrensemble.tuning' has no attribute '{name}'")
    value = getattr(import_module(f"lrensemble.tuning.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
