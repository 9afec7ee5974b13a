"""Machines, relay and Redis fail at random moments: no job is lost, each effect is there once."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import redis

from paise2nb.app import App
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario
from tests.machines import OPEN, SECRET, Machine, Place, RedisServer
from tests.namespaces import Host
from tests.site import Site
from tests.waiting import until

TREE = """
import time
from paise2nb import task

@task("tree", runs="anywhere")
def tree(context, word, seconds):
    time.sleep(seconds)
    context.enqueue("at-home", word)

@task("brief-tree", runs="anywhere", threads=True)
def brief_tree(context, word, seconds):
    context.enqueue("at-home", word)

@task("at-home")
def at_home(context, word):
    with (context.data_dir / "ran").open("a") as file:
        file.write(f"{word}\\n")
"""


def disturb_messages(url: str, rng: random.Random, ended: threading.Event) -> None:
    """Drop and double messages while they wait in their lists."""
    server = redis.Redis.from_url(url, socket_timeout=5)
    while not ended.wait(0.05):
        with suppress(redis.RedisError):
            for key in server.scan_iter("huey.redis.paise2_*"):
                message = server.rpop(key)
                if message is not None and rng.random() < 0.5:
                    server.rpush(key, message, message)


class Trouble:
    """What happens to the parts of a place, one thing at a time."""

    def __init__(self, place: Place, app: App, rng: random.Random) -> None:
        self.place, self.app, self.rng = place, app, rng

    def machine(self) -> None:
        """Kill a machine, and start another one."""
        living = [machine for machine in self.place.machines if machine.pids()]
        new = self.place.join().process.pid
        until(lambda: new in {row["pid"] for row in self.app.workers.status().machines})
        self.rng.choice(living).kill()

    def worker(self) -> None:
        """Kill a worker of a machine."""
        living = [machine for machine in self.place.machines if machine.pids()]
        victims = [(m, pid) for m in living for pid in m.pids() if pid != m.process.pid]
        if victims:
            machine, pid = self.rng.choice(victims)
            machine.send_to(pid, signal.SIGKILL)

    def relay(self) -> None:
        """Kill the relay."""
        for worker in self.app.workers.status().workers:
            if worker["pool"] == "relay":
                self.place.machines[0].send_to(worker["pid"], signal.SIGKILL)

    def supervisor(self) -> None:
        """Kill the supervisor at home, and start another one."""
        supervisor = self.app.workers.status().supervisor
        assert supervisor is not None
        self.place.machines[0].send_to(supervisor["pid"], signal.SIGKILL)
        until(lambda: self.app.workers.status().supervisor is None)
        self.app.workers.start(pool="home")

    def redis(self) -> None:
        """Let Redis restart without its messages."""
        self.place.redis.kill()
        self.place.redis.start()

    def frozen_redis(self) -> None:
        """Let Redis stop for longer than a client waits and a lease lasts."""
        self.place.redis.process.send_signal(signal.SIGSTOP)
        time.sleep(7)
        self.place.redis.process.send_signal(signal.SIGCONT)


def run(tmp_path: Path, jobs: int, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    place = Place(tmp_path, RedisServer(tmp_path / "redis"), TREE)
    ended = threading.Event()
    thief = threading.Thread(target=disturb_messages, args=(place.redis.url, rng, ended))
    try:
        app = place.home(workers__pools__home={"tasks": ["store", "cleanup", "at-home"]})
        app.workers.start(pool="home")
        place.join(), place.join()
        place.joined(app, 2)
        words = [f"{number}" for number in range(jobs)]
        found = app.enqueue_many("tree", [(word, 0.05) for word in words[::2]])
        brief = app.enqueue_many("brief-tree", [(word, 0) for word in words[1::2]])
        thief.start()
        trouble = Trouble(place, app, rng)
        kinds: list[Callable[[], None]] = [
            trouble.machine, trouble.worker, trouble.relay, trouble.redis, trouble.frozen_redis,
            trouble.supervisor,
        ]  # fmt: skip
        for number in range(rounds):
            done = number * jobs // rounds
            until(lambda done=done: app.queue.job_store.counts()[0]["completed"] >= done, 120)
            kinds[number % len(kinds)]()
        app.wait(timeout=180)
        ended.set()
        assert {job.state for job in [*found, *brief]} == {"completed"}
        assert all(len(job.children) == 1 for job in [*found, *brief])
        assert sorted((app.data_dir / "ran").read_text().split()) == sorted(words)
        assert not app.queue.job_store.leases()
    finally:
        ended.set()
        place.close()


@scenario(
    27,
    "machines, relay, supervisor and Redis fail",
    short={"jobs": 200, "rounds": 6},
    full={"jobs": 3000, "rounds": 60},
    seeds=3,
)
def test_nothing_is_lost_when_machines_relay_and_redis_fail(
    environment: Environment, scale: Scale
) -> None:
    run(environment.root, int(scale["jobs"]), int(scale["rounds"]), environment.seed)


def sent_to_frozen(place: Place, app: App, site: Site) -> list[float]:
    """The seconds that hosts wait for a frozen machine that should fetch their pages."""
    frozen, other = [place.join(PAISE2_QUEUE_SECRET=SECRET) for _ in range(2)]
    place.joined(app, 2)
    frozen.send(signal.SIGSTOP)
    urls = [
        site.url(f"/ok?{len(site.requests)}", host=f"127.0.0.{number + 2}") for number in range(8)
    ]
    jobs = app.enqueue_many("fetch", urls)
    jobs.wait(60)
    frozen.kill(), other.kill()
    released = [a for job in jobs for a in job.attempts[:1] if a["outcome"] == "released"]
    times = [
        [datetime.fromisoformat(a[n]) for n in ("started_at", "finished_at")] for a in released
    ]
    return [(finished - started).total_seconds() for started, finished in times]


def silence(machine: Machine, end: str) -> None:
    match end:
        case "killed":
            machine.kill()
        case "frozen":
            machine.send(signal.SIGSTOP)
        case "cut off":
            assert machine.host is not None
            machine.host.cut()


@scenario(
    27,
    "machines are killed, frozen and cut off with a job",
    short={"rounds": 1},
    full={"rounds": 3},
)
def test_the_jobs_of_a_silent_machine_run_again_soon(
    environment: Environment, scale: Scale
) -> None:
    place = Place(environment.root, RedisServer(environment.root / "redis", *OPEN))
    site = Site("0.0.0.0")
    try:
        app = place.home(
            task_queue__redis__secret=SECRET, fetch__allow_private_addresses=True,
            fetch__robots=False, fetch__host_delay=0,
        )  # fmt: skip
        app.workers.start(pool="home")
        lease, returns, waits = app.settings.task_queue.redis.lease, list[float](), list[float]()
        for number in range(int(scale["rounds"])):
            for end in ("killed", "frozen", "cut off"):
                gate = environment.root / f"gate {number} {end}"
                began = Path(f"{gate}.ran")
                machine = place.join_from(Host())
                place.joined(app)
                job = app.enqueue("hold", str(gate), "word")
                until(lambda: sum(row["started"] for row in app.queue.job_store.leases()) == 1)
                other = place.join_from(Host())
                place.joined(app, 2)
                since = time.monotonic()
                silence(machine, end)
                until(lambda began=began: len(began.read_text().splitlines()) == 2)
                returns.append(time.monotonic() - since)
                gate.touch()
                job.wait(60)
                assert job.result(0).startswith(str(other.directory))
                machine.kill(), other.kill()
                until(lambda: not app.workers.status().machines)
            waits += sent_to_frozen(place, app, site)
            until(lambda: not app.workers.status().machines)
        environment.within(max(returns), lease + 2, "slowest return of a silent machine's job")
        environment.within(max(waits), 3, "longest wait of a host for a frozen machine")
    finally:
        site.close()
        place.close()
