"""The same policy at several base learning rates: how much a result depends on the rate being right."""

from __future__ import annotations

from collections.abc import Sequence

from lrensemble.errors import PolicyError
from lrensemble.policies.base import Policy

__all__ = ["SCALES", "scale_family"]

SCALES = (0.1, 0.5, 1.0, 5.0, 10.0)


def scale_family(policy: Policy, factors: Sequence[float] = SCALES) -> list[Policy]:
    """Return the policy with all its rates multiplied by each factor, to train a pool with.

    Parameters
    ----------
    policy
        Any policy.
    factors
        Different numbers > 0.

    Examples
    --------
    >>> from lrensemble.policies import FIX
    >>> scale_family(FIX(0.05), (0.1, 1, 10))
    [FIX(k0=0.005), FIX(k0=0.05), FIX(k0=0.5)]

    Raises
    ------
    PolicyError
        For a factor that is not > 0, one that is there twice, or none.
    """
    if not factors or len(set(factors)) < len(factors):
        raise PolicyError(f"expected one factor or more, each once, got {', '.join(map(str, factors)) or 'none'}")
    return [policy.scaled(factor) for factor in factors]
