"""The only opener of SQLite.

A `Database` hands out one connection per thread with the same settings everywhere, and `write()` takes the write
lock at once (BEGIN IMMEDIATE), so that a read-modify-write never loses to another process. Opening brings the schema
up to date, after a checked copy of what is there. Locks are kernel locks on files: a process that dies, however it
dies, has given them back. It knows no table.
"""

import fcntl
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from storage.errors import ConflictError, IntegrityError, OutOfSpaceError, UserError
from storage.manifest import sync

if TYPE_CHECKING:
    import sqlite_utils

log = logging.getLogger(__name__)

FILE_NAME = "nightshift.db"
BACKUPS = "backups"
OPEN_LOCK = "database.lock"
"""Held shared by every connection, and exclusively by a restore."""
WAL_IS_SAFE_FROM = (3, 51, 3)
"""Releases 3.7.0 to 3.51.2 can corrupt a WAL database on a reset race: https://sqlite.org/wal.html"""

FULL, IO_ERROR, CORRUPT, NOT_A_DATABASE = 13, 10, 11, 26
"""Primary result codes: https://sqlite.org/rescode.html"""

Row = dict[str, Any]


def now() -> str:
    """The present moment, ISO 8601 in UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Database:
    """One SQLite file. Threads may share the object; each gets a connection of its own."""

    def __init__(self, home: Path) -> None:
        """Open (and migrate) the database in `home`.

        Raises UserError when the folder cannot be written or a newer Nightshift wrote it, ConflictError while it is
        being restored, IntegrityError when the file is damaged.
        """
        self.home = home
        self.path = home / FILE_NAME
        self._local = threading.local()
        prepare_home(home)
        with in_words(self.path):
            self._migrate()

    @property
    def here(self) -> "sqlite_utils.Database":
        """This thread's connection. Raises ConflictError while the database is being restored."""
        if not hasattr(self._local, "db"):
            from sqlite_utils import Database as Opener

            held = hold_open(self.home)
            try:
                self._local.db = Opener(connect(self.path))
            except BaseException:
                os.close(held)
                raise
            self._local.release = weakref.finalize(self._local.db, os.close, held)
        return cast("sqlite_utils.Database", self._local.db)

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[Row]:
        """All rows of a query as dictionaries."""
        with in_words(self.path):
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
    def write(self) -> "Iterator[sqlite_utils.Database]":
        """A transaction that holds the write lock from its first statement; nested calls join the outer one.

        Raises OutOfSpaceError when the disk is full; nothing of the transaction stays then.
        """
        db = self.here
        if db.conn.in_transaction:
            yield db
            return
        self._local.then = {}
        with in_words(self.path):
            db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.conn.commit()
            except BaseException:
                with suppress(driver().Error):  # a full disk has rolled back already
                    db.conn.rollback()
                raise
        for work in self._local.then.values():
            work()

    def after_commit(self, name: str, work: Callable[[], None]) -> None:
        """Do `work` once when this thread's transaction has been committed; a later one of that name replaces it."""
        self._local.__dict__.setdefault("then", {})[name] = work

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
            self._local.release()
            del self._local.db, self._local.release

    def copy(self, target: Path) -> None:
        """Write a checked copy of the committed state to a new file. Raises OutOfSpaceError, IntegrityError."""
        partial = target.with_name(f".{target.name}.tmp")
        partial.unlink(missing_ok=True)
        try:
            with in_words(target):
                self.here.conn.execute("VACUUM INTO ?", [str(partial)])
            check_file(partial)
            sync(partial)
            partial.rename(target)
            sync(target.parent)
        finally:
            partial.unlink(missing_ok=True)

    def _migrate(self) -> None:
        from storage.migrations import migrations

        with file_lock(self.home / "migrate.lock"):
            applied = {step.name for step in migrations.applied(self.here)}
            if unknown := applied - known_steps():
                raise UserError(
                    f"The database in {self.home} was written by a newer Nightshift "
                    f"(step {min(unknown)}); install that release or restore an older backup."
                )
            pending = migrations.pending(self.here)
            if pending and applied:
                self._keep_before(pending[0].name)
            migrations.apply(self.here)

    def _keep_before(self, step: str) -> None:
        backups = self.home / BACKUPS
        backups.mkdir(exist_ok=True)
        kept = backups / f"before-{step}-{stamp()}.db"
        self.copy(kept)
        log.info("a new release changes the schema; %s holds the database as it was", kept)


