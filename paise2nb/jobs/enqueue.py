"""Adding jobs: what a user or a source enqueues, with its duplicates answered, and follow-ups."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from paise2nb.jobs.database import JobDatabase
from paise2nb.jobs.host_limits import NO_HOST, Slot
from paise2nb.jobs.models import UNFINISHED, Claim, EnqueueResult, NewJob, StateCounters, value_of

UNCOUNTED = 64  # jobs; a commit that counts nothing writes a page less


class EnqueueMixin(JobDatabase):
    """The moves by which a job comes into the table."""

    def add(
        self, jobs: Sequence[NewJob], is_fresh: Any = None, *, force: bool = False
    ) -> EnqueueResult:
        """Add jobs of a user or a source in one transaction; duplicates are answered, not added.

        Args:
            jobs: in the order of the answer.
            is_fresh: ``(index, result, age in seconds) -> bool``, asked for a completed twin.
            force: add even where a completed twin is fresh.

        Returns:
            An answer for each job. The twin of a job that recurs takes over its interval.
        """
        return self._write(self._add, jobs, is_fresh, force)  # type: ignore[no-any-return]

    def _add(
        self,
        connection: sqlite3.Connection,
        counters: StateCounters,
        jobs: Sequence[NewJob],
        is_fresh: Any,
        force: bool,
    ) -> EnqueueResult:
        answers: list[tuple[int, str]] = []
        added: list[tuple[int, NewJob]] = []
        new_ids: dict[int | None, int] = {}  # duplicates within this very call
        last, counted, idle = connection.execute(
            "SELECT last, counted, (SELECT state = 'idle' FROM supervisor) FROM ids"
        ).fetchone()
        taken = self._taken(connection, jobs)
        for index, job in enumerate(jobs):
            if (twin := new_ids.get(job.key)) is not None and job.key is not None:
                answers.append((twin, "waiting"))
                continue
            answer = None
            if job.key in taken:
                answer = self._twin(connection, index, job, is_fresh, force)
            if answer is None:
                last += 1
                answer = (last, "new")
                added.append((last, job))
                new_ids[job.key] = last
            answers.append(answer)
        self._insert(connection, counters, added, counted, None)
        return EnqueueResult(answers, bool(idle))

    @staticmethod
    def _taken(connection: sqlite3.Connection, jobs: Sequence[NewJob]) -> set[int]:
        """The keys of jobs that may have twins in the table: of many jobs few, as a rule."""
        keys = [job.key for job in jobs if job.key is not None]
        if len(keys) <= 1:
            return set(keys)
        rows = connection.execute(
            "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM jobs WHERE key = value)",
            (json.dumps(keys),),
        )
        return {key for (key,) in rows}

    def _twin(
        self, connection: sqlite3.Connection, index: int, job: NewJob, is_fresh: Any, force: bool
    ) -> tuple[int, str] | None:
        rows = connection.execute(
            "SELECT id, task, state, interval, result, finished_at FROM jobs WHERE key = ?"
            " ORDER BY id DESC",
            (job.key,),
        )
        latest = None
        for row in rows:
            if row["state"] in UNFINISHED:
                if job.interval and job.interval != row["interval"]:
                    self._reschedule(connection, row, job.interval)
                return row["id"], "waiting"
            if latest is None and row["state"] == "completed":
                latest = row
        if latest is None or force or is_fresh is None or job.interval:
            return None
        result = value_of(latest["result"])
        age = self.now() - latest["finished_at"]
        return (latest["id"], "fresh") if is_fresh(index, result, age) else None

    @staticmethod
    def _reschedule(connection: sqlite3.Connection, row: sqlite3.Row, interval: float) -> None:
        connection.execute(
            # With a host_slot at its host it is due; its time, if it has one, is that of its turn.
            "UPDATE jobs SET run_at = iif(state = 'scheduled' AND host_slot = 0,"
            " run_at + coalesce(?1 - interval, 0), run_at), interval = ?1 WHERE id = ?2",
            (interval, row["id"]),
        )

    def _insert(
        self,
        connection: sqlite3.Connection,
        counters: StateCounters,
        jobs: Sequence[tuple[int, NewJob]],
        counted: int,
        parent: Claim | None,
    ) -> None:
        if not jobs:
            return
        now = self.now()
        rows = []
        for job_id, job in jobs:
            state = "scheduled" if job.delay else "queued"
            due = (
                Slot(NO_HOST, 0, now + job.delay)
                if job.delay
                else counters.host_limits.acquire(job.host)
            )
            rows.append((
                job_id, job.task, job.args, job.key, state, job.host, *due, job.interval,
                job.priority, job.tag,
                parent and parent.id, parent.root_id if parent else job_id,
                job.max_attempts, now,
            ))  # fmt: skip
        delayed = sum(1 for _, job in jobs if job.delay)
        late = jobs[0][0] - 1 - counted
        if parent is not None or delayed or late + len(jobs) > UNCOUNTED:
            counters.add("scheduled", delayed, parent is None)
            counters.add("queued", len(jobs) - delayed, parent is None)
            counters.count_late(late, len(jobs))
        connection.executemany(
            "INSERT INTO jobs (id, task, args, key, state, host, host_slot, ready, run_at,"
            " interval, priority, tag, parent_id, root_id, max_attempts, enqueued_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
