"""Waiting for jobs: blocking, awaiting, or step by step.

The steps are a generator of pauses, so that each caller sleeps in its own way and can be
interrupted while it does.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from paise2nb.core import render
from paise2nb.core.errors import Timeout, WorkersError
from paise2nb.jobs.models import UNFINISHED
from paise2nb.jobs.queries import Counts
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import no_worker_runs, waiting_jobs
from paise2nb.views.client import JobClient
from paise2nb.views.history import counts_in_words
from paise2nb.views.time_left import IN_WORK

STOPPED = "stopped waiting; the work goes on"
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds
# A pause lasts at least this many times the CPU time of the check before it: with 100,000 jobs a
# check is expensive, and the machine should be left to the workers.
PAUSE_FACTOR = 9.0
BAR_PAUSE = 0.5  # seconds between two reads of what stands beside a bar
RATE_CHECKS = 20  # reads over which the rate is averaged

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


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
        on_progress: called with (done, total) after each check: numbers of pages and of jobs that
            are part of none.
        ended: wait until the jobs themselves have ended, even those scheduled for later, and not
            for their descendants.

    Yields:
        The seconds to sleep before the next check.

    Raises:
        Timeout: the timeout has expired.
        WorkersError: there is no timeout, and jobs are left but none can start: no worker runs,
            or they are paused.
    """
    job_store, work = client.job_store, _Work(client.job_store, jobs, ended)
    deadline = None if timeout is None else time.monotonic() + timeout
    pause, started, before = FIRST_PAUSE, time.monotonic(), 0
    while True:
        if client.immediate:  # jobs scheduled for later, or left behind by an interrupt
            for job_id in sorted(work.remaining) if work.remaining is not None else [None]:
                client.run_ready(job_id)
        began = time.thread_time()
        left, total = work.check()
        cost = time.thread_time() - began
        if on_progress is not None:
            on_progress(total - left, total)
        if not left:
            return
        is_over = deadline is not None and time.monotonic() >= deadline
        held = client.held(work.remaining) if is_over or deadline is None else None
        if is_over:
            text = f"{left} of {total} jobs had not finished after {timeout:g} s"
            raise Timeout(f"{text}; {held or 'they go on'}")
        runs_here_later = client.immediate and job_store.next_time() is not None
        alone = deadline is None and not runs_here_later and not client.workers_present()
        # Counted again: the last job may have ended, and its workers left, since then.
        if (held or alone) and (left := work.check()[0]):
            text = f"{waiting_jobs(left)}, and {held}" if held else no_worker_runs(left)
            raise WorkersError(text)
        if left < before:
            # Not much longer than the rest will take, or a short wait would end a good deal late.
            rest = (time.monotonic() - started) * left / max(total - left, 1)
            pause = max(min(pause, rest), FIRST_PAUSE)
        before = left
        yield max(pause, PAUSE_FACTOR * cost)
        pause = min(pause * 1.5, LONGEST_PAUSE)


class _Work:
    """What is waited for.

    Attributes:
        remaining: the jobs with trees that are not done yet; None if all jobs are waited for.
    """

    def __init__(self, job_store: JobStore, jobs: Iterable[int] | None, ended: bool) -> None:
        self.remaining = None if jobs is None else set(jobs)
        self._job_store = job_store
        self._ended = ended
        self._done = -self._finished() if jobs is None else 0
        self._total = 0

    def check(self) -> tuple[int, int]:
        """How many pages and other jobs are left, and how many there are in all."""
        if self.remaining is None:
            left, done = self._left(), self._done + self._finished()
        elif self._ended:
            number, self.remaining = len(self.remaining), self._job_store.not_ended(self.remaining)
            left = len(self.remaining)
            self._done += number - left
            done = self._done
        else:
            left, done = self._check_trees(self.remaining)
        # Jobs may be deleted, or cancelled and run again, while they are waited for.
        self._total = max(self._total, left + done)
        return left, self._total

    def _check_trees(self, remaining: set[int]) -> tuple[int, int]:
        found = self._job_store.tree_progress(remaining)
        self.remaining = {root for root, (_, _, is_busy) in found.items() if is_busy}
        self._done += sum(n for root, (n, _, _) in found.items() if root not in self.remaining)
        left = done = 0
        for root in self.remaining:
            total, unfinished, _ = found[root]
            left += max(unfinished, 1)
            done += total - max(unfinished, 1)
        return left, self._done + done

    def _counts(self) -> tuple[dict[str, int], dict[str, int]]:
        return self._job_store.page_counts(), self._job_store.other_counts()

    def _finished(self) -> int:
        return sum(n for counts in self._counts() for s, n in counts.items() if s not in UNFINISHED)

    def _left(self) -> int:
        jobs, busy = self._job_store.counts()[0], self._job_store.busy()
        due = busy - sum(jobs[state] for state in IN_WORK)
        units = sum(counts[state] for counts in self._counts() for state in IN_WORK)
        return max(units + due, 1) if busy else 0


