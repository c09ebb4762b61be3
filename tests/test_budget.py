"""A budget of time: what fits is trained, the deadline is kept, and nothing is lost. Clocks are fake."""

import itertools
import json
import math
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import assert_same_pools
from torch import nn

import lrensemble as lre
from lrensemble.cli.main import main
from lrensemble.errors import InputError, TrainingError
from lrensemble.training.budget import MARGIN, Budget, check_budget, duration
from lrensemble.training.engines import ENGINES
from lrensemble.training.halving import Halving
from lrensemble.training.task import Setting
from lrensemble.training.worker import train_chunk
from lrensemble.training.workshop import plan_members

POLICIES = ["FIX(0.001)", "FIX(0.01)", "FIX(0.05)", "POLY(k0=0, k1=0.1, p=1)", "FIX(0.003)", "FIX(0.1)"]
CALL = {"policies": POLICIES, "epochs": 4, "batch_size": 50, "jobs": 1, "progress": False, "engine": "loop", "stack": 1}


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=60, test_size=60)


class Clock:
    """Time that passes only when a network learns: an epoch of four batches takes a second."""

    def __init__(self):
        self.now = 1000.0

    def network(self, input_shape, n_classes):
        clock = self

        class Slow(nn.Sequential):
            def forward(self, x):
                clock.now += 0.25 * self.training
                return super().forward(x)

        return Slow(nn.Flatten(), nn.Linear(math.prod(input_shape), n_classes))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()

    def read():
        return clock.now

    fake = SimpleNamespace(time=read, monotonic=read, perf_counter=read)
    for module in ("budget", "task", "loop"):
        monkeypatch.setattr(f"lrensemble.training.{module}.time", fake)
    return clock


def train(digits, clock, folder, **changes):
    return lre.train_pool(digits, path=folder / "pool", **{**CALL, "model": clock.network, **changes})


def reached(pool):
    """Epochs of each member, by policy, finished or not."""
    return {summary.asked: summary.epochs for summary in pool.summaries()} | {s.asked: s.epoch for s in pool.stopped()}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1H 5M 3s", 3903),
        ("1.5h", 5400),
    ],
)
def test_times_are_understood(value, seconds):
    assert check_budget(value) == seconds


@pytest.mark.parametrize("value", ["", "0", "0s", 0, -1, "-5m", "10x", "m", "5m1h", math.inf, math.nan, True, [1]])
def test_other_budgets_are_refused_before_anything_is_written(value, tmp_path):
    with pytest.raises(InputError, match="budget: expected a time such as 90s, 10m or 1h30m") as caught:
        lre.train_pool("digits", budget=value, path=tmp_path / "pool")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@given(st.floats(1e-3, 1e6))
def test_durations_read_back(seconds):
    text = duration(seconds).replace("min", "m")
    assert check_budget(format_plainly(text)) == pytest.approx(seconds, rel=0.01)


def format_plainly(text):
    number, unit = text.split()
    return f"{float(number):f}{unit}"


def simulated(done, epochs, jobs, rungs, halving):
    """Time of a race in which each process takes a member after another, an epoch a second."""
    total, running = 0, list(done)
    for rung in [*rungs, epochs]:
        processes = [0] * jobs
        for epoch in running:
            processes[processes.index(min(processes))] += max(0, rung - epoch)
        total += max(processes)
        running = [max(rung, epoch) for epoch in running[: halving.keep(len(running)) if halving else None]]
    return total


@given(
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 5),
    st.none() | st.builds(Halving, st.floats(1.5, 4), st.none() | st.integers(1, 5), st.integers(1, 10)),
)
@settings(deadline=None, max_examples=100)
def test_the_estimate_is_the_time_of_a_simulated_race(members, epochs, jobs, halving):
    budget = Budget(1.0, 0.0, jobs, pace=1.0)
    done = [0] * members
    rungs = halving.rungs(epochs) if halving else []
    assert budget.cost(done, epochs, halving) == pytest.approx(simulated(done, epochs, jobs, rungs, halving))


