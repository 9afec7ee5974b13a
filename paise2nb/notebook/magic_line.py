"""A magic's line, taken apart: addresses arrive as they were typed, variables by whole words.

IPython would expand ``$x`` and ``{x}`` wherever they stand, and take a final ``?`` for a request
for help; an address may hold all of these.
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
    """The words of a line, as a shell would part them, but that ``#`` opens no comment in a word.

    A word ``$name`` or ``{expression}`` gives its value; a list gives a word for each element, a
    job its id. A name that is not defined stays as it stands. A word ``#`` ends the line.

    Args:
        line: what follows ``%paise2``.
        names: the variables that can be seen there.

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
    if words and words[-1] == ";":  # IPython's sign for "do not show the result"
        words.pop()
    return words


def shell_words(text: str) -> list[str]:
    """The words of a text as a shell parts them, without expanding anything."""
    # With an odd quote, as in don't, a quote is a character.
    return text.split() if _is_odd(text) else shlex.split(text, comments=False)


def _pieces(line: str) -> Iterator[tuple[str, bool]]:
    """The line in pieces: text, and the inside of each ``{expression}`` that is a whole word."""
    start = position = 0
    while opening := _OPENING.search(line, position):
        position = opening.end()
        if _is_odd(line[start : opening.start()]) and not _is_odd(line[start:]):
            continue  # within quotes
        code, end = _expression(line, position)
        if code is not None:
            yield line[start : opening.start()], False
            yield code, True
            start = position = end
    yield line[start:], False


def _is_odd(text: str) -> bool:
    """Whether a quote is left open."""
    try:
        shlex.split(text, comments=False)
    except ValueError:
        return True
    return False


def _expression(line: str, start: int) -> tuple[str | None, int]:
    """The shortest text up to a closing brace that is a Python expression, and where it ends."""
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
        # A job stands for its id, as `retry` and `job` take it.
        return [str(getattr(value, "id", value))]
    return [text for element in value for text in _texts(element)]


def keep_question_marks(lines: list[str]) -> list[str]:
    """An input transformation: ``%paise2 … word?`` is a command, not a request for help.

    Only lines that are code are touched, not those within a longer string.
    """
    asking = any("%paise2" in line and line.rstrip().endswith("?") for line in lines)
    if not asking or lines[0].startswith("%%"):
        return lines
    from IPython.core.inputtransformer2 import make_tokens_by_line

    signs = {
        (token.start[0] - 1, token.start[1])
        for tokens in make_tokens_by_line(lines)
        for token in tokens
        if token.string == "%"
    }

    def kept(number: int, line: str) -> str:
        match = _MAGIC_LINE.fullmatch(line)
        if match is None or (number, match.end("before")) not in signs:
            return line
        return f"{match['before']}get_ipython().run_line_magic('paise2', {match['line']!r})\n"

    return [kept(number, line) for number, line in enumerate(lines)]
