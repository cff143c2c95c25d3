"""A server on loopback that speaks as much of the OpenAI API as tests need, and does what a test tells it."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"


@dataclass
class Reply:
    """What the server does with one request. `hang_up` is after how many bytes of the body the connection is reset."""

    status: int = 200
    body: bytes | dict[str, Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang_up: int | None = None
    drip: float | None = None


@dataclass
class Request:
    """One chat completion that was asked for. `nth` counts how often this same question has come, from 1."""

    body: dict[str, Any]
    headers: dict[str, str]
    nth: int

    @property
    def text(self) -> str:
        return next(part["text"] for part in self.body["messages"][-1]["content"] if part["type"] == "text")

    @property
    def jpegs(self) -> list[bytes]:
        parts = [part for part in self.body["messages"][-1]["content"] if part["type"] == "image_url"]
        return [base64.b64decode(part["image_url"]["url"].removeprefix("data:image/jpeg;base64,")) for part in parts]

    @property
    def jpeg(self) -> bytes:
        return self.jpegs[0]

    @property
    def question(self) -> str:
        return hashlib.sha256(json.dumps(self.body, sort_keys=True).encode()).hexdigest()


def said(text: str, **changes: Any) -> dict[str, Any]:
    """A chat completion with that text."""
    return {
        "id": "x",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        **changes,
    }


def describe(request: Request) -> Reply:
    """The answer of a model that sees: another text for another picture, the same for the same question."""
    return Reply(body=said(f"a picture {request.question[:16]}"))


class Server:
    """What a test sees of the server."""

    def __init__(self) -> None:
        self.behave: Callable[[Request], Reply] = describe
        self.models: Reply = Reply(body={"data": [{"id": MODEL, "root": "org/tiny@r1"}]})
        self.requests: list[Request] = []
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.most_in_flight = 0
        self.url = ""
        self.in_flight = 0
        self.lock = threading.Lock()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._reply(
                server.models if self.path == "/v1/models" else Reply(404, {"error": {"type": "NotFoundError"}})
            )

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/chat/completions":
                self._reply(Reply(404, {"error": {"type": "NotFoundError"}}))
                return
            request = Request(json.loads(data), dict(self.headers), 0)
            with server.lock:
                server.asked[request.question] += 1
                request.nth = server.asked[request.question]
                server.requests.append(request)
                server.in_flight += 1
                server.most_in_flight = max(server.most_in_flight, server.in_flight)
            try:
                self._reply(server.behave(request))
                with server.lock:
                    server.answered[request.question] += 1
            finally:
                with server.lock:
                    server.in_flight -= 1

        def _reply(self, reply: Reply) -> None:
            time.sleep(reply.delay)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            if reply.hang_up is not None:
                self._head(reply, len(body))
                self.wfile.write(body[: reply.hang_up])
                self.wfile.flush()
                # Lingering for no time makes closing a reset.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            self._head(reply, len(body))
            if reply.drip is None:
                self.wfile.write(body)
                return
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                self.wfile.flush()
                time.sleep(reply.drip)

        def _head(self, reply: Reply, length: int) -> None:
            self.send_response_only(reply.status)
            for name, value in {"Content-Length": str(length), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                # The client went away, or the test had the connection cut.
                self.close_connection = True

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    return Handler


@contextmanager
def serve() -> Iterator[Server]:
    """A running server at a free port of loopback."""
    server = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    http.request_queue_size = 64
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
