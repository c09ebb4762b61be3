"""explain: show what each member brings to an ensemble, and what each of the others would, on validation data."""

from __future__ import annotations

import argparse

from lrensemble.cli.common import add_json_flag, print_json

EPILOG = """examples:
  lrensemble explain checkpoints/digits checkpoints/digits/ensembles/greedy-nll.json
  lrensemble explain checkpoints/digits best.json --metric accuracy
Columns: score and rank of the member by itself; without it: change of the metric when it is left out of the team;
if added: change when it comes into the team with the average weight; most like: the member of the team that predicts
the same on most samples. Changes are of the metric as it is: where nll rises without a member, it helps."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pool", metavar="POOL", help="folder of the pool")
    parser.add_argument("ensemble", metavar="ENSEMBLE.json", help="written by `lrensemble select`")
    parser.add_argument("--metric", metavar="METRIC", help="default: the one that the ensemble was chosen by")
    add_json_flag(parser)


def execute(args: argparse.Namespace) -> None:
    """Explain; print the roles of the members."""
    from lrensemble.ensemble import Ensemble
    from lrensemble.pool import Pool
    from lrensemble.selection import explain

    found = explain(Pool.open(args.pool), Ensemble.load(args.ensemble), metric=args.metric)
    if args.json:
        print_json(found.to_dict())
    else:
        print(found)
