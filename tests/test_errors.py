import pytest

from lrensemble import errors
from lrensemble.errors import LREnsembleError, UnknownNameError, first_line, lookup, nearest


def test_every_error_has_the_one_root():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 8
    assert all(issubclass(kind, LREnsembleError) for kind in kinds)


def test_tree_in_the_docstring_is_complete():
    for name in errors.__all__:
        assert name in errors.__doc__ or name in {"first_line", "lookup", "nearest"}


def test_lookup_names_the_nearest_and_all_choices():
    assert lookup({"greedy": 1, "top-k": 2}, "top-k", "selector") == 2
    with pytest.raises(
        UnknownNameError, match=r"unknown selector 'gredy': did you mean 'greedy'\? choose from greedy, top-k"
    ):
        lookup({"greedy": 1, "top-k": 2}, "gredy", "selector")


def test_nearest_ignores_case_and_gives_up_when_nothing_is_near():
    assert nearest("GREEDY", ["greedy"]) == "greedy"
    assert nearest("xyz", ["greedy"]) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [("one", "one"), ("  expected: \nmore", "expected"), ("", "ValueError"), ("\n \n", "ValueError"), ("a\r\nb", "a")],
)
def test_the_first_line_of_an_error(text, line):
    assert first_line(ValueError(text)) == line
