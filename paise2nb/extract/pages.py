"""Web pages: the body text without the furniture, and what the page says about itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from paise2nb.extract.text import decode
from paise2nb.plugins import Document, Source

# A body of fewer characters, which is less than this share of the page, is not its body.
SHORT, SHARE = 500, 0.05
CHUNK = 65536  # bytes
MOST_TAGS = 150_000  # a tree of more takes hundreds of megabytes, and an extraction minutes
_UNSEEN = frozenset({"script", "style", "template", "noscript"})
_INLINE = frozenset(
    {"a", "abbr", "b", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub",
     "sup", "u"}
)  # fmt: skip


def read(data: bytes, source: Source, *, precise: bool = False) -> Document:
    """Extract a page; ``precise``: rather too little of it than too much.

    trafilatura finds the body. Where it finds next to none (a form, an index of links), all that
    is visible counts: a page that was asked for is better found by too much than not at all.
    """
    # Importing trafilatura takes a quarter of a second: only who extracts pages pays for it.
    import trafilatura

    text = decode(data, source.charset)
    if text.count("<") > MOST_TAGS:
        return _visible(text)
    tree = trafilatura.load_html(text)
    if tree is None:  # a fragment without a page around it
        tree = trafilatura.load_html(f"<html><body>{text}</body></html>")
    if tree is None:
        return Document("")
    page: Any = trafilatura.bare_extraction(
        tree,
        url=source.url,
        fast=not precise,
        favor_precision=precise,
        with_metadata=True,
        include_comments=False,
        # The date that a page declares. The search for one that merely stands in its text takes
        # half of the time of an extraction.
        date_extraction_params={"original_date": True, "extensive_search": precise},
    )
    body = (page.text or "").strip() if page else ""
    if len(body) < SHORT:
        visible = trafilatura.html2txt(tree).strip()
        body = visible if len(body) < SHARE * len(visible) else body
    if page is None:
        return Document(body, title=_title(tree), language=_language(tree))
    metadata = {
        name: value
        for name, value in (
            ("site", page.sitename), ("description", page.description), ("license", page.license),
        )
        if value
    }  # fmt: skip
    return Document(
        body,
        title=page.title or _title(tree),
        author=page.author,
        date=page.date,
        language=page.language or _language(tree),
        metadata=metadata,
    )


class _Seen:
    """Collects the words that a browser would show, as a parser's target: no tree is built."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.title: list[str] = []
        self.language: str | None = None
        self._inside: str | None = None  # the element whose text is none of the page's

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "html":
            self.language = (attributes.get("lang") or "").strip() or None
        if self._inside is None and (tag in _UNSEEN or (tag == "title" and not self.title)):
            self._inside = tag
        elif tag not in _INLINE:
            self.parts.append("\n")

    def end(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None
        elif tag not in _INLINE:
            self.parts.append("\n")

    def data(self, text: str) -> None:
        if self._inside is None:
            self.parts.append(text)
        elif self._inside == "title":
            self.title.append(text)

    def close(self) -> None:
        """The end of the page."""


def _visible(text: str) -> Document:
    """All that is visible of a page too large for anything finer."""
    from lxml import html

    seen = _Seen()
    parser = html.HTMLParser(target=seen, encoding="utf-8", huge_tree=True)
    data = text.encode("utf-8", "replace")
    for start in range(0, len(data), CHUNK):
        parser.feed(data[start : start + CHUNK])
    parser.close()
    body = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", "".join(seen.parts))).strip()
    title = " ".join("".join(seen.title).split())
    return Document(body, title=title or None, language=seen.language)


def _title(tree: Any) -> str | None:
    return " ".join((tree.findtext(".//title") or "").split()) or None


def _language(tree: Any) -> str | None:
    """What the page declares: nothing is guessed."""
    for attribute in ("lang", "{http://www.w3.org/XML/1998/namespace}lang", "xml:lang"):
        if language := (tree.get(attribute) or "").strip():
            return str(language)
    return None
