"""Several GPUs of one machine, and workers of a Dask cluster: lost, elsewhere, other than expected.

Scheduler and workers are real processes on this machine, each with a folder of its own; a worker is lost by SIGKILL. A
worker on another file system is one that is told to take the pool's folder for absent.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_training import assert_same_pools
from torch import nn

import lrensemble as lre
from lrensemble.errors import InputError, LREnsembleError, TrainingError
from lrensemble.pool import Pool
from lrensemble.training import cluster, devices, remote
from lrensemble.training.devices import claimed, resolve_devices
from lrensemble.training.task import Setting

CALL = {
    "model": "mlp(hidden=16, dropout=0.1)",
    "policies": ["FIX(0.05)", "COSRSW(k0=0.001, k1=0.1, l=20%)", "FIX(9000)"],
    "seeds": 2,
    "epochs": 40,
    "batch_size": 32,
    "checkpoint_seconds": 0,
    "engine": "loop",
}


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=60, test_size=60)


@pytest.fixture(scope="module")
def local(digits, tmp_path_factory):
    """The pool as one process trains it."""
    return lre.train_pool(digits, path=tmp_path_factory.mktemp("local") / "pool", jobs=1, progress=False, **CALL)


class Workers:
    """A scheduler, and workers that are started and killed by number."""

    def __init__(self, folder):
        self.folder, self.running, self.log = folder, [], (folder / "log").open("w")
        file = folder / "scheduler.json"
        self.scheduler = self.dask("scheduler", "--port", "0", "--scheduler-file", str(file))
        while not (file.exists() and file.read_text().rstrip().endswith("}")):
            assert self.scheduler.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]

    def dask(self, *arguments):
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        # in a session of its own: a Ctrl-C of the tests is none of its business
        return subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.folder, start_new_session=True)

    def start(self, nanny=False):
        folder = self.folder / str(len(self.running))
        options = ["--nthreads", "1", "--local-directory", folder, "--nanny" if nanny else "--no-nanny"]
        self.running.append(self.dask("worker", self.address, *map(str, options)))

    def lose(self, member):
        """Kill the worker that trains a member."""
        with self.client() as client:
            pids = client.run(os.getpid)
            [worker] = [where for where, keys in client.processing().items() if any(member in key for key in keys)]
        os.kill(pids[worker], signal.SIGKILL)

    @contextmanager
    def client(self):
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            yield client

    def hide_pools(self, hide):
        """Let the workers that are there take the file system for one that is not shared, or not any more."""
        with self.client() as client:
            if hide:
                client.run(os.environ.__setitem__, remote.HIDE_VARIABLE, "1")
            else:
                client.run(os.environ.pop, remote.HIDE_VARIABLE, None)

    def close(self):
        for process in [*self.running, self.scheduler]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in [*self.running, self.scheduler]:
            process.wait(30)
        self.log.close()


def start_workers(folder, count, **options):
    pytest.importorskip("distributed", reason="Dask is not installed: the extra `cluster`")
    workers = Workers(folder)
    for _ in range(count):
        workers.start(**options)
    return workers


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Three workers; tests may lose two of them."""
    running = start_workers(tmp_path_factory.mktemp("cluster"), 3)
    try:
        with running.client() as client:
            client.wait_for_workers(3, timeout=120)
        yield running
    finally:
        running.close()


class Watch:
    """Collects events; acts once, when a member has come to its fifth epoch: the act is given its name."""

    def __init__(self, act=None):
        self.events, self.act, self.member = [], act, ""

    def __call__(self, event):
        self.events.append(event)
        if self.act and event.epoch >= 5:
            act, self.act, self.member = self.act, None, event.member
            act(event.member)

    @property
    def notes(self):
        return [event.text for event in self.events if event.kind == "note"]


# --- lost workers -----------------------------------------------------------------------------------------------------


def assert_went_on(watch, count):
    """The member whose worker was lost was resumed, not begun again, and all members were reported."""
    [place] = [i for i, event in enumerate(watch.events) if "was lost" in event.text and watch.member in event.text]
    after = [e.epoch for e in watch.events[place:] if e.kind == "epoch" and e.member == watch.member]
    assert after[0] > 1
    assert after == list(range(after[0], CALL["epochs"] + 1))
    members = [event for event in watch.events if event.kind == "member"]
    assert sorted(event.done for event in members) == list(range(1, count + 1))


