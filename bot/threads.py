"""Threads: which messages in them are for the bot, and what a follow-up means.

A message without a mention is taken as a follow-up only when it asks something, names nobody, and does not come in
the middle of a talk between people. "And for part-timers?" is completed from the thread's last full question by fixed
rules. Pure functions on text; it knows nothing of Slack, storage or models.
"""

import re
from dataclasses import dataclass

WORD = re.compile(r"[\w'-]+")


def words_in(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.lower() for word in WORD.findall(text)]


OPENING = re.compile(
    r"^(?:(?:and|or|but|also|so|then|ok(?:ay)?),?\s+)*"
    r"(?:(?:what|how) about\s+|(?:the )?same (?:question )?for\s+|if\s+)?",
    re.IGNORECASE,
)
GOING_ON = re.compile(r"^(?:(?:and|or)\b|(?:what|how) about\b|(?:the )?same (?:question )?for\b)", re.IGNORECASE)
"""How a follow-up begins that needs no question mark."""
PREPOSITIONS = frozenset(
    words_in(
        "about after as at before between by during for from if in inside into like of on outside over per since "
        "through to under until via when while with within without"
    )
)
ASKING = frozenset(words_in("who whom whose what when where why which how"))
AUXILIARIES = frozenset(
    words_in("is are am was were can could do does did may might must shall should will would has have had")
)
SUBJECTS = frozenset(
    words_in(
        "i we you they he she it the a an my our your their his her its there this that these those any anybody "
        "anyone somebody someone everybody everyone people employees"
    )
)
REQUEST = re.compile(r"^(?:please |kindly )?(?:tell|explain|show|list|name|describe|give|remind)\b", re.IGNORECASE)
TO_PEOPLE = re.compile(
    r"^(?:shall|should) we\b|^(?:are|were|can|could|did|do|have|will|would|when are|when can|where are|how are) you\b"
    r"(?! (?:please )?(?:tell|explain|show|list|name|describe|give|remind|know|help|say))",
    re.IGNORECASE,
)
COURTESY = re.compile(
    r"^(?:(?:many )?thanks?(?: you)?|thx|cheers|hi|hello|hey|good (?:morning|afternoon|evening)|ok(?:ay)?|great|"
    r"perfect|got it|super|cool|nice|bye)(?:[ ,]+(?:so much|a lot|very much|there|all|everybody|everyone|nightshift|"
    r"great|perfect|thanks?(?: you)?|that helps?|that helped))*$",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"\b\w[\w+.-]{0,30}://\S*[^\s?!.,;:)]")
EMPTY = frozenset(
    words_in(
        "a an and any are am as at be by do does for from has have how i if in is it its me my no not of on or our "
        "same so than that the their them then there these they this those to us was we what when where which who will "
        "with you your about also but"
    )
)
SHORT = 9
"""Words; a longer message says itself what it is about."""


@dataclass(frozen=True)
class FollowUp:
    """A follow-up completed to a full question; `added` are its own telling words."""

    question: str
    added: frozenset[str]


def is_question(text: str) -> bool:
    """Whether a message asks something, so that nobody is interrupted who only remarks on something."""
    flat = ADDRESS.sub(" ", text.strip())
    if "?" in flat or REQUEST.match(flat) or remainder(flat) is not None:
        return True
    words = words_in(OPENING.sub("", flat))
    if len(words) < 3:
        return False
    return words[0].split("'")[0] in ASKING or (words[0] in AUXILIARIES and words[1] in SUBJECTS)


def speaks_to_people(text: str) -> bool:
    """Whether a question is put to somebody in the room ("are you coming?", "shall we?") and not to the bot."""
    return bool(TO_PEOPLE.match(OPENING.sub("", text.strip())))


def is_courtesy(text: str) -> bool:
    """Whether a message is a greeting or thanks and nothing else."""
    return bool(COURTESY.match(text.strip().rstrip("!.,:;) ").strip()))


def follow_up(text: str, previous: str) -> FollowUp | None:
    """A short follow-up completed from the question before it; None for what stands on its own."""
    rest = remainder(text)
    stem = previous.strip().rstrip("?!. ")
    if rest is None or not stem:
        return None
    return FollowUp(f"{joined(stem, rest)}?", telling(rest))


def remainder(text: str) -> str | None:
    """What a follow-up adds, beginning with a preposition; None when a text is no follow-up.

    "And for part-timers?" adds "for part-timers", "what about Berlin" adds "for Berlin".
    """
    flat = " ".join(text.split()).rstrip("?!. ")
    opening = OPENING.match(flat)
    opened = opening[0] if opening else ""
    rest = flat[len(opened) :]
    words = words_in(rest)
    if not words or len(words) > SHORT or "," in rest or not ("?" in text or GOING_ON.match(flat)):
        return None
    if opened.strip().lower().endswith("if"):
        return f"if {rest}"
    if words[0] in PREPOSITIONS:
        return rest if opened or len(words) <= 5 else None
    asks_itself = words[0] in ASKING | AUXILIARIES or REQUEST.match(rest)
    told = re.search(r"(?:about|for)\s*$", opened, re.IGNORECASE)
    return f"for {rest}" if told and not asks_itself else None


def joined(stem: str, rest: str) -> str:
    """A question with a follow-up's words at its end.

    Where both end in the same preposition and the same last word ("in the first year", "in the second year"), the
    follow-up's phrase takes the place of the question's; otherwise nothing of the question is dropped.
    """
    preposition, last = rest.split()[0].lower(), rest.split()[-1].lower()
    at = stem.lower().rfind(f" {preposition} ")
    replaces = at > 0 and stem.lower().endswith(last) and len(stem[at:].split()) <= 5
    return f"{stem[:at] if replaces else stem} {rest}"


def telling(text: str) -> frozenset[str]:
    """The words of a text that carry meaning, without a plural s."""
    words = (word.removesuffix("'s").rstrip("s") for word in words_in(text) if word not in EMPTY)
    return frozenset(word for word in words if word)


def covers(taught: str, added: frozenset[str]) -> bool:
    """Whether a taught question speaks of what a follow-up added, so that its answer may be given for it."""
    return bool(added) and added <= telling(taught)
