"""Tables and figures: what they say, what they write, and that they leave no global state."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from lrensemble.ensemble import Ensemble
from lrensemble.errors import InputError, PoolError
from lrensemble.evaluation import Report, evaluate
from lrensemble.predictions import Predictions
from lrensemble.reporting import (
    ensemble_table,
    figures,
    members_table,
    plain_table,
    plot_policies,
    plot_report,
    pool_summary,
    report_table,
)
from lrensemble.stacker import Stacker


def make_report(m=8, failures=0, seed=0, n=200, team=3, **options):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 6, 2 * n)
    z = 2.5 * np.eye(6)[y] + rng.normal(size=(m, 2 * n, 6))
    z[:failures] *= 0.0
    val, test = (
        Predictions.from_arrays(z[:, rows], y[rows], split=split)
        for split, rows in (("val", slice(0, n)), ("test", slice(n, None)))
    )
    names = val.ids[-team:]
    return evaluate(
        test,
        Ensemble(names, (1 / team,) * team, method="greedy", metric="nll", **options),
        validation=val,
        bootstrap=100,
    )


REPORT = make_report()


def summary(name="m0", *, accuracy=0.9, status="done", **changes):
    values = {
        "id": name,
        "policy": "FIX(k0=0.1)",
        "asked": "FIX(0.1)",
        "model": "mlp",
        "seed": 0,
        "status": status,
        "seconds": 1.25,
        "val_accuracy": accuracy,
        "val_nll": None if accuracy is None else 0.5,
        "extra": {},
    }
    return SimpleNamespace(**{**values, **changes})


def svg_text(path):
    """All text of an SVG figure (text is kept as text)."""
    return " ".join(
        "".join(node.itertext()) for node in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def test_plain_table_aligns_numbers_right_and_text_left():
    lines = plain_table([("fix", "1.5"), ("cosine", "10.25")], "name", "rate").splitlines()
    assert lines[0].split() == ["name", "rate"]
    assert lines[2].startswith("fix ")
    assert lines[2].endswith(" 1.5")
    assert lines[3].endswith("10.25")
    assert plain_table([], "name", "rate").splitlines()[0].split() == ["name", "rate"]
    assert plain_table([(3, None)], "step", "note").splitlines()[-1].strip() == "3"


def test_members_are_ranked_and_diverged_ones_shown_as_such():
    text = members_table(
        [
            summary("low", accuracy=0.5),
            summary("lost", accuracy=None, status="diverged"),
            summary("high", accuracy=0.95),
        ]
    )
    names = [line.split()[0] for line in text.splitlines()[2:]]
    assert names == ["high", "low", "lost"]
    assert "95.00" in text
    assert "diverged" in text.splitlines()[-1]
    assert "model" not in text


def test_members_table_fits_long_names_and_shows_models_where_they_differ():
    long = summary(
        "x" * 60, asked="[" + " | ".join(["COS(k0=0.001, k1=0.1, l=10) @ 0.5"] * 4) + "]", model="resnet(depth=8)"
    )
    text = members_table([long, summary()])
    assert max(map(len, text.splitlines())) <= 110
    assert "resnet(depth=8)" in text


def test_snapshots_say_which_moment_they_keep():
    text = members_table([summary("end"), summary("part", extra={"snapshot": "cycle", "epoch": 3, "step": 12})])
    assert "cycle, epoch 3" in text
    assert "snapshot" not in members_table([summary("end")])


def test_pool_summary_shows_short_facts_and_members():
    info = {
        "name": "digits",
        "n_members": 1200,
        "classes": ["a", "b"],
        "ensembles": [f"e{i}" for i in range(99)],
        "members": [{"id": "m0"}],
        "none": None,
        "samples": {"val": 10},
        "problems": [{"file": "members/m7.h5", "found": "half a file"}],
    }
    text = pool_summary(info, [summary()])
    assert "1,200" in text
    assert "a, b" in text
    assert "val 10" in text
    assert "99: e0, e1, " in text
    assert "\nmembers" not in text
    assert "none" not in text
    assert text.splitlines()[-1].startswith("problem: file members/m7.h5")
    assert "FIX(0.1)" in text
    assert "network" in pool_summary({}, [])


def test_ensemble_table():
    ensemble = Ensemble(
        ("a", "b"), (0.25, 0.75), method="greedy", metric="nll", score=0.125, n_samples=1000, n_candidates=9
    )
    text = ensemble_table(ensemble)
    assert "2 of 9 networks" in text
    assert "nll there 0.1250 (lower is better)" in text
    assert "1,000 samples" in text
    assert text.index("0.7500") < text.index("0.2500")


def test_ensemble_table_shows_what_was_fitted_and_no_minus_zero():
    stacker = Stacker("scalar", (0.5, -0.25), (0.0, 0.0))
    found = {"score": 0.5, "standard_error": 0.1, "splits": 20, "optimism": -1e-9, "gain": 0.0}
    ensemble = Ensemble(
        ("a", "b"),
        (0.6, 0.4),
        method="stacking",
        metric="worst",
        score=0.5,
        n_samples=10,
        stacker=stacker,
        resplit={**found, "gain_standard_error": 0.0},
    )
    text = ensemble_table(ensemble)
    assert "stacking (scalar)" in text
    assert "(higher is better)" in text  # of a callable, which is maximised
    assert re.search(r"^b +0.4000 +−0.2500$", text, flags=re.M)
    assert "−0.0000" not in text


def test_report_table_is_the_first_part_of_the_reports_text():
    assert str(REPORT).startswith(report_table(REPORT))


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_formats_by_suffix(tmp_path, suffix):
    path = tmp_path / "new" / f"report{suffix}"
    assert plot_report(REPORT, str(path)) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix.lower()]
    assert path.read_bytes().startswith(magic)


def test_unknown_format_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"figure format '\.jpg'.*\.png, \.svg, \.pdf"):
        plot_report(REPORT, tmp_path / "report.jpg")
    assert not list(tmp_path.iterdir())


def test_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PoolError, match="cannot be written"):
        plot_report(REPORT, tmp_path / "file" / "report.png")


def test_report_figure_names_every_system_and_says_the_outcome(tmp_path):
    text = svg_text(plot_report(REPORT, tmp_path / "r.svg"))
    for row in REPORT.rows:
        if row.system != REPORT.reference:
            assert f"{row.system}, n\u00a0=\u00a0{row.size}" in text
            gain = REPORT.comparison(row.system).differences["accuracy"]
            numbers = [f"{100 * value:+.2f}" if value else "0.00" for value in (gain.value, gain.low, gain.high)]
            assert "{}  [{}, {}]".format(*numbers).replace("-", "−") in text
    assert "validation accuracy, %" in text
    assert "test accuracy, %" in text
    assert "points of accuracy" in text
    assert f"best single network: {100 * REPORT.row(REPORT.reference).metrics['accuracy'].value:.2f} %" in text


def test_report_figure_from_saved_report(tmp_path):
    first = plot_report(REPORT, tmp_path / "a.png")
    second = plot_report(Report.from_dict(REPORT.to_dict()), tmp_path / "b.png")
    assert np.array_equal(imread(first), imread(second))


def test_failed_networks_do_not_squeeze_the_others(tmp_path):
    report = make_report(m=10, failures=2)
    text = svg_text(plot_report(report, tmp_path / "r.svg"))
    assert "▼ 2 further down" in text
    assert "further down" not in svg_text(plot_report(REPORT, tmp_path / "s.svg"))


@pytest.mark.parametrize(
    "options", [{"m": 1, "team": 1}, {"m": 2, "n": 3, "team": 1}, {"m": 3, "failures": 3}, {"m": 40}]
)
def test_small_and_degenerate_reports_can_be_drawn(tmp_path, options):
    assert plot_report(make_report(**options), tmp_path / "r.png").stat().st_size > 10_000


def test_headline_of_the_three_outcomes():
    assert "reliably better" in figures._headline(make_report(m=8, n=800, team=8))
    assert "no reliable improvement" in figures._headline(make_report(m=3, n=40))
    worse = make_report(m=10, n=800, failures=9, team=5, rule="majority")
    assert worse.members[-1].weight
    assert "reliably" not in figures._headline(make_report(m=1, team=1))


class Curve:
    """A policy as far as the figure needs one."""

    def __init__(self, text, function):
        self.text, self.function = text, function

    def __str__(self):
        return self.text

    def __call__(self, t):
        return self.function(np.asarray(t, dtype=float))


COSINE = Curve("COS(k0=0, k1=0.1, l=500)", lambda t: 0.05 * (1 + np.cos(np.pi * t / 500)))
STEPS = Curve("STEP(k0=0.1, gamma=0.1, l=125)", lambda t: 0.1 * 0.1 ** (t // 125))
FIXED = Curve("FIX(k0=0.1)", lambda t: 0.1)
NONE = Curve("FIX(k0=0)", lambda t: 0 * t)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_one_panel_a_policy(tmp_path, n):
    curves = [Curve(f"P{i}()", FIXED.function) for i in range(n)]
    text = svg_text(plot_policies(curves, 100, tmp_path / "p.svg"))
    assert all(f"P{i}()" in text for i in range(n))
    assert "step" in text
    assert "learning rate" in text


def test_scales_of_learning_rates():
    from matplotlib.figure import Figure

    for curve, scale in ((COSINE, "linear"), (STEPS, "log"), (FIXED, "linear"), (NONE, "linear")):
        axes = Figure().subplots()
        figures._draw_policy(axes, curve, 500)
        assert axes.get_yscale() == scale
        (line,) = axes.lines
        assert np.allclose(line.get_ydata(), curve(np.arange(500)))
        low, high = axes.get_ylim()
        assert low <= line.get_ydata().min() <= line.get_ydata().max() < high


def test_long_runs_are_thinned_and_long_titles_cut():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    figures._draw_policy(axes, Curve("[" + "COS(k0=0.001, k1=0.1, l=10) | " * 9 + "]", FIXED.function), 10**7)
    (line,) = axes.lines
    assert len(line.get_xdata()) <= 4000
    assert line.get_xdata()[-1] == 10**7 - 1
    assert axes.get_title(loc="left").endswith("…")
    assert axes.get_title(loc="left").count("\n") == 1


@pytest.mark.parametrize(("policies", "steps"), [([], 10), ([FIXED], 0)])
def test_nothing_to_draw_is_refused(tmp_path, policies, steps):
    with pytest.raises(InputError, match="1 step or more"):
        plot_policies(policies, steps, tmp_path / "p.png")


def test_no_global_state(tmp_path):
    before = dict(mpl.rcParams)
    plot_report(REPORT, tmp_path / "r.png")
    plot_policies([COSINE], 10, tmp_path / "p.png")
    assert dict(mpl.rcParams) == before


def test_matplotlib_is_imported_when_drawing_and_pyplot_never(tmp_path):
    code = (
        "import sys, lrensemble.reporting as r; assert 'matplotlib' not in sys.modules\n"
        f"r.plot_policies([lambda t: 0 * t + 0.1], 10, {str(tmp_path / 'p.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "MPLBACKEND": "agg"})
