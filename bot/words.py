"""Words as questions are compared by: which carry meaning, their crude stems, numbers, codes and negations.

English, and no more than lists and patterns. It knows nothing of questions and answers.
"""

import re
from collections.abc import Iterable, Sequence

STOP = frozenset(
    """
    a an the is are was were be been am do does did can could should would will shall may might must i we you he
    she it they my our your his her its their me us him them this that these those of to in on at for from by with
    as and or but if then so than there here what which who whom whose when where why how much many any some no
    not please hi hey hello thanks thx anyone anybody know tell say get got have has had need want just about into
    out up down
    """.split()  # noqa: SIM905  (a paragraph of words reads better than forty lines)
)
NEGATIONS = frozenset(
    """
    not no never without cannot can't don't doesn't isn't aren't won't didn't wasn't shouldn't
    """.split()  # noqa: SIM905  (a paragraph of words reads better than forty lines)
)
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:[.,:]\d+)*|[a-z]+-?\d[\w-]*", re.IGNORECASE)
CODE = re.compile(r"\b[a-z]{1,6}-\d+\b|\b\d+(?:[.,:]\d+)*", re.IGNORECASE)

LONG = 4
"""Digits from which on a bare number is taken for the name of something."""


def content(text: str) -> list[str]:
    """The words that carry meaning, lower case, cut to a crude stem."""
    return [stem(w) for w in WORD.findall(text.casefold()) if w not in STOP]


def stem(word: str) -> str:
    """A word without its most common endings; numbers and codes stay whole."""
    if any(c.isdigit() for c in word):
        return word
    for ending in ("ings", "ing", "ies", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def codes(text: str) -> set[str]:
    """Numbers and error codes in a text."""
    return {c.casefold() for c in CODE.findall(text)}


def other_identifiers(text: str, known: str) -> set[str]:
    """What names one thing in a text and is not in the `known` one: error codes, and numbers as long as those.

    People often write the number of a code alone; then it is known where the code is.
    """
    there = codes(known)
    numbers = there | {c.rsplit("-", 1)[-1] for c in there}
    named = {c for c in codes(text) if c[0].isalpha() or (c.isdigit() and len(c) >= LONG)}
    return {c for c in named if c not in (there if c[0].isalpha() else numbers)}


def negated(text: str) -> bool:
    """Whether a text holds a negation."""
    return bool(NEGATIONS & set(text.casefold().replace("\u2019", "'").split()))


def share_outside(words: Sequence[str], known: Iterable[str]) -> float:
    """The share (0..1) of words that are not among the known ones; 0 for no words."""
    known = set(known)
    return sum(w not in known for w in words) / len(words) if words else 0.0
