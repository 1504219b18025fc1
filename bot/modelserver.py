"""A model server that speaks OpenAI's chat protocol (vLLM, llama.cpp): one request, one checked reply.

Every request has a deadline, is tried again after short pauses where that can help, and ends in a reply that was
checked field by field or in one sentence that says what is wrong. Redirects and proxies are not followed, so nothing
is sent to another host than the one that was configured. It knows nothing of versions, prompts or confidence.
"""

import http.client
import json
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from bot.generation import Unwanted, Watch
from bot.prompt import Message
from storage.errors import EngineAwayError, EngineError, UserError
from storage.settings import Settings

log = logging.getLogger(__name__)

PAUSES = (0.2, 0.8)
"""Seconds before the second and the third try."""
WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
BAD_KEY, BAD_REQUEST = frozenset({401, 403}), frozenset({400, 413, 422})
MOST_BYTES = 8 << 20
SAID_CHARS = 160
Read = Callable[[http.client.HTTPResponse], bytes]
"""Takes the body of a response."""
ADDRESS = re.compile(r"https?://[^\s?#\x00-\x20\x7f-\U0010ffff]+")


@dataclass(frozen=True)
class Token:
    """One token of a reply: its natural log-probability, and the likeliest tokens at its place, likeliest first."""

    text: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Reply:
    """What a server wrote. `model` is the name it answered under; `stopped` is false when it was cut at the limit."""

    model: str
    text: str
    stopped: bool
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class ModelServer:
    """A server by its address (which ends in /v1), with its key and the longest time of one request in seconds."""

    address: str
    key: str = field(default="", repr=False)
    seconds: float = 30.0
    pauses: tuple[float, ...] = PAUSES

    def __post_init__(self) -> None:
        """Raise UserError for an address or key that cannot be used."""
        check_address(self.address)
        if not (self.key.isascii() and self.key.isprintable()):
            raise UserError("NIGHTSHIFT_ENGINE_KEY holds characters that cannot be sent in a header.")

    def models(self) -> tuple[str, ...]:
        """The names of the models it offers. Raises EngineError."""
        told = self._ask("GET", "/models", None, "a list of models")
        listed = told.get("data")
        if not isinstance(listed, list):
            raise self.away("answered without a list of models")
        return tuple(str(row["id"]) for row in listed if isinstance(row, dict) and "id" in row)

    def chat(
        self,
        model: str,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        likeliest: int = 2,
        watch: Watch | None = None,
    ) -> Reply:
        """The greedy reply to a chat, with the `likeliest` tokens at each place; it is streamed where `watch` looks on.

        Raises EngineError, and Unwanted when `watch` ends it.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 0,
            "logprobs": True,
            "top_logprobs": likeliest,
        }
        if watch is None:
            return self._checked(self._ask("POST", "/chat/completions", body, model))
        read = partial(streamed, watch)
        return self._checked(self._ask("POST", "/chat/completions", body | {"stream": True}, model, read))

    def away(self, what: str) -> EngineAwayError:
        """An error whose sentence begins with this server."""
        return EngineAwayError(f"The model server {self.address} {what}.")

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, wanted: str, read: Read | None = None
    ) -> dict[str, Any]:
        """The JSON object of a request, tried again after each pause while the deadline allows."""
        deadline = time.monotonic() + self.seconds
        for pause in (*self.pauses, None):
            try:
                status, content = self._exchange(method, path, body, deadline, read or whole)
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() >= deadline:
                    raise self.away(f"did not answer within {self.seconds:g} seconds") from error
                failure: EngineError = self.away(f"cannot be reached ({reason_of(error)})")
            else:
                if status == http.HTTPStatus.OK:
                    return self._json(content)
                failure = self._refusal(status, content, wanted)
                if status not in WORTH_ANOTHER_TRY:
                    raise failure
            if pause is None or time.monotonic() + pause >= deadline:
                break
            log.debug("%s; the next try is in %g s", failure, pause)
            time.sleep(pause)
        raise failure

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float, read: Read
    ) -> tuple[int, bytes]:
        """One request and its whole response; the socket is shut at the deadline, however slowly bytes come."""
        parts = urlsplit(self.address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        left = max(0.01, deadline - time.monotonic())
        connection = kind(str(parts.hostname), parts.port, timeout=left)
        alarm = threading.Timer(left, shut, [connection])
        alarm.daemon = True
        alarm.start()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            sent = None if body is None else json.dumps(body).encode()
            connection.request(method, f"{parts.path.rstrip('/')}{path}", sent, headers)
            with connection.getresponse() as response:
                status, content = response.status, read(response)
        finally:
            alarm.cancel()
            connection.close()
        if time.monotonic() >= deadline:
            raise TimeoutError
        return status, content

    def _json(self, content: bytes) -> dict[str, Any]:
        if len(content) > MOST_BYTES:
            raise self.away(f"answered with more than {MOST_BYTES >> 20} MB")
        try:
            told = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.away("answered something that is not JSON; does the address end in /v1?") from error
        if not isinstance(told, dict):
            raise self.away("answered JSON that is not an object; does the address end in /v1?")
        return told

    def _refusal(self, status: int, content: bytes, wanted: str) -> EngineError:
        """The sentence for a status that is not 200; what a server says about a key is not repeated."""
        if status in BAD_KEY:
            return self.away(f"refuses the key ({status}); set NIGHTSHIFT_ENGINE_KEY")
        said = self._said(content)
        if status == http.HTTPStatus.NOT_FOUND:
            return self.away(
                f"does not offer {wanted} (404{said}); serve it under exactly that name, and see that the address "
                "ends in /v1"
            )
        if status in BAD_REQUEST:
            return EngineError(f"The model server {self.address} refused the request ({status}{said}).")
        if 300 <= status < 400:
            return self.away(f"redirects ({status}); set NIGHTSHIFT_ENGINE to the final address")
        return self.away(f"failed ({status}{said})")

    def _said(self, content: bytes) -> str:
        """The server's own reason, on one line and without the key."""
        try:
            told = json.loads(content[:MOST_BYTES])
        except (ValueError, RecursionError):
            return ""
        for name in ("error", "message", "detail"):
            told = told.get(name, told) if isinstance(told, dict) else told
        text = " ".join(told.split())[:SAID_CHARS] if isinstance(told, str) else ""
        return f": {text.replace(self.key, '[key]') if self.key else text}".rstrip(".") if text else ""

    def _checked(self, told: dict[str, Any]) -> Reply:
        """A chat reply, every field of which was looked at."""
        try:
            choice = told["choices"][0]
            text, ended = choice["message"]["content"], choice["finish_reason"]
        except (KeyError, IndexError, TypeError) as error:
            raise self.away("answered without a chat reply") from error
        if not isinstance(text, str):
            raise self.away("answered without text; a model that thinks before it answers cannot be used")
        found = choice.get("logprobs")
        listed = found.get("content") if isinstance(found, dict) else None
        if not isinstance(listed, list) or (text and not listed):
            raise self.away("gives no log-probabilities; use one that does, such as vLLM or llama.cpp")
        try:
            tokens = tuple(token_of(row) for row in listed)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self.away("gives log-probabilities that cannot be read") from error
        return Reply(str(told.get("model", "")), text, ended == "stop", tokens)


