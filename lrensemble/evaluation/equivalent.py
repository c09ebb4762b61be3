"""Deep-ensemble equivalent (Ashukha et al. 2020): how many networks drawn at random are as good as this ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.evaluation.baselines import System
from lrensemble.metrics import calibrated_nll
from lrensemble.predictions import Predictions

__all__ = ["deep_equivalents", "equivalent_size", "random_team_curve"]

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MOST_DRAWS, FEWEST_DRAWS = 10, 3
MOST_VALUES = 300_000  # samples × classes that are looked at; of more, samples are drawn
MOST_WORK = 10_000_000  # values of all random teams together, as far as the fewest draws allow
Doubles = npt.NDArray[np.float64]


def deep_equivalents(test: Predictions, systems: Sequence[System], seed: int) -> dict[str, Any]:
    """Size of random equal-weight teams of the pool that reach the calibrated NLL of each system.

    The random teams are of networks from different trainings, as those of a deep ensemble are: none is a snapshot.

    Returns
    -------
    dict
        ``{"metric", "samples", "draws", "sizes", "curve", "systems": {name: {"members", "bound"}}}``: `curve` is the
        score of random teams by size. `bound` is ``">"`` (more than all sizes could give), ``"<"`` (less than one
        network) or empty. Nothing for a pool of one.
    """
    single = _of_different_trainings(test)
    if single.n_members == 1:
        return {}
    rng = np.random.default_rng(seed)
    most = max(2, MOST_VALUES // test.n_classes)
    samples = np.arange(test.n_samples)
    if len(samples) > most:
        samples = np.sort(rng.choice(samples, most, replace=False))
    sizes = sorted({*(k for k in SIZES if k < single.n_members), min(single.n_members, SIZES[-1])})
    work = len(samples) * test.n_classes * len(sizes)
    draws = int(np.clip(MOST_WORK // work, FEWEST_DRAWS, MOST_DRAWS))
    curve = random_team_curve(single, samples, sizes, draws, rng)
    found = {}
    for system in systems:
        score = calibrated_nll(system.probabilities(test)[samples], test.labels[samples])
        found[system.name] = dict(zip(("members", "bound"), equivalent_size(score, sizes, curve), strict=True))
    return {
        "metric": "calibrated_nll",
        "samples": len(samples),
        "draws": draws,
        "sizes": sizes,
        "curve": curve.tolist(),
        "systems": found,
    }


def _of_different_trainings(test: Predictions) -> Predictions:
    """Keep the last network of each training; all where there is none."""
    last = [test.ids[j] for j in test.independent]
    return test.take(last) if 0 < len(last) < test.n_members else test


def random_team_curve(
    test: Predictions, samples: npt.NDArray[np.integer], sizes: Sequence[int], draws: int, rng: np.random.Generator
) -> Doubles:
    """Calibrated NLL of random teams of each of the rising sizes, mean over draws; a larger team counts as no worse.

    A draw is a random order of members, whose first k are its team of k.
    """
    scores = np.zeros((draws, len(sizes)))
    labels = test.labels[samples]
    for draw in scores:
        total = np.zeros((len(samples), test.n_classes))
        for size, member in enumerate(rng.permutation(test.n_members)[: sizes[-1]], start=1):
            total += test.member(member, samples)
            if size in sizes:
                draw[sizes.index(size)] = calibrated_nll(total / total.sum(axis=1, keepdims=True), labels)
    return np.minimum.accumulate(scores.mean(axis=0))


def equivalent_size(score: float, sizes: Sequence[int], curve: Doubles) -> tuple[float, str]:
    """Smallest size at which the falling `curve` reaches `score`, and on which side the truth lies if it does not.

    Between sizes the curve is a straight line over the logarithm of the size.

    Examples
    --------
    >>> equivalent_size(0.3, [1, 2, 4], np.array([0.5, 0.4, 0.3]))
    (4.0, '')
    >>> equivalent_size(0.2, [1, 2, 4], np.array([0.5, 0.4, 0.3]))
    (4.0, '>')
    """
    equal = np.isclose(curve, score, rtol=1e-9, atol=1e-12)  # the same team, summed in another order
    if equal.any():
        return float(sizes[int(equal.argmax())]), ""
    if score > curve[0]:
        return float(sizes[0]), "<"
    if score < curve[-1]:
        return float(sizes[-1]), ">"
    i = int(np.argmax(curve < score))
    share = (curve[i - 1] - score) / (curve[i - 1] - curve[i])
    return float(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share), ""
