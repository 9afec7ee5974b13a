"""When the machine is at fault, not the job: a full disk, or no network. The queue pauses.

What fails for such a reason goes back uncharged, and is not claimed again until the reason has
gone: a disk is asked for its free space, a network by letting one job at a time try.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from paise2nb.core.disks import full_disk, is_disk_full, is_offline, may_be_full
from paise2nb.jobs import Claim, JobStore

logger = logging.getLogger("paise2nb.workers.queue")

HOSTS_IN_A_ROW = 3  # unreachable ones that make it the network's fault and not theirs
PROBE_SECONDS = (0.5, 15.0)  # between two jobs that try the network: at first, at most
LOOK_SECONDS = 0.1  # between two looks whether the disk is full
MOST_FREE_RUNS = 20  # executions that a job gets uncharged; then it is charged like any other


class OutageMonitor:
    """What keeps one worker process from claiming some jobs now. For all its threads.

    Args:
        table: where the reason is noted, for ``status``.
        places: the directories that jobs write to.
    """

    def __init__(self, job_store: JobStore, write_dirs: Iterable[Path]) -> None:
        self._job_store = job_store
        self._write_dirs = list(write_dirs)
        self._lock = threading.Lock()
        self._full, self._look_at = False, float("-inf")  # monotonic
        self._suspects: dict[str, Claim] = {}  # by host: failures in a row that may be no fault
        self._owed: list[Claim] = []  # failures that were charged before the network was suspected
        self._offline: set[str] = set()  # the tasks that need a network which is not there
        self._pause = PROBE_SECONDS[0]
        self._probe_at = 0.0  # monotonic

    def paused_tasks(self) -> set[str] | None:
        """The tasks that may not be claimed now; None means all of them.

        Where the network is gone, one caller now and then is let through to try.
        """
        if self._is_full():
            return None
        self._refund_owed()
        with self._lock:
            if not self._offline or time.monotonic() < self._probe_at:
                return set(self._offline)
            self._probe_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, PROBE_SECONDS[1])
            return set()

    def _is_full(self) -> bool:
        now = time.monotonic()
        if now >= self._look_at:
            self._full, self._look_at = bool(full_disk(self._write_dirs)), now + LOOK_SECONDS
        return self._full

    def is_outage(self, claim: Claim, error: BaseException) -> bool:
        """Whether this failure is the machine's fault: then the job goes back uncharged."""
        if claim.run - claim.attempt >= MOST_FREE_RUNS:
            return False
        if is_disk_full(error) or (may_be_full(error) and full_disk(self._write_dirs)):
            return True
        if not is_offline(error):
            self.recovered(claim.task)
            return False
        with self._lock:
            self._suspects[_host(claim)] = claim
            if claim.task in self._offline:
                return True
            if len(self._suspects) < HOSTS_IN_A_ROW:
                return False
            self._owed += [c for c in self._suspects.values() if c.id != claim.id]
            self._offline.add(claim.task)
            self._probe_at = time.monotonic() + self._pause
        reason = f"no network: {HOSTS_IN_A_ROW} hosts in a row can't be reached; it is tried again"
        logger.warning("%s now and then, and jobs of task %s wait", reason, claim.task)
        self._job_store.put("paused", json.dumps([os.getpid(), reason]))
        return True

    def _refund_owed(self) -> None:
        """Give back what was charged, once the threads that ran those jobs have written it."""
        if self._owed:
            with self._lock:
                owed, self._owed = self._owed, []
            unwritten = self._job_store.refund(owed)
            with self._lock:
                self._owed += unwritten

    def recovered(self, task: str) -> None:
        """A job of that task has got through (or has failed by itself): there is a network."""
        if not self._suspects and not self._offline:
            return
        with self._lock:
            self._suspects.clear()
            was_offline = task in self._offline
            self._offline.discard(task)
            self._pause = PROBE_SECONDS[0]
        if was_offline:
            logger.info("the network is back")
            self._job_store.put("paused", "null")


def _host(claim: Claim) -> str:
    """What the job reaches for: the host of its first argument, or that argument."""
    first = str((json.loads(claim.args) or [""])[0])
    try:
        return urlsplit(first).hostname or first
    except ValueError:
        return first
