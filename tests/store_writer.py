"""What tests of the policy store record, and a program that records it: ``store_writer.py STORE FIRST STOP STEP``."""

import sys

from lrensemble.training.workshop import Trained
from lrensemble.tuning import Problem, Store

SETTINGS = {"batch_size": 64, "epochs": 20, "optimizer": "momentum", "weight_decay": 5e-4}


def problem(**changes):
    config = {**SETTINGS, **{name: changes.pop(name) for name in list(changes) if name in SETTINGS}}
    facts = {
        "data": "mnist",
        "fingerprint": "f0",
        "n_classes": 10,
        "input_shape": (1, 28, 28),
        "n_train": 1000,
        "model": "lenet",
        "architecture": "a0",
        "parameters": 60_000,
        "flops": 400_000,
    }
    return Problem(**{**facts, **changes}, settings=tuple(sorted(config.items())))


def trained(policy="FIX(k0=0.1)", seed=0, accuracy=(0.5, 0.9, 0.8), status="done", epochs=3):
    losses = tuple(1 - a for a in accuracy)
    return Trained(
        f"{policy}-{seed}", policy, policy, seed, status, len(accuracy), epochs, losses, tuple(accuracy), 6.0
    )


def main(where, *numbers):
    """Say when the store is about to be opened, wait for a line, and record; say what is recorded."""
    print("ready", flush=True)
    sys.stdin.readline()
    with Store.open(where) as store:
        for number in range(*map(int, numbers)):
            store.record(problem(), trained(seed=number))
            store.record(problem(epochs=number % 3 + 1), trained(seed=number))
            print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
