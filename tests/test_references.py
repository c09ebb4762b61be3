"""Calls and references: what is read, what is refused, and that the two texts round-trip."""

import functools
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrensemble.errors import InputError
from lrensemble.references import format_call, is_reference, parse_call, reference_name, resolve

NAMES = st.from_regex(r"[a-z][a-z0-9_.:]{0,10}[a-z0-9]", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)
OPTIONS = st.dictionaries(st.sampled_from(["hidden", "depth", "k0", "größe", "_x"]), VALUES)


@settings(deadline=None, max_examples=100)
@given(NAMES, OPTIONS)
def test_calls_round_trip(name, options):
    assert parse_call(format_call(name, options)) == (name, options)


@pytest.mark.parametrize("text", ["mlp", " mlp ", "mlp()", "mlp( )", "mlp (\n)"])
def test_calls_without_options(text):
    assert parse_call(text) == ("mlp", {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "mlp(",
        "mlp)",
        "mlp(3)",
        "mlp(hidden=)",
        "mlp(hidden=3",
        "mlp(hidden=x)",
        "mlp(**{'a': 1})",
        "mlp(hidden=1, hidden=2)",
        "mlp(hidden=1) + mlp(hidden=2)",
        "mlp(hidden=1)(depth=2)",
        "mlp(hidden=__import__('os').getcwd())",
        "mlp(hidden=" + "(" * 500 + ")" * 500 + ")",
        "mlp(hidden='\0')\0",
    ],
)
def test_other_texts_are_refused_in_one_line(text):
    with pytest.raises(InputError, match="expected a model as `name") as caught:
        parse_call(text, "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["json:dumps", "os.path:join", "a.b:C.make"])
def test_references_are_recognised(text):
    assert is_reference(text)


@pytest.mark.parametrize(
    "text", ["json", "C:\\data\\x.npz", "a/b:c", "torchvision:", ":f", "m:f.<locals>.<lambda>", "m:f()"]
)
def test_other_texts_are_no_references(text):
    assert not is_reference(text)


def test_resolve_finds_installed_and_nested_names():
    assert resolve("json:dumps") is json.dumps
    assert resolve("json:JSONDecoder.decode") is json.JSONDecoder.decode


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory of one's own, whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_resolve_finds_modules_of_the_current_directory(here):
    (here / "refs_own_module.py").write_text("def loader():\n    return 7\n")
    assert resolve("refs_own_module:loader")() == 7


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("refs_modle:f", "no module 'refs_modle' here or installed: did you mean 'refs_module'"),
        ("refs_absent_altogether.sub:f", "no module 'refs_absent_altogether' here or installed"),
        ("refs_module.sub:f", "refs_module"),
        ("refs_module:loaderr", "unknown name in .*refs_module.py 'loaderr': did you mean 'loader'"),
        ("refs_module:NUMBER", "expected a function that can be called, got int"),
        ("refs_broken:f", "importing 'refs_broken' raised ZeroDivisionError: division by zero"),
        ("refs_syntax:f", "importing 'refs_syntax' raised SyntaxError"),
        ("refs_needs:f", "importing 'refs_needs' needs the module 'refs_not_installed', which is missing"),
        ("no reference", "expected a function as `package.module:function`, got 'no reference'"),
        ("m:f.<locals>.<lambda>", "pass the function itself"),
    ],
)
def test_what_cannot_be_resolved_says_why_in_one_line(here, reference, message):
    (here / "refs_module.py").write_text("NUMBER = 3\ndef loader(): pass\ndef _private(): pass\n")
    (here / "refs_broken.py").write_text("1 / 0\n")
    (here / "refs_syntax.py").write_text("def\n")
    (here / "refs_needs.py").write_text("import refs_not_installed\n")
    with pytest.raises(InputError, match=message) as caught:
        resolve(reference)
    assert "\n" not in str(caught.value)


def module_level():
    """Stand for a function of a user's module."""


def test_names_of_functions():
    assert resolve(reference_name(module_level)) is module_level
    assert reference_name(json.JSONDecoder) == "json.decoder:JSONDecoder"
    twice = functools.partial(functools.partial(json.dumps, indent=2, sort_keys=True), indent=4)
    assert reference_name(twice) == "json:dumps(indent=4, sort_keys=True)"
    assert reference_name(lambda: 0).endswith("test_names_of_functions.<locals>.<lambda>")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (functools.partial(json.dumps, 1), "literal keyword arguments only"),
        (functools.partial(json.dumps, cls=json.JSONEncoder), "literal keyword arguments only"),
        (3, "got an instance of int"),
        (functools.lru_cache, None),
    ],
)
def test_names_of_what_has_none(function, message):
    if message is None:
        assert reference_name(function) == "functools:lru_cache"
        return
    with pytest.raises(InputError, match=message):
        reference_name(function)
