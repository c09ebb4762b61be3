"""run: the whole road: train a pool, select ensembles, evaluate them on test data."""

from __future__ import annotations

import argparse
import sys
import textwrap
from contextlib import redirect_stdout

from lrensemble.cli.common import (
    METHODS_FLAG,
    OPTIONS_FLAG,
    POOL_FLAG,
    add_experiment_flags,
    add_flag,
    add_json_flag,
    add_selection_flags,
    experiment_from,
    print_json,
)

EPILOG = """examples:
  lrensemble run                                     digits, a small MLP, 16 policies
  lrensemble run --data mnist5k --model lenet --train-size 1000 --method greedy diversity-ck
  lrensemble run --method auto greedy --option greedy.rounds=50
  lrensemble run experiment.toml --jobs 4            a file; flags win over it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("experiment", nargs="?", metavar="EXPERIMENT.toml", help="settings; flags win over them")
    add_flag(parser, POOL_FLAG)
    add_flag(parser, METHODS_FLAG)
    add_flag(parser, OPTIONS_FLAG)
    add_json_flag(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of experiment files and stop")
    add_experiment_flags(parser)
    add_selection_flags(parser)


def execute(args: argparse.Namespace) -> None:
    """Run the experiment; print table, verdict and paths."""
    if args.schema:
        from lrensemble.experiment import Experiment

        print_json(Experiment.json_schema())
        return
    plan = experiment_from(args, args.experiment)
    from lrensemble.reporting import resplit_line
    from lrensemble.road import run
    from lrensemble.training.allocator import keep_large_blocks

    keep_large_blocks()  # for members that are trained in this process
    with redirect_stdout(sys.stderr):  # what the user's own data or network prints is no result
        outcome = run(plan, progress=not args.quiet)
    paths = {name: str(path) for name, path in outcome.paths.items()}
    if args.json:
        print_json({**outcome.report.to_dict(), "paths": paths})
        return
    print(outcome.report)
    for ensemble in outcome.ensembles:
        if line := resplit_line(ensemble):
            print(f"\n{textwrap.fill(f'{ensemble.method}, chosen on validation: {line}', 100)}")
    print()
    width = 1 + max(map(len, paths))
    for name, path in paths.items():
        print(f"{name:{width}}{path}")
