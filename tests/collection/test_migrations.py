"""Items that an earlier version has stored are there after a migration, and are found."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.collection.items import FORMAT, ItemStore
from paise2nb.core.errors import StorageError

STORED = Path(__file__).parents[1] / "data" / "items-2.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the stored database of format 2."""
    return Path(shutil.copy(STORED, tmp_path / "items.db"))


def test_items_of_format_2_are_kept_and_found(path: Path) -> None:
    with closing(ItemStore(path)) as store:
        assert [row["title"] for row in store.list()] == ["About tides", "About locks"]
        assert [row["title"] for row in store.search("moon", 5)] == ["About tides"]
        assert [row["title"] for row in store.search("tag:boats", 5)] == ["About locks"]
        [latest, _] = store.list()
        assert len(store.versions(latest["id"])) == 2
        assert "day after" in store.diff(latest["id"])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT.version
        connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_a_file_with_another_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE items ADD COLUMN surprise TEXT")
        connection.commit()
    with pytest.raises(StorageError, match=r"items\.db was written by an unreleased version"):
        ItemStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 2
        assert connection.execute("SELECT count(marks) FROM items").fetchone()[0] == 2
