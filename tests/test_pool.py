"""The pool: round trips, views, names, concurrent writers, refusals."""

import errno
import json
import logging
import os
import pickle
import resource
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pool_helpers import FINGERPRINT, C, N, diverged_member, labels, new_member, new_pool, same_array, same_member

from lrensemble import Ensemble, Member, Pool
from lrensemble.errors import InputError, PoolError, PoolFormatError, UnknownNameError
from lrensemble.files import write_bytes_atomic
from lrensemble.pool import Problem, check_name, member_id


@pytest.fixture
def pool(tmp_path):
    pool = new_pool(tmp_path / "pool")
    for seed in (1, 0):
        pool.add(new_member(seed), weights={"w": np.eye(2, dtype=np.float32)} if seed else None)
    pool.add(diverged_member())
    return pool


# --- round trip -------------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out(pool):
    again = Pool.open(str(pool.path))
    for one in (new_member(0), new_member(1), diverged_member()):
        assert one.id in again
        assert same_member(again.member(one.id), one)
    assert (again.name, again.fingerprint, again.class_names, again.n_classes) == (
        "toy",
        FINGERPRINT,
        ("a", "b", "c"),
        C,
    )
    assert again.ids == tuple(sorted(m.id for m in (new_member(0), new_member(1), diverged_member())))
    assert len(again) == 3
    assert again.splits == ("val", "test")
    for split, expected in labels().items():
        assert again.labels(split).tolist() == expected.tolist()
        assert not again.labels(split).flags.writeable
    assert again.problems == []
    assert again.verify() == []


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_member_survives(tmp_path_factory, data):
    text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
    scalars = st.dictionaries(
        text, st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text)
    )
    curve = hnp.arrays(st.sampled_from(["<f4", "<f8", "<i8"]), st.integers(0, 5))
    big = st.integers(-(2**63), 2**63 - 1)
    member = Member(
        id=data.draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,120}", fullmatch=True)),
        policy=data.draw(text),
        asked=data.draw(text),
        model=data.draw(text),
        config=data.draw(scalars),
        extra=data.draw(scalars),
        seed=data.draw(big),
        parameters=data.draw(big),
        flops=data.draw(big),
        seconds=data.draw(st.floats(0, allow_infinity=False)),
        status="done",
        logits=new_member(data.draw(st.integers(0, 99))).logits,
        history=data.draw(
            st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True), curve, max_size=3)
        ),
    )
    pool = new_pool(tmp_path_factory.mktemp("any") / "pool")
    pool.add(member)
    assert same_member(Pool.open(pool.path).member(member.id), member)


def test_long_texts_many_curves_and_many_classes_fit(tmp_path):
    names = [f"class number {i}" for i in range(20_000)]
    pool = Pool.create(
        tmp_path / "pool", name="big", fingerprint="1", class_names=names, labels={"val": [0, 19_999], "test": [5]}
    )
    member = new_member(
        policy="x" * 100_000,
        config={f"option {i}": "y" * 100 for i in range(2000)},
        logits={"val": np.ones((2, 20_000)), "test": np.ones((1, 20_000))},
        history={f"curve{i}": np.arange(i) for i in range(200)},
    )
    pool.add(member)
    again = Pool.open(pool.path)
    assert again.class_names == tuple(names)
    assert same_member(again.member(member.id), member)


def test_arrays_of_other_kinds_become_float32(tmp_path):
    pool = new_pool(tmp_path / "pool")
    wide = {split: np.asfortranarray(np.arange(n * C).reshape(n, C) / 2)[::-1] for split, n in N.items()}
    pool.add(new_member(name="wide", logits=wide, history={"ok": [True, False], "half": np.ones(2, np.float16)}))
    again = pool.member("wide")
    assert again.logits["val"].dtype == np.float32
    assert again.logits["val"].tolist() == wide["val"].tolist()
    assert again.history["ok"].tolist() == [1, 0]
    assert again.history["half"].dtype == np.float32


# --- predictions and summaries ----------------------------------------------------------------------------------------


def test_predictions_stack_the_finished_members(pool):
    finished = [new_member(0), new_member(1)]
    for split in ("val", "test"):
        got = pool.predictions(split)
        assert got.ids == tuple(m.id for m in finished)
        assert same_array(got.logits, np.stack([m.logits[split] for m in finished]))
        assert (got.split, got.fingerprint, got.labels.tolist()) == (split, FINGERPRINT, labels()[split].tolist())
    backwards = pool.predictions("val", members=[finished[1].id, finished[0].id])
    assert backwards.ids == (finished[1].id, finished[0].id)
    assert same_array(backwards.logits[1], finished[0].logits["val"])


