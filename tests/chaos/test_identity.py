"""Workers that were declared dead, reused pids, many starts at once, and a stop with a deadline."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time

from paise2nb.core import processes as process
from paise2nb.jobs.retry import crash_outcomes
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario
from tests.waiting import until


@scenario(
    7, "a suspended worker declared dead, then resumed", short={"rounds": 2}, full={"rounds": 100}
)
def test_the_late_outcome_of_a_worker_declared_dead_is_refused(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=2)
    expected: set[str] = set()
    for round_number in range(int(scale["rounds"])):
        go = environment.root / f"go {round_number}"
        job = app.enqueue("hold", f"held {round_number}", str(go))
        expected |= {f"held {round_number}", f"held {round_number}/leaf"}
        until(lambda job=job: job.state == "running")
        stopped = job.worker_pid
        [row] = [row for row in environment.job_store.workers() if row["pid"] == stopped]
        stop_between_writes(environment, stopped)
        assert environment.job_store.rescue_jobs(row["id"], crash_outcomes(app.settings, None)) == [
            job.id
        ]
        until(lambda job=job: job.state == "running" and len(job.attempts) == 1)
        assert job.worker_pid != stopped
        go.touch()
        if (
            environment.random.random() < 0.5
        ):  # the late outcome comes after the right one, or before
            until(lambda job=job: job.state == "completed")
        os.kill(stopped, signal.SIGCONT)
        until(
            lambda name=row["process"]: not process.alive(name)
        )  # it notices the refusal, and exits
        until(lambda job=job: job.state == "completed")
        assert [a["outcome"] for a in job.attempts] == ["crashed", "completed"]
        assert job.result() != str(stopped)
        until(lambda: len(environment.workers(ready=True)) >= 4)
    app.wait(timeout=60)
    log = (environment.data_dir / "logs" / "workers.log").read_text()
    environment.figures["refused"] = len(re.findall(r"the outcome of job \d+ is refused", log))
    assert environment.figures["refused"] == scale["rounds"]
    environment.check_all_done(expected)


def stop_between_writes(environment: Environment, pid: int) -> None:
    """Stop a worker while it does not write: all others would wait for it."""
    with (environment.data_dir / "tasks.db.lock").open() as lock:
        for _ in range(100):
            os.kill(pid, signal.SIGSTOP)
            for _ in range(20):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(lock, fcntl.LOCK_UN)
                    return
                except BlockingIOError:  # another process has the lock, or this one
                    time.sleep(0.01)
            os.kill(pid, signal.SIGCONT)
    raise AssertionError("it never stops writing")


@scenario(15, "a pid reused by another process", short={"rounds": 1}, full={"rounds": 50})
def test_another_process_with_a_reused_pid_is_never_signalled(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open(workers__cancel_grace=0)
    for round_number in range(int(scale["rounds"])):
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        try:
            real = process.identity(other.pid)
            assert real is not None
            pid, start, here = real.split("-", 2)
            reused = f"{pid}-{int(start) - 1}-{here}"
            # Its pid is that of a worker whose job is past its timeout, and then of the supervisor.
            job = app.enqueue("effect", str(round_number))
            worker = environment.job_store.register("default", 1, "ready")
            claim = environment.job_store.claim(worker, app.parts.limits("default"))
            assert claim is not None
            assert claim.id == job.id
            environment.job_store.database.write(
                lambda connection, worker=worker, name=reused: connection.execute(
                    "UPDATE workers SET process = ? WHERE id = ?", (name, worker.id)
                )
            )
            environment.job_store.database.write(
                lambda connection: connection.execute("UPDATE jobs SET timeout = 0.0001")
            )
            app.workers.start(concurrency=1)
            job.wait(timeout=60)
            app.workers.stop(timeout=0)
            environment.job_store.set_supervisor(process=reused, state="running")
            assert "not running" in str(app.workers.stop(timeout=0))
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()
    environment.figures["signalled"] = 0
    environment.check_all_done({str(round_number) for round_number in range(int(scale["rounds"]))})


@scenario(
    14,
    "many starts at the same time",
    short={"starts": 6, "rounds": 1},
    full={"starts": 50, "rounds": 20},
)
def test_many_starts_at_the_same_time_start_one_supervisor(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    log = environment.data_dir / "logs" / "workers.log"
    for round_number in range(int(scale["rounds"])):
        command = environment.program("print(app.workers.start(concurrency=1).supervisor['pid'])")
        starts = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for _ in range(int(scale["starts"]))
        ]
        outputs = {start.communicate(timeout=600)[0] for start in starts}
        assert {start.returncode for start in starts} == {0}
        assert len(outputs) == 1, outputs
        pools = [row["pool"] for row in environment.workers()]
        assert sorted(pools) == ["default", "fetch", "many"]
        assert log.read_text().count("supervisor starts") == round_number + 1
        app.workers.stop(timeout=10)
    environment.figures["supervisors each time"] = 1


@scenario(
    16,
    "stop while a short and a long job run",
    short={"short_job": 0.5, "deadline": 2},
    full={"short_job": 3, "deadline": 10},
)
def test_stop_lets_the_short_job_finish_and_puts_the_long_one_back(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=2)
    short = app.enqueue("effect", "short", scale["short_job"])
    long = app.enqueue("effect", "long", 300)
    until(lambda: app.status().jobs["running"] == 2)
    began = time.monotonic()
    app.workers.stop(timeout=scale["deadline"])
    late = time.monotonic() - began - scale["deadline"]
    assert short.state == "completed"
    assert (long.state, long.attempt) == ("queued", 0)
    assert [a["outcome"] for a in long.attempts] == ["released"]
    assert not environment.workers()
    environment.check()
    environment.within(max(late, 0.0), 2, "after the deadline")
