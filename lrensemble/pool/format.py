"""Format version 1 of the two kinds of HDF5 file in a pool: what is written, and all that is checked on reading.

Both kinds carry scalar attributes and plain arrays. The attribute ``digests`` holds the SHA-256 of every array,
``checksum`` that of all other attributes: attributes can be trusted after reading them alone, an array after reading it
alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from lrensemble.errors import InputError
from lrensemble.pool import hdf5
from lrensemble.pool.member import KEY, STATUSES, Member, canonical_json
from lrensemble.pool.problems import Problem, UnknownFormatError
from lrensemble.predictions import log_softmax

__all__ = [
    "VERSION",
    "PoolHeader",
    "encode_member",
    "encode_pool",
    "read_member",
    "read_member_header",
    "read_pool_header",
]

POOL_FORMAT = "lrensemble-pool"
MEMBER_FORMAT = "lrensemble-member"
VERSION = 1

POOL_ATTRIBUTES: dict[str, type] = {
    "format": str,
    "version": int,
    "name": str,
    "fingerprint": str,
    "class_names": str,
    "digests": str,
}
MEMBER_ATTRIBUTES: dict[str, type] = {
    "format": str,
    "version": int,
    "id": str,
    "policy": str,
    "asked": str,
    "model": str,
    "config": str,
    "seed": int,
    "status": str,
    "seconds": float,
    "parameters": int,
    "flops": int,
    "extra": str,
    "fingerprint": str,
    "labels": str,
    "weights": str,
    "epochs": int,
    "steps": int,
    "digests": str,
}
MEMBER_SCORES: dict[str, type] = {  # absent when there is no such value
    "val_accuracy": float,
    "val_nll": float,
    "best_val_accuracy": float,
    "best_val_loss": float,
}
MEMBER_SCALARS = (
    "id", "policy", "asked", "model", "config", "seed", "status", "seconds", "parameters", "flops", "extra"
)  # fmt: skip
JSON_ATTRIBUTES = {"class_names": list, "digests": dict, "config": dict, "extra": dict, "labels": dict}
HISTORY_TYPES = ("<i8", "<f4", "<f8")


@dataclass(frozen=True, eq=False)
class PoolHeader:
    """What all members of a pool share.

    Attributes
    ----------
    name
        Of the data set.
    fingerprint
        Of the data and their split.
    class_names
        C names.
    labels
        int64 (N,) by split, values in 0…C−1.

    Raises
    ------
    InputError
        On fewer than 2 classes, no validation labels, or labels that are not integers in range.
    """

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    labels: Mapping[str, npt.NDArray[np.int64]]

    def __post_init__(self) -> None:
        if not self.fingerprint or len(self.class_names) < 2:
            raise InputError(
                f"expected a pool with a fingerprint and at least 2 classes, got {self.fingerprint!r:.20} and "
                f"{len(self.class_names)} class(es)"
            )
        if "val" not in self.labels:
            raise InputError(f"expected labels of the split 'val' (and 'test'), got {', '.join(self.labels) or 'none'}")
        order = sorted(self.labels, key=lambda split: (split != "val", split))
        checked = {split: _labels(self.labels[split], split, len(self.class_names)) for split in order}
        object.__setattr__(self, "labels", checked)

    @cached_property
    def label_digests(self) -> dict[str, str]:
        """SHA-256 of the labels of each split."""
        return {split: hdf5.array_digest(f"labels/{split}", values) for split, values in self.labels.items()}


def encode_pool(header: PoolHeader, view: Callable[[h5py.File], None] | None = None) -> bytes:
    """Content of ``pool.h5``; `view`, when given, adds to the open file what is only there for viewers."""
    attributes: dict[str, str | int | float] = {
        "format": POOL_FORMAT,
        "version": VERSION,
        "name": header.name,
        "fingerprint": header.fingerprint,
        "class_names": canonical_json(list(header.class_names)),
        "digests": canonical_json({f"labels/{split}": digest for split, digest in header.label_digests.items()}),
    }

    arrays = {f"labels/{split}": values for split, values in header.labels.items()}
    return hdf5.encode(attributes, arrays, view)


def read_pool_header(path: Path, root: Path) -> PoolHeader:
    """Read ``pool.h5``.

    Raises
    ------
    PoolFormatError
        If it is another kind of file, or of another version.
    FileDamageError
        If it is truncated or altered.
    """
    with hdf5.open_safely(path, root) as file:
        attributes = _read_attributes(file, path, POOL_FORMAT, POOL_ATTRIBUTES, {})
        digests = _digests(file, attributes)
        labels = {key.removeprefix("labels/"): _read(file, key, ("<i8",), digests[key]) for key in digests}
        try:
            names = tuple(map(str, attributes["class_names"]))
            return PoolHeader(attributes["name"], attributes["fingerprint"], names, labels)
        except InputError as error:
            raise file.damage("", "consistent labels and classes", str(error)) from None


def encode_member(member: Member, pool: PoolHeader, weights_digest: str = "") -> bytes:
    """Content of ``members/<id>.h5``."""
    arrays = {f"logits/{split}": values for split, values in member.logits.items()}
    arrays |= {f"history/{name}": values for name, values in member.history.items()}
    attributes: dict[str, str | int | float] = {
        "format": MEMBER_FORMAT,
        "version": VERSION,
        "id": member.id,
        "policy": member.policy,
        "asked": member.asked,
        "model": member.model,
        "config": canonical_json(member.config),
        "seed": member.seed,
        "status": member.status,
        "seconds": member.seconds,
        "parameters": member.parameters,
        "flops": member.flops,
        "extra": canonical_json(member.extra),
        "fingerprint": pool.fingerprint,
        "labels": canonical_json(pool.label_digests),
        "weights": weights_digest,
        "digests": canonical_json({key: hdf5.array_digest(key, values) for key, values in arrays.items()}),
        **_history_lengths(member.history),
        **_scores(member, pool),
    }
    return hdf5.encode(attributes, arrays)


def read_member_header(path: Path, root: Path, pool: PoolHeader) -> dict[str, Any]:
    """Attributes of a member file by name (JSON ones parsed), checked; no array is read.

    ``extents`` is added: where the logits of each split lie.
    """
    with hdf5.open_safely(path, root) as file:
        attributes = _member_attributes(file, path, pool)
        return {**attributes, "extents": _logits_extents(file, attributes, pool)}


def read_member(path: Path, root: Path, pool: PoolHeader) -> Member:
    """Read a member file whole and check all of it."""
    with hdf5.open_safely(path, root) as file:
        attributes = _member_attributes(file, path, pool)
        digests = attributes["digests"]
        logits: dict[str, npt.NDArray[np.float32]] = {}
        for split, extent in _logits_extents(file, attributes, pool).items():
            logits[split] = np.empty(extent.shape, "<f4")
            file.read(extent, logits[split], finite=True)
        curves = [key for key in digests if key.startswith("history/")]
        history = {key.removeprefix("history/"): _read(file, key, HISTORY_TYPES, digests[key]) for key in curves}
        try:
            return Member(logits=logits, history=history, **{name: attributes[name] for name in MEMBER_SCALARS})
        except InputError as error:
            raise file.damage("", "a consistent member", str(error)) from None


def _read_attributes(
    file: hdf5.SafeFile, path: Path, kind: str, required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, Any]:
    found = file.attribute("format", str) if file.has_attribute("format") else "none"
    if found != kind:
        raise UnknownFormatError(
            Problem(str(path), "format", repr(kind), f"{found!r:.40}; this file is no part of a pool")
        )
    version = file.attribute("version", int)
    if version != VERSION:
        advice = f"version {version}; read it with the release that wrote it, or a later one"
        raise UnknownFormatError(Problem(str(path), "version", f"format version {VERSION}", advice))
    wanted = {**required, **{name: type_ for name, type_ in optional.items() if file.has_attribute(name)}}
    raw = {name: file.attribute(name, type_) for name, type_ in wanted.items()}
    checksum = file.attribute("checksum", str)
    if checksum != hdf5.attributes_digest(raw):
        raise file.damage("checksum", "that of the attributes", f"{checksum!r:.14}… (the attributes were altered)")
    return {name: _parsed(file, name, value) for name, value in raw.items()}


def _parsed(file: hdf5.SafeFile, name: str, value: Any) -> Any:
    if name not in JSON_ATTRIBUTES:
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, JSON_ATTRIBUTES[name]):
        raise file.damage(name, f"JSON ({JSON_ATTRIBUTES[name].__name__})", f"{value!r:.40}")
    return parsed


def _member_attributes(file: hdf5.SafeFile, path: Path, pool: PoolHeader) -> dict[str, Any]:
    attributes = _read_attributes(file, path, MEMBER_FORMAT, MEMBER_ATTRIBUTES, MEMBER_SCORES)
    expected = {"id": path.stem, "fingerprint": pool.fingerprint, "labels": pool.label_digests}
    for name, value in expected.items():
        if attributes[name] != value:
            raise file.damage(name, f"{value!s:.40} as in the pool", f"{attributes[name]!s:.40}")
    if attributes["status"] not in STATUSES:
        raise file.damage("status", "'done' or 'diverged'", f"{attributes['status']!r:.40}")
    splits = set(pool.labels) if attributes["status"] == "done" else set()
    keys = _digests(file, attributes)
    found = {key.removeprefix("logits/") for key in keys if key.startswith("logits/")}
    if found != splits:
        raise file.damage("logits", f"splits {sorted(splits)}", f"{sorted(found)}")
    return attributes


def _digests(file: hdf5.SafeFile, attributes: Mapping[str, Any]) -> dict[str, str]:
    for key, digest in attributes["digests"].items():
        group, _, name = key.partition("/")
        if group not in ("labels", "logits", "history") or not KEY.fullmatch(name) or not isinstance(digest, str):
            raise file.damage("digests", "names of arrays and their SHA-256", f"{key!r:.40}")
    return attributes["digests"]


def _logits_extents(file: hdf5.SafeFile, attributes: Mapping[str, Any], pool: PoolHeader) -> dict[str, hdf5.Extent]:
    """Where the logits of a member lie, by split; empty when it diverged."""
    extents = {}
    for split in pool.labels if attributes["status"] == "done" else ():
        key, shape = f"logits/{split}", (len(pool.labels[split]), len(pool.class_names))
        extent = file.extent(key, attributes["digests"][key])
        if extent.shape != shape:
            raise file.damage(key, f"shape {shape}", f"{extent.shape}")
        if extent.dtype != "<f4":
            raise file.damage(key, "type <f4", extent.dtype)
        extents[split] = extent
    return extents


def _read(file: hdf5.SafeFile, key: str, types: tuple[str, ...], digest: str) -> npt.NDArray:
    extent = file.extent(key, digest)
    if len(extent.shape) != 1 or extent.dtype not in types:
        raise file.damage(key, f"shape (T,) of type {' or '.join(types)}", f"{extent.dtype} of shape {extent.shape}")
    out = np.empty(extent.shape, extent.dtype)
    file.read(extent, out)
    return out


def _labels(values: npt.ArrayLike, split: str, n_classes: int) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if not KEY.fullmatch(split) or array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise InputError(
            f"expected '{split}' labels as integers of shape (N,), got {array.dtype} of shape {array.shape}"
        )
    if array.min() < 0 or array.max() >= n_classes:
        raise InputError(
            f"expected labels of '{split}' in 0…{n_classes - 1} ({n_classes} classes), got {array.min()}…{array.max()}"
        )
    copy = np.array(array, dtype="<i8")
    copy.flags.writeable = False
    return copy


def _history_lengths(history: Mapping[str, npt.NDArray]) -> dict[str, int]:
    epochs = [len(values) for name, values in history.items() if not name.startswith("step_lr")]
    return {"epochs": max(epochs, default=0), "steps": len(history.get("step_lr", ()))}


def _scores(member: Member, pool: PoolHeader) -> dict[str, float]:
    scores = {}
    if member.status == "done":
        labels, logits = pool.labels["val"], member.logits["val"]
        log_p = log_softmax(logits.astype(np.float64))
        scores["val_accuracy"] = float((logits.argmax(axis=1) == labels).mean())
        scores["val_nll"] = float(-np.take_along_axis(log_p, labels[:, None], axis=1).mean())
    for name, source, best in (("best_val_accuracy", "val_accuracy", np.max), ("best_val_loss", "val_loss", np.min)):
        measured = np.asarray(member.history.get(source, ()), dtype=float)
        measured = measured[np.isfinite(measured)]
        if measured.size:
            scores[name] = float(best(measured))
    return scores
