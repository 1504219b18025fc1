"""The vector index: the only door of chromadb.

It is derived from SQLite, where every vector is kept too, and may be thrown away at any time. One process
owns it (two would destroy each other's vectors without an error). Everybody else, and everybody while the
index is missing or not to be trusted, gets the same answer from an exact search over SQLite's vectors.

The sync threshold is so high that Chroma never writes its graph files, which are not crash-safe: on opening
it builds the graph from its own log instead, about a second for 5,000 rows. It knows nothing of text.
"""

import logging
import secrets
import shutil
import threading
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from storage import documents
from storage.database import Database, file_lock
from storage.documents import StoredVectors, Vector

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
"""Rows that a check searches for by their own vector."""
SAME = 1e-3
"""Cosine distance below which two vectors count as the same row."""


@dataclass(frozen=True)
class Health:
    """Whether the index can be trusted, and why not."""

    ok: bool
    detail: str


class VectorIndex:
    """Nearest passages by vector; threads may share it, processes may not own it together."""

    def __init__(self, home: Path, database: Database) -> None:
        """Nothing is opened yet: until `try_open` succeeds every search is exact."""
        self._database = database
        self._lock_file = home / "index.lock"
        self._folder = home / "index"
        self._guard = threading.RLock()
        self._owner: ExitStack | None = None
        self._client: Client | None = None
        self._rows: Rows | None = None
        self._drained = -1
        self._exact: StoredVectors | None = None

    @property
    def owned(self) -> bool:
        """Whether this object holds the index, so that `drain` is its duty."""
        return self._owner is not None

    def try_open(self) -> bool:
        """Become the owner, and open or rebuild the index; false when another process owns it."""
        with self._guard:
            if self._owner is not None:
                return True
            owner = ExitStack()
            try:
                owner.enter_context(file_lock(self._lock_file, wait=False))
            except BlockingIOError:
                return False
            self._owner = owner
            self._open_or_rebuild()
            return True

    def close(self) -> None:
        """Give the index up; searches are exact again."""
        with self._guard:
            self._forget()
            if self._owner is not None:
                self._owner.close()
                self._owner = None

    def search(self, vector: Vector, k: int, scopes: Collection[str]) -> list[tuple[int, float]]:
        """The k nearest (passage id, cosine) of the scopes, nearest first."""
        with self._guard:
            try:
                if self._ready():
                    return self._nearest(vector, k, scopes)
            except Exception:  # as in `drain`; none may cost an answer
                log.exception("The vector index failed; searching exactly until the next drain rebuilds it")
                self._forget()
            return self._exactly(vector, k, scopes)

    def drain(self) -> int:
        """Apply the outbox to the index; returns how many rows. Does nothing for who is not the owner."""
        with self._guard:
            if self._owner is None:
                return 0
            if self._rows is None or self._rows.metadata != pins(self._database):
                return self.rebuild()
            try:
                return self._drain()
            except Exception:  # Chroma raises many kinds, from Rust too; SQLite can replace whatever broke
                log.exception("The outbox cannot be applied to the vector index, which is rebuilt")
                return self.rebuild()

    def check(self) -> Health:
        """Compare the index with SQLite (after a drain) and let sampled rows find themselves."""
        with self._guard:
            if self._rows is None:
                return Health(False, "not open in this process; searches are exact")
            stored = documents.all_vectors(self._database)
            if self._ids() != set(stored.ids.tolist()):
                return Health(False, "its ids differ from those in SQLite")
            step = max(1, len(stored.ids) // SAMPLE)
            lost = sum(not self._finds(row) for row in stored.matrix[::step])
            return Health(lost == 0, f"{lost} sampled rows do not find themselves" if lost else "healthy")

    def rebuild(self) -> int:
        """Build the index anew from SQLite in a folder of its own, then switch to it; returns its rows.

        Does nothing for who is not the owner.
        """
        with self._guard:
            if self._owner is None:
                return 0
            self._forget()
            seen, up_to = documents.revision(self._database), documents.last_pending(self._database)
            stored = documents.all_vectors(self._database)
            folder = self._folder / secrets.token_hex(8)
            self._connect(folder, create=True)
            for start in range(0, len(stored.ids), BATCH):
                self._put(stored, slice(start, start + BATCH))
            self._point_at(folder)
            documents.applied(self._database, up_to)
            self._drained = seen
            return len(stored.ids)

    def _open_or_rebuild(self) -> None:
        # A damaged index can end the whole process: the marker tells the next start that this one died here.
        self._folder.mkdir(exist_ok=True)
        marker = self._folder / "opening"
        survived = not marker.exists()
        marker.touch()
        if not (survived and self._opens()):
            self.rebuild()
        marker.unlink()

    def _opens(self) -> bool:
        folder = self._current()
        if folder is None:
            return False
        try:
            self._connect(folder, create=False)
            self.drain()
            health = self.check()
        except Exception:  # whatever is wrong with it, SQLite can replace it
            log.exception("The vector index does not open and is rebuilt")
            return False
        if not health.ok:
            log.warning("The vector index is rebuilt: %s", health.detail)
        return health.ok

    def _connect(self, folder: Path, *, create: bool) -> None:
        import chromadb
        from chromadb.config import Settings

        settings = Settings(anonymized_telemetry=False, allow_reset=False)
        self._client = cast("Client", chromadb.PersistentClient(str(folder), settings=settings))
        if create:
            wanted = pins(self._database)
            self._rows = self._client.create_collection(NAME, embedding_function=None, metadata=wanted)
        else:
            self._rows = self._client.get_collection(NAME, embedding_function=None)

    def _forget(self) -> None:
        client, self._client, self._rows = self._client, None, None
        if client is not None:
            client.close()

    def _current(self) -> Path | None:
        pointer = self._folder / "current"
        folder = self._folder / pointer.read_text(encoding="ascii").strip() if pointer.is_file() else None
        return folder if folder is not None and folder.is_dir() else None

    def _point_at(self, folder: Path) -> None:
        fresh = self._folder / "current.new"
        fresh.write_text(folder.name, encoding="ascii")
        fresh.replace(self._folder / "current")
        for old in self._folder.iterdir():
            if old.is_dir() and old != folder:
                shutil.rmtree(old, ignore_errors=True)

    def _ready(self) -> bool:
        """Whether the index knows what SQLite knows; applies a short backlog."""
        if self._rows is None:
            return False
        if documents.revision(self._database) == self._drained:
            return True
        if documents.backlog(self._database) > DRAIN_WHILE_ASKED:
            return False
        self.drain()
        return True

    def _drain(self) -> int:
        total = 0
        seen = documents.revision(self._database)
        while batch := documents.pending(self._database, BATCH):
            self._apply({row.passage_id: row.operation for row in batch})
            documents.applied(self._database, batch[-1].id)
            total += len(batch)
        self._drained = seen
        return total

    def _apply(self, fate: dict[int, str]) -> None:
        stored = documents.vectors(self._database, [i for i, operation in fate.items() if operation == "add"])
        gone = sorted(set(fate) - set(stored.ids.tolist()))
        if gone:
            self._open_rows.delete(ids=[str(i) for i in gone])
        if len(stored.ids):
            self._put(stored, slice(None))

    def _put(self, stored: StoredVectors, part: slice) -> None:
        self._open_rows.upsert(
            ids=[str(i) for i in stored.ids[part]],
            embeddings=stored.matrix[part],
            metadatas=[{"scope": str(scope)} for scope in stored.scopes[part]],
        )

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

    def _ids(self) -> set[int]:
        found: set[int] = set()
        while page := self._open_rows.get(limit=5 * BATCH, offset=len(found), include=[])["ids"]:
            found.update(int(i) for i in page)
        return found

    def _finds(self, vector: Vector) -> bool:
        result = self._open_rows.query(vector[None, :], n_results=1, include=["distances"])
        return bool(result["distances"] and result["distances"][0] and result["distances"][0][0] < SAME)


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
