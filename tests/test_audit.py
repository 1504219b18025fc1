"""The audit log: nothing happens without an entry, and no entry can be changed, moved or cut off unseen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from storage import audit, backup, channels, conversations, corrections, manifest, nights, registry, settings
from storage import database as opener
from storage.cli import main
from storage.database import Database, connect
from storage.domain import Answer, ModelVersion, Route, Style

REFUSED = opener.driver().IntegrityError
WORDS = ("When is payday?", "On day 25.", "On day 24.", "it was late", "not so", "two people disagree", "typo")
Tamper = Callable[[Any], None]


@pytest.fixture
def database(home: Path) -> Database:
    return Database(home)


def version(name: str, parent: str = "") -> ModelVersion:
    return ModelVersion(name, parent, f"2099-01-0{len(name)}", f"models/{name}", "", "", "s" * 64, 1, (), {})


def a_day(database: Database) -> None:
    """Everything once: asked, answered, voted, corrected, reviewed, a night, a promotion, a rollback."""
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={})
    question = conversations.ask(database, WORDS[0], user="U1", channel="C1", thread="1.0")
    reply = Answer(question.id, WORDS[1], Route.RETRIEVED, Style.QUOTED, 0.5, "base")
    answer = conversations.answer(database, reply)
    conversations.vote(database, answer, "U1", -1, reason=WORDS[3])
    first = corrections.propose(database, question=WORDS[0], answer=WORDS[2], author="U1", answer_id=answer)
    corrections.edit(database, first.id, "U2", answer="On day 26.")
    corrections.approve(database, first.id, "U2")
    second = corrections.propose(database, question=WORDS[0], answer=WORDS[1], author="U1", supersedes=first.id)
    corrections.approve(database, second.id, "U2", reason=WORDS[6])
    third = corrections.propose(database, question="Who?", answer=WORDS[4], author="U1")
    corrections.reject(database, third.id, "U2", reason=WORDS[5])
    corrections.withdraw(database, second.id, "U3")
    night = nights.begin(database)
    registry.register(database, version("v1", "base"))
    registry.promote(database, "v1")
    nights.finish(database, night, outcome="promoted", version="v1", parent="base", reason="better", report={})
    registry.rollback(database)


def kinds(database: Database) -> list[str]:
    return [entry["kind"] for entry in audit.entries(database)]


def faults(database: Database) -> set[str]:
    return {fault.kind for fault in audit.verify(database, audit.anchors(database.home)).faults}


def tampered(database: Database, work: Tamper, *, cover: bool = True) -> None:
    """Change the log as somebody would who may write the file: guards off, work, guards on again."""
    raw = connect(database.path)
    guards = raw.execute("SELECT name, sql FROM sqlite_master WHERE name IN (?, ?, ?)", audit.GUARDS).fetchall()
    assert len(guards) == 3
    for name, _ in guards:
        raw.execute(f"DROP TRIGGER {name}")
    work(raw)
    for _, sql in guards if cover else ():
        raw.execute(sql)
    raw.close()


# Everything is logged


def test_every_act_of_a_day_has_its_entry(database: Database) -> None:
    a_day(database)
    assert kinds(database) == [
        "log.began", "model.registered", "model.pointed", "question.asked", "answer.given", "vote.cast",
        "correction.proposed", "correction.edited", "correction.approved", "correction.proposed",
        "correction.superseded", "correction.approved", "correction.proposed", "correction.rejected",
        "correction.withdrawn", "night.began", "model.registered", "model.pointed", "model.pointed",
        "model.promoted", "night.ended", "model.pointed", "model.pointed", "model.rolled_back",
    ]  # fmt: skip
    assert faults(database) == set()


def test_the_log_holds_ids_and_hashes_and_no_words(database: Database) -> None:
    a_day(database)
    text = json.dumps(database.rows("SELECT * FROM audit"))
    assert not [words for words in WORDS if words in text]
    assert audit.digest(WORDS[0]) in text
    approved = next(audit.entries(database, "correction.approved"))["payload"]
    assert (approved["id"], approved["author"], approved["reviewer"]) == (1, "U1", "U2")


def test_an_entry_falls_with_its_transaction(database: Database) -> None:
    a_day(database)
    before = audit.head(database)

    def half_done() -> None:
        with database.write():
            corrections.propose(database, question="q", answer="a", author="U1")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half_done()
    assert audit.head(database) == before
    assert audit.noted_head(database.home) is not None
    assert [a.seq for a in audit.noted_head(database.home)] == [before.seq]


def test_a_changed_setting_is_logged_and_a_token_only_as_its_hash(database: Database) -> None:
    audit.note_settings(database, settings.load({}))
    assert kinds(database) == []
    mine = settings.load({"NIGHTSHIFT_ADMINS": "U2,U3", "SLACK_BOT_TOKEN": "xoxb-secret-secret"})
    audit.note_settings(database, mine)
    audit.note_settings(database, mine)
    assert kinds(database) == ["log.began", "settings.changed"]
    told = database.value("SELECT payload FROM audit ORDER BY seq DESC")
    assert "U2,U3" in told
    assert "xoxb" not in told
    audit.note_settings(database, settings.load({}))
    assert [e["payload"] for e in audit.entries(database, "settings.changed")][1] == {
        "ADMINS": "",
        "SLACK_BOT_TOKEN": "",
    }


def test_a_change_of_a_channels_settings_is_logged_with_who_made_it(database: Database) -> None:
    channels.change(database, channels.ChannelSettings("C1", mention_only=True), "U2")
    (told,) = audit.entries(database, "settings.channel")
    shown = {name: told["payload"][name] for name in ("channel", "mention_only", "changed_by")}
    assert shown == {"channel": "C1", "mention_only": True, "changed_by": "U2"}


# It cannot be written to but at its end

INSERT = "INTO audit VALUES ({seq}, 'now', 'vote.cast', '{{}}', '{previous}', 'made up')"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET payload = '{}' WHERE seq = 4",
        "UPDATE OR REPLACE audit SET seq = 3 WHERE seq = 4",
        "DELETE FROM audit WHERE seq = 4",
        "DELETE FROM audit",
        f"INSERT OR REPLACE {INSERT.format(seq=4, previous='x')}",
        f"REPLACE {INSERT.format(seq=4, previous='x')}",
        f"INSERT {INSERT.format(seq=99, previous='x')}",
        f"INSERT {INSERT.format(seq='NULL', previous='x')}",
        f"INSERT OR IGNORE {INSERT.format(seq=25, previous='genesis')}",
        f"INSERT {INSERT.format(seq=4, previous='x')} ON CONFLICT DO UPDATE SET payload = '{{}}'",
    ],
)
def test_no_statement_changes_the_log_anywhere_but_behind_its_end(database: Database, statement: str) -> None:
    a_day(database)
    before = database.rows("SELECT * FROM audit")
    assert len(before) == 24
    raw = connect(database.path)
    raw.execute("PRAGMA recursive_triggers = OFF")
    with pytest.raises(REFUSED):
        raw.execute(statement)
    raw.close()
    assert database.rows("SELECT * FROM audit") == before


# Who takes the guards away is found out


def edit(raw: Any) -> None:
    raw.execute("""UPDATE audit SET payload = replace(payload, '"reviewer":"U2"', '"reviewer":"U9"') WHERE seq = 9""")


def delete(raw: Any) -> None:
    raw.execute("DELETE FROM audit WHERE seq = 9")


def insert(raw: Any) -> None:
    for seq in range(24, 9, -1):
        raw.execute("UPDATE audit SET seq = ? WHERE seq = ?", (seq + 1, seq))
    raw.execute("INSERT INTO audit SELECT 10, at, kind, payload, hash, 'made up' FROM audit WHERE seq = 9")


def swap(raw: Any) -> None:
    for old, new in ((9, -1), (10, 9), (-1, 10)):
        raw.execute("UPDATE audit SET seq = ? WHERE seq = ?", (new, old))


def replace(raw: Any) -> None:
    raw.execute("INSERT OR REPLACE INTO audit SELECT 9, at, 'x', payload, previous, hash FROM audit WHERE seq = 9")


def cut_tail(raw: Any) -> None:
    raw.execute("DELETE FROM audit WHERE seq > 22")


TRICKS: dict[str, tuple[Tamper, set[str]]] = {
    "edit": (edit, {"edited"}),
    "delete": (delete, {"order"}),
    "insert": (insert, {"order", "edited", "anchor"}),
    "swap": (swap, {"order", "edited"}),
    "replace": (replace, {"edited"}),
    "cut tail": (cut_tail, {"cut"}),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_all_six_ways_to_tamper_are_found(database: Database, trick: str) -> None:
    a_day(database)
    work, found = TRICKS[trick]
    tampered(database, work)
    assert faults(database) == found


def test_who_edits_and_computes_every_hash_anew_is_caught_by_an_anchor(database: Database) -> None:
    a_day(database)

    def forge(raw: Any) -> None:
        edit(raw)
        previous = audit.GENESIS
        for seq, at, kind, payload in raw.execute("SELECT seq, at, kind, payload FROM audit ORDER BY seq").fetchall():
            made = audit.chained(seq, at, kind, payload, previous)
            raw.execute("UPDATE audit SET previous = ?, hash = ? WHERE seq = ?", (previous, made, seq))
            previous = made

    tampered(database, forge)
    assert audit.verify(database).ok, "without an anchor such a forgery is perfect"
    assert faults(database) == {"anchor"}


@pytest.mark.parametrize("place", ["beside the database", "a backup", "a model", "a backup elsewhere"])
def test_a_cut_tail_is_found_by_any_anchor(database: Database, tmp_path: Path, place: str) -> None:
    a_day(database)
    elsewhere = tmp_path / "elsewhere"
    if place == "a model":
        folder = database.home / "models" / "v1"
        folder.mkdir(parents=True)
        manifest.seal(folder, {"version": "v1", "audit": audit.head(database).as_json()})
    elif place != "beside the database":
        backup.make(database, to=elsewhere if "elsewhere" in place else None, keep=1)
    if place != "beside the database":
        (database.home / audit.HEAD_FILE).unlink()
    anchors = audit.anchors(database.home, elsewhere if "elsewhere" in place else None)
    assert len(anchors) == 1
    assert audit.verify(database, anchors).ok
    tampered(database, cut_tail)
    assert [f.kind for f in audit.verify(database, anchors).faults] == ["cut"]


def test_a_guard_that_was_taken_away_is_missed(database: Database) -> None:
    a_day(database)
    tampered(database, lambda raw: None, cover=False)
    assert [f.kind for f in audit.verify(database).faults] == ["guard"] * 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE answers SET text = 'On day 1.'",
        "UPDATE answers SET route = 'MEMORISED'",
        "UPDATE questions SET text = 'Something else?'",
        "UPDATE questions SET text = '(erased)'",
        "UPDATE corrections SET answer = 'another' WHERE id = 2",
        "DROP TRIGGER decided_stays; UPDATE corrections SET status = 'pending' WHERE id = 3",
        "UPDATE aliases SET version = 'v1' WHERE name = 'champion'",
        "INSERT INTO questions (text, user, channel, thread, asked_at) VALUES ('q', 'U9', '', '', '')",
        "DELETE FROM wordings; DELETE FROM corrections WHERE id = 3",
    ],
)
def test_a_row_that_was_changed_behind_the_log_is_found(database: Database, statement: str) -> None:
    a_day(database)
    raw = connect(database.path)
    raw.executescript(statement)
    raw.close()
    assert [f.kind for f in audit.verify(database).faults] == ["row"]


def test_an_unreadable_note_of_the_head_is_a_fault_and_a_missing_one_is_not(database: Database) -> None:
    a_day(database)
    note = database.home / audit.HEAD_FILE
    note.write_text("nonsense")
    assert faults(database) == {"anchor"}
    note.unlink()
    assert faults(database) == set()


# The command


def test_the_command_tells_an_intact_log_from_a_tampered_one(database: Database) -> None:
    a_day(database)
    command = ["--home", str(database.home), "audit", "verify"]
    done = CliRunner().invoke(main, [*command, "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"], told["intact"], told["faults"]) == (0, True, True, [])
    assert told["head"] == audit.head(database).as_json()
    assert "24 entries" in CliRunner().invoke(main, command).stdout
    tampered(database, cut_tail)
    done = CliRunner().invoke(main, [*command, "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"], told["intact"]) == (1, False, False)
    assert told["error"]["code"] == "integrity"
    assert [f["kind"] for f in told["faults"]] == ["cut"]
    assert CliRunner().invoke(main, command).exit_code == 1
