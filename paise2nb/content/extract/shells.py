"""Whether a page is only the shell of an application, which scripts fill in the browser."""

import re
from itertools import islice
from typing import Any

from lxml import html
from lxml.etree import ParserError

from paise2nb.core.text import count_words

MOST_ROOTS = 20  # elements that are examined; hostile pages have thousands, one in the other
FEW = 30  # words that a shell may have besides, such as those of a footer
# The element that React, Vue, Angular, Next, Nuxt, Svelte, Gatsby and others fill.
_ROOT = re.compile(r"(?:_*(?:root|app|application|next|nuxt|gatsby|svelte|main|spa|mount)_*)")
# What scripts show above or beside a page that has a text of its own.
_OTHER = re.compile(
    "ads|banner|chat|comments|consent|cookie|dialog|fb|footer|header|menu|modals?|nav|overlay|popup"
    "|portal|sidebar|toast|tooltip|widget"
)
_ROOT_PARTS = re.compile(r"[-_]+|(?<=[a-z])(?=[A-Z])")
_PLACEHOLDER = re.compile(  # of a template in the page
    r"\{\{(?:(?!\{\{|\}\}).)*+\}\}|\[\[(?:(?!\[\[|\]\]).)*+\]\]", re.DOTALL
)
_WAITING = re.compile(r"(?i)\W*(?:loading|please wait|one moment|initiali[sz]ing)\b[^.]{0,40}\W*")
_INVISIBLE = frozenset({"script", "style", "template", "noscript", "svg", "head"})
_DATA = re.compile(r"(?i)\b(?:json|text/(?:template|html|x-))")  # types of scripts that run nothing


def is_shell(page: str) -> bool:
    """Whether scripts have yet to make the text of a page.

    It has scripts and next to no text, and is empty, or has an element that an application fills,
    or says that it needs JavaScript.

    Args:
        page: HTML.
    """
    try:
        tree = html.document_fromstring(page.encode("utf-8", "replace"), parser=_parser())
    except ParserError:
        return False
    body = tree if (found := tree.find("body")) is None else found
    scripts = [script for script in tree.iter("script") if not _DATA.search(script.get("type", ""))]
    if not any(script.get("src") or script.text for script in scripts):
        return False
    notes = ((element.text_content() or "").lower() for element in tree.iter("noscript"))
    needs_scripts = any("javascript" in note and "comments" not in note for note in notes)
    for element in list(body.iter()):
        if element.tag in _INVISIBLE or "hidden" in element.attrib:
            element[:], element.text = [], None
    words = _words(body)
    if words > FEW:
        return False
    roots = islice(filter(_is_root, body.iter()), MOST_ROOTS)
    return words == 0 or needs_scripts or not all(map(_words, roots))


def _parser() -> Any:
    return html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)


def _is_root(element: Any) -> bool:
    """Whether an application fills an element."""
    if not isinstance(element.tag, str):
        return False
    name = element.get("id") or element.tag
    is_component = "-" in element.tag and not element.get("id")
    parts = [part.lower() for part in _ROOT_PARTS.split(name) if part]
    is_named = any(map(_ROOT.fullmatch, parts)) and not any(map(_OTHER.fullmatch, parts))
    is_root = is_named and (is_component or bool(element.get("id")))
    return is_root or "ng-app" in element.attrib


def _words(element: Any) -> int:
    """The number of words in an element that users see, but for those that tell them to wait."""
    text = _PLACEHOLDER.sub(" ", " ".join(element.itertext())).strip()
    return 0 if _WAITING.fullmatch(text) else count_words(text)
