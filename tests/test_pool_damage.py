"""Damage and attacks: what was written comes back, or the file is set aside; never other numbers, never a hang."""

import os
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from pool_helpers import FINGERPRINT, C, N, diverged_member, labels, new_member, new_pool, same_array, same_member

from lrensemble import Ensemble, Pool
from lrensemble.errors import DamagedError, InputError, PoolError, PoolFormatError
from lrensemble.pool import format as pool_format
from lrensemble.pool import pool as pool_module

GOOD, BAD = new_member(0), new_member(1)
GOOD_ID, BAD_ID = GOOD.id, BAD.id


@pytest.fixture
def pool(tmp_path):
    pool = new_pool(tmp_path / "pool")
    for member in (GOOD, BAD):
        pool.add(member, weights={"w": np.arange(3.0)})
    return pool


@pytest.fixture
def victim(pool):
    """File of the member that a test damages."""
    return pool.path / "members" / f"{BAD_ID}.h5"


def check_set_aside(pool, victim, key, found=""):
    """The damaged member is moved and recorded, the other one goes on, and training can make it again."""
    again = Pool.open(pool.path)
    again.predictions("val")
    if BAD_ID in again:  # not all damage is in what predictions read
        with pytest.raises(DamagedError):
            again.member(BAD_ID)
    assert again.predictions("val").ids == again.ids == (GOOD_ID,)
    assert not os.path.lexists(victim)
    assert os.path.lexists(pool.path / "damaged" / victim.name)
    [problem] = again.problems
    assert problem.file == f"members/{victim.name}"
    assert key in problem.key
    assert found in problem.found
    assert problem.action == f"set aside as damaged/{victim.name}"
    assert "\n" not in str(problem)
    again.add(BAD)
    assert same_member(Pool.open(pool.path).member(BAD_ID), BAD)


# --- random damage ----------------------------------------------------------------------------------------------------


def check_outcomes(outcomes, name):
    """Both happen; what is read is what was written, and a refusal is one line that names the file."""
    assert outcomes["same"]
    assert all(outcomes["same"])
    assert outcomes["refused"]
    assert all(name in message and "\n" not in message for message in outcomes["refused"])


def test_flipped_bits_never_change_a_number(pool, victim):
    original = victim.read_bytes()
    header = pool_format.read_member_header(victim, pool.path, pool._header)
    rng, outcomes = random.Random(0), {"same": [], "refused": []}
    for position in rng.sample(range(len(original)), 800):
        flipped = bytearray(original)
        flipped[position] ^= 1 << rng.randrange(8)
        victim.write_bytes(flipped)
        try:
            found = pool_format.read_member_header(victim, pool.path, pool._header)
            member = pool_format.read_member(victim, pool.path, pool._header)
        except (DamagedError, PoolFormatError) as error:
            outcomes["refused"].append(str(error))
        else:
            outcomes["same"].append(found == header and same_member(member, BAD))
    check_outcomes(outcomes, victim.name)


def test_flipped_bits_in_the_head_never_change_it(pool):
    head = pool.path / "pool.h5"
    original = head.read_bytes()
    rng, outcomes = random.Random(1), {"same": [], "refused": []}
    for position in rng.sample(range(len(original)), 400):
        flipped = bytearray(original)
        flipped[position] ^= 1 << rng.randrange(8)
        head.write_bytes(flipped)
        try:
            again = Pool.open(pool.path)
        except PoolError as error:
            outcomes["refused"].append(str(error))
        else:
            head_kept = (again.name, again.fingerprint, again.class_names) == ("toy", FINGERPRINT, ("a", "b", "c"))
            labels_kept = all(same_array(again.labels(split), values) for split, values in labels().items())
            outcomes["same"].append(head_kept and labels_kept)
    check_outcomes(outcomes, head.name)


def test_every_bit_of_the_logits_counts(pool, victim):
    with h5py.File(victim) as file:
        start, stop = file["logits/val"].id.get_offset(), BAD.logits["val"].nbytes
    original = victim.read_bytes()
    for position in range(start, start + stop, 7):
        flipped = bytearray(original)
        flipped[position] ^= 1  # the last bit of a fraction, among others: no value becomes impossible
        victim.write_bytes(flipped)
        with pytest.raises(DamagedError, match=r"logits/val: expected checksum"):
            pool_format.read_member(victim, pool.path, pool._header)


