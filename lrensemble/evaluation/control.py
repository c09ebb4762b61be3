"""The control: the same selection on a pool of one policy and other seeds; what do other learning rates add to that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError
from lrensemble.evaluation.baselines import System
from lrensemble.evaluation.scores import Result, facts_of, score_system
from lrensemble.metrics import METRICS, Metric
from lrensemble.predictions import Predictions
from lrensemble.selection import SELECTORS, select

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["score_controls"]


def score_controls(
    control: Pool | tuple[Predictions, Predictions],
    systems: Sequence[System],
    test: Predictions,
    metrics: Sequence[Metric],
) -> list[Result]:
    """Select on the control pool as each ensemble among `systems` was selected, and score what comes out.

    Parameters
    ----------
    control
        A pool; or its validation and test predictions. Of a larger pool than `test` has, only so many networks are
        taken, the first ones.

    Raises
    ------
    InputError
        If the pool has several policies or other test labels, or an ensemble was made by no method, or for no metric,
        that could be repeated.
    """
    val, own, facts = _inputs(control)
    if not np.array_equal(own.labels, test.labels) or own.n_classes != test.n_classes:
        raise InputError("expected a control pool with the test labels of this pool, got one with others")
    if own.ids == test.ids and np.array_equal(own.member_logits(0), test.member_logits(0)):
        raise InputError("expected a control pool of other networks, got the pool itself")
    kept = own.ids[: test.n_members]
    val, own = _only(val, kept), _only(own, kept)
    results = []
    for system in systems:
        if system.team is None or system.role != "ensemble":
            continue
        team = _selected_as(system.team, val, control)
        repeated = System(f"control: {system.name}", "control", team)
        results.append(score_system(repeated, own, val, metrics, facts))
    return results


def _selected_as(team: Ensemble, val: Predictions, control: Pool | tuple[Predictions, Predictions]) -> Ensemble:
    """Select as a team was: by the same method with the same options, and as many re-splits if it is one of these."""
    for what, name, table in (("method", team.method, SELECTORS), ("metric", team.metric, METRICS)):
        if name not in table:
            raise InputError(
                f"expected an ensemble chosen by a method and a metric that can be repeated on the control pool, got "
                f"{what} '{name}': leave the control out"
            )
    resplits = team.resplit.get("splits", 0) if SELECTORS[team.method].resplits else 0
    source: Any = val if isinstance(control, tuple | list) else _Lent(val, control)
    return select(source, method=team.method, metric=team.metric, rule=team.rule, resplits=resplits, **team.options)


@dataclass(frozen=True)
class _Lent:
    """Those networks of a pool that take part, as `select` asks for them: what they say, and what they cost."""

    val: Predictions
    pool: Pool

    def predictions(self, split: str) -> Predictions:
        """Return the validation predictions, which is all that `select` asks for."""
        return self.val

    def summaries(self) -> Sequence[Any]:
        """Return what the pool knows of its members."""
        return self.pool.summaries()


def _inputs(control: Pool | tuple[Predictions, Predictions]) -> tuple[Predictions, Predictions, dict]:
    """Return validation and test predictions of the same members, and what is known of them."""
    if isinstance(control, tuple | list):
        if len(control) != 2 or not all(isinstance(part, Predictions) for part in control):
            raise InputError("expected a control pool, or its validation and test predictions, got something else")
        val, test = control
        if set(val.ids) != set(test.ids):
            raise InputError("expected validation and test predictions of the same control networks, got others")
        return _only(val, test.ids), test, {}
    facts = facts_of(control.summaries())
    test = control.predictions("test")
    policies = {facts[name].group for name in test.ids if name in facts}
    if len(policies) > 1:
        raise InputError(
            f"expected a control pool of one policy, model and setting with several seeds, got {len(policies)} of them"
        )
    return control.predictions("val", test.ids), test, facts


def _only(predictions: Predictions, members: tuple[str, ...]) -> Predictions:
    """Keep these members in this order; no copy is made of what has that form."""
    return predictions if predictions.ids == members else predictions.take(members)
