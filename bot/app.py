"""The one assembly point of the Slack bot: client, app, socket, courier; start and stop.

The same app runs against Slack and against the workspace on this machine; only a base URL differs.
"""

import asyncio
import contextlib
import logging
import signal
import time
from typing import TYPE_CHECKING, Any

import aiohttp
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from bot import blocks, channels, decisions, delivery, experts, handover, listeners, payloads, questions, reviews
from bot.checkup import TOKENS, token_problem
from bot.delivery import Answering, Parts
from storage.database import Database
from storage.errors import UserError
from storage.settings import Settings

if TYPE_CHECKING:
    from bot.desk import Desk

log = logging.getLogger(__name__)

PING_SECONDS = 5.0
RECONNECT_SECONDS = 0.5
"""How often a cut socket is looked for; Slack's own client would notice it only at its next ping."""
GRACE_SECONDS = 5.0
"""How long answers that are being posted may take when the bot stops."""


def check_tokens(settings: Settings) -> None:
    """Raise UserError that names every token that is missing or malformed."""
    wrong = [problem for name in TOKENS if (problem := token_problem(name, settings.text(name)))]
    if wrong:
        raise UserError(f"{' and '.join(wrong)}; the README says in five steps where to find them.")


def build_app(parts: Parts) -> AsyncApp:
    """The Bolt app with all its listeners."""
    app = AsyncApp(client=parts.client)
    listeners.register(app, parts)
    reviews.register(app, parts)
    decisions.register(app, parts)
    channels.register(app, parts)
    handover.register(app, parts)
    listeners.register_rest(app)

    async def on_defect(error: Exception, body: dict[str, Any], response: BoltResponse | None) -> None:
        log.error("a defect while reading a payload of type %s", body.get("type"), exc_info=error)
        if (place := sender(body)).user:
            parts.begin(delivery.tell(parts, place, delivery.BROKEN))
        if response is not None:
            response.status = 200

    app.error(on_defect)
    return app


def sender(body: dict[str, Any]) -> delivery.Place:
    """Whom to tell that a payload could not be read, by direct message."""
    user = body.get("user") or body.get("user_id") or (body.get("event") or {}).get("user")
    return delivery.Place(str(user.get("id") if isinstance(user, dict) else user or ""))


class Door(AsyncSocketModeHandler):
    """The socket's listener: everything is acknowledged; what has not the shape that Slack gives it goes no further."""

    async def handle(self, client: SocketModeClient, req: SocketModeRequest) -> None:  # type: ignore[override]
        """Answer one envelope."""
        if wrong := payloads.problem(req.type, req.payload):
            log.warning("an unreadable payload of type %s is ignored: %s", req.type, wrong)
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=req.envelope_id))
            return
        await send_async_response(client, req, await self._heard(req), time.time())

    async def _heard(self, req: SocketModeRequest) -> BoltResponse:
        try:
            response: BoltResponse = await run_async_bolt_app(self.app, req)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            log.warning("Bolt cannot read a payload of type %s: %r", req.type, error)
            return BoltResponse(status=200)
        if response.status == 200:
            return response
        log.info("nobody listens to a payload of type %s", req.type)
        return BoltResponse(status=200)


