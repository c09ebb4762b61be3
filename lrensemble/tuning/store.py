"""`Store`: what every training has taught about policies, kept for the next problem; an Optuna storage underneath.

One Optuna study a problem, named by its key, whose user attributes describe the problem; one trial a training, whose
value is the validation accuracy, whose intermediate values are points of its curve, and whose user attributes are the
facts of `StoredTrial`. Optuna's dashboard opens on it; other studies in the same database are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrensemble.errors import InputError, StoreError, nearest
from lrensemble.tuning.evidence import Evidence, StoredTrial, furthest, rank, reached, stored
from lrensemble.tuning.problem import Problem
from lrensemble.tuning.storage import Database, explained, open_database

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from lrensemble.pool import Pool
    from lrensemble.training.workshop import Trained

__all__ = ["EXPORTED", "Added", "Neighbour", "Store", "Suggestion", "Suggestions"]

VERSION = 1
BLOCK = 50  # trials that are written before another process has its turn
READABLE = ("member", "policy", "seed", "status")  # attributes of a trial; the others are one attribute together
SHOWN = 10  # points of a curve as intermediate values, which the dashboard draws
MARK = "lrensemble_store"  # user attribute of our studies: the version of their form


@dataclass(frozen=True)
class Neighbour:
    """A problem of the store as seen from another one.

    Attributes
    ----------
    problem, distance
        As of `Problem.distance`.
    policies
        What is known there, the best first.
    """

    problem: Problem
    distance: float
    policies: tuple[Evidence, ...]


class Suggestion(NamedTuple):
    """A policy that did well on a near problem, and how it is known.

    Attributes
    ----------
    policy
        Text as asked for: shares of the run stay shares.
    evidence
        On `problem`, which is at `distance`.
    """

    policy: str
    evidence: Evidence
    problem: Problem
    distance: float


@dataclass(frozen=True)
class Suggestions:
    """Policies to begin with, the most promising first, and how many texts could not be read any more."""

    found: tuple[Suggestion, ...]
    unreadable: int

    def __iter__(self) -> Iterator[Suggestion]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


@dataclass(frozen=True)
class Added:
    """What became of the members of a pool: new trials, those known before, and those that say too little.

    The last ones are snapshots of another member, and imported members without a history.
    """

    new: int
    known: int
    left_out: int

    def to_dict(self) -> dict[str, int]:
        """JSON-ready form."""
        return asdict(self)


class Store:
    """A policy store. Make it by `Store.open`; ``with`` ends its connections.

    Attributes
    ----------
    name
        File or URL, without its password.
    storage
        For Optuna.
    """

    def __init__(self, database: Database) -> None:
        from optuna.storages import get_storage

        self.name = database.name
        self.storage: BaseStorage = get_storage(database.storage)  # remembers finished trials
        self._lock, self.close = database.lock, database.close

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def open(cls, where: str | Path | BaseStorage | None = None, *, create: bool = True) -> Store:
        """Open a store, or make it.

        Parameters
        ----------
        where
            File (SQLite), ``sqlite:///FILE``, ``postgresql://USER:PASSWORD@HOST/DATABASE``, or an Optuna storage;
            ``checkpoints/store.db`` when not given.
        create
            Whether to make it where there is none; without, nothing is written.

        Raises
        ------
        StoreError
            If it is something else, is not there, or cannot be reached.
        """
        return cls(open_database(where, create=create))

    def study(self, problem: Problem, *, sampler: BaseSampler | None = None, pruner: BasePruner | None = None) -> Study:
        """Return the Optuna study of a problem, made if there is none; it maximises the validation accuracy.

        Raises
        ------
        StoreError
            If it was written by a later release in another form.
        """
        import optuna

        with explained(self.name):
            study = optuna.create_study(
                storage=self.storage,
                study_name=problem.key,
                direction="maximize",
                sampler=sampler,
                pruner=pruner,
                load_if_exists=True,
            )
            known = self._problem(study.user_attrs)
        if known is None or (known.input_shape is None and problem.input_shape is not None):
            with self._lock(), explained(self.name):
                # the mark comes last: until then it is no study of ours, and the next one to come describes it
                for name, value in {**problem.to_dict(), MARK: VERSION}.items():
                    study.set_user_attr(name, value)
        return study

    def problems(self) -> list[Problem]:
        """All problems, in the order in which they came."""
        import optuna

        with explained(self.name):
            summaries = optuna.get_all_study_summaries(self.storage, include_best_trial=False)
        found = (self._problem(summary.user_attrs) for summary in summaries)
        return [problem for problem in found if problem is not None]

    def find(self, key: str) -> Problem:
        """Return the problem whose key begins with `key`.

        Raises
        ------
        StoreError
            If there is none, or more than one.
        """
        problems = {problem.key: problem for problem in self.problems()}
        if key in problems:
            return problems[key]
        fitting = [known for known in problems if known.startswith(key)]
        if len(fitting) == 1:
            return problems[fitting[0]]
        if fitting:
            raise StoreError(f"{self.name}: expected the key of one problem, got '{key}': {', '.join(fitting)}")
        guess = nearest(key, problems)
        hint = f"did you mean '{guess}'? " if guess else ""
        raise StoreError(f"{self.name}: unknown problem '{key}': {hint}`lrensemble store list` shows them")

    def trials(self, problem: Problem) -> list[StoredTrial]:
        """All trainings of a problem, one a member: where it was recorded on its way too, as far as it came."""
        return furthest(self._recorded(problem))

    def policies(self, problem: Problem) -> list[Evidence]:
        """Return what is known of each policy on a problem, the best first."""
        return rank(self.trials(problem))

    def nearest(self, problem: Problem, n: int = 5) -> list[Neighbour]:
        """Return the `n` problems with trials that are nearest to `problem`, itself included, with their policies."""
        return list(islice(self._neighbours(problem, self.problems()), n))

    def suggestions(self, problem: Problem, n: int = 10) -> Suggestions:
        """Return up to `n` policies to begin with: of the nearest problem the best, then of the next one, ….

        Problems with another optimiser are left out, since rates do not carry over, and so are policies that have only
        diverged. Texts that are no policies (any more) are left out and counted.
        """
        found: dict[str, Suggestion] = {}
        unreadable: set[str] = set()
        usable = [other for other in self.problems() if other.optimizer == problem.optimizer]
        for near in self._neighbours(problem, usable):
            if len(found) >= n:
                break
            for evidence in near.policies:
                if evidence.accuracy is not None and not _is_readable(evidence.policy):
                    unreadable.add(evidence.policy)
                elif evidence.accuracy is not None:
                    found.setdefault(
                        evidence.policy, Suggestion(evidence.policy, evidence, near.problem, near.distance)
                    )
        return Suggestions(tuple(found.values())[:n], len(unreadable))

    def record(self, problem: Problem, trained: Trained | Sequence[Trained], *, pool: Pool | None = None) -> int:
        """Add finished, diverged and stopped trainings; return how many were new.

        What is there already is not added again, also when two processes record the same at once; a member that has
        come further since counts as new.
        """
        trained = trained if isinstance(trained, Sequence) else [trained]
        return self._add(problem, [stored(problem, one, _path(pool)) for one in trained])

    def add_pool(self, pool: Pool) -> Added:
        """Add all members of a pool, finished and diverged, to the problems that they were trained on."""
        entries: dict[Problem, list[StoredTrial]] = {}
        members = [summary.id for summary in pool.summaries()]
        for name in members:
            problem, entry = _of_pool(pool, name)
            if problem is not None and entry is not None:
                entries.setdefault(problem, []).append(entry)
        new = sum(self._add(problem, found) for problem, found in entries.items())
        usable = sum(map(len, entries.values()))
        return Added(new, usable - new, len(members) - usable)

    def export(self, problem: Problem | None = None) -> list[dict[str, Any]]:
        """Return every training of one problem, or of all, as one flat, JSON-ready record with its curve."""
        return [
            {"problem": one.key, **{name: getattr(one, name) for name in _OF_PROBLEM}, **trial.to_dict()}
            for one in ([problem] if problem is not None else self.problems())
            for trial in self.trials(one)
        ]

    def info(self) -> list[dict[str, Any]]:
        """Return what `lrensemble store list` shows, JSON-ready: each problem, its trainings and its best policy."""
        return [_overview(problem, self.trials(problem)) for problem in self.problems()]

    def _add(self, problem: Problem, entries: Sequence[StoredTrial | None]) -> int:
        study, added = self.study(problem), 0
        measured = furthest(entry for entry in entries if entry is not None)
        for start in range(0, len(measured), BLOCK):
            with self._lock(), explained(self.name):
                known = {trial.member: reached(trial) for trial in self.trials(problem)}
                block = measured[start : start + BLOCK]
                new = [entry for entry in block if reached(entry) > known.get(entry.member, (False, -1))]
                for entry in new:
                    study.add_trial(_frozen(entry))
            added += len(new)
        return added

    def _neighbours(self, problem: Problem, others: Sequence[Problem]) -> Iterator[Neighbour]:
        """Yield those that have trials, the nearest first; trials are read as they are asked for."""
        for distance, _, other in sorted((problem.distance(other), other.key, other) for other in others):
            if policies := self.policies(other):
                yield Neighbour(other, distance, tuple(policies))

    def _recorded(self, problem: Problem) -> list[StoredTrial]:
        with explained(self.name):
            try:
                study_id = self.storage.get_study_id_from_name(problem.key)
            except KeyError:
                return []
            trials = self.storage.get_all_trials(study_id, deepcopy=False)
        return [entry for trial in trials if (entry := _thawed(trial)) is not None]

    def _problem(self, attributes: dict[str, Any]) -> Problem | None:
        """Read the description of a study; None when it is not one of ours."""
        if MARK not in attributes:
            return None
        if attributes[MARK] != VERSION:
            raise StoreError(
                f"{self.name}: expected a policy store of version {VERSION}, got version {attributes[MARK]!r}: "
                "update lrensemble"
            )
        try:
            return Problem.from_dict(attributes)
        except InputError as error:
            raise StoreError(f"{self.name}: {error}") from None


def _overview(problem: Problem, trials: Sequence[StoredTrial]) -> dict[str, Any]:
    best = next((found for found in rank(trials) if found.accuracy is not None), None)
    return {
        "key": problem.key,
        **problem.to_dict(),
        "trials": len(trials),
        "best_accuracy": best and best.accuracy,
        "best_policy": best and best.policy,
    }


def _path(pool: Pool | None) -> str:
    return "" if pool is None else str(pool.path.absolute())


def _frozen(entry: StoredTrial) -> FrozenTrial:
    """Return a trial for Optuna. A diverged training is complete with 0: samplers learn to keep away from it."""
    from optuna.trial import TrialState, create_trial

    facts = entry.to_dict()
    some = np.linspace(0, len(entry.curve) - 1, min(SHOWN, len(entry.curve))).round().astype(int)
    return create_trial(
        state=TrialState.PRUNED if entry.status == "stopped" else TrialState.COMPLETE,
        value=entry.val_accuracy,
        # every attribute and intermediate value is a row, which takes about a millisecond: few of each
        user_attrs={**{name: facts.pop(name) for name in READABLE}, "training": facts},
        intermediate_values=dict(entry.curve[i] for i in some),
    )


def _thawed(trial: FrozenTrial) -> StoredTrial | None:
    """Read a trial; None when it is not one that was recorded here."""
    facts = trial.user_attrs
    try:
        curve = tuple((int(epoch), float(accuracy)) for epoch, accuracy in facts["training"]["curve"])
        return StoredTrial(**{**{name: facts[name] for name in READABLE}, **facts["training"], "curve": curve})
    except (KeyError, TypeError, ValueError):
        return None


_OF_PROBLEM = ("data", "model", "optimizer", "batch_size", "n_train")
EXPORTED = ("problem", *_OF_PROBLEM, *StoredTrial.__dataclass_fields__)  # what `Store.export` gives


def _of_pool(pool: Pool, name: str) -> tuple[Problem | None, StoredTrial | None]:
    from lrensemble.training.workshop import Trained

    member = pool.member(name)
    problem = Problem.of_member(pool, member)
    if problem is None or "snapshot" in member.extra:
        return None, None
    loss, accuracy = (tuple(map(float, member.history.get(key, ()))) for key in ("val_loss", "val_accuracy"))
    facts = (member.id, member.policy, member.asked, member.seed, member.status)
    trained = Trained(*facts, len(accuracy), problem.epochs, loss, accuracy, member.seconds)
    return problem, stored(problem, trained, _path(pool))


def _is_readable(policy: str) -> bool:
    from lrensemble.policies import parse_policy

    try:
        parse_policy(policy)
    except InputError:
        return False
    return True
