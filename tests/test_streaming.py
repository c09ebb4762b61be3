"""Samples that are read while training: the same pools as from memory, nothing held that need not be, honest errors."""

import gc
import random
import subprocess
import sys
import textwrap
import threading
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, StackDataset, Subset, TensorDataset

import lrensemble as lre
from lrensemble.data import Split, Splits, StreamedSplit, load_data, streams
from lrensemble.data.files import ImageFiles
from lrensemble.data.randomness import seeded
from lrensemble.data.streams import ArrayItems, DatasetItems, is_to_be_streamed, listed_labels
from lrensemble.errors import DataError, InputError, TrainingError
from lrensemble.experiment import Experiment
from lrensemble.training.batches import Stream, check_portable, readers_for, samples_of

CPU = torch.device("cpu")
QUIET = {"policies": ["FIX(0.05)"], "epochs": 3, "batch_size": 16, "engine": "loop", "jobs": 1, "progress": False}
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(120, 3, 6, 6)).astype(np.float32)
LABELS = (IMAGES.mean(axis=(1, 2, 3)) > 0).astype(np.int64)


class Items(Dataset):
    """Images and labels, and how often an item was asked for."""

    def __init__(self, x=IMAGES, y=LABELS, change=None):
        self.x, self.y, self.change = x, y, change
        self.asked = np.zeros(len(x), int)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.asked[i] += 1
        sample = torch.from_numpy(self.x[i])
        return sample if self.change is None else self.change(sample), int(self.y[i])


class Listed(Items):
    """The same, with its labels in a list."""

    @property
    def targets(self):
        return self.y.tolist()


def noisy(sample):
    """Draw from all three global generators."""
    return sample + torch.randn(sample.shape) + random.gauss(0, 0.1) + np.random.normal(0, 0.1)


def parts_of(kind, **options):
    """Three Datasets: training, validation and test."""
    return tuple(kind(IMAGES[rows], LABELS[rows], **options) for rows in (slice(0, 60), slice(60, 90), slice(90, 120)))


def assert_same_outputs(a, b):
    """Members of two pools agree bit for bit, names and seconds apart."""
    assert len(a) == len(b) > 0
    for one, two in zip(map(a.member, a.ids), map(b.member, b.ids), strict=True):
        assert one.status == two.status == "done"
        for split in ("val", "test"):
            assert one.logits[split].tobytes() == two.logits[split].tobytes()
        for curve in set(one.history) - {"seconds"}:
            np.testing.assert_array_equal(one.history[curve], two.history[curve], err_msg=curve)
        left, right = a.weights(one.id), b.weights(two.id)
        assert left.keys() == right.keys()
        assert all(left[key].tobytes() == right[key].tobytes() for key in left)


# --- the same, read at another time ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp(hidden=8, dropout=0.3)", "resnet(depth=8, width=4)"])
def test_pools_from_streamed_and_resident_data_agree_bit_for_bit(tmp_path, model):
    def pool(name, data, **more):
        return lre.train_pool(data, path=tmp_path / name, model=model, **{**QUIET, **more})

    more = {"augment": "crop+flip", "snapshots": ("swa", "last:2")}  # swa reads training samples once more
    resident = pool("resident", (IMAGES, LABELS), stream=False, **more)
    streamed = pool("streamed", (IMAGES, LABELS), stream=True, **more)
    items = pool("items", Listed(), stream=True, **more)
    readers = pool("readers", Items(), stream=True, readers=1, **more)
    assert len(resident) > 1
    assert resident.ids == streamed.ids  # one fingerprint: members of one can go on in a pool of the other
    for other in (streamed, items, readers):
        assert_same_outputs(resident, other)


