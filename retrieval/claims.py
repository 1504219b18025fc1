"""Do two taught facts contradict each other, repeat each other, or speak of different things?

Two steps. Are they about the same thing: the embeddings of question and answer together are near, and neither names
another code, office, setting or end of a scale than the other. Do they say the same: no value of the same kind
differs, no clause is negated in one of them only, no pair of opposites is split between them. A person sees the
result and decides; rules for English, measured on pairs that ship with the demo company. It stores nothing.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.quantities import PARSED, digits, values
from storage.texts import plain

Kind = Literal["contradiction", "duplicate", "unrelated"]
UNRELATED: Kind = "unrelated"

ABOUT_THE_SAME = 0.60
"""Cosine of two facts (question and answer) from which they may be about the same thing."""
ROUNDING = 1e-3
"""Cosines computed in another batch differ by less."""
SURELY_THE_SAME = 0.75
"""Cosine of two facts from which another word in the question is only another wording."""
SAME_QUESTION = 0.85
"""Cosine of two questions from which the answers may differ as much as they like."""
SAME_WORDS = 0.6
"""Share of the shorter clause's words that two clauses have in common when one denies the other."""
ALIKE = 0.7
"""Cosine of two answers without values that say the same."""
SYNONYMS, ONLY_SYNONYMS = 0.5, 0.7
"""Cosine of two words from which they may mean the same; and where nothing else differs between two questions."""

STOP = frozenset(
    """
    a an the is are was were be been am do does did can could should would will shall may might must i we you he she
    it they my our your his her its their me us him them this that these those of to in on at for from by with as and
    or but if then so than there here what which who whom whose when where why how much many any some please about
    yes no not have has had need needs get gets into out up own every each all one
    """.split()  # noqa: SIM905  (a paragraph of words reads better than forty lines)
)
NEGATION = re.compile(r"\b(?:not|no|never|nobody|nothing|neither|without|cannot|\w+n't)\b")
CHOICE = re.compile(r"\bor\b", re.IGNORECASE)
"""A question that offers a choice: "yes" says nothing to it, and what it names is not its subject."""
REPLY = re.compile(r"^\W*(yes|yep|yeah|no|nope)\b[\s,.:;!-]*")

OPPOSITES: dict[str, tuple[str, str]] = {
    "permission": (
        r"allowed|permitted|ok|okay|fine|may|can",
        r"forbidden|prohibited|banned|must not|mustn't|may not|cannot|can't|can not",
    ),
    "necessity": (
        r"mandatory|required|compulsory|obligatory|must|have to|has to|needs? to",
        r"optional|voluntary|need not|needn't|no need|(?:do|does)(?: not|n't) (?:have|need)(?: to)?",
    ),
    "order": (r"before", r"after"),
    "bound": (
        r"at least|minimum|or more|or longer|no(?:t)? less than|no(?:t)? fewer than",
        r"at most|maximum|up to|or less|or fewer|no(?:t)? more than|no(?:t)? longer than|within",
    ),
    "days": (r"working days?|business days?", r"calendar days?"),
    "switch": (
        r"enabled?|activated?|(?:turn|turned|switch|switched|set|stays?|keep|be|is|are)(?: \S+){0,3}? on(?= in\b|\W*$)",
        r"disabled?|deactivated?|off",
    ),
    "inclusion": (r"includ(?:e|es|ed|ing)|covers?|covered|part of", r"exclud(?:e|es|ed|ing)"),
    "mode": (r"automatic(?:ally)?", r"manual(?:ly)?|by hand"),
    "payment": (r"paid", r"unpaid"),
    "side": (r"internal(?:ly)?|inside", r"external(?:ly)?|outside"),
    "sight": (r"public(?:ly)?", r"secret(?:ly)?|confidential(?:ly)?"),
    "line": (r"online", r"offline"),
    "change": (r"increas(?:e|es|ed)|raise[sd]?", r"decreas(?:e|es|ed)|lower(?:s|ed)?|reduce[sd]?"),
    "salary": (r"gross", r"net"),
    "daytime": (r"mornings?|a\.m\.|am", r"evenings?|afternoons?|p\.m\.|pm"),
}
"""Pairs that say the opposite of the same thing; a negation just before turns the side."""
ENDS: dict[str, tuple[str, str]] = {
    "extreme": (r"earliest|minimum|min|least|lowest|shortest", r"latest|maximum|max|most|highest|longest"),
    "door": (r"open(?:s|ed|ing)?", r"close[sd]?|closing|shuts?"),
    "span": (r"start(?:s|ed)?|begin(?:s|ning)?", r"ends?|ended|finish(?:es|ed)?"),
    "flow": (r"upload(?:s|ed)?|incoming|import", r"download(?:s|ed)?|outgoing|export"),
    "turn": (r"arriv(?:e|es|al)|check in|join(?:s|ing)?", r"depart(?:s|ure)?|check out|leav(?:e|es|ing)"),
}
"""Two ends of one scale: questions about either are different questions."""


