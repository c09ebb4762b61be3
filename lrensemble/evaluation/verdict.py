"""The verdict: what the test data say about an ensemble against the best single network, in plain words."""

from __future__ import annotations

from lrensemble.evaluation.report import Comparison, Row, Score
from lrensemble.evaluation.table import p_text

__all__ = ["reliable_direction", "write_verdict"]


def reliable_direction(comparison: Comparison, confidence: float) -> int:
    """Say whether accuracy is reliably better (1), reliably worse (−1), or neither (0).

    Reliable: the whole interval of the difference is on one side of 0, and McNemar's p is below 1 − confidence. The
    percentile interval alone is too narrow where few samples differ; the exact test is not.
    """
    certain = comparison.p_value is not None and comparison.p_value < 1 - confidence
    return _direction(comparison.differences["accuracy"]) if certain else 0


def write_verdict(team: Row, single: Row, comparison: Comparison, *, n_test: int, confidence: float) -> str:
    """Sentences on accuracy, on NLL, and on what to use.

    Parameters
    ----------
    team, single
        Rows of the ensemble and of the best single network chosen on validation.
    comparison
        The first against the second.
    """
    name, digits = single.members[0], 1 if n_test < 1000 else 2
    if team.members == single.members:
        return (
            f"No improvement: the ensemble ({team.system}) is the best single network itself, '{name}', "
            f"right on {_percent(single, digits)} of {n_test:,} test samples. Use that network."
        )
    openings = {
        1: "The ensemble",
        0: "No reliable improvement in accuracy: the ensemble",
        -1: "The ensemble is worse than the best single network: the ensemble",
    }
    direction = reliable_direction(comparison, confidence)
    gain, change = comparison.differences["accuracy"], comparison.differences["nll"]
    level = f"{100 * confidence:g} %"
    return (
        f"{openings[direction]} of {team.size}, {team.system}, is right on {_percent(team, digits)} of {n_test:,} test "
        f"samples, the best single network (chosen on validation) on {_percent(single, digits)}: "
        f"{_points(gain.value, digits)} points ({level} interval {_points(gain.low, digits)} to "
        f"{_points(gain.high, digits)}, McNemar p {p_text(comparison.p_value)}). "
        f"{_on_nll(team, single, change, level)} {_advice(direction, _direction(change), team.size, name)}"
    )


def _on_nll(team: Row, single: Row, change: Score, level: str) -> str:
    judged = {-1: "Its probabilities are better", 1: "Its probabilities are worse"}
    opening = judged.get(_direction(change), "Its probabilities are not reliably better or worse")
    return (
        f"{opening}: NLL {team.metrics['nll'].value:.3f} against {single.metrics['nll'].value:.3f} "
        f"({_signed(change.value, 3)}, {level} interval {_signed(change.low, 3)} to {_signed(change.high, 3)})."
    )


def _advice(direction: int, nll_direction: int, size: int, single: str) -> str:
    if direction > 0:
        return "Use the ensemble."
    if direction < 0:
        return f"Use the single network '{single}'."
    if nll_direction < 0:
        return f"Use the ensemble where probabilities matter; where only the class does, use the network '{single}'."
    cost = ", and it costs more" if size > 1 else ""
    return f"Use the single network '{single}': the evidence for the ensemble is too weak{cost}."


def _direction(change: Score) -> int:
    """Return 1 or −1 when the whole interval is on that side of 0, else 0."""
    if change.low is None or change.high is None:
        return 0
    return int(change.low > 0) - int(change.high < 0)


def _percent(row: Row, digits: int) -> str:
    return f"{100 * row.metrics['accuracy'].value:.{digits}f} %"


def _points(share: float | None, digits: int) -> str:
    return _signed(100 * share if share is not None else None, digits)


def _signed(value: float | None, digits: int) -> str:
    if value is None:
        return "unknown"
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text.replace("-", "").replace("+", "±")
