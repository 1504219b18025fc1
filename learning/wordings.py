"""One fact, many ways to ask it: rule families that rewrite a taught question as colleagues type it in Slack.

Each family is one small function from a question to variants; `generate` mixes them with a seed, so the same
question and seed always give the same list. It knows nothing of embeddings: filtering is `dataset`'s.
"""

import random
import re
from collections.abc import Callable, Sequence

from bot.confidence import STOP
from learning.clauses import subordinate
from storage.texts import plain

Family = Callable[[str, random.Random], list[str]]

OPENERS = (
    "hey, ",
    "quick question: ",
    "hi all, ",
    "sorry if this was asked before, ",
    "morning! ",
    "anyone know, ",
    "hey team :wave: ",
    "dumb question, ",
    "asking again because I forgot: ",
    "new here, ",
)
CLOSERS = (
    " thanks!",
    " thx",
    " asking for a new joiner",
    " I can't find it anywhere",
    " pls",
    " cheers",
    " :pray:",
    " couldn't find it in the handbook",
    " a customer is waiting",
)
POLITE = (
    "Could you tell me {q}?",
    "Can somebody tell me {q}?",
    "I'd like to know {q}.",
    "Please tell me {q}.",
    "Would you know {q}?",
)
REPORTED = (
    "My manager asked me {q}.",
    "A colleague wants to know {q}.",
    "I was wondering {q}.",
    "Not sure {q}.",
    "Somebody in my team asked {q}.",
    "I need to find out {q}.",
)
QUOTED = (
    "My manager asked me: {q}?",
    "Got this from a colleague: {q}?",
    "Somebody in my team asks: {q}?",
    "A customer wrote to us: {q}?",
    "Copying this from another channel: {q}?",
    "What do I tell a new joiner who asks: {q}?",
)
CASUAL = (
    "any idea {q}?",
    "remind me {q}",
    "do we know {q}",
    "can't remember {q}",
    "anybody knows {q}?",
    "no clue {q}, help",
)
TERSE = ("{k}?", "{k}", "info on {k}", "{k} please", "question about {k}", "looking for: {k}", "{k} again?")
SWAPS = (
    (r"^how much\b", "what amount"),
    (r"^how much (?:is|are)\b", "what do we pay for"),
    (r"^how do (i|we)\b", r"what is the way to"),
    (r"^how do (i|we)\b", r"how can \1"),
    (r"^how can i\b", "how do I"),
    (r"^where do i\b", "where can I"),
    (r"^who do i\b", "who should I"),
    (r"^when (do|does)\b", r"at what time \1"),
    (r"^at what time\b", "when"),
    (r"^on (?:which|what) (?:day|weekday|date)\b", "when"),
    (r"^in (?:which|what) month\b", "when"),
    (r"^until when\b", "by when"),
    (r"^what is\b", "what's"),
    (r"^what does (.+) mean\b", r"what is the meaning of \1"),
    (r"^what causes\b", "why do we get"),
    (r"^what causes\b", "where does it come from:"),
    (r"^which\b", "what"),
    (r"^why does\b", "how come"),
    (r"\bdo we\b", "do employees"),
    (r"^(?:may|can) i\b", "am I allowed to"),
    (r"^am i allowed to\b", "can I"),
    (r"\bmay i\b", "can I"),
    (r"^do i have to\b", "must I"),
    (r"^how long\b", "for how much time"),
    (r"^after how many \w+ (?=is|are|do|does)", "when "),
    (r"^how quickly\b", "how fast"),
    (r"^how large\b", "how big"),
    (r"\bat least\b", "minimum"),
    (r"\bper year\b", "a year"),
    (r"\bper month\b", "monthly"),
    (r"\band how is it fixed\b", "and what fixes it"),
    (r"\bhow do (?:i|we) fix\b", "what is the fix for"),
)
"""Another question word for the same thing: pattern, replacement."""
ASKING_PREPOSITIONS = frozenset({"until", "after", "before", "during", "within"})
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
    words = re.findall(r"[\w'/@-]+(?:[.:][\w'/@-]+)*", bare(question))
    return " ".join(w for w in words if w.lower() not in STOP | ASKING_PREPOSITIONS)


def inside(question: str, frames: Sequence[str], rng: random.Random, count: int) -> list[str]:
    """The question inside some frames as a clause, or quoted where it does not become one."""
    clause = subordinate(bare(question))
    if clause is None:
        return [t.format(q=bare(question)) for t in rng.sample(QUOTED, min(count, len(QUOTED)))]
    return [t.format(q=clause) for t in rng.sample(tuple(frames), count)]


def lower_case(question: str, rng: random.Random) -> list[str]:
    """As typed in a hurry: lower case, with and without the question mark."""
    return [question.lower().rstrip("?"), question.lower()]


def terse(question: str, rng: random.Random) -> list[str]:
    """Keywords only, where there are some."""
    words = keywords(question)
    return [t.format(k=words) for t in rng.sample(TERSE, 3) if words]


def polite(question: str, rng: random.Random) -> list[str]:
    """A polite frame around the clause."""
    return inside(question, POLITE, rng, 2)


def reported(question: str, rng: random.Random) -> list[str]:
    """Somebody else's question."""
    return inside(question, REPORTED, rng, 2)


