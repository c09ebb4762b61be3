"""A report as text: the table, the verdict, and what the words in the table mean. At most 100 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrensemble.evaluation.report import Report, Row, Score

__all__ = ["report_table", "report_text"]

WIDTH = 100

# metric, headings, factor, digits; in the order of the columns that follow accuracy and its difference
EXTRA = (
    ("nll", "NLL", "", 1, 3),
    ("brier", "Brier", "", 1, 3),
    ("ece", "ECE", "%", 100, 1),
    ("macro_f1", "F1", "%", 100, 1),
    ("top5", "top5", "%", 100, 1),
)


def report_table(report: Report) -> str:
    """One line a system: members, accuracy, gain over the best single network, NLL, Brier, ECE, macro-F1, top-5."""
    from tabulate import tabulate

    extra = [entry for entry in EXTRA if entry[0] in report.rows[0].metrics]
    extra = [entry for entry in extra if entry[0] != "top5" or report.n_classes > 5]
    level = f"{100 * report.confidence:g} % interval"
    columns = [
        ["system", "", *(row.system for row in report.rows)],
        ["n", "", *(str(row.size) for row in report.rows)],
        ["accuracy, %", level, *_aligned([_accuracy(row) for row in report.rows])],
        ["gain, points", level, *_aligned([_gain(report, row) for row in report.rows])],
        *([*entry[1:3], *(_cell(row, entry) for row in report.rows)] for entry in extra),
    ]
    # Headings go in as lines: as headers, tabulate would make their columns wider than the page.
    table = tabulate(
        list(zip(*columns, strict=True)),
        tablefmt="plain",
        disable_numparse=True,
        colalign=["left"] + ["right"] * (len(columns) - 1),
        maxcolwidths=[26] + [None] * (len(columns) - 1),
    ).splitlines()
    return "\n".join([*table[:2], "-" * max(map(len, table)), *table[2:]])


def report_text(report: Report) -> str:
    """Table, verdict and notes."""
    notes = (
        f"{report.n_test:,} test samples, {report.n_classes} classes, pool of {report.n_members}; validation had "
        f"{report.n_val:,} samples. n: networks that answer. gain: accuracy minus that of the best single network "
        "chosen on validation. Intervals: paired bootstrap over test samples, "
        f"{report.bootstrap:,} resamples, seed {report.seed}. "
        "oracle: chosen with the test labels, an upper bar that nobody could have picked."
    )
    return "\n\n".join([report_table(report), textwrap.fill(report.verdict, WIDTH), textwrap.fill(notes, WIDTH)])


def _aligned(pairs: list[tuple[str, str]]) -> list[str]:
    """Value and interval in one column, the intervals under one another."""
    width = max(len(interval) for _, interval in pairs)
    return [f"{value} {interval:>{width}}" for value, interval in pairs]


def _accuracy(row: Row) -> tuple[str, str]:
    score = row.metrics["accuracy"]
    return f"{100 * score.value:.2f}", _interval(score, ".1f")


def _gain(report: Report, row: Row) -> tuple[str, str]:
    comparison = report.comparison(row.system)
    if comparison is None:
        return "–", ""
    gain = comparison.differences["accuracy"]
    return _minus(f"{100 * gain.value:+.2f}"), _interval(gain, "+.1f").replace("–", " ")


def _interval(score: Score, form: str) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{_minus(f'{100 * score.low:{form}}')}–{_minus(f'{100 * score.high:{form}}')}"


def _cell(row: Row, entry: tuple[str, str, str, int, int]) -> str:
    metric, _, _, factor, digits = entry
    score = row.metrics.get(metric)
    return "–" if score is None else f"{factor * score.value:.{digits}f}"


def _minus(number: str) -> str:
    return number.replace("-", "−")
