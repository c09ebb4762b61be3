"""Re-splitting of validation data: what a selection is worth on samples that it was not chosen on.

A score on the samples that a team was chosen on is too rosy, the more so the more teams were compared. So the choice is
made again on four fifths of the validation samples and scored on the last fifth, for every fifth of several random
divisions (repeated stratified K-fold cross-validation). All methods are scored on the same splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError
from lrensemble.selection.base import Task, check_count
from lrensemble.selection.outcome import ensemble_of
from lrensemble.selection.part import part_of
from lrensemble.selection.simple import best_single

__all__ = [
    "FOLDS",
    "RESPLITS",
    "Choose",
    "CrossValidation",
    "fewest_samples",
    "mean_and_error",
    "resplit",
    "stratified_splits",
]

RESPLITS = 20  # 4 divisions into 5 folds
FOLDS = 5

Indices = npt.NDArray[np.intp]
Choose = Callable[[Task], Ensemble]


@dataclass(frozen=True)
class CrossValidation:
    """A method of selection, scored on samples that it did not see.

    Scores are values of the metric as it is; `optimism` and `gain` are turned so that positive means "too rosy" and
    "better than the best single member", whatever the metric's direction.

    Attributes
    ----------
    metric, higher_is_better
        The objective and its direction.
    held_out, apparent, single
        One entry a split: score of the chosen team on the held-out part, on the part it was chosen on, and the held-out
        score of the member that is best on that part.
    sizes
        Distinct members of each chosen team.
    chosen
        By member: in which share of the splits it was chosen (members that never were are left out).
    folds
        A held-out part is one of so many folds.
    seconds
        That all selections of the method took.
    """

    metric: str
    higher_is_better: bool
    held_out: tuple[float, ...]
    apparent: tuple[float, ...]
    single: tuple[float, ...]
    sizes: tuple[int, ...]
    chosen: dict[str, float]
    folds: int = FOLDS
    seconds: float = field(default=0.0, compare=False)

    @property
    def n_splits(self) -> int:
        """How many times the method chose."""
        return len(self.held_out)

    @property
    def score(self) -> float:
        """Mean held-out score."""
        return float(np.mean(self.held_out))

    @property
    def turned(self) -> float:
        """`score`, turned so that higher is better."""
        return self._sign * self.score

    @property
    def error(self) -> float:
        """Standard error of `score`; see `mean_and_error`."""
        return mean_and_error(self.held_out, self.folds)[1]

    @property
    def optimism(self) -> float:
        """How much better the team looks where it was chosen than where it was not: mean of apparent − held out."""
        return self._sign * float(np.mean(np.subtract(self.apparent, self.held_out)))

    @property
    def gain(self) -> float:
        """Mean gain over the best single member of the same splits, which is chosen there too."""
        return self._over_single[0]

    @property
    def gain_error(self) -> float:
        """Standard error of `gain`, from the differences split by split."""
        return self._over_single[1]

    @property
    def size(self) -> float:
        """Mean number of distinct members."""
        return float(np.mean(self.sizes))

    def corrected(self, score: float) -> float:
        """Return the score of a team on the samples that it was chosen on, with the optimism taken off."""
        return score - self._sign * self.optimism

    def lead(self, other: CrossValidation) -> tuple[float, float]:
        """Return mean and standard error of how much better this is than another on the same splits (positive)."""
        return mean_and_error(self._sign * np.subtract(self.held_out, other.held_out), self.folds)

    def to_dict(self) -> dict[str, Any]:
        """Summarise as JSON-ready numbers."""
        return {
            "metric": self.metric,
            "score": self.score,
            "standard_error": self.error,
            "apparent": float(np.mean(self.apparent)),
            "optimism": self.optimism,
            "best_single": float(np.mean(self.single)),
            "gain": self.gain,
            "gain_standard_error": self.gain_error,
            "size": self.size,
            "splits": self.n_splits,
            "folds": self.folds,
            "chosen": dict(self.chosen),
        }

    def __str__(self) -> str:
        return (
            f"cross-validated {self.metric} {self.score:.4f} ± {self.error:.4f}, optimism {self.optimism:.4f}, "
            f"gain over the best single {self.gain:.4f} ± {self.gain_error:.4f} "
            f"({self.n_splits} re-splits, {self.size:.1f} members on average)"
        )

    @property
    def _sign(self) -> int:
        return 1 if self.higher_is_better else -1

    @property
    def _over_single(self) -> tuple[float, float]:
        return mean_and_error(self._sign * np.subtract(self.held_out, self.single), self.folds)


def resplit(
    task: Task,
    methods: Mapping[str, Choose],
    *,
    resplits: int = RESPLITS,
    folds: int = FOLDS,
    refused: dict[str, str] | None = None,
) -> dict[str, CrossValidation]:
    """Let every method choose on one part of the task's samples and be scored on the other, split after split.

    Parameters
    ----------
    methods
        By name, ``choose(task) -> Ensemble``; each is given the task with the selecting part as its predictions.
    resplits, folds
        See `stratified_splits`; the splits are drawn with the task's seed.
    refused
        Filled with the reason of each method that refuses a part by an `InputError`; it is left out from there on.
        None: the error goes on.

    Raises
    ------
    InputError
        If there are fewer than `fewest_samples` samples, or fewer than two re-splits or folds.
    """
    check_count("resplits", resplits, 2)
    check_count("folds", folds, 2)
    if (enough := fewest_samples(folds)) > task.predictions.n_samples:
        raise InputError(
            f"expected at least {enough} validation samples to re-split, got {task.predictions.n_samples}: "
            "use more, or no re-splits"
        )
    if task.predictions.in_memory and not _needs_few_numbers(task):
        _ = task.predictions.probabilities  # once, of which every part is cut
    known: dict[str, Any] = {}
    runs: dict[str, list[_Run]] = {name: [] for name in methods}
    singles = []
    for selecting, held_out in stratified_splits(task.predictions.labels, resplits, folds, task.seed):
        part = replace(task, predictions=part_of(task.predictions, selecting, known))
        rest = replace(task, predictions=part_of(task.predictions, held_out, known))
        singles.append(_value(ensemble_of(part, best_single(part, None)), rest))
        for name in list(runs):
            try:
                runs[name].append(_run(methods[name], part, rest))
            except InputError as error:
                if refused is None:
                    raise
                refused[name] = str(error)
                del runs[name]
    return {name: _summary(task, found, singles, folds) for name, found in runs.items()}


def _needs_few_numbers(task: Task) -> bool:
    """Whether teams are scored by the true class or the duels alone, for which a pass over the pool is enough."""
    fast = task.objective.is_metric("nll") or task.objective.is_metric("accuracy")
    return fast and task.rule == "mean_probability"


def fewest_samples(folds: int = FOLDS) -> int:
    """Return how many samples re-splitting takes at least: four a fold, so that a held-out score says something."""
    return 4 * folds


def stratified_splits(
    labels: npt.NDArray[np.integer], count: int, folds: int, seed: int
) -> Iterator[tuple[Indices, Indices]]:
    """Yield `count` splits into (selecting, held out), each a sorted array of sample indices.

    One random division after the other into `folds` parts; each part is held out once. Parts differ by one sample at
    most, and so do their numbers of samples of any class.

    Examples
    --------
    >>> [held.tolist() for _, held in stratified_splits(np.array([0, 0, 1, 1]), 2, 2, seed=1)]
    [[0, 2], [1, 3]]
    """
    rng = np.random.default_rng(seed)
    for number in range(count):
        if number % folds == 0:
            shuffled = rng.permutation(len(labels))
            by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
            fold = np.empty(len(labels), dtype=np.intp)
            fold[by_class] = np.arange(len(labels)) % folds
        held_out = fold == number % folds
        yield np.flatnonzero(~held_out), np.flatnonzero(held_out)


def mean_and_error(values: Sequence[float] | npt.NDArray[np.float64], folds: int) -> tuple[float, float]:
    """Mean over splits and its standard error, √((1/n + 1/(K−1))·S²) for n splits of K folds.

    S² is the variance over splits. Their selecting parts overlap, so that S²/n would claim far too much precision;
    the term 1/(K−1), samples held out by samples selected on, corrects for it (Nadeau & Bengio 2003; for repeated
    K-fold, Bouckaert & Frank 2004).
    """
    spread = float(np.var(values, ddof=1))
    return float(np.mean(values)), sqrt((1 / len(values) + 1 / (folds - 1)) * spread)


@dataclass(frozen=True)
class _Run:
    """One choice: the team, its score on either part, and how long it took."""

    members: tuple[str, ...]
    held_out: float
    apparent: float
    seconds: float


def _run(choose: Choose, part: Task, rest: Task) -> _Run:
    start = perf_counter()
    team = choose(part)
    seconds = perf_counter() - start
    apparent = _value(team, part) if team.score is None else team.score
    return _Run(team.members, _value(team, rest), apparent, seconds)


def _value(team: Ensemble, task: Task) -> float:
    return task.objective.value(team.probabilities(task.predictions), task.predictions.labels)


def _summary(task: Task, runs: Sequence[_Run], singles: Sequence[float], folds: int) -> CrossValidation:
    counts = Counter(member for run in runs for member in run.members)
    return CrossValidation(
        metric=task.objective.name,
        higher_is_better=task.objective.higher_is_better,
        held_out=tuple(run.held_out for run in runs),
        apparent=tuple(run.apparent for run in runs),
        single=tuple(singles),
        sizes=tuple(len(run.members) for run in runs),
        chosen={member: counts[member] / len(runs) for member in task.predictions.ids if member in counts},
        folds=folds,
        seconds=sum(run.seconds for run in runs),
    )
