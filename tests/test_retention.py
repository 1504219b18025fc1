"""Forgetting: the words of a person, or old words, are gone to the last byte; ids, hashes and the log stay."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from storage import asked, audit, backup, conversations, corrections, nights, registry, retention
from storage.audit import ERASED
from storage.cli import main
from storage.database import Database
from storage.domain import Answer, Memory, ModelVersion, Route, Source, Status, Style
from storage.errors import UserError

HERS = (
    "Zebra crossings and my salary", "Zebra answer for her", "Zebra reason of hers", "Zebra teaching question",
    "Zebra teaching answer", "Zebra source", "zebra another way to ask", "Zebra document",
)  # fmt: skip
HIS = "Giraffe question of his"


@pytest.fixture
def database(home: Path) -> Database:
    """Two people, who asked, voted and taught; hers is in every table that can hold words."""
    opened = Database(home)
    registry.ensure_base(opened, path="models/base", size=1, manifest_sha256="", confidence={})
    question = conversations.ask(opened, HERS[0], user="UHER", channel="C1", thread="1.0")
    source = Source(HERS[7], "", "", 1.0)
    reply = Answer(question.id, HERS[1], Route.RETRIEVED, Style.QUOTED, 0.5, "base", sources=(source,))
    answer = conversations.answer(opened, reply)
    conversations.vote(opened, answer, "UHER", -1, reason=HERS[2])
    asked.note(opened, "C1", "1.0", thread="1.0", said=HERS[0], question_id=question.id)
    mine = corrections.propose(opened, question=HERS[3], answer=HERS[4], author="UHER", source=HERS[5])
    corrections.approve(opened, mine.id, "UHIM")
    corrections.add_wordings(opened, mine.id, [HERS[6]], "generated")
    theirs = conversations.ask(opened, HIS, user="UHIM", channel="C1", thread="2.0")
    taught = Answer(theirs.id, HERS[4], Route.APPROVED, Style.DIRECT, 1.0, "base", HERS[3], mine.id)
    conversations.answer(opened, taught)
    other = corrections.propose(opened, question=HIS, answer="Giraffe answer", author="UHIM")
    corrections.approve(opened, other.id, "UHER", reason=HERS[2])
    corrections.add_wordings(opened, other.id, [HERS[0]], "rejected")
    label = {"head": "same", "kind": "wording", "fact": "1", "asked": HERS[0], "correct": 1, "features": {}}
    nights.add_calibration(opened, [label | {"version": ""}])
    nights.owe(opened, "UHER", "fix_live", {"correction_id": mine.id, "question": HERS[3], "version": "base"})
    return opened


def bytes_of(home: Path) -> bytes:
    return b"".join(f.read_bytes() for f in home.iterdir() if f.is_file())


def test_no_byte_of_a_persons_words_is_left_and_everybody_elses_are(database: Database) -> None:
    before = bytes_of(database.home)
    assert all(words.encode() in before for words in HERS)
    gone = retention.erase(database, "UHER")
    assert (gone.questions, gone.corrections) == ((1,), (1,))
    after = bytes_of(database.home)
    assert [words for words in HERS if words.encode() in after] == [], "not even in answers that repeated her"
    assert HIS.encode() in after


def test_ids_stay_and_the_log_holds(database: Database) -> None:
    retention.erase(database, "UHER")
    assert database.rows("SELECT id, user, text FROM questions") == [
        {"id": 1, "user": "UHER", "text": ERASED}, {"id": 2, "user": "UHIM", "text": HIS},
    ]  # fmt: skip
    row = corrections.get(database, 1)
    assert (row.author, row.reviewer, row.question, row.answer) == ("UHER", retention.BY, ERASED, ERASED)
    assert audit.verify(database, audit.anchors(database.home)).ok
    logged = next(audit.entries(database, "question.asked"))["payload"]
    assert logged["text"] == audit.digest(HERS[0]), "the hash still proves what was said to whoever knows it"
    assert next(audit.entries(database, "text.erased"))["payload"] == {
        "user": "UHER", "questions": [1], "answers": [1, 2], "corrections": [1],
    }  # fmt: skip


def test_what_was_erased_answers_no_more_and_the_next_night_must_forget_it(database: Database) -> None:
    registry.register(database, ModelVersion("v1", "base", "2099", "models/v1", "", "", "", 1, (), {}))
    registry.remember(database, (Memory("v1", 1, True, {}),))
    revision = corrections.taught_revision(database)
    retention.erase(database, "UHER")
    assert corrections.get(database, 1).status is Status.WITHDRAWN
    assert [row["correction_id"] for row in corrections.taught(database)] == [2]
    assert corrections.taught_revision(database) > revision, "the bot reads the taught questions again"
    assert nights.owed(database) == ()


def test_erasing_twice_finds_nothing_and_a_name_is_needed(database: Database) -> None:
    retention.erase(database, "UHER")
    assert retention.erase(database, "UHER").nothing
    with pytest.raises(UserError, match="whose words"):
        retention.erase(database, " ")


def test_who_writes_erased_texts_by_hand_is_still_found(database: Database) -> None:
    retention.erase(database, "UHER")
    database.here.execute("UPDATE questions SET text = ? WHERE id = 2", [ERASED])
    assert [f.detail for f in audit.verify(database).faults] == ["row 2 of questions has another text than was logged"]


def test_old_words_go_with_their_age_and_corrections_stay(database: Database) -> None:
    assert retention.expire(database, 0).nothing
    assert retention.expire(database, 30).nothing
    old = (datetime.now(UTC) - timedelta(days=31)).isoformat()
    database.here.execute("UPDATE questions SET asked_at = ? WHERE id = 1", [old])
    gone = retention.expire(database, 30)
    assert (gone.questions, gone.answers, gone.corrections) == ((1,), (1,), ())
    assert conversations.get_question(database, 1).text == ERASED
    assert conversations.get_answer(database, 1).text == ERASED
    assert corrections.get(database, 1).question == HERS[3]
    assert audit.verify(database).ok
    assert retention.expire(database, 30).nothing
    with pytest.raises(UserError, match="number of days"):
        retention.expire(database, -1)


def test_the_command_says_what_it_erased_and_what_it_could_not(database: Database) -> None:
    home = ["--home", str(database.home)]
    done = CliRunner().invoke(main, [*home, "erase", "--user", "UHER", "--json"])
    told = json.loads(done.stdout)
    assert told == {"ok": True, "questions": 1, "answers": 2, "corrections": 1}
    said = CliRunner().invoke(main, [*home, "erase", "--user", "UHIM"]).stdout
    assert said.startswith("Erased the words of 1 questions, 0 answers, 1 corrections. Earlier backups")


@pytest.mark.parametrize("given", [[], ["--user", "U1", "--expired"], ["--expired"], ["--user", ""]])
def test_a_command_that_is_not_clear_erases_nothing(database: Database, given: list[str]) -> None:
    done = CliRunner().invoke(main, ["--home", str(database.home), "erase", *given, "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "bad_input"
    assert conversations.get_question(database, 1).text == HERS[0]


def test_a_backup_made_before_still_holds_the_words_until_it_leaves(database: Database) -> None:
    made = backup.make(database, keep=1)
    retention.erase(database, "UHER")
    assert HERS[0].encode() in (made.folder / "nightshift.db").read_bytes()
    later = backup.make(database, keep=1)
    assert not made.folder.exists()
    assert HERS[0].encode() not in (later.folder / "nightshift.db").read_bytes()
