"""Backups that are taken while workers run, and the way back."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.commands import Session, main
from paise2nb.core.errors import DiskFull, PaiseError, UsageError
from paise2nb.operate.backup import MANIFEST, back_up, restore
from paise2nb.plugins import Document
from tests import alternative_plugins
from tests.small_disk import fill, small_disk
from tests.waiting import until

PAGES = 300


@pytest.fixture
def pages(tmp_path: Path) -> list[str]:
    folder = tmp_path / "pages"
    folder.mkdir()
    paths = [folder / f"{number}.txt" for number in range(PAGES)]
    for number, path in enumerate(paths):
        path.write_text(f"walrus number {number} sleeps on the ice")
    return [str(path) for path in paths]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with paise2nb.open("development", tmp_path / "data", {"workers.pools": {}}) as app:
        yield app
        app.workers.stop(timeout=5)


def restored(backup: Path, directory: Path) -> App:
    main(["--data-dir", str(directory), "restore", str(backup)], Session())
    return paise2nb.open("development", directory, {"workers.pools": {}})


def rows(directory: Path, database: str, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / database)) as connection:
        return connection.execute(sql).fetchall()


def test_a_backup_taken_while_workers_run_is_searched_and_its_jobs_run_to_the_end(
    tmp_path: Path, app: App, pages: list[str]
) -> None:
    app.workers.start(concurrency=4)
    app.queue.job_store.pause("no such pool")
    app.enqueue_many("fetch", pages, tag="ice")
    until(lambda: len(app.items()) >= PAGES // 10)
    made = back_up(app, tmp_path / "backup")
    assert made.items < PAGES, "the backup was taken too late to show anything"
    app.workers.stop(timeout=10)
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        directory = other.data_dir
        assert rows(directory, "tasks.db", "SELECT * FROM workers") == []
        assert rows(directory, "tasks.db", "SELECT * FROM supervisor") == []
        assert other.status().jobs["running"] == 0
        assert rows(directory, "tasks.db", "SELECT max(attempt) FROM jobs") == [(1,)]
        assert other.queue.job_store.paused_pools() == {"no such pool"}
        items = {row[0] for row in rows(directory, "items.db", "SELECT id FROM items")}
        stores = "SELECT result FROM jobs WHERE task = 'store' AND state = 'completed'"
        stored = {json.loads(str(row[0]))["item"] for row in rows(directory, "tasks.db", stores)}
        assert stored <= items, "a job refers to an item that is missing"
        of_items = {row[0] for row in rows(directory, "items.db", "SELECT job_id FROM items")}
        assert of_items <= {row[0] for row in rows(directory, "tasks.db", "SELECT id FROM jobs")}
        assert len(other.items()) == made.items >= PAGES // 10
        assert len(other.search("walrus", limit=PAGES)) == made.items
        other.workers.start(concurrency=4)
        other.wait(timeout=120)
        other.workers.stop(timeout=10)
        assert len(other.items()) == PAGES
        assert other.queue.job_store.page_counts()["stored"] == PAGES
        assert {job.state for job in other.jobs()} == {"completed"}


def test_a_backup_has_saved_plugins_and_the_bytes_of_items(tmp_path: Path, app: App) -> None:
    page = tmp_path / "page.md"
    page.write_text("A page about owls.")
    cell = "from paise2nb import task\n@task('hoot')\ndef hoot(context, n):\n    return 'hoo' * n\n"
    session = Session()
    session.cell, session.data_dir = cell, str(app.data_dir)
    main(["plugin", "owl"], session)
    session.close()
    app.workers.start(concurrency=1)
    app.enqueue("fetch", str(page)).wait(timeout=60)
    made = back_up(app, tmp_path / "backup")
    assert made.cached == len(list((app.data_dir / "cache").glob("*/*"))) > 0
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        assert "hoot" in other.plugins.tasks
        assert other.item(1).text == "A page about owls."
        assert other.cache.get(other.item(1).sha256) == page.read_bytes()
        assert [os.stat(tmp_path / "other" / name).st_mode & 0o777 for name in
                ("", "tasks.db", "items.db")] == [0o700, 0o600, 0o600]  # fmt: skip


def test_a_backup_without_the_cache_keeps_what_jobs_need(tmp_path: Path, app: App) -> None:
    finished, waiting = app.cache.put(b"finished"), app.cache.put(b"waits for its extraction")
    facts = {"mime_type": "text/plain", "charset": None, "size": 24, "fetched_at": 1.0}
    app.enqueue("extract", "file:///a.txt", waiting, facts)
    again = app.cache.put(b"is extracted again")
    app.enqueue("extract", app.store.put(
        Document("text"), url="file:///b.txt", key="file:///b.txt", mime_type="text/plain",
        sha256=again, size=18, tag=None, fetched_at=1.0,
    ))  # fmt: skip
    assert back_up(app, tmp_path / "backup", cache=False).cached == 2
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        assert waiting in other.cache
        assert again in other.cache
        assert finished not in other.cache


def test_a_backup_replaces_nothing(tmp_path: Path, app: App) -> None:
    back_up(app, tmp_path / "backup")
    before = (tmp_path / "backup" / MANIFEST).read_bytes()
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path / "backup", tmp_path / "file", app.data_dir):
        with pytest.raises(PaiseError, match=r"exists; name a new directory"):
            back_up(app, taken)
    assert (tmp_path / "backup" / MANIFEST).read_bytes() == before
    with pytest.raises(PaiseError, match=r"can't back up to .*/file/backup: Not a directory$"):
        back_up(app, tmp_path / "file" / "backup")
    (tmp_path / "empty").mkdir()
    back_up(app, tmp_path / "empty")


def test_a_killed_backup_is_recognised(tmp_path: Path, app: App) -> None:
    app.cache.put(b"bytes")
    script = (
        "import os, sys; from pathlib import Path\n"
        "import paise2nb; from paise2nb.operate.backup import back_up\n"
        "with paise2nb.open('development', sys.argv[1]) as app:\n"
        "    back_up(app, Path(sys.argv[2]), on_progress=lambda done, total: os._exit(9))\n"
    )
    path = tmp_path / "backup"
    command = [sys.executable, "-c", script, str(app.data_dir), str(path)]
    assert subprocess.run(command, check=False).returncode == 9
    with pytest.raises(PaiseError, match=rf"interrupted backup: delete it \(rm -r {path}\)"):
        restored(path, tmp_path / "other")
    with pytest.raises(PaiseError, match=r"exists, an interrupted backup"):
        back_up(app, path)
    assert not (tmp_path / "other").exists()


def test_an_interrupt_and_a_full_disk_leave_no_part_of_a_backup(tmp_path: Path, app: App) -> None:
    app.cache.put(os.urandom(1_500_000))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(app, tmp_path / "backup", on_progress=interrupt)
    assert not (tmp_path / "backup").exists()
    with small_disk(tmp_path / "small", megabytes=1):
        with pytest.raises(DiskFull, match=r"can't back up to .*no space left on the disk"):
            back_up(app, tmp_path / "small" / "backup")
        assert list((tmp_path / "small").iterdir()) == []
    with small_disk(tmp_path / "another", megabytes=2):
        back_up(app, tmp_path / "backup")
        fill(tmp_path / "another" / "filler")
        with pytest.raises(DiskFull, match=r"can't restore"):
            restored(tmp_path / "backup", tmp_path / "another" / "data")
        assert [path.name for path in (tmp_path / "another").iterdir()] == ["filler"]


def test_a_backup_can_be_taken_from_a_full_disk(tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("the last page that fits")
    with small_disk(tmp_path / "small", megabytes=2):
        with paise2nb.open("test", tmp_path / "small" / "data") as app:
            app.enqueue("fetch", str(page))
        fill(tmp_path / "small" / "filler")
        with paise2nb.open("test", tmp_path / "small" / "data") as app:
            back_up(app, tmp_path / "backup")
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        assert [hit.id for hit in other.search("fits")] == [1]


def test_a_restore_replaces_nothing_and_leaves_nothing_if_it_fails(
    tmp_path: Path, app: App
) -> None:
    backup, target = tmp_path / "backup", tmp_path / "other"
    back_up(app, backup)
    for path, reason in ((tmp_path / "none", "not a directory"), (tmp_path, "is missing")):
        with pytest.raises(PaiseError, match=rf"no backup at .*{reason}"):
            restored(path, target)
    with pytest.raises(PaiseError, match=r"data is not empty.*--data-dir DIR"):
        restored(backup, app.data_dir)
    with pytest.raises(UsageError, match=r"profile test has no data directory; name one"):
        main(["--profile", "test", "restore", str(backup)], Session())
    with closing(sqlite3.connect(backup / "tasks.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(PaiseError, match=r"newer paise2nb \(format 99"):
        restored(backup, target)
    (backup / "items.db").write_bytes(b"no database " * 1000)
    with pytest.raises(PaiseError, match=r"can't restore .*not a database"):
        restored(backup, target)
    assert not target.exists()
    target.mkdir(mode=0o700)
    with pytest.raises(PaiseError):
        restored(backup, target)
    assert list(target.iterdir()) == []


def test_an_interrupted_restore_is_recognised(tmp_path: Path, app: App) -> None:
    back_up(app, tmp_path / "backup")
    (tmp_path / "other" / ".restoring").mkdir(parents=True)
    with pytest.raises(PaiseError, match=r"has an interrupted restore.*rm -r"):
        restored(tmp_path / "backup", tmp_path / "other")


def test_the_parts_of_other_plugins_are_left_to_their_own_backups(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alternative_plugins.install(tmp_path_factory.mktemp("alternative"), monkeypatch)
    with (
        paise2nb.open("development", tmp_path / "data") as app,
        pytest.raises(PaiseError, match=r"can't back up tests\..*use its own backup"),
    ):
        back_up(app, tmp_path / "backup")


def test_a_restore_into_a_directory_that_exists_and_is_empty(tmp_path: Path, app: App) -> None:
    (tmp_path / "volume").mkdir(mode=0o700)
    back_up(app, tmp_path / "backup")
    made = restore(tmp_path / "backup", app.settings.with_data_dir(tmp_path / "volume"))
    assert made.restored_to == str(tmp_path / "volume")
    assert not (tmp_path / "volume" / ".restoring").exists()
