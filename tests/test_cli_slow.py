"""The console command from outside, with the real models: a script that knows only the agreed commands and JSON."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import company

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).parent / "nightshift")
ASKED = {
    "ok", "question_id", "answer_id", "answer", "route", "style", "taught_question", "confidence", "model_version",
    "correction_id", "sources", "suggestions", "timings",
}  # fmt: skip
ROUTES = {"APPROVED", "MEMORISED", "RETRIEVED", "ABSTAINED"}
STYLES = {"direct", "related", "generated", "quoted", "none"}
DOGS = next(c for c in company.corrections() if c.id == "c03")
Json = dict[str, Any]
Run = Callable[..., tuple[int, Json]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run one command as another program would; returns the exit code and the one JSON object."""
    home = tmp_path_factory.mktemp("outside") / "home"

    def invoke(*arguments: object) -> tuple[int, Json]:
        done = subprocess.run(
            [COMMAND, "--home", str(home), *map(str, arguments), "--json"],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert "Traceback" not in done.stderr
        (line,) = done.stdout.splitlines()
        told: Json = json.loads(line)
        assert told["ok"] is (done.returncode == 0)
        return done.returncode, told

    return invoke


@pytest.fixture(scope="module")
def handbook(run: Run) -> Json:
    """The demo company's pages in the index."""
    code, told = run("ingest", company.pages())
    assert code == 0
    return told


def assert_answer(told: Json) -> None:
    """An object of `ask --json`: exactly the agreed fields, in their kinds."""
    assert set(told) == ASKED
    assert told["route"] in ROUTES
    assert told["style"] in STYLES
    assert 0 <= told["confidence"] <= 1
    assert told["answer"].strip()
    assert told["model_version"]
    assert all(set(source) == {"document", "heading", "url", "score"} for source in told["sources"])
    assert told["timings"]["total_ms"] > 0


def test_ingest_counts_and_then_leaves_unchanged_pages_alone(run: Run, handbook: Json) -> None:
    pages = len(list(company.pages().glob("*.md")))
    assert set(handbook) == {"ok", "documents", "passages", "unchanged", "removed", "failed"}
    assert (handbook["documents"], handbook["unchanged"], handbook["failed"]) == (pages, 0, [])
    assert handbook["passages"] > pages
    _, again = run("ingest", company.pages())
    assert (again["documents"], again["unchanged"], again["removed"]) == (0, pages, 0)


def test_search_finds_the_page(run: Run, handbook: Json) -> None:
    code, told = run("search", "how many days of annual leave", "-k", 3)
    assert code == 0
    assert set(told) == {"ok", "passages"}
    assert len(told["passages"]) == 3
    assert all({"document", "heading", "text", "score"} <= set(passage) for passage in told["passages"])
    assert "leave" in told["passages"][0]["document"].lower()


def test_from_a_question_to_its_approved_correction(run: Run, handbook: Json) -> None:
    code, before = run("ask", DOGS.question, "--user", "U0SAM")
    assert code == 0
    assert_answer(before)
    assert before["route"] in ("RETRIEVED", "ABSTAINED")
    assert not company.answer_matches(before["answer"], DOGS.keys)

    code, proposed = run("correct", "--question", DOGS.question, "--answer", DOGS.answer, "--author", "U0SAM")
    assert code == 0
    assert set(proposed) == {"ok", "correction_id", "status", "conflicts"}
    assert (proposed["status"], proposed["conflicts"]) == ("pending", [])
    number = proposed["correction_id"]
    code, pending = run("ask", DOGS.question)
    assert pending["route"] == before["route"], "nobody approved it yet"

    code, own = run("review", "approve", number, "--reviewer", "U0SAM")
    assert (code, own["error"]["code"]) == (1, "not_allowed")
    code, approved = run("review", "approve", number, "--reviewer", "U0PRIYA")
    assert code == 0
    (row,) = approved["corrections"]
    assert {"id", "status", "question", "answer", "author", "reviewer", "proof"} <= set(row)
    assert (row["status"], row["reviewer"], row["proof"]) == ("approved", "U0PRIYA", None)

    code, after = run("ask", DOGS.question)
    assert code == 0
    assert_answer(after)
    assert (after["route"], after["style"], after["answer"]) == ("APPROVED", "direct", DOGS.answer)
    assert (after["taught_question"], after["correction_id"]) == (DOGS.question, number)

    code, told = run("correct", "--question", DOGS.question, "--answer", "Never.", "--author", "U0RITA")
    assert [set(conflict) for conflict in told["conflicts"]] == [{"correction_id", "question", "answer", "kind"}]
    assert (told["conflicts"][0]["correction_id"], told["conflicts"][0]["kind"]) == (number, "contradiction")


def test_every_forced_route_answers(run: Run, handbook: Json) -> None:
    for route, allowed in (("raw", {"MEMORISED"}), ("documents", {"RETRIEVED", "ABSTAINED"}), ("memory", ROUTES)):
        code, told = run("ask", "How many days of paid annual leave do I have per year?", "--route", route)
        assert code == 0
        assert_answer(told)
        assert told["route"] in allowed


def test_a_hundred_questions_in_one_process(run: Run, handbook: Json, tmp_path: Path) -> None:
    golden = [g.question for g in company.golden()]
    wordings = [w for fact in company.facts() for w in fact.wordings]
    rows: list[Json] = [
        {"question": question, "user": f"U{number}", "channel": "", "mine": number}
        for number, question in enumerate([*golden, *wordings][:98])
    ]
    rows += [{"question": " "}, {"question": "", "user": None}]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    started = time.monotonic()
    code, told = run("ask", "--batch", source, "--out", target)
    seconds = time.monotonic() - started
    assert (code, told) == (0, {"ok": True, "count": 100, "out": str(target)})
    assert seconds < 240, f"one process takes {seconds:.0f} s for a hundred questions"
    results = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert len(results) == 100
    for row, result in zip(rows[:98], results, strict=False):
        assert result.items() >= row.items()
        assert_answer({k: v for k, v in result.items() if k not in row})
    assert [result["ok"] for result in results[98:]] == [False, False]
    sure = [r["question"] for r in results[:60] if r["correction_id"] is not None and r["style"] == "direct"]
    assert sure == [], "nobody taught these; at most one correction, about dogs, is known here"
    right = [company.answer_matches(r["answer"], g.keys) for r, g in zip(results, company.golden(), strict=False)]
    assert sum(right) >= 10, "the pages are read"
    assert len({result["question_id"] for result in results[:98]}) == 98


def test_what_only_the_real_parts_can_refuse(run: Run, handbook: Json) -> None:
    code, told = run("evaluate", "--suite", "dancing")
    assert (code, told["error"]["code"]) == (1, "not_found")
    assert "'dancing'" in told["error"]["message"]