@pytest.mark.parametrize("private", [False, True], ids=["shared", "not shared"])
def test_members_of_a_lost_worker_go_on_elsewhere(private, workers, digits, local, tmp_path):
    workers.hide_pools(private)
    watch = Watch(workers.lose)
    pool = lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, progress=watch, **CALL)
    workers.hide_pools(False)
    assert watch.act is None
    assert_same_pools(local, pool)
    assert_went_on(watch, len(local))
    assert pool.problems == pool.verify() == []
    assert not list(tmp_path.glob("pool/resume/[!.]*"))
    assert not list(tmp_path.glob("pool/.cluster*"))


def test_snapshots_folds_and_stacks_come_back_too(workers, digits, tmp_path):
    call = {**CALL, "policies": ["FIX(0.05)", "FIX(0.1)"], "seeds": 1, "epochs": 3, "folds": 2, "snapshots": "last:2"}
    call["engine"] = "stacked"
    expected = lre.train_pool(digits, path=tmp_path / "local", jobs=1, progress=False, **call)
    workers.hide_pools(True)
    found = lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, progress=False, **call)
    workers.hide_pools(False)
    assert len(found) == 6
    assert_same_pools(expected, found)


def test_trainings_that_rest_come_back_too(workers, digits, tmp_path):
    """With halving a training goes on where it rested, on whatever worker; some never do."""
    call = {**CALL, "epochs": 9, "halving": {"least": 1}, "checkpoint_seconds": 1000}
    expected = lre.train_pool(digits, path=tmp_path / "local", jobs=1, progress=False, **call)
    workers.hide_pools(True)
    found = lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, progress=False, **call)
    workers.hide_pools(False)
    assert_same_pools(expected, found)
    rested = [{(record.id, record.epoch) for record in pool.stopped()} for pool in (expected, found)]
    assert rested[0] == rested[1] != set()
    assert {path.name for path in (tmp_path / "pool" / "resume").iterdir()} == {
        path.name for path in (tmp_path / "local" / "resume").iterdir()
    }


# --- errors and interruptions -----------------------------------------------------------------------------------------


def on_a_worker():
    from distributed import get_worker

    try:
        return bool(get_worker())
    except ValueError:
        return False


def failing(input_shape, n_classes):
    if on_a_worker():
        raise ValueError("not on a worker")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))


def deadly(input_shape, n_classes):
    if on_a_worker():
        os.kill(os.getpid(), signal.SIGKILL)
    return failing(input_shape, n_classes)


def test_a_failing_member_is_named(workers, digits, tmp_path):
    """The network is found on the worker in a module that only the import path of this process leads to."""
    call = {**CALL, "model": failing, "policies": "FIX(0.05)", "seeds": 1, "progress": False}
    with pytest.raises(TrainingError, match=r"member 'FIX-s0-\w+': .*not on a worker"):
        lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, **call)


def test_an_error_of_the_callers_function_ends_the_training(workers, digits, tmp_path):
    def refuse(event):
        if event.kind == "epoch":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, progress=refuse, **CALL)
    assert_workers_are_free(workers)


def assert_workers_are_free(workers):
    with workers.client() as client:
        there = len(client.nthreads())
        assert there == sum(worker.poll() is None for worker in workers.running)
        tasks = [client.submit(sum, [i, 1], pure=False) for i in range(there)]
        assert [task.result(timeout=60) for task in tasks] == [i + 1 for i in range(there)]


def command_that_trains(workers, folder, **changes):
    words = {"--policies": "FIX(0.05)", "--seeds": 2, "--epochs": 5000, "--train-size": 200, "--batch-size": 32}
    words |= {"--engine": "loop", "--checkpoint-seconds": 0, "--scheduler": workers.address, **changes}
    line = [str(word) for pair in words.items() for word in pair]
    command = [sys.executable, "-m", "lrensemble", "train", str(folder), "--data", "digits", *line]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(folder.glob("resume/[!.]*.pt")):
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    return running


def test_ctrl_c_keeps_states_and_frees_the_workers(workers, tmp_path):
    running = command_that_trains(workers, tmp_path / "pool")
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("lrensemble: interrupted: what was trained is kept")
    assert "Traceback" not in errors
    assert list(tmp_path.glob("pool/resume/*.pt"))
    assert not list(tmp_path.glob("pool/.cluster*"))
    assert_workers_are_free(workers)


