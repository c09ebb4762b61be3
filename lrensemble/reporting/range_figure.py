"""Figure of a range test: loss and accuracy over the learning rate, with the usable interval shaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lrensemble.reporting.figures import BLUE, GREEN, GREY, STYLE, VERMILION, save_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from lrensemble.training.rates import Probe
    from lrensemble.tuning.range_testing import RangeTest

__all__ = ["plot_range_test"]

ABOVE = 1.6  # the axis of the loss ends at so many times the loss of guessing


def plot_range_test(result: RangeTest, path: str | Path) -> Path:
    """Draw validation loss (above) and accuracy (below) over the learning rate.

    Parameters
    ----------
    result
        What `range_test` returned.
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
        figure = Figure(figsize=(8, 6), layout="constrained", dpi=150)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for axes in (upper, lower):
            axes.set_xscale("log")
            axes.axvspan(result.lowest, result.highest, color=GREEN, alpha=0.15, lw=0, label="usable")
            axes.axvspan(*result.recommended, color=GREEN, alpha=0.3, lw=0, label="for presets")
            axes.grid(visible=True, alpha=0.25)
        _draw_losses(upper, result)
        _draw_accuracies(lower, result)
        lower.set_xlabel("learning rate")
        figure.suptitle(_headline(result), x=0.01, ha="left", fontsize=12, fontweight="bold")
        return save_figure(figure, Path(path))


def _headline(result: RangeTest) -> str:
    return (
        f"Usable learning rates {result.lowest:g} to {result.highest:g}:  {result.model} on {result.data}, "
        f"{result.optimizer}, batch {result.batch_size}"
    )


def _series(result: RangeTest) -> list[tuple[Sequence[Probe], str, str, str]]:
    trained = f"constant rate, after {result.steps} steps"
    kinds = ((result.grid, BLUE, "o-", trained), (result.sweep, GREY, ".--", "one training, rising rate"))
    return [kind for kind in kinds if kind[0]]


def _draw_losses(axes: Axes, result: RangeTest) -> None:
    top = ABOVE * result.chance
    axes.axhline(result.chance, color=VERMILION, ls=":", lw=1.2, label="guessing")
    for probes, colour, style, label in _series(result):
        seen = {probe.rate: probe.loss for probe in probes if probe.loss is not None and probe.loss <= top}
        axes.plot(list(seen), list(seen.values()), style, color=colour, label=label)
        lost = [probe.rate for probe in probes if probe.rate not in seen]
        if lost:
            axes.plot(lost, [0.97 * top] * len(lost), "x", color=colour)
    axes.set_ylim(0, top)
    axes.set_ylabel("validation loss\n(× diverged, or beyond)")
    axes.legend(frameon=False, fontsize=9, loc="lower left")


def _draw_accuracies(axes: Axes, result: RangeTest) -> None:
    for probes, colour, style, _ in _series(result):
        seen = [(probe.rate, 100 * probe.accuracy) for probe in probes if probe.accuracy is not None]
        axes.plot([x for x, _ in seen], [y for _, y in seen], style, color=colour)
    axes.set_ylim(0, 100)
    axes.set_ylabel("validation accuracy (%)")
