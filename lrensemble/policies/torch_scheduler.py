"""A policy as a PyTorch scheduler; imported only where a scheduler is asked for, since it needs PyTorch."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrensemble.errors import PolicyError
from lrensemble.policies.base import Policy

__all__ = ["PolicyScheduler"]


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

    def __init__(self, optimizer: Optimizer, policy: Policy, last_epoch: int = -1) -> None:
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
        theirs = state_dict.get("policy")
        if theirs != str(self.policy):
            raise PolicyError(f"expected the state of a scheduler with {self.policy}, got one with {theirs}")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "policy"})
