"""The collection: one row for each address, and its words in a full-text index that changes in
the same transaction.

The index holds no second copy of the texts (an FTS5 external content table); triggers keep it in
step, whoever writes. An address is known by its canonical form, so a page is one item however
its address was spelled.
"""

from __future__ import annotations

import difflib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.collection.search import UNSTORABLE, facets_of, search
from paise2nb.core.clock import iso
from paise2nb.core.errors import NotFound
from paise2nb.core.sqlite import Database
from paise2nb.core.text import words
from paise2nb.plugins import Document, hookimpl

if TYPE_CHECKING:
    from paise2nb.app import App

_WORDS_REMOVED = """
CREATE TRIGGER words_removed AFTER DELETE ON items BEGIN
    INSERT INTO words (words, rowid, title, text, marks)
    VALUES ('delete', old.id, old.title, old.text, old.marks); END
"""

# The text comes last: the columns before it are read without touching its pages.
MIGRATIONS = (
    f"""
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,  -- the canonical address
    url TEXT NOT NULL,  -- as it was given
    title TEXT,
    author TEXT,
    date TEXT,
    language TEXT,
    mime_type TEXT NOT NULL,
    sha256 TEXT NOT NULL,  -- of the bytes, by which the cache finds them while it keeps them
    size INTEGER NOT NULL,
    tag TEXT,
    fetched_at REAL NOT NULL,
    stored_at REAL NOT NULL,
    job_id INTEGER,  -- the job that stored it last
    metadata TEXT NOT NULL,  -- JSON
    marks TEXT NOT NULL,  -- words for its host and tag, see `marks_of`
    text TEXT NOT NULL
);
CREATE INDEX items_by_time ON items (fetched_at);
CREATE INDEX items_by_tag ON items (tag, fetched_at);
CREATE INDEX items_by_storing ON items (stored_at);
CREATE INDEX items_by_content ON items (sha256);
CREATE INDEX items_by_day ON items (id, date, fetched_at);
CREATE VIRTUAL TABLE words USING fts5 (
    title, text, marks, content = 'items', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 2', prefix = '2'
);
-- Parts of the index are merged half as often as by default: stored an eighth faster, found a tenth
-- slower (`tests/benchmarks/search.py`).
INSERT INTO words (words, rank) VALUES ('automerge', 8);
CREATE TRIGGER words_added AFTER INSERT ON items BEGIN
    INSERT INTO words (rowid, title, text, marks)
    VALUES (new.id, new.title, new.text, new.marks); END;
{_WORDS_REMOVED.strip()};
CREATE TRIGGER words_changed AFTER UPDATE OF title, text, marks ON items BEGIN
    INSERT INTO words (words, rowid, title, text, marks)
    VALUES ('delete', old.id, old.title, old.text, old.marks); \
    INSERT INTO words (rowid, title, text, marks)
    VALUES (new.id, new.title, new.text, new.marks); END;
""",
    """
CREATE TABLE visits (  -- that found nothing new
    item_id INTEGER PRIMARY KEY,
    visited_at REAL NOT NULL
);
CREATE TABLE versions (  -- what items held before
    item_id INTEGER NOT NULL,
    version INTEGER NOT NULL,  -- from 1
    title TEXT,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    fetched_at REAL NOT NULL,
    text BLOB NOT NULL,  -- zlib
    UNIQUE (item_id, version)
);
""",
)

_LISTED = (
    "items.id, url, title, author, date, language, mime_type, sha256, size, tag, fetched_at,"
    " stored_at, coalesce(visited_at, fetched_at) AS visited_at, metadata"
)
_VISITED = "items LEFT JOIN visits ON visits.item_id = items.id"
_FIELDS = (
    "key", "url", "title", "author", "date", "language", "mime_type", "sha256", "size", "tag",
    "fetched_at", "stored_at", "job_id", "metadata", "marks", "text",
)  # fmt: skip
_INSERT = (
    f"INSERT INTO items ({', '.join(_FIELDS)}) VALUES ({', '.join(f':{name}' for name in _FIELDS)})"
)
_UPDATE = f"UPDATE items SET {', '.join(f'{name} = :{name}' for name in _FIELDS)} WHERE id = :id"
_KEEP = (
    "INSERT INTO versions SELECT id, (SELECT count(*) + 1 FROM versions WHERE item_id = items.id),"
    " title, sha256, size, fetched_at, ? FROM items WHERE id = ?"
)


