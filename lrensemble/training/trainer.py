"""`train_pool`: a pool of networks, one under each learning-rate policy and seed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrensemble.data import Splits, load_data, resolve_augment
from lrensemble.errors import InputError, TrainingError, lookup
from lrensemble.models import ModelLike, architecture_digest, build_model, check_model, count_flops, count_parameters
from lrensemble.models import model_name as name_of_model
from lrensemble.policies import Policy, resolve_policies
from lrensemble.training.budget import Budget, Limits, check_budget
from lrensemble.training.config import TrainConfig, steps_per_epoch, with_overrides
from lrensemble.training.devices import resolve_devices
from lrensemble.training.engines import ENGINES
from lrensemble.training.folds import cross_fit, parts_of
from lrensemble.training.halving import Halving, check_halving
from lrensemble.training.progress import Event, Report, reporter
from lrensemble.training.snapshots import check_snapshots, plan_snapshots

if TYPE_CHECKING:
    from lrensemble.pool import MemberSummary, Pool
    from lrensemble.training.cluster import Cluster
    from lrensemble.training.task import Setting, Task

__all__ = ["CHECKPOINT_VARIABLE", "default_path", "plan_members", "train_pool"]

MOST_SEEDS = 100_000
CHECKPOINT_VARIABLE = "LRENSEMBLE_CHECKPOINT_SECONDS"

Policies = str | Policy | Mapping[str, Any] | Sequence[str | Policy | Mapping[str, Any]]
Size = int | float | None


def train_pool(
    data: Any,
    *,
    model: ModelLike = "mlp",
    policies: Policies = "default",
    seeds: int | Sequence[int] = 1,
    path: str | Path | None = None,
    config: TrainConfig | None = None,
    engine: str = "auto",
    jobs: int | None = None,
    stack: int | None = None,
    device: str = "auto",
    scheduler: str | None = None,
    halving: bool | float | Mapping[str, Any] | Halving = False,
    budget: str | float | None = None,
    progress: bool | Callable[[Event], None] | None = None,
    checkpoint_seconds: float = 5.0,
    lr_range: Sequence[float] | None = None,
    train_size: Size = None,
    val_size: Size = None,
    test_size: Size = None,
    split_seed: int = 0,
    root: str | Path | None = None,
    resize: int | tuple[int, int] | None = None,
    stream: bool | None = None,
    readers: int | None = None,
    save_weights: bool = True,
    snapshots: str | Sequence[str] = (),
    **overrides: Any,
) -> Pool:
    """Train one network under each policy with each seed, and keep what they predict in a pool.

    What is in the pool already is not trained again, and a training that was interrupted goes on from its last saved
    state: the same call resumes. On a CPU not one bit of what an engine does (seconds apart) depends on `jobs`,
    `stack` or interruptions.

    Parameters
    ----------
    data
        Name, path, arrays, torch Datasets or `Splits`; see `load_data`, which is also given the sizes, `split_seed`,
        `root`, `resize` and `stream`.
    model
        Name with options, ``package.module:function``, or a function; see `build_model`.
    policies
        Presets and policies; see `resolve_policies`, which is also given `lr_range`, the range of base rates.
    seeds
        Seeds 0 … N − 1 for a number N, or the seeds themselves.
    path
        Directory of the pool; ``checkpoints/<data>-<model>`` when None.
    config, **overrides
        Settings; single fields of `TrainConfig` can be given by name: ``epochs=5``. With ``folds=5`` every member is
        five networks and predicts training and validation part together, each sample by the network that has not
        learned from it (see ``docs/folds.md``); `split_seed` decides the folds.
    engine
        A name in ``ENGINES``: ``"loop"`` trains networks one after another, ``"stacked"`` several in one batched pass;
        ``"auto"`` stacks them where that can be done and is not slower. See ``docs/engines.md``.
    jobs
        Processes, each with one CPU thread. By default one a processor core on a CPU, but none besides this one where
        the work takes a few seconds only, and one on a GPU.
    stack
        Networks that are stacked at most. By default as many as pay (measured, where the work is long enough) and fit
        into memory.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"cuda:0,cuda:2"``; ``"cuda"`` is all GPUs, and ``"auto"`` too where there
        are any. Processes share out several devices among themselves.
    scheduler
        Address of a Dask scheduler, ``"tcp://host:8786"``, whose workers train instead of this machine; see
        ``docs/cluster.md``. `jobs` then counts workers; all of them by default.
    halving
        Stop the members that are behind: true, η, or a mapping of ``eta``, ``first`` and ``least`` (see `Halving`). A
        member that was stopped keeps its state; a later call without `halving` goes on from there.
    budget
        Time that training may take: seconds, or a text such as ``"10m"`` or ``"1h30m"``. As many members as fit are
        trained; the same call goes on with the others. See ``docs/budget.md``.
    progress
        None or True: a live bar on stderr, or plain lines where that is no terminal; False: silent; or a function that
        is given every `Event`.
    checkpoint_seconds
        Least time between two savings of a member's state; 0 saves after every epoch. The environment variable
        ``LRENSEMBLE_CHECKPOINT_SECONDS`` wins over it.
    readers
        Processes that read streamed images or Datasets ahead for each process that trains; 0: that one reads them
        itself. By default 0 on a CPU; on a GPU what cores there are for it, 8 at most. Changes the time only.
    save_weights
        Whether to keep the networks' weights.
    snapshots
        Further members from the same trainings: ``"cycles"``, ``"last:K"``, ``"swa"`` or ``"swa:SHARE"``, or several;
        see ``docs/snapshots.md``. A member that is there without them is trained again for them, and kept as it is.

    Returns
    -------
    Pool
        With all members, diverged ones included.

    Raises
    ------
    InputError
        If a setting, the data, the network or a policy is not as expected; nothing is written then.
    PoolError
        If the path holds something else, such as a pool on other data.
    TrainingError
        If a member fails, a worker is lost, all members diverge, or none is finished within the budget. What was
        finished is kept, and so are the states of the others.
    KeyboardInterrupt
        On SIGINT (Ctrl-C) or SIGTERM, after the workers have been stopped.

    Examples
    --------
    >>> pool = train_pool("digits", policies=["FIX(0.05)"], epochs=1, path=folder, progress=False)  # doctest: +SKIP
    >>> len(pool)  # doctest: +SKIP
    1
    """
    settings = with_overrides(config, overrides)
    seed_list = _seeds(seeds)
    interval = _checkpoint_seconds(checkpoint_seconds)
    _check_compute(engine, jobs, stack)
    _check_readers(readers)
    _check_progress(progress)
    further = check_snapshots(snapshots)
    rivalry, seconds = check_halving(halving), check_budget(budget)
    devices = (device,) if scheduler is not None else resolve_devices(device)
    asked = resolve_policies(policies, optimizer=settings.optimizer, lr_range=lr_range)
    splits = load_data(
        data,
        train_size=train_size,
        val_size=val_size,
        test_size=test_size,
        split_seed=split_seed,
        root=root,
        resize=resize,
        stream=stream,
    )
    if settings.folds:
        splits = cross_fit(splits, settings.folds, seed=split_seed)
    settings = replace(settings, augment=resolve_augment(settings.augment, splits))
    plan = plan_members(splits, model, asked, seed_list, settings, snapshots=further)

    from lrensemble.pool import Pool
    from lrensemble.training.footprint import refuse_hopeless
    from lrensemble.training.task import Setting

    if scheduler is None:
        refuse_hopeless(plan.tasks[0], splits, devices[0])
    pool = Pool.create(
        path if path is not None else default_path(splits, model),
        name=splits.name,
        fingerprint=splits.fingerprint,
        class_names=splits.class_names,
        labels={"val": splits.val.y, "test": splits.test.y},
        exist_ok=True,
    )
    setting = Setting(pool.path.absolute(), devices[0], interval, save_weights, devices)
    compute = {"engine": engine, "jobs": jobs, "stack": stack}
    limits = Limits(rivalry, None if seconds is None else Budget(seconds))
    _train_missing(
        pool,
        plan,
        splits,
        setting,
        compute=compute,
        readers=readers,
        scheduler=scheduler,
        limits=limits,
        progress=progress,
    )
    pool.refresh_view()
    _refuse_none_finished(pool, plan.tasks, limits)
    return pool


def default_path(splits: Splits, model: ModelLike) -> Path:
    """``checkpoints/<data>-<model>``."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", f"{splits.name}-{name_of_model(model)}").strip("-.")
    return Path("checkpoints") / name


