"""`StackedOptimizer`: the optimisers of K networks, each with its own learning rate at every step.

A network's parameters, gradients and state are rows of one number array each, so that a step is a handful of operations
whatever the number of layers: on a CPU network by network, which stays in its cache, and elsewhere all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lrensemble.errors import InputError
from lrensemble.stacked.network import Part, StackedNetwork

__all__ = ["RULES", "Rule", "StackedOptimizer"]

Options: TypeAlias = Mapping[str, Any]
State: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """How an optimiser of torch makes a step.

    Attributes
    ----------
    state
        ``state(options)``: the names under which torch keeps numbers for each parameter.
    update
        ``update(p, g, state, step, rate, options)`` changes parameters `p` and the state in place, and may change the
        gradient `g`: all are of shape (K, P), `step` (counted from 1) and `rate` of shape (K, 1); or of one network, of
        shape (P,), with scalars.
    fused
        ``fused(p, g, state, step, rate, options)``: the same for one network by torch's kernel for CPUs; there `rate`
        is a number.
    counts
        Whether torch keeps the number of steps.
    """

    state: Callable[[Options], tuple[str, ...]]
    update: Callable[[Tensor, Tensor, State, Tensor, Tensor, Options], None]
    fused: Callable[[Tensor, Tensor, State, Tensor, float, Options], None] | None = None
    counts: bool = True


class StackedOptimizer:
    """Makes the steps of K optimisers of one kind and one setting.

    Parameters
    ----------
    optimizers
        Of the networks' trainable parameters, in the order in which they are stacked; their state is copied, and comes
        back with `write_back`.
    network
        The stack.
    clip_norm
        Largest norm of a network's whole gradient, as in ``torch.nn.utils.clip_grad_norm_``.
    fused
        Whether to use torch's kernels for CPUs, where there are any.

    Raises
    ------
    InputError
        If there is no rule for this optimiser.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        network: StackedNetwork,
        *,
        clip_norm: float | None = None,
        fused: bool = True,
    ) -> None:
        kind = type(optimizers[0])
        if kind not in RULES or len(optimizers[0].param_groups) != 1:
            raise InputError(f"expected an optimiser with one group of {_names()}, got {kind.__name__}")
        self.rule = RULES[kind]
        self.options: dict[str, Any] = optimizers[0].param_groups[0]
        self.clip_norm = clip_norm
        self._by_row = network.device.type == "cpu"
        self._fused = self.rule.fused if fused and self._by_row else None
        self._optimizers = list(optimizers)
        self._layout = network.layout
        names = self.rule.state(self.options)
        parameters = [optimizer.param_groups[0]["params"] for optimizer in optimizers]
        states = [
            [optimizer.state.get(p, {}) for p in own] for optimizer, own in zip(optimizers, parameters, strict=True)
        ]
        with torch.no_grad():
            self.state = {
                name: network.layout.stack(
                    [
                        [_or_zero(state.get(name), p) for state, p in zip(one, own, strict=True)]
                        for one, own in zip(states, parameters, strict=True)
                    ],
                    like=network.rows,
                )
                for name in names
            }
        self.steps = torch.tensor(
            [float(one[0].get("step", 0.0)) for one in states], device=network.device, dtype=torch.float32
        )
        self.rates = torch.zeros(len(optimizers), device=network.device, dtype=torch.float64)
        self._moved: set[int] = set()  # those that have made a step
        self._divide()

    def step(self, part: Part, rates: Tensor, *, skip: Collection[int] = ()) -> None:
        """Update the networks of a part by their gradients, which may be changed.

        Parameters
        ----------
        part
            Whose gradients are there.
        rates
            Learning rates, float64, shape (networks of the part,), on the device.
        skip
            Networks that stay as they are (on a CPU only).
        """
        assert part.leaf.grad is not None
        first, count = part.members.start, len(part.members)
        members = slice(first, first + count)
        p, g = part.leaf.detach().view(count, -1), part.leaf.grad.view(count, -1)
        self.rates[members] = rates
        self._moved.update(k for k in part.members if k not in skip)
        if not self._by_row:
            self._clip(g)
            step = self.steps[members].add_(1).double().unsqueeze(1)
            state = {name: values[members] for name, values in self.state.items()}
            self.rule.update(p, g, state, step, rates.to(p.dtype).unsqueeze(1), self.options)
            return
        for k, row, grad, rate in zip(part.members, p.unbind(), g.unbind(), rates.tolist(), strict=True):
            if k not in skip:
                self._step_row(k, row, grad, rate)

    def _step_row(self, k: int, p: Tensor, g: Tensor, rate: float) -> None:
        self._clip(g)
        state, step = self._rows[k]
        if self.rule.counts:
            step.add_(1)
        if self._fused is not None:
            self._fused(p, g, state, step, rate, self.options)
        else:
            self.rule.update(p, g, state, step.double(), torch.tensor(rate, dtype=p.dtype), self.options)

    def _clip(self, g: Tensor) -> None:
        if self.clip_norm is not None:
            norm = torch.linalg.vector_norm(g, dim=-1, keepdim=True)
            g.mul_((self.clip_norm / (norm + 1e-6)).clamp_(max=1.0))

    def write_back(self, index: int) -> None:
        """Bring a network's own optimiser up to date, as if it had made the steps."""
        optimizer = self._optimizers[index]
        (group,) = optimizer.param_groups
        if index not in self._moved:
            return
        group["lr"] = float(self.rates[index])
        views = {name: self._layout.views(values[index]) for name, values in self.state.items()}
        for number, parameter in enumerate(group["params"] if views else ()):
            state = optimizer.state[parameter]
            if self.rule.counts:
                on_device = group.get("fused") or group.get("capturable")
                like = state.get("step", torch.zeros((), device=parameter.device if on_device else "cpu"))
                state["step"] = torch.full_like(like, float(self.steps[index]))
            for name, values in views.items():
                state[name] = torch.empty_like(parameter).copy_(values[number])

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the networks, in this order."""
        kept = torch.tensor(indices, device=self.steps.device, dtype=torch.long)
        self.state = {name: values.index_select(0, kept) for name, values in self.state.items()}
        self.steps, self.rates = self.steps.index_select(0, kept), self.rates.index_select(0, kept)
        self._optimizers = [self._optimizers[k] for k in indices]
        self._moved = {new for new, old in enumerate(indices) if old in self._moved}
        self._divide()

    def _divide(self) -> None:
        """Look up every network's state and count of steps once, not at every step."""
        self._rows = [
            ({name: values[k] for name, values in self.state.items()}, step) for k, step in enumerate(self.steps)
        ]


