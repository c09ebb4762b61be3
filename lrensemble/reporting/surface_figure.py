"""Figure of descents on the demonstration surface: where each policy goes, and how it gets down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrensemble.errors import InputError
from lrensemble.policies.surface import START, VALLEYS, Descent, height
from lrensemble.reporting.figures import STYLE, save_figure
from lrensemble.reporting.policy_figures import COLOURS, DASHES, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_descents"]

VIEW = (-1.9, 1.9)
MOST = len(COLOURS)


def plot_descents(descents: Sequence[Descent], path: str | Path) -> Path:
    """Draw the surface with the paths of one descent or more, their rates and their heights over the steps.

    Parameters
    ----------
    descents
        What `descend` returned; at most seven, which is how many colours can be told apart.
    path
        File to write: .png, .svg or .pdf.

    Raises
    ------
    InputError
        For none or too many of them, or a file of another format.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not 1 <= len(descents) <= MOST:
        raise InputError(f"expected 1 to {MOST} policies to draw, got {len(descents)}")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 6.4), layout="constrained", dpi=150)
        grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
        surface, rates, heights = (figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1]))
        _draw_surface(figure, surface)
        for place, descent in enumerate(descents):
            _draw_descent((surface, rates, heights), descent, place)
        rates.set(ylabel="learning rate", ylim=(0, None))
        heights.set(ylabel="height z", xlabel="step")
        rates.set_title("Learning rate, and height after each step", loc="left", fontsize=10.5)
        for axes in (rates, heights):
            axes.grid(alpha=0.25, lw=0.6)
            axes.set_xlim(left=0)
        figure.legend(*surface.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=9)
        return save_figure(figure, Path(path))


def _draw_surface(figure: Figure, axes: Axes) -> None:
    side = np.linspace(*VIEW, 400)
    z = height(*np.meshgrid(side, side))
    filled = axes.contourf(side, side, z, levels=30, cmap="Greys_r")
    axes.contour(side, side, z, levels=15, colors="white", linewidths=0.4, alpha=0.6)
    figure.colorbar(filled, ax=axes, label="height z", shrink=0.8, ticks=range(-6, 2))
    box = {"boxstyle": "round", "fc": "white", "ec": "none", "alpha": 0.85}
    for (x, y, _), name in zip(VALLEYS, ("local minimum", "global minimum"), strict=True):
        axes.annotate(name, (x, y), (x, y + 0.8 * np.sign(y)), ha="center", va="center", fontsize=9, bbox=box)
    axes.annotate("start", START, (START[0] + 0.12, START[1] + 0.1), fontsize=9, bbox=box)
    axes.set(xlim=VIEW, ylim=VIEW, xlabel="x", ylabel="y", aspect="equal")
    axes.set_title("Gradient descent on a surface with two valleys", loc="left", fontsize=10.5)


def _draw_descent(panels: tuple[Axes, Axes, Axes], descent: Descent, place: int) -> None:
    surface, rates, heights = panels
    colour, steps = COLOURS[place], len(descent.path) - 1
    x, y = descent.path[-1]
    ending = f"z = {descent.heights[-1]:.3f} at ({x:.3f}, {y:.3f})".replace("-", "−")
    label = f"{descent.policy}: {descent.outcome}, {ending}"
    surface.plot(*descent.path.T, color=colour, ls=DASHES[place], lw=0.9, marker=".", ms=3, label=label)
    surface.plot(*descent.path[0], "o", color="white", mec="black", ms=7, zorder=5)
    surface.plot(x, y, MARKERS[place], color=colour, mec="white", ms=10, zorder=6)
    rates.plot(descent.policy.curve(steps), color=colour, ls=DASHES[place], lw=1.7)
    heights.plot(descent.heights, color=colour, ls=DASHES[place], lw=1.2)
