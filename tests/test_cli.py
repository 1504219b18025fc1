"""The console command without a model: the agreed JSON, and every mistake told in one sentence with nothing changed."""

import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from bot import commands as bot_commands
from retrieval.embedder import TokenVectors
from storage import corrections, registry
from storage.cli import Commands, main, read_lines, run_batch
from storage.database import Database
from storage.domain import ModelVersion
from storage.errors import EngineError, NotFoundError
from tests.bench import exact

PENDING, APPROVED, REJECTED = 1, 2, 3
LONG = "why?!" * 10_000
FIELDS = {"id", "status", "question", "answer", "author", "reviewer", "proof"}
Json = dict[str, Any]


class LetterCounts:
    """The embedder of these tests: how often each letter occurs. Texts are near when they share letters."""

    name = "letters"

    def __init__(self, model: str = "") -> None:
        self.model = model

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[0.01 + text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def tokens(self, text: str) -> TokenVectors:
        spans = tuple(found.span() for found in re.finditer(r"\S+", text))
        rows = self.encode([text[start:end] for start, end in spans])
        return TokenVectors(spans, rows, rows)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


@pytest.fixture(autouse=True)
def no_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands import the embedder where they use it, so that this is the one they find."""
    monkeypatch.setattr("retrieval.embedder.Embedder", LetterCounts)


@pytest.fixture
def run(home: Path) -> Callable[..., Result]:
    def invoke(*arguments: object, at: Path = home) -> Result:
        return CliRunner().invoke(main, ["--home", str(at), *map(str, arguments)])

    return invoke


@pytest.fixture
def told(run: Callable[..., Result]) -> Callable[..., Json]:
    """The one JSON object of a command that must succeed."""

    def invoke(*arguments: object) -> Json:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.stdout + result.stderr
        answer: Json = json.loads(result.stdout)
        assert answer.pop("ok") is True
        return answer

    return invoke


@pytest.fixture
def queue(home: Path) -> Database:
    """A home with one pending, one approved and one rejected correction, and the base model as champion."""
    database = Database(home)
    for number in (PENDING, APPROVED, REJECTED):
        row = corrections.propose(
            database, question=f"What is number {number}?", answer=f"It is {number}.", author="ana"
        )
        assert row.id == number
    corrections.approve(database, APPROVED, "ben")
    corrections.reject(database, REJECTED, "ben", reason="not true")
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={"heads": {}})
    return database


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files that go wrong in different ways."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "blob.md").write_bytes(b"\x7fELF\0\0\0")
    (folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    os.mknod(folder / "door.md", stat.S_IFSOCK | 0o600)  # nobody can open a socket, root neither
    (folder / "broken.jsonl").write_text('{"question": "a"}\n{"question": \n')
    (folder / "list.jsonl").write_text('["question"]\n')
    (folder / "good.jsonl").write_text('{"question": "When is payday?"}\n')
    return folder


def everything(database: Database) -> dict[str, list[Json]]:
    """Every row of every table."""
    tables = [r["name"] for r in database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: database.rows(f'SELECT * FROM "{table}"') for table in tables}


def paths_under(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))}


def assert_one_sentence(text: str) -> None:
    assert text.endswith("."), text
    assert "\n" not in text
    assert "Traceback" not in text
    assert 10 < len(text) < 300, text


# Mistakes


MISTAKES = {
    "empty question": (["ask", ""], "bad_input", "empty"),
    "blank question": (["ask", " \n "], "bad_input", "empty"),
    "no question": (["ask"], "bad_input", "empty"),
    "50,000 characters": (["ask", LONG], "bad_input", "50,000 characters"),
    "batch without out": (["ask", "--batch", "{files}/good.jsonl"], "bad_input", "--out"),
    "out without batch": (["ask", "a?", "--out", "{files}/out.jsonl"], "bad_input", "--batch"),
    "batch that is not JSON": (
        ["ask", "--batch", "{files}/broken.jsonl", "--out", "{files}/out.jsonl"], "bad_input", "Line 2",
    ),
    "batch of no objects": (
        ["ask", "--batch", "{files}/list.jsonl", "--out", "{files}/out.jsonl"], "bad_input", "Line 1",
    ),
    "batch that is not there": (
        ["ask", "--batch", "{files}/nowhere.jsonl", "--out", "{files}/out.jsonl"], "bad_input", "nowhere.jsonl",
    ),
    "batch that is not UTF-8": (
        ["ask", "--batch", "{files}/latin.txt", "--out", "{files}/out.jsonl"], "bad_input", "UTF-8",
    ),
    "out that is the batch": (
        ["ask", "--batch", "{files}/good.jsonl", "--out", "{files}/good.jsonl"], "bad_input", "overwrite",
    ),
    "out that cannot be written": (
        ["ask", "--batch", "{files}/good.jsonl", "--out", "/proc/nowhere/out.jsonl"], "bad_input", "/proc/nowhere",
    ),
    "empty search": (["search", " "], "bad_input", "empty"),
    "long search": (["search", LONG], "bad_input", "characters"),
    "missing path": (["ingest", "{files}/nowhere.md"], "not_found", "nowhere.md"),
    "binary file": (["ingest", "{files}/blob.md"], "bad_input", "binary"),
    "file of another encoding": (["ingest", "{files}/latin.txt"], "bad_input", "UTF-8"),
    "unreadable file": (["ingest", "{files}/door.md"], "bad_input", "door.md cannot be read"),
    "file of an unknown kind": (["ingest", "{files}/good.jsonl"], "bad_input", "good.jsonl"),
    "scope that is none": (["ingest", "{files}/latin.txt", "--scope", "everybody"], "bad_input", "everybody"),
    "correction without an answer": (["correct", "--question", "a?", "--author", "ana"], "bad_input", "--answer"),
    "correction that holds a secret": (
        ["correct", "--question", "Which key?", "--answer", "AKIAIOSFODNN7EXAMPLE", "--author", "ana"],
        "bad_input", "secret",
    ),
    "correction that is too long": (
        ["correct", "--question", "Which?", "--answer", LONG, "--author", "ana"], "bad_input", "50,000",
    ),
    "correction of an unknown one": (
        ["correct", "--question", "a?", "--answer", "b", "--author", "ana", "--supersedes", "99"], "not_found", "99",
    ),
    "correction for a scope that is none": (
        ["correct", "--question", "a?", "--answer", "b", "--author", "ana", "--scope", "us"], "bad_input", "'us'",
    ),
    "unknown correction": (["review", "approve", "99", "--reviewer", "ben"], "not_found", "99"),
    "unknown correction shown": (["review", "show", "99"], "not_found", "99"),
    "one's own correction": (["review", "approve", "1", "--reviewer", "ana"], "not_allowed", "ana"),
    "one's own correction among others": (
        ["review", "reject", "1", "99", "--reviewer", "ben"], "not_found", "99",
    ),
    "approved twice": (["review", "approve", "2", "--reviewer", "ben"], "conflict", "approved already"),
    "approved twice at once": (["review", "approve", "1", "1", "--reviewer", "ben"], "conflict", "approved already"),
    "rejected, then approved": (["review", "approve", "3", "--reviewer", "ben"], "conflict", "rejected already"),
    "edit of nothing": (["review", "edit", "1", "--reviewer", "ben"], "bad_input", "--question"),
    "edit to nothing": (["review", "edit", "1", "--reviewer", "ben", "--answer", " "], "bad_input", "empty"),
    "reviewer without a name": (["review", "approve", "1", "--reviewer", ""], "bad_input", "reviewer"),
    "nothing to roll back to": (["models", "rollback"], "conflict", "roll back"),
    "rollback to an unknown version": (["models", "rollback", "v0"], "not_found", "v0"),
    "promotion of an unknown version": (["models", "promote", "v0"], "not_found", "v0"),
    "promotion of the champion": (["models", "promote", "base"], "conflict", "champion already"),
    "unknown version shown": (["models", "show", "v0"], "not_found", "v0"),
    "unknown version measured": (["evaluate", "v0"], "not_found", "v0"),
    "no Slack tokens": (["serve"], "bad_input", "SLACK_BOT_TOKEN"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    mistake: str, run: Callable[..., Result], queue: Database, files: Path
) -> None:
    arguments, code, word = MISTAKES[mistake]
    arguments = [argument.replace("{files}", str(files)) for argument in arguments]
    before = everything(queue), paths_under(queue.home), paths_under(files), (files / "good.jsonl").read_text()
    for_people = run(*arguments)
    assert (for_people.exit_code, for_people.stdout) == (1, "")
    assert for_people.stderr.startswith("Error: ")
    assert_one_sentence(for_people.stderr.splitlines()[-1].removeprefix("Error: "))
    assert word in for_people.stderr
    if arguments[0] != "serve":
        for_programs = run(*arguments, "--json")
        assert for_programs.exit_code == 1
        reply = json.loads(for_programs.stdout)
        assert reply == {"ok": False, "error": {"code": code, "message": reply["error"]["message"]}}
        assert_one_sentence(reply["error"]["message"])
        assert word in reply["error"]["message"]
    after = everything(queue), paths_under(queue.home), paths_under(files), (files / "good.jsonl").read_text()
    assert after == before


@pytest.mark.parametrize(
    "arguments",
    [["ask", "When is payday?"], ["search", "payday"], ["review", "list"], ["models", "list"], ["nightly"], ["doctor"]],
)
def test_a_home_that_cannot_be_written_is_named(
    run: Callable[..., Result], tmp_path: Path, arguments: list[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file stands where the folder should be")
    for place in (taken, Path("/proc/nightshift")):
        result = run(*arguments, "--json", at=place)
        assert result.exit_code == 1, result.output
        message = json.loads(result.stdout)["error"]["message"]
        assert_one_sentence(message)
        assert str(place) in message
        assert "--home" in message
    assert taken.read_text().startswith("a file stands")


def test_an_empty_home_is_the_default_and_not_the_folder_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["--home", "", "review", "list"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_rollback_before_the_first_model_says_so(run: Callable[..., Result]) -> None:
    result = run("models", "rollback")
    assert result.exit_code == 1
    assert "No model is registered yet" in result.stderr


def test_malformed_settings_are_all_named_at_once(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_QUEUE_LIMIT", "many")
    monkeypatch.setenv("NIGHTSHIFT_TARGET_WRONG", "few")
    for flags in ([], ["--json"]):
        result = run("review", "list", *flags)
        assert result.exit_code == 1
        assert "NIGHTSHIFT_QUEUE_LIMIT='many' is not a whole number" in result.output
        assert "NIGHTSHIFT_TARGET_WRONG='few' is not a number" in result.output
    assert json.loads(result.stdout)["error"]["code"] == "bad_input"


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["ask", "a?", "--route", "guess"],
        ["ask", "a?", "--loud"],
        ["ingest"],
        ["search", "a", "-k", "none"],
        ["review", "approve", "one", "--reviewer", "ben"],
        ["review", "approve", "1"],
        ["review", "list", "--status", "lost"],
        ["models", "promote"],
    ],
)
def test_wrong_usage_exits_with_2(run: Callable[..., Result], arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert result.stdout == ""


def test_a_word_that_only_looks_like_the_flag_does_not_ask_for_json(run: Callable[..., Result]) -> None:
    result = run("search", "--batch", "nowhere", "--out", "x", "--", "--json")
    assert result.stdout == ""
    assert result.stderr.startswith("Error: nowhere cannot be read")


class Broken(Commands):
    """A console command whose only command has a defect."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        def fail(as_json: bool) -> None:
            raise RuntimeError("boom")

        return click.Command(cmd_name, callback=fail, params=[click.Option(["--json", "as_json"], is_flag=True)])


def test_a_defect_keeps_its_traceback_and_still_speaks_json() -> None:
    silent, spoken = (CliRunner().invoke(Broken("broken"), ["fail", *flags]) for flags in ([], ["--json"]))
    for result in (silent, spoken):
        assert result.exit_code == 1
        assert isinstance(result.exception, RuntimeError)
    assert silent.stdout == ""
    told = json.loads(spoken.stdout)
    assert (told["ok"], told["error"]["code"]) == (False, "error")
    assert "boom" not in spoken.stdout


# What programs read


def test_ingest_and_search(told: Callable[..., Json], tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "leave.md").write_text("# Leave\n\nEverybody has 28 days.\n")
    (pages / "blob.txt").write_bytes(b"\0\0")
    first = told("ingest", pages)
    assert set(first) == {"documents", "passages", "unchanged", "removed", "failed"}
    assert (first["documents"], first["passages"], first["unchanged"], first["removed"]) == (1, 1, 0, 0)
    assert [set(failure) for failure in first["failed"]] == [{"path", "reason"}]
    (pages / "blob.txt").unlink()
    assert told("ingest", pages) == {"documents": 0, "passages": 0, "unchanged": 1, "removed": 0, "failed": []}
    (passage,) = told("search", "days of leave", "-k", 3)["passages"]
    assert {"document", "heading", "text", "score"} <= set(passage)
    assert (passage["document"], passage["text"]) == ("Leave", "Everybody has 28 days.")
    (pages / "leave.md").unlink()
    assert told("ingest", pages)["removed"] == 1
    assert told("search", "days of leave") == {"passages": []}


def test_a_private_document_is_found_in_its_channel_only(told: Callable[..., Json], tmp_path: Path) -> None:
    (tmp_path / "plan.md").write_text("# Plan\n\nThe merger is on Friday.\n")
    told("ingest", tmp_path / "plan.md", "--scope", "C0SECRET")
    assert told("search", "merger Friday")["passages"] == []
    assert told("search", "merger Friday", "--channel", "C0OTHER")["passages"] == []
    assert len(told("search", "merger Friday", "--channel", "C0SECRET")["passages"]) == 1


def test_a_page_is_made_private_opened_again_and_taken_out(told: Callable[..., Json], tmp_path: Path) -> None:
    plan = tmp_path / "pages" / "plan.md"
    plan.parent.mkdir()
    plan.write_text("# Plan\n\nThe merger is on Friday.\n")
    told("ingest", plan.parent)
    assert told("ingest", plan, "--scope", "C0SECRET")["removed"] == 1
    assert told("search", "merger Friday")["passages"] == []
    assert len(told("search", "merger Friday", "--channel", "C0SECRET")["passages"]) == 1
    assert told("ingest", plan)["removed"] == 1
    assert len(told("search", "merger Friday")["passages"]) == 1
    plan.unlink()
    assert told("ingest", plan)["removed"] == 1
    assert told("search", "merger Friday", "--channel", "C0SECRET")["passages"] == []


def correct(told: Callable[..., Json], question: str, answer: str, *more: object) -> Json:
    return told("correct", "--question", question, "--answer", answer, "--author", "ana", *more)


def test_a_correction_is_pending_and_names_what_it_contradicts_and_repeats(told: Callable[..., Json]) -> None:
    first = correct(told, "When is payday?", "On day 25.", "--source", "Payroll")
    assert first == {"correction_id": 1, "status": "pending", "conflicts": []}
    second = correct(told, "When is payday?", "On day 27.")
    assert second["conflicts"] == [
        {"correction_id": 1, "question": "When is payday?", "answer": "On day 25.", "kind": "contradiction"}
    ]
    third = correct(told, "When is payday?", "on day 25")
    assert {c["correction_id"]: c["kind"] for c in third["conflicts"]} == {1: "duplicate", 2: "contradiction"}
    replacing = correct(told, "When is payday?", "On day 28.", "--supersedes", 1)
    assert {c["correction_id"] for c in replacing["conflicts"]} == {2, 3}


def test_the_queue_from_proposal_to_withdrawal(told: Callable[..., Json]) -> None:
    for answer in ("On the 25th.", "On the 26th."):
        correct(told, f"When is payday of {answer}", answer)
    listed = told("review", "list")["corrections"]
    assert [(row["id"], row["status"]) for row in listed] == [(1, "pending"), (2, "pending")]
    assert all(set(row) >= FIELDS for row in listed)
    (edited,) = told("review", "edit", 1, "--reviewer", "ben", "--answer", "On the 24th.")["corrections"]
    assert (edited["answer"], edited["status"]) == ("On the 24th.", "pending")
    (approved,) = told("review", "approve", 1, "--reviewer", "ben", "--reason", "checked")["corrections"]
    assert (approved["status"], approved["reviewer"], approved["reason"]) == ("approved", "ben", "checked")
    (rejected,) = told("review", "reject", 2, "--reviewer", "cleo")["corrections"]
    assert rejected["status"] == "rejected"
    assert [row["id"] for row in told("review", "list", "--status", "approved")["corrections"]] == [1]
    (withdrawn,) = told("review", "withdraw", 1, "--reviewer", "cleo")["corrections"]
    assert withdrawn["status"] == "withdrawn"
    assert told("review", "show", 1, 2)["corrections"] == [withdrawn, rejected]


def test_an_approved_successor_retires_what_it_supersedes(told: Callable[..., Json]) -> None:
    correct(told, "When is payday?", "On the 25th.")
    told("review", "approve", 1, "--reviewer", "ben")
    correct(told, "When is payday?", "On the 27th.", "--supersedes", 1)
    told("review", "approve", 2, "--reviewer", "ben")
    rows = told("review", "list")["corrections"]
    assert [(row["status"], row["supersedes"]) for row in rows] == [("superseded", None), ("approved", 1)]


def test_a_batch_of_corrections_goes_on_behind_a_bad_line(told: Callable[..., Json], tmp_path: Path) -> None:
    lines: list[Json] = [
        {"question": "When is payday?", "answer": "On the 25th.", "author": "ana", "source": "Payroll", "n": 7},
        {"question": "When is payday?", "answer": "", "author": "ana"},
        {"question": "Who is on call?", "answer": "Look at the rota.", "author": "ben", "supersedes": "first"},
        {"question": "Who is on call?", "answer": "Look at the rota.", "author": "ben"},
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "made" / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert told("correct", "--batch", source, "--out", target) == {"count": 4, "out": str(target)}
    results = [json.loads(line) for line in target.read_text().splitlines()]
    assert results[0] == lines[0] | {"ok": True, "correction_id": 1, "status": "pending", "conflicts": []}
    assert [result["ok"] for result in results] == [True, False, False, True]
    assert all(result.items() >= line.items() for result, line in zip(results, lines, strict=True))
    assert "--answer" in results[1]["error"]["message"]
    assert "'first' is no correction id" in results[2]["error"]["message"]


def test_a_line_of_a_batch_ends_with_a_newline_and_nothing_else(tmp_path: Path) -> None:
    rows = [{"question": "a\u2028b\u2029c\u0085d"}, {"question": "e"}]
    source = tmp_path / "in.jsonl"
    source.write_bytes("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert list(read_lines(source)) == rows


def test_a_line_that_the_model_server_cannot_answer_costs_that_line(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"n": 1}\n{"n": 2}\n')

    def work(row: Json) -> Json:
        if row["n"] == 1:
            raise EngineError("The server gave no answer.")
        return {"answer": "Yes."}

    assert run_batch(source, target, work) == 2
    first, second = map(json.loads, target.read_text().splitlines())
    assert (first["ok"], first["error"]["code"], second["ok"]) == (False, "engine", True)


def test_a_batch_of_questions_reads_the_keys_of_the_contract_only(
    told: Callable[..., Json], queue: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.commands.open_tools", lambda _: nullcontext((queue, exact.tools(queue))))
    source, target, again = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "again.jsonl"))
    rows = [{"question": "Who waters plants?", "route": "RETRIEVED", "user": None}, {"question": "Why?", "user": "U1"}]
    source.write_text("\n".join(map(json.dumps, rows)))
    told("ask", "--batch", source, "--out", target)
    told("ask", "--batch", target, "--out", again, "--user", "eve")
    for out in (target, again):
        assert [json.loads(line)["ok"] for line in out.read_text().splitlines()] == [True] * 2
    assert [r["user"] for r in queue.rows("SELECT user FROM questions ORDER BY id")] == ["cli", "U1", "eve", "U1"]


def test_a_batch_of_searches(told: Callable[..., Json], tmp_path: Path) -> None:
    (tmp_path / "leave.md").write_text("# Leave\n\nEverybody has 28 days.\n")
    told("ingest", tmp_path / "leave.md")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"question": "days of leave"}\n{"question": ""}\n')
    told("search", "--batch", source, "--out", target)
    found, empty = (json.loads(line) for line in target.read_text().splitlines())
    assert found["passages"][0]["document"] == "Leave"
    assert (empty["ok"], empty["error"]["code"]) == (False, "bad_input")


def version(name: str, parent: str) -> ModelVersion:
    gates = ({"name": "finite", "value": 1.0, "threshold": 1.0, "passed": True},)
    moment = f"2099-01-01T0{len(name)}:00:00.000000+00:00"
    return ModelVersion(name, parent, moment, f"models/{name}", "", "", "", 7, gates, {"heads": {}})


def test_the_registry_from_base_to_rollback(told: Callable[..., Json], queue: Database) -> None:
    fresh = told("models", "list")
    assert (fresh["champion"], fresh["previous"]) == ("base", None)
    assert set(fresh["versions"][0]) == {"version", "parent", "created", "gates", "bytes", "path"}
    registry.register(queue, version("v1", "base"))
    registry.register(queue, version("v22", "v1"))
    told("models", "promote", "v1")
    second = told("models", "promote", "v22")
    assert (second["champion"], second["previous"]) == ("v22", "v1")
    assert [v["version"] for v in second["versions"]] == ["base", "v1", "v22"]
    back = told("models", "rollback")
    assert (back["champion"], back["previous"]) == ("v1", "base")
    assert told("models", "rollback")["champion"] == "base"
    assert told("models", "rollback", "v22")["champion"] == "v22"
    (shown,) = told("models", "show")["versions"]
    assert (shown["version"], shown["path"], shown["bytes"]) == ("v22", "models/v22", 7)
    assert shown["gates"][0]["name"] == "finite"


def test_doctor_names_every_check(run: Callable[..., Result]) -> None:
    result = run("doctor", "--json")
    checks = json.loads(result.stdout)["checks"]
    assert all(set(check) == {"name", "ok", "detail"} and check["detail"] for check in checks)
    assert {"python", "sqlite", "database", "disk", "base_model", "champion"} <= {check["name"] for check in checks}
    assert result.exit_code == (0 if all(check["ok"] for check in checks) else 1)


def test_doctor_is_not_ok_when_a_check_is_not(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "hunter2")
    result = run("doctor", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], told["error"]["code"]) == (1, False, "error")
    assert "slack_tokens" in told["error"]["message"]
    assert_one_sentence(told["error"]["message"])
    assert not all(check["ok"] for check in told["checks"])


def test_doctor_finds_half_a_token(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "hunter2")
    result = run("doctor")
    assert result.exit_code == 1
    assert "FAIL slack_tokens: SLACK_BOT_TOKEN" in result.stdout
    assert "hunter2" not in result.output


def test_people_read_plain_lines(run: Callable[..., Result], queue: Database) -> None:
    listed = run("review", "list").stdout.splitlines()
    assert listed[0] == "   1 pending    ana          What is number 1? -> It is 1."
    assert run("models", "list").stdout.startswith("base                     champion")
    with pytest.raises(NotFoundError):
        corrections.get(queue, 99)


@pytest.mark.parametrize(("style", "words"), [("direct", "I was taught"), ("related", "The closest I was taught")])
def test_the_taught_question_is_always_shown(style: str, words: str) -> None:
    told = {"style": style, "taught_question": "When is payday?", "answer": "On day 25.", "route": "APPROVED"}
    told |= {"confidence": 0.9, "model_version": "base", "sources": [], "suggestions": []}
    assert bot_commands.spoken(told).splitlines()[:2] == [f"{words}: When is payday?", "On day 25."]
