"""Turns at hosts: one request at a time and a pause in between, whatever number of workers runs."""

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
from paise2nb.jobs import Claim, HostDelay, JobStore, Limits, NewJob, Outcome, Worker
from tests.site import PAGE, Site, Visit
from tests.workers.test_workers import until

LIMITS = {"work": Limits(60, 512)}
COMPLETED = Outcome("completed", "completed", "1")
DELAY = 1000.0  # seconds: longer than any test


# In the table --------------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[float], JobStore]]:
    made: list[JobStore] = []

    def make(host_delay: float) -> JobStore:
        made.append(JobStore(tmp_path / "tasks.db", durable=False, host_delay=host_delay))
        return made[-1]

    yield make
    for table in made:
        table.close()


@pytest.fixture
def table(make: Callable[[float], JobStore]) -> JobStore:
    return make(DELAY)


@pytest.fixture
def worker(table: JobStore) -> Worker:
    return table.register("default", 1)


def add(table: JobStore, *hosts: str | None, **values: Any) -> list[int]:
    jobs = [NewJob("work", '["x"]', 4, host=host, **values) for host in hosts]
    return [job_id for job_id, _ in table.add(jobs).answers]


def take(table: JobStore, worker: Worker) -> Claim:
    claim = table.claim(worker, LIMITS)
    assert claim is not None
    return claim


def waiting(table: JobStore, job_id: int) -> tuple[str, str | None, bool]:
    """Its state, what it waits for, and whether it has a time."""
    row = table.rows([job_id])[job_id]
    return row["state"], row["waiting_for"], row["run_at"] is not None


def test_only_one_job_of_a_host_may_start_and_the_others_say_what_they_wait_for(
    table: JobStore, worker: Worker
) -> None:
    first, second, other, free = add(table, "a", "a", "b", None)
    assert waiting(table, first) == ("queued", None, False)
    assert waiting(table, second) == ("queued", "its turn at a", False)
    assert [take(table, worker).id for _ in range(3)] == [first, other, free]
    assert table.claim(worker, LIMITS) is None


def test_the_next_in_line_gets_its_time_when_an_execution_ends(
    table: JobStore, worker: Worker
) -> None:
    add(table, "a", "a")
    [important] = add(table, "a", priority=5)
    before = table.now()
    table.end(take(table, worker), COMPLETED)
    row = table.rows([important])[important]
    assert row["waiting_for"] == "its turn at a"
    assert before + DELAY <= row["run_at"] <= table.now() + DELAY
    assert table.next_time() == row["run_at"]
    assert table.claim(worker, LIMITS) is None


@pytest.mark.parametrize(
    ("host_delays", "seconds"),
    [
        ([HostDelay("a", 3 * DELAY)], 3 * DELAY),
        ([HostDelay("a", 1.0)], DELAY),
        ([HostDelay("a", 10**9)], 3600.0),
        ([HostDelay("a", pause=5 * DELAY)], 5 * DELAY),
        ([HostDelay("b", 3 * DELAY)], DELAY),
    ],
    ids=["crawl-delay", "a shorter one", "an absurd one", "retry-after", "another host's"],
)
def test_what_a_host_asks_for_lengthens_its_pause(
    table: JobStore, worker: Worker, host_delays: list[HostDelay], seconds: float
) -> None:
    _, next_claim = add(table, "a", "a")
    before = table.now()
    table.end(take(table, worker), Outcome("completed", "completed", "1", host_delays=host_delays))
    run_at = table.rows([next_claim])[next_claim]["run_at"]
    assert before + seconds <= run_at <= table.now() + seconds


def test_a_pause_holds_who_already_has_the_turn(make: Callable[[float], JobStore]) -> None:
    table = make(0.0)
    worker = table.register("default", 4)
    add(table, "a", "a", "a")
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
    table.end(take(table, worker), throttled)
    assert table.claim(worker, LIMITS) is None
    assert [row["attempt"] for row in table.rows([1, 2, 3]).values()] == [1, 0, 0]


