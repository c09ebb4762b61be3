"""Tables as plain text for the terminal, about 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrensemble.metrics import METRICS

if TYPE_CHECKING:
    from lrensemble.ensemble import Ensemble
    from lrensemble.pool import MemberSummary

__all__ = ["ensemble_table", "members_table", "plain_table", "pool_summary", "resplit_line", "stopped_table"]

WIDTH = 100
LISTED = 12  # entries of a list that are shown


def plain_table(rows: Sequence[Sequence[Any]], *headers: str, widths: Sequence[int | None] | None = None) -> str:
    """Columns under their headings; numbers to the right, text to the left, long text wrapped to `widths`."""
    from tabulate import tabulate

    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(headers))]
    return tabulate(
        [["" if value is None else value for value in row] for row in rows],
        headers,
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right" if right else "left" for right in numeric] if rows else None,
        maxcolwidths=list(widths) if widths and rows else None,
    )


def members_table(summaries: Sequence[MemberSummary]) -> str:
    """One line a network, the best on validation first, diverged ones last; accuracy and NLL are of validation."""
    ranked = sorted(summaries, key=lambda s: (s.val_accuracy is None, -(s.val_accuracy or 0.0), s.val_nll or 0.0, s.id))
    several_models = len({summary.model for summary in summaries}) > 1
    columns = [
        ("network", 30, [s.id for s in ranked]),
        ("policy", 22 if several_models else 30, [s.asked or s.policy for s in ranked]),
        ("model", 16, [s.model if several_models else "" for s in ranked]),
        ("seed", None, [str(s.seed) for s in ranked]),
        ("snapshot", None, [_snapshot(s) for s in ranked]),
        ("val. %", None, [_percent(s.val_accuracy) if s.status == "done" else s.status for s in ranked]),
        ("NLL", None, [_fixed(s.val_nll, 3) for s in ranked]),
        ("seconds", None, [_fixed(s.seconds or None, 1) for s in ranked]),
    ]
    headings, widths, cells = zip(*(column for column in columns if any(column[2]) or not ranked), strict=True)
    return plain_table(list(zip(*cells, strict=True)), *headings, widths=widths)


def _snapshot(summary: MemberSummary) -> str:
    """Which moment of its training a snapshot keeps; nothing for a training's end."""
    kind = summary.extra.get("snapshot", "")
    return f"{kind}, epoch {summary.extra['epoch']}" if kind else ""


def stopped_table(stopped: Sequence[Mapping[str, Any]]) -> str:
    """One line a training that was stopped early, the lowest loss first; `stopped` is that of `Pool.info`."""
    ranked = sorted(stopped, key=lambda s: (s["val_loss"] is None, s["val_loss"] or 0.0, s["id"]))
    rows = [
        (
            s["id"],
            s["asked"] or s["policy"],
            str(s["seed"]),
            f"{s['epoch']}/{s['epochs']}",
            _percent(s["val_accuracy"]),
            _fixed(s["val_loss"], 3),
        )
        for s in ranked
    ]
    widths = (30, 30, None, None, None, None)
    return plain_table(rows, "stopped", "policy", "seed", "epoch", "val. %", "NLL", widths=widths) if rows else ""


def pool_summary(info: Mapping[str, Any], summaries: Sequence[MemberSummary]) -> str:
    """Return the facts of a pool that fit on a line each, then its members, then what is wrong with it."""
    facts = [(str(key).replace("_", " "), _fact(value)) for key, value in info.items() if _fact(value)]
    pad = max((len(key) for key, _ in facts), default=0)
    lines = [f"{key:{pad}}  {value}" for key, value in facts]
    problems = [f"problem: {_fact(problem)}" for problem in info.get("problems", ())]
    stopped = stopped_table(info.get("stopped", ()))
    more = [part for part in (stopped, "\n".join(problems)) if part]
    return "\n\n".join(["\n".join(lines), members_table(summaries), *more])


