import math
import resource

import numpy as np
import pytest

from lrensemble import memory
from lrensemble.errors import PoolError

MEMINFO = "MemTotal:       1000 kB\nMemAvailable:    500 kB\nHugePages_Total:       0\n"


def system(root, **files):
    """A folder like the root of a Linux system, with these files; ``__`` stands for ``/``, ``_0_`` for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_0_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_machine_bounds_memory(tmp_path):
    assert memory.free_bytes(system(tmp_path, proc__meminfo=MEMINFO)) == 500 * 1024


def test_a_system_that_says_nothing_bounds_nothing(tmp_path):
    assert memory.free_bytes(tmp_path) == math.inf


def test_this_system_says_something_plausible():
    assert 1e6 < memory.free_bytes() < 1e15


@pytest.mark.parametrize("place", ["/", "/outer", "/outer/inner"])
def test_control_groups_bound_memory_from_any_height(tmp_path, place):
    root = system(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup=f"0::{place}\n")
    folder = root / "sys/fs/cgroup" / "outer"
    for group, limit in ((folder.parent, "max"), (folder, "300000"), (folder / "inner", "max")):
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("250000\n")
        (group / "memory.stat").write_text("anon 5\ninactive_file 7000\n")
    assert memory.free_bytes(root) == (500 * 1024 if place == "/" else 57000)  # file cache can be given up


def test_control_groups_of_the_first_version(tmp_path):
    root = system(tmp_path, proc__self__cgroup="5:cpu,memory:/job\n1:cpu:/\n")
    folder = root / "sys/fs/cgroup/memory/job"
    folder.mkdir(parents=True)
    for name, text in (("memory.limit_in_bytes", "4096"), ("memory.usage_in_bytes", "5000")):
        (folder / name).write_text(text)
    assert memory.free_bytes(root) == 0
    (folder / "memory.stat").write_text("total_inactive_file 1000\n")
    assert memory.free_bytes(root) == 96


@pytest.mark.parametrize(("limit", "used"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_limits_of_the_process_bound_memory(tmp_path, monkeypatch, limit, used):
    root = system(tmp_path, proc__self__status=f"Name:\tpython\n{used}:\t  10 kB\n")

    def getrlimit(which):
        return (50 * 1024, -1) if which == getattr(resource, limit) else (resource.RLIM_INFINITY, -1)

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    assert memory.free_bytes(root) == 40 * 1024


def test_arrays_that_do_not_fit_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 30e6)
    assert memory.empty_array((3, 10**6), np.float64, "something").shape == (3, 10**6)
    with pytest.raises(PoolError, match=r"expected 32 GB of free memory for something, got 0\.03 GB: .* fewer of them"):
        memory.empty_array((4, 10**9), np.float64, "something")
    assert memory.empty_array((10,), np.int64, "few numbers are taken unasked").size == 10