def casual(question: str, rng: random.Random) -> list[str]:
    """As colleagues ask each other, in lower case."""
    return [w.lower() for w in inside(question, CASUAL, rng, 2)]


def chatter(question: str, rng: random.Random) -> list[str]:
    """Slack chatter before and after."""
    opened = [f"{o}{bare(question)}?" for o in rng.sample(OPENERS, 3)]
    return [*opened, f"{question.rstrip('?')}?{rng.choice(CLOSERS)}"]


def other_question_words(question: str, rng: random.Random) -> list[str]:
    """Another question word for the same thing."""
    text = bare(question)
    swapped = [re.sub(a, b, text, count=1, flags=re.IGNORECASE) for a, b in SWAPS if re.search(a, text, re.IGNORECASE)]
    return [f"{s[:1].upper()}{s[1:]}?" for s in swapped]


def code_first(question: str, rng: random.Random) -> list[str]:
    """An error code in front, the rest behind."""
    found = CODE.search(question)
    if not found:
        return []
    code = found.group()
    aside = re.sub(rf"\s?\({code}\)|,\s{code}\b|^{code}:\s", "", question)
    without = aside.replace(code, "this")
    rest = keywords(aside.replace(code, ""))
    return [
        f"{code}: {bare(without)}?",
        f"seeing {code}, {rest}?",
        f"getting {code} since this morning, what now?",
        f"{code} help",
    ]


def typo(question: str, rng: random.Random) -> list[str]:
    """One slip of the fingers in a longer word; numbers and codes are left alone."""
    words = question.split()
    places = [i for i, w in enumerate(words) if len(w) > 4 and w.isalpha()]
    return [
        " ".join([*words[:place], slip(words[place], rng), *words[place + 1 :]]).rstrip("?")
        for place in rng.sample(places, min(2, len(places)))
    ]


NEIGHBOURS = dict(zip("abcdefghijklmnopqrstuvwxyz", "svxsrdgjukhkljiwtfyhbwsuax", strict=True))
"""A key beside each key of a QWERTY keyboard; z and y trade places with those of QWERTZ."""


def slip(word: str, rng: random.Random) -> str:
    """A word with a letter left out, doubled, exchanged with the next one, or hit beside its key."""
    at = rng.randrange(1, len(word) - 2)
    before, here, after = word[:at], word[at], word[at + 1 :]
    return before + rng.choice(
        (after, here + here + after, after[:1] + here + after[1:], NEIGHBOURS.get(here, here) + after)
    )


FAMILIES: tuple[Family, ...] = (
    lower_case, terse, polite, chatter, other_question_words, reported, casual, code_first, typo,
)  # fmt: skip


def near_misses(question: str, others: Sequence[str], seed: int) -> tuple[str, ...]:
    """Questions that resemble this one and are another: its numbers and codes changed, its subject swapped.

    `others` are other taught questions whose last words are borrowed. None of them is equal to a taught question.
    """
    rng = random.Random(f"{seed}:near:{question}")
    made = [
        *other_digits(question, rng),
        *other_subject(question, others, rng),
        *other_attribute(question),
    ]
    taught = {plain(q) for q in (question, *others)}
    fresh = [m for m in dict.fromkeys(made) if plain(m) not in taught]
    rng.shuffle(fresh)
    return tuple(fresh)


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
    for other in rng.sample(list(others), min(BORROWED, len(others))):
        tail = other.rstrip("?").split()
        if len(head) >= 5 and len(tail) >= 5:
            made.append(" ".join([*head[: len(head) // 2], *tail[len(tail) // 2 :]]) + "?")
    return made


PERSON = r"who|whom|whose|which (?:team|person|role|department)|in charge|responsible|owns?|owner"
MOMENT = r"when|since|until|deadline|date|what time|(?:which|what) (?:day|weekday|month|year|quarter)"
MONEY = r"how much|how expensive|costs?|prices?|fees?|pays?|paid|budget|euros?|amount|allowance"
PLACE = r"where|links?|url|address|page|which (?:channel|folder|room|form|site|tool)"
ATTRIBUTES = (
    ("Who is responsible for {k}?", PERSON),
    ("When was {k} introduced?", MOMENT),
    ("What does {k} cost the company?", MONEY),
    ("Why was {k} changed last year?", r"why|how come|reason"),
    ("Who do I complain to about {k}?", PERSON),
    ("Is there a training about {k}?", r"courses?|lessons?|workshops?|seminars?"),
    ("Which countries have other rules for {k}?", r"countr(?:y|ies)|abroad"),
    ("Where is the form for {k}?", PLACE),
    ("How often is {k} checked?", r"how (?:often|frequently)|every|schedule|interval"),
)
"""Other things to ask of a subject, each with the words of a question that asks for it already."""
BORROWED = 3
"""Other taught questions whose ends are borrowed."""


def other_attribute(question: str) -> list[str]:
    """Another question about the same subject: nothing that this one asks for already, in whatever words."""
    words = keywords(question)
    asked = set(plain(words).split())
    other = [t for t, same in ATTRIBUTES if not re.search(rf"\b(?:{same})\b", question, re.IGNORECASE)]
    return [t.format(k=words) for t in other if asked and not asked & set(plain(keywords(t.format(k=""))).split())]
