"""Huey over the job table: the engine that runs jobs, and what an execution's end means.

A Huey subclass whose dequeue is a claim in the job table and whose execute writes the outcome
there: result, follow-ups and the claim of the next job in one transaction. Stock Huey deletes
a message before its work is done; here the row stays, and nothing is ever only in memory.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
import threading
import time
import traceback as tracebacks
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from huey import signals
from huey.api import Huey
from huey.api import Task as HueyTask
from huey.exceptions import RetryTask
from huey.serializer import Serializer
from huey.storage import BaseStorage

from paise2nb.core import processes as process
from paise2nb.core.errors import (
    PaiseError,
    Snoozed,
    StorageError,
    TaskError,
    message,
    redacted,
    storable,
)
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs import IMMEDIATE, Claim, HostDelay, JobStore, Limits, Outcome, Worker
from paise2nb.jobs.retry import CRASH, crash_policies, decide, error_class
from paise2nb.plugins import Task, TaskQueueProvider, hookimpl
from paise2nb.workers.outage import OutageMonitor

if TYPE_CHECKING:
    from paise2nb.app import App

logger = logging.getLogger("paise2nb.workers.queue")

SAFETY_POLL = 1.0  # seconds: an idle wait never lasts longer, whether the bell rings or not
SHORT_JOB = 0.0005  # seconds: a thread whose job takes no longer is left to go on alone
SPIN_SECONDS = 0.001  # seconds between two looks whether it does
LONGEST_SLOT_CHECK = 15.0  # seconds between looks for turns that no other pool takes


class JSONSerializer(Serializer):
    """Messages are JSON: a crafted one can hold odd data, but never run code."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Any:
        return json.loads(data)


class JobStorage(BaseStorage):
    """Huey's storage over the job table: what Huey asks of a storage, answered by the rows."""

    blocking = True  # an idle worker sleeps on the bell, not on Huey's polling interval

    def __init__(self, name: str = "paise2", *, job_store: JobStore) -> None:
        super().__init__(name)
        self.job_store = job_store

    def close(self) -> None:
        """Close the job table."""
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


