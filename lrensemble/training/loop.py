"""The reference loop: one network, plain PyTorch, from the first step to the last.

The loop owns the clock t and asks the policy for the learning rate of every step. Everything random is a function of
(seed, epoch) alone, so that a training that was interrupted needs no generator state to go on exactly where it was.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrensemble.data import AUGMENTATIONS
from lrensemble.policies import Policy
from lrensemble.training.config import TrainConfig, steps_per_epoch

__all__ = [
    "EPOCH_CURVES",
    "Run",
    "Samples",
    "controlled",
    "evaluate",
    "predict",
    "seed_global",
    "stable_seed",
    "to_arrays",
    "train",
]

EPOCH_CURVES = ("step", "train_loss", "val_loss", "val_accuracy", "seconds")
EVALUATION_BATCH = 256  # larger ones leave the processor's cache and gain nothing
ALONE = threading.RLock()  # generators and number of threads belong to the whole process
CHECK_STEPS = {"cpu": 1, "cuda": 50}  # reading a loss stalls a GPU: look seldom, and at all of them after the epoch


@dataclass(frozen=True)
class Samples:
    """Labelled samples on the training device: `x` float32 (N, …), `y` int64 (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass
class Run:
    """How far a training has come.

    Attributes
    ----------
    epoch
        Epochs finished.
    seconds
        Wall-clock time spent so far, over all interruptions.
    diverged
        Whether a loss became NaN or infinite.
    curves
        One value an epoch by name (`EPOCH_CURVES`; ``step`` and ``seconds`` count from the start), and ``step_lr``: the
        learning rate of every update that was made.
    """

    epoch: int = 0
    seconds: float = 0.0
    diverged: bool = False
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*EPOCH_CURVES, "step_lr")})


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    policy: Policy,
    config: TrainConfig,
    data: Samples,
    validation: Samples,
    *,
    seed: int,
    run: Run | None = None,
    on_epoch: Callable[[Run], None] | None = None,
) -> Run:
    """Train `model` in place until the last epoch or until it diverges.

    Parameters
    ----------
    model, optimizer
        As new, or as they were after ``run.epoch`` epochs.
    policy
        In steps: ``policy(t)`` is the learning rate of step t = 0, 1, ….
    config
        Settings; ``config.augment`` must be the name of an augmentation.
    data, validation
        On the device of the model.
    seed
        With the number of the epoch decides order, augmentation and dropout.
    run
        Where to go on; from the start when None.
    on_epoch
        Called after every epoch.

    Returns
    -------
    Run
        With the curves of all epochs. A training that diverges stops before the update of the first loss that is not
        finite (or after the epoch, if it is the validation loss); what was not measured is NaN.
    """
    run = Run() if run is None else run
    device = data.x.device
    augment = AUGMENTATIONS[config.augment]
    generator = torch.Generator(device)
    half = torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
    check_steps = CHECK_STEPS[device.type]
    steps = steps_per_epoch(len(data), config.batch_size)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    clock = time.perf_counter() - run.seconds

    while run.epoch < config.epochs and not run.diverged:
        draw = stable_seed(seed, f"epoch {run.epoch}")
        seed_global(draw, device)  # dropout
        generator.manual_seed(draw)  # augmentation
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(draw)).to(device)
        batches = order.split(config.batch_size)[:steps]
        first_step = run.epoch * steps
        rates = policy(np.arange(first_step, first_step + steps)).tolist()
        losses: list[Tensor] = []

        model.train()
        for rate, batch in zip(rates, batches, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            x = augment(data.x.index_select(0, batch), generator)
            with half:
                logits = model(x)
            loss = cross_entropy(logits.float(), data.y.index_select(0, batch), label_smoothing=config.label_smoothing)
            losses.append(loss.detach())
            if len(losses) % check_steps == 0 and not math.isfinite(loss.item()):
                break
            for parameter in trained:
                parameter.grad = None
            loss.backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()

        measured = torch.stack(losses).double().cpu().numpy()
        updates = int(np.isfinite(measured).cumprod().sum())  # those before the first loss that is not finite
        run.diverged = updates < steps
        train_loss = np.average(measured, weights=[len(batch) for batch in batches[: len(measured)]])
        val_loss, val_accuracy = (math.nan, math.nan) if run.diverged else evaluate(model, validation)
        run.diverged |= not math.isfinite(val_loss)
        run.epoch += 1
        run.seconds = time.perf_counter() - clock
        values = (first_step + updates, float(train_loss), val_loss, val_accuracy, run.seconds)
        for name, value in zip(EPOCH_CURVES, values, strict=True):
            run.curves[name].append(value)
        run.curves["step_lr"] += rates[:updates]
        if on_epoch is not None:
            on_epoch(run)
    return run


def predict(model: nn.Module, x: Tensor) -> Tensor:
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


def to_arrays(run: Run) -> dict[str, npt.NDArray[Any]]:
    """Curves as arrays: ``step`` int64, the others float64."""
    return {name: np.asarray(values, np.int64 if name == "step" else np.float64) for name, values in run.curves.items()}
