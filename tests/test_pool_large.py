"""Predictions that stay on disk: the same numbers as in memory, for pools that are larger than it."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_helpers import C, N, diverged_member, new_member, new_pool

from lrensemble import Member, Pool, evaluate, select
from lrensemble.errors import DamagedError, InputError, PoolError
from lrensemble.pool import pool as pool_module
from lrensemble.selection import SELECTORS

M = 4
VIEWS = ("logits", "probabilities", "predicted", "correct", "true_class")


@pytest.fixture
def pool(tmp_path):
    pool = new_pool(tmp_path / "pool")
    for draw in range(M):
        pool.add(new_member(draw))
    pool.add(diverged_member())
    return pool


@pytest.fixture
def both(pool):
    return pool.predictions("val", in_memory=True), pool.predictions("val", in_memory=False)


def check_same(one, other):
    """Whether two predictions are equal in everything, bit for bit."""
    assert (one.ids, one.split, one.fingerprint) == (other.ids, other.split, other.fingerprint)
    np.testing.assert_array_equal(one.labels, other.labels, strict=True)
    for j in range(one.n_members):
        np.testing.assert_array_equal(one.member(j), other.member(j), strict=True)
        np.testing.assert_array_equal(one.member_logits(j), other.member_logits(j), strict=True)
    for view in VIEWS:
        np.testing.assert_array_equal(getattr(one, view), getattr(other, view), strict=True)


def test_where_the_numbers_are_kept_does_not_show(both):
    memory, disk = both
    assert memory.in_memory
    assert not disk.in_memory
    check_same(memory, disk)


def test_views_of_a_pool_on_disk_read_one_member_at_a_time(both, monkeypatch):
    _, disk = both

    def refuse(self):
        raise AssertionError("all members were read into memory")

    monkeypatch.setattr(type(disk.outputs), "whole", refuse)
    for view in ("predicted", "correct", "true_class", "probabilities"):
        getattr(disk, view)
    with pytest.raises(AssertionError, match="all members"):
        _ = disk.logits


rows = st.one_of(
    st.lists(st.integers(-N["val"], N["val"] - 1), min_size=1, max_size=30).map(lambda r: np.array(r)),
    st.lists(st.booleans(), min_size=N["val"], max_size=N["val"]).filter(any).map(lambda r: np.array(r)),
    st.tuples(st.integers(0, 5), st.integers(6, 12), st.integers(1, 3)).map(lambda r: slice(*r)),
)


@given(rows, st.permutations(range(M)), st.integers(1, M))
@settings(deadline=None, max_examples=40)
def test_parts_of_parts(tmp_path_factory, samples, order, count):
    path = tmp_path_factory.getbasetemp() / "parts"
    pool = Pool.open(path) if path.exists() else new_pool(path)
    for draw in range(M - len(pool)):
        pool.add(new_member(draw))
    memory, disk = (pool.predictions("val", in_memory=choice) for choice in (True, False))
    for j in range(M):
        np.testing.assert_array_equal(disk.member(j, samples), memory.probabilities[j][samples], strict=True)
    ids = [memory.ids[j] for j in order[:count]]
    parts = [p.take(ids).subset(samples).subset(slice(None, None, -1)) for p in (memory, disk)]
    assert [p.in_memory for p in parts] == [True, False]
    np.testing.assert_array_equal(parts[0].logits, memory.logits[order[:count]][:, samples][:, ::-1], strict=True)
    check_same(*parts)


def test_pickled_predictions_on_disk_are_the_same(both):
    memory, disk = both
    again = pickle.loads(pickle.dumps(disk))
    assert not again.in_memory
    check_same(memory, again)


def test_what_fits_is_read_into_memory(pool, monkeypatch):
    needed = M * N["val"] * C * 4
    for free, in_memory in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(pool_module, "free_bytes", lambda free=free: free)
        assert pool.predictions("val").in_memory == in_memory


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path, monkeypatch):
    labels = np.zeros(300_000, int)
    pool = new_pool(tmp_path / "pool", labels={"val": labels})
    for name in ("a", "b", "c", "d", "e"):
        pool.add(new_member(0, name, logits={"val": np.zeros((len(labels), C))}))
    monkeypatch.setattr("lrensemble.memory.free_bytes", lambda: 17e6)
    with pytest.raises(PoolError, match=r"expected 0\.018 GB of free memory for the logits of all members"):
        pool.predictions("val", in_memory=True)
    disk = pool.predictions("val", in_memory=False)
    assert disk.member(2).shape == (len(labels), C)
    for view in ("logits", "probabilities"):
        with pytest.raises(PoolError, match=f"for the {view} of all members, got 0.017 GB: go through the members one"):
            getattr(disk, view)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()),  # the same content, but who knows
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.rename(path.with_suffix(".old")) and path.symlink_to("/etc/passwd"),
    ],
)
def test_a_file_that_changes_after_it_was_verified_is_noticed(pool, both, change):
    memory, disk = both
    change(pool.path / "members" / f"{disk.ids[1]}.h5")
    with pytest.raises(DamagedError) as caught:
        disk.member(1)
    assert disk.ids[1] in str(caught.value)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(disk.member(0), memory.member(0))


def test_damaged_members_are_left_out_before_anything_is_selected(pool):
    path = pool.path / "members" / f"{new_member(1).id}.h5"
    content = bytearray(path.read_bytes())
    at = content.index(new_member(1).logits["val"].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    disk = Pool.open(pool.path).predictions("val", in_memory=False)
    assert set(disk.ids) == {new_member(draw).id for draw in (0, 2, 3)}
    assert (pool.path / "damaged" / path.name).exists()
    with pytest.raises(InputError, match="unknown member"):
        disk.take([new_member(1).id])


def test_members_of_one_block_and_of_several(tmp_path):
    """Values are verified block by block: of a size that is no multiple of one, too."""
    n = {"val": 300_007, "test": 1}
    rng = np.random.default_rng(0)
    pool = new_pool(tmp_path / "pool", labels={split: rng.integers(0, C, count) for split, count in n.items()})
    logits = {split: rng.normal(size=(count, C)).astype(np.float32) for split, count in n.items()}
    pool.add(new_member(0, logits=logits))
    for split in n:
        for in_memory in (True, False):
            predictions = Pool.open(pool.path).predictions(split, in_memory=in_memory)
            np.testing.assert_array_equal(predictions.logits[0], logits[split], strict=True)


def test_evaluation_and_selection_see_no_difference(tmp_path, monkeypatch):
    pool = new_pool(tmp_path / "pool")
    for draw in range(M):
        pool.add(new_member(draw))
    teams, reports = [], []
    for free in (1e12, 0):
        monkeypatch.setattr(pool_module, "free_bytes", lambda free=free: free)
        teams.append([select(pool, method=method, metric="nll") for method in ("greedy", "top-k", "whole")])
        reports.append(evaluate(pool, teams[-1], bootstrap=100).to_dict())
    assert teams[0] == teams[1]
    rows = [{row["system"]: row for row in report["rows"]} for report in reports]
    assert set(rows[0]) - set(rows[1]) == {"team of 2 (test, oracle)"}  # a search of its own
    assert all(rows[0][name] == row for name, row in rows[1].items())
    assert reports[0]["verdict"] == reports[1]["verdict"]


@pytest.mark.parametrize("method", SELECTORS)
def test_every_method_selects_the_same_from_disk(method, both):
    teams = [select(predictions, method=method, metric="nll") for predictions in both]
    assert teams[0].members == teams[1].members
    np.testing.assert_allclose(teams[0].weights, teams[1].weights, rtol=1e-9)
    assert teams[0].score == pytest.approx(teams[1].score, rel=1e-9)


# --- larger than memory -----------------------------------------------------------------------------------------------

C_LARGE = 20
SIZES = [  # members, samples, bytes of memory beside what is there before: less than a third of the pool
    pytest.param((120, 16_000, 44 << 20), id="154MB"),
    pytest.param((400, 60_000, 600 << 20), id="2GB", marks=pytest.mark.slow),
]
REQUESTS = [("greedy", "nll"), ("greedy", "accuracy"), ("top-k", "nll"), ("best", "accuracy")]

SELECT_UNDER_A_LIMIT = """
import json, resource, sys
import numpy as np
from lrensemble import Pool, Predictions, select

