"""Huey's interface over the job store: what can't work there says what to use in its place.

Jobs are rows that any process reads and changes. So Huey's own messages, results, locks and
revocations, which only a Huey would know, are refused, and never seem to work. What to use in place
of them is in ``huey_instead.json``.
"""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from huey.api import Huey, TaskWrapper
from huey.api import Task as HueyTask
from huey.storage import BaseStorage

from paise2nb.core.errors import UsageError
from paise2nb.jobs.store import JobStore

_USES = json.loads(Path(__file__).with_name("huey_instead.json").read_text("utf-8"))
INSTEAD = {name: use for use, names in _USES.items() for name in names}
SENT = ("executing", "complete", "error", "retrying", "canceled")  # signals


def unsupported(name: str, instead: str = "") -> UsageError:
    """Return the error for a part of Huey that a job store does not have."""
    use = instead or INSTEAD[name]
    return UsageError(f"Huey's {name} does not work on a job store; use {use}")


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise unsupported(name)

    refuse.__name__ = name
    refuse.__doc__ = f"Raise UsageError: use {INSTEAD[name]}."
    return refuse


class JobTask(HueyTask):
    """A Huey task that is made from a job, or from a function declared with Huey's decorator."""

    then = _refuse("then")
    error = _refuse("error")


class JobTaskWrapper(TaskWrapper):
    """What Huey's decorator returns. The function can be called with ``call_local``."""

    task_base = JobTask
    __call__ = _refuse("enqueue")
    schedule = _refuse("schedule")
    map = _refuse("map")
    revoke = _refuse("revoke")
    restore = _refuse("restore")
    is_revoked = _refuse("is_revoked")


class JobStorage(BaseStorage):
    """Huey's storage over the job store."""

    blocking = True  # an idle thread waits for a wakeup, not for Huey's polling interval

    def __init__(self, name: str = "paise2", *, job_store: JobStore) -> None:
        super().__init__(name)
        self.job_store = job_store

    def queue_size(self) -> int:
        """Return the number of jobs that may start."""
        return self.job_store.counts()[0]["queued"]

    def schedule_size(self) -> int:
        """Return the number of jobs that are due later."""
        counts = self.job_store.counts()[0]
        return counts["scheduled"] + counts["retrying"]

    def read_schedule(self, ts: datetime.datetime) -> list[bytes]:
        """Return nothing: a due job is claimed from its row, so none is lost on the way."""
        return []

    enqueue = _refuse("enqueue")
    add_to_schedule = _refuse("schedule")
    enqueued_items = scheduled_items = dequeue = _refuse("enqueue")
    put_data = peek_data = peek_many = pop_data = delete_data = _refuse("put")
    put_if_empty = has_data_for_key = incr = delete_counter = _refuse("put")
    wait_result = _refuse("result")
    result_items = result_store_size = _refuse("all_results")
    flush_all = flush_queue = flush_schedule = flush_results = flush_counters = _refuse("flush")


class HueyInterface(Huey):
    """Huey, with what works on a job store: hooks, signals, and reading what waits.

    Attributes:
        job_store: The queue.
        runs_immediately: Whether this process runs the jobs that it enqueues.
    """

    job_store: JobStore
    runs_immediately: bool

    def get_task_wrapper_class(self) -> type[TaskWrapper]:
        """Return the class of what the decorator returns."""
        return JobTaskWrapper

    @property
    def immediate(self) -> bool:
        """Whether this process runs the jobs that it enqueues."""
        return self.runs_immediately

    @immediate.setter
    def immediate(self, value: bool) -> None:
        if value != self.runs_immediately:
            raise unsupported("immediate")

    def enqueue(self, task: Any) -> NoReturn:
        """Raise UsageError: use ``app.enqueue``."""
        kind = type(task).__name__
        raise unsupported(kind if kind in ("chord", "group") else "enqueue")

    def signal(self, *names: str) -> Any:
        """Register a function for signals of executions. Raises UsageError for any other signal."""
        for name in names:
            if name not in SENT:
                raise unsupported(f"signal {name!r}", f"one of {', '.join(SENT)}, or a hook")
        return super().signal(*names)

    def pending(self, limit: int | None = None) -> list[HueyTask]:
        """Return the jobs that may start, the oldest first."""
        return self._tasks(self.job_store.find(state="queued", limit=limit))

    def scheduled(self, limit: int | None = None) -> list[HueyTask]:
        """Return the jobs that are due later, with their times in UTC."""
        store = self.job_store
        ids = store.find(state="scheduled", limit=limit) + store.find(state="retrying", limit=limit)
        return self._tasks(sorted(ids)[:limit])

    def _tasks(self, ids: list[int]) -> list[HueyTask]:
        found = []
        for job_id, row in self.job_store.rows(ids).items():
            task = type(str(row["task"]), (JobTask,), {})(tuple(row["args"]), id=str(job_id))
            if row["run_at"] is not None:
                at = self.job_store.clock.wall(row["run_at"])
                task.eta = datetime.datetime.fromtimestamp(at, datetime.UTC).replace(tzinfo=None)
            found.append(task)
        return found


# All that is not defined above.
for _name in INSTEAD.keys() - vars(HueyInterface).keys() - {"create_consumer"}:
    if hasattr(Huey, _name):
        setattr(HueyInterface, _name, _refuse(_name))
