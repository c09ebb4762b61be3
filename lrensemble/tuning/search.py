"""`OptunaProposer`: samplers and pruners of Optuna, on the policies of a space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lrensemble.errors import lookup
from lrensemble.policies import Policy
from lrensemble.training.halving import Halving
from lrensemble.tuning.spaces import Space
from lrensemble.tuning.study import Goal, Trial

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

__all__ = ["PRUNERS", "SAMPLERS", "OptunaProposer"]

ETA = 3  # of the pruners: the best third goes on
STARTUP = 8  # trials that must have ended before TPE learns from them; until then it draws at random
TRIES = 20  # suggestions for each that is wanted: equal ones are not trained twice


def _tpe(seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _none(first: int, epochs: int) -> BasePruner:
    from optuna.pruners import NopPruner

    return NopPruner()


def _asha(first: int, epochs: int) -> BasePruner:
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=first, reduction_factor=ETA)


def _hyperband(first: int, epochs: int) -> BasePruner:
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=ETA)


GRID = "grid"  # nothing is sampled: what there is to begin with is all
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": _random, GRID: _random}
PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {"none": _none, "asha": _asha, "hyperband": _hyperband}


@contextmanager
def _without_messages() -> Iterator[None]:
    """Keep Optuna from announcing a new study on stderr."""
    from optuna import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(level)


class OptunaProposer:
    """An Optuna study that suggests policies, learns from what came of them, and says who is behind.

    The study is kept in memory: with the same seed and the same outcomes it suggests the same, so that it need not be
    stored. Equal suggestions are proposed once.

    Parameters
    ----------
    space
        Where to search.
    goal
        What its values are.
    sampler
        Key of `SAMPLERS`: the tree-structured Parzen estimator (Bergstra et al. 2011), which also takes trainings under
        way into account; random search; or ``"grid"``, which proposes `start` and nothing else.
    pruner
        Key of `PRUNERS`: asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), Hyperband (Li et al. 2018,
        arXiv 1603.06560), or none.
    epochs
        Of a whole training.
    start
        Policies to begin with. The study learns from those that lie in its space.
    seed
        Of the sampler, and of all trainings.
    """

    def __init__(
        self,
        space: Space,
        goal: Goal,
        *,
        sampler: str = "tpe",
        pruner: str = "none",
        epochs: int,
        start: Sequence[Policy] = (),
        seed: int = 0,
    ) -> None:
        import optuna

        self.space, self.goal, self.seed = space, goal, seed
        self._rungs = [] if pruner == "none" else Halving(eta=ETA).rungs(epochs)
        make = lookup(PRUNERS, pruner, "pruner")
        with _without_messages():
            self.study = optuna.create_study(
                study_name="search",  # Hyperband's brackets depend on it
                storage=optuna.storages.InMemoryStorage(),
                direction="maximize",
                sampler=lookup(SAMPLERS, sampler, "sampler")(seed),
                pruner=make(self._rungs[0] if self._rungs else 1, epochs),
            )
        self._start, self._is_list = list(dict.fromkeys(start)), sampler == GRID
        self._proposed: set[Policy] = set()
        self._open: dict[int, optuna.Trial] = {}  # those of the last batch, by place in the history

    def propose(self, history: Sequence[Trial], n: int) -> list[tuple[Policy, int]]:
        """Learn from the last batch and return the next one, as `Proposer`."""
        from optuna.trial import TrialState

        for place, trial in self._open.items():
            self._learn(trial, history[place])
        self._open = {}
        batch: list[Policy] = []
        for _ in range(TRIES * n):
            if len(batch) == n or (self._is_list and not self._start):
                break
            trial, policy = self._ask()
            if policy in self._proposed:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self._proposed.add(policy)
                self._open[len(history) + len(batch)] = trial
                batch.append(policy)
        return [(policy, self.seed) for policy in batch]

    def rungs(self, epochs: int) -> list[int]:
        """Return the epochs at which the pruner is asked, as `Pruner`."""
        return self._rungs

    def behind(self, scores: Mapping[int, float], epoch: int) -> set[int]:
        """Tell the pruner all scores of a rung, then ask it about each, the best first; as `Pruner`.

        Trainings that another proposer has added to the batch are not compared.
        """
        mine = [place for place in scores if place in self._open]
        for place in mine:
            self._open[place].report(scores[place], epoch)
        best_first = sorted(mine, key=scores.__getitem__, reverse=True)
        return {place for place in best_first if self._open[place].should_prune()}

    def _ask(self) -> tuple[optuna.Trial, Policy]:
        if not self._start:
            trial = self.study.ask()
            return trial, self.space.suggest(trial)
        policy = self._start.pop(0)
        place = self.space.locate(policy)
        if place is None:
            return self.study.ask(), policy  # without parameters: known to the pruner, and to no sampler
        self.study.enqueue_trial(place)
        trial = self.study.ask()
        self.space.suggest(trial)
        return trial, policy

    def _learn(self, trial: optuna.Trial, outcome: Trial) -> None:
        from optuna.trial import TrialState

        if outcome.trained.status == "stopped":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, self.goal.score(outcome.trained))
