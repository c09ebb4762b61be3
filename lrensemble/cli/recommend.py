"""recommend: search for the best learning-rate policy; every training becomes a member of a pool."""

from __future__ import annotations

import argparse
import sys
import textwrap
from contextlib import redirect_stdout
from typing import Any

from lrensemble.cli.common import (
    POOL_FLAG,
    add_experiment_flags,
    add_flag,
    add_json_flag,
    experiment_from,
    number,
    print_json,
    training_from,
    whole,
)

EPILOG = """examples:
  lrensemble recommend --data digits --model mlp                        the most accurate policy, 24 trainings
  lrensemble recommend --data digits --target 0.95 --trials 40          the fastest one to 95 % on validation data
  lrensemble recommend --data digits --budget 10m --then-select         and what the same trainings give together
  lrensemble recommend --data digits --pruner asha --families FIX COS   two families; those behind are stopped
Interrupted, or not enough? The same command, with more --trials or another --budget, goes on from there."""

REPLACED = ("--policies", "--seeds", "--halving", "--budget", "--lr-range")  # by flags of the search


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_flag(parser, POOL_FLAG)
    search = parser.add_argument_group("search")
    search.add_argument("--target", type=number, metavar="X", help="validation accuracy that is to be reached soonest")
    search.add_argument("--trials", type=whole, metavar="N", help="whole trainings to spend (default 24)")
    search.add_argument(
        "--budget", dest="search_budget", metavar="TIME", help="time to spend: 90s, 10m, 1h30m, …; or besides --trials"
    )
    search.add_argument("--max-steps", type=whole, metavar="S", help="optimiser steps to spend, all trainings together")
    search.add_argument("--sampler", default="tpe", metavar="NAME", help="tpe (default), random or grid")
    search.add_argument(
        "--pruner", default="none", metavar="NAME", help="none (default), asha or hyperband: who is stopped early"
    )
    search.add_argument(
        "--families", nargs="+", action="extend", metavar="F", help="families of policies, such as FIX NSTEP OneCycle"
    )
    search.add_argument(
        "--lr-range",
        dest="peaks",
        type=number,
        nargs=2,
        metavar="LR",
        help="lowest and highest peak rate (default: the optimiser's usual range, three times wider at both ends)",
    )
    search.add_argument(
        "--objective",
        default="single",
        metavar="WHAT",
        help="single (default): the best policy; ensemble: the trainings that help the ensemble most",
    )
    search.add_argument("--batch", type=whole, metavar="N", help="trainings that are chosen together (default 6)")
    search.add_argument("--seed", type=whole, default=0, metavar="S", help="of sampler and trainings (default 0)")
    search.add_argument("--top", type=whole, default=5, metavar="K", help="policies to show (default 5)")
    search.add_argument(
        "--store", metavar="URL_OR_FILE", help="policy store to begin from and write to (default checkpoints/store.db)"
    )
    search.add_argument("--no-store", action="store_true", help="neither begin from a policy store nor write to one")
    search.add_argument("--cold", action="store_true", help="do not begin with what the store suggests")
    search.add_argument(
        "--then-select", action="store_true", help="then select an ensemble from the pool and evaluate it on test data"
    )
    add_json_flag(parser)
    add_experiment_flags(parser, without=REPLACED)


def execute(args: argparse.Namespace) -> None:
    """Search; print the best policies, and what to use."""
    data, training = training_from(args)
    from lrensemble.training.allocator import keep_large_blocks
    from lrensemble.tuning import recommend

    keep_large_blocks()  # for members that are trained in this process
    settings = {name: getattr(args, name) for name in ("target", "trials", "max_steps", "sampler", "pruner")}
    settings |= {name: getattr(args, name) for name in ("families", "objective", "seed", "top")}
    if args.batch is not None:
        settings["batch"] = args.batch
    with redirect_stdout(sys.stderr):  # what the user's own data or network prints is no result
        found = recommend(
            data,
            budget=args.search_budget,
            lr_range=args.peaks,
            store=False if args.no_store else args.store,
            warm_start=not args.cold,
            **settings,
            **training,
        )
        together = _select(args, found) if args.then_select else None
    if args.json:
        print_json({**found.to_dict(), **({} if together is None else {"together": together[1]})})
        return
    print(found)
    if together is not None:
        print(f"\n{together[0]}")


def _select(args: argparse.Namespace, found: Any) -> tuple[str, dict[str, Any]]:
    """Select and evaluate as `lrensemble run` does by default; return the summary, and the same as data."""
    from lrensemble.pool import Pool
    from lrensemble.road import evaluate_and_write, select_and_save
    from lrensemble.training.budget import duration

    pool, plan = Pool.open(found.pool), experiment_from(args)
    ensemble, file = select_and_save(pool, plan, plan.selection.methods[0])
    report, paths = evaluate_and_write(pool, (ensemble,), file.stem)
    member = next(score for score in report.members if score.id == found.member)
    others = report.n_members - found.finished
    sentences = [
        f"Tuning cost {found.trainings:.3g} trainings, {duration(found.seconds)}.",
        f"The policy to use, {found.policy}, gave one network: {100 * member.test['accuracy']:.2f} % on test data "
        f"(NLL {member.test['nll']:.3f}).",
        f"What {'the same trainings' if not others else f'these and {others} other trainings in the pool'} give "
        f"together: {report.verdict}",
    ]
    files = {"ensemble": str(file), **{name: str(path) for name, path in paths.items()}}
    text = "\n\n".join(textwrap.fill(sentence, 100) for sentence in sentences)
    lines = "\n".join(f"{name:9}{path}" for name, path in files.items())
    return f"{text}\n\n{lines}", {"summary": " ".join(sentences), "report": report.to_dict(), "paths": files}
