"""The panel in marimo, in a browser."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.lab import CHROMIUM, SECONDS, Lab, wait_until_it_answers

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="machine: no Chromium"),
]
# Of the page: if its first websocket breaks, marimo 0.25 sends no cells over the next one, and the
# page stays empty. A new load has a new session.
LOADS = 3
NOTEBOOK = """
import marimo
app = marimo.App()

@app.cell
def _():
    271_828 * 2  # shown as 543656
    return

@app.cell
def _():
    import paise2nb
    opened = paise2nb.open("development", {data_dir!r})
    opened.enqueue("fetch", "http://127.0.0.1:9/")
    return (opened,)

@app.cell
def _(opened):
    opened.watch()
    return
"""


@contextlib.contextmanager
def marimo(folder: Path) -> Iterator[str]:
    """Run a marimo notebook with the panel, and give its URL."""
    notebook = folder / "notebook.py"
    notebook.write_text(NOTEBOOK.format(data_dir=str(folder / "data")))
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "marimo", "run", str(notebook), "--headless", "--no-token",
        "--host=127.0.0.1", f"--port={port}",
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = folder / "marimo.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(30)


def test_the_panel_is_live_and_its_buttons_work(lab: Lab, tmp_path: Path) -> None:
    browser = lab.page.context.browser  # one process may drive only one
    assert browser is not None
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)  # of goto, too, whose error is no AssertionError
    with contextlib.closing(page), marimo(tmp_path) as url:
        panel = page.locator(".paise2-watch")
        for _ in range(LOADS):
            page.goto(url)
            with contextlib.suppress(AssertionError):
                # Not the panel: once marimo shows another cell, the panel has to come without that.
                expect(page.get_by_text("543656")).to_be_visible(timeout=SECONDS * 1000 / LOADS)
                break
        queued = panel.locator('.paise2-count[data-state="queued"]')
        expect(queued).to_have_attribute("data-value", "1", timeout=SECONDS * 1000)
        updated = panel.locator(".updated")
        before = updated.inner_text()
        expect(updated).not_to_have_text(before)
        panel.get_by_role("button", name="Pause").click()
        expect(panel.get_by_role("button", name="Resume")).to_be_visible()
        expect(panel).to_contain_text("the queue is paused")
