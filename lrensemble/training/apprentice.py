"""`Apprentice`: a member from its first step until it is in the pool: build, resume, train, predict, store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from lrensemble.data import Splits
from lrensemble.errors import TrainingError
from lrensemble.metrics import accuracy, nll
from lrensemble.models import architecture_digest, build_model
from lrensemble.pool import Member, Pool, Stopped
from lrensemble.pool.member import Scalar
from lrensemble.predictions import softmax
from lrensemble.training import loop
from lrensemble.training.album import Album, Outputs, outputs_of, until
from lrensemble.training.checkpoint import Built, Checkpoint
from lrensemble.training.folds import Part, join_runs, mean_log_probability, out_of_fold, parts_of
from lrensemble.training.optimizers import build_optimizer
from lrensemble.training.progress import Event, Report
from lrensemble.training.snapshots import Snapshot
from lrensemble.training.task import Setting, Task
from lrensemble.training.training import Run, Samples, Training

__all__ = ["Apprentice", "fresh"]


class Apprentice:
    """A member in the making.

    Attributes
    ----------
    trainings
        For an engine to train; the member is in the pool when they have ended.
    """

    def __init__(
        self, task: Task, splits: Splits, data: Mapping[str, Samples], setting: Setting, report: Report
    ) -> None:
        self._task, self._data, self._setting, self._report = task, data, setting, report
        self._pool = Pool.open(setting.pool)
        self._parts = parts_of(splits)
        self._checkpoints: dict[Training, Checkpoint] = {}
        self._albums: dict[Training, Album] = {}
        self._wanted = [snapshot for snapshot in task.snapshots if snapshot.id not in self._pool]
        self._ended: set[Training] = set()
        self.trainings = [self._begin(part, splits) for part in self._parts]
        self._stop_if_due()

    def _begin(self, part: Part, splits: Splits) -> Training:
        """Build one network, or bring it to where it was."""
        task, data, device = self._task, self._data, torch.device(self._setting.device)
        draw = task.draw if part.fold is None else loop.stable_seed(task.draw, f"fold {part.fold}")
        name = ".".join(filter(None, (task.id, part.name)))
        checkpoint = Checkpoint(self._pool.resume_path(name), name, self._setting.checkpoint_seconds)
        album = Album(self._wanted)
        (model, optimizer), run, note = checkpoint.resume(
            lambda: fresh(task, draw, splits, device), partial(album.restore, epochs=task.config.epochs)
        )
        if note:
            self._report(Event("note", member=task.id, text=note))
        training = Training(
            model,
            optimizer,
            task.policy,
            task.config,
            draw,
            data["train"],
            data["val"],
            rows=None if part.rows is None else torch.from_numpy(part.rows).to(device),
            n=part.n,
            validation_rows=None if part.held_out is None else torch.from_numpy(part.held_out).to(device),
            run=run,
            on_mark=self._on_mark,
            on_epoch=self._on_epoch,
            on_end=self._on_end,
        )
        training.marks = album.marks(training.steps)
        self._checkpoints[training], self._albums[training] = checkpoint, album
        return training

    def _on_mark(self, training: Training, updates: int) -> None:
        self._albums[training].take(training, updates, self._data["test"].x)
        self._store_snapshots()

    def _on_epoch(self, training: Training) -> None:
        self._albums[training].end_epoch(training, self._data["test"].x)
        self._store_snapshots()  # before the state is saved: what that has passed is in the pool then, or in it
        if self._checkpoints[training].due():
            self._save(training)
        self._stop_if_due()
        self._report(self._event("epoch", training.run.to_arrays()))

    def _on_end(self, training: Training) -> None:
        self._ended.add(training)
        if len(self._ended) < len(self.trainings):
            self._save(training)  # its last state, until the others are there
            return
        if not self._is_complete:
            self._rest(training)
            return
        training.sync()
        runs = [training.run for training in self.trainings]
        lost = any(run.diverged for run in runs)
        outputs = [] if lost else [outputs_of(each, each.model, self._data["test"].x) for each in self.trainings]
        member = self._member(self._task.id, outputs, runs, seconds=sum(run.seconds for run in runs))
        if member.id not in self._pool:  # it is there already if it is trained again for its snapshots
            self._add(member, outputs)
        for path in self._pool.resume_paths(self._task.id):
            path.unlink(missing_ok=True)
        self._report(self._event("member", member.history, member.status))

    def _rest(self, training: Training) -> None:
        """Keep the state and record how far it has come."""
        self._save(training)
        task, history = self._task, join_runs(self._parts, [each.run for each in self.trainings])
        curves = {name: tuple(history[name].tolist()) for name in ("val_loss", "val_accuracy")}
        self._pool.add_stopped(
            Stopped(
                task.id,
                policy=str(task.policy),
                asked=task.asked,
                seed=task.seed,
                epoch=len(curves["val_loss"]),
                epochs=task.config.epochs,
                seconds=sum(each.run.seconds for each in self.trainings),
                **curves,
            )
        )
        self._report(self._event("rest", history))

    def _save(self, training: Training) -> None:
        training.sync()
        album = self._albums[training].state()
        self._checkpoints[training].save(training.run, training.model, training.optimizer, album)

    @property
    def _end(self) -> int:
        """Epochs that each network has to finish.

        Once one has diverged, the others come as far as it did, and no further. So whichever is trained first, all have
        finished the epoch in which the first of them diverges.
        """
        ends = [training.run.epoch for training in self.trainings if training.run.diverged]
        return min(ends, default=self._task.config.epochs)

    @property
    def _is_complete(self) -> bool:
        return all(training.run.epoch >= self._end for training in self.trainings)

    def _stop_if_due(self) -> None:
        """Stop networks that are to go no further, or not now."""
        setting = self._setting
        end = self._end if setting.until is None else min(setting.until, self._end)
        for training in self.trainings:
            training.stop |= training.run.epoch >= end or setting.is_late

    def _store_snapshots(self) -> None:
        """Add the snapshots that all networks have taken to the pool."""
        for snapshot in [s for s in self._wanted if all(s.id in album.taken for album in self._albums.values())]:
            outputs = [album.taken.pop(snapshot.id) for album in self._albums.values()]
            runs = [until(snapshot, training) for training in self.trainings]
            extra = {"parent": self._task.id, **snapshot.facts(), "training_seconds": sum(run.seconds for run in runs)}
            member = self._member(snapshot.id, outputs, runs, extra=extra)
            self._add(member, outputs)
            self._wanted.remove(snapshot)
            self._report(self._snapshot_event(member, snapshot))

    def _add(self, member: Member, outputs: Sequence[Outputs]) -> None:
        keep = self._setting.save_weights and member.status == "done"
        self._pool.add(member, self._weights(outputs) if keep else None)

    def _member(
        self,
        name: str,
        outputs: Sequence[Outputs],
        runs: Sequence[Run],
        *,
        seconds: float = 0.0,
        extra: Mapping[str, Scalar] | None = None,
    ) -> Member:
        """Make a member of what its networks say; it has diverged if that is nothing, or not finite."""
        task, logits, k = self._task, self._logits(outputs), len(self._parts)
        if not all(np.isfinite(values).all() for values in logits.values()):
            logits = {}
        predictions = len(logits["val"]) + k * len(logits["test"]) if logits else 1
        used = sum(output.seconds for output in outputs)
        return Member(
            id=name,
            policy=str(task.policy),
            model=task.model_text,
            config=task.config.to_dict(),
            seed=task.seed,
            status="done" if logits else "diverged",
            logits=logits,
            history=join_runs(self._parts, runs),
            seconds=seconds,
            parameters=task.parameters,
            flops=task.flops,
            asked=task.asked,
            extra={
                "architecture": task.architecture,
                "device": torch.device(self._setting.device).type,
                "torch": torch.__version__,
                "seconds_per_sample": k * used / predictions if logits else 0.0,
                **({"folds": k} if k > 1 else {}),
                **(extra or {}),
            },
        )

    def _logits(self, outputs: Sequence[Outputs]) -> dict[str, npt.NDArray[np.float32]]:
        """Logits by split: each held-out sample by the network that has not seen it, each test sample by all."""
        if not outputs:
            return {}
        val, test = zip(*((output.val.numpy(), output.test.numpy()) for output in outputs), strict=True)
        return {"val": out_of_fold(self._parts, val), "test": mean_log_probability(test)}

    def _weights(self, outputs: Sequence[Outputs]) -> dict[str, npt.NDArray]:
        """Of all networks; with folds, each name begins with that of the fold: ``fold0.`` …."""
        return {
            ".".join(filter(None, (part.name, name))): values
            for part, output in zip(self._parts, outputs, strict=True)
            for name, values in output.arrays().items()
        }

    def _event(self, kind: str, history: Mapping[str, npt.NDArray], status: str = "") -> Event:
        """Report how far the member has come; accuracy and loss are the last ones of `history`."""
        loss, accuracy = (float([math.nan, *history[name]][-1]) for name in ("val_loss", "val_accuracy"))
        measured = not math.isnan(loss)
        return Event(
            kind,
            member=self._task.id,
            epoch=sum(training.run.epoch for training in self.trainings),
            epochs=self._task.config.epochs * len(self.trainings),
            status=status,
            val_accuracy=accuracy if measured else None,
            val_loss=loss if measured else None,
            seconds=sum(training.run.seconds for training in self.trainings),
        )

    def _snapshot_event(self, member: Member, snapshot: Snapshot) -> Event:
        event = Event(
            "snapshot", member.id, epoch=snapshot.epoch, epochs=self._task.config.epochs, status=member.status
        )
        if member.status == "diverged":
            return event
        p, y = softmax(member.logits["val"]).astype(np.float64), self._pool.labels("val")
        return replace(event, val_accuracy=accuracy(p, y), val_loss=nll(p, y))


def fresh(task: Task, draw: int, splits: Splits, device: torch.device) -> Built:
    """Build the network, initialised by the seed, and its optimiser."""
    loop.seed_global(loop.stable_seed(draw, "initialisation"), device)
    model = build_model(task.model, splits.input_shape, splits.n_classes)
    if architecture_digest(model) != task.architecture:
        raise TrainingError(
            f"{task.model_text} builds another network than a moment ago: restart Python if you edited it"
        )
    model.to(device)
    if device.type == "cpu" and len(splits.input_shape) == 3:
        _channels_last(model, splits.input_shape)
    return model, build_optimizer(task.config, model.parameters())


def _channels_last(model: torch.nn.Module, input_shape: tuple[int, ...]) -> None:
    """Lay filters out with the channels last in memory, if the network allows: 1.1 to 1.5 times faster on a CPU.

    Values and shapes stay as they are. A network that calls ``view`` on images would fail, so it is tried out.
    """
    model.to(memory_format=torch.channels_last)
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(2, *input_shape))
    except Exception:
        model.to(memory_format=torch.contiguous_format)
