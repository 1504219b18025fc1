"""What a question asks for, and what a sentence offers: an amount, a moment, a person, a place, a remedy.

Each kind has two patterns, one for the question and one for the sentence that would answer it. They are English.
It knows nothing of vectors or of passages.
"""

import re
from collections.abc import Mapping

NUMBER = "one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|half|once|twice"
UNIT = "(?:day|week|month|year|hour|minute|second|night)s?"


def words(pattern: str) -> re.Pattern[str]:
    """A pattern in verbose form that ignores letter case."""
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE)


ASKED: Mapping[str, re.Pattern[str]] = {
    "amount": words(
        r"""\bhow\ (?:many|much|big|large|far|old|high|tall|few)\b|%
        |\b(?:numbers?|max|maximum|minimum|least|most|limits?|cap|percent|share|size|count|up\ to)\b"""
    ),
    "duration": words(
        r"""\bhow\ (?:long|soon|early|late|fast|quickly|often|frequently|many\ (?:days|weeks|months|hours|years)
        |far\ (?:ahead|in\ advance))\b|\b(?:notice|time\ off|lead\ time|period|duration|in\ advance|ahead|length
        |rhythm|wait|grace)\b"""
    ),
    "moment": words(
        r"""\b(?:when|what\ time|which\ day|what\ day|dates?|deadline|due|until|till|by\ when|starts?|ends?
        |expires?|month|hours|o.clock)\b"""
    ),
    "person": words(r"\bwho(?:m|se|.s)?\b|\b(?:which\ team|contact|responsible|decides?|approves?|sign)\b"),
    "contact": words(
        r"""\b(?:e-?mail|mail|write|wrote|contact|reach|ask|tell|report|send|phone|call|ping|slack|channel
        |questions)\b"""
    ),
    "place": words(
        r"""\bwhere\b|\b(?:website|site|url|link|address|page|portal)\b|\bwhat\ (?:tool|app|form|system)\b
        |\bwhich\ (?:tool|app|form|system|channel|metro|office|floor|room)\b"""
    ),
    "remedy": words(
        r"""\b[a-z]{2}-\d{3,}\b|\b(?:fix|fixed|solve|repair|get\ rid|command|run|type|set|setting|flag|config\w*
        |switch|turn|stop|fails?|failing|broken|errors?|stuck|hangs?|wrong|missing|again|crash\w*|known\ issue
        |going\ on|what\ is\ that|resolve|cure|workaround|restart)\b"""
    ),
    "howto": words(r"\bhow\ (?:do|can|to|should|could|would|does)\b|\bwhat\ (?:do|should|must)\ i\b|\bsteps?\b"),
}
TOLD: Mapping[str, re.Pattern[str]] = {
    "amount": words(rf"\d|\b(?:{NUMBER})\b"),
    "duration": words(
        rf"""\b(?:\d[\d.,:]*|{NUMBER})[\ -](?:\w+\ )?{UNIT}\b
        |\b(?:daily|weekly|monthly|quarterly|yearly|annually|forever|never|every\ (?:\w+\ )?{UNIT})\b"""
    ),
    "moment": words(
        r"""\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b
        |\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\d{1,2}:\d\d|\d\s?[ap]\.?m\b|\bnoon\b
        |\b\d+(?:st|nd|rd|th)\b|\b(?:first|second|third|fourth|last)\b"""
    ),
    "person": re.compile(
        r"\b(?:team|manager|supervisor|lead|desk|officer|specialist|admins?|coordinator|director|owner|finance"
        r"|legal|security|people ops|peopleops)\b|#[a-z]|@|(?<=[a-z,] )[A-Z][a-z]+"
    ),
    "contact": words(r"\w@\w|(?<![\w/])\#[a-z]|\(?\d{3}\)?[ -]\d{3}-\d{4}"),
    "place": re.compile(
        r"https?://|\b[\w-]+\.(?:gov|com|org|example|io)\b|(?<![\w/])#[a-z]"
        r"|\b(?:floor|room|street|building|portal|form)\b|\b(?:in|at|on|to|through|via|into) [A-Z]"
    ),
    "remedy": re.compile(r"`[^`]+`|```"),
    "howto": re.compile(
        r"^\W*(?:Ask|Book|Call|Choose|Click|Claim|Email|Enter|File|Fill|Follow|Go|Head|Log|Mail|Make|Open|Order|Post"
        r"|Press|Put|Register|Report|Request|Run|Select|Send|Set|Sign|Submit|Take|Tell|Type|Use|Write)\b"
        r"|\b(?:must|need to|should|can)\b"
    ),
}


def asked(question: str) -> frozenset[str]:
    """The kinds of thing that a question asks for; none when it does not say."""
    return frozenset(kind for kind, pattern in ASKED.items() if pattern.search(question))


def told(sentence: str) -> frozenset[str]:
    """The kinds of thing that a sentence offers."""
    return frozenset(kind for kind, pattern in TOLD.items() if pattern.search(sentence))
