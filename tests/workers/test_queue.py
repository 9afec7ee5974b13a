"""Huey on the job store: claims and outcomes, signals, and messages."""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
from typing import Any

import pytest
from huey.api import Task as HueyTask

from paise2nb.app import App
from paise2nb.jobs.models import Worker
from paise2nb.workers.claims import SAFETY_POLL, IdleWaiter
from paise2nb.workers.queue import JobHuey, JSONSerializer
from tests.waiting import until
from tests.workers.plugin import PLUGIN as PLUGIN  # for the fixture `make`
from tests.workers.plugin import outcomes


def worker_of(app: App, threads: int = 1) -> Worker:
    worker = app.queue.job_store.register("default", threads)
    app.queue.work_for(worker)
    return worker


def take(huey: JobHuey) -> HueyTask:
    task = huey.dequeue()
    assert task is not None
    return task


def test_a_claimed_job_is_run_and_its_value_is_the_result(waiting: App) -> None:
    job = waiting.enqueue("echo", "hello")
    worker_of(waiting)
    task = take(waiting.queue)
    assert (job.state, job.attempt) == ("running", 1)
    waiting.queue.execute(task)
    assert (job.state, job.result(), outcomes(waiting, job.id)) == (
        "completed", "hello", ["completed"],
    )  # fmt: skip


def test_the_next_job_is_claimed_with_the_outcome(waiting: App) -> None:
    first, second = waiting.enqueue_many("echo", ["a", "b"])
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert [first.state, second.state] == ["completed", "running"]
    waiting.queue.execute(take(waiting.queue))
    assert second.result() == "b"


def test_a_draining_worker_claims_nothing_and_returns_jobs_that_it_has_not_begun(
    waiting: App,
) -> None:
    first, second = waiting.enqueue_many("echo", ["a", "b"])
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert second.state == "running"
    waiting.queue.claims.stop()
    assert waiting.queue.dequeue() is None
    waiting.queue.claims.release_ahead()
    assert (first.state, second.state, second.attempt) == ("completed", "queued", 0)


def test_a_failed_job_with_attempts_left_has_a_time_and_a_traceback(waiting: App) -> None:
    job = waiting.enqueue("flaky", 1)
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert (job.state, job.error_class, job.error) == ("retrying", "connection", "not yet")
    assert (job.attempt, job.max_attempts) == (1, 6)
    assert job.run_at is not None
    [attempt] = job.attempts
    assert 3600 <= attempt["retry_in"] <= 3600 * 1.1
    assert "in flaky" in attempt["traceback"]
    assert "queue.py" not in attempt["traceback"], "frames of the queue are left out"


def test_the_outcome_of_a_cancelled_job_is_refused(waiting: App) -> None:
    job = waiting.enqueue("parent", "a", "b")
    worker_of(waiting)
    task = take(waiting.queue)
    job.cancel()
    waiting.queue.execute(task)
    assert (job.state, len(job.children), outcomes(waiting, job.id)) == (
        "cancelled", 0, ["cancelled"],
    )  # fmt: skip


def test_an_outcome_that_can_not_be_written_is_kept_and_written_first(waiting: App) -> None:
    first, second = waiting.enqueue_many("echo", ["a", "b"])
    worker_of(waiting)
    task = take(waiting.queue)
    database = waiting.queue.job_store.database
    database.write(lambda connection: connection.execute("PRAGMA busy_timeout=0").fetchall())
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting.queue.execute(task)
    assert first.state == "running"
    other.execute("ROLLBACK")
    other.close()
    next_claim = take(waiting.queue)
    assert (first.state, first.result(), next_claim.claim.id) == ("completed", "a", second.id)


