"""One way for all tests to wait: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 60  # only a failure takes this long


def until(condition: Callable[[], T], seconds: float = SECONDS, *, pause: float = 0.01) -> T:
    """Wait until a condition is true.

    Args:
        condition: called again and again.
        seconds: how long to wait at most.
        pause: seconds between two calls.

    Returns:
        what the condition returned.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition is not true after {seconds:g} s"
        time.sleep(pause)
    return value
