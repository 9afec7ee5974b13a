"""Items that an earlier version has stored are there after a migration, and are found."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paise2nb.collection.index_text import indexed
from paise2nb.collection.items import FORMAT, ItemStore, _index_more
from paise2nb.core.errors import StorageError
from paise2nb.core.formats import migrate, schema_hash
from paise2nb.plugins import Document

STORED = Path(__file__).parents[1] / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the stored database of format 2."""
    return Path(shutil.copy(STORED / "items-2.db", tmp_path / "items.db"))


def test_items_of_format_2_are_kept_and_found(path: Path) -> None:
    with closing(ItemStore(path)) as store:
        assert [row["title"] for row in store.list()] == ["About tides", "About locks"]
        assert [row["title"] for row in store.search("moon", 5)] == ["About tides"]
        assert [row["title"] for row in store.search("tag:boats", 5)] == ["About locks"]
        [latest, _] = store.list()
        assert len(store.versions(latest["id"])) == 2
        assert "day after" in store.diff(latest["id"])
    require_format(path)


def require_format(path: Path) -> None:
    """Require the schema of a new database, and an index that agrees with the items."""
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(":memory:")) as new:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT.version
        connection.create_function("indexed", 1, indexed)
        connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        migrate(new, FORMAT, Path(":memory:"))
        assert schema_hash(connection) == schema_hash(new)


def test_items_of_format_3_are_indexed_in_the_new_form(tmp_path: Path) -> None:
    path = Path(shutil.copy(STORED / "items-3.db", tmp_path / "items.db"))
    with closing(ItemStore(path)) as store:
        for query in ("木箱", "Hafenschreiberlehrling", "efficient", "میخواهم", "账"):
            assert len(store.search(query, 5)) == 1, query
        assert store.count() == 4
    require_format(path)


def test_a_large_collection_is_searched_and_changed_while_it_is_indexed(tmp_path: Path) -> None:
    path = Path(shutil.copy(STORED / "items-3.db", tmp_path / "items.db"))
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(items)")]
        values = ", ".join({"id": "1000 + value", "key": "value"}.get(c, c) for c in columns)
        many = "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 500)"
        connection.execute(f"{many} INSERT INTO items SELECT {values} FROM items, n WHERE id = 2")
    with closing(ItemStore(path)) as store:
        assert store.is_indexing()
        assert len(store.search("lifts", 600)) == 501
        store.database.write(_index_more)
        store.put(Document("Rivers and 木箱", title="New"), **provenance("https://new.example/"))
        store.put(Document("Canals", title="Tides"), **provenance("https://example.org/tides"))
        assert [row["title"] for row in store.search("rivers", 5)] == ["New"]
        assert store.search("moon", 5) == []
    with closing(ItemStore(path)) as store:  # another process goes on
        store.checkpoint()
        assert not store.is_indexing()
        assert len(store.search("lifts", 600)) == 501
        assert [row["title"] for row in store.search("木箱", 5)] == ["New", "账本"]
        assert [row["title"] for row in store.search("canals", 5)] == ["Tides"]
    require_format(path)


def provenance(url: str) -> dict[str, Any]:
    return {
        "url": url,
        "key": url,
        "mime_type": "text/plain",
        "sha256": "0" * 64,
        "size": 1,
        "tag": None,
        "fetched_at": time.time(),
    }


def test_a_file_with_another_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE items ADD COLUMN surprise TEXT")
        connection.commit()
    with pytest.raises(StorageError, match=r"items\.db was written by an unreleased version"):
        ItemStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 2
        assert connection.execute("SELECT count(marks) FROM items").fetchone()[0] == 2
