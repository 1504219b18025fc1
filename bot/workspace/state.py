"""What the workspace remembers: people, channels, messages, views and files, all in memory.

Knows nothing of HTTP, sockets, argument rules or the app that is being tried.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from bot.workspace.nouns import (
    BOT_USER,
    CHANNELS,
    GROUPS,
    HOOK_SECONDS,
    PEOPLE,
    TRIGGER_SECONDS,
    Channel,
    Hook,
    Message,
    Night,
    Person,
    SlackError,
    Status,
    Trigger,
    Upload,
    View,
    with_block_ids,
)

JSON = dict[str, Any]


class State:
    """Everything that happened in the workspace since it started."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Starts with the people and channels and nothing said; `clock` gives seconds since 1970."""
        self.clock = clock
        self.people = {person.id: person for person in PEOPLE}
        self.channels = {channel.id: channel for channel in CHANNELS}
        self.groups = {group.id: group for group in GROUPS}
        self.messages: dict[str, dict[str, Message]] = {channel.id: {} for channel in CHANNELS}
        self.views: dict[str, View] = {}
        self.modals: dict[str, list[str]] = {}
        self.homes: dict[str, str] = {}
        self.uploads: dict[str, Upload] = {}
        self.triggers: dict[str, Trigger] = {}
        self.hooks: dict[str, Hook] = {}
        self.statuses: dict[tuple[str, str], Status] = {}
        self.titles: dict[tuple[str, str], str] = {}
        self.prompts: dict[str, JSON] = {}
        self.stream_started: dict[str, float] = {}
        self.night = Night()
        self.emit: Callable[[JSON], None] = lambda event: None
        self.origin = ""
        self._last_ts = 0
        self._revision = 0
        self._watchers: set[asyncio.Event] = set()

    def new_ts(self) -> str:
        """A message timestamp that is unique and later than every one before."""
        self._last_ts = max(self._last_ts + 1, int(self.clock() * 1_000_000))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def watch(self) -> asyncio.Event:
        """An event that is set at every change; hand it back with `unwatch`."""
        event = asyncio.Event()
        self._watchers.add(event)
        return event

    def unwatch(self, event: asyncio.Event) -> None:
        """Stops telling this watcher."""
        self._watchers.discard(event)

    def changed(self, message: Message | None = None) -> None:
        """Marks a message (or anything else) as changed and wakes the open pages."""
        self._revision += 1
        if message is not None:
            message.revision = self._revision
        for event in self._watchers:
            event.set()

    def person(self, user: str) -> Person:
        """The person with this id; raises user_not_found."""
        if user not in self.people:
            raise SlackError("user_not_found")
        return self.people[user]

    def add_person(self, person: Person, channels: Iterable[str] = ()) -> None:
        """Lets somebody in, with a direct message to the bot; a channel with strangers becomes a shared one."""
        self.people[person.id] = person
        self.add_channel(Channel(f"D{person.id[1:]}", "directmessage", "im", (person.id, BOT_USER)))
        for name in channels:
            found = self.channel(name)
            teams = (*found.shared_with, person.team) if person.is_external else found.shared_with
            members = tuple(dict.fromkeys((*found.members, person.id)))
            self.channels[found.id] = replace(found, members=members, shared_with=tuple(dict.fromkeys(teams)))
        self.changed()

    def add_channel(self, channel: Channel) -> Channel:
        """Opens a conversation; one with this id stays as it is."""
        self.messages.setdefault(channel.id, {})
        return self.channels.setdefault(channel.id, channel)

    def channel(self, name: str) -> Channel:
        """The channel of this id or #name, or the direct message with this user; raises channel_not_found."""
        if name in self.channels:
            return self.channels[name]
        for channel in self.channels.values():
            if channel.kind in ("channel", "group") and channel.name == name.removeprefix("#"):
                return channel
            if channel.kind == "im" and name in channel.members and name != BOT_USER:
                return channel
        raise SlackError("channel_not_found")

    def joined(self, name: str, user: str) -> Channel:
        """The channel, if this person is a member; raises channel_not_found or not_in_channel."""
        channel = self.channel(name)
        if user not in channel.members:
            raise SlackError("not_in_channel" if channel.kind == "channel" else "channel_not_found")
        return channel

    def message(self, channel: str, ts: str) -> Message:
        """The message at this place; raises message_not_found."""
        found = self.messages[channel].get(ts)
        if found is None or found.tombstone:
            raise SlackError("message_not_found")
        return found

    def root_of(self, channel: str, thread_ts: str) -> str:
        """The timestamp of the thread that a reply to this message joins; raises cannot_reply_to_message."""
        target = self.messages[channel].get(thread_ts)
        if target is None or target.only_for:
            raise SlackError("cannot_reply_to_message")
        return target.thread_ts or target.ts

    def post(self, message: Message) -> Message:
        """Adds a message, with an id on every block, and clears the status of its thread."""
        message.blocks = with_block_ids(message.blocks)
        if message.thread_ts and not message.only_for:
            root = self.messages[message.channel][message.thread_ts]
            root.thread_ts = root.ts
            self.changed(root)
        self.messages[message.channel][message.ts] = message
        if message.user == BOT_USER:
            self.statuses.pop((message.channel, message.thread_ts or message.ts), None)
        self.changed(message)
        return message

    def replies(self, channel: str, root: str) -> list[Message]:
        """The lasting messages of a thread without its root, oldest first."""
        messages = self.messages[channel].values()
        return [m for m in messages if m.thread_ts == root and m.ts != root and not m.only_for]

    def new_trigger(self, user: str) -> str:
        """A trigger_id for this person."""
        trigger = f"{int(self.clock() * 1000)}.{secrets.randbelow(10**10)}.{secrets.token_hex(16)}"
        self.triggers[trigger] = Trigger(user, self.clock() + TRIGGER_SECONDS)
        return trigger

    def new_hook(self, user: str, channel: str, ts: str | None) -> str:
        """A response_url: five uses within thirty minutes."""
        key = secrets.token_urlsafe(18)
        self.hooks[key] = Hook(user, channel, ts, self.clock() + HOOK_SECONDS)
        return f"{self.origin}/hook/{key}"
