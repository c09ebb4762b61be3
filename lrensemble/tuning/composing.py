"""`compose`: a learning-rate policy put together segment by segment, each piece the best of several that were tried.

In every segment all candidates begin where the best training so far stands, with its weights and its optimiser's
state, and are trained together; the best on validation data goes on (Wu & Liu 2022, arXiv 2210.12936). What comes out
is a `Piecewise` policy that gives the very same network when it is trained by itself. That rests on two facts: the seed
alone decides all that is random (``common_seed``), and a training may begin with a copy of another one's state where
both have come the same way (`training.branch`).

A candidate is tried by a *trunk*: a training under ``[the pieces so far | candidate @ end | FIX(0)]``, which rests at
the end of its segment for good. Those of the last segment are completed and become members of the pool.

The best at the end of a segment need not be the best in the end: a rate that falls early looks good at once
(short-horizon bias; Wu et al. 2018, arXiv 1803.02021). With ``judge="end"`` each candidate is therefore also completed,
under a tail that falls to 0, and judged by what it comes to (the pilot method; Duin & Voß 1999): then every attempt is
a member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrensemble.errors import InputError, TrainingError, lookup
from lrensemble.policies import RATE_RANGES, Policy, parse_policy, resolve_policies
from lrensemble.policies.compose import Piecewise
from lrensemble.policies.time import Span
from lrensemble.tuning.composition import HIGHER_IS_BETTER, Attempt, Composition, Cost, Rival, best_first
from lrensemble.tuning.plateau import follow_plateaus

if TYPE_CHECKING:
    from lrensemble.training.task import Task
    from lrensemble.training.trainer import Policies
    from lrensemble.training.workshop import Trained, Workshop

__all__ = ["JUDGES", "METHODS", "compose"]

METHODS = ("segments", "plateau")
JUDGES = ("boundary", "end")
REST = parse_policy("FIX(0)")  # of a trunk, after its segment


def compose(
    data: Any,
    *,
    model: Any = "mlp",
    method: str = "segments",
    segments: int | None = None,
    boundaries: Sequence[float] | None = None,
    candidates: Any = None,
    judge: str = "boundary",
    tail: str | Policy | None = None,
    keep: int = 1,
    metric: str = "val_loss",
    plateau: Mapping[str, Any] | None = None,
    seed: int = 0,
    baseline: bool | Policies = False,
    lr_range: Sequence[float] | None = None,
    path: str | Path | None = None,
    **training: Any,
) -> Composition:
    """Put a policy together from checkpoints, segment by segment.

    Every training is kept in a pool. A call that was killed goes on with the same call and comes to the same outcome;
    so does one that is made again, without any training.

    Parameters
    ----------
    data, model, path, **training
        As for `train_pool`: sizes, ``epochs``, ``optimizer``, ``engine``, ``jobs``, …; ``common_seed`` is always true,
        and there are no snapshots.
    method
        ``"segments"``, as above; or ``"plateau"``: a single training that changes to another candidate whenever the
        validation metric no longer improves (`ChangeOnPlateau`).
    segments
        Number of segments of equal length; 3 when neither this nor `boundaries` is given.
    boundaries
        Ends of all segments but the last, as shares of the run: ``[0.5, 0.8]``. They are moved to the nearest epoch.
    candidates
        Presets and policies to choose from, as `resolve_policies` reads them; or a list of such lists, one a segment.
        Times are those of the segment: ``POLY(k0=0, k1=0.1)`` falls to 0 at its end. None: the preset ``"segments"``,
        and ``"fix-grid"`` with plateaus.
    judge
        ``"boundary"``: by `metric` at the end of the segment; ``"end"``: at the end of a training that is completed
        under `tail`, which costs more and keeps all of them as members.
    tail
        A policy for the rest of the run; by default it falls linearly from the middle of the optimiser's rates to 0.
    keep
        How many attempts go on from each segment: 1 is greedy, more is a beam.
    metric
        ``"val_loss"`` or ``"val_accuracy"``.
    plateau
        Parameters of `ChangeOnPlateau`: ``{"window": 5, "threshold": 0.01}``.
    seed
        Of everything random.
    baseline
        True: train the candidates whole, too, to compare with; or presets and policies that are to be.
    lr_range
        Lowest and highest base rate of presets, instead of the optimiser's.

    Returns
    -------
    Composition
        The policy, the member trained under it, all attempts, total cost and benefit.

    Raises
    ------
    InputError
        If an argument is not as expected; nothing is trained then.
    TrainingError
        If all candidates of a segment diverge; or as `train_pool`.

    Examples
    --------
    >>> found = compose("digits", segments=2, epochs=4, path=folder, progress=False)  # doctest: +SKIP
    >>> found.asked  # doctest: +SKIP
    '[FIX(k0=0.05) @ 2ep | POLY(k0=0.0, k1=0.05, p=1.0)]'
    """
    lookup(dict.fromkeys(METHODS), method, "method")
    lookup(dict.fromkeys(JUDGES), judge, "judge")
    lookup(HIGHER_IS_BETTER, metric, "metric")
    for name, number, least in (("keep", keep, 1), ("seed", seed, 0)):
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise InputError(f"{name}: expected a whole number ≥ {least}, got {number!r}")
    shop = _workshop(data, model, path, training)
    ranges: dict[str, Any] = {"optimizer": shop.config.optimizer, "lr_range": lr_range}
    if method == "plateau":
        _refuse({"segments": segments, "boundaries": boundaries, "tail": tail}, "segments")
        among = resolve_policies(candidates or "fix-grid", **ranges)
        rivals = _rival_policies(baseline, among, ranges)
        found = follow_plateaus(shop, among, seed=seed, metric=metric, options=plateau or {})
    else:
        _refuse({"plateau": plateau}, "plateau")
        ends = segment_ends(shop.config.epochs, segments=segments, boundaries=boundaries)
        choices = _choices(candidates or "segments", len(ends), ranges)
        rivals = _rival_policies(baseline, [policy for items in choices for policy in items], ranges)
        found = _Search(shop, seed, ends, choices, metric, judge, _tail(tail, ranges), keep).run()
    return replace(found, rivals=_train_rivals(shop, rivals, seed, metric))


def segment_ends(
    epochs: int, *, segments: int | None = None, boundaries: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Last epoch of each segment, the run's included.

    Examples
    --------
    >>> segment_ends(20), segment_ends(20, boundaries=[0.5, 0.8])
    ((7, 13, 20), (10, 16, 20))

    Raises
    ------
    InputError
        If both are given, one is out of range, or two ends fall on one epoch.
    """
    if segments is not None and boundaries is not None:
        raise InputError("expected segments or boundaries, got both: leave one out")
    if boundaries is None:
        n = 3 if segments is None else segments
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise InputError(f"segments: expected a whole number ≥ 1, got {n!r}")
        shares = [i / n for i in range(1, n)]
    else:
        shares = [float(share) for share in boundaries]
    ends = (*(math.floor(share * epochs + 0.5) if math.isfinite(share) else 0 for share in shares), epochs)
    if any(after <= before for before, after in zip((0, *ends), ends, strict=False)):
        asked = f"{len(ends)} segments" if boundaries is None else f"boundaries {list(boundaries)}"
        raise InputError(
            f"expected segments of at least one epoch in a run of {epochs}, got {asked}: use shares of the run in "
            "ascending order between 0 and 1, fewer segments or more epochs"
        )
    return ends