@dataclass(frozen=True)
class Plan:
    """The members that were asked for, and what is worth saying about them."""

    tasks: tuple[Task, ...]
    notes: tuple[str, ...]


def plan_members(
    splits: Splits,
    model: ModelLike,
    policies: Sequence[Policy],
    seeds: Sequence[int],
    config: TrainConfig,
    *,
    snapshots: Sequence[str] = (),
) -> Plan:
    """Resolve every policy for the length of the run, check network and policies, and name the members.

    Raises
    ------
    InputError
        If the network does not fit the data, or a policy the run.
    """
    import torch

    from lrensemble.pool import member_id
    from lrensemble.training.loop import controlled
    from lrensemble.training.task import Task

    parts = parts_of(splits)
    steps = steps_per_epoch(parts[0].n, config.batch_size)
    total = steps * config.epochs
    texts: dict[str, tuple[Policy, str]] = {}
    notes = []
    for policy in policies:
        resolved = policy.resolve(total_steps=total, steps_per_epoch=steps)
        if str(resolved) in texts:
            notes.append(f"{policy} is the same as {texts[str(resolved)][1]} in {total} steps: trained once")
        texts.setdefault(str(resolved), (resolved, str(policy)))

    with controlled(torch.device("cpu")):  # building draws random numbers: not while another thread trains
        network = build_model(model, splits.input_shape, splits.n_classes)
    check_model(network, splits.input_shape, splits.n_classes, name=name_of_model(model))
    facts: dict[str, Any] = {
        "model_text": name_of_model(model),
        "architecture": architecture_digest(network),
        "parameters": len(parts) * count_parameters(network),
        "flops": len(parts) * count_flops(network, splits.input_shape),
    }
    shared = {
        "model": facts["model_text"],
        "architecture": facts["architecture"],
        "data": splits.fingerprint,
        "config": config.to_dict(),
    }
    named = {
        (text, seed): member_id(text, seed, {**shared, "policy": text, "seed": seed})
        for seed in seeds
        for text in texts
    }
    length = {"epochs": config.epochs, "steps": steps}
    tasks = [
        Task(
            id=named[text, seed],
            policy=policy,
            asked=asked,
            model=model,
            config=config,
            seed=seed,
            snapshots=plan_snapshots(snapshots, member=named[text, seed], policy=policy, **length),
            **facts,
        )
        for seed in seeds
        for text, (policy, asked) in texts.items()
    ]
    if snapshots == ("cycles",) and not any(task.snapshots for task in tasks):
        notes.append("snapshots: no policy has a cycle that ends before the training does: none is taken")
    return Plan(tuple(tasks), tuple(notes))


