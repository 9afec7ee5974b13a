"""How much work a job is: SQL statements, commits and pages of the write-ahead log.

These are the parts of the benchmarks of the queue that no busy machine changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paise2nb.jobs.database import PAGE_SIZE
from paise2nb.jobs.models import Claim, Limits, NewJob, Outcome, Wanted, Worker
from paise2nb.jobs.store import JobStore
from tests.job_stores import end_and_claim

LIMITS = {name: Limits(60, 512) for name in ("work", "fetch", "extract", "store")}
FRAME = (
    PAGE_SIZE + 24
)  # bytes of a page in the log: https://www.sqlite.org/fileformat.html#walformat


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    """A job store in which the usual things have happened once."""
    store = JobStore(tmp_path / "tasks.db", durable=False)
    worker = store.register("default", 1)
    store.add(jobs(200))
    end_all(store, worker, 100)
    yield store
    store.close()


@pytest.fixture
def worker(store: JobStore) -> Worker:
    return store.register("default", 1)


def jobs(number: int, task: str = "work", first_key: int = 0) -> list[NewJob]:
    return [NewJob(task, '["x"]', 4, first_key + n) for n in range(number)]


def end_all(store: JobStore, worker: Worker, number: int) -> None:
    claim = store.claim(worker, LIMITS)
    for _ in range(number):
        assert claim is not None
        _, claim = end_and_claim(
            store, claim, Outcome("completed", "completed", "null"), worker, LIMITS
        )


def work_of(store: JobStore, work: Callable[[], object]) -> tuple[int, int, int]:
    """Return how many statements, commits and pages a piece of work takes."""
    seen: list[str] = []
    log = store.path.with_name(f"{store.path.name}-wal")
    store.checkpoint()
    store.database.write(lambda c: c.set_trace_callback(seen.append))
    seen.clear()
    store.checkpoint()
    work()
    pages = log.stat().st_size // FRAME
    store.database.write(lambda c: c.set_trace_callback(None))
    words = Counter(statement.split()[0] for statement in seen)
    for word in ("BEGIN", "PRAGMA"):
        del words[word]
    return words.total() - words["COMMIT"], words["COMMIT"], pages


def test_an_enqueue(store: JobStore) -> None:
    statements, commits, pages = work_of(store, lambda: store.add(jobs(1, first_key=1000)))
    assert (statements, commits) == (3, 1)
    assert pages <= 3


def test_a_bulk_enqueue_of_1000(store: JobStore) -> None:
    statements, commits, pages = work_of(store, lambda: store.add(jobs(1000, first_key=1000)))
    assert (statements, commits) == (5, 1)
    assert pages <= 64


def test_a_claim(store: JobStore, worker: Worker) -> None:
    statements, commits, pages = work_of(store, lambda: store.claim(worker, LIMITS))
    assert (statements, commits) == (4, 1)
    assert pages <= 3


def test_a_claim_takes_the_same_steps_beside_many_waiting_jobs(
    store: JobStore, worker: Worker
) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    store.database.write(lambda c: c.set_progress_handler(step, 1))
    taken = []
    for waiting in (1, 5000):
        store.add([*jobs(waiting), *jobs(waiting, "other", first_key=10_000)])
        steps = 0
        assert store.claim(worker, LIMITS) is not None
        taken.append(steps)
    few, many = taken
    assert 0 < many <= few


def test_an_end_with_the_next_claim(store: JobStore, worker: Worker) -> None:
    claim = store.claim(worker, LIMITS)
    assert claim is not None
    outcome = Outcome("completed", "completed", "null")
    statements, commits, pages = work_of(
        store, lambda: end_and_claim(store, claim, outcome, worker, LIMITS)
    )
    assert (statements, commits) == (6, 1)
    assert pages <= 4


def test_the_ends_and_the_next_claims_of_32_brief_jobs(store: JobStore, worker: Worker) -> None:
    wanted = Wanted(LIMITS, frozenset({"work"}), 32)
    _, claims = store.end_several([], worker, wanted)
    ended = [(claim, Outcome("completed", "completed", "null")) for claim in claims]
    statements, commits, pages = work_of(store, lambda: store.end_several(ended, worker, wanted))
    assert statements <= 64 + 8  # those of the history depend on how alike their times are
    assert commits == 1
    assert pages <= 9


def test_the_ends_and_the_next_claims_of_2_short_jobs(store: JobStore, worker: Worker) -> None:
    wanted = Wanted(LIMITS, short="work")
    _, claims = store.end_several([], worker, wanted)
    ended = [(claim, Outcome("completed", "completed", "null")) for claim in claims]
    assert len(ended) == 2
    statements, commits, pages = work_of(store, lambda: store.end_several(ended, worker, wanted))
    assert statements <= 10  # those of the history depend on how alike their times are
    assert commits == 1
    assert pages <= 4


def test_a_page_from_fetch_to_store(store: JobStore, worker: Worker) -> None:
    end_all(store, worker, 99)
    store.add([NewJob("fetch", '["u"]', 4, 5000)])
    followups = {"work": "", "fetch": "extract", "extract": "store", "store": ""}

    def run() -> None:
        claim: Claim | None = store.claim(worker, LIMITS)
        while claim is not None:
            name = followups[claim.task]
            added = [NewJob(name, "[]", 4)] if name else []
            outcome = Outcome("completed", "completed", '{"item": 1}', followups=added)
            _, claim = end_and_claim(store, claim, outcome, worker, LIMITS)

    statements, commits, pages = work_of(store, run)
    assert store.page_counts()["stored"] == 1
    assert (statements, commits) == (51, 4)
    assert pages <= 25  # two are those of the index by which pages are listed