@given(st.integers(1, 60), st.integers(1, 20), st.floats(0, 2000), st.none() | st.just(Halving()))
@settings(deadline=None, max_examples=60)
def test_as_many_are_afforded_as_fit(members, epochs, left, halving):
    class Fixed(Budget):
        left = 0.0

    Fixed.left = left
    budget, done = Fixed(left, 0.0, 2, pace=1.0), [0] * members
    count = budget.affordable(done, epochs, halving)
    assert budget.cost(done[:count], epochs, halving) <= MARGIN * left
    assert count == members or budget.cost(done[: count + 1], epochs, halving) > MARGIN * left


def test_what_fits_is_finished_one_after_another(digits, clock, tmp_path):
    events = []
    pool = train(digits, clock, tmp_path, budget=14, progress=events.append)
    assert list(reached(pool).values()).count(4) == 3
    assert clock.now == 1014
    notes = [event.text for event in events if event.kind == "note"]
    assert any("budget of 14 s: about 3 more can be finished (an epoch of one takes 1 s)" in note for note in notes)
    assert "3 of 6 members are finished; 1 stopped after epoch 2, 2 not begun" in notes[-1]
    assert "the same command with another budget goes on" in notes[-1]
    assert [event.epoch for event in events if event.kind == "stopped"] == [2, 0, 0]
    finished = [summary.asked for summary in pool.summaries()]
    assert sorted(finished) == sorted(map(str, lre.policies.resolve_policies(POLICIES[:3])))


def test_another_budget_goes_on_and_a_large_one_finishes(digits, clock, tmp_path):
    whole = train(digits, clock, tmp_path / "whole")
    for budget, finished, seconds in ((3, 0, 3), ("6s", 2, 6), (1e6, 6, 15)):
        start = clock.now
        if finished:
            assert len(train(digits, clock, tmp_path, budget=budget)) == finished
        else:
            with pytest.raises(TrainingError, match="no member was finished within 3 s; nothing is lost"):
                train(digits, clock, tmp_path, budget=budget)
        assert clock.now - start == seconds  # no epoch is trained twice: 24 in all
    assert_same_pools(whole, lre.Pool.open(tmp_path / "pool"))
    assert not list((tmp_path / "pool" / "resume").glob("[!.]*"))


def test_an_epoch_under_way_is_finished(digits, clock, tmp_path):
    pool = train(digits, clock, tmp_path, budget=5.5)
    assert clock.now == 1006
    assert sorted(reached(pool).values()) == [2, 4]


def test_halving_within_a_budget(digits, clock, tmp_path):
    """Six compete for an epoch; that leaves time for two of the three that would go on."""
    whole = train(digits, clock, tmp_path / "whole")
    start = clock.now
    halving = {"eta": 2, "first": 1, "least": 1}  # to the epochs 1, 2 and 4: 6 + 3 + 2 · 2 seconds
    pool = train(digits, clock, tmp_path, budget=16, halving=halving)
    assert clock.now - start == 13
    assert sorted(reached(pool).values()) == [1, 1, 1, 2, 4, 4]
    assert_same_pools(whole, pool, pool.ids)
    start = clock.now
    small = lre.train_pool(
        digits, path=tmp_path / "small", budget=8, halving=halving, **{**CALL, "model": clock.network}
    )
    assert clock.now - start <= 9
    assert len(small) >= 1
    assert len(reached(small)) < 6


def test_a_deadline_within_a_rung_decides_nothing(digits, clock, tmp_path):
    with pytest.raises(TrainingError, match=r"within 0\.5 s"):
        train(digits, clock, tmp_path, budget=0.5, halving=True)
    assert [stopped.epoch for stopped in lre.Pool.open(tmp_path / "pool").stopped()] == [1]


