"""Publication, sealed folders, the registry's trust and the night's ends, without any fault from outside."""

import errno
import json
from pathlib import Path
from typing import Any

import fault_drivers
import pytest

from bot import base_model, desk
from learning import publish
from storage import corrections, manifest, nights, registry, settings, trust
from storage.database import Database
from storage.errors import ConflictError, IntegrityError, OutOfSpaceError, UserError


@pytest.fixture
def database(home: Path) -> Database:
    """A home whose base serves and which has two approved corrections."""
    fault_drivers.prepare(home)
    return Database(home)


def folders(home: Path) -> set[str]:
    return {p.name for p in (home / "models").iterdir()}


# Sealed folders


def sealed(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "v1"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder, manifest.seal(folder, {"version": "v1"})


@pytest.mark.parametrize(
    "damage",
    ["flipped byte", "shorter", "missing file", "more files", "other manifest", "no manifest", "link", "folder"],
)
def test_a_folder_that_is_not_what_was_sealed_is_refused(tmp_path: Path, damage: str) -> None:
    folder, digest = sealed(tmp_path)
    assert manifest.verify(folder, digest)["version"] == "v1"
    weights = folder / "model.safetensors"
    if damage == "flipped byte":
        weights.write_bytes(b"weighty")
    elif damage == "shorter":
        weights.write_bytes(b"weight")
    elif damage == "missing file":
        weights.unlink()
    elif damage == "more files":
        (folder / "notes.txt").write_text("x")
    elif damage == "other manifest":
        told = json.loads((folder / manifest.NAME).read_text())
        (folder / manifest.NAME).write_text(json.dumps(told))
    elif damage == "no manifest":
        (folder / manifest.NAME).unlink()
    elif damage == "link":
        weights.rename(tmp_path / "elsewhere")
        weights.symlink_to(tmp_path / "elsewhere")
    else:
        (folder / "more").mkdir()
    with pytest.raises(IntegrityError):
        manifest.verify(folder, digest)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_x.py", "A.PKL", "x.pt", "lib.so"])
def test_a_file_that_can_carry_code_is_neither_sealed_nor_loaded(tmp_path: Path, name: str) -> None:
    folder, digest = sealed(tmp_path)
    (folder / name).write_bytes(b"x")
    with pytest.raises(IntegrityError, match="can carry code"):
        manifest.verify(folder, digest)
    with pytest.raises(IntegrityError, match="can carry code"):
        manifest.seal(folder, {})
    with pytest.raises(UserError, match=r"can carry code.*keep only safetensors"):
        base_model.folder(tmp_path / "home", str(folder))


# Publication


def test_a_published_version_serves_and_its_authors_will_hear_of_it(home: Path, database: Database) -> None:
    fault_drivers.publish_once(home, "v1")
    assert fault_drivers.violations(home, ["v1"]) == []
    assert [n.payload["correction_id"] for n in nights.owed(database) if n.kind == "fix_live"] == [1, 2]


def test_champion_previous_and_one_more_are_kept(home: Path, database: Database) -> None:
    for number in range(1, 6):
        fault_drivers.publish_once(home, f"v{number}")
    publish.sweep(database)
    assert folders(home) == {name for v in ("v3", "v4", "v5") for name in (v, f"{v}-adapter")}
    assert registry.rollback(database) == ("v5", "v4")
    assert registry.rollback(database) == ("v4", "v3")
    assert registry.alias(database, "previous") == registry.BASE  # v2 and v1 are no longer on disk
    with pytest.raises(ConflictError, match="no longer kept"):
        registry.promote(database, "v1")


def test_leftovers_of_a_killed_night_are_swept_but_for_its_whole_adapter(home: Path, database: Database) -> None:
    fault_drivers.publish_once(home, "v1")
    half = publish.workshop(home, "v2")
    (half / "model.safetensors").write_bytes(b"half")
    for version in ("v2", "v3"):
        adapter = publish.workshop(home, f"{version}-adapter")
        (adapter / "adapter_model.safetensors").write_bytes(b"whole")
        publish.seal(adapter, f"{version}-adapter", (), {"purpose": {"snapshot": "s", "rate": 0.001}})
    (home / "models" / "v9").mkdir()
    publish.sweep(database)
    assert folders(home) == {"v1", "v1-adapter", "v3-adapter"}
    assert publish.half_made(database, {"snapshot": "other", "rate": 0.001}) is None
    found = publish.half_made(database, {"snapshot": "s", "rate": 0.001})
    assert found == ("v3", home / "models" / "v3-adapter")
    (found[1] / "adapter_model.safetensors").write_bytes(b"whale")
    assert publish.half_made(database, {"snapshot": "s", "rate": 0.001}) is None


# Trust


def test_a_withdrawn_row_bars_every_version_that_was_trained_on_it(home: Path, database: Database) -> None:
    fault_drivers.publish_once(home, "v1")
    fault_drivers.publish_once(home, "v2")
    corrections.withdraw(database, 1, "U0PRIYA")
    for switch in (registry.rollback, lambda d: registry.promote(d, "v1")):
        with pytest.raises(ConflictError, match=r"v1 was trained on withdrawn corrections \(1\)"):
            switch(database)
    assert registry.champion(database) == "v2"  # it serves until the night has rebuilt it
    publish.sweep(database)
    assert folders(home) == {"v2", "v2-adapter"}


def test_a_row_withdrawn_while_it_is_trained_is_not_published(home: Path, database: Database) -> None:
    def withdraw(line: str) -> None:
        if line == "evaluate":
            corrections.withdraw(database, 1, "U0PRIYA")

    report = fault_drivers.night(home, withdraw)
    assert report["outcome"] == "kept_champion"
    assert "withdrawn" in report["reason"]
    assert registry.champion(database) == registry.BASE
    assert not folders(home)
    again = fault_drivers.night(home)
    assert again["outcome"] == "promoted"
    assert [c["id"] for c in again["corrections"]] == [2]


def test_after_a_withdrawal_the_next_night_starts_from_the_base(home: Path, database: Database) -> None:
    first = fault_drivers.night(home)["version"]
    corrections.withdraw(database, 1, "U0PRIYA")
    second = fault_drivers.night(home)["version"]
    told = json.loads((home / "models" / second / manifest.NAME).read_text())
    assert (told["trained"], told["warm_from"]) == ([2], registry.BASE)
    assert second != first
    with pytest.raises(ConflictError, match="withdrawn"):
        registry.rollback(database)


def test_two_crashes_count_only_while_a_version_is_new(database: Database) -> None:
    assert [trust.begin_trial(database, "v1") for _ in range(3)] == [0, 1, 2]
    trust.end_trial(database, "v1", proved=False)
    assert trust.begin_trial(database, "v1") == 0
    trust.end_trial(database, "v1", proved=True)
    assert [trust.begin_trial(database, "v1") for _ in range(3)] == [0, 0, 0]


def test_single_commands_are_no_trial_of_a_new_champion(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "load_version", lambda database, settings, name, *_: name)
    champion = registry.champion(database)
    for _ in range(trust.CRASHES + 1):
        tools, index = desk.open_tools(database, settings.load({}), serving=False)
        index.close()
        assert tools.model == champion
    assert trust.trials(database, champion) == 0
    desk.open_tools(database, settings.load({}), serving=True)[1].close()
    assert trust.trials(database, champion) == 1


def test_a_refused_champion_gives_way_for_good(home: Path, database: Database) -> None:
    for version in ("v1", "v2", "v3"):
        fault_drivers.publish_once(home, version)
    assert registry.retreat(database, "v3") == "v2"
    with pytest.raises(ConflictError, match="crashed the bot or failed its checks"):
        registry.promote(database, "v3")
    corrections.withdraw(database, 1, "U0PRIYA")
    assert registry.retreat(database, "v2") == registry.BASE
    with pytest.raises(ConflictError, match="no model before base"):
        registry.retreat(database, registry.BASE)


# The night


@pytest.fixture(autouse=True)
def weights_of_a_few_bytes(request: pytest.FixtureRequest) -> Any:
    """Give the modules of the night back as they were: the stand-ins replace what computes weights."""
    from learning import candidate, evaluate, merge, nightly, replay, retained, serving_form, train

    modules = (nightly, candidate, replay, train, merge, evaluate, retained, serving_form)
    kept = [(module, dict(vars(module))) for module in modules]
    yield
    for module, names in kept:
        vars(module).update(names)


def test_a_killed_night_is_told_and_its_adapter_taken_up(home: Path, database: Database) -> None:
    class KilledError(BaseException):
        pass

    def die(line: str) -> None:
        if line == "merge":
            raise KilledError

    lines: list[str] = []
    with pytest.raises(KilledError):
        fault_drivers.night(home, die)
    (adapter,) = (name for name in folders(home) if not name.startswith(manifest.TEMPORARY))
    with database.write() as db:  # as if there had been no time to note it
        db.execute("UPDATE nightly_runs SET finished_at = '', outcome = 'running'")
    report = fault_drivers.night(home, lines.append)
    assert "the adapter of a night that was cut short is taken up" in lines
    assert report["version"] == adapter.removesuffix("-adapter")
    outcomes = database.rows("SELECT outcome, reason FROM nightly_runs ORDER BY id")
    assert [r["outcome"] for r in outcomes] == ["failed", "promoted"]
    assert "cut short" in outcomes[0]["reason"]
    assert any("cut short" in n.payload["text"] for n in nights.owed(database) if n.kind == "alert")


def test_a_clock_that_is_set_back_gives_no_name_twice(home: Path, database: Database) -> None:
    from learning import candidate

    first = candidate.new_name(database)
    fault_drivers.publish_once(home, first)
    assert {candidate.new_name(database) for _ in range(3)} & {first} == set()
    fault_drivers.publish_once(home, "v19990101-000000")
    assert registry.versions(database)[-1].version == "v19990101-000000"


def test_too_little_disk_is_a_sentence_before_the_night_begins(
    home: Path, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish.preflight(home, tmp_path / "base")
    monkeypatch.setattr(publish, "SPARE_DISK", 10**18)
    with pytest.raises(OutOfSpaceError, match=r"needs 1000000000.0 GB of free disk in .* The champion goes on serving"):
        fault_drivers.night(home)
    assert registry.champion(database) == registry.BASE


def test_available_memory_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 9 kB\nMemAvailable:   1000 kB\n")
    assert publish.available_memory(told) == 1_024_000
    assert publish.available_memory(tmp_path / "none") is None


def test_too_little_memory_is_a_sentence(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemAvailable:   1000 kB\n")
    monkeypatch.setattr(publish, "MEMORY", told)
    fault_drivers.prepare(home)
    with pytest.raises(UserError, match=r"needs 0.5 GB of free memory and finds 0.0 GB"):
        publish.preflight(home, tmp_path / "base")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "x"), OSError(errno.EFBIG, "x"), RuntimeError("IoError: No space left on device (28)")],
)
def test_a_full_disk_is_named_whoever_met_it(home: Path, error: Exception) -> None:
    from learning import nightly

    assert "is full" in str(nightly.in_a_sentence(error, home))
    assert nightly.in_a_sentence(ValueError("x"), home).args == ("x",)
