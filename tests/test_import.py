"""Predictions of networks trained anywhere become a pool: every kind of file, every way to get it wrong."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from pool_helpers import same_array

from lrensemble import Pool, import_arrays
from lrensemble.errors import InputError, LREnsembleError, PoolError
from lrensemble.pool import load_array

M, C = 3, 4
RNG = np.random.default_rng(0)
LOGITS = {"val": RNG.normal(size=(M, 6, C)).astype("f4"), "test": RNG.normal(size=(M, 5, C)).astype("f4")}
LABELS = {"val": RNG.integers(0, C, 6), "test": RNG.integers(0, C, 5)}


def inputs(**changes):
    values = {f"{split}_logits": LOGITS[split] for split in LOGITS} | {f"{s}_labels": LABELS[s] for s in LABELS}
    return {**values, **changes}


def check(pool, ids, logits=LOGITS):
    assert pool.verify() == []
    for split in LOGITS:
        got = pool.predictions(split)
        assert sorted(got.ids) == sorted(ids)
        assert same_array(got.take(ids).logits, logits[split])
        assert got.labels.tolist() == LABELS[split].tolist()


def refused(tmp_path, message, error=InputError, **changes):
    """The import fails with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        import_arrays(tmp_path / "new", **inputs(**changes))
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


# --- what can be imported ---------------------------------------------------------------------------------------------


def test_arrays(tmp_path):
    before = {split: values.copy() for split, values in LOGITS.items()}
    pool = import_arrays(tmp_path / "deep" / "pool", **inputs())
    check(pool, ["m0", "m1", "m2"])
    assert (pool.name, pool.class_names) == ("imported", ("0", "1", "2", "3"))
    assert all(same_array(before[split], LOGITS[split]) and LOGITS[split].flags.writeable for split in LOGITS)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["pool"]
    assert pool.path.stat().st_mode & 0o777 == 0o777 & ~_umask()
    summary = pool.summaries()[0]
    assert summary.val_accuracy == (LOGITS["val"][0].argmax(axis=1) == LABELS["val"]).mean()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_fingerprint_is_of_the_content(tmp_path):
    prints = [
        import_arrays(tmp_path / "a", **inputs()).fingerprint,
        import_arrays(tmp_path / "b", **inputs()).fingerprint,
    ]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 64
    changed = LOGITS["test"].copy()
    changed[0, 0, 0] += 1
    assert import_arrays(tmp_path / "c", **inputs(test_logits=changed)).fingerprint != prints[0]
    assert import_arrays(tmp_path / "d", **inputs(test_labels=(LABELS["test"] + 1) % C)).fingerprint != prints[0]


def test_names_and_classes(tmp_path):
    pool = import_arrays(tmp_path / "pool", **inputs(), names=["z", "a", "k"], class_names="wxyz", name="mine")
    check(pool, ["z", "a", "k"])
    assert (pool.name, pool.class_names) == ("mine", ("w", "x", "y", "z"))


def test_one_file_for_all_members(tmp_path):
    np.save(tmp_path / "v.npy", LOGITS["val"])
    np.savez_compressed(tmp_path / "t.npz", LOGITS["test"])
    check(
        import_arrays(tmp_path / "pool", **inputs(val_logits=tmp_path / "v.npy", test_logits=str(tmp_path / "t.npz"))),
        ["m0", "m1", "m2"],
    )


def _save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, outputs=array)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(array), path)
    else:
        np.savetxt(path, array, delimiter={".csv": ",", ".tsv": "\t", ".txt": " "}[path.suffix], fmt="%.9g")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".csv", ".tsv", ".txt"])
def test_one_file_a_member(tmp_path, suffix):
    names = ["resnet", "vit", "mlp"]
    files = {split: [tmp_path / split / f"{name}_{split}{suffix}" for name in names] for split in LOGITS}
    for split in LOGITS:
        (tmp_path / split).mkdir()
        for file, array in zip(files[split], LOGITS[split], strict=True):
            _save(file, array)
    for split in LABELS:
        _save(tmp_path / f"labels_{split}.csv", LABELS[split])
    labels = {f"{split}_labels": str(tmp_path / f"labels_{split}.csv") for split in LABELS}
    as_list = inputs(**labels, **{f"{split}_logits": files[split] for split in files})
    check(import_arrays(tmp_path / "a", **as_list), names)
    as_text = inputs(**labels, **{f"{split}_logits": ", ".join(map(str, files[split])) for split in files})
    check(import_arrays(tmp_path / "b", **as_text), names)
    as_folder = inputs(**labels, **{f"{split}_logits": tmp_path / split for split in files})
    check(import_arrays(tmp_path / "c", **as_folder), names)


