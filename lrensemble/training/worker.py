"""What a process does: it trains a chunk of members together by one of the engines."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from lrensemble.data import Splits
from lrensemble.errors import LREnsembleError, TrainingError, first_line
from lrensemble.training import loop
from lrensemble.training.apprentice import Apprentice
from lrensemble.training.batches import samples_on
from lrensemble.training.engines import ENGINES
from lrensemble.training.folds import parts_of
from lrensemble.training.progress import Event, Report
from lrensemble.training.task import Setting, Task

__all__ = ["is_out_of_memory", "train_chunk"]

OUT_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "bad_alloc", "could not create a memory object")


def train_chunk(
    tasks: Sequence[Task], splits: Splits, setting: Setting, report: Report, *, engine: str = "loop"
) -> None:
    """Train members together in this process and add each to the pool as soon as it is done.

    When memory does not suffice, half as many networks are trained at once and go on from their last saved states: down
    to one, in the end by the loop. A note is reported each time.

    Parameters
    ----------
    tasks
        The members: of one network, data set and config.
    splits, setting
        On which data, and where.
    report
        Given every event; those of kind ``"member"`` without the counts.
    engine
        A name in ``ENGINES``.

    Raises
    ------
    TrainingError
        If anything goes wrong; the message names the member, or the first of them.
    """
    name = f"member '{tasks[0].id}'" + (f" and {len(tasks) - 1} trained with it" if len(tasks) > 1 else "")
    at_once = 1 if engine == "loop" else len(tasks) * len(parts_of(splits))
    left = tasks
    ended: set[str] = set()

    def noted(event: Event) -> None:
        if event.kind in ("member", "rest"):
            ended.add(event.member)
        report(event)

    while not _fits(name, left, splits, setting, noted, engine, at_once):
        if engine == "loop":
            advice = "use fewer jobs, a smaller batch or a smaller network; finished members are kept"
            raise TrainingError(f"{name}: out of memory on {setting.device}: {advice}")
        engine, at_once = (engine, at_once // 2) if at_once > 1 else ("loop", 1)
        how = f"with {at_once} networks at once" if engine != "loop" else "one by one, by the loop"
        report(Event("note", member=tasks[0].id, text=f"{name}: out of memory on {setting.device}: going on {how}"))
        gc.collect()
        if torch.device(setting.device).type == "cuda":
            torch.cuda.empty_cache()
        left = [task for task in left if task.id not in ended]


def _fits(
    name: str, tasks: Sequence[Task], splits: Splits, setting: Setting, report: Report, engine: str, at_once: int
) -> bool:
    """Train members; False when memory does not suffice: whatever the attempt had in it is then free again."""
    try:
        _train(tasks, splits, setting, report, engine, at_once)
    except LREnsembleError as error:
        raise TrainingError(f"{name}: {error}") from error
    except Exception as error:
        if not is_out_of_memory(error):
            reason = f"training failed ({type(error).__name__}: {first_line(error)})"
            raise TrainingError(f"{name}: {reason}") from error
        return False
    return True


def _train(tasks: Sequence[Task], splits: Splits, setting: Setting, report: Report, engine: str, at_once: int) -> None:
    """Train members, at most `at_once` networks together, and hold no more of them in memory than that."""
    device = torch.device(setting.device)
    with loop.controlled(device), samples_on(device, splits, setting.readers) as data:
        members = max(1, at_once // len(parts_of(splits)))
        for start in range(0, len(tasks), members):
            if setting.is_late:
                return
            group = [Apprentice(task, splits, data, setting, report) for task in tasks[start : start + members]]
            trainings = [training for apprentice in group for training in apprentice.trainings]
            for first in range(0, len(trainings), at_once):
                ENGINES[engine].train(trainings[first : first + at_once])


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is used up: of Python or NumPy, of CUDA, of torch's or oneDNN's allocation."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)
