"""Databases that can't be opened as usual: missing, damaged, or on a full disk."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from paise2nb.core.disks import full_disk, is_disk_full, may_be_full
from paise2nb.core.errors import DatabaseLocked, DiskFull, StorageError, redacted
from paise2nb.core.file_lock import lock_holder
from paise2nb.core.processes import command_line, is_stopped

T = TypeVar("T")

WRITE_LOCK_BYTE = 120  # of the -shm file: sqlite.org/walformat.html, section 2.3.1
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
ASIDE = ".damaged-"  # appended to the name of a damaged file, before the time


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it is missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def companion(path: Path) -> Path | None:
    """Return a file beside a database that exists only after its first page was written."""
    log, lock = (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", ".lock"))
    return log if size_of(log) else lock if lock.exists() else None


def lost_error(path: Path, companion: Path) -> StorageError:
    """Return the error for a missing or empty database that was used, as its companion shows."""
    state = "is empty (0 bytes)" if path.exists() else "is missing"
    return StorageError(
        f"{path} {state}, but {companion.name} shows that it had content: put the file back, "
        "restore a backup into an empty directory (paise2 restore PATH), or go on with an empty "
        "file: paise2 reset"
    )


def storage_error(path: Path, error: sqlite3.DatabaseError | OSError) -> StorageError:
    """Return the error that says what is wrong with a database, and what to do."""
    if is_disk_full(error) or (may_be_full(error) and full_disk([path.parent])):
        return DiskFull(
            f"{path}: the disk is full, no space left on the disk; free some and try again, "
            "nothing is lost"
        )
    if isinstance(error, OSError):
        reason = f"can't create or write {path}: {error.strerror}"
        return StorageError(f"{reason}; choose another with --data-dir")
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):  # _SNAPSHOT, too
        return locked_error(path)
    reason = "the file is damaged" if is_damage(error) else str(error)
    return StorageError(f"{path}: {reason}; type: paise2 doctor")


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite raises this error for a damaged file."""
    return getattr(error, "sqlite_errorname", "").startswith(_DAMAGE)


def locked_error(path: Path) -> DatabaseLocked:
    """Return the error of a wait for a lock, with the process that has it."""
    lock, memory = (path.with_name(f"{path.name}{suffix}") for suffix in (".lock", "-shm"))
    pid = lock_holder(lock) or lock_holder(memory, byte=WRITE_LOCK_BYTE)
    problem = f"{path}: another process locked it for too long"
    if pid is None:
        return DatabaseLocked(f"{problem}; try again, or type: paise2 doctor")
    advice = f"wait for it, or end it: kill {pid}"
    if is_stopped(pid):
        advice = f"it is stopped; continue it: kill -CONT {pid}, or end it: kill -KILL {pid}"
    error = DatabaseLocked(f"{problem}: process {pid} ({redacted(command_line(pid))}); {advice}")
    error.pid = pid
    return error


def put_aside(path: Path) -> list[Path]:
    """Return the damaged files that were put aside from a path, oldest first, without logs."""
    return sorted(path.parent.glob(f"{path.name}{ASIDE}*[0-9]"))


def inspect(path: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Call ``read(connection)`` for a database of any format, and return its result.

    Args:
        path: The file. It is not created.
        read: Changes nothing. All of its queries see the same state.

    Raises:
        sqlite3.DatabaseError: The file can't be read.
    """
    uri = f"file:{quote(str(path))}"
    try:
        with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")  # another process may migrate it meanwhile
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
