"""Items that an earlier version has stored are there after a migration, and are found."""

from __future__ import annotations

import shutil
import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paise2nb.collection.index_text import indexed
from paise2nb.collection.items import FORMAT, ItemStore, _index_more
from paise2nb.collection.search import facets_of
from paise2nb.core.clock import iso
from paise2nb.core.errors import StorageError
from paise2nb.core.formats import migrate, schema_hash
from paise2nb.core.urls import canonical_url, shown_url
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


ITEM = """
INSERT INTO items (key, url, title, mime_type, sha256, size, tag, fetched_at, stored_at, metadata,
    facets, text)
VALUES (:url, :url, :title, 'text/html', :title, 1, :tag, :at, :at, :metadata, :facets, :title)
"""


def with_secrets(path: Path) -> Path:
    """Add items to a database of format 4, as it stored them: with the secrets in their URLs."""
    rows: list[tuple[str, str, str | None, float]] = [
        ("https://example.org/a?api_key=first&page=2", "oldest", "boats", 10),
        ("https://example.org/a?api_key=second&page=2", "middle", None, 20),
        ("https://example.org/a?api_key=third&page=2", "newest", None, 30),
        ("https://example.org/a?api_key=fourth&page=2", "newest", None, 25),
        ("https://example.org/b?token=alone", "single", None, 40),
        ("https://example.org/c?page=1", "plain", None, 50),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("indexed", 1, indexed)
        for url, title, tag, at in rows:
            metadata = f'{{"words": 1, "source": {{"final_url": "{url}"}}}}'
            row = {"url": url, "title": title, "tag": tag, "at": at, "metadata": metadata}
            row["facets"] = facets_of(url, tag)
            connection.execute(ITEM, row)
        (oldest, middle, newest) = (
            connection.execute("SELECT id FROM items WHERE title = ?", (title,)).fetchone()[0]
            for title in ("oldest", "middle", "newest")
        )
        for item_id, title, at in [(oldest, "first of all", 5), (newest, "earlier", 22)]:
            version = (item_id, 1, title, title, 1, at, zlib.compress(title.encode()))
            connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)", version)
        connection.execute("INSERT INTO visits VALUES (?, ?)", (middle, 35))
    return path


def test_secrets_in_items_of_format_4_are_hidden_and_what_differs_in_them_is_one_item(
    tmp_path: Path,
) -> None:
    path = with_secrets(Path(shutil.copy(STORED / "items-4.db", tmp_path / "items.db")))
    with closing(ItemStore(path)) as store:
        found = {row["title"]: row for row in store.list() if row["id"] > 4}
        assert {title: row["url"] for title, row in found.items()} == {
            "newest": "https://example.org/a?api_key=…&page=2",
            "single": "https://example.org/b?token=…",
            "plain": "https://example.org/c?page=1",
        }
        newest = found["newest"]
        assert newest["id"] == store.find("https://example.org/a?api_key=%E2%80%A6&page=2")
        assert (newest["tag"], newest["visited_at"]) == ("boats", iso(35))
        titles = [row["title"] for row in store.versions(newest["id"])]
        assert titles == ["first of all", "oldest", "middle", "earlier", "newest"]
        assert "-first of all" in store.diff(newest["id"], 1, 5)
        assert store.search("oldest", 5) == []
        assert [row["id"] for row in store.search("newest tag:boats", 5)] == [newest["id"]]
        # The same URL with another secret is the same item.
        url = shown_url("https://example.org/a?api_key=fifth&page=2")
        again = {**provenance(url), "key": canonical_url(url)}
        assert store.put(Document("words"), **again) == newest["id"]
    data = path.read_bytes()
    for secret in (b"first&", b"second", b"third", b"fourth", b"alone"):
        assert secret not in data
    require_format(path)


def test_secrets_are_hidden_in_a_database_of_format_4_that_is_still_indexed(
    tmp_path: Path,
) -> None:
    path = Path(shutil.copy(STORED / "items-3.db", tmp_path / "items.db"))
    script, version = FORMAT.migrations[2].script, 4
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("indexed", 1, indexed)
        connection.executescript(f"{script}; PRAGMA user_version = {version}")
    with closing(ItemStore(with_secrets(path))) as store:
        assert len(store.search("newest", 5)) == 1
        assert store.count() == 7
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