@given(
    n=st.integers(40, 90),
    shape=st.sampled_from([(3,), (5, 4), (3, 4, 5), (6, 5, 3)]),
    dtype=st.sampled_from(["u1", "f4", "f8", "i2", "?"]),
    sizes=st.sampled_from([{}, {"train_size": 6}, {"train_size": 0.5, "test_size": 4}]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_arrays_are_the_same_whenever_they_are_read(n, shape, dtype, sizes, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 200, (n, *shape)).astype(dtype)
    y = np.arange(n) % 2
    resident, streamed = (load_data((x, y), stream=stream, split_seed=seed, **sizes) for stream in (False, True))
    assert resident.resident
    assert not streamed.resident
    assert resident.fingerprint == streamed.fingerprint
    assert resident.input_shape == streamed.input_shape
    for part in ("train", "val", "test"):
        one, two = getattr(resident, part), getattr(streamed, part)
        assert len(one) == len(two)
        assert one.shape == two.shape
        np.testing.assert_array_equal(one.y, two.y)
        np.testing.assert_array_equal(one.x, two.read_all())
        some = rng.integers(0, len(one), 5)
        np.testing.assert_array_equal(one.x[some], two.read(some))
        np.testing.assert_array_equal(one.x[some], two.subset(some).read(slice(None)))


def test_a_stream_answers_as_a_tensor_does():
    split = StreamedSplit(ArrayItems(IMAGES), LABELS)
    stream, whole = samples_of(split, CPU).x, torch.from_numpy(IMAGES)
    rows = torch.tensor([7, 3, 3, 119])
    assert isinstance(stream, Stream)
    assert len(stream) == len(whole)
    assert (stream.device, stream.shape) == (whole.device, whole.shape)
    assert torch.equal(stream.index_select(0, rows), whole.index_select(0, rows))
    assert torch.equal(torch.cat(list(stream.split(50))), whole)
    assert torch.equal(torch.cat(list(stream[rows].split(50))), whole[rows])
    assert torch.equal(torch.cat(list(stream.epoch(rows.split(2), draw=1))), whole[rows])


def test_reading_leaves_global_random_numbers_alone():
    stream = samples_of(StreamedSplit(DatasetItems.of(Items(change=noisy), "train"), LABELS), CPU).x
    states = [(torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())]
    list(stream.epoch(torch.arange(120).split(30), draw=3))
    states.append((torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()))
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert (states[0][2] == states[1][2]).all()


# --- nothing is held that need not be -------------------------------------------------------------------------------


def test_a_dataset_is_not_read_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("lrensemble.data.prepare.MEASURED", 8)
    monkeypatch.setattr(streams, "FINGERPRINTED", 4)
    parts = parts_of(Listed)
    splits = load_data(parts, stream=True)
    seen = [(part.asked > 0).sum() for part in parts]
    assert 8 <= seen[0] <= 8 + 4  # the ends are in both excerpts
    assert seen[1:] == [4, 4]
    for part in parts:
        part.asked[:] = 0
    lre.train_pool(splits, path=tmp_path / "pool", **QUIET)
    train, val, test = parts
    assert (train.asked == 3).all()  # once an epoch
    assert (val.asked == 3 + 1).all()  # after every epoch, and for the pool
    assert (test.asked == 1).all()


def test_labels_that_are_not_listed_are_read_once():
    dataset = Items()
    DatasetItems.of(dataset, "train")
    assert (dataset.asked[1:] == 1).all()


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Listed(), LABELS),
        (Subset(Listed(), [5, 4, 9]), LABELS[[5, 4, 9]]),
        (Subset(Subset(Listed(), range(50)), [49, 0]), LABELS[[49, 0]]),
        (ConcatDataset([Listed(), Subset(Listed(), [2])]), [*LABELS, LABELS[2]]),
        (TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS)), LABELS),
        (ConcatDataset([Listed(), Items()]), None),
        (Items(), None),
        (StackDataset(IMAGES, LABELS), None),
    ],
)
def test_labels_that_a_dataset_lists(dataset, expected):
    found = listed_labels(dataset)
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)


def test_listed_labels_of_torchvision():
    from torchvision.datasets import FakeData, VisionDataset

    class Old(VisionDataset):
        samples = (("a.png", 0), ("b.png", 1))

        def __len__(self):
            return 2

    np.testing.assert_array_equal(listed_labels(Old("")), [0, 1])
    np.testing.assert_array_equal(listed_labels(Old("", target_transform=lambda label: label + 5)), [5, 6])
    assert listed_labels(FakeData(3)) is None
    splits = load_data(FakeData(40, (3, 8, 8), 2), stream=True)
    assert splits.input_shape == (3, 8, 8)


