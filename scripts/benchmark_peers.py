"""Whom selection is compared with: pools that look like real ones, naive references, other packages.

The naive references say what is right: float64, every candidate scored in full, the order of ties spelt out. The other
packages run as they are, from the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

import lrensemble as lre

__all__ = [
    "PEERS",
    "Peer",
    "Picks",
    "agreement",
    "naive_diversity",
    "naive_greedy",
    "naive_score",
    "our_picks",
    "synthetic_logits",
]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
TINY = float(np.finfo(np.float32).tiny)
EQUAL = 1e-12  # relative: scores nearer than this are equal
DECIMALS = 1e-6  # AutoGluon rounds scores to six decimals after the first round


# ---------------------------------------------------------------------------------------------------------------- pools


def synthetic_logits(
    members: int, samples: int, classes: int, *, accuracy: float, gain: float = 5.0, seed: int = 0
) -> tuple[Floats, Labels]:
    """Logits (M, N, C) and labels of networks that err together, with the given mean accuracy.

    What makes a sample hard is shared by all members; each adds noise of its own, and members differ in strength and
    confidence. A `gain` of 5 gives the confidence of trained networks: much of the softmax is 1 in float32.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    shared = rng.standard_normal((samples, classes), dtype=np.float32)
    strength = rng.uniform(0.95, 1.05, members).astype(np.float32)
    confidence = rng.uniform(0.75, 1.25, members).astype(np.float32) * np.float32(gain)
    logits = np.empty((members, samples, classes), dtype=np.float32)
    for member in logits:
        rng.standard_normal(out=member, dtype=np.float32)
        member *= np.float32(0.3)
        member += shared
    edge = _edge_for(logits[:: max(1, members // 8)], strength[:: max(1, members // 8)], labels, accuracy)
    for member, own_strength, own_confidence in zip(logits, strength, confidence, strict=True):
        member[np.arange(samples), labels] += np.float32(edge) * own_strength
        member *= own_confidence
    return logits, labels


def _edge_for(noise: Floats, strength: Floats, labels: Labels, accuracy: float) -> float:
    """Return what the true class has to gain for that mean accuracy: a quantile of its strongest rival's lead."""
    rows = np.arange(len(labels))
    needed = []
    for member, own_strength in zip(noise, strength, strict=True):
        rivals = member.copy()
        rivals[rows, labels] = -np.inf
        needed.append((rivals.max(axis=1) - member[rows, labels]) / own_strength)
    return float(np.quantile(np.concatenate(needed), accuracy))


# ------------------------------------------------------------------------------------------------------------ selection


@dataclass(frozen=True)
class Picks:
    """Members in the order they were added, and the score after each (higher is better)."""

    order: list[int]
    scores: list[float]

    @property
    def best(self) -> float:
        """Score of the best team on the way."""
        return max(self.scores)


def naive_greedy(
    probabilities: Floats, labels: Labels, metric: str, rounds: int
) -> tuple[Picks, list[npt.NDArray[np.float64]]]:
    """Greedy selection without any trick, and the scores of all candidates in each round.

    Equal scores go by −NLL, then to a member that is in the team, then to the lower index.
    """
    total = np.zeros(probabilities.shape[1:])
    order: list[int] = []
    scores: list[npt.NDArray[np.float64]] = []
    for size in range(1, rounds + 1):
        scores.append(np.array([naive_score(total + own, labels, metric, size) for own in probabilities]))
        leaders = np.flatnonzero(_near_best(scores[-1]))
        if len(leaders) > 1:
            ties = np.array([naive_score(total + probabilities[j], labels, "nll", size) for j in leaders])
            leaders = leaders[_near_best(ties)]
        pick = int(min(leaders, key=lambda j: (j not in order, j)))
        order.append(pick)
        total += probabilities[pick]
    return Picks(order, [float(row[pick]) for row, pick in zip(scores, order, strict=True)]), scores


def naive_score(total: npt.NDArray[np.float64], labels: Labels, metric: str, size: int) -> float:
    """Accuracy, or −NLL, of the mean of `size` members with this sum of probabilities."""
    if metric == "accuracy":
        return float((total.argmax(axis=1) == labels).mean())
    return float(np.log(np.maximum(total[np.arange(len(labels)), labels] / size, TINY)).mean())


def _near_best(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return scores >= scores.max() - EQUAL * abs(scores.max())


def our_picks(predictions: lre.Predictions, metric: str, rounds: int) -> Picks:
    """All rounds of ``select``, also those after the best team."""
    ensemble = lre.select(predictions, method="greedy", metric=metric, rounds=rounds, keep_best=False)
    position = {name: i for i, name in enumerate(predictions.ids)}
    sign = 1 if metric == "accuracy" else -1
    return Picks(
        [position[step["member"]] for step in ensemble.trace], [sign * float(step["score"]) for step in ensemble.trace]
    )


def agreement(picks: Picks, reference: Picks, scores: Sequence[npt.NDArray[np.float64]]) -> str:
    """How far picks are those of the reference, and what the first difference is."""
    for i, (pick, expected) in enumerate(zip(picks.order, reference.order, strict=True)):
        if pick != expected:
            gap = abs(scores[i][pick] - scores[i].max())
            kind = "a tie" if gap <= EQUAL * abs(scores[i].max()) else f"scores {gap:.1g} apart"
            return f"{i} of {len(reference.order)} rounds, then {kind}"
    return "all rounds"


@dataclass(frozen=True)
class Peer:
    """A selection of another package.

    Attributes
    ----------
    package
        Distribution that must be installed.
    install
        How.
    metrics
        That it has a path of its own for.
    load
        Imports it and returns ``(probabilities, labels, metric, rounds) -> Picks``; raises `ImportError`.
    """

    package: str
    install: str
    metrics: tuple[str, ...]
    load: Callable[[], Callable[[Floats, Labels, str, int], Picks]]


def _autogluon() -> Callable[[Floats, Labels, str, int], Picks]:
    from autogluon.core.metrics import get_metric
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    metrics = {
        name: get_metric(theirs, "multiclass") for name, theirs in (("accuracy", "accuracy"), ("nll", "log_loss"))
    }

    def fit(probabilities: Floats, labels: Labels, metric: str, rounds: int) -> Picks:
        selection = EnsembleSelection(ensemble_size=rounds, problem_type="multiclass", metric=metrics[metric])
        selection.use_best = False  # it runs all rounds either way; this one keeps them
        selection.fit(list(probabilities), labels)
        errors = [float(error) for error in selection.trajectory_]
        return Picks([int(i) for i in selection.indices_], [(metric == "accuracy") - error for error in errors])

    return fit


def _tabarena() -> Callable[[Floats, Labels, str, int], Picks]:
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection
    from tabarena.metrics._fast_log_loss import fast_log_loss

    def fit(probabilities: Floats, labels: Labels, metric: str, rounds: int) -> Picks:
        seen, true_class = fast_log_loss.preprocess_bulk(labels, probabilities)
        selection = EnsembleSelection(
            ensemble_size=rounds, problem_type=fast_log_loss.post_problem_type, metric=fast_log_loss
        )
        selection.use_best = False
        selection.fit(list(true_class), seen)
        return Picks([int(i) for i in selection.indices_], [-float(error) for error in selection.trajectory_])

    return fit


PEERS = {
    "AutoGluon": Peer("autogluon.core", "pip install autogluon.core", ("accuracy", "nll"), _autogluon),
    "TabArena": Peer("tabarena", "pip install autogluon.core; pip install --no-deps tabarena", ("nll",), _tabarena),
}


# ------------------------------------------------------------------------------------------------------------ diversity


def naive_diversity(predicted: Labels, labels: Labels, team: Sequence[int], metric: str) -> float:
    """Compute a measure of one team as its definition says, from the samples."""
    right = predicted[list(team)] == labels
    pairs = list(combinations(team, 2))
    if metric == "CK":
        return float(np.mean([_kappa(predicted[i], predicted[j]) for i, j in pairs]))
    if metric == "QS":
        return float(np.mean([_q(predicted[i] == labels, predicted[j] == labels) for i, j in pairs]))
    if metric == "BD":
        return float(np.mean([np.mean((predicted[i] == labels) != (predicted[j] == labels)) for i, j in pairs]))
    if metric == "FK":
        return _fleiss(predicted[list(team)])
    size, votes = len(team), right.sum(axis=0)
    if metric == "KW":
        return float(np.mean(votes * (size - votes))) / size**2
    failed = size - votes
    return 1 - float(np.mean(failed * (failed - 1) / (size * (size - 1)))) / float(np.mean(failed / size))


def _kappa(a: Labels, b: Labels) -> float:
    classes = np.union1d(a, b)
    chance = sum(np.mean(a == c) * np.mean(b == c) for c in classes)
    return float((np.mean(a == b) - chance) / (1 - chance))


def _q(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    same = float((a & b).sum()) * float((~a & ~b).sum())
    crossed = float((a & ~b).sum()) * float((~a & b).sum())
    return (same - crossed) / (same + crossed) if same + crossed else 0.0


def _fleiss(predicted: Labels) -> float:
    size, samples = predicted.shape
    counts = np.stack([(predicted == c).sum(axis=0) for c in np.unique(predicted)])
    observed = float(np.mean((counts * (counts - 1)).sum(axis=0))) / (size * (size - 1))
    chance = float(((counts.sum(axis=1) / (size * samples)) ** 2).sum())
    return (observed - chance) / (1 - chance)
