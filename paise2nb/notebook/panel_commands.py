"""What the panel in a browser may ask of the kernel: to show more, and to change something.

Each command is a function of the app and of the values in the message. What it returns is JSON.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from paise2nb.app import App
from paise2nb.core import render
from paise2nb.core.clock import iso
from paise2nb.core.errors import UsageError, shortened
from paise2nb.core.render import amount, in_cell_words
from paise2nb.notebook.panel_state import brief, can_retry, group_of, key_of, link
from paise2nb.views.history import executions, parts_of, reason, shown_traceback
from paise2nb.views.items import NO_TITLE
from paise2nb.views.page_rows import failed_window, window

WINDOW = 50  # rows
LOG_LINES, LOG_LENGTH = 40, 500
PREVIEW, TRACEBACK = 3000, 6000  # characters
BARS = 60  # of the plot of the pace
EXPORT_LIMIT = 100_000  # rows
RESULTS = 10  # of a search
PLACE = 32  # characters of a URL beside a title
EXPORTED = ("id", "task", "url", "error_class", "error", "attempts", "failed_at")
_HIT = f"[{render.HIT_START}{render.HIT_END}]"


# More to see ---------------------------------------------------------------------------------


def failures(app: App, key: str, offset: int = 0) -> list[dict[str, Any]]:
    """A window of the failed pages and jobs of a group, the latest first."""
    error_class, status, _ = group_of(key)
    return list(map(_row, failed_window(app.client, error_class, status, offset, WINDOW).rows))


def pages(
    app: App,
    states: list[str],
    words: str = "",
    sort: str = "newest",
    offset: int = 0,
    limit: int = WINDOW,
) -> dict[str, Any]:
    """A window of the pages: its rows, and the number of all that fit."""
    found = window(
        app.client, states=states, words=words, sort=sort, offset=offset, limit=min(limit, WINDOW)
    )
    return {"rows": list(map(_row, found.rows)), "total": found.total}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a window, with a limit for each text."""
    args = [row["url"] or row["path"]]
    error = brief(reason(row["error"], args))
    name = row["title"] or error
    place = render.short(args[0], PLACE) if name else row["host"] or row["task"]
    values = ("id", "task", "state", "attempt", "duration", "time")
    return {
        **link(args),
        "name": brief(name or row["path"]),
        "place": brief(place),
        "error": error,
        **{key: row[key] for key in values},
    }


def failures_csv(app: App, key: str) -> str:
    """All failed pages and jobs of a group, as CSV."""
    error_class, status, _ = group_of(key)
    client, file = app.client, io.StringIO()
    writer = csv.writer(file)
    writer.writerow(EXPORTED)
    for row in failed_window(client, error_class, status, limit=EXPORT_LIMIT).rows:
        texts = (row["task"], row["url"] or row["path"], row["error_class"], row["error"])
        cells = [_cell(render.plain(text or "")) for text in texts]
        writer.writerow([row["id"], *cells, row["attempt"], iso(row["time"])])
    return file.getvalue()


def _cell(text: str) -> str:
    """A cell that no spreadsheet runs: OWASP, "CSV injection"."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def page(app: App, id: int) -> dict[str, Any]:
    """The way of a page or a job, and the beginning of what it stored."""
    job = app.job(id)
    job_store = app.queue.job_store
    parts = parts_of(job_store, job.row())
    tracebacks = (
        (part["id"], shown_traceback(attempt["traceback"]))
        for part in parts
        for attempt in job_store.attempts(part["id"])
    )
    return {
        **link(parts[0]["args"]),
        "command": in_cell_words(f"paise2 job {id}"),
        "runs": [
            {
                "task": brief(row["task"], 40),
                "outcome": row["outcome"],
                "started": row.get("started") or "",
                "took": row.get("took") or "",
                "message": brief(row.get("message") or "", 500),
            }
            for row in executions(job_store, parts)[-WINDOW:]
        ],
        "tracebacks": [
            [f"job {job_id}", render.plain(shortened(text, TRACEBACK))]
            for job_id, text in tracebacks
            if text
        ][-3:],
        "items": [
            {
                "id": item.id,
                "title": brief(item.title or NO_TITLE),
                "words": item.words,
                "text": render.plain((item.text or "")[:PREVIEW]),
            }
            for item in job.items[:3]
        ],
    }


def search(app: App, words: str) -> list[dict[str, Any]]:
    """The best results of a search. Every second piece of a snippet matches."""
    return [
        {
            "id": row["id"],
            "title": brief(row["title"] or NO_TITLE),
            **link([row["url"]]),
            "snippet": [render.plain(piece) for piece in re.split(_HIT, row["snippet"])],
        }
        for row in app.store.search(words, RESULTS)  # with the marks of hits
    ]


def pace(app: App, seconds: float) -> dict[str, Any]:
    """The pages and other jobs that ended in each part of the last seconds."""
    job_store = app.queue.job_store
    step = seconds / BARS
    last = int(job_store.now() // step)
    first = last - BARS + 1
    bars = {"completed": [0] * BARS, "failed": [0] * BARS}
    for at, completed, failed in job_store.ended(first * step):
        if 0 <= (number := int(at // step) - first) < BARS:
            bars["completed"][number] += completed
            bars["failed"][number] += failed
    return {"start": job_store.clock.wall(first * step), "step": step, **bars}


def here(app: App) -> None:
    """Nothing: any message says that a browser shows the panel."""


def log(app: App) -> list[str]:
    """The last lines of the workers' log."""
    return [brief(line, LOG_LENGTH) for line in app.logs(LOG_LINES).lines]


