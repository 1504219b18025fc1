"""Forgetting words: on request of a person, or when they have grown old.

Words are overwritten, ids stay, and the audit log keeps what it always had: ids and hashes. The database is told to
overwrite what it deletes, and the write-ahead log is emptied, so that no bytes of a text remain in its files.
Copies made earlier are not changed: backups leave with rotation or by `backup.drop_older`, model folders that were
trained on a person's correction or question once a night has rebuilt them, because `trust` bars them. Questions that
only grew old bar no model. It knows nothing of who may ask for it.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from storage import audit, corrections, trust
from storage.audit import ERASED
from storage.database import Database, Row
from storage.domain import Status
from storage.errors import ConflictError, UserError

log = logging.getLogger(__name__)

BY = "erasure"
"""The reviewer of a correction that is withdrawn because its author's words are erased."""
PREPOSITIONS = (
    "about after as at before between by during for from if in inside into like of on outside over per since "
    "through to under until via when while with within without"
)
"""What `bot.threads` begins a follow-up's words with when it adds them to the question before."""
GOING_ON = re.compile(rf" (?:{PREPOSITIONS.replace(' ', '|')})(?![\w'-])")
LONGEST_REPLACED = 5
"""Words of a question's last phrase that a follow-up's may take the place of."""


@dataclass(frozen=True)
class Forgotten:
    """Which rows lost their words; `texts` are those that may be repeated elsewhere, `folded`."""

    questions: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    corrections: tuple[int, ...] = ()
    texts: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to forget."""
        return not (self.questions or self.answers or self.corrections)


def erase(database: Database, user: str) -> Forgotten:
    """Erase what a person wrote, what was answered to them, and what their corrections, now withdrawn, answered.

    Raises UserError when no name is given.
    """
    if not user.strip():
        raise UserError("Say whose words are to be erased: --user U.")
    with emptying_the_log(database), database.write():
        found = words_of(database, user)
        withdraw(database, found.corrections)
        overwrite(database, found)
        forget_side_notes(database, user)
        trust.bar_those_with(database, corrections_worded(database, found.texts))
        forget_copies(database, found.texts)
        forget_told(database, found.texts)
        audit.append(database, "text.erased", user=user, **ids(found))
    return found


def expire(database: Database, days: int) -> Forgotten:
    """Erase questions and answers that are older than a number of days; 0 keeps everything. Corrections stay."""
    if days < 0:
        raise UserError("RETENTION_DAYS is a number of days, 0 to keep everything.")
    if days == 0:
        return Forgotten()
    before = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")
    with emptying_the_log(database), database.write() as db:
        found = words_before(database, before)
        db.conn.execute("DELETE FROM notices WHERE delivered_at <> '' AND delivered_at < ?", (before,))
        if not found.nothing:
            overwrite(database, found)
            forget_copies(database, found.texts)
            forget_told(database, found.texts - taught_questions(database))
            audit.append(database, "text.erased", before=before, **ids(found))
    return found


def check_unerased(database: Database, since: int) -> None:
    """Raise ConflictError when a person's words were erased after an entry of the audit log."""
    if any(entry["seq"] > since and "user" in entry["payload"] for entry in audit.entries(database, "text.erased")):
        raise ConflictError("Somebody's words were erased while the night trained; the next one trains without them.")


def words_of(database: Database, user: str) -> Forgotten:
    """What a person asked, or others with their words, what was answered to it, and what they proposed."""
    asked = asked_with_words_of(database, user)
    sql = "SELECT id, question, answer FROM corrections WHERE author = ? AND question <> ?"
    taught = database.rows(sql, [user, ERASED])
    texts = {row["text"] for row in asked} | {row[name] for row in taught for name in ("question", "answer")}
    numbers, mine = tuple(row["id"] for row in asked), tuple(row["id"] for row in taught)
    return Forgotten(numbers, answers_with(database, numbers, mine), mine, frozenset(map(folded, texts)))


def asked_with_words_of(database: Database, user: str) -> list[Row]:
    """What a person asked, what others completed from it in its thread, and what was asked anew of both, by id."""
    own = [row["id"] for row in database.rows("SELECT id FROM questions WHERE user = ?", [user])]
    later = [row["id"] for row in database.rows(LATER, [user]) if completes(row["text"], row["before"])]
    return database.rows(
        "SELECT id, text FROM questions WHERE text <> ?1 AND (id IN (SELECT value FROM json_each(?2)) "
        "OR repeats IN (SELECT value FROM json_each(?2))) ORDER BY id",
        [ERASED, json.dumps([*own, *later])],
    )


