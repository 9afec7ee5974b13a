"""Text and HTML tables, and the escaping that makes untrusted text safe to show.

All text from fetched pages passes through `escape` before it gets into HTML, and through `plain`
before it gets into a terminal.
"""

import html
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

# Mark a hit in a snippet. Control characters, because extracted text contains none.
HIT_START = "\x02"
HIT_END = "\x03"
_HIT = f"{HIT_START}([^{HIT_START}{HIT_END}]*){HIT_END}"

VIEW_ROWS = 20
CELL_LENGTH = 200  # characters of a cell in HTML
LINK_LENGTH = 2000  # characters of a URL that becomes a link
LEAST_WIDTH = 12  # to which a wide column may be cut
TEXT_WIDTH = 120  # characters of a line where the output is no terminal: the same everywhere
BAR_SECONDS = 0.1  # between two updates of a progress bar
BAR_CHARACTERS = 70  # that each update overwrites

_ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
# C0 and C1 controls except tab and newline, bidirectional controls (UAX 9), invisible separators,
# and lone surrogates, which can't be encoded.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
_SPACE = re.compile(r"\s+")

_TONES = {
    "good": "completed stored unchanged idle ok",
    "bad": "failed crashed timeout memory wrong",
    "soon": "retrying scheduled warning",
    "busy": "running busy starting stopping",
    "off": "cancelled skipped released",
}
TONES = {state: tone for tone, states in _TONES.items() for state in states.split()}
"""The tone of each state, which is also the CSS class."""

_TERMINAL_STYLES = {"good": "green", "bad": "red", "soon": "yellow", "busy": "blue"}
_HIGHLIGHTS = {r"«[^»]*»": "bold", r"`[^`]+`|\bpaise2 [a-z]+[^`;,]*$": "cyan"} | {
    rf"\b({_TONES[tone].replace(' ', '|')})\b": style for tone, style in _TERMINAL_STYLES.items()
}

# A shell command within a message.
_SHELL_COMMAND = re.compile(r"(?<![\w%/.-])paise2 (?=[a-z-])")


_STYLE_SHEET = Path(__file__).with_name("style.css")


@cache
def style(sheet: Path = _STYLE_SHEET) -> str:
    """Return a style sheet as HTML, without comments and spaces: each result carries a copy."""
    css = _SPACE.sub(" ", re.sub(r"/\*.*?\*/", "", sheet.read_text("utf-8"), flags=re.DOTALL))
    css = re.sub(r" ?([{};:,>]) ?", r"\1", css).replace(";}", "}").strip()
    return f"<style>{css}</style>"


# Text ----------------------------------------------------------------------------------------


def plain(text: object) -> str:
    """Remove escape sequences, control characters and bidirectional controls."""
    return UNSAFE.sub("", _ESCAPE_SEQUENCES.sub("", str(text)))


def escape(text: object) -> str:
    """Escape text for HTML, between tags or in a quoted attribute."""
    return html.escape(plain(text), quote=True)


def one_line(text: object, width: int | None = None) -> str:
    """Put text on one line, make it safe for a terminal, and cut it to `width` characters."""
    # Cut first, because the rest is slow for megabytes; not too short for what is removed.
    beginning = str(text) if width is None else str(text)[: 20 * width]
    line = _SPACE.sub(" ", plain(beginning)).strip()
    return line if width is None or len(line) <= width else line[: width - 1].rstrip() + "…"


def link(url: str, text: str | None = None) -> str:
    """Return HTML that shows a URL, as a link if following it can't run a script.

    Args:
        url: ``http``, ``https`` and ``file`` URLs of a usual length become links.
        text: The text to show instead of the URL.
    """
    shown = escape(one_line(url if text is None else text, CELL_LENGTH))
    if len(url) > LINK_LENGTH:
        return shown
    try:
        scheme = urlsplit(url.strip()).scheme.lower()
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https", "file") or plain(url) != url:
        return shown
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{shown}</a>'