def test_predictions_that_cannot_be_given(pool, tmp_path):
    with pytest.raises(PoolError, match="diverged"):
        pool.predictions("val", members=[diverged_member().id])
    with pytest.raises(UnknownNameError, match=r"unknown member 'FIX-s0-.*did you mean 'FIX-s0-"):
        pool.predictions("val", members=[new_member(0).id[:-1]])
    with pytest.raises(UnknownNameError, match=r"unknown split 'valid'.*val"):
        pool.predictions("valid")
    with pytest.raises(PoolError, match="train members first"):
        new_pool(tmp_path / "empty").predictions()


def test_summaries_agree_with_other_libraries(pool):
    summaries = {s.id: s for s in pool.summaries()}
    assert list(summaries) == list(pool.ids)
    for member in (new_member(0), new_member(1)):
        found, logits, y = summaries[member.id], member.logits["val"].astype(float), labels()["val"]
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert found.val_accuracy == pytest.approx(sklearn.metrics.accuracy_score(y, p.argmax(axis=1)))
        assert found.val_nll == pytest.approx(sklearn.metrics.log_loss(y, p, labels=range(C)), rel=1e-9)
        assert found.best_val_loss == member.history["val_loss"].min()
        assert found.best_val_accuracy == pytest.approx(member.history["val_accuracy"].max())
        assert (found.epochs, found.steps) == (2, 10)
        assert (found.policy, found.asked, found.model, found.seed) == (
            member.policy,
            member.asked,
            member.model,
            member.seed,
        )
        assert (found.config, found.extra) == (member.config, member.extra)
        assert found.has_weights == (member.seed == 1)
        assert found.bytes >= member.logits["val"].nbytes
    lost = summaries[diverged_member().id]
    assert (lost.status, lost.val_accuracy, lost.val_nll, lost.best_val_loss) == ("diverged", None, None, None)


def test_summaries_read_no_arrays(pool, monkeypatch):
    def refuse(*_):
        raise AssertionError("an array was read")

    monkeypatch.setattr(h5py.Dataset, "read_direct", refuse)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse)
    assert len(pool.summaries()) == 3


def test_info_is_json_and_silent_about_the_test_split(pool):
    pool.save_ensemble(Ensemble((new_member(0).id,), (1.0,)), "best")
    write_bytes_atomic(pool.resume_path("mlp-0.5-s3"), b"state")
    write_bytes_atomic(pool.resume_path(new_member(0).id), b"left over")
    info = json.loads(json.dumps(pool.info()))
    assert info["format_version"] == 1
    assert info["classes"] == ["a", "b", "c"]
    assert info["samples"] == N
    assert info["training"] == ["mlp-0.5-s3"]
    assert info["ensembles"] == ["best"]
    assert info["problems"] == []
    assert [m["id"] for m in info["members"]] == list(pool.ids)
    assert info["bytes"] == sum(p.stat().st_size for p in pool.path.rglob("*") if p.is_file())
    assert not [key for member in info["members"] for key in member if "test" in key]


def test_replacing_a_member_shows_at_once(pool):
    pool.predictions()
    changed = new_member(5, name=new_member(0).id)
    pool.add(changed)
    assert same_array(pool.predictions("val", members=[changed.id]).logits[0], changed.logits["val"])
    assert len(pool) == 3


# --- weights, ensembles, experiment -----------------------------------------------------------------------------------


def test_weights_keep_shape_type_and_order(tmp_path):
    pool = new_pool(tmp_path / "pool")
    weights = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "count": np.array(7),
        "half": np.ones(3, np.float16),
        "empty": np.zeros((0, 2), np.float32),
    }
    pool.add(new_member(0), weights=weights)
    again = pool.weights(new_member(0).id)
    assert again.keys() == weights.keys()
    for key, value in weights.items():
        assert same_array(again[key], value)


def test_weights_that_cannot_be_had(pool):
    with pytest.raises(PoolError, match="train it with weights kept"):
        pool.weights(new_member(0).id)
    with pytest.raises(InputError, match="expected weights as arrays"):
        pool.add(new_member(3), weights={"w": np.array(["text"])})
    assert new_member(3).id not in pool


