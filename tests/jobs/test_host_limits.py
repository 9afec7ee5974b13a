"""Rate limits by host: one request at a time and a delay in between, across all workers."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.jobs.models import Claim, HostDelay, Limits, NewJob, Outcome, Worker
from paise2nb.jobs.store import JobStore
from tests.job_stores import end_and_claim
from tests.site import PAGE, Site, Visit
from tests.workers.test_workers import until

LIMITS = {"work": Limits(60, 512)}
COMPLETED = Outcome("completed", "completed", "1")
DELAY = 1000.0  # seconds: longer than any test
WAITS_FOR_A = "a (1 request every 1000 s)"


# In the job store ----------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[float], JobStore]]:
    made: list[JobStore] = []

    def make(host_delay: float) -> JobStore:
        made.append(JobStore(tmp_path / "tasks.db", durable=False, host_delay=host_delay))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[[float], JobStore]) -> JobStore:
    return make(DELAY)


@pytest.fixture
def worker(store: JobStore) -> Worker:
    return store.register("default", 1)


def add(store: JobStore, *hosts: str | None, **values: Any) -> list[int]:
    jobs = [NewJob("work", '["x"]', 4, host=host, **values) for host in hosts]
    return [job_id for job_id, _ in store.add(jobs).answers]


def take(store: JobStore, worker: Worker) -> Claim:
    claim = store.claim(worker, LIMITS)
    assert claim is not None
    return claim


def waiting(store: JobStore, job_id: int) -> tuple[str, str | None, bool]:
    """The state of a job, what it waits for, and whether it has a time."""
    row = store.rows([job_id])[job_id]
    return row["state"], row["waiting_for"], row["run_at"] is not None


def test_only_one_job_of_a_host_may_start_and_the_others_show_what_they_wait_for(
    store: JobStore, worker: Worker
) -> None:
    first, second, other, free = add(store, "a", "a", "b", None)
    assert waiting(store, first) == ("queued", None, False)
    assert waiting(store, second) == ("queued", WAITS_FOR_A, False)
    assert [take(store, worker).id for _ in range(3)] == [first, other, free]
    assert store.claim(worker, LIMITS) is None


def test_the_next_waiting_job_gets_its_time_when_an_execution_ends(
    store: JobStore, worker: Worker
) -> None:
    add(store, "a", "a")
    [important] = add(store, "a", priority=5)
    before = store.now()
    store.end(take(store, worker), COMPLETED)
    row = store.rows([important])[important]
    assert row["waiting_for"] == WAITS_FOR_A
    assert before + DELAY <= row["run_at"] <= store.now() + DELAY
    assert store.next_time() == row["run_at"]
    assert store.claim(worker, LIMITS) is None


@pytest.mark.parametrize(
    ("host_delays", "seconds"),
    [
        ([HostDelay("a", 3 * DELAY)], 3 * DELAY),
        ([HostDelay("a", 1.0)], DELAY),
        ([HostDelay("a", 10**9)], 3600.0),
        ([HostDelay("a", pause=5 * DELAY)], 5 * DELAY),
        ([HostDelay("b", 3 * DELAY)], DELAY),
    ],
    ids=["crawl-delay", "a shorter one", "a huge one", "retry-after", "of another host"],
)
def test_a_host_can_ask_for_a_longer_delay(
    store: JobStore, worker: Worker, host_delays: list[HostDelay], seconds: float
) -> None:
    _, next_claim = add(store, "a", "a")
    before = store.now()
    store.end(take(store, worker), Outcome("completed", "completed", "1", host_delays=host_delays))
    run_at = store.rows([next_claim])[next_claim]["run_at"]
    assert before + seconds <= run_at <= store.now() + seconds


@pytest.mark.parametrize("host_delay", [DELAY, 0.0])
def test_a_job_that_is_retried_for_a_paused_host_says_so(
    make: Callable[[float], JobStore], host_delay: float
) -> None:
    store = make(host_delay)
    [job_id] = add(store, "a")
    claim = take(store, store.register("default", 1))
    pause = [HostDelay("a", pause=DELAY + 600)]
    store.end(claim, Outcome("failed", "failed", None, "throttled", "429", host_delays=pause))
    assert store.retry([job_id]) == [job_id]
    state, reason, _ = waiting(store, job_id)
    assert state == "queued"
    assert str(reason).startswith("a (paused for ")


def test_a_pause_also_applies_to_jobs_that_have_a_slot(make: Callable[[float], JobStore]) -> None:
    store = make(0.0)
    worker = store.register("default", 4)
    add(store, "a", "a", "a")
    throttled = Outcome(
        "failed",
        "retrying",
        None,
        "throttled",
        "429",
        None,
        DELAY,
        host_delays=[HostDelay("a", pause=DELAY)],
    )
    store.end(take(store, worker), throttled)
    assert store.claim(worker, LIMITS) is None
    assert [row["attempt"] for row in store.rows([1, 2, 3]).values()] == [1, 0, 0]


def test_without_a_delay_many_jobs_of_a_host_run_at_once(make: Callable[[float], JobStore]) -> None:
    store = make(0.0)
    worker = store.register("default", 4)
    ids = add(store, *["a"] * 300)
    taken = [take(store, worker) for _ in range(256)]
    assert store.claim(worker, LIMITS) is None
    _, next_claim = end_and_claim(store, taken[0], COMPLETED, worker, LIMITS)
    assert next_claim is not None
    assert next_claim.id == ids[256], "the end of an execution frees a slot"


@pytest.mark.parametrize("cancelled", ["with a slot", "waiting"])
def test_a_cancelled_job_gives_up_its_slot(store: JobStore, worker: Worker, cancelled: str) -> None:
    first, second, third = add(store, "a", "a", "a")
    store.cancel([first if cancelled == "with a slot" else second])
    claim = take(store, worker)
    assert claim.id == (second if cancelled == "with a slot" else first)
    store.end(claim, COMPLETED)
    assert waiting(store, third) == ("queued", WAITS_FOR_A, True)


def test_a_cancelled_execution_keeps_its_slot_until_it_has_ended(
    store: JobStore, worker: Worker
) -> None:
    first, second = add(store, "a", "a")
    claim = take(store, worker)
    store.cancel([first])
    assert waiting(store, second) == ("queued", WAITS_FOR_A, False)
    store.end(claim, COMPLETED)
    assert waiting(store, second) == ("queued", WAITS_FOR_A, True)


def test_the_slot_of_a_dead_worker_is_released(store: JobStore, worker: Worker) -> None:
    add(store, "a", "a")
    take(store, worker)
    store.rescue_jobs(
        worker.id, lambda row, only: Outcome("crashed", "failed", None, "crash", "died")
    )
    assert waiting(store, 2) == ("queued", WAITS_FOR_A, True)


def test_a_snoozed_execution_is_no_attempt_and_waits_for_the_other_host(
    store: JobStore, worker: Worker
) -> None:
    [job] = add(store, "a")
    store.end(take(store, worker), Outcome("snoozed", "queued", host="b", resume='["x", "y"]'))
    again = take(store, worker)
    assert (again.id, again.host, again.resume) == (job, "b", '["x", "y"]')
    assert (again.run, again.attempt) == (1, 1)
    store.end(again, COMPLETED)
    assert len(store.attempts(job)) == 1


def test_the_outcome_of_a_snoozed_execution_is_accepted_once(
    store: JobStore, worker: Worker
) -> None:
    add(store, "a")
    snoozed = Outcome("snoozed", "queued", host="b", resume='["x", "y"]')
    claim = take(store, worker)
    assert store.end(claim, snoozed)
    again = take(store, worker)
    assert not store.end(claim, snoozed)
    assert store.runs(again)
    assert store.end(again, COMPLETED)


def test_a_retried_job_waits_for_its_own_host_when_its_cancelled_run_is_snoozed(
    store: JobStore, worker: Worker
) -> None:
    job, _ = add(store, "a", "b")
    claim = take(store, worker)
    take(store, worker)
    store.cancel([job])
    store.retry([job])
    store.end(claim, Outcome("snoozed", "queued", host="b", resume='["x", "y"]'))
    row = store.rows([job])[job]
    assert (row["host"], row["resume"]) == ("a", None)
    assert waiting(store, job) == ("queued", WAITS_FOR_A, True)


def test_a_new_interval_does_not_change_the_time_of_a_slot(store: JobStore, worker: Worker) -> None:
    [recurring] = add(store, "a", key=1, interval=10.0)
    add(store, "a")
    store.end(take(store, worker), COMPLETED)
    due = "UPDATE jobs SET run_at = 1 WHERE id = ?"
    store.database.write(lambda connection: connection.execute(due, (recurring,)).rowcount)
    assert store.claim(worker, LIMITS) is None
    store.cancel([2])
    before = store.rows([recurring])[recurring]["run_at"]
    assert waiting(store, recurring) == ("scheduled", WAITS_FOR_A, True)
    add(store, "a", key=1, interval=10_000.0)
    row = store.rows([recurring])[recurring]
    assert (row["run_at"], row["interval"]) == (before, 10_000.0)


def test_a_slot_that_no_worker_uses_goes_to_a_job_that_one_can_run(
    store: JobStore, worker: Worker
) -> None:
    other = {"other": Limits(60, 512)}
    [holder] = add(store, "a", "b")[:1]
    last, first = [
        store.add([NewJob("other", '["x"]', 4, host="a", priority=n)]).answers[0][0] for n in (0, 1)
    ]
    assert store.claim(worker, other) is None
    assert store.take_unused_slots(["other"])
    assert not store.take_unused_slots(["other"])
    claim = store.claim(worker, other)
    assert claim is not None
    assert claim.id == first
    assert waiting(store, holder) == ("queued", WAITS_FOR_A, False)
    assert not store.take_unused_slots(["work"]), "a running job keeps its slot"
    store.end(claim, COMPLETED)
    assert waiting(store, holder) == ("queued", WAITS_FOR_A, True)
    assert not store.take_unused_slots(["other"]), "a job whose time has yet to come keeps its slot"
    assert waiting(store, last) == ("queued", WAITS_FOR_A, False)
    [(counted,)] = store.database.read("SELECT waiting FROM hosts WHERE host = 'a'")
    assert counted == 1


def test_a_due_retry_waits_for_its_host_like_any_other_job(store: JobStore, worker: Worker) -> None:
    first, second = add(store, "a", "a")
    store.end(take(store, worker), Outcome("failed", "retrying", retry_in=0))
    assert store.claim(worker, LIMITS) is None
    assert waiting(store, first) == ("retrying", WAITS_FOR_A, False)
    assert waiting(store, second) == ("queued", WAITS_FOR_A, True)
    assert store.retry([first]) == [first]
    assert waiting(store, first) == ("queued", WAITS_FOR_A, False)


def test_in_immediate_mode_a_job_does_not_wait_for_one_that_no_worker_runs(
    store: JobStore, worker: Worker
) -> None:
    first, second = add(store, "a", "a")
    claim = store.claim(worker, LIMITS, tree=second)
    assert claim is not None
    assert claim.id == second
    assert waiting(store, first) == ("queued", WAITS_FOR_A, False)


def test_slots_given_under_other_settings_are_taken_back(make: Callable[[float], JobStore]) -> None:
    add(make(0.0), *["a"] * 5)
    store = make(DELAY)
    worker = store.register("default", 4)
    claim = take(store, worker)
    assert store.claim(worker, LIMITS) is None
    store.end(claim, COMPLETED)
    slots = [row["host_slot"] for row in store.rows(range(1, 6)).values()]
    assert sorted(slots) == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(("host_delay", "delay"), [(1.0, 3600.0), (0.0, 0.0)])
def test_the_time_left_uses_the_delay_that_applies(
    make: Callable[[float], JobStore], host_delay: float, delay: float
) -> None:
    store = make(host_delay)
    add(store, *["a"] * 600)
    host_delays = [HostDelay("a", 1e308)]
    store.end(
        take(store, store.register("default", 1)),
        Outcome("completed", "completed", host_delays=host_delays),
    )
    found = store.slowest_host()
    assert found is not None
    assert found[2] == delay
    assert found[3] == pytest.approx((found[1] + 1) * delay, abs=60)


def test_many_waiting_jobs_cost_the_others_nothing(store: JobStore, worker: Worker) -> None:
    def steps(host: str) -> int:
        """The steps of SQLite's virtual machine for one job from claim to end."""
        connection: sqlite3.Connection = store.database.connection()
        counted = [0]

        def count() -> int:
            counted[0] += 1
            return 0

        add(store, host)
        connection.set_progress_handler(count, 1)
        end_and_claim(store, take(store, worker), COMPLETED, worker, LIMITS)
        connection.set_progress_handler(None, 1)
        return counted[0]

    add(store, "slow")
    take(store, worker)
    steps("a")
    alone = steps("b")
    add(store, *["slow"] * 5000)
    assert steps("c") <= alone


