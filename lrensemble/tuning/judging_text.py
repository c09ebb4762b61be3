"""A judgement as text: who is judged, then a table for each kind of metric; about 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrensemble.tuning.policy_metrics import POLICY_METRICS, PolicyMetric, Spread

if TYPE_CHECKING:
    from lrensemble.tuning.judgement import Judgement, OptimizerTable, PolicyRow

__all__ = ["judgement_text", "optimizer_table"]

WIDTH = 100
UNKNOWN = "-"
HUGE = 1e7  # numbers that are written with an exponent, such as the loss of a network that is lost

# columns of the tables, in order; one without any value is left out
SHOWN = {
    "utility": ("top1", "top5", "ac", "cd", "cdac", "left_out"),
    "cost": ("steps_to_best", "seconds_to_best", "steps_to_target", "seconds_to_target", "steps", "seconds"),
    "robustness": ("loss_difference", "seed_spread", "scale_drop"),
}


def judgement_text(judgement: Judgement) -> str:
    """Policies, the best first; under the same numbers their utility, cost and robustness; and what is left out."""
    asked = "" if judgement.target is None else f", target {100 * judgement.target:g} %"
    scaled = "×0.5: Top-1 % of the policy with all its rates halved, and so on"
    headings = {
        "utility": f"Utility on {judgement.n_samples:,} samples of '{judgement.split}' (mean ± sd over trainings)",
        "cost": f"Cost, by the validation accuracy after each epoch{asked}",
        "robustness": f"Robustness on '{judgement.split}'" + (f"; {scaled}" if _scale_columns(judgement.rows) else ""),
    }
    tables = [f"{heading}\n{table}" for kind, heading in headings.items() if (table := _kind_table(judgement, kind))]
    return "\n\n".join(filter(None, [_title(judgement), _who(judgement), *tables, _notes(judgement)]))


def optimizer_table(table: OptimizerTable) -> str:
    """One line a policy, one column an optimiser: mean ± sd over trainings, and how many diverged."""
    metric = POLICY_METRICS[table.metric]
    circumstances = ("epochs", "model", "settings")
    varying = [name for name in circumstances if len({repr(shared[name]) for shared, _ in table.rows}) > 1]
    lines = []
    for shared, cells in table.rows:
        line = [_wrapped(shared["policy"], 40), *(_wrapped(_plain(shared[name]), 24) for name in varying)]
        lines.append(line + [_optimizer_cell(metric, cells[name]) for name in table.optimizers])
    better = "higher" if metric.higher_is_better else "lower"
    return f"{metric.heading}: {metric.description} ({better} is better)\n" + _table(
        ["policy", *varying, *table.optimizers], lines
    )


def _optimizer_cell(metric: PolicyMetric, row: PolicyRow | None) -> str:
    if row is None:
        return UNKNOWN
    diverged = f"{row.diverged} diverged" if row.diverged else ""
    if not row.done:
        return diverged
    value = _spread(metric, row.metrics[metric.name], row)
    return f"{value}, {diverged}" if diverged else value


def _title(judgement: Judgement) -> str:
    metric = POLICY_METRICS[judgement.sort]
    title = f"{judgement.pool}: {_count(len(judgement.rows), 'row')}, by {metric.heading}, the best first"
    if judgement.split == "test":
        title += "\nTest data: for a report. A policy that is chosen by these numbers is not tested by them any more."
    return title


def _who(judgement: Judgement) -> str:
    """Table of what each row is: policy, optimiser, and the settings in which rows differ."""
    rows = judgement.rows
    columns: dict[str, list[str]] = {
        "policy": [_wrapped(row.policy, 44) for row in rows],
        "optimizer": [row.optimizer or UNKNOWN for row in rows],
        "epochs": [UNKNOWN if row.epochs is None else str(row.epochs) for row in rows],
        "model": [_wrapped(row.model or UNKNOWN, 20) for row in rows] if len({row.model for row in rows}) > 1 else [],
        **{name: [_plain(row.settings.get(name)) for row in rows] for name in judgement.varying},
        "highest rate": [UNKNOWN if row.rate is None else f"{row.rate:.4g}" for row in rows],
        "trainings": [_trainings(row) for row in rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cell != UNKNOWN for cell in cells)}
    lines = zip(_numbers(rows), *kept.values(), strict=True)
    return _table(["", *kept], [list(line) for line in lines])


def _trainings(row: PolicyRow) -> str:
    return f"{row.done} + {row.diverged} diverged" if row.diverged else str(row.done)


def _kind_table(judgement: Judgement, kind: str) -> str:
    """Table of one kind of metric; empty where nothing is known."""
    columns = {}
    for metric in (POLICY_METRICS[name] for name in SHOWN[kind]):
        spreads = [row.metrics[metric.name] for row in judgement.rows]
        if any(spread and (metric.name != "left_out" or spread.max) for spread in spreads):
            cells = zip(spreads, judgement.rows, strict=True)
            columns[metric.heading] = [_spread(metric, spread, row) for spread, row in cells]
    if kind == "robustness":
        columns |= _scale_columns(judgement.rows)
    if not columns:
        return ""
    policies = [row.policy if len(row.policy) <= 26 else f"{row.policy[:25]}…" for row in judgement.rows]
    lines = zip(_numbers(judgement.rows), policies, *columns.values(), strict=True)
    return _table(["", "policy", *columns], [list(line) for line in lines])


def _scale_columns(rows: Sequence[PolicyRow]) -> dict[str, list[str]]:
    """Top-1 of the same policy at other base rates, where the pool has any."""
    factors = sorted({factor for row in rows for factor in row.scale if len(row.scale) > 1})
    return {f"×{factor:g}": [_scaled(row, factor) for row in rows] for factor in factors}


def _scaled(row: PolicyRow, factor: float) -> str:
    scaled = row.scale.get(factor)
    if scaled is None:
        return UNKNOWN
    return "diverged" if scaled.top1 is None else f"{100 * scaled.top1:.2f}" + ("*" if scaled.diverged else "")


def _spread(metric: PolicyMetric, spread: Spread | None, row: PolicyRow) -> str:
    """Mean ± sd, and over how many trainings if not over all that finished."""
    if spread is None:
        return UNKNOWN
    text = _number(metric, spread.mean)
    if spread.sd is not None:
        text += f" ± {_number(metric, spread.sd)}"
    return text if metric.of_repeats or spread.n == row.done else f"{text} ({spread.n}/{row.done})"


def _number(metric: PolicyMetric, value: float) -> str:
    shown = value * metric.factor
    return f"{shown:.{metric.digits}f}" if abs(shown) < HUGE else f"{shown:.2e}"


def _notes(judgement: Judgement) -> str:
    rows = judgement.rows
    partly = any(s.diverged and s.top1 is not None for row in rows if len(row.scale) > 1 for s in row.scale.values())
    notes = [
        f"{UNKNOWN}: not known.",
        "*: of those that did not diverge." if partly else "",
        f"In no row: {_count(judgement.snapshots, 'snapshot')} (their trainings are)." if judgement.snapshots else "",
        f"In no row: {_count(judgement.stopped, 'training')} stopped before the end." if judgement.stopped else "",
        f"Left out: {_count(judgement.damaged, 'damaged member')}." if judgement.damaged else "",
    ]
    return textwrap.fill(" ".join(filter(None, notes)), WIDTH)


def _numbers(rows: Sequence[PolicyRow]) -> list[str]:
    return [str(number) for number in range(1, len(rows) + 1)]


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return UNKNOWN if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    texts = ("policy", "optimizer", "model", "trainings", "settings")
    align = ["left" if heading in texts else "right" for heading in headings]
    return tabulate(rows, headings, tablefmt="simple", disable_numparse=True, colalign=align if rows else None)
