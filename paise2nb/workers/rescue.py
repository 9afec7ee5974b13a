"""Rescue the jobs of processes that died while no supervisor was running."""

from __future__ import annotations

from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.jobs.retry import CRASH_POLICIES, crash_outcomes
from paise2nb.jobs.store import JobStore


def rescue_orphans(job_store: JobStore, settings: Settings) -> None:
    """Return the jobs of dead processes to the queue.

    Does nothing while a supervisor runs: it knows which processes it has killed, and why.
    """
    supervisor = job_store.supervisor()
    if supervisor is not None and supervisor["process"] and processes.alive(supervisor["process"]):
        return
    for row in job_store.workers():
        if not processes.alive(row["process"]) and row["state"] != "failed":
            job_store.rescue_jobs(
                row["id"], crash_outcomes(settings, job_store.get(CRASH_POLICIES))
            )