@dataclass(frozen=True)
class _Stem:
    """Where candidates of a segment begin: nowhere, or where a trunk rests."""

    pieces: tuple[Policy, ...] = ()
    trunk: Task | None = None
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _Grown:
    """A stem with a candidate, what came of it by the end of the segment, and when completed."""

    stem: _Stem
    candidate: Policy
    task: Task
    trained: Trained
    member: Trained | None

    @property
    def pieces(self) -> tuple[Policy, ...]:
        return (*self.stem.pieces, self.candidate)


@dataclass(frozen=True)
class _Search:
    """The arguments of `compose`, checked."""

    shop: Workshop
    seed: int
    ends: tuple[int, ...]
    choices: list[list[Policy]]
    metric: str
    judge: str
    tail: Policy
    keep: int

    def run(self) -> Composition:
        """Try all segments out, one after the other."""
        stems, attempts = [_Stem()], []
        members: list[tuple[Trained, float | None]] = []
        for segment in range(len(self.ends)):
            grown = self._grow(segment, stems)
            scores = [self._score(each, segment) for each in grown]
            best = best_first(zip(grown, scores, strict=True), self.metric)[: self.keep]
            if not best:
                raise TrainingError(
                    f"{self.shop.path}: all {len(grown)} candidates of segment {segment + 1} diverged (loss "
                    "infinite or NaN): use lower learning rates"
                )
            stems = [_Stem(each.pieces, each.task, each.trained.seconds) for each in best]
            attempts += [self._attempt(g, segment, s, g in best) for g, s in zip(grown, scores, strict=True)]
            members += [(g.member, s) for g, s in zip(grown, scores, strict=True) if g.member]
        return self._composition(best_first(members, self.metric)[0], attempts)

    def _grow(self, segment: int, stems: Sequence[_Stem]) -> list[_Grown]:
        """Train every candidate of a segment from every stem to the segment's end, and complete what is to be."""
        pairs = [(stem, candidate) for stem in stems for candidate in self.choices[segment]]
        rest = () if self._is_last(segment) else (REST,)
        asked = [self._joined((*stem.pieces, candidate, *rest)) for stem, candidate in pairs]
        begin = [stem.trunk for stem, _ in pairs]
        n, end, count = len(self.ends), self.ends[segment], len(pairs)
        note = f"segment {segment + 1} of {n}: {count} attempts, to epoch {end} of {self.ends[-1]}"
        tasks, trained = self._train(asked, begin, start=self.ends[segment - 1], until=end, note=note)
        members: list[Trained | None] = [None] * count
        if self._is_last(segment):
            members = list(trained)
        elif self.judge == "end":
            alive = [i for i, each in enumerate(trained) if each.status != "diverged"]
            whole = [self._joined((*pairs[i][0].pieces, pairs[i][1], self.tail)) for i in alive]
            note = f"segment {segment + 1} of {n}: {len(alive)} attempts are completed"
            trunks = [tasks[i] for i in alive]
            _, completed = self._train(whole, trunks, start=end, until=None, note=note) if alive else ((), ())
            for i, member in zip(alive, completed, strict=True):
                members[i] = member
        return [
            _Grown(stem, candidate, task, each, member)
            for (stem, candidate), task, each, member in zip(pairs, tasks, trained, members, strict=True)
        ]

    def _train(
        self, policies: Sequence[Policy], trunks: Sequence[Task | None], *, start: int, until: int | None, note: str
    ) -> tuple[list[Task], list[Trained]]:
        """Train policies from where their trunks rest after epoch `start`; results are in the order of the policies.

        Those without a trunk begin at the start of the run.
        """
        plan = self.shop.plan([(policy, self.seed) for policy in policies])
        by_policy = {str(task.policy): task for task in plan.tasks}
        tasks = [by_policy[str(self._in_steps(policy))] for policy in policies]
        for trunk in {id(trunk): trunk for trunk in trunks if trunk is not None}.values():
            heirs = [task for task, begin in zip(tasks, trunks, strict=True) if begin is trunk]
            self.shop.branch(trunk, heirs, epoch=start)
        self.shop.train(replace(plan, notes=(note,)), until=until)
        found = {each.id: each for each in self.shop.look(plan)}
        return tasks, [found[task.id] for task in tasks]

    def _joined(self, pieces: Sequence[Policy]) -> Policy:
        """Return the policy of the pieces, which end with the segments, and the last with the run."""
        if len(pieces) == 1:
            return pieces[0]
        ends = tuple(Span(float(end), "ep") for end in self.ends[: len(pieces) - 1])
        return Piecewise(ends, tuple(pieces))

    def _in_steps(self, policy: Policy) -> Policy:
        steps = self.shop.steps
        return policy.resolve(total_steps=steps * self.ends[-1], steps_per_epoch=steps)

    def _is_last(self, segment: int) -> bool:
        return segment == len(self.ends) - 1

    def _score(self, grown: _Grown, segment: int) -> float | None:
        judged = grown.member if self.judge == "end" else grown.trained
        if judged is None or judged.status == "diverged":
            return None
        value = getattr(judged, self.metric)[(self.ends[-1] if self.judge == "end" else self.ends[segment]) - 1]
        return value if math.isfinite(value) else None

    def _attempt(self, grown: _Grown, segment: int, score: float | None, kept: bool) -> Attempt:
        start = self.ends[segment - 1] if segment else 0
        seen, last = grown.member or grown.trained, self._is_last(segment)
        epochs = seen.epoch - start
        return Attempt(
            segment=segment + 1,
            policy=str(grown.candidate),
            stem=tuple(map(str, grown.stem.pieces)),
            id="" if last else grown.task.id,
            member=grown.member.id if grown.member else "",
            status="diverged" if seen.status == "diverged" else "done",
            start=start,
            end=self.ends[segment],
            val_loss=seen.val_loss[start:],
            val_accuracy=seen.val_accuracy[start:],
            score=score,
            kept=kept,
            cost=Cost(epochs, epochs * self.shop.steps, max(0.0, seen.seconds - grown.stem.seconds)),
        )

    def _composition(self, member: Trained, attempts: Sequence[Attempt]) -> Composition:
        epochs = self.ends[-1]
        return Composition(
            policy=member.policy,
            asked=member.asked,
            id=member.id,
            path=str(self.shop.path),
            seed=self.seed,
            method="segments",
            judge=self.judge,
            metric=self.metric,
            ends=self.ends,
            steps=self.shop.steps,
            val_loss=member.val_loss[-1],
            val_accuracy=member.val_accuracy[-1],
            attempts=tuple(
                replace(each, kept=each.member == member.id) if each.segment == len(self.ends) else each
                for each in attempts
            ),
            switches=(),
            alone=Cost(epochs, epochs * self.shop.steps, member.seconds),
            cost=sum((each.cost for each in attempts), Cost()),
        )


