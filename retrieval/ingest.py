"""Files in, passages stored: incremental, file by file, with one report.

A folder is mirrored: new and changed files go in, files that are gone go out, unchanged ones are not touched,
and one that cannot be read is named while the rest goes on. A path where nothing is any more goes out too.
A file is open to the workspace or kept to channels, never both: giving it to a channel takes it from the workspace,
and only the file itself, named, opens it again, not its folder. It knows nothing of Chroma: the outbox tells it.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval import chunker, loaders
from retrieval.chunker import Piece
from retrieval.embedder import Encoder
from retrieval.loaders import LoadedDocument
from storage import documents, private
from storage.database import Database
from storage.documents import NewDocument, NewPassage
from storage.domain import WORKSPACE
from storage.errors import NotFoundError, UserError

log = logging.getLogger(__name__)

TOGETHER = 512
"""Passages read, embedded and stored in one go: enough to sort by length, few enough to lose little when stopped."""
MISSED = frozenset((".doc", ".odt", ".pptx", ".rtf", ".xlsx"))
"""Kinds that somebody would look for in vain and that are reported; pictures and the like are passed by."""

Rivals = Mapping[str, Collection[str]]
"""By path, the scopes that may not hold a file together with the scope that is ingested for."""
Progress = Callable[[int, int], None]
"""Called with files done and files in all, or with passages when another model embeds all of them again."""


@dataclass(frozen=True)
class Failure:
    """A file that did not go in, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class IngestResult:
    """What one run did: documents and passages written, files left alone, copies gone, files that failed."""

    documents: int
    passages: int
    unchanged: int
    removed: int
    failed: tuple[Failure, ...]


@dataclass(frozen=True)
class Prepared:
    """A document that waits for its vectors."""

    document: NewDocument
    pieces: tuple[Piece, ...]

    @property
    def searchable(self) -> list[str]:
        """What is embedded: each passage under `title > heading`."""
        return [documents.searchable(self.document.title, p.heading, p.text) for p in self.pieces]


def quietly(done: int, total: int) -> None:
    """A progress that nobody watches."""


def ingest(
    database: Database,
    embedder: Encoder,
    paths: Sequence[Path],
    scope: str = WORKSPACE,
    progress: Progress = quietly,
) -> IngestResult:
    """Bring a scope's documents in line with files and folders.

    Raises NotFoundError for a path where nothing is and of which the scope holds nothing.
    """
    known, rivals = documents.hashes(database, scope), documents.rivals(database, scope)
    roots = [place(path) for path in paths]
    for path, root in zip(paths, roots, strict=True):
        if not path.exists() and not any(Path(stored).is_relative_to(root) for stored in known):
            raise NotFoundError(f"{path} does not exist, and nothing of it is stored for {scope}.")
    files = list(dict.fromkeys(file for root in roots for file in files_of(root)))
    refresh_vectors(database, embedder, progress)
    failed = list(kept_private(files, roots, rivals)) if scope == WORKSPACE else []
    closed = {failure.path for failure in failed}
    wanted = [file for file in files if str(file) not in closed]
    prepared = prepare(counted(wanted, progress), known, scope, embedder, failed)
    number, written = store(database, embedder, prepared, rivals, progress)
    progress(len(wanted), len(wanted))
    gone = [(stored, scope) for stored in gone_from(known, roots, wanted)]
    gone += outdone(wanted, scope, rivals, failed)
    for stored, held in gone:
        documents.remove(database, stored, held)
    unchanged = len(files) - number - len(failed)
    return IngestResult(number, written, unchanged, len(gone), tuple(failed))


def place(path: Path) -> Path:
    """Where a path leads, whether or not anything is there."""
    return Path(os.path.realpath(path))  # Path.resolve would raise for links that run in a circle


def files_of(root: Path) -> Iterator[Path]:
    """The file itself, or the files below a folder that can be read or would be missed; sorted, resolved.

    Hidden files, and links that lead out of the folder, are passed by.
    """
    if not root.is_dir():
        if root.exists():
            yield root
        return
    wanted = MISSED | loaders.KINDS
    for file in sorted(root.rglob("*")):
        visible = not any(part.startswith(".") for part in file.relative_to(root).parts)
        if visible and file.suffix.lower() in wanted and file.is_file() and file.resolve().is_relative_to(root):
            yield file.resolve()


def kept_private(files: Iterable[Path], roots: Collection[Path], rivals: Rivals) -> Iterator[Failure]:
    """The files that a run for the workspace leaves out: channels hold them, and only their folder was named."""
    for file in files:
        if file.as_posix() in rivals and file not in roots:
            channels = ", ".join(rivals[file.as_posix()])
            reason = f"{file.name} is kept to {channels}; to open it to everybody, name the file, not its folder."
            log.warning("Not ingested: %s", reason)
            yield Failure(str(file), reason)


def gone_from(known: Iterable[str], roots: Collection[Path], wanted: Iterable[Path]) -> Iterator[str]:
    """The stored paths at or under one of the roots that are not among the wanted files any more."""
    wanted = set(wanted)
    for stored in map(Path, known):
        if stored not in wanted and any(stored.is_relative_to(root) for root in roots):
            yield stored.as_posix()


