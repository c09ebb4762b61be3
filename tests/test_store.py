"""The policy store: problems and their distance, one trial a training, several writers, SQLite and PostgreSQL alike."""

import csv
import importlib.util
import io
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgresql_server import PASSWORD, server
from store_writer import problem, trained

from lrensemble.cli.main import main
from lrensemble.errors import InputError, StoreError
from lrensemble.policies import parse_policy
from lrensemble.pool import import_arrays
from lrensemble.training.workshop import Workshop
from lrensemble.tuning import Problem, Store
from lrensemble.tuning.evidence import furthest, rank, stored

# -- problems --------------------------------------------------------------------------------------------------------

PROBLEMS = st.builds(
    problem,
    data=st.sampled_from(["mnist", "letter"]),
    fingerprint=st.sampled_from(["f0", "f1"]),
    n_classes=st.integers(2, 1000),
    input_shape=st.sampled_from([None, (16,), (1, 28, 28)]),
    n_train=st.integers(1, 10**7),
    model=st.sampled_from(["mlp", "lenet"]),
    architecture=st.sampled_from(["", "a0"]),
    parameters=st.integers(1, 10**9),
    optimizer=st.sampled_from(["sgd", "adam"]),
    batch_size=st.integers(1, 4096),
    epochs=st.integers(1, 500),
    weight_decay=st.sampled_from([0.0, 5e-4]),
)


@settings(deadline=None, max_examples=200)
@given(PROBLEMS, PROBLEMS)
def test_distance_is_symmetric_and_zero_only_to_itself(a, b):
    assert a.distance(a) == 0
    assert a.distance(b) == b.distance(a) >= 0
    assert math.isfinite(a.distance(b))
    if (a.key == b.key) or a.distance(b) == 0:
        same = replace(b, data=a.data, n_classes=a.n_classes, input_shape=a.input_shape, n_train=a.n_train)
        assert a == replace(same, architecture=a.architecture)


@settings(deadline=None, max_examples=50)
@given(PROBLEMS)
def test_a_problem_is_read_as_it_was_written(a):
    again = Problem.from_dict(json.loads(json.dumps(a.to_dict())))
    assert again == a
    assert again.key == a.key


def test_what_differs_more_is_further_away():
    here = problem()
    nearer_and_nearer = [
        problem(optimizer="adam"),
        problem(model="vgg"),
        problem(data="letter", fingerprint="f9", input_shape=(16,), n_classes=26),
        problem(data="fashion", fingerprint="f9"),
        problem(fingerprint="f1", n_train=10_000),
        problem(fingerprint="f1"),
        problem(weight_decay=0.0),
        here,
    ]
    distances = [here.distance(other) for other in nearer_and_nearer]
    assert sorted(distances, reverse=True)[:1] == distances[:1]
    assert distances[3:] == sorted(distances[3:], reverse=True)
    assert distances[2] > distances[3]
    # by hand: another set (4), tables instead of images (2), half a unit for each decade of classes
    assert distances[2] == pytest.approx(4 + 2 + 0.5 * math.log10(2.6))


def test_lengths_and_batches_count_by_doubling():
    assert problem().distance(problem(epochs=80)) == pytest.approx(2 * 0.25)
    assert problem().distance(problem(batch_size=32)) == pytest.approx(0.25)


@pytest.mark.parametrize("broken", [{}, {"data": "x"}, {**problem().to_dict(), "settings": {}}, {"settings": 3}])
def test_what_is_no_problem_is_refused(broken):
    with pytest.raises(InputError, match="expected the description of a problem"):
        Problem.from_dict(broken)


# -- evidence --------------------------------------------------------------------------------------------------------


def test_a_training_is_kept_with_its_costs():
    found = stored(problem(), trained(accuracy=(0.5, 0.9, 0.8)))
    assert (found.val_accuracy, found.best_val_accuracy, found.val_loss) == (0.8, 0.9, pytest.approx(0.2))
    assert found.steps_to_best == 2 * 16  # 1,000 samples in batches of 64
    assert found.seconds_to_best == pytest.approx(4.0)
    assert found.curve == ((1, 0.5), (2, 0.9), (3, 0.8))


