"""What the benchmark scripts share: interleaved timing, a description of the machine, tables for pages."""

from __future__ import annotations

import gc
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tabulate

__all__ = ["Contender", "Timing", "fill_page", "interleave", "machine", "processor", "say", "table", "version_of"]

PACKAGES = ("lrensemble", "numpy", "numba", "scikit-learn", "torch", "autogluon.core", "tabarena")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes
    ----------
    name
        For the table.
    run
        What is timed; it is given what `prepare` returned.
    prepare
        Called before every run, outside the clock.
    warm
        Whether it runs once before, outside the clock: for what is compiled or loaded at the first call.
    """

    name: str
    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None
    warm: bool = False


@dataclass
class Timing:
    """Seconds of every run, and what the last one returned."""

    seconds: list[float] = field(default_factory=list)
    value: Any = None

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        if len(self.seconds) == 1:
            return f"{readable(self.median)} (1 run)"
        low, high = readable(min(self.seconds)), readable(max(self.seconds))
        value, unit = low.split()
        return f"{readable(self.median)} ({value if high.endswith(unit) else low}–{high})"

    def times(self, other: Timing) -> str:
        """How many times as long as another one this took."""
        return factor(self.median / other.median)

    def plain(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"median": self.median, "seconds": self.seconds}


def interleave(contenders: Sequence[Contender], *, repeats: int, patience: float) -> dict[str, Timing]:
    """Time all contenders in turn, round after round, so that a busy moment of the machine meets all of them.

    A contender that has used up `patience` seconds is not run again; each runs at least once.
    """
    for contender in contenders:
        if contender.warm:
            contender.run(contender.prepare())
    timings = {contender.name: Timing() for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            timing = timings[contender.name]
            if sum(timing.seconds) > patience:
                continue
            given = contender.prepare()
            gc.collect()
            start = time.perf_counter()
            value = contender.run(given)
            timing.seconds.append(time.perf_counter() - start)
            timing.value = value
            del given, value
    return timings


def readable(seconds: float) -> str:
    """Seconds with three digits and a fitting unit."""
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    value = seconds * scale
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def factor(ratio: float) -> str:
    """Print a ratio with two digits, or whole."""
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def version_of(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Processor, threads and versions that figures depend on."""
    return {
        "processor": f"{os.cpu_count()} × {processor()}",
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": {package: found for package in PACKAGES if (found := version_of(package))},
    }


def describe(found: Mapping[str, Any]) -> str:
    """`machine` in one paragraph."""
    threads = ", ".join(f"{name}={value}" for name, value in found["threads"].items()) or "no limit on threads set"
    versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    return f"{found['processor']}, {found['system']}, {threads}; Python {found['python']}, {versions}."


def processor() -> str:
    """Name of the processor."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> str:
    """Markdown table."""
    return tabulate.tabulate(rows, columns, tablefmt="github", disable_numparse=True)


def fill_page(page: Path, texts: Mapping[str, str]) -> None:
    """Put each text between the markers ``<!-- NAME -->`` and ``<!-- /NAME -->`` of a page; all must be there."""
    content = page.read_text(encoding="utf-8")
    for name, text in texts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in content or end not in content:
            raise SystemExit(f"{page}: expected the markers {begin} and {end}, found none")
        head, _, rest = content.partition(begin)
        content = f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    page.write_text(content, encoding="utf-8")


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)
