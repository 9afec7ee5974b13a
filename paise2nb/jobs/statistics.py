"""The queries about the history, and how it becomes coarser as it grows older."""

import sqlite3
import time
from collections import Counter, defaultdict

from paise2nb.core.space import PAUSE
from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.history import Series, Sums
from paise2nb.jobs.sql import SQL

HOUR, DAY = 3600, 86400
EVER = 10**12  # a period that has all times
# Seconds for which seconds and minutes are kept, then hours, then days. What is older is added up,
# so that totals never decrease: a monitor takes a lower total for a restart.
KEPT = {HOUR: DAY + HOUR, DAY: 31 * DAY, EVER: 366 * DAY}
HOSTS = 20  # of an hour or a day, those with the most executions; the others are added up
OTHER_HOSTS = "(other)"


class StatisticsMixin(JobDatabase):
    """The methods about the history. A time may be a little earlier: its minute is read whole."""

    def ended_since(self, since: float) -> tuple[int, int]:
        """The number of pages and other jobs that have completed since a time, and that failed.

        Args:
            since: by the job store's clock, such as ``job_store.now() - 900``.
        """
        completed, failed = self._read(SQL["ended_since"], (int(since),))[0]
        return completed, failed

    def stored(self, since: float) -> int:
        """The number of pages stored since a time, by the job store's clock."""
        return self._scalar(int, SQL["stored_since"], (int(since),)) or 0

    def sums(
        self, since: float, until: float = float("inf"), *, by_host: bool = False
    ) -> dict[tuple[Series, str], Sums]:
        """What has ended from a time until before another, by series and host.

        Args:
            since, until: by the job store's clock.
            by_host: only what has a host, by that; otherwise everything, with an empty host.
        """
        sql = SQL["history"] if by_host else SQL["history_of_all"]
        rows = self._read(sql, (since, until))
        names = {row["id"]: Series(*tuple(row)[1:]) for row in self._read("SELECT * FROM series")}
        found: defaultdict[tuple[int, str], Sums] = defaultdict(Sums)
        for series, host, *row in rows:
            if host or not by_host:
                found[series, host if by_host else ""].add(*row)
        return {(names[series], host): sums for (series, host), sums in found.items()}

    def running_since(self, since: float) -> list[sqlite3.Row]:
        """By task, pool and host the number of executions that began since a time and still run."""
        return self._read(SQL["running_since"], (since,))

    def ended(self, since: float) -> list[tuple[int, int, int]]:
        """(second, completed, failed) for each second in which pages or other jobs have ended.

        Of older ones the minute, hour or day.
        """
        return [(row[0], row[1], row[2]) for row in self._read(SQL["ended"], (int(since),))]

    def ready_by_task(self) -> list[tuple[str, int, float]]:
        """(task, jobs that may start now, since when the oldest could have been started)."""
        return [tuple(row) for row in self._read(SQL["ready_by_task"])]

    def waiting_for_hosts(self) -> list[tuple[str, int]]:
        """(host, jobs that wait for it), the longest queue first."""
        sql = "SELECT host, waiting FROM hosts WHERE waiting > 0 ORDER BY waiting DESC, host"
        return [tuple(row) for row in self._read(sql)]

    def machine_states(self) -> dict[str, int]:
        """The number of other machines in each state."""
        return dict(map(tuple, self._read("SELECT state, count(*) FROM machines GROUP BY state")))

    def roll_up(self) -> None:
        """Add old minutes up to hours, old hours to days, and what is over a year old to one row.

        One transaction for each hour or day: other processes that write wait meanwhile.
        """
        for period, kept in KEPT.items():
            step = min(period, DAY)
            before = int(self.now() - kept) // step * step
            sql, values = SQL["first_to_roll_up"], (before, period)
            while (first := self._scalar(int, sql, values)) is not None:
                start = first - first % period
                self._roll_up(start, min(start + period, before))
                time.sleep(PAUSE)

    @transaction
    def _roll_up(self, tx: Transaction, start: int, until: int) -> None:
        rows = tx.execute(SQL["history"], (start, until)).fetchall()
        numbers: Counter[str] = Counter()
        for _, host, number, _, _ in rows:
            numbers[host] += number if host else 0
        kept = {host for host, _ in numbers.most_common(HOSTS)}
        sums: defaultdict[tuple[int, str], Sums] = defaultdict(Sums)
        for series, host, *row in rows:
            if not host or isinstance(row[1], int):
                sums[series, ""].add(*row)
            if host:
                sums[series, host if host in kept else OTHER_HOSTS].add(*row)
        tx.execute("DELETE FROM history WHERE start >= ? AND start < ?", (start, until))
        made = [(start, *key, *found.row()) for key, found in sums.items()]
        tx.executemany(SQL["add_to_history"], made)
