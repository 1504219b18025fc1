"""Who people are: an admin by user id or user group, a guest, somebody of another organisation.

Slack is asked, with a cache so short that a right taken away is gone within half a minute. When Slack cannot tell,
nobody is an admin and nobody unknown is let in. It knows nothing of what admins do.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from storage.errors import NotAllowedError, UserError
from storage.settings import Settings

log = logging.getLogger(__name__)

GROUP_SECONDS = 30.0
PERSON_SECONDS = 300.0
MOST_KEPT = 5000
ONLY_ADMINS = "Only reviewers can decide about corrections; ask an admin of this bot."
GUEST = "I answer members of this workspace only. Please ask a colleague who is one."
UNKNOWN = "I could not find out from Slack who you are; please ask again in a minute."
Answer = Mapping[str, Any]
T = TypeVar("T")


class Slack(Protocol):
    """The methods of Slack's client that tell who somebody is."""

    def auth_test(self) -> Awaitable[Any]:
        """The bot's own team."""
        ...

    def users_info(self, *, user: str) -> Awaitable[Any]:
        """One person."""
        ...

    def usergroups_users_list(self, *, usergroup: str) -> Awaitable[Any]:
        """The people of a user group."""
        ...


@dataclass
class People:
    """Answers who somebody is; asks Slack when it does not know or has not asked lately."""

    client: Slack
    settings: Settings
    clock: Callable[[], float] = time.monotonic
    _kept: dict[tuple[str, str], tuple[float, Any]] = field(default_factory=dict)

    async def is_admin(self, user: str) -> bool:
        """Whether a person may review: named in ADMINS, or in a user group named there. Asked at every click."""
        named = self.settings.names("ADMINS")
        if user in named:
            return True
        for group in sorted(n for n in named if n.startswith("S")):
            if user in await self._members(group):
                return True
        return False

    async def must_be_admin(self, user: str) -> None:
        """Raise NotAllowedError unless a person may review."""
        if not await self.is_admin(user):
            raise NotAllowedError(ONLY_ADMINS)

    async def must_be_member(self, user: str) -> None:
        """Raise NotAllowedError for guests and outsiders, UserError when Slack cannot tell who somebody is."""
        if self.settings.text("GUESTS") == "allow" or await self.is_admin(user):
            return
        try:
            told = await self._remembered(("person", user), PERSON_SECONDS, lambda: self._is_outsider(user))
        except Exception as error:
            log.warning("Slack did not say who %s is: %s", user, error)
            raise UserError(UNKNOWN) from error
        if told:
            raise NotAllowedError(GUEST)

    async def _members(self, group: str) -> frozenset[str]:
        """The people of a user group; nobody when Slack cannot tell."""
        try:
            return await self._remembered(("group", group), GROUP_SECONDS, lambda: self._ask_group(group))
        except Exception as error:
            log.warning("Slack did not say who is in the user group %s: %s", group, error)
            return frozenset()

    async def _ask_group(self, group: str) -> frozenset[str]:
        return frozenset((await self.client.usergroups_users_list(usergroup=group))["users"])

    async def _is_outsider(self, user: str) -> bool:
        us = await self._remembered(("team", ""), PERSON_SECONDS, self._ask_team)
        return is_outsider((await self.client.users_info(user=user))["user"], us)

    async def _ask_team(self) -> Answer:
        told = await self.client.auth_test()
        return {"team_id": told.get("team_id"), "enterprise_id": told.get("enterprise_id")}

    async def _remembered(self, key: tuple[str, str], seconds: float, find: Callable[[], Awaitable[T]]) -> T:
        """What was found for a key at most so many seconds ago, else what is found now; failures are not kept."""
        until, value = self._kept.get(key, (0.0, None))
        if self.clock() < until:
            kept: T = value
            return kept
        found = await find()
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[key] = (self.clock() + seconds, found)
        return found


def is_outsider(person: Answer, us: Answer) -> bool:
    """Whether Slack's record of a person is that of a guest or of somebody of another organisation."""
    if any(person.get(flag) for flag in ("is_restricted", "is_ultra_restricted", "is_stranger", "deleted")):
        return True
    if person.get("team_id") in (None, us["team_id"]):
        return False
    enterprise = (person.get("enterprise_user") or {}).get("enterprise_id")
    return enterprise is None or enterprise != us["enterprise_id"]