def test_size_decides_when_nothing_is_asked(monkeypatch):
    assert load_data(Listed()).resident
    monkeypatch.setattr(streams, "free_bytes", lambda: 3 * 4 * IMAGES.size - 1)
    assert not load_data(Listed()).resident
    assert not load_data((IMAGES, LABELS)).resident
    assert load_data((IMAGES, LABELS), stream=False).resident
    monkeypatch.setattr(streams, "free_bytes", lambda: 3 * 4 * IMAGES.size)
    assert load_data(Listed()).resident
    assert load_data((IMAGES, LABELS)).resident
    assert is_to_be_streamed(10**9, None)
    with pytest.raises(DataError, match="stream as True, False or None, got 'yes'"):
        load_data("digits", stream="yes")


LIMITED = """
    import resource, sys
    import numpy as np
    import lrensemble as lre
    from lrensemble.memory import free_bytes
    import torch, lrensemble.training.trainer, lrensemble.training.executor

    x = np.load("x.npy", mmap_mode="r")
    y = np.arange(len(x)) % 2
    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + 150_000_000,) * 2)
    assert x.nbytes > free_bytes()
    try:
        np.array(x)
    except MemoryError:
        print("too large")
    sizes = {"train_size": 8_000, "val_size": 500, "test_size": 500}
    splits = lre.load_data((x, y), **sizes, stream=None)
    assert not splits.resident
    pool = lre.train_pool(splits, model="mlp(hidden=4)", policies=["FIX(0.01)"], epochs=1, batch_size=500,
                          path="pool", progress=False, jobs=1, engine="loop")
    print(pool.summaries()[0].status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are told by Linux")
def test_a_mapped_file_larger_than_memory(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (20_000, 2048))
    x[::2, 0] = 1
    x.flush()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == ["too large", "done"], done.stderr


def test_a_mapped_split_of_float32_stays_mapped(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    split = Split(mapped, LABELS)
    assert np.shares_memory(split.x, mapped)
    assert Splits("mine", split, split, split, ("a", "b")).resident
    broken = IMAGES.copy()
    broken[-1, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="expected finite values in x"):
        Split(broken, LABELS)


# --- random transforms ----------------------------------------------------------------------------------------------


def test_random_transforms_draw_anew_every_epoch_and_alike_every_time(tmp_path):
    parts = (*parts_of(Listed, change=noisy)[:1], *parts_of(Listed)[1:])
    once, again, readers = (
        lre.train_pool(parts, path=tmp_path / name, stream=True, **{**QUIET, "readers": n})
        for name, n in [("once", 0), ("again", 0), ("readers", 1)]
    )
    assert_same_outputs(once, again)
    assert_same_outputs(once, readers)


def test_draws_differ_between_epochs_and_batches():
    noise = Items(np.zeros_like(IMAGES), change=noisy)  # so that samples are what was drawn
    stream = samples_of(StreamedSplit(DatasetItems.of(noise, "train"), LABELS), CPU).x
    first, again, other = (list(stream.epoch(torch.arange(60).split(30), draw)) for draw in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(*first)


def test_random_transforms_of_materialised_datasets_draw_alike():
    one, two = (load_data(Items(change=noisy), stream=False) for _ in range(2))
    assert one.fingerprint == two.fingerprint


def test_seeded_is_restored_after_an_error():
    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(ZeroDivisionError), seeded(3):
        _ = torch.rand(1) + random.random() / 0
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


# --- interruption, processes, command line --------------------------------------------------------------------------


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 2])
def test_resume_midway(tmp_path, epoch):
    def stop(event):
        if event.kind == "epoch" and event.epoch == epoch:
            raise StopHereError

    data = parts_of(Listed, change=noisy)
    options = {**QUIET, "stream": True, "checkpoint_seconds": 0, "model": "mlp(dropout=0.5)"}
    whole = lre.train_pool(data, path=tmp_path / "whole", **options)
    with pytest.raises(StopHereError):
        lre.train_pool(data, path=tmp_path / "cut", **{**options, "progress": stop})
    seen = []
    resumed = lre.train_pool(data, path=tmp_path / "cut", **{**options, "progress": seen.append})
    assert [event.epoch for event in seen if event.kind == "epoch"] == list(range(epoch + 1, 4))
    assert_same_outputs(whole, resumed)


def test_jobs_change_nothing(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for name, data in [("items", Listed(change=noisy)), ("mapped", (mapped, LABELS))]:
        alone, two = (
            lre.train_pool(data, path=tmp_path / f"{name}{jobs}", stream=True, seeds=2, **{**QUIET, "jobs": jobs})
            for jobs in (1, 2)
        )
        assert_same_outputs(alone, two)


def test_an_unpicklable_dataset_is_refused_for_several_jobs(tmp_path):
    dataset = Listed()
    dataset.lock = threading.Lock()
    options = {"path": tmp_path / "pool", "stream": True, "seeds": 2}
    with pytest.raises(InputError, match=r"a train Dataset that can be sent .* train with jobs=1"):
        lre.train_pool(dataset, **options, **{**QUIET, "jobs": 2})
    assert len(lre.train_pool(dataset, **options, **QUIET)) == 2


def test_checking_a_dataset_copies_no_array(tmp_path, monkeypatch):
    dataset = Listed(np.broadcast_to(np.float32(1), (120, 3, 6, 6)).copy())
    written = []
    monkeypatch.setattr(
        "lrensemble.training.batches._Nowhere.write", lambda self, content: written.append(len(content)) or written[-1]
    )
    check_portable(load_data(dataset, stream=True))
    assert sum(written) < dataset.x.nbytes


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", ["done", "broken", "stopped"])
def test_processes_that_read_end_with_the_training(tmp_path, how):
    def stop(event):
        if event.kind == "epoch":
            assert set(active_children()) - before
            if how == "stopped":
                raise StopHereError

    before = set(active_children())  # of joblib, from other tests
    dataset = Broken(fail)
    splits = load_data(dataset, stream=True)
    dataset.on = how == "broken"
    error = None
    try:
        lre.train_pool(splits, path=tmp_path / "pool", **{**QUIET, "readers": 1, "progress": stop})
    except (TrainingError, StopHereError) as caught:
        error = caught  # which holds the frames that it passed
    assert (error is None) == (how == "done")
    assert set(active_children()) <= before


def test_readers(tmp_path):
    assert readers_for("cpu", 1) == 0
    assert readers_for("cuda", 10**6) == 0
    assert 0 <= readers_for("cuda:1", 1) <= 8
    for wrong in (-1, 1.5, True):
        with pytest.raises(InputError, match="readers: expected a whole number ≥ 0"):
            lre.train_pool(Listed(), path=tmp_path / "pool", readers=wrong)


def test_stacks_leave_streamed_data_to_the_loop(tmp_path):
    notes = []
    pool = lre.train_pool(
        Listed(), path=tmp_path / "pool", stream=True, seeds=2, **{**QUIET, "engine": "auto", "progress": notes.append}
    )
    assert len(pool) == 2
    assert any("read when they are needed" in note.text for note in notes if note.kind == "note")


def test_command_line(tmp_path, command, monkeypatch):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
        import numpy as np
        from torch.utils.data import Dataset

        class Mine(Dataset):
            classes = ("even", "odd")

            def __init__(self, n):
                self.targets = np.arange(n) % 2

            def __len__(self):
                return len(self.targets)

            def __getitem__(self, i):
                return np.full(4, i % 7, np.float32), self.targets[i]

        def load(n=60):
            return Mine(n), Mine(20), Mine(20)
        """)
    )
    flags = ["--epochs", "3", "--batch-size", "16", "--policies", "FIX(0.05)", "--engine", "loop", "--jobs", "1"]
    command("train", "flag", "--data", "mine:load(n=50)", "--stream", "--readers", "0", *flags, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    flag = lre.Pool.open("flag")
    memory = lre.train_pool("mine:load(n=50)", path="memory", stream=False, **QUIET)
    assert flag.ids != memory.ids  # a streamed Dataset has a fingerprint of its own
    assert_same_outputs(flag, memory)
    assert flag.class_names == ("even", "odd")


def test_experiment_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[data]\nstream = true\n[compute]\nreaders = 0\n")
    experiment = Experiment.load(path)
    assert (experiment.data.stream, experiment.compute.readers) == (True, 0)
    assert Experiment().data.stream is Experiment().compute.readers is None
    path.write_text('[data]\nstream = "yes"\n')
    with pytest.raises(InputError, match=r"line 2: data\.stream: expected true or false, got 'yes'"):
        Experiment.load(path)


# --- folders of images ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    def make(name="photos", modes=("RGB",), size=(7, 5), n=12):
        rng = np.random.default_rng(3)
        for label in ("cat", "dog"):
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(n):
                image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
                image.convert(modes[i % len(modes)]).save(tmp_path / name / label / f"{i}.png")
        return tmp_path / name

    return make


@pytest.mark.parametrize("modes", [("RGB",), ("L",), ("L", "RGB"), ("RGBA", "P", "1")])
@pytest.mark.parametrize("resize", [None, 4])
def test_streamed_folders_have_the_images_of_resident_ones(folder, modes, resize):
    path = folder(modes=modes)
    resident, streamed = (load_data(path, stream=stream, resize=resize) for stream in (False, True))
    assert (resident.resident, streamed.resident) == (True, False)
    assert resident.input_shape == streamed.input_shape
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(resident, part).x, getattr(streamed, part).read_all())
        np.testing.assert_array_equal(getattr(resident, part).y, getattr(streamed, part).y)


