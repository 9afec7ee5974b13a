"""How the threads of a worker process come to their next job, and wait when there is none."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping

from paise2nb.core.errors import PaiseError, StorageError
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs import Claim, Limits, Outcome, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.workers.outage import OutageMonitor

logger = logging.getLogger("paise2nb.worker")

SAFETY_POLL = 1.0  # seconds: an idle wait never lasts longer, whether a wakeup arrives or not
# Scheduling of the threads of one process; `python -m tests.benchmarks.queue`, drain with one
# process and four threads, is more than twice as fast with it.
SHORT_JOB = 0.0005  # seconds: while a thread's job is younger than this, no other thread claims
SPIN_SECONDS = 0.001  # between two checks whether it is
LONGEST_SLOT_CHECK = 15.0  # seconds between two checks for host slots that no other pool uses


class IdleWaiter:
    """How a thread waits when there is nothing to claim.

    Attributes:
        calls: how often a wait was ended. A thread reads it before it looks for work, and does not
            wait if it has changed since: no wakeup is missed in between.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.calls = 0

    def wait(self, seconds: float, calls: int) -> None:
        """Wait at most that long, unless a wait was ended since `calls` was read."""
        with self._condition:
            if calls == self.calls:
                self._condition.wait(seconds)

    def end_one(self) -> None:
        """Wake one thread."""
        with self._condition:
            self.calls += 1
            self._condition.notify()

    def end_all(self) -> None:
        """Wake every thread."""
        with self._condition:
            self.calls += 1
            self._condition.notify_all()


class Claims:
    """The claims of one worker process, for all its threads.

    Args:
        parts: the job store, and the plugins, which running workers load again.
        notifier: wakes the other processes.
        register_tasks: called when plugins may have changed.
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
        self._stopping = threading.Event()
        self._local = threading.local()
        self._looking = threading.Lock()  # one thread at a time looks for work
        self._began: dict[int, float] = {}  # by thread: when (monotonic) its job began
        self._check_slots_at = 0.0  # monotonic
        self._slot_check_pause = SAFETY_POLL

    @property
    def stopping(self) -> bool:
        """Whether nothing more is claimed."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Claim nothing more: the worker drains."""
        self._stopping.set()
        self.idle_waiter.end_all()

    def next(self) -> Claim | None:
        """Claim a job, or wait for one; None if there was none within `SAFETY_POLL` seconds."""
        self._write_unwritten()
        calls = self.idle_waiter.calls
        if self.stopping or self.worker is None:
            return None
        claim = self._take_next_claim()
        if claim is None:
            self._began.pop(threading.get_ident(), None)
            pause = SAFETY_POLL
            if self._looking.acquire(blocking=False):
                try:
                    claim = self._look(self.worker)
                    if claim is None:
                        pause = self._seconds_to_wait()
                finally:
                    self._looking.release()
            if claim is None:
                self.idle_waiter.wait(pause, calls)
                return None
        if not self._looking.locked():
            self.idle_waiter.end_one()  # there may be more: the next thread looks
        # Plugins are checked again here: one may have been saved just before this job was enqueued.
        if not self.plugins_are_current() or claim.task not in self._parts.plugins.tasks:
            self._job_store.end(claim, Outcome("released", "queued"))
            return None
        self._began[threading.get_ident()] = time.monotonic()
        return claim

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Write how an execution ended, and claim the next job in the same transaction.

        An outcome that can't be written now is written before this thread claims anything else.
        """
        thread = threading.get_ident()
        self._began[thread] = math.inf
        try:
            self._write(claim, outcome, self._open_limits())
        except StorageError:
            self._began.pop(thread, None)
            logger.exception("the outcome of job %s can't be written now", claim.id)
            self._local.unwritten = (claim, outcome)

    def release_next(self) -> None:
        """Return the job that this thread has claimed but not begun."""
        claim = self._take_next_claim()
        if claim is not None:
            self._job_store.end(claim, Outcome("released", "queued"))

    def plugins_are_current(self) -> bool:
        """Load plugins that have changed; where that takes a fresh process, recycle this one."""
        try:
            if self._parts.plugins.refresh():
                self._register_tasks()
                return True
            reason = "plugins have changed"
        except PaiseError as error:
            reason = str(error)
        self.recycle(reason)
        return False

    def recycle(self, reason: str) -> None:
        """Finish what runs and end this process: the supervisor starts a fresh one at once."""
        if not self.stopping:
            logger.info("this worker is replaced by a fresh process: %s", reason)
            self.stop()
            self._notifier.notify()  # the main thread of this process, too

    def _write(self, claim: Claim, outcome: Outcome, limits: Mapping[str, Limits]) -> None:
        accepted, next_claim = self._job_store.end(claim, outcome, self.worker, dict(limits))
        self._local.next_claim = next_claim
        if not accepted:
            logger.warning("the outcome of job %s is refused: it was taken back", claim.id)
        elif outcome.followups:
            self.idle_waiter.end_one()
            self._notifier.notify()

    def _write_unwritten(self) -> None:
        unwritten: tuple[Claim, Outcome] | None = getattr(self._local, "unwritten", None)
        if unwritten is not None:
            try:
                self._write(*unwritten, {})
            except StorageError:
                self._stopping.wait(SAFETY_POLL)
                raise
            self._local.unwritten = None

    def _look(self, worker: Worker) -> Claim | None:
        """Claim a job, unless another thread will be back for it at once.

        The next of many short jobs costs that thread little; each further thread makes it wait for
        the interpreter's lock and the job store's, so that four of them do less than one.
        """
        while self._is_spinning():
            if self.stopping:
                return None
            time.sleep(SPIN_SECONDS)
        if not self.plugins_are_current():  # more tasks may be known from now on
            return None
        limits = self._open_limits()
        tasks = tuple(limits)
        if limits and (self._job_store.claimable(tasks) or self._takes_unused_slots(tasks)):
            return self._job_store.claim(worker, limits)
        return None

    def _is_spinning(self) -> bool:
        """Whether a thread has only just begun its job, or writes the outcome of one."""
        since = time.monotonic() - SHORT_JOB
        return any(began > since for began in list(self._began.values()))

    def _takes_unused_slots(self, tasks: tuple[str, ...]) -> bool:
        """Take host slots that no other pool uses; checked less often while there are none."""
        if time.monotonic() < self._check_slots_at:
            return False
        self._check_slots_at = time.monotonic() + self._slot_check_pause
        found = self._job_store.take_unused_slots(tasks)
        pause = SAFETY_POLL if found else 2 * self._slot_check_pause
        self._slot_check_pause = min(pause, LONGEST_SLOT_CHECK)
        return found

    def _open_limits(self) -> dict[str, Limits]:
        """The tasks that may be claimed now, with their limits."""
        paused = self.outages.paused_tasks() if self.outages else set()
        if paused is None or self.stopping:
            return {}
        return {name: limit for name, limit in self.limits.items() if name not in paused}

    def _take_next_claim(self) -> Claim | None:
        claim: Claim | None = getattr(self._local, "next_claim", None)
        self._local.next_claim = None
        return claim

    def _seconds_to_wait(self) -> float:
        due = self._job_store.next_time(tuple(self.limits), within=SAFETY_POLL)
        if due is None:
            return SAFETY_POLL
        return min(max(due - self._job_store.now(), 0.001), SAFETY_POLL)
