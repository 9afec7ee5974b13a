"""A Huey with the job store as its queue, and the providers that create it.

``dequeue`` claims a job in the job store, and ``execute`` writes its outcome there. Stock Huey
deletes a message before its work is done; here the row stays, and nothing is only in memory.
"""

import datetime
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huey.api import Task as HueyTask
from huey.serializer import Serializer

from paise2nb.core import processes
from paise2nb.core.errors import NewerFormat, PluginError
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs.models import Claim, Outcome, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import CRASH_POLICIES, crash_policies
from paise2nb.jobs.store import JobStore
from paise2nb.plugins import TaskQueueProvider, hookimpl
from paise2nb.workers.claims import Claims, end_outdated
from paise2nb.workers.executor import Executor
from paise2nb.workers.huey_interface import HueyInterface, JobStorage, unsupported
from paise2nb.workers.immediate import ImmediateRunner
from paise2nb.workers.outage import OutageMonitor

logger = logging.getLogger("paise2nb.worker")


class JSONSerializer(Serializer):
    """Messages are JSON, because unpickling a crafted message could run code."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Any:
        return json.loads(data)


class JobHuey(HueyInterface):
    """The queue of one app.

    Args:
        parts: The parts that tasks use. Its job store is set here.
        job_store: The queue.
        immediate: Whether this process runs the jobs that it enqueues.

    Attributes:
        huey: This object. The interface of plugins has this name for the Huey instance.
        runs_immediately: Whether this process runs the jobs that it enqueues.
        notifier: Wakes the processes that wait for work, after each commit of a user's process.
        has_notified: Whether the last commit of a user's process woke at least one worker.
        claims: What the threads of a worker process claim.
        run_tree: Runs the jobs of a tree in this process until none is left.
        run_ready: Runs the jobs that may start now in this process.
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
        self.huey = self
        self.job_store = job_store
        self.runs_immediately = immediate
        self.notifier = Notifier(job_store.path)
        self.has_notified = False
        job_store.database.on_commit = self._notify
        self._parts = parts
        self._executor = Executor(self, parts)
        self.claims = Claims(parts, self.notifier, self._register_tasks)
        self._immediate_runner = ImmediateRunner(parts, self._run_claimed)
        self.run_tree = self._immediate_runner.run_tree
        self.run_ready = self._immediate_runner.run_ready
        self._classes: dict[str, type[HueyTask]] = {}
        self._generation = -1  # of the plugins that have registered their tasks
        self._registering = threading.Lock()
        self._register_tasks()

    def _notify(self) -> None:
        self.has_notified = self.notifier.notify()

    def _register_tasks(self) -> None:
        """Register the tasks of the plugins that are loaded now."""
        plugins = self._parts.plugins
        if self._generation == plugins.generation:
            return
        with self._registering:
            generation = plugins.generation
            for name in plugins.tasks.keys() - self._classes.keys():
                declare = self.task(name=name, context=True)
                self._classes[name] = declare(self._executor.call).task_class
            if self.claims.worker is not None:
                pool = self.claims.worker.pool
                self.claims.limits = self._parts.limits(pool)
                self.claims.brief = self._parts.brief_tasks(pool)
                # Retry policies for crashes, because the supervisor loads no plugins.
                policies = crash_policies(plugins.tasks.values())
                if self.job_store.get(CRASH_POLICIES) != policies:
                    self.job_store.put(CRASH_POLICIES, policies)
            self._generation = generation  # last: until then other threads wait for the lock

    # In a worker process -------------------------------------------------------------------------

    def work_for(self, worker: Worker) -> None:
        """Begin to claim jobs of the pool of a worker, which is this process."""
        self.claims.worker = worker
        outages = OutageMonitor(self.job_store, self._parts.write_dirs())
        self.claims.outages = self._executor.outages = outages
        self._generation = -1
        self._register_tasks()

    def create_consumer(self, **options: Any) -> Any:
        """Create the consumer of a worker process. Raises UsageError elsewhere."""
        if self.claims.worker is None:
            raise unsupported("create_consumer")
        return super().create_consumer(**options)

    def dequeue(self) -> HueyTask | None:
        """Claim the next job. Return None if there was none for a second."""
        try:
            claim = self.claims.next()
        except NewerFormat as error:
            end_outdated(error)
        return None if claim is None else self._decode(claim, self.claims.finish)

    def execute(self, task: HueyTask, timestamp: datetime.datetime | None = None) -> None:
        """Run a claimed job, write its outcome and claim the next job."""
        threads = threading.active_count()
        outcome = self._executor.run(task)
        self._end_left_behind(task.claim, threads)
        self.claims.finish(task.claim, outcome)

    def _decode(self, claim: Claim, end: Callable[[Claim, Outcome], object]) -> HueyTask | None:
        """Return the Huey task of a claim. A job that can't be decoded fails."""
        try:
            arguments = json.loads(claim.args)
            if not isinstance(arguments, list):
                raise ValueError("not a list")
            task = self._classes[claim.task](tuple(arguments), id=str(claim.id))
        except (ValueError, KeyError, RecursionError) as error:
            reason = f"can't be decoded: {type(error).__name__}: {error}"
            end(claim, Outcome("failed", "failed", None, "undecodable", reason))
            return None
        task.claim = claim
        return task

    def _end_left_behind(self, claim: Claim, threads: int) -> None:
        """Kill the child processes that a job has left behind.

        Beside other jobs, or a browser that outlasts them, only the children of this thread are
        killed. Threads can't be ended: a worker process with too many of them is recycled.
        """
        alone = self.claims.runs_alone(claim) and not processes.LASTING_THREADS
        of_threads = None if alone else [threading.get_native_id()]
        if processes.has_children() and (left := processes.end_children(of_threads)):
            logger.warning("job %s has left %d processes behind; they are killed", claim.id, left)
        if alone and (left := threading.active_count() - threads) > 0:
            logger.warning("job %s has left %d threads running", claim.id, left)

    # In immediate mode ---------------------------------------------------------------------------

    def _run_claimed(self, claim: Claim) -> None:
        self._register_tasks()
        task = self._decode(claim, self.job_store.end)
        if task is not None:
            self.job_store.end(claim, self._executor.run(task))

    def close(self) -> None:
        """Leave the worker registry, and close the job store."""
        self._immediate_runner.close()
        self.claims.close()
        self.notifier.close()
        self.job_store.close()


