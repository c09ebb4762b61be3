"""Compiled kernels (numba): whether to use them. Each is a module of plain loops in this folder, free of policy.

Every kernel has a twin in plain numpy where it is called, which gives the same decisions; so whether it is used is a
matter of time alone. Getting the kernels has a price: half a second for numba when they are in its cache on disk,
seconds when they have to be compiled (once on a machine). `kernel` settles this as one settles whether to rent or to
buy skis: a process goes on in numpy until the seconds that this has cost it exceed the price. So it never takes more
than about twice the time of the wiser choice: a small job does not wait for a compiler, and a large one does not crawl.

The environment variable ``LRENSEMBLE_KERNELS`` overrides: ``on`` takes the kernels at once, ``off`` never, ``auto`` (or
nothing) as above. Without a numba that works, all is numpy.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lrensemble.errors import InputError

__all__ = ["compiled", "kernel"]

LOG = logging.getLogger("lrensemble")
VARIABLE = "LRENSEMBLE_KERNELS"
MODES = ("auto", "on", "off")
IMPORT_SECONDS = 0.5  # to import numba and read one module's kernels from the cache
COMPILE_SECONDS = {"nll": 2.0, "accuracy": 2.0, "combine": 0.1, "gather": 0.4, "exhaustive": 8.0}  # of the modules here

_loaded: dict[str, ModuleType | None] = {}  # None: cannot be had in this process
_spent = 0.0  # seconds of numpy that kernels would have saved this process
_lock = threading.RLock()


def kernel(name: str, seconds: float) -> ModuleType | None:
    """Return a module of compiled kernels, or None where numpy is to be used.

    Parameters
    ----------
    name
        Of the module in this folder, without the package.
    seconds
        What the job at hand takes in numpy, as a rough estimate. Counted as spent when the answer is None.

    Raises
    ------
    InputError
        If ``LRENSEMBLE_KERNELS`` is set to something else than auto, on or off.
    """
    mode = os.environ.get(VARIABLE, "auto")
    if mode not in MODES:
        raise InputError(f"expected the environment variable {VARIABLE} as auto, on or off, got '{mode}'")
    if mode == "off":
        return None
    if name not in _loaded and (mode == "on" or _pays(name, seconds)):
        _load(name)
    return _loaded.get(name)


def compiled(*signatures: Any, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for the given numba signatures, now, or read it from numba's cache on disk.

    The cache lies beside the module, else in the user's cache folder; where neither can be used, it is compiled for
    this process alone. Kernels release Python's lock, start no threads, and are compiled to strict IEEE arithmetic, but
    for what `fastmath` allows (LLVM's names) where only bounds are computed. Division by 0 gives infinity, as in numpy.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        import numba

        options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
        try:
            return numba.njit(list(signatures), cache=True, **options)(function)
        except Exception:  # the cache is damaged, full or nowhere; what is wrong with the function comes again
            return numba.njit(list(signatures), **options)(function)

    return decorate


def _pays(name: str, seconds: float) -> bool:
    """Whether this process has by now spent more than the kernels cost; adds the job to what it has spent if not."""
    global _spent
    with _lock:
        if _spent + seconds > IMPORT_SECONDS and _spent + seconds > _price(name):
            return True
        _spent += seconds
        return False


def _price(name: str) -> float:
    return IMPORT_SECONDS if _on_disk(name) else IMPORT_SECONDS + COMPILE_SECONDS[name]


def _load(name: str) -> None:
    with _lock:
        if name in _loaded:
            return
        if not _on_disk(name):
            seconds = max(1, COMPILE_SECONDS[name])
            LOG.warning("compiling the selection kernels, once on this machine: about %.0f s", seconds)
        try:
            import numba

            usable = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
            _loaded[name] = importlib.import_module(f"{__name__}.{name}") if usable else None
        except Exception:  # no numba, or one that does not fit this Python, numpy or machine
            _loaded[name] = None


def _on_disk(name: str) -> bool:
    """Whether numba's cache holds the module as it is now, judged by its files alone (numba is not imported)."""
    source = Path(__file__).with_name(f"{name}.py")
    asked, user = os.environ.get("NUMBA_CACHE_DIR"), Path.home() / ".cache" / "numba"
    folders = [source.with_name("__pycache__")] if not asked else []
    for root in [Path(asked)] if asked else [user]:
        folders += root.glob(f"{source.parent.name}_*")
    indices = [index for folder in folders for index in folder.glob(f"{name}.*.nbi")]
    return any(index.stat().st_mtime >= source.stat().st_mtime for index in indices)