def test_what_was_not_measured_is_not_kept():
    assert stored(problem(), trained(accuracy=(), status="stopped")) is None
    assert stored(problem(), trained(accuracy=(math.nan, 0.5, math.nan))).curve == ((2, 0.5),)
    diverged = stored(problem(), trained(accuracy=(0.4, math.nan), status="diverged"))
    assert (diverged.val_accuracy, diverged.val_loss, diverged.steps_to_best) == (0.0, None, None)


def test_policies_are_ranked_with_their_spread_and_losses():
    here = problem()
    entries = [
        *(stored(here, trained("FIX(k0=0.1)", seed, (a,))) for seed, a in enumerate((0.90, 0.94))),
        *(
            stored(here, trained("FIX(k0=1.0)", seed, (a,), s))
            for seed, a, s in ((0, 0.99, "done"), (1, 0.1, "diverged"))
        ),
        stored(here, trained("FIX(k0=9.0)", 0, (0.1,), "diverged")),
        stored(here, trained("FIX(k0=0.2)", 0, (0.995,), "stopped")),
    ]
    ranked = rank(entries)
    assert [e.policy for e in ranked] == ["FIX(k0=0.1)", "FIX(k0=1.0)", "FIX(k0=9.0)", "FIX(k0=0.2)"]
    best, risky, lost, young = ranked
    assert (best.accuracy, best.sd) == (pytest.approx(np.mean([0.9, 0.94])), pytest.approx(np.std([0.9, 0.94], ddof=1)))
    assert (risky.accuracy, risky.score, risky.diverged, risky.sd) == (0.99, pytest.approx(0.495), 1, None)
    assert (lost.accuracy, lost.seeds, young.stopped) == (None, 0, 1)
    assert str(best) == "FIX(k0=0.1): 92.00 % ± 2.83 (2 finished)"
    assert str(lost) == "FIX(k0=9.0): diverged (1 diverged)"


def test_the_furthest_of_a_member_counts():
    here = problem()
    early, late = trained(accuracy=(0.3,), status="stopped"), trained(accuracy=(0.3, 0.4), status="stopped")
    done = trained(accuracy=(0.3, 0.4, 0.5))
    entries = [stored(here, one) for one in (done, early, late)]
    assert furthest(entries) == furthest(entries[::-1]) == [entries[0]]


# -- the store, on every backend -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql():
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    try:
        running = server()
        url = running.__enter__()
    except OSError as error:
        pytest.skip(str(error))
    yield url
    running.__exit__(None, None, None)


def new_place(kind, request, tmp_path):
    """File or URL of a store that is not there yet."""
    if kind == "sqlite":
        return str(tmp_path / "folder" / "store.db")
    import psycopg

    url = request.getfixturevalue("postgresql")
    name = f"store_{time.monotonic_ns()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # much faster than a database
    return f"{url}?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    return new_place(request.param, request, tmp_path)


@pytest.fixture
def store(where):
    with Store.open(where) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def any_store(request, tmp_path):
    if request.param == "memory":
        place = optuna.storages.InMemoryStorage()
    else:
        place = new_place(request.param, request, tmp_path)
    with Store.open(place) as opened:
        yield opened


def test_the_same_training_is_one_trial(store):
    here, one = problem(), trained()
    assert store.record(here, one) == 1
    assert store.record(here, [one, one, trained(seed=1)]) == 1
    assert len(store.study(here).trials) == len(store.trials(here)) == 2
    assert store.trials(here)[0] == stored(here, one)


def test_optuna_sees_what_was_recorded(store):
    here = problem()
    long = tuple(np.linspace(0.1, 0.9, 40))
    store.record(here, [trained(), trained(seed=1, status="diverged"), trained(seed=2, status="stopped")])
    store.record(here, trained(seed=3, accuracy=long, epochs=40))
    study = store.study(here)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert [trial.value for trial in study.trials] == [0.8, 0.0, 0.8, 0.9]
    assert study.direction.name == "MAXIMIZE"
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.9, 3: 0.8}
    assert study.trials[0].user_attrs["policy"] == "FIX(k0=0.1)"
    drawn = study.trials[3].intermediate_values
    assert len(drawn) == 10
    assert (drawn[1], drawn[40]) == (long[0], long[-1])
    assert len(store.trials(here)[3].curve) == 40


