"""Which Slack message asked which question: threads and their context, edits, and what is asked often.

It knows nothing of Slack's API and decides nothing; a thread is a channel and the time stamp of its first message.
"""

import json
from dataclasses import dataclass

from storage import conversations
from storage.audit import ERASED
from storage.database import Database
from storage.domain import WORKSPACE

IN_HAND = "in hand:"
COMMAND = "command:"
OFTEN_PEOPLE = 3
OFTEN_CHANNELS = 2
"""A wording that so many people used in so many places is nobody's own words; only such a one is shown to others."""


@dataclass(frozen=True)
class AskedMessage:
    """A message that asked something: its words, its question, and where the answers to it were posted."""

    said: str
    question_id: int
    posts: tuple[str, ...]


@dataclass(frozen=True)
class InHand:
    """A question that the bot took on and has not answered or refused yet; `taken_at` is ISO 8601, UTC.

    `ts` is the time stamp of its message, or `COMMAND` with the command's own id where no message was written.
    """

    channel: str
    thread: str
    ts: str
    user: str
    taken_at: str = ""

    @property
    def key(self) -> str:
        """What it is called among the delivery keys."""
        return IN_HAND + json.dumps([self.channel, self.thread, self.ts, self.user])

    @property
    def is_private(self) -> bool:
        """Whether nobody but its asker saw it asked."""
        return self.ts.startswith(COMMAND)


def take(database: Database, one: InHand | None, *keys: str) -> bool:
    """Whether none of the delivery keys was seen before; marks them as seen, and then the question as in hand."""
    with database.write():
        new = conversations.first_time(database, *keys)
        if new and one is not None:
            conversations.first_time(database, one.key)
    return new


def strike(database: Database, one: InHand) -> None:
    """Note that a question is in hand no longer."""
    conversations.not_done(database, one.key)


def left(database: Database) -> tuple[InHand, ...]:
    """The questions that are in hand, first taken first."""
    rows = database.rows(
        "SELECT key, seen_at FROM events_seen WHERE key GLOB ? ORDER BY seen_at", [f"{IN_HAND}*"]
    )
    return tuple(InHand(*[*json.loads(r["key"].removeprefix(IN_HAND)), r["seen_at"]]) for r in rows)


def note(database: Database, channel: str, ts: str, *, thread: str, said: str, question_id: int) -> None:
    """Remember what a message asked; an edit of it replaces the row. `said` are its own words."""
    row = {"channel": channel, "ts": ts, "thread": thread, "said": said, "question_id": question_id}
    with database.write() as db:
        db.table("asked_messages").insert(row, pk=("channel", "ts"), replace=True)


def message(database: Database, channel: str, ts: str) -> AskedMessage | None:
    """What a message asked, with the time stamps of the posts that answered it there; None when it asked nothing."""
    row = database.row("SELECT said, question_id FROM asked_messages WHERE channel = ? AND ts = ?", [channel, ts])
    if row is None:
        return None
    posts = database.rows(
        "SELECT p.ts FROM posts p JOIN answers a ON a.id = p.answer_id WHERE a.question_id = ? AND p.channel = ? "
        "ORDER BY p.ts",
        [row["question_id"], channel],
    )
    return AskedMessage(row["said"], row["question_id"], tuple(p["ts"] for p in posts))


def takes_part(database: Database, channel: str, thread: str) -> bool:
    """Whether the bot has answered in this thread, or an answer was shared as its first message.

    A question that it heard and kept silent about is no part in it.
    """
    sql = "SELECT 1 FROM asked_messages WHERE channel = ? AND thread = ? LIMIT 1"
    return database.row(sql, [channel, thread]) is not None


def context(database: Database, channel: str, thread: str) -> str:
    """The newest question of a thread that stands on its own, empty when there is none.

    A follow-up that was completed from an earlier question does not stand on its own.
    """
    found = database.value(
        "SELECT q.text FROM questions q LEFT JOIN asked_messages m ON m.question_id = q.id "
        "WHERE (q.channel = ? AND q.thread = ? OR m.channel = ? AND m.thread = ?) "
        "AND (m.said IS NULL OR m.said = q.text) AND q.text <> ? ORDER BY q.id DESC LIMIT 1",
        [channel, thread, channel, thread, ERASED],
    )
    return str(found or "")


def often(database: Database, since: str, limit: int) -> tuple[str, ...]:
    """What was asked most since a time (ISO 8601, UTC) and had an answer, most asked first.

    Taught questions stand first, in their reviewed wording; then wordings that several people used in several places.
    """
    taught = database.rows(
        "SELECT c.question AS text FROM answers a JOIN corrections c ON c.id = a.correction_id "
        "WHERE a.style = 'direct' AND c.status = 'approved' AND c.scope = ? AND a.answered_at >= ? "
        "GROUP BY c.id ORDER BY count(DISTINCT a.question_id) DESC, c.id DESC LIMIT ?",
        [WORKSPACE, since, limit],
    )
    others = database.rows(
        "SELECT min(q.text) AS text FROM questions q JOIN answers a ON a.question_id = q.id "
        "WHERE a.route = 'RETRIEVED' AND q.asked_at >= ? AND q.text <> ? GROUP BY lower(trim(q.text)) "
        "HAVING count(DISTINCT q.user) >= ? AND count(DISTINCT q.channel) >= ? "
        "ORDER BY count(DISTINCT q.user) DESC, max(q.id) DESC LIMIT ?",
        [since, ERASED, OFTEN_PEOPLE, OFTEN_CHANNELS, limit],
    )
    return tuple(dict.fromkeys(str(row["text"]) for row in [*taught, *others]))[:limit]
