"""The vector index: the only door of chromadb.

It is derived from SQLite, where every vector is kept too, and may be thrown away at any time. One process
owns it (two would destroy each other's vectors without an error). Everybody else, and everybody while the
index is missing, being built or not to be trusted, gets the same answer from an exact search over SQLite's vectors.

The sync threshold is so high that Chroma never writes its graph files, which are not crash-safe: on opening
it builds the graph from its own log instead, about a second for 5,000 rows. Before it is opened, and after changes
were applied, `probe` looks at it from a process of its own. No look can rule out that a search ends the process all
the same (a segmentation fault); what `crashes` notes lets the next start rebuild it, or do without it for good.
It knows nothing of text.
"""

import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from retrieval import probe
from retrieval.crashes import SEARCHING, Crashes
from retrieval.probe import Health
from storage import documents
from storage.database import Database, file_lock
from storage.documents import StoredVectors, Vector
from storage.errors import IntegrityError

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection as Rows

log = logging.getLogger(__name__)

NAME = "passages"
BATCH = 1000
NEVER = 1_000_000_000
DRAIN_WHILE_ASKED = 256
"""Outbox rows that a search applies by itself; a longer backlog waits for `drain` and the search is exact."""
SAMPLE = 32
"""Rows that a check in this process searches for by their own vector."""
REST_SECONDS = 2.0
"""Between two looks of the keeper, so that a long ingest is not probed without end."""
RETRY_SECONDS = 60.0
"""After a build that failed (a full disk), until the next one."""
FOLDER_NAME = re.compile("[0-9a-f]{16}")


