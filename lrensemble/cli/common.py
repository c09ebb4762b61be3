"""What several commands share: the flags of an experiment, and JSON output."""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrensemble.errors import InputError

__all__ = [
    "add_experiment_flags",
    "add_json_flag",
    "add_selection_flags",
    "experiment_from",
    "parse_options",
    "print_json",
    "training_from",
    "whole",
]

_KEY = re.compile(r"([\w-]+\.)?[^\W\d]\w*")
FLAGS = {"true": True, "false": False}  # as experiment files have them


def whole(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{text}'") from None


def number(text: str) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got '{text}'") from None


def size(text: str) -> int | float:
    """Parse a number of samples (``1000``) or a share of the set (``0.2``)."""
    try:
        return int(text)
    except ValueError:
        return number(text)


@dataclass(frozen=True)
class Flag:
    """One flag and the setting of the experiment that it overrides."""

    name: str
    setting: str
    kind: Any
    metavar: str
    help: str
    nargs: str | None = None


TRAINING_FLAGS = (
    Flag(
        "--data",
        "data.name",
        str,
        "D",
        "data set: a name (`lrensemble list datasets`), .npz, image folder, module:function",
    ),
    Flag("--model", "model", str, "M", "network: a name (`lrensemble list models`) or module:function"),
    Flag(
        "--policies", "policies", str, "P", "presets, policy texts (`lrensemble policies list`), auto: range test", "+"
    ),
    Flag("--seeds", "seeds", whole, "N", "trainings under each policy (default 1)"),
    Flag("--snapshots", "snapshots", str, "S", "further members of each training: cycles, last:K, swa, swa:SHARE", "+"),
    Flag("--halving", "halving", number, "ETA", "stop early all but the best 1/ETA, again and again (2)", "?"),
    Flag("--budget", "budget", str, "TIME", "train as many as fit into 90s, 10m, 1h30m, …; go on with another budget"),
    Flag("--epochs", "train.epochs", whole, "E", "passes over the training data (default 20)"),
    Flag("--batch-size", "train.batch_size", whole, "B", "samples a step (default 64)"),
    Flag("--optimizer", "train.optimizer", str, "O", "optimiser (`lrensemble list optimizers`; default momentum)"),
    Flag("--momentum", "train.momentum", number, "X", "momentum (default 0.9)"),
    Flag("--weight-decay", "train.weight_decay", number, "X", "weight decay (default 5e-4)"),
    Flag("--label-smoothing", "train.label_smoothing", number, "X", "label smoothing, 0 to below 1 (default 0)"),
    Flag("--clip-norm", "train.clip_norm", number, "X", "largest norm of the gradient (default: no clipping)"),
    Flag("--precision", "train.precision", str, "P", "float32 (default) or bf16"),
    Flag("--augment", "train.augment", str, "A", "none, flip, crop, crop+flip or auto: the data set's own (default)"),
    Flag("--common-seed", "train.common_seed", bool, "", "policies of one seed share initialisation and sample order"),
    Flag("--folds", "train.folds", whole, "K", "cross-fitting: a member is K networks (default 0: a validation part)"),
    Flag("--lr-range", "lr_range", number, "LR", "lowest and highest base learning rate of presets", "2"),
    Flag("--train-size", "data.train_size", size, "N", "training samples, or a share such as 0.6"),
    Flag("--val-size", "data.val_size", size, "N", "validation samples, or a share"),
    Flag("--test-size", "data.test_size", size, "N", "test samples, or a share"),
    Flag("--split-seed", "data.split_seed", whole, "S", "seed of the split (default 0)"),
    Flag("--resize", "data.resize", whole, "PIXELS", "side to which the images of a folder are resized"),
    Flag("--stream", "data.stream", bool, "", "read samples while training (default: if they do not fit in memory)"),
    Flag("--data-root", "data.root", str, "DIR", "folder of downloaded data sets"),
    Flag("--engine", "compute.engine", str, "E", "loop, stacked or auto (`lrensemble list engines`; default auto)"),
    Flag("--stack", "compute.stack", whole, "K", "networks trained together in a process (default: measured)"),
    Flag("--jobs", "compute.jobs", whole, "J", "processes (default: one a core, for long work; 1 on a GPU)"),
    Flag("--device", "compute.device", str, "DEV", "cpu, cuda, cuda:1, cuda:0,cuda:2 (default: all GPUs, if any)"),
    Flag("--scheduler", "compute.scheduler", str, "URL", "tcp://host:8786: train on the workers of this Dask cluster"),
    Flag(
        "--checkpoint-seconds",
        "compute.checkpoint_seconds",
        number,
        "S",
        "save unfinished members this often (default 5)",
    ),
    Flag(
        "--readers",
        "compute.readers",
        whole,
        "N",
        "processes that read streamed images or Datasets for each that trains (default: 0; on a GPU what cores allow)",
    ),
)

SELECTION_FLAGS = (
    Flag("--metric", "selection.metric", str, "METRIC", "objective on validation data: nll (default), accuracy, …"),
    Flag("--size", "selection.size", whole, "K", "number of members (default: the method decides)"),
    Flag(
        "--rule",
        "selection.rule",
        str,
        "RULE",
        "combination rule (`lrensemble list combiners`; default mean_probability)",
    ),
    Flag("--seed", "selection.seed", whole, "S", "seed of methods that draw at random, and of re-splits (default 0)"),
    Flag(
        "--resplits",
        "selection.resplits",
        whole,
        "N",
        "re-splits of validation that measure how rosy the score is (default 20; 0: none)",
    ),
    Flag(
        "--calibrate",
        "selection.calibrate",
        str,
        "WHAT",
        "temperature scaling: none (default), members, ensemble, both",
    ),
    Flag(
        "--families",
        "selection.families",
        str,
        "HOW",
        "snapshots of a training: free (default), best: only the best one, whole: their mean",
    ),
)

POOL_FLAG = Flag("--pool", "pool", str, "DIR", "folder of the pool (default checkpoints/<data>-<model>)")
METHODS_FLAG = Flag(
    "--method", "selection.methods", str, "NAME", "selection methods; the verdict is about the first", "+"
)
OPTIONS_FLAG = Flag(
    "--option", "selection.options", str, "METHOD.KEY=VALUE", "options of methods, such as greedy.rounds=50", "+"
)


def add_experiment_flags(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    """Add the flags that decide what is trained and how, but for some, named as ``--policies``."""
    _add(parser.add_argument_group("training"), tuple(flag for flag in TRAINING_FLAGS if flag.name not in without))
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def add_selection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide what is selected and how."""
    _add(parser.add_argument_group("selection"), SELECTION_FLAGS)


def add_flag(parser: argparse.ArgumentParser, flag: Flag) -> None:
    """Add a single flag of an experiment."""
    _add(parser, (flag,))


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _add(group: Any, flags: tuple[Flag, ...]) -> None:
    for flag in flags:
        shape = {"action": "store_true"} if flag.kind is bool else _valued(flag)
        # the destination is the setting, so that no second table is needed to carry a flag into the experiment
        group.add_argument(
            flag.name, dest=flag.setting, help=flag.help.replace("%", "%%"), default=argparse.SUPPRESS, **shape
        )


def _valued(flag: Flag) -> dict[str, Any]:
    nargs = int(flag.nargs) if flag.nargs and flag.nargs.isdigit() else flag.nargs
    action = "extend" if nargs == "+" else "store"  # a list flag given twice goes on where it stopped
    if nargs == "?":  # the flag alone switches on
        return {"type": flag.kind, "metavar": flag.metavar, "nargs": nargs, "const": True}
    return {"type": flag.kind, "metavar": flag.metavar, "nargs": nargs, "action": action}


def experiment_from(args: argparse.Namespace, file: str | None = None) -> Any:
    """Build the experiment: defaults, then the file, then the flags that were given."""
    from lrensemble.experiment import Experiment, read_toml

    values: dict[str, Any] = {}
    if file is not None:
        values, text = read_toml(file)
        Experiment.from_dict(values, source=file, text=text)  # by itself, so that no line is blamed for a flag
    for flag in (*TRAINING_FLAGS, *SELECTION_FLAGS, POOL_FLAG, METHODS_FLAG):
        if flag.setting in vars(args):
            _put(values, flag.setting.split("."), getattr(args, flag.setting))
    for key, value in parse_options(getattr(args, OPTIONS_FLAG.setting, [])).items():
        method, dot, name = key.rpartition(".")
        if not dot:
            raise InputError(
                f"expected an option as METHOD.KEY=VALUE, such as greedy.{key}={value}, got '{key}={value}'"
            )
        _put(values, [*OPTIONS_FLAG.setting.split("."), method, name], value)
    return Experiment.from_dict(values, source="")


def training_from(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the data, and the keywords of `Workshop.open` (or `train_pool`), that the flags come to."""
    plan = experiment_from(args)
    data, compute = vars(plan.data).copy(), vars(plan.compute).copy()
    settings = {"model": plan.model, "path": plan.pool, "config": plan.train, "progress": not args.quiet}
    return data.pop("name"), {**settings, "snapshots": plan.snapshots, **data, **compute}


def parse_options(texts: list[str]) -> dict[str, Any]:
    """Read options written as ``KEY=VALUE``; a value that is no Python literal, nor true or false, is a text.

    Raises
    ------
    InputError
        For a text of another form, or a key that is given twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise InputError(f"expected an option as KEY=VALUE, got '{text}'")
        if key in options:
            raise InputError(f"expected each option once, got {key} twice")
        options[key] = _literal(value)
    return options


def _literal(text: str) -> Any:
    try:
        return FLAGS[text] if text in FLAGS else ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def print_json(value: Any) -> None:
    """Print `value` as JSON (NaN is refused, since JSON has none)."""
    print(json.dumps(value, indent=2, allow_nan=False))
