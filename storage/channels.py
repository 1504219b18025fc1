"""How the bot is to behave in each channel, as admins set it in Slack.

A channel that nobody configured has the defaults. A change names the revision that its author saw, so that of two
admins who change the same channel the later one is told. It knows nothing of Slack.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

from storage import audit, trust
from storage.database import Database, Row, now
from storage.errors import ConflictError, UserError

SHARED = "shared:"
MOST_ALLOWED = 500
"""Names on one channel's list of people."""


@dataclass(frozen=True)
class ChannelSettings:
    """The settings of one channel; `allowed` names the people who may ask, nobody named means everybody."""

    channel: str
    mention_only: bool = False
    questions_only: bool = False
    citations_required: bool = False
    private_answers: bool = False
    allowed: tuple[str, ...] = ()
    person: str = ""
    revision: int = 0
    changed_by: str = ""
    changed_at: str = ""


def settings_of(database: Database, channel: str) -> ChannelSettings:
    """The settings of a channel; the defaults where nobody set any."""
    row = database.row("SELECT * FROM channel_settings WHERE channel = ?", [channel])
    return ChannelSettings(channel) if row is None else settings_from(row)


def configured(database: Database) -> tuple[ChannelSettings, ...]:
    """The settings of every channel that has some."""
    return tuple(settings_from(r) for r in database.rows("SELECT * FROM channel_settings ORDER BY channel"))


def change(database: Database, wanted: ChannelSettings, user: str) -> ChannelSettings:
    """Store a channel's settings; `wanted.revision` is the one that the user saw.

    Raises ConflictError when somebody else changed them since, UserError for too long a list.
    """
    if len(wanted.allowed) > MOST_ALLOWED:
        raise UserError(f"{len(wanted.allowed)} people are listed; at most {MOST_ALLOWED} can be.")
    with database.write() as db:
        stands = settings_of(database, wanted.channel)
        if stands.revision != wanted.revision:
            raise ConflictError("Somebody else changed the settings of this channel meanwhile.")
        changed = replace(wanted, revision=stands.revision + 1, changed_by=user, changed_at=now())
        row = asdict(changed) | {"allowed": json.dumps(sorted(set(wanted.allowed)))}
        db.table("channel_settings").insert(row, pk="channel", replace=True)
        audit.append(database, "settings.channel", **row)
    return settings_of(database, wanted.channel)


def settings_from(row: Row) -> ChannelSettings:
    """A database row as ChannelSettings."""
    switches = ("mention_only", "questions_only", "citations_required", "private_answers")
    told = {name: bool(row[name]) for name in switches}
    return ChannelSettings(**row | told | {"allowed": tuple(json.loads(row["allowed"]))})


# --- private and shared channels ---

PRIVATE = (
    "SELECT channel FROM private_channels UNION SELECT scope FROM corrections UNION SELECT scope FROM documents"
)
"""Every channel that is known to be private: Slack said so, or something was kept for it alone."""
IN_PRIVATE = f"(channel GLOB '[DG]*' OR channel IN ({PRIVATE}))"
"""Whether the `channel` of a row is a direct message or a private channel."""


def note_private(database: Database, channel: str) -> None:
    """Remember that a channel is private: what is asked in it never becomes a wording that is trained."""
    if database.row("SELECT 1 FROM private_channels WHERE channel = ?", [channel]) is None:
        with database.write() as db:
            db.table("private_channels").insert({"channel": channel, "noted_at": now()}, ignore=True, pk="channel")


def note_shared(database: Database, channel: str, *, shared: bool) -> None:
    """Remember whether a channel is shared with another organisation, as its latest message says."""
    if is_shared(database, channel) != shared:
        trust.keep(database, SHARED + channel, int(shared))


def is_shared(database: Database, channel: str) -> bool:
    """Whether people of another organisation read a channel, as far as its messages told."""
    return bool(database.value("SELECT value FROM state WHERE name = ?", [SHARED + channel]))


def said_in_private(database: Database, texts: Collection[str]) -> frozenset[str]:
    """Those of some texts that were asked in a direct message or in a private channel."""
    rows = database.rows(
        "SELECT DISTINCT text FROM questions WHERE text IN (SELECT value FROM json_each(?)) "
        f"AND {IN_PRIVATE}",
        [json.dumps(list(texts))],
    )
    return frozenset(r["text"] for r in rows)
