"""Web pages: the main text without boilerplate, and the metadata of the page."""

import re
from typing import Any

import trafilatura
from lxml import html
from lxml.etree import ElementDefaultClassLookup, ParserError, XPath

from paise2nb.content.extract import embedded, page_metadata
from paise2nb.content.extract.prose import LONG, MOST, Prose, lines_of
from paise2nb.content.extract.text import decode
from paise2nb.content.extract.visible import visible_text
from paise2nb.core.text import CJK
from paise2nb.plugins import Document, Source

# A main text is wrong if it has fewer characters than this and is less than this share of all text.
SHORT, SHARE = 500, 0.05
KEPT = 0.7  # of all that is no boilerplate, at least, in a short text
MAX_TAGS = 150_000  # a tree of more takes hundreds of megabytes, and an extraction minutes
_HTML_TAG = re.compile(r"\A(\s*(?:<!doctype[^<>]*>\s*)?<html[^<>]*)/>", re.IGNORECASE)
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\r"})
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_]\w+)*(?!\w)")
# Two patterns that begin with what is rare: one for both took a tenth of the time of real pages
# (tests.benchmarks.pipeline --articles).
_CUTS = [re.compile(f"{end}(?<=[{CJK}]{end})[ \\t]*(?=[{CJK}])") for end in (r"\n", r"\r\n")]
_CAPTIONS = XPath("//*[contains(@class, 'caption') or contains(@id, 'caption')]")
# Asides that belong to the text.
_NOTE = re.compile(
    r"note|admonition|callout|tip|warning|caution|important|hint|pull-?quote|starlight"
)
_ADAPTED = ("figure", "figcaption", "center", "aside", "button", "template", "time")
_RUNNING = frozenset({"p", "li", "dd", "td", "em", "strong", "span", "blockquote"})
CELL = 1000  # characters of a list in a table; a longer one is the page, in a table for its layout
_ATTRIBUTES = XPath("//@*", smart_strings=False)
# One class for all elements: lxml.html looks up that of each in Python, which takes a thirtieth of
# an extraction (tests.benchmarks.pipeline --articles).
_CLASSES = ElementDefaultClassLookup(element=html.HtmlElement)


def read(data: bytes, source: Source, *, precise: bool = False) -> Document:
    """Extract a page.

    trafilatura finds the main text; what it loses of a page's prose is put back. If that is
    next to nothing (a form, a list of links), take all visible text, so that a search finds it.

    Args:
        data: The page.
        source: Its URL and its character set.
        precise: Prefer precision over recall, and search the text for a date. Slower.
    """
    text = decode(data, source.charset, source.url)
    if not text.isascii() and "<pre" not in text:
        for cut in _CUTS:
            text = cut.sub("", text)
    tree = _parsed(text) if text.count("<") <= MAX_TAGS else None
    if tree is None:
        return visible_text(text)
    scripts = embedded.take_scripts(tree)
    language = _language(tree)
    attributes = " ".join(_ATTRIBUTES(tree)).lower()
    about = page_metadata.read(
        tree, source.url, attributes, american=language == "en-US", thorough=precise
    )
    claims = page_metadata.claims(tree, source.url)
    body = embedded.completed(_body(tree, source.url, attributes, precise=precise), tree, scripts)
    if len(body) < SHORT:
        visible = trafilatura.html2txt(tree).strip()
        body = visible if len(body) < SHARE * len(visible) else _whole(tree, body)
    more = {"site": about.sitename, "description": about.description, "license": about.license}
    more |= claims
    return Document(
        body,
        title=about.title or " ".join((tree.findtext(".//title") or "").split()) or None,
        author=about.author,
        date=about.date,
        language=language,
        metadata={name: value for name, value in more.items() if value},
    )


def _whole(tree: Any, body: str) -> str:
    """A short text, or all of the page but its boilerplate if that is more, and not of links."""
    lines = "\n".join(lines_of(tree.find("body")) if tree.find("body") is not None else [])
    links = sum(len(link.text_content().strip()) for link in tree.iter("a"))
    return lines if len(body) < KEPT * len(lines) and links < SHARE * len(lines) else body


