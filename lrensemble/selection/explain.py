"""`explain`: why a team is what it is: what each member brings to it, and what each of the others would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lrensemble.calibration import safe_temperature, temper, tempered
from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError
from lrensemble.metrics import METRICS
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Objective, Task
from lrensemble.selection.explanation import Candidate, Explanation, MemberRole, Round
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.select import validation_of
from lrensemble.selection.simple import ranking

if TYPE_CHECKING:
    from lrensemble.pool import Pool

__all__ = ["explain"]

Doubles = npt.NDArray[np.float64]
STACKED = (
    "A stacker is fitted to its members together, so that what one of them brings cannot be told without a new fit: "
    "changes are not shown."
)
ANOTHER_METRIC = "The ensemble was chosen by {0!r}, which is no metric of the table: scores are NLL."


def explain(source: Pool | Predictions, ensemble: Ensemble, *, metric: str | None = None) -> Explanation:
    """Say what each member brings to an ensemble, and what each of the others would, on validation data.

    Parameters
    ----------
    source
        The pool that the ensemble was chosen from (only its validation data are asked for), or predictions.
    ensemble
        Of any method and rule.
    metric
        A key of ``METRICS``; None: the one that the ensemble was chosen by.

    Returns
    -------
    Explanation
        Changes are those of the metric as it is. A member is left out by scaling the other weights up; one is added
        with the average weight of the team, 1/K, the K others scaled down; neither is fitted anew (members that come
        into a team of tempered members bring their own fitted temperature).

    Raises
    ------
    PoolError
        If the ensemble is of another pool.
    InputError
        On test predictions, or an unknown metric.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = Predictions.from_arrays(rng.normal(size=(3, 50, 2)), rng.integers(0, 2, 50))
    >>> found = explain(p, Ensemble(("m0", "m2"), (0.5, 0.5)), metric="nll")
    >>> [(role.member, round(role.change, 3)) for role in found.team]
    [('m0', 0.212), ('m2', 0.008)]
    """
    predictions = validation_of(source)
    if not isinstance(ensemble, Ensemble):
        kind = type(ensemble).__name__
        raise InputError(f"expected an ensemble, as `select` returns, got {kind}: read a file by Ensemble.load")
    ensemble.check_pool(predictions.fingerprint, predictions.ids)
    known = ensemble.metric in METRICS
    objective = Objective.of(metric or (ensemble.metric if known else "nll"))
    outside = [name for name in predictions.ids if name not in ensemble.members]
    changes = _changes(predictions, ensemble, objective, outside)
    facts = _facts(_tempered_alike(predictions, ensemble), ensemble, objective)
    rounds = tuple(_rounds(ensemble, objective)) if objective.name == ensemble.metric else ()
    team = [_role(ensemble, k, facts, changes, rounds) for k in range(len(ensemble))]
    others = [Candidate(name, *facts.own[name], changes.get(name), *facts.similar[name]) for name in outside]
    notes = [STACKED] if ensemble.stacker else []
    if ensemble.metric and not known and metric is None:
        notes.append(ANOTHER_METRIC.format(ensemble.metric))
    sign = -1 if objective.higher_is_better else 1
    return Explanation(
        method=ensemble.method,
        reason=ensemble.reason,
        rule=ensemble.combination,
        metric=objective.name,
        higher_is_better=objective.higher_is_better,
        score=objective.value(ensemble.probabilities(predictions), predictions.labels),
        split=predictions.split,
        n_samples=predictions.n_samples,
        team=tuple(sorted(team, key=lambda role: -role.weight)),
        others=tuple(sorted(others, key=lambda other: (sign * (other.change or 0.0), other.rank))),
        rounds=rounds,
        notes=tuple(notes),
    )


# --- what each member is by itself ----------------------------------------------------------------


@dataclass(frozen=True)
class _Facts:
    """By member: its own (score, rank), and the (name, agreement) of the member of the team that is most like it."""

    own: dict[str, tuple[float, int]]
    similar: dict[str, tuple[str, float]]


def _facts(predictions: Predictions, ensemble: Ensemble, objective: Objective) -> _Facts:
    scorer = scorer_for(Task(predictions, objective, ensemble.rule, 0))
    everyone = np.arange(predictions.n_members)
    scores, order = scorer.scores(everyone), ranking(scorer, everyone)
    ranks = np.argsort(order) + 1
    ids = predictions.ids
    own = {ids[j]: (objective.as_metric(float(scores[j])), int(ranks[j])) for j in everyone}
    return _Facts(own, _similar(predictions, ensemble))


def _tempered_alike(predictions: Predictions, ensemble: Ensemble) -> Predictions:
    """All members at their temperatures where those of the team have some, as the selection saw them."""
    if not ensemble.temperatures:
        return predictions
    return tempered(predictions, np.array([_heat(predictions, ensemble, name) for name in predictions.ids]))


def _similar(predictions: Predictions, ensemble: Ensemble) -> dict[str, tuple[str, float]]:
    """Nearest member of the team to each member, itself excepted; nothing for the only member of a team."""
    rows = predictions.indices(ensemble.members)
    inside = predictions.predicted[rows]
    found = {}
    for j, (name, predicted) in enumerate(zip(predictions.ids, predictions.predicted, strict=True)):
        agreement = (inside == predicted).mean(axis=1)
        agreement[np.equal(rows, j)] = -1.0
        nearest = int(agreement.argmax())
        if agreement[nearest] >= 0:
            found[name] = (ensemble.members[nearest], float(agreement[nearest]))
    return found


def _rounds(ensemble: Ensemble, objective: Objective) -> Iterator[Round]:
    sign = 1 if objective.higher_is_better else -1
    before = None
    for step in ensemble.trace:
        score = float(step["score"])
        yield Round(str(step["member"]), score, None if before is None else sign * (score - before))
        before = score


def _role(
    ensemble: Ensemble, k: int, facts: _Facts, changes: Mapping[str, float], rounds: Sequence[Round]
) -> MemberRole:
    name = ensemble.members[k]
    similar, agreement = facts.similar.get(name, (None, None))
    entered = next((i for i, step in enumerate(rounds) if step.member == name), None)
    return MemberRole(
        name,
        ensemble.weights[k],
        *facts.own[name],
        change=changes.get(name),
        round=None if entered is None else entered + 1,
        gain=None if entered is None else rounds[entered].gain,
        similar=similar,
        agreement=agreement,
    )


# --- what the team is without one, or with one more -----------------------------------------------


def _changes(
    predictions: Predictions, ensemble: Ensemble, objective: Objective, outside: Sequence[str]
) -> dict[str, float]:
    """Change of the metric when each member of the team is left out, and when each of the others is added."""
    if ensemble.stacker is not None:
        return {}
    if ensemble.rule == "mean_probability":
        return dict(_changes_of_mean(predictions, ensemble, objective, outside))
    return dict(_changes_of_rule(predictions, ensemble, objective, outside))


def _changes_of_rule(
    predictions: Predictions, ensemble: Ensemble, objective: Objective, outside: Sequence[str]
) -> Iterator[tuple[str, float]]:
    def value(team: Ensemble) -> float:
        return objective.value(team.probabilities(predictions), predictions.labels)

    now = value(ensemble)
    for k, name in enumerate(ensemble.members):
        if len(ensemble) > 1:
            yield name, value(_without(ensemble, k)) - now
    for name in outside:
        yield name, value(_with(ensemble, name, _heat(predictions, ensemble, name))) - now


def _without(ensemble: Ensemble, k: int) -> Ensemble:
    rest = [i for i in range(len(ensemble)) if i != k]
    weights = np.array(ensemble.weights)[rest]
    return replace(
        ensemble,
        members=tuple(ensemble.members[i] for i in rest),
        weights=tuple(weights / weights.sum()),
        temperatures=tuple(ensemble.temperatures[i] for i in rest) if ensemble.temperatures else (),
    )


def _with(ensemble: Ensemble, name: str, temperature: float) -> Ensemble:
    weights = np.append(len(ensemble) * np.array(ensemble.weights), 1.0) / (len(ensemble) + 1)
    return replace(
        ensemble,
        members=(*ensemble.members, name),
        weights=tuple(weights),
        temperatures=(*ensemble.temperatures, temperature) if ensemble.temperatures else (),
    )


def _heat(predictions: Predictions, ensemble: Ensemble, name: str) -> float:
    """Temperature of a member: the ensemble's, or the one fitted to a member that is to come into tempered company."""
    if not ensemble.temperatures:
        return 1.0
    if name in ensemble.members:
        return ensemble.temperatures[ensemble.members.index(name)]
    return safe_temperature(predictions.member_logits(predictions.indices([name])[0]), predictions.labels)


