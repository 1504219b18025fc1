"""Addresses, commands and code reach the reader to the character, by every route and in Slack."""

from pathlib import Path

import pytest

from bot.pipeline import Tools
from bot.sentences import sentences
from retrieval import loaders
from storage.domain import Route
from tests.bench import exact
from tests.bench.exact import ExactFact

FACTS = exact.facts()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return exact.taught(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module", params=exact.PAGES)
def read(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Tools:
    folder = tmp_path_factory.mktemp("read")
    return exact.read(folder / "home", folder / "pages", request.param)


def test_there_are_forty_facts_of_four_kinds() -> None:
    assert len(FACTS) == len({fact.id for fact in FACTS}) == 40
    assert all(exact.lost(fact, fact.answer) == [] for fact in FACTS)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.title)
def test_an_approved_answer_is_exact(taught: Tools, fact: ExactFact) -> None:
    answer = exact.reply(taught, fact)
    assert answer.route is Route.APPROVED
    assert answer.text == fact.answer
    assert exact.lost(fact, exact.seen(answer)) == []


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.title)
def test_a_quoted_answer_is_exact(read: Tools, fact: ExactFact) -> None:
    answer = exact.reply(read, fact, about=fact.title)
    assert answer.route is Route.RETRIEVED
    assert exact.lost(fact, answer.text) == []
    assert exact.lost(fact, exact.seen(answer)) == []


@pytest.mark.parametrize("kind", [".txt", ".html"])
def test_what_stands_on_a_line_of_its_own_can_be_quoted_alone(kind: str) -> None:
    for fact in FACTS:
        page = loaders.parse(Path(f"page{kind}"), exact.PAGES[kind](fact).encode())
        quotable = [sentence.text for section in page.sections for sentence in sentences(section.text)]
        assert [line for line in exact.own_lines(fact).split("\n") if line and line not in quotable] == []