def test_ensembles_experiment_and_reports(pool):
    ensemble = Ensemble((new_member(0).id, new_member(1).id), (0.5, 0.5), fingerprint=FINGERPRINT)
    path = pool.save_ensemble(ensemble, "greedy-nll")
    assert path == pool.path / "ensembles" / "greedy-nll.json"
    assert Pool.open(pool.path).ensemble("greedy-nll") == ensemble
    assert pool.ensembles == ("greedy-nll",)
    with pytest.raises(UnknownNameError, match="greedy-nll"):
        pool.ensemble("greedy")
    with pytest.raises(PoolError, match="another pool"):
        pool.save_ensemble(Ensemble(ensemble.members, ensemble.weights, fingerprint="00"), "x")
    with pytest.raises(PoolError, match="none named"):
        pool.save_ensemble(Ensemble(("absent",), (1.0,)), "x")
    assert pool.experiment is None
    pool.save_experiment('data = "toy"  # ü\n')
    assert Pool.open(pool.path).experiment == 'data = "toy"  # ü\n'
    assert pool.reports_path("r1") == pool.path / "reports" / "r1"


# --- names ------------------------------------------------------------------------------------------------------------

UNSAFE = [
    "",
    ".",
    "..",
    "a/b",
    "../a",
    "a\\b",
    "/etc/passwd",
    ".hidden",
    "-flag",
    "a b",
    "a\0b",
    "a\n",
    "x" * 122,
    "é",
    "a..b",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_are_refused_everywhere(pool, name):
    for use in (
        check_name,
        pool.resume_path,
        pool.reports_path,
        pool.member,
        pool.weights,
        lambda n: new_member(name=n or "."),
    ):
        with pytest.raises(InputError, match="name of at most 121"):
            use(name)
    with pytest.raises(InputError, match="ensemble name of at most 121"):
        pool.save_ensemble(Ensemble((new_member(0).id,), (1.0,)), name)
    assert name not in pool
    assert None not in pool


def test_member_id_is_readable_safe_and_decided_by_identity():
    identity = {"policy": "TRI(0.1, 0.2)", "config": {"lr": 0.1, "steps": np.int64(3)}, "data": ["a", 1]}
    name = member_id("warmup(TRI(0.1, l=2), 5) + COS(1)", 12, identity)
    assert name.startswith("warmup-COS-s12-")
    assert name == member_id("warmup(TRI(0.1, l=2), 5) + COS(1)", 12, dict(reversed(identity.items())))
    assert name != member_id("warmup(TRI(0.1, l=2), 5) + COS(1)", 12, {**identity, "data": ["a", 2]})
    assert member_id("α β ()", 0, {}).startswith("policy-s0-")
    assert len(check_name(member_id("word " * 100, 2**63 - 1, {}))) < 121
    with pytest.raises(InputError, match="got another type"):
        member_id("FIX", 0, {"x": object()})


# --- members that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "finished"}, "expected status 'done' or 'diverged'"),
        ({"logits": {}}, "none when diverged"),
        ({"status": "diverged"}, "none when diverged"),
        ({"logits": {"val": np.ones(3)}}, r"shape \(samples, classes"),
        ({"logits": {"val": np.ones((3, 1))}}, r"shape \(samples, classes"),
        ({"logits": {"val": np.full((3, 2), np.nan)}}, "NaN or infinity"),
        ({"logits": {"val": np.full((3, 2), 1e300)}}, "NaN or infinity"),
        ({"logits": {"../val": np.ones((3, 2))}}, "named by letters"),
        ({"history": {"loss": np.ones((2, 2))}}, r"shape \(T,\)"),
        ({"history": {"loss": np.array(["a"])}}, r"shape \(T,\)"),
        ({"config": {"x": [1, 2]}}, "'x' of type list"),
        ({"extra": {1: 2}}, "of type int"),
        ({"seed": 2**63}, "64 bits"),
        ({"seed": 1.0}, "64 bits"),
        ({"seconds": float("nan")}, "≥ 0"),
        ({"policy": "a\0b"}, "null"),
        ({"model": "\ud800"}, "null"),
    ],
)
def test_impossible_members_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        new_member(**changes)


@pytest.mark.parametrize(
    "logits",
    [
        {"val": np.ones((N["val"], C))},
        {"val": np.ones((N["val"], C)), "test": np.ones((N["test"] + 1, C))},
        {"val": np.ones((N["val"], C + 1)), "test": np.ones((N["test"], C + 1))},
        {"val": np.ones((N["val"], C)), "test": np.ones((N["test"], C)), "third": np.ones((2, C))},
    ],
)
def test_members_of_another_shape_do_not_enter(pool, logits):
    with pytest.raises(InputError, match="as in the pool"):
        pool.add(new_member(7, logits=logits))
    assert new_member(7).id not in pool


# --- create and open --------------------------------------------------------------------------------------------------


