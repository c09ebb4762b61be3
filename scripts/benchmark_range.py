#!/usr/bin/env python3
"""What the range test is worth: the default preset over the optimiser's fixed range, and over the one that is found.

Pools are kept under ``--home`` and resumed.

Example::

    python scripts/benchmark_range.py --data digits --model mlp --epochs 20 --splits 3
    python scripts/benchmark_range.py --data letter.npz --train-size 2000 --val-size 1000 --epochs 15 --splits 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from benchmark_tools import table

import lrensemble as lre
from lrensemble.policies import RATE_RANGES
from lrensemble.training.rates import range_path
from lrensemble.tuning import range_test

COLUMNS = ["optimiser", "splits", "range", "best %", "median %", "diverged", "ensemble %", "ensemble NLL"]


def main() -> None:
    args = parse_arguments()
    rows = []
    for optimizer in args.optimizers:
        for policies in ("default", "auto"):
            found = [one_split(args, optimizer, policies, seed) for seed in range(args.splits)]
            ranges = ", ".join(dict.fromkeys(text for text, _ in found))
            means = np.mean([scores for _, scores in found], axis=0)
            rows.append([optimizer, args.splits, ranges, *(f"{mean:.2f}" for mean in means[:4]), f"{means[4]:.3f}"])
    print(table(rows, COLUMNS))


def one_split(args: argparse.Namespace, optimizer: str, policies: str, seed: int) -> tuple[str, list[float]]:
    """Range of base rates; best and median accuracy (%), diverged members, accuracy and NLL of the ensemble."""
    common = {"model": args.model, "optimizer": optimizer, "split_seed": seed, "train_size": args.train_size}
    common |= {"val_size": args.val_size, "test_size": args.test_size, "jobs": args.jobs, "progress": False}
    path = args.home / f"{Path(args.data).stem}-{args.model}-{optimizer}-{seed}-{policies}"
    pool = lre.train_pool(args.data, policies=policies, epochs=args.epochs, path=path, save_weights=False, **common)
    low, high = RATE_RANGES[optimizer]
    if policies == "auto":
        low, high = range_test(args.data, method="grid", path=range_path(path), **common).recommended
    last = [100 * summary.val_accuracy for summary in pool.summaries() if summary.status == "done"]
    report = lre.evaluate(pool, lre.select(pool, resplits=0))
    scores = report.rows[0].metrics
    lost = len(pool) - len(last)
    told = [max(last), float(np.median(last)), lost, 100 * scores["accuracy"].value, scores["nll"].value]
    return f"{low:g}–{high:g}", told


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="as for `lrensemble train --data`")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--optimizers", nargs="+", default=["momentum", "sgd", "adam"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--val-size", type=int)
    parser.add_argument("--test-size", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--home", type=Path, default=Path("checkpoints/benchmark-range"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
