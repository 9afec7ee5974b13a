"""Fixtures for tests of plugins: an app in a temporary directory and a web site on loopback."""

import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paise2nb.app import App
from paise2nb.app import open as open_app
from paise2nb.core.errors import Timeout
from paise2nb.views.jobs import Jobs

SECONDS = 60.0  # the longest wait for jobs and processes
LOOPBACK = {"fetch.allow_private_addresses": True, "fetch.host_delay": 0, "fetch.robots": False}


class Site(ThreadingHTTPServer):
    """A web site on loopback that serves the pages that a test adds. A context manager.

    Other paths have the status 404.

    Attributes:
        requests: The path of every request, in order.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.responses: dict[str, tuple[int, dict[str, str], bytes]] = {}
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def add(
        self, path: str, body: bytes, kind: str = "text/html", status: int = 200, **headers: str
    ) -> str:
        """Serve a body at a path.

        Args:
            path: Begins with a slash.
            body: The bytes of the response.
            kind: The ``Content-Type``.
            status: The HTTP status.
            headers: More headers, with underscores for hyphens: ``Last_Modified="…"``.

        Returns:
            The URL.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.responses[path] = (status, {"Content-Type": kind, **named}, body)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def server_close(self) -> None:
        """Stop serving. The end of the ``with`` block calls it."""
        self.shutdown()
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        status, headers, body = self.server.responses.get(self.path, (404, {}, b"Not found."))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, to keep the output of the tests clean."""


@pytest.fixture
def paise2_site() -> Iterator[Site]:
    """Run a web site for one test."""
    with Site() as site:
        yield site


@pytest.fixture
def paise2_settings() -> dict[str, Any]:
    """Return the settings of `paise2_app` by dotted key. Override this fixture to change them."""
    return {}


@pytest.fixture
def paise2_app(tmp_path: Path, paise2_settings: Mapping[str, Any]) -> Iterator[App]:
    """Open an app in a temporary directory. It runs jobs at once and may fetch from loopback."""
    with open_app("test", tmp_path / "paise2", {**LOOPBACK, **paise2_settings}) as app:
        yield app


def run_all(app: App, timeout: float = SECONDS) -> Jobs:
    """Run every waiting job and its follow-up jobs in this process, and wait for retries.

    Args:
        app: An open app. It needs no workers.
        timeout: Seconds.

    Returns:
        All jobs of the app.

    Raises:
        Timeout: Some jobs have not finished in time.
    """
    deadline = time.monotonic() + timeout
    app.queue.run_ready()
    while unfinished := app.queue.job_store.busy():
        if time.monotonic() > deadline:
            raise Timeout(f"{unfinished} jobs had not finished after {timeout:g} s")
        time.sleep(0.02)
        app.queue.run_ready()
    return app.jobs()
