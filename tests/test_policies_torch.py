"""Policies as PyTorch schedulers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from lrensemble.errors import PolicyError
from lrensemble.policies import POLICIES, parse_policy, preset

STEPS = 60


def _optimizer(groups: int = 1, **options: Any) -> torch.optim.Optimizer:
    parameters = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(groups)]
    parameters[-1].update(options)
    return torch.optim.SGD(parameters, lr=123.0, momentum=0.9)


def _run(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, steps: int) -> list[list[float]]:
    rates = []
    for _ in range(steps):
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        rates.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("policy", preset("default") + preset("lrbench"), ids=str)
def test_scheduler_gives_the_rates_of_the_policy(policy: Any) -> None:
    resolved = policy.resolve(total_steps=STEPS, steps_per_epoch=10)
    optimizer = _optimizer(groups=2)
    scheduler = resolved.scheduler(optimizer)
    assert isinstance(scheduler, LRScheduler)
    rates = _run(optimizer, scheduler, STEPS)
    assert np.array_equal(rates, np.repeat(resolved.curve(STEPS)[:, None], 2, axis=1))


def test_groups_may_scale_the_rate() -> None:
    optimizer = _optimizer(groups=2, lr_scale=0.1)
    rates = np.array(_run(optimizer, parse_policy("EXP(0.1, 0.9)").scheduler(optimizer), 10))
    np.testing.assert_allclose(rates[:, 1], rates[:, 0] * 0.1)


def test_resume_continues_where_it_stopped() -> None:
    policy = parse_policy("[TRI(0.01, 0.2, 7) @ 20 | Warmup(SGDR(0, 0.1, 10), 5)]")
    optimizer = _optimizer()
    scheduler = policy.scheduler(optimizer)
    _run(optimizer, scheduler, 23)
    saved = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, saved)
    saved.seek(0)

    state = torch.load(saved, weights_only=True)
    fresh = _optimizer()
    resumed = policy.scheduler(fresh)
    fresh.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["scheduler"])
    assert resumed.policy == policy
    assert _run(fresh, resumed, 30) == _run(optimizer, scheduler, 30)
    assert np.array_equal(np.ravel(_run(fresh, resumed, 5)), policy.curve(58)[53:])


def test_resume_by_step_number_alone() -> None:
    policy = parse_policy("EXP(0.1, 0.9)")
    optimizer = _optimizer(initial_lr=0.1)
    assert policy.scheduler(optimizer, last_epoch=6).get_last_lr() == [policy(7)]


def test_state_of_another_policy_is_refused() -> None:
    state = parse_policy("FIX(0.1)").scheduler(_optimizer()).state_dict()
    other = parse_policy("FIX(0.2)").scheduler(_optimizer())
    with pytest.raises(PolicyError, match=r"state of a scheduler with FIX\(k0=0.2\), got one with FIX\(k0=0.1\)"):
        other.load_state_dict(state)


def test_unresolved_policies_have_no_scheduler() -> None:
    with pytest.raises(PolicyError, match="call resolve"):
        parse_policy("OneCycle(0.1)").scheduler(_optimizer())


def test_works_inside_chained_schedulers() -> None:
    optimizer = _optimizer()
    chained = torch.optim.lr_scheduler.ChainedScheduler([parse_policy("EXP(0.1, 0.9)").scheduler(optimizer)])
    assert np.allclose(np.ravel(_run(optimizer, chained, 5)), 0.1 * 0.9 ** np.arange(5))


def test_training_with_a_scheduler_learns() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([1.0, -2.0, 0.5])
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = parse_policy("OneCycle(0.1)").resolve(total_steps=100).scheduler(optimizer)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x).squeeze(1), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert loss.item() < 1e-3


def test_every_table_entry_is_reached_by_its_own_name() -> None:
    assert {spec.policy.__name__ for spec in POLICIES.values()} <= set(POLICIES)
