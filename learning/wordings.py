"""One fact, many ways to ask it: rule families that rewrite a taught question as colleagues type it in Slack.

Each family is one small function from a question to variants; `generate` mixes them with a seed, so the same
question and seed always give the same list. It knows nothing of embeddings: filtering is `dataset`'s.
"""

import random
import re
from collections.abc import Callable, Sequence

from bot.confidence import STOP, plain

Family = Callable[[str, random.Random], list[str]]

OPENERS = (
    "hey, ",
    "quick question: ",
    "hi all, ",
    "sorry if this was asked before, ",
    "morning! ",
    "anyone know, ",
)
CLOSERS = (" thanks!", " thx", " asking for a new joiner", " I can't find it anywhere", " pls", " cheers")
POLITE = ("Could you tell me {q}", "Can somebody tell me {q}", "I'd like to know {q}", "Please tell me {q}")
REPORTED = ("My manager asked me {q}", "A colleague wants to know {q}", "I was wondering {q}", "Not sure {q}")
TERSE = ("{k}?", "{k}", "info on {k}", "{k} please", "question about {k}", "looking for: {k}")
SWAPS = (
    ("how many", "what number of"),
    ("how much", "what amount of"),
    ("how do i", "what is the way to"),
    ("how do i", "how can I"),
    ("how can i", "how do I"),
    ("where do i", "where can I"),
    ("who do i", "who should I"),
    ("when do", "at what time do"),
    ("when is", "what is the date of"),
    ("what is", "what's"),
    ("what does", "what would"),
    ("what causes", "why do we get"),
    ("which", "what"),
    ("why does", "what makes"),
    ("do we", "do employees"),
    ("can i", "am I allowed to"),
    ("how long", "for how much time"),
)
SUBJECT_AFTER_VERB = re.compile(
    r"^(what|where|when|who|which [\w' -]+?|why|how(?: \w+)?) (is|are|was|were|does|do|did|can|should|will) (.+)$",
    re.IGNORECASE,
)
CODE = re.compile(r"\b[A-Z]{1,6}-\d+\b")


def generate(question: str, count: int, seed: int) -> tuple[str, ...]:
    """At most `count` different wordings of a question, none equal to it; the families take turns."""
    rng = random.Random(f"{seed}:{question}")
    turns = [family(question, rng) for family in FAMILIES]
    seen, chosen = {question}, []
    for turn in range(max((len(t) for t in turns), default=0)):
        for variants in turns:
            if turn < len(variants) and variants[turn].strip() and variants[turn] not in seen:
                seen.add(variants[turn])
                chosen.append(variants[turn])
    return tuple(chosen[:count])


def bare(question: str) -> str:
    """The question without its final mark, starting in lower case unless it starts with a name or code."""
    text = question.strip().rstrip("?!. ")
    first = text.split(" ", 1)[0]
    return text if first.isupper() or any(c.isdigit() for c in first) else text[:1].lower() + text[1:]


def keywords(question: str) -> str:
    """Only the words that carry meaning, in their order."""
    words = re.findall(r"[\w'./@:-]+", question.rstrip("?!. "))
    return " ".join(w for w in words if w.lower() not in STOP)


def indirect(question: str) -> str:
    """The question as a subordinate clause: "what is X" -> "what X is"; left as it is when it has another shape."""
    found = SUBJECT_AFTER_VERB.match(bare(question))
    if not found:
        return bare(question)
    asked, verb, rest = found.groups()
    if verb in ("does", "do", "did"):
        return f"{asked} {rest}"
    subject, _, tail = rest.partition(" ")
    return f"{asked} {rest} {verb}" if len(rest.split()) <= 4 else f"{asked} {subject} {verb} {tail}"


def lower_case(question: str, rng: random.Random) -> list[str]:
    """As typed in a hurry: lower case, with and without the question mark."""
    return [question.lower().rstrip("?"), question.lower()]


def terse(question: str, rng: random.Random) -> list[str]:
    """Keywords only."""
    return [t.format(k=keywords(question)) for t in rng.sample(TERSE, 3)]


