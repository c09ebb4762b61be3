"""`Explanation`: the roles of members in a team, and of those outside it, as data and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Candidate", "Explanation", "MemberRole", "Round"]

WIDTH = 100
LISTED = 12  # rounds and members outside the team that the text shows
PAD = 2  # between columns, and around the headings of numbers


@dataclass(frozen=True)
class MemberRole:
    """A member of the team; `score` is its own, `change` is that of the team's metric when it is left out.

    `round` and `gain` say when it came in (from 1) and how much better that made the team, where there is a trace;
    `similar` is the other member of the team that most often predicts the same, in the share `agreement` of samples.
    """

    member: str
    weight: float
    score: float
    rank: int
    change: float | None
    round: int | None
    gain: float | None
    similar: str | None
    agreement: float | None


@dataclass(frozen=True)
class Candidate:
    """A member outside the team; `change` is that of the team's metric if it came in with the average weight."""

    member: str
    score: float
    rank: int
    change: float | None
    similar: str
    agreement: float


@dataclass(frozen=True)
class Round:
    """A round of the trace: the member added, the score after it, and how much better that is than before."""

    member: str
    score: float
    gain: float | None


@dataclass(frozen=True)
class Explanation:
    """What `explain` finds, all of it on validation data.

    Attributes
    ----------
    method, reason
        How the team was found.
    rule
        How its members are combined, in words; see `Ensemble.combination`.
    metric, higher_is_better, score, n_samples
        What the team is measured by, and its score on so many samples of `split`.
    team
        Its members, the heaviest first.
    others
        All members outside it, the one that would help most first.
    rounds
        The trace of the method, where there is one.
    notes
        What could not be shown, and why.
    """

    method: str
    reason: str
    rule: str
    metric: str
    higher_is_better: bool
    score: float
    split: str
    n_samples: int
    team: tuple[MemberRole, ...]
    others: tuple[Candidate, ...]
    rounds: tuple[Round, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def __str__(self) -> str:
        return _text(self)


def _text(found: Explanation) -> str:
    """Heading, the team, the others, the rounds; at most 100 columns."""
    better = "higher" if found.higher_is_better else "lower"
    pool = len(found.team) + len(found.others)
    heading = (
        f"{found.method}: {len(found.team)} of {pool} members, {found.rule}; {found.metric} {found.score:.4f} on "
        f"{found.n_samples:,} samples of '{found.split}' ({better} is better)"
    )
    reason = [f"why: {found.reason}"] if found.reason else []
    parts = ["\n".join(map(_filled, [heading, *reason])), _team_table(found)]
    parts += [_others_table(found)] if found.others else []
    parts += [_filled(_rounds_line(found))] if found.rounds else []
    return "\n\n".join([*parts, *map(_filled, found.notes)])


def _filled(line: str) -> str:
    return textwrap.fill(line, WIDTH, break_on_hyphens=False)


def _team_table(found: Explanation) -> str:
    rows = [
        (
            role.member,
            f"{role.weight:.4f}",
            f"{role.score:.4f}",
            str(role.rank),
            _signed(role.change),
            "" if role.round is None else str(role.round),
            role.similar or "",
            _percent(role.agreement),
        )
        for role in found.team
    ]
    headings = ("in the team", "weight", "score", "rank", "without it", "round", "most like", "same")
    return _table(rows, headings, names=(0, 6))


def _others_table(found: Explanation) -> str:
    rows = [
        (
            other.member,
            f"{other.score:.4f}",
            str(other.rank),
            _signed(other.change),
            other.similar,
            _percent(other.agreement),
        )
        for other in found.others[:LISTED]
    ]
    table = _table(rows, ("not in it", "score", "rank", "if added", "most like", "same"), names=(0, 4))
    more = len(found.others) - LISTED
    return f"{table}\n… and {more} more" if more > 0 else table


def _table(rows: Sequence[Sequence[str]], headings: Sequence[str], names: tuple[int, int]) -> str:
    """Columns under their headings, empty ones left out; names to the left and wrapped, numbers to the right."""
    from tabulate import tabulate

    used = [i for i in range(len(headings)) if any(row[i] for row in rows)]
    numbers = [max(len(headings[i]) + PAD, *(len(row[i]) for row in rows)) + PAD for i in used if i not in names]
    name_width = (WIDTH - sum(numbers) - PAD) // 2
    return tabulate(
        [[row[i] for i in used] for row in rows],
        [headings[i] for i in used],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["left" if i in names else "right" for i in used],
        maxcolwidths=[name_width if i in names else None for i in used],
    )


def _rounds_line(found: Explanation) -> str:
    steps = [
        f"{i} {step.member} {f'{step.score:.4f}' if step.gain is None else _signed(step.gain)}"
        for i, step in enumerate(found.rounds, start=1)
    ]
    more = f", … ({len(steps)} rounds)" if len(steps) > LISTED else ""
    return f"gain by round (+ is better): {', '.join(steps[:LISTED])}{more}"


def _signed(change: float | None) -> str:
    return "" if change is None else f"{round(change, 4) + 0.0:+.4f}".replace("-", "−")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
