"""Finding URLs in feeds, sitemaps and pages that may be hostile.

No parser here loads anything, expands entities without limit, or gets input without limit.
"""

import calendar
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urljoin

from paise2nb.content.extract.text import chunks, decode
from paise2nb.content.extract.types import FEEDS, PAGES, SITEMAP, UNKNOWN, XML, media_type
from paise2nb.core.clock import first_day
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import name_of, suffix_of
from paise2nb.plugins import Fetched

# The link of an entry, the URLs and types of its enclosures, and the time of its last change.
Entry: TypeAlias = tuple[Any, list[tuple[Any, Any]], float | None]
MAX_BYTES = 50 << 20  # of an unpacked sitemap; the limit of its protocol
MAX_TAGS = 500_000  # of a feed; its parser takes a kilobyte and fifty microseconds for each
MAX_LINKS = 100_000  # of a page
MEDIA = ("audio/", "video/", "image/")  # enclosures without text
_AMPERSAND = re.compile(
    rb"<!\[CDATA\[.*?\]\]>|&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-f]+);)",
    re.IGNORECASE | re.DOTALL,
)
_NAMED_SITEMAP = re.compile(r"(?:^|\r)[ \t]*sitemap[ \t]*:[ \t]*(\S+)", re.I | re.M)


def kind_of(fetched: Fetched) -> str:
    """The MIME type of what was fetched."""
    return media_type(fetched.mime_type, fetched.data, suffix_of(fetched.url))


def wrong_task(task: str, fetched: Fetched, problem: object = "") -> PermanentError:
    """The error for a URL that is enqueued with a task for others. It says which one fits."""
    kind = kind_of(fetched)
    what, use = kind, "fetch"
    if kind in FEEDS:
        what = use = "sitemap" if kind == SITEMAP else "feed"
    elif kind in PAGES:
        what, use = "page", "links" if task == "sitemap" else "fetch"
    if what == task or kind in ("text/plain", "application/json", *XML, UNKNOWN):
        why = f" ({problem})" if problem else ""
        return PermanentError(f"not a {task}{why}: {fetched.url}", "damaged")
    message = f"not a {task}, but a {what}; to use it: paise2 enqueue {use} {fetched.url}"
    return PermanentError(message, "wrong_task")


def feed_entries(fetched: Fetched) -> dict[str, float | None]:
    """The URLs of the entries of a feed, with the time of their last change.

    An entry without a link leads to its enclosures, unless they can't contain text.

    Raises:
        PermanentError: ``damaged`` or ``wrong_task``: it is not a feed. ``too_large``.
    """
    is_json = kind_of(fetched) == "application/feed+json"
    found: dict[str, float | None] = {}
    for link, enclosures, changed in (_json_entries if is_json else _xml_entries)(fetched):
        others = [url for url, kind in enclosures if not str(kind).startswith(MEDIA)]
        for url in [link] if link else others:
            with suppress(ValueError):
                found[urljoin(fetched.url, str(url))] = changed
    return found


def _xml_entries(fetched: Fetched) -> Iterator[Entry]:
    import feedparser

    if fetched.data.count(b"<") > MAX_TAGS:
        raise PermanentError(f"a feed of more than {MAX_TAGS} tags: {fetched.url}", "too_large")
    charset = f"; charset={fetched.charset}" if fetched.charset else ""
    # From a file object, because feedparser may take bytes for a URL or a file name.
    headers = {"content-type": f"application/xml{charset}", "content-location": fetched.url}
    try:
        parsed: Any = feedparser.parse(io.BytesIO(fetched.data), response_headers=headers)
    except ValueError as error:  # a damaged declaration of the character set
        raise wrong_task("feed", fetched, error) from error
    if not parsed.get("version") and not parsed.entries:
        for link in parsed.feed.get("links", ()):
            if link.get("type") in FEEDS and link.get("rel") == "alternate":
                hint = f"but the page links to one: paise2 enqueue feed {link.get('href')}"
                raise PermanentError(f"not a feed, {hint}: {fetched.url}", "wrong_task")
        raise wrong_task("feed", fetched)
    for entry in parsed.entries:
        enclosures = [(one.get("href"), one.get("type")) for one in entry.get("enclosures", ())]
        yield entry.get("link"), enclosures, _updated(entry)


def _json_entries(fetched: Fetched) -> Iterator[Entry]:
    """Source: the JSON Feed specification, version 1.1."""
    try:
        for entry in json.loads(decode(fetched.data, fetched.charset))["items"]:
            link = entry.get("url") or entry.get("external_url")
            if str(entry.get("id")).startswith(("http:", "https:")):
                link = link or entry["id"]
            attached = [(a.get("url"), a.get("mime_type")) for a in entry.get("attachments") or ()]
            changed = _from_w3c(str(entry.get("date_modified") or entry.get("date_published")))
            yield link, attached, changed
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise wrong_task("feed", fetched, repr(error)) from error


