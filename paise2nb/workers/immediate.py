"""Immediate mode: the process that enqueues a job also claims and runs it.

It uses the same job store and the same executor as workers. Huey's own immediate mode would use a
storage in memory, and run follow-up jobs before their parent's outcome is written.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from huey.api import Task as HueyTask

from paise2nb.jobs.models import IMMEDIATE, Claim, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.workers.executor import Executor
from paise2nb.workers.rescue import rescue_orphans

POLL_SECONDS = 1.0  # the longest wait for a retry or for another process


class ImmediateRunner:
    """Runs jobs in this process.

    Args:
        parts: The job store, and the parts that tasks use.
        executor: Runs a claimed job.
        decode: Returns the Huey task of a claim, or None if it can't be decoded.
    """

    def __init__(
        self, parts: Parts, executor: Executor, decode: Callable[[Claim], HueyTask | None]
    ) -> None:
        self._parts = parts
        self._job_store = parts.job_store
        self._executor = executor
        self._decode = decode
        self._worker: Worker | None = None
        self._local = threading.local()
        self._running: set[int] = set()  # the jobs that run in any thread of this process
        self._has_orphaned_claims = False

    def run_tree(self, root: int) -> None:
        """Run the jobs of a tree until none is left, including their retries."""
        while True:
            self.run_ready(root)
            if not self._job_store.unfinished([root]) or self._runs_inside(root):
                return
            # A retry is due later, or another process runs a job or died while it held a host slot.
            rescue_orphans(self._job_store, self._parts.settings)
            due = self._job_store.next_time()
            pause = POLL_SECONDS if due is None else due - self._job_store.now()
            time.sleep(min(max(pause, 0.001), POLL_SECONDS))

    def run_ready(self, root: int | None = None) -> None:
        """Run the jobs that may start now, of one tree or of all."""
        if self._worker is None or self._worker.pid != os.getpid():  # a forked child is another
            self._worker = self._job_store.register(IMMEDIATE, 1, "busy")
        worker, limits = self._worker, self._parts.limits()
        outer = self._stack
        try:
            if self._has_orphaned_claims:
                self._release_orphaned_claims(worker)
            while (claim := self._job_store.claim(worker, limits, tree=root)) is not None:
                self._execute(claim)
        except BaseException:
            # An interrupt may come at any moment, after a claim or while an outcome is written.
            self._has_orphaned_claims = True
            self._running.difference_update(self._stack[len(outer) :])
            self._local.stack = outer
            self._release_orphaned_claims(worker)
            raise

    def _execute(self, claim: Claim) -> None:
        outer = self._stack
        self._local.stack = (*outer, claim.id)
        self._running.add(claim.id)
        task = self._decode(claim)
        if task is not None:
            self._job_store.end(claim, self._executor.run(task))
        self._running.discard(claim.id)
        self._local.stack = outer

    def _release_orphaned_claims(self, worker: Worker) -> None:
        """Release the jobs that this process has claimed but that none of its threads runs."""
        self._job_store.release(worker, self._running)
        self._has_orphaned_claims = False

    @property
    def _stack(self) -> tuple[int, ...]:
        """The jobs that this thread runs, one inside the other."""
        stack: tuple[int, ...] = getattr(self._local, "stack", ())
        return stack

    def _runs_inside(self, root: int) -> bool:
        """Whether this thread runs a job of that tree, which can't wait for itself."""
        stack = self._stack
        return bool(stack) and not set(stack).isdisjoint(self._job_store.trees([root])[root])

    def close(self) -> None:
        """Remove this process from the worker registry."""
        if self._worker is not None:
            self._job_store.leave(self._worker)
