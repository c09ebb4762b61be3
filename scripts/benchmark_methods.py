#!/usr/bin/env python3
"""Every method of selection on real pools: what it promises on validation data, and what it keeps on test data.

For each pool and objective one table: every method of ``SELECTORS`` with its default options, its score on the
validation data that it chose on, the same cross-validated on re-splits of validation, accuracy and NLL on test data,
the gain over the best single network there, members, seconds. ``best``, ``whole`` and ``random`` are the baselines.

Examples::

    python scripts/benchmark_methods.py checkpoints/digits checkpoints/mine --json methods.json
    python scripts/benchmark_methods.py --make checkpoints/methods --json methods.json --write docs/benchmarks.md

``--make`` trains three pools on data that ships inside Python packages, about five minutes each on two cores; an
interrupted training goes on where it stopped. Pools in the JSON file are not run again with ``--resume``.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import ascii_letters
from typing import Any

import numpy as np
from benchmark_tools import describe, fill_page, machine, readable, say, table

import lrensemble as lre
from lrensemble.errors import InputError
from lrensemble.metrics import METRICS
from lrensemble.selection import SELECTORS, cross_validate

DRAWS = 20  # teams of the method that draws at random: its scores are means over as many seeds
BASELINES = ("best", "whole", "random")
SHOWN = ("accuracy", "nll")

POOLS: dict[str, dict[str, Any]] = {
    "digits-mlp": {"data": "digits", "model": "mlp", "epochs": 30, "train_size": 400, "val_size": 600},
    "mnist5k-lenet": {"data": "mnist5k", "model": "lenet", "epochs": 15, "train_size": 1000, "val_size": 2000},
    "mnist5k-mlp": {"data": "mnist5k", "model": "mlp", "seeds": 3, "epochs": 15, "train_size": 1000, "val_size": 2000},
}


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    made = [made_pool(args, name) for name in POOLS] if args.make else []
    results = json.loads(args.json.read_text(encoding="utf-8")) if args.json and args.json.exists() else {"pools": {}}
    for path in [*args.pools, *made]:
        if args.resume and path.name in results["pools"]:
            continue
        say(f"{path}")
        results["pools"][path.name] = {**one_pool(path, args), "machine": machine()}
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join(markdown(name, found) for name, found in results["pools"].items())
    if args.write:
        fill_page(args.write, {"methods": text})
    else:
        print(text)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", nargs="*", type=Path, metavar="POOL", help="folders of pools")
    parser.add_argument("--make", type=Path, metavar="DIR", help=f"train pools there first: {', '.join(POOLS)}")
    parser.add_argument("--jobs", type=int, help="trainings at a time, for --make")
    parser.add_argument("--metric", nargs="+", default=["nll"], help="objectives of selection (default nll)")
    parser.add_argument("--methods", nargs="+", choices=SELECTORS, default=list(SELECTORS), metavar="METHOD")
    parser.add_argument("--resplits", type=int, default=10, help="of cross-validation; 0 leaves it out (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every number; pools in it that are not run stay")
    parser.add_argument("--resume", action="store_true", help="leave out the pools that are in the JSON file")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="put the tables between the markers of a page")
    args = parser.parse_args(arguments)
    if not args.pools and not args.make:
        parser.error("expected pools, or --make DIR to train some")
    return args


def made_pool(args: argparse.Namespace, name: str) -> Path:
    """Train one of the pools, or what is missing of it."""
    settings = dict(POOLS[name])
    return lre.train_pool(settings.pop("data"), path=args.make / name, jobs=args.jobs, **settings).path


def one_pool(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run all methods with all objectives on one pool."""
    pool = lre.Pool.open(path)
    validation, test = pool.predictions("val"), pool.predictions("test")
    accuracies = test.correct.mean(axis=1)
    others = [name for name in args.methods if name not in BASELINES]
    tables = {}
    for metric in args.metric:
        runs, refused = {}, {}
        for method in [*(name for name in BASELINES if name in args.methods), *others]:
            say(f"  {metric}: {method}")
            try:
                runs[method] = one_method(validation, test, method, metric, args.resplits)
            except InputError as error:
                refused[method] = str(error)
        tables[metric] = {"methods": marked(runs), "refused": refused}
    return {
        "data": pool.name,
        "shape": validation.logits.shape,
        "n_test": test.n_samples,
        "single": [float(accuracies.min()), float(accuracies.mean()), float(accuracies.max())],
        "tables": tables,
    }


