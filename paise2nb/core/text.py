"""Operations on text, whatever its source."""

import re

_WORD = re.compile(r"\S+")


def count_words(text: str) -> int:
    """Count the words of a text, without a list of them, which would need more memory than it."""
    return sum(1 for _ in _WORD.finditer(text))