def test_truncation_at_any_length(pool, victim):
    original = victim.read_bytes()
    for length in [*range(0, len(original), 97), 1, 8, 9, 47, 48, 49, len(original) - 1]:
        victim.write_bytes(original[:length])
        with pytest.raises(DamagedError):
            pool_format.read_member(victim, pool.path, pool._header)
    check_set_aside(pool, victim, "")


def test_a_truncated_head(pool):
    head = pool.path / "pool.h5"
    original = head.read_bytes()
    for length in [*range(0, len(original), 97), 8, 9, len(original) - 1]:
        head.write_bytes(original[:length])
        with pytest.raises(DamagedError, match=r"pool\.h5") as caught:
            Pool.open(pool.path)
        assert "\n" not in str(caught.value)


def test_garbage_at_the_end_or_in_the_middle(pool, victim):
    original = victim.read_bytes()
    victim.write_bytes(original[:1000] + bytes(500) + original[1500:])
    check_set_aside(pool, victim, "")


# --- wrong content ----------------------------------------------------------------------------------------------------


def rewrite(victim, change):
    """Apply `change` to the open file of a member."""
    with h5py.File(victim, "r+") as file:
        change(file)


def replace_logits(values, **options):
    def change(file):
        del file["logits/val"]
        file.create_dataset("logits/val", data=values, **options)

    return change


def set_text(name, text):
    def change(file):
        del file.attrs[name]
        file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))

    return change


LOGITS = BAD.logits["val"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (replace_logits(LOGITS[:-1]), "logits/val"),
        (replace_logits(LOGITS.T), "logits/val"),
        (replace_logits(LOGITS.ravel()), "logits/val"),
        (replace_logits(LOGITS.astype("f8")), "logits/val"),
        (replace_logits(LOGITS.astype(">f4")), "logits/val"),
        (replace_logits(LOGITS[::-1]), "logits/val"),
        (replace_logits(LOGITS + np.float32(1e-6)), "logits/val"),
        (replace_logits(np.full_like(LOGITS, np.nan)), "logits/val"),
        (replace_logits(LOGITS, compression="gzip"), "logits/val"),
        (replace_logits(LOGITS, chunks=(1, C)), "logits/val"),
        (replace_logits(LOGITS.astype("S4")), "logits/val"),
        (lambda f: f.__delitem__("logits/val"), "logits/val"),
        (lambda f: f.__delitem__("logits"), "logits"),
        (lambda f: (f.__delitem__("logits/val"), f.create_group("logits/val")), "logits/val"),
        (
            lambda f: (f.__delitem__("logits/val"), f["logits"].create_dataset("val", dtype="f4", shape=None)),
            "logits/val",
        ),
        (lambda f: f.__delitem__("history/val_loss"), "history/val_loss"),
        (lambda f: f["history/val_loss"].__setitem__(0, 0.0), "history/val_loss"),
        (lambda f: f.attrs.modify("seconds", 2.0), "checksum"),
        (lambda f: f.attrs.modify("val_accuracy", 1.0), "checksum"),
        (lambda f: f.attrs.__delitem__("val_accuracy"), "checksum"),
        (lambda f: f.attrs.__delitem__("seed"), "seed"),
        (lambda f: f.attrs.__delitem__("checksum"), "checksum"),
        (set_text("policy", "FIX(0.2)"), "checksum"),
        (set_text("status", "diverged"), "checksum"),
        (set_text("seed", "1"), "seed"),
        (lambda f: f.attrs.create("seed", np.zeros(3, "i8")), "seed"),
        (lambda f: f.attrs.create("policy", np.zeros(1000, "i8")), "policy"),
        (lambda f: f.attrs.create("policy", b"\xff\xfe", dtype=h5py.string_dtype("utf-8", 2)), ""),
    ],
)
def test_altered_content_is_set_aside(pool, victim, change, key):
    rewrite(victim, change)
    check_set_aside(pool, victim, key)