# With a real site and real workers ----------------------------------------------------------

PACE = 0.15  # seconds


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    settings = {
        "fetch.allow_private_addresses": True,
        "fetch.host_delay": PACE,
        "workers.concurrency": 1,
        "workers.retry.retry_delay": 0,
        "workers.pools": {"fetch": {"tasks": ["fetch"], "processes": 4, "threads": 4}},
    }
    with paise2nb.open("development", data_dir=tmp_path / "data", settings=settings) as app:
        yield app
        app.workers.stop(timeout=10)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site("0.0.0.0") as running:
        yield running


def gaps(site: Site, host: str) -> list[float]:
    """Seconds between requests to one host."""
    name = urlsplit(site.url(host=host)).netloc
    times = [request.at for request in site.requests if request.headers["Host"] == name]
    return [after - before for before, after in pairwise(times)]


def test_four_processes_keep_the_delay_of_a_host_for_pages_redirects_and_robots_txt(
    app: App, site: Site
) -> None:
    pages = [site.add(f"/{n}", PAGE.replace(b"A small", b"Page %d" % n)) for n in range(10)]
    other = [site.url("/ok", host="127.0.0.2"), site.url("/redirect/2", host="127.0.0.3")]
    jobs = app.enqueue_many("fetch", [*pages, site.url("/to?url=/ok"), *other])
    app.workers.start()
    jobs.wait(timeout=120)
    assert {job.state for job in jobs} == {"completed"}
    assert {len(job.attempts) for job in jobs} == {1}
    for host, requests in {"127.0.0.1": 13, "127.0.0.2": 2, "127.0.0.3": 4}.items():
        measured = gaps(site, host)
        assert len(measured) == requests - 1, "each page, each redirect and robots.txt once"
        assert min(measured) >= PACE


