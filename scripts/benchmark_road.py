#!/usr/bin/env python3
"""The main road on larger real data: every selection method against its baselines, over several splits.

For each split: a pool of the default preset (one training a policy), the best single network by validation accuracy,
every selector of the table, the whole pool; and the control that asks whether other learning rates add anything beyond
other seeds: a pool of the same size, all under the policy that was best on validation. With ``--common-seed`` a second
control asks what it costs when the networks of a pool share initialisation and order of samples, so that they differ by
their learning rates alone. Selection sees validation data only.

Pools are kept under ``checkpoints/benchmark`` and resumed, so that an interrupted run goes on where it stopped.

Example::

    python scripts/benchmark_road.py --data mnist.npz --model lenet --train-size 1000 --epochs 20 --splits 5

The table is Markdown; ``--out FILE.json`` keeps every number behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from pathlib import Path

import numpy as np
import tabulate
import torch
from benchmark_tools import processor

import lrensemble as lre
from lrensemble.errors import InputError
from lrensemble.metrics import METRICS
from lrensemble.selection import SELECTORS

SHOWN = ("accuracy", "nll", "ece")


def main() -> None:
    args = parse_arguments()
    splits = [one_split(args, seed) for seed in range(args.splits)]
    systems = [name for name in splits[0]["systems"] if all(name in split["systems"] for split in splits)]
    text = "\n".join([*header(args, splits), "", table(splits, systems)])
    print(text)
    if args.out:
        Path(args.out).write_text(json.dumps({"header": header(args, splits), "splits": splits}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist5k", help="as for `lrensemble run --data`")
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--policies", default="default", help="a preset")
    parser.add_argument("--train-size", type=int, default=1000)
    parser.add_argument("--val-size", type=int)
    parser.add_argument("--test-size", type=int)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--splits", type=int, default=3, help="splits, each with its own pools (default 3)")
    parser.add_argument("--common-seed", action="store_true", help="a second control: all networks share their start")
    parser.add_argument("--metric", default="nll", help="objective of selection")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--home", default="checkpoints/benchmark", help="folder of the pools")
    parser.add_argument("--out", help="JSON with every number")
    return parser.parse_args()


def one_split(args: argparse.Namespace, seed: int) -> dict:
    """Train the pools of one split and score every system on its test data."""
    start = time.perf_counter()
    pool = train(args, seed, args.policies, seeds=1, suffix="pool")
    validation, test = pool.predictions("val"), pool.predictions("test")
    best = best_single(validation)
    asked = {summary.id: summary.asked for summary in pool.summaries()}
    controls = {"one policy": train(args, seed, asked[best], seeds=len(pool), suffix="seeds")}
    if args.common_seed:
        controls["common seed"] = train(args, seed, args.policies, seeds=1, suffix="common", common_seed=True)
    seconds = time.perf_counter() - start

    systems = {"best single": score(lre.Ensemble((best,), (1.0,)), test)}
    for name in SELECTORS:
        try:
            ensemble = lre.select(pool, method=name, metric=args.metric)
        except InputError as error:
            print(f"{name}: left out ({error})")
            continue
        systems[name] = score(ensemble, test)
    for control, other in controls.items():
        for name in ("whole", "greedy", "stacking"):
            chosen = lre.select(other, method=name, metric=args.metric)
            systems[f"control: {control}, {name}"] = score(chosen, other.predictions("test"))
    members = [float(a) for a in test.correct.mean(axis=1)]
    return {
        "seed": seed,
        "sizes": [validation.n_samples, test.n_samples],
        "members": members,
        "best_policy": asked[best],
        "diverged": len(pool) - test.n_members,
        "systems": systems,
        "seconds": seconds,
    }


def train(args: argparse.Namespace, seed: int, policies: str, *, seeds: int, suffix: str, **settings) -> lre.Pool:
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(args.data).stem)
    path = Path(args.home) / f"{name}-{args.model}-{args.train_size}x{args.epochs}-split{seed}-{suffix}"
    return lre.train_pool(
        args.data,
        model=args.model,
        policies=policies,
        seeds=seeds,
        path=path,
        epochs=args.epochs,
        batch_size=args.batch_size,
        train_size=args.train_size,
        val_size=args.val_size,
        test_size=args.test_size,
        split_seed=seed,
        jobs=args.jobs,
        **settings,
    )


def best_single(validation: lre.Predictions) -> str:
    """Name of the member with the highest validation accuracy (ties: the lowest NLL)."""
    keys = [
        (METRICS["accuracy"].function(p, validation.labels), -METRICS["nll"].function(p, validation.labels))
        for p in validation.probabilities
    ]
    return validation.ids[keys.index(max(keys))]


def score(ensemble: lre.Ensemble, test: lre.Predictions) -> dict:
    probabilities = ensemble.probabilities(test)
    scores = {name: float(METRICS[name].function(probabilities, test.labels)) for name in SHOWN}
    return {**scores, "members": len(ensemble)}


def header(args: argparse.Namespace, splits: list[dict]) -> list[str]:
    n_val, n_test = splits[0]["sizes"]
    spread = [100 * a for split in splits for a in split["members"]]
    return [
        f"{Path(args.data).name}, {args.model}: {args.train_size:,} training, {n_val:,} validation, {n_test:,} test "
        "images; "
        f"{len(splits[0]['members'])} members ({args.policies} preset), {args.epochs} epochs, batch {args.batch_size}, "
        f"{len(splits)} splits.",
        f"Members alone: {min(spread):.2f} to {max(spread):.2f} %, mean {statistics.mean(spread):.2f} %; "
        f"{sum(split['diverged'] for split in splits)} diverged. "
        f"Training of all pools: {statistics.mean(split['seconds'] for split in splits) / 60:.1f} minutes a split.",
        f"{os.cpu_count()} × {processor()}, torch {torch.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}, lrensemble {lre.__version__}.",
    ]


def table(splits: list[dict], systems: list[str]) -> str:
    single = [split["systems"]["best single"]["accuracy"] for split in splits]
    rows = []
    for names in alike(splits, systems):
        name = " = ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]} ({len(names)} alike)"
        scores = [split["systems"][names[0]] for split in splits]
        gains = [100 * (s["accuracy"] - base) for s, base in zip(scores, single, strict=True)]
        rows.append(
            [
                name,
                f"{statistics.mean(s['members'] for s in scores):.1f}",
                spread([100 * s["accuracy"] for s in scores], 2),
                "–" if name == "best single" else spread(gains, 2, sign=True),
                f"{sum(g > 0 for g in gains)}/{len(gains)}" if name != "best single" else "–",
                spread([s["nll"] for s in scores], 3),
                spread([100 * s["ece"] for s in scores], 1),
            ]
        )
    columns = ["system", "members", "accuracy %", "paired gain", "splits won", "NLL", "ECE %"]
    return tabulate.tabulate(rows, columns, tablefmt="github", disable_numparse=True)


def alike(splits: list[dict], systems: list[str]) -> list[list[str]]:
    """Names of the systems; those that chose teams of the same scores on every split stand together."""
    groups: dict[str, list[str]] = {}
    for name in systems:
        groups.setdefault(str([split["systems"][name] for split in splits]), []).append(name)
    return list(groups.values())


def spread(values: list[float], digits: int, *, sign: bool = False) -> str:
    mean = f"{statistics.mean(values):{'+' if sign else ''}.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
