"""The visible text of HTML, without building a tree."""

import re
from collections.abc import Mapping
from contextlib import suppress

from paise2nb.content.extract.text import chunks
from paise2nb.plugins import Document

_INVISIBLE = frozenset({"script", "style", "template", "noscript"})
_INLINE_NAMES = """
    a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd mark q rb rp rt ruby
    s samp small span strike strong sub sup time tt u var wbr
"""
INLINE = frozenset(_INLINE_NAMES.split())


class _VisibleText:
    """A parser target that collects the visible text of a page, without building a tree."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.title: list[str] = []
        self.language: str | None = None
        self._inside: str | None = None  # an element with text that is not visible

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "html":
            self.language = (attributes.get("lang") or "").strip() or None
        if self._inside is None and (tag in _INVISIBLE or (tag == "title" and not self.title)):
            self._inside = tag
        elif tag not in INLINE:
            self.parts.append("\n")

    def end(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None
        elif tag not in INLINE:
            self.parts.append("\n")

    def data(self, text: str) -> None:
        if self._inside is None:
            self.parts.append(text)
        elif self._inside == "title":
            self.title.append(text)

    def close(self) -> None:
        """Do nothing: the parser requires this method."""


def visible_text(text: str) -> Document:
    """All visible text of an e-mail, or of a page that is too large for trafilatura."""
    from lxml import etree, html

    found = _VisibleText()
    parser = html.HTMLParser(target=found, encoding="utf-8", huge_tree=True)
    for chunk in chunks(text.encode("utf-8", "replace")):
        parser.feed(chunk)
    with suppress(etree.XMLSyntaxError):  # there is nothing
        parser.close()
    body = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", "".join(found.parts))).strip()
    title = " ".join("".join(found.title).split())
    return Document(body, title=title or None, language=found.language)
