"""The states of pages: after any history the counters, the rows and a plain model agree."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paise2nb.jobs.models import (
    PAGE_PARTS,
    PAGE_STATES,
    STATES,
    UNFINISHED,
    Claim,
    Limits,
    NewJob,
    Outcome,
    Worker,
)
from paise2nb.jobs.store import JobStore
from tests.job_stores import end_and_claim

TASKS = ("fetch", "extract", "render", "store", "feed", "links", "count")
LIMITS = {task: Limits(60, 512) for task in TASKS}
FOLLOWS = {
    "fetch": ["extract"],
    "extract": ["store"],
    "render": ["store"],
    "links": ["links", "extract"],
}
RETRYABLE = ("failed", "cancelled", "retrying", "scheduled")
NUMBERS = st.lists(st.integers(0, 99), max_size=4)
WORKERS = st.integers(0, 1)
TICK = 1e-3  # seconds between two claims: the start of an execution is part of its identity

OUTCOMES = {
    "failed": Outcome("failed", "failed", None, "http_4xx", "404 Not Found"),
    "not cached": Outcome("failed", "failed", None, "not_cached", "gone"),
    "retrying": Outcome("failed", "retrying", None, "timeout", "too slow", retry_in=60),
    "crashed": Outcome("crashed", "retrying", None, "crash", "died", retry_in=0),
    "given up": Outcome("crashed", "failed", None, "crash", "died"),
    "released": Outcome("released", "queued"),
    "snoozed": Outcome("snoozed", "queued", resume="[]"),
    "cancelled": Outcome("cancelled", "cancelled", None, None, "by its task"),
}
RESULTS = {
    "item": '{"item": 1}',
    "status 304": '{"status": 304}',
    "skipped": '{"skipped": "noindex"}',
    "none": "null",
}

Execution: TypeAlias = tuple[str, str, int, int]  # outcome, result, follow-ups, fetches
EXECUTIONS = st.tuples(
    st.sampled_from(["completed"] * 16 + list(OUTCOMES)),
    st.sampled_from([*RESULTS, "item", "item"]),
    st.sampled_from([0, 1, 1, 1, 1, 1, 2]),
    st.sampled_from([0, 1, 2, 2, 70]),
)


@dataclass(eq=False)
class Job:
    """A job of the model."""

    id: int
    task: str
    parent: Job | None = None
    recurs: bool = False
    priority: int = 0
    state: str = "queued"
    claim: Claim | None = None  # the last one
    worker: int | None = None
    due: float = 0.0
    result: str = "null"
    error_class: str | None = None
    finished_at: float | None = None

    @property
    def root(self) -> Job:
        return self if self.parent is None else self.parent.root

    @property
    def page(self) -> Job | None:
        if self.task == "fetch" or (self.task == "links" and self.parent):
            return self
        return self.parent.page if self.parent and self.task in PAGE_PARTS else None


class Model(dict[int, Job]):
    """What the jobs of a job store should be: by id, in plain Python."""

    def below(self, job: Job) -> list[Job]:
        return [other for other in self.values() if other.parent is job]

    def tree(self, job: Job) -> list[Job]:
        return [job, *(part for child in self.below(job) for part in self.tree(child))]

    def parts(self, page: Job) -> list[Job]:
        """The fetch, the newest job that follows from it, the newest that follows from that, …"""
        parts = [page]
        while follow := [job for job in self.below(parts[-1]) if job.page is page]:
            parts.append(follow[-1])
        return parts

    def page_state(self, page: Job) -> str:
        parts = self.parts(page)
        states = [part.state for part in parts]
        if page.state == "cancelled":
            return "cancelled"
        if "running" in states or "queued" in states[1:]:
            return "running"
        for state in ("retrying", "scheduled", "queued", "failed", "cancelled"):
            if state in states:
                return state
        assert set(states) == {"completed"}
        if any(part.result == RESULTS["item"] for part in parts[2:]):
            return "stored"
        return "unchanged" if page.result == RESULTS["status 304"] else "skipped"

    def pages(self) -> dict[int, str]:
        return {job.id: self.page_state(job) for job in self.values() if job.page is job}

    def finish(self, job: Job, state: str, now: float) -> None:
        job.state = "scheduled" if job.recurs and state in ("completed", "failed") else state
        job.finished_at = None if job.state in UNFINISHED else now

    def prune(self, before: float) -> None:
        def is_old(job: Job) -> bool:
            finished = job.finished_at is not None and job.finished_at < before
            return finished and job.worker is None

        for root in [job for job in self.values() if job.parent is None]:
            if all(map(is_old, tree := self.tree(root))):
                for job in tree:
                    del self[job.id]
        while leaves := [
            job
            for job in self.values()
            if job.parent and is_old(job) and job.root.recurs and not self.below(job)
        ]:
            for job in leaves:
                del self[job.id]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "tasks.db", durable=False)
    yield store
    store.close()


def page_with(store: JobStore, *outcomes: str, **values: Any) -> int:
    """A page whose fetch, extract and store have had these outcomes, one after the other."""
    [(page, _)] = store.add([NewJob("fetch", "[]", 4, **values)]).answers
    worker = store.register("default", 1)
    for outcome in outcomes:
        claim = store.claim(worker, LIMITS, tree=page)
        assert claim is not None
        followups = [NewJob(task, "[]", 4) for task in FOLLOWS.get(claim.task, [])]
        done = Outcome("completed", "completed", RESULTS["item"], followups=followups)
        store.end(claim, OUTCOMES.get(outcome, done))
    return page


def page_state(store: JobStore, page: int) -> str:
    state: str = store.rows([page])[page]["page_state"]
    return state


def test_a_page_is_retried_by_the_part_that_failed(store: JobStore) -> None:
    page = page_with(store, "completed", "failed")
    (fetch, extract), _ = store.page_parts([page])[page]
    assert store.retry([page, extract]) == [page]
    rows = store.rows([fetch, extract])
    assert [row["state"] for row in rows.values()] == ["completed", "queued"]
    assert page_state(store, page) == "running"


def test_a_page_whose_cached_bytes_are_gone_is_fetched_again(store: JobStore) -> None:
    page = page_with(store, "completed", "not cached")
    assert store.retry([page]) == [page]
    assert page_state(store, page) == "queued"
    assert [a["outcome"] for a in store.attempts(page)] == ["completed"]
    claim = store.claim(store.register("default", 1), LIMITS)
    assert claim is not None
    assert (claim.id, claim.run) == (page, 2)
    store.end(claim, Outcome("completed", "completed", followups=[NewJob("extract", "[]", 4)]))
    assert page_state(store, page) == "running"  # not failed: the earlier extraction is over
    assert [a["number"] for a in store.attempts(page)] == [1, 2]


def test_pages_are_found_by_the_errors_of_their_parts(store: JobStore) -> None:
    by_part = [page_with(store, *["completed"] * n, "failed", tag="a") for n in range(3)]
    page_with(store, "completed", "completed", "completed", tag="a")
    retrying = page_with(store, "completed", "retrying")
    assert store.find(error="http_4xx", pages=True) == by_part
    assert store.find(error="timeout", pages=True) == [retrying]
    assert store.find(error="http_4xx", state="failed", tag="a", pages=True) == by_part
    assert store.find(error="http_4xx", state="failed", tag="b", pages=True) == []
    store.retry(by_part[:1])
    assert store.find(error="http_4xx", state="failed", pages=True) == by_part[1:]


def test_the_error_of_an_earlier_run_is_not_that_of_the_page(store: JobStore) -> None:
    page = page_with(store, "completed", "failed", interval=600.0)
    assert store.find(error="http_4xx", pages=True) == [page]
    store.retry([page])
    claim = store.claim(store.register("default", 1), LIMITS)
    assert claim is not None
    store.end(claim, Outcome("completed", "completed", followups=[NewJob("extract", "[]", 4)]))
    assert store.find(error="http_4xx", pages=True) == []


class Failed(NamedTuple):
    """What the history has of a failure."""

    error_class: str
    state: str
    at: float


class PageHistories(RuleBasedStateMachine):
    """Random changes of one job store, and of the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = 1e9
        self.model = Model()
        self.last = 0  # the last id
        self.store = self.open()
        self.workers = [self.store.register("default", 1) for _ in range(2)]
        self.claims: list[Claim] = []
        self.failed: set[Claim] = set()  # whose attempt is recorded as failed
        self.snoozed: set[Claim] = set()
        self.ended: Counter[tuple[str, str, str, str]] = Counter()  # executions
        self.failed_as: dict[Claim, Failed] = {}

    def open(self) -> JobStore:
        store = JobStore(Path(self.directory.name) / "tasks.db", durable=False)
        store.now = lambda: self.now
        return store

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    def recurs(self, claim: Claim) -> bool:
        job = self.model.get(claim.id)
        return job is not None and job.recurs

    def some(self, numbers: list[int]) -> list[Job]:
        jobs = list(self.model.values())
        return [jobs[number % len(jobs)] for number in numbers] if jobs else []

    def added(self, new: list[NewJob], parent: Job | None = None) -> None:
        for job in new:
            self.last += 1
            state = "scheduled" if job.delay else "queued"
            more = {"recurs": bool(job.interval), "priority": job.priority, "state": state}
            due = self.now + (job.delay or 0)
            self.model[self.last] = Job(self.last, job.task, parent, due=due, **more)

    # What users do ---------------------------------------------------------------------------

    @initialize(number=st.integers(1, 4))
    def begin(self, number: int) -> None:
        """Each history has pages, a source and a recurring page, whatever rules it has."""
        self.enqueue("fetch", number, None, None, 0)
        self.enqueue("feed", 1, None, None, 0)
        self.enqueue("links", 1, None, None, 0)
        self.enqueue("fetch", 1, None, 600.0, 0)

    @rule(
        task=st.sampled_from(["fetch", "fetch", "fetch", "feed", "links", "extract", "count"]),
        number=st.sampled_from([1, 1, 2, 2, 70]),
        delay=st.sampled_from([None, None, 60.0]),
        interval=st.sampled_from([None, None, 600.0]),
        priority=st.sampled_from([0, 0, 1]),
    )
    def enqueue(
        self, task: str, number: int, delay: float | None, interval: float | None, priority: int
    ) -> None:
        values = {"delay": delay, "interval": interval, "priority": priority}
        new = [NewJob(task, "[]", 4, **values)] * (1 if delay or interval else number)
        answers = self.store.add(new).answers
        self.added(new)
        assert answers[-1] == (self.last, "new")

    @rule(numbers=NUMBERS)
    def cancel(self, numbers: list[int]) -> None:
        chosen = self.some(numbers)
        self.store.cancel([job.id for job in chosen])
        for job in (part for root in chosen for part in self.model.tree(root)):
            if job.state == "running":
                self.ended[job.task, "cancelled", "", "cancelled"] += 1
            if job.state in UNFINISHED:
                job.state, job.finished_at = "cancelled", self.now

    @rule(numbers=NUMBERS)
    def retry(self, numbers: list[int]) -> None:
        self._retry(self.some(numbers))

    @rule()
    def retry_failed_pages(self) -> None:
        failed = self.store.find(state="failed", pages=True)
        pages = {page for page, state in self.model.pages().items() if state == "failed"}
        assert pages <= set(failed)  # with recurring ones whose last run failed
        answers = self._retry([self.model[page] for page in failed])
        assert pages <= set(answers)
        assert self.store.page_counts()["failed"] == 0

    def _retry(self, chosen: list[Job]) -> list[int]:
        queued, superseded = set(), set()
        for job in chosen:
            *_, last = self.model.parts(job) if job.page is job else [job]
            if job.state in RETRYABLE:
                queued.add(job)
            elif job.state == "completed" and last.state in RETRYABLE:
                fetches_again = last.error_class == "not_cached"
                queued.add(job if fetches_again else last)
                superseded |= {last} if fetches_again else set()
        for job in queued - superseded:
            job.state, job.finished_at = "queued", None
        return self.store.retry([job.id for job in chosen])

    @rule(age=st.sampled_from([-1, 60, 1000, 1000]))
    def prune(self, age: int) -> None:
        before = len(self.model)
        # The old attempts of a recurring job are deleted, though the job stays.
        self.failed = {
            claim
            for claim in self.failed
            if self.failed_as[claim].at >= self.now - age or not self.recurs(claim)
        }
        self.model.prune(self.now - age)
        assert self.store.prune(self.now - age) == before - len(self.model)

    @precondition(lambda self: self.last > 200)
    @rule()
    def clear(self) -> None:
        assert self.store.clear() == len(self.model)
        self.model.clear()
        self.ended.clear()

    @rule(seconds=st.sampled_from([1, 60, 3600, 40 * 86400]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    # What workers do -------------------------------------------------------------------------

    @rule(index=WORKERS)
    def claim(self, index: int) -> None:
        self.now += TICK
        self._claimed(self.store.claim(self.workers[index], LIMITS))

    @rule(index=WORKERS, executions=st.lists(EXECUTIONS, min_size=3, max_size=20))
    def work(self, index: int, executions: list[Execution]) -> None:
        """Claim and end one job after the other."""
        worker = self.workers[index]
        self.now += TICK
        claim = self.store.claim(worker, LIMITS)
        self._claimed(claim)
        for execution in executions:
            if claim is not None:
                claim = self._end(claim, execution, worker)

    def _next(self) -> Job | None:
        """The job to claim: of the oldest for each task the one with the oldest page or root."""
        ready = [
            job
            for job in self.model.values()
            if (job.state == "queued" and job.worker is None)
            or (job.state in ("scheduled", "retrying") and job.due <= self.now)
        ]
        first: dict[str, Job] = {}
        for job in sorted(ready, key=lambda job: (-job.priority, job.id)):
            first.setdefault(job.task, job)

        def order(job: Job) -> tuple[int, int, int]:
            return -job.priority, (job.page or job.root).id, job.id

        return min(first.values(), key=order, default=None)

    def _claimed(self, claim: Claim | None) -> None:
        expected = self._next()
        assert (claim and claim.id) == (expected and expected.id)
        if claim is not None and expected is not None:
            expected.state, expected.claim, expected.worker = "running", claim, claim.worker
            expected.finished_at = None
            self.claims.append(claim)

    @rule(index=st.integers(0, 5), execution=EXECUTIONS)
    def end(self, index: int, execution: Execution) -> None:
        if self.claims:  # an old one now and then, which is refused
            self._end(self.claims[-1 - index % len(self.claims)], execution, None)

    def _end(self, claim: Claim, execution: Execution, worker: Worker | None) -> Claim | None:
        self.now += TICK
        outcome, result, follow, fetches = execution
        full = OUTCOMES.get(outcome)
        if full is None:
            is_rendered = claim.task in ("fetch", "extract") and fetches == 1
            tasks = (["render"] if is_rendered else FOLLOWS.get(claim.task, [])) * follow
            tasks += ["fetch"] * fetches if claim.task in ("feed", "links") else []
            followups = [NewJob(task, "[]", 4, priority=claim.priority) for task in tasks]
            full = Outcome("completed", "completed", RESULTS[result], followups=followups)
        accepted = self._ends(claim, full)
        if worker is None:
            assert self.store.end(claim, full) == accepted
            return None
        found, next_claim = end_and_claim(self.store, claim, full, worker, LIMITS)
        assert found == accepted
        self._claimed(next_claim)
        return next_claim

    def _ends(self, claim: Claim, outcome: Outcome) -> bool:
        """Whether an outcome is accepted; then the model takes it over."""
        job = self.model.get(claim.id)
        if job is None or job.claim != claim or job.worker is None:
            return False
        accepted = job.state == "running"
        job.worker = None
        if accepted:
            job.result = outcome.result or "null"
            job.error_class = outcome.error_class
            self.model.finish(job, outcome.state, self.now)
            job.due = self.now + (outcome.retry_in or 0)
            if job.state == "scheduled":
                job.due = math.inf
            if outcome.outcome == "failed":
                self.failed.add(claim)
                error, state = outcome.error_class or "", outcome.state
                self.failed_as[claim] = Failed(error, state, self.now)
            if outcome.outcome == "snoozed":
                self.snoozed.add(claim)
            else:
                error = outcome.error_class or ""
                self.ended[job.task, outcome.outcome, error, outcome.state] += 1
            self.added(list(outcome.followups), job)
        return accepted

    @rule(index=WORKERS, outcome=st.sampled_from(["released", "crashed", "given up"]))
    def kill(self, index: int, outcome: str) -> None:
        worker = self.workers[index]
        for job in [job for job in self.model.values() if job.worker == worker.id]:
            assert job.claim is not None
            self._ends(job.claim, OUTCOMES[outcome])
        self.store.rescue_jobs(worker.id, lambda row, alone: OUTCOMES[outcome])
        self.workers[index] = self.store.register("default", 1)

    @rule(index=WORKERS)
    def release(self, index: int) -> None:
        worker: Worker = self.workers[index]
        for job in [job for job in self.model.values() if job.worker == worker.id]:
            assert job.claim is not None
            self._ends(job.claim, OUTCOMES["released"])
        self.store.release(worker)

    @rule(index=st.integers(0, 99))
    def refund(self, index: int) -> None:
        if not self.claims:
            return
        claim = self.claims[-1 - index % min(len(self.claims), 6)]
        if claim in self.snoozed:  # its number is that of the next execution
            return
        job = self.model.get(claim.id)
        if job is not None and claim in self.failed:
            self.failed.discard(claim)
            error, state, _ = self.failed_as[claim]
            self.ended[job.task, "failed", error, state] -= 1
            self.ended[job.task, "released", "", "queued"] += 1
            if job.claim == claim and job.state in ("retrying", "failed"):
                job.state, job.finished_at = "queued", None
        self.store.refund([claim])

    # What must hold --------------------------------------------------------------------------

    @invariant()
    def jobs_and_pages_are_those_of_the_model(self) -> None:
        rows = self.store.rows(self.store.find())
        for job in self.model.values():  # when a recurring job is due is not the subject here
            if job.due == math.inf and rows[job.id]["run_at"] is not None:
                job.due = rows[job.id]["run_at"]
        jobs = {job.id: (job.state, job.page and job.page.id) for job in self.model.values()}
        assert {key: (row["state"], row["page_id"]) for key, row in rows.items()} == jobs
        pages = {key: row["page_state"] for key, row in rows.items() if row["page_state"]}
        assert pages == self.model.pages()
        counts = Counter(pages.values())
        assert self.store.page_counts() == {state: counts[state] for state in PAGE_STATES}
        counts = Counter(job.state for job in self.model.values() if job.page is None)
        assert self.store.other_counts() == {state: counts[state] for state in STATES}
        others = [job for job in self.model.values() if job.page is None]
        listed = {job.id for job in others if job.parent is None or job.state == "failed"}
        assert self.store.find(pages=True) == sorted(listed | pages.keys())
        parts = {page: [part.id for part in self.model.parts(self.model[page])] for page in pages}
        assert {page: ids for page, (ids, _) in self.store.page_parts(rows).items()} == parts

    @invariant()
    def the_history_has_every_execution_once(self) -> None:
        counted: Counter[tuple[str, ...]] = Counter()
        for (series, _), sums in self.store.sums(0).items():
            if series.task:
                counted[series.task, series.outcome, series.error_class, series.state] += (
                    sums.number
                )
                assert sums.wait.total() == sums.run.total() == sums.number >= 0
        assert +counted == +self.ended


TestPageHistories = PageHistories.TestCase
TestPageHistories.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_large_tree_is_pruned_in_portions_of_whole_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paise2nb.jobs.store.PRUNED_AT_ONCE", 10)
    limits = {name: Limits(None, None) for name in ("folder", "fetch", "extract", "store")}
    after = {"fetch": ["extract"], "extract": ["store"], "folder": ["fetch"] * 25}
    with closing(JobStore(tmp_path / "tasks.db", durable=False)) as store:
        store.add([NewJob("folder", "[]", 4)])
        worker = store.register("default", 1)
        while (claim := store.claim(worker, limits)) is not None:
            followups = [NewJob(task, "[]", 4) for task in after.get(claim.task, [])]
            result = '{"item": 1}' if claim.task == "store" else None
            store.end(claim, Outcome("completed", "completed", result, followups=followups))
        deleted = []

        def looked_at(statement: str) -> None:
            if statement == "COMMIT":
                deleted.append(store.page_counts()["stored"])

        store.database._connection(None).set_trace_callback(looked_at)
        before = store.now() + 60
        assert store.prune(before) == 1 + 3 * 25
        assert deleted[:3] == [25, 21, 17]
        assert sum(store.page_counts().values()) == 0
