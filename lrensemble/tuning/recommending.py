"""`recommend`: the policy to use, found by a search whose every training becomes a member of a pool."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from operator import mul
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from lrensemble.errors import InputError, TrainingError, lookup
from lrensemble.files import write_text_atomic
from lrensemble.policies import Policy, parse_policy, preset
from lrensemble.training.budget import check_budget, duration
from lrensemble.training.folds import parts_of
from lrensemble.training.progress import Event, Report, reporter
from lrensemble.training.workshop import Workshop
from lrensemble.tuning.ensemble_rule import EnsembleRule
from lrensemble.tuning.problem import Problem
from lrensemble.tuning.search import GRID, PRUNERS, SAMPLERS, OptunaProposer
from lrensemble.tuning.spaces import Space
from lrensemble.tuning.store import Store
from lrensemble.tuning.study import Allowance, Goal, Proposer, Pruner, Searched, Trial, search, spent

if TYPE_CHECKING:
    from lrensemble.models import ModelLike

__all__ = ["OBJECTIVES", "Candidate", "Recommendation", "recommend"]

OBJECTIVES = ("single", "ensemble")
TRIALS = 24
BATCH = 6  # enough for stacked networks to pay, and TPE still learns three times or more in a search of 24
WARM = 4  # policies of the store to begin with
# Settings of the papers and tools that introduced a network, for the optimiser that they are for.
DOCUMENTED = {"lenet": "mnist-lenet-caffe", "cnn3": "cifar10-full-caffe", "resnet32": "lrbench-cifar10-resnet32"}
DOCUMENTED_OPTIMIZERS = ("momentum", "nesterov")


@dataclass(frozen=True)
class Candidate:
    """What a search knows of a policy, on validation data; means over its trainings.

    Attributes
    ----------
    policy
        Text to paste: times are shares of the run.
    seeds, members
        Seeds of its trainings, and their names in the pool.
    val_accuracy, val_accuracy_sd, val_loss
        At the end of the training; the spread is None of a single one.
    steps_to_best, seconds_to_best
        Until the best accuracy after any epoch.
    reached
        Trainings that reached the target; None without a target.
    steps_to_target, seconds_to_target
        None unless all its trainings reached it.
    score
        What it was ranked by; see `Goal.score`.
    """

    policy: str
    seeds: tuple[int, ...]
    members: tuple[str, ...]
    val_accuracy: float
    val_accuracy_sd: float | None
    val_loss: float | None
    steps_to_best: float
    seconds_to_best: float
    reached: int | None
    steps_to_target: float | None
    seconds_to_target: float | None
    score: float


@dataclass(frozen=True)
class Recommendation:
    """What `recommend` found.

    Attributes
    ----------
    policy
        Text of the best policy, to paste into other commands.
    member
        Its best training, in the pool.
    reached
        Whether the target was reached; None without a target.
    top
        The best policies with their evidence, the best first.
    target, objective, sampler, pruner, seed
        As asked for.
    trials, finished, diverged, pruned
        Trainings tried, and what became of them.
    trainings, steps, seconds
        What they cost: in whole trainings (one that was stopped counts by its epochs), optimiser steps, and seconds of
        training, all processes together.
    members
        Names of all that were tried; in the pool, or resting beside it.
    ended
        ``"spent"``: what was allowed is spent; ``"late"``: time was up; ``"exhausted"``: nothing new was left to try.
    pool, store, problem
        Where the trainings are; the policy store (None if none is used), and the key of the problem in it.
    """

    policy: str
    member: str
    reached: bool | None
    top: tuple[Candidate, ...]
    target: float | None
    objective: str
    sampler: str
    pruner: str
    seed: int
    trials: int
    finished: int
    diverged: int
    pruned: int
    trainings: float
    steps: int
    seconds: float
    members: tuple[str, ...]
    ended: str
    pool: str
    store: str | None
    problem: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join([*_table(self), "", *_words(self)])


def recommend(
    data: Any,
    *,
    model: ModelLike = "mlp",
    target: float | None = None,
    trials: int | None = None,
    budget: str | float | None = None,
    max_steps: int | None = None,
    sampler: str = "tpe",
    pruner: str = "none",
    objective: str = "single",
    families: str | Sequence[str] | None = None,
    lr_range: Sequence[float] | None = None,
    store: str | Path | Store | bool | None = None,
    path: str | Path | None = None,
    seed: int = 0,
    batch: int = BATCH,
    warm_start: bool = True,
    top: int = 5,
    progress: bool | Callable[[Event], None] | None = None,
    **training: Any,
) -> Recommendation:
    """Search for the best learning-rate policy; every training of the search is kept in a pool.

    With a target, the best policy is the one that needs the fewest optimiser steps until the validation accuracy
    reaches it; without, the one with the highest validation accuracy at the end of training. Test data are not looked
    at. On a CPU the outcome depends on the arguments alone (but for `budget`); the same call after an interruption
    goes on, and with more `trials` it goes further.

    Parameters
    ----------
    data, model, path
        As for `train_pool`.
    target
        Validation accuracy to be reached, in (0, 1].
    trials
        Whole trainings to spend; one that is stopped early counts by its epochs. 24, unless `budget` or `max_steps`
        is given.
    budget
        Time to spend in this call: seconds, or a text such as ``"10m"``. The same call goes on with another budget.
    max_steps
        Optimiser steps to spend, all trainings together.
    sampler
        ``"tpe"``, ``"random"`` or ``"grid"``.
    pruner
        Who is stopped early: ``"none"``, so that every training becomes a member; ``"asha"`` or ``"hyperband"``: those
        that are behind rest at a rung, and can go on another time.
    objective
        ``"single"``: the best policy; ``"ensemble"``: trainings are chosen for what they add to the ensemble.
    families
        Keys of `FAMILIES` to search; `DEFAULT_FAMILIES` when None.
    lr_range
        Lowest and highest peak rate; when None the optimiser's usual range, widened threefold at both ends.
    store
        Policy store (file, URL or `Store`) that the search begins from and writes to; ``checkpoints/store.db`` when
        None, no store when False.
    seed
        Of sampler, initialisation and sample order.
    batch
        Trainings that are chosen and trained together: more is faster, fewer let TPE learn more often.
    warm_start
        Begin with what did best on the nearest problems of the store. What that was is kept in the pool, so that the
        search can be repeated.
    top
        Policies to return with their evidence.
    progress
        As for `train_pool`.
    **training
        As for `train_pool`: ``epochs=5``, ``optimizer="adam"``, ``train_size=1000``, ``engine``, ``jobs``, ….

    Raises
    ------
    InputError
        If an argument is not as expected; nothing is trained then.
    TrainingError
        If all trainings diverged, or none was finished in time. What was trained is kept.
    PoolError, StoreError, KeyboardInterrupt
        As `train_pool` and `Store.open`.

    Examples
    --------
    >>> found = recommend("digits", trials=6, epochs=2, path=folder, progress=False)  # doctest: +SKIP
    >>> found.policy  # doctest: +SKIP
    'OneCycle(peak=0.0912, pct_start=0.27)'
    """
    _check(target, trials, max_steps, batch, top, seed)
    for table, name, what in ((SAMPLERS, sampler, "sampler"), (PRUNERS, pruner, "pruner")):
        lookup(table, name, what)
    lookup(dict.fromkeys(OBJECTIVES), objective, "objective")
    seconds = check_budget(budget)
    shop = Workshop.open(data, model=model, path=path, progress=progress, **training)
    space = Space.of(families, optimizer=shop.config.optimizer, lr_range=lr_range)
    allowance = _allowance(shop, trials, seconds, max_steps)
    problem = Problem.of(shop, shop.plan([(policy, seed) for policy in space.grid(1)]))
    asked = {
        "objective": objective,
        "target": target,
        "sampler": sampler,
        "pruner": pruner,
        "seed": seed,
        "batch": batch,
        "families": space.families,
        "lr_range": (space.low, space.high),
        "warm_start": warm_start,
    }
    with _store(store) as opened:
        start = _start(shop, problem, space, asked, opened, free=families is None and lr_range is None)
        goal = Goal(target, shop.steps)
        proposer, judge = _proposer(shop, space, goal, asked, start, trainings=allowance.trainings)
        searched = _search(shop, proposer, judge, goal, allowance, batch=batch, store=opened, problem=problem)
        if opened is not None:
            asked |= {"store": opened.name}
    return _recommendation(shop, searched, goal, {**asked, "problem": problem.key}, top=top, seconds=seconds)


def _check(target: Any, trials: Any, max_steps: Any, batch: Any, top: Any, seed: Any) -> None:
    if target is not None and not (_is_real(target) and 0 < target <= 1):
        raise InputError(f"target: expected a validation accuracy in (0, 1], such as 0.9, got {target!r}")
    for name, value in (("trials", trials), ("max_steps", max_steps), ("batch", batch), ("top", top)):
        if value is not None and not (type(value) is int and value >= 1):
            raise InputError(f"{name}: expected a whole number ≥ 1, got {value!r}")
    if not (type(seed) is int and 0 <= seed < 2**32):
        raise InputError(f"seed: expected a whole number from 0 to 2³² − 1, got {seed!r}")


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _allowance(shop: Workshop, trials: int | None, seconds: float | None, max_steps: int | None) -> Allowance:
    run = shop.steps * shop.config.epochs * len(parts_of(shop.splits))
    if max_steps is not None and max_steps < run:
        raise InputError(
            f"max_steps: expected at least the {run:,} steps of one training, got {max_steps:,}: they are the steps of "
            "all trainings together"
        )
    most = TRIALS if (trials, seconds, max_steps) == (None, None, None) else trials
    return Allowance(
        min(math.inf if most is None else most, math.inf if max_steps is None else max_steps / run),
        math.inf if seconds is None else seconds,
    )


@contextmanager
def _store(store: str | Path | Store | bool | None) -> Iterator[Store | None]:
    """Open the store that is asked for, and close it again unless it was open."""
    if store is False:
        yield None
    elif isinstance(store, Store):
        yield store
    elif store is True:
        raise InputError("store: expected a file, a URL, None for checkpoints/store.db or False for none, got True")
    else:
        with Store.open(store) as opened:
            yield opened


def _start(
    shop: Workshop, problem: Problem, space: Space, asked: dict[str, Any], store: Store | None, *, free: bool
) -> list[Policy]:
    """Return the policies to begin with, as they were when this search was begun first.

    What the store suggests changes with every search, so it is kept beside the pool's reports: a search that goes on
    begins as it did.
    """
    digest = hashlib.sha256(json.dumps([problem.key, asked], sort_keys=True).encode()).hexdigest()[:10]
    file = shop.pool().reports_path(f"recommend-{digest}") / "start.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["policies"]
        return [parse_policy(text) for text in known]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found: list[Policy] = []
    if store is not None and asked["warm_start"]:
        suggested = [parse_policy(suggestion.policy) for suggestion in store.suggestions(problem, 4 * WARM)]
        found = [policy for policy in suggested if free or space.locate(policy) is not None][:WARM]
    if free and shop.config.optimizer in DOCUMENTED_OPTIMIZERS:
        name = DOCUMENTED.get(problem.model.partition("(")[0])
        found += preset(name) if name else []
    found = list(dict.fromkeys([*found, *space.grid(1)]))
    write_text_atomic(file, json.dumps({**asked, "policies": [str(policy) for policy in found]}, indent=2) + "\n")
    return found


def _proposer(
    shop: Workshop, space: Space, goal: Goal, asked: dict[str, Any], start: list[Policy], *, trainings: float
) -> tuple[Proposer, Pruner | None]:
    seed, sampler, pruner = asked["seed"], asked["sampler"], asked["pruner"]
    if sampler == GRID:
        start = [*start, *space.grid(None if math.isinf(trainings) else math.floor(trainings))]
    found = OptunaProposer(
        space, goal, sampler=sampler, pruner=pruner, epochs=shop.config.epochs, start=start, seed=seed
    )
    judge = None if pruner == "none" else found
    if asked["objective"] == "ensemble":
        return EnsembleRule(found, shop.pool().labels("val"), trainings=trainings), judge
    return found, judge


def _search(
    shop: Workshop,
    proposer: Proposer,
    pruner: Pruner | None,
    goal: Goal,
    allowance: Allowance,
    *,
    batch: int,
    store: Store | None,
    problem: Problem,
) -> Searched:
    """Search with progress as of one run, and record every batch in the store."""
    pool = shop.pool()

    def record(found: Sequence[Trial]) -> None:
        if store is not None:
            store.record(problem, [trial.trained for trial in found], pool=pool)

    parts, total = parts_of(shop.splits), 0 if math.isinf(allowance.trainings) else math.floor(allowance.trainings)
    epochs = shop.config.epochs * len(parts)
    with reporter(shop.progress, members=total, done=0, epochs=epochs, n_train=parts[0].n) as report:
        relay = _Relay(report, total, f"{pool.path}: ")
        busy = replace(shop, progress=relay)
        return search(busy, proposer, goal, allowance, batch=batch, pruner=pruner, record=record, report=relay)


class _Relay:
    """Pass on the events of many calls of `Workshop.train` as those of one run, each once."""

    def __init__(self, report: Report, total: int, about_the_pool: str) -> None:
        self._report, self._total, self._about_the_pool = report, total, about_the_pool
        self._done: set[str] = set()
        self._said: set[str] = set()

    def __call__(self, event: Event) -> None:
        if event.kind == "note":
            if event.text in self._said or event.text.startswith(self._about_the_pool):
                return  # what is there already, of a part of the run
            self._said.add(event.text)
        if event.kind == "member":
            if event.member in self._done:
                return
            self._done.add(event.member)
            event = replace(event, done=len(self._done), total=max(self._total, len(self._done)))
        self._report(event)


def _recommendation(
    shop: Workshop, searched: Searched, goal: Goal, asked: dict[str, Any], *, top: int, seconds: float | None
) -> Recommendation:
    trials = {trial.trained.id: trial for trial in searched.trials}
    outcomes = Counter(trial.trained.status for trial in trials.values())
    ranked = _ranked(list(trials.values()), goal)
    if not ranked:
        raise TrainingError(f"{shop.path}: {_nothing(outcomes['diverged'], seconds)}")
    best = ranked[0]
    scores = {name: goal.score(trials[name].trained) for name in best.members}
    run = shop.steps * shop.config.epochs * len(parts_of(shop.splits))
    cost = spent(searched.trials)
    return Recommendation(
        policy=best.policy,
        member=max(scores, key=scores.__getitem__),
        reached=None if goal.target is None else best.steps_to_target is not None,
        top=tuple(ranked[:top]),
        trials=len(trials),
        finished=outcomes["done"],
        diverged=outcomes["diverged"],
        pruned=outcomes["stopped"],
        trainings=cost,
        steps=round(cost * run),
        seconds=math.fsum(trial.trained.seconds for trial in trials.values()),
        members=tuple(trials),
        ended=searched.ended,
        pool=str(shop.path),
        store=asked.get("store"),
        **{name: asked[name] for name in ("target", "objective", "sampler", "pruner", "seed", "problem")},
    )


def _nothing(diverged: int, seconds: float | None) -> str:
    if diverged:
        return f"all {diverged} trainings diverged (loss infinite or NaN): give a lower lr_range"
    if seconds is not None:
        return (
            f"no training was finished within {duration(seconds)}; nothing is lost: the same command with another "
            "budget goes on"
        )
    return "no training was finished: allow more trainings"


def _ranked(trials: Sequence[Trial], goal: Goal) -> list[Candidate]:
    """Return policies with a finished training, the best first; of equals the one that was tried first."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.trained.status != "stopped":
            groups.setdefault(trial.trained.policy, []).append(trial)
    found = [_candidate(group, goal) for group in groups.values() if any(t.trained.status == "done" for t in group)]
    return sorted(found, key=lambda candidate: -candidate.score)