FRAME = frozenset(
    """
    amount share part number size length value level priority kind sort time date day month year week hour minute
    deadline limit place location region channel address owner team person company people everybody somebody employee
    employees max maximum min minimum before after first last long large big late early often soon kept keep stored
    store held hold covered cover paid pay included include come comes happen happens take takes make makes put use
    used want go goes found find give given allowed required possible right way reason cause fix remedy
    """.split()  # noqa: SIM905  (a paragraph of words reads better than forty lines)
)
"""Words that ask for an attribute in general: exchanging one for another does not change what is spoken of."""


class Encoder(Protocol):
    """Turns texts into L2-normalised vectors [n, dimension]."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row per text."""
        ...


@dataclass(frozen=True)
class Claim:
    """A question and its answer."""

    question: str
    answer: str

    @property
    def text(self) -> str:
        """Both as one text."""
        return f"{self.question} {self.answer}"


def compare(encoder: Encoder, claim: Claim, others: Sequence[Claim]) -> tuple[Kind, ...]:
    """What each of the others is to a claim."""
    possible = [o for o in others if stems(o.text) & stems(claim.text)]
    if not possible:
        return (UNRELATED,) * len(others)
    whole = likeness(encoder, claim.text, [o.text for o in possible])
    asked = likeness(encoder, claim.question, [o.question for o in possible])
    near = [row for row in zip(possible, whole, asked, strict=True) if closeness(*row[1:]) >= ABOUT_THE_SAME]
    told = likeness(encoder, claim.answer, [o.answer for o, *_ in near]) if near else []
    found = {o: judge(encoder, claim, o, w, q, t) for (o, w, q), t in zip(near, told, strict=True)}
    return tuple(found.get(o, UNRELATED) for o in others)


def closeness(whole: float, asked: float) -> float:
    """How near two facts are: as a whole, or because nearly the same was asked."""
    return max(whole, asked - (SAME_QUESTION - ABOUT_THE_SAME))


def pairs(encoder: Encoder, those: Sequence[Claim]) -> Iterator[tuple[int, int, Kind]]:
    """(index, later index, kind) of every pair that contradicts or repeats; each text is embedded once."""
    if len(those) < 2:
        return
    parts = ([c.text for c in those], [c.question for c in those], [c.answer for c in those])
    whole, asked, told = ((v := encoder.encode(texts)) @ v.T for texts in parts)
    near = np.maximum(whole, asked - (SAME_QUESTION - ABOUT_THE_SAME)) >= ABOUT_THE_SAME - ROUNDING
    for i, j in zip(*np.nonzero(np.triu(near, 1)), strict=True):
        at = (int(i), int(j))
        kind = judge(encoder, those[at[0]], those[at[1]], float(whole[at]), float(asked[at]), float(told[at]))
        if kind != UNRELATED:
            yield *at, kind


def judge(encoder: Encoder, left: Claim, right: Claim, whole: float, asked: float, told: float) -> Kind:
    """The kind of one pair, from the cosines of the claims, of the questions and of the answers."""
    if plain(left.question) != plain(right.question):
        if closeness(whole, asked) < ABOUT_THE_SAME:
            return "unrelated"
        if speaks_of_another(left, right) or other_attribute(left, right) or swapped(encoder, left, right, whole):
            return "unrelated"
    if plain(left.answer) == plain(right.answer) and plain(left.question) == plain(right.question):
        return "duplicate"
    return "contradiction" if opposed(left, right) or not agrees(left, right, told) else "duplicate"


def likeness(encoder: Encoder, text: str, others: Sequence[str]) -> list[float]:
    """The cosine of a text with each of the others."""
    vectors = encoder.encode([text, *others])
    cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
    return cosines


# --- about the same thing? ---


