"""How fast each engine trains this network on this machine: a few steps of each, remembered in the user's cache folder.

What is found changes nothing but the choice of engine and the size of a stack. So a cache that is damaged, or cannot be
written, costs a second measurement and no more.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lrensemble.data import AnySplit, Splits
from lrensemble.files import write_text_atomic
from lrensemble.training import loop
from lrensemble.training.apprentice import fresh
from lrensemble.training.config import steps_per_epoch
from lrensemble.training.engines import ENGINES
from lrensemble.training.task import Task
from lrensemble.training.training import Samples, Training

__all__ = ["CACHE_VARIABLE", "WIDTHS", "Paces", "cache_folder", "machine_key", "measure", "read", "slowest", "write"]

CACHE_VARIABLE = "LRENSEMBLE_CACHE"
VERSION = 1
WIDTHS = {"cpu": (4, 8, 16), "cuda": (8, 32, 128)}  # stacks that are tried, in this order
LEAST_STEPS, MOST_STEPS = 3, 20  # the first one warms up
WORTHWHILE = 1.05  # a wider stack has to be this much faster: it takes more memory and divides less evenly


@dataclass(frozen=True)
class Paces:
    """Seconds that a step of one network takes.

    Attributes
    ----------
    loop
        By the reference loop.
    stacked
        In a stack, by the number of its networks; empty when there was no time to try one.
    """

    loop: float
    stacked: Mapping[int, float]

    @property
    def stack(self) -> int | None:
        """The narrowest stack that is about as fast as any."""
        least = min(self.stacked.values(), default=math.inf)
        return next((width for width in sorted(self.stacked) if self.stacked[width] <= WORTHWHILE * least), None)

    @property
    def gain(self) -> float:
        """How many times faster than the loop the best stack is; NaN when none was tried."""
        return self.loop / self.stacked[self.stack] if self.stack else math.nan


def measure(task: Task, splits: Splits, device: str, widths: Sequence[int], seconds: float) -> Paces | None:
    """Time the loop, then stacks of `widths` networks, for about `seconds`; None when that is too short.

    The networks, their optimisers and the samples are of this measurement alone. Each candidate's time is the shortest
    of a few steps: other programs make a step longer, never shorter.
    """
    where = torch.device(device)
    with loop.controlled(where):
        fresh(task, 0, splits, where)  # the first optimiser of a process imports parts of torch
        end = time.perf_counter() + seconds
        alone = _step_seconds("loop", 1, LEAST_STEPS, task, splits, where, end)
        if not math.isfinite(alone):
            return None
        stacked: dict[int, float] = {}
        for width in widths:
            expected = width * min([alone, *stacked.values()])  # of one step
            steps = min(MOST_STEPS, int((end - time.perf_counter()) / 2 / expected))
            if steps < LEAST_STEPS:
                break
            stacked[width] = _step_seconds("stacked", width, steps, task, splits, where, end) / width
    return Paces(alone, {width: pace for width, pace in stacked.items() if math.isfinite(pace)})


class _TimeIsUp(BaseException):
    """Ends a measurement from within an engine."""


def _step_seconds(
    engine: str, width: int, steps: int, task: Task, splits: Splits, device: torch.device, end: float
) -> float:
    """Shortest step of a stack of `width` networks; infinite when the time was up before there were two."""
    times: list[float] = []

    def look(training: Training, updates: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())
        if times[-1] > end:
            raise _TimeIsUp

    n = min(len(splits.train), steps * task.config.batch_size)
    data, validation = _first(splits.train, n, device), _first(splits.val, 2, device)
    config = replace(task.config, epochs=-(-steps // steps_per_epoch(n, task.config.batch_size)))
    with suppress(_TimeIsUp):
        built = [fresh(task, draw, splits, device) for draw in range(width)]
        trainings = [Training(*pair, task.policy, config, draw, data, validation) for draw, pair in enumerate(built)]
        trainings[0].marks, trainings[0].on_mark = frozenset(range(1, steps + 1)), look
        ENGINES[engine].train(trainings)
    return min((after - before for before, after in itertools.pairwise(times)), default=math.inf)


def _first(split: AnySplit, n: int, device: torch.device) -> Samples:
    x = torch.from_numpy(split.read(slice(0, n)))
    return Samples(x.to(device, copy=True), torch.tensor(split.y[:n], device=device))


def slowest(found: Sequence[Paces]) -> Paces:
    """Join what processes measured at the same time: each candidate's longest time."""
    widths = set.intersection(*(set(paces.stacked) for paces in found))
    return Paces(
        max(paces.loop for paces in found), {width: max(paces.stacked[width] for paces in found) for width in widths}
    )


def machine_key(task: Task, splits: Splits, device: str, jobs: int) -> dict[str, Any]:
    """All that decides how fast a network is trained here."""
    config = task.config
    return {
        "architecture": task.architecture,
        "input_shape": list(splits.input_shape),
        "classes": splits.n_classes,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "clip": config.clip_norm is not None,
        "precision": config.precision,
        "augment": config.augment,
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else _processor(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "jobs": jobs,
        "version": VERSION,
    }


def _processor() -> str:
    """Name of the processor, as far as the system tells."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
    import platform

    return platform.processor() or platform.machine()


def cache_folder() -> Path:
    """Folder of what may be computed again: ``LRENSEMBLE_CACHE``, or ``lrensemble`` in the user's cache folder."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "lrensemble"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/lrensemble"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrensemble"


def read(key: Mapping[str, Any]) -> Paces | None:
    """Return what was measured before under `key`; None when there is nothing that can be used."""
    with suppress(Exception):  # whatever is wrong with the file, or with the folder
        content = json.loads(_file(key).read_text(encoding="utf-8"))
        stacked = {int(width): float(pace) for width, pace in content["stacked"].items()}
        paces = Paces(float(content["loop"]), stacked)
        if all(0 < pace < math.inf for pace in (paces.loop, *stacked.values())) and min(stacked, default=1) > 0:
            return paces
    return None


def write(key: Mapping[str, Any], paces: Paces) -> None:
    """Keep what was measured; silently nothing where that cannot be."""
    with suppress(Exception):
        content = {"loop": paces.loop, "stacked": paces.stacked, "key": key}
        write_text_atomic(_file(key), json.dumps(content, indent=1) + "\n")


def _file(key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "paces" / f"{digest[:32]}.json"
