"""Compare the queue with plain SqliteHuey: ``python -m tests.benchmarks.queue``.

The lines "as installed" are what a user gets: the production profile, ``worker start``, a task of a
plugin, four processes. Prints a table of medians and ratios. Machines are noisy, so both are
measured alternately, in several rounds, and the ratio is that of the medians. Temporary files go to
``--dir``, which should be on a real disk: in memory a commit costs nothing.
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
from typing import Any, NamedTuple

from huey import SqliteHuey

import paise2nb
from paise2nb.app import App
from paise2nb.jobs.models import Claim, NewJob, Outcome
from paise2nb.jobs.store import JobStore
from tests.job_stores import end_and_claim

PLUGIN = """
import time
from paise2nb import task

@task("noop")
def noop(context, number):
    return None

@task("brief", threads=True)
def brief(context, number):
    return None

@task("stamp")
def stamp(context, number):
    return time.time()
"""
HUEY_CONSUMER = """
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


class Workspace:
    """New directories, and a plugin with tasks that do nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plugin = root / "noop.py"
        self.plugin.write_text(PLUGIN)

    def new_directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root))

    def app(self, directory: Path, **settings: Any) -> App:
        values = {"plugins": [str(self.plugin)], "workers.pools": {"fetch": None}}
        values |= {key.replace("__", "."): value for key, value in settings.items()}
        return paise2nb.open("development", directory, values)

    def as_installed(self) -> App:
        return paise2nb.open("production", self.new_directory(), {"plugins": [str(self.plugin)]})


def rate(number: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return number / (time.perf_counter() - began)


def raw_huey(workspace: Workspace) -> tuple[SqliteHuey, Callable[[int], object]]:
    huey = SqliteHuey("bench", filename=str(workspace.new_directory() / "huey.db"))

    def noop(number: int) -> None:
        return None

    noop.__module__ = "__main__"  # so that the processes of `HUEY_CONSUMER` know it
    return huey, huey.task()(noop)


def each(function: Callable[[int], object], number: int) -> None:
    for n in range(number):
        function(n)


# Enqueueing ----------------------------------------------------------------------------------


def enqueue_raw(workspace: Workspace, number: int) -> float:
    _, noop = raw_huey(workspace)
    return rate(number, lambda: each(noop, number))


def enqueue_ours(workspace: Workspace, number: int) -> float:
    with workspace.app(workspace.new_directory()) as app:
        return rate(number, lambda: each(lambda n: app.enqueue("noop", n), number))


def enqueue_many(workspace: Workspace, number: int) -> float:
    with workspace.app(workspace.new_directory()) as app:
        return rate(number, lambda: app.enqueue_many("noop", range(number)))


def insert_bare(workspace: Workspace, number: int, together: int) -> float:
    """The least that an enqueue costs: the same rows in the same job_store, by SQLite alone.

    It checks no arguments, looks for no duplicates, takes no file lock and wakes no worker.
    """
    directory = workspace.new_directory()
    with workspace.app(directory) as app:
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


def drain_raw(workspace: Workspace, number: int, processes: int, threads: int) -> float:
    huey, noop = raw_huey(workspace)
    each(noop, number)
    return _drain(number, [HUEY_CONSUMER, huey.storage.filename, str(threads)], processes)


def _drain(number: int, arguments: list[str], processes: int) -> float:
    """Jobs per second, from the start signal until every process has seen the end."""
    command = [sys.executable, "-c", *arguments]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    _expect(children, "ready")
    began = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    _expect(children, "done")
    result = number / (time.perf_counter() - began)
    for child in children:
        child.communicate()
    return result


def _expect(children: list[subprocess.Popen[str]], word: str) -> None:
    for child in children:
        assert child.stdout is not None
        line = child.stdout.readline()
        if line != f"{word}\n":
            raise RuntimeError(f"a process printed {line!r} instead of {word!r}")


JOB_CONSUMER = """
import logging, sys, time
logging.disable(logging.CRITICAL)
from paise2nb.app import App
from paise2nb.config.settings import Settings
app = App(Settings.from_json(sys.argv[1]), is_worker=True)
job_store = app.queue.job_store
worker = job_store.register("default", int(sys.argv[2]))
app.queue.work_for(worker)
consumer = app.queue.create_consumer(workers=int(sys.argv[2]), periodic=False)
print("ready", flush=True)
sys.stdin.readline()
consumer.start()
while job_store.busy():
    time.sleep(0.002)
