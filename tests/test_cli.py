"""The command line, through real processes."""

import json
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import ROAD

import lrensemble as lre
from lrensemble.cli.common import parse_options
from lrensemble.cli.list_ import TABLES
from lrensemble.cli.main import COMMANDS, main


def fails(capsys, *arguments, code=1):
    """Run the command in this process, expect it to fail, and return its one line."""
    assert main([str(a) for a in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


# --- the road -------------------------------------------------------------------------------------------------------


def test_run_prints_table_verdict_and_paths(road):
    pool, done = road
    assert "best single" in done.stdout
    assert "95 % interval" in done.stdout
    for name in ("pool", "ensemble", "report", "figure"):
        path = re.search(rf"^{name}\s+(\S+)$", done.stdout, flags=re.M)[1]
        assert os.path.exists(path)
    assert (pool / "experiment.toml").exists()


def test_progress_of_a_pipe_is_readable(road):
    _, done = road
    assert done.stderr.isprintable() or set(done.stderr) - {"\n"} <= {c for c in done.stderr if c.isprintable()}
    assert len(re.findall(r"val acc", done.stderr)) == 4


def test_running_again_trains_nothing(road, command):
    pool, _ = road
    before = {p.name: p.stat().st_mtime_ns for p in (pool / "members").iterdir()}
    again = json.loads(command("run", *ROAD, "--pool", pool, "--json", cwd=pool.parent).stdout)
    assert {p.name: p.stat().st_mtime_ns for p in (pool / "members").iterdir()} == before
    assert again["n_members"] == 4


def test_run_says_where_each_ensemble_is(road, capsys, tmp_path):
    shutil.copytree(road[0], tmp_path / "copy")
    methods = ["--method", "greedy", "whole", "--resplits", "0"]
    assert main(["run", *ROAD, "--pool", str(tmp_path / "copy"), *methods, "--quiet"]) == 0
    printed = capsys.readouterr().out
    for label, stem in (("ensemble", "greedy-nll"), ("ensemble 2", "whole-nll")):
        path = re.search(rf"^{label} +(\S*{stem}\S*\.json)$", printed, flags=re.M)[1]
        assert os.path.exists(path)


def test_run_from_its_own_experiment_file(road, command, tmp_path):
    pool, _ = road
    shutil.copytree(pool, tmp_path / "copy")
    done = command("run", pool / "experiment.toml", "--pool", tmp_path / "copy", "--json", "--quiet", cwd=tmp_path)
    assert done.stderr == ""
    assert json.loads(done.stdout)["n_members"] == 4


def test_commands_are_twins_of_the_library(road, command, tmp_path):
    folder, _ = road
    pool = lre.Pool.open(folder)
    out = tmp_path / "e.json"
    printed = json.loads(command("select", folder, "--metric", "accuracy", "--out", out, "--json").stdout)
    ensemble = lre.select(pool, metric="accuracy", resplits=20)
    assert tuple(printed["members"]) == ensemble.members
    assert lre.Ensemble.load(out) == ensemble
    report = json.loads(command("evaluate", folder, out, "--json").stdout)
    expected = lre.evaluate(pool, ensemble).to_dict()
    assert {key: report[key] for key in expected} == json.loads(json.dumps(expected))


def test_select_takes_options_of_the_method(road, capsys):
    folder, _ = road
    assert (
        main(["select", str(folder), "--option", "rounds=1", "replacement=False", "--out", str(folder / "x.json")]) == 0
    )
    assert len(lre.Ensemble.load(folder / "x.json")) == 1
    capsys.readouterr()
    assert "rounds" in fails(capsys, "select", folder, "--option", "round=1")
    assert "KEY=VALUE" in fails(capsys, "select", folder, "--option", "rounds")
    (folder / "x.json").unlink()
    assert "rounds twice" in fails(capsys, "select", folder, "--option", "rounds=1", "--option", "rounds=2")
    for key in ("method", "source", "metric", "size"):
        assert f"got {key}" in fails(capsys, "select", folder, "--option", f"{key}=1")
    assert "rounds" in fails(capsys, "select", folder, "--option", f"rounds={'-' * 100000}1")
    for out in ("", folder):
        assert "a file to write as --out" in fails(capsys, "select", folder, "--out", out)


def test_options_may_be_written_as_in_experiment_files():
    assert parse_options(["replacement=false", "keep_best=True", "init=0"]) == {
        "replacement": False,
        "keep_best": True,
        "init": 0,
    }


def test_wrong_kinds_of_options_are_one_line(road, capsys):
    folder, _ = road
    for option, says in {
        "rounds=many": "expected rounds as an integer or None, got 'many'",
        "replacement=1": "expected replacement as True or False, got 1",
        "bag_fraction=True": "expected bag_fraction as a number, got True",
        "rouns=3": "did you mean 'rounds'",
    }.items():
        assert says in fails(capsys, "select", folder, "--option", option)
    assert "got 1" in fails(capsys, "select", folder, "--resplits", "1")
    assert list((folder / "ensembles").glob("*many*")) == []


def test_select_shows_what_the_choice_is_worth(road, command, tmp_path):
    folder, _ = road
    shown = command("select", folder, "--method", "auto", "--out", tmp_path / "auto.json").stdout
    assert re.search(r"cross-validated nll \d\.\d{4} ± \d\.\d{4} \(20 re-splits\), optimism", shown)
    assert "(chosen)" in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 100
    plain = command("select", folder, "--resplits", "0", "--out", tmp_path / "plain.json").stdout
    assert "cross-validated" not in plain
    assert lre.Ensemble.load(tmp_path / "plain.json").resplit == {}


def test_explain_is_the_twin_of_the_library(road, command, capsys, tmp_path):
    folder, _ = road
    path = folder / "ensembles" / "greedy-nll.json"
    printed = command("explain", folder, path, "--json").stdout
    found = lre.explain(lre.Pool.open(folder), lre.Ensemble.load(path))
    # one process may sum by compiled kernels and the other by numpy, which differ in the last digit
    one, other = (
        json.loads(text, parse_float=lambda digits: round(float(digits), 9))
        for text in (printed, json.dumps(found.to_dict()))
    )
    assert one == other
    assert main(["explain", str(folder), str(path)]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    assert main(["explain", str(folder), str(path), "--metric", "accuracy"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert "did you mean 'accuracy'" in fails(capsys, "explain", folder, path, "--metric", "acuracy")
    assert "cannot be read" in fails(capsys, "explain", folder, tmp_path / "none.json")
    other = lre.Ensemble(("x",), (1.0,), fingerprint="0" * 64).save(tmp_path / "e.json")
    assert "another pool" in fails(capsys, "explain", folder, other)


def test_another_request_has_another_file(road, capsys):
    folder, _ = road
    for flags in ([], ["--option", "rounds=3"], ["--rule", "median", "--size", "2"], ["--option", "bags=2"]):
        assert main(["select", str(folder), "--resplits", "0", *flags]) == 0
    capsys.readouterr()
    names = {"greedy-nll", "greedy-nll-rounds3", "greedy-nll-median-size2", "greedy-nll-bags2"}
    assert names <= {path.stem for path in (folder / "ensembles").iterdir()}
    assert lre.Ensemble.load(folder / "ensembles" / "greedy-nll-rounds3.json").options["rounds"] == 3
    for name in names - {"greedy-nll"}:
        (folder / "ensembles" / f"{name}.json").unlink()


def test_inspect_shows_members_and_no_test_scores(road, command):
    folder, _ = road
    info = json.loads(command("inspect", folder, "--verify", "--json").stdout)
    assert len(info["members"]) == 4
    assert {"id", "policy", "seed", "status", "val_accuracy"} <= set(info["members"][0])
    assert not any("test" in key for key in info["members"][0])
    assert info["problems"] == []
    text = command("inspect", folder).stdout
    assert all(member["id"] in text for member in info["members"])


def test_import_select_evaluate(command, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("val", "test"):
        np.save(tmp_path / f"{split}.npy", rng.normal(size=(3, 40, 4)).astype(np.float32))
        np.save(tmp_path / f"{split}y.npy", np.arange(40) % 4)
    arrays = [
        "--val-logits",
        "val.npy",
        "--test-logits",
        "test.npy",
        "--val-labels",
        "valy.npy",
        "--test-labels",
        "testy.npy",
    ]
    command("import", "mine", *arrays, "--names", "a,b,c", cwd=tmp_path)
    command("select", "mine", "--method", "exhaustive", cwd=tmp_path)
    done = command("evaluate", "mine", "mine/ensembles/exhaustive-nll.json", cwd=tmp_path)
    assert "best single" in done.stdout


def test_schema_of_experiment_files(capsys):
    assert main(["run", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$defs"]["TrainConfig"]


# --- listings and policies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_every_table_lists(table, capsys):
    assert main(["list", table]) == 0
    text = capsys.readouterr().out
    assert main(["list", table, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries
    for name, description in entries.items():
        assert name in text
        assert description
    assert max(map(len, text.splitlines())) <= 120


def test_metrics_are_listed_with_their_direction(capsys):
    assert main(["list", "metrics", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["nll"].endswith("(lower is better)")
    assert listed["accuracy"].endswith("(higher is better)")


def test_selectors_are_listed_with_their_options(capsys):
    assert main(["list", "selectors"]) == 0
    text = capsys.readouterr().out
    assert main(["list", "selectors", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries["greedy"]["options"]["replacement"] is True
    assert entries["whole"]["options"] == {}
    for entry in entries.values():
        assert all(f"{name}=" in text for name in entry["options"])
    assert max(map(len, text.splitlines())) <= 100


def test_policies(tmp_path, capsys):
    assert main(["policies", "list"]) == 0
    assert "TRIEXP" in capsys.readouterr().out
    assert main(["policies", "list", "--json"]) == 0
    assert "TRIEXP" in json.loads(capsys.readouterr().out)["policies"]
    text = "TRI2(k0=0.01, k1=0.06, l=100)"
    assert main(["policies", "show", text, "--steps", "800", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    np.testing.assert_array_equal(shown["lr"], lre.parse_policy(text)(np.arange(800)))
    assert main(["policies", "show", "default"]) == 0
    assert "lowest" in capsys.readouterr().out
    out = tmp_path / "p.png"
    assert main(["policies", "plot", "default", text, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


# --- help and usage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert COMMANDS[name].__doc__.splitlines()[0].split(": ", 1)[1][1:40] in " ".join(capsys.readouterr().out.split())


def test_help_is_light(command):
    assert "usage: lrensemble" in command("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["trian"], "did you mean 'train'"),
        (["run", "--epochs", "ten"], "--epochs: expected a whole number, got 'ten'"),
        (["run", "--momentum", "x"], "--momentum: expected a number, got 'x'"),
        (["run", "--train-size", "x"], "--train-size: expected a number, got 'x'"),
        (["policies", "show", "FIX(0.1)", "--steps", "1.5"], "expected a whole number, got '1.5'"),
        (["run", "--nothing"], "unrecognized arguments: --nothing"),
        (["list", "nothing"], "invalid choice"),
        (["evaluate", "pool"], "ENSEMBLE.json"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert message in fails(capsys, *arguments, code=2)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digit"], "did you mean 'digits'"),
        (["--model", "lennet"], "did you mean 'lenet'"),
        (["--policies", "TRIE(0.1)"], "TRI"),
        (["--policies", "FIX(-1)"], "FIX"),
        (["--optimizer", "adamx"], "did you mean 'adam"),
        (["--epochs", "0"], "epochs"),
        (["--seeds", "0"], "seeds"),
        (["--epochs", "10000000000000000000000"], "from 1 to 1,000,000,000"),
        (["--seeds", "99999999999"], "from 1 to 100,000"),
        (["--augment", "sin"], "auto"),
        (["--jobs", "0"], "jobs"),
        (["--train-size", "5000"], "5,?000"),
        (["--train-size", "5"], "class"),
        (["--train-size", "-5"], "got -5$"),
        (["--weight-decay", "inf"], "^lrensemble: error: train.weight_decay: expected"),
        (["--pool", ""], "^lrensemble: error: pool: expected the path of a folder"),
        (["--data", ""], "got an empty text"),
        (["--method", "greedy", "--method", "best", "--method", "greedy"], "each selection method once"),
        (["--model", "mlp(hidden=1000000000000)"], "network that this machine can hold"),
        (["--model", f"mlp(hidden={10**30})"], "network that this machine can hold"),
        ([""], "cannot be read"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--augment", "spin"], "augment"),
        (["--method", "gredy"], "did you mean 'greedy'"),
        (["--metric", "acuracy"], "did you mean 'accuracy'"),
        (["--rule", "mean"], "rule"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--data", "nopackage.module:function"], "nopackage"),
        (["--data", "torchvision:CIFAR11"], "CIFAR10"),
        (["none.toml"], "cannot be read"),
        (["--option", "greedy.rounds=x"], "^lrensemble: error: selection.options.greedy.rounds: expected rounds as an"),
        (["--option", "greedy.round=3"], "did you mean 'rounds'"),
        (["--option", "gredy.rounds=3"], "did you mean 'greedy'"),
        (["--option", "rounds=3"], "METHOD.KEY=VALUE, such as greedy.rounds=3"),
        (["--option", "greedy.rounds"], "KEY=VALUE"),
        (["--option", "greedy.rounds=3", "greedy.rounds=4"], "greedy.rounds twice"),
        (["--resplits", "1"], "selection: expected resplits as 0 or at least 2"),
        (["--calibrate", "all"], "calibrate"),
    ],
)
def test_bad_input_of_run_is_one_line_and_leaves_nothing(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, fails(capsys, "run", "--quiet", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_a_flag_is_not_blamed_on_the_file(capsys, tmp_path):
    file = tmp_path / "e.toml"
    file.write_text("[train]\nepochs = 3\n")
    assert fails(capsys, "run", file, "--epochs", "0").startswith("lrensemble: error: train.epochs: ")


def test_bytes_that_are_no_text(capsys):
    assert "Unicode" in fails(capsys, "run", "--data", "mine\udcff.npz")


def test_terminals_that_cannot_show_or_take_the_output(command):
    assert "accuracy" in command("list", "metrics", env={"PYTHONIOENCODING": "ascii"}).stdout
    closed = "import sys; sys.stdout = None; from lrensemble.cli import main; sys.exit(main(['list', 'metrics']))"
    done = subprocess.run([sys.executable, "-c", closed], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("what", ["data", "model"])
def test_code_that_prints_or_exits(what, capsys, tmp_path, monkeypatch):
    """What the user's code prints is no result; its exit is a failure, also with code 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"talking_{what}.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        "from torch import nn\n"
        "def leave(**_):\n"
        "    sys.exit()\n"
        "def data():\n"
        "    print('noise')\n"
        "    return np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 3\n"
        "def model(input_shape, n_classes):\n"
        "    print('noise')\n"
        "    return nn.Linear(*input_shape, n_classes)\n"
    )
    module = f"talking_{what}"
    rest = ["--policies", "FIX(0.1)", "--epochs", "1", "--jobs", "1", "--quiet"]
    assert "sys.exit(None)" in fails(capsys, "run", f"--{what}", f"{module}:leave", *rest)
    settings = ["--data", f"{module}:data", "--model", f"{module}:model", "--pool", "pool", "--json"]
    assert main(["run", *settings, *rest]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["n_members"] == 1
    assert "noise" in captured.err


@pytest.mark.parametrize("name", ["select", "inspect"])
def test_a_folder_that_is_no_pool(name, capsys, tmp_path):
    assert "pool" in fails(capsys, name, tmp_path)
    assert "pool" in fails(capsys, name, tmp_path / "missing")


def test_a_pool_of_another_version(road, capsys, tmp_path):
    shutil.copytree(road[0], tmp_path / "pool")
    with h5py.File(tmp_path / "pool" / "pool.h5", "r+") as file:
        file.attrs["version"] = 99
    assert "99" in fails(capsys, "inspect", tmp_path / "pool")


def test_a_damaged_member_is_set_aside_and_trained_again(road, command, tmp_path):
    shutil.copytree(road[0], tmp_path / "pool")
    victim = sorted((tmp_path / "pool" / "members").iterdir())[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    info = json.loads(command("inspect", tmp_path / "pool", "--json").stdout)
    assert len(info["members"]) == 3
    assert victim.name in json.dumps(info["problems"])
    command("run", *ROAD, "--pool", tmp_path / "pool", cwd=tmp_path)
    healed, original = lre.Pool.open(tmp_path / "pool"), lre.Pool.open(road[0])
    np.testing.assert_array_equal(healed.predictions("test").logits, original.predictions("test").logits)


def test_what_verifying_finds_is_said_once(road, command, tmp_path):
    shutil.copytree(road[0], tmp_path / "pool")
    victim = sorted((tmp_path / "pool" / "members").iterdir())[0]
    content = bytearray(victim.read_bytes())
    with h5py.File(victim) as file:
        content[file["logits/test"].id.get_offset()] ^= 1
    victim.write_bytes(content)
    done = command("inspect", tmp_path / "pool", "--verify", expect=1)
    assert done.stdout.count("logits/test") == 1
    found = done.stdout.count("problem: ")  # an ensemble may have lost a member
    assert done.stderr == f"lrensemble: error: expected a sound pool, got one with {found} problem(s), listed above\n"


def test_an_ensemble_that_is_given_twice(road, capsys):
    paths = [road[0] / "ensembles" / name for name in ("a.json", "b.json", "a.json")]
    assert f"each ensemble once, got '{paths[0]}' 2 times" in fails(capsys, "evaluate", road[0], *paths)


def test_an_ensemble_of_another_pool(road, capsys, tmp_path):
    ensemble = lre.Ensemble(("x",), (1.0,), fingerprint="0" * 64).save(tmp_path / "e.json")
    assert "another pool" in fails(capsys, "evaluate", road[0], ensemble)
    assert "cannot be read" in fails(capsys, "evaluate", road[0], tmp_path / "none.json")


def test_a_pool_on_other_data_is_not_mixed(road, capsys):
    assert "pool" in fails(capsys, "train", road[0], "--data", "wine", "--epochs", "1", "--quiet")


def test_interruption_exits_130_and_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lrensemble.road.run", interrupt)
    assert "the same command goes on" in fails(capsys, "run", code=130)
    monkeypatch.setattr("lrensemble.pool.Pool.open", interrupt)  # nothing is half done that would go on
    assert fails(capsys, "select", "pool", code=130) == "lrensemble: interrupted\n"


@pytest.mark.parametrize(
    ("error", "message"), [(MemoryError(), "out of memory"), (OSError(28, "No space left"), "No space")]
)
def test_failures_of_the_machine_are_one_line(error, message, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("lrensemble.road.run", fail)
    assert message in fails(capsys, "run")
