"""The job table: the one place that knows what is true about a job, and all SQL on jobs."""

from paise2nb.jobs.host_limits import Asked
from paise2nb.jobs.models import (
    IMMEDIATE,
    STATES,
    UNFINISHED,
    Claim,
    Ending,
    Kept,
    Limits,
    Moves,
    NewJob,
    Worker,
    value_of,
)
from paise2nb.jobs.schema import MIGRATIONS
from paise2nb.jobs.store import JobTable

__all__ = [
    "IMMEDIATE",
    "MIGRATIONS",
    "STATES",
    "UNFINISHED",
    "Asked",
    "Claim",
    "Ending",
    "JobTable",
    "Kept",
    "Limits",
    "Moves",
    "NewJob",
    "Worker",
    "value_of",
]
