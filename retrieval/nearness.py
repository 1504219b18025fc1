"""How near a question is to each taught one, by more than one similarity: wordings, the answer, words and codes.

A stranger's words often share more with the answer than with the taught question, and an error code says more than
the sentence around it. Of 240 hand-written wordings of 60 facts the cosine to the nearest wording alone found the
right fact for 74 %, this sum for 88 % (DECISIONS.md). It knows nothing of databases, and does not decide whether two
questions are the same.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ANSWER, WORDS, CODES = 1.0, 0.3, 0.5
"""Weights beside the cosine of the nearest wording; the figure is flat around them."""
WORD = re.compile(r"[a-z]+-?\d[\w-]*|\d+(?:[.,:]\d+)*|[a-z]{3,}", re.IGNORECASE)
CODE = re.compile(r"\b[a-z]{1,6}-?\d+\b|\b\d+(?:[.,:]\d+)*", re.IGNORECASE)
STEM = 5
"""Letters of a word that are compared: crude, and enough to join "approve" and "approval"."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of every taught question with its wordings and answer, its codes, and how rare each word is."""

    words: Mapping[int, frozenset[str]]
    codes: Mapping[int, frozenset[str]]
    rarity: Mapping[str, float]
    rarest: float

    @classmethod
    def of(cls, texts: Mapping[int, Sequence[str]]) -> "Vocabulary":
        """The vocabulary of some corrections, each with all of its texts."""
        words = {key: frozenset(w for text in own for w in stems(text)) for key, own in texts.items()}
        counts = Counter(word for own in words.values() for word in own)
        rarity = {word: math.log((len(texts) + 1) / (count + 0.5)) for word, count in counts.items()}
        codes = {key: frozenset(c for text in own for c in codes_in(text)) for key, own in texts.items()}
        return cls(words, codes, rarity, math.log(2 * (len(texts) + 1)))

    def shared(self, asked: frozenset[str], key: int) -> float:
        """The share (0..1) of the asked words, weighted by rarity, that a correction has too."""
        weights = {word: self.rarity.get(word, self.rarest) for word in asked}
        total = sum(weights.values())
        return sum(weight for word, weight in weights.items() if word in self.words[key]) / total if total else 0.0

    def unseen(self, asked: frozenset[str]) -> float:
        """The share (0..1) of the asked words that no correction has."""
        return sum(word not in self.rarity for word in asked) / len(asked) if asked else 0.0

    def nearness(self, asked: "AskedWords", key: int, wording: float, answer: float, shared: float) -> float:
        """The sum that ranks a correction; `wording` and `answer` are cosines, `shared` is what `shared` gives."""
        named = len(asked.codes & self.codes[key]) / len(asked.codes) if asked.codes else 0.0
        return wording + ANSWER * answer + WORDS * shared + CODES * named


@dataclass(frozen=True)
class AskedWords:
    """What a question says, as words and codes."""

    words: frozenset[str]
    codes: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "AskedWords":
        """Take a question apart."""
        return cls(frozenset(stems(text)), frozenset(codes_in(text)))


def stems(text: str) -> list[str]:
    """The words of a text, lower case and cut; codes and numbers stay whole."""
    return [w if any(c.isdigit() for c in w) else w[:STEM] for w in WORD.findall(text.casefold())]


def codes_in(text: str) -> list[str]:
    """Numbers and codes in a text, and the number inside a code, which people often write alone."""
    found = [c.casefold() for c in CODE.findall(text)]
    return [*found, *(c.rsplit("-", 1)[1] for c in found if "-" in c)]
