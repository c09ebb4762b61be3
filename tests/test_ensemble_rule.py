"""The ensemble rule: searches first, then repeats what the ensemble needs; never the same twice, never a poor one."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrensemble.errors import InputError
from lrensemble.policies import parse_policy
from lrensemble.training.workshop import Trained, Workshop
from lrensemble.tuning.ensemble_rule import SEARCH, EnsembleRule, allot, policy_weights
from lrensemble.tuning.search import OptunaProposer
from lrensemble.tuning.spaces import Space
from lrensemble.tuning.study import Allowance, Goal, Trial, search

N, C = 60, 4
LABELS = np.arange(N) % C


def trial(k, seed=0, *, skill=1.0, status="done", resolved=None):
    """A training of the policy with rate k/1000; `skill` is the share of the signal in its logits."""
    rng = np.random.default_rng([k, seed])
    logits = (skill * 4 * np.eye(C)[LABELS] + rng.normal(size=(N, C))).astype(np.float32)
    policy = parse_policy(f"FIX({k / 1000})")
    facts = (f"{k}-{seed}", resolved or str(policy), str(policy), seed, status)
    return Trial(policy, seed, Trained(*facts, 2, 2, (2.0, 1.0), (0.1, 0.5), 0.1), lambda: logits)


class Fresh:
    """An explorer that counts up, and ends after `most` policies."""

    def __init__(self, most=10**6):
        self.most, self.asked = most, []

    def propose(self, history, n):
        self.asked.append(n)
        known = len({t.policy for t in history})
        return [(parse_policy(f"FIX({(known + i + 1) / 1000})"), 0) for i in range(min(n, self.most - known))]


def run(rule, trainings, batch, outcome):
    """What a search would do: propose, train, tell."""
    history = []
    while len(history) < trainings:
        asked = rule.propose(tuple(history), min(batch, trainings - len(history)))
        if not asked:
            break
        history += [outcome(round(1000 * policy(0)), seed) for policy, seed in asked]
    return history


@settings(deadline=None, max_examples=40)
@given(
    trainings=st.integers(1, 20),
    batch=st.integers(1, 8),
    finite=st.booleans(),
    fate=st.lists(st.sampled_from(["done", "done", "diverged", "stopped"]), min_size=20, max_size=20),
    most=st.integers(1, 20),
)
def test_no_training_is_proposed_twice_and_the_limits_are_kept(trainings, batch, finite, fate, most):
    rule = EnsembleRule(Fresh(most), LABELS, trainings=trainings if finite else math.inf)
    history = run(rule, trainings, batch, lambda k, seed: trial(k, seed, status=fate[k % 20]))
    asked = [(t.policy, t.seed) for t in history]
    assert len(set(asked)) == len(asked) <= trainings
    diverged = {t.policy for t in history if t.trained.status == "diverged"}
    assert not [t for t in history if t.seed and t.policy in diverged]
    again = run(
        EnsembleRule(Fresh(most), LABELS, trainings=trainings if finite else math.inf),
        trainings,
        batch,
        lambda k, seed: trial(k, seed, status=fate[k % 20]),
    )
    assert [(t.policy, t.seed) for t in again] == asked


@pytest.mark.parametrize(("trainings", "batch", "fresh"), [(24, 6, 21), (24, 1, 21), (9, 4, 8), (2, 2, 2), (10, 10, 9)])
def test_seven_eighths_search(trainings, batch, fresh):
    history = run(EnsembleRule(Fresh(), LABELS, trainings=trainings), trainings, batch, trial)
    assert len(history) == trainings
    assert len({t.policy for t in history}) == fresh
    assert all(t.seed == 0 for t in history[: min(fresh, batch)])


def test_with_a_limit_in_time_nothing_is_repeated():
    history = run(EnsembleRule(Fresh(), LABELS), 18, 6, trial)
    assert {t.seed for t in history} == {0}


def test_pruned_trainings_count_by_their_epochs():
    rule = EnsembleRule(Fresh(), LABELS, trainings=6, share=2 / 3)
    half = [replace(t, trained=replace(t.trained, status="stopped", epoch=1)) for t in (trial(1), trial(2))]
    assert [seed for _, seed in rule.propose((*half, trial(3)), 6)] == [0, 0, 1, 2, 3, 4]


def test_poor_policies_are_not_repeated():
    rule = EnsembleRule(Fresh(), LABELS, trainings=18, share=2 / 3)
    history = run(rule, 18, 6, lambda k, s: trial(k, s, skill=0.05 * (k % 5)))
    repeated = {round(1000 * t.policy(0)) % 5 for t in history if t.seed}
    assert repeated <= {3, 4}
    assert 4 in repeated


def test_repeats_follow_the_weights_and_are_spread():
    history = [trial(1), trial(2), trial(3)]
    weights = {t.trained.policy: w for t, w in zip(history, (0.62, 0.38, 0.0), strict=True)}
    asked = [(round(1000 * policy(0)), seed) for policy, seed in allot(history, weights, 5)]
    assert asked == [(1, 1), (2, 1), (1, 2), (1, 3), (2, 2)]
    assert allot(history, {}, 5) == []
    assert allot(history, weights, 0) == []


def test_weights_are_those_of_the_selected_ensemble():
    import lrensemble as lre

    history = [trial(k, seed, skill=0.3) for k in (1, 2, 3) for seed in (0, 1)]
    logits = np.stack([t.val_logits for t in history])
    chosen = lre.select(lre.Predictions.from_arrays(logits, LABELS))
    expected = {t.trained.policy: 0.0 for t in history}
    for member, weight in zip(chosen.members, chosen.weights, strict=True):
        expected[history[int(member[1:])].trained.policy] += weight
    found = policy_weights(history, LABELS)
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)


def test_degenerate_histories():
    explorer = Fresh()
    rule = EnsembleRule(explorer, LABELS, trainings=4)
    assert len(rule.propose((), 6)) == 4  # the search's share
    diverged = [trial(k, status="diverged") for k in range(1, 5)]
    assert policy_weights(diverged, LABELS) == {}
    assert [seed for _, seed in rule.propose(diverged, 2)] == [0, 0]  # others are looked for
    stopped = [replace(trial(1), read=None), trial(2, status="stopped")]
    assert policy_weights(stopped, LABELS) == {}
    one = [trial(1)]
    assert policy_weights(one, LABELS) == {one[0].trained.policy: pytest.approx(1)}
    assert EnsembleRule(Fresh(1), LABELS, trainings=4).propose(one, 3) == [(one[0].policy, s) for s in (1, 2, 3)]
    assert EnsembleRule(Fresh(0), LABELS, trainings=4).propose((), 3) == []


def test_policies_that_come_to_the_same_are_one():
    same = "FIX(k0=0.001)"
    history = [trial(1, 0, resolved=same), trial(2, 1, resolved=same)]
    weights = policy_weights(history, LABELS)
    assert list(weights) == [same]
    assert allot(history, weights, 1) == [(history[0].policy, 2)]


def test_a_policy_with_a_diverged_training_is_left_out():
    history = [trial(1, 0), trial(1, 1, status="diverged"), trial(2, skill=0.1)]
    assert list(policy_weights(history, LABELS)) == [history[2].trained.policy]


@pytest.mark.parametrize("share", [0, -0.1, 1.5, math.nan])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="share"):
        EnsembleRule(Fresh(), LABELS, share=share)


def test_all_for_the_explorer():
    history = run(EnsembleRule(Fresh(), LABELS, trainings=6, share=1), 6, 2, trial)
    assert {t.seed for t in history} == {0}
    assert Fraction(7, 8) == SEARCH


def test_in_a_search(tmp_path):
    common = {"model": "mlp(hidden=8)", "train_size": 200, "epochs": 1, "jobs": 1, "progress": False}
    shop = Workshop.open("digits", path=tmp_path / "pool", **common)
    goal = Goal(None, shop.steps)

    def go():
        explorer = OptunaProposer(Space.of(), goal, epochs=1, seed=3)
        rule = EnsembleRule(explorer, shop.splits.val.y, trainings=9, share=2 / 3)
        return search(shop, rule, goal, Allowance(9), batch=3).trials

    trials = go()
    assert [t.seed == 3 for t in trials] == [True] * 6 + [False] * 3
    assert all(t.seed > 3 for t in trials[6:])
    assert len(shop.pool()) == 9
    assert [t.trained.id for t in go()] == [t.trained.id for t in trials]  # goes on, and comes to the same