# Changes -------------------------------------------------------------------------------------


def start(app: App, concurrency: int) -> str:
    """Start workers, or scale those that run."""
    return app.workers.start(concurrency=concurrency).message or "workers started"


def stop(app: App) -> str:
    """Stop the workers; running jobs finish first."""
    return app.workers.stop().message or "workers stopped"


def pause(app: App) -> str:
    """Claim no more jobs."""
    app.workers.pause()
    return ""  # the pause itself is shown


def resume(app: App) -> str:
    """Claim jobs again."""
    app.workers.resume()
    return "resumed"


def retry(app: App, ids: list[int]) -> str:
    """Retry some jobs."""
    number = len(app.jobs(*ids).retry()) if ids else 0
    return f"{amount(number, 'job')} back in the queue" if number else "there is nothing to retry"


def retry_group(app: App, key: str) -> str:
    """Retry all failed jobs of a group."""
    return retry(app, _failed(app, key))


def retry_failed(app: App) -> str:
    """Retry what failed in ways that a retry can help; if nothing else has failed, the rest."""
    groups = app.status().failures
    chosen = list(filter(can_retry, groups)) or groups
    ids = dict.fromkeys(job_id for group in chosen for job_id in _failed(app, key_of(group)))
    left = sum(group["jobs"] for group in groups if group not in chosen)
    rest = f"; {left:,} not retried, as a retry seldom helps there: press again to retry the rest"
    return retry(app, list(ids)) + (rest if left else "")


def _failed(app: App, key: str) -> list[int]:
    """The failed pages and jobs of a group."""
    error_class, status, recurring = group_of(key)
    if recurring is not None:
        return [recurring]
    return app.queue.job_store.failed_of_group(error_class, status)


def cancel(app: App, id: int) -> str:
    """Cancel a job, with all that follows from it."""
    return f"{amount(len(app.job(id).cancel()), 'job')} cancelled"


def enqueue(app: App, text: str, tag: str = "", start: bool = False) -> str:
    """Fetch pages.

    Args:
        app: the app.
        text: one URL or path on a line; several URLs may share a line.
        tag: their tag.
        start: start workers, too, unless some run.
    """
    found = list(_targets(text))
    if not found:
        raise UsageError("paste at least one URL")
    enqueued = app.enqueue_many("fetch", found, tag=tag.strip() or None)
    if start and not app.immediate and not app.workers.present():
        app.workers.start()
    parts = {"new": enqueued.new, "already waiting": enqueued.waiting}
    parts["already up to date"] = enqueued.fresh
    return ", ".join(f"{number:,} {answer}" for answer, number in parts.items() if number)


def _targets(text: str) -> Iterable[str]:
    for line in filter(None, map(str.strip, text.splitlines())):
        yield from line.split() if "://" in line else [line]


Command = Callable[..., Any]
QUESTIONS: dict[str, Command] = {
    function.__name__: function
    for function in (failures, failures_csv, pages, page, search, pace, log, here)
}
SLOW = ("failures_csv",)  # takes seconds for many rows: other messages must not wait for it
# Those that change something, with what the panel says meanwhile.
CHANGES: dict[str, tuple[str, Command]] = {
    "start": ("starting workers", start),
    "scale": ("scaling workers", start),
    "stop": ("stopping workers", stop),
    "pause": ("pausing", pause),
    "resume": ("resuming", resume),
    "retry": ("retrying", retry),
    "retry_group": ("retrying", retry_group),
    "retry_failed": ("retrying", retry_failed),
    "cancel": ("cancelling", cancel),
    "enqueue": ("enqueueing", enqueue),
}
OF_WORKERS = ("start", "scale", "stop")  # one at a time
