"""Everything that can go wrong in Slack can be made to go wrong in the local workspace, and who may be in it."""

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from test_workspace import BUTTON, App, Clock, modal, run, section

SCHEMAS = Path(__file__).parent.parent.parent / "shared" / "data" / "slack" / "methods"
POST = {"channel": "C0HELP", "text": "x"}


# ---- faults ------------------------------------------------------------------------------------------------


def test_a_fault_can_last_for_some_calls_and_a_call_can_be_slow() -> None:
    async def story(app: App) -> None:
        broken = {"ok": False, "error": "internal_error"}
        await app.person("faults", method="chat.postMessage", status=500, body=broken, times=2)
        assert [(await app.call("chat.postMessage", **POST))["ok"] for _ in range(3)] == [False, False, True]
        await app.person("faults", method="chat.postMessage", seconds=0.2)
        start = time.monotonic()
        assert (await app.call("chat.postMessage", **POST))["ok"]
        assert time.monotonic() - start >= 0.2
        assert (await app.person("faults", status=500))["error"] == "invalid_arguments"

    run(story, connected=False)


def test_rate_limits_can_be_switched_on_and_off() -> None:
    async def story(app: App) -> None:
        await app.person("limits", minute=30)
        answers = [(await app.call("conversations.info", channel="C0HELP")) for _ in range(51)]
        assert [answer.get("error") for answer in answers] == [None] * 50 + ["ratelimited"]
        await app.person("limits", on=False)
        assert (await app.call("conversations.info", channel="C0HELP"))["ok"]

    run(story, connected=False)


def test_lost_acknowledgements_bring_retries_and_fail_clicks() -> None:
    async def story(app: App) -> None:
        await app.person("acks", count=2)
        await app.person("message", user="U0SAM", channel="D0SAM", text="hi")
        await app.until(lambda: len(app.of("events_api")) == 3)
        assert [e["retry_attempt"] for e in app.of("events_api")] == [0, 1, 2]
        blocks = [{"type": "actions", "elements": [BUTTON]}]
        ts = (await app.call("chat.postMessage", channel="C0HELP", text="x", blocks=blocks))["ts"]
        await app.until(lambda: len(app.of("events_api")) == 4)
        await asyncio.sleep(0.05)
        await app.person("acks", count=1)
        click = {"user": "U0SAM", "channel": "C0HELP", "ts": ts, "action_id": "go"}
        assert (await app.person("click", **click))["error"] == "operation_timeout"

    run(story, ack_seconds=0.05, retry_gaps=(0.0, 0.0, 0.0))


def test_the_gaps_between_redeliveries_are_kept() -> None:
    async def story(app: App) -> None:
        times: list[float] = []
        app.ack = lambda envelope: times.append(time.monotonic())  # type: ignore[func-returns-value]
        await app.person("message", user="U0SAM", channel="D0SAM", text="hi")
        await app.until(lambda: len(app.of("events_api")) == 4)
        waits = [later - sooner for sooner, later in pairwise(times)]
        assert waits == [pytest.approx(wanted, abs=0.15) for wanted in (0.1, 0.3, 0.6)]

    run(story, ack_seconds=0.1, retry_gaps=(0.0, 0.2, 0.5))


def test_an_acknowledged_event_can_come_again_and_any_object_can_be_an_event() -> None:
    async def story(app: App) -> None:
        await app.person("message", user="U0SAM", channel="D0SAM", text="hi")
        await app.until(lambda: len(app.of("events_api")) == 1)
        assert (await app.person("redeliver", count=5))["redelivered"] == 1
        await app.until(lambda: len(app.of("events_api")) == 2)
        first, again = app.of("events_api")
        assert first["payload"]["event_id"] == again["payload"]["event_id"]
        assert (again["retry_attempt"], again["retry_reason"]) == (1, "timeout")
        await app.person("event", event={"type": "tokens_revoked", "odd": [None]})
        await app.until(lambda: bool(app.events("tokens_revoked")))

    run(story)


def test_everything_that_expires_can_be_let_expire() -> None:
    clock = Clock()

    async def story(app: App) -> None:
        stream = await app.call("chat.startStream", channel="D0SAM", markdown_text="a")
        await app.person("expire", what="streams")
        late = await app.call("chat.appendStream", channel="D0SAM", ts=stream["ts"], markdown_text="b")
        assert late["error"] == "message_not_in_streaming_state"
        trigger = await app.trigger()
        await app.person("expire", what="triggers")
        assert (await app.call("views.open", trigger_id=trigger, view=modal()))["error"] == "expired_trigger_id"
        hook = app.of("slash_commands")[-1]["payload"]["response_url"]
        await app.person("expire", what="hooks")
        async with app.http.post(hook, json={"text": "late"}) as answer:
            assert (await answer.json())["error"] == "expired_url"
        home = {"type": "home", "blocks": [section("one")]}
        seen = (await app.call("views.publish", user_id="U0SAM", view=home))["view"]["hash"]
        await app.person("expire", what="views")
        stale = await app.call("views.publish", user_id="U0SAM", view=home, hash=seen)
        assert stale["error"] == "hash_conflict"
        assert (await app.person("expire", what="people"))["error"] == "invalid_arguments"

    run(story, clock=clock)


