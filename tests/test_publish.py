"""Publication, sealed folders, the registry's trust and the night's ends, without any fault from outside."""

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fault_drivers
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from bot import base_model, desk
from learning import publish, replay, report
from storage import audit, conversations, corrections, health, manifest, nights, registry, retention, settings, trust
from storage.cli import main
from storage.database import Database
from storage.domain import WORKSPACE, Answer, Route, Style
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


FILES_OF_A_BASE = (
    "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A base of two shards without a manifest."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    for name in FILES_OF_A_BASE:
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("name", FILES_OF_A_BASE)
def test_a_base_without_a_manifest_is_known_by_every_file_that_decides(sharded: Path, name: str) -> None:
    before = replay.weights_of(sharded)
    (sharded / "README.md").write_text("Words about it.")
    assert replay.weights_of(sharded) == before
    (sharded / name).write_text("changed")
    changed = replay.weights_of(sharded)
    (sharded / name).unlink()
    assert len({before, changed, replay.weights_of(sharded)}) == 3


def test_a_base_with_a_manifest_is_known_by_that(tmp_path: Path) -> None:
    folder, digest = sealed(tmp_path)
    assert replay.weights_of(folder) == digest


def test_weights_that_did_not_change_are_read_once(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def sha256(path: Path) -> str:
        read.append(path.name)
        return path.read_text()

    monkeypatch.setattr(manifest, "sha256", sha256)
    known = {replay.weights_of(sharded) for _ in range(3)}
    assert (len(known), sorted(read)) == (1, sorted(FILES_OF_A_BASE))
    os.utime(sharded / "config.json", ns=(0, 0))
    replay.weights_of(sharded)
    assert read[len(FILES_OF_A_BASE) :] == ["config.json"]


# Publication


def test_a_published_version_serves_and_its_authors_will_hear_of_it(home: Path, database: Database) -> None:
    fault_drivers.publish_once(home, "v1")
    assert fault_drivers.violations(home, ["v1"]) == []
    assert [n.payload["correction_id"] for n in nights.owed(database) if n.kind == "fix_live"] == [1, 2]


def test_champion_previous_and_one_more_are_kept(home: Path, database: Database) -> None:
    for number in range(1, 6):
        fault_drivers.publish_once(home, f"v{number}")
    publish.sweep(database, "s")
    assert folders(home) == {name for v in ("v3", "v4", "v5") for name in (v, f"{v}-adapter")}
    assert registry.rollback(database) == ("v5", "v4")
    assert registry.rollback(database) == ("v4", "v3")
    assert registry.alias(database, "previous") == registry.BASE  # v2 and v1 are no longer on disk
    with pytest.raises(ConflictError, match="no longer kept"):
        registry.promote(database, "v1")


def test_leftovers_of_a_killed_night_are_swept_but_for_its_whole_adapter(home: Path, database: Database) -> None:
    fault_drivers.publish_once(home, "v1")
    ours, theirs = (publish.checkpoints(home, {"snapshot": name}) for name in ("s", "another"))
    for checkpoints in (ours, theirs):
        checkpoints.mkdir(parents=True)
    half = publish.workshop(home, "v2")
    (half / "model.safetensors").write_bytes(b"half")
    for version in ("v2", "v3"):
        adapter = publish.workshop(home, f"{version}-adapter")
        (adapter / "adapter_model.safetensors").write_bytes(b"whole")
        publish.seal(adapter, f"{version}-adapter", (), {"purpose": {"snapshot": "s", "rate": 0.001}})
    (home / "models" / "v9").mkdir()
    publish.sweep(database, "s")
    assert folders(home) == {"v1", "v1-adapter", "v3-adapter"}
    assert (ours.exists(), theirs.exists()) == (True, False)
    assert publish.half_made(database, {"snapshot": "other", "rate": 0.001}) is None
    found = publish.half_made(database, {"snapshot": "s", "rate": 0.001})
    assert found == ("v3", home / "models" / "v3-adapter")
    (found[1] / "adapter_model.safetensors").write_bytes(b"whale")
    assert publish.half_made(database, {"snapshot": "s", "rate": 0.001}) is None
    publish.sweep(database, "another")
    assert folders(home) == {"v1", "v1-adapter"}


# Trust


def test_a_withdrawn_row_bars_every_version_that_was_trained_on_it(home: Path, database: Database) -> None:
    fault_drivers.publish_once(home, "v1")
    fault_drivers.publish_once(home, "v2")
    corrections.withdraw(database, 1, "U0PRIYA")
    for switch in (registry.rollback, lambda d: registry.promote(d, "v1")):
        with pytest.raises(ConflictError, match=r"v1 was trained on withdrawn corrections \(1\)"):
            switch(database)
    assert registry.champion(database) == "v2"  # it serves until the night has rebuilt it
    publish.sweep(database, "s")
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


@pytest.mark.parametrize("moment", ["train", "choose", "collect", "confidence_for"])
def test_words_erased_while_they_are_trained_do_not_come_back(home: Path, database: Database, moment: str) -> None:
    from learning import labels, nightly, serving_form, train

    hers = "Whatever day do claims get paid on?"
    conversations.ask(database, hers, user="UHER", channel="C1", thread="1.0")
    corrections.add_wordings(database, 1, [hers], "asked")
    night = fault_drivers.stand_ins()
    module: Any = {"train": train, "choose": serving_form, "collect": labels, "confidence_for": nightly}[moment]
    step, erased = getattr(module, moment), iter(["UHER"])

    def after_an_erasure(*given: Any, **named: Any) -> Any:
        for user in erased:
            retention.erase(database, user)
        return step(*given, **named)

    setattr(module, moment, after_an_erasure)
    report = fault_drivers.run_night(night, home)
    assert (report["outcome"], registry.champion(database)) == ("kept_champion", registry.BASE)
    assert "erased" in report["reason"]
    assert not folders(home)
    kept = [f for f in home.rglob("*") if f.is_file() and "backups" not in f.parts and hers.encode() in f.read_bytes()]
    assert kept == []
    again = fault_drivers.run_night(night, home)
    assert (again["outcome"], [c["id"] for c in again["corrections"]]) == ("promoted", [1, 2])


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
    from learning import candidate, evaluate, labels, merge, nightly, replay, retained, serving_form, train

    modules = (nightly, candidate, replay, train, merge, evaluate, retained, serving_form, labels)
    kept = [(module, dict(vars(module))) for module in modules]
    yield
    for module, names in kept:
        vars(module).update(names)


class KilledError(BaseException):
    pass


def killed_night(home: Path, database: Database) -> None:
    """A night that dies as it merges, without the time to note it."""

    def die(line: str) -> None:
        if line == "merge":
            raise KilledError

    with pytest.raises(KilledError):
        fault_drivers.night(home, die)
    with database.write() as db:
        db.execute("DELETE FROM notices WHERE kind = 'alert'")
        db.execute("UPDATE nightly_runs SET finished_at = '', outcome = 'running'")


def test_a_killed_night_is_told_and_its_adapter_taken_up(home: Path, database: Database) -> None:
    lines: list[str] = []
    killed_night(home, database)
    with database.write() as db:  # the first night of all registers the base
        db.execute("UPDATE model_versions SET created_at = '2999' WHERE version = 'base'")
    (adapter,) = (name for name in folders(home) if not name.startswith(manifest.TEMPORARY))
    report = fault_drivers.night(home, lines.append)
    assert "the adapter of a night that was cut short is taken up" in lines
    assert report["version"] == adapter.removesuffix("-adapter")
    outcomes = database.rows("SELECT outcome, reason FROM nightly_runs ORDER BY id")
    assert [r["outcome"] for r in outcomes] == ["failed", "promoted"]
    assert "cut short" in outcomes[0]["reason"]
    (alert,) = (n.payload["text"] for n in nights.owed(database) if n.kind == "alert")
    assert "cut short" in alert


def test_a_night_that_was_killed_after_it_published_is_told_as_promoted(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as killed:
        nightly = fault_drivers.stand_ins()
        killed.setattr(nights, "finish", die)
        with pytest.raises(KilledError):
            fault_drivers.run_night(nightly, home)
    version = registry.champion(database)
    fault_drivers.night(home)
    first, second = database.rows("SELECT outcome, version FROM nightly_runs ORDER BY id")
    assert first == {"outcome": "promoted", "version": version}
    assert second["outcome"] == "nothing_to_learn"
    told = [n.payload["report"] for n in nights.owed(database) if n.kind == "nightly_report"]
    assert [c["memorised"] for c in told[0]["corrections"]] == [True, True]
    assert {g["name"] for g in told[0]["gates"]} >= {"new_facts", "finite"}
    assert not [n for n in nights.owed(database) if n.kind == "alert"]


def test_a_night_that_breaks_after_it_published_is_told_as_promoted(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, calls = publish.sweep, iter([False, True])

    def breaks(*arguments: Any) -> None:
        if next(calls):
            raise OSError(errno.EIO, "the disk is broken")
        sweep(*arguments)

    monkeypatch.setattr(publish, "sweep", breaks)
    with pytest.raises(OSError, match="broken"):
        fault_drivers.night(home)
    told = nights.latest(database)
    assert told is not None
    assert (told.outcome, told.version) == ("promoted", registry.champion(database))
    assert "the disk is broken" in told.reason


def test_a_dry_run_is_no_night(home: Path, database: Database) -> None:
    killed_night(home, database)
    before = folders(home)
    assert fault_drivers.night(home, dry_run=True)["reason"].startswith("dry run: 2 new")
    assert nights.latest(database) is None
    assert nights.owed(database) == ()
    assert folders(home) == before


def test_a_rebuild_of_nothing_on_the_base_learns_nothing(home: Path, database: Database) -> None:
    for number in (1, 2):
        corrections.withdraw(database, number, "U0PRIYA")
    report = fault_drivers.night(home, rebuild=True)
    assert (report["outcome"], report["version"]) == ("nothing_to_learn", "")


def test_what_was_withdrawn_leaves_the_disk_though_nothing_is_trained(home: Path, database: Database) -> None:
    killed_night(home, database)
    assert folders(home)
    checkpoints = publish.checkpoints(home, {"snapshot": "that of the killed night"})
    checkpoints.mkdir(parents=True)
    for number in (1, 2):
        corrections.withdraw(database, number, "U0PRIYA")
    assert fault_drivers.night(home)["outcome"] == "nothing_to_learn"
    assert not folders(home)
    assert not checkpoints.exists()


def test_the_champion_leaves_the_disk_when_all_that_it_holds_is_withdrawn(home: Path, database: Database) -> None:
    fault_drivers.night(home)
    for number in (1, 2):
        corrections.withdraw(database, number, "U0PRIYA")
    assert fault_drivers.night(home)["version"] == registry.BASE
    assert not folders(home)


def test_a_night_that_goes_back_to_the_base_says_what_was_forgotten(home: Path, database: Database) -> None:
    first = fault_drivers.night(home)["version"]
    for number in (1, 2):
        corrections.withdraw(database, number, "U0PRIYA")
    assert fault_drivers.night(home)["parent"] == first
    ended = nights.latest(database)
    assert ended is not None
    assert (ended.version, ended.parent) == (registry.BASE, first)
    assert [(c.correction.id, c.fate) for c in health.fates(database, ended)] == [
        (number, health.Fate.FORGOTTEN) for number in (1, 2)
    ]
    told = report.morning(database, chart=False).text
    assert "“On which day are claims paid out?”: forgotten, because it was withdrawn or replaced" in told


def test_the_command_says_what_a_night_leaves_out_but_for_private_rows(
    home: Path, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_BASE_MODEL", str(tmp_path / "base"))
    fault_drivers.stand_ins()
    for number in range(32):
        scope, answer = (WORKSPACE, "So much more " * 80) if number < 31 else ("C0BOARD", "So much.")
        question = f"What is rule {number}?"
        row = corrections.propose(database, question=question, answer=answer, author="U0SAM", scope=scope)
        corrections.approve(database, row.id, "U0PRIYA")
    for options in (["--dry-run"], []):
        told = CliRunner().invoke(main, ["--home", str(home), "nightly", *options])
        assert told.exit_code == 0, told.output
        lines = told.stdout.splitlines()
        at = lines.index("Left out of training, going on as approved answers: 31")
        assert lines[at + 1].startswith("  correction 3 left out (too_long): Its answer has about ")
        assert lines[at + 31 :] == ["  and 1 more; --json lists all"]
        assert "private" not in told.stdout


@pytest.mark.parametrize("taught", [False, True])
def test_votes_count_in_a_night_that_publishes_nothing(home: Path, database: Database, taught: bool) -> None:
    from learning import calibrate, retained

    fault_drivers.night(home)
    champion = registry.champion(database)
    asked = conversations.ask(database, "Which day is casual?", user="UHER", channel="C1", thread="1.0")
    quote = Answer(asked.id, "Friday.", Route.RETRIEVED, Style.QUOTED, 0.8, champion, features={"rank": 0.0})
    conversations.vote(database, conversations.answer(database, quote), "UHIM", 1)
    nightly, fitted = fault_drivers.stand_ins(), []

    def fit(_: object, own: list[Any], *__: object) -> dict[str, Any]:
        fitted.append([row["asked"] for row in own if row["head"] == "quoted"])
        targets = calibrate.targets(settings.load({}))
        return {"heads": {}, "reading": f"fit {len(fitted)}", "targets": targets}

    nightly.confidence_for = fit
    if taught:
        retained.values = lambda *_, **__: {"general_battery": 0.5}
        fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    for _ in range(2):
        report = fault_drivers.run_night(nightly, home)
        assert report["outcome"] == ("kept_champion" if taught else "nothing_to_learn")
        assert registry.champion(database) == champion
        assert registry.get(database, champion).confidence["reading"] == "fit 1"
    assert fitted == [["Which day is casual?"]]
    fault_drivers.run_night(nightly, home, values={"TARGET_WRONG": "0.005"})
    assert len(fitted) == 2, "another target is a reason too"


def counted_fits(fitted: list[list[str]]) -> Any:
    """The stand-ins, with fits that are numbered; the questions of the quotes that each saw are noted."""
    from learning import calibrate

    nightly = fault_drivers.stand_ins()

    def fit(_: object, own: list[Any], *__: object) -> dict[str, Any]:
        fitted.append([row["asked"] for row in own if row["head"] == "quoted"])
        return {"heads": {}, "reading": f"fit {len(fitted)}", "targets": calibrate.targets(settings.load({}))}

    nightly.confidence_for = fit
    return nightly


@pytest.mark.parametrize("error", [ConflictError("withdrawn meanwhile"), OSError(errno.EIO, "the disk is broken")])
def test_votes_that_a_night_stored_and_did_not_publish_are_fitted_once(
    home: Path, database: Database, error: Exception
) -> None:
    from learning import retained

    fitted: list[list[str]] = []
    nightly = counted_fits(fitted)
    champion = fault_drivers.run_night(nightly, home)["version"]
    asked = conversations.ask(database, "Which day is casual?", user="UHER", channel="C1", thread="1.0")
    quote = Answer(asked.id, "Friday.", Route.RETRIEVED, Style.QUOTED, 0.8, champion, features={"rank": 0.0})
    conversations.vote(database, conversations.answer(database, quote), "UHIM", 1)
    fault_drivers.teach(database, list(fault_drivers.FACTS)[2])

    def fails(*_: object) -> None:
        raise error

    nightly.publish_candidate = fails
    with suppress(OSError):
        fault_drivers.run_night(nightly, home)
    retained.values = lambda *_, **__: {"general_battery": 0.5}
    for _ in range(2):
        assert fault_drivers.run_night(nightly, home)["outcome"] == "kept_champion"
        told = registry.get(database, champion).confidence
        assert (told["reading"], told["fitted_on"]) == ("fit 3", nights.newest_calibration(database))
    assert fitted == [[], ["Which day is casual?"], ["Which day is casual?"]]  # the second was the candidate's


@pytest.mark.parametrize("rows", [True, False])
def test_a_confidence_that_does_not_say_what_it_was_fitted_on_is_fitted_once_if_there_are_rows(
    home: Path, database: Database, rows: bool
) -> None:
    from learning import calibrate, replay

    fitted: list[list[str]] = []
    nightly = counted_fits(fitted)
    if rows:
        fault_drivers.run_night(nightly, home)
    else:
        for number in (1, 2):
            corrections.withdraw(database, number, "U0PRIYA")
    champion = registry.champion(database)
    told = {"targets": calibrate.targets(settings.load({})), "reads_as": replay.weights_of(home.parent / "base")}
    old = {"heads": {}, "reading": "old", **told}
    registry.recalibrate(database, champion, old)
    for _ in range(2):
        assert fault_drivers.run_night(nightly, home)["outcome"] == "nothing_to_learn"
        assert registry.get(database, champion).confidence["reading"] == ("fit 2" if rows else "old")


def test_what_a_gate_refused_is_not_trained_again_in_the_same_way(home: Path, database: Database) -> None:
    from learning import retained, train

    nightly, runs = fault_drivers.stand_ins(), []
    learn, retained.values = train.train, lambda *_, **__: {"general_battery": 0.5}

    def counted(*given: Any, **named: Any) -> Any:
        runs.append(named["out"])
        return learn(*given, **named)

    train.train = counted
    fault_drivers.run_night(nightly, home, rebuild=True)
    first, again = (fault_drivers.run_night(nightly, home) for _ in range(2))
    assert [first["outcome"], again["outcome"]] == ["kept_champion"] * 2
    assert "general_battery" in first["reason"]
    assert again["reason"].startswith("a gate refused this very training in an earlier night")
    assert len(runs) == 2
    fault_drivers.run_night(nightly, home, rebuild=True)
    fault_drivers.run_night(nightly, home, values={"TRAIN_EPOCHS": "3"})
    fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    fault_drivers.run_night(nightly, home)
    assert len(runs) == 5


def test_another_base_model_is_trained_on_anew(home: Path, database: Database, tmp_path: Path) -> None:
    first = fault_drivers.night(home)["version"]
    other = {"BASE_MODEL": str(tmp_path / "other")}
    shutil.copytree(tmp_path / "base", tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"other" * 500)
    fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    nightly = fault_drivers.stand_ins()
    plan = fault_drivers.run_night(nightly, home, values=other, dry_run=True)
    assert plan["reason"].startswith("dry run")
    assert registry.get(database, registry.BASE).path == str(tmp_path / "base")
    second = fault_drivers.run_night(nightly, home, values=other)["version"]
    told = json.loads((home / "models" / second / manifest.NAME).read_text())
    assert (told["warm_from"], told["trained"]) == (registry.BASE, [1, 2, 3])
    assert registry.get(database, registry.BASE).path == str(tmp_path / "other")
    fault_drivers.teach(database, list(fault_drivers.FACTS)[3])
    third = fault_drivers.run_night(nightly, home, values=other)["version"]
    assert json.loads((home / "models" / third / manifest.NAME).read_text())["warm_from"] == second
    assert first != second
    assert audit.verify(database, audit.anchors(home)).ok


def test_a_model_that_was_rolled_back_is_not_made_again_from_the_same(home: Path, database: Database) -> None:
    first = fault_drivers.night(home)["version"]
    fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    second = fault_drivers.night(home)["version"]
    registry.rollback(database)
    for options in ({"dry_run": True}, {}, {}):
        report = fault_drivers.night(home, **options)
        assert report["outcome"] == "kept_champion"
        assert report["reason"].startswith(f"{second} knew just these corrections and was rolled back")
    assert registry.champion(database) == first
    assert fault_drivers.night(home, rebuild=True)["outcome"] == "promoted"
    registry.rollback(database)
    fault_drivers.teach(database, list(fault_drivers.FACTS)[3])
    assert fault_drivers.night(home)["outcome"] == "promoted"


@pytest.mark.parametrize(
    ("moment", "by"), [("train", "the bot"), ("evaluate", "an admin"), ("publish", "an admin"), ("publish", "the bot")]
)
def test_a_champion_that_is_left_while_a_night_runs_does_not_come_back_in_its_child(
    home: Path, database: Database, moment: str, by: str
) -> None:
    fitted: list[list[str]] = []
    nightly = counted_fits(fitted)
    first = fault_drivers.run_night(nightly, home)["version"]
    fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    second = fault_drivers.run_night(nightly, home)["version"]
    fault_drivers.teach(database, list(fault_drivers.FACTS)[3])

    def leave(line: str) -> None:
        if line == moment:
            registry.rollback(database) if by == "an admin" else registry.retreat(database, second)

    told = fault_drivers.run_night(nightly, home, leave)
    assert (told["outcome"], told["parent"], registry.champion(database)) == ("kept_champion", first, first)
    assert told["reason"] == (
        f"{second}, with which this night began, gave way to {first} while it trained; "
        f"the next night starts from {first}."
    )
    assert ".." not in nightly.in_words(told) + report.morning(database, chart=False).text
    assert told["version"] not in {folder.removesuffix("-adapter") for folder in folders(home)}
    assert registry.find(database, told["version"]) is None
    assert registry.get(database, first).confidence["reading"] == f"fit {len(fitted)}", "it knows the new rows"
    again = fault_drivers.run_night(nightly, home)
    assert (again["outcome"], again["parent"]) == ("promoted", first)
    assert json.loads((home / "models" / again["version"] / manifest.NAME).read_text())["warm_from"] == first


def test_what_was_trained_and_not_memorised_is_learnt_anew(home: Path, database: Database) -> None:
    from learning import train

    fault_drivers.night(home)
    (held,) = [m for m in registry.memories(database, registry.champion(database)).values() if m.correction_id == 1]
    registry.remember(database, (replace(held, memorised=False),))
    new = fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    nightly = fault_drivers.stand_ins()
    seen: list[list[int]] = []
    stand_in = train.train

    def watched(base: Path, examples: Any, *rest: Any, known: Any, **more: Any) -> train.Trained:
        seen.extend(sorted({e.correction_id for e in part}) for part in (examples, known))
        return stand_in(base, examples, *rest, **more)

    train.train = watched
    assert fault_drivers.run_night(nightly, home)["outcome"] == "promoted"
    assert seen == [[1, new], [2]]


def only_memorised(ids: set[int]) -> Any:
    """The stand-ins, with proofs in which only these corrections are memorised."""
    from learning import evaluate

    nightly = fault_drivers.stand_ins()
    evaluate.facts = lambda _, known, *__, **___: tuple(
        evaluate.Proof(f.correction_id, f.correction_id in ids, 1, 1, 0, 1) for f in known
    )
    return nightly


def test_one_correction_that_is_learnt_is_worth_a_night_and_none_is_not(home: Path, database: Database) -> None:
    third = fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    none = fault_drivers.run_night(only_memorised(set()), home)
    assert (none["outcome"], none["reason"]) == ("kept_champion", "new_facts is 0 and must be at least 1")
    one = fault_drivers.run_night(only_memorised({third}), home, rebuild=True)
    assert (one["outcome"], [c["id"] for c in one["corrections"] if c["memorised"]]) == ("promoted", [third])


def test_a_withdrawal_is_carried_out_though_nothing_new_is_learnt(home: Path, database: Database) -> None:
    fault_drivers.night(home)
    corrections.withdraw(database, 1, "U0PRIYA")
    fault_drivers.teach(database, list(fault_drivers.FACTS)[2])
    assert fault_drivers.run_night(only_memorised({2}), home)["outcome"] == "promoted"


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
    monkeypatch.setattr(publish, "SPARE_DISK", 0)
    size = manifest.size(tmp_path / "base")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10 * size))
    publish.preflight(home, tmp_path / "base")
    with pytest.raises(OutOfSpaceError, match="of free disk"):
        publish.preflight(home, tmp_path / "base", "full")
    monkeypatch.setattr(publish, "SPARE_DISK", 10**18)
    with pytest.raises(OutOfSpaceError, match=r"needs 1000000000.0 GB of free disk in .* The champion goes on serving"):
        fault_drivers.night(home)
    assert registry.champion(database) == registry.BASE


def test_a_base_counts_as_large_as_it_is_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        half = {"table": np.zeros((number, 100, 10), np.float16), "scale": np.zeros((), np.float16)}
        save_file(half, tmp_path / f"model-0000{number}-of-00002.safetensors", {"format": "pt"})
    size = 4 * (1000 + 1 + 2000 + 1)
    monkeypatch.setattr(publish, "SPARE_DISK", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=int(1.5 * size)))
    publish.preflight(tmp_path, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=int(1.5 * size) - 1))
    with pytest.raises(OutOfSpaceError, match="of free disk"):
        publish.preflight(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "weights",
    [b"", b"base" * 500, b"\x02" + bytes(7) + b"[]", b"\x09" + bytes(7) + b'{"a":"b"}', b"\x02" + bytes(7) + b"\xff{"],
)
def test_a_base_that_cannot_be_counted_counts_as_it_lies_on_disk(tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert publish.size_in_float32(tmp_path) == 2
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert publish.size_in_float32(tmp_path) == 2 + len(weights)


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