class VectorIndex:
    """Nearest passages by vector; threads may share it, processes may not own it together.

    `_guard` is held for moments, by whoever uses the open index; `_building` for as long as a build takes, by nobody
    who holds `_guard`. While an index is built there is none open, so that searches are exact and do not wait.
    """

    def __init__(self, home: Path, database: Database) -> None:
        """Nothing is opened yet: until `try_open` succeeds every search is exact."""
        self._home = home
        self._database = database
        self._lock_file = home / "index.lock"
        self._folder = home / "index"
        self._crashes = Crashes(self._folder)
        self._guard = threading.RLock()
        self._building = threading.Lock()
        self._owner: ExitStack | None = None
        self._client: Client | None = None
        self._rows: Rows | None = None
        self._drained = -1
        self._exact: StoredVectors | None = None
        self._keeper: threading.Thread | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._not_before = 0.0

    @property
    def crashed(self) -> bool:
        """Whether the owner before this one died while Chroma was at work; known once `try_open` succeeded."""
        return self._crashes.before

    @property
    def died_searching(self) -> bool:
        """Whether it died in a search, when nothing else of the process was at work; upkeep runs beside other work."""
        return self._crashes.searching

    @property
    def owned(self) -> bool:
        """Whether this object holds the index, so that `drain` is its duty."""
        return self._owner is not None

    def try_open(self, *, background: bool = False) -> bool:
        """Become the owner, and open or rebuild the index; false when another process owns it.

        In the background a thread opens the index, probes it after each drain and rebuilds what is damaged.
        """
        with self._guard:
            if self._owner is not None:
                return True
            owner = ExitStack()
            try:
                owner.enter_context(file_lock(self._lock_file, wait=False))
            except BlockingIOError:
                return False
            self._owner = owner
        self._crashes.look_back()
        if background:
            self._closing.clear()
            self._keeper = threading.Thread(target=self._keep, name="index", daemon=True)
            self._keeper.start()
        else:
            self._open_or_rebuild()
        return True

    def close(self) -> None:
        """Give the index up; searches are exact again."""
        self._closing.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        with self._guard:
            if self._rows is not None:
                self._crashes.forgive()
            self._forget()
            if self._owner is not None:
                self._owner.close()
                self._owner = None

    def search(self, vector: Vector, k: int, scopes: Collection[str]) -> list[tuple[int, float]]:
        """The k nearest (passage id, cosine) of the scopes, nearest first."""
        if self._rows is not None and not self._knows_all() and self._backlog_is_short():
            self.drain()
        with self._guard:
            try:
                if self._rows is not None and self._knows_all():
                    with self._crashes.inside(SEARCHING):
                        return self._nearest(vector, k, scopes)
            except Exception:  # as in `drain`; none may cost an answer
                log.exception("The vector index failed; searching exactly until the next drain rebuilds it")
                self._forget()
            return self._exactly(vector, k, scopes)

    def drain(self) -> int:
        """Apply the outbox to the index; returns how many rows. Does nothing for who is not the owner.

        A long backlog is left to the keeper where there is one, and so is an index that it has not opened yet.
        """
        if self._owner is None or self._crashes.too_many:
            return 0
        kept = self._keeper not in (None, threading.current_thread())
        if kept and (self._rows is None or not self._backlog_is_short()):
            self._wake.set()
            return 0
        try:
            applied = self._drain()
        except Exception:  # Chroma raises many kinds, from Rust too; SQLite can replace whatever broke
            log.exception("The outbox cannot be applied to the vector index, which is rebuilt")
            applied = None
        if applied is None:
            with self._guard:
                self._forget()
            return self._mend()
        if applied:
            self._wake.set()
        return applied

    def check(self) -> Health:
        """Compare the open index with SQLite (after a drain) and let sampled rows find themselves."""
        with self._guard:
            if self._rows is None:
                return Health(False, "not open in this process; searches are exact")
            with self._crashes.inside():
                return probe.compare(self._rows, documents.all_vectors(self._database), set(), reach=SAMPLE)

    def prove(self) -> Health:
        """Look at a copy of the files from another process, then at the open index itself.

        Healthy as well when documents changed meanwhile: then nothing was learnt, and the next drain asks again.
        """
        with self._guard:
            folder, seen = self._current(), self._drained
            if self._rows is None or folder is None:
                return Health(False, "it is not open, or its folder is gone")
            copy = folder.with_name(f"{folder.name}.check")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
        found = probe.run(self._home, copy)
        shutil.rmtree(copy, ignore_errors=True)
        if seen != documents.revision(self._database):
            return Health(True, "documents changed meanwhile")
        return self.check() if found.ok else found

    def rebuild(self) -> int:
        """Build the index anew from SQLite in a folder of its own, then switch to it; returns its rows.

        Does nothing for who is not the owner. Raises whatever Chroma or the disk raises; searches are exact then.
        """
        with self._building:
            return self._rebuild()

    def _keep(self) -> None:
        """The keeper thread: open, then look after every drain."""
        self._open_or_rebuild()
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._closing.is_set():
                self._look_after()
                self._closing.wait(REST_SECONDS)
        self._database.close()

    def _look_after(self) -> None:
        try:
            self.drain()
            self._wake.clear()
            if self._rows is not None:
                health = self.prove()
                if health.ok:
                    return
                log.warning("The vector index is rebuilt: %s", health.detail)
            if time.monotonic() >= self._not_before:
                self.rebuild()
        except Exception:
            log.exception("There is no vector index for now; searches are exact")
            with self._guard:
                self._forget()

    def _mend(self) -> int:
        """Rebuild what is not open, here or by waking the keeper; a build that failed waits a while."""
        if self._keeper is not None:
            self._wake.set()
            return 0
        with self._building:
            if self._rows is not None or time.monotonic() < self._not_before:
                return 0
            return self._rebuild()

    def _rebuild(self) -> int:
        if self._owner is None or self._crashes.too_many:
            return 0
        with self._guard:
            self._forget()
        folder = self._folder / secrets.token_hex(8)
        try:
            with self._crashes.inside():
                return self._build(folder)
        except BaseException:
            self._not_before = time.monotonic() + RETRY_SECONDS
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _build(self, folder: Path) -> int:
        seen, up_to = documents.revision(self._database), documents.last_pending(self._database)
        stored = documents.all_vectors(self._database)
        client, rows = self._connect(folder, create=True)
        try:
            for start in range(0, len(stored.ids), BATCH):
                put(rows, stored, slice(start, start + BATCH))
            health = probe.compare(rows, stored, set(), reach=SAMPLE)
            if not health.ok:
                raise IntegrityError(f"The vector index came out wrong: {health.detail}.")
        except BaseException:
            client.close()
            raise
        with self._guard:
            self._point_at(folder)
            documents.applied(self._database, up_to)
            self._client, self._rows, self._drained = client, rows, seen
        return len(stored.ids)

    def _open_or_rebuild(self) -> None:
        try:
            if not self._folder.is_dir():
                self._folder.unlink(missing_ok=True)
            self._folder.mkdir(exist_ok=True)
            if self._crashes.too_many:
                log.error("It ended the process too often: searches are exact until %s is deleted", self._folder)
                return
            if self._crashes.before or not self._opens():
                self.rebuild()
            self.drain()
        except Exception:
            log.exception("There is no vector index for now; searches are exact")

    def _opens(self) -> bool:
        try:
            folder = self._current()
            if folder is None:
                return False
            health = probe.run(self._home, folder)
            if health.ok:
                with self._crashes.inside():
                    self._open(folder)
        except Exception:  # whatever is wrong with it, SQLite can replace it
            log.exception("The vector index does not open and is rebuilt")
            return False
        if not health.ok:
            log.warning("The vector index is rebuilt: %s", health.detail)
        return health.ok

    def _open(self, folder: Path) -> None:
        client, rows = self._connect(folder, create=False)
        with self._guard:
            self._client = client
        rows.get(limit=1, include=["embeddings"])  # it builds its graph now, while searches are exact
        with self._guard:
            self._rows = rows

    def _connect(self, folder: Path, *, create: bool) -> "tuple[Client, Rows]":
        client = connect(folder)
        if create:
            return client, client.create_collection(NAME, embedding_function=None, metadata=pins(self._database))
        return client, client.get_collection(NAME, embedding_function=None)

    def _forget(self) -> None:
        client, self._client, self._rows = self._client, None, None
        if client is not None:
            client.close()

    def _current(self) -> Path | None:
        pointer = self._folder / "current"
        name = pointer.read_text(encoding="ascii", errors="replace").strip() if pointer.is_file() else ""
        folder = self._folder / name
        return folder if FOLDER_NAME.fullmatch(name) and folder.is_dir() else None

    def _point_at(self, folder: Path) -> None:
        fresh = self._folder / "current.new"
        fresh.write_text(folder.name, encoding="ascii")
        fresh.replace(self._folder / "current")
        for old in self._folder.iterdir():
            if old.is_dir() and old != folder:
                shutil.rmtree(old, ignore_errors=True)

    def _knows_all(self) -> bool:
        return documents.revision(self._database) == self._drained

    def _backlog_is_short(self) -> bool:
        return documents.backlog(self._database) <= DRAIN_WHILE_ASKED

    def _drain(self) -> int | None:
        """Apply the outbox batch by batch; None when the index is not open or was built for other vectors."""
        total = 0
        while True:
            with self._guard:
                if self._rows is None or self._rows.metadata != pins(self._database):
                    return None
                seen = documents.revision(self._database)
                batch = documents.pending(self._database, BATCH)
                if not batch:
                    self._drained = seen
                    return total
                with self._crashes.inside():
                    self._apply({row.passage_id: row.operation for row in batch})
                documents.applied(self._database, batch[-1].id)
                total += len(batch)

    def _apply(self, fate: dict[int, str]) -> None:
        stored = documents.vectors(self._database, [i for i, operation in fate.items() if operation == "add"])
        gone = sorted(set(fate) - set(stored.ids.tolist()))
        if gone:
            self._open_rows.delete(ids=[str(i) for i in gone])
        if len(stored.ids):
            put(self._open_rows, stored, slice(None))
            health = probe.reached(self._open_rows, stored, range(len(stored.ids)), SAMPLE)
            if not health.ok:  # files that were damaged under an open index take writes and never show them
                raise IntegrityError(f"Rows just written are not there: {health.detail}.")

    @property
    def _open_rows(self) -> "Rows":
        if self._rows is None:
            raise RuntimeError("the vector index is not open")
        return self._rows

    def _nearest(self, vector: Vector, k: int, scopes: Collection[str]) -> list[tuple[int, float]]:
        allowed: Any = {"scope": {"$in": sorted(scopes)}}
        result = self._open_rows.query(vector[None, :], n_results=k, where=allowed, include=["distances"])
        distances = result["distances"] or [[]]
        return [(int(i), 1.0 - d) for i, d in zip(result["ids"][0], distances[0], strict=True)]

    def _exactly(self, vector: Vector, k: int, scopes: Collection[str]) -> list[tuple[int, float]]:
        if self._exact is None or self._exact.revision != documents.revision(self._database):
            self._exact = documents.all_vectors(self._database)
        stored = self._exact
        allowed = np.flatnonzero(np.isin(stored.scopes, sorted(scopes)))
        if not len(allowed):
            return []
        cosines = stored.matrix[allowed] @ vector
        order = np.argsort(-cosines, kind="stable")[:k]
        return [(int(stored.ids[allowed[i]]), float(cosines[i])) for i in order]


def connect(folder: Path) -> "Client":
    """Chroma on a folder; it makes one that is not there."""
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False, allow_reset=False)
    return cast("Client", chromadb.PersistentClient(str(folder), settings=settings))


def put(rows: "Rows", stored: StoredVectors, part: slice) -> None:
    """Write some of the stored vectors into the index."""
    rows.upsert(
        ids=[str(i) for i in stored.ids[part]],
        embeddings=stored.matrix[part],
        metadatas=[{"scope": str(scope)} for scope in stored.scopes[part]],
    )


def pins(database: Database) -> dict[str, Any]:
    """What an index must have been built with: the model, its dimension, the space, and no graph files."""
    name, dimension = documents.embedder(database)
    return {
        "embedder": name,
        "dimension": dimension,
        "hnsw:space": "cosine",
        "hnsw:sync_threshold": NEVER,
        "hnsw:search_ef": 200,
        "hnsw:construction_ef": 200,
    }
