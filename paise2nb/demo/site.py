"""The bundled site and its server on loopback: *An Almanac of Patient Things*.

Besides ordinary pages it has the two kinds of failure that a retry policy tells apart: a page that
is busy for a while, and a page that is gone.
"""

import json
import threading
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from paise2nb.core.loopback import Answer, LoopbackServer
from paise2nb.demo import logbook


class Page(NamedTuple):
    """One page of the site: its file, and words that no other page has."""

    file: str
    phrase: str


_FOLDER = Path(__file__).parent
_SITE = json.loads((_FOLDER / "site.json").read_text("utf-8"))
*PAGES, FLAKY, GONE = (Page(*page) for page in _SITE["pages"].items())
TYPES: dict[str, str] = _SITE["types"]
BUSY_ANSWERS = 2


class DemoSite(LoopbackServer):
    """The bundled site, served on 127.0.0.1 from creation until `close`. A context manager.

    ``ferry.html`` answers 503 twice, then 200; ``reading-room.html`` answers 410 until `reopen`.
    Some of the hundred pages of the logbook are busy at first, gone or unreadable.

    Attributes:
        base: the URL of the site.
        urls: the URLs of all pages but the logbook's, the busy one and the gone one last.
        flaky, gone: these two URLs.
        logbook: the URLs of a lighthouse's log, a page for each of a hundred days.
    """

    def __init__(self) -> None:
        self._files = {file.name: file.read_bytes() for file in (_FOLDER / "pages").iterdir()}
        self._visits: Counter[str] = Counter()
        self._busy = {FLAKY.file, *logbook.BUSY}
        self._closed = {GONE.file, *logbook.TORN_OUT}
        self._lock = threading.Lock()
        super().__init__()
        self.urls = [self.base + page.file for page in (*PAGES, FLAKY, GONE)]
        *_, self.flaky, self.gone = self.urls
        self.logbook = [self.base + name for name in logbook.FILES]

    def reopen(self) -> None:
        """Let the pages that are gone answer from now on."""
        with self._lock:
            self._closed.clear()

    def close(self) -> None:
        """Stop the server. A second call does nothing."""
        self.server_close()

    def answer(self, path: str) -> Answer:
        """Return the page that a path names, or why there is none."""
        file = path.partition("?")[0].lstrip("/") or "index.html"
        with self._lock:
            self._visits[file] += 1
            if file in self._closed:
                return Answer(b"This room has closed for good.\n", HTTPStatus.GONE)
            if file in self._busy and self._visits[file] <= BUSY_ANSWERS:
                return Answer(b"Not now. Ask again.\n", HTTPStatus.SERVICE_UNAVAILABLE)
        if file in logbook.FILES:
            return logbook.answer(file)
        if file not in self._files:
            return Answer(b"No such entry.\n", HTTPStatus.NOT_FOUND)
        kind = TYPES.get(file.rpartition(".")[2], "text/plain")
        return Answer(self._files[file], headers={"Content-Type": kind})
