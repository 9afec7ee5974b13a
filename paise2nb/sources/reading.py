"""Addresses in what others wrote: feeds, sitemaps and pages, read without trust.

No parser here loads anything, expands entities without bound, or sees more than it may hold.
"""

from __future__ import annotations

import calendar
import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin

from paise2nb.errors import PermanentError
from paise2nb.extract.text import decode
from paise2nb.plugins import Fetched

LARGEST = 50 << 20  # bytes of a sitemap, unpacked; the limit of its protocol


def feed_entries(fetched: Fetched) -> dict[str, float | None]:
    """The addresses of a feed's entries, with the time of their last change.

    Raises:
        PermanentError: ``damaged``, it is no feed.
    """
    import feedparser

    charset = f"; charset={fetched.charset}" if fetched.charset else ""
    # Only a file object is surely taken for the feed, not for its name.
    headers = {"content-type": f"application/xml{charset}", "content-location": fetched.url}
    try:
        parsed: Any = feedparser.parse(io.BytesIO(fetched.data), response_headers=headers)
    except ValueError as error:  # of a damaged declaration of the character set
        raise PermanentError(f"no feed ({error}): {fetched.url}", "damaged") from error
    if not parsed.get("version") and not parsed.entries:
        raise PermanentError(f"no feed: {fetched.url}", "damaged")
    found: dict[str, float | None] = {}
    for entry in parsed.entries:
        moment = dict.get(entry, "updated_parsed") or dict.get(entry, "published_parsed")
        if link := entry.get("link"):
            found[urljoin(fetched.url, link)] = _seconds(moment)
    return found


def sitemap_entries(fetched: Fetched) -> tuple[dict[str, float | None], list[str]]:
    """The pages of a sitemap with the time of their last change, and the sitemaps of an index.

    Raises:
        PermanentError: ``too_large`` or ``damaged``.
    """
    from lxml import etree

    data = fetched.data
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(31).decompress(data, LARGEST + 1)
        except zlib.error as error:
            raise PermanentError(f"no sitemap ({error}): {fetched.url}", "damaged") from error
    if len(data) > LARGEST:
        raise PermanentError(f"unpacks to more than {LARGEST} bytes: {fetched.url}", "too_large")
    if data.lstrip().startswith((b"http:", b"https:")):  # the plain form: an address a line
        return dict.fromkeys(decode(data).split()), []
    pages: dict[str, float | None] = {}
    maps: list[str] = []
    steps = etree.iterparse(
        io.BytesIO(data), tag=("{*}url", "{*}sitemap"), resolve_entities=False, no_network=True,
        load_dtd=False, huge_tree=False,
    )  # fmt: skip
    try:
        for _, element in steps:
            address = (element.findtext("{*}loc") or "").strip()
            if element.tag.endswith("sitemap"):
                maps.append(address)
            else:
                pages[address] = _iso(element.findtext("{*}lastmod"))
            element.clear()
    except etree.XMLSyntaxError as error:
        raise PermanentError(f"no sitemap ({error.msg}): {fetched.url}", "damaged") from error
    if not pages and not maps:
        raise PermanentError(f"no sitemap, or an empty one: {fetched.url}", "damaged")
    return pages, maps


def page_links(fetched: Fetched) -> Iterator[str]:
    """The addresses that a page links to."""
    from lxml import etree, html

    if fetched.mime_type not in (None, "text/html", "application/xhtml+xml"):
        return
    text = decode(fetched.data, fetched.charset).encode("utf-8", "replace")
    try:
        tree = html.document_fromstring(text, parser=html.HTMLParser(encoding="utf-8"))
    except etree.ParserError:  # nothing in it
        return
    base = fetched.url
    for element in tree.iter("base", "a", "area"):
        with suppress(ValueError):
            address = urljoin(base, (element.get("href") or "").strip())
            if element.tag == "base":
                base = address
            elif element.get("href"):
                yield address


def _seconds(moment: Any) -> float | None:
    with suppress(TypeError, ValueError, OverflowError):
        return float(calendar.timegm(moment))
    return None


def _iso(text: str | None) -> float | None:
    """The time of a W3C date, which may be a year, a month or a day alone."""
    text = (text or "").strip()
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text + "-01" * {4: 2, 7: 1}.get(len(text), 0))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
