"""Combination rules: textbook values, oracles, and the properties that every entry of the table must have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax
from scipy.stats import gmean
from sklearn.ensemble import VotingClassifier

from lrensemble import combine as module
from lrensemble.combine import COMBINERS, combine
from lrensemble.errors import InputError, UnknownNameError
from lrensemble.predictions import softmax

RULES = pytest.mark.parametrize("rule", COMBINERS)


def members(k=4, n=60, c=5, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return softmax((scale * rng.normal(size=(k, n, c))).astype(np.float32))


@st.composite
def teams(draw):
    k, n, c = draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(st.integers(2, 6))
    p = members(k, n, c, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 1.0, 20.0, 400.0])))
    weights = draw(st.lists(st.floats(0.01, 5), min_size=k, max_size=k))
    return p, np.array(weights)


@RULES
@given(team=teams())
@settings(max_examples=40, deadline=None)
def test_rows_are_probabilities(rule, team):
    out = combine(*team, rule)
    assert out.dtype == np.float64
    assert out.shape == team[0].shape[1:]
    assert (out >= 0).all()
    assert np.abs(out.sum(axis=1) - 1).max() < 1e-12


@RULES
@given(team=teams(), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_order_of_members_plays_no_part(rule, team, seed):
    p, w = team
    order = np.random.default_rng(seed).permutation(len(w))
    assert np.allclose(combine(p[order], w[order], rule), combine(p, w, rule), atol=1e-9)


@RULES
@given(team=teams())
@settings(max_examples=25, deadline=None)
def test_scale_of_weights_plays_no_part_and_zero_weight_is_absence(rule, team):
    p, w = team
    expected = combine(p, w, rule)
    assert np.allclose(combine(p, 7 * w, rule), expected, atol=1e-9)
    stranger = members(1, *p.shape[1:], seed=99)
    assert np.array_equal(combine(np.concatenate([p, stranger]), [*w, 0.0], rule), expected)


@RULES
@pytest.mark.parametrize("scale", [0.0, 1.0, 400.0])
def test_a_member_alone_keeps_its_predictions(rule, scale):
    p = members(1, 300, 6, scale=scale)
    assert np.array_equal(combine(p, [1.0], rule).argmax(axis=1), p[0].argmax(axis=1))


@RULES
def test_equal_members_agree_with_one(rule):
    p = members(1)
    assert np.allclose(combine(np.repeat(p, 3, axis=0), [0.2, 0.3, 0.5], rule).argmax(1), p[0].argmax(1))


@RULES
def test_inputs_are_not_altered(rule):
    p, w = members(), np.array([1.0, 2.0, 3.0, 0.0])
    before = p.copy(), w.copy()
    p.flags.writeable = w.flags.writeable = False
    combine(p, w, rule)
    assert np.array_equal(p, before[0])
    assert np.array_equal(w, before[1])


# --- oracles ----------------------------------------------------------------------------------------------------------

W = np.array([0.1, 0.4, 0.3, 0.2])


def test_mean_probability():
    p = members()
    assert np.allclose(combine(p, W), np.average(p.astype(np.float64), axis=0, weights=W), atol=1e-7)


def test_mean_logit_is_the_geometric_mean():
    p = members().astype(np.float64)
    expected = gmean(p, axis=0, weights=W[:, None, None])
    assert np.allclose(combine(p, W, "mean_logit"), expected / expected.sum(axis=1, keepdims=True))
    z = np.random.default_rng(1).normal(size=(4, 9, 3))
    assert np.allclose(combine(scipy_softmax(z, axis=2), rule="mean_logit"), scipy_softmax(z.mean(axis=0), axis=1))


def test_product():
    p = members().astype(np.float64)
    expected = p.prod(axis=0)
    assert np.allclose(combine(p, rule="product"), expected / expected.sum(axis=1, keepdims=True))


def test_median_and_max():
    for k in (3, 4):
        p = members(k).astype(np.float64)
        for rule, reduce in (("median", np.median), ("max", np.max)):
            expected = reduce(p, axis=0)
            assert np.allclose(combine(p, rule=rule), expected / expected.sum(axis=1, keepdims=True))


def test_weighted_median_is_the_median_of_repeated_members():
    p = members(3).astype(np.float64)
    expected = np.median(p[[0, 0, 0, 1, 2, 2]], axis=0)
    assert np.allclose(combine(p, [3, 1, 2], "median"), expected / expected.sum(axis=1, keepdims=True))


def test_median_of_members_that_are_sure_of_different_classes_is_their_mean():
    assert np.allclose(combine(np.eye(3)[:, None, :], rule="median"), 1 / 3)


def test_median_works_in_blocks(monkeypatch):
    p = members(4, 100)
    whole = combine(p, W, "median")
    monkeypatch.setattr(module, "BLOCK", 60)
    assert np.array_equal(combine(p, W, "median"), whole)


class _Fixed:
    """A scikit-learn voter that predicts one fixed column."""

    def __init__(self, votes):
        self.votes = votes

    def predict(self, _):
        return self.votes


def test_majority_is_scikit_learns_hard_vote():
    p = members(5, 200, 4)
    w = [6, 9, 11, 12, 13]  # no two sums of these are equal: no ties
    oracle = VotingClassifier([(str(i), None) for i in range(5)], voting="hard", weights=w)
    oracle.estimators_ = [_Fixed(member.argmax(axis=1)) for member in p]
    oracle.le_ = type("Labels", (), {"inverse_transform": staticmethod(lambda x: x)})
    assert np.array_equal(combine(p, w, "majority").argmax(axis=1), oracle.predict(None))


def test_majority_gives_vote_shares_and_breaks_ties_by_mean_probability():
    p = np.array([[[0.9, 0.1, 0.0]], [[0.0, 0.6, 0.4]]])
    out = combine(p, rule="majority")
    assert out[0] == pytest.approx([0.5, 0.5, 0.0], abs=1e-8)
    assert out.argmax() == 0  # 0.45 against 0.35
    assert combine(p, [0.5001, 0.4999], "majority").argmax() == 0
    assert combine(p[::-1], rule="majority").argmax() == 0


def test_borda_by_hand():
    p = np.array([[[0.6, 0.3, 0.1]], [[0.1, 0.5, 0.4]], [[0.1, 0.5, 0.4]]])  # points 2 1 0, 0 2 1, 0 2 1
    assert combine(p, rule="borda")[0] == pytest.approx([2 / 9, 5 / 9, 2 / 9], abs=1e-8)
    tied = np.array([[[0.5, 0.25, 0.25]]])  # the two that tie share their point
    assert combine(tied, rule="borda")[0] == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-8)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_unknown_rule_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'majority'"):
        combine(members(), W, "majorty")


@pytest.mark.parametrize(
    ("p", "w", "message"),
    [
        (members()[0], W, "shape"),
        (np.ones((2, 3, 1)), None, "classes ≥ 2"),
        (np.log(members()), W, "pass the softmax"),
        (np.full((2, 3, 4), np.nan), None, "pass the softmax"),
        (members(), W[:3], "one weight for each of the 4"),
        (members(), -W, "≥ 0"),
        (members(), 0 * W, "not all zero"),
        (members(), W * np.nan, "finite"),
    ],
)
def test_refusals(p, w, message):
    with pytest.raises(InputError, match=message):
        combine(p, w)
