"""Interactive elements of Block Kit: finding one, what a click on it sends, what an input's state looks like.

Pure functions over blocks; knows nothing of who clicks or where the blocks stand.
"""

from collections.abc import Iterator
from typing import Any

JSON = dict[str, Any]

_ONE = {"static_select", "radio_buttons", "overflow"}
_MANY = {"multi_static_select", "checkboxes"}
_TEXT = {"plain_text_input", "number_input", "email_text_input", "url_text_input"}
_PICK = {
    "users_select": "selected_user",
    "channels_select": "selected_channel",
    "conversations_select": "selected_conversation",
    "datepicker": "selected_date",
    "timepicker": "selected_time",
}
REQUIRED = "Please complete this required field."


def walk(blocks: list[JSON]) -> Iterator[tuple[JSON, JSON]]:
    """Every (block, element) pair that has an action_id."""
    for block in blocks:
        nested = block.get("elements") if block.get("type") in ("actions", "context_actions") else []
        for element in [*(nested or []), block.get("accessory"), block.get("element")]:
            if isinstance(element, dict) and element.get("action_id"):
                yield block, element


def find(blocks: list[JSON], action_id: str, block_id: str | None) -> tuple[JSON, JSON] | None:
    """The (block, element) that a click names, or None."""
    for block, element in walk(blocks):
        if element["action_id"] == action_id and block_id in (None, "", block["block_id"]):
            return block, element
    return None


def action(block: JSON, element: JSON, value: object, now: float) -> JSON:
    """The entry of `actions` in a block_actions payload for this click."""
    head = {"action_id": element["action_id"], "block_id": block["block_id"], "type": element["type"]}
    stamp = {"action_ts": f"{now:.6f}"}
    if element["type"] == "feedback_buttons":
        return {**head, **_feedback(element, value), **stamp}
    if element["type"] in ("button", "icon_button"):
        kept: JSON = {key: element[key] for key in ("text", "value", "style", "url") if key in element}
        return {**head, **kept, **stamp}
    return {**head, **{k: v for k, v in state_of(element, value).items() if k != "type"}, **stamp}


def _feedback(element: JSON, value: object) -> JSON:
    negative = value in ("negative", element["negative_button"]["value"])
    button = element["negative_button" if negative else "positive_button"]
    return {"value": button["value"], "text": button["text"]}


def state_of(element: JSON, value: object) -> JSON:
    """An element's entry in `state.values` when it holds this value (option values, ids or text)."""
    kind = str(element["type"])
    if kind in _TEXT:
        return {"type": kind, "value": str(value) if value not in (None, "") else None}
    if kind in _ONE:
        return {"type": kind, "selected_option": _option(element, value)}
    if kind in _MANY:
        wanted = value if isinstance(value, list) else [value] if value else []
        chosen = [option for option in options(element) if option.get("value") in wanted]
        return {"type": kind, "selected_options": chosen}
    if kind == "multi_users_select":
        return {"type": kind, "selected_users": value if isinstance(value, list) else []}
    return {"type": kind, _PICK.get(kind, "value"): value or None}


def options(element: JSON) -> list[JSON]:
    """All options of an element, those in groups too."""
    grouped = [option for group in element.get("option_groups") or [] for option in group["options"]]
    return [*(element.get("options") or []), *grouped]


def _option(element: JSON, value: object) -> JSON | None:
    return next((option for option in options(element) if option.get("value") == value), None)


def initial(element: JSON) -> object:
    """The value that an element starts with, in the form that `state_of` takes."""
    if element.get("initial_option"):
        return element["initial_option"].get("value")
    if element.get("initial_options"):
        return [option.get("value") for option in element["initial_options"]]
    keys = ("value", "user", "users", "channel", "conversation", "date", "time")
    return next((element[f"initial_{key}"] for key in keys if element.get(f"initial_{key}")), None)


def state(blocks: list[JSON], values: JSON) -> JSON:
    """The `state.values` of a surface: what was typed or chosen, else what each element starts with."""
    result: JSON = {}
    for block, element in walk(blocks):
        if element["type"] in ("button", "icon_button", "overflow", "feedback_buttons"):
            continue
        typed = values.get(block["block_id"]) or {}
        value = typed[element["action_id"]] if element["action_id"] in typed else initial(element)
        result.setdefault(block["block_id"], {})[element["action_id"]] = state_of(element, value)
    return result


def refused(blocks: list[JSON], values: JSON) -> dict[str, str]:
    """What Slack's own client refuses before it submits: block_id to message."""
    errors: dict[str, str] = {}
    for block in blocks:
        element = block.get("element")
        if block.get("type") != "input" or not isinstance(element, dict):
            continue
        held = values.get(block["block_id"], {}).get(element.get("action_id"), {})
        content = next((value for key, value in held.items() if key != "type"), None)
        if content in (None, "", []):
            if not block.get("optional"):
                errors[block["block_id"]] = REQUIRED
        elif isinstance(content, str) and (problem := _length_problem(element, content)):
            errors[block["block_id"]] = problem
    return errors


def _length_problem(element: JSON, text: str) -> str | None:
    least, most = element.get("min_length") or 0, element.get("max_length") or 3000
    if element["type"] != "plain_text_input":
        return None
    if len(text) < least:
        return f"Please write at least {least} characters."
    return f"Please shorten this to {most} characters." if len(text) > most else None
