"""What the notebook's face costs: ``python -m tests.benchmarks.dashboard [--jobs N]``.

Loading the extension, the first paint of the panel beside many jobs, the processor at one look a
second, and memory after a thousand updates. Prints a table; judges nothing.
"""

from __future__ import annotations

import argparse
import os
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


def load_seconds() -> float:
    """The cost of %load_ext in fresh processes, the median of five."""
    runs = [
        subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def fill(app: App, jobs: int) -> None:
    """Many finished jobs, some failed, some that wait, as after weeks of work."""
    app.enqueue_many("fetch", [f"https://h{n % 50}.example/{n}" for n in range(jobs)])
    table = app.queue.job_store

    def finish(connection, counters) -> None:  # type: ignore[no-untyped-def]
        for state, share in (("failed", 0.01), ("completed", 0.98)):
            ids = f"state = 'queued' AND id <= {int(jobs * share)}"
            moved = connection.execute(
                f"UPDATE jobs SET state = ?, ready = 0, started_at = 1, finished_at = 2,"
                f" error_class = 'http_4xx', error = '404 Not Found: x' WHERE {ids}",
                (state,),
            ).rowcount
            counters.add("queued", -moved, False)
            counters.add(state, moved, False)
            counters.roots["queued"] -= moved
            counters.roots[state] += moved

    table._write(finish)


def cpu_share(work, seconds: float) -> float:  # type: ignore[no-untyped-def]
    """The processor's share over a span in which ``work`` has to do with it, in percent."""
    start, used = time.monotonic(), time.process_time()
    work()
    while time.monotonic() - start < seconds:
        time.sleep(0.05)
    return 100 * (time.process_time() - used) / (time.monotonic() - start)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    chosen = parser.parse_args()
    print(f"load the extension        {load_seconds() * 1000:8.1f} ms")
    place = Path(tempfile.mkdtemp(prefix="paise2-benchmark-"))
    with paise2nb.open("development", place) as app:
        fill(app, chosen.jobs)
        start = time.perf_counter()
        panel = app.watch()
        bundle = panel._repr_mimebundle_()
        paint = time.perf_counter() - start
        assert bundle
        print(f"first paint, {chosen.jobs:,} jobs {paint * 1000:8.1f} ms")
        bare = cpu_share(lambda: None, chosen.seconds)
        panel._view_count = 1
        share = cpu_share(panel._poller.look, chosen.seconds)
        print(f"idle at 1 Hz              {share - bare:8.2f} % of a core ({bare:.2f} without)")
        for count in (50, 1000):
            for _ in range(count):
                panel.refresh()
            print(f"memory after {count:5} updates {resident_mb(os.getpid()):8.1f} MB")
        times = []
        for _ in range(50):
            start = time.perf_counter()
            panel.refresh()
            times.append(time.perf_counter() - start)
        print(f"one update, all read anew {statistics.median(times) * 1000:8.1f} ms")


if __name__ == "__main__":
    main()