# The providers -----------------------------------------------------------------------------------


def create_queue(parts: Parts) -> JobHuey:
    """Create the queue of the provider that the settings name.

    Raises:
        SettingsError: No plugin has such a provider.
        PluginError: The provider returns something else, or fails.
    """
    name, plugins = parts.settings.task_queue.provider, parts.plugins
    provider = plugins.provider(name)
    queue = plugins.call(name, "create()", lambda: provider.create(parts))
    if not isinstance(queue, JobHuey):
        kind = type(queue).__name__
        raise PluginError(f"task_queue.provider {name}: create() returned {kind}, not a JobHuey")
    return queue


def open_job_store(parts: Parts, path: Path | None = None) -> JobStore:
    """Open the job store of the settings, or the one at a path.

    On a machine that has joined a queue, the path is the socket of its supervisor.
    """
    path = path or parts.settings.databases(parts.data_dir)[0]
    if path.is_socket():
        from paise2nb.workers.machines.remote import RemoteStore

        return RemoteStore(path, parts.data_dir)  # type: ignore[return-value]  # acts like one
    return JobStore(path, durable=not parts.is_worker, host_delay=parts.settings.fetch.host_delay)


class NoTaskQueueProvider:
    """Immediate mode: the process that enqueues a job runs it."""

    def create(self, app: Parts) -> JobHuey:
        """Create a queue of jobs that the enqueue runs."""
        return JobHuey(app, open_job_store(app), immediate=True)


class HueySQLiteTaskQueueProvider:
    """The persistent queue: worker processes claim jobs from one SQLite file."""

    def create(self, app: Parts) -> JobHuey:
        """Create a queue on ``task_queue.sqlite.path``."""
        immediate = app.settings.task_queue.sqlite.immediate and not app.is_worker
        return JobHuey(app, open_job_store(app), immediate=immediate)


class HueyRedisTaskQueueProvider(HueySQLiteTaskQueueProvider):
    """The persistent queue, with jobs that also run on machines that have joined it by Redis.

    The SQLite file stays the only record. Beside the workers, their supervisor starts a relay
    (`paise2nb.workers.machines.relay`), which carries jobs to the machines and outcomes back.
    """


@hookimpl
def task_queue_providers() -> dict[str, TaskQueueProvider]:
    """Provide ``none``, ``sqlite`` and ``redis``."""
    return {
        "none": NoTaskQueueProvider(),
        "sqlite": HueySQLiteTaskQueueProvider(),
        "redis": HueyRedisTaskQueueProvider(),
    }
