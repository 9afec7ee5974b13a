"""One JupyterLab for all browser tests, and a folder for screenshots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

import paise2nb
from tests.browser.lab import Lab, jupyter_lab

expect.set_options(timeout=30_000)  # milliseconds, for a busy machine


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab and a page. Screenshots go to SCREENSHOTS, or to the folder of the test run."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home")
    chosen = os.environ.get("SCREENSHOTS")
    shots = Path(chosen) if chosen else tmp_path_factory.getbasetemp() / "screenshots"
    shots.mkdir(parents=True, exist_ok=True)
    with jupyter_lab(folder, home, shots) as running:
        yield running


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory. Its workers are stopped at the end."""
    directory = tmp_path / "data"
    yield directory
    with paise2nb.open("development", directory) as app:
        app.workers.stop(timeout=0)
