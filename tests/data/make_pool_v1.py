"""Write ``pool-v1/``, the small pool of format version 1 that ``test_pool_golden.py`` opens.

Run once, with the release that introduced the version: ``python tests/data/make_pool_v1.py``. Never run it again over
the files that are kept: they stand for the pools that users have.
"""

from pathlib import Path

import numpy as np

from lrensemble import Ensemble, Member, Pool

FINGERPRINT = "f1" * 32
LABELS = {"val": [0, 1, 2, 1, 0], "test": [2, 0, 1, 1]}


def logits(n: int, first: float) -> np.ndarray:
    """Numbers that have an exact float32 form: first, first + 1/4, …, in rows of three."""
    return (first + np.arange(n * 3, dtype=np.float32) / 4).reshape(n, 3)


def main() -> None:
    pool = Pool.create(
        Path(__file__).parent / "pool-v1",
        name="golden",
        fingerprint=FINGERPRINT,
        class_names=["cat", "dög", "bird"],
        labels=LABELS,
    )
    finished = Member(
        id="FIX-s0-0123456789",
        policy="FIX(0.1)",
        asked="FIX(k0=0.1)",
        model="mlp(hidden=8)",
        config={"batch_size": 32, "momentum": 0.9, "optimizer": "sgd", "amp": False, "clip": None},
        seed=0,
        status="done",
        logits={"val": logits(5, -1.5)[::-1], "test": logits(4, 0.25)},
        history={
            "step": np.array([10, 20]),
            "train_loss": np.array([1.5, 0.75]),
            "val_loss": np.array([1.25, 1.0]),
            "val_accuracy": np.array([0.4, 0.6], dtype=np.float32),
            "step_lr": np.full(20, 0.1),
        },
        seconds=1.5,
        parameters=123,
        flops=456,
        extra={"note": "kept"},
    )
    pool.add(finished, weights={"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(20)})
    pool.add(
        Member(
            id="FIX-s1-abcdef0123",
            policy="FIX(9)",
            model="mlp(hidden=8)",
            config={},
            seed=1,
            status="diverged",
            logits={},
            history={"train_loss": np.array([np.inf])},
        )
    )
    pool.save_experiment('data = "golden"\n')
    pool.save_ensemble(Ensemble((finished.id,), (1.0,), fingerprint=FINGERPRINT), "best")
    pool.refresh_view()


if __name__ == "__main__":
    main()
