"""The job table is deleted, truncated or overwritten, or its disk fills up, while workers run."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import paise2nb
from paise2nb import process
from paise2nb.app import App
from paise2nb.errors import StorageError
from tests.test_workers import Make, until
from tests.test_workers import make as make

FILL = """
from pathlib import Path
from paise2nb import task

@task("keep", max_retries=0)
def keep(context, number):
    return context.cache.put(bytes([number % 256]) * 40_000)
"""


def is_refused(app: App) -> bool:
    try:
        app.status()
    except StorageError:
        return not app.queue.table.path.exists()
    return False


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with sqlite3.connect(path) as connection:  # what is only in the log would mend the file again
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as file:
        file.write(b"\x5a" * size)


@pytest.mark.parametrize("hurt", [truncate, shorten, overwrite])
def test_a_damaged_job_table_is_put_aside_and_nothing_more_is_accepted(
    make: Make, hurt: Callable[[Path], None]
) -> None:
    app = make()
    app.workers.start(concurrency=1)
    app.enqueue_many("echo", [str(n) for n in range(2000)])
    app.wait(timeout=60)
    app.queue.table.checkpoint()
    assert app.status().jobs["completed"] == 2000
    path = app.queue.table.path
    names = [entry["process"] for entry in app.queue.table.workers()]
    hurt(path)
    until(lambda: is_refused(app))
    [aside, *_] = sorted(path.parent.glob("tasks.db.damaged-*"))
    until(lambda: not any(process.alive(name) for name in names))
    with pytest.raises(StorageError, match=f"{path} was damaged and lies at .*{aside.name}"):
        app.enqueue("echo", "lost?")
    with pytest.raises(StorageError, match="move it elsewhere to begin anew"):
        make()
    assert not path.exists()


def test_a_deleted_job_table_is_noticed_and_nothing_more_is_accepted(make: Make) -> None:
    app = make()
    app.workers.start(concurrency=1)
    names = [entry["process"] for entry in app.queue.table.workers()]
    for file in app.data_dir.glob("tasks.db*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(StorageError, match="was deleted or replaced while it was in use"):
        app.enqueue("echo", "lost?")
    until(lambda: not any(process.alive(name) for name in names))
    assert "deleted or replaced" in "\n".join(app.logs(30).lines)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB of its own."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("machine: no right to mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_pauses_the_queue_and_charges_nobody(small_disk: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "fill.py"
    plugin.write_text(FILL)
    settings = {
        "plugins": [str(plugin)],
        "workers.concurrency": 2,
        "workers.pools": {"fetch": None},
    }
    app = paise2nb.open("development", data_dir=small_disk / "data", settings=settings)
    try:
        check_full_disk(app, small_disk / "filler")
    finally:
        app.workers.stop(timeout=0)
        app.close()


def check_full_disk(app: App, filler: Path) -> None:
    app.workers.start()
    jobs = app.enqueue_many("keep", range(60))
    fill(filler)
    with pytest.raises(StorageError, match="no space left"):
        enqueue_until_full(app)
    paused = until(lambda: app.status().paused)
    assert "no space left" in paused
    accepted = app.jobs()
    filler.unlink()
    app.wait(timeout=60)
    assert app.status().paused is None
    assert {(job.state, job.error) for job in jobs} == {("completed", None)}
    for job in accepted:
        assert (job.state, job.attempt) == ("completed", 1)
        assert {attempt["outcome"] for attempt in job.attempts} <= {"released", "completed"}


def enqueue_until_full(app: App) -> None:
    for number in range(1000, 3000):
        app.enqueue("keep", number)


def fill(filler: Path) -> None:
    """Take all the space that is left."""
    with filler.open("wb", buffering=0) as file:
        for size in (100_000, 1000, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_the_log_is_bounded_again_after_a_long_reader(make: Make) -> None:
    app = make()
    app.workers.start(concurrency=1)
    log = app.data_dir / "tasks.db-wal"
    reader = sqlite3.connect(app.queue.table.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchall()
    until(lambda: grow(app) and log.stat().st_size > 20_000_000)
    reader.rollback()
    reader.close()
    until(lambda: grow(app) and log.stat().st_size <= 16_000_000)


def grow(app: App) -> bool:
    app.enqueue_many("echo", [os.urandom(8).hex() for _ in range(2000)])
    return True
