"""Who is compared: the ensembles, and what anyone could use in their place, all chosen without the test labels.

The exceptions have the role ``"oracle"``: the single network and the team that fit the test labels best.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.ensemble import Ensemble
from lrensemble.evaluation.report import MemberScore
from lrensemble.predictions import Predictions
from lrensemble.selection import SELECTORS, Objective, Task
from lrensemble.selection.outcome import ensemble_of

__all__ = ["BEST_SINGLE", "WHOLE_POOL", "System", "list_systems", "oracle_team"]

BEST_SINGLE = "best single (validation)"
ORACLE = "best single (test, oracle)"
WHOLE_POOL = "whole pool"
ORACLE_ROUNDS = 50


@dataclass(frozen=True)
class System:
    """A team under the name and role that it has in the report; no team for a mean over networks."""

    name: str
    role: str
    team: Ensemble | None = None

    @classmethod
    def equal(cls, name: str, role: str, members: Sequence[str], rule: str = "mean_probability") -> System:
        """Team with equal weights."""
        return cls(name, role, Ensemble(tuple(members), (1 / len(members),) * len(members), rule))

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the networks that answer."""
        return self.team.members if self.team else ()

    def probabilities(self, predictions: Predictions) -> npt.NDArray[np.float64]:
        """Probabilities of the team, shape (N, C)."""
        assert self.team is not None, "a mean over networks has no probabilities"
        return self.team.probabilities(predictions)


def list_systems(ensembles: Sequence[Ensemble], members: Sequence[MemberScore], groups: Sequence[str]) -> list[System]:
    """All systems of a report that scores of single networks decide: the ensembles first, then baselines and controls.

    Parameters
    ----------
    ensembles
        The first one lends its size to the top-k baseline and its rule to all teams.
    members
        Every network of the pool.
    groups
        What trained each network (its policy), aligned with `members`; networks of one group differ in their seed only,
        and a snapshot is a group of its own. Empty: unknown.
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


def oracle_team(test: Predictions, size: int) -> Iterator[System]:
    """Yield the weighted team of at most `size` that greedy search finds on the *test* labels.

    It shows what a better selection could still gain (search regret). Nothing for one network (the oracle among those
    has a row of its own), or where outputs stay on disk.
    """
    if size > 1 and test.in_memory:
        task = Task(test, Objective.of("accuracy"), "mean_probability", 0)
        found = SELECTORS["greedy"].function(task, size, rounds=ORACLE_ROUNDS)
        yield System(f"team of {size} (test, oracle)", "oracle", ensemble_of(task, found))


def _merit(scores: dict[str, float]) -> tuple[float, float]:
    """Sort key: higher accuracy first, then lower NLL."""
    return -scores["accuracy"], scores["nll"]


def _named(ensembles: Sequence[Ensemble]) -> Iterator[System]:
    seen = {BEST_SINGLE: 1, ORACLE: 1, WHOLE_POOL: 1}
    for ensemble in ensembles:
        name = f"{ensemble.method} ({ensemble.metric})" if ensemble.metric else ensemble.method
        seen[name] = seen.get(name, 0) + 1
        name += f" #{seen[name]}" if seen[name] > 1 else ""
        yield System(name, "ensemble", ensemble)


def _seeds_of_best_policy(members: Sequence[MemberScore], groups: Sequence[str], rule: str) -> Iterator[System]:
    """Team of all seeds of the policy of best mean validation accuracy: what seeds bring without other policies."""
    teams: dict[str, list[MemberScore]] = {}
    for member, group in zip(members, groups, strict=bool(groups)):
        teams.setdefault(group, []).append(member)
    several = [team for team in teams.values() if len(team) > 1]
    if len(teams) > 1 and several:
        best = min(several, key=lambda team: tuple(np.mean([_merit(m.validation) for m in team], axis=0)))
        yield System.equal("seeds of best policy", "control", [member.id for member in best], rule)
