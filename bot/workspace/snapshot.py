"""What one person may see at this moment, as one JSON object for the page.

Reads the state and changes nothing.
"""

from typing import Any

from bot.workspace.nouns import BOT_USER, TEAM_NAME, Channel, Message, SlackError
from bot.workspace.state import State

JSON = dict[str, Any]

MOST_MESSAGES = 400
COMMANDS = ({"name": "/ask", "hint": "Ask privately: only you see the answer"},)


def snapshot(state: State, user: str) -> JSON:
    """Channels, messages, modal, Home tab, statuses and the night, as this person sees them."""
    me = state.person(user)
    if me.is_bot:
        raise SlackError("user_not_found")
    channels = [channel for channel in state.channels.values() if user in channel.members]
    modals = state.modals.get(user) or []
    top = state.views.get(modals[-1]) if modals else None
    home = state.views.get(state.homes.get(user, ""))
    return {
        "ok": True,
        "workspace": TEAM_NAME,
        "me": user,
        "bot": BOT_USER,
        "people": [_person(state, person_id) for person_id in state.people],
        "channels": [_channel(channel, user) for channel in channels],
        "messages": {channel.id: _messages(state, channel, user) for channel in channels},
        "modal": {**top.data, "depth": len(modals)} if top else None,
        "home": home.data if home else None,
        "statuses": _statuses(state, {channel.id for channel in channels}),
        "prompts": {channel.id: state.prompts[channel.id] for channel in channels if channel.id in state.prompts},
        "titles": [
            {"channel": channel, "thread_ts": ts, "title": title} for (channel, ts), title in state.titles.items()
        ],
        "commands": list(COMMANDS),
        "night": {"available": state.night.available, "state": state.night.state, "lines": state.night.lines},
    }


def _person(state: State, user: str) -> JSON:
    person = state.people[user]
    return {
        "id": person.id,
        "name": person.real_name,
        "title": person.title,
        "is_admin": person.is_admin,
        "is_bot": person.is_bot,
    }


def _channel(channel: Channel, user: str) -> JSON:
    others = [member for member in channel.members if member != user]
    return {
        "id": channel.id,
        "name": channel.name,
        "kind": channel.kind,
        "topic": channel.topic,
        "members": list(channel.members),
        "with": others,
    }


def _messages(state: State, channel: Channel, user: str) -> list[JSON]:
    visible = [m for m in state.messages[channel.id].values() if m.only_for in (None, user)]
    visible.sort(key=lambda message: float(message.ts))
    return [_message(message, user) for message in visible[-MOST_MESSAGES:]]


def _message(message: Message, user: str) -> JSON:
    return {
        "ts": message.ts,
        "user": message.user,
        "text": message.text,
        "markdown": message.markdown,
        "blocks": message.blocks,
        "thread_ts": message.thread_ts,
        "ephemeral": message.only_for is not None,
        "edited": message.edited is not None and message.user != BOT_USER,
        "streaming": message.streaming,
        "tombstone": message.tombstone,
        "reactions": [{"name": name, "users": users} for name, users in message.reactions.items()],
        "files": message.files,
        "pressed": message.pressed.get(user, {}),
        "revision": message.revision,
    }


def _statuses(state: State, channels: set[str]) -> list[JSON]:
    return [
        {"channel": channel, "thread_ts": thread, "text": status.text, "loading": list(status.loading)}
        for (channel, thread), status in state.statuses.items()
        if channel in channels and status.expires > state.clock()
    ]
