"""Huey over the job store: the engine that runs jobs, and the providers of its queue.

In this Huey subclass ``dequeue`` is a claim in the job store, and ``execute`` writes the outcome
there. Stock Huey deletes a message before its work is done; here the row stays, and nothing is
ever only in memory.
"""

from __future__ import annotations

import datetime
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huey.api import Huey
from huey.api import Task as HueyTask
from huey.serializer import Serializer
from huey.storage import BaseStorage

from paise2nb.core import processes
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs import Claim, JobStore, Limits, Outcome, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import CRASH_POLICIES, crash_policies
from paise2nb.plugins import Task, TaskQueueProvider, hookimpl
from paise2nb.workers.claims import Claims, IdleWaiter
from paise2nb.workers.executor import Executor
from paise2nb.workers.immediate import ImmediateRunner
from paise2nb.workers.outage import OutageMonitor

logger = logging.getLogger("paise2nb.worker")


class JSONSerializer(Serializer):
    """Messages are JSON: a crafted one can hold odd data, but never run code."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Any:
        return json.loads(data)


class JobStorage(BaseStorage):
    """Huey's storage over the job store: what Huey asks of a storage, answered by the rows."""

    blocking = True  # an idle thread waits for a wakeup, not for Huey's polling interval

    def __init__(self, name: str = "paise2", *, job_store: JobStore) -> None:
        super().__init__(name)
        self.job_store = job_store

    def close(self) -> None:
        """Close the job store."""
        self.job_store.close()

    def queue_size(self) -> int:
        """The number of jobs that may start."""
        return self.job_store.counts()[0]["queued"]

    def schedule_size(self) -> int:
        """The number of jobs that have a time."""
        counts = self.job_store.counts()[0]
        return counts["scheduled"] + counts["retrying"]

    def read_schedule(self, ts: datetime.datetime) -> list[bytes]:
        """Nothing: a due row is claimed where it is, so none can be lost on the way."""
        return []


