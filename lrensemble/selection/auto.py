"""`auto`: let cross-validation choose the method, with small teams and the best single network as the defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, lookup
from lrensemble.references import parse_call
from lrensemble.selection.base import Selection, Task, check_count, first_best
from lrensemble.selection.families import among_candidates
from lrensemble.selection.outcome import ensemble_of
from lrensemble.selection.resplit import RESPLITS, CrossValidation, fewest_samples, resplit
from lrensemble.selection.spec import SelectorSpec, check_options

__all__ = ["auto"]

SINGLE = "best"
FAST = ("nll", "accuracy", "brier")
Run = Callable[[Task], Selection]


def auto(
    task: Task,
    size: int | None,
    *,
    methods: Mapping[str, SelectorSpec],
    usual: tuple[Sequence[str], Sequence[str]],
    candidates: tuple[str, ...] | list[str] | None = None,
    resplits: int = RESPLITS,
) -> Selection:
    """Use the method whose teams score best on validation samples that they were not chosen on.

    All candidates choose on the same re-splits of validation (see `resplit`). Of those that come within one standard
    error of the best and lead the best single member by more than one, the one with the smallest teams is used on all
    samples; if there is none, the best single member is. Standard errors are of the differences split by split. The
    one-standard-error rule is that of Breiman et al. (1984): what cannot be told apart should not cost more networks.

    Parameters
    ----------
    size
        At most so many members; only methods that take a size are compared, and the best single member.
    methods
        By name; the table of methods.
    usual
        Candidates where a team is scored fast (NLL, accuracy or Brier score of the mean of probabilities), and where
        it is not.
    candidates
        Names of methods, with options where wanted: ``("top-k", "greedy(bags=20)")``; None: the usual ones. One that
        refuses the task, or a part of it, is left out of the comparison. The best single member always takes part.
    resplits
        How many; at least 2.

    Returns
    -------
    Selection
        Of the chosen method; its ``resplit`` has the cross-validation and the table of candidates. With too few samples
        to re-split it is the best single member.
    """
    check_count("resplits", resplits, 2)
    if candidates is not None and not candidates:
        raise InputError("expected one candidate or more, such as 'greedy', got none: leave it out for the usual")
    compared = usual[0 if _scored_fast(task) else 1] if candidates is None else candidates
    runs = dict(_runs(methods, [SINGLE, *compared], size))
    if task.n_members == 1:
        return replace(runs[SINGLE](task), reason="the only member of the pool")
    if task.predictions.n_samples < fewest_samples():
        few = f"{task.predictions.n_samples} validation samples are too few to compare methods: the best single member"
        return replace(runs[SINGLE](task), reason=few)
    chosen, refused = _choices(task, runs)
    choosers = {name: partial(_choose, runs[name]) for name in chosen}
    found = resplit(task, choosers, resplits=resplits, refused=refused)
    winner, why = _winner(found)
    rows = [_row(name, entry) for name, entry in found.items()]
    rows += [{"method": name, "left_out": reason} for name, reason in refused.items()]
    score = ensemble_of(task, chosen[winner]).score or 0.0
    record = found[winner].to_dict() | {
        "corrected": found[winner].corrected(score),
        "method": winner,
        "candidates": rows,
    }
    reason = ": ".join(filter(None, (why, chosen[winner].reason)))
    return replace(chosen[winner], reason=reason, resplit=record)


def _scored_fast(task: Task) -> bool:
    return task.rule == "mean_probability" and any(map(task.objective.is_metric, FAST))


def _runs(
    methods: Mapping[str, SelectorSpec], candidates: Sequence[str], size: int | None
) -> Iterator[tuple[str, Run]]:
    """Yield each candidate as a function of the task, under its text; with a size, only those that take one."""
    for text in candidates:
        if not isinstance(text, str):
            raise InputError(f"expected candidates as texts such as 'greedy(rounds=10)', got {text!r}")
        name, options = parse_call(text, "candidate")
        method = lookup(methods, name, "selection method")
        check_options(name, method, options)
        if size is None or method.takes_size or name == SINGLE:
            run = partial(method.function, size=size if method.takes_size else None, **options)
            yield text, partial(among_candidates, run)


def _choices(task: Task, runs: Mapping[str, Run]) -> tuple[dict[str, Selection], dict[str, str]]:
    """Return what each candidate chooses on all samples, and the reason of each that refuses the task."""
    chosen, refused = {}, {}
    for name, run in runs.items():
        try:
            chosen[name] = run(task)
        except InputError as error:
            refused[name] = str(error)
    return chosen, refused


def _choose(run: Run, task: Task) -> Ensemble:
    return ensemble_of(task, run(task))


def _winner(found: Mapping[str, CrossValidation]) -> tuple[str, str]:
    """Name of the candidate to use, and why."""
    names = list(found)
    best = names[first_best([(found[name].turned, -found[name].size) for name in names])]
    level = [name for name in names if not _leads(*found[best].lead(found[name]))]
    ahead = [name for name in level if _leads(found[name].gain, found[name].gain_error)]
    if not ahead:
        return SINGLE, _nothing_leads(found, best)
    smallest = ahead[first_best([(-found[name].size, found[name].turned) for name in ahead])]
    entry = found[smallest]
    scored = f"{smallest}, cross-validated {entry.metric} {entry.score:.4f} ± {entry.error:.4f}"
    if smallest == best:
        return best, f"{scored}, best of {len(names)} candidates"
    return smallest, f"{scored}, within one standard error of {best} ({found[best].score:.4f}) with smaller teams"


def _nothing_leads(found: Mapping[str, CrossValidation], best: str) -> str:
    lead = f" ({best} leads by {found[best].gain:.4f} ± {found[best].gain_error:.4f})" if best != SINGLE else ""
    return f"none of {len(found) - 1} methods leads the best single member by more than one standard error{lead}"


def _leads(mean: float, error: float) -> bool:
    return mean > error


def _row(name: str, entry: CrossValidation) -> dict[str, Any]:
    return {
        "method": name,
        "score": entry.score,
        "standard_error": entry.error,
        "gain": entry.gain,
        "gain_standard_error": entry.gain_error,
        "size": entry.size,
    }
