"""Windows of pages: a few rows of many thousands, sorted and filtered, ready for JSON."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from paise2nb.core.display import arguments
from paise2nb.core.errors import redacted
from paise2nb.core.urls import short_url, url_path
from paise2nb.jobs.page_queries import Selection
from paise2nb.views.client import JobClient
from paise2nb.views.job_rows import LATER, as_pages, items_of, progress

SORTS = ("newest", "oldest", "host", "title", "state", "duration")
TITLED = 1000  # newest pages that are sorted by title: the titles are in another database
FOUND = 1000  # items with the words of a filter in their text

_AS_STORED = (
    *("id", "task", "state", "tag", "error_class", "error", "attempt", "max_attempts"),
    "waiting_for",
)


class PageWindow(NamedTuple):
    """Some rows of a list.

    Attributes:
        rows: those of the window.
        total: the number of all rows.
    """

    rows: list[dict[str, Any]]
    total: int


def window(
    client: JobClient,
    *,
    states: Collection[str] = (),
    tag: str | None = None,
    words: str = "",
    sort: str = "newest",
    offset: int = 0,
    limit: int = 50,
) -> PageWindow:
    """Read a window of the pages.

    Args:
        client: the app's client.
        states: page states; none means all.
        tag: one tag; None means all, an empty one the pages without a tag.
        words: all of them are in the URL, or in the title and text of the stored item.
        sort: one of `SORTS`. By title only the newest `TITLED` are sorted, the others follow.
        offset: the number of rows before the window.
        limit: the largest number of rows.
    """
    found = client.items.search(words, FOUND) if words.split() else []
    urls = [item["url"] for item in found]
    urls += [url_path(url) for url in urls if url.startswith("file:///")]  # it was a path
    selection = Selection(states, tag, words.split(), urls)
    pages, head = client.job_store.pages, list[dict[str, Any]]()
    if sort == "title":
        first, _ = pages(selection, "newest", 0, TITLED)
        head = sorted(_rows(client, first), key=_by_title)[offset : offset + limit]
        offset, limit, sort = max(offset, TITLED), limit - len(head), "newest"
    ids, total = pages(selection, sort, offset, limit)
    return PageWindow(head + _rows(client, ids), total)


def failed_window(
    client: JobClient, error_class: str | None, status: str | None, offset: int = 0, limit: int = 50
) -> PageWindow:
    """Read a window of the pages and other jobs that failed in one way, the latest first.

    Args:
        client: the app's client.
        error_class, status: of one of the groups in ``Status.failures``.
        offset: the number of rows before the window.
        limit: the largest number of rows.
    """
    ids = client.job_store.failed_of_group(error_class, status)
    return PageWindow(_rows(client, ids[offset : offset + limit]), len(ids))


def _by_title(row: Mapping[str, Any]) -> tuple[bool, str]:
    return row["title"] is None, (row["title"] or "").casefold()


def _rows(client: JobClient, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of pages and other jobs, in order.

    ``id``, ``task``, ``url`` (None for a job without one), ``host`` and ``path`` (for which a list
    has room), ``item`` and ``title`` of what was stored, ``state``, ``tag``, ``error_class``,
    ``error``, ``attempt``, ``max_attempts``, ``waiting_for``, ``progress``, ``duration`` in
    seconds, and times in seconds since the epoch: ``enqueued``, ``started``, ``due`` (of the next
    attempt) and ``time`` (when it ended, else that of what comes next, else of what came last).
    """
    job_store, wall = client.job_store, client.job_store.clock.wall
    known = job_store.rows(ids)
    parts = job_store.page_parts(known)
    stores = job_store.rows([part[-1] for part, _ in parts.values() if len(part) > 1])
    stored = {row["page_id"]: row for row in stores.values()}
    items = {
        page: items_of(part["result"] for part in (row, stored.get(page, row)))
        for page, row in known.items()
    }
    as_pages(job_store, known, "all")
    rows = []
    for row in filter(None, map(known.get, ids)):
        item = next(map(client.items.get, items[row["id"]]), None) or {}
        began, ended = row["started_at"], row["finished_at"]
        due = row["run_at"] if row["state"] in LATER else None
        times = {"enqueued": row["enqueued_at"], "started": began, "due": due}
        times["time"] = due or ended or began or row["enqueued_at"]
        url = str(row["args"][0]) if row["page_id"] is not None and row["args"] else None
        host, path = short_url(url or "")
        rows.append(
            {
                **{key: row[key] for key in _AS_STORED},
                "url": url and redacted(url),
                "host": host,
                "path": path or arguments(row["args"]),
                "item": item.get("id"),
                "title": item.get("title"),
                "progress": progress(row),
                "duration": max(ended - began, 0.0) if began and ended else None,
                **{name: at and wall(at) for name, at in times.items()},
            }
        )
    return rows