def _parsed(text: str) -> Any:
    """The tree of a page, or None if it is empty or nested so deeply that the parser gives up."""
    data = _HTML_TAG.sub(r"\1>", text, count=1).encode("utf-8", "replace")
    parser = html.HTMLParser(
        collect_ids=False,
        default_doctype=False,
        encoding="utf-8",
        remove_comments=True,
        remove_pis=True,
    )
    parser.set_element_class_lookup(_CLASSES)
    try:
        tree = html.document_fromstring(data.translate(None, _CONTROLS), parser=parser)
    except ParserError:  # no markup, no text
        return None
    return None if any(e.type_name == "ERR_RESOURCE_LIMIT" for e in parser.error_log) else tree


def _body(tree: Any, url: str, attributes: str, *, precise: bool) -> str:
    """The main text of a page, with all of its prose. Changes the tree."""

    def extracted(*, fast: bool) -> str:
        page: Any = trafilatura.bare_extraction(
            tree, url=url, fast=fast, favor_precision=precise, include_comments=False
        )
        return (page.text or "").strip() if page else ""

    _adapt(tree, attributes)
    prose = Prose(tree)
    body = extracted(fast=not precise)
    if precise and not prose.posts:
        return body
    lost = prose.lost(body)
    if not prose.posts and prose.share(lost) > 1 - MOST:
        other = extracted(fast=False)
        body, lost = min(
            (body, lost), (other, prose.lost(other)), key=lambda each: prose.share(each[1])
        )
    return prose.completed(body, lost)


def _adapt(tree: Any, attributes: str) -> None:
    """Write markup that trafilatura drops as markup that it keeps."""
    for element in _CAPTIONS(tree) if "caption" in attributes else ():
        for name in ("class", "id"):
            element.attrib.pop(name, None)
    for element in tree.iter(*_ADAPTED):
        size = len(element.text_content().strip())
        match element.tag:
            case "figcaption" | "center" if next(element.iter("p", "div", "table"), None) is None:
                element.tag = "p"
            case "figure" | "figcaption" | "center" if size:
                element.tag = "div"
            case "aside" if _NOTE.search(f"{element.get('role')} {element.get('class')}"):
                element.tag = "div"
            case "button" if size >= LONG // 2 and "aria-expanded" in element.attrib:
                element.tag = "strong"  # as the summary of details
            case "template" if element.get("shadowrootmode"):
                element.tag = "div"
            case "time" if (parent := element.getparent()).tag in _RUNNING:
                is_inside = (element.tail or "").strip(" \n\t.,|·-—")
                if is_inside or len(parent.text_content().strip()) >= 2 * LONG:
                    element.tag = "span"
    for element in tree.iter("q", "ruby", "rb", "rp", "rt"):  # each would be a line
        element.tag = "span"
    for cell in tree.iter("td", "th"):
        for listing in cell.iter("ul", "ol", "dl"):
            if len(listing.text_content()) < CELL:
                for item in listing.iter("li", "dt", "dd"):
                    item.tag = "p"
                listing.tag = "div"


def _language(tree: Any) -> str | None:
    """The declared language. It is never guessed."""
    metas = {}
    for meta in tree.iter("meta"):
        name = meta.get("http-equiv") or meta.get("property") or meta.get("name") or ""
        metas[name.lower()] = meta.get("content")
    attributes = ("lang", "{http://www.w3.org/XML/1998/namespace}lang", "xml:lang")
    declared = [
        *map(tree.get, attributes),
        *map(metas.get, ("content-language", "og:locale", "language", "dc.language")),
        *(body.get("lang") for body in tree.iter("body", "main", "article")),
    ]
    found = (_LANGUAGE.match((value or "").strip()) for value in declared)
    return next((match[0].replace("_", "-") for match in found if match), None)
