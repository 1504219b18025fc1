"""What the workspace remembers: people, channels, messages, views and files, all in memory.

Knows nothing of HTTP, sockets, argument rules or the app that is being tried.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

JSON = dict[str, Any]

TEAM_ID = "T0LUMEN"
TEAM_NAME = "Lumen Pay"
TEAM_DOMAIN = "lumen"
APP_ID = "A0NIGHT"
BOT_ID = "B0BOT"
BOT_USER = "U0BOT"

STREAM_SECONDS = 300.0
STATUS_SECONDS = 120.0
TRIGGER_SECONDS = 3.0
HOOK_SECONDS = 1800.0
HOOK_USES = 5


class SlackError(Exception):
    """A refusal with Slack's own error code; `problems` say which rule was broken, one sentence each."""

    def __init__(self, code: str, problems: Iterable[str] = ()) -> None:
        """Keeps the code and the sentences."""
        super().__init__(code)
        self.code = code
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Person:
    """A member of the workspace, human or bot."""

    id: str
    name: str
    real_name: str
    title: str
    is_admin: bool = False
    is_bot: bool = False

    def to_api(self) -> JSON:
        """The user object of `users.info`."""
        profile = {
            "real_name": self.real_name,
            "display_name": self.real_name,
            "title": self.title,
            "email": f"{self.name}@{TEAM_DOMAIN}.example",
            "team": TEAM_ID,
        }
        flags = {
            "deleted": False,
            "is_admin": self.is_admin,
            "is_owner": self.is_admin,
            "is_bot": self.is_bot,
            "is_app_user": False,
            "is_restricted": False,
            "is_ultra_restricted": False,
        }
        where = {"tz": "Etc/UTC", "tz_label": "UTC", "tz_offset": 0}
        names = {"id": self.id, "team_id": TEAM_ID, "name": self.name, "real_name": self.real_name}
        return {**names, **flags, **where, "profile": profile}


@dataclass(frozen=True)
class Channel:
    """A conversation: public (`channel`), private (`group`), one to one (`im`) or several people (`mpim`)."""

    id: str
    name: str
    kind: Literal["channel", "group", "im", "mpim"]
    members: tuple[str, ...]
    topic: str = ""

    def to_api(self) -> JSON:
        """The channel object of `conversations.info`."""
        base: JSON = {
            "id": self.id,
            "created": 1_700_000_000,
            "context_team_id": TEAM_ID,
            "is_archived": False,
            "is_im": self.kind == "im",
            "is_mpim": self.kind == "mpim",
            "is_ext_shared": False,
            "is_org_shared": False,
        }
        if self.kind == "im":
            return {**base, "user": next(m for m in self.members if m != BOT_USER), "is_open": True}
        return {
            **base,
            "name": self.name,
            "name_normalized": self.name,
            "is_channel": self.kind == "channel",
            "is_group": self.kind == "group",
            "is_private": self.kind != "channel",
            "is_member": BOT_USER in self.members,
            "is_general": False,
            "is_shared": False,
            "topic": {"value": self.topic, "creator": "", "last_set": 0},
            "purpose": {"value": self.topic, "creator": "", "last_set": 0},
            "num_members": len(self.members),
        }


@dataclass
class Message:
    """One message; `only_for` makes it ephemeral, `pressed` holds each person's feedback choice."""

    channel: str
    ts: str
    user: str
    text: str = ""
    blocks: list[JSON] = field(default_factory=list)
    markdown: str = ""
    thread_ts: str | None = None
    only_for: str | None = None
    client_msg_id: str | None = None
    edited: JSON | None = None
    streaming: bool = False
    tombstone: bool = False
    reactions: dict[str, list[str]] = field(default_factory=dict)
    files: list[JSON] = field(default_factory=list)
    metadata: JSON | None = None
    pressed: dict[str, dict[str, str]] = field(default_factory=dict)
    revision: int = 0

    def to_api(self) -> JSON:
        """The message object as the Web API and events show it."""
        shown: JSON = {
            "type": "message",
            "user": self.user,
            "text": self.text or self.markdown,
            "ts": self.ts,
            "team": TEAM_ID,
        }
        if self.user == BOT_USER:
            profile = {
                "id": BOT_ID,
                "app_id": APP_ID,
                "name": "Nightshift",
                "team_id": TEAM_ID,
                "deleted": False,
            }
            shown |= {"bot_id": BOT_ID, "app_id": APP_ID, "bot_profile": profile}
        optional = {
            "client_msg_id": self.client_msg_id,
            "blocks": self.blocks or None,
            "edited": self.edited,
            "files": self.files or None,
            "metadata": self.metadata,
            "thread_ts": self.thread_ts,
            "subtype": "tombstone" if self.tombstone else None,
        }
        shown |= {key: value for key, value in optional.items() if value is not None}
        if self.reactions:
            shown["reactions"] = [
                {"name": name, "users": users, "count": len(users)} for name, users in self.reactions.items()
            ]
        return shown


@dataclass
class View:
    """A modal or a Home tab that is open for one person; `data` is the view object of the API."""

    user: str
    data: JSON

    @property
    def id(self) -> str:
        """The view's id."""
        return str(self.data["id"])


@dataclass
class Upload:
    """A file between the request for an upload address and its arrival."""

    id: str
    name: str
    length: int
    content: bytes | None = None
    title: str = ""


@dataclass
class Trigger:
    """A right to open one modal for one person, for three seconds, once."""

    user: str
    expires: float
    used: bool = False


@dataclass
class Hook:
    """A response address: who clicked, where, and how often it may still be used."""

    user: str
    channel: str
    ts: str | None
    expires: float
    uses_left: int = HOOK_USES


@dataclass
class Status:
    """A line such as "is thinking..." under a thread."""

    text: str
    loading: tuple[str, ...]
    expires: float


@dataclass
class Night:
    """What the page shows of a night run."""

    available: bool = False
    state: Literal["idle", "running", "done", "failed"] = "idle"
    lines: list[str] = field(default_factory=list)


PEOPLE = (
    Person("U0SAM", "sam.okafor", "Sam Okafor", "Support engineer"),
    Person("U0PRIYA", "priya.nair", "Priya Nair", "Knowledge admin", is_admin=True),
    Person(BOT_USER, "nightshift", "Nightshift", "Learns overnight", is_bot=True),
)
CHANNELS = (
    Channel("C0HELP", "help", "channel", ("U0SAM", "U0PRIYA", BOT_USER), "Ask anything about working here"),
    Channel(
        "C0REVIEW", "nightshift-review", "group", ("U0PRIYA", BOT_USER), "Corrections waiting for a decision"
    ),
    Channel("D0SAM", "directmessage", "im", ("U0SAM", BOT_USER)),
    Channel("D0PRIYA", "directmessage", "im", ("U0PRIYA", BOT_USER)),
)


class State:
    """Everything that happened in the workspace since it started."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Starts with the people and channels and nothing said; `clock` gives seconds since 1970."""
        self.clock = clock
        self.people = {person.id: person for person in PEOPLE}
        self.channels = {channel.id: channel for channel in CHANNELS}
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
            raise SlackError("cannot_reply_to_message", [f"thread_ts {thread_ts} is no message of {channel}"])
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


def with_block_ids(blocks: list[JSON]) -> list[JSON]:
    """The same blocks, each with a block_id, as Slack stores them."""
    return [{"block_id": secrets.token_urlsafe(4), **block} for block in blocks]
