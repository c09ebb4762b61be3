"""Which engine trains the members, how many networks a stack, in how many processes.

The engine decides the last bits of a pool, so it is chosen by the network and the machine alone, and kept: once
members of a kind have been begun, the pool's folder says by which engine. Stack and processes decide nothing but the
time, since an engine gives a network the same numbers whatever company it has, so they may be chosen anew each time.

A process has one CPU thread. Several would help only a network that is too large for as many processes as there are
cores, and sums would be added up in another order: the numbers would depend on the machine's number of cores.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lrensemble.data import Split, Splits
from lrensemble.errors import PoolError
from lrensemble.files import write_text_atomic
from lrensemble.models import build_model
from lrensemble.training import calibrate, loop
from lrensemble.training.calibrate import Paces
from lrensemble.training.config import steps_per_epoch
from lrensemble.training.engines import ENGINES
from lrensemble.training.executor import in_workers
from lrensemble.training.folds import parts_of
from lrensemble.training.footprint import footprint, free_on
from lrensemble.training.task import Setting, Task

__all__ = ["Schedule", "chunks_of", "schedule"]

USUAL_STACK = {"cpu": 8, "cuda": 32}  # when nothing is measured
LOOP_AHEAD = 1.1  # the loop must be this much faster to be preferred: a race that is close is decided by chance
START_SECONDS = 2.5  # to start processes: each imports PyTorch
MOST_SECONDS, SHARE, LEAST_SECONDS = 2.0, 0.03, 0.3  # of a measurement: at most, of the whole, and worth beginning
ROUGHLY = {"cpu": (2e-11, 4e-4), "cuda": (1e-13, 1e-3)}  # seconds a floating-point operation, and a step besides
RECORD = "resume/.engines.json"  # in the pool


@dataclass(frozen=True)
class Schedule:
    """How members are trained.

    Attributes
    ----------
    engine
        A name in ``ENGINES``.
    stack
        Networks that are trained together at most; 1 for the loop.
    jobs
        Processes; 1 is this process.
    notes
        What is worth saying about it, a sentence each.
    """

    engine: str
    stack: int
    jobs: int
    notes: tuple[str, ...] = ()


def schedule(
    tasks: Sequence[Task],
    splits: Splits,
    setting: Setting,
    *,
    engine: str = "auto",
    jobs: int | None = None,
    stack: int | None = None,
    unit: str = "",
) -> Schedule:
    """Choose what was not asked for.

    Parameters
    ----------
    tasks
        Members of one network, data set and config, at least one.
    splits, setting
        On which data, and where.
    engine
        A name in ``ENGINES``, or ``"auto"``: the engine with which the pool has begun; else ``"stacked"``, where the
        network can be stacked and the loop is not faster. A network that cannot be stacked is trained by the loop, and
        a note names the layer.
    jobs
        Processes; when None, one a physical core and at most one a member, this process alone where the work is shorter
        than starting others, and one on a GPU.
    stack
        Networks a stack; when None, as many as pay and fit into memory.
    unit
        What to call those that train, in the notes, where they are no processes of this machine: ``"worker"``.
    """
    kind = torch.device(setting.device).type
    processes = _processes(tasks, splits, setting) if jobs is None else min(jobs, len(tasks))
    widest = -(-len(tasks) // processes) * len(parts_of(splits))
    obstacle = "" if engine == "loop" else _obstacle(tasks[0], splits)
    chosen = "loop" if obstacle else _begun_with(setting.pool, tasks[0], kind) if engine == "auto" else engine

    paces = None
    if chosen != "loop" and stack is None:
        paces = _paces(tasks, splits, setting.device, processes, widest)
    if not chosen:
        chosen = "loop" if paces is not None and paces.gain * LOOP_AHEAD < 1 else "stacked"
    _keep(setting.pool, tasks[0], kind, chosen)

    networks = 1 if chosen == "loop" else min(stack or (paces and paces.stack) or USUAL_STACK[kind], widest)
    asked = Schedule(chosen, networks, processes)
    plan = _fitting(asked, tasks[0], splits, setting, change=(stack is None, jobs is None))
    squeezed = ("less is trained at once than would be fastest: memory is short",) if plan != asked else ()
    return replace(plan, notes=(*squeezed, _line(plan, unit, obstacle, paces)))


def chunks_of(tasks: Sequence[Task], plan: Schedule, networks: int = 1) -> list[list[Task]]:
    """Divide members into chunks for the schedule's processes, so that all of these end at about the same time.

    Parameters
    ----------
    networks
        Networks of each member.

    Examples
    --------
    >>> [len(chunk) for chunk in chunks_of(range(20), Schedule("stacked", stack=8, jobs=2))]
    [5, 5, 5, 5]
    >>> [len(chunk) for chunk in chunks_of(range(3), Schedule("stacked", stack=8, jobs=2))]
    [2, 1]
    """
    most = max(1, plan.stack // networks)  # members a chunk
    rounds = -(-len(tasks) // (most * plan.jobs))
    count = min(len(tasks), rounds * plan.jobs)
    small, larger = divmod(len(tasks), count)
    ends = [(i + 1) * small + min(i + 1, larger) for i in range(count)]
    return [list(tasks[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _processes(tasks: Sequence[Task], splits: Splits, setting: Setting) -> int:
    """Return how many processes pay: one a core, one a GPU; this one alone where the work is short."""
    if torch.device(setting.device).type != "cpu":
        return min(max(1, len(setting.devices)), len(tasks))
    count = min(_cores(), len(tasks))
    return 1 if _seconds(tasks, splits, "cpu") * (1 - 1 / count) < START_SECONDS else count


def _cores() -> int:
    """Physical cores that this process may use: two threads of one core share what computes."""
    import joblib

    with warnings.catch_warnings():  # where the system does not tell: all cores
        warnings.simplefilter("ignore")
        return joblib.cpu_count(only_physical_cores=True)


def _seconds(tasks: Sequence[Task], splits: Splits, kind: str) -> float:
    """Rough time of the whole work in one process; from numbers alone, so that it is the same each time."""
    config, parts = tasks[0].config, parts_of(splits)
    steps = len(tasks) * config.epochs * steps_per_epoch(parts[0].n, config.batch_size)
    per_flop, per_step = ROUGHLY[kind]
    return steps * (3 * tasks[0].flops * config.batch_size * per_flop + len(parts) * per_step)


def _obstacle(task: Task, splits: Splits) -> str:
    """Why members cannot be stacked; empty when they can."""
    if not splits.resident:
        return "samples that are read when they are needed are not shared by a stack"
    from lrensemble.stacked import unsupported

    with loop.controlled(torch.device("cpu")):  # building draws random numbers
        found = unsupported(build_model(task.model, splits.input_shape, splits.n_classes), splits.input_shape)
    return found or ""


def _paces(tasks: Sequence[Task], splits: Splits, device: str, jobs: int, widest: int) -> Paces | None:
    """Read or measure how fast the engines are; None where the work is too short to find out, or nothing is found."""
    kind = torch.device(device).type
    candidates = [width for width in calibrate.WIDTHS[kind] if width <= widest]
    key = calibrate.machine_key(tasks[0], splits, device, jobs) | {"stacks": candidates}
    if known := calibrate.read(key):
        return known
    seconds = min(MOST_SECONDS, SHARE * _seconds(tasks, splits, kind) / jobs)
    if seconds < LEAST_SECONDS or not candidates:
        return None
    arguments = (tasks[0], _excerpt(splits, tasks[0].config.batch_size), device, candidates, seconds)
    with suppress(Exception):  # whatever goes wrong is told when training meets it
        alone = jobs == 1 or kind == "cuda"  # processes on GPUs do not slow each other down
        found = [calibrate.measure(*arguments)] if alone else in_workers(calibrate.measure, *arguments, jobs=jobs)
        if measured := [paces for paces in found if paces is not None]:
            paces = calibrate.slowest(measured)
            if seconds == MOST_SECONDS or len(paces.stacked) == len(candidates):
                calibrate.write(key, paces)
            return paces
    return None


def _excerpt(splits: Splits, batch_size: int) -> Splits:
    """Enough samples to measure with."""
    some, few = slice(0, calibrate.MOST_STEPS * batch_size), slice(0, 2)
    train = Split(splits.train.read(some), splits.train.y[some])
    val = Split(splits.val.read(few), splits.val.y[few])
    return Splits("excerpt", train, val, val, splits.class_names, fingerprint="excerpt")


def _fitting(plan: Schedule, task: Task, splits: Splits, setting: Setting, *, change: tuple[bool, bool]) -> Schedule:
    """Make the stack smaller, then the processes fewer, until all fit into memory, where they may be changed."""
    if not any(change):
        return plan
    try:
        needed = footprint(task, splits, setting.device)
    except Exception:  # a network that cannot learn from a few samples: training may still be possible
        return plan
    free, devices = free_on(setting.device), max(1, len(setting.devices))
    stack, jobs = plan.stack, plan.jobs
    if change[0]:
        stack = max(1, min(stack, needed.widest(free, -(-jobs // devices))))
    while change[1] and jobs > 1 and needed.widest(free, -(-jobs // devices)) < stack:
        jobs -= 1
    return Schedule(plan.engine, stack, jobs)


def _line(plan: Schedule, unit: str, obstacle: str, paces: Paces | None) -> str:
    """Return the schedule and its reason in one line."""
    parts = [f"engine {plan.engine}"]
    if plan.stack > 1:
        parts.append(f"{plan.stack} networks a stack")
    plural = f"{plan.jobs} {unit}s" if unit else f"{plan.jobs} processes"
    parts.append(plural if plan.jobs > 1 else f"1 {unit}" if unit else "in this process")
    gain = paces.gain if paces is not None else math.nan
    reason = obstacle if math.isnan(gain) else f"measured: stacked is {gain:.1f}× the loop"
    return ", ".join(parts) + (f" ({reason})" if reason else "")


def _begun_with(pool: Path, task: Task, kind: str) -> str:
    """Return the engine by which members of this kind were begun in the pool; empty when there are none."""
    engine = _records(pool).get(_kind_of(task, kind))
    return engine if engine in ENGINES else ""


def _keep(pool: Path, task: Task, kind: str, engine: str) -> None:
    """Record the engine in the pool's folder; without the record, the next call chooses again."""
    records, name = _records(pool), _kind_of(task, kind)
    if records.get(name) != engine:
        with suppress(PoolError):
            write_text_atomic(pool / RECORD, json.dumps({**records, name: engine}, indent=1) + "\n")


def _records(pool: Path) -> dict[str, Any]:
    try:
        found = json.loads((pool / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _kind_of(task: Task, kind: str) -> str:
    """Name of all members that differ by policy and seed only."""
    what = json.dumps([task.architecture, task.config.to_dict(), kind], sort_keys=True)
    return f"{task.model_text} {hashlib.sha256(what.encode()).hexdigest()[:16]}"
