"""Detect outages of the machine, a full disk or no network, and pause the affected tasks.

A job that fails in an outage is released uncharged, and not claimed again until the outage is
over: free space is measured, and the network is probed by letting one job at a time try.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from paise2nb.core import processes
from paise2nb.core.disks import full_disk, is_disk_full, is_offline, may_be_full
from paise2nb.jobs.models import Claim
from paise2nb.jobs.store import JobStore

logger = logging.getLogger("paise2nb.workers.queue")

MIN_UNREACHABLE_HOSTS = 3  # in a row: then the network is at fault, not the hosts
MIN_PROBE_SECONDS = 0.5  # between two jobs that probe the network, doubled each time
MAX_PROBE_SECONDS = 15.0
DISK_CHECK_SECONDS = 0.1  # between two measurements of free space
MAX_UNCHARGED_RUNS = 20  # of one job; further ones are charged


class OutageMonitor:
    """Decides which tasks a worker process does not claim during an outage.

    Args:
        job_store: Where the reason is stored, for ``status``.
        write_dirs: The directories that jobs write to.
    """

    def __init__(self, job_store: JobStore, write_dirs: Iterable[Path]) -> None:
        self._job_store = job_store
        self._write_dirs = list(write_dirs)
        self._lock = threading.Lock()
        self._disk_full, self._check_disk_at = False, float("-inf")  # monotonic
        self._unreachable: dict[str, Claim] = {}  # host -> failed job, since the last success
        self._to_refund: list[Claim] = []  # failures charged before the outage was detected
        self._offline: set[str] = set()  # the tasks that failed because there was no network
        self._probe_seconds = MIN_PROBE_SECONDS
        self._probe_at = 0.0  # monotonic

    def paused_tasks(self) -> set[str] | None:
        """Return the tasks that may not be claimed now, or None for all tasks.

        Without a network, one caller from time to time gets no paused tasks: its job is the probe.
        """
        if self._is_disk_full():
            return None
        self._refund()
        with self._lock:
            if not self._offline or time.monotonic() < self._probe_at:
                return set(self._offline)
            self._probe_at = time.monotonic() + self._probe_seconds
            self._probe_seconds = min(self._probe_seconds * 2, MAX_PROBE_SECONDS)
            return set()

    def is_outage(self, claim: Claim, error: BaseException) -> bool:
        """Whether an outage made this job fail. Such a failure is not charged to the job."""
        if claim.run - claim.attempt >= MAX_UNCHARGED_RUNS:
            return False
        if is_disk_full(error) or (may_be_full(error) and full_disk(self._write_dirs)):
            # Until the next measurement: otherwise the job could run again at once, many times.
            self._disk_full, self._check_disk_at = True, time.monotonic() + DISK_CHECK_SECONDS
            return True
        if not is_offline(error):
            self.recovered(claim.task)
            return False
        with self._lock:
            self._unreachable[_host(claim)] = claim
            if claim.task in self._offline:
                return True
            if len(self._unreachable) < MIN_UNREACHABLE_HOSTS:
                return False
            self._to_refund += [c for c in self._unreachable.values() if c.id != claim.id]
            self._offline.add(claim.task)
            self._probe_at = time.monotonic() + self._probe_seconds
            reason = f"no network: {MIN_UNREACHABLE_HOSTS} hosts in a row can't be reached"
            text = f"{reason}; a job tries again from time to time"
            # Within the lock: another thread's success must not be written before it.
            self._job_store.put("paused", json.dumps([processes.identity(os.getpid()), text]))
        logger.warning("%s; jobs of task %s wait, but for one that probes it", reason, claim.task)
        return True

    def recovered(self, task: str) -> None:
        """Record that a job of a task ran without a network failure."""
        if not self._unreachable and not self._offline:
            return
        with self._lock:
            self._unreachable.clear()
            was_offline = task in self._offline
            self._offline.discard(task)
            self._probe_seconds = MIN_PROBE_SECONDS
            if was_offline:
                self._job_store.put("paused", "null")
        if was_offline:
            logger.info("the network is back")

    def _is_disk_full(self) -> bool:
        now = time.monotonic()
        if now >= self._check_disk_at:
            self._disk_full = bool(full_disk(self._write_dirs))
            self._check_disk_at = now + DISK_CHECK_SECONDS
        return self._disk_full

    def _refund(self) -> None:
        """Refund failures, once the threads that ran those jobs have written their outcomes."""
        if self._to_refund:
            with self._lock:
                claims, self._to_refund = self._to_refund, []
            unwritten = self._job_store.refund(claims)
            with self._lock:
                self._to_refund += unwritten


def _host(claim: Claim) -> str:
    """Return the host in the first argument of a job, or that argument if it has none."""
    first = str((json.loads(claim.args) or [""])[0])
    try:
        return urlsplit(first).hostname or first
    except ValueError:
        return first
