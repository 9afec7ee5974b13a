"""A full disk, a destroyed database of jobs, and a reader that keeps its transaction open."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.app import App
from paise2nb.core import processes as process
from paise2nb.core.errors import StorageError
from paise2nb.core.sqlite import LOG_BYTES
from paise2nb.doctor import Finding, examine
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario
from tests.small_disk import fill, small_disk
from tests.waiting import until


@scenario(
    8, "a full disk", short={"rounds": 1, "seconds": 1}, full={"rounds": 10, "seconds": 10}, seeds=3
)
def test_a_full_disk_pauses_the_queue_and_charges_no_attempt(
    environment: Environment, scale: Scale
) -> None:
    small = environment.root / "small"
    with small_disk(small):
        environment.data_dir = small / "data"
        app = environment.open()
        app.workers.start()
        expected: set[str] = set()
        delays = []
        for round_number in range(int(scale["rounds"])):
            trees = [f"tree {round_number} {n}" for n in range(30)]
            flaky = [f"flaky {round_number} {n}" for n in range(30)]
            app.enqueue_many("tree", [(key, 0.01) for key in trees])
            app.enqueue_many("flaky", flaky)
            expected |= {*trees, *flaky, *(f"{key}/leaf" for key in trees)}
            done = app.status().jobs["completed"]
            goal = done + environment.random.randint(1, 20)
            until(lambda goal=goal: app.status().jobs["completed"] >= goal)
            fill(small / "filler")
            began = time.monotonic()
            with pytest.raises(StorageError, match="no space left on the disk; free some"):
                enqueue_until_refused(app, f"late {round_number}", expected)
            assert "no space left" in until(lambda: app.status().paused)
            delays.append(time.monotonic() - began)
            until(lambda: not app.status().jobs["running"] or app.status().paused)
            until(lambda began=began: time.monotonic() - began >= scale["seconds"])
            (small / "filler").unlink()
            app.wait(timeout=60)
            assert app.status().paused is None
        environment.check_all_done(expected)
        # A flaky job is charged with the failure that it raises, and with nothing else.
        charged = environment.rows(
            "SELECT error FROM attempts WHERE outcome != 'released' AND error != ?",
            "ConnectionError: the first time fails",
        )
        assert not [row["error"] for row in charged]
        attempts = environment.rows("SELECT DISTINCT task, attempt FROM jobs ORDER BY task")
        assert {row["task"]: row["attempt"] for row in attempts} == {
            "effect": 1, "flaky": 2, "tree": 1,
        }  # fmt: skip
        environment.within(max(delays), 2, "error shown after")
        app.workers.stop(timeout=10)
        app.close()


def enqueue_until_refused(app: App, name: str, accepted: set[str]) -> None:
    for number in range(100_000):
        app.enqueue("effect", f"{name} {number}")
        accepted.add(f"{name} {number}")


def delete(path: Path) -> None:
    for file in path.parent.glob("tasks.db*"):
        if file.is_file() and not file.name.endswith((".lock", ".sleepers", ".spinner")):
            file.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with closing(sqlite3.connect(path)) as connection:  # the write-ahead log would repair the file
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\x5a" * size)


DAMAGES: tuple[Callable[[Path], None], ...] = (delete, truncate, shorten, overwrite)


@scenario(
    9,
    "the database of jobs destroyed",
    short={"rounds": 1, "jobs": 200},
    full={"rounds": 10, "jobs": 1000},
)
def test_a_destroyed_job_store_is_noticed_and_renamed_and_accepts_no_job(
    environment: Environment, scale: Scale
) -> None:
    noticed = []
    for number, damage in enumerate(DAMAGES * int(scale["rounds"])):
        environment.data_dir = environment.root / f"data {number}"
        app = environment.open()
        app.workers.start(concurrency=1)
        app.enqueue_many("effect", [str(n) for n in range(int(scale["jobs"]))])
        app.wait(timeout=60)
        environment.job_store.checkpoint()
        assert app.status().jobs["completed"] == scale["jobs"]
        path = environment.data_dir / "tasks.db"
        names = [row["process"] for row in environment.workers()]
        began = time.monotonic()
        damage(path)
        until(lambda app=app: is_refused(app))
        until(lambda names=names: not any(map(process.alive, names)))
        noticed.append(time.monotonic() - began)
        with pytest.raises(StorageError):
            app.enqueue("effect", "lost?")
        finding = problem(app, "jobs")
        if damage is delete:
            assert "is missing" in finding.text
        else:
            [aside, *_] = sorted(path.parent.glob("tasks.db.damaged-*"))
            assert str(aside) in finding.advice
            with pytest.raises(StorageError, match=f"was damaged and is now {aside}: repair it"):
                environment.open()
        assert not path.exists()
    environment.within(max(noticed), 5, "noticed after")


def is_refused(app: App) -> bool:
    try:
        app.status()
    except StorageError:
        return not (app.data_dir / "tasks.db").exists()
    return False


def problem(app: App, check: str) -> Finding:
    """The problem that `doctor` finds in one check, with its advice."""
    [finding] = [f for f in examine(lambda: app.settings).findings if f.check == check]
    assert finding.state != "ok"
    assert finding.advice
    return finding


@scenario(
    12, "a reader that keeps its transaction open", short={"seconds": 0}, full={"seconds": 60}
)
def test_the_write_ahead_log_shrinks_after_a_long_reader(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=1)
    log = app.data_dir / "tasks.db-wal"
    with closing(sqlite3.connect(environment.data_dir / "tasks.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchall()
        began = time.monotonic()
        until(
            lambda: (
                grow(app)
                and log.stat().st_size > 1.5 * LOG_BYTES
                and time.monotonic() - began >= scale["seconds"]
            ),
            seconds=scale["seconds"] + 60,
        )
        environment.figures["log at most"] = f"{log.stat().st_size / 1e6:.0f} MB"
        assert problem(app, "log").state == "warning"
        reader.rollback()
    until(lambda: grow(app) and log.stat().st_size <= LOG_BYTES)
    environment.figures["log afterwards"] = f"{log.stat().st_size / 1e6:.0f} MB"
    assert not [f for f in examine(lambda: app.settings).findings if f.check == "log"]


def grow(app: App) -> bool:
    app.enqueue_many("effect", [os.urandom(8).hex() for _ in range(1000)])
    return True
