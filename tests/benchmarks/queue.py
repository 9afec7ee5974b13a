"""The queue beside raw SqliteHuey, in one run: ``python -m tests.benchmarks.queue``.

Prints a table of medians and of ratios to the peer. The machine is noisy: both are measured in
turn, several rounds, and the ratio is that of the medians. Temporary files go to ``--dir``, which
should be on a real disk: on one in memory a commit costs nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from huey import SqliteHuey

import paise2nb
from paise2nb.app import App
from paise2nb.jobs import Claim, JobStore, NewJob, Outcome

PLUGIN = """
import time
from paise2nb import task

@task("noop")
def noop(context, number):
    return None

@task("stamp")
def stamp(context, number):
    return time.time()
"""
DRAIN = """
import logging, sys, time
logging.disable(logging.CRITICAL)
from huey import SqliteHuey
huey = SqliteHuey("bench", filename=sys.argv[1])

def noop(number):
    return None
noop.__module__ = "__main__"
noop = huey.task()(noop)
consumer = huey.create_consumer(workers=int(sys.argv[2]), periodic=False)
print("ready", flush=True)
sys.stdin.readline()
consumer.start()
while huey.pending_count():
    time.sleep(0.002)
consumer.stop(graceful=True)
print("done", flush=True)
"""


class Place:
    """Fresh directories, and the plugin with the tasks that do nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plugin = root / "noop.py"
        self.plugin.write_text(PLUGIN)

    def fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root))

    def app(self, directory: Path, **settings: Any) -> App:
        values = {"plugins": [str(self.plugin)], "workers.pools": {"fetch": None}}
        values |= {key.replace("__", "."): value for key, value in settings.items()}
        return paise2nb.open("development", directory, values)


