"""The words of a magic's line: URLs stay as typed, and whole words name variables.

IPython would expand ``$x`` and ``{x}`` anywhere, and read a final ``?`` as a request for help.
A URL may contain all of these.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from numbers import Number
from typing import Any

from paise2nb.core.display import Displayable, Record
from paise2nb.core.errors import UsageError

# Compiled on first use, which keeps %load_ext fast; `re` caches them.
_NAME = r"\$([A-Za-z_]\w*)"
_OPENING = re.compile(r"(?:^|(?<=\s))\{")
_MAGIC_LINE = r"(?P<before>[ \t]*(?:[\w.,\[\]\"' \t]+=[ \t]*)?)%paise2[ \t]+(?P<line>.*)\s*"
_COMMENT = r"(?:^|(?<=\s))#(?=\s|$)"
_FINAL_URL = r"(?:^|\s)(?!(?:site|tag|before|after):)[A-Za-z][A-Za-z0-9+.-]*:\S*$"
_PART = r"\{([^{}]*)\}|\$([A-Za-z_]\w*)"
_TABLES = {"DataFrame", "LazyFrame", "Table"}  # of pandas, Polars and PyArrow
_MISSING = ("None", "nan", "<NA>", "NaT")


def split(line: str, names: Mapping[str, Any]) -> list[str]:
    """Split a line into words as a shell does, except that ``#`` in a word begins no comment.

    A word ``$name`` or ``{expression}`` is replaced by its value: an iterable by one word for each
    element, a job by its id. An undefined name stays as typed.

    Args:
        line: what follows ``%paise2``.
        names: the variables in scope.

    Raises:
        UsageError: an expression fails, or its value is a table.
    """
    words: list[str] = []
    for piece, is_expression in _pieces(statement(line)[0]):
        if is_expression:
            words += _evaluated(piece, names)
            continue
        for word in shell_words(piece):
            named = re.fullmatch(_NAME, word)
            expands = named is not None and named[1] in names
            words += _evaluated(word[1:], names) if expands else [word]
    return words


def statement(line: str) -> tuple[str, bool]:
    """Remove the comment and the final semicolon, which tells IPython not to show the result.

    A semicolon at the end of a URL belongs to the URL.

    Returns:
        The rest of the line, and whether there was a semicolon.
    """
    for comment in re.finditer(_COMMENT, line):
        if _has_open_quote(line) or not _has_open_quote(line[: comment.start()]):
            line = line[: comment.start()]
            break
    line = line.rstrip()
    rest = line if re.search(_FINAL_URL, line) else line.rstrip(";")
    return rest, rest != line


def unexpanded(line: str, names: Mapping[str, Any]) -> str | None:
    """Return a sentence about the first word that contains a variable and stays as typed."""
    for piece, is_expression in _pieces(statement(line)[0]):
        for word in () if is_expression else shell_words(piece):
            parts = (part for part in re.finditer(_PART, word) if part[0] != word)
            found = {name for part in parts for name in re.findall(r"[A-Za-z_]\w*", part[0])}
            if found & names.keys():
                text = re.sub(_PART, r"{\1\2}", word)
                return f"{word} stays as typed; to insert the value, write {{f{text!r}}}"
    return None


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
        return list(_texts(eval(code, {**names}), code))
    except NameError:
        return [f"{{{code}}}"]
    except UsageError:
        raise
    except Exception as error:  # of the expression, which is the user's
        raise UsageError(f"{{{code}}}: {type(error).__name__}: {error}") from error


def _texts(value: Any, code: str) -> Iterator[str]:
    """Yield one word for each element. Raises UsageError for what has none."""
    kind = type(value).__name__
    if any(base.__name__ in _TABLES for base in type(value).__mro__):  # without importing them
        columns = list(getattr(value, "columns", ()))
        name = "url" if "url" in columns or not columns else columns[0]
        raise UsageError(f"{code} is a {kind}; choose a column, such as {{{code}[{name!r}]}}")
    if isinstance(value, str | Record):
        yield _word(value, code)
        return
    if isinstance(value, Mapping):
        raise UsageError(f"{code}: a dictionary is not a word; choose its keys() or values()")
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            yield bytes(value).decode()
        except UnicodeDecodeError:
            raise UsageError(f"{code}: these bytes are not text in UTF-8") from None
    elif not hasattr(value, "__iter__"):
        yield _word(value, code)
    elif getattr(value, "ndim", None) == 0:  # an array that can't be iterated
        yield _word(value.item(), code)
    else:
        for element in value:
            yield from _texts(element, code)


def _word(value: Any, code: str) -> str:
    if isinstance(value, Record):
        return str(value.id)  # `retry`, `job` and `item` take ids
    word = str(value)
    if word in _MISSING and not isinstance(value, str):
        raise UsageError(f"{code}: {word} is not a word; remove missing values, as with dropna()")
    to_text: object = type(value).__str__
    has_text = to_text is not object.__str__ and not isinstance(value, Displayable)
    if has_text or isinstance(value, Number):
        return word
    kind = type(value).__name__
    raise UsageError(f"{code}: a value of type {kind} is not a word; give texts or numbers")


def keep_line_ends(lines: list[str]) -> list[str]:
    """Transform a cell so that ``%paise2 … word?`` is a command, not a request for help.

    A final ``;`` does not keep an assignment from getting the result. Lines within a string stay
    as they are.
    """
    may_match = any("%paise2" in line and re.search("[?;]", line) for line in lines)
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
        match = re.fullmatch(_MAGIC_LINE, line)
        if match is None or (number, match.end("before")) not in percent_signs:
            return line
        rest, is_silent = statement(match["line"])
        is_assignment = bool(match["before"].strip())
        if not rest.endswith("?") and not (is_silent and is_assignment):
            return line
        words = rest if is_assignment else match["line"]
        return f"{match['before']}get_ipython().run_line_magic('paise2', {words!r})\n"

    return [transformed(number, line) for number, line in enumerate(lines)]
