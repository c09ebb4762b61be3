"""Figures as files (PNG, SVG or PDF by suffix). Drawn with figure objects of their own: no global plotting state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup
from lrensemble.evaluation.verdict import reliable_direction
from lrensemble.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lrensemble.evaluation.report import Comparison, MemberScore, Report, Row

__all__ = ["plot_policies", "plot_report", "save_figure"]

SPLITS = ("validation", "test")
FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}

# Okabe & Ito's palette: told apart by colour-blind readers, and in grey
BLUE, ORANGE, VERMILION, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7F7F7F"
ROLES = {"ensemble": (BLUE, "o"), "baseline": (GREY, "s"), "control": (GREEN, "D"), "oracle": (ORANGE, "^")}
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10, "svg.fonttype": "none"}


def plot_report(report: Report, path: str | Path) -> Path:
    """Draw a report: every network beside the ensemble (left), and the gain over the best single network (right).

    Parameters
    ----------
    report
        What `evaluate` returned.
    path
        File to write; its suffix decides the format: .png, .svg or .pdf.

    Returns
    -------
    Path
        The file, written atomically.

    Raises
    ------
    InputError
        If the suffix is none of the three.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        height = max(4.6, 1.6 + 0.42 * len(report.rows))
        figure = Figure(figsize=(12.5, height), layout="constrained", dpi=150)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        _draw_networks(left, report)
        _draw_gains(right, report)
        figure.suptitle(_headline(report), x=0.01, ha="left", fontsize=12, fontweight="bold")
        return save_figure(figure, Path(path))


def plot_policies(policies: Sequence[Callable[[Any], Any]], steps: int, path: str | Path) -> Path:
    """Draw learning-rate curves, one panel a policy, over a run of `steps` steps.

    Parameters
    ----------
    policies
        Functions of the step (array in, array out); ``str(policy)`` is the panel's title.
    steps
        Length of the run.
    path
        File to write; its suffix decides the format: .png, .svg or .pdf.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not policies or steps < 1:
        raise InputError(f"expected one policy or more and 1 step or more, got {len(policies)} and {steps}")
    columns = min(3, len(policies))
    lines = math.ceil(len(policies) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1 + 3.7 * columns, 0.6 + 2.1 * lines), layout="constrained", dpi=150)
        panels = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
        for panel, policy in zip(panels, policies, strict=False):
            _draw_policy(panel, policy, steps)
        for panel in panels[len(policies) :]:
            panel.set_visible(False)
        for panel in panels[len(policies) - columns : len(policies)]:
            panel.tick_params(labelbottom=True)
        figure.supxlabel("step", fontsize=10)
        figure.supylabel("learning rate", fontsize=10)
        return save_figure(figure, Path(path))


# --- the report -------------------------------------------------------------------------------------------------------


def _headline(report: Report) -> str:
    first, single, change = report.rows[0], report.row(report.reference), report.comparisons[0]
    judged = {1: "reliably better", 0: "no reliable improvement", -1: "reliably worse"}
    return (
        f"{first.system}, {_networks(first.size)}: {_percent(first)} right; best single network: {_percent(single)}  "
        f"({_signed(100 * change.differences['accuracy'].value)} points, "
        f"{judged[reliable_direction(change, report.confidence)]})"
    )


def _draw_networks(axes: Axes, report: Report) -> None:
    """Test over validation accuracy of every network, with the ensemble and the best single network as lines."""
    best = report.row(report.reference).members[0]
    floors = [_floor([100 * getattr(m, split)["accuracy"] for m in report.members]) for split in SPLITS]
    kinds = (
        ([m for m in report.members if not m.weight], GREY, 30, "network"),
        ([m for m in report.members if m.weight], BLUE, 46, "network in the ensemble"),
    )
    _draw_levels(axes, report)
    for members, colour, size, label in kinds:
        if not members:
            continue
        x, y, hidden = _clipped(members, floors)
        axes.scatter(x[~hidden], y[~hidden], s=size, color=colour, alpha=0.85, lw=0, label=label, zorder=3)
        axes.scatter(x[hidden], y[hidden], s=size, color=colour, marker="v", zorder=3)
    x, y, _ = _clipped([m for m in report.members if m.id == best], floors)
    axes.scatter(x, y, s=150, facecolor="none", edgecolor=VERMILION, lw=1.8, label="best on validation", zorder=4)
    axes.margins(x=0.12, y=0.12)
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    axes.set(xlabel="validation accuracy, %", ylabel="test accuracy, %")
    axes.set_title(_networks_title(report, floors), loc="left", fontsize=10.5)
    axes.grid(alpha=0.25, lw=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.03, -0.13), ncols=2, frameon=False, fontsize=9, columnspacing=1.2)


def _draw_levels(axes: Axes, report: Report) -> None:
    """Accuracy of the ensemble and of the best single network: lines, with intervals as bars at the right edge."""
    single, first = report.row(report.reference), report.rows[0]
    for place, row, colour, name in ((0, first, BLUE, first.system), (1, single, VERMILION, "best single network")):
        score = row.metrics["accuracy"]
        axes.axhline(100 * score.value, color=colour, lw=1.6, zorder=2, label=f"{name}: {_percent(row)}")
        if score.low is not None and score.high is not None:
            ends = [100 * score.low, 100 * score.high]
            axes.plot([0.975 - 0.02 * place] * 2, ends, color=colour, lw=3.5, transform=axes.get_yaxis_transform())


def _networks_title(report: Report, floors: Sequence[float]) -> str:
    hidden = int(_clipped(report.members, floors)[2].sum())
    title = (
        f"Each of the {report.n_members} networks of the pool" if report.n_members > 1 else "The network of the pool"
    )
    if hidden:
        lowest = 100 * min(m.test["accuracy"] for m in report.members)
        title += f" (▼ {hidden} further down, to {lowest:.1f} %)"
    return title


def _clipped(
    members: Sequence[MemberScore], floors: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return validation and test accuracy in percent, not below the floors, and who is drawn higher than it is."""
    x, y = (np.array([100 * getattr(m, split)["accuracy"] for m in members]) for split in SPLITS)
    return np.maximum(x, floors[0]), np.maximum(y, floors[1]), (x < floors[0]) | (y < floors[1])


