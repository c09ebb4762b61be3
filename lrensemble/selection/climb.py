"""Hill climbing on weights: move weight from member to member as long as that makes the ensemble better."""

from __future__ import annotations

from math import ceil

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup
from lrensemble.selection.base import Selection, Task, better, check_count, counted
from lrensemble.selection.greedy import greedy
from lrensemble.selection.moves import Batch, Moves, moves_for
from lrensemble.selection.simple import best_single

__all__ = ["climb"]

STARTS = {"greedy": greedy, "best": best_single}
ROUNDING = 1e-9  # of a share of all weight


def climb(
    task: Task,
    size: int | None,
    *,
    start: str = "greedy",
    rounds: int = 100,
    step: float = 0.25,
    smallest: float = 1 / 64,
) -> Selection:
    """Make, round by round, the move of weight from one member to another that helps most; only what helps is done.

    When no move of a step's size helps, the step is halved; when none of the smallest does, the climb is over.

    Parameters
    ----------
    size
        At most so many members.
    start
        ``"greedy"``: from what `greedy` finds; ``"best"``: from the best single member.
    rounds
        Moves at most.
    step, smallest
        How much weight is moved at first, and at last (of 1, the weight of all).
    """
    check_count("rounds", rounds, 1)
    _check_share("smallest", smallest, 1.0)
    if _check_share("step", step, 1.0) < smallest:
        raise InputError(f"expected step ≥ smallest, got step={step} and smallest={smallest}")
    begun = lookup(STARTS, start, "start")(task, size)
    units = np.bincount([member for member, _ in begun.steps], minlength=task.n_members)
    units *= ceil(1 / (smallest * units.sum()) - ROUNDING)
    whole = int(units.sum())
    moves = moves_for(task, units)
    amount, made = max(1, round(step * whole)), 0
    while amount >= max(1, smallest * whole * (1 - ROUNDING)):
        if made < rounds and _climbed(moves, amount, size or task.n_members):
            made += 1
        else:
            amount //= 2
    return Selection(moves.units / whole, reason=f"{counted(made, 'move')} of weight from the start '{start}'")


def _climbed(moves: Moves, amount: int, size: int) -> bool:
    """Make the best move of at most `amount` units, if it is one to a better weighting."""
    batch = _batch(moves.units, amount, size)
    if not batch.sources.size:
        return False
    distinct = np.count_nonzero(moves.units)
    grown = distinct + (moves.units[batch.targets] == 0) - (moves.units[batch.sources] == batch.amounts)
    leaders, score, tie = moves.leaders(batch)
    chosen = leaders[np.argmin(grown[leaders])]  # of equals the smaller team, then the lower target
    if not better((score, tie, -float(grown[chosen])), (*moves.now(), -float(distinct))):
        return False
    moves.go(int(batch.sources[chosen]), int(batch.targets[chosen]), int(batch.amounts[chosen]))
    return True


def _batch(units: npt.NDArray[np.int64], amount: int, size: int) -> Batch:
    """All moves of `amount` units, or of all that a member has, to another member, with at most `size` in the team."""
    sources = np.flatnonzero(units)[::-1]
    source, target = np.meshgrid(sources, np.arange(len(units)))
    moved = np.minimum(units[source], amount)
    grown = sources.size + (units[target] == 0) - (units[source] == moved)
    fits = (source != target) & (grown <= size)
    return Batch(source[fits], target[fits], moved[fits])


def _check_share(name: str, value: object, most: float) -> float:
    if not isinstance(value, int | float | np.floating) or isinstance(value, bool) or not 0 < value <= most:
        raise InputError(f"expected {name} as a number above 0 and at most {most:g}, got {value!r}")
    return float(value)