def test_members_by_name_are_matched_by_name(tmp_path):
    val = {"a": LOGITS["val"][0], "b": LOGITS["val"][1], "c": LOGITS["val"][2]}
    test = {"c": LOGITS["test"][2], "a": LOGITS["test"][0], "b": LOGITS["test"][1]}
    check(import_arrays(tmp_path / "pool", **inputs(val_logits=val, test_logits=test)), ["a", "b", "c"])
    np.savez(tmp_path / "val.npz", **val)
    torch.save({key: torch.from_numpy(value) for key, value in test.items()}, tmp_path / "test.pt")
    files = inputs(val_logits=tmp_path / "val.npz", test_logits=tmp_path / "test.pt")
    check(import_arrays(tmp_path / "again", **files), ["a", "b", "c"])


def test_lists_of_arrays_and_single_members(tmp_path):
    check(
        import_arrays(tmp_path / "a", **inputs(val_logits=list(LOGITS["val"]), test_logits=LOGITS["test"].tolist())),
        ["m0", "m1", "m2"],
    )
    one = inputs(val_logits=LOGITS["val"][1], test_logits=LOGITS["test"][1])
    assert same_array(import_arrays(tmp_path / "b", **one).predictions().logits[0], LOGITS["val"][1])


def test_probabilities_become_log_probabilities(tmp_path):
    p = {split: torch.softmax(torch.from_numpy(values), dim=-1).numpy() for split, values in LOGITS.items()}
    p["val"][0, 0] = [1, 0, 0, 0]
    pool = import_arrays(tmp_path / "pool", **inputs(val_logits=p["val"], test_logits=p["test"]), probabilities=True)
    expected = np.log(np.maximum(p["val"], np.finfo(np.float32).tiny))
    assert same_array(pool.predictions("val").logits, expected)
    np.testing.assert_allclose(pool.predictions("val").probabilities, p["val"], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label\n1\n0\n2\n", [1, 0, 2]),
        ("1\n0\n2", [1, 0, 2]),
        ("\ufeff1\r\n0\r\n\r\n2\r\n", [1, 0, 2]),
        ("cat,dog\n0.5,1e-3\n-1,2\n", [[0.5, 1e-3], [-1, 2]]),
        ("0.5;2\n1;3\n", [[0.5, 2], [1, 3]]),
        ('"a b","c"\n1,2\n', [[1, 2]]),
        ("7\n", [7]),
    ],
)
def test_tables(tmp_path, text, expected):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    assert load_array(tmp_path / "t.csv").tolist() == expected


def test_half_precision_and_gradients(tmp_path):
    torch.save(torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True), tmp_path / "t.pt")
    assert load_array(tmp_path / "t.pt").tolist() == [[1, 1], [1, 1]]


def test_big_files_are_mapped_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 3)))
    assert isinstance(load_array(tmp_path / "a.npy"), np.memmap)


# --- what cannot ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_logits": LOGITS["val"][:2]}, "2 in val and 3 in test"),
        ({"val_logits": LOGITS["val"][:, :5]}, r"val outputs of 'm0': expected 6 samples"),
        ({"test_logits": LOGITS["test"][:, :, :3]}, r"test outputs of 'm0': expected shape \(samples, 4\)"),
        ({"val_logits": np.ones((3, 6, 1)), "test_logits": np.ones((3, 5, 1))}, "classes ≥ 2"),
        ({"val_logits": np.ones(6)}, r"\(members, samples, classes\)"),
        ({"val_logits": np.ones((0, 6, 4))}, r"\(members, samples, classes\)"),
        ({"val_logits": []}, r"\(members, samples, classes\)|0 in val"),
        ({"val_logits": {}}, "0 in val"),
        ({"val_logits": np.full((3, 6, 4), np.nan)}, "val outputs of 'm0': expected finite"),
        ({"test_logits": np.full((3, 5, 4), 1e300)}, "test outputs of 'm0': expected finite"),
        ({"val_labels": [0, 1, 2, 3, 4, 0]}, "0…3"),
        ({"val_labels": [0, 1, 2, 3, -1, 0]}, "0…3"),
        ({"val_labels": [0, 1]}, "expected 2 samples as the labels have"),
        ({"val_labels": [0.5] * 6}, "val labels: expected integers"),
        ({"val_labels": [np.nan] * 6}, "val labels: expected integers"),
        ({"val_labels": ["a"] * 6}, "val labels: expected integers"),
        ({"val_labels": np.eye(6)}, "val labels: expected integers"),
        ({"test_labels": []}, "test labels: expected integers"),
        ({"names": ["a", "b"]}, "each of the 3 members, got 2"),
        ({"names": ["a", "b", "a"]}, "'a' 2 times"),
        ({"names": ["a", "b", "A"]}, "'a'"),
        ({"names": ["a", "b", "../c"]}, "member name"),
        ({"class_names": ["a", "b"]}, "expected 4 class names"),
        ({"class_names": ["a", "b", "c", "b"]}, "class names that are unique, got 'b' more than once"),
        ({"class_names": ["a", "b", " ", "c"]}, "class names that are not empty"),
        ({"probabilities": True}, "outputs of 'm0': expected probabilities"),
        ({"probabilities": True}, "these look like logits"),
        ({"probabilities": True, "val_logits": np.full((3, 6, 4), 0.3)}, "sum to 1.*or give them as logits"),
        ({"probabilities": True, "val_logits": np.full((3, 6, 4), np.nan)}, "expected finite probabilities"),
        (
            {
                "val_logits": dict(zip("abc", LOGITS["val"], strict=True)),
                "test_logits": dict(zip("abd", LOGITS["test"], strict=True)),
            },
            "'c' in one only",
        ),
        ({"val_logits": {"a/b": LOGITS["val"][0]}, "test_logits": LOGITS["test"][:1]}, "member name"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changes, message):
    refused(tmp_path, message, **changes)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def _file(folder, name, content):
    path = folder / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    return path


