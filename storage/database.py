"""The only opener of SQLite.

A `Database` hands out one connection per thread with the same settings everywhere, and `write()` takes the write
lock at once (BEGIN IMMEDIATE), so that a read-modify-write never loses to another process. It knows no table.
"""

import fcntl
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import sqlite_utils
from sqlite_utils import utils as sqlite_choice

from storage.errors import UserError
from storage.migrations import migrations

log = logging.getLogger(__name__)
sqlite3: Any = vars(sqlite_choice)["sqlite3"]
"""The driver that sqlite-utils chose: pysqlite3 where it is installed, which bundles a current SQLite."""

FILE_NAME = "nightshift.db"
WAL_IS_SAFE_FROM = (3, 51, 3)
"""Releases 3.7.0 to 3.51.2 can corrupt a WAL database on a reset race: https://sqlite.org/wal.html"""

Row = dict[str, Any]


def now() -> str:
    """The present moment, ISO 8601 in UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Database:
    """One SQLite file. Threads may share the object; each gets a connection of its own."""

    def __init__(self, home: Path) -> None:
        """Open (and migrate) the database in `home`. Raises UserError when the folder cannot be written."""
        self.home = home
        self.path = home / FILE_NAME
        self._local = threading.local()
        prepare_home(home)
        self._migrate()

    @property
    def here(self) -> sqlite_utils.Database:
        """This thread's connection."""
        if not hasattr(self._local, "db"):
            self._local.db = sqlite_utils.Database(connect(self.path))
        return cast(sqlite_utils.Database, self._local.db)

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[Row]:
        """All rows of a query as dictionaries."""
        cursor = self.here.conn.execute(sql, tuple(parameters))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, parameters: Iterable[Any] = ()) -> Row | None:
        """The first row of a query, or None."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def value(self, sql: str, parameters: Iterable[Any] = ()) -> Any:
        """The first column of the first row, or None."""
        found = self.row(sql, parameters)
        return next(iter(found.values())) if found else None

    @contextmanager
    def write(self) -> Iterator[sqlite_utils.Database]:
        """A transaction that holds the write lock from its first statement; nested calls join the outer one."""
        db = self.here
        if db.conn.in_transaction:
            yield db
            return
        db.conn.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.conn.rollback()
            raise
        db.conn.commit()

    def insert(self, table: str, row: Row) -> int:
        """Insert one row in a transaction; returns its id."""
        with self.write() as db:
            made = db.table(table).insert(row).last_pk
        if not isinstance(made, int):
            raise TypeError(f"{table} has no integer key")
        return made

    def close(self) -> None:
        """Close this thread's connection."""
        if hasattr(self._local, "db"):
            self._local.db.close()
            del self._local.db

    def _migrate(self) -> None:
        with file_lock(self.home / "migrate.lock"):
            migrations.apply(self.here)


def prepare_home(home: Path) -> None:
    """Create the home folder and prove that it can be written. Raises UserError with what to do."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The home folder {home} cannot be written ({error.strerror or error}); "
            "choose another with --home or NIGHTSHIFT_HOME."
        ) from error


def connect(path: Path) -> Any:
    """A connection with the settings every process must share."""
    conn = sqlite3.connect(str(path), timeout=10, isolation_level=None)
    safe = tuple(int(n) for n in sqlite3.sqlite_version.split(".")) >= WAL_IS_SAFE_FROM
    if not safe:
        log.warning("SQLite %s may corrupt WAL files; using journal mode DELETE", sqlite3.sqlite_version)
    for pragma in (
        f"journal_mode = {'WAL' if safe else 'DELETE'}",
        "synchronous = FULL",
        "busy_timeout = 10000",
        "foreign_keys = ON",
        "trusted_schema = OFF",
    ):
        conn.execute(f"PRAGMA {pragma}")
    return conn


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file; it is freed when the process ends, however it ends.

    Raises BlockingIOError when `wait` is false and somebody else holds it.
    """
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
