"""The job table's database, and how its moves are written and counted."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paise2nb.core.clock import SteadyClock, boot, iso, since_boot
from paise2nb.core.sqlite import Database
from paise2nb.jobs.host_limits import HostLimiter
from paise2nb.jobs.models import StateCounters
from paise2nb.jobs.schema import MIGRATIONS

# The trees under the jobs of a JSON list.
TREES = """
WITH RECURSIVE tree (root, id) AS (
    SELECT value, value FROM json_each(?)
    UNION SELECT tree.root, jobs.id FROM jobs JOIN tree ON jobs.parent_id = tree.id
)
"""


PAGE = 2048  # bytes; a claim and a completion write three pages


class JobDatabase:
    """The jobs, attempts and workers in one SQLite file.

    Args:
        path: the file, ``tasks.db``.
        durable: commits survive a power cut (for those who accept jobs from a user).
        host_delay: seconds between two requests to one host.

    Raises:
        StorageError: the file can't be used.
    """

    def __init__(self, path: Path, *, durable: bool = True, host_delay: float = 0.0) -> None:
        self.database = Database(path, MIGRATIONS, durable=durable, page=PAGE)
        self.path = path
        self.host_delay = host_delay
        self.clock = SteadyClock(None)  # while it is anchored
        self.clock = self._anchored()

    def now(self) -> float:
        """The time that rows carry, in seconds since the epoch."""
        return self.clock.now()

    def _anchored(self) -> SteadyClock:
        """The clock that every process on this table shares: anchored once in each boot."""
        passed = since_boot()
        if passed is None:
            return SteadyClock(None)
        known = json.loads(self.get("clock") or "[null, 0]")
        if known[0] != boot():

            def anchor(connection: sqlite3.Connection, _: StateCounters) -> list[Any]:
                row = connection.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
                if row is not None and json.loads(row[0])[0] == boot():
                    return list(json.loads(row[0]))
                anchored = [boot(), time.time() - passed]
                connection.execute("REPLACE INTO meta VALUES ('clock', ?)", (json.dumps(anchored),))
                return anchored

            known = self._write(anchor)
        return SteadyClock(known[1])

    def shown(self, seconds: float | None) -> str | None:
        """A row's time in ISO 8601, as the wall clock is set now."""
        try:
            return None if seconds is None else iso(self.clock.wall(seconds))
        except (TypeError, ValueError, OverflowError, OSError):  # no time: the row is damaged
            return None

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def _write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        def whole(connection: sqlite3.Connection) -> Any:
            counters = StateCounters(HostLimiter(connection, self.now, self.host_delay))
            value = work(connection, counters, *args, **kwargs)
            counters.store(connection)
            return value

        return self.database.write(whole)

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        return self.database.read(sql, parameters)

    def version(self) -> int:
        """A number that changes whenever another thread or process has written to the table.

        It is only to be compared with what the same thread was told before.
        """
        return int(self._read("PRAGMA data_version")[0][0])

    def get(self, key: str) -> str | None:
        """A note about the whole table."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0]["value"] if rows else None

    def put(self, key: str, value: str) -> None:
        """Keep a note about the whole table."""

        def work(connection: sqlite3.Connection, _: StateCounters) -> None:
            connection.execute("REPLACE INTO meta VALUES (?, ?)", (key, value))

        self._write(work)

    def checkpoint(self) -> None:
        """Bound the write-ahead log."""
        self.database.checkpoint()
