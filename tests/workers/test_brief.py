"""Jobs of tasks with ``threads=True``: claimed together, several at once in one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from paise2nb.app import App
from paise2nb.core.errors import PluginError
from paise2nb.plugins import Task
from paise2nb.workers import claims as module
from tests import example_plugin
from tests.waiting import until
from tests.workers.plugin import outcomes
from tests.workers.test_queue import take, worker_of
from tests.workers.test_workers import make as make_workers

PLUGIN = (
    example_plugin.SOURCE
    + '''
import os

def meet(context, number, which):
    """Wait until as many jobs run at once."""
    path = context.data_dir / f"here {context.job.id}"
    path.touch()
    while len(list(context.data_dir.glob("here *"))) < number:
        time.sleep(0.001)
    return os.getpid()

task("brief_meet", threads=True)(meet)

@task("brief", threads=True)
def brief(context, word):
    return word

@task("brief_hold", threads=True)
def brief_hold(context, path, which=0):
    while not Path(path).exists():
        time.sleep(0.01)

@task("brief_die", threads=True)
def brief_die(context, path):
    brief_hold(context, path)
    os._exit(9)

@task("brief_stuck", threads=True, timeout=1, max_retries=0)
def brief_stuck(context, word):
    if word == "long":
        sum(range(10**12))  # in C code, which lets no other thread run

@task("lonely")
def lonely(context, word):
    """Return whether other jobs have run in this process meanwhile."""
    seen = set()
    for _ in range(50):
        rows = context.job_store.claimed()
        seen |= {row["id"] for row in rows if row["worker"] == context.job.worker}
        time.sleep(0.002)
    return len(seen)
'''
)


__all__ = ["make_workers"]


def test_jobs_of_a_brief_task_run_at_once_in_one_process(working: App) -> None:
    jobs = working.enqueue_many("brief_meet", [(4, n) for n in range(8)])
    working.workers.start()
    assert len({job.result(timeout=60) for job in jobs}) == 1


def test_a_job_of_another_task_still_runs_alone_and_is_not_kept_waiting(working: App) -> None:
    jobs = [working.enqueue(name, n) for n in range(40) for name in ("brief", "lonely")]
    working.workers.start()
    working.wait(timeout=60)
    assert [job.result() for job in jobs] == [v for n in range(40) for v in (n, 1)]


def test_a_crashing_job_is_found_and_those_beside_it_are_not_charged(
    working: App, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    beside = working.enqueue_many("brief_hold", [(str(gate), n) for n in range(3)])
    guilty = working.enqueue("brief_die", str(gate))
    working.workers.start()
    until(lambda: working.status().jobs["running"] == 4)
    gate.touch()
    working.wait(timeout=60)
    assert [name for name in outcomes(working, guilty.id) if name != "released"] == ["crashed"] * 2
    for job in beside:
        assert (job.state, job.attempt) == ("completed", 1)


def test_a_job_that_stops_its_process_is_found_among_those_claimed_with_it(working: App) -> None:
    before = working.enqueue_many("brief", range(200))
    stuck = working.enqueue("brief_stuck", "long")
    after = working.enqueue_many("brief_stuck", range(40))
    working.workers.start()
    working.wait(timeout=60)
    assert stuck.state == "failed"
    assert {name for name in outcomes(working, stuck.id) if name != "released"} == {"timeout"}
    assert {(job.state, job.attempt) for job in [*before, *after]} == {("completed", 1)}


def run_until_several_are_claimed(waiting: App) -> None:
    worker_of(waiting)
    while len(waiting.queue.job_store.claimed()) < 4:
        waiting.queue.execute(take(waiting.queue))


def test_several_are_claimed_at_once_and_end_at_once(waiting: App) -> None:
    waiting.enqueue_many("brief", range(200))
    run_until_several_are_claimed(waiting)
    claimed = waiting.queue.job_store.claimed()
    assert len({job["started_at"] for job in claimed}) == 1
    while waiting.queue.job_store.busy():
        waiting.queue.execute(take(waiting.queue))
    assert [job.result() for job in waiting.jobs()] == list(range(200))
    assert {job.attempt for job in waiting.jobs()} == {1}


def test_claimed_jobs_that_have_not_started_are_released_by_a_drain(waiting: App) -> None:
    jobs = waiting.enqueue_many("brief", range(200))
    run_until_several_are_claimed(waiting)
    waiting.queue.claims.stop()
    assert waiting.queue.dequeue() is None
    waiting.queue.claims.release_ahead()
    assert {(job.state, job.attempt) for job in jobs} == {("completed", 1), ("queued", 0)}
    assert [job.attempt for job in jobs] == sorted((job.attempt for job in jobs), reverse=True)


def test_a_claimed_job_that_is_cancelled_is_not_started(waiting: App) -> None:
    waiting.enqueue_many("brief", range(200))
    run_until_several_are_claimed(waiting)
    cancelled = [job["id"] for job in waiting.queue.job_store.claimed()][1:]
    waiting.jobs(*cancelled).cancel()
    until(lambda: waiting.queue.claims.age > module.RECHECK_SECONDS)
    started = []
    while waiting.queue.job_store.busy():
        task = take(waiting.queue)
        started.append(task.claim.id)
        waiting.queue.execute(task)
    assert not set(started) & set(cancelled)
    assert {job.state for job in waiting.jobs(*cancelled)} == {"cancelled"}
    assert waiting.queue.job_store.claimed() == [], "the worker has left them"


def test_jobs_claimed_with_a_long_one_are_run_by_others(working: App, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    holds = working.enqueue_many("brief_hold", [(str(gate), n) for n in range(4)])
    jobs = working.enqueue_many("brief", range(20))
    working.workers.start()
    until(lambda: {job.state for job in holds} == {"running"})
    working.workers.start(concurrency=2)
    assert [job.result(timeout=60) for job in jobs] == list(range(20))
    assert {job.state for job in holds} == {"running"}
    gate.touch()


def test_a_killed_process_charges_none_of_its_jobs(working: App, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    jobs = working.enqueue_many("brief_hold", [(str(gate), n) for n in range(4)])
    working.workers.start()
    until(lambda: {job.state for job in jobs} == {"running"})
    os.kill(jobs[0].worker_pid, signal.SIGKILL)
    until(lambda: jobs[0].attempts)
    gate.touch()
    working.wait(timeout=60)
    assert {(job.state, job.attempt) for job in jobs} == {("completed", 1)}


def test_threads_is_true_or_false() -> None:
    with pytest.raises(PluginError, match="threads is 3; give True or False"):
        Task("a", print, threads=3)  # type: ignore[arg-type]  # what a user may write
