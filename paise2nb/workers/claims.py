"""How the threads of a worker process claim their next jobs, and wait if there are none."""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from paise2nb.core.errors import NewerFormat, PaiseError, StorageError
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs.batch import BatchFile
from paise2nb.jobs.models import Claim, Limits, Outcome, Wanted, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.workers.outage import OutageMonitor

logger = logging.getLogger("paise2nb.worker")

SAFETY_POLL = 1.0  # seconds: the longest idle wait, in case a wakeup is lost
OTHERS_POLL = 30.0  # the same for the other threads of the process
# Seconds for which fetches wait for extractions, so that these do not run out of fetched pages:
# see `jobs.execution.MOST_AHEAD` and tests.benchmarks.folder.
AHEAD_POLL = 0.05
# Scheduling of the threads of one process. `python -m tests.benchmarks.queue`, drain with one
# process and four threads, is more than twice as fast with it.
SHORT_JOB = 0.0005  # seconds: while a thread's job is younger than this, no other thread claims
SPIN_SECONDS = 0.001  # between two checks of that
# Jobs of brief tasks are claimed together, and their outcomes written together: twice as many while
# they take less than BATCH_SECONDS, and again one by one after that. Of other tasks, at most two
# are claimed together; they run in turn.
BATCH_SECONDS = 0.005
MOST_TOGETHER = 32
RECHECK_SECONDS = 0.02  # after which a claimed job may have been cancelled before it starts
LONGEST_AHEAD = 0.1  # seconds until claimed jobs that no thread has started are put back
MAX_SLOT_CHECK_SECONDS = 15.0  # between two checks for host slots that no other pool uses


