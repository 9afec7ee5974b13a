"""The words of a magic's line: URLs stay as typed, and whole words name variables.

IPython would expand ``$x`` and ``{x}`` anywhere, and read a final ``?`` as a request for help.
A URL may contain all of these.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from paise2nb.core.errors import UsageError

_NAME = re.compile(r"\$([A-Za-z_]\w*)")
_OPENING = re.compile(r"(?:^|(?<=\s))\{")
_MAGIC_LINE = re.compile(
    r"(?P<before>[ \t]*(?:[\w.,\[\]\"' \t]+=[ \t]*)?)%paise2[ \t]+(?P<line>.*\?)\s*"
)


def split(line: str, names: Mapping[str, Any]) -> list[str]:
    """Split a line into words as a shell does, except that ``#`` in a word begins no comment.

    A word ``$name`` or ``{expression}`` is replaced by its value: a list by one word for each
    element, a job by its id. An undefined name stays as typed. A word ``#`` ends the line.

    Args:
        line: what follows ``%paise2``.
        names: the variables in scope.

    Raises:
        UsageError: an expression fails.
    """
    words: list[str] = []
    for piece, is_expression in _pieces(line):
        if is_expression:
            words += _evaluated(piece, names)
            continue
        for word in shell_words(piece):
            if word == "#":
                return words
            named = _NAME.fullmatch(word)
            words += _texts(names[named[1]]) if named and named[1] in names else [word]
    if words and words[-1] == ";":  # tells IPython not to show the result
        words.pop()
    return words


def shell_words(text: str) -> list[str]:
    """Split a text into words as a shell does, without expanding anything."""
    # With an open quote, as in don't, quotes are ordinary characters.
    return text.split() if _has_open_quote(text) else shlex.split(text, comments=False)


def _pieces(line: str) -> Iterator[tuple[str, bool]]:
    """Yield the text of a line, and the inside of each ``{expression}`` that is a whole word."""
    start = position = 0
    while opening := _OPENING.search(line, position):
        position = opening.end()
        if _has_open_quote(line[start : opening.start()]) and not _has_open_quote(line[start:]):
            continue  # within quotes
        code, end = _expression(line, position)
        if code is not None:
            yield line[start : opening.start()], False
            yield code, True
            start = position = end
    yield line[start:], False


def _has_open_quote(text: str) -> bool:
    """Tell whether a quote is left open."""
    try:
        shlex.split(text, comments=False)
    except ValueError:
        return True
    return False


def _expression(line: str, start: int) -> tuple[str | None, int]:
    """Return the shortest Python expression before a closing brace, and the position after it."""
    for closing in re.finditer(r"\}(?=\s|$)", line[start:]):
        code = line[start : start + closing.start()].strip()
        try:
            compile(code, "%paise2", "eval")
        except (SyntaxError, ValueError):
            continue
        return code, start + closing.end()
    return None, start


def _evaluated(code: str, names: Mapping[str, Any]) -> list[str]:
    try:
        return _texts(eval(code, {**names}))
    except NameError:
        return [f"{{{code}}}"]
    except Exception as error:
        raise UsageError(f"{{{code}}}: {type(error).__name__}: {error}") from error


def _texts(value: Any) -> list[str]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | AbstractSet):
        # `retry` and `job` take ids.
        return [str(getattr(value, "id", value))]
    return [text for element in value for text in _texts(element)]


def keep_question_marks(lines: list[str]) -> list[str]:
    """Transform a cell so that ``%paise2 … word?`` is a command, not a request for help.

    Lines within a string stay as they are.
    """
    may_match = any("%paise2" in line and line.rstrip().endswith("?") for line in lines)
    if not may_match or lines[0].startswith("%%"):
        return lines
    from IPython.core.inputtransformer2 import make_tokens_by_line

    percent_signs = {
        (token.start[0] - 1, token.start[1])
        for tokens in make_tokens_by_line(lines)
        for token in tokens
        if token.string == "%"
    }

    def transformed(number: int, line: str) -> str:
        match = _MAGIC_LINE.fullmatch(line)
        if match is None or (number, match.end("before")) not in percent_signs:
            return line
        return f"{match['before']}get_ipython().run_line_magic('paise2', {match['line']!r})\n"

    return [transformed(number, line) for number, line in enumerate(lines)]
