"""Waiting for jobs: blocking, awaiting, or step by step.

The steps are a generator of pauses, so that each caller sleeps in its own way and can be
interrupted while it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from paise2nb.core import render
from paise2nb.core.errors import Timeout, WorkersError
from paise2nb.jobs.workers_status import no_worker_runs, waiting_jobs
from paise2nb.views.client import JobClient

STOPPED = "stopped waiting; the work goes on"
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds
# A pause lasts at least this many times the CPU time of the check before it: with 100,000 jobs a
# check is expensive, and the machine should be left to the workers.
PAUSE_FACTOR = 9.0

Progress = Callable[[int, int], None]


def waiting(
    client: JobClient,
    timeout: float | None = None,
    *,
    jobs: Iterable[int] | None = None,
    on_progress: Progress | None = None,
    ended: bool = False,
) -> Iterator[float]:
    """Check until nothing is queued, running, retrying, or scheduled and due.

    Args:
        client: the app's client.
        timeout: seconds; None waits as long as there is a worker.
        jobs: ids; wait only for these jobs and their trees. None waits for all jobs.
        on_progress: called with (done, total) after each check.
        ended: wait until the jobs themselves have ended, even those scheduled for later, and not
            for their descendants.

    Yields:
        The seconds to sleep before the next check.

    Raises:
        Timeout: the timeout has expired.
        WorkersError: there is no timeout, and jobs are left but none can start: no worker runs,
            or they are paused.
    """
    job_store = client.job_store
    not_done = job_store.not_ended if ended else job_store.unfinished
    remaining = None if jobs is None else set(jobs)
    total = job_store.busy() if remaining is None else len(remaining)
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_PAUSE
    while True:
        if client.immediate:  # jobs scheduled for later, or left behind by an interrupt
            for job_id in sorted(remaining) if remaining is not None else [None]:
                client.run_ready(job_id)
        began = time.thread_time()
        remaining = None if remaining is None else not_done(remaining)
        left = job_store.busy() if remaining is None else len(remaining)
        total = max(total, left)
        cost = time.thread_time() - began
        if on_progress is not None:
            on_progress(total - left, total)
        if not left:
            return
        is_over = deadline is not None and time.monotonic() >= deadline
        held = client.held(remaining) if is_over or deadline is None else None
        if is_over:
            text = f"{left} of {total} jobs had not finished after {timeout:g} s"
            raise Timeout(f"{text}; {held or 'they go on'}")
        if held:
            raise WorkersError(f"{waiting_jobs(left)}, and {held}")
        runs_here_later = client.immediate and job_store.next_time() is not None
        if deadline is None and not runs_here_later and not client.workers_present():
            raise WorkersError(no_worker_runs(left))
        yield max(pause, PAUSE_FACTOR * cost)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def block(steps: Iterator[float]) -> None:
    """Sleep through the steps of `waiting`, until the jobs are done."""
    try:
        for pause in steps:
            time.sleep(pause)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(STOPPED) from None


async def wait_async(client: JobClient, jobs: Iterable[int]) -> None:
    """Wait for jobs and their trees without blocking the event loop; shows a progress bar."""
    import asyncio  # here, because it takes a tenth of the start of a command

    try:
        with render.progress_line("waiting") as report:
            for pause in waiting(client, jobs=jobs, on_progress=report):
                await asyncio.sleep(pause)
    except asyncio.CancelledError:  # also raised when a kernel is interrupted
        raise asyncio.CancelledError(STOPPED) from None
