"""What goes into and comes out of the job table: plain rows with names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paise2nb.jobs.host_limits import HAS_SLOT, WAITING, HostDelay, HostLimiter

STATES = ("queued", "scheduled", "running", "retrying", "completed", "failed", "cancelled")
UNFINISHED = STATES[:4]
_ADD_SUMS = (
    "INSERT INTO counters VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs, roots = roots + excluded.roots"
)
_NUMBERS = {
    "run_at", "interval", "priority", "attempt", "max_attempts", "crashes", "run", "worker_pid",
    "parent_id", "root_id", "enqueued_at", "started_at", "finished_at",
}  # fmt: skip
IMMEDIATE = "immediate"  # the pool of a process that runs its own jobs


class NewJob(NamedTuple):
    """A job to be added. ``args`` is JSON text; ``delay`` and ``every`` are seconds.

    Where a ``host`` is named, the job waits for its turn there.
    """

    task: str
    args: str
    max_attempts: int
    key: int | None = None
    tag: str | None = None
    priority: int = 0
    delay: float | None = None
    interval: float | None = None
    host: str | None = None


class EnqueueResult(NamedTuple):
    """What an enqueue did.

    Attributes:
        answers: for each job its id and ``new``, ``waiting`` (an unfinished twin) or ``fresh``.
        idle: the workers have left for want of work.
    """

    answers: list[tuple[int, str]]
    idle: bool


class Claim(NamedTuple):
    """One execution of a job, held by one worker. (id, run) is its token."""

    id: int
    task: str
    args: str
    run: int
    attempt: int
    crashes: int
    max_attempts: int
    tag: str | None
    priority: int
    parent_id: int | None
    root_id: int
    interval: float | None
    started_at: float
    worker: int
    worker_pid: int
    host: str | None
    resume: str | None


class Limits(NamedTuple):
    """What one execution may take: seconds and MB."""

    timeout: float | None
    memory_mb: float | None


class StateEntry(NamedTuple):
    """One value of a plugin's state, as an execution knows it: JSON text, None where there is none.

    ``version`` is the one that it has read, None where it has read none.
    """

    plugin: str
    key: str
    value: str | None
    version: int | None
    written: bool


@dataclass(frozen=True)
class Outcome:
    """How an execution ended: its outcome, and the state that the job moves to.

    One that was ``postponed`` has not happened: it goes on from ``resume`` when it is its turn at
    ``host``.
    """

    outcome: str
    state: str
    result: str | None = None
    error_class: str | None = None
    error: str | None = None
    traceback: str | None = None
    retry_in: float | None = None
    max_attempts: int | None = None
    followups: Sequence[NewJob] = ()
    kept: Sequence[StateEntry] = ()
    isolated: bool = False
    host_delays: Sequence[HostDelay] = ()
    host: str | None = None
    resume: str | None = None


@dataclass
class StateCounters:
    """What one transaction changes in the counts, and in the lines before hosts."""

    host_limits: HostLimiter
    sums: dict[tuple[str, str | int], list[int]] = field(default_factory=dict)

    def add(self, state: str, number: int, root: bool) -> None:
        """Count jobs into a state; not into one that only a damaged row can have."""
        if state in STATES:
            self.count("state", state, number, root)

    def move(self, old: str, new: str, root: bool) -> None:
        """Count one job from a state into another."""
        self.add(old, -1, root)
        self.add(new, 1, root)

    def count(self, kind: str, name: str | int, number: int, root: bool = False) -> None:
        """Count something else that ``counters`` keeps."""
        sums = self.sums.setdefault((kind, name), [0, 0])
        sums[0] += number
        sums[1] += number * root

    def count_late(self, late: int, others: int = 0) -> None:
        """Count jobs that were enqueued one by one, all of them queued and without a parent.

        Args:
            late: how many, as the view ``ids`` tells.
            others: jobs after them that are counted in this transaction.
        """
        self.add("queued", late, True)
        self.count("id", "counted", late + others)

    def store(self, connection: sqlite3.Connection) -> None:
        """Write the sums, in the transaction that made the moves."""
        self.host_limits.store()
        changed = [(*key, *sums) for key, sums in self.sums.items() if any(sums)]
        if changed:
            connection.executemany(_ADD_SUMS, changed)


class Worker(NamedTuple):
    """A registered worker process. A lone one runs one job at a time."""

    id: int
    pid: int
    pool: str
    lone: bool


def claim_of(row: sqlite3.Row) -> Claim:
    """The claim that a whole row of a held job stands for."""
    return Claim(*(row[name] for name in Claim._fields))


def value_of(result: str | None) -> Any:
    """What an execution returned; a text that is no JSON is shown as it is."""
    try:
        return json.loads(result or "null")
    except (ValueError, RecursionError):
        return result


def decoded(row: sqlite3.Row) -> dict[str, Any]:
    """A row with its arguments as a list; text that can't be decoded is shown as it is.

    SQLite holds any kind of value in any column: a damaged one must not hide the others.
    """
    job = {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in dict(row).items()
    }
    for name in _NUMBERS & job.keys():
        if isinstance(job[name], str):
            job[name] = None
    try:
        args = json.loads(job["args"])
    except (ValueError, RecursionError):
        args = None
    job["args"] = args if isinstance(args, list) else [job["args"]]
    if job.get("host_slot") == WAITING or (
        job.get("host_slot") == HAS_SLOT and job["run_at"] is not None
    ):
        job["waiting_for"] = f"its turn at {job['host']}"
    return job
