"""Databases that can't be opened as usual: missing, damaged, or on a full disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from paise2nb.core.disks import may_be_full
from paise2nb.core.errors import StorageError

T = TypeVar("T")

ASIDE = ".damaged-"  # appended to the name of a damaged file, before the time


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it is missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def lost(path: Path, companion: Path) -> StorageError:
    """Return the error for a missing or empty database whose companion shows that it was used."""
    state = "is empty (0 bytes)" if path.exists() else "is missing"
    return StorageError(
        f"{path} {state}, but {companion.name} shows that it had content: put the file back, "
        "restore a backup into an empty directory (paise2 restore PATH), or go on with an empty "
        "file: paise2 reset"
    )


def put_aside(path: Path) -> list[Path]:
    """Return the damaged files that were put aside from a path, oldest first, without logs."""
    return sorted(path.parent.glob(f"{path.name}{ASIDE}*[0-9]"))


def inspect(path: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Call ``read(connection)`` for a database of any format, and return its result.

    Args:
        path: The file. It is not created.
        read: Changes nothing.

    Raises:
        sqlite3.DatabaseError: The file can't be read.
    """
    uri = f"file:{quote(str(path))}"
    try:
        with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as connection:
            return read(connection)
    except sqlite3.OperationalError as error:
        if not may_be_full(error):
            raise
    with closing(sqlite3.connect(f"{uri}?mode=rw", uri=True)) as connection:
        need_no_shared_memory(connection)
        return read(connection)


def need_no_shared_memory(connection: sqlite3.Connection) -> None:
    """Make a new connection read without shared memory, for which a full disk has no space.

    SQLite then indexes the write-ahead log in its own memory, and locks out all other processes
    meanwhile: sqlite.org/wal.html, section 8. Reading the file alone (immutable=1) would miss what
    is only in the log.
    """
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
