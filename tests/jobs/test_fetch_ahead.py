"""Fetches that would run far ahead of the extractions wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paise2nb.jobs.execution import MOST_AHEAD
from paise2nb.jobs.models import Limits, NewJob, Outcome, Worker
from paise2nb.jobs.store import JobStore
from tests.job_stores import end_and_claim

LIMITS = {name: Limits(60, 512) for name in ("fetch", "extract", "store", "other")}
FETCH = {name: LIMITS[name] for name in ("fetch", "other")}
EXTRACT = {name: LIMITS[name] for name in ("extract", "store")}
DONE = Outcome("completed", "completed")


@pytest.fixture(params=[0.0, 1.0])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "tasks.db", durable=False, host_delay=request.param)
    yield store
    store.close()


@pytest.fixture
def fetcher(store: JobStore) -> Worker:
    """A worker of a pool that fetches only, after it has fetched many files."""
    store.add([NewJob("fetch", f'["/{number}"]', 4) for number in range(MOST_AHEAD + 3)])
    fetcher = store.register("fetch", 16)
    for _ in range(MOST_AHEAD + 2):
        claim = store.claim(fetcher, FETCH)
        assert claim is not None
        store.end(claim, Outcome("completed", "completed", followups=[NewJob("extract", "[]", 4)]))
    return fetcher


def next_task(store: JobStore, worker: Worker, limits: dict[str, Limits]) -> str | None:
    """The task of the next claim; ``claimable`` says the same."""
    is_claimable = store.claimable(tuple(limits))
    claim = store.claim(worker, limits)
    assert is_claimable == (claim is not None)
    return None if claim is None else claim.task


def test_files_are_fetched_further_when_few_extractions_wait(
    store: JobStore, fetcher: Worker
) -> None:
    extractor = store.register("default", 1)
    claim = store.claim(extractor, EXTRACT)
    assert store.is_ahead(tuple(FETCH))
    assert next_task(store, fetcher, FETCH) is None
    assert claim is not None
    _, claim = end_and_claim(store, claim, DONE, extractor, EXTRACT)
    assert claim is not None
    assert not store.is_ahead(tuple(FETCH))
    assert next_task(store, fetcher, FETCH) == "fetch"


def test_fetches_do_not_wait_while_nothing_is_extracted(store: JobStore, fetcher: Worker) -> None:
    assert next_task(store, fetcher, FETCH) == "fetch"


def test_hosts_with_a_delay_and_other_tasks_do_not_wait(store: JobStore, fetcher: Worker) -> None:
    assert store.claim(store.register("default", 1), EXTRACT) is not None
    jobs = [NewJob("fetch", '["http://a/"]', 4, host="a"), NewJob("other", "[]", 4)]
    store.add(jobs)
    expected = ["fetch", "other"] if store.host_delay else ["other"]
    for task in [*expected, None]:
        assert next_task(store, fetcher, FETCH) == task


def test_a_worker_that_extracts_too_finishes_what_was_begun(
    store: JobStore, fetcher: Worker
) -> None:
    both = store.register("default", 1)
    for _ in range(MOST_AHEAD + 2):
        assert next_task(store, both, LIMITS) == "extract"
    assert next_task(store, both, LIMITS) == "fetch"