def test_a_streamed_folder_is_decoded_when_needed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("lrensemble.data.prepare.MEASURED", 2)
    path = folder(n=30)
    decoded = []
    whole = ImageFiles.__getitem__
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, i: decoded.append(i) or whole(self, i))
    splits = load_data(path, stream=True)
    assert len(set(decoded)) <= 3  # the first and those that are measured; names and lengths make the fingerprint
    pool = lre.train_pool(splits, path=tmp_path / "pool", **QUIET)
    assert pool.member(pool.ids[0]).status == "done"
    assert len(set(decoded)) == 60


def test_fingerprints_of_streamed_folders(folder):
    path, same = folder("one"), folder("two")
    first = load_data(path, stream=True).fingerprint
    assert first == load_data(same, stream=True).fingerprint
    (same / "cat" / "0.png").rename(same / "cat" / "other.png")
    assert first != load_data(same, stream=True).fingerprint


def test_streamed_folders_that_cannot_be_used(folder):
    path = folder()
    Image.new("RGB", (9, 9)).save(path / "dog" / "3.png")
    with pytest.raises(DataError, match=r"3\.png: expected 7×5 pixels as in 0\.png, got 9×9"):
        load_data(path, stream=True)
    assert load_data(path, stream=True, resize=4).input_shape == (3, 4, 4)
    (path / "dog" / "3.png").write_text("no image")
    with pytest.raises(DataError, match=r"3\.png: expected an image"):
        load_data(path, stream=True, resize=4)
    Image.new("I;16", (7, 5)).save(path / "dog" / "3.png")
    with pytest.raises(DataError, match=r"3\.png: expected 8-bit images, got mode I;16"):
        load_data(path, stream=True, resize=4)


