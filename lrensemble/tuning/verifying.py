"""`verify`: find out whether a learning-rate policy reaches a target accuracy within a budget, and how soon.

The protocol is that of LRBench (Wu & Liu 2022, arXiv 2210.12936): train, evaluate on validation data after every epoch,
and stop at the first evaluation that reaches the target (PASS) or when the budget is used up (FAIL). A training that
cannot reach it any more is stopped before, and the verdict says how that is known. The trainings are members of a pool;
one that was stopped rests there and can go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError, lookup
from lrensemble.models import ModelLike, build_model
from lrensemble.policies import Policy, TimePolicy, resolve_policies
from lrensemble.training.progress import Epochs, Event
from lrensemble.training.trainer import list_seeds
from lrensemble.training.workshop import Plan, Trained, Workshop
from lrensemble.tuning.extrapolate import chance_of_reaching

if TYPE_CHECKING:
    from lrensemble.pool import Pool
    from lrensemble.training.task import Task

__all__ = ["EARLY", "REASONS", "SeedVerdict", "Verdict", "check_target", "never_changes", "verify"]

EARLY = {
    "certain": "stop where it is certain that the target is not reached any more",
    "likely": "stop also where an extrapolation of the accuracy gives it a chance below 5 %: an estimate",
    "never": "train on to the end of the budget",
}
REASONS = ("reached", "budget", "diverged", "certain", "likely")
HOPELESS = 0.05  # a chance below this is a verdict of kind "likely"
RUNGS = 20  # a training rests at most so often to be looked at
STILL = 2.0**-400


@dataclass(frozen=True)
class SeedVerdict:
    """What came of one training.

    Attributes
    ----------
    seed, id
        Of the member.
    passed
        Whether it has reached the target within the budget.
    reason
        One of ``REASONS``: ``"reached"``; ``"budget"``: used up; ``"diverged"``; ``"certain"``: the network does not
        change any more; ``"likely"``: an extrapolation gives it a chance below 5 %, which is an estimate.
    why
        The same as a sentence.
    epoch, steps, seconds
        Up to the evaluation that decided; seconds are wall-clock time, shared by networks that are trained together.
    best, best_epoch
        Best validation accuracy up to there, and when it was first seen; None where nothing was measured.
    val_accuracy
        After each of these epochs; None where it was not measured.
    """

    seed: int
    id: str
    passed: bool
    reason: str
    why: str
    epoch: int
    steps: int
    seconds: float
    best: float | None
    best_epoch: int | None
    val_accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a policy reaches a target; ``bool(verdict)`` is that answer.

    Attributes
    ----------
    passed
        Whether at least `share` of the trainings did.
    target
        Validation accuracy, in (0, 1].
    policy, resolved
        As asked for, and in steps.
    share
        Of the seeds, that had to reach it.
    epochs, steps_per_epoch
        Of a whole training.
    budget_epochs, budget_steps
        What each training might take; accuracy is measured at the end of epochs, so that it is whole epochs.
    early
        Name in ``EARLY``.
    seeds
        One verdict a training.
    pool
        Directory of the pool that they are in.
    """

    passed: bool
    target: float
    policy: str
    resolved: str
    share: float
    epochs: int
    steps_per_epoch: int
    budget_epochs: int
    budget_steps: int
    early: str
    seeds: tuple[SeedVerdict, ...]
    pool: str

    def __bool__(self) -> bool:
        return self.passed

    @property
    def estimated(self) -> bool:
        """Whether the verdict rests on an estimate: with one of kind ``"likely"`` the other way it could be another."""
        passes, likely = (sum(one.reason == kind for one in self.seeds) for kind in ("reached", "likely"))
        return self.passed != _enough(passes + likely, len(self.seeds), self.share)

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        values = asdict(self)
        seeds = [{**one, "val_accuracy": list(one["val_accuracy"])} for one in values["seeds"]]
        return {**values, "seeds": seeds, "estimated": self.estimated}

    def __str__(self) -> str:
        reached = [one for one in self.seeds if one.passed]
        word = "PASS" if self.passed else "FAIL"
        budget = f"{_count(self.budget_epochs, 'epoch')} ({self.budget_steps:,} steps)"
        lines = [f"{word}  {self.policy} to {_percent(self.target)} validation accuracy within {budget}"]
        if len(self.seeds) > 1:
            asked = "all of them" if self.share == 1 else f"{100 * self.share:.0f} % of them"
            lines.append(f"{len(reached)} of {len(self.seeds)} trainings reach it; {asked} had to")
        lines += [f"seed {one.seed}: {one.why}" for one in self.seeds]
        if len(reached) > 1:
            lines.append(
                f"to the target: {_spread([s.steps for s in reached])} steps, {_spread([s.seconds for s in reached])} s"
            )
        if self.estimated:
            lines.append('This is an estimate: `early="certain"` trains on where it is not certain.')
        return "\n".join(lines)


