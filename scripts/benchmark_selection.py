#!/usr/bin/env python3
"""How fast selection is: greedy, exhaustive, diversity, from arrays and from disk, against other packages.

All contenders run in one process, in turn, from the same arrays; a figure is the median of its runs, with the least and
the most. Other packages are run as they are, from their own installations; those that are not installed are left out.
Pools are synthetic with fixed seeds: what makes a sample hard is shared by the members, confidence is that of trained
networks, so that most of the float32 softmax is saturated and ties are real.

Example::

    OMP_NUM_THREADS=1 python scripts/benchmark_selection.py --json selection.json --write docs/benchmarks.md

Sections go into the JSON file as they end: ``--only greedy disk`` runs some of them and keeps the others from the file;
``--resume`` runs those that the file lacks. ``pip install --group benchmark`` installs the other packages.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import benchmark_peers as peers
import numpy as np
from benchmark_tools import Contender, Timing, describe, factor, fill_page, interleave, machine, readable, say, table

import lrensemble as lre
from lrensemble.diversity import DIVERSITY, FocalTables, PairTables, all_teams

METRICS = ("accuracy", "nll")
TITLES = {"accuracy": "accuracy", "nll": "log loss"}
MEASURES = ("CK", "QS", "BD", "FK", "KW", "GD")
KERNELS = "LRENSEMBLE_KERNELS"


@dataclass(frozen=True)
class Sizes:
    """How large everything is; pools are (members, samples, classes)."""

    repeats: int
    patience: float
    rounds: int
    greedy: tuple[tuple[int, int, int], ...]
    weak: tuple[tuple[int, int, int], ...]
    undecided: tuple[int, int, int]
    exhaustive: tuple[int, int, int]
    sampled_teams: int
    disk: tuple[int, int, int]
    small: tuple[int, int, int]
    first: tuple[tuple[int, int, int], ...]


FULL = Sizes(
    repeats=7,
    patience=5.0,
    rounds=25,
    greedy=tuple((m, 10_000, c) for c in (10, 100) for m in (64, 256)),
    weak=((16, 2_000, 1_000), (64, 2_000, 1_000)),
    undecided=(64, 10_000, 10),
    exhaustive=(20, 10_000, 10),
    sampled_teams=500,
    disk=(256, 10_000, 10),
    small=(8, 200, 10),
    first=((8, 200, 10), (64, 10_000, 10), (256, 10_000, 10)),
)
QUICK = Sizes(
    repeats=2,
    patience=1.0,
    rounds=5,
    greedy=((6, 120, 4),),
    weak=((4, 50, 30),),
    undecided=(6, 80, 4),
    exhaustive=(6, 100, 4),
    sampled_teams=5,
    disk=(4, 60, 4),
    small=(3, 40, 4),
    first=((3, 40, 4),),
)


@dataclass(frozen=True)
class Section:
    """What a section found: a table, sentences below it, and every number behind them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    data: Any


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    sizes = QUICK if args.quick else FULL
    results = load(args.json, quick=args.quick)
    for name in args.only:
        if args.resume and name in results["sections"]:
            continue
        say(f"{name}: {SECTIONS[name].__doc__}")
        start = time.perf_counter()
        found = SECTIONS[name](sizes)
        seconds = time.perf_counter() - start
        say(f"{name}: {seconds:.0f} s\n{table(found.rows, found.columns)}\n")
        results["sections"][name] = {**vars(found), "machine": machine(), "seconds": seconds}
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    done = {name: results["sections"][name] for name in SECTIONS if name in results["sections"]}
    texts = {"machine": machines(done), **{name: markdown(section) for name, section in done.items()}}
    if args.write:
        fill_page(args.write, texts)
    else:
        print("\n\n".join(f"## {name}\n\n{text}" for name, text in texts.items()))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every number; sections in it that are not run stay")
    parser.add_argument("--resume", action="store_true", help="leave out the sections that are in the JSON file")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="put the tables between the markers of a page")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: seconds, and figures that mean nothing")
    return parser.parse_args(arguments)


def load(path: Path | None, *, quick: bool) -> dict[str, Any]:
    """Results so far; those of other sizes are not mixed in."""
    if path is not None and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["quick"] == quick:
            return found
    return {"quick": quick, "sections": {}}


def markdown(section: dict[str, Any]) -> str:
    return "\n\n".join([table(section["rows"], section["columns"]), *section["notes"]])


