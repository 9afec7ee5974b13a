"""Web pages: the main text without boilerplate, and the metadata of the page."""

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from paise2nb.content.extract.text import chunks, decode
from paise2nb.plugins import Document, Source

logger = logging.getLogger("paise2nb.content.extract")

# A main text is wrong if it has fewer characters than this and is less than this share of all text.
SHORT, SHARE = 500, 0.05
MAX_TAGS = 150_000  # a tree of more takes hundreds of megabytes, and an extraction minutes
# The names of elements and attribute values by which trafilatura finds authors (`AUTHOR_XPATHS`).
_BYLINE_NAMES = """
author | byl | bbl | username | zuozhe | bianji | xiaobian | channel-name | submitted-by | posted-by
| journalist-name | screenname | writer
"""
BYLINE = re.compile(_BYLINE_NAMES, re.IGNORECASE | re.VERBOSE)
_NAMED = "//author | //*[@class or @id or @itemprop or @rel or @data-component or @data-testid]"
_INVISIBLE = frozenset({"script", "style", "template", "noscript"})
_INLINE_NAMES = "a abbr b code em font i mark s small span strong sub sup u"
_INLINE = frozenset(_INLINE_NAMES.split())


def read(data: bytes, source: Source, *, precise: bool = False) -> Document:
    """Extract a page.

    trafilatura finds the main text. If that is next to nothing (a form, a list of links), take all
    visible text, so that a search finds the page at all.

    Args:
        data: The page.
        source: Its URL and its character set.
        precise: Prefer precision over recall, and search the text for a date. Slower.
    """
    import trafilatura  # takes a quarter of a second

    text = decode(data, source.charset, source.url)
    if text.count("<") > MAX_TAGS:
        return visible_text(text)
    tree = trafilatura.load_html(text)
    if tree is None:  # a fragment, not a page
        tree = trafilatura.load_html(f"<html><body>{text}</body></html>")
    if tree is None:
        return Document("")
    about = _metadata(tree, source.url, precise=precise)
    page: Any = trafilatura.bare_extraction(
        tree, url=source.url, fast=not precise, favor_precision=precise, include_comments=False
    )
    body = (page.text or "").strip() if page else ""
    if len(body) < SHORT:
        visible = trafilatura.html2txt(tree).strip()
        body = visible if len(body) < SHARE * len(visible) else body
    more = {"site": about.sitename, "description": about.description, "license": about.license}
    return Document(
        body,
        title=about.title or " ".join((tree.findtext(".//title") or "").split()) or None,
        author=about.author,
        date=about.date,
        language=_language(tree),
        metadata={name: value for name, value in more.items() if value},
    )


def _metadata(tree: Any, url: str, *, precise: bool) -> Any:
    """The metadata of a page, as trafilatura finds it but in less time.

    Its `extract_metadata` takes more than half of the time of an extraction
    (tests/benchmarks/extraction.py). This leaves out categories and tags, dates in the text
    unless ``precise``, and the search for an author if no element is named like one.
    """
    from htmldate import find_date
    from trafilatura import metadata

    def found(find: Callable[..., Any], *where: Any, **how: Any) -> Any:
        try:
            return find(*where, **how)
        except MemoryError:
            raise  # fails the job, with a retry policy of its own
        except Exception as error:  # of unexpected markup: the page still has its text
            logger.info("%s: %s finds nothing: %r", url, find.__name__, error)
            return None

    about: Any = metadata.examine_meta(tree)
    if " " not in (about.author or ""):
        about.author = None  # the name of an account or an agency
    found(metadata.extract_meta_json, tree, about)  # changes `about`
    about.title = about.title or found(metadata.extract_title, tree)
    if not about.author and _may_have_byline(tree):
        about.author = found(metadata.extract_author, tree)
    about.url = about.url or found(metadata.extract_url, tree, url) or url
    about.date = found(find_date, tree, url=about.url, original_date=True, extensive_search=precise)
    site = (about.sitename or found(metadata.extract_sitename, tree) or "").lstrip("@")
    parts = found(urlsplit, about.url)
    about.sitename = site or (parts and parts.netloc.removeprefix("www."))
    about.license = found(metadata.extract_license, tree)
    about.clean_and_trim()
    return about


def _may_have_byline(tree: Any) -> bool:
    return any(
        BYLINE.search(" ".join([element.tag, *element.values()])) and element.text_content().strip()
        for element in tree.xpath(_NAMED)
    )


class _VisibleText:
    """A parser target that collects the visible text of a page, without building a tree."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.title: list[str] = []
        self.language: str | None = None
        self._inside: str | None = None  # an element whose text is not visible

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "html":
            self.language = (attributes.get("lang") or "").strip() or None
        if self._inside is None and (tag in _INVISIBLE or (tag == "title" and not self.title)):
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


def _language(tree: Any) -> str | None:
    """The declared language. It is never guessed."""
    for attribute in ("lang", "{http://www.w3.org/XML/1998/namespace}lang", "xml:lang"):
        if language := (tree.get(attribute) or "").strip():
            return str(language)
    return None
