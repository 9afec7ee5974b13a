"""The task that enqueues the pages in a WARC file, each under its own URL and time."""

import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from paise2nb.content import sources
from paise2nb.content.extract import warc
from paise2nb.content.extract.types import choose
from paise2nb.content.fetch import item_with_url
from paise2nb.content.sources import new_jobs
from paise2nb.content.tasks import existing_file
from paise2nb.core import urls
from paise2nb.core.errors import PermanentError, UsageError
from paise2nb.jobs.context import Context
from paise2nb.plugins import AppInfo, task

EXAMPLES = 3
DAY = 86400.0


def _check(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept an existing file, and make its path absolute. Raises UsageError."""
    if not isinstance(args[0], str | os.PathLike) or urls.host_of(str(args[0])):
        raise UsageError(f"warc takes a file, not {args[0]!r}; to fetch one: enqueue fetch URL")
    return (existing_file(os.fspath(args[0])),)


@task("warc", check=_check, timeout=DAY)
def web_archive(context: Context, path: str) -> dict[str, Any]:
    """Enqueue the pages in a WARC file, each with the URL and the time of its record."""
    archive = _Archive(context, urls.url_path(path))
    pages = archive.pages()
    while portion := list(islice(pages, sources.PORTION)):
        if context.followups and not context.add_followups():
            break
        jobs = new_jobs(context, "fetch", portion)
        context.followups += [job for job in jobs if archive.is_new(job.args)]
    result: dict[str, Any] = {"found": archive.found, "new": archive.new}
    if archive.left_out:
        result["left_out"] = archive.left_out
    if not archive.found and "up_to_date" not in archive.left_out:
        result["warning"] = "0 found: no record of a page in it"
    return result


class _Archive:
    """A WARC file, and what of it has been enqueued and left out."""

    def __init__(self, context: Context, path: str) -> None:
        self._context = context
        self._path = path
        self.found = self.new = 0
        self.left_out: dict[str, dict[str, Any]] = {}
        self._bodies: dict[str | None, dict[str, Any]] = {}
        # An execution that was interrupted has enqueued some of them.
        known = context.job_store.children(context.job.id) if context.job.run > 1 else []
        rows = context.job_store.rows(known).values()
        self._enqueued = {json.dumps(row["args"]) for row in rows}

    def is_new(self, args: str) -> bool:
        """Whether a page was not enqueued before. It is now."""
        args = json.dumps(json.loads(args))
        is_new = args not in self._enqueued
        self._enqueued.add(args)
        self.new += is_new
        return is_new

    def pages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The arguments of a fetch for each page. Its bytes are in the cache."""
        limit = self._context.settings.fetch.max_bytes
        try:
            with Path(self._path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for record in warc.records(file, limit):
                    self._context.progress(min(file.tell(), size), size)
                    if isinstance(record, warc.Damage):
                        self._leave_out("damaged", f"byte {record.at}: {record.reason}")
                    elif (body := self._body(record)) is not None:
                        self.found += 1
                        facts = {**body, "fetched_at": min(record.fetched_at, time.time())}
                        yield record.url, {**facts, "final_url": urls.shown_url(record.url)}
        except OSError as error:
            raise PermanentError(
                f"can't be read, {error.strerror}: {self._path}", "unreadable"
            ) from error

    def _body(self, record: warc.Record) -> dict[str, Any] | None:
        """What is known about the bytes of a page; None if the record is left out."""
        context, data, url = self._context, record.data, urls.shown_url(record.url)
        known = self._bodies.get(record.digest) or self._bodies.get(record.refers_to)
        if not record.is_answer:
            self._leave_out("no_answer", f"{record.status or ''} {url}".strip())
        elif isinstance(data, PermanentError):
            self._leave_out(data.error_class, f"{url}: {data}")
        elif self._is_stored(record):
            self._leave_out("up_to_date", url)
        elif data is None and known is None:
            self._leave_out("elsewhere", url)
        elif data is None:
            return known
        else:
            kind, extractor = choose(context.plugins, record.mime_type, data, urls.suffix_of(url))
            if extractor is not None and warc.is_page(kind, context.settings.extract.ocr):
                facts: dict[str, Any] = {"mime_type": record.mime_type, "charset": record.charset}
                facts |= {"sha256": context.cache.put(data), "size": len(data)}
                facts["archive"] = self._path
                self._bodies |= dict.fromkeys(filter(None, (record.digest, record.url)), facts)
                return facts
            self._leave_out("no_page", f"{kind} {url}")
        return None

    def _is_stored(self, record: warc.Record) -> bool:
        """Whether the collection has the page as it was then, or later."""
        item = item_with_url(self._context.items, record.url)
        known = item["metadata"].get("source", {}).get("fetched_at", 0.0) if item else 0.0
        return bool(known >= record.fetched_at)

    def _leave_out(self, reason: str, example: str) -> None:
        found = self.left_out.setdefault(reason, {"number": 0, "examples": []})
        found["number"] += 1
        if len(found["examples"]) < EXAMPLES:
            found["examples"].append(example)
            if reason == "damaged":
                self._context.log.warning("a damaged record of %s, %s", self._path, example)