def _workshop(data: Any, model: Any, path: str | Path | None, training: Mapping[str, Any]) -> Workshop:
    from lrensemble.training.workshop import Workshop

    if training.get("common_seed", True) is not True:
        raise InputError(
            "common_seed: expected true, since attempts share what their common pieces come to, got "
            f"{training['common_seed']!r}: leave it out"
        )
    shop = Workshop.open(data, model=model, path=path, **{**training, "common_seed": True})
    if shop.snapshots:
        raise InputError(
            f"snapshots: expected none while a policy is composed, got {', '.join(shop.snapshots)}: train the composed "
            "policy with snapshots afterwards"
        )
    return shop


def _refuse(options: Mapping[str, Any], method: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name}: expected with method {method} only, got {value!r}: leave it out")


def _choices(candidates: Any, segments: int, ranges: Mapping[str, Any]) -> list[list[Policy]]:
    """Return the candidates of each segment."""
    each = isinstance(candidates, list | tuple) and all(isinstance(item, list | tuple) for item in candidates)
    if not each:
        return [resolve_policies(candidates, **ranges)] * segments
    if len(candidates) != segments:
        raise InputError(
            f"candidates: expected one list, or one for each of {segments} segments, got {len(candidates)}"
        )
    return [resolve_policies(items, **ranges) for items in candidates]


