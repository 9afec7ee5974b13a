"""The check of a monitor: does the work go on, and if not, why.

It reads the job store and nothing else, loads no plugins, and changes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core.damage import size_of
from paise2nb.core.display import Displayable, arguments
from paise2nb.core.errors import StorageError
from paise2nb.core.render import amount, duration, one_line, size
from paise2nb.jobs.models import RUNNING
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.worker_registry import LEASE_SECONDS
from paise2nb.jobs.workers_status import Pauses, no_worker_runs, silent_processes

FREE_BYTES = 50_000_000  # of disk space; with less, work will soon stop
HOUR = 3600.0


@dataclass(frozen=True)
class Reason:
    """Why it is not healthy.

    Attributes:
        code: a condition of the alerts, or ``storage``: a database can't be read.
        text: what is wrong, and what to do about it.
    """

    code: str
    text: str


@dataclass(repr=False)
class Health(Displayable):
    """The result of a check. ``exit_status`` is 0 if there are no reasons."""

    reasons: list[Reason]

    @property
    def exit_status(self) -> int:
        """0 if it is healthy, else 1."""
        return int(bool(self.reasons))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of ``health``."""
        reasons = [{"code": reason.code, "text": reason.text} for reason in self.reasons]
        return {"healthy": not reasons, "reasons": reasons}

    def __str__(self) -> str:
        return "\n".join(one_line(reason.text) for reason in self.reasons) or "healthy"


def check(
    settings: Settings, *, max_age: float | None = None, max_failed: int | None = None
) -> Health:
    """Check the data directory of a profile.

    Args:
        settings: of the profile.
        max_age: seconds; how long a job that may start may wait. None: any time.
        max_failed: how many pages may fail in the last hour. None: any number.
    """
    directory = settings.data_dir
    if directory is None or not directory.is_dir():
        return Health([])  # there is no work yet
    queue = settings.task_queue
    path = queue.sqlite.path or directory / "tasks.db"
    reasons = [*_disk(dict.fromkeys((directory, path.parent)))]
    known = queue.provider in ("sqlite", "none")  # a plugin's job store may be anywhere
    try:
        if size_of(path) or (known and any(directory.glob("*.db*"))):
            job_store = JobStore(path, create=False)
            try:
                runs_here = queue.provider == "none" or queue.sqlite.immediate
                reasons += _jobs(job_store, max_age, max_failed, runs_here)
            finally:
                job_store.close()
    except StorageError as error:
        reasons.append(Reason("storage", str(error)))
    return Health(reasons)


def _disk(paths: dict[Path, None]) -> Iterator[Reason]:
    for path in paths:
        free = shutil.disk_usage(path).free
        if free < FREE_BYTES:
            yield Reason("disk_free", f"{size(free)} left at {path}; free some space")
            return  # the others are mostly on the same disk


def _jobs(
    job_store: JobStore, max_age: float | None, max_failed: int | None, runs_here: bool
) -> Iterator[Reason]:
    pools = job_store.paused_pools()
    for text in Pauses.of(pools).reasons():
        yield Reason("paused", text)
    yield from _workers(job_store, bool(pools) or runs_here)
    now = job_store.now()
    oldest = job_store.oldest_queued()
    if max_age is not None and oldest is not None and now - oldest > max_age:
        text = f"a job has waited for {duration(now - oldest)}, longer than {duration(max_age)}"
        yield Reason("oldest_waiting", text)
    if max_failed is not None and (failed := job_store.failed_pages(now - HOUR)) > max_failed:
        text = f"{amount(failed, 'page')} failed in the last hour, more than {max_failed:,}; "
        yield Reason("failed_rate", text + "see them: paise2 status")
    for row in job_store.recurring_failed():
        job = f"job {row['id']} ({row['task']} {arguments(row['args'])})"
        text = f"{job}, every {duration(row['interval'])}, failed in its last run: {row['error']}"
        yield Reason("recurring_failed", text)


def _workers(job_store: JobStore, none_needed: bool) -> Iterator[Reason]:
    """Yield that workers are missing or stopped while there is work."""
    counts, now = job_store.counts()[0], job_store.now()
    due = job_store.next_time()
    work = len(job_store.ready_tasks()) or (due is not None and due < now - LEASE_SECONDS)
    if not work and not counts["running"]:
        return
    present = any(row["presence"] in RUNNING for row in job_store.workers())
    if not present and not none_needed:
        text = no_worker_runs(counts["queued"] + counts["running"] + counts["retrying"])
        yield Reason("workers_missing", text)
    for text, advice in silent_processes(job_store):
        yield Reason("workers_missing", f"{text}; {advice}")