class SlackBot:
    """The bot on its socket. `start` returns once it is connected; `stop` once it let go of everything."""

    def __init__(self, database: Database, settings: Settings, desk: Answering) -> None:
        """Keep the parts; nothing is opened before `start`."""
        self._database = database
        self._settings = settings
        self._desk = desk
        self._session: aiohttp.ClientSession | None = None
        self._handler: Door | None = None
        self._background: list[asyncio.Task[None]] = []
        self._parts: Parts | None = None

    async def start(self) -> None:
        """Connect. Raises UserError when a token is wrong or Slack cannot be reached."""
        check_tokens(self._settings)
        experts.read(self._settings.text("ASK_A_PERSON"))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        try:
            await self._connect(make_client(self._settings, self._session))
        except BaseException:
            await self.stop()
            raise

    async def _connect(self, client: AsyncWebClient) -> None:
        app_token = self._settings.text("SLACK_APP_TOKEN")
        us = await attempt("SLACK_BOT_TOKEN", client.base_url, client.auth_test())
        address = await socket_address(client, app_token)
        self._parts = Parts(self._database, self._settings, self._desk, client, str(us.get("team_id") or ""))
        await questions.look_back(self._parts)
        handler = Door(build_app(self._parts), app_token, ping_interval=PING_SECONDS)
        handler.client.wss_uri = address
        self._handler = handler
        await handler.connect_async()  # type: ignore[no-untyped-call]
        work = (delivery.deliver_forever(self._parts), keep_connected(handler.client))
        self._background = [asyncio.create_task(task) for task in work]
        log.info("connected to Slack; model %s serves", self._desk.version)

    async def post(self, channel: str, text: str) -> None:
        """Say something in a channel. Raises SlackApiError when Slack refuses it."""
        assert self._parts is not None, "the bot is not connected"
        await delivery.send(self._parts, channel, blocks.sentence(text))

    async def hang_up(self) -> None:
        """Take no more events; what is being worked on goes on."""
        for task in self._background:
            task.cancel()
        if self._handler is not None:
            await self._handler.close_async()  # type: ignore[no-untyped-call]

    async def stop(self) -> None:
        """Take no more events, let posts in flight finish, and close."""
        await self.hang_up()
        await self.finish()

    async def finish(self) -> None:
        """Let posts in flight finish, and close what hung up."""
        tasks = list(self._background)
        if self._parts is not None and self._parts.tasks:
            _, late = await asyncio.wait(set(self._parts.tasks), timeout=GRACE_SECONDS)
            tasks += late
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


async def keep_connected(client: SocketModeClient) -> None:
    """Connect again as soon as the socket is cut."""
    while True:
        await asyncio.sleep(RECONNECT_SECONDS)
        session = client.current_session
        if session is not None and session.closed and client.auto_reconnect_enabled:
            try:
                await client.connect_to_new_endpoint()
            except delivery.UNREACHABLE as error:
                log.warning("the socket was cut and cannot be opened yet: %s", error)


def make_client(settings: Settings, session: aiohttp.ClientSession) -> AsyncWebClient:
    """The Web API client: patient with broken connections and with rate limits."""
    return AsyncWebClient(
        token=settings.text("SLACK_BOT_TOKEN"),
        base_url=settings.text("SLACK_API_URL"),
        session=session,
        retry_handlers=delivery.retries(),
    )


async def socket_address(client: AsyncWebClient, app_token: str) -> str:
    """Get an address to connect to. Raises UserError when Slack refuses the app token."""
    opened = await attempt(
        "SLACK_APP_TOKEN", client.base_url, client.apps_connections_open(app_token=app_token)
    )
    return str(opened["url"])


async def attempt(token: str, url: str, call: Any) -> Any:
    """Make a first call to Slack. Raises UserError when it refuses the token or cannot be reached."""
    try:
        return await call
    except SlackApiError as error:
        raise UserError(f"Slack refuses {token}: {error.response.get('error')}.") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UserError(f"Slack cannot be reached at {url}: {error}.") from error


async def serve(database: Database, settings: Settings) -> None:
    """Run the bot against Slack until the process is told to end."""
    from bot.desk import Desk

    check_tokens(settings)
    experts.read(settings.text("ASK_A_PERSON"))
    end = told_to_end()
    desk = Desk(database, settings)
    bot = SlackBot(database, settings, desk)
    try:
        await asyncio.to_thread(desk.start)
        if not end.is_set():
            await bot.start()
        await end.wait()
    finally:
        await let_go(bot, desk)


def told_to_end() -> asyncio.Event:
    """What Ctrl-C and SIGTERM set from now on; they end nothing by themselves, which would look like a crash."""
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, end.set)
    return end


async def let_go(bot: SlackBot, desk: "Desk") -> None:
    """Stop without losing anybody: no more events, then the desk tells those who wait, then what is posted ends."""
    await bot.hang_up()
    await asyncio.to_thread(desk.close)
    await bot.finish()
