"""Who is compared: the ensembles, and what anyone could use in their place, all chosen without the test labels.

The one exception, the single network that is best on test data, has the role ``"oracle"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.combine import combine
from lrensemble.ensemble import Ensemble
from lrensemble.evaluation.report import MemberScore
from lrensemble.predictions import Predictions, softmax

__all__ = ["BEST_SINGLE", "System", "list_systems", "team_probabilities"]

BEST_SINGLE = "best single (validation)"
ORACLE = "best single (test, oracle)"
WHOLE_POOL = "whole pool"
BLOCK = 8_000_000  # probabilities of a team that are in memory at a time


@dataclass(frozen=True)
class System:
    """A team and its combination rule, under the name and role it has in the report."""

    name: str
    role: str
    members: tuple[str, ...]
    weights: tuple[float, ...]
    rule: str = "mean_probability"

    @classmethod
    def equal(cls, name: str, role: str, members: Sequence[str], rule: str = "mean_probability") -> System:
        """Team with equal weights."""
        return cls(name, role, tuple(members), (1 / len(members),) * len(members), rule)


def list_systems(ensembles: Sequence[Ensemble], members: Sequence[MemberScore], groups: Sequence[str]) -> list[System]:
    """All systems of a report: the ensembles first, then baselines and controls.

    Parameters
    ----------
    ensembles
        The first one lends its size to the top-k baseline and its rule to all teams.
    members
        Every network of the pool.
    groups
        What trained each network (its policy), aligned with `members`; networks of one group differ in their seed only.
        Empty: unknown.
    """
    first = ensembles[0]
    k, rule = min(len(first), len(members)), first.rule
    ranked = [member.id for member in sorted(members, key=lambda m: _merit(m.validation))]
    oracle = min(members, key=lambda m: _merit(m.test)).id
    return [
        *_named(ensembles),
        System.equal(BEST_SINGLE, "baseline", ranked[:1]),
        System.equal(ORACLE, "oracle", [oracle]),
        System.equal(f"top-{k} (validation)", "baseline", ranked[:k], rule),
        System.equal(WHOLE_POOL, "baseline", [member.id for member in members], rule),
        *_seeds_of_best_policy(members, groups, rule),
    ]


def team_probabilities(predictions: Predictions, system: System) -> npt.NDArray[np.float64]:
    """Combine the probabilities of a team, shape (N, C), going through the samples in blocks."""
    rows = predictions.indices(system.members)
    out = np.empty(predictions.logits.shape[1:])
    step = max(1, BLOCK // (len(rows) * predictions.n_classes))
    for start in range(0, predictions.n_samples, step):
        block = slice(start, start + step)
        logits = np.stack([predictions.logits[row, block] for row in rows])
        out[block] = combine(softmax(logits), system.weights, system.rule)
    return out


def _merit(scores: dict[str, float]) -> tuple[float, float]:
    """Sort key: higher accuracy first, then lower NLL."""
    return -scores["accuracy"], scores["nll"]


def _named(ensembles: Sequence[Ensemble]) -> Iterator[System]:
    seen = {BEST_SINGLE: 1, ORACLE: 1, WHOLE_POOL: 1}
    for ensemble in ensembles:
        name = f"{ensemble.method} ({ensemble.metric})" if ensemble.metric else ensemble.method
        seen[name] = seen.get(name, 0) + 1
        name += f" #{seen[name]}" if seen[name] > 1 else ""
        yield System(name, "ensemble", ensemble.members, ensemble.weights, ensemble.rule)


def _seeds_of_best_policy(members: Sequence[MemberScore], groups: Sequence[str], rule: str) -> Iterator[System]:
    """Team of all seeds of the policy of best mean validation accuracy: what seeds bring without other policies."""
    teams: dict[str, list[MemberScore]] = {}
    for member, group in zip(members, groups, strict=bool(groups)):
        teams.setdefault(group, []).append(member)
    several = [team for team in teams.values() if len(team) > 1]
    if len(teams) > 1 and several:
        best = min(several, key=lambda team: tuple(np.mean([_merit(m.validation) for m in team], axis=0)))
        yield System.equal("seeds of best policy", "control", [member.id for member in best], rule)