def test_the_delay_applies_to_a_redirected_robots_txt_as_well(tmp_path: Path, site: Site) -> None:
    settings = {"fetch.allow_private_addresses": True, "fetch.host_delay": PACE}
    elsewhere = site.url("/to?url=/rules", host="127.0.0.2")
    site.on(
        "/robots.txt", lambda visit, _: visit.answer(status=302, headers={"Location": elsewhere})
    )
    site.add("/rules", b"User-agent: *\nDisallow: /closed\n", "text/plain")
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        jobs = app.enqueue_many("fetch", [site.add("/open"), site.add("/closed")])
        assert [job.state for job in jobs] == ["completed", "failed"]
        assert {len(job.attempts) for job in jobs} == {1}
        paths = [request.path for request in site.requests]
        assert paths == ["/robots.txt", "/to?url=/rules", "/rules", "/open"]
        assert min(gaps(site, "127.0.0.1") + gaps(site, "127.0.0.2")) >= PACE


def test_a_killed_worker_does_not_block_its_host(app: App, site: Site) -> None:
    hanging: list[str] = []

    def hang_at_first(visit: Visit, argument: str) -> None:
        if visit.path in hanging:
            visit.answer()
        else:
            hanging.append(visit.path)
            site.closing.wait()

    app.workers.start()
    jobs = app.enqueue_many("fetch", [site.on(f"/{n}", hang_at_first) for n in range(3)])
    for number in range(3):
        until(lambda number=number: len(hanging) > number)
        for worker in app.workers.status().workers:
            if worker["pool"] == "fetch":
                with suppress(ProcessLookupError):
                    os.kill(worker["pid"], signal.SIGKILL)
    jobs.wait(timeout=120)
    outcomes = [[attempt["outcome"] for attempt in job.attempts] for job in jobs]
    assert outcomes == [["crashed", "completed"]] * 3
    assert app.status().items == 3
    assert app.queue.job_store.slowest_host() is None