# --- fingerprints ---------------------------------------------------------------------------------------------------


def test_what_the_fingerprint_of_a_dataset_covers(monkeypatch):
    def fingerprint(x=IMAGES, y=LABELS, **options):
        return load_data(Listed(x, y, **options), stream=True).fingerprint

    other_label, other_value = LABELS.copy(), IMAGES.copy()
    other_label[:2] = other_label[1::-1] if other_label[0] != other_label[1] else 1 - other_label[:2]
    other_value[7] += 1
    found = [fingerprint(), fingerprint(IMAGES[:-1], LABELS[:-1]), fingerprint(y=other_label), fingerprint(other_value)]
    assert len(set(found)) == 4
    assert fingerprint() == found[0]
    assert fingerprint(change=noisy) == fingerprint(change=noisy) != found[0]
    assert load_data(Listed(), stream=True, split_seed=1).fingerprint != found[0]


def test_a_dataset_may_bring_its_own_fingerprint():
    def fingerprint(text, x=IMAGES):
        dataset = Listed(x)
        dataset.fingerprint = text
        return load_data(dataset, stream=True).fingerprint

    assert fingerprint("one") == fingerprint("one") != fingerprint("two")
    with pytest.raises(DataError, match="expected a text as fingerprint of the train Dataset, got int"):
        fingerprint(3)


# --- errors, when they are met --------------------------------------------------------------------------------------


