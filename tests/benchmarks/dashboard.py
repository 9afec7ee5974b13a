"""The cost of the notebook extension: ``python -m tests.benchmarks.dashboard [--jobs N]``.

Measures loading the extension, the first display of the panel with many jobs, its use of the
processor while nothing happens, and memory after a thousand updates. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import paise2nb
from paise2nb.app import App
from paise2nb.core.processes import resident_mb

LOAD = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
start = time.perf_counter()
shell.run_line_magic("load_ext", "paise2nb")
print(time.perf_counter() - start)
"""


FINISH = """
UPDATE jobs SET state = :state, ready = 0, started_at = 1, finished_at = 2,
    error_class = 'http_4xx', error = '404 Not Found: x'
WHERE id IN (SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT :number)
"""
COUNT = """
UPDATE counters SET jobs = jobs + iif(name = :state, :number, -:number),
    roots = roots + iif(name = :state, :number, -:number)
WHERE kind = 'state' AND name IN (:state, 'queued')
"""


def load_seconds() -> float:
    """Seconds of %load_ext in a new process, the median of five."""
    runs = [
        subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def fill(app: App, jobs: int) -> None:
    """Add many jobs, most of them completed, some failed and some queued."""
    app.enqueue_many("fetch", [f"https://h{n % 50}.example/{n}" for n in range(jobs)])
    finished = (("failed", int(jobs * 0.01)), ("completed", int(jobs * 0.97)))

    def finish(connection: sqlite3.Connection) -> None:
        # The next rows are those that were queued first.
        for state, number in finished:
            connection.execute(FINISH, {"state": state, "number": number})
            connection.execute(COUNT, {"state": state, "number": number})

    app.queue.job_store.database.write(finish)


def cpu_share(work, seconds: float) -> float:  # type: ignore[no-untyped-def]
    """Percent of a core that this process uses for some seconds after ``work`` has begun."""
    start, used = time.monotonic(), time.process_time()
    work()
    while time.monotonic() - start < seconds:
        time.sleep(0.05)
    return 100 * (time.process_time() - used) / (time.monotonic() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    chosen = parser.parse_args()
    print(f"load the extension        {load_seconds() * 1000:8.1f} ms")
    with (
        tempfile.TemporaryDirectory(prefix="paise2-benchmark-") as root,
        paise2nb.open("development", Path(root)) as app,
    ):
        fill(app, chosen.jobs)
        start = time.perf_counter()
        panel = app.watch()
        bundle = panel._repr_mimebundle_()
        paint = time.perf_counter() - start
        assert bundle
        print(f"first paint, {chosen.jobs:,} jobs {paint * 1000:8.1f} ms")
        bare = cpu_share(lambda: None, chosen.seconds)
        panel._view_count = 1
        share = cpu_share(panel._poller.wake, chosen.seconds)
        print(f"idle while displayed      {share - bare:8.2f} % of a core ({bare:.2f} without)")
        for count in (50, 1000):
            for _ in range(count):
                panel.refresh()
            print(f"memory after {count:5} updates {resident_mb(os.getpid()):8.1f} MB")
        times = []
        for _ in range(50):
            start = time.perf_counter()
            panel.refresh()
            times.append(time.perf_counter() - start)
        print(f"one complete update       {statistics.median(times) * 1000:8.1f} ms")


if __name__ == "__main__":
    main()
