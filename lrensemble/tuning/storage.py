"""The database under the policy store: find it, open it, lock it, and say in one sentence what is wrong with it.

A store is an Optuna storage: tables of studies and trials in SQLite or PostgreSQL. What Optuna leaves open is added
here: tables are made by one process at a time, SQLite waits instead of failing when another process writes, and
`Database.lock` lets one process at a time look up and write, so that nothing is recorded twice.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrensemble.errors import StoreError, first_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy.engine import URL, Engine

__all__ = ["DEFAULT_STORE", "Database", "explained", "open_database"]

DEFAULT_STORE = Path("checkpoints") / "store.db"

PATIENCE_SECONDS = 60.0  # that a process waits for the others; a write takes milliseconds
REACH_SECONDS = 15  # that a server may take to answer
LOCK_NUMBER = 0x6C72656E73  # of PostgreSQL's advisory lock: one for all stores of a database
POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
SECRET = ("password", "passwd", "pwd", "sslpassword", "token")

_THREADS = threading.Lock()


@dataclass(frozen=True, eq=False)
class Database:
    """An open database.

    Attributes
    ----------
    storage
        For Optuna.
    name
        File or URL, without its password.
    lock
        ``with database.lock():`` one process at a time; let go when the process is killed.
    close
        Ends its connections.
    """

    storage: BaseStorage
    name: str
    lock: Callable[[], AbstractContextManager[None]]
    close: Callable[[], None]


def open_database(where: str | Path | BaseStorage | None, *, create: bool) -> Database:
    """Open a database by file, URL or as an Optuna storage; without `create`, nothing is written.

    Raises
    ------
    StoreError
        If it is not there, is something else, or cannot be reached.
    """
    _silence_optuna()
    if where is not None and not isinstance(where, str | Path):
        return Database(where, type(where).__name__, _one_thread, lambda: None)
    place = _place(DEFAULT_STORE if where is None else where)
    return _open_sqlite(place, create) if isinstance(place, Path) else _open_postgresql(place, create)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold the lock of storages that the caller has made, of which no more is known: other threads wait."""
    with _THREADS:
        yield


def _silence_optuna() -> None:
    """Let Optuna's messages go to Python's logging instead of stderr, and those of every single trial nowhere."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(logging.WARNING)


def _place(where: str | Path) -> Path | URL:
    """Read a file name or URL: a path is SQLite, a URL PostgreSQL with the driver psycopg."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    text = str(where)
    if "://" not in text:
        return Path(text)
    expected = "expected a store as a file, sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the text may hold a password: not shown
        raise StoreError(f"{expected}, got a URL that cannot be read") from None
    if url.drivername == "sqlite" and url.database not in (None, "", ":memory:") and not url.query:
        return Path(str(url.database))
    if url.drivername in POSTGRESQL:
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(f"{expected}, got {_text(url)}")


def _text(url: URL) -> str:
    """Return a URL as it may be shown: without passwords."""
    kept = {key: "***" if key.lower() in SECRET else value for key, value in url.query.items()}
    text = url.set(query=kept).render_as_string().replace("%2A%2A%2A", "***")
    return text.replace("postgresql+psycopg:", "postgresql:", 1)


def _open_sqlite(path: Path, create: bool) -> Database:
    from sqlalchemy.pool import QueuePool

    lock = partial(_lock_file, path.with_name(f"{path.name}.lock"))
    with explained(str(path)):
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise StoreError(f"{path}: expected a policy store, found none: check the path, or record something first")
        connect = _connector(path, create)
        options = {"creator": connect, "poolclass": QueuePool}  # in a URL, some characters of a path mean something
        with lock() if create else nullcontext():
            if create:
                with closing(connect()) as connection:  # readers and a writer then do not wait for each other
                    connection.execute("PRAGMA journal_mode=WAL")
            storage = _storage("sqlite://", str(path), options, create)
    return Database(storage, str(path), lock, storage.engine.dispose)


