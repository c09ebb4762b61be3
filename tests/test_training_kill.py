"""Killed at any moment, a training goes on exactly where it stopped, and nothing is left running.

A launcher process imports everything once and forks one child for each run, so that a run starts in milliseconds; the
children are ordinary processes that are killed with real signals.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_training import assert_same_pools

import lrensemble as lre

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")

LAUNCHER = """
import json, os, signal, sys
import torch
import lrensemble as lre
from lrensemble.training import executor

data = lre.load_data("digits", train_size=200, val_size=60, test_size=60)
lre.train_pool(data, path=sys.argv[1], model="mlp(hidden=2)", policies="FIX(0.01)", epochs=1, progress=False, jobs=1)
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background is born deaf to it
        try:
            lre.train_pool(data, **json.loads(line))
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(130)
        finally:
            os._exit(1)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
CALL = {
    "model": "mlp(hidden=16, dropout=0.1)",
    "policies": ["FIX(0.05)", "COSRSW(k0=0.001, k1=0.1, l=20%)", "FIX(9000)"],
    "seeds": 2,
    "epochs": 60,
    "batch_size": 32,
    "checkpoint_seconds": 0,
    "progress": False,
}
LONGER = {"epochs": 120}  # workers are at work for a second or two
LONG = {"epochs": 400}  # workers train on for half a second after their parent was killed; this lasts twenty times


class Launcher:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, folder / "warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # one OpenMP thread from the start: a child that is forked beside a pool of threads waits for them for ever
            env={**os.environ, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, path, jobs, **changes):
        """Begin (or go on with) the training; return the process id."""
        self.process.stdin.write(json.dumps({**CALL, **changes, "path": str(path), "jobs": jobs}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def exit_code(self):
        """Wait for the training that was started."""
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    running = Launcher(tmp_path_factory.mktemp("launcher"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def whole(launcher, tmp_path_factory):
    """Train the pool without interruption."""
    return finish(launcher, tmp_path_factory.mktemp("whole") / "pool", 1)


@pytest.fixture(scope="module")
def longer_whole(launcher, tmp_path_factory):
    """Train a pool that takes twice as long."""
    return finish(launcher, tmp_path_factory.mktemp("longer") / "pool", 1, **LONGER)


@pytest.fixture(scope="module")
def long_whole(launcher, tmp_path_factory):
    """Train the longer pool without interruption."""
    return finish(launcher, tmp_path_factory.mktemp("long") / "pool", 1, **LONG)


def descendants(pid):
    """All living processes below `pid`."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(entry.parent.name)] = int(fields[1])
    found, layer = set(), {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer}
        found |= layer
    return found


def assert_gone(pids, seconds=15):
    end = time.monotonic() + seconds
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, f"still running: {alive}"
        time.sleep(0.05)


def wait_for_change(path, pid, seconds=120):
    """Wait until some member has saved a state or been finished since now, or the process has ended."""

    def look():
        return {(p.name, p.stat().st_ino) for folder in ("resume", "members") for p in (path / folder).glob("[!.]*")}

    end, before = time.monotonic() + seconds, None
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        try:
            now = look()
        except FileNotFoundError:  # renamed or removed while we looked
            continue
        if before is not None and now != before:
            return
        before = now
        time.sleep(0.002)
    assert time.monotonic() < end, "the training does not begin"


def kill_again_and_again(launcher, path, jobs, times, longest, seed, **changes):
    """Kill `times` runs at random moments; return how many of them were still at work."""
    draw, killed = random.Random(seed), 0
    for _ in range(times):
        pid = launcher.start(path, jobs, **changes)
        if jobs > 1:
            wait_for_change(path, pid)
        time.sleep(draw.uniform(0, longest))
        below = descendants(pid)
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(pid, signal.SIGKILL)
        killed += launcher.exit_code() == -signal.SIGKILL
        assert_gone(below)
    return killed


def finish(launcher, path, jobs, **changes):
    launcher.start(path, jobs, **changes)
    assert launcher.exit_code() == 0
    pool = lre.Pool.open(path)
    assert pool.problems == []
    assert not list((path / "resume").glob("[!.]*"))
    return pool


def test_killed_twenty_times_in_one_process(launcher, whole, tmp_path):
    assert kill_again_and_again(launcher, tmp_path / "pool", 1, 20, 0.25, seed=1) >= 5
    assert_same_pools(whole, finish(launcher, tmp_path / "pool", 1))


def test_killed_with_workers(launcher, whole, tmp_path):
    assert kill_again_and_again(launcher, tmp_path / "pool", 2, 2, 0.3, seed=2) >= 1
    assert_same_pools(whole, finish(launcher, tmp_path / "pool", 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_twenty_times_with_workers(seed, launcher, long_whole, tmp_path):
    assert kill_again_and_again(launcher, tmp_path / "pool", 2, 20, 0.1, seed, **LONG) >= 8
    assert_same_pools(long_whole, finish(launcher, tmp_path / "pool", 2, **LONG))


@pytest.mark.parametrize(
    ("jobs", "number"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM), (2, signal.SIGINT)]
)
def test_an_interruption_stops_promptly_and_can_be_resumed(jobs, number, launcher, longer_whole, tmp_path):
    pid = launcher.start(tmp_path / "pool", jobs, **LONGER)
    wait_for_change(tmp_path / "pool", pid)
    below = descendants(pid)
    os.kill(pid, number)
    start = time.monotonic()
    assert launcher.exit_code() == 130
    assert time.monotonic() - start < 10
    assert_gone(below)
    kept = [*(tmp_path / "pool" / "resume").glob("[!.]*"), *(tmp_path / "pool" / "members").glob("[!.]*")]
    assert kept  # states, or members that were finished just then
    assert_same_pools(longer_whole, finish(launcher, tmp_path / "pool", 1, **LONGER))
