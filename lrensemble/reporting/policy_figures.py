"""Figures of policies that were judged: rates, accuracy over steps, accuracy against the rate, spread over seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrensemble.errors import LREnsembleError
from lrensemble.policies import parse_policy
from lrensemble.policies.time import NUMBER
from lrensemble.reporting.figures import GREY, STYLE, VERMILION, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrensemble.pool import Pool
    from lrensemble.tuning.judgement import Judgement, PolicyRow

__all__ = ["JUDGEMENT_FIGURES", "plot_judgement"]

# Okabe & Ito's palette; lines have styles and markers of their own too, to be told apart in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 2)), (0, (2, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_LINES = len(COLOURS)
MOST_FAMILIES = 12
MOST_BARS = 20
POINTS = 3000  # of a curve: more cannot be seen
LABEL = 40  # letters of a policy in a legend
APART = 30  # times a rate, from where on the axis of rates is logarithmic


def plot_judgement(pool: Pool, judgement: Judgement, path: str | Path) -> list[Path]:
    """Draw what the policies of a pool did.

    Parameters
    ----------
    pool, judgement
        The pool, for its curves, and what `judge_policies` says of it.
    path
        A file (.png, .svg, .pdf): one figure of four panels. A name without a suffix: a directory that gets one PNG for
        each entry of `JUDGEMENT_FIGURES`.

    Returns
    -------
    list of Path
        The files, each written atomically.

    Raises
    ------
    InputError
        For a file of another format.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    target = Path(path)
    with mpl.rc_context(STYLE):
        if target.suffix:
            figure = Figure(figsize=(14, 10.5), layout="constrained", dpi=150)
            parts: Any = figure.subfigures(2, 2)  # each with margins of its own
            for part, draw in zip(parts.ravel(), JUDGEMENT_FIGURES.values(), strict=True):
                draw(part.subplots(), pool, judgement)
            return [save_figure(figure, target)]
        files = []
        for name, draw in JUDGEMENT_FIGURES.items():
            figure = Figure(figsize=(8.4, 6.2), layout="constrained", dpi=150)
            draw(figure.subplots(), pool, judgement)
            files.append(save_figure(figure, target / f"{name}.png"))
        return files


# --- the panels -------------------------------------------------------------------------------------------------------


def _draw_rates(axes: Axes, pool: Pool, judgement: Judgement) -> None:
    """Learning rates that were really used, of the best policies."""
    typical = []
    for place, (row, label) in enumerate(_best(judgement)):
        rates = max((pool.member(name).history.get("step_lr", np.empty(0)) for name in row.members), key=len)
        if len(rates):
            steps = np.unique(np.linspace(0, len(rates) - 1, POINTS).astype(int))
            axes.plot(steps, rates[steps], color=COLOURS[place], ls=DASHES[place], lw=1.7, label=label)
            typical.append(float(np.median(rates)))
    highest = axes.dataLim.y1
    if typical and 0 < min(typical) < highest / APART:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], min(typical) / APART))
    else:
        axes.set_ylim(bottom=0)
    _finish(axes, f"Learning rates{_of_best(judgement)}", "step", "learning rate")


def _draw_steps(axes: Axes, pool: Pool, judgement: Judgement) -> None:
    """Accuracy on validation data over steps: mean over seeds, and from the lowest to the highest as a band."""
    for place, (row, label) in enumerate(_best(judgement)):
        histories = [pool.member(name).history for name in row.members]
        curves = [h["val_accuracy"] for h in histories if "step" in h and "val_accuracy" in h]
        epochs = min(map(len, curves), default=0)
        if not epochs:
            continue
        steps = next(h["step"] for h in histories if "step" in h)[:epochs]
        values = 100 * np.array([curve[:epochs] for curve in curves], float)
        known = np.isfinite(values).all(axis=0)
        style = {"color": COLOURS[place], "ls": DASHES[place], "marker": MARKERS[place]}
        axes.plot(steps[known], values[:, known].mean(axis=0), ms=4, lw=1.7, label=label, **style)
        low, high = values[:, known].min(axis=0), values[:, known].max(axis=0)
        axes.fill_between(steps[known], low, high, color=COLOURS[place], alpha=0.12, lw=0)
    if judgement.target is not None:
        axes.axhline(100 * judgement.target, color=GREY, lw=1, ls=":", label=f"target {100 * judgement.target:g} %")
    axes.set_xlim(left=0)
    title = f"Accuracy over steps{_of_best(judgement)}; bands: all seeds"
    _finish(axes, title, "step", "validation accuracy, %")


