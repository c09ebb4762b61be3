"""`range_test`: the usable learning rates of a network on data with an optimiser and a batch size.

Two ways, which may be asked for together. The *grid* trains briefly at constant rates, all in one stack; the rule for
the interval is that of `lrensemble.training.rates.usable`. The *sweep* is one training whose rate rises by a constant
factor every step (Smith 2017, arXiv 1506.01186; it is the policy EXP with γ > 1); the same rule is read off its losses.
The grid decides where both are there: in a sweep each rate inherits what the rates before it have done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrensemble.errors import InputError, lookup
from lrensemble.models import ModelLike, model_name
from lrensemble.policies import EXP, RATE_RANGES
from lrensemble.training.rates import (
    PER_DECADE,
    Probe,
    Usable,
    chance_loss,
    no_rate,
    probe,
    range_path,
    search,
    searched,
    short,
    usable,
)
from lrensemble.training.trainer import list_seeds
from lrensemble.training.workshop import Workshop

if TYPE_CHECKING:
    from lrensemble.training.progress import Event

__all__ = ["METHODS", "RangeTest", "range_test"]

METHODS = {
    "grid": "short trainings at constant rates, trained together",
    "sweep": "one training at a rate that rises exponentially",
    "both": "the grid, and a sweep over its rates beside it",
}
BEYOND = 10**0.5  # a sweep goes so many times beyond the grid, since the loss rises with a delay
AROUND = 30.0  # a sweep alone reaches from the optimiser's usual range divided to multiplied by this


@dataclass(frozen=True)
class RangeTest:
    """What a range test has found.

    Attributes
    ----------
    lowest, highest
        k0 and k1, ends of the usable interval; by the grid where there is one.
    open_below, open_above
        Whether the interval ends where the tested rates do, so that it may be wider.
    best
        Rate of the lowest loss.
    recommended
        Range of base rates for presets (``lr_range``): k1/10 to k1.
    chance
        Validation loss of guessing.
    method
        Name in ``METHODS``.
    data, model, optimizer, batch_size
        What it holds for.
    epochs, steps
        Of a short training of the grid.
    grid
        Short trainings, ascending rates.
    sweep
        One entry an epoch of the sweep: its rate at the end of the epoch, and the loss then. Epochs after a divergence
        have none.
    sweep_interval
        Usable interval by the sweep; None where there is no sweep, or it has learned nothing.
    seconds
        That all trainings took, added up.
    pool
        Directory of the pool that they are in.
    """

    lowest: float
    highest: float
    open_below: bool
    open_above: bool
    best: float
    recommended: tuple[float, float]
    chance: float
    method: str
    data: str
    model: str
    optimizer: str
    batch_size: int
    epochs: int
    steps: int
    grid: tuple[Probe, ...]
    sweep: tuple[Probe, ...]
    sweep_interval: tuple[float, float] | None
    seconds: float
    pool: str

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def __str__(self) -> str:
        low, high = self.recommended
        config = f"{self.model} on {self.data}, {self.optimizer}, batch {self.batch_size}"
        lines = [
            f"usable learning rates  {self.lowest:g} to {self.highest:g}, lowest loss at {self.best:g}",
            f"for presets            {low:g} to {high:g}",
            f"{config}; loss of guessing {self.chance:.3f}",
        ]
        if self.sweep_interval and self.grid:
            lines.append("by the sweep           {:g} to {:g}".format(*self.sweep_interval))
        for is_open, end in ((self.open_below, "lower"), (self.open_above, "higher")):
            if is_open:
                lines.append(f"the {end} end is that of the tested rates: the interval may be wider")
        for name, points in (("rate", self.grid), ("rate of the sweep", self.sweep)):
            if points:
                lines += ["", f"{name:>17}  val loss  val acc", *(self._row(point) for point in points)]
        return "\n".join(lines)

    def _row(self, point: Probe) -> str:
        mark = "  usable" if self.lowest <= point.rate <= self.highest and point in self.grid else ""
        if point.loss is None or point.accuracy is None:
            return f"{point.rate:17.3g}  diverged"
        return f"{point.rate:17.3g}  {point.loss:8.3g}  {100 * point.accuracy:5.1f} %{mark}"


def range_test(
    data: Any,
    *,
    model: ModelLike = "mlp",
    lowest: float | None = None,
    highest: float | None = None,
    points: int | None = None,
    method: str = "both",
    epochs: int | None = None,
    seeds: int | Sequence[int] = 1,
    path: str | Path | None = None,
    progress: bool | Callable[[Event], None] | None = None,
    **training: Any,
) -> RangeTest:
    """Find the usable learning rates by short trainings on a part of the training data.

    Test data are not touched. The trainings are kept, so that the same call trains nothing; they are the ones that
    ``policies="auto"`` makes for the pool beside them.

    Parameters
    ----------
    data, model, progress, **training
        As for `train_pool`: ``optimizer``, ``batch_size``, ``train_size``, ``jobs``, …
    lowest, highest, points
        A grid of that many rates, evenly spaced on a log scale (by default four a decade and one). When they are not
        given, rates are tried ever further out until the interval is found, two a decade, and then between at its ends.
    method
        Name in ``METHODS``.
    epochs
        Of each short training; by default 3, or as many as 50 steps need. An epoch has at most 32 steps.
    seeds
        Trainings at each rate, of which the mean loss counts.
    path
        Directory of their pool; ``checkpoints/<data>-<model>-range`` when None.

    Raises
    ------
    InputError
        If a setting is not as expected; nothing is written then.
    TrainingError
        If the network learns at no rate, a member fails, or a worker is lost.
    """
    lookup(METHODS, method, "method of a range test")
    chosen = list_seeds(seeds)
    shop = Workshop.open(data, model=model, progress=progress, **training)
    home = range_path(shop.path) if path is None else Path(path)
    asked = _asked_rates(lowest, highest, points, shop.config.optimizer, is_sweep=method == "sweep")
    if method == "sweep":
        brief = short(shop, home, epochs=epochs)
        swept, risen = _sweep(brief, (asked[0], asked[-1]), max(2, len(asked)), chosen[0])
        if risen is None:
            raise no_rate(swept)
        return _result(method, brief, risen, [], swept, risen)
    brief, probes, found = _grid(shop, home, asked, epochs, chosen)
    if method == "grid":
        return _result(method, brief, found, probes, [], None)
    ends = (probes[0].rate, float(f"{BEYOND * probes[-1].rate:.3g}"))
    swept, risen = _sweep(brief, ends, _points(*ends), chosen[0])
    return _result(method, brief, found, probes, swept, risen)


def _grid(
    shop: Workshop, home: Path, rates: list[float], epochs: int | None, seeds: Sequence[int]
) -> tuple[Workshop, list[Probe], Usable]:
    if not rates:
        if epochs is None:
            return searched(shop, home, seeds)
        brief = short(shop, home, epochs=epochs)
        probes, found = search(brief, seeds)
    else:
        brief = short(shop, home, epochs=epochs)
        probes = probe(brief, rates, seeds)
        found = usable([one.rate for one in probes], [one.loss for one in probes], chance_loss(brief.splits))
    if found is None:
        raise no_rate(probes)
    return brief, probes, found


def _sweep(brief: Workshop, ends: tuple[float, float], points: int, seed: int) -> tuple[list[Probe], Usable | None]:
    """Train once at a rate that rises from one end to the other, with one evaluation a point."""
    shop = replace(brief, config=replace(brief.config, epochs=points))
    low, high = ends
    plan = shop.plan([(EXP(low, (high / low) ** (1 / max(1, points * shop.steps - 1))), seed)])
    shop.train(plan)
    (ended,) = shop.look(plan)
    (task,) = plan.tasks
    rates = task.policy.curve(points * shop.steps)[shop.steps - 1 :: shop.steps].tolist()  # type: ignore[attr-defined]
    measured: list[tuple[float | None, float | None]] = [
        pair if math.isfinite(pair[0]) else (None, None)
        for pair in zip(ended.val_loss, ended.val_accuracy, strict=True)
    ]
    measured += [(None, None)] * (points - len(measured))
    share = ended.seconds / points
    swept = [
        Probe(float(f"{rate:.3g}"), loss, accuracy, (ended.id,), share)
        for rate, (loss, accuracy) in zip(rates, measured, strict=True)
    ]
    return swept, usable([p.rate for p in swept], [p.loss for p in swept], chance_loss(shop.splits))


def _result(
    method: str, brief: Workshop, found: Usable, probes: list[Probe], swept: list[Probe], risen: Usable | None
) -> RangeTest:
    config = brief.config
    return RangeTest(
        lowest=found.lowest,
        highest=found.highest,
        open_below=found.is_open[0],
        open_above=found.is_open[1],
        best=found.best,
        recommended=found.recommended,
        chance=found.chance,
        method=method,
        data=brief.splits.name,
        model=model_name(brief.model),
        optimizer=config.optimizer,
        batch_size=config.batch_size,
        epochs=config.epochs,
        steps=config.epochs * brief.steps,
        grid=tuple(probes),
        sweep=tuple(swept),
        sweep_interval=(risen.lowest, risen.highest) if risen else None,
        seconds=sum(one.seconds for one in (*probes, *swept)),
        pool=str(brief.path),
    )


def _asked_rates(
    lowest: float | None, highest: float | None, points: int | None, optimizer: str, *, is_sweep: bool
) -> list[float]:
    """Rates of the grid; none where they are to be searched for."""
    if (lowest is None) != (highest is None) or (points is not None and lowest is None):
        raise InputError("expected the lowest and the highest learning rate together, and points only beside them")
    if lowest is None or highest is None:
        low, high = RATE_RANGES[optimizer]
        return _rates(low / AROUND, high * AROUND, None) if is_sweep else []
    if not 0 < lowest < highest < math.inf:
        raise InputError(f"expected 0 < lowest < highest learning rate, got {lowest:g} and {highest:g}")
    if points is not None and (not isinstance(points, int) or isinstance(points, bool) or points < 2):
        raise InputError(f"points: expected a whole number ≥ 2, got {points!r}")
    return _rates(lowest, highest, points)


def _rates(lowest: float, highest: float, points: int | None) -> list[float]:
    return [float(f"{rate:.3g}") for rate in np.geomspace(lowest, highest, points or _points(lowest, highest))]


def _points(lowest: float, highest: float) -> int:
    return 1 + max(1, round(PER_DECADE * math.log10(highest / lowest)))
