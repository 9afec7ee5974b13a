"""The metadata of a page, as trafilatura finds it but in less time."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

from lxml.etree import XPath
from trafilatura import metadata

from paise2nb.content.extract.dates import published
from paise2nb.core.urls import canonical_url

logger = logging.getLogger("paise2nb.content.extract")

# What names of elements or attributes have if trafilatura finds an author (`AUTHOR_XPATHS`).
BYLINES = (
    *("author", "byl", "bbl", "username", "zuozhe", "bianji", "xiaobian", "channel-name"),
    *("submitted-by", "posted-by", "journalist-name", "screenname", "writer"),
)
# The same for the text and the attributes of links to a license (`LICENSE_REGEX`).
_LICENSES = ("license", "/by", "/zero/", "cc by", "cc zero", "commons by", "commons zero")
_NAMED_BY = ("class", "id", "itemprop", "rel", "data-component", "data-testid")
_DATA = XPath("//script[contains(@type, 'json')]/text()", smart_strings=False)
SHORT_DATA = 20_000  # characters; those that are no JSON take trafilatura a second
_NAMES = XPath(" | ".join(map("//body//@{}".format, _NAMED_BY)), smart_strings=False)


def read(
    tree: Any, url: str, attributes: str, *, american: bool = False, thorough: bool = False
) -> Any:
    """The metadata of a page.

    trafilatura's `extract_metadata` takes more than half of the time of an extraction
    (tests/benchmarks/extraction.py). This leaves out categories and tags, dates in the text, and
    what nothing in the page is named like.

    Args:
        tree: The page.
        url: Its URL.
        attributes: The values of all attributes of the page, in lower case.
        american: Whether the month comes first in dates if the page itself does not tell.
        thorough: Search the text for a date, too.

    Returns:
        A document of trafilatura.
    """

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
    if all(map(_may_be_read, _DATA(tree))):
        found(metadata.extract_meta_json, tree, about)  # changes `about`
    about.title = about.title or found(metadata.extract_title, tree)
    if not about.author and _may_have_byline(tree, attributes):
        about.author = found(metadata.extract_author, tree)
    about.url = about.url or found(metadata.extract_url, tree, url) or url
    about.date = found(published, tree, about.url, attributes, american=american, thorough=thorough)
    site = (about.sitename or found(metadata.extract_sitename, tree) or "").lstrip("@")
    parts = found(urlsplit, about.url)
    about.sitename = site or (parts and parts.netloc.removeprefix("www."))
    text = attributes + tree.text_content().lower()
    if any(name in text for name in _LICENSES):
        about.license = found(metadata.extract_license, tree)
    about.clean_and_trim()
    return about


def _may_be_read(data: str) -> bool:
    """Whether trafilatura reads JSON in linear time: it does unless a text in it has no end."""
    try:
        if len(data) >= SHORT_DATA:
            json.loads(data, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _may_have_byline(tree: Any, attributes: str) -> bool:
    if any(name in attributes for name in BYLINES):
        names = " ".join(_NAMES(tree)).lower()
        return any(name in names for name in BYLINES)
    return tree.find(".//author") is not None


def claims(tree: Any, url: str) -> dict[str, Any]:
    """What a page asks of crawlers: ``robots``, and its ``canonical`` URL unless it is this one."""
    robots, canonical = [], url
    for element in tree.iter("meta", "link"):
        name, rel = (element.get(key, "").lower() for key in ("name", "rel"))
        if name in ("robots", "paise2nb") and element.tag == "meta":
            robots.append(element.get("content", ""))
        elif "canonical" in rel.split() and element.get("href"):
            with suppress(ValueError):
                canonical = urljoin(url, element.get("href").strip())
    is_own = canonical_url(canonical) == canonical_url(url)
    return {"robots": robots, "canonical": None if is_own else canonical}