def test_a_slot_of_another_pool_does_not_block_this_one(app: App, site: Site) -> None:
    feed = app.enqueue("feed", site.url("/feed"))
    jobs = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(2)])
    app.workers.start(pool="fetch")
    until(lambda: {job.state for job in jobs} == {"completed"})
    assert feed.state == "queued"


def test_a_process_that_died_with_a_slot_does_not_block_the_next_one(
    tmp_path: Path, site: Site
) -> None:
    settings = {"fetch.allow_private_addresses": True, "fetch.host_delay": PACE}
    options = {"data_dir": str(tmp_path / "data"), "settings": settings}
    hang = site.url("/hang")
    program = f"import paise2nb; paise2nb.open('test', **{options!r}).enqueue('fetch', {hang!r})"
    with paise2nb.open("test", **options) as app:  # type: ignore[arg-type]
        child = subprocess.Popen([sys.executable, "-c", program])
        until(lambda: site.visits["/hang"])
        child.kill()
        child.wait()
        assert app.enqueue("fetch", site.add("/a")).state == "completed"


def throttle(site: Site, seconds: int) -> str:
    """A URL that asks for a pause once."""

    def answer(visit: Visit, argument: str) -> None:
        if site.visits["/first"] == 1:
            visit.answer(b"", "text/plain", status=429, headers={"Retry-After": str(seconds)})
        else:
            visit.answer()

    return site.on("/first", answer)


