"""One fact, many ways to ask it: deterministic, different, and in the grammar of reported speech."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.confidence import codes
from learning import wordings
from learning.clauses import subordinate
from storage import company
from storage.texts import plain

QUESTIONS = [fact.question for fact in company.facts()]
CLAUSES = {
    "how many vacation days can I carry over": "how many vacation days I can carry over",
    "how long does the security review of a new vendor take": "how long the security review of a new vendor takes",
    "on which day is the salary paid in Lisbon": "on which day the salary is paid in Lisbon",
    "what is the full-day per diem in Toronto": "what the full-day per diem in Toronto is",
    "how much may a team meal cost per person": "how much a team meal may cost per person",
    "how many approvals does a change to PayFlow need": "how many approvals a change to PayFlow needs",
    "after how many minutes is a booked room released": "after how many minutes a booked room is released",
    "how long do we keep application logs": "how long we keep application logs",
    "is overtime paid": "whether overtime is paid",
    "who approves access": "who approves access",
    "why does the bank apply a fee": "why the bank applies a fee",
}
NOT_TOLD_APART = (
    "what causes AF-3001 and how is it fixed",
    "refunds are stuck. Why, and what do I run",
    "at which scores does fraud detection review or block a payment",
    "why does it not work",
    "vacation days",
)


@pytest.mark.parametrize(("question", "clause"), CLAUSES.items())
def test_a_question_becomes_the_clause_of_another_sentence(question: str, clause: str) -> None:
    assert subordinate(question) == clause


@pytest.mark.parametrize("question", NOT_TOLD_APART)
def test_a_question_whose_subject_cannot_be_told_is_quoted_as_it_is(question: str) -> None:
    assert subordinate(question) is None
    (told,) = wordings.inside(question, wordings.REPORTED, random.Random(1), 1)
    assert question in told


@pytest.mark.parametrize("question", QUESTIONS)
def test_sixteen_different_wordings_and_never_the_question_itself(question: str) -> None:
    made = wordings.generate(question, 16, 7)
    assert len(made) == len(set(made)) == 16
    assert question not in made


@pytest.mark.parametrize("question", ["What can you do?", "Who are you?", "How do I get in?"])
def test_a_question_without_keywords_gets_no_wording_made_of_them(question: str) -> None:
    made = [*wordings.generate(question, 40, 7), *wordings.near_misses(question, QUESTIONS[:3], 7)]
    assert [w for w in made if len(plain(w).split()) < 2 or " for ?" in w or w != w.strip()] == []
    assert not wordings.terse(question, random.Random(1))
    assert not wordings.other_attribute(question)


@pytest.mark.parametrize(
    ("question", "asked"),
    [("Is there a training about phishing?", "a training"), ("Where is the form for parental leave?", "the form")],
)
def test_a_near_miss_asks_for_something_else(question: str, asked: str) -> None:
    made = wordings.other_attribute(question)
    assert len(made) >= 7
    assert [m for m in made if asked in m] == []


@pytest.mark.parametrize(
    ("question", "never"),
    [
        ("Who is in charge of security?", "Who"),
        ("How expensive is the canteen?", "What does"),
        ("How much is the gym allowance?", "What does"),
        ("Since when is the lab closed?", "When"),
        ("Which page has the travel policy?", "Where"),
        ("What is the reason for the badge check?", "Why"),
        ("How frequently are the lifts serviced?", "How often"),
        ("Which courses on phishing are there?", "Is there a training"),
    ],
)
def test_a_near_miss_does_not_ask_the_same_in_other_words(question: str, never: str) -> None:
    made = wordings.other_attribute(question)
    assert len(made) >= 6
    assert [m for m in made if m.startswith(never)] == []


def test_what_one_must_is_not_what_one_may() -> None:
    made = wordings.generate("Must I report a lost badge?", 40, 7)
    assert [w for w in made if " can i " in f" {w.casefold()} "] == []


def test_the_same_seed_gives_the_same_wordings_and_another_seed_others() -> None:
    for question in QUESTIONS[::10]:
        assert wordings.generate(question, 16, 7) == wordings.generate(question, 16, 7)
        assert wordings.generate(question, 16, 7) != wordings.generate(question, 16, 8)


def test_every_family_has_its_turn() -> None:
    question = "How long does it usually take to fix AF-1234 in the staging cluster?"
    made = set(wordings.generate(question, 100, 7))
    for family in wordings.FAMILIES:
        told = {w for seed in range(40) for w in family(question, random.Random(seed))}
        assert told & made, family.__name__


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_wording_invents_a_number_or_loses_its_code(question: str) -> None:
    for wording in wordings.generate(question, 16, 7):
        assert codes(wording) <= codes(question), wording
        assert {c for c in codes(question) if "-" in c} <= codes(wording), wording


@given(st.text(max_size=60))
def test_any_text_is_taken(question: str) -> None:
    made = wordings.generate(question, 16, 3)
    assert all(w.strip() for w in made)


@pytest.mark.parametrize("question", QUESTIONS[::6])
def test_a_near_miss_is_no_taught_question(question: str) -> None:
    others = [q for q in QUESTIONS if q != question]
    made = wordings.near_misses(question, others, 7)
    assert made
    assert not {plain(m) for m in made} & {plain(q) for q in QUESTIONS}


def test_a_slip_changes_one_word_and_leaves_numbers_alone() -> None:
    question = "Which setting stops AF-3001 within 900 seconds?"
    for seed in range(50):
        for slipped in wordings.typo(question, random.Random(seed)):
            before, after = question.rstrip("?").split(), slipped.split()
            assert len(before) == len(after)
            assert sum(a != b for a, b in zip(before, after, strict=True)) <= 1
            assert {"AF-3001", "900"} <= set(after)
