"""The replay prompts and the battery keep their promises: counts, shapes, and no fact asked in both."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import learning
from learning import replay
from storage import company
from storage.texts import plain

HERE = Path(learning.__file__).parent
PROMPTS = (HERE / "replay_prompts.txt").read_text(encoding="utf-8").splitlines()
BATTERY: list[dict[str, Any]] = [
    json.loads(line) for line in (HERE / "battery.jsonl").read_text(encoding="utf-8").splitlines()
]
CATEGORIES = ("knowledge", "language", "reasoning", "domain", "both")
COMPANY_WORDS = re.compile(r"lumen|authflow|payflow|dataflow|\b[apd]f-\d{4}\b", re.IGNORECASE)
FUNCTION_WORDS = re.compile(
    r"an?|and|are|at|did|do|does|for|give|how|i|in|is|it|me|my|of|on|one|that|the|there|to|was|what|when|where|"
    r"which|who|with|you"
)


def content_words(text: str) -> set[str]:
    return {word for word in plain(text).split() if not FUNCTION_WORDS.fullmatch(word)}


def likeness(one: str, other: str) -> float:
    """How much of the content words of two texts is shared, from 0 to 1 (Jaccard)."""
    mine, yours = content_words(one), content_words(other)
    return len(mine & yours) / max(1, len(mine | yours))


# The replay prompts


def test_there_are_600_replay_prompts_of_which_no_two_are_the_same() -> None:
    assert len(PROMPTS) == 600
    assert len({plain(prompt) for prompt in PROMPTS}) == 600


@pytest.mark.parametrize(("facts", "prompts"), [(1, 288), (12, 288), (13, 576), (500, 576)])
def test_more_facts_replay_more_prompts_and_never_those_that_are_looked_at(facts: int, prompts: int) -> None:
    chats = [question for question, _ in replay.chats(replay.prompts_for(facts))]
    assert len(chats) == prompts + len(replay.readings()) + replay.HELD_OUT
    assert chats[:prompts] == PROMPTS[:prompts]
    assert chats[-replay.HELD_OUT :] == PROMPTS[-replay.HELD_OUT :]
    assert not set(chats[: -replay.HELD_OUT]) & set(chats[-replay.HELD_OUT :])


def test_a_replay_prompt_is_one_clean_line_of_at_most_25_words() -> None:
    assert all(prompt == " ".join(prompt.split()) for prompt in PROMPTS)
    lengths = [len(prompt.split()) for prompt in PROMPTS]
    assert all(1 <= length <= 25 for length in lengths)
    assert lengths.count(1) <= 3, "one word is for a greeting"


def test_the_replay_prompts_vary_in_length_and_in_register() -> None:
    lengths = Counter(len(prompt.split()) for prompt in PROMPTS)
    assert len(lengths) >= 15
    assert 200 <= sum(prompt.endswith("?") for prompt in PROMPTS) <= 400
    assert sum(prompt[0].islower() for prompt in PROMPTS) >= 100


# The battery


def test_the_battery_has_twelve_questions_of_each_of_its_five_kinds() -> None:
    assert Counter(item["category"] for item in BATTERY) == dict.fromkeys(CATEGORIES, 12)
    assert [item["id"] for item in BATTERY] == [f"b{number:02d}" for number in range(1, 61)]
    assert len({plain(item["question"]) for item in BATTERY}) == 60


@pytest.mark.parametrize("item", BATTERY, ids=lambda item: item["id"])
def test_the_keys_are_groups_of_alternatives_that_the_question_does_not_hold(item: dict[str, Any]) -> None:
    assert set(item) == {"id", "category", "question", "keys"}
    assert isinstance(item["keys"], list)
    assert item["keys"]
    for group in item["keys"]:
        assert isinstance(group, list)
        assert group
        assert len(set(group)) == len(group)
        assert all(isinstance(key, str) and key and key == key.casefold().strip() for key in group)
    assert company.answer_matches(" ".join(group[0] for group in item["keys"]), item["keys"])
    assert not company.answer_matches(item["question"], item["keys"]), "repeating the question would be right"


def test_a_question_of_both_kinds_opens_with_a_sentence_of_context() -> None:
    for item in BATTERY:
        sentences = re.split(r"(?<=[.?!])\s+", item["question"])
        if item["category"] == "both":
            assert len(sentences) == 2
            assert sentences[0].endswith(".")
        assert sentences[-1].endswith(("?", "."))


# The two together


def test_nothing_in_the_battery_is_also_a_replay_prompt() -> None:
    assert not {plain(prompt) for prompt in PROMPTS} & {plain(item["question"]) for item in BATTERY}
    close = [
        (item["question"], prompt)
        for item in BATTERY
        for prompt in PROMPTS
        if likeness(item["question"], prompt) > 0.5
    ]
    assert close == []


def test_neither_file_speaks_of_the_demo_company_or_asks_its_golden_questions() -> None:
    texts = [*PROMPTS, *(item["question"] for item in BATTERY), *(str(item["keys"]) for item in BATTERY)]
    assert [text for text in texts if COMPANY_WORDS.search(text)] == []
    golden = {plain(item.question) for item in company.golden()}
    assert [text for text in texts if plain(text) in golden] == []
