#!/usr/bin/env python3
"""What halving and a budget cost: ensembles from pools that were trained in part, against the pool trained whole.

A member that is halved away leaves the others as they are, and so does one that a budget does not reach: who would have
been finished follows exactly from the histories of whole pools, one a split. Costs are epochs that are made, as a share
of those of the whole pool. Controls are random choices of members that are trained to their end (means over draws).

Pools are kept under ``--home`` and resumed.

Example::

    python scripts/benchmark_budget.py --data digits --model mlp --epochs 20 --splits 10
    python scripts/benchmark_budget.py --data mnist.npz --model lenet --train-size 1000 --epochs 15 --splits 5
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from benchmark_road import best_single, score, spread
from benchmark_tools import table

import lrensemble as lre
from lrensemble.policies import resolve_policies
from lrensemble.training.halving import Halving, best

HALVINGS = {
    "halving (default)": Halving(),
    "halving to 4, eta 2": Halving(least=4),
    "halving to 4, eta 3": Halving(eta=3, least=4),
    "classic, eta 2": Halving(eta=2, first=1, least=1),
    "classic, eta 3": Halving(eta=3, first=1, least=1),
}
SHARES = {"three quarters": 0.75, "half": 0.5, "a quarter": 0.25}
DRAWS = 10


def main() -> None:
    args = parse_arguments()
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.splits):
        for name, scores in one_split(args, seed).items():
            found.setdefault(name, []).append(scores)
    whole = found["whole pool"]
    rows = [row(name, scores, whole) for name, scores in found.items()]
    columns = ["trained", "cost", "finished", "ensemble %", "paired", "NLL", "paired", "single: paired %", "paired NLL"]
    print(table(rows, columns))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="as for `lrensemble run --data`")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--lr-range", type=float, nargs=2, help="of the default preset's 16 policies")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--home", default="checkpoints/benchmark-budget", help="folder of the pools")
    return parser.parse_args()


def one_split(args: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Train the pool of one split, and score what each way of training in part leaves of it."""
    ends = "-".join(f"{end:g}" for end in args.lr_range or ())
    name = re.sub(r"\W+", "-", f"{Path(args.data).stem}-{args.model}-{args.epochs}-{ends}-split{seed}")
    pool = lre.train_pool(
        args.data,
        model=args.model,
        lr_range=args.lr_range,
        train_size=args.train_size,
        epochs=args.epochs,
        split_seed=seed,
        jobs=args.jobs,
        path=Path(args.home) / name,
    )
    order = [str(policy) for policy in resolve_policies("default", lr_range=args.lr_range)]
    asked = {summary.id: summary.asked for summary in pool.summaries()}
    ids = sorted(asked, key=lambda member: order.index(asked[member]))  # as they are trained
    curves = {member: pool.member(member).history["val_loss"] for member in ids}

    everything = {member: len(curve) for member, curve in curves.items()}

    def scored(members: list[str], made: dict[str, int] | None = None) -> dict[str, float]:
        made = made or {member: everything[member] for member in members}
        return judge(pool, members) | {"cost": sum(made.values()) / sum(everything.values())}

    found = {"whole pool": scored(ids)}
    for label, halving in HALVINGS.items():
        found[label] = scored(*halved(curves, args.epochs, halving))
    draw = np.random.default_rng(0)
    for label, share in SHARES.items():
        count = int(share * len(ids))
        if share < 0.75:
            found[f"budget of {label}"] = scored(ids[:count])
        scores = [scored(draw.choice(ids, count, replace=False).tolist()) for _ in range(DRAWS)]
        found[f"control: random {label}"] = {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}
    return found


def halved(curves: dict[str, np.ndarray], epochs: int, halving: Halving) -> tuple[list[str], dict[str, int]]:
    """Members that go on to the end, and the epochs that each member makes."""
    running, made = list(curves), {member: len(curve) for member, curve in curves.items()}
    for rung in halving.rungs(epochs):
        if halving.keep(len(running)) == len(running):
            break
        losses = {m: float(curves[m][rung - 1]) if len(curves[m]) >= rung else np.nan for m in running}
        kept = best(losses, halving.keep(len(running)))
        made |= {member: min(rung, made[member]) for member in set(running) - set(kept)}
        running = kept
    return running, made


def judge(pool: lre.Pool, members: list[str]) -> dict[str, float]:
    """Scores on test data of the greedy ensemble of these members and of the best of them; chance, if all diverged."""
    sound = [member for member in members if pool.member(member).status == "done"]
    if not sound:
        chance = {"accuracy": 1 / pool.n_classes, "nll": float(np.log(pool.n_classes))}
        return {**chance, **{f"single {key}": value for key, value in chance.items()}, "finished": 0}
    validation, test = pool.predictions("val", sound), pool.predictions("test", sound)
    greedy = score(lre.select(validation, method="greedy", metric="nll", resplits=0), test)
    single = score(lre.Ensemble((best_single(validation),), (1.0,)), test)
    both = {key: greedy[key] for key in ("accuracy", "nll")}
    return {**both, **{f"single {key}": single[key] for key in both}, "finished": len(sound)}


def row(name: str, scores: list[dict[str, float]], whole: list[dict[str, float]]) -> list[str]:
    def values(key: str, scale: float = 1.0) -> list[float]:
        return [scale * split[key] for split in scores]

    def paired(key: str, digits: int, scale: float = 1.0) -> str:
        gains = [scale * (a[key] - b[key]) for a, b in zip(scores, whole, strict=True)]
        return spread(gains, digits, sign=True) if scores is not whole else "–"

    return [
        name,
        f"{np.mean(values('cost')):.2f}",
        f"{np.mean(values('finished')):.1f}",
        spread(values("accuracy", 100), 2),
        paired("accuracy", 2, 100),
        spread(values("nll"), 3),
        paired("nll", 3),
        paired("single accuracy", 2, 100),
        paired("single nll", 3),
    ]


if __name__ == "__main__":
    main()
