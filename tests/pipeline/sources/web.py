"""A web server on loopback that misbehaves on request: the first part of a path says how."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Web(ThreadingHTTPServer):
    """Counts requests by path, and how many it had at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.times: list[tuple[str, float]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.at_once = 0
        self.guard = threading.Lock()

    def url(self, path: str, host: str | None = None) -> str:
        return f"http://{host or str(self.server_address[0])}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


@contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[Web]:
    web = Web(host)
    thread = threading.Thread(target=web.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Web
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        web = self.server
        with web.guard:
            web.asked[self.path] += 1
            web.times.append((self.path, time.monotonic()))
            web.headers.append({name.lower(): value for name, value in self.headers.items()})
            web.at_once += 1
            web.most_at_once = max(web.most_at_once, web.at_once)
        try:
            parts = urlsplit(self.path)
            self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            getattr(self, "do_" + parts.path.split("/")[1])()
        finally:
            with web.guard:
                web.at_once -= 1

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_ok(self) -> None:
        self.answer(f"picture {self.path}".encode())

    def do_same(self) -> None:
        self.answer(b"the same picture")

    def do_wait(self) -> None:
        time.sleep(float(self.query["s"]))
        self.answer(f"picture {self.path}".encode())

    def do_status(self) -> None:
        self.answer(b"an error page", int(self.query["is"]))

    def do_flaky(self) -> None:
        """Fails with the status given, `times` times, then answers."""
        if self.server.asked[self.path] <= int(self.query["times"]):
            after = {"Retry_After": self.query["after"]} if "after" in self.query else {}
            self.answer(b"later", int(self.query["is"]), **after)
        else:
            self.answer(b"at last")

    def do_to(self) -> None:
        self.answer(b"elsewhere", 302, Location=self.query["url"])

    def do_loop(self) -> None:
        self.answer(b"", 301, Location=self.path)

    def do_header(self) -> None:
        self.send_response(200)
        for header in self.path.partition("?")[2].split("&"):
            name, _, value = header.partition("=")
            self.send_header(name, value.replace("+", " "))
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"picture")

    def do_big(self) -> None:
        """Announces its size; sends nothing of it."""
        self.send_response(200)
        self.send_header("Content-Length", self.query["bytes"])
        self.end_headers()

    def do_endless(self) -> None:
        """Sends without announcing, until the client hangs up."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.sent = 0
        while self.sent < 2**30:
            self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            self.sent += 65536

    def do_until_closed(self) -> None:
        """Ends its body by closing, as HTTP/1.0 did."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"x" * int(self.query["bytes"]))
        self.close_connection = True

    def do_drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def do_reset(self) -> None:
        """Cuts the connection within the body, hard, `times` times."""
        if self.server.asked[self.path] > int(self.query["times"]):
            return self.do_ok()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True
        return None

    def do_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.close_connection = True

    def do_gzip(self) -> None:
        self.answer(gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip")

    def do_empty(self) -> None:
        self.answer(b"")

    def do_cookie(self) -> None:
        self.answer(b"picture", Set_Cookie="who=me")
