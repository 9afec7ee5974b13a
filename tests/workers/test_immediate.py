"""Immediate mode: jobs run in the process that enqueues or waits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from paise2nb.app import App
from paise2nb.core.errors import WorkersError
from tests.workers.plugin import PLUGIN as PLUGIN  # for the fixture `make`
from tests.workers.plugin import outcomes

Make = Callable[..., App]


def test_a_job_has_run_when_enqueue_returns(app: App) -> None:
    job = app.enqueue("echo", "hello")
    assert (job.state, job.result()) == ("completed", "hello")


def test_retries_are_waited_for(app: App) -> None:
    job = app.enqueue("flaky", 2)
    assert job.result() == "done"
    assert outcomes(app, job.id) == ["failed", "failed", "completed"]


def test_follow_ups_run_after_their_parent_has_completed(app: App) -> None:
    job = app.enqueue("parent", "a", "b", tag="news", priority=3)
    assert [child.result() for child in job.children] == ["a", "b"]
    assert {(c.tag, c.parent_id, c.root_id) for c in job.children} == {("news", job.id, job.id)}
    assert app.queue.job_store.rows([2])[2]["priority"] == 3


def test_a_failed_job_adds_no_follow_up_jobs(app: App) -> None:
    job = app.enqueue("half", "x")
    assert (job.state, len(job.children)) == ("failed", 0)


def test_a_task_knows_its_job(app: App) -> None:
    job = app.enqueue("describe", tag="news")
    assert job.result() == [job.id, "describe", "[]", "news", 1, None, job.id]


def test_a_coroutine_is_run(app: App) -> None:
    assert app.enqueue("later", "soon").result() == "noos"


def test_progress_is_stored_while_a_job_runs(app: App) -> None:
    job = app.enqueue("steps", 3)
    assert json.loads(app.queue.job_store.rows([job.id])[job.id]["progress"]) == [3, 3]


def test_an_immediate_process_is_not_listed_as_a_worker(app: App) -> None:
    app.enqueue("echo", "x")
    assert app.status().workers == []
    assert not app.workers.present()


def test_a_delayed_job_waits_and_a_wait_runs_it_when_it_is_due(app: App) -> None:
    later = app.enqueue("echo", "much later", delay=3600)
    assert later.state == "scheduled"
    app.wait()
    assert later.state == "scheduled"
    soon = app.enqueue("echo", "soon", delay=0.01)
    assert soon.result() == "soon"
    assert later.state == "scheduled"


def test_an_interrupted_job_is_queued_again_and_the_same_cell_runs_it(app: App) -> None:
    with pytest.raises(KeyboardInterrupt):
        app.enqueue("interrupted", "x")
    [job] = app.jobs()
    assert (job.state, job.attempt, outcomes(app, job.id)) == ("queued", 0, ["released"])
    again = app.enqueue("interrupted", "x")
    assert (again.id, again.state, again.result()) == (job.id, "completed", "x")


def test_a_wait_runs_a_follow_up_job_that_was_interrupted(app: App) -> None:
    with pytest.raises(KeyboardInterrupt):
        app.enqueue("chain", "x")
    parent, child = app.jobs(all=True)
    assert (parent.state, child.state) == ("completed", "queued")
    app.wait()
    assert child.result() == "x"


def test_interrupts_at_random_moments_leave_no_job_running(app: App) -> None:
    armed = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        # An interrupt within the logging module may leave its lock held, for all tests that follow.
        # One within Hypothesis' callback of the garbage collector is lost, with a warning.
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith(("logging", "hypothesis.")):
                return
            frame = frame.f_back
        if armed:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(40):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 1e-4 * (number + 1))
                app.enqueue("parent", "a", str(number))
            except KeyboardInterrupt:
                pass
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    app.wait()
    counts = app.status().jobs
    assert counts["completed"] == sum(counts.values())


def test_a_job_may_enqueue_another_and_itself_without_waiting_for_itself(app: App) -> None:
    assert app.enqueue("nested", "x").result() == ["completed", "running"]


def test_a_retried_job_runs_immediately(app: App) -> None:
    job = app.enqueue("hopeless", "x")
    assert [j.id for j in job.retry()] == [job.id]
    assert outcomes(app, job.id) == ["failed"] * 6


def test_an_immediate_wait_runs_jobs_that_waited_for_workers(waiting: App, make: Make) -> None:
    jobs = waiting.enqueue_many("echo", ["a", "b"])
    with pytest.raises(WorkersError, match="2 jobs wait and no worker runs; start some"):
        waiting.wait()
    make("development", task_queue__sqlite__immediate=True).wait()
    assert [job.result() for job in jobs] == ["a", "b"]


def test_a_job_that_killed_an_immediate_process_is_charged_when_the_next_one_runs_a_job(
    make: Make, tmp_path: Path
) -> None:
    script = (
        "import paise2nb, sys; paise2nb.open('test', data_dir=sys.argv[1],"
        " settings={'plugins': [sys.argv[2]]}).enqueue('die')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data"), str(tmp_path / "extra.py")]
    assert subprocess.run(command, check=False).returncode == 9
    [job] = make("development").jobs()
    assert job.state == "running"  # reading changes nothing
    make("development", task_queue__sqlite__immediate=True).enqueue("echo", "x")
    assert (job.state, job.error_class, outcomes(make("development"), job.id)) == (
        "retrying", "crash", ["crashed"],
    )  # fmt: skip


def test_the_provider_none_is_immediate_and_starts_no_workers(make: Make) -> None:
    app = make("development", task_queue__provider="none")
    assert app.immediate
    assert app.enqueue("echo", "x").result() == "x"
    with pytest.raises(WorkersError, match=r"task_queue\.provider is none"):
        app.workers.start()


def test_the_work_for_each_job_of_a_large_tree_does_not_grow_with_the_tree(app: App) -> None:
    steps = [0]

    def count() -> None:
        steps[0] += 1

    app.queue.job_store.database._connection(None).set_progress_handler(count, 10)
    work = []
    for number in (20, 400):
        before = steps[0]
        job = app.enqueue("parent", *(str(n) for n in range(number)))
        assert len(job.children) == number
        work.append((steps[0] - before) / number)
    assert work[1] < 2 * work[0]
