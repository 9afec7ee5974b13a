"""The check of a monitor: does the work go on, and if not, why.

It reads the job store and nothing else, loads no plugins, and changes nothing.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from paise2nb.config.settings import Settings
from paise2nb.core.damage import size_of
from paise2nb.core.display import Message
from paise2nb.core.errors import StorageError
from paise2nb.core.render import amount, duration, one_line, size
from paise2nb.jobs.alerts import (
    UNCHECKED,
    free_space,
    oldest_waiting,
    recurring_failed,
    workers_missing,
)
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import Pauses

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
    path, _ = settings.databases(directory)
    reasons = [*_disk(settings, path)]
    known = queue.provider in ("sqlite", "redis", "none")  # a plugin's job store may be anywhere
    try:
        if size_of(path) or (known and any(directory.glob("*.db*"))):
            with closing(JobStore(path, create=False)) as job_store:
                reasons += _jobs(job_store, settings, max_age, max_failed)
    except StorageError as error:
        reasons.append(Reason("storage", str(error)))
    return _answer(reasons)


def _answer(reasons: list[Reason]) -> Message:
    text = "\n".join(one_line(reason.text) for reason in reasons) or "healthy"
    facts = {"healthy": not reasons, "reasons": [reason._asdict() for reason in reasons]}
    return Message(text, facts, exit_status=int(bool(reasons)))


def _disk(settings: Settings, job_store: Path) -> Iterator[Reason]:
    path, free = free_space(settings, job_store)
    if free < FREE_BYTES:
        yield Reason("disk_free", f"{size(free)} left at {path}; free some space")


def _jobs(
    job_store: JobStore, settings: Settings, max_age: float | None, max_failed: int | None
) -> Iterator[Reason]:
    queue = settings.task_queue
    runs_here = queue.provider == "none" or queue.sqlite.immediate
    pools = job_store.paused_pools()
    for text in Pauses.of(pools).reasons():
        yield Reason("paused", text)
    for text in workers_missing(job_store, none_needed=bool(pools) or runs_here):
        yield Reason("workers_missing", text)
    if settings.alerts and not runs_here and not job_store.running_supervisor():
        yield Reason("workers_missing", UNCHECKED)
    waited = oldest_waiting(job_store)
    if max_age is not None and waited > max_age:
        text = f"a job has waited for {duration(waited)}, longer than {duration(max_age)}"
        yield Reason("oldest_waiting", text)
    since = job_store.now() - HOUR
    if max_failed is not None and (failed := job_store.failed_pages(since)) > max_failed:
        text = f"{amount(failed, 'page')} failed in the last hour, more than {max_failed:,}; "
        yield Reason("failed_rate", text + "see them: paise2 status")
    for text in recurring_failed(job_store):
        yield Reason("recurring_failed", text)
