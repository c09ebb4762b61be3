"""verify: find out whether a learning-rate policy reaches a target accuracy within a budget."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout

from lrensemble.cli.common import (
    POOL_FLAG,
    add_experiment_flags,
    add_flag,
    add_json_flag,
    number,
    print_json,
    training_from,
    whole,
)

EPILOG = """examples:
  lrensemble verify --data digits --model mlp --policy "FIX(0.05)" --target 0.95
  lrensemble verify --policy "COSRSW(k0=0, k1=0.1, l=25%)" --target 0.97 --epochs 20 --max-steps 200 --seeds 3
Exit code 0: it passes; 3: it does not. The trainings are members of the pool; the same command trains nothing again,
and with a larger budget or another target it goes on."""

FAILED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--policy", required=True, metavar="TEXT", help="one policy (`lrensemble policies list`)")
    parser.add_argument(
        "--target", required=True, type=number, metavar="SHARE", help="validation accuracy to be reached, such as 0.9"
    )
    parser.add_argument(
        "--max-steps",
        type=whole,
        metavar="S",
        help="budget in optimiser steps; without --epochs the training is as long as fits",
    )
    parser.add_argument(
        "--share", type=number, default=1.0, metavar="X", help="part of the seeds that has to pass (default 1: all)"
    )
    parser.add_argument(
        "--early",
        default="certain",
        choices=("certain", "likely", "never"),
        help="stop before the budget is used up where failure is certain (default), or likely by an estimate",
    )
    parser.add_argument("--keep-training", action="store_true", help="then train to the end, for full members")
    add_flag(parser, POOL_FLAG)
    add_json_flag(parser)
    add_experiment_flags(parser, without=("--policies", "--halving", "--budget", "--lr-range"))


def execute(args: argparse.Namespace) -> int:
    """Verify and print the verdict; return 0 for PASS and 3 for FAIL."""
    from lrensemble.training.allocator import keep_large_blocks
    from lrensemble.tuning import verify

    data, settings = training_from(args)
    keep_large_blocks()  # for members that are trained in this process
    epochs, seeds = getattr(args, "train.epochs", None), getattr(args, "seeds", 1)
    asked = {"target": args.target, "max_steps": args.max_steps, "share": args.share, "early": args.early}
    with redirect_stdout(sys.stderr):  # what the user's own data or network prints is no result
        verdict = verify(
            data, args.policy, epochs=epochs, seeds=seeds, keep_training=args.keep_training, **asked, **settings
        )
    if args.json:
        print_json(verdict.to_dict())
    else:
        print(f"{verdict}\n\npool     {verdict.pool}")
    return 0 if verdict else FAILED
