"""Fixtures that several test files share: the command as a subprocess, and one small real pool, trained once."""

import os
import subprocess
import sys

import pytest

ROAD = ["--data", "digits", "--model", "mlp(hidden=32)", "--policies", "FIX(0.05)", "COSRSW(k0=0.001, k1=0.1, l=50%)"]
ROAD += ["--seeds", "2", "--epochs", "4", "--train-size", "300", "--jobs", "2"]


def run_command(*arguments, cwd=None, env=None, expect=0):
    """Run ``lrensemble ARGUMENTS`` in a process of its own; check its exit code and that it shows no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "lrensemble", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == expect, f"exit {done.returncode}, expected {expect}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tests, and the commands they run, write nothing to the user's cache folder."""
    os.environ["LRENSEMBLE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def command():
    return run_command


@pytest.fixture(scope="session")
def road(tmp_path_factory):
    """A finished ``lrensemble run`` on digits: (pool folder, the process)."""
    home = tmp_path_factory.mktemp("road")
    done = run_command("run", *ROAD, "--pool", home / "pool", "--method", "greedy", "whole", cwd=home)
    return home / "pool", done