def _candidate(group: Sequence[Trial], goal: Goal) -> Candidate:
    """Sum up what is known of a policy; a training that diverged counts in its score, and in nothing else."""
    done = [trial.trained for trial in group if trial.trained.status == "done"]
    accuracies = [one.val_accuracy[-1] for one in done]
    best = [1 + max(range(one.epochs), key=one.val_accuracy.__getitem__) for one in done]
    at_target = [epoch for one in done if (epoch := goal.reached(one)) is not None]
    seconds = [one.seconds / one.epochs for one in done]
    all_reached = len(at_target) == len(group)
    losses = [one.val_loss[-1] for one in done]
    return Candidate(
        policy=str(group[0].policy),
        seeds=tuple(trial.seed for trial in group),
        members=tuple(trial.trained.id for trial in group),
        val_accuracy=fmean(accuracies),
        val_accuracy_sd=stdev(accuracies) if len(accuracies) > 1 else None,
        val_loss=fmean(losses) if all(map(math.isfinite, losses)) else None,
        steps_to_best=goal.steps * fmean(best),
        seconds_to_best=fmean(map(mul, best, seconds)),
        reached=None if goal.target is None else len(at_target),
        steps_to_target=goal.steps * fmean(at_target) if all_reached else None,
        seconds_to_target=fmean(map(mul, at_target, seconds)) if all_reached else None,
        score=fmean(goal.score(trial.trained) for trial in group),
    )


