"""Snapshots: further members from one training, at the cost of their predictions alone. Light: no torch.

Three kinds: the network at the end of each cycle of a cyclic policy (snapshot ensembles, Huang et al. 2017, arXiv
1704.00109), after each of the last epochs (checkpoint ensembles, Chen, Lundberg & Lee 2017, arXiv 1710.03282), and the
mean of its weights over the last part of the training (stochastic weight averaging, Izmailov et al. 2018, arXiv
1803.05407). What is taken, and when, follows from policy and length of the run before anything is trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrensemble.errors import InputError

if TYPE_CHECKING:
    from lrensemble.policies import Policy

__all__ = ["Snapshot", "check_snapshots", "plan_snapshots"]

MOST = 100  # snapshots of a member: more is a cycle of a few steps
SWA_SHARE = 0.25
EXPECTED = "expected cycles, last:K with K ≥ 1, swa or swa:SHARE with a share of the epochs in (0, 1]"


@dataclass(frozen=True)
class Snapshot:
    """A member that is taken from a training under way.

    Attributes
    ----------
    id
        Name of its training's last member with ``-e18`` (after epoch 18), ``-t1234`` (after 1,234 updates, within an
        epoch) or ``-swa5`` (mean of the last five epochs): the same state has the same name, whatever asked for it.
    kind
        ``"cycle"``, ``"epoch"`` or ``"swa"``.
    step
        Updates before it.
    epoch
        Epochs finished before it.
    averaged
        Number of epochs at whose ends the weights are averaged; 0 for a network as it was.
    """

    id: str
    kind: str
    step: int
    epoch: int
    averaged: int = 0

    def facts(self) -> dict[str, str | int]:
        """Return what the pool notes of it, by name."""
        averaged = {"averaged": self.averaged} if self.averaged else {}
        return {"snapshot": self.kind, "step": self.step, "epoch": self.epoch, **averaged}

    def exists(self, *, steps: int, diverged: bool) -> bool:
        """Whether a training that ended after so many updates has it; of the state it diverged in there is none."""
        return self.step < steps or (self.step == steps and not diverged)


def check_snapshots(snapshots: str | Sequence[str]) -> tuple[str, ...]:
    """Return what is asked for as a tuple of different texts; `InputError` for a text of another form."""
    texts = (snapshots,) if isinstance(snapshots, str) else tuple(snapshots)
    for text in texts:
        _parse(text)
    return tuple(dict.fromkeys(texts))


def plan_snapshots(
    snapshots: Sequence[str], *, member: str, policy: Policy, epochs: int, steps: int
) -> tuple[Snapshot, ...]:
    """Say which snapshots a training has, in the order of its steps.

    Parameters
    ----------
    snapshots
        ``"cycles"``, ``"last:K"``, ``"swa"``, ``"swa:SHARE"``; several may be combined. States that coincide are taken
        once, and the end of the training is the member itself.
    member
        Its name.
    policy
        In steps.
    epochs, steps
        Length of the training in epochs, and of an epoch in updates.

    Raises
    ------
    InputError
        For a text of another form, more earlier epochs than there are, an average over fewer than two epochs, or a
        policy with hundreds of cycles.
    """
    found: dict[str, Snapshot] = {}
    for text in snapshots:
        kind, amount = _parse(text)
        if kind == "swa":
            averaged = min(epochs, max(2, round(amount * epochs)))
            if averaged < 2:
                raise InputError(f"snapshots: expected 2 epochs or more to average weights over ({text}), got {epochs}")
            name = f"{member}-swa{averaged}"
            found.setdefault(name, Snapshot(name, kind, epochs * steps, epochs, averaged))
            continue
        for step in _ends_of(policy, epochs * steps) if kind == "cycle" else _last(int(amount), epochs, steps):
            epoch, within = divmod(step, steps)
            name = f"{member}-t{step}" if within else f"{member}-e{epoch}"
            found.setdefault(name, Snapshot(name, kind, step, epoch))
    return tuple(sorted(found.values(), key=lambda snapshot: (snapshot.step, snapshot.averaged)))


def _ends_of(policy: Policy, total: int) -> list[int]:
    """Return the ends of the policy's cycles before the end of the training."""
    ends = [end for end in policy.cycle_ends(total) if end < total]
    if len(ends) > MOST:
        raise InputError(f"snapshots: expected at most {MOST} cycles of a training, got {len(ends)} of {policy}")
    return ends


def _last(count: int, epochs: int, steps: int) -> list[int]:
    """Return the ends of so many epochs before the last one."""
    if not count < epochs:
        raise InputError(f"snapshots: expected last:K with K below the {epochs} epochs of a training, got last:{count}")
    if count > MOST:
        raise InputError(f"snapshots: expected last:K with K of at most {MOST}, got last:{count}")
    return [epoch * steps for epoch in range(epochs - count, epochs)]


def _parse(text: str) -> tuple[str, float]:
    """Kind of snapshot, and how many epochs or which share of them."""
    if isinstance(text, str):
        if text == "cycles":
            return "cycle", 0
        if found := re.fullmatch(r"last:(\d{1,9})", text):
            if int(found[1]) >= 1:
                return "epoch", int(found[1])
        elif found := re.fullmatch(r"swa(?::(\d*\.?\d+))?", text):
            share = float(found[1]) if found[1] else SWA_SHARE
            if 0 < share <= 1:
                return "swa", share
    raise InputError(f"snapshots: {EXPECTED}, got {text!r:.60}")
