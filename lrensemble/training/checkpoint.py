"""State of a training under way: saved now and then, so that a training that is interrupted goes on exactly.

The file is a SHA-256 in hexadecimal digits, a line feed, and what ``torch.save`` writes. Reading runs no code
(``weights_only``), and a file that is damaged, of another version or of another training counts as none.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from lrensemble.errors import first_line
from lrensemble.files import write_bytes_atomic
from lrensemble.training.training import Run

__all__ = ["Built", "Checkpoint"]

Built: TypeAlias = "tuple[nn.Module, torch.optim.Optimizer]"

VERSION = 1
DIGEST_LENGTH = 64


class Checkpoint:
    """Where a member's state is kept, and when it is due to be saved again.

    Attributes
    ----------
    path
        The file.
    member
        Name of the member, a hash of all that decides the outcome: a state under this name fits this training.
    seconds
        Least time between two savings; 0 saves after every epoch.
    """

    def __init__(self, path: Path, member: str, seconds: float) -> None:
        self.path = path
        self.member = member
        self.seconds = seconds
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved >= self.seconds

    def save(
        self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, album: Mapping[str, Any] | None = None
    ) -> None:
        """Write the state after an epoch, and that of its snapshots, atomically."""
        state = {
            "version": VERSION,
            "member": self.member,
            "run": vars(run),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "album": album or {},
        }
        self._write(state)
        self._saved = time.monotonic()

    def hand_on(self, heir: Checkpoint, *, epoch: int) -> None:
        """Write this state, without its snapshots, as that of another training, which would have come to the same.

        Nothing is written where this is no state after so many epochs: the other training then begins at its start.
        """
        try:
            state = self._read()
        except Exception:  # whatever is wrong with the state
            return
        if state is not None and state["run"]["epoch"] == epoch:
            heir._write({**state, "member": heir.member, "album": {}})

    def resume(
        self, fresh: Callable[[], Built], restore: Callable[[Mapping[str, Any], Run], None] = lambda album, run: None
    ) -> tuple[Built, Run, str]:
        """Build network and optimiser with `fresh` and bring them to where they were when the state was saved.

        Parameters
        ----------
        fresh
            Builds them anew.
        restore
            Is given the state of the snapshots and how far the training had come; raises where they do not fit.

        Returns
        -------
        built, run, note
            As new, with a fresh run, where there is no state that can be used; the note then says why. It is empty
            otherwise, and where there is no state at all.
        """
        model, optimizer = fresh()
        try:
            state = self._read()
            if state is None:
                return (model, optimizer), Run(), ""
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            run = Run(**state["run"])
            restore(state.get("album", {}), run)
            return (model, optimizer), run, ""
        except Exception as error:  # whatever is wrong with the state, training can start over
            return (
                fresh(),
                Run(),
                f"{self.path}: the saved state cannot be used ({first_line(error):.120}): training starts over",
            )

    def remove(self) -> None:
        """Delete the state: the member is done."""
        self.path.unlink(missing_ok=True)

    def _write(self, state: Mapping[str, Any]) -> None:
        content = io.BytesIO()
        torch.save(dict(state), content)
        payload = content.getvalue()
        write_bytes_atomic(self.path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)

    def _read(self) -> dict[str, Any] | None:
        if self.path.is_symlink():
            raise ValueError("it is a link")
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        digest, payload = content[:DIGEST_LENGTH], content[DIGEST_LENGTH + 1 :]
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            raise ValueError("its checksum is wrong")
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        for key, expected in (("version", VERSION), ("member", self.member)):
            if state.get(key) != expected:
                raise ValueError(f"expected {key} {expected}, found {state.get(key)!s:.60}")
        return state
