"""compose: put a learning-rate policy together segment by segment, each piece the best of several."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any

from lrensemble.cli.common import (
    POOL_FLAG,
    add_experiment_flags,
    add_flag,
    add_json_flag,
    parse_options,
    print_json,
    training_from,
    whole,
)

EPILOG = """examples:
  lrensemble compose --data digits --model mlp --segments 3 --baseline
  lrensemble compose --data digits --model mlp --boundaries 0.5 0.8 --judge end --out composition.png
  lrensemble compose --data digits --model mlp --segments 2 --candidates "FIX(0.05)" "FIX(0.02)" / "POLY(k0=0, k1=0.05)"
  lrensemble compose --data digits --model mlp --method plateau --candidates "FIX(0.05)" "FIX(0.01)" "FIX(0.002)"
All trainings are kept in the pool. Interrupted? The same command goes on from where it stopped."""

WITHOUT = ("--policies", "--seeds", "--snapshots", "--halving", "--budget", "--common-seed")
NEXT_SEGMENT = "/"
OWN = ("method", "segments", "boundaries", "judge", "tail", "keep", "metric", "seed", "baseline", "lr_range")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    own = parser.add_argument_group("composition")
    add = own.add_argument
    add("--segments", type=whole, metavar="N", help="segments of equal length (default 3)", default=argparse.SUPPRESS)
    add(
        "--boundaries",
        type=float,
        nargs="+",
        metavar="SHARE",
        help="ends of all segments but the last, as shares of the run: 0.5 0.8",
        default=argparse.SUPPRESS,
    )
    add(
        "--candidates",
        nargs="+",
        metavar="P",
        help="presets or policy texts, in time of the segment; a / begins those of the next (default: preset segments)",
        default=argparse.SUPPRESS,
    )
    add("--method", metavar="M", help="segments (default), or plateau: one training that switches", default="segments")
    add(
        "--judge",
        metavar="WHEN",
        help="boundary (default): at the end of the segment; end: each attempt is completed, for more cost and members",
        default=argparse.SUPPRESS,
    )
    add("--tail", metavar="P", help="policy that completes attempts (default: linear to 0)", default=argparse.SUPPRESS)
    add("--keep", type=whole, metavar="K", help="attempts that go on (default 1: greedy)", default=argparse.SUPPRESS)
    add(
        "--plateau",
        nargs="+",
        metavar="KEY=VALUE",
        help="parameters of ChangeOnPlateau: window=3 threshold=0.01",
        default=argparse.SUPPRESS,
    )
    add("--metric", metavar="M", help="val_loss (default) or val_accuracy", default="val_loss")
    add("--seed", type=whole, metavar="S", help="of everything random (default 0)", default=0)
    add(
        "--baseline",
        nargs="*",
        metavar="P",
        help="train these policies whole, to compare with (none named: the candidates)",
        default=argparse.SUPPRESS,
    )
    add_flag(parser, POOL_FLAG)
    add("--out", metavar="FILE", help="write a figure: .png, .pdf or .svg")
    add_json_flag(parser)
    add_experiment_flags(parser, without=WITHOUT)


def execute(args: argparse.Namespace) -> None:
    """Compose; print the policy, all attempts, cost and benefit."""
    from lrensemble.training.allocator import keep_large_blocks
    from lrensemble.tuning import compose

    data, training = training_from(args)
    given: dict[str, Any] = {name: value for name, value in vars(args).items() if name in OWN}
    if "candidates" in vars(args):
        given["candidates"] = _by_segment(args.candidates)
    if "plateau" in vars(args):
        given["plateau"] = parse_options(args.plateau)
    if given.get("baseline") == []:
        given["baseline"] = True
    keep_large_blocks()
    with redirect_stdout(sys.stderr):  # what the user's own data or network prints is no result
        found = compose(data, **given, **training)
    if args.out:
        from lrensemble.reporting.compose_figure import plot_composition

        plot_composition(found, args.out)
    if args.json:
        print_json(found.to_dict())
    else:
        print(found)
        print(f"\npool     {found.path}")
        if args.out:
            print(f"figure   {args.out}")


def _by_segment(words: list[str]) -> list[Any]:
    """Split the candidates at each ``/``; a plain list where there is none."""
    segments: list[list[str]] = [[]]
    for word in words:
        if word == NEXT_SEGMENT:
            segments.append([])
        else:
            segments[-1].append(word)
    return segments if len(segments) > 1 else words
