"""SQLite as this package uses it: WAL, a connection for each thread that reads and one for all
that write, guarded write transactions.

Both databases (jobs and items) open here, so that permissions, timeouts, migrations and the
treatment of an interrupt in the middle of a transaction are the same everywhere.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from paise2nb.core.errors import StorageError
from paise2nb.core.file_lock import FairFileLock
from paise2nb.core.files import make_private_directory

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 30.0
LOG_BYTES = 16_000_000  # to which the write-ahead log is cut when no reader needs more of it

_ADVICE = {
    "SQLITE_FULL": "no space left on the disk; free some, nothing was stored",
    "SQLITE_BUSY": "another process held it for too long; try again, or type: paise2 doctor",
    "SQLITE_CORRUPT": "the file is damaged; type: paise2 doctor",
    "SQLITE_NOTADB": "the file is damaged; type: paise2 doctor",
}
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
ASIDE = ".damaged-"  # what a damaged file's name is given, with the time


class Database:
    """One SQLite file, usable from every thread of one process.

    Args:
        path: the file; it and its directory are made private to the user.
        migrations: SQL scripts; the n-th leads from ``user_version`` n to n + 1.
        page: bytes of a page of a new file. A small one makes brief commits cheaper.
        durable: True commits with ``synchronous=FULL`` (survives a power cut), False with
            NORMAL (the last commits may be lost by a power cut, never by a crash).

    Raises:
        StorageError: the file can't be opened, is damaged, or is of a newer version.
    """

    def __init__(
        self, path: Path, migrations: Sequence[str], *, durable: bool, page: int = 4096
    ) -> None:
        self.path = path
        self._name = str(path)  # asked for with every read and write
        self.durable = durable
        self._page = page
        self._local = threading.local()
        # By process and thread; under None the one that writes.
        self._connections: dict[tuple[int, threading.Thread | None], sqlite3.Connection] = {}
        # Threads of one process take turns here, where waiting is fair and costs nothing;
        # only processes meet at SQLite's own lock.
        self._thread_lock = threading.Lock()
        self._file: tuple[int, int] | None = None  # device and inode of what was opened
        self._size = 0
        self._file_lock = FairFileLock(path.with_name(f"{path.name}.line"))
        make_private_directory(path.parent)
        try:
            self._migrate(migrations)
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.DatabaseError) -> StorageError:
        code = getattr(error, "sqlite_errorname", "")
        advice = _ADVICE.get(code.rsplit("_", 1)[0] if code.count("_") > 1 else code)
        return StorageError(f"{self.path}: {advice or f'{error}; type: paise2 doctor'}")

    def connection(self) -> sqlite3.Connection:
        """This thread's connection, opened when first asked for (and anew after a fork)."""
        known: tuple[int, sqlite3.Connection] | None = getattr(self._local, "known", None)
        if known is None or known[0] != os.getpid():
            connection = self._opened(threading.current_thread())
            self._local.known = known = os.getpid(), connection
            self._close_ended_threads()
        return known[1]

    def _writer(self) -> sqlite3.Connection:
        """The connection on which the threads of this process write, in turn.

        Its pages stay in memory: on one of its own each thread would have to read again what
        another has written.
        """
        return self._connections.get((os.getpid(), None)) or self._opened(None)

    def _opened(self, thread: threading.Thread | None) -> sqlite3.Connection:
        try:
            connection = self._open()
        except OSError as error:
            raise StorageError(
                f"can't create {self.path}: {error.strerror}; choose another with --data-dir"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error
        self._connections[os.getpid(), thread] = connection
        return connection

    def _open(self) -> sqlite3.Connection:
        # Permissions are set before SQLite creates its own files, which inherit them.
        if not self.path.exists():
            self._refuse_to_replace()
            if self._file is not None:
                self._require_same_file()
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        # A damaged text must not make its row, and all that are read with it, unreadable.
        connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        connection.execute(f"PRAGMA page_size={self._page}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if self.durable else 'NORMAL'}")
        connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
        if self._file is None:
            found = self.path.stat()
            self._file = found.st_dev, found.st_ino
        return connection

    def _refuse_to_replace(self) -> None:
        """Begin no new file where a damaged one was put aside: that is for the user to decide."""
        if aside := put_aside(self.path):
            raise StorageError(
                f"{self.path} was damaged and lies at {aside[-1]}: mend it and move it back, or "
                "move it elsewhere to begin anew (items are in a file of their own)"
            )

    def _require_same_file(self) -> None:
        """See that the path still names the file that was opened, and that it is not cut off."""
        size = self._size  # read first: another thread may see the file grow meanwhile
        try:
            found = os.stat(self._name)
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._file:
            self._refuse_to_replace()
            raise StorageError(
                f"{self.path} was deleted or replaced while it was in use; nothing more is "
                "written to it. Close the app (or restart the kernel) and type: paise2 doctor"
            )
        if found.st_size < size:  # nothing here ever makes it smaller
            raise self._put_aside("it was truncated")
        self._size = found.st_size

    def check(self) -> None:
        """Look whether the file is still there, is the one that was opened, and can be read.

        A damaged file is put aside, so that nothing is accepted into it any more.

        Raises:
            StorageError: it is not; with what to do.
        """
        self._require_same_file()
        # A connection of its own: the pages that others keep in memory hide what is on the disk.
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as fresh:
                tables = fresh.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
                ).fetchall()
                if not tables:
                    raise self._put_aside("it is empty")
                for (name,) in tables:
                    fresh.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchall()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "").startswith(_DAMAGE):
                raise self._put_aside(str(error)) from error
            raise self._explained(error) from error

    def _put_aside(self, reason: str) -> StorageError:
        """Rename the damaged file and its log, so that they can be looked at and mended."""
        aside = f"{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}"
        for suffix in ("", "-wal", "-shm"):
            source = self.path.with_name(self.path.name + suffix)
            with suppress(FileNotFoundError):
                source.rename(source.with_name(f"{self.path.name}{aside}{suffix}"))
        return StorageError(
            f"{self.path} is damaged ({reason}) and was put aside as {self.path.name}{aside}; "
            "type: paise2 doctor"
        )

    def _close_ended_threads(self) -> None:
        for pid, thread in list(self._connections):
            if pid == os.getpid() and thread is not None and not thread.is_alive():
                ended = self._connections.pop((pid, thread), None)
                if ended is not None:
                    ended.close()

    def read(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[sqlite3.Row]:
        """The rows of one query. A read is one statement: no snapshot outlives it.

        Raises:
            StorageError: the file can't be read.
        """
        try:
            connection = self.connection()
            self._require_same_file()
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def write(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``work(connection, …)`` in one write transaction: all of it is stored, or nothing.

        Not a context manager: an interrupt between its parts could leave the lock held.

        Raises:
            StorageError: the file can't be written.
        """
        with self._thread_lock:
            connection = self._writer()
            self._require_same_file()
            self._file_lock.open()
            try:
                if not self._file_lock.wait(BUSY_SECONDS):
                    raise StorageError(f"{self.path}: {_ADVICE['SQLITE_BUSY']}")
                if connection.in_transaction:  # a second interrupt has hit the ROLLBACK below
                    connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                value = work(connection, *args, **kwargs)
                connection.execute("COMMIT")
                return value
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError):
                    raise self._explained(error) from error
                raise
            finally:
                # This very call, not one that makes it: an interrupt could come in between.
                fcntl.flock(self._file_lock.file, fcntl.LOCK_UN)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database and cut it, unless a reader holds it."""
        with self._thread_lock:
            self._writer().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the connections of all threads. The next use opens anew."""
        self._local = threading.local()
        while self._connections:
            with suppress(sqlite3.ProgrammingError):
                self._connections.popitem()[1].close()
        self._file_lock.close()

    def _migrate(self, migrations: Sequence[str]) -> None:
        def upgrade(connection: sqlite3.Connection) -> None:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(migrations):
                raise StorageError(
                    f"{self.path} was written by a newer paise2nb (format {version}, this one "
                    f"knows {len(migrations)}); upgrade paise2nb, or use another --data-dir"
                )
            for number, script in enumerate(migrations[version:], version + 1):
                # Not executescript(): it would commit the transaction first.
                for statement in filter(str.strip, script.split(";\n")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number}")

        (version,) = self.connection().execute("PRAGMA user_version").fetchone()
        if version != len(migrations):
            self.write(upgrade)


def put_aside(path: Path) -> list[Path]:
    """The damaged files that were put aside from a path, the oldest first; not their logs."""
    return sorted(path.parent.glob(f"{path.name}{ASIDE}*[0-9]"))
