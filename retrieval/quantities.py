"""The values that a sentence states: numbers with their units, days, months, names; the same value has one form.

"fourteen days", "14 days" and "two weeks" are one value; "25 MB" and "25 GB" are two. Rules for English only. It
knows nothing of questions or of what a value is about.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

Values = Mapping[str, frozenset[str]]
"""Values by kind: time, clock, date, bytes, money, share, weekday, month, rhythm, number, code, setting, name."""

CARDINALS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
""".split()  # noqa: SIM905  (a line of words reads better than forty lines)
ORDINALS = """
    zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
    fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
""".split()  # noqa: SIM905  (the same)
TENS = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100}
SPELLED = {
    **{word: str(n) for n, word in enumerate(CARDINALS)},
    **{word: f"{n}th" for n, word in enumerate(ORDINALS)},
    **{word: str(n) for word, n in TENS.items()},
}
NOT_COUNTED = {"first", "second", "one"}
"""Words that may mean something else: first of all, a split second, one of them."""
COUNTED_BEFORE = r"floor|quarter|day|week|month|year|line|tier|level|time|hour|minute"

MINUTE, HOUR, DAY = 60, 3600, 86400
UNITS: tuple[tuple[str, str, float], ...] = (
    (r"s|sec|secs|seconds?", "time", 1),
    (r"min|mins|minutes?", "time", MINUTE),
    (r"h|hrs?|hours?", "time", HOUR),
    (r"(?:working |business |calendar )?days?", "time", DAY),
    (r"weeks?", "time", 7 * DAY),
    (r"months?", "time", 30.4375 * DAY),
    (r"years?", "time", 365.25 * DAY),
    (r"kb|kilobytes?", "bytes", 1e3),
    (r"mb|megabytes?", "bytes", 1e6),
    (r"gb|gigabytes?", "bytes", 1e9),
    (r"tb|terabytes?", "bytes", 1e12),
    (r"%|percent|per cent", "share", 1),
    (r"€|eur|euros?", "money", 1),
    (r"\$|usd|dollars?", "money", 1.0001),
    (r"£|gbp|pounds?", "money", 1.0002),
    (r"cad", "money", 1.0003),
)  # fmt: skip
"""Unit, kind, factor to the kind's smallest unit; the odd factors of money only keep currencies apart."""
QUANTITY = re.compile(
    r"(?P<before>[€$£]|\b(?:eur|usd|gbp|cad)\b)?\s?(?<![\w.-])(?P<number>\d+(?:[.,]\d+)*)"
    r"(?P<ordinal>st|nd|rd|th)?(?:[ -]?(?P<unit>" + "|".join(pattern for pattern, _, _ in UNITS) + r")(?!\w))?"
)
CLOCK = re.compile(r"\b(\d{1,2})(?::(\d\d))?\s?(am|pm|a\.m\.|p\.m\.)|\b(\d{1,2}):(\d\d)\b|\b(noon|midnight)\b")
WEEKDAYS = re.compile(r"\b(mon|tues?|wednes|thurs?|fri|satur|sun)(?:day)s?\b")
MONTHS = re.compile(
    r"\b(january|february|march|april|may|june|july|august|september|october|november|december)\b", re.IGNORECASE
)
PARSED = 4096
"""Texts whose values are remembered: each fact is compared with many others."""
RHYTHM = re.compile(
    r"\b(?:(hour|dai|week|month|quarter|year)ly|(annual)ly|"
    r"(?:every|each|per|once an?) (hour|day|week|month|quarter|year))\b"
)
CODE = re.compile(r"\b[a-z]{1,6}(?:-[a-z]+)*-\d+\b|\b[a-z]{1,3}\d+\b", re.IGNORECASE)
SETTING = re.compile(r"#[\w-]+|[\w.+-]+@[\w.-]+\w|\b[a-z]+(?:_[a-z0-9]+)+\b|\b[a-z_]+\.[a-z]{2,4}\b")
NAME = re.compile(r"(?<![\w#@.-])[A-Z][\w-]*\b")
SENTENCE_START = re.compile(r"(?:^|[.!?:;]\s+|\n)\W*$")