def speaks_of_another(left: Claim, right: Claim) -> bool:
    """Whether each question names something of one kind that the other fact does not: another code, office, end."""
    mine, yours = values(left.question), values(right.question)
    for kind in mine.keys() & yours.keys():
        if missing(mine[kind], right, kind) and missing(yours[kind], left, kind):
            return True
    if REPLY.match(left.answer.casefold()) or REPLY.match(right.answer.casefold()):
        return False
    here, there = sides(left.question, ENDS), sides(right.question, ENDS)
    return any(here[axis] != there[axis] for axis in here.keys() & there.keys())


def missing(named: Collection[str], other: Claim, kind: str) -> bool:
    """Whether a fact does not name any of these."""
    if kind == "name":
        return not any(n in other.text.casefold() for n in named)
    return not set(named) & values(other.text).get(kind, frozenset())


MEASURES = ("time", "clock", "bytes", "money", "share", "weekday", "month")


WANTED = (
    (r"who|whom|whose|which (?:team|person)", "person"),
    (r"where|in which (?:channel|office|folder|room)", "place"),
    (r"when|what time|which day|by when|until when", "moment"),
    (r"how many people", ""),
    (r"how (?:many|much|large|big|high|long|often)|what share", "amount"),
    (r"why", "reason"),
)


def other_attribute(left: Claim, right: Claim) -> bool:
    """Whether the answers state values of different kinds only, or one question wants a person, the other a place."""
    mine, yours = new_values(left, right), new_values(right, left)
    measured, theirs = {k for k in mine if k in MEASURES}, {k for k in yours if k in MEASURES}
    if measured and theirs:
        return not measured & theirs
    here, there = wanted(left.question), wanted(right.question)
    return bool(here and there) and here != there


def wanted(question: str) -> str:
    """What a question asks for: a person, a place, a moment, an amount, a reason, or nothing that is known."""
    asked = question.casefold()
    hits = [(found.start(), name) for pattern, name in WANTED if (found := re.search(rf"\b(?:{pattern})\b", asked))]
    return min(hits)[1] if hits else ""


def swapped(encoder: Encoder, left: Claim, right: Claim, whole: float) -> bool:
    """Whether one word of a question was exchanged for another thing, which the other fact knows nothing of.

    The word is the only difference between the questions, or stands in its own answer too and the facts are not near.
    """
    mine, yours = foreign(left, right), foreign(right, left)
    alone = only_difference(left.question, right.question, mine, yours)
    if not alone:
        if whole >= SURELY_THE_SAME:
            return False
        mine, yours = repeated(mine, left.answer), repeated(yours, right.answer)
    if not mine or not yours:
        return False
    vectors = encoder.encode([*mine, *yours])
    return float((vectors[: len(mine)] @ vectors[len(mine) :].T).max()) < (ONLY_SYNONYMS if alone else SYNONYMS)


def repeated(asked: Sequence[str], answer: str) -> list[str]:
    """Those words of a question that its answer repeats and that do not merely ask for an attribute."""
    told = stems(answer)
    return [w for w in asked if w not in FRAME and stem(w) in told]


def foreign(claim: Claim, other: Claim) -> list[str]:
    """The words of a question that the other fact does not hold."""
    known = stems(other.text)
    return [w for w in content(claim.question) if not any(same_word(stem(w), k) for k in known)]


def same_word(left: str, right: str) -> bool:
    """Whether two stems are one, or two forms of one: deploy and deployment."""
    return left == right or (len(left) >= 5 and len(right) >= 5 and left[:5] == right[:5] and left.isalpha())


def only_difference(left: str, right: str, mine: Sequence[str], yours: Sequence[str]) -> bool:
    """Whether two questions are the same text but for these words."""
    rest = [w for w in words(left) if w not in mine], [w for w in words(right) if w not in yours]
    return rest[0] == rest[1]


# --- saying the same? ---


def opposed(left: Claim, right: Claim) -> bool:
    """Whether a value, a negation or a pair of opposites stands between two answers to one question."""
    mine, yours = new_values(left, right), new_values(right, left)
    both = mine.keys() & yours.keys() - {"name"}
    if any(not mine[kind] & yours[kind] for kind in both):
        return True
    here, there = stance(left), stance(right)
    if any(here[axis] != there[axis] for axis in here.keys() & there.keys()):
        return True
    if any(denies(a, b) for a in clauses(left) for b in clauses(right)):
        return True
    named = mine.get("name", frozenset()), yours.get("name", frozenset())
    return all(named) and not named[0] & named[1] and not both


