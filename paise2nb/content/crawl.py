"""What belongs to a crawl: which links are followed, and which fetched pages are not stored.

A page that asks for it, by a robots meta element or an X-Robots-Tag header, is not stored or its
links are not followed, unless `fetch.robots` is off.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from paise2nb.content import traps
from paise2nb.core import urls
from paise2nb.jobs.context import Context
from paise2nb.jobs.crawls import NOFOLLOW, PAGE
from paise2nb.jobs.models import Found, Link, NewJob

MAX_URLS = 50_000  # URLs of one run; the limit of the sitemap protocol
OTHER_HOST, PATTERN, NOINDEX = "other_host", "pattern", "noindex"
CANONICAL, SAME_TEXT = "canonical", "same_text"
MOST_SAME = (
    20  # pages in succession with a known text, after which URLs of their shape are left out
)
# Directives that are followed by a colon, too.
_WITH_VALUES = ("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after")
SHORT_TEXT = 40  # characters without spaces; pages with less text may differ in other ways


class Crawl(NamedTuple):
    """The arguments of a `links` job after its URL.

    Attributes:
        depth: How many links to follow.
        same_host: Whether to stay on the host.
        pattern: Globs, one of which URLs have to match, if there are any.
        max_pages: The most pages of the crawl.
        host: That of its first page; None in the job that fetches that page.
    """

    depth: int = 1
    same_host: bool = True
    pattern: Sequence[str] = ()
    max_pages: int = MAX_URLS
    host: str | None = None

    def refuses(self, url: str) -> str:
        """Why a URL does not belong to the crawl; empty if it does."""
        if self.same_host and not self.is_on_host(url):
            return OTHER_HOST
        if self.pattern and not any(fnmatchcase(url, glob) for glob in self.pattern):
            return PATTERN
        return traps.trap(url)

    def is_on_host(self, url: str) -> bool:
        """Whether a URL is on the host, with or without ``www.``."""
        return self.host is None or _site(urls.host_of(url)) == _site(self.host)


class Claims(NamedTuple):
    """What a page says about itself.

    Attributes:
        robots: The directives of robots meta elements and of the header.
        canonical: The URL that the page gives as its own, or None.
        text: What tells whether another page has the same text, empty if nothing does.
    """

    robots: Collection[str] = ()
    canonical: str | None = None
    text: bytes = b""


def key_of(url: str) -> int:
    """A number that is equal for URLs of the same page."""
    url, _, query = urls.canonical_url(traps.without_session(url)).partition("?")
    return _number(f"{url}?{'&'.join(sorted(query.split('&')))}".encode("utf-8", "replace"))


def shape_of(url: str) -> int:
    """A number that is equal for URLs that differ only in numbers and in values of parameters."""
    url, _, query = urls.canonical_url(url).partition("?")
    names = sorted(part.partition("=")[0] for part in query.split("&"))
    return _number(f"shape {re.sub(r'[0-9]+', '0', url)} {names}".encode("utf-8", "replace"))


def leads_to_known_text(context: Context, url: str) -> bool:
    """Whether a page of a crawl need not be fetched. Then it is left out."""
    page = Link(key_of(url), url, 0, PAGE, None)
    [link] = without_known_texts(context, [page])
    if link.reason and not context.is_replay:
        root = context.job.root_id
        context.job_store.leave_out(root, link.key, urls.shown_url(url), link.reason, None)
    return bool(link.reason)


def without_known_texts(context: Context, links: list[Link]) -> list[Link]:
    """Leave out the links of shapes that have led to nothing but known texts."""
    shapes = [shape_of(link.url) for link in links]
    known = context.job_store.crawled(context.job.root_id, list(set(shapes)))
    return [
        link._replace(reason=SAME_TEXT)
        if not link.reason and shape in known and known[shape].depth >= MOST_SAME
        else link
        for link, shape in zip(links, shapes, strict=True)
    ]


def digest(text: str, kind: str) -> bytes:
    """The digest of the words of a text, in any order; empty if the text is short.

    So a list is the same however it is sorted.
    """
    text = "".join(sorted(text.split()))
    if len(text) < SHORT_TEXT:
        return b""
    return hashlib.blake2b(text.encode("utf-8", "replace"), person=kind.encode()).digest()


def directives(context: Context, *values: str | None) -> set[str]:
    """The directives in values of robots meta elements and X-Robots-Tag headers, as far as obeyed.

    A header may name the robots that it is for: ``otherbot: noindex``.
    """
    if not context.settings.fetch.robots:
        return set()
    found = set()
    for value in filter(None, values):
        agent = ""
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in _WITH_VALUES:
                agent, part = name.strip(), rest
            if agent in ("", "robots", "paise2nb"):
                found.update(part.split())
    return found | ({NOINDEX, NOFOLLOW} if "none" in found else set())


def fetchable(
    found: Iterable[str], schemes: Collection[str] = tuple(urls.DEFAULT_PORTS)
) -> Iterator[str]:
    """The valid URLs of some schemes, each once and at most `MAX_URLS`."""
    seen: set[str] = set()
    for url in found:
        scheme = urls.scheme_of(url.strip())
        is_valid = scheme not in urls.DEFAULT_PORTS or urls.host_of(url) is not None
        is_valid = is_valid and not urls.has_hidden_secret(url)
        if scheme not in schemes or not is_valid or len(seen) == MAX_URLS:
            continue
        if (key := urls.canonical_url(url)) not in seen:
            seen.add(key)
            yield url.partition("#")[0].strip()


def sorted_links(crawl: Crawl, found: dict[str, bool], *, follows: bool) -> list[Link]:
    """The links of a page, each with the reason for which it is left out.

    Args:
        crawl: Of the page.
        found: The URLs, each with whether its link has ``rel=nofollow``.
        follows: Whether the links of the page may be followed.
    """
    links: dict[int, Link] = {}
    for url in fetchable(found):
        page = traps.without_session(url)
        reason, key = crawl.refuses(page), key_of(page)
        if reason == OTHER_HOST:  # one for each host
            key = _number(f"{OTHER_HOST} {urls.host_of(page)}".encode())
        elif not reason and (found[url] or not follows):
            reason = NOFOLLOW
        if key not in links or links[key].reason == NOFOLLOW:
            links[key] = Link(key, page, crawl.depth - 1, reason, None)
    return list(links.values())


def reason_to_skip(
    context: Context, crawl: Crawl, url: str, final_url: str, claims: Claims,
    page_job: Callable[[str], NewJob],
) -> str:  # fmt: skip
    """Why a fetched page of a crawl is not stored; empty if it is. Noted for the crawl.

    If the page names another URL as its own, that one becomes a page of the crawl.

    Args:
        context: The execution that decides.
        crawl: With the host of the crawl.
        url: As it was found.
        final_url: The one that redirects led to.
        claims: What the page says about itself.
        page_job: Makes the job of a page.
    """
    own, other = key_of(url), _canonical(crawl, url, final_url, claims.canonical)
    job_store, root = context.job_store, context.job.root_id
    if crawl.same_host and not crawl.is_on_host(final_url):
        reason = OTHER_HOST
    elif NOINDEX in claims.robots:
        reason = NOINDEX
    elif other is not None:
        reason = CANONICAL
    else:
        reason = SAME_TEXT if _is_known_text(context, url, claims.text) else PAGE
    shown = urls.shown_url(url)
    instead = key_of(other) if reason == CANONICAL and other else None
    is_left_out = reason and (
        context.is_replay or job_store.leave_out(root, own, shown, reason, instead)
    )
    if is_left_out and other and instead is not None:
        link = Link(instead, other, crawl.depth, PAGE, page_job(other))
        context.found = Found([link], crawl.max_pages)
    return reason if is_left_out else PAGE


def _is_known_text(context: Context, url: str, text: bytes) -> bool:
    if not text or context.is_replay:
        return False
    shown, root = urls.shown_url(url), context.job.root_id
    return context.job_store.is_known_text(root, _number(text), shown, shape_of(url))


def _canonical(crawl: Crawl, url: str, final_url: str, named: str | None) -> str | None:
    """The URL that a page names as its own, if it may be right.

    Many sites name their start page in each page.
    """
    if named is None or next(fetchable([named]), None) is None or crawl.refuses(named):
        return None
    named = traps.without_session(named)
    is_start = urls.parse(named).target == "/" and urls.parse(final_url).target != "/"
    is_same = key_of(named) in (key_of(url), key_of(final_url))
    return None if is_start or is_same else named


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def _site(host: str | None) -> str:
    return (host or "").removeprefix("www.")


def of_page(context: Context, url: str) -> Crawl | None:
    """The crawl that a page belongs to; None if it belongs to none."""
    page_id, root_id = context.job.page_id, context.job.root_id
    if page_id is None or page_id == root_id:
        return None
    if (found := context.job_store.crawl_of(page_id)) is None:
        return None
    arguments, is_own = found
    crawl = Crawl(*arguments[1:])
    depth = crawl.depth if is_own else crawl.depth - 1
    return crawl._replace(depth=depth, host=crawl.host or urls.host_of(url))
