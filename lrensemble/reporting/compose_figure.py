"""Figure of a composition: the learning rate that was put together, and what was tried in each segment."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrensemble.policies import parse_policy, time_policy
from lrensemble.reporting.figures import BLUE, GREY, ORANGE, STYLE, VERMILION, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrensemble.tuning import Composition
    from lrensemble.tuning.composition import Attempt

__all__ = ["plot_composition"]

LINE = 120  # characters of a piece's text that the width of the figure holds
LABELS = {"val_loss": "validation loss", "val_accuracy": "validation accuracy"}


def plot_composition(composition: Composition, path: str | Path) -> Path:
    """Draw the learning rate over the steps (above) and the validation curves of all attempts (below).

    Parameters
    ----------
    composition
        What `compose` returned.
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
        figure = Figure(figsize=(9.5, 6.4), layout="constrained", dpi=150)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))
        _draw_rates(above, composition)
        _draw_attempts(below, composition)
        for axes in (above, below):
            for end in composition.ends[:-1]:
                axes.axvline(end * composition.steps, color=GREY, lw=0.8, ls=":")
            axes.grid(axis="y", alpha=0.25, lw=0.6)
        cost = f"{composition.times:.2g} × one training"
        figure.suptitle(
            f"Composed policy: accuracy {100 * composition.val_accuracy:.2f} % on validation data, for {cost}",
            x=0.01,
            ha="left",
            fontsize=12,
            fontweight="bold",
        )
        return save_figure(figure, Path(path))


def _draw_rates(axes: Axes, composition: Composition) -> None:
    rates = time_policy(parse_policy(composition.policy)).curve(composition.ends[-1] * composition.steps)
    axes.plot(np.arange(len(rates)), rates, color=BLUE, lw=1.8, drawstyle="steps-post")
    axes.set(ylabel="learning rate", ylim=(0, 1.3 * rates.max() or 1))
    for switch in composition.switches:
        axes.axvline(switch.epoch * composition.steps, color=VERMILION, lw=0.8, ls=":")
    for attempt in composition.chain if composition.method == "segments" else ():
        middle = (attempt.start + attempt.end) / 2 * composition.steps
        axes.annotate(
            textwrap.fill(attempt.policy, max(12, int(LINE * (attempt.end - attempt.start) / composition.ends[-1]))),
            (middle, 0.99),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=7.5,
            color=BLUE,
        )


def _draw_attempts(axes: Axes, composition: Composition) -> None:
    metric, chain = composition.metric, composition.chain
    for attempt in composition.attempts:
        _draw_curve(axes, attempt, composition, "left behind", color=GREY, lw=1.0, alpha=0.7)
    for attempt in chain:
        _draw_curve(axes, attempt, composition, "composed", color=BLUE, lw=2.4)
    values = [value for attempt in composition.attempts for value in getattr(attempt, metric)]
    finite = np.array([value for value in values if np.isfinite(value)])
    if metric == "val_loss" and len(finite) and finite.min() > 0 and finite.max() > 5 * finite.min():
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel=LABELS[metric])
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axes.legend(unique.values(), unique.keys(), frameon=False, fontsize=9)


def _draw_curve(
    axes: Axes, attempt: Attempt, composition: Composition, label: str, *, color: str, lw: float, alpha: float = 1.0
) -> None:
    """Draw an attempt from the end of its stem; where it was completed after its segment, dashed."""
    values = [*_last_value(attempt, composition), *getattr(attempt, composition.metric)]
    begin = attempt.start + (1 if len(values) == len(getattr(attempt, composition.metric)) else 0)
    epochs = np.arange(begin, begin + len(values))
    whole = label == "composed" and attempt.member == composition.id
    steps, here = epochs * composition.steps, (epochs <= attempt.end) | whole
    y = np.asarray(values, dtype=float)
    axes.plot(steps[here], y[here], color=color, lw=lw, alpha=alpha, label=label, marker="o", ms=lw)
    if not here.all():
        later = epochs >= attempt.end
        axes.plot(steps[later], y[later], color=ORANGE, lw=1.0, ls="--", alpha=0.7, label="completed to judge it")
    if attempt.status == "diverged" and np.isfinite(y).any():
        last = int(np.flatnonzero(np.isfinite(y))[-1])
        axes.plot(steps[last], y[last], color=VERMILION, marker="x", ls="none", label="diverged after this")


def _last_value(attempt: Attempt, composition: Composition) -> list[float]:
    """Return the value where the attempt begins: at the end of the segment before."""
    for other in composition.attempts:
        if (*other.stem, other.policy) == attempt.stem:
            return list(getattr(other, composition.metric)[other.end - other.start - 1 : other.end - other.start])
    return []
