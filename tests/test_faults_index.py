"""The vector index under damage, kills and second openers: found, rebuilt from SQLite, and never a lost row.

The quick tests use a small index and a few points; those marked `faults` 5,000 rows and all points.
"""

import logging
import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fault_drivers
import numpy as np
import pytest

from retrieval import crashes, probe
from retrieval.index import NAME, VectorIndex, connect
from storage import documents
from storage.database import Database

FULL = (pytest.mark.faults, pytest.mark.slow)
QUICK = (pytest.mark.slow,)
DRIVER = Path(fault_drivers.__file__)
ROWS, FEW = 5000, 200
REBUILT_SECONDS = 10.0
SEED = 20261120
KILL_POINTS = 64
READY_SECONDS = 60
Damage = Callable[[Path, Path], None]


def build(home: Path, rows: int) -> None:
    """A home with this many rows and a healthy index."""
    database = Database(home)
    for part in range(0, rows, 500):
        fault_drivers.store(database, f"page-{part}", fault_drivers.vectors(min(500, rows - part), seed=part + 1))
    fault_drivers.store(database, "old", fault_drivers.vectors(5, seed=77))
    index = VectorIndex(home, database)
    assert index.try_open()
    assert index.check().ok
    index.close()
    database.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("large") / "home"
    build(home, ROWS)
    return home


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("small") / "home"
    build(home, FEW)
    return home


@pytest.fixture
def opened() -> Iterator[Callable[[Path], VectorIndex]]:
    """Opens an index in the background, as the bot does."""
    kept: list[tuple[VectorIndex, Database]] = []

    def open_one(home: Path) -> VectorIndex:
        database = Database(home)
        index = VectorIndex(home, database)
        kept.append((index, database))
        assert index.try_open(background=True)
        return index

    yield open_one
    for index, database in kept:
        index.close()
        database.close()


# Shapes of damage: each gets the index folder and the folder that the pointer names


def file_of(folder: Path) -> Path:
    return folder / "chroma.sqlite3"


def no_pointer(index: Path, folder: Path) -> None:
    (index / "current").unlink()


def pointer_to_nowhere(index: Path, folder: Path) -> None:
    (index / "current").write_text("0" * 16)


def pointer_of_bytes(index: Path, folder: Path) -> None:
    (index / "current").write_bytes(bytes(range(200, 256)))


def empty_pointer(index: Path, folder: Path) -> None:
    (index / "current").write_bytes(b"")


def no_file(index: Path, folder: Path) -> None:
    file_of(folder).unlink()


def empty_file(index: Path, folder: Path) -> None:
    file_of(folder).write_bytes(b"")