def _connector(path: Path, create: bool) -> Callable[[], sqlite3.Connection]:
    """Return what opens a database; one that may only be read, and that nobody has open, as if it never changed."""
    connect = partial(sqlite3.connect, path, timeout=PATIENCE_SECONDS, check_same_thread=False)
    if create:
        return connect
    with closing(connect()) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:  # write-ahead logging writes even to read
            if "readonly" not in str(error):
                raise
            address = f"{path.absolute().as_uri()}?immutable=1"
            return partial(sqlite3.connect, address, uri=True, check_same_thread=False)
    return connect


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Hold a lock on a file that stays empty. SQLite's own locks work on every system and end with their process."""
    with explained(str(path)):
        connection = sqlite3.connect(path, timeout=PATIENCE_SECONDS, isolation_level=None)
    try:
        with explained(str(path)):
            connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


def _open_postgresql(url: URL, create: bool) -> Database:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    name = _text(url)
    reach = {} if "connect_timeout" in url.query else {"connect_timeout": REACH_SECONDS}
    options = {"connect_args": reach, "pool_pre_ping": True}  # the server may have been started anew
    with explained(name):
        lock = partial(_lock_server, create_engine(url, poolclass=NullPool, connect_args=reach), name)
        with lock() if create else nullcontext():
            storage = _storage(url.render_as_string(hide_password=False), name, options, create)
    return Database(storage, name, lock, storage.engine.dispose)


@contextmanager
def _lock_server(engine: Engine, name: str) -> Iterator[None]:
    """Hold an advisory lock of a connection of its own; the server lets go of it when the connection ends."""
    from sqlalchemy import text

    with explained(name):
        connection = engine.connect()
    try:
        with explained(name):
            connection.execute(text(f"SELECT pg_advisory_lock({LOCK_NUMBER})"))
        yield
    finally:
        connection.close()


def _storage(url: str, name: str, options: dict[str, Any], create: bool) -> RDBStorage:
    """Open the tables, and make them where there are none; without `create`, raise instead."""
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine, inspect

    if not create:
        probe = create_engine(url, **options)
        is_store = inspect(probe).has_table("studies")
        probe.dispose()
        if not is_store:
            raise StoreError(f"{name}: expected a policy store, found a database without one: check the name")
    return RDBStorage(url, engine_kwargs=options, skip_table_creation=not create)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what databases raise into one sentence about the store called `name`."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise StoreError(
            f"{name}: expected the PostgreSQL driver psycopg, which is not installed: pip install "
            f"'lrensemble[postgresql]' ({first_line(error)})"
        ) from None
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        raise StoreError(f"{name}: {_reason(error)}") from None
    except OSError as error:
        raise StoreError(f"{name}: cannot be opened as a policy store ({error.strerror or error})") from None
    except RuntimeError as error:  # Optuna's: the tables are of another version
        raise StoreError(f"{name}: {first_line(error)}") from None


def _reason(error: BaseException) -> str:
    """Return what is wrong and what to do, from the innermost error, which is the driver's."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    said = first_line(error)
    for sign, sentence in _SIGNS.items():
        if sign in said.lower():
            return f"{sentence} ({said})"
    return f"the database cannot be used as a policy store ({said})"


_SIGNS = {
    "not a database": "expected a policy store (SQLite), found another kind of file: check the path",
    "malformed": "expected a policy store (SQLite), found a damaged one: restore a copy",
    "unable to open": "cannot be opened as a policy store: check the path and its permissions",
    "readonly": "expected to write, but it may only be read: check its permissions",
    "permission denied": "the user may not do this: ask for permission, or choose another store",
    "locked": "another process has been writing for too long: try again when it is done",
    "disk is full": "the disk is full: make room",
    "password": "the server refuses the password: check user and password of the URL",
    "authentication": "the server refuses the user: check user and password of the URL",
    "does not exist": "the server has no such user or database: check the URL",
    "no such file": "no server answers there: check host and port, and that it runs",
    "refused": "no server answers there: check host and port, and that it runs",
    "resolve": "there is no such host: check the URL",
    "timeout": "no server answers there: check host and port, and that it runs",
}