class IdleWaiter:
    """How a thread of a worker waits when there is nothing to claim; ends early when called.

    Attributes:
        calls: how often it was called. Who has looked for work names the number from before, and
            does not sleep if it has changed: a call in between is not missed.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.calls = 0

    def wait(self, seconds: float, calls: int) -> None:
        with self._condition:
            if calls == self.calls:
                self._condition.wait(seconds)

    def end_one(self) -> None:
        with self._condition:
            self.calls += 1
            self._condition.notify()

    def end_all(self) -> None:
        with self._condition:
            self.calls += 1
            self._condition.notify_all()


class JobHuey(Huey):
    """The queue of one app.

    Attributes:
        table: the job table.
        nap: ended when there may be work; a worker process connects it with its bell.
    """

    def __init__(self, app: App, job_store: JobStore, *, immediate: bool) -> None:
        # Huey's own immediate mode would swap in a storage in memory and run follow-ups before
        # their parent commits: here immediate means that this process claims and executes.
        super().__init__(
            "paise2", results=False, serializer=JSONSerializer(),
            storage_class=JobStorage, job_store=job_store,
        )  # fmt: skip
        self.app = app
        self.job_store = job_store
        self.runs_immediately = immediate
        self.notifier = Notifier(job_store.path)
        self.idle_waiter = IdleWaiter()
        self._executing = threading.local()
        self._looking = threading.Lock()  # one thread at a time looks for work
        self._began: dict[int, float] = {}  # by thread: when (monotonic) its job began
        self._jobs_anywhere: set[int] = set()  # in immediate mode: those that threads execute
        self._has_orphaned_claims = False
        self._worker: Worker | None = None
        self._limits: dict[str, Limits] = {}
        self._outages: OutageMonitor | None = None
        self._stopping = threading.Event()
        self._check_slots_at = 0.0  # monotonic: for turns that nobody takes
        self._slot_check_pause = SAFETY_POLL
        self._classes: dict[str, type[HueyTask]] = {}
        self.tasks_changed()

    def tasks_changed(self) -> None:
        """Know the tasks that the app's plugins define now."""
        for name, task in self.app.plugins.tasks.items():
            if name not in self._classes:
                self._classes[name] = self._register(task)
        if self._worker is not None and not self.runs_immediately:
            self._limits = self.app.limits(self._worker.pool)
            self._note_policies()

    def _note_policies(self) -> None:
        """Leave word for the supervisor, which loads no plugin."""
        policies = crash_policies(self.app.plugins.tasks.values())
        if self.job_store.get(CRASH) != policies:
            self.job_store.put(CRASH, policies)

    def _register(self, task: Task) -> type[HueyTask]:
        def run(*arguments: Any, task: HueyTask) -> Outcome:
            me = os.getpid()
            try:
                return self.app.perform(task.claim, arguments)
            except Snoozed:
                raise
            except RetryTask as host_delays:  # by the task itself: bounded like any other failure
                error = TaskError(host_delays.args[0] or "asked to be retried", "retry")
                error.retry_after = host_delays.delay
                error.__cause__ = host_delays
                self._raise(task.claim, error)
            except Exception as error:
                self._raise(task.claim, error)
            finally:
                if os.getpid() != me:  # a fork of the task's own making has no part in the rest
                    os._exit(0)

        wrapper = self.task(name=task.name, context=True)(run)
        return wrapper.task_class  # type: ignore[no-any-return]

    def _raise(self, claim: Claim, error: Exception) -> NoReturn:
        """Raise the RetryTask that carries the policy's delay, or the error itself at the end."""
        task = self.app.plugins.tasks.get(claim.task)
        failures = claim.attempt - claim.crashes
        delay, max_attempts = decide(self.app.settings, task, error, failures)
        if delay is None:
            error.__paise2_max_attempts__ = max_attempts  # type: ignore[attr-defined]
            raise error
        retry: Exception = RetryTask(delay=delay)
        retry.__paise2_max_attempts__ = max_attempts  # type: ignore[attr-defined]
        raise retry from error

    # A worker's part -------------------------------------------------------------------------

    def work_for(self, worker: Worker, limits: Mapping[str, Limits]) -> None:
        """Claim for this worker, from these tasks only."""
        self._worker, self._limits = worker, dict(limits)
        self._note_policies()
        self._outages = OutageMonitor(self.job_store, self.app.write_dirs())

    @property
    def stopping(self) -> bool:
        """Whether it claims nothing any more."""
        return self._stopping.is_set()

    def stop_claiming(self) -> None:
        """Finish what runs and claim nothing more: a worker drains."""
        self._stopping.set()
        self.idle_waiter.end_all()

    def dequeue(self) -> HueyTask | None:
        """Claim the next job; None when there was none within the safety poll."""
        self._write_kept()
        calls = self.idle_waiter.calls
        if self.stopping or self._worker is None:
            return None
        claim = self._take_next_claim()
        if claim is None:
            self._began.pop(threading.get_ident(), None)
            patience = SAFETY_POLL
            if self._looking.acquire(blocking=False):
                try:
                    claim = self._look(self._worker)
                    if claim is None:
                        patience = self._patience()
                finally:
                    self._looking.release()
            if claim is None:
                self.idle_waiter.wait(patience, calls)
                return None
        if not self._looking.locked():
            self.idle_waiter.end_one()  # there may be more: the next thread looks
        # Asked again: whoever enqueued this job may have changed a cell just before.
        if not self._is_current() or claim.task not in self.app.plugins.tasks:
            self.job_store.end(claim, Outcome("released", "queued"))
            return None
        return self._decoded(claim)

    def _look(self, worker: Worker) -> Claim | None:
        """Claim a job, unless threads that are at work will be back for it at once.

        The next of many brief jobs costs such a thread little; every thread beside it makes it
        wait for the interpreter's lock and the table's, so that four of them do less than one.
        """
        while self._is_spinning():
            if self.stopping:
                return None
            time.sleep(SPIN_SECONDS)
        if not self._is_current():  # it may know more tasks from now on
            return None
        limits = self._open_limits()
        tasks = tuple(limits)
        if limits and (self.job_store.claimable(tasks) or self._takes_unused_slots(tasks)):
            return self.job_store.claim(worker, limits)
        return None

    def _is_spinning(self) -> bool:
        """Whether a thread has only just begun its job, or writes the outcome of one."""
        since = time.monotonic() - SHORT_JOB
        return any(began > since for began in list(self._began.values()))

    def _takes_unused_slots(self, tasks: tuple[str, ...]) -> bool:
        """Look for turns that no other pool takes: one thread, more seldom while there are none."""
        if time.monotonic() < self._check_slots_at:
            return False
        self._check_slots_at = time.monotonic() + self._slot_check_pause
        found = self.job_store.take_unused_slots(tasks)
        self._slot_check_pause = (
            SAFETY_POLL if found else min(2 * self._slot_check_pause, LONGEST_SLOT_CHECK)
        )
        return found

    def _is_current(self) -> bool:
        """Take up what has become of plugins; where that takes a fresh process, leave for one."""
        try:
            if self.app.refresh():
                return True
            reason = "plugins have changed"
        except PaiseError as error:
            reason = str(error)
        self.recycle(reason)
        return False

    def recycle(self, reason: str) -> None:
        """Finish what runs and leave: the supervisor starts a fresh process at once."""
        if not self.stopping:
            logger.info("this worker gives way to a fresh one: %s", reason)
            self.stop_claiming()
            self.notifier.notify()  # whoever sleeps in this process, too

    def _open_limits(self) -> dict[str, Limits]:
        """The tasks that may be claimed now, with their limits."""
        paused = self._outages.paused_tasks() if self._outages else set()
        if paused is None or self.stopping:
            return {}
        return {name: limit for name, limit in self._limits.items() if name not in paused}

    def _take_next_claim(self) -> Claim | None:
        claim: Claim | None = getattr(self._executing, "next_claim", None)
        self._executing.next_claim = None
        return claim

    def _patience(self) -> float:
        due = self.job_store.next_time(tuple(self._limits), within=SAFETY_POLL)
        return (
            SAFETY_POLL if due is None else min(max(due - self.job_store.now(), 0.001), SAFETY_POLL)
        )

    def _decoded(self, claim: Claim) -> HueyTask | None:
        """The Huey task of a claim. One that can't be decoded fails, and is kept to be seen."""
        try:
            arguments = json.loads(claim.args)
            if not isinstance(arguments, list):
                raise ValueError("not a list")
            task = self._classes[claim.task](tuple(arguments), id=str(claim.id))
        except (ValueError, KeyError, RecursionError) as error:
            what = f"can't be decoded: {type(error).__name__}: {error}"
            self.job_store.end(claim, Outcome("failed", "failed", None, "undecodable", what))
            return None
        task.claim = claim
        return task

    def execute(self, task: HueyTask, timestamp: datetime.datetime | None = None) -> None:
        """Run a claimed job and write how it ended; the next claim comes with it."""
        threads, me = threading.active_count(), threading.get_ident()
        self._began[me] = time.monotonic()
        ending = self._run(task)
        self._tidy(task.claim, threads)
        self._began[me] = math.inf
        try:
            self._finish(task.claim, ending, self._open_limits())
        except StorageError:
            # Kept, and written before this thread claims anything else.
            self._began.pop(me, None)
            logger.exception("the outcome of job %s can't be written now", task.id)
            self._executing.kept = (task.claim, ending)

    def _tidy(self, claim: Claim, threads: int) -> None:
        """End the processes that a job has left behind: beside other jobs those of its thread.

        A thread can't be ended: a worker in which too many are left gives way to a fresh one.
        """
        lone = self._worker is not None and self._worker.lone
        if process.has_children():
            left = process.end_children(None if lone else [threading.get_native_id()])
            if left:
                logger.warning("job %s has left %d processes behind: ended", claim.id, left)
        if lone and (left := threading.active_count() - threads) > 0:
            logger.warning("job %s has left %d threads running", claim.id, left)

    def _finish(self, claim: Claim, ending: Outcome, limits: dict[str, Limits]) -> None:
        accepted, next_claim = self.job_store.end(claim, ending, self._worker, limits)
        self._executing.next_claim = next_claim
        if not accepted:
            logger.warning("job %s is no longer this worker's: its outcome is refused", claim.id)
        elif ending.followups:
            self.idle_waiter.end_one()
            self.notifier.notify()

    def _write_kept(self) -> None:
        kept: tuple[Claim, Outcome] | None = getattr(self._executing, "kept", None)
        if kept is not None:
            try:
                self._finish(*kept, {})
            except StorageError:
                self._stopping.wait(SAFETY_POLL)
                raise
            self._executing.kept = None

    def _run(self, task: HueyTask) -> Outcome:
        claim: Claim = task.claim
        self._emit(signals.SIGNAL_EXECUTING, task)
        self._tasks_in_flight.add(task)
        try:
            ending: Outcome = task.execute()
        except Snoozed as wait:
            host_delays = [HostDelay(*wait.crawl_delay)] if wait.crawl_delay else []
            return Outcome(
                "snoozed", "queued", host_delays=host_delays, host=wait.host, resume=wait.resume
            )
        except RetryTask as retry:
            self._emit(signals.SIGNAL_RETRYING, task)
            cause = retry.__cause__ or retry
            if self._outages and self._outages.is_outage(claim, cause):
                logger.info("job %s goes back uncharged: %s", claim.id, cause)
                return released(cause)
            logger.info("job %s will be retried in %.1f s: %s", claim.id, retry.delay, cause)
            return _failure(cause, retry_in=retry.delay, granted=retry.__paise2_max_attempts__)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self.runs_immediately:
                raise  # interrupted is not completed
            self._emit(signals.SIGNAL_ERROR, task, error)
            if self._outages and self._outages.is_outage(claim, error):
                logger.info("job %s goes back uncharged: %s", claim.id, error)
                return released(error)
            logger.info("job %s failed: %s", claim.id, error)
            return _failure(error, granted=getattr(error, "__paise2_max_attempts__", None))
        finally:
            self._tasks_in_flight.discard(task)
        self._emit(signals.SIGNAL_COMPLETE, task)
        if self._outages:
            self._outages.recovered(claim.task)
        return ending

    def release_next_claim(self) -> None:
        """Give back the job that this thread has claimed but not begun."""
        claim = self._take_next_claim()
        if claim is not None:
            self.job_store.end(claim, Outcome("released", "queued"))

    # Immediate mode --------------------------------------------------------------------------

    def run_tree(self, root: int) -> None:
        """Claim and execute here until nothing of a job's tree is left, waiting for retries."""
        while True:
            self.run_ready(root)
            if not self.job_store.unfinished([root]) or self._runs_inside(root):
                return
            # A retry's time has yet to come, or another thread or process runs it, or held its
            # host's turn when it died.
            self.app.workers.rescue_orphans()
            due = self.job_store.next_time()
            rest = SAFETY_POLL if due is None else due - self.job_store.now()
            time.sleep(min(max(rest, 0.001), SAFETY_POLL))

    def run_ready(self, root: int | None = None) -> None:
        """Claim and execute here what may start now, of one job's tree or of all jobs."""
        worker, limits = self._immediate_worker(), self.app.limits()
        outer = self._jobs_here()
        try:
            if self._has_orphaned_claims:
                self._release_orphaned_claims(worker)
            while (claim := self.job_store.claim(worker, limits, tree=root)) is not None:
                self._execute_here(claim)
        except BaseException:
            # An interrupt may come at any moment, after a claim or in the writing of an outcome.
            self._has_orphaned_claims = True
            self._jobs_anywhere.difference_update(self._jobs_here()[len(outer) :])
            self._executing.jobs = outer
            self._release_orphaned_claims(worker)
            raise

    def _execute_here(self, claim: Claim) -> None:
        outer = self._jobs_here()
        self._executing.jobs = (*outer, claim.id)
        self._jobs_anywhere.add(claim.id)
        task = self._decoded(claim)
        if task is not None:
            self.job_store.end(claim, self._run(task))
        self._jobs_anywhere.discard(claim.id)
        self._executing.jobs = outer

    def _release_orphaned_claims(self, worker: Worker) -> None:
        """Give back what this process holds and no thread of it executes."""
        self.job_store.release(worker, self._jobs_anywhere)
        self._has_orphaned_claims = False

    def _jobs_here(self) -> tuple[int, ...]:
        """The jobs that this thread executes, one inside the other."""
        jobs: tuple[int, ...] = getattr(self._executing, "jobs", ())
        return jobs

    def _runs_inside(self, root: int) -> bool:
        """Whether a job's tree is itself what this thread executes: it can't wait for itself."""
        jobs = self._jobs_here()
        return bool(jobs) and not set(jobs).isdisjoint(self.job_store.trees([root])[root])

    def _immediate_worker(self) -> Worker:
        if self._worker is None:
            self._worker = self.job_store.register(IMMEDIATE, 1, "busy")
        return self._worker

    def close(self) -> None:
        """Let go of the job table."""
        if self._worker is not None and self.runs_immediately:
            self.job_store.leave(self._worker)
        self.notifier.close()
        self.storage.close()


