"""Checks calls and Block Kit against rules.json: what a method takes, how long and how many things may be.

Knows nothing of the workspace's data; every function returns sentences, an empty list means nothing is wrong.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JSON = dict[str, Any]


@functools.cache
def _table() -> JSON:
    table: JSON = json.loads(Path(__file__).with_name("rules.json").read_text(encoding="utf-8"))
    return table


def limit(area: str, name: str) -> int:
    """One number of the limits, such as the most blocks of a message."""
    return int(_table()["limits"][area][name])


def token_kind(method: str) -> str | None:
    """Which token a method wants, "bot" or "app"; None for a method that does not exist here."""
    rule = _table()["methods"].get(method)
    return None if rule is None else str(rule["token"])


def arguments(method: str) -> frozenset[str]:
    """The names of a method's arguments; none for a method that does not exist here."""
    return frozenset(_table()["methods"].get(method, {"arguments": ()})["arguments"])


def takes_json(method: str) -> bool:
    """Whether the method reads a JSON body."""
    return bool(_table()["methods"][method]["json_body"])


def calls_a_minute(method: str) -> int:
    """How many calls of this method Slack takes in a minute."""
    return int(_table()["methods"][method]["calls_a_minute"])


# ---- arguments ---------------------------------------------------------------------------------------------


def decode_form(method: str, form: dict[str, str]) -> JSON:
    """Arguments of a form or query string with their JSON, numbers and booleans read."""
    return {key: decode(method, key, value, form=True) for key, value in form.items()}


def decode(method: str, key: str, value: Any, *, form: bool = False) -> Any:
    """One argument with its JSON read; in a JSON body too a list or an object may come as a string."""
    kind = _table()["methods"][method]["arguments"].get(key, "string")
    if not isinstance(value, str) or not (form or kind in ("array", "object")):
        return value
    if kind == "boolean" and value.lower() in ("true", "1", "false", "0"):
        return value.lower() in ("true", "1")
    if kind in ("array", "object", "integer", "number"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def missing_arguments(method: str, args: JSON) -> list[str]:
    """Required arguments that are absent or empty, one sentence each."""
    rule = _table()["methods"][method]
    missing = [f"missing required '{key}'" for key in rule["required"] if args.get(key) is None]
    one_of = rule.get("one_of")
    if one_of and not any(args.get(key) for key in one_of):
        missing.append(f"needs one of {', '.join(one_of)}")
    return missing


def wrong_types(method: str, args: JSON) -> list[str]:
    """Arguments whose type is not the documented one."""
    types = _table()["methods"][method]["arguments"]
    known = [(key, value) for key, value in args.items() if key in types and value is not None]
    return [f"'{key}' must be {types[key]}" for key, value in known if not _fits(types[key], value)]


def unknown_arguments(method: str, args: JSON) -> list[str]:
    """Arguments that the method does not know; Slack ignores them, a careful app does not send them.

    Bolt puts `team_id` into every call, so that one is always known.
    """
    known = {"token", "team_id", *_table()["methods"][method]["arguments"]}
    return [f"unknown argument '{key}'" for key in args if key not in known]


def _fits(kind: str, value: object) -> bool:
    if kind == "strings":
        return isinstance(value, str) or _is_list_of_strings(value)
    if isinstance(value, bool):
        return kind == "boolean"
    wanted: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
        "array": list,
        "object": dict,
    }
    return isinstance(value, wanted[kind])


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# ---- Block Kit ---------------------------------------------------------------------------------------------


def view_problems(view: JSON) -> list[str]:
    """What is wrong with a modal or a Home tab."""
    if malformed := list(_malformed(view)):
        return [f"view: {problem}" for problem in malformed]
    limits = _table()["limits"]["view"]
    kind = view.get("type")
    if kind not in ("modal", "home"):
        return [f"view type {kind!r} is neither modal nor home"]
    problems = [
        f"view {key}: {len(_text(view[key]))} characters, at most {limits[key]}"
        for key in ("title", "submit", "close", "private_metadata", "callback_id", "external_id")
        if view.get(key) is not None and len(_text(view[key])) > limits[key]
    ]
    if kind == "modal":
        problems += _modal_problems(view)
    if len(json.dumps(view).encode()) > limits["bytes"]:
        problems.append(f"view is larger than {limits['bytes']} bytes")
    return problems + block_problems(view.get("blocks"), kind)


def _modal_problems(view: JSON) -> list[str]:
    problems = [] if _text(view.get("title")) else ["a modal needs a title"]
    has_input = any(isinstance(b, dict) and b.get("type") == "input" for b in view.get("blocks") or [])
    if has_input and not view.get("submit"):
        problems.append("a modal with an input block needs a submit button")
    for key in ("title", "submit", "close"):
        text = view.get(key)
        if text is not None and (not isinstance(text, dict) or text.get("type") != "plain_text"):
            problems.append(f"view {key} must be plain_text")
    return problems


def block_problems(blocks: object, surface: str) -> list[str]:
    """What is wrong with the blocks of a message, a modal or a Home tab."""
    if not isinstance(blocks, list):
        return ["blocks must be a list"]
    most = limit("message" if surface == "message" else "view", "blocks")
    problems = [f"{len(blocks)} blocks, at most {most}"] if len(blocks) > most else []
    ids = [str(b["block_id"]) for b in blocks if isinstance(b, dict) and b.get("block_id")]
    if len(ids) != len(set(ids)):
        problems.append("two blocks share a block_id")
    for index, block in enumerate(blocks):
        problems += [f"blocks[{index}] {problem}" for problem in _block(block, surface)]
    return problems


