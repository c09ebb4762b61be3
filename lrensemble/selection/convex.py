"""Weights by convex optimisation: the weighted mean of probabilities with the least NLL, or the least Brier score.

NLL is that of a mixture of fixed components, and its weights are found as such (Jordan & Jacobs 1994): with a_jn what
member j gives to the true class of sample n,

    minimise  f(w) = −1/N Σ_n log Σ_j w_j a_jn   over  w ≥ 0, Σ w = 1.

At the minimum r_j = 1/N Σ_n a_jn / (w·a)_n is 1 for every member with weight and at most 1 for the others; anywhere,
max_j r_j − 1 bounds how far f is above it. The sum need not be held at 1: minimising f(w) + Σ w over w ≥ 0 brings it
there, which leaves Newton steps that are non-negative least squares (Kim et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.predictions import TINY, Predictions
from lrensemble.selection.base import Selection, Task, counted
from lrensemble.selection.scorers import gap_products

__all__ = ["brier_problem", "convex", "nll_problem"]

Doubles = npt.NDArray[np.float64]
Members = npt.NDArray[np.intp]
GAP = 1e-10  # nats above the least NLL that a solution may be, certified
EM_STEPS = 10  # bring the weights from equal ones to where Newton steps are good
NEWTON_STEPS = 200  # more than ever needed: some ten are
ENTERING = 50  # members at most that may join those with weight in one Newton step
RIDGE = 1e-10  # of the mean curvature, added to every curvature: equal members leave none between them
HALVINGS = 60


class Problem(NamedTuple):
    """A loss over weights; ``solve(members)`` gives the best weights of those alone, ``loss`` that of weights (M,)."""

    solve: Callable[[Members], Doubles]
    loss: Callable[[Doubles], float]


def convex(task: Task, size: int | None, *, tolerance: float = 1e-4, shrinkage: float = 0.0) -> Selection:
    """Find the weights with the least NLL of the weighted mean of probabilities, and as few members as that takes.

    With the objective ``brier`` it is the Brier score that is least. Any other objective, and any other rule, gets the
    weights of least NLL.

    Parameters
    ----------
    size
        At most so many members: those of least weight are dropped one by one, the others weighted anew.
    tolerance
        How much worse than the best possible the loss may become by dropping members, those of least weight first.
    shrinkage
        Pull towards equal weights, in samples: as if so many more had been seen, shared evenly by the members, each
        right for one member alone. Then every member has weight, and only a `size` drops any.
    """
    _check_amount("tolerance", tolerance)
    _check_amount("shrinkage", shrinkage)
    brier = task.objective.is_metric("brier")
    problem = (brier_problem if brier else nll_problem)(task.predictions, shrinkage)
    weights = problem.solve(np.arange(task.n_members))
    least, holders = problem.loss(weights), np.count_nonzero(weights)
    limit = -np.inf if shrinkage else least + tolerance
    weights = _thinned(problem, weights, limit, size or task.n_members)
    kept = int(np.count_nonzero(weights))
    name = f"{'shrunken ' if shrinkage else ''}weights of least {'Brier score' if brier else 'NLL'}"
    thinned = f", thinned to {counted(kept, 'member')} and {problem.loss(weights):.6g}" if kept < holders else ""
    return Selection(weights, reason=f"{name}: {least:.6g} with {holders} of {task.n_members} members{thinned}")


def _thinned(problem: Problem, weights: Doubles, limit: float, size: int) -> Doubles:
    """Drop members while there are too many (then the one of least weight), or the loss keeps to its limit."""
    while (team := np.flatnonzero(weights)).size > 1:
        rising = team[np.lexsort((-team, np.round(weights[team], 9)))]  # of equal weights the highest index goes first
        fewer = (problem.solve(team[team != member]) for member in rising)
        found = next((less for less in fewer if team.size > size or problem.loss(less) <= limit), None)
        if found is None:
            break
        weights = found
    return weights


def nll_problem(predictions: Predictions, shrinkage: float = 0.0) -> Problem:
    """NLL of the weighted mean, from the true class alone; see the head of this file.

    Shrinkage is a Dirichlet prior: to −N·f it adds shrinkage/K · Σ_j log w_j, which is what K samples more would.
    """
    own = np.maximum(predictions.true_class, TINY, dtype=np.float64)
    m, n = own.shape

    def solve(members: Members) -> Doubles:
        k = len(members)
        mine, counts = own if k == m else own[members], np.ones(n)
        if shrinkage:
            mine, counts = np.hstack([mine, np.eye(k)]), np.append(counts, np.full(k, shrinkage / k))
        return _spread(mixture_weights(mine, counts / counts.sum()), members, m)

    return Problem(solve, lambda weights: -float(np.log(weights @ own).mean()))


def mixture_weights(own: Doubles, shares: Doubles) -> Doubles:
    """Return the weights (K,) of the mixture of most likelihood.

    Parameters
    ----------
    own
        Shape (K, N), ≥ 0: what each component gives to each sample; some component > 0 to each.
    shares
        Shape (N,), > 0, sum 1: how much each sample counts.
    """
    w = np.full(len(own), 1 / len(own))
    for _ in range(EM_STEPS):
        w *= own @ (shares / (w @ own))
    for _ in range(NEWTON_STEPS):
        per_mix = shares / (w @ own)
        r = own @ per_mix
        if r.max() - 1 <= GAP and np.abs(r[w > 0] - 1).max() <= GAP:
            break
        entering = np.flatnonzero((w == 0) & (r > 1))
        entering = entering[np.argsort(-r[entering], kind="stable")[:ENTERING]]
        working = np.sort(np.append(np.flatnonzero(w), entering))
        ratio = own[working] * (per_mix / np.sqrt(shares))
        w = _searched(
            own, shares, w, _spread(nonnegative_minimum(ratio @ ratio.T, 2 * r[working] - 1), working, len(w))
        )
    return w / w.sum()


def _spread(values: Doubles, members: Members, n_members: int) -> Doubles:
    """Weights (M,) with those of some members, and 0 elsewhere."""
    weights = np.zeros(n_members)
    weights[members] = values
    return weights


def _searched(own: Doubles, shares: Doubles, w: Doubles, target: Doubles) -> Doubles:
    """Go from `w` towards `target` as far as −mean log + sum falls: all the way, half of it, a quarter, and so on."""

    def height(v: Doubles) -> float:
        mix = v @ own
        return float(v.sum() - shares @ np.log(mix)) if mix.min() > 0 else np.inf

    here = height(w)
    for halvings in range(HALVINGS):
        there = w + (target - w) / 2**halvings
        if height(there) <= here + 1e-15 * abs(here):
            return there
    return w


def brier_problem(predictions: Predictions, shrinkage: float = 0.0) -> Problem:
    """Brier score of the weighted mean: as Σ w = 1 it is w·Q·w, Q_ij = 1/N Σ_n (p_in − e_n)·(p_jn − e_n).

    Shrinkage adds shrinkage/(N·K) · w·w: least for equal weights.
    """
    q = gap_products(predictions)

    def solve(members: Members) -> Doubles:
        k = len(members)
        ridge = shrinkage / (predictions.n_samples * k)
        x = nonnegative_minimum(q[np.ix_(members, members)] + ridge * np.eye(k), np.ones(k))
        return _spread(x / x.sum(), members, len(q))  # scaled, the minimum of ½ x·Q·x − Σ x is the one of Σ x = 1

    return Problem(solve, lambda weights: float(weights @ q @ weights))


def nonnegative_minimum(curvature: Doubles, slope: Doubles) -> Doubles:
    """Return the x ≥ 0 of least ½ x·H·x − slope·x: with H = LLᵀ the non-negative least squares of Lᵀx = L⁻¹ slope."""
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import nnls

    k = len(slope)
    ridge = RIDGE * np.trace(curvature) / k + TINY
    lower = cholesky(curvature + ridge * np.eye(k), lower=True)
    return nnls(lower.T, solve_triangular(lower, slope, lower=True), maxiter=30 * k)[0]


def _check_amount(name: str, value: object) -> None:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= value < np.inf:  # type: ignore[operator]
        raise InputError(f"expected {name} as a finite number ≥ 0, got {value!r}")
