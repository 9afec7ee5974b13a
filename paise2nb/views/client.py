"""The parts of an open app that views use.

Views take this client instead of the app, so they depend on nothing above them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NoReturn

from paise2nb.core.errors import PaiseError
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import WorkersStatus
from paise2nb.plugins import DataStorageProvider

LAST_SEEN = "last_seen"  # a key in the job store


@dataclass(frozen=True, eq=False)
class JobClient:
    """The parts of one open app that views use.

    Attributes:
        job_store: The jobs.
        items: The stored items.
        is_cached: Whether the cache has the bytes of a key.
        immediate: Whether jobs run in this process, before an enqueue returns.
        run_ready: Runs the jobs that may start now in this process: those of one job's tree, or
            all for None.
        jobs_added: Runs jobs that were just queued: in this process, or by waking the workers.
        workers_present: Returns whether background workers run, or are about to.
        workers_status: Returns the workers and any problem that keeps jobs from running.
        held: Returns why no unfinished job can start, or none of some trees; None if one can.
    """

    job_store: JobStore
    items: DataStorageProvider
    is_cached: Callable[[str], bool]
    immediate: bool
    run_ready: Callable[[int | None], object]
    jobs_added: Callable[[Sequence[int]], object]
    workers_present: Callable[[], bool]
    workers_status: Callable[[], WorkersStatus]
    held: Callable[[Collection[int] | None], str | None]

    def __reduce__(self) -> NoReturn:
        """Raise PaiseError, when a job or another view is pickled or copied deeply."""
        raise PaiseError("a job can't be pickled or copied; pass job.id, then call app.job(id)")

    def mark_seen(self) -> None:
        """Record that the app is open now, by the job store's clock."""
        self.job_store.put(LAST_SEEN, str(self.job_store.now()))
