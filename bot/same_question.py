"""Is what was asked the question that was taught? The two are compared word by word.

Whoever asks about something else often keeps the taught sentence and exchanges a word of it; a colleague who means the
same keeps the meaning and hardly a word. So two things are looked at: what was exchanged in a sentence that otherwise
stands, and whether each word finds a partner of like meaning, by the vectors that the sentence embedder has of single
words in their sentence (late interaction: Khattab and Zaharia, ColBERT, 2020). The figures are features of the heads in
`learning.calibrate`. It knows nothing of how they are weighed, and nothing of training.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bot.words import STOP, WORD, stem
from retrieval.embedder import TokenVectors

Vectors = NDArray[np.float32]
UNMET = 0.3
"""Likeness of two different words where there are no vectors to compare them by."""
REMEMBERED = 5_000
"""Taught texts whose word vectors are kept: 6 KB a word, about 60 KB a question."""
LONGEST = 40
"""Words read of a text; nobody asks more in one question, and a pasted log would take seconds."""
SLIP = 0.8
"""Share of letters in common from which on two longer words are one word with a slip of the fingers."""
LEAST_LETTERS = 5
COUNTED = (
    ("one", "first"), ("two", "second"), ("three", "third"), ("four", "fourth"), ("five", "fifth"), ("six", "sixth"),
    ("seven", "seventh"), ("eight", "eighth"), ("nine", "ninth"), ("ten", "tenth"), ("eleven", "eleventh"),
    ("twelve", "twelfth"),
)  # fmt: skip
NUMBERS = {name: str(number) for number, names in enumerate(COUNTED, start=1) for name in names}
ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
PART = re.compile(rf"\d+(?:st|nd|rd|th)\b|{WORD.pattern}", re.IGNORECASE)


class TokenEncoder(Protocol):
    """Turns a text into the vectors of its tokens."""

    def tokens(self, text: str) -> TokenVectors:
        """Where each token stands, and its vectors half-way through the model and at its end."""
        ...


@dataclass(frozen=True)
class Word:
    """One word: its stem, and whether it carries meaning of its own."""

    stem: str
    carries: bool


@dataclass(frozen=True)
class Words:
    """A text as words, each with its vector half-way and at the end of the embedder, where there is one."""

    words: tuple[Word, ...]
    middle: Vectors
    last: Vectors

    @property
    def stems(self) -> list[str]:
        """The stems, in order."""
        return [word.stem for word in self.words]

    @property
    def carrying(self) -> list[int]:
        """Places of the words that carry meaning; the first one where none does."""
        return [i for i, word in enumerate(self.words) if word.carries] or [0]


class Comparer:
    """Compares with the word vectors of the sentence embedder. One thread owns it."""

    def __init__(self, encoder: TokenEncoder) -> None:
        """Keep the embedder; nothing is loaded yet."""
        self._encoder = encoder
        self._known: OrderedDict[str, Words] = OrderedDict()

    def __call__(self, asked: str, taught: Sequence[str]) -> Mapping[str, float]:
        """The features of a question beside the taught one, given first, and its other wordings."""
        return features(self._read(asked), self._remembered(closest_to(asked, taught)))

    def _remembered(self, text: str) -> Words:
        """What was taught is read again and again, what is asked hardly ever: only the former is kept."""
        if text in self._known:
            self._known.move_to_end(text)
        else:
            self._known[text] = self._read(text)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[text]

    def _read(self, text: str) -> Words:
        return with_vectors(text, self._encoder.tokens(text.casefold()))


def compare(asked: str, taught: Sequence[str]) -> Mapping[str, float]:
    """The features where no word vectors are to be had: words are alike or they are not."""
    return features(plainly(asked), plainly(closest_to(asked, taught)))


def closest_to(asked: str, taught: Sequence[str]) -> str:
    """The wording that shares the most words with the question in the same order; the first of equals."""
    own = [word.stem for _, word in found(asked)]
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(own)

    def shared(text: str) -> float:
        matcher.set_seq1([word.stem for _, word in found(text)])
        return matcher.ratio()

    return max(taught, key=shared)


def features(asked: Words, taught: Words) -> dict[str, float]:
    """What was kept, exchanged and left out, and how well the words of each side are met by the other.

    frame: share of words in the same order (0..1); swapped, dropped: places in that frame where words that carry
    meaning were exchanged, or left out, times the frame; met, met_midway: how alike a word of the question and its
    best partner are, on average (cosine); unmet: how far the worst partner of a taught word lies below the mean.
    """
    matcher = SequenceMatcher(None, asked.stems, taught.stems, autojunk=False)
    frame = matcher.ratio()
    swapped, dropped = exchanged(asked, taught, matcher)
    last, middle = likeness(asked, taught, "last"), likeness(asked, taught, "middle")
    partners = middle[:, taught.carrying].max(axis=0)
    return {
        "frame": frame,
        "swapped": frame * swapped,
        "dropped": frame * dropped,
        "met": float(last[asked.carrying].max(axis=1).mean()),
        "met_midway": float(middle[asked.carrying].max(axis=1).mean()),
        "unmet": float(partners.mean() - partners.min()),
    }


def exchanged(asked: Words, taught: Words, matcher: "SequenceMatcher[str]") -> tuple[int, int]:
    """At how many places words that carry meaning were exchanged for others, and at how many they were left out."""
    new, gone = unexplained(asked, taught), unexplained(taught, asked)
    swapped = dropped = 0
    for _, start, end, taught_start, taught_end in matcher.get_opcodes():
        put, taken = new & set(range(start, end)), gone & set(range(taught_start, taught_end))
        swapped += bool(put and taken)
        dropped += bool(taken and not put)
    return swapped, dropped


def unexplained(words: Words, others: Words) -> set[int]:
    """Places of the words that carry meaning and that the other side has not, slips of the fingers aside."""
    known = set(others.stems)
    return {
        i
        for i, word in enumerate(words.words)
        if word.carries and word.stem not in known and not any(slipped(word.stem, other) for other in known)
    }


def slipped(left: str, right: str) -> bool:
    """Whether two longer words are one word that was mistyped; numbers and codes never are."""
    if min(len(left), len(right)) < LEAST_LETTERS or not (left.isalpha() and right.isalpha()) or left[0] != right[0]:
        return False
    return abs(len(left) - len(right)) <= 1 and SequenceMatcher(None, left, right, autojunk=False).ratio() > SLIP


def likeness(asked: Words, taught: Words, layer: str) -> Vectors:
    """Cosines between the words of both sides [asked, taught]."""
    left, right = getattr(asked, layer), getattr(taught, layer)
    if left.size and right.size:
        cosines: Vectors = left @ right.T
        return cosines
    same = np.array([[a == t for t in taught.stems] for a in asked.stems], dtype=bool)
    return np.where(same, 1.0, UNMET).astype(np.float32)


def found(text: str) -> list[tuple[tuple[int, int], Word]]:
    """The words of a text with their places; an empty text has one word that means nothing."""
    words = [(match.span(), word_of(match.group())) for match in PART.finditer(text.casefold())]
    return words[:LONGEST] or [((0, len(text)), Word("", carries=False))]


def word_of(text: str) -> Word:
    """A word as it is compared: numbers as digits, the rest cut to a crude stem."""
    number = ORDINAL.fullmatch(text)
    return Word(number.group(1) if number else NUMBERS.get(text) or stem(text), carries=text not in STOP)


def plainly(text: str) -> Words:
    """A text as words without vectors."""
    nothing = np.zeros((0, 0), dtype=np.float32)
    return Words(tuple(word for _, word in found(text)), nothing, nothing)


def with_vectors(text: str, tokens: TokenVectors) -> Words:
    """A text as words, each with the mean of its tokens' vectors, of length 1."""
    words, middle, last = [], [], []
    for (start, end), word in found(text):
        places = [i for i, (left, right) in enumerate(tokens.spans) if left < end and right > start]
        words.append(word)
        middle.append(unit(tokens.middle[places]))
        last.append(unit(tokens.last[places]))
    return Words(tuple(words), np.stack(middle), np.stack(last))


def unit(rows: Vectors) -> Vectors:
    """The direction of the mean of some vectors; zeros for none, which is like nothing."""
    mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1:], dtype=np.float32)
    direction: Vectors = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return direction