def test_a_job_that_can_not_be_decoded_fails_and_is_kept(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    job_store = waiting.queue.job_store
    job_store.database.write(lambda c: c.execute("UPDATE jobs SET args = '{broken'"))
    worker_of(waiting)
    assert waiting.queue.dequeue() is None
    assert (job.state, job.error_class, job.args) == ("failed", "undecodable", ["{broken"])
    assert "{broken" in str(job)
    assert json.dumps(job.to_dict())


def test_a_job_of_an_unknown_task_waits(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    waiting.queue.job_store.database.write(lambda c: c.execute("UPDATE jobs SET task = 'gone'"))
    worker_of(waiting)
    waiting.queue.claims.stop()
    assert not waiting.queue.job_store.claimable(list(waiting.parts.limits()))
    assert job.state == "queued"


def test_a_worker_waits_on_a_full_disk_although_a_job_is_due(waiting: App) -> None:
    waiting.enqueue("echo", "x")
    worker, claims, store = worker_of(waiting), waiting.queue.claims, waiting.queue.job_store
    claim = store.claim(worker, claims.limits)
    waiting.enqueue("echo", "due", delay=0.001)
    until(store.has_work)
    assert claim is not None
    assert claims.outages is not None
    assert claims.outages.is_outage(claim, OSError(errno.ENOSPC, "full"))
    assert claims._look_for_work(worker) == SAFETY_POLL


def work_with(app: App, number: int) -> None:
    """Run all jobs on that many threads."""
    worker_of(app, threads=number)

    def work() -> None:
        while app.queue.job_store.busy():
            task = app.queue.dequeue()
            if task is not None:
                app.queue.execute(task)
        app.queue.claims.stop()  # wakes the other threads

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_share_one_huey(waiting: App) -> None:
    words = [f"word {n}" for n in range(40)]
    jobs = waiting.enqueue_many("echo", words)
    work_with(waiting, 4)
    assert [job.result() for job in jobs] == words


def test_long_jobs_run_on_all_threads_at_once_beside_short_jobs(waiting: App) -> None:
    brief = waiting.enqueue_many("echo", [str(n) for n in range(40)], priority=1)
    long = waiting.enqueue_many("meet", [(8, n) for n in range(8)])
    work_with(waiting, 8)
    assert {job.state for job in [*brief, *long]} == {"completed"}


def test_a_wakeup_between_the_last_claim_and_the_wait_is_not_missed() -> None:
    idle_waiter = IdleWaiter()
    calls = idle_waiter.calls
    idle_waiter.wake()
    napping = threading.Thread(target=idle_waiter.wait, args=(60, calls), daemon=True)
    napping.start()
    napping.join(timeout=30)
    assert not napping.is_alive()


def test_signals_are_sent_for_each_event(waiting: App) -> None:
    seen: list[tuple[str, str]] = []

    def listen(signal: str, task: HueyTask, *arguments: Any) -> None:
        seen.append((signal, task.name))

    waiting.queue.signal()(listen)
    worker_of(waiting)
    for name, argument in (("echo", "x"), ("flaky", 1), ("permanent", "x")):
        waiting.enqueue(name, argument)
        waiting.queue.execute(take(waiting.queue))
    assert seen == [
        ("executing", "echo"), ("complete", "echo"),
        ("executing", "flaky"), ("retrying", "flaky"),
        ("executing", "permanent"), ("error", "permanent"),
    ]  # fmt: skip


def test_a_listener_that_raises_loses_no_job(waiting: App) -> None:
    def listen(*arguments: Any) -> None:
        raise RuntimeError("an error of the listener")

    waiting.queue.signal()(listen)
    job = waiting.enqueue("echo", "x")
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert job.result() == "x"


def test_the_storage_counts_jobs_and_has_no_schedule(waiting: App) -> None:
    waiting.enqueue("echo", "a")
    waiting.enqueue("echo", "b", delay=3600)
    assert len(waiting.queue) == 1
    assert waiting.queue.storage.schedule_size() == 1
    assert waiting.queue.read_schedule() == []


def test_messages_are_json_and_never_run_code() -> None:
    serializer = JSONSerializer()
    assert serializer.deserialize(serializer.serialize({"a": [1, "ü"]})) == {"a": [1, "ü"]}
    with pytest.raises(ValueError, match="Expecting value"):
        serializer.deserialize(b"cos\nsystem\n(S'true'\ntR.")
