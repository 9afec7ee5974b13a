"""A cache in one SQLite file: bytes compressed, a connection for each call."""

from __future__ import annotations

import hashlib
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PUT = (
    "INSERT INTO entries VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET stored_at = excluded.stored_at"
)


class SQLiteCache:
    """Bytes by their SHA-256, for every thread and many processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries"
                " (key TEXT PRIMARY KEY, data BLOB NOT NULL, stored_at REAL NOT NULL)"
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level="IMMEDIATE")
        try:
            connection.execute("PRAGMA synchronous=FULL")
            with connection:
                yield connection
        finally:
            connection.close()

    def put(self, data: bytes) -> str:
        key = hashlib.sha256(data).hexdigest()
        with self._open() as connection:
            connection.execute(_PUT, (key, zlib.compress(data, 1), time.time()))
        return key

    def get(self, key: str) -> bytes:
        with self._open() as connection:
            row = connection.execute("SELECT data FROM entries WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return zlib.decompress(row[0])

    def __contains__(self, key: str) -> bool:
        with self._open() as connection:
            sql = "SELECT count(*) FROM entries WHERE key = ?"
            return bool(connection.execute(sql, (key,)).fetchone()[0])

    def remove(self, needed: set[str], older_than: float) -> int:
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            sql = "SELECT key FROM entries WHERE stored_at <= ?"
            old = [row[0] for row in connection.execute(sql, (time.time() - older_than,))]
            gone = [(key,) for key in old if key not in needed]
            connection.executemany("DELETE FROM entries WHERE key = ?", gone)
        return len(gone)

    def clear(self) -> int:
        with self._open() as connection:
            return connection.execute("DELETE FROM entries").rowcount

    def close(self) -> None:
        """Do nothing: no connection stays open."""
