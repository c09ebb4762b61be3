"""store: what trainings have taught about policies, problem by problem: list, show, export, add pools."""

from __future__ import annotations

import argparse
import csv
import io
import json
from typing import Any

from lrensemble.cli.common import add_json_flag, print_json

EPILOG = """examples:
  lrensemble store add checkpoints/digits-mlp        what a pool knows becomes part of the store
  lrensemble store list
  lrensemble store show digits-mlp                   a problem, by the beginning of its name
  lrensemble store export --out store.csv
  lrensemble store list --store postgresql://user@host/tuning
The store is an Optuna storage: its dashboard opens on it (optuna-dashboard sqlite:///checkpoints/store.db)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all problems: trainings, best accuracy and policy")
    listing.set_defaults(act=_list)
    show = actions.add_parser("show", help="the policies of one problem, the best first")
    show.add_argument("problem", metavar="PROBLEM", help="its name, or the beginning of it")
    show.set_defaults(act=_show)
    export = actions.add_parser("export", help="every training as a row of CSV, or with its curve as JSON")
    export.add_argument("problem", nargs="?", metavar="PROBLEM", help="one problem (default: all)")
    export.add_argument("--out", metavar="FILE", help="file to write, .csv or .json (default: print)")
    export.set_defaults(act=_export)
    add = actions.add_parser("add", help="add the members of pools")
    add.add_argument("pool", nargs="+", metavar="POOL", help="folder of a pool")
    add.set_defaults(act=_add)
    for action in (listing, show, export, add):
        action.add_argument(
            "--store",
            metavar="URL_OR_FILE",
            help="file (SQLite) or postgresql://USER:PASSWORD@HOST/DATABASE (default checkpoints/store.db)",
        )
        add_json_flag(action)


def execute(args: argparse.Namespace) -> None:
    """Run the chosen action."""
    args.act(args)


def _opened(args: argparse.Namespace, *, create: bool = False) -> Any:
    from lrensemble.tuning import Store

    return Store.open(args.store, create=create)


def _list(args: argparse.Namespace) -> None:
    with _opened(args) as store:
        entries = store.info()
    if args.json:
        print_json(entries)
        return
    from lrensemble.reporting import plain_table

    rows = [(e["key"], e["trials"], _percent(e["best_accuracy"]), e["best_policy"] or "-") for e in entries]
    print(f"store    {store.name}: {len(rows)} problem(s)")
    print(plain_table(rows, "problem", "trainings", "accuracy", "best policy"))


def _show(args: argparse.Namespace) -> None:
    with _opened(args) as store:
        problem = store.find(args.problem)
        policies = store.policies(problem)
    if args.json:
        print_json({"key": problem.key, **problem.to_dict(), "policies": [found.to_dict() for found in policies]})
        return
    from lrensemble.reporting import plain_table

    rows = [
        (
            f.policy,
            _percent(f.accuracy),
            _percent(f.sd),
            f.seeds,
            f.diverged,
            f.stopped,
            "-" if f.steps_to_best is None else f"{f.steps_to_best:.0f}",
            "-" if f.seconds is None else f"{f.seconds:.2f}",
        )
        for f in policies
    ]
    print(f"problem  {problem.key}")
    print(f"data     {problem.data}: {problem.n_train} training samples, {problem.n_classes} classes")
    print(f"network  {problem.model}: {problem.parameters} parameters, {problem.optimizer}, {problem.epochs} epochs")
    print(
        plain_table(rows, "policy", "accuracy", "± sd", "finished", "diverged", "stopped", "steps to best", "seconds")
    )


def _export(args: argparse.Namespace) -> None:
    from pathlib import Path

    from lrensemble.errors import InputError
    from lrensemble.files import write_text_atomic

    suffix = Path(args.out).suffix.lower() if args.out else ".json" if args.json else ".csv"
    if suffix not in (".csv", ".json"):
        raise InputError(f"--out: expected a file that ends in .csv or .json, got '{args.out}'")
    with _opened(args) as store:
        records = store.export(store.find(args.problem) if args.problem else None)
    text = json.dumps(records, indent=2, allow_nan=False) + "\n" if suffix == ".json" else _csv(records)
    if args.out:
        write_text_atomic(Path(args.out), text)
        print_json({"file": args.out, "trainings": len(records)}) if args.json else print(f"written  {args.out}")
    else:
        print(text, end="")


def _csv(records: list[dict[str, Any]]) -> str:
    from lrensemble.tuning.store import EXPORTED

    out = io.StringIO()
    table = csv.DictWriter(
        out, [name for name in EXPORTED if name != "curve"], extrasaction="ignore", lineterminator="\n"
    )
    table.writeheader()
    table.writerows(records)
    return out.getvalue()


def _add(args: argparse.Namespace) -> None:
    from lrensemble.pool import Pool

    pools = [Pool.open(path) for path in args.pool]  # all of them, before anything is written
    with _opened(args, create=True) as store:
        results = [(pool, store.add_pool(pool)) for pool in pools]
    if args.json:
        print_json([{"pool": str(pool.path), **added.to_dict()} for pool, added in results])
        return
    for pool, added in results:
        print(f"added    {pool.path}: {added.new} new, {added.known} known, {added.left_out} left out")
    print(f"store    {store.name}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
