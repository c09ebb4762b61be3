"""The scheduler: engine, stack, processes; measuring and its cache; memory, estimated and running out."""

import json
import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lrensemble as lre
from lrensemble.errors import InputError, PoolError, TrainingError
from lrensemble.stacked import IMPLEMENTATIONS
from lrensemble.training import OPTIMIZERS, TrainConfig, allocator, calibrate, footprint, schedule, worker
from lrensemble.training.calibrate import Paces
from lrensemble.training.engines import ENGINES, EngineSpec
from lrensemble.training.schedule import Schedule, chunks_of
from lrensemble.training.task import Setting
from lrensemble.training.workshop import plan_members

QUIET = {"progress": False, "epochs": 2, "model": "mlp(hidden=8)"}


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=90, test_size=80)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(calibrate.CACHE_VARIABLE, str(tmp_path / "cache"))


def tasks_of(splits, *, members=4, model="mlp(hidden=8)", **config):
    policies = [lre.parse_policy("FIX(0.05)")]
    settings = TrainConfig(**{"epochs": 2, "augment": "none", **config})
    return plan_members(splits, model, [(p, seed) for seed in range(members) for p in policies], settings).tasks


def setting_at(path, device="cpu"):
    (path / "resume").mkdir(parents=True, exist_ok=True)
    return Setting(path, device, 5.0, True)


class Odd(nn.Module):
    """A network that no engine can stack: what it does depends on the samples."""

    def __init__(self, features, classes):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.linear(x) if x.mean() > 100 else self.linear(2 * x)


def odd(input_shape, n_classes):
    return Odd(math.prod(input_shape), n_classes)


# --- engine ----------------------------------------------------------------------------------------------------------


def test_what_can_be_stacked_is_stacked(digits, tmp_path):
    plan = schedule.schedule(tasks_of(digits), digits, setting_at(tmp_path))
    assert (plan.engine, plan.stack, plan.jobs) == ("stacked", 4, 1)
    assert plan.notes == ("engine stacked, 4 networks a stack, in this process",)


@pytest.mark.parametrize("engine", ["auto", "stacked"])
def test_what_cannot_be_stacked_goes_through_the_loop_and_a_note_says_why(engine, digits, tmp_path):
    tasks = tasks_of(digits, model=odd)
    plan = schedule.schedule(tasks, digits, setting_at(tmp_path), engine=engine, jobs=2)
    assert (plan.engine, plan.stack, plan.jobs) == ("loop", 1, 2)
    assert plan.notes[0].startswith("engine loop, 2 processes (")
    assert "traced" in plan.notes[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_is_asked_for_is_used_and_recorded(engine, digits, tmp_path):
    setting = setting_at(tmp_path)
    assert schedule.schedule(tasks_of(digits), digits, setting, engine=engine).engine == engine
    assert schedule.schedule(tasks_of(digits), digits, setting).engine == engine  # a pool goes on as it has begun
    assert schedule.schedule(tasks_of(digits, epochs=3), digits, setting).engine == "stacked"  # other members
    other = "loop" if engine == "stacked" else "stacked"
    assert schedule.schedule(tasks_of(digits), digits, setting, engine=other).engine == other


@pytest.mark.parametrize("content", ["", "[]", '{"x"', "\0", '{"mlp(hidden=8) 0": 3}'])
def test_a_record_that_cannot_be_read_is_none(content, digits, tmp_path):
    setting = setting_at(tmp_path)
    (tmp_path / schedule.RECORD).write_text(content)
    assert schedule.schedule(tasks_of(digits), digits, setting).engine == "stacked"
    assert "stacked" in json.loads((tmp_path / schedule.RECORD).read_text()).values()


def test_a_record_that_cannot_be_written_hurts_nobody(digits, tmp_path):
    (tmp_path / "resume").write_text("a file where the folder should be")
    setting = Setting(tmp_path, "cpu", 5.0, True)
    assert schedule.schedule(tasks_of(digits), digits, setting).engine == "stacked"


def test_the_record_is_no_part_of_the_pool(digits, tmp_path):
    pool = lre.train_pool(digits, policies="FIX(0.05)", path=tmp_path / "pool", **QUIET)
    assert (tmp_path / "pool" / schedule.RECORD).is_file()
    assert pool.verify() == []
    assert pool.info()["training"] == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"engine": "lop"}, "did you mean 'loop'"), ({"stack": 0}, "stack: expected"), ({"jobs": 1.5}, "jobs: expected")],
)
def test_a_wrong_choice_is_named_before_anything_is_written(wrong, message, digits, tmp_path):
    with pytest.raises(InputError, match=message):
        lre.train_pool(digits, policies="FIX(0.05)", path=tmp_path / "pool", **QUIET, **wrong)
    assert not (tmp_path / "pool").exists()


