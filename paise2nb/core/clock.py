"""Times: a clock that does not jump for what has to wait, and ISO 8601 in UTC for what is shown.

The wall clock of a laptop may be set back by hours; a delay must keep its length all the same. So
the job table counts on from the wall clock's time at its first use after a boot.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

# Counts while the machine sleeps, too: clock_gettime(2).
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


@cache
def boot() -> str:
    """A word for this boot of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def since_boot() -> float | None:
    """Seconds since this boot, None where only the wall clock is there."""
    return time.clock_gettime(_SINCE_BOOT) if _SINCE_BOOT is not None and boot() else None


class SteadyClock:
    """Seconds since the epoch that no setting of the wall clock moves, until the next boot.

    Args:
        offset: what the wall clock said at boot, as first seen; None takes the wall clock itself.
    """

    def __init__(self, offset: float | None) -> None:
        self._offset = offset

    def now(self) -> float:
        """The time that rows carry and that their times are compared with."""
        passed = since_boot()
        return time.time() if self._offset is None or passed is None else self._offset + passed

    def wall(self, seconds: float) -> float:
        """What the wall clock, as it is set now, says of such a time.

        By whole seconds, so that the clocks' least drift does not make a time read differently
        each time that it is shown.
        """
        return seconds + round(time.time() - self.now())


def iso(seconds: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, ``2026-01-31T09:30:00.250Z``; None stays None."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
