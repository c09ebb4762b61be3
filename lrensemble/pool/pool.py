"""`Pool`: a directory of trained members; see ``docs/pool-format.md`` for the layout.

Every file is written under a temporary name and renamed, so that many processes may add members at once and none of
them can leave half a file. A member that turns out to be damaged is moved to ``damaged/`` and recorded in
`Pool.problems`; the others go on, and training makes the lost one again.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from lrensemble.errors import DamagedError, InputError, PoolError, PoolFormatError, UnknownNameError, lookup, nearest
from lrensemble.files import write_bytes_atomic, write_text_atomic
from lrensemble.memory import empty_array, free_bytes
from lrensemble.pool import format as pool_format
from lrensemble.pool import upkeep
from lrensemble.pool.hdf5 import Stamp, check_inside, file_stamp
from lrensemble.pool.member import Member, MemberSummary, check_name
from lrensemble.pool.problems import FileDamageError, Problem, UnknownFormatError
from lrensemble.pool.stopped import Stopped, read_stopped, write_stopped
from lrensemble.pool.stored import StoredLogits, StoredMember, read_logits
from lrensemble.pool.weights import encode_weights, read_weights
from lrensemble.predictions import ArrayOutputs, Outputs, Predictions

if TYPE_CHECKING:
    from lrensemble.ensemble import Ensemble

__all__ = ["Pool"]

LOG = logging.getLogger("lrensemble")
T = TypeVar("T")

SHARE = 0.5  # of the free memory, that predictions may take: what works on them needs room too
FOLD = re.compile(r"\.fold\d+$")  # at the end of the name of a state: that of one network of a member
MOST_THREADS = 4  # that read a pool: a few keep up with any disk


class Pool:
    """A directory of trained members that share one data set and its split.

    Build one with `create` or `open`.

    Attributes
    ----------
    path
        The directory.
    problems
        What was found wrong with its files so far, as `Problem` records.
    """

    def __init__(self, path: Path, header: pool_format.PoolHeader) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._verifying = False
        self._header = header
        self._known: dict[str, tuple[Stamp | None, dict[str, Any]]] = {}

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        name: str,
        fingerprint: str,
        class_names: Sequence[str],
        labels: Mapping[str, npt.ArrayLike],
        exist_ok: bool = False,
    ) -> Pool:
        """Make a new, empty pool.

        Parameters
        ----------
        path
            The directory; made if it does not exist.
        name, fingerprint
            Of the data set and its split.
        class_names
            C ≥ 2 names.
        labels
            Integers in 0…C−1, shape (N,), by split; ``"val"`` must be there.
        exist_ok
            Open the pool that is already there, provided that it has the same fingerprint, classes and labels.

        Raises
        ------
        InputError
            On labels or classes that cannot be.
        PoolError
            If there is a pool already (another one, with `exist_ok`), or something that is no pool, or no permission.
        """
        root = Path(path)
        header = pool_format.PoolHeader(name, fingerprint, tuple(map(str, class_names)), labels)  # type: ignore[arg-type]
        problems = []
        if os.path.lexists(root / "pool.h5"):
            if not exist_ok:
                raise PoolError(f"{root}: expected no pool there yet, got one: choose another path or open it")
            try:
                return cls.open(root)._same_as(header)
            except FileDamageError as error:  # all that it held is known again: make it anew, keep the old one aside
                problems.append(upkeep.set_aside(root, root / "pool.h5", error.problem))
        upkeep.refuse_foreign(root)
        pool = cls(root, header)
        pool.problems += problems
        pool._write_header()
        return pool

    @classmethod
    def open(cls, path: str | Path) -> Pool:
        """Open the pool in directory `path`.

        Raises
        ------
        PoolFormatError
            If there is no pool, or one of a format version that this release does not read.
        PoolError
            If ``pool.h5`` is damaged, or leads out of the directory.
        """
        root = Path(path)
        if not root.is_dir():
            raise PoolFormatError(f"{root}: expected the directory of a pool, found none: check the path, or train one")
        upkeep.refuse_links(root)
        try:
            return cls(root, pool_format.read_pool_header(root / "pool.h5", root))
        except FileNotFoundError:
            raise PoolFormatError(f"{root}: expected a pool, found no pool.h5: check the path") from None
        except FileDamageError as error:
            problem = replace(error.problem, file=str(root / error.problem.file), action="train again to rebuild it")
            raise FileDamageError(problem) from None

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self._header.name

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the data and their split."""
        return self._header.fingerprint

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self._header.class_names

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have labels and predictions."""
        return tuple(self._header.labels)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of all readable members, sorted, whatever their status."""
        return tuple(self._headers())

    def __len__(self) -> int:
        return len(self._headers())

    def __contains__(self, member: object) -> bool:
        try:
            return self._member_header(check_name(member)) is not None  # type: ignore[arg-type]
        except InputError:
            return False

    def __repr__(self) -> str:
        return f"Pool({str(self.path)!r}, name={self.name!r}, members={len(self)})"

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        """Labels of a split, int64 (N,), read-only."""
        return lookup(self._header.labels, split, "split")

    def add(self, member: Member, weights: Mapping[str, npt.NDArray] | None = None) -> None:
        """Store a member; a member of the same name is replaced.

        The weights are written first and the member's own file last, so that a member that is there is complete.

        Raises
        ------
        InputError
            If its splits, samples or classes are not those of the pool.
        PoolError
            If the disk refuses; the pool is then as before (apart from the weights).
        """
        self._check_shapes(member)
        digest = ""
        if weights is not None:
            content = encode_weights(weights)
            digest = hashlib.sha256(content).hexdigest()
            write_bytes_atomic(self._place("weights", f"{member.id}.safetensors"), content)
        content = pool_format.encode_member(member, self._header, digest)
        write_bytes_atomic(self._place("members", f"{member.id}.h5"), content)

    def member(self, member: str) -> Member:
        """Read one member whole, with logits and history.

        Raises
        ------
        UnknownNameError
            If there is none of this name.
        DamagedError
            If its file is damaged; it is then set aside.
        """
        path = self._existing(member)
        return self._read(path, lambda _: pool_format.read_member(path, self.path, self._header))

    def summaries(self) -> list[MemberSummary]:
        """All members without their arrays, sorted by name; reads attributes only."""
        return [self._summary(name, header) for name, header in self._headers().items()]

    def predictions(
        self, split: str = "val", members: Sequence[str] | None = None, *, in_memory: bool | None = None
    ) -> Predictions:
        """Logits of the finished members on one split, all of them verified.

        Parameters
        ----------
        split
            ``"val"`` or ``"test"``.
        members
            Names, in the order wanted; all finished members, sorted by name, when not given.
        in_memory
            True keeps the logits in memory; False leaves them in their files, from which they are read again, member by
            member, when they are asked for. None decides: in memory, if they take at most half of what is free.

        Raises
        ------
        PoolError
            If there is no finished member, or no room in memory where it is asked for.
        DamagedError
            If a member asked for by name is damaged. Without `members`, damaged ones are set aside and left out.
        """
        labels = self.labels(split)
        finished = self._finished() if members is None else [self._finished_one(name) for name in members]
        if not finished:
            raise PoolError(f"{self.path}: expected at least one finished member, found none: train members first")
        shape = (len(finished), len(labels), self.n_classes)
        if in_memory is None:
            in_memory = 4 * math.prod(shape) <= SHARE * free_bytes()
        logits = empty_array(shape, "<f4", "the logits of all members") if in_memory else None
        results = self._verified(finished, split, logits)
        sound = self._without_damaged(results, leave_out=members is None)
        outputs: Outputs
        if logits is None:
            outputs = StoredLogits(self.path, tuple(stored for _, stored in sound.values()), np.arange(len(labels)))
        else:
            for row, found in enumerate(sound):  # close the gaps of those that are left out
                if row < found:
                    logits[row] = logits[found]
            outputs = ArrayOutputs(logits[: len(sound)])
        ids = tuple(name for name, _ in sound.values())
        return Predictions(ids, outputs, labels, split, self.fingerprint, self._families(ids))

    def weights(self, member: str) -> dict[str, npt.NDArray]:
        """Weights of a member by name of the parameter.

        Raises
        ------
        PoolError
            If it was stored without weights, or they are damaged.
        """
        digest = self._read(self._existing(member), lambda header: header["weights"])
        if not digest:
            raise PoolError(f"{self.path}: expected the weights of '{member}', found none: train it with weights kept")
        return read_weights(self._place("weights", f"{member}.safetensors"), self.path, digest)

    def header_bytes(self) -> bytes:
        """Content of ``pool.h5`` without any member: an empty pool of the same data, to be put elsewhere."""
        return pool_format.encode_pool(self._header)

    def resume_path(self, member: str) -> Path:
        """Where the state of a training under way is kept; the trainer removes it when the member is done."""
        return self._place("resume", f"{check_name(member)}.pt")

    def resume_paths(self, member: str) -> list[Path]:
        """Files of a training under way: the member's state, those of its folds (``<id>.fold0.pt``, …), its record."""
        states = {path: FOLD.sub("", path.stem) for path in self._entries("resume", "")}
        return [path for path, owner in states.items() if owner == member]

    def add_stopped(self, stopped: Stopped) -> None:
        """Record that a member's training rests; its state has been saved before."""
        write_stopped(self._place("resume", f"{check_name(stopped.id)}.json"), stopped)

    def stopped(self) -> list[Stopped]:
        """Members whose training was stopped before its end and can go on, sorted by name. They are in no selection."""
        paths = [path for path in self._entries("resume", ".json") if not self._file(path.stem).exists()]
        return [record for record in map(read_stopped, paths) if record is not None]

    def reports_path(self, name: str) -> Path:
        """Directory of a report."""
        return self._place("reports", check_name(name, "report"))

    @property
    def ensembles(self) -> tuple[str, ...]:
        """Names of the ensembles kept with the pool, sorted."""
        return tuple(sorted(path.stem for path in self._entries("ensembles", ".json")))

    def save_ensemble(self, ensemble: Ensemble, name: str) -> Path:
        """Write ``ensembles/<name>.json``; raises `PoolError` if the ensemble is of another pool."""
        ensemble.check_pool(self.fingerprint, self.ids)
        return ensemble.save(self._place("ensembles", f"{check_name(name, 'ensemble')}.json"))

    def ensemble(self, name: str) -> Ensemble:
        """Read ``ensembles/<name>.json``."""
        from lrensemble.ensemble import Ensemble

        path = self._place("ensembles", f"{lookup({n: n for n in self.ensembles}, name, 'ensemble')}.json")
        check_inside(path, self.path)
        return Ensemble.load(path)

    @property
    def experiment(self) -> str | None:
        """Text of ``experiment.toml``, or None when there is none."""
        path = self.path / "experiment.toml"
        try:
            check_inside(path, self.path)
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise PoolError(f"{path}: expected the experiment as text, but it cannot be read ({error})") from None

    def save_experiment(self, text: str) -> Path:
        """Write ``experiment.toml``, the experiment with every default filled in."""
        return write_text_atomic(self.path / "experiment.toml", text)

    def refresh_view(self) -> None:
        """Rebuild the stacked view in ``pool.h5``: ``ids``, ``logits/<split>`` (M, N, C) and a link to each member.

        The view is for HDF5 viewers and other languages; nothing here reads it.
        """
        from lrensemble.pool.view import write_view

        finished, all_ids = self._finished(), self.ids
        self._write_header(lambda file: write_view(file, self._header, finished, all_ids))

    def verify(self) -> list[Problem]:
        """Read every file whole and return what is wrong; damaged members are set aside as by any reader."""
        earlier = self.problems
        self.problems, self._verifying = [], True
        try:
            upkeep.verify(self, self._record)
        finally:
            self._verifying = False
        found, self.problems = self.problems, [*earlier, *(p for p in self.problems if p not in earlier)]
        return found

    def info(self) -> dict[str, Any]:
        """Return what `lrensemble inspect` shows, JSON-ready; nothing in it comes from test predictions."""
        members = [asdict(summary) for summary in self.summaries()]
        stopped = [record.info() for record in self.stopped()]
        known = {member["id"] for member in (*members, *stopped)}
        return {
            "path": str(self.path),
            "name": self.name,
            "fingerprint": self.fingerprint,
            "format_version": pool_format.VERSION,
            "classes": list(self.class_names),
            "samples": {split: len(self.labels(split)) for split in self.splits},
            "members": members,
            "stopped": stopped,
            "training": sorted({FOLD.sub("", path.stem) for path in self._entries("resume", "")} - known),
            "ensembles": list(self.ensembles),
            "damaged": sorted(path.name for path in self._entries("damaged", "")),
            "problems": [problem.to_dict() for problem in self.problems],
            "bytes": sum(_size(path) for path in self.path.rglob("*")),
        }

    to_dict = info

    def _same_as(self, header: pool_format.PoolHeader) -> Pool:
        if self.fingerprint != header.fingerprint:
            raise PoolError(
                f"{self.path}: expected a pool of this data and split ({header.fingerprint[:12]}…), got one of another "
                f"({self.fingerprint[:12]}…, '{self.name}'): choose another path"
            )
        if self.class_names != header.class_names or self._header.label_digests != header.label_digests:
            raise PoolError(
                f"{self.path}: expected a pool of these classes and labels, got others: choose another path"
            )
        return self

    def _write_header(self, view: Callable[[Any], None] | None = None) -> None:
        write_bytes_atomic(self.path / "pool.h5", pool_format.encode_pool(self._header, view))

    def _place(self, folder: str, name: str) -> Path:
        return self.path / folder / name

    def _file(self, member: str) -> Path:
        return self._place("members", f"{member}.h5")

    def _entries(self, folder: str, suffix: str) -> list[Path]:
        try:
            paths = sorted((self.path / folder).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PoolError(f"{self.path / folder}: cannot be read ({error.strerror}): check its permissions") from None
        return [path for path in paths if path.name.endswith(suffix) and not path.name.startswith(".")]

    def _headers(self) -> dict[str, dict[str, Any]]:
        names = sorted(path.name.removesuffix(".h5") for path in self._entries("members", ".h5"))
        headers = {name: self._member_header(name) for name in names}
        return {name: header for name, header in headers.items() if header is not None}

    def _member_header(self, name: str) -> dict[str, Any] | None:
        """Attributes of a member; None when it is not there, damaged (it is set aside) or of another version."""
        path = self._file(name)
        try:
            check_name(name)
            return self._read(path, lambda header: header)
        except InputError:
            self._set_aside(path, Problem(f"members/{path.name}", "", "a file with a safe name", "another name"))
        except FileDamageError:
            pass  # set aside and recorded, or gone
        except UnknownFormatError as error:  # perhaps of a later release: left where it is
            self._record(replace(error.problem, file=f"members/{path.name}", action="left out"))
        return None

    def _read(self, path: Path, read: Callable[[dict[str, Any]], T]) -> T:
        """Return ``read(header)`` for a member's file; set the file aside when it is damaged."""
        try:
            return self._attempt(path, read)
        except FileDamageError as error:
            raise FileDamageError(self._set_aside(path, error.problem)) from None

    def _attempt(self, path: Path, read: Callable[[dict[str, Any]], T]) -> T:
        """Return ``read(header)`` for a member's file; raise `FileDamageError` when it is damaged.

        Attributes are read again only if the file is another one than last time. When a writer replaces the file while
        it is read, the new one is read instead of blamed.
        """
        name = path.name.removesuffix(".h5")
        while True:
            stamp = _stamp(path)
            try:
                if stamp is None or self._known.get(name, ((), {}))[0] != stamp:
                    self._known[name] = (stamp, pool_format.read_member_header(path, self.path, self._header))
                return read(self._known[name][1])
            except FileNotFoundError:
                gone = Problem(f"members/{path.name}", "", "the file of a member", "none: it has just been moved")
                raise FileDamageError(gone) from None
            except FileDamageError:
                if _stamp(path) == stamp:
                    raise

    def _existing(self, member: str) -> Path:
        """File of a member that must be there."""
        path = self._file(check_name(member))
        if not os.path.lexists(path):
            ids = self.ids
            guess = nearest(member, ids)
            hint = f"did you mean '{guess}'? " if guess else ""
            raise UnknownNameError(
                f"{self.path}: unknown member '{member}': {hint}`lrensemble inspect` lists the {len(ids)}"
            )
        return path

    def _verified(
        self, finished: Sequence[str], split: str, logits: npt.NDArray[np.float32] | None
    ) -> list[tuple[str, StoredMember | FileDamageError]]:
        """Read the logits of finished members whole, into the rows of `logits` if given, and say where they lie.

        Reading and hashing hold no lock of Python's, so several threads do it.
        """

        def verify(name: str, out: npt.NDArray[np.float32] | None) -> StoredMember | FileDamageError:
            def read(header: dict[str, Any]) -> StoredMember:
                self._check_finished(name, header)  # it may be another one by now
                return read_logits(self._file(name), self.path, header["extents"][split], out)

            try:
                return self._attempt(self._file(name), read)
            except FileDamageError as error:
                return error

        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as threads:
            rows = logits if logits is not None else [None] * len(finished)
            return list(zip(finished, threads.map(verify, finished, rows), strict=False))

    def _without_damaged(
        self, results: Sequence[tuple[str, StoredMember | FileDamageError]], *, leave_out: bool
    ) -> dict[int, tuple[str, StoredMember]]:
        """Set damaged members aside; return the others by row. Raise if none may be left out, or if all would be."""
        sound = {}
        for row, (name, result) in enumerate(results):
            if isinstance(result, StoredMember):
                sound[row] = name, result
                continue
            problem = self._set_aside(self._file(name), result.problem)
            if not leave_out:
                raise FileDamageError(problem)
        if not sound:
            raise DamagedError(f"{self.path}: expected readable members, found all {len(results)} damaged: train again")
        return sound

    def _families(self, members: Sequence[str]) -> tuple[str, ...]:
        """Name of the training that each member comes from; empty where none of them is a snapshot."""
        extras = [self._known[name][1]["extra"] for name in members]
        lineage = [str(extra["parent"]) if "snapshot" in extra and "parent" in extra else "" for extra in extras]
        return tuple(parent or name for parent, name in zip(lineage, members, strict=True)) if any(lineage) else ()

    def _finished(self) -> list[str]:
        return [name for name, header in self._headers().items() if header["status"] == "done"]

    def _finished_one(self, member: str) -> str:
        self._read(self._existing(member), lambda header: self._check_finished(member, header))
        return member

    def _check_finished(self, member: str, header: Mapping[str, Any]) -> None:
        if header["status"] != "done":
            raise PoolError(f"{self.path}: expected finished members, got '{member}', which diverged")

    def _summary(self, name: str, header: Mapping[str, Any]) -> MemberSummary:
        values = {key: header[key] for key in (*pool_format.MEMBER_SCALARS, "epochs", "steps")}
        values |= {key: header.get(key) for key in pool_format.MEMBER_SCORES}
        size = _size(self._file(name)) + _size(self._place("weights", f"{name}.safetensors"))
        return MemberSummary(**values, has_weights=bool(header["weights"]), bytes=size)

    def _check_shapes(self, member: Member) -> None:
        if member.status != "done":
            return
        expected = {split: (len(values), self.n_classes) for split, values in self._header.labels.items()}
        found = {split: values.shape for split, values in member.logits.items()}
        if found != expected:
            raise InputError(f"member '{member.id}': expected logits of shapes {expected} as in the pool, got {found}")

    def _set_aside(self, path: Path, problem: Problem) -> Problem:
        if not os.path.lexists(path):  # another process was faster
            return problem
        return self._record(upkeep.set_aside(self.path, path, problem))

    def _record(self, problem: Problem) -> Problem:
        if problem not in self.problems:
            self.problems.append(problem)
            if not self._verifying:  # whose caller is given them
                LOG.warning("%s: %s", self.path, problem)
        return problem


def _stamp(path: Path) -> Stamp | None:
    """Return what changes when a file is replaced; None when there is none."""
    try:
        return file_stamp(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if not path.is_dir() else 0
    except OSError:
        return 0
