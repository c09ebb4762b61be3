"""The demonstration surface: its gradient, the three outcomes, the figure and the command."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrensemble.cli.main import main
from lrensemble.errors import InputError, PolicyError, UnknownNameError
from lrensemble.policies.surface import DEMONSTRATION, descend, gradient, height
from lrensemble.reporting import plot_descents

FIXED, NSTEP, TRIEXP = DEMONSTRATION
place = st.floats(-2, 2)


@given(x=place, y=place)
@settings(max_examples=60, deadline=None)
def test_the_gradient_is_that_of_finite_differences(x, y):
    h = 1e-5
    dx, dy = gradient(x, y)
    assert dx == pytest.approx((height(x + h, y) - height(x - h, y)) / (2 * h), abs=1e-5)
    assert dy == pytest.approx((height(x, y + h) - height(x, y - h)) / (2 * h), abs=1e-5)


def test_height_at_places_that_one_can_work_out():
    bumps = np.exp(-(1 + 0.25) / (2 * 0.25**2)) / (2 * np.pi * 0.25**2)
    bumps += np.exp(-(1 + 0.25) / (2 * 0.2**2)) / (2 * np.pi * 0.2**2)
    assert height(0, 0) == pytest.approx(-2.5 - bumps)
    deep = -np.sin(1) * np.cos(0.75) * np.exp(-0.25) - 2.5 * np.exp(-0.25) - 1 / (2 * np.pi * 0.2**2)
    assert height(-1, 0.5) == pytest.approx(deep, abs=1e-6)
    assert height(np.zeros((2, 3)), 1.0).shape == (2, 3)


@pytest.mark.parametrize(
    ("policy", "end", "z", "outcome"),
    [
        (FIXED, (0.965, -0.503), -5.001, "local minimum"),
        (NSTEP, (-0.985, 0.501), -6.417, "global minimum"),
    ],
)
def test_the_outcomes_that_were_published(policy, end, z, outcome):
    found = descend(policy)
    assert len(found.path) == 201
    assert tuple(found.path[0]) == (0.75, 1.0)
    assert tuple(found.path[-1].round(3)) == end
    assert found.heights[-1].round(3) == z
    assert found.outcome == outcome
    assert found.converged


def test_a_rate_that_stays_large_does_not_converge():
    found = descend(TRIEXP)
    assert found.outcome == "not converged"
    assert found.slope > 0.1
    assert np.ptp(found.heights[-50:]) > 1  # it jumps about


def test_each_step_follows_the_policy():
    found = descend("EXP(0.05, gamma=0.9)", steps=5, start=(0.5, 0.2))
    for t in range(5):
        step = 0.05 * 0.9**t * np.array(gradient(*found.path[t]))
        assert np.allclose(found.path[t + 1], found.path[t] - step, rtol=1e-14)
    assert np.array_equal(found.heights, height(*found.path.T))


def test_other_ends():
    assert descend("FIX(100)").outcome == "another flat place"
    assert descend("FIX(0.001)", steps=3).outcome == "not converged"


@pytest.mark.parametrize(
    ("policy", "options", "error", "words"),
    [
        ("FIX(0.1)", {"steps": 0}, InputError, "1 step or more"),
        ("FIX(0.1)", {"start": (1, 2, 3)}, InputError, "place"),
        ("FIX(0.1)", {"start": (np.nan, 1)}, InputError, "place"),
        ("FIX(100)", {"start": (1e5, 0)}, PolicyError, "stay on the surface"),
        ("FIXX(0.1)", {}, UnknownNameError, "FIX"),
    ],
)
def test_refused(policy, options, error, words):
    with pytest.raises(error, match=words):
        descend(policy, **options)


def test_figure(tmp_path):
    file = plot_descents([descend(policy) for policy in DEMONSTRATION], tmp_path / "s.svg")
    text = " ".join(
        "".join(node.itertext()) for node in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")
    )
    for words in ("global minimum, z = −6.417 at (−0.985, 0.501)", "local minimum", "not converged", "learning rate"):
        assert words in text


@pytest.mark.parametrize("count", [0, 8])
def test_a_figure_holds_one_to_seven(tmp_path, count):
    with pytest.raises(InputError, match="1 to 7"):
        plot_descents([descend("FIX(0.02)", steps=2)] * count, tmp_path / "s.png")


def test_command(tmp_path, capsys):
    assert main(["policies", "demo", "--out", str(tmp_path / "s.png")]) == 0
    said = capsys.readouterr().out
    assert "-6.417" in said
    assert "not converged" in said
    assert (tmp_path / "s.png").stat().st_size > 10_000
    assert main(["policies", "demo", "FIX(0.02)", "--steps", "7", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert len(found["path"]) == 8
    assert found["policy"] == "FIX(k0=0.02)"
    assert main(["policies", "demo", "ReduceOnPlateau(0.1)"]) == 1
    assert "follows the training" in capsys.readouterr().err
