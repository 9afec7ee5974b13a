"""From what a person typed to the arguments of jobs: globs, home directories, lists in files.

An address is never touched. Everything is read and checked before anything is enqueued.
"""

from __future__ import annotations

import csv
import glob
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from paise2nb.core.errors import UsageError

if TYPE_CHECKING:
    from paise2nb.app import App

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # RFC 3986, section 3.1
_PATTERN = re.compile(r"[*?\[]")


def expand(words: Iterable[str], *, task: str, cwd: Path | None = None) -> list[str]:
    """Resolve what names files: ``~``, globs (``**`` too), and relative paths of existing files.

    Args:
        words: as typed; whatever opens with a scheme (``https:``) stays as it is.
        task: for ``fetch`` a glob has to match; another task may take such a word literally.
        cwd: where relative paths start; the working directory if None.

    Raises:
        UsageError: a glob that matches no file.
    """
    here = Path.cwd() if cwd is None else cwd
    found: list[str] = []
    for word in words:
        if _ADDRESS.match(word):
            found.append(word)
            continue
        path = here / Path(word).expanduser() if word.startswith("~") else here / word
        if _is_file(path):
            found.append(str(path.resolve() if ".." in path.parts else path))
        elif _PATTERN.search(word):
            found += _matches(word, path, task)
        else:
            found.append(str(path) if word.startswith("~") else word)
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null character: no file
        return False


def _matches(word: str, path: Path, task: str) -> list[str]:
    matches = [
        name for name in sorted(glob.glob(str(path), recursive=True)) if _is_file(Path(name))
    ]
    if not matches and task == "fetch":
        raise UsageError(f"no file matches {word!r}; nothing was enqueued")
    return matches or [word]


def is_literal(words: Sequence[str], found: Sequence[str]) -> bool:
    """Whether the words are one argument at most, and no pattern that matched files.

    Args:
        words: as typed.
        found: what `expand` made of them.
    """
    if len(words) != 1:
        return not words
    return list(words) == found or not _PATTERN.search(words[0]) or _is_file(Path(words[0]))


def lines_of(text: str) -> list[str]:
    """The arguments in a text, one a line; blank lines and ``# comments`` are left out.

    Only ``#`` with a blank after it opens a comment, and only at the start of a line: addresses
    hold ``#`` too.
    """
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and line != "#" and not line.startswith("# ")]


def read_list(source: str, column: str | None, app: App, task: str) -> list[str]:
    """The arguments in a file: a line each, or the values of one column of a ``.csv``.

    Args:
        source: the file, ``-`` for standard input.
        column: the name of the column; None takes whole lines.
        app: checks the lines of a ``.csv`` without a chosen column.
        task: whose arguments they are to be.

    Raises:
        UsageError: the file can't be read, has no such column, or a column has to be chosen.
    """
    text = _read(source)
    if column is not None:
        return _values(source, text, column)
    lines = lines_of(text)
    if source.lower().endswith(".csv"):
        _refuse_table(source, text, lines, app, task)
    return lines


def _read(source: str) -> str:
    if source == "-":
        if sys.stdin.isatty():
            print("one argument a line; end with Ctrl-D", file=sys.stderr)
        return sys.stdin.read()
    try:
        return Path(source).expanduser().read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"can't read {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"can't read {source}: it is not UTF-8; save it as UTF-8") from None


def _header(text: str) -> list[str]:
    return [name.strip() for name in next(csv.reader(StringIO(text)), [])]


def _values(source: str, text: str, column: str) -> list[str]:
    names = _header(text)
    if column not in names:
        near = get_close_matches(column, names, 1)
        hint = f"did you mean --column {near[0]}?" if near else f"it has {', '.join(names)}"
        raise UsageError(f"{source} has no column {column!r}; {hint}")
    index = names.index(column)
    rows = list(csv.reader(StringIO(text)))[1:]
    return [row[index].strip() for row in rows if len(row) > index and row[index].strip()]


def _refuse_table(source: str, text: str, lines: list[str], app: App, task: str) -> None:
    """Refuse a .csv that opens with a header instead of an argument: a column has to be chosen."""

    def fits(value: str) -> bool:
        try:
            app.plugins.task(task).accept(app, tuple(expand([value], task=task)))
        except UsageError:
            return False
        return True

    if not lines or fits(lines[0]):
        return
    names, *rows = [[cell.strip() for cell in row] for row in csv.reader(StringIO(text)) if row]
    # Which column is likely meant, for the words to paste: the one with an argument in it.
    first = dict(zip(names, rows[0] if rows else [], strict=False))
    likely = next((name for name in names if fits(first.get(name, ""))), None)
    likely = likely or next((name for name in names if name.lower() == "url"), names[0])
    option = likely if re.fullmatch(r"[\w.-]+", likely) else f'"{likely}"'
    raise UsageError(f"{source} has columns {', '.join(names)}: choose one with --column {option}")
