"""Jobs of short tasks: two are claimed together and run in turn, each alone in its process."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from paise2nb.app import App
from paise2nb.core.errors import DiskFull, StorageError
from paise2nb.jobs.batch import BatchFile, Progress, batch_path, execution_key, read_batch
from paise2nb.jobs.models import Claim
from paise2nb.jobs.retry import crash_outcomes
from paise2nb.workers import claims as module
from paise2nb.workers.limits import LimitEnforcer
from tests import example_plugin
from tests.waiting import until
from tests.workers.plugin import outcomes
from tests.workers.test_queue import take, worker_of
from tests.workers.test_workers import make as make_workers

PLUGIN = (
    example_plugin.SOURCE
    + '''
import os

@task("short")
def short(context, word, how=""):
    """Note each run; then end in one of several ways."""
    with open(context.data_dir / "runs", "a") as file:
        file.write(f"{word}\\n")
    if how == "die":
        os._exit(9)
    if how == "hold":
        while not (context.data_dir / "gate").exists():
            time.sleep(0.01)
    if how == "stuck":
        sum(range(10**12))  # in C code, which lets no other thread run
    if how == "follow":
        context.enqueue("short", f"after {word}")
    if how == "fail":
        raise ValueError(word)
    return word

@task("short_stuck", timeout=1, max_retries=0)
def short_stuck(context, word, how=""):
    return short(context, word, how)
'''
)


__all__ = ["make_workers"]


@pytest.fixture
def waiting(waiting: App, monkeypatch: pytest.MonkeyPatch) -> App:
    """However slow this machine is, each job is short, until a test says otherwise."""
    monkeypatch.setattr(module, "BATCH_SECONDS", 3600.0)
    monkeypatch.setattr(module, "RECHECK_SECONDS", 3600.0)
    return waiting


def runs(app: App) -> Counter[str]:
    path = app.data_dir / "runs"
    return Counter(path.read_text().splitlines() if path.exists() else [])


def claimed(app: App) -> list[int]:
    return [job["id"] for job in app.queue.job_store.claimed()]


def worker_id(app: App) -> int:
    assert app.queue.claims.worker is not None
    return app.queue.claims.worker.id


def settle(app: App) -> None:
    store = app.queue.job_store
    store.settle(worker_id(app), {execution_key(job) for job in store.claimed()})


def begun(app: App) -> list[int]:
    store = app.queue.job_store
    return [job["id"] for job in store.begun(worker_id(app), store.claimed())]


def die(app: App) -> None:
    """As if this worker had been killed, and the supervisor had seen that."""
    store = app.queue.job_store
    store.rescue_jobs(worker_id(app), crash_outcomes(app.settings, None))


def run_until_two_are_claimed(waiting: App) -> tuple[int, int]:
    """Return the job that will run next, and the one that waits for it."""
    worker_of(waiting)
    while len(claimed(waiting)) < 2:
        waiting.queue.execute(take(waiting.queue))
    first, second = sorted(claimed(waiting))
    return first, second


def test_two_short_jobs_are_claimed_together_and_end_together(waiting: App) -> None:
    jobs = waiting.enqueue_many("short", range(200))
    first, second = run_until_two_are_claimed(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert [waiting.job(first).state, waiting.job(second).state] == ["running", "running"]
    waiting.queue.execute(take(waiting.queue))
    assert [waiting.job(first).state, waiting.job(second).state] == ["completed", "completed"]
    assert len(claimed(waiting)) <= 2
    while waiting.queue.job_store.busy():
        waiting.queue.execute(take(waiting.queue))
    assert [job.result() for job in jobs] == list(range(200))
    assert set(runs(waiting).values()) == {1}


@pytest.mark.parametrize("how", ["follow", "fail"])
def test_jobs_with_more_than_a_value_are_claimed_one_by_one(waiting: App, how: str) -> None:
    waiting.enqueue_many("short", [(n, how) for n in range(50)])
    worker_of(waiting)
    for _ in range(50):
        waiting.queue.execute(take(waiting.queue))
        assert len(claimed(waiting)) <= 1


def test_an_outcome_that_is_more_than_a_value_is_written_at_once(waiting: App) -> None:
    waiting.enqueue_many("short", [(n, "follow" if n % 3 == 1 else "") for n in range(200)])
    written = 0
    worker_of(waiting)
    while waiting.queue.job_store.busy():
        number, task = len(claimed(waiting)), take(waiting.queue)
        waiting.queue.execute(task)
        if number == 2 and waiting.job(task.claim.id).args[1:] == ["follow"]:
            written += 1
            assert waiting.job(task.claim.id).state == "completed"
    assert written
    assert set(runs(waiting).values()) == {1}


def test_a_long_value_is_written_at_once(waiting: App) -> None:
    waiting.enqueue_many("short", [("x" * 3000 + str(n),) for n in range(200)])
    _, second = run_until_two_are_claimed(waiting)
    waiting.queue.execute(take(waiting.queue))
    assert claimed(waiting) == [second]


def test_a_value_with_line_separators_is_kept(waiting: App) -> None:
    text = "a\u2028b\x85c\x1cd"
    waiting.enqueue_many("short", [(text, str(n)) for n in range(200)])
    first, second = run_until_two_are_claimed(waiting)
    waiting.queue.execute(take(waiting.queue))
    settle(waiting)
    assert (waiting.job(first).result(), claimed(waiting)) == (text, [second])


def test_another_thread_does_not_start_the_job_that_waits(waiting: App) -> None:
    waiting.enqueue_many("short", range(200))
    first, _ = run_until_two_are_claimed(waiting)
    task = take(waiting.queue)
    assert task.claim.id == first
    assert waiting.queue.claims._take() is None
    waiting.queue.execute(task)


def test_a_job_that_waits_is_released_by_a_drain(waiting: App) -> None:
    jobs = waiting.enqueue_many("short", range(200))
    first, second = run_until_two_are_claimed(waiting)
    waiting.queue.execute(take(waiting.queue))
    waiting.queue.claims.stop()
    assert waiting.queue.dequeue() is None
    waiting.queue.claims.release_ahead()
    assert waiting.job(first).state == "completed"
    assert (waiting.job(second).state, waiting.job(second).attempt) == ("queued", 0)
    assert {job.state for job in jobs} == {"completed", "queued"}
    assert second not in claimed(waiting)


def test_a_job_that_waits_and_is_cancelled_is_not_started(
    waiting: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.enqueue_many("short", range(200))
    first, second = run_until_two_are_claimed(waiting)
    task = take(waiting.queue)
    waiting.job(second).cancel()
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.0)
    monkeypatch.setattr(module, "RECHECK_SECONDS", 0.0)  # the job took long
    waiting.queue.execute(task)
    waiting.queue.execute(take(waiting.queue))
    assert (waiting.job(first).state, waiting.job(second).state) == ("completed", "cancelled")
    assert second not in claimed(waiting), "the worker has left it"
    assert str(second - 1) not in runs(waiting)


def test_a_job_that_waits_for_a_long_one_is_run_by_another_process(working: App) -> None:
    jobs = working.enqueue_many("short", [(n, "hold" if n == 101 else "") for n in range(300)])
    working.workers.start()
    until(lambda: "101" in runs(working))
    working.workers.start(concurrency=2)
    others = [job for job in jobs if job.id != jobs[101].id]
    assert [job.result(timeout=60) for job in others] == [n for n in range(300) if n != 101]
    assert jobs[101].state == "running"
    (working.data_dir / "gate").touch()
    assert jobs[101].result(timeout=60) == 101
    assert set(runs(working).values()) == {1}


def test_a_job_that_waits_for_one_that_stops_its_process_is_run_by_another(working: App) -> None:
    working.workers.start(concurrency=2)
    jobs = working.enqueue_many("short", [(n, "stuck" if n == 101 else "") for n in range(300)])
    others = [job for job in jobs if job.id != jobs[101].id]
    assert [job.result(timeout=60) for job in others] == [n for n in range(300) if n != 101]
    assert jobs[101].state == "running"
    assert set(runs(working).values()) == {1}
    working.workers.stop(timeout=0)


def test_only_the_job_that_crashes_runs_again(working: App) -> None:
    jobs = working.enqueue_many("short", [(n, "die" if n % 100 == 50 else "") for n in range(400)])
    working.workers.start()
    working.wait(timeout=60)
    for number, job in enumerate(jobs):
        guilty = number % 100 == 50
        assert job.state == ("failed" if guilty else "completed")
        assert outcomes(working, job.id).count("crashed") == (2 if guilty else 0)
        assert runs(working)[str(number)] == (2 if guilty else 1)


def test_only_the_job_that_exceeds_its_time_is_charged(working: App) -> None:
    jobs = working.enqueue_many(
        "short_stuck", [(n, "stuck" if n == 101 else "") for n in range(300)]
    )
    working.workers.start()
    working.wait(timeout=60)
    assert outcomes(working, jobs[101].id) == ["timeout"] * 2
    assert Counter(job.state for job in jobs) == {"completed": 299, "failed": 1}
    assert {word: times for word, times in runs(working).items() if times > 1} == {"101": 2}


def test_a_killed_process_runs_no_completed_job_again(working: App) -> None:
    jobs = working.enqueue_many("short", [(n, "hold" if n == 101 else "") for n in range(300)])
    working.workers.start()
    until(lambda: "101" in runs(working))
    os.kill(jobs[101].worker_pid, signal.SIGKILL)
    until(lambda: jobs[101].attempts)
    (working.data_dir / "gate").touch()
    working.wait(timeout=60)
    assert {job.state for job in jobs} == {"completed"}
    assert outcomes(working, jobs[101].id)[0] == "crashed"
    assert {n: times for n, times in runs(working).items() if times > 1} == {"101": 2}


def test_the_file_of_a_worker_is_deleted_with_its_row(waiting: App) -> None:
    waiting.enqueue_many("short", range(200))
    run_until_two_are_claimed(waiting)
    worker, store = waiting.queue.claims.worker, waiting.queue.job_store
    assert worker is not None
    assert batch_path(store.path, worker.id).exists()
    store.leave(worker)
    assert not batch_path(store.path, worker.id).exists()


@pytest.mark.parametrize("first_has_completed", [True, False])
def test_a_crash_is_charged_to_the_one_that_ran(waiting: App, first_has_completed: bool) -> None:
    waiting.enqueue_many("short", range(200))
    first, second = run_until_two_are_claimed(waiting)
    assert begun(waiting) == [first]
    if first_has_completed:
        waiting.queue.execute(take(waiting.queue))
        assert begun(waiting) == [second]
    die(waiting)
    states = [waiting.job(first).state, waiting.job(second).state]
    assert states == (["completed", "retrying"] if first_has_completed else ["retrying", "queued"])
    charged, other = (second, first) if first_has_completed else (first, second)
    assert outcomes(waiting, charged) == ["crashed"]
    assert "crashed" not in outcomes(waiting, other)


def test_while_an_outcome_can_not_be_written_the_next_one_does_not_start(
    waiting: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.enqueue_many("short", range(200))
    store = waiting.queue.job_store
    first, second = run_until_two_are_claimed(waiting)

    def full(*arguments: object) -> None:
        raise DiskFull("no space")

    task = take(waiting.queue)
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.0)  # so the outcome is written at once
    with monkeypatch.context() as patched:
        patched.setattr(store, "end_several", full)
        waiting.queue.execute(task)
        with pytest.raises(StorageError):
            waiting.queue.dequeue()
    assert begun(waiting) == [first]
    assert take(waiting.queue).claim.id == second
    assert waiting.job(first).state == "completed"
    assert begun(waiting)[0] == second


def test_what_is_claimed_after_a_look_at_a_stuck_worker_stays_with_it(waiting: App) -> None:
    waiting.enqueue_many("short", range(200))
    run_until_two_are_claimed(waiting)
    seen = {execution_key(job) for job in waiting.queue.job_store.claimed()}
    for _ in seen:
        waiting.queue.execute(take(waiting.queue))
    while len(claimed(waiting)) < 2:
        waiting.queue.execute(take(waiting.queue))
    before = claimed(waiting)
    waiting.queue.job_store.settle(worker_id(waiting), seen)
    assert claimed(waiting) == before


def test_a_job_that_waits_does_not_start_after_a_pause(
    waiting: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.enqueue_many("short", range(200))
    first, second = run_until_two_are_claimed(waiting)
    task = take(waiting.queue)
    waiting.pause()
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.0)
    monkeypatch.setattr(module, "RECHECK_SECONDS", 0.0)  # the job took long
    waiting.queue.execute(task)
    assert waiting.queue.dequeue() is None
    assert (waiting.job(first).state, waiting.job(second).state) == ("completed", "queued")
    assert (waiting.job(second).attempt, outcomes(waiting, second)) == (0, [])


def test_a_job_that_waits_is_not_lost_if_the_job_store_can_not_be_read(
    waiting: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.enqueue_many("short", range(200))
    _, second = run_until_two_are_claimed(waiting)
    waiting.queue.execute(take(waiting.queue))

    def unreadable(claim: Claim) -> bool:
        raise StorageError("no")

    monkeypatch.setattr(module, "RECHECK_SECONDS", 0.0)  # the job took long
    with monkeypatch.context() as patched:
        patched.setattr(waiting.queue.job_store, "runs", unreadable)
        with pytest.raises(StorageError):
            waiting.queue.dequeue()
    assert take(waiting.queue).claim.id == second


def test_the_job_that_locks_the_job_store_is_known(waiting: App) -> None:
    waiting.enqueue_many("short", range(200))
    first, _ = run_until_two_are_claimed(waiting)
    limits = LimitEnforcer(waiting.queue.job_store, 1.0)
    killed: list[tuple[int, int]] = []
    [worker] = [w for w in waiting.queue.job_store.workers() if w["id"] == worker_id(waiting)]
    limits._kill = lambda row, reason: killed.append((row["id"], reason.job))  # type: ignore[method-assign,assignment,func-returns-value]  # it would end this process
    limits.end_lock(worker["pid"], 20)
    assert killed == [(worker["id"], first)]


def test_a_file_that_can_not_be_deleted_keeps_no_job(waiting: App) -> None:
    waiting.enqueue_many("short", range(200))
    run_until_two_are_claimed(waiting)
    path = batch_path(waiting.queue.job_store.path, worker_id(waiting))
    path.unlink()
    path.mkdir()
    die(waiting)
    assert claimed(waiting) == []


# The file ------------------------------------------------------------------------------------


@pytest.fixture
def pair(waiting: App) -> tuple[Claim, Claim]:
    waiting.enqueue_many("short", [1, 2])
    worker, limits = worker_of(waiting), waiting.parts.limits("default")
    claims = [waiting.queue.job_store.claim(worker, limits) for _ in range(2)]
    assert claims[0] is not None
    assert claims[1] is not None
    return claims[0], claims[1]


def key(claim: Claim) -> tuple[int, int, float]:
    return (claim.id, claim.run, claim.started_at)


def opened(directory: Path) -> BatchFile:
    file = BatchFile.open(directory / "tasks.db", 7)
    assert file is not None
    return file


def test_a_shorter_text_replaces_a_longer_one(tmp_path: Path, pair: tuple[Claim, Claim]) -> None:
    one, two = pair
    file = opened(tmp_path)
    assert file.write([(one, json.dumps("x" * 500))], [two])
    assert file.write([], [one, two])
    assert read_batch(tmp_path / "tasks.db", 7) == Progress({}, [key(one), key(two)])


def test_a_text_that_is_too_long_is_not_written(tmp_path: Path, pair: tuple[Claim, Claim]) -> None:
    file = opened(tmp_path)
    assert not file.write([(pair[0], json.dumps("ü" * 2000))], [pair[1]])


def test_nothing_is_read_from_a_file_that_is_missing_or_damaged(
    tmp_path: Path, pair: tuple[Claim, Claim]
) -> None:
    database = tmp_path / "tasks.db"
    assert read_batch(database, 7) == Progress({}, [])
    opened(tmp_path).write([(pair[0], '"value"')], [pair[1]])
    path, whole = batch_path(database, 7), read_batch(database, 7)
    assert whole == Progress({key(pair[0]): '"value"'}, [key(pair[1])])
    good = path.read_bytes().rstrip(b"\0")
    for position in range(len(good)):
        path.write_bytes(good[:position])
        assert read_batch(database, 7) == Progress({}, []), f"cut at {position}"
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert read_batch(database, 7) in (Progress({}, []), whole), f"damaged at {position}"


def test_without_a_directory_for_the_file_jobs_are_claimed_one_by_one(waiting: App) -> None:
    directory = batch_path(waiting.queue.job_store.path, 1).parent
    directory.write_text("in the way")
    waiting.enqueue_many("short", range(200))
    worker_of(waiting)
    while waiting.queue.job_store.busy():
        waiting.queue.execute(take(waiting.queue))
        assert len(claimed(waiting)) <= 1
    assert {job.state for job in waiting.jobs()} == {"completed"}
