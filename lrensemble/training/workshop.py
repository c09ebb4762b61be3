"""`Workshop`: what all trainings of a pool share, and the way from a list of members to their place in the pool.

`train_pool` opens one, and trains a whole list in it. What decides only as it goes which member comes next (tuning)
keeps it open: data and settings are read and checked once.
"""

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
from lrensemble.errors import InputError, lookup
from lrensemble.models import ModelLike, architecture_digest, build_model, check_model, count_flops, count_parameters
from lrensemble.models import model_name as name_of_model
from lrensemble.policies import Policy
from lrensemble.training.budget import Limits
from lrensemble.training.config import TrainConfig, steps_per_epoch, with_overrides
from lrensemble.training.devices import resolve_devices
from lrensemble.training.engines import ENGINES
from lrensemble.training.folds import cross_fit, parts_of
from lrensemble.training.progress import Event, Report, reporter
from lrensemble.training.snapshots import check_snapshots, plan_snapshots

if TYPE_CHECKING:
    from lrensemble.pool import MemberSummary, Pool
    from lrensemble.training.cluster import Cluster
    from lrensemble.training.task import Setting, Task

__all__ = ["CHECKPOINT_VARIABLE", "Plan", "Size", "Trained", "Workshop", "default_path", "is_complete", "plan_members"]

CHECKPOINT_VARIABLE = "LRENSEMBLE_CHECKPOINT_SECONDS"

Size = int | float | None