def text_length(blocks: list[JSON]) -> int:
    """Characters of all texts in the blocks together."""
    return sum(len(value) for value in _texts(blocks))


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "text" and isinstance(value, str):
                yield value
            else:
                yield from _texts(value)


def _block(block: object, surface: str) -> Iterator[str]:
    if not isinstance(block, dict):
        yield "is not an object"
        return
    if malformed := list(_malformed(block)):
        yield from malformed
        return
    kind = str(block.get("type"))
    rule = _table()["limits"]["blocks"].get(kind)
    if rule is None:
        yield f"has the unknown type {kind!r}"
        return
    if surface not in rule["surfaces"]:
        yield f"{kind} is not allowed in a {surface}"
    if kind == "section" and not block.get("text") and not block.get("fields"):
        yield "section needs text or fields"
    yield from _shape(kind, block, rule)
    yield from _inside(kind, block, rule)


def _malformed(node: JSON) -> Iterator[str]:
    """Keys whose value is of a wrong type, and lists that hold something else than objects, at any depth."""
    for key, value in node.items():
        wanted = _type_of(key, node)
        if value is not None and wanted is not None and not _fits(wanted, value):
            yield f"{key} must be {wanted}"
        elif isinstance(value, dict):
            yield from _malformed(value)
        elif isinstance(value, list) and key not in ("initial_users", "column_settings", "include"):
            yield from _malformed_items(key, value)


def _malformed_items(key: str, items: list[Any]) -> Iterator[str]:
    cells = [cell for row in items for cell in (row if isinstance(row, list) else [None])]
    for item in cells if key == "rows" else items:
        if isinstance(item, dict):
            yield from _malformed(item)
        else:
            yield f"{key} must hold objects"


def _type_of(key: str, node: JSON) -> str | None:
    limits = _table()["limits"]
    if key == "text":
        return "string" if node.get("type") in limits["text_owners"] else "object"
    return next((kind for kind, keys in limits["key_types"].items() if key in keys), None)


def _inside(kind: str, block: JSON, rule: JSON) -> Iterator[str]:
    for field in block.get("fields") or [] if kind == "section" else []:
        yield from _text_object("field", field, _table()["limits"]["field_text"])
    if kind not in ("actions", "context", "context_actions", "section", "input"):
        return
    children = [*(block.get("elements") or []), block.get("accessory"), block.get("element")]
    present = [child for child in children if child is not None]
    for child in present:
        child_kind = child.get("type")
        if child_kind not in rule["holds"]:
            yield f"{kind} cannot hold {child_kind!r}"
        elif child_kind in ("mrkdwn", "plain_text"):
            yield from _text_object(kind, child, None)
        else:
            yield from _element(child)
    actions = [child["action_id"] for child in present if child.get("action_id")]
    if len(actions) != len(set(actions)):
        yield "two elements share an action_id"


def _element(element: JSON) -> Iterator[str]:
    kind = str(element["type"])
    yield from _shape(kind, element, _table()["limits"]["elements"][kind])
    objects = _table()["limits"]["objects"]
    for option in element.get("options") or []:
        yield from _shape(f"{kind} option", option, objects["option"])
    for group in element.get("option_groups") or []:
        yield from _shape(f"{kind} option group", group, objects["option_group"])
    for key in ("positive_button", "negative_button"):
        if key in element:
            yield from _shape(f"{kind} {key}", element[key], objects["feedback"])
    if element.get("confirm"):
        yield from _shape(f"{kind} confirm", element["confirm"], objects["confirm"])
    if element.get("style") not in (None, "primary", "danger"):
        yield f"{kind} has the unknown style {element['style']!r}"
    initial = element.get("initial_option")
    if initial and initial not in (element.get("options") or [initial]):
        yield f"{kind} initial_option is not among its options"


def _shape(name: str, thing: JSON, rule: JSON) -> Iterator[str]:
    for key in rule["required"]:
        if thing.get(key) in (None, "", []):
            yield f"{name} needs {key}"
    unknown = set(thing) - {*rule["known"], "type", "block_id", "action_id"}
    yield from (f"{name} does not know {key!r}" for key in sorted(unknown))
    yield from _sizes(name, thing, rule)
    for key in rule.get("plain", []):
        if isinstance(thing.get(key), dict) and thing[key].get("type") != "plain_text":
            yield f"{name} {key} must be plain_text"


def _sizes(name: str, thing: JSON, rule: JSON) -> Iterator[str]:
    longest = _table()["limits"]["identifier"]
    for key in ("block_id", "action_id"):
        if len(str(thing.get(key) or "")) > longest:
            yield f"{name} {key} is longer than {longest}"
    for key, most in rule["max"].items():
        value = thing.get(key)
        if isinstance(value, dict):
            yield from _text_object(f"{name} {key}", value, most)
        elif isinstance(value, str | list) and len(value) > most:
            yield f"{name} {key}: {len(value)}, at most {most}"


def _text_object(name: str, value: object, most: int | None) -> Iterator[str]:
    known = _table()["limits"]["text_types"]
    if not isinstance(value, dict) or str(value.get("type")) not in known:
        yield f"{name} is no text object"
        return
    text = value.get("text")
    if not isinstance(text, str) or not text:
        yield f"{name} has no text"
    elif most is not None and len(text) > most:
        yield f"{name}: {len(text)} characters, at most {most}"
    for key in value:
        if key not in known[value["type"]]:
            yield f"{name} text object does not know {key!r}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("text") or "")
    return str(value or "")