@pytest.mark.parametrize("engine", ENGINES)
def test_workers_rest_when_it_is_late(engine, digits, tmp_path):
    whole = lre.train_pool(digits, path=tmp_path / "pool", **CALL, model="mlp(hidden=4)")
    config = lre.TrainConfig(epochs=4, batch_size=50, augment="none")
    plan = plan_members(digits, "mlp(hidden=4)", [(p, 1) for p in lre.policies.resolve_policies(POLICIES)], config)
    late = Setting(tmp_path / "pool", "cpu", 0.0, False, deadline=time.time() - 1)
    train_chunk(plan.tasks, digits, late, lambda event: pytest.fail(event.kind), engine=engine)
    assert len(lre.Pool.open(tmp_path / "pool")) == len(whole)

    moment = time.time() + 3600
    counts = itertools.count(1)

    def passes(event):
        if event.kind == "epoch" and next(counts) == len(POLICIES):  # all of a stack, or one and a half alone
            object.__setattr__(soon, "deadline", time.time() - 1)

    soon = Setting(tmp_path / "pool", "cpu", 0.0, False, deadline=moment)
    train_chunk(plan.tasks, digits, soon, passes, engine=engine)
    epochs = [stopped.epoch for stopped in lre.Pool.open(tmp_path / "pool").stopped()]
    assert set(epochs) <= {1, 2, 3}
    assert epochs


def test_a_budget_for_several_processes(digits, tmp_path):
    """Nothing fits; what has been begun is kept, and then finished."""
    call = {**CALL, "jobs": 2, "model": "mlp(hidden=4)", "path": tmp_path / "pool"}
    with pytest.raises(TrainingError, match="nothing is lost"):
        lre.train_pool(digits, budget=1e-6, **call)
    whole = lre.train_pool(digits, **{**call, "path": tmp_path / "whole", "jobs": 1})
    assert_same_pools(whole, lre.train_pool(digits, budget="1h", **call))


def command(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "lrensemble", *map(str, arguments)], capture_output=True, text=True, cwd=folder
    )


SMALL = ("--data", "digits", "--model", "mlp(hidden=4)", "--epochs", 2, "--train-size", 200, "--jobs", 1)


@pytest.mark.parametrize("name", ["train", "run"])
def test_help_and_budgets_that_are_none(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--budget TIME" in shown
    assert "--halving [ETA]" in shown
    pool = ["pool"] if name == "train" else []
    assert main([name, *pool, "--budget", "soon"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "budget: expected a time" in err


def test_the_command_line(tmp_path, capsys):
    short = command("train", "pool", *SMALL, "--budget", "0.000001", "--quiet", folder=tmp_path)
    assert (short.returncode, short.stdout) == (1, "")
    assert short.stderr.count("\n") == 1
    assert "no member was finished within 1e-06 s; nothing is lost" in short.stderr

    pool = str(tmp_path / "pool")
    assert main(["train", pool, *map(str, SMALL), "--halving", "--json", "--quiet"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (len(info["members"]), len(info["stopped"])) == (8, 8)
    assert {entry["epoch"] for entry in info["stopped"]} == {1}
    assert main(["inspect", pool]) == 0
    assert capsys.readouterr().out.count("1/2") == 8


def test_the_whole_road(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.toml").write_text(
        'model = "mlp(hidden=4)"\npool = "pool"\nbudget = "1h"\n'
        "[halving]\neta = 3\nleast = 2\n[train]\nepochs = 2\n[data]\ntrain_size = 200\n[compute]\njobs = 1\n"
    )
    assert main(["run", "experiment.toml", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["paths"]["pool"] == "pool"
    assert "6 of 16 members are finished; 10 stopped after epoch 1" in err
    pool = lre.Pool.open(tmp_path / "pool")
    assert (len(pool), len(pool.stopped())) == (6, 10)
    experiment = lre.Experiment.load(tmp_path / "pool" / "experiment.toml")
    assert (experiment.budget, experiment.halving) == ("1h", {"eta": 3, "least": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("halving = 0.5", "line 1: halving: expected eta, a number > 1, got 0.5"),
        ("[halving]\nfrist = 2", "did you mean 'first'"),
        ('budget = "soon"', "line 1: budget: expected a time"),
        ("budget = [1]", "budget: expected a text or a whole number or a number, got"),
    ],
)
def test_a_wrong_experiment_file_is_explained(text, message, tmp_path):
    file = tmp_path / "experiment.toml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        lre.Experiment.load(file)
    assert message in str(caught.value)
