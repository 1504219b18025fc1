"""Is a vector index what SQLite says it must be? Asked in a process of its own: a damaged index can end the asker.

`python -m retrieval.probe HOME FOLDER` opens the index in FOLDER, compares it with the database in HOME and prints
the verdict as JSON. It never writes to the database, and knows nothing of who owns the index.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage import documents
from storage.documents import StoredVectors

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection as Rows

SECONDS = 120
"""A probe that takes longer has lost its way in the files."""
PAGE = 5000
REACH = 2000
"""Rows that a probe searches for by their own vector, spread over all."""
SAME = 1e-3
"""Cosine distance, or difference of a coordinate, below which two vectors count as the same."""


@dataclass(frozen=True)
class Health:
    """Whether the index can be trusted, and why not."""

    ok: bool
    detail: str


HEALTHY = Health(True, "healthy")


def run(home: Path, folder: Path) -> Health:
    """The verdict on an index that no thread of this process has open; dying of it is a verdict too."""
    command = [sys.executable, "-m", "retrieval.probe", str(home.resolve()), str(folder.resolve())]
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Health(False, f"its check did not end within {SECONDS} seconds")
    if done.returncode < 0:
        return Health(False, f"its check died of {signal.Signals(-done.returncode).name}")
    try:
        return Health(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, TypeError, ValueError):
        return Health(False, f"its check failed: {' '.join(done.stderr.splitlines()[-1:])}")


def compare(rows: "Rows", stored: StoredVectors, waiting: Collection[int], *, reach: int) -> Health:
    """Compare ids, scopes and vectors with SQLite's, but for rows that wait in the outbox; then search for some."""
    place = {int(i): at for at, i in enumerate(stored.ids)}
    seen: set[int] = set()
    page = 0
    while len(ids := (found := read(rows, page))["ids"]):
        here = [(int(i), at) for at, i in enumerate(ids) if int(i) not in waiting]
        seen.update(i for i, _ in here)
        if not seen <= place.keys():
            return Health(False, "it holds ids that are not in SQLite")
        theirs, ours = [at for _, at in here], [place[i] for i, _ in here]
        if [found["metadatas"][at]["scope"] for at in theirs] != stored.scopes[ours].tolist():
            return Health(False, "its scopes differ from those in SQLite")
        if here and not np.allclose(np.asarray(found["embeddings"])[theirs], stored.matrix[ours], atol=SAME):
            return Health(False, "its vectors differ from those in SQLite")
        page += 1
    if seen != place.keys() - set(waiting):
        return Health(False, "it lacks ids that are in SQLite")
    return reached(rows, stored, sorted(place[i] for i in seen), reach)


def read(rows: "Rows", page: int) -> Any:
    """One page of everything the index holds."""
    return rows.get(limit=PAGE, offset=page * PAGE, include=["embeddings", "metadatas"])


def reached(rows: "Rows", stored: StoredVectors, places: Sequence[int], reach: int) -> Health:
    """Whether the rows at some of these places are found by their own vector."""
    chosen = list(places[:: max(1, len(places) // reach)])
    if not chosen:
        return HEALTHY
    distances = rows.query(stored.matrix[chosen], n_results=1, include=["distances"])["distances"] or []
    lost = sum(not found or found[0] >= SAME for found in distances)
    return Health(False, f"{lost} of {len(chosen)} rows do not find themselves") if lost else HEALTHY


def main(home: Path, folder: Path) -> Health:
    """Open the index and compare it."""
    from retrieval import index
    from storage.database import Database

    database = Database(home)
    rows = index.connect(folder).get_collection(index.NAME, embedding_function=None)
    if rows.metadata != index.pins(database):
        return Health(False, "it was built for another embedder or in another way")
    waiting = {row.passage_id for row in documents.pending(database, documents.backlog(database))}
    return compare(rows, documents.all_vectors(database), waiting, reach=REACH)


if __name__ == "__main__":
    verdict = main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(json.dumps(asdict(verdict)) + "\n")
