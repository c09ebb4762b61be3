import dataclasses

import pytest

from lrensemble.errors import InputError
from lrensemble.experiment import Compute, Data, Experiment, Selection, read_toml
from lrensemble.training.config import TrainConfig

FULL = Experiment(
    model="lenet",
    policies=("default", "FIX(0.1)"),
    seeds=(3, 14),
    lr_range=(0.01, 0.1),
    pool="somewhere",
    data=Data(name="mnist5k", train_size=1000, val_size=0.2, root="there", resize=32),
    train=TrainConfig(epochs=3, optimizer="adam", clip_norm=1.0),
    selection=Selection(
        methods=("greedy", "top-k"),
        metric="accuracy",
        size=3,
        resplits=0,
        options={"greedy": {"rounds": 50, "replacement": False}, "auto": {"candidates": ["top-k", "greedy(bags=3)"]}},
    ),
    compute=Compute(jobs=2, device="cpu"),
)


@pytest.mark.parametrize("plan", [Experiment(), FULL])
def test_toml_round_trip(plan, tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text(plan.to_toml())
    assert Experiment.load(path) == plan


def test_schema_knows_every_setting():
    schema = Experiment.json_schema()
    assert set(schema["properties"]) == {f.name for f in dataclasses.fields(Experiment)}
    assert "epochs" in schema["$defs"]["TrainConfig"]["properties"]
    assert {"resplits", "options"} <= set(schema["$defs"]["Selection"]["properties"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = 'two'", r"bad\.toml, line 1: seeds: expected a whole number or a list, got 'two'"),
        ("seeds = '2'", r"line 1: seeds: expected a whole number or a list, got '2'"),
        ("seeds = true", r"line 1: seeds: expected a whole number or a list, got True"),
        ("seeds = 2.0", r"line 1: seeds: expected a whole number or a list, got 2\.0"),
        ("policies = 'default'", r"line 1: policies: expected a list, got 'default'"),
        ("lr_range = [0.1]", r"line 1: lr_range: expected a list of two, got \[0\.1\]"),
        ("lr_range = [0.1, 0.2, 0.3]", r"line 1: lr_range: expected a list of two, got \[0\.1, 0\.2, 0\.3\]"),
        ("pool = ''", r"line 1: pool: expected the path of a folder, got an empty text"),
        ("[data]\ntrain_size = '200'", r"line 2: data\.train_size: expected a whole number or a number, got '200'"),
        ("[train]\nmomentum = nan", r"line 2: train\.momentum: expected a number in \[0, 1\), got nan"),
        ("[train]\nclip_norm = true", r"line 2: train\.clip_norm: expected a number, got True"),
        ("[train]\ncommon_seed = 1", r"line 2: train\.common_seed: expected true or false, got 1"),
        ("[selection]\nmethods = ['best', 'best']", r"line 2: selection\.methods: .*each selection method once"),
        ("[compute]\njobs = 1979-05-27", r"line 2: compute\.jobs: expected a whole number, got datetime"),
        ("x = " + "[" * 5000 + "]" * 5000, r"bad\.toml: expected TOML, got .*nested too deeply"),
        ("seeds = 1\nmodle = 'mlp'", r"line 2: modle: unknown setting: did you mean 'model'\?"),
        ("[train]\nbatch_size = 8\nepoch = 5", r"line 3: train\.epoch: unknown setting: did you mean 'epochs'\?"),
        (
            "[train]\n\nepochs = 0",
            r"bad\.toml, line 3: train\.epochs: expected .* 1 to 1,000,000,000, got 0",
        ),
        ("[data]\nname = 3", r"line 2: data\.name: expected a text, got 3"),
        ("train = 5", r"line 1: train: expected a table of settings, got 5"),
        (
            "[selection.options.greedy]\nrounds = 'many'",
            r"line 2: selection\.options\.greedy\.rounds: expected rounds as an integer or None, got 'many'",
        ),
        (
            "[selection.options.top-k]\nrounds = 2",
            r"line 2: selection\.options\.top-k\.rounds: method 'top-k' has no option 'rounds'",
        ),
        (
            "[selection]\noptions.gredy.rounds = 2",
            r"line 2: selection\.options\.gredy\.rounds: unknown selection method 'gredy': did you mean 'greedy'",
        ),
        ("[selection.options]\ngreedy = 3", r"line 2: selection\.options\.greedy: expected a table of settings, got 3"),
        ("[selection]\noptions = 3", r"line 2: selection\.options: expected a table of settings, got 3"),
        ("[selection]\nresplits = 1", r"expected resplits as 0 or at least 2, got 1"),
        ("[selection]\nresplits = -1", r"expected resplits as an integer ≥ 0, got -1"),
        ("seeds = = 1", r"syntax error: .*line 1"),
        ("policies = [1]", r"line 1: policies\.0: expected a text, got 1"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Experiment.load(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")


def test_files_of_windows_editors(tmp_path):
    path = tmp_path / "windows.toml"
    path.write_bytes("\ufeffseeds = 3\r\n[train]\r\nepochs = 2\r\n".encode())
    assert (Experiment.load(path).seeds, Experiment.load(path).train.epochs) == (3, 2)
    path.write_bytes("model = 'ü'".encode("latin-1"))
    with pytest.raises(InputError, match="expected TOML as UTF-8 text"):
        Experiment.load(path)


def test_whole_numbers_are_numbers():
    plan = Experiment.from_dict({"lr_range": [1, 2], "train": {"momentum": 0}, "data": {"train_size": 0.5}})
    assert (plan.lr_range, plan.train.momentum, plan.data.train_size) == ((1.0, 2.0), 0.0, 0.5)
