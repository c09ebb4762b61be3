"""`SELECTORS`, the table of all methods: one line each."""

from __future__ import annotations

from functools import partial

from lrensemble.diversity import DIVERSITY
from lrensemble.selection.auto import auto
from lrensemble.selection.backward import backward
from lrensemble.selection.beam import beam
from lrensemble.selection.climb import climb
from lrensemble.selection.convex import convex
from lrensemble.selection.cost_aware import cost_aware
from lrensemble.selection.diverse import diverse
from lrensemble.selection.exhaustive import exhaustive
from lrensemble.selection.fusion import eq
from lrensemble.selection.greedy import greedy
from lrensemble.selection.pruning import hq
from lrensemble.selection.representatives import clusters, farthest_first
from lrensemble.selection.simple import best_single, random_team, top_k, whole_pool
from lrensemble.selection.spec import SelectorSpec
from lrensemble.selection.stacking import stacking
from lrensemble.selection.tradeoff import tradeoff

__all__ = ["SELECTORS", "SelectorSpec"]


_FORWARD = ("rounds", "replacement", "keep_best", "init", "patience")
_GREEDY = (*_FORWARD, "bags", "bag_fraction", "sample_fraction")
_CLIMB = ("start", "rounds", "step", "smallest")
_TEAMS = ("threshold", "max_size", "max_teams")
_PRUNING = ("beta", "diversity", "focal", "max_size", "max_teams")


def _by(diversity: str, *, focal: bool = False) -> SelectorSpec:
    kind = "focal diversity" if focal else "diversity"
    function = partial(diverse, diversity=diversity, focal=focal)
    return SelectorSpec(function, f"best of the teams of high {kind} by {DIVERSITY[diversity].title}", _TEAMS)


SELECTORS: dict[str, SelectorSpec] = {
    "greedy": SelectorSpec(greedy, "add the member that helps most, round by round (Caruana et al. 2004)", _GREEDY),
    "beam": SelectorSpec(beam, "greedy that follows several teams at once", ("width", *_FORWARD)),
    "backward": SelectorSpec(backward, "drop members one by one, the most dispensable first", ("init",)),
    "convex": SelectorSpec(
        convex, "weights of least NLL (or Brier score), by convex optimisation", ("tolerance", "shrinkage")
    ),
    "climb": SelectorSpec(climb, "hill climbing on weights, for any objective", _CLIMB),
    "stacking": SelectorSpec(
        stacking, "linear model over the members' log-probabilities", ("features",), takes_size=False
    ),
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
    "eq": SelectorSpec(eq, "best of the teams that most of three focal diversities find diverse", ("fusion", *_TEAMS)),
    "hq": SelectorSpec(hq, "best of the teams that hierarchical pruning by focal diversity leaves", _PRUNING),
    "tradeoff": SelectorSpec(
        tradeoff,
        "greedy by (1 − λ)·score + λ·diversity; λ from held-out samples",
        ("lam", "diversity", "max_size", "splits"),
    ),
    "clusters": SelectorSpec(clusters, "the best member of each kind of members", ("distance", "max_size")),
    "farthest-first": SelectorSpec(
        farthest_first,
        "the best member, and good ones far from it and one another",
        ("distance", "quantile", "max_size"),
    ),
    "cost-aware": SelectorSpec(
        cost_aware,
        "the best team within a budget, or the cheapest that is as good as the best",
        ("cost", "budget", "max_size", "max_teams"),
        needs_costs=True,
    ),
}

# What `auto` compares where scoring a team is fast, and where it is not; what refuses a pool is left out there.
CANDIDATES = (
    "top-k",
    "greedy",
    "greedy(bags=10)",
    "backward",
    "convex",
    "diversity-gd(max_teams=2000)",
    "exhaustive(max_teams=4095)",
    "whole",
)
FEW_CANDIDATES = ("top-k", "greedy", "convex", "whole")

SELECTORS["auto"] = SelectorSpec(
    partial(auto, methods=dict(SELECTORS), usual=(CANDIDATES, FEW_CANDIDATES)),
    "the method that scores best on validation samples it did not choose on, or the best single member",
    ("candidates",),
    needs_costs=True,
    resplits=True,
)
