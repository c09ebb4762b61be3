"""Successive halving over the pool: all members train a little, the better ones train on.

Jamieson & Talwalkar 2016 (arXiv 1502.07943); one bracket of Hyperband (Li et al. 2018, arXiv 1603.06560). Every member
follows the learning rates of a whole training, so that one that is stopped can go on, and one that is not is the same
as without halving. Who goes on follows from validation losses that are kept on disk: a run that was killed decides
again as it did. Light: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from lrensemble.errors import InputError, lookup

if TYPE_CHECKING:
    from lrensemble.pool import Pool
    from lrensemble.training.task import Task

__all__ = ["Halving", "Train", "best", "check_halving", "losses_at", "race"]

Train = Callable[["Sequence[Task]", int | None], None]
FIRST_SHARE = 8  # the first cut is after an eighth of the training


@dataclass(frozen=True)
class Halving:
    """When members are compared, and how many go on.

    Attributes
    ----------
    eta
        The best 1/η go on at each rung, and the next rung is η times as many epochs away from the start.
    first
        Epochs before the first rung; an eighth of the training when None.
    least
        So many go on at least: an ensemble needs members more than it needs the best ones.
    """

    eta: float = 2.0
    first: int | None = None
    least: int = 8

    def __post_init__(self) -> None:
        if not _is_number(self.eta) or not 1 < self.eta < math.inf:
            raise InputError(f"halving: expected eta, a number > 1, got {self.eta!r}")
        for name, value in (("first", 1 if self.first is None else self.first), ("least", self.least)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"halving: expected {name}, a whole number ≥ 1, got {value!r}")

    def rungs(self, epochs: int) -> list[int]:
        """Return the epochs after which members are compared.

        Examples
        --------
        >>> Halving(eta=2).rungs(20), Halving(eta=3, first=1).rungs(20)
        ([3, 6, 12], [1, 3, 9])
        """
        found, rung = [], float(self.first or math.ceil(epochs / FIRST_SHARE))
        while (epoch := math.ceil(rung)) < epochs:
            found.append(epoch)
            rung = max(rung * self.eta, epoch + 1)
        return found

    def keep(self, members: int) -> int:
        """Return how many of so many go on: ⌈members/η⌉, but at least `least`.

        Examples
        --------
        >>> [Halving(eta=3, least=4).keep(members) for members in (16, 6, 4)]
        [6, 4, 4]
        """
        return min(members, max(math.ceil(members / self.eta), self.least))


def check_halving(value: Any) -> Halving | None:
    """Return the `Halving` that is asked for by true or false, η, or a mapping of options; None for none.

    Raises
    ------
    InputError
        For anything else, an unknown option, or a value out of range.
    """
    if value is None or isinstance(value, bool | Halving):
        return (Halving() if value else None) if not isinstance(value, Halving) else value
    if _is_number(value):
        return Halving(eta=value)
    if isinstance(value, Mapping):
        names = {field.name: field for field in fields(Halving)}
        for name in value:
            lookup(names, name, "setting of halving")
        return Halving(**value)
    raise InputError(f"halving: expected true, false, eta or a table of eta, first and least, got {value!r:.60}")


def best(losses: Mapping[str, float], most: int) -> list[str]:
    """Names of the members with the lowest losses, the best first; of equals, those that stand first.

    Examples
    --------
    >>> best({"a": 0.3, "b": 0.1, "c": float("nan"), "d": 0.3}, 2)
    ['b', 'a']
    """
    finite = [name for name, loss in losses.items() if math.isfinite(loss)]
    return sorted(finite, key=losses.__getitem__)[:most]


def losses_at(pool: Pool, tasks: Sequence[Task], epoch: int) -> dict[str, float]:
    """Return each member's validation loss after so many epochs; NaN if it had diverged by then, or is not there."""
    stopped = {record.id: record.val_loss for record in pool.stopped()}
    there = set(pool.ids)
    found = {}
    for task in tasks:
        curve = pool.member(task.id).history["val_loss"] if task.id in there else stopped.get(task.id, ())
        found[task.id] = float(curve[epoch - 1]) if len(curve) >= epoch else math.nan
    return found


def race(
    pool: Pool,
    tasks: Sequence[Task],
    halving: Halving,
    train: Train,
    *,
    affordable: Callable[[Sequence[Task], int], int] = lambda tasks, rung: len(tasks),
    is_late: Callable[[], bool] = lambda: False,
) -> None:
    """Train members, of which ever fewer go on.

    Parameters
    ----------
    pool
        Where they are.
    tasks
        All that compete, those included that are in the pool already.
    halving
        Who goes on.
    train
        ``train(tasks, epoch)`` brings members so far; to their end when None.
    affordable
        How many of these, the best first, may go on after this rung at most; one does in any case.
    is_late
        Whether time is up: nothing is decided then.
    """
    running = list(tasks)
    for rung in halving.rungs(tasks[0].config.epochs):
        if halving.keep(len(running)) == len(running):
            break
        train(running, rung)
        if is_late():
            return
        by_name = {task.id: task for task in running}
        running = [by_name[name] for name in best(losses_at(pool, running, rung), halving.keep(len(running)))]
        running = running[: max(1, affordable(running, rung))]
    train(running, None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
