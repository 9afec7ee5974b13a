"""The supervisor starts the worker processes of one job store and watches over them.

It runs no job and loads no plugin, so that no job can crash it. It rescues the jobs of dead
workers, kills workers with a job that exceeds its limits, and stops all when there is no work.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.core.disks import is_disk_full
from paise2nb.core.errors import (
    DatabaseLocked,
    DiskFull,
    NewerFormat,
    PaiseError,
    StorageError,
    WorkersError,
)
from paise2nb.core.sqlite import BUSY_SECONDS
from paise2nb.core.wakeup import SUPERVISOR, Listener
from paise2nb.jobs.models import HERE, IMMEDIATE, RUNNING, Outcome
from paise2nb.jobs.retry import CRASH_POLICIES, charge_crash, released, rescue_outcomes
from paise2nb.jobs.store import JobStore
from paise2nb.workers.alerts import AlertMonitor
from paise2nb.workers.cleanup import DailyCleanup
from paise2nb.workers.limits import LimitEnforcer, WriteWait
from paise2nb.workers.logs import LogLimiter, configure_logging, log_path
from paise2nb.workers.service import ServiceManager
from paise2nb.workers.spawn import DRAIN_SECONDS, receive_message, spawn

logger = logging.getLogger("paise2nb.supervisor")

IDLE_TICK = 1.0  # seconds between two steps
BUSY_TICK = 0.25  # while jobs run, to check their limits
MEMORY_TICK = 0.02  # while a job uses more than half of its memory, which may grow fast
# The shortest time between two steps: short jobs send hundreds of wakeups a second, and each step
# takes a millisecond of processor time (tests.benchmarks.folder). An ended worker is seen at once.
DEBOUNCE_SECONDS = 0.1
HEARTBEAT_SECONDS = 3.0  # less than a fifth of LEASE_SECONDS
DATABASE_CHECK_SECONDS = 2.0  # between two checks that the database file is still there
REPORT_SECONDS = 5.0  # between two log records about what a drain waits for
MAX_STARTING = 8  # workers that are not ready yet, failed starts of the last START_WINDOW included
START_WINDOW = 60.0  # seconds


class Supervisor:
    """The one supervisor of a job store.

    Args:
        settings: The resolved settings, which the workers get, too.
        options: ``sizes`` (the number of processes of each pool), ``only`` (whether there are no
            others), ``pools`` (that of each task), ``burst``, ``foreground``, ``drain_timeout``
            (seconds that a drain may take after a signal).
        job_store: The one that the queue's provider has chosen.
    """

    def __init__(self, settings: Settings, options: dict[str, Any], job_store: JobStore) -> None:
        assert settings.data_dir is not None
        self.settings = settings
        self.options = options
        self.data_dir = settings.data_dir
        self.job_store = job_store
        # By process identity:
        self._children: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}  # with their pools
        self._marks: dict[str, str] = {}  # to find what a dead worker has left behind
        self._starting: dict[str, float] = {}  # not ready yet -> started at, failed starts included
        self._limits = LimitEnforcer(job_store, settings.workers.cancel_grace)
        self._writes = WriteWait(job_store, self._limits)
        self._draining: set[str] = set()  # have got SIGTERM
        # All times are monotonic.
        self._ready_at = -START_WINDOW  # when a worker was last seen to be ready
        self._stop_at: float | None = None  # the deadline of a drain
        self._drain_began = False
        self._report_at = 0.0  # the next log record about what a drain waits for
        self._idle_since = time.monotonic()
        self._checked_at = self._heartbeat_at = time.monotonic()
        self._usable = True  # the job store, in the last step
        self._failure: str | None = None  # why the supervisor ended by itself
        self._workers_idle = False  # the workers were stopped because there was no work

    def run(self) -> None:
        """Supervise until stopped or idle. Ctrl-C and SIGTERM drain; a second one ends the drain.

        Raises:
            WorkersError: Another supervisor is running, or the job store can't be used any more.
        """
        stored = self.settings.without_secrets().to_json()
        if not self.job_store.take_supervision(json.dumps(self.options), stored):
            raise WorkersError("workers are running already; show them: paise2 worker status")
        self._writes.done()
        configure_logging(self.data_dir, self.settings.logging)
        as_json = self.settings.logging.format == "json"
        show = self.options["foreground"]
        self._log = LogLimiter(log_path(self.data_dir), show=show, as_json=as_json)
        logger.info("supervisor starts: %s", self.options["sizes"])
        # One that is about to end removes its own socket, not that of the next.
        listener = Listener(self.job_store.path, f"{SUPERVISOR}-{os.getpid()}")
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        previous = {number: signal.signal(number, self._on_signal) for number in signals}
        wakeup = signal.set_wakeup_fd(listener.wake_descriptor, warn_on_full_buffer=False)
        alerts = None
        if self.settings.alerts:
            alerts = AlertMonitor(JobStore(self.job_store.path, durable=False), self.settings)
        service = ServiceManager(self.job_store) if show else None
        done = False
        try:
            while not done:
                done = self._step()
                if service:
                    stopping = self._stop_at is not None
                    service.report(self.options["sizes"], stopping=stopping, progress=self._usable)
                if not done:
                    listener.wait(
                        self._tick(), debounce=MEMORY_TICK if self._starting else DEBOUNCE_SECONDS
                    )
            self._children.clear()
            self._end_left_behind()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, action in previous.items():
                signal.signal(number, action)
            listener.close()
            if alerts is not None:
                alerts.close()
            self.job_store.close()
            logger.info("supervisor stops")
            self._log.check()
        if self._failure and show:  # so that a service manager starts it again
            raise WorkersError(self._failure)

    def _on_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:  # which only ends the wait
            # First the drain begins, and _step sets its deadline; the second time it is over.
            self._stop_at = float("inf") if self._stop_at is None else time.monotonic()

    def _tick(self) -> float:
        draining = self._stop_at is not None
        if not (self._children and (self._limits.jobs_run or self._starting or draining)):
            return IDLE_TICK
        return MEMORY_TICK if self._limits.near_memory_limit else BUSY_TICK

    def _step(self) -> bool:
        """Do everything that is due now. Return whether the supervisor is done."""
        self._log.check()
        try:
            done = self._do_due()
            self._usable = True
            self._writes.done()
            return done
        except NewerFormat as error:
            return self._fail(str(error))
        except DatabaseLocked as error:
            if self._writes.failed(error.pid) >= BUSY_SECONDS and self._usable:
                self._usable = False
                logger.error("the job store can't be used now: %s", error)
        except StorageError as error:
            self._usable = is_disk_full(error)  # which a new start would not change
            logger.exception("the job store can't be used now")
        return False

    def _do_due(self) -> bool:
        # First what only reads: it is a worker over its limits that may lock the job store.
        if time.monotonic() - self._checked_at >= DATABASE_CHECK_SECONDS:
            self._checked_at = time.monotonic()
            try:
                self.job_store.database.check()
            except DatabaseLocked:
                raise
            except StorageError as error:  # no outcome can be stored any more
                return self._fail(str(error))
        self._limits.check()
        if self._stop_at is not None:
            self._keep_deadline()
        if time.monotonic() - self._heartbeat_at >= HEARTBEAT_SECONDS:
            with suppress(DiskFull):  # reported elsewhere
                if not self.job_store.supervisor_heartbeat():
                    return self._fail("another supervisor has taken over")
            self._heartbeat_at = time.monotonic()
        self._reap()
        for worker_id, executions in self._limits.stuck.items():
            with suppress(DiskFull):  # reported elsewhere
                self.job_store.settle(worker_id, executions)
        if self._stop_at is not None:
            return self._drain()
        self._read_options()
        self._enqueue_cleanup()
        if self._is_idle():
            return self._stop_idle()
        self._fill_pools()
        return False

    @cached_property
    def _cleanup(self) -> DailyCleanup:
        return DailyCleanup(self.job_store, self.settings)

    def _enqueue_cleanup(self) -> None:
        self._cleanup.enqueue_if_due(self.options["sizes"])

    def _fail(self, reason: str) -> bool:
        """Kill the workers; the supervisor is done."""
        self._failure = reason
        logger.critical("%s; the workers are killed", reason)
        for name in self._children:
            processes.send(name, signal.SIGKILL)
        return True

    def _drain_workers(self, names: Iterable[str]) -> None:
        """Stop workers, but each only once: a second SIGTERM may hit it while it exits."""
        new = set(names) - self._draining
        if new:
            with suppress(StorageError):  # a full disk, or a lock; `_rescue_jobs` knows it, too
                self.job_store.stopping(new)
        self._draining |= new
        for name in new:
            processes.send(name, signal.SIGTERM)

    # Dead workers ----------------------------------------------------------------------------

    def _reap(self) -> None:
        """Rescue the jobs of dead workers, also of those that an earlier supervisor started."""
        if os.getpid() == 1:  # of a container: it inherits what dead workers have left behind
            processes.reap_orphans(but=[child.pid for _, child in self._children.values()])
        for name, (pool, child) in list(self._children.items()):
            if child.poll() is not None:
                self._record_death(name, pool, child.returncode)
                del self._children[name]
        rows = self.job_store.workers()
        for row in rows:
            if row["process"] in self._children or row["presence"] in RUNNING:
                if row["state"] == "ready" and row["process"] in self._starting:
                    self._ready_at = time.monotonic()
                    self.job_store.set_supervisor(problem=None)
                    self._delete_failed(row["pool"])
                    del self._starting[row["process"]]
            elif row["state"] != "failed":
                self._rescue_jobs(row)
        self._draining &= self._children.keys() | {row["process"] for row in rows}
        self._end_left_behind()  # last, because it takes milliseconds

    def _end_left_behind(self) -> None:
        """Kill the processes that dead workers have left behind."""
        for name in self._marks.keys() - self._children.keys():
            if left := processes.end_marked(self._marks.pop(name)):
                pid = processes.pid_of(name)
                logger.warning("worker %s left %d processes behind; they are killed", pid, left)

    def _record_death(self, name: str, pool: str, status: int) -> None:
        """Log how a worker ended. If it could not start, show the reason in ``worker status``."""
        rows = {row["process"]: row for row in self.job_store.workers()}
        row = rows.get(name)
        if any(row["state"] == "ready" for row in rows.values()):
            self._ready_at = time.monotonic()
        had_started = row is not None and (row["state"] in ("ready", "stopping") or row["jobs"])
        # Something else killed it during its start. That is no problem if others do start.
        killed = status == -signal.SIGKILL and time.monotonic() - self._ready_at < START_WINDOW
        # One that was ready and left between two steps has deleted its row. A failed start has
        # another status.
        if had_started or killed or status == 0:
            self._starting.pop(name, None)
        # It got SIGTERM before it could handle it: from here, or with all processes of a service.
        if status == -signal.SIGTERM:
            self._starting.pop(name, None)
            status = 0
        if name not in self._starting:
            level = logging.WARNING if status else logging.INFO
            pid = processes.pid_of(name)
            text = "worker %s of pool %s ended with status %s"
            logger.log(level, text, pid, pool, status, extra={"worker": pid})
        elif status and self._stop_at is None:
            self._delete_failed(pool, but=name)
            reason = (row and row["error"]) or f"it ended with status {status}"
            problem = f"a worker of pool {pool} can't start: {reason}"
            self.job_store.set_supervisor(problem=problem)
            logger.error(problem)

    def _delete_failed(self, pool: str, but: str | None = None) -> None:
        """Delete the rows of failed starts, except those with a reason that has yet to be read."""
        unread = {but, *self._children}
        for row in self.job_store.workers():
            if row["state"] == "failed" and row["pool"] == pool and row["process"] not in unread:
                self.job_store.rescue_jobs(row["id"], released)

    def _rescue_jobs(self, row: dict[str, Any]) -> None:
        kill = self._limits.kills.get(row["process"])
        policies = self.job_store.get(CRASH_POLICIES)
        state = "stopping" if row["process"] in self._draining else row["state"]
        outcomes = rescue_outcomes(self.settings, policies, {**row, "state": state})

        def decide(job: dict[str, Any], alone: bool) -> Outcome:
            if kill is None:
                return outcomes(job, alone)
            if job["id"] == kill.job and kill.outcome != "cancelled":
                return charge_crash(self.settings, job, kill.outcome, kill.text, policies)
            # Where it is not known which job exceeded the limit, each runs alone next.
            return Outcome("released", "queued", isolated=kill.job is None)

        jobs = self.job_store.rescue_jobs(row["id"], decide)
        self._limits.kills.pop(row["process"], None)
        if jobs:
            gone = f"worker {row['pid']} is {row['presence']}"
            about = {"worker": row["pid"]}
            logger.warning("%s; its jobs %s are taken back", gone, jobs, extra=about)

    # Starting and stopping workers -----------------------------------------------------------

    def _read_options(self) -> None:
        row = self.job_store.supervisor()
        if row is not None:
            before, self.options = self.options, json.loads(row["options"])
            if self.options.get("asked_at") != before.get("asked_at"):  # `worker start`
                self._idle_since, self._workers_idle = time.monotonic(), False

    def _fill_pools(self) -> None:
        """Start the missing workers, and stop those of pools that are not wanted any more."""
        # The relay may have given a job to a machine before it ended; another takes its outcome.
        if self._workers_idle and not (self.job_store.has_work() or self.job_store.leases()):
            return
        self._workers_idle = False
        since = time.monotonic() - START_WINDOW
        self._starting = {name: at for name, at in self._starting.items() if at > since}
        # A stopping worker is replaced at once: it may have a long job to finish.
        rows = self.job_store.workers()
        leaving = {row["process"] for row in rows if row["state"] == "stopping"} | self._draining
        staying = {n: pool for n, (pool, _) in self._children.items() if n not in leaving}
        alive = Counter(staying.values())
        wanted = Counter(self.options["sizes"])
        # Jobs that must run alone need a process with a single thread, until none are left.
        pools = self.settings.workers.pools
        for name in self.job_store.pools_waiting_alone() & wanted.keys() & pools.keys():
            if pools[name].threads > 1:
                wanted[f"{name}:alone"] = 1
        # No more at once than there are cores: the first worker would be ready as late as the last.
        cores = max(2, processes.usable_cores())
        for name, size in wanted.items():
            for _ in range(size - alive[name]):
                starting = len(self._starting.keys() & self._children.keys())
                if starting < cores and len(self._starting) < MAX_STARTING:
                    self._spawn(name)
        busy = {row["process"] for row in rows if row["jobs"]}
        for pool, excess in (alive - wanted).items():  # first those without a job
            members = (name for name in staying if staying[name] == pool)
            self._drain_workers(sorted(members, key=busy.__contains__)[:excess])

    def _spawn(self, pool: str) -> None:
        mark, settings = processes.new_mark(), self.settings.to_json()
        child = spawn("worker", settings, self.job_store.path, self.data_dir, mark, pool=pool)
        name = processes.identity(child.pid) or f"{child.pid}-gone"
        self._marks[name] = mark
        self._children[name] = (pool, child)
        self._starting[name] = time.monotonic()

    def _is_idle(self) -> bool:
        """Whether to stop the workers: in a burst when all is done, else after idle_exit."""
        if self.options["burst"]:
            return not self._starting and not self._has_unfinished()
        if self._limits.jobs_run or self._starting or self.job_store.has_work():
            self._idle_since = time.monotonic()
        limit = self.settings.workers.idle_exit
        if self.options["foreground"] or not limit:
            return False
        return time.monotonic() - self._idle_since >= limit

    def _has_unfinished(self) -> bool:
        """Whether work is left that a burst waits for: of a named pool, its own."""
        if not self.options["only"]:
            return self.job_store.busy() > 0
        pools, sizes = self.options["pools"], self.options["sizes"]
        return any(pools.get(task) in sizes for task in self.job_store.unfinished_tasks(None))

    def _stop_idle(self) -> bool:
        """Stop the workers, and then the supervisor unless a job is due later or has just come."""
        burst = self.options["burst"]
        self._workers_idle = True
        if self._children:
            if not self._draining.issuperset(self._children):
                logger.info("no work: the workers stop")
            self._drain_workers(self._children)
            return False
        if not burst and (self.settings.alerts or self.job_store.next_time() is not None):
            return False
        state = "stopped" if burst else "idle"
        return self.job_store.leave_supervision(state, unless_ready=not burst)

    def _keep_deadline(self) -> None:
        """Begin a drain, in which the workers finish their jobs, and end it at its deadline."""
        assert self._stop_at is not None
        if not self._drain_began:  # two signals may have come since the last step
            self._drain_began = True
            self._read_options()
            typed = self.options.get("drain_timeout")
            seconds = self.options.get("stop_seconds", DRAIN_SECONDS if typed is None else typed)
            logger.info("draining for at most %g s", seconds)
            self._drain_workers(self._worker_processes())
            deadline = time.monotonic() + seconds
            if self._stop_at == float("inf"):  # and the second one may have come just now
                self._stop_at = deadline
        if time.monotonic() >= self._stop_at:
            for name in self._worker_processes():
                processes.send(name, signal.SIGKILL)

    def _drain(self) -> bool:
        """Show what the drain waits for. Return whether all workers have ended."""
        assert self._stop_at is not None
        row = self.job_store.supervisor()
        if row is not None and row["state"] != "stopping":
            self.job_store.set_supervisor(state="stopping")
        if time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + REPORT_SECONDS
            if jobs := [f"{job['id']} ({job['task']})" for job in self.job_store.claimed()]:
                left = max(self._stop_at - time.monotonic(), 0.0)
                logger.info("waiting at most %.0f s for jobs %s", left, ", ".join(jobs))
        living = [name for name in self._worker_processes() if processes.alive(name)]
        if not living:
            self._reap()  # those that died since the last step: only this process knows how
            if self._children:
                return False  # a thread of theirs is still ending; the next step reaps them
            self.job_store.database.wait_at_most(BUSY_SECONDS)  # no worker needs a check any more
            with suppress(StorageError):  # a full disk; without a process the row means the same
                self.job_store.leave_supervision("stopped", unless_ready=False)
            return True
        return False

    def _worker_processes(self) -> set[str]:
        rows = [row for row in self.job_store.workers() if row["pool"] != IMMEDIATE]
        return {row["process"] for row in rows if row["presence"] == HERE} | self._children.keys()


def main() -> None:
    """Run the supervisor in a process of its own."""
    settings, received = receive_message()
    try:
        path, host_delay = Path(received["job_store"]), settings.fetch.host_delay
        job_store = JobStore(path, durable=False, host_delay=host_delay)
        Supervisor(settings, received["options"], job_store).run()
    except PaiseError as error:
        sys.exit(str(error))