def test_a_training_that_goes_on_is_recorded_again(store):
    here = problem()
    assert store.record(here, trained(accuracy=(0.5,), status="stopped")) == 1
    assert store.record(here, trained(accuracy=(0.5, 0.9, 0.8))) == 1
    assert store.record(here, trained(accuracy=(0.5,), status="stopped")) == 0
    (only,) = store.trials(here)
    assert (only.status, only.epoch) == ("done", 3)


def test_problems_are_found_by_the_beginning_of_their_key(any_store):
    a, b = problem(), problem(data="letter", fingerprint="f1")
    assert any_store.problems() == []
    for one in (a, b):
        any_store.record(one, trained())
    assert any_store.problems() == [a, b]
    assert any_store.find("letter") == b
    assert any_store.find(a.key) == a
    with pytest.raises(StoreError, match=r"unknown problem 'leter.*did you mean 'letter-"):
        any_store.find(b.key.replace("letter", "leter"))
    any_store.record(problem(epochs=7), trained())
    with pytest.raises(StoreError, match="expected the key of one problem, got 'mnist'"):
        any_store.find("mnist")


def test_a_pool_and_a_run_of_the_same_problem_are_one(store):
    whole, pool_only = problem(), problem(input_shape=None, n_train=1024)
    store.record(pool_only, trained())
    assert store.problems()[0].input_shape is None
    store.record(whole, trained(seed=1))
    assert store.problems() == [whole]
    store.record(pool_only, trained(seed=2))  # does not forget what it does not know
    assert store.problems() == [whole]
    assert len(store.trials(pool_only)) == 3


def test_the_nearest_problem_comes_first(any_store):
    here = problem()
    others = [
        problem(optimizer="adam"),
        problem(epochs=40),
        problem(model="vgg"),
        problem(n_train=999, fingerprint="f"),
    ]
    for other in others:
        any_store.record(other, trained(f"FIX(k0=0.{other.epochs + len(other.model)})"))
    any_store.study(problem(epochs=21))  # without a trial: of no use
    found = any_store.nearest(here, 3)
    assert [f.problem for f in found] == [others[1], others[3], others[2]]
    assert [f.distance for f in found] == sorted(here.distance(other) for other in others)[:3]
    assert found[0].policies[0].policy == "FIX(k0=0.45)"


def test_suggestions_are_the_best_of_the_nearest(any_store):
    here, near, far = problem(), problem(epochs=40), problem(model="vgg")
    any_store.record(problem(optimizer="adam"), trained("FIX(k0=0.001)", accuracy=(0.99,)))
    any_store.record(far, [trained("FIX(k0=0.4)", accuracy=(0.97,)), trained("FIX(k0=0.2)", accuracy=(0.96,))])
    any_store.record(
        near,
        [
            trained("TRI(k0=0.01, k1=0.1, l=50%)", accuracy=(0.8,)),
            trained("FIX(k0=0.2)", accuracy=(0.9,)),
            trained("OLDNAME(k0=0.3)", accuracy=(0.95,)),
            trained("FIX(k0=99.0)", accuracy=(0.1,), status="diverged"),
        ],
    )
    found = any_store.suggestions(here)
    assert [one.policy for one in found] == ["FIX(k0=0.2)", "TRI(k0=0.01, k1=0.1, l=50%)", "FIX(k0=0.4)"]
    assert [one.problem for one in found] == [near, near, far]
    assert found.found[0].evidence.accuracy == 0.9
    assert found.unreadable == 1
    assert len(any_store.suggestions(here, 1)) == 1
    assert all(parse_policy(policy) for policy, *_ in found)


def test_foreign_studies_are_left_alone(store):
    foreign = optuna.create_study(storage=store.storage, study_name="theirs")
    foreign.set_user_attr("model", "theirs")
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    store.record(problem(), trained())
    assert store.problems() == [problem()]
    assert len(store.export()) == 1
    study = store.study(problem())  # and trials of other origin in a study of ours count as nothing
    study.optimize(lambda trial: 1.0, n_trials=1)
    study.ask()
    assert [one.member for one in store.trials(problem())] == [trained().id]
    assert len(foreign.trials) == 2