def test_the_command_takes_engine_stack_and_jobs(command, tmp_path):
    done = command(
        "train", "pool", "--data", "digits", "--model", "mlp(hidden=8)", "--policies", "FIX(0.05)", "FIX(0.01)",
        "--epochs", "1", "--engine", "stacked", "--stack", "1", "--jobs", "1", cwd=tmp_path,
    )  # fmt: skip
    assert "engine stacked, in this process" in done.stderr
    assert "loop" in command("list", "engines").stdout


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("stack", [1, 2, None])
def test_stack_and_jobs_do_not_change_a_bit(stack, jobs, digits, tmp_path):
    call = {"policies": ["FIX(0.05)", "FIX(0.01)"], "seeds": 2, "engine": "stacked", **QUIET}
    one = lre.train_pool(digits, path=tmp_path / "one", jobs=1, **call)
    two = lre.train_pool(digits, path=tmp_path / "two", jobs=jobs, stack=stack, **call)
    for name in one.ids:
        for split in ("val", "test"):
            assert (one.member(name).logits[split] == two.member(name).logits[split]).all()


# --- processes and chunks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "stack", "jobs", "networks", "sizes"),
    [
        (16, 8, 2, 1, [8, 8]),
        (20, 8, 2, 1, [5, 5, 5, 5]),
        (3, 8, 2, 1, [2, 1]),
        (3, 1, 2, 1, [1, 1, 1]),
        (9, 8, 1, 1, [5, 4]),
        (6, 8, 2, 5, [1] * 6),
        (6, 10, 1, 5, [2, 2, 2]),
        (2, 1, 1, 5, [1, 1]),
    ],
)
def test_chunks(members, stack, jobs, networks, sizes):
    chunks = chunks_of(range(members), Schedule("stacked", stack, jobs), networks)
    assert [len(chunk) for chunk in chunks] == sizes


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_chunks_hold_every_member_once_and_end_together(members, stack, jobs):
    chunks = chunks_of(range(members), Schedule("stacked", stack, jobs))
    sizes = [len(chunk) for chunk in chunks]
    assert [member for chunk in chunks for member in chunk] == list(range(members))
    assert max(sizes) <= stack
    assert max(sizes) - min(sizes) <= 1
    assert len(chunks) % jobs == 0 or len(chunks) == members


def test_short_work_starts_no_processes_and_long_work_one_a_core(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "_cores", lambda: 4)
    monkeypatch.setattr(schedule, "in_workers", lambda *_, jobs: [Paces(1.0, {4: 0.5})] * jobs)
    setting = setting_at(tmp_path)
    short, long = tasks_of(digits, members=16), tasks_of(digits, members=16, epochs=10**4)
    assert schedule.schedule(short, digits, setting).jobs == 1
    plan = schedule.schedule(long, digits, setting)
    assert (plan.jobs, plan.stack) == (4, 4)
    assert plan.notes == ("engine stacked, 4 networks a stack, 4 processes (measured: stacked is 2.0× the loop)",)
    assert schedule.schedule(long[:3], digits, setting).jobs == 3
    assert schedule.schedule(short, digits, setting, jobs=3).jobs == 3


def test_cores_are_at_least_one():
    assert schedule._cores() >= 1


# --- measuring -------------------------------------------------------------------------------------------------------


def test_measuring_times_real_steps(digits):
    found = calibrate.measure(tasks_of(digits)[0], digits, "cpu", [2, 4], 20.0)
    assert 0 < found.loop < 10
    assert set(found.stacked) == {2, 4}
    assert all(0 < pace < 10 for pace in found.stacked.values())


def test_measuring_stops_when_its_time_is_up(digits):
    assert calibrate.measure(tasks_of(digits)[0], digits, "cpu", [2], 0.0) is None


