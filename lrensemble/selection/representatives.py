"""Representatives: the best member of each kind, with members that predict alike as one kind; and farthest-first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lrensemble.diversity import PairTables
from lrensemble.diversity.probabilities import jensen_shannon_distances
from lrensemble.errors import InputError
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Selection, Task, check_count, counted, first_best, near_best
from lrensemble.selection.scorers import Scorer, scorer_for
from lrensemble.selection.simple import ranking

__all__ = ["clusters", "farthest_first"]

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
DISTANCES = ("disagreement", "jensen-shannon")


def clusters(task: Task, size: int | None, *, distance: str = "disagreement", max_size: int | None = None) -> Selection:
    """Cluster the members by how they predict, and take the best one of each cluster.

    Agglomerative clustering with average linkage: the two clusters whose members differ least on average are joined,
    again and again, until k are left. (One classifier of each cluster: Giacinto & Roli 2001, with other distances.)

    Parameters
    ----------
    size
        k; None: the k up to `max_size` whose representatives are best together by the objective.
    distance
        ``"disagreement"``: share of samples on which two members predict different labels. ``"jensen-shannon"``: root
        of the mean Jensen–Shannon divergence of their probabilities; it costs M²/2 passes over the samples.
    max_size
        None: no limit.
    """
    _check_distance(distance)
    most = size or min(task.n_members if max_size is None else check_count("max_size", max_size, 1), task.n_members)
    scorer = scorer_for(task)
    order = ranking(scorer, np.arange(task.n_members))
    cuts = _cuts(distances(task.predictions, distance))
    teams = [_representatives(order, cuts[k - 1]) for k in ([size] if size else range(1, most + 1))]
    best = teams[first_best([_prefix_keys(scorer, team)[-1] for team in teams])]
    chosen = "as asked" if size else f"the best number of 1–{most} on validation"
    clusters = f"{counted(len(best), 'cluster')} of {task.n_members} members"
    reason = f"the best member of each of {clusters} by {distance}, {chosen}"
    return replace(Selection.equal(task.n_members, best), reason=reason)


def farthest_first(
    task: Task,
    size: int | None,
    *,
    distance: str = "disagreement",
    quantile: float = 0.5,
    max_size: int | None = None,
) -> Selection:
    """Start with the best single member, and add the one that is farthest from the nearest one of the team.

    Farthest-first traversal (Gonzalez 1985) of the members that are good enough.

    Parameters
    ----------
    size
        Members; None: as many, up to `max_size`, as are best together by the objective.
    distance, max_size
        As of `clusters`.
    quantile
        Only members whose score is at least this quantile of all single scores, 0…1; and as many of the next best as
        `size` asks for.
    """
    _check_distance(distance)
    if not 0 <= quantile <= 1:
        raise InputError(f"expected quantile as a number in 0…1, got {quantile!r}")
    scorer = scorer_for(task)
    everyone = np.arange(task.n_members)
    order, scores = ranking(scorer, everyone), scorer.scores(everyone)
    good = int(np.count_nonzero(scores >= np.quantile(scores, quantile)))
    eligible = order[: max(good, size or 1)]
    most = size or min(len(eligible) if max_size is None else check_count("max_size", max_size, 1), len(eligible))
    team = _traverse(distances(task.predictions, distance), eligible, most)
    keys = _prefix_keys(scorer, team)
    length = size or 1 + first_best(keys)
    steps = tuple((int(member), key[0]) for member, key in zip(team[:length], keys, strict=False))
    chosen = "as asked" if size else f"the best number of 1–{most} on validation"
    reason = (
        f"the best single member and those farthest from it and one another by {distance}, of the {len(eligible)} best "
        f"members; {length} of them, {chosen}"
    )
    return replace(Selection.equal(task.n_members, team[:length]), steps=steps, reason=reason)


def distances(predictions: Predictions, distance: str) -> Doubles:
    """How differently two members predict, shape (M, M): symmetric, 0 on the diagonal."""
    if distance == "disagreement":
        return 1 - PairTables(predictions.predicted, predictions.labels).agree / predictions.n_samples
    return jensen_shannon_distances(predictions.member, predictions.n_members)


def _cuts(table: Doubles) -> npt.NDArray[np.intp]:
    """Cluster of each member when k clusters are left, in row k − 1, shape (M, M)."""
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    if len(table) == 1:
        return np.zeros((1, 1), dtype=np.intp)
    tree = linkage(squareform(table, checks=False), "average")
    return cut_tree(tree).T[::-1].astype(np.intp)


def _representatives(order: Indices, labels: Indices) -> Indices:
    """Best member of each cluster, in rising order of members; `order` is from the best to the worst."""
    _, first = np.unique(labels[order], return_index=True)
    return np.sort(order[first])


def _traverse(table: Doubles, order: Indices, count: int) -> Indices:
    """Farthest-first traversal of members sorted from the best to the worst; of equally far ones the better is next."""
    team = [order[0]]
    nearest = table[order, order[0]]
    for _ in range(count - 1):
        nearest = np.where(np.isin(order, team), -1.0, nearest)
        team.append(order[near_best(nearest).argmax()])
        nearest = np.minimum(nearest, table[order, team[-1]])
    return np.array(team)


def _prefix_keys(scorer: Scorer, team: Indices) -> list[tuple[float, float]]:
    """Score and tie of the team of the first member, that of the first two, and so on."""
    keys = []
    for member in team:
        candidate = np.array([member])
        keys.append((float(scorer.scores(candidate)[0]), float(scorer.ties(candidate)[0])))
        scorer = scorer.plus(int(member))
    return keys


def _check_distance(distance: object) -> None:
    if distance not in DISTANCES:
        raise InputError(f"expected distance 'disagreement' or 'jensen-shannon', got {distance!r}")
