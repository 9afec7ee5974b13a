"""A clock that never jumps, for delays, and times in ISO 8601, for output.

The wall clock may be set back by hours while a job waits, and its delay must not change. So rows
carry times of a clock that is read from the wall clock once after each boot and counts from there.
"""

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path


@cache
def boot() -> str:
    """The identifier of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def since_boot() -> float:
    """Seconds since this boot, including the time in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Seconds since the epoch, unaffected by changes of the wall clock until the next boot.

    Args:
        offset: The time of the boot in seconds since the epoch, as first observed.
    """

    def __init__(self, offset: float) -> None:
        self._offset = offset

    def now(self) -> float:
        """The current time. The times in rows are times of this clock."""
        return self._offset + since_boot()

    def wall(self, seconds: float) -> float:
        """Convert a time of this clock to the wall clock as it is set now.

        The difference of the two clocks is rounded to whole seconds, so that their small drift
        does not change how a time is shown.
        """
        return seconds + round(time.time() - self.now())


def iso(seconds: float | None) -> str | None:
    """Format as ISO 8601 in UTC, such as ``2026-01-31T09:30:00.250Z``. None stays None."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def first_day(text: str) -> str:
    """Complete a date that is a year or a month, ``2026`` or ``2026-01``; keep any other text."""
    return text + {4: "-01-01", 7: "-01"}.get(len(text), "")


def moment(text: str) -> datetime:
    """Parse ISO 8601. A time without a zone is in UTC, and a day is its midnight in UTC.

    Of a month or a year, which plugins may give as the date of a document, it is the first day.
    """
    parsed = datetime.fromisoformat(first_day(text))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def local_time(when: float | str | None) -> str:
    """Format a time in the time zone of this machine: ``2026-01-31 10:30:00 CET``.

    Args:
        when: seconds since the epoch or ISO 8601. None is an empty text.
    """
    text = when if isinstance(when, str) else iso(when)
    return f"{moment(text).astimezone():%Y-%m-%d %H:%M:%S %Z}" if text else ""
