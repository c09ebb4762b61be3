"""The benchmark scripts run, on tiny sizes and without the packages that they compare with."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import lrensemble as lre
from lrensemble.metrics import METRICS

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch):
    """Import a script; the other packages cannot be imported, whether they are installed or not."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for package in ("autogluon", "tabarena"):
        monkeypatch.setitem(sys.modules, package, None)
    return importlib.import_module


@pytest.mark.parametrize("section", ["greedy", "hard", "exhaustive", "diversity", "disk", "memory", "first"])
def test_selection_sections_run(script, section, tmp_path, capsys, monkeypatch):
    selection = script("benchmark_selection")
    if section in ("disk", "memory", "first"):  # each figure takes a process of its own
        monkeypatch.setattr(selection, "METRICS", ("nll",))
    out = tmp_path / "out.json"
    selection.main(["--quick", "--only", section, "--json", str(out)])
    found = json.loads(out.read_text())["sections"][section]
    shown = capsys.readouterr()
    assert found["rows"]
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
    assert f"## {section}" in shown.out
    assert "FAILED" not in shown.out
    assert "NO" not in [cell for row in found["rows"] for cell in row]


def test_greedy_section_names_what_is_missing_and_agrees_with_the_reference(script, tmp_path):
    selection = script("benchmark_selection")
    section = selection.greedy(selection.QUICK)
    assert "pip install autogluon.core" in " ".join(section.notes)
    picked = section.columns.index("picks as naive")
    assert {row[picked] for row in section.rows} == {"all rounds"}


def test_sections_are_kept_and_resumed(script, tmp_path, capsys):
    selection = script("benchmark_selection")
    out = tmp_path / "out.json"
    selection.main(["--quick", "--only", "diversity", "--json", str(out)])
    before = json.loads(out.read_text())["sections"]["diversity"]
    selection.main(["--quick", "--only", "exhaustive", "--json", str(out)])
    selection.main(["--quick", "--only", "diversity", "--json", str(out), "--resume"])
    after = json.loads(out.read_text())["sections"]
    assert set(after) == {"diversity", "exhaustive"}
    assert after["diversity"] == before


def test_tables_go_between_the_markers_of_a_page(script, tmp_path):
    selection = script("benchmark_selection")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- machine -->\n<!-- /machine -->\nbetween\n<!-- hard -->old<!-- /hard -->\nafter\n")
    selection.main(["--quick", "--only", "hard", "--write", str(page)])
    text = page.read_text()
    assert text.startswith("before\n<!-- machine -->")
    assert text.endswith("<!-- /hard -->\nafter\n")
    assert "old" not in text
    assert "numpy" in text.partition("between")[0]
    with pytest.raises(SystemExit, match="diversity"):
        selection.main(["--quick", "--only", "diversity", "--write", str(page)])


def test_synthetic_pools_have_the_accuracy_asked_for_and_err_together(script):
    peers = script("benchmark_peers")
    logits, labels = peers.synthetic_logits(12, 4000, 10, accuracy=0.9)
    predictions = lre.Predictions.from_arrays(logits, labels)
    accuracies = predictions.correct.mean(axis=1)
    assert accuracies.mean() == pytest.approx(0.9, abs=0.01)
    assert np.ptp(accuracies) > 0.01
    both_wrong = (~predictions.correct[0] & ~predictions.correct[1]).mean()
    assert both_wrong > 2 * (1 - accuracies[0]) * (1 - accuracies[1])
    assert (predictions.probabilities.max(axis=2) == 1).mean() > 0.02  # saturated, as those of trained networks


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_naive_greedy_scores_are_the_metric(script, metric):
    peers = script("benchmark_peers")
    logits, labels = peers.synthetic_logits(5, 60, 3, accuracy=0.7)
    probabilities = lre.Predictions.from_arrays(logits, labels).probabilities
    picks, scores = peers.naive_greedy(probabilities, labels, metric, 4)
    team = probabilities[picks.order].mean(axis=0, dtype=float)
    expected = METRICS[metric].function(team, labels)
    assert abs(picks.scores[-1]) == pytest.approx(expected, rel=1e-6)
    assert all(row.max() == pytest.approx(taken) for row, taken in zip(scores, picks.scores, strict=True))


def test_agreement_tells_ties_from_errors(script):
    peers = script("benchmark_peers")
    scores = [np.array([0.5, 0.5, 0.4]), np.array([0.6, 0.5, 0.6])]
    reference = peers.Picks([0, 0], [0.5, 0.6])
    assert peers.agreement(peers.Picks([0, 0], []), reference, scores) == "all rounds"
    assert peers.agreement(peers.Picks([1, 0], []), reference, scores) == "0 of 2 rounds, then a tie"
    assert peers.agreement(peers.Picks([0, 1], []), reference, scores) == "1 of 2 rounds, then scores 0.1 apart"


