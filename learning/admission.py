"""Which approved corrections a night trains on, and why the others are left out: never silently.

Left out are rows of private channels, rows that wait (quarantine, the cap of rows per author and night), rows that
cannot be learnt as they are (format, length), the older of two that contradict each other and one of two that say
the same. Whatever is left out goes on as an override, answered word for word. It knows nothing of wordings.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bot.prompt import UNKNOWN
from retrieval import claims
from retrieval.claims import Claim
from retrieval.taught import Encoder
from storage import corrections, private
from storage.database import Database
from storage.domain import WORKSPACE, Correction, Status
from storage.settings import Settings
from storage.texts import plain

LETTERS_A_TOKEN = 5
"""Letters of one word that a token holds at least on average; with digits and signs as tokens of their own the
estimate is 0.95 to 1.4 times what the embedded model's tokenizer counts on the demo company's answers."""
TEMPLATE = re.compile(r"<\|[a-z_]+\|>")
"""Marks of a chat template: in a training row they would end the answer early or speak in another role."""
LINES = 4
"""More lines than this are a document, which belongs into the index."""


@dataclass(frozen=True)
class Rules:
    """The limits of a night; 0 switches `cap_per_author` off."""

    cap_per_author: int = 20
    quarantine_hours: float = 0
    max_answer_tokens: int = 96


def rules_of(settings: Settings) -> Rules:
    """The limits as the settings name them."""
    return Rules(
        cap_per_author=settings.integer("CAP_PER_AUTHOR"),
        quarantine_hours=settings.number("QUARANTINE_HOURS"),
        max_answer_tokens=settings.integer("MAX_ANSWER_TOKENS"),
    )


@dataclass(frozen=True)
class LeftOut:
    """An approved correction that is not trained tonight.

    `reason` is private, quarantined, capped, secret, format, too_long, contradicted or repeated; `because_of` is the
    correction that is trained in its place, if there is one.
    """

    correction_id: int
    reason: str
    detail: str
    because_of: int | None = None


@dataclass(frozen=True)
class Admitted:
    """The rows of a night in the order of their ids, and those left out. `repeats`: questions by the row kept."""

    rows: tuple[Correction, ...]
    left_out: tuple[LeftOut, ...]
    repeats: dict[int, tuple[str, ...]]


def admit(database: Database, encoder: Encoder, *, known: Collection[int], rules: Rules) -> Admitted:
    """Choose the rows of a night; `known` are the corrections that the champion was trained on."""
    approved = corrections.in_status(database, Status.APPROVED)
    left = {out.correction_id: out for out in (*unfit(approved, rules), *waiting(database, rules))}
    rows = [r for r in approved if r.id not in left]
    found = list(rivals(encoder, rows, known))
    capped = list(over_the_cap(database, [r for r in rows if r.id not in {out.correction_id for out in found}], rules))
    if capped:  # those that wait their turn leave nobody out
        left |= {out.correction_id: out for out in capped}
        rows = [r for r in rows if r.id not in left]
        found = list(rivals(encoder, rows, known))
    for out in found:
        left.setdefault(out.correction_id, out)
    by_id = {r.id: r for r in approved}
    repeats: dict[int, tuple[str, ...]] = {}
    for out in left.values():
        if out.reason == "repeated" and out.because_of is not None:
            repeats[out.because_of] = (*repeats.get(out.because_of, ()), by_id[out.correction_id].question)
    kept = tuple(r for r in rows if r.id not in left)
    return Admitted(kept, tuple(left[i] for i in sorted(left)), repeats)


TRAINED = "SELECT correction_id FROM memories"
"""Rows that some model was trained on already wait for nothing."""


def waiting(database: Database, rules: Rules) -> Iterator[LeftOut]:
    """Rows that must not be trained (private) or not yet: too fresh."""
    until = (datetime.now(UTC) - timedelta(hours=rules.quarantine_hours)).isoformat(timespec="microseconds")
    rows = database.rows(
        "SELECT id, scope = ?1 AS open, reviewed_at <= ?2 AS ripe FROM corrections "
        f"WHERE status = 'approved' AND (scope <> ?1 OR id NOT IN ({TRAINED})) ORDER BY id",
        [WORKSPACE, until],
    )
    for row in rows:
        if not row["open"]:
            yield LeftOut(row["id"], "private", "It belongs to a private channel; weights have no access control.")
        elif not row["ripe"]:
            yield LeftOut(row["id"], "quarantined", f"It was approved less than {rules.quarantine_hours:g} hours ago.")


def over_the_cap(database: Database, rows: Sequence[Correction], rules: Rules) -> Iterator[LeftOut]:
    """The new rows beyond what one author may have trained in a night, the latest; only rows that could be trained."""
    trained = {row["correction_id"] for row in database.rows(TRAINED)}
    places: Counter[str] = Counter()
    for row in sorted((r for r in rows if r.id not in trained), key=lambda r: (r.reviewed_at, r.id)):
        places[row.author] += 1
        if rules.cap_per_author and places[row.author] > rules.cap_per_author:
            detail = f"{row.author} has more than {rules.cap_per_author} new corrections tonight; it waits its turn."
            yield LeftOut(row.id, "capped", detail)


def unfit(rows: Sequence[Correction], rules: Rules) -> Iterator[LeftOut]:
    """Rows that a small model cannot learn as they are; they stay overrides."""
    for row in rows:
        fault = format_fault(row)
        tokens = estimated_tokens(row.answer)
        secrets = private.find_secrets(f"{row.question}\n{row.answer}")
        if secrets:
            yield LeftOut(row.id, "secret", f"It holds a secret ({', '.join(secrets)}).")
        elif fault:
            yield LeftOut(row.id, "format", fault)
        elif tokens > rules.max_answer_tokens:
            detail = f"Its answer has about {tokens} tokens; the model writes at most {rules.max_answer_tokens}."
            yield LeftOut(row.id, "too_long", detail)


def format_fault(row: Correction) -> str:
    """What is wrong with the form of a row; empty when nothing is."""
    question, answer = plain(row.question), plain(row.answer)
    if not question or not answer:
        return "Its question or answer has no word in it."
    if question == answer:
        return "Its answer only repeats the question."
    if answer == plain(UNKNOWN):
        return "Its answer is what the model says when it knows nothing."
    if TEMPLATE.search(row.question + row.answer):
        return "It holds marks of a chat template."
    if len(row.answer.splitlines()) > LINES:
        return f"Its answer has more than {LINES} lines; put it into a document."
    return ""


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has; rather too many than too few."""
    words = re.findall(r"[^\W\d_]+", text)
    signs = re.findall(r"\d|_|[^\w\s]", text)
    return sum(-(-len(w) // LETTERS_A_TOKEN) for w in words) + len(signs)


def rivals(encoder: Encoder, rows: Sequence[Correction], known: Collection[int]) -> Iterator[LeftOut]:
    """The older of two approved rows that contradict each other, and of two that say the same the later one.

    Of two that say the same, one that is in the weights stays; where both are, both stay.
    """
    gone: set[int] = set()
    found = claims.pairs(encoder, [Claim(r.question, r.answer) for r in rows])
    for i, j, kind in sorted(found, key=lambda pair: pair[2]):  # contradictions first
        older, later = sorted((rows[i], rows[j]), key=lambda r: (r.reviewed_at, r.id))
        if older.id in gone or later.id in gone:
            continue
        if kind == "contradiction":
            gone.add(older.id)
            detail = f"Correction {later.id} says otherwise and was approved later."
            yield LeftOut(older.id, "contradicted", detail, later.id)
        elif not {older.id, later.id} <= set(known):
            drop, keep = (older, later) if later.id in known else (later, older)
            gone.add(drop.id)
            yield LeftOut(drop.id, "repeated", f"Correction {keep.id} says the same.", keep.id)
