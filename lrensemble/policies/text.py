"""Policies as text: read what ``str(policy)``, ``Policy.to_dict`` and LRBench write.

::

    policy    = piecewise | name "(" [argument ("," argument)*] ")"
    argument  = [parameter "="] value
    value     = quantity | list | policy | word, which may be in quotes
    quantity  = number ["ep" | "%" | "steps" | "/run" | "/ep"]
    list      = "[" value ("," value)* "]"
    piecewise = "[" policy "@" quantity ("|" policy "@" quantity)* "|" policy "]"

Names are not case-sensitive; spaces mean nothing. LRBench's form is ``lrPolicy_NSTEP+k0_0.001+gamma_0.1+l_8571+9286``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from lrensemble.errors import PolicyError, lookup, nearest
from lrensemble.policies.base import Policy
from lrensemble.policies.compose import Piecewise
from lrensemble.policies.parameters import INNER, INNER_IN_ORDER, SHAPE, kinds
from lrensemble.policies.table import POLICIES, PolicySpec
from lrensemble.policies.time import QUANTITY, quantity

__all__ = ["parse_policy", "policy_from_dict"]

NAME = r"[A-Za-z_]\w*"
DEEPEST = 20


def parse_policy(text: str | Mapping[str, Any] | Policy) -> Policy:
    """Read a policy.

    Parameters
    ----------
    text
        ``TRI(k0=0.01, k1=0.06, l=2000)``, ``[FIX(0.1) @ 50% | EXP(0.1, gamma=0.01/run)]``, LRBench's
        ``lrPolicy_FIX+k0_0.01``, the mapping that `Policy.to_dict` gives, or a policy, which is returned as it is.

    Returns
    -------
    Policy
        ``parse_policy(str(policy)) == policy``.

    Raises
    ------
    PolicyError
        For a text that is no policy (naming the column) or a value that is refused.
    UnknownNameError
        For a policy that is not in the table (naming the nearest).
    """
    if isinstance(text, Policy):
        return text
    if isinstance(text, Mapping):
        return policy_from_dict(text)
    if not isinstance(text, str):
        raise PolicyError(f"expected a policy as text, mapping or Policy, got {type(text).__name__}")
    if "lrPolicy_" in text:
        return _from_lrbench(text.strip())
    reader = _Reader(text)
    policy = reader.policy()
    reader.end()
    return policy


def policy_from_dict(values: Mapping[str, Any]) -> Policy:
    """Read ``{"policy": "TRI", "k0": 0.01, …}``; policies within may be mappings or texts."""
    if not isinstance(values.get("policy"), str):
        raise PolicyError(f"expected a mapping with the name of a policy under 'policy', got keys {list(values)}")
    spec = _spec(values["policy"])
    named = {key: _nested(spec, key, value) for key, value in values.items() if key != "policy"}
    return _build(spec, [], named)


def _nested(spec: PolicySpec, key: str, value: Any) -> Any:
    kind = kinds(spec.policy).get(key.lower())
    if kind in (INNER, SHAPE):
        return parse_policy(value)
    if kind is INNER_IN_ORDER and isinstance(value, Sequence) and not isinstance(value, str):
        return [parse_policy(item) for item in value]
    return value


def _spec(name: str) -> PolicySpec:
    by_lower = {known.lower(): known for known in POLICIES}
    return lookup(POLICIES, by_lower.get(name.lower(), name), "policy")


def _build(spec: PolicySpec, positional: Sequence[Any], named: Mapping[str, Any]) -> Policy:
    """Bind arguments to parameters as a call would, with messages that name the nearest parameter."""
    known = {f.name: f for f in fields(spec.policy)}
    policy, choices = spec.policy.__name__, ", ".join(known)
    if len(positional) > len(known):
        raise PolicyError(f"{policy}: expected at most {len(known)} parameters ({choices}), got {len(positional)}")
    bound = dict(zip(known, positional, strict=False))
    for key, value in named.items():
        if key.lower() not in known:
            guess = nearest(key, known)
            hint = f"did you mean '{guess}'? " if guess else ""
            raise PolicyError(f"{policy}: unknown parameter '{key}': {hint}expected {choices}")
        if key.lower() in bound:
            raise PolicyError(f"{policy}: expected each parameter once, got '{key}' twice")
        bound[key.lower()] = value
    required = [name for name, f in known.items() if f.default is MISSING]
    missing = [name for name in required if name not in bound]
    if missing:
        values = "a value" if len(required) == 1 else "values"
        which = "" if missing == required else f" for {' and '.join(missing)}"
        raise PolicyError(f"{policy}: expected {values} for {', '.join(required)}, got none{which}")
    return spec.policy(**bound)


class _Reader:
    """Recursive-descent reader of one text; each method reads one thing and moves on."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def policy(self) -> Policy:
        """Read a named policy or a piecewise one."""
        if self._peek() == "[":
            listed = self._bracket()
            return listed if isinstance(listed, Policy) else self._fail("'@' and a time after the first policy")
        name = self._match(NAME)
        return self._call(name[0]) if name else self._fail("a policy such as TRI(k0=0.01, k1=0.06, l=2000)")

    def end(self) -> None:
        """Nothing may follow."""
        if self._peek():
            self._fail("the end of the policy")

    def _call(self, name: str) -> Policy:
        spec = _spec(name)
        self._deeper(+1)
        self._take("(", f"'(' after {name}")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        while self._peek() != ")":
            if positional or named:
                self._take(",", "',' or ')'")
            parameter = self._match(rf"({NAME})\s*=")
            if parameter is None and named:
                self._fail("a named parameter after named ones")
            elif parameter is None:
                positional.append(self._value())
            elif parameter[1] in named:
                raise PolicyError(f"{name}: expected each parameter once, got '{parameter[1]}' twice")
            else:
                named[parameter[1]] = self._value()
        self._take(")", "')'")
        self._deeper(-1)
        return _build(spec, positional, named)

    def _value(self) -> Any:
        if self._peek() == "[":
            return self._bracket()
        if word := self._match(rf"({NAME})(?!\s*\(|\w)|'({NAME})'|\"({NAME})\""):
            return word[word.lastindex or 0]
        return self._call(name[0]) if (name := self._match(NAME)) else self._quantity()

    def _quantity(self) -> Any:
        found = self._match(rf"(?:{QUANTITY})(?![\w.%/])")
        return quantity(found[0]) if found else self._fail("a number such as 0.1, 2000, 30ep, 12.5% or 0.01/run")

    def _bracket(self) -> Any:
        """Read a list, or a piecewise policy if '@' follows its first value."""
        self._deeper(+1)
        self._take("[", "'['")
        values = [self._value()]
        if self._peek() == "@" and isinstance(values[0], Policy):
            return self._piecewise(values[0])
        while self._peek() == ",":
            self._take(",", "','")
            values.append(self._value())
        self._take("]", "',' or ']'")
        self._deeper(-1)
        return values

    def _piecewise(self, first: Policy) -> Policy:
        policies, boundaries = [first], []
        while self._peek() == "@":
            self._take("@", "'@'")
            boundaries.append(self._quantity())
            self._take("|", "'|' and the next policy")
            policies.append(self.policy())
        self._take("]", "'@', or ']' after the last policy")
        self._deeper(-1)
        return Piecewise(tuple(boundaries), tuple(policies))

    def _deeper(self, by: int) -> None:
        self.depth += by
        if self.depth > DEEPEST:
            self._fail(f"at most {DEEPEST} levels of policies")

    def _peek(self) -> str:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _match(self, pattern: str) -> re.Match[str] | None:
        self._peek()
        found = re.compile(pattern).match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def _take(self, symbol: str, expected: str) -> None:
        if self._peek() != symbol:
            self._fail(expected)
        self.at += 1

    def _fail(self, expected: str) -> Any:
        got = f"'{self.text[self.at :].split()[0][:20]}'" if self._peek() else "the end"
        raise PolicyError(f"expected {expected} at column {self.at + 1} of '{self.text}', got {got}")


def _from_lrbench(text: str) -> Policy:
    """Read ``lrPolicy_TRI+k0_0.01+…``, and several of them: ``…-…-AT-30000+60000``."""
    parts, _, regions = text.partition("-AT-")
    # the minus and plus of an exponent (1e-05) separate nothing
    policies = [_lrbench_single(part) for part in re.split(r"(?<!\de)-(?=[A-Za-z])", parts)]
    if not regions:
        return policies[0] if len(policies) == 1 else Piecewise((), tuple(policies))
    return Piecewise(tuple(quantity(region) for region in regions.split("+")), tuple(policies))


def _lrbench_single(text: str) -> Policy:
    named: dict[str, list[str]] = {}
    for part in re.split(r"(?<!\de)\+", text):
        key, separator, value = part.partition("_")
        if separator:
            named[key] = [value]
        elif named:
            named[list(named)[-1]].append(part)
        else:
            raise PolicyError(f"expected LRBench's lrPolicy_NAME+parameter_value+…, got '{text}'")
    spec = _spec(named.pop("lrPolicy", [""])[0])
    values = {key: [quantity(item) for item in items] for key, items in named.items() if items != ["None"]}
    return _build(spec, [], {key: items if len(items) > 1 else items[0] for key, items in values.items()})
