"""What leaves the bot: two thousand hostile texts stay harmless on every path, and long answers arrive whole."""

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slack_office import (
    HELP,
    NO_PACE,
    PRIYA,
    REVIEW,
    SAM,
    Change,
    Office,
    ScriptedDesk,
    foreign_links,
    play,
    raw_markup,
    report,
)

from bot.desk import Asked
from bot.workspace.nouns import BOT_USER, Message, Person
from storage import corrections, nights
from storage.database import Database
from storage.domain import Answer, Route, Source, Status, Style

SEED = 11
TEXTS, A_STORY, AT_ONCE = 2000, 10, 8
FRAGMENTS = (
    *(
        "<!channel>",
        "<!here|here>",
        "<!everyone>",
        "<!subteam^S0ADMINS>",
        "<@U0VICTIM>",
        "<@U0VICTIM|Sam>",
        "<#C0HELP|x>",
    ),
    *(
        "<https://evil.example/x|the handbook>",
        "<https://evil.example>",
        "<mailto:x@evil.example|mail>",
        "<tel:1|call>",
    ),
    *("https://evil.example/?q=secret", "www.evil.example/a", "evil.example", "javascript:alert(1)", "//evil.example"),
    *(
        "[the handbook](https://evil.example/x)",
        "![chart](https://evil.example/p.png)",
        "[a]: https://evil.example 'b'",
    ),
    *(
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='https://evil.example'>x</a>",
        "<!--",
        "<b>",
    ),
    *("&lt;!channel&gt;", "&amp;lt;!here&amp;gt;", "&#60;!channel&#62;", "<<!channel>>", "< !channel>", "<\n!channel>"),
    *(
        "<\u200b!channel>",
        "\u202e<!here>\u202c",
        "<!cha\u200bnnel>",
        "\ufeff<@U0VICTIM>",
        "\uff1c!channel\uff1e",
        "\u2066<!x>\u2069",
    ),
    *(
        "*bold <!channel>*",
        "_<@U0VICTIM>_",
        "~x~",
        "> <!here>",
        ">>> all",
        "# <!everyone>",
        "* <!channel>",
        "1. <!here>",
    ),
    *(
        "`<!channel>`",
        "```\n<@U0VICTIM> https://evil.example\n```",
        "```",
        "`",
        "````<!here>",
        "| a | <!channel> |\n|---|---|\n| 1 | 2 |",
    ),
    *(
        "<!date^1392734382^{date}^https://evil.example|x>",
        "@channel",
        "@here",
        ":wave:",
        "\x00\x07",
        "\ud83d",
        "\U0001f980",
    ),
    *(
        "<" * 400,
        ">" * 100,
        "&" * 300,
        "x" * 700,
        "word " * 300,
        "\n" * 40,
        "\u0301" * 200,
        "\u05d0\u05d1\u05d2 \u0627\u0644",
    ),
)
URLS = (
    *(
        "https://handbook.example/leave",
        "https://docs.example/a_(b)?x=1&y=2",
        "http://evil.example/a",
        "javascript:alert(1)",
    ),
    *("https://evil@handbook.example/x>|<!channel>", "//evil.example", "<https://evil.example|x>", "", "https://"),
)


def hostile(chance: random.Random) -> str:
    """A text that somebody wrote to do harm, of one to five fragments."""
    glue = chance.choice(["", " ", "\n", "\n\n"])
    return glue.join(chance.choice(FRAGMENTS) for _ in range(chance.randint(1, 5)))


# --- the judges themselves ---


@pytest.mark.parametrize(
    "text", ["<!channel>", "a <b", "<@U0VICTIM>", "<https://evil.example/x|docs>", "<mailto:a@b.c|x>"]
)
def test_the_judge_of_markup_sees_what_no_code_built(text: str) -> None:
    assert raw_markup({"args": {"text": text}}) == [text]
    assert raw_markup({"args": {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]}}) == [text]
    assert raw_markup({"args": {"view": {"title": {"type": "plain_text", "text": text}}}}) == []
    assert raw_markup({"args": {"text": "<@U0SAM> &lt;b&gt; <https://handbook.example/leave|Leave>"}}) == []


