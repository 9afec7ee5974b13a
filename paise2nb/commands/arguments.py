"""From what a user typed to the arguments of jobs: globs, home directories, lists in files.

A URL is never changed. Everything is read and checked before anything is enqueued.
"""

import csv
import glob
import re
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from html import unescape
from io import StringIO
from pathlib import Path

from paise2nb.core.errors import UsageError
from paise2nb.core.files import expand_user, working_directory
from paise2nb.core.urls import host_of

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # RFC 3986, section 3.1
_GLOB = re.compile(r"[*?\[]")
_BOOKMARK = re.compile(r'<A\s[^>]*?\bHREF="([^"]*)"', re.IGNORECASE)


def expand(words: Iterable[str], *, task: str) -> list[str]:
    """Expand ``~``, globs (``**`` too), and the relative paths of existing files.

    Args:
        words: as typed; a word that begins with a scheme (``https:``) stays as it is.
        task: for ``fetch`` a glob has to match; other tasks get the word itself.

    Raises:
        UsageError: a glob matches no file.
    """
    expanded: list[str] = []
    for word in words:
        if _SCHEME.match(word):
            expanded.append(word)
            continue
        path = working_directory() / (expand_user(word) if word.startswith("~") else word)
        if _is_file(path):
            expanded.append(str(path.resolve() if ".." in path.parts else path))
        elif _GLOB.search(word):
            names = sorted(glob.glob(str(path), recursive=True))
            matches = [name for name in names if _is_file(Path(name))]
            if not matches and task == "fetch":
                raise UsageError(f"no file matches {word!r}; nothing was enqueued")
            expanded += matches or [word]
        else:
            expanded.append(str(path) if word.startswith("~") else word)
    return expanded


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long, or has a null character
        return False


def is_literal(words: Sequence[str], expanded: Sequence[str]) -> bool:
    """Tell whether the words are at most one argument, and not a glob that matched files.

    Args:
        words: as typed.
        expanded: what `expand` returned for them.
    """
    if len(words) != 1:
        return not words
    return list(words) == expanded or not _GLOB.search(words[0]) or _is_file(Path(words[0]))


def argument_lines(text: str) -> list[str]:
    """Return the arguments in a text, one per line, without blank lines and ``# comments``.

    A comment is a line that begins with ``#`` and a space: URLs contain ``#`` too.
    """
    # Not splitlines(): it also splits at characters that belong to an argument, such as U+2028.
    lines = (line.strip() for line in text.split("\n"))
    return [line for line in lines if line and line != "#" and not line.startswith("# ")]


def read_list(source: str, column: str | None, fits: Callable[[str], bool]) -> list[str]:
    """Read the arguments in a file: one per line, or the values of one column of a ``.csv``.

    Of HTML, such as the bookmarks that a browser exports, take the http and https URLs of links.

    Args:
        source: the file, ``-`` for standard input.
        column: the name of the column; None takes whole lines.
        fits: tells whether a text is an argument, for a ``.csv`` without a chosen column.

    Raises:
        UsageError: the file can't be read, has no such column, or needs ``--column``.
    """
    name = "standard input" if source == "-" else source
    text = _decoded(name, _read(source))
    if text.lstrip().startswith(("<!", "<html", "<HTML")):
        return [url for url in map(unescape, _BOOKMARK.findall(text)) if host_of(url)]
    if column is not None:
        return _column_values(name, text, column)
    lines = argument_lines(text)
    if source.lower().endswith((".csv", ".tsv")):
        _require_column(name, text, lines, fits)
    return lines


def _read(source: str) -> bytes:
    if source == "-":
        if sys.stdin.isatty():
            print("one argument per line; end with Ctrl-D", file=sys.stderr)
        return sys.stdin.buffer.read()
    try:
        return expand_user(source).read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {source}: {error.strerror}") from None


def _decoded(name: str, data: bytes) -> str:
    """Decode a list: UTF-8, or UTF-16 with a byte order mark. Raises UsageError with the line."""
    encoding = "utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
        before, null, _ = text.partition("\0")  # of UTF-16 without a mark, or of no text at all
    except UnicodeDecodeError as error:
        before, null = error.object[: error.start].decode(encoding, "ignore"), "undecodable"
    if null:
        number = before.count("\n") + 1
        raise UsageError(f"can't read {name}: line {number} is not UTF-8; save it as UTF-8")
    return text


def _table(name: str, text: str) -> list[list[str]]:
    """Parse CSV into rows of stripped cells, the header first; without empty rows.

    The delimiter is a comma, semicolon or tab: the one that gives the header most columns.
    """
    text = re.sub(r"\Asep=.\r?\n", "", text)  # for Excel, before the header
    parse = partial(csv.reader, skipinitialspace=True)
    try:
        headers = {d: next(parse([text.partition("\n")[0]], delimiter=d), []) for d in ",;\t"}
        reader = parse(StringIO(text), delimiter=max(headers, key=lambda d: len(headers[d])))
        return [[cell.strip() for cell in row] for row in reader if row]
    except csv.Error as error:
        raise UsageError(f"can't read {name} as CSV: {error}") from None


def _column_values(name: str, text: str, column: str) -> list[str]:
    columns, *rows = _table(name, text) or [[]]
    if column not in columns:
        alike = [name for name in columns if name.lower() == column.lower()]
        near = alike or get_close_matches(column, columns, 1)
        hint = f"did you mean --column {near[0]}?" if near else f"it has {', '.join(columns)}"
        raise UsageError(f"{name} has no column {column!r}; {hint}")
    index = columns.index(column)
    return [row[index] for row in rows if len(row) > index and row[index]]


def _require_column(name: str, text: str, lines: list[str], fits: Callable[[str], bool]) -> None:
    """Raise UsageError if a .csv begins with a header in place of an argument."""
    if not lines or fits(lines[0]):
        return
    names, *rows = _table(name, text)
    # The message proposes the first column with a fitting argument, or the one named url.
    first = dict(zip(names, rows[0] if rows else [], strict=False))
    likely = next((column for column in names if fits(first.get(column, ""))), None)
    likely = likely or next((column for column in names if column.lower() == "url"), names[0])
    option = likely if re.fullmatch(r"[\w.-]+", likely) else f'"{likely}"'
    raise UsageError(f"{name} has columns {', '.join(names)}: choose one with --column {option}")