def _or_zero(value: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if value is None else value


def _names() -> str:
    return ", ".join(kind.__name__ for kind in RULES)


# --- the rules: torch's formulas, with a rate and a count for each network --------------------------------------------


def _decayed(p: Tensor, g: Tensor, options: Options) -> Tensor:
    return g.add_(p, alpha=options["weight_decay"]) if options["weight_decay"] else g


def _sgd(p: Tensor, g: Tensor, state: State, step: Tensor, rate: Tensor, options: Options) -> None:
    g = _decayed(p, g, options)
    if options["momentum"]:
        buffer = state["momentum_buffer"].mul_(options["momentum"]).add_(g)
        g = g.add_(buffer, alpha=options["momentum"]) if options["nesterov"] else buffer
    p.addcmul_(g, rate, value=-1)


def _adam(p: Tensor, g: Tensor, state: State, step: Tensor, rate: Tensor, options: Options) -> None:
    _adam_update(p, _decayed(p, g, options), state, step, rate, options)


def _adamw(p: Tensor, g: Tensor, state: State, step: Tensor, rate: Tensor, options: Options) -> None:
    p.mul_(1 - rate * options["weight_decay"])
    _adam_update(p, g, state, step, rate, options)


def _adam_update(p: Tensor, g: Tensor, state: State, step: Tensor, rate: Tensor, options: Options) -> None:
    beta1, beta2 = options["betas"]
    mean = state["exp_avg"].lerp_(g, 1 - beta1)
    square = state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
    unbias_mean, unbias_square = ((1 - beta**step).to(p.dtype) for beta in (beta1, beta2))
    p.sub_(mean.div(square.div(unbias_square).sqrt_().add_(options["eps"])).mul_(rate / unbias_mean))


def _rmsprop(p: Tensor, g: Tensor, state: State, step: Tensor, rate: Tensor, options: Options) -> None:
    g = _decayed(p, g, options)
    square = state["square_avg"].mul_(options["alpha"]).addcmul_(g, g, value=1 - options["alpha"])
    p.sub_(g.div_(square.sqrt().add_(options["eps"])).mul_(rate))


def _adagrad(p: Tensor, g: Tensor, state: State, step: Tensor, rate: Tensor, options: Options) -> None:
    g = _decayed(p, g, options)
    total = state["sum"].addcmul_(g, g)
    rate = rate / (1 + (step - 1) * options["lr_decay"]).to(p.dtype)
    p.sub_(g.div_(total.sqrt().add_(options["eps"])).mul_(rate))


def _adadelta(p: Tensor, g: Tensor, state: State, step: Tensor, rate: Tensor, options: Options) -> None:
    g, rho, eps = _decayed(p, g, options), options["rho"], options["eps"]
    square = state["square_avg"].mul_(rho).addcmul_(g, g, value=1 - rho)
    delta = state["acc_delta"].add(eps).div_(square.add(eps)).sqrt_().mul_(g)
    state["acc_delta"].mul_(rho).addcmul_(delta, delta, value=1 - rho)
    p.sub_(delta.mul_(rate))


def _fused_sgd(p: Tensor, g: Tensor, state: State, step: Tensor, rate: float, options: Options) -> None:
    torch._fused_sgd_(
        [p],
        [g],
        list(state.values()),
        weight_decay=options["weight_decay"],
        momentum=options["momentum"],
        lr=rate,
        dampening=0.0,
        nesterov=options["nesterov"],
        maximize=False,
        is_first_step=False,
    )


def _fused_adam(p: Tensor, g: Tensor, state: State, step: Tensor, rate: float, options: Options) -> None:
    _fused_adam_kernel(torch._fused_adam_, p, g, state, step, rate, options)


def _fused_adamw(p: Tensor, g: Tensor, state: State, step: Tensor, rate: float, options: Options) -> None:
    _fused_adam_kernel(torch._fused_adamw_, p, g, state, step, rate, options)


def _fused_adam_kernel(
    kernel: Any, p: Tensor, g: Tensor, state: State, step: Tensor, rate: float, options: Options
) -> None:
    kernel(
        [p],
        [g],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [step],
        lr=rate,
        beta1=options["betas"][0],
        beta2=options["betas"][1],
        weight_decay=options["weight_decay"],
        eps=options["eps"],
        amsgrad=False,
        maximize=False,
    )


def _fused_adagrad(p: Tensor, g: Tensor, state: State, step: Tensor, rate: float, options: Options) -> None:
    torch._fused_adagrad_(
        [p],
        [g],
        [state["sum"]],
        [step],
        lr=rate,
        lr_decay=options["lr_decay"],
        weight_decay=options["weight_decay"],
        eps=options["eps"],
        maximize=False,
    )


def _always(*names: str) -> Callable[[Options], tuple[str, ...]]:
    return lambda options: names


def _with_momentum(options: Options) -> tuple[str, ...]:
    return ("momentum_buffer",) if options["momentum"] else ()


RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.SGD: Rule(_with_momentum, _sgd, _fused_sgd, counts=False),
    torch.optim.Adam: Rule(_always("exp_avg", "exp_avg_sq"), _adam, _fused_adam),
    torch.optim.AdamW: Rule(_always("exp_avg", "exp_avg_sq"), _adamw, _fused_adamw),
    torch.optim.RMSprop: Rule(_always("square_avg"), _rmsprop),
    torch.optim.Adagrad: Rule(_always("sum"), _adagrad, _fused_adagrad),
    torch.optim.Adadelta: Rule(_always("square_avg", "acc_delta"), _adadelta),
}
