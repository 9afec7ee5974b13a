"""The job store: the one place that knows the state of every job, with all SQL about jobs."""

from paise2nb.jobs.models import (
    IMMEDIATE,
    STATES,
    UNFINISHED,
    Claim,
    HostDelay,
    Limits,
    NewJob,
    Outcome,
    StateEntry,
    Worker,
    value_of,
)
from paise2nb.jobs.store import JobStore

__all__ = [
    "IMMEDIATE",
    "STATES",
    "UNFINISHED",
    "Claim",
    "HostDelay",
    "JobStore",
    "Limits",
    "NewJob",
    "Outcome",
    "StateEntry",
    "Worker",
    "value_of",
]
