"""What SQLite itself holds: four eyes, one vote, one first time, one champion; two processes at once; settings."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import conversations, corrections, manifest, nights, registry, settings
from storage import database as opener
from storage.database import WAL_IS_SAFE_FROM, Database, connect, file_lock, now
from storage.domain import Answer, Memory, ModelVersion, Question, Route, Source, Status, Style
from storage.errors import ConflictError, IntegrityError, NotAllowedError, NotFoundError, UserError
from storage.migrations import migrations, split_statements

ROOT = Path(__file__).parent.parent
REFUSED = opener.driver().IntegrityError
"""What the driver that sqlite-utils chose raises when a constraint or a trigger refuses."""


@pytest.fixture
def database(home: Path) -> Database:
    return Database(home)


def proposed(database: Database, question: str = "When is payday?", **more: Any) -> int:
    return corrections.propose(database, **{"question": question, "answer": "On day 25.", "author": "ana"} | more).id


def answered(database: Database, **more: Any) -> int:
    question = conversations.ask(database, "When is payday?", user="ana", channel="C1", thread="1.0")
    fields: dict[str, Any] = {
        "question_id": question.id, "text": "On day 25.", "route": Route.RETRIEVED, "style": Style.QUOTED,
        "confidence": 0.5, "model_version": "base",
    }  # fmt: skip
    return conversations.answer(database, Answer(**fields | more))


def in_processes(home: Path, script: str, count: int) -> list[str]:
    """What several processes print that run the same script on one home at the same time."""
    code = f"import sys; from pathlib import Path; from storage.database import Database\nhome = Path({str(home)!r})\n"
    running = [
        subprocess.Popen([sys.executable, "-c", code + script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count
    return outputs


# Four eyes, held by the database and not only in code


SNEAKY = {
    "approve one's own": "UPDATE corrections SET status = 'approved', approved_by = author, reviewer = 'ben'",
    "approve for nobody": "UPDATE corrections SET status = 'approved', reviewer = 'ben'",
    "approve for an empty name": "UPDATE corrections SET status = 'approved', approved_by = ''",
    "become another author while approving": (
        "UPDATE corrections SET author = 'zoe', status = 'approved', approved_by = 'ana'"
    ),
    "note one's own approval first": "UPDATE corrections SET approved_by = author",
    "come in approved": (
        "INSERT INTO corrections (question, answer, author, source, scope, status, created_at, approved_by) "
        "VALUES ('q', 'a', 'ana', '', 'workspace', 'approved', '', 'ben')"
    ),
    "come in approved in place of another": (
        "INSERT OR REPLACE INTO corrections (id, question, answer, author, source, scope, status, created_at, "
        "approved_by) VALUES (1, 'q', 'a', 'ana', '', 'workspace', 'approved', '', 'ben')"
    ),
    "come in superseded": (
        "INSERT INTO corrections (question, answer, author, source, scope, status, created_at) "
        "VALUES ('q', 'a', 'ana', '', 'workspace', 'superseded', '')"
    ),
    "skip the approval": "UPDATE corrections SET status = 'superseded'",
    "invent a state": "UPDATE corrections SET status = 'trusted'",
    "have no author": "UPDATE corrections SET author = ''",
}


@pytest.mark.parametrize("trick", SNEAKY)
def test_no_statement_gets_around_the_second_pair_of_eyes(database: Database, trick: str) -> None:
    proposed(database)
    before = database.rows("SELECT * FROM corrections")
    raw = connect(database.path)
    with pytest.raises(REFUSED):
        raw.execute(SNEAKY[trick])
    raw.close()
    assert database.rows("SELECT * FROM corrections") == before


def test_a_second_person_may_approve_by_a_plain_statement_too(database: Database) -> None:
    proposed(database)
    raw = connect(database.path)
    raw.execute("UPDATE corrections SET status = 'approved', approved_by = 'ben', reviewer = 'ben'")
    raw.close()
    assert corrections.get(database, 1).status is Status.APPROVED


def test_the_author_of_an_approved_row_cannot_be_made_its_approver(database: Database) -> None:
    corrections.approve(database, proposed(database), "ben")
    for statement in ("UPDATE corrections SET author = 'ben'", "UPDATE corrections SET approved_by = 'ana'"):
        raw = connect(database.path)
        with pytest.raises(REFUSED):
            raw.execute(statement)
        raw.close()


# The queue


def test_the_author_is_told_in_words_that_another_must_approve(database: Database) -> None:
    number = proposed(database)
    with pytest.raises(NotAllowedError, match=f"ana wrote correction {number}"):
        corrections.approve(database, number, " ana ")
    assert corrections.approve(database, number, "ben").status is Status.APPROVED


DECISIONS = {
    "approve": corrections.approve,
    "reject": corrections.reject,
    "withdraw": corrections.withdraw,
    "edit": lambda database, number, reviewer: corrections.edit(database, number, reviewer, answer="Other."),
}
ALLOWED = {
    Status.PENDING: {"approve", "reject", "withdraw", "edit"},
    Status.APPROVED: {"withdraw"},
    Status.REJECTED: set[str](),
    Status.WITHDRAWN: set[str](),
    Status.SUPERSEDED: set[str](),
}


def brought_to(database: Database, status: Status) -> int:
    """A correction in a state, by the ordinary ways there."""
    number = proposed(database)
    if status in (Status.APPROVED, Status.SUPERSEDED):
        corrections.approve(database, number, "ben")
    if status is Status.SUPERSEDED:
        corrections.approve(database, proposed(database, supersedes=number), "ben")
    if status is Status.REJECTED:
        corrections.reject(database, number, "ben")
    if status is Status.WITHDRAWN:
        corrections.withdraw(database, number, "ben")
    assert corrections.get(database, number).status is status
    return number


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("status", list(Status))
def test_every_state_allows_its_decisions_and_no_other(database: Database, status: Status, decision: str) -> None:
    number = brought_to(database, status)
    before = corrections.get(database, number)
    if decision in ALLOWED[status]:
        assert DECISIONS[decision](database, number, "cleo") != before
        return
    with pytest.raises(ConflictError, match=f"is {status} already"):
        DECISIONS[decision](database, number, "cleo")
    assert corrections.get(database, number) == before


def test_an_edit_moves_the_taught_wording_along(database: Database) -> None:
    number = proposed(database)
    corrections.edit(database, number, "ben", question="Which day is payday?")
    assert [(w.text, w.kind) for w in corrections.wordings(database, number)] == [("Which day is payday?", "taught")]


def test_superseding_takes_effect_with_the_approval_and_not_before(database: Database) -> None:
    old = brought_to(database, Status.APPROVED)
    new = proposed(database, supersedes=old, answer="On day 27.")
    assert [row["correction_id"] for row in corrections.taught(database)] == [old]
    corrections.approve(database, new, "ben")
    assert corrections.get(database, old).status is Status.SUPERSEDED
    assert [row["correction_id"] for row in corrections.taught(database)] == [new]


def test_what_is_for_one_channel_replaces_nothing_that_is_for_everybody(database: Database) -> None:
    old = proposed(database)
    with pytest.raises(UserError, match="cannot replace it"):
        proposed(database, scope="C0BOARD", supersedes=old)
    assert len(corrections.in_status(database)) == 1


def test_a_withdrawn_correction_is_taught_no_more(database: Database) -> None:
    number = brought_to(database, Status.APPROVED)
    seen = corrections.taught_revision(database)
    corrections.withdraw(database, number, "ben")
    assert corrections.taught(database) == []
    assert corrections.taught_revision(database) > seen


def test_wordings_are_kept_once_and_only_a_rejection_changes_their_kind(database: Database) -> None:
    number = proposed(database)
    corrections.add_wordings(database, number, ["payday?", "payday?", "When is payday?"], "generated")
    corrections.add_wordings(database, number, ["payday?", "not this"], "rejected")
    kinds = {w.text: w.kind for w in corrections.wordings(database, number)}
    assert kinds == {"When is payday?": "taught", "payday?": "rejected", "not this": "rejected"}
    waiting = corrections.wordings_to_embed(database, "small")
    corrections.store_vectors(database, "small", [(row["id"], b"\0\0\0\0") for row in waiting[:2]])
    assert [row["text"] for row in corrections.wordings_to_embed(database, "small")] == ["not this"]
    assert len(corrections.wordings_to_embed(database, "large")) == 3


def test_every_change_that_matters_moves_the_revision_that_the_bot_watches(database: Database) -> None:
    seen = [corrections.taught_revision(database)]

    def moved() -> bool:
        seen.append(corrections.taught_revision(database))
        return seen[-1] > seen[-2]

    number = proposed(database)
    assert moved()
    corrections.approve(database, number, "ben")
    assert moved()
    corrections.add_wordings(database, number, ["payday?"], "asked")
    assert moved()
    registry.ensure_base(database, path="b", size=1, manifest_sha256="", confidence={})
    assert moved()
    conversations.ask(database, "q", user="u", channel="", thread="")
    assert not moved()


@pytest.mark.parametrize("text", ["", "  \n", "x" * (corrections.MAX_CHARS + 1)])
def test_a_correction_needs_words_and_not_too_many(database: Database, text: str) -> None:
    for name in ("question", "answer", "author"):
        with pytest.raises(UserError, match=f"The {name}"):
            proposed(database, **{name: text})
    assert corrections.in_status(database) == ()


# What was said


def test_an_answer_comes_back_as_it_was_stored(database: Database) -> None:
    told: dict[str, Any] = {
        "sources": (Source("Payroll", "Dates", "https://in.example/p", 0.75),), "features": {"cosine": 0.5},
        "timings": {"total_ms": 12.5}, "correction_id": 3, "taught_question": "When?", "text": "Ünïcode \u2028 ok",
    }  # fmt: skip
    stored = conversations.get_answer(database, answered(database, **told))
    assert {name: getattr(stored, name) for name in told} == told
    assert (stored.route, stored.style) == (Route.RETRIEVED, Style.QUOTED)
    question = conversations.get_question(database, stored.question_id)
    assert (question.text, question.user, question.channel) == ("When is payday?", "ana", "C1")
    assert isinstance(question, Question)


def test_a_vote_can_be_changed_and_counts_once_for_each_person(database: Database) -> None:
    number = answered(database)
    conversations.vote(database, number, "ana", -1, reason="old figure")
    conversations.vote(database, number, "ben", 1)
    conversations.vote(database, number, "ana", 1)
    assert {(v.user, v.vote, v.reason) for v in conversations.votes(database, number)} == {
        ("ana", 1, ""),
        ("ben", 1, ""),
    }


def test_a_press_that_comes_after_its_reason_keeps_it(database: Database) -> None:
    number = answered(database)
    conversations.vote(database, number, "ana", -1, reason="old figure")
    conversations.vote(database, number, "ana", -1)
    assert [(v.vote, v.reason) for v in conversations.votes(database, number)] == [(-1, "old figure")]
    conversations.vote(database, number, "ana", 1)
    assert [(v.vote, v.reason) for v in conversations.votes(database, number)] == [(1, "")]


def test_a_vote_is_up_or_down_and_on_an_answer_that_is_there(database: Database) -> None:
    with pytest.raises(NotFoundError, match="99"):
        conversations.vote(database, 99, "ana", 1)
    number = answered(database)
    with pytest.raises(REFUSED):
        conversations.vote(database, number, "ana", 5)
    assert conversations.votes(database, number) == ()


def test_one_event_that_comes_under_two_keys_is_new_once(database: Database) -> None:
    assert conversations.first_time(database, "event-1", "C1/1.0")
    assert not conversations.first_time(database, "event-2", "C1/1.0"), "the same message as another event"
    assert not conversations.first_time(database, "event-2"), "and that event is known from now on"
    assert conversations.first_time(database, "event-3", "C1/2.0")


def test_of_many_threads_one_is_the_first(database: Database) -> None:
    together = threading.Barrier(8)

    def first(_: int) -> list[bool]:
        together.wait()
        told = [conversations.first_time(database, f"event-{n}") for n in range(20)]
        database.close()
        return told

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(first, range(8)))
    assert [sum(column) for column in zip(*answers, strict=True)] == [1] * 20


# One database, several processes


def test_of_two_processes_one_is_the_first(database: Database, home: Path) -> None:
    script = (
        "from storage import conversations\ndatabase = Database(home)\n"
        "print(''.join('01'[conversations.first_time(database, f'event-{n}')] for n in range(60)))"
    )
    outputs = [output.strip() for output in in_processes(home, script, 2)]
    assert [left + right for left, right in zip(*outputs, strict=True) if {left, right} != {"0", "1"}] == []
    assert len(outputs[0]) == 60


def test_two_processes_lose_no_read_modify_write(database: Database, home: Path) -> None:
    database.here.execute("INSERT INTO state VALUES ('counter', 0)")
    script = (
        "database = Database(home)\n"
        "for _ in range(100):\n"
        "    with database.write() as db:\n"
        "        seen = database.value(\"SELECT value FROM state WHERE name = 'counter'\")\n"
        "        db.execute(\"UPDATE state SET value = ? WHERE name = 'counter'\", [seen + 1])\n"
    )
    in_processes(home, script, 2)
    assert database.value("SELECT value FROM state WHERE name = 'counter'") == 200


def test_a_write_that_fails_leaves_nothing_and_an_inner_one_joins_the_outer(database: Database) -> None:
    def half_done() -> None:
        with database.write():
            proposed(database)
            with database.write():
                proposed(database, "Who is on call?")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half_done()
    assert corrections.in_status(database) == ()
    assert proposed(database) == 1, "and the ids start again, because nothing had happened"


def test_a_new_home_is_migrated_once_though_four_processes_open_it(home: Path) -> None:
    in_processes(home, "database = Database(home)\nprint(database.value('SELECT count(*) FROM corrections'))", 4)
    applied = Database(home).rows("SELECT * FROM _sqlite_migrations")
    assert len(applied) == len(list(migrations.applied(Database(home).here)))
    assert not migrations.pending(Database(home).here)


def test_one_home_may_be_opened_by_many_at_the_same_moment(home: Path) -> None:
    def prepare(_: int) -> None:
        for _ in range(50):
            opener.prepare_home(home)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(prepare, range(4)))
    assert list(home.iterdir()) == []


def test_opening_twice_changes_nothing(database: Database, home: Path) -> None:
    proposed(database)
    schema = database.rows("SELECT name, sql FROM sqlite_master ORDER BY name")
    again = Database(home)
    assert again.rows("SELECT name, sql FROM sqlite_master ORDER BY name") == schema
    assert len(corrections.in_status(again)) == 1


def test_a_connection_is_durable_and_strict(database: Database) -> None:
    assert {
        name: database.value(f"PRAGMA {name}")
        for name in ("synchronous", "foreign_keys", "trusted_schema", "busy_timeout")
    } == {"synchronous": 2, "foreign_keys": 1, "trusted_schema": 0, "busy_timeout": 10_000}
    tables = database.rows("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    loose = {row["name"] for row in tables if not row["strict"]}
    assert not {name for name in loose if not name.startswith(("sqlite_", "_sqlite_"))}


def test_a_trigger_is_one_statement() -> None:
    script = (
        "CREATE TABLE t (a TEXT);\nCREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; SELECT 1; END;\nSELECT 2"
    )
    assert split_statements(script)[1].startswith("CREATE TRIGGER")
    assert len(split_statements(script)) == 3


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_lock(path, wait=False), pytest.raises(BlockingIOError), file_lock(path, wait=False):
        pass
    with file_lock(tmp_path / "lock", wait=False):
        pass


def test_moments_are_in_utc_and_sort_as_text() -> None:
    moments = [now() for _ in range(3)]
    assert moments == sorted(moments)
    assert all(moment.endswith("+00:00") and len(moment) == 32 for moment in moments)


# The registry


def version(name: str, parent: str = "base", created: str = "2026-11-20") -> ModelVersion:
    gates = ({"name": "finite", "value": 1.0, "threshold": 1.0, "passed": True},)
    return ModelVersion(name, parent, created, f"models/{name}", "", "", "", 7, gates, {"heads": {}})


@pytest.fixture
def models(database: Database) -> Database:
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={"heads": {}})
    registry.register(database, version("v1", created="2099-01-01"))
    registry.register(database, version("v2", "v1", created="2099-01-02"))
    return database


def aliases(database: Database) -> tuple[str | None, str | None]:
    return registry.alias(database, "champion"), registry.alias(database, "previous")


def test_promotion_keeps_what_served_before_and_rollback_walks_back(models: Database) -> None:
    assert aliases(models) == ("base", None)
    assert registry.promote(models, "v1") == "base"
    assert registry.promote(models, "v2") == "v1"
    assert aliases(models) == ("v2", "v1")
    assert registry.rollback(models) == ("v2", "v1")
    assert aliases(models) == ("v1", "base")
    assert registry.rollback(models) == ("v1", "base")
    with pytest.raises(ConflictError, match="no previous model"):
        registry.rollback(models)
    assert aliases(models) == ("base", None)


def test_a_version_that_is_not_there_or_serves_already_is_not_promoted(models: Database) -> None:
    with pytest.raises(NotFoundError, match="'v9'"):
        registry.promote(models, "v9")
    with pytest.raises(ConflictError, match="base is the champion"):
        registry.promote(models, "base")
    assert aliases(models) == ("base", None)


def test_a_version_name_is_never_used_twice(models: Database) -> None:
    with pytest.raises(REFUSED):
        registry.register(models, version("v1"))
    with pytest.raises(REFUSED):
        models.here.execute("INSERT INTO aliases VALUES ('candidate', 'v9')")


def test_the_base_is_registered_once(models: Database) -> None:
    registry.promote(models, "v1")
    told = registry.ensure_base(models, path="elsewhere", size=2, manifest_sha256="", confidence={})
    assert told == "v1"
    assert registry.get(models, "base").path == "models/base"


def test_a_version_comes_back_as_it_was_stored(models: Database) -> None:
    assert registry.get(models, "v2") == version("v2", "v1", created="2099-01-02")
    assert [v.version for v in registry.versions(models)] == ["base", "v1", "v2"]


def test_a_proof_says_since_which_version_without_a_break(models: Database) -> None:
    number, other = proposed(models), proposed(models)
    registry.remember(models, (Memory("v1", number, True, {}), Memory("v1", other, True, {})))
    registry.remember(models, (Memory("v2", number, True, {}), Memory("v2", other, False, {})))
    registry.register(models, version("v3", "v2", created="2099-01-03"))
    registry.remember(models, (Memory("v3", number, True, {}), Memory("v3", other, True, {})))
    assert registry.since(models, "v3") == {number: "v1", other: "v3"}
    assert registry.since(models, "v2") == {number: "v1"}
    assert registry.since(models, "v3", other) == {other: "v3"}
    registry.promote(models, "v3")
    told = registry.proof(models, other)
    assert told is not None
    assert (told["version"], told["since"]) == ("v3", "v3")


def test_a_proof_is_of_the_champion(models: Database) -> None:
    number = proposed(models)
    registry.remember(models, (Memory("v1", number, True, {"unseen": [2, 2]}),))
    registry.remember(models, (Memory("v1", number, False, {"unseen": [1, 2]}),))
    assert registry.proof(models, number) is None
    registry.promote(models, "v1")
    assert registry.proof(models, number) == {"version": "v1", "memorised": False, "since": None, "unseen": [1, 2]}
    assert registry.memories(models, "v1") == {number: Memory("v1", number, False, {"unseen": [1, 2]})}


# The nights


def test_a_night_is_told_once_it_ended(database: Database) -> None:
    night = nights.begin(database)
    assert nights.latest(database) is None
    nights.finish(
        database,
        night,
        outcome="promoted",
        version="v1",
        parent="base",
        reason="every gate passed",
        report={"gates": []},
    )
    latest = nights.latest(database)
    assert latest is not None
    assert (latest.outcome, latest.version, latest.report) == ("promoted", "v1", {"gates": []})
    assert latest.finished_at >= latest.started_at


def test_a_notice_is_owed_until_it_is_delivered(database: Database) -> None:
    nights.owe(database, "ana", "fix_live", {"correction_id": 1})
    nights.owe(database, "", "nightly_report", {})
    first, second = nights.owed(database)
    assert (first.user, first.kind, first.payload) == ("ana", "fix_live", {"correction_id": 1})
    nights.delivered(database, first.id)
    assert nights.owed(database) == (second,)


def test_calibration_rows_add_up_over_nights(database: Database) -> None:
    row = {"head": "same", "kind": "wording", "fact": "f", "asked": "q", "correct": 1, "version": "v1"}
    for cosine in (0.5, 0.75):
        nights.add_calibration(database, [row | {"features": {"cosine": cosine}}])
    assert [r["features"]["cosine"] for r in nights.calibration(database)] == [0.5, 0.75]


# Sealed folders


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "v1"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "config.json").write_text("{}")
    return folder, manifest.seal(folder, {"version": "v1"})


def test_a_sealed_folder_tells_what_it_is(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    assert manifest.verify(folder, digest)["version"] == "v1"
    final = folder.with_name("published")
    manifest.publish(folder, final)
    assert manifest.verify(final, digest)["version"] == "v1"


@pytest.mark.parametrize("damage", ["flip", "cut", "add", "remove", "manifest", "code"])
def test_any_change_to_a_sealed_folder_is_found(sealed: tuple[Path, str], damage: str) -> None:
    folder, digest = sealed
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "flip":
        content[100] ^= 1
        weights.write_bytes(content)
    elif damage == "cut":
        weights.write_bytes(content[:-1])
    elif damage == "remove":
        weights.unlink()
    elif damage == "manifest":
        (folder / manifest.NAME).write_text("{}")
    else:
        (folder / ("notes.txt" if damage == "add" else "modeling.py")).write_text("")
    with pytest.raises(IntegrityError, match=r"v1|model\.safetensors"):
        manifest.verify(folder, digest)


def test_a_folder_that_carries_code_is_refused_though_its_manifest_lists_it(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(IntegrityError):
        manifest.verify(tmp_path, manifest.seal(tmp_path, {}))


# Settings


def test_a_setting_comes_from_the_environment_then_the_default(tmp_path: Path) -> None:
    given = settings.load({"NIGHTSHIFT_SEED": "11", "NIGHTSHIFT_ADMINS": "U1, U2,,", "SLACK_BOT_TOKEN": "xoxb-1"})
    assert given.integer("SEED") == 11
    assert given.names("ADMINS") == {"U1", "U2"}
    assert given.text("SLACK_BOT_TOKEN") == "xoxb-1"
    assert given.number("TARGET_WRONG") == 0.02
    assert settings.load({"NIGHTSHIFT_SEED": " "}).integer("SEED") == 7, "an empty variable is as good as none"
    assert settings.load({}, overrides={"HOME": str(tmp_path)}).home == tmp_path


def test_all_malformed_settings_are_named_in_one_sentence() -> None:
    with pytest.raises(UserError) as refused:
        settings.load({"NIGHTSHIFT_SEED": "seven", "NIGHTSHIFT_TRAIN_RATE": "fast", "NIGHTSHIFT_HOME": "/x"})
    assert str(refused.value) == (
        "Settings that cannot be read: NIGHTSHIFT_SEED='seven' is not a whole number; "
        "NIGHTSHIFT_TRAIN_RATE='fast' is not a number."
    )


@given(st.sampled_from([s for s in settings.TABLE if isinstance(s.default, int)]), st.integers())
def test_every_whole_number_is_read_as_one_within_its_bounds(setting: settings.Setting, value: int) -> None:
    if setting.least <= value <= setting.most:
        assert settings.load({setting.variable: str(value)}).integer(setting.name) == value
    else:
        with pytest.raises(UserError, match=f"{setting.variable}='{value}' is not a whole number between"):
            settings.load({setting.variable: str(value)})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ANSWERS_TOGETHER", "0", "is not a whole number between 1 and 1,000,000."),
        ("QUEUE_LIMIT", "0", "is not a whole number between 1 and 1,000,000."),
        ("RETENTION_DAYS", "-1", "is not a whole number between 0 and 36,500."),
        ("TARGET_WRONG", "2", "is not a number between 0 and 0.5."),
        ("TARGET_WRONG_DOCUMENTS", "nan", "is not a number between 0 and 0.5."),
        ("ANSWER_DEADLINE", "inf", "is not a number between 0 and 1,000,000."),
    ],
)
def test_a_number_that_would_stop_the_bot_is_refused(name: str, value: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        settings.load({f"NIGHTSHIFT_{name}": value})
    assert str(refused.value) == f"Settings that cannot be read: NIGHTSHIFT_{name}={value!r} {sentence}"


def test_every_default_lies_within_its_bounds() -> None:
    numbers = [s for s in settings.TABLE if not isinstance(s.default, str)]
    assert [s.name for s in numbers if not s.least <= float(s.default) <= s.most] == []


def test_the_example_file_read_back_gives_the_defaults() -> None:
    lines = [line for line in settings.as_env_example().splitlines() if line and not line.startswith("#")]
    assert settings.load(dict(line.split("=", 1) for line in lines)) == settings.load({})


def test_every_setting_has_a_sentence_and_a_name_of_its_own() -> None:
    assert len({s.variable for s in settings.TABLE}) == len(settings.TABLE)
    assert all(s.help.endswith(".") and "\n" not in s.help for s in settings.TABLE)


def test_sqlite_utils_chose_the_driver_that_has_no_wal_bug() -> None:
    assert tuple(map(int, opener.driver().sqlite_version.split("."))) >= WAL_IS_SAFE_FROM


def test_not_my_question_overrules_a_wording_that_was_trained(database: Database) -> None:
    row = corrections.propose(database, question="When is payday?", answer="On the 25th.", author="ana")
    corrections.add_wordings(database, row.id, ["payday?"], "generated")
    before = corrections.taught_revision(database)
    corrections.add_wordings(database, row.id, ["payday?", "When is payday?"], "rejected")
    kinds = {w.text: w.kind for w in corrections.wordings(database, row.id)}
    assert kinds == {"When is payday?": "taught", "payday?": "rejected"}
    assert corrections.taught_revision(database) > before
