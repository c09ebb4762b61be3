"""`EnsembleRule`: which training comes next when an ensemble of all of them is what is wanted.

Most trainings search. Then an ensemble is selected from what they have given, and the last eighth trains the policies
in it again, with other seeds, in proportion to their weights. See ``docs/ensemble-tuning.md`` for what this was chosen
from, and what it brings: little, and not everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.policies import Policy
from lrensemble.predictions import Predictions
from lrensemble.selection import select
from lrensemble.tuning.study import Proposer, Trial, spent

if TYPE_CHECKING:
    from lrensemble.tuning.study import Asked

__all__ = ["SEARCH", "EnsembleRule", "allot", "policy_weights"]

SEARCH = Fraction(7, 8)


class EnsembleRule:
    """Search, then repeat the policies that carry the ensemble; a `Proposer`.

    A search finds better policies, but most of what it tries is worse than the best. A policy that the ensemble needs
    gives, with another seed, another network of the kind that the ensemble needs. Which these are is decided anew
    before every batch.

    Parameters
    ----------
    explorer
        Proposes fresh policies.
    labels
        Of the validation data, shape (N,).
    trainings
        How many trainings there will be, as `spent` counts them. Infinite where only the time is limited: then nothing
        is repeated, since the last trainings are those that should be.
    share
        Of the trainings for the explorer, in (0, 1]; 1 leaves all to it.

    Raises
    ------
    InputError
        If the share is out of range.
    """

    def __init__(
        self,
        explorer: Proposer,
        labels: npt.ArrayLike,
        *,
        trainings: float = math.inf,
        share: float | Fraction = SEARCH,
    ) -> None:
        if not 0 < share <= 1:
            raise InputError(f"share: expected a number in (0, 1], got {share!r}")
        self.explorer = explorer
        self.labels = np.asarray(labels)
        self.trainings = trainings
        self.share = share

    def propose(self, history: Sequence[Trial], n: int) -> list[Asked]:
        """Return at most `n` policies with seeds, the fresh ones first; no repeat that is in the history.

        When the explorer has nothing new, all are repeats; as long as no training has come to its end, none is.
        """
        carriers = policy_weights(history, self.labels)
        wanted = self._fresh(history, n) or (0 if carriers else n)
        fresh = self.explorer.propose(history, wanted) if wanted else []
        return [*fresh, *allot(history, carriers, n - len(fresh))]

    def _fresh(self, history: Sequence[Trial], n: int) -> int:
        """How many of the next `n` are for the explorer."""
        left = float(self.share) * self.trainings - spent(history)
        return n if math.isinf(left) else min(n, max(0, math.ceil(left - 1e-9)))


def policy_weights(history: Sequence[Trial], labels: npt.NDArray[Any]) -> dict[str, float]:
    """Return what each policy weighs in the greedily selected ensemble (Caruana et al. 2004; log loss), in all 1.

    Keys are policies as they came to be in this run, so that two that come to the same are one. Those of which a
    training has diverged are left out; none is there as long as no training has come to its end.
    """
    unsafe = {trial.trained.policy for trial in history if trial.trained.status == "diverged"}
    members = {trial.trained.id: trial for trial in history if trial.trained.policy not in unsafe}
    logits = {name: values for name, trial in members.items() if (values := trial.val_logits) is not None}
    if not logits:
        return {}
    found = select(Predictions.from_arrays(np.stack(list(logits.values())), labels, ids=tuple(logits)))
    weights = dict.fromkeys((members[name].trained.policy for name in logits), 0.0)
    for name, weight in zip(found.members, found.weights, strict=True):
        weights[members[name].trained.policy] += weight
    return weights


def allot(history: Sequence[Trial], weights: Mapping[str, float], n: int) -> list[Asked]:
    """Return `n` trainings with new seeds: each of the policy with the most weight for each training that it has had.

    This is how seats are allotted to parties by their votes (D'Hondt's method); a policy without weight gets none. Of
    equals, the one that was tried first comes first.
    """
    seeds: dict[str, list[int]] = {}
    asked: dict[str, Policy] = {}
    for trial in history:
        seeds.setdefault(trial.trained.policy, []).append(trial.seed)
        asked.setdefault(trial.trained.policy, trial.policy)
    found: list[Asked] = []
    for _ in range(n if weights else 0):
        policy = max(weights, key=lambda policy: weights[policy] / len(seeds[policy]))
        seeds[policy].append(max(seeds[policy]) + 1)
        found.append((asked[policy], seeds[policy][-1]))
    return found