def _draw_scale(axes: Axes, pool: Pool, judgement: Judgement) -> None:
    """Top-1 against the base rate: one line for each family of policies and each budget."""
    families, alone = _families(judgement)
    names = sorted({key[0] for key in families})
    budgets = sorted({key[1] for key in families})
    for (name, budget), rows in sorted(families.items()):
        line, tint = budgets.index(budget), names.index(name)
        colour, dash = (tint, line) if len(names) > 1 else (line, 0)
        style = {"color": COLOURS[colour % MOST_LINES], "ls": DASHES[dash % MOST_LINES]}
        marker = MARKERS[(line if len(names) > 1 else tint) % MOST_LINES]
        _draw_family(axes, rows, label=" · ".join(filter(None, (name, budget))), marker=marker, **style)
    known = [(_base_rate(row), 100 * spread.mean) for row in alone if (spread := row.metrics["top1"])]
    if known:
        label = "policies at one rate only"
        axes.plot(*zip(*known, strict=True), ls="none", marker="o", ms=4, color=GREY, alpha=0.7, label=label)
    failed = [rate for row in judgement.rows if not row.done and (rate := _base_rate(row))]
    if failed:
        bottom = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "x", color=VERMILION, transform=bottom, label="diverged", clip_on=False)
    axes.set_xscale("log")
    title = "Accuracy against the learning rate" + ("; names: at base rate 1" if families else "")
    _finish(axes, title, "base learning rate (the highest that the policy names)", f"Top-1 on '{judgement.split}', %")


def _draw_family(axes: Axes, rows: Sequence[PolicyRow], **style: Any) -> None:
    """Mean of each rate as a line, sd as bars; rates at which all diverged are a gap."""
    rows = sorted(rows, key=lambda row: _base_rate(row) or 0.0)
    rates = [_base_rate(row) or np.nan for row in rows]
    spreads = [row.metrics["top1"] for row in rows]
    means = [np.nan if s is None else 100 * s.mean for s in spreads]
    sds = [0.0 if s is None else 100 * (s.sd or 0.0) for s in spreads]
    axes.errorbar(rates, means, yerr=sds, lw=1.6, ms=5, capsize=2.5, elinewidth=0.9, **style)


def _draw_seeds(axes: Axes, pool: Pool, judgement: Judgement) -> None:
    """Top-1 of each policy over its seeds: mean, ± sd as a thick bar, lowest to highest as a thin one."""
    rows, labels = judgement.rows[:MOST_BARS], _labels(judgement)[:MOST_BARS]
    texts = [f"{label}{_losses(row)}" for row, label in zip(rows, labels, strict=True)]
    for place, row in enumerate(rows):
        spread, colour = row.metrics["top1"], COLOURS[place] if place < MOST_LINES else GREY
        if spread is None:
            continue
        mean, sd = 100 * spread.mean, 100 * (spread.sd or 0.0)
        axes.plot([100 * spread.min, 100 * spread.max], [place, place], color=colour, lw=1.2)
        axes.plot([mean - sd, mean + sd], [place, place], color=colour, lw=4, alpha=0.45, solid_capstyle="butt")
        axes.plot(mean, place, marker="o", ms=6, color=colour)
    axes.set_yticks(range(len(texts)), texts, fontsize=8)
    axes.set_ylim(len(texts) - 0.4, -0.6)
    more = f", first {MOST_BARS} of {len(judgement.rows)} rows" if len(judgement.rows) > MOST_BARS else ""
    _finish(axes, f"Spread over seeds{more}", f"Top-1 on '{judgement.split}', %: mean, sd (thick), range (thin)", "")


