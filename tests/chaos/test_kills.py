"""Workers and supervisors are killed at any moment: no job is lost or stored twice."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from paise2nb.app import App
from paise2nb.core import processes as process
from tests.chaos.environment import Environment, Standstill
from tests.chaos.scenarios import Scale, scenario
from tests.waiting import until


def trees(environment: Environment, jobs: int, seconds: float) -> set[str]:
    """Enqueue jobs for processes and threads, each with a follow-up job; returns the effects."""
    roots = set()
    for number, task in enumerate(("tree", "threaded", "brief")):
        keys = [f"{task} {n}" for n in range(number, jobs // 2, 3)]
        # The brief ones fast enough to be claimed together.
        environment.app.enqueue_many(task, [(key, seconds * (task != "brief")) for key in keys])
        roots |= {*keys}
    return roots | {f"{key}/leaf" for key in roots}


def kill_workers(
    environment: Environment,
    number: int,
    jobs: float,
    goes_on: Callable[[int], bool],
    check: Callable[[], object] = lambda: None,
) -> Standstill:
    """Kill that many workers at random moments, evenly while that many jobs complete.

    Args:
        goes_on: Called with the completed jobs.
        check: Called after each kill.
    """
    kills, standstill = 0, Standstill(environment)
    while goes_on(completed := standstill.update()):
        victims = environment.workers()
        if kills <= min(completed * number / jobs, number - 1) and victims:
            time.sleep(environment.random.uniform(0, 0.02))
            kills += process.send(environment.random.choice(victims)["process"], signal.SIGKILL)
            check()
        time.sleep(0.002)
        assert standstill.longest < 5 * environment.tolerance, "no progress"
    environment.figures["kills"] = kills
    # On a busy machine the last jobs may complete before the last kills come.
    assert kills >= number / environment.tolerance
    return standstill


def start_together(app: App) -> None:
    """Start workers that begin when all are ready, and not while others start."""
    app.pause()
    app.workers.start()
    app.resume()


@scenario(
    1,
    "random workers killed",
    short={"kills": 14, "jobs": 140},
    full={"kills": 1000, "jobs": 6000},
    seeds=3,
)
def test_killed_workers_lose_no_job_and_store_each_effect_once(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    expected = trees(environment, int(scale["jobs"]), 0.01)
    start_together(app)
    standstill = kill_workers(
        environment, int(scale["kills"]), 0.6 * len(expected), lambda n: n < len(expected)
    )
    app.wait(timeout=60)
    environment.check_all_done(expected)
    environment.within(standstill.longest, 5, "longest standstill")


@scenario(
    1,
    "workers killed while they store pages",
    short={"kills": 6, "pages": 60},
    full={"kills": 300, "pages": 6000},
    seeds=3,
)
def test_pages_are_counted_and_stored_once_though_workers_are_killed(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    pages = int(scale["pages"])
    files = environment.root / "files"
    files.mkdir()
    for number in range(pages):
        (files / f"{number}.txt").write_text(f"The text of file {number}.")
    app.enqueue("folder", str(files))
    start_together(app)
    busy = environment.job_store.busy
    kill_workers(
        environment,
        int(scale["kills"]),
        2.7 * pages,
        lambda n: bool(busy()),
        environment.check_counts,
    )
    environment.figures["pages"] = pages
    environment.check()
    counts = environment.job_store.page_counts()
    assert {state: number for state, number in counts.items() if number} == {"stored": pages}
    urls = {item["url"] for item in app.items().to_dicts()}
    assert len(urls) == app.status().items == pages


@scenario(
    2,
    "supervisor and workers killed together",
    short={"kills": 3, "jobs": 60},
    full={"kills": 200, "jobs": 3000},
    seeds=3,
)
def test_workers_start_again_after_all_were_killed_with_their_supervisor(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    expected = trees(environment, int(scale["jobs"]), 0.01)
    starts = []
    for kill in range(int(scale["kills"])):
        began = time.monotonic()
        found = app.workers.start()
        starts.append(time.monotonic() - began)
        assert found.problem is None
        assert environment.ready_pools() == {"default": 2, "fetch": 1, "many": 1}
        # Workers of the killed supervisor may still be draining.
        assert "failed" not in {worker["state"] for worker in found.workers}
        goal = len(expected) * kill / scale["kills"]
        until(lambda goal=goal: app.status().jobs["completed"] >= goal)
        time.sleep(environment.random.uniform(0, 0.05))  # a random moment
        environment.kill_all()
    app.workers.start()
    app.wait(timeout=300)
    environment.check_all_done(expected)
    environment.within(max(starts), 5, "slowest restart")


@scenario(
    4,
    "workers killed while scheduled jobs come due",
    short={"jobs": 300, "kills": 4},
    full={"jobs": 3000, "kills": 40},
    seeds=3,
)
def test_scheduled_jobs_run_though_workers_are_killed_as_they_come_due(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start()
    keys = [str(number) for number in range(int(scale["jobs"]))]
    app.enqueue_many("effect", keys[::2], delay=0.5)
    app.enqueue_many("effect", keys[1::2], delay=0.7)
    kills = 0
    while (completed := app.status().jobs["completed"]) < len(keys):
        victims = environment.workers(ready=True)
        if kills <= completed * scale["kills"] / len(keys) and victims and kills < scale["kills"]:
            due = environment.job_store.next_time()
            if kills or due is None or due <= environment.job_store.now() + 0.005:
                environment.random.shuffle(victims)
                for victim in victims[:2]:
                    process.send(victim["process"], signal.SIGKILL)
                kills += 1
        time.sleep(0.001)
    environment.figures["kills"] = kills
    app.wait(timeout=60)
    environment.check_all_done(set(keys))
    assert environment.rows("SELECT count(*) FROM jobs")[0][0] == len(keys)


@scenario(6, "one worker killed", short={"kills": 8}, full={"kills": 100})
def test_the_job_of_a_killed_worker_is_rescued_at_once_and_no_other_changes(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=3)
    steady = app.enqueue("hold", "steady", str(environment.root / "never"))
    until(lambda: steady.state == "running")
    times = []
    for kill in range(int(scale["kills"])):
        job = app.enqueue("hold", f"killed {kill}", str(environment.root / f"go {kill}"))
        until(lambda job=job: job.state == "running")
        pid = job.worker_pid
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda job=job: len(job.attempts) == 1, pause=0.001)
        times.append(time.monotonic() - began)
        Path(environment.root / f"go {kill}").touch()
        until(lambda job=job: job.state == "completed")
    assert (steady.state, steady.attempt, steady.attempts) == ("running", 1, [])
    (environment.root / "never").touch()
    app.wait(timeout=60)
    environment.check()
    ranked = sorted(times)
    environment.figures["rescue p50"] = f"{1000 * statistics.median(ranked):.0f} ms"
    environment.within(ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))], 1, "rescue p99")
