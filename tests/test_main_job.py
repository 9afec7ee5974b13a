"""The main job at its full size: 500 real pages from a notebook and from the shell."""

from __future__ import annotations

import functools
import html
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

import paise2nb
from paise2nb.app import App
from paise2nb.views.waiting import waiting

PAGES = 500
DOCS = Path("/usr/share/doc/python3-doc/html")
SECONDS = 400  # only a failure takes this long

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DOCS.exists(), reason="machine: no python3-doc to serve"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def pages() -> Iterator[dict[str, str]]:
    """The URLs of real pages on loopback, each with its title."""
    handler = functools.partial(Quiet, directory=str(DOCS.resolve()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = {}
    for file in sorted(DOCS.resolve().rglob("*.html"))[:PAGES]:
        title = re.search(r"<title>(.*?)</title>", file.read_text("utf-8"), re.DOTALL)
        assert title is not None
        url = f"http://127.0.0.1:{server.server_port}/{file.relative_to(DOCS.resolve())}"
        found[url] = html.unescape(title[1]).split(" — Python")[0]
    assert len(found) == PAGES
    yield found
    server.shutdown()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A directory for settings and data; its workers are stopped afterwards."""
    (tmp_path / "paise2.yaml").write_text(
        f"data_dir: {tmp_path / 'data'}\n"
        "workers: {concurrency: 2}\n"
        "fetch: {allow_private_addresses: true, host_delay: 0, robots: false}\n"
    )
    yield tmp_path
    with paise2nb.open("development", data_dir=tmp_path / "data") as app:
        app.workers.stop(timeout=0)


def check_collection(app: App, pages: dict[str, str]) -> None:
    """Check that every page is one item, that none failed, and that each is found by its title."""
    status = app.status()
    assert status.jobs["failed"] == 0
    assert status.roots["completed"] == PAGES
    items = app.items()
    assert sorted(item.url for item in items) == sorted(pages)
    missing = [
        url
        for url, phrase in pages.items()
        if url not in {hit["url"] for hit in app.search(f'"{phrase}"', limit=PAGES)}
    ]
    assert missing == []


def paise2(home: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process."""
    return subprocess.run(
        [sys.executable, "-m", "paise2nb", *words], cwd=home, capture_output=True, text=True,
        timeout=SECONDS, check=False, **more,
    )  # fmt: skip


def test_500_pages_from_the_shell_while_workers_are_killed(
    home: Path, pages: dict[str, str]
) -> None:
    assert paise2(home, "worker", "start", "--daemonize").returncode == 0
    (home / "urls.txt").write_text("\n".join(pages))
    added = paise2(home, "enqueue", "fetch", "--from", "urls.txt", "--tag", "docs", "--json")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["new"] == PAGES
    for share in (0.1, 0.3, 0.5):  # once the process of the pool `fetch`, then two that extract
        wait_for_items(home, int(PAGES * share))
        workers = json.loads(paise2(home, "worker", "status", "--json").stdout)["workers"]
        pool = "fetch" if share == 0.1 else "default"
        victim = next(worker for worker in workers if worker["pool"] == pool)
        os.kill(victim["pid"], signal.SIGKILL)
    assert paise2(home, "wait", "--timeout", str(SECONDS)).returncode == 0
    again = paise2(home, "enqueue", "fetch", "--from", "urls.txt", "--json")
    assert json.loads(again.stdout)["fresh"] == PAGES
    with paise2nb.open("development", data_dir=home / "data") as app:
        check_collection(app, pages)


def wait_for_items(home: Path, number: int) -> None:
    with paise2nb.open("development", data_dir=home / "data") as app:
        for pause in waiting(app.client, SECONDS):
            if app.status().items >= number:
                return
            threading.Event().wait(pause)


def test_500_pages_from_a_notebook_whose_kernel_stays_free_and_is_restarted(
    home: Path, pages: dict[str, str]
) -> None:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(home))
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        run(client, "%load_ext paise2nb\n%paise2 profile development")
        run(client, "%paise2 worker start")
        cell = "%%paise2 enqueue fetch --tag docs\n" + "\n".join(pages)
        assert run(client, cell) == f"{PAGES} new"
        assert run(client, "6 * 7") == "42"  # the kernel is free
        assert "queued" in run(client, "%paise2 status")
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        found = run(client, "%load_ext paise2nb\n%paise2 profile development")
        assert re.search(
            r"since \d\d:\d\d: [\d,]+ stored, 0 failed, [\d,]+ waiting, 3 workers", found
        )
        run(client, "%paise2 wait")
        assert f"items    {PAGES}" in run(client, "%paise2 status")
        assert run(client, cell) == f"{PAGES} up to date"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    with paise2nb.open("development", data_dir=home / "data") as app:
        check_collection(app, pages)


def run(client: BlockingKernelClient, code: str) -> str:
    """Run a cell, and return its result and output as text; an error fails the test."""
    output: list[str] = []

    def listen(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] in ("execute_result", "display_data"):
            output.append(content["data"]["text/plain"])
        elif message["msg_type"] == "stream" and content["name"] == "stdout":
            output.append(content["text"])

    reply = client.execute_interactive(code, timeout=SECONDS, output_hook=listen)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "\n".join(output)
