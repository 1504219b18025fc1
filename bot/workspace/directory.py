"""Who and where: the bot itself, the team, conversations, people and user groups.

Answers questions about the workspace's state; only opening a group conversation changes it.
"""

import math
import secrets
from typing import Any

from bot.workspace.nouns import APP_ID, BOT_ID, BOT_USER, TEAM_DOMAIN, TEAM_ID, TEAM_NAME, Channel, SlackError
from bot.workspace.state import State

JSON = dict[str, Any]

MOST_IN_A_GROUP = 9


def auth_test(state: State, args: JSON) -> JSON:
    """Who the bot is."""
    ids = {"team_id": TEAM_ID, "user_id": BOT_USER, "bot_id": BOT_ID, "app_id": APP_ID}
    return {
        "url": f"{state.origin}/",
        "team": TEAM_NAME,
        "user": "nightshift",
        **ids,
        "is_enterprise_install": False,
    }


def team_info(state: State, args: JSON) -> JSON:
    """The workspace's name and domain."""
    return {"team": {"id": TEAM_ID, "name": TEAM_NAME, "domain": TEAM_DOMAIN, "email_domain": "lumen.example"}}


def conversations_open(state: State, args: JSON) -> JSON:
    """The direct message with these people, made on first use for groups."""
    if args.get("channel"):
        return {"channel": state.joined(args["channel"], BOT_USER).to_api()}
    users = args["users"].split(",") if isinstance(args["users"], str) else args["users"]
    wanted = {state.person(user.strip()).id for user in users} - {BOT_USER}
    if not wanted:
        raise SlackError("not_enough_users")
    members = {*wanted, BOT_USER}
    found = next((c for c in state.channels.values() if c.kind in ("im", "mpim") and set(c.members) == members), None)
    return {"channel": (found or new_group(state, members)).to_api()}


def new_group(state: State, members: set[str]) -> Channel:
    """A new group message of these people. Raises SlackError above nine."""
    if len(members) > MOST_IN_A_GROUP:
        raise SlackError("too_many_users")
    names = "--".join(state.person(user).name for user in sorted(members))
    group_id = f"G{secrets.token_hex(4).upper()}"
    channel = state.add_channel(Channel(group_id, f"mpdm-{names}-1", "mpim", tuple(sorted(members))))
    state.changed()
    return channel


def conversations_info(state: State, args: JSON) -> JSON:
    """One channel."""
    return {"channel": state.joined(args["channel"], BOT_USER).to_api()}


def conversations_members(state: State, args: JSON) -> JSON:
    """Who is in a channel."""
    members, cursor = _page(list(state.joined(args["channel"], BOT_USER).members), args, 100)
    return {"members": members, "response_metadata": {"next_cursor": cursor}}


def conversations_replies(state: State, args: JSON) -> JSON:
    """A thread with its root first."""
    channel = state.joined(args["channel"], BOT_USER)
    root = state.messages[channel.id].get(args["ts"])
    if root is None or root.only_for:
        raise SlackError("thread_not_found")
    replies = state.replies(channel.id, root.ts)
    after, before = _moment(args, "oldest", 0.0), _moment(args, "latest", math.inf)
    chosen = [root, *(reply for reply in replies if after < float(reply.ts) < before)]
    messages, cursor = _page([message.to_api() for message in chosen], args, 1000)
    if messages and messages[0]["ts"] == root.ts:
        messages[0] |= {"reply_count": len(replies), "thread_ts": root.ts}
    return {"messages": messages, "has_more": bool(cursor), "response_metadata": {"next_cursor": cursor}}


def _moment(args: JSON, key: str, default: float) -> float:
    try:
        return float(args.get(key) or default)
    except ValueError:
        raise SlackError(f"invalid_ts_{key}") from None


def users_conversations(state: State, args: JSON) -> JSON:
    """The channels of the given kinds that a user is in."""
    names = {"public_channel": "channel", "private_channel": "group", "im": "im", "mpim": "mpim"}
    kinds = {names.get(kind.strip(), "") for kind in (args.get("types") or "public_channel").split(",")}
    user = args.get("user") or BOT_USER
    found = [c.to_api() for c in state.channels.values() if c.kind in kinds and {user, BOT_USER} <= set(c.members)]
    channels, cursor = _page(found, args, 100)
    return {"channels": channels, "response_metadata": {"next_cursor": cursor}}


def _page(items: list[Any], args: JSON, default: int) -> tuple[list[Any], str]:
    start, size = args.get("cursor") or "0", int(args.get("limit") or default)
    if not str(start).isdigit():
        raise SlackError("invalid_cursor")
    end = int(start) + size
    return items[int(start) : end], str(end) if end < len(items) else ""


def users_info(state: State, args: JSON) -> JSON:
    """One person."""
    return {"user": state.person(args["user"]).to_api()}


def users_lookup(state: State, args: JSON) -> JSON:
    """The person with this address."""
    for person in state.people.values():
        if person.to_api()["profile"]["email"] == args["email"] and not person.is_bot:
            return {"user": person.to_api()}
    raise SlackError("users_not_found")


def usergroups_list(state: State, args: JSON) -> JSON:
    """All user groups."""
    return {"usergroups": [group.to_api() for group in state.groups.values()]}


def usergroups_users(state: State, args: JSON) -> JSON:
    """Who is in a user group."""
    if args["usergroup"] not in state.groups:
        raise SlackError("no_such_subteam")
    return {"users": list(state.groups[args["usergroup"]].users)}
