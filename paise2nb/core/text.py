"""Operations on text, and amounts as users write them."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from paise2nb.core.errors import UsageError

SHORT = 1_000_000  # characters of a text, for which a list of the words takes little memory
# Characters between which a line ends without a space: CSS Text 3, section 4.1.3.
CJK = "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"
_WORD = re.compile(r"\S+")
_SECONDS = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def count_words(text: str) -> int:
    """Count the words of a text.

    A list is five times as fast (``python -m tests.benchmarks.pipeline``), but for a long text it
    would need more memory than the text.
    """
    if len(text) < SHORT:
        return len(text.split())
    return sum(1 for _ in _WORD.finditer(text))


def did_you_mean(name: str, known: Iterable[str], form: str = "{}") -> str:
    """Return the end of a message about an unknown name: the nearest known one, or else all."""
    names = list(known)
    near = get_close_matches(name, names, 1)
    return f"did you mean {form.format(near[0])}?" if near else f"known: {', '.join(names)}"


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
