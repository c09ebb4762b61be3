import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from lrensemble.errors import InputError, UnknownNameError
from lrensemble.predictions import Predictions, log_softmax, softmax

LOGITS = np.arange(24, dtype=np.float32).reshape(2, 4, 3) % 5
LABELS = np.array([0, 1, 2, 0])


@given(st.integers(0, 2**31), st.floats(0.1, 1e3))
@settings(deadline=None, max_examples=30)
def test_softmax_is_scipys(seed, scale):
    z = np.random.default_rng(seed).normal(size=(3, 5, 4)) * scale
    np.testing.assert_allclose(softmax(z), special.softmax(z, axis=-1), atol=1e-12)
    np.testing.assert_allclose(log_softmax(z), special.log_softmax(z, axis=-1), atol=1e-9)


def test_views_of_the_logits():
    p = Predictions.from_arrays(LOGITS, LABELS, ids=["a", "b"])
    assert (p.n_members, p.n_samples, p.n_classes) == (2, 4, 3)
    np.testing.assert_allclose(p.probabilities.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(p.predicted, LOGITS.argmax(-1))
    np.testing.assert_array_equal(p.correct, LOGITS.argmax(-1) == LABELS)
    np.testing.assert_array_equal(p.true_class[1], p.probabilities[1, np.arange(4), LABELS])


def test_given_probabilities_stay_as_they_are():
    given_ = np.array([[[0.2, 0.8, 0.0], [1.0, 0.0, 0.0]]], dtype=np.float32)
    p = Predictions.from_arrays(probabilities=given_, labels=[1, 2])
    for probabilities in (p.probabilities[0], p.member(0), p.subset([0, 1]).take(["m0"]).member(0)):
        np.testing.assert_array_equal(probabilities, given_[0], strict=True)
    np.testing.assert_array_equal(p.true_class, np.float32([[0.8, 0]]), strict=True)
    np.testing.assert_array_equal(p.predicted, [[1, 0]])
    np.testing.assert_array_equal(p.correct, [[True, False]])
    expected = np.log(np.maximum(given_, np.finfo(np.float32).tiny))
    np.testing.assert_array_equal(p.logits, expected, strict=True)
    np.testing.assert_array_equal(p.member_logits(0, slice(1, 2)), expected[0, 1:], strict=True)
    np.testing.assert_allclose(softmax(p.logits), given_, atol=1e-7)
    given_[0, 0] = 1 / 3
    assert p.member(0)[0, 1] == np.float32(0.8)


def test_probabilities_that_are_a_little_off_are_normalised():
    off = np.array([[[0.2, 0.8005], [0.5, 0.5]]])
    p = Predictions.from_arrays(probabilities=off, labels=[1, 0])
    np.testing.assert_allclose(p.probabilities[0, 0], off[0, 0] / off[0, 0].sum(), rtol=1e-6)
    np.testing.assert_array_equal(p.probabilities[0, 1], np.float32([0.5, 0.5]))


@given(st.integers(0, 2**31), st.sampled_from([2, 3, 10, 48, 49, 130]), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_softmax_of_a_row_does_not_depend_on_the_others(seed, n_classes, n):
    z = np.random.default_rng(seed).normal(size=(n, n_classes)).astype(np.float32) * 5
    p, one = softmax(z), seed % n
    np.testing.assert_array_equal(p[one], softmax(z[one : one + 1])[0], strict=True)
    np.testing.assert_array_equal(p[n // 2 :], softmax(np.asfortranarray(z)[n // 2 :]), strict=True)
    np.testing.assert_array_equal(p, softmax(np.stack([z, z]))[1], strict=True)


@pytest.mark.parametrize(
    "samples", [np.array([2, 0, 0]), np.array([True, False, True, False]), slice(1, None), slice(None, None, -1)]
)
@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_parts_are_those_of_the_whole(samples, form):
    p = Predictions.from_arrays(**{form: softmax(LOGITS) if form == "probabilities" else LOGITS}, labels=LABELS)
    part = p.subset(samples)
    np.testing.assert_array_equal(part.labels, LABELS[samples])
    for j in range(2):
        np.testing.assert_array_equal(p.member(j, samples), p.probabilities[j][samples], strict=True)
        np.testing.assert_array_equal(part.member(j), p.member(j, samples), strict=True)
        np.testing.assert_array_equal(part.member_logits(j), p.logits[j][samples], strict=True)
    for name in ("logits", "probabilities", "predicted", "correct", "true_class"):
        np.testing.assert_array_equal(getattr(part, name), getattr(p, name)[:, samples], strict=True)


def test_views_leave_the_softmax_of_the_whole_alone():
    p = Predictions.from_arrays(LOGITS, LABELS)
    for name in ("predicted", "correct", "true_class"):
        getattr(p, name)
    assert "probabilities" not in p.__dict__


def test_inputs_stay_as_they_are_and_arrays_are_read_only():
    logits = LOGITS.copy()
    p = Predictions.from_arrays(logits, LABELS)
    logits[0, 0, 0] = 99
    assert p.logits[0, 0, 0] == LOGITS[0, 0, 0]
    for array in (p.logits, p.labels, p.probabilities, p.predicted, p.true_class):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_huge_logits_give_probabilities_without_a_warning():
    p = Predictions.from_arrays(np.array([[[3e38, -3e38, 0], [1e30, 0, 1e30]]]), [0, 1])
    np.testing.assert_array_equal(p.probabilities, [[[1, 0, 0], [0.5, 0, 0.5]]])
    np.testing.assert_array_equal(log_softmax(p.logits)[0, 0], np.float32([0, -np.inf, -3e38]))


@pytest.mark.parametrize(
    "form",
    [
        lambda z: z.astype(np.float16),
        lambda z: np.repeat(z.astype(np.float64), 2, axis=0)[::2],  # with gaps
        np.asfortranarray,
        lambda z: np.broadcast_to(z, z.shape),  # read-only
        lambda z: z.tolist(),
        torch.tensor,
        lambda z: torch.tensor(z, dtype=torch.float64),
    ],
)
def test_arrays_of_any_make_are_read(form):
    p = Predictions.from_arrays(form(LOGITS), form(LABELS.astype(np.float32)))
    assert (p.logits.dtype, p.labels.dtype, p.logits.flags.c_contiguous) == (np.float32, np.int64, True)
    np.testing.assert_array_equal(p.logits, LOGITS)
    np.testing.assert_array_equal(p.labels, LABELS)


def test_names_become_text():
    assert Predictions.from_arrays(LOGITS, LABELS, ids=np.arange(2)).ids == ("0", "1")


@pytest.mark.parametrize(
    ("split", "is_test"), [("test", True), ("Test", True), ("test2", True), ("val", False), ("contest", False)]
)
def test_test_data_are_known_by_name(split, is_test):
    assert Predictions.from_arrays(LOGITS, LABELS, split=split).is_test == is_test


def test_pickled_predictions_are_the_same():
    p = Predictions.from_arrays(LOGITS, LABELS, ids=["a", "b"], split="test", fingerprint="f")
    assert p.predicted.shape == (2, 4)  # cached views travel or are made again
    q = pickle.loads(pickle.dumps(p))
    assert (q.ids, q.split, q.fingerprint) == (p.ids, p.split, p.fingerprint)
    np.testing.assert_array_equal(q.logits, p.logits)
    np.testing.assert_array_equal(q.correct, p.correct)


def test_take_and_subset():
    p = Predictions.from_arrays(LOGITS, LABELS, ids=["a", "b"])
    assert p.take(["b", "a"]).ids == ("b", "a")
    np.testing.assert_array_equal(p.take(["b"]).logits[0], LOGITS[1])
    np.testing.assert_array_equal(p.subset(np.array([2, 0])).labels, [2, 0])
    with pytest.raises(UnknownNameError, match="unknown member 'c'"):
        p.take(["c"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": None}, "either logits= or probabilities="),
        ({"labels": None}, "expected labels="),
        ({"logits": 3.0}, r"shape \(members, samples, classes\), all ≥ 1, got \(\)"),
        ({"logits": LOGITS[0]}, r"shape \(members, samples, classes\)"),
        ({"logits": LOGITS[:, :, :1]}, "at least 2 classes"),
        ({"logits": "text"}, "as numbers"),
        ({"logits": LOGITS * 1j}, "complex"),
        ({"logits": torch.zeros(2, 4, 3, requires_grad=True)}, "requires grad"),
        ({"logits": np.full((2, 4, 3), 1e300)}, "NaN or infinity"),
        ({"logits": np.where(LOGITS == 4, np.nan, LOGITS), "ids": ["a", "b"]}, "NaN or infinity in member 'a'"),
        ({"labels": [0, 1, 2]}, r"labels of shape \(4,\)"),
        ({"labels": [0, 1, 2, 3]}, r"labels in 0…2 .* got 0…3"),
        ({"labels": [-1, 1, 2, 0]}, "got -1…2"),
        ({"labels": [0.5, 1, 2, 0]}, "labels as integers"),
        ({"ids": ["a"]}, "one name for each of the 2 members, got 1"),
        ({"ids": ["a", "a"]}, "unique"),
        ({"logits": None, "probabilities": LOGITS}, "sum to 1"),
        ({"logits": None, "probabilities": -LOGITS}, "≥ 0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(changes, message):
    arguments = {"logits": LOGITS, "labels": LABELS, **changes}
    with pytest.raises(InputError, match=message) as caught:
        Predictions.from_arrays(**arguments)
    assert "\n" not in str(caught.value)