@dataclass(frozen=True)
class Trained:
    """How far a training has come, and what it has shown on the validation part.

    Attributes
    ----------
    id, policy, asked, seed
        As of the `Task`; the policy as text.
    status
        ``"done"``, ``"diverged"``, or ``"stopped"``: it rests before its end and can go on.
    epoch, epochs
        Epochs that it has finished, and has in all.
    val_loss, val_accuracy
        After each finished epoch; NaN where it was not measured.
    seconds
        Time that it has taken.
    """

    id: str
    policy: str
    asked: str
    seed: int
    status: str
    epoch: int
    epochs: int
    val_loss: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Workshop:
    """What the trainings of a pool share. Make it by `Workshop.open`; the attributes are the arguments of that.

    Attributes
    ----------
    splits, config
        The data as they are trained on (in folds, if so asked), and the settings with the name of an augmentation.
    devices
        All that may be used.
    """

    splits: Splits
    model: ModelLike
    path: Path
    config: TrainConfig
    engine: str
    jobs: int | None
    stack: int | None
    devices: tuple[str, ...]
    scheduler: str | None
    progress: bool | Callable[[Event], None] | None
    checkpoint_seconds: float
    readers: int | None
    save_weights: bool
    snapshots: tuple[str, ...]

    @classmethod
    def open(
        cls,
        data: Any,
        *,
        model: ModelLike = "mlp",
        path: str | Path | None = None,
        config: TrainConfig | None = None,
        engine: str = "auto",
        jobs: int | None = None,
        stack: int | None = None,
        device: str = "auto",
        scheduler: str | None = None,
        progress: bool | Callable[[Event], None] | None = None,
        checkpoint_seconds: float = 5.0,
        readers: int | None = None,
        save_weights: bool = True,
        snapshots: str | Sequence[str] = (),
        split_seed: int = 0,
        train_size: Size = None,
        val_size: Size = None,
        test_size: Size = None,
        root: str | Path | None = None,
        resize: int | tuple[int, int] | None = None,
        stream: bool | None = None,
        **overrides: Any,
    ) -> Workshop:
        """Check the settings and read the data; nothing is written. The arguments are those of `train_pool`.

        Raises
        ------
        InputError
            If a setting or the data are not as expected.
        """
        settings = with_overrides(config, overrides)
        _check_compute(engine, jobs, stack)
        _check_readers(readers)
        _check_progress(progress)
        interval, further = _checkpoint_seconds(checkpoint_seconds), check_snapshots(snapshots)
        devices = (device,) if scheduler is not None else resolve_devices(device)
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
        return cls(
            splits,
            model,
            Path(path) if path is not None else default_path(splits, model),
            replace(settings, augment=resolve_augment(settings.augment, splits)),
            engine,
            jobs,
            stack,
            devices,
            scheduler,
            progress,
            interval,
            readers,
            save_weights,
            further,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return steps_per_epoch(parts_of(self.splits)[0].n, self.config.batch_size)

    def plan(self, members: Sequence[tuple[Policy, int]]) -> Plan:
        """Resolve policies and name the members; see `plan_members`."""
        return plan_members(self.splits, self.model, members, self.config, snapshots=self.snapshots)

    def pool(self) -> Pool:
        """Open the pool, or make it.

        Raises
        ------
        PoolError
            If the path holds something else, such as a pool on other data.
        """
        from lrensemble.pool import Pool

        splits = self.splits
        return Pool.create(
            self.path,
            name=splits.name,
            fingerprint=splits.fingerprint,
            class_names=splits.class_names,
            labels={"val": splits.val.y, "test": splits.test.y},
            exist_ok=True,
        )

    def train(self, plan: Plan, limits: Limits | None = None, *, until: int | None = None) -> Pool:
        """Train what is missing of a plan and return the pool.

        Parameters
        ----------
        plan
            Which members.
        limits
            What keeps them from being trained whole, if anything does.
        until
            Epoch after which they rest; the same call with a later one, or none, goes on from there, and the outcome is
            that of an uninterrupted training.

        Raises
        ------
        PoolError, TrainingError, KeyboardInterrupt
            As `train_pool`.
        """
        from lrensemble.training.footprint import refuse_hopeless
        from lrensemble.training.task import Setting

        if self.scheduler is None:
            refuse_hopeless(plan.tasks[0], self.splits, self.devices[0])
        pool = self.pool()
        first, *_ = self.devices
        setting = Setting(pool.path.absolute(), first, self.checkpoint_seconds, self.save_weights, self.devices)
        _train_missing(
            pool,
            plan,
            self.splits,
            setting,
            compute={"engine": self.engine, "jobs": self.jobs, "stack": self.stack},
            readers=self.readers,
            scheduler=self.scheduler,
            limits=limits or Limits(),
            until=None if until is None or until >= self.config.epochs else until,
            progress=self.progress,
        )
        pool.refresh_view()
        return pool

    def branch(self, trunk: Task, tasks: Sequence[Task], *, epoch: int) -> None:
        """Let trainings begin where `trunk` rests after `epoch` epochs, with a copy of its state."""
        from lrensemble.training.branch import branch

        branch(self.pool(), trunk, tasks, epoch=epoch, steps=self.steps)

    def look(self, plan: Plan) -> list[Trained]:
        """Return how far each member of a plan has come; one that has not begun is ``"stopped"`` at epoch 0."""
        pool = self.pool()
        stopped, there = {record.id: record for record in pool.stopped()}, set(pool.ids)
        return [_ended(pool, task) if task.id in there else _resting(task, stopped) for task in plan.tasks]


def _ended(pool: Pool, task: Task) -> Trained:
    member = pool.member(task.id)
    loss, accuracy = (tuple(member.history[name].tolist()) for name in ("val_loss", "val_accuracy"))
    facts = (task.id, str(task.policy), task.asked, task.seed, member.status)
    return Trained(*facts, len(loss), task.config.epochs, loss, accuracy, member.seconds)


def _resting(task: Task, stopped: Mapping[str, Any]) -> Trained:
    epochs, known = task.config.epochs, stopped.get(task.id)
    facts = (task.id, str(task.policy), task.asked, task.seed, "stopped")
    if known is None:
        return Trained(*facts, 0, epochs, (), (), 0.0)
    return Trained(*facts, known.epoch, epochs, known.val_loss, known.val_accuracy, known.seconds)


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
    members: Sequence[tuple[Policy, int]],
    config: TrainConfig,
    *,
    snapshots: Sequence[str] = (),
) -> Plan:
    """Resolve every policy for the length of the run, check network and policies, and name the members.

    `members` are policies as asked for, and seeds; two that come to the same in this run are one.

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
    resolved = {
        policy: policy.resolve(total_steps=total, steps_per_epoch=steps)
        for policy in dict.fromkeys(p for p, _ in members)
    }
    first: dict[str, Policy] = {}  # of those that come to the same, the one that was asked for first
    for policy, same in resolved.items():
        first.setdefault(str(same), policy)
    notes = [
        f"{policy} is the same as {first[str(same)]} in {total} steps: trained once"
        for policy, same in resolved.items()
        if first[str(same)] != policy
    ]

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
    wanted = dict.fromkeys((str(resolved[policy]), seed) for policy, seed in members)
    named = {(text, seed): member_id(text, seed, {**shared, "policy": text, "seed": seed}) for text, seed in wanted}
    length = {"epochs": config.epochs, "steps": steps}
    tasks = [
        Task(
            id=named[text, seed],
            policy=resolved[first[text]],
            asked=str(first[text]),
            model=model,
            config=config,
            seed=seed,
            snapshots=plan_snapshots(snapshots, member=named[text, seed], policy=resolved[first[text]], **length),
            **facts,
        )
        for text, seed in wanted
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
    until: int | None,
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

            if until is not None:
                train(plan.tasks, until)
                return
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
