"""What a method says of itself: a line of the table, the options it takes, and whether given options fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import isfinite
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from lrensemble.errors import InputError, nearest
from lrensemble.selection.base import Selection

__all__ = ["SelectorSpec", "check_options"]

KINDS = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text",
    type(None): "None",
    tuple: "a list",
    list: "a list",
    Mapping: "a table",
}


@dataclass(frozen=True)
class SelectorSpec:
    """One method.

    Attributes
    ----------
    function
        ``(task, size, **options) -> Selection``.
    description
        One line for listings.
    options
        Names of the options that it takes.
    takes_size
        Whether a number of members may be asked for.
    needs_costs
        Whether it has to know what members cost, as far as the pool does (``Task.costs``).
    resplits
        Whether it re-splits validation itself, and so takes the number of re-splits as the keyword ``resplits``.
    """

    function: Callable[..., Selection]
    description: str
    options: tuple[str, ...] = ()
    takes_size: bool = True
    needs_costs: bool = False
    resplits: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """Value of each option when it is not given."""
        parameters = inspect.signature(self.function).parameters
        return {name: parameters[name].default for name in self.options}


def check_options(method: str, spec: SelectorSpec, options: Mapping[str, Any]) -> None:
    """Check names and kinds of options, which takes no predictions; their ranges are for the method to check.

    Raises
    ------
    InputError
        For an option that the method does not have, or a value of another kind than its function declares.
    """
    function = spec.function.func if isinstance(spec.function, partial) else spec.function
    hints = _hints(function) if options else {}
    for name, value in options.items():
        if name not in spec.options:
            known = ", ".join(spec.options) or "none"
            guess = nearest(name, spec.options)
            hint = f"did you mean '{guess}'? " if guess else ""
            raise InputError(f"method '{method}' has no option '{name}': {hint}its options are {known}")
        kinds = _kinds(hints[name])
        if not _fits(value, kinds):
            names = " or ".join(dict.fromkeys(KINDS.get(kind, kind.__name__) for kind in kinds))
            raise InputError(f"expected {name} as {names}, got {value!r} (option of method '{method}')")
        if isinstance(value, float | np.floating) and not isfinite(value):  # which JSON has no form for
            raise InputError(f"expected {name} as a finite number, got {value!r} (option of method '{method}')")


@cache
def _hints(function: Callable[..., Selection]) -> dict[str, Any]:
    """Annotations of a method by parameter, which take longer to work out than a small pool to select from."""
    return get_type_hints(function)


def _kinds(hint: Any) -> tuple[type, ...]:
    """Plain types that an annotation allows; of lists and the like only the kind of container."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(get_origin(part) or part for part in parts)


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))
