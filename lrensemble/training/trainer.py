"""`train_pool`: a pool of networks, one under each learning-rate policy and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrensemble.errors import InputError, TrainingError
from lrensemble.models import ModelLike
from lrensemble.policies import Policy, resolve_policies
from lrensemble.training.budget import Budget, Limits, check_budget
from lrensemble.training.config import TrainConfig, with_overrides
from lrensemble.training.halving import Halving, check_halving
from lrensemble.training.progress import Event
from lrensemble.training.rates import auto_range, with_default
from lrensemble.training.workshop import Size, Workshop

if TYPE_CHECKING:
    from lrensemble.pool import Pool
    from lrensemble.training.task import Task

__all__ = ["list_seeds", "train_pool"]

MOST_SEEDS = 100_000

Policies = str | Policy | Mapping[str, Any] | Sequence[str | Policy | Mapping[str, Any]]


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
        ``"auto"`` is the default preset over a range that short trainings find for this network, data, optimiser and
        batch size; they are kept beside the pool (``docs/range-test.md``).
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
    seed_list = list_seeds(seeds)
    rivalry, seconds = check_halving(halving), check_budget(budget)
    wanted, automatic = with_default(policies, lr_range)
    asked = resolve_policies(wanted, optimizer=settings.optimizer, lr_range=lr_range)
    shop = Workshop.open(
        data,
        model=model,
        path=path,
        config=settings,
        engine=engine,
        jobs=jobs,
        stack=stack,
        device=device,
        scheduler=scheduler,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
        train_size=train_size,
        val_size=val_size,
        test_size=test_size,
        split_seed=split_seed,
        root=root,
        resize=resize,
        stream=stream,
        readers=readers,
        save_weights=save_weights,
        snapshots=snapshots,
    )
    if automatic:
        asked = resolve_policies(wanted, optimizer=settings.optimizer, lr_range=auto_range(shop))
    plan = shop.plan([(policy, seed) for seed in seed_list for policy in asked])
    limits = Limits(rivalry, None if seconds is None else Budget(seconds))
    pool = shop.train(plan, limits)
    _refuse_none_finished(pool, plan.tasks, limits)
    return pool


def list_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds that are asked for: 0 … N − 1 for a number N, or those of a list.

    Raises
    ------
    InputError
        For none, too many, one given twice, or something else.
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds <= MOST_SEEDS:
        listed = list(range(seeds))
    else:
        listed = list(seeds) if isinstance(seeds, Sequence) and not isinstance(seeds, str) else []
    if not listed or len(set(listed)) < len(listed) or not all(type(seed) is int for seed in listed):
        raise InputError(f"seeds: expected a number from 1 to {MOST_SEEDS:,} or different whole numbers, got {seeds!r}")
    return listed


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
