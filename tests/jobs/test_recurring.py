"""Recurring jobs: when they run next, and that a failed last run is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paise2nb.jobs.models import Claim, Limits, NewJob, Outcome, Worker
from paise2nb.jobs.store import JobStore
from tests.job_stores import Clock

LIMITS = {"work": Limits(60, 512)}
HOUR, DAY = 3600.0, 86400.0
COMPLETED = Outcome("completed", "completed")
FAILED = Outcome("failed", "failed", None, "http_4xx", "404 Not Found")
RETRYING = Outcome("failed", "retrying", None, "timeout", "too slow", retry_in=HOUR)


def daily(store: JobStore) -> int:
    return store.add([NewJob("work", "[]", 4, interval=DAY)]).answers[0][0]


def take(store: JobStore, worker: Worker) -> Claim:
    claim = store.claim(worker, LIMITS)
    assert claim is not None
    return claim


def test_the_interval_is_from_start_to_start(store: JobStore, worker: Worker, clock: Clock) -> None:
    job_id, began = daily(store), clock.now
    for day in range(1, 4):
        claim = take(store, worker)
        clock.now += HOUR
        store.end(claim, COMPLETED if day % 2 else FAILED)
        assert store.rows([job_id])[job_id]["run_at"] == began + day * DAY
        clock.now = began + day * DAY


def test_retries_do_not_move_the_next_run(store: JobStore, worker: Worker, clock: Clock) -> None:
    job_id, began = daily(store), clock.now
    for _ in range(3):
        store.end(take(store, worker), RETRYING)
        clock.now += HOUR
    store.end(take(store, worker), Outcome("released", "queued"))
    clock.now += HOUR
    store.end(take(store, worker), COMPLETED)
    assert store.rows([job_id])[job_id]["run_at"] == began + DAY


def test_a_job_that_has_waited_for_long_is_seen_beside_one_that_runs_again(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    daily(store)
    store.end(take(store, worker), COMPLETED)
    began = clock.now
    store.add([NewJob("work", "[1]", 4)])
    clock.now += DAY + 1
    store.end(take(store, worker), Outcome("released", "queued"))
    assert store.oldest_queued() == began
    assert store.ready_by_task() == [("work", 2, began)]


def test_missed_runs_are_caught_up_once(store: JobStore, worker: Worker, clock: Clock) -> None:
    job_id = daily(store)
    store.end(take(store, worker), COMPLETED)
    clock.now += 10.5 * DAY  # the machine slept
    woke = clock.now
    store.end(take(store, worker), COMPLETED)
    assert store.claim(worker, LIMITS) is None
    assert store.rows([job_id])[job_id]["run_at"] == woke + DAY


def test_a_run_of_more_than_an_interval_is_followed_by_a_later_one(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    job_id, began = daily(store), clock.now
    claim = take(store, worker)
    clock.now += 2.5 * DAY
    store.end(claim, COMPLETED)
    assert store.rows([job_id])[job_id]["run_at"] == began + 3 * DAY


def test_a_failed_last_run_is_found_until_a_run_completes(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    job_id = daily(store)
    assert store.recurring_failed() == []
    store.end(take(store, worker), FAILED)
    [found] = store.recurring_failed()
    assert (found["id"], found["state"], found["error"]) == (job_id, "scheduled", "404 Not Found")
    clock.now += DAY
    for outcome in (Outcome("released", "queued"), Outcome("snoozed", "queued"), COMPLETED):
        claim = take(store, worker)
        assert [row["id"] for row in store.recurring_failed()] == [job_id]
        store.end(claim, outcome)
    assert store.recurring_failed() == []
    clock.now += DAY
    store.end(take(store, worker), FAILED)
    store.cancel([job_id])
    assert store.recurring_failed() == []


def test_due_retries_that_wait_for_their_host_are_among_the_retries(
    tmp_path: Path, clock: Clock
) -> None:
    store = JobStore(tmp_path / "hosts.db", durable=False, host_delay=HOUR)
    store.now = lambda: clock.now  # type: ignore[method-assign]  # the test moves the time
    worker = store.register("default", 1)
    jobs = [NewJob("work", f"[{n}]", 4, host="example.org") for n in range(2)]
    ids = [job_id for job_id, _ in store.add(jobs).answers]
    for _ in ids:
        claim = store.claim(worker, LIMITS)
        assert claim is not None
        store.end(claim, RETRYING)
        clock.now += HOUR
    clock.now += DAY
    assert take(store, worker).id == ids[0]
    [waiting] = store.retries(10)
    assert (waiting["id"], waiting["state"]) == (ids[1], "retrying")
    assert waiting["waiting_for"] == "example.org (1 request every 3600 s)"
    store.close()


@pytest.mark.parametrize("interval", ["soon", b"1", 0.5, -1e300, 1e300, float("inf")])
def test_a_job_with_an_interval_that_no_user_can_choose_does_not_recur(
    store: JobStore, worker: Worker, interval: Any
) -> None:
    job_id = daily(store)
    store.database.write(lambda c: c.execute("UPDATE jobs SET interval = ?", (interval,)))
    assert store.rows([job_id])[job_id]["interval"] is None
    store.end(take(store, worker), FAILED)
    assert store.recurring_failed() == []
    assert store.rows([job_id])[job_id]["state"] == "failed"


@pytest.mark.parametrize("run_at", ["later", b"2", -1.0, 1e300, float("inf")])
def test_a_time_that_no_clock_shows_is_none(store: JobStore, run_at: Any) -> None:
    job_id = daily(store)
    store.database.write(lambda c: c.execute("UPDATE jobs SET run_at = ?", (run_at,)))
    assert store.rows([job_id])[job_id]["run_at"] is None