def test_create_over_what_is_there(pool):
    with pytest.raises(PoolError, match="expected no pool there yet"):
        new_pool(pool.path)
    again = new_pool(pool.path, exist_ok=True)
    assert again.ids == pool.ids
    with pytest.raises(PoolError, match="of another"):
        new_pool(pool.path, exist_ok=True, fingerprint="cd" * 32)
    with pytest.raises(PoolError, match="classes and labels"):
        new_pool(pool.path, exist_ok=True, labels=labels(seed=1))


def test_create_makes_a_damaged_head_anew(pool):
    (pool.path / "pool.h5").write_bytes((pool.path / "pool.h5").read_bytes()[:300])
    with pytest.raises(PoolError, match=r"pool\.h5"):
        Pool.open(pool.path)
    again = new_pool(pool.path, exist_ok=True)
    assert [problem.action for problem in again.problems] == ["set aside as damaged/pool.h5"]
    assert Pool.open(pool.path).ids == pool.ids


def test_create_refuses_strange_directories(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(PoolError, match=r"got something else|found 'file' in it"):
            new_pool(path)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "experiment.toml").write_text("")
    assert len(new_pool(tmp_path / "begun")) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": ""}, "fingerprint"),
        ({"class_names": ["one"]}, "2 classes"),
        ({"labels": {"test": [0, 1]}}, "split 'val'"),
        ({"labels": {"val": [0, 3]}}, r"0…2 \(3 classes\)"),
        ({"labels": {"val": [-1, 0]}}, r"0…2 \(3 classes\)"),
        ({"labels": {"val": [0.5]}}, "integers"),
        ({"labels": {"val": []}}, "integers"),
        ({"labels": {"val": [0], "a/b": [0]}}, "integers"),
    ],
)
def test_create_refuses_impossible_heads(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        new_pool(tmp_path / "pool", **changes)
    assert not (tmp_path / "pool").exists()


def test_open_what_is_no_pool(tmp_path):
    with pytest.raises(PoolFormatError, match="found none"):
        Pool.open(tmp_path / "absent")
    with pytest.raises(PoolFormatError, match=r"no pool\.h5"):
        Pool.open(tmp_path)
    (tmp_path / "pool.h5").write_text("text")
    with pytest.raises(PoolError, match="expected an HDF5 file"):
        Pool.open(tmp_path)
    (tmp_path / "pool.h5").unlink()
    (tmp_path / "pool.h5").mkdir()
    with pytest.raises(PoolError, match="regular file"):
        Pool.open(tmp_path)


# --- the stacked view -------------------------------------------------------------------------------------------------


def test_any_hdf5_viewer_sees_one_file_also_after_a_move(pool, tmp_path, monkeypatch):
    pool.refresh_view()
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    pool.path.rename(moved)
    monkeypatch.chdir("/")
    expected = Pool.open(moved).predictions("test")
    with h5py.File(moved / "pool.h5", "r") as file:
        assert [text.decode() for text in file["ids"][:]] == list(expected.ids)
        assert same_array(file["logits/test"][:], expected.logits)
        assert file["logits/val"].shape == (2, N["val"], C)
        assert file["labels/val"][:].tolist() == labels()["val"].tolist()
        assert sorted(file["members"]) == sorted(Pool.open(moved).ids)
        assert file[f"members/{expected.ids[0]}/logits/val"].shape == (N["val"], C)
        assert file[f"members/{expected.ids[0]}"].attrs["policy"].decode() == "FIX(0.1)"
        assert file.attrs["format"].decode() == "lrensemble-pool"


def test_the_view_can_be_rebuilt_and_members_that_went_read_as_nan(pool):
    new_pool(pool.path.parent / "empty").refresh_view()
    pool.refresh_view()
    (pool.path / "members" / f"{new_member(0).id}.h5").unlink()
    with h5py.File(pool.path / "pool.h5", "r") as file:
        assert np.isnan(file["logits/val"][0]).all()
        assert same_array(file["logits/val"][1], new_member(1).logits["val"])
    pool.refresh_view()
    with h5py.File(pool.path / "pool.h5", "r") as file:
        assert file["logits/val"].shape == (1, N["val"], C)
    assert Pool.open(pool.path).ids == pool.ids


def test_reading_while_a_viewer_has_the_files_open(pool):
    pool.refresh_view()
    with h5py.File(pool.path / "pool.h5", "r") as file:
        file["logits/val"][:]
        again = Pool.open(pool.path)
        assert again.predictions().n_members == 2
        again.add(new_member(4))
        again.refresh_view()
        assert again.problems == []


# --- many writers -----------------------------------------------------------------------------------------------------


def _add(path, seeds):
    pool = new_pool(path, exist_ok=True)
    for seed in seeds:
        pool.add(new_member(seed), weights={"w": np.full(3, seed, np.float32)})
    return len(pool.predictions().ids), pool.problems


def test_processes_that_add_members_at_once(tmp_path):
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as workers:
        jobs = [workers.submit(_add, tmp_path / "pool", range(3 * i, 3 * i + 3)) for i in range(2)]
        jobs += [workers.submit(_add, tmp_path / "pool", [50, 51, 50, 51]) for _ in range(2)]  # the same members
        results = [job.result() for job in jobs]
    assert all(problems == [] for _, problems in results)
    pool = Pool.open(tmp_path / "pool")
    assert len(pool) == 8
    assert pool.verify() == []
    for seed in (*range(6), 50, 51):
        assert same_member(pool.member(new_member(seed).id), new_member(seed))
    assert not list(pool.path.rglob(".*"))


def test_a_reader_that_meets_a_replaced_file_reads_the_new_one(pool, monkeypatch):
    from lrensemble.pool import pool as pool_module

    read, replaced = pool_module.read_logits, new_member(6, name=new_member(0).id)

    def read_late(*arguments):
        if replaced is not None and arguments[0].stem == replaced.id and not late:
            late.append(True)
            pool.add(replaced)  # another process, between the header and the values
        return read(*arguments)

    late = []
    monkeypatch.setattr(pool_module, "read_logits", read_late)
    assert same_array(pool.predictions().logits[0], replaced.logits["val"])
    assert pool.problems == []


def test_pools_travel_to_other_processes(pool):
    again = pickle.loads(pickle.dumps(pool))
    assert again.ids == pool.ids


# --- disks that refuse ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["write_bytes", "replace"])
def test_a_refused_write_is_one_line_and_leaves_nothing(pool, monkeypatch, code, where):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*((Path, "write_bytes") if where == "write_bytes" else (os, "replace")), refuse)
    for write in (lambda: pool.add(new_member(8)), pool.refresh_view, lambda: pool.save_experiment("x")):
        with pytest.raises(PoolError, match=os.strerror(code)) as caught:
            write()
        assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert new_member(8).id not in pool
    assert Pool.open(pool.path).verify() == []
    assert not list(pool.path.rglob(".*"))


