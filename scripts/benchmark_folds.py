#!/usr/bin/env python3
"""Small data: a validation part, or cross-fitting? Accuracy and NLL on test data of pools on the same labelled samples.

For each split, N labelled samples are used in three ways, with the same policies, epochs and steps:

- ``validation``: 80 % train, 20 % validation, one network a policy;
- ``validation, 5 seeds``: the same with five seeds: as many networks, and as long to train, as with five folds;
- ``folds``: five folds of all N; a member is five networks.

Of each pool: the best member by validation accuracy, greedy selection, stacking, and the whole pool, on test data that
nobody has seen.

Example::

    python scripts/benchmark_folds.py --data digits --labelled 300 --splits 10

The table is Markdown; ``--out FILE.json`` keeps every number behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import tabulate
from benchmark_tools import processor

import lrensemble as lre
from lrensemble.metrics import METRICS

SCORES = ("accuracy", "nll")
METHODS = ("greedy", "stacking", "whole")
BASE = "validation, greedy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="as for `lrensemble run --data`")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--policies", default="default", help="a preset")
    parser.add_argument("--labelled", type=int, default=300, help="training and validation samples together")
    parser.add_argument("--test-size", type=int)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--out", help="JSON with every number")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        splits = [one_split(args, seed, Path(home)) for seed in range(args.splits)]
    print(heading := header(args, splits), table(splits), sep="\n\n")
    if args.out:
        Path(args.out).write_text(json.dumps({"header": heading, "splits": splits}, indent=2) + "\n")


def one_split(args: argparse.Namespace, seed: int, home: Path) -> dict:
    """Train the pools of one split and score what is chosen from each."""
    sizes = {"val_size": args.labelled // args.folds, "test_size": args.test_size}
    data = lre.load_data(args.data, train_size=args.labelled - sizes["val_size"], split_seed=seed, **sizes)
    common = {
        "model": args.model,
        "policies": args.policies,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "jobs": args.jobs,
        "save_weights": False,
        "progress": False,
    }
    plain = lre.train_pool(data, seeds=args.folds, path=home / f"plain{seed}", **common)
    folded = lre.train_pool(data, folds=args.folds, split_seed=seed, path=home / f"folds{seed}", **common)
    first = [summary.id for summary in plain.summaries() if summary.seed == 0 and summary.status == "done"]
    systems = {
        **systems_of(plain, "validation", members=first),
        **systems_of(plain, f"validation, {args.folds} seeds"),
        **systems_of(folded, "folds", networks=args.folds),
    }
    return {"seed": seed, "sizes": [len(data.train), len(data.val), len(data.test)], "systems": systems}


def systems_of(pool: lre.Pool, name: str, *, members: list[str] | None = None, networks: int = 1) -> dict:
    """Scores on test data of what is chosen on validation data."""
    validation, test = pool.predictions("val", members), pool.predictions("test", members)
    seconds = sum(s.seconds for s in pool.summaries() if s.id in validation.ids)
    best = max(zip(validation.correct.mean(axis=1), validation.ids, strict=True))[1]
    chosen = {
        "best single": lre.Ensemble((best,), (1.0,)),
        **{method: lre.select(validation, method=method, metric="nll") for method in METHODS},
    }
    found = {}
    for method, ensemble in chosen.items():
        probabilities = ensemble.probabilities(test)
        scores = {score: float(METRICS[score].function(probabilities, test.labels)) for score in SCORES}
        found[f"{name}, {method}"] = {**scores, "networks": networks * len(ensemble), "seconds": seconds}
    return found


def header(args: argparse.Namespace, splits: list[dict]) -> str:
    return (
        f"{Path(args.data).name}, {args.model}: {args.labelled:,} labelled samples, {splits[0]['sizes'][2]:,} for test "
        f"({args.policies} preset, {args.epochs} epochs, batch {args.batch_size}); {len(splits)} splits, mean ± "
        f"standard deviation; differences are paired, to '{BASE}'. {os.cpu_count()} × {processor()}."
    )


def table(splits: list[dict]) -> str:
    rows = []
    for name in splits[0]["systems"]:
        found = [split["systems"][name] for split in splits]
        bases = [split["systems"][BASE] for split in splits]
        gains = {key: [s[key] - b[key] for s, b in zip(found, bases, strict=True)] for key in SCORES}
        rows.append(
            [
                name,
                f"{statistics.mean(s['networks'] for s in found):.1f}",
                spread([100 * s["accuracy"] for s in found], 2),
                "" if name == BASE else spread([100 * g for g in gains["accuracy"]], 2, sign="+"),
                spread([s["nll"] for s in found], 3),
                "" if name == BASE else spread(gains["nll"], 3, sign="+"),
                f"{statistics.mean(s['seconds'] for s in found):.0f}",
            ]
        )
    columns = ["pool, method", "networks that answer", "accuracy %", "difference", "NLL", "difference", "training s"]
    return tabulate.tabulate(rows, columns, tablefmt="github", disable_numparse=True)


def spread(values: list[float], digits: int, *, sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
