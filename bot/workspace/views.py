"""Modals and Home tabs: opening, stacking, replacing and closing them, with Slack's hashes and triggers.

Knows nothing of HTTP and sends nothing.
"""

import secrets
from typing import Any

from bot.workspace import elements, rules
from bot.workspace.nouns import APP_ID, BOT_ID, TEAM_ID, SlackError, View, with_block_ids
from bot.workspace.state import State

JSON = dict[str, Any]

_AUTHORED = ("private_metadata", "callback_id", "external_id")


def views_open(state: State, args: JSON) -> JSON:
    """Opens a modal for the person of the trigger."""
    user = use_trigger(state, args["trigger_id"])
    view = make(state, user, args["view"], "modal")
    close_all(state, user)
    state.modals[user] = [view.id]
    return {"view": view.data}


def views_push(state: State, args: JSON) -> JSON:
    """Puts a modal on top of the open one."""
    user = use_trigger(state, args["trigger_id"])
    return {"view": push(state, user, args["view"]).data}


def views_update(state: State, args: JSON) -> JSON:
    """Replaces an open modal or Home tab, if its hash is still the one given."""
    view = _named(state, args)
    check_hash(view, args.get("hash"))
    return {"view": replace(state, view, args["view"]).data}


def views_publish(state: State, args: JSON) -> JSON:
    """Shows a Home tab to one person, if its hash is still the one given."""
    user = state.person(args["user_id"]).id
    old = state.views.get(state.homes.get(user, ""))
    if old is None:
        if args.get("hash"):
            raise SlackError("hash_conflict")
        old = make(state, user, args["view"], "home")
        state.homes[user] = old.id
        return {"view": old.data}
    check_hash(old, args.get("hash"))
    return {"view": replace(state, old, args["view"]).data}


def use_trigger(state: State, trigger_id: str) -> str:
    """The person who may be shown a modal with this trigger; raises for an unknown, used or old one."""
    trigger = state.triggers.get(trigger_id)
    if trigger is None:
        raise SlackError("invalid_trigger_id")
    if trigger.used:
        raise SlackError("exchanged_trigger_id")
    if state.clock() > trigger.expires:
        raise SlackError("expired_trigger_id")
    trigger.used = True
    return trigger.user


def check_hash(view: View, given: str | None) -> None:
    """Refuses an update that was made from an older view."""
    if given and given != view.data["hash"]:
        raise SlackError("hash_conflict")


def make(state: State, user: str, authored: JSON, kind: str) -> View:
    """A new view of this kind for this person."""
    _check(authored, kind)
    external_id = authored.get("external_id")
    if external_id and any(view.data["external_id"] == external_id for view in state.views.values()):
        raise SlackError("duplicate_external_id")
    data = _stored(state, authored, "V" + secrets.token_hex(5).upper())
    view = View(user, data)
    state.views[view.id] = view
    state.changed()
    return view


def replace(state: State, view: View, authored: JSON) -> View:
    """Gives an open view new content and a new hash, keeping its id and place."""
    _check(authored, view.data["type"])
    kept = {key: view.data[key] for key in ("root_view_id", "previous_view_id")}
    view.data = {**_stored(state, authored, view.id), **kept}
    state.changed()
    return view


def push(state: State, user: str, authored: JSON) -> View:
    """A modal on top of this person's open ones."""
    stack = state.modals.get(user) or []
    if not stack:
        raise SlackError("not_found")
    if len(stack) >= rules.limit("view", "stack"):
        raise SlackError("push_limit_reached", [f"more than {rules.limit('view', 'stack')} modals on one another"])
    view = make(state, user, authored, "modal")
    view.data |= {"root_view_id": stack[0], "previous_view_id": stack[-1]}
    stack.append(view.id)
    return view


def close(state: State, view: View) -> None:
    """Takes a modal away, so that the one under it shows."""
    stack = state.modals.get(view.user, [])
    if view.id in stack:
        stack.remove(view.id)
    state.views.pop(view.id, None)
    state.changed()


def close_all(state: State, user: str) -> list[View]:
    """Takes all of a person's modals away; they are returned, top first."""
    closed = [state.views.pop(view_id) for view_id in reversed(state.modals.pop(user, []))]
    state.changed()
    return closed


def _named(state: State, args: JSON) -> View:
    if args.get("view_id"):
        found = state.views.get(args["view_id"])
    else:
        matching = (view for view in state.views.values() if view.data["external_id"] == args["external_id"])
        found = next(matching, None)
    if found is None:
        raise SlackError("not_found")
    return found


def _check(authored: JSON, kind: str) -> None:
    if authored.get("type") != kind:
        raise SlackError("invalid_arguments", [f"a view of type {kind} is needed here"])
    if problems := rules.view_problems(authored):
        code = "view_too_large" if any("bytes" in problem for problem in problems) else "invalid_arguments"
        raise SlackError(code, problems)


def _stored(state: State, authored: JSON, view_id: str) -> JSON:
    blocks = with_block_ids(authored["blocks"])
    return {
        "id": view_id,
        "team_id": TEAM_ID,
        "type": authored["type"],
        "blocks": blocks,
        **{key: authored.get(key) or "" for key in _AUTHORED},
        "title": authored.get("title"),
        "submit": authored.get("submit"),
        "close": authored.get("close"),
        "clear_on_close": bool(authored.get("clear_on_close")),
        "notify_on_close": bool(authored.get("notify_on_close")),
        "state": {"values": elements.state(blocks, {})},
        "hash": f"{int(state.clock())}.{secrets.token_urlsafe(6)}",
        "previous_view_id": None,
        "root_view_id": view_id,
        "app_id": APP_ID,
        "app_installed_team_id": TEAM_ID,
        "bot_id": BOT_ID,
    }
