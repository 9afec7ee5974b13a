"""How results look: text and HTML tables, and the escaping that keeps them safe to look at.

Everything that a page's author wrote passes through `escape` on its way into HTML and through
`plain` on its way into a terminal. Nothing here knows what it shows.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# Marks around a hit in a snippet, as the item store writes them: control characters, which no
# text that was read as text keeps.
HIT_START = "\x02"
HIT_END = "\x03"

VIEW_ROWS = 20
CELL_LENGTH = 200  # characters of a cell in HTML
LEAST_WIDTH = 12
TEXT_WIDTH = 120  # characters, where the output is no terminal: the same on every machine

_ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC and its kin: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
# C0 and C1 but tab and newline; bidirectional controls (UAX 9), invisible separators, lone
# surrogates, which no terminal can be sent.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
_SPACE = re.compile(r"\s+")

# JupyterLab's own variables, so that both themes look right; the second value is for pages
# without them (nbconvert, VS Code).
STYLE = (
    "<style>"
    ".paise2 table{border-collapse:collapse;font-size:var(--jp-ui-font-size1,13px);margin:0}"
    # Twice the class: JupyterLab's own rule for tables puts every cell's text at the right.
    ".paise2.paise2 table th,.paise2.paise2 table td{padding:3px 14px 3px 0;text-align:left;"
    "vertical-align:top;white-space:nowrap;"
    "border-bottom:1px solid var(--jp-border-color2,rgba(128,128,128,.3))}"
    ".paise2 table th{font-weight:600;color:var(--jp-ui-font-color2,inherit)}"
    ".paise2.paise2 table .right{text-align:right;font-variant-numeric:tabular-nums}"
    ".paise2.paise2 table .wide{white-space:normal;overflow-wrap:anywhere;min-width:8em;"
    "max-width:36em}"
    ".paise2 a{color:var(--jp-content-link-color,inherit)}"
    ".paise2 .note{color:var(--jp-ui-font-color2,inherit);opacity:.85;margin:4px 0}"
    ".paise2 code{padding:1px 4px;background:var(--jp-layout-color2,rgba(128,128,128,.15))}"
    ".paise2 .good{color:var(--jp-success-color1,#2e7d32)}"
    ".paise2 .bad{color:var(--jp-error-color1,#c62828)}"
    ".paise2 .soon{color:var(--jp-warn-color1,#b26a00)}"
    ".paise2 .busy{color:var(--jp-brand-color1,#1565c0)}"
    ".paise2 .off{opacity:.6}"
    ".paise2 mark{background:transparent;color:inherit;font-weight:700;"
    "border-bottom:2px solid var(--jp-warn-color1,#f9a825)}"
    ".paise2 pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0}"
    "</style>"
)
# What a word means, wherever it stands in a column of states: the class in HTML, and in a
# terminal the colour.
TONES = {
    "completed": "good", "idle": "good", "ok": "good",
    "failed": "bad", "crashed": "bad", "timeout": "bad", "memory": "bad", "wrong": "bad",
    "retrying": "soon", "scheduled": "soon", "warning": "soon",
    "running": "busy", "busy": "busy", "starting": "busy", "stopping": "busy",
    "cancelled": "off", "released": "off",
}  # fmt: skip

# A command for the shell within a message.
_SHELL_COMMAND = re.compile(r"(?<![\w%/.-])paise2 (?=[a-z-])")


# Words ---------------------------------------------------------------------------------------


def plain(text: object) -> str:
    """Text that a terminal only shows: no escape sequences, controls or reordering of text."""
    return UNSAFE.sub("", _ESCAPE_SEQUENCES.sub("", str(text)))


def escape(text: object) -> str:
    """Text for HTML, between tags or in a quoted attribute."""
    return html.escape(plain(text), quote=True)


def one_line(text: object, width: int | None = None) -> str:
    """The text on one line, safe for a terminal, cut to that many characters."""
    line = _SPACE.sub(" ", plain(text)).strip()
    return line if width is None or len(line) <= width else line[: width - 1].rstrip() + "…"


def link(url: str, text: str | None = None) -> str:
    """HTML that shows an address; a link only where following it runs nothing.

    Args:
        url: as it was given; ``http``, ``https`` and ``file`` addresses become links.
        text: what is shown instead of the address.
    """
    shown = escape(one_line(url if text is None else text))
    try:
        scheme = urlsplit(url.strip()).scheme.lower()
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https", "file") or plain(url) != url:
        return shown
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{shown}</a>'


def in_cell_words(text: str) -> str:
    """A message whose commands can be pasted into a cell: ``paise2 …`` becomes ``%paise2 …``."""
    return _SHELL_COMMAND.sub("%paise2 ", text)


def tone(state: str) -> str:
    """HTML that shows a state in its colour."""
    kind = TONES.get(state)
    return f'<span class="{kind}">{escape(state)}</span>' if kind else escape(state)


def snippet_text(snippet: str) -> str:
    """A snippet on one line, its hits in guillemets."""
    return one_line(snippet.replace(HIT_START, "«").replace(HIT_END, "»"))


def snippet_html(snippet: str) -> str:
    """A snippet as HTML, its hits marked; marks are only closed where they were opened."""
    pieces = []
    for number, piece in enumerate(snippet.split(HIT_START)):
        hit, closed, rest = piece.partition(HIT_END)
        if number and closed:
            pieces.append(f"<mark>{escape(hit)}</mark>{escape(rest)}")
        else:
            pieces.append(escape(hit + rest))
    return _SPACE.sub(" ", "".join(pieces)).strip()


def duration(seconds: float) -> str:
    """A time span in at most two units: ``850 ms``, ``3.2 s``, ``4 min 5 s``, ``2 d 3 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = round(seconds)
    first = next(number for number, (_, size) in enumerate(units) if left >= size)
    parts = []
    for word, size in units[first : first + 2]:
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount} {word}")
    return " ".join(parts)


