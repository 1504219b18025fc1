"""Several processes on one home: no write is lost, no lock outlives its process, and one of two always waits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage import audit, backup, conversations
from storage.database import BACKUPS, FILE_NAME, Database, connect
from storage.errors import ConflictError

ROOT = Path(__file__).parent.parent
PROCESSES, ROUNDS = 4, 150
KILLS = 10
START = "import sys; from pathlib import Path; from storage.database import Database\nhome = Path(sys.argv[1])\n"
COUNT = """
from storage import audit
database = Database(home)
for _ in range(150):
    with database.write() as db:
        seen = database.value("SELECT value FROM state WHERE name = 'counter'")
        db.execute("UPDATE state SET value = ? WHERE name = 'counter'", [seen + 1])
        audit.append(database, "counter.moved", to=seen + 1)
"""
HOLD = "database = Database(home)\nprint('open', flush=True)\nsys.stdin.read()\n"


def start(home: Path, script: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-c", START + script, str(home)]
    return subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(running: list["subprocess.Popen[str]"]) -> list[str]:
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running)
    return outputs


def test_four_processes_lose_none_of_600_read_modify_writes(home: Path) -> None:
    database = Database(home)
    database.here.execute("INSERT INTO state VALUES ('counter', 0)")
    finish([start(home, COUNT) for _ in range(PROCESSES)])
    assert database.value("SELECT value FROM state WHERE name = 'counter'") == PROCESSES * ROUNDS
    moved = [entry["payload"]["to"] for entry in audit.entries(database, "counter.moved")]
    assert moved == list(range(1, PROCESSES * ROUNDS + 1)), "and the log has them in the order in which they happened"
    assert audit.verify(database, audit.anchors(home)).ok


def test_four_processes_that_open_an_old_home_copy_and_migrate_it_once(home: Path) -> None:
    home.mkdir()
    raw = connect(home / FILE_NAME)
    raw.executescript((Path(__file__).parent / "first_schema.sql").read_text(encoding="utf-8"))
    raw.close()
    script = "print(Database(home).value('SELECT count(*) FROM corrections'))"
    assert [out.strip() for out in finish([start(home, script) for _ in range(PROCESSES)])] == ["2"] * PROCESSES
    assert len(list((home / BACKUPS).iterdir())) == 1


@pytest.mark.slow
def test_a_restore_is_refused_while_a_process_lives_and_free_after_its_kill(home: Path) -> None:
    database = Database(home)
    made = backup.make(database, keep=1)
    database.close()
    for _ in range(KILLS):
        holder = start(home, HOLD)
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(ConflictError, match="in use"):
            backup.restore(home, made.folder)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=10)
        holder.stdin.close()
        holder.stdout.close()
        assert backup.restore(home, made.folder).source == made.folder


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_there(home: Path) -> None:
    """A process is killed while it writes without pause; every id that it printed must be stored."""
    script = (
        "from storage import conversations\ndatabase = Database(home)\n"
        "while True:\n"
        "    print(conversations.ask(database, 'q', user='U1', channel='C1', thread='').id, flush=True)\n"
    )
    told = 0
    for _ in range(KILLS):
        writer = start(home, script)
        assert writer.stdout is not None
        assert writer.stdin is not None
        for _ in range(5):
            told = max(told, int(writer.stdout.readline()))
        os.kill(writer.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in writer.stdout.read().splitlines() if line)])
        writer.wait(timeout=10)
        writer.stdin.close()
        writer.stdout.close()
        database = Database(home)
        assert conversations.get_question(database, told).id == told
        assert audit.verify(database, audit.anchors(home)).ok
        database.close()
