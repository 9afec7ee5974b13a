"""The pool that renders: its limits, and the processes of its browser."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.core import processes
from tests.content.test_render import FILL, SETTINGS, needs_chromium, shell
from tests.site import Site
from tests.waiting import until

pytestmark = needs_chromium


def open_app(directory: Path, **settings: Any) -> App:
    chosen = {name.replace("__", "."): value for name, value in settings.items()}
    chosen = {**SETTINGS, "workers.concurrency": 1, "fetch.host_delay": 0} | chosen
    return paise2nb.open("development", directory, chosen)


def renderer(app: App) -> int:
    """The pid of the worker that renders."""
    [pid] = [row["pid"] for row in app.workers.status().workers if row["pool"] == "render"]
    return int(pid)


def living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if processes.identity(pid)]


def browser_of(app: App) -> list[int]:
    """The processes of the browser, when its worker renders a page."""
    worker = renderer(app)
    found = until(lambda: len(pids := processes.descendants(worker)) > 5 and pids)
    return [worker, *found]


@pytest.mark.parametrize("supervised", [True, False])
def test_no_process_is_left_when_a_worker_is_killed(
    site: Site, tmp_path: Path, supervised: bool
) -> None:
    url = site.add("/busy", shell("setInterval(() => fetch('/ok'), 50);" + FILL))
    with open_app(tmp_path / "data") as app:
        app.workers.start()
        try:
            job = app.enqueue("fetch", url)
            pids = browser_of(app)
            if not supervised:
                supervisor = app.workers.status().supervisor
                assert supervisor is not None
                os.kill(supervisor["pid"], signal.SIGKILL)
            os.kill(pids[0], signal.SIGKILL)
            until(lambda: not living(pids))
            owners = Path(tempfile.gettempdir()).glob("paise2-browser-*/owner")
            left = [path for path in owners if path.read_text().startswith(f"{pids[0]}-")]
            if supervised:
                job.wait(timeout=60)
                assert job.page_state == "stored"
                assert not any(path.exists() for path in left)  # the next browser removes it
                pids = [renderer(app), *processes.descendants(renderer(app))]
        finally:
            app.workers.stop()
        until(lambda: not living(pids))


def test_a_job_that_runs_alone_leaves_the_browser_to_the_next(site: Site, tmp_path: Path) -> None:
    pool = {"render": {"tasks": ["render"], "threads": 1}}
    urls = [site.add(f"/{n}", shell(FILL)) for n in range(2)]
    with open_app(tmp_path / "data", workers__pools=pool) as app:
        app.workers.start()
        try:
            for url in urls:
                app.enqueue("fetch", url).wait(timeout=60)
            assert {job.page_state for job in app.jobs()} == {"stored"}
            log = (tmp_path / "data" / "logs" / "workers.log").read_text()
        finally:
            app.workers.stop()
        assert "left" not in log


@pytest.mark.slow
def test_a_page_that_takes_too_much_memory_is_killed_and_others_are_rendered(
    site: Site, tmp_path: Path
) -> None:
    hungry = "const all = []; for (let n = 0; n < 50; n++) all.push(new Uint8Array(1e7).fill(n));"
    urls = [site.add("/hungry", shell(hungry + FILL))]
    urls += [site.add(f"/{n}", shell(FILL)) for n in range(4)]
    policies = {"memory": {"max_retries": 0}, "crash": {"max_retries": 0}}
    with open_app(
        tmp_path / "data", workers__memory_mb=650, workers__retry__policies=policies
    ) as app:
        app.workers.start()
        try:
            jobs = app.enqueue_many("fetch", urls)
            jobs.wait(timeout=120)
            assert [job.page_state for job in jobs] == ["failed", *["stored"] * 4]
            assert jobs[0].error_class == "memory"
        finally:
            app.workers.stop()


def test_those_that_never_render_have_no_pool_for_it(tmp_path: Path) -> None:
    for profile in ("development", "production"):
        with paise2nb.open(profile, tmp_path / profile) as app:
            assert "render" not in app.settings.workers.pools
    with open_app(tmp_path / "data", workers__pools={"render": {"processes": 2}}) as app:
        pool = app.settings.workers.pools["render"]
        assert (pool.tasks, pool.processes) == (("render",), 2)
    own = {"browsers": {"tasks": ["render"]}}
    with open_app(tmp_path / "own", workers__pools=own) as app:
        assert "render" not in app.settings.workers.pools
