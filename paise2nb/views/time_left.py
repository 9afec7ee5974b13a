"""When all work will be done: by the pace of pages, by their hosts, or by the last retry."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from paise2nb.core import render
from paise2nb.jobs.store import JobStore

SAME_WEEK = 6 * 86400  # seconds in which no weekday comes twice
IN_WORK = ("queued", "running", "retrying")


class TimeLeft(NamedTuple):
    """An estimate.

    Attributes:
        seconds: None if it is too early to say.
        text: the estimate and its reason.
    """

    seconds: float | None
    text: str


def time_left(
    job_store: JobStore, pages: Mapping[str, int], others: Mapping[str, int], rate: float
) -> TimeLeft | None:
    """Estimate when all pages and other jobs will be done, whichever takes longest: all of them
    at the rate of the last minutes, those of one host with its delay, or the last retry.

    Args:
        job_store: the jobs.
        pages, others: the number of pages, and of jobs that are part of none, by state.
        rate: how many of both end in a second.

    Returns:
        The estimate, or None if nothing is left.
    """
    left = sum(counts[state] for counts in (pages, others) for state in IN_WORK)
    if not left:
        return None
    now = time.time()
    by_rate = left / rate if rate else 0.0
    last = job_store.last_retry()
    by_retry = job_store.clock.wall(last) - now if last else 0.0
    host = job_store.slowest_host()
    if host is not None and host[3] > max(by_retry - 1, by_rate / 2):
        name, waiting, delay, by_host = host
        seconds = max(by_host, by_rate)
        until = f"about {clock_time(now + seconds)}; more workers won't help"
        if not waiting or waiting * delay < by_host / 2:
            return TimeLeft(seconds, f"{name} asked for a pause: {until}")
        return TimeLeft(seconds, f"{waiting:,} on {name} at {delay:g} s each: {until}")
    if by_retry > by_rate:
        return TimeLeft(by_retry, f"the last retry comes at {clock_time(now + by_retry)}")
    if not by_rate:
        return TimeLeft(None, "too early to say")
    text = f"about {render.duration(by_rate)}, until {clock_time(now + by_rate)}"
    return TimeLeft(by_rate, text)


def clock_time(moment: float) -> str:
    """A time of day, with the weekday or date if it is not today. Seconds since the epoch."""
    then, today = time.localtime(moment), time.localtime()
    day = "%a" if moment - time.time() < SAME_WEEK else "%Y-%m-%d"
    return time.strftime("%H:%M" if then[:3] == today[:3] else f"{day} %H:%M", then)
