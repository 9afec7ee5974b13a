"""The items of a collection: one row for each URL, and a full-text index that changes with it.

An item is found by the canonical form of its URL, so a page is one item however its URL is spelled.
Rows and index change in one transaction (see ``schema.sql``).
"""

from __future__ import annotations

import difflib
import json
import sqlite3
import time
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, overload

from paise2nb.collection.index_text import indexed
from paise2nb.collection.search import UNSTORABLE, facets_of, search, tag_facet
from paise2nb.collection.sql import SQL
from paise2nb.config.settings import Settings
from paise2nb.core.clock import iso
from paise2nb.core.damage import inspect, lost_error, size_of
from paise2nb.core.errors import NotFound, redacted, shortened, without_secrets
from paise2nb.core.formats import create_missing, execute_script, read_format
from paise2nb.core.space import give_back_space
from paise2nb.core.sqlite import Database
from paise2nb.core.text import count_words
from paise2nb.core.urls import canonical_url, shown_url
from paise2nb.plugins import AppInfo, Document, hookimpl


def _compressed(text: str) -> bytes:
    return zlib.compress(text.encode())


def _shown_metadata(metadata: str) -> str:
    """JSON without the secrets in its URLs."""
    has_secrets = redacted(metadata) != metadata
    return json.dumps(without_secrets(json.loads(metadata))) if has_secrets else metadata


FORMAT = read_format(
    Path(__file__).parent,
    indexed=indexed,
    shown_url=shown_url,
    canonical_url=canonical_url,
    shown_metadata=_shown_metadata,
    compressed=_compressed,
)
LINE_LENGTH = 1000  # characters of a title or an author
METADATA_LENGTH = 200_000  # characters of JSON
_NEEDED = ("source", "words")  # of the metadata, which are short

_ONE_LINE = ("title", "author", "date", "language")
_TIMES = ("fetched_at", "stored_at", "visited_at")
_ROWS_AT_ONCE = 1000  # read from the database when a list is iterated
INDEXED_AT_ONCE = 200  # items after an upgrade, see migrations.sql; others can write in between
_ANY = "SELECT 1 FROM items LIMIT 1"
_TRIGGER = "SELECT sql FROM sqlite_master WHERE name = 'words_removed'"


