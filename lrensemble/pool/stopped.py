"""`Stopped`: how far a training had come when it was told to rest; kept beside its state, and read without torch.

The file ``resume/<id>.json`` lets `lrensemble inspect` list the member and lets training compare it with others. A
file that cannot be used counts as none: training writes it again.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrensemble.files import write_text_atomic

__all__ = ["Stopped", "read_stopped", "write_stopped"]

VERSION = 1


@dataclass(frozen=True)
class Stopped:
    """A member that rests: its training has been stopped before its end, and can go on.

    Attributes
    ----------
    id, policy, asked, seed
        As of the `Member` that it may become.
    epoch, epochs
        Epochs that it has finished, and was to finish; with folds, those that all its networks have finished.
    val_loss, val_accuracy
        After each finished epoch; NaN where it was not measured.
    seconds
        Time that the training has taken, over all its networks.
    """

    id: str
    policy: str
    asked: str
    seed: int
    epoch: int
    epochs: int
    val_loss: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not len(self.val_loss) == len(self.val_accuracy) == self.epoch <= self.epochs:
            raise ValueError("expected one loss and one accuracy an epoch")

    def info(self) -> dict[str, Any]:
        """Return what `inspect` shows, JSON-ready: the scores after the last epoch."""
        last = {name: getattr(self, name)[-1] if self.epoch else math.nan for name in ("val_loss", "val_accuracy")}
        return asdict(self) | {name: value if math.isfinite(value) else None for name, value in last.items()}


def write_stopped(path: Path, stopped: Stopped) -> None:
    """Write the record atomically."""
    write_text_atomic(path, json.dumps({"version": VERSION, **asdict(stopped)}) + "\n")


def read_stopped(path: Path) -> Stopped | None:
    """Read a record; None when there is none that can be used."""
    try:
        if path.is_symlink():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != VERSION or content["id"] != path.stem:
            return None
        for name in ("val_loss", "val_accuracy"):
            content[name] = tuple(map(float, content[name]))
        for name, kind in (("policy", str), ("asked", str), ("seed", int), ("epoch", int), ("epochs", int)):
            content[name] = kind(content[name])
        content["seconds"] = float(content["seconds"])
        return Stopped(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
