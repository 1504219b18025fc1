"""How well the bot does, read from stored rows: figures day by day, and what became of each correction in a night.

Days are days in UTC. A figure that nothing was measured for is None, never zero. It knows nothing of how the
figures are shown.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

from storage import channels, corrections, registry
from storage.audit import ERASED
from storage.database import Database, Row
from storage.domain import Correction, Memory, NightlyRun, Status
from storage.errors import NotFoundError

DAYS = 7
NOT_WRONG = "incomplete"
"""The reason of a thumb down that does not call the answer wrong."""


@dataclass(frozen=True)
class Day:
    """What was asked on one day, and what people said of the answers given that day.

    `recall` is the share of taught wordings and unseen wordings that the model serving at the end of the day
    answers right, by its proofs; `p95_ms` is the 95th percentile of answering, in milliseconds.
    """

    date: str
    asked: int = 0
    answered: int = 0
    up: int = 0
    down: int = 0
    wrong: int = 0
    p95_ms: float | None = None
    recall: float | None = None

    @property
    def coverage(self) -> float | None:
        """Share of the questions that got an answer and not an "I don't know"."""
        return share(self.answered, self.asked)

    @property
    def wrong_rate(self) -> float | None:
        """Share of the votes that call an answer wrong."""
        return share(self.wrong, self.up + self.down)

    @property
    def satisfaction(self) -> float | None:
        """The votes on a scale from 1 (all down) to 5 (all up)."""
        liked = share(self.up, self.up + self.down)
        return None if liked is None else 1 + 4 * liked


class Fate(StrEnum):
    """What a night made of one correction."""

    LEARNT = "learnt"
    KEPT = "kept"
    NOT_LEARNT = "not learnt"
    LOST = "lost"
    FORGOTTEN = "forgotten"
    HELD_BACK = "held back"


@dataclass(frozen=True)
class Change:
    """One correction and its fate."""

    correction: Correction
    fate: Fate


# --- days ---


def week(database: Database, days: int = DAYS, *, until: date | None = None) -> tuple[Day, ...]:
    """The figures of the last days, oldest first, today included."""
    last = until or datetime.now(UTC).date()
    return tuple(day(database, last - timedelta(days=back)) for back in reversed(range(days)))


def day(database: Database, when: date) -> Day:
    """The figures of one day."""
    span = (when.isoformat(), (when + timedelta(days=1)).isoformat())
    answers = database.rows(
        "SELECT coalesce(q.repeats, q.id) AS question, a.id, a.route, a.model_version, "
        "json_extract(a.timings, '$.total_ms') AS total_ms "
        "FROM questions q LEFT JOIN answers a ON a.question_id = q.id "
        "WHERE q.asked_at >= ? AND q.asked_at < ? ORDER BY a.id",
        span,
    )
    votes = database.rows(
        "SELECT f.vote, f.reason FROM feedback f JOIN answers a ON a.id = f.answer_id "
        "JOIN questions q ON q.id = a.question_id WHERE q.asked_at >= ? AND q.asked_at < ?",
        span,
    )
    return Day(
        date=span[0],
        **counted(answers),
        up=sum(v["vote"] > 0 for v in votes),
        down=sum(v["vote"] < 0 for v in votes),
        wrong=sum(v["vote"] < 0 and v["reason"] != NOT_WRONG for v in votes),
        p95_ms=percentile([r["total_ms"] for r in answers if r["total_ms"] is not None], 0.95),
        recall=recall_of(database, answers),
    )


def together(days: Sequence[Day]) -> Day:
    """Several days as one: counts added up, recall of the last day that has one, the slowest day's p95."""
    return Day(
        date=f"{days[0].date} to {days[-1].date}" if days else "",
        **{name: sum(getattr(d, name) for d in days) for name in ("asked", "answered", "up", "down", "wrong")},
        p95_ms=max((d.p95_ms for d in days if d.p95_ms is not None), default=None),
        recall=next((d.recall for d in reversed(days) if d.recall is not None), None),
    )


def counted(answers: Sequence[Row]) -> dict[str, int]:
    """How many questions were asked, and how many of them have an answer: of those asked anew the last one counts."""
    last = {r["question"]: r["route"] for r in answers}
    return {"asked": len(last), "answered": sum(route not in (None, "ABSTAINED") for route in last.values())}


def recall_of(database: Database, answers: Sequence[Row]) -> float | None:
    """The recall of the model that gave the last of some answers."""
    version = next((r["model_version"] for r in reversed(answers) if r["model_version"]), None)
    return None if version is None else recall(registry.memories(database, version).values())


