"""Spaces hold what they should; a search learns, stops, spends and resumes as told; nothing is trained twice."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrensemble as lre
from lrensemble.cli.main import main
from lrensemble.errors import InputError, TrainingError
from lrensemble.policies import POLICIES, RATE_RANGES, parse_policy, preset
from lrensemble.policies.feedback import FeedbackPolicy
from lrensemble.training import OPTIMIZERS
from lrensemble.training.workshop import Trained, Workshop
from lrensemble.tuning import Store
from lrensemble.tuning.search import PRUNERS, SAMPLERS, OptunaProposer
from lrensemble.tuning.spaces import DEFAULT_FAMILIES, FAMILIES, Space, dimensions, grid, suggest
from lrensemble.tuning.study import Allowance, Goal, Trial, cut, search, spent

CALL = {"model": "mlp(hidden=8)", "epochs": 4, "batch_size": 32, "jobs": 1, "progress": False, "trials": 8, "batch": 4}
EVERY = Space.of(tuple(FAMILIES))


@pytest.fixture(scope="module")
def digits():
    return lre.load_data("digits", train_size=200, val_size=90, test_size=80)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """An uninterrupted search without a store: (result, pool folder)."""
    path = tmp_path_factory.mktemp("whole") / "pool"
    return lre.recommend(digits, path=path, store=False, **CALL), path


def facts(found):
    """All of a recommendation that another machine must find too: no seconds, no paths."""

    def timeless(values):
        return {key: value for key, value in values.items() if "seconds" not in key and key not in ("pool", "store")}

    return timeless(found.to_dict()) | {"top": [timeless(one) for one in found.to_dict()["top"]]}


def trained(accuracies, losses=None, *, status="done", epochs=None, member="a"):
    losses = [1.0] * len(accuracies) if losses is None else losses
    length = len(accuracies)
    return Trained(member, "FIX(0.1)", "FIX(0.1)", 0, status, length, epochs or length, (*losses,), (*accuracies,), 1.0)


# Spaces


def drawn(data, family):
    def value(name):
        where = EVERY[name]
        if where.form == "d":
            return data.draw(st.integers(int(where.low), int(where.high)), name)
        return data.draw(st.floats(where.low, where.high), name)

    return {name: value(name) for name in dimensions(family)}


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data(), steps=st.integers(1, 300))
@settings(deadline=None, max_examples=12)
def test_every_policy_of_a_space_is_sound(family, data, steps):
    policy = EVERY.policy(family, drawn(data, family))
    assert parse_policy(str(policy)) == policy == type(policy).from_dict(policy.to_dict())
    curve = rates(policy, steps)
    assert curve.min() >= 0
    assert curve.max() <= EVERY.high * (1 + 1e-12)
    assert all(len(re.sub(r"e.*|\.|^[0.]*", "", number)) <= 6 for number in re.findall(r"\d[\d.e-]*", str(policy)))


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_a_policy_is_found_again_in_its_space(family, data):
    policy = EVERY.policy(family, drawn(data, family))
    found = EVERY.locate(policy)
    assert found is not None
    values = {name: value for name, value in found.items() if name != "family"}
    assert EVERY.policy(found["family"], values) == policy
    assert all(EVERY[name].low <= value <= EVERY[name].high for name, value in values.items())


def rates(policy, steps):
    resolved = policy.resolve(total_steps=steps, steps_per_epoch=7)
    if isinstance(resolved, FeedbackPolicy):
        return resolved.replay([1.0] * (steps // 7 + 1), steps_per_epoch=7)
    return resolved.curve(steps)


def test_every_policy_has_a_family():
    names = {type(EVERY.policy(f, {n: EVERY[n].middle for n in dimensions(f)})) for f in FAMILIES}
    assert {spec.policy for spec in POLICIES.values()} == names
    assert set(DEFAULT_FAMILIES) <= set(FAMILIES)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_peaks_follow_the_optimizer_or_the_given_range(optimizer):
    space, (low, high) = Space.of(optimizer=optimizer), RATE_RANGES[optimizer]
    assert space.low < low < high < space.high
    assert Space.of(optimizer=optimizer, lr_range=(0.012345, 2)) == Space(DEFAULT_FAMILIES, 0.0123, 2.0)


def test_a_policy_outside_a_space_is_not_found_in_it():
    space = Space.of(["FIX", "COSRSW"], lr_range=(0.01, 0.1))
    assert space.locate(parse_policy("FIX(0.05)")) == {"family": "FIX", "peak": 0.05}
    for text in ("FIX(0.2)", "EXP(0.05, 0.1/run)", "COSRSW(k0=0, k1=0.1, l=25%)", "COSRSW(k0=0.01, k1=0.1, l=30%)"):
        assert space.locate(parse_policy(text)) is None
    located = [Space.of(lr_range=(0.001, 1)).locate(policy) for policy in preset("default")]
    assert sum(place is not None for place in located) >= 14  # the others have cycles that start at 0


def test_suggestions_of_optuna_lie_in_the_space():
    space = Space.of(tuple(FAMILIES), optimizer="adam")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    policies = [space.suggest(study.ask()) for _ in range(200)]
    assert all(space.locate(policy) is not None for policy in policies)
    assert len({type(policy) for policy in policies}) > 30
    trial = optuna.trial.FixedTrial({"family": "POLY", "peak": 0.0512345, "power": 2})
    assert str(suggest(trial)) == "POLY(k0=0.0, k1=0.0512, p=2.0)"


@pytest.mark.parametrize("n", [1, 3, 10, 47])
def test_a_grid_spreads_over_families_and_rates(n):
    policies = grid(["FIX", "POLY", "OneCycle"], n, lr_range=(0.01, 1))
    assert len(set(policies)) == n
    assert policies == grid(["FIX", "POLY", "OneCycle"], 50, lr_range=(0.01, 1))[:n]
    rates = [policy.resolve(total_steps=1000).curve(1000).max() for policy in policies]
    assert min(rates) > 0.0099
    assert max(rates) <= 1
    if n >= 9:
        assert {0.01, 0.1, 1.0} <= {policy.k0 for policy in policies if policy.name == "FIX"}
    assert len(grid("FIX", 20, lr_range=(0.1, 0.1))) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"families": ["FIXX"]}, "FIX"),
        ({"families": []}, "got none"),
        ({"lr_range": (0.1, 0.01)}, "lowest ≤ highest"),
        ({"lr_range": (0, 0.01)}, "lowest ≤ highest"),
        ({"lr_range": (0.1, math.inf)}, "lowest ≤ highest"),
        ({"optimizer": "adamm"}, "adam"),
    ],
)
def test_what_is_no_space_is_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        Space.of(**wrong)


# Goals and costs


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5)), min_size=2, max_size=6))
@settings(deadline=None)
def test_without_a_target_the_more_accurate_is_better_then_the_lower_loss(ends):
    goal = Goal(None, 10)
    ends = [(round(accuracy, 3), round(loss, 2)) for accuracy, loss in ends]  # of at most a thousand samples
    by_score = sorted(ends, key=lambda end: goal.score(trained([0.1, end[0]], [9, end[1]])))
    assert by_score == sorted(ends, key=lambda end: (end[0], -end[1]))


@given(st.lists(st.lists(st.sampled_from([0.1, 0.5, 0.6, 0.9]), min_size=4, max_size=4), min_size=2, max_size=6))
@settings(deadline=None)
def test_with_a_target_the_sooner_is_better_then_the_nearer(curves):
    goal = Goal(0.6, 10)

    def slow(curve):
        hits = [epoch for epoch in range(4) if curve[epoch] >= 0.6]
        return (1, -hits[0], curve[hits[0]]) if hits else (0, max(curve), 0)

    scores = [goal.score(trained(curve)) for curve in curves]
    for i, a in enumerate(curves):
        for j, b in enumerate(curves):
            assert (scores[i] < scores[j]) == (slow(a) < slow(b))


@pytest.mark.parametrize("target", [None, 0.99])
def test_a_diverged_training_is_worse_than_any_other(target):
    goal = Goal(target, 10)
    lost = goal.score(trained([0.9, math.nan], [0.1, math.nan], status="diverged", epochs=4))
    assert lost < goal.score(trained([0.0, 0.0]))
    assert lost == goal.score(trained([math.nan, math.nan]))


def test_a_training_is_looked_at_as_it_was():
    one = trained([0.1, 0.2, 0.3, 0.4])
    at_two = cut(one, 2)
    assert (at_two.status, at_two.epoch, at_two.val_accuracy, at_two.seconds) == ("stopped", 2, (0.1, 0.2), 0.5)
    assert cut(one, 4) == one
    lost = trained([0.1, math.nan], status="diverged", epochs=4)
    assert cut(lost, 2) == lost
    assert cut(lost, 1).status == "stopped"


def test_what_was_stopped_costs_its_epochs_and_nothing_costs_twice():
    history = [Trial(parse_policy("FIX(0.1)"), 0, one) for one in (trained([0.1] * 4), cut(trained([0.1] * 4), 1))]
    assert spent(history) == 1
    assert spent([replace(history[1], trained=replace(history[1].trained, id="b")), history[0], history[0]]) == 1.25


# The loop


class Listed:
    """Proposes lists, one a call, and remembers what it was told."""

    def __init__(self, *batches):
        self.batches, self.told = list(batches), []

    def propose(self, history, n):
        self.told.append((len(history), n))
        return [(parse_policy(text), seed) for text, seed in self.batches.pop(0)] if self.batches else []


def shop_in(path, digits, **more):
    return Workshop.open(
        digits, path=path, **{k: v for k, v in CALL.items() if k not in ("trials", "batch")} | {"epochs": 2} | more
    )


def test_the_loop_trains_what_is_proposed_once_and_ends_when_nothing_is(digits, tmp_path):
    shop = shop_in(tmp_path / "pool", digits)
    same = "POLY(k0=0.05, k1=0.05)"  # comes to another policy than FIX(0.05)
    proposer = Listed([("FIX(0.05)", 0), (same, 0), ("FIX(0.05)", 1)], [("FIX(0.05)", 0), ("FIX(0.02)", 0)])
    batches = []
    found = search(shop, proposer, Goal(None, shop.steps), Allowance(10), batch=5, record=batches.append)
    assert found.ended == "exhausted"
    assert proposer.told == [(0, 5), (3, 5), (5, 5)]
    assert [len(batch) for batch in batches if batch] == [3, 2]
    assert [(str(t.policy), t.seed) for t in found.trials][3] == ("FIX(k0=0.05)", 0)
    assert found.trials[3].trained == found.trials[0].trained
    pool = lre.Pool.open(tmp_path / "pool")
    assert sorted({trial.trained.id for trial in found.trials}) == sorted(pool.ids)
    assert spent(found.trials) == 4
    assert np.array_equal(found.trials[2].val_logits, pool.member(found.trials[2].trained.id).logits["val"])


def test_the_loop_ends_when_proposals_bring_nothing_new(digits, tmp_path):
    shop = shop_in(tmp_path / "pool", digits)
    proposer = Listed(*[[("FIX(0.05)", 0)]] * 9)
    found = search(shop, proposer, Goal(None, shop.steps), Allowance(10), batch=1)
    assert (found.ended, len(found.trials)) == ("exhausted", 4)


def test_no_more_is_proposed_than_may_be_spent(digits, tmp_path):
    shop = shop_in(tmp_path / "pool", digits)
    rates = iter(np.linspace(0.01, 0.1, 20))

    class Greedy:
        def propose(self, history, n):
            return [(parse_policy(f"FIX({next(rates)})"), 0) for _ in range(n + 3)]

    found = search(shop, Greedy(), Goal(None, shop.steps), Allowance(7), batch=5)
    assert (found.ended, len(found.trials), spent(found.trials)) == ("spent", 7, 7)


def simulated(proposer, score, batches, n=4):
    """Trials of a proposer on a formula instead of networks."""
    history = []
    for _ in range(batches):
        for policy, seed in proposer.propose(history, n):
            peak = policy.resolve(total_steps=400).curve(400).max()
            history.append(Trial(policy, seed, trained([score(peak)], member=str(policy))))
    return history


def test_tpe_learns_where_good_rates_are():
    def score(peak):
        return max(0.0, 1 - abs(math.log10(peak / 0.05)))

    means = {}
    for sampler in ("random", "tpe"):
        proposer = OptunaProposer(Space.of(), Goal(None, 1), sampler=sampler, epochs=1)
        late = simulated(proposer, score, 12)[24:]
        means[sampler] = np.mean([trial.trained.val_accuracy[-1] for trial in late])
    assert means["tpe"] > means["random"] + 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_is_proposed_twice_and_all_starts_come_first(sampler):
    start = [parse_policy(text) for text in ("FIX(0.05)", "FIX(9)", "FIX(0.05)", "TRI2(k0=0, k1=0.1, l=3%)")]
    proposer = OptunaProposer(Space.of(), Goal(None, 1), sampler=sampler, epochs=1, start=start)
    history = simulated(proposer, lambda peak: 0.5, 5)
    policies = [trial.policy for trial in history]
    assert policies[:3] == [start[0], start[1], start[3]]
    assert len(set(policies)) == len(policies) == (3 if sampler == "grid" else 20)


def test_the_study_learns_from_starts_diverged_and_stopped_trainings():
    start = [parse_policy(text) for text in ("FIX(0.05)", "FIX(9)", "EXP(0.1, 0.1/run)")]
    proposer = OptunaProposer(Space.of(), Goal(None, 1), pruner="asha", epochs=9, start=start)
    asked = proposer.propose([], 3)
    outcomes = [trained([0.5] * 9), trained([math.nan], status="diverged", epochs=9), cut(trained([0.2] * 9), 2)]
    proposer.behind({2: 0.2}, 2)
    proposer.propose([Trial(*one, outcome) for one, outcome in zip(asked, outcomes, strict=True)], 1)
    first, lost, stopped = proposer.study.get_trials(deepcopy=False)[:3]
    assert first.params == {"family": "FIX", "peak": 0.05}
    assert first.value == pytest.approx(0.5, abs=1e-5)
    assert lost.value == -3
    assert lost.params == {}  # a rate outside the space
    assert stopped.state == optuna.trial.TrialState.PRUNED
    assert stopped.intermediate_values == {2: 0.2}


# Stopping


def slow_asha(names, curves, trainings, batch, eta=3):
    """Epoch that each training comes to, by whole curves: in batches as can be afforded, the best first, a score goes
    on if it is among the best third of those that the rung has seen."""
    seen, ends = {1: [], 3: []}, {}
    while (n := min(batch, int(trainings - sum(ends.values()) / 4 + 1e-9))) > 0:
        running = names[len(ends) : len(ends) + n]
        ends |= dict.fromkeys(running, 4)
        for rung, scores in seen.items():
            at_rung = {name: Goal(None, 1).score(cut(curves[name], rung)) for name in running}
            for name, score in sorted(at_rung.items(), key=lambda item: -item[1]):
                scores.append(score)
                if score < sorted(scores, reverse=True)[max(1, len(scores) // eta) - 1]:
                    ends[name] = rung
            running = [name for name in running if ends[name] == 4]
    return ends


def test_asha_stops_those_that_are_behind_and_they_can_go_on(digits, tmp_path):
    call = {**CALL, "trials": 5, "pruner": "asha", "store": False}
    found = lre.recommend(digits, path=tmp_path / "pool", **call)
    pool = lre.Pool.open(tmp_path / "pool")
    resting = {record.id: record.epoch for record in pool.stopped()}
    assert found.pruned == len(resting) > 4
    assert found.finished == len(pool) > 0
    assert found.trainings == pytest.approx(len(pool) + sum(resting.values()) / 4)
    assert 4 < found.trainings <= 5
    assert "stopped early" in str(found)
    # take all to the end: the search decides again as it did
    shop = shop_in(tmp_path / "pool", digits, epochs=4)
    plan = shop.plan([(parse_policy(record.asked), record.seed) for record in pool.stopped()])
    shop.train(plan)
    assert facts(lre.recommend(digits, path=tmp_path / "pool", **call)) == facts(found)
    everyone = [(parse_policy(summary.asked), summary.seed) for summary in lre.Pool.open(pool.path).summaries()]
    curves = {one.id: one for one in shop.look(shop.plan(everyone))}
    expected = slow_asha(list(found.members), curves, 5, 4)
    assert {name: resting.get(name, 4) for name in found.members} == expected


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_spends_what_it_may_and_repeats_itself(pruner, digits, tmp_path):
    call = {**CALL, "trials": 4, "pruner": pruner, "store": False, "seed": 3, "target": 0.7}
    found = lre.recommend(digits, path=tmp_path / "a", **call)
    assert 3 < found.trainings <= 4
    assert (found.pruned > 0) == (pruner != "none")
    assert facts(lre.recommend(digits, path=tmp_path / "b", **call)) == facts(found)


# Recommendations


def test_the_best_is_recommended_with_its_evidence(whole, digits):
    found, path = whole
    pool = lre.Pool.open(path)
    done = {s.id: s for s in pool.summaries() if s.status == "done"}
    best = max(done.values(), key=lambda s: (s.val_accuracy, -s.val_nll))
    assert found.policy == best.asked
    assert found.member == best.id
    assert found.top[0].val_accuracy == pytest.approx(best.val_accuracy)
    assert [one.val_accuracy for one in found.top] == sorted((o.val_accuracy for o in found.top), reverse=True)
    assert (found.trials, found.trainings, found.ended) == (8, 8, "spent")
    assert found.finished + found.diverged == len(pool) == 8
    assert found.steps == 8 * 4 * 7
    curve = pool.member(best.id).history["val_accuracy"]
    assert found.top[0].steps_to_best == 7 * (1 + int(np.argmax(curve)))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["policy"] in str(found)
    assert parse_policy(found.policy)


def test_a_search_is_a_function_of_its_arguments(whole, digits, tmp_path):
    found, _ = whole
    other = lre.recommend(digits, path=tmp_path / "pool", store=False, **CALL | {"engine": "loop"})
    assert [o.policy for o in other.top] == [o.policy for o in found.top]  # the engines differ in the last bits only
    assert facts(lre.recommend(digits, path=tmp_path / "again", store=False, **CALL)) == facts(found)
    assert lre.recommend(digits, path=tmp_path / "seed", store=False, seed=1, **CALL).members != found.members


def test_what_is_there_is_not_trained_again_and_more_goes_further(whole, digits, tmp_path):
    found, path = whole
    events = []
    again = lre.recommend(digits, path=path, store=False, **CALL | {"progress": events.append})
    assert again == found
    assert not [event for event in events if event.kind == "epoch"]
    assert [event.done for event in events if event.kind == "member"] == list(range(1, 9))
    more = lre.recommend(digits, path=path, store=False, **CALL | {"trials": 9})
    assert more.members[:8] == found.members
    assert more.trials == 9


def stops_after(n):
    seen = []

    def progress(event):
        seen.append(event)
        if len([e for e in seen if e.kind == "epoch"]) >= n:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("epochs", [1, 9, 17, 30])
def test_interrupted_a_search_goes_on_to_the_same_outcome(epochs, whole, digits, tmp_path):
    call = {"path": tmp_path / "pool", "store": False, **CALL, "engine": "stacked", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        lre.recommend(digits, **call | {"progress": stops_after(epochs)})
    assert facts(lre.recommend(digits, **call)) == facts(whole[0])


def test_a_search_that_goes_on_begins_as_it_did_whatever_the_store_has_learned(digits, tmp_path):
    first, second = ({"store": tmp_path / f"{name}.db", "path": tmp_path / name, **CALL} for name in "ab")
    teacher = lre.recommend(digits, path=tmp_path / "c", store=first["store"], **CALL | {"seed": 5})
    lre.recommend(digits, path=tmp_path / "c", store=second["store"], **CALL | {"seed": 5})
    whole = lre.recommend(digits, **first)
    with pytest.raises(KeyboardInterrupt):
        lre.recommend(digits, **second | {"progress": stops_after(6)})
    with Store.open(second["store"]) as store:
        shop = shop_in(tmp_path / "d", digits, epochs=4)
        plan = shop.plan([(parse_policy("POLY(k0=0, k1=0.123)"), 0)])
        shop.train(plan)
        better = [replace(one, val_accuracy=(1.0,) * 4) for one in shop.look(plan)]
        store.record(store.problems()[0], better)
    assert facts(lre.recommend(digits, **second)) == facts(whole)
    assert teacher.policy in {s.asked for s in lre.Pool.open(first["path"]).summaries()}


def test_the_store_is_what_a_search_begins_from_and_writes_to(digits, tmp_path):
    store = tmp_path / "store.db"
    found = lre.recommend(digits, path=tmp_path / "a", store=store, **CALL)
    with Store.open(store) as opened:
        problem = opened.find(found.problem)
        assert {trial.member for trial in opened.trials(problem)} == set(found.members)
    lre.recommend(digits, path=tmp_path / "a", store=store, **CALL)
    with Store.open(store) as opened:
        assert len(opened.trials(problem)) == found.trials
    one = {**CALL, "trials": 1}
    near = lre.recommend(digits, path=tmp_path / "b", store=store, **one | {"epochs": 3})
    assert near.policy == found.policy
    cold = lre.recommend(digits, path=tmp_path / "c", store=store, **one | {"epochs": 2, "warm_start": False})
    assert cold.policy == str(Space.of().grid(1)[0])
    within = lre.recommend(digits, path=tmp_path / "d", store=store, **one | {"lr_range": (1e-5, 4e-5)})
    assert within.policy == "FIX(k0=2e-05)"  # what the store knows is outside the range
    assert lre.recommend(digits, path=tmp_path / "e", store=False, **one).store is None


def test_with_a_target_the_soonest_is_recommended(digits, tmp_path):
    call = {**CALL, "path": tmp_path / "pool", "store": False}
    found = lre.recommend(digits, target=0.2, **call)
    pool, hits = lre.Pool.open(tmp_path / "pool"), {}
    for summary in pool.summaries():
        curve = pool.member(summary.id).history["val_accuracy"]
        if (curve >= 0.2).any():
            epoch = int(np.argmax(curve >= 0.2))
            hits[summary.asked] = (epoch, -curve[epoch])
    assert found.reached is True
    assert found.policy == min(hits, key=hits.get)
    assert found.top[0].steps_to_target == 7 * (1 + hits[found.policy][0])
    assert "reaches 20 % after" in str(found)
    missed = lre.recommend(digits, target=1.0, **call)
    assert missed.reached is False
    assert "no policy reached 100 %; the nearest" in str(missed)
    assert json.dumps(missed.to_dict(), allow_nan=False)


def test_documented_settings_come_first(tmp_path):
    data = lre.load_data("digits", train_size=64, val_size=40, test_size=40)
    call = {**CALL, "model": "lenet", "epochs": 1, "store": False, "trials": 2}
    lre.recommend(data, path=tmp_path / "a", **call)
    asked = [summary.asked for summary in lre.Pool.open(tmp_path / "a").summaries()]
    assert sorted(asked) == ["FIX(k0=0.0158)", "INV(k0=0.01, gamma=1/run, p=0.75)"]
    lre.recommend(data, path=tmp_path / "b", **call | {"optimizer": "adam", "trials": 1})
    assert [s.asked for s in lre.Pool.open(tmp_path / "b").summaries()] == ["FIX(k0=0.00158)"]


@pytest.mark.parametrize("pruner", ["none", "asha"])
def test_for_an_ensemble_the_best_policies_are_trained_again_with_other_seeds(pruner, digits, tmp_path):
    call = {**CALL, "store": False, "trials": 10, "objective": "ensemble", "pruner": pruner}
    found = lre.recommend(digits, path=tmp_path / "a", **call)
    pool = lre.Pool.open(tmp_path / "a")
    seeds = {summary.asked: 0 for summary in pool.summaries()}
    for summary in pool.summaries():
        seeds[summary.asked] += 1
    repeated = [one for one in found.top if len(one.seeds) > 1]
    assert repeated
    assert all(len(set(one.seeds)) == len(one.seeds) == seeds[one.policy] for one in repeated)
    losses = [pool.member(name).history["val_loss"][-1] for name in repeated[0].members]
    assert repeated[0].val_loss == pytest.approx(np.mean(losses))
    assert "±" in str(found)
    assert facts(lre.recommend(digits, path=tmp_path / "b", **call)) == facts(found)


def test_feedback_policies_can_be_searched(digits, tmp_path):
    families = ["ReduceOnPlateau", "ChangeOnPlateau"]
    found = lre.recommend(digits, path=tmp_path / "p", store=False, **CALL | {"trials": 4, "families": families})
    assert found.finished == 4
    assert parse_policy(found.policy).name in families


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_can_be_tuned(optimizer, digits, tmp_path):
    call = {**CALL, "optimizer": optimizer, "epochs": 1, "trials": 3, "batch": 3, "store": False}
    found = lre.recommend(digits, path=tmp_path / "pool", **call)
    space = Space.of(optimizer=optimizer)
    assert found.finished == 3
    assert all(space.locate(parse_policy(one.policy)) is not None for one in found.top)


def test_diverged_trainings_count_and_all_of_them_are_an_error(digits, tmp_path):
    call = {**CALL, "path": tmp_path / "pool", "store": tmp_path / "store.db", "families": "FIX"}
    found = lre.recommend(digits, sampler="grid", lr_range=(0.01, 9000), **call)
    assert found.diverged > 0
    assert found.finished + found.diverged == 8
    assert all(one.val_accuracy > 0 for one in found.top)
    with pytest.raises(TrainingError, match=r"all 8 trainings diverged .* lower lr_range"):
        lre.recommend(digits, lr_range=(8000, 9000), **call)
    with Store.open(tmp_path / "store.db") as store:
        assert len(store.trials(store.find(found.problem))) == 16


def test_a_grid_is_tried_in_its_order_and_ends(digits, tmp_path):
    call = {**CALL, "path": tmp_path / "pool", "store": False, "sampler": "grid", "families": ["FIX", "POLY"]}
    found = lre.recommend(digits, **call | {"trials": 5})
    asked = {str(policy) for policy in grid(["FIX", "POLY"], 5)}
    assert {summary.asked for summary in lre.Pool.open(tmp_path / "pool").summaries()} == asked
    assert found.ended == "spent"
    ended = lre.recommend(digits, **call | {"trials": 5, "lr_range": (0.1, 0.1)})
    assert (ended.ended, ended.trials) == ("exhausted", 2)
    assert "nothing new left" in str(ended)


def test_steps_and_time_can_be_limited(digits, tmp_path):
    call = {"store": False, **CALL, "trials": None}
    found = lre.recommend(digits, path=tmp_path / "pool", **call | {"max_steps": 3 * 28 + 27})
    assert (found.trials, found.steps) == (3, 84)
    with pytest.raises(InputError, match="at least the 28 steps of one training, got 27"):
        lre.recommend(digits, path=tmp_path / "pool", **call | {"max_steps": 27})
    with pytest.raises(TrainingError, match=r"no training was finished within .* another budget goes on"):
        lre.recommend(digits, path=tmp_path / "late", **call | {"budget": 1e-6})
    late = lre.recommend(digits, path=tmp_path / "late", **call | {"budget": 2, "epochs": 4})
    assert late.ended in ("late", "exhausted")
    assert "another budget goes on" in str(late)
    more = lre.recommend(digits, path=tmp_path / "late", **call | {"trials": 4, "budget": "10m"})
    assert (more.trials, more.ended) == (4, "spent")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"target": 0}, r"target: .* \(0, 1\]"),
        ({"target": 90}, r"target: .* \(0, 1\]"),
        ({"trials": 0}, "trials: expected a whole number"),
        ({"batch": 2.5}, "batch: expected a whole number"),
        ({"top": True}, "top: expected a whole number"),
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"pruner": "ash"}, "did you mean 'asha'"),
        ({"objective": "ensembl"}, "did you mean 'ensemble'"),
        ({"families": ["STEPS"]}, "did you mean 'STEP'"),
        ({"budget": "soon"}, "budget: expected a time"),
        ({"store": True}, "store: expected a file"),
        ({"epoch": 5}, "did you mean 'epochs'"),
        ({"seed": -1}, "seed: expected a whole number"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(wrong, says, digits, tmp_path):
    with pytest.raises(InputError, match=says):
        lre.recommend(digits, path=tmp_path / "pool", **{"store": tmp_path / "s.db", **CALL} | wrong)
    assert list(tmp_path.iterdir()) == []


# Other processes

COMMAND = ["recommend", "--data", "digits", "--model", "mlp(hidden=8)", "--train-size", "200", "--val-size", "90"]
COMMAND += ["--test-size", "80", "--batch-size", "32", "--jobs", "1"]


def process(folder, *arguments):
    command = [sys.executable, "-m", "lrensemble", *COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(running):
    out, err = running.communicate(timeout=200)
    assert running.returncode == 0, err
    return json.loads(out)


def test_killed_a_search_goes_on_to_the_same_outcome(tmp_path, digits):
    arguments = ["--pool", "pool", "--trials", 6, "--batch", 3, "--epochs", 60, "--checkpoint-seconds", 0, "--json"]
    running = process(tmp_path, *arguments)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "pool" / "members").glob("*")):  # the first batch is done, the second under way
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    before = {path.name for path in (tmp_path / "pool" / "members").iterdir()}
    assert 0 < len(before) < 6
    resumed = ended(process(tmp_path, *arguments))
    call = {**CALL, "trials": 6, "batch": 3, "epochs": 60}
    fresh = lre.recommend(digits, path=tmp_path / "fresh", store=tmp_path / "fresh.db", **call)
    assert resumed["members"] == list(fresh.members)
    assert [one["policy"] for one in resumed["top"]] == [one.policy for one in fresh.top]
    assert [one["score"] for one in resumed["top"]] == [one.score for one in fresh.top]


def test_two_processes_on_one_store_do_what_each_does_alone(tmp_path, digits):
    arguments = ["--trials", 6, "--batch", 3, "--epochs", 3, "--store", "store.db", "--cold", "--json"]
    runs = [process(tmp_path, *arguments, "--seed", seed, "--pool", f"pool{seed}") for seed in (0, 1)]
    runs += [
        process(tmp_path, *arguments, "--seed", 1, "--pool", "pool1")
    ]  # the same search twice at once, in one pool
    found = [ended(running) for running in runs]
    assert found[1]["members"] == found[2]["members"]
    assert found[1]["policy"] == found[2]["policy"]
    with Store.open(tmp_path / "store.db") as store:
        members = [trial.member for trial in store.trials(store.find(found[0]["problem"]))]
    assert sorted(members) == sorted({*found[0]["members"], *found[1]["members"]})
    alone = lre.recommend(
        digits, path=tmp_path / "alone", store=False, warm_start=False, **CALL | {"trials": 6, "batch": 3, "epochs": 3}
    )
    assert found[0]["members"] == list(alone.members)
    assert found[0]["policy"] == alone.policy


# The command


def test_the_command_recommends_and_then_selects(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [*COMMAND, "--trials", "6", "--epochs", "6", "--lr-range", "0.02", "0.2", "--families", "FIX", "POLY"]
    assert main([*arguments, "--then-select"]) == 0
    text, progress = capsys.readouterr()
    assert re.search(r"^use      (FIX|POLY)\(", text, flags=re.M)
    assert "Tuning cost 6 trainings" in text
    assert "What the same trainings give together:" in text
    assert "best so far" in progress
    assert (tmp_path / "checkpoints" / "store.db").exists()
    assert main([*arguments, "--then-select", "--json", "--quiet", "--top", "2"]) == 0
    text, progress = capsys.readouterr()
    found = json.loads(text)
    assert progress == ""
    assert len(found["top"]) == 2
    assert found["together"]["report"]["n_members"] == 6
    pool = lre.Pool.open(found["pool"])
    assert set(found["members"]) == set(pool.ids)
    assert found["policy"] in text


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--target", "2"], 1, "target: expected a validation accuracy"),
        (["--sampler", "bayes"], 1, "unknown sampler 'bayes'"),
        (["--trials", "many"], 2, "expected a whole number"),
        (["--policies", "FIX(0.1)"], 2, "unrecognized arguments"),
        (["--budget", "1x"], 1, "budget: expected a time"),
        (["--store", "mysql://a/b"], 1, "expected a store as a file"),
    ],
)
def test_the_command_says_what_is_wrong(flags, code, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, *flags]) == code
    assert says in capsys.readouterr().err


def test_interrupted_the_command_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lrensemble.tuning.recommending.search", interrupted)
    assert main(COMMAND) == 130
    assert capsys.readouterr().err.endswith("what was trained is kept; the same command goes on from there\n")
