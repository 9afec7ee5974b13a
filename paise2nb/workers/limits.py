"""The limits of jobs: when the supervisor kills a worker, and which job is the reason."""

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from paise2nb.core import processes
from paise2nb.jobs.batch import ExecutionKey, execution_key
from paise2nb.jobs.models import HERE, IMMEDIATE
from paise2nb.jobs.store import JobStore

logger = logging.getLogger("paise2nb.supervisor")

SHORTEST_WAIT, LONGEST_WAIT = 0.25, 10.0  # seconds
STUCK_SECONDS = 2.0  # after which a worker should have released the jobs that wait in it
# After which a worker that locks the job store is killed: more than its longest transactions take,
# less than other processes wait.
LOCK_SECONDS = 20.0


class KillReason(NamedTuple):
    """Why a worker is killed.

    Attributes:
        job: The job that exceeded its limits or was cancelled; None if it is not known which one.
        outcome: ``timeout``, ``memory`` or ``cancelled``.
        text: The reason in one line.
    """

    job: int | None
    outcome: str
    text: str


def kill_reason(
    job: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    memory: float,
    *,
    ran: float,
    is_late: bool,
) -> KillReason | None:
    """Return why a worker is killed for a job, None if it is not.

    Args:
        job: One of the jobs of the worker.
        jobs: All of them.
        memory: MB that the worker uses.
        ran: Seconds since the job was first seen to run.
        is_late: Whether it has had its time to end by itself, if it was cancelled.
    """
    if job["state"] != "running":
        # It was cancelled. If it is queued again, it has no time and no grace period any more.
        text = f"job {job['id']} was cancelled"
        return KillReason(job["id"], "cancelled", text) if is_late else None
    if job["timeout"] and ran > job["timeout"]:
        text = f"timeout: ran longer than {job['timeout']:g} s"
        # Jobs that were claimed together are run one after another, and ended together.
        together = [other for other in jobs if other["started_at"] == job["started_at"]]
        return KillReason(job["id"] if len(together) == 1 else None, "timeout", text)
    if job["memory_mb"] and memory > job["memory_mb"]:
        text = f"memory: {memory:,.0f} MB, more than {job['memory_mb']:g} MB"
        return KillReason(job["id"] if len(jobs) == 1 else None, "memory", text)
    return None


class LimitEnforcer:
    """Kills workers that exceed a limit. It only reads the job store.

    Args:
        job_store: That of the supervisor.
        grace: Seconds within which a cancelled job may end by itself.

    Attributes:
        kills: Why workers were killed, by process; their jobs have yet to be rescued.
        jobs_run: Whether workers have jobs, as of the last check.
        stuck: By worker its executions, if jobs wait in it for one that takes long: that one blocks
            the other threads of its process, which would have put them back.
        near_memory_limit: Whether a job uses more than half of its memory, which may grow fast.
    """

    def __init__(self, job_store: JobStore, grace: float) -> None:
        self._job_store = job_store
        self._grace = grace
        self._running_since: dict[tuple[int, int], float] = {}  # execution -> first seen, monotonic
        self.kills: dict[str, KillReason] = {}
        self.stuck: dict[int, set[ExecutionKey]] = {}
        self.jobs_run = self.near_memory_limit = False

    def check(self) -> None:
        """Kill each worker with a job that exceeds its limits or was cancelled."""
        claimed = self._job_store.claimed()
        # Measured here and not from started_at, because the wall clock may be set.
        now, before = time.monotonic(), self._running_since
        self._running_since = {
            execution: before.get(execution, now)
            for execution in ((job["id"], job["run"]) for job in claimed)
        }
        self.jobs_run = bool(claimed)
        self.near_memory_limit, self.stuck = False, {}
        for worker in self._job_store.workers() if claimed else ():
            held = [job for job in claimed if job["worker"] == worker["id"]]
            if not held or not self._may_kill(worker):
                continue
            jobs = self._job_store.begun(worker["id"], held)
            since = min(self._running_since[job["id"], job["run"]] for job in held)
            if len(jobs) < len(held) and now - since > STUCK_SECONDS:
                self.stuck[worker["id"]] = {*map(execution_key, held)}
            memory = processes.family_mb(worker["pid"])
            limits = (job["memory_mb"] or float("inf") for job in jobs)
            self.near_memory_limit |= memory > min(limits, default=float("inf")) / 2
            reasons = (
                kill_reason(
                    job,
                    jobs,
                    memory,
                    ran=now - self._running_since[job["id"], job["run"]],
                    is_late=self._job_store.now() - (job["finished_at"] or 0.0) >= self._grace,
                )
                for job in jobs
            )
            if reason := next(filter(None, reasons), None):
                self._kill(worker, reason)

    def end_lock(self, pid: int | None, seconds: float) -> None:
        """Kill a worker that locks the job store: another of its threads may have stopped it.

        Args:
            pid: The process that locks it, if known. It may be no worker.
            seconds: For how long.
        """
        for worker in self._job_store.workers():
            if worker["pid"] == pid and self._may_kill(worker):
                held = [job for job in self._job_store.claimed() if job["worker"] == worker["id"]]
                jobs = self._job_store.begun(worker["id"], held)
                job = jobs[0]["id"] if len(jobs) == 1 else None
                text = f"timeout: it locked the job store for {seconds:.0f} s"
                self._kill(worker, KillReason(job, "timeout", text))

    def _may_kill(self, worker: Mapping[str, Any]) -> bool:
        mine = worker["pool"] != IMMEDIATE and worker["presence"] == HERE
        return mine and worker["process"] not in self.kills

    def _kill(self, worker: Mapping[str, Any], reason: KillReason) -> None:
        self.kills[worker["process"]] = reason
        about = {"worker": worker["pid"], "job": reason.job}
        logger.warning("worker %s is killed: %s", worker["pid"], reason.text, extra=about)
        processes.send(worker["process"], signal.SIGKILL)


class WriteWait:
    """Bounds how long the supervisor waits to write, so that it checks limits meanwhile.

    The next step repeats a write that has failed. The wait grows with the time of the lock, so that
    in a long queue of writers this process has its turn, too.

    Args:
        job_store: That of the supervisor.
        limits: End the lock of a worker.
    """

    def __init__(self, job_store: JobStore, limits: LimitEnforcer) -> None:
        self._database = job_store.database
        self._limits = limits
        # Monotonic.
        self._failing_since: float | None = None
        self._holder: tuple[int | None, float] = (None, 0.0)  # its pid, and since when

    def done(self) -> None:
        """Wait for the shortest time again: all was written."""
        self._failing_since = None
        self._database.wait_at_most(SHORTEST_WAIT)

    def failed(self, pid: int | None) -> float:
        """Wait longer; a process had locked the job store for too long.

        Args:
            pid: The process, if known.

        Returns:
            Seconds since a write first failed.
        """
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if self._failing_since == now or self._holder[0] != pid:
            self._holder = pid, now
        if (seconds := now - self._holder[1]) >= LOCK_SECONDS:
            self._limits.end_lock(pid, seconds)
        seconds = now - self._failing_since
        self._database.wait_at_most(min(max(SHORTEST_WAIT, seconds / 4), LONGEST_WAIT))
        return seconds
