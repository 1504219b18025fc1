"""The payloads an app receives, in the shape Slack gives them.

Pure builders over the workspace's nouns; knows nothing of sockets and sends nothing.
"""

import secrets
from typing import Any

from bot.workspace.nouns import APP_ID, BOT_USER, TEAM_DOMAIN, TEAM_ID, Channel, Message, Person, View

JSON = dict[str, Any]

_VERIFICATION = "local-workspace"
_PRIVATE_NAMES = {"im": "directmessage", "group": "privategroup"}


def callback(event: JSON, now: float, *, shared: bool = False) -> JSON:
    """The event_callback body around an event, with an event_id of its own; `shared` with another organisation."""
    return {
        "token": _VERIFICATION,
        "team_id": TEAM_ID,
        "context_team_id": TEAM_ID,
        "context_enterprise_id": None,
        "api_app_id": APP_ID,
        "event": event,
        "type": "event_callback",
        "event_id": "Ev0" + secrets.token_hex(5).upper(),
        "event_time": int(now),
        "authorizations": [
            {
                "enterprise_id": None,
                "team_id": TEAM_ID,
                "user_id": BOT_USER,
                "is_bot": True,
                "is_enterprise_install": False,
            }
        ],
        "is_ext_shared_channel": shared,
        "event_context": "4-" + secrets.token_urlsafe(24),
    }


def message(channel: Channel, posted: Message, parent: Message | None) -> JSON:
    """A `message` event for a new message, in a thread when `parent` is given."""
    event = {**posted.to_api(), "channel": channel.id, "event_ts": posted.ts, "channel_type": channel.kind}
    if parent is None:
        event.pop("thread_ts", None)
    else:
        event["parent_user_id"] = parent.user
    if "blocks" not in event:
        event["blocks"] = [rich_text(posted.text)]
    return event


def mention(message_event: JSON) -> JSON:
    """The `app_mention` that Slack sends beside the `message` event, with the same ts."""
    dropped = ("channel_type", "parent_user_id")
    return {**{k: v for k, v in message_event.items() if k not in dropped}, "type": "app_mention"}


def message_changed(channel: Channel, now: JSON, before: JSON, ts: str) -> JSON:
    """A `message_changed` event; `now` and `before` are message objects."""
    return {
        "type": "message",
        "subtype": "message_changed",
        "hidden": True,
        "message": now,
        "previous_message": before,
        "channel": channel.id,
        "ts": ts,
        "event_ts": ts,
        "channel_type": channel.kind,
    }


def message_deleted(channel: Channel, before: JSON, ts: str) -> JSON:
    """A `message_deleted` event."""
    return {
        "type": "message",
        "subtype": "message_deleted",
        "hidden": True,
        "deleted_ts": before["ts"],
        "previous_message": before,
        "channel": channel.id,
        "ts": ts,
        "event_ts": ts,
        "channel_type": channel.kind,
    }


def home_opened(user: str, channel: str, tab: str, view: View | None, ts: str) -> JSON:
    """An `app_home_opened` event; the view is there once one was published."""
    event: JSON = {"type": "app_home_opened", "user": user, "channel": channel, "event_ts": ts, "tab": tab}
    if view is not None and tab == "home":
        event["view"] = view.data
    return event


def rich_text(text: str) -> JSON:
    """The rich_text block that Slack's client attaches to what a person types."""
    section = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "block_id": secrets.token_urlsafe(4), "elements": [section]}


def _interactive(kind: str, person: Person) -> JSON:
    return {
        "type": kind,
        "user": {"id": person.id, "username": person.name, "name": person.name, "team_id": person.team},
        "api_app_id": APP_ID,
        "token": _VERIFICATION,
        "team": {"id": TEAM_ID, "domain": TEAM_DOMAIN},
        "enterprise": None,
        "is_enterprise_install": False,
    }


def message_action(
    person: Person, channel: Channel, clicked: Message, action: JSON, state: JSON, *, trigger: str, hook: str
) -> JSON:
    """A block_actions payload for a click in a message; from an ephemeral one `message` is absent."""
    container = {
        "type": "message",
        "message_ts": clicked.ts,
        "channel_id": channel.id,
        "is_ephemeral": clicked.only_for is not None,
    }
    if clicked.thread_ts:
        container["thread_ts"] = clicked.thread_ts
    payload = {
        **_interactive("block_actions", person),
        "container": container,
        "trigger_id": trigger,
        "channel": {"id": channel.id, "name": _PRIVATE_NAMES.get(channel.kind, channel.name)},
        "state": {"values": state},
        "response_url": hook,
        "actions": [action],
    }
    if clicked.only_for is None:
        payload["message"] = clicked.to_api()
    return payload


def view_action(person: Person, view: JSON, action: JSON, trigger: str) -> JSON:
    """A block_actions payload for a click in a modal or Home tab; `view` holds the state."""
    return {
        **_interactive("block_actions", person),
        "container": {"type": "view", "view_id": view["id"]},
        "trigger_id": trigger,
        "view": view,
        "actions": [action],
    }


def view_submission(person: Person, view: JSON, trigger: str) -> JSON:
    """A view_submission payload."""
    return {
        **_interactive("view_submission", person),
        "trigger_id": trigger,
        "view": view,
        "response_urls": [],
    }


def view_closed(person: Person, view: JSON, *, cleared: bool) -> JSON:
    """A view_closed payload."""
    return {**_interactive("view_closed", person), "view": view, "is_cleared": cleared}


def slash_command(person: Person, channel: Channel, command: str, text: str, *, trigger: str, hook: str) -> JSON:
    """A slash command, whose values are all strings as in a form."""
    return {
        "token": _VERIFICATION,
        "team_id": TEAM_ID,
        "team_domain": TEAM_DOMAIN,
        "channel_id": channel.id,
        "channel_name": _PRIVATE_NAMES.get(channel.kind, channel.name),
        "user_id": person.id,
        "user_name": person.name,
        "command": command,
        "text": text,
        "api_app_id": APP_ID,
        "is_enterprise_install": "false",
        "response_url": hook,
        "trigger_id": trigger,
    }
