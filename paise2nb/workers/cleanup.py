"""Enqueue the task ``cleanup`` once a day."""

import logging
import time
from collections.abc import Collection

from paise2nb.config.settings import DEFAULT_POOL, Settings
from paise2nb.jobs.models import CLEANED_AT, UNFINISHED, NewJob
from paise2nb.jobs.store import JobStore

logger = logging.getLogger("paise2nb.supervisor")

TASK = "cleanup"
DAY = 86400.0
CHECK_SECONDS = 60.0


class DailyCleanup:
    """Enqueues a cleanup if the last one is over a day old.

    A scheduled job would have a time, which keeps a supervisor from leaving. So the supervisor
    looks for the time of the last one when it starts, and from time to time.

    Args:
        job_store: The job store.
        settings: The resolved settings.
    """

    def __init__(self, job_store: JobStore, settings: Settings) -> None:
        self._job_store = job_store
        self._pool = settings.workers.pool_of(TASK) or DEFAULT_POOL
        self._check_at = 0.0  # monotonic
        # By the clock of the job store. Before the first cleanup its oldest job counts.
        self._began = job_store.oldest_time() or job_store.now()
        self._enqueued_at = float("-inf")

    def enqueue_if_due(self, pools: Collection[str]) -> None:
        """Enqueue a cleanup if it is due and one of these pools can run it now."""
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + CHECK_SECONDS
        store, now = self._job_store, self._job_store.now()
        last = float(store.get(CLEANED_AT) or self._began)
        if now - max(self._enqueued_at, last) < DAY:
            return
        if self._pool not in pools or store.paused_pools() & {"", self._pool}:
            return
        if not any(store.find(task=TASK, state=state, limit=1) for state in UNFINISHED):
            logger.info("the last cleanup is over a day old: one is enqueued")
            store.add([NewJob(TASK, "[]", max_attempts=1)])
        self._enqueued_at = now
