"""The task that follows the links of pages: those of one page, or those of a whole site.

A page is fetched by a `links` job if its links are to be followed, too, and by a `fetch` job if
not. What the crawl has found is in the job store, so it goes on wherever it was interrupted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from paise2nb.content import crawl
from paise2nb.content.crawl import MAX_URLS, NOINDEX, SAME_TEXT, Claims, Crawl
from paise2nb.content.extract.types import PAGES
from paise2nb.content.fetch import visit
from paise2nb.content.render_mode import ALWAYS, render_mode
from paise2nb.content.sources import check_url, is_new, new_jobs, reading
from paise2nb.content.tasks import hand_over, is_shell
from paise2nb.core import urls
from paise2nb.core.errors import UsageError
from paise2nb.jobs.context import Context
from paise2nb.jobs.crawls import KNOWN, NOFOLLOW
from paise2nb.jobs.models import Found, Link, NewJob
from paise2nb.plugins import AppInfo, Fetched, Source, task


def check_links(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept a URL, a depth, patterns and a number of pages. Raises UsageError."""
    given = Crawl(*args[1:])
    if not (isinstance(given.depth, int) and 1 <= given.depth <= 100):
        raise UsageError(f"depth is {given.depth!r}; give a number from 1 to 100")
    if not (isinstance(given.max_pages, int) and given.max_pages >= 1):
        raise UsageError(f"max_pages is {given.max_pages!r}; give a number from 1")
    if not all(given.pattern):
        raise UsageError("a pattern is empty; give a glob such as https://example.org/news/*")
    return check_url(app, args)


@task("links", check=check_links, host=lambda args: urls.host_of(args[0]))
def links(
    context: Context,
    url: str,
    depth: int = 1,
    same_host: bool = True,
    pattern: Sequence[str] = (),
    max_pages: int = MAX_URLS,
    host: str | None = None,
) -> dict[str, Any]:
    """Enqueue the pages that a page links to. A depth above 1 follows their links, too."""
    is_first = context.job.parent_id is None
    if not is_first and crawl.leads_to_known_text(context, url):
        return {"found": 0, "new": 0, "skipped": SAME_TEXT}
    fetched = visit(context, url)
    is_page = reading.kind_of(fetched) in PAGES
    if is_first and not is_page:
        raise reading.wrong_task("page", fetched)
    here = Crawl(depth, same_host, pattern, max_pages, host or urls.host_of(fetched.url))
    if is_page and _needs_browser(context, fetched):
        hand_over(context, url, fetched, following=here)
        context.found = Found([], max_pages)  # the first page begins the crawl
        return {"found": 0, "new": 0, "rendered": True}
    result = follow(context, url, fetched, here, is_first=is_first)
    if not is_first and "skipped" not in result:  # a page on the way becomes an item, too
        hand_over(context, url, fetched)
    return result


def _needs_browser(context: Context, fetched: Fetched) -> bool:
    about = Source(fetched.url, "text/html", fetched.charset)
    is_always = render_mode(context.settings.fetch, fetched.url) == ALWAYS
    return is_always or is_shell(context, fetched.data, about)


def follow(
    context: Context, url: str, fetched: Fetched, here: Crawl, *, is_first: bool
) -> dict[str, Any]:
    """Enqueue the pages that a page of a crawl links to.

    Args:
        context: The execution that has the page.
        url: As it was found.
        fetched: The page, or a file without links.
        here: The crawl.
        is_first: Whether it is the first page of the crawl, which is not stored.

    Returns:
        How many pages these are, what is left out, and why the page itself is ``skipped``.
    """
    page = reading.Page({}, None, [], "")
    if reading.kind_of(fetched) in PAGES:
        page = reading.read_page(fetched)
    robots = crawl.directives(context, fetched.meta.get("robots"), *page.robots)
    reason = ""
    if not is_first:
        claims = Claims(robots, page.canonical, crawl.digest(page.text, "page"))

        def page_job(url: str) -> NewJob:
            return _jobs(context, here._replace(depth=here.depth + 1), [url])[0]

        reason = crawl.reason_to_skip(context, here, url, fetched.url, claims, page_job)
        if reason and reason != NOINDEX:
            return {"found": 0, "new": 0, "skipped": reason}
    result = _enqueue(context, here, page, follows=NOFOLLOW not in robots, is_first=is_first)
    return {**result, "skipped": reason} if reason else result


def _enqueue(
    context: Context, here: Crawl, page: reading.Page, *, follows: bool, is_first: bool
) -> dict[str, Any]:
    """Enqueue the pages that a page links to; say how many these are, and what is left out."""
    robots = context.settings.fetch.robots
    found = {url: is_nofollow and robots for url, is_nofollow in page.links.items()}
    all_links = crawl.sorted_links(here, found, follows=follows)
    all_links = crawl.without_known_texts(context, all_links)
    wanted = [link for link in all_links if not link.reason]
    known = context.job_store.crawled(context.job.root_id, [link.key for link in wanted])
    if is_first:  # the crawl begins again
        known = {}
    new = [link for link in wanted if not _is_settled(known.get(link.key), link)]
    jobs = _jobs(context, here, [link.url for link in new])
    latest = context.job_store.latest(job.key for job in jobs) if here.depth == 1 else {}
    settled = [
        link._replace(job=job)
        if here.depth > 1 or is_new(context, link.url, None, latest.get(job.key or 0))
        else link._replace(reason=KNOWN)
        for link, job in zip(new, jobs, strict=True)
    ]
    left_out = [link for link in all_links if link.reason]
    context.found = Found([*settled, *left_out], here.max_pages)
    result: dict[str, Any] = {"found": len(wanted), "new": len(context.found.jobs)}
    if reasons := Counter(link.reason for link in left_out):
        result["left_out"] = dict(reasons)
    if is_first and not wanted:
        limits = " on its host" * here.same_host + " that matches the patterns" * bool(here.pattern)
        context.log.warning("0 found: no link to a page%s", limits)
        result["warning"] = f"0 found: no link to a page{limits}"
    return result


def _is_settled(known: Any, link: Link) -> bool:
    return known is not None and known.is_settled(link.depth, link.reason)


def _jobs(context: Context, here: Crawl, pages: list[str]) -> list[NewJob]:
    """The jobs of pages that follow from one: they fetch it, or follow its links, too."""
    if here.depth == 1:
        return new_jobs(context, "fetch", [(url,) for url in pages])
    rest = (here.depth - 1, here.same_host, [*here.pattern], here.max_pages, here.host)
    return new_jobs(context, "links", [(url, *rest) for url in pages])
