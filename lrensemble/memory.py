"""How much memory this process can still get, so that what does not fit is read in parts or refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lrensemble.errors import PoolError

__all__ = ["empty_array", "free_bytes"]

CGROUPS = (  # name of the controller in /proc/self/cgroup, folder, files of the limit and of what is used
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
LIMITS = {
    "RLIMIT_AS": "VmSize",
    "RLIMIT_DATA": "VmData",
}  # limits of a process, and what of its status they bound
SMALL = 1 << 24  # bytes that are taken without asking: the question costs as much as a pass over some of them


def free_bytes(root: Path = Path("/")) -> float:
    """Bytes of memory that the machine, the process's control groups and its resource limits still allow.

    Infinity where the system does not say (Linux does). `root` is the folder of ``proc`` and ``sys``.
    """
    return min([_of_machine(root), *_of_cgroups(root), *_of_limits(root)])


def empty_array(shape: tuple[int, ...], dtype: npt.DTypeLike, what: str) -> npt.NDArray:
    """Return ``numpy.empty(shape, dtype)``, once there is room for it; `what` it will hold is for the message.

    Up to 16 MiB are taken unasked.

    Raises
    ------
    PoolError
        If it does not fit into the free memory.
    """
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > SMALL and needed > (free := free_bytes()):
        raise PoolError(
            f"expected {_gigabytes(needed)} of free memory for {what}, got {_gigabytes(free)}: go through the members "
            "one by one, or take fewer of them"
        )
    return np.empty(shape, dtype)


def _of_machine(root: Path) -> float:
    return _table(root / "proc/meminfo").get("MemAvailable", math.inf)


def _of_cgroups(root: Path) -> Iterator[float]:
    """Limit less use of the control groups that the process is in and of all above them; file cache can be given up."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, place = line.split(":", 2)
        for controller, folder, limit, used, cache in CGROUPS:
            if controller in controllers.split(","):
                group = root / folder / place.lstrip("/")
                for part in (group, *group.parents):
                    if not part.is_relative_to(root / folder):
                        break
                    bound, taken = _number(part / limit), _number(part / used)
                    if math.isfinite(bound) and math.isfinite(taken):
                        yield max(0.0, bound - taken + _cached(part / "memory.stat", cache))


def _of_limits(root: Path) -> Iterator[float]:
    try:
        import resource
    except ImportError:  # Windows
        return
    status = _table(root / "proc/self/status")
    for limit, used in LIMITS.items():
        bound, _ = resource.getrlimit(getattr(resource, limit))
        if bound != resource.RLIM_INFINITY and used in status:
            yield max(0.0, bound - status[used])


def _table(path: Path) -> dict[str, float]:
    """``Name:  123 kB`` by name, in bytes."""
    fields = (line.split() for line in _lines(path) if line.endswith(" kB"))
    return {words[0].rstrip(":"): float(words[1]) * 1024 for words in fields}


def _cached(path: Path, name: str) -> float:
    return next((float(line.split()[1]) for line in _lines(path) if line.startswith(f"{name} ")), 0.0)


def _number(path: Path) -> float:
    text = next(iter(_lines(path)), "")
    return float(text) if text.isdigit() else math.inf


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"
