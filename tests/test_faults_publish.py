"""Publication and the night under faults that are enumerated, not hoped for: every line, every system call that writes.

The quick tests look at a spread of the points; those marked `faults` at all of them (`make test-faults`).
"""

import multiprocessing
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fault_drivers
import pytest

from learning import publish
from storage import backup, corrections, manifest, registry
from storage.database import Database
from storage.errors import ConflictError

FULL = (pytest.mark.faults, pytest.mark.slow)
QUICK = (pytest.mark.slow,)
DRIVER = Path(fault_drivers.__file__)
SEED = 20261120
STORAGE = ("audit", "database", "manifest", "nights", "registry", "trust")
PUBLICATION = ("learning/publish.py", *(f"storage/{name}.py" for name in STORAGE))
NIGHT = ("learning/nightly.py", "learning/candidate.py")
WRITES = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "mkdir", "unlink", "unlinkat", "rmdir", "ftruncate", "flock",
)  # fmt: skip
STAGES = ("backup", "snapshot", "replay", "train", "merge", "evaluate", "calibrate", "publish")
READY_SECONDS = 60


@pytest.fixture(scope="module")
def fork() -> Any:
    """A server that has imported everything once; its children start in milliseconds and may be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "fault_drivers", "learning.nightly"])
    return context


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A home where v1 was published over the base."""
    home = tmp_path / "template"
    fault_drivers.prepare(home)
    fault_drivers.publish_once(home, "v0")
    fault_drivers.publish_once(home, "v1")
    return home


