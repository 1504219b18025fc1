"""Ten thousand broken payloads: the bot never falls over, never repeats hostile text raw, and goes on answering."""

import copy
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slack_office import HELP, NO_PACE, PRIYA, SAM, Office, play, raw_markup, report

from bot import payloads as door
from bot.workspace import events
from bot.workspace.nouns import BOT_USER, TEAM_ID, Message

SEED = 20
DIRECT, OVER_THE_SOCKET = 9_700, 300
HOSTILE = "<!channel> <https://evil.example/x|click> <@U0VICTIM> &lt;b&gt; *_~`"
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**70, 1e308, "", " ", "\x00", "\ud800", "\U0001f980" * 50, "x" * 100_000),
    *([], [[]], {}, {"a": {"b": []}}, [None], "not a number", "../../etc", "up:", "down:x", "{", "[1", "[1, 2]"),
    *("99999999999999999999", "1;drop table", HOSTILE, f"<@{BOT_USER}> {HOSTILE}", [HOSTILE], {"value": HOSTILE}),
)
KNOWN_ACTIONS = (
    *("feedback", "teach", "not_mine", "share", "approve", "approve_replacing", "edit", "reject", "home_page"),
    *("resolved", "more", "answer_menu", "withdraw", "rollback", "settings", "channel_settings", "unknown", HOSTILE),
)
KNOWN_VIEWS = ("correction", "review_edit", "review_reject", "review_withdraw", "channel_settings", "unknown")
NOT_OURS = ("aiohttp.access", "slack_sdk", "asyncio.slow")


class Tracebacks(logging.Handler):
    """Keeps what is logged with a traceback, or as an error, by the loggers of the bot, of Bolt and of asyncio."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.unhandled: list[str] = []
        self.friendly: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is None and record.levelno < logging.ERROR:
            return
        text = logging.Formatter().format(record)
        (self.friendly if "a defect while" in text else self.unhandled).append(text)


# --- payloads ---


def payloads(chance: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Valid payloads of every kind, each broken in one to four places; a few are broken from the ground up."""
    for number in range(count):
        payload = copy.deepcopy(chance.choice(KINDS)(chance, number))
        for _ in range(chance.randint(1, 4)):
            damage(chance, payload)
        yield payload


def message(chance: random.Random, number: int) -> dict[str, Any]:
    event: dict[str, Any] = {
        "type": chance.choice(["message", "app_mention"]),
        "user": SAM,
        "ts": f"17000{number:05d}.000100",
        "channel": chance.choice([HELP, "D0SAM", "C0GONE"]),
        "channel_type": chance.choice(["channel", "im", "group", "mpim"]),
        "text": f"<@{BOT_USER}> question {number} {HOSTILE}",
        "team": TEAM_ID,
        "blocks": [events.rich_text(HOSTILE)],
    }
    if chance.random() < 0.3:
        event["thread_ts"] = f"17000{number // 2:05d}.000100"
    if chance.random() < 0.2:
        event["files"] = [{"id": "F1", "name": HOSTILE, "url_private": "https://evil.example/f"}]
    return events.callback(event, 1.0)


def changed(chance: random.Random, number: int) -> dict[str, Any]:
    now = message(chance, number)["event"]
    before = {**now, "text": "before"}
    if chance.random() < 0.5:
        told = {"subtype": "message_deleted", "deleted_ts": now["ts"], "previous_message": before}
    else:
        told = {"subtype": "message_changed", "message": now, "previous_message": before}
    event = {"type": "message", "channel": HELP, "channel_type": "channel", "ts": now["ts"], **told}
    return events.callback(event, 1.0)


def opened(chance: random.Random, number: int) -> dict[str, Any]:
    kind = chance.choice(["app_home_opened", "reaction_added", "member_joined_channel", "team_join", HOSTILE])
    event = {"type": kind, "user": PRIYA, "channel": "D0PRIYA", "tab": chance.choice(["home", "messages"])}
    return events.callback(event, 1.0)


def click(chance: random.Random, number: int) -> dict[str, Any]:
    ephemeral = chance.random() < 0.3
    value = chance.choice(["up:1", "down:1", "1", "2", "1:2", "[1, []]", '[1, [[2, "x"]]]', HOSTILE])
    action = {"action_id": chance.choice(KNOWN_ACTIONS), "block_id": "b", "type": "button", "value": value}
    body = {
        **person("block_actions"),
        "container": {"type": "message", "message_ts": "1.1", "channel_id": HELP, "is_ephemeral": ephemeral},
        "channel": {"id": HELP, "name": chance.choice(["help", "privategroup", "directmessage"])},
        "message": {"ts": "1.1", "thread_ts": "1.0", "text": HOSTILE, "user": BOT_USER},
        "state": {"values": {}},
        "actions": [action],
    }
    if chance.random() < 0.3:
        del body["message"], body["channel"]
        body["container"] = {"type": "view", "view_id": "V1"}
        body["view"] = view(chance)
    return body


def person(kind: str) -> dict[str, Any]:
    return {
        "type": kind,
        "user": {"id": SAM, "username": "sam", "name": HOSTILE, "team_id": TEAM_ID},
        "team": {"id": TEAM_ID, "domain": "lumen"},
        "api_app_id": "A0NIGHT",
        "trigger_id": "1.2.3",
        "is_enterprise_install": False,
    }


def view(chance: random.Random) -> dict[str, Any]:
    fields = ("question", "answer", "source", "reason", "comment", HOSTILE)
    values = {name: {"value": {"type": "plain_text_input", "value": f"{HOSTILE} {name}"}} for name in fields}
    values["reason"]["value"]["selected_option"] = {"value": "wrong"}  # type: ignore[assignment]
    told = {"answer": 1, "channel": HELP, "thread": "1.0", "scope": "workspace", "value": json.dumps([1, []])}
    return {
        "id": "V1",
        "type": chance.choice(["modal", "home"]),
        "callback_id": chance.choice(KNOWN_VIEWS),
        "private_metadata": json.dumps(told),
        "hash": "1.x",
        "state": {"values": values},
        "blocks": [],
    }


