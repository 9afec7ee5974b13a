"""Whose turn it is at a host: one request at a time and a pause in between, across all workers.

Of the jobs that want the same host only the one that is next holds a turn; the others stand in the
host's line, where no claim looks, so that a hundred thousand of them cost no more than one. The
end of an execution gives the turn to the next in line, with the time from which the host may be
asked again. Where no pause is set, many turns are given at once, and only a host that asked for
a pause makes its jobs wait.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

NO_HOST, WAITING, HAS_SLOT = range(3)  # a job's ``host_slot`` at its host
UNPACED_SLOTS = 256  # turns at a host where no pause is set
LONGEST_CRAWL_DELAY = 3600.0  # seconds; what a robots.txt may ask for

BACK_TO_WAITING = "UPDATE jobs SET host_slot = 1, ready = 0, run_at = NULL WHERE id = ?"
_NEXT = (
    "SELECT id FROM jobs INDEXED BY jobs_waiting_for_host WHERE host_slot = 1 AND host = ?"
    " ORDER BY priority DESC, id LIMIT ?"
)


class HostDelay(NamedTuple):
    """What a host asked for in an execution, in seconds: between two requests, and from now on."""

    host: str
    crawl_delay: float | None = None
    pause: float = 0.0


class Slot(NamedTuple):
    """Where a job that may start now stands: the columns of its row."""

    host_slot: int
    ready: int
    run_at: float | None


@dataclass
class _Host:
    """From when on it may be asked, its Crawl-delay, how many stand in its line or hold a turn."""

    free_at: float = 0.0
    crawl_delay: float = 0.0
    waiting: int = 0
    held: int = 0
    stored: tuple[float, float, int] | None = None

    @property
    def row(self) -> tuple[float, float, int]:
        return self.free_at, self.crawl_delay, max(self.waiting, 0)


class HostLimiter:
    """The turns that one transaction gives and takes back.

    Args:
        connection: of the transaction.
        now: the job table's clock.
        host_delay: seconds between two requests to one host; 0: none, and no single file.
    """

    def __init__(
        self, connection: sqlite3.Connection, now: Callable[[], float], host_delay: float
    ) -> None:
        self._connection = connection
        self._now = now
        self._delay = host_delay
        self._hosts: dict[str, _Host] = {}

    def acquire(self, host: str | None) -> Slot:
        """The host_slot of a job that may start now, but for its host."""
        if host is None:
            return Slot(NO_HOST, 1, None)
        entry = self._host(host)
        if self._free(entry) <= 0:
            entry.waiting += 1
            return Slot(WAITING, 0, None)
        entry.held += 1
        return self._slot(entry)

    def requeue(self, job_id: int, host: str | None) -> None:
        """Write that host_slot into the job's row."""
        self._connection.execute(
            "UPDATE jobs SET host_slot = ?, ready = ?, run_at = ? WHERE id = ?",
            (*self.acquire(host), job_id),
        )

    def is_crowded(self, host: str | None) -> bool:
        """Whether more hold a turn than may: they got it where no pause was set."""
        return host is not None and self._free(self._host(host)) < 0

    def preempt(self, job_id: int, host: str) -> bool:
        """Give a job in line the turn of one that does not run; False where all such run."""
        holder = self._connection.execute(
            "SELECT id FROM jobs WHERE host_slot = 2 AND host = ? AND worker IS NULL LIMIT 1",
            (host,),
        ).fetchone()
        if holder is None:
            return False
        entry = self._host(host)
        self._connection.execute(BACK_TO_WAITING, (holder["id"],))
        entry.held -= 1
        self.requeue(job_id, host)
        return True

    def release(self, host: str, *, host_delays: bool = False, waited: int = 0) -> None:
        """Give the turns on that jobs, whose rows say so already, hold no more.

        Args:
            host: the host.
            asked: it may have had a request; the pause begins now.
            waited: how many jobs have left its line.
        """
        entry = self._host(host)
        entry.waiting -= waited
        if host_delays and self._delay:
            delay = max(self._delay, entry.crawl_delay)
            entry.free_at = max(entry.free_at, self._now() + delay)
        entry.held = self._held(host)
        free = self._free(entry)
        next_claim = self._connection.execute(_NEXT, (host, free)) if free > 0 else ()
        if ids := [row["id"] for row in next_claim]:
            self._connection.execute(
                "UPDATE jobs SET host_slot = ?, ready = ?, run_at = ?"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (*self._slot(entry), json.dumps(ids)),
            )
            entry.held += len(ids)
            entry.waiting -= len(ids)

    def record(self, host_delays: Iterable[HostDelay]) -> None:
        """Keep what hosts have asked for; those who hold a turn wait with all others."""
        for host, crawl_delay, pause in host_delays:
            entry = self._host(host)
            if crawl_delay is not None:
                entry.crawl_delay = min(crawl_delay, LONGEST_CRAWL_DELAY)
            if pause:
                entry.free_at = max(entry.free_at, self._now() + pause)
                self._connection.execute(
                    "UPDATE jobs SET ready = 0, run_at = ? WHERE host_slot = 2 AND host = ?"
                    " AND worker IS NULL",
                    (entry.free_at, host),
                )

    def store(self) -> None:
        """Write what is known of the hosts, in the transaction that changed it."""
        changed = [(host, *e.row) for host, e in self._hosts.items() if e.row != e.stored]
        if changed:
            self._connection.executemany("REPLACE INTO hosts VALUES (?, ?, ?, ?)", changed)

    def _free(self, entry: _Host) -> int:
        return (1 if self._delay else UNPACED_SLOTS) - entry.held

    def _slot(self, entry: _Host) -> Slot:
        later = entry.free_at > self._now()
        return Slot(HAS_SLOT, not later, entry.free_at if later else None)

    def _host(self, host: str) -> _Host:
        entry = self._hosts.get(host)
        if entry is None:
            row = self._connection.execute(
                "SELECT free_at, crawl_delay, waiting FROM hosts WHERE host = ?", (host,)
            ).fetchone()
            entry = self._hosts[host] = _Host(*row) if row else _Host()
            entry.stored = entry.row if row else None
            entry.held = self._held(host)
        return entry

    def _held(self, host: str) -> int:
        """How many hold a turn: counted, so that nothing can be out of step with the rows."""
        return int(
            self._connection.execute(
                "SELECT count(*) FROM jobs INDEXED BY jobs_host_slots"
                " WHERE host_slot = 2 AND host = ?",
                (host,),
            ).fetchone()[0]
        )