def test_measuring_leaves_everything_as_it_was(digits, tmp_path):
    setting, tasks = setting_at(tmp_path), tasks_of(digits, epochs=10**4)
    threads = torch.get_num_threads()
    before = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())
    assert schedule.schedule(tasks, digits, setting, jobs=1).engine in ENGINES
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()) == before
    assert torch.get_num_threads() == threads
    assert [path.name for path in (tmp_path / "resume").iterdir()] == [".engines.json"]


def test_processes_measure_together(digits, tmp_path):
    tasks = tasks_of(digits, members=8, epochs=10**4)
    (note,) = schedule.schedule(tasks, digits, setting_at(tmp_path), jobs=2, engine="stacked").notes
    assert "4 networks a stack, 2 processes (measured: stacked is " in note
    (file,) = (calibrate.cache_folder() / "paces").iterdir()
    assert json.loads(file.read_text())["key"]["jobs"] == 2


def measured(monkeypatch, *answers):
    """Let measurements give these answers one after another; return the list of those that were asked for."""
    asked = []

    def answer(*arguments):
        asked.append(arguments)
        return answers[len(asked) - 1]

    monkeypatch.setattr(calibrate, "measure", answer)
    return asked


@pytest.mark.parametrize(
    ("paces", "engine", "stack"),
    [
        (Paces(1.0, {4: 0.5, 8: 0.3, 16: 0.29}), "stacked", 8),  # the narrowest that is about as fast as any
        (Paces(1.0, {4: 1.05, 8: 1.08}), "stacked", 4),  # too close to call
        (Paces(1.0, {4: 2.0, 8: 2.2}), "loop", 1),
        (Paces(1.0, {}), "stacked", 8),  # there was no time to try one
        (None, "stacked", 8),
    ],
)
def test_what_is_measured_decides(paces, engine, stack, digits, tmp_path, monkeypatch):
    measured(monkeypatch, paces)
    tasks = tasks_of(digits, members=16, epochs=10**4)
    plan = schedule.schedule(tasks, digits, setting_at(tmp_path), jobs=1)
    assert (plan.engine, plan.stack) == (engine, stack)


def test_what_was_measured_is_remembered(digits, tmp_path, monkeypatch):
    asked = measured(monkeypatch, Paces(1.0, {4: 0.5, 8: 0.3, 16: 0.29}), Paces(1.0, {4: 0.1}))
    tasks = tasks_of(digits, members=16, epochs=10**4)
    for pool in ("a", "b"):
        assert schedule.schedule(tasks, digits, setting_at(tmp_path / pool), jobs=1).stack == 8
    assert len(asked) == 1
    schedule.schedule(tasks_of(digits, members=16, epochs=10**4, batch_size=32), digits, setting_at(tmp_path), jobs=1)
    assert len(asked) == 2


def test_nothing_is_measured_where_nothing_depends_on_it(digits, tmp_path, monkeypatch):
    asked = measured(monkeypatch)
    long, short = tasks_of(digits, epochs=10**4), tasks_of(digits)
    for tasks, choice in [(long, {"engine": "loop"}), (long, {"stack": 2}), (short, {}), (long[:1], {})]:
        schedule.schedule(tasks, digits, setting_at(tmp_path / f"{len(asked)}"), jobs=1, **choice)
    assert asked == []


def test_a_measurement_that_fails_hurts_nobody(digits, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(calibrate, "measure", fail)
    tasks = tasks_of(digits, members=16, epochs=10**4)
    assert schedule.schedule(tasks, digits, setting_at(tmp_path), jobs=1).stack == 8


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"loop": 0, "stacked": {}}', '{"loop": 1, "stacked": {"x": 1}}', '{"loop": NaN, "stacked": {}}'],
)
def test_a_cache_that_is_damaged_counts_as_none(content):
    key, paces = {"a": 1}, Paces(0.5, {8: 0.25})
    calibrate.write(key, paces)
    assert calibrate.read(key) == paces
    assert calibrate.read({"a": 2}) is None
    (file,) = (calibrate.cache_folder() / "paces").iterdir()
    file.write_text(content)
    assert calibrate.read(key) is None
    calibrate.write(key, paces)
    assert calibrate.read(key) == paces


