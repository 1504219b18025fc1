"""Comparing what was asked with what was taught, word by word, and making questions that are nearly the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import same_question, words
from bot.confidence import pair_features
from bot.same_question import Comparer, compare
from learning.same_question import swaps
from retrieval.embedder import EMBEDDED, Embedder, TokenVectors
from retrieval.taught import Match

TAUGHT = "What is the maximum payload of the red crane?"


class Letters:
    """An embedder whose token vectors are the counts of letters; it notes which texts it read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def tokens(self, text: str) -> TokenVectors:
        self.read.append(text)
        spans, at = [], 0
        for word in text.split(" "):
            spans.append((at, at + len(word)))
            at += len(word) + 1
        rows = np.array(
            [[text[a:b].count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for a, b in spans], dtype=np.float32
        )
        return TokenVectors(tuple(spans), rows, rows)


def test_the_taught_question_itself_is_met_in_every_word() -> None:
    told = compare(TAUGHT.lower().rstrip("?"), [TAUGHT])
    assert told["frame"] == told["met"] == told["met_midway"] == 1.0
    assert told["swapped"] == told["dropped"] == told["unmet"] == 0.0


@pytest.mark.parametrize(
    ("asked", "others"),
    [
        ("What does AF-2046 mean?", {"af-2046"}),
        ("what does 2046 mean", {"2046"}),
        ("what does AF-4417 mean", set()),
        ("what does 4417 mean", set()),
        ("PF-4417 again", {"pf-4417"}),
        ("AF-4417 after 10 minutes", set()),
    ],
)
def test_a_name_that_was_not_taught_is_told_from_other_numbers(asked: str, others: set[str]) -> None:
    assert words.other_identifiers(asked, "How is AF-4417 fixed? Wait 15 minutes.") == others


def test_one_exchanged_thing_is_a_swap_in_a_frame_that_stands() -> None:
    told = compare("what is the maximum payload of the blue crane", [TAUGHT])
    assert told["frame"] > 0.8
    assert told["swapped"] == pytest.approx(told["frame"])
    assert told["dropped"] == 0.0


def test_a_word_left_out_is_no_swap() -> None:
    told = compare("what is the maximum payload of the crane", [TAUGHT])
    assert told["swapped"] == 0.0
    assert told["dropped"] > 0.8


@pytest.mark.parametrize("slip", ["maximm", "maxximum", "maxiumm", "payloda"])
def test_a_slip_of_the_fingers_is_no_swap(slip: str) -> None:
    asked = TAUGHT.replace("payload" if slip.startswith("pay") else "maximum", slip)
    assert compare(asked, [TAUGHT])["swapped"] == 0.0


@pytest.mark.parametrize(("asked", "taught"), [("deck 2", "deck two"), ("the 2nd axis", "the second axis")])
def test_numbers_are_the_same_in_words_and_in_digits(asked: str, taught: str) -> None:
    assert compare(asked, [taught])["frame"] == 1.0


def test_another_code_is_never_a_slip() -> None:
    assert compare("how do i fix AF-3010 at login", ["How do I fix AF-3001 at login?"])["swapped"] > 0


def test_the_wording_that_shares_most_is_the_one_compared_with() -> None:
    told = compare("red crane, how heavy may the load be", [TAUGHT, "green crane, how heavy may the load be"])
    assert told["frame"] > 0.8
    assert told["swapped"] > 0.8


def test_word_vectors_meet_words_that_are_spelled_otherwise() -> None:
    encoder = Letters()
    comparer = Comparer(encoder)
    told = comparer("crane listen", ["crane silent"])
    assert told["met"] == pytest.approx(1.0)
    assert told["swapped"] > 0
    comparer("crane listen", ["crane silent"])
    assert sorted(encoder.read) == ["crane listen", "crane listen", "crane silent"]  # what was taught is kept


def test_what_is_asked_does_not_add_up_in_memory() -> None:
    comparer = Comparer(Letters())
    for number in range(50):
        comparer(f"question {number}", ["taught"])
    assert list(comparer._known) == ["taught"]


def test_only_so_many_texts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_question, "REMEMBERED", 2)
    encoder = Letters()
    comparer = Comparer(encoder)
    for taught in ("first", "second", "third", "first"):
        comparer("asked", [taught])
    assert [text for text in encoder.read if text != "asked"] == ["first", "second", "third", "first"]


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_texts_can_be_compared(asked: str, taught: str) -> None:
    told = Comparer(Letters())(asked, [taught])
    assert told.keys() == compare(asked, [taught]).keys()
    assert all(np.isfinite(value) for value in told.values())
    assert 0.0 <= told["frame"] <= 1.0


def test_what_was_compared_at_the_search_becomes_features() -> None:
    match = Match(1, TAUGHT, "900 kg.", TAUGHT, 0.8, 0.1, 0.8, (TAUGHT,), compared={"frame": 0.25, "met": 0.5})
    told = pair_features("how heavy a load can the red crane take", match)
    assert (told["frame"], told["met"]) == (0.25, 0.5)


def test_swaps_change_one_thing_and_are_never_taught() -> None:
    taught = "How long does a visitor badge from 2 March open the door in Lisbon?"
    others = ["Who opens the gate in Tallinn?", "How long does a visitor badge until 2 March open the door in Lisbon?"]
    made = swaps(taught, others, 50, seed=7)
    assert "How long does a visitor badge from 2 March open the door in Tallinn?" in made
    assert any("How often does" in m for m in made)
    assert not {taught, *others} & set(made)
    assert made == swaps(taught, others, 50, seed=7)
    assert len(swaps(taught, others, 2, seed=7)) == 2


@pytest.mark.slow
def test_word_vectors_of_the_real_embedder_tell_a_rewording_from_an_exchange() -> None:
    comparer = Comparer(Embedder(EMBEDDED))
    same = comparer("how much holiday do i get each year", ["How many days of vacation do I have per year?"])
    other = comparer("how much salary do i get each year", ["How many days of vacation do I have per year?"])
    assert same["met"] > other["met"]
    assert same["met_midway"] > other["met_midway"]
