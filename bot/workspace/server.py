"""The workspace as one loopback HTTP server: Web API, Socket Mode, response addresses, files and the page.

Assembles the parts and guards the door: only this machine, only our own page. Knows nothing of the product.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from bot.workspace import events, methods, rules
from bot.workspace.limits import RateLimits
from bot.workspace.people import People
from bot.workspace.snapshot import snapshot
from bot.workspace.socket import ACK_SECONDS, RETRY_GAPS, SocketMode
from bot.workspace.state import SlackError, State

JSON = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

_PAGE = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}
_MOST_BYTES = 16 * 1024 * 1024
_COALESCE_SECONDS = 0.04
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Workspace:
    """A Slack workspace on 127.0.0.1; `night` yields a night run's progress lines, None hides its button.

    `calls` holds every Web API call (method, args, status, response), `violations` a sentence a broken rule.
    """

    def __init__(
        self,
        port: int = 0,
        night: Callable[[], AsyncIterator[str]] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        ack_seconds: float = ACK_SECONDS,
        retry_gaps: tuple[float, ...] = RETRY_GAPS,
        rate_limits: bool = False,
    ) -> None:
        """Prepares; `start` listens.

        `clock`, `ack_seconds` and `retry_gaps` (seconds) let a test wait less; with `rate_limits` a call
        above the tier of its method is answered with 429, as Slack does.
        """
        self.bot_token = f"xoxb-local-{secrets.token_hex(12)}"
        self.app_token = f"xapp-1-A0NIGHT-{secrets.token_hex(12)}"
        self.calls: list[JSON] = []
        self.violations: list[str] = []
        self.state = State(clock)
        self.socket = SocketMode(ack_seconds, retry_gaps)
        self._limits = RateLimits(clock) if rate_limits else None
        self._port = port
        self._night = night
        self._people = People(self.state, self.socket, clock)
        self._faults: dict[str, list[tuple[int, dict[str, str], object]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pages: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None
        self.state.night.available = night is not None
        self.state.emit = self._emit

    # ---- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listens; raises OSError when the port is taken."""
        app = web.Application(middlewares=[_guard(self)], client_max_size=_MOST_BYTES)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.state.origin = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Closes every connection and stops listening."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.socket.close()
        for page in list(self._pages):
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(page.close(), 1.0)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The port, known after `start`."""
        return self._port

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self._port}/"

    @property
    def api_url(self) -> str:
        """The Web API's base address, for the `base_url` of a client."""
        return f"{self.url}api/"

    # ---- faults --------------------------------------------------------------------------------------------

    def inject(self, method: str, status: int, headers: dict[str, str], body: object) -> None:
        """Makes the next call of this method ("response_url" for the hooks) answer this, once."""
        self._faults.setdefault(method, []).append((status, headers, body))

    def drop_sockets(self) -> int:
        """Cuts every Socket Mode connection without a goodbye; how many there were."""
        return self.socket.drop()

    def refresh(self) -> None:
        """Asks the app to reconnect, as Slack does every few hours."""
        self._spawn(self.socket.refresh())

    def _fault(self, method: str) -> web.Response | None:
        if not self._faults.get(method):
            return None
        status, headers, body = self._faults[method].pop(0)
        return web.json_response(body, status=status, headers=headers)

    def _emit(self, event: JSON) -> None:
        self._spawn(self.socket.deliver(events.callback(event, self.state.clock())))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- routes --------------------------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        deeds = {name: getattr(self._people, name) for name in _DEEDS}
        return [
            web.get("/", self._page),
            web.get("/page/{name}", self._page),
            web.get("/archives/{channel}/{place}", self._page),
            web.route("*", "/api/{method}", self._api),
            web.post("/upload/{id}", self._upload),
            web.get("/files/{id}/{name}", self._file),
            web.post("/hook/{key}", self._hook),
            web.get("/link/", self.socket.handle),
            web.get("/link", self.socket.handle),
            web.get("/workspace/state", self._state),
            web.get("/workspace/live", self._live),
            web.post("/workspace/night", self._control(self._run_night)),
            web.post("/workspace/faults", self._control(self._inject)),
            web.post("/workspace/drop", self._control(self._drop)),
            web.post("/workspace/refresh", self._control(self._refresh)),
            *(web.post(f"/workspace/{name}", self._control(deed)) for name, deed in deeds.items()),
        ]

    async def _page(self, request: web.Request) -> web.Response:
        path = _PAGE / request.match_info.get("name", "index.html")
        if path.parent != _PAGE or path.suffix not in _TYPES or not path.is_file():
            raise web.HTTPNotFound(text="No such page.")
        return web.Response(body=path.read_bytes(), content_type=_TYPES[path.suffix], charset="utf-8")

    async def _state(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(snapshot(self.state, request.query.get("user", "U0SAM")))
        except SlackError as error:
            return web.json_response({"ok": False, "error": error.code}, status=400)

    async def _live(self, request: web.Request) -> web.StreamResponse:
        user = request.query.get("user", "U0SAM")
        try:
            snapshot(self.state, user)
        except SlackError as error:
            return web.json_response({"ok": False, "error": error.code}, status=400)
        page = web.WebSocketResponse(heartbeat=20.0)
        await page.prepare(request)
        self._pages.add(page)
        sender = asyncio.create_task(self._push(page, user))
        try:
            async for _ in page:
                pass
        finally:
            sender.cancel()
            self._pages.discard(page)
        return page

    async def _push(self, page: web.WebSocketResponse, user: str) -> None:
        change = self.state.watch()
        try:
            while not page.closed:
                change.clear()
                await page.send_json(snapshot(self.state, user))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(change.wait(), 15.0)
                await asyncio.sleep(_COALESCE_SECONDS)
        except ConnectionError:
            return
        finally:
            self.state.unwatch(change)

    # ---- Web API -------------------------------------------------------------------------------------------

    async def _api(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        kind = rules.token_kind(method)
        if kind is None:
            return self._answered(method, {}, {"ok": False, "error": "unknown_method"})
        args, problems = await _arguments(request, method)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or str(args.pop("token", ""))
        fault = self._fault(method) or self._limited(method, args)
        if fault is not None:
            self.calls.append({"method": method, "args": args, "status": fault.status, "response": None})
            return fault
        refusal = self._token_error(token, kind)
        if refusal:
            return self._answered(method, args, {"ok": False, "error": refusal})
        return self._answered(method, args, self._call(method, args, problems))

    def _limited(self, method: str, args: JSON) -> web.Response | None:
        wait = self._limits.wait(method, args) if self._limits is not None else 0
        if not wait:
            return None
        return web.json_response(
            {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": str(wait)}
        )

    def _token_error(self, token: str, kind: str) -> str | None:
        wanted, other = (
            (self.app_token, self.bot_token) if kind == "app" else (self.bot_token, self.app_token)
        )
        if not token:
            return "not_authed"
        if hmac.compare_digest(token.encode(), wanted.encode()):
            return None
        return (
            "not_allowed_token_type"
            if hmac.compare_digest(token.encode(), other.encode())
            else "invalid_auth"
        )

    def _call(self, method: str, args: JSON, problems: list[str]) -> JSON:
        unknown = rules.unknown_arguments(method, args)
        self.violations += [f"{method}: {problem}" for problem in (*problems, *unknown)]
        wrong = rules.missing_arguments(method, args) + rules.wrong_types(method, args)
        try:
            if wrong:
                raise SlackError("invalid_arguments", wrong)
            if method == "apps.connections.open":
                return {"ok": True, "url": self._socket_url()}
            return methods.call(self.state, method, args)
        except SlackError as error:
            self.violations += [f"{method}: {problem}" for problem in error.problems]
            told = {"response_metadata": {"messages": [f"[ERROR] {p}" for p in error.problems]}}
            return {"ok": False, "error": error.code, **(told if error.problems else {})}

    def _socket_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/link/?ticket={self.socket.new_ticket()}&app_id=A0NIGHT"

    def _answered(self, method: str, args: JSON, body: JSON) -> web.Response:
        self.calls.append({"method": method, "args": args, "status": 200, "response": body})
        return web.json_response(body)

    async def _hook(self, request: web.Request) -> web.Response:
        fault = self._fault("response_url")
        hook = self.state.hooks.get(request.match_info["key"])
        try:
            body = await request.json()
        except ValueError:
            body = None
        self.calls.append({"method": "response_url", "args": body, "status": 200, "response": None})
        if fault is not None:
            return fault
        if hook is None or hook.expires < self.state.clock():
            return web.json_response({"ok": False, "error": "expired_url"}, status=404)
        if hook.uses_left == 0 or not isinstance(body, dict):
            code = "used_url" if hook.uses_left == 0 else "invalid_payload"
            return web.json_response({"ok": False, "error": code}, status=404 if code == "used_url" else 400)
        hook.uses_left -= 1
        try:
            self._people.respond(hook.user, hook.channel, hook.ts, body)
        except SlackError as error:
            self.violations += [f"response_url: {problem}" for problem in error.problems]
            return web.json_response({"ok": False, "error": error.code}, status=400)
        return web.Response(text="ok")

    async def _upload(self, request: web.Request) -> web.Response:
        upload = self.state.uploads.get(request.match_info["id"])
        if upload is None or upload.content is not None:
            raise web.HTTPNotFound(text="This upload address is unknown or was used before.")
        content = await _uploaded_bytes(request)
        if len(content) != upload.length:
            self.violations.append(f"upload: {len(content)} bytes arrived, {upload.length} were announced")
        upload.content = content
        return web.Response(text=f"OK - {len(content)}")

    async def _file(self, request: web.Request) -> web.Response:
        upload = self.state.uploads.get(request.match_info["id"])
        if upload is None or upload.content is None:
            raise web.HTTPNotFound(text="No such file.")
        kind = _IMAGES.get(Path(upload.name).suffix.lower())
        headers = {} if kind else {"Content-Disposition": "attachment"}
        return web.Response(
            body=upload.content, content_type=kind or "application/octet-stream", headers=headers
        )

    # ---- control -------------------------------------------------------------------------------------------

    def _control(self, deed: Callable[[JSON], Awaitable[JSON]]) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            if request.content_type != "application/json":
                return web.json_response({"ok": False, "error": "invalid_content_type"}, status=415)
            try:
                body = await request.json()
                if not isinstance(body, dict):
                    raise SlackError("invalid_arguments")
                return web.json_response({"ok": True, **await deed(body)})
            except ValueError:
                return web.json_response({"ok": False, "error": "invalid_json"}, status=400)
            except SlackError as error:
                self.violations += error.problems
                return web.json_response({"ok": False, "error": error.code}, status=400)

        return handle

    async def _run_night(self, body: JSON) -> JSON:
        if self._night is None:
            raise SlackError("night_not_available")
        if self.state.night.state == "running":
            raise SlackError("night_already_running")
        self.state.night.state, self.state.night.lines = "running", []
        self.state.changed()
        self._spawn(self._follow_night(self._night))
        return {}

    async def _follow_night(self, night: Callable[[], AsyncIterator[str]]) -> None:
        shown = self.state.night
        try:
            async for line in night():
                shown.lines.append(line)
                self.state.changed()
            shown.state = "done"
        except Exception:
            log.exception("the night run failed")
            shown.lines.append(
                "The night stopped before its end; the log says why. Nothing was changed for the bot."
            )
            shown.state = "failed"
        self.state.changed()

    async def _inject(self, body: JSON) -> JSON:
        if not isinstance(body.get("method"), str):
            raise SlackError("invalid_arguments")
        headers = {str(key): str(value) for key, value in (body.get("headers") or {}).items()}
        self.inject(body["method"], int(body.get("status") or 200), headers, body.get("body") or {})
        return {}

    async def _drop(self, body: JSON) -> JSON:
        return {"dropped": self.drop_sockets()}

    async def _refresh(self, body: JSON) -> JSON:
        self.refresh()
        return {}


_DEEDS = ("message", "edit", "delete", "command", "click", "submit", "close_view", "open_home")


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


async def _uploaded_bytes(request: web.Request) -> bytes:
    if request.content_type != "multipart/form-data":
        return await request.read()
    for part in (await request.post()).values():
        if isinstance(part, web.FileField):
            return part.file.read()
    return b""


def _guard(workspace: Workspace) -> Any:
    """The middleware that lets in this machine's own clients and our own page, and nobody's else."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        own = {f"http://{name}:{workspace.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        origin = request.headers.get("Origin")
        if urlsplit(f"//{request.host}").hostname not in _LOOPBACK or (
            origin is not None and origin not in own
        ):
            return web.json_response({"ok": False, "error": "forbidden_origin"}, status=403)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
            response.headers["Content-Security-Policy"] = _policy(workspace.port)
        return response

    return guard


_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def _policy(port: int) -> str:
    sockets = f"ws://127.0.0.1:{port} ws://localhost:{port}"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
