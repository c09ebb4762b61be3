"""train: train a pool of networks, one under each learning-rate policy and seed."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout

from lrensemble.cli.common import add_experiment_flags, add_json_flag, experiment_from, print_json

EPILOG = """examples:
  lrensemble train checkpoints/digits --data digits --model mlp --seeds 2
  lrensemble train pool --data mine.npz --model "mlp(hidden=256)" --policies lrensemble "FIX(0.05)"
Interrupted? The same command goes on from where it stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pool", metavar="POOL", help="folder of the pool; made when it does not exist")
    parser.add_argument("--config", metavar="EXPERIMENT.toml", help="settings; flags win over them")
    add_json_flag(parser)
    add_experiment_flags(parser)


def execute(args: argparse.Namespace) -> None:
    """Train what is missing of the pool; print its members."""
    plan = experiment_from(args, args.config)
    from lrensemble.reporting import members_table, stopped_table
    from lrensemble.road import train
    from lrensemble.training.allocator import keep_large_blocks

    keep_large_blocks()  # for members that are trained in this process
    with redirect_stdout(sys.stderr):  # what the user's own data or network prints is no result
        pool = train(plan, progress=not args.quiet)
    if args.json:
        print_json(pool.info())
    else:
        print(members_table(pool.summaries()))
        if stopped := stopped_table(pool.info()["stopped"]):
            print(f"\n{stopped}")
        print(f"\npool     {pool.path}")