def polite(question: str, rng: random.Random) -> list[str]:
    """A polite frame around the clause."""
    return [f"{t.format(q=indirect(question))}?" for t in rng.sample(POLITE, 2)]


def reported(question: str, rng: random.Random) -> list[str]:
    """Somebody else's question."""
    return [f"{t.format(q=indirect(question))}." for t in rng.sample(REPORTED, 2)]


def chatter(question: str, rng: random.Random) -> list[str]:
    """Slack chatter before and after."""
    opened = [f"{o}{bare(question)}?" for o in rng.sample(OPENERS, 2)]
    return [*opened, f"{question.rstrip('?')}?{rng.choice(CLOSERS)}"]


def other_question_words(question: str, rng: random.Random) -> list[str]:
    """Another question word for the same thing."""
    text = bare(question)
    swapped = [
        re.sub(rf"\b{a}\b", b, text, count=1, flags=re.IGNORECASE)
        for a, b in SWAPS
        if re.search(rf"\b{a}\b", text, re.IGNORECASE)
    ]
    return [f"{s[:1].upper()}{s[1:]}?" for s in swapped]


def code_first(question: str, rng: random.Random) -> list[str]:
    """An error code in front, the rest behind."""
    found = CODE.search(question)
    if not found:
        return []
    code = found.group()
    rest = keywords(question.replace(code, ""))
    return [
        f"{code}: {bare(question)}?",
        f"seeing {code}, {rest}?",
        f"getting {code} since this morning, what now?",
        f"{code} help",
    ]


def typo(question: str, rng: random.Random) -> list[str]:
    """One slip of the fingers in a longer word; numbers and codes are left alone."""
    words = question.split()
    places = [i for i, w in enumerate(words) if len(w) > 4 and w.isalpha()]
    made = []
    for place in rng.sample(places, min(2, len(places))):
        word = words[place]
        at = rng.randrange(1, len(word) - 2)
        slipped = rng.choice((word[:at] + word[at + 1 :], word[:at] + word[at + 1] + word[at] + word[at + 2 :]))
        made.append(" ".join([*words[:place], slipped, *words[place + 1 :]]))
    return made


FAMILIES: tuple[Family, ...] = (
    lower_case, terse, polite, chatter, other_question_words, reported, code_first, typo,
)  # fmt: skip


def near_misses(question: str, others: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """Questions that resemble this one and are another: its numbers and codes changed, its subject swapped.

    `others` are other taught questions whose last words are borrowed. None of them is equal to a taught question.
    """
    rng = random.Random(f"{seed}:near:{question}")
    made = [
        *other_digits(question, rng),
        *other_subject(question, others, rng),
        *other_attribute(question, rng),
    ]
    taught = {plain(q) for q in (question, *others)}
    fresh = [m for m in dict.fromkeys(made) if plain(m) not in taught]
    rng.shuffle(fresh)
    return tuple(fresh[:count])


def other_digits(question: str, rng: random.Random) -> list[str]:
    """The same question about another number or code."""
    made = []
    for number in re.findall(r"\d{2,}", question)[:2]:
        digits = list(number)
        rng.shuffle(digits)
        changed = "".join(digits) if "".join(digits) != number else str(int(number) + rng.randrange(1, 90))
        made.append(question.replace(number, changed, 1))
    return made


def other_subject(question: str, others: Sequence[str], rng: random.Random) -> list[str]:
    """The frame of this question with the end of another one."""
    head = question.rstrip("?").split()
    made = []
    for other in rng.sample(list(others), min(2, len(others))):
        tail = other.rstrip("?").split()
        if len(head) >= 5 and len(tail) >= 5:
            made.append(" ".join([*head[: len(head) // 2], *tail[len(tail) // 2 :]]) + "?")
    return made


ATTRIBUTES = (
    "Who is responsible for {k}?",
    "When was {k} introduced?",
    "What does {k} cost the company?",
    "Why was {k} changed last year?",
    "Who do I complain to about {k}?",
    "Is there a training about {k}?",
)


def other_attribute(question: str, rng: random.Random) -> list[str]:
    """Another question about the same subject."""
    return [t.format(k=keywords(question)) for t in rng.sample(ATTRIBUTES, 2)]