def test_a_store_of_a_later_release_is_refused(store, where, capsys):
    study = store.study(problem())
    study.set_user_attr("lrensemble_store", 2)
    for use in (store.problems, lambda: store.record(problem(), trained())):
        with pytest.raises(StoreError, match="expected a policy store of version 1, got version 2: update lrensemble"):
            use()
    assert main(["store", "list", "--store", where]) == 1
    assert "update lrensemble" in capsys.readouterr().err


def test_a_study_that_was_never_described_is_described_by_the_next(store):
    here = problem()
    optuna.create_study(storage=store.storage, study_name=here.key, direction="maximize")
    assert store.problems() == []
    store.record(here, trained())
    assert store.problems() == [here]


def test_optuna_says_nothing_on_stdout_or_stderr(where, capfd):
    with Store.open(where) as opened:
        opened.record(problem(), trained())
    assert capfd.readouterr() == ("", "")


# -- several processes -----------------------------------------------------------------------------------------------


def writer(where, *numbers):
    """A process that is about to record members of these numbers (as of ``range``)."""
    script = Path(__file__).with_name("store_writer.py")
    command = [sys.executable, "-W", "error", script, where, *map(str, numbers)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def begin(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_several_processes_write_at_once_and_nothing_is_lost_or_doubled(where):
    shares = [(0, 8, 1), (4, 12, 1), (0, 12, 2)]  # many of them twice
    writers = [writer(where, *share) for share in shares]
    for process in writers:
        begin(process)
    for process in writers:
        assert process.communicate(timeout=120)[1] == ""
    assert [process.returncode for process in writers] == [0, 0, 0]
    with Store.open(where, create=False) as opened:
        assert len(opened.problems()) == 4
        for one, numbers in [(problem(), range(12)), *((problem(epochs=e + 1), range(e, 12, 3)) for e in range(3))]:
            rows = [trial.user_attrs["member"] for trial in opened.study(one).trials]
            assert sorted(rows) == sorted(trained(seed=number).id for number in numbers)


def test_a_writer_that_is_killed_harms_nothing(where):
    with writer(where, 0, 10**6, 1) as process:
        begin(process)
        for _ in range(3):
            written = int(process.stdout.readline())
        time.sleep(0.01)  # into the next one
        process.send_signal(signal.SIGKILL)
    with Store.open(where) as opened:
        there = {one.member for one in opened.trials(problem())}
        assert {trained(seed=number).id for number in range(written + 1)} <= there
        assert all(trial.state.is_finished() for trial in opened.study(problem()).trials)
        opened.record(problem(), [trained(seed=number) for number in range(written + 3)])
        rows = [trial.user_attrs["member"] for trial in opened.study(problem()).trials]
        assert len(rows) == len(set(rows)) >= written + 3


# -- pools -----------------------------------------------------------------------------------------------------------

POLICIES = ("FIX(0.05)", "COSRSW(k0=0, k1=0.1, l=50%)", "FIX(5000)")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    path = tmp_path_factory.mktemp("pools") / "pool"
    opened = Workshop.open("digits", path=path, train_size=200, epochs=2, jobs=1, progress=False, snapshots="cycles")
    opened.train(planned(opened))
    return opened


def planned(shop):
    return shop.plan([(parse_policy(text), seed) for text in POLICIES for seed in (0, 1)])


def test_a_pool_is_knowledge(shop, store):
    plan = planned(shop)
    here = Problem.of(shop, plan)
    added = store.add_pool(shop.pool())
    assert (added.new, added.known, added.left_out) == (6, 0, 2)  # snapshots
    assert store.add_pool(shop.pool()).to_dict() == {"new": 0, "known": 6, "left_out": 2}
    assert store.record(here, shop.look(plan), pool=shop.pool()) == 0
    assert store.problems() == [here]
    by_member = {one.member: one for one in store.trials(here)}
    for seen in shop.look(plan):
        found = by_member[seen.id]
        assert (found.policy, found.resolved, found.seed, found.status) == (
            seen.asked,
            seen.policy,
            seen.seed,
            seen.status,
        )
        assert found.pool == str(shop.path.absolute())
        assert found.epoch == seen.epoch
    assert [one.policy for one in store.suggestions(here)][-1:] != ["FIX(k0=5000.0)"]
    assert "COSRSW(k0=0.0, k1=0.1, l=50%)" in [one.policy for one in store.suggestions(here)]


def test_members_that_say_too_little_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 30, 3)).astype(np.float32)
    labels = np.arange(30) % 3
    splits = {"val_logits": logits, "val_labels": labels, "test_logits": logits, "test_labels": labels}
    pool = import_arrays(tmp_path / "pool", **splits)
    opened = Store.open(optuna.storages.InMemoryStorage())
    assert opened.add_pool(pool).to_dict() == {"new": 0, "known": 0, "left_out": 2}


