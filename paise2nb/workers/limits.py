"""The limits of jobs: when the supervisor kills a worker, and which job is the reason."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class KillReason(NamedTuple):
    """Why a worker is killed.

    Attributes:
        job: The job that exceeded its limits or was cancelled; None if it is not known which one.
        outcome: ``timeout``, ``memory`` or ``cancelled``.
        text: The reason in one line.
    """

    job: int | None
    outcome: str
    text: str


def kill_reason(
    job: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    memory: float,
    *,
    ran: float,
    is_late: bool,
) -> KillReason | None:
    """Return why a worker is killed for a job, None if it is not.

    Args:
        job: One of the jobs of the worker.
        jobs: All of them.
        memory: MB that the worker uses.
        ran: Seconds since the job was first seen to run.
        is_late: Whether it has had its time to end by itself, if it was cancelled.
    """
    if job["state"] != "running":
        # It was cancelled. If it is queued again, it has no time and no grace period any more.
        text = f"job {job['id']} was cancelled"
        return KillReason(job["id"], "cancelled", text) if is_late else None
    if job["timeout"] and ran > job["timeout"]:
        text = f"timeout: ran longer than {job['timeout']:g} s"
        # Jobs that were claimed together are run one after another, and ended together.
        together = [other for other in jobs if other["started_at"] == job["started_at"]]
        return KillReason(job["id"] if len(together) == 1 else None, "timeout", text)
    if job["memory_mb"] and memory > job["memory_mb"]:
        text = f"memory: {memory:,.0f} MB, more than {job['memory_mb']:g} MB"
        return KillReason(job["id"] if len(jobs) == 1 else None, "memory", text)
    return None