@pytest.fixture
def dark(fork: Any, tmp_path: Path) -> Path:
    """A home where one night has passed and another has something to learn."""
    home = tmp_path / "template"
    fault_drivers.prepare(home)
    process = fork.Process(target=fault_drivers.night, args=(home,))
    process.start()
    assert finished(process) == 0
    database = Database(home)
    fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    database.close()
    return home


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a home under the same path each time, so that stored paths hold."""

    def copy(template: Path) -> Path:
        kept = tmp_path / "kept"
        if not kept.exists():
            shutil.copytree(template, kept)
        shutil.rmtree(template)
        shutil.copytree(kept, template)
        return template

    return copy


def finished(process: Any) -> int:
    process.join(timeout=120)
    assert process.exitcode is not None
    return int(process.exitcode)


def champion(home: Path) -> str:
    database = Database(home)
    name = registry.champion(database)
    database.close()
    return name


# Publication


def after_a_fault(home: Path) -> tuple[str, list[str]]:
    """The champion right after a fault in publishing v2 over v1; what is wrong then, and after the rerun."""
    found = fault_drivers.violations(home, ("v1", "v2"))
    serves = champion(home)
    again = "v2" if serves == "v1" else "v3"
    fault_drivers.publish_once(home, again)
    found += fault_drivers.violations(home, (again,))
    database = Database(home)
    publish.sweep(database, fault_drivers.SNAPSHOT)
    database.close()
    return serves, found + [f"left over: {name}" for name in fault_drivers.leftovers(home)]


@pytest.mark.parametrize("every", [pytest.param(1, marks=FULL), pytest.param(300, marks=QUICK)])
def test_publication_killed_at_every_line(fork: Any, template: Path, fresh: Any, every: int) -> None:
    number, served, found = 1, {"v1": 0, "v2": 0}, list[str]()
    started = time.monotonic()
    while True:
        home = fresh(template)
        arguments = (number, PUBLICATION, fault_drivers.publish_once, home, "v2")
        process = fork.Process(target=fault_drivers.killed_at_line, args=arguments)
        process.start()
        if finished(process) == 0:
            break
        serves, wrong = after_a_fault(home)
        served[serves] += 1
        found += [f"line {number}: {w}" for w in wrong]
        number += every
    points = sum(served.values())
    if every == 1:
        seconds = round(time.monotonic() - started)
        fault_drivers.record(
            "publish, SIGKILL at every line", points=points, violations=len(found), old=served["v1"],
            new=served["v2"], seconds=seconds,
        )  # fmt: skip
    assert found == []
    assert points >= (200 if every == 1 else 3)
    assert every > 1 or min(served.values()) > 0, "the points lie on both sides of the switch"


def injected(home: Path, call: str, fault: str, number: int) -> bool:
    """Publish v2 under strace, with a fault at the number-th call; false when there were fewer calls."""
    log = home.parent / "strace.log"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e"]
    command += [f"inject={call}:{fault}:when={number}", sys.executable, "-B", str(DRIVER), "publish", str(home), "v2"]
    subprocess.run(command, cwd=DRIVER.parent, capture_output=True, check=False, timeout=120)
    told = log.read_text(errors="replace")
    return "INJECTED" in told or "killed by SIGKILL" in told


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here: apt-get install strace")
@pytest.mark.parametrize(
    ("fault", "every"),
    [
        pytest.param("signal=SIGKILL", 1, marks=FULL),
        pytest.param("error=ENOSPC", 1, marks=FULL),
        pytest.param("error=EIO", 1, marks=FULL),
        pytest.param("error=ENOSPC", 30, marks=QUICK),
    ],
)
def test_publication_at_every_call_that_writes(template: Path, fresh: Any, fault: str, every: int) -> None:
    points, found, served = dict[str, int](), list[str](), {"v1": 0, "v2": 0}
    for call in WRITES if every == 1 else ("pwrite64", "fsync"):
        number = 1
        while injected(fresh(template), call, fault, number):
            serves, wrong = after_a_fault(template)
            served[serves] += 1
            found += [f"{call} {number} {fault}: {w}" for w in wrong]
            points[call] = points.get(call, 0) + 1
            number += every
    if every == 1:
        fault_drivers.record(
            f"publish, {fault}", points=sum(points.values()), violations=len(found), old=served["v1"],
            new=served["v2"], calls=points,
        )  # fmt: skip
    assert found == []
    assert sum(points.values()) >= (60 if every == 1 else 2)


# The night


def next_night_completes(home: Path, before: str) -> list[str]:
    """What is wrong right after a night was killed, and after the next one (unless the killed one had published)."""
    new = champion(home)
    found = fault_drivers.violations(home, (before, new))
    child = multiprocessing.get_context("forkserver").Process(target=fault_drivers.night, args=(home,))
    child.start()
    if finished(child) != 0:
        return [*found, "the next night failed"]
    database = Database(home)
    name = registry.champion(database)
    learnt = {i for i, m in registry.memories(database, name).items() if m.memorised}
    approved = {row.id for row in corrections.in_status(database, corrections.Status.APPROVED)}
    database.close()
    found += fault_drivers.violations(home, (name,))
    if name == before or learnt != approved:
        found.append(f"{name} holds {learnt} of {approved}")
    return found + [f"left over: {n}" for n in fault_drivers.leftovers(home) if "-adapter" not in n]


def killed_nights(fork: Any, dark: Path, fresh: Any, points: Sequence[Any], kill: Any) -> tuple[int, list[str]]:
    """Kill a night at each point; returns how many were really killed, and what was wrong afterwards."""
    before, killed, found = champion(dark), 0, list[str]()
    for point in points:
        home = fresh(dark)
        killed += kill(home, point)
        found += [f"{point}: {wrong}" for wrong in next_night_completes(home, before)]
    return killed, found


@pytest.mark.parametrize("stages", [pytest.param(STAGES, marks=FULL), pytest.param(("publish",), marks=QUICK)])
def test_night_killed_as_each_stage_begins(fork: Any, dark: Path, fresh: Any, stages: Sequence[str]) -> None:
    def kill(home: Path, stage: str) -> bool:
        process = fork.Process(target=fault_drivers.night_killed_at, args=(home, stage))
        process.start()
        return finished(process) == -signal.SIGKILL

    killed, found = killed_nights(fork, dark, fresh, stages, kill)
    if stages == STAGES:
        fault_drivers.record("night, SIGKILL as a stage begins", points=killed, violations=len(found))
    assert found == []
    assert killed == len(stages)


@pytest.mark.faults
@pytest.mark.slow
def test_night_killed_at_its_lines(fork: Any, dark: Path, fresh: Any) -> None:
    def kill(home: Path, line: int) -> bool:
        arguments = (line, NIGHT, fault_drivers.night, home)
        process = fork.Process(target=fault_drivers.killed_at_line, args=arguments)
        process.start()
        return finished(process) == -signal.SIGKILL

    killed, found = killed_nights(fork, dark, fresh, range(1, 400, 3), kill)
    fault_drivers.record("night, SIGKILL at every third line", points=killed, violations=len(found))
    assert found == []
    assert killed >= 50


@pytest.mark.faults
@pytest.mark.slow
def test_night_killed_at_random_moments(fork: Any, dark: Path, fresh: Any) -> None:
    count = 50
    chance = random.Random(SEED)
    moments = [chance.uniform(0.05, 0.9) for _ in range(count)]

    def kill(home: Path, moment: float) -> bool:
        process = fork.Process(target=fault_drivers.night, args=(home,))
        process.start()
        process.join(timeout=moment)
        process.kill()
        return finished(process) == -signal.SIGKILL

    killed, found = killed_nights(fork, dark, fresh, moments, kill)
    fault_drivers.record(
        "night, SIGKILL at random moments", points=killed, moments=count, violations=len(found), seed=SEED
    )
    assert found == []
    assert killed >= count // 2


@pytest.mark.parametrize("stages", [pytest.param(STAGES, marks=FULL), pytest.param(("merge",), marks=QUICK)])
@pytest.mark.parametrize("limit", [1 << 10, pytest.param(8 << 10, marks=pytest.mark.faults)])
def test_no_space_from_each_stage_on(fork: Any, dark: Path, fresh: Any, limit: int, stages: Sequence[str]) -> None:
    before, sentences, found = champion(dark), list[str](), list[str]()
    for stage in stages:
        home = fresh(dark)
        told = home.parent / "told"
        told.unlink(missing_ok=True)
        process = fork.Process(target=fault_drivers.night_without_space, args=(home, stage, told, limit))
        process.start()
        assert finished(process) == 0
        sentences.append(told.read_text() if told.exists() else "")
        found += fault_drivers.violations(home, (before,) if sentences[-1] else (champion(home),))
        if sentences[-1]:
            found += next_night_completes(home, before)
    failed = [s for s in sentences if s]
    if stages == STAGES:
        fault_drivers.record(
            f"night, no file over {limit} bytes", stages=len(stages), failed=len(failed), violations=len(found),
            sentence=failed[0].replace(str(dark), "HOME"),
        )  # fmt: skip
    assert found == []
    assert failed
    assert all(s.startswith("OutOfSpaceError") and ("full" in s or "free disk space" in s) for s in failed), failed


def test_the_stages_that_are_killed_and_starved_are_those_of_the_night() -> None:
    source = "".join(file.read_text() for file in sorted((DRIVER.parent.parent / "learning").glob("*.py")))
    assert set(re.findall(r'\bstage\("(\w+)"\)', source)) == set(STAGES)


# The clock


@pytest.mark.slow
def test_a_clock_that_jumps_a_year_ahead_and_back_loses_nothing(dark: Path) -> None:
    """Three nights: now, in a year, and now again."""
    champions = [champion(dark)]
    for days, fact in ((365, 3), (0, 4)):
        done = subprocess.run([sys.executable, str(DRIVER), "night-in", str(dark), str(days)], check=False, timeout=120)
        assert done.returncode == 0
        assert fault_drivers.violations(dark, (champion(dark),)) == []
        champions.append(champion(dark))
        database = Database(dark)
        learnt = {i for i, m in registry.memories(database, champions[-1]).items() if m.memorised}
        assert learnt == {row.id for row in corrections.in_status(database, corrections.Status.APPROVED)}
        fault_drivers.teach(database, list(fault_drivers.FACTS)[fact])
        database.close()
    assert len(set(champions)) == len(champions), "no name is used twice"
    database = Database(dark)
    kept = backup.listed(dark / "backups")
    made = backup.make(database, keep=1)
    assert backup.listed(dark / "backups") == [made.folder], "the newest is kept, whatever its clock said"
    assert made.folder.name > kept[-1].name
    assert registry.rollback(database) == (champions[2], champions[1])
    database.close()


# The lock


@pytest.mark.parametrize("times", [pytest.param(50, marks=FULL), pytest.param(2, marks=QUICK)])
def test_a_second_night_is_refused_and_a_kill_frees_the_lock(fork: Any, dark: Path, times: int) -> None:
    from learning import nightly

    refused = freed = 0
    for _ in range(times):
        ready = fork.Event()
        process = fork.Process(target=fault_drivers.hold_the_night, args=(dark, ready))
        process.start()
        assert ready.wait(READY_SECONDS)
        database = Database(dark)
        with pytest.raises(ConflictError, match="Another nightly run is in progress"):
            nightly.run(database, None, say=print)  # type: ignore[arg-type]
        refused += 1
        process.kill()
        assert finished(process) == -signal.SIGKILL
        with nightly.only_one(dark):
            freed += 1
        assert database.value("SELECT count(*) FROM nightly_runs") == 1
    if times == 50:
        fault_drivers.record("second night", refused=f"{refused}/{times}", free_after_kill=f"{freed}/{times}")
    assert (refused, freed) == (times, times)


def test_the_manifest_of_a_champion_names_the_head_of_the_audit_log(template: Path) -> None:
    told = manifest.verify(template / "models" / "v1", manifest.sha256(template / "models" / "v1" / manifest.NAME))
    assert told["audit"]["seq"] > 0
