"""policies: list, show, plot and scale learning-rate policies, and judge those of a pool."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lrensemble.cli.common import add_json_flag, number, print_json, whole

if TYPE_CHECKING:
    from lrensemble.policies import Policy

EPILOG = """examples:
  lrensemble policies list
  lrensemble policies show "TRI2(k0=0.01, k1=0.06, l=100)" --steps 800
  lrensemble policies plot default --steps 1000 --out policies.png
  lrensemble policies metrics checkpoints/digits --target 0.9 --sort steps_to_target
  lrensemble policies scale "TRI(k0=0.01, k1=0.06, l=25%)"
  lrensemble policies demo --out surface.png"""

METRICS_EPILOG = """KEY is one of
  utility      top1 top5 ac cd cdac left_out best_top1
  cost         steps_to_best seconds_to_best samples_to_best steps seconds samples
               and, with --target, steps_to_target seconds_to_target samples_to_target
  robustness   loss_difference seed_spread scale_drop
(docs/policy-metrics.md has the formulas). Costs are those on validation data.

Numbers of the test split are for a report. Do not choose a policy by them: choose on 'val', the default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all policies and presets, with their formulas")
    add_json_flag(listing)
    show = actions.add_parser(
        "show", help="the learning rate over the steps; of a feedback policy, if its metric never changes"
    )
    show.add_argument("policy", metavar="POLICY", help='such as "TRI2(k0=0.01, k1=0.06, l=100)", or a preset')
    add_json_flag(show)
    plot = actions.add_parser("plot", help="a figure of one or more policies or presets")
    plot.add_argument("policy", nargs="+", metavar="POLICY", help="texts of policies, names of presets")
    plot.add_argument("--out", required=True, metavar="FILE.png", help="figure to write (.png, .svg, .pdf)")
    for action in (show, plot):
        action.add_argument("--steps", type=whole, default=1000, metavar="N", help="length of the run (default 1000)")
        action.add_argument("--epochs", type=whole, default=10, metavar="E", help="epochs in the run (default 10)")
        action.add_argument("--optimizer", default="momentum", metavar="O", help="decides the rates of presets")
    _add_metrics(actions)
    scale = actions.add_parser("scale", help="a policy with all its rates multiplied, one text a line, to train with")
    scale.add_argument("policy", metavar="POLICY", help='such as "TRI(k0=0.01, k1=0.06, l=25%%)"')
    scale.add_argument(
        "--factors", type=number, nargs="+", metavar="X", help="numbers > 0 (default 0.1 0.5 1 5 10)", default=None
    )
    add_json_flag(scale)
    demo = actions.add_parser("demo", help="gradient descent on a surface with two valleys: what a policy decides")
    demo.add_argument("policy", nargs="*", metavar="POLICY", help="up to seven policies (default: three that differ)")
    demo.add_argument("--steps", type=whole, default=200, metavar="N", help="steps of the descent (default 200)")
    demo.add_argument("--out", metavar="FILE.png", help="figure to write (.png, .svg, .pdf)")
    add_json_flag(demo)
    scale.set_defaults(act=_scale)
    demo.set_defaults(act=_demo)
    listing.set_defaults(act=_list)
    show.set_defaults(act=_show)
    plot.set_defaults(act=_plot)


