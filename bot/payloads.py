"""Whether what arrives over the socket has the shape that Slack gives it.

Checked once, at the door, so that everything behind it may rely on types. It knows what Slack sends, and
nothing of what is done with it.
"""

import re
from collections.abc import Iterator
from typing import Any

ID_CHARS = 255
TEXT_CHARS = 100_000

IDS = {
    "type", "subtype", "id", "ts", "thread_ts", "event_ts", "deleted_ts", "message_ts", "event_id", "user_id",
    "channel_id", "channel_type", "channel_name", "team_id", "user_team", "source_team", "bot_id", "parent_user_id",
    "command", "trigger_id", "action_id", "block_id", "callback_id", "tab", "selected_conversation",
    "selected_channel", "selected_user", "view_id", "root_view_id", "hash", "name", "user_name",
}  # fmt: skip
"""Keys that hold a short text: an id, a time, a name of Slack's or ours."""
NAMES = {"user", "channel", "team", "enterprise", "item"}
"""Keys that hold an id in one kind of payload and an object in another."""
TEXTS = {"value", "private_metadata", "response_url"}
"""Keys that hold a text; `text` itself may be an object too."""
OBJECTS = {"event", "message", "previous_message", "container", "view", "state", "edited", "selected_option"}
LISTS = {"actions", "authorizations", "blocks", "files", "selected_options"}
OPAQUE = {"blocks", "attachments", "metadata", "state"}
"""Contents that are looked into elsewhere or not at all."""
SHORT = re.compile(rf"[^\ud800-\udfff\x00]{{0,{ID_CHARS}}}", re.DOTALL)


def problem(kind: str, payload: object) -> str:
    """What is wrong with a payload of this kind (events_api, interactive, slash_commands); empty when it is sound."""
    if not isinstance(payload, dict):
        return "the payload is no object"
    return next(problems(kind, payload), "")


def problems(kind: str, payload: dict[str, Any]) -> Iterator[str]:
    """Everything that is wrong with a payload."""
    yield from wrong_types(payload)
    yield from (f"{path} is missing" for path in required(kind, payload) if not at(payload, path))
    for held in (payload, payload.get("view")):
        if isinstance(held, dict) and held.get("state") is not None:
            yield from wrong_state(held["state"])


def wrong_types(node: dict[str, Any]) -> Iterator[str]:
    """Keys at any depth that hold something else than Slack puts there; a null is as good as a missing key."""
    for key, value in node.items():
        if value is None:
            continue
        if not fits(key, value):
            yield f"{key[:ID_CHARS]!r} does not hold what it should"
        elif key not in OPAQUE:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    yield from wrong_types(item)


def fits(key: str, value: object) -> bool:
    """Whether a key may hold this value."""
    if isinstance(value, dict):
        return key not in IDS | TEXTS | LISTS
    if key in IDS | NAMES:
        return isinstance(value, str) and SHORT.fullmatch(value) is not None
    if key in TEXTS or key == "text":
        return isinstance(value, str) and len(value) <= TEXT_CHARS
    if key in LISTS:
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)
    return key not in OBJECTS


def wrong_state(state: object) -> Iterator[str]:
    """What is wrong with the fields of a form: block by block, element by element."""
    blocks = state.get("values", {}) if isinstance(state, dict) else None
    if not isinstance(blocks, dict) or not all(isinstance(elements, dict) for elements in blocks.values()):
        yield "the fields of the form are no objects"
        return
    for element in (element for elements in blocks.values() for element in elements.values()):
        if isinstance(element, dict):
            yield from wrong_types(element)
        else:
            yield "a field of the form is no object"


def required(kind: str, payload: dict[str, Any]) -> tuple[str, ...]:
    """The places that must be filled, as dotted paths."""
    if kind == "events_api":
        return ("event.type",)
    if kind == "slash_commands":
        return ("command", "user_id", "channel_id")
    always = ("type", "user.id")
    if payload.get("type") == "block_actions":
        return (*always, "actions.0.action_id")
    if str(payload.get("type")).startswith("view_"):
        told = (*always, "view.id", "view.type")
        return (*told, "view.state.values") if payload["type"] == "view_submission" else told
    return always


def at(node: Any, path: str) -> object:
    """What stands at a dotted path; None where there is nothing."""
    for step in path.split("."):
        if isinstance(node, list):
            node = node[int(step)] if node else None
        else:
            node = node.get(step) if isinstance(node, dict) else None
    return node
