"""The bundled site and its server on loopback: *An Almanac of Patient Things*.

Besides ordinary pages it has the two kinds of failure that a retry policy tells apart: a page that
is busy for a while, and a page that is gone.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self


class Page(NamedTuple):
    """One page of the site: its file, and words that no other page has."""

    file: str
    phrase: str


_FOLDER = Path(__file__).parent
_SITE = json.loads((_FOLDER / "site.json").read_text("utf-8"))
*PAGES, FLAKY, GONE = (Page(*page) for page in _SITE["pages"].items())
TYPES: dict[str, str] = _SITE["types"]
BUSY_ANSWERS = 2


class DemoSite:
    """The bundled site, served on 127.0.0.1 from creation until `close`. A context manager.

    ``ferry.html`` answers 503 twice, then 200; ``reading-room.html`` answers 410 until `reopen`.

    Attributes:
        base: the URL of the site.
        urls: the URLs of all pages, the busy one and the gone one last.
        flaky, gone: these two URLs.
    """

    def __init__(self) -> None:
        self._files = {file.name: file.read_bytes() for file in (_FOLDER / "pages").iterdir()}
        self._visits: Counter[str] = Counter()
        self._closed = {GONE.file}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answer, self))
        self.base = f"http://127.0.0.1:{self._server.server_port}/"
        self.urls = [self.base + page.file for page in (*PAGES, FLAKY, GONE)]
        *_, self.flaky, self.gone = self.urls
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="demo site", daemon=True
        )
        self._thread.start()

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


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds after which an idle connection releases its thread

    def __init__(self, site: DemoSite, *args: Any) -> None:
        self.site = site
        super().__init__(*args)  # handles the requests of one connection

    def do_GET(self) -> None:
        file = self.path.partition("?")[0].lstrip("/") or "index.html"
        status, body = self.site.answer(file)
        kind = TYPES.get(file.rpartition(".")[2], "text/plain") if status == 200 else "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the job store has what was fetched."""