def _train_missing(
    pool: Pool,
    plan: Plan,
    splits: Splits,
    setting: Setting,
    *,
    compute: Mapping[str, Any],
    readers: int | None,
    scheduler: str | None,
    limits: Limits,
    progress: bool | Report | None,
) -> None:
    from lrensemble.training.batches import readers_for
    from lrensemble.training.executor import train_members
    from lrensemble.training.schedule import chunks_of, schedule

    there = {summary.id: summary for summary in pool.summaries()}
    missing = [task for task in plan.tasks if not is_complete(task, there)]
    _remove_leftovers(pool, {task.id for task in plan.tasks} - {task.id for task in missing})
    total, done = len(plan.tasks), len(plan.tasks) - len(missing)
    notes = [f"{pool.path}: {done} of {total} members are there already"] if done else []
    if again := sum(task.id in there for task in missing):
        notes.append(f"{pool.path}: {again} of {total} members are trained again for their snapshots")
    parts = parts_of(splits)
    epochs = plan.tasks[0].config.epochs * len(parts)
    with reporter(progress, members=total, done=done, epochs=epochs, n_train=parts[0].n) as report:
        for note in (*plan.notes, *notes):
            report(Event("note", text=note))
        if not missing:
            return
        with _cluster(scheduler, report) as cluster:
            if cluster is not None:
                setting, compute = cluster.suited(setting, compute)
            how = schedule(missing, splits, setting, **compute)
            setting = replace(setting, readers=readers_for(setting.device, how.jobs) if readers is None else readers)
            setting = replace(setting, deadline=limits.begin())
            for note in how.notes:
                report(Event("note", text=note))

            def train(tasks: Sequence[Task], epoch: int | None) -> None:
                left = _left(pool, tasks, epoch)
                if left and not setting.is_late:
                    train_members(
                        chunks_of(left, how, networks=len(parts)),
                        splits,
                        replace(setting, until=epoch),
                        engine=how.engine,
                        jobs=how.jobs,
                        report=report,
                        done=total - len(_left(pool, plan.tasks)),
                        total=total,
                        cluster=cluster,
                    )

            limits.follow(pool, plan.tasks, train, partial(_left, pool), jobs=how.jobs, report=report)


