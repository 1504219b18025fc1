"""The demo company keeps its promises: counts, ids, and answer keys that its own texts satisfy."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from storage import company
from storage.texts import plain

HERE = Path(company.__file__).parent
RUNBOOKS = sorted(company.pages().glob("service-*.md"))
PAGES = sorted(set(company.pages().glob("*.md")) - set(RUNBOOKS))
FRONT_MATTER = re.compile(
    r"\A---\ntitle: (?P<title>.+)\nowner: .+\nurl: (?P<url>https://handbook\.lumenpay\.example/\S+)\n---\n\n?"
)
SERVICE_COUNTS = {
    ("AuthFlow", "defect"): 9,
    ("AuthFlow", "feature"): 3,
    ("PayFlow", "defect"): 7,
    ("PayFlow", "feature"): 2,
    ("DataFlow", "defect"): 7,
    ("DataFlow", "feature"): 1,
}
PREFIX = {"AuthFlow": "AF", "PayFlow": "PF", "DataFlow": "DF"}
ERROR_CODE = re.compile(r"\b[APD]F-\d{4}\b")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def page_text(name: str) -> str:
    return (company.pages() / name).read_text(encoding="utf-8")


def page_body(path: Path) -> str:
    return FRONT_MATTER.sub("", path.read_text(encoding="utf-8"))


def words(text: str) -> int:
    return len(text.split())


# The pages


def test_there_are_thirty_pages_with_titles_and_addresses_of_their_own() -> None:
    everything = [*PAGES, *RUNBOOKS]
    heads = [FRONT_MATTER.match(page.read_text(encoding="utf-8")) for page in everything]
    assert (len(PAGES), len(RUNBOOKS)) == (30, 3)
    assert len({head["title"] for head in heads if head}) == len(everything)
    assert len({head["url"] for head in heads if head}) == len(everything)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_the_shape_of_a_handbook_page(page: Path) -> None:
    head = FRONT_MATTER.match(page.read_text(encoding="utf-8"))
    body = page_body(page)
    assert head is not None
    assert body.startswith(f"# {head['title']}\n")
    assert 150 <= words(body) <= 450
    assert 3 <= len(re.findall(r"^## \S", body, re.MULTILINE)) <= 6


def test_lists_and_tables_occur() -> None:
    bodies = [page_body(page) for page in PAGES]
    assert sum("\n- " in body or "\n* " in body or "\n1. " in body for body in bodies) >= 20
    assert sum("\n|---" in body for body in bodies) == 2


# The golden set


def test_the_golden_set_has_its_three_kinds() -> None:
    assert Counter(item.kind for item in company.golden()) == {"handbook": 40, "service": 12, "unknown": 8}


@pytest.mark.parametrize(
    "item", [item for item in company.golden() if item.kind == "handbook"], ids=lambda item: item.id
)
def test_a_handbook_key_is_found_in_its_page(item: company.GoldenQuestion) -> None:
    assert company.answer_matches(page_text(item.page), item.keys)


def test_every_page_is_asked_about() -> None:
    asked = {item.page for item in company.golden() if item.kind == "handbook"}
    assert asked == {page.name for page in PAGES}


@pytest.mark.parametrize(
    "item", [item for item in company.golden() if item.kind == "service"], ids=lambda item: item.id
)
def test_a_service_key_is_found_in_the_item_it_is_about(item: company.GoldenQuestion) -> None:
    services = [fact for fact in company.facts() if fact.page == "services"]
    codes = ERROR_CODE.findall(item.question)
    about = [fact.answer for fact in services if all(code in fact.answer for code in codes)]
    assert item.page == "services"
    assert any(company.answer_matches(answer, item.keys) for answer in about)


def test_unknown_questions_have_no_key_and_name_no_known_error_code() -> None:
    known = {row["code"] for row in rows("services.jsonl")}
    for item in company.golden():
        if item.kind == "unknown":
            assert item.keys == ()
            assert item.page == ""
            assert not known.intersection(ERROR_CODE.findall(item.question))


# The corrections


def test_eight_corrections_of_which_two_contradict_a_page() -> None:
    items = company.corrections()
    assert len(items) == 8
    assert [item.contradicts for item in items if item.contradicts] == ["travel-booking.md", "expenses.md"]
    assert len({item.author for item in items}) >= 3
    assert all(re.fullmatch(r"U0[A-Z]+", item.author) and item.source for item in items)


@pytest.mark.parametrize("item", company.corrections(), ids=lambda item: item.id)
def test_a_correction_is_short_and_answers_its_own_question(item: company.ProposedCorrection) -> None:
    assert company.answer_matches(item.answer, item.keys)
    assert 12 <= words(item.answer) <= 35
    asked = [plain(question) for question in (item.question, *item.unseen, *item.near_misses)]
    assert (len(item.unseen), len(item.near_misses), len(set(asked))) == (3, 2, 6)


@pytest.mark.parametrize(
    "item", [item for item in company.corrections() if not item.contradicts], ids=lambda item: item.id
)
def test_no_line_of_the_handbook_says_what_a_correction_adds(item: company.ProposedCorrection) -> None:
    lines = [line for page in PAGES for line in page_body(page).splitlines()]
    assert [line for line in lines if company.answer_matches(line, item.keys)] == []


@pytest.mark.parametrize(
    ("correction", "outdated"), [("c01", "Tallinn: €110"), ("c02", "paid out every Thursday")]
)
def test_a_contradicted_page_still_says_the_old_thing(correction: str, outdated: str) -> None:
    item = next(item for item in company.corrections() if item.id == correction)
    assert item.contradicts is not None
    assert outdated in page_text(item.contradicts)
    assert not company.answer_matches(page_text(item.contradicts), item.keys)


# The facts


def test_there_are_sixty_facts() -> None:
    facts = company.facts()
    assert len(facts) == 60
    assert Counter(fact.page == "services" for fact in facts) == {False: 31, True: 29}


@pytest.mark.parametrize("fact", company.facts(), ids=lambda fact: fact.id)
def test_a_fact_answers_its_own_question(fact: company.CompanyFact) -> None:
    assert company.answer_matches(fact.answer, fact.keys)
    assert (len(fact.wordings), len(fact.near_misses)) == (4, 2)
    asked = [plain(question) for question in (fact.question, *fact.wordings, *fact.near_misses)]
    assert len(set(asked)) == 7


@pytest.mark.parametrize(
    "fact", [fact for fact in company.facts() if fact.page != "services"], ids=lambda fact: fact.id
)
def test_a_handbook_fact_stands_in_its_page(fact: company.CompanyFact) -> None:
    assert company.answer_matches(page_text(fact.page), fact.keys)
    assert 10 <= words(fact.answer) <= 30


@pytest.mark.parametrize(
    "fact", [fact for fact in company.facts() if fact.page == "services"], ids=lambda fact: fact.id
)
def test_a_service_fact_stands_in_one_runbook(fact: company.CompanyFact) -> None:
    assert any(company.answer_matches(page_body(runbook), fact.keys) for runbook in RUNBOOKS)


def test_services_have_the_promised_items() -> None:
    items = rows("services.jsonl")
    assert Counter((item["service"], item["kind"]) for item in items) == SERVICE_COUNTS
    assert all(item[part] for item in items for part in ("title", "symptom", "cause", "fix"))


def test_every_defect_has_a_code_of_its_service_and_no_feature_has_one() -> None:
    items = rows("services.jsonl")
    codes = [item["code"] for item in items if item["kind"] == "defect"]
    assert len(set(codes)) == len(codes) == 23
    for item in items:
        if item["kind"] == "feature":
            assert item["code"] is None
        else:
            assert re.fullmatch(PREFIX[item["service"]] + r"-\d{4}", item["code"])
            assert item["code"] in item["answer"]


# The pairs, which come from other companies' questions so that they may be trained on


def test_pairs_are_three_wordings_and_two_near_misses_a_question() -> None:
    pairs = rows("pairs.jsonl")
    kinds = {True: {"wording"}, False: {"entity", "attribute", "time", "number", "negation"}}
    shape = Counter((pair["fact"], pair["same"]) for pair in pairs)
    assert len(pairs) == 300
    assert all(pair["kind"] in kinds[pair["same"]] for pair in pairs)
    assert all(count == (3 if same else 2) for (_, same), count in shape.items())


def test_pairs_ask_nothing_that_this_company_teaches_or_is_measured_by() -> None:
    ours = {plain(text) for question, wordings in taught() for text in (question, *wordings)}
    ours |= {plain(item.question) for item in company.golden()}
    pairs = rows("pairs.jsonl")
    assert [pair for pair in pairs if {plain(pair["taught"]), plain(pair["asked"])} & ours] == []


# All together


def test_ids_are_unique_over_all_files() -> None:
    names = ("golden.jsonl", "corrections.jsonl", "handbook_facts.jsonl", "services.jsonl")
    counts = Counter(row["id"] for name in names for row in rows(name))
    assert [item for item, count in counts.items() if count > 1] == []


def taught() -> list[tuple[str, tuple[str, ...]]]:
    """Every taught question with the wordings that mean the same."""
    facts = [(fact.question, fact.wordings) for fact in company.facts()]
    return facts + [(item.question, item.unseen) for item in company.corrections()]


def test_no_two_taught_questions_share_a_wording() -> None:
    counts = Counter(plain(text) for question, wordings in taught() for text in (question, *wordings))
    assert [text for text, count in counts.items() if count > 1] == []


def test_a_near_miss_is_no_wording_of_a_taught_question() -> None:
    wordings = {plain(text) for _, texts in taught() for text in texts}
    near_misses = [text for fact in company.facts() for text in fact.near_misses]
    near_misses += [text for item in company.corrections() for text in item.near_misses]
    assert [text for text in near_misses if plain(text) in wordings] == []


def test_the_golden_set_asks_nothing_in_a_taught_wording() -> None:
    known = {plain(text) for question, wordings in taught() for text in (question, *wordings)}
    assert [item.id for item in company.golden() if plain(item.question) in known] == []


# The matcher


@pytest.mark.parametrize(
    ("answer", "keys", "right"),
    [
        ("You have 15 Working Days.", [["15", "fifteen"], ["working days"]], True),
        ("Fifteen days.", [["15", "fifteen"], ["working days"]], False),
        ("Fifteen working\n days.", [["15", "fifteen"], ["working days"]], True),
        ("You have 15 days.", [["5 days"]], False),
        ("It costs €1,500.", [["500"]], False),
        ("It costs €500.", [["500"]], True),
        ("Up to €50.", [["€50"]], True),
        ("Up to €500.", [["€50"]], False),
        ("Within 8 seconds.", [["8 s"]], True),
        ("Anything at all.", [], False),
        ("", [["15"]], False),
    ],
)
def test_an_answer_matches_when_every_group_is_in_it(answer: str, keys: list[list[str]], right: bool) -> None:
    assert company.answer_matches(answer, keys) is right
