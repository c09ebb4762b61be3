"""Files: atomic writes, so that a file is the old one or the new one whenever the machine stops, and checked JSON."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lrensemble.errors import InputError, PoolError

__all__ = ["atomic_path", "check_format", "read_json", "write_bytes_atomic", "write_text_atomic"]


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it to disk and rename it over `target`.

    Raises
    ------
    PoolError
        If the folder cannot be made, the disk refuses the write, or `target` is a folder or a device; nothing is left
        behind and `target` is unchanged.
    """
    if target.exists() and not target.is_file():  # to rename over a device would destroy it
        raise PoolError(f"{target}: expected the path of a file, found a folder or device: choose another path")
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary, os.O_RDWR)  # some systems flush only what is open for writing
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PoolError(f"{target}: cannot be written ({reason}): check the disk and its permissions") from error
    finally:
        with suppress(OSError):  # a folder that refused the write may refuse this too; the first error is to be told
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # the new file stands; some file systems cannot flush a folder
        _sync(target.parent, os.O_RDONLY)


def write_bytes_atomic(target: Path, content: bytes) -> Path:
    """Write `content` to `target` atomically and return `target`."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return target


def write_text_atomic(target: Path, content: str) -> Path:
    """Write UTF-8 text to `target` atomically and return `target`."""
    return write_bytes_atomic(target, content.encode("utf-8"))


def read_json(path: str | Path, what: str) -> Any:
    """Parse a JSON file; `what` it should hold ("a report") is for the message.

    Raises
    ------
    InputError
        If it cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: expected {what}, but the file cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: expected {what} (JSON), got something else") from None


def check_format(data: Any, name: str, versions: tuple[int, ...], expected: str) -> None:
    """Raise `InputError`, beginning with `expected`, unless `data` is a table of this format in one of the versions."""
    if not isinstance(data, dict) or data.get("format") != name:
        raise InputError(f"{expected}, got other content")
    if data.get("version") not in versions:
        known = " or ".join(map(str, versions))
        raise InputError(f"{expected}, of format version {known}, got version {data.get('version')!r}")


def _sync(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