def test_without_a_pause_many_are_asked_at_once(make: Callable[[float], JobStore]) -> None:
    table = make(0.0)
    worker = table.register("default", 4)
    ids = add(table, *["a"] * 300)
    taken = [take(table, worker) for _ in range(256)]
    assert table.claim(worker, LIMITS) is None
    _, next_claim = table.end(taken[0], COMPLETED, worker, LIMITS)
    assert next_claim is not None
    assert next_claim.id == ids[256], "an end makes room for the next"


@pytest.mark.parametrize("who", ["who has the turn", "who stands in line"])
def test_a_cancelled_job_leaves_its_place(table: JobStore, worker: Worker, who: str) -> None:
    first, second, third = add(table, "a", "a", "a")
    table.cancel([first if who == "who has the turn" else second])
    claim = take(table, worker)
    assert claim.id == (second if who == "who has the turn" else first)
    table.end(claim, COMPLETED)
    assert waiting(table, third) == ("queued", "its turn at a", True)


def test_a_cancelled_execution_keeps_the_turn_until_it_has_ended(
    table: JobStore, worker: Worker
) -> None:
    first, second = add(table, "a", "a")
    claim = take(table, worker)
    table.cancel([first])
    assert waiting(table, second) == ("queued", "its turn at a", False)
    table.end(claim, COMPLETED)
    assert waiting(table, second) == ("queued", "its turn at a", True)


def test_a_dead_workers_turn_goes_on(table: JobStore, worker: Worker) -> None:
    add(table, "a", "a")
    take(table, worker)
    table.rescue_jobs(
        worker.id, lambda row, only: Outcome("crashed", "failed", None, "crash", "died")
    )
    assert waiting(table, 2) == ("queued", "its turn at a", True)


def test_a_postponed_execution_has_not_happened_and_waits_for_the_other_host(
    table: JobStore, worker: Worker
) -> None:
    [job] = add(table, "a")
    table.end(take(table, worker), Outcome("snoozed", "queued", host="b", resume='["x", "y"]'))
    again = take(table, worker)
    assert (again.id, again.host, again.resume) == (job, "b", '["x", "y"]')
    assert (again.run, again.attempt) == (1, 1)
    table.end(again, COMPLETED)
    assert len(table.attempts(job)) == 1


def test_a_postponed_execution_is_refused_like_any_other_that_has_ended(
    table: JobStore, worker: Worker
) -> None:
    add(table, "a")
    snoozed = Outcome("snoozed", "queued", host="b", resume='["x", "y"]')
    claim = take(table, worker)
    assert table.end(claim, snoozed)[0]
    again = take(table, worker)
    assert not table.end(claim, snoozed)[0]
    assert table.runs(again)
    assert table.end(again, COMPLETED)[0]


def test_a_cancelled_run_that_is_postponed_leaves_its_job_in_the_line_of_its_own_host(
    table: JobStore, worker: Worker
) -> None:
    job, _ = add(table, "a", "b")
    claim = take(table, worker)
    take(table, worker)
    table.cancel([job])
    table.retry([job])
    table.end(claim, Outcome("snoozed", "queued", host="b", resume='["x", "y"]'))
    row = table.rows([job])[job]
    assert (row["host"], row["resume"]) == ("a", None)
    assert waiting(table, job) == ("queued", "its turn at a", True)


def test_a_new_interval_does_not_move_a_turn_that_waits_for_its_time(
    table: JobStore, worker: Worker
) -> None:
    [recurring] = add(table, "a", key=1, interval=10.0)
    add(table, "a")
    table.end(take(table, worker), COMPLETED)
    due = "UPDATE jobs SET run_at = 1 WHERE id = ?"
    table.database.write(lambda connection: connection.execute(due, (recurring,)).rowcount)
    assert table.claim(worker, LIMITS) is None
    table.cancel([2])
    before = table.rows([recurring])[recurring]["run_at"]
    assert waiting(table, recurring) == ("scheduled", "its turn at a", True)
    add(table, "a", key=1, interval=10_000.0)
    row = table.rows([recurring])[recurring]
    assert (row["run_at"], row["interval"]) == (before, 10_000.0)