def rate(number: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return number / (time.perf_counter() - began)


def raw_huey(place: Place) -> tuple[SqliteHuey, Callable[[int], object]]:
    huey = SqliteHuey("bench", filename=str(place.fresh() / "huey.db"))

    def noop(number: int) -> None:
        return None

    noop.__module__ = "__main__"  # so that the processes of `DRAIN` know it
    return huey, huey.task()(noop)


def each(function: Callable[[int], object], number: int) -> None:
    for n in range(number):
        function(n)


# Enqueueing ----------------------------------------------------------------------------------


def enqueue_raw(place: Place, number: int) -> float:
    _, noop = raw_huey(place)
    return rate(number, lambda: each(noop, number))


def enqueue_ours(place: Place, number: int) -> float:
    with place.app(place.fresh()) as app:
        return rate(number, lambda: each(lambda n: app.enqueue("noop", n), number))


def enqueue_many(place: Place, number: int) -> float:
    with place.app(place.fresh()) as app:
        return rate(number, lambda: app.enqueue_many("noop", range(number)))


def insert_bare(place: Place, number: int, together: int) -> float:
    """The floor of an enqueue: the same rows in the same table by SQLite alone.

    No check of arguments, no look for duplicates, no line of writers, nobody woken.
    """
    directory = place.fresh()
    with place.app(directory) as app:
        path = app.queue.job_store.path
    rows = [(f"[{n}]", hash(f"noop {n}")) for n in range(number)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")

        def insert(batch: int) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO jobs (task, args, key, state, ready, priority, max_attempts,"
                " enqueued_at) VALUES ('noop', ?, ?, 'queued', 1, 0, 4, 1e9)",
                rows[batch * together : (batch + 1) * together],
            )
            connection.execute("COMMIT")

        return rate(number, lambda: each(insert, number // together))


# Draining ------------------------------------------------------------------------------------


def drain_raw(place: Place, number: int, processes: int, threads: int) -> float:
    huey, noop = raw_huey(place)
    each(noop, number)
    return _drain(number, [DRAIN, huey.storage.filename, str(threads)], processes)


def _drain(number: int, arguments: list[str], processes: int) -> float:
    """Jobs a second from the word to start until every process has seen the end."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(processes)
    ]  # fmt: skip
    _hear(children, "ready")
    began = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    _hear(children, "done")
    result = number / (time.perf_counter() - began)
    for child in children:
        child.communicate()
    return result


def _hear(children: list[subprocess.Popen[str]], word: str) -> None:
    for child in children:
        assert child.stdout is not None
        said = child.stdout.readline()
        if said != f"{word}\n":
            raise RuntimeError(f"a process said {said!r} in place of {word!r}")


OURS = """
import logging, sys, time
logging.disable(logging.CRITICAL)
from paise2nb.app import App
from paise2nb.config.settings import Settings
app = App(Settings.from_json(sys.argv[1]), is_worker=True)
table = app.queue.job_store
app.queue.work_for(table.register("default", int(sys.argv[2])), app.limits("default"))
consumer = app.queue.create_consumer(workers=int(sys.argv[2]), periodic=False)
print("ready", flush=True)
sys.stdin.readline()
consumer.start()
while table.busy():
    time.sleep(0.002)
app.queue.stop_claiming()
consumer.stop(graceful=True)
print("done", flush=True)
"""


def drain_ours(place: Place, number: int, processes: int, threads: int) -> float:
    directory = place.fresh()
    with place.app(directory) as app:
        app.enqueue_many("noop", range(number))
        settings = app.settings.to_json()
    return _drain(number, [OURS, settings, str(threads)], processes)


# Waiting -------------------------------------------------------------------------------------


def pickup(place: Place, idle: float, rounds: int) -> tuple[list[float], float, float, list[float]]:
    """Milliseconds from enqueue to body; idle CPU in %; memory in MB; spawn to first body."""
    with place.app(place.fresh(), workers__concurrency=1) as app:
        app.enqueue("stamp", -1)
        began = time.time()
        app.workers.start()
        spawns = [app.job(1).result(timeout=60) - began]
        [worker] = app.workers.status().workers
        memory = _memory(worker["pid"])
        waits = []
        before, at = _cpu(worker["pid"]), time.monotonic()
        for number in range(rounds):
            time.sleep(idle / rounds)
            sent = time.time()
            waits.append((app.enqueue("stamp", number).result(timeout=60) - sent) * 1000)
        busy = (_cpu(worker["pid"]) - before) / (time.monotonic() - at) * 100
        app.workers.stop()
    return waits, busy, memory, spawns


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1000


# A long history ------------------------------------------------------------------------------


def finished(app: App, number: int) -> None:
    """Fill the table with finished jobs, by its own moves."""
    table = JobStore(
        app.queue.job_store.path, durable=False
    )  # or the filling takes ten times as long
    jobs = [NewJob("noop", f"[{n}]", 4, key=n + 10**9) for n in range(number)]
    for start in range(0, number, 50_000):
        table.add(jobs[start : start + 50_000])
    worker = table.register("default", 1, "ready")
    limits = app.limits("default")
    claim: Claim | None = table.claim(worker, limits)
    while claim is not None:
        _, claim = table.end(claim, Outcome("completed", "completed", "null"), worker, limits)
    table.leave(worker)
    table.close()


def with_history(place: Place, number: int) -> dict[str, list[float]]:
    """Microseconds of claim and enqueue beside nothing and beside many, and of a status.

    In turn, job by job: what else writes to the disk meanwhile hits both alike.
    """
    figures: dict[str, list[float]] = {}
    with place.app(place.fresh()) as empty, place.app(place.fresh()) as full:
        finished(full, number)
        os.sync()
        apps = {"empty": empty, "full": full}
        claimants = {
            name: (app.queue.job_store.register("default", 1, "ready"), app.limits("default"))
            for name, app in apps.items()
        }
        counters: dict[str, Callable[[str, App, int], object]] = {
            "enqueue": lambda name, app, n: app.enqueue("noop", n),
            "claim": lambda name, app, n: app.queue.job_store.claim(*claimants[name]),
            "status": lambda name, app, n: app.status(),
        }
        for kind, times in (("enqueue", 500), ("claim", 400), ("status", 50)):
            for n in range(times):
                for name, app in apps.items():
                    took = _times(lambda _, m=counters[kind], a=(name, app, n): m(*a), 1)
                    figures.setdefault(f"{kind} {name}", []).extend(took)
    return figures


def with_line(place: Place, number: int) -> dict[str, list[float]]:
    """Microseconds of claim and status beside nothing and beside many jobs of one slow host."""
    figures: dict[str, list[float]] = {}
    for name, size in (("none", 0), ("line", number)):
        with place.app(place.fresh()) as app:
            table = app.queue.job_store
            table.host_delay = 1000.0
            table.add([NewJob("noop", f"[{n}]", 4, host="slow") for n in range(size)])
            app.enqueue_many("noop", range(500))
            worker, limits = table.register("default", 1, "ready"), app.limits("default")
            figures[f"claim {name}"] = _times(
                lambda n, t=table, w=worker, of=limits: t.claim(w, of), 400
            )
            app.status()
            figures[f"status {name}"] = _times(lambda n, app=app: app.status(), 50)
    return figures


def _times(work: Callable[[int], object], number: int) -> list[float]:
    times = []
    for n in range(number):
        began = time.perf_counter()
        work(n)
        times.append((time.perf_counter() - began) * 1e6)
    return times


# The table -----------------------------------------------------------------------------------


def compare(name: str, raw: Iterable[float], ours: Iterable[float], goal: str) -> None:
    a, b = statistics.median(raw), statistics.median(ours)
    print(f"| {name} | {a:,.0f}/s | {b:,.0f}/s | {b / a:.2f}× | {goal} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--number", type=int, default=3000)
    parser.add_argument("--idle", type=float, default=60, help="seconds of waiting for the pickup")
    parser.add_argument(
        "--history", type=int, default=1_000_000, help="finished jobs; 0: leave out"
    )
    parser.add_argument("--line", type=int, default=100_000, help="jobs of one slow host")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        place = Place(Path(root))
        measure(place, arguments)


def measure(place: Place, arguments: argparse.Namespace) -> None:
    """Each line of the table."""
    number, rounds = arguments.number, range(arguments.rounds)
    print("| | raw SqliteHuey | paise2nb | ratio | to reach |\n|---|---|---|---|---|")
    turns = [
        (
            enqueue_raw(place, number),
            enqueue_ours(place, number),
            insert_bare(place, number, 1),
            enqueue_many(place, 20_000),
            insert_bare(place, 20_000, 20_000),
        )
        for _ in rounds
    ]
    raw, ours, bare, bulk, bare_bulk = zip(*turns, strict=True)
    compare("enqueue, one by one", raw, ours, "≥ 0.9×")
    compare("its floor: the bare INSERT", raw, bare, "")
    compare("enqueue_many of 20,000", raw, bulk, "≥ 20×")
    compare("its floor: the bare INSERT", raw, bare_bulk, "")
    for processes, threads in ((1, 4), (2, 2)):
        drains = [
            (
                drain_raw(place, number, processes, threads),
                drain_ours(place, number, processes, threads),
            )
            for _ in rounds
        ]
        name = f"drain, {processes} × {threads} threads"
        compare(name, [d[0] for d in drains], [d[1] for d in drains], "≥ 2×")
    waits, busy, memory, spawns = pickup(place, arguments.idle, 20)
    p50, worst = statistics.median(waits), max(waits)
    print(f"| pickup after a pause | | p50 {p50:.1f} ms, max {worst:.1f} ms | | ≤ 2, ≤ 50 ms |")
    print(f"| idle CPU of a worker | | {busy:.2f} % | | ≤ 0.3 % |")
    print(f"| memory of a worker | | {memory:.0f} MB | | ≤ 60 MB |")
    print(f"| spawned to first body | | {spawns[0]:.2f} s | | ≤ 0.6 s |")
    figures = {k: statistics.median(v) for k, v in with_line(place, arguments.line).items()}
    for name, goal in (("claim", "≤ 1.2×"), ("status", "")):
        a, b = figures[f"{name} none"], figures[f"{name} line"]
        print(
            f"| {name} beside {arguments.line:,} jobs of one slow host | | {b:,.0f} µs"
            f" (none: {a:,.0f} µs) | {b / a:.2f}× | {goal} |"
        )
    if arguments.history:
        figures = {
            k: statistics.median(v) for k, v in with_history(place, arguments.history).items()
        }
        for name in ("enqueue", "claim"):
            a, b = figures[f"{name} empty"], figures[f"{name} full"]
            print(
                f"| {name} beside {arguments.history:,} finished jobs | | {b:,.0f} µs"
                f" (empty: {a:,.0f} µs) | {b / a:.2f}× | ≤ 1.2× |"
            )
        status = figures["status full"] / 1000
        print(
            f"| status beside {arguments.history:,} finished jobs | | {status:.1f} ms | | ≤ 5 ms |"
        )


if __name__ == "__main__":
    main()
