"""An upgrade: databases are copied before they are migrated, and processes of before end."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import paise2nb
from paise2nb.collection.items import ItemStore
from paise2nb.core.errors import NewerFormat, StorageError
from paise2nb.jobs.database import FORMAT
from paise2nb.jobs.store import JobStore
from tests import example_plugin
from tests.small_disk import small_disk
from tests.waiting import until

STORED = Path(__file__).parents[1] / "data"


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def copies(directory: Path) -> list[Path]:
    return sorted((directory / "backups").glob("*"), key=os.path.getmtime)


@pytest.mark.parametrize("name", ["tasks-1", "tasks-3", "items-2"])
def test_a_database_is_copied_before_it_is_migrated(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, number = name.split("-")
    path = Path(shutil.copy(STORED / f"{name}.db", tmp_path / f"{kind}.db"))
    before = dump(path)
    with caplog.at_level(logging.WARNING, "paise2nb.data"):
        (JobStore if kind == "tasks" else ItemStore)(path).close()
    [copy] = copies(tmp_path)
    assert copy.name.startswith(f"{kind}-format{number}-")
    assert dump(copy) == before
    assert (version_of(copy), copy.stat().st_mode & 0o777) == (int(number), 0o600)
    [line] = caplog.messages
    assert line.startswith(f"{path} is migrated from format {number} to ")
    assert line.endswith(f"; a copy of it is {copy}")
    (JobStore if kind == "tasks" else ItemStore)(path).close()
    assert copies(tmp_path) == [copy]


def test_the_last_two_copies_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "tasks.db").unlink(missing_ok=True)
        shutil.copy(STORED / f"tasks-{number}.db", tmp_path / "tasks.db")
        JobStore(tmp_path / "tasks.db").close()
    assert [version_of(copy) for copy in copies(tmp_path)] == [2, 3]


def test_without_space_for_the_copy_nothing_is_migrated(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with small_disk(data, 15):
        data.chmod(0o700)
        path = Path(shutil.copy(STORED / "tasks-3.db", data / "tasks.db"))
        with pytest.raises(StorageError, match="MB are free; free some"):
            JobStore(path)
        assert version_of(path) == 3
        assert copies(data) == []
        (data / "backups").rmdir()
        (tmp_path / "elsewhere").mkdir()
        (data / "backups").symlink_to(tmp_path / "elsewhere")
        JobStore(path).close()
        assert [version_of(copy) for copy in copies(data)] == [3]


def test_a_shell_command_tells_of_the_copy_in_one_line(tmp_path: Path) -> None:
    shutil.copy(STORED / "tasks-3.db", tmp_path / "tasks.db")
    ItemStore(tmp_path / "items.db").close()
    tmp_path.chmod(0o700)
    words = [sys.executable, "-m", "paise2nb", "--data-dir", str(tmp_path), "jobs", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr.startswith(f"{tmp_path}/tasks.db is migrated from format 3 to ")
    assert done.stderr.count("\n") == 1


def test_processes_of_an_older_version_end_and_charge_nothing(tmp_path: Path) -> None:
    """Here this version is the older one: a migration of a newer one is made by hand."""
    plugin, gate, data = tmp_path / "plugin.py", tmp_path / "gate", tmp_path / "data"
    plugin.write_text(example_plugin.SOURCE)
    settings = {"plugins": [str(plugin)], "workers.pools": {"fetch": None}}
    with paise2nb.open("development", data, {**settings, "workers.concurrency": 2}) as app:
        app.workers.start()
        job = app.enqueue("hold", str(gate))
        until(lambda: job.state == "running")
        with closing(sqlite3.connect(data / "tasks.db", timeout=60)) as newer:
            newer.executescript(
                "BEGIN IMMEDIATE; UPDATE workers SET state = 'stopping';"
                f"ALTER TABLE jobs ADD COLUMN novelty; PRAGMA user_version = {FORMAT.version + 1};"
                "COMMIT"
            )
            with pytest.raises(NewerFormat, match="was written by a newer paise2nb"):
                app.enqueue("echo", "refused")
            until(lambda: not app.workers.present())
            log = (data / "logs/workers.log").read_text()
            assert "Traceback" not in log
            last = [line for line in log.splitlines() if "newer paise2nb" in line]
            assert 0 < len(last) <= 5  # one for each process
            newer.execute(f"PRAGMA user_version = {FORMAT.version}")  # as if upgraded
        gate.touch()
        app.workers.start()
        assert job.result(timeout=60) == "released"
        assert {a["outcome"] for a in job.attempts} <= {"released", "completed"}
        assert app.queue.job_store.rows([job.id])[job.id]["attempt"] == 1
        app.workers.stop()


def test_workers_of_a_version_with_other_settings_are_told(tmp_path: Path) -> None:
    with paise2nb.open("development", tmp_path / "data") as app:
        app.workers.start(pool="default", concurrency=1)
        app.queue.job_store.set_supervisor(settings='[[["profile"], "development", "default"]]')
        told = "the workers run another version of paise2nb; to use this: paise2 worker restart"
        assert app.workers.status().problem == told
        assert app.status().problem == told
        app.workers.restart()
        assert app.workers.status().problem is None
        app.workers.stop()