def test_a_cache_that_cannot_be_written_hurts_nobody(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(calibrate.CACHE_VARIABLE, str(tmp_path / "file"))
    calibrate.write({}, Paces(1.0, {}))
    assert calibrate.read({}) is None


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/lrensemble"),
        ("linux", {}, "/home/me/.cache/lrensemble"),
        ("darwin", {}, "/home/me/Library/Caches/lrensemble"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/lrensemble"),
        ("linux", {"LRENSEMBLE_CACHE": "/mine", "XDG_CACHE_HOME": "/x"}, "/mine"),
    ],
)
def test_where_the_cache_lies(platform, variables, folder, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LRENSEMBLE_CACHE", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert calibrate.cache_folder().as_posix() == folder


# --- memory ----------------------------------------------------------------------------------------------------------


SLOTS = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2, "rmsprop": 1, "adagrad": 1, "adadelta": 2}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_footprint_of_a_network_whose_numbers_are_known(name, digits):
    task = tasks_of(digits, model="mlp(hidden=1000, depth=1)", optimizer=name, batch_size=50)[0]
    found = footprint.footprint(task, digits, "cpu")
    weights = 4 * (64 * 1000 + 1000 + 1000 * 10 + 10)
    expected = 2 * (1 + SLOTS[name]) * weights + weights
    assert expected <= found.network <= 1.01 * expected
    hidden, inputs = 4 * 50 * 1000, 4 * 50 * 64  # kept: input, hidden layer, and what the loss keeps
    assert 2.5 * hidden <= found.batch <= 2.5 * hidden + 3 * inputs
    assert found.data == digits.train.x.nbytes + digits.val.x.nbytes + digits.test.x.nbytes + 8 * 370


@pytest.mark.parametrize("how", IMPLEMENTATIONS)
def test_networks_that_take_turns_share_what_a_batch_takes(how, digits, monkeypatch):
    monkeypatch.setattr(footprint, "default_implementation", lambda _: how)
    found = footprint.footprint(tasks_of(digits, model="lenet")[0], digits, "cpu")
    assert found.process(5) - found.process(4) == found.network + (0 if how == "split" else found.batch)
    for stack in (1, 5, 40):
        room = 2 * found.process(stack) + found.data
        assert found.widest((room + 99) / footprint.SHARE, 2) == stack
        assert found.widest((room - 99) / footprint.SHARE, 2) == stack - 1


def test_what_a_batch_keeps_grows_with_the_batch_and_halves_under_bf16(digits):
    small, large, half = (
        footprint.footprint(tasks_of(digits, model="lenet", **config)[0], digits, "cpu").batch
        for config in ({"batch_size": 32}, {"batch_size": 64}, {"batch_size": 64, "precision": "bf16"})
    )
    assert large == pytest.approx(2 * small, rel=1e-6)
    assert half < 0.8 * large


def test_stack_then_processes_are_cut_until_they_fit(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "_cores", lambda: 4)
    monkeypatch.setattr(schedule, "_paces", lambda *_: Paces(1.0, {8: 0.5}))
    tasks = tasks_of(digits, members=32, epochs=10**4, model="mlp(hidden=1000)")
    needed = footprint.footprint(tasks[0], digits, "cpu")

    def room(stack, jobs):
        return (jobs * needed.process(stack) + needed.data) / footprint.SHARE + 1

    for free, stack, jobs in [(math.inf, 8, 4), (room(8, 4), 8, 4), (room(3, 4), 3, 4), (room(1, 2), 1, 2), (0, 1, 1)]:
        monkeypatch.setattr(schedule, "free_on", lambda _, free=free: free)
        plan = schedule.schedule(tasks, digits, setting_at(tmp_path))
        assert (plan.stack, plan.jobs) == (stack, jobs), free
        assert any("memory is short" in note for note in plan.notes) == ((stack, jobs) != (8, 4))
        forced = schedule.schedule(tasks, digits, setting_at(tmp_path), jobs=4, stack=8)
        assert (forced.stack, forced.jobs) == (8, 4)


def test_a_network_that_cannot_fit_is_refused_before_anything_is_written(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "free_bytes", lambda: 1000.0)
    with pytest.raises(InputError, match=r"GB of free memory on cpu for mlp\(hidden=8\)"):
        lre.train_pool(digits, policies="FIX(0.05)", path=tmp_path / "pool", **QUIET)
    assert not (tmp_path / "pool").exists()


