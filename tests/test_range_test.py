"""The range test of the learning rate: its rule, its trainings, and the presets that it feeds."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrensemble as lre
from lrensemble.cli.main import main
from lrensemble.errors import InputError, TrainingError, UnknownNameError
from lrensemble.policies import parse_policy
from lrensemble.reporting import plot_range_test
from lrensemble.training import OPTIMIZERS
from lrensemble.training.rates import chance_loss, range_path, short, usable
from lrensemble.training.workshop import Workshop
from lrensemble.tuning import range_test

SMALL = {"model": "mlp(hidden=16)", "train_size": 300, "val_size": 90, "test_size": 80, "jobs": 1, "progress": False}
CHANCE = math.log(10)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("range")


@pytest.fixture(scope="module")
def found(home):
    return range_test("digits", path=home / "found", **SMALL)


# --- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.3, 2.2, 2.0, 0.5, 0.4, 0.49, None], (1e-3, 0.1, 1.0)),  # 0.49 is less than 5 % of the gain behind
        ([2.3, 2.2, 2.0, 0.5, 0.4, 0.51, None], (1e-3, 0.1, 0.1)),
        ([2.3, 2.2, 2.0, 0.5, None, 0.5, None], (1e-3, 0.01, 0.01)),  # a lucky rate beyond a bad one does not count
        ([2.3, 1.5, 2.29, 0.5, 0.4, None, None], (0.01, 0.1, 0.1)),  # nor one below a rate that learns nothing
        ([0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4], (1e-5, 0.1, 10.0)),
        ([None] * 7, None),
        ([2.3, 2.25, 2.3, 2.29, 2.4, None, None], None),  # nothing was learned
    ],
)
def test_the_usable_interval(losses, expected):
    rates = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
    result = usable(rates, losses, CHANCE)
    assert (result and (result.lowest, result.best, result.highest)) == expected
    if result is not None:
        assert result.is_open == (expected[0] == 1e-5, expected[2] == 10.0)


@given(st.lists(st.one_of(st.none(), st.floats(0.01, 5)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=200)
def test_the_interval_holds_what_the_rule_says(losses):
    rates = [10.0**j for j in range(len(losses))]
    result = usable(rates, losses, CHANCE)
    finite = [loss for loss in losses if loss is not None]
    if result is None:
        assert not finite or min(finite) > 0.95 * CHANCE
        return

    def gain(loss):  # the slow twin: the definition, one rate at a time
        return -math.inf if loss is None else (CHANCE - loss) / (CHANCE - min(finite))

    gains = dict(zip(rates, map(gain, losses), strict=True))
    within = [rate for rate in rates if result.best <= rate <= result.highest]
    assert all(gains[rate] >= 0.95 for rate in within)
    assert all(gains[rate] >= 0.1 for rate in rates if result.lowest <= rate <= result.best)
    assert result.highest == rates[-1] or gains[10 * result.highest] < 0.95
    assert result.lowest == rates[0] or gains[result.lowest / 10] < 0.1
    low, high = result.recommended
    assert high == result.highest
    assert low == pytest.approx(high / 10)


# --- the trainings --------------------------------------------------------------------------------------------------


def test_it_finds_rates_that_learn(found):
    assert found.lowest < found.best <= found.highest
    assert not found.open_below
    assert not found.open_above
    rates = [one.rate for one in found.grid]
    assert rates == sorted(rates)
    assert rates[0] < found.lowest
    assert rates[-1] > found.highest
    by_rate = {one.rate: one for one in found.grid}
    assert by_rate[found.best].accuracy > 0.6
    assert found.steps >= 50
    again = usable(rates, [one.loss for one in found.grid], found.chance)
    assert (again.lowest, again.highest, again.recommended) == (found.lowest, found.highest, found.recommended)


def test_the_sweep_rises_by_a_constant_factor_and_meets_the_grid(found):
    rates = np.array([one.rate for one in found.sweep])
    assert np.allclose(np.diff(np.log(rates)), np.diff(np.log(rates)).mean(), rtol=0.05)
    low, high = found.sweep_interval
    assert found.lowest / 4 < low < found.highest
    assert found.lowest < high < 10 * found.highest
    pool = lre.Pool.open(found.pool)
    (sweep,) = [summary for summary in pool.summaries() if summary.policy.startswith("EXP")]
    assert set(found.sweep[0].members) == {sweep.id}
    assert len(pool) == len(found.grid) + 1


def test_the_same_test_trains_nothing_again(found, home):
    events = []
    again = range_test("digits", path=home / "found", **{**SMALL, "progress": events.append})
    assert again == found
    assert {event.kind for event in events} <= {"note"}


def test_test_data_are_not_touched(found):
    pool = lre.Pool.open(found.pool)
    assert (pool.labels("test") == pool.labels("val")).all()
    splits = lre.load_data("digits", train_size=300, val_size=90, test_size=80)
    assert len(pool.labels("val")) == 90
    assert sorted(pool.labels("val")) == sorted(splits.val.y)


def test_a_grid_of_given_rates_says_where_it_is_open(tmp_path):
    asked = {"method": "grid", "lowest": 0.03, "highest": 0.1, "points": 3, "seeds": 2, "epochs": 6}
    result = range_test("digits", path=tmp_path / "pool", **asked, **SMALL)
    assert [one.rate for one in result.grid] == [0.03, 0.0548, 0.1]
    assert all(len(one.members) == 2 for one in result.grid)
    assert result.epochs == 6
    assert (result.open_below, result.open_above) == (True, True)
    assert "the higher end is that of the tested rates" in str(result)
    assert result.sweep == ()
    assert result.sweep_interval is None


def test_a_sweep_alone_is_one_training(tmp_path):
    asked = {"method": "sweep", "lowest": 1e-3, "highest": 30, "points": 18}
    result = range_test("digits", path=tmp_path / "pool", **asked, **SMALL)
    assert len(result.sweep) == 18
    assert len(lre.Pool.open(result.pool)) == 1
    assert 1e-3 < result.lowest < result.highest < 30
    assert result.grid == ()
    json.dumps(result.to_dict(), allow_nan=False)


def test_where_no_rate_learns(tmp_path):
    with pytest.raises(TrainingError, match="expected a learning rate at which the network learns"):
        range_test("digits", path=tmp_path / "pool", method="grid", lowest=1e-7, highest=1e-6, points=2, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_has_a_usable_range(optimizer, tmp_path):
    result = range_test("digits", path=tmp_path / "pool", method="grid", optimizer=optimizer, **SMALL)
    assert result.lowest < result.best <= result.highest
    assert not result.open_above


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"lowest": 0.1}, "together"),
        ({"points": 3}, "together"),
        ({"lowest": 1, "highest": 0.1}, "0 < lowest < highest"),
        ({"lowest": 0.1, "highest": 1, "points": 1}, "points"),
    ],
)
def test_wrong_requests_are_named(asked, message, tmp_path):
    with pytest.raises(InputError, match=message):
        range_test("digits", path=tmp_path / "pool", **asked, **SMALL)
    with pytest.raises(UnknownNameError, match="did you mean 'sweep'"):
        range_test("digits", path=tmp_path / "pool", method="sweeps", **SMALL)
    assert not (tmp_path / "pool").exists()


def test_a_large_set_is_seen_in_part_and_folds_by_their_first_network(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 5)), rng.integers(0, 3, 4000)
    shop = Workshop.open((x, y), batch_size=32, val_size=1500, test_size=100, progress=False)
    brief = short(shop, tmp_path / "pool")
    assert (len(brief.splits.train), len(brief.splits.val), brief.steps, brief.config.epochs) == (1024, 1000, 32, 3)
    assert set(map(tuple, brief.splits.train.x)) <= set(map(tuple, shop.splits.train.x))
    folded = Workshop.open((x, y), batch_size=32, folds=5, train_size=300, val_size=100, test_size=100, progress=False)
    part = short(folded, tmp_path / "folds").splits
    assert not set(map(tuple, part.train.x)) & set(map(tuple, part.val.x))
    assert len(part.train) + len(part.val) == 400


def test_the_loss_of_guessing():
    splits = lre.load_data("digits")
    assert chance_loss(splits) == pytest.approx(math.log(10), abs=0.01)
    one_class = replace(splits, train=lre.data.Split(splits.train.x[:900], np.r_[np.arange(10), np.full(890, 3)]))
    assert chance_loss(one_class) > 3  # it answers 3 with confidence


# --- policies="auto" ------------------------------------------------------------------------------------------------


def test_auto_is_the_default_preset_over_the_range_that_is_found(home, tmp_path):
    call = {**SMALL, "epochs": 1, "engine": "stacked", "save_weights": False}
    notes = []
    pool = lre.train_pool("digits", policies="auto", path=home / "auto", **{**call, "progress": notes.append})
    said = " ".join(event.text for event in notes if event.kind == "note")
    found = range_test("digits", path=range_path(home / "auto"), method="grid", **SMALL)
    assert f"presets over {found.recommended[0]:g} to {found.recommended[1]:g}" in said
    wanted = {parse_policy(policy) for policy in lre.preset("default", lr_range=found.recommended)}
    assert {parse_policy(pool.member(name).asked) for name in pool.ids} == wanted
    first = set(pool.ids)
    again = lre.train_pool("digits", policies=["auto", "FIX(0.05)"], path=home / "auto", **call)
    assert first < set(again.ids)
    assert len(again) == 17
    shutil.rmtree(range_path(home / "auto"))
    lre.train_pool("digits", policies="auto", path=home / "auto", **call)  # finds the same range again
    assert len(pool) == 17


def test_auto_takes_no_range(tmp_path):
    with pytest.raises(InputError, match="expected no range with the policies 'auto'"):
        lre.train_pool("digits", policies=["auto"], lr_range=(0.1, 1), path=tmp_path / "pool", **SMALL)
    assert not list(tmp_path.iterdir())


# --- the command and the figure -------------------------------------------------------------------------------------

FLAGS = [
    "--data",
    "digits",
    "--model",
    "mlp(hidden=16)",
    "--train-size",
    "300",
    "--val-size",
    "90",
    "--test-size",
    "80",
]
FLAGS += ["--jobs", "1", "--quiet"]


def test_the_command_prints_and_draws(found, home, tmp_path, capsys):
    out = tmp_path / "range.png"
    assert main(["range-test", "--pool", str(home / "found"), "--out", str(out), "--json", *FLAGS]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["recommended"] == list(found.recommended)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["range-test", "--pool", str(home / "found"), "--method", "grid", *FLAGS]) == 0
    assert capsys.readouterr().out.startswith(f"usable learning rates  {found.lowest:g} to {found.highest:g}")
    assert main(["range-test", "--out", "range.bmp", *FLAGS]) == 1
    assert "figure format" in capsys.readouterr().err


def test_the_figure_of_a_test_with_diverged_rates(found, tmp_path):
    lost = replace(found.grid[-1], loss=None, accuracy=None)
    result = replace(found, grid=(*found.grid[:-1], lost), sweep=())
    assert plot_range_test(result, tmp_path / "range.svg").read_text().count("<svg") == 1
    with pytest.raises(UnknownNameError, match="figure format"):
        plot_range_test(result, tmp_path / "range.gif")


def test_train_with_auto_in_a_process_of_its_own(tmp_path, command):
    flags = [flag for flag in FLAGS if flag != "--quiet"]
    done = command("train", tmp_path / "pool", "--policies", "auto", "--epochs", "1", *flags)
    assert "usable learning rates" in done.stderr
    assert len(lre.Pool.open(tmp_path / "pool")) == 16
