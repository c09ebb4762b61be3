"""list: list what there is to choose from: models, data sets, selectors, metrics and more."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from lrensemble.cli.common import add_json_flag, print_json

EPILOG = """examples:
  lrensemble list selectors                          methods of `lrensemble select`, with their options
  lrensemble list metrics                            what a selection can optimise"""
WIDTHS = (None, 40, 42)  # of the table of selectors

TABLES = {
    "models": ("lrensemble.models", "MODELS"),
    "datasets": ("lrensemble.data", "DATASETS"),
    "augmentations": ("lrensemble.data.augment", "AUGMENTATIONS"),
    "optimizers": ("lrensemble.training", "OPTIMIZERS"),
    "engines": ("lrensemble.training.engines", "ENGINES"),
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
    found = getattr(import_module(module), table)
    entries = {name: _described(entry) for name, entry in found.items()}
    options = {name: entry.defaults for name, entry in found.items() if hasattr(entry, "defaults")}
    if args.json:
        print_json(entries if not options else _with_options(entries, options))
        return
    from lrensemble.reporting import plain_table

    if not options:
        print(plain_table(list(entries.items()), args.table, ""))
        return
    rows = [
        (name, text, ", ".join(f"{key}={value}" for key, value in options[name].items()))
        for name, text in entries.items()
    ]
    print(plain_table(rows, args.table, "", "options and their defaults", widths=WIDTHS))


def _described(entry: Any) -> str:
    if not hasattr(entry, "higher_is_better"):
        return str(entry.description)
    return f"{entry.description} ({'higher' if entry.higher_is_better else 'lower'} is better)"


def _with_options(entries: dict[str, str], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: {"description": text, "options": options[name]} for name, text in entries.items()}
