"""Accuracy–diversity trade-off: greedy growth by (1 − λ)·score + λ·diversity, with λ chosen on held-out samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lrensemble.diversity.teams import measure
from lrensemble.errors import InputError
from lrensemble.selection.base import Selection, Task, check_count, first_best, near_best
from lrensemble.selection.candidates import scaled
from lrensemble.selection.diverse import diversity_of
from lrensemble.selection.outcome import team_probabilities
from lrensemble.selection.resplit import stratified_splits
from lrensemble.selection.scorers import Scorer, scorer_for

__all__ = ["tradeoff"]

Doubles = npt.NDArray[np.float64]
Team = list[int]
Diversity = Callable[[npt.NDArray[np.intp]], Doubles]
GRID = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
MOST_ROUNDS = 25


def tradeoff(
    task: Task,
    size: int | None,
    *,
    lam: float | None = None,
    diversity: str = "BD",
    max_size: int = MOST_ROUNDS,
    splits: int = 10,
) -> Selection:
    """Grow a team by the member that is best in (1 − λ)·score + λ·diversity of the team with it, round by round.

    In each round score and diversity are scaled to 0…1 among the candidates. λ = 0 is greedy selection without
    replacement, and the first member is always the best single one.

    Parameters
    ----------
    size
        Members; None: as many, up to `max_size`, as are best together by the objective.
    lam
        λ in 0…1. None: that of 0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9 whose teams, grown on one half of the samples, score
        best on the other half, on average over `splits`; the smallest of equals. A single sample is not split: λ = 0.
    diversity
        A key of ``DIVERSITY``.
    splits
        How many; drawn with the task's seed, stratified by class, each half held out in turn.
    """
    title = measure(diversity).title
    rounds = min(size or check_count("max_size", max_size, 1), task.n_members)
    check_count("splits", splits, 1)
    if lam is not None and not 0 <= lam <= 1:
        raise InputError(f"expected lam as a number in 0…1, got {lam!r}")
    if lam is None:
        lam = _best_lambda(task, size, diversity, rounds, splits)
        found = f", the best of {len(GRID)} on {splits} held-out halves" if task.predictions.n_samples > 1 else ""
    else:
        found = ""
    team, scores = _grow(*_measures(task, diversity), size, float(lam), rounds)
    steps = tuple(zip(team, scores, strict=True))
    score = f"{1 - lam:.3g} × score ({task.objective.name})"
    reason = f"grown by {score} + {lam:.3g} × diversity ({title}), λ = {lam:.3g}{found}"
    return replace(Selection.equal(task.n_members, team), steps=steps, reason=reason)


def _measures(task: Task, diversity: str) -> tuple[npt.NDArray[np.intp], Scorer, Diversity]:
    """All members, the scorer of the empty team, and the diversity of teams: what every λ starts from."""
    return np.arange(task.n_members), scorer_for(task), diversity_of(task.predictions, diversity, focal=False)


def _grow(
    everyone: npt.NDArray[np.intp],
    scorer: Scorer,
    diversity_of_teams: Diversity,
    size: int | None,
    lam: float,
    rounds: int,
) -> tuple[Team, list[float]]:
    """Members in the order added, and the score after each; without a size, those up to the best score passed."""
    team: Team = []
    keys = []
    for _ in range(rounds):
        rest = np.setdiff1d(everyone, team)
        scores = scorer.scores(rest)
        values = (1 - lam) * _scaled(scores)
        if team and lam:
            teams = np.sort(np.column_stack([np.tile(team, (len(rest), 1)), rest]), axis=1)
            values += lam * _scaled(diversity_of_teams(teams))
        chosen = _first_leader(scorer, rest, values)
        keys.append((float(scores[chosen]), float(scorer.ties(rest[[chosen]])[0])))
        team.append(int(rest[chosen]))
        scorer = scorer.plus(team[-1])
    length = size or 1 + first_best(keys)
    return team[:length], [score for score, _ in keys[:length]]


def _first_leader(scorer: Scorer, members: npt.NDArray[np.intp], values: Doubles) -> int:
    """Position of the highest value; equals go by tie, then by index."""
    leading = np.flatnonzero(near_best(values))
    return int(leading[near_best(scorer.ties(members[leading]))][0]) if len(leading) > 1 else int(leading[0])


def _scaled(values: Doubles) -> Doubles:
    """Scaled to 0…1, with values that equal the highest up to rounding exactly 1."""
    return scaled(np.where(near_best(values), values.max(), values))


def _best_lambda(task: Task, size: int | None, diversity: str, rounds: int, splits: int) -> float:
    """Return the λ whose teams score best where they were not grown."""
    p = task.predictions
    if p.n_samples == 1:
        return GRID[0]
    totals = np.zeros(len(GRID))
    for growing, held_out in stratified_splits(p.labels, splits, 2, task.seed):
        part, rest = replace(task, predictions=p.subset(growing)), p.subset(held_out)
        measures = _measures(part, diversity)
        for i, lam in enumerate(GRID):
            team, _ = _grow(*measures, size, lam, rounds)
            totals[i] += task.objective.score(team_probabilities(rest, team, task.rule), rest.labels) / splits
    return GRID[first_best([(total,) for total in totals.tolist()])]