def hold_open(home: Path) -> int:
    """A file descriptor that keeps restores away until it is closed. Raises ConflictError while one runs."""
    held = os.open(home / OPEN_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise ConflictError(f"The database in {home} is being restored; try again in a minute.") from None
    return held


@cache
def driver() -> Any:
    """The driver that sqlite-utils chose: pysqlite3 where it is installed, which bundles a current SQLite.

    Imported when a database is opened, with numpy behind it: `--help` opens none.
    """
    from sqlite_utils import utils

    return vars(utils)["sqlite3"]


@cache
def known_steps() -> frozenset[str]:
    """The names of the migration steps of this release."""
    from sqlite_utils import Database as Opener

    from storage.migrations import migrations

    return frozenset(step.name for step in migrations.pending(Opener(memory=True)))


def stamp() -> str:
    """The present moment as part of a file name, in UTC; sorts by time and is never used twice."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a full disk or a damaged file into our own errors; all else passes."""
    try:
        yield
    except driver().DatabaseError as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (FULL, IO_ERROR):
            raise OutOfSpaceError(
                f"{path.name} cannot be written ({error}); free disk space in {path.parent} and try again."
            ) from error
        if code in (CORRUPT, NOT_A_DATABASE):
            raise IntegrityError(f"{path} is damaged ({error}); 'nightshift restore' brings back a backup.") from error
        raise


def check_file(path: Path) -> None:
    """Read every page and every foreign key of a database file. Raises IntegrityError with what is wrong."""
    with in_words(path):
        conn = driver().connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            verdict = conn.execute("PRAGMA integrity_check(1)").fetchone()[0]
            broken = conn.execute("PRAGMA foreign_key_check").fetchone()
        finally:
            conn.close()
    if verdict != "ok":
        raise IntegrityError(f"{path} is damaged: {verdict}.")
    if broken:
        raise IntegrityError(f"{path} is damaged: a row of {broken[0]} refers to what is not there.")


def peek(path: Path, sql: str) -> Row | None:
    """The first row of a query on a database file that is not opened as ours. Raises IntegrityError."""
    with in_words(path):
        conn = driver().connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            cursor = conn.execute(sql)
            found = cursor.fetchone()
            return None if found is None else dict(zip((c[0] for c in cursor.description), found, strict=True))
        finally:
            conn.close()


def fold_log(path: Path) -> None:
    """Fold the write-ahead log into the database file and remove it; a damaged file is left as it is."""
    with suppress(driver().DatabaseError):
        conn = connect(path)
        try:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            conn.close()


def prepare_home(home: Path) -> None:
    """Create the home folder and prove that it can be written. Raises UserError with what to do."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".probe"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process may have proved it at the same moment
    except OSError as error:
        raise UserError(
            f"The home folder {home} cannot be written ({error.strerror or error}); "
            "choose another with --home or NIGHTSHIFT_HOME."
        ) from error


def connect(path: Path) -> Any:
    """A connection with the settings every process must share."""
    conn = driver().connect(str(path), timeout=10, isolation_level=None)
    for pragma in (
        f"journal_mode = {journal_mode(driver().sqlite_version)}",
        "synchronous = FULL",
        "busy_timeout = 10000",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "secure_delete = ON",  # a page that is rearranged keeps no copy of a text that is erased later
    ):
        conn.execute(f"PRAGMA {pragma}")
    return conn


@cache
def journal_mode(release: str) -> str:
    """WAL, or DELETE (with one warning) on an SQLite release whose WAL mode may corrupt the file."""
    if tuple(int(n) for n in release.split(".")) >= WAL_IS_SAFE_FROM:
        return "WAL"
    log.warning("SQLite %s may corrupt WAL files; using journal mode DELETE", release)
    return "DELETE"


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file; it is freed when the process ends, however it ends.

    Raises BlockingIOError when `wait` is false and somebody else holds it.
    """
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
