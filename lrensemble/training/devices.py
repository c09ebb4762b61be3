"""Devices of one machine: which a training may use, and which of its processes uses which. Light: torch when asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lrensemble.errors import InputError, first_line

if TYPE_CHECKING:
    from lrensemble.training.task import Setting

__all__ = ["claimed", "resolve_devices"]

_last_slot = 0  # of this process: it stays on its device, where its CUDA context is


def resolve_devices(asked: str) -> tuple[str, ...]:
    """Return the devices to train on, for ``torch.device``.

    Parameters
    ----------
    asked
        ``"auto"``: all GPUs, or the CPU where there is none; ``"cuda"``: all GPUs; ``"cpu"``; ``"cuda:1"``; or several,
        ``"cuda:0,cuda:2"``.

    Raises
    ------
    InputError
        For a device that is not on this machine, or a mixture of CPU and GPU, whose results differ in the last bits.
    """
    import torch

    if asked in ("auto", "cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count > 1:
            return tuple(f"cuda:{index}" for index in range(count))
        asked = "cuda" if count or asked == "cuda" else "cpu"
    names = [name.strip() for name in asked.split(",")]
    try:
        devices = [torch.device(name) for name in names]
        if not {device.type for device in devices} <= {"cpu", "cuda"}:
            raise ValueError("training runs on cpu and cuda")
        for device in devices:
            torch.empty(1, device=device)
    except Exception as error:
        raise InputError(
            f"device: expected cpu, cuda or cuda:N on this machine, got {asked!r} ({first_line(error)})"
        ) from None
    if len({device.type for device in devices}) > 1:
        raise InputError(f"device: expected devices of one kind, got {asked!r}: their results differ in the last bits")
    return tuple(names)


@contextmanager
def claimed(setting: Setting, folder: Path) -> Iterator[Setting]:
    """Yield the setting with a device for this process, the one that the fewest others use.

    Parameters
    ----------
    setting
        With the devices to choose from; slot i is device i modulo their number.
    folder
        That all processes of the run share. A slot is taken by creating its file, which only one process can.
    """
    if len(setting.devices) < 2:
        yield setting
        return
    import torch

    slot = _take_slot(folder)
    device = setting.devices[slot % len(setting.devices)]
    try:
        if torch.device(device).type == "cuda":
            torch.cuda.set_device(device)
        yield replace(setting, device=device)
    finally:
        _slot_file(folder, slot).unlink(missing_ok=True)


def _take_slot(folder: Path) -> int:
    """Take the slot this process had last, or the first that is free."""
    global _last_slot
    for slot in itertools.chain([_last_slot], itertools.count()):
        try:
            _slot_file(folder, slot).touch(exist_ok=False)
        except FileExistsError:
            continue
        _last_slot = slot
        break
    return _last_slot


def _slot_file(folder: Path, slot: int) -> Path:
    return folder / f"device-slot-{slot}"
