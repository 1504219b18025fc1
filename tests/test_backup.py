"""Backup, restore, export, migrations and doctor: what was stored comes back, and nothing half-done ever serves."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fault_drivers import published

from storage import audit, backup, conversations, corrections, export, manifest, registry, retention
from storage import database as opener
from storage.cli import main
from storage.database import BACKUPS, FILE_NAME, Database
from storage.domain import Memory, ModelVersion
from storage.errors import ConflictError, IntegrityError, NotFoundError, OutOfSpaceError

ROOT = Path(__file__).parent.parent
FIRST_SCHEMA = Path(__file__).parent / "first_schema.sql"
KEEP = 3
DRILL_MINUTES = 5


@pytest.fixture
def database(home: Path) -> Database:
    opened = Database(home)
    teach(opened, 1)
    return opened


def teach(database: Database, *numbers: int) -> None:
    for number in numbers:
        row = corrections.propose(database, question=f"What is {number}?", answer=f"It is {number}.", author="U1")
        corrections.approve(database, row.id, "U2")


def questions(home: Path) -> list[str]:
    database = Database(home)
    try:
        return [row.question for row in corrections.in_status(database)]
    finally:
        database.close()


def intact(home: Path) -> bool:
    database = Database(home)
    try:
        return audit.verify(database, audit.anchors(home)).ok
    finally:
        database.close()


def command(home: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), *args])


def in_a_process(home: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    """The installed command, as cron and people run it."""
    line = [str(Path(sys.executable).parent / "nightshift"), "--home", str(home), *args]
    return subprocess.run(line, cwd=home.parent, capture_output=True, text=True, timeout=60, check=False)


# Making


def test_a_backup_is_sealed_checked_and_says_where_the_log_stood(database: Database) -> None:
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={})
    made = backup.make(database, keep=KEEP)
    told = manifest.verify(made.folder, manifest.sha256(made.folder / manifest.NAME))
    assert told["audit"] == audit.head(database).as_json() == made.head.as_json()
    assert told["versions"] == ["base"]
    assert backup.verify(made.folder) == made.head
    assert next(audit.entries(database, "backup.began"))["payload"] == {"name": made.folder.name}


def test_only_the_newest_are_kept_and_leftovers_go(database: Database) -> None:
    target = database.home / BACKUPS
    (target / ".tmp-20200101-000000-000000").mkdir(parents=True)
    made = [backup.make(database, keep=KEEP).folder for _ in range(5)]
    assert backup.listed(target) == made[-KEEP:]
    assert {p.name for p in target.iterdir()} == {".lock", *(f.name for f in made[-KEEP:])}


def test_a_backup_under_writes_is_one_moment_and_not_a_mixture(database: Database) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 2
        while not stop.is_set():
            with database.write():
                teach(database, number)
                conversations.ask(database, f"What is {number}?", user="U1", channel="C1", thread="1")
            number += 1
            stop.wait(0.002)  # SQLite knows no queue: a writer that never pauses can keep the backup's note out
        database.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = [backup.make(database, keep=KEEP).folder for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    for folder in made:
        file = folder / FILE_NAME
        taught = opener.peek(file, "SELECT count(*) AS n, count(DISTINCT approved_by) AS by FROM corrections")
        asked = opener.peek(file, "SELECT count(*) AS n FROM questions")
        assert taught is not None
        assert asked is not None
        assert (taught["n"], taught["by"]) == (asked["n"] + 1, 1)
        assert backup.verify(folder)


def test_of_two_backups_at_once_one_is_told(database: Database) -> None:
    target = database.home / BACKUPS
    target.mkdir()
    with opener.file_lock(target / ".lock"), pytest.raises(ConflictError, match="Another backup"):
        backup.make(database, keep=KEEP)


def test_a_folder_that_cannot_be_written_is_one_sentence(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutOfSpaceError, match="cannot be written"):
        backup.make(database, to=tmp_path / "file" / "backups", keep=KEEP)


# The way back


def test_the_drill_brings_everything_back_from_a_wrecked_database(database: Database) -> None:
    """The whole way by commands, and in the time that was promised."""
    home = database.home
    teach(database, *range(2, 200))
    published_before(database)
    before = questions(home)
    made = json.loads(in_a_process(home, "backup", "--json").stdout)
    teach(database, 999)
    database.close()
    del database
    (home / FILE_NAME).write_bytes(b"\0" * 100_000)
    began = datetime.now(UTC)
    assert "is damaged" in in_a_process(home, "review", "list").stderr
    done = in_a_process(home, "restore", "--json")
    assert datetime.now(UTC) - began < timedelta(minutes=DRILL_MINUTES)
    told = json.loads(done.stdout)
    assert (told["ok"], told["restored"], told["champion"]) == (True, made["backup"], "v1")
    assert questions(home) == before
    assert (Path(told["replaced"]) / FILE_NAME).stat().st_size == 100_000
    assert in_a_process(home, "audit", "verify").returncode == 0


def published_before(database: Database) -> None:
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={})
    published(database, "v1")


def test_what_is_replaced_is_kept_whole(database: Database) -> None:
    home = database.home
    made = backup.make(database, keep=KEEP)
    teach(database, 2, 3)
    database.close()
    del database
    done = backup.restore(home, Path(made.folder.name))
    assert questions(home) == ["What is 1?"]
    assert done.replaced is not None
    assert questions(done.replaced) == ["What is 1?", "What is 2?", "What is 3?"]
    assert not (home / "index").exists()


def test_the_log_tells_of_the_restore_and_forgives_anchors_of_what_was_replaced(database: Database) -> None:
    home = database.home
    first = backup.make(database, keep=KEEP)
    teach(database, 2)
    backup.make(database, keep=KEEP)
    teach(database, 3)
    last = audit.head(database)
    database.close()
    del database
    backup.restore(home, first.folder)
    again = Database(home)
    verdict = audit.verify(again, audit.anchors(home))
    assert (verdict.ok, verdict.restores, verdict.anchors) == (True, 1, 3)
    told = next(audit.entries(again, audit.RESTORED))["payload"]
    assert (told["backup"], told["replaced_seq"], told["replaced_hash"]) == (first.folder.name, last.seq, last.hash)
    beyond = audit.Anchor(last.seq + 1, last.hash, "a report")
    assert [f.kind for f in audit.verify(again, [beyond]).faults] == ["cut"], "but only of what was replaced"


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a flipped byte": lambda f: flip(f / FILE_NAME),
    "a cut file": lambda f: os.truncate(f / FILE_NAME, 8192),
    "an empty file": lambda f: (f / FILE_NAME).write_bytes(b""),
    "no manifest": lambda f: (f / manifest.NAME).unlink(),
    "no database": lambda f: (f / FILE_NAME).unlink(),
    "a stranger's file": lambda f: (f / "run.py").write_text(""),
    "a forged log": lambda f: forge(f),
}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def forge(folder: Path) -> None:
    """A changed entry in a backup whose manifest was made anew."""
    raw = opener.driver().connect(folder / FILE_NAME)
    raw.execute("DROP TRIGGER audit_is_never_changed")
    raw.execute("UPDATE audit SET payload = '{}' WHERE seq = 2")
    raw.commit()
    raw.close()
    about = json.loads((folder / manifest.NAME).read_text())
    (folder / manifest.NAME).unlink()
    manifest.seal(folder, {name: about[name] for name in ("created_at", "home", "audit", "versions")})


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_backup_is_refused_and_the_database_stays(database: Database, damage: str) -> None:
    home = database.home
    made = backup.make(database, keep=KEEP)
    teach(database, 2)
    database.close()
    del database
    DAMAGE[damage](made.folder)
    with pytest.raises(IntegrityError):
        backup.restore(home, made.folder)
    assert questions(home) == ["What is 1?", "What is 2?"]
    assert not (home / backup.REPLACED).exists()


def test_no_restore_while_anybody_has_the_database_open(database: Database) -> None:
    made = backup.make(database, keep=KEEP)
    with pytest.raises(ConflictError, match="stop the bot"):
        backup.restore(database.home, made.folder)
    with opener.file_lock(database.home.parent / "x"), pytest.raises(NotFoundError, match="no backup"):
        backup.restore(database.home, Path("yesterday"))


def test_no_database_opens_while_a_restore_runs(home: Path) -> None:
    Database(home).close()
    with backup.alone(home), pytest.raises(ConflictError, match="being restored"):
        Database(home)
    assert questions(home) == []


def test_without_a_backup_the_sentence_says_where_it_looked(home: Path) -> None:
    done = command(home, "restore")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "There is no backup in" in done.stderr


def test_a_restore_on_another_machine_finds_its_models_there(database: Database, tmp_path: Path) -> None:
    published_before(database)
    made = backup.make(database, to=tmp_path / "usb", keep=KEEP, models=True)
    again = backup.make(database, to=tmp_path / "usb", keep=KEEP, models=True)
    assert made.bytes > again.bytes, "a model is copied once"
    database.close()
    shutil.rmtree(database.home)
    elsewhere = tmp_path / "elsewhere"
    done = backup.restore(elsewhere, again.folder)
    assert (done.champion, done.replaced) == ("v1", None)
    opened = Database(elsewhere)
    version = registry.get(opened, "v1")
    assert version.path == str(elsewhere / "models" / "v1")
    assert manifest.verify(Path(version.path), version.manifest_sha256)["version"] == "v1"
    assert audit.verify(opened, audit.anchors(elsewhere, tmp_path / "usb")).ok


def test_a_champion_whose_folder_is_gone_does_not_serve_after_a_restore(database: Database) -> None:
    home = database.home
    published_before(database)
    shutil.rmtree(published(database, "v2"))
    made = backup.make(database, keep=KEEP)
    database.close()
    del database
    assert backup.restore(home, made.folder).champion == "v1"
    shutil.rmtree(home / "models")
    assert backup.restore(home, made.folder).champion is None, "then the next start makes the base anew"
    assert intact(home)


def test_model_copies_leave_with_the_last_backup_that_lists_them(database: Database, tmp_path: Path) -> None:
    published_before(database)
    backup.make(database, keep=1, models=True)
    copies = database.home / BACKUPS / "models"
    assert [f.name for f in copies.iterdir()] == ["v1"]
    listed = backup.listed(database.home / BACKUPS)[0]
    (listed / manifest.NAME).write_text(json.dumps(backup.told(listed) | {"versions": ["base"]}))
    backup.rotate(database.home / BACKUPS, 1)
    assert list(copies.iterdir()) == []


def test_a_backup_lists_what_its_aliases_name_and_other_model_copies_leave(database: Database) -> None:
    copies = database.home / BACKUPS / "models"
    published_before(database)
    first = backup.make(database, keep=2, models=True)
    assert first.versions == ("base", "v1")
    for name in ("v2", "v3"):
        published(database, name)
    assert backup.make(database, keep=2, models=True).versions == ("v2", "v3")
    assert sorted(f.name for f in copies.iterdir()) == ["v1", "v2", "v3"], "the first backup is kept still"
    assert backup.make(database, keep=2).versions == ("v2", "v3")
    assert sorted(f.name for f in copies.iterdir()) == ["v2", "v3"]


def test_every_backup_that_is_kept_brings_its_own_models_back(database: Database) -> None:
    home = database.home
    published_before(database)
    made = {"v1": backup.make(database, keep=KEEP, models=True)}
    for name in ("v2", "v3"):
        published(database, name)
        made[name] = backup.make(database, keep=KEEP, models=True)
    shutil.rmtree(home / "models" / "v3")
    assert backup.make(database, keep=KEEP).versions == ("v2", "v3"), "of what is gone the copy is all there is"
    database.close()
    del database, made["v1"]
    for champion, one in made.items():
        shutil.rmtree(home / "models")
        assert backup.restore(home, one.folder).champion == champion


def test_copies_of_models_that_hold_erased_words_leave_with_the_earlier_copies(database: Database) -> None:
    copies = database.home / BACKUPS / "models"
    published_before(database)
    published(database, "v2")
    registry.remember(database, (Memory("v2", 1, True, {}),))
    backup.make(database, keep=KEEP, models=True)
    retention.erase(database, "U1")
    assert backup.make(database, keep=KEEP, models=True).versions == ("v1",)
    assert sorted(f.name for f in copies.iterdir()) == ["v1", "v2"], "an earlier backup may still need it"
    shutil.rmtree(database.home / "models" / "v2")
    backup.drop_older(database)
    assert [f.name for f in copies.iterdir()] == ["v1"]
    backup.make(database, keep=KEEP, models=True)
    assert [f.name for f in copies.iterdir()] == ["v1"]


# Killed at every line


def killed_at(line: int, work: Callable[[], Any]) -> bool:
    """Run work in a child that dies, without cleaning up, at the given line of backup.py; false when it ended."""
    child = os.fork()
    if child == 0:
        seen = 0

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal seen
            if not frame.f_code.co_filename.endswith("backup.py"):
                return None
            seen += event == "line"
            if seen == line:
                os._exit(9)
            return trace

        sys.settrace(trace)
        try:
            work()
        except BaseException:
            os._exit(3)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def test_a_restore_killed_at_any_line_leaves_the_old_database_or_the_new_one(database: Database) -> None:
    home = database.home
    made = backup.make(database, keep=KEEP)
    teach(database, 2)
    database.close()
    del database
    old, new = ["What is 1?", "What is 2?"], ["What is 1?"]
    (home / "whole").mkdir()
    shutil.copy(home / FILE_NAME, home / "whole" / FILE_NAME)
    points, line, outcomes = 0, 1, []
    while killed_at(line, lambda: backup.restore(home, made.folder)):
        points += 1
        outcomes.append(questions(home))
        assert outcomes[-1] in (old, new), f"killed at line {line}"
        assert intact(home), f"killed at line {line}"
        shutil.copy(home / "whole" / FILE_NAME, home / FILE_NAME)
        shutil.rmtree(home / backup.REPLACED, ignore_errors=True)
        line += 5
    assert points >= 20
    assert old in outcomes
    assert questions(home) == new
    assert intact(home)


def test_a_backup_killed_at_any_line_is_whole_or_not_there(database: Database) -> None:
    home = database.home
    database.close()
    del database
    points, line = 0, 1
    while killed_at(line, lambda: backup.make(Database(home), keep=KEEP)):
        points += 1
        assert all(backup.verify(folder) for folder in backup.listed(home / BACKUPS))
        line += 4
    assert points >= 10
    assert len(backup.listed(home / BACKUPS)) in (1, 2, KEEP)
    assert not list((home / BACKUPS).glob(f"{manifest.TEMPORARY}*"))


# A full disk

FULL = """
import resource, sys
from pathlib import Path
from storage import backup, conversations
from storage.database import Database
from storage.errors import OutOfSpaceError
home = Path(sys.argv[1])
database = Database(home)
words = "What is it? " * 300
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def ask():
    conversations.ask(database, words, user="U1", channel="C1", thread="1")
