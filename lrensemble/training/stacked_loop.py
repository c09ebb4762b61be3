"""Many trainings at once: the twin of `loop.train` for a stack of networks.

Each training keeps its own learning rates, order, augmentation, dropout and fate, drawn as in the reference loop; what
they share is the pass through the networks and the step of the optimisers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lrensemble.data import AUGMENTATIONS
from lrensemble.stacked import Part, StackedNetwork, StackedOptimizer
from lrensemble.training.cuda_graph import GraphedStep
from lrensemble.training.loop import CHECK_STEPS, EVALUATION_BATCH, stable_seed
from lrensemble.training.training import Training

__all__ = ["train_stack"]


def train_stack(trainings: Sequence[Training], *, implementation: str | None = None, graphs: bool = True) -> None:
    """Train networks of one architecture in place, as `loop.train` trains each of them, to the last one's end.

    Parameters
    ----------
    trainings
        Of one architecture, `config`, `data` and number of samples. They may be at different epochs, and learn from and
        be judged on different rows. One that ends, whatever the reason, leaves the stack.
    implementation
        Name in ``lrensemble.stacked.IMPLEMENTATIONS``; None takes what suits the network and its device.
    graphs
        Whether a GPU is to replay its steps from a recording (CUDA graphs), where that is possible.
    """
    for training in trainings:
        if training.is_over:
            training.on_end(training)
    running = [training for training in trainings if not training.is_over]
    if running:
        _Stack(running, implementation, graphs).train()


class _Stack:
    """The trainings that are left, with their networks and optimisers, in one order.

    Attributes
    ----------
    orders
        Samples of the epoch under way, as indices, shape (K, n).
    rates
        Its learning rates, float64, shape (K, steps).
    losses
        Its losses so far, shape (K, steps).
    """

    def __init__(self, trainings: list[Training], implementation: str | None, graphs: bool) -> None:
        first = trainings[0]
        self.graphs = graphs
        self.trainings = trainings
        self.config, self.data, self.steps = first.config, first.data, first.steps
        self.device = self.data.x.device
        self.network = StackedNetwork(
            [training.model for training in trainings], self.data.x.shape[1:], implementation=implementation
        )
        self.optimizer = StackedOptimizer(
            [training.optimizer for training in trainings], self.network, clip_norm=self.config.clip_norm
        )
        size = self.config.batch_size
        self.sizes = [min(size, first.n - start) for start in range(0, first.n, size)][: self.steps]
        self.augment = AUGMENTATIONS[self.config.augment]
        self.generators = [torch.Generator(self.device) for _ in trainings]  # of augmentation
        self.half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
        self.seconds = [training.run.seconds for training in trainings]
        self.clock = time.perf_counter()
        self._prepare()
        for training in trainings:
            training.sync = partial(self._sync, training)

    def _prepare(self) -> None:
        """Arrange the steps of those that are in the stack now."""
        self.learn: dict[Part, Callable[..., Tensor]] = {
            part: partial(self._learn, part) for part in self.network.parts
        }
        if self.device.type == "cuda" and self.graphs:
            self.learn = {part: GraphedStep(learn, self.network.generators) for part, learn in self.learn.items()}

    def train(self) -> None:
        """Make epoch after epoch, until nothing is left to do."""
        while self.trainings:
            self._begin_epoch()
            for step in range(self.steps):
                for part in self.network.parts:
                    self._step(part, step)
                self._look(step)
                if not self.trainings:  # all have diverged
                    return
            self._end_epoch()

    def _begin_epoch(self) -> None:
        orders, rates = [], []
        for training, *generators in zip(self.trainings, self.network.generators, self.generators, strict=True):
            epoch = training.run.epoch
            draw = stable_seed(training.draw, f"epoch {epoch}")
            for generator in generators:
                generator.manual_seed(draw)
            orders.append(training.order(draw))
            rates.append(training.rates(epoch))
        self.orders = torch.stack(orders)
        self.rates = torch.from_numpy(np.stack(rates)).to(self.device)
        self.losses = torch.zeros(len(orders), self.steps, dtype=torch.float64, device=self.device)
        self.marked = self._marked()
        self.diverged: set[int] = set()
        self.network.train()

    def _marked(self) -> dict[int, list[Training]]:
        """Trainings that are to be called back in this epoch, by step."""
        marked: dict[int, list[Training]] = {}
        for training in self.trainings:
            first = training.run.epoch * self.steps
            for mark in training.marks:
                if first < mark <= first + self.steps:
                    marked.setdefault(mark - first - 1, []).append(training)
        return marked

    def _step(self, part: Part, step: int) -> None:
        members = slice(part.members.start, part.members.stop)
        first = step * self.config.batch_size
        batch = self.orders[members, first : first + self.config.batch_size].reshape(-1)
        x = self.augment.changed(self.data.x.index_select(0, batch), self.generators[members])
        self.losses[members, step] = self.learn[part](x, self.data.y.index_select(0, batch), self.rates[members, step])

    def _learn(self, part: Part, x: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        """Make a step of the networks of one part and return their losses; on a CPU an infinite one stops its network.

        On a GPU nothing in here waits for a number, so that it can be recorded.
        """
        part.leaf.grad = None
        with self.half:
            logits = part(x)
        losses = cross_entropy(logits.float(), y, reduction="none", label_smoothing=self.config.label_smoothing)
        loss = losses.view(len(part.members), -1).mean(dim=1)
        if self.device.type == "cpu":
            first = part.members.start
            self.diverged.update(first + k for k, value in enumerate(loss.tolist()) if not math.isfinite(value))
        if not self.diverged.issuperset(part.members):
            loss.sum().backward()
            self.optimizer.step(part, rates, skip=self.diverged)
        return loss.detach()

    def _look(self, step: int) -> None:
        """Let those that have diverged leave, and call back those that have reached a mark."""
        check_steps = CHECK_STEPS[self.device.type]
        if check_steps > 1 and (step + 1) % check_steps == 0:
            finite = self.losses[:, : step + 1].isfinite().all(dim=1).tolist()
            self.diverged.update(k for k, value in enumerate(finite) if not value)
        if self.diverged:
            for k in self.diverged:
                self._record(k, step + 1, (math.nan, math.nan))
            self._leave(self.diverged)
        for training in self.marked.get(step, ()):
            if training in self.trainings:
                training.on_mark(training, training.run.epoch * self.steps + step + 1)

    def _end_epoch(self) -> None:
        for k, validation in enumerate(self._validate()):
            self._record(k, self.steps, validation)
        self._leave({k for k, training in enumerate(self.trainings) if training.is_over})

    def _record(self, k: int, steps: int, validation: tuple[float, float]) -> None:
        """Close the epoch of a training of which it has seen `steps` losses."""
        training, run = self.trainings[k], self.trainings[k].run
        losses = self.losses[k, :steps].cpu().numpy()
        updates = int(np.isfinite(losses).cumprod().sum())  # those before the first loss that is not finite
        if updates < steps:
            validation = (math.nan, math.nan)
        run.diverged = updates < steps or not math.isfinite(validation[0])
        run.record(
            steps=run.epoch * self.steps + updates,
            rates=self.rates[k, :updates].tolist(),
            train_loss=float(np.average(losses, weights=self.sizes[:steps])),
            val=validation,
            seconds=self._seconds()[k],
        )
        training.on_epoch(training)

    @torch.no_grad()
    def _validate(self) -> list[tuple[float, float]]:
        """Negative log-likelihood and accuracy of every network, as `loop.evaluate` gives them."""
        self.network.eval()
        validation = self.trainings[0].validation
        if all(training.validation is validation and training.validation_rows is None for training in self.trainings):
            logits = [self.network(x.clone()) for x in validation.x.split(EVALUATION_BATCH)]
            return [_scores(own, validation.y) for own in torch.cat(logits, dim=1)]
        scores = []
        for k, training in enumerate(self.trainings):
            samples, alone = training.validation_samples, self.network.alone(k)
            scores.append(_scores(torch.cat([alone(x.clone()) for x in samples.x.split(EVALUATION_BATCH)]), samples.y))
        return scores

    def _seconds(self) -> list[float]:
        """Seconds of every training so far: those that have passed are shared by all that are in the stack."""
        now = time.perf_counter()
        share = (now - self.clock) / len(self.trainings)
        self.seconds, self.clock = [seconds + share for seconds in self.seconds], now
        return self.seconds

    def _leave(self, members: Collection[int]) -> None:
        """Take members out of the stack, and tell them."""
        if not members:
            return
        self._seconds()
        leaving = [self.trainings[k] for k in members]
        for training in leaving:
            training.sync()
            training.sync = _nothing
        kept = [k for k in range(len(self.trainings)) if k not in members]
        rows = torch.tensor(kept, device=self.device, dtype=torch.long)
        self.network.keep(kept)
        self.optimizer.keep(kept)
        for name in ("trainings", "generators", "seconds"):
            setattr(self, name, [getattr(self, name)[k] for k in kept])
        for name in ("orders", "rates", "losses"):
            setattr(self, name, getattr(self, name).index_select(0, rows))
        self._prepare()
        self.diverged = set()
        for training in leaving:
            training.on_end(training)

    def _sync(self, training: Training) -> None:
        """Bring a training's own network and optimiser up to date."""
        k = self.trainings.index(training)
        self.network.write_back(k)
        self.optimizer.write_back(k)


def _scores(logits: Tensor, y: Tensor) -> tuple[float, float]:
    logits = logits.float()
    loss = cross_entropy(logits.double(), y)
    accuracy = (logits.argmax(dim=1) == y).double().mean()
    loss_value, accuracy_value = torch.stack([loss, accuracy]).tolist()
    return (loss_value, accuracy_value) if math.isfinite(loss_value) else (math.nan, math.nan)


def _nothing() -> None:
    return None