def test_a_throttled_host_pauses_all_its_jobs_and_no_others(app: App, site: Site) -> None:
    first = app.enqueue("fetch", throttle(site, 600))
    app.workers.start()
    until(lambda: first.state == "retrying")
    rest = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(3)])
    others = app.enqueue_many("fetch", [site.url("/ok", host=f"127.0.0.{n}") for n in range(2, 8)])
    others.wait(timeout=60)
    assert {job.state for job in others} == {"completed"}
    assert {job.state for job in rest} == {"queued"}
    reasons = {job.to_dict()["waiting_for"].partition("for")[0] for job in rest}
    assert reasons == {"127.0.0.1 (paused "}
    assert site.visits["/robots.txt"] == 7
    assert [site.visits[path] for path in ("/first", "/0", "/1", "/2")] == [1, 0, 0, 0]
    status = app.status()
    assert status.seconds_left is not None
    assert status.seconds_left > 500, "the pause is part of the time left"


def test_no_request_comes_before_retry_after_and_waiting_is_no_attempt(
    app: App, site: Site
) -> None:
    first = app.enqueue("fetch", throttle(site, 2))
    app.workers.start()
    until(lambda: first.attempts)
    rest = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(3)])
    app.wait(timeout=120)
    assert [attempt["outcome"] for attempt in first.attempts] == ["failed", "completed"]
    assert first.attempts[0]["error_class"] == "throttled"
    assert {len(job.attempts) for job in rest} == {1}
    refused = next(request.at for request in site.requests if request.path == "/first")
    assert min(request.at for request in site.requests if request.at > refused) - refused >= 2


def test_the_delay_applies_in_immediate_mode_as_well(tmp_path: Path, site: Site) -> None:
    settings = {"fetch.allow_private_addresses": True, "fetch.host_delay": PACE}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        site.add("/robots.txt", b"User-agent: *\nCrawl-delay: 0.3\n", "text/plain")
        jobs = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(3)])
        assert {job.state for job in jobs} == {"completed"}
        assert len(gaps(site, "127.0.0.1")) == 3
        assert min(gaps(site, "127.0.0.1")) >= 0.3


def test_a_list_of_jobs_shows_what_they_wait_for(app: App) -> None:
    app.enqueue_many("fetch", ["http://127.0.0.1/a", "http://127.0.0.1/b"])
    jobs = app.jobs()
    assert "waiting for 127.0.0.1 (6.67 requests/s)" in str(jobs)
    assert "waiting for 127.0.0.1 (6.67 requests/s)" in jobs._repr_html_()
    assert jobs[1].summary().endswith("(waiting for 127.0.0.1 (6.67 requests/s))")