def whole(response: http.client.HTTPResponse) -> bytes:
    """The body of a response, as far as MOST_BYTES and one more. Raises IncompleteRead when it was cut."""
    content = response.read(MOST_BYTES + 1)
    if response.length and len(content) <= MOST_BYTES:
        raise http.client.IncompleteRead(content, response.length)
    return content


def streamed(watch: Watch, response: http.client.HTTPResponse) -> bytes:
    """The body of a streamed chat reply as if it had come in one piece; `watch` sees its text grow.

    Some servers leave the token that ends a text out of a stream.

    Raises Unwanted when `watch` ends it, IncompleteRead when it was cut. Any other body is given as it is.
    """
    if response.status != http.HTTPStatus.OK or response.headers.get_content_type() != "text/event-stream":
        return whole(response)
    told: dict[str, Any] = {}
    text, ended = "", None
    rows: list[Any] = []
    for line in bounded(response):
        try:
            told = json.loads(line)
            for choice in told["choices"][:1]:
                text += choice["delta"].get("content") or ""
                rows += (choice.get("logprobs") or {}).get("content") or []
                ended = choice.get("finish_reason") or ended
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return line
        if not watch(text.strip()):
            raise Unwanted
    if ended is None:
        raise http.client.IncompleteRead(b"")
    choice = {"message": {"content": text}, "finish_reason": ended, "logprobs": {"content": rows}}
    return json.dumps({"model": told.get("model", ""), "choices": [choice]}).encode()


def bounded(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The data of each event of a stream, MOST_BYTES of them at most."""
    left = MOST_BYTES
    while left > 0 and (line := response.readline(left)):
        left -= len(line)
        data = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            yield data


def configured(settings: Settings) -> ModelServer | None:
    """The server of the settings, or None when none is named. Raises UserError when it cannot be used."""
    address = settings.text("ENGINE").rstrip("/")
    if not address:
        return None
    seconds = settings.number("ENGINE_SECONDS")
    if not 0 < seconds < math.inf:
        raise UserError(f"NIGHTSHIFT_ENGINE_SECONDS={seconds:g} is no time that a request could take.")
    return ModelServer(address, settings.text("ENGINE_KEY"), seconds)


def serving(settings: Settings) -> ModelServer | None:
    """The server that answers in place of the local model, or None. Raises UserError when it cannot be used."""
    return configured(settings) if settings.text("ENGINE_ROLE") == "serve" else None


def check_address(address: str) -> None:
    """Raise UserError unless an address is http(s)://host[:port]/path; one that holds a password is not repeated."""
    try:
        parts = urlsplit(address)
        fine = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, fine = urlsplit(""), False
    if parts.username or parts.password:
        raise UserError("NIGHTSHIFT_ENGINE holds a user name or password; put the key into NIGHTSHIFT_ENGINE_KEY.")
    if not fine or not ADDRESS.fullmatch(address):
        raise UserError(f"NIGHTSHIFT_ENGINE={address!r} is no address like http://host:8000/v1.")


def token_of(row: Mapping[str, Any]) -> Token:
    """One row of a reply's log-probabilities. Raises AttributeError, KeyError, TypeError or ValueError."""
    likeliest = [(str(at["token"]), finite(at["logprob"])) for at in row.get("top_logprobs") or ()]
    return Token(
        str(row["token"]), finite(row["logprob"]), tuple(sorted(likeliest, key=lambda at: at[1], reverse=True))
    )


def finite(value: Any) -> float:
    """A number that is neither infinite nor NaN. Raises ValueError or TypeError."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def shut(connection: http.client.HTTPConnection) -> None:
    """End a connection from another thread, so that whoever reads from it goes on."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, http.client.IncompleteRead):
        return "it closed the connection within its answer"
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (" ".join(told.split()) or type(error).__name__)[:SAID_CHARS].rstrip(".")
