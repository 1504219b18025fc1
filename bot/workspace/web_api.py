"""The door of the Web API: tokens, argument rules, injected faults and rate limits, then the method itself.

Keeps every call and every broken rule. Knows nothing of pages, people and sockets.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bot.workspace import methods, rules
from bot.workspace.limits import RateLimits
from bot.workspace.nouns import SlackError
from bot.workspace.state import State

JSON = dict[str, Any]

log = logging.getLogger(__name__)


@dataclass
class Fault:
    """How the next calls of a method go wrong: an answer instead of the real one, a delay, or both."""

    status: int = 200
    headers: dict[str, str] | None = None
    body: object = None
    times: int = 1
    seconds: float = 0.0

    @property
    def response(self) -> web.Response | None:
        """The answer; None when the call is only slow."""
        if self.body is None:
            return None
        return web.json_response(self.body, status=self.status, headers=self.headers)


class WebApi:
    """Answers `/api/METHOD`. `calls` holds every call, `violations` a sentence for every broken rule."""

    def __init__(
        self, state: State, *, bot_token: str, app_token: str, socket_url: Callable[[], str], limits: RateLimits | None
    ) -> None:
        """Works on this state; `socket_url` gives a new address for a socket."""
        self.calls: list[JSON] = []
        self.violations: list[str] = []
        self.limits = limits
        self._state = state
        self._tokens = {"bot": bot_token, "app": app_token}
        self._socket_url = socket_url
        self._faults: dict[str, list[Fault]] = {}

    def inject(self, method: str, fault: Fault) -> None:
        """Lets the next calls of this method go wrong; faults of one method queue up."""
        self._faults.setdefault(method, []).append(fault)

    def broke(self, method: str, problems: Iterable[str]) -> None:
        """Notes that the app broke rules of Slack, one sentence each."""
        for problem in problems:
            self.violations.append(f"{method}: {problem}")
            log.error("the app broke a rule of Slack: %s: %s", method, problem)

    async def fault(self, method: str) -> web.Response | None:
        """The answer that a queued fault gives, after its delay."""
        queued = self._faults.get(method)
        if not queued:
            return None
        fault = queued[0]
        fault.times -= 1
        if fault.times <= 0:
            queued.pop(0)
        await asyncio.sleep(fault.seconds)
        return fault.response

    async def handle(self, request: web.Request) -> web.Response:
        """Answers one call as Slack would."""
        method = request.match_info["method"]
        kind = rules.token_kind(method)
        if kind is None:
            self.broke(method, ["there is no such method"])
            return self._answered(method, {}, {"ok": False, "error": "unknown_method"})
        args, problems = await _arguments(request, method)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or str(args.pop("token", ""))
        fault = await self.fault(method) or self._limited(method, args)
        if fault is not None:
            self.calls.append({"method": method, "args": args, "status": fault.status, "response": None})
            return fault
        if refusal := self._token_error(token, kind):
            return self._answered(method, args, {"ok": False, "error": refusal})
        return self._answered(method, args, self._call(method, args, problems))

    def _limited(self, method: str, args: JSON) -> web.Response | None:
        wait = self.limits.wait(method, args) if self.limits is not None else 0
        if not wait:
            return None
        told = {"ok": False, "error": "ratelimited"}
        return web.json_response(told, status=429, headers={"Retry-After": str(wait)})

    def _token_error(self, token: str, kind: str) -> str | None:
        if not token:
            return "not_authed"
        if hmac.compare_digest(token.encode(), self._tokens[kind].encode()):
            return None
        known = any(hmac.compare_digest(token.encode(), other.encode()) for other in self._tokens.values())
        return "not_allowed_token_type" if known else "invalid_auth"

    def _call(self, method: str, args: JSON, problems: list[str]) -> JSON:
        self.broke(method, (*problems, *rules.unknown_arguments(method, args)))
        wrong = rules.missing_arguments(method, args) + rules.wrong_types(method, args)
        try:
            if wrong:
                raise SlackError("invalid_arguments", wrong)
            if method == "apps.connections.open":
                return {"ok": True, "url": self._socket_url()}
            return methods.call(self._state, method, args)
        except SlackError as error:
            self.broke(method, error.problems)
            told = {"response_metadata": {"messages": [f"[ERROR] {p}" for p in error.problems]}}
            return {"ok": False, "error": error.code, **(told if error.problems else {})}

    def _answered(self, method: str, args: JSON, body: JSON) -> web.Response:
        self.calls.append({"method": method, "args": args, "status": 200, "response": body})
        return web.json_response(body)


async def _arguments(request: web.Request, method: str) -> tuple[JSON, list[str]]:
    args = rules.decode_form(method, dict(request.query))
    if request.content_type == "application/json":
        try:
            body = json.loads(await request.read() or b"{}")
        except ValueError:
            return args, ["the body is not JSON"]
        problems = [] if rules.takes_json(method) or not body else ["takes no JSON body"]
        given = body if isinstance(body, dict) else {}
        return {**args, **{key: rules.decode(method, key, value) for key, value in given.items()}}, problems
    form = {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
    return {**args, **rules.decode_form(method, form)}, []
