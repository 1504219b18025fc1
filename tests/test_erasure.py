"""Forgetting: the words of a person, or old words, are gone to the last byte; ids, hashes and the log stay."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from bot import threads
from storage import asked, audit, backup, conversations, corrections, nights, registry, retention, trust
from storage.audit import ERASED
from storage.cli import main
from storage.database import Database
from storage.domain import Answer, Memory, ModelVersion, Route, Source, Status, Style, Suggestion
from storage.errors import ConflictError, OutOfSpaceError, UserError

HERS = (
    "Zebra crossings and my salary", "Zebra answer for her", "Zebra reason of hers",
    "Zebra teaching question that goes on", "Zebra teaching answer", "Zebra source",
    "zebra another way to ask", "Zebra document",
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
    none = Answer(theirs.id, "No idea.", Route.ABSTAINED, Style.NONE, 0.1, "base")
    conversations.answer(opened, replace(none, suggestions=(Suggestion(mine.id, HERS[3]),)))
    other = corrections.propose(opened, question=HIS, answer="Giraffe answer", author="UHIM")
    corrections.approve(opened, other.id, "UHER", reason=HERS[2])
    corrections.add_wordings(opened, other.id, [HERS[0]], "rejected")
    label = {"head": "same", "kind": "wording", "fact": "1", "asked": HERS[0], "correct": 1, "features": {}}
    nights.add_calibration(opened, [label | {"version": ""}])
    nights.owe(opened, "UHER", "fix_live", {"correction_id": mine.id, "question": HERS[3], "version": "base"})
    told_of_a_night(opened)
    return opened


def told_of_a_night(database: Database) -> None:
    """A report to the reviewers as nights leave it: questions in lines, some of them cut short."""
    changes = [{"id": 1, "question": HERS[3]}, {"id": 2, "question": HIS}]
    text = f"**The night**\n- 1 “{HERS[3][:33]}…”: learnt\n- 2 “{HIS}”: learnt"
    nights.owe(database, "", "report", {"text": text})
    report = {"changes": changes, "text": text, "gates": [{"value": 1.0}]}
    nights.finish(
        database, nights.begin(database), outcome="promoted", version="base", parent="", reason="", report=report
    )
    rows = [
        {"head": "same", "kind": "reask", "fact": f"correction-{n}", "asked": asked, "correct": 1, "features": {}}
        for n, asked in ((1, HERS[6]), (2, "giraffe in other words"))
    ]
    nights.add_calibration(database, [row | {"version": "base"} for row in rows])


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
    assert [n.kind for n in nights.owed(database)] == ["report"]


def test_reports_keep_every_line_but_those_that_quote_her(database: Database) -> None:
    retention.erase(database, "UHER")
    report = database.value("SELECT report FROM nightly_runs")
    text = f"**The night**\n{ERASED}\n- 2 “{HIS}”: learnt"
    assert json.loads(report) == {
        "changes": [{"id": 1, "question": ERASED}, {"id": 2, "question": HIS}], "text": text, "gates": [{"value": 1.0}],
    }  # fmt: skip
    (notice,) = nights.owed(database)
    assert notice.payload == {"text": text}
    assert [row["asked"] for row in nights.calibration(database)] == ["giraffe in other words"]


@pytest.mark.parametrize(
    ("line", "tells"),
    [("Cat", True), ("the Cat, again", True), ("Category", False), ("a very long\n  question about pay and le…", True)],
)
def test_a_short_text_is_known_as_a_whole_and_a_long_one_by_its_beginning(line: str, tells: bool) -> None:
    known = retention.telling(frozenset({"Cat", "a very long question about pay and leave"}))
    assert known(line) is tells


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


def old(database: Database, *questions: int) -> None:
    """Let some questions be older than thirty days."""
    before = (datetime.now(UTC) - timedelta(days=31)).isoformat()
    for number in questions:
        database.here.execute("UPDATE questions SET asked_at = ? WHERE id = ?", [before, number])


def test_old_words_leave_no_wording_label_or_line_of_a_report(database: Database) -> None:
    nights.owe(database, "", "report", {"text": f"Not known: “{HERS[0]}”\nTaught: “{HIS}”"})
    old(database, 1, 2)
    retention.expire(database, 30)
    assert HERS[0].encode() not in bytes_of(database.home)
    assert [w.text for w in corrections.wordings(database, 2)] == [HIS]
    assert [r["asked"] for r in nights.calibration(database)] == [HERS[6], "giraffe in other words"]
    told = [n.payload for n in nights.owed(database) if n.kind == "report"]
    assert told[1] == {"text": f"{ERASED}\nTaught: “{HIS}”"}, "what is told of a correction stays, as it does"
    assert [n.kind for n in nights.owed(database)] == ["fix_live", "report", "report"]


def test_old_words_that_somebody_asked_again_stay_until_these_are_old(database: Database) -> None:
    again = conversations.ask(database, HERS[0].replace(" ", "  "), user="UHIM", channel="C1", thread="3.0")
    old(database, 1)
    retention.expire(database, 30)
    assert HERS[0] in {w.text for w in corrections.wordings(database, 2)}
    old(database, again.id)
    retention.expire(database, 30)
    assert HERS[0] not in {w.text for w in corrections.wordings(database, 2)}


def test_a_wording_whose_spaces_were_folded_is_found(database: Database) -> None:
    """As the night stores it of a question with a line break."""
    conversations.ask(database, "Zebra  stripes\nand hooves", user="UHER", channel="C1", thread="4.0")
    corrections.add_wordings(database, 2, ["Zebra stripes and hooves"], "asked")
    label = {"head": "same", "kind": "reask", "fact": "correction-2", "asked": "Zebra stripes and hooves"}
    nights.add_calibration(database, [label | {"correct": 1, "features": {}, "version": ""}])
    retention.erase(database, "UHER")
    assert b"Zebra stripes" not in bytes_of(database.home)


LEAVE = "How much leave has my okapi in the first year?"


def say(database: Database, text: str, user: str = "UHIM", thread: str = "5.0", repeats: int | None = None) -> int:
    """A question in a channel; its id."""
    return conversations.ask(database, text, user=user, channel="C1", thread=thread, repeats=repeats).id


def followed(text: str, previous: str = LEAVE) -> str:
    """A follow-up as the bot completes it."""
    found = threads.follow_up(text, previous)
    assert found is not None
    return found.question


def test_her_question_goes_where_a_colleague_asked_it_anew_or_followed_it_up(database: Database) -> None:
    first = say(database, LEAVE, "UHER")
    pressed = say(database, LEAVE, repeats=first)
    longer, other = followed("And for part-timers?"), followed("and in the second year?")
    assert not other.startswith(LEAVE[:-1]), "the second year takes the place of the first"
    ids = [first, pressed, say(database, longer), say(database, other), say(database, followed("If I am ill?"))]
    ids += [say(database, longer, "UTHEY", repeats=ids[2]), say(database, followed("And in Berlin?", longer))]
    unasked = say(database, "Okapi of hers?", "UHER", thread="")
    asked.note(database, "C1", "6.0", thread="6.0", said="Okapi of hers?", question_id=unasked)
    ids += [unasked, say(database, followed("What about Berlin?", "Okapi of hers?"), thread="6.0")]
    conversations.answer(database, Answer(ids[2], "An okapi has ten.", Route.RETRIEVED, Style.QUOTED, 0.5, "base"))
    corrections.add_wordings(database, 2, [longer], "asked")
    assert retention.erase(database, "UHER").questions == (1, *ids)
    assert b"kapi" not in bytes_of(database.home)
    assert audit.verify(database, audit.anchors(database.home)).ok


def test_what_only_begins_like_a_question_of_hers_stays(database: Database) -> None:
    before = say(database, followed("And for part-timers?"))
    for text in ("Why", "?", LEAVE):
        say(database, text, "UHER")
    ids = [say(database, text) for text in ("Why do we pay for zebras?", "Whyever for?", LEAVE, f"{LEAVE[:-1]}?!", "?")]
    ids += [say(database, followed("And for part-timers?"), thread=thread) for thread in ("", "7.0")]
    theirs = say(database, "What is a gnu?", "UTHEY")
    say(database, "What is a gnu?", "UHER", repeats=theirs)
    kept = [before, *ids, theirs, say(database, followed("And for part-timers?", "What is a gnu?"))]
    retention.erase(database, "UHER")
    left = [row["id"] for row in database.rows("SELECT id FROM questions WHERE text <> ? AND id > 2", [ERASED])]
    assert left == kept, "nor what follows up a question that she only pressed a button under"


def test_the_words_by_which_a_follow_up_is_known_are_those_that_complete_it() -> None:
    assert frozenset(retention.PREPOSITIONS.split()) == threads.PREPOSITIONS


def trained(database: Database, version: str, *numbers: int) -> ModelVersion:
    """A version that holds some corrections."""
    made = ModelVersion(version, "base", "2099", f"models/{version}", "", "", "", 1, (), {})
    registry.register(database, made)
    registry.remember(database, tuple(Memory(version, number, True, {}) for number in numbers))
    return made


def test_a_superseded_correction_that_was_erased_bars_the_versions_trained_on_it(database: Database) -> None:
    made, other = trained(database, "v1", 1), trained(database, "v2", 2)
    newer = corrections.propose(database, question=HERS[3], answer="Another", author="UHIM", supersedes=1)
    corrections.approve(database, newer.id, "UTHEY")
    assert trust.barred(database, made) == ""
    database.here.execute("DELETE FROM wordings WHERE kind = 'rejected'")
    retention.erase(database, "UHER")
    assert "(1) and may not serve" in trust.barred(database, made)
    assert trust.barred(database, other) == ""


@pytest.mark.parametrize("kind", ["asked", "rejected"])
def test_an_erased_question_bars_the_versions_that_it_was_a_wording_in(database: Database, kind: str) -> None:
    database.here.execute("UPDATE wordings SET kind = ? WHERE kind = 'rejected'", [kind])
    third = corrections.propose(database, question="Okapi?", answer="Okapi.", author="UHIM")
    made, other = trained(database, "v1", 2), trained(database, "v2", third.id)
    retention.erase(database, "UHER")
    assert trust.barred(database, made).startswith("v1 was trained on a question that was erased")
    assert trust.barred(database, other) == ""
    with pytest.raises(ConflictError, match="the next night rebuilds"):
        registry.promote(database, "v1")


def test_the_command_says_what_it_erased_and_what_it_could_not(database: Database) -> None:
    home = ["--home", str(database.home)]
    done = CliRunner().invoke(main, [*home, "erase", "--user", "UHER", "--json"])
    told = json.loads(done.stdout)
    assert told == {"ok": True, "questions": 1, "answers": 2, "corrections": 1, "copies": []}
    made = backup.make(database, keep=1)
    said = CliRunner().invoke(main, [*home, "erase", "--user", "UHIM"]).stdout
    assert said.startswith("Erased the words of 1 questions, 1 answers, 1 corrections. 1 earlier copies in the home")
    assert "Backups elsewhere are not touched; models that were trained on them are rebuilt by the next night." in said
    again = json.loads(CliRunner().invoke(main, [*home, "erase", "--user", "UHIM", "--json"]).stdout)
    assert again["copies"] == [str(made.folder)]


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


def test_on_request_one_new_backup_takes_the_place_of_every_earlier_copy(database: Database) -> None:
    home = database.home
    backup.make(database, keep=5)
    backup.make(database, keep=5)
    before, replaced = home / "backups" / "before-step-1.db", home / backup.REPLACED / "20261119-020000-000000"
    replaced.mkdir(parents=True)
    staging = home / backup.STAGING  # as a restore leaves it that was killed
    staging.mkdir()
    for file in (before, replaced / "nightshift.db", staging / "nightshift.db"):
        database.copy(file)
    assert len(backup.older_copies(home)) == 5
    arguments = ["--home", str(home), "erase", "--user", "UHER", "--copies-too"]
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert told["copies"] == []
    (left,) = backup.older_copies(home)
    everything = b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())
    assert [words for words in HERS if words.encode() in everything] == []
    assert HIS.encode() in everything
    assert audit.verify(database, audit.anchors(home)).ok
    assert backup.verify(left).seq < audit.head(database).seq


def test_a_backup_that_cannot_be_made_deletes_no_copy(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    made = backup.make(database, keep=5)

    def full(*_: object) -> None:
        raise OutOfSpaceError("no room")

    monkeypatch.setattr(Database, "copy", full)
    with pytest.raises(OutOfSpaceError, match="no room"):
        backup.drop_older(database)
    assert backup.older_copies(database.home) == (made.folder,)
