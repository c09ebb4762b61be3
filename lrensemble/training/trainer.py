"""`train_pool`: a pool of networks, one under each learning-rate policy and seed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrensemble.data import Splits, load_data, resolve_augment
from lrensemble.errors import InputError, TrainingError, first_line
from lrensemble.models import ModelLike, architecture_digest, build_model, check_model, count_flops, count_parameters
from lrensemble.models import model_name as name_of_model
from lrensemble.policies import Policy, resolve_policies
from lrensemble.training.config import TrainConfig, steps_per_epoch, with_overrides
from lrensemble.training.progress import Event, Report, reporter

if TYPE_CHECKING:
    from lrensemble.pool import Pool
    from lrensemble.training.worker import Setting, Task

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
    jobs: int | None = None,
    device: str = "auto",
    progress: bool | Callable[[Event], None] | None = None,
    checkpoint_seconds: float = 5.0,
    lr_range: Sequence[float] | None = None,
    train_size: Size = None,
    val_size: Size = None,
    test_size: Size = None,
    split_seed: int = 0,
    root: str | Path | None = None,
    resize: int | tuple[int, int] | None = None,
    save_weights: bool = True,
    **overrides: Any,
) -> Pool:
    """Train one network under each policy with each seed, and keep what they predict in a pool.

    What is in the pool already is not trained again, and a training that was interrupted goes on from its last saved
    state: the same call resumes. On a CPU the pool's contents depend neither on `jobs` nor on interruptions, bit for
    bit (seconds apart).

    Parameters
    ----------
    data
        Name, path, arrays or `Splits`; see `load_data`, which is also given the sizes, `split_seed`, `root`
        and `resize`.
    model
        Name with options, ``package.module:function``, or a function; see `build_model`.
    policies
        Presets and policies; see `resolve_policies`, which is also given `lr_range`, the range of base rates.
    seeds
        Seeds 0 … N − 1 for a number N, or the seeds themselves.
    path
        Directory of the pool; ``checkpoints/<data>-<model>`` when None.
    config, **overrides
        Settings; single fields of `TrainConfig` can be given by name: ``epochs=5``.
    jobs
        Members trained at once, each with one CPU thread. By default one a processor core on a CPU, one on a GPU.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` takes a GPU if there is one.
    progress
        None or True: a live bar on stderr, or plain lines where that is no terminal; False: silent; or a function that
        is given every `Event`.
    checkpoint_seconds
        Least time between two savings of a member's state; 0 saves after every epoch. The environment variable
        ``LRENSEMBLE_CHECKPOINT_SECONDS`` wins over it.
    save_weights
        Whether to keep the networks' weights.

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
        If a member fails, a worker is lost, or all members diverge. What was finished is kept.
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
    _check_jobs_and_progress(jobs, progress)
    where = _device(device)
    asked = resolve_policies(policies, optimizer=settings.optimizer, lr_range=lr_range)
    splits = load_data(
        data,
        train_size=train_size,
        val_size=val_size,
        test_size=test_size,
        split_seed=split_seed,
        root=root,
        resize=resize,
    )
    settings = replace(settings, augment=resolve_augment(settings.augment, splits))
    plan = plan_members(splits, model, asked, seed_list, settings)

    from lrensemble.pool import Pool
    from lrensemble.training.worker import Setting

    pool = Pool.create(
        path if path is not None else default_path(splits, model),
        name=splits.name,
        fingerprint=splits.fingerprint,
        class_names=splits.class_names,
        labels={"val": splits.val.y, "test": splits.test.y},
        exist_ok=True,
    )
    setting = Setting(pool.path.absolute(), where, interval, save_weights)
    _train_missing(pool, plan, splits, setting, jobs=jobs, progress=progress)
    pool.refresh_view()
    _refuse_all_diverged(pool, {task.id for task in plan.tasks})
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
    splits: Splits, model: ModelLike, policies: Sequence[Policy], seeds: Sequence[int], config: TrainConfig
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
    from lrensemble.training.worker import Task

    steps = steps_per_epoch(len(splits.train), config.batch_size)
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
        "parameters": count_parameters(network),
        "flops": count_flops(network, splits.input_shape),
    }
    shared = {
        "model": facts["model_text"],
        "architecture": facts["architecture"],
        "data": splits.fingerprint,
        "config": config.to_dict(),
    }
    tasks = [
        Task(
            id=member_id(text, seed, {**shared, "policy": text, "seed": seed}),
            policy=policy,
            asked=asked,
            model=model,
            config=config,
            seed=seed,
            **facts,
        )
        for seed in seeds
        for text, (policy, asked) in texts.items()
    ]
    return Plan(tuple(tasks), tuple(notes))


def _train_missing(
    pool: Pool,
    plan: Plan,
    splits: Splits,
    setting: Setting,
    *,
    jobs: int | None,
    progress: bool | Report | None,
) -> None:
    from lrensemble.training.executor import train_members

    missing = [task for task in plan.tasks if task.id not in pool]
    _remove_leftovers(pool, {task.id for task in plan.tasks} - {task.id for task in missing})
    total, done = len(plan.tasks), len(plan.tasks) - len(missing)
    there = [f"{pool.path}: {done} of {total} members are there already"] if done else []
    epochs = plan.tasks[0].config.epochs
    with reporter(progress, members=total, done=done, epochs=epochs, n_train=len(splits.train)) as report:
        for note in (*plan.notes, *there):
            report(Event("note", text=note))
        if missing:
            n_jobs = min(jobs if jobs is not None else _default_jobs(setting.device), len(missing))
            train_members(missing, splits, setting, jobs=n_jobs, report=report, done=done)


def _remove_leftovers(pool: Pool, members: set[str]) -> None:
    """Delete the states of members that are there: of a training that was killed between storing it and clearing up."""
    for member in members:
        with suppress(OSError):
            pool.resume_path(member).unlink(missing_ok=True)


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds <= MOST_SEEDS:
        listed = list(range(seeds))
    else:
        listed = list(seeds) if isinstance(seeds, Sequence) and not isinstance(seeds, str) else []
    if not listed or len(set(listed)) < len(listed) or not all(type(seed) is int for seed in listed):
        raise InputError(f"seeds: expected a number from 1 to {MOST_SEEDS:,} or different whole numbers, got {seeds!r}")
    return listed


def _check_jobs_and_progress(jobs: Any, progress: Any) -> None:
    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1):
        raise InputError(f"jobs: expected a whole number ≥ 1, got {jobs!r}")
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


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise ValueError("training runs on cpu and cuda")
        torch.empty(1, device=device)
    except Exception as error:
        raise InputError(
            f"device: expected cpu, cuda or cuda:N on this machine, got {name!r} ({first_line(error)})"
        ) from None
    return name


def _default_jobs(device: str) -> int:
    import joblib

    return joblib.cpu_count() if device == "cpu" else 1


def _refuse_all_diverged(pool: Pool, asked: set[str]) -> None:
    if all(summary.status == "diverged" for summary in pool.summaries() if summary.id in asked):
        raise TrainingError(
            f"{pool.path}: all {len(asked)} members diverged (loss infinite or NaN): use lower learning rates"
        )
