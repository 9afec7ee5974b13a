"""An open app: enqueueing, filters, waiting, retry and cancel, status, and reset."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import paise2nb
from paise2nb.app import App, current, make_current
from paise2nb.core.clock import local_time
from paise2nb.core.errors import NotFound, Timeout, UnknownTask, UsageError, WorkersError
from paise2nb.jobs.models import PAGE_STATES, STATES, Limits, NewJob, Outcome
from paise2nb.views.waiting import waiting as steps_of_waiting
from tests import example_plugin
from tests.views.queue import end_next

PLUGIN = (
    example_plugin.SOURCE
    + """
from paise2nb import PermanentError, TransientError, UsageError

def checked(app, arguments):
    if not arguments[0].startswith("ok"):
        raise UsageError(f"{arguments[0]!r} does not start with ok")
    return (arguments[0].strip(),)

@task(
    "careful", check=checked, key=lambda arguments: arguments[0].lower(),
    fresh=lambda settings, result, age, arguments: result == arguments[0],
)
def careful(context, word):
    return word

@task("parent")
def parent(context, task, *words):
    for word in words:
        context.enqueue(task, word)

@task("misled")
def misled(context, word):
    context.enqueue("no such task", word)

@task("gone", max_retries=0)
def gone(context, word):
    raise PermanentError("404 Not Found", "http_4xx")

@task("slow", max_retries=0)
def slow(context, word):
    raise TimeoutError("too slow")
