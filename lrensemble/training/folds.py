"""Cross-fitting: a member is k networks, each judged on samples that it has never seen. Light: no torch.

Training and validation part are joined (training samples first) and cut into k stratified folds. Network f of a member
learns from all folds but fold f. So every labelled sample has a prediction by a network that did not learn from it, and
selection sees all N of them instead of a validation part of N/5. This is how stacked regressions (Breiman 1996) and
the super learner (van der Laan, Polley & Hubbard 2007) choose and weigh models; the k networks together then predict
test samples (cross-validation committees: Krogh & Vedelsby 1995; Parmanto, Munro & Doyle 1996).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrensemble.data import Split, Splits
from lrensemble.errors import InputError

if TYPE_CHECKING:
    from lrensemble.training.training import Run

__all__ = ["FoldedSplits", "Part", "cross_fit", "join_runs", "mean_log_probability", "out_of_fold", "parts_of"]


@dataclass(frozen=True, eq=False, repr=False)
class FoldedSplits(Splits):
    """`Splits` for cross-fitting: `train` and `val` are both the N labelled samples, training part first.

    Attributes
    ----------
    fold_of
        Fold of each sample, 0 … k − 1, shape (N,): the network of that number does not learn from it.
    """

    fold_of: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))

    @property
    def folds(self) -> int:
        """k, the number of folds."""
        return int(self.fold_of.max()) + 1


@dataclass(frozen=True, eq=False)
class Part:
    """What one network of a member learns from and is judged on.

    Attributes
    ----------
    fold
        Number of the fold that it does not learn from; None where a member is one network.
    rows
        Its training samples, int64, ascending; None: all of the training part.
    held_out
        The samples it is judged on, int64, ascending; None: all of the validation part.
    n
        Samples of an epoch: the same for all networks of a member, so that they can be trained in one stack.
    """

    fold: int | None
    rows: npt.NDArray[np.int64] | None
    held_out: npt.NDArray[np.int64] | None
    n: int

    @property
    def name(self) -> str:
        """``"fold0"``, ``"fold1"``, …; empty where a member is one network."""
        return "" if self.fold is None else f"fold{self.fold}"


def cross_fit(splits: Splits, k: int, *, seed: int = 0) -> FoldedSplits:
    """Join training and validation part and draw k stratified folds; the test part stays as it is.

    The fingerprint is a hash of the data's own and of every sample's fold: pools with other folds, or none, are told
    apart even if a later release of scikit-learn should draw others.

    Parameters
    ----------
    splits
        In memory.
    k
        Number of folds; their sizes differ by one at most, and the classes in them by one each.
    seed
        Decides which sample is in which fold.

    Raises
    ------
    InputError
        If k < 2, if there are more folds than samples of the largest class, or if a class has only one sample, so that
        the network that does not see it would not know the class.
    """
    if not splits.resident:
        raise InputError("folds: expected data that fit into memory, got data that are streamed: train without folds")
    y = np.concatenate([splits.train.y, splits.val.y])
    fold_of = _stratified(y, k, seed, splits.class_names)
    joined = Split(np.concatenate([part.read(slice(None)) for part in (splits.train, splits.val)]), y)
    digest = hashlib.sha256(f"{splits.fingerprint} {k} folds\n".encode() + fold_of.astype("<i2").tobytes())
    return FoldedSplits(
        name=f"{splits.name}-folds{k}",
        train=joined,
        val=joined,
        test=splits.test,
        class_names=splits.class_names,
        fingerprint=digest.hexdigest(),
        mean=splits.mean,
        std=splits.std,
        augment=splits.augment,
        fold_of=fold_of,
    )


def _stratified(y: npt.NDArray[np.int64], k: int, seed: int, class_names: Sequence[str]) -> npt.NDArray[np.int16]:
    classes, counts = np.unique(y, return_counts=True)
    if k < 2:
        raise InputError(f"folds: expected 2 or more, got {k}")
    if counts.min() < 2:
        name = class_names[classes[counts.argmin()]]
        raise InputError(f"folds: expected two samples or more of every class to train on, got one of '{name}'")
    if k > counts.max():
        name = class_names[classes[counts.argmax()]]
        raise InputError(
            f"folds: expected at most {counts.max()}, the samples of class '{name}' (the largest), got {k}"
        )
    from sklearn.model_selection import StratifiedKFold

    fold_of = np.empty(len(y), np.int16)
    with warnings.catch_warnings():  # a class with fewer samples than folds has one in as many folds as it can
        warnings.filterwarnings("ignore", message="The least populated class in y")
        for fold, (_, held_out) in enumerate(StratifiedKFold(k, shuffle=True, random_state=seed).split(y, y)):
            fold_of[held_out] = fold
    return fold_of


def parts_of(splits: Splits) -> list[Part]:
    """Return one part for each network of a member: one in all, or one a fold."""
    if not isinstance(splits, FoldedSplits):
        return [Part(None, None, None, len(splits.train))]
    n = len(splits.train) - int(np.bincount(splits.fold_of).max())
    return [
        Part(fold, np.flatnonzero(splits.fold_of != fold), np.flatnonzero(splits.fold_of == fold), n)
        for fold in range(splits.folds)
    ]


def out_of_fold(parts: Sequence[Part], outputs: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Put the outputs of each network for its own held-out samples in their places.

    Parameters
    ----------
    parts, outputs
        Of each network: shapes (samples held out, C).

    Returns
    -------
    array
        Shape (N, C): training samples first, then validation samples. The one output of a lone network as it is.
    """
    if parts[0].held_out is None:
        return outputs[0]
    joined = np.empty((sum(map(len, outputs)), outputs[0].shape[1]), np.float32)
    for part, output in zip(parts, outputs, strict=True):
        joined[part.held_out] = output
    return joined