LATER = f"""
SELECT later.id, later.text, own.text AS before FROM questions own
LEFT JOIN asked_messages m ON m.question_id = own.id
JOIN questions later ON later.id > own.id AND later.thread <> '' AND (
  later.channel = own.channel AND later.thread = own.thread OR later.channel = m.channel AND later.thread = m.thread
) WHERE own.user = ?1 AND own.text <> '{ERASED}'
  AND (own.repeats IS NULL OR own.repeats IN (SELECT id FROM questions WHERE user = ?1))
"""
"""What was asked in a thread after each question of a person's own; what they asked anew may be somebody else's."""


def completes(text: str, before: str) -> bool:
    """Whether a text is an earlier question with a follow-up's words at its end or in place of its last phrase.

    Both are forms that `threads.joined` of the bot gives; a text that only begins alike has another word there.
    """
    whole, stem = folded(text).lower().rstrip("?"), folded(before).lower().rstrip("?!. ")
    last = whole.rpartition(" ")[2]
    return whole != stem and any(
        stem.startswith(whole[: found.start()])
        and (len(stem) == found.start() or same_phrase(stem[found.start() :], found[0], last))
        for found in GOING_ON.finditer(whole)
    )


def same_phrase(phrase: str, preposition: str, last: str) -> bool:
    """Whether a question's last phrase begins and ends as a follow-up's does, so that this took its place."""
    begins = phrase.startswith(f"{preposition} ")
    return begins and phrase.endswith(last) and len(phrase.split()) <= LONGEST_REPLACED


def words_before(database: Database, before: str) -> Forgotten:
    """What was asked before a moment, and what was answered to it; `texts` are those that nobody asked again since."""
    rows = database.rows("SELECT id, text FROM questions WHERE asked_at < ? AND text <> ?", [before, ERASED])
    numbers = tuple(row["id"] for row in rows)
    again = {folded(row["text"]) for row in database.rows("SELECT text FROM questions WHERE asked_at >= ?", [before])}
    texts = frozenset(folded(row["text"]) for row in rows) - again
    return Forgotten(numbers, answers_with(database, numbers, ()), texts=texts)


def taught_questions(database: Database) -> frozenset[str]:
    """The questions of all corrections, `folded`: what is told of them is not told of who asked the same."""
    return frozenset(folded(row.question) for row in corrections.in_status(database))


def answers_with(database: Database, questions: Sequence[int], taught: Sequence[int]) -> tuple[int, ...]:
    """The answers to some questions, and those that repeat some corrections to whoever asked."""
    sql = (
        "SELECT id FROM answers WHERE text <> ? AND (question_id IN (SELECT value FROM json_each(?)) "
        "OR correction_id IN (SELECT value FROM json_each(?))) ORDER BY id"
    )
    return tuple(row["id"] for row in database.rows(sql, [ERASED, json.dumps(questions), json.dumps(taught)]))


def withdraw(database: Database, numbers: Sequence[int]) -> None:
    """Withdraw those corrections that still wait or answer."""
    for number in numbers:
        if corrections.get(database, number).status in (Status.PENDING, Status.APPROVED):
            corrections.withdraw(database, number, BY, reason="the author's words were erased")


OVERWRITE = (
    ("UPDATE questions SET text = :erased WHERE id IN (SELECT value FROM json_each(:questions))"),
    ("UPDATE asked_messages SET said = :erased WHERE question_id IN (SELECT value FROM json_each(:questions))"),
    (
        "UPDATE answers SET text = :erased, sources = '[]', suggestions = '[]', "
        "taught_question = CASE WHEN correction_id IS NULL THEN '' ELSE :erased END "
        "WHERE id IN (SELECT value FROM json_each(:answers))"
    ),
    (
        "UPDATE answers SET suggestions = '[]' WHERE EXISTS (SELECT 1 FROM json_each(suggestions) AS offered "
        "WHERE offered.value ->> 'correction_id' IN (SELECT value FROM json_each(:corrections)))"
    ),
    ("UPDATE feedback SET reason = '' WHERE answer_id IN (SELECT value FROM json_each(:answers))"),
    (
        "UPDATE corrections SET question = :erased, answer = :erased, source = '', reason = '' "
        "WHERE id IN (SELECT value FROM json_each(:corrections))"
    ),
    ("DELETE FROM wordings WHERE correction_id IN (SELECT value FROM json_each(:corrections))"),
    ("DELETE FROM calibration_rows WHERE fact IN (SELECT 'correction-' || value FROM json_each(:corrections))"),
)
SIDE_NOTES = (
    ("UPDATE feedback SET reason = '' WHERE user = :user"),
    ("UPDATE corrections SET reason = '' WHERE reviewer = :user"),
    ("DELETE FROM notices WHERE user = :user"),
)
WORDED = "FROM wordings WHERE kind IN ('asked', 'rejected') AND folded(text) IN (SELECT value FROM json_each(:texts))"
COPIES = (
    f"DELETE {WORDED}",
    "DELETE FROM calibration_rows WHERE folded(asked) IN (SELECT value FROM json_each(:texts))",
    "UPDATE state SET value = value + 1 WHERE name = 'taught_revision'",
)


