"""The words of Office documents that xberg leaves out: notes, headers, text boxes, charts, …"""

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

# The parts of which a reader sees the paragraphs, in the order in which they are added.
_PARTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"word/(document|header\d*|footer\d*|footnotes|endnotes|comments\w*)\.xml",
        r"ppt/(slides/slide|notesSlides/notesSlide)\d+\.xml",
        r"(word|ppt|xl)/(charts/chart|diagrams/data|drawings/drawing)\d*\.xml",
        r"(ppt|xl)/(comments|threadedComments)(/\w+|\d*)\.xml",
        r"(content|styles)\.xml",
    )
)
_PARAGRAPHS = ("p", "h", "text", "v")  # local names; the last two are of comments and charts
_TEXTS = ("t", "text", "v")
# Deleted words, and what stands beside the words of a note.
_UNSEEN_NAMES = "tracked-changes del moveFrom note-citation creator date creator-initials"
_UNSEEN = frozenset(_UNSEEN_NAMES.split())
_BREAKS = ("tab", "br", "cr", "s", "line-break")
_OPEN_DOCUMENT = "urn:oasis:names:tc:opendocument"
_NO_WORD = re.compile(r"[\W_]+")
_MARK = re.compile(r"\[\^\w+\]|\[cmt:\d+\]|(?<=\])\([^()\s]*\)")  # of notes, and the URLs of links
_LETTER = re.compile(r"[^\W\d_]")
FEW_WORDS = 3  # no more are looked for as a phrase only, more also one by one
MAX_EFFORT = 10**9  # characters searched in vain; what comes then is looked for word by word
AHEAD = 10_000  # characters that are searched for the next phrase even then


def complete(data: bytes, text: str) -> str:
    """Add the paragraphs of a document to its text that are not in it.

    Args:
        data: A document of Office Open XML or OpenDocument.
        text: Its text as Markdown.
    """
    roots = list(_roots(data))
    if not roots:
        return text
    known = _Known(text)
    missing = list[str]()
    for root in roots:
        is_mixed = _OPEN_DOCUMENT in root.tag  # text may be in any element, not only in `t`
        tags = () if is_mixed else _any(_TEXTS)
        for element in root.iter(*_any(_PARAGRAPHS)):
            phrase = _words("".join(element.itertext(*tags, with_tail=is_mixed)))
            if known.next(phrase) or (_is_value(element) and not _LETTER.search(phrase)):
                continue
            # It is not in one piece: it contains a text box, a deletion, a line break, …
            for paragraph in _paragraphs(element, is_mixed):
                if not known.has(_words(paragraph)):
                    missing.append(paragraph.strip())
    return "\n\n".join([text.rstrip(), *missing]).strip()


class _Known:
    """The words of a text, with and without spaces: Markdown has marks between and in words."""

    def __init__(self, text: str) -> None:
        self._spaced = f" {_words(_MARK.sub('', text))} "
        self._cursor = 0
        self._effort = MAX_EFFORT

    @cached_property
    def _joined(self) -> str:
        return self._spaced.replace(" ", "")

    @cached_property
    def _distinct(self) -> set[str]:
        return set(self._spaced.split())

    def next(self, words: str) -> bool:
        """Whether the text has a phrase after the one found last: the usual order."""
        if not words or words.isdecimal():  # the number of a page
            return True
        end = None if self._effort > 0 else self._cursor + AHEAD
        found = self._spaced.find(f" {words} ", self._cursor, end)
        if found < 0:
            self._effort -= len(self._spaced)
            return False
        self._cursor = found + len(words)
        return True

    def has(self, words: str) -> bool:
        """Whether the text has a phrase anywhere, which is added if it has not."""
        if self.next(words):
            return True
        distinct = set(words.split())
        is_searched = self._effort > 0
        if is_searched and (f" {words} " in self._spaced or words.replace(" ", "") in self._joined):
            return True
        # A formula or a link that is written otherwise hides a phrase, but not its words.
        if (len(distinct) > FEW_WORDS or not is_searched) and distinct <= self._distinct:
            return True
        if is_searched:
            self._spaced += f"{words} "
        self._distinct |= distinct
        return False


def _words(text: str) -> str:
    return _NO_WORD.sub(" ", text).strip()


def _is_value(paragraph: Any) -> bool:
    """Whether it is the number in a cell as it is shown, which xberg reads as a number."""
    cell = paragraph.getparent()
    return cell is not None and any(name.endswith("}value") for name in cell.attrib)


def _any(names: tuple[str, ...]) -> list[str]:
    """Names of elements in any namespace."""
    return [f"{{*}}{name}" for name in names]


def _roots(data: bytes) -> Iterator[Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        for pattern in _PARTS:
            for name in filter(pattern.fullmatch, names):
                if (root := parsed_part(archive.read(name))) is not None:
                    yield root


def parsed_part(data: bytes) -> Any:
    """The root element of a part of a package, or None if there is none."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    with suppress(etree.XMLSyntaxError):  # it is empty
        return etree.fromstring(data, parser)
    return None


def _paragraphs(root: Any, is_mixed: bool) -> Iterator[str]:
    """A paragraph, and those inside of it."""
    from lxml import etree

    open_paragraphs = list[list[str]]()
    unseen = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        name = etree.QName(element).localname if isinstance(element.tag, str) else ""
        unseen += (name in _UNSEEN) * (1 if event == "start" else -1)
        if event == "start":
            if name in _PARAGRAPHS:
                open_paragraphs.append([])
            if not unseen:
                if is_mixed or name in _TEXTS:
                    open_paragraphs[-1].append(element.text or "")
                if name in _BREAKS:
                    open_paragraphs[-1].append(" ")
            continue
        if name in _PARAGRAPHS:
            yield "".join(open_paragraphs.pop())
        if is_mixed and open_paragraphs and not unseen:
            open_paragraphs[-1].append(element.tail or "")
