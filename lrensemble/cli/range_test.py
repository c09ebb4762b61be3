"""range-test: find the usable learning rates by short trainings."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from lrensemble.cli.common import add_experiment_flags, add_json_flag, number, print_json, training_from, whole
from lrensemble.errors import lookup

EPILOG = """examples:
  lrensemble range-test --data digits --model mlp --out range.png
  lrensemble range-test --data mnist5k --model lenet --optimizer adam --method grid
  lrensemble range-test --lowest 1e-4 --highest 1 --points 9
A pool over the range that is found: lrensemble train POOL --policies auto"""

WITHOUT = ("--policies", "--halving", "--budget", "--lr-range", "--epochs", "--snapshots", "--common-seed", "--folds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--method", default="both", metavar="NAME", help="grid of constant rates, sweep of a rising one, both (default)"
    )
    parser.add_argument("--lowest", type=number, metavar="LR", help="lowest rate of the grid (default: searched for)")
    parser.add_argument("--highest", type=number, metavar="LR", help="highest rate of the grid")
    parser.add_argument("--points", type=whole, metavar="N", help="rates of the grid (default: four a decade)")
    parser.add_argument(
        "--epochs",
        dest="short_epochs",
        type=whole,
        metavar="E",
        help="of a short training, at most 32 steps each (default 3, or what 50 steps need)",
    )
    parser.add_argument("--out", metavar="FILE.png", help="figure to write (.png, .svg, .pdf)")
    parser.add_argument(
        "--pool", metavar="DIR", help="pool of the short trainings (default checkpoints/<data>-<model>-range)"
    )
    add_json_flag(parser)
    add_experiment_flags(parser, without=WITHOUT)


def execute(args: argparse.Namespace) -> None:
    """Test the range and print what is found; draw it."""
    from lrensemble.reporting import plot_range_test
    from lrensemble.reporting.figures import FORMATS
    from lrensemble.training.allocator import keep_large_blocks
    from lrensemble.tuning import range_test

    if args.out is not None:
        lookup(FORMATS, Path(args.out).suffix.lower(), "figure format")  # before any training
    data, settings = training_from(args)
    keep_large_blocks()  # for members that are trained in this process
    grid = {"lowest": args.lowest, "highest": args.highest, "points": args.points, "method": args.method}
    with redirect_stdout(sys.stderr):  # what the user's own data or network prints is no result
        result = range_test(
            data, **grid, epochs=args.short_epochs, seeds=getattr(args, "seeds", 1), **{**settings, "path": args.pool}
        )
    figure = plot_range_test(result, args.out) if args.out is not None else None
    if args.json:
        print_json({**result.to_dict(), "figure": None if figure is None else str(figure)})
        return
    print(f"{result}\n\npool     {result.pool}")
    if figure is not None:
        print(f"figure   {figure}")
