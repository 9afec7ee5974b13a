"""Give the free pages of a SQLite file back to the filesystem while other processes use it."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

# Of a new file. Its cost is not measurable: the lines "drain" of tests.benchmarks.queue.
AUTO_VACUUM = "PRAGMA auto_vacuum=INCREMENTAL"
FREED_AT_ONCE = 1000  # pages in one transaction
PAUSE = 0.02  # seconds between two transactions, for other processes that write
VACUUM_BYTES = 500_000_000  # takes some seconds, less than other processes wait for the lock
_MARK = "PRAGMA application_id"  # a number in the header of the file that SQLite does not use

Read = Callable[[str], list[Any]]
Write = Callable[..., object]


def give_back_space(read: Read, write: Write) -> None:
    """Give the free pages of a file back.

    A file of an earlier version, without ``auto_vacuum``, is written again as a whole if that frees
    a quarter of it: once, because it has ``auto_vacuum`` afterwards. The least number of pages that
    the file has ever had is stored in it, for `gave_back` in other processes.

    Args:
        read: Returns the rows of a query.
        write: Calls a function with the connection in a write transaction.
    """
    pages, free, size, mode = (
        read(f"PRAGMA {name}")[0][0]
        for name in ("page_count", "freelist_count", "page_size", "auto_vacuum")
    )
    maps = pages // (size // 5)  # pages that point back, for auto_vacuum; most go too
    least = max(1, (pages - free - maps) // 2)  # VACUUM may also fill half-empty pages
    if free:
        write(_mark, least)
    if mode:
        while free > 0:
            write(_free_pages)
            before, free = free, read("PRAGMA freelist_count")[0][0]
            if free >= before:  # other processes delete as fast
                return
            time.sleep(PAUSE)
    elif free > pages / 4 and (pages - free) * size < VACUUM_BYTES:
        write(_vacuum)


def gave_back(path: Path, size: int, timeout: float) -> bool:
    """Whether a file may have shrunk to a size in bytes because of `give_back_space`."""
    try:
        with closing(sqlite3.connect(path, timeout=timeout)) as reader:
            pages, page = (reader.execute(sql).fetchone()[0] for sql in (_MARK, "PRAGMA page_size"))
    except sqlite3.DatabaseError:
        return False
    return bool(0 < pages * page <= size)


def _mark(connection: sqlite3.Connection, pages: int) -> None:
    # Never more than before: a process may not have looked at the file since it last shrank.
    (before,) = connection.execute(_MARK).fetchone()
    connection.execute(f"{_MARK}={min(pages, before or pages)}")


def _free_pages(connection: sqlite3.Connection) -> None:
    for _ in range(FREED_AT_ONCE):  # one by one: Python runs only the first step of this statement
        connection.execute("PRAGMA incremental_vacuum(1)")


def _vacuum(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")  # VACUUM is a transaction of its own; the file stays locked
    connection.execute(AUTO_VACUUM)
    connection.execute("VACUUM")
    connection.execute("BEGIN")
