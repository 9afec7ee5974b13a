"""The bundled site and its server on loopback: *An Almanac of Patient Things*.

Besides ordinary pages it has the two kinds of failure that a retry policy tells apart: a page that
is busy for a while, and a page that is gone.
"""

from __future__ import annotations

import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import NamedTuple, Self


class Page(NamedTuple):
    """One page of the site: its file, its title, and words that no other page has."""

    file: str
    title: str
    phrase: str


PAGES = (
    Page("index.html", "An Almanac of Patient Things", "a calendar for slow work"),
    Page("lighthouse.html", "The Log of an Uneventful Night", "the lamp was seen to burn"),
    Page("lock.html", "What a Canal Lock Knows", "neither gate will open"),
    Page("tides.html", "A Machine That Added the Moon", "ten pulleys and a single pen"),
    Page("telegraph.html", "Arms Against the Sky", "repeat the sign"),
    Page("bells.html", "Five Thousand and Forty Ways to Ring", "no row is ever rung twice"),
    Page("letters.html", "The Office of Dead Letters", "blind reader of bad handwriting"),
    Page("starter.html", "A Jar That Must Be Fed", "flour and water and yesterday"),
    Page("seeds.html", "A Mountain Full of Second Copies", "withdrawal was made in earnest"),
    Page("pitch.html", "The Drop That Nobody Saw", "a funnel of brittle black pitch"),
    Page("tern.html", "Two Summers a Year", "on the far side of every winter"),
    Page("catalogue.html", "The Drawer Before the Database", "the backs of playing cards"),
    Page("knots.pdf", "A Leaflet about Knots", "a promise made by friction"),
)
FLAKY = Page("ferry.html", "In Praise of the Late Ferry", "the third crossing of the morning")
GONE = Page("reading-room.html", "The Reading Room, Reopened", "the key had been in the other coat")

BUSY_ANSWERS = 2
TYPES = {
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "css": "text/css",
    "xml": "application/rss+xml",
}


class DemoSite:
    """The bundled site, served on 127.0.0.1 from creation until `close`. A context manager.

    ``ferry.html`` answers 503 twice, then 200; ``reading-room.html`` answers 410 until `reopen`.
    """

    def __init__(self) -> None:
        folder = resources.files(__package__) / "pages"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        self._visits: Counter[str] = Counter()
        self._closed = {GONE.file}
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="demo site", daemon=True
        )
        self._thread.start()

    @property
    def base(self) -> str:
        """The URL of the site."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    @property
    def urls(self) -> list[str]:
        """The URLs of all pages, the busy one and the gone one last."""
        return [self.base + page.file for page in (*PAGES, FLAKY, GONE)]

    @property
    def flaky(self) -> str:
        """The URL that is busy for the first two requests."""
        return self.base + FLAKY.file

    @property
    def gone(self) -> str:
        """The URL that is gone."""
        return self.base + GONE.file

    def reopen(self) -> None:
        """Let the page that is gone answer from now on."""
        with self._lock:
            self._closed.clear()

    def close(self) -> None:
        """Stop the server. A second call does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, file: str) -> tuple[HTTPStatus, bytes]:
        """Return the status and the body for one request of a file."""
        with self._lock:
            self._visits[file] += 1
            if file in self._closed:
                return HTTPStatus.GONE, b"This room has closed for good.\n"
            if file == FLAKY.file and self._visits[file] <= BUSY_ANSWERS:
                return HTTPStatus.SERVICE_UNAVAILABLE, b"Not now. Ask again.\n"
        if file not in self._files:
            return HTTPStatus.NOT_FOUND, b"No such entry.\n"
        return HTTPStatus.OK, self._files[file]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, site: DemoSite) -> None:
        self.site = site
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds after which an idle connection releases its thread

    def do_GET(self) -> None:
        file = self.path.partition("?")[0].lstrip("/") or "index.html"
        status, body = self.server.site.answer(file)
        kind = TYPES.get(file.rpartition(".")[2], "text/plain") if status == 200 else "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the job store has what was fetched."""
