"""`SELECTORS`, the table of all methods: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lrensemble.diversity import DIVERSITY
from lrensemble.selection.base import Selection
from lrensemble.selection.diverse import diverse
from lrensemble.selection.exhaustive import exhaustive
from lrensemble.selection.greedy import greedy
from lrensemble.selection.simple import best_single, random_team, top_k, whole_pool

__all__ = ["SELECTORS", "SelectorSpec"]


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
    """

    function: Callable[..., Selection]
    description: str
    options: tuple[str, ...] = ()
    takes_size: bool = True


_GREEDY = ("rounds", "replacement", "keep_best", "init", "bags", "bag_fraction")
_TEAMS = ("threshold", "max_size", "max_teams")


def _by(diversity: str, *, focal: bool = False) -> SelectorSpec:
    kind = "focal diversity" if focal else "diversity"
    function = partial(diverse, diversity=diversity, focal=focal)
    return SelectorSpec(function, f"best of the teams of high {kind} by {DIVERSITY[diversity].title}", _TEAMS)


SELECTORS: dict[str, SelectorSpec] = {
    "greedy": SelectorSpec(greedy, "add the member that helps most, round by round (Caruana et al. 2004)", _GREEDY),
    "exhaustive": SelectorSpec(exhaustive, "best of all equal-weight teams, exactly", ("max_size", "max_teams")),
    "top-k": SelectorSpec(top_k, "the k best members one by one; k chosen on validation without a size"),
    "whole": SelectorSpec(whole_pool, "all members, equal weights", takes_size=False),
    "best": SelectorSpec(best_single, "the best single member", takes_size=False),
    "random": SelectorSpec(random_team, "a team drawn at random (control)"),
    "diversity": SelectorSpec(diverse, "best of the diverse teams, by any measure", ("diversity", "focal", *_TEAMS)),
    "diversity-ck": _by("CK"),
    "diversity-qs": _by("QS"),
    "diversity-bd": _by("BD"),
    "diversity-fk": _by("FK"),
    "diversity-kw": _by("KW"),
    "diversity-gd": _by("GD"),
    "focal-ck": _by("CK", focal=True),
    "focal-qs": _by("QS", focal=True),
    "focal-bd": _by("BD", focal=True),
    "focal-fk": _by("FK", focal=True),
    "focal-kw": _by("KW", focal=True),
    "focal-gd": _by("GD", focal=True),
}
