"""Jobs through Redis on one joined machine, beside plain RedisHuey in the same run.

``python -m tests.benchmarks.redis [one|eight|many|pages …]``: how many jobs that do nothing end in
a second (with four threads on either side; with eight machines and a slow network; with a hundred
machines that are only simulated), how long an idle machine takes to run a new job, and how fast
two machines fetch and extract pages.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from huey import RedisHuey

from paise2nb.app import App
from paise2nb.core import processes
from paise2nb.jobs.models import Outcome
from paise2nb.jobs.transfer import outcome_to_json
from paise2nb.workers.machines.machine import Link
from paise2nb.workers.machines.memory import PLUGINS
from paise2nb.workers.machines.messages import Server
from tests.machines import Place, RedisServer
from tests.test_main_job import DOCS, Quiet
from tests.waiting import until

JOBS = 10_000
PICKUPS = 50
MACHINES = 100
THREADS = 4  # of a process, for brief jobs
PLUGIN = """
import time
from paise2nb import task

@task("no-op", runs="anywhere", threads=True)
def no_op(context, number):
    pass

@task("at", runs="anywhere")
def at(context, number):
    return time.monotonic()  # of this computer, on which both sides run
"""
_CONSUMER = """
import sys
from tests.benchmarks.redis import plain
consumer = plain(sys.argv[1])[0].create_consumer(workers=4, periodic=False)
consumer.run()
"""


_SIMULATED = """
import sys
from pathlib import Path
from tests.benchmarks.redis import simulate
simulate(sys.argv[1], Path(sys.argv[2]))
"""
_PROXY = """
import asyncio, sys
listens, redis = int(sys.argv[1]), int(sys.argv[2])

async def pass_on(reader, writer):
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 16):
        loop.call_later(0.00025, writer.write, data)
    writer.close()

async def connect(reader, writer):
    there_reader, there_writer = await asyncio.open_connection("localhost", redis)
    await asyncio.gather(pass_on(reader, there_writer), pass_on(there_reader, writer))

async def main():
    async with await asyncio.start_server(connect, "127.0.0.1", listens) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def plain(url: str) -> tuple[RedisHuey, object]:
    """A queue of plain Huey, and its task."""
    huey = RedisHuey("plain", url=url, results=False)

    @huey.task(name="no-op")  # type: ignore[untyped-decorator]
    def no_op(number: int) -> None:
        pass

    return huey, no_op


def plain_rate(url: str, jobs: int) -> float:
    """Jobs in a second of plain RedisHuey, with the tasks enqueued before."""
    huey, no_op = plain(url)
    for number in range(jobs):
        no_op(number)  # type: ignore[operator]
    began = time.monotonic()
    command = [sys.executable, "-c", _CONSUMER, url]
    consumer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: huey.storage.queue_size() < jobs, pause=0.001)
    first, left = time.monotonic(), huey.storage.queue_size()
    until(lambda: not huey.storage.queue_size(), pause=0.005)
    rate = float(left) / (time.monotonic() - first)
    consumer.kill()
    consumer.wait()
    assert first > began
    return rate


def no_ops(place: Place, app: App, jobs: int) -> tuple[float, float]:
    """Jobs in a second, and the seconds of processor time that home spends on one of them."""
    store = app.queue.job_store
    relay = next(w for w in app.workers.status().workers if w["pool"] == "relay")
    before = store.counts()[0]["completed"], processor_seconds(relay["pid"])
    app.enqueue_many("no-op", range(before[0], before[0] + jobs))
    began = time.monotonic()
    until(lambda: store.counts()[0]["completed"] >= before[0] + jobs, 600, pause=0.02)
    seconds = time.monotonic() - began
    return jobs / seconds, (processor_seconds(relay["pid"]) - before[1]) / jobs


def processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def one_machine(jobs: int) -> None:
    """A machine with four threads, beside plain RedisHuey with four threads; and pickups."""
    with a_place() as place:
        rate = plain_rate(place.redis.url, jobs)
        print(f"plain RedisHuey, {THREADS} threads: {rate:,.0f} jobs/s")
        app = home(place)
        place.join("--pool", "default")  # one process with four threads for brief jobs
        place.joined(app)
        ours, cost = no_ops(place, app, jobs)
        print(f"one machine, {THREADS} threads: {ours:,.0f} jobs/s, {ours / rate:.2f} of that")
        print(f"processor time of home: {cost * 1e6:.0f} us/job")
        pickups = []
        for number in range(PICKUPS):
            time.sleep(0.1)
            began = time.monotonic()
            pickups.append(app.enqueue("at", number).result(60) - began)
        print(f"pickup p50: {statistics.median(pickups) * 1000:.1f} ms")


