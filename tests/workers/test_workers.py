"""Real supervisors and worker processes: started, killed, drained and restarted."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.config.settings import Settings
from paise2nb.core import processes as process
from paise2nb.core.errors import StorageError, UsageError, WorkersError
from paise2nb.core.wakeup import SUPERVISOR, Listener
from tests import example_plugin
from tests.mounts import paise2_on
from tests.waiting import until

PLUGIN = (
    example_plugin.SOURCE
    + """
import ctypes, os, re, sys, threading

@task("where")
def where(context, word):
    profile = os.environ["PAISE2_PROFILE"]
    modules, settings = sorted(sys.modules), context.settings.to_json()
    return {"pid": os.getpid(), "modules": modules, "profile": profile, "settings": settings}

@task("thread_hold", pool="many")
def thread_hold(context, path, name):
    while not Path(path).exists():
        time.sleep(0.01)
    return threading.current_thread().name

@task("thread_die", pool="many")
def thread_die(context, path):
    while not Path(path).exists():
        time.sleep(0.01)
    os._exit(9)

@task("die", max_retries=0)
def die(context, how):
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(9)

@task("stuck", timeout=0.5, max_retries=0)
def stuck(context, word):
    time.sleep(600)

def lock(context, name, wait):
    # As a thread does that is stopped while it writes.
    def work(connection):
        (context.data_dir / name).touch()
        time.sleep(600)
    while not (context.data_dir / wait).exists():
        time.sleep(0.01)
    context.job_store.database.write(work)

task("lock", max_retries=0)(lock)
task("thread_lock", pool="many", max_retries=0)(lock)

@task("thread_regex", pool="many", timeout=3, max_retries=0)
def thread_regex(context, name, wait):
    # It keeps the lock of the interpreter, once the job store is locked.
    (context.data_dir / name).touch()
    while not (context.data_dir / wait).exists():
        time.sleep(0.01)
    re.match(r"(a+)+$", "a" * 64 + "b")

@task("hungry", memory_mb=400, max_retries=0)
def hungry(context, word):
    allocated = bytearray(900_000_000)
    allocated[::4096] = b"x" * len(allocated[::4096])
    time.sleep(600)
"""
)

Make = Callable[..., App]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Open apps on one data directory; its workers are stopped afterwards."""
    plugin = tmp_path / "extra.py"
    plugin.write_text(PLUGIN)
    opened: list[App] = []

    def make_app(**settings: Any) -> App:
        defaults: dict[str, Any] = {
            "plugins": [str(plugin)],
            "workers.concurrency": 2,
            "workers.cancel_grace": 0.2,
            "workers.pools": {"many": {"tasks": [], "processes": 1, "threads": 4}},
            "workers.retry.policies": {"crash": {"retry_delay": 0.01}},
        }
        overrides = {**defaults, **{key.replace("__", "."): v for key, v in settings.items()}}
        app = paise2nb.open("development", data_dir=tmp_path / "data", settings=overrides)
        opened.append(app)
        return app

    yield make_app
    with suppress(StorageError):  # a test has destroyed the job store
        opened[-1].workers.stop(timeout=0)
    for app in opened:
        app.close()


def test_start_returns_when_every_worker_is_ready(make: Make) -> None:
    app = make()
    found = app.workers.start()
    assert sorted(w["pool"] for w in found.workers) == ["default", "default", "fetch", "many"]
    assert {w["state"] for w in found.workers} == {"idle"}
    assert found.supervisor is not None
    assert found.problem is None
    assert app.enqueue("echo", "hello").result(timeout=30) == "hello"


def test_a_worker_has_the_settings_of_the_app_that_started_it_and_no_notebook_modules(
    make: Make,
) -> None:
    app = make()
    app.workers.start(concurrency=1)
    seen = app.enqueue("where", "x").result(timeout=30)
    assert seen["pid"] not in (os.getpid(), app.workers.status().supervisor["pid"])
    assert seen["profile"] == "development"
    heavy = {"IPython", "ipywidgets", "trafilatura", "xberg", "yaml", "pandas"}
    assert not heavy & set(seen["modules"])
    assert Settings.from_json(seen["settings"]) == app.settings