class Bar:
    """What stands beside the progress bar of a wait: what has come of it, the rate, the time left.

    Args:
        client: the app's client.
        jobs: ids, as in `waiting`.
    """

    def __init__(self, client: JobClient, jobs: Sequence[int] | None) -> None:
        self._job_store = client.job_store
        self._jobs = jobs
        self._before = Counter[str]() if jobs is not None else sum(self.ended(), Counter())
        self._read_at, self._pause, self._words = 0.0, 0.0, ""
        self._checks: deque[tuple[float, int]] = deque(maxlen=RATE_CHECKS)

    def ended(self) -> tuple[Counts, Counts]:
        """The states of the pages, and of the jobs that are part of none."""
        if self._jobs is not None:
            return self._job_store.tree_counts(self._jobs)
        return Counter(self._job_store.page_counts()), Counter(self._job_store.other_counts())

    def outcome(self) -> str:
        """What has come of some jobs, in words. It is the same whenever they have ended."""
        return (counts_in_words(*self.ended()) if self._jobs is not None else "") or "waiting: done"

    def drawn_by(self, draw: Callable[..., None] | None) -> Progress:
        """Return what draws the bar after each check, with a function such as `progress_line`'s."""
        if draw is None:
            return no_progress
        return lambda done, total: draw(done, total, self.words(done, total))

    def words(self, done: int, total: int) -> str:
        """Return ``1,622 stored · 12 failed · 41/s · 9 s left``. It is called after each check."""
        now = time.monotonic()
        if now < self._read_at + self._pause:
            return self._words
        began = time.thread_time()
        self._checks.append((now, done))
        counts = sum(self.ended(), Counter()) - self._before
        shown = [f"{n:,} {state}" for state, n in counts.items() if state not in UNFINISHED]
        first, at_first = self._checks[0]
        if at_first < done < total:
            rate = (done - at_first) / (now - first)
            shown.append(f"{rate:,.0f}/s" if rate >= 2 else f"{60 * rate:,.0f}/min")
            shown.append(f"{render.duration(max(round((total - done) / rate), 1))} left")
        self._read_at, self._words = now, " · ".join(shown)
        self._pause = max(BAR_PAUSE, PAUSE_FACTOR * (time.thread_time() - began))
        return self._words


def in_one_line(interrupt: BaseException) -> BaseException:
    """Let a notebook show an interrupt as its message, without a traceback."""
    vars(interrupt)["_render_traceback_"] = lambda: [str(interrupt)]
    return interrupt


@contextmanager
def bar_of(client: JobClient, jobs: Sequence[int] | None) -> Iterator[Progress]:
    """Show a progress bar in a notebook while the block waits, then what came of it."""
    bar = Bar(client, jobs)
    with render.progress_line(bar.outcome) as draw:
        yield bar.drawn_by(draw)


def wait(
    client: JobClient,
    timeout: float | None = None,
    *,
    jobs: Sequence[int] | None = None,
    on_progress: Progress | None = None,
    ended: bool = False,
) -> None:
    """Wait as `waiting` does, with a progress bar unless there is an ``on_progress``."""
    shown = bar_of(client, jobs) if on_progress is None else nullcontext(on_progress)
    try:
        with shown as report:
            steps = waiting(client, timeout, jobs=jobs, on_progress=report, ended=ended)
            for pause in steps:
                time.sleep(pause)
    except KeyboardInterrupt:
        raise in_one_line(KeyboardInterrupt(STOPPED)) from None


async def wait_async(client: JobClient, jobs: Sequence[int]) -> None:
    """Wait for jobs and their trees without blocking the event loop; shows a progress bar."""
    import asyncio  # here, because it takes a tenth of the start of a command

    try:
        with bar_of(client, jobs) as report:
            for pause in waiting(client, jobs=jobs, on_progress=report):
                await asyncio.sleep(pause)
    except asyncio.CancelledError:  # also raised when a kernel is interrupted
        raise in_one_line(asyncio.CancelledError(STOPPED)) from None