# -- the command -----------------------------------------------------------------------------------------------------


def run(capsys, *arguments, code=0):
    got = main(["store", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert got == code, err
    assert PASSWORD not in out + err
    return out if not code else err


def test_the_command_adds_lists_shows_and_exports(shop, where, tmp_path, capsys):
    run(capsys, "list", "--store", where, code=1)
    assert f"added    {shop.path}: 6 new, 0 known, 2 left out" in run(capsys, "add", shop.path, "--store", where)
    assert json.loads(run(capsys, "add", shop.path, "--store", where, "--json"))[0]["known"] == 6
    assert "digits-mlp-momentum-b64-e2" in run(capsys, "list", "--store", where)
    (listed,) = json.loads(run(capsys, "list", "--store", where, "--json"))
    assert (listed["trials"], listed["data"]) == (6, "digits")
    shown = json.loads(run(capsys, "show", "digits", "--store", where, "--json"))
    assert shown["key"] == listed["key"]
    assert [p["diverged"] for p in shown["policies"]] == [0, 0, 2]
    assert shown["policies"][0]["accuracy"] == listed["best_accuracy"]
    assert f"{100 * listed['best_accuracy']:.2f} %" in run(capsys, "show", "digits", "--store", where)

    rows = list(csv.DictReader(io.StringIO(run(capsys, "export", "--store", where))))
    records = json.loads(run(capsys, "export", "digits", "--store", where, "--json"))
    assert len(rows) == len(records) == 6
    assert {row["member"]: float(row["val_accuracy"]) for row in rows} == {
        r["member"]: r["val_accuracy"] for r in records
    }
    run(capsys, "export", "--store", where, "--out", tmp_path / "all.csv")
    assert list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines())) == rows
    assert (
        json.loads(run(capsys, "export", "--store", where, "--out", tmp_path / "all.json", "--json"))["trainings"] == 6
    )
    assert json.loads((tmp_path / "all.json").read_text()) == records
    assert "expected a file that ends in .csv or .json" in run(
        capsys, "export", "--store", where, "--out", "all.xlsx", code=1
    )
    assert "unknown problem 'mnist'" in run(capsys, "show", "mnist", "--store", where, code=1)


def test_reading_makes_no_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for action in (["list"], ["show", "x"], ["export"]):
        assert "expected a policy store, found none" in run(capsys, *action, code=1)
    run(capsys, "add", "no-pool", code=1)
    assert list(tmp_path.iterdir()) == []


