"""Tasks that find work: feeds, sitemaps, folders and the links of pages.

Each enqueues as follow-ups only what is new or has changed, so that it may run again and again
(`--every 1d`). What a page, feed or sitemap names is fetched only over http and https.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.content.fetch import visit
from paise2nb.core.errors import PermanentError, UsageError
from paise2nb.core.urls import (
    DEFAULT_PORTS,
    canonical_url,
    host_of,
    parse,
    scheme_of,
    without_credentials,
)
from paise2nb.jobs import UNFINISHED
from paise2nb.plugins import ContentSource, Task, task

if TYPE_CHECKING:
    from paise2nb.jobs.context import Context
    from paise2nb.plugins import AppInfo

MOST = 50_000  # addresses of one run; the limit of the sitemap protocol


# What may be asked for -----------------------------------------------------------------------


def check_address(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept an http or https address. Raises UsageError."""
    try:
        parse(args[0])
    except (TypeError, ValueError) as error:
        shown = without_credentials(str(args[0]))
        raise UsageError(f"{shown!r} is not an http or https address: {error}") from None
    return args


def _host(args: tuple[Any, ...]) -> str | None:
    return host_of(args[0])


def check_links(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept an address and a depth. Raises UsageError."""
    if len(args) > 1 and not (isinstance(args[1], int) and 1 <= args[1] <= 100):
        raise UsageError(f"depth is {args[1]!r}; give a number from 1 to 100")
    return check_address(app, args)


def check_folder(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept a folder, as an absolute path. Raises UsageError."""
    try:
        path = Path(args[0]).expanduser().resolve()
        if path.is_dir():
            return (str(path), *args[1:])
    except (OSError, RuntimeError, TypeError, ValueError):
        pass
    raise UsageError(f"{args[0]!r} is not a folder; a single file is enqueued by: fetch FILE")


# The tasks -----------------------------------------------------------------------------------


@task("feed", check=check_address, host=_host)
def feed(context: Context, url: str) -> dict[str, int]:
    """Enqueue the entries of an RSS or Atom feed."""
    from paise2nb.content.sources.reading import feed_entries

    return enqueue_new(context, feed_entries(visit(context, url)))


@task("sitemap", check=check_address, host=_host)
def sitemap(context: Context, url: str, inner: bool = False) -> dict[str, int]:
    """Enqueue the addresses of a sitemap, and the sitemaps of an index."""
    from paise2nb.content.sources.reading import sitemap_entries

    fetched = visit(context, url)
    pages, maps = sitemap_entries(fetched)
    if inner and maps:
        raise PermanentError(f"an index of sitemaps inside another: {fetched.url}", "unsupported")
    for address in _web(maps):
        context.enqueue("sitemap", address, True)
    return {**enqueue_new(context, pages), **({"sitemaps": len(maps)} if maps else {})}


@task("folder", check=check_folder)
def folder(
    context: Context, path: str, recursive: bool = False, pattern: Sequence[str] = ()
) -> dict[str, int]:
    """Enqueue the files of a folder; hidden ones and symbolic links are left out."""

    def files() -> Iterator[tuple[str, float]]:
        for place, folders, names in os.walk(path):
            folders[:] = sorted(n for n in folders if recursive and not n.startswith("."))
            for name in sorted(names):
                file = Path(place, name)
                relative = str(file.relative_to(path))
                fits = not pattern or any(
                    fnmatchcase(tried, glob) for glob in pattern for tried in (name, relative)
                )
                if fits and not name.startswith(".") and not file.is_symlink() and file.is_file():
                    yield str(file), file.stat().st_mtime

    if not Path(path).is_dir():
        raise PermanentError(f"no such folder: {path}", "not_found")
    return enqueue_new(context, dict(files()), keep=list)


@task("links", check=check_links, host=_host)
def links(
    context: Context,
    url: str,
    depth: int = 1,
    same_host: bool = True,
    pattern: Sequence[str] = (),
) -> dict[str, int]:
    """Enqueue the addresses that a page links to; with a depth, those that they link to, too."""
    from paise2nb.content.sources.reading import page_links
    from paise2nb.content.tasks import hand_over

    fetched = visit(context, url)
    host = parse(fetched.url).host
    found = {
        address: None
        for address in _web(page_links(fetched))
        if (not same_host or parse(address).host == host)
        and (not pattern or any(fnmatchcase(address, glob) for glob in pattern))
    }
    if context.job.parent_id is not None:  # a page on the way is an item like any other
        hand_over(context, url, fetched)
    if depth == 1:
        return enqueue_new(context, found)
    # A page is read once in a run, however many others link to it.
    job_store = context.app.queue.job_store
    root = job_store.rows([context.job.root_id])[context.job.root_id]
    jobs = context.app.new_jobs(
        context.plugins.task("links"),
        [(address, depth - 1, same_host, list(pattern)) for address in found],
        tag=context.job.tag, priority=context.job.priority,
    )  # fmt: skip
    latest = job_store.latest(job.key for job in jobs)
    new = [
        job
        for job in jobs
        if job.key not in latest or latest[job.key]["enqueued_at"] < root["started_at"]
    ]
    context.followups += new
    return {"found": len(found), "new": len(new)}


def source_task(name: str, source: ContentSource, plugin: str) -> Task:
    """The task that enqueues what a plugin's source finds, of whatever scheme has a fetcher."""

    @wraps(source.addresses)
    def run(context: Context, *arguments: Any) -> dict[str, int]:
        schemes = context.plugins.schemes() - {"file"}  # for a user or a folder to name
        found = dict.fromkeys(source.addresses(context, *arguments))
        return enqueue_new(context, found, keep=partial(_web, schemes=schemes))

    return Task(name, run, plugin=plugin)


# What is new ---------------------------------------------------------------------------------


def _web(
    addresses: Iterable[str], schemes: Collection[str] = tuple(DEFAULT_PORTS)
) -> Iterator[str]:
    """The addresses of some schemes among what somebody else wrote, each once, at most `MOST`."""
    seen: set[str] = set()
    for address in addresses:
        try:
            scheme = scheme_of(address.strip())
            if scheme in DEFAULT_PORTS:
                parse(address)
        except ValueError:
            continue
        if scheme not in schemes:
            continue
        if (key := canonical_url(address)) not in seen and len(seen) < MOST:
            seen.add(key)
            yield address.partition("#")[0].strip()


def enqueue_new(
    context: Context,
    found: Mapping[str, float | None],
    keep: Callable[[Iterable[str]], Iterable[str]] = _web,
) -> dict[str, int]:
    """Enqueue a fetch of each address that is new or has changed.

    Args:
        found: addresses or absolute paths, each with the time of its last change in seconds
            since the epoch, None where nobody says.
        keep: chooses those that may be fetched.
    """
    addresses = list(keep(found))
    jobs = context.app.new_jobs(
        context.plugins.task("fetch"), [(address,) for address in addresses],
        tag=context.job.tag, priority=context.job.priority,
    )  # fmt: skip
    latest = context.app.queue.job_store.latest(job.key for job in jobs)
    new = [
        job
        for job, address in zip(jobs, addresses, strict=True)
        if is_new(context, address, found.get(address), latest.get(job.key or 0))
    ]
    # With their keys: who enqueues one of them again finds it.
    context.followups += new
    return {"found": len(addresses), "new": len(new)}


def is_new(
    context: Context, address: str, changed_at: float | None, last: Mapping[str, Any] | None
) -> bool:
    """Whether an address was never fetched, or has changed since it was, in vain or not."""
    from paise2nb.content.tasks import is_fresh

    if last is not None and last["state"] in UNFINISHED:
        return False
    item_id = context.items.find(canonical_url(address)) if last is None else None
    item = None if item_id is None else context.items.get(item_id)
    known: dict[str, Any] = {}
    if last is not None:
        known = json.loads(last["result"] or "{}")
        seen_at = context.app.queue.job_store.clock.wall(last["finished_at"])
    elif item is not None:
        known = {"size": item["size"], **item["metadata"].get("source", {})}
        seen_at = known.get("fetched_at", 0.0)
    else:
        return True
    if scheme_of(address) in (None, "file") and "mtime_ns" in known:
        return not is_fresh(context.settings, known, 0, (address,))
    return changed_at is not None and changed_at > seen_at
