"""Composition by feedback: one training that changes its policy on plateaus, and the policy that it has followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lrensemble.errors import InputError, TrainingError
from lrensemble.policies import ChangeOnPlateau, Piecewise, Policy, time_policy
from lrensemble.tuning.composition import Attempt, Composition, Cost, Switch

if TYPE_CHECKING:
    from lrensemble.training.workshop import Trained, Workshop

__all__ = ["follow_plateaus", "followed"]


def follow_plateaus(
    shop: Workshop, candidates: Sequence[Policy], *, seed: int, metric: str, options: Mapping[str, Any]
) -> Composition:
    """Train under `ChangeOnPlateau` over the candidates, and return the policy that came of it.

    Parameters
    ----------
    shop
        Where to train.
    candidates
        In any order: the policy is given them from the highest rate to the lowest.
    seed
        Of everything random.
    metric
        What is watched, ``"val_loss"`` or ``"val_accuracy"``.
    options
        Further parameters of the policy: ``start`` (default: the middle of the list), ``window``, ``threshold``, ….

    Raises
    ------
    InputError
        For an option that the policy has not, or cross-fitting, where each network would change at another time.
    TrainingError
        If the training diverges.
    """
    if shop.config.folds:
        raise InputError("folds: expected 0 with method plateau, since each network would change at another time")
    epochs, steps = shop.config.epochs, shop.steps

    def highest(policy: Policy) -> float:
        in_steps = time_policy(policy.resolve(total_steps=epochs * steps, steps_per_epoch=steps))
        return float(in_steps.curve(epochs * steps).max())

    ordered = sorted(candidates, key=highest, reverse=True)
    asked = {"start": len(ordered) // 2, **options, "policies": [policy.to_dict() for policy in ordered]}
    policy = Policy.from_dict({"policy": ChangeOnPlateau.__name__, **asked, "monitor": metric})
    plan = shop.plan([(policy, seed)])
    shop.train(replace(plan, notes=(f"one training that changes on plateaus among {len(ordered)} policies",)))
    (trained,) = shop.look(plan)
    if trained.status == "diverged":
        raise TrainingError(f"{shop.path}: the training diverged (loss infinite or NaN): use lower learning rates")
    (task,) = plan.tasks
    assert isinstance(task.policy, ChangeOnPlateau)
    return _composition(shop, trained, *followed(task.policy, getattr(trained, metric)), metric=metric)


def followed(policy: ChangeOnPlateau, metrics: Sequence[float]) -> tuple[Policy, tuple[Switch, ...]]:
    """Return the policy of time that a training with these metrics, one an epoch, has followed, and its changes.

    It has the same rates, step by step, so that with one seed that alone decides (``common_seed``) it gives the same
    network.

    Examples
    --------
    >>> from lrensemble.policies import parse_policy
    >>> text = "ChangeOnPlateau([FIX(0.1), FIX(0.01)], start=0, window=2, cooldown=0, turn=0)"
    >>> policy = parse_policy(text).resolve(total_steps=50, steps_per_epoch=10)
    >>> followed(policy, [0.9, 0.9, 0.9, 0.9, 0.9])[0]
    [FIX(k0=0.1) @ 30 | FIX(k0=0.01)]
    """
    states = list(accumulate(metrics[:-1], policy.update, initial=policy.init()))
    begun = {state.begun: policy.policies[state.index] for state in states}
    starts = sorted(begun)
    pieces = tuple(begun[start] for start in starts)
    switches = tuple(Switch(start // policy.every, str(begun[start])) for start in starts[1:])
    return (Piecewise(tuple(starts[1:]), pieces) if switches else pieces[0]), switches


def _composition(
    shop: Workshop, trained: Trained, policy: Policy, switches: tuple[Switch, ...], *, metric: str
) -> Composition:
    cost = Cost(trained.epoch, trained.epoch * shop.steps, trained.seconds)
    attempt = Attempt(
        segment=1,
        policy=trained.asked,
        stem=(),
        id="",
        member=trained.id,
        status=trained.status,
        start=0,
        end=trained.epochs,
        val_loss=trained.val_loss,
        val_accuracy=trained.val_accuracy,
        score=getattr(trained, metric)[-1],
        kept=True,
        cost=cost,
    )
    return Composition(
        policy=str(policy),
        asked=str(policy),
        id=trained.id,
        path=str(shop.path),
        seed=trained.seed,
        method="plateau",
        judge="",
        metric=metric,
        ends=(shop.config.epochs,),
        steps=shop.steps,
        val_loss=trained.val_loss[-1],
        val_accuracy=trained.val_accuracy[-1],
        attempts=(attempt,),
        switches=switches,
        alone=cost,
        cost=cost,
    )
