"""The two texts by which a user names code: ``package.module:function`` and ``name(option=value, …)``.

Data sets and networks of the user's own are functions named by a reference; options are written as a call with literal
values. Both are only ever parsed (`ast`), never evaluated; importing the named module is the one thing that runs code,
and that code is the user's.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from lrensemble.errors import InputError, first_line, lookup, nearest

__all__ = ["Call", "format_call", "is_reference", "parse_call", "reference_name", "resolve"]

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_CALL = re.compile(r"\s*([^()\s](?:[^()]*[^()\s])?)\s*(?:\((.*)\)\s*)?", re.DOTALL)


class Call(NamedTuple):
    """A name and its options, as written in ``name(option=value, …)``."""

    name: str
    options: dict[str, Any]


def parse_call(text: str, kind: str = "call") -> Call:
    """Read ``name`` or ``name(option=value, …)``; values are Python literals, every option has its name.

    Parameters
    ----------
    text
        What the user wrote.
    kind
        What it names, singular, for the message: ``"model"``.

    Raises
    ------
    InputError
        If the text is anything else.

    Examples
    --------
    >>> parse_call("mlp(hidden=64, dropout=0.1)")
    Call(name='mlp', options={'hidden': 64, 'dropout': 0.1})
    """
    found = _CALL.fullmatch(text)
    if found is None:
        raise InputError(f"expected a {kind} as `name` or `name(option=value, …)`, got '{text}'")
    name, inside = found.groups()
    return Call(name, _parse_options(inside, text, kind) if inside else {})


def format_call(name: str, options: Mapping[str, Any]) -> str:
    """Inverse of `parse_call`: the text that gives back `name` and `options` without loss.

    Examples
    --------
    >>> format_call("mlp", {"hidden": 64})
    'mlp(hidden=64)'
    """
    if not options:
        return name
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


def is_reference(text: str) -> bool:
    """Whether `text` has the form ``package.module:function``."""
    return _REFERENCE.fullmatch(text) is not None


def resolve(reference: str, kind: str = "function") -> Callable[..., Any]:
    """Import what ``package.module:function`` names; modules in the current directory are found too.

    Raises
    ------
    InputError
        If the module cannot be imported, or holds nothing callable of that name; the message has the nearest match.
    """
    if not is_reference(reference):
        hint = ": pass the function itself, or move it to the top of a module" if "<" in reference else ""
        raise InputError(f"expected a {kind} as `package.module:function`, got '{reference}'{hint}")
    module_name, _, path = reference.partition(":")
    module = _import(module_name, reference)
    found: Any = module
    for part in path.split("."):
        members = {name: getattr(found, name, None) for name in dir(found)}
        found = lookup(_public(members, part), part, f"name in {_place(module)}")
    if not callable(found):
        raise InputError(f"{reference}: expected a {kind} that can be called, got {type(found).__name__}")
    return found


def reference_name(function: Callable[..., Any]) -> str:
    """Name a callable as ``module:qualified.name``; a `functools.partial` with literal keywords adds them as options.

    Functions inside functions and lambdas get their ``<locals>`` name: it tells them apart, but `resolve` refuses it.

    Raises
    ------
    InputError
        If it has no name: an instance, or a partial with positional or non-literal arguments.
    """
    options: dict[str, Any] = {}
    target: Any = function
    while isinstance(target, functools.partial):
        if target.args or not all(_is_literal(value) for value in target.keywords.values()):
            raise InputError(
                "expected a partial with literal keyword arguments only, got others: write a function instead"
            )
        options = {**target.keywords, **options}
        target = target.func
    name = getattr(target, "__qualname__", None)
    if not callable(target) or name is None:
        raise InputError(f"expected a function or class that can be named, got an instance of {type(target).__name__}")
    return format_call(f"{target.__module__}:{name}", dict(sorted(options.items())))


def _parse_options(inside: str, text: str, kind: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("an option without a name of its own")
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in options:
                raise ValueError("an option without a name of its own")
            options[keyword.arg] = ast.literal_eval(keyword.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise InputError(
            f"expected a {kind} as `name(option=value, …)` with literal values (numbers, strings, tuples), got '{text}'"
        ) from None
    return options


def _import(name: str, reference: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    importlib.invalidate_caches()  # a module may have been written a moment ago
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(f"{reference}: no module '{error.name}' here or installed{_hint(error.name)}") from None
        raise InputError(
            f"{reference}: importing '{name}' needs the module '{error.name}', which is missing"
        ) from error
    except Exception as error:
        raise InputError(
            f"{reference}: importing '{name}' raised {type(error).__name__}: {first_line(error)}"
        ) from error


def _hint(name: str) -> str:
    nearby = [entry.removesuffix(".py") for entry in os.listdir() if entry.endswith(".py") or os.path.isdir(entry)]
    guess = nearest(name, nearby)
    return f": did you mean '{guess}'?" if guess else ": check the spelling and the current directory"


def _public(members: Mapping[str, Any], asked: str) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name == asked or not name.startswith("_")}


def _place(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _is_literal(value: Any) -> bool:
    try:
        return ast.literal_eval(repr(value)) == value
    except (SyntaxError, ValueError):
        return False
