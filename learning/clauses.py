"""A question as the subordinate clause of another sentence: "how long does it take" becomes "how long it takes".

English has the subject before the verb there. Where the subject ends is known for pronouns and before a verb of the
list below; for anything else the answer is None, and the caller quotes the question as it is. No model, no tables of
inflection beyond the third person. It knows nothing of what is asked.
"""

import re
from collections.abc import Sequence

COPULAS = ("is", "are", "was", "were")
MODALS = ("can", "could", "may", "must", "should", "will", "would", "have", "has")
AUXILIARIES = (*COPULAS, *MODALS, "do", "does")
PRONOUNS = ("i", "we", "you", "they", "he", "she", "it", "people", "employees", "users", "everybody", "anyone")
ASKING = re.compile(
    r"(?:(?:on|in|at|to|from|until|after|by|for|since|up to|within|with|during) )?"
    r"(?:what|which|who|whom|whose|when|where|why|how)\b",
    re.IGNORECASE,
)
TWO_QUESTIONS = re.compile(r"(?:,|:|;|\band|\bor)\s+(?:and\s+|or\s+)?(?:how|what|why|which|when|who|where|is|do|not)\b")
TWO_SENTENCES = re.compile(r"[.?!:]\s")
LONGEST_PHRASE = 10
"""Words that "from which day of an illness" and the like may have."""
LONGEST_SUBJECT = 7
"""Words of a subject behind which "is" still reads well."""
DETERMINERS = frozenset(
    """
    a an the my our your his her its their this that these those of to in on for and or
    """.split()  # noqa: SIM905  (a line of words reads better than twenty)
)
VERBS = frozenset(
    """
    accept acknowledge allow answer appear apply approve arrive ask authorise be begin belong block book bring buy cache
    call cancel carry cause change charge check claim close come contact cost count cover create cut deal delay delete
    deliver deploy depend differ do drop earn end enter escalate exist expire fail fall file find finish fix follow
    forward get give go grant happen have help hold include install join keep land last learn leave let lock log lose
    make match mean meet move need notify offer open order own park pay plan post prevent print process publish put
    raise read receive refund register reject release remain renew rent repair replace report request require reset
    resolve restart return review rotate run say schedule sell send serve set share ship show sign sit skip solve split
    spend stand start stay stop store submit supply support switch take talk tell track train travel turn update
    upload use vote wait wear work write
    """.split()  # noqa: SIM905  (a paragraph of words reads better than forty lines)
)
PARTICIPLE = re.compile(
    r"\w{2,}ed|kept|paid|held|sent|done|found|made|built|known|sold|bought|written|given|taken|due|open|"
    r"frozen|broken|stolen|chosen|lost|shown|missing|responsible|available|necessary|possible|mandatory|optional"
)


def subordinate(question: str) -> str | None:
    """The clause of a bare question (no mark at its end), or None where its subject cannot be told."""
    if TWO_SENTENCES.search(question) or TWO_QUESTIONS.search(question):
        return None
    words = question.split()
    if words[:1] and words[0].lower() in AUXILIARIES:
        clause = turned(words[0].lower(), words[1:])
        return clause and f"whether {clause}"
    if not ASKING.match(question):
        return None
    place = next((i for i, w in enumerate(words) if i and w in AUXILIARIES), None)
    if place is None or any(third_person_of(w) for w in words[1:place]):
        return question  # who approves it, what causes it: the subject stands first already
    clause = turned(words[place], words[place + 1 :]) if place <= LONGEST_PHRASE else None
    return clause and f"{' '.join(words[:place])} {clause}"


def turned(auxiliary: str, rest: Sequence[str]) -> str | None:
    """Subject, then verb: from an auxiliary and what followed it."""
    if not rest or "not" in rest[:3]:
        return None
    end = subject_end(auxiliary, rest)
    if end is None:
        return None
    subject, tail = list(rest[:end]), list(rest[end:])
    if auxiliary == "do":
        return " ".join([*subject, *tail])
    if auxiliary == "does":
        two_verbs = tail[1:2] in (["or"], ["and"])
        return " ".join([*subject, third_person(tail[0]), *tail[1:]]) if tail and not two_verbs else None
    return " ".join([*subject, auxiliary, *tail])


def subject_end(auxiliary: str, rest: Sequence[str]) -> int | None:
    """How many words the subject has; None where more than one reading is likely."""
    if rest[0].lower() in PRONOUNS:
        return 1
    heads = [i for i, w in enumerate(rest) if i and rest[i - 1].lower() not in DETERMINERS]
    if auxiliary in COPULAS:
        short = len(rest) if len(rest) <= LONGEST_SUBJECT else None
        return next((i for i in heads if PARTICIPLE.fullmatch(rest[i])), short)
    verbs = [i for i in heads if rest[i] in VERBS]
    if len(verbs) > 1 and verbs[-1] != len(rest) - 1:
        return None
    return verbs[-1] if verbs else None


def third_person(verb: str) -> str:
    """He, she or it does it."""
    if verb in ("have", "do", "go"):
        return {"have": "has", "do": "does", "go": "goes"}[verb]
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "z")) else f"{verb}s"


def third_person_of(word: str) -> bool:
    """Whether a word is a known verb in the third person."""
    return any(third_person(verb) == word for verb in VERBS if word.startswith(verb[:2]))
