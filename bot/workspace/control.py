"""The control endpoints: what people do, the night, and every fault that can be made to happen.

One JSON object in, one out, under `/workspace/`. Knows nothing of the Web API's methods.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from aiohttp import web

from bot.workspace import events
from bot.workspace.limits import MINUTE, RateLimits
from bot.workspace.nouns import HOOK_SECONDS, STREAM_SECONDS, TEAM_ID, TRIGGER_SECONDS, Person, SlackError, UserGroup
from bot.workspace.people import People
from bot.workspace.socket import SocketMode
from bot.workspace.state import State
from bot.workspace.web_api import Fault, WebApi

JSON = dict[str, Any]
Deed = Callable[[JSON], Awaitable[JSON]]
Spawn = Callable[[Coroutine[Any, Any, Any]], None]

log = logging.getLogger(__name__)

DEEDS = ("message", "group", "edit", "delete", "command", "click", "submit", "close_view", "open_home")
"""What people do on the page."""
STOPPED = "The night stopped before its end; the log says why. Nothing was changed for the bot."


class Control:
    """Everything under `/workspace/` that changes something."""

    def __init__(
        self,
        state: State,
        api: WebApi,
        socket: SocketMode,
        spawn: Spawn,
        night: Callable[[], AsyncIterator[str]] | None,
    ) -> None:
        """Drives these parts; `spawn` goes on with something in the background."""
        self._state = state
        self._api = api
        self._socket = socket
        self._spawn = spawn
        self._night = night
        self.people = People(state, socket, state.clock)

    def routes(self) -> list[web.RouteDef]:
        """One POST route a deed."""
        faults: dict[str, Deed] = {
            "night": self._run_night,
            "faults": self._inject,
            "drop": self._drop,
            "refresh": self._refresh,
            "limits": self._limit,
            "acks": self._lose_acks,
            "redeliver": self._redeliver,
            "event": self._event,
            "expire": self._expire,
            "person": self._person,
            "usergroup": self._usergroup,
        }
        deeds = faults | {name: getattr(self.people, name) for name in DEEDS}
        return [web.post(f"/workspace/{name}", self._answering(deed)) for name, deed in deeds.items()]

    def _answering(self, deed: Deed) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.Response:
            if request.content_type != "application/json":
                return web.json_response({"ok": False, "error": "invalid_content_type"}, status=415)
            try:
                body = await request.json()
                if not isinstance(body, dict):
                    raise SlackError("invalid_arguments")
                return web.json_response({"ok": True, **await deed(body)})
            except (ValueError, TypeError):
                return web.json_response({"ok": False, "error": "invalid_json"}, status=400)
            except SlackError as error:
                self._api.broke(request.path.rpartition("/")[2], error.problems)
                return web.json_response({"ok": False, "error": error.code}, status=400)

        return handle

    # ---- the night -----------------------------------------------------------------------------------------

    async def _run_night(self, body: JSON) -> JSON:
        if self._night is None:
            raise SlackError("night_not_available")
        if self._state.night.state == "running":
            raise SlackError("night_already_running")
        self._state.night.state, self._state.night.lines = "running", []
        self._state.changed()
        self._spawn(self._follow_night(self._night))
        return {}

    async def _follow_night(self, night: Callable[[], AsyncIterator[str]]) -> None:
        shown = self._state.night
        try:
            async for line in night():
                shown.lines.append(line)
                self._state.changed()
            shown.state = "done"
        except Exception:
            log.exception("the night run failed")
            shown.lines.append(STOPPED)
            shown.state = "failed"
        self._state.changed()

    # ---- faults --------------------------------------------------------------------------------------------

    async def _inject(self, body: JSON) -> JSON:
        """`method` answers `status`, `headers`, `body` for `times` calls, after `seconds`; no body: only slow."""
        if not isinstance(body.get("method"), str):
            raise SlackError("invalid_arguments")
        headers = {str(key): str(value) for key, value in (body.get("headers") or {}).items()}
        status, times = int(body.get("status") or 200), int(body.get("times") or 1)
        fault = Fault(status, headers, body.get("body"), times, float(body.get("seconds") or 0.0))
        self._api.inject(body["method"], fault)
        return {}

    async def _drop(self, body: JSON) -> JSON:
        """Cuts every socket without a goodbye."""
        return {"dropped": self._socket.drop()}

    async def _refresh(self, body: JSON) -> JSON:
        """Asks the app to reconnect."""
        self._spawn(self._socket.refresh())
        return {}

    async def _limit(self, body: JSON) -> JSON:
        """Keeps the rate limits from now on, or no longer with `on: false`; `minute` is its length in seconds."""
        minute = float(body.get("minute") or MINUTE)
        self._api.limits = None if body.get("on") is False else RateLimits(self._state.clock, minute)
        return {}

    async def _lose_acks(self, body: JSON) -> JSON:
        """Overlooks the next `count` acknowledgements."""
        self._socket.lose_acks(int(body.get("count") or 1))
        return {}

    async def _redeliver(self, body: JSON) -> JSON:
        """Delivers the last `count` events once more, all at once."""
        again = list(self._socket.recent)[-int(body.get("count") or 1) :]
        for payload in again:
            self._spawn(self._socket.redeliver(payload))
        return {"redelivered": len(again)}

    async def _event(self, body: JSON) -> JSON:
        """Sends the object `event` as an event, whatever it holds."""
        self._spawn(self._socket.deliver(events.callback(body.get("event") or {}, self._state.clock())))
        return {}

    async def _expire(self, body: JSON) -> JSON:
        """Lets `what` grow old at once: streams, triggers, hooks, statuses, or the hashes of views."""
        state, what = self._state, body.get("what")
        if what == "streams":
            state.stream_started = {ts: start - STREAM_SECONDS for ts, start in state.stream_started.items()}
        elif what == "views":
            for view in state.views.values():
                view.data["hash"] += "x"
        else:
            aged: dict[object, tuple[Any, float]] = {
                "triggers": (state.triggers, TRIGGER_SECONDS + 1),
                "hooks": (state.hooks, HOOK_SECONDS + 1),
                "statuses": (state.statuses, HOOK_SECONDS),
            }
            if what not in aged:
                raise SlackError("invalid_arguments")
            held, seconds = aged[what]
            for thing in held.values():
                thing.expires -= seconds
        state.changed()
        return {}

    # ---- who is here ---------------------------------------------------------------------------------------

    async def _person(self, body: JSON) -> JSON:
        """Lets somebody in: `id`, `name`, and `guest`, `single_channel` or `team` for those from outside."""
        name = str(body.get("name") or "")
        if not str(body.get("id") or "").startswith(("U", "W")) or not name:
            raise SlackError("invalid_arguments")
        person = Person(
            str(body["id"]),
            name.lower().replace(" ", "."),
            name,
            str(body.get("title") or ""),
            is_admin=bool(body.get("admin")),
            is_restricted=bool(body.get("guest")),
            is_ultra_restricted=bool(body.get("single_channel")),
            team=str(body.get("team") or TEAM_ID),
        )
        self._state.add_person(person, [str(channel) for channel in body.get("channels") or []])
        return {}

    async def _usergroup(self, body: JSON) -> JSON:
        """Makes or changes a user group: `id`, `handle`, `users`."""
        users = tuple(self._state.person(str(user)).id for user in body.get("users") or [])
        handle = str(body.get("handle") or "group")
        group = UserGroup(str(body.get("id") or "S0GROUP"), handle, handle.replace("-", " ").capitalize(), users)
        self._state.groups[group.id] = group
        return {"usergroup": group.id}
