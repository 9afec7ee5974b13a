"""What comes while workers that have no work are leaving, or are started again."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.jobs.workers_status import WorkersStatus
from tests.job_stores import suspend
from tests.waiting import until

Open = Callable[[], App]


@pytest.fixture
def open_app(tmp_path: Path) -> Iterator[Open]:
    """Open apps on one data directory. Their only worker leaves soon if there is no work."""
    opened: list[App] = []
    settings: dict[str, Any] = {
        "plugins": ["tests.example_plugin"], "workers.pools": {}, "workers.concurrency": 1,
        "workers.idle_exit": 0.3,
    }  # fmt: skip

    def open_one() -> App:
        opened.append(paise2nb.open("development", tmp_path / "data", settings))
        return opened[-1]

    yield open_one
    opened[0].workers.stop(timeout=0)
    for app in opened:
        app.close()


@pytest.fixture
def idle(open_app: Open) -> App:
    """An app with workers that have left."""
    app = open_app()
    app.workers.start()
    until(lambda: not app.workers.present())
    return app


def log(app: App) -> str:
    """The log of the workers."""
    return (app.data_dir / "logs" / "workers.log").read_text()


def test_a_wait_finds_the_workers_that_its_enqueue_has_started(idle: App) -> None:
    assert idle.enqueue("echo", "first").result() == "first"  # without a timeout


def test_many_enqueues_start_one_supervisor(idle: App) -> None:
    for number in range(30):
        idle.enqueue("echo", number)
    idle.wait(timeout=60)
    assert log(idle).count("supervisor starts") == 2
    assert "running already" not in log(idle)


def test_a_start_after_such_an_enqueue_keeps_its_concurrency(idle: App) -> None:
    idle.enqueue("echo", "first")
    idle.workers.start(concurrency=3)
    assert idle.workers.sizes()["default"] == 3


def test_a_stop_after_such_an_enqueue_stops_the_workers_that_it_has_started(idle: App) -> None:
    idle.enqueue("hold", str(idle.data_dir / "never"))
    assert "stopped" in str(idle.workers.stop(timeout=0))
    idle.enqueue("echo", "waits")
    assert not idle.workers.present()


def waiters(lock: Path) -> int:
    """How many processes wait for a lock of a file."""
    of_file = f":{lock.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and of_file in line for line in lines)


def test_a_start_while_the_supervisor_is_about_to_leave_starts_another_one(open_app: Open) -> None:
    app, other = open_app(), open_app()
    store, lock = app.queue.job_store, Path(f"{app.queue.job_store.path}.lock")
    started: list[WorkersStatus] = []
    thread = threading.Thread(target=lambda: started.append(other.workers.start()))

    def hold(connection: Any) -> bool:
        """Let the supervisor wait to leave, and then the start; False if it has left already."""

        def state() -> str:
            return str(connection.execute("SELECT state FROM supervisor").fetchone()[0])

        if until(lambda: waiters(lock) or state() == "idle", pause=0.001) is True:
            return False
        thread.start()
        until(lambda: waiters(lock) == 2)
        return True

    def has_caught_it() -> bool:
        app.workers.start()
        until(lambda: not store.workers(), pause=0.0005)
        return store.database.write(hold)

    until(has_caught_it)
    thread.join()
    assert [status.supervisor is not None for status in started] == [True]


def test_two_signals_at_once_end_a_drain_but_charge_no_job(idle: App) -> None:
    job = idle.enqueue("hold", str(idle.data_dir / "never"))
    until(lambda: job.state == "running")
    supervisor = idle.workers.status().supervisor
    assert supervisor is not None
    # It gets both before its next step.
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        os.kill(supervisor["pid"], number)
    until(lambda: not idle.workers.present())
    assert job.state == "queued"
    assert [attempt["outcome"] for attempt in job.attempts] == ["released"]


def test_a_worker_that_leaves_before_it_was_seen_to_be_ready_does_not_delay_a_burst(
    open_app: Open,
) -> None:
    app, other = open_app(), open_app()
    store = app.queue.job_store
    app.enqueue("echo", "only")
    thread = threading.Thread(target=lambda: other.workers.start(pool="default", burst=True))
    thread.start()
    until(store.workers, pause=0.0005)
    supervisor = until(store.running_supervisor)
    pid = int(supervisor["process"].split("-")[0])
    suspend(store, pid)  # for it, all that follows happens between two steps
    ready = until(lambda: [row for row in store.workers() if row["state"] == "ready"])
    os.kill(ready[0]["pid"], signal.SIGTERM)  # as if it were replaced
    until(lambda: not store.workers())
    os.kill(pid, signal.SIGCONT)
    until(lambda: not app.workers.present(), 30)
    thread.join()


def is_in(thread: threading.Thread, function: str) -> bool:
    """Whether a thread is in a function with that name."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def test_two_stops_at_once_let_the_running_job_finish(open_app: Open) -> None:
    app, others = open_app(), [open_app(), open_app()]
    app.workers.start()
    gate = app.data_dir / "gate"
    job = app.enqueue("hold", str(gate))
    until(lambda: job.state == "running")
    supervisor = app.workers.status().supervisor
    assert supervisor is not None
    first, second = (threading.Thread(target=other.workers.stop) for other in others)
    first.start()
    until(lambda: (app.queue.job_store.supervisor() or {})["state"] == "stopping")
    suspend(app.queue.job_store, supervisor["pid"])  # it keeps the signals that come
    try:
        second.start()
        until(lambda: is_in(second, "_pause"))
        status = Path(f"/proc/{supervisor['pid']}/status").read_text()
        [pending] = re.findall(r"^ShdPnd:\s*(\w+)", status, re.MULTILINE)
        assert not int(pending, 16) >> signal.SIGTERM - 1 & 1  # it would end the drain
        gate.touch()
    finally:
        os.kill(supervisor["pid"], signal.SIGCONT)
        first.join()
        second.join()
    assert job.state == "completed"


def test_two_changes_of_running_workers_at_once_are_both_kept(open_app: Open) -> None:
    app, others = open_app(), [open_app(), open_app()]
    app.workers.start()
    gate = app.data_dir / "gate"
    job = app.enqueue("hold", str(gate))
    until(lambda: job.state == "running")
    changes = [
        threading.Thread(target=others[0].workers.start, kwargs={"concurrency": 2}),
        threading.Thread(target=others[1].workers.start, kwargs={"drain_timeout": 7}),
    ]

    def hold(connection: Any) -> None:
        for change in changes:
            change.start()
        until(lambda: all(is_in(change, "_sleep_in_queue") for change in changes))

    app.queue.job_store.database.write(hold)
    for change in changes:
        change.join()
    options = json.loads((app.queue.job_store.supervisor() or {})["options"])
    gate.touch()
    assert (options["sizes"]["default"], options["drain_timeout"]) == (2, 7)
