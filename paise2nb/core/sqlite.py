"""SQLite in WAL mode: each thread reads on its own connection, all write on one, in transactions.

Both databases (jobs and items) are opened here, so that permissions, timeouts, migrations, damage
and interrupts within a transaction are treated alike.
"""

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
from weakref import WeakSet

from paise2nb.core.damage import (
    ASIDE,
    companion,
    is_damage,
    locked_error,
    lost_error,
    need_no_shared_memory,
    put_aside,
    size_of,
    storage_error,
)
from paise2nb.core.disks import may_be_full
from paise2nb.core.durable_log import DurableLog
from paise2nb.core.errors import StorageError
from paise2nb.core.file_lock import NAPS, FairFileLock
from paise2nb.core.files import make_private_directory
from paise2nb.core.formats import Format, migrate, newer_format_error
from paise2nb.core.space import AUTO_VACUUM, gave_back

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 30.0
FORK_SECONDS = 1.0  # for which a fork waits until no other thread reads or writes
LOG_BYTES = 16_000_000  # size to which the write-ahead log is cut once no reader needs more
LOG_LEAST, LOG_SHARE = 250_000, 8  # on a small disk: an eighth of what is left, at least so much


class _Connection(sqlite3.Connection):
    """Closes itself when its last user lets go of it, without Python's ResourceWarning."""

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it could not be opened
            self.close()


