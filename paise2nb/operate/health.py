"""The check of a monitor: does the work go on, and if not, why.

It reads the job store and nothing else, loads no plugins, and changes nothing.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from paise2nb.config.settings import Settings
from paise2nb.core.damage import size_of
from paise2nb.core.display import Message, arguments
from paise2nb.core.errors import StorageError
from paise2nb.core.render import amount, duration, one_line, size
from paise2nb.jobs.models import RUNNING
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.worker_registry import LEASE_SECONDS
from paise2nb.jobs.workers_status import Pauses, no_worker_runs, silent_processes

FREE_BYTES = 50_000_000  # of disk space; with less, work will soon stop
HOUR = 3600.0


class Reason(NamedTuple):
    """Why it is not healthy.

    Attributes:
        code: a condition of the alerts, or ``storage``: a database can't be read.
        text: what is wrong, and what to do about it.
    """

    code: str
    text: str


def check(
    settings: Settings, *, max_age: float | None = None, max_failed: int | None = None
) -> Message:
    """Check the data directory of a profile. The exit status is 0 if there are no reasons.

    Args:
        settings: of the profile.
        max_age: seconds; how long a job that may start may wait. None: any time.
        max_failed: how many pages may fail in the last hour. None: any number.
    """
    directory = settings.data_dir
    if directory is None or not directory.is_dir():
        return _answer([])  # there is no work yet
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
    return _answer(reasons)


def _answer(reasons: list[Reason]) -> Message:
    text = "\n".join(one_line(reason.text) for reason in reasons) or "healthy"
    facts = {"healthy": not reasons, "reasons": [reason._asdict() for reason in reasons]}
    return Message(text, facts, exit_status=int(bool(reasons)))


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