def agrees(left: Claim, right: Claim, told: float) -> bool:
    """Whether two answers that are not opposed state a common value, reply alike or use nearly the same words."""
    mine, yours = new_values(left, right), new_values(right, left)
    if any(mine[kind] & yours[kind] for kind in mine.keys() & yours.keys()):
        return True
    replies = reply(left), reply(right)
    if replies[0] and replies[0] == replies[1]:
        return True
    own, others = stems(left.answer), stems(right.answer)
    shared = len(own & others) / max(1, min(len(own), len(others)))
    return told >= ALIKE or shared >= SAME_WORDS or bool(replies[0] or replies[1])


def new_values(claim: Claim, other: Claim) -> dict[str, frozenset[str]]:
    """The values of an answer that neither question names already as its subject."""
    subject = " ".join(c.question for c in (claim, other) if not CHOICE.search(c.question))
    asked, found = values(subject), {}
    for kind, those in values(claim.answer).items():
        known = asked.get(kind, frozenset()) | {n for n in those if kind == "name" and n in subject.casefold()}
        if those - known:
            found[kind] = those - known
    return found


def stance(claim: Claim) -> dict[str, bool]:
    """Which side of which opposites an answer takes; "yes" and "no" take the question's side or the other one."""
    told = claim.answer.casefold()
    said = reply(claim)
    taken = sides(REPLY.sub("", told), OPPOSITES)
    if said and not CHOICE.search(claim.question):
        taken = {a: side == (said == "yes") for a, side in sides(claim.question, OPPOSITES).items()} | taken
    return taken


def reply(claim: Claim) -> str:
    """What an answer opens with: yes, no or nothing."""
    found = REPLY.match(claim.answer.casefold())
    return "" if not found else "yes" if found[1].startswith("y") else "no"


def sides(text: str, table: dict[str, tuple[str, str]]) -> dict[str, bool]:
    """The side a text takes of each pair (True for the first); a text that takes both takes none."""
    told = text.casefold().replace("\u2019", "'")
    found: dict[str, set[bool]] = {}
    for axis, (first, second) in table.items():
        for hit in re.finditer(rf"\b(?:(?P<second>{second})|(?P<first>{first}))(?!\w)", told):
            before = re.split(r"[.,;:!?]", told[: hit.start()])[-1].split()[-3:]
            turned = bool(NEGATION.search(" ".join(before)))
            found.setdefault(axis, set()).add((hit["first"] is not None) != turned)
    for preposition, thing in re.findall(r"\b(with|without) (?:an? |the |your |our )?([\w-]+)", told):
        found.setdefault(f"with {stem(thing)}", set()).add(preposition == "with")
    return {axis: side.pop() for axis, side in found.items() if len(side) == 1}


@dataclass(frozen=True)
class Clause:
    """A piece of an answer: its words and whether it is negated."""

    words: frozenset[str]
    negated: bool


def clauses(claim: Claim) -> Iterator[Clause]:
    """The clauses of an answer; a "yes" or "no" stands for the question, unless that offers a choice."""
    told = claim.answer.casefold().replace("\u2019", "'")
    said = reply(claim)
    if said and not CHOICE.search(claim.question):
        yield Clause(stems(claim.question), said == "no")
    for piece in re.split(r"[.;:!?](?:\s|$)|,\s|\bbecause\b|\bso that\b", REPLY.sub("", told)):
        said_here = stems(piece)
        if said_here:
            yield Clause(said_here, bool(NEGATION.search(piece)))


def denies(left: Clause, right: Clause) -> bool:
    """Whether two clauses say the same words, one of them with a negation."""
    shorter = min(len(left.words), len(right.words))
    shared = len(left.words & right.words)
    return left.negated != right.negated and shared >= min(2, shorter) and shared >= SAME_WORDS * shorter


# --- words ---


def words(text: str) -> list[str]:
    """The words of a text, lower case, numbers as digits."""
    return re.findall(r"[\w#@.-]*\w", digits(text.casefold()))


def content(text: str) -> list[str]:
    """The words that carry meaning, lower case."""
    return [w for w in words(text) if w not in STOP]


@lru_cache(maxsize=PARSED)
def stems(text: str) -> frozenset[str]:
    """The words that carry meaning without their endings, numbers as digits."""
    return frozenset(stem(w) for w in content(text))


def stem(word: str) -> str:
    """A word without its most common endings; names with digits stay whole."""
    if any(c.isdigit() for c in word):
        return word
    for ending in ("ings", "ing", "ied", "ies", "ed", "es", "e", "s", "ly", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
