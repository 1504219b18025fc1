"""The workspace as one loopback HTTP server: Web API, Socket Mode, response addresses, files and the page.

Assembles the parts and guards the door: only this machine, only our own page. Knows nothing of the product.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from bot.workspace import events, methods
from bot.workspace.control import Control
from bot.workspace.limits import MINUTE, RateLimits
from bot.workspace.nouns import SlackError
from bot.workspace.people import People
from bot.workspace.snapshot import snapshot
from bot.workspace.socket import ACK_SECONDS, RETRY_GAPS, SocketMode
from bot.workspace.state import State
from bot.workspace.web_api import Fault, WebApi

JSON = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

_PAGE = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
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
        minute: float = MINUTE,
    ) -> None:
        """Prepares; `start` listens.

        `clock`, `ack_seconds`, `retry_gaps` and `minute` (seconds) let a test wait less; with `rate_limits` a
        call above the tier of its method is answered with 429, as Slack does.
        """
        self.bot_token = f"xoxb-local-{secrets.token_hex(12)}"
        self.app_token = f"xapp-1-A0NIGHT-{secrets.token_hex(12)}"
        self.state = State(clock)
        self.socket = SocketMode(ack_seconds, retry_gaps)
        self._port = port
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pages: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None
        self._api = WebApi(
            self.state,
            bot_token=self.bot_token,
            app_token=self.app_token,
            socket_url=self._socket_url,
            limits=RateLimits(clock, minute) if rate_limits else None,
        )
        self._control = Control(self.state, self._api, self.socket, self._spawn, night)
        self.state.night.available = night is not None
        self.state.emit = self._emit

    @property
    def calls(self) -> list[JSON]:
        """Every Web API call so far."""
        return self._api.calls

    @property
    def violations(self) -> list[str]:
        """A sentence for every rule of Slack that the app broke."""
        return self._api.violations

    @property
    def people(self) -> People:
        """What the people do, as the page's requests do it."""
        return self._control.people

    def _socket_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/link/?ticket={self.socket.new_ticket()}&app_id=A0NIGHT"

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

    def inject(
        self,
        method: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
        body: object = None,
        *,
        times: int = 1,
        seconds: float = 0.0,
    ) -> None:
        """Makes the next `times` calls of this method ("response_url" for the hooks) answer this, or only late."""
        self._api.inject(method, Fault(status, headers, body, times, seconds))

    def drop_sockets(self) -> int:
        """Cuts every Socket Mode connection without a goodbye; how many there were."""
        return self.socket.drop()

    def refresh(self) -> None:
        """Asks the app to reconnect, as Slack does every few hours."""
        self._spawn(self.socket.refresh())

    def _emit(self, event: JSON) -> None:
        channel = self.state.channels.get(str(event.get("channel")))
        shared = channel is not None and bool(channel.shared_with)
        self._spawn(self.socket.deliver(events.callback(event, self.state.clock(), shared=shared)), "delivery")

    @property
    def delivering(self) -> bool:
        """Whether an event is still on its way to the app."""
        return any(task.get_name() == "delivery" for task in self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- routes --------------------------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._page),
            web.get("/page/{name}", self._page),
            web.get("/archives/{channel}/{place}", self._page),
            web.route("*", "/api/{method}", self._api.handle),
            web.post("/upload/{id}", self._upload),
            web.get("/files/{id}/{name}", self._file),
            web.post("/hook/{key}", self._hook),
            web.get("/link/", self.socket.handle),
            web.get("/link", self.socket.handle),
            web.get("/workspace/state", self._state),
            web.get("/workspace/live", self._live),
            *self._control.routes(),
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

    # ---- response addresses and files ----------------------------------------------------------------------

    async def _hook(self, request: web.Request) -> web.Response:
        fault = await self._api.fault("response_url")
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
            self.people.respond(hook.user, hook.channel, hook.ts, body)
        except SlackError as error:
            self._api.broke("response_url", error.problems)
            return web.json_response({"ok": False, "error": error.code}, status=400)
        return web.Response(text="ok")

    async def _upload(self, request: web.Request) -> web.Response:
        upload = self.state.uploads.get(request.match_info["id"])
        if upload is None or upload.content is not None:
            raise web.HTTPNotFound(text="This upload address is unknown or was used before.")
        content = await _uploaded_bytes(request)
        if len(content) != upload.length:
            self._api.broke("upload", [f"{len(content)} bytes arrived, {upload.length} were announced"])
        upload.content = content
        return web.Response(text=f"OK - {len(content)}")

    async def _file(self, request: web.Request) -> web.Response:
        upload = self.state.uploads.get(request.match_info["id"])
        if upload is None or upload.content is None:
            raise web.HTTPNotFound(text="No such file.")
        kind = methods.mimetype(upload.name)
        headers = {} if kind.startswith("image/") else {"Content-Disposition": "attachment"}
        return web.Response(body=upload.content, content_type=kind, headers=headers)


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
        if urlsplit(f"//{request.host}").hostname not in _LOOPBACK or (origin is not None and origin not in own):
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