def ensemble_table(ensemble: Ensemble) -> str:
    """How an ensemble was found, and its members, the heaviest first."""
    score = f"{ensemble.metric} there {_scored(ensemble)}" if ensemble.score is not None and ensemble.metric else ""
    heading = (
        f"{ensemble.method}: {len(ensemble)} of {ensemble.n_candidates or '?'} networks, {ensemble.combination}; "
        f"chosen on {ensemble.n_samples:,} samples of '{ensemble.split}'"
    )
    lines = [heading, score, resplit_line(ensemble), f"why: {ensemble.reason}" if ensemble.reason else ""]
    pairs = sorted(zip(ensemble.members, ensemble.weights, strict=True), key=lambda pair: -pair[1])
    extra = _fitted(ensemble)
    rows = [(name, f"{weight:.4f}", *(values[name] for values in extra.values())) for name, weight in pairs]
    members = plain_table(rows, "member", "weight", *extra)
    text = "\n".join(textwrap.fill(line, WIDTH, break_on_hyphens=False) for line in lines if line)
    return "\n\n".join(filter(None, [text, members, _candidates_table(ensemble)]))


def _scored(ensemble: Ensemble) -> str:
    metric = METRICS.get(ensemble.metric)  # a callable is in no table, and maximised
    return f"{ensemble.score:.4f} ({'higher' if metric is None or metric.higher_is_better else 'lower'} is better)"


def _fitted(ensemble: Ensemble) -> dict[str, dict[str, str]]:
    """Columns of what was fitted to each member, by heading and member."""
    columns: dict[str, dict[str, str]] = {}
    if ensemble.stacker and ensemble.stacker.features == "scalar":
        values = zip(ensemble.members, ensemble.stacker.coefficients, strict=True)
        columns["coefficient"] = {name: _signed(value) for name, value in values}
    if ensemble.temperatures:
        heat = zip(ensemble.members, ensemble.temperatures, strict=True)
        columns["temperature"] = {name: f"{value:.3f}" for name, value in heat}
    return columns


def resplit_line(ensemble: Ensemble) -> str:
    """One line: what the ensemble is worth on samples that it was not chosen on; empty where it was not measured."""
    found = ensemble.resplit
    if not found:
        return ""
    if "not_available" in found:
        return f"no cross-validated score: {found['not_available']}"
    return (
        f"cross-validated {ensemble.metric} {found['score']:.4f} ± {found['standard_error']:.4f} "
        f"({found['splits']} re-splits), optimism {_signed(found['optimism'])}, gain over the best single "
        f"{_signed(found['gain'])} ± {found['gain_standard_error']:.4f} (+ is better)"
    )


def _candidates_table(ensemble: Ensemble) -> str:
    """Methods that `auto` compared, the best first, and those that it could not compare."""
    entries = ensemble.resplit.get("candidates", [])
    compared = sorted((e for e in entries if "score" in e), key=lambda e: -e["gain"])
    rows = [
        (
            f"{entry['method']} (chosen)" if entry["method"] == ensemble.resplit["method"] else entry["method"],
            f"{entry['score']:.4f} ± {entry['standard_error']:.4f}",
            f"{_signed(entry['gain'])} ± {entry['gain_standard_error']:.4f}",
            f"{entry['size']:.1f}",
        )
        for entry in compared
    ]
    table = (
        plain_table(rows, "method", f"cross-validated {ensemble.metric}", "gain over single", "members") if rows else ""
    )
    others = [f"left out: {e['method']}: {e['left_out']}" for e in entries if "left_out" in e]
    others = [textwrap.fill(line, WIDTH, break_on_hyphens=False) for line in others]
    return "\n".join(filter(None, [table, *others]))


def _fact(value: Any) -> str:
    """Return a value as one short line; nothing for what would not fit."""
    if isinstance(value, Mapping):
        value = [f"{key} {_fact(entry)}" for key, entry in value.items() if _fact(entry)]
    if isinstance(value, (list, tuple)):
        plain = all(isinstance(entry, (str, int, float)) for entry in value)
        shown = ", ".join(map(_fact, value[:LISTED]))
        return "" if not plain else shown if len(value) <= LISTED else f"{len(value)}: {shown}, …"
    if isinstance(value, float):
        return f"{value:,.6g}"
    return (
        f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "" if value is None else str(value)
    )


def _is_number(value: Any) -> bool:
    try:
        float(str(value).replace(",", ""))
    except ValueError:
        return value is None or value == ""
    return True


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}".replace("-", "−")  # + 0.0 turns −0 into 0


def _fixed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
