"""Everything that was taught, as files that other programs read.

    corrections.jsonl      every correction with its state, people and wordings
    messages.jsonl         approved ones as chats: {"messages": [{"role", "content"}, ...]}
    instructions.jsonl     the same as {"instruction", "input", "output"}
    snapshots/VERSION.*    the corrections that each model version was trained on, in both forms

Training files hold rows of scope `workspace` only, as training itself does, in every wording that is stored today, also
those that later nights added. What a night trained from word for word, with its questions that are not to be known, is
not kept; `nightshift dataset` writes it for the night to come. It knows nothing of prompts or tokens.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storage import corrections, registry
from storage.audit import ERASED
from storage.database import Database
from storage.domain import WORKSPACE, Correction, Status, Wording
from storage.errors import OutOfSpaceError, UserError

ASKED_BY = ("taught", "generated", "asked")
"""Kinds of wordings that ask what the correction answers."""


def write(database: Database, folder: Path) -> dict[str, int]:
    """Write all files into a new or empty folder; returns the number of lines by file.

    Raises UserError when the folder holds something already, OutOfSpaceError when it cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; name a new folder.")
        (folder / "snapshots").mkdir(parents=True, exist_ok=True)
        return {name: write_lines(folder / name, lines) for name, lines in files(database).items()}
    except OSError as error:
        raise OutOfSpaceError(f"{folder} cannot be written ({error.strerror or error}).") from error


def files(database: Database) -> dict[str, list[dict[str, Any]]]:
    """The lines of every file."""
    rows = corrections.in_status(database)
    asked = {row.id: corrections.wordings(database, row.id) for row in rows}
    approved = [row for row in rows if row.status is Status.APPROVED and row.scope == WORKSPACE]
    found = {"corrections.jsonl": [told(row, asked[row.id]) for row in rows], **training("", approved, asked)}
    for version in registry.versions(database):
        held = registry.memories(database, version.version)
        trained = [row for row in rows if row.id in held and row.scope == WORKSPACE and row.question != ERASED]
        if trained:
            found |= training(f"snapshots/{version.version}.", trained, asked)
    return found


def training(
    prefix: str, rows: Iterable[Correction], asked: dict[int, tuple[Wording, ...]]
) -> dict[str, list[dict[str, Any]]]:
    """Corrections in both training forms, one line for every wording."""
    pairs = [
        (row, text)
        for row in rows
        for text in dict.fromkeys([row.question, *(w.text for w in asked[row.id] if w.kind in ASKED_BY)])
    ]
    return {
        f"{prefix}messages.jsonl": [messages(row, text) for row, text in pairs],
        f"{prefix}instructions.jsonl": [
            {"instruction": text, "input": "", "output": row.answer, "correction_id": row.id} for row, text in pairs
        ],
    }


def messages(row: Correction, question: str) -> dict[str, Any]:
    """One wording of a correction as a chat."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": row.answer}]
    return {"messages": turns, "correction_id": row.id}


def told(row: Correction, asked: Iterable[Wording]) -> dict[str, Any]:
    """A correction with everything that is known of it."""
    return {**asdict(row), "status": row.status.value, "wordings": [{"text": w.text, "kind": w.kind} for w in asked]}


def write_lines(file: Path, lines: Iterable[dict[str, Any]]) -> int:
    """Write a JSONL file; returns its lines."""
    count = 0
    with file.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count
