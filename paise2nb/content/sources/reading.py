"""Finding URLs in feeds, sitemaps and pages that may be hostile.

No parser here loads anything, expands entities without limit, or gets input without limit.
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

from paise2nb.content.extract.text import chunks, decode
from paise2nb.content.extract.types import PAGES
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Fetched

MAX_BYTES = 50 << 20  # of an unpacked sitemap; the limit of its protocol
MAX_TAGS = 500_000  # of a feed; its parser takes a kilobyte and fifty microseconds for each
FEEDS = ("application/rss+xml", "application/atom+xml")


def feed_entries(fetched: Fetched) -> dict[str, float | None]:
    """The URLs of the entries of a feed, with the time of their last change.

    Raises:
        PermanentError: ``damaged``: it is not a feed. ``too_large``.
    """
    import feedparser

    if fetched.data.count(b"<") > MAX_TAGS:
        raise PermanentError(f"a feed of more than {MAX_TAGS} tags: {fetched.url}", "too_large")
    charset = f"; charset={fetched.charset}" if fetched.charset else ""
    # From a file object, because feedparser may take bytes for a URL or a file name.
    headers = {"content-type": f"application/xml{charset}", "content-location": fetched.url}
    try:
        parsed: Any = feedparser.parse(io.BytesIO(fetched.data), response_headers=headers)
    except ValueError as error:  # a damaged declaration of the character set
        raise PermanentError(f"not a feed ({error}): {fetched.url}", "damaged") from error
    if not parsed.get("version") and not parsed.entries:
        alternate = [link for link in parsed.feed.get("links", ()) if link.get("type") in FEEDS]
        named = [link.get("href") for link in alternate if link.get("rel") == "alternate"]
        hint = f", but the page links to one, {named[0]}" if named else ""
        raise PermanentError(f"not a feed{hint}: {fetched.url}", "damaged")
    linked = (entry for entry in parsed.entries if entry.get("link"))
    return {urljoin(fetched.url, entry.link): _updated(entry) for entry in linked}


def sitemap_entries(fetched: Fetched) -> tuple[dict[str, float | None], list[str]]:
    """The pages of a sitemap with the time of their last change, and the sitemaps of an index.

    Raises:
        PermanentError: ``too_large`` or ``damaged``.
    """
    from lxml import etree

    data = fetched.data
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(31).decompress(data, MAX_BYTES + 1)
        except zlib.error as error:
            raise PermanentError(f"not a sitemap ({error}): {fetched.url}", "damaged") from error
    if len(data) > MAX_BYTES:
        raise PermanentError(f"unpacks to more than {MAX_BYTES} bytes: {fetched.url}", "too_large")
    if data.lstrip().startswith((b"http:", b"https:")):  # the plain form: one URL per line
        return dict.fromkeys(decode(data, fetched.charset, fetched.url).split()), []
    found = _Sitemap()
    parser = etree.XMLParser(
        target=found, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        for chunk in chunks(data):
            parser.feed(chunk)
        parser.close()
    except etree.XMLSyntaxError as error:
        raise PermanentError(f"not a sitemap ({error.msg}): {fetched.url}", "damaged") from error
    if not found.pages and not found.maps:
        raise PermanentError(f"not a sitemap, or an empty one: {fetched.url}", "damaged")
    return found.pages, found.maps


class _Sitemap:
    """A parser target that collects the URLs of a sitemap, without building a tree."""

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
        url = self._entry.get("loc", "").strip()
        if name == "url":
            self.pages[url] = _from_w3c(self._entry.get("lastmod", "").strip())
        elif name == "sitemap":
            self.maps.append(url)

    def close(self) -> None:
        """Do nothing: the parser requires this method."""


def page_links(fetched: Fetched) -> Iterator[str]:
    """The URLs that a page links to, as soon as the parser finds them."""
    from lxml import html

    text = decode(fetched.data, fetched.charset, fetched.url).encode("utf-8", "replace")
    if not text or fetched.mime_type not in (None, *PAGES):
        return
    found = _Links(fetched.url)
    parser = html.HTMLParser(target=found, encoding="utf-8", huge_tree=True)
    for chunk in chunks(text):
        parser.feed(chunk)
        yield from found.urls
        found.urls.clear()
    parser.close()
    yield from found.urls


class _Links:
    """A parser target that collects the URLs that a page links to."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.urls: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag not in ("base", "a", "area"):
            return
        with suppress(ValueError):
            url = urljoin(self.base, attributes.get("href", "").strip())
            if tag == "base":
                self.base = url
            elif attributes.get("href"):
                self.urls.append(url)

    def close(self) -> None:
        """Do nothing: the parser requires this method."""


def _updated(entry: Any) -> float | None:
    """The time of an entry's last change, None if it is missing or out of range."""
    moment: Any = dict.get(entry, "updated_parsed") or dict.get(entry, "published_parsed")
    with suppress(TypeError, ValueError, OverflowError):
        return float(calendar.timegm(moment))
    return None


def _from_w3c(text: str) -> float | None:
    """The time of a W3C date, which may be only a year or a month."""
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text + "-01" * {4: 2, 7: 1}.get(len(text), 0))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
