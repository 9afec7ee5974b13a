"""The job store's database: one SQLite file, and transactions that keep its counters right."""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from paise2nb.core.clock import SteadyClock, boot, iso, since_boot
from paise2nb.core.errors import DiskFull
from paise2nb.core.formats import read_format
from paise2nb.core.space import give_back_space
from paise2nb.core.sqlite import Database
from paise2nb.jobs.history import ENDED, Row, SeriesIds, page, write
from paise2nb.jobs.host_limits import HostLimiter
from paise2nb.jobs.models import UNFINISHED, StateCounters
from paise2nb.jobs.sql import SQL

S = TypeVar("S", bound="JobDatabase")
P = ParamSpec("P")
T = TypeVar("T")

# Bytes. A claim and a completion write three pages: the lines "drain" of tests.benchmarks.queue.
PAGE_SIZE = 2048
FORMAT = read_format(Path(__file__).parent)._replace(page=PAGE_SIZE)


class Transaction:
    """One write transaction on the job store.

    Attributes:
        execute, executemany: the methods of its connection.
        counters, host_limits: their changes are stored before the commit.
        ended: the rows that it adds to the history.
        new_series: their series that were not known; they are stored with the commit.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: Callable[[], float],
        host_delay: float,
        series: SeriesIds,
    ) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany
        self._now = now
        self.counters = StateCounters()
        self.ended: list[Row] = []
        self._series = series
        self.new_series: SeriesIds = {}
        self.host_limits = HostLimiter(connection, now, host_delay)

    def ids(self) -> tuple[int, int, bool]:
        """Return the last id, the id up to which jobs are counted, and whether workers are idle."""
        last, counted, idle = self.execute(SQL["ids"]).fetchone()
        return last, counted + self.counters.newly_counted, bool(idle)

    def late_pages(self, counted: int) -> int:
        """Return the number of pages after the id ``counted``."""
        return int(self.execute(SQL["late_pages"], (counted,)).fetchone()[0])

    def store(self) -> None:
        """Write the changes of the hosts, the pages, the history and the counters."""
        self.host_limits.store()
        if self.counters.pages:
            self._store_pages()
        if self.ended:
            self.new_series = write(self._connection, self.ended, self._series)
        changes = [(*key, *sums) for key, sums in self.counters.sums.items() if any(sums)]
        if changes:
            self.executemany(SQL["add_to_counters"], changes)

    def _store_pages(self) -> None:
        pages = json.dumps(list(self.counters.pages))
        changed = self.execute(SQL["changed_pages"], (pages,)).fetchall()
        for old, new, _ in changed:
            self.counters.count("page", old, -1)
            self.counters.count("page", new, 1)
            if old in UNFINISHED and new in ENDED:
                self.ended.append(page(new, self._now()))
        states = [(new, page_id) for _, new, page_id in changed]
        self.executemany("UPDATE jobs SET page_state = ? WHERE id = ?", states)


def transaction(
    method: Callable[Concatenate[S, Transaction, P], T],
) -> Callable[Concatenate[S, P], T]:
    """Run a method in one write transaction: all of it is stored, or nothing.

    The method gets the `Transaction` as its first argument, the caller does not pass it.
    """

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        def work(connection: sqlite3.Connection) -> tuple[T, SeriesIds]:
            tx = Transaction(connection, self.now, self.host_delay, self._series)
            value = method(self, tx, *args, **kwargs)
            tx.store()
            return value, tx.new_series

        value, new = self.database.write(work)
        if new:  # only now: before the commit another thread could use ids that are not stored
            self._series = {**self._series, **new}
        return value

    return run


class JobDatabase:
    """The jobs, attempts and workers in one SQLite file.

    Args:
        path: The file, ``tasks.db``.
        durable: Whether commits survive a power cut (for processes that accept a user's jobs).
        host_delay: Seconds between two requests to one host.
        create: Whether to create a missing file, and to migrate one of an earlier format.

    Attributes:
        now: Returns the time that rows carry, in seconds since the epoch.
        checkpoint: Bounds the write-ahead log.
        close: Closes the connections.

    Raises:
        StorageError: The file can't be used.
    """

    def __init__(
        self, path: Path, *, durable: bool = True, host_delay: float = 0.0, create: bool = True
    ) -> None:
        self.database = Database(path, FORMAT, durable=durable, create=create)
        self._read = self.database.read
        self.checkpoint = self.database.checkpoint
        self.close = self.database.close
        self.path = path
        self.host_delay = host_delay
        self._series: SeriesIds = {}  # the ids of known series
        self.clock = SteadyClock(self._clock_offset())
        self.now = self.clock.now

    def _clock_offset(self) -> float:
        """Return the offset that all processes share. The first one after each boot stores it."""
        while not (found := self._read(SQL["clock_offset"], (boot(),))):
            offset = time.time() - since_boot()
            try:
                value = json.dumps([boot(), offset])
                self.database.write(sqlite3.Connection.execute, SQL["store_clock_offset"], (value,))
            except DiskFull:  # what is there can still be read
                return offset
        return float(found[0]["offset"])

    def give_back_space(self) -> None:
        """Give the space of deleted rows back to the filesystem, and bound the log."""
        give_back_space(self.database.read, self.database.write)
        self.checkpoint()

    def iso_time(self, seconds: float | None) -> str | None:
        """A row's time in ISO 8601, by the present setting of the wall clock."""
        try:
            return None if seconds is None else iso(self.clock.wall(seconds))
        except (TypeError, ValueError, OverflowError, OSError):  # the row is damaged
            return None

    def _scalar(
        self, kind: Callable[[Any], T], sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> T | None:
        """Return the first value of a query as a type; None if there is none."""
        rows = self._read(sql, parameters)
        return kind(rows[0][0]) if rows and rows[0][0] is not None else None

    def _column(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[Any]:
        """Return the first column of a query."""
        return [row[0] for row in self._read(sql, parameters)]

    def version(self) -> int:
        """A number that changes when another thread or process has written to the job store.

        Compare it only with earlier numbers of the same thread.
        """
        return self._scalar(int, "PRAGMA data_version") or 0

    def get(self, key: str) -> str | None:
        """A value about the whole job store, None if it was never set."""
        return self._scalar(str, "SELECT value FROM meta WHERE key = ?", (key,))

    @transaction
    def put(self, tx: Transaction, key: str, value: str) -> None:
        """Set a value about the whole job store."""
        tx.execute("REPLACE INTO meta VALUES (?, ?)", (key, value))
