"""policies: list, show and plot learning-rate policies."""

from __future__ import annotations

import argparse

from lrensemble.cli.common import add_json_flag, print_json, whole

EPILOG = """examples:
  lrensemble policies list
  lrensemble policies show "TRI2(k0=0.01, k1=0.06, l=100)" --steps 800
  lrensemble policies plot default --steps 1000 --out policies.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all policies and presets, with their formulas")
    add_json_flag(listing)
    show = actions.add_parser("show", help="the learning rate over the steps")
    show.add_argument("policy", metavar="POLICY", help='such as "TRI2(k0=0.01, k1=0.06, l=100)", or a preset')
    add_json_flag(show)
    plot = actions.add_parser("plot", help="a figure of one or more policies or presets")
    plot.add_argument("policy", nargs="+", metavar="POLICY", help="texts of policies, names of presets")
    plot.add_argument("--out", required=True, metavar="FILE.png", help="figure to write (.png, .svg, .pdf)")
    for action in (show, plot):
        action.add_argument("--steps", type=whole, default=1000, metavar="N", help="length of the run (default 1000)")
        action.add_argument("--epochs", type=whole, default=10, metavar="E", help="epochs in the run (default 10)")
        action.add_argument("--optimizer", default="momentum", metavar="O", help="decides the rates of presets")
    listing.set_defaults(act=_list)
    show.set_defaults(act=_show)
    plot.set_defaults(act=_plot)


def execute(args: argparse.Namespace) -> None:
    """Run the chosen action."""
    args.act(args)


def _resolved(texts: list[str], args: argparse.Namespace) -> list:
    from lrensemble.errors import InputError
    from lrensemble.policies import resolve_policies

    if args.steps < 1 or args.epochs < 1 or args.epochs > args.steps:
        raise InputError(f"expected 1 ≤ epochs ≤ steps, got {args.epochs} epochs and {args.steps} steps")
    asked = resolve_policies(texts, optimizer=args.optimizer)
    per_epoch = max(1, round(args.steps / args.epochs))
    return [policy.resolve(total_steps=args.steps, steps_per_epoch=per_epoch) for policy in asked]


def _list(args: argparse.Namespace) -> None:
    from lrensemble.policies import POLICIES, PRESETS

    if args.json:
        print_json(
            {
                "policies": {name: {"formula": spec.formula, "source": spec.source} for name, spec in POLICIES.items()},
                "presets": {name: spec.description for name, spec in PRESETS.items()},
            }
        )
        return
    from lrensemble.reporting import plain_table

    print(
        plain_table([(name, spec.formula, spec.source) for name, spec in POLICIES.items()], "policy", "lr(t)", "source")
    )
    print()
    print(plain_table([(name, spec.description) for name, spec in PRESETS.items()], "preset", "what it holds"))


def _show(args: argparse.Namespace) -> None:
    shown = _resolved([args.policy], args)
    curves = [policy.curve(args.steps) for policy in shown]
    if args.json:
        entries = [{"policy": str(p), "lr": curve.tolist()} for p, curve in zip(shown, curves, strict=True)]
        print_json(entries[0] if len(entries) == 1 else entries)
        return
    from lrensemble.reporting import plain_table

    picked = sorted({round(i * (args.steps - 1) / 10) for i in range(11)})
    for policy, curve in zip(shown, curves, strict=True):
        print(policy)
        print(plain_table([(t, f"{curve[t]:.6g}") for t in picked], "step", "lr"))
        print(f"lowest {curve.min():.6g}, highest {curve.max():.6g}, mean {curve.mean():.6g}\n")


def _plot(args: argparse.Namespace) -> None:
    from pathlib import Path

    from lrensemble.reporting import plot_policies

    shown = _resolved(args.policy, args)
    plot_policies(shown, args.steps, Path(args.out))
    print(f"figure   {args.out}")
