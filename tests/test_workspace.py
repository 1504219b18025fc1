"""The local workspace keeps Slack's rules: over real sockets, against an app that behaves well or badly."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.workspace import elements, rules
from bot.workspace.server import Workspace

JSON = dict[str, Any]


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class App:
    """An app on the other end: calls the Web API, keeps every envelope, acknowledges what `ack` says."""

    def __init__(self, workspace: Workspace, http: aiohttp.ClientSession) -> None:
        self.workspace = workspace
        self.http = http
        self.envelopes: list[JSON] = []
        self.ack: Callable[[JSON], JSON | None] = lambda envelope: {}
        self.socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    async def call(self, method: str, token: str | None = None, **args: Any) -> JSON:
        token = self.workspace.bot_token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        json_body = rules.token_kind(method) is None or rules.takes_json(method)
        form = {key: value if isinstance(value, str) else json.dumps(value) for key, value in args.items()}
        sent: JSON = {"json": args} if json_body else {"data": form}
        async with self.http.post(self.workspace.api_url + method, headers=headers, **sent) as response:
            return dict(await response.json())

    async def person(self, deed: str, **body: Any) -> JSON:
        async with self.http.post(f"{self.workspace.url}workspace/{deed}", json=body) as response:
            return dict(await response.json())

    async def sees(self, user: str) -> JSON:
        params = {"user": user}
        async with self.http.get(f"{self.workspace.url}workspace/state", params=params) as response:
            return dict(await response.json())

    async def connect(self) -> None:
        opened = await self.call("apps.connections.open", token=self.workspace.app_token)
        self.socket = await self.http.ws_connect(opened["url"])
        self._reader = asyncio.create_task(self._read(self.socket))
        await self.until(lambda: bool(self.of("hello")))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            envelope = json.loads(message.data)
            self.envelopes.append(envelope)
            answer = self.ack(envelope) if "envelope_id" in envelope else None
            if answer is not None:
                await socket.send_json({"envelope_id": envelope["envelope_id"], "payload": answer})

    async def close(self) -> None:
        if self.socket is not None:
            await self.socket.close()
        if self._reader is not None:
            with contextlib.suppress(aiohttp.ClientError):
                await self._reader

    def of(self, kind: str) -> list[JSON]:
        return [envelope for envelope in self.envelopes if envelope["type"] == kind]

    def events(self, kind: str) -> list[JSON]:
        return [e["payload"]["event"] for e in self.of("events_api") if e["payload"]["event"]["type"] == kind]

    async def until(self, condition: Callable[[], bool], seconds: float = 3.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def trigger(self) -> str:
        """A fresh trigger_id, from a slash command."""
        await self.person("command", user="U0SAM", channel="C0HELP", command="/ask", text="x")
        return str(self.of("slash_commands")[-1]["payload"]["trigger_id"])


def run(story: Callable[[App], Awaitable[None]], *, connected: bool = True, **options: Any) -> Workspace:
    """Plays the story against a fresh workspace and returns the workspace for a look afterwards."""

    async def play() -> Workspace:
        async with workspace_with_app(connected=connected, **options) as app:
            await story(app)
            return app.workspace

    return asyncio.run(play())


@asynccontextmanager
async def workspace_with_app(*, connected: bool, **options: Any) -> AsyncIterator[App]:
    workspace = Workspace(**options)
    await workspace.start()
    async with aiohttp.ClientSession() as http:
        app = App(workspace, http)
        try:
            if connected:
                await app.connect()
            yield app
        finally:
            await app.close()
            await workspace.stop()


def plain(text: str) -> JSON:
    return {"type": "plain_text", "text": text}


def section(text: str) -> JSON:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def modal(**changes: Any) -> JSON:
    field = {"type": "plain_text_input", "action_id": "text"}
    block = {"type": "input", "block_id": "better", "label": plain("Better"), "element": field}
    return {"type": "modal", "title": plain("Correct"), "submit": plain("Send"), "blocks": [block], **changes}


BUTTON = {"type": "button", "action_id": "go", "text": plain("Go"), "value": "7"}


# ---- the Web API -------------------------------------------------------------------------------------------


@pytest.mark.breaks_slack_rules
def test_token_and_method_errors() -> None:
    async def story(app: App) -> None:
        post = {"channel": "C0HELP", "text": "x"}
        assert (await app.call("chat.postMessage", token="", **post))["error"] == "not_authed"
        assert (await app.call("chat.postMessage", token="xoxb-wrong", **post))["error"] == "invalid_auth"
        wrong_kind = await app.call("chat.postMessage", token=app.workspace.app_token, **post)
        assert wrong_kind["error"] == "not_allowed_token_type"
        assert (await app.call("apps.connections.open"))["error"] == "not_allowed_token_type"
        assert (await app.call("chat.shout"))["error"] == "unknown_method"
        assert (await app.sees("U0SAM"))["messages"]["C0HELP"] == []
        assert (await app.call("auth.test"))["user_id"] == "U0BOT"

    run(story, connected=False)


@pytest.mark.breaks_slack_rules
def test_broken_rules_are_recorded_and_refused() -> None:
    async def story(app: App) -> None:
        assert (await app.call("chat.postMessage", text="x"))["error"] == "invalid_arguments"
        assert (await app.call("chat.postMessage", channel="C0HELP"))["error"] == "no_text"
        assert (await app.call("chat.postMessage", channel="C0HELP", text=["x"]))["error"] == "invalid_arguments"
        assert (await app.call("chat.postMessage", channel="C0HELP", text="x", colour="red"))["ok"]
        long = await app.call("chat.postMessage", channel="C0HELP", text="x", blocks=[section("y" * 3001)])
        assert long["error"] == "invalid_blocks"
        assert "3001 characters, at most 3000" in long["response_metadata"]["messages"][0]

    violations = run(story, connected=False).violations
    assert violations == [
        "chat.postMessage: missing required 'channel'",
        "chat.postMessage: a message without text or blocks",
        "chat.postMessage: 'text' must be string",
        "chat.postMessage: unknown argument 'colour'",
        "chat.postMessage: blocks[0] section text: 3001 characters, at most 3000",
    ]


def test_forms_with_encoded_blocks_are_read_like_json() -> None:
    async def story(app: App) -> None:
        form = {"token": app.workspace.bot_token, "channel": "#help", "blocks": json.dumps([section("hi")])}
        form["unfurl_links"] = "false"
        async with app.http.post(f"{app.workspace.api_url}chat.postMessage", data=form) as response:
            posted = await response.json()
        assert posted["message"]["blocks"][0]["text"]["text"] == "hi"
        assert app.workspace.calls[-1]["args"]["unfurl_links"] is False
        headers = {"Authorization": f"Bearer {app.workspace.bot_token}"}
        query = f"{app.workspace.api_url}users.info?user=U0PRIYA"
        async with app.http.get(query, headers=headers) as response:
            assert (await response.json())["user"]["is_admin"] is True

    assert run(story, connected=False).violations == []


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (
            {"type": "actions", "elements": [{**BUTTON, "text": plain("x" * 76)}]},
            "button text: 76 characters, at most 75",
        ),
        ({"type": "actions", "elements": [{**BUTTON, "colour": "red"}]}, "button does not know 'colour'"),
        ({"type": "actions", "elements": [BUTTON, BUTTON]}, "two elements share an action_id"),
        ({"type": "header", "text": {"type": "mrkdwn", "text": "x"}}, "header text must be plain_text"),
        ({"type": "context", "elements": [section("x")]}, "context cannot hold 'section'"),
        ({"type": "section"}, "section needs text or fields"),
        ({"type": "carousel"}, "has the unknown type 'carousel'"),
        ({"type": "actions", "elements": "many"}, "elements must be array"),
        ({"type": "section", "text": "bare"}, "text must be object"),
        ({"type": "context", "elements": ["bare"]}, "elements must hold objects"),
        ("text", "is not an object"),
    ],
)
def test_block_kit_limits(block: Any, problem: str) -> None:
    assert f"blocks[0] {problem}" in rules.block_problems([block], "message")


def test_messages_and_views_have_their_own_limits() -> None:
    assert rules.block_problems([{"type": "divider"}] * 51, "message") == ["51 blocks, at most 50"]
    assert rules.block_problems([{"type": "divider"}] * 51, "modal") == []
    feedback = {"type": "context_actions", "elements": [{"type": "feedback_buttons", "action_id": "a"}]}
    assert "blocks[0] context_actions is not allowed in a modal" in rules.block_problems([feedback], "modal")
    assert rules.view_problems(modal()) == []
    assert rules.view_problems(modal(title=plain("x" * 25))) == ["view title: 25 characters, at most 24"]
    assert rules.view_problems(modal(submit=None)) == ["a modal with an input block needs a submit button"]
    assert any("bytes" in p for p in rules.view_problems(modal(blocks=[section("é" * 3000)] * 50)))


def test_faults_are_answered_once() -> None:
    async def story(app: App) -> None:
        app.workspace.inject("chat.postMessage", 429, {"Retry-After": "1"}, {"ok": False, "error": "ratelimited"})
        url, token = f"{app.workspace.api_url}chat.postMessage", app.workspace.bot_token
        args, headers = {"channel": "C0HELP", "text": "x"}, {"Authorization": f"Bearer {token}"}
        async with app.http.post(url, json=args, headers=headers) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert (await app.call("chat.postMessage", **args))["ok"]
        assert len((await app.sees("U0SAM"))["messages"]["C0HELP"]) == 1

    run(story, connected=False)


def test_rate_limits_answer_429_until_the_minute_is_over() -> None:
    clock = Clock()

    async def story(app: App) -> None:
        url = f"{app.workspace.api_url}chat.startStream"
        args = {"channel": "D0SAM", "markdown_text": "x"}
        headers = {"Authorization": f"Bearer {app.workspace.bot_token}"}
        for _ in range(20):
            assert (await app.call("chat.startStream", **args))["ok"]
        clock.now += 48.5
        async with app.http.post(url, json=args, headers=headers) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "12")
        clock.now += 12
        assert (await app.call("chat.startStream", **args))["ok"]

    run(story, connected=False, clock=clock, rate_limits=True)


@pytest.mark.breaks_slack_rules
def test_streams_grow_end_and_expire() -> None:
    clock = Clock()

    async def story(app: App) -> None:
        asked = (await app.person("message", user="U0SAM", channel="C0HELP", text="hello"))["ts"]
        start = {"channel": "C0HELP", "thread_ts": asked}
        assert (await app.call("chat.startStream", **start))["error"] == "missing_recipient_user_id"
        start |= {"recipient_user_id": "U0SAM", "recipient_team_id": "T0LUMEN", "markdown_text": "**a**"}
        place = {"channel": "C0HELP", "ts": (await app.call("chat.startStream", **start))["ts"]}
        assert (await app.call("chat.update", **place, text="x"))["error"] == "streaming_state_conflict"
        await app.call("chat.appendStream", **place, markdown_text=" b")
        stopped = await app.call("chat.stopStream", **place, chunks=[{"type": "markdown_text", "text": " c"}])
        assert stopped["message"]["text"] == "**a** b c"
        again = await app.call("chat.appendStream", **place, markdown_text="d")
        assert again["error"] == "message_not_in_streaming_state"
        late = {"channel": "C0HELP", "ts": (await app.call("chat.startStream", **start))["ts"]}
        clock.now += 301
        assert (await app.call("chat.stopStream", **late))["error"] == "message_not_in_streaming_state"
        assert (await app.call("chat.update", **late, text="the whole answer"))["ok"]

    run(story, connected=False, clock=clock)


@pytest.mark.breaks_slack_rules
def test_an_update_with_text_alone_takes_the_blocks_away() -> None:
    async def story(app: App) -> None:
        ts = (await app.call("chat.postMessage", channel="C0HELP", text="a", blocks=[section("a")]))["ts"]
        changed = await app.call("chat.update", channel="C0HELP", ts=ts, text="b")
        assert "blocks" not in changed["message"]
        too_long = await app.call("chat.update", channel="C0HELP", ts=ts, text="b" * 4001)
        assert too_long["error"] == "msg_too_long"
        theirs = (await app.person("message", user="U0SAM", channel="C0HELP", text="mine"))["ts"]
        refused = await app.call("chat.update", channel="C0HELP", ts=theirs, text="b")
        assert refused["error"] == "cant_update_message"

    run(story, connected=False)


def test_an_uploaded_picture_is_shared_and_served(tmp_path: Path) -> None:
    async def story(app: App) -> None:
        asked = {"token": app.workspace.bot_token, "filename": "chart.png", "length": "4"}
        async with app.http.post(f"{app.workspace.api_url}files.getUploadURLExternal", data=asked) as response:
            place = await response.json()
        async with app.http.post(place["upload_url"], data=b"\x89PNG") as response:
            assert response.status == 200
        files = [{"id": place["file_id"], "title": "Recall"}]
        await app.call("files.completeUploadExternal", files=files, channel_id="C0REVIEW", initial_comment="Report")
        message = (await app.sees("U0PRIYA"))["messages"]["C0REVIEW"][0]
        assert (message["text"], message["files"][0]["title"]) == ("Report", "Recall")
        async with app.http.get(message["files"][0]["url_private"]) as response:
            assert (await response.read(), response.content_type) == (b"\x89PNG", "image/png")

    assert run(story, connected=False).violations == []


# ---- events over the socket --------------------------------------------------------------------------------


def test_a_mention_arrives_as_message_and_as_app_mention_with_one_ts() -> None:
    async def story(app: App) -> None:
        sent = await app.person("message", user="U0SAM", channel="C0HELP", text="@Nightshift <b> & #help?")
        await app.until(lambda: bool(app.events("app_mention") and app.events("message")))
        mention, message = app.events("app_mention")[0], app.events("message")[0]
        assert mention["ts"] == message["ts"] == sent["ts"]
        assert mention["text"] == "<@U0BOT> &lt;b&gt; &amp; <#C0HELP|help>?"
        assert message["channel_type"] == "channel"
        assert "channel_type" not in mention
        ids = [envelope["payload"]["event_id"] for envelope in app.of("events_api")]
        assert len(set(ids)) == len(ids) == 2
        body = app.of("events_api")[0]["payload"]
        assert body["authorizations"][0]["user_id"] == "U0BOT"

    run(story)


def test_a_direct_message_thread_edit_and_deletion() -> None:
    async def story(app: App) -> None:
        ts = (await app.person("message", user="U0SAM", channel="D0SAM", text="hi"))["ts"]
        reply = await app.person("message", user="U0SAM", channel="D0SAM", text="more", thread_ts=ts)
        await app.person("edit", user="U0SAM", channel="D0SAM", ts=reply["ts"], text="more!")
        await app.person("delete", user="U0SAM", channel="D0SAM", ts=reply["ts"])
        await app.person("delete", user="U0SAM", channel="D0SAM", ts=ts)
        await app.until(lambda: len(app.events("message")) == 5)
        by_kind = {event.get("subtype", event["ts"]): event for event in app.events("message")}
        assert by_kind[ts]["channel_type"] == "im"
        assert (by_kind[reply["ts"]]["thread_ts"], by_kind[reply["ts"]]["parent_user_id"]) == (ts, "U0SAM")
        changed = by_kind["message_changed"]
        assert (changed["previous_message"]["text"], changed["message"]["text"]) == ("more", "more!")
        assert {e["deleted_ts"] for e in app.events("message") if "deleted_ts" in e} == {ts, reply["ts"]}
        assert app.events("app_mention") == []

    run(story)


def test_a_late_acknowledgement_brings_a_redelivery() -> None:
    async def story(app: App) -> None:
        app.ack = lambda envelope: {} if envelope.get("retry_attempt", 0) >= 2 else None
        await app.person("message", user="U0SAM", channel="D0SAM", text="hi")
        await app.until(lambda: len(app.of("events_api")) == 3)
        await asyncio.sleep(0.15)
        sent = app.of("events_api")
        assert [(e["retry_attempt"], e["retry_reason"]) for e in sent] == [
            (0, ""),
            (1, "timeout"),
            (2, "timeout"),
        ]
        assert len({e["payload"]["event_id"] for e in sent}) == 1
        assert len({e["envelope_id"] for e in sent}) == 3

    run(story, ack_seconds=0.05, retry_gaps=(0.0, 0.0, 0.0))


def test_after_a_drop_nothing_is_lost() -> None:
    async def story(app: App) -> None:
        app.ack = lambda envelope: None
        await app.person("message", user="U0SAM", channel="D0SAM", text="before")
        await app.until(lambda: len(app.of("events_api")) == 1)
        assert app.workspace.drop_sockets() == 1
        await app.close()
        await app.person("message", user="U0SAM", channel="D0SAM", text="between")
        app.ack = lambda envelope: {}
        app.envelopes.clear()
        await app.connect()
        await app.until(lambda: {e["text"] for e in app.events("message")} == {"before", "between"})
        again = next(e for e in app.of("events_api") if e["payload"]["event"]["text"] == "before")
        assert (again["retry_attempt"], again["retry_reason"]) == (1, "connection_failed")

    run(story, retry_gaps=(0.0, 0.0, 0.0))


def test_a_ticket_opens_one_connection_and_a_refresh_moves_to_the_next() -> None:
    async def story(app: App) -> None:
        opened = await app.call("apps.connections.open", token=app.workspace.app_token)
        second = await app.http.ws_connect(opened["url"])
        assert (await second.receive_json())["num_connections"] == 2
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await app.http.ws_connect(opened["url"])
        await second.close()
        await app.until(lambda: len(app.workspace.socket.connections) == 1)
        app.workspace.refresh()
        await app.until(lambda: bool(app.of("disconnect")))
        assert app.of("disconnect")[0]["reason"] == "refresh_requested"
        await app.person("message", user="U0SAM", channel="D0SAM", text="waits for the new connection")
        await asyncio.sleep(0.05)
        assert app.of("events_api") == []
        old = app.socket
        await app.connect()
        await app.until(lambda: len(app.events("message")) == 1)
        assert old is not None
        await old.close()

    run(story)


# ---- interaction -------------------------------------------------------------------------------------------


def test_a_click_carries_message_state_trigger_and_response_url() -> None:
    async def story(app: App) -> None:
        feedback = {
            "type": "feedback_buttons",
            "action_id": "vote",
            "positive_button": {"text": plain("Good"), "value": "up:1"},
            "negative_button": {"text": plain("Bad"), "value": "down:1"},
        }
        more = {
            "type": "overflow",
            "action_id": "more",
            "options": [{"text": plain("Version"), "value": "v"}],
        }
        blocks = [
            {"type": "actions", "block_id": "b1", "elements": [BUTTON, more]},
            {"type": "context_actions", "block_id": "b2", "elements": [feedback]},
        ]
        ts = (await app.call("chat.postMessage", channel="C0HELP", text="answer", blocks=blocks))["ts"]
        place = {"user": "U0SAM", "channel": "C0HELP", "ts": ts}
        for action_id, value in (("go", None), ("more", "v"), ("vote", "negative")):
            assert (await app.person("click", **place, action_id=action_id, value=value))["ok"]
        assert (await app.person("click", **place, action_id="nothing"))["error"] == "action_not_found"
        go, more_click, vote = (envelope["payload"] for envelope in app.of("interactive"))
        assert (go["actions"][0]["value"], go["container"]["message_ts"], go["message"]["ts"]) == (
            "7",
            ts,
            ts,
        )
        assert more_click["actions"][0]["selected_option"]["value"] == "v"
        assert (vote["actions"][0]["type"], vote["actions"][0]["value"]) == ("feedback_buttons", "down:1")
        assert (await app.sees("U0SAM"))["messages"]["C0HELP"][0]["pressed"] == {"vote": "down:1"}
        assert (await app.sees("U0PRIYA"))["messages"]["C0HELP"][0]["pressed"] == {}
        body = {"replace_original": True, "text": "replaced"}
        async with app.http.post(go["response_url"], json=body) as response:
            assert await response.text() == "ok"
        assert (await app.sees("U0SAM"))["messages"]["C0HELP"][0]["text"] == "replaced"

    assert run(story).violations == []


def test_a_click_that_nobody_acknowledges_is_reported() -> None:
    async def story(app: App) -> None:
        blocks = [{"type": "actions", "elements": [BUTTON]}]
        ts = (await app.call("chat.postMessage", channel="C0HELP", text="x", blocks=blocks))["ts"]
        app.ack = lambda envelope: None
        click = {"user": "U0SAM", "channel": "C0HELP", "ts": ts, "action_id": "go"}
        assert (await app.person("click", **click))["error"] == "operation_timeout"
        assert len(app.of("interactive")) == 1
        assert (await app.person("command", user="U0SAM", channel="C0HELP", command="/ask"))["ok"] is False
        last = (await app.sees("U0SAM"))["messages"]["C0HELP"][-1]
        assert (last["ephemeral"], "operation_timeout" in last["text"]) == (True, True)

    run(story, ack_seconds=0.05)


def test_a_trigger_opens_one_modal_within_three_seconds() -> None:
    clock = Clock()

    async def story(app: App) -> None:
        trigger = await app.trigger()
        assert (await app.call("views.open", trigger_id="1.2.3", view=modal()))["error"] == "invalid_trigger_id"
        assert (await app.call("views.open", trigger_id=trigger, view=modal()))["ok"]
        used = await app.call("views.open", trigger_id=trigger, view=modal())
        assert used["error"] == "exchanged_trigger_id"
        trigger = await app.trigger()
        clock.now += 3.1
        late = await app.call("views.open", trigger_id=trigger, view=modal())
        assert late["error"] == "expired_trigger_id"

    run(story, clock=clock)


def test_a_home_update_from_an_older_view_is_refused() -> None:
    async def story(app: App) -> None:
        home = {"type": "home", "blocks": [section("one")]}
        first = (await app.call("views.publish", user_id="U0PRIYA", view=home))["view"]["hash"]
        second = await app.call("views.publish", user_id="U0PRIYA", view=home, hash=first)
        assert second["ok"]
        stale = await app.call("views.publish", user_id="U0PRIYA", view=home, hash=first)
        assert stale["error"] == "hash_conflict"
        view_id = second["view"]["id"]
        stale = await app.call("views.update", view_id=view_id, view=home, hash=first)
        assert stale["error"] == "hash_conflict"
        assert (await app.sees("U0SAM"))["home"] is None
        await app.person("open_home", user="U0PRIYA", tab="home")
        await app.until(lambda: bool(app.events("app_home_opened")))
        assert app.events("app_home_opened")[0]["view"]["id"] == view_id

    run(story)


def test_modal_errors_come_back_and_a_good_answer_closes_it() -> None:
    def judge(envelope: JSON) -> JSON | None:
        payload = envelope["payload"]
        if payload.get("type") != "view_submission":
            return {}
        value = payload["view"]["state"]["values"]["better"]["text"]["value"]
        if value == "update":
            return {"response_action": "update", "view": modal(title=plain("Again"))}
        return {"response_action": "errors", "errors": {"better": "Too short."}} if len(value) < 5 else {}

    async def story(app: App) -> None:
        app.ack = judge
        await app.call("views.open", trigger_id=await app.trigger(), view=modal())
        view_id = (await app.sees("U0SAM"))["modal"]["id"]

        async def submit(text: str, user: str = "U0SAM") -> JSON:
            return await app.person("submit", user=user, view_id=view_id, values={"better": {"text": text}})

        assert (await submit(""))["errors"] == {"better": elements.REQUIRED}
        assert app.of("interactive") == []
        assert await submit("no") == {"ok": False, "errors": {"better": "Too short."}}
        assert (await submit("whole sentence", user="U0PRIYA"))["error"] == "not_found"
        assert (await submit("update"))["ok"]
        assert (await app.sees("U0SAM"))["modal"]["title"]["text"] == "Again"
        assert (await submit("a whole sentence"))["ok"]
        assert (await app.sees("U0SAM"))["modal"] is None

    assert run(story).violations == []


def test_modals_stack_and_closing_is_told_when_asked_for() -> None:
    async def story(app: App) -> None:
        await app.call("views.open", trigger_id=await app.trigger(), view=modal())
        asks = modal(notify_on_close=True, callback_id="second")
        pushed = await app.call("views.push", trigger_id=await app.trigger(), view=asks)
        top = (await app.sees("U0SAM"))["modal"]
        assert (top["id"], top["depth"], top["previous_view_id"]) == (
            pushed["view"]["id"],
            2,
            top["root_view_id"],
        )
        await app.person("close_view", user="U0SAM", view_id=top["id"])
        closed = app.of("interactive")[-1]["payload"]
        assert (closed["type"], closed["view"]["callback_id"]) == ("view_closed", "second")
        assert (await app.sees("U0SAM"))["modal"]["id"] == top["previous_view_id"]

    run(story)


# ---- who sees what, and who may drive it -------------------------------------------------------------------


def test_ephemeral_messages_and_private_channels_are_seen_by_their_people_only() -> None:
    async def story(app: App) -> None:
        await app.call("chat.postEphemeral", channel="C0HELP", user="U0SAM", text="psst")
        refused = await app.call("chat.postEphemeral", channel="C0REVIEW", user="U0SAM", text="psst")
        assert refused["error"] == "user_not_in_channel"
        assert [m["text"] for m in (await app.sees("U0SAM"))["messages"]["C0HELP"]] == ["psst"]
        assert (await app.sees("U0PRIYA"))["messages"]["C0HELP"] == []
        assert "C0REVIEW" not in (await app.sees("U0SAM"))["messages"]
        intruder = await app.person("message", user="U0SAM", channel="C0REVIEW", text="hi")
        assert intruder["error"] == "channel_not_found"
        app.ack = lambda envelope: {"text": "working on it"}
        await app.person("command", user="U0PRIYA", channel="C0HELP", command="/ask", text="x")
        last = (await app.sees("U0PRIYA"))["messages"]["C0HELP"][-1]
        assert (last["text"], last["ephemeral"]) == ("working on it", True)

    run(story)


def test_a_private_word_in_a_thread_that_nobody_answered_is_seen_by_nobody() -> None:
    async def story(app: App) -> None:
        root = (await app.call("chat.postMessage", channel="C0HELP", text="hello"))["ts"]
        where = {"channel": "C0HELP", "user": "U0SAM", "thread_ts": root}
        assert (await app.call("chat.postEphemeral", **where, text="too early"))["ok"]
        await app.person("message", user="U0PRIYA", channel="C0HELP", text="hi", thread_ts=root)
        assert (await app.call("chat.postEphemeral", **where, text="psst"))["ok"]
        seen = [m["text"] for m in (await app.sees("U0SAM"))["messages"]["C0HELP"]]
        assert seen == ["hello", "hi", "psst"]

    run(story)


def test_a_strangers_page_cannot_drive_the_workspace() -> None:
    async def story(app: App) -> None:
        url = f"{app.workspace.url}workspace/message"
        body = {"user": "U0SAM", "channel": "C0HELP", "text": "hi"}
        own = {"Origin": app.workspace.url.rstrip("/")}
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
            async with app.http.post(url, json=body, headers=headers) as response:
                assert response.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await app.http.ws_connect(f"{app.workspace.url}workspace/live", origin="https://evil.example")
        async with app.http.post(url, data=json.dumps(body), headers={**own, "Content-Type": "text/plain"}) as response:
            assert response.status == 415
        assert (await app.sees("U0SAM"))["messages"]["C0HELP"] == []
        async with app.http.post(url, json=body, headers=own) as response:
            assert response.status == 200

    run(story, connected=False)


def test_the_page_is_served_under_a_strict_policy() -> None:
    async def story(app: App) -> None:
        async with app.http.get(app.workspace.url) as response:
            policy, html = response.headers["Content-Security-Policy"], await response.text()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert '<script type="module" src="/page/app.js"></script>' in html
        for name in ("app.js", "blocks.js", "mrkdwn.js", "style.css", "moon.svg"):
            async with app.http.get(f"{app.workspace.url}page/{name}") as response:
                text = await response.text()
                assert response.status == 200
                assert "innerHTML" not in text
        async with app.http.get(f"{app.workspace.url}page/..%2Fserver.py") as response:
            assert response.status == 404

    run(story, connected=False)


def test_a_live_page_hears_of_changes() -> None:
    async def story(app: App) -> None:
        page = await app.http.ws_connect(f"{app.workspace.url}workspace/live?user=U0PRIYA")
        assert (await page.receive_json())["messages"]["C0HELP"] == []
        await app.person("message", user="U0SAM", channel="C0HELP", text="hello")
        assert (await page.receive_json())["messages"]["C0HELP"][0]["text"] == "hello"
        await page.close()

    run(story, connected=False)


def test_the_night_is_shown_line_by_line_and_runs_once_at_a_time() -> None:
    go_on = asyncio.Event()

    async def night() -> AsyncIterator[str]:
        yield "snapshot"
        await go_on.wait()
        yield "promoted"

    async def story(app: App) -> None:
        assert (await app.person("night"))["ok"]
        assert (await app.person("night"))["error"] == "night_already_running"
        assert (await app.sees("U0SAM"))["night"] == {
            "available": True,
            "state": "running",
            "lines": ["snapshot"],
        }
        go_on.set()
        await app.until(lambda: app.workspace.state.night.state == "done")
        assert app.workspace.state.night.lines == ["snapshot", "promoted"]

    run(story, connected=False, night=night)


def test_without_a_night_there_is_no_button() -> None:
    async def story(app: App) -> None:
        assert (await app.sees("U0SAM"))["night"]["available"] is False
        assert (await app.person("night"))["error"] == "night_not_available"

    run(story, connected=False)


# ---- with Bolt ---------------------------------------------------------------------------------------------


def test_a_bolt_app_answers_and_comes_back_after_a_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
    from slack_bolt.async_app import AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def story(app: App) -> None:
        workspace = app.workspace
        bolt = AsyncApp(client=AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url))

        @bolt.event("message")
        async def answer(event: JSON, say: Callable[..., Awaitable[Any]]) -> None:
            if event["text"] == "ping":
                await say(text="pong", thread_ts=event["ts"])

        handler = AsyncSocketModeHandler(bolt, workspace.app_token, ping_interval=0.2)
        await handler.connect_async()  # type: ignore[no-untyped-call]
        ping = {"user": "U0SAM", "channel": "D0SAM", "text": "ping"}
        try:
            posted = workspace.state.messages["D0SAM"]
            for expected in (2, 4):
                asked = (await app.person("message", **ping))["ts"]
                await app.until(partial(_has, posted, expected))
                assert [m.text for m in workspace.state.replies("D0SAM", asked)] == ["pong"]
                workspace.drop_sockets()
        finally:
            await handler.close_async()  # type: ignore[no-untyped-call]

    assert run(story, connected=False).violations == []


def _has(messages: Mapping[str, Any], count: int) -> bool:
    return len(messages) == count