def _cluster(scheduler: str | None, report: Report) -> AbstractContextManager[Cluster | None]:
    """Workers at that address, connected to for the length of the block; None where there is no address."""
    if scheduler is None:
        return nullcontext()
    from lrensemble.training.cluster import connected

    return connected(scheduler, report)


def is_complete(task: Task, there: Mapping[str, MemberSummary]) -> bool:
    """Whether a member is in the pool with all the snapshots that its training had; `there` is the pool, by name."""
    if task.id not in there:
        return False
    steps, diverged = there[task.id].steps, there[task.id].status == "diverged"
    return all(s.id in there for s in task.snapshots if s.exists(steps=steps, diverged=diverged))


def _left(pool: Pool, tasks: Sequence[Task], epoch: int | None = None) -> list[Task]:
    """Members that are not complete; of these, with `epoch`, only those that have not come so far."""
    there = {summary.id: summary for summary in pool.summaries()}
    reached = {} if epoch is None else {record.id: record.epoch for record in pool.stopped()}
    return [task for task in tasks if not is_complete(task, there) and reached.get(task.id, -1) < (epoch or 0)]


def _remove_leftovers(pool: Pool, members: set[str]) -> None:
    """Delete the states of members that are there: of a training that was killed between storing it and clearing up."""
    for member in members:
        for path in pool.resume_paths(member):
            with suppress(OSError):
                path.unlink()


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds <= MOST_SEEDS:
        listed = list(range(seeds))
    else:
        listed = list(seeds) if isinstance(seeds, Sequence) and not isinstance(seeds, str) else []
    if not listed or len(set(listed)) < len(listed) or not all(type(seed) is int for seed in listed):
        raise InputError(f"seeds: expected a number from 1 to {MOST_SEEDS:,} or different whole numbers, got {seeds!r}")
    return listed


def _check_compute(engine: Any, jobs: Any, stack: Any) -> None:
    lookup({"auto": None, **ENGINES}, engine, "engine")
    for name, value in (("jobs", jobs), ("stack", stack)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name}: expected a whole number ≥ 1, got {value!r}")


def _check_readers(readers: Any) -> None:
    if readers is not None and (not isinstance(readers, int) or isinstance(readers, bool) or readers < 0):
        raise InputError(f"readers: expected a whole number ≥ 0, got {readers!r}")


def _check_progress(progress: Any) -> None:
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InputError(f"progress: expected True, False or a callable, got {progress!r}")


def _checkpoint_seconds(value: float) -> float:
    given: Any = os.environ.get(CHECKPOINT_VARIABLE, value)
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"checkpoint_seconds: expected a number ≥ 0, got {given!r}")
    return seconds


def _refuse_none_finished(pool: Pool, tasks: Sequence[Task], limits: Limits) -> None:
    asked = {name for task in tasks for name in (task.id, *(snapshot.id for snapshot in task.snapshots))}
    statuses = [summary.status for summary in pool.summaries() if summary.id in asked]
    if "done" in statuses:
        return
    if len(statuses) < len(tasks):
        raise TrainingError(f"{pool.path}: {limits.reason(len(statuses))}")
    raise TrainingError(
        f"{pool.path}: all {len(tasks)} members diverged (loss infinite or NaN): use lower learning rates"
    )
