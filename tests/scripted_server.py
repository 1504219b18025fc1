"""A model server on this machine that does as it is told: good replies, and every way to misbehave.

`replies` is a queue of behaviours; the last one stays. What was asked is kept in `asked`.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler"], None]


def chat(text: str, *, model: str | None = None, ended: str = "stop", **changes: Any) -> Behaviour:
    """A good reply: each word is a token, and the end of the sequence is one more."""
    words = [w if i == 0 else f" {w}" for i, w in enumerate(text.split())] + (["<end>"] if ended == "stop" else [])
    rows = [
        {
            "token": w,
            "logprob": -0.5,
            "bytes": list(w.encode()),
            "top_logprobs": [{"token": w, "logprob": -0.5}, {"token": "?", "logprob": -2.0}],
        }
        for w in words
    ]
    choice = {
        "index": 0,
        "finish_reason": ended,
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": rows},
    }

    def behave(handler: "Handler") -> None:
        handler.send({"model": handler.told["model"] if model is None else model, "choices": [choice | changes]})

    return behave


def stream(*words: str, ended: str | None = "stop", pause: float = 0.0) -> Behaviour:
    """A good reply in pieces, each an event of its own; without an end it is cut."""

    def behave(handler: "Handler") -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for word in words:
            row = {"token": word, "logprob": -0.5, "top_logprobs": [{"token": word, "logprob": -0.5}]}
            handler.event({"delta": {"content": word}, "finish_reason": None, "logprobs": {"content": [row]}})
            time.sleep(pause)
        if ended is not None:
            handler.event({"delta": {}, "finish_reason": ended, "logprobs": None})
            handler.wfile.write(b"data: [DONE]\n\n")
        handler.close_connection = True

    return behave


def choices(**logprobs: float) -> Behaviour:
    """A reply of one token with these tokens as the likeliest ones."""
    best = max(logprobs, key=lambda t: logprobs[t])
    listed = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    row = {"token": best, "logprob": logprobs[best], "top_logprobs": listed}
    return chat(best, ended="length", logprobs={"content": [row]})


def status(code: int, told: object = None, **headers: str) -> Behaviour:
    """An answer with a status of its own."""
    return lambda handler: handler.send(told if told is not None else {}, code, headers)


def raw(content: bytes) -> Behaviour:
    """Some bytes with status 200."""
    return lambda handler: handler.send(content)


def hang(seconds: float) -> Behaviour:
    """Say nothing for a while."""
    return lambda handler: time.sleep(seconds)


def drip(seconds: float) -> Behaviour:
    """Send a byte of the headers now and then, so that no single wait is long."""

    def behave(handler: "Handler") -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(int(seconds / 0.02)):
            handler.wfile.write(b"y")
            time.sleep(0.02)

    return behave


def cut(handler: "Handler") -> None:
    """Close the connection before a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_within(handler: "Handler") -> None:
    """Promise more bytes than come."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')
    handler.connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """Does what the head of the queue says."""

    server: "ScriptedServer"
    told: dict[str, Any]

    def do_POST(self) -> None:
        self.told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), self.told))
        self.behave(self.server.next_reply())

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers), {}))
        self.behave(self.server.listing)

    def behave(self, behaviour: Behaviour) -> None:
        try:
            behaviour(self)
        except OSError:  # whoever asked has gone
            self.close_connection = True

    def send(self, told: object, code: int = 200, headers: dict[str, str] | None = None) -> None:
        content = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def event(self, choice: dict[str, Any]) -> None:
        told = {"model": self.told["model"], "choices": [choice]}
        self.wfile.write(b"data: " + json.dumps(told).encode() + b"\n\n")
        self.wfile.flush()
        self.server.sent += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    """The server with its queue."""

    daemon_threads = True

    def __init__(self, *models: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Behaviour] = [chat("Six months.")]
        self.listing: Behaviour = status(200, {"data": [{"id": model} for model in models]})
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.sent = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_reply(self) -> Behaviour:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def running(*models: str) -> Iterator[ScriptedServer]:
    """A server that offers these models."""
    server = ScriptedServer(*models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