class Broken(Listed):
    """Goes wrong at one item once it is told to."""

    def __init__(self, how, at=77):
        super().__init__()
        self.how, self.at, self.on = how, at, False

    def __getitem__(self, i):
        sample, label = super().__getitem__(i)
        return self.how(sample, label) if self.on and i == self.at else (sample, label)


def fail(sample, label):
    raise OSError("disk gone\nmore")


@pytest.mark.parametrize("readers", [0, 1])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda x, y: (x[:, 1:], y), r"one shape, got \(3, 6, 6\) in sample 0 of train and \(3, 5, 6\) in sample 77"),
        (lambda x, y: (x * np.nan, y), "expected finite values in x, got NaN or infinity in sample 77 of train"),
        (lambda x, y: (x, 9), "expected label . in sample 77 of train as when labels were collected, got 9"),
        (lambda x, y: (x, [y, y]), "expected label . in sample 77 of train"),
        (lambda x, y: x, "expected a Dataset of .sample, label., got 120 items of another form"),
        (fail, "sample 77 of train: reading it raised OSError: disk gone"),
    ],
)
def test_broken_items_are_named_and_nothing_is_lost(tmp_path, how, message, readers):
    dataset = Broken(how)
    splits = load_data(dataset, stream=True)
    options = {"path": tmp_path / "pool", "checkpoint_seconds": 0, **QUIET, "readers": readers}
    first = lre.train_pool(splits, **options)
    dataset.on = True
    with pytest.raises(TrainingError, match=message) as caught:
        lre.train_pool(splits, **options, seeds=2)
    assert "\n" not in str(caught.value)
    assert len(lre.Pool.open(tmp_path / "pool")) == len(first) == 1
    dataset.on = False
    assert len(lre.train_pool(splits, **options, seeds=2)) == 2


def test_labels_that_are_not_those_of_the_items_are_refused():
    class Wrong(Items):
        targets = (1 - LABELS).tolist()

    with pytest.raises(DataError, match="labels must not change, nor differ from what the Dataset lists"):
        load_data(Wrong(), stream=True)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Listed(IMAGES[:0], LABELS[:0]), "got 0 items"),
        (Listed(IMAGES, np.arange(120) / 7), "labels, got fractions"),
        (Listed(IMAGES, np.zeros(120, int)), "two classes or more, got 1"),
        ((*parts_of(Listed)[:2], Listed(IMAGES[:5, :2], LABELS[:5])), r"test samples of shape \(3, 6, 6\)"),
        ((*parts_of(Listed)[:2], Listed(IMAGES[:5], LABELS[:5] + 7)), "expected test labels among the 2 classes"),
        (Listed(IMAGES * np.float32(np.nan)), "values that are too large"),
        (StackDataset(np.arange(4.0), [0, 1, 0, 1]), r"samples of numbers, of shape .* got float64 of shape \(\)"),
        (StackDataset(["a", "b"], [0, 1]), "samples of numbers, .* got <U1"),
        (StackDataset(IMAGES), "Dataset of \\(sample, label\\), got 120 items of another form"),
    ],
)
def test_datasets_that_cannot_be_learned_from(dataset, message):
    with pytest.raises(DataError, match=message):
        load_data(dataset, stream=True)


def test_iterable_datasets_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield IMAGES[0], 0

    with pytest.raises(DataError, match="map-style Dataset, with a length and items by number, got Stream"):
        load_data(Stream())


def test_half_precision_samples():
    halves = [
        load_data(StackDataset(torch.from_numpy(IMAGES).to(dtype), LABELS), stream=True)
        for dtype in (torch.bfloat16, torch.float16)
    ]
    np.testing.assert_allclose(*(splits.test.read_all() for splits in halves), atol=0.05)


def test_class_names_of_a_subset():
    whole = Listed()
    whole.classes = ["dark", "bright"]
    assert load_data(Subset(whole, range(100)), stream=True).class_names == ("dark", "bright")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_streams_reach_a_gpu(tmp_path):
    resident, streamed = (
        lre.train_pool(Listed(), path=tmp_path / str(stream), stream=stream, device="cuda", **QUIET)
        for stream in (False, True)
    )
    one, two = (pool.predictions("test").logits for pool in (resident, streamed))
    np.testing.assert_allclose(one, two, atol=1e-3)
