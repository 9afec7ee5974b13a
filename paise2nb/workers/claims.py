"""How the threads of a worker process claim their next job, and wait if there is none."""

import logging
import math
import threading
import time
from collections.abc import Callable

from paise2nb.core.errors import PaiseError, StorageError
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs.models import Claim, Limits, Outcome, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.workers.outage import OutageMonitor

logger = logging.getLogger("paise2nb.worker")

SAFETY_POLL = 1.0  # seconds: the longest idle wait, in case a wakeup is lost
# Seconds for which fetches wait for extractions, so that these do not run out of fetched pages:
# see `jobs.execution.MOST_AHEAD` and tests.benchmarks.folder.
AHEAD_POLL = 0.05
# Scheduling of the threads of one process. `python -m tests.benchmarks.queue`, drain with one
# process and four threads, is more than twice as fast with it.
SHORT_JOB = 0.0005  # seconds: while a thread's job is younger than this, no other thread claims
SPIN_SECONDS = 0.001  # between two checks of that
MAX_SLOT_CHECK_SECONDS = 15.0  # between two checks for host slots that no other pool uses
_RELEASED = Outcome("released", "queued")


class IdleWaiter:
    """Lets the threads of a process wait for work.

    Attributes:
        calls: How often a wait was ended. A thread reads it before it looks for work and passes it
            to `wait`, so that it misses no wakeup in between.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.calls = 0

    def wait(self, seconds: float, calls: int) -> None:
        """Wait at most that long; not at all if a wait was ended since `calls` was read."""
        with self._condition:
            if calls == self.calls:
                self._condition.wait(seconds)

    def wake(self, threads: int = 1) -> None:
        """Wake that many threads."""
        with self._condition:
            self.calls += 1
            self._condition.notify(threads)


class _Local(threading.local):
    """The state of one thread: the claim to run next, and an outcome that is not written yet."""

    next_claim: Claim | None = None
    unwritten: tuple[Claim, Outcome] | None = None


class Claims:
    """The claims of one worker process, shared by its threads.

    Args:
        parts: The job store, and the plugins, which are reloaded while the worker runs.
        notifier: Wakes the other processes.
        register_tasks: Called when plugins may have changed.

    Attributes:
        worker: The worker to claim for; None until the process is ready to claim.
        limits: The tasks to claim, with their limits.
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
        self.outages: OutageMonitor | None = None
        self.stopping = False
        self._local = _Local()
        self._claiming = threading.Lock()  # only one thread at a time looks for work
        self._started: dict[int, float] = {}  # thread -> when (monotonic) its job started
        self._check_slots_at = 0.0  # monotonic
        self._slot_check_seconds = SAFETY_POLL

    def stop(self) -> None:
        """Claim no more jobs: the worker drains."""
        self.stopping = True
        self.idle_waiter.wake(threading.active_count())  # all: no more threads than that wait

    def next(self) -> Claim | None:
        """Claim a job, or wait for one. Return None if there was none within `SAFETY_POLL`."""
        self._write_unwritten()
        calls = self.idle_waiter.calls
        if self.stopping or self.worker is None:
            return None
        claim, self._local.next_claim = self._local.next_claim, None
        if claim is None:
            self._started.pop(threading.get_ident(), None)
            pause = SAFETY_POLL
            if self._claiming.acquire(blocking=False):
                try:
                    claim = self._claim(self.worker)
                    if claim is None and not self._is_paused():
                        pause = self._seconds_until_due()
                finally:
                    self._claiming.release()
            if claim is None:
                self.idle_waiter.wait(pause, calls)
                return None
        if not self._claiming.locked():
            self.idle_waiter.wake()  # there may be more work: wake the next thread
        # Checked again here: a plugin may have been saved just before this job was enqueued.
        if not self._plugins_are_current() or claim.task not in self._parts.plugins.tasks:
            self._job_store.end(claim, _RELEASED)
            return None
        self._started[threading.get_ident()] = time.monotonic()
        return claim

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Write an outcome and claim the next job in the same transaction.

        If the outcome can't be written now, it is written before this thread claims anything else.
        """
        thread = threading.get_ident()
        self._started[thread] = math.inf
        try:
            self._write(claim, outcome, self._unpaused_limits())
        except StorageError:
            self._started.pop(thread, None)
            logger.exception("the outcome of job %s can't be written now", claim.id)
            self._local.unwritten = (claim, outcome)

    def release_next(self) -> None:
        """Release the job that this thread has claimed but not started."""
        claim, self._local.next_claim = self._local.next_claim, None
        if claim is not None:
            self._job_store.end(claim, _RELEASED)

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

    def _write(self, claim: Claim, outcome: Outcome, limits: dict[str, Limits]) -> None:
        accepted, next_claim = self._job_store.end(claim, outcome, self.worker, limits)
        self._local.next_claim = next_claim
        if not accepted:
            logger.warning("the outcome of job %s is refused: it was taken back", claim.id)
        elif outcome.followups:
            self.idle_waiter.wake()
            self._notifier.notify()

    def _write_unwritten(self) -> None:
        if self._local.unwritten is not None:
            try:
                self._write(*self._local.unwritten, {})
            except StorageError:
                time.sleep(SAFETY_POLL)
                raise
            self._local.unwritten = None

    def _claim(self, worker: Worker) -> Claim | None:
        """Claim a job, unless another thread will claim its own next job in a moment.

        For that thread, the next of many short jobs is cheap. A second thread would make it wait
        for the interpreter's lock and the job store's: four threads would do less than one.
        """
        while self._runs_short_job():
            if self.stopping:
                return None
            time.sleep(SPIN_SECONDS)
        # The claim checks pauses, too. Here that saves a transaction.
        if self._is_paused() or not self._plugins_are_current():
            return None
        limits = self._unpaused_limits()
        tasks = tuple(limits)
        if limits and (self._job_store.claimable(tasks) or self._take_unused_slots(tasks)):
            return self._job_store.claim(worker, limits)
        return None

    def _is_paused(self) -> bool:
        """Whether a user has paused the pool of this worker, or all pools."""
        assert self.worker is not None
        return not self._job_store.paused_pools().isdisjoint({"", self.worker.pool})

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