def test_a_turn_that_no_worker_takes_goes_to_a_job_that_one_runs(
    table: JobStore, worker: Worker
) -> None:
    other = {"other": Limits(60, 512)}
    [holder] = add(table, "a", "b")[:1]
    last, first = [
        table.add([NewJob("other", '["x"]', 4, host="a", priority=n)]).answers[0][0] for n in (0, 1)
    ]
    assert table.claim(worker, other) is None
    assert table.take_unused_slots(["other"])
    assert not table.take_unused_slots(["other"])
    claim = table.claim(worker, other)
    assert claim is not None
    assert claim.id == first
    assert waiting(table, holder) == ("queued", "its turn at a", False)
    assert not table.take_unused_slots(["work"]), "one that runs keeps the turn"
    table.end(claim, COMPLETED)
    assert waiting(table, holder) == ("queued", "its turn at a", True)
    assert not table.take_unused_slots(["other"]), "whose time has yet to come keeps it"
    assert waiting(table, last) == ("queued", "its turn at a", False)
    [(counted,)] = table.database.read("SELECT waiting FROM hosts WHERE host = 'a'")
    assert counted == 1


def test_a_retry_that_is_due_stands_in_line_like_any_other(table: JobStore, worker: Worker) -> None:
    first, second = add(table, "a", "a")
    table.end(take(table, worker), Outcome("failed", "retrying", retry_in=0))
    assert table.claim(worker, LIMITS) is None
    assert waiting(table, first) == ("retrying", "its turn at a", False)
    assert waiting(table, second) == ("queued", "its turn at a", True)
    assert table.retry([first]) == [first]
    assert waiting(table, first) == ("queued", "its turn at a", False)


def test_in_this_process_a_job_does_not_wait_for_one_that_nobody_runs(
    table: JobStore, worker: Worker
) -> None:
    first, second = add(table, "a", "a")
    claim = table.claim(worker, LIMITS, tree=second)
    assert claim is not None
    assert claim.id == second
    assert waiting(table, first) == ("queued", "its turn at a", False)


def test_turns_given_under_other_settings_are_taken_back(make: Callable[[float], JobStore]) -> None:
    add(make(0.0), *["a"] * 5)
    table = make(DELAY)
    worker = table.register("default", 4)
    claim = take(table, worker)
    assert table.claim(worker, LIMITS) is None
    table.end(claim, COMPLETED)
    places = [row["host_slot"] for row in table.rows(range(1, 6)).values()]
    assert sorted(places) == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(("host_delay", "delay"), [(1.0, 3600.0), (0.0, 0.0)])
def test_the_time_left_goes_by_the_pause_that_is_kept(
    make: Callable[[float], JobStore], host_delay: float, delay: float
) -> None:
    table = make(host_delay)
    add(table, *["a"] * 600)
    host_delays = [HostDelay("a", 1e308)]
    table.end(
        take(table, table.register("default", 1)),
        Outcome("completed", "completed", host_delays=host_delays),
    )
    found = table.slowest_host()
    assert found is not None
    assert found[2] == delay
    assert found[3] == pytest.approx((found[1] + 1) * delay, abs=60)


def test_a_long_line_costs_the_others_nothing(table: JobStore, worker: Worker) -> None:
    def steps(host: str) -> int:
        """Steps of SQLite's machine that one job of another host takes from claim to end."""
        connection: sqlite3.Connection = table.database.connection()
        counted = [0]

        def count() -> int:
            counted[0] += 1
            return 0

        add(table, host)
        connection.set_progress_handler(count, 1)
        table.end(take(table, worker), COMPLETED, worker, LIMITS)
        connection.set_progress_handler(None, 1)
        return counted[0]

    add(table, "slow")
    take(table, worker)
    steps("a")
    alone = steps("b")
    add(table, *["slow"] * 5000)
    assert steps("c") <= alone


# On a real site, with real workers -----------------------------------------------------------

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