@lru_cache(maxsize=PARSED)
def values(text: str) -> dict[str, frozenset[str]]:
    """The values that a text states, by kind."""
    found: dict[str, set[str]] = {}
    for kind, value in stated(text):
        found.setdefault(kind, set()).add(value)
    return {kind: frozenset(those) for kind, those in found.items()}


def stated(text: str) -> Iterator[tuple[str, str]]:
    """(kind, value) of everything that a text states."""
    yield from (("name", n) for n in names(text))
    yield from (("code", c.casefold()) for c in CODE.findall(text) if not re.fullmatch(r"[qQ]\d", c))
    yield from (("setting", s.casefold()) for s in SETTING.findall(text))
    for month in MONTHS.findall(text):
        if month != "may":
            yield "month", month.casefold()
    rest = digits(text.casefold())
    yield from (("weekday", day[:3]) for day in WEEKDAYS.findall(rest))
    yield from (("rhythm", next(filter(None, r)).replace("dai", "day").replace("annual", "year"))
                for r in RHYTHM.findall(rest))  # fmt: skip
    for found in CLOCK.finditer(rest):
        yield "clock", clock(found)
    for found in QUANTITY.finditer(CLOCK.sub(" ", rest)):
        yield quantity(found)


def digits(text: str) -> str:
    """A lower-case text with its spelled numbers as digits, quarters as Qn and halves as 50 %."""
    text = re.sub(r"\bhalf (?:of|the)\b|\bhalf$", "50 %", text)
    text = re.sub(rf"\b(first|second|one)(?= (?:{COUNTED_BEFORE}))", lambda m: SPELLED[m[1]], text)
    text = re.sub(r"(?<!no )(?<!which )\bone\b(?= [a-z])(?! (?:of|or|another|more|and|has|is|can))", "1", text)
    text = re.sub(r"[a-z]+", lambda m: m[0] if m[0] in NOT_COUNTED else SPELLED.get(m[0], m[0]), text)
    return re.sub(r"\b(\d)(?:st|nd|rd|th) quarter\b|\bq(\d)\b", lambda m: f"quarter {m[1] or m[2]}", text)


def clock(found: re.Match[str]) -> str:
    """A time of day as minutes after midnight."""
    hour, minute, half, plain_hour, plain_minute, word = found.groups()
    if word:
        return "720" if word == "noon" else "0"
    if plain_hour:
        return str(60 * int(plain_hour) + int(plain_minute))
    return str(60 * (int(hour) % 12 + (12 if half.startswith("p") else 0)) + int(minute or 0))


def quantity(found: re.Match[str]) -> tuple[str, str]:
    """A number with its unit as (kind, value in the smallest unit)."""
    number = amount(found["number"])
    unit = found["unit"] or found["before"]
    if unit is None or number is None:
        return "number", found["number"] if number is None else f"{number:g}"
    _, kind, factor = next(row for row in UNITS if re.fullmatch(row[0], unit))
    return kind, f"{number * factor:.10g}"


def amount(written: str) -> float | None:
    """1,500 and 1500 are one number, 1,5 is one and a half; None for versions and addresses such as 3.12.1."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", written):
        written = written.replace(",", "")
    written = written.replace(",", ".")
    return float(written) if written.count(".") <= 1 else None


def names(text: str) -> Iterator[str]:
    """Names, in lower case; the first word of a sentence only where another name follows it."""
    for found in NAME.finditer(text):
        word, rest = found.group(), text[found.end() :]
        opens = word[1:].islower() and SENTENCE_START.search(text[: found.start()])
        follows = re.match(r" [A-Z][a-z]", rest)
        if (follows or not opens) and not spoken_otherwise(word.casefold()):
            yield word.casefold()


def spoken_otherwise(word: str) -> bool:
    """Whether a capital says nothing: a day, a month, a unit, a number, a code, the pronoun I."""
    patterns = (WEEKDAYS, MONTHS, CODE, re.compile("|".join(pattern for pattern, _, _ in UNITS)), re.compile("i|q\\d"))
    return word in SPELLED or any(pattern.fullmatch(word) for pattern in patterns)
