"""Backups: a checked copy of the database in a sealed folder, rotation, and the way back.

    backups/20261127-021500-000000/   nightshift.db, MANIFEST.json (hashes, head of the audit log, model versions)
    backups/models/VERSION/           model folders, each copied once, when asked for

A restore works on a copy: it is checked, brought up to date and completed with the entry that tells of the restore,
and only then takes the place of the database, by one rename. What stood there is kept. It knows nothing of what the
rows mean, except where the folder of each model version is.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage import audit, manifest, registry, trust
from storage.database import (
    BACKUPS,
    FILE_NAME,
    OPEN_LOCK,
    Database,
    check_file,
    file_lock,
    fold_log,
    now,
    peek,
    prepare_home,
    stamp,
)
from storage.domain import ModelVersion
from storage.errors import ConflictError, IntegrityError, NotFoundError, OutOfSpaceError, UserError
from storage.manifest import sync

NAME, STAMP = re.compile(r"\d{8}-\d{6}-\d{6}"), "%Y%m%d-%H%M%S-%f"
MODELS = "models"
REPLACED = "replaced"
STAGING = ".restoring"
DERIVED = "index"
"""What is built anew from the database; after a restore it would tell of other rows."""


@dataclass(frozen=True)
class Backup:
    """A sealed backup; `bytes` counts the database and the model folders that this backup copied."""

    folder: Path
    created_at: str
    head: audit.Head
    versions: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Restored:
    """What a restore did: which backup serves now, which model, and where the replaced database is kept."""

    source: Path
    head: audit.Head
    champion: str | None
    replaced: Path | None


# --- making ---


def make(database: Database, *, to: Path | None = None, keep: int, models: bool = False) -> Backup:
    """Back the database up and drop all but the newest `keep` backups.

    Raises OutOfSpaceError or UserError when the folder cannot be written, ConflictError while another backup runs.
    """
    if keep < 1:
        raise UserError("At least one backup must be kept.")
    target = to or database.home / BACKUPS
    with writable(target):
        target.mkdir(parents=True, exist_ok=True)
        with only_one(target):
            sweep(target)
            copied = copy_models(database, target / MODELS) if models else 0
            made = seal(database, target, copied)
            rotate(target, keep)
    return made


def seal(database: Database, target: Path, copied: int) -> Backup:
    """Write one backup under a temporary name, check it, and rename it into place."""
    name = later_than(listed(target))
    partial = target / f"{manifest.TEMPORARY}{name}"
    partial.mkdir()
    try:
        audit.append(database, "backup.began", name=name)
        database.copy(partial / FILE_NAME)
        head, created = head_of(partial / FILE_NAME), now()
        versions = tuple(v.version for v in aliased(database))
        about = {"created_at": created, "home": str(database.home), "audit": head.as_json(), "versions": versions}
        manifest.seal(partial, about)
        manifest.publish(partial, target / name)
    except BaseException:
        manifest.discard(partial)
        raise
    size = (target / name / FILE_NAME).stat().st_size + copied
    return Backup(target / name, created, head, versions, size)


def later_than(others: Sequence[Path]) -> str:
    """A name that sorts behind all others: a clock that was set back must not make the newest backup the oldest."""
    name = stamp()
    if others and name <= (last := others[-1].name):
        moment = datetime.strptime(last, STAMP).replace(tzinfo=UTC) + timedelta(microseconds=1)
        name = moment.strftime(STAMP)
    return name


def copy_models(database: Database, target: Path) -> int:
    """Copy the folders behind the aliases that no earlier backup has; returns the bytes copied."""
    copied = 0
    for version in aliased(database):
        for folder in folders_of(version):
            final = target / folder.name
            if folder.is_dir() and not final.is_dir():
                copied += copy_sealed(folder, final)
    return copied


def copy_sealed(folder: Path, final: Path) -> int:
    """Copy a sealed folder and verify the copy; returns its bytes. Raises IntegrityError."""
    partial = final.with_name(f"{manifest.TEMPORARY}{final.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    if (partial / manifest.NAME).is_file():
        manifest.verify(partial, manifest.sha256(folder / manifest.NAME))
    for file in partial.iterdir():
        sync(file)
    sync(partial)
    manifest.publish(partial, final)
    return manifest.size(final)


def aliased(database: Database) -> list[ModelVersion]:
    """The versions that serve, served before, or wait, without those that may serve no more: no restore lets them."""
    names = {registry.alias(database, alias) for alias in ("champion", "previous", "candidate")}
    known = [v for v in registry.versions(database) if v.version in names]
    # `trust` also bars a version whose folder is gone, unless it has no hash; of such a one the copy is all there is.
    return [v for v in known if not trust.barred(database, replace(v, manifest_sha256=""))]


def folders_of(version: ModelVersion) -> list[Path]:
    """The merged folder and the adapter folder of a version, as far as it has them."""
    return [Path(path) for path in (version.path, version.adapter_path) if path]


def older_copies(home: Path) -> tuple[Path, ...]:
    """The copies of the database that a home holds beside it: backups, and what migrations and restores left."""
    kept = [*listed(home / BACKUPS), *(home / BACKUPS).glob("before-*.db"), *(home / REPLACED).glob("*")]
    return tuple(sorted([*kept, *home.glob(STAGING)]))


def drop_older(database: Database) -> Backup:
    """Make one backup of the database as it is now and delete every earlier copy, for the words that they still hold.

    With them go the copies of model versions that may serve no more, because the new backup lists none of these.
    Raises what `make` raises; nothing was deleted then.
    """
    older = older_copies(database.home)
    made = make(database, keep=1)
    for copy in older:
        if copy.is_dir():
            manifest.discard(copy)
        else:
            copy.unlink(missing_ok=True)
    audit.append(database, "backup.dropped", count=len(older))
    return made


def rotate(target: Path, keep: int) -> None:
    """Delete backups beyond the newest `keep`, and model folders that none of the kept ones lists."""
    for folder in listed(target)[:-keep]:
        manifest.discard(folder)
    wanted = {name for folder in listed(target) for name in told(folder)["versions"]}
    for model in (target / MODELS).glob("*"):
        if model.name.removesuffix("-adapter") not in wanted and not model.name.startswith("base"):
            manifest.discard(model)


def sweep(target: Path) -> None:
    """Delete what a backup that was killed left behind."""
    for leftover in (*target.glob(f"{manifest.TEMPORARY}*"), *(target / MODELS).glob(f"{manifest.TEMPORARY}*")):
        shutil.rmtree(leftover)


def listed(target: Path) -> list[Path]:
    """The sealed backups of a folder, oldest first."""
    if not target.is_dir():
        return []
    return sorted(f for f in target.iterdir() if NAME.fullmatch(f.name) and (f / manifest.NAME).is_file())


def told(folder: Path) -> dict[str, Any]:
    """The manifest of a backup, unverified."""
    found: dict[str, Any] = json.loads((folder / manifest.NAME).read_text(encoding="utf-8"))
    return found


@contextmanager
def writable(target: Path) -> Iterator[None]:
    """Turn an error of the file system into a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutOfSpaceError(f"{target} cannot be written ({reason}); nothing there was replaced.") from error


@contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Hold the lock of a backup folder."""
    try:
        with file_lock(target / ".lock", wait=False):
            yield
    except BlockingIOError:
        raise ConflictError(f"Another backup to {target} is being made; this one did nothing.") from None


# --- the way back ---


def verify(source: Path) -> audit.Head:
    """Check a backup folder (or a bare database file) completely. Raises IntegrityError that says what is wrong."""
    if source.is_file():
        check_file(source)
        return head_of(source)
    if not (source / manifest.NAME).is_file():
        raise IntegrityError(f"{source} holds no manifest; it is no complete backup.")
    about = manifest.verify(source, manifest.sha256(source / manifest.NAME))
    check_file(source / FILE_NAME)
    head = head_of(source / FILE_NAME)
    if head.as_json() != about["audit"]:
        raise IntegrityError(f"The audit log in {source} does not end where its manifest says.")
    return head


def restore(home: Path, source: Path | None = None) -> Restored:
    """Put a backup in the place of the database (the newest one of `home` when none is named).

    Raises NotFoundError without a backup, IntegrityError for a damaged one, ConflictError while the database is open
    elsewhere; in each case nothing was changed.
    """
    prepare_home(home)
    chosen = choose(home, source)
    with alone(home), writable(home):
        verify(chosen)
        head, champion = stage(home, chosen)
        kept = swap(home)
        audit.write_head(home, head)
    return Restored(chosen, head, champion, kept)


def choose(home: Path, source: Path | None) -> Path:
    """The backup that is meant: a path, a name under the home's backups, or the newest one. Raises NotFoundError."""
    if source is None:
        found = listed(home / BACKUPS)
        if not found:
            raise NotFoundError(f"There is no backup in {home / BACKUPS}; name one.")
        return found[-1]
    for candidate in (source, home / BACKUPS / source):
        if candidate.exists():
            return candidate
    raise NotFoundError(f"There is no backup {source}.")


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Be the only process that uses the database. Raises ConflictError."""
    try:
        with file_lock(home / OPEN_LOCK, wait=False):
            yield
    except BlockingIOError:
        raise ConflictError(
            f"The database in {home} is in use; stop the bot (and wait for the night to end), then try again."
        ) from None


def stage(home: Path, chosen: Path) -> tuple[audit.Head, str | None]:
    """Make the database that is going to serve, beside the one that serves; returns its head and its champion."""
    staging = home / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    bare = chosen.is_file()
    shutil.copyfile(chosen if bare else chosen / FILE_NAME, staging / FILE_NAME)
    about = {} if bare else told(chosen)
    database = Database(staging)
    try:
        check_chain(database, chosen)
        with database.write():
            relocate(database, str(about.get("home", home)), home)
            bring_models(database, chosen.parent / MODELS, home)
            champion = settle_champion(database)
            last = replaced_head(home)
            before = {"replaced_seq": last.seq, "replaced_hash": last.hash}
            audit.append(database, audit.RESTORED, backup=chosen.name, champion=champion, **before)
        return audit.head(database), champion
    finally:
        database.close()


def check_chain(database: Database, chosen: Path) -> None:
    """Raise IntegrityError when the audit log of a backup was tampered with."""
    faults = [fault for fault in audit.verify(database).faults if fault.kind in ("order", "edited", "guard")]
    if faults:
        raise IntegrityError(f"The audit log in {chosen} is not as it was written: {faults[0].detail}.")


def relocate(database: Database, old: str, home: Path) -> None:
    """Let model versions be found under this home, when the backup comes from another one."""
    for version in registry.versions(database):
        paths = [p.replace(old, str(home), 1) if p.startswith(old) else p for p in (version.path, version.adapter_path)]
        sql = "UPDATE model_versions SET path = ?, adapter_path = ? WHERE version = ?"
        database.here.conn.execute(sql, (*paths, version.version))


def bring_models(database: Database, copies: Path, home: Path) -> None:
    """Copy back the folders behind the aliases that are gone and that the backup has."""
    for version in aliased(database):
        for folder in folders_of(version):
            if not folder.is_dir() and (copies / folder.name).is_dir() and folder.is_relative_to(home):
                folder.parent.mkdir(parents=True, exist_ok=True)
                copy_sealed(copies / folder.name, folder)


def settle_champion(database: Database) -> str | None:
    """Let a version serve whose folder is there: the champion, the one before, or the base, which can be made anew."""
    wanted = [registry.alias(database, "champion"), registry.alias(database, "previous"), registry.BASE]
    known = [version for name in wanted if name and (version := registry.find(database, name))]
    there = [v.version for v in known if is_there(v) and not trust.barred(database, v)]
    champion = there[0] if there else None
    if champion != wanted[0]:
        registry.point(database, "champion", champion)
        registry.point(database, "previous", None)
    return champion


def is_there(version: ModelVersion) -> bool:
    """Whether a version's folder has the manifest that was registered; the bot checks the rest when it loads it."""
    sealed = Path(version.path) / manifest.NAME
    if not version.manifest_sha256:
        return Path(version.path).is_dir()
    return sealed.is_file() and manifest.sha256(sealed) == version.manifest_sha256


