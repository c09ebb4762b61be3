"""`judge_policies`: every policy of a pool by the metrics of LRBench, each over its seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lrensemble.errors import DamagedError, InputError, LREnsembleError, PoolError, lookup
from lrensemble.policies.scale import SCALES
from lrensemble.policies.text import parse_policy
from lrensemble.policies.time import NUMBER
from lrensemble.predictions import softmax
from lrensemble.tuning.judgement import Judgement, PolicyRow
from lrensemble.tuning.policy_metrics import POLICY_METRICS, Outcome, Repeats, Scaled, Spread, measure, measure_repeats

if TYPE_CHECKING:
    from lrensemble.pool import Member, MemberSummary, Pool

__all__ = ["judge_policies"]

SPLITS = ("val", "test")


def judge_policies(pool: Pool, *, target: float | None = None, split: str = "val", sort: str = "top1") -> Judgement:
    """Judge every policy of a pool: utility, cost and robustness, each over its seeds.

    Trainings that diverged have no metrics but are counted in their row. Snapshots are in no row: their training is.
    A member that is k networks (`folds`) is judged by its out-of-fold predictions; its steps are those of one network,
    its seconds and samples those of all.

    Parameters
    ----------
    pool
        Any pool; of imported predictions only utility is known.
    target
        Validation accuracy in (0, 1] for the costs to a target.
    split
        ``"val"``, or ``"test"`` for reporting: never choose a policy by its test metrics.
    sort
        Key in `POLICY_METRICS`. The best row is first, rows without a value are last. By a cost to a target, policies
        of which a larger share of the trainings reached it come first.

    Returns
    -------
    Judgement
        Its ``rows`` and ``by_optimizer()``; ``str()`` is a table, ``to_dict()`` is JSON-ready.

    Raises
    ------
    InputError
        For another split, a target that is not in (0, 1], or one that is missing where it is sorted by.
    UnknownNameError
        For a metric that there is not.
    PoolError
        If the pool holds no member.
    """
    _check(target, split, sort)
    members = pool.summaries()
    if not members:
        raise PoolError(f"{pool.path}: expected a pool with members, got an empty one: train policies first")
    own = [summary for summary in members if not _is_snapshot(summary)]
    groups: dict[str, list[MemberSummary]] = {}
    for summary in own:
        groups.setdefault(_key(summary), []).append(summary)
    judged = [_judge(pool, group, split, target) for group in groups.values()]
    rows = _with_repeats([row for row in judged if row.members], pool.n_classes)
    return Judgement(
        pool=str(pool.path),
        split=split,
        n_samples=len(pool.labels(split)),
        n_classes=pool.n_classes,
        target=target,
        sort=sort,
        rows=tuple(sorted(rows, key=lambda row: _place(row, sort))),
        snapshots=len(members) - len(own),
        stopped=len(pool.stopped()),
        damaged=len(own) - sum(len(row.members) for row in rows),
    )


def _check(target: float | None, split: str, sort: str) -> None:
    if split not in SPLITS:
        raise InputError(f"split: expected 'val' or 'test', got {split!r}")
    if target is not None and not 0 < target <= 1:
        raise InputError(f"target: expected a validation accuracy in (0, 1], such as 0.9, got {target!r}")
    if lookup(POLICY_METRICS, sort, "metric of policies").of_target and target is None:
        raise InputError(f"sort: expected a target with '{sort}', got none: give a validation accuracy such as 0.9")


def _is_snapshot(summary: MemberSummary) -> bool:
    return "snapshot" in summary.extra and "parent" in summary.extra


def _key(summary: MemberSummary) -> str:
    """Text that the repeats of a policy share, and no others."""
    if not summary.policy:
        return repr(summary.id)
    architecture = summary.extra.get("architecture")
    return repr((summary.policy, summary.model, architecture, sorted(summary.config.items())))


def _judge(pool: Pool, group: Sequence[MemberSummary], split: str, target: float | None) -> PolicyRow:
    """Measure the members of one row, one after the other: their logits are never in memory together."""
    members: list[str] = []
    seeds: list[int] = []
    values: list[dict[str, float | None]] = []
    rates: list[float] = []
    for summary in sorted(group, key=lambda summary: (summary.seed, summary.id)):
        try:
            member = pool.member(summary.id)
        except DamagedError:  # set aside by the pool, which tells of it
            continue
        members.append(member.id)
        seeds.append(member.seed)
        rates += [float(np.max(rate)) for rate in (member.history.get("step_lr", ()),) if len(rate)]
        if member.status == "done":
            values.append(measure(_outcome(member, pool, split, target)))
    first, config = group[0], dict(group[0].config)
    return PolicyRow(
        policy=first.asked or first.policy or first.id,
        resolved=first.policy,
        optimizer=_as(str, config.pop("optimizer", None)),
        epochs=_as(int, config.pop("epochs", None)),
        model=first.model,
        settings=config,
        members=tuple(members),
        seeds=tuple(seeds),
        done=len(values),
        diverged=len(members) - len(values),
        rate=max(rates, default=None),
        metrics={m.name: Spread.of(v[m.name] for v in values) for m in POLICY_METRICS.values() if not m.of_repeats},
        scale={},
    )


def _outcome(member: Member, pool: Pool, split: str, target: float | None) -> Outcome:
    folds = member.extra.get("folds")
    return Outcome(
        probabilities=softmax(member.logits[split]),
        labels=pool.labels(split),
        history=member.history,
        config=member.config,
        seconds=member.seconds,
        folds=folds if isinstance(folds, int) else 1,
        target=target,
    )


def _as(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else None


def _place(row: PolicyRow, sort: str) -> tuple[Any, ...]:
    """Sort key of a row: the best value first; of those without a value the best Top-1; then what only diverged."""
    metric, spread, top1 = POLICY_METRICS[sort], row.metrics[sort], row.metrics["top1"]
    if spread is None:
        return True, top1 is None, -top1.mean if top1 else 0.0, row.policy
    share = spread.n / (row.done + row.diverged) if metric.of_target else 1.0
    return False, -share, -spread.mean if metric.higher_is_better else spread.mean, row.policy


# --- the same policy at other base rates ------------------------------------------------------------------------------


def _with_repeats(rows: Sequence[PolicyRow], n_classes: int) -> list[PolicyRow]:
    """Add what takes all trainings of a policy, and other rows: the spread over seeds and the base-rate scale."""
    known = {_circumstances(row, row.resolved): row for row in rows if row.resolved}
    found = []
    for row in rows:
        scale = _scale(row, known)
        values = measure_repeats(Repeats(row.metrics["top1"], scale, n_classes))
        more = {name: Spread.of([value]) for name, value in values.items()}
        found.append(replace(row, scale=scale, metrics={**row.metrics, **more}))
    return found


def _scale(row: PolicyRow, known: Mapping[str, PolicyRow]) -> dict[float, Scaled]:
    try:
        policy = parse_policy(row.resolved)
    except LREnsembleError:  # none, or one of a later release
        return {}
    others = {factor: known.get(_circumstances(row, str(policy.scaled(factor)))) for factor in SCALES}
    return {
        factor: Scaled(top1.mean if (top1 := other.metrics["top1"]) else None, other.done, other.diverged)
        for factor, other in others.items()
        if other is not None
    }


def _circumstances(row: PolicyRow, policy: str) -> str:
    """Text that tells a policy in the circumstances of a row; numbers to nine digits, since 3 · 0.1 is not 0.3."""
    rounded = re.sub(NUMBER, lambda found: f"{float(found[0]):.9g}", policy)
    return repr((rounded, row.optimizer, row.epochs, row.model, sorted(row.settings.items())))
