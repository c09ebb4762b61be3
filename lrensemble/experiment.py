"""`Experiment`: one run of the whole road as data; read from TOML, from flags, or built in Python."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lrensemble.errors import InputError, lookup, nearest
from lrensemble.selection import SELECTORS, check_options, check_request
from lrensemble.training.budget import check_budget
from lrensemble.training.config import TrainConfig
from lrensemble.training.engines import ENGINES
from lrensemble.training.halving import check_halving
from lrensemble.training.snapshots import check_snapshots

__all__ = ["Compute", "Data", "Experiment", "Selection"]

Size = int | float | None

EXPECTED = {  # what pydantic finds wrong, in the words of someone who writes the file
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table of settings",
    "missing": "a list of two",
    "too_long": "a list of two",
}


@dataclass(frozen=True)
class Data:
    """What to learn from: a name of ``lrensemble list datasets``, a file or folder, or ``package.module:function``.

    Sizes are numbers of samples (integers) or shares of the set (between 0 and 1). The images of a folder are resized
    to squares of side `resize`. `stream` says whether samples are read while training, not all before; when it is not
    given, they are where they do not fit in memory.
    """

    name: str = "digits"
    train_size: Size = None
    val_size: Size = None
    test_size: Size = None
    split_seed: int = 0
    root: str | None = None
    resize: int | None = None
    stream: bool | None = None


@dataclass(frozen=True)
class Selection:
    """How to choose ensembles; the first method is the one that the verdict is about.

    `resplits` is how often validation is re-split to measure how rosy the score is (0: not at all); `calibrate` what is
    temperature-scaled (``"none"``, ``"members"``, ``"ensemble"``, ``"both"``); `families` what the snapshots of one
    training count as (``"free"``, ``"best"``, ``"whole"``); `options` are those of methods, by method and name.
    """

    methods: tuple[str, ...] = ("greedy",)
    metric: str = "nll"
    size: int | None = None
    rule: str = "mean_probability"
    seed: int = 0
    resplits: int = 20
    calibrate: str = "none"
    families: str = "free"
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.methods:
            raise InputError("methods: expected one selection method or more, got none")
        if len(set(self.methods)) < len(self.methods):
            raise InputError(f"methods: expected each selection method once, got {', '.join(self.methods)}")
        for method in self.methods:
            check_request(
                method,
                metric=self.metric,
                size=self.size,
                rule=self.rule,
                seed=self.seed,
                resplits=self.resplits,
                calibrate=self.calibrate,
                families=self.families,
            )
        for method, options in self.options.items():
            for name, value in options.items():
                _check_option(method, name, value)


def _check_option(method: str, name: str, value: Any) -> None:
    try:
        check_options(method, lookup(SELECTORS, method, "selection method"), {name: value})
    except InputError as error:
        raise InputError(f"options.{method}.{name}: {error}") from None


@dataclass(frozen=True)
class Compute:
    """Where and how parallel to train; see `train_pool`.

    Changes the time that a pool takes, not (on CPU) its contents, except that the engines differ in the last bits.
    """

    engine: str = "auto"
    jobs: int | None = None
    stack: int | None = None
    device: str = "auto"
    scheduler: str | None = None
    checkpoint_seconds: float = 5.0
    readers: int | None = None

    def __post_init__(self) -> None:
        lookup({"auto": None, **ENGINES}, self.engine, "engine")


@dataclass(frozen=True)
class Experiment:
    """Data, network, policies × seeds, training, selection: all that ``lrensemble run`` needs.

    Attributes
    ----------
    model
        Network, as in ``lrensemble list models``.
    policies
        Names of presets and texts of policies.
    seeds
        How many trainings under each policy (seeds 0, 1, …), or a list of the seeds themselves.
    snapshots
        Further members from the same trainings: ``cycles``, ``last:K``, ``swa``, ``swa:SHARE``.
    halving
        Whether to stop members that are behind: true, η, or a table of ``eta``, ``first``, ``least``.
    budget
        Time that training may take, such as ``10m`` (or seconds): as many members as fit are trained.
    lr_range
        Lowest and highest base learning rate for presets; the optimiser's own range when not given.
    pool
        Folder of the pool; ``checkpoints/<data>-<model>`` when not given.
    """

    model: str = "mlp"
    policies: tuple[str, ...] = ("default",)
    seeds: int | tuple[int, ...] = 1
    snapshots: tuple[str, ...] = ()
    halving: bool | int | float | dict[str, Any] = False
    budget: str | int | float | None = None
    lr_range: tuple[float, float] | None = None
    pool: str | None = None
    data: Data = field(default_factory=Data)
    train: TrainConfig = field(default_factory=TrainConfig)
    selection: Selection = field(default_factory=Selection)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        if self.pool is not None and not self.pool.strip():
            raise InputError("pool: expected the path of a folder, got an empty text")
        check_snapshots(self.snapshots)
        check_halving(self.halving)
        check_budget(self.budget)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "experiment", text: str = "") -> Experiment:
        """Build and check an experiment from nested tables.

        Parameters
        ----------
        values
            As `to_dict` returns; everything may be left out.
        source, text
            Name and contents of the file the values come from, so that an error can name its line.

        Raises
        ------
        InputError
            For an unknown key (naming the nearest one) or a value of the wrong kind.
        """
        _refuse_unknown_keys(cls, values, (), source, text)
        from pydantic import TypeAdapter, ValidationError

        try:  # JSON knows lists and tables only, so that strict checking takes them for tuples and dataclasses
            return TypeAdapter(cls).validate_json(json.dumps(values, default=str), strict=True)
        except ValidationError as error:
            raise InputError(_explain(error.errors(), values, source, text)) from None

    @classmethod
    def load(cls, path: str | Path) -> Experiment:
        """Read an experiment file; raises `InputError` naming file, line and key."""
        values, text = read_toml(path)
        return cls.from_dict(values, source=str(path), text=text)

    def to_dict(self) -> dict[str, Any]:
        """Nested tables with every default filled in; what is None is left out."""
        return _without_none(asdict(self))

    def to_toml(self) -> str:
        """TOML text that `load` reads back to an equal experiment."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """JSON schema of the experiment file, for editors."""
        from pydantic import TypeAdapter

        return TypeAdapter(Experiment).json_schema()


def read_toml(path: str | Path) -> tuple[dict[str, Any], str]:
    """Parse a TOML file; return its tables and its text.

    Raises
    ------
    InputError
        If it cannot be read or is not TOML; the message has the line and column.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
        return tomllib.loads(text), text
    except OSError as error:
        raise InputError(f"{path}: expected an experiment file, but it cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected TOML as UTF-8 text, got other bytes ({error.reason})") from None
    except ValueError as error:
        raise InputError(f"{path}: expected TOML, got a syntax error: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: expected TOML, got lists or tables nested too deeply to read") from None


