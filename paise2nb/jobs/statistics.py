"""The queries about the history, and how it becomes coarser as it grows older."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

from paise2nb.core.space import PAUSE
from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.history import Series
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

    def durations(
        self, since: float, *, by_host: bool = False
    ) -> Iterator[tuple[Series, str, int, int, int]]:
        """Yield what has ended since a time: series, host, wait bucket, run bucket, and the number.

        A bucket is `history.NONE` in a row that counts only the other duration. The host is empty
        unless ``by_host``, and for a job without one.
        """
        for row in self._read(SQL["durations"], {"since": int(since), "by_host": by_host}):
            yield Series(*row[:6]), *row[6:]

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
            values = {"before": int(self.now() - kept) // step * step, "period": period}
            while (first := self._scalar(int, SQL["first_to_roll_up"], values)) is not None:
                start = first - first % period
                until = min(start + period, values["before"])
                self._roll_up(start, until, period)
                time.sleep(PAUSE)

    @transaction
    def _roll_up(self, tx: Transaction, start: int, until: int, period: int) -> None:
        values = {"start": start, "until": until, "period": period}
        tx.execute(SQL["roll_up"], {**values, "hosts": HOSTS, "other": OTHER_HOSTS})
        tx.execute(SQL["delete_rolled_up"], values)