app.queue.claims.stop()
consumer.stop(graceful=True)
print("done", flush=True)
"""


def drain_ours(workspace: Workspace, number: int, processes: int, threads: int) -> float:
    directory = workspace.new_directory()
    with workspace.app(directory) as app:
        app.enqueue_many("noop", range(number))
        settings = app.settings.to_json()
    return _drain(number, [JOB_CONSUMER, settings, str(threads)], processes)


def drain_as_installed(workspace: Workspace, number: int, task: str) -> float:
    """Jobs per second, from the moment when all workers may begin."""
    with workspace.as_installed() as app:
        app.enqueue_many(task, range(number))
        app.pause()
        app.workers.start()
        began = app.queue.job_store.now()
        app.resume()
        app.wait()
        [row] = app.queue.job_store.database.read("SELECT max(finished_at) FROM jobs")
        app.workers.stop()
    return number / (row[0] - began)


# Idle workers --------------------------------------------------------------------------------


class Idle(NamedTuple):
    """What idle workers cost.

    Attributes:
        waits: Milliseconds until a job starts.
        worker: Per cent of a core that a worker uses.
        supervisor: The same of the supervisor.
        memory: MB of a worker.
        spawn: Seconds from the start of the workers to the first job's.
    """

    waits: list[float]
    worker: float
    supervisor: float
    memory: float
    spawn: float


def pickup(workspace: Workspace, idle: float, rounds: int) -> Idle:
    """Measure idle workers of the production profile."""
    with workspace.as_installed() as app:
        app.enqueue("stamp", -1)
        began = time.time()
        app.workers.start()
        spawn = app.job(1).result(timeout=60) - began
        status = app.workers.status()
        workers = [row["pid"] for row in status.workers if row["pool"] == "default"]
        assert status.supervisor is not None
        memory = _memory(workers[0])
        waits = []
        for number in range(rounds):
            time.sleep(0.5)
            sent = time.time()
            waits.append((app.enqueue("stamp", number).result(timeout=60) - sent) * 1000)
        shares = []
        before, at = {pid: _cpu(pid) for pid in workers}, time.monotonic()
        supervisor = status.supervisor["pid"]
        before[supervisor] = _cpu(supervisor)
        time.sleep(idle)
        seconds = time.monotonic() - at
        shares = [(_cpu(pid) - began) / seconds * 100 for pid, began in before.items()]
        app.workers.stop()
    return Idle(waits, statistics.median(shares[:-1]), shares[-1], memory, spawn)


def _cpu(pid: int) -> float:
    """The processor time of a process in seconds, by the scheduler: ticks are too coarse."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def status_in_a_shell(directory: Path) -> list[float]:
    """Milliseconds of ``paise2 status``, as a process, beside no workers."""
    command = [sys.executable, "-m", "paise2nb", "status", "--data-dir", str(directory)]
    times = _times(lambda _: subprocess.run(command, capture_output=True, check=True), 6)
    return [microseconds / 1000 for microseconds in times[1:]]  # the first one creates the files


