"""Measure a year of history beside a million jobs: ``python -m tests.benchmarks.history``.

Prints a table. The history is generated as the job store has it after a year: minutes of the last
day, hours of a month, days of the rest. Claims and outcomes are measured alternately in a job store
with it and in an empty one. All times are processor time, because a disk is noisy.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from paise2nb.app import App
from paise2nb.jobs.history import Sums, bucket
from paise2nb.jobs.models import Limits, NewJob, Outcome
from paise2nb.jobs.sql import SQL
from paise2nb.jobs.statistics import DAY, HOSTS, HOUR
from paise2nb.jobs.store import JobStore
from paise2nb.operate import health, metrics
from tests.benchmarks.queue import Workspace
from tests.job_stores import end_and_claim

TASKS = ("fetch", "extract", "store", "noop")
LIMITS = dict.fromkeys(TASKS, Limits(None, None))
FOLLOWS = {"fetch": "extract", "extract": "store"}
EXECUTIONS = 20  # in a minute, for each of eight series


def generate(path: Path, now: float, jobs: int) -> int:
    """Fill a job store with a year of history and some finished pages; returns the rows."""
    numbers = random.Random(1)
    end = int(now)
    day, month = end - DAY - HOUR, end - 31 * DAY
    hosts = [f"host-{number}.example.org" for number in range(HOSTS)]

    def durations() -> tuple[int, int]:
        return bucket(numbers.lognormvariate(1, 1.5)), bucket(numbers.lognormvariate(-2, 1))

    def rows() -> Iterator[tuple[Any, ...]]:
        coarse = [(start - start % DAY, 400) for start in range(end - 366 * DAY, month, DAY)]
        coarse += [(start - start % HOUR, 100) for start in range(month, day, HOUR)]
        for start, executions in coarse:
            for series in range(1, 9):
                for host in ["", *(hosts if series < 3 else ())]:
                    sums = Sums()
                    for _ in range(executions // 4 if host else executions):
                        sums.add(1, *durations())
                    yield start, series, host, *sums.row()
        for start in range(day - day % 60, end, 60):
            for series in range(1, 9):
                for _ in range(EXECUTIONS):
                    yield (
                        start,
                        series,
                        numbers.choice(hosts) if series < 3 else "",
                        *durations(),
                        1,
                    )

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        series = [
            (task, "default", task != "noop", outcome, error, state)
            for task in TASKS
            for outcome, error, state in (
                ("completed", "", "completed"),
                ("failed", "timeout", "retrying"),
            )
        ]
        connection.executemany(
            "INSERT INTO series (task, pool, part, outcome, error_class, state)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            series,
        )
        connection.executemany(SQL["add_to_history"], rows())
        [(stored,)] = connection.execute("SELECT count(*) FROM history")
        connection.executemany(
            "INSERT INTO jobs (task, args, state, ready, priority, max_attempts, attempt, run,"
            " enqueued_at, started_at, finished_at, result, root_id, key)"
            " VALUES ('noop', ?, 'completed', 0, 0, 4, 1, 1, ?, ?, ?, 'null', ?, ?)",
            (
                (f"[{n}]", end - DAY, end - DAY, end - DAY + 1, n + 1, n + 10**9)
                for n in range(jobs)
            ),
        )
        connection.execute("UPDATE counters SET jobs = ? WHERE kind = 'id'", (jobs,))
        connection.execute(
            "UPDATE counters SET jobs = ?, roots = ? WHERE kind = 'state' AND name = 'completed'",
            (jobs, jobs),
        )
        connection.execute("COMMIT")
    return int(stored)


class Drain:
    """Runs the pages and the other jobs of one job store, one after the other."""

    def __init__(self, path: Path) -> None:
        self.store = JobStore(path, durable=False)
        self.worker = self.store.register("default", 1, "ready")

    def run(self, number: int) -> float:
        """Add jobs, run them, and return the microseconds of processor time for each execution."""
        self.store.add([NewJob("noop", f"[{n}]", 4) for n in range(number)])
        hosts = [f"host-{n % HOSTS}.example.org" for n in range(number // 3)]
        self.store.add([NewJob("fetch", "[]", 4, host=host) for host in hosts])
        began, executions = time.process_time(), 0
        claim = self.store.claim(self.worker, LIMITS)
        while claim is not None:
            follow = [NewJob(FOLLOWS[claim.task], "[]", 4)] if claim.task in FOLLOWS else []
            done = Outcome("completed", "completed", '{"item": 1}', followups=follow)
            _, claim = end_and_claim(self.store, claim, done, self.worker, LIMITS)
            executions += 1
        return (time.process_time() - began) / executions * 1e6


def milliseconds(work: Callable[[], object], rounds: int = 5) -> float:
    """The median of the processor time that something takes."""
    took = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        took.append((time.process_time() - began) * 1000)
    return statistics.median(took)


def measure(app: App, empty: App, jobs: int, pairs: int) -> None:
    """Print the table."""
    path = app.queue.job_store.path
    before = path.stat().st_size
    rows = generate(path, app.queue.job_store.now(), jobs)
    app.queue.job_store.checkpoint()
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT coalesce(sum(pgsize), 0) FROM dbstat "
            "WHERE aggregate = TRUE AND name = 'history'"
        ).fetchone()
    print("| | | goal |\n|---|---|---|")
    print(f"| rows of history | {rows:,} | |")
    print(f"| their size | {found[0] / 1e6:.1f} MB | |")
    print(f"| the database with {jobs:,} jobs | {(path.stat().st_size - before) / 1e6:.0f} MB | |")
    for since in ("1h", "1d", "30d", "366d"):
        took = milliseconds(lambda since=since: app.stats(since))  # type: ignore[misc]
        print(f"| stats --since {since} | {took:.0f} ms | |")
    print(
        f"| stats --since 1d --by host | {milliseconds(lambda: app.stats('1d', 'host')):.0f} ms | |"
    )
    print(f"| metrics | {milliseconds(lambda: metrics.read(app)):.0f} ms | |")
    collector = metrics.Collector(app)
    list(collector.collect())
    print(
        f"| metrics --serve, again | {milliseconds(lambda: list(collector.collect())):.0f} ms | |"
    )
    print(f"| health | {milliseconds(lambda: health.check(app.settings)):.0f} ms | ≤ 300 ms |")
    print(f"| status | {milliseconds(app.status):.1f} ms | |")
    full, bare = Drain(path), Drain(empty.queue.job_store.path)
    ratios = []
    for _ in range(pairs):
        a, b = bare.run(300), full.run(300)
        ratios.append(b / a)
    ratio = statistics.median(ratios)
    print(f"| an outcome with a claim, to an empty job store | {ratio:.2f}× | ≤ 1.05× |")
    began = time.perf_counter()
    full.store.roll_up()
    print(f"| roll_up, daily | {(time.perf_counter() - began) * 1000:.0f} ms | |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        workspace = Workspace(Path(root))
        with (
            workspace.app(workspace.new_directory()) as app,
            workspace.app(workspace.new_directory()) as empty,
        ):
            measure(app, empty, arguments.jobs, arguments.pairs)
        os.sync()


if __name__ == "__main__":
    main()
