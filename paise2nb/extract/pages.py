"""Web pages: the body text without the furniture, and what the page says about itself."""

from __future__ import annotations

from typing import Any

from paise2nb.extract.text import decode
from paise2nb.plugins import Document, Source

# A body of fewer characters, which is less than this share of the page, is not its body.
SHORT, SHARE = 500, 0.05


def read(data: bytes, source: Source, *, precise: bool = False) -> Document:
    """Extract a page; ``precise``: rather too little of it than too much.

    trafilatura finds the body. Where it finds next to none (a form, an index of links), all that
    is visible counts: a page that was asked for is better found by too much than not at all.
    """
    # Importing trafilatura takes a quarter of a second: only who extracts pages pays for it.
    import trafilatura

    text = decode(data, source.charset)
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


def _title(tree: Any) -> str | None:
    return " ".join((tree.findtext(".//title") or "").split()) or None


def _language(tree: Any) -> str | None:
    """What the page declares: nothing is guessed."""
    for attribute in ("lang", "{http://www.w3.org/XML/1998/namespace}lang", "xml:lang"):
        if language := (tree.get(attribute) or "").strip():
            return str(language)
    return None
