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

from paise2nb.core.urls import short_url

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
URL_LENGTH = 56  # characters of a URL in a table, see `short_url`

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
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|/\S")  # or an absolute path

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


def short(text: str, length: int = URL_LENGTH) -> str:
    """Shorten a URL or a path to its host and the end of its path, any other text at its end."""
    return "".join(short_url(text, length)) if _URL.match(text) else cut(text, length)


def link(url: str, text: str | None = None, length: int = URL_LENGTH) -> str:
    """Return HTML that shows a URL in short, as a link if following it can't run a script.

    The whole URL is shown when the pointer is over it.

    Args:
        url: ``http``, ``https`` and ``file`` URLs of a usual length become links.
        text: The text to show instead of the URL.
        length: How many characters of the URL to show, at most.
    """
    shown = escape(one_line(short(url, length) if text is None else text, CELL_LENGTH))
    if text is None:
        shown = shown.replace("/", "/<wbr>")  # where a narrow table breaks it
    whole = f'title="{escape(one_line(url, LINK_LENGTH))}"'
    try:
        scheme = urlsplit(url.strip()).scheme.lower()
    except ValueError:
        scheme = ""
    is_safe = scheme in ("http", "https", "file") and plain(url) == url
    if not is_safe or len(url) > LINK_LENGTH:
        return f"<span {whole}>{shown}</span>"
    return f'<a href="{escape(url)}" {whole} target="_blank" rel="noopener noreferrer">{shown}</a>'


def text_or_link(text: str) -> str:
    """Return HTML that shows a URL as `link` does, and any other text as it is."""
    return link(text) if _URL.match(text) else escape(one_line(text, CELL_LENGTH))


def moment(text: str) -> str:
    """Return HTML that shows a local time, which wraps only between its date and its time."""
    return " ".join(f'<span class="part">{escape(part)}</span>' for part in text.split(" ", 1))


def wrapped(text: str) -> str:
    """Return HTML that shows a text in a table whole, on several lines if it is long."""
    return f'<div class="wrap">{escape(one_line(text))}</div>'


def in_cell_words(text: str) -> str:
    """Replace ``paise2 …`` in a message with ``%paise2 …``, which can be pasted into a cell.

    A notebook has no editor for ``config edit``: there, settings are written in a cell.
    """
    return _SHELL_COMMAND.sub("%paise2 ", text).replace("%paise2 config edit", "%%paise2 config")


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


def in_kernel() -> bool:
    """Whether standard output is that of a notebook's cell."""
    return type(sys.stdout).__module__.startswith("ipykernel.")


@contextmanager
def progress_line(ended: Callable[[], str]) -> Iterator[Callable[..., None]]:
    """Show a progress bar in a notebook, and nothing elsewhere.

    Gives a function of (done, total) and, if there is more to say, a text beside the bar. The bar
    overwrites one line of the output.

    Args:
        ended: Returns what the line reads at the end, whatever was shown meanwhile. After an
            error it is empty.
    """
    drawn, shown = 0.0, ""

    def write(text: str) -> None:
        nonlocal shown
        if text != shown:  # a notebook keeps each update in its file
            sys.stdout.write(f"\r{' ' * len(shown)}\r{text}")
            sys.stdout.flush()
            shown = text

    def draw(done: int, total: int, beside: str = "") -> None:
        nonlocal drawn
        now = time.monotonic()
        if in_kernel() and total and now - drawn >= BAR_SECONDS:
            drawn = now
            write(" · ".join(filter(None, [progress_bar(done, total), beside])))

    try:
        yield draw
    except BaseException:
        write("")
        raise
    if in_kernel():
        write(ended())
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
    """One column of a table. It is left out if all its cells are empty.

    Args:
        key: The key of its values in a row.
        title: Its heading. None means the key, with spaces.
        right: Whether to align it to the right, as numbers are.
        wide: Whether it is cut if the table is too wide.
        text: Formats a value as text.
        html: Makes safe HTML of the text. None means to escape it.
        cut: Cuts a text to a number of characters.
    """

    key: str
    title: str | None = None
    right: bool = False
    wide: bool = False
    text: Callable[[Any], str] = str
    html: Callable[[str], str] | None = None
    cut: Callable[[str, int], str] = lambda text, width: cut(text, width)

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
        text = "" if value is None else self.text(value)
        if self.html:
            return _cell("td", "url" if self.wide else "", self.html(text) if text else "")
        kind = "right" if self.right else "wide" if self.wide else ""
        shown = escape(one_line(text, CELL_LENGTH))
        return _cell("td", kind, shown, f' title="{shown}"' if kind == "wide" and text else "")