def one_method(
    validation: lre.Predictions, test: lre.Predictions, method: str, metric: str, resplits: int
) -> dict[str, Any]:
    """Choose on validation, score on test."""
    seeds = range(DRAWS) if method == "random" else range(1)
    lre.select(copy.copy(validation), method=method, metric=metric)  # loads what the first call has to load
    start = time.perf_counter()
    chosen = [lre.select(copy.copy(validation), method=method, metric=metric, seed=seed) for seed in seeds]
    seconds = (time.perf_counter() - start) / len(chosen)
    single = lre.select(validation, method="best", metric=metric)
    right = hits(single, test)
    gains = np.mean([hits(ensemble, test) - right for ensemble in chosen], axis=0)
    found = cross_validate(validation, method=method, metric=metric, resplits=resplits) if resplits else None
    return {
        "validation": mean(ensemble.score for ensemble in chosen),
        "cross_validated": None if found is None else [found.score, found.error],
        "test": {name: mean(score(ensemble, test, name) for ensemble in chosen) for name in SHOWN},
        "gain": [float(gains.mean()), float(gains.std() / len(gains) ** 0.5)],
        "members": mean(len(ensemble) for ensemble in chosen),
        "seconds": seconds,
        "team": None if len(chosen) > 1 else dict(zip(chosen[0].members, chosen[0].weights, strict=True)),
        "stacked": chosen[0].stacker is not None,
        "reason": chosen[0].reason,
    }


def hits(ensemble: lre.Ensemble, test: lre.Predictions) -> np.ndarray:
    return (ensemble.probabilities(test).argmax(axis=1) == test.labels).astype(float)


def score(ensemble: lre.Ensemble, test: lre.Predictions, metric: str) -> float:
    return float(METRICS[metric].function(ensemble.probabilities(test), test.labels))


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def marked(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give each team that several methods chose (members and weights) a letter."""
    groups: dict[str, list[str]] = {}
    for method, run in runs.items():
        if run["team"] is not None and not run["stacked"]:
            weights = sorted((member, round(weight, 9)) for member, weight in run["team"].items())
            groups.setdefault(str(weights), []).append(method)
    shared = [methods for methods in groups.values() if len(methods) > 1]
    letters = {method: letter for methods, letter in zip(shared, ascii_letters, strict=False) for method in methods}
    return {method: {**run, "mark": letters.get(method, "")} for method, run in runs.items()}


def markdown(name: str, found: dict[str, Any]) -> str:
    members, n_val, classes = found["shape"]
    low, average, high = (100 * accuracy for accuracy in found["single"])
    lines = [
        f"### {name}",
        f"{found['data']}: {members} networks, {n_val:,} validation and {found['n_test']:,} test samples, {classes} "
        f"classes; networks alone: {low:.2f} to {high:.2f} % on test, mean {average:.2f} %.",
    ]
    for metric, runs in found["tables"].items():
        lines.append(f"Chosen by {metric}:\n\n{method_table(runs['methods'], metric)}")
        lines += [f"`{method}` was left out: {reason}." for method, reason in runs["refused"].items()]
    return "\n\n".join([*lines, f"*{describe(found['machine'])}*"])


def method_table(methods: dict[str, dict[str, Any]], metric: str) -> str:
    columns = ["method", "team", "members", f"validation {metric}", "cross-validated"]
    columns += ["test accuracy %", "gain over best single, points", "test NLL", "time"]
    rows = []
    for method, run in methods.items():
        held_out = run["cross_validated"]
        gain, error = (100 * value for value in run["gain"])
        rows.append(
            [
                f"**{method}**" if method in BASELINES else method,
                run["mark"],
                f"{run['members']:.3g}",
                f"{run['validation']:.4f}",
                "–" if held_out is None else f"{held_out[0]:.4f} ± {held_out[1]:.4f}",
                f"{100 * run['test']['accuracy']:.2f}",
                "–" if method == "best" else f"{gain:+.2f} ± {error:.2f}",
                f"{run['test']['nll']:.4f}",
                readable(run["seconds"]),
            ]
        )
    return table(rows, columns)


if __name__ == "__main__":
    main()
