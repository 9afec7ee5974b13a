"""What views use of an open app: the job store, the items, and a way to get jobs run.

Views take this client instead of the app, so they depend on nothing above them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import WorkersStatus
from paise2nb.plugins import DataStorageProvider

_LAST_SEEN = "last_seen"


class Runner(Protocol):
    """What the app does for views that need jobs to run."""

    def run_ready(self, job_id: int | None) -> None:
        """Run the jobs that may start now in this process: those of one job's tree, or all."""

    def jobs_added(self, ids: Sequence[int]) -> None:
        """Run jobs that were just queued: in this process, or by waking the workers."""

    def notify(self) -> object:
        """Wake the workers, because the state of some jobs has changed."""

    def workers_present(self) -> bool:
        """Whether background workers run, or are about to."""

    def workers_status(self) -> WorkersStatus:
        """The background workers and any problem that keeps jobs from running."""


@dataclass(frozen=True, eq=False)
class JobClient:
    """What views use of one open app.

    Attributes:
        job_store: the jobs.
        items: the stored items.
        immediate: whether jobs run in this process, before an enqueue returns.
        runner: runs jobs and knows the workers.
    """

    job_store: JobStore
    items: DataStorageProvider
    immediate: bool
    runner: Runner

    def last_seen(self) -> float | None:
        """When the app was last open, by the job store's clock; None for the first time."""
        seen = self.job_store.get(_LAST_SEEN)
        return float(seen) if seen else None

    def mark_seen(self) -> None:
        """Record that the app is open now."""
        self.job_store.put(_LAST_SEEN, str(self.job_store.now()))