def number(key: str, title: str | None = None) -> Column:
    """A column of counts, with separators."""
    return Column(key, title, right=True, text="{:,}".format)


def url(key: str, title: str | None = None, text: Callable[[Any], str] = str) -> Column:
    """A column of URLs, paths or other texts. URLs and paths are cut in their middle."""
    return Column(key, title, wide=True, text=text, html=text_or_link, cut=short)


def _cell(tag: str, kind: str, content: str, more: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f"<{tag}{name}{more}>{content}</{tag}>"


def _filled(rows: Sequence[Mapping[str, Any]], columns: Sequence[str | Column]) -> list[Column]:
    """The columns that have any text."""
    chosen = [Column(column) if isinstance(column, str) else column for column in columns]
    return [column for column in chosen if any(map(column.as_text, rows))] or chosen[:1]


def text_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column],
    of: int | None = None,
    width: int | None = None,
) -> str:
    """Format rows as aligned columns of text, one row on a line.

    Args:
        rows: The rows to show.
        columns: Keys, or columns.
        of: The number of all rows, if `rows` are only the first.
        width: The width in characters. None means that of the terminal, else `TEXT_WIDTH`.
    """
    chosen = _filled(rows, columns)
    table = [[column.heading for column in chosen]]
    table += [[column.as_text(row) for column in chosen] for row in rows]
    widths = _widths(table, chosen, width or text_width())
    lines = ["  ".join(map(_fit, cells, widths, chosen)).rstrip() for cells in table]
    return "\n".join([*lines, *more(len(rows), of)])


def html_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str | Column], of: int | None = None
) -> str:
    """Format rows as an HTML table, for `panel`. The arguments are those of `text_table`."""
    chosen = _filled(rows, columns)
    kinds = ["right" if column.right else "" for column in chosen]
    head = map(_cell, ["th"] * len(kinds), kinds, [escape(column.heading) for column in chosen])
    body = "".join(f"<tr>{''.join(c.as_html(row) for c in chosen)}</tr>" for row in rows)
    table = f"<table><thead><tr>{''.join(head)}</tr></thead><tbody>{body}</tbody></table>"
    return "".join(
        [f'<div class="box" tabindex="0">{table}</div>', *map(note, more(len(rows), of))]
    )


def more(shown: int, number: int | None) -> list[str]:
    """The line that tells how many rows of a number are not shown, if any."""
    return [f"… {number - shown:,} more"] if number and number > shown else []


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


def _fit(text: str, width: int, column: Column) -> str:
    from rich.cells import cell_len

    if cell_len(text) > width:
        text = cut(column.cut(text, width), width)
    room = " " * (width - cell_len(text))
    return room + text if column.right else text + room


def cut(line: str, width: int) -> str:
    """Cut a line to a number of terminal columns. A line that was longer ends in an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def text_width() -> int:
    """Return the width of the terminal in characters, or `TEXT_WIDTH` if there is none."""
    columns = shutil.get_terminal_size((TEXT_WIDTH, 24)).columns
    in_terminal = sys.stdout is not None and sys.stdout.isatty()
    return max(40, columns) if in_terminal else TEXT_WIDTH


def note(text: str) -> str:
    """Format text beside a table as HTML."""
    return f'<div class="note">{escape(text)}</div>'


def panel(*parts: str) -> str:
    """Join HTML parts and the style that they need."""
    return f'{style()}<div class="paise2">{"".join(parts)}</div>'
