"""Databases on a full disk, and missing or empty ones that had content."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.core.damage import inspect
from paise2nb.core.errors import DiskFull, StorageError
from paise2nb.core.formats import Format
from paise2nb.core.sqlite import Database
from tests.small_disk import fill, small_disk

SCHEMA = Format("CREATE TABLE words (word TEXT)")


def opened(path: Path, *, create: bool = True, replace: bool = False) -> Database:
    return Database(path, SCHEMA, durable=False, create=create, replace=replace)


def add_word(connection: sqlite3.Connection, word: str) -> None:
    connection.execute("INSERT INTO words VALUES (?)", (word,))


def set_word(connection: sqlite3.Connection, word: str) -> None:
    connection.execute("DELETE FROM words")
    add_word(connection, word)


def words(database: Database) -> list[str]:
    return [row["word"] for row in database.read("SELECT word FROM words")]


def write_and_die(path: Path, word: str) -> None:
    """Write a word and end without a checkpoint: the word is only in the write-ahead log."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from paise2nb.core.sqlite import Database\n"
        "from paise2nb.core.formats import Format\n"
        f"database = Database(Path(sys.argv[1]), Format({SCHEMA.schema!r}), durable=False)\n"
        "database.write(lambda c: c.execute('INSERT INTO words VALUES (?)', (sys.argv[2],)))\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path), word], check=False)
    assert done.returncode == -signal.SIGKILL


# A full disk ---------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", megabytes=2):
        yield tmp_path / "disk"


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed with a log"])
def test_a_database_can_be_opened_and_read_on_a_full_disk(disk: Path, killed: bool) -> None:
    path = disk / "x.db"
    write_and_die(path, "before")
    if not killed:
        opened(path).close()
        assert not path.with_name("x.db-wal").exists()
    fill(disk / "filler")
    path.with_name("x.db-shm").unlink(missing_ok=True)  # its space is needed again
    fill(disk / "more")
    database = opened(path)
    assert words(database) == ["before"]
    assert inspect(path, lambda c: c.execute("SELECT count(*) FROM words").fetchone()[0]) == 1
    with pytest.raises(DiskFull, match=r"the disk is full.*nothing is lost"):
        database.write(add_word, "x" * 100_000)
    (disk / "filler").unlink()
    database.write(add_word, "after")
    assert words(database) == ["before", "after"]
    database.close()


def test_a_write_to_an_open_database_says_that_the_disk_is_full(disk: Path) -> None:
    database = opened(disk / "x.db")
    database.write(add_word, "before")
    fill(disk / "filler")
    with pytest.raises(DiskFull, match=r"x\.db: the disk is full"):
        database.write(add_word, "x" * 100_000)
    assert words(database) == ["before"]
    database.close()


def test_the_log_takes_an_eighth_of_the_space_that_is_left(disk: Path) -> None:
    database = opened(disk / "x.db")
    for number in range(1000):
        database.write(set_word, f"{number} {'x' * 10_000}")
    assert (disk / "x.db-wal").stat().st_size < 2_000_000 / 4
    database.close()


def test_a_database_that_was_opened_on_a_full_disk_is_fast_when_there_is_space(disk: Path) -> None:
    write_and_die(disk / "x.db", "before")
    fill(disk / "filler")
    database = opened(disk / "x.db")
    with pytest.raises(DiskFull):
        database.write(add_word, "x" * 100_000)
    (disk / "filler").unlink()
    before = (disk / "x.db").stat().st_mtime_ns
    for number in range(20):  # without a checkpoint, which waits for the disk
        database.write(set_word, str(number))
    assert (disk / "x.db").stat().st_mtime_ns == before
    database.close()


# Missing and empty files ---------------------------------------------------------------------


@pytest.mark.parametrize("empty", [False, True], ids=["missing", "empty"])
@pytest.mark.parametrize("companion", ["-wal", ".lock"])
def test_a_lost_database_is_not_created_again_beside_its_companions(
    tmp_path: Path, companion: str, empty: bool
) -> None:
    path = tmp_path / "x.db"
    write_and_die(path, "lost")
    for other in tmp_path.glob("x.db*"):
        if other.name != f"x.db{companion}":
            other.unlink()
    if empty:
        path.touch()
    state = "is empty" if empty else "is missing"
    with pytest.raises(StorageError, match=rf"x\.db {state}.*x\.db{companion} shows.*paise2 reset"):
        opened(path)
    assert path.exists() is empty
    path.with_name("x.db-wal").unlink(missing_ok=True)
    with closing(opened(path, replace=True)) as database:
        assert words(database) == []
    opened(path).close()


def test_an_empty_file_without_companions_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    with closing(opened(tmp_path / "x.db")) as database:
        assert words(database) == []


def test_a_missing_file_is_not_created_where_only_an_existing_one_is_wanted(
    tmp_path: Path,
) -> None:
    with pytest.raises(StorageError, match=r"x\.db is missing"):
        opened(tmp_path / "none" / "x.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_an_earlier_format_is_not_migrated_where_it_is_only_looked_at(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 0")
    with pytest.raises(StorageError, match=r"x\.db has an earlier format.*paise2 status"):
        opened(path, create=False)


# Locks ---------------------------------------------------------------------------------------


def test_the_process_that_keeps_a_lock_is_named_and_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened(path).close()
    script = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOWAIT)
        hasty = Database(path, SCHEMA, durable=True, busy_seconds=0.2)
        stopped = rf"process {other.pid} \(.*python.*it is stopped.*kill -CONT {other.pid}"
        with pytest.raises(StorageError, match=stopped):
            hasty.write(add_word, "waits")
        hasty.close()
    finally:
        other.kill()
        other.wait()


def test_what_is_inspected_is_the_state_of_one_moment(tmp_path: Path) -> None:
    database = opened(tmp_path / "x.db")

    def read(connection: sqlite3.Connection) -> list[int]:
        count = "SELECT count(*) FROM words"
        numbers = [connection.execute(count).fetchone()[0]]
        database.write(add_word, "meanwhile")
        return [*numbers, connection.execute(count).fetchone()[0]]

    assert inspect(database.path, read) == [0, 0]
    assert words(database) == ["meanwhile"]
    database.close()