def test_nobody_answers(digits, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: the extra `cluster`")
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(TrainingError, match=r"tcp://127.0.0.1:9: no scheduler answers .*dask scheduler"):
        lre.train_pool(digits, path=tmp_path / "pool", scheduler="tcp://127.0.0.1:9", progress=False, **CALL)
    for address in ("localhost:8786", "", "no://where:1"):
        with pytest.raises(InputError, match=r"scheduler: expected an address such as tcp://host:8786, got '"):
            lre.train_pool(digits, path=tmp_path / "pool", scheduler=address, progress=False, **CALL)


def test_without_dask(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "lrensemble\[cluster\]"'):
        lre.train_pool(digits, path=tmp_path / "pool", scheduler="tcp://127.0.0.1:9", progress=False, **CALL)


def test_no_workers_and_then_no_scheduler(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 1)
    workers, watch = start_workers(tmp_path, 0), Watch()
    try:
        with pytest.raises(TrainingError, match=r"no worker within 1 s: start some, `dask worker"):
            lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, progress=watch, **CALL)
        assert "no workers yet: waiting 1 s" in watch.notes[-1]
    finally:
        workers.close()
    with pytest.raises(TrainingError, match="connection to the scheduler was lost"), cluster._reaching("tcp://x:1"):
        raise ConnectionResetError


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_given_up(digits, tmp_path):
    workers = start_workers(tmp_path, 1, nanny=True)
    try:
        call = {**CALL, "model": deadly, "policies": "FIX(0.05)", "seeds": 1, "progress": False}
        with pytest.raises(TrainingError, match=r"member 'FIX-s0-\w+': several workers were lost while they trained"):
            lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, **call)
    finally:
        workers.close()


@pytest.mark.slow
@pytest.mark.parametrize("private", [False, True], ids=["shared", "not shared"])
def test_the_only_worker_is_lost_with_the_data(private, digits, local, tmp_path):
    workers = start_workers(tmp_path, 1)
    try:
        with workers.client() as client:
            client.wait_for_workers(1, timeout=60)
        workers.hide_pools(private)

        def replace_it(member):
            workers.lose(member)
            workers.start()

        watch = Watch(replace_it)
        pool = lre.train_pool(digits, path=tmp_path / "pool", scheduler=workers.address, progress=watch, **CALL)
        assert_same_pools(local, pool)
        assert_went_on(watch, len(local))
    finally:
        workers.close()


@pytest.mark.slow
@pytest.mark.parametrize("private", [False, True], ids=["shared", "not shared"])
def test_a_killed_parent_frees_the_workers_and_can_be_resumed(private, workers, digits, tmp_path):
    expected = lre.train_pool(digits, path=tmp_path / "local", jobs=1, progress=False, **CALL)
    workers.hide_pools(private)
    changes = {"--epochs": CALL["epochs"], "--val-size": 60, "--test-size": 60, "--model": CALL["model"]}
    running = command_that_trains(workers, tmp_path / "pool", **changes)
    running.kill()
    running.communicate()
    assert_workers_are_free(workers)
    workers.hide_pools(False)
    pool = lre.train_pool(digits, path=tmp_path / "pool", jobs=1, progress=False, **CALL)
    assert_same_pools(expected, pool)


# --- what comes from a worker -----------------------------------------------------------------------------------------