def submission(chance: random.Random, number: int) -> dict[str, Any]:
    return {**person(chance.choice(["view_submission", "view_closed"])), "view": view(chance)}


def command(chance: random.Random, number: int) -> dict[str, Any]:
    return {
        "team_id": TEAM_ID,
        "channel_id": HELP,
        "channel_name": "help",
        "user_id": SAM,
        "user_name": HOSTILE,
        "command": chance.choice(["/ask", "/other"]),
        "text": f"question {number} {HOSTILE}",
        "trigger_id": f"{number}.2.3",
        "api_app_id": "A0NIGHT",
        "is_enterprise_install": "false",
    }


def other(chance: random.Random, number: int) -> dict[str, Any]:
    kind = chance.choice(["shortcut", "message_action", "block_suggestion", "dialog_submission", HOSTILE])
    return {**person(kind), "callback_id": "x", "action_id": "y", "value": HOSTILE}


KINDS = (message, message, changed, opened, click, click, click, submission, submission, command, other)


def damage(chance: random.Random, payload: dict[str, Any]) -> None:
    """Take a key away at some depth, or put junk in its place."""
    node: Any = payload
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], dict | list) and chance.random() < 0.75:
            node = node[key]
            continue
        if chance.random() < 0.3:
            del node[key]
        elif chance.random() < 0.15 and isinstance(node, dict):
            node[chance.choice(["\ud800", "", "x" * 5000, HOSTILE])] = node.pop(key)
        else:
            node[key] = chance.choice(JUNK)
        return


# --- the test ---


class Acks:
    """The other end of the socket, where acknowledgements are only counted."""

    logger = logging.getLogger("acks")

    def __init__(self) -> None:
        self.sent = 0

    async def send_socket_mode_response(self, response: Any) -> None:
        self.sent += 1


def kind_of(payload: dict[str, Any]) -> str:
    """The envelope's type."""
    if "command" in payload:
        return "slash_commands"
    return "interactive" if "trigger_id" in payload or "user" in payload else "events_api"


def test_sound_payloads_pass_the_door_and_broken_ones_do_not() -> None:
    chance = random.Random(SEED)
    for number in range(300):
        payload = chance.choice(KINDS)(chance, number)
        assert door.problem(kind_of(payload), payload) == ""
    click_without = click(chance, 1) | {"actions": []}
    assert door.problem("interactive", click_without) == "actions.0.action_id is missing"
    assert door.problem("interactive", click(chance, 1) | {"user": [SAM]}) == "'user' does not hold what it should"
    assert door.problem("events_api", {"event": {"type": "x", "ts": "\ud800"}}) != ""
    assert door.problem("slash_commands", {"command": "/ask", "user_id": SAM}) == "channel_id is missing"
    assert door.problem("events_api", []) == "the payload is no object"
    form = submission(chance, 1) | {"type": "view_submission"}
    form["view"]["state"] = {"values": {"question": "no object"}}
    assert door.problem("interactive", form) == "the fields of the form are no objects"


@pytest.mark.slow
def test_10000_broken_payloads_leave_the_bot_answering(home_in_memory: Path) -> None:
    from slack_sdk.socket_mode.request import SocketModeRequest

    log, chance = Tracebacks(), random.Random(SEED)

    async def story(here: Office) -> None:
        await here.write(SAM, HELP, f"<@{BOT_USER}> the first question?")
        await here.wait(SAM, HELP, "Twenty-eight")
        logging.getLogger().addHandler(log)
        handler, acks = here.bot._handler, Acks()
        assert handler is not None
        for number, payload in enumerate(payloads(chance, DIRECT)):
            remember(here, payload)
            await handler.handle(acks, SocketModeRequest(kind_of(payload), f"envelope-{number}", payload))
            if number % 50 == 49:
                await here.settle()
        for payload in payloads(chance, OVER_THE_SOCKET):
            await here.ws.socket.send(kind_of(payload), payload)
        await here.settle()
        assert acks.sent == DIRECT
        here.desk.script = [{"text": "Still here."}]
        ts = await here.write(PRIYA, HELP, f"<@{BOT_USER}> and now?")
        answer = await here.wait(PRIYA, HELP, "Still here.")
        await here.settle()
        assert answer["thread_ts"] == ts
        assert [found for call in here.ws.calls for found in raw_markup(call)] == []

    try:
        play(home_in_memory, story, **NO_PACE, patience=300)
    finally:
        logging.getLogger().removeHandler(log)
    assert log.unhandled == []
    told = Counter(text.rstrip().rpartition("\n")[2][:150] for text in log.friendly)
    report(
        "fuzz", f"{DIRECT + OVER_THE_SOCKET} payloads, 0 unhandled, {len(log.friendly)} ended in our sentence: {told}"
    )


def remember(here: Office, payload: dict[str, Any]) -> None:
    """Let the message that an event tells of be there, so that an answer finds its thread."""
    event = payload.get("event")
    if not isinstance(event, dict):
        return
    for place in (event, event.get("message")):
        where = (event.get("channel"), place.get("ts")) if isinstance(place, dict) else ("", "")
        sound = all(isinstance(part, str) for part in where) and re.fullmatch(r"\d+\.\d+", where[1])
        if sound and where[0] in here.ws.state.messages:
            here.ws.state.messages[where[0]].setdefault(where[1], Message(*where, SAM))