def verify(
    data: Any,
    policy: str | Policy,
    *,
    target: float,
    model: ModelLike = "mlp",
    epochs: int | None = None,
    max_steps: int | None = None,
    seeds: int | Sequence[int] = 1,
    share: float = 1.0,
    early: str = "certain",
    keep_training: bool = False,
    progress: bool | Callable[[Event], None] | None = None,
    **training: Any,
) -> Verdict:
    """Find out whether a policy reaches a validation accuracy within a budget.

    Test data are not looked at. The same call again trains nothing, and with a larger budget or another target it goes
    on from what is there.

    Parameters
    ----------
    data
        As for `train_pool`.
    policy
        One policy, as `parse_policy` reads it, or a preset that holds one.
    target
        Validation accuracy, more than 0 and at most 1.
    model, progress, **training
        As for `train_pool`: ``optimizer``, ``batch_size``, ``path``, ``train_size``, ``jobs``, …
    epochs
        Length of the training, which shares of the run in the policy refer to, and the budget.
    max_steps
        Optimiser steps that it may take. Without `epochs` the training is as long as fits into them.
    seeds
        Seeds 0 … N − 1 for a number N, or the seeds themselves.
    share
        Of the seeds, that have to reach the target.
    early
        When to stop a training before the budget is used up: a name in ``EARLY``. One that diverges stops in any case.
    keep_training
        Train all seeds to their end after the verdict, so that they are full members of the pool.

    Returns
    -------
    Verdict
        Accuracy is measured after each epoch, so that "the first evaluation that reaches the target" is an end of an
        epoch.

    Raises
    ------
    InputError
        If a setting is not as expected; nothing is written then.
    TrainingError, PoolError, KeyboardInterrupt
        As `train_pool`. What was trained is kept.
    """
    goal, needed = check_target(target), _check_share(share)
    lookup(EARLY, early, "way to stop early (early)")
    chosen, watch = list_seeds(seeds), Epochs.shown(progress)
    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    shop = Workshop.open(data, model=model, progress=watch, **given, **training)
    shop, last = _budget(shop, epochs, max_steps)
    asked = _one_policy(policy, shop.config.optimizer)
    plan = shop.plan([(asked, seed) for seed in chosen])
    judge = _Judge(shop, goal, last, early)
    judged = _watch(shop, plan, judge)
    if keep_training:
        shop.train(plan)
    return Verdict(
        passed=_enough(sum(one.passed for one in judged), len(judged), needed),
        target=goal,
        policy=str(asked),
        resolved=str(plan.tasks[0].policy),
        share=needed,
        epochs=shop.config.epochs,
        steps_per_epoch=shop.steps,
        budget_epochs=last,
        budget_steps=last * shop.steps,
        early=early,
        seeds=tuple(judged),
        pool=str(shop.path),
    )