class IdleWaiter:
    """Lets the threads of a process wait for work.

    Attributes:
        calls: How often a wait was ended. A thread reads it before it looks for work and passes it
            to `wait`, so that it misses no wakeup in between.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._ends_at = math.inf  # monotonic: when a thread stops waiting
        self.calls = 0

    def wait(self, seconds: float, calls: int) -> None:
        """Wait at most that long; not at all if a wait was ended since `calls` was read.

        If another thread's wait ends before that, this one waits until it is woken.
        """
        with self._condition:
            if calls == self.calls:
                ends_at = time.monotonic() + seconds
                if self._ends_at <= ends_at:
                    self._condition.wait(OTHERS_POLL)
                else:
                    self._ends_at = ends_at
                    self._condition.wait(seconds)
                    if self._ends_at == ends_at:
                        self._ends_at = math.inf

    def wake(self, threads: int = 1) -> None:
        """Wake that many threads."""
        with self._condition:
            self.calls += 1
            self._condition.notify(threads)


class Claims:
    """The claims of one worker process, shared by its threads.

    Args:
        parts: The job store, and the plugins, which are reloaded while the worker runs.
        notifier: Wakes the other processes.
        register_tasks: Called when plugins may have changed.

    Attributes:
        worker: The worker to claim for; None until the process is ready to claim.
        limits: The tasks to claim, with their limits.
        brief: Those of them of which several jobs may run at once in any process.
        outages: Pauses tasks that can't run at the moment.
        stopping: No more jobs are claimed.
    """

    def __init__(
        self, parts: Parts, notifier: Notifier, register_tasks: Callable[[], None]
    ) -> None:
        self._parts = parts
        self._job_store = parts.job_store
        self._notifier = notifier
        self._register_tasks = register_tasks
        self.idle_waiter = IdleWaiter()
        self.worker: Worker | None = None
        self.limits: dict[str, Limits] = {}
        self.brief: frozenset[str] = frozenset()
        self.outages: OutageMonitor | None = None
        self.stopping = False
        self._claiming = threading.Lock()  # only one thread at a time looks for work
        self._lock = threading.RLock()  # of what follows
        self._ahead: deque[Claim] = deque()  # claimed, not started
        self._ended: list[tuple[Claim, Outcome]] = []  # not written
        self._batch_file: BatchFile | None = None  # for two jobs that run in turn
        self._held = 0  # jobs that are claimed and have not ended
        self._runs_alone = False  # those that are held, one after another
        self._claimed_at = -math.inf  # monotonic
        self._together = 1  # brief jobs to claim at once
        self._started: dict[int, float] = {}  # thread -> when (monotonic) its job started
        self._check_slots_at = 0.0  # monotonic
        self._slot_check_seconds = SAFETY_POLL

    @property
    def age(self) -> float:
        """Seconds since jobs were last claimed."""
        return time.monotonic() - self._claimed_at

    @property
    def is_busy(self) -> bool:
        """Whether jobs were claimed just now, of which some may have to be put back soon."""
        return self.age < SAFETY_POLL

    def stop(self) -> None:
        """Claim no more jobs: the worker drains."""
        self.stopping = True
        self.idle_waiter.wake(threading.active_count())  # all: no more threads than that wait

    def close(self) -> None:
        """Close the file of this process. It claims no jobs any more."""
        if self._batch_file is not None:
            self._batch_file.close()
            self._batch_file = None

    def next(self) -> Claim | None:
        """Return a claimed job, or wait for one. None if there was none within `SAFETY_POLL`."""
        calls = self.idle_waiter.calls
        if self.stopping or self.worker is None:
            return None
        claim = self._take() or self._next_of_written()
        if claim is None:
            self._started.pop(threading.get_ident(), None)
            pause = SAFETY_POLL
            if self._claiming.acquire(blocking=False):
                try:
                    pause = self._look_for_work(self.worker)
                    claim = self._take()
                finally:
                    self._claiming.release()
            if claim is None:
                self.idle_waiter.wait(pause, calls)
                return None
        if not (self._claiming.locked() or self._runs_alone):
            self.idle_waiter.wake()  # there may be more work: wake the next thread
        # Checked again here: a plugin may have been saved just before this job was enqueued.
        if not self._plugins_are_current() or claim.task not in self._parts.plugins.tasks:
            with self._lock:
                self._put_back(claim)
                self._write({})
            return None
        self._started[threading.get_ident()] = time.monotonic()
        return claim

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        """End a job: write its outcome, and claim the next job in the same transaction.

        While jobs that were claimed with this one are left, it is written together with theirs. If
        it can't be written now, it is written before anything else starts in its place.
        """
        thread = threading.get_ident()
        self._started[thread] = math.inf
        with self._lock:
            self._held -= 1
            self._ended.append((claim, outcome))
            if self._ahead and self.age < BATCH_SECONDS and self._may_wait(claim, outcome):
                return
            if self._runs_alone and self.age > RECHECK_SECONDS:
                self._put_back_ahead()  # the next claim knows of pauses and priorities
            try:
                self._write(self._unpaused_limits())
            except NewerFormat as error:
                end_outdated(error)
            except StorageError:
                self._started.pop(thread, None)
                if self._runs_alone:
                    self._put_back_ahead()  # in the file, this job still runs
                logger.exception("the outcome of job %s can't be written now", claim.id)

    def _may_wait(self, claim: Claim, outcome: Outcome) -> bool:
        """Whether an outcome may be written with those of jobs that have yet to start.

        Where they run in turn, it is kept in a file meanwhile.
        """
        if not self._runs_alone:
            return claim.task in self.brief
        return _is_plain(outcome) and self._write_batch()

    def _write_batch(self) -> bool:
        assert self._batch_file is not None, "opened before the jobs were claimed"
        completed = [(c, o.result or "null") for c, o in self._ended if o.outcome == "completed"]
        return self._batch_file.write(completed, self._ahead)

    def release_ahead(self) -> None:
        """Write all outcomes, and put the jobs back that are claimed but not started."""
        with self._lock:
            found = bool(self._ahead)
            self._put_back_ahead()
            if self._ended:
                self._write({})
        if found:
            self._notifier.notify()

    def release_late(self) -> None:
        """Do that if a job that was claimed with them takes longer than expected."""
        if self.age > LONGEST_AHEAD and (self._ahead or self._ended):
            self.release_ahead()

    def _put_back_ahead(self) -> None:
        while self._ahead:
            self._put_back(self._ahead.popleft())

    def _put_back(self, claim: Claim) -> None:
        """Have a job that has not started queued again, with the next write."""
        self._held -= 1
        # As if it had not been claimed: it is no attempt, and not in the job's history.
        self._ended.append((claim, Outcome("snoozed", "queued", resume=claim.resume)))

    def recycle(self, reason: str) -> None:
        """Finish the running jobs and end this process. The supervisor starts a new one at once."""
        if not self.stopping:
            logger.info("this worker is replaced by a new process: %s", reason)
            self.stop()
            self._notifier.notify()  # wakes the main thread of this process, too

    def _plugins_are_current(self) -> bool:
        """Reload plugins that have changed; recycle this process if that is not possible in it."""
        try:
            if self._parts.plugins.refresh():
                self._register_tasks()
                return True
            reason = "plugins have changed"
        except PaiseError as error:
            reason = str(error)
        self.recycle(reason)
        return False

    def _write(self, limits: dict[str, Limits]) -> None:
        """Write the outcomes and, if none is left of what was claimed, claim the next jobs."""
        assert self.worker is not None
        wanted = None
        if limits and not self._ahead and self._may_claim():
            quick = self.age < BATCH_SECONDS
            self._together = min(2 * self._together, MOST_TOGETHER) if quick else 1
            self._claimed_at = time.monotonic()
            beside = self._held > 0 and self.worker.one_at_a_time
            short = self._short_task() if quick else None
            wanted = Wanted(limits, self.brief, self._together, beside, short)
        accepted, claims = self._job_store.end_several(self._ended, self.worker, wanted)
        ended, self._ended = self._ended, []
        if claims:
            self._ahead.extend(claims)
            self._held += len(claims)
            self._runs_alone = self.runs_alone(claims[0])
            if self._runs_alone and len(claims) > 1:
                self._write_batch()
        for (claim, _), was_accepted in zip(ended, accepted, strict=True):
            if not was_accepted:
                logger.warning("the outcome of job %s is refused: it was taken back", claim.id)
        if any(outcome.followups or outcome.found for _, outcome in ended):
            self.idle_waiter.wake()
            self._notifier.notify()

    def _short_task(self) -> str | None:
        """Return the task of which two jobs may be claimed, to run in turn: that of the last job.

        None if an outcome such as its last one can't be kept in the file.
        """
        assert self.worker is not None
        if not (self._runs_alone and self._ended) or self._job_store.is_remote:
            return None
        if self._batch_file is None:
            self._batch_file = BatchFile.open(self._job_store.path, self.worker.id)
        claim, outcome = self._ended[-1]
        return claim.task if self._batch_file and _is_plain(outcome) else None

    def runs_alone(self, claim: Claim) -> bool:
        """Whether no other job of this process runs beside a job."""
        assert self.worker is not None
        brief = claim.task in self.brief and not claim.isolated
        return self.worker.one_at_a_time and not brief

    def _may_claim(self) -> bool:
        """Whether another job may be claimed beside those that are held."""
        return not (self._held and self._runs_alone)

    def _take(self) -> Claim | None:
        """Take a claimed job to start it; not one that was cancelled meanwhile."""
        with self._lock:
            if self._runs_alone and self._held > len(self._ahead):
                return None  # those that were claimed with the job that runs wait for it
            while self._ahead:
                claim = self._ahead[0]
                may_start = self.age < RECHECK_SECONDS or self._job_store.runs(claim)
                self._ahead.popleft()
                if may_start:
                    return claim
                self._put_back(claim)
                self._write({})
        return None

    def _look_for_work(self, worker: Worker) -> float:
        """Claim jobs, unless another thread will claim its own next job in a moment.

        For that thread, the next of many short jobs is cheap. A second thread would make it wait
        for the interpreter's lock and the job store's: four threads would do less than one.

        Returns:
            Seconds to wait if there are none.
        """
        while self._runs_short_job():
            if self.stopping:
                return SAFETY_POLL
            time.sleep(SPIN_SECONDS)
        # The claim checks pauses, too. Here that saves a transaction.
        pools = {"", worker.pool}
        if self._ahead or not self._may_claim() or pools & self._job_store.paused_pools():
            return SAFETY_POLL
        if not self._plugins_are_current():
            return SAFETY_POLL
        limits = self._unpaused_limits()
        if not limits:  # a job that is due would end each wait at once
            return SAFETY_POLL
        tasks = tuple(limits)
        if self._job_store.claimable(tasks) or self._take_unused_slots(tasks):
            with self._lock:
                self._write(limits)
        return SAFETY_POLL if self._ahead else self._seconds_until_due()

    def _next_of_written(self) -> Claim | None:
        """Write outcomes that are not written yet. Return the job that is claimed with that."""
        try:
            with self._lock:
                if not self._ended:
                    return None
                self._write(self._unpaused_limits())
                return self._take()
        except StorageError:
            time.sleep(SAFETY_POLL)
            raise

    def _runs_short_job(self) -> bool:
        """Whether a thread has just started its job, or is writing an outcome."""
        since = time.monotonic() - SHORT_JOB
        return any(started > since for started in list(self._started.values()))

    def _take_unused_slots(self, tasks: tuple[str, ...]) -> bool:
        """Take host slots that no other pool uses. Checked less often while there are none."""
        if time.monotonic() < self._check_slots_at:
            return False
        self._check_slots_at = time.monotonic() + self._slot_check_seconds
        found = self._job_store.take_unused_slots(tasks)
        pause = SAFETY_POLL if found else 2 * self._slot_check_seconds
        self._slot_check_seconds = min(pause, MAX_SLOT_CHECK_SECONDS)
        return found

    def _unpaused_limits(self) -> dict[str, Limits]:
        """Return the tasks that may be claimed now, with their limits."""
        paused = self.outages.paused_tasks() if self.outages else set()
        if paused is None or self.stopping:
            return {}
        return {name: limit for name, limit in self.limits.items() if name not in paused}

    def _seconds_until_due(self) -> float:
        tasks = tuple(self.limits)
        if self._job_store.is_ahead(tasks):
            return AHEAD_POLL
        due = self._job_store.next_time(tasks, within=SAFETY_POLL)
        pause = SAFETY_POLL if due is None else due - self._job_store.now()
        return min(max(pause, 0.001), SAFETY_POLL)


def _is_plain(outcome: Outcome) -> bool:
    """Whether a job has completed and leaves nothing to write but what it returned."""
    more = outcome.followups or outcome.found or outcome.state_entries or outcome.host_delays
    return outcome.outcome == "completed" and not more


_outdated = threading.Lock()


def end_outdated(error: NewerFormat) -> NoReturn:
    """End this worker process at once, because it can store no outcome any more.

    The migration has marked it as stopping. So its jobs run again, uncharged.
    """
    if not _outdated.acquire(blocking=False):
        threading.Event().wait()  # until the thread that came first ends the process
    logger.critical("this worker ends: %s", error)
    logging.shutdown()
    os._exit(1)