def replaced_head(home: Path) -> audit.Head:
    """The newest head that this home has seen, in its database or anywhere outside it."""
    seen = [audit.Head(a.seq, a.hash) for a in audit.anchors(home)]
    with suppress(IntegrityError, OSError):
        seen.append(head_of(home / FILE_NAME))
    return max(seen, key=lambda head: head.seq, default=audit.Head(0, audit.GENESIS))


def swap(home: Path) -> Path | None:
    """Put the staged database in place by one rename; returns the folder that keeps the replaced one, if any."""
    serving, staged, kept = home / FILE_NAME, home / STAGING / FILE_NAME, None
    sync(staged)
    if serving.exists():
        fold_log(serving)
        kept = home / REPLACED / stamp()
        kept.mkdir(parents=True)
        keep_aside(serving, kept / FILE_NAME)
        for suffix in ("-wal", "-shm"):  # still there only when the file is too damaged to be opened
            with suppress(FileNotFoundError):
                serving.with_name(FILE_NAME + suffix).rename(kept / (FILE_NAME + suffix))
        sync(kept)
    shutil.rmtree(home / DERIVED, ignore_errors=True)
    staged.replace(serving)
    sync(home)
    shutil.rmtree(home / STAGING, ignore_errors=True)
    return kept


def keep_aside(serving: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the file system knows no second names."""
    try:
        target.hardlink_to(serving)
    except OSError:
        shutil.copyfile(serving, target)
        sync(target)


def head_of(file: Path) -> audit.Head:
    """The head of the audit log in a database file; number 0 in one that is older than the log."""
    if not file.is_file():
        raise IntegrityError(f"{file} is not there.")
    if peek(file, "SELECT 1 FROM sqlite_master WHERE name = 'audit'") is None:
        return audit.Head(0, audit.GENESIS)
    row = peek(file, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    return audit.Head(row["seq"], row["hash"]) if row else audit.Head(0, audit.GENESIS)
