"""Addresses in what others wrote: feeds, sitemaps and pages, read without trust.

No parser here loads anything, expands entities without bound, or sees more than it may hold.
"""

from __future__ import annotations

import calendar
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin

from paise2nb.content.extract.text import decode
from paise2nb.content.extract.types import PAGES
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Fetched

LARGEST = 50 << 20  # bytes of a sitemap, unpacked; the limit of its protocol
MOST_TAGS = 500_000  # of a feed: its parser takes a kilobyte and fifty microseconds for each
CHUNK = 65536  # bytes
FEEDS = ("application/rss+xml", "application/atom+xml")


def feed_entries(fetched: Fetched) -> dict[str, float | None]:
    """The addresses of a feed's entries, with the time of their last change.

    Raises:
        PermanentError: ``damaged``, it is no feed.
    """
    import feedparser

    if fetched.data.count(b"<") > MOST_TAGS:
        raise PermanentError(f"a feed of more than {MOST_TAGS} tags: {fetched.url}", "too_large")
    charset = f"; charset={fetched.charset}" if fetched.charset else ""
    # Only a file object is surely taken for the feed, not for its name.
    headers = {"content-type": f"application/xml{charset}", "content-location": fetched.url}
    try:
        parsed: Any = feedparser.parse(io.BytesIO(fetched.data), response_headers=headers)
    except ValueError as error:  # of a damaged declaration of the character set
        raise PermanentError(f"no feed ({error}): {fetched.url}", "damaged") from error
    if not parsed.get("version") and not parsed.entries:
        named = [
            link.get("href")
            for link in parsed.feed.get("links", ())
            if link.get("rel") == "alternate" and link.get("type") in FEEDS
        ]
        hint = f", but the page names one, {named[0]}" if named else ""
        raise PermanentError(f"no feed{hint}: {fetched.url}", "damaged")
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
    found = _Map()
    parser = etree.XMLParser(
        target=found, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        for chunk in _chunks(data):
            parser.feed(chunk)
        parser.close()
    except etree.XMLSyntaxError as error:
        raise PermanentError(f"no sitemap ({error.msg}): {fetched.url}", "damaged") from error
    if not found.pages and not found.maps:
        raise PermanentError(f"no sitemap, or an empty one: {fetched.url}", "damaged")
    return found.pages, found.maps


class _Map:
    """Collects the addresses of a sitemap, as a parser's target: no tree is built."""

    def __init__(self) -> None:
        self.pages: dict[str, float | None] = {}
        self.maps: list[str] = []
        self._entry: dict[str, str] = {}
        self._field: str | None = None

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if name in ("url", "sitemap"):
            self._entry = {}
        self._field = name if name in ("loc", "lastmod") and name not in self._entry else None

    def data(self, text: str) -> None:
        if self._field:
            self._entry[self._field] = self._entry.get(self._field, "") + text

    def end(self, tag: str) -> None:
        self._field = None
        name = tag.rpartition("}")[2]
        address = self._entry.get("loc", "").strip()
        if name == "url":
            self.pages[address] = _iso(self._entry.get("lastmod"))
        elif name == "sitemap":
            self.maps.append(address)

    def close(self) -> None:
        """The end of the sitemap."""


def page_links(fetched: Fetched) -> Iterator[str]:
    """The addresses that a page links to."""
    from lxml import html

    if fetched.mime_type not in (None, *PAGES):
        return
    text = decode(fetched.data, fetched.charset).encode("utf-8", "replace")
    found = _Links(fetched.url)
    parser = html.HTMLParser(target=found, encoding="utf-8", huge_tree=True)
    for chunk in _chunks(text):
        parser.feed(chunk)
        yield from found.addresses
        found.addresses.clear()
    if text:
        parser.close()
        yield from found.addresses


class _Links:
    """Collects the addresses that a page links to, as a parser's target."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.addresses: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag not in ("base", "a", "area"):
            return
        with suppress(ValueError):
            address = urljoin(self.base, attributes.get("href", "").strip())
            if tag == "base":
                self.base = address
            elif attributes.get("href"):
                self.addresses.append(address)

    def close(self) -> None:
        """The end of the page."""


def _chunks(data: bytes) -> Iterator[bytes]:
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


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
