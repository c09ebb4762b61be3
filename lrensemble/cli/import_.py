"""import: make a pool from saved predictions of networks that were trained anywhere."""

from __future__ import annotations

import argparse

EPILOG = """Arrays are .npy, .npz or .csv: one of shape (members, samples, classes), or one a member, each
of shape (samples, classes).
examples:
  lrensemble import mine --val-logits v.npy --test-logits t.npy --val-labels vy.npy --test-labels ty.npy
  lrensemble import mine --probabilities --val-logits a.csv b.csv --test-logits c.csv d.csv \\
      --val-labels vy.csv --test-labels ty.csv --names resnet,vit"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pool", metavar="POOL", help="folder of the new pool")
    for split in ("val", "test"):
        parser.add_argument(f"--{split}-logits", required=True, nargs="+", metavar="FILE", help=f"{split} outputs")
        parser.add_argument(f"--{split}-labels", required=True, metavar="FILE", help=f"{split} labels, integers")
    parser.add_argument("--probabilities", action="store_true", help="the outputs are probabilities, not logits")
    parser.add_argument("--names", metavar="A,B,...", help="names of the members (default: file names, or m0, m1, …)")
    parser.add_argument("--class-names", metavar="A,B,...", help="names of the classes (default 0, 1, …)")


def execute(args: argparse.Namespace) -> None:
    """Import, and print what the pool holds."""
    from lrensemble.pool import import_arrays
    from lrensemble.reporting import pool_summary

    pool = import_arrays(
        args.pool,
        val_logits=_one_or_many(args.val_logits),
        test_logits=_one_or_many(args.test_logits),
        val_labels=args.val_labels,
        test_labels=args.test_labels,
        names=None if args.names is None else args.names.split(","),
        class_names=None if args.class_names is None else args.class_names.split(","),
        probabilities=args.probabilities,
    )
    print(pool_summary(pool.info(), pool.summaries()))


def _one_or_many(files: list[str]) -> str | list[str]:
    return files[0] if len(files) == 1 else files
