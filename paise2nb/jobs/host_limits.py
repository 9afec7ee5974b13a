"""Rate limits by host: one request at a time with a delay in between, across all workers.

Of the jobs for one host only the next has a slot. The others wait where no claim looks, so a
hundred thousand of them cost no more than one. The end of an execution gives its slot to the next
waiting job, with the time of the next request. Without a delay up to 256 jobs have a slot at once,
and only a host that asks for a pause makes its jobs wait.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from paise2nb.core.render import duration
from paise2nb.jobs.models import HostDelay
from paise2nb.jobs.sql import SQL

NO_HOST, WAITING, HAS_SLOT = range(3)  # the column host_slot of a job
UNPACED_SLOTS = 256  # of a host without a delay
LATEST = 0.2  # the weight of the latest request in the average duration
LONGEST_CRAWL_DELAY = 3600.0  # seconds; a longer one of a robots.txt is cut


class Slot(NamedTuple):
    """The columns of a job that may start now, unless it has to wait for its host."""

    host_slot: int
    ready: int
    run_at: float | None


READY = Slot(NO_HOST, 1, None)  # of a job without a host


@dataclass
class _Host:
    """A row of ``hosts``, with the number of slots in use.

    Attributes:
        free_at: the time of the next request.
        crawl_delay: seconds.
        waiting: the number of jobs that wait for a slot.
        seconds: how long a request takes, on average; the newest ones count most.
        stored: the values in the database.
    """

    free_at: float = 0.0
    crawl_delay: float = 0.0
    waiting: int = 0
    seconds: float = 0.0
    used: int = 0
    stored: tuple[float, float, int, float] | None = None

    @property
    def row(self) -> tuple[float, float, int, float]:
        return self.free_at, self.crawl_delay, max(self.waiting, 0), self.seconds


class HostLimiter:
    """Gives and takes slots within one transaction.

    Args:
        connection: of the transaction.
        now: the job store's clock.
        host_delay: seconds between two requests to one host; 0: no limit.
    """

    def __init__(
        self, connection: sqlite3.Connection, now: Callable[[], float], host_delay: float
    ) -> None:
        self._connection = connection
        self._now = now
        self._delay = host_delay
        self._hosts: dict[str, _Host] = {}

    def acquire(self, host: str, number: int) -> list[tuple[Slot, int]]:
        """Give slots of a host to the first of some jobs, and let the others wait for one.

        Returns:
            The slots with the number of jobs that have them.
        """
        entry = self._host(host)
        given = min(max(self._free(entry), 0), number)
        entry.used += given
        entry.waiting += number - given
        return [(self._slot(entry), given), (Slot(WAITING, 0, None), number - given)]

    def requeue(self, job_id: int, host: str) -> None:
        """Do the same for a job that has a row already."""
        [slot] = [slot for slot, number in self.acquire(host, 1) if number]
        self._connection.execute(SQL["set_slot"], (*slot, job_id))

    def send_back(self, job_id: int) -> None:
        """Take the slot of a job, which waits for another one."""
        self._connection.execute(SQL["set_slot"], (WAITING, 0, None, job_id))

    def is_crowded(self, host: str | None) -> bool:
        """Whether too many slots are in use: they were given when there was no delay."""
        return host is not None and self._free(self._host(host)) < 0

    def preempt(self, job_id: int, host: str) -> bool:
        """Give a waiting job the slot of one that is not running; False if all are running."""
        holder = self._connection.execute(SQL["unused_slot"], (host,)).fetchone()
        if holder is None:
            return False
        entry = self._host(host)
        self.send_back(holder["id"])
        entry.used -= 1
        self.requeue(job_id, host)
        return True

    def release(self, host: str, *, began: float | None = None, waited: int = 0) -> None:
        """Give slots to waiting jobs after others have lost theirs.

        Args:
            host: the host.
            began: when the execution began that ends now. There may have been a request, so the
                delay begins now.
            waited: the number of jobs that no longer wait; negative for jobs that wait again.
        """
        entry = self._host(host)
        entry.waiting -= waited
        if began is not None and self._delay:
            seconds = max(self._now() - began, 0.0)
            entry.seconds += (seconds - entry.seconds) * (LATEST if entry.seconds else 1)
            delay = max(self._delay, entry.crawl_delay)
            entry.free_at = max(entry.free_at, self._now() + delay)
        entry.used = self._used(host)
        free = self._free(entry)
        rows = self._connection.execute(SQL["next_waiting"], (host, free)) if free > 0 else ()
        if ids := [row["id"] for row in rows]:
            self._connection.execute(SQL["set_slots"], (*self._slot(entry), json.dumps(ids)))
            entry.used += len(ids)
            entry.waiting -= len(ids)

    def record(self, host_delays: Iterable[HostDelay]) -> None:
        """Store the delays that hosts asked for. Jobs that have a slot but do not run wait, too."""
        for host, crawl_delay, pause in host_delays:
            entry = self._host(host)
            if crawl_delay is not None:
                entry.crawl_delay = min(crawl_delay, LONGEST_CRAWL_DELAY)
            if pause:
                entry.free_at = max(entry.free_at, self._now() + pause)
                self._connection.execute(SQL["pause_slots"], (entry.free_at, host))

    def store(self) -> None:
        """Write the hosts that have changed, before the transaction is committed."""
        changed = [(host, *e.row) for host, e in self._hosts.items() if e.row != e.stored]
        if changed:
            self._connection.executemany("REPLACE INTO hosts VALUES (?, ?, ?, ?, ?)", changed)

    def _free(self, entry: _Host) -> int:
        return (1 if self._delay else UNPACED_SLOTS) - entry.used

    def _slot(self, entry: _Host) -> Slot:
        later = entry.free_at > self._now()
        return Slot(HAS_SLOT, not later, entry.free_at if later else None)

    def _host(self, host: str) -> _Host:
        entry = self._hosts.get(host)
        if entry is None:
            row = self._connection.execute(
                "SELECT free_at, crawl_delay, waiting, seconds FROM hosts WHERE host = ?", (host,)
            ).fetchone()
            entry = self._hosts[host] = _Host(*row) if row else _Host()
            entry.stored = entry.row if row else None
            entry.used = self._used(host)
        return entry

    def _used(self, host: str) -> int:
        # Counted and not stored, so that it always agrees with the rows.
        return int(self._connection.execute(SQL["used_slots"], (host,)).fetchone()[0])


def reason_to_wait(delay: float, left: float) -> str:
    """Why jobs wait for a host, in words: "1 request/s", "1 request every 5 s", "paused for 2 min".

    Args:
        delay: seconds between two requests; 0 is no limit.
        left: seconds until the next request; more than the delay is a pause that the host wants.
    """
    if left > delay + 1:
        return f"paused for {duration(left)}"
    if not delay:
        return f"{UNPACED_SLOTS} requests at once"
    if delay > 1:
        return f"1 request every {delay:g} s"
    rate = f"{round(1 / delay, 2):g}"
    return f"{rate} request/s" if rate == "1" else f"{rate} requests/s"