def test_a_real_limit_on_file_size(pool):
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pool_helpers import new_member
from lrensemble import LREnsembleError, Pool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
try:
    Pool.open({str(pool.path)!r}).add(new_member(8))
except LREnsembleError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "cannot be written (File too large)" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert new_member(8).id not in pool
    assert not list(pool.path.rglob(".*"))


def test_a_writer_that_dies_leaves_the_old_member(pool):
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pool_helpers import new_member
from lrensemble import Pool
pool = Pool.open({str(pool.path)!r})
os.replace = lambda *_: os._exit(9)  # dies with the temporary file written and not yet renamed
pool.add(new_member(0, seconds=99.0))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 9
    left = list(pool.path.rglob(".*.tmp"))
    assert len(left) == 1
    again = Pool.open(pool.path)
    assert same_member(again.member(new_member(0).id), new_member(0))
    assert again.verify() == []  # it may belong to a writer that is still at work
    os.utime(left[0], (0, 0))
    assert [problem.file for problem in again.verify()] == [left[0].relative_to(pool.path).as_posix()]


def test_too_many_open_files_is_no_damage(pool):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
        with suppress(OSError):  # until there are too many
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(PoolError, match=r"cannot be read \(Too many open files\)"):
            pool.member(new_member(0).id)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert pool.problems == []
    assert same_member(pool.member(new_member(0).id), new_member(0))


def test_problems_are_told_once_in_one_line(pool, caplog):
    (pool.path / "members" / f"{new_member(0).id}.h5").write_bytes(b"short")
    with caplog.at_level(logging.WARNING, "lrensemble"):
        assert len(pool) == 2
        assert len(pool) == 2
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
    problem = pool.problems[0]
    assert problem == Problem(**problem.to_dict())
    assert problem.file == f"members/{new_member(0).id}.h5"
    assert str(problem).endswith(f"(set aside as damaged/{new_member(0).id}.h5)")


def test_threads_may_add_members_at_once(pool):
    members = [new_member(draw) for draw in range(10, 40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(pool.add, members))
    assert len(pool) == 33
    assert {member.id for member in members} < set(pool.ids)
    assert pool.verify() == []
