"""Adding jobs: those of users and sources, with their duplicates, and follow-up jobs."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.host_limits import NO_HOST, READY, Slot
from paise2nb.jobs.models import UNFINISHED, Claim, EnqueueResult, NewJob, page_of, value_of
from paise2nb.jobs.sql import SQL

# Jobs that are counted later, see schema.sql: a commit that counts nothing writes a page less
# (the line "enqueue, one by one" of tests.benchmarks.queue).
UNCOUNTED = 64

IsFresh: TypeAlias = Callable[[int, Any, float], bool]


class EnqueueMixin(JobDatabase):
    """The methods that add jobs."""

    @transaction
    def add(
        self, tx: Transaction, jobs: Sequence[NewJob], is_fresh: IsFresh | None = None
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
        added: list[NewJob] = []
        new_ids: dict[int | None, int] = {}  # duplicates within this very call
        before, counted, idle = tx.ids()
        last = before
        known_keys = self._known_keys(tx, jobs)
        for index, job in enumerate(jobs):
            if job.key is not None and job.key in new_ids:
                answers.append((new_ids[job.key], "waiting"))
                continue
            answer = self._twin(tx, index, job, is_fresh) if job.key in known_keys else None
            if answer is None:
                last += 1
                answer = (last, "new")
                added.append(job)
                new_ids[job.key] = last
            answers.append(answer)
        self._insert(tx, added, before, counted)
        return EnqueueResult(answers, idle)

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
        completed = (row for row in rows if row["state"] == "completed")
        # A user who asks for a page that a crawl has skipped wants it.
        latest = next((row for row in completed if row["page_state"] != "skipped"), None)
        if latest is None or is_fresh is None or job.interval:
            return None
        age = self.now() - latest["finished_at"]
        fresh = is_fresh(index, value_of(latest["result"]), age)
        return (latest["id"], "fresh") if fresh else None

    def _insert(
        self,
        tx: Transaction,
        jobs: Sequence[NewJob],
        last: int,
        counted: int,
        parent: Claim | None = None,
    ) -> None:
        """Insert jobs.

        Args:
            jobs: they get the ids after `last`.
            last: the last id.
            counted: the id up to which jobs are counted.
            parent: the jobs follow from this execution.
        """
        if not jobs:
            return
        now, first = self.now(), last + 1
        parent_id, root_id = (parent.id, parent.root_id) if parent else (None, None)
        states: Counter[str] = Counter()
        parts: Counter[str] = Counter()
        pages: Counter[str] = Counter()

        def rows() -> Iterator[tuple[object, ...]]:  # one by one: see "enqueue_many" there
            for job_id, job in enumerate(jobs, first):
                state, slot, due_at = "queued", READY, None
                if job.delay:
                    due_at = now + job.delay
                    state, slot = "scheduled", Slot(NO_HOST, 0, due_at)
                elif job.host is not None:
                    slot = tx.host_limits.acquire(job.host)
                states[state] += 1
                page_state, page_id = None, page_of(job.task, job_id, parent)
                if page_id is not None:
                    parts[state] += 1
                if page_id == job_id:
                    pages[state] += 1
                    page_state = state
                place = (parent_id, root_id or job_id, page_id, page_state)
                yield (job_id, *job[:-1], state, *slot, *place, now, due_at)

        late = last - counted
        delayed = any(job.delay for job in jobs)
        counts = parent is not None or delayed or late + len(jobs) > UNCOUNTED
        late_pages = tx.late_pages(counted) if counts and late else 0
        tx.executemany(SQL["insert"], rows())
        if counts:
            for state, number in states.items():
                tx.counters.count("state", state, number, parent is None)
                tx.counters.count("part", state, parts[state])
                tx.counters.count("page", state, pages[state])
            tx.counters.count_late(late, late_pages, len(jobs))