def forge(victim, arrays=None, **changes):
    """Write a member file whose checksums fit its content, as someone who knows the format would."""
    from lrensemble.pool import hdf5

    with h5py.File(victim) as file:
        attributes = {
            name: value.decode() if isinstance(value, bytes) else value.item() for name, value in file.attrs.items()
        }
        kept = {f"{g}/{k}": v[()] for g in ("logits", "history") for k, v in file[g].items()}
    kept |= arrays or {}
    attributes["digests"] = pool_format.canonical_json(
        {key: hdf5.array_digest(key, value) for key, value in kept.items()}
    )
    attributes |= changes
    del attributes["checksum"]
    victim.write_bytes(hdf5.encode(attributes, kept))


@pytest.mark.parametrize(
    ("arrays", "changes", "key"),
    [
        ({}, {"fingerprint": "cd" * 32}, "fingerprint"),
        ({}, {"id": "another"}, "id"),
        ({}, {"labels": "{}"}, "labels"),
        ({}, {"status": "great"}, "status"),
        ({}, {"status": "diverged"}, "logits"),
        ({}, {"config": "not JSON"}, "config"),
        ({}, {"config": "[1]"}, "config"),
        ({}, {"config": "[" * 5000}, "config"),
        ({}, {"config": '{"a": [1]}'}, ""),
        ({}, {"seconds": float("nan")}, ""),
        ({}, {"digests": '{"/etc/passwd": ""}'}, "digests"),
        ({}, {"digests": '{"logits/val": 1, "logits/test": 1}'}, "digests"),
        ({"logits/val": np.full((N["val"], C), np.inf, "<f4")}, {}, "logits/val"),
        ({"logits/val": np.zeros((N["val"] + 1, C), "<f4")}, {}, "logits/val"),
        ({"logits/val": np.zeros((N["val"], C), "<f8")}, {}, "logits/val"),
        ({"logits/third": np.zeros((2, C), "<f4")}, {}, "logits"),
        ({"history/loss": np.zeros((2, 2))}, {}, "history/loss"),
        ({"history/loss": np.zeros(2, ">f8")}, {}, "history/loss"),
    ],
)
def test_forged_content_is_set_aside(pool, victim, arrays, changes, key):
    forge(victim, arrays, **changes)
    check_set_aside(pool, victim, key)


def test_a_forgery_without_a_change_is_read(pool, victim):
    forge(victim)
    assert same_member(Pool.open(pool.path).member(BAD_ID), BAD)


def test_members_of_another_pool_do_not_enter(pool, victim, tmp_path):
    other = new_pool(tmp_path / "other", fingerprint="cd" * 32)
    other.add(BAD)
    shutil.copy(other.path / "members" / victim.name, victim)
    check_set_aside(pool, victim, "fingerprint")


def test_members_for_labels_in_another_order_do_not_enter(pool, victim, tmp_path):
    other = new_pool(tmp_path / "other", labels={split: values[::-1] for split, values in labels().items()})
    other.add(BAD)
    shutil.copy(other.path / "members" / victim.name, victim)
    check_set_aside(pool, victim, "labels")


def test_one_uncompressed_chunk_is_as_good_as_one_piece(pool, victim):
    rewrite(victim, replace_logits(LOGITS, chunks=LOGITS.shape))
    assert same_member(Pool.open(pool.path).member(BAD_ID), BAD)


def test_further_content_is_allowed(pool, victim):
    def add(file):
        file.attrs["remark"] = "by someone else"
        file["notes/x"] = np.ones(3)

    rewrite(victim, add)
    assert same_member(Pool.open(pool.path).member(BAD_ID), BAD)


# --- claims of size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["contiguous", "chunked"])
def test_a_claim_of_terabytes_costs_nothing(pool, victim, layout):
    def claim(file):
        del file["history/val_loss"]
        chunks = (2**28,) if layout == "chunked" else None
        file.create_dataset("history/val_loss", shape=(10**12,), dtype="f8", chunks=chunks)

    rewrite(victim, claim)
    check_set_aside(pool, victim, "history/val_loss", "stored bytes in a file of")


