"""Free pages are given back while other connections use the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.core.errors import StorageError
from paise2nb.core.space import give_back_space
from paise2nb.jobs.store import JobStore


def fill_and_delete(store: JobStore) -> int:
    """Return the size of the file, most of whose pages are free."""
    rows = [(str(number), "x" * 1000) for number in range(20_000)]
    store.database.write(
        lambda connection: connection.executemany("INSERT INTO meta VALUES (?, ?)", rows) and None
    )
    store.database.write(
        lambda connection: (
            connection.execute("DELETE FROM meta WHERE length(value) = 1000") and None
        )
    )
    store.checkpoint()
    return store.path.stat().st_size


@pytest.mark.parametrize("earlier", [False, True], ids=["a new file", "a file of before"])
def test_free_pages_are_given_back_once_and_other_processes_go_on(
    tmp_path: Path, earlier: bool
) -> None:
    path = tmp_path / "tasks.db"
    JobStore(path).close()
    if earlier:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA auto_vacuum=NONE")
            connection.execute("VACUUM")
            connection.execute("PRAGMA journal_mode=WAL")
    store, other = JobStore(path), JobStore(path)
    other.put("before", "1")
    size = fill_and_delete(store)
    other.get("before")
    give_back_space(store.database.read, store.database.write)
    store.checkpoint()
    assert path.stat().st_size < size / 10
    other.put("after", "2")
    assert (other.get("before"), store.get("after")) == ("1", "2")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()
    store.close()


def test_a_process_that_looks_late_finds_a_file_that_shrank_undamaged(tmp_path: Path) -> None:
    store, late = JobStore(tmp_path / "tasks.db"), JobStore(tmp_path / "tasks.db")
    fill_and_delete(store)
    late.put("kept", "1")
    give_back_space(store.database.read, store.database.write)
    store.checkpoint()
    give_back_space(
        store.database.read, store.database.write
    )  # another cleanup, for which nothing is left
    assert late.get("kept") == "1"
    late.close()
    store.close()


def test_a_file_that_was_truncated_is_damaged_although_space_was_given_back(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "tasks.db")
    give_back_space(
        store.database.read, store.database.write
    )  # nothing is free: no smaller size is right
    fill_and_delete(store)
    with (tmp_path / "tasks.db").open("r+b") as file:
        file.truncate(50_000)
    with pytest.raises(StorageError, match="it was truncated"):
        store.get("x")
