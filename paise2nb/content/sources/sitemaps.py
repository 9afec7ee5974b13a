"""The task that reads sitemaps: that of a URL, or those of a site, which it looks for itself."""

import json
from typing import Any

from paise2nb.content.crawl import fetchable
from paise2nb.content.fetch import visit
from paise2nb.content.sources import check_url, enqueue_new, reading
from paise2nb.core import urls
from paise2nb.core.errors import PermanentError, Snoozed, TaskError
from paise2nb.jobs.context import Context
from paise2nb.plugins import AppInfo, Fetched, task

# Where sitemaps are looked for: first in the rules for robots, then where most of the others are.
ROBOTS = "/robots.txt"
PLACES = (
    ROBOTS,
    *("/sitemap.xml", "/sitemap_index.xml", "/sitemap-index.xml", "/wp-sitemap.xml"),
    *("/sitemaps.xml", "/sitemap.xml.gz", "/sitemap.txt", "/sitemap/sitemap.xml"),
)
# Of indexes in each other. The protocol has one, but plugins of WordPress and others make more.
LEVELS = 3


def _sites(given: str) -> list[str]:
    """The URLs of a site, without a path, that a host or the URL of a start page stands for."""
    has_scheme = "://" in given
    tried = [given] if has_scheme else [f"https://{given}", f"http://{given}"]
    try:
        is_site = urls.parse(tried[0]).target == "/"
    except (TypeError, ValueError):
        return []
    return [url.rstrip("/") for url in tried] if is_site else []


def _check(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept the URL of a sitemap or of a site, or a host. Raises UsageError."""
    given = args[0].strip() if isinstance(args[0], str) else args[0]
    if isinstance(given, str) and _sites(given):
        return (given, *args[1:])
    return check_url(app, args)


def _host(args: tuple[Any, ...]) -> str | None:
    return urls.host_of(next(iter(_sites(args[0])), args[0]))


@task("sitemap", check=_check, host=_host)
def sitemap(context: Context, url: str, level: int = 0) -> dict[str, Any]:
    """Enqueue the pages of a sitemap, and the sitemaps of an index. A HOST: of those it has."""
    sites = _sites(url)
    fetched = _found(context, sites) if sites else visit(context, url)
    result = _enqueue(context, fetched, level)
    if not sites:
        return result
    shown = urls.shown_url(fetched.url)
    is_robots = urls.name_of(fetched.url) == ROBOTS[1:]
    named = f"{result.get('sitemaps', 0)} named by {shown}" if is_robots else shown
    return {**result, "sitemap": shown, "note": f"sitemap: {named}"}


def _enqueue(context: Context, fetched: Fetched, level: int) -> dict[str, Any]:
    pages, maps = reading.sitemap_entries(fetched)
    is_robots = urls.name_of(fetched.url) == ROBOTS[1:]
    if maps and (level == LEVELS or (is_robots and context.job.parent_id is not None)):
        problem = f"a sitemap index in more than {LEVELS - 1} others: {fetched.url}"
        raise PermanentError(problem, "unsupported")
    for map_url in fetchable(maps):
        context.enqueue("sitemap", map_url, *([] if is_robots else [level + 1]))
    if maps:
        return {**enqueue_new(context, pages, None), "sitemaps": len(maps)}
    return enqueue_new(context, pages, "it names no sitemap" if is_robots else "it lists no page")


def _found(context: Context, sites: list[str]) -> Fetched:
    """The first sitemap of a site, or its robots.txt if that names any.

    Each request needs a slot of the host. So the job is snoozed between them, with its place.

    Raises:
        PermanentError: ``not_found``.
    """
    job = context.job
    tried = [site + place for site in sites for place in PLACES]
    at, resume = json.loads(job.resume or "[0, null]")
    while at < len(tried):
        context.job = job._replace(resume=resume)
        try:
            fetched = visit(context, tried[at])
            if any(reading.sitemap_entries(fetched)):
                return fetched
            at += 1
        except Snoozed as error:
            raise Snoozed(error.host, json.dumps([at, error.resume]), error.crawl_delay) from None
        except PermanentError as error:
            # Without TLS, the host may still be one of http.
            at += len(PLACES) - at if error.error_class == "tls" else 1
        except TaskError as error:
            if error.error_class != "connection" or at or len(sites) == 1:
                raise
            at = len(PLACES)
        finally:
            context.job = job
        resume = None
        if job.host and context.settings.fetch.host_delay and not context.is_replay:
            raise Snoozed(job.host, json.dumps([at, None]))
    raise PermanentError(
        f"no sitemap: {ROBOTS} of {sites[-1]} names none, and there is none at "
        f"{', '.join(PLACES[1:])}; to follow links: paise2 enqueue links {sites[-1]}/ --depth 5",
        "not_found",
    )
