"""Policies as search spaces: one line a family, one line a dimension.

Dimensions are shared: the highest rate of a triangle and that of a cosine are one dimension, `peak`, so that a search
learns from all families what a good rate is. Times are shares of the run, and rates have three significant digits, so
that a policy reads well and fits a run of any length.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lrensemble.errors import InputError, PolicyError, lookup
from lrensemble.policies import RATE_RANGES, Policy, parse_policy

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["DEFAULT_FAMILIES", "DIMENSIONS", "FAMILIES", "Dimension", "Space", "grid", "suggest"]

WIDER = 3.0  # the range of peaks goes beyond the optimiser's range by this factor, at both ends
GRID_RATES = 5  # rates a family of a grid of no given size


@dataclass(frozen=True)
class Dimension:
    """A number that a search chooses.

    Attributes
    ----------
    low, high
        Ends of its range.
    log
        Whether it is searched on a log scale.
    form
        How it is written in a policy, as a format of Python; ``"d"`` stands for a whole number.
    """

    low: float
    high: float
    log: bool
    form: str

    @property
    def middle(self) -> float:
        """Middle of the range, on its scale; rounded where only whole numbers are allowed."""
        value = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(value) if self.form == "d" else value

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """Ask a trial of Optuna for a value."""
        if self.form == "d":
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def clip(self, value: float) -> float:
        """Return the nearest value of the range."""
        return min(max(value, self.low), self.high)


RATE, SHARE = ".3g", ".2g"

# All but `peak`, whose range depends on the optimiser. Percentages are of the run.
DIMENSIONS: dict[str, Dimension] = {
    "floor": Dimension(0.01, 0.5, True, SHARE),  # lowest rate, as a share of the peak
    "factor": Dimension(0.1, 0.8, True, SHARE),  # at each stage
    "stage": Dimension(10, 40, False, SHARE),  # % between two falls
    "first": Dimension(30, 60, False, SHARE),  # % until the first of two falls
    "second": Dimension(65, 95, False, SHARE),  # % until the second one
    "final": Dimension(0.001, 0.5, True, SHARE),  # what is left of the rate, or the amplitude, at the end
    "rise": Dimension(1, 100, True, SHARE),  # of the denominator of INV, over the run
    "slope": Dimension(5, 50, True, SHARE),  # of a sigmoid, over the run
    "turn": Dimension(30, 80, False, SHARE),  # % until the middle of a sigmoid
    "power": Dimension(0.5, 3, True, SHARE),
    "cycles": Dimension(1, 4, False, "d"),
    "warmup": Dimension(1, 25, False, SHARE),  # % of the run
    "top": Dimension(0.1, 0.5, False, SHARE),  # share of the run until the peak of OneCycle
    "decay": Dimension(10, 70, False, SHARE),  # % that the fall of a trapezoid takes
    "wait": Dimension(5, 30, False, SHARE),  # % without improvement
}


@dataclass(frozen=True)
class Derived:
    """A number that follows from dimensions.

    Attributes
    ----------
    needs
        The dimension that it adds to a family.
    value
        Of that dimension, given the peak.
    back
        The dimension, of the value and the peak.
    form
        As of `Dimension`.
    """

    needs: str
    value: Callable[[float, float], float]
    back: Callable[[float, float], float]
    form: str


EXACT = ".6g"  # cycles end with the run

DERIVED: dict[str, Derived] = {
    "bottom": Derived("floor", lambda floor, peak: floor * peak, lambda k0, peak: k0 / peak, RATE),
    "half": Derived("cycles", lambda cycles, peak: 50 / cycles, lambda half, peak: 50 / half, EXACT),
    "whole": Derived("cycles", lambda cycles, peak: 100 / cycles, lambda whole, peak: 100 / whole, EXACT),
    "doubled": Derived(
        "cycles", lambda cycles, peak: 100 / (2**cycles - 1), lambda length, peak: math.log2(100 / length + 1), EXACT
    ),
}

CYCLE, RESTART = "k0={bottom}, k1={peak}, l={half}%", "k0={bottom}, k1={peak}, l={whole}%"
FADING = ", gamma={final}/run"

# Every parameter stands in the order of the policy's fields; what is left out has its default.
FAMILIES: dict[str, str] = {
    "FIX": "FIX(k0={peak})",
    "STEP": "STEP(k0={peak}, gamma={factor}, l={stage}%)",
    "NSTEP": "NSTEP(k0={peak}, gamma={factor}, l=[{first}%, {second}%])",
    "EXP": "EXP(k0={peak}, gamma={final}/run)",
    "INV": "INV(k0={peak}, gamma={rise}/run, p={power})",
    "POLY": "POLY(k0=0, k1={peak}, p={power})",
    "SIG": "SIG(k0={peak}, gamma=-{slope}/run, l={turn}%)",
    **{name: f"{name}({CYCLE})" for name in ("TRI", "TRI2", "SIN", "SIN2", "UPCOS", "UPCOS2", "DTRI", "DTRI2")},
    **{name: f"{name}({CYCLE})" for name in ("DSIN", "DSIN2", "COS", "COS2")},
    **{name: f"{name}({CYCLE}{FADING})" for name in ("TRIEXP", "SINEXP", "UPCOSEXP", "DTRIEXP", "DSINEXP", "COSEXP")},
    **{name: f"{name}({RESTART})" for name in ("RSW", "RSW2", "SINRSW", "SINRSW2", "COSRSW", "COSRSW2")},
    **{name: f"{name}({RESTART}{FADING})" for name in ("RSWEXP", "SINRSWEXP", "COSRSWEXP")},
    "SGDR": "SGDR(k0=0, k1={peak}, l={doubled}%)",
    "Snapshot": "Snapshot(peak={peak}, cycles={cycles})",
    "WarmupDecay": "WarmupDecay(peak={peak}, warmup={warmup}%)",
    "WarmupCosine": "WarmupCosine(peak={peak}, warmup={warmup}%)",
    "OneCycle": "OneCycle(peak={peak}, pct_start={top})",
    "Trapezoid": "Trapezoid(peak={peak}, warmup={warmup}%, decay={decay}%)",
    "Warmup": "Warmup(then=NSTEP(k0={peak}, gamma={factor}, l=[{first}%, {second}%]), steps={warmup}%)",
    "ReduceOnPlateau": "ReduceOnPlateau(k0={peak}, factor={factor}, patience={wait}%)",
    "ChangeOnPlateau": "ChangeOnPlateau(policies=[FIX(k0={peak}), FIX(k0={bottom})], start=0, window={wait}%)",
    "Composite": "[TRI(k0={bottom}, k1={peak}, l=25%) @ {first}% | POLY(k0=0, k1={bottom}, p={power})]",
}

# One or two of each shape: with many more, a search of some tens of trainings tries none of them twice.
DEFAULT_FAMILIES: tuple[str, ...] = (
    *("FIX", "STEP", "NSTEP", "EXP", "INV", "POLY", "TRI2", "SINEXP", "COS", "COSRSW"),
    *("WarmupCosine", "OneCycle", "Trapezoid", "Composite"),
)


@dataclass(frozen=True)
class Space:
    """Families of policies, with peaks within a range. Make it by `Space.of`.

    Attributes
    ----------
    families
        Keys of `FAMILIES`.
    low, high
        Lowest and highest peak, of three significant digits.
    """

    families: tuple[str, ...]
    low: float
    high: float

    @classmethod
    def of(
        cls,
        families: str | Sequence[str] | None = None,
        *,
        optimizer: str = "momentum",
        lr_range: Sequence[float] | None = None,
    ) -> Space:
        """Check and return a space.

        Parameters
        ----------
        families
            Keys of `FAMILIES`, or one of them; `DEFAULT_FAMILIES` when None.
        optimizer
            Key of `RATE_RANGES`, whose range is widened threefold at both ends.
        lr_range
            Lowest and highest peak, instead of these.

        Raises
        ------
        InputError
            For an unknown family or optimiser (naming the nearest one), no family, or no range 0 < lowest ≤ highest.
        """
        names = (families,) if isinstance(families, str) else DEFAULT_FAMILIES if families is None else tuple(families)
        for name in names:
            lookup(FAMILIES, name, "family of policies")
        if not names:
            raise InputError(f"families: expected one or more of {', '.join(FAMILIES)}, got none")
        low, high = _peaks(optimizer) if lr_range is None else _checked(lr_range)
        return cls(tuple(dict.fromkeys(names)), float(f"{low:{RATE}}"), float(f"{high:{RATE}}"))

    def suggest(self, trial: BaseTrial) -> Policy:
        """Return the policy that a trial of Optuna suggests: first its family, then what that family needs."""
        family = trial.suggest_categorical("family", list(self.families))
        return self.policy(family, {name: self[name].suggest(trial, name) for name in dimensions(family)})

    def policy(self, family: str, values: Mapping[str, float]) -> Policy:
        """Return a policy by the values of its dimensions."""
        peak = float(f"{values['peak']:{RATE}}")
        texts = {}
        for name in _places(family):
            if name in DERIVED:
                derived = DERIVED[name]
                texts[name] = f"{derived.value(values[derived.needs], peak):{derived.form}}"
            else:
                texts[name] = f"{values[name]:{self[name].form}}"
        return parse_policy(FAMILIES[family].format(**texts))

    def locate(self, policy: Policy) -> dict[str, str | float] | None:
        """Return the values that lead to a policy, with its ``"family"``; None for one outside the space."""
        atoms = tuple(_atoms(policy))
        for family in self.families:
            values = self._values(family, atoms)
            if values is None or not all(math.isfinite(value) for value in values.values()):
                continue
            within = {name: self[name].clip(value) for name, value in values.items()}  # it was rounded for the text
            if self.policy(family, within) == policy:
                return {"family": family, **within}
        return None

    def grid(self, n: int | None = None) -> list[Policy]:
        """Return `n` policies: all families at the middle of the range, then at its ends, then in between.

        All other dimensions are in their middle. Without `n`, `GRID_RATES` rates a family. Where the range or the
        families allow fewer different policies than asked for, all of these.
        """
        wanted = len(self.families) * GRID_RATES if n is None else n
        rates = _halving(math.ceil(wanted / len(self.families)))
        found: dict[Policy, None] = {}
        for share in rates:
            peak = self.low ** (1 - share) * self.high**share
            for family in self.families:
                middles = {name: self[name].middle for name in dimensions(family)}
                found[self.policy(family, {**middles, "peak": min(max(peak, self.low), self.high)})] = None
        return list(found)[:wanted]

    def __getitem__(self, name: str) -> Dimension:
        return Dimension(self.low, self.high, True, RATE) if name == "peak" else DIMENSIONS[name]

    def _values(self, family: str, atoms: Sequence[str | float]) -> dict[str, float] | None:
        """Read the dimensions of a policy off its atoms; None when it is of another form."""
        form, places_of = _layout(family)
        free = {i for places in places_of.values() for i in places}
        if len(atoms) != len(form) or any(atoms[i] != form[i] for i in range(len(form)) if i not in free):
            return None
        read = {name: abs(float(atoms[places[0]])) for name, places in places_of.items()}
        values = {}
        for name, value in read.items():
            if name in DERIVED:
                name, value = DERIVED[name].needs, DERIVED[name].back(value, read["peak"]) if value else math.nan
            is_whole = self[name].form == "d" and math.isfinite(value)
            values[name] = round(value) if is_whole else value
        return values


def suggest(
    trial: BaseTrial,
    families: str | Sequence[str] | None = None,
    *,
    optimizer: str = "momentum",
    lr_range: Sequence[float] | None = None,
) -> Policy:
    """Return the policy that a trial of Optuna suggests; for objectives of your own. Arguments as of `Space.of`.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> suggest(FixedTrial({"family": "POLY", "peak": 0.0512345, "power": 2}))
    POLY(k0=0.0, k1=0.0512, p=2.0, l=100%)
    """
    return Space.of(families, optimizer=optimizer, lr_range=lr_range).suggest(trial)


def grid(
    families: str | Sequence[str] | None = None,
    n: int | None = None,
    *,
    optimizer: str = "momentum",
    lr_range: Sequence[float] | None = None,
) -> list[Policy]:
    """Return `n` policies of these families, spread over the range of rates; see `Space.of` and `Space.grid`.

    Examples
    --------
    >>> grid("FIX", 3, lr_range=(0.01, 1))
    [FIX(k0=0.1), FIX(k0=0.01), FIX(k0=1.0)]
    """
    return Space.of(families, optimizer=optimizer, lr_range=lr_range).grid(n)


def dimensions(family: str) -> list[str]:
    """Names of the dimensions of a family, `peak` first."""
    needed = (DERIVED[name].needs if name in DERIVED else name for name in _places(family))
    return list(dict.fromkeys(["peak", *needed]))


def _places(family: str) -> list[str]:
    fields = (field for _, field, _, _ in string.Formatter().parse(FAMILIES[family]) if field)
    return list(dict.fromkeys(fields))


@cache
def _layout(family: str) -> tuple[tuple[str | float, ...], dict[str, list[int]]]:
    """Return the atoms of a policy of a family, and which of them each placeholder of its text decides."""
    values = {
        name: DERIVED[name].value(DIMENSIONS[DERIVED[name].needs].middle, 1.0)
        if name in DERIVED
        else 1.0
        if name == "peak"
        else DIMENSIONS[name].middle
        for name in _places(family)
    }

    def atoms(values: Mapping[str, float]) -> tuple[str | float, ...]:
        return tuple(_atoms(parse_policy(FAMILIES[family].format(**values))))

    form = atoms(values)
    found = {}
    for name in values:
        step = 1 if name in DIMENSIONS and DIMENSIONS[name].form == "d" else 0.01
        other = atoms({**values, name: values[name] + step})
        found[name] = [i for i in range(len(form)) if form[i] != other[i]]
    return form, found


def _atoms(value: Any) -> Iterator[str | float]:
    """List names, numbers and units of a policy, those of its defaults included, in the order of its fields."""
    if isinstance(value, tuple):
        for item in value:
            yield from _atoms(item)
    elif is_dataclass(value):
        yield type(value).__name__
        for field in fields(value):
            yield from _atoms(getattr(value, field.name))
    else:
        yield value


def _halving(n: int) -> list[float]:
    """Return `n` places in [0, 1]: ½, the ends, then the middles of what is between them, and so on."""
    places, denominator = [0.5, 0.0, 1.0], 4
    while len(places) < n:
        places += [k / denominator for k in range(1, denominator, 2)]
        denominator *= 2
    return places[:n]


def _peaks(optimizer: str) -> tuple[float, float]:
    low, high = lookup(RATE_RANGES, optimizer, "optimizer")
    return low / WIDER, high * WIDER


def _checked(lr_range: Sequence[float]) -> tuple[float, float]:
    ends = tuple(np.asarray(lr_range, dtype=np.float64).ravel().tolist())
    if len(ends) != 2 or not 0 < ends[0] <= ends[1] < math.inf:
        raise PolicyError(f"lr_range: expected learning rates 0 < lowest ≤ highest, got {list(lr_range)}")
    return ends[0], ends[1]