"""
)

Make = Callable[..., App]
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def app(make: Make) -> App:
    """Jobs run immediately, in this process."""
    return make()


@pytest.fixture
def waiting(make: Make) -> App:
    """Jobs wait until they are claimed."""
    return make("development")


# Running -------------------------------------------------------------------------------------


def test_a_task_may_be_a_coroutine(app: App) -> None:
    assert app.enqueue("later", "abc").result() == "cba"


def test_a_coroutine_runs_inside_a_running_event_loop_as_in_a_kernel(app: App) -> None:
    async def cell() -> Any:
        return app.enqueue("later", "abc").result()

    assert asyncio.run(cell()) == "cba"


def test_a_wrong_follow_up_job_fails_its_parent_without_a_retry(app: App) -> None:
    job = app.enqueue("misled", "x")
    assert (job.state, job.attempt, job.error_class) == ("failed", 1, "UnknownTask")


# Enqueueing ----------------------------------------------------------------------------------


def test_a_job_waits_without_workers_and_everything_else_works(waiting: App) -> None:
    job = waiting.enqueue("echo", "x", tag="news", priority=5)
    assert (job.state, job.tag, job.args, job.task) == ("queued", "news", ["x"], "echo")
    assert (job.attempt, job.max_attempts, job.parent_id, job.root_id) == (0, 4, None, job.id)
    assert waiting.search("x") is not None
    assert waiting.status().jobs["queued"] == 1


def test_enqueue_many_returns_jobs_in_order_with_counts(waiting: App) -> None:
    first = waiting.enqueue("echo", "b")
    jobs = waiting.enqueue_many("echo", ["a", "b", "c", "a"], tag="t")
    assert [job.args for job in jobs] == [["a"], ["b"], ["c"], ["a"]]
    assert (jobs.new, jobs.waiting, jobs.fresh) == (2, 2, 0)
    assert jobs[1].id == first.id
    assert jobs[0].id == jobs[3].id
    assert [job.answer for job in jobs] == ["new", "waiting", "new", "waiting"]
    assert str(jobs) == "2 new, 2 waiting"
    assert jobs[0].tag == "t"


def test_the_json_of_an_enqueue_has_the_documented_keys(waiting: App) -> None:
    jobs = waiting.enqueue_many("echo", ["a", "a"])
    entry = {"id": 1, "task": "echo", "args": ["a"], "state": "queued"}
    assert jobs.to_dict() == {"jobs": [entry, entry], "new": 1, "waiting": 1, "fresh": 0}


def test_a_tuple_is_a_list_of_arguments(app: App) -> None:
    [job] = app.enqueue_many("parent", [("echo", "a", "b")])
    assert [child.args for child in job.children] == [["a"], ["b"]]


def test_enqueueing_nothing_is_no_error(app: App) -> None:
    jobs = app.enqueue_many("echo", [])
    assert (len(jobs), str(jobs), jobs.to_dict()["jobs"]) == (0, "nothing to add", [])


@pytest.mark.parametrize("arguments", ["ab", b"ab", {"a": 1}, pd.DataFrame({"url": ["a"]})])
def test_what_is_no_list_of_arguments_is_refused(app: App, arguments: Any) -> None:
    kind = type(arguments).__name__
    with pytest.raises(UsageError, match=f"arguments is a {kind}; give a list, or one column of"):
        app.enqueue_many("echo", arguments)
    assert len(app.jobs()) == 0


def test_integers_of_numpy_are_numbers_like_any_other(app: App) -> None:
    first, second = app.enqueue_many(
        "echo", np.array([1, 2]), priority=np.int64(3), delay=np.int32(0)
    )
    ids = np.array([first.id, second.id])
    assert (first.args, app.enqueue("echo", np.float32(0.5)).args) == ([1], [0.5])
    assert app.job(ids[1]) == second
    assert app.job(ids[1]).attempts == second.attempts
    assert app.jobs(*ids, limit=np.int64(1)).ids == [first.id]
    app.wait(jobs=ids)
    assert len(app.items(limit=np.int8(1))) == len(app.search("x", limit=np.int8(1))) == 0
    daily = app.enqueue("echo", "c", every=np.int64(86400), delay=np.float32(60))
    assert (daily.every, daily.state) == (86400, "scheduled")
    for call in (app.job, app.jobs, app.item, lambda number: app.wait(jobs=[number])):
        with pytest.raises(UsageError, match=r"id is 1\.0; give a whole number"):
            call(1.0)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"delay": -1}, "delay is -1; give seconds, 0 or more"),
        ({"delay": float("nan")}, "delay is nan"),
        ({"delay": 1e12}, "delay is"),
        ({"every": 0}, "every is 0; give 1 second or more"),
        ({"every": float("inf")}, "every is inf"),
        ({"priority": "high"}, "priority is 'high'; give a whole number"),
        ({"priority": 2**70}, "priority is"),
        ({"tag": ""}, "tag is ''; give a word"),
        ({"tag": "a\udcffb"}, "give a word"),
        ({"tag": 5}, "tag is 5; give a word"),
    ],
)
def test_invalid_options_add_no_job(waiting: App, named: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        waiting.enqueue("echo", "x", **named)
    assert len(waiting.jobs()) == 0


def test_all_arguments_are_checked_before_a_job_is_added(waiting: App) -> None:
    with pytest.raises(UsageError, match="'bad' does not start with ok"):
        waiting.enqueue_many("careful", ["ok 1", "bad", "ok 2"])
    with pytest.raises(UnknownTask, match="did you mean 'echo'"):
        waiting.enqueue_many("ecko", ["a"])
    assert len(waiting.jobs()) == 0


def test_checked_arguments_are_stored_and_duplicates_found_by_their_key(waiting: App) -> None:
    job = waiting.enqueue("careful", "ok Then ")
    assert job.args == ["ok Then"]
    assert waiting.enqueue("careful", "ok THEN").id == job.id


def test_an_up_to_date_job_is_returned_unless_forced(app: App) -> None:
    first = app.enqueue("careful", "ok")
    again = app.enqueue_many("careful", ["ok"])
    assert (again.fresh, again[0].id, again[0].answer) == (1, first.id, "fresh")
    assert "(already up to date)" in again[0].summary()
    assert app.enqueue("careful", "ok", force=True).id != first.id
    assert app.enqueue("careful", "ok ").id != first.id, "only the latest job with this key counts"


def test_a_task_without_a_freshness_check_runs_again(app: App) -> None:
    assert app.enqueue("echo", "x").id != app.enqueue("echo", "x").id


def test_a_follow_up_job_is_no_duplicate_of_a_job_that_a_user_enqueues(waiting: App) -> None:
    job = waiting.enqueue("parent", "echo", "x", "x")
    followups = waiting.replay(job.id).followups
    end_next(waiting, Outcome("completed", "completed", followups=followups))
    assert len(job.children) == 2, "equal follow-up jobs are no duplicates of each other"
    assert waiting.enqueue_many("echo", ["x"]).new == 1


def test_follow_up_jobs_inherit_tag_and_priority(app: App) -> None:
    job = app.enqueue("parent", "parent", "echo", tag="news", priority=7)
    rows = app.queue.job_store.rows(app.queue.job_store.trees([job.id])[job.id])
    assert {(row["tag"], row["priority"], row["root_id"]) for row in rows.values()} == {
        ("news", 7, job.id)
    }
    assert len(rows) == 2


def test_a_delayed_job_is_scheduled_and_a_duplicate_does_not_change_it(app: App) -> None:
    later = app.enqueue("echo", "x", delay=60)
    assert (later.state, later.attempt) == ("scheduled", 0)
    assert ISO.fullmatch(later.run_at)
    daily = app.enqueue("echo", "y", every=86400)
    assert (daily.state, [a["outcome"] for a in daily.attempts]) == ("scheduled", ["completed"])
    assert daily.run_at > later.run_at
    assert app.enqueue("echo", "y", every=86400).id == daily.id


@pytest.mark.parametrize("options", [{"delay": 3600}, {"every": 86400}])
def test_a_job_that_waits_for_a_time_says_so_and_runs_now_when_forced(
    app: App, options: dict[str, float]
) -> None:
    later = app.enqueue("echo", "x", **options)
    runs = len(later.attempts)
    again = app.enqueue("echo", "x")
    assert (again, again.answer, later.state) == (later, "waiting", "scheduled")
    assert f"(already waiting until {local_time(later.run_at)}; --force runs it now)" in str(again)
    many = app.enqueue_many("echo", ["x", "y", "x"])
    expected = f"1 new, 2 waiting; 1 not before {local_time(later.run_at)}: --force runs them now"
    assert str(many) == expected
    assert len(later.attempts) == runs
    assert app.enqueue("echo", "x", force=True, delay=60).answer == "waiting"
    forced = app.enqueue("echo", "x", force=True)
    assert (forced, forced.answer) == (later, "now")
    assert len(later.attempts) == runs + 1
    assert later.state == ("scheduled" if "every" in options else "completed")
    assert "(now instead of later)" in str(forced)


def test_a_forced_enqueue_queues_what_waits_for_a_time_or_a_retry(waiting: App) -> None:
    waiting.enqueue("echo", "x", delay=3600)
    waiting.enqueue("slow", "z")
    end_next(waiting, Outcome("failed", "retrying", retry_in=3600))
    waiting.enqueue("echo", "y")
    assert str(waiting.enqueue_many("slow", ["z"])).startswith("1 waiting; 1 not before 2")
    forced = waiting.enqueue_many("echo", ["x", "y", "new", "new"], force=True)
    assert (forced.answers, forced.waiting) == (["now", "waiting", "new", "waiting"], 3)
    assert str(waiting.enqueue_many("slow", ["z"], force=True)) == "1 now instead of later"
    assert {job.state for job in waiting.jobs()} == {"queued"}


def test_many_threads_can_enqueue_at_once(waiting: App) -> None:
    answers: list[int] = []

    def enqueue() -> None:
        for number in range(10):
            answers.append(waiting.enqueue("echo", str(number)).id)

    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == len(waiting.jobs()) == 10


# Finding -------------------------------------------------------------------------------------


def test_filters_list_jobs_oldest_first(app: App) -> None:
    app.enqueue("echo", "a", tag="t")
    app.enqueue("gone", "b", tag="t")
    app.enqueue("slow", "c")

    def found(*ids: int, **filters: Any) -> list[int]:
        return [job.id for job in app.jobs(*ids, **filters)]

    assert found() == [1, 2, 3]
    assert found(state="failed") == [2, 3]
    assert found(state="failed", error="timeout") == [3]
    assert found(task="echo", tag="t") == [1]
    assert found(limit=2) == [1, 2]
    assert found(3, 1) == [1, 3]
    assert found(3, 1, state="failed") == [3]


def test_missing_jobs_and_items_are_named(app: App) -> None:
    app.enqueue("echo", "a")
    for ask in (lambda: app.job(9), lambda: app.jobs(1, 9), lambda: app.replay(9)):
        with pytest.raises(NotFound, match="no job 9; `paise2 jobs` lists them"):
            ask()
    with pytest.raises(NotFound, match="no item 4; `paise2 items` lists them"):
        app.item(4)
    with pytest.raises(UsageError, match="unknown state 'broken'; one of queued, scheduled"):
        app.jobs(state="broken")


# Waiting -------------------------------------------------------------------------------------


def test_a_wait_without_workers_fails_at_once(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    for wait in (waiting.wait, job.wait, job.result):
        with pytest.raises(WorkersError, match="no worker runs; start some: paise2 worker start"):
            wait()


def test_a_wait_ends_after_its_timeout(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    for wait in (waiting.wait, job.wait, job.result, waiting.jobs().wait):
        with pytest.raises(Timeout, match=r"1 of 1 jobs had not finished after 0 s; they go on"):
            wait(timeout=0)
    assert issubclass(Timeout, TimeoutError)


def test_waiting_for_many_jobs_uses_little_processor_time(waiting: App) -> None:
    jobs = waiting.enqueue_many("echo", range(20_000))
    steps = steps_of_waiting(waiting.client, timeout=600, jobs=jobs.ids)
    began = time.thread_time()
    rests = [next(steps) for _ in range(5)]
    assert sum(rests) > 5 * (time.thread_time() - began)


def test_the_result_of_a_scheduled_job_times_out(waiting: App) -> None:
    job = waiting.enqueue("echo", "x", delay=3600)
    waiting.wait(timeout=0)  # nothing is due
    with pytest.raises(Timeout):
        job.result(timeout=0)
    with pytest.raises(WorkersError):
        job.result()


def test_a_wait_reports_progress(waiting: App) -> None:
    jobs = waiting.enqueue_many("echo", ["a", "b"])
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))
        if waiting.status().jobs["queued"]:
            end_next(waiting, Outcome("completed", "completed"))

    jobs.wait(timeout=60, on_progress=note)
    assert seen == [(0, 2), (1, 2), (2, 2)]
    waiting.wait(on_progress=note)
    assert seen[-1] == (0, 0)


def test_a_wait_for_one_job_does_not_wait_for_others(waiting: App) -> None:
    first = waiting.enqueue("echo", "a", priority=1)
    waiting.enqueue("echo", "b")
    end_next(waiting, Outcome("completed", "completed", '"a"'))
    assert first.wait(timeout=0).result(timeout=0) == "a"
    assert len(waiting.jobs(first.id).wait(timeout=0)) == 1


def test_a_wait_includes_follow_up_jobs_but_a_result_does_not(waiting: App) -> None:
    job = waiting.enqueue("parent", "echo", "x")
    [followup] = waiting.parts.new_jobs("echo", [("x",)])
    end_next(waiting, Outcome("completed", "completed", "null", followups=[followup]))
    assert job.result(timeout=0) is None
    with pytest.raises(Timeout):
        job.wait(timeout=0)


# Retry and cancel ----------------------------------------------------------------------------


def test_failures_of_one_class_are_retried_together(app: App) -> None:
    app.enqueue("gone", "a")
    app.enqueue_many("slow", ["b", "c"])
    assert [job.id for job in app.jobs(state="failed", error="timeout").retry()] == [2, 3]
    assert [len(job.attempts) for job in app.jobs()] == [1, 2, 2]


def test_a_retry_returns_an_unfinished_duplicate_instead(waiting: App) -> None:
    old = waiting.enqueue("echo", "x")
    end_next(waiting, Outcome("failed", "failed", None, "timeout", "too slow"))
    twin = waiting.enqueue("echo", "x")
    assert twin.id != old.id
    assert [job.id for job in old.retry()] == [twin.id]
    assert old.state == "failed"


def test_retry_and_cancel_return_only_the_jobs_that_they_changed(app: App) -> None:
    job = app.enqueue("echo", "x")
    assert list(job.retry()) == []
    assert list(job.cancel()) == []
    assert job.state == "completed"


def test_cancel_returns_the_cancelled_jobs(waiting: App) -> None:
    waiting.enqueue_many("echo", ["a", "b"])
    waiting.enqueue("echo", "c", delay=60)
    assert [job.id for job in waiting.jobs().cancel()] == [1, 2, 3]
    assert waiting.status().jobs["cancelled"] == 3
    waiting.wait()


# Status and digest ---------------------------------------------------------------------------

STATUS_KEYS = (
    "profile", "data_dir", "immediate", "pages", "jobs", "roots", "workers", "supervisor",
    "oldest_queued_seconds", "next_retry_at", "completed_per_minute", "seconds_left", "items",
    "paused", "paused_pools", "alerts", "machines",
)  # fmt: skip


def test_the_status_has_exactly_the_documented_keys(waiting: App, tmp_path: Path) -> None:
    empty = waiting.status().to_dict()
    assert tuple(empty) == STATUS_KEYS
    zero = dict.fromkeys(STATES, 0)
    assert empty == {
        "profile": "development", "data_dir": str(tmp_path / "data"), "immediate": False,
        "pages": dict.fromkeys(PAGE_STATES, 0), "jobs": zero, "roots": zero, "workers": [],
        "supervisor": None,
        "oldest_queued_seconds": None, "next_retry_at": None, "completed_per_minute": 0,
        "seconds_left": None, "items": 0, "paused": None, "paused_pools": {},
        "alerts": [], "machines": [],
    }  # fmt: skip
    assert json.loads(json.dumps(empty)) == empty


def test_the_status_counts_jobs_and_roots(waiting: App) -> None:
    waiting.enqueue("parent", "echo", "x")
    [followup] = waiting.parts.new_jobs("echo", [("x",)])
    end_next(waiting, Outcome("completed", "completed", followups=[followup]))
    waiting.enqueue("echo", "later", delay=60)
    end_next(waiting, Outcome("failed", "retrying", None, "dns", "no such host", retry_in=60))
    waiting.enqueue("echo", "now")
    status = waiting.status()
    assert +Counter(status.jobs) == {"completed": 1, "retrying": 1, "scheduled": 1, "queued": 1}
    assert +Counter(status.roots) == {"completed": 1, "scheduled": 1, "queued": 1}
    assert ISO.fullmatch(status.next_retry_at or "")
    assert status.completed_per_minute > 0
    assert status.seconds_left is None, "without workers there is no honest figure"
    assert status.oldest_queued_seconds is not None
    assert [row["id"] for row in status.retries] == [2]
    assert "no worker runs; start some: paise2 worker start" in str(status)


def test_failures_are_grouped_with_the_command_that_fixes_them(app: App) -> None:
    app.enqueue_many("gone", ["a", "b"])
    assert "2 × http_4xx: 404 Not Found → paise2 job 2" in str(app.status())


def test_the_digest_counts_what_happened_since_the_last_time(waiting: App, tmp_path: Path) -> None:
    assert waiting.since().since is None
    page = tmp_path / "page.txt"
    page.write_text("some words")
    waiting.enqueue("echo", "x")
    end_next(waiting, Outcome("failed", "failed", None, "timeout", "too slow"))
    waiting.store.put(
        paise2nb.Document("text"), url="http://a/", key="http://a/", mime_type="text/plain",
        sha256="0" * 64, size=4, tag=None, fetched_at=0.0,
    )  # fmt: skip
    waiting.enqueue("echo", "y")
    since = waiting.since()
    assert (since.stored, since.failed, since.waiting) == (1, 1, 1)
    assert "1 stored, 1 failed, 1 waiting, 0 workers" in str(since)
    again = waiting.since()
    assert (again.stored, again.failed, again.waiting) == (0, 0, 1)


# Reset and cleanup ---------------------------------------------------------------------------


def test_a_reset_removes_finished_jobs_and_keeps_items(app: App, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("some words to find")
    app.enqueue("fetch", str(page))
    app.enqueue("echo", "later", delay=60)
    counts = app.reset()
    assert (counts.jobs, counts.items, counts.cached > 0) == (3, 0, True)
    assert [job.state for job in app.jobs()] == ["scheduled"]
    assert len(app.search("words")) == 1


def test_a_hard_reset_removes_everything(app: App, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("some words to find")
    app.enqueue("fetch", str(page))
    app.enqueue("echo", "later", delay=60)
    counts = app.reset(hard=True)
    assert (counts.jobs, counts.items) == (4, 1)
    assert counts.to_dict().keys() == {"jobs", "cached", "items"}
    status = app.status()
    assert (sum(status.jobs.values()), status.items, len(app.search("words"))) == (0, 0, 0)


def test_a_reset_keeps_the_bytes_that_the_extraction_of_an_item_needs(
    make: Make, tmp_path: Path
) -> None:
    page = tmp_path / "page.txt"
    page.write_text("some words to find")
    [item] = make().enqueue("fetch", str(page)).items
    waiting = make("development")
    waiting.enqueue("extract", item.id)
    waiting.reset()
    assert item.sha256 in waiting.cache


def test_a_hard_reset_gives_the_space_back(waiting: App) -> None:
    waiting.enqueue_many("echo", [f"{number}{' word' * 2000}" for number in range(100)])
    waiting.store.put(
        paise2nb.Document("word " * 200_000), url="http://a/", key="http://a/", tag=None,
        mime_type="text/plain", sha256="0" * 64, size=4, fetched_at=0.0,
    )  # fmt: skip
    waiting.reset(hard=True)
    for name in ("tasks.db", "items.db"):
        assert sum(path.stat().st_size for path in waiting.data_dir.glob(f"{name}*")) < 300_000


def test_an_export_to_the_home_directory(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert app.export("~/all.jsonl").path == tmp_path / "all.jsonl"
    assert (tmp_path / "all.jsonl").exists()


def test_the_cleanup_removes_old_jobs(make: Make) -> None:
    app = make(history__keep_days=0)
    app.enqueue("echo", "x")
    app.enqueue("cleanup")
    assert [job.task for job in app.jobs()] == ["cleanup"]


def test_the_cleanup_keeps_what_a_running_job_has_put_into_the_cache(make: Make) -> None:
    app = make(cache__keep_days=0)
    store = app.queue.job_store
    old = app.cache.put(b"old")
    [entry] = (app.data_dir / "cache").glob("??/*")
    os.utime(entry, (time.time() - 1,) * 2)
    store.add([NewJob("fetch", "[]", 1)])
    fetch = store.claim(store.register("default", 1), {"fetch": Limits(None, None)})
    assert fetch is not None
    new = app.cache.put(b"new")
    assert app.enqueue("cleanup").result() == {"jobs": 0, "cached": 1}
    assert (old in app.cache, new in app.cache) == (False, True)


def test_a_removed_job_shows_its_last_known_state(app: App) -> None:
    job = app.enqueue("echo", "x")
    assert job.state == "completed"
    app.reset()
    assert job.state == "completed"
    jobs = app.jobs()
    assert jobs.to_dicts() == []


# Opening and closing -------------------------------------------------------------------------


def test_jobs_outlive_the_app(make: Make) -> None:
    make("development").enqueue("echo", "kept")
    again = make("development")
    assert [job.args for job in again.jobs()] == [["kept"]]


def test_a_temporary_directory_is_removed_when_its_app_closes() -> None:
    with paise2nb.open("test") as app:
        assert app.data_dir.is_dir()
        app.enqueue("cleanup")
    assert not app.data_dir.exists()
    app.close()  # a second time


def test_open_without_arguments_returns_the_current_app_of_the_kernel(app: App) -> None:
    assert current() is None
    make_current(app)
    try:
        assert paise2nb.open() is app
        with paise2nb.open("test") as other:
            assert other is not app
    finally:
        make_current(None)


def test_settings_choose_the_pool_of_a_task_before_the_task_does(make: Make) -> None:
    app = make("development", workers__pools={"own": {"tasks": ["echo"]}, "loud": {}})
    assert app.parts.pool_of("echo") == "own"
    assert app.parts.pool_of("slow") == "default"
    assert set(app.parts.limits("own")) == {"echo"}
    assert app.parts.limits("loud") == {}
    assert "echo" not in app.parts.limits("default")
    assert app.parts.limits()["echo"] == (300, 1024)


def test_a_forked_child_deletes_nothing_of_its_parent() -> None:
    app = paise2nb.open("test")
    app.enqueue("cleanup")
    child = os.fork()
    if child == 0:
        with app:
            app.enqueue("cleanup", force=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with app:
        assert app.data_dir.is_dir()
        assert [job.state for job in app.jobs()] == ["completed", "completed"]
    assert not app.data_dir.exists()