def _npz_that_lies(path):
    """An archive whose header claims 10¹² numbers and that holds none."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})


def _npy_that_lies(path):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", b""),
        ("a.npy", b"text"),
        ("a.npy", _npy_that_lies),
        ("a.npy", lambda p: np.save(p, np.array([{}], dtype=object), allow_pickle=True)),
        ("a.npy", lambda p: np.save(p, np.array(["x"]))),
        ("a.npy", lambda p: np.save(p, np.array([1j]))),
        ("a.npy", pickle.dumps(Bomb())),
        ("a.npz", b"text"),
        ("a.npz", _npz_that_lies),
        ("a.npz", lambda p: np.savez(p)),
        ("a.npz", lambda p: np.savez(p, a=np.array([{}], dtype=object))),
        ("a.npz", lambda p: np.savez(p, a=np.ones(3), b=np.ones(4))),
        ("a.csv", b""),
        ("a.csv", b"\n\n"),
        ("a.csv", b"header only\n"),
        ("a.csv", b"1,2\n3\n"),
        ("a.csv", b"1,2\n3,x\n"),
        ("a.csv", b"1,2\n3,\n"),
        ("a.csv", b"\xff\xfe1\x00"),
        ("a.pt", b"text"),
        ("a.pt", pickle.dumps(Bomb())),
        ("a.pt", lambda p: torch.save(Bomb(), p)),
        ("a.pt", lambda p: torch.save([1, 2], p)),
        ("a.pt", lambda p: torch.save({}, p)),
        ("a.parquet", b""),
        ("folder.csv", lambda p: p.mkdir()),
        ("absent.npy", lambda p: None),
    ],
)
def test_files_that_cannot_be_read(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    path = _file(tmp_path, name, content)
    with pytest.raises(InputError, match=name) as caught:
        load_array(path)
    assert "\n" not in str(caught.value)
    refused(tmp_path, r"a\.|folder|absent", val_labels=path)
    assert not (tmp_path / "exploded").exists()


def test_folders_without_outputs_and_mixed_files(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "found none", val_logits=tmp_path / "empty")
    np.save(tmp_path / "all.npy", LOGITS["val"])
    np.save(tmp_path / "one.npy", LOGITS["val"][0])
    refused(tmp_path, "outputs of one member", val_logits=[tmp_path / "one.npy", tmp_path / "all.npy"])


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.txt").write_text("precious")
    refused(tmp_path, "where nothing is yet", error=PoolError)
    (tmp_path / "new" / "thesis.txt").unlink()
    check(import_arrays(tmp_path / "new", **inputs()), ["m0", "m1", "m2"])  # an empty directory is fine
    refused(tmp_path, "where nothing is yet", error=PoolError)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    writes = []

    def fail_later(self, content):
        writes.append(self)
        if len(writes) == 3:
            raise OSError(28, "No space left on device")
        with self.open("wb") as file:
            file.write(content)

    monkeypatch.setattr("pathlib.Path.write_bytes", fail_later)
    refused(tmp_path, "No space left", error=LREnsembleError)
    assert len(writes) == 3


def test_an_imported_pool_is_like_any_other(tmp_path):
    pool = import_arrays(tmp_path / "pool", **inputs())
    again = Pool.open(tmp_path / "pool")
    assert again.ids == pool.ids
    assert again.member("m1").status == "done"
    assert [m["id"] for m in again.info()["members"]] == ["m0", "m1", "m2"]