def test_the_judge_of_links_sees_what_slack_would_make_a_link() -> None:
    def of(text: str, **more: Any) -> list[str]:
        return foreign_links({"args": {"text": text, **more}})

    said = {"type": "mrkdwn", "text": "see https://evil.example"}
    assert of("see https://evil.example") == ["see https://evil.example"]
    assert of("see https://evil.example", parse="none") == []
    assert of("", blocks=[{"type": "section", "text": said}]) == [said["text"]]
    assert of("", blocks=[{"type": "section", "text": {**said, "verbatim": True}}]) == []
    assert of("", markdown_text="[x](https://evil.example)") == ["[x](https://evil.example)"]
    assert of("", markdown_text="`https://evil.example`") == []


# --- hostile texts ---


@pytest.mark.slow
def test_2000_hostile_texts_stay_harmless_on_every_path(home_in_memory: Path) -> None:
    chance = random.Random(SEED)
    texts = [hostile(chance) for _ in range(TEXTS)]

    async def story(here: Office) -> None:
        batches = [texts[i : i + A_STORY] for i in range(0, TEXTS, A_STORY)]
        for start in range(0, len(batches), AT_ONCE):
            await asyncio.gather(
                *(one_story(here, start + i, b) for i, b in enumerate(batches[start : start + AT_ONCE]))
            )
        await here.settle()
        markup = [found for call in here.ws.calls for found in raw_markup(call)]
        links = [found for call in here.ws.calls for found in foreign_links(call)]
        streamed = [m.markdown for m in said_by_the_bot(here) if m.markdown]
        assert markup == []
        assert links == []
        assert [text for text in streamed if raw_markup({"args": {"text": text}})] == []
        used = {call["method"] for call in here.ws.calls}
        assert {"chat.postMessage", "chat.update", "response_url", "views.open", "views.publish"} <= used
        report("hostile", f"{TEXTS} texts, {len(here.ws.calls)} calls, {len(streamed)} streams, 0 raw, 0 links")

    play(home_in_memory, story, **NO_PACE, patience=240)


async def one_story(here: Office, number: int, texts: list[str]) -> None:
    """Ask, correct, review, look at Home, ask privately, share, get a notice: with a hostile text in every field."""
    user, place = f"U0P{number:03d}", f"D0P{number:03d}"
    if user not in here.ws.state.people:
        here.ws.state.add_person(Person(user, f"p{number}", f"Person {number}", ""), [HELP])
    people, chance = here.ws.people, random.Random(number)
    await people.message({"user": user, "channel": place, "text": f"{texts[0]} {number}?"})
    here.desk.script.append(answer_of(texts[1:5], chance))
    await here.settle()
    for message in said_by_the_bot(here, place):
        await press(here, user, message, "feedback", "negative")
    await here.settle()
    for view_id in here.ws.state.modals.get(user, ()):
        values = filled(here.ws.state.views[view_id].data["blocks"], texts[5], texts[6])
        await people.submit({"user": user, "view_id": view_id, "values": values})
    await here.settle()
    await reviewed(here, user, chance)
    await people.open_home({"user": user})
    await people.open_home({"user": PRIYA, "tab": chance.choice(["home", "messages"])})
    here.desk.script.append(answer_of(texts[7:9] * 2, chance))
    await people.command({"user": user, "channel": HELP, "command": "/ask", "text": texts[9] or "x"})
    await here.settle()
    for message in said_by_the_bot(here, HELP):
        if message.only_for == user:
            await press(here, user, message, "share", None)
    nights.owe(here.database, "", "nightly_report", {"text": f"## The night\n{texts[1]}"})
    nights.owe(here.database, user, "fix_live", {"correction_id": number, "question": texts[2], "version": texts[3]})
    await here.settle()


async def reviewed(here: Office, user: str, chance: random.Random) -> None:
    """Let Priya decide about, or look at, what this person proposed."""
    mine = [row.id for row in corrections.in_status(here.database, Status.PENDING) if row.author == user]
    cards = [m for m in said_by_the_bot(here, REVIEW) if any(f"orrection {number}" in str(m.blocks) for number in mine)]
    for card in cards:
        await press(here, PRIYA, card, chance.choice(["approve", "edit", "reject", "look"]), None)


def answer_of(texts: list[str], chance: random.Random) -> Change:
    """An answer in which everything was written by somebody hostile."""
    source = Source(texts[2][:500], texts[3][:500], chance.choice(URLS), 0.5)
    route = chance.choice(list(Route))
    taught = {"taught_question": texts[1], "style": chance.choice([Style.DIRECT, Style.RELATED])}
    return {"text": texts[0], "route": route, "sources": (source,), **(taught if route is Route.MEMORISED else {})}