def half_a_file(index: Path, folder: Path) -> None:
    with file_of(folder).open("r+b") as file:
        file.truncate(file_of(folder).stat().st_size // 2)


def other_header(index: Path, folder: Path) -> None:
    overwrite(file_of(folder), 0, 100)


def noise_in_the_middle(index: Path, folder: Path) -> None:
    size = file_of(folder).stat().st_size
    overwrite(file_of(folder), size // 2, min(65536, size // 4))


def overwrite(file: Path, start: int, length: int) -> None:
    noise = np.random.default_rng(SEED).bytes(length)
    with file.open("r+b") as handle:
        handle.seek(start)
        handle.write(noise)


def emptied_log(index: Path, folder: Path) -> None:
    in_chroma(folder, "DELETE FROM embeddings_queue")


def in_chroma(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(file_of(folder))
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def by_another(folder: Path, change: Callable[[Any], None]) -> None:
    """What a second program does to the rows."""
    client = connect(folder)
    change(client.get_collection(NAME, embedding_function=None))
    client.close()


def a_row_lost(index: Path, folder: Path) -> None:
    by_another(folder, lambda rows: rows.delete(ids=["7"]))


def a_foreign_row(index: Path, folder: Path) -> None:
    row = fault_drivers.vectors(1, seed=5)
    by_another(folder, lambda rows: rows.upsert(ids=["999999"], embeddings=row, metadatas=[{"scope": "workspace"}]))


def two_vectors_swapped(index: Path, folder: Path) -> None:
    def swap(rows: Any) -> None:
        found = rows.get(ids=["3", "4"], include=["embeddings", "metadatas"])
        other = list(reversed([list(map(float, row)) for row in found["embeddings"]]))
        rows.upsert(ids=found["ids"], embeddings=other, metadatas=found["metadatas"])

    by_another(folder, swap)


def another_scope(index: Path, folder: Path) -> None:
    by_another(folder, lambda rows: rows.update(ids=["9"], metadatas=[{"scope": "C0PRIVATE"}]))


def no_collection(index: Path, folder: Path) -> None:
    client = connect(folder)
    client.delete_collection(NAME)
    client.close()


def another_embedder(index: Path, folder: Path) -> None:
    by_another(folder, lambda rows: rows.modify(metadata={"embedder": "other", "dimension": 3}))


def a_file_in_place_of_the_folder(index: Path, folder: Path) -> None:
    shutil.rmtree(index)
    index.write_bytes(b"index")


def a_start_that_died(index: Path, folder: Path) -> None:
    (index / crashes.MARK).touch()


def graph_files(index: Path, folder: Path) -> Path:
    """An index as a second opener with graph files leaves it, told to be ours; returns the folder of those files."""
    database = Database(index.parent)
    stored, (name, dimension) = documents.all_vectors(database), documents.embedder(database)
    database.close()
    shutil.rmtree(folder)
    client = connect(folder)
    ours = {"embedder": name, "dimension": dimension, "hnsw:space": "cosine", "hnsw:construction_ef": 200}
    rows = client.create_collection(
        NAME, embedding_function=None,
        metadata={**ours, "hnsw:search_ef": 200, "hnsw:sync_threshold": 100, "hnsw:batch_size": 50},
    )  # fmt: skip
    for start in range(0, len(stored.ids), 100):
        part = slice(start, start + 100)
        rows.upsert(
            ids=[str(i) for i in stored.ids[part]],
            embeddings=stored.matrix[part],
            metadatas=[{"scope": "workspace"}] * len(stored.ids[part]),
        )
    client.close()
    in_chroma(
        folder,
        "DELETE FROM collection_metadata WHERE key = 'hnsw:batch_size'",
        "UPDATE collection_metadata SET int_value = 1000000000 WHERE key = 'hnsw:sync_threshold'",
    )
    return next(file.parent for file in folder.glob("*/data_level0.bin"))


def graph_cut(index: Path, folder: Path) -> None:
    file = graph_files(index, folder) / "data_level0.bin"
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size // 3)


def graph_noise(index: Path, folder: Path) -> None:
    place = graph_files(index, folder)
    overwrite(place / "data_level0.bin", 1000, (place / "data_level0.bin").stat().st_size // 2)


def graph_header(index: Path, folder: Path) -> None:
    overwrite(graph_files(index, folder) / "header.bin", 0, 60)


def graph_links(index: Path, folder: Path) -> None:
    place = graph_files(index, folder)
    (place / "link_lists.bin").write_bytes(b"\xff" * 64)
    (place / "length.bin").write_bytes(b"\xff" * 64)


COLD: tuple[Damage, ...] = (
    no_pointer, pointer_to_nowhere, pointer_of_bytes, empty_pointer, no_file, empty_file, half_a_file, other_header,
    noise_in_the_middle, emptied_log, a_row_lost, a_foreign_row, two_vectors_swapped, another_scope, no_collection,
    another_embedder, a_file_in_place_of_the_folder, a_start_that_died, graph_cut, graph_noise, graph_header,
    graph_links,
)  # fmt: skip
HOT: tuple[Damage, ...] = (
    no_pointer, no_file, half_a_file, other_header, noise_in_the_middle, emptied_log, a_row_lost, a_foreign_row,
    two_vectors_swapped, another_scope, no_collection,
)  # fmt: skip


def copied(home: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A copy of a home, its index folder, and the folder that the pointer names."""
    shutil.copytree(home, tmp_path / "home")
    index = tmp_path / "home" / "index"
    return tmp_path / "home", index, index / (index / "current").read_text()


def pointed_at(index: Path) -> str:
    return (index / "current").read_text(errors="replace") if (index / "current").is_file() else ""


def until_rebuilt(index: VectorIndex, folder: Path, before: str, ask: Callable[[], None]) -> float:
    """Seconds until another folder is pointed at and is healthy, asking all the time."""
    started = time.monotonic()
    while time.monotonic() < started + 6 * REBUILT_SECONDS:
        ask()
        index.drain()
        if pointed_at(folder) not in ("", before) and index.check().ok:
            return time.monotonic() - started
        time.sleep(0.1)
    raise AssertionError("not rebuilt")


def ask(index: VectorIndex, row: Any) -> Callable[[], None]:
    """A search that must find the row by its own vector, whatever state the index is in."""

    def find() -> None:
        found = index.search(row, 3, ("workspace",))
        assert found[0][1] > 0.999

    return find


def cold(home: Path, damage: Damage, tmp_path: Path, opened: Any) -> float:
    """Seconds from the start of the bot on a damaged index until the new one serves."""
    place, folder, current = copied(home, tmp_path)
    damage(folder, current)
    index = opened(place)
    return until_rebuilt(index, folder, current.name, ask(index, fault_drivers.vectors(5, seed=77)[2]))


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("damage", COLD)
def test_damage_is_found_at_the_start(
    large: Path, tmp_path: Path, opened: Any, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seconds = cold(large, damage, tmp_path, opened)
    said = [r.getMessage() for r in caplog.records]
    why = [s.removeprefix("The vector index is rebuilt: ") for s in said if "rebuilt" in s]
    fault_drivers.record(f"index damage, cold: {damage.__name__}", seconds=round(seconds, 1), why=(why or [""])[0])
    assert seconds <= REBUILT_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("damage", [graph_noise])
def test_damage_is_found_at_the_start_of_a_small_index(
    small: Path, tmp_path: Path, opened: Any, damage: Damage
) -> None:
    assert cold(small, damage, tmp_path, opened) <= REBUILT_SECONDS


def hot(home: Path, damage: Damage, tmp_path: Path, opened: Any) -> float:
    """Seconds from a change of the documents, after damage under a running bot, until the new index serves."""
    place, folder, current = copied(home, tmp_path)
    index = opened(place)
    wait_until(lambda: index.check().ok)
    damage(folder, current)
    database = Database(place)
    rows = fault_drivers.vectors(3, seed=9)
    fault_drivers.store(database, "changed", rows)
    database.close()
    return until_rebuilt(index, folder, current.name, ask(index, rows[1]))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("damage", HOT)
def test_damage_is_found_after_a_drain_while_the_bot_lives(
    large: Path, tmp_path: Path, opened: Any, damage: Damage
) -> None:
    seconds = hot(large, damage, tmp_path, opened)
    fault_drivers.record(f"index damage, hot: {damage.__name__}", seconds=round(seconds, 1))
    assert seconds <= REBUILT_SECONDS


@pytest.mark.slow
def test_damage_is_found_after_a_drain_of_a_small_index(small: Path, tmp_path: Path, opened: Any) -> None:
    assert hot(small, emptied_log, tmp_path, opened) <= REBUILT_SECONDS


@pytest.mark.slow
def test_a_healthy_index_is_opened_as_it_is(small: Path, tmp_path: Path, opened: Any) -> None:
    place, folder, current = copied(small, tmp_path)
    index = opened(place)
    wait_until(lambda: index.check().ok)
    assert pointed_at(folder) == current.name
    assert index.prove().ok
    assert [p.name for p in folder.iterdir() if p.is_dir()] == [current.name]


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("#!/bin/sh\nkill -SEGV $$\n", "its check died of SIGSEGV"),
        ("#!/bin/sh\necho broken >&2; exit 3\n", "its check failed: broken"),
        ("#!/bin/sh\necho '[1]'\n", "its check failed: "),
        ("#!/bin/sh\nexec sleep 60\n", "its check did not end within 0.2 seconds"),
    ],
)
def test_a_check_that_dies_is_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, detail: str
) -> None:
    program = tmp_path / "python"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(probe, "SECONDS", 0.2 if "sleep" in script else 30)
    assert probe.run(tmp_path, tmp_path) == probe.Health(False, detail)


def test_a_disk_that_is_full_while_the_index_is_built_costs_no_answer(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folder, _ = copied(small, tmp_path)
    no_pointer(folder, folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    database = Database(place)
    index = VectorIndex(place, database)
    with monkeypatch.context() as patched:
        patched.setattr("retrieval.index.put", full)
        assert index.try_open()
        ask(index, fault_drivers.vectors(5, seed=77)[2])()
        assert index.drain() == 0  # not again for a while
    index._not_before = 0.0
    assert index.drain() == FEW + 5
    assert index.check().ok
    assert len([p for p in folder.iterdir() if p.is_dir()]) == 1
    index.close()


# Deaths inside of Chroma


def dies_in_a_query(home: Path) -> None:
    command = [sys.executable, "-B", str(DRIVER), "dying", str(home)]
    done = subprocess.run(command, cwd=DRIVER.parent, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert "it searches" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param("large", marks=pytest.mark.faults), "small"])
def test_a_segmentation_fault_in_a_search_is_noticed_at_the_next_start(
    request: pytest.FixtureRequest, size: str, tmp_path: Path, opened: Any
) -> None:
    home, folder, current = copied(request.getfixturevalue(size), tmp_path)
    dies_in_a_query(home)
    index = opened(home)
    assert index.crashed
    assert index.died_searching
    seconds = until_rebuilt(index, folder, current.name, ask(index, fault_drivers.vectors(5, seed=77)[2]))
    if size == "large":
        fault_drivers.record("index, SIGSEGV in a live search", rebuilt_seconds=round(seconds, 1))
    assert seconds <= REBUILT_SECONDS
    index.close()
    again = opened(home)
    wait_until(lambda: again.check().ok)
    assert not again.crashed
    assert not again.died_searching


@pytest.mark.faults
@pytest.mark.slow
def test_after_three_deaths_in_a_row_searches_are_exact_until_the_folder_is_deleted(
    large: Path, tmp_path: Path, opened: Any
) -> None:
    home, folder, _ = copied(large, tmp_path)
    for _ in range(crashes.MOST):
        dies_in_a_query(home)
    index = opened(home)
    find = ask(index, fault_drivers.vectors(5, seed=77)[2])
    started = time.monotonic()
    for _ in range(100):
        find()
    milliseconds = 10 * (time.monotonic() - started)
    fault_drivers.record("index, three deaths in a row", exact_search_ms=round(milliseconds, 1))
    assert not (folder / crashes.MARK).exists(), "an exact search is no risk"
    index.close()
    shutil.rmtree(folder)
    assert index.try_open()
    assert index.check().ok


def test_the_mark_stands_as_long_as_anybody_is_inside(tmp_path: Path) -> None:
    noted = crashes.Crashes(tmp_path)
    with noted.inside():
        with noted.inside():
            pass
        assert (tmp_path / crashes.MARK).exists()
    assert not (tmp_path / crashes.MARK).exists()
    noted.look_back()
    assert (noted.before, noted.count, noted.too_many) == (False, 0, False)


def test_deaths_are_counted_in_a_row_and_forgiven_by_an_orderly_end(tmp_path: Path) -> None:
    for number in range(1, crashes.MOST + 1):
        (tmp_path / crashes.MARK).touch()
        noted = crashes.Crashes(tmp_path)
        noted.look_back()
        assert (noted.before, noted.count, noted.too_many) == (True, number, number == crashes.MOST)
    noted.forgive()
    (tmp_path / crashes.COUNT).write_text("x" + (tmp_path / crashes.COUNT).read_text())
    noted.look_back()
    assert (noted.before, noted.count) == (False, 0)


# Kills


def after_a_kill(home: Path, acknowledged: set[str]) -> list[str]:
    """What is wrong with SQLite or the index after a writer was killed."""
    database = Database(home)
    stored = {row["path"] for row in database.rows("SELECT path FROM documents")}
    found = [f"lost {path}" for path in acknowledged - stored - {"removed"}]
    if "removed" in acknowledged and "old" in stored:
        found.append("a removed document is back")
    index = VectorIndex(home, database)
    if not index.try_open():
        found.append("the lock is still held")
    elif not (health := index.check()).ok:
        found.append(health.detail)
    for path in sorted(acknowledged - {"removed"}):
        rows = fault_drivers.vectors(20, seed=100 + int(path.removeprefix("new-")))
        found += [f"a row of {path} is not found" for row in rows if index.search(row, 1, ("workspace",))[0][1] < 0.999]
    if any(p.name.endswith(".check") for p in (home / "index").iterdir()):
        found.append("a copy is left")
    index.close()
    database.close()
    return found


def writes_of(home: Path, *options: str) -> tuple[set[str], bool, list[str]]:
    """Run the writer under strace; returns what it acknowledged, whether it was killed, and "thread call" lines."""
    log = home.parent / "strace.log"
    command = ["strace", "-f", "-qq", "-o", str(log), *options, sys.executable, "-B", str(DRIVER), "index", str(home)]
    done = subprocess.run(command, cwd=DRIVER.parent, capture_output=True, text=True, check=False, timeout=300)
    acknowledged = {line.removeprefix("ack ") for line in done.stdout.splitlines() if line.startswith("ack ")}
    return acknowledged, done.returncode == -signal.SIGKILL, log.read_text(errors="replace").splitlines()


def busiest(calls: Sequence[str], kinds: Sequence[str]) -> dict[str, int]:
    """How often the thread that makes a call most often makes it: strace counts by thread."""
    made = Counter((line.split()[0], kind) for line in calls for kind in kinds if f" {kind}(" in line[:40])
    return {kind: max((n for (_, k), n in made.items() if k == kind), default=0) for kind in kinds}


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here: apt-get install strace")
@pytest.mark.parametrize("points", [pytest.param(KILL_POINTS, marks=FULL), pytest.param(1, marks=QUICK)])
def test_index_writes_killed(small: Path, tmp_path: Path, points: int) -> None:
    home, _, _ = copied(small, tmp_path)
    kept = tmp_path / "kept"
    shutil.copytree(home, kept)
    counts = {"pwrite64": 40}
    if points == KILL_POINTS:
        kinds = ("pwrite64", "write", "fsync", "unlink", "rename", "mkdir", "ftruncate")
        counts = busiest(writes_of(home, "-e", f"trace={','.join(kinds)}")[2], kinds)
    killed, found, acks = dict[str, int](), list[str](), 0
    for kind, number in spread(counts, points):
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        done, died, _ = writes_of(home, "-e", f"trace={kind}", "-e", f"inject={kind}:signal=SIGKILL:when={number}")
        if died:
            killed[kind] = killed.get(kind, 0) + 1
            acks += len(done)
            found += [f"{kind} {number}: {wrong}" for wrong in after_a_kill(home, done)]
    if points == KILL_POINTS:
        fault_drivers.record(
            "index writes, SIGKILL", points=sum(killed.values()), calls=killed, of=counts, acknowledged=acks,
            lost=len(found),
        )  # fmt: skip
    assert found == []
    assert sum(killed.values()) >= (40 if points == KILL_POINTS else 1)


def spread(counts: dict[str, int], points: int) -> list[tuple[str, int]]:
    """About this many (call, number), spread evenly over all calls that were made, each kind at least once."""
    total = sum(counts.values())
    chosen = []
    for kind, count in counts.items():
        share = min(count, max(1, round(points * count / total))) if count else 0
        chosen += [(kind, 1 + round((i + 0.5) * (count - 1) / share)) for i in range(share)]
    return list(dict.fromkeys(chosen))


@pytest.mark.parametrize("times", [pytest.param(50, marks=FULL), pytest.param(1, marks=QUICK)])
def test_a_second_opener_is_refused_and_a_kill_frees_the_lock(small: Path, tmp_path: Path, times: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "fault_drivers", "chromadb", "retrieval.index"])
    home, _, _ = copied(small, tmp_path)
    refused = freed = 0
    for _ in range(times):
        ready = context.Event()
        process = context.Process(target=fault_drivers.hold_the_index, args=(home, ready))
        process.start()
        assert ready.wait(READY_SECONDS)
        database = Database(home)
        index = VectorIndex(home, database)
        refused += not index.try_open()
        process.kill()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        freed += index.try_open() and index.check().ok
        index.close()
        database.close()
    if times == 50:
        fault_drivers.record("second opener", refused=f"{refused}/{times}", free_after_kill=f"{freed}/{times}")
    assert (refused, freed) == (times, times)
