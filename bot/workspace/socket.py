"""Socket Mode: tickets, hello, envelopes, acknowledgements, redelivery, refresh and drops.

Knows nothing of what the payloads mean. An event that is not acknowledged in time is sent
again with retry_attempt, up to three times; Slack waits 0, 60 and 300 seconds before these, here it is less.
"""

import asyncio
import contextlib
import json
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from bot.workspace.nouns import APP_ID

JSON = dict[str, Any]

ACK_SECONDS = 3.0
RETRY_GAPS = (0.0, 2.0, 6.0)
CONNECT_SECONDS = 60.0
REFRESH_SECONDS = 10.0
REMEMBERED = 2000
"""How many events are kept for being delivered once more."""


class NotAcknowledgedError(Exception):
    """The app did not acknowledge in time, or nobody was connected; `code` is what Slack shows the person."""

    def __init__(self, code: str) -> None:
        """Keeps the code."""
        super().__init__(code)
        self.code = code


@dataclass(eq=False)
class Connection:
    """One open socket; a retiring one gets no new envelopes."""

    socket: web.WebSocketResponse
    transport: asyncio.Transport | None
    retiring: bool = False
    waiting: dict[str, asyncio.Future[JSON]] = field(default_factory=dict)


class SocketMode:
    """The sockets of one app and the envelopes on their way."""

    def __init__(self, ack_seconds: float = ACK_SECONDS, retry_gaps: tuple[float, ...] = RETRY_GAPS) -> None:
        """Starts without connections; both arguments are seconds."""
        self.ack_seconds = ack_seconds
        self.retry_gaps = retry_gaps
        self.connections: list[Connection] = []
        self.tickets: set[str] = set()
        self.recent: deque[JSON] = deque(maxlen=REMEMBERED)
        self.deliveries = 0
        self.lost_acks = 0
        self._connected = asyncio.Event()
        self._turn = 0

    def new_ticket(self) -> str:
        """A ticket that opens one connection."""
        ticket = str(uuid.uuid4())
        self.tickets.add(ticket)
        return ticket

    # ---- one connection ------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serves one socket from hello to its end."""
        ticket = request.query.get("ticket", "")
        if ticket not in self.tickets:
            raise web.HTTPUnauthorized(text="This ticket is unknown or was used before.")
        self.tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(socket, request.transport)
        self.connections.append(connection)
        await socket.send_json(self._hello())
        self._connected.set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._acknowledged(connection, message.data)
        finally:
            self._forget(connection)
        return socket

    def _acknowledged(self, connection: Connection, data: str) -> None:
        try:
            answer = json.loads(data)
        except ValueError:
            return
        future = connection.waiting.get(str(answer.get("envelope_id"))) if isinstance(answer, dict) else None
        if future is None or future.done():
            return
        if self.lost_acks > 0:
            self.lost_acks -= 1
            return
        payload = answer.get("payload")
        future.set_result(payload if isinstance(payload, dict) else {})

    def _hello(self) -> JSON:
        return {
            "type": "hello",
            "num_connections": len(self.connections),
            "debug_info": {"host": "applink-local", "build_number": 1, "approximate_connection_time": 18060},
            "connection_info": {"app_id": APP_ID},
        }

    def _forget(self, connection: Connection) -> None:
        self.connections.remove(connection)
        for future in connection.waiting.values():
            if not future.done():
                future.set_exception(NotAcknowledgedError("dispatch_failed"))
        self._note_connected()

    def _note_connected(self) -> None:
        if any(not connection.retiring for connection in self.connections):
            self._connected.set()
        else:
            self._connected.clear()

    # ---- sending -------------------------------------------------------------------------------------------

    async def deliver(self, payload: JSON) -> bool:
        """Sends an event until it is acknowledged; True when it was, False after the last attempt."""
        self.recent.append(payload)
        reason = ""
        for attempt, gap in enumerate((0.0, *self.retry_gaps)):
            await asyncio.sleep(gap)
            retry = {"retry_attempt": attempt, "retry_reason": reason}
            try:
                await self._attempt("events_api", payload, retry, wait=CONNECT_SECONDS)
            except NotAcknowledgedError as error:
                reason = "timeout" if error.code == "operation_timeout" else "connection_failed"
            else:
                return True
        return False

    async def redeliver(self, payload: JSON) -> None:
        """Sends an event once more although it was acknowledged, as Slack does when the ack came too late."""
        with contextlib.suppress(NotAcknowledgedError):
            retry = {"retry_attempt": 1, "retry_reason": "timeout"}
            await self._attempt("events_api", payload, retry, wait=CONNECT_SECONDS)

    async def send(self, kind: str, payload: JSON) -> bool:
        """Sends any payload once, of the kind events_api, interactive or slash_commands; True if acknowledged."""
        try:
            await self._attempt(kind, payload, {}, wait=CONNECT_SECONDS)
        except NotAcknowledgedError:
            return False
        return True

    async def ask(self, kind: str, payload: JSON) -> JSON:
        """Sends an interaction or a slash command once; the payload of its acknowledgement, or nothing."""
        return await self._attempt(kind, payload, {}, wait=self.ack_seconds)

    async def _attempt(self, kind: str, payload: JSON, retry: JSON, *, wait: float) -> JSON:
        connection = await self._next_connection(wait)
        envelope_id = str(uuid.uuid4())
        accepts = kind != "events_api"
        envelope = {"envelope_id": envelope_id, "type": kind, "payload": payload, **retry}
        future: asyncio.Future[JSON] = asyncio.get_running_loop().create_future()
        connection.waiting[envelope_id] = future
        self.deliveries += kind == "events_api"
        try:
            await connection.socket.send_json({**envelope, "accepts_response_payload": accepts})
            return await asyncio.wait_for(future, self.ack_seconds)
        except TimeoutError:
            raise NotAcknowledgedError("operation_timeout") from None
        except ConnectionError:
            raise NotAcknowledgedError("dispatch_failed") from None
        finally:
            connection.waiting.pop(envelope_id, None)

    async def _next_connection(self, wait: float) -> Connection:
        try:
            await asyncio.wait_for(self._connected.wait(), wait)
        except TimeoutError:
            raise NotAcknowledgedError("dispatch_failed") from None
        open_ones = [connection for connection in self.connections if not connection.retiring]
        if not open_ones:
            raise NotAcknowledgedError("dispatch_failed")
        self._turn += 1
        return open_ones[self._turn % len(open_ones)]

    # ---- faults --------------------------------------------------------------------------------------------

    def drop(self) -> int:
        """Cuts every connection without a goodbye; how many there were."""
        cut = list(self.connections)
        for connection in cut:
            connection.retiring = True
            if connection.transport is not None:
                connection.transport.abort()
        self._note_connected()
        return len(cut)

    def lose_acks(self, count: int) -> None:
        """Overlooks the next acknowledgements, so that their events come again and their clicks fail."""
        self.lost_acks = count

    async def refresh(self) -> None:
        """Asks the app to reconnect, as Slack does every few hours, and closes the old sockets later."""
        old = [connection for connection in self.connections if not connection.retiring]
        for connection in old:
            connection.retiring = True
        self._note_connected()
        debug = {"host": "applink-local"}
        for connection in old:
            with contextlib.suppress(ConnectionError):
                await connection.socket.send_json(
                    {"type": "disconnect", "reason": "refresh_requested", "debug_info": debug}
                )
        await asyncio.sleep(REFRESH_SECONDS)
        for connection in old:
            await connection.socket.close()

    async def close(self) -> None:
        """Says goodbye to every connection."""
        for connection in list(self.connections):
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(connection.socket.close(), 1.0)
