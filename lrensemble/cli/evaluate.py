"""evaluate: score an ensemble and its baselines on the pool's test data."""

from __future__ import annotations

import argparse

from lrensemble.cli.common import add_json_flag, print_json

EPILOG = """examples:
  lrensemble evaluate checkpoints/digits checkpoints/digits/ensembles/greedy-nll.json
With several ensembles, the verdict is about the first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pool", metavar="POOL", help="folder of the pool")
    parser.add_argument("ensemble", nargs="+", metavar="ENSEMBLE.json", help="written by `lrensemble select`")
    add_json_flag(parser)


def execute(args: argparse.Namespace) -> None:
    """Evaluate; print table, verdict and paths."""
    from pathlib import Path

    from lrensemble.ensemble import Ensemble
    from lrensemble.pool import Pool
    from lrensemble.road import evaluate_and_write

    pool = Pool.open(args.pool)
    ensembles = tuple(Ensemble.load(path) for path in args.ensemble)
    report, paths = evaluate_and_write(pool, ensembles, Path(args.ensemble[0]).stem)
    if args.json:
        print_json({**report.to_dict(), "paths": {name: str(path) for name, path in paths.items()}})
        return
    print(report)
    print()
    for name, path in paths.items():
        print(f"{name:9}{path}")
