"""The words of Office documents that xberg leaves out: notes, headers, text boxes, charts, …"""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

# The parts whose paragraphs a reader sees, in the order in which they are added.
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
# Deleted words, and what stands beside the words of a note.
_UNSEEN = (
    "tracked-changes",
    "del",
    "moveFrom",
    "note-citation",
    "creator",
    "date",
    "creator-initials",
)
_BREAKS = ("tab", "br", "cr", "s", "line-break")
_OPEN_DOCUMENT = "urn:oasis:names:tc:opendocument"
_NO_WORD = re.compile(r"[\W_]+")
_MARK = re.compile(r"\[\^\w+\]|\[cmt:\d+\]|(?<=\])\([^()\s]*\)")  # of notes, and the URLs of links
FEW_WORDS = 3  # no more are looked for as a phrase only, more also one by one


def complete(data: bytes, text: str) -> str:
    """Add the paragraphs of a document to its text that are not in it.

    Args:
        data: A document of Office Open XML or OpenDocument.
        text: Its text as Markdown.
    """
    # With and without spaces, because Markdown puts marks between words, and also into them.
    plain = _MARK.sub("", text)
    spaced, joined = f" {_NO_WORD.sub(' ', plain)} ", _NO_WORD.sub("", plain)
    known, cursor, missing = set(spaced.split()), 0, list[str]()
    for paragraph in _all_paragraphs(data):
        words = _NO_WORD.sub(" ", paragraph).strip()
        if not words or words.isdecimal():  # the number of a page
            continue
        found = spaced.find(f" {words} ", cursor)  # paragraphs are mostly in the same order
        if found >= 0:
            cursor = found + len(words)
        elif f" {words} " not in spaced and words.replace(" ", "") not in joined:
            # A formula or a line break that is written otherwise hides only the phrase.
            distinct = set(words.split())
            if len(distinct) <= FEW_WORDS or not distinct <= known:
                missing.append(paragraph.strip())
                spaced += f"{words} "
                known |= distinct
    return "\n\n".join([text.rstrip(), *missing])


def _all_paragraphs(data: bytes) -> Iterator[str]:
    from lxml import etree

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        for pattern in _PARTS:
            for name in filter(pattern.fullmatch, names):
                parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
                root = etree.fromstring(archive.read(name), parser)
                if root is not None:
                    yield from _paragraphs(root)


def _paragraphs(root: Any) -> Iterator[str]:
    """The paragraphs of a part. Those of a text box are inside of another paragraph."""
    from lxml import etree

    is_mixed = _OPEN_DOCUMENT in root.tag  # text may be in any element, not only in `t`
    open_paragraphs = list[list[str]]()
    unseen = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        name = etree.QName(element).localname if isinstance(element.tag, str) else ""
        unseen += (name in _UNSEEN) * (1 if event == "start" else -1)
        if event == "start":
            if name in _PARAGRAPHS:
                open_paragraphs.append([])
            if open_paragraphs and not unseen:
                if is_mixed or name in ("t", "text", "v"):
                    open_paragraphs[-1].append(element.text or "")
                if name in _BREAKS:
                    open_paragraphs[-1].append(" ")
            continue
        if name in _PARAGRAPHS:
            yield "".join(open_paragraphs.pop())
        if is_mixed and open_paragraphs and not unseen:
            open_paragraphs[-1].append(element.tail or "")
