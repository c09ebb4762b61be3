"""Beam search: greedy forward selection that follows several teams at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.selection.base import Selection, Task, better, check_count, near_best
from lrensemble.selection.greedy import Plan, allowed, check_plan
from lrensemble.selection.scorers import Scorer, scorer_for
from lrensemble.selection.simple import ranking

__all__ = ["beam"]

Doubles = npt.NDArray[np.float64]
WIDTH = 5


@dataclass(frozen=True)
class _Team:
    """A team on the way: its scorer, its members with repetition in the order added, and the score after each."""

    scorer: Scorer
    path: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    tie: float = 0.0

    @property
    def key(self) -> tuple[float, float, float]:
        return self.scores[-1], self.tie, -float(len(set(self.path)))


@dataclass(frozen=True)
class _Child:
    """A team and one member more; `members` (sorted, with repetition) says which team that makes."""

    parent: _Team
    member: int
    score: float
    members: tuple[int, ...]

    @property
    def rank(self) -> tuple[int, tuple[int, ...]]:
        """What decides between equals: fewer distinct members, then lower indices."""
        return len(set(self.members)), self.members


def beam(
    task: Task,
    size: int | None,
    *,
    width: int = WIDTH,
    rounds: int | None = None,
    replacement: bool = True,
    keep_best: bool = True,
    init: int = 0,
    patience: int | None = None,
) -> Selection:
    """Follow the `width` best teams of each round; each is extended by every member, and the best of all go on.

    A team is a multiset of members: reached in two orders, it counts once. With ``width=1`` this is `greedy`.

    Parameters
    ----------
    size
        At most so many distinct members.
    width
        Teams that go on from round to round.
    rounds, replacement, keep_best, init, patience
        As for `greedy`.
    """
    plan = check_plan(task, Plan(size, rounds, replacement, keep_best, init, patience))
    check_count("width", width, 1)
    start = scorer_for(task)
    first = iter(ranking(start, np.arange(task.n_members))[:init])
    teams, last, best, ran, n_teams = [_Team(start)], _Team(start), _Team(start), 0, 0
    while ran < plan.most_rounds(task.n_members):
        children = _children(teams, task.n_members, plan, next(first, None))
        if not children:
            break
        teams = _best(children, width)
        last, ran, n_teams = teams[0], ran + 1, n_teams + len(children)
        if ran <= max(init, 1) or better(last.key, best.key):
            best = last
        if plan.is_over(ran, len(best.path)):
            break
    chosen = best if keep_best else last
    weights = np.bincount(chosen.path, minlength=task.n_members) / len(chosen.path)
    reason = f"{plan.story(ran, len(best.path))}; {n_teams:,} teams scored, {width} followed"
    return Selection(weights, tuple(zip(chosen.path, chosen.scores, strict=True)), reason)


def _children(teams: list[_Team], n_members: int, plan: Plan, start: np.intp | None) -> list[_Child]:
    """Return every team that one member more can make (`start`, if given), each once."""
    found: dict[tuple[int, ...], _Child] = {}
    for team in teams:
        inside = np.zeros(n_members, dtype=bool)
        inside[list(team.path)] = True
        candidates = np.flatnonzero(allowed(inside, plan)) if start is None else np.array([start])
        if not candidates.size:
            continue
        scores = team.scorer.scores(candidates)
        for member, score in zip(candidates.tolist(), scores.tolist(), strict=True):
            members = tuple(sorted((*team.path, member)))
            found.setdefault(members, _Child(team, member, score, members))
    return list(found.values())


def _best(children: list[_Child], width: int) -> list[_Team]:
    """Return the `width` best teams, the best first; equals go by tie, then the smaller one, then lower indices."""
    scores = np.array([child.score for child in children])
    ties: dict[np.intp, float] = {}
    teams: list[_Team] = []
    while len(teams) < width and np.isfinite(scores).any():
        leading = np.flatnonzero(near_best(scores))
        for i in leading:
            if i not in ties:
                ties[i] = float(children[i].parent.scorer.ties(np.array([children[i].member]))[0])
        equal = leading[near_best(np.array([ties[i] for i in leading]))]
        chosen = min(equal, key=lambda i: children[i].rank)
        teams.append(_grown(children[chosen], ties[chosen]))
        scores[chosen] = -np.inf
    return teams


def _grown(child: _Child, tie: float) -> _Team:
    parent = child.parent
    return _Team(parent.scorer.plus(child.member), (*parent.path, child.member), (*parent.scores, child.score), tie)
