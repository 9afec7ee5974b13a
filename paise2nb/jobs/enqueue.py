"""Adding jobs: those of users and sources, with their duplicates, and follow-up jobs."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.host_limits import NO_HOST, READY, Slot
from paise2nb.jobs.models import UNFINISHED, Claim, EnqueueResult, NewJob, page_of, value_of
from paise2nb.jobs.sql import SQL

# Jobs that are counted later, see schema.sql: a commit that counts nothing writes a page less
# (the line "enqueue, one by one" of tests.benchmarks.queue).
UNCOUNTED = 64
# Characters of the jobs that one statement inserts from a JSON text. It takes a third of the time
# of executemany, which binds all columns of each row (the line "enqueue_many" there).
INSERTED_AT_ONCE = 100_000
_SHARED_FIELDS = [name for name in NewJob._fields if name not in ("args", "key")]
_shared = itemgetter(*map(NewJob._fields.index, _SHARED_FIELDS))

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
        late = last - counted
        delayed = any(job.delay for job in jobs)
        counts = parent is not None or delayed or late + len(jobs) > UNCOUNTED
        late_pages = tx.late_pages(counted) if counts and late else 0
        for shared, alike in groupby(jobs, _shared):
            for rows in _batches(alike):
                self._insert_alike(tx, shared, rows, last + 1, parent, counts)
                last += len(rows)
        if counts:
            tx.counters.count_late(late, late_pages, len(jobs))

    def _insert_alike(
        self,
        tx: Transaction,
        shared: tuple[Any, ...],
        rows: list[tuple[str, int | None]],
        first: int,
        parent: Claim | None,
        counts: bool,
    ) -> None:
        """Insert jobs that differ in their arguments and keys only, which are the rows."""
        values = dict(zip(_SHARED_FIELDS, shared, strict=True))
        now, state, due_at = self.now(), "queued", None
        slots = [(READY, len(rows))]
        if delay := values["delay"]:
            state, due_at = "scheduled", now + delay
            slots = [(Slot(NO_HOST, 0, due_at), len(rows))]
        elif values["host"] is not None:
            slots = tx.host_limits.acquire(values["host"], len(rows))
        page_id = page_of(values["task"], 0, parent)  # 0: each of the jobs is a page
        if counts:
            tx.counters.count("state", state, len(rows), parent is None)
            tx.counters.count("part", state, len(rows) * (page_id is not None))
            tx.counters.count("page", state, len(rows) * (page_id == 0))
        values |= {"state": state, "now": now, "due_at": due_at}
        values |= {"page_id": page_id, "page_state": state if page_id == 0 else None}
        values |= {"parent_id": parent and parent.id, "root_id": parent and parent.root_id}
        for slot, number in slots:
            if number:
                texts = json.dumps(rows[:number])
                tx.execute(
                    SQL["insert"], {**values, **slot._asdict(), "first": first, "rows": texts}
                )
            first += number
            rows = rows[number:]


def _batches(jobs: Iterable[NewJob]) -> Iterator[list[tuple[str, int | None]]]:
    """Yield the arguments and keys of jobs, as many at a time as one statement inserts."""
    rows, size = list[tuple[str, int | None]](), 0
    for job in jobs:
        rows.append((job.args, job.key))
        size += len(job.args) + 20  # and the key
        if size >= INSERTED_AT_ONCE:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
