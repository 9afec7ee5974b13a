"""Adding jobs: those of users and sources, with their duplicates, and follow-up jobs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.host_limits import NO_HOST, Slot
from paise2nb.jobs.models import UNFINISHED, Claim, EnqueueResult, NewJob, page_of, value_of
from paise2nb.jobs.sql import SQL

# Jobs whose counting is deferred, see schema.sql: a commit that counts nothing writes a page less
# (the line "enqueue, one by one" of tests.benchmarks.queue).
UNCOUNTED = 64

IsFresh: TypeAlias = Callable[[int, Any, float], bool]


class EnqueueMixin(JobDatabase):
    """The methods that add jobs."""

    @transaction
    def add(
        self,
        tx: Transaction,
        jobs: Sequence[NewJob],
        is_fresh: IsFresh | None = None,
    ) -> EnqueueResult:
        """Add jobs of a user or a source, except those with an unfinished or up-to-date twin.

        Args:
            jobs: in the order of the answers.
            is_fresh: ``(index, result, age in seconds) -> bool``: whether the result of a
                completed twin makes the job unnecessary. None adds the job even then.

        Returns:
            An answer for each job. An unfinished twin takes over the interval of the job.
        """
        answers: list[tuple[int, str]] = []
        added: list[tuple[int, NewJob]] = []
        new_ids: dict[int | None, int] = {}  # duplicates within this very call
        last, counted, idle = tx.execute(SQL["ids"]).fetchone()
        known_keys = self._known_keys(tx, jobs)
        for index, job in enumerate(jobs):
            if job.key is not None and job.key in new_ids:
                answers.append((new_ids[job.key], "waiting"))
                continue
            answer = self._twin(tx, index, job, is_fresh) if job.key in known_keys else None
            if answer is None:
                last += 1
                answer = (last, "new")
                added.append((last, job))
                new_ids[job.key] = last
            answers.append(answer)
        self._insert(tx, added, counted)
        return EnqueueResult(answers, bool(idle))

    @staticmethod
    def _known_keys(tx: Transaction, jobs: Sequence[NewJob]) -> set[int]:
        """The keys of jobs that may have twins: usually few of many."""
        keys = [job.key for job in jobs if job.key is not None]
        if len(keys) <= 1:
            return set(keys)
        return {key for (key,) in tx.execute(SQL["known_keys"], {"keys": json.dumps(keys)})}

    def _twin(
        self, tx: Transaction, index: int, job: NewJob, is_fresh: IsFresh | None
    ) -> tuple[int, str] | None:
        rows = tx.execute(SQL["twins"], {"key": job.key}).fetchall()
        for row in rows:
            if row["state"] in UNFINISHED:
                if job.interval and job.interval != row["interval"]:
                    tx.execute(SQL["change_interval"], {**row, "interval": job.interval})
                return row["id"], "waiting"
        latest = next((row for row in rows if row["state"] == "completed"), None)
        if latest is None or is_fresh is None or job.interval:
            return None
        age = self.now() - latest["finished_at"]
        fresh = is_fresh(index, value_of(latest["result"]), age)
        return (latest["id"], "fresh") if fresh else None

    def _insert(
        self,
        tx: Transaction,
        jobs: Sequence[tuple[int, NewJob]],
        counted: int,
        parent: Claim | None = None,
    ) -> None:
        if not jobs:
            return
        now = self.now()
        parent_id, root_id = (parent.id, parent.root_id) if parent else (None, None)
        rows = []
        for job_id, job in jobs:
            if job.delay:
                state, slot = "scheduled", Slot(NO_HOST, 0, now + job.delay)
            else:
                state, slot = "queued", tx.host_limits.acquire(job.host)
            page_id = page_of(job.task, job_id, parent)
            page_state = state if page_id == job_id else None
            place = (parent_id, root_id or job_id, page_id, page_state)
            due_at = now + job.delay if job.delay else None
            rows.append((job_id, *job[:-1], state, *slot, *place, now, due_at))
        delayed = sum(1 for _, job in jobs if job.delay)
        late = jobs[0][0] - 1 - counted
        if parent is not None or delayed or late + len(jobs) > UNCOUNTED:
            tx.counters.add("scheduled", delayed, parent is None)
            tx.counters.add("queued", len(jobs) - delayed, parent is None)
            parts = [row for row in rows if row[-4] is not None]
            for page_state, pages in Counter(row[-3] for row in parts).items():
                tx.counters.add_pages(page_state, pages)
            for state, number in Counter(row[9] for row in parts).items():
                tx.counters.add_parts(state, number)
            tx.count_late(late, counted, len(jobs))
        tx.executemany(SQL["insert"], rows)