def _losses(row: PolicyRow) -> str:
    return f" · {row.diverged} of {row.done + row.diverged} diverged" if row.diverged else ""


JUDGEMENT_FIGURES: dict[str, Callable[[Axes, Pool, Judgement], None]] = {
    "rates": _draw_rates,
    "accuracy_over_steps": _draw_steps,
    "accuracy_against_rate": _draw_scale,
    "seeds": _draw_seeds,
}


# --- names and families -----------------------------------------------------------------------------------------------


def _best(judgement: Judgement) -> list[tuple[PolicyRow, str]]:
    return list(zip(judgement.rows, _labels(judgement), strict=True))[:MOST_LINES]


def _of_best(judgement: Judgement) -> str:
    return f" of the first {MOST_LINES} of {len(judgement.rows)} rows" if len(judgement.rows) > MOST_LINES else ""


def _labels(judgement: Judgement) -> list[str]:
    """Name of each row: its number, its policy, and that in which rows differ."""
    return [
        " · ".join(filter(None, (f"{number} {_shorter(row.policy)}", _circumstances(judgement, row))))
        for number, row in enumerate(judgement.rows, 1)
    ]


def _circumstances(judgement: Judgement, row: PolicyRow, *, epochs: bool = True) -> str:
    """Optimiser, length, network and settings of a row, as far as rows differ in them."""
    facts: Mapping[str, Any] = {
        "optimizer": row.optimizer,
        "epochs": f"{row.epochs} epochs" if epochs and row.epochs else None,
        "model": row.model,
    }
    differ = [
        str(value) for name, value in facts.items() if value and len({getattr(r, name) for r in judgement.rows}) > 1
    ]
    return ", ".join(differ + [f"{name} {row.settings.get(name)}" for name in judgement.varying])


def _families(judgement: Judgement) -> tuple[dict[tuple[str, str], list[PolicyRow]], list[PolicyRow]]:
    """Rows of the same policy at several rates, by (name, budget); and rows at one rate only."""
    found: dict[tuple[str, str], list[PolicyRow]] = {}
    for row in (row for row in judgement.rows if _base_rate(row)):
        name = ", ".join(filter(None, (_shape(row.policy), _circumstances(judgement, row, epochs=False))))
        found.setdefault((name, f"{row.epochs} epochs" if row.epochs else ""), []).append(row)
    several = {key: rows for key, rows in found.items() if len(rows) > 1}
    shown = dict(list(several.items())[:MOST_FAMILIES])
    return shown, [row for key, rows in found.items() if key not in shown for row in rows]


def _shape(policy: str) -> str:
    """Text of a policy with its highest rate as 1, the others in proportion."""
    try:
        asked = parse_policy(policy)
        text = str(asked.scaled(1 / asked.base_rate))
    except LREnsembleError:  # a policy of a later release
        return policy
    return _shorter(re.sub(NUMBER, lambda number: f"{float(number[0]):.6g}", text))


def _base_rate(row: PolicyRow) -> float | None:
    """Highest rate that the policy names; that it used, where it cannot be read; None where there is none above 0."""
    try:
        return parse_policy(row.policy).base_rate or None
    except LREnsembleError:
        return row.rate or None


def _shorter(text: str) -> str:
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, axes, grid, and the legend below the panel; a word where there is nothing to show."""
    if not axes.has_data():
        axes.text(0.5, 0.5, "not known of this pool", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.25, lw=0.6)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 2 if max(map(len, labels)) < 34 else 1
        below: Any = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.15), "ncols": columns}
        axes.legend(handles, labels, frameon=False, fontsize=8, handlelength=3.6, **below)