def test_the_default_is_a_file_beside_the_pools(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open() as opened:
        opened.record(problem(), trained())
        assert opened.name == str(Path("checkpoints") / "store.db")
    assert sqlite3.connect("checkpoints/store.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with Store.open("sqlite:///checkpoints/store.db", create=False) as opened:
        assert opened.problems() == [problem()]


def test_listing_waits_for_no_torch(tmp_path):
    with Store.open(tmp_path / "store.db") as opened:
        opened.record(problem(), trained())
    call = f"main(['store', 'list', '--store', {str(tmp_path / 'store.db')!r}])"
    code = f"import sys; from lrensemble.cli.main import main; {call}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "1 problem(s)" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
    assert done.stderr == ""


# -- what can be wrong -----------------------------------------------------------------------------------------------


def test_what_is_no_store_is_told_in_one_sentence(tmp_path, capsys):
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes, and they are no database " * 20)
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).execute("CREATE TABLE mine (x)").connection.close()
    for path, message in [
        (text, "found another kind of file"),
        (empty, "found a database without one"),
        (tmp_path, "cannot be opened as a policy store"),
        (text / "store.db", "expected a policy store, found none"),
    ]:
        told = run(capsys, "list", "--store", path, code=1)
        assert message in told
        assert told.count("\n") == 1
    assert "these are my notes" in text.read_text()
    with pytest.raises(StoreError, match="cannot be opened as a policy store"):
        Store.open(text / "store.db")
    with pytest.raises(StoreError, match="another kind of file"):
        Store.open(text)


@pytest.fixture
def nobody(tmp_path):
    """A user without rights, and a folder that everybody may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    was = os.geteuid()

    def become(user=65534):
        if was == 0:
            os.seteuid(user)
        else:
            folder.chmod(0o555 if user else 0o755)

    yield folder, become
    become(0)
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="this system has other permissions")
def test_who_may_not_write_may_read(nobody):
    folder, become = nobody
    with Store.open(folder / "store.db") as opened:
        opened.record(problem(), trained())
    (folder / "store.db").chmod(0o444)
    become()
    with Store.open(folder / "store.db", create=False) as opened:
        assert opened.problems() == [problem()]
        with pytest.raises(StoreError, match="may only be read: check its permissions"):
            opened.record(problem(), trained(seed=1))
    for path in ("store.db", "new.db", "new/store.db"):
        with pytest.raises(StoreError, match=r"permissions|Permission denied"):
            Store.open(folder / path)
    assert sorted(path.name for path in folder.iterdir()) == ["store.db", "store.db.lock"]


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "{x}.db", "a?b=c#d@e:f.db", "öß.db"])
def test_any_name_of_a_file_will_do(tmp_path, name):
    with Store.open(tmp_path / name) as opened:
        opened.record(problem(), trained())
    with Store.open(tmp_path / name, create=False) as opened:
        assert len(opened.trials(problem())) == 1
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("url", ["mysql://me:sesame@host/x", "sqlite://", "postgresql+asyncpg://me:sesame@h/x", "://"])
def test_other_databases_are_refused(url):
    with pytest.raises(StoreError, match="expected a store as a file, sqlite:///FILE or postgresql://") as error:
        Store.open(url)
    assert "sesame" not in str(error.value)


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_does_not_answer(capsys):
    pytest.importorskip("psycopg")
    url = f"postgresql://tuner:{PASSWORD}@127.0.0.1:{closed_port()}/x"
    told = run(capsys, "list", "--store", url, code=1)
    assert "no server answers there" in told
    assert "tuner:***@" in told


def test_what_a_server_refuses(postgresql, capsys):
    for url, message in [
        (postgresql.replace(PASSWORD, "open-sesame"), "the server refuses the password"),
        (postgresql.replace("/postgres", "/nowhere"), "the server has no such user or database"),
        (postgresql, "found a database without one"),
        (postgresql.replace(f":{PASSWORD}", "") + f"?password={PASSWORD}", "found a database without one"),
    ]:
        told = run(capsys, "list", "--store", url, code=1)
        assert message in told
        assert told.count("\n") == 1
        assert "open-sesame" not in told


def test_the_driver_is_asked_for_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    told = run(capsys, "list", "--store", "postgresql://me@127.0.0.1/x", code=1)
    assert "pip install 'lrensemble[postgresql]'" in told


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_connections_that_the_server_has_closed(store, where):
    import psycopg

    store.record(problem(), trained())
    with psycopg.connect(where, autocommit=True) as connection:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    assert store.record(problem(), trained(seed=1)) == 1


# -- the dashboard ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed")
def test_the_dashboard_opens_on_it(store, where):
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    import optuna_dashboard

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_):
            pass

    store.record(problem(), [trained(), trained(seed=1, status="diverged")])
    url = where.replace("postgresql:", "postgresql+psycopg:") if "://" in where else f"sqlite:///{where}"
    storage = optuna.storages.RDBStorage(url)
    with make_server("127.0.0.1", 0, optuna_dashboard.wsgi(storage), handler_class=Quiet) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        try:
            (listed,) = fetch(web, "/api/studies")["study_summaries"]
            assert listed["study_name"] == problem().key
            shown = fetch(web, f"/api/studies/{listed['study_id']}?after=0")
        finally:
            web.shutdown()
            storage.engine.dispose()
    attributes = {one["key"]: one["value"] for one in shown["user_attrs"]}
    assert (attributes["data"], attributes["model"], attributes["n_classes"]) == ("mnist", "lenet", "10")
    assert [trial["values"] for trial in shown["trials"]] == [[0.8], [0.0]]


def fetch(web, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{web.server_port}{path}", timeout=20) as answer:
        return json.load(answer)
