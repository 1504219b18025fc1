"""Secrets told to the bot in private channels, and outsiders who try to get them: nothing comes out, by no way.

Twenty channels hold a taught answer and a page each, with a code word in them; a thousand questions by people outside
ask for them, against a bot that is sure of everything and an index that names every passage whatever the scope.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from slack_office import PRIYA, SAM, Office, play
from test_retrieval import WordHashes

from bot import pipeline, teaching
from bot.desk import Asked, answer_and_store
from bot.generation import Generation
from bot.pipeline import Model, Tools
from learning import dataset, knowledge
from learning.admission import Rules
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import asked, conversations, corrections, evidence, export, registry
from storage.database import Database
from storage.domain import WORKSPACE, Route, Style

CANARIES, QUESTIONS = 20, 50
THINGS = ("merger", "audit", "salary", "layoff", "office", "lawsuit", "product", "supplier", "bonus", "breach")
OUTSIDERS = ((WORKSPACE,), (WORKSPACE, "C0OTHER"), (WORKSPACE, "C0SECRE"), (WORKSPACE, "c0secret0"), (WORKSPACE, "%"))
FORMS = (
    "What is the code of {thing} plan {n}?", "code of {thing} plan {n}", "what is the code word for plan {n}",
    "{thing} plan {n} code please", "tell me everything about {thing} plan {n}", "plan {n}", "Code {code_start}",
    "repeat the page about {thing} plan {n}", "who knows the {thing} code", "C0SECRET{n} code",
)  # fmt: skip


def code(n: int) -> str:
    return f"quokka{n:02}zephyr{7919 * (n + 3) % 10007}"


def thing(n: int) -> str:
    return THINGS[n % len(THINGS)]


def channel(n: int) -> str:
    return f"C0SECRET{n}"


class Sure:
    """Thinks that everything is right."""

    reading = "quoted"
    direct = related = 0.0

    def head(self, name: str) -> "Sure":
        return self

    def probability(self, features: Any) -> float:
        return 1.0


class Mute:
    """An engine that confirms whatever it is shown."""

    def generate(self, messages: Any, *, max_tokens: int) -> Generation:
        return Generation("", (), (), stopped=True)

    def confirm(self, messages: Any, draft: str, *, max_tokens: int) -> Generation:
        return Generation(draft, (0.0,), (1.0,), stopped=True, confirmed=1.0)


class TalkativeIndex(VectorIndex):
    """Names every passage, as a stale or damaged index might."""

    def search(self, vector: NDArray[np.float32], k: int, scopes: Collection[str]) -> list[tuple[int, float]]:
        return [(row["id"], 1.0) for row in self._database.rows("SELECT id FROM passages ORDER BY id DESC")]


@pytest.fixture
def database(home_in_memory: Path) -> Database:
    return Database(home_in_memory)


@pytest.fixture
def tools(database: Database, tmp_path: Path) -> Iterator[Tools]:
    """Private rows and pages beside public ones, and a bot that answers with whatever it finds."""
    embedder = WordHashes()
    for n in range(CANARIES):
        question, answer = f"What is the code of {thing(n)} plan {n}?", f"The code of {thing(n)} plan {n} is {code(n)}."
        row = corrections.propose(database, question=question, answer=answer, author=SAM, scope=channel(n))
        corrections.approve(database, row.id, PRIYA)
        page = tmp_path / f"plan{n}.md"
        page.write_text(f"# {thing(n)} plan {n}\n\nThe code word of {thing(n)} plan {n} is {code(n)}.\n")
        ingest(database, embedder, [page], scope=channel(n))
    row = corrections.propose(database, question="When is payday?", answer="On day 25.", author=SAM)
    corrections.approve(database, row.id, PRIYA)
    page = tmp_path / "leave.md"
    page.write_text("# Leave\n\nEverybody has 28 days of leave. A plan for leave needs no code.\n")
    ingest(database, embedder, [page])
    registry.ensure_base(database, path="models/base", size=1, manifest_sha256="", confidence={"heads": {}})
    index = TalkativeIndex(database.home, database)
    model = Model("base", Mute(), Sure(), registry.memories(database, "base"))  # type: ignore[arg-type]
    yield Tools(embedder, TaughtQuestions(database, embedder), Retriever(database, embedder, index), model)
    index.close()


def questions(n: int) -> list[tuple[str, tuple[str, ...]]]:
    """Fifty questions about one canary, each with the scopes of an outsider."""
    forms = [f.format(thing=thing(n), n=n, code_start=code(n)[:8]) for f in FORMS]
    others = [(WORKSPACE, channel((n + 1) % CANARIES)), *OUTSIDERS[1:]]
    return [(form, scopes) for form in forms for scopes in (OUTSIDERS[0], *others)][:QUESTIONS]


def leaks(shown: Any, n: int) -> bool:
    return code(n) in json.dumps(shown, default=str)


@pytest.mark.slow
def test_a_thousand_questions_of_outsiders_bring_no_canary_out(database: Database, tools: Tools) -> None:
    asked_of, leaked = 0, []
    for n in range(CANARIES):
        for question, scopes in questions(n):
            reply = answer_and_store(database, tools, Asked(question, "U0EVE", scopes[-1], scopes=scopes))
            found = tools.searcher.hits(question, 10, scopes)
            asked_of += 1
            if leaks(asdict(reply), n) or leaks([asdict(hit) for hit in found], n):
                leaked.append((n, question, scopes))
    assert asked_of == CANARIES * QUESTIONS
    assert leaked == []


def test_the_people_of_the_channel_do_get_it_just_after_an_outsider_did_not(database: Database, tools: Tools) -> None:
    for n in range(CANARIES):
        question = f"What is the code of {thing(n)} plan {n}?"
        for scopes, wanted in (((WORKSPACE,), False), ((WORKSPACE, channel(n)), True), ((WORKSPACE,), False)):
            for route in ("auto", "documents"):
                reply = answer_and_store(database, tools, Asked(question, "U0EVE", "", "", scopes, route))
                assert leaks(asdict(reply), n) is wanted, (n, scopes, route)


def test_a_passage_whose_scope_changed_is_hidden_although_the_index_has_it(database: Database, tools: Tools) -> None:
    public = "How many days of leave does everybody have?"
    assert any("28 days" in h.passage.text for h in tools.searcher.hits(public, 5, (WORKSPACE,)))
    database.here.execute("UPDATE documents SET scope = 'C0BOARD' WHERE scope = 'workspace'")
    assert tools.searcher.hits(public, 5, (WORKSPACE,)) == []
    assert pipeline.answer(tools, conversations.ask(database, public, user="U", channel="", thread="")).route in (
        Route.ABSTAINED,
        Route.APPROVED,
    )


def test_no_scope_is_no_answer(tools: Tools, database: Database) -> None:
    question = conversations.ask(database, "What is the code of merger plan 0?", user="U", channel="", thread="")
    reply = pipeline.answer(tools, question, scopes=())
    assert (reply.route, reply.style, reply.sources) == (Route.ABSTAINED, Style.NONE, ())


def test_nothing_private_is_in_a_snapshot_an_inventory_a_suggestion_or_a_training_file(
    database: Database, tools: Tools, tmp_path: Path
) -> None:
    snapshot = dataset.freeze(database, tools.embedder, seed=7, rules=Rules(cap_per_author=0))
    assert {left.reason for left in snapshot.left_out} == {"private"}
    assert len(snapshot.left_out) == CANARIES
    for n in range(CANARIES):
        for user in ("U0A", "U0B"):
            channel_scopes = (WORKSPACE, channel(n))
            text = f"What is the code of {thing(n)} plan {n}, is it {code(n)}?"
            answer_and_store(database, tools, Asked(text, user, channel(n), scopes=channel_scopes))
    export.write(database, tmp_path / "out")
    files = [p for p in (tmp_path / "out").rglob("*.jsonl") if p.name != "corrections.jsonl"]
    assert files
    shown = [
        [asdict(fact) for fact in snapshot.facts],
        knowledge.inventory(database),
        asked.often(database, "2000", 50),
        [p.read_text() for p in files],
    ]
    assert not any(leaks(shown, n) for n in range(CANARIES))


def test_a_proposal_of_an_outsider_shows_nothing_private(database: Database, tools: Tools) -> None:
    for n in range(CANARIES):
        question = f"What is the code of {thing(n)} plan {n}?"
        answer = f"The code of {thing(n)} plan {n} is wrong{n}."
        told = teaching.propose(database, tools.embedder, question=question, answer=answer, author="U0EVE")
        assert not leaks(asdict(told), n)
        assert not leaks(asdict(evidence.dossier(database, told.correction.id)), n)


def test_the_home_page_of_an_outsider_shows_nothing_private(home: Path) -> None:
    async def story(here: Office) -> None:
        for n in range(CANARIES):
            answer = f"The code of plan {n} is {code(n)}."
            row = corrections.propose(
                here.database, question=f"Code of plan {n}?", answer=answer, author=PRIYA, scope=channel(n)
            )
            corrections.approve(here.database, row.id, "U0ANN")
        from bot import home as app_home

        assert here.bot._parts is not None
        await app_home.publish(here.bot._parts, SAM)
        shown: Sequence[Any] = here.calls("views.publish")
        assert shown
        assert not any(leaks(shown, n) for n in range(CANARIES))

    play(home, story)


def test_a_withdrawn_answer_is_gone_at_the_next_question_and_from_the_next_snapshot(
    database: Database, tools: Tools
) -> None:
    def said() -> str:
        return answer_and_store(database, tools, Asked("When is payday?", SAM, "C0HELP")).text

    assert said() == "On day 25."
    row = next(r for r in corrections.in_status(database) if r.question == "When is payday?")
    other_process = Database(database.home)
    corrections.withdraw(other_process, row.id, PRIYA)
    other_process.close()
    assert "day 25" not in said()
    frozen = dataset.freeze(database, tools.embedder, seed=7)
    assert row.id not in {fact.correction_id for fact in frozen.facts}
