"""evaluate: score an ensemble and its baselines on the pool's test data."""

from __future__ import annotations

import argparse
from typing import Any

from lrensemble.cli.common import add_json_flag, print_json
from lrensemble.errors import InputError

EPILOG = """examples:
  lrensemble evaluate checkpoints/digits checkpoints/digits/ensembles/greedy-nll.json
  lrensemble evaluate checkpoints/digits greedy.json --split rotated=rotated.npz --control checkpoints/digits-seeds
With several ensembles, the verdict is about the first. A split is an .npz file with the array logits or probabilities
(members, samples, classes), with labels (samples) unless the classes are unknown to the networks, and with members
(their names) unless they are in the order of the pool."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pool", metavar="POOL", help="folder of the pool")
    parser.add_argument("ensemble", nargs="+", metavar="ENSEMBLE.json", help="written by `lrensemble select`")
    parser.add_argument(
        "--split",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE.npz",
        help="outputs of the same networks on further data: shifted, or of unknown classes",
    )
    parser.add_argument(
        "--control", metavar="POOL", help="pool of one policy and other seeds, on which the selection is repeated"
    )
    add_json_flag(parser)


def execute(args: argparse.Namespace) -> None:
    """Evaluate; print table, verdict and paths."""
    from pathlib import Path

    from lrensemble.ensemble import Ensemble
    from lrensemble.pool import Pool
    from lrensemble.road import evaluate_and_write

    repeated = [path for path in args.ensemble if args.ensemble.count(path) > 1]
    if repeated:
        raise InputError(f"expected each ensemble once, got '{repeated[0]}' {args.ensemble.count(repeated[0])} times")
    pool = Pool.open(args.pool)
    ensembles = tuple(Ensemble.load(path) for path in args.ensemble)
    control = None if args.control is None else Pool.open(args.control)
    report, paths = evaluate_and_write(
        pool, ensembles, Path(args.ensemble[0]).stem, shifts=_splits(args.split), control=control
    )
    if args.json:
        print_json({**report.to_dict(), "paths": {name: str(path) for name, path in paths.items()}})
        return
    print(report)
    print()
    for name, path in paths.items():
        print(f"{name:9}{path}")


def _splits(texts: list[str]) -> dict[str, Any]:
    """Arrays of further splits by name."""
    from lrensemble.pool.arrays import load_split

    splits: dict[str, Any] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise InputError(f"expected a split as NAME=FILE.npz, got '{text}'")
        if name in splits:
            raise InputError(f"expected each split once, got '{name}' twice")
        splits[name] = load_split(file)
    return splits
