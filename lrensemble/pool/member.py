"""`Member`: one trained network as the pool keeps it, and `MemberSummary`, the part that is read without its logits."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError

__all__ = ["Member", "MemberSummary", "Scalar", "canonical_json", "check_name", "member_id"]

Scalar = str | int | float | bool | None

STATUSES = ("done", "diverged")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")  # file names on any system; no separators, no hidden files
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")
INT64 = np.iinfo(np.int64)


def check_name(name: str, what: str = "member") -> str:
    """Return `name` if it can safely name a file inside the pool.

    Raises
    ------
    InputError
        Unless it is 1 to 121 letters, digits, ``.``, ``_`` or ``-``, begins with a letter or digit and has no ``..``.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise InputError(
            f"expected a {what} name of at most 121 letters, digits, '.', '_', '-' that begins with a letter or digit, "
            f"got {str(name)[:60]!r}"
        )
    return name


def canonical_json(value: Any) -> str:
    """JSON text that is the same for the same value: keys sorted, no spaces, ASCII only.

    Raises
    ------
    InputError
        If the value holds something that JSON has no form for.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected texts, numbers, true/false, lists and mappings, got another type ({error})"
        ) from None


def member_id(policy_text: str, seed: int, identity: Mapping[str, Any]) -> str:
    """Name of a member: readable words of its policy, its seed, and a hash of everything that decides its outcome.

    Parameters
    ----------
    policy_text
        The policy in text form; what stands in parentheses is left out of the name (it belongs into `identity`).
    seed
        The member's seed.
    identity
        All that decides the outcome: policy, model, data fingerprint, config, seed.

    Examples
    --------
    >>> member_id("cosine(0.1, 0.001)", 3, {"policy": "cosine(0.1, 0.001)", "seed": 3})
    'cosine-s3-e744d19897'
    """
    words = policy_text
    while (shorter := re.sub(r"\([^()]*\)", " ", words)) != words:
        words = shorter
    slug = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")[:40].strip("-") or "policy"
    digest = hashlib.sha256(canonical_json(dict(identity)).encode()).hexdigest()
    return check_name(f"{slug}-s{int(seed)}-{digest[:10]}")


@dataclass(frozen=True, eq=False)
class Member:
    """One trained network: what it was asked to be, how it went, and what it says about each split.

    Attributes
    ----------
    id
        Name inside the pool; see `member_id`.
    policy, asked
        Text of the learning-rate policy as followed (resolved), and as the user asked for it.
    model
        Canonical text of the network.
    config
        Settings of the training, scalars by name.
    seed
        Decides initialisation, order of the data and augmentation.
    status
        ``"done"`` or ``"diverged"`` (the loss became non-finite; such a member never enters an ensemble).
    logits
        float32 (N, C) by split; empty when diverged.
    history
        1-D arrays by name: one value an epoch (``step``, ``train_loss``, ``val_loss``, ``val_accuracy``, ``seconds``)
        and one a step (``step_lr``, the learning rate that was really used). NaN stands for "not measured".
    seconds
        Wall-clock time of the training.
    parameters
        Number of trainable parameters.
    flops
        Floating-point operations of one forward pass of one sample; 0 when unknown.
    extra
        Further scalars by name.

    Raises
    ------
    InputError
        On an unsafe id, an unknown status, logits that are not finite float (N, C) or a history that is not 1-D.
    """

    id: str
    policy: str
    model: str
    config: Mapping[str, Scalar]
    seed: int
    status: str
    logits: Mapping[str, npt.NDArray[np.float32]]
    history: Mapping[str, npt.NDArray] = field(default_factory=dict)
    seconds: float = 0.0
    parameters: int = 0
    flops: int = 0
    asked: str = ""
    extra: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.id)
        if self.status not in STATUSES:
            raise InputError(f"member '{self.id}': expected status 'done' or 'diverged', got {self.status!r}")
        if bool(self.logits) != (self.status == "done"):
            raise InputError(
                f"member '{self.id}': expected logits of each split when done and none when diverged, got "
                f"{len(self.logits)} split(s) with status '{self.status}'"
            )
        for name in ("policy", "asked", "model"):
            _check_text(getattr(self, name), name, self.id)
        for name in ("config", "extra"):
            object.__setattr__(self, name, _scalars(getattr(self, name), name, self.id))
        for name in ("seed", "parameters", "flops"):
            object.__setattr__(self, name, _integer(getattr(self, name), name, self.id))
        object.__setattr__(self, "seconds", _seconds(self.seconds, self.id))
        object.__setattr__(self, "logits", {_key(k, self.id): _logits(v, k, self.id) for k, v in self.logits.items()})
        object.__setattr__(self, "history", {_key(k, self.id): _curve(v, k, self.id) for k, v in self.history.items()})


@dataclass(frozen=True)
class MemberSummary:
    """A member without its arrays; reading it takes a fraction of a millisecond.

    Attributes
    ----------
    id, policy, asked, model, config, seed, status, seconds, parameters, flops, extra
        As in `Member`.
    epochs, steps
        Length of the history.
    val_accuracy, val_nll
        Of the stored validation logits; None when diverged.
    best_val_accuracy, best_val_loss
        Best values of the history; None when it has none.
    has_weights
        Whether it was stored with its weights.
    bytes
        Size of its files.
    """

    id: str
    policy: str
    asked: str
    model: str
    config: Mapping[str, Scalar]
    seed: int
    status: str
    seconds: float
    parameters: int
    flops: int
    extra: Mapping[str, Scalar]
    epochs: int
    steps: int
    val_accuracy: float | None
    val_nll: float | None
    best_val_accuracy: float | None
    best_val_loss: float | None
    has_weights: bool
    bytes: int


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__}")


def _key(name: str, member: str) -> str:
    if not isinstance(name, str) or not KEY.fullmatch(name):
        raise InputError(
            f"member '{member}': expected splits and curves named by letters, digits, '_', got {name!r:.60}"
        )
    return name


def _check_text(value: Any, what: str, member: str) -> None:
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InputError(f"member '{member}': expected {what} as text without null characters, got {str(value)!r:.60}")


def _scalars(values: Mapping[str, Any], what: str, member: str) -> dict[str, Scalar]:
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
    for key, value in plain.items():
        if not isinstance(key, str) or not isinstance(value, (str, int, float, bool, type(None))):
            raise InputError(
                f"member '{member}': expected {what} as texts, numbers and true/false by name, got "
                f"{str(key)!r:.40} of type {type(value).__name__}"
            )
    return plain


def _integer(value: Any, what: str, member: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not INT64.min <= int(value) <= INT64.max:
        raise InputError(f"member '{member}': expected {what} as an integer of 64 bits, got {value!r:.60}")
    return int(value)


def _seconds(value: Any, member: str) -> float:
    if not isinstance(value, (int, float, np.number)) or not 0 <= float(value) < float("inf"):
        raise InputError(f"member '{member}': expected seconds as a number ≥ 0, got {value!r:.60}")
    return float(value)


def _logits(values: npt.ArrayLike, split: str, member: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows is refused below
        array = np.asarray(values, dtype="<f4", order="C")
    if array.ndim != 2 or 0 in array.shape or array.shape[1] < 2:
        raise InputError(
            f"member '{member}': expected logits of '{split}' of shape (samples, classes ≥ 2), got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"member '{member}': expected finite '{split}' logits, got NaN or infinity: mark it diverged")
    return array


def _curve(values: npt.ArrayLike, name: str, member: str) -> npt.NDArray:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise InputError(
            f"member '{member}': expected numbers of shape (T,) as '{name}', got {array.dtype} of shape {array.shape}"
        )
    kind = "<i8" if array.dtype.kind in "biu" else "<f4" if array.dtype.itemsize <= 4 else "<f8"
    return np.ascontiguousarray(array, dtype=kind)