def sitemap_entries(fetched: Fetched) -> tuple[dict[str, float | None], list[str]]:
    """The pages of a sitemap with the time of their last change, and the sitemaps of an index.

    A sitemap may also be a list of URLs, a feed, or a robots.txt that names sitemaps. Source:
    the sitemaps protocol 0.9, "Other Sitemap formats" and "Specifying the location".

    Raises:
        PermanentError: ``too_large``, ``damaged`` or ``wrong_task``.
    """
    fetched = _unpacked(fetched)
    data, kind = fetched.data.lstrip(b"\xef\xbb\xbf \t\r\n"), kind_of(fetched)
    if kind in FEEDS and kind != SITEMAP:
        return feed_entries(fetched), []
    if not data.startswith(b"<"):
        text = decode(data, fetched.charset).strip()
        named = _NAMED_SITEMAP.findall(text)
        if named or name_of(fetched.url) == "robots.txt":
            return {}, [urljoin(fetched.url, url) for url in named]
        if text.startswith(("http:", "https:")):
            return dict.fromkeys(text.split()), []
    pages: dict[str, float | None] = {}
    maps: list[str] = []
    try:
        for is_map, location, changed in _sitemap_tags(data):
            with suppress(ValueError):
                url = urljoin(fetched.url, location)
                if is_map and location:
                    maps.append(url)
                elif location:
                    pages[url] = changed
    except SyntaxError as error:  # of XML
        raise wrong_task("sitemap", fetched, error.msg) from error
    if kind != SITEMAP and not pages and not maps:
        raise wrong_task("sitemap", fetched)
    return pages, maps


def _unpacked(fetched: Fetched) -> Fetched:
    """A sitemap without its compression, within the limits of its protocol."""
    data = fetched.data
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(31).decompress(data, MAX_BYTES + 1)
        except zlib.error as error:
            raise PermanentError(f"not a sitemap ({error}): {fetched.url}", "damaged") from error
        fetched = replace(fetched, data=data, mime_type=None)
    if len(data) > MAX_BYTES or data.count(b"<") > 4 * MAX_TAGS:
        limits = f"{MAX_BYTES} bytes and {4 * MAX_TAGS} tags"
        raise PermanentError(f"a sitemap of more than {limits}: {fetched.url}", "too_large")
    return fetched


def _sitemap_tags(data: bytes) -> Iterator[tuple[bool, str, float | None]]:
    """Whether it is a sitemap, the location and the time of each entry."""
    from lxml import etree

    if b"\0" not in data[:4]:  # in place of "&amp;" many have "&", or HTML's names of characters
        data = _AMPERSAND.sub(lambda m: m[0] if m[0] != b"&" else b"&amp;", data)
    parser = etree.XMLPullParser(
        tag=("{*}url", "{*}sitemap"), resolve_entities=False, no_network=True, load_dtd=False
    )
    for chunk in chunks(data):
        parser.feed(chunk)
        for _, entry in parser.read_events():
            location, changed = (
                (entry.findtext(f"{{*}}{name}") or "").strip() for name in ("loc", "lastmod")
            )
            yield entry.tag.endswith("sitemap"), location, _from_w3c(changed)
            entry.clear()
            while entry.getprevious() is not None:  # or a large one would take much memory
                del entry.getparent()[0]
    parser.close()


class Page(NamedTuple):
    """A page as a crawl reads it.

    Attributes:
        links: The URLs that it links to, each with whether all of these links are ``nofollow``.
        canonical: The URL that it names as its own, or None.
        robots: The contents of its robots meta elements.
        text: Its text and the URLs of its images.
    """

    links: dict[str, bool]
    canonical: str | None
    robots: list[str]
    text: str


def read_page(fetched: Fetched) -> Page:
    """Read the links of a page, and what it says about itself."""
    from lxml import html

    text = decode(fetched.data, fetched.charset, fetched.url).encode("utf-8", "replace")
    reader = _PageReader(fetched.url)
    if text:
        parser = html.HTMLParser(target=reader, encoding="utf-8", huge_tree=True)
        for chunk in chunks(text):
            parser.feed(chunk)
        parser.close()
    return Page(reader.links, reader.canonical, reader.robots, "".join(reader.text))


class _PageReader:
    """A parser target that collects what is in a `Page`."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.links: dict[str, bool] = {}
        self.canonical: str | None = None
        self.robots: list[str] = []
        self.text: list[str] = []
        self._is_code = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._is_code = tag in ("script", "style")
        names = attributes.get("rel", "").lower().replace(",", " ").split()
        match tag:
            case "meta" if attributes.get("name", "").lower() in ("robots", "paise2nb"):
                self.robots.append(attributes.get("content", ""))
            case "img":
                self.text.append(attributes.get("src", "").partition("?")[0])
            case "base" | "a" | "area" | "link":
                with suppress(KeyError, ValueError):
                    self._link(tag, names, attributes["href"].strip())

    def _link(self, tag: str, names: list[str], href: str) -> None:
        url = urljoin(self.base, href)
        if tag == "base":
            self.base = url
        elif not href:
            return
        elif tag == "link":
            self.canonical = url if "canonical" in names else self.canonical
        elif url in self.links or len(self.links) < MAX_LINKS:
            self.links[url] = self.links.get(url, True) and "nofollow" in names

    def end(self, tag: str) -> None:
        self._is_code = False

    def data(self, text: str) -> None:
        if not self._is_code:
            self.text += text.split()

    def close(self) -> None:
        """Do nothing: the parser requires this method."""


def _updated(entry: Any) -> float | None:
    """The time of an entry's last change, None if it is missing or out of range."""
    moment: Any = dict.get(entry, "updated_parsed") or dict.get(entry, "published_parsed")
    with suppress(TypeError, ValueError, OverflowError):
        return float(calendar.timegm(moment))
    return None


def _from_w3c(text: str) -> float | None:
    """The time of a W3C date, which may be a year or a month. Of a day that is over, its end."""
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(first_day(text))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        # A page that was fetched on that day may have changed after it.
        end = moment + timedelta(days=len(text) == len("2026-01-31"))
        return (end if end <= datetime.now(UTC) else moment).timestamp()
    return None
