"""With the model server away the bot goes on: stored answers and quotes come, and what needs the model says so."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fault_drivers
import pytest
import scripted_server
from scripted_server import ScriptedServer, chat, status

from bot import checkup, confidence, desk, pipeline
from bot.confidence import Confidence
from bot.modelserver import ModelServer
from bot.pipeline import Model, Tools
from bot.remote import ProvenEngine, RemoteEngine, Watch
from retrieval.ingest import ingest
from storage import corrections, manifest, nights, registry, settings
from storage.database import Database
from storage.domain import Answer, Memory, Question, Route, Style
from storage.errors import EngineAwayError, UserError
from tests.bench import exact

QUESTION, ANSWER = "How long does the mentorship run?", "It runs six months."
PAGE = "# Pension\n\nLumen Pay matches what you put into the pension, euro for euro, up to 6 %.\n"
KEY = "sk-do-not-show-this-1234567890"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server.running("base", "v1") as running:
        running.replies = [chat(ANSWER)]
        yield running


@pytest.fixture
def tools(home_in_memory: Path, tmp_path: Path, server: ScriptedServer) -> Iterator[Tools]:
    """One page, one correction that v1 has learnt, and v1 on a model server."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "pension.md").write_text(PAGE)
    database = Database(home_in_memory)
    ingest(database, exact.WordHashes(), [tmp_path / "pages"])
    row = corrections.propose(database, question=QUESTION, answer=ANSWER, author="sam")
    corrections.approve(database, row.id, "priya")
    remote = RemoteEngine(ModelServer(server.address, seconds=5.0, pauses=()), "v1")
    heads = dict.fromkeys(("same", "memorised", "quoted", "generated"), exact.SURE)
    model = Model(
        "v1", ProvenEngine(remote, lambda _: None, Watch()), Confidence(heads), {row.id: Memory("v1", row.id, True, {})}
    )
    yield replace(exact.tools(database), model=model)
    database.close()


def ask(tools: Tools, text: str, route: str = "auto") -> Answer:
    return pipeline.answer(tools, Question(1, text, "U", "C", "", "2026-11-20T00:00:00+00:00"), route=route)


def test_the_stored_answer_stands_in_for_the_memory_and_back(tools: Tools, server: ScriptedServer) -> None:
    remembered = ask(tools, QUESTION)
    assert (remembered.route, remembered.text) == (Route.MEMORISED, ANSWER)
    server.replies = [status(503)]
    stored = ask(tools, QUESTION)
    assert (stored.route, stored.style, stored.text) == (Route.APPROVED, Style.DIRECT, ANSWER)
    asked = len(server.asked)
    assert ask(tools, QUESTION).text == ANSWER
    assert len(server.asked) == asked, "nobody waits for a server that was away a moment ago"


def test_pages_are_quoted_without_the_model(tools: Tools, server: ScriptedServer) -> None:
    server.replies = [status(503)]
    read = ask(tools, "What does Lumen Pay put into the pension?", route="documents")
    assert (read.route, read.style) == (Route.RETRIEVED, Style.QUOTED)
    assert "euro for euro" in read.text


