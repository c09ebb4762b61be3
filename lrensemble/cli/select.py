"""select: choose an ensemble from a pool, on validation data only."""

from __future__ import annotations

import argparse
from typing import Any

from lrensemble.cli.common import SELECTION_FLAGS, add_json_flag, add_selection_flags, parse_options, print_json
from lrensemble.errors import InputError

EPILOG = """examples:
  lrensemble select checkpoints/digits
  lrensemble select checkpoints/digits --method auto          compares methods on re-splits of validation
  lrensemble select checkpoints/digits --method exhaustive --metric accuracy --out best.json
  lrensemble select checkpoints/digits --method greedy --option replacement=false rounds=10
  lrensemble select checkpoints/digits --method auto --option "candidates=['greedy(bags=20)', 'convex']"
What each member brings to the team: `lrensemble explain POOL ENSEMBLE.json`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pool", metavar="POOL", help="folder of the pool")
    parser.add_argument(
        "--method", default="greedy", metavar="NAME", help="`lrensemble list selectors`; default greedy"
    )
    parser.add_argument("--out", metavar="FILE.json", help="default POOL/ensembles/<method>-<metric>….json")
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the method (`lrensemble list selectors`), such as rounds=50",
    )
    add_json_flag(parser)
    add_selection_flags(parser)


def execute(args: argparse.Namespace) -> None:
    """Select, save and print the ensemble."""
    from pathlib import Path

    from lrensemble.pool import Pool
    from lrensemble.reporting import ensemble_table
    from lrensemble.road import ensemble_name
    from lrensemble.selection import select
    from lrensemble.selection.resplit import RESPLITS

    settings = {flag.setting.split(".")[1]: flag.setting for flag in SELECTION_FLAGS if flag.setting in vars(args)}
    given = {name: getattr(args, setting) for name, setting in settings.items()}
    options = _options(args.option)
    if args.out is not None and (not args.out or Path(args.out).is_dir()):
        raise InputError(f"expected a file to write as --out, got '{args.out}'")
    pool = Pool.open(args.pool)
    ensemble = select(pool, method=args.method, **{"resplits": RESPLITS, **given}, **options)
    named = ensemble_name(ensemble)
    out = ensemble.save(args.out) if args.out is not None else pool.save_ensemble(ensemble, named)
    if args.json:
        print_json({**ensemble.to_dict(), "path": str(out)})
    else:
        print(ensemble_table(ensemble))
        print(f"\nensemble {out}")


def _options(texts: list[str]) -> dict[str, Any]:
    options = parse_options(texts)
    flags = {"source", "method", *(flag.setting.split(".")[1] for flag in SELECTION_FLAGS)}
    for key in options:
        if key in flags:
            raise InputError(f"expected options of the method only, got {key}: see `lrensemble select --help`")
    return options
