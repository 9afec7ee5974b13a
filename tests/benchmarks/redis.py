"""Jobs through Redis on one joined machine, beside plain RedisHuey in the same run.

``python -m tests.benchmarks.redis [JOBS]``: how many jobs that do nothing end in a second, with
four threads on either side, and how long an idle machine takes to run a new job.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from huey import RedisHuey

from tests.machines import Place, RedisServer
from tests.waiting import until

JOBS = 10_000
PICKUPS = 50
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
    first = time.monotonic()
    until(lambda: not huey.storage.queue_size(), pause=0.005)
    rate = jobs / (time.monotonic() - first)
    consumer.kill()
    consumer.wait()
    assert first > began
    return rate


def main() -> None:
    """Print the rates and the time of a pickup."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory), RedisServer(Path(directory) / "redis"), PLUGIN)
        try:
            rate = plain_rate(place.redis.url, jobs)
            print(f"plain RedisHuey, {THREADS} threads: {rate:,.0f} jobs/s")
            app = place.home(workers__pools__home={"tasks": ["store"]})
            app.workers.start(pool="home")
            place.join("--pool", "default")  # one process with four threads for brief jobs
            place.joined(app)
            store = app.queue.job_store
            app.enqueue_many("no-op", range(jobs))
            began = time.monotonic()
            until(lambda: store.counts()[0]["completed"] >= jobs, 600, pause=0.02)
            ours = jobs / (time.monotonic() - began)
            print(f"one machine, {THREADS} threads: {ours:,.0f} jobs/s, {ours / rate:.2f} of that")
            pickups = []
            for number in range(PICKUPS):
                time.sleep(0.1)
                began = time.monotonic()
                pickups.append(app.enqueue("at", number).result(60) - began)
            print(f"pickup p50: {statistics.median(pickups) * 1000:.1f} ms")
        finally:
            place.close()


if __name__ == "__main__":
    # Huey names a task by its module, which has to be the consumer's.
    from tests.benchmarks import redis

    redis.main()
