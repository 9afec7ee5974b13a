"""The lines of a PDF's pages as paragraphs and headings of Markdown."""

import ctypes
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from paise2nb.core.text import CJK

LEADING = 1.7  # font sizes from a line to the next one of its paragraph, at most
SPACE = 0.15  # font sizes between two words, at least
INDENT = 0.9  # font sizes by which the first line of a paragraph may be indented
NARROW = 15  # font sizes; shorter lines are those of an address, a table, a poem, …
LARGE, HUGE = 1.15, 1.5  # times the size of most letters: headings
TYPEWRITTEN = 0.8  # of all letters, in the fonts of code: then they are prose
LONG = 200  # characters; no heading has that many
_LINE = re.compile("\\S(?:(?:[^\r\n]|(?<=[\ufffe\x02])\r\n)*\\S)?")
_ENTRY = re.compile(r"[^\w\s\"'“«„(¿¡]\s|\(?\w{1,3}[.)]\s|\[\w+\]\s")  # of a list, at its start
_LEADERS = re.compile(r"\.\s?\.\s?\.\s?\.")  # in a table of contents
_LETTERS = re.compile(r"[^\W\d_]{2}|[\u3041-\u9fff]")
_CJK = re.compile(f"[{CJK}]")
_CODE_FONT = re.compile(rb"Mono|Courier|Consol|Menlo|TT\d")  # those of TeX don't tell their pitch


class Line(NamedTuple):
    """A line of a page, or several that end with a hyphen. Lengths are in points.

    Attributes:
        text: Its characters.
        left: Where the first character begins.
        right: Where the last one ends.
        top: The height of the base line of the first character.
        bottom: The height of the base line of the last one.
        size: The font size of the first one. 0: unknown, as of recognised text.
        is_code: Whether all letters of its fonts have the same width, as in code.
    """

    text: str
    left: float = 0
    right: float = 0
    top: float = 0
    bottom: float = 0
    size: float = 0
    is_code: bool = False


def lines_of(textpage: Any) -> Iterator[Line]:
    """The lines of a page of PDFium."""
    from pypdfium2 import raw

    text = textpage.get_text_range()
    wide = [at for at, character in enumerate(text) if character > "\uffff"]  # two units each
    name, flags = ctypes.create_string_buffer(100), ctypes.c_int()
    x, y, box = ctypes.c_double(), ctypes.c_double(), [ctypes.c_double() for _ in range(4)]

    def character(at: int) -> int:
        found: int = raw.FPDFText_GetCharIndexFromTextIndex(textpage, at + bisect_left(wide, at))
        return found

    def is_code(at: int) -> bool:
        raw.FPDFText_GetFontInfo(textpage, at, name, len(name), flags)
        return bool(flags.value & 1) or _CODE_FONT.search(name.value) is not None

    for match in _LINE.finditer(text):
        first, last = character(match.start()), character(match.end() - 1)
        raw.FPDFText_GetCharOrigin(textpage, first, x, y)
        left, top = x.value, y.value
        raw.FPDFText_GetCharOrigin(textpage, last, x, y)
        raw.FPDFText_GetCharBox(textpage, last, *box)
        size = round(raw.FPDFText_GetFontSize(textpage, first), 1)
        code = all(map(is_code, (first, (first + last) // 2, last)))
        yield Line(match[0], left, box[1].value, top, y.value, size, code)


def markdown(pages: Iterable[list[Line]]) -> str:
    """The text of pages, with a blank line between paragraphs, and marked headings."""
    pages = list(pages)
    sizes, in_code = Counter[float](), 0
    for line in (line for page in pages for line in page):
        sizes[line.size] += len(line.text)
        in_code += len(line.text) * line.is_code
    body = max(sizes, key=sizes.__getitem__, default=0)
    if in_code > TYPEWRITTEN * sizes.total():
        pages = [[line._replace(is_code=False) for line in page] for page in pages]
    return "\n\n".join(text for page in pages if (text := "".join(_pieces(page, body))))


def _pieces(page: list[Line], body: float) -> Iterator[str]:
    edges = _right_edges(page)
    for number, line in enumerate(page):
        before = page[number - 1] if number else None
        mark = _mark(line, body)
        if before is None:
            yield mark + line.text
        elif _is_beside(before, line):
            yield " " * (line.left - before.right > SPACE * line.size) + line.text
        elif _follows(before, line) and (
            mark or _goes_on(before, line, edges[number - 1], page[max(0, number - 2)])
        ):
            is_cjk = _CJK.match(before.text[-1]) and _CJK.match(line.text[0])
            yield ("" if is_cjk else " ") + line.text
        else:
            is_close = _follows(before, line) and not mark and not _mark(before, body)
            yield f"{'' if is_close else chr(10)}\n{mark}{line.text}"


def _right_edges(page: list[Line]) -> list[float]:
    """How far the longest line reaches of those that follow each other, for each line."""
    edges = [line.right for line in page]
    for numbers in (range(1, len(page)), range(len(page) - 1, 0, -1)):
        for number in numbers:
            if _follows(page[number - 1], page[number]):
                edges[number - 1] = edges[number] = max(edges[number - 1 : number + 1])
    return edges


def _mark(line: Line, body: float) -> str:
    """The mark of a heading, or nothing."""
    is_heading = line.size >= LARGE * body > 0 and len(line.text) < LONG
    if not is_heading or not _LETTERS.search(line.text):
        return ""
    return "# " if line.size >= HUGE * body else "## "


def _follows(before: Line, line: Line) -> bool:
    """Whether a line is right below another one, in the same size."""
    is_below = 0 < before.bottom - line.top <= LEADING * line.size
    return is_below and abs(before.size - line.size) <= line.size / 10


def _is_beside(before: Line, line: Line) -> bool:
    """Whether it is a piece of the same line, such as an exponent and what comes after it."""
    size = max(before.size, line.size)
    is_level = abs(before.bottom - line.top) < size / 2
    return is_level and abs(line.left - before.right) < size


def _goes_on(before: Line, line: Line, edge: float, earlier: Line) -> bool:
    """Whether a paragraph goes on: the first word of the line had no place in the one before."""
    if before.is_code or line.is_code or _LEADERS.search(before.text):
        return False
    if _ENTRY.match(line.text) or not _is_prose(before.text):
        return False
    is_hanging = _ENTRY.match(before.text) is not None or _ENTRY.match(earlier.text) is not None
    if line.left > before.left + INDENT * line.size and not is_hanging:
        return False
    word = 1 if _CJK.match(line.text) else 1 + len(line.text.split(maxsplit=1)[0]) / 2
    return before.right - before.left > NARROW * line.size and (
        before.right + word * line.size > edge
    )


def _is_prose(text: str) -> bool:
    words = text.split()
    return 2 * sum(map(bool, map(_LETTERS.search, words))) >= len(words)
