"""Time spans and sizes as users write them."""

import re
from collections.abc import Mapping

from paise2nb.core.errors import UsageError

_SECONDS = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def time_span(text: str) -> float:
    """Return the seconds of a time span: ``90``, ``15m``, ``1.5h``, ``1d``. Raises UsageError."""
    return _amount(text, _SECONDS, "time span; write 90, 15m, 2h, 1d or 1w")


def byte_size(text: str) -> float:
    """Return the bytes of a size: ``500MB``, ``1.5GB``, ``2GiB``. Raises UsageError."""
    return _amount(text, _BYTES, "size; write 500MB, 10GB or 2TB")


def _amount(text: str, units: Mapping[str, float], expected: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([A-Za-z]*)", text.strip())
    if match is None or match[2] not in units:
        raise UsageError(f"{text!r} is not a {expected}")
    return float(match[1]) * units[match[2]]
