"""`pareto_front`: what more cost buys, from the cheapest member to the best team."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrensemble.predictions import Predictions
from lrensemble.selection.base import MetricLike, Task
from lrensemble.selection.costs import CostLike, costs_by_kind, costs_of
from lrensemble.selection.outcome import team_probabilities
from lrensemble.selection.pareto import front_of
from lrensemble.selection.select import check_request, validation_of

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["ParetoPoint", "pareto_front"]


@dataclass(frozen=True)
class ParetoPoint:
    """A team that no other beats in score without costing more.

    Attributes
    ----------
    members
        In the order of the pool; their weights are equal.
    cost
        Sum over the members.
    score
        The metric on validation, as it is, and as ``Ensemble.score`` would be.
    exact
        Whether all teams were compared; False: those that a beam search came across.
    """

    members: tuple[str, ...]
    cost: float
    score: float
    exact: bool


def pareto_front(
    source: Pool | Predictions,
    *,
    cost: CostLike = "members",
    metric: MetricLike = "nll",
    rule: str = "mean_probability",
    budget: float | None = None,
    max_size: int | None = None,
    max_teams: int | None = None,
) -> tuple[ParetoPoint, ...]:
    """Return the Pareto front of validation score against cost, from the cheapest team to the best.

    Parameters
    ----------
    source, metric, rule
        As in `select`.
    cost
        ``"members"``; ``"parameters"``, ``"flops"`` or ``"seconds"``, which a pool may know; or a number for each
        member, by its name.
    budget, max_size
        Only teams that cost no more, or have no more members.
    max_teams
        All teams are compared if there are no more than this; else a beam search finds good ones, see ``exact``. None:
        a million for accuracy and NLL of the mean of probabilities, which compiled kernels bound; 65,536 for others.

    Returns
    -------
    tuple of ParetoPoint
        Costs and scores rise (or scores fall, if lower is better).

    Raises
    ------
    InputError
        On test predictions, a cost that is not known, or a budget that no team is within.

    Examples
    --------
    >>> p = Predictions.from_arrays(probabilities=[[[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.1, 0.9]]], labels=[0, 1])
    >>> [(point.members, point.cost, point.score) for point in pareto_front(p, metric="accuracy")]
    [(('m0',), 1.0, 0.5), (('m0', 'm1'), 2.0, 1.0)]
    """
    _, objective = check_request("cost-aware", metric=metric, size=None, rule=rule, seed=0)
    predictions = validation_of(source)
    known = costs_by_kind(source, predictions.ids) if isinstance(cost, str) and cost != "members" else {}
    task = Task(predictions, objective, rule, 0, known)
    front = front_of(task, costs_of(task, cost), budget=budget, max_size=max_size, max_teams=max_teams)
    points = []
    for team, spent in zip(front.teams, front.costs, strict=True):
        score = objective.value(team_probabilities(predictions, team, rule), predictions.labels)
        points.append(ParetoPoint(tuple(predictions.ids[i] for i in team), float(spent), score, front.exact))
    return tuple(points)
