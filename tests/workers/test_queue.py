"""Huey on the job store: claims and outcomes, signals, and messages."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from huey.api import Task as HueyTask

from paise2nb.app import App
from paise2nb.core.errors import JobFailed, PermanentError, UsageError, WorkersError
from paise2nb.jobs import Worker
from paise2nb.workers.queue import IdleWaiter, JobHuey, JSONSerializer
from tests import example_plugin

PLUGIN = (
    example_plugin.SOURCE
    + '''
import os, signal
from huey.exceptions import RetryTask
from paise2nb import PermanentError, TransientError, hookimpl

def count(context, name):
    """Count the calls of a task in a file of the data directory."""
    path = context.data_dir / name
    number = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(number))
    return number

@task("who")
def who(context):
    job = context.job
    return [job.id, job.task, job.args, job.tag, job.attempt, job.parent_id, job.root_id]

@task("meet")
def meet(context, number, which):
    (context.data_dir / f"here {context.job.id}").touch()
    while len(list(context.data_dir.glob("here *"))) < number:
        time.sleep(0.001)

@task("flaky", max_retries=5)
def flaky(context, times):
    if count(context, "flaky") <= times:
        raise TransientError(f"not yet", "connection")
    return "done"

@task("hopeless", max_retries=2, retry_delay=0)
def hopeless(context, word):
    raise ValueError(word)

@task("permanent", max_retries=9)
def permanent(context, word):
    raise PermanentError(word, "gone")

@task("asks", max_retries=1, retry_delay=0)
def asks(context, *words):
    raise RetryTask(*words, delay=0)

@task("odd", max_retries=0)
def odd(context, kind):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")
    raise {
        "exit": SystemExit(3),
        "cancelled": asyncio.CancelledError(),
        "generator": GeneratorExit(),
        "surrogate": PermanentError("no file 'a\\udcffb'", "not_found"),
        "long": ValueError("x" * 5000),
        "lines": ValueError("one\\n  two\\tthree"),
        "mute": Mute(),
        "empty": KeyError(),
    }[kind]

@task("parent")
def parent(context, *words):
    for word in words:
        context.enqueue("echo", word)
    return len(words)

@task("half", max_retries=0)
def half(context, word):
    context.enqueue("echo", word)
    raise ValueError("after the follow-up")

@task("not_json")
def not_json(context, kind):
    context.enqueue("echo", "never")
    return {"object": object(), "nan": float("nan"), "bytes": b"x"}[kind]

@task("wrong_followup", max_retries=0)
def wrong_followup(context, name, *arguments):
    context.enqueue(name, *arguments)

@task("steps")
def steps(context, total):
    for done in range(total):
        context.progress(done + 1, total)

@task("interrupted")
def interrupted(context, word):
    if count(context, "interrupted") == 1:
        signal.raise_signal(signal.SIGINT)
    return word

@task("chain")
def chain(context, word):
    context.enqueue("interrupted", word)

@task("nested")
def nested(context, word):
    [app] = apps.opened_here
    return [app.enqueue("echo", word).state, app.enqueue("nested", word).state]

class Apps:
    opened_here = ()
    def opened(self, app):
        self.opened_here = (app,)
    def closed(self, app): pass

apps = Apps()

@hookimpl
def lifecycle_actions():
    return [apps]

@task("die")
def die(context):
    os._exit(9)
'''
)

Make = Callable[..., App]


@pytest.fixture
def app(make: Make) -> App:
    """Jobs run immediately, in this process."""
    return make()


@pytest.fixture
def waiting(make: Make) -> App:
    """Jobs wait until they are claimed."""
    return make("development", workers__retry__retry_delay=3600, workers__retry__max_delay=3600)


def worker_of(app: App, threads: int = 1) -> Worker:
    worker = app.queue.job_store.register("default", threads)
    app.queue.work_for(worker, app.limits())
    return worker


def take(huey: JobHuey) -> HueyTask:
    task = huey.dequeue()
    assert task is not None
    return task


def outcomes(app: App, job_id: int) -> list[str]:
    return [attempt["outcome"] for attempt in app.job(job_id).attempts]


# A worker's claims and outcomes --------------------------------------------------------------


def test_a_claimed_job_is_run_and_its_value_is_the_result(waiting: App) -> None:
    job = waiting.enqueue("echo", "hello")
    worker_of(waiting)
    task = take(waiting.queue)
    assert (job.state, job.attempt) == ("running", 1)
    waiting.queue.execute(task)
    assert (job.state, job.result(), outcomes(waiting, job.id)) == (
        "completed", "hello", ["completed"],
    )  # fmt: skip


def test_the_next_job_is_claimed_with_the_outcome(waiting: App) -> None:
    first, second = waiting.enqueue_many("echo", ["a", "b"])
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert [first.state, second.state] == ["completed", "running"]
    waiting.queue.execute(take(waiting.queue))
    assert second.result() == "b"


def test_a_draining_worker_claims_nothing_and_returns_jobs_that_it_has_not_begun(
    waiting: App,
) -> None:
    first, second = waiting.enqueue_many("echo", ["a", "b"])
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert second.state == "running"
    waiting.queue.stop_claiming()
    assert waiting.queue.dequeue() is None
    waiting.queue.release_next_claim()
    assert (first.state, second.state, second.attempt) == ("completed", "queued", 0)


def test_a_failed_job_with_attempts_left_has_a_time_and_a_traceback(waiting: App) -> None:
    job = waiting.enqueue("flaky", 1)
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert (job.state, job.error_class, job.error) == ("retrying", "connection", "not yet")
    assert (job.attempt, job.max_attempts) == (1, 6)
    assert job.run_at is not None
    [attempt] = job.attempts
    assert 3600 <= attempt["retry_in"] <= 3600 * 1.1
    assert "in flaky" in attempt["traceback"]
    assert "queue.py" not in attempt["traceback"], "frames of the queue are left out"


def test_the_outcome_of_a_cancelled_job_is_refused(waiting: App) -> None:
    job = waiting.enqueue("parent", "a", "b")
    worker_of(waiting)
    task = take(waiting.queue)
    job.cancel()
    waiting.queue.execute(task)
    assert (job.state, len(job.children), outcomes(waiting, job.id)) == (
        "cancelled", 0, ["cancelled"],
    )  # fmt: skip


def test_an_outcome_that_can_not_be_written_is_kept_and_written_first(waiting: App) -> None:
    first, second = waiting.enqueue_many("echo", ["a", "b"])
    worker_of(waiting)
    task = take(waiting.queue)
    database = waiting.queue.job_store.database
    database.connection().execute("PRAGMA busy_timeout=0")
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting.queue.execute(task)
    assert first.state == "running"
    other.execute("ROLLBACK")
    other.close()
    next_claim = take(waiting.queue)
    assert (first.state, first.result(), next_claim.claim.id) == ("completed", "a", second.id)


def test_a_job_that_can_not_be_decoded_fails_and_is_kept(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    table = waiting.queue.job_store
    table.database.write(lambda c: c.execute("UPDATE jobs SET args = '{broken'"))
    worker_of(waiting)
    assert waiting.queue.dequeue() is None
    assert (job.state, job.error_class, job.args) == ("failed", "undecodable", ["{broken"])
    assert "{broken" in str(job)
    assert json.dumps(job.to_dict())


def test_a_job_of_an_unknown_task_waits(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    waiting.queue.job_store.database.write(lambda c: c.execute("UPDATE jobs SET task = 'gone'"))
    worker_of(waiting)
    waiting.queue.stop_claiming()
    assert not waiting.queue.job_store.claimable(list(waiting.limits()))
    assert job.state == "queued"


def work_with(app: App, number: int) -> None:
    """Run all jobs on that many threads."""
    worker_of(app, threads=number)

    def work() -> None:
        while app.queue.job_store.busy():
            task = app.queue.dequeue()
            if task is not None:
                app.queue.execute(task)
        app.queue.stop_claiming()  # wakes the other threads

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_share_one_huey(waiting: App) -> None:
    words = [f"word {n}" for n in range(40)]
    jobs = waiting.enqueue_many("echo", words)
    work_with(waiting, 4)
    assert [job.result() for job in jobs] == words


def test_long_jobs_run_on_all_threads_at_once_beside_short_jobs(waiting: App) -> None:
    brief = waiting.enqueue_many("echo", [str(n) for n in range(40)], priority=1)
    long = waiting.enqueue_many("meet", [(8, n) for n in range(8)])
    work_with(waiting, 8)
    assert {job.state for job in [*brief, *long]} == {"completed"}


def test_a_wakeup_between_the_last_claim_and_the_wait_is_not_missed() -> None:
    idle_waiter = IdleWaiter()
    calls = idle_waiter.calls
    idle_waiter.end_one()
    napping = threading.Thread(target=idle_waiter.wait, args=(60, calls), daemon=True)
    napping.start()
    napping.join(timeout=30)
    assert not napping.is_alive()


def test_signals_are_sent_for_each_event(waiting: App) -> None:
    seen: list[tuple[str, str]] = []

    def listen(signal: str, task: HueyTask, *arguments: Any) -> None:
        seen.append((signal, task.name))

    waiting.queue.signal()(listen)
    worker_of(waiting)
    for name, argument in (("echo", "x"), ("flaky", 1), ("permanent", "x")):
        waiting.enqueue(name, argument)
        waiting.queue.execute(take(waiting.queue))
    assert seen == [
        ("executing", "echo"), ("complete", "echo"),
        ("executing", "flaky"), ("retrying", "flaky"),
        ("executing", "permanent"), ("error", "permanent"),
    ]  # fmt: skip


def test_a_listener_that_raises_loses_no_job(waiting: App) -> None:
    def listen(*arguments: Any) -> None:
        raise RuntimeError("an error of the listener")

    waiting.queue.signal()(listen)
    job = waiting.enqueue("echo", "x")
    worker_of(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert job.result() == "x"


def test_the_storage_counts_jobs_and_has_no_schedule(waiting: App) -> None:
    waiting.enqueue("echo", "a")
    waiting.enqueue("echo", "b", delay=3600)
    assert len(waiting.queue) == 1
    assert waiting.queue.storage.schedule_size() == 1
    assert waiting.queue.read_schedule() == []


def test_messages_are_json_and_never_run_code() -> None:
    serializer = JSONSerializer()
    assert serializer.deserialize(serializer.serialize({"a": [1, "ü"]})) == {"a": [1, "ü"]}
    with pytest.raises(ValueError, match="Expecting value"):
        serializer.deserialize(b"cos\nsystem\n(S'true'\ntR.")


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "word", "text"),
    [
        ("exit", "SystemExit", "SystemExit: 3"),
        ("cancelled", "CancelledError", "CancelledError"),
        ("generator", "GeneratorExit", "GeneratorExit"),
        ("surrogate", "not_found", "no file 'a\\udcffb'"),
        ("lines", "ValueError", "ValueError: one two three"),
        ("mute", "Mute", "Mute: (no message)"),
        ("empty", "KeyError", "KeyError"),
    ],
)
def test_every_exception_of_a_task_is_stored(app: App, kind: str, word: str, text: str) -> None:
    job = app.enqueue("odd", kind)
    assert (job.state, job.error_class, job.error) == ("failed", word, text)
    assert "in odd" in job.attempts[0]["traceback"]
    assert app.queue.job_store.claimed() == []


def test_a_long_error_is_cut_and_its_traceback_is_complete(app: App) -> None:
    job = app.enqueue("odd", "long")
    assert len(job.error) == 1000
    assert "x" * 5000 in job.attempts[0]["traceback"]


def test_a_permanent_error_is_not_retried(app: App) -> None:
    job = app.enqueue("permanent", "nothing there")
    assert (job.state, job.error, job.error_class) == ("failed", "nothing there", "gone")
    assert len(job.attempts) == 1


def test_a_task_limits_its_attempts(app: App) -> None:
    job = app.enqueue("hopeless", "no way")
    assert outcomes(app, job.id) == ["failed"] * 3
    assert (job.attempt, job.max_attempts) == (3, 3)
    assert [a["retry_in"] for a in job.attempts] == [0, 0, None]


@pytest.mark.parametrize(("words", "error"), [((), "asked to be retried"), (("please",), "please")])
def test_a_task_may_ask_for_a_retry_but_only_as_often_as_it_has_attempts(
    app: App, words: tuple[str, ...], error: str
) -> None:
    job = app.enqueue("asks", *words)
    assert (job.state, job.error_class, job.error) == ("failed", "retry", error)
    assert len(job.attempts) == 2


@pytest.mark.parametrize("kind", ["object", "nan", "bytes"])
def test_a_value_that_is_not_json_fails_at_once_without_follow_ups(app: App, kind: str) -> None:
    job = app.enqueue("not_json", kind)
    assert (job.state, job.error_class, len(job.attempts)) == ("failed", "result", 1)
    assert "not_json" in job.error
    assert len(app.jobs()) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("ecko", "x"), "unknown task 'ecko'; did you mean 'echo'?"),
        (("echo",), "task 'echo' takes (word), not ()"),
        (("echo", "x", "y"), "task 'echo' takes (word), not ('x', 'y')"),
    ],
)
def test_a_follow_up_job_is_checked_when_it_is_enqueued(
    app: App, arguments: tuple[str, ...], error: str
) -> None:
    job = app.enqueue("wrong_followup", *arguments)
    assert (job.state, job.error) == ("failed", error)


# Immediate mode ------------------------------------------------------------------------------


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
    job = app.enqueue("who", tag="news")
    assert job.result() == [job.id, "who", "[]", "news", 1, None, job.id]


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
    parent, child = app.jobs()
    assert (parent.state, child.state) == ("completed", "queued")
    app.wait()
    assert child.result() == "x"


def test_interrupts_at_random_moments_leave_no_job_running(app: App) -> None:
    armed = False

    def interrupt(number: int, frame: FrameType | None) -> None:
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


def test_a_job_that_killed_an_immediate_process_is_charged_when_the_app_is_opened(
    make: Make, tmp_path: Path
) -> None:
    script = (
        "import paise2nb, sys; paise2nb.open('test', data_dir=sys.argv[1],"
        " settings={'plugins': [sys.argv[2]]}).enqueue('die')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data"), str(tmp_path / "extra.py")]
    assert subprocess.run(command, check=False).returncode == 9
    [job] = make("development").jobs()
    assert (job.state, job.error_class, outcomes(make("development"), job.id)) == (
        "retrying", "crash", ["crashed"],
    )  # fmt: skip


def test_the_provider_none_is_immediate_and_starts_no_workers(make: Make) -> None:
    app = make("development", task_queue__provider="none")
    assert app.immediate
    assert app.enqueue("echo", "x").result() == "x"
    with pytest.raises(WorkersError, match=r"task_queue\.provider is none"):
        app.workers.start()


# Replays -------------------------------------------------------------------------------------


def rows_of(app: App) -> list[Any]:
    table = app.queue.job_store
    return [table.rows(table.find()), [table.attempts(i) for i in table.find()], table.counts()]


def test_a_replay_returns_the_value_and_the_follow_ups_and_changes_nothing(waiting: App) -> None:
    job = waiting.enqueue("parent", "a", "b")
    before = rows_of(waiting)
    replay = waiting.replay(job.id)
    assert (replay.value, [f.args for f in replay.followups]) == (2, ['["a"]', '["b"]'])
    assert replay.to_dict() == {
        "job": job.id,
        "task": "parent",
        "value": 2,
        "followups": [{"task": "echo", "args": ["a"]}, {"task": "echo", "args": ["b"]}],
    }
    assert rows_of(waiting) == before


def test_a_replay_raises_what_the_task_raises(app: App) -> None:
    job = app.enqueue("permanent", "gone for good")
    before = rows_of(app)
    with pytest.raises(PermanentError, match="gone for good"):
        app.replay(job.id)
    assert rows_of(app) == before


def test_a_replay_stores_no_progress(waiting: App) -> None:
    job = waiting.enqueue("steps", 2)
    before = rows_of(waiting)
    waiting.replay(job.id)
    assert rows_of(waiting) == before


def test_a_replay_of_an_unknown_task_names_the_nearest(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    waiting.queue.job_store.database.write(lambda c: c.execute("UPDATE jobs SET task = 'ecko'"))
    with pytest.raises(UsageError, match="unknown task 'ecko'; did you mean 'echo'"):
        waiting.replay(job.id)


def test_the_error_of_a_result_has_the_traceback_of_the_task(app: App) -> None:
    job = app.enqueue("hopeless", "no way")
    with pytest.raises(JobFailed, match=r"job 1 \(hopeless\) failed: ValueError: no way") as caught:
        job.result()
    assert "in hopeless" in caught.value.traceback
    assert "In the worker:\nTraceback" in str(caught.value)
