"""Web pages: the body text without the furniture, and what the page says about itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from paise2nb.content.extract.text import decode
from paise2nb.plugins import Document, Source

logger = logging.getLogger("paise2nb.content.extract")

# A body of fewer characters, which is less than this share of the page, is not its body.
SHORT, SHARE = 500, 0.05
CHUNK = 65536  # bytes
MOST_TAGS = 150_000  # a tree of more takes hundreds of megabytes, and an extraction minutes
# By these names of elements and values of attributes trafilatura knows a byline (`AUTHOR_XPATHS`).
BYLINE = re.compile(
    "author|byl|bbl|username|zuozhe|bianji|xiaobian|channel-name|submitted-by|posted-by"
    "|journalist-name|screenname|writer",
    re.IGNORECASE,
)
_NAMED = "//author | //*[@class or @id or @itemprop or @rel or @data-component or @data-testid]"
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
    about = _about(tree, source.url, precise=precise)
    page: Any = trafilatura.bare_extraction(
        tree, url=source.url, fast=not precise, favor_precision=precise, include_comments=False
    )
    body = (page.text or "").strip() if page else ""
    if len(body) < SHORT:
        visible = trafilatura.html2txt(tree).strip()
        body = visible if len(body) < SHARE * len(visible) else body
    named = {"site": about.sitename, "description": about.description, "license": about.license}
    return Document(
        body,
        title=about.title or _title(tree),
        author=about.author,
        date=about.date,
        language=_language(tree),
        metadata={name: value for name, value in named.items() if value},
    )


def _about(tree: Any, url: str, *, precise: bool) -> Any:
    """What a page says about itself, as trafilatura finds it.

    Its `extract_metadata` would take more than half of the time of an extraction. Left out are
    categories and tags, a date that merely stands in the text unless ``precise``, and the search
    for a byline where nothing is called like one.
    """
    from htmldate import find_date
    from trafilatura import metadata

    def found(find: Callable[..., Any], *where: Any, **how: Any) -> Any:
        try:
            return find(*where, **how)
        except MemoryError:
            raise  # a reason to fail, which has a policy of its own
        except Exception as error:  # from oddities that nobody foresaw: the page still has a body
            logger.info("%s: %s finds nothing: %r", url, find.__name__, error)
            return None

    about: Any = metadata.examine_meta(tree)
    if " " not in (about.author or ""):
        about.author = None  # an account or an agency
    found(metadata.extract_meta_json, tree, about)  # fills it in
    about.title = about.title or found(metadata.extract_title, tree)
    if not about.author and _may_have_byline(tree):
        about.author = found(metadata.extract_author, tree)
    about.url = about.url or found(metadata.extract_url, tree, url) or url
    about.date = found(find_date, tree, url=about.url, original_date=True, extensive_search=precise)
    site = (about.sitename or found(metadata.extract_sitename, tree) or "").lstrip("@")
    about.sitename = site or found(_host, about.url)
    about.license = found(metadata.extract_license, tree)
    about.clean_and_trim()
    return about


def _host(url: str) -> str:
    return urlsplit(url).netloc.removeprefix("www.")


def _may_have_byline(tree: Any) -> bool:
    return any(
        BYLINE.search(" ".join([element.tag, *element.values()])) and element.text_content().strip()
        for element in tree.xpath(_NAMED)
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