@pytest.mark.breaks_slack_rules
@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the published schemas are not here")
def test_refusals_use_the_codes_that_slack_documents() -> None:
    mistakes = {
        "chat.postMessage": [
            {"channel": "C0GONE", "text": "x"},
            {"channel": "C0HELP"},
            {**POST, "blocks": [{"type": "x"}]},
        ],
        "chat.update": [{**POST, "ts": "1.1"}, {**POST, "channel": "C0GONE", "ts": "1.1"}],
        "chat.delete": [{"channel": "C0HELP", "ts": "1.1"}],
        "chat.appendStream": [{"channel": "C0HELP", "ts": "1.1", "markdown_text": "x"}],
        "chat.postEphemeral": [{**POST, "user": "U0GONE"}],
        "conversations.info": [{"channel": "C0GONE"}],
        "conversations.open": [{"users": "U0GONE"}],
        "users.info": [{"user": "U0GONE"}],
        "users.lookupByEmail": [{"email": "nobody@nowhere.example"}],
        "reactions.add": [{"channel": "C0HELP", "timestamp": "1.1", "name": "eyes"}],
        "views.open": [{"trigger_id": "1.1", "view": modal()}],
        "views.update": [{"view_id": "V0", "view": modal()}],
        "usergroups.users.list": [{"usergroup": "S0GONE"}],
    }

    async def story(app: App) -> None:
        for method, calls in mistakes.items():
            known = json.loads((SCHEMAS / f"{method}.json").read_text(encoding="utf-8"))["errors"]
            for args in calls:
                answer = await app.call(method, **args)
                assert not answer["ok"], (method, args)
                assert answer["error"] in {*known, "invalid_arguments", "invalid_trigger_id"}, (method, answer["error"])

    run(story, connected=False)


# ---- who is here -------------------------------------------------------------------------------------------


def test_guests_and_people_of_other_organisations_are_told_apart() -> None:
    async def story(app: App) -> None:
        await app.person("person", id="U0GUS", name="Gus Guest", guest=True, channels=["C0HELP"])
        await app.person("person", id="U0ONE", name="One Channel", single_channel=True, channels=["C0HELP"])
        await app.person("person", id="U0EVE", name="Eve Elsewhere", team="T0OTHER", channels=["C0HELP"])
        gus, one, eve = [(await app.call("users.info", user=user))["user"] for user in ("U0GUS", "U0ONE", "U0EVE")]
        assert (gus["is_restricted"], gus["is_ultra_restricted"]) == (True, False)
        assert (one["is_restricted"], one["is_ultra_restricted"]) == (True, True)
        assert (eve["team_id"], eve["is_restricted"], eve["is_stranger"]) == ("T0OTHER", False, False)
        channel = (await app.call("conversations.info", channel="C0HELP"))["channel"]
        assert (channel["is_ext_shared"], channel["num_members"]) == (True, 6)
        await app.person("message", user="U0EVE", channel="C0HELP", text="hello")
        await app.until(lambda: bool(app.events("message")))
        assert app.events("message")[0]["user_team"] == "T0OTHER"
        assert app.of("events_api")[0]["payload"]["is_ext_shared_channel"] is True
        await app.person("message", user="U0GUS", channel="D0GUS", text="hello")
        await app.until(lambda: len(app.events("message")) == 2)
        assert app.of("events_api")[1]["payload"]["is_ext_shared_channel"] is False
        assert (await app.person("person", id="nobody", name="x"))["error"] == "invalid_arguments"

    run(story)


def test_user_groups_and_group_messages_can_be_made() -> None:
    async def story(app: App) -> None:
        assert (await app.call("usergroups.users.list", usergroup="S0ADMINS"))["users"] == ["U0PRIYA"]
        await app.person("usergroup", id="S0FACTS", handle="fact-keepers", users=["U0SAM"])
        listed = (await app.call("usergroups.list"))["usergroups"]
        assert [(group["id"], group["handle"]) for group in listed][1] == ("S0FACTS", "fact-keepers")
        assert (await app.call("usergroups.users.list", usergroup="S0FACTS"))["users"] == ["U0SAM"]
        group = (await app.person("group", user="U0SAM", users=["U0PRIYA"]))["channel"]
        await app.person("message", user="U0PRIYA", channel=group, text="@Nightshift hello")
        await app.until(lambda: bool(app.events("message")))
        event = app.events("message")[0]
        assert (event["channel_type"], event["channel"]) == ("mpim", group)
        same = await app.call("conversations.open", users="U0SAM,U0PRIYA")
        assert (same["channel"]["id"], same["channel"]["is_mpim"]) == (group, True)
        assert (await app.person("group", user="U0SAM", users=["U0GONE"]))["error"] == "user_not_found"

    run(story)


def test_a_picture_is_told_from_a_download() -> None:
    async def story(app: App) -> None:
        kinds = {}
        for name in ("chart.png", "page.html"):
            asked = await app.call("files.getUploadURLExternal", filename=name, length=3)
            async with app.http.post(asked["upload_url"], data=b"abc") as answer:
                assert answer.status == 200
            files = [{"id": asked["file_id"], "title": name}]
            shared = await app.call("files.completeUploadExternal", files=files, channel_id="C0HELP")
            async with app.http.get(shared["files"][0]["url_private"]) as answer:
                kinds[name] = (
                    shared["files"][0]["mimetype"],
                    answer.content_type,
                    "Content-Disposition" in answer.headers,
                )
        assert kinds["chart.png"] == ("image/png", "image/png", False)
        assert kinds["page.html"] == ("application/octet-stream", "application/octet-stream", True)
        assert len((await app.sees("U0SAM"))["messages"]["C0HELP"]) == 2

    run(story, connected=False)