def mean_log_probability(outputs: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Logits whose softmax is the mean of the networks' softmax: log(1/k · Σ_f softmax(z_f)).

    The pool keeps logits and all rules of combination work on their softmax, so a member's probabilities become the
    mean of its networks' probabilities, as if they stood in the ensemble with equal weights. (The softmax of mean
    logits is the normalised geometric mean instead.) The logits of a lone network stay as they are.

    Parameters
    ----------
    outputs
        Logits of each network, shape (N, C).
    """
    if len(outputs) == 1:
        return outputs[0]
    from scipy.special import log_softmax, logsumexp

    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite marks a diverged member
        logs = np.stack([log_softmax(output.astype(np.float64), axis=1) for output in outputs])
        return (logsumexp(logs, axis=0) - np.log(len(outputs))).astype(np.float32)


def join_runs(parts: Sequence[Part], runs: Sequence[Run]) -> dict[str, npt.NDArray[Any]]:
    """History of a member: one value an epoch, up to the last epoch that all its networks finished.

    ``train_loss`` is the mean over the networks, ``val_loss`` and ``val_accuracy`` that over all held-out samples;
    ``seconds`` is the sum. ``val_loss_fold0``, ``val_accuracy_fold0``, … are those of each network. ``step_lr`` stands
    once where it is the same for all; under a feedback policy it is the mean, with ``step_lr_fold0``, … beside it.
    """
    if len(runs) == 1:
        return runs[0].to_arrays()
    epochs = min(run.epoch for run in runs)
    curves = {
        name: np.array([run.to_arrays()[name][:epochs] for run in runs])
        for name in ("step", "train_loss", "val_loss", "val_accuracy", "seconds")
    }
    sizes = [len(part.held_out) for part in parts if part.held_out is not None]
    step = curves["step"].min(axis=0)
    rates = np.array([run.to_arrays()["step_lr"][: step[-1] if epochs else 0] for run in runs])
    same = bool((rates == rates[0]).all())
    return {
        "step": step,
        "train_loss": curves["train_loss"].mean(axis=0),
        "val_loss": np.average(curves["val_loss"], axis=0, weights=sizes),
        "val_accuracy": np.average(curves["val_accuracy"], axis=0, weights=sizes),
        "seconds": curves["seconds"].sum(axis=0),
        "step_lr": rates[0] if same else rates.mean(axis=0),
        **{
            f"{name}_{part.name}": values
            for name in ("val_loss", "val_accuracy")
            for part, values in zip(parts, curves[name], strict=True)
        },
        **({} if same else {f"step_lr_{part.name}": own for part, own in zip(parts, rates, strict=True)}),
    }
