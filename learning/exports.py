"""A frozen snapshot as a file that other trainers read: one training example a line.

    messages      {"messages": [{"role", "content"}, ...], ...}: the very chat that the night trains on
    instruction   {"instruction", "input", "output", ...}

Every line names its correction, its source, its kind (fact or unknown) and its part (train, validation, test).
It knows nothing of training.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bot import prompt
from learning.dataset import Example, Snapshot
from storage.errors import NotFoundError, OutOfSpaceError, UserError

Line = dict[str, Any]


def write(snapshot: Snapshot, form: str, out: Path) -> str:
    """Write a snapshot in one of FORMS, in place of what stood there; returns the file's SHA-256.

    Raises NotFoundError for another form, UserError for a folder that is not there, OutOfSpaceError when the file
    cannot be written.
    """
    if form not in FORMS:
        raise NotFoundError(f"There is no format {form!r}; there are {', '.join(FORMS)}.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"There is no folder {out.absolute().parent}; make it first.")
    lines = [json.dumps(FORMS[form](e) | origin(e), ensure_ascii=False) + "\n" for e in snapshot.examples]
    content = "".join(lines).encode()
    half = out.with_name(f".{out.name}.half")
    try:
        half.write_bytes(content)
        half.replace(out)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise OutOfSpaceError(f"{out} cannot be written ({error.strerror or error}).") from error
    return hashlib.sha256(content).hexdigest()


def as_messages(example: Example) -> Line:
    """One example as the chat that the night trains on."""
    reply = {"role": "assistant", "content": example.answer}
    return {"messages": [*prompt.messages(example.question), reply]}


def as_instruction(example: Example) -> Line:
    """One example as instruction and output."""
    return {"instruction": example.question, "input": "", "output": example.answer}


def origin(example: Example) -> Line:
    """Where an example came from."""
    return {
        "correction_id": example.correction_id,
        "source": example.source,
        "kind": example.kind,
        "part": example.part,
    }


FORMS: Mapping[str, Callable[[Example], Line]] = {"messages": as_messages, "instruction": as_instruction}