def _explain(errors: Sequence[Any], values: Mapping[str, Any], source: str, text: str) -> str:
    """One sentence about the first setting that is wrong; a union has an error for each of its kinds."""
    if errors[0]["type"] == "json_invalid":  # half a character: bytes of the command line that are no UTF-8
        return "expected settings as Unicode text, got other bytes: rename the file or folder"
    path = _path_in(values, errors[0]["loc"])
    if errors[0]["type"] == "value_error":
        reason = errors[0]["msg"].removeprefix("Value error, ")
        key, colon, rest = reason.partition(": ")
        if colon and re.fullmatch(r"[\w.\-]+", key):  # the check named its field: it is the innermost part of the place
            path, reason = (*path, *key.split(".")), rest
        return f"{_where(source, text, path)}: {reason}" if path else reason
    alike = [error for error in errors if _path_in(values, error["loc"]) == path]
    kinds = dict.fromkeys(EXPECTED.get(error["type"], error["msg"].removeprefix("Input should be ")) for error in alike)
    return f"{_where(source, text, path)}: expected {' or '.join(kinds)}, got {_value_at(values, path)!r}"


def _path_in(values: Any, location: Sequence[str | int]) -> tuple[str, ...]:
    """Return as much of pydantic's location as the values have; it adds kinds of unions, and what is missing."""
    path: list[str] = []
    for part in location:
        is_there = part in values if isinstance(values, Mapping) else isinstance(part, int) and _has(values, part)
        if not is_there:
            break
        values = values[part]
        path.append(str(part))
    return tuple(path)


def _has(values: Any, index: int) -> bool:
    return isinstance(values, list | tuple) and index < len(values)


def _value_at(values: Any, path: Sequence[str]) -> Any:
    for part in path:
        values = values[part] if isinstance(values, Mapping) else values[int(part)]
    return values


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return list(values) if isinstance(values, tuple) else values


def _refuse_unknown_keys(kind: type, values: Any, path: tuple[str, ...], source: str, text: str) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"{_where(source, text, path)}: expected a table of settings, got {values!r}")
    known = get_type_hints(kind)
    for key, value in values.items():
        names = [f.name for f in fields(kind)]
        if key not in names:
            guess = nearest(key, names)
            hint = f"did you mean '{guess}'? " if guess else ""
            where = _where(source, text, (*path, key))
            raise InputError(f"{where}: unknown setting: {hint}expected one of {', '.join(names)}")
        if is_dataclass(known[key]):
            _refuse_unknown_keys(known[key], value, (*path, key), source, text)


def _where(source: str, text: str, path: tuple[str, ...]) -> str:
    line = _line_of(text, path)
    place = f"{source}, line {line}" if line else source
    return ": ".join(filter(None, (place, ".".join(path))))


def _line_of(text: str, path: tuple[str, ...]) -> int | None:
    """Line of the innermost key of `path` that the TOML text shows literally (tomllib keeps no positions)."""
    table, found = "", None
    keys = [part for part in path if not part.isdigit()]
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([\w.\-]+)\s*\]", line):
            table = header[1]
            parts = table.split(".")
            found = number if parts == keys[: len(parts)] else found
        elif assigned := re.match(r"\s*([\w.\-]+)\s*=", line):
            here = [*(table.split(".") if table else ()), *assigned[1].split(".")]
            if here == keys[: len(here)]:
                return number
    return found
