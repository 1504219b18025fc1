"""Homes of earlier releases open, after a checked copy; homes of later ones are refused; nothing is half migrated."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlite_utils import Database as Plain
from sqlite_utils import Migrations

from storage import audit, conversations, corrections
from storage import database as opener
from storage.cli import main
from storage.database import BACKUPS, FILE_NAME, Database, connect
from storage.errors import UserError
from storage.migrations import migrations

ROOT = Path(__file__).parent.parent
FIRST_SCHEMA = Path(__file__).parent / "first_schema.sql"


def old_home(home: Path) -> Path:
    """A home as the first release left it."""
    home.mkdir(parents=True)
    raw = connect(home / FILE_NAME)
    raw.executescript(FIRST_SCHEMA.read_text(encoding="utf-8"))
    raw.close()
    return home


def command(home: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), *args])


def test_a_home_of_the_first_release_opens_and_was_copied_before(home: Path) -> None:
    database = Database(old_home(home))
    assert not migrations.pending(database.here)
    assert [c.status.value for c in corrections.in_status(database)] == ["approved", "pending"]
    assert len(conversations.votes(database, 1)) == 1
    kept = list((home / BACKUPS).iterdir())
    second = migrations.applied(database.here)[1].name
    assert [k.name.startswith(f"before-{second}-") for k in kept] == [True]
    opener.check_file(kept[0])
    assert opener.peek(kept[0], "SELECT count(*) AS n FROM questions") == {"n": 2}
    assert opener.peek(kept[0], "SELECT 1 FROM sqlite_master WHERE name = 'audit'") is None


def test_rows_older_than_the_log_are_no_fault_and_later_ones_are_held_to_it(home: Path) -> None:
    database = Database(old_home(home))
    assert audit.verify(database).ok
    corrections.approve(database, 2, "U1ANA")
    conversations.ask(database, "A new question?", user="U1ANA", channel="C1", thread="")
    assert next(audit.entries(database, audit.BEGAN))["payload"] == {
        "questions": 2, "answers": 1, "corrections": 2, "nightly_runs": 0,
    }  # fmt: skip
    assert audit.verify(database).ok
    database.here.execute("UPDATE questions SET text = 'another' WHERE id = 3")
    assert [f.kind for f in audit.verify(database).faults] == ["row"]


def test_the_copy_made_before_a_migration_can_be_restored(home: Path) -> None:
    opened = Database(old_home(home))
    corrections.approve(opened, 2, "U1ANA")
    opened.close()
    del opened
    (kept,) = (home / BACKUPS).iterdir()
    assert command(home, "restore", kept.name).exit_code == 0
    again = Database(home)
    assert [c.status.value for c in corrections.in_status(again)] == ["approved", "pending"]
    assert audit.verify(again, audit.anchors(home)).ok


def test_the_schema_is_the_same_whether_it_grew_or_was_born_today(home: Path, tmp_path: Path) -> None:
    def schema(database: Database) -> set[tuple[str, str]]:
        rows = database.rows("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {(r["name"], " ".join(r["sql"].split())) for r in rows if "_sqlite_migrations" not in r["name"]}

    assert schema(Database(old_home(home))) == schema(Database(tmp_path / "new"))


def test_every_step_leads_to_the_schema_of_today(home: Path) -> None:
    """From each release that ever was, not only from the first."""
    steps = [step.name for step in migrations.pending(Plain(memory=True))]
    for step in steps[1:]:
        folder = old_home(home / step)
        early = Plain(connect(folder / FILE_NAME))
        migrations.apply(early, stop_before=step)
        early.close()
        assert not migrations.pending(Database(folder).here)


def test_a_home_of_a_newer_release_is_refused_and_left_alone(home: Path) -> None:
    database = Database(home)
    newer = Migrations("nightshift")

    @newer(name="from_the_future")
    def step(db: Any) -> None:
        db.execute("CREATE TABLE future (x INTEGER) STRICT")

    newer.apply(database.here)
    before = database.rows("SELECT * FROM sqlite_master")
    with pytest.raises(UserError, match=r"newer Nightshift .*from_the_future"):
        Database(database.home)
    assert database.rows("SELECT * FROM sqlite_master") == before
    done = command(database.home, "review", "list", "--json")
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (1, "bad_input")


TOO_FULL_TO_MIGRATE = """
import resource, sys
from pathlib import Path
from storage.database import Database
from storage.errors import OutOfSpaceError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    Database(Path(sys.argv[1]))
except OutOfSpaceError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [20_000, 150_000])
def test_a_disk_too_full_for_the_copy_or_the_new_schema_leaves_the_old_one(home: Path, limit: int) -> None:
    old_home(home)
    done = subprocess.run(
        [sys.executable, "-c", TOO_FULL_TO_MIGRATE, str(home), str(limit)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "cannot be written" in done.stdout
    assert opener.peek(home / FILE_NAME, "SELECT count(*) AS n FROM questions") == {"n": 2}
    database = Database(home)
    assert not migrations.pending(database.here)
    assert len(corrections.in_status(database)) == 2