def _table(found: Recommendation) -> list[str]:
    head = ["", "val acc", "val nll", "steps", "seconds", "seeds", "policy"]
    rows = [
        [
            f"{place}",
            f"{100 * one.val_accuracy:.2f} %" + _spread(one.val_accuracy_sd),
            "" if one.val_loss is None else f"{one.val_loss:.4f}",
            *_costs(one, found.target is not None),
            f"{len(one.seeds)}",
            one.policy,
        ]
        for place, one in enumerate(found.top, 1)
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
    lines = [[*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]] for row in (head, *rows)]
    to = "the target" if found.target is not None else "the best epoch"
    return [*("  ".join(line).rstrip() for line in lines), f"(steps and seconds: to {to})"]


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {100 * deviation:.2f}"


def _costs(one: Candidate, to_target: bool) -> tuple[str, str]:
    steps, seconds = (
        (one.steps_to_target, one.seconds_to_target) if to_target else (one.steps_to_best, one.seconds_to_best)
    )
    return ("–", "–") if steps is None or seconds is None else (f"{steps:,.0f}", f"{seconds:.2f}")


def _words(found: Recommendation) -> list[str]:
    best = found.top[0]
    what = f"val acc {100 * best.val_accuracy:.2f} %"
    if found.target is not None and best.steps_to_target is not None:
        what = f"reaches {100 * found.target:g} % after {best.steps_to_target:,.0f} steps; {what} at the end"
    elif found.target is not None:
        what = f"no policy reached {100 * found.target:g} %; the nearest: {what}"
    fates = {"finished": found.finished, "diverged": found.diverged, "stopped early": found.pruned}
    counts = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
    why = {
        "spent": "",
        "late": "time was up: the same command with another budget goes on",
        "exhausted": "there is nothing new left to try",
    }[found.ended]
    return [
        f"use      {found.policy}",
        f"         {what}",
        f"cost     {found.trainings:.3g} trainings ({counts}), {found.steps:,} steps, {duration(found.seconds)}",
        *([f"ended    {why}"] if why else []),
        f"pool     {found.pool}: {found.finished} members, nothing is thrown away",
        *([f"store    {found.store}"] if found.store else []),
    ]
