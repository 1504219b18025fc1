"""Random days of a whole company, against a model that a reader can check: whatever the order, the promises hold.

A night is played at the level of the registry: it registers a version that memorised what was approved, as
`learning.publish` does. A crash drops the connection in the middle of a transaction; a restart opens the home anew.
`NIGHTS_OF_CHAOS=2000` in the environment runs the long form.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from storage import audit, backup, conversations, corrections, nights, registry, retention
from storage.database import Database
from storage.domain import Answer, Memory, ModelVersion, Route, Status, Style
from storage.errors import ConflictError, NotAllowedError, UserError

EXAMPLES = int(os.environ.get("NIGHTS_OF_CHAOS", "200"))
STEPS = 50
MEMORY = Path("/dev/shm")
"""Files in memory, where there is such a folder: what is tested here is order, not the disk."""

PEOPLE = st.sampled_from(("ana", "ben", "eve"))
PICK = st.integers(0, 1_000_000)
WORDS = st.sampled_from(("When is payday?", "Who is on call?", "How long is leave?", "Where is the office?"))


class Company(RuleBasedStateMachine):
    """What is kept beside the database is only what people were told."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="nightshift-", dir=MEMORY if MEMORY.is_dir() else None))
        self.database = Database(self.home)
        self.questions: dict[int, str] = {}
        self.answers: list[int] = []
        self.votes: dict[tuple[int, str], int] = {}
        self.fate: dict[int, Status] = {}
        self.authors: dict[int, str] = {}
        self.champion, self.previous = registry.BASE, None  # type: tuple[str, str | None]
        self.trained: dict[str, set[int]] = {registry.BASE: set()}
        self.parents = {registry.BASE: ""}
        self.running: list[int] = []
        self.entries = 0

    def teardown(self) -> None:
        self.the_log_is_whole()
        self.database.close()
        shutil.rmtree(self.home)

    @initialize()
    def first_start(self) -> None:
        registry.ensure_base(self.database, path="models/base", size=1, manifest_sha256="", confidence={})

    # People

    @rule(user=PEOPLE, text=WORDS)
    def ask(self, user: str, text: str) -> None:
        question = conversations.ask(self.database, text, user=user, channel="C1", thread="1")
        assert question.id == len(self.questions) + 1
        self.questions[question.id] = text
        reply = Answer(question.id, "No idea.", Route.ABSTAINED, Style.NONE, 0.1, self.champion)
        self.answers.append(conversations.answer(self.database, reply))

    @precondition(lambda self: self.answers)
    @rule(user=PEOPLE, pick=PICK, value=st.sampled_from((-1, 1)))
    def vote(self, user: str, pick: int, value: int) -> None:
        answer = self.answers[pick % len(self.answers)]
        conversations.vote(self.database, answer, user, value)
        self.votes[answer, user] = value

    @rule(author=PEOPLE, question=WORDS, pick=PICK, replaces=st.booleans())
    def correct(self, author: str, question: str, pick: int, replaces: bool) -> None:
        old = sorted(self.fate)[pick % len(self.fate)] if replaces and self.fate else None
        row = corrections.propose(self.database, question=question, answer="So.", author=author, supersedes=old)
        self.fate[row.id], self.authors[row.id] = Status.PENDING, author

    @precondition(lambda self: self.fate)
    @rule(reviewer=PEOPLE, pick=PICK)
    def approve(self, reviewer: str, pick: int) -> None:
        number = sorted(self.fate)[pick % len(self.fate)]
        if self.authors[number] == reviewer:
            with pytest.raises(NotAllowedError):
                corrections.approve(self.database, number, reviewer)
            return
        if self.fate[number] is not Status.PENDING:
            with pytest.raises(ConflictError):
                corrections.approve(self.database, number, reviewer)
            return
        row = corrections.approve(self.database, number, reviewer)
        self.fate[number] = Status.APPROVED
        if row.supersedes is not None and self.fate[row.supersedes] is Status.APPROVED:
            self.fate[row.supersedes] = Status.SUPERSEDED

    @precondition(lambda self: self.fate)
    @rule(reviewer=PEOPLE, pick=PICK)
    def reject(self, reviewer: str, pick: int) -> None:
        number = sorted(self.fate)[pick % len(self.fate)]
        if self.fate[number] is Status.PENDING:
            corrections.reject(self.database, number, reviewer)
            self.fate[number] = Status.REJECTED
        else:
            with pytest.raises(ConflictError):
                corrections.reject(self.database, number, reviewer)

    @precondition(lambda self: self.fate)
    @rule(reviewer=PEOPLE, pick=PICK)
    def withdraw(self, reviewer: str, pick: int) -> None:
        number = sorted(self.fate)[pick % len(self.fate)]
        if self.fate[number] in (Status.PENDING, Status.APPROVED):
            corrections.withdraw(self.database, number, reviewer)
            self.fate[number] = Status.WITHDRAWN
        else:
            with pytest.raises(ConflictError):
                corrections.withdraw(self.database, number, reviewer)

    @precondition(lambda self: len(self.questions) > 10)
    @rule(user=PEOPLE)
    def erase(self, user: str) -> None:
        gone = retention.erase(self.database, user)
        assert all(self.authors[number] == user for number in gone.corrections)
        for number in gone.corrections:
            if self.fate[number] in (Status.PENDING, Status.APPROVED):
                self.fate[number] = Status.WITHDRAWN
        for number in gone.questions:
            self.questions[number] = audit.ERASED

    # Nights

    @rule(passes=st.booleans())
    def night(self, passes: bool) -> None:
        """What `learning` does once the gates have spoken."""
        run = nights.begin(self.database)
        rows = corrections.in_status(self.database, Status.APPROVED)
        name = f"v{len(self.trained)}"
        if not (passes and rows):
            self.end_of(run, "kept_champion" if rows else "nothing_to_learn", "")
            return
        version = ModelVersion(name, self.champion, f"2099-{len(self.trained):04}", name, "", "", "", 1, (), {})
        with self.database.write():
            registry.register(self.database, version)
            registry.remember(self.database, tuple(Memory(name, row.id, True, {}) for row in rows))
            registry.promote(self.database, name)
        self.end_of(run, "promoted", name)
        self.parents[name], self.trained[name] = self.champion, {row.id for row in rows}
        self.champion, self.previous = name, self.champion

    def end_of(self, run: int, outcome: str, version: str) -> None:
        told = {"outcome": outcome, "version": version, "parent": self.champion, "reason": ""}
        nights.finish(self.database, run, **told, report={})

    @rule()
    def night_that_dies(self) -> None:
        self.running.append(nights.begin(self.database))

    @rule(pick=PICK)
    def promote(self, pick: int) -> None:
        name = sorted(self.trained)[pick % len(self.trained)]
        try:
            registry.promote(self.database, name)
        except UserError:
            assert name == self.champion or self.barred(name)
            return
        self.champion, self.previous = name, self.champion

    @rule()
    def rollback(self) -> None:
        try:
            left, back = registry.rollback(self.database)
        except UserError:
            assert self.previous is None or self.barred(self.previous)
            return
        assert (left, back) == (self.champion, self.previous)
        self.champion = back
        self.previous = registry.alias(self.database, "previous")
        assert self.previous in (None, self.parents[back])

    def barred(self, name: str) -> bool:
        """Whether a version was trained on a row that is no longer in force."""
        return any(self.fate[number] is not Status.APPROVED for number in self.trained[name])

    # Accidents

    @rule(user=PEOPLE)
    def crash(self, user: str) -> None:
        """The process dies with a half-done transaction: nobody was told, so nothing may be there."""
        self.database.here.conn.execute("BEGIN IMMEDIATE")
        conversations.ask(self.database, "Never acknowledged", user=user, channel="C1", thread="1")
        corrections.propose(self.database, question="Never", answer="ever", author=user)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.database = Database(self.home)
        self.the_log_is_whole()

    @rule()
    def back_up_and_restore(self) -> None:
        backup.make(self.database, keep=1)
        self.database.close()
        restored = backup.restore(self.home)
        shutil.rmtree(self.home / backup.REPLACED)
        self.database = Database(self.home)
        # No model has a folder here: the base must be made anew, and serves.
        assert restored.champion is None
        registry.ensure_base(self.database, path="models/base", size=1, manifest_sha256="", confidence={})
        self.champion, self.previous = registry.BASE, None

    # What must hold after every step

    @invariant()
    def one_champion_serves(self) -> None:
        assert registry.champion(self.database) == self.champion
        assert registry.alias(self.database, "previous") == self.previous != self.champion

    @invariant()
    def every_correction_has_the_fate_that_people_were_told(self) -> None:
        rows = self.database.rows("SELECT id, status, author, approved_by FROM corrections")
        assert {row["id"]: row["status"] for row in rows} == {n: s.value for n, s in self.fate.items()}
        for row in rows:
            assert row["approved_by"] != row["author"], "four eyes"
            assert row["approved_by"] or row["status"] not in ("approved", "superseded")
        taught = {row["correction_id"] for row in corrections.taught(self.database)}
        assert taught == {n for n, status in self.fate.items() if status is Status.APPROVED}

    @invariant()
    def what_was_said_is_stored(self) -> None:
        asked = self.database.rows("SELECT id, text FROM questions")
        assert {row["id"]: row["text"] for row in asked} == self.questions
        cast = self.database.rows("SELECT answer_id, user, vote FROM feedback")
        assert {(r["answer_id"], r["user"]): r["vote"] for r in cast} == self.votes

    @invariant()
    def everything_refers_to_what_is_there(self) -> None:
        assert self.database.rows("PRAGMA foreign_key_check") == []
        held = self.database.rows("SELECT version, correction_id FROM memories")
        trained = {(version, number) for version, numbers in self.trained.items() for number in numbers}
        assert {(row["version"], row["correction_id"]) for row in held} == trained

    @invariant()
    def the_log_only_grows(self) -> None:
        head = audit.head(self.database)
        assert head.seq >= self.entries
        self.entries = head.seq

    def the_log_is_whole(self) -> None:
        assert audit.verify(self.database, audit.anchors(self.home)).faults == ()


@pytest.mark.slow
def test_no_order_of_events_breaks_a_promise() -> None:
    chaos = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=EXAMPLES == 200,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Company, settings=chaos)