def _memory(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1000


# A long history ------------------------------------------------------------------------------


def finished(app: App, number: int) -> None:
    """Fill the job store with finished jobs, in the usual way."""
    # Not durable: that would take ten times as long.
    job_store = JobStore(app.queue.job_store.path, durable=False)
    jobs = [NewJob("noop", f"[{n}]", 4, key=n + 10**9) for n in range(number)]
    for start in range(0, number, 50_000):
        job_store.add(jobs[start : start + 50_000])
    worker = job_store.register("default", 1, "ready")
    limits = app.parts.limits("default")
    claim: Claim | None = job_store.claim(worker, limits)
    while claim is not None:
        _, claim = end_and_claim(
            job_store, claim, Outcome("completed", "completed", "null"), worker, limits
        )
    job_store.leave(worker)
    job_store.close()


def with_history(workspace: Workspace, number: int) -> dict[str, list[float]]:
    """Microseconds of claim, enqueue and status, with and without many finished jobs.

    Measured alternately, job by job, so that other disk writes affect both alike.
    """
    figures: dict[str, list[float]] = {}
    with (
        workspace.app(workspace.new_directory()) as empty,
        workspace.app(workspace.new_directory()) as full,
    ):
        finished(full, number)
        os.sync()
        apps = {"empty": empty, "full": full}
        claimants = {
            name: (app.queue.job_store.register("default", 1, "ready"), app.parts.limits("default"))
            for name, app in apps.items()
        }
        actions: dict[str, Callable[[str, App, int], object]] = {
            "enqueue": lambda name, app, n: app.enqueue("noop", n),
            "claim": lambda name, app, n: app.queue.job_store.claim(*claimants[name]),
            "status": lambda name, app, n: app.status(),
        }
        for kind, times in (("enqueue", 500), ("claim", 400), ("status", 50)):
            for n in range(times):
                for name, app in apps.items():
                    took = _times(lambda _, action=actions[kind], a=(name, app, n): action(*a), 1)
                    figures.setdefault(f"{kind} {name}", []).extend(took)
    return figures


def with_waiting_jobs(workspace: Workspace, number: int) -> dict[str, list[float]]:
    """Microseconds of claim and status, with and without many waiting jobs of one slow host."""
    figures: dict[str, list[float]] = {}
    for name, size in (("none", 0), ("many", number)):
        with workspace.app(workspace.new_directory()) as app:
            job_store = app.queue.job_store
            job_store.host_delay = 1000.0
            job_store.add([NewJob("noop", f"[{n}]", 4, host="slow") for n in range(size)])
            app.enqueue_many("noop", range(500))
            worker, limits = job_store.register("default", 1, "ready"), app.parts.limits("default")
            figures[f"claim {name}"] = _times(
                lambda n, t=job_store, w=worker, of=limits: t.claim(w, of), 400
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


# The results ---------------------------------------------------------------------------------


def compare(name: str, raw: Iterable[float], ours: Iterable[float], goal: str) -> None:
    a, b = statistics.median(raw), statistics.median(ours)
    print(f"| {name} | {a:,.0f}/s | {b:,.0f}/s | {b / a:.2f}× | {goal} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--number", type=int, default=3000)
    parser.add_argument("--idle", type=float, default=60, help="seconds of idle waiting")
    parser.add_argument("--history", type=int, default=1_000_000, help="finished jobs; 0: skip")
    parser.add_argument(
        "--waiting", type=int, default=100_000, help="waiting jobs of one slow host"
    )
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        workspace = Workspace(Path(root))
        measure(workspace, arguments)


def measure(workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Print each line of the job_store."""
    number, rounds = arguments.number, range(arguments.rounds)
    print("| | plain SqliteHuey | paise2nb | ratio | goal |\n|---|---|---|---|---|")
    rates = [
        (
            enqueue_raw(workspace, number),
            enqueue_ours(workspace, number),
            insert_bare(workspace, number, 1),
            enqueue_many(workspace, 20_000),
            insert_bare(workspace, 20_000, 20_000),
        )
        for _ in rounds
    ]
    raw, ours, bare, bulk, bare_bulk = zip(*rates, strict=True)
    compare("enqueue, one by one", raw, ours, "≥ 0.9×")
    compare("its minimum: INSERT alone", raw, bare, "")
    compare("enqueue_many of 20,000", raw, bulk, "≥ 30×")
    compare("its minimum: INSERT alone", raw, bare_bulk, "")
    for processes, threads in ((1, 4), (2, 2)):
        drains = [
            (
                drain_raw(workspace, number, processes, threads),
                drain_ours(workspace, number, processes, threads),
            )
            for _ in rounds
        ]
        name = f"drain, {processes} × {threads} threads"
        compare(name, [d[0] for d in drains], [d[1] for d in drains], "≥ 2×")
    as_installed(workspace, number, rounds)
    idle = pickup(workspace, arguments.idle, 20)
    p50, worst = statistics.median(idle.waits), max(idle.waits)
    print(f"| pickup after a pause | | p50 {p50:.1f} ms, max {worst:.1f} ms | | ≤ 1.5, ≤ 50 ms |")
    print(f"| idle CPU of a worker | | {idle.worker:.2f} % | | ≤ 0.15 % |")
    print(f"| idle CPU of the supervisor | | {idle.supervisor:.2f} % | | ≤ 0.2 % |")
    print(f"| memory of a worker | | {idle.memory:.0f} MB | | ≤ 60 MB |")
    print(f"| start of workers to first job | | {idle.spawn:.2f} s | | ≤ 0.45 s |")
    shell = statistics.median(status_in_a_shell(workspace.new_directory()))
    print(f"| paise2 status in a shell | | {shell:.0f} ms | | ≤ 150 ms |")
    figures = {
        k: statistics.median(v) for k, v in with_waiting_jobs(workspace, arguments.waiting).items()
    }
    for name, goal in (("claim", "≤ 1.2×"), ("status", "")):
        a, b = figures[f"{name} none"], figures[f"{name} many"]
        print(
            f"| {name} beside {arguments.waiting:,} waiting jobs of one slow host | | {b:,.0f} µs"
            f" (none: {a:,.0f} µs) | {b / a:.2f}× | {goal} |"
        )
    if arguments.history:
        figures = {
            k: statistics.median(v) for k, v in with_history(workspace, arguments.history).items()
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


def as_installed(workspace: Workspace, number: int, rounds: Iterable[int]) -> None:
    """Print the drains of what a user gets, beside plain Huey of as many processes or threads."""
    drains = [
        (
            drain_raw(workspace, number, 1, 4),
            drain_raw(workspace, number, 4, 1),
            drain_as_installed(workspace, number, "noop"),
            drain_as_installed(workspace, number, "brief"),
        )
        for _ in rounds
    ]
    threads, processes, alone, brief = zip(*drains, strict=True)
    for peer, raw in (("4 threads", threads), ("4 processes", processes)):
        compare(f"drain as installed, beside {peer}", raw, alone, "≥ 1.8×")
        compare(f"with threads=True, beside {peer}", raw, brief, "≥ 2.5×")


if __name__ == "__main__":
    main()
