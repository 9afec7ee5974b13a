"""How wrong the time left is, at each tenth of a run.

``python -m tests.benchmarks.time_left [--pages 2000] [--hosts 4] [--delay 0.2] [--unequal]`` serves
small pages on several loopback addresses, which are hosts of their own, and fetches them with
background workers. At each tenth of the pages it prints the estimate of ``status`` and the time
that was really left. With ``--unequal`` each host has twice as many pages as the next one;
``--delay 0`` lets the workers be the limit. The exit status is 1 if an error is 30 % or more after
the first tenth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import paise2nb

ALLOWED = 0.3  # of the time that was really left


class Page(BaseHTTPRequestHandler):
    """Serves a small page with words of its own for each path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        missing = self.path == "/robots.txt"
        text = f"<!doctype html><title>{self.path}</title><article><p>Words about {self.path}."
        body = b"" if missing else text.encode()
        self.send_response(404 if missing else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(hosts: int) -> Iterator[list[str]]:
    """Serve the pages on the first loopback addresses; yields the URLs of the hosts."""
    servers = [ThreadingHTTPServer((f"127.0.0.{n}", 0), Page) for n in range(1, hosts + 1)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.{n}:{s.server_port}" for n, s in enumerate(servers, 1)]
    for server in servers:
        server.shutdown()


def urls_of(bases: list[str], pages: int, unequal: bool) -> list[str]:
    """The URLs of all pages, host by host in turn."""
    weights = [2.0**-n if unequal else 1.0 for n in range(len(bases))]
    numbers = [round(pages * weight / sum(weights)) for weight in weights]
    paths = [(n, base) for base, most in zip(bases, numbers, strict=True) for n in range(most)]
    return [f"{base}/{n}" for n, base in sorted(paths)]


def run(app: paise2nb.App, urls: list[str], workers: int) -> list[tuple[float, float | None]]:
    """Fetch all URLs; return the moment of each tenth, with the estimate that was made there."""
    app.enqueue_many("fetch", urls)
    app.workers.start(concurrency=workers)
    tenths: list[tuple[float, float | None]] = []
    while len(tenths) < 10:
        status = app.status()
        ended = len(urls) - sum(status.pages[s] for s in ("queued", "running", "retrying"))
        while len(tenths) < 10 and ended >= len(urls) * (len(tenths) + 1) // 10:
            tenths.append((time.monotonic(), status.seconds_left))
        time.sleep(0.1)
    app.workers.stop(timeout=10)
    return tenths


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--unequal", action="store_true")
    options = parser.parse_args()
    settings = {"fetch.host_delay": options.delay, "fetch.allow_private_addresses": True}
    worst = 0.0
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(options.hosts) as bases,
        paise2nb.open("development", data_dir=directory, settings=settings) as app,
    ):
        tenths = run(app, urls_of(bases, options.pages, options.unequal), options.workers)
        print(dict(app.status().pages))
    end = tenths[-1][0]
    for number, (moment, estimate) in enumerate(tenths[:-1], 1):
        left = end - moment
        error = abs((estimate or 0.0) - left) / left if left else 0.0
        worst = max(worst, error)
        print(f"{number} tenths: {estimate or 0:7.1f} s estimated, {left:7.1f} s left: {error:.0%}")
    return int(worst >= ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
