"""Do addresses, commands and code survive to the character? Forty facts, through every route and into Slack.

For stored answers and pages the embedder is a bag of hashed words and the engine is never asked, so that is exact and
fast: what is measured is text on its way, not how well it is found. For memory a whole night learns the facts.
"""

import html
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bot import answer_views, desk, pipeline
from bot.confidence import Confidence, Head
from bot.generation import Engine
from bot.pipeline import Model, Tools
from bot.same_question import Comparer
from retrieval.embedder import TokenVectors
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import corrections, settings
from storage.database import Database
from storage.domain import Answer, Question

SURE = Head((), (), (), (), 20.0, 0.5, 0.5)
"""A head that trusts everything."""
CODE = re.compile(r"```\n?(.*?)\n?```|`([^`\n]+)`", re.DOTALL)
FORMATTED = re.compile(r"(?<![\w`])([*_~])(?=\S)([^\n]*?\S)\1(?![\w`])")


@dataclass(frozen=True)
class ExactFact:
    """An answer with the strings in it that a reader must be able to copy."""

    id: str
    title: str
    question: str
    answer: str
    exact: tuple[str, ...]


class WordHashes:
    """Each word is a coordinate; texts are near when they share words."""

    name = "hashes"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), 256), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = 0.01
            for word in re.findall(r"\w+", text.lower()):
                row[1 + zlib.crc32(word.encode()) % 255] += 1
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def tokens(self, text: str) -> TokenVectors:
        spans = tuple(found.span() for found in re.finditer(r"\S+", text))
        rows = self.encode([text[start:end] for start, end in spans])
        return TokenVectors(spans, rows, rows)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


def facts() -> list[ExactFact]:
    """The forty facts."""
    rows = map(json.loads, (Path(__file__).parent / "exact.jsonl").read_text(encoding="utf-8").splitlines())
    return [ExactFact(r["id"], r["title"], r["question"], r["answer"], tuple(r["exact"])) for r in rows]


def taught(home: Path) -> Tools:
    """A bot that was taught the facts and has read nothing."""
    database = Database(home)
    teach(database)
    return tools(database)


def read(home: Path, pages: Path, kind: str = ".md") -> Tools:
    """A bot that has read a page of this kind for each fact and was taught nothing."""
    pages.mkdir()
    for fact in facts():
        (pages / f"{fact.title}{kind}").write_text(PAGES[kind](fact), encoding="utf-8")
    database = Database(home)
    ingest(database, WordHashes(), [pages])
    return tools(database)


def as_markdown(fact: ExactFact) -> str:
    """The fact as a Markdown page."""
    return f"# {fact.title}\n\n## {fact.question}\n\n{fact.answer}\n"


def as_text(fact: ExactFact) -> str:
    """The fact as plain text, what is to be copied again on lines of its own."""
    return f"{fact.answer}\n\n{own_lines(fact)}\n"


def as_html(fact: ExactFact) -> str:
    """The fact as a web page, its code marked as code and again on lines of its own."""
    marked = html.escape(fact.answer, quote=False)
    marked = re.sub(r"```\w*\n(.*?)\n```", r"<pre>\1</pre>", marked, flags=re.DOTALL)
    marked = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", marked)
    lines = html.escape(own_lines(fact), quote=False).replace("\n", "<br>\n")
    title = html.escape(fact.title)
    return f"<title>{title}</title><h2>{html.escape(fact.question)}</h2><div>{marked}</div><p>{lines}</p>"


def own_lines(fact: ExactFact) -> str:
    """What is to be copied, between two commands, each on a line of its own; of a block of code nothing."""
    copied = [exact for exact in fact.exact if "\n" not in exact]
    return "\n".join(["lumen login --fresh", *copied, "lumen status --short"]) if copied else ""


PAGES: dict[str, Callable[[ExactFact], str]] = {".md": as_markdown, ".txt": as_text, ".html": as_html}
"""How a page of each kind says a fact."""


def learnt(home: Path, say: Callable[[str], None]) -> tuple[Tools, dict[str, Any]]:
    """A bot that learnt the facts in a night, on real parts; and the night's report."""
    from learning import nightly

    overrides = {"HOME": str(home), "CAP_PER_AUTHOR": "0", "FLOOD_LIMIT": "0"}
    database, values = Database(home), settings.load({}, overrides=overrides)
    teach(database)
    report = nightly.run(database, values, say=say)
    parts, _ = desk.open_tools(database, values, serving=False)
    return parts, report


def teach(database: Database) -> None:
    """Every fact as an approved correction."""
    for fact in facts():
        row = corrections.propose(database, question=fact.question, answer=fact.answer, author="U1")
        corrections.approve(database, row.id, "U2")


def tools(database: Database) -> Tools:
    """The pipeline's parts, with nothing in the weights."""
    embedder = WordHashes()
    heads = dict.fromkeys(("same", "quoted"), SURE)
    return Tools(
        embedder=embedder,
        taught=TaughtQuestions(database, embedder, Comparer(embedder)),
        searcher=Retriever(database, embedder, VectorIndex(database.home, database)),
        model=Model("base", cast(Engine, None), Confidence(heads), {}),
    )


def reply(parts: Tools, fact: ExactFact, about: str = "") -> Answer:
    """What the bot answers to the fact's own question, with the page's title before it if it is given."""
    return pipeline.answer(
        parts, Question(1, f"{about} {fact.question}".strip(), "U1", "C1", "", "2026-11-20T00:00:00+00:00")
    )


def lost(fact: ExactFact, text: str) -> list[str]:
    """The strings that do not stand in a text to the character."""
    return [exact for exact in fact.exact if bare(exact) not in text]


def bare(exact: str) -> str:
    """A code block without its fence, which Slack draws as a box."""
    return re.sub(r"\A```\w*\n|\n```\Z", "", exact)


def seen(answer: Answer) -> str:
    """The text that somebody reads in Slack: entities decoded, formatting drawn, code untouched."""
    blocks: list[dict[str, Any]] = [block for post in answer_views.answer_posts(answer) for block in post.blocks]
    texts = [str(block["text"]["text"]) for block in blocks if block["type"] == "section" and "text" in block]
    return "\n".join(html.unescape(drawn(text)) for text in texts)


def drawn(text: str) -> str:
    """Slack's mrkdwn as it is shown: marks of formatting vanish outside code."""
    out, at = "", 0
    for code in CODE.finditer(text):
        out += FORMATTED.sub(r"\2", text[at : code.start()]) + (code[1] or code[2] or "")
        at = code.end()
    return out + FORMATTED.sub(r"\2", text[at:])
