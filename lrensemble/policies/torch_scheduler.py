"""Policies as PyTorch schedulers; imported only where a scheduler is asked for, since it needs PyTorch."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrensemble.errors import PolicyError
from lrensemble.policies.base import Policy, TimePolicy
from lrensemble.policies.feedback import FeedbackPolicy, FeedbackState

__all__ = ["FeedbackScheduler", "PolicyScheduler"]


class PolicyScheduler(LRScheduler):
    """Gives an optimiser the rates of a policy, one ``step()`` after each ``optimizer.step()``.

    Works wherever PyTorch's schedulers do, such as ``transformers.Trainer(optimizers=(optimizer, scheduler))``. Every
    parameter group gets the policy's rate, times its ``"lr_scale"`` if it has one.

    Parameters
    ----------
    optimizer
        The optimiser; its own learning rates are replaced.
    policy
        A resolved policy.
    last_epoch
        Number of the last step done, as in PyTorch; -1 to start.
    """

    def __init__(self, optimizer: Optimizer, policy: TimePolicy, last_epoch: int = -1) -> None:
        self.policy = policy
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Rates of the parameter groups at the present step."""
        rate = self.policy(self.last_epoch)
        return [rate * group.get("lr_scale", 1.0) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Plain state: numbers, and the policy as text, so that ``torch.load(weights_only=True)`` reads it."""
        return {**super().state_dict(), "policy": str(self.policy)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of the same policy.

        Raises
        ------
        PolicyError
            If the state belongs to another policy.
        """
        _check_same(self.policy, state_dict)
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "policy"})


class FeedbackScheduler(LRScheduler):
    """Gives an optimiser the rates of a feedback policy.

    ``step()`` after each ``optimizer.step()``, as with any scheduler, and ``step(metric)`` after each epoch, as with
    PyTorch's ``ReduceLROnPlateau``. Every parameter group gets the policy's rate, times its ``"lr_scale"`` if there is
    one.

    Parameters
    ----------
    optimizer
        The optimiser; its own learning rates are replaced.
    policy
        A resolved policy.
    """

    def __init__(self, optimizer: Optimizer, policy: FeedbackPolicy[Any]) -> None:
        self.policy = policy
        self.state: FeedbackState = policy.init()
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """Rates of the parameter groups at the present step."""
        rate = self.policy.rate(self.state, self.last_epoch)
        return [rate * group.get("lr_scale", 1.0) for group in self.optimizer.param_groups]

    def step(self, metrics: Any = None) -> None:
        """Count a step of the optimiser; or, given what `policy.monitor` has come to, the end of an epoch."""
        if metrics is None:
            super().step()
            return
        self.state = self.policy.update(self.state, float(metrics))
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Plain state: numbers, and the policy as text, so that ``torch.load(weights_only=True)`` reads it."""
        return {**super().state_dict(), "policy": str(self.policy), "state": self.state.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of the same policy.

        Raises
        ------
        PolicyError
            If the state belongs to another policy.
        """
        _check_same(self.policy, state_dict)
        self.state = self.policy.state(state_dict["state"])
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in ("policy", "state")})


def _check_same(policy: Policy, state_dict: dict[str, Any]) -> None:
    theirs = state_dict.get("policy")
    if theirs != str(policy):
        raise PolicyError(f"expected the state of a scheduler with {policy}, got one with {theirs}")
