"""Operations on text, whatever its source."""

from __future__ import annotations

PIECE = 1 << 20  # characters


def count_words(text: str, piece_size: int = PIECE) -> int:
    """Count the words of a text.

    The text is split piece by piece, because the list of all words of a large text would need
    more memory than the text.
    """
    number = 0
    for start in range(0, len(text), piece_size):
        piece = text[start : start + piece_size]
        number += len(piece.split())
        if start and not text[start - 1].isspace() and not piece[0].isspace():
            number -= 1  # this word began in the previous piece
    return number