class ItemStore:
    """The items of one data directory, in SQLite; for every thread and many processes.

    Args:
        path: the database file, made if it is missing.

    Raises:
        StorageError: the file can't be used, or was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path, MIGRATIONS, durable=True)

    def put(self, document: Document, **provenance: Any) -> int:
        """Store one document; its item's id. See `put_many`."""
        return self.put_many([(document, provenance)])[0]

    def put_many(self, entries: Iterable[tuple[Document, Mapping[str, Any]]]) -> list[int]:
        """Insert the items of some addresses, or update those that are not newer than this.

        What an item held before is kept as a version where bytes and text have changed.

        Args:
            entries: documents, each with ``url`` (as the user gave it, without credentials),
                ``key`` (the canonical address), ``mime_type``, ``sha256`` and ``size`` of the
                bytes, ``tag`` (None leaves an earlier one), ``fetched_at`` (seconds since the
                epoch, when the bytes were asked for) and ``job_id``.

        Returns:
            the items' ids, the same for the same key.

        Raises:
            StorageError: they can't be written; then none is.
        """
        rows = [_row(document, **provenance) for document, provenance in entries]

        def store(connection: sqlite3.Connection) -> list[int]:
            return [_upsert(connection, row) for row in rows]

        return self.database.write(store)

    def visited(self, key: str, at: float) -> int | None:
        """Note that the content of an item still stands: nothing else of it changes.

        Args:
            key: the canonical address.
            at: when the other side was asked, in seconds since the epoch.

        Returns:
            the item's id, None where there is none.
        """

        def note(connection: sqlite3.Connection) -> int | None:
            found = connection.execute("SELECT id FROM items WHERE key = ?", (key,)).fetchone()
            if found is not None:
                connection.execute("REPLACE INTO visits VALUES (?, ?)", (found["id"], at))
            return None if found is None else int(found["id"])

        return self.database.write(note)

    def get(self, item_id: int) -> dict[str, Any] | None:
        """One item with its text and metadata, None where there is none.

        ``versions`` counts what it has held, ``duplicates`` are the items with equal bytes.
        """
        rows = self.database.read(
            f"SELECT {_LISTED}, (SELECT count(*) + 1 FROM versions WHERE item_id = items.id)"
            " AS versions, (SELECT json_group_array(id) FROM items AS twins"
            " WHERE twins.sha256 = items.sha256 AND twins.id != items.id) AS duplicates, text"
            f" FROM {_VISITED} WHERE items.id = ?",
            (item_id,),
        )
        if not rows:
            return None
        row = _public(rows[0])
        row["duplicates"] = json.loads(row["duplicates"])
        return row

    def versions(self, item_id: int) -> list[dict[str, Any]]:
        """What an item has held, oldest first; the last one is what it holds now.

        Returns:
            rows with ``version`` (from 1), ``title``, ``sha256``, ``size`` and ``fetched_at``.
        """
        columns = "title, sha256, size, fetched_at"
        rows = self.database.read(
            f"SELECT version, {columns} FROM versions WHERE item_id = ?1 UNION ALL"
            f" SELECT (SELECT count(*) + 1 FROM versions WHERE item_id = ?1), {columns}"
            " FROM items WHERE id = ?1 ORDER BY version",
            (item_id,),
        )
        return [{**row, "fetched_at": iso(row["fetched_at"])} for row in rows]

    def diff(self, item_id: int, a: int = -2, b: int = -1) -> str:
        """What changed in the text of an item, as a unified diff; empty where nothing did.

        Args:
            item_id: the item.
            a, b: the earlier and the later version; a negative one counts from the last, -1.

        Raises:
            NotFound: no such item or version.
        """
        known = self.versions(item_id)
        chosen = [number if number > 0 else len(known) + 1 + number for number in (a, b)]
        if len(known) == 1 and (a, b) == (-2, -1):
            return ""
        for number in chosen:
            if not 0 < number <= len(known):
                raise NotFound(f"item {item_id} has {len(known)} versions, none is {number}")
        before, after = (
            self._version(item_id, number, len(known)).splitlines() for number in chosen
        )
        names = [f"version {number}, {known[number - 1]['fetched_at']}" for number in chosen]
        return "\n".join(difflib.unified_diff(before, after, names[0], names[1], lineterm=""))

    def _version(self, item_id: int, number: int, last: int) -> str:
        if number == last:
            return str(self.database.read("SELECT text FROM items WHERE id = ?", (item_id,))[0][0])
        sql = "SELECT text FROM versions WHERE item_id = ? AND version = ?"
        return zlib.decompress(self.database.read(sql, (item_id, number))[0][0]).decode()

    def find(self, key: str) -> int | None:
        """The id of the item with that canonical address, None where there is none."""
        rows = self.database.read("SELECT id FROM items WHERE key = ?", (key,))
        return int(rows[0]["id"]) if rows else None

    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """The items that hold all words of a query, best first.

        Args:
            query: words, ``"phrases"`` and ``prefix*``; ``site:example.org`` (its subdomains
                too), ``tag:news``, ``before:2026-02`` and ``after:2025-12-31`` (the date of the
                document, else of its fetch). Other signs mean nothing, and no text is an error.
            limit: the most hits.

        Returns:
            rows with ``id``, ``url``, ``title``, ``snippet`` (hits between `HIT_START` and
            `HIT_END`) and ``score``, higher for better ones (by bm25, of the newest 1,000 that
            match). Words that tens of thousands of items hold count only beside rarer ones;
            alone they give the newest, those with a hit in the title (score 1.0) first.
            Operators alone give the items that they choose, newest first.
        """
        return search(self.database, query, limit)

    def list(self, *, tag: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
        """Items without their texts, the one fetched last first."""
        rows = self.database.read(
            f"SELECT {_LISTED} FROM {_VISITED} {'' if tag is None else 'WHERE tag = ?2'}"
            " ORDER BY fetched_at DESC, items.id DESC LIMIT ?1",
            (-1 if limit is None else limit, *([] if tag is None else [tag])),
        )
        listed = [_public(row) for row in rows]
        for row in listed:
            del row["metadata"]
        return listed

    def count(self) -> int:
        """The number of items."""
        return int(self.database.read("SELECT count(*) FROM items")[0][0])

    def count_since(self, since: float) -> int:
        """The number of items stored or changed since that time (seconds since the epoch)."""
        sql = "SELECT count(*) FROM items WHERE stored_at >= ?"
        return int(self.database.read(sql, (since,))[0][0])

    def clear(self) -> int:
        """Remove every item; the number of them."""

        def work(connection: sqlite3.Connection) -> int:
            (number,) = connection.execute("SELECT count(*) FROM items").fetchone()
            # Row by row, the triggers would take every text apart once more.
            connection.execute("DROP TRIGGER words_removed")
            for table in ("items", "versions", "visits"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
            connection.execute(_WORDS_REMOVED)
            return int(number)

        return self.database.write(work)

    def checkpoint(self) -> None:
        """Bound the write-ahead log."""
        self.database.checkpoint()

    def close(self) -> None:
        """Close the connections of all threads."""
        self.database.close()


def _line(text: str | None) -> str | None:
    """A title or name on one line, None where nothing is left of it."""
    return " ".join(UNSTORABLE.sub(" ", text or "").split()) or None


def _row(
    document: Document,
    *,
    url: str,
    key: str,
    mime_type: str,
    sha256: str,
    size: int,
    tag: str | None,
    fetched_at: float,
    job_id: int | None = None,
) -> dict[str, Any]:
    text = UNSTORABLE.sub("", document.text)
    return {
        "key": key, "url": UNSTORABLE.sub("", url), "mime_type": mime_type,
        "sha256": sha256, "size": size, "tag": tag, "fetched_at": fetched_at,
        "stored_at": time.time(), "job_id": job_id,
        "title": _line(document.title), "author": _line(document.author),
        "date": _line(document.date), "language": _line(document.language),
        "metadata": json.dumps({**document.metadata, "words": words(text)}),
        "text": text,
    }  # fmt: skip


def _upsert(connection: sqlite3.Connection, row: dict[str, Any]) -> int:
    old = connection.execute(
        f"SELECT id, sha256, text, tag, max(fetched_at, coalesce(visited_at, 0)) AS seen_at"
        f" FROM {_VISITED} WHERE key = ?",
        (row["key"],),
    ).fetchone()
    tag = old["tag"] if old is not None and row["tag"] is None else row["tag"]
    row = {**row, "tag": tag, "marks": facets_of(row["key"], tag)}
    if old is None:
        return int(connection.execute(_INSERT, row).lastrowid or 0)
    # A fetch that was overtaken by a later one comes too late and changes nothing.
    if row["fetched_at"] >= old["seen_at"]:
        if old["sha256"] != row["sha256"] and old["text"] != row["text"]:
            connection.execute(_KEEP, (zlib.compress(old["text"].encode()), old["id"]))
        connection.execute(_UPDATE, {**row, "id": old["id"]})
    return int(old["id"])


def _public(row: sqlite3.Row) -> dict[str, Any]:
    public = dict(row)
    for name in ("fetched_at", "stored_at", "visited_at"):
        public[name] = iso(public[name])
    metadata = json.loads(public.pop("metadata"))
    words = metadata.pop("words", None)
    text = {"text": public.pop("text")} if "text" in public else {}
    return {**public, "site": metadata.get("site"), "words": words, "metadata": metadata, **text}


@hookimpl
def data_storage_provider(app: App) -> ItemStore:
    """The built-in store: ``items.db`` in the data directory, or where the settings say."""
    path = app.settings.data_storage.sqlite.path
    return ItemStore(path or app.data_dir / "items.db")
