"""A wait shows one bar with what has come of it, and what it returns says so, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.views.waiting import LONGEST_PAUSE, Bar, wait, waiting
from tests.site import Site, Visit
from tests.waiting import until


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    settings = {
        "fetch.allow_private_addresses": True,
        "fetch.host_delay": 0,
        "workers.concurrency": 1,
        "workers.retry.max_retries": 0,
    }
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        yield app
        app.workers.stop(timeout=0)


def test_beside_the_bar_stand_stored_and_failed_pages_the_rate_and_the_time_left(
    app: App, site: Site
) -> None:
    gate = threading.Event()

    def wait_for_the_gate(visit: Visit, argument: str) -> None:
        gate.wait(60)
        visit.answer()

    urls = [site.url(f"/ok/{number}") for number in range(4)]
    urls += [site.url("/status/404/1"), site.on("/gate", wait_for_the_gate)]
    jobs = app.enqueue_many("fetch", urls)
    bar = Bar(app.client, jobs.ids)
    assert bar.words(0, 6) == ""
    app.workers.start()
    until(lambda: sum(jobs.ended()[0][state] for state in ("stored", "failed")) == 5)
    bar = Bar(app.client, jobs.ids)
    bar.words(3, 6)
    until(lambda: bar.words(5, 6).endswith(" left"))  # it is read again after a pause
    words = bar.words(5, 6).split(" · ")
    assert sorted(words[:2]) == ["1 failed", "4 stored"]
    assert words[2].endswith(("/s", "/min"))
    assert words[3].endswith(" left")
    gate.set()
    assert str(jobs.wait(60)) == "6 new; pages: 5 stored, 1 failed"
    again = app.enqueue("fetch", urls[4])
    assert "failed" in str(again.wait(60))


def test_a_wait_does_not_fail_if_the_last_job_ends_while_it_looks_for_workers(
    app: App, tmp_path: Path
) -> None:
    app = paise2nb.open("development", app.data_dir, {"plugins": ["tests.example_plugin"]})
    app.workers.start(concurrency=1)
    job = app.enqueue("hold", str(tmp_path / "go"))
    until(lambda: job.state == "running")
    app.pause()

    def end_it(done: int, total: int) -> None:
        """Called after the jobs were counted, and before it is known why none can start."""
        (tmp_path / "go").touch()
        until(lambda: job.state == "completed")

    wait(app.client, on_progress=end_it)
    app.close()


def test_a_wait_for_the_last_of_many_jobs_looks_as_seldom_as_for_one(app: App) -> None:
    jobs = app.enqueue_many("fetch", [f"http://127.0.0.1:9/{number}" for number in range(50)])
    for job in list(jobs)[1:]:
        job.cancel()
    steps = waiting(app.client, timeout=3600, jobs=jobs.ids)
    pauses = [next(steps) for _ in range(20)]
    assert pauses[-1] >= LONGEST_PAUSE
