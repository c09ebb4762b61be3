"""inspect: show what is in a pool: members, policies, validation metrics, sizes, health."""

from __future__ import annotations

import argparse

from lrensemble.cli.common import add_json_flag, print_json

EPILOG = """examples:
  lrensemble inspect checkpoints/digits
  lrensemble inspect checkpoints/digits --verify     read every byte and compare checksums
Scores are on validation data; test data is for `lrensemble evaluate`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pool", metavar="POOL", help="folder of the pool")
    parser.add_argument("--verify", action="store_true", help="read everything and compare checksums")
    add_json_flag(parser)


def execute(args: argparse.Namespace) -> None:
    """Print the pool's contents; with ``--verify``, fail when something in it is damaged."""
    from lrensemble.errors import DamagedError
    from lrensemble.pool import Pool
    from lrensemble.reporting import pool_summary

    pool = Pool.open(args.pool)
    damaged = pool.verify() if args.verify else []
    if args.json:
        print_json(pool.info())
    else:
        print(pool_summary(pool.info(), pool.summaries()))
    if damaged:
        raise DamagedError(f"expected a sound pool, got one with {len(damaged)} problem(s), listed above")
