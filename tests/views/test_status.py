"""The status and the live views: recurring jobs that fail, lists that are cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paise2nb.app import App
from paise2nb.core.clock import local_time
from paise2nb.jobs.models import Outcome
from tests.views.queue import end_next

Make = Callable[..., App]
NIGHTLY = Outcome("failed", "failed", None, "ValueError", "ValueError: nightly")
PLUGIN = """
from paise2nb import task

@task("echo")
def echo(context, *words):
    return words[0] if words else None
"""


@pytest.fixture
def waiting(make: Make) -> App:
    """Jobs wait until they are claimed."""
    return make("development")


def test_a_recurring_job_whose_last_run_failed_is_a_failure_with_its_next_time(
    waiting: App,
) -> None:
    job = waiting.enqueue("echo", "nightly", every=86400)
    end_next(waiting, NIGHTLY)
    assert job.state == "scheduled"
    assert [job.id for job in waiting.jobs(state="failed")] == [1]
    status = waiting.status()
    live = waiting.screen()
    for form in (str(status), status._repr_html_(), live):
        assert "echo nightly every 1 d" in form
        assert "; next " in form
        assert "paise2 replay 1" in form
    assert "every 1 d: ValueError: nightly; next " in str(status)
    assert "echo nightly every 1 d failed: ValueError: nightly; next " in str(waiting.since())
    waiting.jobs(state="failed").retry()
    end_next(waiting, Outcome("completed", "completed"))
    assert "nightly" not in str(waiting.status())
    assert waiting.jobs(state="failed").ids == []


def test_the_next_time_of_a_monthly_job_is_a_date(waiting: App) -> None:
    job = waiting.enqueue("echo", "monthly", every=30 * 86400)
    end_next(waiting, NIGHTLY)
    assert f"; next {local_time(job.run_at)[:16]}" in str(waiting.status())


def test_lists_that_are_cut_say_how_many_more_there_are(waiting: App) -> None:
    waiting.enqueue_many("echo", range(60))
    for number in range(25):
        end_next(waiting, Outcome("failed", "failed", None, f"Odd{number:02}", "odd"))
    for _ in range(12):
        end_next(waiting, Outcome("failed", "retrying", None, "dns", "no host", retry_in=600))
    status = waiting.status()
    words = str(status)
    assert [f"Odd{number:02}" in words for number in range(25)] == [True] * 20 + [False] * 5
    assert "and 5 more: paise2 jobs --state failed" in words
    assert "and 5 more" in status._repr_html_()
    assert "and 7 more: paise2 jobs --all --state retrying" in words
    live = waiting.screen()
    assert "and 19 more" in live
    assert "and 6 more" in live


def test_a_due_retry_that_waits_for_its_host_says_so(waiting: App) -> None:
    waiting.enqueue_many("fetch", ["http://a.example/1", "http://a.example/2"])
    end_next(waiting, Outcome("failed", "retrying", None, "dns", "no host", retry_in=1e-9))
    job_store = waiting.queue.job_store
    assert job_store.claim(job_store.register("default", 1), waiting.parts.limits()) is None
    status = waiting.status()
    assert "job 1 waits for a.example (1 request/s): fetch http://a.example/1" in str(status)
    live = waiting.screen()
    assert "waits for a.example (1 request/s)  job 1: fetch" in live