def machines(sections: dict[str, dict[str, Any]]) -> str:
    """Describe what each section ran on, once for those that share it."""
    groups: dict[str, list[str]] = {}
    for name, section in sections.items():
        groups.setdefault(describe(section["machine"]), []).append(name)
    return "\n\n".join(text if len(groups) == 1 else f"{', '.join(names)}: {text}" for text, names in groups.items())


# --------------------------------------------------------------------------------------------------------------- pools


def pool_of(size: tuple[int, int, int], *, accuracy: float = 0.9, gain: float = 5.0) -> lre.Predictions:
    """Predictions with their probabilities ready, which is what the other packages are given."""
    logits, labels = peers.synthetic_logits(*size, accuracy=accuracy, gain=gain)
    predictions = lre.Predictions.from_arrays(logits, labels)
    assert predictions.probabilities is not None
    return predictions


def titled(size: tuple[int, int, int]) -> str:
    members, samples, classes = size
    return f"M={members}, N={samples:,}, C={classes:,}"


@contextmanager
def kernels(mode: str) -> Iterator[None]:
    """Take the compiled kernels at once (``on``), never (``off``), or as they pay (``auto``)."""
    before = os.environ.get(KERNELS)
    os.environ[KERNELS] = mode
    try:
        yield
    finally:
        if before is None:
            del os.environ[KERNELS]
        else:
            os.environ[KERNELS] = before


def ours(predictions: lre.Predictions, *, mode: str, **request: Any) -> Contender:
    """Time a call of ``select``; each run gets predictions that nobody has used, so that no run helps the next."""

    def run(fresh: lre.Predictions) -> lre.Ensemble:
        with kernels(mode):
            return lre.select(fresh, **request)

    name = {"on": "LREnsemble", "off": "kernels off"}[mode]
    return Contender(name, run, prepare=lambda: copy.copy(predictions), warm=mode == "on")


def installed_peers(
    names: Sequence[str] = tuple(peers.PEERS),
) -> tuple[dict[str, Callable[..., peers.Picks]], list[str]]:
    """Load the peers that are installed; and one line on each that is not."""
    found, missing = {}, []
    for name in names:
        peer = peers.PEERS[name]
        try:
            found[name] = peer.load()
        except ImportError as error:
            missing.append(f"{name} was left out, as it cannot be imported ({error}): `{peer.install}`.")
    for line in missing:
        say(line)
    return found, missing


# -------------------------------------------------------------------------------------------------------------- greedy


def greedy(sizes: Sizes) -> Section:
    """Greedy selection of 25 rounds with replacement, the whole call of `select` on predictions that are ready."""
    others, missing = installed_peers()
    rows, data = [], []
    for size in sizes.greedy:
        predictions = pool_of(size)
        for metric in METRICS:
            say(f"  {titled(size)}, {metric}")
            timings, picks = greedy_cell(predictions, metric, others, sizes)
            rows.append([titled(size), TITLES[metric], *greedy_row(timings, picks)])
            data.append({"pool": size, "metric": metric, **plain(timings), "picks": picks})
    columns = ["pool", "objective", "LREnsemble", "kernels off", "naive numpy", *peers.PEERS, "picks as naive", *PICKS]
    return Section(columns, rows, [*missing, GREEDY_NOTE], data)


PICKS = ("AutoGluon's picks",)
GREEDY_NOTE = (
    "In brackets: the least and the most of the runs; × is how many times as long as LREnsemble. *Picks as naive*: in "
    "how many rounds LREnsemble takes the member that the naive float64 reference takes. AutoGluon breaks ties at "
    "random and rounds scores to six decimals, so that it may leave the reference at a tie; after that teams differ."
)