def recall(memories: Iterable[Memory]) -> float | None:
    """The share of wordings, taught and unseen, that a model answers right by the proofs of its corrections."""
    counts = [right_of(memory) for memory in memories]
    return share(sum(right for right, _ in counts), sum(asked for _, asked in counts))


def right_of(memory: Memory) -> tuple[int, int]:
    """(right, asked) of one correction's proof; a proof without counts counts as one wording."""
    unseen = memory.proof.get("unseen")
    if not isinstance(unseen, list) or len(unseen) != 2:
        return int(memory.memorised), 1
    return int(bool(memory.proof.get("taught"))) + int(unseen[0]), 1 + int(unseen[1])


def share(part: int, whole: int) -> float | None:
    """A part of a whole, None of nothing."""
    return part / whole if whole else None


def percentile(values: Sequence[float], at: float) -> float | None:
    """The nearest-rank percentile of some values, None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(at * len(ordered)) - 1)] if ordered else None


def unanswered(database: Database, since: str, limit: int = 10) -> list[Row]:
    """The questions that the bot did not know, those asked most first: rows with text, times and people.

    None was asked in a direct message or a private channel, and none is erased, because reports quote them. Of a
    question that was asked anew the last answer counts: SQLite takes `route` from the row that has the `max`.
    """
    return database.rows(
        "SELECT q.text, count(*) AS times, count(DISTINCT q.user) AS people FROM questions q JOIN ("
        "SELECT coalesce(r.repeats, r.id) AS first, a.route, max(a.id) FROM questions r "
        "JOIN answers a ON a.question_id = r.id WHERE r.asked_at >= ? GROUP BY first) last ON last.first = q.id "
        "WHERE q.asked_at >= ? AND last.route = 'ABSTAINED' AND q.text <> ? "
        f"AND NOT {channels.IN_PRIVATE} "
        "GROUP BY lower(trim(q.text)) ORDER BY times DESC, max(q.id) DESC LIMIT ?",
        [since, since, ERASED, limit],
    )


def nights_since(database: Database, since: str) -> tuple[NightlyRun, ...]:
    """The nights that ended since a moment, oldest first."""
    rows = database.rows("SELECT * FROM nightly_runs WHERE finished_at >= ? ORDER BY id", [since])
    return tuple(NightlyRun(**r | {"report": json.loads(r["report"])}) for r in rows)


def reviewed_since(database: Database, since: str) -> dict[str, int]:
    """How many corrections were proposed since a moment, and how many ended in each state."""
    proposed = database.value("SELECT count(*) FROM corrections WHERE created_at >= ?", [since])
    rows = database.rows(
        "SELECT status, count(*) AS n FROM corrections WHERE reviewed_at >= ? AND status <> 'pending' GROUP BY status",
        [since],
    )
    return {"proposed": int(proposed)} | {r["status"]: r["n"] for r in rows}


# --- nights ---


def fates(database: Database, night: NightlyRun) -> tuple[Change, ...]:
    """What a night made of each correction: those it trained, and those that the parent knew and it does not."""
    told = {int(c["id"]): bool(c["memorised"]) for c in trained(night.report)}
    before = {i for i, m in registry.memories(database, night.parent).items() if m.memorised}
    gone = before - told.keys() if night.outcome == "promoted" else set()
    changes = [(i, fate_of(learnt, i in before, night.outcome)) for i, learnt in sorted(told.items())]
    return tuple(known(database, [*changes, *((i, Fate.FORGOTTEN) for i in sorted(gone))]))


def trained(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows about corrections in a night's report; one that failed has none."""
    rows = report.get("corrections")
    return [r for r in rows if "id" in r and "memorised" in r] if isinstance(rows, list) else []


def fate_of(learnt: bool, known_before: bool, outcome: str) -> Fate:
    """The fate of a correction that was trained."""
    if outcome != "promoted":
        return Fate.HELD_BACK
    if learnt:
        return Fate.KEPT if known_before else Fate.LEARNT
    return Fate.LOST if known_before else Fate.NOT_LEARNT


def known(database: Database, changes: Iterable[tuple[int, Fate]]) -> Iterable[Change]:
    """The changes whose correction is still stored; one that was never withdrawn is lost and not forgotten."""
    for number, fate in changes:
        try:
            row = corrections.get(database, number)
        except NotFoundError:
            continue
        yield Change(row, Fate.LOST if fate is Fate.FORGOTTEN and row.status is Status.APPROVED else fate)