class Database:
    """One SQLite file, usable from every thread of a process.

    Args:
        path: The file. It is made private to the user, and so is a new directory.
        wanted: The format. A file of an earlier format is migrated.
        durable: Whether commits survive a power cut when `write` returns. Otherwise the last ones
            may be lost in a power cut, but not in a crash.
        busy_seconds: How long to wait while another process writes.
        create: Whether to create a missing file, and to migrate one of an earlier format.
        replace: Whether to create a missing file even if it had content before.

    Raises:
        StorageError: The file can't be opened, is damaged, was written by a newer version, or is
            missing or empty although its companions show that it had content.
        DiskFull: It has to be created or migrated, and the disk is full.
    """

    def __init__(
        self,
        path: Path,
        wanted: Format,
        *,
        durable: bool,
        busy_seconds: float = BUSY_SECONDS,
        create: bool = True,
        replace: bool = False,
    ) -> None:
        self.path, self.durable = path, durable
        self._creates, self._replaces = create, replace
        self._functions, self._version = wanted.functions, wanted.version
        self._name = str(path)  # converted once: every read and write needs it
        self.on_commit: Callable[[], object] = bool  # called before the wait for the disk
        self._page, self._busy_seconds = wanted.page, busy_seconds
        # By thread. The writing connection has None in place of a thread.
        self._connections: dict[threading.Thread | None, sqlite3.Connection] = {}
        # Orders the threads of this process; the file lock orders processes.
        self._thread_lock = threading.Lock()
        self._readers: set[threading.Thread] = set()
        self._forking: threading.Thread | None = None  # for which the others wait
        self._file: tuple[int, int] | None = None  # device and inode of the opened file
        self._size, self._fork_has_lock = 0, False
        lock = path.with_name(f"{path.name}.lock")
        self._file_lock = FairFileLock(lock, naps=0 if durable else NAPS)
        self._log = DurableLog(path)
        if create:
            make_private_directory(path.parent)
        _databases.add(self)
        self._migrate(wanted)

    def wait_at_most(self, seconds: float) -> None:
        """Wait no longer than that while another process writes."""
        self._busy_seconds = seconds
        for connection in list(self._connections.values()):
            connection.execute(f"PRAGMA busy_timeout={round(seconds * 1000)}")

    def connection(self) -> sqlite3.Connection:
        """Return the connection of this thread."""
        try:
            return self._connection(threading.current_thread())
        except (sqlite3.DatabaseError, OSError) as error:
            raise storage_error(self.path, error) from error

    def _connection(self, thread: threading.Thread | None) -> sqlite3.Connection:
        """Return the connection of a thread, or for None the connection for writing.

        All threads write on that one connection, so that they share its page cache.
        """
        if known := self._connections.get(thread):
            return known
        connection = self._open()
        self._connections[thread] = connection
        self._close_ended_threads()
        return connection

    def _open(self) -> sqlite3.Connection:
        self._require_file()
        connection = self._connect()
        try:
            connection.execute(f"PRAGMA page_size={self._page}")
            if not size_of(self.path):
                connection.execute(AUTO_VACUUM)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            disk = os.statvfs(self.path)
            log_bytes = max(LOG_LEAST, min(LOG_BYTES, disk.f_bavail * disk.f_frsize // LOG_SHARE))
            connection.execute(f"PRAGMA journal_size_limit={log_bytes}")
            # Not every 1,000 pages: a checkpoint waits for the disk, and small pages fill it soon.
            # The lines "drain" of tests.benchmarks.queue are 20 % faster.
            connection.execute(f"PRAGMA wal_autocheckpoint={log_bytes // 2 // self._page}")
        except sqlite3.DatabaseError:
            connection.close()  # the traceback refers to it, and it has locks
            raise
        self._remember_file()
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        connection.row_factory = sqlite3.Row
        for name, function in self._functions.items():
            connection.create_function(name, 1, function, deterministic=True)
        # Damaged text must not make the other rows of a query unreadable.
        connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        return connection

    def _remember_file(self) -> None:
        if self._file is None:
            found = self.path.stat()
            self._file = found.st_dev, found.st_ino

    def _require_file(self) -> None:
        """Create the file if it is missing or empty, unless it had content before."""
        beside = companion(self.path)  # first: another process may create the file meanwhile
        if size_of(self.path):
            return
        if not self.path.exists():
            if not self._replaces:
                self._refuse_to_replace()
            if self._file is not None:
                self._require_same_file()
            if not self._creates:
                raise StorageError(f"{self.path} is missing")
        if beside is not None and not self._replaces:
            raise lost_error(self.path, beside)
        # Created before SQLite does: its other files get the permissions of this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))

    def _refuse_to_replace(self) -> None:
        """Create no new file after a damaged one was put aside: the user has to decide that."""
        if aside := put_aside(self.path):
            raise StorageError(
                f"{self.path} was damaged and is now {aside[-1]}: repair it and move it back, or "
                "go on with an empty file: paise2 reset"
            )

    def _require_same_file(self) -> None:
        """Check that the path still leads to the opened file, and that it was not truncated."""
        size = self._size  # read before stat(): another thread may see the file grow meanwhile
        try:
            found = os.stat(self._name)
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._file:
            self._refuse_to_replace()
            raise StorageError(
                f"{self.path} was deleted or replaced while it was in use; it is no longer written "
                "to. Close the app (or restart the kernel) and type: paise2 doctor"
            )
        if found.st_size < size and not gave_back(self.path, found.st_size, BUSY_SECONDS):
            raise self._put_aside("it was truncated")
        self._size = found.st_size

    @property
    def file(self) -> str:
        """The opened file as ``DEVICE:INODE``: a copy of it is another one."""
        assert self._file is not None, "it was opened when this object was created"
        return f"{self._file[0]}:{self._file[1]}"

    def check(self) -> None:
        """Check that the file still exists, is the one that was opened, and can be read.

        A damaged file is put aside, so that nothing more is accepted into it.

        Raises:
            StorageError: It is not. The message tells what to do.
        """
        self._require_same_file()
        # On a new connection: the page caches of the others hide the state of the disk.
        try:
            with closing(sqlite3.connect(self.path, timeout=self._busy_seconds)) as reader:
                self._require_known_format(reader)
                tables = reader.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
                ).fetchall()
                if not tables:
                    raise self._put_aside("it is empty")
                for (name,) in tables:
                    reader.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchall()
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise self._put_aside(str(error)) from error
            raise storage_error(self.path, error) from error

    def _require_known_format(self, connection: sqlite3.Connection) -> None:
        """Check that no newer version has migrated the file since it was opened."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > self._version:
            raise newer_format_error(self.path, version, self._version)

    def _put_aside(self, reason: str) -> StorageError:
        """Rename a damaged file and its log, so that they can be inspected and repaired."""
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
        for thread in list(self._connections):
            # In a handler of atexit the main thread counts as ended, although it runs the handler.
            if thread not in (None, threading.current_thread()) and not thread.is_alive():
                self._close(thread)

    def _close(self, thread: threading.Thread | None) -> None:
        if connection := self._connections.pop(thread, None):
            connection.close()

    def read(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[sqlite3.Row]:
        """Return the rows of one query.

        Raises:
            StorageError: The file can't be read, or the query is wrong.
        """
        thread = threading.current_thread()
        try:
            self._readers.add(thread)
            while self._forking not in (None, thread):
                self._readers.discard(thread)
                time.sleep(0.001)
                self._readers.add(thread)
            try:
                connection = self._connection(thread)
            except sqlite3.OperationalError as error:
                if not may_be_full(error):
                    raise
                return self._read_alone(sql, parameters)
            self._require_same_file()
            return connection.execute(sql, parameters).fetchall()
        except (sqlite3.DatabaseError, OSError) as error:
            raise storage_error(self.path, error) from error
        finally:
            self._readers.discard(thread)

    def _read_alone(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object]
    ) -> list[sqlite3.Row]:
        with closing(self._connect()) as connection:
            need_no_shared_memory(connection)
            rows = connection.execute(sql, parameters).fetchall()
        self._remember_file()
        return rows

    def write(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call ``work(connection, …)`` in one write transaction, and return its result.

        Not a context manager: an interrupt between its two methods could leave the file locked.

        Raises:
            StorageError: The file can't be written.
            DatabaseLocked: Another process locked it for too long.
        """
        while self._forking not in (None, threading.current_thread()):
            time.sleep(0.001)
        with self._thread_lock:
            try:
                connection = self._connection(None)
                self._require_same_file()
                self._file_lock.open()
            except (sqlite3.DatabaseError, OSError) as error:
                raise storage_error(self.path, error) from error
            try:
                if not self._file_lock.acquire(self._busy_seconds):
                    raise locked_error(self.path)
                if connection.in_transaction:  # a second interrupt hit the ROLLBACK below
                    connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                self._require_known_format(connection)
                value = work(connection, *args, **kwargs)
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError):
                    raise storage_error(self.path, error) from error
                raise
            finally:
                # Not in a method: an interrupt could come between the two calls.
                fcntl.flock(self._file_lock.file, fcntl.LOCK_UN)
            if self.durable:  # as synchronous=FULL does, but other processes can write meanwhile
                self.on_commit()
                self._log.sync()
            return value

    def pin(self) -> sqlite3.Connection:
        """Return a new connection that reads what is committed now until it is closed.

        Raises:
            StorageError: The file can't be read.
        """
        for need_memory in (True, False):
            connection = self._connect()
            try:
                if not need_memory:
                    need_no_shared_memory(connection)
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.DatabaseError as error:
                connection.close()
                if not (need_memory and may_be_full(error)):
                    raise storage_error(self.path, error) from error
            else:
                break
        return connection

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database and truncate it, unless a reader needs it."""
        with self._thread_lock:
            try:
                self._connection(None).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except (sqlite3.DatabaseError, OSError) as error:
                raise storage_error(self.path, error) from error

    def close(self) -> None:
        """Close the connections. The next use opens new ones.

        Those that other threads are using are closed as soon as these let go of them: closing a
        connection in the middle of a query crashes the interpreter.
        """
        with self._thread_lock:
            self._close_all()

    def _close_all(self) -> None:
        self._close_ended_threads()
        for thread in (None, threading.current_thread()):
            self._close(thread)
        self._connections.clear()
        self._file_lock.close()
        self._log.close()

    def before_fork(self) -> None:
        """Let no thread use SQLite: its connections and locks don't survive a fork.

        If another thread uses it for too long, the fork goes on. Its child gets a new lock.
        """
        thread, deadline = threading.current_thread(), time.monotonic() + FORK_SECONDS
        while self._forking is not None and time.monotonic() < deadline:
            time.sleep(0.001)  # until the fork of another thread is over
        self._forking = thread
        self._fork_has_lock = self._thread_lock.acquire(timeout=FORK_SECONDS)
        while self._readers - {thread} and time.monotonic() < deadline:
            time.sleep(0.001)
        if self._fork_has_lock:
            self._close_all()

    def after_fork_in_parent(self) -> None:
        """Let other threads go on."""
        if self._forking is threading.current_thread():
            if self._fork_has_lock:
                self._thread_lock.release()
            self._forking = None

    def after_fork_in_child(self) -> None:
        """Start without the parent's lock, connections and files."""
        self._thread_lock, self._forking, self._readers = threading.Lock(), None, set()
        self._connections = {}
        self._file_lock.close()
        self._log.close()

    def _migrate(self, wanted: Format) -> None:
        version = self.read("PRAGMA user_version")[0][0]
        if not self._creates and version < wanted.version:
            raise StorageError(f"{self.path} has an earlier format; migrate it: paise2 status")
        if version != wanted.version:
            self.write(migrate, wanted, self.path)


_databases: WeakSet[Database] = WeakSet()


def _for_each(method: Callable[[Database], None]) -> None:
    for database in list(_databases):
        method(database)


os.register_at_fork(
    before=partial(_for_each, Database.before_fork),
    after_in_parent=partial(_for_each, Database.after_fork_in_parent),
    after_in_child=partial(_for_each, Database.after_fork_in_child),
)