def test_methods_run_on_a_pool(script, tmp_path, capsys):
    methods = script("benchmark_methods")
    peers = script("benchmark_peers")
    logits, labels = peers.synthetic_logits(4, 240, 3, accuracy=0.8)
    split = {"val_logits": logits[:, :120], "val_labels": labels[:120]}
    split |= {"test_logits": logits[:, 120:], "test_labels": labels[120:]}
    lre.import_arrays(tmp_path / "pool", **split)
    names = ["best", "whole", "random", "greedy", "exhaustive", "top-k"]
    out = tmp_path / "out.json"
    methods.main([str(tmp_path / "pool"), "--methods", *names, "--resplits", "2", "--json", str(out)])
    runs = json.loads(out.read_text())["pools"]["pool"]["tables"]["nll"]["methods"]
    assert set(runs) == set(names)
    expected = METRICS["nll"].function(
        lre.Predictions.from_arrays(logits[:, 120:], labels[120:]).probabilities.mean(axis=0, dtype=float), labels[120:]
    )
    assert runs["whole"]["test"]["nll"] == pytest.approx(expected, rel=1e-6)
    assert runs["exhaustive"]["validation"] <= min(runs[name]["validation"] for name in names if name != "greedy")
    assert "| **whole**" in capsys.readouterr().out


def test_methods_that_chose_the_same_team_share_a_letter(script):
    methods = script("benchmark_methods")
    team = {"a": 0.5, "b": 0.5}
    runs = {name: {"team": team, "stacked": False} for name in ("x", "y")}
    runs |= {"z": {"team": {"a": 1.0}, "stacked": False}, "random": {"team": None, "stacked": False}}
    assert {name: run["mark"] for name, run in methods.marked(runs).items()} == {
        "x": "a",
        "y": "a",
        "z": "",
        "random": "",
    }


def test_scripts_ask_for_pools(script, capsys):
    with pytest.raises(SystemExit):
        script("benchmark_methods").main([])
    assert "expected pools" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # those of another package
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@pytest.mark.parametrize("seed", range(4))
def test_autogluon_picks_the_same_until_a_tie(metric, seed, monkeypatch):
    """With `pip install autogluon.core`; it breaks ties at random and rounds scores to six decimals."""
    pytest.importorskip("autogluon.core")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    peers = importlib.import_module("benchmark_peers")
    logits, labels = peers.synthetic_logits(12, 3000, 5, accuracy=0.8, seed=seed)
    predictions = lre.Predictions.from_arrays(logits, labels)
    theirs = peers.PEERS["AutoGluon"].load()(predictions.probabilities, labels, metric, 12)
    ours, (_, scores) = (
        peers.our_picks(predictions, metric, 12),
        peers.naive_greedy(predictions.probabilities, labels, metric, 12),
    )
    for row, pick, expected in zip(scores, theirs.order, ours.order, strict=True):
        if pick != expected:
            assert abs(row[pick] - row[expected]) <= peers.DECIMALS
            return


@pytest.mark.parametrize("section", ["whole", "members", "overhead", "engines"])
def test_training_sections_run(script, section, tmp_path, capsys):
    training = script("benchmark_training")
    out = tmp_path / "out.json"
    training.main(["--quick", "--only", section, "--repeats", "1", "--json", str(out)])
    found = json.loads(out.read_text())[section]
    assert found["rows"]
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
    assert f"## {section}" in capsys.readouterr().out


def test_the_plain_loop_sees_the_pixels_that_the_pool_sees(script):
    pytest.importorskip("torchvision")
    training = script("benchmark_training")
    splits = lre.load_data("mnist5k", train_size=50, val_size=50, test_size=50)
    case = training.Case("x", "mnist5k", "lenet", 1, 1, (50, 50, 50))
    images = training.data_set(splits, "test", case)
    for i in (0, 7, 49):
        x, y = images[i]
        np.testing.assert_allclose(x.numpy(), splits.test.x[i], atol=1e-5)
        assert y == splits.test.y[i]


@pytest.mark.parametrize(("section", "rows"), [("ensemble", 6), ("policies", 6), ("shares", 7)])
def test_tuning_sections_run_and_are_written(script, section, rows, tmp_path, capsys):
    tuning = script("benchmark_tuning")
    out, page = tmp_path / "out.json", tmp_path / "page.md"
    page.write_text(f"<!-- tuning-{section} -->\n<!-- /tuning-{section} -->\n")
    tuning.main(["--quick", "--jobs", "1", "--only", section, "--json", str(out), "--write", str(page)])
    found = json.loads(out.read_text())[section]
    assert len(found["rows"]) <= rows
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
    assert found["rows"][1][0] in page.read_text()
    assert f"## {section}" in capsys.readouterr().out


def test_each_way_to_spend_trainings_spends_the_same(script, tmp_path):
    tuning = script("benchmark_tuning")
    args = tuning.parse_arguments(["--quick", "--jobs", "1"])
    ways = tuning.one_split(args, tuning.cases(args)[0], 0, tmp_path)
    assert {way: scores["trainings"] for way, scores in ways.items()} == {
        way: 1 if way == "tune, keep the best" else args.trainings for way in ways
    }
