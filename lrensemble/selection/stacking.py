"""Stacking: a linear model over log-probabilities, fitted on validation data (Wolpert 1992; Ting & Witten 1999).

The softmax of a weighted sum of log-probabilities is a log-linear pool (Genest & Zidek 1986); equal weights 1/K without
intercepts make it the geometric mean of the members. How freely the model may leave a simple one is decided by an L2
penalty, and its strength by cross-validation on the same data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.memory import empty_array
from lrensemble.metrics import nll_per_sample
from lrensemble.predictions import Predictions
from lrensemble.selection.base import Selection, Task, counted
from lrensemble.selection.outcome import team_probabilities
from lrensemble.stacker import FEATURES, Stacker, log_probabilities

__all__ = ["fit_full", "fit_scalar", "stacking"]

FOLDS = 5
FEWEST_SAMPLES = 2 * FOLDS
SAMPLES_A_COEFFICIENT = 10  # from so many on, `auto` tries the full model too
PENALTIES = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)  # of mean NLL; the first of equals is the strongest
CONVERGED, NEARLY = 1e-16, 1e-10  # decrement, in nats, at which Newton's next step is below rounding; or makes no odds
MOST_STEPS = 60
BLOCK = 150_000  # features that are in the processor's cache at a time
SAME = 1e-8  # nats: NLL nearer than this is equal
MOST_ITERATIONS = 500  # of the full model, whose early stop is one more regulariser

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Blocks = list[tuple[Doubles, Labels]]  # log-probabilities (K, C, n) and labels (n,) of a few samples each


@dataclass(frozen=True)
class _Kind:
    """A kind of model: its fits under one penalty, and under several from the strongest to the weakest."""

    name: str
    fit: Callable[[Doubles, Labels, float], Stacker]
    path: Callable[[Doubles, Labels, Sequence[float]], Iterator[Stacker]]


@dataclass(frozen=True)
class _Candidate:
    """A kind of model with the penalty that did best, and the loss of each sample when it was held out."""

    kind: _Kind
    penalty: float
    losses: Doubles

    @property
    def held_out(self) -> float:
        """Cross-validated NLL."""
        return float(self.losses.mean())

    def __str__(self) -> str:
        chosen = f"L2 penalty {self.penalty:g} by {FOLDS}-fold cross-validation"
        return f"{self.kind.name}, {chosen} with NLL {self.held_out:.4f}"


def stacking(task: Task, size: int | None, *, features: str = "auto") -> Selection:
    """Fit a linear model over the members' log-probabilities that takes the place of the combination rule.

    It minimises NLL, whatever the task's objective and rule. Weights are the members' shares of the absolute
    coefficients, for display; coefficients may be negative.

    Parameters
    ----------
    features
        ``"scalar"``: one coefficient a member, and one intercept a class. ``"full"``: a coefficient for each class of
        each member and each class of the ensemble; where a class has too few samples for that, scalar. ``"auto"``:
        scalar, or full where it has at least 10 samples a coefficient and the lower cross-validated NLL.

    Returns
    -------
    Selection
        With a ``stacker``; or all members with equal weights under the task's rule, and the reason, where there is too
        little to learn from or the cross-validated model is not better than those by more than a standard error.
    """
    if features not in ("auto", *FEATURES):
        raise InputError(f"expected features 'auto', 'scalar' or 'full', got {features!r}")
    predictions, labels = task.predictions, task.predictions.labels
    whole = Selection.equal(task.n_members, range(task.n_members))
    kept = "mean of all members" if task.rule == "mean_probability" else f"all members by the rule '{task.rule}'"
    if len(labels) < FEWEST_SAMPLES or (labels == labels[0]).all():
        found = "samples of one class" if len(labels) >= FEWEST_SAMPLES else f"{len(labels)} samples"
        return Selection(whole.weights, reason=f"{kept}: {found} cannot teach a stacking model")
    logs = _features(predictions)
    whole_losses = nll_per_sample(team_probabilities(predictions, range(task.n_members), task.rule), labels)
    folds = _folds(predictions, task.seed)
    models = [_validated(kind, logs, labels, folds) for kind in _kinds(features, predictions)]
    best = min(models, key=lambda model: model.held_out)
    if not _is_better(best.losses, whole_losses):
        reason = f"{kept}: NLL {whole_losses.mean():.4f}, not told apart from that of a {best}"
        return Selection(whole.weights, reason=reason)
    stacker = best.kind.fit(logs, labels, best.penalty)
    shares = np.abs(np.reshape(stacker.coefficients, (task.n_members, -1))).sum(axis=1)
    negative = sum(a < 0 for a in stacker.coefficients) if stacker.features == "scalar" else 0
    reason = f"{best}; equal weights have {whole_losses.mean():.4f}"
    if negative:
        reason += f"; {counted(negative, 'member')} with a negative coefficient"
    return Selection(shares / shares.sum(), reason=reason, stacker=_without_idle(stacker, shares > 0))


def _is_better(losses: Doubles, others: Doubles) -> bool:
    """Whether the first are lower on average, by more than the standard error of the difference."""
    gain = others - losses
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))


def fit_scalar(logs: Doubles, labels: Labels, penalty: float) -> Stacker:
    """Log-linear pool with free weights a and class intercepts b.

    Minimises mean NLL + penalty/2 · (Σ (a_k − 1/K)² + Σ b_c²) by Newton's method. scikit-learn's logistic regression
    has a coefficient of its own for each class, so it cannot hold the one that all classes of a member share.

    Parameters
    ----------
    logs
        Log-probabilities, shape (K, N, C).
    """
    centre = _centre(logs)
    return _as_stacker(_newton(centre, centre, _blocks(logs, labels), penalty, CONVERGED), len(logs))


def _scalar_path(logs: Doubles, labels: Labels, penalties: Sequence[float]) -> Iterator[Stacker]:
    """Fits under falling penalties, each of which starts from the one before."""
    blocks, centre = _blocks(logs, labels), _centre(logs)
    theta = centre
    for penalty in penalties:
        theta = _newton(theta, centre, blocks, penalty, NEARLY)
        yield _as_stacker(theta, len(logs))


def fit_full(logs: Doubles, labels: Labels, penalty: float) -> Stacker:
    """Multinomial logistic regression on all log-probabilities, by scikit-learn.

    Minimises mean NLL + penalty/2 · Σ (coefficients of the standardised features)². All classes must be among `labels`.

    Parameters
    ----------
    logs
        Log-probabilities, shape (K, N, C).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    k, n, c = logs.shape
    columns = np.moveaxis(logs, 0, 1).reshape(n, k * c)
    middle, scale = columns.mean(axis=0), columns.std(axis=0)
    scale[scale == 0] = 1.0
    model = LogisticRegression(C=1 / (penalty * n), tol=1e-8, max_iter=MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((columns - middle) / scale, labels)
    a, b = model.coef_, model.intercept_
    if c == 2:  # scikit-learn gives the second class alone, against zero
        a, b = np.concatenate([np.zeros_like(a), a]), np.array([0.0, b[0]])
    a = a / scale
    b = b - a @ middle
    return Stacker("full", tuple(a.T.ravel().tolist()), tuple(b.tolist()))


def _full_path(logs: Doubles, labels: Labels, penalties: Sequence[float]) -> Iterator[Stacker]:
    return (fit_full(logs, labels, penalty) for penalty in penalties)


SCALAR = _Kind("log-linear pool with free weights and class intercepts", fit_scalar, _scalar_path)
FULL = _Kind("logistic regression on all log-probabilities", fit_full, _full_path)


def _kinds(features: str, predictions: Predictions) -> Iterator[_Kind]:
    """Yield the kinds of models to compare."""
    k, c = predictions.n_members, predictions.n_classes
    fewest = int(np.bincount(predictions.labels, minlength=c).min())
    roomy = predictions.n_samples >= SAMPLES_A_COEFFICIENT * k * c * c
    full = fewest >= FEWEST_SAMPLES and (features == "full" or (features == "auto" and roomy))
    if not full or features == "auto":
        yield SCALAR
    if full:
        yield FULL


def _features(predictions: Predictions) -> Doubles:
    """Log-probabilities of all members, shape (K, N, C)."""
    logs = empty_array(predictions.outputs.shape, np.float64, "the log-probabilities of all members")
    for j, row in enumerate(logs):
        row[...] = log_probabilities(predictions.member(j))
    return logs


def _folds(predictions: Predictions, seed: int) -> Labels:
    """Fold of each sample: each fold has a like share of every class, and of the hard and the easy ones of it.

    Samples are dealt out in the order of (class, mean probability of it), at random among those next to each other; so
    the order that they came in plays no part.
    """
    labels = predictions.labels
    ease = predictions.true_class.mean(axis=0, dtype=np.float64).astype(np.float32)
    order = np.lexsort((ease, labels))
    rng = np.random.default_rng(seed)
    dealt = np.concatenate([rng.permutation(FOLDS) for _ in range(0, len(labels), FOLDS)])
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = dealt[: len(labels)]
    return folds


def _validated(kind: _Kind, logs: Doubles, labels: Labels, folds: Labels) -> _Candidate:
    """Choose the penalty of least held-out NLL."""
    losses = np.zeros((len(PENALTIES), len(labels)))
    for fold in range(FOLDS):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        testing = np.exp(logs[:, held])
        for row, stacker in zip(losses, kind.path(logs[:, rest], labels[rest], PENALTIES), strict=True):
            row[held] = nll_per_sample(stacker.probabilities(testing), labels[held])
    means = losses.mean(axis=1)
    best = int(np.flatnonzero(means <= means.min() + SAME)[0])
    return _Candidate(kind, PENALTIES[best], losses[best])


def _newton(start: Doubles, centre: Doubles, blocks: Blocks, penalty: float, tolerance: float) -> Doubles:
    """Minimise mean NLL + penalty/2 · |θ − centre|² from `start`, halving steps that do not go down far enough."""

    def at(theta: Doubles) -> tuple[float, Doubles, Doubles]:
        value, gradient, hessian = _derivatives(theta, blocks)
        off = theta - centre
        return value + penalty / 2 * float(off @ off), gradient + penalty * off, hessian + penalty * np.eye(len(theta))

    theta = start
    value, gradient, hessian = at(theta)
    for _ in range(MOST_STEPS):
        step = np.linalg.solve(hessian, gradient)
        decrement, length = float(step @ gradient), 1.0
        new = at(theta - step)
        while new[0] > value - 0.1 * length * decrement and length * decrement > NEARLY:
            length /= 2
            new = at(theta - length * step)
        theta = theta - length * step
        value, gradient, hessian = new
        if decrement < tolerance:
            break
    return theta


def _derivatives(theta: Doubles, blocks: Blocks) -> tuple[float, Doubles, Doubles]:
    """Mean NLL, its gradient and its Hessian by (a, b): means over samples of −log p_y, E_p x − x_y and Cov_p x."""
    k, c, _ = blocks[0][0].shape
    value, gradient, hessian = 0.0, np.zeros(k + c), np.zeros((k + c, k + c))
    for logs, labels in blocks:
        samples = np.arange(len(labels))
        z = np.tensordot(theta[:k], logs, axes=1) + theta[k:, None]
        z -= z.max(axis=0)
        p = np.exp(z)
        total = p.sum(axis=0)
        p /= total
        value += float((np.log(total) - z[labels, samples]).sum())
        weighted = logs * p
        mean = weighted.sum(axis=1)  # (K, n): expected log-probability of each member
        flat = logs.reshape(k, -1)
        hessian[:k, :k] += weighted.reshape(k, -1) @ flat.T - mean @ mean.T
        hessian[:k, k:] += weighted.sum(axis=2) - mean @ p.T
        hessian[k:, k:] += np.diag(p.sum(axis=1)) - p @ p.T
        p[labels, samples] -= 1
        gradient += np.concatenate([flat @ p.ravel(), p.sum(axis=1)])
    hessian[k:, :k] = hessian[:k, k:].T
    count = sum(len(labels) for _, labels in blocks)
    return value / count, gradient / count, hessian / count


def _blocks(logs: Doubles, labels: Labels) -> Blocks:
    k, n, c = logs.shape
    step = max(1, BLOCK // (k * c))
    parts = [slice(start, start + step) for start in range(0, n, step)]
    return [(np.ascontiguousarray(np.moveaxis(logs[:, part], 2, 1)), labels[part]) for part in parts]


def _centre(logs: Doubles) -> Doubles:
    """Return (a, b) of the geometric mean."""
    return np.concatenate([np.full(len(logs), 1 / len(logs)), np.zeros(logs.shape[2])])


def _as_stacker(theta: Doubles, k: int) -> Stacker:
    return Stacker("scalar", tuple(theta[:k].tolist()), tuple(theta[k:].tolist()))


def _without_idle(stacker: Stacker, used: npt.NDArray[np.bool_]) -> Stacker:
    """Leave out members whose coefficients are all 0, as the ensemble does."""
    kept = np.reshape(stacker.coefficients, (len(used), -1))[used]
    return Stacker(stacker.features, tuple(kept.ravel().tolist()), stacker.intercepts)