limit(2_000_000)
told, asked = "", 0
try:
    while asked < 1000:
        ask()
        asked += 1
except OutOfSpaceError as error:
    told = str(error)
print(told)
limit(20_000)
try:
    backup.make(database, keep=3)
except OutOfSpaceError as error:
    print(error)
limit(resource.RLIM_INFINITY)
assert asked == database.value("SELECT count(*) FROM questions"), "what was acknowledged is there, and no more"
ask()
print(asked + 1)
"""


def test_a_full_disk_is_one_sentence_loses_nothing_and_heals(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(home)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second, count = done.stdout.splitlines()
    assert "nightshift.db cannot be written" in first
    assert "free disk space" in first
    assert "cannot be written" in second
    database = Database(home)
    assert database.value("SELECT count(*) FROM questions") == int(count) > 10
    assert audit.verify(database, audit.anchors(home)).ok
    assert backup.listed(home / BACKUPS) == []
    assert [p.name for p in (home / BACKUPS).iterdir()] == [".lock"], "no half of a backup lies about"


# Export


def test_an_export_holds_everything_and_trains_on_workspace_rows_only(database: Database, tmp_path: Path) -> None:
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={})
    registry.register(database, ModelVersion("v1", "base", "2099", "models/v1", "", "", "", 1, (), {}))
    registry.remember(database, (Memory("v1", 1, True, {}),))
    corrections.add_wordings(database, 1, ["what's 1", "one?"], "generated")
    corrections.add_wordings(database, 1, ["what is 2"], "rejected")
    private = corrections.propose(database, question="Secret?", answer="Yes.", author="U1", scope="C0PRIVATE")
    corrections.approve(database, private.id, "U2")
    corrections.propose(database, question="Pending?", answer="Perhaps.", author="U1")
    counted = export.write(database, tmp_path / "out")
    assert counted == {
        "corrections.jsonl": 3, "messages.jsonl": 3, "instructions.jsonl": 3,
        "snapshots/v1.messages.jsonl": 3, "snapshots/v1.instructions.jsonl": 3,
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out" / "messages.jsonl").read_text().splitlines()]
    assert [line["messages"][0]["content"] for line in lines] == ["What is 1?", "what's 1", "one?"]
    assert {line["messages"][1]["content"] for line in lines} == {"It is 1."}
    told = [json.loads(line) for line in (tmp_path / "out" / "corrections.jsonl").read_text().splitlines()]
    assert [(t["status"], t["scope"]) for t in told] == [
        ("approved", "workspace"), ("approved", "C0PRIVATE"), ("pending", "workspace"),
    ]  # fmt: skip
    assert {"text": "what is 2", "kind": "rejected"} in told[0]["wordings"]


def test_an_export_never_mixes_with_what_is_there(database: Database, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    done = command(database.home, "export", "--out", str(tmp_path), "--json")
    assert done.exit_code == 1
    assert "is not empty" in json.loads(done.stdout)["error"]["message"]
