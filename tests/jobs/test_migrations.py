"""Jobs that an earlier version has stored are there after a migration, and go on."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.core.errors import StorageError
from paise2nb.core.sqlite import schema_hash
from paise2nb.jobs.database import FORMAT
from paise2nb.jobs.models import Limits
from paise2nb.jobs.store import JobStore

STORED = Path(__file__).parents[1] / "data" / "tasks-1.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the stored database of format 1."""
    return Path(shutil.copy(STORED, tmp_path / "tasks.db"))


def test_jobs_of_format_1_are_kept_and_counted(path: Path) -> None:
    with closing(JobStore(path)) as store:
        rows = store.rows(store.find())
        states = Counter(row["state"] for row in rows.values())
        counted, _ = store.counts()
        expected = {"completed": 12, "queued": 4, "scheduled": 2, "retrying": 1, "failed": 1}
        assert states == {**expected, "cancelled": 1}
        assert {state: number for state, number in counted.items() if number} == states
        assert {row["interval"] for row in rows.values()} == {None, 86400.0}
        assert [attempt["number"] for attempt in store.attempts(13)] == [1]


def test_jobs_of_format_1_go_on(path: Path) -> None:
    with closing(JobStore(path)) as store:
        worker = store.register("default", 1)
        tasks = {"host": Limits(None, None), "count": Limits(None, None)}
        claimed = [store.claim(worker, tasks) for _ in range(4)]
        assert [claim and claim.id for claim in claimed] == [21, 17, 18, 19]


def test_a_migrated_database_has_the_schema_of_a_new_one(path: Path, tmp_path: Path) -> None:
    JobStore(path).close()
    JobStore(tmp_path / "new.db").close()
    hashes = set()
    for file in (path, tmp_path / "new.db"):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT.version,)
            hashes.add(schema_hash(connection))
    assert len(hashes) == 1


def test_a_file_with_another_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN surprise TEXT")
        connection.commit()
    with pytest.raises(StorageError, match=r"tasks\.db was written by an unreleased version"):
        JobStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(place) FROM jobs").fetchone() == (21,)
