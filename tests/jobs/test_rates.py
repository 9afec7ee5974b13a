"""How fast pages and jobs end: the numbers behind throughput and the time left."""

from __future__ import annotations

import pytest

from paise2nb.jobs.models import Limits, NewJob, Outcome
from paise2nb.jobs.store import JobStore
from tests.job_stores import Clock

TASKS = {name: Limits(None, None) for name in ("fetch", "extract", "store", "count")}
STORED = Outcome("completed", "completed", result='{"item": 1}')


def end_pages(store: JobStore, number: int) -> None:
    """Fetch, extract and store some pages at this moment."""
    worker = store.register("default", 1)
    store.add([NewJob("fetch", f"[{n}]", 4) for n in range(number)])
    after = {"fetch": "extract", "extract": "store"}
    while (claim := store.claim(worker, TASKS)) is not None:
        followups = [NewJob(after[claim.task], "[]", 4)] if claim.task in after else []
        store.end(
            claim, Outcome("completed", "completed", result='{"item": 1}', followups=followups)
        )


def test_pages_are_counted_and_not_their_jobs(store: JobStore, clock: Clock) -> None:
    assert store.rates() == (0.0, 0.0)
    for _ in range(20):
        end_pages(store, 5)
        clock.now += 1
    assert store.page_counts()["stored"] == 100
    assert store.rates() == (pytest.approx(5), pytest.approx(5))
    assert sum(completed for _, completed, _ in store.pace(5)) == 100


@pytest.mark.parametrize("phase", [0.0, 0.5, 0.9])
def test_a_rate_is_about_right_after_little_more_than_a_second(
    store: JobStore, clock: Clock, phase: float
) -> None:
    clock.now = int(clock.now) + phase
    for _ in range(13):
        end_pages(store, 10)
        clock.now += 0.1
    assert store.rates()[0] == pytest.approx(100, rel=0.15)


def test_a_rate_begins_again_after_a_break(store: JobStore, clock: Clock) -> None:
    end_pages(store, 50)
    clock.now += 120
    for _ in range(10):
        end_pages(store, 2)
        clock.now += 1
    assert store.rates()[0] == pytest.approx(2)


def test_what_fails_ends_too(store: JobStore, clock: Clock) -> None:
    worker = store.register("default", 1)
    store.add([NewJob("count", f"[{n}]", 4) for n in range(30)])
    for number in range(30):
        claim = store.claim(worker, TASKS)
        assert claim is not None
        state = "failed" if number % 3 == 0 else "completed"
        store.end(claim, Outcome(state, state))
        clock.now += 1
    completed, ended = store.rates()
    assert ended == pytest.approx(1)
    assert completed == pytest.approx(2 / 3, abs=0.05)


def test_the_time_of_a_host_has_its_requests_and_its_delay(store: JobStore, clock: Clock) -> None:
    worker = store.register("default", 1)
    store.add([NewJob("fetch", f"[{n}]", 4, host="a.example") for n in range(11)])
    claim = store.claim(worker, TASKS)
    assert claim is not None
    clock.now += 0.5  # the request
    store.end(claim, STORED)
    found = store.slowest_host()
    assert found is not None
    host, waiting, delay, seconds = found
    assert (host, waiting, delay) == ("a.example", 9, 1.0)
    assert seconds == pytest.approx(1.0 + 9 * 1.5)
