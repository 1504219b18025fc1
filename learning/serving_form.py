"""Which form the new weights serve in: the quickest one on this machine that loses nothing against fp32.

Every form is measured on the same questions in the same process: what it still recalls of the facts, what it still
reads out of passages, and how long it takes to check a draft and to write. A form that falls by more than half a
point against fp32 in either is out, however quick it is. It knows nothing of how a form works.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bot import prompt
from bot.generation import Generation, Request
from bot.generator import LocalGenerator
from storage import company

MOST_FALL = 0.005
"""Half a point: the most that a form may recall or read less than fp32."""
MOST_FACTS, MOST_READINGS, TIMED = 200, 40, 4
"""Items measured: of 200 facts one is half a point; with fewer, and of readings, not one may be lost on balance."""
READ_TOKENS = 32
WORTH = 0.95
"""A form that rounds more must take at most this share of the time of one that rounds less to be chosen over it."""
ROUNDS_LESS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Reading:
    """A question about a passage, and a check of the reply."""

    question: str
    passage: str
    holds: Callable[[str], bool]


@dataclass(frozen=True)
class Measured:
    """One form: shares recalled and read (0..1), milliseconds to check a draft and to write a token.

    The shares are None for a form that was timed alone, because it is no quicker.
    """

    form: str
    recall: float | None
    reading: float | None
    check_ms: float
    token_ms: float
    allowed: bool = True

    @property
    def answer_ms(self) -> float:
        """What it is judged by: one memory checked and a short answer written."""
        return self.check_ms + READ_TOKENS * self.token_ms


@dataclass(frozen=True)
class Choice:
    """The form that serves, and the table it was chosen from."""

    form: str
    table: tuple[Measured, ...]

    def as_json(self) -> dict[str, Any]:
        """For the manifest and the report; the manifest's `serving_form` is `form`."""
        return {"form": self.form, "table": [asdict(row) for row in self.table]}


def choose(
    folder: Path,
    facts: Sequence[tuple[str, str]],
    *,
    setting: str = "auto",
    max_tokens: int = 96,
    seconds: float = 20.0,
) -> Choice:
    """The form for a merged folder; `facts` are taught questions with answers that it memorised.

    A form that the setting names is taken unmeasured. Forms are measured from the one that rounds least; none is begun
    after half of `seconds`, and one that is too slow to be chosen is only timed.
    """
    if setting != "auto":
        return Choice(setting, ())
    began, rows = time.monotonic(), list[Measured]()
    said = [""] * MOST_READINGS
    for form in ROUNDS_LESS:
        if len(rows) < 2 or time.monotonic() - began < seconds / 2:
            most_ms = WORTH * rows[0].answer_ms if rows else math.inf
            row, said = measure(folder, form, facts[:MOST_FACTS], said, max_tokens, most_ms=most_ms)
            rows.append(row)
    judged = tuple(judge(row, rows[0]) for row in rows)
    return Choice(quickest(judged), judged)


def judge(row: Measured, exact: Measured) -> Measured:
    """Whether a form is as good as fp32, to half a point; one that was not looked at is not."""
    if row.recall is None or row.reading is None or exact.recall is None or exact.reading is None:
        return replace(row, allowed=False)
    fall = max(exact.recall - row.recall, exact.reading - row.reading)
    return replace(row, allowed=fall <= MOST_FALL + 1e-9)


def quickest(rows: Sequence[Measured]) -> str:
    """The quickest of those allowed; one that rounds more must be worth it."""
    best = rows[0]
    for row in rows[1:]:
        if row.allowed and row.answer_ms <= WORTH * best.answer_ms:
            best = row
    return best.form


def measure(
    folder: Path,
    form: str,
    facts: Sequence[tuple[str, str]],
    said: Sequence[str],
    max_tokens: int,
    *,
    most_ms: float = math.inf,
) -> tuple[Measured, list[str]]:
    """One form, loaded for this and dropped again, and what it reads; `said` is what the form before it read.

    Forms mostly write the same, so each is only asked whether it would: that takes one pass for each text. A form
    whose answers take more than `most_ms` is not asked at all.
    """
    engine, items = LocalGenerator(folder, form=form), readings()
    try:
        check, token = speeds(engine)
        timed = Measured(form, None, None, round(check, 1), round(token, 2))
        if timed.answer_ms > most_ms:
            return timed, list(said)
        learnt = [Request(prompt.messages(question), max_tokens, answer) for question, answer in facts]
        recalled = [isinstance(one, Generation) and one.confirmed == 1.0 for one in engine.many(learnt)]
        reads = [
            Request(prompt.messages(item.question, [item.passage]), READ_TOKENS, draft or None)
            for item, draft in zip(items, said, strict=False)
        ]
        texts = [one.text if isinstance(one, Generation) else "" for one in engine.many(reads)]
        held = [item.holds(text) for item, text in zip(items, texts, strict=True)]
    finally:
        del engine
        gc.collect()
    return replace(timed, recall=share(recalled), reading=share(held)), texts


def speeds(engine: LocalGenerator) -> tuple[float, float]:
    """Milliseconds of one pass over a question with a draft (85 tokens or so), and to write a token; medians."""
    checks, tokens = list[float](), list[float]()
    for number in range(TIMED):
        asked = prompt.messages(f"How many days of leave does team {number} have, and by when must they be taken?")
        ids = [*engine.prompt_ids(asked), *engine.prompt_ids(asked)]
        began = time.perf_counter()
        engine.logits(ids)
        checks.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        written = engine.plain(asked, max_tokens=8)
        tokens.append(1000 * (time.perf_counter() - began) / max(1, len(written.logprobs)))
    return statistics.median(checks[1:]), statistics.median(tokens[1:])


def readings() -> list[Reading]:
    """Questions of the demo company with the paragraph that answers each: the same every night."""
    found = []
    for fact in company.facts():
        page, holds = company.pages() / fact.page, partial(answers, fact.keys)
        if not page.is_file():
            continue
        held = [paragraph for paragraph in page.read_text(encoding="utf-8").split("\n\n") if holds(paragraph)]
        if held:
            found.append(Reading(fact.question, held[0].strip(), holds))
    return found[:: max(1, len(found) // MOST_READINGS)][:MOST_READINGS]


def answers(keys: company.Keys, text: str) -> bool:
    """Whether a text holds an answer."""
    return company.answer_matches(text, keys)


def share(these: Sequence[bool]) -> float:
    """The share of true ones; 1 for none."""
    return sum(these) / len(these) if these else 1.0
