"""Machines that have joined a queue: real pages, large bodies, and what must not get through."""

from __future__ import annotations

import functools
import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paise2nb.core.errors import WorkersError
from paise2nb.workers.machines.messages import HOME, Channel, Server, session_key
from tests.chaos.test_clock import HOUR, WallClock
from tests.machines import Place, RedisServer
from tests.test_main_job import DOCS
from tests.waiting import until

DELAY = 0.05  # seconds between two requests
POLICIES = (
    "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu",
    "volatile-random", "volatile-ttl",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, RedisServer(tmp_path / "redis"))
    yield place
    place.close()


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves files, and notes when each was asked for."""

    times: list[float]

    def do_GET(self) -> None:  # its name in the standard library
        if self.path != "/robots.txt":
            self.times.append(time.monotonic())
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.mark.skipif(not DOCS.exists(), reason="machine: no python3-doc to serve")
@pytest.mark.parametrize("pages", [24, pytest.param(500, marks=pytest.mark.slow)])
def test_two_machines_make_items_of_pages_while_home_only_stores(place: Place, pages: int) -> None:
    files = [file.relative_to(DOCS.resolve()) for file in sorted(DOCS.resolve().rglob("*.html"))]
    Pages.times = []
    handler = functools.partial(Pages, directory=str(DOCS.resolve()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        app = place.home(fetch__allow_private_addresses=True, fetch__host_delay=DELAY)
        app.workers.start(pool="home")
        place.join(), place.join()
        machines = {row["pid"] for row in place.joined(app, 2)}
        urls = [f"http://127.0.0.1:{server.server_port}/{file}" for file in files[:pages]]
        jobs = app.enqueue_many("fetch", urls)
        jobs.wait(400)
        server.shutdown()
    assert {job.page_state for job in jobs} == {"stored"}
    assert app.store.count() == pages
    extractions = [child for job in jobs for child in job.children]
    assert {job.row()["worker_pid"] for job in extractions} == machines
    assert len(Pages.times) == pages
    gaps = [later - earlier for earlier, later in zip(Pages.times, Pages.times[1:], strict=False)]
    assert min(gaps) >= DELAY


@pytest.mark.parametrize(
    ("bodies", "size", "limit"),
    [(6, 5_000_000, "24mb"), pytest.param(32, 20_000_000, "128mb", marks=pytest.mark.slow)],
)
def test_bodies_larger_than_the_memory_of_redis_come_home(
    tmp_path: Path, bodies: int, size: int, limit: str
) -> None:
    place = Place(tmp_path, RedisServer(tmp_path / "redis", "--maxmemory", limit))
    try:
        app = place.home(task_queue__redis__lease=15)
        app.workers.start(pool="home")
        place.join(), place.join()
        place.joined(app, 2)
        jobs = app.enqueue_many("put-bytes", [(size, number) for number in range(bodies)])
        jobs.wait(300)
        assert [job.children[0].result(0) for job in jobs] == [size] * bodies
        assert {len(job.attempts) for job in jobs} == {1}
    finally:
        place.close()


def test_each_policy_that_deletes_messages_is_refused(place: Place) -> None:
    server = Server(place.redis.url)
    for policy in POLICIES:
        server.redis.config_set("maxmemory-policy", policy)
        with pytest.raises(WorkersError, match=f"maxmemory-policy is {policy}; set it to noevi"):
            server.require_noeviction()
    server.redis.config_set("maxmemory-policy", "noeviction")
    server.require_noeviction()


@pytest.mark.slow
def test_the_clocks_of_machines_do_not_matter(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    for hours in (1, -1):
        directory = place.directory / f"clock {hours}"
        directory.mkdir()
        clock = WallClock(directory)
        clock.move(hours * HOUR)
        place.join(**clock.environment)
    place.joined(app, 2)
    jobs = app.enqueue_many("count-up", [f"{n}" for n in range(20)])
    jobs.wait(60)
    assert {job.row()["worker_pid"] for job in jobs} == {m["pid"] for m in place.joined(app, 2)}
    assert all(abs(time.time() - float(job.row()["finished_at"])) < HOUR / 2 for job in jobs)


def test_status_says_why_a_machine_of_another_version_gets_no_jobs(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    job = app.enqueue("where", "word")
    server, name = Server(place.redis.url), "0" * 32
    home = json.loads(server.redis.get(server.home_key("paise2")))
    key = session_key(b"", home["collection"], home["nonce"], name)
    beat = {
        "read": 0, "held": {}, "outcomes": {}, "progress": {}, "host": "old", "pid": 1,
        "version": "0.0.1", "pools": {"default": 1}, "plugins": {}, "problem": None,
        "setup": "", "accepts_plugins": False,
    }  # fmt: skip
    Channel(key, home["collection"], name, HOME).send(server, "beat", beat)
    until(lambda: app.workers.status().machines)
    assert "it has paise2nb 0.0.1, home has " in str(app.workers.status())
    assert job.state == "queued"
    assert not job.attempts


def test_a_job_at_home_that_takes_too_much_memory_ends_alone_while_redis_stalls(
    place: Place,
) -> None:
    pools = {"tasks": ["store", "grow"]}
    app = place.home(workers__pools__home=pools, task_queue__redis__lease=60)
    app.workers.start(pool="home")
    place.join()
    place.joined(app)
    gate = place.directory / "gate"
    held = app.enqueue("hold", str(gate), "word")
    until(lambda: held.row()["progress"] == json.dumps([1, 2]))  # home knows that it has begun
    place.redis.process.send_signal(signal.SIGSTOP)
    bomb = app.enqueue("grow", "x")
    until(lambda: bomb.state == "failed")
    place.redis.process.send_signal(signal.SIGCONT)
    gate.touch()
    until(lambda: held.state == "completed")
    assert {a["outcome"] for a in bomb.attempts} == {"memory"}
    assert [a["outcome"] for a in held.attempts] == ["completed"]