def in_cell_words(text: str) -> str:
    """Replace ``paise2 …`` in a message with ``%paise2 …``, which can be pasted into a cell."""
    return _SHELL_COMMAND.sub("%paise2 ", text)


def tone(state: str) -> str:
    """Return HTML that shows a state in its color."""
    kind = TONES.get(state)
    return f'<span class="{kind}">{escape(state)}</span>' if kind else escape(state)


def snippet_text(snippet: str) -> str:
    """Format a snippet on one line, with its hits in guillemets."""
    return one_line(snippet.replace(HIT_START, "«").replace(HIT_END, "»"))


def snippet_html(snippet: str) -> str:
    """Format a snippet as HTML, with its hits in balanced ``<mark>`` elements."""
    pieces = [escape(piece) for piece in re.split(_HIT, snippet)]
    pieces[1::2] = [f"<mark>{hit}</mark>" for hit in pieces[1::2]]
    return _SPACE.sub(" ", "".join(pieces)).strip()


def duration(seconds: float) -> str:
    """Format a time span in at most two units: ``850 ms``, ``3.2 s``, ``2 d 3 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    counts = {"d": left // 86400, "h": left // 3600 % 24, "min": left // 60 % 60, "s": left % 60}
    parts = [f"{count} {unit}" if count else "" for unit, count in counts.items()]
    first = next(number for number, part in enumerate(parts) if part)
    return " ".join(filter(None, parts[first : first + 2]))


def size(count: float) -> str:
    """Format a number of bytes in decimal units: ``512 B``, ``1.5 kB``, ``20 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def amount(count: int, word: str, words: str | None = None) -> str:
    """Format a number with its noun: ``1 job``, ``2 jobs``, ``1,200 entries``."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def progress_bar(done: float, total: float | None, width: int = 30) -> str:
    """Draw a bar with its counts, ``━━━━━━─────── 120 of 300``, or the count without a total."""
    if not total:
        return f"{'─' * width} {done:,.0f}"
    filled = int(width * min(1.0, done / total))
    return f"{'━' * filled}{'─' * (width - filled)} {done:,.0f} of {total:,.0f}"


def counted(rows: Sequence[T], on_progress: Callable[[int, int], None] | None) -> Iterator[T]:
    """Yield rows, and after each call a function with (done, total)."""
    for done, row in enumerate(rows, 1):
        yield row
        if on_progress is not None:
            on_progress(done, len(rows))


@contextmanager
def progress_line(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar in a notebook, and nothing elsewhere. Give a function of (done, total).

    The bar overwrites one line of the output. At the end the line reads the same whatever was
    shown meanwhile: ``LABEL: done``, or ``stopped`` after an error.
    """
    in_kernel = type(sys.stdout).__module__.startswith("ipykernel.")
    drawn, shown = 0.0, ""

    def write(text: str) -> None:
        nonlocal shown
        if in_kernel and text != shown:  # a notebook keeps each update in its file
            shown = text
            sys.stdout.write(f"\r{text:<{BAR_CHARACTERS}}")
            sys.stdout.flush()

    def draw(done: int, total: int) -> None:
        nonlocal drawn
        now = time.monotonic()
        if total and now - drawn >= BAR_SECONDS:
            drawn = now
            write(progress_bar(done, total))

    outcome = "stopped"
    try:
        yield draw
        outcome = "done"
    finally:
        write(f"{label}: {outcome}")
        if in_kernel:
            sys.stdout.write("\n")


def painted(text: str) -> Any:
    """Return text for rich's console, with states, hits and commands in color."""
    from rich.text import Text

    shown = Text(text)
    for pattern, style in _HIGHLIGHTS.items():
        shown.highlight_regex(pattern, style)
    return shown


# Tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        key: The key of its values in a row.
        title: Its heading. None means the key, with spaces.
        right: Whether to align it to the right, as numbers are.
        wide: Whether it is cut first if the table is too wide.
        text: Formats a value as text.
        html: Formats a value as safe HTML. None means the escaped text.
    """

    key: str
    title: str | None = None
    right: bool = False
    wide: bool = False
    text: Callable[[Any], str] = str
    html: Callable[[Any], str] | None = None

    @property
    def heading(self) -> str:
        """The text above the column."""
        return self.key.replace("_", " ") if self.title is None else self.title

    def as_text(self, row: Mapping[str, Any]) -> str:
        """Format the cell of a row on one line."""
        value = row.get(self.key)
        return "" if value is None else one_line(self.text(value))

    def as_html(self, row: Mapping[str, Any]) -> str:
        """Format the cell of a row as HTML."""
        value = row.get(self.key)
        if value is None:
            return ""
        return self.html(value) if self.html else escape(one_line(self.text(value), CELL_LENGTH))


def columns_of(columns: Sequence[str | Column]) -> list[Column]:
    """Make a `Column` of each key."""
    return [Column(column) if isinstance(column, str) else column for column in columns]


def text_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column],
    limit: int | None = VIEW_ROWS,
    width: int | None = None,
    of: int | None = None,
) -> str:
    """Format rows as aligned columns of text, one row on a line.

    Args:
        rows: The rows, or the first of them.
        columns: Keys, or columns.
        limit: The number of rows to show. None shows all.
        width: The width in characters. None means that of the terminal, else `TEXT_WIDTH`.
        of: The number of all rows, if `rows` are only the first.
    """
    chosen = columns_of(columns)
    table = [[column.heading for column in chosen]]
    table += [[column.as_text(row) for column in chosen] for row in rows[:limit]]
    widths = _widths(table, chosen, width or text_width())
    right = [column.right for column in chosen]
    lines = ["  ".join(map(_fit, cells, widths, right)).rstrip() for cells in table]
    return "\n".join([*lines, *_more(len(rows), limit, of)])


def _widths(table: Sequence[Sequence[str]], columns: Sequence[Column], room: int) -> list[int]:
    """The width of each column. Only wide ones are cut: half a state or id is of no use."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, cells)) for cells in zip(*table, strict=True)]
    wide = [number for number, column in enumerate(columns) if column.wide]
    for number in wide:
        widths[number] = min(widths[number], room)
    while wide and sum(widths) + 2 * (len(widths) - 1) > room:
        widest = max(wide, key=widths.__getitem__)
        if widths[widest] <= LEAST_WIDTH:
            break
        widths[widest] -= 1
    return widths


def _more(rows: int, limit: int | None, of: int | None) -> list[str]:
    """The line that tells how many rows are not shown, if any."""
    hidden = max(rows, of or 0) - (rows if limit is None else min(rows, limit))
    return [f"… {hidden:,} more"] if hidden else []


def _fit(cell: str, width: int, right: bool) -> str:
    from rich.cells import cell_len

    cell = cut(cell, width)
    room = " " * (width - cell_len(cell))
    return room + cell if right else cell + room


def cut(line: str, width: int) -> str:
    """Cut a line to a number of terminal columns. A line that was longer ends in an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def text_width() -> int:
    """Return the width of the terminal in characters, or `TEXT_WIDTH` if there is none."""
    columns = shutil.get_terminal_size((TEXT_WIDTH, 24)).columns
    in_terminal = sys.stdout is not None and sys.stdout.isatty()
    return max(40, columns) if in_terminal else TEXT_WIDTH


def html_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column],
    limit: int | None = VIEW_ROWS,
    of: int | None = None,
) -> str:
    """Format rows as an HTML table with its style.

    Args:
        rows: The rows, or the first of them.
        columns: Keys, or columns.
        limit: The number of rows to show. None shows all.
        of: The number of all rows, if `rows` are only the first.
    """
    return panel(bare_table(rows[:limit], columns), *map(note, _more(len(rows), limit, of)))


def bare_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str | Column]) -> str:
    """Format rows as an HTML table without style, for a page that has it already."""
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
    """Format text beside a table as HTML."""
    return f'<div class="note">{escape(text)}</div>'


def panel(*parts: str) -> str:
    """Join HTML parts and the style that they need."""
    return f'{style()}<div class="paise2">{"".join(parts)}</div>'