def test_a_second_start_shows_the_running_workers(make: Make) -> None:
    app = make()
    first = app.workers.start(concurrency=1)
    again = make().workers.start(concurrency=1)
    assert "already running" in str(again)
    assert again.supervisor == first.supervisor
    assert [w["pid"] for w in again.workers] == [w["pid"] for w in first.workers]


def sizes(app: App) -> dict[str, int]:
    """The number of workers of each pool that do not leave."""
    found = app.workers.status().workers
    return dict(Counter(w["pool"] for w in found if w["state"] != "stopping"))


def test_a_start_with_another_concurrency_scales_the_running_pool(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    first = app.workers.start(pool="default", concurrency=1)
    assert str(app.workers.start(concurrency=3)).startswith("5 workers (default 3, fetch 1, many 1")
    job = app.enqueue("hold", str(tmp_path / "go"))
    until(lambda: job.state == "running")
    scaled = app.workers.start(concurrency=1)
    assert str(scaled).splitlines()[0].endswith("scaled")
    assert sizes(app) == {"default": 1, "fetch": 1, "many": 1}
    assert job.state == "running", "workers without a job leave first"
    (tmp_path / "go").touch()
    assert job.result(timeout=30) == "released"
    assert job.attempts[-1]["number"] == 1
    app.workers.start(pool="many", concurrency=2)
    assert sizes(app) == {"default": 1, "fetch": 1, "many": 2}
    app.workers.start(pool="many", concurrency="auto")
    assert sizes(app) == {"default": 1, "fetch": 1, "many": process.usable_cores()}
    assert app.workers.status().supervisor == first.supervisor


def test_a_busy_worker_that_leaves_finishes_its_job(make: Make, tmp_path: Path) -> None:
    app = make()
    app.workers.start(pool="default", concurrency=2)
    jobs = app.enqueue_many("hold", [str(tmp_path / "go"), f"{tmp_path}/./go"])
    until(lambda: app.status().jobs["running"] == 2)
    app.workers.start(pool="default", concurrency=1)
    assert app.status().jobs["running"] == 2
    (tmp_path / "go").touch()
    app.wait(timeout=30)
    assert [len(job.attempts) for job in jobs] == [1, 1]


def test_a_pool_that_the_running_workers_do_not_know_needs_a_restart(make: Make) -> None:
    make().workers.start(pool="default", concurrency=1)
    app = make(workers__pools={"many": {"tasks": []}, "new": {"tasks": ["echo"]}})
    with pytest.raises(WorkersError, match="without a pool new; to use these: paise2 worker rest"):
        app.workers.start(pool="new")
    assert {w["pool"] for w in app.workers.restart().workers} == {"default"}


def test_a_restart_keeps_the_options_that_were_typed_and_takes_the_rest_from_the_settings(
    make: Make,
) -> None:
    make().workers.start()
    pools = {"new": {"tasks": ["echo"], "processes": 2}, "many": {"threads": 4}}
    app = make(workers__concurrency=1, workers__pools=pools)
    assert app.workers.restart().problem is None
    assert sizes(app) == {"default": 1, "fetch": 1, "many": 1, "new": 2}
    assert app.workers.restart(concurrency=3).problem is None
    again = make(workers__concurrency=2)
    again.workers.restart()
    assert sizes(again) == {"default": 3, "fetch": 1, "many": 1}
    again.workers.stop()
    again.workers.start(pool="many")
    again.workers.restart(concurrency=2)
    assert sizes(again) == {"many": 2}


def test_status_and_wait_name_the_pool_that_has_no_workers(make: Make) -> None:
    app = make()
    app.workers.start(pool="many", concurrency=1)
    app.enqueue("echo", "waits")
    reason = "pool default has no workers; start them: paise2 worker start --pool default"
    assert app.status().problem == f"jobs wait, and {reason}"
    with pytest.raises(WorkersError, match=f"1 job waits, and {reason}"):
        app.wait()
    app.workers.start(pool="default", concurrency=1)
    app.wait(timeout=30)
    assert app.status().problem is None


def test_a_named_pool_starts_alone_and_another_is_added_to_it(make: Make) -> None:
    app = make()
    assert [w["pool"] for w in app.workers.start(pool="many", concurrency=1).workers] == ["many"]
    app.enqueue("echo", "waits")
    added = app.workers.start(pool="default", concurrency=1)
    assert sorted(w["pool"] for w in added.workers) == ["default", "many"]
    app.wait(timeout=30)


def test_the_error_for_an_unknown_pool_names_the_known_ones(make: Make) -> None:
    with pytest.raises(UsageError, match="unknown pool 'many2'; known: default, fetch, many"):
        make().workers.start(pool="many2")


def test_a_pool_runs_as_many_jobs_at_a_time_as_it_has_threads(make: Make, tmp_path: Path) -> None:
    app = make()
    app.workers.start(concurrency=1)
    go = tmp_path / "go"
    jobs = app.enqueue_many("thread_hold", [(str(go), "a"), (str(go), "b")])
    until(lambda: app.status().jobs["running"] == 2)
    go.touch()
    jobs.wait(timeout=30)
    assert len({job.result() for job in jobs}) == 2


def test_workers_survive_the_end_of_the_process_that_started_them(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    program = (
        "import paise2nb, sys; app = paise2nb.open('development', sys.argv[1], "
        "{'plugins': [sys.argv[2]], 'workers.concurrency': 1, 'workers.pools.many.threads': 4});"
        "print(app.workers.start())"
    )
    arguments = [str(app.data_dir), str(tmp_path / "extra.py")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=60)
    assert app.enqueue("echo", "still here").result(timeout=30) == "still here"


def test_jobs_wait_without_workers_and_run_when_some_start(make: Make) -> None:
    app = make()
    job = app.enqueue("echo", "patience")
    status = app.status()
    assert status.jobs["queued"] == 1
    assert "1 job waits and no worker runs" in (status.problem or "")
    with pytest.raises(WorkersError, match="paise2 worker start"):
        app.wait()
    app.workers.start(concurrency=1)
    assert job.result(timeout=30) == "patience"


def test_workers_killed_while_they_start_are_started_again_at_once(make: Make) -> None:
    app = make()
    app.workers.start()
    killed: set[str] = set()

    def kill_all() -> bool:
        for worker in app.workers.status().workers:
            name = process.identity(worker["pid"])
            if name and name not in killed and process.send(name, signal.SIGKILL):
                killed.add(name)
        return len(killed) >= 20  # more than the failed starts that are allowed in a minute

    until(kill_all)
    assert app.enqueue("echo", "on").wait(timeout=30).state == "completed"


def test_a_job_whose_worker_died_runs_again_and_its_crash_is_recorded(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    app.workers.start(concurrency=1)
    go = tmp_path / "go"
    job = app.enqueue("hold", str(go))
    until(lambda: job.state == "running")
    os.kill(job.worker_pid, signal.SIGKILL)
    until(lambda: len(job.attempts) == 1)
    go.touch()
    assert job.result(timeout=30) == "released"
    assert [a["outcome"] for a in job.attempts] == ["crashed", "completed"]
    assert job.attempts[0]["error_class"] == "crash"


@pytest.mark.parametrize("how", ["exit", "segfault"])
def test_a_crashing_job_fails_after_three_crashes_whatever_its_max_retries(
    make: Make, how: str
) -> None:
    app = make()
    app.workers.start(concurrency=1)
    job = app.enqueue("die", how)
    neighbours = app.enqueue_many("echo", [str(n) for n in range(20)])
    app.wait(timeout=60)
    assert job.state == "failed"
    assert [a["outcome"] for a in job.attempts] == ["crashed"] * 3
    assert "died while it ran" in job.error
    assert {(job.state, job.attempt) for job in neighbours} == {("completed", 1)}


def test_a_crashing_job_among_threads_is_found_and_no_other_job_is_charged(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    go = tmp_path / "go"
    neighbours = app.enqueue_many("thread_hold", [(str(go), name) for name in "abc"])
    guilty = app.enqueue("thread_die", str(go))
    app.workers.start(concurrency=1)
    until(lambda: app.status().jobs["running"] == 4)
    go.touch()
    app.wait(timeout=60)
    assert guilty.state == "failed"
    assert [a["outcome"] for a in guilty.attempts if a["outcome"] != "released"] == ["crashed"] * 3
    for job in neighbours:
        assert job.state == "completed"
        assert job.attempt == 1
        assert {a["outcome"] for a in job.attempts} <= {"completed", "released"}


@pytest.mark.parametrize(("task", "outcome"), [("stuck", "timeout"), ("hungry", "memory")])
def test_a_job_that_exceeds_its_limit_is_killed_and_its_error_says_why(
    make: Make, task: str, outcome: str
) -> None:
    app = make(workers__retry__policies={"crash": {"max_retries": 1, "retry_delay": 0}})
    app.workers.start(concurrency=1)
    job = app.enqueue(task, "x")
    app.wait(timeout=60)
    assert job.state == "failed"
    assert [a["outcome"] for a in job.attempts] == [outcome] * 2
    assert job.error.startswith(f"{outcome}:")
    assert app.enqueue("echo", "next").result(timeout=30) == "next"


def test_a_job_over_its_limit_is_killed_while_another_thread_of_its_process_locks_the_job_store(
    make: Make, tmp_path: Path
) -> None:
    app = make(workers__retry__policies={"crash": {"max_retries": 0}})
    app.workers.start(pool="many")
    locks = app.enqueue("thread_lock", "locked", "runs")
    job = app.enqueue("thread_regex", "runs", "locked")
    until((tmp_path / "data" / "locked").exists)
    app.enqueue("echo", "waits until the process is killed")
    until(lambda: job.state == "failed")
    assert [a["outcome"] for a in job.attempts] == ["timeout"]
    assert [a["outcome"] for a in locks.attempts] == ["released"]
    log = (tmp_path / "data/logs/workers.log").read_text()
    assert "job store can't be used" not in log
    assert "locked it for too long" not in log


@pytest.mark.slow
def test_a_worker_that_locks_the_job_store_is_killed_before_an_enqueue_fails(
    make: Make, tmp_path: Path
) -> None:
    app = make(workers__retry__policies={"crash": {"max_retries": 0}})
    app.workers.start(concurrency=1)
    job = app.enqueue("lock", "locked", ".")
    until((tmp_path / "data" / "locked").exists)
    app.enqueue("echo", "waits until the process is killed")
    until(lambda: job.state == "failed")
    assert "locked the job store for" in job.error


def test_a_cancelled_job_is_killed_after_the_grace_period_and_its_worker_replaced(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    app.workers.start(concurrency=1)
    job = app.enqueue("hold", str(tmp_path / "never"))
    until(lambda: job.state == "running")
    name = process.identity(job.worker_pid)
    assert name is not None
    job.cancel()
    assert job.state == "cancelled"
    until(lambda: not process.alive(name))
    assert app.enqueue("echo", "next").result(timeout=30) == "next"
    assert [a["outcome"] for a in job.attempts] == ["cancelled"]
    assert job.state == "cancelled"


def test_a_job_that_is_cancelled_and_retried_runs_again_after_it_was_killed(
    make: Make, tmp_path: Path
) -> None:
    app = make(workers__cancel_grace=600)
    app.workers.start(concurrency=1)
    go = tmp_path / "go"
    job = app.enqueue("hold", str(go))
    until(lambda: job.state == "running")
    name = process.identity(job.worker_pid)
    assert name is not None
    job.cancel()
    job.retry()
    until(lambda: not process.alive(name))
    go.touch()
    assert job.result(timeout=30) == "released"
    assert [a["outcome"] for a in job.attempts] == ["cancelled", "completed"]


def test_stop_lets_a_short_job_finish_and_returns_a_long_one_to_the_queue(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    app.workers.start(concurrency=2)
    go = tmp_path / "go"
    short, long = app.enqueue("hold", str(go)), app.enqueue("hold", str(tmp_path / "never"))
    until(lambda: app.status().jobs["running"] == 2)
    supervisor = app.workers.status().supervisor
    assert supervisor is not None
    stopping = subprocess.Popen(
        [sys.executable, "-c", "import paise2nb, sys;"
         "paise2nb.open('development', sys.argv[1]).workers.stop(timeout=3)", str(app.data_dir)]
    )  # fmt: skip
    until(lambda: any(w["state"] == "stopping" for w in app.workers.status().workers))
    go.touch()
    assert stopping.wait(60) == 0
    assert short.state == "completed"
    assert (long.state, long.attempt) == ("queued", 0)
    assert [a["outcome"] for a in long.attempts] == ["released"]
    assert app.workers.status().workers == []
    assert process.identity(supervisor["pid"]) is None


def test_a_stop_charges_no_job_even_if_other_apps_open_meanwhile(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    app.workers.start(concurrency=4)
    jobs = app.enqueue_many("hold", [str(tmp_path / f"never {number}") for number in range(4)])
    until(lambda: app.status().jobs["running"] == 4)
    stopping = subprocess.Popen(
        [sys.executable, "-c", "import paise2nb, sys;"
         "paise2nb.open('development', sys.argv[1]).workers.stop(timeout=0)", str(app.data_dir)]
    )  # fmt: skip
    while stopping.poll() is None:
        make().close()  # opening an app rescues the jobs of dead workers
    make()
    assert stopping.returncode == 0
    assert [(job.state, job.attempt) for job in jobs] == [("queued", 0)] * 4
    assert {a["outcome"] for job in jobs for a in job.attempts} == {"released"}


def test_a_stop_charges_no_job_even_if_the_job_store_is_locked_meanwhile(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    app.workers.start(concurrency=1, drain_timeout=0)
    job = app.enqueue("hold", str(tmp_path / "never"))
    until(lambda: job.state == "running")
    [worker] = [row for row in app.queue.job_store.workers() if row["jobs"]]
    supervisor = app.workers.status().supervisor
    assert supervisor is not None
    with closing(sqlite3.connect(app.data_dir / "tasks.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        os.kill(supervisor["pid"], signal.SIGTERM)
        until(lambda: not process.alive(worker["process"]))
        other.execute("ROLLBACK")
    until(lambda: app.workers.status().supervisor is None)
    assert [a["outcome"] for a in job.attempts] == ["released"]
    assert (job.state, job.attempt) == ("queued", 0)


def test_stop_without_workers_reports_that_none_run(make: Make) -> None:
    assert "not running" in str(make().workers.stop())


def test_after_supervisor_and_workers_were_killed_a_new_start_runs_their_jobs(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    found = app.workers.start(concurrency=1)
    job = app.enqueue("hold", str(tmp_path / "never"))
    until(lambda: job.state == "running")
    assert found.supervisor is not None
    for pid in [found.supervisor["pid"], *(w["pid"] for w in found.workers)]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not app.workers.present())
    (tmp_path / "never").touch()
    app.workers.start(concurrency=1)
    assert job.result(timeout=30) == "released"


def test_a_start_waits_for_its_own_workers_and_not_for_those_of_a_dead_supervisor(
    make: Make,
) -> None:
    app = make()
    first = app.workers.start(concurrency=1)
    assert first.supervisor is not None
    orphans = [w["pid"] for w in first.workers]
    for pid in orphans:
        os.kill(pid, signal.SIGSTOP)  # its row still says ready
    os.kill(first.supervisor["pid"], signal.SIGKILL)
    until(lambda: app.workers.status().supervisor is None)
    again = app.workers.start(concurrency=1)
    own = [w["pool"] for w in again.workers if w["pid"] not in orphans and w["state"] == "idle"]
    assert sorted(own) == ["default", "fetch", "many"]
    for pid in orphans:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not {w["pid"] for w in app.workers.status().workers} & set(orphans))


def test_idle_workers_exit_and_an_enqueue_restarts_them(make: Make) -> None:
    app = make(workers__idle_exit=0.3)
    app.workers.start(concurrency=1)
    until(lambda: not app.workers.present())
    assert app.enqueue("echo", "wake up").result(timeout=30) == "wake up"


def test_an_enqueue_restarts_workers_while_their_supervisor_is_about_to_end(make: Make) -> None:
    app = make(workers__idle_exit=0.3)
    app.workers.start(concurrency=1)
    until(lambda: not app.workers.present())
    with closing(Listener(app.queue.job_store.path, SUPERVISOR)):  # it has not removed its socket
        job = app.enqueue("echo", "wake up")
    assert job.result(timeout=30) == "wake up"


def test_workers_that_an_enqueue_restarts_have_its_settings(make: Make) -> None:
    make(workers__idle_exit=0.3).workers.start(concurrency=1)
    app = make(workers__memory_mb=777, workers__idle_exit=0.3)
    until(lambda: not app.workers.present())
    settings = Settings.from_json(app.enqueue("where", "x").result(timeout=30)["settings"])
    assert settings.workers.memory_mb == 777
    [worker] = [row for row in app.workers.status().workers if row["pool"] == "default"]
    assert worker["error"] is None  # --concurrency was typed, and is kept


def test_an_enqueue_does_not_restart_workers_that_the_user_stopped(make: Make) -> None:
    app = make(workers__idle_exit=0.3)
    app.workers.start(concurrency=1)
    app.workers.stop()
    app.enqueue("echo", "waits")
    assert not app.workers.present()


def test_the_supervisor_stays_while_a_job_is_scheduled_and_restarts_the_workers(
    make: Make,
) -> None:
    app = make(workers__idle_exit=0.3)
    app.workers.start(concurrency=1)
    job = app.enqueue("echo", "later", delay=2)
    until(lambda: not app.workers.status().workers)
    assert app.workers.status().supervisor is not None
    assert until(lambda: job.state == "completed")


def test_a_start_restarts_workers_that_exited_while_their_supervisor_stayed(
    make: Make,
) -> None:
    app = make(workers__idle_exit=1)
    app.workers.start(pool="default", concurrency=1)
    app.enqueue("echo", "later", delay=3600)
    until(lambda: not app.workers.status().workers)
    settled = make(workers__idle_exit=1).workers
    assert {w["pool"] for w in settled.start(pool="default").workers} == {"default"}
    until(lambda: not settled.status().workers)
    assert {w["pool"] for w in settled.start(pool="many").workers} == {"default", "many"}


def test_a_start_while_workers_drain_waits_and_starts_a_new_supervisor(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    first = app.workers.start(concurrency=1).supervisor
    assert first is not None
    job = app.enqueue("hold", str(tmp_path / "go"))
    until(lambda: job.state == "running")
    os.kill(first["pid"], signal.SIGTERM)
    until(lambda: any(w["state"] == "stopping" for w in app.workers.status().workers))
    program = (
        "import paise2nb, sys; print(paise2nb.open('development', sys.argv[1], "
        "{'plugins': [sys.argv[2]], 'workers.pools.many.threads': 4})"
        ".workers.start(concurrency=1).supervisor['pid'])"
    )
    arguments = [sys.executable, "-c", program, str(app.data_dir), str(tmp_path / "extra.py")]
    starting = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    (tmp_path / "go").touch()
    said, _ = starting.communicate(timeout=60)
    assert starting.returncode == 0
    assert int(said) == app.workers.status().supervisor["pid"] != first["pid"]
    assert job.state == "completed"


def test_burst_workers_exit_when_all_jobs_are_done(make: Make) -> None:
    app = make()
    jobs = app.enqueue_many("echo", [str(n) for n in range(50)])
    app.workers.start(concurrency=1, burst=True)
    until(lambda: not app.workers.present())
    assert app.status().jobs["completed"] == len(jobs)


def test_a_burst_of_one_pool_does_not_wait_for_the_others(make: Make) -> None:
    app = make(workers__pools={"many": {"tasks": ["echo"], "threads": 4}})
    jobs = app.enqueue_many("echo", [str(n) for n in range(50)])
    other = app.enqueue("stumble", "later")
    app.workers.start(pool="many", burst=True)
    until(lambda: not app.workers.present())
    assert [job.state for job in jobs] == ["completed"] * len(jobs)
    assert other.state == "queued"


def test_the_pool_default_is_listed_first(make: Make) -> None:
    app = make(workers__pools={"many": {"threads": 4}, "a": {"tasks": ["echo"]}})
    found = app.workers.start(concurrency=1)
    assert [row["pool"] for row in found.workers] == ["default", "a", "fetch", "many"]
    assert found.summary() == "4 workers (default 1, a 1, fetch 1, many 1)"


@pytest.mark.parametrize("concurrency", [1.5, "2", 0, 1025])
def test_a_concurrency_that_is_no_number_is_refused(make: Make, concurrency: Any) -> None:
    with pytest.raises(UsageError, match="from 1 to 1024, or auto"):
        make().workers.start(concurrency=concurrency)


def test_workers_do_not_start_with_a_broken_plugin_and_status_says_why(
    make: Make, tmp_path: Path
) -> None:
    app = make()
    plugin = tmp_path / "extra.py"
    plugin.write_text("import nonsense_that_is_not_there\n")
    with pytest.raises(WorkersError, match="nonsense_that_is_not_there"):
        app.workers.start(concurrency=1)
    found = app.workers.status()
    assert "nonsense_that_is_not_there" in (found.problem or "")
    assert any(w["state"] == "failed" and w["error"] for w in found.workers)
    assert app.workers.stop(timeout=0).workers == []
    plugin.write_text(PLUGIN)
    app.workers.start(concurrency=1)
    assert app.enqueue("echo", "fixed").result(timeout=30) == "fixed"


def test_status_reports_workers_with_other_settings_and_restart_fixes_it(make: Make) -> None:
    app = make()
    app.workers.start(concurrency=1)
    app.enqueue("fetch", "http://127.0.0.1:9/").wait(timeout=30)
    app = make(fetch__allow_private_addresses=True)
    assert "other settings" in (app.workers.status().problem or "")
    [failure] = app.status().failures
    assert failure["commands"] == "paise2 worker restart, then paise2 retry --error blocked"
    before = app.workers.status().supervisor
    found = app.workers.restart()
    assert found.problem is None
    assert found.supervisor != before
    [failure] = app.status().failures
    assert failure["commands"] == "paise2 retry --error blocked"
    assert [w["pool"] for w in found.workers].count("default") == 1  # the option of the start


def test_a_start_warns_of_a_network_filesystem(make: Make, tmp_path: Path) -> None:
    app = make()
    words = ("worker", "start", "--daemonize", "--pool", "default", "--concurrency", "1")
    started = paise2_on("nfs4", tmp_path, "--data-dir", str(app.data_dir), *words)
    assert started.returncode == 0, started.stderr
    assert "network filesystem (nfs4)" in started.stdout
    assert "choose a local directory with --data-dir" in started.stdout


def test_many_starts_at_the_same_time_start_one_supervisor(make: Make, tmp_path: Path) -> None:
    app = make()
    program = (
        "import paise2nb, sys; app = paise2nb.open('development', sys.argv[1], "
        "{'plugins': [sys.argv[2]], 'workers.pools.many.threads': 4});"
        "print(app.workers.start(concurrency=1).supervisor['pid'])"
    )
    arguments = [sys.executable, "-c", program, str(app.data_dir), str(tmp_path / "extra.py")]
    starts = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(6)]
    said = {start.communicate(timeout=120)[0] for start in starts}
    assert [start.returncode for start in starts] == [0] * 6
    assert len(said) == 1
    assert len([w for w in app.workers.status().workers if w["pool"] == "default"]) == 1


def test_a_process_with_a_reused_pid_is_never_signalled(make: Make) -> None:
    app = make()
    app.workers.start(concurrency=1)
    app.workers.stop()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        real = process.identity(other.pid)
        assert real is not None
        pid, start, here = real.split("-", 2)
        app.queue.job_store.set_supervisor(
            process=f"{pid}-{int(start) - 1}-{here}", state="running"
        )
        assert "not running" in str(app.workers.stop(timeout=0))
        assert app.workers.start(concurrency=1).supervisor is not None
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_log_is_private_and_names_events(make: Make) -> None:
    app = make()
    app.workers.start(concurrency=1)
    app.workers.stop()
    log = app.logs(50)
    assert any("supervisor starts" in line for line in log.lines)
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_row_of_the_supervisor_has_the_options_of_the_start(make: Make) -> None:
    app = make()
    app.workers.start(concurrency=1)
    row = app.queue.job_store.supervisor()
    assert row is not None
    assert json.loads(row["options"])["sizes"] == {"default": 1, "fetch": 1, "many": 1}