async def press(here: Office, user: str, message: Message, action: str, value: str | None) -> None:
    """Press a button where the message has it."""
    if f"'action_id': '{action}'" in str(message.blocks):
        where = {"user": user, "channel": message.channel, "ts": message.ts}
        await here.ws.people.click({**where, "action_id": action, "value": value})


def filled(blocks: list[Any], question: str, answer: str) -> dict[str, Any]:
    """A modal with hostile words in its fields, cut to what Slack's client lets one type."""
    words = {"reason": "wrong", "question": question, "answer": answer, "source": "https://evil.example <!channel>"}
    fields = [block["block_id"] for block in blocks if block["type"] == "input"]
    return {name: {"value": (words.get(name) or "more")[:2900]} for name in fields}


def said_by_the_bot(here: Office, channel: str = "") -> list[Message]:
    """The bot's messages, newest first."""
    channels = [channel] if channel else list(here.ws.state.messages)
    found = [m for name in channels for m in here.ws.state.messages[name].values() if m.user == BOT_USER]
    return sorted(found, key=lambda message: float(message.ts), reverse=True)


# --- long answers ---

LENGTHS = (100, 300, 599, 650, 1200, 2900, 3100, 6000, 8990, 9100, 12_500, 16_000, 20_000)


class Library(ScriptedDesk):
    """Answers each question with the text that belongs to it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.shelf: dict[str, str] = {}

    def reply(self, asked: Asked, change: Change) -> Answer:
        return super().reply(asked, {"text": self.shelf.get(asked.text, "Nothing."), **change})


@pytest.mark.slow
def test_answers_of_100_to_20000_characters_arrive_whole(home_in_memory: Path) -> None:
    texts = {f"{style} of {n}?": long_text(style, n) for style in ("prose", "table", "code", "mixed") for n in LENGTHS}

    async def story(here: Office) -> None:
        assert isinstance(here.desk, Library)
        here.desk.shelf = texts
        asked = {question: await here.write(SAM, "D0SAM", question) for question in texts}
        await here.settle()
        for question, ts in asked.items():
            thread = [m for m in reversed(said_by_the_bot(here, "D0SAM")) if m.thread_ts == ts]
            assert words(seen(thread)) == words(texts[question]), question
        for question, text in texts.items():
            before = {m.ts for m in said_by_the_bot(here, HELP)}
            await here.do("command", SAM, channel=HELP, command="/ask", text=question)
            await here.settle()
            private = [m for m in reversed(said_by_the_bot(here, HELP)) if m.ts not in before]
            assert words(seen(private)) == words(text), question
        streams = len(here.calls("chat.startStream"))
        report("long", f"{2 * len(texts)} answers of up to {LENGTHS[-1]} characters, {streams} streamed, all whole")

    play(home_in_memory, story, **NO_PACE, desk=Library, patience=120)


def long_text(style: str, length: int) -> str:
    """A text of about this many characters whose words are all different."""
    numbers = iter(range(length))
    parts, size = [], 0
    while size < length:
        kind = style if style != "mixed" else ("prose", "table", "code")[len(parts) % 3]
        part = "\n".join(lines_of(kind, numbers)) + "\n\n"
        parts.append(part)
        size += len(part)
    return "".join(parts)[:length].strip()


def lines_of(kind: str, numbers: Iterator[int]) -> Iterator[str]:
    """A paragraph, a table or a block of code of unique words."""
    if kind == "table":
        yield "| name | value |\n|---|---|"
    if kind == "code":
        yield "```python"
    for _ in range(6):
        row = [f"w{next(numbers, 0)}x" for _ in range(8)]
        yield f"| {' | '.join(row[:2])} |" if kind == "table" else "  ".join(row) if kind == "code" else " ".join(row)
    if kind == "code":
        yield "```"


def words(text: str) -> list[str]:
    """The unique words, in order."""
    return re.findall(r"w\d+x", text)


def seen(messages: list[Message]) -> str:
    """What a person reads of some messages, oldest first."""
    return "\n".join(f"{m.markdown}\n{' '.join(texts_in(m.blocks)) or m.text}" for m in messages)


def texts_in(node: Any) -> Iterator[str]:
    """Every text in blocks, in order."""
    if isinstance(node, list):
        for item in node:
            yield from texts_in(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "text" and isinstance(value, str):
                yield value
            else:
                yield from texts_in(value)
