"""Weights of a member as safetensors: a length, a JSON header and raw numbers, so that reading runs no code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.pool.hdf5 import open_inside
from lrensemble.pool.problems import FileDamageError, Problem

__all__ = ["encode_weights", "read_weights"]


def encode_weights(weights: Mapping[str, npt.ArrayLike]) -> bytes:
    """Content of ``weights/<id>.safetensors``.

    Raises
    ------
    InputError
        If a value is not an array of numbers.
    """
    import safetensors.numpy

    arrays = {name: np.asarray(values, order="C") for name, values in weights.items()}
    try:
        return safetensors.numpy.save(arrays)
    except Exception as error:  # the library has several kinds; all of them mean this
        raise InputError(f"expected weights as arrays of numbers by name, got others ({error})") from None


def read_weights(path: Path, root: Path, digest: str) -> dict[str, npt.NDArray]:
    """Read a file of weights and compare its SHA-256.

    Raises
    ------
    FileDamageError
        If it is missing, altered, or leads out of the pool.
    PoolError
        If the system refuses to read it.
    """
    import safetensors.numpy

    where = path.relative_to(root).as_posix()
    try:
        with open_inside(path, root) as file:
            content = file.read()
    except FileNotFoundError:
        raise FileDamageError(Problem(where, "", "the weights that the member was stored with", "no file")) from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise FileDamageError(Problem(where, "", f"checksum {digest[:12]}…", f"{found[:12]}… (the file was altered)"))
    try:
        return safetensors.numpy.load(content)
    except Exception as error:  # as above
        raise FileDamageError(Problem(where, "", "a safetensors file", f"{error!s:.100}")) from None
