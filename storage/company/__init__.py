"""The demo company, Lumen Pay: its handbook, service knowledge, golden questions and proposed corrections.

It reads the files beside it. It knows nothing about databases, models or how answers are made.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Keys = tuple[tuple[str, ...], ...]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class CompanyFact:
    """One fact to teach, with strangers' wordings of its question and questions it does not answer."""

    id: str
    question: str
    answer: str
    keys: Keys
    page: str  # a file name of pages(), or "services"
    wordings: tuple[str, ...]
    near_misses: tuple[str, ...]


@dataclass(frozen=True)
class GoldenQuestion:
    """One question with its answer key, to measure with and never to teach."""

    id: str
    question: str
    keys: Keys
    page: str  # a file name of pages(), "services", or "" when no text answers it
    kind: str  # "handbook", "service" or "unknown", which has no keys


@dataclass(frozen=True)
class ProposedCorrection:
    """One correction as an employee proposes it; `contradicts` names the page that is outdated, if any."""

    id: str
    question: str
    answer: str
    author: str
    source: str
    keys: Keys
    contradicts: str | None
    unseen: tuple[str, ...]
    near_misses: tuple[str, ...]


def pages() -> Path:
    """The folder of the handbook's Markdown pages."""
    return HERE / "pages"


def golden() -> tuple[GoldenQuestion, ...]:
    """The golden set, in file order."""
    return tuple(
        GoldenQuestion(row["id"], row["question"], _keys(row), row["page"], row["kind"])
        for row in _rows("golden.jsonl")
    )


def corrections() -> tuple[ProposedCorrection, ...]:
    """The corrections that the demo's employees propose, in file order."""
    return tuple(
        ProposedCorrection(
            id=row["id"],
            question=row["question"],
            answer=row["answer"],
            author=row["author"],
            source=row["source"],
            keys=_keys(row),
            contradicts=row["contradicts"],
            unseen=tuple(row["unseen"]),
            near_misses=tuple(row["near_miss"]),
        )
        for row in _rows("corrections.jsonl")
    )


def facts() -> tuple[CompanyFact, ...]:
    """The facts of the handbook, then those of the three services."""
    return tuple(_fact(row) for name in ("handbook_facts.jsonl", "services.jsonl") for row in _rows(name))


def near_topic() -> tuple[str, ...]:
    """Questions that sound like the company's own and that no page answers, to fit the confidence with."""
    return tuple(str(row["question"]) for row in _rows("near_topic.jsonl"))


def answer_matches(answer: str, keys: Sequence[Sequence[str]]) -> bool:
    """Whether every group of keys has an alternative in the answer; no groups at all never match.

    Letter case and line breaks do not count. A number is a whole one: "5 days" is not in "15 days".
    """
    text = _plain(answer)
    return bool(keys) and all(any(_contains(text, _plain(key)) for key in group) for group in keys)


def _contains(text: str, key: str) -> bool:
    before = r"(?<!\d)(?<!\d[.,])" if key[:1].isdigit() else ""
    after = r"(?!\d)(?![.,]\d)" if key[-1:].isdigit() else ""
    return re.search(before + re.escape(key) + after, text) is not None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _fact(row: dict[str, Any]) -> CompanyFact:
    return CompanyFact(
        id=row["id"],
        question=row["question"],
        answer=row["answer"],
        keys=_keys(row),
        page=row.get("page", "services"),
        wordings=tuple(row["wordings"]),
        near_misses=tuple(row["near_miss"]),
    )


def _keys(row: dict[str, Any]) -> Keys:
    return tuple(tuple(group) for group in row["keys"])


def _rows(name: str) -> list[dict[str, Any]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]