class ItemRows(Sequence[dict[str, Any]]):
    """Items without their texts, in a given order. A row is read when it is used.

    Args:
        database: The database.
        ids: The ids of the items.
    """

    def __init__(self, database: Database, ids: Sequence[int]) -> None:
        self._database = database
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> ItemRows: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ItemRows(self._database, self._ids[index])
        item_id = self._ids[index]
        for row in self._read([item_id]):
            return row
        raise NotFound(f"item {item_id} was deleted")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the items that still exist."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self._read(self._ids[start : start + _ROWS_AT_ONCE])

    def _read(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        rows = {row["id"]: row for row in self._database.read(SQL["listed"], (json.dumps(ids),))}
        return [_public(rows[item_id]) for item_id in ids if item_id in rows]


class ItemStore:
    """The items of one data directory, in SQLite. Safe for many threads and processes.

    Args:
        path: The database file, created if it is missing.

    Raises:
        StorageError: The file can't be used, or was written by a newer version of paise2nb.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path, FORMAT, durable=True)
        if self.is_indexing() and self.count() <= INDEXED_AT_ONCE:
            self.complete_index()

    def put(self, document: Document, **provenance: Any) -> int:
        """Store one document and return the id of its item. See `put_many`."""
        return self.put_many([(document, provenance)])[0]

    def put_many(self, entries: Iterable[tuple[Document, Mapping[str, Any]]]) -> list[int]:
        """Insert items, or update those that were not fetched later.

        The old content of an item is kept as a version if both the bytes and the text differ.

        Args:
            entries: Documents, each with ``url`` (as the user gave it, without credentials),
                ``key`` (the canonical URL), ``mime_type``, ``sha256`` and ``size`` of the bytes,
                ``tag`` (an item is found by its earlier ones, too), ``fetched_at`` (when the
                fetch began, in seconds since the epoch) and ``job_id``.

        Returns:
            The ids of the items. Equal keys have equal ids.

        Raises:
            StorageError: The items can't be written. None of them is.
        """
        rows = [_row(document, provenance) for document, provenance in entries]
        return self.database.write(lambda writer: [_upsert(writer, row) for row in rows])

    def visited(self, key: str, at: float) -> int | None:
        """Record that an item was found unchanged.

        Args:
            key: The canonical URL.
            at: When the fetch began, in seconds since the epoch.

        Returns:
            The id of the item, or None if there is none.
        """
        rows = self.database.write(
            lambda writer: writer.execute(SQL["visit"], (at, key)).fetchall()
        )
        return int(rows[0][0]) if rows else None

    def get(self, item_id: int) -> dict[str, Any] | None:
        """One item with its text and metadata, or None if there is none.

        ``versions`` is the number of its versions, ``duplicates`` the items with equal bytes,
        at most 100.
        """
        rows = self.database.read(SQL["item"], (item_id,))
        return _public(rows[0]) if rows else None

    def versions(self, item_id: int) -> list[dict[str, Any]]:
        """The versions of an item, oldest first. The last one is its present content.

        Returns:
            Rows with ``version`` (from 1), ``title``, ``sha256``, ``size`` and ``fetched_at``.
        """
        rows = self.database.read(SQL["versions"], (item_id,))
        return [{**row, "fetched_at": iso(row["fetched_at"])} for row in rows]

    def diff(self, item_id: int, a: int = -2, b: int = -1) -> str:
        """The changes in the text of an item as a unified diff, empty if there are none.

        Args:
            item_id: The item.
            a, b: The earlier and the later version. Negative numbers count from the last one, -1.

        Raises:
            NotFound: There is no such item or version.
        """
        known = self.versions(item_id)
        if len(known) == 1 and (a, b) == (-2, -1):
            return ""
        for number in (a, b):
            if not 0 < abs(number) <= len(known):
                raise NotFound(f"item {item_id} has {len(known)} versions, none is {number}")
        chosen = [number if number > 0 else len(known) + 1 + number for number in (a, b)]
        before, after = (self._text(item_id, number).splitlines() for number in chosen)
        names = [f"version {number}, {known[number - 1]['fetched_at']}" for number in chosen]
        return "\n".join(difflib.unified_diff(before, after, names[0], names[1], lineterm=""))

    def _text(self, item_id: int, number: int) -> str:
        text = self.database.read(SQL["text_of_version"], (item_id, number))[0][0]
        return zlib.decompress(text).decode() if isinstance(text, bytes) else str(text)

    def find(self, key: str) -> int | None:
        """The id of the item with that canonical URL, or None if there is none."""
        rows = self.database.read("SELECT id FROM items WHERE key = ?", (key,))
        return int(rows[0]["id"]) if rows else None

    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """The items that contain all words of a query, best first.

        Args:
            query: Words, ``"phrases"`` and ``prefix*``; ``site:example.org`` (with subdomains),
                ``tag:news``, ``before:2026-02`` and ``after:2025-12-31`` (the date of the
                document, or else of its fetch). Other signs have no meaning. No text is an error.
            limit: The largest number of results.

        Returns:
            Rows with ``id``, ``url``, ``title``, ``snippet`` (matches are between `HIT_START` and
            `HIT_END`) and ``score``. Higher scores are better. They are those of bm25 among the
            newest 1,000 matches. Words of tens of thousands of items only count beside rarer
            ones. On their own they give the newest items, first those with a match in the title
            (score 1.0). Operators on their own give the items they select, newest first.
        """
        return search(self.database, query, limit)

    def list(self, *, tag: str | None = None, limit: int | None = None) -> ItemRows:
        """Items without their texts, of one tag or all. The one fetched last is the first."""
        sql = SQL["newest"].format(where="" if tag is None else SQL["tagged"])
        most = -1 if limit is None else limit
        rows = self.database.read(sql, {"tag": tag, "facet": tag_facet(tag or ""), "limit": most})
        return ItemRows(self.database, [row[0] for row in rows])

    def some(self, ids: Sequence[int]) -> ItemRows:
        """Those of some items that exist, without their texts, in that order."""
        rows = self.database.read(SQL["existing"], (json.dumps(ids),))
        found = {row[0] for row in rows}
        return ItemRows(self.database, [item_id for item_id in ids if item_id in found])

    def count(self) -> int:
        """The number of items."""
        return int(self.database.read("SELECT count(*) FROM items")[0][0])

    def count_since(self, since: float) -> int:
        """The number of items stored or changed since that time (seconds since the epoch)."""
        sql = "SELECT count(*) FROM items WHERE stored_at >= ?"
        return int(self.database.read(sql, (since,))[0][0])

    def clear(self) -> int:
        """Remove every item and return their number."""

        def delete(connection: sqlite3.Connection) -> int:
            # The trigger would read and tokenize every text again, only to remove its words.
            (trigger,) = connection.execute(_TRIGGER).fetchone()
            connection.execute("DROP TRIGGER words_removed")
            number = connection.execute("DELETE FROM items").rowcount
            connection.execute("DELETE FROM versions")
            connection.execute("DELETE FROM visits")
            connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
            connection.execute(trigger)
            return number

        number = self.database.write(delete)
        give_back_space(self.database.read, self.database.write)
        self.database.checkpoint()
        return number

    def is_indexing(self) -> bool:
        """Whether an upgrade has still to index items. Until then the earlier index is used."""
        return bool(self.database.read(SQL["is_indexing"]))

    def complete_index(self) -> None:
        """Index what an upgrade has left, step by step. It can be interrupted and resumed."""
        while self.database.write(_index_more):
            pass

    def checkpoint(self) -> None:
        """Complete and merge the index, and bound the size of the write-ahead log."""
        self.complete_index()
        while self.database.write(_merge_index):
            pass
        self.database.checkpoint()

    def close(self) -> None:
        """Close the connections of all threads."""
        self.database.close()


def _merge_index(connection: sqlite3.Connection) -> bool:
    """Merge some segments of the index. Return whether there may be more to merge."""
    before = connection.total_changes
    connection.execute(SQL["merge_index"])
    return connection.total_changes - before >= 2  # as FTS5's documentation says


def _index_more(connection: sqlite3.Connection) -> bool:
    """Index some items; once all are indexed, use the new index. Return whether more is left."""
    if connection.execute(SQL["is_indexing"]).fetchone() is None:
        return False
    if connection.execute(SQL["index_more"], (INDEXED_AT_ONCE,)).rowcount:
        return True
    execute_script(connection, SQL["switch_index"])
    create_missing(connection, FORMAT)
    return False


def _row(document: Document, provenance: Mapping[str, Any]) -> dict[str, Any]:
    text = unicodedata.normalize("NFC", UNSTORABLE.sub("", document.text))
    return {
        "job_id": None,
        **provenance,
        "url": UNSTORABLE.sub("", provenance["url"]),
        "stored_at": time.time(),
        **{name: _one_line(getattr(document, name)) for name in _ONE_LINE},
        "metadata": _bounded_json({**document.metadata, "words": count_words(text)}),
        "text": text,
    }


def _one_line(text: str | None) -> str | None:
    line = unicodedata.normalize("NFC", " ".join(UNSTORABLE.sub(" ", text or "").split()))
    return shortened(line, LINE_LENGTH) or None


def _bounded_json(metadata: dict[str, Any]) -> str:
    """Metadata as JSON, without what is longest if all is too long."""
    if (excess := len(_json(metadata)) - METADATA_LENGTH) <= 0:
        return _json(metadata)
    lengths = {name: len(_json(part)) for name, part in metadata.items() if name not in _NEEDED}
    shorter = dict(metadata)
    for name in sorted(lengths, key=lengths.__getitem__, reverse=True):
        if excess > 0:
            shorter[name] = f"left out: {lengths[name]:,} characters"
            excess -= lengths[name] - len(_json(shorter[name]))
    if excess > 0:  # many short ones
        shorter = {name: metadata[name] for name in _NEEDED if name in metadata}
        shorter["left_out"] = [f"{len(lengths):,} entries of the metadata"]
    return _json(shorter)


def _json(value: object) -> str:
    """JSON without lone surrogates, which can't be exported."""
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()


def _upsert(connection: sqlite3.Connection, row: dict[str, Any]) -> int:
    old = connection.execute(SQL["stored"], (row["key"],)).fetchone()
    tag = old["tag"] if old is not None and row["tag"] is None else row["tag"]
    facets = facets_of(row["key"], tag, "" if old is None else old["facets"])
    row = {**row, "tag": tag, "facets": facets}
    if old is None:
        return int(connection.execute(SQL["insert"], row).lastrowid or 0)
    # A later fetch may have been stored first: then this one changes nothing.
    if row["fetched_at"] >= old["seen_at"]:
        if old["sha256"] != row["sha256"] and old["text"] != row["text"]:
            text = _compressed(old["text"])
            connection.execute(SQL["keep_version"], (text, old["id"]))
        connection.execute(SQL["update"], {**row, "id": old["id"]})
    return int(old["id"])


def _public(row: sqlite3.Row) -> dict[str, Any]:
    """The fields of an item. The last ones, metadata and text, only if the row has a text."""
    public = {**row, **{name: iso(row[name]) for name in _TIMES}}
    metadata = json.loads(public.pop("metadata"))
    public |= {"site": metadata.get("site"), "words": metadata.pop("words", None)}
    if "text" in public:
        public["duplicates"] = json.loads(public["duplicates"])
        public |= {"metadata": metadata, "text": public.pop("text")}
    return public


def lost_database(settings: Settings, data_dir: Path) -> tuple[Path, Path] | None:
    """Return which of the two databases is missing or empty while the other one has content.

    An app creates the items first. So each look is at what is created later, and an app that is
    being opened at this moment is never taken for a loss.

    Returns:
        The lost one and the other one; None also if they are not those of one data directory.
    """
    jobs, path = settings.databases(data_dir)
    if jobs.parent != path.parent or settings.task_queue.provider not in ("sqlite", "none"):
        return None
    if size_of(jobs) and not size_of(path):
        return path, jobs
    with suppress(sqlite3.DatabaseError):  # damaged, or of another format: told when it is opened
        if size_of(path) and inspect(path, lambda c: c.execute(_ANY).fetchone()):
            return None if size_of(jobs) else (jobs, path)
    return None


@hookimpl
def data_storage_provider(app: AppInfo) -> ItemStore:
    """The built-in store: ``items.db`` in the data directory, or the path in the settings.

    Raises:
        StorageError: The database of items or of jobs beside it is missing or empty, while the
            other one shows that it had content.
    """
    if found := lost_database(app.settings, app.data_dir):
        raise lost_error(*found)
    return ItemStore(app.settings.databases(app.data_dir)[1])
