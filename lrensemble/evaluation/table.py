"""A report as text: tables, the verdict, and what the words in the tables mean. At most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrensemble.evaluation.report import Comparison, Report, Score, Shift

__all__ = ["p_text", "report_table", "report_text", "shift_table"]

WIDTH = 100

# metric, headings, factor, digits; in the order of the columns that follow accuracy and its difference, of which the
# last ones are left out where the page is too narrow
EXTRA = (
    ("nll", "NLL", "", 1, 3),
    ("calibrated_nll", "NLL", "cal.", 1, 3),
    ("brier", "Brier", "", 1, 3),
    ("ece", "ECE", "%", 100, 1),
    ("top5", "top5", "%", 100, 1),
    ("macro_f1", "F1", "%", 100, 1),
)
SHIFTED = tuple(entry for entry in EXTRA if entry[0] in ("nll", "ece"))


def report_table(report: Report) -> str:
    """One line a system: members, accuracy, gain over the best single network, and further scores as far as they fit.

    These are NLL, calibrated NLL, Brier, ECE, top-5 and macro-F1.
    """
    extra = [entry for entry in EXTRA if entry[0] in report.rows[0].metrics]
    extra = [entry for entry in extra if entry[0] != "top5" or report.n_classes > 5]
    gains = {comparison.system: comparison.differences["accuracy"] for comparison in report.comparisons}
    names, scores = [row.system for row in report.rows], [row.metrics for row in report.rows]
    columns = [
        ["system", "", *names],
        ["n", "", *(str(row.size) for row in report.rows)],
        *_accuracy_columns(report, scores, [gains.get(name) for name in names]),
    ]
    further = [_column(entry, scores) for entry in extra]
    for kept in range(len(further), 0, -1):
        table = _table(columns + further[:kept])
        if max(map(len, table.splitlines())) <= WIDTH:
            return table
    return _table(columns)


def shift_table(report: Report, shift: Shift) -> str:
    """One line a system on a further split: accuracy, gain, NLL and ECE; without labels, how well the split is told."""
    names = ["system", "", *(score.system for score in shift.scores)]
    if not shift.labelled:
        heading = f"split '{shift.name}', {shift.n_samples:,} samples without labels, told from test data (AUROC)"
        kinds = [
            ["by " + kind, "", *(f"{score.detection[kind]:.3f}" for score in shift.scores)]
            for kind in shift.scores[0].detection
        ]
        return f"{heading}\n{_table([names, *kinds])}"
    scores = [score.metrics for score in shift.scores]
    columns = _accuracy_columns(report, scores, [score.gain for score in shift.scores])
    table = _table([names, *columns, *(_column(entry, scores) for entry in SHIFTED)])
    return f"split '{shift.name}', {shift.n_samples:,} samples\n{table}"


def report_text(report: Report) -> str:
    """Table, verdict and notes."""
    table, answering = report_table(report), "members" if report.networks > 1 else "networks"
    notes = (
        f"{report.n_test:,} test samples, {report.n_classes} classes, pool of {report.n_members}; validation had "
        f"{report.n_val:,} samples. n: {answering} that answer. gain: accuracy minus that of the best single network "
        "chosen on validation. Intervals: paired bootstrap over test samples, "
        f"{report.bootstrap:,} resamples, seed {report.seed}. "
        "oracle: chosen with the test labels, an upper bar that nobody could have picked."
        + (" NLL cal.: after temperature scaling, cross-fitted on two halves." if " cal. " in table else "")
        + (_of_folds(report) if report.networks > 1 else "")
    )
    paragraphs = [report.verdict, *_equivalent(report), *_against_controls(report)]
    return "\n\n".join(
        [
            table,
            *(textwrap.fill(paragraph, WIDTH) for paragraph in paragraphs),
            *(shift_table(report, shift) for shift in report.shifts),
            textwrap.fill(notes, WIDTH),
        ]
    )


def _of_folds(report: Report) -> str:
    return (
        f" Cross-fitting: a member (called a network above) is {report.networks} networks, each trained without one "
        "fold of the validation samples, for which it answers; test samples get the mean probability of all."
    )


def _equivalent(report: Report) -> Iterator[str]:
    """Sentence on how many random networks the first ensemble is worth."""
    first = report.rows[0]
    found = report.deep_equivalent.get("systems", {}).get(first.system)
    if found:
        side = {"<": "fewer than ", ">": "more than ", "": ""}[found["bound"]]
        whole = found["members"] == int(found["members"])
        yield (
            f"Deep-ensemble equivalent: {first.system} has the calibrated NLL of "
            f"{side}{found['members']:.{0 if whole else 1}f} networks drawn at random from the pool "
            f"(it holds {first.size})."
        )


def _against_controls(report: Report) -> Iterator[str]:
    """Sentence on the ensembles and the same methods on a pool of one policy."""
    if report.controls:
        each = "; ".join(map(_against_control, report.controls))
        yield f"Accuracy against that of the same method on the control pool (one policy, other seeds): {each}."


def _against_control(comparison: Comparison) -> str:
    gain = comparison.differences["accuracy"]
    return (
        f"{comparison.system} {_minus(f'{100 * gain.value:+.2f}')} points (interval "
        f"{_interval(gain, '+.2f').replace('–', ' to ')}, McNemar p {p_text(comparison.p_value)})"
    )


def p_text(p: float | None) -> str:
    """Relation and value of a p-value: ``= 0.031``."""
    if p is None:
        return "unknown"
    return "< 0.0001" if p < 0.0001 else f"= {p:.2g}"


def _table(columns: Sequence[Sequence[str]]) -> str:
    """Columns of two headings and a cell a system; the first is text, the others are numbers."""
    from tabulate import tabulate

    # Headings go in as lines: as headers, tabulate would make their columns wider than the page.
    table = tabulate(
        list(zip(*columns, strict=True)),
        tablefmt="plain",
        disable_numparse=True,
        colalign=["left"] + ["right"] * (len(columns) - 1),
        maxcolwidths=[26] + [None] * (len(columns) - 1),
    ).splitlines()
    headings = [line.rstrip() for line in table[:2] if line.strip()]
    return "\n".join([*headings, "-" * max(map(len, table)), *table[2:]])


def _accuracy_columns(
    report: Report, scores: Sequence[dict[str, Score]], gains: Sequence[Score | None]
) -> list[list[str]]:
    """Accuracy, and its difference to the best single network (None for that network itself)."""
    level = f"{100 * report.confidence:g} % interval"
    return [
        ["accuracy, %", level, *_aligned([_accuracy(score["accuracy"]) for score in scores])],
        ["gain, points", level, *_aligned([_gain(gain) for gain in gains])],
    ]


def _column(entry: tuple[str, str, str, int, int], scores: Sequence[dict[str, Score]]) -> list[str]:
    metric, above, below, factor, digits = entry
    return [above, below, *(f"{factor * s[metric].value:.{digits}f}" if metric in s else "–" for s in scores)]


def _aligned(pairs: list[tuple[str, str]]) -> list[str]:
    """Value and interval in one column, the intervals under one another."""
    width = max(len(interval) for _, interval in pairs)
    return [f"{value} {interval:>{width}}" for value, interval in pairs]


def _accuracy(score: Score) -> tuple[str, str]:
    return f"{100 * score.value:.2f}", _interval(score, ".1f")


def _gain(gain: Score | None) -> tuple[str, str]:
    if gain is None:
        return "–", ""
    return _minus(f"{100 * gain.value:+.2f}"), _interval(gain, "+.1f").replace("–", " ")


def _interval(score: Score, form: str) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{_minus(f'{100 * score.low:{form}}')}–{_minus(f'{100 * score.high:{form}}')}"


def _minus(number: str) -> str:
    return number.replace("-", "−")
