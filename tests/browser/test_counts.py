"""During a run of many pages, what the panel counts is what has been stored.

``pytest -m slow -s tests/browser/test_counts.py`` runs it with 2,000 pages, and prints what the
kernel has used of the processor.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Locator, expect

import paise2nb
from paise2nb.app import App
from paise2nb.core.urls import canonical_url
from tests.browser.lab import CHROMIUM, Lab, opening
from tests.site import Site, Visit
from tests.waiting import until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="machine: no Chromium"),
]
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
MOMENTS = 5


def answer(visit: Visit, argument: str) -> None:
    """A page of its own for each number: some are gone, and some fail once."""
    number = int(argument)
    if number % 40 == 7:
        visit.answer(b"Gone.", "text/plain", status=404)
    elif number % 40 == 9 and visit.server.site.visits[visit.path] == 1:
        visit.answer(b"Busy.", "text/plain", status=503)
    else:
        text = f"Page {number} says that {number} times {number} is {number * number}."
        visit.answer(f"<title>Page {number}</title><article><p>{text}</p></article>".encode())


def counted(panel: Locator, state: str) -> int:
    """What the panel counts in a state."""
    shown = panel.locator(f'.paise2-count[data-state="{state}"]')
    expect(shown).to_have_count(1)
    return int(shown.get_attribute("data-value") or "")


def press(panel: Locator, name: str, then: str) -> None:
    """Press a button, and wait for another one that appears when its action is done."""
    panel.get_by_role("button", name=name, exact=True).click()
    expect(panel.get_by_role("button", name=then, exact=True)).to_be_visible()


def expect_that_items_are_stored_pages(app: App, panel: Locator) -> None:
    """Compare the counts of a paused queue with the pages and the items."""
    until(lambda: app.status().jobs["running"] == 0)
    pages = app.status().pages
    for state, number in pages.items():
        shown = panel.locator(f'.paise2-count[data-state="{state}"]')
        expect(shown).to_have_attribute("data-value", str(number))
        expect(shown).to_have_text(f"{number:,}")
    stored = [canonical_url(job.args[0]) for job in app.jobs(state="stored")]
    assert len(stored) == pages["stored"]
    assert set(stored) == {canonical_url(item.url) for item in app.items()}
    assert len(app.items()) == len(set(stored))


@pytest.mark.parametrize("number", [80, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_stored_pages_are_the_items_at_every_moment(
    lab: Lab, data_dir: Path, tmp_path: Path, number: int
) -> None:
    with Site("0.0.0.0") as site:
        urls = [site.url(f"/{n}", HOSTS[n % len(HOSTS)]) for n in range(number)]
        for n in range(number):
            site.on(f"/{n}", lambda visit, _: answer(visit, visit.path.partition("?")[0][1:]))
        # Some are there twice, in another spelling.
        listed = urls + [f"{url}?utm_source=list" for url in urls[::10]]
        (tmp_path / "urls.txt").write_text("\n".join(listed))
        settings = {"workers__retry__max_retries": 1, "workers__retry__retry_delay": 1}
        cells = [
            opening(data_dir, **settings),
            f"jobs = %paise2 enqueue fetch --from {tmp_path / 'urls.txt'}",
            "%paise2 watch",
            "import os\nprint('pid', os.getpid())",
        ]
        lab.open(lab.write(f"counts-{number}.ipynb", cells))
        lab.run_all()
        panel = lab.outputs().locator(".paise2-watch")
        expect(panel).to_be_visible()
        assert counted(panel, "queued") == number
        kernel = psutil.Process(int(lab.outputs().nth(3).inner_text().split()[1]))
        used, began = sum(kernel.cpu_times()[:2]), time.monotonic()
        press(panel, "Start workers", "Pause")
        with paise2nb.open("development", data_dir) as app:
            for moment in range(1, MOMENTS + 1):
                enough = number * moment // 8
                until(lambda least=enough: app.status().pages["stored"] >= least, seconds=300)
                press(panel, "Pause", "Resume")
                expect_that_items_are_stored_pages(app, panel)
                lab.shot(f"counts-{number}-{moment}")
                press(panel, "Resume", "Pause")
            app.wait(timeout=600)
            gone = sum(n % 40 == 7 for n in range(number))
            expect_that_items_are_stored_pages(app, panel)
            assert (counted(panel, "failed"), counted(panel, "stored")) == (gone, number - gone)
            lab.shot(f"counts-{number}-end")
        used, passed = sum(kernel.cpu_times()[:2]) - used, time.monotonic() - began
        print(f"{number:,} pages: the kernel used {100 * used / passed:.1f} % of a core")
        press(panel, "Stop workers", "Start workers")
        assert lab.errors() == []
