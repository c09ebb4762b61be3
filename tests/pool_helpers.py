"""Small pools and members that the tests of the pool share."""

import numpy as np

from lrensemble import Member, Pool
from lrensemble.pool import member_id

N = {"val": 12, "test": 7}
C = 3
FINGERPRINT = "ab" * 32


def labels(seed=0):
    rng = np.random.default_rng(seed)
    return {split: rng.integers(0, C, n) for split, n in N.items()}


def new_pool(path, **changes):
    options = {"name": "toy", "fingerprint": FINGERPRINT, "class_names": ["a", "b", "c"], "labels": labels()}
    return Pool.create(path, **{**options, **changes})


def new_member(draw=0, name=None, **changes):
    rng = np.random.default_rng(draw)
    values = {
        "id": name or member_id("FIX(0.1)", draw, {"seed": draw}),
        "policy": "FIX(0.1)",
        "asked": "FIX(k0=0.1)",
        "model": "mlp(hidden=8)",
        "config": {"batch_size": 32, "momentum": 0.9, "optimizer": "sgd", "amp": False, "clip": None},
        "seed": draw,
        "status": "done",
        "logits": {split: rng.normal(size=(n, C)).astype(np.float32) for split, n in N.items()},
        "history": {
            "step": np.array([5, 10]),
            "val_loss": rng.random(2),
            "val_accuracy": rng.random(2, dtype=np.float32),
            "step_lr": np.full(10, 0.1),
        },
        "seconds": 1.5,
        "parameters": 123,
        "flops": 456,
        "extra": {"note": "naïve “text”"},
    }
    return Member(**{**values, **changes})


def diverged_member(seed=9):
    return new_member(seed, status="diverged", logits={}, history={"train_loss": np.array([1.0, np.inf, np.nan])})


def same_member(one, other):
    """Whether two members are equal in everything, bit for bit."""
    arrays = ("logits", "history")
    for field in one.__dataclass_fields__:
        a, b = getattr(one, field), getattr(other, field)
        if field not in arrays and a != b:
            return False
        if field in arrays and (a.keys() != b.keys() or any(not same_array(a[key], b[key]) for key in a)):
            return False
    return True


def same_array(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
