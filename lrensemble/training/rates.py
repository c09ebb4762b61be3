"""Usable learning rates, found by short trainings under constant rates: the range test, as a grid.

Smith 2017 (arXiv 1506.01186) raises the rate within one training and looks where the loss begins to fall and where it
rises again. Trainings of their own under constant rates say the same without a rate's loss depending on the rates
before it, and they are trained together in one stack. `train_pool` uses this for ``policies="auto"``; the range test
for people, with the rising rate beside it, is `lrensemble.tuning.range_testing`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrensemble.data import Split, Splits
from lrensemble.errors import InputError, TrainingError
from lrensemble.policies import FIX, RATE_RANGES, Policy
from lrensemble.training.config import steps_per_epoch
from lrensemble.training.folds import parts_of
from lrensemble.training.progress import Event

if TYPE_CHECKING:
    from lrensemble.training.workshop import Plan, Workshop

__all__ = [
    "AUTO",
    "Probe",
    "Usable",
    "auto_range",
    "chance_loss",
    "no_rate",
    "probe",
    "range_path",
    "search",
    "searched",
    "short",
    "usable",
    "with_default",
]

AUTO = "auto"  # in a list of policies: the default preset over the range that a range test finds

EPOCHS = 3  # of a short training
LEAST_STEPS = 50  # of a short training; small sets take more epochs for it
MOST_STEPS = 32  # of one of its epochs: of a larger set it sees a part
VALIDATION = 1000  # samples that it is judged on
LONGER = (1, 4, 16)  # times as long, where no rate has learned anything
LEARNED = 0.05  # of the loss of guessing: the best rate must have come so far below it

PER_DECADE = 4  # rates of the finest grid
NEAR, CLEAR = 0.95, 0.1  # parts of the best gain: what the highest and the lowest usable rate must reach
DECADE = 10.0  # width of the range that is recommended for presets
LOWEST, HIGHEST = 1e-8, 1e3  # no grid goes beyond

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """A short training under one constant rate.

    Attributes
    ----------
    rate
        Its learning rate.
    loss, accuracy
        On validation data at the end, means over seeds; None if one of them diverged.
    members
        Names of the trainings, one a seed.
    seconds
        That they took.
    """

    rate: float
    loss: float | None
    accuracy: float | None
    members: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Usable:
    """What a range test finds.

    Attributes
    ----------
    lowest, highest
        k0 and k1, ends of the usable interval; see `usable`.
    best
        Rate with the lowest loss.
    chance
        Loss of guessing.
    is_open
        Whether the interval ends where the grid does, below and above.
    """

    lowest: float
    highest: float
    best: float
    chance: float
    is_open: tuple[bool, bool]

    @property
    def recommended(self) -> tuple[float, float]:
        """Range of base rates for presets: the decade below the highest usable rate, k1/10 to k1."""
        return _rounded(self.highest / DECADE), self.highest


def usable(rates: Sequence[float], losses: Sequence[float | None], chance: float) -> Usable | None:
    """Find the usable interval [k0, k1] of learning rates.

    With L(r) the validation loss after a short training at rate r (infinite if it diverged), L_c the loss of guessing
    and r* the rate of the lowest loss, the gain of a rate is g(r) = (L_c − L(r)) / (L_c − L(r*)): 1 at best, 0 where
    nothing was learned, below 0 where harm was done. From r* upwards, k1 is the last rate before the first with
    g < 0.95; from r* downwards, k0 is the last before the first with g < 0.1. So a lucky rate among bad ones does not
    widen the interval.

    Parameters
    ----------
    rates, losses
        Ascending; None where a training diverged.
    chance
        L_c; see `chance_loss`.

    Returns
    -------
    Usable or None
        None where no rate has learned: L(r*) > 0.95 L_c.
    """
    measured = np.array([math.inf if loss is None else loss for loss in losses])
    best = int(np.argmin(measured))
    if not measured[best] <= (1 - LEARNED) * chance:
        return None
    gain = (chance - measured) / (chance - measured[best])
    high = best + int(np.argmin(np.append(gain[best:] >= NEAR, False))) - 1
    low = best - int(np.argmin(np.append(gain[best::-1] >= CLEAR, False))) + 1
    return Usable(rates[low], rates[high], rates[best], chance, (low == 0, high == len(rates) - 1))


def chance_loss(splits: Splits) -> float:
    """Mean validation loss of always answering with the frequencies of the classes in the training part."""
    counts = np.bincount(splits.train.y, minlength=splits.n_classes) + 1.0
    return float(-np.log(counts / counts.sum())[splits.val.y].mean())


def short(shop: Workshop, path: Path, *, epochs: int | None = None) -> Workshop:
    """Return a workshop for short trainings beside another one.

    They see a part of the data: at most 32 steps an epoch, and 1000 validation samples, which stand in for the test
    data too (those are not touched). By default they take 3 epochs, or as many as 50 steps need; they start from the
    same weights at every rate (``common_seed``), and keep no weights.
    """
    config = shop.config
    splits = _part(shop.splits, MOST_STEPS * config.batch_size)
    fit = max(EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch(len(splits.train), config.batch_size)))
    settings = replace(config, epochs=epochs or fit, common_seed=True, folds=0)
    return replace(shop, splits=splits, config=settings, path=path, snapshots=(), save_weights=False)


def _part(splits: Splits, most: int) -> Splits:
    """Return some of the training and validation samples, evenly spaced; of folds, those of the first network."""
    first = parts_of(splits)[0]
    train = _some(splits.train, _spaced(first.rows, len(splits.train), most))
    val = _some(splits.val, _spaced(first.held_out, len(splits.val), VALIDATION))
    kept: dict[str, Any] = {name: getattr(splits, name) for name in ("name", "class_names", "mean", "std", "augment")}
    return Splits(train=train, val=val, test=val, **kept)


def _spaced(rows: npt.NDArray[np.int64] | None, n: int, most: int) -> npt.NDArray[np.intp]:
    rows = np.arange(n) if rows is None else rows
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.intp)]


def _some(split: Any, rows: npt.NDArray[np.intp]) -> Any:
    return Split(split.x[rows], split.y[rows]) if isinstance(split, Split) else split.subset(rows)


def probe(shop: Workshop, rates: Sequence[float], seeds: Sequence[int] = (0,)) -> list[Probe]:
    """Train at constant rates, all together, what is not there yet; return one probe a rate, ascending."""
    members = [(FIX(rate), seed) for rate in sorted(set(rates)) for seed in seeds]
    plan = shop.plan(members)
    shop.train(plan)
    ended = shop.look(plan)
    return [_probe(rate, ended[at : at + len(seeds)]) for rate, at in _starts(plan, len(seeds))]


def _starts(plan: Plan, seeds: int) -> list[tuple[float, int]]:
    return [(float(task.policy.k0), at) for at, task in enumerate(plan.tasks) if at % seeds == 0]  # type: ignore[attr-defined]


def _probe(rate: float, ended: Sequence[Any]) -> Probe:
    names, seconds = tuple(one.id for one in ended), sum(one.seconds for one in ended)
    if any(one.status != "done" for one in ended):
        return Probe(rate, None, None, names, seconds)
    loss, accuracy = (
        float(np.mean([getattr(one, f"val_{what}")[-1] for one in ended])) for what in ("loss", "accuracy")
    )
    return Probe(rate, loss, accuracy, names, seconds)


def search(shop: Workshop, seeds: Sequence[int] = (0,)) -> tuple[list[Probe], Usable | None]:
    """Probe two rates a decade around the optimiser's usual range, ever further while the interval is open.

    At last the rates between are probed at its ends. All rates are 10^(j/4), so that equal questions have equal
    answers.
    """
    low, high = RATE_RANGES[shop.config.optimizer]
    first, last = math.floor(PER_DECADE * math.log10(low / 10)), math.ceil(PER_DECADE * math.log10(high * 10))
    places = set(range(first, last + 1, 2))
    chance = chance_loss(shop.splits)
    while True:
        probes = probe(shop, [_lattice(j) for j in places], seeds)
        found = usable([one.rate for one in probes], [one.loss for one in probes], chance)
        if found is None:
            return probes, None
        further = _further(sorted(places), found)
        if not further:
            return probes, found
        places |= further


def _further(places: Sequence[int], found: Usable) -> set[int]:
    """Places on the lattice to be probed next: beyond an open end, or else between the ends and their neighbours."""
    low, high = (round(PER_DECADE * math.log10(rate)) for rate in (found.lowest, found.highest))
    beyond = {places[0] - 2} if found.is_open[0] else set()
    beyond |= {places[-1] + 2} if found.is_open[1] else set()
    if beyond:
        return {j for j in beyond if LOWEST <= _lattice(j) <= HIGHEST}
    return {low - 1, high + 1} - set(places)


def _lattice(j: int) -> float:
    return _rounded(10 ** (j / PER_DECADE))


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def range_path(path: Path) -> Path:
    """Return the pool of short trainings that belongs to a pool: ``<pool>-range``, beside it."""
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(f"{path.name}-range")


def auto_range(shop: Workshop) -> tuple[float, float]:
    """Find the range of base rates for the presets of a pool by a range test, and say so.

    The trainings are kept in `range_path`, so that the same call finds the same range again without training.

    Raises
    ------
    TrainingError
        If the network learns at no rate.
    """
    say = _speaker(shop.progress)
    path = range_path(shop.path)
    silent = replace(shop, progress=False)
    say(f"range test of the learning rate by short trainings, kept in {path}")
    _, probes, found = searched(silent, path)
    low, high = found.recommended
    say(
        f"usable learning rates {found.lowest:g} to {found.highest:g} ({len(probes)} short trainings): presets over "
        f"{low:g} to {high:g}"
    )
    return low, high


def searched(shop: Workshop, path: Path, seeds: Sequence[int] = (0,)) -> tuple[Workshop, list[Probe], Usable]:
    """Search, by longer trainings where the short ones have learned nothing; return their workshop too.

    Raises
    ------
    TrainingError
        If the network learns at no rate.
    """
    brief = short(shop, path)
    for longer in LONGER:
        taken = replace(brief, config=replace(brief.config, epochs=longer * brief.config.epochs))
        probes, found = search(taken, seeds)
        if found is not None:
            return taken, probes, found
    raise no_rate(probes)


def no_rate(probes: Sequence[Probe]) -> TrainingError:
    """Return the error that says that nothing was learned at any of these rates."""
    low, high = probes[0].rate, probes[-1].rate
    return TrainingError(
        f"range test: expected a learning rate at which the network learns, got none from {low:g} to {high:g}: "
        "try other rates or longer trainings, or check data and network"
    )


def with_default(policies: Any, lr_range: Sequence[float] | None) -> tuple[Any, bool]:
    """Return what was asked for with ``"default"`` in place of ``"auto"``, and whether that was asked for.

    Raises
    ------
    InputError
        If a range of rates is given beside it.
    """
    listed = [policies] if isinstance(policies, str) else policies
    if isinstance(listed, Policy | Mapping) or not any(_is_auto(item) for item in listed):
        return policies, False
    if lr_range is not None:
        raise InputError(f"lr_range: expected no range with the policies '{AUTO}', which find it, got {list(lr_range)}")
    return ["default" if _is_auto(item) else item for item in listed], True


def _is_auto(item: Any) -> bool:
    return isinstance(item, str) and item.strip().lower() == AUTO


def _speaker(progress: bool | Callable[[Event], None] | None) -> Callable[[str], None]:
    if progress is False:
        return lambda text: None
    if callable(progress):
        return lambda text: progress(Event("note", text=text))
    return lambda text: print(text, file=sys.stderr, flush=True)
