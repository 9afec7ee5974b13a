"""The job table: the one host_slot that knows what is true about a job, and all SQL on jobs."""

from paise2nb.jobs.host_limits import HostDelay
from paise2nb.jobs.models import (
    IMMEDIATE,
    STATES,
    UNFINISHED,
    Claim,
    Limits,
    NewJob,
    Outcome,
    StateCounters,
    StateEntry,
    Worker,
    value_of,
)
from paise2nb.jobs.schema import MIGRATIONS
from paise2nb.jobs.store import JobStore

__all__ = [
    "IMMEDIATE",
    "MIGRATIONS",
    "STATES",
    "UNFINISHED",
    "Claim",
    "HostDelay",
    "JobStore",
    "Limits",
    "NewJob",
    "Outcome",
    "StateCounters",
    "StateEntry",
    "Worker",
    "value_of",
]
