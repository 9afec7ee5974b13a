"""The health check: its reasons, its exit status, and that it changes nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.commands import Session, main
from paise2nb.core.display import Message
from paise2nb.core.errors import UsageError
from tests import example_plugin
from tests.small_disk import fill, small_disk
from tests.waiting import until

Run = Callable[..., Message]


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "plugin.py").write_text(example_plugin.SOURCE)
    return str(tmp_path / "plugin.py")


@pytest.fixture
def app(tmp_path: Path, plugin: str) -> Iterator[App]:
    settings = {"plugins": [plugin], "workers.pools": {}}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        yield app
        app.workers.stop(timeout=5)


@pytest.fixture
def health(tmp_path: Path) -> Run:
    def run(*options: str) -> Message:
        checked: Message = main(
            ["--data-dir", str(tmp_path / "data"), "health", *options], Session()
        )
        return checked

    return run


def codes(checked: Message) -> list[str]:
    assert checked.exit_status == int(bool(checked.reasons))
    assert checked.to_dict()["healthy"] is not bool(checked.reasons)
    return [reason["code"] for reason in checked.reasons]


def contents(directory: Path) -> tuple[list[Path], list[str]]:
    """The names of the files, and all rows of the job store."""
    with closing(sqlite3.connect(directory / "tasks.db")) as connection:
        return sorted(directory.rglob("*")), list(connection.iterdump())


def test_a_data_directory_without_work_is_healthy(app: App, health: Run) -> None:
    assert codes(health()) == []
    assert str(health()) == "healthy"
    assert health("--max-age", "1", "--max-failed", "0").to_dict() == {
        "healthy": True, "reasons": [],
    }  # fmt: skip


def test_a_missing_data_directory_is_healthy_and_not_created(tmp_path: Path, health: Run) -> None:
    assert codes(health()) == []
    assert list(tmp_path.iterdir()) == []


def test_workers_that_are_missing_while_jobs_wait(app: App, health: Run) -> None:
    app.enqueue("echo", "waits")
    [reason] = health().reasons
    assert tuple(reason.values()) == (
        "workers_missing", "1 job waits and no worker runs; start some: paise2 worker start",
    )  # fmt: skip
    app.workers.start(concurrency=1)
    app.wait(timeout=60)
    assert codes(health()) == []


def test_a_job_that_has_waited_for_too_long(app: App, health: Run) -> None:
    app.enqueue("echo", "waits")
    with closing(sqlite3.connect(app.data_dir / "tasks.db")) as connection, connection:
        connection.execute("UPDATE jobs SET enqueued_at = enqueued_at - 3600")
    assert codes(health("--max-age", "2h")) == ["workers_missing"]
    checked = health("--max-age", "600")
    assert codes(checked) == ["workers_missing", "oldest_waiting"]
    assert "waited for 1 h" in checked.reasons[1]["text"]
    assert "longer than 10 min" in checked.reasons[1]["text"]
    with pytest.raises(UsageError, match=r"'soon' is not a time span"):
        health("--max-age", "soon")


def test_pages_that_failed_in_the_last_hour(tmp_path: Path, app: App, health: Run) -> None:
    page = tmp_path / "empty.txt"
    page.write_text("")
    app.workers.start(concurrency=1)
    app.enqueue("fetch", str(page)).wait(timeout=60)
    assert codes(health("--max-failed", "1")) == codes(health()) == []
    checked = health("--max-failed", "0")
    assert codes(checked) == ["failed_rate"]
    assert "1 page failed in the last hour, more than 0" in checked.reasons[0]["text"]
    with closing(sqlite3.connect(app.data_dir / "tasks.db")) as connection, connection:
        connection.execute("UPDATE jobs SET finished_at = finished_at - 3700")
    assert codes(health("--max-failed", "0")) == []


def test_a_paused_queue_needs_no_workers(app: App, health: Run) -> None:
    app.enqueue("echo", "waits")
    app.workers.pause()
    checked = health()
    assert codes(checked) == ["paused"]
    assert "paise2 resume" in str(checked)


def test_a_recurring_job_whose_last_run_failed(app: App, health: Run) -> None:
    app.workers.start(concurrency=1)
    job = app.enqueue("stumble", "over a stone", every=3600)
    until(lambda: app.queue.job_store.recurring_failed())
    checked = health()
    assert codes(checked) == ["recurring_failed"]
    assert f"job {job.id} (stumble over a stone), every 1 h, failed" in str(checked)


def test_a_stopped_worker_is_named(app: App, health: Run) -> None:
    app.workers.start(concurrency=1)
    worker = next(w for w in app.workers.status().workers if w["pool"] == "default")
    app.workers.pause()
    app.enqueue("echo", "waits")
    os.kill(worker["pid"], signal.SIGSTOP)
    try:
        with closing(sqlite3.connect(app.data_dir / "tasks.db")) as connection, connection:
            connection.execute(
                "UPDATE workers SET heartbeat_at = heartbeat_at - 40 WHERE pool = 'default'"
            )
        checked = health()
        assert codes(checked) == ["paused", "workers_missing"]
        assert f"kill -CONT {worker['pid']}" in checked.reasons[1]["text"]
        sign = f"the worker of pool default (pid {worker['pid']}) has given no sign for 4"
        assert sign in str(checked)
    finally:
        os.kill(worker["pid"], signal.SIGCONT)


def test_a_full_disk_and_lost_or_damaged_jobs(tmp_path: Path, health: Run) -> None:
    data = tmp_path / "data"
    with small_disk(data):
        data.chmod(0o700)
        with paise2nb.open("development", data):
            pass
        fill(data / "filler")
        assert codes(health()) == ["disk_free"]
        (data / "filler").unlink()
        kept = (data / "tasks.db").read_bytes()
        (data / "tasks.db").write_bytes(b"no database " * 1000)
        assert codes(health()) == ["disk_free", "storage"]
        (data / "tasks.db").unlink()
        checked = health()
        assert "tasks.db is missing" in str(checked)
        assert not (data / "tasks.db").exists()
        (data / "tasks.db").write_bytes(kept)
        assert codes(health()) == ["disk_free"]


def test_lost_jobs_that_other_machines_run_too(tmp_path: Path, health: Run) -> None:
    paise2nb.open("development", tmp_path / "data").close()
    (tmp_path / "data" / "tasks.db").unlink()
    assert codes(health("--set", "task_queue.provider=redis")) == ["storage"]


def test_the_check_changes_nothing_and_loads_no_plugins(tmp_path: Path, app: App) -> None:
    """The row of a dead worker stays: it is rescued by a supervisor."""
    job = app.enqueue("echo", "runs")
    script = (
        "import os, sys; from pathlib import Path\n"
        "from paise2nb.jobs.store import JobStore; from paise2nb.jobs.models import Limits\n"
        "store = JobStore(Path(sys.argv[1]))\n"
        "worker = store.register('default', 1, 'ready')\n"
        "assert store.claim(worker, {'echo': Limits(60, 100)})\n"
        "os._exit(0)"
    )
    path = app.data_dir / "tasks.db"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    before = contents(app.data_dir)
    words = ["--data-dir", str(app.data_dir), "--set", "plugins=[missing.py]", "health", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "paise2nb", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert [r["code"] for r in json.loads(done.stdout)["reasons"]] == ["workers_missing"]
    assert app.job(job.id).state == "running"
    assert contents(app.data_dir) == before


def test_one_line_for_each_reason_and_the_exit_status(app: App) -> None:
    app.enqueue("echo", "waits")
    app.workers.pause("default")
    words = [sys.executable, "-m", "paise2nb", "--data-dir", str(app.data_dir), "health"]
    words += ["--max-age", "0"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (1, "", 2)
