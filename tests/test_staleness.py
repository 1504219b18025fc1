"""A page that was changed after a fact was taught from it: the answer goes through documents until somebody looked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from bot import answer_views, pipeline
from bot import home as slack_home
from bot.confidence import Confidence
from bot.generation import Engine, Generation
from bot.pipeline import Model, Tools
from learning import knowledge, report
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import conversations, corrections, grounds, registry, settings
from storage.database import Database
from storage.domain import Answer, Correction, Memory, ModelVersion, Question, Route
from storage.errors import ConflictError, NotAllowedError
from storage.grounds import Staleness
from tests.bench.exact import SURE, WordHashes

LEAVE = """# Annual leave

## How much you get

Everybody has 26 working days of paid annual leave per calendar year.

## Carrying days over

Up to five unused days move into the next year. They expire on 31 March.
"""
PENSION = "# Pension\n\nLumen Pay matches what you put in, euro for euro, up to 6 %.\n"
QUESTION = "When do carried over leave days expire?"
ANSWER = "Carried over leave days expire on 31 March."


class Confirms:
    """An engine that knows every stored answer by heart."""

    def confirm(self, chat: object, draft: str, *, max_tokens: int) -> Generation:
        return Generation(draft, (-0.01,), (9.0,), stopped=True, confirmed=1.0)


class Office:
    """A handbook in a folder, one correction that the model has learnt, and a bot that answers."""

    def __init__(self, home: Path, pages: Path) -> None:
        self.pages, self.database, self.embedder = pages, Database(home), WordHashes()
        pages.mkdir()
        self.write("leave.md", LEAVE)
        self.write("pension.md", PENSION)
        self.tools = Tools(
            embedder=self.embedder,
            taught=TaughtQuestions(self.database, self.embedder),
            searcher=Retriever(self.database, self.embedder, VectorIndex(home, self.database)),
            model=Model(
                "v1", cast(Engine, Confirms()), Confidence(dict.fromkeys(("same", "memorised", "quoted"), SURE)), {}
            ),
            stale=Staleness(self.database),
        )

    def write(self, name: str, text: str) -> None:
        """A page, on disk and ingested."""
        (self.pages / name).write_text(text, encoding="utf-8")
        ingest(self.database, self.embedder, [self.pages])

    def drop(self, name: str) -> None:
        """A page that is gone."""
        (self.pages / name).unlink()
        ingest(self.database, self.embedder, [self.pages])

    def learn(self, source: str = "", question: str = QUESTION, answer: str = ANSWER) -> Correction:
        """Teach a correction and put it into the weights."""
        made = corrections.propose(self.database, question=question, answer=answer, author="sam", source=source)
        row = corrections.approve(self.database, made.id, "priya")
        if registry.alias(self.database, "champion") is None:
            registry.ensure_base(self.database, path="x", size=1, manifest_sha256="", confidence={})
            version = ModelVersion("v1", "base", "2026-11-20T00:00:00+00:00", "x", "", "", "", 1, (), {})
            registry.register(self.database, version)
            registry.remember(self.database, (Memory("v1", row.id, True, {}),))
            registry.point(self.database, "champion", "v1")
        self.tools.model.memories[row.id] = Memory("v1", row.id, True, {})  # type: ignore[index]
        return row

    def ask(self, text: str = QUESTION, route: str = "auto", meant: int | None = None) -> Answer:
        """What the bot answers."""
        question = Question(1, text, "U", "C", "", "2026-11-20T00:00:00+00:00")
        return pipeline.answer(self.tools, question, route=route, meant=meant)

    def night(self) -> tuple[int, ...]:
        """What a night does about pages that were changed."""
        return grounds.recheck(self.database, corrections.in_status(self.database))


@pytest.fixture
def office(home_in_memory: Path, tmp_path: Path) -> Iterator[Office]:
    made = Office(home_in_memory, tmp_path / "pages")
    yield made
    made.database.close()


def test_from_the_page_to_the_list_and_back(office: Office) -> None:
    """The whole story: learnt, page changed, documents answer, the admin sees it, approves again, memory answers."""
    row = office.learn("Annual leave > Carrying days over")
    assert office.ask().route is Route.MEMORISED

    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    reply = office.ask()
    assert reply.route is Route.RETRIEVED
    assert "30 June" in reply.text
    assert reply.features["taught/stale"] == 1.0
    assert office.ask(route="memory").route is Route.MEMORISED

    told = knowledge.inventory(office.database)
    assert told["stale"] == [row.id]
    assert told["facts"][0]["stale"]["document"] == "Annual leave"
    assert "STALE: Annual leave > Carrying days over was changed" in knowledge.in_words(told)
    morning = report.morning(office.database, chart=False)
    assert "**Out of date: 1**" in morning.text
    assert [one["correction_id"] for one in morning.figures["stale"]] == [row.id]
    shown = str(slack_home.home_view(slack_home.gather(office.database, "priya", admin=True, version="v1")))
    assert "Annual leave > Carrying days over was changed" in shown.replace("&gt;", ">")

    assert office.night() == (row.id,)
    assert office.ask().route is Route.RETRIEVED
    corrections.approve(office.database, row.id, "priya")
    assert office.ask().route is Route.MEMORISED
    assert knowledge.inventory(office.database)["stale"] == []


@pytest.mark.parametrize(
    ("source", "cited"),
    [
        ("Annual leave > Carrying days over", [("Annual leave", "Carrying days over", "")]),
        ("", [("Annual leave", "Carrying days over", "")]),
        ("https://lumenpay.example/leave", [("https://lumenpay.example/leave", "", "https://lumenpay.example/leave")]),
        ("Priya, by phone", [("Priya, by phone", "", "")]),
    ],
)
@pytest.mark.parametrize("route", [Route.MEMORISED, Route.APPROVED])
def test_a_taught_answer_names_its_source(
    office: Office, source: str, cited: list[tuple[str, str, str]], route: Route
) -> None:
    row = office.learn(source, answer=ANSWER if cited[0][1] else "Ask Priya about it.")
    if route is Route.APPROVED:
        office.tools.model.memories.pop(row.id)  # type: ignore[attr-defined]
    reply = office.ask()
    assert reply.route is route
    assert [(s.document, s.heading, s.url) for s in reply.sources] == cited
    posts = str([block for post in answer_views.answer_posts(reply) for block in post.blocks])
    assert f"Sources: {'<' if cited[0][2] else cited[0][0]}" in posts


def test_a_memory_that_loses_a_word_as_it_is_written_is_not_given(office: Office) -> None:
    class Loses(Confirms):
        """An engine whose tokenizer takes a placeholder for a special token."""

        def confirm(self, chat: object, draft: str, *, max_tokens: int) -> Generation:
            return replace(super().confirm(chat, draft, max_tokens=max_tokens), text=draft.replace("<filename>", ""))

    answer = "Run `deploy --file <filename>` and wait."
    office.learn("Priya", answer=answer)
    office.tools = replace(office.tools, model=replace(office.tools.model, engine=cast(Engine, Loses())))
    reply = office.ask()
    assert (reply.route, reply.text) == (Route.APPROVED, answer)


def test_a_suggestion_whose_page_was_changed_is_answered_from_the_page(office: Office) -> None:
    row = office.learn("Annual leave > Carrying days over")
    asked = "until which month may unused holidays wait?"
    assert office.ask(asked, meant=row.id).text == ANSWER
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    reply = office.ask(asked, meant=row.id)
    assert (reply.route, reply.correction_id) == (Route.RETRIEVED, None)
    assert "30 June" in reply.text
    assert reply.features["taught/stale"] == 1.0


def test_the_night_takes_up_again_what_the_page_still_says(office: Office) -> None:
    office.learn("leave.md")
    office.write("leave.md", LEAVE.replace("Up to five unused days", "At most six unused days"))
    assert office.ask().route is Route.RETRIEVED
    assert office.night() == ()
    assert office.ask().route is Route.MEMORISED


def test_an_override_that_no_model_has_learnt_gives_way_too(office: Office) -> None:
    row = office.learn("leave.md")
    del office.tools.model.memories[row.id]  # type: ignore[attr-defined]
    assert office.ask().route is Route.APPROVED
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    assert office.ask().route is Route.RETRIEVED


def test_without_a_source_the_section_that_states_the_answer_is_its_ground(office: Office) -> None:
    office.learn()
    office.write("leave.md", LEAVE.replace("26 working days", "27 working days"))
    assert office.ask().route is Route.MEMORISED, "another section of the page was changed"
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    assert office.ask().route is Route.RETRIEVED


def test_what_contradicts_every_page_rests_on_none(office: Office) -> None:
    """The page is wrong and the correction right: mending another line must not bring the wrong one back."""
    office.learn(answer="Carried over leave days expire on 15 May since 2026.", source="Note of the People team")
    office.write("leave.md", LEAVE + "\nQuestions: #ask-people.\n")
    assert office.ask().route is Route.MEMORISED


def test_private_pages_do_not_hide_the_page_that_it_rests_on(office: Office, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    for number in range(2 * grounds.LOOKED_AT):
        (private / f"{number}.md").write_text(f"# Copy {number}\n\n{ANSWER}\n", encoding="utf-8")
    ingest(office.database, office.embedder, [private], "C0PRIVATE")
    row = office.learn()
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    assert list(grounds.stale(office.database)) == [row.id]


@pytest.mark.parametrize(
    ("source", "touched"),
    [
        ("Annual leave", True),
        ("the page 'Annual Leave' in the handbook", True),
        ("handbook/leave.md, last line", True),
        ("Carrying days over", True),
        ("https://handbook.example/pension", False),
        ("Pension: matching", False),
        ("told me at the annual party, before I took leave", False),
    ],
)
def test_which_sources_name_the_page(office: Office, source: str, touched: bool) -> None:
    row = office.learn(source, answer="Ask the People team about those.")
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    assert (row.id in grounds.stale(office.database)) == touched


def test_a_page_that_was_moved_is_the_same_and_one_that_is_gone_is_said_to_be(office: Office) -> None:
    row = office.learn("Annual leave")
    office.drop("leave.md")
    assert grounds.stale(office.database)[row.id].gone
    assert office.ask().route is not Route.MEMORISED
    office.write("holidays.md", LEAVE)
    assert grounds.stale(office.database) == {}
    assert office.ask().route is Route.MEMORISED


def test_the_same_text_ingested_again_or_wrapped_otherwise_changes_nothing(office: Office) -> None:
    office.learn("leave.md")
    office.write("leave.md", LEAVE.replace("Up to five unused days move", "Up to five unused days\nmove"))
    assert grounds.stale(office.database) == {}


def test_who_wrote_a_correction_may_not_confirm_it_and_only_stale_ones_are_approved_twice(office: Office) -> None:
    row = office.learn("leave.md")
    with pytest.raises(ConflictError):
        corrections.approve(office.database, row.id, "priya")
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    with pytest.raises(NotAllowedError):
        corrections.approve(office.database, row.id, "sam")
    assert row.id in grounds.stale(office.database)


def test_a_page_that_came_after_the_correction_is_found_by_the_night(office: Office) -> None:
    office.drop("leave.md")
    row = office.learn("leave.md")
    office.write("leave.md", LEAVE)
    assert office.night() == ()
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    assert list(grounds.stale(office.database)) == [row.id]


def test_a_withdrawn_correction_is_nobodys_concern(office: Office) -> None:
    row = office.learn("leave.md")
    office.write("leave.md", LEAVE.replace("31 March", "30 June"))
    corrections.withdraw(office.database, row.id, "priya")
    assert grounds.stale(office.database) == {}
    assert office.night() == ()


@pytest.mark.slow
def test_the_bot_as_it_is_put_together_gives_way_to_a_changed_page(home: Path, tmp_path: Path) -> None:
    from bot import asking, desk
    from retrieval.embedder import Embedder

    database, values = Database(home), settings.load({}, overrides={"HOME": str(home)})
    page = tmp_path / "leave.md"
    page.write_text(LEAVE, encoding="utf-8")
    embedder = Embedder()
    ingest(database, embedder, [tmp_path])
    made = corrections.propose(database, question=QUESTION, answer=ANSWER, author="sam", source="Annual leave")
    corrections.approve(database, made.id, "priya")
    tools, index = desk.open_tools(database, values, serving=False)
    asked = asking.Asked(QUESTION, "U1", "C1")
    assert asking.answer_and_store(database, tools, asked).correction_id == made.id
    page.write_text(LEAVE.replace("31 March", "30 June"), encoding="utf-8")
    ingest(database, embedder, [tmp_path])
    reply = asking.answer_and_store(database, tools, asked)
    index.close()
    assert reply.correction_id is None
    assert reply.features["taught/stale"] == 1.0
    assert conversations.get_answer(database, reply.id).features == reply.features