def size(count: float) -> str:
    """A number of bytes in decimal units: ``512 B``, ``1.5 kB``, ``20 MB``."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.3g} {units[0]}"


def amount(count: int, word: str, words: str | None = None) -> str:
    """A number with its noun: ``1 job``, ``2 jobs``, ``1,200 entries``."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def progress_bar(done: float, total: float | None, width: int = 30) -> str:
    """A bar with its counts, ``━━━━━━─────── 120 of 300``; without a total only the count."""
    if not total:
        return f"{'─' * width} {done:,.0f}"
    filled = int(width * min(1.0, done / total))
    return f"{'━' * filled}{'─' * (width - filled)} {done:,.0f} of {total:,.0f}"


BAR_SECONDS = 0.1  # between two drawings of a progress bar
BAR_CHARACTERS = 70  # that each drawing overwrites


@contextmanager
def progress_line(words: str) -> Iterator[Callable[[int, int], None]]:
    """A bar in one line of a notebook's output, which ends the same whatever it showed meanwhile.

    Where standard output is no kernel's, nothing is drawn. Gives a function of (done, total).
    """
    in_kernel = type(sys.stdout).__module__.startswith("ipykernel.")
    drawn = 0.0

    def write(text: str) -> None:
        if in_kernel:
            sys.stdout.write(f"\r{text:<{BAR_CHARACTERS}}")
            sys.stdout.flush()

    def draw(done: int, total: int) -> None:
        nonlocal drawn
        now = time.monotonic()
        if total and now - drawn >= BAR_SECONDS:
            drawn = now
            write(progress_bar(done, total))

    word = "stopped"
    try:
        yield draw
        word = "done"
    finally:
        write(f"{words}: {word}")
        if in_kernel:
            sys.stdout.write("\n")


# In a terminal: what stands out, by pattern and rich's style.
MARKS = (
    (r"«[^»]*»", "bold"),
    (r"`[^`]+`|\bpaise2 [a-z]+[^`;,]*$", "cyan"),
    (r"\b(completed|idle|ok)\b", "green"),
    (r"\b(failed|crashed|timeout|memory|wrong)\b", "red"),
    (r"\b(retrying|scheduled|warning)\b", "yellow"),
    (r"\b(running|busy|starting|stopping)\b", "blue"),
)


def painted(text: str) -> Any:
    """Text for rich's console, with states, hits and commands in colour."""
    from rich.text import Text

    shown = Text(text)
    for pattern, style in MARKS:
        shown.highlight_regex(pattern, style)
    return shown


# Tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        key: where its values are in a row.
        title: its heading; the key in words where it is None.
        right: numbers stand at the right.
        wide: takes the room that is left, and is cut first where there is none.
        text: makes a value readable as text.
        html: makes a value safe and readable as HTML; else the escaped text.
    """

    key: str
    title: str | None = None
    right: bool = False
    wide: bool = False
    text: Callable[[Any], str] = str
    html: Callable[[Any], str] | None = None

    @property
    def heading(self) -> str:
        """The words at its top."""
        return self.key.replace("_", " ") if self.title is None else self.title

    def as_text(self, row: Mapping[str, Any]) -> str:
        """This column's cell of a row, on one line."""
        value = row.get(self.key)
        return "" if value is None else one_line(self.text(value))

    def as_html(self, row: Mapping[str, Any]) -> str:
        """This column's cell of a row as HTML."""
        value = row.get(self.key)
        if value is None:
            return ""
        return self.html(value) if self.html else escape(one_line(self.text(value), CELL_LENGTH))


def columns_of(columns: Sequence[str | Column]) -> list[Column]:
    """Columns by their keys, or as they are."""
    return [Column(column) if isinstance(column, str) else column for column in columns]


def text_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column],
    limit: int | None = VIEW_ROWS,
    width: int | None = None,
    of: int | None = None,
) -> str:
    """A table of aligned columns, one line a row.

    Args:
        rows: all of them; the view is cut and says so.
        columns: keys or `Column`.
        limit: rows to show; None for all.
        width: characters; the terminal's, or `TEXT_WIDTH` where there is none.
        of: how many rows there are, where these are only the first.
    """
    from rich.cells import cell_len

    chosen = columns_of(columns)
    table = [[column.heading for column in chosen]]
    table += [[column.as_text(row) for column in chosen] for row in rows[:limit]]
    widths = [max(map(cell_len, cells)) for cells in zip(*table, strict=True)]
    # Narrow columns keep their width: a cut state or id is worth nothing. The widest gives first.
    room = width or text_width()
    wide = {
        number: min(widths[number], room) for number in range(len(chosen)) if chosen[number].wide
    }
    fixed = sum(widths) - sum(widths[number] for number in wide) + 2 * (len(widths) - 1)
    while wide and fixed + sum(wide.values()) > room:
        widest = max(wide, key=wide.__getitem__)
        if wide[widest] <= LEAST_WIDTH:
            break
        wide[widest] -= 1
    widths = [wide.get(number, width) for number, width in enumerate(widths)]
    lines = [
        "  ".join(
            _fit(cell, wanted, column.right)
            for cell, wanted, column in zip(cells, widths, chosen, strict=True)
        ).rstrip()
        for cells in table
    ]
    if more := _more(len(rows), limit, of):
        lines.append(more)
    return "\n".join(lines)


def _more(rows: int, limit: int | None, of: int | None) -> str:
    """How many rows a view leaves out, empty for none."""
    hidden = max(rows, of or 0) - (rows if limit is None else min(rows, limit))
    return f"… {hidden:,} more" if hidden else ""


def _fit(cell: str, width: int, right: bool) -> str:
    from rich.cells import cell_len

    cell = cut(cell, width)
    room = " " * (width - cell_len(cell))
    return room + cell if right else cell + room


def cut(line: str, width: int) -> str:
    """A line of at most so many columns; one that was longer ends in an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def text_width() -> int:
    """Characters on a line: the terminal's, else the same everywhere."""
    if not sys.stdout.isatty():
        return TEXT_WIDTH
    return max(40, shutil.get_terminal_size((TEXT_WIDTH, 24)).columns)


def html_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column],
    limit: int | None = VIEW_ROWS,
    caption: str = "",
    of: int | None = None,
) -> str:
    """A table as HTML that fits both themes of JupyterLab.

    Args:
        rows: all of them; the view is cut and says so.
        columns: keys or `Column`.
        limit: rows to show; None for all.
        caption: a line of text above it.
        of: how many rows there are, where these are only the first.
    """
    parts = [note(caption)] if caption else []
    parts.append(bare_table(rows[:limit], columns))
    if more := _more(len(rows), limit, of):
        parts.append(note(more))
    return panel(*parts)


def bare_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str | Column]) -> str:
    """The table alone, for a page that has the style already."""
    chosen = columns_of(columns)

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ("right" if column.right else "wide" if column.wide else "" for column in chosen)
        return "".join(
            f'<{tag} class="{kind}">{cell}</{tag}>' if kind else f"<{tag}>{cell}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    head = line("th", [escape(column.heading) for column in chosen])
    body = "".join(
        f"<tr>{line('td', [column.as_html(row) for column in chosen])}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def note(text: str) -> str:
    """A line of text beside a table, as HTML."""
    return f'<div class="note">{escape(text)}</div>'


def panel(*parts: str) -> str:
    """HTML parts, together with the style that they need."""
    return f'{STYLE}<div class="paise2">{"".join(parts)}</div>'
