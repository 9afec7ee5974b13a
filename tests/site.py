"""A web site on loopback that behaves, or misbehaves, as the paths of its URLs say.

It is a real threaded HTTP server. A test adds what it needs with `Site.add` (a response) or
`Site.on` (a function that writes to the connection). These paths are always there:

    /ok                     a small page
    /status/N[?after=V]     status N, with Retry-After: V
    /busy/N                 503 to the first N requests, then a page
    /redirect/N             N redirects, then /ok
    /to?url=U[&status=N]    one redirect to U
    /loop                   a redirect to itself
    /hang                   no response until the site closes
    /drip                   a body that never ends, a few bytes at a time
    /drip-headers           headers that never end
    /cut                    half of the body that Content-Length declares
    /endless                a fast body without Content-Length that never ends
    /bomb[/E]               a quarter megabyte of gzip (or br, zstd) that is 256 MB of zeros
    /hollow                 endless gzip of an empty body
    /damaged                a body that is declared as gzip but is not
    /unasked                an encoding that the client has not accepted
    /close                  the connection is closed without a response
"""

from __future__ import annotations

import gzip
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.message import Message
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import brotli
import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PAGE = (
    b"<!doctype html><html lang='en'><head><title>A small page</title></head><body><article>"
    b"<p>Nothing much is written here, but enough to be found.</p></article></body></html>"
)


class Request(NamedTuple):
    """A request, with its time on a monotonic clock in seconds."""

    path: str
    headers: Message
    at: float


class Visit(BaseHTTPRequestHandler):
    """One connection to the site."""

    protocol_version = "HTTP/1.1"
    # Head and body are sent one after the other: without this a client waits 40 ms for the body.
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        site = self.server.site
        parts = urlsplit(self.path)
        with site.lock:
            site.requests.append(Request(self.path, self.headers, time.monotonic()))
            site.visits[parts.path] += 1
        name, _, argument = parts.path.lstrip("/").partition("/")
        behaviour = site.behaviours.get(parts.path) or BEHAVIOURS.get(name)
        # A client may close the connection early.
        with suppress(ConnectionError):
            if behaviour is None:
                self.answer(b"Not found.", "text/plain", status=404)
            else:
                behaviour(self, argument)

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def answer(
        self,
        body: bytes = PAGE,
        content_type: str | None = "text/html; charset=utf-8",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a complete, correct response."""
        self.begin(
            content_type,
            status=status,
            headers={"Content-Length": str(len(body)), **(headers or {})},
        )
        self.wfile.write(body)

    def begin(
        self,
        content_type: str | None = "text/html",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send the status and the headers."""
        self.send_response(status)
        if content_type is not None:
            self.send_header("Content-Type", content_type)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""


Behaviour = Callable[[Visit, str], None]


def _status(visit: Visit, argument: str) -> None:
    after = visit.query.get("after")
    visit.answer(
        b"As asked.", "text/plain", status=int(argument),
        headers={"Retry-After": after} if after is not None else None,
    )  # fmt: skip


def _busy(visit: Visit, argument: str) -> None:
    site = visit.server.site
    if site.visits[urlsplit(visit.path).path] <= int(argument):
        visit.answer(b"Busy.", "text/plain", status=503)
    else:
        visit.answer()


def _redirect(visit: Visit, argument: str) -> None:
    left = int(argument) - 1
    visit.answer(b"", status=302, headers={"Location": f"/redirect/{left}" if left else "/ok"})


def _to(visit: Visit, argument: str) -> None:
    status = int(visit.query.get("status", "302"))
    location = visit.query["url"].encode().decode("latin-1")  # UTF-8 on the wire
    visit.answer(b"Elsewhere.", status=status, headers={"Location": location})


def _hang(visit: Visit, argument: str) -> None:
    visit.server.site.closing.wait()
    visit.close_connection = True


def _drip(visit: Visit, argument: str) -> None:
    visit.begin(headers={"Content-Length": "1000000"})
    while not visit.server.site.closing.wait(0.02):
        visit.wfile.write(b"drip ")


def _drip_headers(visit: Visit, argument: str) -> None:
    visit.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not visit.server.site.closing.wait(0.02):
        visit.wfile.write(b"X")


def _cut(visit: Visit, argument: str) -> None:
    visit.begin(headers={"Content-Length": str(2 * len(PAGE))})
    visit.wfile.write(PAGE)
    visit.close_connection = True


def _endless(visit: Visit, argument: str) -> None:
    visit.begin(headers={"Connection": "close"})
    while not visit.server.site.closing.is_set():
        visit.wfile.write(b"more and " * 5000)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress,
    "br": lambda data: brotli.compress(data, quality=5),
}  # fmt: skip


@cache
def bomb(encoding: str = "gzip", megabytes: int = 256) -> bytes:
    """That many megabytes of zeros, compressed."""
    return PACKERS[encoding](bytes(megabytes << 20))


def _bomb(visit: Visit, argument: str) -> None:
    encoding = argument or "gzip"
    visit.answer(bomb(encoding), headers={"Content-Encoding": encoding})


def _hollow(visit: Visit, argument: str) -> None:
    visit.begin(headers={"Content-Encoding": "gzip", "Connection": "close"})
    nothing = gzip.compress(b"") * 5000
    while not visit.server.site.closing.is_set():
        visit.wfile.write(nothing)


def _close(visit: Visit, argument: str) -> None:
    visit.close_connection = True


BEHAVIOURS: dict[str, Behaviour] = {
    "ok": lambda visit, _: visit.answer(),
    "status": _status,
    "busy": _busy,
    "redirect": _redirect,
    "to": _to,
    "loop": lambda visit, _: visit.answer(b"", status=301, headers={"Location": "/loop"}),
    "hang": _hang,
    "drip": _drip,
    "drip-headers": _drip_headers,
    "cut": _cut,
    "endless": _endless,
    "bomb": _bomb,
    "damaged": lambda visit, _: visit.answer(headers={"Content-Encoding": "gzip"}),
    "hollow": _hollow,
    "unasked": lambda visit, _: visit.answer(b"\0\1" * 99, headers={"Content-Encoding": "sdch"}),
    "close": _close,
}


class Server(ThreadingHTTPServer):
    """The listening socket of a site."""

    request_queue_size = 512
    daemon_threads = True
    site: Site

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that close their connections: tests check what they report."""


class Site:
    """A running site. A context manager.

    Args:
        address: the IP address to listen on. ``0.0.0.0`` serves all hosts of 127.0.0.0/8.

    Attributes:
        requests: every request so far, in order.
        visits: how often each path was requested.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.requests: list[Request] = []
        self.visits: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = Server((address, 0), Visit)
        self.server.site = self
        self.port: int = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def url(self, path: str = "/ok", host: str = "127.0.0.1") -> str:
        """The URL of a path."""
        return f"http://{host}:{self.port}{path}"

    def add(
        self,
        path: str,
        body: bytes = PAGE,
        content_type: str | None = "text/html; charset=utf-8",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Serve these bytes at a path; returns the URL."""

        def answer(visit: Visit, argument: str) -> None:
            visit.answer(body, content_type, status=status, headers=headers)

        return self.on(path, answer)

    def on(self, path: str, behaviour: Behaviour) -> str:
        """Let a function handle requests of a path; returns the URL."""
        self.behaviours[path] = behaviour
        return self.url(path)

    def close(self) -> None:
        """End hanging connections and stop listening."""
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A web site for one test."""
    with Site() as running:
        yield running
