"""Questions, answers, votes, and which Slack deliveries were seen: everything that was said is kept.

It knows nothing about how an answer was found or how it is shown.
"""

import json
from dataclasses import asdict

from storage import audit
from storage.database import Database, Row, now
from storage.domain import Answer, Feedback, Question, Route, Source, Style, Suggestion
from storage.errors import NotFoundError


def ask(
    database: Database, text: str, *, user: str, channel: str, thread: str, repeats: int | None = None
) -> Question:
    """Store a question and return it with its id; `repeats` is the id of the question that this asks anew."""
    question = {"text": text, "user": user, "channel": channel, "thread": thread, "asked_at": now()}
    with database.write():
        number = database.insert("questions", question | {"repeats": repeats})
        asked = Question(number, **question, repeats=repeats)
        place = {"user": user, "channel": channel, "text": audit.digest(text)}
        audit.append(database, "question.asked", id=asked.id, **place)
    return asked


def answer(database: Database, reply: Answer) -> int:
    """Store an answer; returns its id."""
    row = asdict(reply)
    del row["id"]
    for name in ("sources", "features", "timings", "suggestions"):
        row[name] = json.dumps(row[name])
    row["answered_at"] = now()
    with database.write():
        answer_id = database.insert("answers", row)
        audit.append(
            database,
            "answer.given",
            id=answer_id,
            question=reply.question_id,
            route=reply.route.value,
            model=reply.model_version,
            correction=reply.correction_id,
            text=audit.digest(reply.text),
        )
    return answer_id


def get_answer(database: Database, answer_id: int) -> Answer:
    """A stored answer. Raises NotFoundError."""
    row = database.row("SELECT * FROM answers WHERE id = ?", [answer_id])
    if row is None:
        raise NotFoundError(f"There is no answer {answer_id}.")
    return answer_of(row)


def get_question(database: Database, question_id: int) -> Question:
    """A stored question. Raises NotFoundError."""
    row = database.row("SELECT * FROM questions WHERE id = ?", [question_id])
    if row is None:
        raise NotFoundError(f"There is no question {question_id}.")
    return Question(**row)


def vote(database: Database, answer_id: int, user: str, value: int, *, reason: str = "") -> None:
    """Record one person's vote (+1 or -1) on an answer; a later vote replaces the earlier one.

    The same vote once more, without a reason, keeps the reason that was given: a press and its modal come in any order.
    """
    get_answer(database, answer_id)
    row = {"answer_id": answer_id, "user": user, "vote": value, "reason": reason, "at": now()}
    with database.write() as db:
        sql = "SELECT reason FROM feedback WHERE answer_id = ? AND user = ? AND vote = ?"
        row["reason"] = reason or database.value(sql, [answer_id, user, value]) or ""
        db.table("feedback").upsert(row, pk=("answer_id", "user"))
        audit.append(database, "vote.cast", answer=answer_id, user=user, vote=value, reason=audit.digest(reason))


def votes(database: Database, answer_id: int) -> tuple[Feedback, ...]:
    """All votes on an answer."""
    return tuple(Feedback(**r) for r in database.rows("SELECT * FROM feedback WHERE answer_id = ?", [answer_id]))


def first_time(database: Database, *keys: str) -> bool:
    """Whether none of the delivery keys was seen before; marks them all as seen in the same transaction."""
    with database.write() as db:
        marks = ",".join("?" * len(keys))
        seen = db.execute(f"SELECT 1 FROM events_seen WHERE key IN ({marks})", keys).fetchone()
        db.table("events_seen").insert_all(({"key": k, "seen_at": now()} for k in keys), ignore=True)
    return seen is None


def not_done(database: Database, *keys: str) -> None:
    """Let delivery keys count as never seen, because what they asked for could not be done."""
    with database.write() as db:
        db.table("events_seen").delete_where(f"key IN ({','.join('?' * len(keys))})", keys)


def remember_post(database: Database, channel: str, ts: str, *, answer_id: int = 0, correction_id: int = 0) -> None:
    """Note where an answer or a review card was posted, so that it can be found and updated."""
    row = {"channel": channel, "ts": ts, "answer_id": answer_id, "correction_id": correction_id}
    with database.write() as db:
        db.table("posts").insert(row, replace=True, pk=("channel", "ts"))


def posts_of(database: Database, *, correction_id: int) -> list[Row]:
    """Where the review cards of a correction stand: rows with channel and ts."""
    return database.rows("SELECT channel, ts FROM posts WHERE correction_id = ?", [correction_id])


def answer_of(row: Row) -> Answer:
    """A database row as an Answer."""
    fields = {k: v for k, v in row.items() if k != "answered_at"}
    fields["sources"] = tuple(Source(**s) for s in json.loads(row["sources"]))
    fields["features"] = json.loads(row["features"])
    fields["timings"] = json.loads(row["timings"])
    fields["suggestions"] = tuple(Suggestion(**s) for s in json.loads(row["suggestions"]))
    return Answer(**fields | {"route": Route(row["route"]), "style": Style(row["style"])})
