"""Operations on text, whatever its source."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

SHORT = 1_000_000  # characters of a text, for which a list of the words takes little memory
_WORD = re.compile(r"\S+")


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