def _tail(tail: str | Policy | None, ranges: Mapping[str, Any]) -> Policy:
    """Return the policy for the rest of a run; by default from the (geometric) middle of the range to 0."""
    low, high = ranges["lr_range"] or RATE_RANGES[ranges["optimizer"]]
    found = resolve_policies(tail or f"POLY(k0=0, k1={math.sqrt(low * high):.3g})")
    if len(found) != 1:
        raise InputError(f"tail: expected one policy, got {tail!r}")
    return found[0]


def _rival_policies(baseline: Any, candidates: Sequence[Policy], ranges: Mapping[str, Any]) -> list[Policy]:
    if isinstance(baseline, bool) or baseline is None:
        return list(dict.fromkeys(candidates)) if baseline else []
    return resolve_policies(baseline, optimizer=ranges["optimizer"])


def _train_rivals(shop: Workshop, policies: Sequence[Policy], seed: int, metric: str) -> tuple[Rival, ...]:
    """Train policies whole and return them, the best first and those that diverged last."""
    if not policies:
        return ()
    plan = shop.plan([(policy, seed) for policy in policies])
    shop.train(replace(plan, notes=(f"{len(plan.tasks)} policies are trained whole, to compare with", *plan.notes)))
    found = [_rival(each, shop.steps) for each in shop.look(plan)]
    best = best_first(((rival, getattr(rival, metric)) for rival in found), metric)
    return (*best, *(rival for rival in found if rival not in best))


def _rival(trained: Trained, steps: int) -> Rival:
    done = trained.status == "done"
    loss, accuracy = (trained.val_loss[-1], trained.val_accuracy[-1]) if done else (None, None)
    cost = Cost(trained.epoch, trained.epoch * steps, trained.seconds)
    return Rival(trained.asked, trained.id, trained.status, loss, accuracy, cost)
