"""Workers in containers: what other pid namespaces say about them, and what their end costs."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.core import processes
from paise2nb.jobs.worker_registry import LEASE_SECONDS
from tests import example_plugin
from tests.namespaces import Container, run_in_namespace, unshare
from tests.waiting import until

PLUGIN = (
    example_plugin.SOURCE
    + """
import os, subprocess

@task("leave", max_retries=0)
def leave(context, word):
    subprocess.Popen(["sh", "-c", "setsid sleep 600 & setsid sleep 600 & exit 0"]).wait()
    os._exit(9)
"""
)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "extra.py").write_text(PLUGIN)
    settings = {"plugins": [str(tmp_path / "extra.py")], "workers.pools": {}}
    with paise2nb.open("development", data_dir=tmp_path / "data", settings=settings) as app:
        yield app
        if app.data_dir.exists():
            app.workers.stop(timeout=0)


def paise2(app: App, *words: str) -> list[str]:
    """A command of the shell on the data directory of that app."""
    plugin = app.settings.plugins[0]
    options = ["--data-dir", str(app.data_dir), "--set", f"plugins=[{plugin}]"]
    options += ["--set", "workers.pools={}", "--set", "workers.concurrency=1"]
    return [sys.executable, "-m", "paise2nb", *options, *words]


def container(app: App, *words: str, **options: Any) -> Container:
    return Container(
        paise2(app, *words, "worker", "start"), **{"stderr": subprocess.DEVNULL, **options}
    )


def change(app: App, sql: str) -> None:
    with closing(sqlite3.connect(app.data_dir / "tasks.db", timeout=60)) as connection:
        connection.execute(sql)
        connection.commit()


def end_leases(app: App) -> None:
    for table in ("workers", "supervisor"):
        change(app, f"UPDATE {table} SET heartbeat_at = heartbeat_at - {2 * LEASE_SECONDS}")


def outcomes(app: App, job_id: int) -> list[str]:
    return [attempt["outcome"] for attempt in app.job(job_id).attempts]


def test_status_start_and_stop_say_that_the_workers_run_elsewhere(app: App, tmp_path: Path) -> None:
    job = app.enqueue("hold", str(tmp_path / "go"))
    with container(app):
        until(lambda: job.state == "running")
        place = f"in another container or on another machine ({socket.gethostname()})"
        found = app.workers.status()
        assert (place in found.summary(), found.problem) == (True, None)
        assert place in str(app.status())
        assert {worker["host"] for worker in found.workers} == {socket.gethostname()}
        assert [job.id] in [worker["jobs"] for worker in found.workers]
        for words in (["worker", "start", "--daemonize"], ["worker", "start"], ["worker", "stop"]):
            done = run_in_namespace(paise2(app, *words))
            assert (done.returncode, place in done.stderr) == (1, True), done.stderr
            assert "Traceback" not in done.stderr
        assert (job.state, job.attempts) == ("running", [])
    end_leases(app)


@pytest.mark.parametrize("command", [["status"], ["job", "1"], ["jobs"], ["doctor"], ["items"]])
def test_reading_from_here_changes_no_job_of_a_container_that_is_gone(
    app: App, command: list[str], tmp_path: Path
) -> None:
    job = app.enqueue("hold", str(tmp_path / "go"))
    with container(app):
        until(lambda: job.state == "running")
    end_leases(app)
    subprocess.run(paise2(app, *command), check=False, capture_output=True, timeout=120)
    assert (job.state, job.attempts) == ("running", [])


def test_the_job_of_a_container_that_is_gone_is_uncharged_once(app: App, tmp_path: Path) -> None:
    job = app.enqueue("hold", str(tmp_path / "go"))
    with container(app):
        until(lambda: job.state == "running")
    end_leases(app)
    with container(app):
        until(lambda: job.state == "running" and len(job.attempts) == 1)
    end_leases(app)
    # Twice in succession it was alone in the process that disappeared.
    app.workers.start(concurrency=1)
    until(lambda: len(job.attempts) == 2)
    assert outcomes(app, job.id) == ["released", "crashed"]
    (tmp_path / "go").touch()
    job.wait(timeout=60)
    assert job.state == "completed"


def test_a_start_takes_over_when_the_lease_of_a_killed_container_has_run_out(
    app: App, tmp_path: Path
) -> None:
    job = app.enqueue("hold", str(tmp_path / "go"))
    with container(app):
        until(lambda: job.state == "running")
    # From now: the last heartbeat may be up to three seconds old.
    at = app.queue.job_store.now() - LEASE_SECONDS + 4
    for table in ("workers", "supervisor"):
        change(app, f"UPDATE {table} SET heartbeat_at = {at}")
    assert app.workers.status().supervisor is not None  # unknown is not dead
    assert "started" in str(app.workers.start(concurrency=1))
    (tmp_path / "go").touch()
    job.wait(timeout=60)
    assert outcomes(app, job.id) == ["released", "completed"]


def test_workers_need_the_proc_of_their_own_namespace(app: App) -> None:
    command = [word for word in unshare() if word != "--mount-proc"]
    done = subprocess.run(
        [*command, *paise2(app, "worker", "start")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "mount its own: mount -t proc proc /proc" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_supervisor_that_was_replaced_leaves(app: App, tmp_path: Path) -> None:
    with container(app) as replaced:
        until(app.workers.present)
        end_leases(app)
        change(app, "UPDATE supervisor SET process = '1-1-another-machine'")
        assert replaced.process.wait(timeout=60) == 1  # a service starts it again
    end_leases(app)
    assert not app.workers.present()


def test_as_pid_1_a_command_ends_on_sigterm_before_it_supervises_anything() -> None:
    program = (
        "import os, signal; from paise2nb.__main__ import main; main(['--version']);"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    ended = run_in_namespace([sys.executable, "-c", program])
    assert ended.returncode == 128 + signal.SIGTERM


def test_as_pid_1_a_supervisor_leaves_no_zombies(app: App) -> None:
    app.enqueue_many("leave", ["a", "b"])
    with container(app) as found:
        until(lambda: app.status().jobs["failed"] == 2)
        until(lambda: not zombies(found.first))
    end_leases(app)


def zombies(pid: int) -> list[int]:
    return [child for child in processes.descendants(pid) if processes.identity(child) is None]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_drain_after_sigterm_has_its_own_limit_and_says_what_it_waits_for(
    app: App, tmp_path: Path, as_json: bool
) -> None:
    job = app.enqueue("hold", str(tmp_path / "never"))
    options = ["--set", "logging.format=json"] if as_json else []
    command = paise2(app, *options, "worker", "start", "--drain-timeout", "1")
    with Container(command, stderr=subprocess.PIPE) as started:
        until(lambda: job.state == "running")
        started.terminate()
        said = started.process.communicate(timeout=60)[1]
    assert started.process.returncode == 0
    assert "draining for at most 1 s" in said
    assert f"waiting at most 1 s for jobs {job.id} (hold)" in said
    assert (job.state, outcomes(app, job.id)) == ("queued", ["released"])
    if as_json:
        records = [json.loads(line) for line in said.splitlines()]
        assert {record["level"] for record in records} >= {"info"}
        assert all({"time", "message"} <= record.keys() for record in records)


def test_a_copied_database_has_none_of_the_workers(app: App, tmp_path: Path) -> None:
    job = app.enqueue("hold", str(tmp_path / "go"))
    app.workers.start(concurrency=1)
    until(lambda: job.state == "running")
    subprocess.run(["cp", "-a", app.data_dir, tmp_path / "copy"], check=True)
    with paise2nb.open("development", data_dir=tmp_path / "copy") as copy:
        assert not copy.workers.present()
        assert copy.status().workers == []
        assert str(copy.workers.stop(timeout=0)).startswith("workers not running")
        assert (copy.job(job.id).state, outcomes(copy, job.id)) == ("queued", ["released"])
    assert app.workers.present()
    assert job.state == "running"
    (tmp_path / "go").touch()
    job.wait(timeout=60)
    assert outcomes(app, job.id) == ["completed"]


def test_a_worker_of_another_boot_is_judged_by_its_heartbeat(app: App) -> None:
    store = app.queue.job_store
    store.register("default", 1, "ready")
    change(app, "UPDATE workers SET process = '1-1-0123abcd-4026531836'")
    assert [row["presence"] for row in store.workers()] == ["elsewhere"]
    end_leases(app)
    assert [row["presence"] for row in store.workers()] == ["lost"]
    change(app, "UPDATE workers SET heartbeat_at = heartbeat_at + 1e6")
    assert [row["presence"] for row in store.workers()] == ["lost"]
    change(app, f"UPDATE workers SET process = '{processes.identity(os.getpid())}'")
    assert [row["presence"] for row in store.workers()] == ["here"]
    change(app, "UPDATE workers SET file = '1:1'")
    assert [row["presence"] for row in store.workers()] == ["copied"]
