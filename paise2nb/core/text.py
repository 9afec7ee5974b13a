"""What is done with texts wherever they come from."""

from __future__ import annotations

_PIECE = 1 << 20  # characters that are counted at once


def words(text: str) -> int:
    """The number of words, piece by piece: a list of all those of a large text would be larger."""
    number = 0
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        number += len(piece.split())
        if start and not text[start - 1].isspace() and not piece[0].isspace():
            number -= 1  # one word lies across the border
    return number
