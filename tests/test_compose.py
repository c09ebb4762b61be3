"""Composition: what is composed comes out the same when trained by itself; killed, judged, counted and shown."""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrensemble as lre
from lrensemble.cli.main import main
from lrensemble.errors import InputError, LREnsembleError, TrainingError
from lrensemble.policies import RATE_RANGES, parse_policy, preset
from lrensemble.reporting.compose_figure import plot_composition
from lrensemble.training import OPTIMIZERS, branch
from lrensemble.training.checkpoint import Checkpoint
from lrensemble.training.workshop import Workshop
from lrensemble.tuning import compose
from lrensemble.tuning.composing import segment_ends
from lrensemble.tuning.composition import Attempt, Composition, Cost, Rival, Switch, best_first
from lrensemble.tuning.plateau import followed

SMALL = {"model": "mlp(hidden=8)", "train_size": 130, "val_size": 150, "test_size": 100, "batch_size": 32}
QUIET = {"engine": "loop", "jobs": 1, "progress": False}
FEW = ["FIX(0.05)", "POLY(k0=0, k1=0.1)"]
ASK = {"segments": 3, "candidates": FEW, "epochs": 3, **SMALL, **QUIET}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A composition, and its pool."""
    return compose("digits", path=tmp_path_factory.mktemp("compose") / "pool", baseline=True, **ASK)


def outcome(composition):
    """What does not depend on how fast the machine is."""
    values = composition.to_dict()

    def without_seconds(item):
        if isinstance(item, dict):
            return {k: without_seconds(v) for k, v in item.items() if k not in ("seconds", "path")}
        return [without_seconds(each) for each in item] if isinstance(item, list) else item

    return without_seconds(values)


def alone(policy, path, **training):
    """The one member of a pool that is trained under this policy from scratch."""
    pool = lre.train_pool("digits", policies=[policy], path=path, common_seed=True, **training)
    (name,) = pool.ids
    return pool, pool.member(name)


def assert_same_member(composition, policy, path, **training):
    other, trained = alone(policy, path, **training)
    pool = lre.Pool.open(composition.path)
    member = pool.member(composition.id)
    for split in ("val", "test"):
        np.testing.assert_array_equal(member.logits[split], trained.logits[split])
    for name in ("step_lr", "train_loss", "val_loss", "val_accuracy", "step"):
        np.testing.assert_array_equal(member.history[name], trained.history[name])
    weights = other.weights(trained.id)
    for name, values in pool.weights(member.id).items():
        np.testing.assert_array_equal(values, weights[name])


# --- the same network when trained by itself --------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_composed_policy_alone_gives_the_same_member(optimizer, tmp_path):
    low, high = RATE_RANGES[optimizer]
    candidates = [f"FIX({low})", f"TRI(k0={low}, k1={high}, l=50%)", f"POLY(k0=0, k1={high})"]
    training = {**SMALL, **QUIET, "epochs": 3, "optimizer": optimizer}
    composed = compose("digits", candidates=candidates, seed=3, path=tmp_path / "a", **training)
    assert composed.seed == 3
    for text, name in ((composed.asked, "b"), (composed.policy, "c")):  # in epochs, and in steps
        assert_same_member(composed, text, tmp_path / name, seeds=[3], **training)
    assert len(lre.Pool.open(tmp_path / "b")) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"engine": "stacked", "stack": 2},
        {"engine": "loop", "folds": 2, "model": "mlp(hidden=8, dropout=0.2)"},
        {"engine": "stacked", "model": "lenet", "augment": "crop"},
    ],
    ids=["stacked", "folds", "augmented"],
)
def test_also_with(more, tmp_path):
    training = {**SMALL, **QUIET, "epochs": 2, **more}
    composed = compose("digits", segments=2, candidates=FEW, path=tmp_path / "a", **training)
    assert_same_member(composed, composed.asked, tmp_path / "b", seeds=[0], **training)


def test_every_attempt_scores_as_if_trained_from_scratch(found, tmp_path):
    for i, attempt in enumerate(found.attempts):
        pieces = [*attempt.stem, attempt.policy, *(["FIX(0)"] if attempt.end < 3 else [])]
        text = " | ".join(f"{piece} @ {n}ep" for n, piece in enumerate(pieces[:-1], start=1))
        policy = f"[{text} | {pieces[-1]}]"
        _, member = alone(policy, tmp_path / str(i), **{**SMALL, **QUIET, "epochs": 3})
        assert attempt.score == member.history["val_loss"][attempt.end - 1]
        curve = member.history["val_loss"][attempt.start : attempt.end]
        assert list(attempt.val_loss) == curve.tolist()


def test_the_best_of_each_segment_goes_on(found):
    for segment in (1, 2, 3):
        rivals = [attempt for attempt in found.attempts if attempt.segment == segment]
        (kept,) = [attempt for attempt in rivals if attempt.kept]
        assert kept.score == min(attempt.score for attempt in rivals)
        assert kept is found.chain[segment - 1]
        assert all(attempt.stem == tuple(a.policy for a in found.chain[: segment - 1]) for attempt in rivals)
    assert found.chain[-1].member == found.id
    assert found.val_loss == found.chain[-1].score
    pieces = parse_policy(found.asked).policies
    assert [str(piece) for piece in pieces] == [attempt.policy for attempt in found.chain]


# --- nothing is trained twice -----------------------------------------------------------------------------------------


def test_common_parts_are_trained_once_and_a_second_call_trains_nothing(tmp_path):
    events = []
    ask = {**ASK, "progress": events.append, "path": tmp_path / "pool"}
    first = compose("digits", **ask)
    epochs = [event for event in events if event.kind == "epoch"]
    assert len(epochs) == first.cost.epochs == 6
    assert first.times == pytest.approx(2)
    assert first.cost.steps == 6 * first.steps
    events.clear()
    assert compose("digits", **ask).to_dict() == first.to_dict()
    assert not [event for event in events if event.kind in ("epoch", "member", "rest")]


@pytest.mark.parametrize("judge", ["boundary", "end"])
def test_interrupted_anywhere_it_comes_to_the_same(judge, tmp_path):
    ask = {**ASK, "judge": judge, "checkpoint_seconds": 0}
    whole = compose("digits", path=tmp_path / "whole", **ask)
    path = tmp_path / "pool"
    calls, left = 0, 1

    def stop(event):
        nonlocal left
        left -= event.kind != "note"
        if left == 0:
            raise KeyboardInterrupt

    while True:
        calls, left = calls + 1, 1 + calls % 2
        try:
            again = compose("digits", path=path, **{**ask, "progress": stop})
            break
        except KeyboardInterrupt:
            assert calls < 50
    assert calls > 5
    assert outcome(again) == outcome(whole)
    a, b = (lre.Pool.open(p).predictions("test") for p in (path, tmp_path / "whole"))
    assert a.ids == b.ids
    np.testing.assert_array_equal(a.probabilities, b.probabilities)


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_interrupted_while_states_are_copied(allowed, tmp_path, monkeypatch, found):
    count, hand_on = [0], Checkpoint.hand_on

    def limited(self, heir, **more):
        count[0] += 1
        if count[0] > allowed:
            raise KeyboardInterrupt
        hand_on(self, heir, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "hand_on", limited)
        with pytest.raises(KeyboardInterrupt):
            compose("digits", path=tmp_path, **ASK)
    again = compose("digits", path=tmp_path, baseline=True, **ASK)
    assert outcome(again) == outcome(found)


@pytest.mark.slow
def test_killed_for_real_it_comes_to_the_same(tmp_path, found):
    code = f"from lrensemble.tuning import compose; compose('digits', path={str(tmp_path)!r}, **{ASK!r})"
    environment = {**os.environ, "LRENSEMBLE_CHECKPOINT_SECONDS": "0"}
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
        known = len(list(tmp_path.glob("resume/*")))
        deadline = time.monotonic() + 120
        while process.poll() is None and len(list(tmp_path.glob("resume/*"))) < known + 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)  # in the middle of what comes after
        process.wait()
    assert list(tmp_path.glob("resume/*"))
    assert outcome(compose("digits", path=tmp_path, baseline=True, **ASK)) == outcome(found)


# --- branching --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path):
    return Workshop.open("digits", path=tmp_path / "pool", epochs=3, common_seed=True, **SMALL, **QUIET)


def planned(shop, *texts, seed=0):
    return shop.plan([(parse_policy(text), seed) for text in texts])


def test_branch_begins_where_the_trunk_rests(shop):
    trunk = planned(shop, "[FIX(0.05) @ 2ep | FIX(0)]")
    heirs = planned(shop, "[FIX(0.05) @ 2ep | FIX(0.01)]", "FIX(0.05)")
    shop.train(trunk, until=2)
    shop.branch(trunk.tasks[0], heirs.tasks, epoch=2)
    events = []
    replace(shop, progress=events.append).train(heirs)
    assert len([event for event in events if event.kind == "epoch"]) == 2
    assert shop.look(trunk)[0].status == "stopped"  # it stays where it is


def test_branch_leaves_what_has_begun(shop):
    trunk, heirs = planned(shop, "[FIX(0.05) @ 1ep | FIX(0)]"), planned(shop, "[FIX(0.05) @ 1ep | FIX(0.01)]")
    shop.train(trunk, until=1)
    shop.train(heirs, until=2)
    state = shop.pool().resume_path(heirs.tasks[0].id)
    before = state.read_bytes()
    shop.branch(trunk.tasks[0], heirs.tasks, epoch=1)
    assert state.read_bytes() == before
    shop.train(heirs)
    shop.branch(trunk.tasks[0], heirs.tasks, epoch=1)
    assert not state.exists()


def test_branch_takes_no_state_of_another_epoch(shop):
    trunk, heirs = planned(shop, "[FIX(0.05) @ 2ep | FIX(0)]"), planned(shop, "[FIX(0.05) @ 2ep | FIX(0.01)]")
    shop.train(trunk, until=1)
    shop.branch(trunk.tasks[0], heirs.tasks, epoch=2)
    assert not shop.pool().resume_path(heirs.tasks[0].id).exists()


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_branch_from_a_lost_state_costs_time_only(shop, damage, tmp_path):
    text = "[FIX(0.05) @ 2ep | FIX(0.01)]"
    trunk, heirs = planned(shop, "[FIX(0.05) @ 2ep | FIX(0)]"), planned(shop, text)
    shop.train(trunk, until=2)
    damage(shop.pool().resume_path(trunk.tasks[0].id))
    shop.branch(trunk.tasks[0], heirs.tasks, epoch=2)
    shop.train(heirs)
    _, member = alone(text, tmp_path / "alone", epochs=3, **SMALL, **QUIET)
    np.testing.assert_array_equal(shop.pool().member(heirs.tasks[0].id).logits["val"], member.logits["val"])


@pytest.mark.parametrize("other", ["[FIX(0.05) @ 1ep | FIX(0.01)]", "[FIX(0.04) @ 2ep | FIX(0.01)]"])
def test_branch_refuses_another_way(shop, other):
    trunk = planned(shop, "[FIX(0.05) @ 2ep | FIX(0)]")
    shop.train(trunk, until=2)
    with pytest.raises(InputError, match="come the same way"):
        shop.branch(trunk.tasks[0], planned(shop, other).tasks, epoch=2)
    with pytest.raises(InputError, match="come the same way"):
        shop.branch(trunk.tasks[0], planned(shop, "FIX(0.05)", seed=1).tasks, epoch=2)


def test_branch_refuses_seeds_that_do_not_decide_alone(tmp_path):
    shop = Workshop.open("digits", path=tmp_path, epochs=3, **SMALL, **QUIET)
    trunk, heirs = planned(shop, "[FIX(0.05) @ 1ep | FIX(0)]"), planned(shop, "FIX(0.05)")
    shop.train(trunk, until=1)
    with pytest.raises(InputError, match="common_seed"):
        branch.branch(shop.pool(), trunk.tasks[0], heirs.tasks, epoch=1, steps=shop.steps)


# --- judging ----------------------------------------------------------------------------------------------------------


def test_judged_at_the_end_all_are_members_and_the_best_is_taken(tmp_path):
    tail = "POLY(k0=0, k1=0.03)"
    composed = compose("digits", path=tmp_path / "a", judge="end", tail=tail, **ASK)
    pool = lre.Pool.open(composed.path)
    scores = {attempt.member: attempt.score for attempt in composed.attempts}
    assert set(pool.ids) == set(scores)
    assert composed.val_loss == min(scores.values()) == scores[composed.id]
    assert composed.cost.epochs == 2 * (3 + 2 + 1)
    first = composed.attempts[0]
    assert len(first.val_loss) == 3
    _, member = alone(f"[{first.policy} @ 1ep | {tail}]", tmp_path / "b", **{**SMALL, **QUIET, "epochs": 3})
    assert first.score == member.history["val_loss"][-1]
    np.testing.assert_array_equal(member.logits["val"], pool.member(first.member).logits["val"])


def test_judged_at_the_end_no_segment_makes_it_worse(tmp_path):
    ask = {**ASK, "segments": 2, "candidates": [["FIX(0.1)"], ["FIX(0)"]], "tail": "POLY(k0=0, k1=0.1)"}
    composed = compose("digits", path=tmp_path / "a", judge="end", **ask)
    assert composed.asked == "[FIX(k0=0.1) @ 2ep | POLY(k0=0.0, k1=0.1)]"
    assert composed.val_loss < composed.attempts[1].score
    assert composed.chain == composed.attempts[:1]
    assert not composed.attempts[1].kept
    assert_same_member(composed, composed.asked, tmp_path / "b", seeds=[0], **{**SMALL, **QUIET, "epochs": 3})
    assert plot_composition(composed, tmp_path / "figure.png").exists()


def test_a_beam_keeps_several(tmp_path):
    composed = compose("digits", path=tmp_path, keep=2, metric="val_accuracy", **{**ASK, "epochs": 4, "segments": 2})
    first, second = ([a for a in composed.attempts if a.segment == n] for n in (1, 2))
    assert sum(attempt.kept for attempt in first) == 2
    assert len({attempt.stem for attempt in second}) == 2
    assert len(second) == 4
    assert composed.val_accuracy == max(attempt.score for attempt in second)
    assert [attempt.kept for attempt in second].count(True) == 1


def test_diverged_candidates_are_shown_and_left(tmp_path):
    ask = {**ASK, "optimizer": "sgd", "candidates": ["FIX(5000)", "FIX(0.05)"]}
    composed = compose("digits", path=tmp_path, judge="end", baseline=True, **ask)
    lost = [attempt for attempt in composed.attempts if attempt.policy == "FIX(k0=5000.0)"]
    assert lost
    assert all(attempt.status == "diverged" and attempt.score is None and not attempt.kept for attempt in lost)
    assert composed.rivals[-1].val_loss is None
    assert "diverged" in str(composed)
    json.dumps(composed.to_dict(), allow_nan=False)
    assert plot_composition(composed, tmp_path / "figure.png").stat().st_size > 10_000
    with pytest.raises(TrainingError, match=r"segment 1 diverged .*lower learning rates"):
        compose("digits", path=tmp_path, **{**ask, "candidates": ["FIX(5000)"]})


def test_candidates_by_segment(tmp_path):
    ask = {**ASK, "segments": 2, "candidates": [["FIX(0.05)"], ["FIX(0.01)", "POLY(k0=0, k1=0.05)"]]}
    composed = compose("digits", path=tmp_path, **ask)
    assert [attempt.policy for attempt in composed.attempts if attempt.segment == 1] == ["FIX(k0=0.05)"]
    assert len(composed.attempts) == 3


def test_one_segment_is_the_best_of_the_candidates(tmp_path):
    composed = compose("digits", path=tmp_path, baseline=True, **{**ASK, "segments": 1})
    assert composed.asked == composed.rivals[0].policy
    assert composed.id == composed.rivals[0].id
    assert composed.benefit == {"val_loss": 0, "val_accuracy": 0}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_default_candidates_offer_constants_and_decays_to_zero(optimizer):
    policies = [policy.resolve(total_steps=100) for policy in preset("segments", optimizer=optimizer)]
    curves = [policy.curve(101) for policy in policies]
    assert len(set(policies)) == len(policies) == 8
    assert sum(len(set(curve.tolist())) == 1 for curve in curves) >= 3
    assert sum(curve[-1] == 0 and curve[0] > 0 for curve in curves) >= 2
    low, high = RATE_RANGES[optimizer]
    assert {curve.max() for curve in curves} >= {low, high}


# --- numbers ----------------------------------------------------------------------------------------------------------


@given(epochs=st.integers(1, 60), segments=st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_segments_share_the_run(epochs, segments):
    if segments > epochs:
        with pytest.raises(InputError, match="at least one epoch"):
            segment_ends(epochs, segments=segments)
        return
    ends = segment_ends(epochs, segments=segments)
    lengths = np.diff((0, *ends))
    assert ends[-1] == epochs
    assert len(ends) == segments
    assert lengths.max() - lengths.min() <= 1
    assert all(abs(end - i * epochs / segments) <= 0.5 for i, end in enumerate(ends, start=1))


def test_best_first_is_a_stable_sort_without_what_was_not_measured():
    values = [("a", 0.5), ("b", None), ("c", 0.2), ("d", math.inf), ("e", 0.5), ("f", math.nan)]
    assert best_first(values, "val_loss") == ["c", "a", "e"]
    assert best_first(values, "val_accuracy") == ["a", "e", "c"]
    with pytest.raises(InputError, match="metric"):
        best_first(values, "loss")


def made(**changes):
    cost = Cost(10, 100, 2.0)
    attempt = Attempt(1, "FIX(k0=0.1)", (), "", "m", "done", 0, 10, (0.4,), (0.9,), 0.4, True, cost + cost)
    values = {"policy": "FIX(k0=0.1)", "asked": "FIX(k0=0.1)", "id": "m", "path": "p", "seed": 0, "method": "segments"}
    values |= {"judge": "boundary", "metric": "val_loss", "ends": (10,), "steps": 10, "val_loss": 0.4}
    values |= {"val_accuracy": 0.9, "attempts": (attempt,), "switches": (), "alone": cost, "cost": cost + cost}
    return Composition(**{**values, **changes})


def test_cost_and_benefit_are_told():
    rivals = (
        Rival("FIX(k0=0.2)", "r", "done", 0.5, 0.85, Cost(10, 100, 1.5)),
        Rival("FIX(k0=9.0)", "s", "diverged", None, None, Cost(1, 10, 0.5)),
    )
    composed = made(rivals=rivals)
    text = str(composed)
    assert composed.times == 2
    assert "20 epochs, 200 steps, 4 s: 2.00 × one training" in text
    assert "accuracy +5.00 points, loss -0.1000 against the best of 2 policies trained whole, FIX(k0=0.2)" in text
    assert composed.to_dict()["rivals_cost"] == asdict(Cost(11, 110, 2.0))
    assert composed.to_dict()["benefit"] == pytest.approx({"val_loss": 0.1, "val_accuracy": 0.05})
    assert made().benefit is None
    assert "benefit" not in str(made())
    assert "all 1 policies trained whole diverged" in str(made(rivals=rivals[1:]))
    worse = str(made(val_loss=0.6, val_accuracy=0.8, rivals=rivals))
    assert "accuracy -5.00 points, loss +0.1000" in worse


# --- plateaus ---------------------------------------------------------------------------------------------------------

CHANGE = "ChangeOnPlateau([TRI(k0=0.01, k1=0.2, l=7), FIX(0.1), STEP(0.05, gamma=0.5, l=4)], start=1, window=2, "


@given(
    metrics=st.lists(st.floats(0, 2, width=16) | st.just(math.nan), min_size=1, max_size=30),
    cooldown=st.integers(0, 3),
    turn=st.sampled_from(["40%", "80%", "0"]),
)
@settings(deadline=None, max_examples=80)
def test_what_was_followed_has_the_same_rates(metrics, cooldown, turn):
    policy = parse_policy(f"{CHANGE}threshold=0.1, cooldown={cooldown}, turn={turn})")
    policy = policy.resolve(total_steps=5 * len(metrics), steps_per_epoch=5)
    same, switches = followed(policy, metrics)
    np.testing.assert_array_equal(same.curve(5 * len(metrics)), policy.replay(metrics, steps_per_epoch=5))
    assert parse_policy(str(same)) == same
    assert len(switches) == len(getattr(same, "boundaries", ()))


def test_plateau_switching_alone_gives_the_same_member(tmp_path):
    options = {"window": 2, "threshold": 10.0, "cooldown": 0}
    training = {**SMALL, **QUIET, "epochs": 6}
    among = ["FIX(0.01)", "FIX(0.1)", "POLY(k0=0, k1=0.05)"]
    composed = compose(
        "digits", method="plateau", candidates=among, plateau=options, path=tmp_path / "a", baseline=True, **training
    )
    assert composed.switches[0] == Switch(3, "FIX(k0=0.1)")
    assert composed.times == 1
    assert len(composed.rivals) == 3
    assert_same_member(composed, composed.policy, tmp_path / "b", seeds=[0], **training)
    assert "switched   after epoch 3 to FIX(k0=0.1)" in str(composed)
    assert plot_composition(composed, tmp_path / "figure.png").exists()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"boundaries": [0.5]}, "segments or boundaries, got both"),
        ({"segments": 0}, "segments: expected a whole number ≥ 1"),
        ({"segments": None, "boundaries": [0.5, 0.4]}, "ascending order between 0 and 1"),
        ({"segments": None, "boundaries": [0.5, math.nan]}, "ascending order between 0 and 1"),
        ({"segments": 4}, "at least one epoch in a run of 3, got 4 segments"),
        ({"common_seed": False}, "common_seed: expected true"),
        ({"snapshots": "last:2"}, "snapshots: expected none"),
        ({"metric": "loss"}, "unknown metric 'loss': did you mean 'val_loss'"),
        ({"judge": "ends"}, "did you mean 'end'"),
        ({"method": "plateaus"}, "did you mean 'plateau'"),
        ({"keep": 0}, "keep: expected a whole number ≥ 1, got 0"),
        ({"seed": True}, "seed: expected a whole number"),
        ({"candidates": [["FIX(0.1)"], ["FIX(0.1)"]]}, "one for each of 3 segments, got 2"),
        ({"candidates": ["FIXX"]}, "did you mean 'FIX'"),
        ({"candidates": ["ReduceOnPlateau(0.1)"]}, "ReduceOnPlateau"),
        ({"tail": "default"}, "tail: expected one policy"),
        ({"plateau": {"window": 3}}, "plateau: expected with method plateau only"),
        ({"method": "plateau"}, "segments: expected with method segments only"),
        ({"method": "plateau", "segments": None, "plateau": {"windows": 3}}, "window"),
        ({"method": "plateau", "segments": None, "folds": 2}, "folds: expected 0"),
        ({"baseline": "nothing"}, "unknown preset or policy 'nothing'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
    ],
)
def test_refused_before_anything_is_trained(ask, message, tmp_path):
    with pytest.raises(LREnsembleError, match=message):
        compose("digits", path=tmp_path / "pool", **{**ASK, **ask})
    assert not (tmp_path / "pool").exists()


# --- the command ------------------------------------------------------------------------------------------------------

FLAGS = ["--data", "digits", "--model", "mlp(hidden=8)", "--train-size", "130", "--val-size", "150"]
FLAGS += ["--test-size", "100", "--batch-size", "32", "--epochs", "3", "--engine", "loop", "--jobs", "1"]


def test_command(tmp_path, capsys, found):
    ask = ["compose", *FLAGS, "--candidates", *FEW, "--pool", str(tmp_path / "pool"), "--baseline", "--quiet"]
    assert main([*ask, "--out", str(tmp_path / "figure.svg")]) == 0
    shown = capsys.readouterr()
    assert found.asked in shown.out
    assert "× one training" in shown.out
    assert "figure   " in shown.out
    assert not shown.err
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")
    assert main([*ask, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["asked"] == found.asked
    assert again["rivals"][0]["policy"] == found.rivals[0].policy


def test_command_with_candidates_by_segment_and_plateaus(tmp_path, capsys):
    pool = ["--pool", str(tmp_path / "pool"), "--quiet", "--json"]
    words = ["FIX(0.05)", "/", "FIX(0.01)", "POLY(k0=0, k1=0.1)"]
    assert main(["compose", *FLAGS, "--boundaries", "0.6", "--candidates", *words, *pool]) == 0
    composed = json.loads(capsys.readouterr().out)
    assert composed["ends"] == [2, 3]
    assert composed["asked"].startswith("[FIX(k0=0.05) @ 2ep | ")
    change = ["--method", "plateau", "--plateau", "window=2", "threshold=10.0", "--baseline", "FIX(0.05)"]
    assert main(["compose", *FLAGS, "--candidates", "FIX(0.1)", "FIX(0.01)", *change, *pool]) == 0
    switched = json.loads(capsys.readouterr().out)
    assert switched["method"] == "plateau"
    assert [rival["policy"] for rival in switched["rivals"]] == ["FIX(k0=0.05)"]
    assert main(["compose", *FLAGS, "--keep", "0", *pool]) == 1
    assert capsys.readouterr().err == "lrensemble: error: keep: expected a whole number ≥ 1, got 0\n"


def test_command_as_a_process(command, tmp_path):
    done = command(
        "compose", *FLAGS, "--segments", "2", "--candidates", *FEW, "--pool", tmp_path / "pool", cwd=tmp_path
    )
    assert done.stdout.startswith("composed   [")
    assert "segment 1 of 2: 2 attempts, to epoch 2 of 3" in done.stderr


def test_benchmark_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    benchmark = importlib.import_module("benchmark_compose")
    ask = ["--model", "mlp(hidden=8)", "--train-size", "130", "--val-size", "150", "--epochs", "3", "--splits", "1"]
    ways = ["--ways", "composed, thirds", "composed, thirds, judged at the end", "plateau switching"]
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["x", *ask, *ways, "--jobs", "1", "--home", str(tmp_path), "--json", str(out)])
    benchmark.main()
    assert "| composed, thirds " in capsys.readouterr().out
    scores = json.loads(out.read_text())["found"]
    costs = {name: round(splits[0]["cost"], 2) for name, splits in scores.items()}
    expected = dict(zip(ways[1:], (8, 16, 1), strict=True))
    expected |= {"best of the default preset": 16, "Caffe's policy for LeNet on MNIST": 1}
    assert costs == expected
