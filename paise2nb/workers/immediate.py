"""Immediate mode: the process that enqueues a job also claims and runs it.

It uses the same job store and the same executor as workers. Huey's own immediate mode would use a
storage in memory, and run follow-up jobs before their parent's outcome is written.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from paise2nb.config.settings import Settings
from paise2nb.jobs.models import IMMEDIATE, RUNNING, Claim, Limits, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import CRASH_POLICIES, rescue_outcomes
from paise2nb.jobs.store import JobStore

POLL_SECONDS = 1.0  # the longest wait for a retry or for another process


class _Local(threading.local):
    stack: tuple[int, ...] = ()  # the jobs that this thread runs, one inside the other


class ImmediateRunner:
    """Runs jobs in this process.

    Args:
        parts: The job store, and the parts that tasks use.
        run: Runs a claimed job and writes its outcome.
    """

    def __init__(self, parts: Parts, run: Callable[[Claim], None]) -> None:
        self._parts = parts
        self._job_store = parts.job_store
        self._run = run
        self._worker: Worker | None = None
        self._local = _Local()
        self._running: set[int] = set()  # the jobs that run in any thread of this process
        self._has_orphaned_claims = False

    def run_tree(self, root: int) -> None:
        """Run the jobs of a tree until none is left, including their retries."""
        while True:
            self.run_ready(root)
            if self._job_store.unfinished_tasks([root]).isdisjoint(self._limits()):
                return
            if self._runs_inside(root):
                return
            # A retry is due later, or another process runs a job, or died with a host slot.
            rescue_orphans(self._job_store, self._parts.settings)
            due = self._job_store.next_time()
            pause = POLL_SECONDS if due is None else due - self._job_store.now()
            time.sleep(min(max(pause, 0.001), POLL_SECONDS))

    def run_ready(self, root: int | None = None) -> None:
        """Run the jobs that may start now, of one tree or of all."""
        if self._worker is None or self._worker.pid != os.getpid():  # a forked child is another
            rescue_orphans(self._job_store, self._parts.settings)
            self._worker = self._job_store.register(IMMEDIATE, 1, "busy")
        worker, limits = self._worker, self._limits()
        outer = self._local.stack
        try:
            if self._has_orphaned_claims:
                self._release_orphaned_claims(worker)
            for claim in self._claims(worker, limits, root):
                self._local.stack = (*outer, claim.id)
                self._running.add(claim.id)
                self._run(claim)
                self._running.discard(claim.id)
                self._local.stack = outer
        except BaseException:
            # An interrupt may come at any moment, after a claim or while an outcome is written.
            self._has_orphaned_claims = True
            self._running.difference_update(self._local.stack[len(outer) :])
            self._local.stack = outer
            self._release_orphaned_claims(worker)
            raise

    def _claims(
        self, worker: Worker, limits: dict[str, Limits], root: int | None
    ) -> Iterator[Claim]:
        """Claim one job after the other until none may start, of one tree or of all."""
        claim = partial(self._job_store.claim, worker, limits)
        while (claimed := claim(tree=root)) is not None:
            yield claimed
            # Each with the parts of its page. To search the whole tree for each claim would make
            # the time of a large folder grow with the square of its files.
            for job_id in [] if root is None else self._job_store.ready_in_tree(root):
                while (claimed := claim(tree=job_id, page=job_id)) is not None:
                    yield claimed

    def _limits(self) -> dict[str, Limits]:
        """Return the tasks that are not paused, with their limits."""
        parts, paused = self._parts, self._job_store.paused_pools()
        if "" in paused:
            return {}
        limits = parts.limits()
        return {name: limit for name, limit in limits.items() if parts.pool_of(name) not in paused}

    def _release_orphaned_claims(self, worker: Worker) -> None:
        """Release the jobs that this process has claimed but that none of its threads runs."""
        self._job_store.release(worker, self._running)
        self._has_orphaned_claims = False

    def _runs_inside(self, root: int) -> bool:
        """Whether this thread runs a job of that tree, which can't wait for itself."""
        running = set(self._local.stack)
        return bool(running) and not running.isdisjoint(self._job_store.trees([root])[root])

    def close(self) -> None:
        """Remove this process from the worker registry."""
        if self._worker is not None:
            self._job_store.leave(self._worker)


def rescue_orphans(job_store: JobStore, settings: Settings) -> None:
    """Return the jobs of dead processes to the queue.

    Does nothing while a supervisor runs, because only that process knows which workers it killed.
    """
    if job_store.running_supervisor():
        return
    for row in job_store.workers():
        if row["presence"] not in RUNNING and row["state"] != "failed":
            outcomes = rescue_outcomes(settings, job_store.get(CRASH_POLICIES), row)
            job_store.rescue_jobs(row["id"], outcomes)
