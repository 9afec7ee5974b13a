"""Tasks that find pages and files: feeds, sitemaps, folders and the links of pages.

They enqueue only what is new or has changed, so they may run again and again (`--every 1d`). URLs
in pages, feeds and sitemaps are followed only if they are http or https.
"""

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import Any

from paise2nb.content.crawl import fetchable
from paise2nb.content.fetch import item_with_url, visit
from paise2nb.content.sources import reading
from paise2nb.content.tasks import is_up_to_date
from paise2nb.core import urls
from paise2nb.core.errors import PermanentError, UsageError
from paise2nb.core.render import amount
from paise2nb.jobs.context import Context
from paise2nb.jobs.models import UNFINISHED, NewJob
from paise2nb.plugins import AppInfo, ContentSource, Task, hookimpl, task

PORTION = 500  # pages that are enqueued together


# Checking arguments --------------------------------------------------------------------------


def check_url(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept an http or https URL. Raises UsageError."""
    try:
        urls.parse(args[0])
    except (TypeError, ValueError) as error:
        given = str(args[0]).strip()
        shown = urls.shown_url(given)
        if "://" not in given and "." in (urls.host_of(f"https://{given}") or ""):
            raise UsageError(f"{shown!r} is no URL; did you mean https://{shown} ?") from None
        raise UsageError(f"{shown!r} is not an http or https URL: {error}") from None
    return args


def _host(args: tuple[Any, ...]) -> str | None:
    return urls.host_of(args[0])


def check_folder(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept a folder and make its path absolute. Raises UsageError."""
    with suppress(OSError, RuntimeError, TypeError, ValueError):
        path = Path(args[0]).expanduser().resolve()
        if path.is_dir():
            return (str(path), *args[1:])
    raise UsageError(f"{args[0]!r} is not a folder; to enqueue a file: enqueue fetch FILE")


# The tasks -----------------------------------------------------------------------------------


@task("feed", check=check_url, host=_host)
def feed(context: Context, url: str) -> dict[str, Any]:
    """Enqueue the entries of an RSS, Atom or JSON feed."""
    why = "no entry links to a page or a document"
    return enqueue_new(context, reading.feed_entries(visit(context, url)), why)


@task("folder", check=check_folder)
def folder(
    context: Context, path: str, recursive: bool = False, pattern: Sequence[str] = ()
) -> dict[str, Any]:
    """Enqueue the files of a folder, without hidden files and symbolic links."""
    if not Path(path).is_dir():
        raise PermanentError(f"no such folder: {path}", "not_found")
    why = "no file in it" + (" matches the patterns" if pattern else "")
    unread: list[OSError] = []
    files = _files(path, recursive, pattern, unread.append)
    result = _enqueue_new(context, files, why)
    if unread:
        example = f"{unread[0].filename} ({unread[0].strerror})"
        number = amount(len(unread), "folder")
        result["warning"] = f"left out: {number} that can't be read: {example}"
    return result


def _files(
    path: str, recursive: bool, pattern: Sequence[str], on_error: Callable[[OSError], None]
) -> Iterator[tuple[str, float]]:
    """The paths of files, with the time of their last change."""
    for directory, folders, names in os.walk(path, onerror=on_error):
        folders[:] = sorted(n for n in folders if recursive and not n.startswith("."))
        for name in sorted(names):
            file = Path(directory, name)
            relative = str(file.relative_to(path))
            is_wanted = not pattern or any(
                fnmatchcase(tried, glob) for glob in pattern for tried in (name, relative)
            )
            if is_wanted and not name.startswith("."):
                with suppress(FileNotFoundError):  # it was deleted meanwhile
                    found = file.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield str(file), found.st_mtime


@hookimpl
def source_task(name: str, source: ContentSource, plugin: str) -> Task:
    """The task that enqueues the URLs of a plugin's source, of all schemes with a fetcher."""

    @wraps(source.addresses)
    def run(context: Context, *arguments: Any) -> dict[str, Any]:
        schemes = context.plugins.schemes() - {"file"}  # only users and folders may name files
        found = dict.fromkeys(source.addresses(context, *arguments))
        select = partial(fetchable, schemes=schemes)
        return enqueue_new(context, found, "the source has no URLs", select)

    return Task(name, run, plugin=plugin)


# Enqueueing new URLs -------------------------------------------------------------------------


def enqueue_new(
    context: Context,
    found: Mapping[str, float | None],
    why: str | None,
    select: Callable[[Iterable[str]], Iterable[str]] = fetchable,
) -> dict[str, Any]:
    """Enqueue a fetch of each URL that is new or has changed.

    Args:
        context: The execution that found them.
        found: URLs with the time of their last change in seconds since the epoch, or None if it
            is not known.
        why: The warning if there are none. None for no warning.
        select: Selects those that may be fetched.

    Returns:
        The number of URLs ``found`` and of ``new`` jobs, and a ``warning`` if there are none.
    """
    selected = ((url, found.get(url)) for url in select(found))
    if why and found:
        why = f"none of {len(found)} URLs can be fetched"
    return _enqueue_new(context, selected, why)


def _enqueue_new(
    context: Context, pages: Iterable[tuple[str, float | None]], why: str | None
) -> dict[str, Any]:
    """Do the same for URLs or paths. Workers begin with the first before the last are found."""
    number = new = 0
    pages = iter(pages)
    while portion := dict(islice(pages, PORTION)):
        if number and not context.add_followups():
            break
        jobs = new_jobs(context, "fetch", [(url,) for url in portion])
        latest = context.job_store.latest(job.key for job in jobs)
        # Not by `context.enqueue`: these keep their keys, so a user who enqueues one finds it.
        followups = [
            job
            for job, (url, changed_at) in zip(jobs, portion.items(), strict=True)
            if is_new(context, url, changed_at, latest.get(job.key or 0))
        ]
        context.followups += followups
        number, new = number + len(portion), new + len(followups)
    if why and not number:
        context.log.warning("0 found: %s", why)
        return {"found": 0, "new": 0, "warning": f"0 found: {why}"}
    return {"found": number, "new": new}


def new_jobs(context: Context, task: str, every_args: list[tuple[Any, ...]]) -> list[NewJob]:
    """Jobs with the tag and the priority of the one that found them."""
    return context.new_jobs(task, every_args, tag=context.job.tag, priority=context.job.priority)


def is_new(
    context: Context, url: str, changed_at: float | None, last: Mapping[str, Any] | None
) -> bool:
    """Whether a URL was never fetched, or has changed since it was, even if the fetch failed.

    Args:
        context: The execution that found it.
        url: A URL or an absolute path.
        changed_at: When it last changed, in seconds since the epoch, or None if not known.
        last: The row of its latest fetch, or None.
    """
    if last is not None:
        if last["state"] in UNFINISHED:
            return False
        known = json.loads(last["result"] or "{}")
        seen_at = context.job_store.clock.wall(last["finished_at"])
    else:  # its job was removed, or it was stored in another way
        if (item := item_with_url(context.items, url)) is None:
            return True
        known = {"size": item["size"], **item["metadata"].get("source", {})}
        seen_at = known.get("fetched_at", 0.0)
    if urls.scheme_of(url) in (None, "file") and "mtime_ns" in known:
        return not is_up_to_date(context.settings, known, 0, (url,))
    return changed_at is not None and changed_at > seen_at