def eight_machines(jobs: int) -> None:
    """Eight machines and a home whose connections to Redis have a round trip of 0.5 ms."""
    with a_place() as place:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-c", _PROXY, str(port), str(place.redis.port)]
        proxy = subprocess.Popen(command)
        url = f"redis://localhost:{port}/0"
        try:
            until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            app = home(place, task_queue__redis__url=url)
            for _ in range(8):
                place.join("--pool", "default", url=url)
            place.joined(app, 8)
            rate, cost = no_ops(place, app, jobs)
            print(f"8 machines, round trip 0.5 ms: {rate:,.0f} jobs/s")
            print(f"processor time of home: {cost * 1e6:.0f} us/job")
        finally:
            proxy.kill()
            proxy.wait()


def many_machines(seconds: int) -> None:
    """A hundred machines in one process, whose jobs end at once, for some seconds."""
    with a_place() as place:
        app = home(place, task_queue__redis__lease=15)
        command = [sys.executable, "-c", _SIMULATED, place.redis.url, str(place.directory)]
        simulated = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            until(lambda: len(app.workers.status().machines) == MACHINES)
            until(lambda: all(m["pools"] for m in app.workers.status().machines))
            rates, ends = [], time.monotonic() + seconds
            while time.monotonic() < ends:
                rates.append(no_ops(place, app, JOBS))
            rate, cost = (statistics.mean(values) for values in zip(*rates, strict=True))
            attempts = app.queue.job_store.database.read("SELECT count(*) FROM attempts")[0][0]
            print(f"{MACHINES} machines: {rate:,.0f} jobs/s, home {cost * 1e6:.0f} us/job")
            print(f"executions that were given back: {attempts:,} of {len(rates) * JOBS:,}")
        finally:
            simulated.kill()
            simulated.wait()


def simulate(url: str, directory: Path) -> None:
    """Be a hundred machines until killed."""
    workers = []
    process = processes.identity(os.getpid())
    assert process is not None
    for number in range(MACHINES):
        (directory / f"simulated-{number}").mkdir()
        link = Link(Server(url), "paise2", b"", directory / f"simulated-{number}",
                    accepts_plugins=False)  # fmt: skip
        link.store.put(PLUGINS, json.dumps({"extra": _plugin_hash()}))
        worker = link.store.register("default", THREADS, process)
        link.store.heartbeat(worker, "ready", None)
        link.start()
        workers.append((link.store, worker))
    done = outcome_to_json(Outcome("completed", "completed", "null"))
    ended: dict[int, list[Any]] = {worker: [] for worker in range(MACHINES)}
    while True:
        found = 0
        for number, (store, worker) in enumerate(workers):
            reports = [((c.id, c.started_at), done) for c, _ in ended[number]]
            wanted = (["no-op"], ["no-op"], 64, False)
            _, ended[number] = store.end_several(reports, worker, True, wanted)
            found += len(ended[number])
        time.sleep(0 if found else 0.005)


def _plugin_hash() -> str:
    return hashlib.sha256(PLUGIN.encode()).hexdigest()[:16]


def two_machines(pages: int) -> None:
    """Pages fetched and extracted by two machines, and by two local workers, in alternation."""
    files = [file.relative_to(DOCS.resolve()) for file in sorted(DOCS.resolve().rglob("*.html"))]
    handler = functools.partial(Quiet, directory=str(DOCS.resolve()))
    seconds: dict[str, list[float]] = {"sqlite": [], "redis": []}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_port}/{file}" for file in files[:pages]]
        for provider in ("sqlite", "redis") * 3:
            with a_place() as place:
                app = place.home(
                    task_queue__provider=provider, workers__concurrency=2,
                    workers__pools__home={"tasks": ["store", "cleanup"]},
                    fetch__allow_private_addresses=True, fetch__host_delay=0, fetch__robots=False,
                )  # fmt: skip
                app.workers.start(pool="home" if provider == "redis" else None)
                if provider == "redis":
                    place.join("--concurrency", "1"), place.join("--concurrency", "1")
                    place.joined(app, 2)
                began = time.monotonic()
                app.enqueue_many("fetch", urls).wait(600)
                seconds[provider].append(time.monotonic() - began)
        server.shutdown()
    local, joined = (pages / statistics.median(seconds[name]) for name in ("sqlite", "redis"))
    print(f"{pages} pages: two local workers {local:.1f}/s, two machines {joined:.1f}/s,"
          f" {joined / local:.2f} of that")  # fmt: skip


@contextmanager
def a_place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory), RedisServer(Path(directory) / "redis"), PLUGIN)
        try:
            yield place
        finally:
            place.close()


def home(place: Place, **settings: object) -> App:
    app = place.home(workers__pools__home={"tasks": ["store"]}, **settings)
    app.workers.start(pool="home")
    return app


def main() -> None:
    """Run the benchmarks that are named, or all."""
    numbers = {"one": JOBS, "eight": JOBS, "many": 60, "pages": 200}
    benchmarks = {"one": one_machine, "eight": eight_machines, "many": many_machines,
                  "pages": two_machines}  # fmt: skip
    for name in sys.argv[1:] or benchmarks:
        benchmarks[name](numbers[name])


if __name__ == "__main__":
    # Huey names a task by its module, which has to be the consumer's.
    from tests.benchmarks import redis

    redis.main()
