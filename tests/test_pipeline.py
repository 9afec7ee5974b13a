"""The whole pipeline: from URLs to a collection and a reset, immediately or by workers.

Each test runs with the built-in parts and with `alternative_plugins`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.core.errors import PermanentError
from paise2nb.views.waiting import waiting
from tests.machines import Machine, RedisServer
from tests.site import PAGE, Site
from tests.waiting import until

SETTINGS = {
    "fetch.allow_private_addresses": True,
    "fetch.host_delay": 0,
    "fetch.robots": False,
    "workers.concurrency": 2,
    "workers.pools.fetch": None,
    "workers.retry.retry_delay": 0.1,
    "workers.retry.max_retries": 2,
    "cache.keep_days": 0,
}
SECONDS = 60  # only a failure takes this long


@pytest.fixture(params=["immediate", "workers", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    profile = "test" if request.param == "immediate" else "development"
    settings = dict[str, Any](SETTINGS)
    with ExitStack() as stack:
        if request.param == "redis":
            server = stack.enter_context(closing(RedisServer(tmp_path / "redis")))
            settings |= {"task_queue.provider": "redis", "task_queue.redis.url": server.url}
        app = paise2nb.open(profile, data_dir=tmp_path / "data", settings=settings)
        stack.enter_context(app)
        if not app.immediate:
            app.workers.start()
            stack.callback(app.workers.stop, timeout=0)
        if request.param == "redis":  # home fetches and extracts, too
            machine = stack.enter_context(closing(Machine([server.url], tmp_path / "machine")))
            until(lambda: any(row["pools"] for row in app.workers.status().machines))
            assert machine.process.poll() is None
        yield app


def page(site: Site, number: int, word: str = "first") -> str:
    body = PAGE.replace(b"Nothing much", f"The {word} word of page {number}".encode())
    return site.add(f"/page/{number}", body)


def test_urls_become_a_collection_that_is_searched_exported_and_reset(
    app: App, site: Site, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n\nfrom a file")
    urls = [page(site, number) for number in range(6)]
    all_urls = [*urls, str(notes), site.url("/busy/1"), site.url("/gone"), urls[0]]
    jobs = app.enqueue_many("fetch", all_urls, tag="news")
    app.wait(SECONDS)
    assert jobs[0].id == jobs[-1].id
    assert [len(job.items) for job in jobs] == [1] * 8 + [0, 1]
    assert jobs[7].attempt == 2
    status = app.status()
    assert (status.items, status.roots["completed"], status.roots["failed"]) == (8, 8, 1)
    assert [job.error_class for job in app.jobs(state="failed")] == ["http_4xx"]

    # Search, show and export.
    assert [hit["url"] for hit in app.search('"word of page 3" is')] == [urls[3]]
    assert len(app.search("wor* -first nowhere")) == 0
    assert len(app.search("tag:news first", limit=4)) == 4
    assert app.item(jobs[6].items[0].id).title == "Notes"
    app.export(tmp_path / "all.jsonl", tag="news")
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["url"] for line in lines) == sorted(
        [*urls, notes.as_uri(), site.url("/busy/1")]
    )

    # Fetch again: a changed page has one more version, and a page that was gone is retried.
    page(site, 0, "second")
    page(site, 1)
    site.add("/gone", PAGE)
    app.enqueue_many("fetch", urls[:2], force=True)
    app.jobs(state="failed").retry()
    app.wait(SECONDS)
    assert app.status().jobs["failed"] == 0
    assert [app.item(jobs[n].items[0].id).versions for n in (0, 1)] == [2, 1]
    assert len(app.search('"second word"')) == 1
    changed = app.enqueue("extract", urls[0])
    app.wait(SECONDS)
    assert [item.id for item in changed.items] == [jobs[0].items[0].id]

    # Clean up: here cached bytes are old at once, and then an extraction has nothing to read.
    assert app.enqueue("cleanup").result(SECONDS)["cached"] > 0
    assert app.item(jobs[0].items[0].id).sha256 not in app.cache
    with pytest.raises(PermanentError, match="no longer in the cache"):
        app.replay(changed.id)
    app.workers.stop()
    assert app.reset().items == 0
    assert (len(app.jobs()), app.status().items) == (0, 9)
    assert app.reset(hard=True).items == 9
    assert (len(app.items()), len(app.search("word"))) == (0, 0)


def test_a_killed_worker_loses_no_page(tmp_path: Path, site: Site) -> None:
    urls = [page(site, number) for number in range(30)]
    with paise2nb.open("development", data_dir=tmp_path / "data", settings=SETTINGS) as app:
        app.workers.start()
        jobs = app.enqueue_many("fetch", urls)
        for pause in waiting(app.client, SECONDS):
            if app.status().items >= 5:
                break
            time.sleep(pause)
        os.kill(app.workers.status().workers[0]["pid"], signal.SIGKILL)
        app.wait(SECONDS)
        app.workers.stop()
        assert [len(job.items) for job in jobs] == [1] * len(urls)
        assert sorted(item.url for item in app.items()) == sorted(urls)
