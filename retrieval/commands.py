"""The commands `ingest` and `search`.

They turn arguments into calls, and results into text or JSON. Models and index are imported when one runs.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storage.cli import Context, batch_options, check_batch, check_scope, emit, json_option, run_batch
from storage.database import Database
from storage.domain import WORKSPACE, Passage
from storage.errors import UserError

if TYPE_CHECKING:
    from retrieval.ingest import IngestResult, Progress
    from retrieval.retriever import Retriever

LOG_EVERY = 5.0
"""Seconds between two progress lines in a log."""
MOST_RESULTS = 100


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--scope", default=WORKSPACE, show_default=True, help="workspace, or the channel id that may read it."
)
@json_option
@click.pass_obj
def ingest(context: Context, paths: tuple[Path, ...], scope: str, as_json: bool) -> None:
    """Index files and folders; what did not change is left alone, what is gone is removed."""
    from retrieval.embedder import Embedder
    from retrieval.ingest import ingest as run

    check_scope(scope)
    database = context.database()
    with progress_shown("Ingesting") as progress:
        result = run(database, Embedder(context.settings.text("EMBEDDER")), paths, scope, progress)
    if result.failed and not (result.documents or result.unchanged or result.removed):
        raise UserError(first_failure(result))
    update_index(context.home, database)
    emit(as_json, as_payload(result), as_text(result))


@click.command()
@click.argument("query", required=False)
@click.option(
    "-k", "k", default=5, show_default=True, type=click.IntRange(1, MOST_RESULTS), help="How many passages."
)
@click.option("--channel", default="", help="Search also what only this channel may read.")
@batch_options
@json_option
@click.pass_obj
def search(
    context: Context,
    query: str | None,
    k: int,
    channel: str,
    batch: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show what retrieval finds for a question."""
    from retrieval.embedder import Embedder
    from retrieval.index import VectorIndex
    from retrieval.retriever import Retriever

    check_batch(batch, out)
    longest = context.settings.integer("MAX_QUESTION_CHARS")
    if batch is None:
        query = checked(query, longest)
    database = context.database()
    embedder = Embedder(context.settings.text("EMBEDDER"))
    retriever = Retriever(database, embedder, VectorIndex(context.home, database))
    if batch is None:
        found = find(retriever, query or "", k, channel)
        emit(as_json, {"passages": [described(passage) for passage in found]}, listed(found))
        return

    def work(row: dict[str, Any]) -> dict[str, Any]:
        question = checked(row.get("question"), longest)
        found = find(retriever, question, k, str(row.get("channel") or channel))
        return {"passages": [described(passage) for passage in found]}

    lines = run_batch(batch, out, work)
    emit(as_json, {"lines": lines, "out": str(out)}, f"{lines} lines written to {out}.")


def checked(question: object, longest: int) -> str:
    """The question. Raises UserError when it is empty, too long, or no text."""
    if not isinstance(question, str) or not question.strip():
        raise UserError("The question is empty; give some words to search for.")
    if len(question) > longest:
        raise UserError(f"The question has {len(question)} characters; at most {longest} are accepted.")
    return question


def find(retriever: "Retriever", question: str, k: int, channel: str) -> list[Passage]:
    """What the workspace, and the channel if one is named, may read."""
    return retriever.search(question, k, (WORKSPACE, channel) if channel else (WORKSPACE,))


def update_index(home: Path, database: Database) -> None:
    """Bring the vector index up to date, unless a running bot owns it and does so itself."""
    from retrieval.index import VectorIndex

    index = VectorIndex(home, database)
    if not index.try_open():
        click.echo("The running bot owns the vector index and takes the changes up itself.", err=True)
        return
    try:
        index.drain()
    finally:
        index.close()


@contextmanager
def progress_shown(label: str) -> "Iterator[Progress]":
    """A bar on a terminal, else a plain line every few seconds; both on stderr."""
    if not sys.stderr.isatty():
        yield plain_lines(label)
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield advance


def plain_lines(label: str) -> "Progress":
    """Progress for a log; one thing alone is no progress."""
    last = [time.monotonic()]

    def advance(done: int, total: int) -> None:
        if total > 1 and (done == total or time.monotonic() - last[0] >= LOG_EVERY):
            last[0] = time.monotonic()
            click.echo(f"{label}: {done} of {total}", err=True)

    return advance


def as_payload(result: "IngestResult") -> dict[str, Any]:
    """The JSON fields of `ingest`."""
    return {
        "documents": result.documents,
        "passages": result.passages,
        "unchanged": result.unchanged,
        "removed": result.removed,
        "failed": [{"path": failure.path, "reason": failure.reason} for failure in result.failed],
    }


def as_text(result: "IngestResult") -> str:
    """The same for people."""
    lines = [
        f"{result.documents} documents with {result.passages} passages indexed, "
        f"{result.unchanged} unchanged, {result.removed} removed, {len(result.failed)} failed."
    ]
    return "\n".join(lines + [f"  {failure.reason}" for failure in result.failed])


def first_failure(result: "IngestResult") -> str:
    """One sentence when nothing could be ingested."""
    others = len(result.failed) - 1
    return result.failed[0].reason + (f" {others} other files failed too." if others else "")


def described(passage: Passage) -> dict[str, Any]:
    """The JSON fields of a found passage."""
    return {
        "document": passage.document,
        "heading": passage.heading,
        "text": passage.text,
        "score": round(passage.score, 6),
        "url": passage.url,
    }


def listed(found: list[Passage]) -> str:
    """Found passages for people."""
    if not found:
        return "Nothing found."
    where = (f"{p.document} > {p.heading}" if p.heading else p.document for p in found)
    return "\n\n".join(f"[{p.score:.2f}] {place}\n{p.text}" for p, place in zip(found, where, strict=True))
