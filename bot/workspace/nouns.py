"""The nouns of a workspace: people, channels, messages, views, files, and what expires.

They know how the Web API shows them, and nothing of one another, of HTTP or of the app that is being tried.
"""

import secrets
from collections.abc import Iterable
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
    is_restricted: bool = False
    is_ultra_restricted: bool = False
    team: str = TEAM_ID

    @property
    def is_external(self) -> bool:
        """Whether this person belongs to another organisation and is here through a shared channel."""
        return self.team != TEAM_ID

    def to_api(self) -> JSON:
        """The user object of `users.info`; only somebody of another organisation has `is_stranger`."""
        profile = {
            "real_name": self.real_name,
            "display_name": self.real_name,
            "title": self.title,
            "email": f"{self.name}@{'elsewhere' if self.is_external else TEAM_DOMAIN}.example",
            "team": self.team,
        }
        flags = {
            "deleted": False,
            "is_admin": self.is_admin,
            "is_owner": self.is_admin,
            "is_bot": self.is_bot,
            "is_app_user": False,
            "is_restricted": self.is_restricted or self.is_ultra_restricted,
            "is_ultra_restricted": self.is_ultra_restricted,
            **({"is_stranger": False} if self.is_external else {}),
        }
        where = {"tz": "Etc/UTC", "tz_label": "UTC", "tz_offset": 0}
        names = {"id": self.id, "team_id": self.team, "name": self.name, "real_name": self.real_name}
        return {**names, **flags, **where, "profile": profile}


@dataclass(frozen=True)
class Channel:
    """A conversation: public (`channel`), private (`group`), one to one (`im`) or several people (`mpim`).

    `shared_with` holds the teams of other organisations that are connected to it.
    """

    id: str
    name: str
    kind: Literal["channel", "group", "im", "mpim"]
    members: tuple[str, ...]
    topic: str = ""
    shared_with: tuple[str, ...] = ()

    def to_api(self) -> JSON:
        """The channel object of `conversations.info`."""
        base: JSON = {
            "id": self.id,
            "created": 1_700_000_000,
            "context_team_id": TEAM_ID,
            "is_archived": False,
            "is_im": self.kind == "im",
            "is_mpim": self.kind == "mpim",
            "is_ext_shared": bool(self.shared_with),
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
            "is_shared": bool(self.shared_with),
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
    team: str = TEAM_ID
    revision: int = 0

    def to_api(self) -> JSON:
        """The message object as the Web API and events show it."""
        shown: JSON = {
            "type": "message",
            "user": self.user,
            "text": self.text or self.markdown,
            "ts": self.ts,
            "team": self.team,
        }
        if self.team != TEAM_ID:
            shown |= {"user_team": self.team, "source_team": self.team}
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


@dataclass(frozen=True)
class UserGroup:
    """People who are mentioned together, such as @knowledge-admins."""

    id: str
    handle: str
    name: str
    users: tuple[str, ...]

    def to_api(self) -> JSON:
        """The user group object of `usergroups.list`."""
        told = {"id": self.id, "team_id": TEAM_ID, "handle": self.handle, "name": self.name}
        return {**told, "is_usergroup": True, "date_delete": 0, "user_count": len(self.users)}


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
    Channel("C0REVIEW", "nightshift-review", "group", ("U0PRIYA", BOT_USER), "Corrections waiting for a decision"),
    Channel("D0SAM", "directmessage", "im", ("U0SAM", BOT_USER)),
    Channel("D0PRIYA", "directmessage", "im", ("U0PRIYA", BOT_USER)),
)
GROUPS = (UserGroup("S0ADMINS", "knowledge-admins", "Knowledge admins", ("U0PRIYA",)),)


def with_block_ids(blocks: list[JSON]) -> list[JSON]:
    """The same blocks, each with a block_id, as Slack stores them."""
    return [{"block_id": secrets.token_urlsafe(4), **block} for block in blocks]