def greedy_cell(
    predictions: lre.Predictions, metric: str, others: dict[str, Callable[..., peers.Picks]], sizes: Sizes
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Time all contenders on one pool, and compare what they pick."""
    given = (predictions.probabilities, predictions.labels, metric, sizes.rounds)
    contenders = [ours(predictions, mode=mode, metric=metric, rounds=sizes.rounds) for mode in ("on", "off")]
    contenders.append(Contender("naive numpy", lambda _: peers.naive_greedy(*given)))
    for name, fit in others.items():
        if metric in peers.PEERS[name].metrics:
            contenders.append(Contender(name, lambda _, fit=fit: fit(*given)))
            fit(given[0][:2, :50], given[1][:50], metric, 2)  # its imports and first calls
    timings = interleave(contenders, repeats=sizes.repeats, patience=sizes.patience)
    reference, scores = timings["naive numpy"].value
    found = {name: timings[name].value for name in others if name in timings}
    for mode, name in (("on", "LREnsemble"), ("off", "kernels off")):
        with kernels(mode):
            found[name] = peers.our_picks(copy.copy(predictions), metric, sizes.rounds)
    picks = {
        name: {"agreement": peers.agreement(picked, reference, scores), "best": picked.best, "order": picked.order}
        for name, picked in found.items()
    }
    return timings, picks


def greedy_row(timings: dict[str, Timing], picks: dict[str, Any]) -> list[str]:
    own = timings["LREnsemble"]
    cells = [str(own), *(against(timings.get(name), own) for name in ("kernels off", "naive numpy", *peers.PEERS))]
    same = {picks[name]["agreement"] for name in ("LREnsemble", "kernels off")}
    theirs = picks.get("AutoGluon", {"agreement": "–"})["agreement"]
    return [*cells, " / ".join(sorted(same)), theirs]


def against(timing: Timing | None, own: Timing) -> str:
    return f"{timing}, **{timing.times(own)}**" if timing else "–"


def plain(timings: dict[str, Timing]) -> dict[str, Any]:
    return {"timings": {name: timing.plain() for name, timing in timings.items()}}


# ----------------------------------------------------------------------------------------- pools that are hard to prune


def hard(sizes: Sizes) -> Section:
    """Pools on which little can be pruned: kernels must not be slower than numpy."""
    pools = [(size, "weak: 40 % accuracy", {"accuracy": 0.4}) for size in sizes.weak]
    pools.append((sizes.undecided, "undecided: nearly uniform probabilities", {"accuracy": 0.4, "gain": 0.2}))
    rows, data = [], []
    for size, kind, nature in pools:
        predictions = pool_of(size, **nature)
        for metric in METRICS:
            say(f"  {kind}, {titled(size)}, {metric}")
            contenders = [ours(predictions, mode=mode, metric=metric, rounds=sizes.rounds) for mode in ("on", "off")]
            timings = interleave(contenders, repeats=sizes.repeats, patience=sizes.patience)
            own, numpy = timings["LREnsemble"], timings["kernels off"]
            same = own.value.trace == numpy.value.trace
            rows.append([kind, titled(size), TITLES[metric], str(own), against(numpy, own), "yes" if same else "NO"])
            data.append({"kind": kind, "pool": size, "metric": metric, **plain(timings), "same": same})
        del predictions
    return Section(["pool", "size", "objective", "LREnsemble", "kernels off", "same team"], rows, [], data)


# ---------------------------------------------------------------------------------------------------------- exhaustive


def exhaustive(sizes: Sizes) -> Section:
    """Find the best of all equal-weight teams, against scoring teams one by one."""
    predictions = pool_of(sizes.exhaustive)
    members = predictions.n_members
    teams = 2**members - 1
    rng = np.random.default_rng(1)
    drawn = [np.flatnonzero(rng.random(members) < 0.5) for _ in range(sizes.sampled_teams)]
    drawn = [team if team.size else np.array([0]) for team in drawn]
    rows, data = [], []
    for metric in METRICS:
        say(f"  {titled(sizes.exhaustive)}, {metric}")
        naive = Contender("naive numpy", partial(naive_best, predictions, drawn, metric))
        own_contender = ours(predictions, mode="on", method="exhaustive", metric=metric)
        timings = interleave([own_contender, naive], repeats=sizes.repeats, patience=4 * sizes.patience)
        own, slow = timings["LREnsemble"], timings["naive numpy"]
        per_second, slow_per_second = teams / own.median, len(drawn) / slow.median
        check = check_best(predictions, own.value, slow.value, metric)
        rows.append(
            [
                f"{teams:,} teams, {titled(sizes.exhaustive)}",
                TITLES[metric],
                str(own),
                f"{per_second:,.0f}",
                f"{slow_per_second:,.0f}",
                f"**{factor(per_second / slow_per_second)}**",
                check,
            ]
        )
        data.append({"metric": metric, "teams": teams, "sampled": len(drawn), **plain(timings), "check": check})
    columns = ["search", "objective", "LREnsemble", "teams/s", "naive teams/s", "ratio", "check"]
    note = (
        f"Naive: the mean of the members' probabilities, then the metric, timed on {len(drawn)} teams drawn at random. "
        "*Check*: the score of the team that was found is what naive scoring gives it, and no drawn team is better."
    )
    return Section(columns, rows, [note], data)


def naive_best(predictions: lre.Predictions, teams: list[np.ndarray], metric: str, _: Any) -> float:
    return max(naive_team(predictions, team, metric) for team in teams)


def naive_team(predictions: lre.Predictions, team: np.ndarray, metric: str) -> float:
    total = predictions.probabilities[team].sum(axis=0, dtype=np.float64)
    return peers.naive_score(total, predictions.labels, metric, len(team))


def check_best(predictions: lre.Predictions, ensemble: lre.Ensemble, best_drawn: float, metric: str) -> str:
    found = naive_team(predictions, np.array(predictions.indices(ensemble.members)), metric)
    stated = ensemble.score if metric == "accuracy" else -ensemble.score
    return "passed" if abs(found - stated) < 1e-6 and found >= best_drawn - 1e-12 else "FAILED"


# ----------------------------------------------------------------------------------------------------------- diversity


def diversity(sizes: Sizes) -> Section:
    """Six measures of all teams of two to five members, from predicted labels to values; plain, and focal."""
    predictions = pool_of(sizes.exhaustive)
    predicted, labels = predictions.predicted, predictions.labels
    groups = [all_teams(predictions.n_members, k) for k in range(2, min(5, predictions.n_members) + 1)]
    count = sum(map(len, groups))
    rng = np.random.default_rng(2)
    each = max(1, sizes.sampled_teams // 50)
    share = [group[rng.choice(len(group), min(each, len(group)), replace=False)] for group in groups]
    contenders = [
        Contender("plain", lambda _: plain_diversity(predicted, labels, groups), warm=True),
        Contender("focal", lambda _: focal_scores(predicted, labels, groups), warm=True),
    ]
    timings = interleave(contenders, repeats=sizes.repeats, patience=sizes.patience)
    wrong = [predicted[f] != labels for f in range(len(predicted))]
    naive = [Contender(name, partial(run, predicted, labels, share, wrong)) for name, run in NAIVE_DIVERSITY.items()]
    slow = interleave(naive, repeats=2, patience=sizes.patience)
    weight = [len(group) / len(some) for group, some in zip(groups, share, strict=True)]
    rows, data = [], []
    for name, title in (("plain", "six measures"), ("focal", "focal diversity, every member the focal one")):
        whole = sum(w * s for w, s in zip(weight, slow[name].value["seconds"], strict=True))
        ratio = factor(whole / timings[name].median)
        rows.append([f"{title}, {count:,} teams", str(timings[name]), f"{readable(whole)}, **{ratio}**"])
        data.append(
            {"kind": name, "teams": count, **timings[name].plain(), "naive": whole, "sampled": len(share) * each}
        )
    check = checked(timings["plain"].value, slow["plain"].value["values"], groups, share)
    note = (
        f"{titled(sizes.exhaustive)}; measures {', '.join(MEASURES)}. Naive: each team from the samples by the "
        f"definition, timed on {sum(map(len, share))} teams and extrapolated size by size (for focal diversity the "
        f"measures alone, on the negative samples of each member). Values against naive ones: {check}."
    )
    return Section(["what", "LREnsemble", "naive numpy, extrapolated"], rows, [note], data)


def plain_diversity(predicted: np.ndarray, labels: np.ndarray, groups: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    tables = PairTables(predicted, labels)
    return {name: [DIVERSITY[name].function(tables, group) for group in groups] for name in MEASURES}


def focal_scores(predicted: np.ndarray, labels: np.ndarray, groups: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    tables = FocalTables(predicted, labels)
    return {name: [tables.scores(group, DIVERSITY[name]) for group in groups] for name in MEASURES}


def naive_plain(predicted: np.ndarray, labels: np.ndarray, share: list[np.ndarray], wrong: Any, _: Any) -> dict:
    seconds, values = [], []
    for group in share:
        start = time.perf_counter()
        values.append([[peers.naive_diversity(predicted, labels, team, name) for team in group] for name in MEASURES])
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "values": values}


def naive_focal(predicted: np.ndarray, labels: np.ndarray, share: list[np.ndarray], wrong: Any, _: Any) -> dict:
    negatives = [(predicted[:, mask], labels[mask]) for mask in wrong]
    seconds = []
    for group in share:
        start = time.perf_counter()
        for team in group:
            for name in MEASURES:
                for f in team:
                    peers.naive_diversity(*negatives[f], team, name)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds}


NAIVE_DIVERSITY = {"plain": naive_plain, "focal": naive_focal}


def checked(found: dict, expected: list, groups: list[np.ndarray], share: list[np.ndarray]) -> str:
    """Largest difference between our values and the naive ones."""
    worst = 0.0
    for i, (group, some) in enumerate(zip(groups, share, strict=True)):
        position = {tuple(team): row for row, team in enumerate(group.tolist())}
        rows = [position[tuple(team)] for team in some.tolist()]
        for name, values in zip(MEASURES, expected[i], strict=True):
            worst = max(worst, float(np.abs(found[name][i][rows] - values).max()))
    return f"at most {worst:.0e} apart" if worst < 1e-9 else f"FAILED, {worst:.3g} apart"


# ----------------------------------------------------------------------------------------------------------- from disk


def disk(sizes: Sizes) -> Section:
    """Go from a pool on disk to ensemble.json, against AutoGluon's fit of the same arrays from memory."""
    others, missing = installed_peers(["AutoGluon"])
    rows, data = [], []
    with tempfile.TemporaryDirectory() as folder:
        predictions = pool_of(sizes.disk)
        path = written_pool(Path(folder) / "pool", predictions)
        for metric in METRICS:
            say(f"  {titled(sizes.disk)}, {metric}")
            contenders = disk_contenders(path, metric, sizes)
            if "AutoGluon" in others:
                given = (predictions.probabilities, predictions.labels, metric, sizes.rounds)
                contenders.append(Contender("AutoGluon", lambda _, given=given: others["AutoGluon"](*given)))
            timings = interleave(contenders, repeats=sizes.repeats, patience=sizes.patience)
            theirs = timings.pop("AutoGluon", None)
            rows.append([TITLES[metric], *(shorter(own, theirs) for own in timings.values()), str(theirs or "–")])
            data.append(
                {"pool": sizes.disk, "metric": metric, **plain(timings), "AutoGluon": theirs and theirs.plain()}
            )
    note = (
        f"Pool of {titled(sizes.disk)}: {predictions.logits.nbytes / 2**20:.0f} MiB of logits. × is how many times as "
        "long AutoGluon takes, which starts from the probabilities in memory. The command re-splits validation 20 "
        "times unless told otherwise, to say how rosy its score is."
    )
    columns = ["objective", "in a warm process", "`lrensemble select --resplits 0`", "`lrensemble select`", "AutoGluon"]
    return Section(columns, rows, [*missing, note], data)


def disk_contenders(path: Path, metric: str, sizes: Sizes) -> list[Contender]:
    return [
        Contender("warm", lambda _: warm_select(path, metric, sizes.rounds), warm=True),
        Contender("process", lambda _: fresh_select(path, metric, sizes.rounds, "--resplits", "0"), warm=True),
        Contender("re-split", lambda _: fresh_select(path, metric, sizes.rounds)),
    ]


def shorter(own: Timing, theirs: Timing | None) -> str:
    return f"{own}, **{theirs.times(own)}**" if theirs else str(own)


def memory(sizes: Sizes) -> Section:
    """Measure the memory that selection takes beyond what a process holds anyway."""
    rows, data = [], []
    with tempfile.TemporaryDirectory() as folder:
        predictions = pool_of(sizes.disk)
        path = written_pool(Path(folder) / "pool", predictions)
        tiny = written_pool(Path(folder) / "tiny", pool_of(sizes.small))
        size = predictions.logits.nbytes
        for metric in METRICS:
            base = high_water(tiny, metric)
            extra = [high_water(path, metric, **how) - base for how in MEMORY_COLUMNS.values()]
            rows.append(
                [TITLES[metric], *(f"{more / 2**20:,.0f} MiB = **{more / size:.2f}** × pool" for more in extra)]
            )
            data.append({"pool": sizes.disk, "metric": metric, "bytes": size, "baseline": base, "extra": extra})
    note = (
        f"Pool of {titled(sizes.disk)}: {size / 2**20:.0f} MiB of logits. The most that a fresh process holds while it "
        f"selects from the pool, less that of one that does the same for {sizes.small[0]} members and {sizes.small[1]} "
        "samples; kernels are loaded in both. Pools that take more than half of the free memory are left on disk by "
        "themselves."
    )
    return Section(["objective", *MEMORY_COLUMNS], rows, [note], data)


MEMORY_COLUMNS: dict[str, dict[str, Any]] = {
    "logits in memory": {},
    "logits left on disk (`in_memory=False`)": {"in_memory": False},
    "in memory, with 20 re-splits": {"resplits": 20},
}


def written_pool(path: Path, predictions: lre.Predictions) -> Path:
    """Write a pool of these validation predictions; as its test split, which selection never reads, few of them."""
    few = slice(0, min(100, predictions.n_samples))
    lre.import_arrays(
        path,
        val_logits=predictions.logits,
        test_logits=predictions.logits[:, few],
        val_labels=predictions.labels,
        test_labels=predictions.labels[few],
    )
    return path


def warm_select(path: Path, metric: str, rounds: int) -> Path:
    with kernels("on"):
        ensemble = lre.select(lre.Pool.open(path), metric=metric, rounds=rounds)
    return ensemble.save(path.parent / "ensemble.json")


def fresh_select(path: Path, metric: str, rounds: int, *flags: str) -> None:
    command = [sys.executable, "-m", "lrensemble", "select", str(path), "--metric", metric, *flags]
    command += ["--option", f"rounds={rounds}", "--out", str(path.parent / "ensemble.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


MEMORY = """
import sys
import lrensemble as lre
path, metric, kept, resplits = sys.argv[1:]
predictions = lre.Pool.open(path).predictions("val", in_memory=kept == "True")
lre.select(predictions, metric=metric, resplits=int(resplits)).save(path + "-ensemble.json")
try:
    lines = open("/proc/self/status").read().splitlines()  # ru_maxrss would begin with that of the parent process
    print(1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))
except OSError:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def high_water(path: Path, metric: str, *, in_memory: bool = True, resplits: int = 0) -> int:
    """Most bytes that a fresh process holds while it selects from a pool."""
    return json.loads(fresh(MEMORY, str(path), metric, str(in_memory), str(resplits), variables={KERNELS: "on"}))


def fresh(code: str, *arguments: str, variables: dict[str, str]) -> str:
    """Run Python code in a process of its own and return what it prints."""
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


# ----------------------------------------------------------------------------------------------------------- first use


def first(sizes: Sizes) -> Section:
    """Time the first call of a fresh process by the state of the cache; a small pool must need no numba."""
    rows, data = [], []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes.first:
            logits, labels = peers.synthetic_logits(*size, accuracy=0.9)
            np.save(f"{folder}/logits.npy", logits)
            np.save(f"{folder}/labels.npy", labels)
            for metric in METRICS:
                say(f"  {titled(size)}, {metric}")
                cache = f"{folder}/cache-{size[0]}-{metric}"
                found = {
                    name: first_call(folder, metric, mode, cache if shared else f"{cache}-{mode}-alone")
                    for name, mode, shared in FIRST
                }
                rows.append([titled(size), TITLES[metric], *(first_cell(found[name]) for name, *_ in FIRST)])
                data.append({"pool": size, "metric": metric, **found})
    note = (
        "Seconds of the first `select` in a fresh process, after `import lrensemble`, from logits. *As it comes* is "
        "the default: numpy until the kernels have paid for themselves. N: numba was imported."
    )
    columns = ["pool", "objective", *(name for name, *_ in FIRST)]
    return Section(columns, rows, [note], data)


FIRST = (  # column, LRENSEMBLE_KERNELS, whether it shares its cache with those after it
    ("kernels off", "off", False),
    ("as it comes, cache empty", "auto", False),
    ("compiled at once, cache empty", "on", True),
    ("as it comes, cache filled", "auto", True),
    ("kernels at once, cache filled", "on", True),
)
FIRST_CALL = """
import json, sys, time
import numpy as np
import lrensemble as lre
folder, metric = sys.argv[1:]
predictions = lre.Predictions.from_arrays(np.load(folder + "/logits.npy"), np.load(folder + "/labels.npy"))
start = time.perf_counter()
lre.select(predictions, metric=metric)
print(json.dumps({"seconds": time.perf_counter() - start, "numba": "numba" in sys.modules}))
"""


def first_call(folder: str, metric: str, mode: str, cache: str) -> dict[str, Any]:
    variables = {KERNELS: mode, "NUMBA_CACHE_DIR": cache}
    return json.loads(fresh(FIRST_CALL, folder, metric, variables=variables))


def first_cell(found: dict[str, Any]) -> str:
    return readable(found["seconds"]) + (" N" if found["numba"] else "")


SECTIONS: dict[str, Callable[[Sizes], Section]] = {
    "greedy": greedy,
    "hard": hard,
    "exhaustive": exhaustive,
    "diversity": diversity,
    "disk": disk,
    "memory": memory,
    "first": first,
}


if __name__ == "__main__":
    main()