def hungry(most, error):
    """An engine for which memory suffices for at most so many networks at once."""

    def train(trainings):
        if len(trainings) > most:
            raise error
        for training in trainings:
            ENGINES["loop"].train([training])

    return EngineSpec(train, "fails")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_out_of_memory_halves_the_stack(error, digits, tmp_path, monkeypatch):
    monkeypatch.setitem(ENGINES, "stacked", hungry(2, error))
    events = []
    call = {**QUIET, "policies": "FIX(0.05)", "seeds": 9, "jobs": 1, "path": tmp_path / "pool"}
    pool = lre.train_pool(digits, **{**call, "engine": "stacked", "stack": 9, "progress": events.append})
    assert len(pool) == 9
    assert sorted(e.done for e in events if e.kind == "member") == list(range(1, 10))
    notes = [event.text for event in events if "out of memory" in event.text]
    assert [note.rpartition("going on ")[2] for note in notes] == ["with 4 networks at once", "with 2 networks at once"]


def test_out_of_memory_ends_with_the_loop_and_then_with_the_old_error(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(ENGINES, "stacked", hungry(0, MemoryError()))
    events = []
    call = {**QUIET, "policies": "FIX(0.05)", "seeds": 3, "jobs": 1, "engine": "stacked"}
    pool = lre.train_pool(digits, path=tmp_path / "pool", **{**call, "progress": events.append})
    assert len(pool) == 3
    assert [e.text for e in events if "out of memory" in e.text][-1].endswith("going on one by one, by the loop")
    monkeypatch.setitem(ENGINES, "loop", hungry(0, MemoryError()))
    with pytest.raises(TrainingError, match="out of memory on cpu: use fewer jobs"):
        lre.train_pool(digits, path=tmp_path / "other", **call)


def test_after_out_of_memory_only_what_is_missing_is_trained_again(digits, tmp_path, monkeypatch):
    calls = []

    def train(trainings):
        calls.append(len(trainings))
        ENGINES["loop"].train(trainings[:2])
        if len(trainings) > 2:
            raise MemoryError

    monkeypatch.setitem(ENGINES, "stacked", EngineSpec(train, "fails after two"))
    pool = lre.train_pool(
        digits, path=tmp_path / "pool", policies="FIX(0.05)", seeds=6, jobs=1, engine="stacked", **QUIET
    )
    assert len(pool) == 6
    assert calls == [6, 3, 1, 1]


def test_other_errors_are_no_lack_of_memory():
    for error in (RuntimeError("shapes cannot be multiplied"), ValueError("can't allocate memory"), PoolError("full")):
        assert not worker.is_out_of_memory(error)


LIMITED = """
import resource, sys
import lrensemble as lre
import torch
def wide(input_shape, n_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 30_000), torch.nn.ReLU(),
                               torch.nn.Linear(30_000, n_classes))
splits = lre.load_data("digits", train_size=64, val_size=40, test_size=40)
call = dict(model=wide, policies="FIX(0.0001)", epochs=1, batch_size=64, jobs=1)
lre.train_pool(splits, path=sys.argv[1] + "/first", progress=False, engine="stacked", **call)
used = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + 200 * 2**20, resource.RLIM_INFINITY))
events = []
pool = lre.train_pool(splits, path=sys.argv[1] + "/pool", seeds=8, engine="stacked", stack=8, progress=events.append,
                      **call)
print(len(pool), sum("out of memory" in event.text for event in events))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource limits of Linux")
def test_a_process_whose_memory_is_limited_trains_in_smaller_stacks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    members, notes = map(int, done.stdout.split())
    assert members == 8
    assert notes >= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_one_process_stacks_what_fits(digits, tmp_path):
    plan = schedule.schedule(tasks_of(digits, members=64), digits, setting_at(tmp_path, "cuda"))
    assert (plan.engine, plan.stack, plan.jobs) == ("stacked", 32, 1)
    assert footprint.free_on("cuda") <= torch.cuda.get_device_properties(0).total_memory


# --- allocator -------------------------------------------------------------------------------------------------------

TOUCH = """
import resource, sys
import numpy as np
from lrensemble.training.allocator import keep_large_blocks
if sys.argv[1] == "keep":
    keep_large_blocks()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): np.ones((16, 2**20), np.float32)
before = faults()
for _ in range(10): np.ones((16, 2**20), np.float32)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_kept_blocks_are_not_fetched_from_the_system_again():
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", TOUCH, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "plain")
    )
    assert kept < plain / 10


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_elsewhere_the_allocator_is_left_alone(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    allocator.keep_large_blocks()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    allocator.keep_large_blocks()


def test_schedules_are_values():
    assert replace(Schedule("loop", 1, 2), jobs=1) == Schedule("loop", 1, 1)