def _floor(values: Sequence[float]) -> float:
    """Lowest value to show: all of them, unless a few failures would squeeze the good ones into a corner."""
    v = np.asarray(values)
    reach = max(2.5 * float(v.max() - np.median(v)), 1.0)
    return float(v.min() if v.max() - v.min() <= 2 * reach else v.max() - reach)


def _draw_gains(axes: Axes, report: Report) -> None:
    """Forest plot: accuracy of each system minus that of the best single network, with intervals."""
    low, high = _gain_limits(report.comparisons)
    rows = {row.system: row for row in report.rows}
    for height, comparison in enumerate(reversed(report.comparisons)):
        _draw_gain(axes, height, comparison, rows[comparison.system], (low, high))
    axes.axvline(0, color=VERMILION, lw=1.8, zorder=1)
    top = ("data", "axes fraction")
    axes.annotate("best single network", (0, 1.01), xycoords=top, ha="center", color=VERMILION, fontsize=9.5)
    labels = [_system_label(rows[comparison.system]) for comparison in reversed(report.comparisons)]
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlim=(low, high), ylim=(-0.6, len(labels) - 0.4))
    level = f"{100 * report.confidence:g} % interval"
    axes.set_xlabel(f"gain over the best single network, points of accuracy\n({level}; below 0: worse)")
    axes.set_title(f"Gain on {report.n_test:,} test samples", loc="left", fontsize=10.5, pad=20)
    axes.tick_params(axis="y", length=0, pad=12)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", alpha=0.25, lw=0.6)


def _draw_gain(axes: Axes, height: int, comparison: Comparison, row: Row, limits: tuple[float, float]) -> None:
    gain = comparison.differences["accuracy"]
    value = 100 * gain.value
    low, high = (value if bound is None else 100 * bound for bound in (gain.low, gain.high))
    colour, marker = ROLES[row.role]
    if value < limits[0]:
        axes.plot(limits[0], height, marker="<", color=colour, ms=8, clip_on=False, ls="none")
    else:
        axes.plot([low, high], [height, height], color=colour, lw=2.4, solid_capstyle="butt")
        face = "white" if row.role == "oracle" else colour
        axes.plot(value, height, marker=marker, color=colour, mfc=face, mew=1.6, ms=7, ls="none")
    text = f"{_signed(value)}  [{_signed(low)}, {_signed(high)}]"
    axes.annotate(text, (1.02, height), xycoords=("axes fraction", "data"), va="center", fontsize=9)


def _gain_limits(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Limits of the gain axis: whatever is near or above 0 fits; what is far below is shown as an arrow at the edge."""
    gains = [comparison.differences["accuracy"] for comparison in comparisons]
    lows = [100 * (gain.value if gain.low is None else gain.low) for gain in gains]
    high = max(0.0, *(100 * (gain.value if gain.high is None else gain.high) for gain in gains))
    team_lows = [low for low, comparison in zip(lows, comparisons, strict=True) if comparison.wins is not None]
    low = min(0.0, *team_lows)
    low = min(lows) if min(lows) > low - (high - low) else low
    low = max(low, -4 * max(high, 1.0))
    margin = 0.06 * max(high - low, 4.0)
    return low - margin, high + margin


def _system_label(row: Row) -> str:
    return textwrap.fill(f"{row.system}, n\u00a0=\u00a0{row.size}", 34)


def _networks(n: int) -> str:
    return "1 network" if n == 1 else f"{n} networks"


def _percent(row: Row) -> str:
    return f"{100 * row.metrics['accuracy'].value:.2f} %"


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


# --- policies ---------------------------------------------------------------------------------------------------------


def _draw_policy(axes: Axes, policy: Callable[[Any], Any], steps: int) -> None:
    t = np.unique(np.linspace(0, steps - 1, 4000).astype(int))
    rates = np.broadcast_to(np.asarray(policy(t), dtype=float), t.shape)
    axes.plot(t, rates, color=BLUE, lw=1.6)
    if rates.min() > 0 and rates.max() > 50 * np.quantile(rates, 0.25):  # small for a good part of the run
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * rates.max() or 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.set_title(_short(str(policy)), loc="left", fontsize=8.5)
    axes.grid(alpha=0.25, lw=0.6)


def _short(text: str) -> str:
    """At most two lines of a policy's text."""
    return "\n".join(textwrap.wrap(text, 48, max_lines=2, placeholder=" …"))


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure atomically, in the format of the file's name; `UnknownNameError` for one that is in no table."""
    form = lookup(FORMATS, path.suffix.lower(), "figure format")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=form)
    return path
