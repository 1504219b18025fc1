"""Doctor: each thing that can be wrong with a home is found and named, and what is fine is said to be fine."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fault_drivers import published

from bot import checkup
from bot.app import check_tokens
from storage import backup, corrections, manifest, nights, registry
from storage import database as opener
from storage import settings as settings_table
from storage.database import Database
from storage.errors import UserError

KEEP = 3


@pytest.fixture
def database(home: Path) -> Database:
    opened = Database(home)
    row = corrections.propose(opened, question="What is 1?", answer="It is 1.", author="U1")
    corrections.approve(opened, row.id, "U2")
    return opened


def published_before(database: Database) -> None:
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={})
    published(database, "v1")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def verdict(database: Database, name: str, **environment: str) -> tuple[bool, str]:
    checks = {c["name"]: c for c in checkup.run(database, settings_table.load(environment))}
    return checks[name]["ok"], checks[name]["detail"]


def test_doctor_knows_every_package_that_is_required() -> None:
    assert {"torch", "chromadb", "click", "slack-bolt"} <= {p.split()[0] for p in checkup.packages().split(", ")}


def test_doctor_finds_a_log_that_was_tampered_with(database: Database) -> None:
    assert verdict(database, "audit") == (True, "3 entries, 1 anchors agree")
    database.here.execute("DROP TRIGGER approved_text_stays")  # who can write the file can do this too
    database.here.execute("UPDATE corrections SET answer = 'another'")
    ok, detail = verdict(database, "audit")
    assert not ok
    assert "row 1 of corrections" in detail


def test_doctor_misses_a_night_that_cron_forgot_and_a_night_that_failed(database: Database) -> None:
    assert verdict(database, "nightly")[0]
    assert "1 approved corrections wait" in verdict(database, "nightly")[1]
    told = {"version": "", "parent": "", "reason": "the disk is full", "report": {}}
    night = nights.begin(database)
    nights.finish(database, night, outcome="nothing_to_learn", **told)  # type: ignore[arg-type]
    assert verdict(database, "nightly") == (True, "the last one ended 0 hours ago: nothing_to_learn")
    nights.finish(database, night, outcome="failed", **told)  # type: ignore[arg-type]
    assert verdict(database, "nightly") == (False, "the last night, 0 hours ago, failed: the disk is full")
    old = (datetime.now(UTC) - timedelta(hours=49)).isoformat()
    database.here.execute("UPDATE nightly_runs SET finished_at = ?", [old])
    ok, detail = verdict(database, "nightly")
    assert (ok, "49 hours ago" in detail, "cron" in detail) == (False, True, True)


def test_doctor_sees_that_backups_have_stopped(database: Database) -> None:
    assert verdict(database, "backups") == (True, "none in the home folder; run 'nightshift backup' every day")
    made = backup.make(database, keep=KEEP)
    assert verdict(database, "backups") == (True, "1, the newest 0 hours old")
    old = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    (made.folder / manifest.NAME).write_text(json.dumps(backup.told(made.folder) | {"created_at": old}))
    assert not verdict(database, "backups")[0]


def test_doctor_checks_the_champion_and_the_way_back(database: Database) -> None:
    published_before(database)
    published(database, "v2")
    assert verdict(database, "champion")[0]
    assert verdict(database, "models") == (True, "3 registered; a rollback leads to v1, whose every hash matches")
    flip(database.home / "models" / "v1" / "model.safetensors")
    assert verdict(database, "champion")[0]
    assert not verdict(database, "models")[0]


@pytest.mark.parametrize(
    ("token", "fine"),
    [
        ("xoxb-1234567890-abc", True),
        ("xoxb-12345.78", True),
        ("", True),
        ("xoxp-1234567890-abc", False),
        ("xoxb-1", False),
        ("xoxb-1234567890 abc", False),
    ],
)
def test_doctor_and_serve_agree_on_the_shape_of_a_token(database: Database, token: str, fine: bool) -> None:
    ok, detail = verdict(database, "slack_tokens", SLACK_BOT_TOKEN=token)
    assert ok is fine
    with pytest.raises(UserError) as refused:
        check_tokens(settings_table.load({}, overrides={"SLACK_BOT_TOKEN": token}))
    assert ("SLACK_BOT_TOKEN is malformed" in str(refused.value)) is not fine
    assert not token or token not in detail


def test_doctor_leaves_an_index_that_somebody_owns_to_its_owner(database: Database) -> None:
    assert "not built" in verdict(database, "index")[1]
    (database.home / "index").mkdir()
    (database.home / "index" / "current").write_text("nowhere")
    with opener.file_lock(database.home / "index.lock"):
        assert verdict(database, "index") == (True, "in use by a running bot, which checks it itself")


def test_doctor_says_when_space_or_memory_is_short(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(database, "disk")[1].endswith("GB free")
    assert verdict(database, "memory")[1].endswith("GB available")
    monkeypatch.setattr(checkup, "LEAST_FREE_GB", 10**9)
    monkeypatch.setattr(checkup, "LEAST_MEMORY_GB", 10**9)
    assert not verdict(database, "disk")[0]
    assert "loading a model needs" in verdict(database, "memory")[1]


def test_doctor_finds_a_row_that_refers_to_nothing(database: Database) -> None:
    assert verdict(database, "database") == (True, "intact")
    database.here.execute("PRAGMA foreign_keys = OFF")
    database.here.execute("UPDATE wordings SET correction_id = 99")
    assert verdict(database, "database") == (False, "a row of wordings refers to what is not there")


def test_doctor_counts_the_steps_of_the_schema(database: Database) -> None:
    ok, detail = verdict(database, "migrations")
    assert ok
    assert detail.startswith(f"all {len(opener.known_steps())} steps applied")


@pytest.mark.slow
def test_doctor_survives_an_index_that_is_not_one(database: Database) -> None:
    folder = database.home / "index" / "broken"
    folder.mkdir(parents=True)
    (folder / "chroma.sqlite3").write_bytes(b"nonsense" * 1000)
    (folder.parent / "current").write_text("broken")
    ok, detail = verdict(database, "index")
    assert not ok
    assert "the bot rebuilds it when it starts" in detail


@pytest.mark.parametrize(("check", "setting"), [("base_model", "BASE_MODEL"), ("embedder", "EMBEDDER")])
def test_doctor_finds_that_a_models_folder_is_not_there(database: Database, check: str, setting: str) -> None:
    ok, detail = verdict(database, check, **{f"NIGHTSHIFT_{setting}": "/nowhere/model"})
    assert not ok
    assert detail == "there is no folder /nowhere/model"
