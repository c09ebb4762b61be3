"""list: list what there is to choose from: models, data sets, selectors, metrics and more."""

from __future__ import annotations

import argparse
from importlib import import_module

from lrensemble.cli.common import add_json_flag, print_json

EPILOG = ""

TABLES = {
    "models": ("lrensemble.models", "MODELS"),
    "datasets": ("lrensemble.data", "DATASETS"),
    "augmentations": ("lrensemble.data.augment", "AUGMENTATIONS"),
    "optimizers": ("lrensemble.training", "OPTIMIZERS"),
    "selectors": ("lrensemble.selection", "SELECTORS"),
    "combiners": ("lrensemble.combine", "COMBINERS"),
    "metrics": ("lrensemble.metrics", "METRICS"),
    "diversity": ("lrensemble.diversity", "DIVERSITY"),
    "presets": ("lrensemble.policies", "PRESETS"),
    "policies": ("lrensemble.policies", "POLICIES"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("table", choices=TABLES, metavar="TABLE", help=", ".join(TABLES))
    add_json_flag(parser)


def execute(args: argparse.Namespace) -> None:
    """Print the names of a table and what each is."""
    module, table = TABLES[args.table]
    entries = {name: entry.description for name, entry in getattr(import_module(module), table).items()}
    if args.json:
        print_json(entries)
    else:
        from lrensemble.reporting import plain_table

        print(plain_table(list(entries.items()), args.table, ""))
