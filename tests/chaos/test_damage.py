"""The disk fills up; the job table is deleted, truncated, overwritten, or read for very long."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from paise2nb.app import App
from paise2nb.core import processes as process
from paise2nb.core.errors import StorageError
from paise2nb.core.sqlite import LOG_BYTES
from paise2nb.doctor import Finding, examine
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario
from tests.waiting import until


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of 12 MB of its own."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("machine: no right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(filler: Path) -> None:
    """Take all the space that is left."""
    with filler.open("wb", buffering=0) as file:
        for size in (100_000, 1000, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@scenario(
    8, "a full disk", short={"rounds": 1, "seconds": 1}, full={"rounds": 10, "seconds": 10}, seeds=3
)
def test_a_full_disk_pauses_the_queue_and_charges_nobody(
    environment: Environment, scale: Scale
) -> None:
    small = environment.place / "small"
    with small_disk(small):
        environment.data_dir = small / "data"
        app = environment.open()
        app.workers.start()
        expected: set[str] = set()
        said = []
        for turn in range(int(scale["rounds"])):
            kinds = {kind: [f"{kind} {turn} {n}" for n in range(30)] for kind in ("tree", "flaky")}
            app.enqueue_many("tree", [(key, 0.01) for key in kinds["tree"]])
            app.enqueue_many("flaky", kinds["flaky"])
            expected |= {*kinds["tree"], *kinds["flaky"], *(f"{k}/leaf" for k in kinds["tree"])}
            done = app.status().jobs["completed"]
            goal = done + environment.random.randint(1, 20)
            until(lambda goal=goal: app.status().jobs["completed"] >= goal)
            fill(small / "filler")
            began = time.monotonic()
            with pytest.raises(StorageError, match="no space left on the disk; free some"):
                enqueue_until_refused(app, f"late {turn}", expected)
            assert "no space left" in until(lambda: app.status().paused)
            said.append(time.monotonic() - began)
            until(lambda: not app.status().jobs["running"] or app.status().paused)
            until(lambda began=began: time.monotonic() - began >= scale["seconds"])
            (small / "filler").unlink()
            app.wait(timeout=60)
            assert app.status().paused is None
        environment.check_all_done(expected)
        # Its own failure is what a flaky job is charged with, and nothing else.
        charged = environment.rows(
            "SELECT error FROM attempts WHERE outcome != 'released' AND error != ?",
            "ConnectionError: the first time fails",
        )
        assert not [row["error"] for row in charged]
        attempts = environment.rows("SELECT DISTINCT task, attempt FROM jobs ORDER BY task")
        assert {row["task"]: row["attempt"] for row in attempts} == {
            "effect": 1, "flaky": 2, "tree": 1,
        }  # fmt: skip
        environment.within(max(said), 2, "error said after")
        app.workers.stop(timeout=10)
        app.close()


def enqueue_until_refused(app: App, name: str, accepted: set[str]) -> None:
    for number in range(100_000):
        app.enqueue("effect", f"{name} {number}")
        accepted.add(f"{name} {number}")


def delete(path: Path) -> None:
    for file in path.parent.glob("tasks.db*"):
        if file.is_file() and not file.name.endswith((".lock", ".sleepers")):
            file.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with closing(sqlite3.connect(path)) as connection:  # what is in the log would mend it again
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\x5a" * size)


HURTS: tuple[Callable[[Path], None], ...] = (delete, truncate, shorten, overwrite)


@scenario(9, "the job table destroyed", short={"rounds": 1}, full={"rounds": 10})
def test_a_destroyed_job_table_is_noticed_put_aside_and_accepts_nothing_more(
    environment: Environment, scale: Scale
) -> None:
    noticed = []
    for number, hurt in enumerate(HURTS * int(scale["rounds"])):
        environment.data_dir = environment.place / f"data {number}"
        app = environment.open()
        app.workers.start(concurrency=1)
        app.enqueue_many("effect", [str(n) for n in range(1000)])
        app.wait(timeout=60)
        app.queue.job_store.checkpoint()
        assert app.status().jobs["completed"] == 1000
        path = app.queue.job_store.path
        names = [row["process"] for row in environment.workers()]
        began = time.monotonic()
        hurt(path)
        until(lambda app=app: is_refused(app))
        until(lambda names=names: not any(map(process.alive, names)))
        noticed.append(time.monotonic() - began)
        with pytest.raises(StorageError):
            app.enqueue("effect", "lost?")
        finding = wrong(app, "jobs")
        if hurt is delete:
            assert "is gone" in finding.text
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
        return not app.queue.job_store.path.exists()
    return False


def wrong(app: App, check: str) -> Finding:
    """What `doctor` finds wrong there; it says what to do."""
    [finding] = [f for f in examine(lambda: app.settings).findings if f.check == check]
    assert finding.state != "ok"
    assert finding.advice
    return finding


@scenario(12, "a reader that holds its transaction", short={"seconds": 0}, full={"seconds": 60})
def test_the_log_is_bounded_again_after_a_long_reader(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=1)
    log = app.data_dir / "tasks.db-wal"
    with closing(sqlite3.connect(app.queue.job_store.path)) as reader:
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
        assert wrong(app, "log").state == "warning"
        reader.rollback()
    until(lambda: grow(app) and log.stat().st_size <= LOG_BYTES)
    environment.figures["log afterwards"] = f"{log.stat().st_size / 1e6:.0f} MB"
    assert not [f for f in examine(lambda: app.settings).findings if f.check == "log"]


def grow(app: App) -> bool:
    app.enqueue_many("effect", [os.urandom(8).hex() for _ in range(1000)])
    return True
