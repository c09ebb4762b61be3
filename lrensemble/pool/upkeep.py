"""Keeping a pool in order: set damaged files aside, refuse strange directories, read everything to verify it."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lrensemble.errors import InputError, LREnsembleError, PoolError
from lrensemble.pool.problems import FileDamageError, Problem

if TYPE_CHECKING:
    from lrensemble.pool.pool import Pool

__all__ = ["FOLDERS", "refuse_foreign", "refuse_links", "set_aside", "verify"]

FOLDERS = ("members", "weights", "resume", "damaged", "ensembles", "reports")
STALE_SECONDS = 3600.0  # a temporary file older than this belongs to no writer that is still alive


def set_aside(root: Path, path: Path, problem: Problem) -> Problem:
    """Move a damaged file to ``damaged/`` and say so in the problem; a pool that cannot be written is left as it is."""
    target = root / "damaged" / path.name
    try:
        target.parent.mkdir(exist_ok=True)
        copies = 0
        while os.path.lexists(target):
            copies += 1
            target = target.with_name(f"{path.name}.{copies}")
        path.rename(target)
    except OSError as error:
        return replace(problem, action=f"left out; it cannot be moved: {error.strerror}")
    return replace(problem, action=f"set aside as damaged/{target.name}")


def refuse_links(root: Path) -> None:
    """Raise `PoolError` if a folder of the pool is a link that leads out of it."""
    inside = root.resolve()
    for name in FOLDERS:
        if not (root / name).resolve().is_relative_to(inside):
            raise PoolError(f"{root / name}: expected a folder, found a link that leads out of the pool: copy it in")


def refuse_foreign(root: Path) -> None:
    """Raise `PoolError` unless a pool can be made here: nothing there yet, or nothing but parts of a pool."""
    try:
        strange = [
            name for name in os.listdir(root) if name not in (*FOLDERS, "pool.h5", "experiment.toml") and name[0] != "."
        ]
    except FileNotFoundError:
        return
    except OSError as error:
        raise PoolError(f"{root}: expected a directory for the pool, got something else ({error.strerror})") from None
    if strange:
        raise PoolError(f"{root}: expected an empty directory, found '{min(strange)}' in it: choose another path")
    refuse_links(root)


def verify(pool: Pool, record: Callable[[Problem], object]) -> None:
    """Read every file of the pool whole and record what is wrong; see `Pool.verify`."""
    _try(partial(type(pool).open, pool.path), "pool.h5", record)
    for name in pool.ids:  # listing them records members whose attributes are damaged
        try:
            pool.member(name)
        except (FileDamageError, InputError):
            continue  # recorded by the pool, or gone since
    for summary in pool.summaries():
        if summary.has_weights:
            _try(partial(pool.weights, summary.id), f"weights/{summary.id}.safetensors", record)
    for name in pool.ensembles:
        _try(partial(_check_ensemble, pool, name), f"ensembles/{name}.json", record)
    _try(lambda: tomllib.loads(pool.experiment or ""), "experiment.toml", record)
    for path in _stale_files(pool.path):
        where = path.relative_to(pool.path).as_posix()
        record(Problem(where, "", "no temporary files", "one of an interrupted writer: delete it"))


def _check_ensemble(pool: Pool, name: str) -> None:
    pool.ensemble(name).check_pool(pool.fingerprint, pool.ids)


def _try(check: Callable[[], object], where: str, record: Callable[[Problem], object]) -> None:
    try:
        check()
    except FileDamageError as error:
        record(error.problem)
    except (LREnsembleError, ValueError) as error:
        record(Problem(where, "", "a file that can be used", str(error)))


def _stale_files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob(".*.tmp")) if _age_seconds(path) > STALE_SECONDS]


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