def _watch(shop: Workshop, plan: Plan, judge: _Judge) -> list[SeedVerdict]:
    """Train from rung to rung those that are not decided yet."""
    found: dict[str, SeedVerdict] = {}
    rung = math.ceil(judge.last / RUNGS)
    while True:
        left = tuple(task for task in plan.tasks if task.id not in found)
        trained = shop.look(Plan(left, ()))
        pool = shop.pool()
        for task, one in zip(left, trained, strict=True):
            if verdict := judge.verdict(task, one, pool):
                found[task.id] = verdict
        left = tuple(task for task in left if task.id not in found)
        if not left:
            return [found[task.id] for task in plan.tasks]
        reached = min(one.epoch for one in trained if one.id not in found)
        shop.train(Plan(left, plan.notes if not reached else ()), until=min(judge.last, reached + rung))


@dataclass
class _Judge:
    """Decides from what a training has shown; `last` is the last epoch of the budget."""

    shop: Workshop
    target: float
    last: int
    early: str

    def verdict(self, task: Task, trained: Trained, pool: Pool) -> SeedVerdict | None:
        """Return the verdict about a training, None where it has to go on."""
        curve = trained.val_accuracy[: self.last]
        for epoch, accuracy in enumerate(curve, start=1):
            if accuracy >= self.target:
                why = f"{_percent(accuracy)} after {_count(epoch, 'epoch')}"
                return self._told(trained, pool, epoch, "reached", why)
        seen = (
            f"best {_percent(max(finite))}"
            if (finite := [a for a in curve if math.isfinite(a)])
            else "nothing measured"
        )
        if trained.status == "diverged" and trained.epoch <= self.last:
            why = f"diverged in epoch {trained.epoch} (loss infinite or NaN), {seen}"
            return self._told(trained, pool, trained.epoch, "diverged", why)
        if trained.epoch >= self.last:
            return self._told(trained, pool, self.last, "budget", f"{seen} within the budget")
        if not trained.epoch or self.early == "never":
            return None
        if self._is_still(task, trained.epoch):
            why = f"{seen}; the rate is 0 from step {trained.epoch * self.shop.steps:,} on: the network does not change"
            return self._told(trained, pool, trained.epoch, "certain", why)
        if self.early == "likely":
            return self._extrapolated(task, trained, pool, seen)
        return None

    def _extrapolated(self, task: Task, trained: Trained, pool: Pool, seen: str) -> SeedVerdict | None:
        rates = _rates(task.policy, 0, self.last * self.shop.steps)
        chance = chance_of_reaching(
            trained.val_accuracy, self.target, self.last, rates=None if rates is None else rates[:: self.shop.steps]
        )
        if chance is None or chance >= HOPELESS:
            return None
        why = f"{seen} in {_count(trained.epoch, 'epoch')}; estimated chance to reach the target {_percent(chance)}"
        return self._told(trained, pool, trained.epoch, "likely", why)

    def _is_still(self, task: Task, epoch: int) -> bool:
        rates = _rates(task.policy, epoch * self.shop.steps, self.last * self.shop.steps)
        still = rates is not None and never_changes(rates, self.shop.config.weight_decay)
        return still and _judged_alike(self.shop)

    def _told(self, trained: Trained, pool: Pool, epoch: int, reason: str, why: str) -> SeedVerdict:
        curve = tuple(value if math.isfinite(value) else None for value in trained.val_accuracy[:epoch])
        best = max((value for value in curve if value is not None), default=None)
        steps, seconds = epoch * self.shop.steps, _seconds(trained, pool, epoch)
        if reason == "diverged":
            steps = int(pool.member(trained.id).history["step"][epoch - 1])
        cost = f" ({steps:,} steps, {seconds:.3g} s)"
        when = None if best is None else curve.index(best) + 1
        passed = reason == "reached"
        return SeedVerdict(
            trained.seed, trained.id, passed, reason, why + cost, epoch, steps, seconds, best, when, curve
        )


