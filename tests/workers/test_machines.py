"""Machines that have joined a queue through a real Redis server run its jobs."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.core import processes
from paise2nb.core.errors import NotFound
from paise2nb.jobs.leases import Capacity
from paise2nb.workers.machines import turns
from paise2nb.workers.machines.bytes_in_parts import PART, complete
from paise2nb.workers.machines.home import HomeParts
from paise2nb.workers.machines.home_key import HomeKey
from paise2nb.workers.machines.machine import Link
from paise2nb.workers.machines.messages import HOME, Channel, Server, session_key
from paise2nb.workers.machines.relay import Relay
from paise2nb.workers.machines.remote import LineHandler
from tests.job_stores import suspend
from tests.machines import Place, RedisServer
from tests.site import Site
from tests.waiting import until

SECRET = "s3cr3t-of-the-session"
ABOUT = {"version": "1.0", "pools": {}}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, RedisServer(tmp_path / "redis"))
    yield place
    place.close()


def test_two_machines_run_what_may_run_anywhere_and_home_the_rest(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    place.join(), place.join()
    place.joined(app, 2)
    gate = place.directory / "gate"
    jobs = app.enqueue_many("hold", [(str(gate), f"{n}") for n in range(2)])
    until(lambda: [job.state for job in jobs] == ["running"] * 2)
    until(lambda: all(row["jobs"] for row in app.workers.status().machines))
    shown = app.screen()
    assert shown.count("hold") == 2, shown
    gate.touch()
    jobs.wait(60)
    directories = {job.result(0) for job in jobs}
    assert len(directories) == 2
    assert str(app.data_dir) not in directories
    assert [job.children[0].result(0) for job in jobs] == [str(app.data_dir)] * 2
    assert not app.queue.job_store.leases()


def test_a_machine_may_run_one_pool_with_a_process_for_each_core(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    place.join("--pool", "default", "--concurrency", "auto")
    (machine,) = place.joined(app)
    assert list(machine["pools"]) == ["default"], machine


def test_pages_are_fetched_and_extracted_there_and_stored_at_home(place: Place, site: Site) -> None:
    app = place.home(fetch__allow_private_addresses=True, fetch__host_delay=0.01)
    app.workers.start(pool="home")
    place.join()
    place.joined(app)
    urls = [site.url(f"/status/200?page={n}") for n in range(20)]
    jobs = app.enqueue_many("fetch", urls)
    jobs.wait(60)
    assert {job.page_state for job in jobs} == {"stored"}
    assert app.store.count() == 20
    asked = Counter(request.path for request in site.requests)
    assert sorted(asked.values()) == [1] * 21  # with robots.txt


def test_pages_behind_a_login_are_fetched_only_where_the_login_is(place: Place, site: Site) -> None:
    cookie = f"127.0.0.1\tFALSE\t/\tFALSE\t0\tid\t{SECRET}\n"
    (place.directory / "cookies.txt").write_text(cookie)
    headers = {"127.0.0.1": {"X-Key": SECRET}, "*.example.org": {"X-Key": SECRET}}
    app = place.home(
        fetch__allow_private_addresses=True, fetch__host_delay=0, fetch__headers=headers,
        fetch__cookies=str(place.directory / "cookies.txt"),
    )  # fmt: skip
    app.workers.start(pool="home")
    without = place.join()
    place.joined(app)
    jobs = app.enqueue_many("fetch", [site.add(f"/page/{n}") for n in range(20)])
    elsewhere = app.enqueue("fetch", site.url(host="localhost"))
    elsewhere.wait(60)
    assert {job.state for job in jobs} == {"queued"}
    assert {request.headers["Host"].partition(":")[0] for request in site.requests} == {"localhost"}
    config = place.directory / "machine-config"
    config.mkdir()
    own = {"cookies": "../cookies.txt", "headers": {"127.0.0.1": {"X-Key": "${KEY}"}}}
    (config / "paise2.yaml").write_text(json.dumps({"fetch": own}))
    place.join(PAISE2_CONFIG_DIR=str(config), KEY="another")
    app.wait(timeout=60)
    found = [request for request in site.requests if request.path.startswith("/page/")]
    sent = {(request.headers["Cookie"], request.headers["X-Key"]) for request in found}
    assert sent == {(f"id={SECRET}", "another")}
    assert len(found) == len(jobs)
    # The values of home have gone nowhere.
    content = b"".join(p.read_bytes() for p in without.directory.rglob("*") if p.is_file())
    setup = json.dumps(HomeParts(app.parts).setup([], accepts_plugins=True))
    machines = json.dumps(app.queue.job_store.machines())
    assert SECRET not in content.decode(errors="replace") + setup + machines
    assert "*.example.org" in setup


def test_a_file_is_read_at_home_only(place: Place) -> None:
    app = place.home_with_machine()
    job = app.enqueue("fetch", "/etc/hostname")
    app.enqueue("where", "after").wait(60)
    assert job.state == "queued"


@pytest.mark.parametrize("file", ["/etc/passwd", "file:///etc/passwd"])
def test_a_machine_that_is_given_the_fetch_of_a_file_reads_nothing(place: Place, file: str) -> None:
    app = place.home()
    job = app.enqueue("fetch", "http://127.0.0.1:1/")
    with closing(sqlite3.connect(app.queue.job_store.path)) as connection, connection:
        connection.execute("UPDATE jobs SET args = json_array(?)", (file,))
    app.workers.start(pool="home")
    place.join()
    until(lambda: job.attempts)
    assert [attempt["outcome"] for attempt in job.attempts] == ["released"]
    assert "a file of home" in job.error


def test_a_job_whose_arguments_are_damaged_is_left_to_home(place: Place) -> None:
    app = place.home()
    job = app.enqueue("fetch", "http://127.0.0.1:1/")
    with closing(sqlite3.connect(app.queue.job_store.path)) as connection, connection:
        connection.execute("UPDATE jobs SET args = '[\"http://[\"'")
    app.workers.start(pool="home")
    place.join()
    place.joined(app)
    assert app.enqueue("where", "word").result(60)
    until(lambda: job.attempts)
    assert [attempt["outcome"] for attempt in job.attempts] == ["released"]


def test_a_task_that_needs_the_collection_goes_home_uncharged(place: Place) -> None:
    app = place.home_with_machine()
    job = app.enqueue("needs-items", "x")
    until(lambda: job.attempts)
    assert [attempt["outcome"] for attempt in job.attempts] == ["released"]
    assert "context.items" in job.error
    app.workers.start(pool="default")
    job.wait(60)
    assert job.result(0)[1] == str(app.data_dir)


def test_the_state_of_a_plugin_counts_each_job_once(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    place.join(), place.join()
    place.joined(app, 2)
    jobs = app.enqueue_many("count-up", [f"{n}" for n in range(10)])
    jobs.wait(60)
    assert sorted(job.result(0) for job in jobs) == list(range(1, 11))


def test_bytes_travel_in_both_directions(place: Place) -> None:
    app = place.home_with_machine()
    size = 3_000_000
    made = app.enqueue("put-bytes", size, 7)
    made.wait(60)
    assert made.children[0].result(0) == size
    key = app.cache.put(b"from home" * 100_000)
    assert app.enqueue("read-bytes", key).result(60) == 900_000


def test_few_bytes_go_along_with_an_extraction_to_a_machine_without_them(place: Place) -> None:
    app = place.home()
    few, many = (app.cache.put(b"x" * size) for size in (1000, PART + 1))
    for key in (few, many, "0" * 64):
        size = PART + 1 if key == many else 1000
        app.enqueue("extract", "http://example.org/", key, {"kind": "text/html", "size": size})
    store, home = app.queue.job_store, HomeParts(app.parts)
    worker = store.register("default", 1, "ready")
    of_few, *others = [store.claim(worker, app.parts.limits()) for _ in range(3)]
    store.leave(worker)  # which would be stopped: it is this process
    assert of_few is not None
    of_an_item = of_few._replace(args="[1]")
    assert complete(home.extras(of_few)["part"]) == b"x" * 1000
    assert home.extras(of_few, [few]) == home.extras(of_few, room=999) == {}
    assert [home.extras(claim) for claim in (of_an_item, *filter(None, others))] == [{}] * 3


@pytest.mark.parametrize("end", ["killed", "frozen"])
def test_the_jobs_of_a_silent_machine_run_again_once(place: Place, end: str) -> None:
    app = place.home()
    app.workers.start(pool="home")
    first = place.join()
    place.joined(app)
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: Path(f"{gate}.ran").exists())
    until(lambda: app.queue.job_store.leases()[0]["started"])
    first.send(signal.SIGKILL if end == "killed" else signal.SIGSTOP)
    place.join()
    until(lambda: len(Path(f"{gate}.ran").read_text().splitlines()) == 2)
    gate.touch()
    first.send(signal.SIGCONT)
    job.wait(60)
    assert job.result(0).startswith(str(place.machines[1].directory))
    assert len(job.children) == 1
    assert [a["outcome"] for a in job.attempts] == ["released", "completed"]


def test_a_cancelled_job_is_ended_and_may_run_again(place: Place) -> None:
    app = place.home(workers__cancel_grace=0)
    app.workers.start(pool="home")
    place.join()
    place.joined(app)
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: Path(f"{gate}.ran").exists())
    job.cancel()
    job.retry()
    until(lambda: len(Path(f"{gate}.ran").read_text().splitlines()) == 2)
    gate.touch()
    job.wait(60)
    assert job.state == "completed"
    assert [a["outcome"] for a in job.attempts] == ["cancelled", "completed"]


def test_crashes_and_limits_are_charged_as_at_home(place: Place) -> None:
    app = place.home(workers__retry__policies={"crash": {"max_retries": 1, "retry_delay": 0}})
    app.workers.start(pool="home")
    place.join()
    place.joined(app)
    crashing, slow = app.enqueue("die", "x"), app.enqueue("too-long", "x")
    growing = app.enqueue("grow-there", "x")
    app.wait(60)
    # A machine gives a job back if its worker takes long to start again.
    charged = [
        [a["outcome"] for a in job.attempts if a["outcome"] != "released"]
        for job in (crashing, slow)
    ]
    assert charged[0] == ["crashed", "crashed"]
    assert set(charged[1]) == {"timeout"}
    assert "memory" in {a["outcome"] for a in growing.attempts}
    assert {job.state for job in (crashing, slow, growing)} == {"failed"}


def test_progress_is_shown_at_home(place: Place) -> None:
    app = place.home_with_machine()
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: job.row()["progress"] == json.dumps([1, 2]))
    gate.touch()


def test_home_gets_the_first_lines_that_a_job_logs(place: Place) -> None:
    app = place.home_with_machine()
    job = app.enqueue("chatter", "word")
    job.wait(60)
    log = (app.data_dir / "logs" / "workers.log").read_text()
    assert log.count("ü" * 500) == 64_000 // (500 * len(r"\u00fc"))
    assert log.count("the other lines of this run are left out") == 1


def test_home_away_for_three_leases_kills_nothing(place: Place) -> None:
    app = place.home_with_machine()
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: Path(f"{gate}.ran").exists())
    app.workers.stop()
    away_until = time.monotonic() + 9
    until(lambda: time.monotonic() > away_until)
    server = Server(place.redis.url)
    assert server.mailbox(app.queue.job_store.collection(), HOME).queue_size() < 3
    gate.touch()
    app.workers.start(pool="home")
    job.wait(60)
    assert len(Path(f"{gate}.ran").read_text().splitlines()) == 1
    assert [a["outcome"] for a in job.attempts] == ["completed"]


def test_a_relay_that_is_killed_loses_nothing(place: Place) -> None:
    app = place.home_with_machine()
    jobs = app.enqueue_many("count-up", [f"{n}" for n in range(300)])
    for _ in range(3):
        relay = next(w for w in app.workers.status().workers if w["pool"] == "relay")
        os.kill(relay["pid"], signal.SIGKILL)
        until(
            lambda pid=relay["pid"]: any(
                w["pool"] == "relay" and w["pid"] != pid for w in app.workers.status().workers
            )
        )
    jobs.wait(60)
    assert sorted(job.result(0) for job in jobs) == list(range(1, 301))


def test_a_relay_that_ends_late_leaves_the_queue_to_the_next_one(place: Place) -> None:
    server = Server(place.redis.url)
    first, second = (
        HomeKey(server, "paise2", place.directory, "c", nonce, 3.0) for nonce in ("1", "2")
    )
    for relay in (first, second):
        relay.renew(waits=False)
    first.delete()
    assert json.loads(server.redis.get(server.home_key("paise2")))["nonce"] == "2"
    second.delete()
    assert server.redis.get(server.home_key("paise2")) is None


def test_what_an_earlier_relay_claims_while_the_next_one_begins_is_not_lost(place: Place) -> None:
    app = place.home_with_machine()
    store = app.queue.job_store
    relay = next(w["pid"] for w in app.workers.status().workers if w["pool"] == "relay")
    suspend(store, relay)
    job = app.enqueue("where", "word")
    free = Capacity(
        store.machines()[0]["id"], 1, 1, frozenset({"where"}), frozenset(), {"default": 1}, {}, 0
    )
    limits = {"default": {"where": app.parts.limits()["where"]}}
    assert len(store.exchange([], limits, [free])[1]) == 1  # as the one before
    os.kill(relay, signal.SIGCONT)
    job.wait(20)
    assert [a["outcome"] for a in job.attempts] == ["released", "completed"]


def test_a_lease_that_a_relay_learns_of_by_a_heartbeat_is_not_dropped(place: Place) -> None:
    app = place.home()
    store = app.queue.job_store
    store.collection()
    store.put_machine("m", {"host": "h", "pid": 1, "about": ABOUT, "problem": None})
    relay = Relay(app.parts, lambda: True)
    app.enqueue("where", "word")
    free = Capacity(
        store.machines()[0]["id"], 1, 1, frozenset({"where"}), frozenset(), {"default": 1}, {}, 0
    )
    limits = {"default": {"where": app.parts.limits()["where"]}}
    [lease] = store.exchange([], limits, [free])[1]  # by an earlier relay, which ends late
    machine = relay._machines["m"]
    beat = {
        "plugins": None, "version": "1", "pools": {}, "host": "h", "pid": 1, "problem": None,
        "held": {lease.token: 1}, "outcomes": {}, "progress": {}, "read": 0,
    }  # fmt: skip
    relay._take_beat(machine, beat)
    assert not machine.drop


def test_a_relay_that_begins_after_a_machine_has_gone_goes_on_and_loses_it(place: Place) -> None:
    app = place.home()
    job_store = app.queue.job_store
    job_store.collection()  # it is not new
    values = {"host": "gone", "pid": 1, "about": ABOUT, "problem": None}
    job_store.put_machine("0" * 32, values)
    job_store.stop_machines("gone")
    Relay(app.parts, lambda: bool(job_store.machines())).run()


def test_the_limit_of_bytes_on_their_way_is_that_of_all_machines(place: Place) -> None:
    app = place.home(task_queue__redis__blob_mb=8)
    job_store = app.queue.job_store
    job_store.collection()
    for name in ("0" * 32, "1" * 32):
        job_store.put_machine(name, {"host": name, "pid": 1, "about": ABOUT, "problem": None})
    shares: set[int] = set()

    def goes_on() -> bool:
        shares.add(sum(each.receiver.budget for each in relay._machines.values()))
        return bool(job_store.machines()) and 8_000_000 not in shares

    relay = Relay(app.parts, goes_on)
    relay.run()
    assert 8_000_000 in shares


def test_a_message_that_can_not_be_used_stops_nothing(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    server, name = Server(place.redis.url), "0" * 32
    home = json.loads(server.redis.get(server.home_key("paise2")))
    key = session_key(b"", home["collection"], home["nonce"], name)
    channel = Channel(key, home["collection"], name, HOME)
    for body in ({}, [], {"host": 1}, {"leaves": False, "pools": 3}):
        channel.send(server, "beat", body)
    place.join()
    place.joined(app)
    assert app.enqueue("where", "word").result(60)
    assert json.loads(server.redis.get(server.home_key("paise2"))) == home


def test_outcomes_that_can_not_be_written_are_written_later(place: Place) -> None:
    app = place.home_with_machine()
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: app.queue.job_store.leases() and app.queue.job_store.leases()[0]["started"])
    log = app.data_dir / "logs" / "workers.log"
    with closing(sqlite3.connect(app.queue.job_store.path)) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE DELETE ON leases BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
        gate.touch()
        until(lambda: "the job store can't be used now" in log.read_text())
        connection.execute("DROP TRIGGER full")
    job.wait(60)
    assert [a["outcome"] for a in job.attempts] == ["completed"]


def test_a_redis_that_comes_back_empty_loses_nothing(place: Place) -> None:
    app = place.home_with_machine()
    jobs = app.enqueue_many("count-up", [f"{n}" for n in range(300)])
    until(lambda: any(job.state == "completed" for job in jobs))
    for _ in range(2):
        place.redis.kill()
        place.redis.start()
    jobs.wait(60)
    assert sorted(job.result(0) for job in jobs) == list(range(1, 301))


def test_a_machine_that_drains_finishes_its_job_and_leaves(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    machine = place.join()
    [row] = place.joined(app)
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: Path(f"{gate}.ran").exists())
    app.workers.stop_machines(row["host"])
    gate.touch()
    assert machine.process.wait(60) == 0
    assert job.state == "completed"
    until(lambda: not app.workers.status().machines)
    assert not list(machine.directory.glob("paise2-*"))
    with pytest.raises(NotFound, match="no machine 'nowhere'"):
        app.workers.stop_machines("nowhere")


def test_a_machine_that_drains_for_another_setup_ends_when_it_is_told_to(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    machine = place.join("--accept-plugins")
    place.joined(app)
    gate = place.directory / "gate"
    app.enqueue("hold", str(gate), "word")
    until(lambda: Path(f"{gate}.ran").exists())
    app.saved_plugins.save("mine", "from paise2nb import task")
    [log] = machine.directory.glob("paise2-*/logs/workers.log")
    until(lambda: "draining for at most" in log.read_text())
    machine.process.send_signal(signal.SIGTERM)
    assert machine.process.wait(30) == 0
    assert "start again" not in machine.output


def test_an_answer_for_one_worker_leaves_the_question_of_another_one(place: Place) -> None:
    server = Server(place.redis.url)
    home = {"nonce": "1", "collection": "c", "host": "here", "path": "/"}
    server.redis.set(server.home_key("paise2"), json.dumps(home))
    link = Link(server, "paise2", b"", place.directory, accepts_plugins=False)
    assert link._find_home()
    first = threading.Thread(target=link._ask_home, args=("bytes", "key"))
    first.start()
    until(lambda: link._asked)
    second: queue.SimpleQueue[bool] = queue.SimpleQueue()
    with link._lock:
        link._keep("key", None)
        link._asked["key"].append(second)  # by another thread, before the first one goes on
    first.join()
    link._keep("key", None)
    assert second.get(timeout=1) is False


def test_a_machine_with_a_full_disk_asks_for_no_jobs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(place.redis.url)
    home = {"nonce": "1", "collection": "c", "host": "here", "path": "/"}
    server.redis.set(server.home_key("paise2"), json.dumps(home))
    link = Link(server, "paise2", b"", place.directory, accepts_plugins=False)
    assert link._find_home()
    worker = link.store.register("default", 2, processes.identity(os.getpid()) or "")
    link.store.heartbeat(worker, "ready", None)
    assert (link._beat()["pools"], link._beat()["problem"]) == ({"default": 2}, None)
    monkeypatch.setattr("paise2nb.core.disks.FREE_BYTES", 2**62)
    beat = link._beat()
    assert beat["pools"] == {}
    assert "no space left" in beat["problem"]


def test_a_log_record_that_can_not_be_formatted_fails_no_task(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept: list[str] = []
    handler = LineHandler(lambda record: kept.append(record.getMessage()))
    log = logging.Logger("a")
    log.addHandler(handler)
    log.info("%d pages", "many")
    log.info("%d pages", 3)
    assert kept == ["3 pages"]
    assert "Logging error" in capsys.readouterr().err


def test_a_job_that_kills_its_machine_fails_and_its_neighbours_finish(place: Place) -> None:
    app = place.home(workers__retry__policies={"crash": {"max_retries": 1, "retry_delay": 0}})
    app.workers.start(pool="home")
    deadly = app.enqueue("kill-machine", "x")
    others = app.enqueue_many("where", [f"{n}" for n in range(20)])

    def ended() -> bool:
        if all(machine.process.poll() is not None for machine in place.machines):
            place.join()
        return deadly.state == "failed"

    until(ended, 120, pause=0.2)
    outcomes = [attempt["outcome"] for attempt in deadly.attempts]
    # It is released where it ran beside others, or before its machine said that it had begun.
    assert (outcomes.count("crashed"), outcomes[-1]) == (2, "crashed"), outcomes
    assert set(outcomes) <= {"released", "crashed"}, outcomes
    if all(machine.process.poll() is not None for machine in place.machines):
        place.join()
    others.wait(60)
    assert {job.state for job in others} == {"completed"}


def test_a_saved_plugin_runs_where_it_is_accepted(place: Place) -> None:
    app = place.home()
    app.saved_plugins.save(
        "mine",
        "from paise2nb import task\n"
        "@task('mine', runs='anywhere')\n"
        "def mine(context, word):\n"
        "    context.log.warning('it says %s', word)\n"
        "    return str(context.data_dir)\n",
    )
    app.plugins.refresh()
    app.workers.start(pool="home")
    place.join()
    place.joined(app, 1)
    until(lambda: "plugin mine" in str(app.workers.status().machines[0]["problem"]))
    accepting = place.join("--accept-plugins")
    place.joined(app, 2)
    job = app.enqueue("mine", "a word")
    assert job.result(60).startswith(str(accepting.directory))
    log = app.data_dir / "logs" / "workers.log"
    assert "it says a word" in log.read_text()


def test_workers_of_machines_get_the_settings_of_a_restarted_home(place: Place) -> None:
    app = place.home_with_machine()
    app.workers.stop()
    app = place.home(workers__concurrency=2)
    app.workers.start(pool="home")
    until(lambda: [row["pools"].get("default") for row in app.workers.status().machines] == [2])


def test_a_machine_joins_in_the_background_or_says_why_not(place: Place) -> None:
    app = place.home()
    app.workers.start(pool="home")
    machine = place.join("--daemonize")
    assert machine.process.wait(60) == 0
    assert "workers joined (pid " in machine.output
    place.joined(app)
    for url, status, reason in (
        ("redis://localhost:1", 1, "no Redis server answers"),
        ("x://", 2, "is not a redis://"),
    ):
        machine = place.join("--daemonize", url=url, PAISE2_QUEUE_SECRET="word")
        assert machine.process.wait(60) == status
        assert reason in machine.output


def test_a_machine_serves_several_collections_in_turn(place: Place) -> None:
    apps = [place.home(), place.home("other", task_queue__redis__name="other")]
    for app in apps:
        app.workers.start(pool="home")
    machine = place.join("--name", "paise2", "--name", "other")
    for _ in range(2):
        for app in apps:
            job = app.enqueue("where", "word")
            assert job.result(60).startswith(str(machine.directory))
            assert len(job.attempts) == 1


def test_a_collection_leaves_its_machine_to_others_after_some_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "CHECK_SECONDS", 0)
    server = Server(place.redis.url)
    found = turns.Turns(server, ["first", "second"])
    for name in ("first", "second"):
        server.redis.set(server.home_key(name), json.dumps({"waits": True}))
    assert found.begin() == "first"
    assert not found.is_over(idle=False)
    assert not found.is_over(idle=True)  # jobs come in a moment
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    assert found.is_over(idle=False)
    assert found.begin() == "second"
    server.redis.set(server.home_key("first"), json.dumps({"waits": False}))
    assert not found.is_over(idle=True)


# Refusals --------------------------------------------------------------------------------------


def test_a_start_without_redis_py_says_what_to_install_and_starts_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "import paise2nb\n"
        "settings = {'task_queue.provider': 'redis'}\n"
        f"app = paise2nb.open('development', data_dir={str(tmp_path)!r}, settings=settings)\n"
        "with app:\n"
        "    try: app.workers.start()\n"
        "    except paise2nb.PaiseError as error: print(error, app.workers.status().workers)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "type: pip install 'paise2nb[redis]' []" in ended.stdout