def test_four_processes_keep_the_delay_of_a_host_its_rules_and_redirects_included(
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
        assert len(measured) == requests - 1, "each page, each redirect and the rules once"
        assert min(measured) >= PACE


def test_rules_that_lie_elsewhere_are_asked_for_in_turn_too(tmp_path: Path, site: Site) -> None:
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
        host_delays = [request.path for request in site.requests]
        assert host_delays == ["/robots.txt", "/to?url=/rules", "/rules", "/open"]
        assert min(gaps(site, "127.0.0.1") + gaps(site, "127.0.0.2")) >= PACE


def test_a_killed_worker_holds_up_no_line(app: App, site: Site) -> None:
    jobs = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(12)])
    app.workers.start()
    for _ in range(3):
        until(lambda: app.jobs(task="fetch", state="running"))
        for worker in app.workers.status().workers:
            if worker["pool"] == "fetch":
                with suppress(ProcessLookupError):
                    os.kill(worker["pid"], signal.SIGKILL)
    jobs.wait(timeout=120)
    assert {job.state for job in jobs} == {"completed"}
    assert app.status().items == 12
    assert app.queue.job_store.slowest_host() is None


def test_a_turn_that_waits_for_another_pool_does_not_hold_up_this_one(app: App, site: Site) -> None:
    feed = app.enqueue("feed", site.url("/feed"))
    jobs = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(2)])
    app.workers.start(pool="fetch")
    until(lambda: {job.state for job in jobs} == {"completed"})
    assert feed.state == "queued"


def test_a_process_that_died_with_a_turn_holds_up_no_other_one_without_workers(
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
    """An address that asks for a pause once."""

    def answer(visit: Visit, argument: str) -> None:
        if site.visits["/first"] == 1:
            visit.answer(b"", "text/plain", status=429, headers={"Retry-After": str(seconds)})
        else:
            visit.answer()

    return site.on("/first", answer)


def test_a_throttled_host_is_left_alone_by_all_its_jobs_and_by_no_other(
    app: App, site: Site
) -> None:
    first = app.enqueue("fetch", throttle(site, 600))
    app.workers.start()
    until(lambda: first.state == "retrying")
    rest = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(3)])
    others = app.enqueue_many("fetch", [site.url("/ok", host=f"127.0.0.{n}") for n in range(2, 8)])
    others.wait(timeout=60)
    assert {job.state for job in others} == {"completed"}
    assert {job.state for job in rest} == {"queued"}
    assert {job.to_dict()["waiting_for"] for job in rest} == {"its turn at 127.0.0.1"}
    assert site.visits["/robots.txt"] == 7
    assert [site.visits[path] for path in ("/first", "/0", "/1", "/2")] == [1, 0, 0, 0]
    status = app.status()
    assert status.seconds_left is not None
    assert status.seconds_left > 500, "the pause is part of the time left"


def test_nobody_comes_back_before_retry_after_is_over_and_waiting_is_no_attempt(
    app: App, site: Site
) -> None:
    first = app.enqueue("fetch", throttle(site, 2))
    app.workers.start()
    until(lambda: first.state == "retrying")
    rest = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(3)])
    app.wait(timeout=120)
    assert [attempt["outcome"] for attempt in first.attempts] == ["failed", "completed"]
    assert first.attempts[0]["error_class"] == "throttled"
    assert {len(job.attempts) for job in rest} == {1}
    refused = next(request.at for request in site.requests if request.path == "/first")
    assert min(request.at for request in site.requests if request.at > refused) - refused >= 2


def test_a_host_is_paced_where_jobs_run_in_this_process_too(tmp_path: Path, site: Site) -> None:
    settings = {"fetch.allow_private_addresses": True, "fetch.host_delay": PACE}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        site.add("/robots.txt", b"User-agent: *\nCrawl-delay: 0.3\n", "text/plain")
        jobs = app.enqueue_many("fetch", [site.add(f"/{n}") for n in range(3)])
        assert {job.state for job in jobs} == {"completed"}
        assert len(gaps(site, "127.0.0.1")) == 3
        assert min(gaps(site, "127.0.0.1")) >= 0.3


def test_a_list_of_jobs_says_what_they_wait_for(app: App) -> None:
    app.enqueue_many("fetch", ["http://127.0.0.1/a", "http://127.0.0.1/b"])
    jobs = app.jobs()
    assert "waiting for its turn at 127.0.0.1" in str(jobs)
    assert "waiting for its turn at 127.0.0.1" in jobs._repr_html_()
    assert jobs[1].summary().endswith("(waiting for its turn at 127.0.0.1)")
