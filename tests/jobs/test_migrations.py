"""Jobs that an earlier version has stored are there after a migration, and go on."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.core.errors import StorageError
from paise2nb.core.formats import schema_hash
from paise2nb.jobs.database import FORMAT
from paise2nb.jobs.models import Limits, NewJob, Outcome
from paise2nb.jobs.store import JobStore

STORED = Path(__file__).parents[1] / "data"


def stored(tmp_path: Path, version: int) -> Path:
    """A copy of the stored database of a format."""
    return Path(shutil.copy(STORED / f"tasks-{version}.db", tmp_path / "tasks.db"))


def test_jobs_of_format_1_are_kept_and_counted(tmp_path: Path) -> None:
    with closing(JobStore(stored(tmp_path, 1))) as store:
        rows = store.rows(store.find())
        states = Counter(row["state"] for row in rows.values())
        counted, _ = store.counts()
        expected = {"completed": 12, "queued": 4, "scheduled": 2, "retrying": 1, "failed": 1}
        assert states == {**expected, "cancelled": 1}
        assert {state: number for state, number in counted.items() if number} == states
        assert {row["interval"] for row in rows.values()} == {None, 86400.0}
        assert [attempt["number"] for attempt in store.attempts(13)] == [1]


def test_jobs_of_format_1_go_on(tmp_path: Path) -> None:
    with closing(JobStore(stored(tmp_path, 1))) as store:
        store.now = lambda: 1795800000.0  # hours after the file was stored: job 16 is not due
        worker = store.register("default", 1)
        tasks = {"host": Limits(None, None), "count": Limits(None, None)}
        claimed = [store.claim(worker, tasks) for _ in range(4)]
        assert [claim and claim.id for claim in claimed] == [21, 17, 18, 19]


def test_pages_of_format_2_are_counted(tmp_path: Path) -> None:
    pages = {
        "queued": [43, 56, 57, 58],
        "scheduled": [32, 36],  # 36 recurs: the extraction of its last run but one failed
        "running": [17, 19, 22, 23, 25],
        "retrying": [9, 12],
        "stored": [1, 4, 33, 41, 47],  # 47 is a page on the way of a `links` job
        "unchanged": [7],
        "failed": [8, 10, 14, 42],
        "cancelled": [28, 29],
        "skipped": [31],
    }
    with closing(JobStore(stored(tmp_path, 2))) as store:
        rows = store.rows(store.find()).values()
        for state, expected in pages.items():
            assert [row["id"] for row in rows if row["page_state"] == state] == expected
        assert store.page_counts() == {state: len(ids) for state, ids in pages.items()}
        assert [row["id"] for row in rows if row["page_id"] == 14] == [14, 15, 16]
        others = {row["task"] for row in rows if row["page_id"] is None}
        counted = store.other_counts()
        assert +Counter(counted) == Counter(r["state"] for r in rows if r["page_id"] is None)
        assert others == {
            "feed",
            "links",
            "count",
            "extract",
            "store",
        }  # of an item, extracted again
        store.add([NewJob("fetch", '["https://example.org/"]', 4)] * 100)
        assert store.page_counts()["queued"] == 104


def test_pages_of_format_2_go_on(tmp_path: Path) -> None:
    with closing(JobStore(stored(tmp_path, 2))) as store:
        store.now = lambda: 1795781700.0  # when the file was stored: no retry is due
        [worker] = store.workers()
        store.rescue_jobs(worker["id"], lambda row, alone: Outcome("released", "queued"))
        me = store.register("default", 1)
        claim = store.claim(
            me, {task: Limits(None, None) for task in ("fetch", "extract", "store")}
        )
        assert claim is not None
        assert (claim.id, claim.page_id) == (18, 17)
        store.end(claim, Outcome("failed", "failed", None, "empty", "no text in it"))
        assert store.rows([17])[17]["page_state"] == "failed"
        assert (store.page_counts()["running"], store.page_counts()["failed"]) == (3, 5)


@pytest.mark.parametrize("version", range(1, FORMAT.version))
def test_a_migrated_database_has_the_schema_of_a_new_one(tmp_path: Path, version: int) -> None:
    path = stored(tmp_path, version)
    JobStore(path).close()
    JobStore(tmp_path / "new.db").close()
    hashes = set()
    for file in (path, tmp_path / "new.db"):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT.version,)
            hashes.add(schema_hash(connection))
    assert len(hashes) == 1


def test_a_file_with_another_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = stored(tmp_path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN surprise TEXT")
        connection.commit()
    with pytest.raises(StorageError, match=r"tasks\.db was written by an unreleased version"):
        JobStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(place) FROM jobs").fetchone() == (21,)