def _changes_of_mean(
    predictions: Predictions, ensemble: Ensemble, objective: Objective, outside: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Find the same for the mean of probabilities, by its sum: one pass over the members, few additions each."""
    rows, value = _view(predictions, ensemble, objective)
    parts = [weight * rows(name) for name, weight in zip(ensemble.members, ensemble.weights, strict=True)]
    total = np.sum(parts, axis=0)
    now, k = value(total), len(ensemble)
    for j, others in _without_each(np.arange(k), np.zeros_like(total), parts) if k > 1 else ():
        yield ensemble.members[j], value(others / np.delete(ensemble.weights, j).sum()) - now
    for name in outside:
        yield name, value((k * total + rows(name)) / (k + 1)) - now


def _without_each(
    members: npt.NDArray[np.intp], so_far: Doubles, parts: Sequence[Doubles]
) -> Iterator[tuple[int, Doubles]]:
    """Yield (j, sum of all parts but that of j) for each of `members`; `so_far` sums those that are not among them.

    Halves take turns, log₂ K additions a member: a subtraction would leave nothing but rounding of a small rest.
    """
    if len(members) == 1:
        yield int(members[0]), so_far
        return
    half = len(members) // 2
    for left, added in ((members[:half], members[half:]), (members[half:], members[:half])):
        yield from _without_each(left, sum((parts[j] for j in added), so_far), parts)


def _view(
    predictions: Predictions, ensemble: Ensemble, objective: Objective
) -> tuple[Callable[[str], Doubles], Callable[[Doubles], float]]:
    """Probabilities of a member, and the metric of a team's; for NLL those of the true class alone, shape (N, 1)."""
    position = {name: j for j, name in enumerate(predictions.ids)}

    if objective.is_metric("nll") and ensemble.temperature == 1 and not ensemble.temperatures:
        own, only = predictions.true_class, np.zeros(predictions.n_samples, dtype=np.int64)
        return lambda name: own[position[name], :, None].astype(float), lambda p: objective.value(p, only)

    def rows(name: str) -> Doubles:
        if not ensemble.temperatures:
            return predictions.member(position[name]).astype(np.float64)
        return temper(predictions.member(position[name]), _heat(predictions, ensemble, name))

    def value(p: Doubles) -> float:
        return objective.value(p if ensemble.temperature == 1 else temper(p, ensemble.temperature), predictions.labels)

    return rows, value
