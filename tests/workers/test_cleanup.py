"""The daily cleanup: enqueued by the supervisor, without a time of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paise2nb.app import App
from paise2nb.jobs.models import CLEANED_AT
from tests import example_plugin
from tests.waiting import until
from tests.workers.conftest import Make

PLUGIN = example_plugin.SOURCE
DAY = 86400.0


@pytest.fixture
def app(make: Make) -> Iterator[App]:
    """Workers leave at once when there is no work."""
    opened = make("development", workers__concurrency=1, workers__idle_exit=0.2)
    yield opened
    opened.workers.stop(timeout=0)


def cleanups(app: App) -> list[str]:
    return [row["state"] for row in app.jobs(task="cleanup").to_dicts()]


def age(app: App, days: float) -> None:
    """Let all jobs have finished some days earlier."""
    app.queue.job_store.database.write(
        lambda connection: connection.execute(
            "UPDATE jobs SET enqueued_at = enqueued_at - :s, finished_at = finished_at - :s",
            {"s": days * DAY},
        )
    )


def test_a_supervisor_cleans_up_if_the_last_cleanup_is_over_a_day_old(app: App) -> None:
    app.workers.start()
    app.enqueue_many("echo", ["a", "b"]).wait(timeout=30)
    app.workers.stop()
    assert cleanups(app) == []
    age(app, 40)
    app.workers.start()
    until(lambda: cleanups(app) == ["completed"])
    assert len(app.jobs()) == 1, "only the cleanup is left"
    until(lambda: not app.workers.present())
    app.workers.start()
    until(lambda: not app.workers.present())
    assert cleanups(app) == ["completed"]
    app.queue.job_store.put(CLEANED_AT, str(app.queue.job_store.now() - 1.1 * DAY))
    app.workers.start()
    until(lambda: cleanups(app) == ["completed", "completed"])


def test_a_cleanup_that_can_not_run_keeps_no_supervisor_from_leaving(app: App) -> None:
    app.queue.job_store.put(CLEANED_AT, "0")
    app.pause("default")
    app.workers.start()
    until(lambda: not app.workers.present())
    app.resume()
    app.workers.start(pool="fetch")
    until(lambda: not app.workers.present())
    assert cleanups(app) == []
    app.workers.start()
    until(lambda: cleanups(app) == ["completed"])
    until(lambda: not app.workers.present())
    assert app.queue.job_store.next_time() is None


def test_a_cleanup_gives_the_space_of_deleted_jobs_back(app: App) -> None:
    path = app.queue.job_store.path
    app.enqueue_many("echo", [f"{number} " + "x" * 5000 for number in range(2000)])
    app.jobs().cancel()
    app.queue.job_store.checkpoint()
    size = path.stat().st_size
    age(app, 40)
    job = app.enqueue("cleanup")
    app.workers.start()
    assert job.result(timeout=30)["jobs"] == 2000
    until(lambda: path.stat().st_size < size / 10)
    assert app.status().jobs["completed"] == 1, "a process that has opened the file goes on"
