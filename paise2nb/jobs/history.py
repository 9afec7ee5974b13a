"""The history: what has ended, by time, with histograms of waiting and run time.

A bucket ``i`` has the durations from ``GROWTH ** (i - 1)`` to ``GROWTH ** i`` seconds. These are
the buckets of Prometheus' native histograms of schema 3, and of OpenTelemetry's exponential ones of
scale 3. A quantile is read as in DDSketch (Masson, Rim, Lee, VLDB 2019): at most 4.4 % off.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any, NamedTuple, Self, TypeAlias

from paise2nb.jobs.models import Claim, Outcome
from paise2nb.jobs.sql import SQL

GROWTH = 2 ** (1 / 8)
SHORTEST, LONGEST = -80, 160  # buckets: up to 1 ms, and from 11 days on
NONE = -128  # the bucket of a page
MINUTE = 60
SeriesIds: TypeAlias = dict[tuple[object, ...], int]
# The end of a page, as it is counted by its time.
ENDED = {"stored": "completed", "unchanged": "completed", "skipped": "completed"}
ENDED["failed"] = "failed"


class Series(NamedTuple):
    """What a row of the history counts.

    Attributes:
        task: empty for pages.
        pool: of the worker; empty for pages.
        part: the job is part of a page.
        outcome: of the execution; of a page its state.
        error_class: empty if there was no error.
        state: the job's state after it: ``completed``, ``failed``, ``retrying``, ``queued``
            (released) or ``cancelled``; of a page ``completed`` or ``failed``.
    """

    task: str
    pool: str
    part: bool
    outcome: str
    error_class: str
    state: str


@dataclass
class Sums:
    """What rows of the history add up to.

    Attributes:
        number: of executions or pages.
        wait, run: the number of executions in each bucket.
    """

    number: int = 0
    wait: Counter[int] = field(default_factory=Counter)
    run: Counter[int] = field(default_factory=Counter)

    def add(self, number: int, wait: int | str, run: int | str) -> None:
        """Add a row."""
        self.number += number
        if isinstance(wait, int) and isinstance(run, int):
            if wait != NONE:
                self.wait[wait] += number
                self.run[run] += number
            return
        for buckets, text in ((self.wait, str(wait)), (self.run, str(run))):
            first, *numbers = json.loads(text)
            for position, count in enumerate(numbers, first):
                if count:
                    buckets[position] += count

    def merge(self, other: Self) -> None:
        """Add other sums."""
        self.number += other.number
        self.wait.update(other.wait)
        self.run.update(other.run)

    def row(self) -> tuple[str, str, int]:
        """The columns of one row for all."""
        return _as_json(self.wait), _as_json(self.run), self.number


def _as_json(buckets: Counter[int]) -> str:
    first, last = min(buckets, default=0), max(buckets, default=-1)
    return json.dumps([first, *(buckets[n] for n in range(first, last + 1))], separators=(",", ":"))


Row: TypeAlias = tuple[int, tuple[object, ...], str, int, int, int]
"""A row of the history, with the fields of its `Series`."""


def execution(claim: Claim, outcome: Outcome, ended_at: float, number: int = 1) -> Row:
    """Return the row that counts an execution. A negative ``number`` takes it back."""
    part, began = claim.page_id is not None, claim.started_at
    ended = outcome.outcome, outcome.error_class or "", outcome.state
    start = int(ended_at) - int(ended_at) % MINUTE if part else int(ended_at)
    wait, run = bucket(began - (claim.due_at or began)), bucket(ended_at - began)
    return start, (claim.task, claim.pool, part, *ended), str(claim.host or ""), wait, run, number


def page(state: str, ended_at: float) -> Row:
    """Return the row that counts the end of a page."""
    return int(ended_at), ("", "", False, state, "", ENDED[state]), "", NONE, NONE, 1


def write(connection: sqlite3.Connection, rows: Iterable[Row], known: SeriesIds) -> SeriesIds:
    """Add rows to the history.

    Args:
        connection: of a transaction.
        rows: the rows.
        known: ids of stored series.

    Returns:
        The ids of other series, which are stored when the transaction is committed.
    """
    new: SeriesIds = {}
    sums: dict[tuple[Any, ...], int] = {}  # jobs that end together are often alike
    for row in rows:
        sums[row[:-1]] = sums.get(row[:-1], 0) + row[-1]
    for (start, series, *others), number in sums.items():
        series_id = known.get(series) or new.get(series)
        if series_id is None:
            series_id = new[series] = connection.execute(SQL["series"], series).fetchone()[0]
        connection.execute(SQL["add_to_history"], (start, series_id, *others, number))
    return new


def bucket(seconds: float) -> int:
    """The bucket of a duration."""
    if 0.001 < seconds < 1e6:
        return ceil(8 * log2(seconds))
    return LONGEST if seconds > 1 else SHORTEST


def quantile(buckets: Mapping[int, int], q: float) -> float | None:
    """A quantile of a histogram in seconds, None if it is empty.

    Args:
        buckets: the number of durations in each bucket.
        q: from 0 to 1.
    """
    rank = ceil(q * sum(buckets.values()))
    for number in sorted(buckets):
        rank -= buckets[number]
        if rank <= 0:
            return value(number)
    return None


def value(number: int) -> float:
    """The duration that stands for a bucket, in seconds."""
    return float(2 * GROWTH**number / (GROWTH + 1))