def test_where_only_the_model_could_answer_that_is_said(
    tools: Tools, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.replies = [status(500, {"error": {"message": "out of memory"}})]
    unsure = replace(exact.SURE, direct=2.0, related=2.0)
    heads = dict.fromkeys(("same", "memorised", "quoted", "generated"), unsure)
    alone = replace(tools, model=replace(tools.model, confidence=Confidence(heads, reading="generated")))
    with caplog.at_level(logging.WARNING):
        assert ask(alone, "What does the pension cost?", route="documents").text == pipeline.ABSTENTION_ALONE
    assert "out of memory" in caplog.text
    server.replies = [chat("I cannot say.")]
    there = replace(alone, model=replace(alone.model, engine=RemoteEngine(ModelServer(server.address), "v1")))
    assert ask(there, "What does the pension cost?", route="documents").text == pipeline.ABSTENTION


@pytest.mark.parametrize("route", ["raw", "memory"])
def test_a_route_that_was_forced_to_the_model_fails_in_a_sentence(
    tools: Tools, server: ScriptedServer, route: str
) -> None:
    server.replies = [status(500)]
    with pytest.raises(EngineAwayError, match=r"^The model server .* failed \(500\)\.$"):
        ask(tools, QUESTION, route=route)


# The desk and doctor


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    """A home whose champion is v1, which has one canary."""
    opened = Database(home)
    registry.ensure_base(opened, path="models/base", size=1, manifest_sha256="", confidence={})
    folder = fault_drivers.published(opened, "v1")
    (folder / manifest.NAME).unlink()
    sealed = manifest.seal(folder, {"canaries": [{"question": QUESTION, "answer": ANSWER}]})
    shipped = json.dumps(confidence.shipped())
    with opened.write() as db:
        db.table("model_versions").update("v1", {"manifest_sha256": sealed, "confidence": shipped})
    yield opened
    opened.close()


def values(server: ScriptedServer, **more: Any) -> settings.Settings:
    return settings.load({}, overrides={"ENGINE": server.address, "ENGINE_KEY": KEY, "ENGINE_SECONDS": 5.0, **more})


def alerts(database: Database) -> list[str]:
    return [n.payload["text"] for n in nights.owed(database) if n.kind == "alert"]


def test_the_desk_takes_the_champion_from_the_server_and_proves_it(database: Database, server: ScriptedServer) -> None:
    model = desk.load_on_trial(database, values(server), "v1")
    assert [told.get("model", "list") for _, _, told in server.asked] == ["list", "v1"], "the canary was asked"
    assert model.engine.generate([], max_tokens=8).text == ANSWER
    assert alerts(database) == []


def test_a_champion_whose_server_is_away_is_loaded_all_the_same_and_reviewers_hear_of_it(
    database: Database, server: ScriptedServer
) -> None:
    server.listing = status(503)
    model = desk.best_version(database, values(server))
    assert model.version == registry.champion(database) == "v1"
    with pytest.raises(EngineAwayError):
        model.engine.generate([], max_tokens=8)
    (told,) = alerts(database)
    assert told.startswith(f"The model server {server.address} failed (503).")
    assert "approved answers and quotes go on" in told
    assert KEY not in told


def test_a_single_command_leaves_no_alert(database: Database, server: ScriptedServer) -> None:
    server.listing = status(503)
    assert desk.load_champion(database, values(server)).version == "v1"
    assert alerts(database) == []


def test_other_weights_under_the_name_never_answer_and_the_version_stays(
    database: Database, server: ScriptedServer
) -> None:
    server.replies = [chat("Two weeks.")]
    model = desk.best_version(database, values(server))
    with pytest.raises(EngineAwayError, match="serves other weights under the name v1"):
        model.engine.generate([], max_tokens=8)
    assert registry.champion(database) == "v1"


def test_an_address_that_cannot_be_used_ends_the_start_and_harms_no_version(database: Database) -> None:
    with pytest.raises(UserError, match="NIGHTSHIFT_ENGINE='nowhere'"):
        desk.open_tools(database, settings.load({"NIGHTSHIFT_ENGINE": "nowhere"}), serving=True)
    assert alerts(database) == []


@pytest.mark.parametrize(
    ("changes", "ok", "sentence"),
    [
        ({"ENGINE": ""}, True, "none; the model answers from this machine"),
        ({}, True, "offers v1 with log-probabilities"),
        ({"ENGINE_MODEL": "base"}, True, "offers v1 and base with log-probabilities"),
        ({"ENGINE_MODEL": "Qwen"}, False, "offers base, v1 and not Qwen"),
        ({"ENGINE_ROLE": "help"}, False, "NIGHTSHIFT_ENGINE_MODEL names no model"),
        ({"ENGINE_ROLE": "help", "ENGINE_MODEL": "base"}, True, "offers base with log-probabilities"),
        ({"ENGINE": "http://127.0.0.1:1/v1"}, False, "cannot be reached (Connection refused)"),
        ({"ENGINE": "nowhere"}, False, "is no address"),
    ],
)
def test_doctor_looks_at_the_engine(
    database: Database, server: ScriptedServer, changes: dict[str, str], ok: bool, sentence: str
) -> None:
    told = checkup.checked("engine", lambda: checkup.engine(database, values(server, **changes)))
    assert (told["ok"], sentence in told["detail"]) == (ok, True), told
    assert KEY not in told["detail"]


def test_doctor_misses_log_probabilities(database: Database, server: ScriptedServer) -> None:
    server.replies = [chat("Yes", logprobs=None)]
    told = checkup.checked("engine", lambda: checkup.engine(database, values(server)))
    assert not told["ok"]
    assert "gives no log-probabilities" in told["detail"]
