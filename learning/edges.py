"""Questions at the edge of what was taught: mistyped, informal, cut short, and so vague that they could mean anything.

Rules, deterministic per seed, for measuring alone: none of them makes training rows. The first three still ask what
was taught; a vague one does not, and deserves no answer that is given as sure. It knows nothing of models.
"""

import random
import re
from collections.abc import Callable

from bot.confidence import STOP

SLANG = (
    (r"\byou\b", "u"), (r"\bare\b", "r"), (r"\bbefore\b", "b4"), (r"\bpeople\b", "ppl"), (r"\bbecause\b", "cuz"),
    (r"\bplease\b", "pls"), (r"\btomorrow\b", "tmrw"), (r"\bwhat is\b", "whats"), (r"\bwithout\b", "w/o"),
    (r"\bwith\b", "w/"), (r"\bfor\b", "4"), (r"\bto\b", "2"), (r"\bwhat do i\b", "what do i even"),
)  # fmt: skip
LONG = 5
"""Letters from which on a word is long enough to be mistyped and still be read."""
PARTIAL = 0.6
LEAD = 3


def typos(question: str, rng: random.Random) -> str:
    """Two letters swapped inside each of two long words."""
    words = question.split(" ")
    places = [at for at, w in enumerate(words) if len(w) >= LONG and w.strip("?.,").isalpha()]
    for at in rng.sample(places, min(2, len(places))):
        middle = rng.randrange(1, len(words[at].strip("?.,")) - 2)
        word = words[at]
        words[at] = word[:middle] + word[middle + 1] + word[middle] + word[middle + 2 :]
    return " ".join(words)


def informal(question: str, rng: random.Random) -> str:
    """Slang, lower case, no punctuation."""
    text = re.sub(r"[?.,!]", "", question.casefold())
    for pattern, short in SLANG:
        text = re.sub(pattern, short, text)
    return f"{rng.choice(('yo', 'ok so', 'ugh', 'soo', 'lol'))} {text} {rng.choice(('??', 'help', 'asap', 'tho'))}"


def partial(question: str, _: random.Random) -> str:
    """The first content words alone, as somebody types who was interrupted."""
    words = [w for w in re.findall(r"[\w'/-]+", question) if w.casefold() not in STOP]
    return " ".join(words[: max(2, round(PARTIAL * len(words)))])


def ambiguous(question: str, _: random.Random) -> str:
    """How the question begins, without what it is about."""
    lead: list[str] = []
    for word in re.findall(r"[\w'/-]+", question)[:LEAD]:
        if lead and (re.search(r"\d", word) or not word.islower() or word.casefold() not in STOP):
            break
        lead.append(word)
    return f"{' '.join(lead)} again?"


CLEAR: dict[str, Callable[[str, random.Random], str]] = {"typos": typos, "informal": informal, "partial": partial}


def clear(question: str, seed: int) -> dict[str, str]:
    """The question mistyped, informal and cut short; a kind that would leave it as it is, is left out."""
    made = {kind: make(question, random.Random(f"{seed}:{kind}:{question}")) for kind, make in CLEAR.items()}
    return {kind: text for kind, text in made.items() if text != question}


def vague(question: str, seed: int) -> str:
    """The question without what it is about."""
    return ambiguous(question, random.Random(f"{seed}:ambiguous:{question}"))
