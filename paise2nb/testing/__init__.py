"""For authors of plugins: fixtures, and rules that a part keeps or breaks, with the reason.

A ``conftest.py`` with ``pytest_plugins = ["paise2nb.testing"]`` has the fixtures; a test goes
through the rules for a kind of part:

    @pytest.mark.parametrize("rule", rules("cache"), ids=str)
    def test_my_cache(rule):
        rule.check(MyCache)
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

import pytest

from paise2nb.app import App
from paise2nb.app import open as open_app
from paise2nb.core.errors import Timeout
from paise2nb.views.jobs import Jobs

SECONDS = 60.0  # bounds a failure only
LOOPBACK = {"fetch.allow_private_addresses": True, "fetch.host_delay": 0, "fetch.robots": False}


# What a test stands on -----------------------------------------------------------------------


class Site:
    """A site on loopback that answers as it is told, else 404. A context manager.

    Attributes:
        requests: the path of every request, in order.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        answers = self._answers = dict[str, tuple[int, dict[str, str], bytes]]()
        requests = self.requests

        class Visit(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                status, headers, body = answers.get(self.path, (404, {}, b"Not here."))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """The test report is the log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Visit)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(
        self, path: str, body: bytes, kind: str = "text/html", status: int = 200, **headers: str
    ) -> str:
        """Answer a path with these bytes, type, status and headers (``ETag="1"``); its address."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._answers[path] = (status, {"Content-Type": kind, **named}, body)
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def paise2_site() -> Iterator[Site]:
    """A site of the test's own."""
    with Site() as site:
        yield site


@pytest.fixture
def paise2_settings() -> dict[str, Any]:
    """The settings of `paise2_app`, dotted: to be overridden, say by ``{"plugins": ["mine"]}``."""
    return {}


@pytest.fixture
def paise2_app(tmp_path: Path, paise2_settings: Mapping[str, Any]) -> Iterator[App]:
    """An app in a temporary directory that runs jobs at once and may fetch from loopback."""
    with open_app("test", tmp_path / "paise2", {**LOOPBACK, **paise2_settings}) as app:
        yield app


def run_all(app: App, timeout: float = SECONDS) -> Jobs:
    """Run every job that waits here, and what follows, waiting for retries; all jobs.

    Raises:
        Timeout: the time in seconds is over.
    """
    table, deadline = app.queue.job_store, time.monotonic() + timeout
    while True:
        app.queue.run_ready()
        if not table.busy():
            return app.jobs()
        if time.monotonic() > deadline:
            raise Timeout(f"{table.busy()} jobs had not finished after {timeout:g} s")
        time.sleep(0.02)


# Rules ---------------------------------------------------------------------------------------


class Fetching(NamedTuple):
    """A fetcher at work: an address that it can fetch, some that it can't, settings to load it."""

    url: str
    wrong: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}


class Extracting(NamedTuple):
    """An extractor at work: bytes, their type, where they may come from, settings to load it."""

    data: bytes
    mime_type: str
    url: str = "http://example.org/sample"
    settings: Mapping[str, Any] = {}


class Broken(AssertionError):
    """A part breaks a rule: which one, by what, and what to do about it."""


class Rule(NamedTuple):
    """One rule for one kind of part."""

    kind: str
    says: str
    advice: str
    test: Callable[[Bench], None]

    def __str__(self) -> str:
        return self.says

    def check(self, subject: Any) -> None:
        """Check a part.

        Args:
            subject: for ``cache`` and ``store`` a function of a module (other processes call it,
                too) that opens one in a directory; for ``queue`` the settings that choose it; for
                ``fetcher`` a `Fetching`, for ``extractor`` an `Extracting`.

        Raises:
            Broken: with the reason.
        """
        with TemporaryDirectory(prefix="paise2-") as directory, ExitStack() as left:
            try:
                self.test(Bench(subject, Path(directory), left))
            except Exception as error:
                known = isinstance(error, Broken)
                reason = error if known else f"{type(error).__name__}: {error}"
                words = f"{self.kind}: {self.says}. Not here: {reason}. What helps: {self.advice}"
                raise Broken(words) from (None if known else error)


def rules(kind: str) -> list[Rule]:
    """The rules for a ``cache``, ``store``, ``queue``, ``fetcher`` or ``extractor``."""
    from paise2nb.testing.conformance import RULES

    return [rule for rule in RULES if rule.kind == kind]


def need(holds: object, reason: str) -> None:
    """Raise Broken unless something holds."""
    if not holds:
        raise Broken(reason)


@dataclasses.dataclass
class Bench:
    """What one check works with: the subject, a directory of its own, and what it has opened."""

    subject: Any
    directory: Path
    left: ExitStack

    def open(self) -> Any:
        """Open the part, once more, in the same directory."""
        part = self.subject(self.directory)
        self.left.callback(part.close)
        return part

    def app(self, profile: str = "test", **settings: Any) -> App:
        """Open an app, once more, that has the part."""
        chosen = self.subject if isinstance(self.subject, Mapping) else self.subject.settings
        plugins = [*chosen.get("plugins", ()), "paise2nb.testing.conformance"]
        every = {**LOOPBACK, **chosen, **settings, "plugins": plugins}
        return self.left.enter_context(open_app(profile, self.directory, every))

    def in_processes(self, work: Callable[..., None]) -> None:
        """Have two fresh processes do something with the part."""
        fresh, given = multiprocessing.get_context("spawn"), (self.subject, self.directory)
        children = [fresh.Process(target=work, args=given) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(SECONDS)
        statuses = [child.exitcode for child in children]
        need(statuses == [0, 0], f"processes ended with {statuses}, their errors stand above")


__all__ = [
    "Broken", "Extracting", "Fetching", "Rule", "Site", "paise2_app", "paise2_settings",
    "paise2_site", "rules", "run_all",
]  # fmt: skip