path, room, requests = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
rng = np.random.default_rng(0)
small = Predictions.from_arrays(rng.normal(size=(20, 300, 20)), rng.integers(0, 20, 300))
for method, metric in requests:
    select(small, method=method, metric=metric)  # what has to be imported is imported
np.ones((500, 500)) @ np.ones((500, 500))  # the library of matrix products has its buffer
pool = Pool.open(path)
pool.predictions("val", pool.ids[:8], in_memory=False)  # the threads have their stacks
status = open("/proc/self/status").read()
used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))
print(json.dumps([select(pool, method=method, metric=metric).to_dict() for method, metric in requests]))
assert not pool.predictions("val").in_memory
"""


@pytest.fixture(scope="module", params=SIZES)
def large(request, tmp_path_factory):
    """A pool, the memory to select from it, and what is selected in memory.

    Members agree on most samples; of the others, what each says is kept.
    """
    m, n, room = request.param
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C_LARGE, n)
    easy = 100 * np.eye(C_LARGE, dtype=np.float32)[labels] * rng.exponential(size=(n, 1)).astype(np.float32)
    path = tmp_path_factory.mktemp("large") / "pool"
    pool = new_pool(path, class_names=list(map(str, range(C_LARGE))), labels={"val": labels})
    for j in range(m):
        logits = easy + rng.standard_normal(easy.shape, dtype=np.float32)
        pool.add(Member(f"m{j}", policy="", model="", config={}, seed=j, status="done", logits={"val": logits}))
    memory = pool.predictions("val", in_memory=True)
    yield pool, room, [select(memory, method=method, metric=metric) for method, metric in REQUESTS]
    shutil.rmtree(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are kept by Linux")
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_a_pool_larger_than_memory_is_selected_from(large, kernels):
    pool, room, expected = large
    arguments = [sys.executable, "-c", SELECT_UNDER_A_LIMIT, str(pool.path), str(room), json.dumps(REQUESTS)]
    environment = {**os.environ, "LRENSEMBLE_KERNELS": kernels, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = "1048576"  # what is freed goes back to the system
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    for whole, team in zip(expected, json.loads(done.stdout), strict=True):
        assert (team["members"], team["weights"]) == (list(whole.members), list(whole.weights)), whole.method
        assert team["score"] == pytest.approx(whole.score, rel=1e-12)
