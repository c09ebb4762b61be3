"""Pools for the tests of selection, and the naive twins of its scores: float64, straight from the definition."""

import numpy as np
from hypothesis import strategies as st

from lrensemble.combine import combine
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Objective


def a_pool(members=6, samples=80, classes=3, seed=0, sharpness=1.0, split="val"):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    shared = rng.normal(size=(samples, classes)) + 1.2 * np.eye(classes)[labels]
    logits = shared + rng.normal(size=(members, samples, classes)) * rng.uniform(0.5, 2, (members, 1, 1))
    ids = [f"m{i}" for i in range(members)]
    return Predictions.from_arrays(sharpness * logits, labels, ids=ids, split=split, fingerprint="f" * 64)


def weights_of(ensemble, ids):
    given_weights = dict(zip(ensemble.members, ensemble.weights, strict=True))
    return np.array([given_weights.get(name, 0.0) for name in ids])


def naive_key(p, members, metric, rule):
    """(score, tie, −distinct members) of a team given as a list of members, with repetition."""
    distinct, counts = np.unique(members, return_counts=True)
    if rule == "mean_probability":
        combined = p.probabilities[list(members)].astype(np.float64).sum(axis=0) / len(members)
    else:
        combined = combine(p.probabilities[distinct], counts, rule)
    objective = Objective.of(metric)
    return objective.score(combined, p.labels), objective.tie(combined, p.labels), -len(distinct)


def beats(new, old):
    for a, b in zip(new, old, strict=True):
        if abs(a - b) > 1e-12 * max(abs(a), abs(b)):
            return a > b
    return False


def naive_best(keys):
    best = 0
    for i, key in enumerate(keys):
        best = i if beats(key, keys[best]) else best
    return best


def naive_greedy(p, metric, rule, *, size=None, rounds=None, replacement=True, init=0):
    """Members in the order picked, and the key after each."""
    singles = [naive_key(p, [j], metric, rule)[:2] for j in range(p.n_members)]
    order = sorted(range(p.n_members), key=lambda j: (-singles[j][0], -singles[j][1], j))
    limit = size or p.n_members
    picked, keys = [], []
    for k in range(max(rounds or (25 if replacement else limit), init)):
        candidates = [
            j
            for j in range(p.n_members)
            if (j in picked and replacement) or (j not in picked and len(set(picked)) < limit)
        ]
        if not candidates:
            break
        if k < init:
            candidates = [order[k]]
        found = [naive_key(p, [*picked, j], metric, rule) for j in candidates]
        best = naive_best(found)
        picked.append(candidates[best])
        keys.append(found[best])
    return picked, keys


@st.composite
def coarse_pools(draw):
    """Probabilities on a coarse grid: many exact ties of classes and of teams."""
    m, n, c = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(2, 4))
    parts = draw(st.lists(st.integers(0, 3), min_size=m * n * c, max_size=m * n * c))
    weights = np.array(parts, dtype=float).reshape(m, n, c) + 0.25
    labels = draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    return Predictions.from_arrays(probabilities=weights / weights.sum(axis=2, keepdims=True), labels=labels)
