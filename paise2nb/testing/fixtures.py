"""Fixtures for tests of plugins: an app in a temporary directory and a web site on loopback."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paise2nb.app import App
from paise2nb.app import open as open_app
from paise2nb.core.errors import Timeout
from paise2nb.core.loopback import Answer, LoopbackServer
from paise2nb.views.jobs import Jobs

SECONDS = 60.0  # the longest wait for jobs and processes
LOOPBACK = {"fetch.allow_private_addresses": True, "fetch.host_delay": 0, "fetch.robots": False}


class Site(LoopbackServer):
    """A web site on loopback that serves the pages that a test adds. A context manager.

    Other paths have the status 404.

    Attributes:
        requests: The path of every request, in order.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answers: dict[str, Answer] = {}
        super().__init__()

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
        self.answers[path] = Answer(body, status, {"Content-Type": kind, **named})
        return self.base + path.removeprefix("/")

    def answer(self, path: str) -> Answer:
        """Return what was added at a path."""
        self.requests.append(path)
        return self.answers.get(path, Answer(b"Not found.", 404))


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
