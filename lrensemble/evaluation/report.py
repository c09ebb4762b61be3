"""`Report`: the outcome of evaluation as plain data; JSON, and a table with a verdict as text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lrensemble.errors import InputError, lookup
from lrensemble.evaluation.table import report_text
from lrensemble.files import check_format, read_json

__all__ = ["Comparison", "MemberScore", "Report", "Row", "Score", "Shift", "ShiftScore"]

FORMAT = "lrensemble-report"
VERSION = 1


@dataclass(frozen=True)
class Score:
    """A value with its bootstrap interval; low and high are None for a score that is no mean over samples."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One system: an ensemble or a baseline.

    Attributes
    ----------
    system
        Name, unique in the report.
    role
        ``"ensemble"``; ``"baseline"``, what anyone could use instead; ``"control"``, what it is instructive to compare
        with; ``"oracle"``, chosen with the test labels, so an upper bar and nothing one could have used.
    size
        Number of networks that answer.
    members, weights
        The networks and their weights; empty for a mean over networks.
    rule
        How they are combined.
    metrics
        Scores on test data, by metric.
    validation
        Accuracy and NLL on validation data.
    parameters, flops
        Sums over members (FLOPs: forward pass of one sample); None when unknown.
    """

    system: str
    role: str
    size: int
    members: tuple[str, ...]
    weights: tuple[float, ...]
    rule: str
    metrics: dict[str, Score]
    validation: dict[str, float]
    parameters: int | None = None
    flops: int | None = None


@dataclass(frozen=True)
class Comparison:
    """A system against the best single network chosen on validation, on the same test samples.

    Attributes
    ----------
    system, against
        Names of the two rows.
    differences
        Score of `system` minus score of `against`, by metric, with paired bootstrap intervals.
    wins, losses
        Samples that only `system`, and only `against`, gets right; None for a mean over networks.
    p_value
        McNemar's exact two-sided p; None for a mean over networks.
    """

    system: str
    against: str
    differences: dict[str, Score]
    wins: int | None = None
    losses: int | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class MemberScore:
    """One network of the pool: what it is, its weight in the first ensemble (0: not in it), accuracy and NLL."""

    id: str
    policy: str
    seed: int | None
    weight: float
    validation: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True)
class ShiftScore:
    """One system on one more split.

    Attributes
    ----------
    system
        Name of its row.
    metrics
        Accuracy and NLL with intervals, ECE; empty without labels.
    gain
        Accuracy minus that of the best single network chosen on validation; None for that network, or without labels.
    detection
        Without labels: area under the ROC curve of telling the split from test data, by ``"confidence"`` (the highest
        probability) and by ``"entropy"``.
    """

    system: str
    metrics: dict[str, Score]
    gain: Score | None = None
    detection: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shift:
    """The ensembles, the best single network and the whole pool on one more split, with labels or without."""

    name: str
    n_samples: int
    labelled: bool
    scores: tuple[ShiftScore, ...]


@dataclass(frozen=True)
class Report:
    """Outcome of `evaluate`; everything that a table or figure needs, without the pool.

    Attributes
    ----------
    rows
        The ensembles as given (the first is the one that the verdict is about), then the baselines.
    comparisons
        Each other system against the best single network chosen on validation.
    verdict
        What the test data say, in words.
    improved
        Whether the first ensemble is reliably more accurate than that network: the whole interval of the difference is
        above 0, and McNemar's p is below 1 − confidence.
    reference
        Name of the row that all others are compared with.
    members
        Scores of each network of the pool.
    agreement
        Of the first ensemble: ``{"members": ids, "matrix": shares of samples on which i and j predict alike}``.
    reliability
        For the first ensemble and the reference: 15 bins of equal width ``{"count", "confidence", "accuracy"}``.
    risk_coverage
        For the same: error rate on the most confident share of samples ``{"coverage", "risk"}``.
    n_test, n_val, n_members, n_classes
        Samples, members of the pool, classes.
    networks
        That a member consists of: more than one with folds.
    seed, bootstrap, confidence
        Of the intervals: seed, number of resamples, level.
    splits
        Names of the splits: ``{"test": …, "validation": …}``.
    fingerprint
        Of the pool.
    deep_equivalent
        How many random networks of the pool each ensemble is worth; see `deep_equivalents`.
    controls
        Each ensemble against the same method on the control pool, where there is one.
    shifts
        Scores on further splits.
    """

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    verdict: str
    improved: bool
    reference: str
    members: tuple[MemberScore, ...]
    agreement: dict[str, Any]
    reliability: dict[str, list[dict[str, float]]]
    risk_coverage: dict[str, list[dict[str, float]]]
    n_test: int
    n_val: int
    n_members: int
    n_classes: int
    seed: int = 0
    bootstrap: int = 2000
    confidence: float = 0.95
    splits: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    deep_equivalent: dict[str, Any] = field(default_factory=dict)
    controls: tuple[Comparison, ...] = ()
    shifts: tuple[Shift, ...] = ()
    networks: int = 1

    def __str__(self) -> str:
        return report_text(self)

    def row(self, system: str) -> Row:
        """Row of a system; raises `UnknownNameError` that lists the systems."""
        return lookup({row.system: row for row in self.rows}, system, "system")

    def comparison(self, system: str) -> Comparison | None:
        """Return the comparison of a system with the reference; None for the reference itself."""
        return {c.system: c for c in self.comparisons}.get(self.row(system).system)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form (no NaN; what is unknown is None); `from_dict` is its inverse."""
        return {"format": FORMAT, "version": VERSION, **json.loads(json.dumps(asdict(self), allow_nan=False))}

    def to_json(self) -> str:
        """Indented JSON text of `to_dict`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str = "report") -> Report:
        """Read the form that `to_dict` writes.

        Raises
        ------
        InputError
            If it is not a report, is of an unknown version, or lacks a field; `source` names the file.
        """
        check_format(data, FORMAT, (VERSION,), f"{source}: expected a report written by `lrensemble evaluate`")
        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        try:
            known["rows"] = tuple(_row(row) for row in data["rows"])
            known["comparisons"] = tuple(_comparison(comparison) for comparison in data["comparisons"])
            known["controls"] = tuple(_comparison(comparison) for comparison in data.get("controls", ()))
            known["shifts"] = tuple(_shift(shift) for shift in data.get("shifts", ()))
            known["members"] = tuple(MemberScore(**member) for member in data["members"])
            return cls(**known)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source}: expected a complete report, got one with a wrong field ({error})") from None

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a ``report.json``; raises `InputError` that names the file when it cannot be one."""
        return cls.from_dict(read_json(path, "a report"), str(path))


def _row(data: dict[str, Any]) -> Row:
    lists = {key: tuple(data[key]) for key in ("members", "weights")}
    return Row(**{**data, **lists, "metrics": _scores(data["metrics"])})


def _comparison(data: dict[str, Any]) -> Comparison:
    return Comparison(**{**data, "differences": _scores(data["differences"])})


def _shift(data: dict[str, Any]) -> Shift:
    return Shift(**{**data, "scores": tuple(_shift_score(score) for score in data["scores"])})


def _shift_score(data: dict[str, Any]) -> ShiftScore:
    gain = data["gain"] and Score(**data["gain"])
    return ShiftScore(**{**data, "metrics": _scores(data["metrics"]), "gain": gain})


def _scores(data: dict[str, Any]) -> dict[str, Score]:
    return {name: Score(**score) for name, score in data.items()}
