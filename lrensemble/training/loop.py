"""The reference loop: one network, plain PyTorch, from the first step to the last.

The loop owns the clock t and asks for the learning rate of every step, epoch by epoch. Everything random is a function
of (seed, epoch) alone, so that a training that was interrupted needs no generator state to go on exactly where it was.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrensemble.data import AUGMENTATIONS
from lrensemble.data.randomness import ALONE
from lrensemble.training.training import Samples, Training

if TYPE_CHECKING:
    from lrensemble.training.batches import Stream

__all__ = ["controlled", "evaluate", "predict", "seed_global", "stable_seed", "train"]

EVALUATION_BATCH = 256  # larger ones leave the processor's cache and gain nothing
CHECK_STEPS = {"cpu": 1, "cuda": 50}  # reading a loss stalls a GPU: look seldom, and at all of them after the epoch


def train(training: Training) -> None:
    """Train one network in place until its last epoch, until it diverges, or until it is told to stop.

    A training that diverges stops before the update of the first loss that is not finite (or after the epoch, if it is
    the validation loss); what was not measured is NaN.
    """
    model, optimizer, config, run = training.model, training.optimizer, training.config, training.run
    data, steps = training.data, training.steps
    device = data.x.device
    augment = AUGMENTATIONS[config.augment]
    generator = torch.Generator(device)
    half = torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
    check_steps = CHECK_STEPS[device.type]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    clock = time.perf_counter() - run.seconds

    while not training.is_over:
        draw = stable_seed(training.draw, f"epoch {run.epoch}")
        seed_global(draw, device)  # dropout
        generator.manual_seed(draw)  # augmentation
        batches = training.order(draw).split(config.batch_size)[:steps]
        first_step = run.epoch * steps
        rates = training.rates(run.epoch).tolist()
        losses: list[Tensor] = []

        model.train()
        for rate, (batch, y) in zip(rates, data.batches(batches, draw), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            x = augment(batch, generator)
            with half:
                logits = model(x)
            loss = cross_entropy(logits.float(), y, label_smoothing=config.label_smoothing)
            losses.append(loss.detach())
            if len(losses) % check_steps == 0 and not math.isfinite(loss.item()):
                break
            for parameter in trained:
                parameter.grad = None
            loss.backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            if first_step + len(losses) in training.marks:
                training.on_mark(training, first_step + len(losses))
                model.train()

        measured = torch.stack(losses).double().cpu().numpy()
        updates = int(np.isfinite(measured).cumprod().sum())  # those before the first loss that is not finite
        run.diverged = updates < steps
        validation = (math.nan, math.nan) if run.diverged else evaluate(model, training.validation_samples)
        run.diverged |= not math.isfinite(validation[0])
        run.record(
            steps=first_step + updates,
            rates=rates[:updates],
            train_loss=float(np.average(measured, weights=[len(batch) for batch in batches[: len(measured)]])),
            val=validation,
            seconds=time.perf_counter() - clock,
        )
        training.on_epoch(training)
    training.on_end(training)


def predict(model: nn.Module, x: Tensor | Stream) -> Tensor:
    """Logits of all samples in evaluation mode and full precision, float32 (N, C), on the device of `x`."""
    model.eval()
    with torch.no_grad():
        # a slice of a mapped file may lie at any address, and a matrix product may round by address: so copy it
        return torch.cat([model(part.clone()).float() for part in x.split(EVALUATION_BATCH)])


def evaluate(model: nn.Module, samples: Samples) -> tuple[float, float]:
    """Mean negative log-likelihood (without smoothing) and accuracy; both NaN when a logit is not finite."""
    logits = predict(model, samples.x)
    loss = cross_entropy(logits.double(), samples.y)
    accuracy = (logits.argmax(dim=1) == samples.y).double().mean()
    loss_value, accuracy_value = torch.stack([loss, accuracy]).tolist()
    return (loss_value, accuracy_value) if math.isfinite(loss_value) else (math.nan, math.nan)


def stable_seed(seed: int, purpose: str) -> int:
    """63-bit seed that depends on `seed` and `purpose` alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of `device`, and of no other device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def controlled(device: torch.device) -> Iterator[None]:
    """One CPU thread, so that results do not depend on the number of cores; torch's random state as before, after.

    One training at a time: threads of a process share that state.
    """
    with ALONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            torch.set_num_threads(threads)
