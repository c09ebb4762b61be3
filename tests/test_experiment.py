import dataclasses

import pytest

from lrensemble.errors import InputError
from lrensemble.experiment import Compute, Data, Experiment, Selection, read_toml
from lrensemble.training.config import TrainConfig

FULL = Experiment(
    model="lenet",
    policies=("default", "FIX(0.1)"),
    seeds=3,
    lr_range=(0.01, 0.1),
    pool="somewhere",
    data=Data(name="mnist5k", train_size=1000, val_size=0.2, root="there"),
    train=TrainConfig(epochs=3, optimizer="adam", clip_norm=1.0),
    selection=Selection(methods=("greedy", "top-k"), metric="accuracy", size=3),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = 'two'", r"bad\.toml, line 1: seeds: expected a valid integer.*got 'two'"),
        ("seeds = 1\nmodle = 'mlp'", r"line 2: modle: unknown setting: did you mean 'model'\?"),
        ("[train]\nbatch_size = 8\nepoch = 5", r"line 3: train\.epoch: unknown setting: did you mean 'epochs'\?"),
        ("[train]\n\nepochs = 0", r"bad\.toml, line 1: train: .*epochs"),
        ("[data]\nname = 3", r"line 2: data\.name: expected a valid string, got 3"),
        ("train = 5", r"line 1: train: expected a table of settings, got 5"),
        ("seeds = = 1", r"syntax error: .*line 1"),
        ("policies = [1]", r"line 1: policies\.0: expected a valid string, got 1"),
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