class JobHuey(Huey):
    """The queue of one app.

    Args:
        parts: what tasks may use; its job store is set here.
        job_store: the queue.
        immediate: this process claims and runs the jobs.

    Attributes:
        huey: this object, by the name of the original design.
        runs_immediately: whether jobs run in this process.
        notifier: wakes the processes that wait for work.
    """

    def __init__(self, parts: Parts, job_store: JobStore, *, immediate: bool) -> None:
        parts.job_store = job_store
        super().__init__(
            "paise2",
            results=False,
            serializer=JSONSerializer(),
            storage_class=JobStorage,
            job_store=job_store,
        )
        self.job_store = job_store
        self.runs_immediately = immediate
        self.notifier = Notifier(job_store.path)
        self._parts = parts
        self._executor = Executor(self, parts)
        self._claims = Claims(parts, self.notifier, self._register_tasks)
        self._immediate_runner = ImmediateRunner(parts, self._executor, self._decoded)
        self._classes: dict[str, type[HueyTask]] = {}
        self._generation = -1  # of the plugins whose tasks are registered
        self._registering = threading.Lock()
        self._register_tasks()

    @property
    def huey(self) -> JobHuey:
        """The Huey instance."""
        return self

    @property
    def idle_waiter(self) -> IdleWaiter:
        """Wakes the threads of this process."""
        return self._claims.idle_waiter

    def _register_tasks(self) -> None:
        """Register the tasks that the plugins define now."""
        plugins = self._parts.plugins
        if self._generation == plugins.generation:
            return
        with self._registering:
            generation = plugins.generation
            for name, task in plugins.tasks.items():
                if name not in self._classes:
                    self._classes[name] = self._register(task)
            if self._claims.worker is not None:
                self._claims.limits = self._parts.limits(self._claims.worker.pool)
                self._write_policies()
            self._generation = generation  # last: until then other threads wait for the lock

    def _register(self, task: Task) -> type[HueyTask]:
        def run(*arguments: Any, task: HueyTask) -> Outcome:
            return self._executor.call(task.claim, arguments)

        task_class: type[HueyTask] = self.task(name=task.name, context=True)(run).task_class
        return task_class

    def _write_policies(self) -> None:
        """Tell the supervisor, which loads no plugin, the policies for crashes."""
        policies = crash_policies(self._parts.plugins.tasks.values())
        if self.job_store.get(CRASH_POLICIES) != policies:
            self.job_store.put(CRASH_POLICIES, policies)

    # In a worker process -------------------------------------------------------------------------

    def work_for(self, worker: Worker, limits: Mapping[str, Limits]) -> None:
        """Claim for this worker, and only jobs of these tasks."""
        self._claims.worker, self._claims.limits = worker, dict(limits)
        self._write_policies()
        outages = OutageMonitor(self.job_store, self._parts.write_dirs())
        self._claims.outages = self._executor.outages = outages

    @property
    def stopping(self) -> bool:
        """Whether nothing more is claimed."""
        return self._claims.stopping

    def stop_claiming(self) -> None:
        """Finish what runs and claim nothing more: the worker drains."""
        self._claims.stop()

    def recycle(self, reason: str) -> None:
        """Finish what runs and end this process: the supervisor starts a fresh one."""
        self._claims.recycle(reason)

    def dequeue(self) -> HueyTask | None:
        """Claim the next job; None if there was none for a second."""
        claim = self._claims.next()
        return None if claim is None else self._decoded(claim)

    def execute(self, task: HueyTask, timestamp: datetime.datetime | None = None) -> None:
        """Run a claimed job and write how it ended; the claim of the next job comes with it."""
        threads = threading.active_count()
        outcome = self._executor.run(task)
        self._end_left_behind(task.claim, threads)
        self._claims.finish(task.claim, outcome)

    def release_next_claim(self) -> None:
        """Return the job that this thread has claimed but not begun."""
        self._claims.release_next()

    def _decoded(self, claim: Claim) -> HueyTask | None:
        """The Huey task of a claim. A job that can't be decoded fails, and keeps its arguments."""
        try:
            arguments = json.loads(claim.args)
            if not isinstance(arguments, list):
                raise ValueError("not a list")
            task = self._classes[claim.task](tuple(arguments), id=str(claim.id))
        except (ValueError, KeyError, RecursionError) as error:
            reason = f"can't be decoded: {type(error).__name__}: {error}"
            self.job_store.end(claim, Outcome("failed", "failed", None, "undecodable", reason))
            return None
        task.claim = claim
        return task

    def _end_left_behind(self, claim: Claim, threads: int) -> None:
        """End the processes that a job has left behind: beside other jobs those of its thread.

        Threads can't be ended: a worker process in which too many are left is recycled.
        """
        worker = self._claims.worker
        alone = worker is not None and worker.single_threaded
        if processes.has_children():
            left = processes.end_children(None if alone else [threading.get_native_id()])
            if left:
                logger.warning("job %s has left %d processes behind: ended", claim.id, left)
        if alone and (left := threading.active_count() - threads) > 0:
            logger.warning("job %s has left %d threads running", claim.id, left)

    # In immediate mode ---------------------------------------------------------------------------

    def run_tree(self, root: int) -> None:
        """Run jobs here until nothing of a job's tree is left, waiting for its retries."""
        self._register_tasks()
        self._immediate_runner.run_tree(root)

    def run_ready(self, root: int | None = None) -> None:
        """Run here what may start now, of one job's tree or of all jobs."""
        self._register_tasks()
        self._immediate_runner.run_ready(root)

    def close(self) -> None:
        """Close the job store."""
        if self.runs_immediately:
            self._immediate_runner.close()
        self.notifier.close()
        self.storage.close()


# The providers -----------------------------------------------------------------------------------


def open_job_store(parts: Parts, path: Path | None = None) -> JobStore:
    """The job store of the settings, or at a path of a provider's choice."""
    path = path or parts.settings.task_queue.sqlite.path or parts.data_dir / "tasks.db"
    return JobStore(path, durable=not parts.is_worker, host_delay=parts.settings.fetch.host_delay)


class NoTaskQueueProvider:
    """Immediate mode: the process that enqueues a job runs it."""

    def create(self, app: Parts) -> JobHuey:
        """A queue that runs each job before the enqueue returns."""
        return JobHuey(app, open_job_store(app), immediate=True)


class HueySQLiteTaskQueueProvider:
    """The persistent queue: worker processes claim from one SQLite file."""

    def create(self, app: Parts) -> JobHuey:
        """A queue on ``task_queue.sqlite.path``."""
        immediate = app.settings.task_queue.sqlite.immediate and not app.is_worker
        return JobHuey(app, open_job_store(app), immediate=immediate)


@hookimpl
def task_queue_providers() -> dict[str, TaskQueueProvider]:
    """``none`` and ``sqlite``."""
    return {"none": NoTaskQueueProvider(), "sqlite": HueySQLiteTaskQueueProvider()}


__all__ = [
    "HueySQLiteTaskQueueProvider",
    "JobHuey",
    "JobStorage",
    "NoTaskQueueProvider",
    "open_job_store",
]
