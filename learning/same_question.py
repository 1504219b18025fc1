"""Questions that are nearly a taught one, made from the company's own: one thing of it is exchanged.

A number, a time, a negation, or a thing that another taught question speaks of. With them, and with the questions of
neighbouring facts, a night teaches the confidence where "the same question" ends in this company. It knows nothing of
features and of fitting.
"""

import random
import re
from collections.abc import Sequence

from bot.confidence import STOP
from storage.texts import plain

COUNTERPARTS = (
    ("before", "after"), ("first", "last"), ("earliest", "latest"), ("start", "end"), ("open", "close"),
    ("opens", "closes"), ("above", "below"), ("more", "less"), ("most", "least"), ("maximum", "minimum"),
    ("day", "week"), ("daily", "weekly"), ("month", "year"), ("monthly", "yearly"), ("morning", "evening"),
    ("monday", "thursday"), ("tuesday", "friday"), ("weekday", "weekend"), ("summer", "winter"), ("new", "old"),
    ("with", "without"), ("internal", "external"), ("from", "until"), ("large", "long"), ("send", "receive"),
    ("enable", "disable"), ("add", "remove"), ("create", "delete"), ("employee", "customer"),
    ("employees", "customers"), ("^who", "when"), ("^when", "where"), ("^where", "who"), ("^why", "since when"),
    ("^how much", "how often"), ("^how long", "how often"),
)  # fmt: skip
"""Words that make another question of one when they are exchanged."""
NEGATED = (
    (r"\b(is|are|may|must|can|should|do|does) (we|i|you|they|it|people|employees|customers)\b", r"\1 \2 not"),
    (r"\bwith\b", "without"),
    (r"\b(is|are|was|were) (\w+ed)\b", r"\1 not \2"),
)
NUMBER = re.compile(r"\b\d{1,4}\b")
LEADING = frozenset({"in", "at", "for", "from", "on", "with", "to", "my", "a", "an", "of"})
"""Words behind which the things of two questions may trade places; behind "the" there is often only another name."""
LONGEST_STEP = 5
LEAST_LETTERS = 4


def swaps(question: str, others: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """At most `count` questions that differ from this one in one thing, and that nobody has taught.

    `others` are the other taught questions, whose things are borrowed.
    """
    rng = random.Random(f"{seed}:swaps:{question}")
    made = [*numbers(question, rng), *counterparts(question), *negations(question), *borrowed(question, others, rng)]
    taught = {plain(q) for q in (question, *others)}
    fresh = [m for m in dict.fromkeys(made) if plain(m) not in taught]
    rng.shuffle(fresh)
    return tuple(fresh[:count])


def numbers(question: str, rng: random.Random) -> list[str]:
    """The question about another number."""
    return [
        question[: found.start()] + str(int(found.group()) + rng.randrange(1, LONGEST_STEP)) + question[found.end() :]
        for found in NUMBER.finditer(question)
    ]


def counterparts(question: str) -> list[str]:
    """The question with one word exchanged for its counterpart: another time, side or asked thing."""
    turned = ((there, here) for here, there in COUNTERPARTS if not here.startswith("^"))
    changed = (
        re.sub(rf"{here}\b" if here.startswith("^") else rf"\b{here}\b", there, question, count=1, flags=re.IGNORECASE)
        for here, there in (*COUNTERPARTS, *turned)
    )
    return [text[:1].upper() + text[1:] for text in changed if text != question]


def negations(question: str) -> list[str]:
    """The question about what is not so."""
    if re.search(r"\bnot\b|n't\b|\bwithout\b", question, re.IGNORECASE):
        return []
    changed = (re.sub(pattern, put, question, count=1, flags=re.IGNORECASE) for pattern, put in NEGATED)
    return [text for text in changed if text != question]


def borrowed(question: str, others: Sequence[str], rng: random.Random) -> list[str]:
    """The question about a thing of another one: two words that stand behind the same word trade places."""
    made = []
    own = behind(question)
    for other in others:
        theirs = behind(other)
        for before in own.keys() & theirs.keys():
            if own[before] != theirs[before]:
                made.append(re.sub(rf"\b{re.escape(own[before])}\b", theirs[before], question, count=1))
    return rng.sample(sorted(set(made)), min(4, len(set(made))))


def behind(question: str) -> dict[str, str]:
    """Words that carry meaning and end a phrase, by the word before them; the last one behind a word used twice."""
    words = ["", *re.findall(r"[A-Za-z][\w'-]*", question), "?"]
    threes = zip(words, words[1:], words[2:], strict=False)
    return {
        before.lower(): word
        for before, word, after in threes
        if before.lower() in LEADING and carries(word) and (after == "?" or not carries(after))
    }


def carries(word: str) -> bool:
    """Whether a word is long enough to name something."""
    return len(word) >= LEAST_LETTERS and word.lower() not in STOP
