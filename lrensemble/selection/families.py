"""Families: what a selection takes the snapshots of one training for.

``"free"``: members like all others. ``"best"``: only the one that is best on the samples that the selection sees is a
candidate. ``"whole"``: their mean is one candidate, as in snapshot ensembles (Huang et al. 2017, arXiv 1704.00109).

Every method is run through `among_candidates`, also on each re-split, so that nothing is decided on samples that a team
is scored on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.memory import empty_array
from lrensemble.predictions import ALL, Outputs, Predictions, Samples
from lrensemble.selection.base import Selection, Task
from lrensemble.selection.scorers import scorer_for
from lrensemble.selection.simple import ranking

__all__ = ["FAMILIES", "Means", "among_candidates", "check_families", "count_candidates"]

FAMILIES = ("free", "best", "whole")

Groups = list[list[int]]


def check_families(families: object, rule: str) -> str:
    """Return `families` if it is one of `FAMILIES` that the rule allows, else raise `InputError`."""
    if families not in FAMILIES:
        raise InputError(f"expected families as one of {', '.join(FAMILIES)}, got {families!r}")
    if families == "whole" and rule != "mean_probability":
        raise InputError(
            f"families='whole' takes the mean probability of the snapshots of a training: use it with the rule "
            f"mean_probability, or use families='best', got rule '{rule}'"
        )
    return str(families)


def count_candidates(predictions: Predictions, families: str) -> int:
    """How many candidates there are to choose from."""
    return predictions.n_members if families == "free" else len(_groups(predictions))


def among_candidates(run: Callable[[Task], Selection], task: Task) -> Selection:
    """Let a method choose among the candidates that ``task.families`` makes of the members.

    Returns
    -------
    Selection
        Over the members themselves: a candidate's weight goes to its only member, or in equal parts to all.

    Raises
    ------
    InputError
        For ``"whole"`` and a method that fits more than weights.
    """
    groups = _groups(task.predictions)
    if task.families == "free" or len(groups) == task.n_members:
        return run(task)
    if task.families == "best":
        groups = _best(task, groups)
        predictions = task.predictions.take([task.predictions.ids[j] for (j,) in groups])
    else:
        predictions = _means(task.predictions, groups)
    costs = {kind: np.array([values[group].sum() for group in groups]) for kind, values in task.costs.items()}
    found = run(replace(task, predictions=predictions, costs=costs, families="free"))
    if task.families == "whole" and found.stacker is not None:
        raise InputError(
            "families='whole' needs a method that gives weights, got stacking: use families='best' with it"
        )
    return _of_members(found, groups, task)


def _groups(predictions: Predictions) -> Groups:
    """Positions of the members of each family, in the order of their first members."""
    groups: dict[str, list[int]] = {}
    for position, family in enumerate(predictions.families or predictions.ids):
        groups.setdefault(family, []).append(position)
    return list(groups.values())


def _best(task: Task, groups: Groups) -> Groups:
    """Keep the best member of each family, in the order of the pool."""
    everyone = np.arange(task.n_members)
    place = np.argsort(ranking(scorer_for(task), everyone))
    return [[j] for j in sorted(min(group, key=lambda j: place[j]) for group in groups)]


def _means(predictions: Predictions, groups: Groups) -> Predictions:
    """Predictions of the mean of each family."""
    ids = predictions.ids
    names = tuple(ids[g[0]] if len(g) == 1 else f"{predictions.families[g[0]]} (all snapshots)" for g in groups)
    outputs = Means(predictions, tuple(map(tuple, groups)))
    return Predictions(names, outputs, predictions.labels, predictions.split, predictions.fingerprint)


def _of_members(found: Selection, groups: Groups, task: Task) -> Selection:
    weights = np.zeros(task.n_members)
    for group, weight in zip(groups, found.weights, strict=True):
        weights[group] = weight / len(group)
    last = set(task.predictions.independent)
    named = [next((j for j in group if j in last), group[0]) for group in groups]
    which = "the best snapshot of each" if task.families == "best" else "the mean of all snapshots of each"
    return replace(
        found,
        weights=weights,
        steps=tuple((named[i], score) for i, score in found.steps),
        reason="; ".join(filter(None, (found.reason, f"candidates: {which} of {len(groups)} trainings"))),
    )


@dataclass(frozen=True, eq=False)
class Means(Outputs):
    """Mean probabilities of groups of members, worked out when they are asked for.

    Attributes
    ----------
    predictions
        Of all members.
    groups
        Positions of the members of each group.
    """

    predictions: Predictions
    groups: tuple[tuple[int, ...], ...]
    are_probabilities = True

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """(groups, N, C)."""
        return len(self.groups), *self.predictions.outputs.shape[1:]

    @property
    def in_memory(self) -> bool:  # type: ignore[override]
        """Whether the outputs of the members are."""
        return self.predictions.in_memory

    def member(self, index: int, samples: Samples = ALL) -> npt.NDArray[np.float32]:
        """Mean of one group, summed in float64."""
        group = self.groups[index]
        total = sum(self.predictions.member(j, samples).astype(np.float64) for j in group)
        return np.asarray(total / len(group), dtype=np.float32)

    def whole(self) -> npt.NDArray[np.float32]:
        """Means of all groups."""
        out = empty_array(self.shape, np.float32, "the means of all snapshots")
        for index, row in enumerate(out):
            row[...] = self.member(index)
        return out

    def take(self, members: Sequence[int]) -> Means:
        """Keep these groups."""
        return Means(self.predictions, tuple(self.groups[index] for index in members))

    def subset(self, samples: Samples) -> Means:
        """Keep these samples."""
        return Means(self.predictions.subset(samples), self.groups)
