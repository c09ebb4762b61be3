#!/usr/bin/env python3
r"""What composing a policy gives for what it costs, against the best of as many plain trainings and a documented one.

Each split (and seed) has one pool. Everything is chosen by validation loss and shown on test data. Paired is the gain
over the best of the default preset *at the same cost*: the best of as many of its 16 policies as the attempts come to,
the mean over random choices of them; of all, where that is 16 or more. The last column is the greedy ensemble of all
members that the search leaves, for the same cost.

Pools are kept under ``--home`` and resumed.

Example::

    python scripts/benchmark_compose.py --data letter.npz --model mlp --train-size 5000 --epochs 20 --splits 5
    python scripts/benchmark_compose.py --data mnist10k.npz --model lenet5 --train-size 1000 --val-size 1000 \
        --epochs 15 --splits 3
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_road import score, spread
from benchmark_tools import describe, machine, say, table

import lrensemble as lre
from lrensemble.files import write_text_atomic
from lrensemble.policies import preset
from lrensemble.tuning import Composition, compose

WAYS: dict[str, dict[str, Any]] = {
    "composed, thirds": {"segments": 3},
    "composed, thirds, judged at the end": {"segments": 3, "judge": "end"},
    "composed, 50 % and 80 %": {"boundaries": [0.5, 0.8]},
    "composed, 50 % and 80 %, judged at the end": {"boundaries": [0.5, 0.8], "judge": "end"},
    "plateau switching": {"method": "plateau"},
}
DOCUMENTED = "mnist-lenet-caffe"
DRAWS = 200


def main() -> None:
    args = parse_arguments()
    found: dict[str, list[dict[str, float]]] = {}
    for split in range(args.splits):
        say(f"split {split}")
        for name, scores in one_split(args, split).items():
            found.setdefault(name, []).append(scores)
    rows = [row(name, scores) for name, scores in found.items()]
    print(f"{describe(machine())}\n")
    columns = ["policy", "cost", "accuracy, %", "NLL", "accuracy, paired", "NLL, paired", "ensemble, %"]
    print(table(rows, columns))
    if args.json:
        write_text_atomic(Path(args.json), json.dumps({"machine": machine(), "found": found}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="as for `lrensemble run --data`")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--val-size", type=int)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which ways to compose")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--json", metavar="FILE", help="write all scores of all splits")
    parser.add_argument("--home", default="checkpoints/benchmark-compose", help="folder of the pools")
    return parser.parse_args()


def one_split(args: argparse.Namespace, split: int) -> dict[str, dict[str, float]]:
    """Compose in all ways, train the policies to compare with, and score what each leaves."""
    name = re.sub(r"\W+", "-", f"{Path(args.data).stem}-{args.model}-{args.epochs}-split{split}")
    path = Path(args.home) / name
    ways = {
        way: compose(
            args.data,
            model=args.model,
            train_size=args.train_size,
            val_size=args.val_size,
            epochs=args.epochs,
            seed=split,
            split_seed=split,
            jobs=args.jobs,
            path=path,
            baseline=["default", DOCUMENTED],
            **WAYS[way],
        )
        for way in args.ways
    }
    pool = lre.Pool.open(path)
    rivals = next(iter(ways.values())).rivals
    documented = next(rival for rival in rivals if rival.policy == str(preset(DOCUMENTED)[0]))
    others = [rival for rival in rivals if rival is not documented]  # the best first
    singles = {rival.id: on_test(pool, [rival.id]) for rival in rivals if rival.status == "done"}

    def best_of(count: int) -> dict[str, float]:
        draws = np.random.default_rng(split)
        ranks = [int(draws.choice(len(others), min(count, len(others)), replace=False).min()) for _ in range(DRAWS)]
        chosen = [singles[others[rank].id] for rank in ranks if others[rank].id in singles]
        return {f"same {key}": float(np.mean([scores[key] for scores in chosen])) for key in ("accuracy", "nll")}

    found = {}
    for way, composition in ways.items():
        found[way] = {"cost": composition.times, **on_test(pool, [composition.id]), **best_of(round(composition.times))}
        found[way] |= together(pool, members_of(composition))
    whole = {"cost": sum(rival.cost.steps for rival in others) / ways[args.ways[0]].alone.steps}
    found["best of the default preset"] = whole | singles[others[0].id] | together(pool, [rival.id for rival in others])
    found["Caffe's policy for LeNet on MNIST"] = {"cost": 1.0} | on_test(pool, [documented.id])
    return found


def members_of(composition: Composition) -> list[str]:
    return [attempt.member for attempt in composition.attempts if attempt.member] or [composition.id]


def on_test(pool: lre.Pool, members: list[str]) -> dict[str, float]:
    """Accuracy and NLL on test data of the mean of some members."""
    ensemble = lre.Ensemble(tuple(members), (1 / len(members),) * len(members))
    found = score(ensemble, pool.predictions("test", members))
    return {key: found[key] for key in ("accuracy", "nll")}


def together(pool: lre.Pool, members: list[str]) -> dict[str, float]:
    """Return the same of the greedy ensemble of those that have not diverged."""
    sound = [member for member in dict.fromkeys(members) if pool.member(member).status == "done"]
    ensemble = lre.select(pool.predictions("val", sound), method="greedy", metric="nll", resplits=0)
    found = score(ensemble, pool.predictions("test", sound))
    return {f"ensemble {key}": found[key] for key in ("accuracy", "nll")}


def row(name: str, scores: list[dict[str, float]]) -> list[str]:
    def shown(key: str, scale: float, digits: int) -> str:
        return spread([scale * split[key] for split in scores], digits) if key in scores[0] else "–"

    def paired(key: str, scale: float, digits: int) -> str:
        if f"same {key}" not in scores[0]:
            return "–"
        return spread([scale * (split[key] - split[f"same {key}"]) for split in scores], digits, sign=True)

    return [
        name,
        f"{np.mean([split['cost'] for split in scores]):.1f} ×",
        shown("accuracy", 100, 2),
        shown("nll", 1, 3),
        paired("accuracy", 100, 2),
        paired("nll", 1, 3),
        shown("ensemble accuracy", 100, 2),
    ]


if __name__ == "__main__":
    main()
