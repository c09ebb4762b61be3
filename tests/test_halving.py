"""Successive halving: who goes on, what becomes of the others, and that a killed run decides again as it did."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import assert_same_pools

import lrensemble as lre
from lrensemble.errors import InputError, TrainingError
from lrensemble.pool import Stopped
from lrensemble.pool.stopped import read_stopped, write_stopped
from lrensemble.reporting import pool_summary, stopped_table
from lrensemble.training import progress
from lrensemble.training.engines import ENGINES
from lrensemble.training.halving import Halving, best, check_halving

POLICIES = ["FIX(0.001)", "FIX(0.01)", "FIX(9000)", "FIX(0.05)", "POLY(k0=0, k1=0.1, p=1)", "FIX(0.003)", "FIX(0.1)"]
CALL = {
    "model": "mlp(hidden=8, dropout=0.1)",
    "policies": POLICIES,
    "epochs": 7,
    "batch_size": 32,
    "jobs": 1,
    "progress": False,
    "checkpoint_seconds": 1e6,  # nothing but halving saves a state
}
HALVING = {"eta": 2, "first": 1, "least": 1}


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=90, test_size=80)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """By engine: the pool without halving."""
    return {
        engine: lre.train_pool(digits, path=tmp_path_factory.mktemp(engine) / "pool", engine=engine, **CALL)
        for engine in ENGINES
    }


def slow_halving(pool, eta, first, least):
    """Halve afterwards, by the histories of a whole pool: epoch that each member reaches, and who reaches the last."""
    curves = {name: pool.member(name).history["val_loss"] for name in pool.ids}
    epochs = max(len(curve) for curve in curves.values())
    reached, running, rung = {}, list(curves), first
    while rung < epochs and len(running) > least:
        sound = [name for name in running if len(curves[name]) >= rung and np.isfinite(curves[name][rung - 1])]
        reached |= {name: rung if name in sound else len(curves[name]) for name in running}
        count = max(least, math.ceil(len(running) / eta))
        running = [name for name in sound if sum(curves[o][rung - 1] < curves[name][rung - 1] for o in sound) < count]
        rung *= eta
    reached |= {name: len(curves[name]) for name in running}
    return reached


def reached(pool):
    """Epoch that each member of a halved pool has come to, finished or not."""
    return {summary.id: summary.epochs for summary in pool.summaries()} | {s.id: s.epoch for s in pool.stopped()}


@given(st.floats(1.01, 10), st.integers(1, 50) | st.none(), st.integers(1, 20), st.integers(1, 300), st.integers(1, 99))
@settings(deadline=None, max_examples=100)
def test_rungs_rise_and_members_become_fewer(eta, first, least, epochs, members):
    halving = Halving(eta, first, least)
    rungs = halving.rungs(epochs)
    assert rungs == sorted(set(rungs))
    assert all(1 <= rung < epochs for rung in rungs)
    assert halving.keep(members) == min(members, max(least, math.ceil(members / eta)))
    assert halving.keep(members) <= members


def test_the_best_are_those_with_the_lowest_loss_and_of_equals_the_first():
    losses = {"a": 0.5, "b": 0.2, "c": math.inf, "d": 0.2, "e": math.nan, "f": 0.1}
    assert best(losses, 2) == ["f", "b"]
    assert best(losses, 9) == ["f", "b", "d", "a"]


def test_what_may_be_asked_for():
    assert check_halving(None) is check_halving(False) is None
    assert check_halving(True) == Halving()
    assert check_halving(3) == check_halving({"eta": 3}) == check_halving(Halving(eta=3)) == Halving(eta=3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, "eta, a number > 1, got 1"),
        (math.nan, "eta"),
        ({"eta": "2"}, "eta"),
        ({"first": 0}, "first, a whole number ≥ 1, got 0"),
        ({"least": 1.5}, "least"),
        ({"frist": 3}, "did you mean 'first'"),
        ("3", "expected true, false, eta or a table"),
    ],
)
def test_what_may_not_be_asked_for(value, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        lre.train_pool("digits", halving=value, path=tmp_path / "pool")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("eta", [2, 3])
def test_it_decides_as_one_would_afterwards(engine, eta, digits, whole, tmp_path):
    halving = {"eta": eta, "first": 1, "least": 2}
    pool = lre.train_pool(digits, path=tmp_path / "pool", engine=engine, halving=halving, **CALL)
    expected = slow_halving(whole[engine], **halving)
    assert reached(pool) == expected
    assert sum(epoch == 7 for epoch in expected.values()) == 2
    assert_same_pools(whole[engine], pool, pool.ids)
    for stopped in pool.stopped():
        curve = whole[engine].member(stopped.id).history["val_loss"]
        assert stopped.val_loss == tuple(curve[: stopped.epoch])


def test_a_later_call_goes_on_with_those_that_were_stopped(digits, whole, tmp_path):
    pool = lre.train_pool(digits, path=tmp_path / "pool", engine="loop", halving=HALVING, **CALL)
    assert len(pool) < len(whole["loop"])
    epochs = []
    watch = {"progress": lambda event: epochs.append(event.epoch) if event.kind == "epoch" else None}
    before = sum(stopped.epoch for stopped in pool.stopped())
    pool = lre.train_pool(digits, path=tmp_path / "pool", engine="loop", **{**CALL, **watch})
    assert_same_pools(whole["loop"], pool)
    assert len(epochs) == 7 * (len(pool) - 2) - before  # one had diverged, one was finished
    assert pool.stopped() == pool.info()["training"] == pool.info()["stopped"] == []
    assert not list((tmp_path / "pool" / "resume").glob("[!.]*"))


@pytest.mark.parametrize(("engine", "jobs"), [("loop", 1), ("stacked", 1), ("stacked", 2)])
def test_interrupted_anywhere_it_decides_the_same(engine, jobs, digits, whole, tmp_path):
    """Stopped at several events, be it an epoch, a rest or a member."""
    call = {**CALL, "path": tmp_path / "pool", "engine": engine, "halving": HALVING, "stack": 2, "jobs": jobs}
    for after in (1, 4, 9, 3, 6) if jobs == 1 else (10,):

        def stop(event, seen=[0], after=after):  # noqa: B006
            seen[0] += event.kind != "note"
            if seen[0] == after:
                raise KeyError("stop")

        with pytest.raises(KeyError):
            lre.train_pool(digits, **{**call, "progress": stop})
    pool = lre.train_pool(digits, **call)
    assert reached(pool) == slow_halving(whole[engine], **HALVING)
    assert_same_pools(whole[engine], pool, pool.ids)


def test_interrupted_between_rung_and_decision(digits, whole, tmp_path, monkeypatch):
    def killed(*_):
        raise RuntimeError("killed")

    call = {**CALL, "path": tmp_path / "pool", "engine": "loop", "halving": HALVING}
    with monkeypatch.context() as patched:
        patched.setattr("lrensemble.training.halving.losses_at", killed)
        with pytest.raises(RuntimeError):
            lre.train_pool(digits, **call)
    assert {stopped.epoch for stopped in lre.Pool.open(tmp_path / "pool").stopped()} == {1}
    assert reached(lre.train_pool(digits, **call)) == slow_halving(whole["loop"], **HALVING)


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_records_and_states_that_are_lost_are_made_again(suffix, digits, whole, tmp_path):
    call = {**CALL, "path": tmp_path / "pool", "engine": "loop", "halving": HALVING}
    lre.train_pool(digits, **call)
    for path in (tmp_path / "pool" / "resume").glob(f"[!.]*{suffix}"):
        path.write_bytes(b"damaged")
    pool = lre.train_pool(digits, **call)
    assert reached(pool) == slow_halving(whole["loop"], **HALVING)
    assert_same_pools(whole["loop"], lre.train_pool(digits, **{**call, "halving": False}))


def test_members_that_are_there_compete(digits, whole, tmp_path):
    call = {**CALL, "path": tmp_path / "pool", "engine": "loop"}
    expected = slow_halving(whole["loop"], **HALVING)
    sound = [summary for summary in whole["loop"].summaries() if summary.status == "done"]
    last = min(sound, key=lambda summary: expected[summary.id])  # one that would be stopped
    assert expected[last.id] == 1
    lre.train_pool(digits, **{**call, "policies": [last.asked]})
    pool = lre.train_pool(digits, halving=HALVING, **call)
    assert reached(pool) == expected | {last.id: 7}


def test_it_is_told_and_shown(digits, tmp_path, capsys):
    events = []
    call = {**CALL, "path": tmp_path / "pool", "engine": "loop", "halving": HALVING}
    pool = lre.train_pool(digits, **{**call, "progress": events.append})
    by_kind = {kind: [event for event in events if event.kind == kind] for kind in ("rest", "member", "stopped")}
    assert {event.member for event in by_kind["stopped"]} == {stopped.id for stopped in pool.stopped()}
    assert all(event.epoch < event.epochs == 7 and event.val_loss > 0 for event in by_kind["stopped"])
    assert [(event.done, event.total) for event in by_kind["member"]] == [(1, 7), (2, 7)]
    assert "2 of 7 members are finished; 2 stopped after epoch 1, 2 stopped after epoch 2" in events[-1].text
    assert "the same command without halving goes on" in events[-1].text

    info = json.loads(json.dumps(pool.info()))
    assert [entry["id"] for entry in info["stopped"]] == [stopped.id for stopped in pool.stopped()]
    assert info["training"] == []
    shown = pool_summary(info, pool.summaries())
    assert stopped_table(info["stopped"]) in shown
    assert "1/7" in shown
    assert set(pool.predictions("val").ids).isdisjoint(entry["id"] for entry in info["stopped"])

    lre.train_pool(digits, **{**call, "progress": True})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # what is there, how it is trained, who was stopped
    assert stopped_table([]) == ""


def test_the_bar_is_full_at_the_end(digits, tmp_path, monkeypatch):
    class Recorded(progress.Bar):
        def close(self):
            closed.append((self._bar.n, self._bar.total))
            super().close()

    closed = []
    monkeypatch.setattr(progress, "Bar", Recorded)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    call = {**CALL, "path": tmp_path / "pool", "engine": "loop", "halving": HALVING, "progress": True}
    lre.train_pool(digits, **call)
    lre.train_pool(digits, **call)
    lre.train_pool(digits, **{**call, "halving": False})
    assert len(closed) == 3
    assert all(n == total for n, total in closed)


def test_when_all_that_go_on_diverge_it_says_what_to_do(digits, tmp_path):
    """This policy is the best at first, and infinite in the second epoch."""
    call = {**CALL, "policies": ["FIX(0.001)", "[FIX(0.05) @ 20% | FIX(9000)]"], "epochs": 5}
    with pytest.raises(TrainingError, match=r"1 diverged, and the others were stopped: .* without halving"):
        lre.train_pool(digits, path=tmp_path / "pool", halving=HALVING, **call)
    assert lre.train_pool(digits, path=tmp_path / "pool", **call).info()["stopped"] == []


def test_all_diverged_before_the_first_rung(digits, tmp_path):
    call = {**CALL, "policies": ["FIX(9000)", "FIX(8000)"]}
    with pytest.raises(TrainingError, match="all 2 members diverged"):
        lre.train_pool(digits, path=tmp_path / "pool", halving=HALVING, **call)


@pytest.mark.parametrize("engine", ENGINES)
def test_folds_rest_and_go_on_together(engine, digits, tmp_path):
    call = {**CALL, "policies": [*POLICIES[:2], *POLICIES[3:5]], "folds": 2, "epochs": 4, "engine": engine, "stack": 3}
    whole = lre.train_pool(digits, path=tmp_path / "whole", **call)
    pool = lre.train_pool(digits, path=tmp_path / "pool", halving=HALVING, **call)
    assert reached(pool) == slow_halving(whole, **HALVING)
    assert_same_pools(whole, pool, pool.ids)
    assert_same_pools(whole, lre.train_pool(digits, path=tmp_path / "pool", **call))
    assert not list((tmp_path / "pool" / "resume").glob("[!.]*"))


def test_snapshots_of_members_that_are_stopped_are_kept(digits, tmp_path):
    call = {**CALL, "policies": POLICIES[3:6], "snapshots": "last:6", "engine": "loop"}
    whole = lre.train_pool(digits, path=tmp_path / "whole", **call)
    pool = lre.train_pool(digits, path=tmp_path / "pool", halving=HALVING, **call)
    assert len(pool.stopped()) == 2
    assert all(f"{stopped.id}-e1" in pool for stopped in pool.stopped())
    assert_same_pools(whole, lre.train_pool(digits, path=tmp_path / "pool", **call))


RECORD = Stopped("a", "FIX(k0=0.1)", "FIX(0.1)", 0, 2, 5, (0.5, 0.4), (0.8, 0.9), 1.5)


def test_a_record_reads_back(tmp_path):
    write_stopped(tmp_path / "a.json", RECORD)
    assert read_stopped(tmp_path / "a.json") == RECORD


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"id": "b"}, {"epoch": 3}, {"epochs": 1}, {"val_loss": ["x", 1]}, {"seed": None}, {"more": 1}],
)
def test_a_record_that_is_damaged_counts_as_none(change, tmp_path):
    path = tmp_path / "a.json"
    write_stopped(path, RECORD)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert read_stopped(path) is None
    (tmp_path / "link.json").symlink_to(path)
    for other in ("[]", "nothing", "[" * 100_000):
        path.write_text(other)
        assert read_stopped(path) is read_stopped(tmp_path / "link.json") is read_stopped(tmp_path / "no.json") is None