def never_changes(rates: npt.NDArray[np.float64], weight_decay: float = 0.0) -> bool:
    """Whether no float32 weight can change under these learning rates, whatever the gradients are.

    True where max(rates) · max(1, weight_decay) ≤ 2^−400; above all, where all rates are 0. The proof: every optimiser
    here moves a weight by rate · u, where u is computed from float32 numbers. Finite ones are below 2^128, and what u
    divides by is at least ε ≥ 1e-10 (Adam also by 1 − β₁ ≥ 0.1; Adadelta's ratio is below 2^74), so |u| < 2^250 and
    |rate · u| < 2^−150: less than half of the smallest float32 number that is not 0, which a float32 sum or product
    rounds to 0. If the rate is made a float32 first, it is 0 by then. Decoupled weight decay multiplies weights by
    1 − rate · weight_decay, which is 1. Where a gradient is not finite, the weight becomes NaN: the training diverges,
    and reaches nothing either.

    A larger bound cannot be had for all networks: a weight that is exactly 0, as biases are at first, changes with any
    update that float32 can hold.
    """
    return bool(rates.size) and float(rates.max()) * max(1.0, weight_decay) <= STILL


def _judged_alike(shop: Workshop) -> bool:
    """Whether a network of the same weights is sure to be judged alike after another epoch.

    Not if it has buffers, such as the running means of batch normalisation, which change at any rate; nor if validation
    data are read anew each time; nor off the CPU, where an accuracy may differ by rounding.
    """
    import torch

    from lrensemble.training.loop import controlled

    if set(shop.devices) != {"cpu"} or not shop.splits.resident:
        return False
    with controlled(torch.device("cpu")):
        network = build_model(shop.model, shop.splits.input_shape, shop.splits.n_classes)
    return next(network.buffers(), None) is None


def _rates(policy: Any, first: int, end: int) -> npt.NDArray[np.float64] | None:
    """Rates of steps; None of a policy that decides as it goes."""
    return policy(np.arange(first, end)) if isinstance(policy, TimePolicy) else None


def _seconds(trained: Trained, pool: Pool, epoch: int) -> float:
    """Seconds up to an epoch; of a training that rests after a later one, in proportion to the epochs."""
    if trained.status != "stopped":
        return float(pool.member(trained.id).history["seconds"][epoch - 1])
    return trained.seconds * epoch / trained.epoch


def check_target(target: Any) -> float:
    """Return a target accuracy.

    Raises
    ------
    InputError
        Unless it is a number in (0, 1]; a percentage is told apart.
    """
    if not isinstance(target, int | float) or isinstance(target, bool) or not 0 < target <= 1:
        percent = isinstance(target, int | float) and 1 < target <= 100
        hint = f": for {target:g} % write {target / 100:g}" if percent else ""
        raise InputError(f"target: expected an accuracy as a share, more than 0 and at most 1, got {target!r}{hint}")
    return float(target)


def _check_share(share: Any) -> float:
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
        raise InputError(
            f"share: expected the part of the seeds that has to pass, more than 0 and at most 1, got {share!r}"
        )
    return float(share)


def _budget(shop: Workshop, epochs: int | None, max_steps: int | None) -> tuple[Workshop, int]:
    """Return the workshop with trainings of the length asked for, and the last epoch of the budget."""
    if max_steps is None:
        return shop, shop.config.epochs
    if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < shop.steps:
        raise InputError(
            f"max_steps: expected at least the {shop.steps:,} steps of an epoch, after which accuracy is measured, got "
            f"{max_steps!r}"
        )
    fit = max_steps // shop.steps
    if epochs is None:
        return replace(shop, config=replace(shop.config, epochs=fit)), fit
    return shop, min(fit, shop.config.epochs)


def _one_policy(policy: Any, optimizer: str) -> Policy:
    found = resolve_policies(policy, optimizer=optimizer)
    if len(found) != 1:
        raise InputError(f"policy: expected one policy, got {len(found)} ({policy!r:.60}): verify them one by one")
    return found[0]


def _enough(passes: int, seeds: int, share: float) -> bool:
    return passes >= share * seeds - 1e-9


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.4g} ± {stdev(values):.2g}"
