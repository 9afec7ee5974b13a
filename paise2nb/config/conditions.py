"""The conditions of alerts, such as ``failed_rate > 0.2``: a closed list, each with its unit."""

import math
import operator
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from paise2nb.core.errors import UsageError
from paise2nb.core.text import byte_size, did_you_mean, time_span

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def _share(text: str) -> float:
    value = _number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if value > 1:
        raise UsageError(f"{text!r} is not a share; write 0.2 or 20%")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a number") from None
    if not 0 <= value < math.inf:
        raise UsageError(f"{text!r} is no limit; write a number from 0")
    return value


class _Kind(NamedTuple):
    """What a condition compares.

    Attributes:
        parse: from the text of a limit to its value.
        example: for messages.
        bare: whether the name alone means "more than none".
        window: seconds over which it is measured by default; 0: it is measured at one moment.
    """

    parse: Callable[[str], float]
    example: str
    bare: bool = False
    window: float = 0.0


CONDITIONS = {
    "failed_rate": _Kind(_share, "failed_rate > 0.2", window=900.0),
    "oldest_waiting": _Kind(time_span, "oldest_waiting > 1h"),
    "paused": _Kind(_number, "paused", bare=True),
    "workers_missing": _Kind(_number, "workers_missing", bare=True),
    "stored": _Kind(_number, "stored < 1", window=86400.0),
    "disk_free": _Kind(byte_size, "disk_free < 10GB"),
    "recurring_failed": _Kind(_number, "recurring_failed", bare=True),
}


class Condition(NamedTuple):
    """A parsed condition: its name, and what its value is compared with."""

    name: str
    comparison: str
    limit: float

    def holds(self, value: float | None) -> bool:
        """Whether a value meets the condition; None, an unknown value, never does."""
        return value is not None and bool(_OPERATORS[self.comparison](value, self.limit))


@cache
def parse_condition(text: str) -> Condition:
    """Parse a condition. Raises UsageError, with the nearest name for an unknown one."""
    match = re.fullmatch(r"([A-Za-z_]\w*)\s*(?:([<>]=?)\s*(\S.*))?", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a condition; write one such as: failed_rate > 0.2")
    name, comparison, limit = match.groups()
    if name not in CONDITIONS:
        raise UsageError(f"unknown condition {name!r}; {did_you_mean(name, CONDITIONS)}")
    kind = CONDITIONS[name]
    if comparison is not None:
        return Condition(name, comparison, kind.parse(limit.strip()))
    if not kind.bare:
        raise UsageError(f"{name} needs a limit, such as: {kind.example}")
    return Condition(name, ">", 0.0)
