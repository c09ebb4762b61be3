"""Diversity of probabilities, where labels hide it: members may agree on the class and differ in how sure they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lrensemble.diversity.teams import TeamList, group_by_size
from lrensemble.errors import InputError

__all__ = ["jensen_shannon_distances", "probability_disagreement"]

Doubles = npt.NDArray[np.float64]
Member = Callable[[int], npt.NDArray[np.float32]]
TINY = float(np.finfo(np.float32).tiny)  # its logarithm is taken in place of that of 0, which 0 log 0 = 0 does not need


def probability_disagreement(probabilities: npt.ArrayLike, teams: TeamList) -> Doubles:
    """Jensen–Shannon divergence of each team: mean KL divergence of its members from their mean, in nats (Lin 1991).

    It is H(mean of p) − mean of H(p), averaged over samples: 0 when all members say the same, at most ln(min(L, C)).

    Parameters
    ----------
    probabilities
        Shape (M, N, C), ≥ 0.
    teams
        Tuples of distinct member indices, of sizes ≥ 2; or an integer array of shape (T, L).

    Returns
    -------
    array
        float64, shape (T,); higher is more diverse.

    Raises
    ------
    InputError
        On probabilities of another shape, or negative or not finite; on teams as `team_diversity`.
    """
    p = np.asarray(probabilities)
    if p.ndim != 3 or 0 in p.shape or p.dtype.kind != "f":
        raise InputError(f"expected probabilities of shape (members, samples, classes), got {p.shape} of {p.dtype}")
    if not np.isfinite(p).all() or p.min() < 0:
        raise InputError("expected probabilities that are finite and ≥ 0, got others")
    own = np.array([_mean_entropy(member.astype(np.float64)) for member in p])
    values = np.empty(len(teams))
    for positions, group in group_by_size(teams, len(p)):
        for position, team in zip(positions, group, strict=True):
            mean = sum((p[i].astype(np.float64) for i in team), np.zeros(p.shape[1:])) / len(team)
            values[position] = _mean_entropy(mean) - own[team].mean()
    return np.maximum(values, 0.0)  # rounding can leave −1e-17


def jensen_shannon_distances(member: Member, n_members: int) -> Doubles:
    """Root of the mean Jensen–Shannon divergence of each pair of members, shape (M, M), 0…√ln 2; it is a metric.

    Endres & Schindelin 2003. Logarithms are float32, sums float64; ``member(i)`` gives probabilities (N, C), and is
    called M²/2 times, so that no more than two members are held at a time.
    """
    table = np.zeros((n_members, n_members))
    own = np.zeros(n_members)
    for i in range(n_members):
        p = member(i)
        mean, logs = np.empty_like(p), np.empty_like(p)
        own[i] = _entropy(p, logs)
        for j in range(i):
            np.add(p, member(j), out=mean)
            mean *= 0.5
            table[i, j] = table[j, i] = _entropy(mean, logs) - (own[i] + own[j]) / 2
    return np.sqrt(np.maximum(table, 0.0))


def _entropy(p: npt.NDArray[np.float32], logs: npt.NDArray[np.float32]) -> float:
    """Mean over samples of −Σ p log p; `logs` is spoilt."""
    np.maximum(p, TINY, out=logs)
    np.log(logs, out=logs)
    logs *= p
    return -float(logs.sum(dtype=np.float64)) / len(p)


def _mean_entropy(p: Doubles) -> float:
    """Mean over samples of −Σ p log p, with 0 log 0 = 0."""
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return -float(np.einsum("nc,nc->", p, logs)) / len(p)