@pytest.fixture
def desk(local, tmp_path):
    """A desk that files into an empty pool what belongs to the first member of the local one."""
    for name in ("pool", "staging"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pool.h5").write_bytes(local.header_bytes())
    setting = Setting(tmp_path / "pool", "cpu", 0, True)
    staging, queue = Pool.open(tmp_path / "staging"), SimpleNamespace(name="queue")
    tasks = [SimpleNamespace(id=done_member(local), snapshots=())]
    return cluster._Desk(SimpleNamespace(address="tcp://x"), queue, tasks, setting, staging, lambda event: None)


def done_member(pool):
    return next(summary.id for summary in pool.summaries() if summary.status == "done")


def sent(pool, name):
    """Return the message in which a worker sends a member."""
    files = {
        "file": (pool.path / "members" / f"{name}.h5").read_bytes(),
        "weights": (pool.path / "weights" / f"{name}.safetensors").read_bytes(),
    }
    return {"name": name, "digests": digests_of(files), **files}


def digests_of(files):
    return {key: hashlib.sha256(content).hexdigest() for key, content in files.items()}


def test_a_member_is_stored_as_it_was(desk, local):
    name = done_member(local)
    desk._on_member(sent(local, name))
    assert_same_pools(local, desk._pool, [name])
    assert not [path for path in desk._staging.path.rglob("*") if path.is_file() and path.name != "pool.h5"]


@pytest.mark.parametrize("part", ["file", "weights"])
@pytest.mark.parametrize("also_digest", [False, True])
def test_a_damaged_member_is_refused(part, also_digest, desk, local):
    message = sent(local, done_member(local))
    content = bytearray(message[part])
    content[len(content) // 2] ^= 1
    message[part] = bytes(content)
    if also_digest:  # by a worker that sends what it has, and has what is damaged
        message["digests"] = digests_of({key: message[key] for key in ("file", "weights")})
    with pytest.raises(LREnsembleError):
        desk._on_member(message)
    assert len(desk._pool) == 0


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "other-s0-0123456789", "", ".hidden", "a/b"])
def test_only_what_was_asked_for_is_written(name, desk, local, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for send in (
        lambda: desk._on_member({**sent(local, done_member(local)), "name": name}),
        lambda: desk._on_state({"name": name, "content": b"state"}),
        lambda: desk._on_state({"name": f"{done_member(local)}/../{name}", "content": b"state"}),
    ):
        with pytest.raises(LREnsembleError):
            send()
    assert sorted(tmp_path.rglob("*")) == before


def test_states_come_and_go(desk, local):
    name = f"{done_member(local)}.pt"
    for content in (b"one", b"two"):
        desk._on_state({"name": name, "content": content})
        assert (desk._pool.path / "resume" / name).read_bytes() == content
    desk._on_state({"name": name, "content": b""})
    assert not (desk._pool.path / "resume" / name).exists()


class Line:
    """Stands for the line to the parent."""

    def __init__(self):
        self.messages = []

    def post(self, message, *, now=False):
        self.messages.append(message)

    def report(self, event):
        self.messages.append({"kind": "event", "event": event})


def test_a_mirror_sends_each_thing_once(tmp_path, local):
    line = Line()
    mirror = remote._Mirror(tmp_path, {"header": local.header_bytes(), "states": {"a.pt": b"old"}}, line)
    mirror._next_states = 0
    event = lre.training.Event("epoch", member="a")
    mirror.report(event)
    assert [message["kind"] for message in line.messages] == ["event"]
    (tmp_path / "resume" / "b.pt").write_bytes(b"new")
    Pool.open(tmp_path).add(local.member(done_member(local)))
    (tmp_path / "resume" / "a.pt").unlink()
    line.messages.clear()
    mirror.report(replace(event, kind="member"))
    mirror.report(replace(event, kind="member"))
    kinds = [message["kind"] for message in line.messages]
    assert kinds == ["member", "state", "state", "event", "event"]
    assert [message["content"] for message in line.messages[1:3]] == [b"", b"new"]


# --- workers that do not fit ------------------------------------------------------------------------------------------


def test_versions_are_compared():
    here, notes = remote.facts(), []
    cluster._check_versions({"a": here}, notes.append)
    assert notes == []
    with pytest.raises(InputError, match=r"worker b has lrensemble 0.0.1, torch .* install the same versions"):
        cluster._check_versions(
            {"b": {**here, "versions": {**here["versions"], "lrensemble": "0.0.1"}}}, lambda event: None
        )
    with pytest.raises(InputError, match=r"worker c cannot be used .*No module named"):
        cluster._check_versions({"c": ModuleNotFoundError("No module named 'lrensemble'")}, lambda event: None)
    others = {**here, "threads": 4, "others": {**here["others"], "NumPy": "1.0"}}
    cluster._check_versions({"a": here, "d": others}, notes.append)
    assert "some workers have NumPy 1.0" in notes[0].text
    assert "--nthreads 1" in notes[1].text


def test_a_worker_that_joins_later_is_examined_too(tmp_path):
    setting = Setting(tmp_path, "cuda", 0, True)
    order = remote.Order(b"", setting, "loop", "queue", ("a", "b"), remote.facts()["versions"], ())
    with pytest.raises(TrainingError, match="a worker has lrensemble"):
        remote.train_remotely(replace(order, versions={"lrensemble": "0.0.1"}), None)
    if remote.facts()["device"] == "cpu":
        with pytest.raises(TrainingError, match="without a GPU"):
            remote.train_remotely(order, None)
    pytest.importorskip("cloudpickle", reason="Dask is not installed: the extra `cluster`")
    with pytest.raises(TrainingError, match="cannot load the tasks"):
        remote.train_remotely(replace(order, setting=replace(setting, device="cpu")), None)


def test_devices_of_workers():
    def workers(*devices):
        return cluster.Cluster("tcp://x", None, {str(i): {"device": device} for i, device in enumerate(devices)})

    assert workers("cpu", "cpu").device("auto") == "cpu"
    assert workers("cuda", "cuda").device("auto") == "cuda"
    mixed = workers("cpu", "cuda", "cuda")
    with pytest.raises(InputError, match="some workers have a GPU and some have none"):
        mixed.device("auto")
    assert (mixed.device("cpu"), mixed.size("cpu"), mixed.suitable("cpu")) == ("cpu", 3, None)
    assert (mixed.device("cuda"), mixed.size("cuda"), mixed.suitable("cuda")) == ("cuda", 2, ["1", "2"])
    with pytest.raises(InputError, match="with a scheduler, got 'cuda:1'"):
        mixed.device("cuda:1")
    with pytest.raises(InputError, match="found none"):
        workers("cpu").device("cuda")
    setting, compute = mixed.suited(Setting(Path(), "cuda", 0, True), {"jobs": None, "stack": None, "engine": "auto"})
    assert (setting.device, compute) == ("cuda", {"jobs": 2, "stack": 32, "engine": "auto", "unit": "worker"})


def test_the_token_decides_whether_the_pool_is_seen(tmp_path):
    order = remote.Order(b"", Setting(tmp_path, "cpu", 0, True), "loop", "queue", ("token", "secret"), {}, ())
    assert not remote._sees_pool(order)
    (tmp_path / "token").write_text("another")
    assert not remote._sees_pool(order)
    (tmp_path / "token").write_text("secret")
    assert remote._sees_pool(order)


def test_arrays_that_lie_askew_are_copied():
    digits = lre.load_data("digits", train_size=20, val_size=20, test_size=20)
    raw = np.frombuffer(b"x" + digits.val.x.tobytes(), dtype=np.uint8)[1:]
    skew = np.ndarray(digits.val.x.shape, np.float32, raw)
    assert not skew.flags.aligned
    object.__setattr__(digits.val, "x", skew)
    remote._aligned(digits)
    assert digits.val.x.flags.aligned
    assert (digits.val.x == skew).all()


# --- several devices of one machine -----------------------------------------------------------------------------------


def test_devices_by_name(monkeypatch):
    assert resolve_devices("cpu") == ("cpu",)
    assert resolve_devices("cpu, cpu") == ("cpu", "cpu")
    for wrong in ("tpu", "cuda:77", "cpu,", "meta"):
        with pytest.raises(InputError, match="device: expected cpu, cuda or cuda:N"):
            resolve_devices(wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert resolve_devices("auto") == resolve_devices("cuda") == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr(torch, "empty", lambda *shape, device: None)
    assert resolve_devices("cuda:1") == ("cuda:1",)
    with pytest.raises(InputError, match="devices of one kind"):
        resolve_devices("cpu,cuda:1")


def test_processes_share_out_the_devices_and_stay_on_them(tmp_path, monkeypatch):
    setting = Setting(tmp_path, "", 0, True, ("cpu:0", "cpu:1"))

    def enter(stack, last):
        """Claim as a process would that had slot `last` before."""
        monkeypatch.setattr(devices, "_last_slot", last)
        own = stack.enter_context(claimed(setting, tmp_path))
        return own.device, devices._last_slot

    with ExitStack() as four:
        first = [enter(four, 0) for _ in range(4)]
    assert first == [("cpu:0", 0), ("cpu:1", 1), ("cpu:0", 2), ("cpu:1", 3)]
    assert not list(tmp_path.iterdir())
    with ExitStack() as again:
        assert [enter(again, last) for _, last in reversed(first)] == first[::-1]
    with pytest.raises(RuntimeError), claimed(setting, tmp_path):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_one_device_needs_no_claim(tmp_path):
    setting = Setting(tmp_path, "cpu", 0, True, ("cpu",))
    with claimed(setting, tmp_path) as own:
        assert own is setting


def test_a_pool_on_two_devices_is_the_pool(digits, local, tmp_path):
    pool = lre.train_pool(digits, path=tmp_path / "pool", jobs=2, device="cpu,cpu", progress=False, **CALL)
    assert_same_pools(local, pool)