def test_a_claim_of_terabytes_in_the_head(pool):
    with h5py.File(pool.path / "pool.h5", "r+") as file:
        del file["labels/val"]
        file.create_dataset("labels/val", shape=(10**12,), dtype="i8")
    with pytest.raises(DamagedError, match="labels/val"):
        Pool.open(pool.path)


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["external", "soft", "external group", "virtual", "raw"])
def test_nothing_outside_the_file_is_read(pool, victim, tmp_path, kind):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["logits/val"] = LOGITS  # the very values: only the way to them is wrong
    (tmp_path / "secret.raw").write_bytes(LOGITS.tobytes())

    def change(file):
        del file["logits/val"]
        if kind == "external":
            file["logits/val"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "logits/val")
        elif kind == "soft":
            file["elsewhere"] = LOGITS
            file["logits/val"] = h5py.SoftLink("/elsewhere")
        elif kind == "external group":
            del file["logits"]
            file["logits"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "logits")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(LOGITS.shape, "<f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "logits/val", LOGITS.shape, "<f4")
            file.create_virtual_dataset("logits/val", layout)
        else:
            external = [(str(tmp_path / "secret.raw"), 0, LOGITS.nbytes)]
            file.create_dataset("logits/val", LOGITS.shape, "<f4", external=external)

    rewrite(victim, change)
    check_set_aside(pool, victim, "logits", "link" if kind in ("external", "soft", "external group") else "storage")


def test_links_of_the_file_system_that_lead_out(pool, victim, tmp_path):
    victim.rename(tmp_path / "outside.h5")
    victim.symlink_to(tmp_path / "outside.h5")
    check_set_aside(pool, victim, "", "leads out")
    assert (tmp_path / "outside.h5").is_file()


def test_links_that_stay_inside_or_lead_nowhere(pool, victim):
    victim.unlink()
    victim.symlink_to(f"{GOOD_ID}.h5")  # a member under another name
    check_set_aside(pool, victim, "id")
    victim.unlink()
    victim.symlink_to("nothing.h5")
    again = Pool.open(pool.path)
    assert again.ids == (GOOD_ID,)
    assert again.problems[0].found == "something else"


def test_folders_that_lead_out(pool, tmp_path):
    (pool.path / "members").rename(tmp_path / "outside")
    (pool.path / "members").symlink_to(tmp_path / "outside")
    with pytest.raises(PoolError, match="leads out of the pool"):
        Pool.open(pool.path)


def test_a_head_ensemble_experiment_or_weights_that_lead_out(pool, tmp_path):
    pool.save_ensemble(Ensemble((GOOD_ID,), (1.0,)), "best")
    pool.save_experiment("x = 1")
    files = ["ensembles/best.json", "experiment.toml", f"weights/{GOOD_ID}.safetensors", "pool.h5"]
    for name in files:
        (pool.path / name).rename(tmp_path / "outside")
        (pool.path / name).symlink_to(tmp_path / "outside")
        reads = (
            lambda: pool.ensemble("best"),
            lambda: pool.experiment,
            lambda: pool.weights(GOOD_ID),
            lambda: Pool.open(pool.path),
        )
        with pytest.raises(PoolError, match="a link that leads out of it"):
            reads[files.index(name)]()
        (pool.path / name).unlink()
        (tmp_path / "outside").rename(pool.path / name)
    assert pool.verify() == []


def test_pipes_and_folders_in_place_of_a_member(pool, victim):
    victim.unlink()
    os.mkfifo(victim)  # opening it would wait for ever
    check_set_aside(pool, victim, "", "something else")
    victim.unlink()
    victim.mkdir()
    assert Pool.open(pool.path).ids == (GOOD_ID,)


def test_a_pool_reached_through_a_link_is_fine(pool, tmp_path):
    (tmp_path / "alias").symlink_to(pool.path)
    assert Pool.open(tmp_path / "alias").verify() == []
    assert Pool.open(os.path.relpath(tmp_path / "alias")).predictions().n_members == 2


def test_strange_names_among_the_members(pool):
    (pool.path / "members" / "a b.h5").write_bytes(b"x")
    (pool.path / "members" / "notes.txt").write_bytes(b"x")
    (pool.path / "members" / ".hidden.h5").write_bytes(b"x")
    again = Pool.open(pool.path)
    assert again.ids == (GOOD_ID, BAD_ID)
    assert [problem.file for problem in again.problems] == ["members/a b.h5"]


# --- what happens to the damaged file ---------------------------------------------------------------------------------


def test_a_second_damaged_file_does_not_replace_the_first(pool, victim):
    for content in (b"first", b"second"):
        victim.write_bytes(content)
        assert len(Pool.open(pool.path)) == 1
    assert {path.read_bytes() for path in (pool.path / "damaged").iterdir()} == {b"first", b"second"}
    assert Pool.open(pool.path).info()["damaged"] == [victim.name, f"{victim.name}.1"]


def test_a_pool_that_cannot_be_written_goes_on_without_the_member(pool, victim, monkeypatch):
    victim.write_bytes(b"short")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    again = Pool.open(pool.path)
    assert again.predictions().ids == (GOOD_ID,)
    assert again.predictions().ids == (GOOD_ID,)
    assert [problem.action for problem in again.problems] == ["left out; it cannot be moved: Read-only file system"]
    assert len(again.verify()) == 1


def test_a_damaged_member_that_was_asked_for_is_an_error(pool, victim):
    rewrite(victim, lambda file: file["logits/val"].__setitem__((0, 0), 0.5))
    again = Pool.open(pool.path)
    assert BAD_ID in again  # its attributes are sound
    with pytest.raises(DamagedError, match=r"logits/val: expected checksum .* \(set aside as damaged/"):
        again.predictions("val", members=[GOOD_ID, BAD_ID])
    assert BAD_ID not in again


def test_a_pool_of_damaged_members_only(pool):
    for path in (pool.path / "members").iterdir():
        rewrite(path, lambda file: file["logits/val"].__setitem__((0, 0), 0.5))
    with pytest.raises(DamagedError, match="all 2 damaged"):
        Pool.open(pool.path).predictions("val")


def test_a_member_that_another_process_moves_away(pool, victim, monkeypatch):
    read = pool_module.read_logits

    def read_late(path, *arguments):
        if path == victim:
            path.unlink(missing_ok=True)
        return read(path, *arguments)

    monkeypatch.setattr(pool_module, "read_logits", read_late)
    assert pool.predictions().ids == (GOOD_ID,)
    assert pool.problems == []


def test_verify_finds_all_kinds_of_damage_at_once(pool, victim):
    pool.add(diverged_member())
    pool.save_ensemble(Ensemble((BAD_ID,), (1.0,)), "lost")
    pool.save_experiment("not = = toml")
    (pool.path / "ensembles" / "broken.json").write_text("{")
    (pool.path / "weights" / f"{GOOD_ID}.safetensors").write_bytes(b"x" * 100)
    rewrite(victim, lambda file: file["history/val_loss"].__setitem__(0, 0.5))
    again = Pool.open(pool.path)
    found = again.verify()
    assert {problem.file for problem in found} == {
        f"members/{victim.name}",
        f"weights/{GOOD_ID}.safetensors",
        "ensembles/broken.json",
        "ensembles/lost.json",
        "experiment.toml",
    }
    assert again.problems == found
    assert again.predictions().ids == (GOOD_ID,)
    assert again.verify() == found[1:]


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 8, b"\x08\0\0\0\0\0\0\0notjson!"])
def test_damaged_weights(pool, content):
    path = pool.path / "weights" / f"{GOOD_ID}.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"weights/{GOOD_ID}"):
        Pool.open(pool.path).weights(GOOD_ID)
    assert same_member(pool.member(GOOD_ID), GOOD)


def test_nothing_is_ever_unpickled(pool, victim):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(pool.path / "exploded"),))

    bomb = pickle.dumps(Bomb())
    victim.write_bytes(bomb)
    (pool.path / "weights" / f"{GOOD_ID}.safetensors").write_bytes(bomb)
    again = Pool.open(pool.path)
    again.verify()
    with pytest.raises((DamagedError, InputError)):
        again.member(BAD_ID)
    assert not (pool.path / "exploded").exists()
