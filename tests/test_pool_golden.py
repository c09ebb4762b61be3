"""Pools of every released format version still open, with the values that were written."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lrensemble import Ensemble, Pool
from lrensemble.errors import PoolError, PoolFormatError

DATA = Path(__file__).parent / "data"
FINISHED, DIVERGED = "FIX-s0-0123456789", "FIX-s1-abcdef0123"


@pytest.fixture
def golden(tmp_path):
    return Path(shutil.copytree(DATA / "pool-v1", tmp_path / "pool"))


def test_version_1_opens(golden):
    pool = Pool.open(golden)
    assert (pool.name, pool.fingerprint, pool.class_names) == ("golden", "f1" * 32, ("cat", "dög", "bird"))
    assert pool.labels("val").tolist() == [0, 1, 2, 1, 0]
    assert pool.labels("test").tolist() == [2, 0, 1, 1]
    assert pool.ids == (FINISHED, DIVERGED)
    assert pool.experiment == 'data = "golden"\n'
    assert pool.ensemble("best") == Ensemble((FINISHED,), (1.0,), fingerprint="f1" * 32)
    assert pool.verify() == []


def test_version_1_members(golden):
    member = Pool.open(golden).member(FINISHED)
    assert member.logits["val"].tolist() == [[-1.5 + 0.75 * i + 0.25 * j for j in range(3)] for i in (4, 3, 2, 1, 0)]
    assert member.logits["test"].tolist() == [[0.25 + 0.75 * i + 0.25 * j for j in range(3)] for i in range(4)]
    assert {name: values.tolist() for name, values in member.history.items()} == {
        "step": [10, 20],
        "train_loss": [1.5, 0.75],
        "val_loss": [1.25, 1.0],
        "val_accuracy": [np.float32(0.4), np.float32(0.6)],
        "step_lr": [0.1] * 20,
    }
    assert member.config == {"batch_size": 32, "momentum": 0.9, "optimizer": "sgd", "amp": False, "clip": None}
    assert (member.policy, member.asked, member.model) == ("FIX(0.1)", "FIX(k0=0.1)", "mlp(hidden=8)")
    assert (member.seed, member.status, member.seconds, member.parameters, member.flops) == (0, "done", 1.5, 123, 456)
    assert member.extra == {"note": "kept"}
    assert Pool.open(golden).weights(FINISHED)["layer.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    lost = Pool.open(golden).member(DIVERGED)
    assert (lost.status, lost.logits, lost.history["train_loss"].tolist()) == ("diverged", {}, [np.inf])


def test_version_1_summaries(golden):
    finished, lost = Pool.open(golden).summaries()
    assert finished.val_accuracy == 0.2  # every row is largest in class 2
    assert finished.val_nll == pytest.approx(
        np.log(1 + np.exp(-0.25) + np.exp(-0.5)) + (0.5 + 0.25 + 0 + 0.25 + 0.5) / 5
    )
    assert (finished.epochs, finished.steps, finished.best_val_loss) == (2, 20, 1.0)
    assert (lost.epochs, lost.val_accuracy) == (1, None)


def test_version_1_read_by_plain_h5py(golden):
    with h5py.File(golden / "pool.h5", "r") as file:
        assert file["logits/val"][0, 0].tolist() == [1.5, 1.75, 2.0]
        assert file.attrs["version"] == 1


def test_the_script_still_writes_the_same_content(golden, tmp_path, monkeypatch):
    scope = {"__name__": "make", "__file__": str(tmp_path / "new" / "make_pool_v1.py")}
    (tmp_path / "new").mkdir()
    exec((DATA / "make_pool_v1.py").read_text(), scope)
    scope["main"]()
    for name in (FINISHED, DIVERGED):
        with (
            h5py.File(golden / "members" / f"{name}.h5") as old,
            h5py.File(tmp_path / "new" / "pool-v1" / "members" / f"{name}.h5") as new,
        ):
            assert {key: bytes(value) for key, value in old.attrs.items()} == {
                k: bytes(v) for k, v in new.attrs.items()
            }


@pytest.mark.parametrize("version", [0, 2, 2**40])
def test_another_version_of_the_pool_is_refused(golden, version):
    with h5py.File(golden / "pool.h5", "r+") as file:
        file.attrs.modify("version", np.int64(version))
    with pytest.raises(
        PoolFormatError, match=rf"pool\.h5: version: expected format version 1, found version {version}"
    ):
        Pool.open(golden)


def test_another_kind_of_file_is_refused(golden):
    shutil.copy(golden / "members" / f"{FINISHED}.h5", golden / "pool.h5")
    with pytest.raises(PoolFormatError, match="expected 'lrensemble-pool', found 'lrensemble-member'"):
        Pool.open(golden)


def test_a_member_of_another_version_stays_where_it_is(golden):
    path = golden / "members" / f"{FINISHED}.h5"
    with h5py.File(path, "r+") as file:
        file.attrs.modify("version", np.int64(2))
    before = path.read_bytes()
    pool = Pool.open(golden)
    assert pool.ids == (DIVERGED,)
    assert [(p.key, p.action) for p in pool.problems] == [("version", "left out")]
    assert [p.file for p in pool.verify()][:1] == [f"members/{FINISHED}.h5"]
    with pytest.raises(PoolFormatError, match="found version 2"):
        pool.member(FINISHED)
    with pytest.raises(PoolError):
        pool.predictions()
    assert path.read_bytes() == before