def outdone(wanted: Iterable[Path], scope: str, rivals: Rivals, failed: Iterable[Failure]) -> Iterator[tuple[str, str]]:
    """Path and scope of the copies that give way to this run, those gone with their replacement among them.

    A file that cannot be read leaves the workspace all the same, but no channel: neither opens anything to anybody.
    """
    unread = {failure.path for failure in failed}
    for file in wanted:
        if scope != WORKSPACE or str(file) not in unread:
            for held in rivals.get(file.as_posix(), ()):
                yield file.as_posix(), held


def counted(files: Sequence[Path], progress: Progress) -> Iterator[Path]:
    """The files one by one, each as the ones before it are done."""
    for number, file in enumerate(files):
        progress(number, len(files))
        yield file


def prepare(
    files: Iterable[Path], known: dict[str, str], scope: str, embedder: Encoder, failed: list[Failure]
) -> Iterator[Prepared]:
    """Load and cut what is new or changed; what cannot be read is added to `failed`."""
    for file in files:
        try:
            content = loaders.read(file)
            digest = fingerprint(content)
            if known.get(file.as_posix()) != digest:
                yield cut(file, content, digest, scope, embedder)
        except UserError as error:
            log.warning("Not ingested: %s", error)
            failed.append(Failure(str(file), str(error)))


def cut(file: Path, content: bytes, digest: str, scope: str, embedder: Encoder) -> Prepared:
    """The passages of one file. Raises UserError when it holds none."""
    loaded = without_secrets(loaders.parse(file, content))
    title, pieces = chunker.split(loaded, embedder.count_tokens)
    return Prepared(NewDocument(file.as_posix(), scope, title, loaded.url, digest), pieces)


def without_secrets(loaded: LoadedDocument) -> LoadedDocument:
    """A page without the keys and tokens that are unmistakable; what was published on purpose is not guessed at."""
    sections = tuple(replace(s, text=private.redact_secrets(s.text, certain=True)) for s in loaded.sections)
    return replace(loaded, sections=sections)


def fingerprint(content: bytes) -> str:
    """Stands for the content of a file and for the way it is cut."""
    return hashlib.sha256(f"{chunker.VERSION}\n".encode() + content).hexdigest()


def store(
    database: Database, embedder: Encoder, prepared: Iterable[Prepared], rivals: Rivals, progress: Progress
) -> tuple[int, int]:
    """Embed and write, one transaction a document, its rivals with it; returns how many documents and passages.

    What is prepared is taken up group by group, so that a run that is stopped keeps what it has stored.
    """
    count, passages = 0, 0
    for group in grouped(prepared):
        vectors = embedder.encode([text for one in group for text in one.searchable])
        settle(database, embedder, vectors.shape[1], progress)
        start = 0
        for one in group:
            rows = vectors[start : start + len(one.pieces)]
            start += len(one.pieces)
            new = [NewPassage(p.heading, p.text, p.section, row) for p, row in zip(one.pieces, rows, strict=True)]
            documents.replace(database, one.document, new, leaving=rivals.get(one.document.path, ()))
        count += len(group)
        passages += start
    return count, passages


def grouped(prepared: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    """Whole documents in groups of about TOGETHER passages, each as soon as it is full."""
    group: list[Prepared] = []
    size = 0
    for one in prepared:
        group.append(one)
        size += len(one.pieces)
        if size >= TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


def settle(database: Database, embedder: Encoder, dimension: int, progress: Progress) -> None:
    """Record whose vectors are about to be written; what is stored in another length is embedded anew before."""
    if documents.embedder(database) != (embedder.name, dimension):
        embed_again(database, embedder, progress)
        documents.set_embedder(database, embedder.name, dimension)


def refresh_vectors(database: Database, embedder: Encoder, progress: Progress) -> None:
    """Embed everything anew, if what is stored came from another model or differs in length."""
    name, dimension = documents.embedder(database)
    if name and (name != embedder.name or lengths(database) - {dimension}):
        log.info("The passages were embedded by %s; embedding them again with %s", name, embedder.name)
        embed_again(database, embedder, progress)


def lengths(database: Database) -> set[int]:
    """The lengths of the stored vectors: one, unless models that share a name were mixed."""
    rows = database.rows("SELECT DISTINCT length(vector) AS bytes FROM passages")
    return {row["bytes"] // np.dtype(np.float32).itemsize for row in rows}


def embed_again(database: Database, embedder: Encoder, progress: Progress) -> None:
    """Give every stored passage a vector of this model."""
    waiting = documents.all_searchable(database)
    made: list[tuple[int, documents.Vector]] = []
    for start in range(0, len(waiting), TOGETHER):
        part = waiting[start : start + TOGETHER]
        vectors = embedder.encode([titled for _, titled in part])
        made += [(passage_id, row) for (passage_id, _), row in zip(part, vectors, strict=True)]
        progress(len(made), len(waiting))
    documents.reembed(database, embedder.name, made)