def overwrite(database: Database, found: Forgotten) -> None:
    """Put the mark of erasure in place of texts."""
    values = {"erased": ERASED, **{name: json.dumps(numbers) for name, numbers in ids(found).items()}}
    for statement in OVERWRITE:
        database.here.conn.execute(statement, values)


def forget_side_notes(database: Database, user: str) -> None:
    """Drop the reasons that a person gave, and the notices for them."""
    for statement in SIDE_NOTES:
        database.here.conn.execute(statement, {"user": user})


def corrections_worded(database: Database, texts: Collection[str]) -> list[int]:
    """The corrections that a question among some texts is a wording of, or was said not to be."""
    return [number for (number,) in execute(database, f"SELECT DISTINCT correction_id {WORDED}", texts)]


def forget_copies(database: Database, texts: Collection[str]) -> None:
    """Drop the wordings and the labelled rows that were taken from questions."""
    for statement in COPIES:
        execute(database, statement, texts)


def forget_told(database: Database, texts: Collection[str]) -> None:
    """Drop the notices about some questions, and the lines of stored reports that repeat them."""
    about = "DELETE FROM notices WHERE folded(payload ->> 'question') IN (SELECT value FROM json_each(:texts))"
    execute(database, about, texts)
    tells = telling(texts)
    for table, column in REPORTS:
        redact(database, table, column, tells)


def execute(database: Database, sql: str, texts: Collection[str]) -> Any:
    """Run a statement that compares `folded` texts with `:texts`."""
    conn = database.here.conn
    conn.create_function("folded", 1, folded, deterministic=True)
    return conn.execute(sql, {"texts": json.dumps(list(texts))})


def folded(text: str | None) -> str:
    """A text with one space between its words, as wordings and reports hold what was asked."""
    return " ".join((text or "").split())


REPORTS = (("nightly_runs", "report"), ("notices", "payload"))
"""What was told of a night, as JSON: it quotes questions, some of them cut short."""
LONG = 30
"""Characters of a text by which a line that quotes it is known; a shorter text must stand there as a whole."""
WORD_BEGINS, WORD_ENDS = re.compile(r"(?<!\w)"), re.compile(r"(?!\w)")


def telling(texts: Collection[str]) -> Callable[[str], bool]:
    """Whether a line repeats the beginning of one of the texts, however many they are."""
    begins = {folded(text)[:LONG] for text in texts} - {""}
    sizes = {len(begin) for begin in begins}

    def tells(line: str) -> bool:
        line = folded(line)
        return any(
            line[at : at + size] in begins and (size == LONG or WORD_ENDS.match(line, at + size))
            for at in (begin.start() for begin in WORD_BEGINS.finditer(line))
            for size in sizes
        )

    return tells


def redact(database: Database, table: str, column: str, tells: Callable[[str], bool]) -> None:
    """Put the mark of erasure in place of every line of some stored reports that repeats an erased text."""
    for row in database.rows(f"SELECT id, {column} AS told FROM {table}"):
        before = json.loads(row["told"])
        after = without(before, tells)
        if after != before:
            database.here.conn.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (json.dumps(after), row["id"]))


def without(told: Any, tells: Callable[[str], bool]) -> Any:
    """A JSON value without the lines that repeat an erased text."""
    if isinstance(told, str):
        return "\n".join(ERASED if tells(line) else line for line in told.split("\n"))
    if isinstance(told, list):
        return [without(item, tells) for item in told]
    if isinstance(told, dict):
        return {name: without(value, tells) for name, value in told.items()}
    return told


def ids(found: Forgotten) -> dict[str, list[int]]:
    """The rows by table, as the audit log holds them."""
    return {name: list(getattr(found, name)) for name in ("questions", "answers", "corrections")}


@contextmanager
def emptying_the_log(database: Database) -> Iterator[None]:
    """Empty the write-ahead log when the block ends well; the file itself overwrites what it deletes."""
    yield
    if database.here.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        log.warning("somebody is reading; the write-ahead log keeps erased words until it is emptied by itself")
