"""Pages whose text is made by JavaScript: how many in a second, and what the browser takes.

``python -m tests.benchmarks.render [--pages 200] [--threads 2] [--processes 1]`` renders pages that
load their text, with the production profile, and beside it with a loop around plain Playwright: a
new context, ``networkidle``, ``content()``. Prints both in pages per second and in processor time,
the most memory of a worker with its browser, and the processes that are left after SIGKILL of the
workers. The exit status is 1 if a text is missing or a process is left.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import sync_playwright

import paise2nb
from paise2nb.app import App
from paise2nb.core import processes
from tests.content.test_render import CHROMIUM, SETTINGS
from tests.site import Site, Visit
from tests.waiting import until

SHELL = (
    b"<!doctype html><html lang='en'><head><title>Shop</title><script defer src='/app.js'></script>"
    b"</head><body><div id='root'></div></body></html>"
)
SCRIPT = b"""
const number = location.pathname.split('/').pop();
fetch('/data/' + number).then((answer) => answer.json()).then((data) => {
  const root = document.getElementById('root');
  for (const text of data) {
    const paragraph = document.createElement('p');
    paragraph.textContent = text;
    root.append(paragraph);
  }
  root.insertAdjacentHTML('beforeend', `<img src=/images/${number}.png>`);
});
"""


class Measured(NamedTuple):
    """One run; processor time is in seconds."""

    seconds: float
    processor: float
    texts: int
    memory_mb: float = 0.0
    left: int = 0


def _data(visit: Visit, argument: str) -> None:
    text = f"Thing {visit.path.split('/')[-1]} is described here in some words that a script adds."
    visit.answer(b'["%s"]' % b'", "'.join([text.encode()] * 20), "application/json")


def pages(site: Site, number: int) -> list[str]:
    """The URLs of that many pages."""
    site.add("/app.js", SCRIPT, "text/javascript")
    for n in range(number):
        site.add(f"/page/{n}", SHELL)
        site.on(f"/data/{n}", _data)
    return [site.url(f"/page/{n}") for n in range(number)]


def processor_time(pids: list[int]) -> float:
    """The processor time of some processes until now, with that of children that have ended."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            # After the last parenthesis, these times are fields 12 to 15: proc(5).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def plain(urls: list[str]) -> Measured:
    """A loop around Playwright, without its start."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=SETTINGS["fetch.render_sandbox"]
        )
        browser.new_context().new_page().goto(urls[0])
        began, texts, used = time.monotonic(), 0, processor_time(_family(os.getpid()))
        for url in urls:
            context = browser.new_context()
            page = context.new_page()
            page.goto(url, wait_until="networkidle")
            texts += "described here" in page.content()
            context.close()
        used = processor_time(_family(os.getpid())) - used
        return Measured(time.monotonic() - began, used, texts)


def rendered(urls: list[str], threads: int, size: int, directory: Path) -> Measured:
    """The same with workers, from the first page to the last item, without the start of both."""
    pool = {"tasks": ["render"], "processes": size, "threads": threads}
    settings = {**SETTINGS, "fetch.host_delay": 0, "workers.pools": {"render": pool}}
    with paise2nb.open("production", directory, settings) as app:
        app.workers.start()
        for url in urls[: 2 * size * threads]:  # start the browsers
            app.enqueue("fetch", f"{url}?first")
        app.wait(timeout=120)
        most, done = [0.0], threading.Event()
        watch = threading.Thread(target=_watch, args=(app, most, done))
        watch.start()
        began, before = time.monotonic(), len(app.items())
        used = processor_time([pid for worker in _workers(app) for pid in _family(worker)])
        app.enqueue_many("fetch", urls)
        app.wait(timeout=600)
        seconds = time.monotonic() - began
        done.set()
        watch.join()
        texts = sum("described here" in app.item(item.id).text for item in app.items()) - before
        used = processor_time([pid for worker in _workers(app) for pid in _family(worker)]) - used
        family = [pid for worker in _workers(app) for pid in _family(worker)]
        for worker in _workers(app):
            os.kill(worker, signal.SIGKILL)
        with suppress(AssertionError):
            until(lambda: not any(map(processes.identity, family)), 10)
        left = sum(processes.identity(pid) is not None for pid in family)
        app.workers.stop()
    return Measured(seconds, used, texts, most[0], left)


def _workers(app: App) -> list[int]:
    return [int(row["pid"]) for row in app.workers.status().workers if row["pool"] == "render"]


def _family(pid: int) -> list[int]:
    return [pid, *processes.descendants(pid)]


def _watch(app: Any, most: list[float], done: threading.Event) -> None:
    while not done.wait(0.2):
        most[0] = max(most[0], *map(processes.family_mb, _workers(app)))


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    number = options.pages
    with Site() as site, tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        urls = pages(site, number)
        run = rendered(urls, options.threads, options.processes, Path(directory))
        loop = plain(urls)
    for name, measured in (("paise2nb", run), ("a loop around Playwright", loop)):
        rate, each = number / measured.seconds, measured.processor / number
        print(f"{name}: {rate:.2f} pages/s, {each:.2f} s of processor time each")
    print(f"memory of a worker with its browser: at most {run.memory_mb:.0f} MB")
    print(f"processes left after SIGKILL: {run.left}")
    return int(run.texts < number or loop.texts < number or run.left > 0)


if __name__ == "__main__":
    raise SystemExit(main())
