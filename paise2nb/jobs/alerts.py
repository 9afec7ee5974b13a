"""What alerts and the health check measure, and what is stored about the alerts."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paise2nb.config.alerts import Alert
from paise2nb.config.settings import Settings
from paise2nb.core.display import arguments
from paise2nb.core.render import amount, duration, size
from paise2nb.jobs.models import RUNNING
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.worker_registry import LEASE_SECONDS
from paise2nb.jobs.workers_status import Pauses, no_worker_runs, silent_processes

UNCHECKED = "no supervisor runs, which checks the alerts; start it: paise2 worker start"
INSTALL_APPRISE = "pip install 'paise2nb[alerts]'"
STATES = "alerts"  # the key in ``meta``


@dataclass
class AlertState:
    """What is stored about an alert. Times are those of the job store.

    Attributes:
        held_since: Since when the condition has held without a break; None: it does not hold.
        began_at: When the alert began; None: it is not active.
        clear_since: Since when the condition of an active alert has not held.
        said_at: When the last message was made.
        message: The message that has yet to be delivered.
        attempts, retry_at, error: Its failed deliveries, the next one, and the last reason.
    """

    held_since: float | None = None
    began_at: float | None = None
    clear_since: float | None = None
    said_at: float = 0.0
    message: dict[str, Any] | None = None
    attempts: int = 0
    retry_at: float = 0.0
    error: str | None = None


def read_states(job_store: JobStore) -> dict[str, AlertState]:
    """Return the stored states by the names of the alerts."""
    stored = json.loads(job_store.get(STATES) or "{}")
    return {name: AlertState(**values) for name, values in stored.items()}


def write_states(job_store: JobStore, states: dict[str, AlertState]) -> None:
    """Store the states, unless they are stored already."""
    text = json.dumps({name: asdict(state) for name, state in states.items()})
    if text != job_store.get(STATES):
        job_store.put(STATES, text)


def measure(alert: Alert, job_store: JobStore, settings: Settings) -> tuple[float | None, str]:
    """Return the value of an alert's condition, None if there is none now, and what it means."""
    seconds, since = alert.seconds, job_store.now() - alert.seconds
    match alert.condition.name:
        case "failed_rate":
            completed, failed = job_store.ended_since(since)
            if not completed + failed:
                return None, f"nothing ended in the last {duration(seconds)}"
            share, ended = failed / (completed + failed), amount(completed + failed, "page")
            text = f"{share:.0%} of {ended} failed in the last {duration(seconds)}"
            return share, f"{text}; see them: paise2 status"
        case "oldest_waiting":
            waited = oldest_waiting(job_store)
            return waited, f"the oldest job has waited for {duration(waited)}"
        case "stored":
            stored = job_store.stored(since)
            text = f"{amount(stored, 'page')} stored in the last {duration(seconds)}"
            return stored, text
        case "disk_free":
            path, free = free_space(settings, job_store.path)
            return free, f"{size(free)} left at {path}"
        case "paused":
            texts = Pauses.of(job_store.paused_pools()).reasons()
        case "workers_missing":
            texts = list(workers_missing(job_store))
        case _:
            texts = list(recurring_failed(job_store))
    return len(texts), "; ".join(texts)


def oldest_waiting(job_store: JobStore) -> float:
    """Return for how many seconds the oldest job that may start has waited; 0 without one."""
    oldest = job_store.oldest_queued()
    return 0.0 if oldest is None else max(0.0, job_store.now() - oldest)


def free_space(settings: Settings, job_store: Path) -> tuple[Path, int]:
    """Return the directory of the data with the least free space, and its bytes."""
    items = settings.data_storage.sqlite.path
    directories = dict.fromkeys(filter(None, (settings.data_dir, job_store, items)))
    existing = {path if path.is_dir() else path.parent for path in directories}
    free = {path: shutil.disk_usage(path).free for path in existing if path.is_dir()}
    return min(free.items(), key=lambda pair: pair[1])


def workers_missing(job_store: JobStore, *, none_needed: bool = False) -> Iterator[str]:
    """Yield how workers are missing or stopped while there is work.

    Args:
        job_store: The job store.
        none_needed: Whether jobs run elsewhere, or wait on purpose.
    """
    supervisor = job_store.running_supervisor()
    if supervisor and supervisor["problem"]:
        yield f"{supervisor['problem']}; fix it, then: paise2 worker restart"
    counts = job_store.counts()[0]
    if not counts["running"] and not job_store.has_work(overdue=LEASE_SECONDS):
        return
    present = any(row["presence"] in RUNNING for row in job_store.workers())
    if not present and not none_needed:
        yield no_worker_runs(counts["queued"] + counts["running"] + counts["retrying"])
    for text, advice in silent_processes(job_store):
        yield f"{text}; {advice}"


def recurring_failed(job_store: JobStore) -> Iterator[str]:
    """Yield a line about each recurring job that failed in its last run."""
    for row in job_store.recurring_failed():
        job = f"job {row['id']} ({row['task']} {arguments(row['args'])})"
        yield f"{job}, every {duration(row['interval'])}, failed in its last run: {row['error']}"