def _failure(
    error: BaseException, *, retry_in: float | None = None, granted: int | None = None
) -> Outcome:
    return Outcome(
        "failed",
        "failed" if retry_in is None else "retrying",
        error_class=error_class(error),
        error=message(error),
        traceback=_traceback(error),
        retry_in=retry_in,
        max_attempts=granted,
        host_delays=_pause(error, retry_in),
    )


def _pause(error: BaseException, retry_in: float | None) -> list[HostDelay]:
    """The pause of a host that was asked too often: all jobs for it wait, not only this one."""
    if not isinstance(error, TaskError) or error.host is None:
        return []
    return [HostDelay(error.host, pause=max(error.retry_after or 0.0, retry_in or 0.0))]


def released(error: BaseException) -> Outcome:
    """Back to the queue uncharged, with what happened."""
    return Outcome("released", "queued", error_class=error_class(error), error=message(error))


def _traceback(error: BaseException) -> str:
    """The traceback from the task's own frames on: those of the engine say nothing about it."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        if frames.tb_frame.f_globals.get("__name__") not in _ENGINE:
            break
        frames = frames.tb_next
    text = "".join(tracebacks.format_exception(type(error), error, frames))
    return storable(redacted(text))


_ENGINE = ("paise2nb.workers.queue", "paise2nb.app", "huey.api")


# The providers -------------------------------------------------------------------------------


def open_job_store(app: App, path: Path | None = None) -> JobStore:
    """The job table of an app's settings, or at a path of a provider's choice."""
    path = path or app.settings.task_queue.sqlite.path or app.data_dir / "tasks.db"
    return JobStore(path, durable=not app.is_worker, host_delay=app.settings.fetch.host_delay)


class NoTaskQueueProvider:
    """Immediate mode: the same table and the same code, run by the process that enqueues."""

    def create(self, app: Any) -> JobHuey:
        """A queue that runs each job before the enqueue returns."""
        return JobHuey(app, open_job_store(app), immediate=True)


class HueySQLiteTaskQueueProvider:
    """The persistent queue: worker processes claim from one SQLite file."""

    def create(self, app: Any) -> JobHuey:
        """A queue on ``task_queue.sqlite.path``."""
        immediate = app.settings.task_queue.sqlite.immediate and not app.is_worker
        return JobHuey(app, open_job_store(app), immediate=immediate)


@hookimpl
def task_queue_providers() -> dict[str, TaskQueueProvider]:
    """``none`` and ``sqlite``."""
    return {"none": NoTaskQueueProvider(), "sqlite": HueySQLiteTaskQueueProvider()}


__all__ = [
    "HueySQLiteTaskQueueProvider", "JobHuey", "JobStorage", "NoTaskQueueProvider",
    "open_job_store",
]  # fmt: skip