def _add_metrics(actions: Any) -> None:
    metrics = actions.add_parser(
        "metrics",
        help="judge the policies of a pool: utility, cost and robustness, over seeds",
        epilog=METRICS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    metrics.add_argument("pool", metavar="POOL", help="folder of the pool")
    metrics.add_argument("--sort", default="top1", metavar="KEY", help="metric that orders the policies (default top1)")
    metrics.add_argument("--target", type=number, metavar="A", help="validation accuracy, such as 0.9, to be reached")
    metrics.add_argument(
        "--split", default="val", choices=("val", "test"), help="data of utility and loss difference (default val)"
    )
    metrics.add_argument("--by-optimizer", metavar="KEY", help="one metric as a table of policies by optimisers")
    metrics.add_argument("--out", metavar="FILE.png|DIR", help="figures: four panels in a file, or a folder of four")
    add_json_flag(metrics)
    metrics.set_defaults(act=_metrics)


def execute(args: argparse.Namespace) -> None:
    """Run the chosen action."""
    args.act(args)


def _resolved(texts: list[str], args: argparse.Namespace) -> list[Callable[[Any], Any]]:
    from lrensemble.errors import InputError
    from lrensemble.policies import resolve_policies

    if args.steps < 1 or args.epochs < 1 or args.epochs > args.steps:
        raise InputError(f"expected 1 ≤ epochs ≤ steps, got {args.epochs} epochs and {args.steps} steps")
    asked = resolve_policies(texts, optimizer=args.optimizer)
    per_epoch = max(1, round(args.steps / args.epochs))
    resolved = [policy.resolve(total_steps=args.steps, steps_per_epoch=per_epoch) for policy in asked]
    return [_on_plateau(policy, args.epochs, per_epoch) for policy in resolved]


def _on_plateau(policy: Policy, epochs: int, per_epoch: int) -> Callable[[Any], Any]:
    """Return the rates as a function of the step: of a feedback policy, those of a training that never improves."""
    from lrensemble.policies import FeedbackPolicy, time_policy
    from lrensemble.policies.feedback import Replay

    if not isinstance(policy, FeedbackPolicy):
        return time_policy(policy)
    return Replay(policy, (1.0,) * epochs, per_epoch, f"{policy.monitor} never changes")


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
    import numpy as np

    shown = _resolved([args.policy], args)
    curves = [rates(np.arange(args.steps)) for rates in shown]
    if args.json:
        entries = [{**_described(rates), "lr": curve.tolist()} for rates, curve in zip(shown, curves, strict=True)]
        print_json(entries[0] if len(entries) == 1 else entries)
        return
    from lrensemble.reporting import plain_table

    picked = sorted({round(i * (args.steps - 1) / 10) for i in range(11)})
    for policy, curve in zip(shown, curves, strict=True):
        print(policy)
        print(plain_table([(t, f"{curve[t]:.6g}") for t in picked], "step", "lr"))
        print(f"lowest {curve.min():.6g}, highest {curve.max():.6g}, mean {curve.mean():.6g}\n")


def _described(rates: Callable[[Any], Any]) -> dict[str, str]:
    from lrensemble.policies.feedback import Replay

    return {"policy": str(rates.policy), "assumed": rates.note} if isinstance(rates, Replay) else {"policy": str(rates)}


def _plot(args: argparse.Namespace) -> None:
    from pathlib import Path

    from lrensemble.reporting import plot_policies

    shown = _resolved(args.policy, args)
    plot_policies(shown, args.steps, Path(args.out))
    print(f"figure   {args.out}")


def _metrics(args: argparse.Namespace) -> None:
    from lrensemble.pool import Pool
    from lrensemble.tuning import judge_policies

    pool = Pool.open(args.pool)
    judgement = judge_policies(pool, target=args.target, split=args.split, sort=args.sort)
    table = judgement.by_optimizer(args.by_optimizer) if args.by_optimizer else None
    files = []
    if args.out:
        from lrensemble.reporting.policy_figures import plot_judgement

        files = [str(file) for file in plot_judgement(pool, judgement, args.out)]
    if args.json:
        shown = (
            judgement.to_dict()
            if table is None
            else {"pool": judgement.pool, "split": judgement.split, **table.to_dict()}
        )
        print_json({**shown, "figures": files})
        return
    print(judgement if table is None else table)
    for file in files:
        print(f"figure   {file}")


def _scale(args: argparse.Namespace) -> None:
    from lrensemble.policies import SCALES, parse_policy, scale_family

    texts = [str(policy) for policy in scale_family(parse_policy(args.policy), args.factors or SCALES)]
    if args.json:
        print_json(texts)
    else:
        print("\n".join(texts))


def _demo(args: argparse.Namespace) -> None:
    from pathlib import Path

    from lrensemble.policies.surface import DEMONSTRATION, descend

    descents = [descend(policy, steps=args.steps) for policy in args.policy or DEMONSTRATION]
    if args.out:
        from lrensemble.reporting.surface_figure import plot_descents

        plot_descents(descents, Path(args.out))
    if args.json:
        print_json([descent.to_dict() for descent in descents])
        return
    from lrensemble.reporting import plain_table

    rows = [(d.policy, d.outcome, *(f"{value:.3f}" for value in (*d.path[-1], d.heights[-1]))) for d in descents]
    print(plain_table(rows, "policy", "outcome", "x", "y", "height z"))
    if args.out:
        print(f"figure   {args.out}")
